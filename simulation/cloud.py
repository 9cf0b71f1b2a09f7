"""The simulated AWS: queues, SageMaker, and the events between them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from simulation.clock import Agenda
from simulation.trouble import Crash, Trouble
from trainyard.application.ports import ExecutionReport
from trainyard.domain.errors import QuotaReached, StartDelayed, StartInvalid
from trainyard.domain.executions import JobFacts, StepFacts
from trainyard.domain.failures import FailureCause
from trainyard.domain.names import parse_display_name
from trainyard.domain.prices import JobKind

TOKEN_MEMORY = timedelta(minutes=20)
"""How long SageMaker remembers a client token: the shortest time that our protocol tolerates."""
LIST_LAG = timedelta(minutes=4)
SKEW = timedelta(minutes=5)

RECEIVES_MAX = 8
BY_HAND = "arn:by-hand/"
VISIBILITY = 180.0


@dataclass
class Message:
    body: Any
    visible_at: datetime
    receives: int = 0
    deleted: bool = False


@dataclass
class Queue:
    """A standard queue: at least once, in any order, with a dead-letter queue."""

    name: str
    agenda: Agenda
    trouble: Trouble
    consume: Callable[[list[Any]], set[int]]
    """Handles a batch; returns the positions of those that failed."""
    messages: list[Message] = field(default_factory=list)
    dead: list[Message] = field(default_factory=list)
    planned: datetime | None = None

    def send(self, body: Any) -> None:
        delay = self.trouble.random.uniform(0.01, 0.2)
        if self.trouble.strikes("message delayed", 0.05):
            delay = self.trouble.random.uniform(1, 600)
        copies = 2 if self.trouble.strikes("message doubled", 0.05) else 1
        for _ in range(copies):
            self.messages.append(Message(body, self.agenda.now + timedelta(seconds=delay)))
        self._plan()

    def _plan(self) -> None:
        """Plan the next delivery."""
        if not self.messages:
            return
        when = max(min(message.visible_at for message in self.messages), self.agenda.now)
        if self.planned is None or when < self.planned:
            self.planned = when
            self.agenda.at(when, lambda: self._deliver(when))

    def _deliver(self, planned: datetime) -> None:
        if self.planned == planned:
            self.planned = None
        visible = [message for message in self.messages if message.visible_at <= self.agenda.now]
        if self.trouble.active:
            self.trouble.random.shuffle(visible)
        batch = visible[:10]
        for message in batch:
            message.receives += 1
            message.visible_at = self.agenda.now + timedelta(seconds=VISIBILITY)
        if batch:
            self._handle(batch)
        self._plan()

    def _handle(self, batch: list[Message]) -> None:
        try:
            failed = self.consume([message.body for message in batch])
        except (Crash, Exception):  # the whole batch is redelivered
            failed = set(range(len(batch)))
        for number, message in enumerate(batch):
            if number not in failed and not self.trouble.strikes("message delivered again", 0.03):
                message.deleted = True
            elif message.receives >= RECEIVES_MAX:
                message.deleted = True
                self.dead.append(message)
                self.trouble.counts["dead letter"] += 1
        self.messages = [message for message in self.messages if not message.deleted]

    def redrive(self) -> None:
        for message in self.dead:
            self.messages.append(Message(message.body, self.agenda.now))
        self.dead.clear()
        self._plan()


@dataclass(frozen=True)
class SimulatedJob:
    """One of an execution's jobs, which run one after the other."""

    step: str
    kind: JobKind
    instance_type: str
    instance_count: int
    volume_gb: int
    seconds: int
    """How long it runs unless it is stopped, and waits before that."""
    waits: int | None = None
    """Seconds that it waits for spot capacity; None for a job on demand."""

    def billable(self, seconds: int) -> int:
        """Return the billable seconds of so many: on spot capacity fewer than it trained, and none for waiting."""
        return seconds if self.waits is None else max(seconds - self.waits, 0) * 3 // 10


@dataclass
class Execution:
    arn: str
    name: str
    token: str
    tenant_id: str
    tier: str
    started_at: datetime
    ends_at: datetime
    description: str
    end: str
    """The status in which it will end."""
    status: str = "Executing"
    failure: str | None = None
    interrupted: bool = False
    """Whether it ends because spot capacity was taken away."""
    jobs: tuple["SimulatedJob", ...] = ()

    def selected(self, now: datetime) -> str | None:
        """Return the instance type on which it trains; None until its training begins."""
        return next(
            (job.instance_type for job, begin, _ in used(self) if job.step == "train" and begin <= now), None
        )

    @property
    def alive(self) -> bool:
        return self.status in ("Executing", "Stopping")


