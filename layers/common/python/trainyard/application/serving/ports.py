"""What serving needs of the platform."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.smoke_test import Sample
from trainyard.domain.tenants import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPackage:
    """A version in the model registry."""

    arn: str
    group: str
    version: int
    is_approved: bool
    changed_at: datetime
    """When its approval last changed."""
    tenant_id: str
    data_set: str
    request_id: str
    model_uri: str


class ModelPackages(Protocol):
    def get(self, arn: str) -> ModelPackage | None:
        """Return a model package of this deployment; None where there is none, or it is not ours."""
        ...

    def approved(self, group: str) -> list[str]:
        """Return the ARNs of a group's approved packages, the newest first, no more than one page of them."""
        ...


class Samples(Protocol):
    def read(self, tenant: Tenant, data_set: str, request_id: str) -> Sample | None:
        """Return the rows that the training of a request kept; None where there are none that can be read."""
        ...


class EndpointState(StrEnum):
    READY = "READY"
    COMING = "COMING"
    FAILED = "FAILED"


class Response(NamedTuple):
    """What a model answered, and how long that took."""

    body: bytes
    milliseconds: int


class SharedModels(Protocol):
    """The endpoints that serve the models of many tenants, one for each algorithm."""

    def endpoint_of(self, algorithm: str) -> str:
        """Return the name of an algorithm's endpoint."""
        ...

    def ensure(self, endpoint: str) -> tuple[EndpointState, str]:
        """Create the endpoint if there is none; return how it is, and why it failed. Idempotent."""
        ...

    def put(self, version: ModelVersion) -> int:
        """Copy the version's archive to its place on the endpoint, and return its size in bytes.

        Idempotent; raises Refused where there is no archive.
        """
        ...

    def remove(self, version: ModelVersion) -> None:
        """Remove the version's archive from the endpoint. Idempotent."""
        ...

    def ask(self, version: ModelVersion, rows: str, content_type: str) -> Response:
        """Return what the version answers to rows, as JSON.

        Raises Refused with the words of the model or the endpoint, Throttled when it has to be asked again later.
        """
        ...
