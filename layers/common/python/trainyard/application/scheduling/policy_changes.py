"""Policy changes: what a deployment and its tenants must allow before another policy is put in force."""

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from trainyard.application.ports import Bell
from trainyard.domain.algorithms import TRANSFORM_INSTANCE_TYPE
from trainyard.domain.errors import Conflict, OutcomeUnknown, Refused, Throttled
from trainyard.domain.policy import Policy
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.policies import Overtaken, Policies, PolicyVersion, check_size

NAMED_MAX = 5
"""Tenants that a refusal names."""


class AllTenants(Protocol):
    def all(self) -> Iterable[Tenant]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """What the deployment's roles and pipelines allow, whatever a policy says (stack parameters)."""

    instance_types: tuple[str, ...]
    """Patterns, as `ml.m5.*`."""
    runtime_max_seconds: int
    training_types_max: int
    """How many instance types a choice may name for training."""
    has_spot: bool

    def check(self, wanted: Policy) -> None:
        """Raise Refused for instance types or runtimes that the pipeline's role would deny."""
        by_algorithm = [algorithm.instances for algorithm in wanted.algorithms.values()]
        by_tier = [tier.instances for tier in wanted.tiers]
        choices = [choice for instances in (*by_tier, *by_algorithm) for choice in instances]
        types = {name for c in choices for name in (c.processing_instance_type, *c.training_instance_types)}
        # Without batch transforms, their default type need not be allowed.
        types |= {c.transform_instance_type for c in choices} - {TRANSFORM_INSTANCE_TYPE}
        denied = sorted(name for name in types if not self._allows(name))
        if denied:
            raise Refused(
                f"jobs may not run on {', '.join(denied)}: this deployment allows "
                f"{', '.join(self.instance_types)} (stack parameter JobInstanceTypes)"
            )
        most = max(len(choice.training_instance_types) for choice in choices)
        if most > self.training_types_max:
            raise Refused(
                f"{most} training instance types are named for one choice, and this deployment has no pipeline "
                "for that: deploy with the stack parameter InstancePreferences=true, or name one type"
            )
        if any(tier.spot_wait for tier in wanted.tiers) and not self.has_spot:
            raise Refused(
                "spot: true: this deployment has no pipelines for training on spot capacity: deploy with the "
                "stack parameter SpotTraining=true, or leave it out"
            )
        for tier in wanted.tiers:
            if tier.runtime_max.total_seconds() > self.runtime_max_seconds:
                raise Refused(
                    f"tiers.{tier.name}.runtime_max_minutes: this deployment allows jobs to run at most "
                    f"{self.runtime_max_seconds // 60} minutes (stack parameter JobRuntimeMaxSeconds)"
                )

    def _allows(self, instance_type: str) -> bool:
        return any(fnmatch.fnmatchcase(instance_type, pattern) for pattern in self.instance_types)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChanges:
    policies: Policies
    tenants: AllTenants
    bell: Bell
    jobs: JobLimits
    has_tier_queue: Callable[[str], bool]

    def check(self, text: str, *, force: bool = False) -> Policy:
        """Return the policy that a text would put in force.

        Raises Refused when it is invalid, when the deployment has no queues, pipelines or rights for it, when it
        removes the tier of a tenant, and, unless with `force`, when the next uploads of a tenant would be refused.
        """
        check_size(text)
        wanted = self.policies.parse(text, 0)
        self._check_queues(wanted)
        self.jobs.check(wanted)
        tenants = [tenant for tenant in self.tenants.all() if tenant.state is not TenantState.DELETED]
        _check_tiers(tenants, wanted)
        hurt = [] if force else list(_hurt(tenants, wanted))
        if hurt:
            raise Refused(f"{'; '.join(hurt)}. Change these tenants first, or force it (--force)")
        return self.policies.check(text)

    def apply(
        self, text: str, now: datetime, *, after: int, note: str = "", by: str = "", force: bool = False
    ) -> PolicyVersion:
        """Put a policy in force that somebody has compared with version `after`; nothing changes where it is in
        force already.

        Raises Refused as `check` does, and where another version has been put in force since.
        """
        present = self.policies.in_force()
        if present.text == text:
            # Perhaps a call whose answer was lost.
            return self.policies.version(present.version)
        self.check(text, force=force)
        try:
            applied = self.policies.apply(text, now, note=note, by=by, after=after)
        except Overtaken as error:
            raise Refused(str(error)) from error
        # What waits starts with the next pass at the latest.
        with suppress(Conflict, Throttled, OutcomeUnknown):
            self.bell.ring()
        return self.policies.version(applied.version)

    def _check_queues(self, wanted: Policy) -> None:
        """Raise Refused when a tier has no queue in this deployment: uploads of its tenants would be lost."""
        missing = [tier.name for tier in wanted.tiers if not self.has_tier_queue(tier.name)]
        if missing:
            raise Refused(
                f"there is no queue for tier {', '.join(missing)}: add it to TierQueues in template.yaml and "
                "deploy, then apply the policy"
            )


def differences(before: str, after: str, name_before: str = "in force", name_after: str = "checked") -> list[str]:
    """Return how a text differs from another one, as the lines of a unified diff; [] if it does not."""
    lines = (before.splitlines(), after.splitlines())
    return list(difflib.unified_diff(*lines, name_before, name_after, lineterm="", n=2))


def _check_tiers(tenants: list[Tenant], wanted: Policy) -> None:
    """Raise Refused, naming the tenants, when the policy removes a tier that still has tenants."""
    holders = [tenant.tenant_id for tenant in tenants if wanted.tier(tenant.tier) is None]
    if holders:
        raise Refused(
            f"the policy removes the tier of {_names(holders)}: keep it, or move the tenants first "
            "(`trainyard tenant move`)"
        )


def _hurt(tenants: list[Tenant], wanted: Policy) -> Iterator[str]:
    """Yield whom a policy would hurt, and how: their next uploads would be refused."""
    users: dict[str, list[str]] = {}
    for tenant in tenants:
        for settings in (tenant.settings, *tenant.data_sets.values()):
            if settings.algorithm not in wanted.catalogue:
                users.setdefault(settings.algorithm, []).append(tenant.tenant_id)
    for algorithm, ids in users.items():
        yield f"the policy has no algorithm {algorithm}, used by {_names(ids)}"


def _names(ids: list[str]) -> str:
    unique = list(dict.fromkeys(ids))
    more = len(unique) - NAMED_MAX
    return ", ".join(unique[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
