"""Wait for requests to end, telling each change of their state."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cli.codes import DONE, UNSUCCESSFUL
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted, say
from trainyard.domain.requests import TERMINAL, Request, State

SECONDS_BETWEEN_LOOKS = 1.0
USUALLY_WITHIN = timedelta(minutes=2)
"""How long a request usually takes at most to appear; then it is said what may have happened to it."""

FOUND_WITHIN = timedelta(minutes=75)
"""After which the sweeper has found an upload whose event was lost; nothing is waited for any longer."""


def awaited(
    deployment: Deployment,
    find: Callable[[], Sequence[Request]],
    view: Callable[[Request], Any],
    *,
    expected: int = 1,
    appear_within: timedelta = FOUND_WITHIN,
) -> Answer:
    """Wait until as many requests as expected have appeared and ended; return how.

    One that was superseded is followed to its successor. Those that do not appear within a time are told, and
    count as not successful. Ctrl-C ends the waiting and nothing else.
    """
    try:
        requests = _followed(deployment, find, expected, appear_within)
        return _outcome(requests, view, missing=max(0, expected - len(requests)))
    except KeyboardInterrupt:
        say("the request goes on without this command; trainyard requests shows it")
        raise


def _followed(
    deployment: Deployment, find: Callable[[], Sequence[Request]], expected: int, appear_within: timedelta
) -> list[Request]:
    began, warned, states = datetime.now(UTC), False, dict[str, State]()
    while True:
        requests = [_successor(deployment, request) for request in find()]
        for request in requests:
            if states.get(request.request_id) is not request.state:
                states[request.request_id] = request.state
                say(f"{request.request_id[:8]} {request.tenant_id} {request.data_set} {_state(request)}")
        waited = datetime.now(UTC) - began
        complete = len(requests) >= expected or waited > appear_within
        if complete and all(request.state in TERMINAL for request in requests):
            return requests
        if len(requests) < expected and not warned and waited > USUALLY_WITHIN:
            warned = True
            say(
                f"{counted(expected - len(requests), 'request')} not seen after {USUALLY_WITHIN.seconds // 60} "
                "minutes: an upload whose event was lost is found within an hour; `trainyard dlq list` shows "
                "messages that could not be read"
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _successor(deployment: Deployment, request: Request) -> Request:
    """Return the request that trains instead of a superseded one."""
    while request.state is State.SUPERSEDED and request.superseded_by:
        following = deployment.scheduler.tables.requests.get(request.superseded_by)
        if following is None:
            return request
        request = following
    return request


def _outcome(requests: Sequence[Request], view: Callable[[Request], Any], *, missing: int) -> Answer:
    unique = list({request.request_id: request for request in requests}.values())
    return Answer(
        data=[view(request) for request in unique],
        lines=[
            *(f"{request.request_id} {_state(request)}" for request in unique),
            *([f"{counted(missing, 'request')} did not appear; trainyard dlq list"] if missing else []),
        ],
        code=DONE if not missing and all(request.state is State.SUCCEEDED for request in unique) else UNSUCCESSFUL,
    )


def _state(request: Request) -> str:
    return request.state.value + (f": {request.reason}" if request.reason else "")
