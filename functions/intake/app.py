"""Intake: uploads and retraining requests become training requests on the tier queues."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard import bootstrap
from trainyard.application.intake import Judgement, Verdict
from trainyard.contracts.arrivals import parse_arrival
from trainyard.domain.errors import Malformed, Throttled
from trainyard.telemetry import build_logger, count, told_again

logger = build_logger("intake")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer which messages must be delivered again."""
    failed: dict[str, Exception] = {}
    for record in event["Records"]:
        try:
            receive(record["messageId"], record["body"])
        except Exception as error:  # any one message's trouble is its own
            failed[record["messageId"]] = error
    return told_again(logger, failed)


def receive(message_id: str, body: str) -> None:
    """Take one arrival; what makes no sense goes straight to the dead letters, with the reason."""
    try:
        judgements = bootstrap.intake().receive(parse_arrival(body), datetime.now(UTC))
    except Malformed as error:
        bootstrap.dead_letters().keep(body, str(error))
        logger.warning("arrival makes no sense", extra={"message_id": message_id, "reason": str(error)})
        count("ArrivalsMalformed")
        return
    for judgement in judgements:
        report(judgement)
    if any(judgement.verdict is Verdict.UNSENT for judgement in judgements):
        raise Throttled("a tier queue did not take a request")


def report(judgement: Judgement) -> None:
    extra = {
        "request_id": judgement.request_id,
        "tenant_id": judgement.tenant_id,
        "tier": judgement.tier,
        "verdict": judgement.verdict.value,
        "reason": judgement.reason,
    }
    logger.info("arrival judged", extra={name: value for name, value in extra.items() if value is not None})
    count("Arrivals", Tier=judgement.tier, Verdict=judgement.verdict.value)
    if judgement.kind is not None:
        count("Rejected", Tier=judgement.tier, Reason=judgement.kind)
