"""Implements what serving needs: the model registry, samples, and shared multi-model endpoints."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.endpoint_scaling import VARIANT
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.tenant_objects import DENIED, RESULT_BYTES_MAX, split_uri
from trainyard.application.serving.ports import EndpointState, ModelPackage, Response
from trainyard.contracts.serving import SAMPLE_BYTES_MAX, parse_sample
from trainyard.domain.challenge import Challenge
from trainyard.domain.errors import Malformed, OutcomeUnknown, Refused, Throttled
from trainyard.domain.model_versions import ModelVersion, target_of
from trainyard.domain.parameters import Locations
from trainyard.domain.serving import Mode
from trainyard.domain.smoke_test import Sample
from trainyard.domain.tenants import Tenant

ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
MISSING = "Could not find"
"""How SageMaker says in a ValidationException that there is no such model, configuration or endpoint."""

NO_CAPACITY = "has no capacity to process"
"""How an inference component says in a ValidationError that its instance is being replaced."""

COPY_BYTES_MAX = 5 * 1024**3
"""Of one CopyObject (S3 API reference)."""

TARGETS: Mapping[Mode, str] = {
    Mode.MULTI_MODEL: "TargetModel",
    Mode.MULTI_CONTAINER: "TargetContainerHostname",
    Mode.INFERENCE_COMPONENT: "InferenceComponentName",
}
"""Modes of shared endpoints → how a call names the model that is to answer it."""

NAME_MAX = 63
MESSAGE_MAX = 300


class SageMakerPackages:
    """Implements ModelPackages: the registry of this account and Region."""

    def get(self, arn: str) -> ModelPackage | None:
        try:
            with translated():
                package = client("sagemaker").describe_model_package(ModelPackageName=arn)
        except ClientError as error:
            if code_of(error) in ("ValidationException", "ResourceNotFound"):
                return None
            raise
        metadata = package.get("CustomerMetadataProperties", {})
        containers = package.get("InferenceSpecification", {}).get("Containers", [])
        if not {"tenant", "data_set", "request"} <= set(metadata) or len(containers) != 1:
            return None
        return ModelPackage(
            arn=package["ModelPackageArn"],
            group=package["ModelPackageGroupName"],
            version=package["ModelPackageVersion"],
            is_approved=package["ModelApprovalStatus"] == "Approved",
            changed_at=package.get("LastModifiedTime", package["CreationTime"]),
            tenant_id=metadata["tenant"],
            data_set=metadata["data_set"],
            request_id=metadata["request"],
            model_uri=containers[0]["ModelDataUrl"],
            image_uri=containers[0].get("Image", ""),
            is_pending=package["ModelApprovalStatus"] == "PendingManualApproval",
            created_at=package["CreationTime"],
            comment=package.get("ApprovalDescription", ""),
        )

    def approve(self, arn: str, comment: str) -> None:
        self._decide(arn, "Approved", comment)

    def reject(self, arn: str, comment: str) -> None:
        self._decide(arn, "Rejected", comment)

    def leave_pending(self, arn: str, comment: str) -> None:
        self._decide(arn, "PendingManualApproval", comment)

    def approved(self, group: str) -> list[str]:
        return self._listed(group, "Approved")

    def pending(self, group: str) -> list[str]:
        return self._listed(group, "PendingManualApproval")

    def newest(self, group: str) -> int:
        arns = self._listed(group, limit=1)
        return int(arns[0].rpartition("/")[2]) if arns else 0

    @staticmethod
    def _decide(arn: str, status: str, comment: str) -> None:
        try:
            with translated():
                client("sagemaker").update_model_package(
                    ModelPackageArn=arn, ModelApprovalStatus=status, ApprovalDescription=comment
                )
        except ClientError as error:
            if code_of(error) == "ConflictException":  # somebody else is changing it (API reference)
                raise Throttled(str(error)) from error
            raise

    @staticmethod
    def _listed(group: str, status: str | None = None, limit: int = 100) -> list[str]:
        of_status = {"ModelApprovalStatus": status} if status else {}
        try:
            with translated():
                page = client("sagemaker").list_model_packages(
                    ModelPackageGroupName=group,
                    SortBy="CreationTime",
                    SortOrder="Descending",
                    MaxResults=limit,
                    **of_status,
                )
        except ClientError as error:
            if code_of(error) in ("ValidationException", "ResourceNotFound"):  # the tenant has no group any more
                return []
            raise
        return [summary["ModelPackageArn"] for summary in page["ModelPackageSummaryList"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateMachineDeployments:
    """Implements Deployments: runs of the state machine deploy-model, at most one a day for each version."""

    machine_arn: str

    def start(self, package_arn: str, day: str) -> bool:
        name = f"search-{day}-{sha256(package_arn.encode()).hexdigest()[:32]}"
        event = {"detail": {"ModelPackageArn": package_arn}}
        try:
            with translated():
                client("stepfunctions").start_execution(
                    stateMachineArn=self.machine_arn, name=name, input=json.dumps(event)
                )
        except ClientError as error:
            if code_of(error) != "ExecutionAlreadyExists":
                raise
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class StateMachinePromotions:
    """Implements PromotionRuns: runs of the state machine deploy-model."""

    machine_arn: str

    def start(self, package_arn: str, revision: str) -> str | None:
        event = {"detail": {"ModelPackageArn": package_arn}}
        try:
            client("stepfunctions").start_execution(
                stateMachineArn=self.machine_arn, name=f"promoted-{revision}", input=json.dumps(event)
            )
        except ClientError as error:
            return None if code_of(error) == "ExecutionAlreadyExists" else code_of(error)
        except BotoCoreError as error:  # a connection that was lost: the promotion itself has been made
            return type(error).__name__
        return None


class S3Samples:
    """Implements Samples: reports/<data set>/<request>/profile/sample.json in the tenant's root."""

    def read(self, tenant: Tenant, data_set: str, request_id: str) -> Sample | None:
        key = f"{tenant.root}reports/{data_set}/{request_id}/profile/sample.json"
        try:
            with translated():
                body = client("s3").get_object(Bucket=tenant.bucket, Key=key)["Body"].read(SAMPLE_BYTES_MAX + 1)
        except ClientError as error:
            if code_of(error) in ABSENT:
                return None
            raise
        try:
            return parse_sample(body) if len(body) <= SAMPLE_BYTES_MAX else None
        except Malformed:
            return None


