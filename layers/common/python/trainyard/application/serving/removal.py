"""Removing what is served of a tenant."""

from collections.abc import Callable
from dataclasses import dataclass

from trainyard.domain.model_versions import ModelVersion
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModels:
    aliases: Aliases
    versions: ModelVersions
    remove: Callable[[ModelVersion], None]
    """Removes a version's archive from its endpoint; idempotent."""

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
