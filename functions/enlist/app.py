"""Enlist: from the tier queues into the waiting room; then the bell is rung once for the batch.

The delayed bell's queue comes here too: its message rings the bell when a quiet period has ended.
"""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard import bootstrap
from trainyard.adapters.aws.tables import DELAYED_RING
from trainyard.application.ports import Enlisted
from trainyard.contracts.messages import parse_training_request
from trainyard.telemetry import build_logger, count, reporting

logger = build_logger("enlist")
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    enlisted: list[Enlisted] = []

    def enlist(record: SQSRecord) -> None:
        if record.body == DELAYED_RING:
            bootstrap.bell().ring()
            return
        submission = parse_training_request(record.body)
        result = bootstrap.enlist().enlist(submission, datetime.now(UTC))
        enlisted.append(result)
        report(result)

    response = process_partial_response(
        event, record_handler=reporting(logger, enlist), processor=processor, context=context
    )
    bootstrap.enlist().ring(enlisted, datetime.now(UTC))
    return dict(response)


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
