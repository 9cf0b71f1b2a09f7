"""The test bed of all designs: virtual time, a simulated SageMaker and SQS, latencies and faults.

An invocation happens at one moment of the agenda; its calls take time: what it starts begins later by that time,
it is not free again before, and what it reads is as it was at its beginning. Calls are counted by AWS operation.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from simulation.clock import BEGIN, Agenda
from simulation.flow import Job
from trainyard.domain.errors import OutcomeUnknown, Throttled

LATENCY = {
    "sagemaker:StartPipelineExecution": 0.150,
    "sagemaker:ListPipelineExecutions": 0.120,
    "sagemaker:DescribePipelineExecution": 0.060,
    "batch:SubmitServiceJob": 0.060,
    "dynamodb:GetItem": 0.004,
    "dynamodb:BatchGetItem": 0.010,
    "dynamodb:Query": 0.008,
    "dynamodb:UpdateItem": 0.006,
    "dynamodb:TransactWriteItems": 0.020,
    "sqs:ReceiveMessage": 0.012,
    "sqs:DeleteMessage": 0.010,
    "sqs:SendMessage": 0.010,
    "sqs:ChangeMessageVisibilityBatch": 0.010,
}
"""Seconds, about what these calls take within a Region; assumptions, the same for all designs."""

SETTLED = timedelta(seconds=60)
"""Within this time after an execution's end, its slot should be free: the slowest design polls every 30 s."""

EVENT_SECONDS = (0.3, 1.5)
"""From a change of an execution's status to the arrival of the event."""


class Crash(BaseException):
    """The invocation is killed."""


@dataclass(frozen=True)
class Faults:
    """Shares of calls and of events with faults."""

    throttled: float = 0.0
    """Refused, without effect."""
    unanswered: float = 0.0
    """Executed, but the response is lost."""
    crashed: float = 0.0
    """The caller is killed after the call."""
    events_lost: float = 0.0
    events_doubled: float = 0.0
    messages_doubled: float = 0.0


CALM = Faults()
TROUBLED = Faults(0.01, 0.01, 0.003, 0.02, 0.02, 0.01)


@dataclass
class Execution:
    """A pipeline execution of a job."""

    arn: str
    name: str
    job: Job
    begins: datetime
    ends: datetime
    description: str = ""

    def runs_at(self, now: datetime) -> bool:
        return self.begins <= now < self.ends


@dataclass
class Message:
    body: Any
    visible_at: datetime
    deleted: bool = False
    received: int = 0


