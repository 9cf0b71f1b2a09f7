"""Implements what serving needs of endpoints that are one version's own: real-time, serverless or asynchronous;
and of models that batch transforms alone use.

Model, configuration and endpoint of a version have the same name. The model is created first and deleted last, so
that what an interrupted run has left is found by the models.

The containers act with the role of the tenant's jobs, which reaches its own data alone.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.components import existing_components, remove_component
from trainyard.adapters.aws.endpoint_scaling import scale, unscale
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.own_names import own_endpoint, own_name, own_tags
from trainyard.adapters.aws.serving import (
    ABSENT,
    MISSING,
    Network,
    ask_model,
    brought_up,
    created,
    endpoint_is_missing,
    is_missing,
    model_environment,
    refusals,
    size_of,
)
from trainyard.application.serving.ports import EndpointState, OwnEndpoint, Response, ServedAs
from trainyard.domain.errors import OutcomeUnknown, Refused, Throttled
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.serving import LIMITS, Mode, is_burstable
from trainyard.domain.tenants import RoleState, Tenant

ANSWERED_WITHIN_SECONDS = 90
"""In which an asynchronous endpoint must answer its smoke test; less than a step may take."""
ANSWER_BYTES_MAX = 6 * 1024 * 1024

IN_PROGRESS = "in-progress"
"""How SageMaker says in a ValidationException that an endpoint is being changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SageMakerOwnEndpoints:
    """Implements ModelHost: an endpoint for each version."""

    stack: str
    stage: str
    instance_type: str
    """Where a data set's settings name none."""
    network: Network
    data_key_arn: str
    make_role: Callable[[str], None]
    """Creates the role of a pooled tenant; raises Throttled."""
    pause: Callable[[float], None] = time.sleep

    def located(self, version: ModelVersion) -> ModelVersion:
        # What an endpoint is created from cannot be changed: with anything else, the version gets another one.
        settings = version.serving
        whole = json.dumps(
            [
                [version.tenant_id, version.data_set, version.version, version.request_id],
                [version.model_uri, version.image_uri, settings.mode],
                [settings.instance_type or self.instance_type, settings.instances],
                [settings.memory_mb, settings.concurrency],
                *([[settings.instances_max, settings.scale_at]] if settings.scales else []),
            ]
        )
        return replace(version, endpoint=own_name(self.stack, version, whole), target="")

    def put(self, version: ModelVersion) -> int:
        return size_of(version)

    def ensure(self, version: ModelVersion, tenant: Tenant) -> tuple[EndpointState, str]:
        if version.serving.mode is Mode.SERVERLESS and self.network.subnet_ids:
            return EndpointState.FAILED, (
                "this deployment connects all jobs to its VPC, and serverless endpoints support none: choose "
                f"{Mode.REAL_TIME} or {Mode.ASYNCHRONOUS}"
            )
        if version.serving.scales and is_burstable(version.serving.instance_type or self.instance_type):
            return EndpointState.FAILED, (
                f"its instances, {version.serving.instance_type or self.instance_type}, cannot scale: set an "
                "instance_type that is not burstable"
            )
        if tenant.role is not RoleState.MADE:
            self.make_role(tenant.tenant_id)
        if version.serving.mode is Mode.BATCH_TRANSFORM:
            return self._create(version, tenant)
        state, reason = brought_up(version.endpoint, lambda: self._create(version, tenant))
        if state is EndpointState.READY and version.serving.scales:
            scale(version.endpoint, version.serving, self._tags(version, tenant))
        return state, reason

    def is_missing(self, version: ModelVersion) -> bool:
        if version.serving.mode is not Mode.BATCH_TRANSFORM:
            return endpoint_is_missing(version.endpoint)
        sagemaker = client("sagemaker")
        return is_missing(lambda: sagemaker.describe_model(ModelName=version.endpoint))

    def remove(self, version: ModelVersion) -> None:
        with suppress(ClientError, Throttled, OutcomeUnknown):  # the timer removes what is left
            remove_own(version.endpoint)

    def ask(self, version: ModelVersion, tenant: Tenant, rows: str, content_type: str) -> Response:
        if version.serving.mode is Mode.BATCH_TRANSFORM:
            raise Refused("a batch transform has no endpoint to ask")
        if version.serving.mode is not Mode.ASYNCHRONOUS:
            return ask_model(version, rows.encode(), content_type)
        began = time.monotonic()
        output, failure = ask_later(version, content_type, body=rows.encode())
        while time.monotonic() < began + ANSWERED_WITHIN_SECONDS:
            if (answer := _object(output)) is not None:
                return Response(answer, round((time.monotonic() - began) * 1000))
            if (error := _object(failure)) is not None:
                raise Refused(" ".join(error.decode("utf-8", "replace").split())[:300])
            self.pause(0.5)
        raise Throttled(f"no answer within {ANSWERED_WITHIN_SECONDS} s")

    def _create(self, version: ModelVersion, tenant: Tenant) -> tuple[EndpointState, str]:
        settings = version.serving
        container: dict[str, Any] = {
            "Image": version.image_uri,
            "ModelDataUrl": version.model_uri,
            "Environment": model_environment(),
        }
        model: dict[str, Any] = {"PrimaryContainer": container, "ExecutionRoleArn": tenant.role_arn}
        variant: dict[str, Any] | None
        config: dict[str, Any] = {}
        if settings.mode is Mode.SERVERLESS:
            size = {"MemorySizeInMB": settings.memory_mb, "MaxConcurrency": settings.concurrency}
            variant = {"ServerlessConfig": size}
        else:
            # The container reaches nothing: a tenant's own code gets no credentials there.
            model |= {"EnableNetworkIsolation": True, **self.network.of_model}
            instance_type = settings.instance_type or self.instance_type
            # Without any, it could not answer its smoke test.
            variant = {"InitialInstanceCount": max(settings.instances, 1), "InstanceType": instance_type}
        if settings.mode is Mode.BATCH_TRANSFORM:
            variant = None  # its jobs need a model alone
        if settings.mode is Mode.ASYNCHRONOUS:
            seconds = LIMITS[Mode.ASYNCHRONOUS].answer_seconds_max
            container["Environment"]["SAGEMAKER_MODEL_SERVER_TIMEOUT"] = str(seconds)
            folder = f"s3://{tenant.bucket}/{predictions_folder(tenant, version.data_set)}"
            output = {
                "S3OutputPath": f"{folder}answers",
                "S3FailurePath": f"{folder}failures",
                "KmsKeyId": tenant.key_arn or self.data_key_arn,
            }
            config = {"AsyncInferenceConfig": {"OutputConfig": output}}
        tags = [{"Key": key, "Value": value} for key, value in self._tags(version, tenant).items()]
        return created(version.endpoint, model, variant, tags=tags, config=config)

    def _tags(self, version: ModelVersion, tenant: Tenant) -> dict[str, str]:
        scales = {"trainyard:scales": str(version.serving.scales).lower()}
        return own_tags(self.stack, self.stage, version, tenant) | scales


