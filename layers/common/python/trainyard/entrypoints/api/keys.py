"""API keys of a tenant: list, make, revoke."""

from datetime import UTC, datetime

from trainyard.contracts.api import answers, results
from trainyard.contracts.api_keys import KeyBody, KeyList, NewKeyAnswer, keys_of, new_key_of
from trainyard.domain.api_keys import KEY_ID
from trainyard.domain.errors import Refused
from trainyard.domain.principals import Access, Role
from trainyard.domain.tenants import TenantState
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import NotFound, allow, limit_calls, refuse_parameters_but, routes

router = routes()

KEYS = "/v1/tenants/<tenant_id>/keys"
CHANGES_MAX = 5
"""Of a tenant within ten seconds: each changes the user pool, whose quotas all tenants share."""


@router.get(KEYS, summary="A tenant's API keys", responses=answers(KeyList))
def list_keys(tenant_id: str) -> KeyList:
    """With them, programs call this API. Expired ones stay until they are revoked."""
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    return keys_of(bootstrap.api_keys().keys.of_tenant(tenant.tenant_id))


@router.post(KEYS, summary="Make an API key", responses=results(NewKeyAnswer, status=201))
def make_key(tenant_id: str, body: KeyBody) -> tuple[NewKeyAnswer, int]:
    """Its secret is answered this once. Keep it: nobody can show it again."""
    principal, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    bootstrap.api_keys().users_for(principal)  # a key uses up nothing of what users may do
    limit_calls(f"keys#{tenant_id}", CHANGES_MAX)
    if tenant.state is not TenantState.ACTIVE:
        raise Refused(f"tenant {tenant_id} is {tenant.state.value}: it gets no further keys")
    new = bootstrap.api_keys().make(
        tenant.tenant_id,
        name=body.name,
        role=Role(body.role),
        days=body.days,
        by=principal,
        now=datetime.now(UTC),
    )
    return new_key_of(new), 201


@router.post(f"{KEYS}/<key_id>/revoke", summary="Revoke an API key", responses=results(None))
def revoke_key(tenant_id: str, key_id: str) -> tuple[None, int]:
    """From its next call on, it is refused."""
    principal, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    bootstrap.api_keys().users_for(principal)
    limit_calls(f"revoked#{tenant_id}", CHANGES_MAX)
    is_id = KEY_ID.fullmatch(key_id) is not None
    if not is_id or not bootstrap.api_keys().revoke(tenant.tenant_id, key_id, principal):
        raise NotFound
    return None, 204
