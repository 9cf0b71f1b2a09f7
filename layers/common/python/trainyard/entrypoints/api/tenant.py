"""A tenant and its settings."""

from trainyard.contracts.api import answers
from trainyard.contracts.api_overview import TenantAnswer, tenant_of
from trainyard.domain.principals import Access
from trainyard.entrypoints.api.calls import allow, refuse_parameters_but, routes

router = routes()


@router.get("/v1/tenants/<tenant_id>", summary="A tenant and its settings", responses=answers(TenantAnswer))
def show_tenant(tenant_id: str) -> TenantAnswer:
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    return tenant_of(tenant)
