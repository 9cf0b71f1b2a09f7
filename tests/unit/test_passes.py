"""What a pass reads and writes, apart from its decisions: all that it needs, and no more."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from simulation import narrow
from simulation.narrow import narrow_limits
from testing.memory_store import MemoryStore
from testing.service import policies_in_force, scheduler_over
from tests.build import NOW, after, choice, content, policy, submission, tenant, tier
from tests.conformance.test_scheduler import LIMITS, enlist_all
from tests.conformance.test_scheduler import Harness as SchedulerHarness
from tests.unit.test_conditions import Interrupted
from tests.unit.test_use_cases import TRIES, Harness
from trainyard.application.scheduling import dispatch, enlistment
from trainyard.application.scheduling.admission import ReadSet
from trainyard.application.scheduling.completion import End
from trainyard.application.scheduling.enlistment import TRIES_TOGETHER, EnlistCommand, Enlisted, Enlistment
from trainyard.application.scheduling.starts import Started
from trainyard.domain.admission import decide
from trainyard.domain.errors import Conflict, OutcomeUnknown, Refused
from trainyard.domain.policy import Policy
from trainyard.domain.queues import HEAD_ENTRIES_MAX
from trainyard.domain.requests import State
from trainyard.domain.scheduling import Plan
from trainyard.domain.tenants import RoleState
from trainyard.persistence.book import Book
from trainyard.persistence.ledger import LEDGER, NOBODY, SOMEBODY
from trainyard.persistence.outbox import budget_entry
from trainyard.persistence.store import Key, Page, Write

POOL = "training/ml.m5.large"
MB = 1024 * 1024


class Counting(MemoryStore):
    """Counts its queries."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = 0

    def query(self, *given: Any, **named: Any) -> Page:
        self.queries += 1
        return super().query(*given, **named)


def large(number: int, **changes: Any) -> Any:
    """Return a submission that needs three instances."""
    return submission(number, content=content(f"incoming/{number}/a.csv", size_bytes=500 * MB), **changes)


LARGE = policy(
    tier(
        quota=2,
        running_max_per_tenant=9,
        hold_age=timedelta(seconds=60),
        instances=(choice(), choice(900, instances=3)),
    ),
    running_max=9,
    instance_quotas={POOL: 4},
)
SMALL = policy(tier(quota=2, running_max_per_tenant=9), running_max=9, instance_quotas={POOL: 4})


def committed(limits: Policy, count: int) -> Any:
    harness = SchedulerHarness(MemoryStore())
    for number in range(1, count + 1):
        harness.enlist(number, limits=limits)
    plan, read_set = harness.plan(limits)
    return harness.scheduler.admitter.commit(plan, read_set, limits, NOW)


def read_after(limits: Policy, *, running: int, waiting: Sequence[Any], seconds: float) -> ReadSet:
    """Return what a pass reads while some run and others have waited for so long."""
    harness = SchedulerHarness(MemoryStore())
    for number in range(1, running + 1):
        harness.enlist(number, limits=limits)
    harness.admit(limits)
    for one in waiting:
        harness.scheduler.enlister.enlist(one, limits, NOW)
    return harness.scheduler.admitter.read(limits, after(seconds))


@pytest.mark.parametrize(
    ("limits", "count", "full"),
    [
        (SMALL, 1, False),
        (SMALL, 2, True),
        (LARGE, 2, False),  # instances may have to be held for a large request, even while the slots are taken
        (policy(tier(running_max_per_tenant=9), tier("premium"), running_max=2), 2, True),
        (policy(tier(running_max_per_tenant=9), tier("premium"), running_max=3), 2, False),
    ],
)
def test_a_commit_says_whether_slots_are_left(limits: Policy, count: int, full: bool) -> None:
    assert committed(limits, count).full is full