@dataclass
class Harness:
    """The environment in which the designs run."""

    faults: Faults
    seed: int
    agenda: Agenda = field(default_factory=Agenda)
    calls: Counter[str] = field(default_factory=Counter)
    spent: float = 0.0
    """Seconds of the current invocation."""
    invocations: int = 0
    busy: float = 0.0
    """Seconds of all invocations."""
    executions: list[Execution] = field(default_factory=list)
    ended: Callable[[Execution], None] = lambda _: None
    """Called for each end by an event, which may be lost or duplicated."""
    running: Counter[str] = field(default_factory=Counter)
    """Tier → executions; "" → all."""
    peaks: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = Random(f"yard {self.seed}")
        self._by_token: dict[str, Execution] = {}
        self.troubled = self.faults != CALM

    # --- time and calls -----------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The time of the current invocation."""
        return self.agenda.now + timedelta(seconds=self.spent)

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return (self.now - BEGIN).total_seconds()

    def invoke(self, do: Callable[[], Any]) -> float:
        """Run an invocation now, and return its duration; it may crash or fail."""
        before, self.spent = self.spent, 0.0
        try:
            do()
        except (Crash, Throttled, OutcomeUnknown):
            pass
        finally:
            took, self.spent = self.spent, before
        self.invocations += 1
        self.busy += took
        return took

    def call(self, operation: str, effect: Callable[[], Any] = lambda: None, times: int = 1) -> Any:
        """Call AWS; sometimes raises Throttled, OutcomeUnknown or Crash."""
        self.calls[operation] += times
        self.spent += LATENCY[operation] * times
        if not self.troubled:
            return effect()
        draw, faults = self.random.random(), self.faults
        if draw < faults.throttled:
            raise Throttled("simulated")
        done = effect()
        if draw < faults.throttled + faults.unanswered:
            raise OutcomeUnknown("simulated")
        if draw < faults.throttled + faults.unanswered + faults.crashed:
            raise Crash
        return done

    def parallel_map(self, do: Callable[[Any], Any], each: Iterable[Any]) -> list[Any]:
        """Do something for each element, eight at a time."""
        begin, profiles, results = self.spent, [self.spent] * 8, []
        for one in each:
            profile = profiles.index(min(profiles))
            self.spent = profiles[profile]
            results.append(do(one))
            profiles[profile] = self.spent
        self.spent = max(profiles, default=begin)
        return results

    def every(self, seconds: float, do: Callable[[], None]) -> None:
        """Invoke something at regular intervals, whether or not the last invocation has ended."""

        def tick() -> None:
            self.agenda.after(seconds, tick)
            self.invoke(do)

        self.agenda.after(seconds, tick)

    def run_until(self, seconds: float) -> None:
        end = BEGIN + timedelta(seconds=seconds)
        while (upcoming := self.agenda.next_at()) is not None and upcoming <= end:
            self.agenda.step()
        self.agenda.now = max(self.agenda.now, end)

    # --- SageMaker ----------------------------------------------------------------------------------------

    def start(self, name: str, token: str, job: Job, description: str = "") -> Execution:
        """StartPipelineExecution; the same token starts nothing a second time."""
        found: Execution = self.call(
            "sagemaker:StartPipelineExecution", lambda: self._begin(name, token, job, description)
        )
        return found

    def _begin(self, name: str, token: str, job: Job, description: str) -> Execution:
        if token in self._by_token:
            return self._by_token[token]
        ends = self.now + timedelta(seconds=job.seconds)
        arn = f"arn/{len(self.executions)}"
        execution = Execution(arn, name, job, self.now, ends, description)
        self.executions.append(execution)
        self._by_token[token] = execution
        self.agenda.at(execution.begins, lambda: self._count(execution, 1))
        self.agenda.at(execution.ends, lambda: self._end(execution))
        return execution

    def _count(self, execution: Execution, change: int) -> None:
        for name in ("", execution.job.tier):
            self.running[name] += change
            self.peaks[name] = max(self.peaks[name], self.running[name])

    def amiss(self, held: Mapping[str, int]) -> int:
        """Return by how much the slots held by tier differ from executions that run or have just ended."""
        now = self.agenda.now
        recent = Counter(e.job.tier for e in self.executions[-4000:] if now - SETTLED < e.ends <= now)
        over = sum(max(held[tier] - self.running[tier] - recent[tier], 0) for tier in held)
        return over + sum(max(self.running[tier] - held[tier], 0) for tier in held)

    def _end(self, execution: Execution) -> None:
        self._count(execution, -1)
        if self.troubled and self.random.random() < self.faults.events_lost:
            return
        copies = 2 if self.troubled and self.random.random() < self.faults.events_doubled else 1
        for _ in range(copies):
            self.agenda.after(self.random.uniform(*EVENT_SECONDS), lambda: self.ended(execution))

    def listed(self, since: datetime) -> list[Execution]:
        """ListPipelineExecutions, a page of a hundred at a time: all that began since a time."""
        found = [e for e in self.executions if since <= e.begins <= self.agenda.now]
        self.call("sagemaker:ListPipelineExecutions", times=max(1, -(-len(found) // 100)))
        return found

    def describe(self, execution: Execution) -> bool:
        """DescribePipelineExecution; tells whether the execution has ended."""
        return bool(self.call("sagemaker:DescribePipelineExecution", lambda: execution.ends <= self.agenda.now))


@dataclass
class Queue:
    """An SQS queue in order of arrival, at least once: messages that are not deleted are redelivered."""

    harness: Harness
    visibility: float
    messages: list[Message] = field(default_factory=list)

    def send(self, body: Any) -> None:
        copies = 1
        if self.harness.troubled and self.harness.random.random() < self.harness.faults.messages_doubled:
            copies = 2
        self.messages += [Message(body, self.harness.now) for _ in range(copies)]

    def receive(self, most: int = 10) -> list[Message]:
        now = self.harness.now
        found: list[Message] = []
        for message in self.messages:
            if message.visible_at <= now:
                found.append(message)
                if len(found) == most:
                    break
        for message in found:
            message.visible_at = now + timedelta(seconds=self.visibility)
            message.received += 1
        return found

    def poll(self, most: int = 10) -> list[Message]:
        """ReceiveMessage of at most ten, by the design itself."""
        found: list[Message] = self.harness.call("sqs:ReceiveMessage", lambda: self.receive(most))
        return found

    def delete(self, message: Message) -> None:
        self.harness.call("sqs:DeleteMessage", lambda: self.drop(message))

    def drop(self, message: Message) -> None:
        if not message.deleted:
            message.deleted = True
            self.messages.remove(message)  # it is one of the first
