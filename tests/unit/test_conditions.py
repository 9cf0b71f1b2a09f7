"""The conditions of the protocol's writes that only a race needs: changes between a read and its write.

They run over the store in memory; tests/conformance shows that other stores treat conditions in the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from testing.memory_store import MemoryStore
from testing.service import policies_in_force, scheduler_over
from tests.build import NOW, after, execution, hard, policy, submission, tier
from tests.conformance.test_scheduler import LIMITS, Harness, enlist_all
from trainyard.application.scheduling.completion import End
from trainyard.application.scheduling.enlistment import Enlistment
from trainyard.domain.errors import Conflict
from trainyard.domain.requests import Outcome, Request, State
from trainyard.persistence.ledger import LEDGER
from trainyard.persistence.policies import IN_FORCE, _history_key
from trainyard.persistence.requests import request_key
from trainyard.persistence.store import Item, Key, Put, Store, Update, Write
from trainyard.persistence.tenant_queues import entry_key


class Interrupted:
    """A store in which something else is done between the first read and the first write."""

    def __init__(self, store: Store, meanwhile: Callable[[], object]) -> None:
        self._store, self._meanwhile = store, [meanwhile]
        self.get, self.query = store.get, store.query

    def transact(self, writes: Sequence[Write]) -> None:
        if self._meanwhile:
            self._meanwhile.pop()()
        self._store.transact(writes)


@pytest.fixture
def store() -> Store:
    return MemoryStore()


@pytest.fixture
def harness(store: Store) -> Harness:
    return Harness(store)


def test_an_end_met_by_a_starter_is_void_when_its_start_is_taken_over_meanwhile(
    harness: Harness, store: Store
) -> None:
    harness.enlist(1)
    harness.admit()
    first = harness.state(1)
    harness.scheduler = scheduler_over(
        Interrupted(store, lambda: Harness(store).scheduler.tables.requests.claim(first, after(200)))
    )
    end = End(request=first, state=State.FAILED, reason="refused", by_start=True)
    assert harness.completer.finish([end], LIMITS, after(201)) == [False]
    assert (harness.state(1).state, harness.state(1).claimed_at) == (State.ADMITTED, after(200))
    assert harness.used() == (1, {"basic": 1})


def test_a_starter_puts_nothing_back_of_which_the_start_is_taken_over_meanwhile(
    harness: Harness, store: Store
) -> None:
    harness.enlist(1)
    harness.admit()
    first = harness.state(1)
    harness.scheduler = scheduler_over(
        Interrupted(store, lambda: Harness(store).scheduler.tables.requests.claim(first, after(200)))
    )
    late: dict[str, Any] = {"due_at": after(300), "reason": "refused for now", "by_start": True}
    assert harness.completer.requeue(first, LIMITS, after(201), **late) == []
    assert (harness.state(1).state, harness.state(1).claimed_at) == (State.ADMITTED, after(200))
    assert harness.used() == (1, {"basic": 1})


@pytest.mark.parametrize("ends", [True, False], ids=["finish", "requeue"])
def test_what_ends_an_attempt_leaves_the_next_one_alone(harness: Harness, store: Store, ends: bool) -> None:
    harness.enlist(1)
    harness.admit()
    first = harness.state(1)

    def next_attempt() -> None:
        other = Harness(store)
        other.scheduler.completer.requeue(first, LIMITS, after(1), due_at=after(1), reason="capacity")
        assert other.admit(seconds=2) == [first.request_id]

    harness.scheduler = scheduler_over(Interrupted(store, next_attempt))
    if ends:
        assert harness.completer.finish([End(request=first, state=State.FAILED)], LIMITS, after(3)) == [False]
    else:
        assert harness.completer.requeue(first, LIMITS, after(3), due_at=after(9), reason="capacity") == []
    assert (harness.state(1).state, harness.state(1).attempt) == (State.ADMITTED, 2)
    assert harness.used() == (1, {"basic": 1})


@pytest.mark.parametrize("how", ["finish", "requeue"])
@pytest.mark.parametrize(
    "now", [State.ADMITTED, State.QUEUED, State.SUCCEEDED], ids=["next-attempt", "put-back", "ended"]
)
def test_what_ends_an_attempt_on_a_torn_read_ends_nothing_else(
    harness: Harness, store: Store, how: str, now: State
) -> None:
    """The request is read as it was, and the queue beside it as it is: its revision objects to nothing."""
    for number in (1, 2):
        harness.enlist(number)
    harness.admit()
    first = harness.state(1)
    key = request_key(first.request_id)
    (before,) = store.get(key)
    if now is State.SUCCEEDED:
        harness.finish(first, State.SUCCEEDED)
    else:
        harness.completer.requeue(first, LIMITS, after(1), due_at=after(1), reason="capacity")
    if now is State.ADMITTED:
        assert harness.admit(seconds=2) == [first.request_id]
    held = harness.used()
    assert before is not None
    torn = scheduler_over(Torn(store, key, before))
    if how == "finish":
        assert torn.completer.finish([End(request=first, state=State.FAILED)], LIMITS, after(3)) == [False]
    else:
        assert torn.completer.requeue(first, LIMITS, after(3), due_at=after(9), reason="capacity") == []
    assert (harness.state(1).state, harness.used()) == (now, held)


class Torn:
    """A store whose first read of an item is of an earlier moment than that of what is read beside it."""

    def __init__(self, store: Store, key: Key, earlier: Item | None) -> None:
        self._store, self._key, self._earlier = store, key, [earlier]
        self.query, self.transact = store.query, store.transact

    def get(self, *keys: Key) -> list[Item | None]:
        items = self._store.get(*keys)
        if self._key in keys and self._earlier:
            items[keys.index(self._key)] = self._earlier.pop()
        return items


def test_a_start_is_taken_over_of_the_attempt_that_was_read_alone(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    first = harness.state(1)
    harness.completer.requeue(first, LIMITS, after(1), due_at=after(1), reason="capacity")
    assert harness.admit(seconds=2) == [first.request_id]
    assert not harness.tables.requests.claim(first, after(200))
    assert harness.tables.requests.claim(harness.state(1), after(200))


@pytest.mark.parametrize("torn", ["content", "attempt"])
def test_a_commit_on_a_torn_read_admits_nothing(harness: Harness, store: Store, torn: str) -> None:
    """A batch of reads is no snapshot: the queue can be newer than a request read beside it. What the dispatcher
    starts is made of that request: of older content, or with the token of an earlier attempt.
    """
    harness.enlist(1)
    plan, read_set = harness.plan()
    item = read_set.requests.get(submission(1).request_id) or store.get(request_key(submission(1).request_id))[0]
    assert item is not None
    older: dict[str, Item] = {
        "content": item["content"] | {"etag": "of an older upload"},
        "attempt": item["attempt"] + 1,
    }
    seen = replace(read_set, requests={submission(1).request_id: item | {torn: older[torn]}})
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, seen, LIMITS, NOW)
    assert harness.used() == (0, {})
    whole = replace(read_set, requests={submission(1).request_id: item})
    assert harness.scheduler.admitter.commit(plan, whole, LIMITS, NOW).admissions


def test_what_was_decided_before_sagemaker_took_no_more_holds_no_longer(harness: Harness) -> None:
    harness.enlist(1)
    plan, read_set = harness.plan()
    harness.tables.ledger.throttle(after(600))
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, read_set, LIMITS, NOW)
    assert harness.used() == (0, {})


def test_what_was_decided_before_a_tiers_budget_had_less_left_holds_no_longer(harness: Harness) -> None:
    limits = policy(tier(quota=1, running_max_per_tenant=1, budget=hard("100")), running_max=1)
    harness.enlist(1, limits=limits)
    harness.admit(limits)
    ended = harness.state(1)
    record = execution(ended, "0.05")
    end = End(request=ended, state=State.SUCCEEDED, execution=record)
    assert harness.completer.finish([end], limits, after(60)) == [True]
    for number in (2, 3):  # more than can go, so that the commit rests on no end that came in between
        harness.enlist(number, limits=limits, tenant_id="other")
    harness.tables.ledger.note_waiting(harness.plan(limits, 61)[1].ledger)
    plan, read_set = harness.plan(limits, 61)
    assert len(plan.admissions) == 1
    dearer = execution(ended, "99", revision=record.revision + 1)
    harness.completer.correct(record, dearer, limits, after(62))
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, read_set, limits, after(63))


def test_what_sagemaker_takes_is_not_noted_by_a_count_that_has_changed(harness: Harness, store: Store) -> None:
    for number in (1, 2):
        harness.enlist(number)

    def admit() -> None:
        assert harness.admit()

    racing = scheduler_over(Interrupted(store, admit))
    with pytest.raises(Conflict):
        racing.tables.ledger.throttle(after(600))
    assert harness.tables.ledger.read().throttled_to != 1


def test_what_was_decided_before_a_count_was_put_right_holds_no_longer(harness: Harness, store: Store) -> None:
    harness.enlist(1)
    plan, read_set = harness.plan()
    store.transact([Update(LEDGER, add={"used/slots": 2, "used/tier/basic": 2, "usage_version": 1})])
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(
            plan, read_set, policy(tier(quota=2, running_max_per_tenant=2), running_max=2), NOW
        )


def test_one_that_is_asked_to_stop_while_it_is_put_back_is_stopped(harness: Harness, store: Store) -> None:
    harness.enlist(1)
    harness.admit()
    first = harness.state(1)
    asks = Interrupted(store, lambda: Harness(store).scheduler.tables.requests.ask_to_stop(first, after(1)))
    racing = scheduler_over(asks)
    (changed,) = racing.completer.requeue(first, LIMITS, after(2), due_at=after(9), reason="capacity")
    assert (changed.state, harness.state(1).state, harness.used()) == (State.STOPPED, State.STOPPED, (0, {}))


def test_two_uploads_of_a_tenant_at_once_both_wait(harness: Harness, store: Store) -> None:
    racing = Harness(store)
    racing.scheduler = scheduler_over(Interrupted(store, lambda: harness.enlist(1, data_set="one")))
    racing.enlist(2, data_set="two")
    assert {r.data_set for r in harness.tables.waiting_of("basic", "acme")} == {"one", "two"}
    assert harness.tables.queues.backlog(LIMITS)["basic"].waiting == 2
    assert len(harness.admit(seconds=5)) == 2


def test_an_upload_whose_data_set_was_read_as_free_takes_no_others_place(harness: Harness, store: Store) -> None:
    harness.enlist(1, data_set="churn")
    racing = Harness(store)
    entry = entry_key(submission(1, data_set="churn"))
    racing.scheduler = scheduler_over(Torn(store, entry, None))
    racing.enlist(2, data_set="churn", seconds=1)
    assert harness.state(1).state is State.SUPERSEDED
    assert harness.admit(seconds=5) == [submission(2).request_id]


def test_a_place_that_was_read_of_another_request_admits_nothing(harness: Harness, store: Store) -> None:
    harness.enlist(1, data_set="churn")
    plan, read_set = harness.plan()
    entry = entry_key(submission(1, data_set="churn"))
    store.transact([Update(entry, set={"request_id": submission(2).request_id})])
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, read_set, LIMITS, NOW)
    assert harness.used() == (0, {})


def test_no_count_falls_below_what_others_hold(harness: Harness, store: Store) -> None:
    """A count that was lowered by hand is corrected first: below zero it would admit more than the limit."""
    harness.enlist(1)
    harness.admit()
    store.transact([Update(LEDGER, add={"used/slots": -1, "used/tier/basic": -1})])
    with pytest.raises(Conflict):
        harness.finish(harness.state(1), State.SUCCEEDED)
    assert harness.tables.ledger.read().used == 0
    harness.scheduler.operations.recount(after(0))
    assert harness.finish(harness.state(1), State.SUCCEEDED)
    assert harness.used() == (0, {})


def test_a_redelivery_that_was_read_as_unknown_undoes_no_end(harness: Harness, store: Store) -> None:
    harness.enlist(1, data_set="churn", seconds=1)
    harness.admit(seconds=1)
    assert harness.finish(harness.state(1), State.SUCCEEDED)
    harness.enlist(2, data_set="churn")
    racing = Harness(store)
    racing.scheduler = scheduler_over(Torn(store, request_key(submission(1).request_id), None))
    racing.enlist(1, data_set="churn", seconds=1)
    assert harness.state(1).state is State.SUCCEEDED
    assert harness.state(2).state is State.QUEUED


@pytest.mark.parametrize("how", ["merge", "requeue"])
def test_a_request_that_was_changed_by_hand_is_not_written_over(harness: Harness, store: Store, how: str) -> None:
    """Queue and place say that it waits; only its own item knows better."""
    if how == "requeue":
        harness.enlist(1, data_set="churn")
        harness.admit()
    harness.enlist(2, data_set="churn", seconds=5)
    key = request_key(submission(2).request_id)
    by_hand = Interrupted(store, lambda: store.transact([Update(key, set={"state": State.CANCELLED.value})]))
    racing = Harness(store)
    racing.scheduler = scheduler_over(by_hand)
    late: dict[str, Any] = {"due_at": after(9), "reason": "capacity"}
    acts: dict[str, Callable[[], object]] = {
        "merge": lambda: racing.enlist(3, data_set="churn", seconds=9),
        "requeue": lambda: racing.scheduler.completer.requeue(harness.state(1), LIMITS, after(9), **late),
    }
    with pytest.raises(Conflict):
        acts[how]()
    assert harness.state(2).state is State.CANCELLED


def test_a_stop_is_noted_of_the_attempt_that_was_read_alone(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    first = harness.state(1)
    harness.completer.requeue(first, LIMITS, after(1), due_at=after(1), reason="capacity")
    assert not harness.tables.requests.ask_to_stop(first, after(2))
    assert harness.admit(seconds=2) == [first.request_id]
    assert not harness.tables.requests.ask_to_stop(first, after(3))
    assert harness.state(1).stop_asked_at is None
    assert harness.tables.requests.ask_to_stop(harness.state(1), after(4))


def test_that_a_request_was_asked_about_is_noted_of_its_running_attempt_alone(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    first = harness.state(1)
    harness.tables.requests.note_heard([first], after(1))
    assert harness.state(1).heard_at is None, "it does not run yet"
    harness.tables.requests.note_running(first, "arn:execution/1", after(1))
    harness.completer.requeue(first, LIMITS, after(2), due_at=after(2), reason="capacity")
    harness.admit(seconds=3)
    harness.tables.requests.note_running(harness.state(1), "arn:execution/2", after(3))
    harness.tables.requests.note_heard([first], after(4))
    assert harness.state(1).heard_at is None, "another attempt runs"
    harness.enlist(2, data_set="other")
    harness.admit(seconds=4)
    harness.tables.requests.note_heard([harness.state(2), harness.state(1)], after(5))
    assert harness.state(2).heard_at is None
    assert harness.state(1).heard_at == after(5), "one that is past it keeps no other from being noted"


def test_a_start_that_has_been_recorded_meanwhile_is_not_taken_over(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    first = harness.state(1)
    harness.tables.requests.note_running(first, "arn:execution/1", after(1))
    assert not harness.tables.requests.claim(first, after(200))
    assert harness.state(1).claimed_at is None


@pytest.mark.parametrize("meanwhile", ["claimed again", "recorded"])
@pytest.mark.parametrize("ends", [True, False], ids=["finish", "requeue"])
def test_a_start_given_up_holds_if_another_starts_it_meanwhile(
    harness: Harness, store: Store, ends: bool, meanwhile: str
) -> None:
    """Simulator's seed 471: the sweeper gave up a start, by its clock too old, that another had just claimed."""
    harness.enlist(1)
    harness.admit()
    assert harness.tables.requests.claim(harness.state(1), after(200))
    claimed = harness.state(1)

    def other() -> None:
        if meanwhile == "claimed again":
            assert Harness(store).scheduler.tables.requests.claim(claimed, after(400))
        else:
            Harness(store).scheduler.tables.requests.note_running(claimed, "arn:execution/1", after(400))

    harness.scheduler = scheduler_over(Interrupted(store, other))
    if ends:
        end = End(request=claimed, state=State.FAILED, reason="never answered", by_start=True)
        assert harness.completer.finish([end], LIMITS, after(1200)) == [False]
    else:
        late: dict[str, Any] = {"due_at": after(1300), "reason": "never answered", "by_start": True}
        assert harness.completer.requeue(claimed, LIMITS, after(1200), **late) == []
    assert harness.state(1).state in (State.ADMITTED, State.RUNNING)
    assert harness.used() == (1, {"basic": 1})