class S3Comparisons:
    """Implements Comparisons: what evaluation.json says in the tenant's root."""

    def read(self, tenant: Tenant, data_set: str, request_id: str) -> Challenge | None:
        from trainyard.contracts.results import parse_evaluation

        root = f"s3://{tenant.bucket}/{tenant.root}"
        where = Locations(root_uri=root, data_set=data_set, request_id=request_id)
        bucket, key = split_uri(where.evaluation)
        try:
            with translated():
                body = client("s3").get_object(Bucket=bucket, Key=key)["Body"].read(RESULT_BYTES_MAX + 1)
        except ClientError as error:
            # What passes is raised, and the step is tried again.
            if code_of(error) in {*ABSENT, *DENIED}:
                raise Refused(f"evaluation.json cannot be read: {code_of(error)}") from error
            raise
        if len(body) > RESULT_BYTES_MAX:
            raise Refused(f"evaluation.json has more than {RESULT_BYTES_MAX:,} bytes")
        try:
            evaluation = parse_evaluation(body)
        except Malformed as error:
            raise Refused(f"evaluation.json: {error}") from error
        return evaluation.champion.as_challenge() if evaluation.champion else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SageMakerSharedModels:
    """Implements ModelHost: a multi-model endpoint per algorithm, its models below a prefix of a bucket."""

    stack: str
    stage: str
    bucket: str
    role_arn: str
    image_uri: str
    instance_type: str
    network: "Network"

    def located(self, version: ModelVersion) -> ModelVersion:
        target = target_of(version.tenant_id, version.data_set, version.version, version.request_id)
        return replace(version, endpoint=self.endpoint_of(version.algorithm), target=target)

    def endpoint_of(self, algorithm: str) -> str:
        """Return the name of an algorithm's endpoint."""
        name = f"{self.stack}-shared-{re.sub('[^a-zA-Z0-9]+', '-', algorithm).strip('-')}"
        if len(name) <= NAME_MAX:
            return name
        return f"{name[: NAME_MAX - 9]}-{sha256(name.encode()).hexdigest()[:8]}"

    def ensure(self, version: ModelVersion, tenant: Tenant) -> tuple[EndpointState, str]:
        return brought_up(version.endpoint, lambda: self._create(version.endpoint))

    def is_missing(self, version: ModelVersion) -> bool:
        return endpoint_is_missing(version.endpoint)

    def put(self, version: ModelVersion) -> int:
        return copy_model(self.bucket, version)

    def remove(self, version: ModelVersion) -> None:
        remove_model(self.bucket, version)

    def ask(self, version: ModelVersion, tenant: Tenant, rows: str, content_type: str) -> Response:
        return ask_model(version, rows.encode(), content_type)

    def _create(self, endpoint: str) -> tuple[EndpointState, str]:
        """Create model, configuration and endpoint, those that there are not; all have the endpoint's name."""
        container = {
            "Image": self.image_uri,
            "Mode": "MultiModel",
            "ModelDataUrl": f"s3://{self.bucket}/models/{endpoint}/",
            "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
        }
        model = {"PrimaryContainer": container, "ExecutionRoleArn": self.role_arn} | self.network.of_model
        variant = {"InitialInstanceCount": 1, "InstanceType": self.instance_type}
        return created(endpoint, model, variant, tags=self._tags())

    def _tags(self) -> list[dict[str, str]]:
        return [
            {"Key": "trainyard:stack", "Value": self.stack},
            {"Key": "trainyard:stage", "Value": self.stage},
        ]


