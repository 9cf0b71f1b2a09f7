"""The scheduler over every adapter of the store: it does the same in memory and in DynamoDB."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from testing.service import policies_in_force, scheduler_over
from tests.build import NOW, after, choice, content, execution, hard, policy, request, submission, tier
from trainyard.application.scheduling.admission import ReadSet
from trainyard.application.scheduling.completion import Completer, End
from trainyard.application.scheduling.enlistment import EnlistCommand, Enlistment
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.admission import decide
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.policy import Policy, TenantPolicy
from trainyard.domain.queues import HEAD_ENTRIES_MAX, milliseconds
from trainyard.domain.requests import Collected, Outcome, Request, State
from trainyard.domain.retraining import RetrainingSettings
from trainyard.domain.scheduling import Plan, Reason
from trainyard.persistence.bell import (
    BELL,
    BY_NOTE,
    HINTS_MAX,
    LATER_MAX,
    BellRing,
    Hint,
    Later,
    bell_ring_from,
    later_from,
    ring,
    wakes_dispatcher,
)
from trainyard.persistence.ledger import BY_END, BY_PASS, LEDGER, NOBODY, SOMEBODY
from trainyard.persistence.requests import request_key
from trainyard.persistence.run_history import last_start, past_from, past_key, trainings_from
from trainyard.persistence.store import Page, Store, Update
from trainyard.persistence.tables import Tables
from trainyard.persistence.tenant_queues import PAGE_MIN

SIZES = (choice(10), choice(50, training="ml.m5.xlarge"), choice(100, training="ml.m5.2xlarge"))
LIMITS = policy(tier(quota=2, running_max_per_tenant=2), tier("premium", quota=2), running_max=3)


TWO_SLOTS = policy(tier(quota=2, running_max_per_tenant=2), running_max=2)


class Harness:
    """A scheduler over some store."""

    def __init__(self, store: Store) -> None:
        self.scheduler: Scheduler = scheduler_over(store)

    def enlist(self, number: int, *, seconds: float = 0, limits: Policy = LIMITS, **changes: Any) -> Any:
        return self.scheduler.enlister.enlist(submission(number, **changes), limits, after(seconds))

    def plan(self, limits: Policy = LIMITS, seconds: float = 0) -> tuple[Plan, ReadSet]:
        read_set = self.scheduler.admitter.read(limits, after(seconds))
        return decide(read_set.snapshot, limits, after(seconds)), read_set

    def admit(self, limits: Policy = LIMITS, seconds: float = 0) -> list[str]:
        plan, read_set = self.plan(limits, seconds)
        if not plan.admissions:
            return []
        done = self.scheduler.admitter.commit(plan, read_set, limits, after(seconds)).admissions
        return [admission.entry.request_id for admission in done]

    def finish(self, request: Request, state: State, **changes: Any) -> bool:
        now = changes.pop("now", after(60))
        (first,) = self.scheduler.completer.finish([End(request=request, state=state, **changes)], LIMITS, now)
        return first

    @property
    def tables(self) -> Tables:
        return self.scheduler.tables

    @property
    def completer(self) -> Completer:
        return self.scheduler.completer

    def state(self, number: int) -> Request:
        found: Request | None = self.scheduler.tables.requests.get(submission(number).request_id)
        assert found is not None
        return found

    def used(self) -> tuple[int, dict[str, int]]:
        ledger = self.scheduler.tables.ledger.read()
        return ledger.used, {tier: used for tier in ledger.tiers if (used := ledger.used_of_tier(tier))}


of_many_items = pytest.mark.parametrize("store", ["memory", "ministack"], indirect=True)
"""For tests with many items: moto copies every table in each transaction, so they take it a minute."""


@pytest.fixture
def harness(store: Store) -> Harness:
    return Harness(store)


def test_enlisting_twice_is_enlisting_once(harness: Harness) -> None:
    assert harness.enlist(1).kind is Enlistment.QUEUED
    again = harness.enlist(1, seconds=9)
    assert (again.kind, again.request.arrived_at) == (Enlistment.DUPLICATE, NOW)
    assert harness.tables.queues.backlog(LIMITS)["basic"].waiting == 1


def test_a_redelivery_still_knows_whom_it_superseded(harness: Harness) -> None:
    harness.enlist(1, data_set="churn")
    for _ in range(2):
        found = harness.enlist(2, data_set="churn", content=content(event_time=after(1)))
        assert found.superseded.request_id == submission(1).request_id
        assert found.superseded.state is State.SUPERSEDED


def test_an_upload_behind_a_back_off_neither_cuts_it_short_nor_is_forgotten(harness: Harness) -> None:
    harness.enlist(1, data_set="churn")
    harness.admit()
    harness.completer.requeue(harness.state(1), LIMITS, after(1), due_at=after(600), reason="quota")
    harness.enlist(2, seconds=400, data_set="churn", content=content(event_time=after(400)))
    assert harness.admit(seconds=599) == []
    assert harness.admit(seconds=600) == [submission(2).request_id]


def test_admitting_takes_slots_and_states_together(harness: Harness) -> None:
    for number in (1, 2, 3):
        harness.enlist(number, seconds=number)
    assert harness.admit(seconds=5) == [submission(1).request_id, submission(2).request_id]
    assert harness.used() == (2, {"basic": 2})
    assert [harness.state(n).state for n in (1, 2, 3)] == [State.ADMITTED, State.ADMITTED, State.QUEUED]
    assert (harness.state(1).attempt, harness.state(1).admitted_at) == (1, after(5))
    assert harness.tables.queues.backlog(LIMITS)["basic"].waiting == 1


def test_two_decisions_on_one_snapshot_cannot_both_be_committed(harness: Harness) -> None:
    harness.enlist(1)
    harness.enlist(2, tier="premium", tenant_id="other")
    plan, read_set = harness.plan()
    first, second = [replace(plan, admissions=(admission,)) for admission in plan.admissions]
    harness.scheduler.admitter.commit(first, read_set, LIMITS, NOW)
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(second, read_set, LIMITS, NOW)
    assert harness.used()[0] == 1


@pytest.mark.parametrize(
    "lowered",
    [
        policy(tier(quota=2, running_max_per_tenant=2), running_max=1),
        policy(tier(quota=1, running_max_per_tenant=2)),
        policy(LIMITS.tiers[0], running_max=3, instance_quotas={"training/ml.m5.large": 1}),
    ],
    ids=["account", "tier", "instances"],
)
def test_a_commit_that_would_exceed_a_limit_changes_nothing(harness: Harness, lowered: Policy) -> None:
    for number in (1, 2):
        harness.enlist(number)
    plan, read_set = harness.plan()
    assert len(plan.admissions) == 2
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, read_set, lowered, NOW)
    assert harness.used() == (0, {})
    assert harness.state(1).state is State.QUEUED


def test_a_request_replaced_after_the_snapshot_is_not_admitted(harness: Harness) -> None:
    harness.enlist(1, data_set="churn")
    plan, read_set = harness.plan()
    harness.enlist(2, data_set="churn", content=content(event_time=after(9)))
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, read_set, LIMITS, NOW)
    assert (harness.state(1).state, harness.state(2).state) == (State.SUPERSEDED, State.QUEUED)


def test_while_paused_a_decision_made_before_holds_no_longer(harness: Harness) -> None:
    harness.enlist(1)
    plan, read_set = harness.plan()
    harness.tables.ledger.set_paused(True)
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, read_set, LIMITS, NOW)
    assert harness.admit() == []
    harness.tables.ledger.set_paused(False)
    assert harness.admit() == [submission(1).request_id]


def test_a_newer_upload_takes_the_place_and_an_older_one_is_outdated(harness: Harness) -> None:
    quiet = policy(LIMITS.tiers[0], quiet_period=timedelta(seconds=10))
    harness.enlist(1, data_set="churn", limits=quiet, content=content(event_time=after(5)))
    newer = harness.enlist(2, seconds=4, data_set="churn", limits=quiet, content=content(event_time=after(6)))
    older = harness.enlist(3, seconds=6, data_set="churn", limits=quiet, content=content(event_time=after(1)))
    assert (newer.kind, newer.superseded.request_id) == (Enlistment.REPLACED, submission(1).request_id)
    assert (older.kind, older.request.superseded_by) == (Enlistment.OUTDATED, submission(2).request_id)
    kept = harness.state(2)
    assert (kept.state, kept.arrived_at, kept.due_at) == (State.QUEUED, NOW, after(16))
    assert harness.tables.queues.backlog(quiet)["basic"].waiting == 1
    assert harness.admit(quiet, seconds=15) == []
    assert harness.admit(quiet, seconds=16) == [submission(2).request_id]


def test_what_is_not_due_holds_up_nobody_behind_it(harness: Harness) -> None:
    quiet = policy(LIMITS.tiers[0], quiet_period=timedelta(seconds=30))
    harness.enlist(1, limits=quiet)
    harness.enlist(2, seconds=1)
    assert harness.admit(seconds=2) == [submission(2).request_id]
    assert harness.admit(quiet, seconds=30) == [submission(1).request_id]


def test_after_the_head_the_next_is_found(harness: Harness) -> None:
    one = policy(tier(quota=1))
    for number in (1, 2, 3):
        harness.enlist(number, seconds=number)
    for number in (1, 2, 3):
        assert harness.admit(one, seconds=9) == [submission(number).request_id]
        assert harness.admit(one, seconds=9) == []
        harness.finish(harness.state(number), State.SUCCEEDED, now=after(9))


def test_an_end_counts_once_and_only_for_its_attempt(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    ended = {"outcome": Outcome(quality=0.75, cost_usd="0.12"), "now": after(60)}
    stale = request(1, attempt=2, state=State.RUNNING)
    assert not harness.finish(stale, State.FAILED, **ended)
    assert harness.finish(harness.state(1), State.SUCCEEDED, **ended)
    assert not harness.finish(request(1, attempt=1), State.FAILED, **ended)
    kept = harness.state(1)
    assert (kept.state, kept.finished_at, kept.outcome) == (State.SUCCEEDED, after(60), ended["outcome"])
    assert harness.used() == (0, {})


def test_a_start_is_recorded_once_and_never_after_the_end(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    assert harness.tables.requests.note_running(harness.state(1), "arn", after(1))
    assert not harness.tables.requests.note_running(harness.state(1), "arn", after(2))
    assert (harness.state(1).state, harness.state(1).started_at) == (State.RUNNING, after(1))
    harness.finish(harness.state(1), State.FAILED, reason="r", now=after(3))
    assert not harness.tables.requests.note_running(harness.state(1), "arn", after(4))
    assert harness.state(1).state is State.FAILED


def test_a_request_put_back_frees_its_slot_and_waits_until_it_is_due(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    (changed,) = harness.completer.requeue(harness.state(1), LIMITS, after(1), due_at=after(60), reason="quota")
    kept = harness.state(1)
    assert changed == kept
    assert (kept.state, kept.reason, kept.due_at, kept.attempt) == (State.QUEUED, "quota", after(60), 1)
    assert harness.used() == (0, {})
    assert harness.admit(seconds=59) == []
    assert harness.admit(seconds=60) == [submission(1).request_id]
    assert harness.state(1).attempt == 2
    assert (
        harness.completer.requeue(request(1, attempt=1), LIMITS, after(61), due_at=after(99), reason="late") == []
    )


def test_a_request_put_back_behind_a_newer_upload_is_superseded(harness: Harness) -> None:
    harness.enlist(1, data_set="churn")
    harness.admit()
    harness.enlist(2, seconds=1, data_set="churn", content=content(event_time=after(1)))
    (changed,) = harness.completer.requeue(harness.state(1), LIMITS, after(2), due_at=after(60), reason="quota")
    assert (changed.state, changed.superseded_by) == (State.SUPERSEDED, submission(2).request_id)
    assert (harness.state(1).state, harness.state(1).superseded_by) == (State.SUPERSEDED, submission(2).request_id)
    assert harness.used() == (0, {})


def test_a_request_put_back_takes_its_place_from_an_older_upload(harness: Harness) -> None:
    harness.enlist(1, data_set="churn", content=content(event_time=after(9)))
    harness.admit()
    harness.enlist(2, seconds=1, data_set="churn", content=content(event_time=after(1)))
    changed = harness.completer.requeue(harness.state(1), LIMITS, after(2), due_at=after(60), reason="quota")
    assert [(r.request_id, r.state) for r in changed] == [
        (submission(1).request_id, State.QUEUED),
        (submission(2).request_id, State.SUPERSEDED),
    ]
    assert harness.state(2).superseded_by == submission(1).request_id
    assert (harness.used(), harness.tables.queues.backlog(LIMITS)["basic"].waiting) == ((0, {}), 1)
    assert harness.admit(seconds=60) == [submission(1).request_id]


def test_a_waiting_request_can_be_cancelled_and_an_admitted_one_cannot(harness: Harness) -> None:
    for number in (1, 2):
        harness.enlist(number, seconds=number)
    assert harness.completer.cancel(harness.state(1), after(3))
    assert not harness.completer.cancel(harness.state(1), after(3))
    assert harness.state(1).state is State.CANCELLED
    assert harness.admit(seconds=4) == [submission(2).request_id]
    assert not harness.completer.cancel(harness.state(2), after(5))


def test_a_rejected_request_is_kept_once(harness: Harness) -> None:
    refused = request(7, state=State.REJECTED, reason="empty", finished_at=NOW)
    assert harness.tables.requests.add_rejected(refused)
    assert not harness.tables.requests.add_rejected(refused)
    assert harness.tables.requests.get(refused.request_id) == refused


def test_an_outcome_is_noted_for_its_attempt_alone(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    identity = submission(1).request_id
    assert not harness.tables.requests.note_outcome(identity, 2, Outcome(quality=0.1))
    assert harness.tables.requests.note_outcome(identity, 1, Outcome(quality=0.9, trained_files=3))
    assert harness.state(1).outcome == Outcome(quality=0.9, trained_files=3)


def test_the_backlog_tells_how_much_waits_and_since_when(harness: Harness) -> None:
    harness.enlist(1, seconds=5)
    harness.enlist(2, seconds=3, tenant_id="other")
    harness.enlist(3, seconds=4, tenant_id="other")
    backlog = harness.tables.queues.backlog(LIMITS)
    assert (backlog["basic"].waiting, backlog["basic"].oldest_arrived_at) == (3, after(3))
    assert (backlog["premium"].waiting, backlog["premium"].oldest_arrived_at) == (0, None)


# --- lanes, set-aside queues, batches, pauses, repair -----------------------------------------------------------

TWO_LANES = policy(
    tier(quota=4, running_max_per_tenant=4, instances=(choice(10), choice(1000, instances=2))),
    running_max=4,
    instance_quotas={"training/ml.m5.large": 2},
)
BIG = content(size_bytes=100 * 1024 * 1024)


def test_a_request_that_needs_other_instances_is_held_up_by_none_before_it(harness: Harness) -> None:
    harness.enlist(1, limits=TWO_LANES, content=BIG)
    harness.enlist(2, limits=TWO_LANES, content=BIG)
    harness.enlist(3, limits=TWO_LANES)
    assert harness.admit(TWO_LANES) == [submission(1).request_id]
    ledger = harness.tables.ledger.read()
    assert ledger.usage == {
        "slots": 1,
        "tier/basic": 1,
        "training/ml.m5.large": 2,
        "processing/ml.t3.medium": 1,
    }
    harness.finish(harness.state(1), State.SUCCEEDED)
    wider = replace(TWO_LANES, instance_quotas={"training/ml.m5.large": 3})
    assert sorted(harness.admit(wider)) == [submission(2).request_id, submission(3).request_id]


@of_many_items
def test_a_queue_that_cannot_go_is_set_aside_until_the_policy_changes(harness: Harness) -> None:
    poor = policy(tier(), tenants={"acme": TenantPolicy(budget=hard("0.01"))})
    harness.enlist(1, limits=poor)
    plan, _ = harness.plan(poor)
    harness.scheduler.parking.park(plan.parked.values(), poor, NOW, plan.month)
    assert harness.plan(poor)[1].snapshot.queues == ()
    backlog = harness.tables.queues.backlog(poor)["basic"]
    assert (backlog.waiting, dict(backlog.parked)) == (1, {Reason.BUDGET.value: 1})
    assert harness.scheduler.parking.unpark(poor, after(60)) == 0
    assert harness.scheduler.parking.unpark(replace(poor, version=1), after(60)) == 1
    found = harness.plan(poor)[1].snapshot.queues
    assert [waiting.queue.tenant_id for waiting in found] == ["acme"]
    harness.scheduler.parking.park(harness.plan(poor)[0].parked.values(), poor, NOW, "2026-11")
    newer = replace(poor, prices=replace(poor.prices, version="2026-12-24"))
    assert harness.scheduler.parking.unpark(newer, after(60)) == 1, "prices have changed with the code"
    harness.scheduler.parking.park(harness.plan(poor)[0].parked.values(), poor, NOW, "2026-11")
    turns = [harness.scheduler.parking.unpark(poor, after(60 * turn)) for turn in range(256)]
    assert sum(turns) == 1, "some of all are looked at in turn"
    harness.scheduler.parking.park(harness.plan(poor)[0].parked.values(), poor, NOW, "2026-11")
    december = datetime(2026, 12, 1, 0, 1, tzinfo=UTC)
    assert harness.scheduler.parking.unpark(poor, december) == 1, "the month has turned"


def test_what_a_run_really_cost_replaces_what_it_reserved(harness: Harness) -> None:
    budget = policy(tier(), tenants={"acme": TenantPolicy(budget=hard("1"))})
    harness.enlist(1, limits=budget)
    harness.admit(budget)
    held = harness.tables.queues.get("basic", "acme")
    assert (held.reserved_usd, held.spent_usd) == (Decimal("0.240003"), Decimal(0))
    harness.finish(harness.state(1), State.SUCCEEDED, execution=execution(harness.state(1), "0.05"))
    after_run = harness.tables.queues.get("basic", "acme")
    assert (after_run.reserved_usd, after_run.spent_usd) == (Decimal(0), Decimal("0.05"))


def test_time_really_used_is_charged_and_nothing_else(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit(seconds=10)
    harness.finish(harness.state(1), State.SUCCEEDED, now=after(70))
    assert harness.tables.queues.get("basic", "acme").service_ms == 60_000


def test_ends_that_come_together_are_settled_together_and_duplicates_among_them_once(harness: Harness) -> None:
    for number in (1, 2):
        harness.enlist(number, tenant_id=f"t{number}")
    harness.admit()
    one, two = (harness.state(number) for number in (1, 2))
    ends = [End(request=r, state=State.SUCCEEDED) for r in (one, two, one)]
    assert harness.completer.finish(ends, LIMITS, after(9)) == [True, True, False]
    assert harness.used() == (0, {})


def test_a_paused_tenant_or_tier_is_passed_over_and_comes_back(harness: Harness) -> None:
    harness.enlist(1)
    harness.enlist(2, tenant_id="other", tier="premium")
    harness.scheduler.operations.set_tenant_paused("basic", "acme", True, NOW)
    harness.tables.ledger.set_paused(True, "premium")
    assert harness.admit() == []
    harness.enlist(3)
    assert harness.admit() == [], "an upload does not resume it"
    harness.tables.ledger.set_paused(False, "premium")
    assert harness.admit() == [submission(2).request_id]
    harness.scheduler.operations.set_tenant_paused("basic", "acme", False, NOW)
    assert harness.admit() == [submission(1).request_id, submission(3).request_id]


def test_uploads_that_are_trained_on_alone_are_not_merged(harness: Harness) -> None:
    for number in (1, 2):
        harness.enlist(number, seconds=number, data_set="churn", alone=True)
    assert harness.admit(seconds=9) == [submission(1).request_id, submission(2).request_id]


def test_a_start_taken_over_makes_void_what_the_first_starter_meets(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    first = harness.state(1)
    assert harness.tables.requests.claim(first, after(200))
    assert not harness.tables.requests.claim(first, after(201))
    assert harness.completer.requeue(first, LIMITS, NOW, due_at=NOW, reason="refused", by_start=True) == []
    assert not harness.finish(first, State.FAILED, by_start=True)
    assert harness.finish(first, State.SUCCEEDED)


def test_a_count_put_wrong_by_hand_is_corrected_by_what_holds_a_slot(harness: Harness, store: Store) -> None:
    harness.enlist(1)
    harness.admit()
    store.transact([Update(LEDGER, add={"used/slots": 2, "used/tier/basic": 2})])
    assert harness.scheduler.operations.recount(after(0)) == {"slots": 2, "tier/basic": 2}
    assert harness.used() == (1, {"basic": 1})
    assert harness.scheduler.operations.recount(after(1)) == {}


def test_a_count_is_not_corrected_while_slots_are_taken_and_given_back(harness: Harness, store: Store) -> None:
    harness.enlist(1)
    harness.admit()
    store.transact([Update(LEDGER, add={"used/slots": 2, "used/tier/basic": 2})])
    busy = scheduler_over(Busy(store))
    assert busy.operations.recount(after(0)) == {}
    assert harness.used() == (3, {"basic": 3})


class Busy:
    """A store of which the ledger moves each time that holders are listed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.get, self.transact = store.get, store.transact

    def query(self, *given: Any, **named: Any) -> Page:
        self._store.transact([Update(LEDGER, add={"usage_version": 1})])
        return self._store.query(*given, **named)


