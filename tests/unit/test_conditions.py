"""Each condition of the protocol's writes that a race alone needs: what happens between a read and its write.

Over the store in memory: that the others take each kind of condition as it does, tests/conformance shows.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from testing.memory_store import MemoryStore
from tests.build import NOW, after, execution, hard, policies, policy, scheduler, submission, tier
from tests.conformance.test_waiting_room import LIMITS, Room, enlist_all
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
def room(store: Store) -> Room:
    return Room(store)


def test_an_end_met_by_a_starter_is_void_when_its_start_is_taken_over_meanwhile(room: Room, store: Store) -> None:
    room.enlist(1)
    room.admit()
    first = room.state(1)
    room.room = scheduler(Interrupted(store, lambda: Room(store).room.tables.requests.claim(first, after(200))))
    end = End(request=first, state=State.FAILED, reason="refused", by_start=True)
    assert room.room.completer.finish([end], LIMITS, after(201)) == [False]
    assert (room.state(1).state, room.state(1).claimed_at) == (State.ADMITTED, after(200))
    assert room.used() == (1, {"basic": 1})


def test_a_starter_puts_nothing_back_of_which_the_start_is_taken_over_meanwhile(room: Room, store: Store) -> None:
    room.enlist(1)
    room.admit()
    first = room.state(1)
    room.room = scheduler(Interrupted(store, lambda: Room(store).room.tables.requests.claim(first, after(200))))
    late: dict[str, Any] = {"due_at": after(300), "reason": "refused for now", "by_start": True}
    assert room.room.completer.requeue(first, LIMITS, after(201), **late) == []
    assert (room.state(1).state, room.state(1).claimed_at) == (State.ADMITTED, after(200))
    assert room.used() == (1, {"basic": 1})


@pytest.mark.parametrize("ends", [True, False], ids=["finish", "requeue"])
def test_what_ends_an_attempt_leaves_the_next_one_alone(room: Room, store: Store, ends: bool) -> None:
    room.enlist(1)
    room.admit()
    first = room.state(1)

    def next_attempt() -> None:
        other = Room(store)
        other.room.completer.requeue(first, LIMITS, after(1), due_at=after(1), reason="capacity")
        assert other.admit(seconds=2) == [first.request_id]

    room.room = scheduler(Interrupted(store, next_attempt))
    if ends:
        assert room.room.completer.finish([End(request=first, state=State.FAILED)], LIMITS, after(3)) == [False]
    else:
        assert room.room.completer.requeue(first, LIMITS, after(3), due_at=after(9), reason="capacity") == []
    assert (room.state(1).state, room.state(1).attempt) == (State.ADMITTED, 2)
    assert room.used() == (1, {"basic": 1})


@pytest.mark.parametrize("how", ["finish", "requeue"])
@pytest.mark.parametrize(
    "now", [State.ADMITTED, State.QUEUED, State.SUCCEEDED], ids=["next-attempt", "put-back", "ended"]
)
def test_what_ends_an_attempt_on_a_torn_read_ends_nothing_else(
    room: Room, store: Store, how: str, now: State
) -> None:
    """The request is read as it was, and the queue beside it as it is: its revision objects to nothing."""
    for number in (1, 2):
        room.enlist(number)
    room.admit()
    first = room.state(1)
    key = request_key(first.request_id)
    (before,) = store.get(key)
    if now is State.SUCCEEDED:
        room.finish(first, State.SUCCEEDED)
    else:
        room.room.completer.requeue(first, LIMITS, after(1), due_at=after(1), reason="capacity")
    if now is State.ADMITTED:
        assert room.admit(seconds=2) == [first.request_id]
    held = room.used()
    assert before is not None
    torn = scheduler(Torn(store, key, before))
    if how == "finish":
        assert torn.completer.finish([End(request=first, state=State.FAILED)], LIMITS, after(3)) == [False]
    else:
        assert torn.completer.requeue(first, LIMITS, after(3), due_at=after(9), reason="capacity") == []
    assert (room.state(1).state, room.used()) == (now, held)


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


def test_a_start_is_taken_over_of_the_attempt_that_was_read_alone(room: Room) -> None:
    room.enlist(1)
    room.admit()
    first = room.state(1)
    room.room.completer.requeue(first, LIMITS, after(1), due_at=after(1), reason="capacity")
    assert room.admit(seconds=2) == [first.request_id]
    assert not room.room.tables.requests.claim(first, after(200))
    assert room.room.tables.requests.claim(room.state(1), after(200))


@pytest.mark.parametrize("torn", ["content", "attempt"])
def test_a_commit_on_a_torn_read_admits_nothing(room: Room, store: Store, torn: str) -> None:
    """A batch of reads is no snapshot: the queue can be newer than a request read beside it. What the dispatcher
    starts is made of that request: of older content, or with the token of an earlier attempt.
    """
    room.enlist(1)
    plan, read_set = room.plan()
    item = read_set.requests.get(submission(1).request_id) or store.get(request_key(submission(1).request_id))[0]
    assert item is not None
    older: dict[str, Item] = {
        "content": item["content"] | {"etag": "of an older upload"},
        "attempt": item["attempt"] + 1,
    }
    seen = replace(read_set, requests={submission(1).request_id: item | {torn: older[torn]}})
    with pytest.raises(Conflict):
        room.room.admitter.commit(plan, seen, LIMITS, NOW)
    assert room.used() == (0, {})
    whole = replace(read_set, requests={submission(1).request_id: item})
    assert room.room.admitter.commit(plan, whole, LIMITS, NOW).admissions


def test_what_was_decided_before_sagemaker_took_no_more_holds_no_longer(room: Room) -> None:
    room.enlist(1)
    plan, read_set = room.plan()
    room.room.tables.ledger.throttle(after(600))
    with pytest.raises(Conflict):
        room.room.admitter.commit(plan, read_set, LIMITS, NOW)
    assert room.used() == (0, {})


def test_what_was_decided_before_a_tiers_budget_had_less_left_holds_no_longer(room: Room) -> None:
    limits = policy(tier(quota=1, running_max_per_tenant=1, budget=hard("100")), running_max=1)
    room.enlist(1, limits=limits)
    room.admit(limits)
    ended = room.state(1)
    record = execution(ended, "0.05")
    end = End(request=ended, state=State.SUCCEEDED, execution=record)
    assert room.room.completer.finish([end], limits, after(60)) == [True]
    for number in (2, 3):  # more than can go, so that the commit rests on no end that came in between
        room.enlist(number, limits=limits, tenant_id="other")
    room.room.tables.ledger.note_waiting(room.plan(limits, 61)[1].ledger)
    plan, read_set = room.plan(limits, 61)
    assert len(plan.admissions) == 1
    dearer = execution(ended, "99", revision=record.revision + 1)
    room.room.completer.correct(record, dearer, limits, after(62))
    with pytest.raises(Conflict):
        room.room.admitter.commit(plan, read_set, limits, after(63))


def test_what_sagemaker_takes_is_not_noted_by_a_count_that_has_changed(room: Room, store: Store) -> None:
    for number in (1, 2):
        room.enlist(number)

    def admit() -> None:
        assert room.admit()

    racing = scheduler(Interrupted(store, admit))
    with pytest.raises(Conflict):
        racing.tables.ledger.throttle(after(600))
    assert room.room.tables.ledger.read().throttled_to != 1


def test_what_was_decided_before_a_count_was_put_right_holds_no_longer(room: Room, store: Store) -> None:
    room.enlist(1)
    plan, read_set = room.plan()
    store.transact([Update(LEDGER, add={"used/slots": 2, "used/tier/basic": 2, "usage_version": 1})])
    with pytest.raises(Conflict):
        room.room.admitter.commit(
            plan, read_set, policy(tier(quota=2, running_max_per_tenant=2), running_max=2), NOW
        )


def test_one_that_is_asked_to_stop_while_it_is_put_back_is_stopped(room: Room, store: Store) -> None:
    room.enlist(1)
    room.admit()
    first = room.state(1)
    asks = Interrupted(store, lambda: Room(store).room.tables.requests.ask_to_stop(first, after(1)))
    racing = scheduler(asks)
    (changed,) = racing.completer.requeue(first, LIMITS, after(2), due_at=after(9), reason="capacity")
    assert (changed.state, room.state(1).state, room.used()) == (State.STOPPED, State.STOPPED, (0, {}))


def test_two_uploads_of_a_tenant_at_once_both_wait(room: Room, store: Store) -> None:
    racing = Room(store)
    racing.room = scheduler(Interrupted(store, lambda: room.enlist(1, data_set="one")))
    racing.enlist(2, data_set="two")
    assert {r.data_set for r in room.room.tables.waiting_of("basic", "acme")} == {"one", "two"}
    assert room.room.tables.queues.backlog(LIMITS)["basic"].waiting == 2
    assert len(room.admit(seconds=5)) == 2


def test_an_upload_whose_data_set_was_read_as_free_takes_no_others_place(room: Room, store: Store) -> None:
    room.enlist(1, data_set="churn")
    racing = Room(store)
    entry = entry_key(submission(1, data_set="churn"))
    racing.room = scheduler(Torn(store, entry, None))
    racing.enlist(2, data_set="churn", seconds=1)
    assert room.state(1).state is State.SUPERSEDED
    assert room.admit(seconds=5) == [submission(2).request_id]


def test_a_place_that_was_read_of_another_request_admits_nothing(room: Room, store: Store) -> None:
    room.enlist(1, data_set="churn")
    plan, read_set = room.plan()
    entry = entry_key(submission(1, data_set="churn"))
    store.transact([Update(entry, set={"request_id": submission(2).request_id})])
    with pytest.raises(Conflict):
        room.room.admitter.commit(plan, read_set, LIMITS, NOW)
    assert room.used() == (0, {})


def test_no_count_falls_below_what_others_hold(room: Room, store: Store) -> None:
    """A count that was lowered by hand is corrected first: below zero it would admit more than the limit."""
    room.enlist(1)
    room.admit()
    store.transact([Update(LEDGER, add={"used/slots": -1, "used/tier/basic": -1})])
    with pytest.raises(Conflict):
        room.finish(room.state(1), State.SUCCEEDED)
    assert room.room.tables.ledger.read().used == 0
    room.room.operations.recount(after(0))
    assert room.finish(room.state(1), State.SUCCEEDED)
    assert room.used() == (0, {})


def test_a_redelivery_that_was_read_as_unknown_undoes_no_end(room: Room, store: Store) -> None:
    room.enlist(1, data_set="churn", seconds=1)
    room.admit(seconds=1)
    assert room.finish(room.state(1), State.SUCCEEDED)
    room.enlist(2, data_set="churn")
    racing = Room(store)
    racing.room = scheduler(Torn(store, request_key(submission(1).request_id), None))
    racing.enlist(1, data_set="churn", seconds=1)
    assert room.state(1).state is State.SUCCEEDED
    assert room.state(2).state is State.QUEUED


@pytest.mark.parametrize("how", ["merge", "requeue"])
def test_a_request_that_was_changed_by_hand_is_not_written_over(room: Room, store: Store, how: str) -> None:
    """Queue and place say that it waits; only its own item knows better."""
    if how == "requeue":
        room.enlist(1, data_set="churn")
        room.admit()
    room.enlist(2, data_set="churn", seconds=5)
    key = request_key(submission(2).request_id)
    by_hand = Interrupted(store, lambda: store.transact([Update(key, set={"state": State.CANCELLED.value})]))
    racing = Room(store)
    racing.room = scheduler(by_hand)
    late: dict[str, Any] = {"due_at": after(9), "reason": "capacity"}
    acts: dict[str, Callable[[], object]] = {
        "merge": lambda: racing.enlist(3, data_set="churn", seconds=9),
        "requeue": lambda: racing.room.completer.requeue(room.state(1), LIMITS, after(9), **late),
    }
    with pytest.raises(Conflict):
        acts[how]()
    assert room.state(2).state is State.CANCELLED


def test_a_stop_is_noted_of_the_attempt_that_was_read_alone(room: Room) -> None:
    room.enlist(1)
    room.admit()
    first = room.state(1)
    room.room.completer.requeue(first, LIMITS, after(1), due_at=after(1), reason="capacity")
    assert not room.room.tables.requests.ask_to_stop(first, after(2))
    assert room.admit(seconds=2) == [first.request_id]
    assert not room.room.tables.requests.ask_to_stop(first, after(3))
    assert room.state(1).stop_asked_at is None
    assert room.room.tables.requests.ask_to_stop(room.state(1), after(4))


def test_that_a_request_was_asked_about_is_noted_of_its_running_attempt_alone(room: Room) -> None:
    room.enlist(1)
    room.admit()
    first = room.state(1)
    room.room.tables.requests.note_heard(first, after(1))
    assert room.state(1).heard_at is None, "it does not run yet"
    room.room.tables.requests.note_running(first, "arn:execution/1", after(1))
    room.room.completer.requeue(first, LIMITS, after(2), due_at=after(2), reason="capacity")
    room.admit(seconds=3)
    room.room.tables.requests.note_running(room.state(1), "arn:execution/2", after(3))
    room.room.tables.requests.note_heard(first, after(4))
    assert room.state(1).heard_at is None, "another attempt runs"
    room.room.tables.requests.note_heard(room.state(1), after(5))
    assert room.state(1).heard_at == after(5)


def test_a_start_that_has_been_recorded_meanwhile_is_not_taken_over(room: Room) -> None:
    room.enlist(1)
    room.admit()
    first = room.state(1)
    room.room.tables.requests.note_running(first, "arn:execution/1", after(1))
    assert not room.room.tables.requests.claim(first, after(200))
    assert room.state(1).claimed_at is None


@pytest.mark.parametrize("meanwhile", ["claimed again", "recorded"])
@pytest.mark.parametrize("ends", [True, False], ids=["finish", "requeue"])
def test_a_start_given_up_holds_if_another_starts_it_meanwhile(
    room: Room, store: Store, ends: bool, meanwhile: str
) -> None:
    """Simulator's seed 471: the sweeper gave up a start, by its clock too old, that another had just claimed."""
    room.enlist(1)
    room.admit()
    assert room.room.tables.requests.claim(room.state(1), after(200))
    claimed = room.state(1)

    def other() -> None:
        if meanwhile == "claimed again":
            assert Room(store).room.tables.requests.claim(claimed, after(400))
        else:
            Room(store).room.tables.requests.note_running(claimed, "arn:execution/1", after(400))

    room.room = scheduler(Interrupted(store, other))
    if ends:
        end = End(request=claimed, state=State.FAILED, reason="never answered", by_start=True)
        assert room.room.completer.finish([end], LIMITS, after(1200)) == [False]
    else:
        late: dict[str, Any] = {"due_at": after(1300), "reason": "never answered", "by_start": True}
        assert room.room.completer.requeue(claimed, LIMITS, after(1200), **late) == []
    assert room.state(1).state in (State.ADMITTED, State.RUNNING)
    assert room.used() == (1, {"basic": 1})


