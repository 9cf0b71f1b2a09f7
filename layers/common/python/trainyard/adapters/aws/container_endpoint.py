"""Implements what shared containers need of their endpoint: a multi-container endpoint with direct invocation.

Each set of containers is a model and an endpoint configuration of the same name. Source: SageMaker developer
guide, "Multi-container endpoints".
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.absence import looked_up
from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.serving import (
    MESSAGE_MAX,
    MISSING,
    Network,
    archive_key,
    ask_model,
    copy_model,
    endpoint_config,
    model_environment,
)
from trainyard.application.serving.ports import Response
from trainyard.application.serving.shared_containers import NotStarted
from trainyard.domain.container_sets import Member, Seen, Status
from trainyard.domain.errors import InProgress, Refused
from trainyard.domain.model_versions import ModelVersion

SPARE = "spare"
"""The host name of a second container, where there is one version alone: there must be more than one. No tenant's
pattern takes it, because it lacks the separator."""

_STATUS = {
    "Creating": Status.CHANGING,
    "Updating": Status.CHANGING,
    "SystemUpdating": Status.CHANGING,
    "RollingBack": Status.CHANGING,
    "Deleting": Status.CHANGING,
    "Failed": Status.FAILED,
}
"""All others are in service, UpdateRollbackFailed with a mix of two configurations."""
_ANSWERS_NOTHING = ("Creating", "Deleting", "Failed", "OutOfService")
_MIXED = "UpdateRollbackFailed"
_EXISTS = "already existing"
_BUSY = ("in-progress", "currently in use", _EXISTS, f'{MISSING} endpoint "')
"""What SageMaker says where somebody else has made the same change, or another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SageMakerContainerEndpoint:
    """Implements ContainerEndpoint."""

    stack: str
    stage: str
    bucket: str
    role_arn: str
    instance_type: str
    network: Network

    @property
    def name(self) -> str:
        """The endpoint's name; no algorithm's endpoint has two hyphens there."""
        return f"{self.stack}-shared--containers"

    def look(self) -> Seen:
        try:
            with translated():
                described = client("sagemaker").describe_endpoint(EndpointName=self.name)
        except ClientError as error:
            if MISSING not in str(error):
                raise
            return Seen(status=Status.ABSENT)
        status = described["EndpointStatus"]
        return Seen(
            status=_STATUS.get(status, Status.IN_SERVICE),
            serves=status not in _ANSWERS_NOTHING,
            configuration="" if status == _MIXED else described["EndpointConfigName"],
            changed_at=described["LastModifiedTime"],
            reason=str(described.get("FailureReason", ""))[:MESSAGE_MAX],
        )

    def archive_of(self, version: ModelVersion) -> str:
        return archive_key(version)

    def put(self, version: ModelVersion) -> int:
        return copy_model(self.bucket, version)

    def give(self, configuration: str, members: Iterable[Member], *, is_new: bool) -> None:
        sagemaker, tags = client("sagemaker"), self._tags()
        variant = {"InitialInstanceCount": 1, "InstanceType": self.instance_type}
        model = {"ModelName": configuration, **self._model(list(members))}
        whole = endpoint_config(configuration, configuration, variant)
        named = {"EndpointName": self.name, "EndpointConfigName": configuration}
        for create, arguments in ((sagemaker.create_model, model), (sagemaker.create_endpoint_config, whole)):
            try:
                _call(create, **arguments, **tags)
            except ClientError as error:
                if code_of(error) != "ValidationException":
                    raise
                if _EXISTS not in str(error):  # else by an earlier try
                    raise NotStarted(str(error)[:MESSAGE_MAX]) from error
        try:
            if is_new:
                _call(sagemaker.create_endpoint, **named, **tags)
            else:
                _call(sagemaker.update_endpoint, **named)
        except ClientError as error:
            if any(word in str(error) for word in _BUSY):
                raise InProgress(str(error)) from error
            raise

    def delete(self) -> None:
        try:
            _call(client("sagemaker").delete_endpoint, EndpointName=self.name)
        except ClientError as error:
            if not any(word in str(error) for word in _BUSY):
                raise

    def delete_configurations(self, names: Iterable[str]) -> None:
        sagemaker = client("sagemaker")
        for name in names:
            # The right to delete depends on tags: what is not there has none, and deleting it would be denied.
            if looked_up(lambda: sagemaker.describe_endpoint_config(EndpointConfigName=name)) is not None:  # noqa: B023
                with translated():
                    sagemaker.delete_endpoint_config(EndpointConfigName=name)
            if looked_up(lambda: sagemaker.describe_model(ModelName=name)) is not None:  # noqa: B023
                with translated():
                    sagemaker.delete_model(ModelName=name)

    def delete_archives(self, keys: Iterable[str]) -> None:
        for key in keys:
            with translated():
                client("s3").delete_object(Bucket=self.bucket, Key=key)

    def ask(self, version: ModelVersion, rows: str, content_type: str) -> Response:
        return ask_model(version, rows.encode(), content_type)

    def _model(self, members: list[Member]) -> dict[str, Any]:
        hosts = [(member.host, member) for member in members]
        if len(hosts) < 2:
            hosts.append((SPARE, members[0]))
        containers = [
            {
                "ContainerHostname": host,
                "Image": member.image_uri,
                "ModelDataUrl": f"s3://{self.bucket}/{member.archive}",
                "Environment": model_environment(),
            }
            for host, member in hosts
        ]
        return {
            "Containers": containers,
            "InferenceExecutionConfig": {"Mode": "Direct"},
            "ExecutionRoleArn": self.role_arn,
        } | self.network.of_model

    def _tags(self) -> dict[str, Any]:
        return {
            "Tags": [
                {"Key": "trainyard:stack", "Value": self.stack},
                {"Key": "trainyard:stage", "Value": self.stage},
            ]
        }


def _call(operation: Callable[..., Any], **arguments: Any) -> None:
    """Make a call; raises Refused where a quota forbids it."""
    try:
        with translated():
            operation(**arguments)
    except ClientError as error:
        if code_of(error) == "ResourceLimitExceeded":
            raise Refused(str(error)[:MESSAGE_MAX]) from error
        raise