def test_a_cost_that_is_put_right_brings_no_forgotten_request_back(harness: Harness, store: Store) -> None:
    harness.enlist(1)
    harness.admit()
    ended = harness.state(1)
    record = execution(ended, "0.05")
    end = End(request=ended, state=State.SUCCEEDED, execution=record)
    assert harness.completer.finish([end], LIMITS, after(60)) == [True]
    forgets = Interrupted(store, lambda: harness.tables.requests.forget(harness.state(1)))
    dearer = execution(ended, "0.07", revision=record.revision + 1)
    with pytest.raises(Conflict):
        scheduler_over(forgets).completer.correct(record, dearer, LIMITS, after(90))
    assert harness.tables.requests.get(ended.request_id) is None


def test_what_a_pass_saves_instances_for_is_noted_only_if_nobody_admitted_meanwhile(harness: Harness) -> None:
    harness.enlist(1)
    plan, read_set = harness.plan()
    assert harness.admit()
    with pytest.raises(Conflict):
        harness.tables.ledger.note_capacity_holds(plan, read_set.snapshot.ledger)


@pytest.mark.parametrize("how", ["finish", "requeue"])
def test_an_end_that_somebody_wrote_by_hand_stands(harness: Harness, store: Store, how: str) -> None:
    harness.enlist(1)
    harness.admit()
    first = harness.state(1)
    by_hand = Update(request_key(first.request_id), set={"state": State.CANCELLED.value})
    racing = scheduler_over(Interrupted(store, lambda: store.transact([by_hand])))
    if how == "finish":
        assert racing.completer.finish([End(request=first, state=State.FAILED)], LIMITS, after(3)) == [False]
    else:
        assert racing.completer.requeue(first, LIMITS, after(3), due_at=after(9), reason="capacity") == []
    assert harness.state(1).state is State.CANCELLED