def test_a_queue_that_names_a_holder_which_holds_nothing_is_put_right(harness: Harness, store: Store) -> None:
    harness.enlist(1, limits=TWO_SLOTS)
    harness.enlist(2, limits=TWO_SLOTS)
    harness.admit(TWO_SLOTS)
    store.transact([Update(request_key(submission(2).request_id), set={"state": State.FAILED.value})])
    wrong = harness.scheduler.operations.recount(after(0))
    assert (wrong["slots"], wrong["tier/basic"]) == (1, 1)
    queue = harness.tables.queues.get("basic", "acme")
    assert queue.holders == (submission(1).request_id,)
    assert (queue.units, queue.units_since_ms) == (1, milliseconds(NOW))
    assert harness.finish(harness.state(1), State.SUCCEEDED)
    assert (harness.tables.queues.get("basic", "acme").at_rest, harness.used()[0]) == (True, 0)


def test_all_who_hold_a_slot_are_listed_as_they_are(harness: Harness) -> None:
    limits = policy(tier(quota=9, running_max_per_tenant=9), tier("premium"), running_max=9)
    for number in range(1, 6):
        harness.enlist(number, limits=limits)
    harness.enlist(6, tenant_id="other", tier="premium", limits=limits)
    admitted = harness.admit(limits)
    assert sorted(request.request_id for request in harness.tables.held()) == sorted(admitted)
    assert len(harness.tables.held_by("acme")) == 5
    assert harness.finish(harness.state(3), State.FAILED)
    assert [request.request_id for request in harness.tables.held_by("other")] == [submission(6).request_id]
    assert submission(3).request_id not in {request.request_id for request in harness.tables.held()}
    assert harness.tables.held_by("nobody") == []
    assert harness.scheduler.operations.recount(after(70)) == {}


