"""Windows: periods of the clock in which some limits of the policy are others, or a tier is closed.

Where several are open, the one that is listed last wins, for each limit by itself. Times are those of a clock in
the window's zone. A time that the clock shows twice, when it is set back, is the first of the two; one that it
skips is as long after the last one before the jump.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from trainyard.domain.errors import Refused

LOOK_BACK = timedelta(days=15)
"""A window that repeats opens or closes at least once in so long: each week, but for one that the clock skips."""

FORMS = "a time such as 22:00, a day and a time such as fri 18:00, or a date and a time such as 2026-12-24 18:00"

YEARS = range(2000, 2200)

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Period(NamedTuple):
    begins: datetime
    ends: datetime
    """It is over at this moment."""


@dataclass(frozen=True, slots=True)
class Once:
    """A single period."""

    begins: datetime
    ends: datetime

    def periods(self, since: datetime, until: datetime) -> Iterator[Period]:
        """Yield the period, wherever it is: there is only one."""
        yield Period(self.begins.astimezone(UTC), self.ends.astimezone(UTC))


@dataclass(frozen=True, slots=True)
class Weekly:
    """A period on some days of each week."""

    days: tuple[int, ...]
    """On which it begins; 0 is Monday."""
    begins: time
    ends: time
    nights: int
    """How many times midnight passes in it."""
    zone: str

    def periods(self, since: datetime, until: datetime) -> Iterator[Period]:
        """Yield the periods that end after `since` and begin before `until`, in order."""
        zone = zone_of(self.zone)
        day = since.astimezone(zone).date() - timedelta(days=self.nights + 1)
        last = until.astimezone(zone).date()
        while day <= last:
            if day.weekday() in self.days:
                # In UTC, since times of one zone are compared by the clock alone, whatever its offset.
                begins = datetime.combine(day, self.begins, tzinfo=zone).astimezone(UTC)
                ends_on = day + timedelta(days=self.nights)
                ends = datetime.combine(ends_on, self.ends, tzinfo=zone).astimezone(UTC)
                if begins < ends and ends > since and begins < until:
                    yield Period(begins, ends)
            day += timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What is in force while it is open, in place of the policy's own."""

    name: str
    when: Once | Weekly
    limits: Mapping[str, float] = field(default_factory=dict)
    """Attribute of the policy ("running_max", "starts_per_second") → value."""
    instance_quotas: Mapping[str, int] = field(default_factory=dict)
    tiers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Tier → its attribute ("quota", "closed") → value."""


def when_of(begins: str, ends: str, days: Sequence[str], zone: str) -> Once | Weekly:
    """Return when a window is open whose ends are times of the day ("22:00"), of the week ("fri 18:00"), or dates
    and times ("2026-12-24 18:00"); `days` are those on which one of times of the day begins, all if empty.

    Raises Refused, naming what is wrong.
    """
    named = zone_of(zone)
    first, last = _moment(begins), _moment("00:00" if ends == "24:00" else ends)
    unknown = [day for day in days if day not in DAYS]
    if unknown:
        raise Refused(f"days has {unknown[0]!r}, which is not one of {', '.join(DAYS)}")
    if days and not isinstance(first, time):
        raise Refused(f"days has no effect on a window from {begins}")
    if isinstance(first, time) and isinstance(last, time):
        numbers = tuple(number for number, day in enumerate(DAYS) if not days or day in days)
        return Weekly(numbers, first, last, 0 if last > first else 1, zone)
    if isinstance(first, tuple) and isinstance(last, tuple):
        nights = (last[0] - first[0]) % 7 or (0 if last[1] > first[1] else 7)
        return Weekly((first[0],), first[1], last[1], nights, zone)
    if isinstance(first, datetime) and isinstance(last, datetime):
        since, until = (at if at.tzinfo else at.replace(tzinfo=named) for at in (first, last))
        if since.astimezone(UTC) >= until.astimezone(UTC):
            raise Refused(f"a window from {begins} to {ends} never opens")
        return Once(since, until)
    raise Refused(f"from and to must have the same form, got {begins!r} and {ends!r}")


def _moment(text: str) -> time | tuple[int, time] | datetime:
    first, _, rest = text.partition(" ")
    try:
        if first in DAYS:
            return DAYS.index(first), _clock(rest)
        if len(text) <= 5:
            return _clock(text)
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"{text!r} is not {FORMS}") from None
    if at.year not in YEARS:
        raise Refused(f"{text!r} is not between the years {YEARS[0]} and {YEARS[-1]}")
    return at


def _clock(text: str) -> time:
    if len(text) != 5:
        raise ValueError
    return time.fromisoformat(text)


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone; raises Refused when there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Refused(f"there is no time zone {name!r}; they are named like Europe/Zurich, or UTC") from None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The periods of some windows around a time."""

    windows: tuple[Window, ...]
    periods: tuple[tuple[int, Period], ...]
    """Number of a window, and a period in which it is open."""
    changes: tuple[datetime, ...]
    """When any of them opens or closes, in order."""

    def open_at(self, when: datetime) -> tuple[Window, ...]:
        """Return the windows that are open, in the order in which they are listed."""
        numbers = sorted({n for n, period in self.periods if period.begins <= when < period.ends})
        return tuple(self.windows[number] for number in numbers)


def timeline(windows: Iterable[Window], since: datetime, until: datetime) -> Timeline:
    """Return what happens to windows between two times; of single periods, whenever they are."""
    listed = tuple(windows)
    periods = tuple((n, p) for n, window in enumerate(listed) for p in window.when.periods(since, until))
    return Timeline(listed, periods, tuple(sorted({when for _, period in periods for when in period})))
