"""Kueue's own baseline, as closely as our model allows, in real time.

Kueue, test/performance/scheduler (its "baseline" generator and rangespec): 5 cohorts of 6 queues, each queue
with a quota of 20 units and a borrowing limit of 100; in each queue 350 small (1 unit, 200 ms, one each 100 ms),
100 medium (5 units, 500 ms, each 500 ms) and 50 large workloads (20 units, 1,000 ms, each 1,200 ms); priorities
small < medium < large. 1,320 unit-seconds for each 20 units of quota: no scheduler can finish before 66 s.

A cohort is one of our services, a queue is a tier, and a unit is an instance of the cohort's pool of 120. We have
no priorities within a tier: the classes are three tenants with the weights 1, 5 and 20, the units of their
workloads. A tier's quota counts executions where Kueue's counts units, and lends at most 80 %. The use cases run
over the store in memory with DynamoDB-like latencies, each function in a thread, each cohort in a process;
starting takes no time, because Kueue's benchmark starts no pods. Kueue's figures are its published means on its
own machine; it admits in one process without a database. Wait times and makespan therefore compare how two kinds
of schedulers handle this load, not whose code is faster.
"""

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from multiprocessing import get_context
from queue import Empty, SimpleQueue
from typing import Any

from benchmarks.designs.ours import CHOICE, tenant_named
from simulation.flow import Job, submission_of
from testing import memory_ports
from testing.memory_store import MemoryStore
from testing.service import Service, policies_in_force
from trainyard.application.scheduling.completion import End
from trainyard.domain.errors import Conflict
from trainyard.domain.policy import Policy, TenantPolicy, TierPolicy
from trainyard.domain.requests import State, Submission
from trainyard.persistence.bell import BELL, BellRing, Hint, bell_ring_from, ring, wakes_dispatcher
from trainyard.persistence.store import Item, Key, Page, Write

COHORTS, QUEUES, QUOTA, BORROWING = 5, 6, 20, 100
CLASSES = {"small": (350, 1, 0.2, 0.1), "medium": (100, 5, 0.5, 0.5), "large": (50, 20, 1.0, 1.2)}
"""Class → workloads, units, seconds, seconds between two arrivals."""
BOUND_SECONDS = 66.0
KUEUE = {"makespan": 351.0, "use": 0.587, "large": 6.7, "medium": 76.8, "small": 215.0}
LATENCY = {"get": 0.006, "query": 0.008, "transact": 0.015}
"""Seconds of a call of the store, similar to those of DynamoDB within a Region."""
LIMIT_SECONDS = 600.0
MB = 1024 * 1024


@dataclass(frozen=True)
class Cohort:
    makespan: float
    use: float
    waits: dict[str, list[float]]
    passes: int
    conflicts: int


@dataclass
class Slow:
    """A store for many threads, whose calls take as long as DynamoDB's."""

    store: MemoryStore
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, *keys: Key) -> list[Item | None]:
        time.sleep(LATENCY["get"])
        with self.lock:
            return self.store.get(*keys)

    def query(self, index: str, partition: str, **options: Any) -> Page:
        time.sleep(LATENCY["query"])
        with self.lock:
            return self.store.query(index, partition, **options)

    def transact(self, writes: Sequence[Write]) -> None:
        time.sleep(LATENCY["transact"])
        with self.lock:
            self.store.transact(writes)


