"""The cost of a pass by number of waiting requests: calls, items and kilobytes read, CPU time without the store's.

The real scheduler runs over the store in memory, filled by enlisting; one tier has twenty slots, five of which
are free. A pass that the bell wakes fills them. The same pass is measured in one process with 10² to 10⁶ waiting
requests of 10 to 10⁵ tenants, several times each; the slots are released in between.
"""

import gc
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from benchmarks.designs.ours import CHOICE, tenant_named
from simulation.flow import Job, submission_of
from testing import memory_ports
from testing.memory_store import MemoryStore
from testing.service import Service, policies_in_force, scheduler_over
from trainyard.application.scheduling.completion import End
from trainyard.application.scheduling.enlistment import EnlistCommand
from trainyard.domain.policy import Policy, TierPolicy
from trainyard.domain.requests import State
from trainyard.persistence.bell import BELL
from trainyard.persistence.store import Item, Key, Page, Write

SIZES = ((100, 10), (10_000, 10), (10_000, 1_000), (1_000_000, 1_000), (1_000_000, 100_000))
"""Waiting requests and tenants: a hundred times the requests, with as many and a hundred times the tenants."""
SLOTS, FREE = 20, 5
NOW = datetime(2026, 11, 21, tzinfo=UTC)
ETAG = "0" * 32
"""The ETag of all content: not a real one, but as long."""


@dataclass(frozen=True)
class Pass:
    """Medians over the trials."""

    waiting: int
    tenants: int
    calls: int
    items: int
    kilobytes: float
    cpu_ms: float
    spread_ms: float
    trials: int


@dataclass
class Counting:
    """A store that counts what is read."""

    store: MemoryStore
    calls: int = 0
    items: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """Time spent in the store, and on counting."""

    def get(self, *keys: Key) -> list[Item | None]:
        found: list[Item | None] = self._timed(lambda: self.store.get(*keys))
        return found

    def query(self, *given: Any, **named: Any) -> Page:
        page: Page = self._timed(lambda: self.store.query(*given, **named))
        return page

    def transact(self, writes: Sequence[Write]) -> None:
        self._timed(lambda: self.store.transact(writes))

    def _timed(self, call: Callable[[], Any]) -> Any:
        began = time.process_time()
        answer = call()
        items = answer.items if isinstance(answer, Page) else [item for item in answer or () if item]
        self.calls += 1
        self.items += len(items)
        self.bytes += sum(len(repr(item)) for item in items)
        self.seconds += time.process_time() - began
        return answer


def measure(trials: int = 9, progress: Callable[[Iterable[Any]], Iterable[Any]] = iter) -> list[Pass]:
    return [_measured(waiting, tenants, trials) for waiting, tenants in progress(SIZES)]


def _measured(waiting: int, tenants: int, trials: int) -> Pass:
    store = MemoryStore()
    limits = _policy()
    filled(store, limits, waiting, tenants)
    counting = Counting(store)
    service = Service(
        store=counting,
        policies=policies_in_force(counting, limits),
        tenants=memory_ports.MemoryTenants(tenant_named("t0", "basic"), store=store),
    )
    scheduler, dispatch = service.scheduler, service.dispatch
    dispatch.run_pass(NOW, sweep=False)  # all slots are taken
    gc.collect()
    gc.freeze()  # otherwise, garbage collection visits a million items in some passes
    seen: list[tuple[int, int, int, float]] = []
    for trial in range(trials + 2):
        now = NOW + timedelta(seconds=10 * (trial + 1))
        running = scheduler.tables.requests.active(State.RUNNING, limit=FREE)[:FREE]
        scheduler.completer.finish(
            [End(request=request, state=State.SUCCEEDED) for request in running], limits, now
        )
        counting.calls = counting.items = counting.bytes = 0
        counting.seconds = 0.0
        began = time.process_time()
        report = dispatch.run_pass(now, sweep=False)
        spent = time.process_time() - began - counting.seconds
        assert len(report.admissions) == FREE, "the pass fills the free slots"
        seen.append((counting.calls, counting.items, counting.bytes, 1000 * spent))
    gc.unfreeze()
    seen = seen[2:]
    times = [one[3] for one in seen]
    return Pass(
        waiting=waiting,
        tenants=tenants,
        calls=int(median(one[0] for one in seen)),
        items=int(median(one[1] for one in seen)),
        kilobytes=round(median(one[2] for one in seen) / 1024, 1),
        cpu_ms=round(median(times), 2),
        spread_ms=round(max(times) - min(times), 2),
        trials=trials,
    )


def filled(store: MemoryStore, limits: Policy, waiting: int, tenants: int) -> None:
    """Add waiting requests, evenly distributed over the tenants.

    Those of the first tenant are enlisted; those of the others are copies under other names, which is faster and
    gives the same items.
    """
    scheduler = scheduler_over(store)
    each = waiting // tenants
    submissions = [submission_of(Job(number, 0.0, "t0", "basic", 60.0), NOW) for number in range(1, each + 1)]
    memory_ports.MemoryTenants(tenant_named("t0", "basic"), store=store)
    wishes = [EnlistCommand(submission=one, not_before=NOW) for one in submissions]
    scheduler.enlister.enlist_all(wishes, scheduler.enlister.read_for(submissions), limits, NOW)
    models = [(key, item) for key, item in store.items.items() if key != BELL]
    for number in range(1, tenants):
        for key, item in models:
            store._replace(Key(key.table, _renamed(key.values, number, each)), _renamed(item, number, each))


def _renamed(value: Any, number: int, each: int) -> Any:
    """Return a part of the first tenant's items, converted for another tenant."""
    kind = type(value)
    if kind is str:
        if len(value) == 32 and value.isalnum() and value != ETAG:
            return f"{int(value, 16) + number * each:032x}"
        return _text(value, number, each)
    if kind is dict:
        return {name: _renamed(inner, number, each) for name, inner in value.items()}
    if kind in (list, tuple):
        return kind(_renamed(inner, number, each) for inner in value)
    return value


_ENTRY = re.compile(r"[0-9a-f]{32}\|")
"""How the text of a queue entry behind the head begins: with the id of its request."""


def _text(value: str, number: int, each: int) -> str:
    if _ENTRY.match(value):
        request_id, rest = value.split("|", 1)
        return f"{int(request_id, 16) + number * each:032x}|{rest}"
    if value == "t0" or value.endswith(("#t0", "|t0", "-t0")):
        return f"{value[:-2]}t{number}"
    return value


def _policy() -> Policy:
    basic = TierPolicy(
        name="basic",
        quota=SLOTS,
        borrowing_limit=0,
        lending_limit=0,
        running_max_per_tenant=SLOTS,
        runtime_max=timedelta(hours=1),
        hold_age=timedelta(minutes=15),
        quality_min=0.5,
        instances=(CHOICE,),
    )
    return Policy(
        version=0,
        running_max=SLOTS,
        quiet_period=timedelta(0),
        delay_max=timedelta(0),
        start_retry_delay=timedelta(seconds=60),
        tiers=(basic,),
    )
