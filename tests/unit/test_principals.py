"""Who a token makes of its bearer, and what each role may do to whose things."""

from itertools import product
from typing import Any

import pytest

from trainyard.contracts.claims import principal_of
from trainyard.domain.errors import Malformed
from trainyard.domain.principals import Access, Principal, Role

R, C, S, A = Access.READ_TENANT, Access.CHANGE_TENANT, Access.READ_SERVICE, Access.CHANGE_SERVICE
OWN = {Role.OPERATOR: {R, C, S, A}, Role.VIEWER: {R, S}, Role.TENANT_ADMIN: {R, C}, Role.TENANT_READER: {R}}
OTHERS = {Role.OPERATOR: {R, C, S, A}, Role.VIEWER: {R, S}, Role.TENANT_ADMIN: set(), Role.TENANT_READER: set()}


@pytest.mark.parametrize(("role", "access"), list(product(Role, Access)))
def test_each_role_may_do_what_the_table_says(role: Role, access: Access) -> None:
    tenant_id = "acme" if role.startswith("tenant") else None
    principal = Principal(subject="s", role=role, tenant_id=tenant_id)
    assert principal.may(access, "acme") is (access in OWN[role])
    for other in ("acme1", "acme-labs", "acm", "", None, "ACME"):
        assert principal.may(access, other) is (access in OTHERS[role]), other


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"cognito:groups": "[operators]"}, (Role.OPERATOR, None)),
        ({"cognito:groups": "[tenant-readers operators]", "custom:tenant": "acme"}, (Role.OPERATOR, None)),
        (
            {"cognito:groups": "[tenant-readers tenant-admins]", "custom:tenant": "acme"},
            (Role.TENANT_ADMIN, "acme"),
        ),
        ({"cognito:groups": "tenant-readers", "custom:tenant": "acme-labs"}, (Role.TENANT_READER, "acme-labs")),
        ({"cognito:groups": "[viewers]", "custom:tenant": "../x"}, (Role.VIEWER, None)),
    ],
)
def test_groups_and_tenant_make_a_role(claims: dict[str, Any], expected: tuple[Role, str | None]) -> None:
    principal = principal_of({"sub": "s"} | claims)
    assert (principal.role, principal.tenant_id, principal.subject) == (*expected, "s")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, "no subject"),
        ({"sub": ""}, "no subject"),
        ({"sub": "a\nb"}, "no subject"),
        ({"sub": "x" * 257}, "no subject"),
        ({"sub": ["s"]}, "no subject"),
        ({"sub": "s"}, "none of the groups operators, viewers, tenant-admins, tenant-readers in cognito:groups"),
        ({"sub": "s", "cognito:groups": "[]"}, "none of the groups"),
        ({"sub": "s", "cognito:groups": "[operators-of-something Operators xoperators]"}, "none of the groups"),
        ({"sub": "s", "cognito:groups": ["operators"]}, "none of the groups"),
        ({"sub": "s", "cognito:groups": '["operators"]'}, "none of the groups"),
        ({"sub": "s", "cognito:groups": "[tenant-admins]"}, "no tenant in custom:tenant"),
        ({"sub": "s", "cognito:groups": "[tenant-admins]", "custom:tenant": ""}, "no tenant"),
        ({"sub": "s", "cognito:groups": "[tenant-admins]", "custom:tenant": "Acme"}, "no tenant"),
        ({"sub": "s", "cognito:groups": "[tenant-admins]", "custom:tenant": "acme#x"}, "no tenant"),
        ({"sub": "s", "cognito:groups": "[tenant-admins]", "custom:tenant": "pool"}, "no tenant"),
        ({"sub": "s", "cognito:groups": "[tenant-admins]", "tenant": "acme"}, "no tenant"),
    ],
)
def test_a_token_that_makes_nobody_is_malformed(claims: dict[str, Any], reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        principal_of(claims)


def test_other_issuers_name_their_claims_otherwise() -> None:
    claims = {"sub": "s", "roles": "[tenant-admins]", "org": "acme", "cognito:groups": "[operators]"}
    principal = principal_of(claims, tenant_claim="org", groups_claim="roles")
    assert (principal.role, principal.tenant_id) == (Role.TENANT_ADMIN, "acme")