@dataclass(frozen=True, slots=True)
class Network:
    """Where containers are connected; without subnets, to no VPC."""

    subnet_ids: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()

    @property
    def of_model(self) -> dict[str, Any]:
        """Return the field of CreateModel."""
        if not self.subnet_ids:
            return {}
        return {"VpcConfig": {"Subnets": list(self.subnet_ids), "SecurityGroupIds": list(self.security_group_ids)}}


def brought_up(endpoint: str, create: Callable[[], tuple[EndpointState, str]]) -> tuple[EndpointState, str]:
    """Create an endpoint if there is none; return how it is, and why it failed. One that has failed is deleted."""
    sagemaker = client("sagemaker")
    try:
        with translated():
            described = sagemaker.describe_endpoint(EndpointName=endpoint)
    except ClientError as error:
        if MISSING not in str(error):
            raise
        return create()
    if described["EndpointStatus"] == "Failed":
        # The next deployment creates it anew.
        with translated():
            sagemaker.delete_endpoint(EndpointName=endpoint)
        return EndpointState.FAILED, str(described.get("FailureReason", "no reason was given"))[:MESSAGE_MAX]
    is_ready = described["EndpointStatus"] in ("InService", "Updating", "SystemUpdating")
    return EndpointState.READY if is_ready else EndpointState.COMING, ""


def endpoint_is_missing(endpoint: str) -> bool:
    """Tell whether there is no such endpoint."""
    sagemaker = client("sagemaker")
    return is_missing(lambda: sagemaker.describe_endpoint(EndpointName=endpoint))


def is_missing(describe: Callable[[], object]) -> bool:
    """Tell whether SageMaker finds nothing to describe."""
    try:
        with translated():
            describe()
    except ClientError as error:
        if MISSING not in str(error):
            raise
        return True
    return False


def created(
    name: str,
    model: Mapping[str, Any] | None,
    variant: Mapping[str, Any] | None,
    *,
    tags: list[dict[str, str]],
    config: Mapping[str, Any] | None = None,
) -> tuple[EndpointState, str]:
    """Create a model, a configuration and an endpoint of the same name, those that there are not.

    Without a variant, only the model; without a model, an endpoint for inference components.
    """
    sagemaker = client("sagemaker")
    calls: list[tuple[Any, dict[str, Any]]] = []
    if model is not None:
        calls.append((sagemaker.create_model, {"ModelName": name, **model}))
    if variant is not None:
        whole = endpoint_config(name, name if model is not None else None, variant)
        calls.append((sagemaker.create_endpoint_config, {**whole, **(config or {})}))
        calls.append((sagemaker.create_endpoint, {"EndpointName": name, "EndpointConfigName": name}))
    for create, arguments in calls:
        try:
            with translated():
                create(**arguments, Tags=tags)
        except ClientError as error:
            if code_of(error) == "ResourceLimitExceeded":
                return EndpointState.FAILED, str(error)[:MESSAGE_MAX]
            if "already existing" not in str(error):
                raise
    return EndpointState.COMING if variant else EndpointState.READY, ""


