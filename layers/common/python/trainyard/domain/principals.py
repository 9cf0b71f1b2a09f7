"""Who calls the HTTP API, and what they may do."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from trainyard.domain.tenants import Tenant


class Role(StrEnum):
    """What the groups of a token make of its bearer."""

    OPERATOR = "operator"
    """Sees and changes everything."""
    VIEWER = "viewer"
    """Sees everything."""
    TENANT_ADMIN = "tenant-admin"
    """Sees and changes what is its tenant's."""
    TENANT_READER = "tenant-reader"
    """Sees what is its tenant's."""


class Access(StrEnum):
    """What an operation of the API does."""

    READ_TENANT = "read what is a tenant's"
    CHANGE_TENANT = "change what is a tenant's"
    READ_SERVICE = "read what concerns several tenants"
    CHANGE_SERVICE = "change what concerns several tenants"


_OF_ALL = {
    Role.OPERATOR: frozenset(Access),
    Role.VIEWER: frozenset({Access.READ_TENANT, Access.READ_SERVICE}),
}
"""Role → what it may do whosever it is."""

_OF_ITS_TENANT = {
    Role.TENANT_ADMIN: frozenset({Access.READ_TENANT, Access.CHANGE_TENANT}),
    Role.TENANT_READER: frozenset({Access.READ_TENANT}),
}
"""Role → what it may do to what is its own tenant's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whoever has a valid token."""

    subject: str
    """Its identifier at the issuer."""
    role: Role
    tenant_id: str | None
    """The tenant that it belongs to; None for roles of the provider."""
    name: str = ""
    """By which people know it, such as an e-mail address; "" where the token does not say."""
    issued_at: datetime | None = None
    """When its token was issued; None where the token does not say."""
    key_id: str | None = None
    """The API key that it is; None for a person."""

    @property
    def caller(self) -> str:
        """Whose calls are counted together: all of a tenant's, or those of one user of the provider."""
        return f"tenant#{self.tenant_id}" if self.tenant_id is not None else f"user#{self.subject}"

    @property
    def signature(self) -> str:
        """Return by whom something was done, for those who look at it later."""
        who = f"key {self.key_id}" if self.key_id is not None else self.name or self.subject
        return f"{self.role.value} {who}"

    def is_of(self, tenant: Tenant) -> bool:
        """Tell whether its token is no older than the tenant: those of an earlier one of the same id are."""
        if self.tenant_id is None or self.issued_at is None or tenant.created_at is None:
            return True
        return self.issued_at >= tenant.created_at.replace(microsecond=0)

    def may(self, access: Access, tenant_id: str | None = None) -> bool:
        """Tell whether it may do something; `tenant_id` is the tenant's that it is done to, where there is one."""
        if access in _OF_ALL.get(self.role, ()):
            return True
        is_own = tenant_id is not None and tenant_id == self.tenant_id
        return is_own and access in _OF_ITS_TENANT.get(self.role, ())
