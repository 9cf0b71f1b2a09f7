"""Intake: uploads and retraining requests become training requests on the tier queues."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.application.scheduling.intake import Arrival, Judgement, Verdict, check_sent
from trainyard.contracts.arrivals import parse_arrival
from trainyard.domain.errors import Malformed
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.batches import batch_item_failures
from trainyard.telemetry import build_logger, count

logger = build_logger("intake")

NEEDED_MILLIS = 20_000
"""Time needed for one more tenant: ten pages of its objects, and the uploads found in them."""


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer which messages must be delivered again; for the timers, look for uploads without an event, and for
    trainings that are due.
    """
    if event.get("source") == "sweep":
        return sweep(context)
    if event.get("source") == "retraining watch":
        return watch(event.get("part"), context)
    bodies = {record["messageId"]: record["body"] for record in event["Records"]}
    failed: dict[str, Exception] = {}
    for message_id, result in receive(bodies).items():
        try:
            settle(message_id, bodies[message_id], result)
        except Exception as error:  # one failing message must not affect the others
            failed[message_id] = error
    return batch_item_failures(logger, event["Records"], failed)


def sweep(context: LambdaContext) -> dict[str, Any]:
    swept = bootstrap.lost_uploads().run(
        datetime.now(UTC), out_of_time=lambda: context.get_remaining_time_in_millis() < NEEDED_MILLIS
    )
    for content in swept.recovered:
        logger.warning("upload without an event found", extra={"bucket": content.bucket, "key": content.key})
    for tenant_id, detail in swept.failed.items():
        logger.warning("the search for lost uploads failed", extra={"tenant_id": tenant_id, "detail": detail})
    logger.info("looked for lost uploads", extra={"tenants": swept.tenants, "objects": swept.objects})
    count("UploadsWithoutEvent", len(swept.recovered))
    count("UploadSweepsFailed", len(swept.failed))
    return {"found": len(swept.recovered), "tenants": swept.tenants, "objects": swept.objects}


def watch(part: int | None, context: LambdaContext) -> dict[str, Any]:
    """Ask for the trainings of some tenants that are due and that no event has asked for."""
    watched = bootstrap.retraining_watch().run(
        datetime.now(UTC),
        part=part,
        out_of_time=lambda: context.get_remaining_time_in_millis() < NEEDED_MILLIS,
    )
    for asked in watched.asked:
        extra = {"tenant_id": asked.tenant_id, "data_set": asked.data_set, "trigger": asked.trigger.value}
        logger.info("training asked for that no event has asked for", extra=extra)
    for tenant_id, detail in watched.failed.items():
        logger.warning("the search for due trainings failed", extra={"tenant_id": tenant_id, "detail": detail})
    logger.info("looked for due trainings", extra={"tenants": watched.tenants})
    count("RetrainingsDue", len(watched.asked))
    count("RetrainingWatchesFailed", len(watched.failed))
    return {"asked": len(watched.asked), "tenants": watched.tenants}


def receive(bodies: dict[str, str]) -> dict[str, list[Judgement] | Exception]:
    """Process the arrivals of a batch together; return the result of each message."""
    results: dict[str, list[Judgement] | Exception] = {}
    arrivals: dict[str, Arrival] = {}
    for message_id, body in bodies.items():
        try:
            arrivals[message_id] = parse_arrival(body)
        except Malformed as error:
            results[message_id] = error
    if arrivals:
        try:
            judged = bootstrap.intake().receive(list(arrivals.values()), datetime.now(UTC))
        except Exception as error:  # assume that none of the batch was processed
            judged = [error] * len(arrivals)
        results |= zip(arrivals, judged, strict=True)
    return results


def settle(message_id: str, body: str, result: list[Judgement] | Exception) -> None:
    """Report the result of a message; a malformed one goes straight to the dead letters, with the reason.

    Raises the error of a message that must be delivered again.
    """
    if isinstance(result, Malformed):
        bootstrap.dead_letters().keep(body, str(result))
        logger.warning("arrival is malformed", extra={"message_id": message_id, "reason": str(result)})
        count("ArrivalsMalformed")
        return
    if isinstance(result, Exception):
        raise result
    for judgement in result:
        report(judgement)
    check_sent(result)


def report(judgement: Judgement) -> None:
    extra = {
        "request_id": judgement.request_id,
        "tenant_id": judgement.tenant_id,
        "tier": judgement.tier,
        "verdict": judgement.verdict.value,
        "reason": judgement.reason,
        "ignored_as": judgement.ignored_as,
    }
    logger.info("arrival judged", extra={name: value for name, value in extra.items() if value is not None})
    count("Arrivals", Tier=judgement.tier, Verdict=judgement.verdict.value)
    if judgement.verdict is Verdict.LEFT_OUT:
        count("RetrainingsLeftOut", Tier=judgement.tier)
    if judgement.verdict is Verdict.DEFERRED:
        count("UploadsDeferred")
    if judgement.kind is not None:
        count("Rejected", Tier=judgement.tier, Reason=judgement.kind)
