"""What asked a data set to train by itself, and whether it did: later triggers are judged by it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from trainyard.domain.retraining import Trained, Trigger

ALARM_REST = timedelta(hours=6)
"""How long after a training that an alarm asked for no alarm of the data set asks for another."""
LOOP_WINDOW = timedelta(hours=24)
AUTOMATIC_MAX = 24
"""Times within LOOP_WINDOW that a data set is asked to train by itself: more is taken for a loop, such as of a
system that answers each training with a request for the next."""
KEPT_MAX = 2 * AUTOMATIC_MAX


class Judged(NamedTuple):
    """Something that asked a data set to train by itself."""

    at: datetime
    event_id: str
    made: bool
    """Whether it made a request."""
    is_event: bool
    """Whether another system asked: those count by themselves, or one that asks all the time would keep schedules
    from training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastTrigger:
    """The last time that something asked a data set to train by itself."""

    at: datetime
    trigger: str
    """As text (domain/retraining.py, `trigger_text`)."""
    event_id: str
    request_id: str = ""
    """The request that it made; "" if it made none."""
    left_out: str = ""
    """Why it made none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingRecord:
    """What asked a data set to train by itself, lately."""

    last: LastTrigger | None = None
    asked: tuple[Judged, ...] = ()
    """What asked within LOOP_WINDOW, oldest first; at most KEPT_MAX."""
    left_out: int = 0
    """Triggers that made no request since the last one that did."""
    alarm_at: datetime | None = None
    """When an alarm last made a request."""
    schedule: str = ""
    """The text of the schedule that is watched for times without an event."""
    schedule_at: datetime | None = None
    """When it was last heard of, or first watched."""
    revision: int = 0

    def knows(self, event_id: str) -> bool:
        """Tell whether an event was judged before."""
        judged = {each.event_id for each in self.asked}
        return event_id in judged or (self.last is not None and self.last.event_id == event_id)


def objection_to(
    record: RetrainingRecord, trigger: Trigger, event_id: str, unchanged: Trained | None, now: datetime
) -> str | None:
    """Return why a data set is not trained by itself; None if it is. `unchanged` is the training that had the same
    data and settings, if any and if that matters.

    An event that comes again gets the answer of its first time, as long as that is known.
    """
    if any(each.made and each.event_id == event_id for each in record.asked):
        return None
    is_event = trigger is Trigger.EVENT
    asked = [each for each in record.asked if each.is_event == is_event and each.at > now - LOOP_WINDOW]
    if len(asked) >= AUTOMATIC_MAX:
        return (
            f"the data set was asked to train by itself {len(asked)} times within {_hours(LOOP_WINDOW)}, which "
            f"is taken for a loop"
        )
    if unchanged is not None:
        return unchanged_text(unchanged)
    if trigger is Trigger.ALARM and record.alarm_at is not None and now < record.alarm_at + ALARM_REST:
        return (
            f"an alarm asked for a training at {record.alarm_at:%Y-%m-%d %H:%M} UTC, and the next one may do so "
            f"{_hours(ALARM_REST)} later"
        )
    return None


def unchanged_text(trained: Trained) -> str:
    return (
        f"neither its data nor its settings have changed since request {trained.request_id[:8]} trained on them "
        f"({trained.at:%Y-%m-%d %H:%M} UTC)"
    )


def with_trigger(record: RetrainingRecord, trigger: Trigger, last: LastTrigger) -> RetrainingRecord:
    """Return the record after a trigger was judged.

    What made a request counts among those of a loop, and so does an event of another system that was refused: it
    may be answered with the next one. Those beyond the maximum do not, or a loop would never be over.
    """
    made, is_event = not last.left_out, trigger is Trigger.EVENT
    recent = [each for each in record.asked if each.at > last.at - LOOP_WINDOW]
    alike = [each for each in recent if each.is_event == is_event]
    is_new = not any(each.event_id == last.event_id and each.made >= made for each in alike)
    if is_new and (made or is_event) and len(alike) < AUTOMATIC_MAX:
        recent.append(Judged(last.at, last.event_id, made, is_event))
    return replace(
        record,
        last=last,
        asked=tuple(recent[-KEPT_MAX:]),
        left_out=0 if made else record.left_out + 1,
        alarm_at=last.at if trigger is Trigger.ALARM and made and is_new else record.alarm_at,
        schedule_at=last.at if trigger in (Trigger.SCHEDULE, Trigger.MISSED) else record.schedule_at,
    )


def _hours(span: timedelta) -> str:
    return f"{span // timedelta(hours=1)} hours"
