"""A tenant and its settings."""

from trainyard.contracts.api import answers
from trainyard.contracts.api_algorithms import AlgorithmList, algorithms_of
from trainyard.contracts.api_overview import TenantAnswer, tenant_of
from trainyard.domain.errors import Refused
from trainyard.domain.principals import Access
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import allow, refuse_parameters_but, routes

router = routes()


@router.get("/v1/tenants/<tenant_id>", summary="A tenant and its settings", responses=answers(TenantAnswer))
def show_tenant(tenant_id: str) -> TenantAnswer:
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    return tenant_of(tenant)


@router.get(
    "/v1/tenants/<tenant_id>/algorithms",
    summary="The algorithms that a tenant may choose",
    responses=answers(AlgorithmList, 409),
)
def list_algorithms(tenant_id: str) -> AlgorithmList:
    """What they read, what can be set, what a model must reach, and what an hour of training costs in its tier."""
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    policy = bootstrap.explain().policies.current()
    tier = policy.tier(tenant.tier)
    if tier is None:
        raise Refused(f"the tier of the tenant, {tenant.tier}, is not in the policy at present")
    return algorithms_of(policy, tier)
