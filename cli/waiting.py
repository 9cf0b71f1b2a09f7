"""Wait for requests to end, telling each change of their state."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cli.codes import DONE, UNSUCCESSFUL
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import say
from trainyard.domain.requests import TERMINAL, Request, State

SECONDS_BETWEEN_LOOKS = 1.0
APPEARS_WITHIN = timedelta(minutes=2)
"""How long a request usually takes at most to appear; then it is said what may have happened to it."""


def awaited(
    deployment: Deployment, find: Callable[[], Sequence[Request]], view: Callable[[Request], Any]
) -> Answer:
    """Wait until requests appear and all have ended; return how. One that was superseded is followed to its
    successor. Ctrl-C ends the waiting and nothing else.
    """
    try:
        return _outcome(_followed(deployment, find), view)
    except KeyboardInterrupt:
        say("the training goes on without this command; trainyard requests shows it")
        raise


def _followed(deployment: Deployment, find: Callable[[], Sequence[Request]]) -> list[Request]:
    began, warned, states = datetime.now(UTC), False, dict[str, State]()
    while True:
        requests = [_successor(deployment, request) for request in find()]
        for request in requests:
            if states.get(request.request_id) is not request.state:
                states[request.request_id] = request.state
                say(f"{request.request_id[:8]} {request.tenant_id} {request.data_set} {_state(request)}")
        if requests and all(request.state in TERMINAL for request in requests):
            return requests
        if not requests and not warned and datetime.now(UTC) - began > APPEARS_WITHIN:
            warned = True
            say(
                f"no request has appeared for {APPEARS_WITHIN.seconds // 60} minutes: an upload whose event was "
                "lost is found within an hour; `trainyard dlq list` shows messages that could not be read"
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


def _outcome(requests: Sequence[Request], view: Callable[[Request], Any]) -> Answer:
    unique = list({request.request_id: request for request in requests}.values())
    return Answer(
        data=[view(request) for request in unique],
        lines=[f"{request.request_id} {_state(request)}" for request in unique],
        code=DONE if all(request.state is State.SUCCEEDED for request in unique) else UNSUCCESSFUL,
    )


def _state(request: Request) -> str:
    return request.state.value + (f": {request.reason}" if request.reason else "")
