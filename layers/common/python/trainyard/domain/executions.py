"""Executions as recorded: their steps, what each used, and what that cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

from trainyard.domain.prices import JobKind, Prices, rounded
from trainyard.domain.requests import RequestKind, State
from trainyard.domain.resources import ResourceProfile

FREE_STEPS = frozenset(
    {"", "Training", "Processing", "Transform", "Tuning", "Condition", "Fail", "Lambda", "RegisterModel", "Model"}
)
"""Types of steps that cost nothing by themselves: they run no job, or never got one ("" and the jobs' own)."""

STEP_MOVES = frozenset({"Starting", "Executing", "Stopping"})
"""Statuses of a step that has not ended (SageMaker API reference, PipelineExecutionStep)."""

JOB_ENDED = frozenset({"Completed", "Failed", "Stopped"})
"""Statuses of training, processing and transform jobs that do not change again (SageMaker API reference)."""

SKEW_SECONDS = 1.0
"""How far a job's end may precede its start, because of clock skew, without being flagged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """SageMaker's data about a step's job; None where it is missing."""

    kind: JobKind
    arn: str
    status: str
    instance_type: str | None = None
    """What it ran on; None for a job that named several types and got none of them."""
    instance_count: int | None = None
    volume_gb: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    billable_seconds: int | None = None
    """Training only; of spot instances less than the training took."""
    training_seconds: int | None = None
    spot: bool = False
    metrics: tuple[tuple[str, float], ...] = ()
    artifact_uri: str | None = None
    trials: int = 0
    """Of a tuning: its training jobs, of which seconds are the sum, and whose names begin with its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """SageMaker's data about a step."""

    name: str
    kind: str
    """Its type, as the pipeline's definition calls it; the service's own word where that is not known."""
    status: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    failure: str | None = None
    job: JobFacts | None = None
    job_missing: bool = False
    """It has a job that no longer exists in SageMaker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """A step and what it cost."""

    step: StepFacts
    seconds: int | None
    """Billable, of each instance; None while that is unknown, 0 for a step that runs no job."""
    cost_usd: Decimal | None
    """None where seconds or price are unknown, which is not the same as 0."""
    saved_usd: Decimal = Decimal(0)
    """What spot instances saved."""
    flags: tuple[str, ...] = ()
    """Anomalies."""
    is_final: bool = True
    """Whether it can no longer change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """One execution: an attempt of a request, from its admission to its end."""

    request_id: str
    attempt: int
    tenant_id: str
    tier: str
    data_set: str
    algorithm: str
    profile: str
    month: str
    """The month in which it was admitted, "2026-11": it counts in this month's budget and bill."""
    execution_arn: str
    state: State
    """How it ended; a request that goes back to the queue has executions that FAILED."""
    admitted_at: datetime
    started_at: datetime | None
    ended_at: datetime
    recorded_at: datetime
    steps: tuple[StepRecord, ...]
    cost_usd: Decimal
    """The sum of what is known."""
    unknown: int
    """Steps of which the cost is unknown."""
    price_version: str
    is_final: bool
    """Whether all its steps are; else it is read again."""
    reserved_usd: Decimal = Decimal(0)
    data_bytes: int = 0
    reason: str | None = None
    failed_step: str | None = None
    model_package_arn: str | None = None
    model_uri: str | None = None
    report_uri: str | None = None
    expected_seconds: int | None = None
    expected_usd: Decimal | None = None
    has_overrides: bool = False
    """Whether it was asked for with settings of its own: it says nothing about other runs."""
    revision: int = 0
    """Incremented when it is corrected."""

    @property
    def kind(self) -> RequestKind:
        """Return what was run."""
        transforms = bool(self.profile) and ResourceProfile.parse(self.profile).is_transform
        return RequestKind.TRANSFORM if transforms else RequestKind.TRAINING

    @property
    def charged_usd(self) -> Decimal:
        """Return what budgets are charged: what it cost, or where that is not all known, as much as it had
        reserved.
        """
        all_known = self.is_final and not self.unknown
        return self.cost_usd if all_known else max(self.cost_usd, self.reserved_usd)

    @property
    def day(self) -> str:
        """Return the day on which it ended, "2026-11-21", within the month it belongs to."""
        ended = self.ended_at.astimezone(UTC).strftime("%Y-%m-%d")
        first, last = f"{self.month}-01", f"{self.month}-{days_in(self.month):02d}"
        return min(max(ended, first), last)

    @property
    def seconds(self) -> int:
        """Return how long it ran, from its admission on."""
        return max(int((self.ended_at - self.admitted_at).total_seconds()), 0)

    @property
    def job_seconds(self) -> int:
        """Return how long its longest job ran."""
        return max((step.seconds or 0 for step in self.steps), default=0)

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(f"{step.step.name}: {flag}" for step in self.steps for flag in step.flags)

    @property
    def tags(self) -> dict[str, str]:
        """Return the cost tags of its jobs, except for the stage, which is the same for the whole deployment."""
        return {
            "trainyard:tenant": self.tenant_id,
            "trainyard:tier": self.tier,
            "trainyard:request": self.request_id,
            "trainyard:dataset": self.data_set,
        }


def month_of(when: datetime) -> str:
    """Return the month of a time, "2026-11", in UTC."""
    return when.astimezone(UTC).strftime("%Y-%m")


def next_month(month: str) -> str:
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


def days_in(month: str) -> int:
    return (month_begins(next_month(month)) - month_begins(month)).days


def month_begins(month: str) -> datetime:
    """Return when a month begins; raises ValueError for what is no month."""
    return datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)


