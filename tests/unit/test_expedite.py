"""Expedite: what an operator puts first in its tier, what may follow it, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest

from tests.build import NOW, after, content, hard, policy, submission, tenant, tier
from tests.unit.test_admission import admitted, queue
from tests.unit.test_use_cases import Harness, fails
from trainyard.application.scheduling.expedite import EXPEDITED_MAX
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.policy import Policy, TenantPolicy
from trainyard.domain.requests import State
from trainyard.persistence.ledger import expedite

FOUR = policy(tier(quota=4, running_max_per_tenant=2), tier("premium", quota=4), running_max=8)


def first(request_id: str, **since: int) -> dict[str, Any]:
    return {"expedited": {"basic": request_id}, "since_expedited": since}


def test_what_is_expedited_is_first_in_its_tier_wherever_it_waits() -> None:
    waiting = [queue("a", 1, 2, 3), queue("b", 4)]
    assert admitted(*waiting, limits=FOUR) == ["a-1", "a-2", "b-4"]
    assert admitted(*waiting, limits=FOUR, **first("a-3"))[0] == "a-3"


@pytest.mark.parametrize(("since", "place"), [(0, 3), (1, 2), (2, 1), (3, 0)])
def test_at_most_every_fourth_admission_of_a_tier_is_expedited(since: int, place: int) -> None:
    waiting = [queue(name, number) for number, name in enumerate("abcdef")]
    limits = policy(tier(quota=9, running_max_per_tenant=2), running_max=9)
    order = admitted(*waiting, limits=limits, **first("f-5", basic=since))
    assert order.index("f-5") == place


def test_it_takes_no_slot_of_another_tier_and_exceeds_no_limit() -> None:
    waiting = [queue("a", 1, 2, running=2), queue("b", 3, tier="premium")]
    assert admitted(*waiting, limits=FOUR, **first("a-2"), used={"basic": 2}) == ["b-3"], "it is at its cap"
    waiting = [queue("a", 1, 2), queue("b", 3, tier="premium")]
    full = replace(FOUR, running_max=5)
    assert admitted(*waiting, limits=full, **first("a-2"), used={"basic": 4}) == ["b-3"], "its tier is full"
    undue = [queue("a", 1), queue("b", 2, due=900)]
    assert admitted(*undue, limits=FOUR, **first("b-2")) == ["a-1"]


def waiting_service(limits: Policy | None = None, count: int = 5, **changes: Any) -> Harness:
    """Return a service whose only slot is taken, with more requests that wait."""
    harness = Harness(limits=limits or policy(tier(quota=1), running_max=1), **changes)
    harness.run_one(1)
    for number in range(2, count + 1):
        harness.enlist.enlist(submission(number), after(number))
    return harness


def test_an_expedited_request_is_admitted_next_and_recorded_with_who_and_why() -> None:
    harness = waiting_service()
    request_id = submission(5).request_id
    expedited = harness.expedite.expedite(request_id, after(10), by="user/ann", why="a demo at nine")
    assert harness.scheduler.tables.ledger.read().expedited == (expedited,)
    assert harness.bell.rings[-1:] == [None]
    again = harness.expedite.expedite(request_id, after(11), by="user/bob", why="me too")
    assert again == expedited, "it is expedited already"
    assert harness.request(request_id).history[-1].cause == "expedited by user/ann: a demo at nine"
    harness.end(submission(1).request_id, seconds=20)
    harness.dispatch.run_pass(after(21))
    assert harness.request(request_id).state is State.RUNNING
    ledger = harness.scheduler.tables.ledger.read()
    assert (ledger.expedited, ledger.since_expedited) == ((), {"basic": 0})


def test_the_next_one_waits_for_three_others() -> None:
    harness = waiting_service(count=8)
    for number in (7, 8):
        harness.expedite.expedite(submission(number).request_id, after(10), by="ann", why="x")
    order, running = [], 1
    for second in range(20, 120, 20):
        harness.end(submission(running).request_id, seconds=second)
        harness.dispatch.run_pass(after(second + 1))
        (held,) = harness.scheduler.tables.held()
        running = int(held.request_id, 16)
        order.append(running)
    assert order == [7, 2, 3, 4, 8]


def test_the_upload_that_replaces_an_expedited_request_takes_its_place() -> None:
    harness = waiting_service()
    harness.expedite.expedite(submission(5).request_id, after(10), by="ann", why="x")
    newer = content("incoming/5/a.csv", event_time=after(12), etag="f" * 32)
    harness.enlist.enlist(submission(9, data_set=submission(5).data_set, content=newer), after(12))
    harness.end(submission(1).request_id, seconds=20)
    harness.dispatch.run_pass(after(21))
    assert harness.request(submission(9).request_id).state is State.RUNNING
    assert harness.scheduler.tables.ledger.read().expedited == ()


def test_what_has_gone_is_no_obstacle() -> None:
    harness = waiting_service()
    harness.expedite.expedite(submission(5).request_id, after(10), by="ann", why="x")
    harness.stop.stop(submission(5).request_id, after(11))
    harness.end(submission(1).request_id, seconds=20)
    harness.dispatch.run_pass(after(21))
    assert harness.request(submission(2).request_id).state is State.RUNNING


def test_an_expedited_request_of_a_paused_tenant_is_passed_over() -> None:
    harness = waiting_service(tenants=(tenant(), tenant(tenant_id="other", bucket="bucket-other")))
    harness.expedite.expedite(submission(5).request_id, after(10), by="ann", why="x")
    harness.scheduler.operations.set_tenant_paused("basic", "acme", True, after(11))
    read_set = harness.scheduler.admitter.read(harness.limits, after(12))
    assert (read_set.snapshot.queues, read_set.snapshot.expedited) == ((), {})
    harness.scheduler.operations.set_tenant_paused("basic", "acme", False, after(13))
    harness.end(submission(1).request_id, seconds=20)
    harness.dispatch.run_pass(after(21))
    assert harness.request(submission(5).request_id).state is State.RUNNING


def test_what_cannot_go_is_refused_with_what_would_let_it_go() -> None:
    harness = waiting_service()
    with pytest.raises(Refused, match="is RUNNING already: only what waits"):
        harness.expedite.expedite(submission(1).request_id, after(10), by="ann", why="x")
    with pytest.raises(Refused, match="no request"):
        harness.expedite.expedite("f" * 32, after(10), by="ann", why="x")
    harness.scheduler.operations.set_tenant_paused("basic", "acme", True, after(10))
    with pytest.raises(Refused, match=r"the tenant is paused\. What would let it go: trainyard resume tenant"):
        harness.expedite.expedite(submission(2).request_id, after(10), by="ann", why="x")


def test_what_exceeds_its_budget_is_refused() -> None:
    limits = policy(tier(quota=2, running_max_per_tenant=2), tenants={"acme": TenantPolicy(budget=hard("0.01"))})
    harness = Harness(limits=limits)
    harness.enlist.enlist(submission(1), NOW)
    with pytest.raises(Refused, match="monthly budget"):
        harness.expedite.expedite(submission(1).request_id, after(1), by="ann", why="x")


def test_only_so_many_requests_are_expedited_at_once_and_texts_are_bounded() -> None:
    harness = waiting_service(count=EXPEDITED_MAX + 3, tenants=(tenant(),))
    for number in range(2, EXPEDITED_MAX + 2):
        harness.expedite.expedite(submission(number).request_id, after(30), by="b" * 999, why="w" * 9999)
    assert {len(e.by) + len(e.why) for e in harness.scheduler.tables.ledger.read().expedited} == {400}
    with pytest.raises(Refused, match="are expedited already"):
        harness.expedite.expedite(submission(EXPEDITED_MAX + 2).request_id, after(31), by="ann", why="x")


def test_two_operators_at_once_lose_nothing() -> None:
    harness = waiting_service()
    stale = harness.scheduler.tables.ledger.read()
    first_one = harness.expedite.expedite(submission(5).request_id, after(10), by="ann", why="x")
    with pytest.raises(Conflict):
        harness.store.transact([expedite([replace(first_one, place="set-4")], stale)])
    assert harness.scheduler.tables.ledger.read().expedited == (first_one,)


def test_that_it_was_expedited_is_noted_of_the_attempt_that_waited() -> None:
    harness = waiting_service()
    write = harness.scheduler.tables.requests.set_history(harness.request(submission(2).request_id))
    harness.end(submission(1).request_id, seconds=20)
    harness.dispatch.run_pass(after(21))
    with pytest.raises(Conflict):
        harness.store.transact([write])
    fails(harness, "CapacityError: none left")
    harness.end(submission(2).request_id, "Failed", seconds=30)
    assert harness.request(submission(2).request_id).state is State.QUEUED
    with pytest.raises(Conflict):
        harness.store.transact([write])


def test_that_it_was_expedited_is_not_noted_of_a_request_that_was_cancelled() -> None:
    harness = waiting_service()
    write = harness.scheduler.tables.requests.set_history(harness.request(submission(2).request_id))
    harness.stop.stop(submission(2).request_id, after(11))
    with pytest.raises(Conflict):
        harness.store.transact([write])
