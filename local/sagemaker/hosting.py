"""Endpoints of the local SageMaker: models are loaded from their archives and really answer.

An endpoint has a fleet: the containers of each of its variants. Creating and updating take a moment, and what does
not load fails. An update brings up a new fleet beside the old one, shifts the traffic as its
DeploymentConfig says, and goes back when an alarm rings meanwhile; waits are shortened by WAIT_SCALE.

Sources: API reference of SageMaker and of SageMaker Runtime; developer guide, "Deployment guardrails".
"""

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from botocore.exceptions import ClientError

from local.sagemaker.asynchronous import Asynchronous, AsyncInvocation
from local.sagemaker.components import Components
from local.sagemaker.containers import Container, DataMissing, Died, Image, LoadFailed, Response, TimedOut
from local.sagemaker.errors import ApiError
from local.sagemaker.hosting_rules import SERVERLESS_VARIANTS_MAX, containers_objection, objection_to
from local.sagemaker.scaling import Scaling
from local.sagemaker.transform import TransformJob, TransformJobs

Answer = dict[str, Any]

NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
BODY_BYTES_MAX = 6_291_456
"""Of a request and of an answer in real time (botocore, InvokeEndpointInput.BodyBlob)."""
SERVERLESS_BODY_BYTES_MAX = 4 * 1024 * 1024
"""Developer guide, "Serverless inference": 4 MB."""
ASYNC_ANSWER_BYTES_MAX = 1024**3
ANSWER_SECONDS_MAX = 60
"""Of a container in real time (API reference, InvokeEndpoint)."""
WAIT_SCALE = 0.0005
"""Waits of a deployment are so much shorter here, as those of state machines are."""
CHANGE_SECONDS = 0.2
"""For which an endpoint is Creating or Updating, at least."""
MODELS_LOADED_MAX = 8
"""On one instance of a multi-model endpoint; the number on AWS depends on memory."""


class Denial(Protocol):
    def __call__(self, role_arn: str, action: str, resource: str, keys: Answer, /) -> str | None: ...


@dataclass
class Resource:
    """A model, an endpoint configuration or an endpoint."""

    name: str
    arn: str
    request: Answer
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class Variant:
    """A production variant as it runs."""

    name: str
    weight: float
    request: Answer
    containers: dict[str, Container]
    """Host name, or "" for the only one → container; in the order of the model."""
    is_direct: bool
    role: str
    slots: threading.Semaphore | None = None
    """Of a serverless variant: as many requests at once."""

    def stop(self) -> None:
        for container in self.containers.values():
            container.stop()


Fleet = list[Variant]


@dataclass
class Endpoint(Resource):
    status: str = "Creating"
    config_name: str = ""
    failure: str | None = None
    changed_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    traffic: list[tuple[Fleet, float]] = field(default_factory=list)
    """Fleets and their share of the requests."""
    deployment: Answer | None = None
    asynchronous: Answer | None = None
    """Its AsyncInferenceConfig."""


class Invocation(NamedTuple):
    """A request to an endpoint."""

    endpoint: str
    body: bytes
    content_type: str
    accept: str
    target_model: str = ""
    target_variant: str = ""
    target_container: str = ""
    component: str = ""