@pytest.mark.parametrize(
    ("one", "seconds", "reads_holders"), [(large(9), 61, True), (large(9), 60, False), (submission(9), 61, False)]
)
def test_who_holds_slots_is_read_only_where_a_large_request_has_waited_too_long(
    one: Any, seconds: float, reads_holders: bool
) -> None:
    read_set = read_after(LARGE, running=2, waiting=[one], seconds=seconds)
    assert bool(read_set.snapshot.holders) is reads_holders


@pytest.mark.parametrize(
    ("free", "tenants", "queries", "entries"),
    [
        (HEAD_ENTRIES_MAX, 1, 1, HEAD_ENTRIES_MAX),  # the page of queues; what each holds is enough
        (HEAD_ENTRIES_MAX + 5, 2, 1, HEAD_ENTRIES_MAX),
        (HEAD_ENTRIES_MAX + 5, 1, 2, HEAD_ENTRIES_MAX + 2),
    ],
)
def test_entries_are_read_only_where_those_that_queues_hold_are_fewer_than_the_free_slots(
    free: int, tenants: int, queries: int, entries: int
) -> None:
    limits = policy(tier(quota=free, running_max_per_tenant=free), running_max=free)
    store = Counting()
    harness = SchedulerHarness(store)
    for name in range(tenants):
        for number in range(HEAD_ENTRIES_MAX + 2):
            harness.enlist(100 * name + number, limits=limits, tenant_id=f"t{name}")
    store.queries = 0
    read_set = harness.scheduler.admitter.read(limits, after(1))
    assert store.queries == queries
    assert {len(found) for queue in read_set.snapshot.queues for found in queue.entries.values()} == {entries}


def test_of_one_tenant_as_many_are_admitted_together_as_fit_a_transaction() -> None:
    limits = policy(tier(quota=9, running_max_per_tenant=9), running_max=9)
    harness = SchedulerHarness(MemoryStore())
    for number in range(1, 10):
        harness.enlist(number, limits=limits)
    with narrow_limits(Counter(), bytes_too=False):
        admitted = harness.admit(limits)
    assert 1 < len(admitted) < 9


def test_what_does_not_fit_a_transaction_goes_before_anyone_above_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "ACTIONS", 10)
    limits = policy(tier(quota=20, running_max_per_tenant=1, running_ceiling_per_tenant=20), running_max=20)
    harness = SchedulerHarness(MemoryStore())
    for number in range(1, 10):
        harness.enlist(number, limits=limits, tenant_id="first")
    harness.enlist(20, limits=limits, tenant_id="second")
    read_set = harness.scheduler.admitter.read(limits, after(1))
    plan = decide(read_set.snapshot, limits, after(1))
    assert [decision.above_cap for decision in plan.admissions] == [False, False, *[True] * 8]
    with narrow_limits(Counter(), bytes_too=False):
        committed = harness.scheduler.admitter.commit(plan, read_set, limits, after(1))
    assert [decision.queue.tenant_id for decision in committed.admissions] == ["first", "second"]


# --- what a pass leaves behind ------------------------------------------------------------------------------


def running_and_waiting() -> Harness:
    """Return a service whose only slot was taken while nothing else waited; then one more was enlisted."""
    harness = Harness(limits=policy(tier(quota=1), running_max=1))
    harness.run_one(1)
    assert harness.store.items[LEDGER]["waiting"] == NOBODY
    harness.enlist.enlist(submission(2), NOW)
    return harness


def test_a_pass_that_reads_no_queue_since_all_slots_are_taken_lets_the_next_end_wake_one() -> None:
    harness = running_and_waiting()
    harness.dispatch.run_pass(after(1))
    assert harness.store.items[LEDGER]["waiting"] == SOMEBODY


def test_a_pass_that_finds_nothing_writes_nothing() -> None:
    harness = Harness()
    harness.run_one(1)
    before = dict(harness.store.items[LEDGER])
    harness.dispatch.run_pass(after(1))
    assert harness.store.items[LEDGER] == before


