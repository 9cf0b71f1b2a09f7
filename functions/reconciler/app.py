"""Reconciler: finds missed ends every minute; every few minutes, it also recounts, works off the outbox, and
writes what waiting requests can expect into their receipts.

Two schedules invoke it (template.yaml); what follows from an end that nobody reported is in docs/architecture.md.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.application.scheduling.deadline_watch import AT_RISK
from trainyard.application.scheduling.reconcile import Repairs
from trainyard.domain.alias_events import AliasChange
from trainyard.domain.requests import Request
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger, count

logger = build_logger("reconciler")

MONEY = {"pace": "CostAnomalies", "budget": "BudgetThresholdsCrossed"}
"""What the outbox published → the metric that counts it; deadlines are counted when they are noted."""

NEEDED_MILLIS = 80_000
"""Time needed for a hanging call with its retries, and for the recount and the outbox after it."""

RECEIPTS_MILLIS = 60_000
"""Time needed to work out who is next where hundreds run, and for receipts that are written together."""


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    now = datetime.now(UTC)
    if event.get("work") == "find ends":
        watch_deadlines(now)
        return report(bootstrap.reconcile().find_ends(now, out_of_time=out_of_time(context)))
    try:
        return report(bootstrap.reconcile().run(now, out_of_time=out_of_time(context)))
    except Exception:
        logger.exception("reconciliation failed")
        raise
    finally:
        try:
            relay()
        finally:
            write_waiting_receipts(now, context)


def write_waiting_receipts(now: datetime, context: LambdaContext) -> None:
    """Write the receipts of waiting requests; a failure must not fail the reconciliation."""
    try:
        run = bootstrap.waiting_receipts().write(now, out_of_time=out_of_time(context, RECEIPTS_MILLIS))
    except Exception:
        logger.exception("receipts of waiting requests could not be written")
        count("WaitingReceiptsFailed")
        return
    for request_id, detail in run.failed.items():
        logger.warning("receipt could not be written", extra={"request_id": request_id, "detail": detail})
    count("WaitingReceiptsFailed", len(run.failed))


def watch_deadlines(now: datetime) -> None:
    """Publish which deadlines are at risk, or will be missed; a failure must not keep ends from being found."""
    try:
        alarms = bootstrap.deadline_watch().watch(now)
    except Exception:
        logger.exception("deadlines could not be checked")
        count("DeadlineChecksFailed")
        return
    for alarm in alarms:
        logger.warning(alarm.what, extra=described(alarm.request) | {"reason": alarm.reason})
        count("DeadlinesAtRisk" if alarm.what == AT_RISK else "DeadlinesWillBeMissed", Tier=alarm.request.tier)
    if alarms:
        relay()


def out_of_time(context: LambdaContext, needed_millis: int = NEEDED_MILLIS) -> Callable[[], bool]:
    return lambda: context.get_remaining_time_in_millis() < needed_millis


def report(repairs: Repairs) -> dict[str, Any]:
    """Log and count what a run corrected."""
    for request in repairs.ended:
        logger.warning("end of an execution was found without an event", extra=described(request))
    for request in repairs.released:
        logger.error("slot released without a known end", extra=described(request) | {"reason": request.reason})
    for request in repairs.overdue:
        logger.error("execution exceeds its maximum runtime", extra=described(request))
    for request_id, detail in repairs.failed.items():
        logger.warning("execution status could not be read", extra={"request_id": request_id, "detail": detail})
    for request_id, selected in repairs.selected.items():
        logger.info("instances were selected", extra={"request_id": request_id, "selected": selected})
    if repairs.recounted:
        logger.error("ledger was wrong and has been corrected", extra={"by": repairs.recounted})
    logger.info("reconciled", extra={"asked": repairs.asked, "unmanaged": repairs.unmanaged})
    count("EndsMissed", len(repairs.ended))
    count("LookupsFailed", len(repairs.failed))
    count("SlotsReleased", len(repairs.released))
    count("ExecutionsOverdue", len(repairs.overdue))
    count("LedgerCorrected", int(bool(repairs.recounted)))
    if repairs.unmanaged is not None:
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
    """Process the outbox: publish events about money, deadlines and models, and complete incomplete records."""
    relayed = bootstrap.outbox_relay().relay(datetime.now(UTC))
    for entry in relayed.published:
        log = logger.info if entry.what in set(AliasChange) else logger.warning
        log("event published", extra={"what": entry.what, **{n: str(v) for n, v in entry.values.items()}})
        if entry.what in MONEY:
            count(MONEY[entry.what])
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
        logger.warning("outbox entry failed; it will be retried", extra={"name_of_it": name, "detail": detail})
    count("RecordsCorrected", len(relayed.corrected))
    count("RecordsGivenUp", len(relayed.given_up))
    count("OutboxFailed", len(relayed.failed))
