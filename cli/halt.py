"""The kill switch: start nothing new, and stop what is running."""

from contextlib import suppress
from datetime import UTC, datetime

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import say
from trainyard.application.scheduling.pauses import Pausable
from trainyard.domain.errors import Refused
from trainyard.domain.requests import Request


def halt(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show which executions would be stopped; with --yes, pause the tenant (or all) and stop them."""
    if (arguments.what == "all") != (arguments.name is None):
        raise Refused("give either `all` or `tenant NAME`")
    held = _holding(deployment, arguments.name)
    whose = "all tenants" if arguments.name is None else f"tenant {arguments.name}"
    if not arguments.yes:
        return Answer(
            data={"would_stop": [request.request_id for request in held]},
            columns=("REQUEST", "TENANT", "TIER", "DATA SET", "STATE"),
            rows=[(r.request_id, r.tenant_id, r.tier, r.data_set, r.state.value) for r in held],
            lines=[
                f"nothing was stopped; add --yes to stop {len(held)} executions and pause {whose}"
                if held
                else f"no executions of {whose} are running; add --yes to pause {whose}"
            ],
        )
    kind = Pausable.ALL if arguments.name is None else Pausable.TENANT
    now, by = datetime.now(UTC), deployment.caller()
    deployment.pauses.pause(kind, arguments.name, now, by=by, why="halted")
    stopped: list[str] = []
    for request in _holding(deployment, arguments.name):
        with suppress(Refused):  # it has just ended
            deployment.stop.stop(request.request_id, datetime.now(UTC))
            stopped.append(request.request_id)
        say(f"halt: stop requested for {len(stopped)} executions")
    back = "trainyard resume all" if arguments.name is None else f"trainyard resume tenant {arguments.name}"
    return Answer(
        data={"stopped": sorted(stopped)},
        lines=[f"{len(stopped)} trainings of {whose} are being stopped; nothing new starts until `{back}`"],
    )


def _holding(deployment: Deployment, name: str | None) -> list[Request]:
    if name is None:
        return deployment.scheduler.tables.held()
    deployment.tenant(name)
    return deployment.scheduler.tables.held_by(name)
