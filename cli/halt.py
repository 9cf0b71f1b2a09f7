"""The kill switch: nothing new starts, and what runs is stopped."""

import sys
import time
from argparse import Namespace
from contextlib import suppress
from datetime import UTC, datetime

from cli.deployment import Deployment
from cli.show import Answer
from trainyard.domain.errors import Refused
from trainyard.domain.requests import Request, State

WAIT_SECONDS = 60
"""For what is just being started, which cannot be stopped before it runs."""


def halt(deployment: Deployment, arguments: Namespace) -> Answer:
    """Say what would be stopped; with --yes pause the tenant, or all, and stop what runs."""
    if (arguments.what == "all") != (arguments.name is None):
        raise Refused("say what: `all`, or `tenant NAME`")
    held = _holding(deployment, arguments.name)
    whose = "all tenants" if arguments.name is None else f"tenant {arguments.name}"
    if not arguments.yes:
        return Answer(
            data={"would_stop": [request.request_id for request in held]},
            columns=("REQUEST", "TENANT", "TIER", "DATA SET", "STATE"),
            rows=[(r.request_id, r.tenant_id, r.tier, r.data_set, r.state.value) for r in held],
            lines=[
                f"nothing was stopped; add --yes to stop these {len(held)}, and start nothing new of {whose}"
                if held
                else f"nothing of {whose} runs; add --yes to start nothing new"
            ],
        )
    _pause(deployment, arguments.name)
    stopped: set[str] = set()
    asked: set[str] = set()
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        held = [r for r in _holding(deployment, arguments.name) if r.request_id not in asked]
        for request in held:
            if request.state is State.RUNNING:
                with suppress(Refused):  # it has just ended
                    deployment.stop.stop(request.request_id, datetime.now(UTC))
                    stopped.add(request.request_id)
                asked.add(request.request_id)
                print(f"halt: {len(stopped)} stopped", file=sys.stderr)
        if not any(request.state is State.ADMITTED for request in held) or time.monotonic() > deadline:
            break
        time.sleep(1)
    left = [r.request_id for r in held if r.state is State.ADMITTED]
    back = "trainyard resume all" if arguments.name is None else f"trainyard resume tenant {arguments.name}"
    lines = [f"{len(stopped)} of the trainings of {whose} are being stopped; nothing new starts until `{back}`"]
    if left:
        lines.append(f"{len(left)} were just being started, and run: stop them by this command once more")
    return Answer(data={"stopped": sorted(stopped), "starting": left}, lines=lines)


def _pause(deployment: Deployment, name: str | None) -> None:
    if name is None:
        deployment.waiting_room.set_paused(True)
    else:
        tenant = deployment.tenant(name)
        deployment.waiting_room.set_tenant_paused(tenant.tier, name, True, datetime.now(UTC))


def _holding(deployment: Deployment, name: str | None) -> list[Request]:
    room = deployment.waiting_room
    if name is not None:
        deployment.tenant(name)
    listed = [request for state in (State.ADMITTED, State.RUNNING) for request in room.active(state)]
    wanted = [request.request_id for request in listed if name is None or request.tenant_id == name]
    found = [r for begin in range(0, len(wanted), 100) for r in room.get_all(wanted[begin : begin + 100])]
    return [request for request in found if request.state in (State.ADMITTED, State.RUNNING)]
