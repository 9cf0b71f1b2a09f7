"""Status events of executions.

Source: SageMaker developer guide, "Events that Amazon SageMaker sends to EventBridge".
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, Field, ValidationError

from trainyard.contracts.events import Envelope, Event, explain
from trainyard.domain.errors import Malformed


class ExecutionDetail(Event):
    """Its times are ignored: they may be missing or wrong; the jobs' own are read instead (ExecutionReports)."""

    display_name: str = Field(default="", alias="pipelineExecutionDisplayName")
    description: str = Field(default="", alias="pipelineExecutionDescription")
    status: str = Field(alias="currentPipelineExecutionStatus")
    previous: str | None = Field(default=None, alias="previousPipelineExecutionStatus")
    execution_arn: str = Field(
        min_length=1, validation_alias=AliasChoices("pipelineExecutionArn", "execution_arn")
    )


class ExecutionStatusChanged(Envelope):
    """A pipeline execution changed its status; carries neither parameters nor tags."""

    detail_type: Literal["SageMaker Model Building Pipeline Execution Status Change"] = Field(alias="detail-type")
    source: Literal["aws.sagemaker"]
    detail: ExecutionDetail


class RecordStep(Event):
    """The input of the recorder from the pipeline's Lambda step: only what that step alone knows."""

    request_id: str = Field(alias="RequestId", pattern=r"^[0-9a-f]{32}$")
    attempt: int = Field(alias="Attempt", ge=1)
    model_package_arn: str = Field(alias="ModelPackageArn", min_length=1)


def parse_execution_status(body: str) -> ExecutionStatusChanged:
    """Return the event in an SQS message's body; raises Malformed, naming what is wrong."""
    try:
        return ExecutionStatusChanged.model_validate_json(body)
    except ValidationError as error:
        raise Malformed(explain(error)) from error


def parse_record_step(event: Mapping[str, Any]) -> RecordStep:
    """Return the input of the pipeline's Lambda step; raises Malformed, naming what is wrong."""
    try:
        return RecordStep.model_validate(event)
    except ValidationError as error:
        raise Malformed(explain(error)) from None
