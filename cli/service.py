"""Pause, resume and drain the service, a tier or a tenant."""

import time
from datetime import UTC, datetime

from cli.arguments import Arguments
from cli.codes import UNSUCCESSFUL
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import say
from trainyard.application.scheduling.pauses import Pausable
from trainyard.domain.requests import Request

SECONDS_BETWEEN_LOOKS = 2.0


def pause(deployment: Deployment, arguments: Arguments) -> Answer:
    """Pause all, a tier or a tenant."""
    what = _paused(deployment, arguments)
    return Answer(
        data={"paused": what},
        lines=[f"paused {what}: nothing new starts; running executions continue, uploads are still queued"],
    )


def resume(deployment: Deployment, arguments: Arguments) -> Answer:
    """Resume all, a tier or a tenant."""
    kind = Pausable(arguments.what)
    deployment.pauses.resume(kind, arguments.name, datetime.now(UTC), by=deployment.caller())
    what = _what(arguments)
    return Answer(data={"resumed": what}, lines=[f"resumed {what}"])


def drain(deployment: Deployment, arguments: Arguments) -> Answer:
    """Pause, and wait until nothing of it runs any more."""
    what = _paused(deployment, arguments)
    back = f"trainyard resume {what}"
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


def _paused(deployment: Deployment, arguments: Arguments) -> str:
    """Pause what a command names, and return it."""
    kind, now = Pausable(arguments.what), datetime.now(UTC)
    deployment.pauses.pause(kind, arguments.name, now, by=deployment.caller(), why=arguments.note)
    return _what(arguments)


def _held(deployment: Deployment, arguments: Arguments) -> list[Request]:
    if arguments.what == "tenant":
        return deployment.scheduler.tables.held_by(arguments.name)
    held = deployment.scheduler.tables.held()
    return [request for request in held if arguments.what == "all" or request.tier == arguments.name]


def _what(arguments: Arguments) -> str:
    return " ".join(filter(None, (arguments.what, arguments.name)))
