"""Live models: the version of a data set's model that answers calls now."""

from dataclasses import dataclass

from trainyard.domain.model_versions import ModelVersion
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions


@dataclass(frozen=True, slots=True)
class StoredLiveModels:
    """Implements LiveModels."""

    aliases: Aliases
    versions: ModelVersions

    def get(self, tenant_id: str, data_set: str) -> ModelVersion | None:
        number = self.aliases.get(tenant_id, data_set).live
        return None if number is None else self.versions.get(tenant_id, data_set, number)