class CohortService:
    """One cohort."""

    def __init__(self) -> None:
        memory = MemoryStore()
        memory.stream = self.streamed
        self.store = Slow(memory)
        self.limits = _policy()
        tiers = {f"q{n}-{kind}": f"q{n}" for n in range(QUEUES) for kind in CLASSES}
        tenants = [tenant_named(*pair) for pair in tiers.items()]
        itself: Any = self  # it only implements the start of executions
        service = Service(
            store=self.store,
            policies=policies_in_force(self.store, self.limits),
            tenants=memory_ports.MemoryTenants(*tenants, store=memory),
            bell=self,
            executions=itself,
            backoff=lambda _: time.sleep(0.01),
        )
        self.scheduler, self.enlist, self.dispatch = service.scheduler, service.enlist, service.dispatch
        self.woken, self.over = threading.Event(), threading.Event()
        self.rings: list[BellRing] = []
        self.arrived: SimpleQueue[Submission] = SimpleQueue()
        self.started: SimpleQueue[str] = SimpleQueue()
        self.ended: SimpleQueue[str] = SimpleQueue()
        self.waits: dict[str, list[float]] = {kind: [] for kind in CLASSES}
        self.done = self.passes = self.conflicts = 0
        self.begun_at: dict[str, float] = {}
        self.arrived_at: dict[str, float] = {}
        self.unit_seconds = 0.0

    def run(self) -> Cohort:
        began = time.monotonic()
        workers = [self._arrive, self._enlist, self._dispatch, self._run, self._finish]
        threads = [threading.Thread(target=worker, daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        total = QUEUES * sum(number for number, *_ in CLASSES.values())
        while self.done < total and time.monotonic() < began + LIMIT_SECONDS:
            time.sleep(0.05)
            if (time.monotonic() - began) % 60 < 0.05:
                self.woken.set()  # the timer
        makespan = time.monotonic() - began
        self.over.set()
        used = self.unit_seconds / (QUEUES * QUOTA * makespan)
        return Cohort(makespan, used, self.waits, self.passes, self.conflicts)

    def _arrive(self) -> None:
        began, numbers = time.monotonic(), count()
        plan = sorted(
            (one * every, f"q{queue}", kind)
            for queue in range(QUEUES)
            for kind, (number, _, _, every) in CLASSES.items()
            for one in range(number)
        )
        for at, tier, kind in plan:
            time.sleep(max(began + at - time.monotonic(), 0))
            submission = _submission(next(numbers), tier, kind)
            self.arrived_at[submission.request_id] = time.monotonic()
            self.arrived.put(submission)

    def _enlist(self) -> None:
        while not self.over.is_set():
            if batch := _taken(self.arrived):
                left = batch
                while left:
                    results = self.enlist.enlist_batch(left, _now())
                    left = [one for one, done in zip(left, results, strict=True) if isinstance(done, Exception)]

    def _dispatch(self) -> None:
        while not self.over.is_set():
            if self.woken.wait(0.2):
                self.woken.clear()
                rings, self.rings = self.rings, []
                report = self.dispatch.run_pass(_now(), rings=rings, sweep=False)
                self.passes += 1
                self.conflicts += report.conflicts

    def _run(self) -> None:
        """Let each started workload run as long as its class says."""
        ends: list[tuple[float, str]] = []
        while not self.over.is_set():
            for request_id in _taken(self.started, most=1000, wait=0.002):
                _, units, seconds, _ = CLASSES[_kind_of(request_id)]
                heapq.heappush(ends, (self.begun_at[request_id] + seconds, request_id))
                self.unit_seconds += units * seconds
            while ends and ends[0][0] <= time.monotonic():
                self.ended.put(heapq.heappop(ends)[1])

    def _finish(self) -> None:
        while not self.over.is_set():
            if batch := _taken(self.ended):
                requests = self.scheduler.tables.requests.get_all(batch)
                ends = [End(request=request, state=State.SUCCEEDED) for request in requests]
                while True:
                    try:
                        self.done += sum(self.scheduler.completer.finish(ends, self.limits, _now()))
                        break
                    except Conflict:
                        self.conflicts += 1

    # --- ports ----------------------------------------------------------------------------------------------

    def streamed(self, key: Key, item: Item) -> None:
        if wakes_dispatcher(key, item):
            if key == BELL:
                self.rings.append(bell_ring_from(item))
            self.woken.set()

    def ring(self, hints: Sequence[Hint] = ()) -> None:
        self.store.transact([ring(hints)])

    def ring_at(self, when: datetime, now: datetime, hints: Sequence[Hint] = ()) -> None:
        threading.Timer(max((when - now).total_seconds(), 0), lambda: self.ring(hints)).start()

    def start(self, *, name: str, token: str, description: str, parameters: dict[str, str]) -> str:
        request_id = parameters["RequestId"]
        if request_id not in self.begun_at:
            now = self.begun_at[request_id] = time.monotonic()
            self.waits[_kind_of(request_id)].append(now - self.arrived_at[request_id])
            self.started.put(request_id)
        return f"arn/{request_id}"


def _taken(queue: "SimpleQueue[Any]", most: int = 100, wait: float = 0.02) -> list[Any]:
    """Return the messages that have arrived; waits a moment if there are none."""
    found: list[Any] = []
    try:
        found.append(queue.get(timeout=wait))
        while len(found) < most:
            found.append(queue.get_nowait())
    except Empty:
        pass
    return found


def run(progress: Callable[[float], None] = lambda _: None) -> list[Cohort]:
    """Run the cohorts in parallel; returns one result each."""
    with get_context("spawn").Pool(COHORTS) as resource:
        pending = [resource.apply_async(_cohort) for _ in range(COHORTS)]
        began = time.monotonic()
        while not all(one.ready() for one in pending):
            time.sleep(0.5)
            progress(time.monotonic() - began)
        return [one.get() for one in pending]


def _cohort() -> Cohort:
    return CohortService().run()


def _now() -> datetime:
    return datetime.now(UTC)


_KINDS = list(CLASSES)


def _kind_of(request_id: str) -> str:
    return _KINDS[int(request_id[:2], 16)]


def _submission(number: int, tier: str, kind: str) -> Submission:
    _, units, seconds, _ = CLASSES[kind]
    job = Job(number, 0.0, f"{tier}-{kind}", tier, seconds, size_mb=units)
    return replace(submission_of(job, _now()), request_id=f"{_KINDS.index(kind):02x}{number:030x}")


def _policy() -> Policy:
    choices = tuple(
        replace(CHOICE, data_mb_max=units, training_instance_count=units) for _, units, _, _ in CLASSES.values()
    )
    tiers = tuple(
        TierPolicy(
            name=f"q{number}",
            quota=QUOTA,
            borrowing_limit=BORROWING,
            lending_limit=int(0.8 * QUOTA),
            running_max_per_tenant=QUEUES * QUOTA,
            runtime_max=timedelta(seconds=60),
            hold_age=timedelta(seconds=2),
            quality_min=0.5,
            instances=choices,
        )
        for number in range(QUEUES)
    )
    weights = {kind: units for kind, (_, units, _, _) in CLASSES.items()}
    tenants = {
        f"q{n}-{kind}": TenantPolicy(weight=weight) for n in range(QUEUES) for kind, weight in weights.items()
    }
    return Policy(
        version=0,
        running_max=QUEUES * QUOTA,
        quiet_period=timedelta(0),
        delay_max=timedelta(0),
        start_retry_delay=timedelta(seconds=60),
        tiers=tiers,
        tenants=tenants,
        instance_quotas={"training/ml.m5.large": QUEUES * QUOTA},
    )
