"""The calendar of schedules: when each is due next, and how many runs they ask for by the hour."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainyard.domain.requests import RequestKind
from trainyard.domain.schedules import Schedule, parse_schedule
from trainyard.domain.tenants import Tenant, TenantState

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A schedule of a tenant."""

    tenant_id: str
    tier: str
    data_set: str | None
    """None for all data sets without a schedule of their own."""
    kind: RequestKind
    text: str
    schedule: Schedule
    runs: int
    """That it asks for each time: of all data sets, at least so many, since only those with settings are known."""
    due_at: datetime | None
    """When it is due next; None for a rate, whose times are counted from when EventBridge got it."""


def planned_of(tenants: Iterable[Tenant], now: datetime) -> list[Planned]:
    """Return the schedules of tenants that are active, by the time at which they are due; rates come last."""
    active = (tenant for tenant in tenants if tenant.state is TenantState.ACTIVE)
    plans = [planned for tenant in active for planned in _of_tenant(tenant, now)]
    return sorted(
        plans, key=lambda each: (each.due_at is None, each.due_at or now, each.tenant_id, each.data_set or "")
    )


def load_of(plans: Iterable[Planned], now: datetime, hours: int) -> list[float]:
    """Return how many runs are expected to be asked for in each of the next hours.

    Those of a rate are spread evenly; those that EventBridge spreads over some minutes count when they are due.
    """
    load = [0.0] * hours
    for planned in plans:
        every = planned.schedule.every
        if every is not None:
            for hour in range(hours):
                if _is_on(planned.schedule, now + hour * HOUR):
                    load[hour] += planned.runs * (HOUR / every)
            continue
        for at in planned.schedule.due(now):
            if at >= now + hours * HOUR:
                break
            load[(at - now) // HOUR] += planned.runs
    return load


def _is_on(schedule: Schedule, at: datetime) -> bool:
    return (schedule.begins is None or schedule.begins <= at) and not schedule.has_ended(at)


def _of_tenant(tenant: Tenant, now: datetime) -> Iterator[Planned]:
    others = sum(name not in tenant.own_schedules for name in tenant.data_sets)
    texts: list[tuple[str | None, RequestKind, str, int]] = []
    if tenant.retrain_schedule:
        texts.append((None, RequestKind.TRAINING, tenant.retrain_schedule, max(others, 1)))
    texts += [(name, RequestKind.TRAINING, text, 1) for name, text in tenant.own_schedules.items()]
    texts += [(name, RequestKind.TRANSFORM, text, 1) for name, text in tenant.transform_schedules.items()]
    for data_set, kind, text, runs in texts:
        schedule = parse_schedule(text)
        if not schedule.has_ended(now):
            yield Planned(
                tenant_id=tenant.tenant_id,
                tier=tenant.tier,
                data_set=data_set,
                kind=kind,
                text=text,
                schedule=schedule,
                runs=runs,
                due_at=next(schedule.due(now), None) if schedule.every is None else None,
            )
