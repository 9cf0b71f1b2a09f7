"""Stop requests: one, several, or all that options select."""

from datetime import UTC, datetime

from botocore.exceptions import BotoCoreError, ClientError

from cli.arguments import Arguments
from cli.codes import DONE, REFUSED
from cli.deployment import Deployment
from cli.requests import arrived_within, matching
from cli.show import Answer
from cli.text import say
from trainyard.domain.errors import Refused, TrainyardError
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
    data: list[dict[str, str | None]] = []
    lines: list[str] = []
    failures = 0
    for number, request in enumerate(requests, start=1):
        name = request.request_id
        try:
            stopped = deployment.stop.stop(name, datetime.now(UTC))
        except (TrainyardError, ClientError, BotoCoreError) as error:
            if len(requests) == 1 and arguments.request_ids:
                raise
            # The others are stopped all the same.
            # One that options selected may have ended since.
            failures += not (isinstance(error, Refused) and not arguments.request_ids)
            data.append({"request_id": name, "state": None, "error": str(error)})
            lines.append(f"{name} was not stopped: {error}")
        else:
            data.append({"request_id": name, "state": stopped.state.value, "error": None})
            lines.append(f"{name} {_SAID.get(stopped.state, 'is being stopped')}")
        if number % 25 == 0:
            say(f"{number} of {len(requests)}")
    return Answer(data=data, lines=lines or ["nothing to stop"], code=REFUSED if failures else DONE)


def _would_stop(requests: list[Request]) -> Answer:
    return Answer(
        data={"would_stop": [request.request_id for request in requests]},
        columns=("REQUEST", "TENANT", "TIER", "DATA SET", "STATE"),
        rows=[(r.request_id, r.tenant_id, r.tier, r.data_set, r.state.value) for r in requests],
        lines=[f"nothing was stopped; add --yes to stop these {len(requests)} requests"],
    )
