"""Billing: runs the hourly tasks that are due: inference, metering, exports, cost tags and statements.

Invoked with {"statement": {"tenant": …, "month": …}} or {"export": "2026-11-20"}, it writes only that one.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.application.billing.statements import TRIED_UNTIL_DAY
from trainyard.contracts.money import parse_billing_command
from trainyard.domain.errors import Refused
from trainyard.domain.executions import month_of
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger, count

logger = build_logger("billing")

NEEDED_MILLIS = 30_000
"""Time needed to write one more statement and to finish cleanly."""
NEEDED_BY_OTHERS_MILLIS = 300_000
"""Time that the booking of inference leaves to the other tasks."""


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    command = parse_billing_command(event)
    now = datetime.now(UTC)
    if command.statement is not None:
        return {"statement": write_statement(command.statement.tenant, command.statement.month, now)}
    if command.export is not None:
        return {"export": bootstrap.usage().export_again(command.export, now)}
    return hourly(now, context.get_remaining_time_in_millis)


def hourly(now: datetime, remaining_millis: Callable[[], int]) -> dict[str, Any]:
    """Run the tasks that are due; a failed one is retried in an hour and does not stop the others.

    Raises RuntimeError, naming what failed.
    """
    done: dict[str, Any] = {}
    failed: list[str] = []
    tasks: dict[str, Callable[[], Any]] = {
        "inference": lambda: book_inference(now, lambda: remaining_millis() < NEEDED_BY_OTHERS_MILLIS),
        "metering": lambda: meter(now),
        "exports": lambda: export(now),
        "cost tags": lambda: activate_tags(now),
        "statements": lambda: write_statements(now, lambda: remaining_millis() < NEEDED_MILLIS),
    }
    for name, task in tasks.items():
        if name == "statements" and "inference" in failed and now.day < TRIED_UNTIL_DAY:
            logger.warning("statements wait until inference is booked")
            done[name] = 0
            continue
        try:
            done[name] = task()
        except Exception:
            logger.exception("billing task failed; it will be retried in an hour", extra={"task": name})
            failed.append(name)
    count("BillingTasksFailed", len(failed))
    if failed:
        raise RuntimeError(f"billing tasks failed: {', '.join(failed)}; see the log")
    return done


def book_inference(now: datetime, out_of_time: Callable[[], bool]) -> int:
    """Book the hours of shared endpoints that are over; return how many."""
    hours = bootstrap.inference_booking().book_due(now, out_of_time)
    logger.info("inference booked", extra={"hours": len(hours), "usd": str(sum(hour.usd or 0 for hour in hours))})
    if hours:
        count("EndpointUsd", float(sum(hour.usd or 0 for hour in hours)))
        count("EndpointIdleUsd", float(sum(hour.idle_usd for hour in hours)))
    return len(hours)


def export(now: datetime) -> list[str]:
    written = bootstrap.usage().export_until(now)
    logger.info("usage exported", extra={"files": written})
    return written


def activate_tags(now: datetime) -> dict[str, str]:
    states = bootstrap.tag_activation().run_daily(now)
    if states:
        logger.info("cost allocation tags", extra={"states": {n: state.value for n, state in states.items()}})
    return {name: state.value for name, state in states.items()}


def write_statements(now: datetime, out_of_time: Callable[[], bool]) -> int:
    """Write the statements that are due; raises RuntimeError at the end if any of them failed."""
    failures: list[str] = []

    def failed(tenant_id: str, error: Exception) -> None:
        logger.error("statement failed; retried in an hour", extra={"tenant_id": tenant_id}, exc_info=error)
        failures.append(tenant_id)

    written = bootstrap.monthly_statements().write_due(now, out_of_time, failed)
    logger.info("statements written", extra={"statements": written})
    if failures:
        raise RuntimeError(f"{len(failures)} statement(s) failed, including those of {', '.join(failures[:5])}")
    return written


def write_statement(tenant_id: str, month: str | None, now: datetime) -> str:
    tenant = bootstrap.tenants().get(tenant_id)
    if tenant is None:
        raise Refused(f"there is no tenant {tenant_id!r}")
    return bootstrap.statements().write(tenant, month or month_of(now), now)


def meter(now: datetime) -> dict[str, Any] | None:
    """Report usage to AWS Marketplace; None where metering is disabled."""
    metering = bootstrap.metering()
    if metering is None:
        return None
    metered = metering.run(now)
    units = sum(record.units for record in metered.sent)
    logger.info("metered", extra={"sent": len(metered.sent), "units": units, "left": metered.undelivered})
    count("MeterUnits", units)
    count("MeterRecordsLeft", len(metered.undelivered))
    return {"sent": len(metered.sent), "units": units, "left": metered.undelivered}
