"""The service as a whole: status, pause, policy."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from cli import dlq, windows
from cli.arguments import Arguments
from cli.codes import UNSUCCESSFUL
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import say
from trainyard.domain.errors import Refused
from trainyard.domain.requests import Request, State
from trainyard.domain.scheduling import Ledger

PAUSE_NOTED = "pause of {}"
"""Under which it is noted who paused something, when and why."""

SECONDS_BETWEEN_LOOKS = 2.0
NAMED_MAX = 5
"""Paused tenants that are named."""


def status(deployment: Deployment, arguments: Arguments) -> Answer:
    scheduler, now = deployment.scheduler, datetime.now(UTC)
    ledger = scheduler.tables.ledger.read()
    policy = deployment.policies.current().at(now, ledger.epoch)
    backlog = scheduler.tables.queues.backlog(policy)
    running = [request for request in deployment.scheduler.tables.held() if request.state is State.RUNNING]
    rows = [
        {
            "tier": tier.name,
            "slots_used": ledger.used_of_tier(tier.name),
            "slots": tier.quota,
            "running": sum(request.tier == tier.name for request in running),
            "waiting": backlog[tier.name].waiting,
            "oldest_arrived_at": backlog[tier.name].oldest_arrived_at,
        }
        for tier in policy.tiers
    ]
    data = {"paused": ledger.paused, "slots_used": ledger.used, "slots": policy.running_max, "tiers": rows}
    data["expedited"] = [asdict(each) for each in ledger.expedited]
    data |= windows.as_data(policy)
    paused_tenants = [tenant_id for tier in policy.tiers for tenant_id in backlog[tier.name].paused]
    letters = dlq.counts(deployment)
    data |= {
        "paused_tiers": sorted(ledger.paused_tiers),
        "paused_tenants": paused_tenants,
        "dead_letters": letters,
    }
    closed = [
        f"tier {tier.name} is closed at this time: nothing of it starts" for tier in policy.tiers if tier.closed
    ]
    paused = " (paused)" if ledger.paused else ""
    return Answer(
        data=data,
        columns=("TIER", "SLOTS USED", "SLOTS", "RUNNING", "WAITING", "OLDEST ARRIVAL"),
        rows=[tuple(row.values()) for row in rows],
        lines=[
            f"{ledger.used} of {policy.running_max} slots used{paused}; policy version {policy.version}",
            *closed,
            *_paused_lines(deployment, ledger, paused_tenants),
            *(f"{count} dead letters in {name}; trainyard dlq list" for name, count in letters.items() if count),
            *windows.lines_about(policy, now),
            *(
                f"first in {each.tier}: {each.request_id} of {each.tenant_id}, expedited by {each.by}: {each.why}"
                for each in ledger.expedited
            ),
        ],
    )


def _paused_lines(deployment: Deployment, ledger: Ledger, tenants: Sequence[str]) -> Iterator[str]:
    """Yield what is paused, since when, by whom and why, with the command that resumes it."""
    if ledger.paused:
        yield f"the service is paused{_noted(deployment, 'all')}; trainyard resume all"
    for name in sorted(ledger.paused_tiers):
        yield f"tier {name} is paused{_noted(deployment, f'tier {name}')}; trainyard resume tier {name}"
    for name in tenants[:NAMED_MAX]:
        noted = _noted(deployment, f"tenant {name}")
        yield f"tenant {name} is paused{noted}, and has requests waiting; trainyard resume tenant {name}"
    if len(tenants) > NAMED_MAX:
        yield f"{len(tenants) - NAMED_MAX} more tenants are paused"


def _noted(deployment: Deployment, what: str) -> str:
    """Return since when something is paused, by whom and why; "" where that was not noted."""
    note = deployment.book.noted(PAUSE_NOTED.format(what))
    if note is None:
        return ""
    why = f": {note['why']}" if note["why"] else ""
    return f" since {str(note['at'])[:16].replace('T', ' ')} UTC by {note['by']}{why}"


def pause(deployment: Deployment, arguments: Arguments) -> Answer:
    """Pause all, a tier or a tenant."""
    _set_paused(deployment, arguments, paused=True)
    what = _what(arguments)
    return Answer(
        data={"paused": what},
        lines=[f"paused {what}: nothing new starts; running executions continue, uploads are still queued"],
    )


def resume(deployment: Deployment, arguments: Arguments) -> Answer:
    """Resume all, a tier or a tenant."""
    _set_paused(deployment, arguments, paused=False)
    deployment.bell.ring()
    what = _what(arguments)
    return Answer(data={"resumed": what}, lines=[f"resumed {what}"])


def drain(deployment: Deployment, arguments: Arguments) -> Answer:
    """Pause, and wait until nothing of it runs any more."""
    _set_paused(deployment, arguments, paused=True)
    what, back = _what(arguments), f"trainyard resume {_what(arguments)}"
    deadline = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    before: int | None = None
    try:
        while held := _held(deployment, arguments):
            if len(held) != before:
                before = len(held)
                say(f"paused {what}; {before} executions have not ended")
            if deadline is not None and time.monotonic() > deadline:
                return Answer(
                    data={"drained": what, "running": [request.request_id for request in held]},
                    lines=[f"{len(held)} executions run on, and nothing new starts; {back}"],
                    code=UNSUCCESSFUL,
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        say(f"nothing new starts; {back}")
        raise
    return Answer(data={"drained": what, "running": []}, lines=[f"nothing of {what} runs; {back}"])


def _held(deployment: Deployment, arguments: Arguments) -> list[Request]:
    if arguments.what == "tenant":
        return deployment.scheduler.tables.held_by(arguments.name)
    held = deployment.scheduler.tables.held()
    return [request for request in held if arguments.what == "all" or request.tier == arguments.name]


def _what(arguments: Arguments) -> str:
    return " ".join(filter(None, (arguments.what, arguments.name)))


def _set_paused(deployment: Deployment, arguments: Arguments, *, paused: bool) -> None:
    scheduler, what, name = deployment.scheduler, arguments.what, arguments.name
    if (what == "all") != (name is None):
        raise Refused("give `all`, `tier NAME` or `tenant NAME`")
    if what == "all":
        scheduler.tables.ledger.set_paused(paused)
    elif what == "tier":
        policy = deployment.policies.current()
        if policy.tier(name) is None:
            raise Refused(f"there is no tier {name!r}; the policy has {', '.join(t.name for t in policy.tiers)}")
        scheduler.tables.ledger.set_paused(paused, name)
    else:
        tenant = deployment.tenant(name)
        scheduler.operations.set_tenant_paused(tenant.tier, tenant.tenant_id, paused, datetime.now(UTC))
    if paused:
        note = {"at": datetime.now(UTC).isoformat(), "by": deployment.caller(), "why": arguments.note}
        deployment.book.note(PAUSE_NOTED.format(_what(arguments)), note)
