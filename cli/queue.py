"""Who is next: the waiting requests of each tier in the order of their expected starts."""

from datetime import UTC, datetime

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted
from trainyard.application.scheduling.explain import Upcoming
from trainyard.domain.errors import Refused
from trainyard.persistence.tenant_queues import Backlog


def queue(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show the requests that are next in one tier, or in each."""
    policy, now = deployment.policies.current(), datetime.now(UTC)
    if arguments.tier and policy.tier(arguments.tier) is None:
        raise Refused(
            f"there is no tier {arguments.tier!r}; the policy has {', '.join(t.name for t in policy.tiers)}"
        )
    upcoming = [
        each
        for each in deployment.explain.upcoming(now, limit=arguments.limit)
        if arguments.tier in (None, each.tier)
    ]
    backlogs = deployment.scheduler.tables.queues.backlog(policy)
    waiting = {name: backlog.waiting for name, backlog in backlogs.items() if arguments.tier in (None, name)}
    shown = {name: sum(each.tier == name for each in upcoming) for name in waiting}
    return Answer(
        data=[
            {
                "tier": each.tier,
                "position": each.position,
                "request_id": each.entry.request_id,
                "tenant_id": each.tenant_id,
                "data_set": each.entry.data_set,
                "arrived_at": each.entry.arrived_at,
                "earliest_start": each.earliest,
                "latest_start": each.latest,
                "reason": each.reason.value,
            }
            for each in upcoming
        ],
        columns=("TIER", "NO", "REQUEST", "TENANT", "DATA SET", "ARRIVED", "EXPECTED START", "REASON"),
        rows=[_row(each, now) for each in upcoming],
        lines=[
            f"tier {name}: {shown[name]} of {counted(waiting[name], 'waiting request')} shown"
            f"{_set_aside(backlogs[name])}; trainyard requests --state QUEUED lists all"
            for name in waiting
            if shown[name] < waiting[name]
        ],
        below="REASON",
    )


def _set_aside(backlog: Backlog) -> str:
    """Return whose requests the list lacks, as passes do not read what cannot go."""
    parts = [f"{counted(number, 'tenant')}: {reason}" for reason, number in backlog.parked.items()]
    parts += [f"{counted(len(backlog.paused), 'tenant')} paused"] if backlog.paused else []
    return f" (cannot start now: {'; '.join(parts)})" if parts else ""


def _row(each: Upcoming, now: datetime) -> tuple[object, ...]:
    return (
        each.tier,
        each.position,
        each.entry.request_id,
        each.tenant_id,
        each.entry.data_set,
        f"{each.entry.arrived_at:%m-%d %H:%M:%S}",
        _start(each, now),
        each.reason.value,
    )


def _start(each: Upcoming, now: datetime) -> str:
    """Return when a request is expected to start, from now: "now", "in 4 to 12 min"."""
    if each.latest is None:
        return "not known"
    first, last = (max(0, round((at - now).total_seconds())) for at in (each.earliest or each.latest, each.latest))
    if last < 5:
        return "now"
    if last < 120:
        return f"in {last} s" if first == last else f"in {first} to {last} s"
    first, last = first // 60, -(-last // 60)
    if last >= 300:
        return f"in {first // 60} to {-(-last // 60)} h"
    return f"in {first} to {last} min"
