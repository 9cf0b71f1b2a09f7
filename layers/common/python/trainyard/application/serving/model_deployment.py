"""Deploying an approved version of a model: on its algorithm's shared endpoint, or on one of its own.

    begin → place → bring up (again, until the endpoint is ready) → test → switch
      │                        └─ into the test environment, or as a canary → judge (again, until it answers
      │                                                                       all calls, or none)
      └─ whatever fails → fail: the version is removed, and its alias stays with what it had

Each step can be repeated, and is a task of a state machine. What a caller gets changes in `switch` alone.

An event can be lost, and a run can die: `lost_approvals` finds such versions, and begins again. After two hours
another run may take the place of one that died.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from trainyard.application.ports import Tenants
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.application.serving.approval_rule import ApprovalRule, approves_itself
from trainyard.application.serving.ports import (
    Comparisons,
    EndpointState,
    ModelHost,
    ModelPackage,
    ModelPackages,
    Samples,
)
from trainyard.application.serving.promotion import Promoter
from trainyard.domain import smoke_test
from trainyard.domain.alias_events import AliasChange, AliasEvent
from trainyard.domain.aliases import (
    Alias,
    Begun,
    begin,
    deployed,
    deployed_for_test,
    failed,
    in_use,
    is_judged,
    next_to_deploy,
    not_waiting,
    postponed,
    rolled_back,
)
from trainyard.domain.errors import Refused
from trainyard.domain.model_versions import UNDERWAY, ModelVersion, VersionState
from trainyard.domain.serving import ASYNC_INLINE_BYTES_MAX, Mode, Promotion, objection_to
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions
from trainyard.persistence.outbox import model_entry
from trainyard.persistence.policies import Policies

NOT_APPROVED = "it is not approved, or its approval was taken back"


REASON_MAX = 500
"""Characters that are kept of why a version failed."""


class VersionId(NamedTuple):
    tenant_id: str
    data_set: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What became of an approval."""

    id: VersionId | None
    """None where nothing is known of the package."""
    begun: Begun | None
    """None where it is not deployed, for the reason."""
    reason: str = ""
    following: VersionId | None = None
    """The version to deploy instead; None where none waits."""
    is_judged: bool = False
    """Whether it is a canary, or in test for a limited time: its judgement goes on."""
    is_missing: bool = False
    """Whether it answers calls, and yet its endpoint does not exist any more: it is brought up again."""


class Switched(NamedTuple):
    """What became of a version that has passed its smoke test."""

    is_judged: bool
    """Whether it is a canary, or in test for a limited time, and is to be judged."""
    serves: bool
    """Whether it answers calls; else it waits."""
    following: VersionId | None
    """The version to deploy next."""