def test_a_cost_that_is_put_right_brings_no_forgotten_request_back(room: Room, store: Store) -> None:
    room.enlist(1)
    room.admit()
    ended = room.state(1)
    record = execution(ended, "0.05")
    end = End(request=ended, state=State.SUCCEEDED, execution=record)
    assert room.room.completer.finish([end], LIMITS, after(60)) == [True]
    forgets = Interrupted(store, lambda: room.room.tables.requests.forget(room.state(1)))
    dearer = execution(ended, "0.07", revision=record.revision + 1)
    with pytest.raises(Conflict):
        scheduler(forgets).completer.correct(record, dearer, LIMITS, after(90))
    assert room.room.tables.requests.get(ended.request_id) is None


def test_what_a_pass_saves_instances_for_is_noted_only_if_nobody_admitted_meanwhile(room: Room) -> None:
    room.enlist(1)
    plan, read_set = room.plan()
    assert room.admit()
    with pytest.raises(Conflict):
        room.room.tables.ledger.note_capacity_holds(plan, read_set.snapshot.ledger)


@pytest.mark.parametrize("how", ["finish", "requeue"])
def test_an_end_that_somebody_wrote_by_hand_stands(room: Room, store: Store, how: str) -> None:
    room.enlist(1)
    room.admit()
    first = room.state(1)
    by_hand = Update(request_key(first.request_id), set={"state": State.CANCELLED.value})
    racing = scheduler(Interrupted(store, lambda: store.transact([by_hand])))
    if how == "finish":
        assert racing.completer.finish([End(request=first, state=State.FAILED)], LIMITS, after(3)) == [False]
    else:
        assert racing.completer.requeue(first, LIMITS, after(3), due_at=after(9), reason="capacity") == []
    assert room.state(1).state is State.CANCELLED


