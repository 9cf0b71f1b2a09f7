"""Tenants: what all changes of a tenant share: locking, the requested state, and its validation.

A change is a run of a state machine (statemachines/) whose tasks are the steps in onboarding, moving and leaving.
Every step may be repeated. One change of a tenant is under way at a time: its record names the run, and the run
counts as alive only as long as Step Functions says so, so that an interrupted run does not block others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.algorithms import family_of
from trainyard.domain.errors import InProgress, Refused
from trainyard.domain.names import tenant_id_objection
from trainyard.domain.policy import Policy, Storage, TierPolicy
from trainyard.domain.tenants import Change, Operation, RoleState, Tenant, TenantState, TrainingSettings
from trainyard.persistence.policies import Policies

BUCKET_NAME_LENGTH_MAX = 63
ROLE_NAME_LENGTH_MAX = 64

Answer = dict[str, Any]
"""The output of a step for its state machine, as JSON."""


class TenantRecords(Protocol):
    def get(self, tenant_id: str) -> Tenant | None: ...
    def owner_of(self, bucket: str, key: str) -> Tenant | None: ...
    def put(self, tenant: Tenant) -> Tenant: ...
    def put_role(self, tenant: Tenant, role: RoleState, since: datetime | None) -> Tenant:
        """Change only the role attributes of the record; raises Conflict when the record has changed."""
        ...

    def page(self, *, after: str | None = None, limit: int = 100) -> tuple[list[Tenant], str | None]: ...
    def claim_key(self, key_arn: str, tenant_id: str, *, instead_of: str | None = None) -> str:
        """Claim a KMS key for a tenant; return its holder. `instead_of` is a former holder to replace."""
        ...

    def forget_location(self, tenant: Tenant) -> None: ...
    def purge(self, tenant: Tenant) -> None: ...
    def cursor(self) -> str | None:
        """Return where the last scan of all tenants ended."""
        ...

    def put_cursor(self, cursor: str | None) -> None: ...


class Provisioning(Protocol):
    """Creates a tenant's resources in the account; each step may be repeated, and restores what is missing."""

    def ensure_storage(self, tenant: Tenant, *, opened: bool = True) -> None:
        """With its own bucket: make it; its uploads are announced only once it is `opened`."""
        ...

    def write_readme(self, tenant: Tenant) -> None:
        """Tell the tenant, beside its receipts, where to put data and where to find what."""
        ...

    def ensure_role(self, tenant: Tenant) -> None: ...
    def ensure_model_group(self, tenant: Tenant) -> None: ...
    def ensure_schedules(self, tenant: Tenant, before: Tenant) -> None:
        """Create, change or delete the schedules of retraining and of batch transforms, as the tenant is to have
        them; `before` is the tenant as it is recorded now.
        """
        ...

    def drift(self, tenant: Tenant) -> list[str]:
        """Return the deviations from the expected state, one line each."""
        ...


class Removal(Protocol):
    """Deletes a tenant's resources; each call may be repeated, and does a bounded part of a long task."""

    def inventory(self, tenant: Tenant) -> dict[str, int | str]: ...
    def remove_endpoints(self, tenant: Tenant) -> bool:
        """Remove endpoints, their configurations, and models; True when some are left for another call."""
        ...

    def remove_models(self, tenant: Tenant) -> tuple[int, bool]:
        """Remove model packages, then the group; how many, and whether some are left."""
        ...

    def remove_schedules(self, tenant: Tenant) -> None: ...
    def remove_objects(self, tenant: Tenant, *, before: datetime | None = None) -> tuple[int, bool]:
        """Remove object versions and unfinished uploads below the root; how many, and whether some are left.

        Where a time is given, only versions written `before` it; of a bucket that is not ours, nothing.
        """
        ...

    def abort_uploads(self, tenant: Tenant) -> None: ...
    def remove_storage(self, tenant: Tenant) -> None: ...
    def remove_role(self, tenant: Tenant) -> None: ...
    def take_back_key(self, tenant: Tenant) -> str | None:
        """Revoke the grants on the tenant's own key; returns the reason when that is no longer allowed."""
        ...


class Migration(Protocol):
    """Copies a tenant's objects from one root to another."""

    def copy(
        self, source: Tenant, target: Tenant, *, after: str | None, late: bool = False
    ) -> tuple[int, str | None]:
        """Copy objects that are missing or differ, after a key; returns how many, and where to continue.

        With `late`, objects that were written to the target itself are kept, since it is in use already.
        """
        ...

    def copy_last(self, source: Tenant, target: Tenant, keys: Sequence[str]) -> None:
        """Copy some keys so that they are newer at the target than all that was copied before."""
        ...

    def differences(
        self, source: Tenant, target: Tenant, *, after: str | None, late: bool
    ) -> tuple[list[str], str | None]:
        """Compare some objects of the source, after a key; returns those that are missing or differ at the target,
        and where to continue. `late` as in `copy`.
        """
        ...

    def repoint_models(self, source: Tenant, target: Tenant) -> None:
        """Let the registered models name the target's objects."""
        ...


