"""Enlist: moves batches of requests from the tier queues into the tenant queues; those transactions ring the bell.

It also consumes the queue of delayed rings: its messages ring the bell when a quiet period has ended.
"""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.application.scheduling.enlistment import Enlisted
from trainyard.contracts.messages import parse_training_request
from trainyard.domain.requests import Submission
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.batches import batch_item_failures
from trainyard.entrypoints.platform import parse_delayed_ring
from trainyard.telemetry import build_logger, count

logger = build_logger("enlist")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer which messages must be delivered again."""
    failed: dict[str, Exception] = {}
    submissions: dict[str, Submission] = {}
    for record in event["Records"]:
        try:
            hints = parse_delayed_ring(record["body"])
            if hints is not None:
                bootstrap.bell().ring(hints)
            else:
                submissions[record["messageId"]] = parse_training_request(record["body"])
        except Exception as error:  # one failing message must not affect the others
            failed[record["messageId"]] = error
    for message_id, enlisted in zip(submissions, enlist(list(submissions.values())), strict=True):
        if isinstance(enlisted, Enlisted):
            report(enlisted)
        else:
            failed[message_id] = enlisted
    return batch_item_failures(logger, event["Records"], failed)


def enlist(submissions: list[Submission]) -> list[Enlisted | Exception]:
    if not submissions:
        return []
    try:
        return bootstrap.enlist().enlist_batch(submissions, datetime.now(UTC))
    except Exception as error:  # assume that none of the batch was processed
        return [error] * len(submissions)


def report(enlisted: Enlisted) -> None:
    request = enlisted.request
    logger.info(
        "request enlisted",
        extra={
            "request_id": request.request_id,
            "tenant_id": request.tenant_id,
            "tier": request.tier,
            "data_set": request.data_set,
            "enlistment": enlisted.kind.value,
            "superseded": enlisted.superseded.request_id if enlisted.superseded else None,
        },
    )
    count("Enlisted", Tier=request.tier, Enlistment=enlisted.kind.value)
