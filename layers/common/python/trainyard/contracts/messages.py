"""The request as it travels through a tier queue."""

from dataclasses import astuple
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from trainyard.contracts.events import Moment, explain
from trainyard.contracts.overrides import OverridesValues, overrides_values
from trainyard.domain.errors import Malformed
from trainyard.domain.requests import PRIORITY_MAX, Cause, Collected, Content, RequestKind, Submission
from trainyard.domain.retraining import TRIGGER_LENGTH_MAX, TRIGGERS_MAX


class ContentMessage(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)

    bucket: str = Field(min_length=3, max_length=63)
    key: str = Field(min_length=1, max_length=1024)
    version_id: str | None = Field(max_length=1024)
    etag: str = Field(max_length=1024)
    sequencer: str = Field(pattern=r"^[0-9A-Fa-f]{0,64}$")
    size_bytes: int = Field(ge=0, lt=2**53)
    event_time: AwareDatetime


Count = Annotated[int, Field(ge=0, lt=2**53)]


class TrainingRequestMessage(BaseModel):
    """A request accepted by intake. Enlist validates it again, since others may be allowed to send messages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    request_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    tenant_id: str = Field(pattern=r"^[a-z0-9](-?[a-z0-9])*$", max_length=24)
    tier: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    data_set: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    cause: Cause
    kind: RequestKind = RequestKind.TRAINING
    algorithm: str = Field(default="", max_length=64)
    alone: bool = False
    priority: int = Field(default=0, ge=0, le=PRIORITY_MAX)
    deadline: Moment | None = None
    overrides: OverridesValues | None = None
    triggers: tuple[Annotated[str, Field(max_length=TRIGGER_LENGTH_MAX)], ...] = Field(
        default=(), max_length=TRIGGERS_MAX
    )
    rows: int = Field(default=0, ge=0, lt=2**53)
    collected: tuple[Count, Count, Count] | None = None
    is_complete: bool = False
    is_forced: bool = False
    accepts_drift: bool = False
    content: ContentMessage


def training_request_body(submission: Submission) -> str:
    """Return the SQS body that carries `submission`."""
    return TrainingRequestMessage.model_validate(
        {
            **_fields(submission),
            "content": ContentMessage.model_validate(submission.content),
            "overrides": overrides_values(submission.overrides),
            "collected": astuple(submission.collected) if submission.collected else None,
        }
    ).model_dump_json()


def parse_training_request(body: str) -> Submission:
    """Return what an SQS body carries; raises Malformed, naming what is wrong."""
    try:
        message = TrainingRequestMessage.model_validate_json(body)
        return Submission(
            **message.model_dump(exclude={"schema_version", "content", "overrides", "collected"}),
            collected=Collected(*message.collected) if message.collected else None,
            overrides=message.overrides.to_overrides() if message.overrides else None,
            content=Content(**message.content.model_dump()),
        )
    except ValidationError as error:
        raise Malformed(explain(error)) from error


def _fields(submission: Submission) -> dict[str, object]:
    names = TrainingRequestMessage.model_fields.keys() - {"schema_version"}
    return {name: getattr(submission, name) for name in names}
