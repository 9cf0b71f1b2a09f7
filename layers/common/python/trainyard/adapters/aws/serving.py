"""Implements what serving needs: the model registry, samples, and shared multi-model endpoints."""

import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.application.serving.ports import EndpointState, ModelPackage, Response
from trainyard.contracts.serving import SAMPLE_BYTES_MAX, parse_sample
from trainyard.domain.errors import Malformed, OutcomeUnknown, Refused, Throttled
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.smoke_test import Sample
from trainyard.domain.tenants import Tenant

_ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
_MISSING = "Could not find"
"""How SageMaker says in a ValidationException that there is no such model, configuration or endpoint."""

COPY_BYTES_MAX = 5 * 1024**3
"""Of one CopyObject (S3 API reference)."""

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
        )

    def approved(self, group: str) -> list[str]:
        try:
            with translated():
                page = client("sagemaker").list_model_packages(
                    ModelPackageGroupName=group,
                    ModelApprovalStatus="Approved",
                    SortBy="CreationTime",
                    SortOrder="Descending",
                    MaxResults=100,
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


class S3Samples:
    """Implements Samples: reports/<data set>/<request>/profile/sample.json in the tenant's root."""

    def read(self, tenant: Tenant, data_set: str, request_id: str) -> Sample | None:
        key = f"{tenant.root}reports/{data_set}/{request_id}/profile/sample.json"
        try:
            with translated():
                body = client("s3").get_object(Bucket=tenant.bucket, Key=key)["Body"].read(SAMPLE_BYTES_MAX + 1)
        except ClientError as error:
            if code_of(error) in _ABSENT:
                return None
            raise
        try:
            return parse_sample(body) if len(body) <= SAMPLE_BYTES_MAX else None
        except Malformed:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SageMakerSharedModels:
    """Implements SharedModels: a multi-model endpoint per algorithm, its models below a prefix of a bucket."""

    stack: str
    stage: str
    bucket: str
    role_arn: str
    image_uri: str
    instance_type: str
    subnet_ids: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    """Where the containers are connected; without them, to no VPC."""

    def endpoint_of(self, algorithm: str) -> str:
        name = f"{self.stack}-shared-{re.sub('[^a-zA-Z0-9]+', '-', algorithm).strip('-')}"
        if len(name) <= NAME_MAX:
            return name
        return f"{name[: NAME_MAX - 9]}-{sha256(name.encode()).hexdigest()[:8]}"

    def ensure(self, endpoint: str) -> tuple[EndpointState, str]:
        sagemaker = client("sagemaker")
        try:
            with translated():
                described = sagemaker.describe_endpoint(EndpointName=endpoint)
        except ClientError as error:
            if _MISSING not in str(error):
                raise
            return self._create(endpoint)
        if described["EndpointStatus"] == "Failed":
            # The next deployment creates it anew.
            with translated():
                sagemaker.delete_endpoint(EndpointName=endpoint)
            return EndpointState.FAILED, str(described.get("FailureReason", "no reason was given"))[:MESSAGE_MAX]
        is_ready = described["EndpointStatus"] in ("InService", "Updating", "SystemUpdating")
        return EndpointState.READY if is_ready else EndpointState.COMING, ""

    def put(self, version: ModelVersion) -> int:
        bucket, _, key = version.model_uri.removeprefix("s3://").partition("/")
        s3 = client("s3")
        try:
            with translated():
                size = int(s3.head_object(Bucket=bucket, Key=key)["ContentLength"])
                if size > COPY_BYTES_MAX:
                    raise Refused(
                        f"the model at {version.model_uri} has {size:,} bytes: {COPY_BYTES_MAX:,} are allowed"
                    )
                s3.copy_object(Bucket=self.bucket, Key=_key(version), CopySource={"Bucket": bucket, "Key": key})
        except ClientError as error:
            if code_of(error) in _ABSENT:
                raise Refused(f"there is no model at {version.model_uri} any more") from error
            raise
        return size

    def remove(self, version: ModelVersion) -> None:
        remove_model(self.bucket, version)

    def ask(self, version: ModelVersion, rows: str, content_type: str) -> Response:
        return ask_model(version, rows.encode(), content_type)

    def _create(self, endpoint: str) -> tuple[EndpointState, str]:
        """Create model, configuration and endpoint, those that there are not; all have the endpoint's name."""
        sagemaker, tags = client("sagemaker"), self._tags()
        container = {
            "Image": self.image_uri,
            "Mode": "MultiModel",
            "ModelDataUrl": f"s3://{self.bucket}/models/{endpoint}/",
            "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
        }
        variant = {
            "VariantName": "all",
            "ModelName": endpoint,
            "InitialInstanceCount": 1,
            "InstanceType": self.instance_type,
        }
        model = {"ModelName": endpoint, "PrimaryContainer": container, "ExecutionRoleArn": self.role_arn}
        if self.subnet_ids:
            vpc = {"Subnets": list(self.subnet_ids), "SecurityGroupIds": list(self.security_group_ids)}
            model |= {"VpcConfig": vpc}
        calls: list[tuple[Any, dict[str, Any]]] = [
            (sagemaker.create_model, model),
            (sagemaker.create_endpoint_config, {"EndpointConfigName": endpoint, "ProductionVariants": [variant]}),
            (sagemaker.create_endpoint, {"EndpointName": endpoint, "EndpointConfigName": endpoint}),
        ]
        for create, arguments in calls:
            try:
                with translated():
                    create(**arguments, Tags=tags)
            except ClientError as error:
                if code_of(error) == "ResourceLimitExceeded":
                    return EndpointState.FAILED, str(error)[:MESSAGE_MAX]
                if "already existing" not in str(error):
                    raise
        return EndpointState.COMING, ""

    def _tags(self) -> list[dict[str, str]]:
        return [
            {"Key": "trainyard:stack", "Value": self.stack},
            {"Key": "trainyard:stage", "Value": self.stage},
        ]


def ask_model(version: ModelVersion, rows: bytes, content_type: str) -> Response:
    """Return what a version answers to rows, as JSON; raises Refused and Throttled as SharedModels.ask does."""
    began = time.monotonic()
    try:
        with translated():
            answer = client("sagemaker-runtime").invoke_endpoint(
                EndpointName=version.endpoint,
                TargetModel=version.target,
                ContentType=content_type,
                Accept="application/json",
                Body=rows,
            )
    except OutcomeUnknown as error:  # a question changes nothing, so it can be asked again
        raise Throttled(str(error)) from error
    except ClientError as error:
        if code_of(error) == "ModelNotReadyException":
            raise Throttled(str(error)) from error
        raise Refused(_message_of(error)) from error
    return Response(answer["Body"].read(), round((time.monotonic() - began) * 1000))


def remove_model(bucket: str, version: ModelVersion) -> None:
    """Remove a version's archive from the bucket of the shared endpoints. Idempotent."""
    with translated():
        client("s3").delete_object(Bucket=bucket, Key=_key(version))


def _key(version: ModelVersion) -> str:
    return f"models/{version.endpoint}/{version.target}"


def _message_of(error: ClientError) -> str:
    """Return what the model said, where it is in the error; never more than a line of it."""
    said = str(error.response.get("OriginalMessage") or error.response.get("Error", {}).get("Message", error))
    with suppress(ValueError, AttributeError):  # it is not JSON, or no object
        said = str(json.loads(said).get("error", said))
    return " ".join(said.split())[:MESSAGE_MAX]
