"""Schedules, as EventBridge Scheduler keeps them: when they are due, and which of them never would be.

    cron(0 3 * * ? *) Europe/Zurich from 2026-12-01 until 2027-03-31T12:00 within 60 minutes
    rate(1 day)

A cron expression has minutes, hours, days of the month, months, days of the week and years. Its times are those
of a clock in the zone, UTC without one: a time that the clock skips is left out, and one that it shows twice is
due once, at the first of the two. Events come up to so many minutes after that, spread evenly.

Source: EventBridge Scheduler user guide, "Schedule types", and API reference, CreateSchedule.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Tenant
from trainyard.domain.windows import zone_of

LENGTH_MAX = 256
WITHIN_MINUTES = 15
"""Of schedules that say nothing else: ten thousand tenants at midnight do not come as one."""
WITHIN_MINUTES_MAX = 1440
HORIZON = timedelta(days=366 * 30)
"""What is not due in so long never is: the rarest, a certain day of the week on 29 February, comes in 28 years."""
YEARS, MOMENTS = range(1970, 2200), range(2000, 2200)
LOOKED_AT = 100
"""Times of a schedule of which the distances are looked at."""

FORM = "rate(1 day), or cron(0 3 * * ? *) Europe/Zurich from 2026-12-01 until 2027-03-31 within 60 minutes"

_TEXT = re.compile(
    r"(?P<kind>rate|cron)\((?P<fields>[^()]{1,100})\)"
    r"(?: (?!from |until |within )(?P<zone>[A-Za-z][A-Za-z0-9_+/-]{0,49}))?"
    r"(?: from (?P<begins>[0-9T:-]{10,16}))?"
    r"(?: until (?P<ends>[0-9T:-]{10,16}))?"
    r"(?: within (?P<within>[0-9]{1,4}) minutes?)?"
)
_RATE = re.compile(r"([1-9][0-9]{0,3}) (minute|hour|day)s?")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

DayTest = Callable[[date], bool]


@dataclass(frozen=True)
class Schedule:
    """When something is to happen again and again."""

    expression: str
    """As EventBridge Scheduler takes it."""
    zone: str = "UTC"
    begins: datetime | None = None
    ends: datetime | None = None
    """It is not due from then on."""
    within_minutes: int = WITHIN_MINUTES

    @property
    def every(self) -> timedelta | None:
        """Return the time between two times of a rate; None for a cron expression."""
        return _rate_of(self.expression[5:-1]) if self.expression.startswith("rate(") else None

    def has_ended(self, now: datetime) -> bool:
        return self.ends is not None and self.ends <= now

    def is_on(self, now: datetime) -> bool:
        """Tell whether it has begun, and not ended."""
        return (self.begins is None or self.begins <= now) and not self.has_ended(now)

    def due(self, since: datetime) -> Iterator[datetime]:
        """Yield the times after `since` at which it is due, in order, in UTC; within the horizon.

        Those of a rate are counted from when it begins; without that from `since`, as it is not known here when
        EventBridge got it.
        """
        last = min(since + HORIZON, self.ends) if self.ends else since + HORIZON
        begins = self.begins - timedelta(microseconds=1) if self.begins else since
        every = self.every
        if every is None:
            cron = _cron_of(self.expression[5:-1])
            yield from cron.times(max(since, begins), last, ZoneInfo(self.zone))
            return
        at = since + every
        if self.begins is not None:
            at = self.begins + max(0, (since - self.begins) // every + 1) * every
        while at < last:
            yield at
            at += every


@dataclass(frozen=True)
class _Cron:
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: frozenset[int]
    years: frozenset[int]
    is_on: DayTest

    def times(self, since: datetime, last: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """Yield the times after `since` and before `last`, in order, in UTC."""
        day = since.astimezone(zone).date() - timedelta(days=1)
        while day <= last.date() + timedelta(days=1):
            if day.year not in self.years or day.month not in self.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                continue
            if self.is_on(day):
                yield from (at for at in sorted(self._of_day(day, zone)) if since < at < last)
            day += timedelta(days=1)

    def _of_day(self, day: date, zone: ZoneInfo) -> Iterator[datetime]:
        for hour in self.hours:
            for minute in self.minutes:
                clock = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                at = clock.astimezone(UTC)
                if at.astimezone(zone).replace(tzinfo=None) == clock.replace(tzinfo=None):
                    yield at


def parse_schedule(text: str) -> Schedule:
    """Return the schedule in a text; raises Refused, naming what is wrong."""
    match = _TEXT.fullmatch(" ".join(text.split())) if len(text) <= LENGTH_MAX else None
    if match is None:
        raise Refused(f"{text[:LENGTH_MAX]!r} is not a schedule: use {FORM}")
    zone = match["zone"] or "UTC"
    if zone.startswith(("posix", "right/")) or zone in ("localtime", "Factory"):
        raise Refused(f"{zone!r} is not a time zone such as Europe/Zurich")
    clock = zone_of(zone)
    within = int(match["within"]) if match["within"] else WITHIN_MINUTES
    if within > WITHIN_MINUTES_MAX:
        raise Refused(f"within {within} minutes is more than {WITHIN_MINUTES_MAX}, which is a day")
    schedule = Schedule(
        expression=f"{match['kind']}({match['fields'] if match['kind'] == 'rate' else match['fields'].upper()})",
        zone=zone,
        begins=_moment(match["begins"], clock),
        ends=_moment(match["ends"], clock),
        within_minutes=within,
    )
    if schedule.begins and schedule.ends and schedule.begins >= schedule.ends:
        raise Refused(f"a schedule from {match['begins']} until {match['ends']} has ended before it begins")
    if match["kind"] == "cron":
        _cron_of(match["fields"])
    else:
        _rate_of(match["fields"])
    return schedule


def scheduled_by_themselves(tenant: Tenant, now: datetime) -> frozenset[str]:
    """Return the data sets that a schedule of their own is on for now: the tenant's is not for them."""
    return frozenset(name for name, text in tenant.own_schedules.items() if parse_schedule(text).is_on(now))


