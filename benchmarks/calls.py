"""AWS calls for the scheduling of an execution, counted at the AWS SDK.

The use cases run over the local cloud's DynamoDB with the adapters that run on AWS, invoked as the template wires
them: requests and ends in batches of a hundred, and a pass for everything that wakes the dispatcher. Counted are
enlisting, the bell, passes, commits, starts, recording the starts, and ends. Counted separately: receipts,
announcements, manifests and the calls that determine costs. Lambda polls the event sources, which is not counted.
In bursts, a thousand requests of thirty tenants in three tiers wait for a hundred slots, and executions end
together. One by one, each request arrives when no other one waits or runs; then once more with the quiet period of
the shipped policy, at whose end a delayed message rings the bell.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.compare import Load, policy
from benchmarks.designs.ours import report_of, tenant_named
from local.cloud import Cloud
from simulation.flow import Job, submission_of
from testing import memory_ports
from testing.service import Service, policies_in_force
from tests.tables import create_tables
from trainyard.adapters.aws import clients
from trainyard.adapters.aws.store import DynamoStore
from trainyard.adapters.aws.tables import DynamoBell, DynamoTenants
from trainyard.application.ports import ExecutionReport
from trainyard.application.scheduling.record import StatusEvent
from trainyard.domain.names import display_name
from trainyard.domain.requests import Submission
from trainyard.persistence.bell import BELL, BellRing, bell_ring_from, parse_delayed_ring, wakes_dispatcher
from trainyard.persistence.ledger import LEDGER

SLOTS, TENANTS, REQUESTS, ALONE = 100, 30, 1000, 40
QUIET = timedelta(seconds=10)
ENLISTED_AT_ONCE, SETTLED_AT_ONCE = 100, 100
TIERS = ("basic", "standard", "premium")


@dataclass(frozen=True)
class Calls:
    """Per execution."""

    how: str
    executions: int
    scheduling: float
    by_operation: dict[str, float]
    lists: float
    apart: dict[str, float]
    """Port and method → calls per execution."""


class _Counted:
    """A port whose calls are counted separately from scheduling."""

    def __init__(self, port: Any, name: str, counts: Counter[str]) -> None:
        self._port, self._name, self._counts = port, name, counts

    def __getattr__(self, method: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            self._counts[f"{self._name}.{method}"] += 1
            return getattr(self._port, method)(*given, **named)

        return call


@dataclass
class Reports:
    """Implements ExecutionReports: each execution ran one job of a minute."""

    now: datetime

    def read(self, execution_arn: str) -> ExecutionReport:
        return report_of(execution_arn, self.now, 60)


class PromptBell(DynamoBell):
    """Rings without a delay; requests are enlisted with an earlier time instead."""

    DELAY_SECONDS_MAX = 0


@dataclass
class CountedService:
    """The use cases, and the counts."""

    store: DynamoStore
    cloud: Cloud
    quiet: timedelta = timedelta(0)
    apart: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    heard: int = 0
    running: list[Submission] = field(default_factory=list)

    def __post_init__(self) -> None:
        limits = policy(Load(SLOTS, 0.0, [], {"basic": 50, "standard": 30, "premium": 20}))
        limits = replace(limits, quiet_period=self.quiet, delay_max=3 * self.quiet)
        self.sqs = self.cloud.client("sqs")
        self.bells = self.sqs.create_queue(QueueName="bells")["QueueUrl"]
        self.bell = PromptBell(scheduler_table="scheduler", bell_queue_url=self.bells)
        self.executions = memory_ports.MemoryExecutions()
        service = Service(
            store=self.store,
            policies=policies_in_force(self.store, limits),
            tenants=_Counted(DynamoTenants(tenants_table="tenants"), "tenants", self.apart),
            receipts=_Counted(memory_ports.MemoryReceipts(), "receipts", self.apart),
            announcements=_Counted(memory_ports.MemoryAnnouncements(), "announcements", self.apart),
            bell=self.bell,
            data_sets=_Counted(memory_ports.MemoryDataSets(), "manifests", self.apart),
            executions=self.executions,
            reports=_Counted(Reports(datetime.now(UTC)), "cost look-ups", self.apart),
            results=_Counted(memory_ports.MemoryResults(), "results", self.apart),
        )
        self.enlist, self.dispatch, self.record = service.enlist, service.dispatch, service.record

    def submit(self, submissions: list[Submission]) -> None:
        self._count(lambda: self.enlist.enlist_batch(submissions, datetime.now(UTC) - 2 * self.quiet))
        if self.quiet:
            (message,) = self.sqs.receive_message(QueueUrl=self.bells, WaitTimeSeconds=5)["Messages"]
            self._count(lambda: self.bell.ring(parse_delayed_ring(message["Body"]) or ()))
            self.sqs.delete_message(QueueUrl=self.bells, ReceiptHandle=message["ReceiptHandle"])
        (bell,) = self.store.get(BELL)
        if bell is not None and int(bell["rings"]) > self.heard:
            self.heard = int(bell["rings"])
            self.run_pass([bell_ring_from(bell)])

    def end(self, ended: list[Submission]) -> None:
        before = datetime.now(UTC)
        events = [
            StatusEvent(
                display_name=display_name(one.request_id, 1),
                status="Succeeded",
                execution_arn=one.request_id,
                description=f"{one.tier} {one.tenant_id} {one.data_set}",
            )
            for one in ended
        ]
        self._count(lambda: self.record.settle(events, before))
        (ledger,) = self.store.get(LEDGER)
        if ledger is not None and wakes_dispatcher(LEDGER, ledger):
            self.run_pass([])

    def run_pass(self, rings: list[BellRing]) -> None:
        starts = self.executions.calls
        self._count(lambda: self.dispatch.run_pass(datetime.now(UTC), rings=rings, sweep=False))
        self.counted["SageMaker.StartPipelineExecution"] += self.executions.calls - starts

    def _count(self, do: Callable[[], Any]) -> None:
        clients.take_calls()
        do()
        self.counted += clients.take_calls()

    def taken(self, how: str, executions: int) -> Calls:
        """Return the counts, and reset them."""
        assert self.counted["SageMaker.StartPipelineExecution"] == executions, "each was started once"
        per = {name: count / executions for name, count in sorted(self.counted.items())}
        apart = {name: count / executions for name, count in sorted(self.apart.items())}
        calls = Calls(
            how, executions, sum(per.values()), per, per.get("SageMaker.ListPipelineExecutions", 0.0), apart
        )
        self.counted.clear()
        self.apart.clear()
        return calls


def measure(progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> list[Calls]:
    with _tables() as (store, cloud):
        for number in range(TENANTS):
            DynamoTenants(tenants_table="tenants").put(tenant_named(f"t{number}", TIERS[number % 3]))
        service = CountedService(store, cloud)
        requests = [_submission(number) for number in range(REQUESTS)]
        batches = REQUESTS // ENLISTED_AT_ONCE
        for number in progress(range(batches)):
            service.submit(requests[number * ENLISTED_AT_ONCE : (number + 1) * ENLISTED_AT_ONCE])
        ended = 0
        while ended < REQUESTS:
            batch = _running(service, requests)[:SETTLED_AT_ONCE]
            service.end(batch)
            ended += len(batch)
        bursts = service.taken("in bursts", REQUESTS)
        alone = _one_by_one(service, REQUESTS, progress)
        quiet = CountedService(store, cloud, quiet=QUIET, heard=service.heard)
        return [
            bursts,
            service.taken("one by one", alone),
            quiet.taken("one by one, quiet period", _one_by_one(quiet, REQUESTS + alone, progress)),
        ]


def _one_by_one(service: CountedService, first: int, progress: Callable[[Iterable[int]], Iterable[int]]) -> int:
    for number in progress(range(first, first + ALONE)):
        one = _submission(number)
        service.submit([one])
        service.end([one])
    return ALONE


def _running(service: CountedService, requests: list[Submission]) -> list[Submission]:
    """Return the running requests in the order of their starts."""
    by_id = {one.request_id: one for one in requests}
    active = service.store.query("by-activity", "RUNNING", limit=SLOTS)
    assert active.items, "nothing runs although requests are waiting"
    return [by_id[item["request_id"]] for item in active.items]


@contextmanager
def _tables() -> Iterator[tuple[DynamoStore, Cloud]]:
    before = dict(os.environ)
    with Cloud(authorise=False) as cloud:
        os.environ |= cloud.environment()
        clients.forget()
        create_tables(cloud.client("dynamodb"))
        names = {f"{name}_table": name for name in ("scheduler", "requests", "record", "tenants")}
        yield DynamoStore(**names), cloud
    os.environ.clear()
    os.environ |= before
    clients.forget()


def _submission(number: int) -> Submission:
    owner = number % TENANTS
    return submission_of(Job(number, 0.0, f"t{owner}", TIERS[owner % 3], 60.0), datetime.now(UTC))
