"""What the HTTP API answers about trainings that nobody asks for by hand: schedules, and what asked last."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from trainyard.application.scheduling.calendar import Planned
from trainyard.domain.requests import RequestKind
from trainyard.domain.retraining_record import RetrainingRecord


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ScheduleAnswer(_Answer):
    """A schedule, and when it is due next."""

    data_set: Annotated[str | None, Field(description="Null for all data sets without a schedule of their own")]
    kind: RequestKind
    schedule: str
    due_at: Annotated[
        datetime | None,
        Field(description="Null for a rate without a beginning: it is counted from when it was set"),
    ]


class TriggerAnswer(_Answer):
    """What asked a data set to train by itself the last time, and what became of it."""

    data_set: str
    trigger: Annotated[str, Field(description="`schedule`, `alarm: NAME`, `age`, … (docs/retraining.md)")]
    at: datetime
    request_id: Annotated[str | None, Field(description="The request that it made; null if it made none")]
    left_out_because: Annotated[str | None, Field(description="Why it made none")]
    left_out: Annotated[int, Field(description="How many have made none since the last one that made a request")]


class RetrainingAnswer(_Answer):
    """The schedules of a tenant, and what asked its data sets to train by themselves."""

    schedules: Annotated[list[ScheduleAnswer], Field(description="Those that are due next come first")]
    triggers: Annotated[list[TriggerAnswer], Field(description="The last one comes first")]


def retraining_of(plans: Iterable[Planned], records: Iterable[tuple[str, RetrainingRecord]]) -> RetrainingAnswer:
    triggers = [
        TriggerAnswer(
            data_set=data_set,
            trigger=record.last.trigger,
            at=record.last.at,
            request_id=record.last.request_id or None,
            left_out_because=record.last.left_out or None,
            left_out=record.left_out,
        )
        for data_set, record in records
        if record.last is not None
    ]
    return RetrainingAnswer(
        schedules=[
            ScheduleAnswer(data_set=each.data_set, kind=each.kind, schedule=each.text, due_at=each.due_at)
            for each in plans
        ],
        triggers=sorted(triggers, key=lambda each: each.at, reverse=True),
    )