def check_is_due(schedule: Schedule, now: datetime) -> None:
    """Raise Refused for a schedule that is not due at any time from now on."""
    if not list(islice(schedule.due(now), 1)):
        until = f" before {schedule.ends:%Y-%m-%d %H:%M} UTC" if schedule.ends else ""
        raise Refused(f"{schedule.expression} is never due{until}")


def check_pace(schedule: Schedule, now: datetime, least: timedelta) -> None:
    """Raise Refused for a schedule that is due again in less than some time; some of its times are looked at."""
    times = list(islice(schedule.due(now), LOOKED_AT))
    for before, after in pairwise(times):
        if after - before < least:
            times_of_both = f"{before:%Y-%m-%d %H:%M} and {after:%Y-%m-%d %H:%M} UTC"
            minutes = least // timedelta(minutes=1)
            raise Refused(
                f"{schedule.expression} is due at {times_of_both}: at least {minutes} minutes must lie between"
            )


def _rate_of(text: str) -> timedelta:
    match = _RATE.fullmatch(text)
    if match is None:
        raise Refused(f"rate({text}) is not a rate: use a whole number of minutes, hours or days")
    return timedelta(**{f"{match[2]}s": int(match[1])})


def _moment(text: str | None, zone: ZoneInfo) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        if at.year not in MOMENTS:
            raise ValueError(text)
        return at.replace(tzinfo=zone).astimezone(UTC)
    except ValueError:
        raise Refused(f"{text!r} is not a date or time such as 2026-12-01 or 2026-12-01T06:00") from None


