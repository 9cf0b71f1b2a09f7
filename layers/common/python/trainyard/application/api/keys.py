"""API keys: made and revoked by a tenant's users, and checked with each call that a key makes."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_hex
from typing import NamedTuple, Protocol

from trainyard.domain.api_keys import ApiKey, check_another
from trainyard.domain.errors import Refused, Throttled
from trainyard.domain.principals import Principal, Role
from trainyard.persistence.api_keys import StoredKeys


class KeyUsers(Protocol):
    """The users of the pool that are keys."""

    def make(self, key: ApiKey) -> str:
        """Make the user of a key, and return its secret. Raises Throttled and OutcomeUnknown."""
        ...

    def delete(self, key_id: str) -> None:
        """Delete the user of a key. Idempotent; raises Throttled and OutcomeUnknown."""
        ...


class NewKey(NamedTuple):
    key: ApiKey
    secret: str
    """Known to nobody afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeys:
    keys: StoredKeys
    users: KeyUsers | None
    """None in a deployment without a user pool."""

    def make(self, tenant_id: str, *, name: str, role: Role, days: int, by: Principal, now: datetime) -> NewKey:
        """Make a key; raises Refused."""
        users = self.users_for(by)
        check_another(self.keys.of_tenant(tenant_id))
        key = ApiKey(
            key_id=token_hex(8),
            tenant_id=tenant_id,
            name=name,
            role=role,
            created_at=now,
            created_by=by.signature,
            expires_at=now + timedelta(days=days),
        )
        # Listed first: whatever becomes of its user, it can be revoked.
        self.keys.add(key)
        try:
            return NewKey(key, users.make(key))
        except Throttled:
            self.keys.forget(tenant_id, key.key_id)
            raise

    def revoke(self, tenant_id: str, key_id: str, by: Principal) -> bool:
        """Revoke a key, from the next call on; return False where there is none. Raises Refused."""
        users = self.users_for(by)
        if self.keys.get(tenant_id, key_id) is None:
            return False
        # The user first: while the key is listed, it can be revoked again.
        users.delete(key_id)
        self.keys.forget(tenant_id, key_id)
        return True

    def admits(self, principal: Principal, now: datetime) -> bool:
        """Tell whether a token may still be used: that of a person always, that of a key while it is valid."""
        if principal.key_id is None or principal.tenant_id is None:
            return principal.key_id is None
        key = self.keys.get(principal.tenant_id, principal.key_id)
        if key is None or not key.is_valid(now) or key.role is not principal.role:
            return False
        self.keys.note_use(key, now)
        return True

    def users_for(self, by: Principal) -> KeyUsers:
        """Return the users of the pool; raises Refused for a key, and where there is no pool."""
        if self.users is None:
            raise Refused(
                "this deployment has no user pool: your identity provider makes credentials for programs"
            )
        if by.key_id is not None:
            raise Refused("keys are made and revoked by users: a key cannot do that")
        return self.users
