"""What the HTTP API answers about trainings that nobody asks for by hand: schedules, and what asked last."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from trainyard.application.scheduling.calendar import HOUR, Calendar, Planned, load_of
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


class HourAnswer(_Answer):
    """What schedules will ask for in an hour."""

    begins: datetime
    runs: float


class DueAnswer(_Answer):
    """A schedule of a tenant."""

    tenant_id: str
    data_set: Annotated[str | None, Field(description="Null for all data sets without a schedule of their own")]
    kind: RequestKind
    schedule: str
    due_at: datetime | None


class CalendarAnswer(_Answer):
    """What the schedules of all tenants will ask for, and the slots that there are for it."""

    slots: Annotated[int, Field(description="How many runs may run at once now")]
    hours: list[HourAnswer]
    next: Annotated[list[DueAnswer], Field(description="Those that are due next")]
    schedules: Annotated[int, Field(description="How many there are in all")]
    unreadable: Annotated[list[str], Field(description="Schedules that cannot be read, and why")]


UNREADABLE_MAX = 20


def calendar_answer_of(calendar: Calendar, now: datetime, *, hours: int, slots: int, limit: int) -> CalendarAnswer:
    return CalendarAnswer(
        slots=slots,
        hours=[
            HourAnswer(begins=now + number * HOUR, runs=round(runs, 2))
            for number, runs in enumerate(load_of(calendar.plans, now, hours))
        ],
        next=[
            DueAnswer(
                tenant_id=each.tenant_id,
                data_set=each.data_set,
                kind=each.kind,
                schedule=each.text,
                due_at=each.due_at,
            )
            for each in calendar.plans[:limit]
        ],
        schedules=len(calendar.plans),
        unreadable=calendar.unreadable[:UNREADABLE_MAX],
    )


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
