"""Tenants: the tasks of the state machines, each repeatable.

A task that cannot be done raises Refused, which the state machines do not retry; anything else they do.
"""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.application.tenancy.tenants import Answer
from trainyard.contracts.tenants import parse_step_command
from trainyard.domain.errors import Refused
from trainyard.entrypoints.platform import calls_made
from trainyard.entrypoints.tenant_steps import task_of
from trainyard.telemetry import build_logger

logger = build_logger("tenants")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> Answer:
    """Carry out one step, and return its result to the state machine."""
    command = parse_step_command(event)
    step = command.to_step(datetime.now(UTC))
    names = {"change": step.change.value, "step": command.step, "tenant_id": step.spec.tenant_id}
    logger.append_keys(**names)
    try:
        answer = task_of(step.change, command.step)(step)
    except Refused as refusal:
        logger.info("step refused", extra={"reason": str(refusal), "calls": calls_made()})
        raise
    logger.info("step done", extra={"answer": answer, "calls": calls_made()})
    return answer
