"""Changes of how a tenant's data sets are trained on: the state machine that changes tenants makes them."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.policies import Policies


class ChangeState(StrEnum):
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    """Nothing has changed, or a part of it: the same change can be made again."""


class ChangeStatus(NamedTuple):
    state: ChangeState
    reason: str | None
    """Why it failed."""


class TenantUpdates(Protocol):
    """The state machine that changes tenants."""

    def start(self, name: str, payload: Mapping[str, Any]) -> None:
        """Start a run of a name; the same run for the same payload. Raises Refused for another payload."""
        ...

    def status(self, name: str) -> ChangeStatus | None:
        """Return how a run stands; None where there is none of that name."""
        ...


_SUFFIX = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChanges:
    policies: Policies
    updates: TenantUpdates

    def begin(self, tenant: Tenant, payload: Mapping[str, Any], algorithms: list[str], *, key: str | None) -> str:
        """Begin to change a tenant's settings, and return what names the change.

        `payload` is what the state machine takes of it, `algorithms` are those that it names. With a `key`, calls
        that are alike begin one change. Raises Refused.
        """
        if tenant.state is not TenantState.ACTIVE:
            raise Refused(f"tenant {tenant.tenant_id} is {tenant.state.value}: its settings cannot be changed")
        policy = self.policies.current()
        set_before = {each.algorithm for each in (tenant.settings, *tenant.data_sets.values())}
        for name in algorithms:
            if policy.algorithm(name).brings_code and name not in set_before:
                raise Refused(
                    f"algorithm {name} runs code of its own: ask the provider to set it for one of your data sets"
                )
        suffix = hashlib.sha256(key.encode()).hexdigest()[:12] if key else uuid4().hex[:12]
        change_id = f"{tenant.tenant_id}-{suffix}"
        self.updates.start(change_id, {"tenant": {"name": tenant.tenant_id, **payload}})
        return change_id

    def status(self, tenant: Tenant, change_id: str) -> ChangeStatus | None:
        """Return how a change of a tenant stands, or None."""
        prefix = f"{tenant.tenant_id}-"
        if not change_id.startswith(prefix) or not _SUFFIX.fullmatch(change_id.removeprefix(prefix)):
            return None
        return self.updates.status(change_id)