@pytest.mark.parametrize(("seconds", "rings"), [(30, 1), (60, 0), (300, 0)])
def test_the_bell_rings_for_what_is_due_before_the_next_timer(seconds: float, rings: int) -> None:
    harness = Harness()
    harness.scheduler.enlister.enlist(submission(1), harness.limits, NOW, not_before=after(seconds))
    harness.dispatch.run_pass(NOW)
    assert harness.bell.rings == [after(seconds)] * rings


@pytest.mark.parametrize(("size", "kept"), [(dispatch.KEPT_BYTES_MAX, 1), (dispatch.KEPT_BYTES_MAX + 1, 0)])
def test_the_record_of_a_pass_is_kept_if_it_fits_an_item(size: int, kept: int) -> None:
    harness = Harness()
    harness.dispatch = replace(harness.dispatch, encode=lambda _: b"x" * size)
    harness.run_one(1)
    assert len(harness.scheduler.admitter.pass_records(NOW)) == kept


@pytest.mark.parametrize(("at_once", "calls"), [(1, [2, 0]), (2, [2])])
def test_many_starts_are_recorded_before_the_pass_ends(
    monkeypatch: pytest.MonkeyPatch, at_once: int, calls: list[int]
) -> None:
    monkeypatch.setattr(dispatch, "RECORDED_AT_ONCE", at_once)
    harness = Harness(limits=policy(tier(running_max_per_tenant=2)))
    recorded: list[int] = []
    record = type(harness.dispatch.starts).record

    def counted(starts: Any, begun: Sequence[Any], now: Any) -> Any:
        recorded.append(len(begun))
        return record(starts, begun, now)

    monkeypatch.setattr(type(harness.dispatch.starts), "record", counted)
    for number in (1, 2):
        harness.enlist.enlist(submission(number), NOW)
    harness.dispatch.run_pass(NOW)
    assert recorded == calls


def test_capacity_holds_are_noted_when_they_change_and_not_again() -> None:
    harness = Harness(limits=LARGE)
    for number in (1, 2):
        harness.run_one(number)
    harness.enlist.enlist(large(3), NOW)
    harness.dispatch.run_pass(after(61))
    assert harness.scheduler.tables.ledger.read().capacity_holds == {POOL: large(3).request_id}
    before = dict(harness.store.items[LEDGER])
    harness.dispatch.run_pass(after(62))
    assert harness.store.items[LEDGER] == before


def test_a_pass_that_takes_the_last_slot_does_not_read_the_queues_again() -> None:
    """Where more waits than a page has, what a commit leaves is not known; with no free slot it need not be."""
    names = [f"t{number}" for number in range(60)]
    limits = policy(tier(quota=2), running_max=2)
    harness = Harness(limits=limits, tenants=tuple(map(tenant, names)))
    for number, name in enumerate(names):
        harness.enlist.enlist(submission(number, tenant_id=name), NOW)
    decided: list[Plan] = []

    def engine(*given: Any, **named: Any) -> Plan:
        decided.append(decide(*given, **named))
        return decided[-1]

    harness.dispatch = replace(harness.dispatch, engine=engine)
    report = harness.dispatch.run_pass(after(1))
    assert (len(report.admissions), len(decided), report.complete) == (2, 1, True)


# --- enlisting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "made"), [(RoleState.MADE, []), (RoleState.NONE, ["acme"])])
def test_a_pooled_role_that_was_removed_as_idle_meanwhile_is_made_again(role: RoleState, made: list[str]) -> None:
    pooled = replace(tenant(), root="acme/", role=RoleState.MADE)
    assert pooled.pooled
    harness = Harness(tenants=(pooled,))
    harness.enlist.tenants._tenants["acme"] = replace(pooled, role=role)  # type: ignore[attr-defined]
    one = submission(1, content=content("acme/incoming/churn/a.csv"), data_set="churn")
    assert isinstance(harness.enlist.enlist(one, NOW), Enlisted)
    assert harness.roles.made == made