def test_policies_are_versions_that_the_ledger_names(harness: Harness, store: Store) -> None:
    book = policies_in_force(store, LIMITS)
    assert book.current().version == 0
    harness.enlist(1)
    plan, read_set = harness.plan()
    assert book.apply("other", NOW, note="more slots").version == 1
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, read_set, LIMITS, NOW)
    with pytest.raises(Conflict):
        harness.scheduler.admitter.read(LIMITS, NOW)
    assert book.rollback(0, after(1)).version == 2
    told = [(version.version, version.note) for version in book.history()]
    assert told == [(2, "rolled back to version 0"), (1, "more slots"), (0, "as deployed")]


def test_passes_are_kept_newest_first(harness: Harness) -> None:
    ledger = harness.tables.ledger.read()
    for number in range(3):
        harness.scheduler.admitter.keep_record(f"pass {number}".encode(), ledger, after(number))
    assert harness.scheduler.admitter.pass_records(NOW) == [b"pass 2", b"pass 1", b"pass 0"]


@of_many_items
def test_of_very_many_queues_a_pass_reads_a_bounded_number_and_those_with_the_least_tags(harness: Harness) -> None:
    quiet = replace(LIMITS, quiet_period=timedelta(seconds=5))
    for number in range(PAGE_MIN + 30):
        harness.enlist(number, seconds=number / 100, tenant_id=f"t{number:03}", limits=quiet)
    snapshot = harness.scheduler.admitter.read(quiet, after(60)).snapshot
    assert (len(snapshot.queues), snapshot.partial) == (PAGE_MIN, frozenset({"basic"}))
    assert harness.admit(quiet, seconds=60) == [submission(0).request_id, submission(1).request_id]


