"""The use cases of the HTTP API. Each is built once, when it is first needed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from trainyard.contracts.settings import Settings
from trainyard.domain.tenants import TenantState
from trainyard.entrypoints.bootstrap.shared import scheduler_of, tenants

if TYPE_CHECKING:
    from trainyard.application.api.request_pages import RequestPages
    from trainyard.persistence.call_limits import CallLimits


@cache
def request_pages() -> RequestPages:
    from trainyard.application.api.request_pages import RequestPages

    return RequestPages(requests=scheduler_of(Settings.from_env("requests_table")).tables.requests)


@cache
def call_limits() -> CallLimits:
    from trainyard.adapters.aws.store import update_item
    from trainyard.persistence.call_limits import CallLimits

    table = Settings.from_env("record_table").record_table
    return CallLimits(update=lambda update: update_item(table, update))


@cache
def claim_names() -> dict[str, str]:
    """Return which claims of a token name the tenant and the groups."""
    settings = Settings.from_env("tenant_claim", "groups_claim")
    return {"tenant_claim": settings.tenant_claim, "groups_claim": settings.groups_claim}


def tenant_exists(tenant_id: str) -> bool:
    """Tell whether there is a tenant that is not deleted."""
    tenant = tenants().get(tenant_id)
    return tenant is not None and tenant.state is not TenantState.DELETED