def test_an_end_that_wakes_nobody_undoes_a_commit_that_leaves_others_waiting(room: Room) -> None:
    room.enlist(1, tenant_id="other")
    room.admit()  # nobody waits: an end wakes nobody
    for number in (2, 3, 4):
        room.enlist(number)
    plan, read_set = room.plan()
    room.finish(room.state(1), State.SUCCEEDED)
    with pytest.raises(Conflict):
        room.room.admitter.commit(plan, read_set, LIMITS, NOW)


def test_a_start_is_recorded_of_its_attempt_alone(room: Room) -> None:
    room.enlist(1)
    room.admit()
    first = room.state(1)
    room.room.completer.requeue(first, LIMITS, after(1), due_at=after(1), reason="capacity")
    room.admit(seconds=2)
    assert not room.room.tables.requests.note_running(first, "arn:execution/1", after(3))
    assert (room.state(1).state, room.state(1).execution_arn) == (State.ADMITTED, None)


@pytest.mark.parametrize("together", [True, False])
def test_a_redelivery_of_what_has_ended_starts_nothing_though_its_place_is_free(
    room: Room, store: Store, together: bool
) -> None:
    room.enlist(1)
    room.admit()
    room.finish(room.state(1), State.SUCCEEDED)
    if together:
        enlist_all(room, submission(1))
    else:
        racing = Room(store)
        racing.room = scheduler(Torn(store, request_key(submission(1).request_id), None))
        racing.enlist(1)
    assert room.state(1).state is State.SUCCEEDED
    assert room.admit(seconds=9) == []


