"""Bulk: carries out what the HTTP API was asked to do to many requests, one after the other.

It is invoked asynchronously, perhaps twice, and again after an error: it goes on from where the action stands.
By timer, it goes on with those that were left unfinished.
"""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.contracts.bulk_command import BulkResumption, parse_bulk_command
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger, count

logger = build_logger("bulk")


NEEDED_MILLIS = 90_000
"""Time needed for one more request, with all that is tried again."""


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Carry out an action, or those that somebody has left; return how far they have come."""
    command = parse_bulk_command(event)

    def out_of_time() -> bool:
        return context.get_remaining_time_in_millis() < NEEDED_MILLIS

    if isinstance(command, BulkResumption):
        resumed = bootstrap.bulk_work().resume(out_of_time)
        if resumed:
            logger.warning("bulk actions resumed", extra={"actions": [each.action_id for each in resumed]})
            count("BulkActionsResumed", len(resumed))
        return {"resumed": len(resumed)}
    logger.append_keys(owner=command.owner, action_id=command.action_id)
    action = bootstrap.bulk_work().run(command.owner, command.action_id, out_of_time)
    if action is None:
        logger.warning("there is no such action: it has expired")
        return {}
    answer = {"state": action.state.value, "done": action.done, "failed": action.failed, "total": action.total}
    logger.info("bulk action", extra=answer)
    return answer