@of_many_items
def test_queues_that_lack_instances_use_up_no_read_limit(harness: Harness) -> None:
    taken = replace(TWO_LANES, instance_quotas={"training/ml.m5.large": 1})
    for number in range(PAGE_MIN + 10):
        harness.enlist(number, tenant_id=f"t{number:03}", limits=taken, content=BIG)
    harness.enlist(999, seconds=1, tenant_id="zz", limits=taken)
    assert harness.admit(taken, seconds=2) == [submission(999).request_id]


def test_for_a_large_request_of_a_full_tier_instances_are_saved_too(harness: Harness) -> None:
    basic = tier(quota=1, hold_age=timedelta(seconds=10), instances=(choice(10), choice(1000, instances=2)))
    limits = policy(basic, running_max=4, instance_quotas={"training/ml.m5.large": 2})
    harness.enlist(1, limits=limits)
    assert harness.admit(limits) == [submission(1).request_id]
    harness.enlist(2, tenant_id="large", limits=limits, content=BIG)
    plan, _ = harness.plan(limits, seconds=60)
    assert plan.capacity_holds == {"training/ml.m5.large": submission(2).request_id}


def test_a_queue_and_its_places_read_at_different_times_are_read_again(harness: Harness) -> None:
    harness.enlist(1)
    plan, read_set = harness.plan()
    (first,) = plan.admissions
    twice = replace(plan, admissions=(first, replace(first, entry=replace(first.entry, request_id="x"))))
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(twice, read_set, LIMITS, NOW)


