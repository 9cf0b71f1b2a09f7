"""Partial batch responses: failed messages of a batch are delivered again."""

from collections.abc import Mapping, Sequence
from typing import Any

from aws_lambda_powertools import Logger

from trainyard.entrypoints import bootstrap
from trainyard.telemetry import count


def batch_item_failures(
    logger: Logger, records: Sequence[Mapping[str, Any]], failed: Mapping[str, Exception]
) -> dict[str, Any]:
    """Log and count the messages that failed, by id; return the answer by which SQS delivers them again.

    They are redelivered soon; if that cannot be arranged, after the queue's visibility timeout.
    """
    for message_id, error in failed.items():
        logger.error(
            "record failed, and will be delivered again", exc_info=error, extra={"message_id": message_id}
        )
        count("RecordsFailed")
    if failed:
        try:
            bootstrap.redelivery().soon([record for record in records if record["messageId"] in failed])
        except Exception as error:  # the batch is done anyway
            logger.warning("failed records are only redelivered after the visibility timeout", exc_info=error)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}
