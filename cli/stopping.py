"""Stop requests: one, several, or all that options select."""

from contextlib import suppress
from datetime import UTC, datetime

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.requests import arrived_within, matching
from cli.show import Answer
from cli.text import say
from trainyard.domain.errors import Refused
from trainyard.domain.requests import TERMINAL, Request, State

_SAID = {
    State.CANCELLED: "was cancelled before it started",
    State.ADMITTED: "is just being started and will be stopped within a few minutes",
    State.RUNNING: "is being stopped",
}


def stop(deployment: Deployment, arguments: Arguments) -> Answer:
    """Cancel what waits, and stop what runs; what is selected by options only with --yes."""
    filters = any((arguments.tenant_id, arguments.tier, arguments.state, arguments.since))
    if bool(arguments.request_ids) == filters:
        raise Refused("name requests, or select them by --tenant, --tier, --state or --since")
    if arguments.request_ids:
        requests = [deployment.request(name) for name in arguments.request_ids]
    else:
        requests = [
            request
            for request in matching(deployment, arguments)
            if request.state not in TERMINAL and arrived_within(request, arguments)
        ]
        if not arguments.yes:
            return _would_stop(requests)
    stopped: list[Request] = []
    for number, request in enumerate(requests, start=1):
        if arguments.request_ids:
            stopped.append(deployment.stop.stop(request.request_id, datetime.now(UTC)))
        else:
            with suppress(Refused):  # it has ended since it was listed
                stopped.append(deployment.stop.stop(request.request_id, datetime.now(UTC)))
        if number % 25 == 0:
            say(f"stopped {number} of {len(requests)}")
    return Answer(
        data=[{"request_id": request.request_id, "state": request.state.value} for request in stopped],
        lines=[f"{request.request_id} {_SAID.get(request.state, 'is being stopped')}" for request in stopped]
        or ["nothing to stop"],
    )


def _would_stop(requests: list[Request]) -> Answer:
    return Answer(
        data={"would_stop": [request.request_id for request in requests]},
        columns=("REQUEST", "TENANT", "TIER", "DATA SET", "STATE"),
        rows=[(r.request_id, r.tenant_id, r.tier, r.data_set, r.state.value) for r in requests],
        lines=[f"nothing was stopped; add --yes to stop these {len(requests)} requests"],
    )
