"""Unused endpoints: own endpoints and components that no alias names are removed, whatever was interrupted.

The endpoint of the previous version costs as much as that of the live one: it is kept for KEPT_FOR, so that a
roll-back takes effect with the next call, and then removed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from trainyard.application.serving.ports import OwnEndpoint, OwnModels, ServedAs, SharedContainers
from trainyard.domain.aliases import in_use, without_previous
from trainyard.domain.model_versions import UNDERWAY, ModelVersion, VersionState
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions

KEPT_FOR = timedelta(days=1)
"""After a version began to answer all calls, for so long its predecessor's endpoint is kept."""


@dataclass(slots=True, kw_only=True)
class Removed:
    """What one run has removed."""

    endpoints: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Endpoint → error; the next run tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedEndpoints:
    models: OwnModels
    containers: SharedContainers
    aliases: Aliases
    versions: ModelVersions

    def remove(self, now: datetime, out_of_time: Callable[[], bool]) -> Removed:
        """Remove what no alias names. Safe at any time; one failing endpoint affects no other."""
        removed = Removed()
        for kind, existing in (("containers", self.containers.existing), ("endpoints", self.models.existing)):
            try:
                for endpoint in existing():
                    if out_of_time():
                        break
                    self._look_at(endpoint, now, removed)
            except Exception as error:  # what cannot be listed must not keep the others
                removed.failed[f"the list of {kind}"] = f"{type(error).__name__}: {error}"
        self._tend_containers(removed)
        return removed

    def _look_at(self, endpoint: OwnEndpoint, now: datetime, removed: Removed) -> None:
        try:
            if not self._is_used(endpoint, now) and self._remove(endpoint):
                removed.endpoints.append(endpoint.name)
        except Exception as error:  # one failing endpoint must not affect the others
            removed.failed[endpoint.name] = f"{type(error).__name__}: {error}"

    def _tend_containers(self, removed: Removed) -> None:
        try:
            objection = self.containers.tend()
        except Exception as error:  # what was removed before is told all the same
            objection = f"{type(error).__name__}: {error}"
        if objection:
            removed.failed["the endpoint of containers"] = objection

    def _is_used(self, endpoint: OwnEndpoint, now: datetime) -> bool:
        version = self.versions.get(endpoint.tenant_id, endpoint.data_set, endpoint.version)
        if version is None or version.own_resource != endpoint.name:
            return False  # its tenant was deleted, or the version belongs to another one of the same name
        alias = self.aliases.get(endpoint.tenant_id, endpoint.data_set)
        if alias.previous == endpoint.version and alias.live is not None:
            live = self.versions.get(endpoint.tenant_id, endpoint.data_set, alias.live)
            if live is not None and self._answered_long(live, now):
                alias = self.aliases.change(
                    endpoint.tenant_id,
                    endpoint.data_set,
                    lambda alias: without_previous(alias, endpoint.version),
                    now,
                )
        return endpoint.version in (*in_use(alias), alias.waiting)

    @staticmethod
    def _answered_long(live: ModelVersion, now: datetime) -> bool:
        baked = timedelta(minutes=live.serving.bake_minutes if live.serving.canary_percent else 0)
        return now >= live.since + baked + KEPT_FOR

    def _remove(self, endpoint: OwnEndpoint) -> bool:
        if endpoint.served_as is ServedAs.CONTAINER:
            self.containers.take_out(endpoint.name)
        elif not self.models.remove(endpoint):
            return False
        version = self.versions.get(endpoint.tenant_id, endpoint.data_set, endpoint.version)
        if version is not None and version.own_resource == endpoint.name and version.state in UNDERWAY:
            self.versions.replace(replace(version, state=VersionState.REMOVED))
        return True
