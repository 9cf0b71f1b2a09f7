"""Tenants: the tasks of the state machines, each repeatable.

A task that cannot be done raises Refused, which the state machines do not retry; anything else they do.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import ValidationError

from trainyard.application.tenancy.tenants import Answer, Step
from trainyard.contracts.events import explain
from trainyard.contracts.tenants import StepCommand
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Change
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.platform import calls_made
from trainyard.telemetry import build_logger

logger = build_logger("tenants")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> Answer:
    """Carry out one step, and answer what the state machine is to know of it."""
    try:
        command = StepCommand.model_validate(event)
    except ValidationError as error:
        raise Refused(explain(error)) from None
    step = command.to_step(datetime.now(UTC))
    names = {"change": step.change.value, "step": command.step, "tenant_id": step.spec.tenant_id}
    logger.append_keys(**names)
    try:
        answer = action(command)(step)
    except Refused as refusal:
        logger.info("step refused", extra={"reason": str(refusal), "calls": calls_made()})
        raise
    logger.info("step done", extra={"answer": answer, "calls": calls_made()})
    return answer


def action(command: StepCommand) -> Callable[[Step], Answer]:
    """Return what carries a step out; raises Refused for one that there is not."""
    if command.step == "Failed":
        return bootstrap.tenant_changes().note_failure
    onboarding = bootstrap.onboarding()
    if command.step == "Drift":
        return onboarding.drift
    steps: dict[str, Callable[[Step], Answer]] = {}
    match command.change:
        case Change.CREATE | Change.UPDATE | Change.SUSPEND | Change.RESUME:
            steps = {
                "Record": onboarding.record,
                "Check": onboarding.check,
                "Storage": onboarding.storage,
                "Role": onboarding.role,
                "ModelGroup": onboarding.model_group,
                "Schedule": onboarding.schedule,
                "Limits": onboarding.limits,
                "Activate": onboarding.activate,
                "Update": onboarding.update,
                "Suspend": onboarding.suspend,
                "Resume": onboarding.resume,
            }
        case Change.MOVE:
            moving = bootstrap.moving()
            steps = {
                "Begin": moving.begin,
                "AwaitRuns": moving.await_runs,
                "Storage": moving.storage,
                "Copy": moving.copy,
                "CopyLast": moving.copy_last,
                "Verify": moving.verify,
                "Switch": moving.switch,
                "Resubmit": moving.resubmit,
                "CatchUp": moving.catch_up,
                "RemoveOld": moving.remove_old,
                "Finish": moving.finish,
            }
        case Change.DELETE:
            leaving = bootstrap.leaving()
            steps = {
                "Inventory": leaving.inventory,
                "Begin": leaving.begin,
                "Cancel": leaving.cancel,
                "StopRuns": leaving.stop_runs,
                "Endpoints": leaving.endpoints,
                "Models": leaving.models,
                "Schedule": leaving.schedule,
                "Objects": leaving.objects,
                "Storage": leaving.storage,
                "Role": leaving.role,
                "Forget": leaving.forget,
            }
    if command.step not in steps:
        raise Refused(f"there is no step {command.step!r} of {command.change}; it has {', '.join(steps)}")
    return steps[command.step]
