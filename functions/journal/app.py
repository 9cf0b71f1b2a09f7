"""Journal: keeps what the service publishes about a tenant for some days; its users read it by a cursor."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.contracts.journal import parse_published
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger

logger = build_logger("journal")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Keep an event of the service's own bus; one that comes twice is kept twice, with the same id."""
    now = datetime.now(UTC)
    tenant_id, entry = parse_published(event)
    logger.append_keys(tenant_id=tenant_id, event_id=entry.event_id)
    bootstrap.journal().add(tenant_id, entry, now)