@dataclass
class Hosting:
    """Models, endpoint configurations and endpoints, and what they answer.

    `client_as` returns a client of a service with the rights of a role; `ringing` those of some alarms that ring;
    `alarms_for` those whose actions name an ARN; `fault` the next planted fault of an operation, or None; `emit`
    sends an event.
    """

    image: Image
    arn: Callable[[str], str]
    client_as: Callable[[str, str], Any]
    trusts: Callable[[str, str], bool]
    ringing: Callable[[list[str]], list[str]]
    fault: Callable[[str], Any]
    emit: Callable[[Answer], None]
    alarms_for: Callable[[str], list[Answer]] = lambda _: []
    loaded_max: int = MODELS_LOADED_MAX
    region: str = "us-east-1"
    _models: dict[str, Resource] = field(default_factory=dict)
    _configs: dict[str, Resource] = field(default_factory=dict)
    _endpoints: dict[str, Endpoint] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._calls: dict[str, list[float]] = {}
        self._scaling = Scaling(self, self.arn, self.alarms_for)
        self._components = Components(self, self.arn, self._container, self._model_request)
        self._asynchronous = Asynchronous(self.client_as, self._answer_later, self.region)
        self._transforms = TransformJobs(
            arn=self.arn,
            model=self._model_request,
            start=self._start_transform,
            s3_as=lambda role: self.client_as("s3", role),
            logs_as=lambda role: self.client_as("logs", role),
            emit=self.emit,
        )

    def transform(self, request: Answer) -> TransformJob:
        """Create a transform job, as CreateTransformJob does, and return it."""
        self._transforms.create(request)
        return self._transforms.job(request["TransformJobName"])

    @property
    def operations(self) -> dict[str, Callable[[Answer], Answer]]:
        """Return name → operation; one is carried out at a time."""

        def alone(operation: Callable[[Answer], Answer]) -> Callable[[Answer], Answer]:
            def call(request: Answer) -> Answer:
                with self._lock:
                    return operation(request)

            return call

        return {name: alone(operation) for name, operation in self._operations().items()}

    def _operations(self) -> dict[str, Callable[[Answer], Answer]]:
        return {
            "CreateModel": self.create_model,
            "DescribeModel": self.describe_model,
            "DeleteModel": lambda r: self._delete("model", self._models, r["ModelName"]),
            "ListModels": lambda r: _listed(self._models, "Model", r),
            "CreateEndpointConfig": self.create_config,
            "DescribeEndpointConfig": self.describe_config,
            "DeleteEndpointConfig": lambda r: self._delete(
                "endpoint configuration", self._configs, r["EndpointConfigName"]
            ),
            "ListEndpointConfigs": lambda r: _listed(self._configs, "EndpointConfig", r),
            "CreateEndpoint": self.create_endpoint,
            "DescribeEndpoint": self.describe_endpoint,
            "UpdateEndpoint": self.update_endpoint,
            "UpdateEndpointWeightsAndCapacities": self.update_weights,
            "DeleteEndpoint": self.delete_endpoint,
            "ListEndpoints": self.list_endpoints,
            **self._transforms.operations,
            **self._scaling.operations,
            **self._components.operations,
        }

    # --- models and configurations --------------------------------------------------------------------------

    def create_model(self, request: Answer) -> Answer:
        name, role = request["ModelName"], request["ExecutionRoleArn"]
        model = self._new("model", self._models, name, request)
        objection = containers_objection(request)
        if objection:
            raise ApiError("ValidationException", objection)
        if not self.trusts(role, model.arn):
            raise ApiError(
                "ValidationException",
                f"Could not assume role {role}. Please ensure that the role exists and allows principal "
                "'sagemaker.amazonaws.com' to assume the role.",
            )
        for container in request.get("Containers") or [request.get("PrimaryContainer", {})]:
            if container.get("Mode") != "MultiModel" and "ModelDataUrl" in container:
                self._check_data(container["ModelDataUrl"], role)
        self._models[name] = model
        return {"ModelArn": model.arn}

    def _check_data(self, uri: str, role: str) -> None:
        """Refuse a model without data, as CreateModel does."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            self.client_as("s3", role).head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            raise ApiError("ValidationException", f"Could not find model data at {uri}.") from error

    def describe_model(self, request: Answer) -> Answer:
        model = _existing("model", self._models, request["ModelName"])
        return _described(model, "Model")

    def create_config(self, request: Answer) -> Answer:
        name = request["EndpointConfigName"]
        config = self._new("endpoint configuration", self._configs, name, request)
        models = {
            variant["ModelName"]: _existing("model", self._models, variant["ModelName"]).request
            for variant in request["ProductionVariants"]
            if "ModelName" in variant
        }
        objection = objection_to(request, models)
        if objection:
            raise ApiError("ValidationException", objection)
        role = request.get("ExecutionRoleArn")
        if role is not None and not self.trusts(role, config.arn):
            raise ApiError("ValidationException", f"Could not assume role {role}.")
        self._configs[name] = config
        return {"EndpointConfigArn": config.arn}

    def describe_config(self, request: Answer) -> Answer:
        config = _existing("endpoint configuration", self._configs, request["EndpointConfigName"])
        return _described(config, "EndpointConfig")

    # --- endpoints ------------------------------------------------------------------------------------------

    def create_endpoint(self, request: Answer) -> Answer:
        name, config = request["EndpointName"], request["EndpointConfigName"]
        variants = _existing("endpoint configuration", self._configs, config).request["ProductionVariants"]
        if "ServerlessConfig" in variants[0] and self._serverless() >= SERVERLESS_VARIANTS_MAX:
            raise ApiError("ResourceLimitExceeded", f"{SERVERLESS_VARIANTS_MAX} serverless endpoints are allowed")
        made = self._new("endpoint", self._endpoints, name, request)
        endpoint = Endpoint(made.name, made.arn, request, config_name=config)
        self._endpoints[name] = endpoint
        self._begin(self._bring_up, endpoint, config)
        return {"EndpointArn": endpoint.arn}

    def describe_endpoint(self, request: Answer) -> Answer:
        endpoint = _existing("endpoint", self._endpoints, request["EndpointName"])
        variants = [variant for fleet, share in endpoint.traffic if share for variant in fleet]
        answer = _summary(endpoint, "Endpoint") | {
            "EndpointConfigName": endpoint.config_name,
            "EndpointStatus": endpoint.status,
            "LastModifiedTime": endpoint.changed_at.timestamp(),
            "FailureReason": endpoint.failure,
            "LastDeploymentConfig": endpoint.deployment,
            "ProductionVariants": [
                {
                    "VariantName": variant.name,
                    "CurrentWeight": variant.weight,
                    "DesiredWeight": variant.weight,
                    "CurrentInstanceCount": variant.request.get("InitialInstanceCount", 0),
                    "DesiredInstanceCount": variant.request.get("InitialInstanceCount", 0),
                }
                for variant in variants
            ],
        }
        return {name: value for name, value in answer.items() if value not in (None, [])}

    def update_endpoint(self, request: Answer) -> Answer:
        endpoint, config = self._at_rest(request["EndpointName"]), request["EndpointConfigName"]
        _existing("endpoint configuration", self._configs, config)
        if config == endpoint.config_name:
            raise ApiError(
                "ValidationException",
                f'Cannot update endpoint with the currently in use endpoint configuration "{config}"',
            )
        self._move(endpoint, "Updating")
        endpoint.deployment = request.get("DeploymentConfig")
        self._begin(self._replace, endpoint, config)
        return {"EndpointArn": endpoint.arn}

    def update_weights(self, request: Answer) -> Answer:
        endpoint = self._at_rest(request["EndpointName"])
        (fleet, _), *_ = endpoint.traffic
        by_name = {variant.name: variant for variant in fleet}
        for desired in request["DesiredWeightsAndCapacities"]:
            if desired["VariantName"] not in by_name:
                raise ApiError("ValidationException", f"Could not find variant {desired['VariantName']!r}.")
        self._move(endpoint, "Updating")

        def change() -> None:
            time.sleep(CHANGE_SECONDS)
            for desired in request["DesiredWeightsAndCapacities"]:
                variant = by_name[desired["VariantName"]]
                variant.weight = desired.get("DesiredWeight", variant.weight)
                if "DesiredInstanceCount" in desired:
                    variant.request["InitialInstanceCount"] = desired["DesiredInstanceCount"]
            self._move(endpoint, "InService")

        self._begin(change)
        return {"EndpointArn": endpoint.arn}

    def delete_endpoint(self, request: Answer) -> Answer:
        endpoint = _existing("endpoint", self._endpoints, request["EndpointName"])
        if endpoint.status in ("Creating", "Updating", "RollingBack", "Deleting"):
            raise ApiError("ValidationException", f'Cannot update in-progress endpoint "{endpoint.arn}".')
        if self._scaling.is_target(endpoint.name):
            raise ApiError("ValidationException", f"{endpoint.name} is a scalable target: deregister it first")
        if self._components.of_endpoint(endpoint.name):
            raise ApiError(
                "ValidationException",
                "Cannot delete endpoint with inference component associated. Please delete inference component "
                "and try it again.",
            )
        self._move(endpoint, "Deleting")

        def gone() -> None:
            time.sleep(CHANGE_SECONDS)
            self._stop(endpoint)
            del self._endpoints[endpoint.name]

        self._begin(gone)
        return {}

    def list_endpoints(self, request: Answer) -> Answer:
        status = request.get("StatusEquals")
        chosen = {n: e for n, e in self._endpoints.items() if status in (None, e.status)}
        answer = _listed(chosen, "Endpoint", request)
        for summary in answer["Endpoints"]:
            endpoint = self._endpoints[summary["EndpointName"]]
            summary |= {"EndpointStatus": endpoint.status, "LastModifiedTime": endpoint.changed_at.timestamp()}
        return answer

    def tags_of(self, arn: str) -> list[Answer] | None:
        """Return the tags of a model, a configuration or an endpoint; None where the ARN is of none."""
        resource = self._by_arn(arn)
        if resource is None:
            tags: list[Answer] | None = self._transforms.tags_of(arn)
            tags = tags if tags is not None else self._scaling.tags_of(arn)
            return tags if tags is not None else self._components.tags_of(arn)
        return list(resource.request.get("Tags", []))

    def add_tags(self, arn: str, tags: list[Answer]) -> bool:
        """Add tags to what has the ARN; tell whether it is one of these."""
        resource = self._by_arn(arn)
        if resource is None:
            return False
        merged = {tag["Key"]: tag["Value"] for tag in [*resource.request.get("Tags", []), *tags]}
        resource.request["Tags"] = [{"Key": key, "Value": value} for key, value in merged.items()]
        return True

    # --- scaling --------------------------------------------------------------------------------------------

    def count(self, endpoint: str, variant: str) -> int | None:
        """Return the instances of a variant; None where it is not in service."""
        chosen = self._scalable(endpoint, variant)
        return None if chosen is None else int(chosen.request["InitialInstanceCount"])

    def set_count(self, endpoint: str, variant: str, count: int) -> None:
        desired = {"VariantName": variant, "DesiredInstanceCount": count}
        with self._lock:
            self.update_weights({"EndpointName": endpoint, "DesiredWeightsAndCapacities": [desired]})

    def is_asynchronous(self, endpoint: str) -> bool:
        return self._endpoints[endpoint].asynchronous is not None

    def instance_type(self, endpoint: str, variant: str) -> str:
        chosen = self._scalable(endpoint, variant)
        return "" if chosen is None else str(chosen.request["InstanceType"])

    def load(self, endpoint: str, seconds: float) -> tuple[int, int]:
        """Return how many calls there were in the last seconds, and how many requests wait or are answered now."""
        since = time.monotonic() - seconds
        recent = [at for at in self._calls.get(endpoint, []) if at >= since]
        self._calls[endpoint] = recent
        return len(recent), self._asynchronous.backlog(endpoint)

    def _scalable(self, name: str, variant: str) -> Variant | None:
        endpoint = self._endpoints.get(name)
        if endpoint is None or endpoint.status != "InService":
            return None
        variants = [each for fleet, share in endpoint.traffic if share for each in fleet if each.slots is None]
        return next((each for each in variants if each.name == variant), None)

    # --- inference components -------------------------------------------------------------------------------

    def holder(self, endpoint: str, variant: str) -> Variant:
        """Return the variant that holds components, of an endpoint in service; raises ApiError."""
        described: Endpoint = _existing("endpoint", self._endpoints, endpoint)
        if described.status not in ("InService", "Updating") or not described.traffic:
            raise ApiError("ValidationException", f"Endpoint {endpoint} is not InService")
        chosen = next((each for each in described.traffic[0][0] if each.name == variant), None)
        if chosen is None or chosen.containers:
            raise ApiError("ValidationException", f"Variant {variant!r} of {endpoint} holds no components")
        return chosen

    def endpoint_arn(self, endpoint: str) -> str:
        return self.arn(f"endpoint/{endpoint.lower()}")

    # --- bringing up and replacing --------------------------------------------------------------------------

    def _bring_up(self, endpoint: Endpoint, config: str) -> None:
        time.sleep(CHANGE_SECONDS)
        while (fault := self.fault("Start")) is not None and fault.code == "Slow":
            time.sleep(CHANGE_SECONDS)
        try:
            endpoint.traffic = [(self._fleet(config), 1.0)]
            endpoint.asynchronous = self._configs[config].request.get("AsyncInferenceConfig")
        except Exception as error:  # an endpoint never stays Creating
            self._stop(endpoint)
            endpoint.failure = str(error)
            self._move(endpoint, "Failed")
            return
        self._move(endpoint, "InService")

    def _replace(self, endpoint: Endpoint, config: str) -> None:
        """Bring up a new fleet, shift the traffic to it, and drop the old one, or go back."""
        time.sleep(CHANGE_SECONDS)
        (old, _), *_ = endpoint.traffic
        new: Fleet = []
        try:
            new = self._fleet(config)
            self._shift(endpoint, config, old, new)
        except Exception as error:  # an endpoint never stays Updating: it keeps what it had
            endpoint.traffic = [(old, 1.0)]
            _stop(new)
            endpoint.failure = str(error)
            self._move(endpoint, "InService")

    def _shift(self, endpoint: Endpoint, config: str, old: Fleet, new: Fleet) -> None:
        policy = (endpoint.deployment or {}).get("BlueGreenUpdatePolicy", {})
        alarms = [
            alarm["AlarmName"]
            for alarm in (endpoint.deployment or {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
        ]
        for share, wait in _shifts(policy):
            endpoint.traffic = [(old, 1 - share), (new, share)]
            ringing = self._ringing_within(alarms, wait * WAIT_SCALE)
            if ringing:
                self._move(endpoint, "RollingBack")
                raise _Failed(f"Alarms {ringing} went into ALARM state. The deployment was rolled back.")
        endpoint.traffic, endpoint.config_name, endpoint.failure = [(new, 1.0)], config, None
        endpoint.asynchronous = self._configs[config].request.get("AsyncInferenceConfig")
        self._move(endpoint, "InService")
        _stop(old)

    def _ringing_within(self, alarms: list[str], seconds: float) -> list[str]:
        """Return which alarms ring within some time, as soon as one does."""
        limit = time.monotonic() + seconds
        while True:
            ringing = self.ringing(alarms) if alarms else []
            if ringing or time.monotonic() >= limit:
                return ringing
            time.sleep(0.05)

    def _fleet(self, config_name: str) -> Fleet:
        """Start the containers of a configuration's variants; raises _Failed where one does not start."""
        config = _existing("endpoint configuration", self._configs, config_name)
        fleet: Fleet = []
        try:
            for variant in config.request["ProductionVariants"]:
                fleet.append(self._variant(variant, config.request))
                for container in fleet[-1].containers.values():
                    container.start()
        except LoadFailed as error:
            _stop(fleet)
            raise _Failed(
                f"The primary container for production variant {fleet[-1].name} did not pass the ping health "
                "check. Please check CloudWatch logs for this endpoint."
            ) from error
        except DataMissing as error:
            _stop(fleet)
            raise _Failed(f"Failed to download model data for container: {error}") from error
        except BaseException:
            _stop(fleet)
            raise
        return fleet

    def _variant(self, request: Answer, config: Answer) -> Variant:
        if "ModelName" not in request:  # it holds inference components
            role = config["ExecutionRoleArn"]
            return Variant(request["VariantName"], 1.0, dict(request), {}, is_direct=False, role=role)
        model = self._models.get(request["ModelName"])
        if model is None:
            raise _Failed(f'Could not find model "{request["ModelName"]}".')
        definitions = model.request.get("Containers") or [model.request["PrimaryContainer"]]
        role = model.request["ExecutionRoleArn"]
        containers = {
            definition.get("ContainerHostname", "" if len(definitions) == 1 else str(number)): self._container(
                definition, role
            )
            for number, definition in enumerate(definitions)
        }
        return Variant(
            name=request["VariantName"],
            weight=request.get("InitialVariantWeight", 1.0),
            request=dict(request),
            containers=containers,
            role=role,
            slots=threading.Semaphore(request["ServerlessConfig"]["MaxConcurrency"])
            if "ServerlessConfig" in request
            else None,
            is_direct=model.request.get("InferenceExecutionConfig", {}).get("Mode") == "Direct",
        )

    def _container(self, definition: Answer, role: str) -> Container:
        return Container(
            image=self.image,
            request=definition,
            s3=lambda: self.client_as("s3", role),
            loaded_max=self.loaded_max if definition.get("Mode") == "MultiModel" else 1,
        )

    def _start_transform(self, model: Answer, environment: Mapping[str, str]) -> Container:
        definition = (model.get("Containers") or [model["PrimaryContainer"]])[0]
        merged = definition | {"Environment": {**definition.get("Environment", {}), **environment}}
        return self._container(merged, model["ExecutionRoleArn"])

    def _model_request(self, name: str) -> Answer:
        request: Answer = _existing("model", self._models, name).request
        return request

    def _serverless(self) -> int:
        """Return how many serverless variants there are."""
        fleets = [fleet for endpoint in list(self._endpoints.values()) for fleet, _ in endpoint.traffic]
        return sum(variant.slots is not None for fleet in fleets for variant in fleet)

    # --- answering ------------------------------------------------------------------------------------------

    def invoke(self, invocation: Invocation) -> tuple[Response, str]:
        """Return what an endpoint answers, and the variant that did; raises ApiError as the runtime would."""
        endpoint = self._serving(invocation.endpoint)
        if endpoint.asynchronous is not None:
            raise ApiError(
                "ValidationError", f"Endpoint {invocation.endpoint} is asynchronous: use InvokeEndpointAsync"
            )
        variant = _chosen(endpoint, invocation.target_variant)
        self._calls.setdefault(endpoint.name, []).append(time.monotonic())
        if len(invocation.body) > (BODY_BYTES_MAX if variant.slots is None else SERVERLESS_BODY_BYTES_MAX):
            raise ApiError("ValidationError", "The request body is larger than the endpoint takes.", 413)
        if variant.slots is None:
            return self._through(variant, invocation, ANSWER_SECONDS_MAX), variant.name
        if not variant.slots.acquire(blocking=False):
            raise ApiError("ThrottlingException", "Rate exceeded", 429)
        try:
            return self._through(variant, invocation, ANSWER_SECONDS_MAX), variant.name
        finally:
            variant.slots.release()

    def invoke_async(self, invocation: AsyncInvocation) -> dict[str, str]:
        """Accept a request to an asynchronous endpoint; return where its answer will be."""
        endpoint = self._serving(invocation.endpoint)
        if endpoint.asynchronous is None:
            raise ApiError(
                "ValidationError", f"Endpoint {invocation.endpoint} is not asynchronous: use InvokeEndpoint"
            )
        role = endpoint.traffic[0][0][0].role
        return self._asynchronous.accept(invocation, endpoint.asynchronous, role)

    def _answer_later(self, invocation: AsyncInvocation, body: bytes) -> Response:
        variant = _chosen(self._serving(invocation.endpoint), "")
        while not variant.request.get("InitialInstanceCount"):  # it waits in the queue
            time.sleep(CHANGE_SECONDS)
            self._serving(invocation.endpoint)
        at_once = Invocation(invocation.endpoint, body, invocation.content_type, invocation.accept)
        return self._through(variant, at_once, invocation.seconds, bytes_max=ASYNC_ANSWER_BYTES_MAX)

    def _serving(self, name: str) -> Endpoint:
        endpoint = self._endpoints.get(name)
        if endpoint is None or not endpoint.traffic:
            raise ApiError("ValidationError", f"Endpoint {name} of account not found.")
        return endpoint

    def _through(
        self, variant: Variant, invocation: Invocation, seconds: float, *, bytes_max: int = BODY_BYTES_MAX
    ) -> Response:
        """Return what a variant's containers answer."""
        response = Response(200, invocation.content_type, invocation.body)
        path = _path(variant, invocation.target_container)
        if not variant.containers:
            path = [("", self._components.chosen(invocation.endpoint, invocation.component))]
        elif invocation.component:
            raise ApiError(
                "ValidationError",
                "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy "
                "inference components.",
            )
        for name, container in path:
            response = self._answer(invocation, name, container, response, seconds)
        if len(response.body) > bytes_max:
            raise _model_error("primary", 500, "the answer is larger than an endpoint can give")
        return response

    def _answer(
        self, invocation: Invocation, name: str, container: Container, given: Response, seconds: float
    ) -> Response:
        if container.is_multi_model != bool(invocation.target_model):
            raise ApiError(
                "ValidationError",
                "Invocation request does not contain required header TargetModel"
                if container.is_multi_model
                else "TargetModel is only for multi-model endpoints",
            )
        label, fault = name or "primary", self.fault(f"Container:{invocation.endpoint}")
        try:
            with container.server(invocation.target_model) as server:
                if fault is not None and fault.code == "OutOfMemory":
                    server.kill()
                if fault is not None and fault.code == "Slow":
                    raise TimedOut
                if fault is not None and fault.code == "Fails":
                    raise _model_error(label, 500, fault.message)
                response = server.invoke(given.body, given.content_type, invocation.accept, seconds)
        except DataMissing as error:
            raise ApiError("ValidationError", f"Failed to download model data ({error}).") from error
        except LoadFailed as error:
            raise _model_error(label, 500, f"the model could not be loaded: {error}") from error
        except Died:
            raise _model_error(label, 500, "Worker died.") from None
        except TimedOut:
            raise _model_error(
                label,
                0,
                f"Your invocation timed out while waiting for a response from container {label}. Review the "
                "latency metrics for each container in Amazon CloudWatch, resolve the issue, and try again.",
            ) from None
        if response.status != 200:
            raise _model_error(label, response.status, response.body.decode("utf-8", "replace"))
        return response

    def loaded(self, name: str) -> tuple[list[str], int]:
        """Return the models that an endpoint has loaded, and how often it loaded one."""
        containers = [
            container
            for fleet, _ in self._endpoints[name].traffic
            for variant in fleet
            for container in variant.containers.values()
        ]
        return [m for c in containers for m in c.loaded], sum(c.loads for c in containers)

    # --- together -------------------------------------------------------------------------------------------

    def _new(self, kind: str, existing: Mapping[str, Resource], name: str, request: Answer) -> Resource:
        if not NAME.fullmatch(name):
            raise ApiError("ValidationException", f"{name!r} does not match {NAME.pattern}")
        arn = self.arn(f"{kind.replace(' ', '-').replace('configuration', 'config')}/{name.lower()}")
        if name in existing:
            raise ApiError("ValidationException", f'Cannot create already existing {kind} "{arn}".')
        return Resource(name, arn, dict(request))

    def _delete(self, kind: str, existing: dict[str, Any], name: str) -> Answer:
        del existing[_existing(kind, existing, name).name]
        return {}

    def _at_rest(self, name: str) -> Endpoint:
        endpoint: Endpoint = _existing("endpoint", self._endpoints, name)
        if endpoint.status != "InService":
            raise ApiError("ValidationException", f'Cannot update in-progress endpoint "{endpoint.arn}".')
        return endpoint

    def _by_arn(self, arn: str) -> Resource | None:
        everything = (*self._models.values(), *self._configs.values(), *self._endpoints.values())
        return next((resource for resource in everything if resource.arn == arn), None)

    def _move(self, endpoint: Endpoint, status: str) -> None:
        endpoint.status, endpoint.changed_at = status, datetime.now(UTC)
        self.emit(
            {
                "Source": "aws.sagemaker",
                "DetailType": "SageMaker Endpoint State Change",
                "Detail": _event_detail(endpoint),
                "Resources": [endpoint.arn],
            }
        )

    @staticmethod
    def _begin(do: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=do, args=arguments, daemon=True).start()

    def _stop(self, endpoint: Endpoint) -> None:
        for fleet, _ in endpoint.traffic:
            _stop(fleet)
        endpoint.traffic = []


