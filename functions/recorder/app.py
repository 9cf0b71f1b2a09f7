"""Recorder: records the outcome of requests, from status events and from the pipeline's last step."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.application.scheduling.record import Recorded, StatusEvent, StatusResult
from trainyard.contracts.statuses import parse_execution_status, parse_record_step
from trainyard.domain.deadlines import deadline_met
from trainyard.domain.errors import Malformed
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.batches import batch_item_failures
from trainyard.telemetry import build_logger, count

logger = build_logger("recorder")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    if "Records" not in event:
        return record_step(event)
    return settle_batch(event["Records"])


def record_step(event: dict[str, Any]) -> dict[str, Any]:
    """Answer the pipeline's Lambda step; a malformed call fails the step; repeated failures raise an alarm."""
    step = parse_record_step(event)
    recorded = bootstrap.record().step_reached(
        request_id=step.request_id, attempt=step.attempt, model_package_arn=step.model_package_arn
    )
    logger.info("pipeline step recorded", extra={"request_id": step.request_id, "kept": recorded})
    return {"recorded": recorded}


def settle_batch(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Settle the batch together; answer which messages must be delivered again."""
    parsed = [(record, event) for record in records if (event := status_event(record["body"])) is not None]
    results = settle([event for _, event in parsed])
    failed: dict[str, Exception] = {}
    for (record, event), settled in zip(parsed, results, strict=True):
        if isinstance(settled, StatusResult):
            report(settled, event.status)
        else:
            failed[record["messageId"]] = settled
    return batch_item_failures(logger, records, failed)


def status_event(body: str) -> StatusEvent | None:
    """Return the event in a message; None for a malformed one, which is kept as a dead letter."""
    try:
        event = parse_execution_status(body)
    except Malformed as error:
        bootstrap.dead_letters().keep(body, str(error))
        logger.warning("status event is malformed", extra={"reason": str(error)})
        count("StatusEventsMalformed")
        return None
    return StatusEvent(
        display_name=event.detail.display_name,
        status=event.detail.status,
        execution_arn=event.detail.execution_arn,
        description=event.detail.description,
        previous=event.detail.previous,
    )


def settle(events: list[StatusEvent]) -> list[StatusResult | Exception]:
    if not events:
        return []
    try:
        return bootstrap.record().settle(events, datetime.now(UTC))
    except Exception as error:  # assume that none of the batch was processed
        return [error] * len(events)


def report(result: StatusResult, status: str) -> None:
    recorded, request = result.recorded, result.request
    extra: dict[str, Any] = {"recorded": recorded.value, "status": status}
    if request is not None:
        extra |= {
            "request_id": request.request_id,
            "tenant_id": request.tenant_id,
            "tier": request.tier,
            "state": request.state.value,
            "attempt": request.attempt,
            "reason": request.reason,
            "cost_usd": request.outcome.cost_usd if request.outcome else None,
        }
    logger.info("execution status", extra=extra)
    if result.succeeded_despite(status):
        logger.warning("the execution failed after registering its model; it counts as succeeded", extra=extra)
        count("RecordStepsFailed")
    count("StatusEvents", Recorded=recorded.value)
    if recorded is Recorded.FINISHED and request is not None:
        count("Finished", Tier=request.tier, State=request.state.value)
        met = deadline_met(request)
        if met is not None:
            count("DeadlinesMet" if met else "DeadlinesMissed", Tier=request.tier)
        outcome = request.outcome
        if outcome is not None and outcome.cost_usd is not None:
            count("CostUsd", float(outcome.cost_usd), Tier=request.tier)
            count("CostUnknown", outcome.cost_unknown or 0, Tier=request.tier)
        if request.started_at and request.finished_at:
            ran = (request.finished_at - request.started_at).total_seconds()
            count("RunSeconds", ran, unit=MetricUnit.Seconds, Tier=request.tier)
