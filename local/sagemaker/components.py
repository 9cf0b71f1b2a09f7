"""Inference components: containers with reserved processors and memory, on the instances of one endpoint.

A variant without a model holds components. Its instances grow up to its MaxInstanceCount when a component finds no
room, and shrink when there is room to spare; without ManagedInstanceScaling it keeps its instances.

Sources: API reference, CreateInferenceComponent, ProductionVariantManagedInstanceScaling; developer guide, "Deploy
models with inference components", "Scale an endpoint to zero instances".
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from local.sagemaker.containers import Container, DataMissing, LoadFailed
from local.sagemaker.errors import ApiError

Answer = dict[str, Any]

STEP_SECONDS = 0.2
"""For which a component is Creating or Deleting, at least."""
CPUS_MIN, MEMORY_MB_MIN = 0.25, 128
PAGE = 5
"""Components of one page, where a caller does not ask for fewer: AWS gives 10."""
_INSTANCES = {"large": (2, 8), "xlarge": (4, 16), "2xlarge": (8, 32), "4xlarge": (16, 64)}
"""Size → virtual CPUs and GiB, of the general-purpose families."""
SYSTEM_MB = 1024
"""Memory of an instance that components cannot have. AWS does not say how much it is."""


class Place(Protocol):
    """What components need of the variant that holds them."""

    role: str
    request: Answer


class Endpoints(Protocol):
    def holder(self, endpoint: str, variant: str) -> Place:
        """Return the variant that holds components, of an endpoint in service; raises ApiError."""
        ...

    def endpoint_arn(self, endpoint: str) -> str: ...

    def set_count(self, endpoint: str, variant: str, count: int) -> None: ...


@dataclass
class Component:
    name: str
    arn: str
    request: Answer
    status: str = "Creating"
    failure: str | None = None
    container: Container | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    changed_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def needs(self) -> tuple[float, int]:
        """Return its virtual CPUs and MB of memory."""
        required = self.request["Specification"]["ComputeResourceRequirements"]
        return float(required.get("NumberOfCpuCoresRequired", 0)), int(required["MinMemoryRequiredInMb"])

    @property
    def place(self) -> tuple[str, str]:
        return self.request["EndpointName"], self.request["VariantName"]


@dataclass
class Components:
    """The components of all endpoints; `container` makes one of a definition and a role, `model` finds a model."""

    endpoints: Endpoints
    arn: Callable[[str], str]
    container: Callable[[Answer, str], Container]
    model: Callable[[str], Answer]
    _components: dict[str, Component] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()

    @property
    def operations(self) -> dict[str, Callable[[Answer], Answer]]:
        return {
            "CreateInferenceComponent": self.create,
            "DescribeInferenceComponent": self.describe,
            "DeleteInferenceComponent": self.delete,
            "ListInferenceComponents": self.page,
        }

    def create(self, request: Answer) -> Answer:
        name = request["InferenceComponentName"]
        _check(request)
        self.endpoints.holder(request["EndpointName"], request["VariantName"])
        with self._lock:
            if name in self._components:
                raise ApiError(
                    "ValidationException",
                    f'Cannot create already existing inference component "{self._arn(name)}".',
                )
            component = Component(name, self._arn(name), dict(request))
            self._components[name] = component
        threading.Thread(target=self._bring_up, args=(component,), daemon=True).start()
        return {"InferenceComponentArn": component.arn}

    def describe(self, request: Answer) -> Answer:
        component = self._existing(request["InferenceComponentName"])
        specification = component.request["Specification"]
        if "Container" in specification:  # the image is told as it was deployed
            given = dict(specification["Container"])
            deployed = {"SpecifiedImage": given.pop("Image", "")}
            specification = specification | {"Container": given | {"DeployedImage": deployed}}
        copies = component.request["RuntimeConfig"]["CopyCount"]
        answer = self._summary(component) | {
            "FailureReason": component.failure,
            "Specification": specification,
            "RuntimeConfig": {
                "DesiredCopyCount": copies,
                "CurrentCopyCount": copies if component.status == "InService" else 0,
            },
        }
        return {key: value for key, value in answer.items() if value is not None}

    def delete(self, request: Answer) -> Answer:
        component = self._existing(request["InferenceComponentName"])
        if component.status in ("Creating", "Updating", "Deleting"):
            state = {"Creating": "CREATE", "Updating": "UPDATE_RC", "Deleting": "DELETE"}[component.status]
            busy = f'Cannot delete inference component "{component.arn}" while it is in state {state}_IN_PROGRESS.'
            raise ApiError("ValidationException", busy)
        self._move(component, "Deleting")
        threading.Thread(target=self._take_down, args=(component,), daemon=True).start()
        return {}

    def page(self, request: Answer) -> Answer:
        with self._lock:
            chosen = [
                component
                for component in self._components.values()
                if request.get("NameContains", "") in component.name
                and request.get("EndpointNameEquals") in (None, component.request["EndpointName"])
                and request.get("StatusEquals") in (None, component.status)
            ]
        chosen.sort(key=lambda component: component.created_at, reverse=request.get("SortOrder") != "Ascending")
        begin = int(request.get("NextToken") or 0)
        end = begin + min(int(request.get("MaxResults") or PAGE), PAGE)
        more = {"NextToken": str(end)} if end < len(chosen) else {}
        return {"InferenceComponents": [self._summary(component) for component in chosen[begin:end]]} | more

    def of_endpoint(self, endpoint: str) -> list[str]:
        """Return the names of the components on an endpoint."""
        with self._lock:
            return [c.name for c in self._components.values() if c.request["EndpointName"] == endpoint]

    def chosen(self, endpoint: str, name: str) -> Container:
        """Return the container that answers an endpoint's calls for a component; raises ApiError."""
        if not name:
            raise ApiError(
                "ValidationError",
                "Inference Component Name header is required for endpoints to which you plan to deploy inference "
                "components. Please include Inference Component Name header or consider using SageMaker models.",
            )
        component = self._components.get(name)
        if component is None or component.request["EndpointName"] != endpoint:
            raise ApiError("ValidationError", f"Inference Component {name} of endpoint {endpoint} not found.")
        if component.status != "InService" or component.container is None:
            raise ApiError("ValidationError", "Inference Component has no capacity to process this request.")
        return component.container

    def tags_of(self, arn: str) -> list[Answer] | None:
        component = next((c for c in list(self._components.values()) if c.arn == arn), None)
        return None if component is None else list(component.request.get("Tags", []))

    # --- bringing up and taking down ------------------------------------------------------------------------

    def _bring_up(self, component: Component) -> None:
        time.sleep(STEP_SECONDS)
        try:
            variant = self._with_room(component)
            component.container = self.container(self._definition(component), variant.role)
            component.container.start()
        except (ApiError, LoadFailed, DataMissing) as error:  # a component never stays Creating
            component.failure = (
                f"Container failed to start: {error}" if isinstance(error, LoadFailed) else str(error)
            )
            if component.container is not None:
                component.container.stop()
            self._move(component, "Failed")
            return
        self._move(component, "InService")

    def _with_room(self, component: Component) -> Place:
        """Return the variant that has room for a component, with another instance if need be; raises ApiError."""
        while True:
            variant = self.endpoints.holder(*component.place)
            with self._lock:
                needed = self._instances_for(component.place, variant)
            if needed is not None and needed <= variant.request["InitialInstanceCount"]:
                return variant
            most = _managed(variant).get("MaxInstanceCount", 0)
            if needed is None or needed > most:
                raise ApiError(
                    "ValidationException",
                    "There is not enough hardware resources on the instances for this endpoint to create a copy "
                    "of the inference component.",
                )
            self._change_count(component.place, needed)

    def _take_down(self, component: Component) -> None:
        time.sleep(STEP_SECONDS)
        if component.container is not None:
            component.container.stop()
        with self._lock:
            del self._components[component.name]
            variant = self.endpoints.holder(*component.place)
            needed = self._instances_for(component.place, variant) or 0
        least = _managed(variant).get("MinInstanceCount")
        if least is not None and max(needed, least) < variant.request["InitialInstanceCount"]:
            self._change_count(component.place, max(needed, least))

    def _change_count(self, place: tuple[str, str], count: int) -> None:
        """Change the number of instances of a variant, and wait until it is done."""
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            try:
                if self.endpoints.holder(*place).request["InitialInstanceCount"] == count:
                    return
                self.endpoints.set_count(*place, count)
            except ApiError:  # another change is under way
                time.sleep(STEP_SECONDS / 4)

    def _instances_for(self, place: tuple[str, str], variant: Place) -> int | None:
        """Return how many instances hold all components of a variant; None where one fits on none."""
        cpus, gib = _INSTANCES.get(variant.request["InstanceType"].rpartition(".")[2], (0, 0))
        whole = (float(cpus), gib * 1024 - SYSTEM_MB)
        free: list[tuple[float, int]] = []
        for component in self._components.values():
            if component.place != place or component.status in ("Failed", "Deleting"):
                continue
            processors, memory = component.needs
            if processors > whole[0] or memory > whole[1]:
                return None
            fits = (number for number, (c, m) in enumerate(free) if processors <= c and memory <= m)
            number = next(fits, len(free))
            if number == len(free):
                free.append(whole)
            free[number] = (free[number][0] - processors, free[number][1] - memory)
        return len(free)

    def _definition(self, component: Component) -> Answer:
        """Return the container's definition, with the names that models have for its fields."""
        specification = component.request["Specification"]
        if "ModelName" in specification:
            model = self.model(specification["ModelName"])
            definition: Answer = (model.get("Containers") or [model["PrimaryContainer"]])[0]
            return definition
        container = dict(specification["Container"])
        if "ArtifactUrl" in container:
            container["ModelDataUrl"] = container.pop("ArtifactUrl")
        return container

    # --- together -------------------------------------------------------------------------------------------

    def _arn(self, name: str) -> str:
        return self.arn(f"inference-component/{name.lower()}")

    def _existing(self, name: str) -> Component:
        component = self._components.get(name)
        if component is None:
            raise ApiError("ValidationException", f'Could not find inference component "{self._arn(name)}".')
        return component

    def _move(self, component: Component, status: str) -> None:
        component.status, component.changed_at = status, datetime.now(UTC)

    def _summary(self, component: Component) -> Answer:
        return {
            "InferenceComponentName": component.name,
            "InferenceComponentArn": component.arn,
            "EndpointName": component.request["EndpointName"],
            "EndpointArn": self.endpoints.endpoint_arn(component.request["EndpointName"]),
            "VariantName": component.request["VariantName"],
            "InferenceComponentStatus": component.status,
            "CreationTime": component.created_at.timestamp(),
            "LastModifiedTime": component.changed_at.timestamp(),
        }


def _check(request: Mapping[str, Any]) -> None:
    """Raise ApiError for what SageMaker does not accept."""
    for name in ("VariantName", "Specification", "RuntimeConfig"):
        if name not in request:
            raise ApiError("ValidationException", f"{name} is required")
    specification = request["Specification"]
    if ("ModelName" in specification) == ("Container" in specification):
        raise ApiError("ValidationException", "Specify either ModelName or Container")
    required = specification.get("ComputeResourceRequirements", {})
    if required.get("MinMemoryRequiredInMb", 0) < MEMORY_MB_MIN:
        raise ApiError("ValidationException", f"MinMemoryRequiredInMb must be {MEMORY_MB_MIN} at least")
    if required.get("NumberOfCpuCoresRequired", CPUS_MIN) < CPUS_MIN:
        raise ApiError("ValidationException", f"NumberOfCpuCoresRequired must be {CPUS_MIN} at least")


def _managed(variant: Place) -> Answer:
    scaling: Answer = variant.request.get("ManagedInstanceScaling", {})
    return scaling if scaling.get("Status") == "ENABLED" else {}