class _Failed(Exception):
    """A fleet that does not come up; the message is the endpoint's FailureReason."""


def _stop(fleet: Fleet) -> None:
    for variant in fleet:
        variant.stop()


def _chosen(endpoint: Endpoint, target: str) -> Variant:
    """Return the variant that answers: one by name, or by the shares of fleets and the weights of variants."""
    fleets, shares = [fleet for fleet, _ in endpoint.traffic], [share for _, share in endpoint.traffic]
    fleet = random.choices(fleets, shares)[0]  # noqa: S311
    if target:
        chosen = next((variant for variant in fleet if variant.name == target), None)
        if chosen is None:
            raise ApiError("ValidationError", f"Variant {target} not found for endpoint {endpoint.name}.")
        return chosen
    weights = [variant.weight for variant in fleet]
    return random.choices(fleet, weights if any(weights) else None)[0]  # noqa: S311


def _path(variant: Variant, target: str) -> Iterable[tuple[str, Container]]:
    """Return the containers that a request passes: one by host name, or all of them in turn."""
    if variant.is_direct:
        if target not in variant.containers:
            raise ApiError(
                "ValidationError", f"TargetContainerHostname {target!r} is none of the endpoint's containers"
            )
        return [(target, variant.containers[target])]
    if target:
        raise ApiError("ValidationError", "TargetContainerHostname is only for endpoints with direct invocation")
    return variant.containers.items()