@dataclass
class SageMaker:
    """Implements Executions and ExecutionReports, and sends events when the status of an execution changes."""

    agenda: Agenda
    trouble: Trouble
    quota: int
    run: Callable[[dict[str, str], Execution], None]
    """Decides how long an execution lasts, how it ends and what it costs."""
    tell: Callable[[Execution], None]
    executions: dict[str, Execution] = field(default_factory=dict)
    by_name: dict[str, list[Execution]] = field(default_factory=dict)
    by_token: dict[str, Execution] = field(default_factory=dict)
    unmanaged: int = 0
    retried: dict[str, datetime] = field(default_factory=dict)
    """Executions that were retried by hand → when they end."""
    changed: Callable[[Execution], None] = lambda _: None

    def start(self, *, name: str, token: str, description: str, parameters: dict[str, str]) -> str:
        known = self.by_token.get(token)
        if known is not None and self.agenda.now - known.started_at < TOKEN_MEMORY:
            # Whether SageMaker looks at its limits before it looks at the token is not documented.
            if self.trouble.strikes("refused although its token is known", 0.1):
                raise QuotaReached("ResourceLimitExceeded: simulated")
            self.trouble.counts["token deduplicated"] += 1
            return known.arn
        by_hand = self.unmanaged + len(self._still_retried())
        if sum(e.alive for e in self.executions.values()) + by_hand >= self.quota:
            self.trouble.counts["quota reached"] += 1
            raise QuotaReached("ResourceLimitExceeded: simulated")
        if self.trouble.strikes("start refused for now", 0.01):
            raise StartDelayed("ConflictException: simulated")
        if self.trouble.strikes("start refused for good", 0.003):
            raise StartInvalid("ValidationException: simulated")
        return self._begin(name, token, description, parameters)

    def _begin(self, name: str, token: str, description: str, parameters: dict[str, str]) -> str:
        execution = Execution(
            arn=f"arn:execution/{len(self.executions)}",
            name=name,
            token=token,
            tenant_id=parameters["TenantId"],
            tier=parameters["TierName"],
            started_at=self.agenda.now,
            ends_at=self.agenda.now,
            description=description,
            end="Succeeded",
        )
        self.run(parameters, execution)
        self.executions[execution.arn] = self.by_token[token] = execution
        self.by_name.setdefault(name, []).append(execution)
        self.agenda.at(execution.ends_at, lambda: self._finish(execution, execution.end))
        self.changed(execution)
        self.tell(execution)
        return execution.arn

    def _finish(self, execution: Execution, status: str) -> None:
        if execution.alive:
            execution.status = status
            execution.ends_at = self.agenda.now
            self.changed(execution)
            self.tell(execution)

    def started(self, *, since: datetime) -> dict[str, str]:
        return {e.name: e.arn for e in self.executions.values() if self._listed(e, since)}

    def running(self, *, since: datetime) -> dict[str, str]:
        ours = {e.arn: e.name for e in self.executions.values() if e.alive and self._listed(e, since)}
        ours |= {arn: self.executions[arn].name for arn in self._still_retried()}
        return ours | {f"{BY_HAND}{number}": "by-hand" for number in range(self.unmanaged)}

    def _still_retried(self) -> list[str]:
        return [arn for arn, until in self.retried.items() if until > self.agenda.now]

    def _listed(self, execution: Execution, since: datetime) -> bool:
        late = self.agenda.now - execution.started_at < LIST_LAG and self.trouble.strikes("listed late", 0.5)
        return execution.started_at >= since - SKEW and not late

    def status(self, execution_arn: str) -> str:
        if execution_arn.startswith(BY_HAND):
            runs = int(execution_arn.removeprefix(BY_HAND)) < self.unmanaged
            return "Executing" if runs else "Succeeded"
        if execution_arn in self._still_retried():
            return "Executing"
        return self.executions[execution_arn].status

    def stop(self, execution_arn: str) -> None:
        execution = self.executions[execution_arn]
        if execution.status == "Executing":
            execution.status = "Stopping"
            self.agenda.after(20, lambda: self._finish(execution, "Stopped"))

    def read(self, execution_arn: str) -> ExecutionReport:
        """Report what an execution did; soon after its end, the report is sometimes incomplete."""
        execution = self.executions[execution_arn]
        steps: list[StepFacts] = []
        for job, begin, seconds in used(execution):
            steps.append(_facts(execution, job, begin, seconds))
        fresh = self.agenda.now - execution.ends_at < timedelta(minutes=3)
        if steps and fresh and self.trouble.strikes("report incomplete", 0.2):
            job_facts = steps[-1].job
            assert job_facts is not None
            late = replace(job_facts, status="InProgress", ended_at=None, billable_seconds=None)
            steps[-1] = replace(steps[-1], job=late)
        return ExecutionReport(
            steps=tuple(steps),
            started_at=execution.started_at,
            ended_at=execution.ends_at,
            failed_step="train" if execution.failure else None,
            failure=execution.failure,
            cause=FailureCause.INTERRUPTION if execution.interrupted else None,
            status=execution.status,
        )

    def selected(self, execution_arn: str) -> str | None:
        """Report the instance type that was selected; sometimes nothing yet, though it was."""
        if self.trouble.strikes("selection reported late", 0.3):
            return None
        return self.executions[execution_arn].selected(self.agenda.now)

    def alive(self) -> list[Execution]:
        return [e for e in self.executions.values() if e.alive and parse_display_name(e.name)]


def used(execution: Execution) -> Iterator[tuple[SimulatedJob, datetime, int]]:
    """Yield the jobs that started, their starts, and their seconds until the end of the execution at most."""
    begin = execution.started_at
    for job in execution.jobs:
        seconds = min(job.seconds, int((execution.ends_at - begin).total_seconds()))
        if seconds <= 0:
            return
        yield job, begin, seconds
        begin += timedelta(seconds=seconds)


def _facts(execution: Execution, job: SimulatedJob, begin: datetime, seconds: int) -> StepFacts:
    training = job.kind is JobKind.TRAINING
    return StepFacts(
        name=job.step,
        kind=job.kind.value.capitalize(),
        status="Succeeded",
        job=JobFacts(
            kind=job.kind,
            arn=f"{execution.arn}/{job.step}",
            status="Stopped" if training and execution.interrupted else "Completed",
            instance_type=job.instance_type,
            instance_count=job.instance_count,
            volume_gb=job.volume_gb,
            started_at=begin,
            ended_at=begin + timedelta(seconds=seconds),
            billable_seconds=job.billable(seconds) if training else None,
            spot=job.waits is not None,
        ),
    )
