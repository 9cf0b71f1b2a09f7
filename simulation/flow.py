"""Flow: training requests through the real scheduler and the real `decide`, without faults.

It is used for what-if questions and fairness measurements: arrivals and durations are given, and the service's own
code decides which request starts when.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count

from simulation.clock import BEGIN
from testing.memory_store import MemoryStore
from testing.service import scheduler_over
from trainyard.application.scheduling.completion import End
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.admission import decide
from trainyard.domain.estimates import PastRun
from trainyard.domain.policy import Policy
from trainyard.domain.requests import Cause, Content, Request, State, Submission
from trainyard.domain.scheduling import Plan
from trainyard.domain.windows import LOOK_BACK
from trainyard.persistence.run_history import keep_ratio, past_key, ratios_key, remember
from trainyard.persistence.store import Write

MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Job:
    """A training request with its arrival and its actual duration."""

    number: int
    arrives: float
    """Seconds since the beginning, like all times here."""
    tenant_id: str
    tier: str
    seconds: float
    size_mb: float = 1.0
    data_set: str = ""
    """Jobs of one data set are all trained on, and its history is kept; empty for one without history."""
    ready_by: float | None = None
    """When its model is to be ready; None for no deadline."""

    @property
    def request_id(self) -> str:
        return f"{self.number:032x}"


@dataclass(slots=True)
class Run:
    """The execution of a job."""

    job: Job
    starts: float
    ends: float
    instances: int
    borrowed: bool
    backfilled: bool
    above_cap: bool
    turn: int
    """The number of its admission, counted from 0."""

    @property
    def waited(self) -> float:
        return self.starts - self.job.arrives

    @property
    def met(self) -> bool | None:
        """Whether it ended before its deadline; None without one."""
        return None if self.job.ready_by is None else self.ends <= self.job.ready_by


@dataclass
class Flow:
    policy: Policy
    engine: Callable[..., Plan] = decide
    scheduler: Scheduler = field(default_factory=lambda: scheduler_over(MemoryStore()))
    runs: list[Run] = field(default_factory=list)
    refused: list[Job] = field(default_factory=list)
    """Jobs that were not admitted in the time given."""
    begin: datetime = BEGIN
    """The time of second 0."""

    def __post_init__(self) -> None:
        self.policy = replace(self.policy, version=0)

    def run(self, jobs: Sequence[Job], *, until: float = float("inf")) -> list[Run]:
        """Let all jobs arrive and run; return the executions in the order of their starts."""
        numbers = count()
        events: list[tuple[float, int, Job | str]] = [(job.arrives, next(numbers), job) for job in jobs]
        heapq.heapify(events)
        known = {job.request_id: job for job in jobs}
        started: set[str] = set()
        last = 0.0
        while events and events[0][0] <= until:
            now = events[0][0]
            while events and events[0][0] <= now:
                event = heapq.heappop(events)[2]
                self._happen(event, now, known)
                last = now if event else last
            for run in self._dispatch(now, known):
                started.add(run.job.request_id)
                heapq.heappush(events, (run.ends, next(numbers), run.job.request_id))
                last = now
            # Limits change for ever: what no change has let go in so long never starts.
            if self.again is not None and (events or now < last + LOOK_BACK.total_seconds()):
                heapq.heappush(events, (max(self.again, now + 0.001), next(numbers), ""))
        self.refused = [job for job in jobs if job.request_id not in started]
        return self.runs

    again: float | None = None
    """The next time at which requests can start without another event."""

    def _happen(self, event: Job | str, now: float, known: dict[str, Job]) -> None:
        if isinstance(event, Job):
            submission = submission_of(event, self._time(event.arrives), self.begin)
            self.scheduler.enlister.enlist(submission, self.policy, self._time(now))
        elif event:
            (request,) = self.scheduler.tables.requests.get_all([event])
            self.scheduler.completer.finish(
                [End(request=request, state=State.SUCCEEDED)], self.policy, self._time(now)
            )
            if known[event].data_set:
                self._remember(request, known[event])

    def _time(self, seconds: float) -> datetime:
        return self.begin + timedelta(seconds=seconds)

    def _remember(self, request: Request, job: Job) -> None:
        """Add a run to the history of its data set, as recording its execution would."""
        key = past_key(request.tenant_id, request.data_set)
        (item,) = self.scheduler.tables.store.get(key)
        run = PastRun(int(job.seconds), int(job.seconds), Decimal(0), request.data_bytes, request.profile)
        (ratios,) = self.scheduler.tables.store.get(ratios_key(request.tier))
        expected = request.expected.seconds if request.expected else 0
        writes: list[Write] = [
            remember(key, [run], item),
            *([keep_ratio(request.tier, job.seconds, expected, ratios)] if expected else []),
        ]
        self.scheduler.tables.store.transact(writes)

    def _dispatch(self, now: float, known: dict[str, Job]) -> Iterable[Run]:
        found: list[Run] = []
        while True:
            read_set = self.scheduler.admitter.read(self.policy, self._time(now))
            snapshot = read_set.snapshot
            plan = self.engine(snapshot, read_set.policy, self._time(now))
            times = [when for when in (plan.again_at, read_set.policy.changes_at) if when is not None]
            self.again = (min(times) - self.begin).total_seconds() if times else None
            if not plan.admissions:
                if dict(plan.capacity_holds) != dict(snapshot.ledger.capacity_holds):
                    self.scheduler.tables.ledger.note_capacity_holds(plan, snapshot.ledger)
                return found
            committed = self.scheduler.admitter.commit(plan, read_set, read_set.policy, self._time(now))
            for decision in committed.admissions:
                job = known[decision.entry.request_id]
                run = Run(
                    job,
                    now,
                    now + job.seconds,
                    int(decision.entry.profile.split(" ")[2]),
                    decision.borrowed,
                    decision.backfilled,
                    decision.above_cap,
                    len(self.runs),
                )
                self.runs.append(run)
                found.append(run)


def submission_of(job: Job, arrived_at: datetime, begin: datetime = BEGIN) -> Submission:
    """Return the submission for a job; `begin` is second 0 of its deadline."""
    return Submission(
        request_id=job.request_id,
        tenant_id=job.tenant_id,
        tier=job.tier,
        data_set=job.data_set or f"set-{job.number}",
        alone=bool(job.data_set),
        deadline=None if job.ready_by is None else begin + timedelta(seconds=job.ready_by),
        content=Content(
            bucket=f"bucket-{job.tenant_id}",
            key=f"incoming/set-{job.number}/data.csv",
            version_id="v1",
            etag=f"{job.number:032x}",
            sequencer="",
            size_bytes=int(job.size_mb * MB),
            event_time=arrived_at,
        ),
        cause=Cause.UPLOAD,
    )
