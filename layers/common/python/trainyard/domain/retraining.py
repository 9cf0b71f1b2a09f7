"""Retraining rules of a data set: which uploads are enough for a training, and how often and when it trains."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from trainyard.domain.errors import Refused
from trainyard.domain.requests import Collected
from trainyard.domain.windows import DAYS, Weekly, when_of

COLLECT_MAX = timedelta(days=1)
"""How long uploads are collected for a training, where no maximum delay is set."""
TRIGGERS_MAX = 8
"""Triggers of a request that are named; further ones are not."""
TRIGGER_LENGTH_MAX = 100
MINUTES_OF_WEEK = 7 * 24 * 60


class BatchEnd(StrEnum):
    """The name of an object whose upload says that a batch of files is complete."""

    NONE = ""
    SUCCESS = "_SUCCESS"
    """As Spark, Hive and Hadoop write it."""
    MANIFEST = "_manifest.json"
    """Lists the files of the batch: {"files": ["part-0.csv", "part-1.csv"]}, relative to its own folder."""


class OnDrift(StrEnum):
    REFUSE = "refuse"
    """The request fails before anything is trained, unless it is forced."""
    TRAIN = "train"
    """A note says what has changed."""


class Trigger(StrEnum):
    """What may make a data set train."""

    UPLOAD = "upload"
    PERSON = "person"
    """On the command line, in the console, or a program with an API key."""
    SCHEDULE = "schedule"
    MISSED = "missed schedule"
    """A time of the schedule has passed without an event."""
    BATCH = "batch complete"
    """The object that ends a batch of files was uploaded."""
    ALARM = "alarm"
    """A CloudWatch alarm that is mapped to the data set."""
    EVENT = "event"
    """Another system that is allowed to ask for the tenant."""
    AGE = "age"
    """The newest model is as old as the settings allow."""
    FAILURE = "failure"
    """The last training failed for a cause that was not the tenant's."""
    VERSION = "algorithm version"
    """A wave has brought the data set another version of its algorithm."""
    QUALITY = "endpoint quality"
    """The live version fails more of its calls than the settings allow."""

    CAPTURED = "captured inputs"
    """What the live model is asked has moved far from what it was trained on."""

    @property
    def is_automatic(self) -> bool:
        """Whether nobody uploaded anything or asked."""
        return self not in (Trigger.UPLOAD, Trigger.PERSON, Trigger.BATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingSettings:
    """When a data set trains. Numbers of 0, and "", stand for no rule."""

    files: int = 0
    """Uploads that are enough for a training; of several thresholds, the first that is reached counts."""
    megabytes: int = 0
    rows: int = 0
    closed_by: BatchEnd = BatchEnd.NONE
    quiet_minutes: int | None = None
    """How long no upload must come before a training starts; None for the policy's."""
    delay_max_minutes: int | None = None
    """How long a training waits for further uploads at most; None for the policy's, or COLLECT_MAX with a
    threshold."""
    interval_minutes: int = 0
    """At least so long from the start of one training to the start of the next."""
    between: str = ""
    """Times of the day between which trainings may start, such as "22:00-06:00 Europe/Zurich"."""
    on_schema_change: OnDrift = OnDrift.REFUSE
    """What follows where columns of the last training are not there any more, or are of another kind."""
    on_shift: OnDrift = OnDrift.TRAIN
    """What follows where the data has moved far from that of the last training."""
    shift_percent: int = 30
    """Of the columns that must have moved far for the data to have."""
    critical: tuple[str, ...] = ()
    """Columns of which one is enough for that."""
    age_max_days: int = 0
    """Train again when the newest model is as old."""
    retry_hours: int = 0
    """Train again so long after a training failed for a cause that was not the tenant's."""
    failed_calls_percent: int = 0
    """Train again when the live version fails a larger share of its calls."""
    captured_drift: bool = False
    """Train again when captured inputs have moved far, by `shift_percent` and `critical`."""
    warm_start: bool = False
    """Whether a training begins with what the live model has learnt, where its estimator can."""

    @property
    def collects(self) -> bool:
        """Whether an upload alone may be too little for a training."""
        return bool(self.files or self.megabytes or self.rows or self.closed_by)

    @property
    def opening(self) -> Weekly | None:
        """Return the times at which trainings may start; None for any."""
        return parse_between(self.between) if self.between else None


NO_RULES = RetrainingSettings()


def is_enough(collected: Collected, settings: RetrainingSettings) -> bool:
    """Tell whether uploads reach a threshold; True where there is none."""
    if not settings.collects:
        return True
    return (
        0 < settings.files <= collected.files
        or 0 < settings.megabytes * 10**6 <= collected.size_bytes
        or 0 < settings.rows <= collected.rows
    )


def progress(collected: Collected, settings: RetrainingSettings) -> str:
    """Return how far uploads are from the thresholds: "3 of 10 files, no _SUCCESS yet"."""
    parts = [f"{collected.files:,} of {settings.files:,} files"] if settings.files else []
    if settings.megabytes:
        parts.append(f"{collected.size_bytes / 10**6:,.1f} of {settings.megabytes:,} MB")
    parts += [f"about {collected.rows:,} of {settings.rows:,} rows"] if settings.rows else []
    parts += [f"no {settings.closed_by} yet"] if settings.closed_by else []
    return ", ".join(parts)


def parse_between(text: str) -> Weekly:
    """Return the times of the day in a text such as "22:00-06:00 Europe/Zurich"; raises Refused."""
    times, _, zone = text.partition(" ")
    begins, dash, ends = times.partition("-")
    if not dash or len(begins) != 5 or len(ends) != 5:
        raise Refused(f"{text!r} is not a time of the day such as 22:00-06:00 Europe/Zurich")
    if begins == ends:
        raise Refused(f"{text!r} begins and ends at once: leave it out for all day")
    when = when_of(begins, ends, DAYS, zone or "UTC")
    assert isinstance(when, Weekly), "its ends are times of the day"
    return when


def next_opening(opening: Weekly, at: datetime) -> datetime:
    """Return the first time from `at` on that lies within the periods."""
    for period in opening.periods(at, at + timedelta(days=3)):
        if period.ends > at:
            return max(period.begins, at)
    return at


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The last training of a data set that ended with a model."""

    request_id: str
    at: datetime
    """When it ended."""
    basis: str = ""
    """What it was started on (domain/unchanged.py, `basis_of`); "" where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The last training of a data set, which ended without a model."""

    request_id: str
    at: datetime
    is_of_aws: bool
    """Whether a later attempt may succeed with the same data: AWS had no capacity, or an error of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTrainings:
    """What decides whether a data set trains again."""

    trained: Trained | None = None
    failed: Failed | None = None
    """None also where a later one succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How a data set waits: since when, until when, and whether for further uploads."""

    arrived_at: datetime
    due_at: datetime
    collects: bool = False
    """Whether too little was uploaded so far; then `due_at` is when it is trained on all the same."""


def wait_after(
    now: datetime,
    *,
    quiet_period: timedelta,
    delay_max: timedelta,
    waiting: Waiting | None = None,
    settings: RetrainingSettings = NO_RULES,
    enough: bool = True,
    last_start: datetime | None = None,
) -> Waiting:
    """Return how a data set waits after an arrival at `now`; `waiting` is how it waited before.

    Its place in the queue is the first arrival's. A wait that has ended stays ended, or a stream of uploads would
    never train; the end of one is never brought forward, since it may be a back-off, except when enough was
    collected. `last_start` is when its last training started: None where the interval between two does not matter.
    """
    if settings.quiet_minutes is not None:
        quiet_period = timedelta(minutes=settings.quiet_minutes)
    if settings.delay_max_minutes is not None:
        delay_max = timedelta(minutes=settings.delay_max_minutes)
    elif not enough:
        delay_max = COLLECT_MAX
    arrived_at = waiting.arrived_at if waiting else now
    latest = arrived_at + delay_max
    if waiting is not None and waiting.due_at <= now:
        return Waiting(arrived_at=arrived_at, due_at=waiting.due_at)
    due_at = min(now + quiet_period, latest) if enough else latest
    if waiting is not None and not waiting.collects:
        due_at = max(due_at, waiting.due_at)
    if settings.interval_minutes and last_start is not None:
        due_at = max(due_at, last_start + timedelta(minutes=settings.interval_minutes))
    if settings.opening is not None:
        due_at = next_opening(settings.opening, due_at)
    return Waiting(arrived_at=arrived_at, due_at=due_at.astimezone(UTC), collects=not enough)


def merged_triggers(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    """Return the triggers of two requests that became one, each once, the earlier ones first."""
    return tuple(dict.fromkeys((*first, *second)))[:TRIGGERS_MAX]


def trigger_text(trigger: Trigger, detail: str = "") -> str:
    """Return a trigger as it is kept and shown: "alarm: quality of churn"; what others wrote is made printable."""
    plain = "".join(character if character.isprintable() else " " for character in detail)
    return f"{trigger}: {' '.join(plain.split())}"[:TRIGGER_LENGTH_MAX].rstrip(": ") if detail else trigger.value