def test_what_a_paused_tenant_has_waiting_counts_and_holds_its_tier_in_the_policy(
    harness: Harness, store: Store
) -> None:
    harness.enlist(1)
    harness.scheduler.operations.set_tenant_paused("basic", "acme", True, NOW)
    assert harness.tables.queues.backlog(LIMITS)["basic"].waiting == 1
    book = policies_in_force(store, LIMITS)
    gone = replace(LIMITS, tiers=LIMITS.tiers[1:])
    book = replace(book, parse=lambda text, version: replace(gone if text == "gone" else LIMITS, version=version))
    with pytest.raises(Refused, match=r"tiers\.basic is in use.*acme"):
        book.check("gone")


def test_a_queue_set_aside_for_its_tiers_budget_comes_back_when_there_is_enough(harness: Harness) -> None:
    shared = policy(tier(quota=4, running_max_per_tenant=4, budget=hard("0.06")), running_max=4)
    harness.enlist(1, limits=shared)
    harness.enlist(2, seconds=1, tenant_id="other", limits=shared)
    assert harness.admit(shared, seconds=2) == [submission(1).request_id]
    plan, _ = harness.plan(shared, seconds=3)
    harness.scheduler.parking.park(plan.parked.values(), shared, after(3), plan.month)
    assert harness.plan(shared, seconds=4)[1].snapshot.queues == ()
    assert harness.scheduler.parking.unpark(shared, after(60)) == 0
    ended = harness.state(1)
    harness.completer.finish(
        [End(request=ended, state=State.SUCCEEDED, execution=execution(ended, "0.01"))], shared, after(90)
    )
    assert harness.scheduler.parking.unpark(shared, after(120)) == 1
    assert harness.admit(shared, seconds=121) == [submission(2).request_id]


# --- few calls ----------------------------------------------------------------------------------------------


class Counting:
    """A store, and how often it was called."""

    def __init__(self, store: Store) -> None:
        self.store, self.calls = store, 0

    def __getattr__(self, name: str) -> Any:
        def called(*given: Any, **named: Any) -> Any:
            self.calls += 1
            return getattr(self.store, name)(*given, **named)

        return called


def wishes(*submissions: Any) -> list[EnlistCommand]:
    return [EnlistCommand(submission=one, not_before=NOW) for one in submissions]


def enlist_all(harness: Harness, *submissions: Any) -> list[Any]:
    found = harness.scheduler.enlister.read_for(submissions)
    return harness.scheduler.enlister.enlist_all(wishes(*submissions), found, LIMITS, NOW)


@of_many_items
def test_the_front_of_a_lane_is_always_the_first_of_its_places(harness: Harness) -> None:
    random = Random(3)
    wide = policy(tier(quota=40, running_max_per_tenant=40), running_max=40)
    waiting: list[int] = []
    for number in range(60):
        if waiting and random.random() < 0.4:
            gone = waiting.pop(random.randrange(len(waiting)))
            assert harness.completer.cancel(harness.state(gone), NOW)
        else:
            harness.enlist(number, seconds=random.uniform(0, 999), limits=wide)
            waiting.append(number)
        profiles = harness.tables.queues.get("basic", "acme").profiles
        if waiting:
            (profile,) = profiles.values()
            order = sorted(
                (harness.state(n) for n in waiting), key=lambda r: (r.due_at, r.arrived_at, r.request_id)
            )
            ids = [one.request_id for one in order]
            assert [entry.request_id for entry in profile.head_entries] == ids[: len(profile.head_entries)]
            assert profile.waiting == len(waiting)
            assert len(profile.head_entries) <= HEAD_ENTRIES_MAX
        else:
            assert not profiles


def test_what_a_pass_knows_after_its_commit_is_what_it_would_read(harness: Harness) -> None:
    limits = policy(tier(quota=2, running_max_per_tenant=2), tier("premium", quota=2), running_max=9)
    for number in range(4):
        harness.enlist(number, tenant_id=f"t{number % 2}", limits=limits)
    harness.enlist(9, tier="premium", tenant_id="other", limits=limits)
    plan, read_set = harness.plan(limits)
    after_commit = harness.scheduler.admitter.commit(
        replace(plan, admissions=plan.admissions[:2]), read_set, limits, NOW
    ).read_set
    assert after_commit is not None
    assert after_commit.snapshot == harness.scheduler.admitter.read(limits, NOW).snapshot
    assert after_commit.ledger == {
        n: v for n, v in harness.scheduler.admitter.read(limits, NOW).ledger.items() if n in after_commit.ledger
    }


def test_a_batch_is_enlisted_in_one_read_and_one_transaction_that_rings(harness: Harness, store: Store) -> None:
    many = [submission(n, tenant_id=f"t{n % 3}") for n in range(10)]
    counting = Counting(store)
    enlisted = enlist_all(Harness(counting), *many)
    assert ([one.kind for one in enlisted], counting.calls) == ([Enlistment.QUEUED] * 10, 2)
    (bell,) = store.get(BELL)
    assert bell is not None
    named = bell_ring_from(bell).hints or ()
    assert {hint.request_id for hint in named} == {one.request_id for one in many}
    assert [harness.state(n).state for n in range(10)] == [State.QUEUED] * 10
    assert [harness.tables.queues.get("basic", f"t{n}").waiting for n in range(3)] == [4, 3, 3]


