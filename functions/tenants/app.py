"""Tenants: the operator's requests about a tenant, each repeatable."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import ValidationError

from trainyard import bootstrap
from trainyard.contracts.events import explain
from trainyard.contracts.tenants import TenantCommand, tenant_view
from trainyard.domain.errors import Refused
from trainyard.telemetry import build_logger

logger = build_logger("tenants")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer {"tenant": …}, or {"refused": reason} when the command cannot be carried out."""
    try:
        command = TenantCommand.model_validate(event)
        tenant = run(command)
    except ValidationError as error:
        return {"refused": explain(error)}
    except Refused as refusal:
        logger.info("refused", extra={"reason": str(refusal)})
        return {"refused": str(refusal)}
    logger.info("tenant settled", extra={"tenant_id": tenant["tenant_id"], "action": command.action})
    return {"tenant": tenant}


def run(command: TenantCommand) -> dict[str, Any]:
    administration = bootstrap.tenant_administration()
    if command.action == "ensure":
        return tenant_view(administration.ensure(command.tenant.to_wish()))
    return tenant_view(
        administration.set_suspended(command.tenant.tenant_id, suspended=command.action == "suspend")
    )
