"""Transforms: what a batch transform predicts is planned when it is accepted, and read again at each start.

So a request stays what its name says: the same rows, predicted by the same version.
"""

from dataclasses import dataclass
from typing import Protocol

from trainyard.domain.errors import Refused
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.parameters import Defaults
from trainyard.domain.requests import Content, Request
from trainyard.domain.tenants import Tenant
from trainyard.domain.transforms import Plan, StoredRows, check_model, transform_parameters


class Models(Protocol):
    def live(self, tenant_id: str, data_set: str) -> ModelVersion | None:
        """Return the version of a data set's model that answers calls now; None where there is none."""
        ...

    def version(self, tenant_id: str, data_set: str, number: int) -> ModelVersion | None: ...


class RowsToPredict(Protocol):
    """The objects with rows that tenants have stored for batch transforms."""

    def find(self, tenant: Tenant, data_set: str) -> StoredRows | None:
        """Return what is stored for a data set now; None where there is nothing.

        Raises Refused for more objects than a run takes.
        """
        ...

    def plan(
        self, tenant: Tenant, data_set: str, content: Content, rows: StoredRows, version: ModelVersion
    ) -> None:
        """Write down once what a transform predicts: its plan, and the manifest that its job reads."""
        ...

    def planned(self, tenant: Tenant, request: Request) -> Plan | None:
        """Return the plan of a request; None where it is gone or cannot be read any more.

        Raises DataUnavailable when the storage does not answer in time, or denies access.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Transforms:
    """Prepares the starts of batch transforms."""

    models: Models
    rows: RowsToPredict
    defaults: Defaults

    def parameters(self, request: Request, tenant: Tenant) -> dict[str, str]:
        """Return the parameters of a request's run, the same at each repetition of its start.

        Raises Refused and DataUnavailable.
        """
        plan = self.rows.planned(tenant, request)
        if plan is None:
            raise Refused("what it was to predict was removed: ask for the batch transform again")
        version = self.models.version(request.tenant_id, request.data_set, plan.version)
        if version is None or version.state is not VersionState.READY:
            raise Refused(
                f"version {plan.version} of {request.data_set!r}, which was to predict, was taken out of service: "
                "ask for the batch transform again"
            )
        check_model(version, request.data_set)
        return transform_parameters(request, tenant, version, plan.content_type, defaults=self.defaults)