def test_of_a_batch_what_is_known_or_of_one_data_set_is_merged_as_ever(harness: Harness) -> None:
    harness.enlist(1)
    newer = submission(3, data_set="churn", content=content(event_time=after(9)))
    enlisted = enlist_all(harness, submission(1), submission(2, data_set="churn"), newer, submission(4))
    kinds = [one.kind for one in enlisted]
    assert kinds == [Enlistment.DUPLICATE, Enlistment.QUEUED, Enlistment.REPLACED, Enlistment.QUEUED]
    assert [harness.state(n).state for n in (1, 2, 3, 4)] == [
        State.QUEUED,
        State.SUPERSEDED,
        State.QUEUED,
        State.QUEUED,
    ]


def test_many_of_one_tenant_are_enlisted_in_several_transactions(harness: Harness) -> None:
    enlisted = enlist_all(harness, *(submission(n) for n in range(90)))
    assert {one.kind for one in enlisted} == {Enlistment.QUEUED}
    queue = harness.tables.queues.get("basic", "acme")
    assert (queue.waiting, queue.revision) == (90, 2)


def test_a_ring_that_names_all_that_waits_is_enough_for_a_pass(harness: Harness, store: Store) -> None:
    harness.enlist(1)
    assert harness.admit() == [submission(1).request_id]  # nothing is left: all was heard
    enlist_all(harness, submission(2, tier="premium", tenant_id="other"))
    (bell,) = store.get(BELL)
    assert bell is not None
    counting = Counting(store)
    seen = Harness(counting).scheduler.admitter.read(LIMITS, NOW, [bell_ring_from(bell)])
    assert counting.calls == 1
    assert [waiting.queue.tenant_id for waiting in seen.snapshot.queues] == ["other"]
    committed = harness.scheduler.admitter.commit(decide(seen.snapshot, LIMITS, NOW), seen, LIMITS, NOW)
    assert committed.requests[submission(2).request_id] == harness.state(2)


def test_rings_that_do_not_name_all_that_waits_are_not_relied_on(harness: Harness, store: Store) -> None:
    def told(*rings: BellRing) -> list[str]:
        return [one.queue.tenant_id for one in harness.scheduler.admitter.read(LIMITS, NOW, rings).snapshot.queues]

    enlist_all(harness, submission(1))
    (bell,) = store.get(BELL)
    assert bell is not None
    ring = bell_ring_from(bell)
    enlist_all(harness, submission(2, tenant_id="other"))
    assert told(ring) == ["acme", "other"]  # the second ring is missing
    harness.admit()
    harness.finish(harness.state(1), State.SUCCEEDED)
    harness.enlist(3, tenant_id="third")
    store.transact([Update(BELL, add={"rings": 1}, remove=("hints",))])
    (bell,) = store.get(BELL)
    assert bell is not None
    assert "third" in told(bell_ring_from(bell))  # a ring that names nothing


def test_an_end_wakes_a_pass_only_while_somebody_waits(harness: Harness, store: Store) -> None:
    def ledger() -> tuple[Any, Any]:
        (item,) = store.get(LEDGER)
        assert item is not None
        return item.get("by"), item.get("waiting")

    for number in (1, 2, 3):
        harness.enlist(number)
    harness.admit()
    assert ledger() == (BY_PASS, SOMEBODY)
    harness.finish(harness.state(1), State.SUCCEEDED)
    assert ledger() == (BY_END, SOMEBODY)
    assert harness.admit() == [submission(3).request_id]
    assert ledger() == (BY_PASS, NOBODY)
    harness.finish(harness.state(2), State.SUCCEEDED)
    assert ledger() == (BY_END, NOBODY)


