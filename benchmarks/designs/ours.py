"""Trainyard: its own use cases over the store in memory, invoked as the template wires them.

Requests and ends are collected for a second and processed in batches; the bell and the ledger's stream wake the
dispatcher, one pass at a time; the timer wakes it every minute. The reconciler looks for missed ends every minute
and recounts every five.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from benchmarks.harness import Execution, Harness, Message, Queue
from simulation.flow import Job, submission_of
from testing.memory_ports import (
    MemoryTenants,
)
from testing.memory_store import INDEXES, KEYS_ONLY, MemoryStore
from testing.service import Service, policies_in_force
from trainyard.adapters.aws.queues import SqsRedelivery
from trainyard.application.ports import ExecutionReport
from trainyard.application.scheduling.record import StatusEvent
from trainyard.domain.algorithms import InstanceChoice
from trainyard.domain.errors import Conflict, OutcomeUnknown, Throttled
from trainyard.domain.executions import JobFacts, StepFacts
from trainyard.domain.policy import Policy
from trainyard.domain.prices import JobKind
from trainyard.domain.requests import Submission
from trainyard.domain.tenants import Tenant, TenantState, TrainingSettings
from trainyard.persistence.bell import BELL, BellRing, Hint, bell_ring_from, ring, wakes_dispatcher
from trainyard.persistence.store import Item, Key, Page, Write

LOCAL = ("ready",)
"""Indexes that share their table's partitions."""
WINDOW_SECONDS = 1.0
STREAM_SECONDS = 0.25
CHOICE = InstanceChoice(
    data_mb_max=1000,
    processing_instance_type="ml.t3.medium",
    training_instance_types=("ml.m5.large",),
    training_instance_count=1,
    training_volume_gb=30,
)


