"""A tenant and its settings."""

from datetime import UTC, datetime

from trainyard.application.scheduling.calendar import calendar_of
from trainyard.contracts.api import answers, results
from trainyard.contracts.api_algorithms import AlgorithmList, algorithms_of
from trainyard.contracts.api_overview import TenantAnswer, tenant_of
from trainyard.contracts.api_retraining import RetrainingAnswer, retraining_of
from trainyard.contracts.api_settings import ChangeAnswer, ChangeBegun, SettingsBody, change_of
from trainyard.domain.errors import Refused
from trainyard.domain.principals import Access
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import Key, NotFound, allow, limit_calls, refuse_parameters_but, routes
from trainyard.persistence.retraining_records import ALL, record_from, records_of

router = routes()

CHANGES_MAX = 5
"""Of a caller within ten seconds: each is a run of a state machine."""


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


@router.get(
    "/v1/tenants/<tenant_id>/retraining",
    summary="When data sets train by themselves, and what asked last",
    responses=answers(RetrainingAnswer),
)
def show_retraining(tenant_id: str) -> RetrainingAnswer:
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    store = bootstrap.explain().scheduler.tables.store
    records = [(name, record_from(item)) for name, item in records_of(store, tenant_id) if name != ALL]
    return retraining_of(calendar_of([tenant], datetime.now(UTC)).plans, records)


@router.post(
    "/v1/tenants/<tenant_id>/settings",
    summary="Change how data sets are trained on",
    responses=results(ChangeBegun, 422, status=202),
)
def change_settings(tenant_id: str, body: SettingsBody, key: Key = None) -> tuple[ChangeBegun, int]:
    """Of one data set, or of all that have no settings of their own. What waits is trained on with them."""
    principal, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    limit_calls(f"settings#{principal.caller}", CHANGES_MAX)
    change_id = bootstrap.settings_changes().begin(tenant, body.payload(), body.algorithms, key=key)
    return ChangeBegun(change_id=change_id), 202


@router.get(
    "/v1/tenants/<tenant_id>/changes/<change_id>",
    summary="How a change of settings stands",
    responses=answers(ChangeAnswer),
)
def show_change(tenant_id: str, change_id: str) -> ChangeAnswer:
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    status = bootstrap.settings_changes().status(tenant, change_id)
    if status is None:
        raise NotFound
    return change_of(status)
