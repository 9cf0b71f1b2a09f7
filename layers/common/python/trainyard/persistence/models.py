"""Models of data sets: their versions, and which of them answers calls now."""

from dataclasses import dataclass

from trainyard.domain.model_versions import ModelVersion
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions


@dataclass(frozen=True, slots=True)
class StoredModels:
    """Implements Models."""

    aliases: Aliases
    versions: ModelVersions

    def live(self, tenant_id: str, data_set: str) -> ModelVersion | None:
        number = self.aliases.get(tenant_id, data_set).live
        return None if number is None else self.version(tenant_id, data_set, number)

    def version(self, tenant_id: str, data_set: str, number: int) -> ModelVersion | None:
        return self.versions.get(tenant_id, data_set, number)