@dataclass
class Metered:
    """A store whose calls take time, are counted, and are billed as DynamoDB bills them."""

    store: MemoryStore
    harness: Harness
    read_units: float = 0.0
    write_units: float = 0.0
    written: Callable[[Key, float], None] = lambda _key, _units: None
    """Called with each write and the write units that it uses in its partition."""

    def get(self, *keys: Key) -> list[Item | None]:
        operation = "dynamodb:GetItem" if len(keys) == 1 else "dynamodb:BatchGetItem"
        self.read_units += len(keys)  # consistent, of 4 KB at most
        return list(self.harness.call(operation, lambda: self.store.get(*keys)))

    def query(self, index: str, partition: str, **options: Any) -> Page:
        before = self.store.bytes_queried
        page: Page = self.harness.call("dynamodb:Query", lambda: self.store.query(index, partition, **options))
        self.read_units += max(1.0, (self.store.bytes_queried - before) / 4096)
        return page

    def transact(self, writes: Sequence[Write]) -> None:
        """Write; each item is billed twice at its larger size before or after, its index entries once."""
        before = [(self.store.items.get(write.key), self._kilobytes(write.key)) for write in writes]
        self.harness.call("dynamodb:TransactWriteItems", lambda: self.store.transact(writes))
        for write, (item, kilobytes) in zip(writes, before, strict=True):
            table = 2 * max(kilobytes, self._kilobytes(write.key), 1)
            local, others = self._of_indexes(write.key, item, kilobytes)
            self.write_units += table + local + others
            self.written(write.key, table + local)

    def _kilobytes(self, key: Key) -> int:
        return -(-self.store.bytes_of.get(key, 0) // 1024)

    def _of_indexes(self, key: Key, before: Item | None, kilobytes: int) -> tuple[int, int]:
        """Return the write units of an item's index entries: in the local index, in the others.

        An entry whose keys change is deleted and put; one that stays is billed if its content changes
        (DynamoDB developer guide, "Write capacity units" of secondary indexes).
        """
        after = self.store.items.get(key)
        units = {True: 0, False: 0}
        for name, (table, *names) in INDEXES.items():
            if table != key.table or name == table:
                continue
            old, new = _index_key(key, before, names), _index_key(key, after, names)
            old_size, new_size = (1, 1) if name in KEYS_ONLY else (kilobytes, self._kilobytes(key))
            if old == new:
                units[name in LOCAL] += max(old_size, new_size) if old and name not in KEYS_ONLY else 0
            else:
                units[name in LOCAL] += (old_size if old else 0) + (new_size if new else 0)
        return units[True], units[False]


class Poller(NamedTuple):
    """An event source mapping."""

    name: str
    queue: Queue
    most: int
    handle: Callable[[list[Any]], set[int]]


@dataclass
class Ours:
    """Implements Executions and ExecutionReports too."""

    harness: Harness
    policy: Policy
    tenants: Sequence[tuple[str, str]]
    """Tenant and tier."""
    rings: list[BellRing] = field(default_factory=list)
    woken: bool = False
    planned: dict[str, datetime] = field(default_factory=dict)
    free_at: dict[str, datetime] = field(default_factory=dict)
    """Function → when it can be invoked again."""

    def __post_init__(self) -> None:
        harness = self.harness
        self.memory = MemoryStore()
        self.memory.clock = self.clock
        self.memory.stream = self.streamed
        self.store = Metered(self.memory, harness)
        self.jobs: dict[str, Job] = {}
        self.queues = {tier.name: Queue(harness, 370.0) for tier in self.policy.tiers}
        self.status_queue = Queue(harness, 370.0)
        tenants = [tenant_named(name, tier) for name, tier in self.tenants]
        service = Service(
            store=self.store,
            policies=policies_in_force(self.store, self.policy),
            tenants=MemoryTenants(*tenants, store=self.memory),
            bell=self,
            executions=self,
            reports=self,
            backoff=self.rest,
            parallel_map=harness.parallel_map,
        )
        self.scheduler, self.enlist, self.dispatch = service.scheduler, service.enlist, service.dispatch
        self.record, self.reconciler = service.record, replace(service.reconcile, parallel_map=map)
        harness.ended = self.end
        harness.every(60.0, lambda: self._pass(sweep=True))
        harness.every(60.0, self._find_ends)
        harness.every(300.0, self._reconcile)

    def clock(self) -> float:
        return self.harness.now.timestamp()

    # --- wiring ---------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        self.jobs[job.request_id] = job
        queue = self.queues[job.tier]
        queue.send(submission_of(job, self.harness.now))
        self._plan(Poller(job.tier, queue, 100, self._enlist), WINDOW_SECONDS)

    def end(self, execution: Execution) -> None:
        event = StatusEvent(
            display_name=execution.name,
            status="Succeeded",
            execution_arn=execution.arn,
            description=execution.description,
        )
        self.status_queue.send(event)
        self._plan(Poller("status", self.status_queue, 100, self._settle), WINDOW_SECONDS)

    def _plan(self, poller: "Poller", seconds: float) -> None:
        """Let Lambda poll a queue after some seconds, unless it polls before."""
        when = self.harness.agenda.now + timedelta(seconds=seconds)
        if self.planned.get(poller.name, when) >= when:
            self.planned[poller.name] = when
            self.harness.agenda.at(when, lambda: self._take(poller, when))

    def _take(self, poller: "Poller", planned: datetime) -> None:
        """Process a batch, one invocation at a time; failed messages are redelivered when they are visible."""
        if self.planned.get(poller.name) != planned:
            return
        del self.planned[poller.name]
        now, queue, name = self.harness.agenda.now, poller.queue, poller.name
        if self.free_at.get(name, now) > now:
            self._plan(poller, (self.free_at[name] - now).total_seconds())
            return
        batch = queue.receive(poller.most)
        if not batch:
            return
        failed = set(range(len(batch)))

        def invoke() -> None:
            nonlocal failed
            found = failed
            with suppress(Conflict, Throttled, OutcomeUnknown):
                found = poller.handle([message.body for message in batch])
            self._come_soon([batch[number] for number in found])
            failed = found

        took = self.harness.invoke(invoke)
        self.free_at[name] = now + timedelta(seconds=took)
        for number, message in enumerate(batch):
            if number not in failed:
                queue.drop(message)
        if queue.messages:
            visible = (min(message.visible_at for message in queue.messages) - now).total_seconds()
            self._plan(poller, max(visible, took))

    def _come_soon(self, failed: list[Message]) -> None:
        """Make failed messages visible earlier, as the functions do, unless that call fails."""
        early = [message for message in failed if message.received <= len(SqsRedelivery.SECONDS)]

        def change(some: list[Message]) -> None:
            for message in some:
                seconds = SqsRedelivery.SECONDS[message.received - 1] * self.harness.random.uniform(0.5, 1.5)
                message.visible_at = self.harness.now + timedelta(seconds=seconds)

        with suppress(Throttled, OutcomeUnknown):
            for begin in range(0, len(early), 10):
                some = early[begin : begin + 10]
                self.harness.call("sqs:ChangeMessageVisibilityBatch", lambda some=some: change(some))  # type: ignore[misc]

    def _enlist(self, batch: list[Submission]) -> set[int]:
        results = self.enlist.enlist_batch(batch, self.harness.now)
        return {number for number, result in enumerate(results) if isinstance(result, Exception)}

    def _settle(self, batch: list[StatusEvent]) -> set[int]:
        results = self.record.settle(batch, self.harness.now)
        return {number for number, result in enumerate(results) if isinstance(result, Exception)}

    def streamed(self, key: Key, item: Item) -> None:
        if not wakes_dispatcher(key, item):
            return
        if key == BELL:
            self.rings.append(bell_ring_from(item))
        if not self.woken:
            self.woken = True
            self.harness.agenda.at(self.harness.now + timedelta(seconds=STREAM_SECONDS), self._woken)

    def _woken(self) -> None:
        now = self.harness.agenda.now
        if self.free_at.get("dispatch", now) > now:
            self.harness.agenda.at(self.free_at["dispatch"], self._woken)
            return
        self.woken = False
        took = self.harness.invoke(lambda: self._pass(sweep=False))
        self.free_at["dispatch"] = now + timedelta(seconds=took)

    def _pass(self, *, sweep: bool) -> None:
        rings, self.rings = self.rings, []
        limit = self.harness.spent + 35.0
        self.dispatch.run_pass(
            self.harness.now, rings=rings, sweep=sweep, out_of_time=lambda: self.harness.spent > limit
        )

    def _find_ends(self) -> None:
        self.reconciler.find_ends(self.harness.now)

    def _reconcile(self) -> None:
        self.reconciler.run(self.harness.now)

    def rest(self, number: int) -> None:
        self.harness.spent += 0.01 * 2**number

    # --- ports ----------------------------------------------------------------------------------------------

    def ring(self, hints: Sequence[Hint] = ()) -> None:
        self.harness.call(
            "dynamodb:UpdateItem",
            lambda: self.memory.transact([ring(hints)]),
        )
        self.store.write_units += 1
        self.store.written(BELL, 1)

    def ring_at(self, when: datetime, now: datetime, hints: Sequence[Hint] = ()) -> None:
        self.harness.call("sqs:SendMessage")
        self.harness.agenda.at(max(when, self.harness.now), lambda: self._ring_now(hints))

    def _ring_now(self, hints: Sequence[Hint]) -> None:
        self.harness.invoke(lambda: self.ring(hints))

    def start(self, *, name: str, token: str, description: str, parameters: dict[str, str]) -> str:
        return self.harness.start(name, token, self.jobs[parameters["RequestId"]], description).arn

    def status(self, execution_arn: str) -> str:
        return "Succeeded" if self.harness.describe(self._execution(execution_arn)) else "Executing"

    def running(self, *, since: datetime) -> dict[str, str]:
        return {e.arn: e.name for e in self.harness.listed(since) if e.runs_at(self.harness.agenda.now)}

    def started(self, *, since: datetime) -> dict[str, str]:
        return {e.name: e.arn for e in self.harness.listed(since)}

    def stop(self, execution_arn: str) -> None:
        raise AssertionError("nothing is stopped here")

    def selected(self, execution_arn: str) -> str | None:
        return None

    def read(self, execution_arn: str) -> ExecutionReport:
        """Report an execution, for its cost; the comparison leaves this call out."""
        execution = self._execution(execution_arn)
        return report_of(execution_arn, execution.begins, max(int(execution.job.seconds), 1))

    def _execution(self, arn: str) -> Execution:
        return self.harness.executions[int(arn.rpartition("/")[2])]

    # --- what is left ---------------------------------------------------------------------------------------

    def waiting(self) -> int:
        requests = {k.values[0][1]: item for k, item in self.memory.items.items() if k.table == "requests"}
        queued = sum(item["state"] == "QUEUED" for item in requests.values())
        sent: set[str] = {message.body.request_id for queue in self.queues.values() for message in queue.messages}
        return int(queued) + len(sent - requests.keys())

    def leaked(self) -> int:
        ledger = self.scheduler.tables.ledger.read()
        return self.harness.amiss({tier.name: ledger.used_of_tier(tier.name) for tier in self.policy.tiers})


def _index_key(key: Key, item: Item | None, names: Sequence[str]) -> tuple[str, ...]:
    """Return an item's keys in an index; none if the index does not contain it."""
    values = {} if item is None else {**item, **dict(key.values)}
    return tuple(values[name] for name in names) if all(name in values for name in names) else ()


def tenant_named(name: str, tier: str) -> Tenant:
    return Tenant(
        tenant_id=name,
        state=TenantState.ACTIVE,
        tier=tier,
        bucket=f"bucket-{name}",
        root="",
        role_arn="arn:role",
        model_group="group",
        settings=TrainingSettings(algorithm="linear", target="y"),
    )


def report_of(execution_arn: str, begins: datetime, seconds: int) -> ExecutionReport:
    """Return SageMaker's report of an execution with one training job of this duration."""
    ends = begins + timedelta(seconds=seconds)
    job = JobFacts(
        kind=JobKind.TRAINING,
        arn=execution_arn,
        status="Completed",
        instance_type="ml.m5.large",
        instance_count=1,
        volume_gb=30,
        started_at=begins,
        ended_at=ends,
        billable_seconds=seconds,
    )
    step = StepFacts(name="train", kind="Training", status="Succeeded", job=job)
    return ExecutionReport(steps=(step,), started_at=begins, ended_at=ends)