def test_a_request_that_somebody_cancelled_by_hand_is_not_admitted(room: Room, store: Store) -> None:
    room.enlist(1)
    plan, read_set = room.plan()
    key = request_key(submission(1).request_id)
    store.transact([Update(key, set={"state": State.CANCELLED.value})])
    with pytest.raises(Conflict):
        room.room.admitter.commit(plan, replace(read_set, requests={}), LIMITS, NOW)
    assert (room.state(1).state, room.used()) == (State.CANCELLED, (0, {}))


@pytest.mark.parametrize("changed", [{"attempt": 2}, {"state": "RUNNING"}], ids=["attempt", "state"])
def test_a_cost_is_put_right_of_the_attempt_and_end_that_were_read(
    room: Room, store: Store, changed: dict[str, Any]
) -> None:
    room.enlist(1)
    room.admit()
    ended = room.state(1)
    record = execution(ended, "0.05")
    assert room.room.completer.finish(
        [End(request=ended, state=State.SUCCEEDED, execution=record)], LIMITS, after(60)
    ) == [True]
    update = Update(request_key(ended.request_id), set=changed)
    racing = scheduler(Interrupted(store, lambda: store.transact([update])))
    with pytest.raises(Conflict):
        racing.completer.correct(record, execution(ended, "0.07", revision=record.revision + 1), LIMITS, after(90))