def test_an_end_that_wakes_nobody_undoes_a_commit_that_leaves_others_waiting(harness: Harness) -> None:
    harness.enlist(1, tenant_id="other")
    harness.admit()  # nobody waits: an end wakes nobody
    for number in (2, 3, 4):
        harness.enlist(number)
    plan, read_set = harness.plan()
    harness.finish(harness.state(1), State.SUCCEEDED)
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, read_set, LIMITS, NOW)


def test_a_start_is_recorded_of_its_attempt_alone(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    first = harness.state(1)
    harness.completer.requeue(first, LIMITS, after(1), due_at=after(1), reason="capacity")
    harness.admit(seconds=2)
    assert not harness.tables.requests.note_running(first, "arn:execution/1", after(3))
    assert (harness.state(1).state, harness.state(1).execution_arn) == (State.ADMITTED, None)


@pytest.mark.parametrize("together", [True, False])
def test_a_redelivery_of_what_has_ended_starts_nothing_though_its_place_is_free(
    harness: Harness, store: Store, together: bool
) -> None:
    harness.enlist(1)
    harness.admit()
    harness.finish(harness.state(1), State.SUCCEEDED)
    if together:
        enlist_all(harness, submission(1))
    else:
        racing = Harness(store)
        racing.scheduler = scheduler_over(Torn(store, request_key(submission(1).request_id), None))
        racing.enlist(1)
    assert harness.state(1).state is State.SUCCEEDED
    assert harness.admit(seconds=9) == []


def test_a_request_that_somebody_cancelled_by_hand_is_not_admitted(harness: Harness, store: Store) -> None:
    harness.enlist(1)
    plan, read_set = harness.plan()
    key = request_key(submission(1).request_id)
    store.transact([Update(key, set={"state": State.CANCELLED.value})])
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, replace(read_set, requests={}), LIMITS, NOW)
    assert (harness.state(1).state, harness.used()) == (State.CANCELLED, (0, {}))