class Runs(Protocol):
    """The state machines' executions."""

    def alive(self, run: str) -> bool:
        """Tell whether any step of a run may still be under way."""
        ...


class TenantAnnouncements(Protocol):
    def announce_tenant(self, tenant: Tenant, what: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSpec:
    """The requested settings of a tenant; what is not given keeps its value, or takes its default."""

    tenant_id: str
    tier: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TrainingSettings."""
    data_sets: Mapping[str, Mapping[str, Any]] | None = None
    """Data set → the fields in which its settings differ; those of others are removed."""
    data_set_changes: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    """Data set → the fields of its settings that change, None for no settings of its own; others stay."""
    retrain: str | None = None
    """"" for no schedule."""
    key_arn: str | None = None
    """"" for none of its own."""
    account_id: str | None = None
    """"" for none."""
    buyer_account: str | None = None
    """"" for none."""
    license_arn: str | None = None
    """"" for none."""
    tags: tuple[str, ...] | None = None
    limits: Mapping[str, Any] | None = None
    """Weight, cap and budget, as the policy's tenants entry has them."""
    repair: bool = False
    """Whether a creation only repairs an existing tenant, and changes nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One task of a run."""

    change: Change
    run: str
    spec: TenantSpec
    at: datetime
    purge: bool = False
    """For a deletion: whether the record and the requests are deleted too."""
    cursor: str | None = None
    """Where a long task continues."""
    error: str | None = None
    """The error, for the step that records it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of tenants' resources in this deployment."""

    bucket_prefix: str
    pool_bucket: str
    role_prefix: str
    """ARN of a role up to the tenant's id: "arn:aws:iam::<account>:role/trainyard/<stack>/tenants/<stack>--"."""
    pooled_role_prefix: str
    """The same for tenants of the pool, whose roles have a path of their own: ".../tenants/pool/<stack>.pool--".
    """
    group_prefix: str

    def located(self, tenant: Tenant, storage: Storage) -> Tenant:
        """Return the tenant with its data, and the role of its jobs, where that kind of storage has them."""
        name = tenant.tenant_id
        if storage is Storage.POOL:
            role_arn = f"{self.pooled_role_prefix}{name}"
            return replace(tenant, bucket=self.pool_bucket, root=f"{name}/", role_arn=role_arn)
        return replace(tenant, bucket=f"{self.bucket_prefix}{name}", root="", role_arn=f"{self.role_prefix}{name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantChanges:
    """Locks a tenant for a change, and computes its requested state."""

    records: TenantRecords
    policies: Policies
    scheduler: Scheduler
    runs: Runs
    announcements: TenantAnnouncements
    names: Names
    with_limits: Callable[[str, str, Mapping[str, Any] | None], str]
    """Puts a tenant's entry into the text of a policy, or takes it out."""
    limits_in: Callable[[str, str], Mapping[str, Any]]
    """Reads a tenant's entry in the text of a policy."""

    # --- one change at a time ---------------------------------------------------------------------------------

    def claim(self, step: Step, tenant: Tenant, *, was_paused: bool = False, **changes: Any) -> Tenant:
        """Record that the run changes the tenant, and write `changes`; does nothing if it has done both before.

        What an earlier run of the same change recorded is kept. Raises InProgress while another change is in
        progress, Refused after a failed move: it must be completed first, or the tenant deleted.
        """
        operation = tenant.operation
        others = operation is not None and operation.run != step.run and operation.failure is None
        if operation is not None and others and self.runs.alive(operation.run):
            raise InProgress(
                f"{operation.change} of tenant {tenant.tenant_id} is in progress ({operation.run}): wait for "
                "its end, or stop that execution, and try again"
            )
        moving = operation is not None and operation.change is Change.MOVE
        if moving and step.change not in (Change.MOVE, Change.DELETE):
            raise Refused(
                f"a move of tenant {tenant.tenant_id} has failed half-way: run it again, or move it back "
                "(`trainyard tenant move`), or delete the tenant"
            )
        with_change = Operation(change=step.change, run=step.run, was_paused=was_paused, begun_at=step.at)
        if operation is not None and operation.change is step.change:
            with_change = replace(operation, run=step.run, failure=None)
        wanted = replace(tenant, **changes, operation=with_change)
        return tenant if wanted == tenant else self.records.put(wanted)

    def held(self, step: Step) -> Tenant:
        """Return the tenant that the run has claimed or just released; raises Refused when another took over."""
        tenant = self.records.get(step.spec.tenant_id)
        run = tenant and (tenant.operation.run if tenant.operation else tenant.settled_by)
        if tenant is None or run != step.run:
            raise Refused(
                f"another change of tenant {step.spec.tenant_id} has taken over; this run does nothing more"
            )
        return tenant

    def done(self, tenant: Tenant, what: str | None, **changes: Any) -> Tenant:
        """Publish `what` happened to the tenant, and release it; published at least once."""
        run = tenant.operation.run if tenant.operation else tenant.settled_by
        settled = replace(tenant, operation=None, settled_by=run, **changes)
        if what is not None:
            self.announcements.announce_tenant(settled, what)
        return self.records.put(settled)

    def note_failure(self, step: Step) -> Answer:
        """Store the error in the record, and return what to do about it."""
        tenant = self.records.get(step.spec.tenant_id)
        reason = step.error or "unknown"
        if tenant is not None and tenant.operation is not None and tenant.operation.run == step.run:
            self.records.put(replace(tenant, operation=replace(tenant.operation, failure=reason[:500])))
        message = f"{step.change} of tenant {step.spec.tenant_id} failed: {reason}"
        ours = tenant is not None and tenant.operation is not None and tenant.operation.run == step.run
        return {"cause": f"{message}. {_way_out(step, tenant)}" if ours and tenant else message}

    def claim_key(self, tenant: Tenant) -> None:
        """Claim the tenant's key, so that no two tenants share one; raises Refused. Idempotent.

        A deleted tenant, or one with another key by now, loses its claim: a key need not be released explicitly.
        """
        if tenant.key_arn is None:
            return
        claim = partial(self.records.claim_key, tenant.key_arn, tenant.tenant_id)
        holder = claim()
        if holder == tenant.tenant_id:
            return
        other = self.records.get(holder)
        gone = other is None or other.state is TenantState.DELETED
        if other is not None and not gone and (other.key_arn == tenant.key_arn or other.operation is not None):
            raise Refused(f"the key {tenant.key_arn} is already in use: give each tenant its own key")
        if claim(instead_of=holder) != tenant.tenant_id:
            raise Refused(
                f"the key {tenant.key_arn} is being assigned to another tenant: give each tenant its own key"
            )

    def known(self, tenant_id: str) -> Tenant:
        """Return the tenant; raises Refused when there is none of that id."""
        tenant = self.records.get(tenant_id)
        if tenant is None or tenant.state is TenantState.DELETED:
            raise Refused(f"there is no tenant {tenant_id!r}; `trainyard tenant list` shows them")
        return tenant

    # --- what it is to become ---------------------------------------------------------------------------------

    def wanted(self, spec: TenantSpec, existing: Tenant | None) -> Tenant:
        """Return the tenant with the requested changes; raises Refused when they are not possible."""
        objection = tenant_id_objection(spec.tenant_id)
        if objection is not None:
            raise Refused(objection)
        policy = self.policies.current()
        tier = self.tier(policy, spec.tier or (existing.tier if existing else ""))
        base = existing or self._new(spec, tier)
        settings = changed(base.settings, spec.settings)
        data_sets = base.data_sets
        if spec.data_sets is not None:
            data_sets = {name: changed(settings, given) for name, given in spec.data_sets.items()}
        data_sets = _with_changes(data_sets, settings, spec.data_set_changes)
        tenant = replace(
            base,
            settings=settings,
            data_sets=data_sets,
            retrain_schedule=_given(spec.retrain, base.retrain_schedule),
            key_arn=_given(spec.key_arn, base.key_arn),
            account_id=_given(spec.account_id, base.account_id),
            buyer_account=_given(spec.buyer_account, base.buyer_account),
            license_arn=_given(spec.license_arn, base.license_arn),
            tags=base.tags if spec.tags is None else spec.tags,
        )
        self._check(tenant, policy)
        return tenant

    def tier(self, policy: Policy, name: str) -> TierPolicy:
        tier_policy = policy.tier(name)
        if tier_policy is None:
            names = ", ".join(tier.name for tier in policy.tiers)
            raise Refused(f"there is no tier {name!r}; the policy has {names}")
        return tier_policy

    def set_limits(self, tenant_id: str, limits: Mapping[str, Any] | None, now: datetime) -> None:
        """Write the given weight, cap and budget of a tenant into the policy, as a new version.

        A value of None removes that limit, None for `limits` removes all.

        Raises Refused when the policy is invalid, Conflict when another one was applied meanwhile.
        """
        text = self.policies.in_force().text
        merged: dict[str, Any] | None = None
        if limits is not None:
            entry = {**self.limits_in(text, tenant_id), **limits}
            merged = {name: value for name, value in entry.items() if value is not None} or None
        after = self.with_limits(text, tenant_id, merged)
        if after != text:
            self.policies.apply(after, now, note=f"limits of tenant {tenant_id}")

    def _new(self, spec: TenantSpec, tier: TierPolicy) -> Tenant:
        if not spec.settings.get("target"):
            raise Refused("the target is missing: name the column that the tenant's models predict")
        tenant = Tenant(
            tenant_id=spec.tenant_id,
            state=TenantState.CREATING,
            tier=tier.name,
            bucket="",
            root="",
            role_arn="",
            model_group=f"{self.names.group_prefix}{spec.tenant_id}",
            settings=TrainingSettings(algorithm="gradient-boosting", target=""),
            role=RoleState.NONE if tier.storage is Storage.POOL else RoleState.MADE,
        )
        return self.names.located(tenant, tier.storage)

    def _check(self, tenant: Tenant, policy: Policy) -> None:
        if len(tenant.bucket) > BUCKET_NAME_LENGTH_MAX:
            raise Refused(
                f"the bucket {tenant.bucket} would have more than {BUCKET_NAME_LENGTH_MAX} characters: choose a "
                "shorter tenant id, or deploy under a shorter stack name"
            )
        role = tenant.role_arn.rpartition("/")[2]
        if len(role) > ROLE_NAME_LENGTH_MAX:
            raise Refused(
                f"the role {role} would have more than {ROLE_NAME_LENGTH_MAX} characters: choose a shorter tenant "
                "id, or deploy under a shorter stack name"
            )
        for settings in (tenant.settings, *tenant.data_sets.values()):
            policy.algorithm(settings.algorithm).chosen(dict(settings.hyperparameters))
            if settings.every_upload and (settings.retraining.collects or settings.retraining.interval_minutes):
                raise Refused(
                    "with every_upload each upload is trained on by itself: thresholds and interval_minutes have "
                    "no effect on it; leave out one of the two"
                )
        if tenant.account_id and tenant.pooled:
            raise Refused(
                "access for the tenant's own account needs a bucket of its own, and its tier keeps data in the "
                "pool: choose a tier with storage: silo, or hand out credentials (`trainyard tenant credentials`)"
            )
        if tenant.account_id and not tenant.key_arn:
            raise Refused(
                "the tenant's own account cannot open results that the deployment's key encrypts: name a "
                "--kms-key whose policy lets that account decrypt"
            )


def changed(settings: TrainingSettings, given: Mapping[str, Any]) -> TrainingSettings:
    """Return the settings with the given changes.

    Another algorithm discards the old one's hyperparameters; another version of the same one does not.
    """
    if family_of(given.get("algorithm", settings.algorithm)) != family_of(settings.algorithm):
        given = {"hyperparameters": (), **given}
    return replace(settings, **given)


def _with_changes(
    data_sets: Mapping[str, TrainingSettings],
    settings: TrainingSettings,
    changes: Mapping[str, Mapping[str, Any] | None],
) -> dict[str, TrainingSettings]:
    """Return the settings of data sets after some of them have changed; raises Refused for too many."""
    after = dict(data_sets)
    for name, given in changes.items():
        if given is None:
            after.pop(name, None)
        else:
            after[name] = changed(after.get(name, settings), given)
            if name not in data_sets and after[name] == settings:
                del after[name]  # it has nothing of its own
    if len(after) > DATA_SETS_MAX and len(after) > len(data_sets):
        raise Refused(f"at most {DATA_SETS_MAX} data sets can have settings of their own: remove those of another")
    return after


DATA_SETS_MAX = 50
"""With settings of their own: they are in the tenant's record."""

PROGRESS = frozenset({"state", "operation", "settled_by", "revision", "role", "role_since"})
"""The fields of a record that describe its progress, not what was requested."""


def differing(tenant: Tenant, other: Tenant) -> list[str]:
    """Return the names of the requested fields in which two records differ."""
    names = [f.name for f in fields(Tenant) if f.name not in PROGRESS]
    return [name for name in names if getattr(tenant, name) != getattr(other, name)]


def _given(wanted: str | None, before: str | None) -> str | None:
    return before if wanted is None else wanted or None


def _way_out(step: Step, tenant: Tenant) -> str:
    """Return what to do about a failed change; deletion is only suggested to the run that creates the tenant."""
    name = step.spec.tenant_id
    again = (
        f"Fix the cause and run it again: completed steps will not be run again (`trainyard tenant show {name}`)"
    )
    undo = {
        Change.CREATE: f", or undo it with `trainyard tenant delete {name}`"
        if tenant.state is TenantState.CREATING
        else "",
        Change.UPDATE: f", or go back with `trainyard tenant repair {name}`, which restores the recorded settings",
        Change.MOVE: f", or move it back to the tier that `trainyard tenant show {name}` shows",
    }
    return again + undo.get(step.change, "")
