"""Tenants: created by steps that can be repeated, so that a broken creation is simply run again."""

from dataclasses import dataclass, replace
from typing import Protocol

from trainyard.application.policies import Policies
from trainyard.application.waiting_room import WaitingRoom
from trainyard.domain.errors import Refused
from trainyard.domain.names import TENANT_ID_LENGTH_MAX, is_tenant_id
from trainyard.domain.tenants import Tenant, TenantState, TrainingSettings

BUCKET_NAME_LENGTH_MAX = 63


class Provisioning(Protocol):
    """What a tenant needs in the account; each step may be repeated."""

    def ensure_bucket(self, tenant: Tenant) -> None: ...
    def ensure_role(self, tenant: Tenant) -> None: ...
    def ensure_model_group(self, tenant: Tenant) -> None: ...
    def ensure_schedule(self, tenant: Tenant) -> None: ...


class TenantRecords(Protocol):
    def get(self, tenant_id: str) -> Tenant | None: ...
    def put(self, tenant: Tenant) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the operator asks for."""

    tenant_id: str
    tier: str
    settings: TrainingSettings
    data_sets: dict[str, TrainingSettings]
    retrain_schedule: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantAdministration:
    records: TenantRecords
    policies: Policies
    waiting_room: WaitingRoom
    provisioning: Provisioning
    bucket_prefix: str
    role_prefix: str
    """ARN of a role up to its name, path included: "arn:aws:iam::<account>:role/<path>/<stack>-"."""
    group_prefix: str

    def ensure(self, wish: Wish) -> Tenant:
        """Create the tenant, or bring the existing one to what is asked; running it twice changes nothing.

        Raises Refused when the wish cannot be met.
        """
        # 1. Can it be?
        known = self.records.get(wish.tenant_id)
        self._check(wish, known)
        tenant = self._tenant(wish)
        # 2. The record first: what is half made can be found, and made whole by another run.
        if known is None:
            self.records.put(tenant)
        # 3. What it needs.
        self.provisioning.ensure_role(tenant)
        self.provisioning.ensure_model_group(tenant)
        self.provisioning.ensure_bucket(tenant)
        self.provisioning.ensure_schedule(tenant)
        # 4. Open for uploads; a suspended tenant stays so.
        state = TenantState.SUSPENDED if known and known.state is TenantState.SUSPENDED else TenantState.ACTIVE
        ready = replace(tenant, state=state)
        self.records.put(ready)
        return ready

    def set_suspended(self, tenant_id: str, suspended: bool) -> Tenant:
        """Refuse, or take again, what the tenant uploads; raises Refused when there is no such tenant."""
        known = self.records.get(tenant_id)
        if known is None:
            raise Refused(f"there is no tenant {tenant_id!r}; `trainyard tenant list` shows them")
        changed = replace(known, state=TenantState.SUSPENDED if suspended else TenantState.ACTIVE)
        self.records.put(changed)
        return changed

    def _check(self, wish: Wish, known: Tenant | None) -> None:
        if not is_tenant_id(wish.tenant_id):
            raise Refused(
                f"{wish.tenant_id!r} cannot name a tenant: at most {TENANT_ID_LENGTH_MAX} lower-case letters and "
                "digits, single hyphens between them, for example acme or acme-labs"
            )
        if len(self.bucket_prefix + wish.tenant_id) > BUCKET_NAME_LENGTH_MAX:
            raise Refused(
                f"the bucket {self.bucket_prefix}{wish.tenant_id} would have more than {BUCKET_NAME_LENGTH_MAX} "
                "characters: choose a shorter tenant id, or deploy under a shorter stack name"
            )
        policy = self.policies.current()
        if policy.tier(wish.tier) is None:
            tiers = ", ".join(tier.name for tier in policy.tiers)
            raise Refused(f"there is no tier {wish.tier!r}; the policy has {tiers}")
        if known is not None and known.tier != wish.tier:
            queue = self.waiting_room.queue(known.tier, known.tenant_id)
            held = f"; {queue.waiting} of its requests wait there, and {queue.running} run"
            raise Refused(
                f"tenant {wish.tenant_id} is on tier {known.tier}{held if not queue.at_rest else ''}; moving a "
                "tenant between tiers is not supported yet"
            )

    def _tenant(self, wish: Wish) -> Tenant:
        return Tenant(
            tenant_id=wish.tenant_id,
            state=TenantState.CREATING,
            tier=wish.tier,
            bucket=f"{self.bucket_prefix}{wish.tenant_id}",
            root="",
            role_arn=f"{self.role_prefix}{wish.tenant_id}",
            model_group=f"{self.group_prefix}{wish.tenant_id}",
            settings=wish.settings,
            data_sets=wish.data_sets,
            retrain_schedule=wish.retrain_schedule,
        )
