"""Requests for trainings and for batch transforms, and their life.

QUEUED ──► ADMITTED ──► RUNNING ──► SUCCEEDED | FAILED | STOPPED
  ├──► SUPERSEDED | CANCELLED
(REJECTED at arrival)
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

HISTORY_BEGIN, HISTORY_END = 5, 30
"""Entries of a long history that are kept: the first and the last ones."""


class State(StrEnum):
    QUEUED = "QUEUED"
    """Waits in its tenant queue."""
    ADMITTED = "ADMITTED"
    """Holds a slot; its execution is being started."""
    RUNNING = "RUNNING"
    """Holds a slot; its execution runs."""
    SUCCEEDED = "SUCCEEDED"
    """A model was registered, or all rows have their predictions."""
    FAILED = "FAILED"
    """The reason is kept."""
    STOPPED = "STOPPED"
    """Somebody stopped the execution."""
    SUPERSEDED = "SUPERSEDED"
    """A newer upload of the same data set is trained on instead."""
    CANCELLED = "CANCELLED"
    """Cancelled while it waited."""
    REJECTED = "REJECTED"
    """Never accepted, or not worth a training when its turn came; the reason is kept."""


HOLDING = frozenset({State.ADMITTED, State.RUNNING})
"""The states in which a request holds a slot."""

TERMINAL = frozenset(State) - HOLDING - {State.QUEUED}
"""The states that never change again (invariant I4)."""

TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.ADMITTED, State.SUPERSEDED, State.CANCELLED}),
    State.ADMITTED: frozenset(
        {State.RUNNING, State.QUEUED, State.SUCCEEDED, State.FAILED, State.STOPPED, State.REJECTED}
    ),
    State.RUNNING: frozenset({State.QUEUED, State.SUCCEEDED, State.FAILED, State.STOPPED}),
} | {state: frozenset() for state in TERMINAL}
"""State → the states into which a request may come from it. An admitted request may end before its start is known:
its execution can be over by then, or can be refused. A new one begins as QUEUED, as SUPERSEDED where a newer
upload waits already, or as REJECTED."""

PROGRESS = {State.ADMITTED: 0, State.RUNNING: 1, State.QUEUED: 2} | dict.fromkeys(TERMINAL, 3)
"""How far along a state is; within one attempt a report of less never replaces a report of more.

An admission begins an attempt, so a request that is queued after its first one waits again.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One content of one object: what an upload put there."""

    bucket: str
    key: str
    version_id: str | None
    etag: str
    sequencer: str
    """Hexadecimal, comparable between events of the same key alone; "" where there is none."""
    size_bytes: int
    event_time: datetime

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUploads:
    """What is known of the uploads of one key while its data set waits."""

    key: str
    event_time: datetime
    """The greatest."""
    sequenced: Content | None
    """The content of the greatest sequencer."""
    bare: Content | None
    """The latest content without a sequencer, which is what a retraining finds."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """A state that a request came into."""

    at: datetime
    state: State
    cause: str = ""
    """The reason, if the state alone does not explain it."""


@dataclass(frozen=True, slots=True)
class Collected:
    """The uploads that a request stands for."""

    files: int = 0
    size_bytes: int = 0
    rows: int = 0
    """As far as they were counted."""

    def __add__(self, other: "Collected") -> "Collected":
        return Collected(self.files + other.files, self.size_bytes + other.size_bytes, self.rows + other.rows)


class Basis(StrEnum):
    """What an estimate is based on."""

    HISTORY = "history"
    COLD = "size and tier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run is expected to take and to cost (domain/estimates.py)."""

    seconds: int
    """The median."""
    seconds_p90: int
    """The 90th percentile."""
    job_seconds: int
    """Of its longest job."""
    usd: Decimal | None
    """None when a price is unknown."""
    usd_p90: Decimal | None
    basis: Basis
    runs: int
    """The number of past runs on which it is based."""
    is_short: bool = False
    """Whether nine of ten of its data set's runs end within SHORT_SECONDS, and none far exceeded that lately."""


