"""What schedules will ask for, and the load that this makes."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import ID_CHARACTERS_MIN, Answer
from cli.text import counted
from trainyard.application.scheduling.calendar import Planned, calendar_of, load_of
from trainyard.domain.retraining_record import RetrainingRecord
from trainyard.domain.tenants import Tenant
from trainyard.persistence.retraining_records import ALL, record_from, records_of

BAR_WIDTH = 30
TRIGGERS_SHOWN = 30
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def retraining(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show the schedules of one tenant or of all, when each is due, and the runs by the hour."""
    now = datetime.now(UTC)
    tenants = [deployment.tenant(arguments.tenant_id)] if arguments.tenant_id else list(deployment.tenants.all())
    plans, unreadable = calendar_of(tenants, now)
    load = load_of(plans, now, arguments.hours)
    records = _records(deployment, tenants)
    slots = deployment.policies.current().at(now).running_max
    return Answer(
        data={
            "schedules": [_view(planned) for planned in plans],
            "triggers": [_trigger_view(*each) for each in records],
            "load": [
                {"from": now + number * timedelta(hours=1), "runs": round(runs, 2)}
                for number, runs in enumerate(load)
            ],
            "slots": slots,
        },
        columns=("DUE", "TENANT", "DATA SET", "KIND", "RUNS", "SCHEDULE"),
        rows=[
            (
                f"{planned.due_at:%m-%d %H:%M}" if planned.due_at else "by its rate",
                planned.tenant_id,
                planned.data_set or "all others",
                planned.kind.value,
                planned.runs if planned.data_set else f"{planned.runs} or more",
                planned.text,
            )
            for planned in plans
        ],
        lines=[*_triggers(records), *(_drawn(load, now, slots) if plans else [])],
        alarms=unreadable,
        below="SCHEDULE",
    )


def _records(deployment: Deployment, tenants: Iterable[Tenant]) -> list[tuple[str, str, RetrainingRecord]]:
    """Return tenant, data set and record of what was asked to train by itself, the last one first."""
    records = [
        (tenant.tenant_id, data_set, record_from(item))
        for tenant in tenants
        for data_set, item in records_of(deployment.store, tenant.tenant_id)
        if data_set != ALL
    ]
    asked = [each for each in records if each[2].last is not None]
    return sorted(asked, key=lambda each: each[2].last.at if each[2].last else EPOCH, reverse=True)


def _trigger_view(tenant_id: str, data_set: str, record: RetrainingRecord) -> dict[str, object]:
    last = record.last
    assert last is not None, "the others are left out"
    return {
        "tenant": tenant_id,
        "data_set": data_set,
        "trigger": last.trigger,
        "at": last.at,
        "request_id": last.request_id or None,
        "left_out_because": last.left_out or None,
        "left_out_since_the_last_request": record.left_out,
    }


def _triggers(records: Sequence[tuple[str, str, RetrainingRecord]]) -> list[str]:
    """Return a line for each data set that was asked to train by itself: what asked last, and what came of it."""
    lines = ["asked to train by itself, the last time of each data set:"] if records else []
    for tenant_id, data_set, record in records[:TRIGGERS_SHOWN]:
        last = record.last
        assert last is not None, "the others are left out"
        became = f"request {last.request_id[:ID_CHARACTERS_MIN]}"
        if last.left_out:
            times = f" ({record.left_out} times in a row)" if record.left_out > 1 else ""
            became = f"not trained{times}: {last.left_out}"
        lines.append(f"{last.at:%m-%d %H:%M}  {tenant_id}/{data_set}  {last.trigger}: {became}")
    if len(records) > TRIGGERS_SHOWN:
        lines.append(f"and {len(records) - TRIGGERS_SHOWN} more; --json has all of them")
    return lines


def _view(planned: Planned) -> dict[str, object]:
    return {
        "tenant": planned.tenant_id,
        "tier": planned.tier,
        "data_set": planned.data_set,
        "kind": planned.kind.value,
        "schedule": planned.text,
        "runs": planned.runs,
        "due_at": planned.due_at,
    }


def _drawn(load: list[float], now: datetime, slots: int) -> list[str]:
    """Return a line for each hour in which something is expected, drawn against the slots."""
    most = max(*load, slots, 1)
    lines = [f"runs expected by the hour (UTC), of {counted(slots, 'slot')}:"]
    for number, runs in enumerate(load):
        if runs:
            bar = "█" * max(round(BAR_WIDTH * runs / most), 1)
            lines.append(f"{now + timedelta(hours=number):%m-%d %H:%M}  {bar} {runs:.3g}")
    return lines
