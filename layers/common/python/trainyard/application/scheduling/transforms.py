"""Transforms: which stored rows a batch transform predicts, and with which version of the model."""

from dataclasses import dataclass
from typing import Protocol

from trainyard.domain.errors import Refused
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.parameters import Defaults
from trainyard.domain.requests import Request
from trainyard.domain.tenants import Tenant
from trainyard.domain.transforms import FOLDER, StoredRows, check_model, transform_parameters


class LiveModels(Protocol):
    def get(self, tenant_id: str, data_set: str) -> ModelVersion | None:
        """Return the version of a data set's model that answers calls now; None where there is none."""
        ...


class RowsToPredict(Protocol):
    """The objects with rows that tenants have stored for batch transforms."""

    def find(self, tenant: Tenant, data_set: str, *, hurried: bool = False) -> StoredRows | None:
        """Return what is stored for a data set now; None where there is nothing.

        Raises Refused for more objects than a run takes, and DataUnavailable if `hurried` and they are not listed
        in time.
        """
        ...

    def write_manifest(self, tenant: Tenant, request: Request, rows: StoredRows, version: ModelVersion) -> None:
        """Write the manifest that a job reads, and the report of what it is to predict with which version."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Transforms:
    """Prepares the starts of batch transforms."""

    live_models: LiveModels
    rows: RowsToPredict
    defaults: Defaults

    def prepare(self, request: Request, tenant: Tenant) -> tuple[int, dict[str, str]]:
        """Write what the job of a request reads; return the size of its rows in bytes, and its parameters.

        The version that is live now predicts what is stored now. Raises Refused and DataUnavailable.
        """
        version = check_model(self.live_models.get(request.tenant_id, request.data_set), request.data_set)
        rows = self.rows.find(tenant, request.data_set, hurried=True)
        if rows is None:
            raise Refused(f"there are no rows left under {FOLDER}{request.data_set}/")
        parameters = transform_parameters(request, tenant, version, rows.content_type(), defaults=self.defaults)
        self.rows.write_manifest(tenant, request, rows, version)
        return rows.size_bytes, parameters