PRIORITY_MAX = 9
"""The greatest priority of a request among those of its tenant."""


class Cause(StrEnum):
    UPLOAD = "upload"
    """Data was dropped."""
    RETRAINING = "retraining"
    """A schedule, an alarm or a person asked for it."""
    TRANSFORM = "transform"
    """A schedule or a person asked for predictions of stored rows."""


class RequestKind(StrEnum):
    """What a request asks for."""

    TRAINING = "training"
    """A model of a data set."""
    TRANSFORM = "transform"
    """Predictions of stored rows by a data set's live model: a batch transform."""


TRIALS_DEFAULT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """A search for the best hyperparameters, that a training is to be (domain/tuning.py)."""

    trials: int = TRIALS_DEFAULT
    """Trainings with different values, one after the other."""
    minutes: int = 0
    """That all of them may take; 0 for what a training may."""
    usd: Decimal | None = None
    """That all of them may cost; None for what a training may."""
    ranges: tuple[tuple[str, float, float], ...] = ()
    """Hyperparameter, lowest and highest value; () for those that the algorithm offers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What a single training is to have instead of what its data set's settings say."""

    algorithm: str | None = None
    """None for that of the settings."""
    hyperparameters: tuple[tuple[str, str | int | float | bool], ...] = ()
    """Those of the settings apply beside them, unless another algorithm is chosen."""
    tuning: Tuning | None = None
    """None for a plain training."""

    @property
    def is_of_settings(self) -> bool:
        """Whether it trains with what the settings say, but for what it searches."""
        return self.algorithm is None and not self.hyperparameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request as intake accepts it and a tier queue carries it: not yet in a tenant queue."""

    request_id: str
    tenant_id: str
    tier: str
    data_set: str
    content: Content
    cause: Cause
    kind: RequestKind = RequestKind.TRAINING
    algorithm: str = ""
    """By which its instances are chosen."""
    alone: bool = False
    """Trained on by itself: never merged with another upload of its data set."""
    priority: int = 0
    """Among the requests of its tenant, from 0 to PRIORITY_MAX."""
    deadline: datetime | None = None
    """When its model is to be ready."""
    overrides: Overrides | None = None
    """A request that has some is trained on by itself."""
    triggers: tuple[str, ...] = ()
    """What asked for it (domain/retraining.py, `trigger_text`)."""
    rows: int = 0
    """Of its upload, where they were counted."""
    collected: "Collected | None" = None
    """The uploads that it stands for; None for its own."""
    is_complete: bool = False
    """Whether that is enough for a training, whatever the rules say."""
    is_forced: bool = False
    """Whether to train although nothing has changed since the last training."""
    accepts_drift: bool = False
    """Whether to train however far the data has moved since then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A training, or a batch transform, for one data set of one tenant, from its arrival to its end."""

    request_id: str
    tenant_id: str
    tier: str
    data_set: str
    content: Content
    """What it trains on: the newest of the uploads merged into it. Of a transform, the newest object with rows."""
    cause: Cause
    state: State
    arrived_at: datetime
    """When the request arrived, or the first of the requests that it replaced."""
    due_at: datetime
    """The earliest time of admission: the end of its quiet period, or of a back-off."""
    kind: RequestKind = RequestKind.TRAINING
    alone: bool = False
    overrides: Overrides | None = None
    uploads: tuple[KeyUploads, ...] = ()
    """What was merged into it."""
    triggers: tuple[str, ...] = ()
    """What asked for it, and for the requests that were merged into it (domain/retraining.py, `trigger_text`)."""
    collected: Collected = Collected()
    """The uploads that it stands for: its own, and those of the requests that it replaced."""
    collects: bool = False
    """Whether it waits for further uploads, since too little was uploaded so far."""
    keeps_interval: bool = False
    """Whether its start is noted, because the next training of its data set must keep an interval."""
    is_forced: bool = False
    """Whether it trains although nothing has changed since the last training."""
    accepts_drift: bool = False
    """Whether it trains however far the data has moved since then."""
    basis: str = ""
    """What it was started on (domain/unchanged.py, `basis_of`); "" while that is not known."""
    data_bytes: int = 0
    """The size by which its lane was chosen."""
    algorithm: str = ""
    profile: str = ""
    """What it runs on (`ResourceProfile`); kept through policy changes, since its slot is counted by it."""
    attempt: int = 0
    """How often it was admitted."""
    failures: int = 0
    """Attempts that failed through no fault of its own."""
    charge: int = 1
    """Units at which its time counts in fair queuing."""
    reserved_usd: Decimal = Decimal(0)
    """What it has reserved of its budgets while it holds a slot."""
    month: str = ""
    """The month of its last admission, "2026-11": its run counts in this month's budget and bill."""
    runtime_max_seconds: int | None = None
    """Of each of its jobs, while it holds a slot: its reservation follows from it. None for its tier's."""
    expected: Estimate | None = None
    """What its run was expected to take and to cost when it was enlisted."""
    priority: int = 0
    """Among the requests of its tenant, from 0 to PRIORITY_MAX; the greatest first."""
    deadline: datetime | None = None
    """When its model is to be ready."""
    latest_start: datetime | None = None
    """When it must start to meet its deadline (domain/deadlines.py), as calculated when it was enlisted; None if
    it arrived too late for that."""
    risk_minutes: int = 0
    """In how many checks in a row, a minute apart, its deadline was at risk; counted up to RISK_MINUTES."""
    miss_published: bool = False
    """Whether it was published that its deadline will be missed."""
    history: tuple[StateChange, ...] = ()
    """Its life so far, oldest first; of a long one the middle is left out."""
    claimed_at: datetime | None = None
    """When the sweeper took over its start, to start it again; the results of the earlier start no longer
    count. None while the pass that admitted it has the start."""
    ahead: tuple[str, ...] = ()
    """While it holds a slot: the resources that it takes after changes of the limits."""
    selected: str | None = None
    """While it holds a slot: the instance type that SageMaker has selected for its training, where it could select
    among several; None until that is known."""
    ends_by: datetime | None = None
    """While it holds a slot: the latest end that its maximum runtimes allow."""
    reason: str | None = None
    """Why it was rejected or failed, or went back to the queue."""
    superseded_by: str | None = None
    supersedes: str | None = None
    """The request whose place it took."""
    admitted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    heard_at: datetime | None = None
    """When SageMaker last reported that its execution is running."""
    stop_asked_at: datetime | None = None
    """When a stop was requested while it held a slot: it is not retried, however it ends."""
    execution_arn: str | None = None
    outcome: "Outcome | None" = None

    @property
    def has_algorithm_of_settings(self) -> bool:
        """Whether it trains with the algorithm that its data set's settings say, perhaps to tune it."""
        return self.overrides is None or self.overrides.is_of_settings

    @property
    def trials(self) -> int:
        """How many trainings its tuning has; 0 for one that is none."""
        return trials_of(self.overrides)

    @property
    def trains_on_demand(self) -> bool:
        """Whether it may not wait for spot capacity, whatever the policy says.

        That is for first attempts, so that a run is interrupted once at most, and for requests without a deadline.
        """
        return self.failures > 0 or self.deadline is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The results of a finished execution; each field is None while it is unknown."""

    quality: float | None = None
    """Between 0 and 1: area under the ROC curve or balanced accuracy, or R²."""
    quality_metric: str | None = None
    baseline: float | None = None
    """The same metric of knowing nothing of a row."""
    problem: str | None = None
    """ "classification" or "regression"."""
    rows: int | None = None
    """That were trained on and tested on."""
    rows_dropped: int | None = None
    notes: str | None = None
    """What was assumed about the data, or is doubtful in it; a line each."""
    model_package_arn: str | None = None
    model_uri: str | None = None
    report_uri: str | None = None
    trained_version_id: str | None = None
    """The object version that was actually read."""
    trained_sha256: str | None = None
    """Over the files read, in order."""
    trained_files: int | None = None
    cost_usd: str | None = None
    """A decimal number: what is known of it."""
    cost_unknown: int | None = None
    """Steps of which the cost is unknown."""
    failed_step: str | None = None
    predictions_uri: str | None = None
    """Of a transform: where the predictions are."""
    model_version: int | None = None
    """Of a transform: the version that made them."""
    input_files: int | None = None
    """Of a transform: the number of its objects with rows."""
    champion: str | None = None
    """The request whose model this one was judged beside, if there was one."""
    champion_quality: float | None = None
    """Of the champion, on the rows on which both were judged; …"""
    gain: float | None = None
    """… by how much this model is better there, by the same metric."""
    segment_gain: float | None = None
    """The same of the segment that lost most."""
    tuned: str | None = None
    """Of a tuning: the best hyperparameters, as JSON; …"""
    tuned_score: float | None = None
    """… and how good the models with them were, on the rows that were held out of their training; …"""
    tuned_metric: str | None = None
    """… by this metric, the higher the better; …"""
    tuned_error: float | None = None
    """… the standard error of that; …"""
    tuned_before: float | None = None
    """… and the same of the hyperparameters of before; None where it is not known."""
    not_compared: str | None = None
    """Why it could not be judged beside its champion."""
    unread: str | None = None
    """Which results could not be read, and why; an end does not wait for results that the tenant's scripts write.
    """


def trials_of(overrides: Overrides | None) -> int:
    """Return how many trainings a tuning has; 0 where none is asked for."""
    return overrides.tuning.trials if overrides is not None and overrides.tuning is not None else 0


ATTEMPT_FIELDS = (
    "admitted_at",
    "started_at",
    "ends_by",
    "ahead",
    "selected",
    "claimed_at",
    "heard_at",
    "execution_arn",
    "reserved_usd",
    "runtime_max_seconds",
    "charge",
    "basis",
)
"""The fields of one attempt, which are reset when the request waits again."""


def moved(request: Request, to: State, at: datetime, cause: str = "") -> Request:
    """Return the request in another state, with the change in its history; one that ends gets the time of its end.

    The fields of the last attempt are reset when it waits again.
    """
    check_transition(request.state, to)
    request = replace(request, state=to, history=_with_change(request, StateChange(at, to, cause)))
    if to in TERMINAL:
        return replace(request, finished_at=at)
    if to is State.QUEUED:
        defaults = {field.name: field.default for field in fields(Request) if field.name in ATTEMPT_FIELDS}
        return replace(request, **defaults)  # type: ignore[arg-type]
    return request


def rejected(
    request_id: str,
    *,
    kind: RequestKind = RequestKind.TRAINING,
    tenant_id: str,
    tier: str,
    data_set: str,
    content: Content,
    cause: Cause,
    at: datetime,
    reason: str,
    algorithm: str = "",
    overrides: Overrides | None = None,
) -> Request:
    """Return the request of an upload or a retraining that is refused, with the reason."""
    return Request(
        request_id=request_id,
        kind=kind,
        tenant_id=tenant_id,
        tier=tier,
        data_set=data_set,
        content=content,
        cause=cause,
        state=State.REJECTED,
        arrived_at=at,
        due_at=at,
        finished_at=at,
        reason=reason,
        algorithm=algorithm,
        overrides=overrides,
    )


def check_transition(before: State, after: State) -> None:
    """Assert that a request may come from one state into another."""
    assert after in TRANSITIONS[before], f"no request goes from {before} to {after}"


def _with_change(request: Request, change: StateChange) -> tuple[StateChange, ...]:
    """Return the life of a request with one more state; the middle of a long one is left out."""
    history = (*request.history, change)
    if len(history) <= HISTORY_BEGIN + HISTORY_END:
        return history
    return history[:HISTORY_BEGIN] + history[-HISTORY_END:]
