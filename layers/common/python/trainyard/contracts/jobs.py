"""Status events of jobs.

Source: SageMaker developer guide, "Events that Amazon SageMaker sends to EventBridge".
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from trainyard.application.scheduling.guard import JobStarted
from trainyard.contracts.events import Envelope, Event, explain
from trainyard.domain.errors import Malformed
from trainyard.domain.prices import JobKind


def _tags(tags: Any) -> Any:
    """Return tags by key: the event's schema has a list of {Key, Value}, the developer guide's sample a mapping.

    None for anything else, as for an event without tags: then the tags are read from SageMaker.
    """
    if isinstance(tags, list):
        pairs = [(str(tag.get("Key")), tag.get("Value")) for tag in tags if isinstance(tag, dict)]
        tags = dict(pairs) if len(pairs) == len(tags) else None
    if not isinstance(tags, dict):
        return None
    texts = all(isinstance(text, str) for pair in tags.items() for text in pair)
    return tags if texts else None


Tags = Annotated[dict[str, str] | None, BeforeValidator(_tags)]


class TrainingJobDetail(Event):
    name: str = Field(alias="TrainingJobName")
    arn: str = Field(alias="TrainingJobArn")
    role_arn: str | None = Field(default=None, alias="RoleArn")
    tags: Tags = Field(default=None, alias="Tags")


class ProcessingJobDetail(Event):
    name: str = Field(alias="ProcessingJobName")
    arn: str = Field(alias="ProcessingJobArn")
    role_arn: str | None = Field(default=None, alias="RoleArn")
    tags: Tags = Field(default=None, alias="Tags")


class TransformJobDetail(Event):
    name: str = Field(alias="TransformJobName")
    arn: str = Field(alias="TransformJobArn")
    role_arn: None = None
    """It has the role of its model, which the event does not carry."""
    tags: Tags = Field(default=None, alias="Tags")


class TrainingJobChanged(Envelope):
    """A training job changed its status; the event carries its role and its tags."""

    detail_type: Literal["SageMaker Training Job State Change"] = Field(alias="detail-type")
    source: Literal["aws.sagemaker"]
    detail: TrainingJobDetail


class ProcessingJobChanged(Envelope):
    """A processing job changed its status; that the event carries role and tags is not documented."""

    detail_type: Literal["SageMaker Processing Job State Change"] = Field(alias="detail-type")
    source: Literal["aws.sagemaker"]
    detail: ProcessingJobDetail


class TransformJobChanged(Envelope):
    """A transform job changed its status."""

    detail_type: Literal["SageMaker Transform Job State Change"] = Field(alias="detail-type")
    source: Literal["aws.sagemaker"]
    detail: TransformJobDetail


JobChanged = Annotated[
    TrainingJobChanged | ProcessingJobChanged | TransformJobChanged, Field(discriminator="detail_type")
]
_JOB: TypeAdapter[TrainingJobChanged | ProcessingJobChanged | TransformJobChanged] = TypeAdapter(JobChanged)
KINDS = {
    TrainingJobChanged: JobKind.TRAINING,
    ProcessingJobChanged: JobKind.PROCESSING,
    TransformJobChanged: JobKind.TRANSFORM,
}


def parse_job_status(event: Any) -> JobStarted:
    """Return the job that an event is about; raises Malformed, naming what is wrong."""
    try:
        changed = _JOB.validate_python(event)
    except ValidationError as error:
        raise Malformed(explain(error)) from error
    return JobStarted(kind=KINDS[type(changed)], **changed.detail.model_dump())