@pytest.mark.parametrize("changed", [{"attempt": 2}, {"state": "RUNNING"}], ids=["attempt", "state"])
def test_a_cost_is_put_right_of_the_attempt_and_end_that_were_read(
    harness: Harness, store: Store, changed: dict[str, Any]
) -> None:
    harness.enlist(1)
    harness.admit()
    ended = harness.state(1)
    record = execution(ended, "0.05")
    assert harness.completer.finish(
        [End(request=ended, state=State.SUCCEEDED, execution=record)], LIMITS, after(60)
    ) == [True]
    update = Update(request_key(ended.request_id), set=changed)
    racing = scheduler_over(Interrupted(store, lambda: store.transact([update])))
    with pytest.raises(Conflict):
        racing.completer.correct(record, execution(ended, "0.07", revision=record.revision + 1), LIMITS, after(90))


@pytest.mark.parametrize("meanwhile", ["first", "next", "history"])
def test_a_policy_is_put_in_force_on_what_was_read_alone_and_writes_over_no_version(
    store: Store, meanwhile: str
) -> None:
    known, text = policies_in_force(store, LIMITS), "a policy"
    before = 0 if meanwhile == "first" else known.apply(text, NOW).version
    item = {"text": text, "version": before + 1, "applied_at": "by hand", "note": ""}
    key = _history_key(before + 1) if meanwhile == "history" else IN_FORCE
    racing = replace(known, store=Interrupted(store, lambda: store.transact([Put(key, item)])))
    with pytest.raises(Conflict, match="another policy was applied meanwhile"):
        racing.apply(text, after(1))
    (kept,) = store.get(key)
    assert kept is not None
    assert kept["applied_at"] == "by hand"