def predictions_folder(tenant: Tenant, data_set: str) -> str:
    """Return the prefix of what an asynchronous endpoint reads and writes, in the tenant's bucket."""
    return f"{tenant.root}reports/{data_set}/predictions/"


def ask_later(
    version: ModelVersion, content_type: str, *, body: bytes = b"", location: str = ""
) -> tuple[str, str]:
    """Ask an asynchronous endpoint about rows, given or in S3; return where the answer, or its failure, will be.

    Raises Refused and Throttled as ModelHost.ask does.
    """
    rows: dict[str, Any] = {"InputLocation": location} if location else {"Body": body}
    with refusals():
        answer = client("sagemaker-runtime").invoke_endpoint_async(
            EndpointName=version.endpoint,
            ContentType=content_type,
            Accept="application/json",
            InvocationTimeoutSeconds=LIMITS[Mode.ASYNCHRONOUS].answer_seconds_max,
            **rows,
        )
    return str(answer["OutputLocation"]), str(answer["FailureLocation"])


def remove_own(name: str) -> bool:
    """Delete an endpoint, its configuration and its model; False while it is being changed. Idempotent."""
    sagemaker = client("sagemaker")
    unscale(name)
    resources: list[tuple[Callable[..., Any], Callable[..., Any], str]] = [
        (sagemaker.describe_endpoint, sagemaker.delete_endpoint, "EndpointName"),
        (sagemaker.describe_endpoint_config, sagemaker.delete_endpoint_config, "EndpointConfigName"),
        (sagemaker.describe_model, sagemaker.delete_model, "ModelName"),
    ]
    for describe, delete, field in resources:
        try:
            with translated():
                # The right to delete depends on tags: what is not there has none, and deleting it would be denied.
                described = describe(**{field: name})
                if described.get("EndpointStatus") != "Deleting":
                    delete(**{field: name})
        except ClientError as error:
            if IN_PROGRESS in str(error):
                return False
            if MISSING not in str(error):
                raise
    return True


@dataclass(frozen=True, slots=True)
class SageMakerOwnModels:
    """Implements OwnModels: what there is of own endpoints, by their models; and the inference components."""

    stack: str

    def existing(self) -> Iterator[OwnEndpoint]:
        yield from existing_components(self.stack)  # first, because they are few
        sagemaker, prefix = client("sagemaker"), f"{self.stack}-own-"
        with translated():
            pages = sagemaker.get_paginator("list_models").paginate(
                NameContains=prefix, SortBy="CreationTime", SortOrder="Ascending"
            )
            for page in pages:
                for summary in page["Models"]:
                    if not summary["ModelName"].startswith(prefix):
                        continue
                    endpoint = own_endpoint(sagemaker, summary["ModelName"], summary["ModelArn"], self.stack)
                    if endpoint is not None:
                        yield endpoint

    def remove(self, endpoint: OwnEndpoint) -> bool:
        is_component = endpoint.served_as is ServedAs.COMPONENT
        return (remove_component if is_component else remove_own)(endpoint.name)


def _object(uri: str) -> bytes | None:
    """Return an object's bytes; None while there is none."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        with translated():
            body: bytes = client("s3").get_object(Bucket=bucket, Key=key)["Body"].read(ANSWER_BYTES_MAX)
    except ClientError as error:
        if code_of(error) in ABSENT:
            return None
        raise
    return body
