"""What is served of a tenant: whether it has endpoints of its own, and removing all of it."""

from collections.abc import Callable
from dataclasses import dataclass

from trainyard.domain.aliases import in_use
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModels:
    aliases: Aliases
    versions: ModelVersions
    remove: Callable[[ModelVersion], None]
    """Removes a version's archive from its endpoint; idempotent."""

    def has_own_endpoint(self, tenant_id: str) -> bool:
        """Tell whether a tenant has an endpoint of its own, or will have one."""
        named = {
            (alias.data_set, number)
            for alias in self.aliases.of_tenant(tenant_id)
            for number in (*in_use(alias), alias.waiting)
        }
        return any(
            version.state is VersionState.READY or (version.data_set, version.version) in named
            for version in self.versions.of_tenant(tenant_id)
            if version.serving.is_own
        )

    def forget(self, tenant_id: str) -> int:
        """Remove a tenant's aliases, models and versions; return how many versions there were. Idempotent.

        The aliases go first: from then on nothing of the tenant answers.
        """
        for alias in list(self.aliases.of_tenant(tenant_id)):
            self.aliases.forget(tenant_id, alias.data_set)
        versions = list(self.versions.of_tenant(tenant_id))
        for version in versions:
            self.remove(version)
            self.versions.forget(version)
        return len(versions)