@pytest.mark.parametrize("meanwhile", ["first", "next", "history"])
def test_a_policy_is_put_in_force_on_what_was_read_alone_and_writes_over_no_version(
    store: Store, meanwhile: str
) -> None:
    known, text = policies(store, LIMITS), "a policy"
    before = 0 if meanwhile == "first" else known.apply(text, NOW).version
    item = {"text": text, "version": before + 1, "applied_at": "by hand", "note": ""}
    key = _history_key(before + 1) if meanwhile == "history" else IN_FORCE
    racing = replace(known, store=Interrupted(store, lambda: store.transact([Put(key, item)])))
    with pytest.raises(Conflict, match="another policy was applied meanwhile"):
        racing.apply(text, after(1))
    (kept,) = store.get(key)
    assert kept is not None
    assert kept["applied_at"] == "by hand"


def test_a_request_that_is_over_by_hand_is_not_cancelled(room: Room, store: Store) -> None:
    room.enlist(1)
    key = request_key(submission(1).request_id)
    store.transact([Update(key, set={"state": State.SUPERSEDED.value})])
    with pytest.raises(Conflict):
        room.room.completer.cancel(room.state(1), after(1))
    assert room.state(1).state is State.SUPERSEDED


def test_two_tiers_that_are_paused_at_once_are_both_paused(room: Room, store: Store) -> None:
    room.enlist(1)
    room.admit()
    racing = scheduler(Interrupted(store, lambda: room.room.tables.ledger.set_paused(True, "premium")))
    racing.tables.ledger.set_paused(True, "basic")
    assert room.room.tables.ledger.read().paused_tiers == {"basic", "premium"}


