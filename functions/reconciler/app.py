"""Reconciler: every few minutes, what no event told, and what is owed: docs/architecture.md."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.domain.requests import Request
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger, count

logger = build_logger("reconciler")

NEEDED_MILLIS = 80_000
"""For a call that hangs, with its attempts, and for what comes after: the recount and what is owed."""


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    try:
        return reconcile(context)
    except Exception:
        logger.exception("reconciliation failed")
        raise
    finally:
        relay()


def reconcile(context: LambdaContext) -> dict[str, Any]:
    repairs = bootstrap.reconcile().run(
        datetime.now(UTC), out_of_time=lambda: context.get_remaining_time_in_millis() < NEEDED_MILLIS
    )
    for request in repairs.ended:
        logger.warning("an end that no event told", extra=described(request))
    for request in repairs.released:
        logger.error("a slot was released without an end", extra=described(request) | {"reason": request.reason})
    for request in repairs.overdue:
        logger.error("an execution runs longer than it ever may", extra=described(request))
    for request_id, detail in repairs.failed.items():
        logger.warning("could not be asked about", extra={"request_id": request_id, "detail": detail})
    if repairs.recounted:
        logger.error("the ledger was wrong, and is corrected", extra={"by": repairs.recounted})
    logger.info("reconciled", extra={"asked": repairs.asked, "unmanaged": repairs.unmanaged})
    count("EndsMissed", len(repairs.ended))
    count("AsksFailed", len(repairs.failed))
    count("SlotsReleased", len(repairs.released))
    count("ExecutionsOverdue", len(repairs.overdue))
    count("LedgerCorrected", int(bool(repairs.recounted)))
    count("UnmanagedExecutions", repairs.unmanaged)
    return {"ended": len(repairs.ended), "recounted": repairs.recounted}


def described(request: Request) -> dict[str, Any]:
    return {
        "request_id": request.request_id,
        "tenant_id": request.tenant_id,
        "tier": request.tier,
        "state": request.state.value,
        "execution_arn": request.execution_arn,
    }


def relay() -> None:
    """Do what transactions left owed: budgets and unusual hours told, incomplete records read again."""
    relayed = bootstrap.outbox_relay().relay(datetime.now(UTC))
    for entry in relayed.published:
        logger.warning(
            "told of money",
            extra={"what": entry.what, **{n: str(v) for n, v in entry.values.items()}},
        )
        count("CostAnomalies" if entry.what == "pace" else "BudgetThresholdsCrossed")
    for execution in relayed.corrected:
        logger.info(
            "record corrected",
            extra={
                "request_id": execution.request_id,
                "tenant_id": execution.tenant_id,
                "tier": execution.tier,
                "attempt": execution.attempt,
                "cost_usd": str(execution.cost_usd),
                "unknown": execution.unknown,
            },
        )
    for name, detail in relayed.failed.items():
        logger.warning("owed still", extra={"name_of_it": name, "detail": detail})
    count("RecordsCorrected", len(relayed.corrected))
    count("RecordsGivenUp", len(relayed.given_up))
    count("OutboxFailed", len(relayed.failed))