def endpoint_config(name: str, model: str | None, variant: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request that creates an endpoint configuration with one variant."""
    named = {"ModelName": model} if model is not None else {}
    return {"EndpointConfigName": name, "ProductionVariants": [{"VariantName": VARIANT, **named, **variant}]}


def copy_model(bucket: str, version: ModelVersion) -> int:
    """Copy a version's archive into the bucket of the shared endpoints; return its size. Raises Refused."""
    size = size_of(version)
    if size > COPY_BYTES_MAX:
        raise Refused(f"the model at {version.model_uri} has {size:,} bytes: {COPY_BYTES_MAX:,} are allowed")
    source, _, key = version.model_uri.removeprefix("s3://").partition("/")
    with translated():
        client("s3").copy_object(
            Bucket=bucket, Key=archive_key(version), CopySource={"Bucket": source, "Key": key}
        )
    return size


def size_of(version: ModelVersion) -> int:
    """Return the size of a version's archive in bytes; raises Refused where there is none."""
    bucket, _, key = version.model_uri.removeprefix("s3://").partition("/")
    try:
        with translated():
            return int(client("s3").head_object(Bucket=bucket, Key=key)["ContentLength"])
    except ClientError as error:
        if code_of(error) in ABSENT:
            raise Refused(f"there is no model at {version.model_uri} any more") from error
        raise


def ask_model(version: ModelVersion, rows: bytes, content_type: str) -> Response:
    """Return what a version answers at once to rows, as JSON; raises what ModelHost.ask raises."""
    began = time.monotonic()
    target = {TARGETS[version.serving.mode]: version.target} if version.target else {}
    with refusals():
        answer = client("sagemaker-runtime").invoke_endpoint(
            EndpointName=version.endpoint,
            ContentType=content_type,
            Accept="application/json",
            Body=rows,
            **target,
        )
    return Response(answer["Body"].read(), round((time.monotonic() - began) * 1000))


@contextmanager
def refusals() -> Iterator[None]:
    """Raise what a model or an endpoint refuses as Refused, and what can be asked again as Throttled."""
    try:
        with translated():
            yield
    except OutcomeUnknown as error:  # a question changes nothing, so it can be asked again
        raise Throttled(str(error)) from error
    except ClientError as error:
        if code_of(error) == "ModelNotReadyException" or NO_CAPACITY in str(error):
            raise Throttled(str(error)) from error
        raise Refused(_message_of(error)) from error


def remove_model(bucket: str, version: ModelVersion) -> None:
    """Remove a version's archive from the bucket of the shared endpoints, if it has one there. Idempotent.

    The archive of a container is left to the timer: the endpoint needs it until it has been updated.
    """
    if not version.target or version.serving.mode is Mode.MULTI_CONTAINER:
        return
    with translated():
        client("s3").delete_object(Bucket=bucket, Key=archive_key(version))


def archive_key(version: ModelVersion) -> str:
    """Return the key of a version's archive in the bucket of the shared endpoints.

    What is the version's own has an archive of its own, so that both can be removed while another one comes.
    """
    target = version.target
    if version.own_resource:
        target = f"{version.tenant_id}/{version.data_set}/{target}/model.tar.gz"
    return f"models/{version.endpoint}/{target}"


def model_environment() -> dict[str, str]:
    """Return the environment of a container that serves one model with the inference code of its archive."""
    return {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"}


def _message_of(error: ClientError) -> str:
    """Return what the model said, where it is in the error; never more than a line of it."""
    said = str(error.response.get("OriginalMessage") or error.response.get("Error", {}).get("Message", error))
    with suppress(ValueError, AttributeError):  # it is not JSON, or no object
        said = str(json.loads(said).get("error", said))
    return " ".join(said.split())[:MESSAGE_MAX]