@pytest.mark.parametrize("how", ["forget", "carry over"])
def test_a_queue_in_which_something_is_put_meanwhile_is_not_removed(room: Room, store: Store, how: str) -> None:
    room.enlist(1)
    assert room.room.completer.cancel(room.state(1), after(1))
    racing = scheduler(Interrupted(store, lambda: room.enlist(2)))
    if how == "forget":
        with pytest.raises(Conflict):
            racing.operations.forget_queue("basic", "acme")
    else:
        assert racing.operations.carry_over("basic", "premium", "acme", after(2)) is False
    assert room.admit(seconds=5) == [submission(2).request_id]


def test_a_request_that_is_not_over_is_not_forgotten(room: Room) -> None:
    room.enlist(1)
    with pytest.raises(Conflict):
        room.room.tables.requests.forget(room.state(1))
    assert room.state(1).state is State.QUEUED


def test_what_runs_besides_is_not_noted_on_a_ledger_that_has_moved(room: Room, store: Store) -> None:
    room.enlist(1)
    room.admit()
    racing = scheduler(Interrupted(store, lambda: room.room.tables.ledger.throttle(after(60))))
    with pytest.raises(Conflict):
        racing.tables.ledger.note_unmanaged(["arn:execution/of-others"], after(1))
    assert room.room.tables.ledger.unmanaged() == ([], None)


def test_a_rejection_or_an_outcome_writes_over_nothing(room: Room) -> None:
    room.enlist(1)
    room.admit()
    assert not room.room.tables.requests.add_rejected(replace(room.state(1), state=State.REJECTED))
    first = room.state(1)
    room.room.completer.requeue(first, LIMITS, after(1), due_at=after(1), reason="capacity")
    room.admit(seconds=2)
    assert not room.room.tables.requests.note_outcome(first.request_id, 1, Outcome(quality=0.9))
    assert (room.state(1).state, room.state(1).outcome) == (State.ADMITTED, None)


def test_a_count_is_put_right_by_what_held_then_only_if_nothing_moved_since(room: Room, store: Store) -> None:
    for number in (1, 2):
        room.enlist(number)
    store.transact([Update(LEDGER, add={"used/slots": 1, "used/tier/basic": 1})])

    def admit() -> None:
        assert len(room.admit()) == 1

    with pytest.raises(Conflict):
        scheduler(Interrupted(store, admit)).operations.recount(after(9))
    assert room.used() == (2, {"basic": 2})
    room.room.operations.recount(after(10))
    assert room.used() == (1, {"basic": 1})


def test_a_place_that_was_given_to_another_by_hand_is_not_taken_over(room: Room, store: Store) -> None:
    room.enlist(1, data_set="churn")
    entry = entry_key(submission(1, data_set="churn"))
    by_hand = Update(entry, set={"request_id": "another"})
    racing = Room(store)
    racing.room = scheduler(Interrupted(store, lambda: store.transact([by_hand])))
    with pytest.raises(Conflict):
        racing.enlist(2, data_set="churn", seconds=9)
    assert room.room.tables.requests.get(submission(2).request_id) is None


# --- a batch is no snapshot --------------------------------------------------------------------------------------


def between(store: MemoryStore, meanwhile: Callable[[], object]) -> None:
    """Let something be done once, between two items of the next batch that is read."""

    def once() -> None:
        store.between_reads = lambda: None
        meanwhile()

    store.between_reads = once


def test_a_message_that_is_handled_twice_at_once_does_not_meet_itself_in_its_place() -> None:
    store = MemoryStore()
    room, beside = Room(store), Room(store)
    between(store, lambda: beside.room.enlister.enlist(submission(1), LIMITS, NOW))
    enlisted = room.room.enlister.enlist(submission(1), LIMITS, NOW)
    assert enlisted.kind is Enlistment.DUPLICATE
    assert room.state(1).state is State.QUEUED


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
    room, beside = Room(store), Room(store)
    room.enlist(1)
    room.admit()
    first = room.state(1)

    def put_back(by: Room) -> list[Request]:
        return by.room.completer.requeue(first, LIMITS, NOW, due_at=after(60), reason="no capacity")

    store.meanwhile = lambda: put_back(beside)
    assert put_back(room) == []
    assert (room.state(1).state, room.used()[0]) == (State.QUEUED, 0)