def priced(step: StepFacts, prices: Prices) -> StepRecord:
    """Return a step with what it cost."""
    job = step.job
    if job is None:
        return _without_job(step)
    seconds, flags = billable_seconds(job)
    has_times = job.started_at is not None and job.ended_at is not None
    complete = seconds is not None or (has_times and not job.spot and not job.trials)
    is_final = job.status in JOB_ENDED and complete
    if job.status not in JOB_ENDED:
        flags += (f"its job is still {job.status}",)
    used = seconds or 0
    usd = _usd(job, prices, used)
    if usd is None and job.instance_type is None:
        flags += ("SageMaker does not say on which instances it ran",)
    elif usd is None:
        flags += (f"the price of {job.instance_type} for {job.kind.value} is unknown",)
    cost = None if usd is None or seconds is None else rounded(usd)
    saved = Decimal(0)
    if job.spot and usd and job.training_seconds is not None:
        saved = max(rounded(usd * job.training_seconds / used) - rounded(usd), Decimal(0))
    return StepRecord(step=step, seconds=seconds, cost_usd=cost, saved_usd=saved, flags=flags, is_final=is_final)


def _usd(job: JobFacts, prices: Prices, seconds: int) -> Decimal | None:
    """Return what a job's billable seconds cost, not rounded, or None where instances or price are unknown."""
    if not seconds and job.instance_type is None:
        return Decimal(0)  # it never got an instance
    if job.instance_type is None or job.instance_count is None:
        return None
    return prices.cost(job.kind, job.instance_type, job.instance_count, job.volume_gb, seconds)


def _without_job(step: StepFacts) -> StepRecord:
    if step.job_missing:
        return StepRecord(step=step, seconds=None, cost_usd=None, flags=("SageMaker no longer knows its job",))
    if step.kind in FREE_STEPS:
        is_final = step.status not in STEP_MOVES
        return StepRecord(step=step, seconds=0, cost_usd=Decimal(0), is_final=is_final)
    return StepRecord(step=step, seconds=None, cost_usd=None, flags=(f"its type {step.kind!r} is unknown",))


def billable_seconds(job: JobFacts) -> tuple[int | None, tuple[str, ...]]:
    """Return the billable seconds of a job, and what is odd about them.

    Training: as SageMaker says. Others: from start to end, rounded up. If times are missing or run
    backwards, None; only a job that failed or was stopped before it began used nothing (SageMaker API
    reference, DescribeTrainingJob and DescribeProcessingJob).
    """
    begin, end = job.started_at, job.ended_at
    flags: tuple[str, ...] = ()
    backwards = begin is not None and end is not None and (begin - end).total_seconds() > SKEW_SECONDS
    if backwards:
        flags = (f"it ended at {end:%Y-%m-%dT%H:%M:%SZ}, before it began",)
    if job.kind is JobKind.TRAINING and job.billable_seconds is not None:
        if job.billable_seconds < 0:
            return None, (*flags, f"its billable seconds are {job.billable_seconds}")
        return job.billable_seconds, flags
    if job.trials:  # from its start to its end, its instances were started again and again
        return None, (*flags, "SageMaker does not say how long one of its trials ran")
    if begin is None and job.status in ("Failed", "Stopped"):
        return 0, flags  # it never got an instance
    if job.spot:  # it is billed less than from its start to its end, between which it may have waited
        return None, (*flags, "SageMaker does not say how long its spot instances are billed")
    if begin is None or end is None:
        return None, (*flags, "its start or end time is missing")
    if backwards:
        return None, flags
    return max(math.ceil((end - begin).total_seconds()), 0), flags


def total(records: Sequence[StepRecord], state: State) -> tuple[Decimal, int]:
    """Return the sum of what is known, and how many steps' cost is not; a success without steps lacks one."""
    costs = [record.cost_usd for record in records]
    missing = not costs and state is State.SUCCEEDED
    return sum((cost for cost in costs if cost is not None), Decimal(0)), costs.count(None) + missing


def apportioned(amounts: Sequence[Decimal], places: int = 2) -> list[Decimal]:
    """Return amounts rounded so that they add up to their sum, rounded half up (largest remainder).

    No amount changes by more than one unit of the last place.
    """
    unit = Decimal(1).scaleb(-places)
    whole = sum(amounts, Decimal(0)).quantize(unit, rounding=ROUND_HALF_UP)
    floors = [(amount // unit) * unit for amount in amounts]
    remaining = int((whole - sum(floors, Decimal(0))) / unit)
    order = sorted(range(len(amounts)), key=lambda i: (floors[i] - amounts[i], i))
    for number in order[:remaining]:
        floors[number] += unit
    return [floor.quantize(unit) for floor in floors]


def corrected(
    before: ExecutionRecord, reported: Sequence[StepFacts], prices: Prices, now: datetime
) -> ExecutionRecord:
    """Return a record with what was not settled as it is known now; what was settled stays as it is."""
    records = {record.step.name: record for record in before.steps}
    named = {step.name: step for step in reported}
    steps = [
        record if record.is_final or name not in named else priced(named[name], prices)
        for name, record in records.items()
    ]
    steps += [priced(step, prices) for name, step in named.items() if name not in records]
    cost, unknown = total(steps, before.state)
    return replace(
        before,
        steps=tuple(steps),
        cost_usd=cost,
        unknown=unknown,
        price_version=prices.version,
        is_final=all_final(steps, before.state),
        recorded_at=now,
        revision=before.revision + 1,
    )


def all_final(steps: Sequence[StepRecord], state: State) -> bool:
    """Tell whether steps can no longer change; a successful run without steps is not complete yet."""
    return all(step.is_final for step in steps) and (bool(steps) or state is not State.SUCCEEDED)
