"""Events that ask for something: uploads, and requests for retraining and for batch transforms.

Source: Amazon S3 user guide, "EventBridge event message structure". Keys arrive raw and are never decoded.
"""

import json
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, TypeAdapter, ValidationError, model_validator

from trainyard.contracts.events import Envelope, Event, Moment, explain
from trainyard.contracts.overrides import OverridesValues, overrides_values
from trainyard.domain.announcements import APPLICATION_SOURCE
from trainyard.domain.arrivals import AlarmRang, RetrainingAsked, TransformAsked, UploadArrived
from trainyard.domain.errors import Malformed
from trainyard.domain.requests import PRIORITY_MAX, Content
from trainyard.domain.retraining import Trigger


class S3Object(Event):
    key: str = Field(min_length=1, max_length=1024)
    size: int = Field(default=0, ge=0)
    etag: str = Field(default="", validation_alias=AliasChoices("etag", "eTag"))
    version_id: str | None = Field(default=None, validation_alias=AliasChoices("version-id", "version_id"))
    sequencer: str = Field(default="", pattern=r"^[0-9A-Fa-f]*$")


class S3Bucket(Event):
    name: str = Field(min_length=3, max_length=63)


class S3Detail(Event):
    bucket: S3Bucket
    object: S3Object


class ObjectCreated(Envelope):
    """An object was put, copied or completed in a bucket."""

    detail_type: Literal["Object Created"] = Field(alias="detail-type")
    source: Literal["aws.s3"]
    detail: S3Detail

    def arrived(self) -> UploadArrived:
        uploaded = self.detail.object
        content = Content(
            bucket=self.detail.bucket.name,
            key=uploaded.key,
            version_id=uploaded.version_id,
            etag=uploaded.etag.strip('"'),
            sequencer=uploaded.sequencer,
            size_bytes=uploaded.size,
            event_time=self.time,
        )
        return UploadArrived(account_id=self.account, content=content)


class RetrainingDetail(Event):
    tenant_id: str = Field(min_length=1, max_length=63)
    data_set: str | None = Field(default=None, min_length=1, max_length=63)
    """None asks for every data set of the tenant."""
    schema_version: Literal[1] = 1
    reason: str = Field(default="", max_length=256)
    trigger: Trigger = Trigger.EVENT
    """What asks; only of events of the service's own."""
    force: bool = Field(default=False, strict=True)
    """Whether to train whatever has changed, or not, since the last training."""
    accept_drift: bool | None = Field(default=None, strict=True)
    """Whether to train however far the data has moved; None for as `force`."""
    ready_by: Moment | None = None
    """When the models are to be ready; None for what the data sets' settings say."""
    priority: int | None = Field(default=None, ge=0, le=PRIORITY_MAX)
    overrides: OverridesValues | None = None
    """Of this training alone; None for what the data sets' settings say."""

    @model_validator(mode="after")
    def _overrides_are_of_one(self) -> "RetrainingDetail":
        if self.overrides is not None and self.data_set is None:
            raise ValueError("overrides are for one training: name its data_set")
        return self


class RetrainingRequested(Envelope):
    """A schedule, an alarm or an operator requests training again on the existing data."""

    detail_type: Literal["Retraining Requested"] = Field(alias="detail-type")
    source: str = Field(max_length=256)
    detail: RetrainingDetail

    def arrived(self) -> RetrainingAsked:
        is_ours = self.source == APPLICATION_SOURCE
        # Schedules of an earlier version say it so.
        of_schedule = self.detail.reason == "schedule" and self.detail.trigger is Trigger.EVENT
        trigger = Trigger.SCHEDULE if of_schedule else self.detail.trigger
        return RetrainingAsked(
            account_id=self.account,
            event_id=self.id,
            tenant_id=self.detail.tenant_id,
            data_set=self.detail.data_set,
            ready_by=self.detail.ready_by,
            priority=self.detail.priority,
            overrides=self.detail.overrides.to_overrides() if self.detail.overrides else None,
            trigger=trigger if is_ours else Trigger.EVENT,
            detail=self.detail.reason if is_ours else f"{self.source} {self.detail.reason}",
            source=self.source,
            is_forced=self.detail.force,
            accepts_drift=self.detail.force if self.detail.accept_drift is None else self.detail.accept_drift,
        )


class TransformDetail(Event):
    tenant_id: str = Field(min_length=1, max_length=63)
    data_set: str = Field(min_length=1, max_length=63)
    reason: str = Field(default="", max_length=256)
    priority: int | None = Field(default=None, ge=0, le=PRIORITY_MAX)
    force: bool = False
    """Whether to predict also rows that the same version has predicted before."""


class TransformRequested(Envelope):
    """A schedule or an operator requests predictions of the stored rows of a data set."""

    detail_type: Literal["Batch Transform Requested"] = Field(alias="detail-type")
    source: str = Field(max_length=256)
    detail: TransformDetail

    def arrived(self) -> TransformAsked:
        return TransformAsked(
            account_id=self.account,
            event_id=self.id,
            tenant_id=self.detail.tenant_id,
            data_set=self.detail.data_set,
            priority=self.detail.priority,
            source=self.source,
            is_forced=self.detail.force,
        )


class AlarmState(Event):
    value: str


class AlarmDetail(Event):
    alarm_name: str = Field(alias="alarmName", min_length=1, max_length=255)
    state: AlarmState


class AlarmStateChanged(Envelope):
    """A CloudWatch alarm has changed its state; the rule passes on only those that ring.

    Source: CloudWatch user guide, "Alarm events and EventBridge".
    """

    detail_type: Literal["CloudWatch Alarm State Change"] = Field(alias="detail-type")
    source: Literal["aws.cloudwatch"]
    detail: AlarmDetail

    def arrived(self) -> AlarmRang:
        return AlarmRang(account_id=self.account, event_id=self.id, name=self.detail.alarm_name)


def retraining_body(asked: RetrainingAsked, now: datetime) -> str:
    """Return the SQS body of a retraining of one data set, in the form of an event that requests it."""
    return json.dumps(
        {
            "id": asked.event_id,
            "account": asked.account_id,
            "time": now.isoformat(),
            "source": APPLICATION_SOURCE,
            "detail-type": "Retraining Requested",
            "detail": {
                "tenant_id": asked.tenant_id,
                "data_set": asked.data_set,
                "trigger": asked.trigger.value,
                "reason": asked.detail[:256],
                "force": asked.is_forced,
                "accept_drift": asked.accepts_drift,
                "ready_by": asked.ready_by.isoformat() if asked.ready_by else None,
                "priority": asked.priority,
                "overrides": overrides_values(asked.overrides),
            },
        }
    )


_Event = ObjectCreated | RetrainingRequested | TransformRequested | AlarmStateChanged
Arrival = Annotated[_Event, Field(discriminator="detail_type")]
_ARRIVAL: TypeAdapter[_Event] = TypeAdapter(Arrival)


def parse_arrival(body: str) -> UploadArrived | RetrainingAsked | TransformAsked | AlarmRang:
    """Return the arrival in an SQS message's body; raises Malformed, naming what is wrong."""
    try:
        return _ARRIVAL.validate_json(body).arrived()
    except ValidationError as error:
        raise Malformed(explain(error)) from error