def test_a_request_that_is_over_by_hand_is_not_cancelled(harness: Harness, store: Store) -> None:
    harness.enlist(1)
    key = request_key(submission(1).request_id)
    store.transact([Update(key, set={"state": State.SUPERSEDED.value})])
    with pytest.raises(Conflict):
        harness.completer.cancel(harness.state(1), after(1))
    assert harness.state(1).state is State.SUPERSEDED


def test_two_tiers_that_are_paused_at_once_are_both_paused(harness: Harness, store: Store) -> None:
    harness.enlist(1)
    harness.admit()
    racing = scheduler_over(Interrupted(store, lambda: harness.tables.ledger.set_paused(True, "premium")))
    racing.tables.ledger.set_paused(True, "basic")
    assert harness.tables.ledger.read().paused_tiers == {"basic", "premium"}


@pytest.mark.parametrize("how", ["forget", "carry over"])
def test_a_queue_in_which_something_is_put_meanwhile_is_not_removed(
    harness: Harness, store: Store, how: str
) -> None:
    harness.enlist(1)
    assert harness.completer.cancel(harness.state(1), after(1))
    racing = scheduler_over(Interrupted(store, lambda: harness.enlist(2)))
    if how == "forget":
        with pytest.raises(Conflict):
            racing.operations.forget_queue("basic", "acme")
    else:
        assert racing.operations.carry_over("basic", "premium", "acme", after(2)) is False
    assert harness.admit(seconds=5) == [submission(2).request_id]


