"""The claims of a verified token, as API Gateway passes them to a function: all of them are text.

An array comes as "[a b]", its items separated by spaces (API Gateway developer guide, "JWT authorizers").
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from trainyard.domain.api_keys import key_id_of
from trainyard.domain.errors import Malformed
from trainyard.domain.names import is_tenant_id
from trainyard.domain.principals import Principal, Role

TENANT_CLAIM, GROUPS_CLAIM = "custom:tenant", "cognito:groups"
"""As Amazon Cognito names them."""

SUBJECT_LENGTH_MAX = 256
TIME_DIGITS_MAX = 11

GROUPS = {
    "operators": Role.OPERATOR,
    "viewers": Role.VIEWER,
    "tenant-admins": Role.TENANT_ADMIN,
    "tenant-readers": Role.TENANT_READER,
}
"""Group → role, the one that may do most first."""

GROUP_OF = {role: group for group, role in GROUPS.items()}


def principal_of(
    claims: Mapping[str, Any], *, tenant_claim: str = TENANT_CLAIM, groups_claim: str = GROUPS_CLAIM
) -> Principal:
    """Return who has a token with these claims; raises Malformed, naming what the token lacks.

    Of several groups, the one that may do most counts. A role of the provider has no tenant, whatever the token
    says.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_LENGTH_MAX or not subject.isprintable():
        raise Malformed("the token has no subject")
    groups = _listed(claims.get(groups_claim, ""))
    role = next((role for group, role in GROUPS.items() if group in groups), None)
    if role is None:
        raise Malformed(f"the token names none of the groups {', '.join(GROUPS)} in {groups_claim}")
    if role in (Role.OPERATOR, Role.VIEWER):
        return Principal(subject=subject, role=role, tenant_id=None, name=_name(claims))
    tenant_id = claims.get(tenant_claim)
    if not isinstance(tenant_id, str) or not is_tenant_id(tenant_id):
        raise Malformed(f"the token names no tenant in {tenant_claim}")
    name = _name(claims)
    return Principal(
        subject=subject,
        role=role,
        tenant_id=tenant_id,
        name=name,
        issued_at=_issued_at(claims),
        key_id=key_id_of(name),
    )


def _issued_at(claims: Mapping[str, Any]) -> datetime | None:
    """Return when the token was issued; None where it does not say, in whole seconds."""
    text = str(claims.get("iat", ""))
    is_time = text.isascii() and text.isdigit() and len(text) <= TIME_DIGITS_MAX
    return datetime.fromtimestamp(int(text), UTC) if is_time else None


def _name(claims: Mapping[str, Any]) -> str:
    """Return by what people know the bearer; "" where the token does not say."""
    name = claims.get("email", "")
    return name if isinstance(name, str) and len(name) <= SUBJECT_LENGTH_MAX and name.isprintable() else ""


def _listed(value: Any) -> frozenset[str]:
    if not isinstance(value, str):
        return frozenset()
    text = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    return frozenset(text.split())
