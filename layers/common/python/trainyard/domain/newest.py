"""Newest wins: which of two uploads of a data set is trained on, and when it is due.

Events arrive in any order, so the comparison uses what the events say, never when they came.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from trainyard.domain.requests import Content


def is_newer(candidate: Content, incumbent: Content) -> bool:
    """Tell whether `candidate` is newer content of the data set than `incumbent`.

    Of one key the greater sequencer is newer (S3 user guide, "Event message structure": pad the
    shorter one with zeros on the right and compare as text). Between keys, or where a sequencer is missing,
    the later event time is; ties go to the greater key.
    """
    if candidate.key == incumbent.key and candidate.sequencer and incumbent.sequencer:
        width = max(len(candidate.sequencer), len(incumbent.sequencer))
        first, second = candidate.sequencer.ljust(width, "0"), incumbent.sequencer.ljust(width, "0")
        if first.lower() != second.lower():
            return first.lower() > second.lower()
    return (candidate.event_time, candidate.key) > (incumbent.event_time, incumbent.key)


class Wait(NamedTuple):
    """When the first upload of a waiting data set arrived, and when it may be trained on."""

    arrived_at: datetime
    due_at: datetime


def wait_after(
    now: datetime, *, quiet_period: timedelta, delay_max: timedelta, waiting: Wait | None = None
) -> Wait:
    """Return the wait of a data set after an upload at `now`; `waiting` is its wait before it.

    The place in the queue is the first arrival's. A wait that has ended stays ended, or a stream of
    uploads would never train.
    """
    if waiting is None:
        return Wait(now, now + min(quiet_period, delay_max))
    if waiting.due_at <= now:
        return waiting
    quiet = min(now + quiet_period, waiting.arrived_at + delay_max)
    return Wait(waiting.arrived_at, max(quiet, waiting.due_at))  # a back-off is not cut short