def _shifts(policy: Answer) -> Iterator[tuple[float, float]]:
    """Yield the share of traffic that the new fleet takes, and for how many seconds.

    Source: developer guide, "Use canary traffic shifting", "Use linear traffic shifting"; shares in percent of
    capacity, which with one instance is all of it.
    """
    routing = policy.get("TrafficRoutingConfiguration", {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0})
    wait = float(routing.get("WaitIntervalInSeconds", 0))
    if routing["Type"] == "CANARY":
        yield _share(routing["CanarySize"]), wait
    elif routing["Type"] == "LINEAR":
        step = _share(routing["LinearStepSize"])
        share = step
        while share < 1:
            yield share, wait
            share += step
    yield 1.0, wait


def _share(size: Answer) -> float:
    return min(1.0, size["Value"] / 100) if size["Type"] == "CAPACITY_PERCENT" else 1.0


def _model_error(container: str, status: int, message: str) -> ApiError:
    return ApiError(
        "ModelError",
        f'Received server error ({status}) from {container} with message "{message}". See the CloudWatch logs of '
        "the endpoint for more information.",
        424,
        {"OriginalStatusCode": status, "OriginalMessage": message},
    )


def _event_detail(endpoint: Endpoint) -> str:
    detail = {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "EndpointConfigName": endpoint.config_name,
        "EndpointStatus": re.sub("(?<=[a-z])(?=[A-Z])", "_", endpoint.status).upper(),
        "CreationTime": int(endpoint.created_at.timestamp() * 1000),
        "LastModifiedTime": int(endpoint.changed_at.timestamp() * 1000),
        "Tags": {tag["Key"]: tag["Value"] for tag in endpoint.request.get("Tags", [])},
    }
    return json.dumps(detail)


