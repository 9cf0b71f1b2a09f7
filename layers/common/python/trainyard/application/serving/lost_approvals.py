"""Lost approvals: a version whose approval reached nobody is deployed after all.

The event of an approval can be lost; it can come while the tenant is suspended, or before serving was switched on;
and the run that deploys a version can die, with another one waiting behind it. So the registry itself is searched:
some tenants in each run, continuing from the last one. What is found is deployed as if its event had come.
Canaries, and versions in test for a limited time, are judged too, since the run of one can have died. The endpoint
of a version that answers calls is brought up again if somebody has deleted it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from trainyard.application.serving.approval_rule import approves_itself
from trainyard.application.serving.model_deployment import NOT_APPROVED, Judgement, VersionId
from trainyard.application.serving.ports import ModelPackages
from trainyard.domain.alias_events import AliasChange, AliasEvent
from trainyard.domain.aliases import Alias, failed, in_use, is_abandoned, next_to_deploy, not_waiting
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.serving import Approval
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions
from trainyard.persistence.outbox import model_entry
from trainyard.persistence.store import Key, Put, Store

TENANTS_A_RUN = 200
PACKAGES_MAX = 10
"""Of one tenant in one run: approved versions that nothing is known of."""
TURN_SECONDS = 900
"""The interval of the timer (template.yaml)."""

_CURSOR = Key("scheduler", (("pk", "serving#"), ("sk", "cursor")))


class TenantPages(Protocol):
    def page(self, *, after: str | None = None, limit: int = 100) -> tuple[list[Tenant], str | None]: ...


class Deployments(Protocol):
    def start(self, package_arn: str, day: str) -> bool:
        """Deploy a version; False where that was tried on the same day before. Raises Throttled."""
        ...


@dataclass(slots=True, kw_only=True)
class Search:
    """What one run has searched."""

    tenants: int = 0
    started: list[str] = field(default_factory=list)
    """Model packages."""
    rolled_back: list[VersionId] = field(default_factory=list)
    """Versions that were judged, and failed too many calls."""
    failed: dict[str, str] = field(default_factory=dict)
    """Tenant → error; it is searched again in the next cycle."""
    missing: dict[tuple[str, str], bool] = field(default_factory=dict)
    """Endpoint, and what is a version's own on it → whether it does not exist any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostApprovals:
    store: Store
    tenants: TenantPages
    packages: ModelPackages
    aliases: Aliases
    versions: ModelVersions
    deployments: Deployments
    judge: Callable[[VersionId, datetime], tuple[Judgement, VersionId | None]]
    """Promotes a canary, or a version whose test has ended, or rolls it back."""
    is_missing: Callable[[ModelVersion], bool]
    """Tells whether the endpoint of a version does not exist any more."""

    def run(self, now: datetime, out_of_time: Callable[[], bool]) -> Search:
        """Search some tenants, from where the last run ended. Safe at any time; one failing tenant affects no
        other.
        """
        search = Search()
        (item,) = self.store.get(_CURSOR)
        after, done = (item or {}).get("after"), int((item or {}).get("done", 0))
        tenants, following = self.tenants.page(after=after, limit=TENANTS_A_RUN)
        for number, tenant in enumerate(tenants):
            if number < done:
                continue
            if out_of_time():
                self._keep(after, number)
                return search
            if tenant.state is TenantState.ACTIVE:
                search.tenants += 1
                try:
                    self._search(tenant, now, search)
                except Exception as error:  # one failing tenant must not affect the others
                    search.failed[tenant.tenant_id] = f"{type(error).__name__}: {error}"
        self._keep(following, 0)
        return search

    def _search(self, tenant: Tenant, now: datetime, search: Search) -> None:
        versions = {version.version: version for version in self.versions.of_tenant(tenant.tenant_id)}
        for named in list(self.aliases.of_tenant(tenant.tenant_id)):
            for number in (named.canary, named.testing):
                if number is not None and number in versions:
                    self._judge(VersionId(named.tenant_id, named.data_set, number), now, search)
        aliases = {alias.data_set: alias for alias in self.aliases.of_tenant(tenant.tenant_id)}
        due = [
            versions[number].package_arn
            for alias in aliases.values()
            if (number := _stuck(alias, now)) is not None and number in versions
            if self._is_alive(alias, number, versions[number].package_arn, now)
        ]
        listed = self.packages.approved(tenant.model_group)
        if any(s.serving.approval is not Approval.MANUAL for s in (tenant.settings, *tenant.data_sets.values())):
            listed += self.packages.pending(tenant.model_group)
        unknown = [arn for arn in listed if _number(arn) not in versions]
        newest: dict[str, tuple[int, str]] = {}
        # Others in each run: those that are older than the live version stay unknown.
        begin = int(now.timestamp() // TURN_SECONDS) * PACKAGES_MAX % max(len(unknown), 1)
        for arn in (unknown[begin:] + unknown[:begin])[:PACKAGES_MAX]:
            package = self.packages.get(arn)
            if package is None or package.tenant_id != tenant.tenant_id:
                continue
            if not package.is_approved and not approves_itself(package, tenant, now):
                continue
            alias = aliases.get(package.data_set)
            if alias is None or package.version > max(_alive(alias, now), default=0):
                newest[package.data_set] = max(newest.get(package.data_set, (0, "")), (package.version, arn))
        due += [arn for _, arn in newest.values()]
        due += [
            versions[number].package_arn
            for alias in aliases.values()
            for number in (alias.live, alias.canary, alias.testing)
            if number is not None and number in versions
            if self._is_missing(versions[number], search)
        ]
        for arn in due:
            if self.deployments.start(arn, now.strftime("%Y-%m-%d")):
                search.started.append(arn)

    def _is_missing(self, version: ModelVersion, search: Search) -> bool:
        place = (version.endpoint, version.own_resource)
        if place not in search.missing:  # many versions are on one endpoint
            search.missing[place] = self.is_missing(version)
        return search.missing[place]

    def _judge(self, version: VersionId, now: datetime, search: Search) -> None:
        try:
            if self.judge(version, now)[0] is Judgement.ROLLED_BACK:
                search.rolled_back.append(version)
        except Exception as error:  # the tenant's other versions are searched all the same
            search.failed[version.tenant_id] = f"{type(error).__name__}: {error}"

    def _is_alive(self, alias: Alias, version: int, package_arn: str, now: datetime) -> bool:
        """Tell whether a version that waits can still be deployed; one that cannot holds up no other then."""
        package = self.packages.get(package_arn)
        if package is not None and package.is_approved:
            return True

        def without(alias: Alias) -> Alias:
            return not_waiting(failed(alias, version, alias.deploying_run or "", now), version)

        alias = self.aliases.change(alias.tenant_id, alias.data_set, without, now, NOT_APPROVED)
        stored = self.versions.get(alias.tenant_id, alias.data_set, version)
        if stored is not None and stored.state is VersionState.WAITING:
            event = AliasEvent(AliasChange.NOT_DEPLOYED, version, NOT_APPROVED)
            refused = replace(stored, state=VersionState.REFUSED, since=now, reason=NOT_APPROVED)
            self.versions.put(refused, model_entry(alias, event, "", now))
        return False

    def _keep(self, after: str | None, done: int) -> None:
        self.store.transact([Put(_CURSOR, {"done": done} | ({"after": after} if after else {}))])


def _alive(alias: Alias, now: datetime) -> frozenset[int]:
    """Return the versions that are in use, without one whose deployment has died."""
    return in_use(alias) - ({alias.deploying} if is_abandoned(alias, now) else set())


def _stuck(alias: Alias, now: datetime) -> int | None:
    """Return the version whose deployment has died, or that waits although none is being deployed."""
    if alias.deploying is not None and is_abandoned(alias, now):
        return max(alias.deploying, alias.waiting or 0)
    return next_to_deploy(alias)


def _number(arn: str) -> int:
    """Return the version in the ARN of a model package: …:model-package/<group>/<version>."""
    number = arn.rpartition("/")[2]
    return int(number) if number.isdecimal() else 0
