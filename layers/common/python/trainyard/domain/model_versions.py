"""Model versions: what became of a version of a data set's model after its approval."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from trainyard.domain.canaries import Calls
from trainyard.domain.serving import Mode, ServingSettings


class VersionState(StrEnum):
    DEPLOYING = "DEPLOYING"
    WAITING = "WAITING"
    """Another version is being deployed."""
    READY = "READY"
    """It has passed its smoke test; whether it answers calls, its alias says."""
    FAILED = "FAILED"
    REFUSED = "REFUSED"
    """It cannot be served in the mode that its data set has."""
    REMOVED = "REMOVED"
    """No alias names it any more."""


UNDERWAY = (VersionState.WAITING, VersionState.DEPLOYING, VersionState.READY)
"""States of versions that may have a model on an endpoint, or get one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A version of a model, and where it is served."""

    tenant_id: str
    data_set: str
    version: int
    """Its number in the model registry."""
    package_arn: str
    request_id: str
    model_uri: str
    state: VersionState
    since: datetime
    approved_at: datetime
    endpoint: str = ""
    target: str = ""
    """How calls of a shared endpoint name it: by its key below the endpoint's prefix, its inference component, or
    the host name of its container."""
    algorithm: str = ""
    """That it was trained with; "" where that is not known any more."""
    model_bytes: int = 0
    """The size of its archive, once it is on the endpoint."""
    image_uri: str = ""
    """The container image that its algorithm is served with."""
    serving: ServingSettings = field(default_factory=ServingSettings)
    """How it is served, as its data set's settings were when it was approved."""
    calls_before: Calls = field(default_factory=Calls)
    """What it was asked, in the hour in which it became a canary, before that …"""
    live_calls_before: Calls = field(default_factory=Calls)
    """… and what the version was asked that was live then, …"""
    beside: int | None = None
    """… which was this one."""
    reason: str | None = None
    latency_ms: int | None = None
    """Of the smoke test's call, with the loading of the model."""

    @property
    def own_resource(self) -> str:
        """The name of the endpoint, inference component or container of this version alone; "" without one."""
        if self.serving.mode in (Mode.INFERENCE_COMPONENT, Mode.MULTI_CONTAINER):
            return self.target
        return self.endpoint if self.serving.is_own else ""


def target_of(tenant_id: str, data_set: str, version: int, request_id: str) -> str:
    """Return the key of a model on a shared endpoint: the tenant's id before a separator that ids cannot have.

    No key is used twice, also where a tenant of the same name is created anew: an endpoint keeps what it loaded.
    Source: SageMaker developer guide, "Add or Remove Models".
    """
    return f"{tenant_id}/{data_set}/{version}-{request_id}/model.tar.gz"
