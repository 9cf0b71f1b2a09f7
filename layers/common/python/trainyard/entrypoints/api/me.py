"""Who calls."""

from trainyard.contracts.api import Me, answers
from trainyard.entrypoints.api.calls import admitted_principal, routes

router = routes()


@router.get("/v1/me", summary="Who calls", responses=answers(Me))
def me() -> Me:
    principal = admitted_principal()
    return Me(subject=principal.subject, role=principal.role, tenant_id=principal.tenant_id)
