"""Dispatcher: runs one pass for each ring of the bell and each minute of the timer.

The stream of the bell item and the timer invoke it. The pass is the same; only the timer's measures the backlog.
"""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.application.scheduling.dispatch import PassReport
from trainyard.application.scheduling.starts import Start, Started
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.platform import calls_made, rings_in
from trainyard.telemetry import build_logger, count

logger = build_logger("dispatcher")

NEEDED_MILLIS = 25_000
"""Time needed for one more round: a transaction and up to 25 starts. The rest is left to the next pass."""


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    now = datetime.now(UTC)
    calls_made()
    by_timer = event.get("source") == "timer"
    report = bootstrap.dispatch().run_pass(
        now,
        rings=rings_in(event),
        sweep=by_timer,
        out_of_time=lambda: context.get_remaining_time_in_millis() < NEEDED_MILLIS,
    )
    calls = calls_made()
    for start in report.starts:
        log_start(start)
    log_pass(report, calls=calls)
    if by_timer:
        measure_backlog(report, now)
    return {"started": sum(start.result is Started.RUNNING for start in report.starts)}


def log_start(start: Start) -> None:
    request = start.request
    logger.info(
        "request started" if start.result is Started.RUNNING else "request not started",
        extra={
            "request_id": request.request_id,
            "tenant_id": request.tenant_id,
            "tier": request.tier,
            "attempt": request.attempt,
            "result": start.result.value,
            "execution_arn": request.execution_arn,
            "detail": start.detail,
        },
    )
    count("Starts", Tier=request.tier, Result=start.result.value)
    if start.result is Started.RUNNING and request.started_at:
        waited = (request.started_at - request.arrived_at).total_seconds()
        count("WaitSeconds", waited, unit=MetricUnit.Seconds, Tier=request.tier)


def log_pass(report: PassReport, *, calls: int) -> None:
    for decision in report.plan.waits:
        logger.debug(
            "request waits",
            extra={
                "request_id": decision.entry.request_id,
                "tenant_id": decision.queue.tenant_id,
                "tier": decision.queue.tier,
                "reason": decision.reason.value,
            },
        )
    started = sum(start.result is Started.RUNNING for start in report.starts)
    logger.info(
        "dispatch pass",
        extra={
            "started": started,
            "not_started": len(report.starts) - started,
            "waits": len(report.plan.waits),
            "borrowed": sum(decision.borrowed for decision in report.admissions),
            "backfilled": sum(decision.backfilled for decision in report.admissions),
            "capacity_holds": dict(report.plan.capacity_holds),
            "unparked": report.unparked,
            "conflicts": report.conflicts,
            "policy_version": report.policy.version,
            "slots_used": report.snapshot.ledger.used,
            "paused": report.snapshot.ledger.paused,
            "calls": calls,
        },
    )
    count("Passes")
    count("PassConflicts", report.conflicts)
    if started:
        count("CallsPerStart", calls / started)


def measure_backlog(report: PassReport, now: datetime) -> None:
    """Emit once a minute: slots, waiting requests, and whether any wait although slots are free."""
    ledger, backlog = bootstrap.dispatch().measure(report)
    count("SlotsUsed", ledger.used)
    count("SlotsLimit", report.policy.running_max)
    for tier in report.policy.tiers:
        waiting = backlog[tier.name]
        oldest = waiting.oldest_arrived_at
        wait = (now - oldest).total_seconds() if oldest else 0.0
        used = ledger.used_of_tier(tier.name)
        count("TierSlotsUsed", used, Tier=tier.name)
        count("TierSlotsLimit", tier.quota, Tier=tier.name)
        count("Waiting", waiting.waiting, Tier=tier.name)
        count("OldestWaitSeconds", wait, unit=MetricUnit.Seconds, Tier=tier.name)
        for reason, queues in waiting.parked.items():
            count("QueuesParked", queues, Tier=tier.name, Reason=reason)
    count("IdleThoughWaiting", int(report.is_stuck))
