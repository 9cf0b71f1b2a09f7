"""Roles of pooled tenants: created when enlist requests one, removed by a timer when idle for long."""

from datetime import UTC, datetime, timedelta
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.domain.tenants import Tenant
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger, count

logger = build_logger("roles")
TIME_KEPT_MS = 60_000
"""Time reserved for the last page of an invocation; the next invocation continues after it."""


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer {"make": tenant} by making its role, anything else by removing roles that are idle."""
    if "make" in event:
        bootstrap.pooled_roles().make(event["make"], datetime.now(UTC))
        logger.info("role made", extra={"tenant_id": event["make"]})
        return {"made": event["make"]}
    return {"removed": remove_idle(context)}


def remove_idle(context: LambdaContext) -> list[str]:
    idle_for = timedelta(days=bootstrap.pooled_role_idle_days())
    removed: list[str] = []
    while True:
        page, more = bootstrap.pooled_roles().remove_idle(datetime.now(UTC), idle_for=idle_for, failed=failed)
        removed += page
        if not more or context.get_remaining_time_in_millis() < TIME_KEPT_MS:
            break
    logger.info("idle roles removed", extra={"tenants": removed})
    count("IdleRolesRemoved", len(removed))
    return removed


def failed(tenant: Tenant, error: Exception) -> None:
    logger.warning("role not removed", extra={"tenant_id": tenant.tenant_id, "reason": str(error)})
