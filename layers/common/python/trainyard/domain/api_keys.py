"""API keys: credentials of programs that call the HTTP API for a tenant.

A key is a user of the deployment's user pool that belongs to no person. A program signs in with the key's user
name and secret, and gets the same tokens as a person does; a key that was revoked or has expired is refused at
once, also with a token that is still valid.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from trainyard.domain.errors import Refused
from trainyard.domain.principals import Role

KEYS_MAX = 20
"""Of a tenant: each is a user of the pool, which Amazon Cognito charges for."""
DAYS_MAX = 365
ROLES = (Role.TENANT_ADMIN, Role.TENANT_READER)

KEY_ID = re.compile(r"[0-9a-f]{16}")
_DOMAIN = "keys.invalid"
"""No mail can be sent there (RFC 2606), and so no person can have such an address."""
_USER_NAME = re.compile(rf"key-({KEY_ID.pattern})@{re.escape(_DOMAIN)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key, without its secret, which only Cognito can check."""

    key_id: str
    tenant_id: str
    name: str
    """What it is for, in the words of whoever made it."""
    role: Role
    created_at: datetime
    created_by: str
    expires_at: datetime
    last_used_at: datetime | None = None
    """To the hour; None before its first call."""

    @property
    def user_name(self) -> str:
        """Return what it signs in with."""
        return user_name_of(self.key_id)

    def is_valid(self, now: datetime) -> bool:
        return now < self.expires_at


def user_name_of(key_id: str) -> str:
    """Return what a key signs in with: a user pool whose users have e-mail addresses takes nothing else."""
    return f"key-{key_id}@{_DOMAIN}"


def key_id_of(user_name: str) -> str | None:
    """Return the key that a user is, None for a person."""
    match = _USER_NAME.fullmatch(user_name)
    return match[1] if match else None


def check_another(keys: list[ApiKey]) -> None:
    """Raise Refused where a tenant has as many keys as it may have."""
    if len(keys) >= KEYS_MAX:
        raise Refused(f"the tenant has {KEYS_MAX} keys, which is the most: revoke one first")
