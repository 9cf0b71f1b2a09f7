"""The calendar of schedules: when each is due next, and how many runs they ask for by the hour."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from trainyard.domain.errors import Refused
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
    """When it is due next; None for a rate without a beginning: it is counted from when EventBridge got it."""


class Calendar(NamedTuple):
    """The schedules of tenants."""

    plans: list[Planned]
    """By the time at which they are due; rates without a beginning come last."""
    unreadable: list[str]
    """Those that cannot be read, with whose they are and why."""


def calendar_of(tenants: Iterable[Tenant], now: datetime) -> Calendar:
    """Return the schedules of the tenants that are active, without those that have ended."""
    plans: list[Planned] = []
    unreadable: list[str] = []
    for tenant in tenants:
        for data_set, kind, text, runs in _texts_of(tenant) if tenant.state is TenantState.ACTIVE else ():
            try:
                schedule = parse_schedule(text)
            except Refused as refusal:
                whose = f"{tenant.tenant_id}/{data_set}" if data_set else tenant.tenant_id
                unreadable.append(f"a schedule of {whose} cannot be read: {refusal}")
                continue
            if schedule.has_ended(now):
                continue
            plans.append(
                Planned(
                    tenant_id=tenant.tenant_id,
                    tier=tenant.tier,
                    data_set=data_set,
                    kind=kind,
                    text=text,
                    schedule=schedule,
                    runs=runs,
                    due_at=next(schedule.due(now), None) if schedule.every is None or schedule.begins else None,
                )
            )
    plans.sort(key=lambda each: (each.due_at is None, each.due_at or now, each.tenant_id, each.data_set or ""))
    return Calendar(plans, unreadable)


def load_of(plans: Iterable[Planned], now: datetime, hours: int) -> list[float]:
    """Return how many runs are expected to be asked for in each of the next hours.

    Those of a rate are spread evenly; those that EventBridge spreads over some minutes count when they are due.
    """
    load = [0.0] * hours
    for planned in plans:
        every = planned.schedule.every
        if every is not None:
            for hour in range(hours):
                if planned.schedule.is_on(now + hour * HOUR):
                    load[hour] += planned.runs * (HOUR / every)
            continue
        for at in planned.schedule.due(now):
            if at >= now + hours * HOUR:
                break
            load[(at - now) // HOUR] += planned.runs
    return load


def _texts_of(tenant: Tenant) -> Iterator[tuple[str | None, RequestKind, str, int]]:
    """Yield data set, kind, text and number of runs of each schedule of a tenant."""
    if tenant.retrain_schedule:
        others = sum(name not in tenant.own_schedules for name in tenant.data_sets)
        yield None, RequestKind.TRAINING, tenant.retrain_schedule, max(others, 1)
    for name, text in tenant.own_schedules.items():
        yield name, RequestKind.TRAINING, text, 1
    for name, text in tenant.transform_schedules.items():
        yield name, RequestKind.TRANSFORM, text, 1