class Judgement(StrEnum):
    """What became of a version that is judged: a canary, or one in test for a limited time."""

    TESTING = "it goes on answering calls in test"
    BAKING = "it goes on answering its share"
    PROMOTED = "it answers all calls"
    ROLLED_BACK = "it failed too many calls, and answers none"
    NOT_JUDGED = "it is neither a canary nor in test for a limited time any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDeployment:
    aliases: Aliases
    versions: ModelVersions
    tenants: Tenants
    policies: Policies
    scheduler: Scheduler
    packages: ModelPackages
    samples: Samples
    comparisons: Comparisons
    hosts: Mapping[Mode, ModelHost]
    promoter: Promoter

    def begin(self, package_arn: str, run: str, now: datetime) -> Started:
        """Take up an approved version, or say why not.

        What the registry says now counts, not what an event said. `run` is who deploys it: the same for each
        repetition of a step, and another one for each event.
        """
        package = self.packages.get(package_arn)
        if package is None:
            return Started(id=None, begun=None, reason=f"there is no model package {package_arn}")
        version_id = VersionId(package.tenant_id, package.data_set, package.version)
        tenant = self.tenants.get(package.tenant_id)
        if not package.is_approved and not approves_itself(package, tenant, now):
            return self._not_begun(version_id, NOT_APPROVED, now)
        if tenant is None or tenant.state is not TenantState.ACTIVE:
            # What waits goes on waiting: the search for lost approvals deploys it once the tenant is active again.
            return Started(id=version_id, begun=None, reason=f"tenant {package.tenant_id} is not active")
        if package.group != tenant.model_group:
            return self._not_begun(version_id, f"{package_arn} is not in the tenant's model group", now)
        if not package.is_approved:
            try:
                package = self._rule.apply(package, tenant, now)
            except Refused as refusal:
                return self._not_begun(version_id, str(refusal), now)
        version = self._version(package, tenant, now)
        if package.version not in in_use(self.aliases.get(package.tenant_id, package.data_set)):
            objection = self._objection(tenant, version)
            if objection is not None:
                self._refuse(version, objection, now)
                return self._not_begun(version_id, objection, now)
        begun, is_missing = Begun.DEPLOY, False

        def take_up(alias: Alias) -> Alias:
            nonlocal begun
            alias, begun = begin(alias, package.version, package.changed_at, now, run)
            return alias

        alias = self.aliases.change(package.tenant_id, package.data_set, take_up, now)
        if begun is Begun.SERVED:
            self._tidy(alias)  # an operator may have promoted it
            stored = self.versions.get(*version_id)
            is_missing = stored is not None and self.is_missing(stored)
        if begun in (Begun.DEPLOY, Begun.WAIT):
            state = VersionState.DEPLOYING if begun is Begun.DEPLOY else VersionState.WAITING
            self.versions.put(replace(version, state=state))
            if not self._is_active(package.tenant_id):
                self._forget_if_deleted(version)
        is_judged = _is_judged(alias, package.version)
        return Started(id=version_id, begun=begun, is_judged=is_judged, is_missing=is_missing)

    @property
    def _rule(self) -> ApprovalRule:
        return ApprovalRule(
            aliases=self.aliases,
            versions=self.versions,
            packages=self.packages,
            comparisons=self.comparisons,
            request_of=self.scheduler.tables.requests.get,
        )

    def place(self, version_id: VersionId) -> None:
        """Copy the model to its endpoint; raises Refused where its archive is gone, or its tenant."""
        version = self._known(version_id)
        size = self._host(version).put(version)
        # A tenant that is deleted meanwhile has its models removed, but not one that is copied after that.
        if not self._is_active(version.tenant_id):
            self._host(version).remove(version)
            raise Refused(f"tenant {version.tenant_id} is not active")
        self.versions.replace(replace(version, model_bytes=size))

    def bring_up(self, version_id: VersionId) -> bool:
        """Create the endpoint if need be; tell whether it is ready. Raises Refused when it cannot be created."""
        version = self._known(version_id)
        state, reason = self._host(version).ensure(version, self._active(version))
        if not self._is_active(version.tenant_id):  # its deletion may have been faster than the endpoint's scaling
            self._host(version).remove(version)
            raise Refused(f"tenant {version.tenant_id} is not active")
        if state is EndpointState.FAILED:
            raise Refused(f"it could not be brought up: {reason}")
        return state is EndpointState.READY

    def is_missing(self, version: ModelVersion) -> bool:
        """Tell whether the endpoint of a version that answers calls does not exist any more."""
        return self._host(version).is_missing(version)

    def test(self, version_id: VersionId, now: datetime) -> int | None:
        """Let the version answer rows of its own data set; return in how many milliseconds it did.

        None for a version that only predicts in batch transforms: it has no endpoint to ask, and each transform is
        judged by itself. Raises Refused where it does not answer, or not as it must.
        """
        version = self._known(version_id)
        tenant = self._active(version)
        if version.serving.mode is Mode.BATCH_TRANSFORM:
            self.versions.replace(replace(version, state=VersionState.READY, since=now, reason=None))
            return None
        sample = self.samples.read(tenant, version.data_set, version.request_id)
        if not sample or not sample.count:
            raise Refused("its training kept no rows to test it with: train again, and approve the new version")
        sample = sample.shortened(ASYNC_INLINE_BYTES_MAX)
        response = self._host(version).ask(version, tenant, sample.rows, sample.content_type)
        objection = smoke_test.objection_to(sample, response.body)
        if objection is not None:
            raise Refused(f"smoke test: {objection}")
        ready = replace(
            version,
            state=VersionState.READY,
            since=now,
            latency_ms=response.milliseconds,
            reason=None,
        )
        self.versions.replace(ready)
        return response.milliseconds

    def switch(self, version_id: VersionId, run: str, now: datetime) -> Switched:
        """Let calls get the version, or the share of them that its settings say.

        Raises Refused where another version has taken its place meanwhile, or its approval was taken back.
        """
        version = self._known(version_id)
        alias = self.aliases.get(version.tenant_id, version.data_set)
        if version.state is VersionState.WAITING and alias.waiting == version.version:
            return Switched(is_judged=False, serves=False, following=None)  # it was postponed before
        if version.state is not VersionState.READY:
            raise Refused(f"version {version.version} of {version.data_set} has not passed its smoke test")
        package = self.packages.get(version.package_arn)
        if package is None or not package.is_approved:
            raise Refused(NOT_APPROVED)
        settings = version.serving
        percent = settings.canary_percent or 100
        is_new = version.version not in (alias.live, alias.canary, alias.testing)
        if is_new and (percent < 100 or settings.promotion is not Promotion.DIRECT):
            self.promoter.note_calls_before(version, alias, now)
        ends_at = now + timedelta(minutes=settings.test_minutes)

        def take_over(alias: Alias) -> Alias:
            holds = (alias.deploying, alias.deploying_run) == (version.version, run)
            if holds and is_judged(alias):  # an operator has made another one a canary meanwhile
                return postponed(alias, version.version, run)
            if settings.promotion is Promotion.DIRECT:
                return deployed(alias, version.version, run, percent=percent)
            is_timed = settings.promotion is Promotion.AUTOMATIC
            return deployed_for_test(alias, version.version, run, ends_at if is_timed else None)

        alias = self.aliases.change(version.tenant_id, version.data_set, take_over, now)
        serves = version.version in (alias.live, alias.canary, alias.testing)
        if not serves:
            self.versions.replace(replace(version, state=VersionState.WAITING))
        self._tidy(alias)
        return Switched(_is_judged(alias, version.version), serves, self._next(alias))

    def judge(self, version_id: VersionId, now: datetime) -> tuple[Judgement, VersionId | None]:
        """Take a version out of service that fails calls, as a canary or in test; else promote it in time.

        Also return the version to deploy next.
        """
        version = self._known(version_id)
        alias = self.aliases.get(version.tenant_id, version.data_set)
        if not _is_judged(alias, version.version):
            return Judgement.NOT_JUDGED, self._next(alias)
        objection = self.promoter.objection_to(version, alias, now)
        if objection is not None:
            return self._roll_back_judged(version, objection, now)
        is_test = alias.testing == version.version
        baked_at = version.since + timedelta(minutes=version.serving.bake_minutes)
        ends_at = alias.test_ends_at if is_test and alias.test_ends_at else baked_at
        if now < ends_at or (is_test and alias.canary is not None):
            return Judgement.TESTING if is_test else Judgement.BAKING, None
        if is_test and not self._is_active(version.tenant_id):
            return Judgement.TESTING, None  # nobody could call it
        package = self.packages.get(version.package_arn) if is_test else None
        if is_test and (package is None or not package.is_approved):
            return self._roll_back_judged(version, NOT_APPROVED, now)
        try:
            alias = (self.promoter.release if is_test else self.promoter.promote)(version, now)
        except Refused:  # an operator has decided otherwise meanwhile
            return Judgement.NOT_JUDGED, self._next(self.aliases.get(version.tenant_id, version.data_set))
        if alias.canary == version.version:
            return Judgement.BAKING, None
        self._tidy(alias)
        return Judgement.PROMOTED, self._next(alias)

    def _roll_back_judged(
        self, version: ModelVersion, reason: str, now: datetime
    ) -> tuple[Judgement, VersionId | None]:
        """Give a version up that is judged, unless somebody else has decided about it meanwhile."""
        is_ours = False

        def give_up(alias: Alias) -> Alias:
            nonlocal is_ours
            is_ours = _is_judged(alias, version.version)
            return rolled_back(alias, version.version, now) if is_ours else alias

        alias = self.aliases.change(version.tenant_id, version.data_set, give_up, now, reason)
        if not is_ours:
            return Judgement.NOT_JUDGED, self._next(alias)
        self.versions.replace(replace(version, state=VersionState.FAILED, since=now, reason=reason))
        return Judgement.ROLLED_BACK, self._next(alias)

    def package_of(self, version_id: VersionId) -> str:
        """Return the ARN of a version's model package; "" where another run has not stored it yet."""
        version = self.versions.get(*version_id)
        return version.package_arn if version is not None else ""

    def fail(self, version_id: VersionId, run: str, reason: str, now: datetime) -> VersionId | None:
        """Give a version up, and say why; return the version to deploy next. Its alias stays as it was."""
        version = self.versions.get(*version_id)
        tenant = self.tenants.get(version_id.tenant_id)
        if version is not None and tenant is not None and tenant.state is TenantState.SUSPENDED:
            self._postpone(version, run, now)
            return None
        alias = self.aliases.get(version_id.tenant_id, version_id.data_set)
        holds = (alias.deploying, alias.deploying_run) == (version_id.version, run)
        is_named = version_id.version in in_use(alias) or version_id.version == alias.waiting
        # Its model is removed while nobody else can deploy the version.
        if version is not None and (holds or (version.state in UNDERWAY and not is_named)):
            self._host(version).remove(version)
            self.versions.put(replace(version, state=VersionState.FAILED, since=now, reason=reason[:REASON_MAX]))
        alias = self.aliases.change(
            version_id.tenant_id,
            version_id.data_set,
            lambda alias: failed(alias, version_id.version, run, now),
            now,
            reason[:REASON_MAX],
        )
        return self._next(alias)

    def _postpone(self, version: ModelVersion, run: str, now: datetime) -> None:
        """Let a version wait until its tenant is active again: the search for lost approvals deploys it then."""
        alias = self.aliases.change(
            version.tenant_id, version.data_set, lambda alias: postponed(alias, version.version, run), now
        )
        is_postponed = alias.waiting == version.version
        if is_postponed:
            self.versions.put(replace(version, state=VersionState.WAITING))

    def _not_begun(self, version_id: VersionId, reason: str, now: datetime) -> Started:
        """Let a version that cannot be deployed hold up no other, and say which one waits behind it."""
        alias = self.aliases.change(
            version_id.tenant_id, version_id.data_set, lambda alias: not_waiting(alias, version_id.version), now
        )
        version = self.versions.get(*version_id)
        if version is not None and version.state is VersionState.WAITING:
            self._refuse(version, reason, now)
        return Started(id=version_id, begun=None, reason=reason, following=self._next(alias))

    def _refuse(self, version: ModelVersion, reason: str, now: datetime) -> None:
        """Store why a version cannot be deployed, and announce it."""
        alias = self.aliases.get(version.tenant_id, version.data_set)
        event = AliasEvent(AliasChange.NOT_DEPLOYED, version.version, reason)
        refused = replace(version, state=VersionState.REFUSED, reason=reason)
        stored = self.versions.get(version.tenant_id, version.data_set, version.version)
        if stored is not None and replace(stored, since=refused.since) == refused:
            return  # by an earlier try of the step
        self.versions.put(refused, model_entry(alias, event, reason, now))

    def _forget_if_deleted(self, version: ModelVersion) -> None:
        """Leave nothing of a version that was taken up while its tenant was being deleted."""
        tenant = self.tenants.get(version.tenant_id)
        if tenant is None or tenant.state in (TenantState.DELETING, TenantState.DELETED):
            self.aliases.forget(version.tenant_id, version.data_set)
            self.versions.forget(version)

    def _tidy(self, alias: Alias) -> None:
        """Remove the models of versions that cannot answer any more: those below all that the alias names.

        Others may have been begun since the alias was read, also older ones than it names.
        """
        lowest = min(in_use(alias), default=0)
        for version in self.versions.of_data_set(alias.tenant_id, alias.data_set):
            if version.state in UNDERWAY and version.version < lowest:
                self._host(version).remove(version)
                self.versions.put(replace(version, state=VersionState.REMOVED))

    def _next(self, alias: Alias) -> VersionId | None:
        """Return the version to deploy next: the one that waits, or one that it had taken the place of."""
        waiting = next_to_deploy(alias)
        if waiting is None and alias.deploying is None and not is_judged(alias):
            newest = max(alias.live or 0, alias.canary or 0, alias.testing or 0)
            versions = self.versions.of_data_set(alias.tenant_id, alias.data_set)
            waiting = next(
                (v.version for v in versions if v.state is VersionState.WAITING and v.version > newest), None
            )
        return None if waiting is None else VersionId(alias.tenant_id, alias.data_set, waiting)

    def _version(self, package: ModelPackage, tenant: Tenant, now: datetime) -> ModelVersion:
        version = ModelVersion(
            tenant_id=package.tenant_id,
            data_set=package.data_set,
            version=package.version,
            package_arn=package.arn,
            request_id=package.request_id,
            model_uri=package.model_uri,
            state=VersionState.WAITING,
            since=now,
            approved_at=package.changed_at,
            algorithm=self._algorithm(package.request_id),
            image_uri=package.image_uri,
            serving=tenant.settings_for(package.data_set).serving,
        )
        return self._host(version).located(version)

    def _host(self, version: ModelVersion) -> ModelHost:
        return self.hosts[version.serving.mode]

    def _algorithm(self, request_id: str) -> str:
        """Return what the request was trained with; "" where it is not known any more."""
        request = self.scheduler.tables.requests.get(request_id)
        return (request.algorithm or "") if request is not None else ""

    def _objection(self, tenant: Tenant, version: ModelVersion) -> str | None:
        """Return why a version cannot be served as its settings say; None if it can."""
        catalogue = self.policies.current().catalogue
        algorithm = catalogue.get(self._algorithm(version.request_id))
        if algorithm is None:
            return "the algorithm that it was trained with is not known any more: train again"
        # Jobs of one tenant can overwrite each other's models, so code of its own could get into any of them.
        used = {settings.algorithm for settings in (tenant.settings, *tenant.data_sets.values())}
        own_code = any(catalogue[name].brings_code for name in {*used, algorithm.name} if name in catalogue)
        return objection_to(version.serving, own_code=own_code, own_key=tenant.key_arn is not None)

    def _is_active(self, tenant_id: str) -> bool:
        tenant = self.tenants.get(tenant_id)
        return tenant is not None and tenant.state is TenantState.ACTIVE

    def _active(self, version: ModelVersion) -> Tenant:
        tenant = self.tenants.get(version.tenant_id)
        if tenant is None or tenant.state is not TenantState.ACTIVE:
            raise Refused(f"tenant {version.tenant_id} is not active")
        return tenant

    def _known(self, version_id: VersionId) -> ModelVersion:
        version = self.versions.get(*version_id)
        if version is None:
            raise Refused(f"version {version_id.version} of {version_id.data_set} was never taken up")
        return version


def _is_judged(alias: Alias, version: int) -> bool:
    """Tell whether a version is judged: it is a canary, or in test for a limited time."""
    return version == alias.canary or (version == alias.testing and alias.test_ends_at is not None)