def test_a_request_that_is_not_over_is_not_forgotten(harness: Harness) -> None:
    harness.enlist(1)
    with pytest.raises(Conflict):
        harness.tables.requests.forget(harness.state(1))
    assert harness.state(1).state is State.QUEUED


def test_what_runs_besides_is_not_noted_on_a_ledger_that_has_moved(harness: Harness, store: Store) -> None:
    harness.enlist(1)
    harness.admit()
    racing = scheduler_over(Interrupted(store, lambda: harness.tables.ledger.throttle(after(60))))
    with pytest.raises(Conflict):
        racing.tables.ledger.note_unmanaged(["arn:execution/of-others"], after(1))
    assert harness.tables.ledger.unmanaged() == ([], None)


def test_a_rejection_or_an_outcome_writes_over_nothing(harness: Harness) -> None:
    harness.enlist(1)
    harness.admit()
    assert not harness.tables.requests.add_rejected(replace(harness.state(1), state=State.REJECTED))
    first = harness.state(1)
    harness.completer.requeue(first, LIMITS, after(1), due_at=after(1), reason="capacity")
    harness.admit(seconds=2)
    assert not harness.tables.requests.note_outcome(first.request_id, 1, Outcome(quality=0.9))
    assert (harness.state(1).state, harness.state(1).outcome) == (State.ADMITTED, None)


