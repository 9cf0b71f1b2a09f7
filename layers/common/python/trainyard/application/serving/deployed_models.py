"""Deployed models: what answers calls for data sets, and how a user changes that."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from trainyard.application.serving.ports import ModelPackages
from trainyard.application.serving.promotion import Promoter
from trainyard.domain.aliases import Alias, rolled_back, stopped
from trainyard.domain.canaries import Calls
from trainyard.domain.errors import Refused
from trainyard.domain.model_versions import ModelVersion
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.inference import InferenceBook
from trainyard.persistence.model_versions import ModelVersions
from trainyard.persistence.store import Cursor

CALLS_OF = timedelta(hours=1)
"""Calls are shown from the beginning of the hour on in which it was so long ago."""


class PromotionRuns(Protocol):
    def start(self, package_arn: str, revision: str) -> str | None:
        """Have a promoted version judged each minute while it is a canary, and older models removed.

        Idempotent for each revision of an alias. Returns an error code where it cannot be.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedModel:
    """What answers calls for a data set."""

    alias: Alias
    versions: tuple[ModelVersion, ...]
    """That the alias names; those that were removed with their tenant are left out."""
    calls: dict[int, Calls]
    """Version → what it was asked lately."""


class DeployedPage(NamedTuple):
    """Some of the data sets of all tenants that have, or had, a version that answers calls."""

    models: list[DeployedModel]
    cursor: Cursor | None
    """None when nothing is left."""


class Promotion(NamedTuple):
    """What answers calls after a promotion."""

    alias: Alias
    error: str | None
    """The error code of the run that would follow it up; it has been made nevertheless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedModels:
    aliases: Aliases
    versions: ModelVersions
    packages: ModelPackages
    calls: InferenceBook
    runs: PromotionRuns

    def page(self, now: datetime, *, limit: int, after: Cursor | None = None) -> DeployedPage:
        """Return data sets of all tenants; raises Malformed for a cursor of another list."""
        page = self.aliases.page(limit=limit, after=after)
        return DeployedPage(self._models(page.aliases, now), page.cursor)

    def of_tenant(self, tenant_id: str, now: datetime) -> list[DeployedModel]:
        return self._models(list(self.aliases.of_tenant(tenant_id)), now)

    def get(self, tenant_id: str, data_set: str, now: datetime) -> DeployedModel | None:
        """Return what answers calls for a data set, perhaps nothing any more; None where nothing ever did."""
        alias = self.aliases.get(tenant_id, data_set)
        return self._models([alias], now)[0] if alias.revision else None

    def promote(
        self, tenant_id: str, data_set: str, number: int, now: datetime, *, is_test: bool | None = None
    ) -> Promotion:
        """Let a canary answer all calls, or let a version in test answer calls in production.

        `is_test` says which of both it is, to the caller's knowledge: a version in test may become a canary, and
        must not become live when the call is repeated. Idempotent; raises Refused for any other version, and for
        one that is not approved any more.
        """
        version = self.versions.get(tenant_id, data_set, number)
        if version is None:
            raise Refused(f"version {number} of {data_set} was never deployed")
        promoter = Promoter(aliases=self.aliases, versions=self.versions, calls=self.calls)
        before = self.aliases.get(tenant_id, data_set)
        if number not in (before.testing, before.canary, before.live):
            raise Refused(
                f"version {number} of {data_set} is neither a canary nor in test: approve it again to deploy it"
            )
        if is_test is False and before.testing == number:
            raise Refused(f"version {number} of {data_set} is in test, and no canary")
        if is_test and before.testing != number:
            return Promotion(before, None)
        if number in (before.testing, before.canary):
            package = self.packages.get(version.package_arn)
            if package is None or not package.is_approved:
                raise Refused(f"version {number} of {data_set} is not approved any more: approve it first")
        promote = promoter.release if before.testing == number else promoter.promote
        alias = promote(version, now)
        return Promotion(alias, self.runs.start(version.package_arn, alias.revision))

    def roll_back(self, tenant_id: str, data_set: str, number: int, now: datetime) -> Alias:
        """Take a version out of service at once: one in test, a canary, or the live one.

        The previous version takes the place of the live one. Idempotent; raises Refused as `rolled_back` does.
        """
        return self.aliases.change(tenant_id, data_set, lambda alias: rolled_back(alias, number, now), now)

    def to_stop(self, tenant_id: str, data_set: str) -> list[int]:
        """Return the versions that `stop` would take out of service."""
        return _versions_of(self.aliases.get(tenant_id, data_set))

    def stop(self, tenant_id: str, data_set: str, now: datetime) -> list[int]:
        """Refuse all calls for a data set until a version is approved again; return the versions. Idempotent."""
        versions: list[int] = []

        def stop(alias: Alias) -> Alias:
            versions[:] = _versions_of(alias)
            return stopped(alias, now)

        if self.to_stop(tenant_id, data_set):  # nothing is stored of a data set that has no alias
            self.aliases.change(tenant_id, data_set, stop, now)
        return versions

    def _models(self, aliases: Sequence[Alias], now: datetime) -> list[DeployedModel]:
        names = [(alias.tenant_id, alias.data_set, number) for alias in aliases for number in _versions_of(alias)]
        versions = self.versions.get_all(names)
        calls = self.calls.calls_of_each(list(versions.values()), now - CALLS_OF, now)
        return [
            DeployedModel(
                alias=alias,
                versions=tuple(_named(alias, versions)),
                calls={
                    version.version: calls[alias.tenant_id, alias.data_set, version.version]
                    for version in _named(alias, versions)
                },
            )
            for alias in aliases
        ]


def _versions_of(alias: Alias) -> list[int]:
    """Return the versions of an alias that answer calls, or will."""
    of_alias = (alias.live, alias.canary, alias.testing, alias.deploying, alias.waiting)
    return [version for version in of_alias if version is not None]


def _named(alias: Alias, versions: dict[tuple[str, str, int], ModelVersion]) -> Iterable[ModelVersion]:
    for number in _versions_of(alias):
        version = versions.get((alias.tenant_id, alias.data_set, number))
        if version is not None:
            yield version
