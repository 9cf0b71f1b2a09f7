"""Reconciler: every few minutes, what no event told: missed ends, counts that drifted, executions not ours."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard import bootstrap
from trainyard.telemetry import build_logger, count

logger = build_logger("reconciler")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    repairs = bootstrap.reconcile().run(datetime.now(UTC))
    for request in repairs.ended:
        logger.warning(
            "an end that no event told",
            extra={
                "request_id": request.request_id,
                "tenant_id": request.tenant_id,
                "tier": request.tier,
                "state": request.state.value,
            },
        )
    for request_id, detail in repairs.failed.items():
        logger.warning("could not be asked about", extra={"request_id": request_id, "detail": detail})
    if repairs.recounted:
        logger.error("the ledger was wrong, and is corrected", extra={"by": repairs.recounted})
    logger.info("reconciled", extra={"asked": repairs.asked, "foreign": repairs.foreign})
    count("EndsMissed", len(repairs.ended))
    count("AsksFailed", len(repairs.failed))
    count("LedgerCorrected", int(bool(repairs.recounted)))
    count("ForeignExecutions", repairs.foreign)
    return {"ended": len(repairs.ended), "recounted": repairs.recounted}