def test_a_tenant_that_is_gone_when_its_role_is_checked_is_no_error() -> None:
    pooled = replace(tenant(), root="acme/", role=RoleState.MADE)
    harness = Harness(tenants=(pooled,))
    del harness.enlist.tenants._tenants["acme"]  # type: ignore[attr-defined]
    one = submission(1, content=content("acme/incoming/churn/a.csv"), data_set="churn")
    assert isinstance(harness.enlist.enlist(one, NOW), Enlisted)
    assert harness.request(one.request_id).state is State.QUEUED


class Sending(MemoryStore):
    """Raises some conflicts before it takes a transaction."""

    def __init__(self, *conflicts: Conflict) -> None:
        super().__init__()
        self.conflicts = list(conflicts)

    def transact(self, writes: Sequence[Write]) -> None:
        if self.conflicts:
            raise self.conflicts.pop(0)
        super().transact(writes)


def enlisted_together(store: Sending, numbers: Sequence[int]) -> list[Enlistment]:
    harness = SchedulerHarness(store)
    store.transactions = 0
    results = enlist_all(harness, *(submission(number) for number in numbers))
    return [one.kind for one in results]


@pytest.mark.parametrize(
    ("conflicts", "transactions"),
    [
        (TRIES_TOGETHER, 1),
        (TRIES_TOGETHER + 1, 3),  # each by itself
    ],
)
def test_a_batch_that_meets_transactions_under_way_is_tried_again_as_a_whole(
    conflicts: int, transactions: int
) -> None:
    store = Sending(*[Conflict("another transaction is under way")] * conflicts)
    assert enlisted_together(store, [1, 2, 3]) == [Enlistment.QUEUED] * 3
    assert store.transactions == transactions


def test_of_a_batch_only_what_was_enlisted_before_goes_by_itself() -> None:
    store = Sending()
    SchedulerHarness(store).enlist(3)
    kinds = enlisted_together(store, range(1, 7))
    assert kinds == [Enlistment.DUPLICATE if number == 3 else Enlistment.QUEUED for number in range(1, 7)]
    assert store.transactions == 1


def test_a_batch_whose_queue_changed_since_it_was_read_is_enlisted_one_by_one() -> None:
    store = MemoryStore()
    other = SchedulerHarness(store)
    scheduler = scheduler_over(Interrupted(store, lambda: other.enlist(9)))
    commands = [EnlistCommand(submission=submission(number), not_before=NOW) for number in (1, 2)]
    items = scheduler.enlister.read_for([command.submission for command in commands])
    results = scheduler.enlister.enlist_all(commands, items, LIMITS, NOW)
    assert [one.kind for one in results if isinstance(one, Enlisted)] == [Enlistment.QUEUED] * 2


@pytest.mark.parametrize(("share", "parts"), [(0.4, [[0, 1]]), (0.6, [[0], [1]])])
def test_a_batch_is_packed_by_the_bytes_of_the_queues_that_it_writes(
    monkeypatch: pytest.MonkeyPatch, share: float, parts: list[list[int]]
) -> None:
    room = 100_000
    monkeypatch.setattr(enlistment, "TRANSACTION_BYTES_MAX", room + 2 * enlistment.ENLISTED_BYTES)
    commands = [EnlistCommand(submission=submission(1, tenant_id=name), not_before=NOW) for name in "ab"]
    items: dict[Key, Any] = {
        command.queue_key: {"profiles": {}, "filling": "x" * int(share * room)} for command in commands
    }
    assert list(enlistment._packed(commands, [0, 1], items, LIMITS)) == parts


# --- starts -------------------------------------------------------------------------------------------------


def test_starts_are_recorded_together_and_each_is_announced_and_reported() -> None:
    harness = Harness(limits=policy(tier(running_max_per_tenant=3, quota=3)))
    for number in (1, 2, 3):
        harness.enlist.enlist(submission(number), NOW)
    before = harness.store.transactions
    report = harness.dispatch.run_pass(NOW)
    assert harness.store.transactions - before == 2, "one admits, one records"
    assert [start.result for start in report.starts] == [Started.RUNNING] * 3
    running = [r.request_id for r in harness.announcements.announced if r.state is State.RUNNING]
    assert running == [submission(number).request_id for number in (1, 2, 3)]


