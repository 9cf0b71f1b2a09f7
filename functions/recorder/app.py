"""Recorder: status events and the pipeline's last step settle what became of a request."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard import bootstrap
from trainyard.application.record import Recorded
from trainyard.contracts.events import RecordStep, parse_execution_status
from trainyard.domain.errors import Malformed
from trainyard.domain.requests import Request
from trainyard.telemetry import build_logger, count, reporting

logger = build_logger("recorder")
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    if "Records" not in event:
        return record_step(event)
    return dict(
        process_partial_response(
            event, record_handler=reporting(logger, settle), processor=processor, context=context
        )
    )


def record_step(event: dict[str, Any]) -> dict[str, Any]:
    """Answer the pipeline's Lambda step; a malformed call fails the step, which names the reason."""
    step = RecordStep.model_validate(event)
    kept = bootstrap.record().step_reached(
        request_id=step.request_id, attempt=step.attempt, model_package_arn=step.model_package_arn
    )
    logger.info("pipeline step recorded", extra={"request_id": step.request_id, "kept": kept})
    return {"recorded": kept}


def settle(record: SQSRecord) -> None:
    try:
        event = parse_execution_status(record.body)
    except Malformed as error:
        bootstrap.dead_letters().keep(record.body, str(error))
        logger.warning("status event makes no sense", extra={"reason": str(error)})
        count("StatusEventsMalformed")
        return
    recorded, request = bootstrap.record().status_changed(
        display_name=event.detail.display_name,
        status=event.detail.status,
        execution_arn=event.detail.execution_arn,
        now=datetime.now(UTC),
    )
    report(recorded, request, event.detail.status)


def report(recorded: Recorded, request: Request | None, status: str) -> None:
    extra: dict[str, Any] = {"recorded": recorded.value, "status": status}
    if request is not None:
        extra |= {
            "request_id": request.request_id,
            "tenant_id": request.tenant_id,
            "tier": request.tier,
            "state": request.state.value,
            "attempt": request.attempt,
            "reason": request.reason,
        }
    logger.info("execution status", extra=extra)
    count("StatusEvents", Recorded=recorded.value)
    if recorded is Recorded.FINISHED and request is not None:
        count("Finished", Tier=request.tier, State=request.state.value)
        if request.started_at and request.finished_at:
            ran = (request.finished_at - request.started_at).total_seconds()
            count("RunSeconds", ran, unit=MetricUnit.Seconds, Tier=request.tier)