def test_that_somebody_waits_is_noted_only_if_no_end_came_in_between(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    seen = harness.scheduler.admitter.read(LIMITS, NOW)
    harness.finish(harness.state(1), State.SUCCEEDED)  # it wakes nobody
    with pytest.raises(Conflict):
        harness.tables.ledger.note_waiting(seen.ledger)


@of_many_items
def test_ends_of_many_tenants_are_settled_together_and_wake_once(harness: Harness, store: Store) -> None:
    wide = policy(tier(quota=60, running_max_per_tenant=60), running_max=60)
    for number in range(50):
        harness.enlist(number, tenant_id=f"t{number % 7}", limits=wide)
    while harness.admit(wide):
        pass
    counting = Counting(store)
    ends = [End(request=harness.state(number), state=State.SUCCEEDED) for number in range(50)]
    assert Harness(counting).scheduler.completer.finish(ends, wide, after(9)) == [True] * 50
    assert counting.calls <= 9  # three transactions, and two reads for each
    assert harness.used() == (0, {})
    assert harness.completer.finish(ends, wide, after(9)) == [False] * 50


def test_starts_are_recorded_together_but_for_those_that_have_ended(harness: Harness) -> None:
    wide = policy(tier(quota=9, running_max_per_tenant=9), running_max=9)
    for number in range(4):
        harness.enlist(number, limits=wide)
    harness.admit(wide)
    admitted = [harness.state(number) for number in range(4)]
    harness.finish(admitted[2], State.SUCCEEDED)
    pairs = [(one, f"arn/{one.request_id}") for one in admitted]
    assert harness.tables.requests.note_all_running(pairs, NOW) == {one.request_id for one in admitted} - {
        admitted[2].request_id
    }
    assert [harness.state(n).state for n in range(4)] == [
        State.RUNNING,
        State.RUNNING,
        State.SUCCEEDED,
        State.RUNNING,
    ]


# --- what a review found --------------------------------------------------------------------------------------


@of_many_items
def test_more_of_one_tenant_than_a_transaction_takes_are_admitted_in_several(harness: Harness) -> None:
    wide = policy(tier(quota=60, running_max_per_tenant=60, instances=SIZES), running_max=60)
    for number in range(60):
        harness.enlist(number, limits=wide, content=content(size_bytes=(number % 3) * 40_000_000 + 1000))
    done: list[str] = []
    for _ in range(4):
        read_set = harness.scheduler.admitter.read(wide, after(100))
        plan = decide(read_set.snapshot, wide, after(100), admissions_max=48)
        if plan.admissions:
            admitted = harness.scheduler.admitter.commit(plan, read_set, wide, after(100)).admissions
            assert admitted, "a commit admits somebody"
            done += [decision.entry.request_id for decision in admitted]
    assert len(set(done)) == 60


def test_a_batch_of_many_lanes_fits_its_transactions(harness: Harness) -> None:
    wide = policy(tier(quota=4, running_max_per_tenant=4, instances=SIZES), running_max=4)
    sizes = [1_000, 41_000_000, 81_000_000] + [1_000] * 97
    many = [submission(n, content=content(size_bytes=size)) for n, size in enumerate(sizes)]
    found = harness.scheduler.enlister.read_for(many)
    enlisted = harness.scheduler.enlister.enlist_all(wishes(*many), found, wide, NOW)
    assert {one.kind for one in enlisted} == {Enlistment.QUEUED}  # type: ignore[union-attr]
    assert harness.tables.queues.get("basic", "acme").waiting == 100


QUIET = replace(LIMITS, quiet_period=timedelta(seconds=30))
"""Under which nothing that is enlisted is due at once."""


def later(store: Store) -> Later:
    (bell,) = store.get(BELL)
    return later_from(bell)


def test_what_is_due_later_is_noted_and_rings_nothing(harness: Harness, store: Store) -> None:
    harness.enlist(1, limits=QUIET)
    harness.enlist(2, limits=QUIET, seconds=5)
    harness.enlist(3, limits=QUIET, tenant_id="other", tier="premium")
    (bell,) = store.get(BELL)
    assert bell is not None
    assert (bell["by"], bell.get("rings", 0), wakes_dispatcher(BELL, bell)) == (BY_NOTE, 0, False)
    assert later(store).due_at == {("basic", "acme"): after(30), ("premium", "other"): after(30)}


def test_what_was_due_before_is_noted_with_what_is_due_later(harness: Harness, store: Store) -> None:
    """It may have been parked, and passes that read only what they are told of must read its queue now."""
    harness.enlist(1, data_set="first")
    harness.enlist(2, limits=QUIET, seconds=5, data_set="second")
    assert later(store).due_at == {("basic", "acme"): after(0)}


def test_a_pass_that_is_told_of_every_ring_reads_what_is_noted_and_due_too(harness: Harness, store: Store) -> None:
    harness.enlist(1)
    assert harness.admit() == [submission(1).request_id]  # nothing is left
    harness.enlist(2, limits=QUIET, tier="premium", tenant_id="other")
    harness.enlist(3, tenant_id="third", seconds=20)
    (bell,) = store.get(BELL)
    assert bell is not None

    def read(seconds: float) -> tuple[bool, list[str]]:
        read_set = harness.scheduler.admitter.read(LIMITS, after(seconds), [bell_ring_from(bell)])
        return read_set.from_hints, [waiting.queue.tenant_id for waiting in read_set.snapshot.queues]

    assert read(29) == (True, ["third"])
    # Its own ring is late, or lost.
    assert read(30) == (True, ["third", "other"])


def test_a_queue_that_is_noted_leaves_nothing_to_hear_of(harness: Harness, store: Store) -> None:
    harness.enlist(1, limits=QUIET, tier="premium", tenant_id="other")
    harness.enlist(2)
    assert harness.admit() == [submission(2).request_id]
    ledger = harness.tables.ledger.read()
    assert ledger.drained_through == 1
    # Without its note, it is something that nobody would be told of.
    store.transact([Update(BELL, remove=("later/premium other",))])
    harness.enlist(3)
    harness.admit()
    assert harness.tables.ledger.read().drained_through is None


@pytest.mark.parametrize(("due", "settled"), [(31, True), (30, True), (29, False)])
def test_a_note_settles_a_queue_only_if_it_is_not_later_than_its_first_request(
    harness: Harness, due: float, settled: bool
) -> None:
    harness.enlist(1, limits=QUIET)
    queue = harness.tables.queues.get("basic", "acme")
    noted = Later(due_at={("basic", "acme"): after(60 - due)}, complete=True, version=1)
    assert noted.settles(queue, after(0)) == settled
    assert not noted.settles(queue, after(30))
    assert not replace(noted, complete=False).settles(queue, after(0))
    assert not replace(noted, due_at={}).settles(queue, after(0))


def test_a_ring_that_names_a_request_takes_its_queues_note_away(harness: Harness, store: Store) -> None:
    harness.enlist(1, limits=QUIET)
    harness.enlist(2, limits=QUIET, tenant_id="other", tier="premium")
    store.transact([ring([Hint("basic", "acme", submission(1).request_id)])])
    assert list(later(store).due_at) == [("premium", "other")]
    (bell,) = store.get(BELL)
    assert bell is not None
    assert bell_ring_from(bell) == BellRing(1, (Hint("basic", "acme", submission(1).request_id),))
    assert wakes_dispatcher(BELL, bell)


def test_too_many_notes_are_given_up_until_all_queues_were_read(harness: Harness, store: Store) -> None:
    wide = replace(QUIET, quiet_period=timedelta(seconds=600))
    for number in range(LATER_MAX + 2):
        harness.enlist(number + 1, limits=wide, tenant_id=f"t{number}")
    assert (later(store).complete, dict(later(store).due_at)) == (False, {})
    read_set = harness.scheduler.admitter.read(LIMITS, after(1))
    harness.scheduler.admitter.put_bell_right(read_set, after(1))
    assert not later(store).complete, "they are still too many"
    for number in (1, 2):
        assert harness.completer.cancel(harness.state(number), after(2)), "nothing waits in its queue any more"
    read_set = harness.scheduler.admitter.read(LIMITS, after(3))
    harness.enlist(90, limits=wide, tenant_id="t5", seconds=3)
    with pytest.raises(Conflict):  # what was enlisted since might be left out
        harness.scheduler.admitter.put_bell_right(read_set, after(3))
    read_set = harness.scheduler.admitter.read(LIMITS, after(4))
    harness.scheduler.admitter.put_bell_right(read_set, after(4))
    assert (later(store).complete, len(later(store).due_at)) == (True, LATER_MAX)
    read_set = harness.scheduler.admitter.read(LIMITS, after(4))
    version = later(store).version
    harness.scheduler.admitter.put_bell_right(read_set, after(4))
    assert later(store).version == version, "nothing is to be put right"


def test_notes_of_queues_in_which_nothing_waits_are_taken_away(harness: Harness, store: Store) -> None:
    harness.enlist(1, limits=QUIET)
    assert harness.admit(seconds=30) == [submission(1).request_id]
    assert list(later(store).due_at) == [("basic", "acme")]
    harness.scheduler.admitter.put_bell_right(harness.scheduler.admitter.read(LIMITS, after(31)), after(31))
    assert dict(later(store).due_at) == {}


def test_what_passes_can_read_again_is_not_left_to_what_rings_name(harness: Harness, store: Store) -> None:
    """A tenant that is resumed, or a queue that is no longer parked: no ring names them."""
    dear = replace(LIMITS, tenants={"acme": TenantPolicy(budget=hard("0.000001"))})

    def drained() -> int | None:
        return harness.tables.ledger.read().drained_through

    harness.enlist(1, limits=dear)
    plan, _ = harness.plan(dear)
    harness.scheduler.parking.park(plan.parked.values(), dear, NOW, plan.month)
    harness.enlist(2, tenant_id="other")
    harness.admit()
    assert drained() == 2
    assert harness.scheduler.parking.unpark(LIMITS, after(86_400 * 40)) == 1
    assert drained() is None
    harness.admit(seconds=86_400 * 40)
    for number in (1, 2):
        harness.finish(harness.state(number), State.SUCCEEDED, now=after(86_400 * 40))
    harness.scheduler.operations.set_tenant_paused("basic", "third", True, NOW)
    harness.enlist(3, tenant_id="third")
    harness.enlist(4, tier="premium", tenant_id="fourth")
    assert harness.admit(seconds=86_400 * 40) == [submission(4).request_id]
    assert drained() == 4
    harness.scheduler.operations.set_tenant_paused("basic", "third", False, NOW)
    assert drained() is None


def test_a_pass_that_did_not_read_all_puts_nothing_right(harness: Harness, store: Store) -> None:
    harness.enlist(1, limits=QUIET)
    read_set = harness.scheduler.admitter.read(LIMITS, after(1))
    for partly in (replace(read_set, rings=None), replace(read_set, from_hints=True)):
        nothing = replace(partly, snapshot=replace(partly.snapshot, queues=()))
        harness.scheduler.admitter.put_bell_right(nothing, after(1))
    assert list(later(store).due_at) == [("basic", "acme")]


def test_a_ring_names_all_that_a_batch_enlisted_or_nothing(harness: Harness, store: Store) -> None:
    enlist_all(harness, *(submission(n, tenant_id=f"t{n}") for n in range(HINTS_MAX + 1)))
    (bell,) = store.get(BELL)
    assert bell is not None
    assert bell_ring_from(bell).hints is None
    enlist_all(harness, submission(90))
    (bell,) = store.get(BELL)
    assert bell is not None
    assert bell_ring_from(bell) == BellRing(2, (Hint("basic", "acme", submission(90).request_id),))
    enlist_all(harness, *(submission(100 + n, tenant_id=f"t{n}") for n in range(3)))
    (bell,) = store.get(BELL)
    assert bell is not None
    assert [hint.request_id for hint in bell_ring_from(bell).hints or ()] == [
        submission(100 + n).request_id for n in range(3)
    ]


def test_an_end_that_comes_before_somebody_is_left_waiting_undoes_the_commit(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()  # nobody waits: an end wakes nobody
    for number in (2, 3):
        harness.enlist(number)
    plan, read_set = harness.plan()
    harness.finish(harness.state(1), State.SUCCEEDED)
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, read_set, LIMITS, NOW)
    assert harness.admit() == [submission(2).request_id, submission(3).request_id]


def test_what_goes_back_to_the_queue_meanwhile_undoes_a_commit_that_leaves_nobody(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    harness.enlist(2, tier="premium", tenant_id="other")
    plan, read_set = harness.plan()
    harness.completer.requeue(harness.state(1), LIMITS, NOW, due_at=after(60), reason="throttled")
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, read_set, LIMITS, NOW)
    assert harness.admit() == [submission(2).request_id]
    assert harness.tables.ledger.read().drained_through is None


def test_a_pass_that_no_ring_woke_reads_all_that_waits(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    harness.enlist(2, tier="premium", tenant_id="other")  # without a ring
    seen = harness.scheduler.admitter.read(LIMITS, NOW, [])
    assert [waiting.queue.tenant_id for waiting in seen.snapshot.queues] == ["other"]


def test_the_start_of_a_training_is_noted_where_the_next_must_keep_an_interval(harness: Harness) -> None:
    rules, key = RetrainingSettings(interval_minutes=10), past_key("acme", "churn")
    enlist = harness.scheduler.enlister.enlist
    enlist(submission(1, data_set="churn"), LIMITS, NOW, rules=rules)
    harness.admit(seconds=5)
    (item,) = harness.tables.store.get(key)
    assert last_start(item) == after(5)
    assert harness.finish(harness.state(1), State.SUCCEEDED, execution=execution(harness.state(1)))
    (item,) = harness.tables.store.get(key)
    assert (last_start(item), len(past_from(item))) == (after(5), 1), "neither write loses the other's"
    past = trainings_from(item).trained
    assert past is not None
    assert past.request_id == submission(1).request_id
    comer = enlist(submission(2, data_set="churn"), LIMITS, after(60), rules=rules).request
    assert comer.due_at == after(605)
    assert harness.admit(seconds=604) == []
    assert harness.admit(seconds=605) == [comer.request_id]


def test_uploads_that_are_collected_are_counted_once_and_start_together(harness: Harness) -> None:
    rules = RetrainingSettings(files=3)
    for number in (1, 2, 2, 3):
        newest = content(key=f"incoming/churn/{number}.csv", event_time=after(number), size_bytes=number)
        each = submission(number, data_set="churn", content=newest, triggers=("upload",))
        harness.scheduler.enlister.enlist(each, LIMITS, after(number), rules=rules)
        assert bool(harness.admit(seconds=number)) == (number == 3)
    started = harness.state(3)
    assert (started.collected, started.triggers, started.collects) == (Collected(3, 6, 0), ("upload",), False)