def test_a_start_that_ended_before_it_was_recorded_is_not_announced_as_running() -> None:
    harness = Harness()
    harness.enlist.enlist(submission(1), NOW)
    starts = harness.dispatch.starts
    policy_in_force = harness.limits
    plan = decide(harness.scheduler.admitter.read(policy_in_force, NOW).snapshot, policy_in_force, NOW)
    read_set = harness.scheduler.admitter.read(policy_in_force, NOW)
    admitted = harness.scheduler.admitter.commit(plan, read_set, policy_in_force, NOW)
    begun = starts.start_all(admitted, read_set.tenants, policy_in_force, NOW)
    harness.scheduler.completer.finish(
        [End(request=harness.request(submission(1).request_id), state=State.FAILED)], policy_in_force, after(1)
    )
    starts.record(begun, after(2))
    assert State.RUNNING not in [one.state for one in harness.announcements.announced]


def test_what_the_sweeper_recovers_is_reported() -> None:
    harness = Harness()
    harness.enlist.enlist(submission(1), NOW)
    harness.executions.faults = [(OutcomeUnknown("no answer"), True)] * TRIES
    harness.dispatch.run_pass(NOW)
    report = harness.dispatch.run_pass(after(300))
    assert [(start.result, start.adopted) for start in report.starts] == [(Started.RUNNING, True)]


def test_a_superseded_request_is_listed_on_the_day_of_its_end() -> None:
    harness = SchedulerHarness(MemoryStore())
    harness.enlist(1, data_set="churn")
    harness.enlist(2, data_set="churn", seconds=86_400, content=content(event_time=after(86_400)))
    ended = harness.tables.requests.ended
    assert [one.request_id for one in ended("basic", State.SUPERSEDED, "2026-11-22")] == [submission(1).request_id]
    assert ended("basic", State.SUPERSEDED, "2026-11-21") == []


def test_a_policy_version_is_found_or_its_absence_is_said() -> None:
    store = MemoryStore()
    policies = policies_in_force(store, policy())
    applied = policies.apply("running_max: 4", NOW)
    assert policies.version(applied.version).text == "running_max: 4"
    with pytest.raises(Refused, match="there is no policy version 7; `trainyard policy history` shows them"):
        policies.version(7)


def test_of_many_that_ended_on_a_day_the_last_ones_are_listed_first() -> None:
    harness = SchedulerHarness(MemoryStore())
    for number in range(1, 6):
        harness.enlist(number, data_set="churn", seconds=number, content=content(event_time=after(number)))
    ended = harness.tables.requests.ended
    superseded = [submission(number).request_id for number in range(1, 5)]
    assert [one.request_id for one in ended("basic", State.SUPERSEDED, "2026-11-21")] == superseded
    assert [one.request_id for one in ended("basic", State.SUPERSEDED, "2026-11-21", limit=2)] == [
        superseded[3],
        superseded[2],
    ]


def test_a_policy_is_not_put_in_force_over_another_than_it_was_compared_with() -> None:
    policies = policies_in_force(MemoryStore(), policy())
    compared = policies.in_force().version
    policies.apply("running_max: 4", NOW)
    with pytest.raises(Conflict, match="another policy was applied meanwhile"):
        policies.apply("running_max: 5", NOW, after=compared)
    with pytest.raises(Conflict, match="another policy was applied meanwhile"):
        policies.rollback(compared, NOW, after=compared)
    assert policies.in_force().text == "running_max: 4"
    policies.apply("running_max: 5", NOW, after=compared + 1)


def test_what_an_outbox_entry_says_comes_back_as_it_was() -> None:
    store = MemoryStore()
    values = {"percent": 80, "spent_usd": Decimal("0.5"), "budget_usd": Decimal("2.25")}
    store.transact([budget_entry("acme", "basic", "2026-11", 80, values, NOW)])
    (entry,) = Book(store=store).outbox_entries()
    read = {name: entry.values[name] for name in values}
    assert read == values
    assert isinstance(read["percent"], int)