def _existing(kind: str, existing: Mapping[str, Any], name: str) -> Any:
    if name not in existing:
        raise ApiError("ValidationException", f'Could not find {kind} "{name}".')
    return existing[name]


def _summary(resource: Resource, kind: str) -> Answer:
    return {
        f"{kind}Name": resource.name,
        f"{kind}Arn": resource.arn,
        "CreationTime": resource.created_at.timestamp(),
    }


def _described(resource: Resource, kind: str) -> Answer:
    return {name: value for name, value in resource.request.items() if name != "Tags"} | _summary(resource, kind)


def _listed(resources: Mapping[str, Resource], kind: str, request: Answer) -> Answer:
    """Return a page of summaries, at most 100, newest first, as the List operations do."""
    part = request.get("NameContains", "")
    chosen = [resource for resource in list(resources.values()) if part in resource.name]
    chosen.sort(key=lambda resource: resource.created_at, reverse=request.get("SortOrder") != "Ascending")
    begin, size = int(request.get("NextToken") or 0), min(int(request.get("MaxResults") or 10), 100)
    answer: Answer = {f"{kind}s": [_summary(resource, kind) for resource in chosen[begin : begin + size]]}
    return answer | ({"NextToken": str(begin + size)} if begin + size < len(chosen) else {})
