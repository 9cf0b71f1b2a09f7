"""Deadlines: when a model is to be ready, and when its run must start for that.

    latest start = deadline - expected runtime x p95 of (actual / expected) of the tier's last runs

Between tenants a deadline moves nobody past fairness; docs/admission.md says what is promised.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from trainyard.domain.errors import Refused
from trainyard.domain.requests import Request, State
from trainyard.domain.windows import zone_of

RATIOS_KEPT = 64
"""The last runs of a tier of which it is known how much longer than expected they took."""

RATIOS_NEEDED = 8
"""With fewer runs, MARGIN_UNKNOWN is used."""

MARGIN_UNKNOWN = 2.0


def next_ready_by(ready_by: str, after: datetime) -> datetime:
    """Return the next time after `after` at which a clock shows `ready_by`, such as "06:00 Europe/Zurich".

    A time that the clock shows twice, when it is set back, is the first of the two; one that it skips is as long
    after the last one before the jump. Raises Refused, naming what is wrong.
    """
    clock, zone = parse_ready_by(ready_by)
    day = after.astimezone(zone).date()
    for days in range(3):
        # In UTC, since times of one zone are compared by the clock alone, whatever its offset.
        at = datetime.combine(day + timedelta(days=days), clock, tzinfo=zone).astimezone(UTC)
        if at > after:
            return at
    raise AssertionError("no clock skips a whole day twice")


def parse_ready_by(text: str) -> tuple[time, ZoneInfo]:
    """Return time and zone of a text such as "06:00 Europe/Zurich"; raises Refused."""
    clock, _, name = text.strip().partition(" ")
    try:
        at = time.fromisoformat(clock)
        if at.tzinfo is not None or len(clock) != 5:
            raise ValueError
    except ValueError:
        raise Refused(f"{text!r} is not a time of day and a zone, such as 06:00 Europe/Zurich") from None
    return at, zone_of(name.strip())


def margin_of(ratios: Sequence[float]) -> float:
    """Return how many times the expected runtime nineteen of twenty runs of a tier take at most."""
    if len(ratios) < RATIOS_NEEDED:
        return MARGIN_UNKNOWN
    ordered = sorted(ratios)
    return max(ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)], 1.0)


def with_latest_start(request: Request, margin: float, now: datetime) -> Request:
    """Return a request with its latest start; without one if it has no deadline, or arrived too late for it."""
    if request.deadline is None or request.expected is None or now > hopeless_after(request):
        return replace(request, latest_start=None)
    return replace(request, latest_start=request.deadline - timedelta(seconds=request.expected.seconds * margin))


def hopeless_after(request: Request) -> datetime:
    """Return when the run must have started to meet its deadline if it takes as long as expected."""
    assert request.deadline is not None, "only of a request with a deadline"
    assert request.expected is not None, "only of a request that is enlisted"
    return request.deadline - timedelta(seconds=request.expected.seconds)


def deadline_met(request: Request) -> bool | None:
    """Tell whether the model was ready in time; None without a deadline, or while that is open."""
    if request.deadline is None or request.finished_at is None:
        return None
    return request.state is State.SUCCEEDED and request.finished_at <= request.deadline


def earliest(first: datetime | None, second: datetime | None, now: datetime) -> datetime | None:
    """Return the deadline of merged requests: the earliest that has not passed, else the latest."""
    deadlines = [deadline for deadline in (first, second) if deadline is not None]
    ahead = [deadline for deadline in deadlines if deadline > now]
    return min(ahead) if ahead else max(deadlines, default=None)
