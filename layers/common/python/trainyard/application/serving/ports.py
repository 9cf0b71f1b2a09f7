"""What serving needs of the platform."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from trainyard.domain.challenge import Challenge
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
    image_uri: str
    is_pending: bool
    """Whether nobody has approved or rejected it yet."""
    created_at: datetime
    """When it was registered."""
    comment: str = ""
    """Why it was approved, rejected or left to somebody, in the words of whoever did."""


class ModelPackages(Protocol):
    def get(self, arn: str) -> ModelPackage | None:
        """Return a model package of this deployment; None where there is none, or it is not ours."""
        ...

    def approve(self, arn: str, comment: str) -> None:
        """Approve a model package. Idempotent."""
        ...

    def reject(self, arn: str, comment: str) -> None:
        """Reject a model package. Idempotent."""
        ...

    def approved(self, group: str) -> list[str]:
        """Return the ARNs of a group's approved packages, the newest first, no more than one page of them."""
        ...

    def newest(self, group: str) -> int:
        """Return the number of a group's newest version; 0 where it has none, or there is no such group."""
        ...

    def leave_pending(self, arn: str, comment: str) -> None:
        """Say of a model package why it was not approved by itself. Idempotent."""
        ...

    def pending(self, group: str) -> list[str]:
        """Return the ARNs of a group's packages that are neither approved nor rejected, as `approved` does."""
        ...


class Comparisons(Protocol):
    def read(self, tenant: Tenant, data_set: str, request_id: str) -> Challenge | None:
        """Return how the model of a request stands beside its champion; None where it had none.

        Raises Refused where its evaluation cannot be read.
        """
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


class ModelHost(Protocol):
    """Where models are served in one mode: on endpoints that tenants share, or one for each version."""

    def located(self, version: ModelVersion) -> ModelVersion:
        """Return the version with the endpoint, and its place on it."""
        ...

    def put(self, version: ModelVersion) -> int:
        """See to it that the endpoint can read the version's archive, and return its size in bytes.

        Idempotent; raises Refused where there is no archive.
        """
        ...

    def ensure(self, version: ModelVersion, tenant: Tenant) -> tuple[EndpointState, str]:
        """Create the endpoint if there is none; return how it is, and why it failed. Idempotent."""
        ...

    def is_missing(self, version: ModelVersion) -> bool:
        """Tell whether the endpoint of a version that was brought up, or its place there, exists no more."""
        ...

    def remove(self, version: ModelVersion) -> None:
        """Remove the version from service. Idempotent.

        An endpoint that is being created cannot be removed yet: it is left for `unused_endpoints`.
        """
        ...

    def ask(self, version: ModelVersion, tenant: Tenant, rows: str, content_type: str) -> Response:
        """Return what the version answers to rows, as JSON.

        Raises Refused with the words of the model or the endpoint, Throttled when it has to be asked again later.
        """
        ...


class ServedAs(StrEnum):
    """What serves one version alone."""

    ENDPOINT = "endpoint"
    COMPONENT = "inference component"
    CONTAINER = "container"
    """Of an endpoint that tenants share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEndpoint:
    """What serves one version alone, or what is left of it."""

    name: str
    served_as: ServedAs = ServedAs.ENDPOINT
    tenant_id: str
    data_set: str
    version: int


class SharedContainers(Protocol):
    """The containers of an endpoint that tenants share."""

    def existing(self) -> Iterator[OwnEndpoint]:
        """Yield the versions that have a container, or are to get one."""
        ...

    def take_out(self, host: str) -> None:
        """Let the endpoint go on without a container. Idempotent."""
        ...

    def tend(self) -> str:
        """Carry on what was begun, and delete what is needed no more; return why that cannot be, "" if it can."""
        ...


class OwnModels(Protocol):
    def existing(self) -> Iterator[OwnEndpoint]:
        """Yield what there is in this deployment, also what is only partly there."""
        ...

    def remove(self, endpoint: OwnEndpoint) -> bool:
        """Remove an endpoint with its model, or a component; False while it is being created. Idempotent."""
        ...
