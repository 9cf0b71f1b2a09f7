"""Run a tenant's state machine, show its progress, and return its output."""

import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

from cli.deployment import Deployment
from cli.text import say
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Change

LOOKS_PER_SECOND = 2


def run(deployment: Deployment, change: Change, payload: dict[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """Start a run and follow it to its end; raises Refused with the reason when the run fails.

    Interrupting this call does not stop the run; the tenant's record shows its progress.
    """
    name = payload["tenant"]["name"]
    machines = deployment.client("stepfunctions")
    started = machines.start_execution(
        stateMachineArn=f"{deployment.outputs['TenantMachines']}{change.value}",
        name=f"{_plain(name)}-{uuid.uuid4().hex[:12]}",
        input=json.dumps(payload),
    )["executionArn"]
    try:
        execution = _followed(deployment, started, f"{change} {name}", quiet=quiet)
    except KeyboardInterrupt:
        say(f"the change goes on without this command; trainyard tenant show {_plain(name)} shows its progress")
        raise
    if execution["status"] != "SUCCEEDED":
        raise Refused(_words(execution.get("cause")) or f"the run ended as {execution['status']}: {started}")
    output: dict[str, Any] = json.loads(execution["output"])
    return output


def _followed(deployment: Deployment, started: str, what: str, *, quiet: bool) -> dict[str, Any]:
    """Print the progress of a run until it ends; return how it ended."""
    machines = deployment.client("stepfunctions")
    seen, line_shown = 0, ""
    while True:
        execution: dict[str, Any] = machines.describe_execution(executionArn=started)
        for number, line in _news(machines, started, after=seen):
            seen = number
            if line != line_shown and not quiet:
                say(f"{what}: {line}")
            line_shown = line
        if execution["status"] != "RUNNING":
            return execution
        time.sleep(1 / LOOKS_PER_SECOND)


def _news(machines: Any, run_arn: str, *, after: int) -> Iterator[tuple[int, str]]:
    """Yield the id and the progress message of each new event that has one."""
    recent = machines.get_execution_history(executionArn=run_arn, reverseOrder=True, maxResults=100)["events"]
    for event in reversed(recent):
        exited = event.get("stateExitedEventDetails")
        if event["id"] > after and event["type"] == "TaskStateExited" and exited is not None:
            output = json.loads(exited.get("output") or "{}")
            if "error" not in output:
                news = [
                    part for part in (output.get("result"), output.get("begun"), output) if isinstance(part, dict)
                ]
                progress = next(
                    (part["progress"] for part in news if "progress" in part), f"{exited['name']} done"
                )
                yield event["id"], str(progress)


def _words(cause: str | None) -> str | None:
    """Return a failed task's error message, without the JSON around it."""
    try:
        details = json.loads(cause or "")
    except json.JSONDecodeError:
        return cause
    return str(details["errorMessage"]) if isinstance(details, dict) and "errorMessage" in details else cause


def _plain(name: str) -> str:
    """Return a part of an execution's name: letters, digits and hyphens, and not too long."""
    return re.sub(r"[^A-Za-z0-9-]", "-", name)[:60] or "tenant"
