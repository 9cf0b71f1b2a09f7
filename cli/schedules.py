"""What schedules will ask for, and the load that this makes."""

from datetime import UTC, datetime, timedelta

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted
from trainyard.application.scheduling.calendar import Planned, calendar_of, load_of

BAR_WIDTH = 30


def retraining(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show the schedules of one tenant or of all, when each is due, and the runs by the hour."""
    now = datetime.now(UTC)
    tenants = [deployment.tenant(arguments.tenant_id)] if arguments.tenant_id else list(deployment.tenants.all())
    plans, unreadable = calendar_of(tenants, now)
    load = load_of(plans, now, arguments.hours)
    slots = deployment.policies.current().at(now).running_max
    return Answer(
        data={
            "schedules": [_view(planned) for planned in plans],
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
        lines=_drawn(load, now, slots) if plans else [],
        alarms=unreadable,
        below="SCHEDULE",
    )


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
