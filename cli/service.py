"""Pause, resume and drain the service, a tier or a tenant."""

import time
from datetime import UTC, datetime

from cli.arguments import Arguments
from cli.codes import UNSUCCESSFUL
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import say
from trainyard.domain.errors import Refused
from trainyard.domain.requests import Request

PAUSE_NOTED = "pause of {}"
"""Under which it is noted who paused something, when and why."""

SECONDS_BETWEEN_LOOKS = 2.0


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
    note_pause(deployment, _what(arguments), paused=paused, why=arguments.note if paused else "")


def note_pause(deployment: Deployment, what: str, *, paused: bool, why: str) -> None:
    """Note who has paused or resumed something, when and why; `trainyard status` tells it of what is paused."""
    note = {"paused": paused, "at": datetime.now(UTC).isoformat(), "by": deployment.caller(), "why": why}
    deployment.book.note(PAUSE_NOTED.format(what), note)