def test_a_count_is_put_right_by_what_held_then_only_if_nothing_moved_since(
    harness: Harness, store: Store
) -> None:
    for number in (1, 2):
        harness.enlist(number)
    store.transact([Update(LEDGER, add={"used/slots": 1, "used/tier/basic": 1})])

    def admit() -> None:
        assert len(harness.admit()) == 1

    with pytest.raises(Conflict):
        scheduler_over(Interrupted(store, admit)).operations.recount(after(9))
    assert harness.used() == (2, {"basic": 2})
    harness.scheduler.operations.recount(after(10))
    assert harness.used() == (1, {"basic": 1})


def test_a_place_that_was_given_to_another_by_hand_is_not_taken_over(harness: Harness, store: Store) -> None:
    harness.enlist(1, data_set="churn")
    entry = entry_key(submission(1, data_set="churn"))
    by_hand = Update(entry, set={"request_id": "another"})
    racing = Harness(store)
    racing.scheduler = scheduler_over(Interrupted(store, lambda: store.transact([by_hand])))
    with pytest.raises(Conflict):
        racing.enlist(2, data_set="churn", seconds=9)
    assert harness.tables.requests.get(submission(2).request_id) is None


# --- a batch is no snapshot --------------------------------------------------------------------------------------


def between(store: MemoryStore, meanwhile: Callable[[], object]) -> None:
    """Let something be done once, between two items of the next batch that is read."""

    def once() -> None:
        store.between_reads = lambda: None
        meanwhile()

    store.between_reads = once


def test_a_message_that_is_handled_twice_at_once_does_not_meet_itself_in_its_place() -> None:
    store = MemoryStore()
    harness, beside = Harness(store), Harness(store)
    between(store, lambda: beside.scheduler.enlister.enlist(submission(1), LIMITS, NOW))
    enlisted = harness.scheduler.enlister.enlist(submission(1), LIMITS, NOW)
    assert enlisted.kind is Enlistment.DUPLICATE
    assert harness.state(1).state is State.QUEUED


class ReadBeside(MemoryStore):
    """Before its next read that is a batch, something else is done once."""

    meanwhile: Callable[[], object] | None = None

    def get(self, *keys: Key) -> list[Item | None]:
        if len(keys) > 1 and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return super().get(*keys)


def test_a_run_that_is_put_back_twice_at_once_does_not_meet_itself_in_its_place() -> None:
    store = ReadBeside()
    harness, beside = Harness(store), Harness(store)
    harness.enlist(1)
    harness.admit()
    first = harness.state(1)

    def put_back(by: Harness) -> list[Request]:
        return by.scheduler.completer.requeue(first, LIMITS, NOW, due_at=after(60), reason="no capacity")

    store.meanwhile = lambda: put_back(beside)
    assert put_back(harness) == []
    assert (harness.state(1).state, harness.used()[0]) == (State.QUEUED, 0)
