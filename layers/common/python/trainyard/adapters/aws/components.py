"""Implements what serving needs of inference components: one for each version, on an endpoint that tenants share.

A component has a container of its own, and the processors and the memory that its data set reserves: no neighbour
takes them, and the model is never evicted. The endpoint has as many instances as its components need, and one
without components. Source: SageMaker developer guide, "Deploy models for real-time inference".
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.endpoint_scaling import VARIANT
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.own_names import own_endpoint, own_name, own_tags
from trainyard.adapters.aws.serving import (
    MESSAGE_MAX,
    MISSING,
    Network,
    archive_key,
    ask_model,
    brought_up,
    copy_model,
    created,
    model_environment,
    remove_model,
)
from trainyard.application.serving.ports import EndpointState, OwnEndpoint, Response, ServedAs
from trainyard.domain.errors import OutcomeUnknown, Throttled
from trainyard.domain.inference import capacity_of
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.serving import MB
from trainyard.domain.tenants import Tenant

_IN_PROGRESS = "_IN_PROGRESS"
"""How SageMaker says in a ValidationException that a component is being changed, as in CREATE_IN_PROGRESS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SageMakerComponents:
    """Implements ModelHost."""

    stack: str
    stage: str
    bucket: str
    role_arn: str
    instance_type: str
    instances_max: int
    """Of the shared endpoint."""
    network: Network

    @property
    def endpoint(self) -> str:
        """The name of the shared endpoint; no algorithm's endpoint has two hyphens there."""
        return f"{self.stack}-shared--components"

    def located(self, version: ModelVersion) -> ModelVersion:
        # What a component is created from cannot be changed: with anything else, the version gets another one;
        # and with another approval, so that the former one can be removed meanwhile.
        whole = json.dumps(
            [
                [version.tenant_id, version.data_set, version.version, version.request_id],
                [version.model_uri, version.image_uri, version.approved_at.isoformat()],
                [version.serving.memory_mb, version.serving.cpu_percent],
            ]
        )
        return replace(version, endpoint=self.endpoint, target=own_name(self.stack, version, whole))

    def put(self, version: ModelVersion) -> int:
        return copy_model(self.bucket, version)

    def ensure(self, version: ModelVersion, tenant: Tenant) -> tuple[EndpointState, str]:
        objection = self._objection(version)
        if objection is not None:
            return EndpointState.FAILED, objection
        state, reason = brought_up(version.endpoint, self._create_endpoint)
        if state is not EndpointState.READY:
            return state, reason
        described = _described(version.target)
        if described is None:
            return self._create(version, tenant)
        if described["InferenceComponentStatus"] == "Failed":
            return EndpointState.FAILED, str(described.get("FailureReason", "no reason was given"))[:MESSAGE_MAX]
        is_ready = described["InferenceComponentStatus"] in ("InService", "Updating")
        return EndpointState.READY if is_ready else EndpointState.COMING, ""

    def is_missing(self, version: ModelVersion) -> bool:
        return _described(version.target) is None

    def remove(self, version: ModelVersion) -> None:
        with suppress(ClientError, Throttled, OutcomeUnknown):  # the timer removes what is left
            remove_component(version.target)
        remove_model(self.bucket, version)

    def ask(self, version: ModelVersion, tenant: Tenant, rows: str, content_type: str) -> Response:
        return ask_model(version, rows.encode(), content_type)

    def _objection(self, version: ModelVersion) -> str | None:
        """Return why no instance can hold a version's component; None where one can, or that is not known."""
        capacity, settings = capacity_of(self.instance_type), version.serving
        if capacity is None:
            return None
        memory_mb = capacity.memory_bytes // MB
        if settings.cpu_percent <= 100 * capacity.cpus and settings.memory_mb < memory_mb:
            return None
        return (
            f"cpu_percent={settings.cpu_percent} and memory_mb={settings.memory_mb} do not fit on "
            f"{self.instance_type}, which has {100 * capacity.cpus} percent and {memory_mb} MB, less what the "
            "system needs"
        )

    def _create_endpoint(self) -> tuple[EndpointState, str]:
        # Not every Region takes a minimum of 0, against the developer guide.
        scaling = {"Status": "ENABLED", "MinInstanceCount": 1, "MaxInstanceCount": self.instances_max}
        variant = {
            "InitialInstanceCount": 1,
            "InstanceType": self.instance_type,
            "ManagedInstanceScaling": scaling,
        }
        # The containers reach nothing.
        config = {"ExecutionRoleArn": self.role_arn, "EnableNetworkIsolation": True} | self.network.of_model
        tags = {"trainyard:stack": self.stack, "trainyard:stage": self.stage}
        return created(self.endpoint, None, variant, tags=_listed(tags), config=config)

    def _create(self, version: ModelVersion, tenant: Tenant) -> tuple[EndpointState, str]:
        container = {
            "Image": version.image_uri,
            "ArtifactUrl": f"s3://{self.bucket}/{archive_key(version)}",
            "Environment": model_environment(),
        }
        reserved = {
            "NumberOfCpuCoresRequired": version.serving.cpu_percent / 100,
            "MinMemoryRequiredInMb": version.serving.memory_mb,
        }
        try:
            with translated():
                client("sagemaker").create_inference_component(
                    InferenceComponentName=version.target,
                    EndpointName=version.endpoint,
                    VariantName=VARIANT,
                    Specification={"Container": container, "ComputeResourceRequirements": reserved},
                    RuntimeConfig={"CopyCount": 1},
                    Tags=_listed(own_tags(self.stack, self.stage, version, tenant)),
                )
        except ClientError as error:
            if code_of(error) == "ResourceLimitExceeded":
                return EndpointState.FAILED, str(error)[:MESSAGE_MAX]
            if "already existing" not in str(error):
                raise
        return EndpointState.COMING, ""


def existing_components(stack: str) -> Iterator[OwnEndpoint]:
    """Yield the components of a deployment; found by name and by tag."""
    sagemaker, prefix = client("sagemaker"), f"{stack}-own-"
    with translated():
        pages = sagemaker.get_paginator("list_inference_components").paginate(
            NameContains=prefix, SortBy="CreationTime", SortOrder="Ascending"
        )
        for page in pages:
            for summary in page["InferenceComponents"]:
                name, arn = summary["InferenceComponentName"], summary["InferenceComponentArn"]
                if not name.startswith(prefix):
                    continue
                component = own_endpoint(sagemaker, name, arn, stack)
                if component is not None:
                    yield replace(component, served_as=ServedAs.COMPONENT)


def remove_component(name: str) -> bool:
    """Delete a component and its archive; False while it is being changed. Idempotent."""
    # The right to delete depends on tags: what is not there has none, and deleting it would be denied.
    described = _described(name)
    if described is None:
        return True
    status = described["InferenceComponentStatus"]
    if status in ("Creating", "Updating"):
        return False
    if status != "Deleting":
        try:
            with translated():
                client("sagemaker").delete_inference_component(InferenceComponentName=name)
        except ClientError as error:
            if _IN_PROGRESS in str(error):
                return False
            if MISSING not in str(error):
                raise
    bucket, _, key = described["Specification"]["Container"]["ArtifactUrl"].removeprefix("s3://").partition("/")
    with translated():
        client("s3").delete_object(Bucket=bucket, Key=key)
    return True


def _described(name: str) -> dict[str, Any] | None:
    sagemaker = client("sagemaker")
    try:
        with translated():
            described: dict[str, Any] = sagemaker.describe_inference_component(InferenceComponentName=name)
    except ClientError as error:
        if MISSING not in str(error):
            raise
        return None
    return described


def _listed(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