def _cron_of(text: str) -> _Cron:
    fields = text.upper().split()
    if len(fields) != 6:
        raise Refused(
            f"cron({text}) has {len(fields)} fields, and needs six: minutes, hours, days of the month, months, "
            "days of the week, years"
        )
    minutes, hours, days, months, weekdays, years = fields
    if (days == "?") == (weekdays == "?"):
        raise Refused(f"cron({text}): exactly one of its two fields of days must be ?")
    is_on = _on_weekdays(weekdays) if days == "?" else _on_days(days)
    return _Cron(
        minutes=tuple(sorted(_numbers(minutes, range(60), "minutes"))),
        hours=tuple(sorted(_numbers(hours, range(24), "hours"))),
        months=frozenset(_numbers(months, range(1, 13), "months", _MONTHS, 1)),
        years=frozenset(_numbers(years, YEARS, "years")),
        is_on=is_on,
    )


def _numbers(text: str, allowed: range, what: str, names: tuple[str, ...] = (), first: int = 0) -> set[int]:
    """Return the numbers that a field names: `*`, `5`, `1-5`, `0/15`, `1-30/7`, and several of them by commas."""
    numbers: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        begin, dash, end = span.partition("-")
        try:
            low = allowed[0] if span == "*" else _number(begin, names, first)
            high = (
                allowed[-1]
                if span == "*" or (slash and not dash)
                else _number(end if dash else begin, names, first)
            )
            by = _number(step, (), 0) if slash else 1
        except ValueError:
            raise Refused(f"{part!r} is not valid among {what}: use *, 5, 1-5 or 0/15") from None
        if low not in allowed or high not in allowed or low > high or not 1 <= by <= len(allowed):
            raise Refused(f"{part!r} is not valid among {what}, which go from {allowed[0]} to {allowed[-1]}")
        numbers |= set(range(low, high + 1, by))
    return numbers


def _one(text: str, allowed: range, what: str, names: tuple[str, ...] = (), first: int = 0) -> int:
    """Return the only number that a text names."""
    numbers = _numbers(text, allowed, what, names, first)
    if len(numbers) != 1:
        raise Refused(f"{text!r} is not valid among {what}: give one")
    return numbers.pop()


def _number(text: str, names: tuple[str, ...], first: int) -> int:
    if text in names:
        return names.index(text) + first
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def _on_days(text: str) -> DayTest:
    """Return what tells whether a day of the month is named: by numbers, `L` for the last one, `15W` for the
    nearest day from Monday to Friday."""
    if text == "L":
        return lambda day: day.day == _last_day(day)
    if text.endswith("W"):
        number = _one(text[:-1], range(1, 32), "days of the month with W")
        return lambda day: day == _nearest_working_day(day, number)
    numbers = _numbers(text, range(1, 32), "days of the month")
    return lambda day: day.day in numbers


def _nearest_working_day(day: date, number: int) -> date | None:
    """Return the day from Monday to Friday that is nearest to a day of the month, and in the same month."""
    last = _last_day(day)
    if number > last:
        return None
    named = day.replace(day=number)
    if named.weekday() == 5:
        return named - timedelta(days=1) if number > 1 else named + timedelta(days=2)
    if named.weekday() == 6:
        return named + timedelta(days=1) if number < last else named - timedelta(days=2)
    return named


def _on_weekdays(text: str) -> DayTest:
    """Return what tells whether a day of the week is named: by numbers from 1 for Sunday, `6L` for the last Friday
    of a month, `2#1` for its first Monday."""
    what = "days of the week"
    if text.endswith("L"):
        last = _one(text[:-1] or "7", range(1, 8), f"{what} with L", _DAYS, 1)
        return lambda day: _weekday(day) == last and day.day > _last_day(day) - 7
    if "#" in text:
        name, _, which = text.partition("#")
        number = _one(name, range(1, 8), f"{what} before #", _DAYS, 1)
        nth = _one(which, range(1, 6), f"{what} after #")
        return lambda day: _weekday(day) == number and (day.day - 1) // 7 + 1 == nth
    numbers = _numbers(text, range(1, 8), what, _DAYS, 1)
    return lambda day: _weekday(day) in numbers


def _weekday(day: date) -> int:
    """Return the day of the week as cron counts: 1 is Sunday."""
    return day.isoweekday() % 7 + 1


def _last_day(day: date) -> int:
    """Return the number of days of a month."""
    return ((day.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)).day
