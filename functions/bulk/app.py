"""Bulk: carries out what the HTTP API was asked to do to many requests, one after the other.

It is invoked asynchronously, perhaps twice, and again after an error: it goes on from where the action stands.
"""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.contracts.bulk_command import parse_bulk_command
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger

logger = build_logger("bulk")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Carry out an action, and return how far it has come."""
    command = parse_bulk_command(event)
    logger.append_keys(owner=command.owner, action_id=command.action_id)
    action = bootstrap.bulk_work().run(command.owner, command.action_id)
    if action is None:
        logger.warning("there is no such action: it has expired")
        return {}
    answer = {"state": action.state.value, "done": action.done, "failed": action.failed, "total": action.total}
    logger.info("bulk action", extra=answer)
    return answer
