"""Bulk actions: which requests they are about, that each has its turn once, progress, and the abort."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.build import NOW, after, tenant
from tests.http_api import LIMITS, Api
from tests.unit.test_functions import Context, load
from trainyard.application.api import bulk_actions
from trainyard.application.scheduling.stop import Stop
from trainyard.domain.bulk_actions import FAILURES_KEPT, OF_SERVICE, BulkKind, BulkState
from trainyard.domain.errors import Conflict, Malformed, OutcomeUnknown, Throttled
from trainyard.domain.requests import Overrides, RequestKind, State
from trainyard.domain.tenants import TenantState
from trainyard.persistence.bulk_actions import KEPT_FOR, BulkActions

ACTIONS = "/v1/tenants/acme/bulk-actions"
OF_ALL = "/v1/service/bulk-actions"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


class Patient(Context):
    """A call with as much time as the function has."""

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


def work(api: Api) -> None:
    """Carry out what was begun, by the function that does."""
    function = load("bulk")
    for owner, action_id in api.bulk_starts.begun:
        function.handler({"owner": owner, "action_id": action_id}, Patient())


def shown(api: Api, answer: dict[str, Any], path: str = ACTIONS) -> dict[str, Any]:
    status, body = api.get(f"{path}/{answer['id']}", "operators")
    assert status == 200
    return dict(body)


def test_what_waits_is_cancelled_and_what_runs_is_stopped(api: Api) -> None:
    waiting = [api.enlist(number, data_set=f"d{number}") for number in (1, 2, 3)]
    api.admit()
    ended, foreign = api.put(8, state=State.FAILED), api.enlist(9, tenant_id="acme1")
    status, answer = api.post(ACTIONS, {"action": "cancel", "filter": {}, "reason": "by mistake"})
    assert (status, answer["state"], answer["total"], answer["done"]) == (202, "WAITING", 3, 0)
    assert (answer["by"], answer["reason"], answer["is_complete"]) == ("tenant-admin s", "by mistake", True)
    assert set(answer["request_ids"]) == {each.request_id for each in waiting}
    work(api)
    body = shown(api, answer)
    assert (body["state"], body["done"], body["failed"]) == ("DONE", 3, 0)
    assert body["ended_at"] is not None
    assert body["request_ids"] == answer["request_ids"]
    after_it = [api.requests.get(each.request_id) for each in waiting]
    assert sorted(each.state.value for each in after_it if each) == ["ADMITTED", "CANCELLED", "CANCELLED"]
    assert [each.stop_asked_at is not None for each in after_it if each and each.state is State.ADMITTED] == [True]
    for other in (ended, foreign):
        assert api.requests.get(other.request_id) == other
    status, listed = api.get(ACTIONS)
    assert [(each["id"], each["request_ids"]) for each in listed["items"]] == [(answer["id"], None)]


def test_what_ended_without_a_model_is_asked_for_again_once_for_each_data_set(api: Api) -> None:
    own = Overrides(algorithm="linear")
    for number, changes in enumerate(
        (
            {"state": State.FAILED, "data_set": "a"},
            {"state": State.FAILED, "data_set": "a"},
            {"state": State.FAILED, "data_set": "a", "overrides": own},
            {"state": State.STOPPED, "data_set": "b"},
            {"state": State.SUCCEEDED, "data_set": "c"},
            {"state": State.FAILED, "data_set": "d", "kind": RequestKind.TRANSFORM},
        ),
        start=1,
    ):
        api.put(number * 3, **changes)  # type: ignore[arg-type]
    body = {"action": "retry", "filter": {"state": "FAILED"}}
    assert api.post(ACTIONS, body | {"dry_run": True})[1]["total"] == 2
    assert not api.bulk_starts.begun, "nothing is done"
    answer = api.post(ACTIONS, body)[1]
    work(api)
    work(api)  # Lambda may invoke it twice
    assert sorted((each.data_set, each.overrides is None) for each in api.retrainings.asked) == [
        ("a", False),
        ("a", True),
    ]
    assert (shown(api, answer)["done"], shown(api, answer)["failed"]) == (2, 0)
    assert api.post(ACTIONS, {"action": "retry", "filter": {"data_set": "b"}})[1]["total"] == 1
    status, problem = api.post(ACTIONS, {"action": "retry", "filter": {"data_set": "c"}})
    assert (status, "ended without a model" in problem["detail"]) == (409, True)


def test_what_a_newer_training_has_followed_is_not_tried_again_by_a_filter(api: Api) -> None:
    api.put(0, state=State.FAILED, data_set="a")
    api.put(3, state=State.FAILED, data_set="b")
    api.put(6, state=State.SUCCEEDED, data_set="b")
    body = {"action": "retry", "filter": {"state": "FAILED"}}
    assert api.post(ACTIONS, body)[1]["total"] == 1
    work(api)
    assert [each.data_set for each in api.retrainings.asked] == ["a"]
    api.put(9, state=State.QUEUED, data_set="a")
    status, problem = api.post(ACTIONS, body)
    assert (status, "ended without a model" in problem["detail"]) == (409, True)


def test_an_operators_retry_leaves_out_what_a_newer_training_has_followed(api: Api) -> None:
    at = datetime.now(UTC) - timedelta(minutes=5)
    for number, data_set in ((0, "a"), (3, "b")):
        failed = api.put(number, state=State.FAILED, data_set=data_set, finished_at=at)
        api.store.transact([api.requests.put(replace(failed, arrived_at=at - timedelta(minutes=9)))])
    newer = api.put(6, state=State.QUEUED, data_set="b")
    api.store.transact([api.requests.put(replace(newer, arrived_at=at))])
    api.bulk_work = replace(api.bulk_work, clock=lambda: datetime.now(UTC))
    body = {"action": "retry", "state": "FAILED", "tier": "basic", "day": f"{at:%Y-%m-%d}"}
    answer = api.post("/v1/service/bulk-actions", body, "operators")[1]
    for owner, action_id in api.bulk_starts.begun:
        api.bulk_work.run(owner, action_id)
    assert [each.data_set for each in api.retrainings.asked] == ["a"]
    status = api.get(f"/v1/service/bulk-actions/{answer['id']}", "operators")[1]
    assert (status["done"], status["failed"]) == (2, 1)
    assert f"request {newer.request_id} of the same data set is newer" in status["failures"][0]["reason"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"action": "cancel"}, 400, "either request_ids, or a filter"),
        ({"action": "cancel", "filter": {}, "request_ids": ["0" * 32]}, 400, "either request_ids, or a filter"),
        ({"action": "cancel", "request_ids": []}, 400, "request_ids"),
        ({"action": "cancel", "request_ids": ["x"]}, 400, "request_ids"),
        ({"action": "cancel", "request_ids": [f"{n:032x}" for n in range(2001)]}, 400, "request_ids"),
        ({"action": "explode", "filter": {}}, 400, "action"),
        ({"action": "cancel", "filter": {"tier": "basic"}}, 400, "tier"),
        ({"action": "cancel", "filter": {}, "dry_run": "yes"}, 400, "dry_run"),
        ({"action": "cancel", "filter": {}, "reason": "\u0000"}, 400, "reason"),
        ({"action": "cancel", "request_ids": ["0" * 32]}, 409, "there is no request " + "0" * 32),
        ({"action": "cancel", "filter": {}}, 409, "only what waits or runs can be cancelled"),
    ],
)
def test_an_action_that_is_none_is_refused(api: Api, body: dict[str, Any], status: int, words: str) -> None:
    answer, problem = api.post(ACTIONS, body)
    assert (answer, words in problem["detail"]) == (status, True), problem
    assert not api.bulk_starts.begun


def test_requests_that_are_named_are_the_tenants_and_suitable(api: Api) -> None:
    waiting, ended, foreign = api.enlist(1), api.put(2, state=State.FAILED), api.enlist(3, tenant_id="acme1")
    both = {"action": "cancel", "request_ids": [waiting.request_id, foreign.request_id]}
    status, problem = api.post(ACTIONS, both)
    absent = api.post(ACTIONS, both | {"request_ids": [waiting.request_id, "0" * 32]})
    assert status == 409
    assert problem["detail"].replace(foreign.request_id, "0" * 32) == absent[1]["detail"], "as if it were absent"
    status, problem = api.post(ACTIONS, both | {"request_ids": [waiting.request_id, ended.request_id]})
    assert (status, f"{ended.request_id} is FAILED" in problem["detail"]) == (409, True)
    twice = api.post(ACTIONS, both | {"request_ids": [waiting.request_id] * 2})
    assert (twice[0], twice[1]["total"]) == (202, 1)


def test_an_abort_spares_those_that_had_not_had_their_turn(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        api.enlist(number, data_set=f"d{number}")
    answer = api.post(ACTIONS, {"action": "cancel", "filter": {}})[1]
    stop, stopped = api.service.stop, list[str]()

    def stop_and_abort(request_id: str, now: Any) -> None:
        stop.stop(request_id, now)
        stopped.append(request_id)
        assert api.post(f"{ACTIONS}/{answer['id']}/abort")[1]["state"] == "ABORTED"

    api.bulk_work = replace(api.bulk_work, stop=cast(Stop, SimpleNamespace(stop=stop_and_abort)))
    work(api)
    body = shown(api, answer)
    assert (body["state"], body["done"], len(stopped)) == ("ABORTED", 1, 1)
    assert len(api.requests.active(State.QUEUED)) == 2
    work(api)
    assert len(stopped) == 1
    again = api.post(f"{ACTIONS}/{answer['id']}/abort")
    assert (again[0], again[1]["ended_at"]) == (200, body["ended_at"])


def test_an_action_that_has_ended_is_not_aborted(api: Api) -> None:
    api.enlist(1)
    answer = api.post(ACTIONS, {"action": "cancel", "filter": {}})[1]
    work(api)
    assert api.post(f"{ACTIONS}/{answer['id']}/abort")[1]["state"] == "DONE"


class Unlucky(BulkActions):
    """Raises errors, one at each try, once a first request had its turn."""

    errors: list[Exception]

    def advance(self, action: Any, failure: Any, now: Any) -> bool:
        if action.done == 1 and self.errors:
            raise self.errors.pop()
        return super().advance(action, failure, now)


def unlucky(api: Api, *errors: Exception) -> None:
    actions = Unlucky(api.store)
    object.__setattr__(actions, "errors", list(errors))
    api.bulk_work = replace(api.bulk_work, actions=actions)


@pytest.mark.parametrize("error", [Throttled("slow"), OutcomeUnknown("lost"), Conflict("another change")])
def test_what_aws_throttles_is_tried_again_for_half_a_minute(api: Api, error: Exception) -> None:
    waiting = [api.enlist(number, data_set=f"d{number}") for number in (1, 2, 3)]
    answer = api.post(ACTIONS, {"action": "cancel", "filter": {}})[1]
    unlucky(api, *([error] * (bulk_actions.TRIES_MAX - 1)))
    work(api)
    assert api.waited == [1, 2, 4, 8, 16]
    body = shown(api, answer)
    assert (body["state"], body["done"], body["failed"]) == ("DONE", 3, 0)
    assert all(api.requests.get(each.request_id).state is State.CANCELLED for each in waiting)  # type: ignore[union-attr]


@pytest.mark.parametrize("error", [Throttled("slow"), OutcomeUnknown("lost"), Conflict("another change")])
def test_after_errors_that_do_not_pass_it_goes_on_where_it_was(api: Api, error: Exception) -> None:
    waiting = [api.enlist(number, data_set=f"d{number}") for number in (1, 2, 3)]
    answer = api.post(ACTIONS, {"action": "cancel", "filter": {}})[1]
    unlucky(api, *([error] * bulk_actions.TRIES_MAX))
    with pytest.raises(type(error)):
        work(api)
    stored = BulkActions(api.store).get("acme", answer["id"])
    assert stored is not None
    assert (stored.state, stored.done) == (BulkState.RUNNING, 1)
    work(api)
    body = shown(api, answer)
    assert (body["state"], body["done"], body["failed"]) == ("DONE", 3, 0), "what was cancelled is no failure"
    assert all(api.requests.get(each.request_id).state is State.CANCELLED for each in waiting)  # type: ignore[union-attr]


def test_one_request_that_cannot_be_read_does_not_keep_the_others_from_their_turn(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = [api.enlist(number, data_set=f"d{number}") for number in (1, 2, 3)]
    answer = api.post(ACTIONS, {"action": "cancel", "filter": {}})[1]
    stop, poisonous = api.service.stop, waiting[1].request_id

    def stop_others(request_id: str, now: Any) -> None:
        if request_id == poisonous:
            raise KeyError("state")
        stop.stop(request_id, now)

    api.bulk_work = replace(api.bulk_work, stop=cast(Stop, SimpleNamespace(stop=stop_others)))
    work(api)
    body = shown(api, answer)
    assert (body["state"], body["done"], body["failed"]) == ("DONE", 3, 1)
    assert body["failures"] == [{"request_id": poisonous, "reason": "a fault of the service (KeyError)"}]


@pytest.mark.parametrize("error", [Throttled("slow"), OutcomeUnknown("lost")])
def test_an_action_that_is_not_begun_is_begun_by_the_timer(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    waiting = api.enlist(1)

    def begin(owner: str, action_id: str) -> None:
        raise error

    monkeypatch.setattr(api.bulk_starts, "begin", begin)
    status, answer = api.post(ACTIONS, {"action": "cancel", "filter": {}})
    assert (status, answer["state"]) == (202, "WAITING")
    asked_at = datetime.fromisoformat(answer["created_at"])
    for minutes, resumed in ((3, 0), (5, 1), (10, 0)):
        now = asked_at + timedelta(minutes=minutes)
        api.bulk_work = replace(api.bulk_work, clock=partial(max, now, now))
        assert load("bulk").handler({"resume": True}, Patient()) == {"resumed": resumed}
    assert shown(api, answer)["state"] == "DONE"
    assert api.requests.get(waiting.request_id).state is State.CANCELLED  # type: ignore[union-attr]


def test_the_timer_resumes_each_action_by_itself(api: Api) -> None:
    actions = [api.bulk_action("acme", [f"{n:032x}"], progress_at=NOW - timedelta(minutes=10 * n)) for n in (1, 2)]
    fresh = api.bulk_action("acme1", ["0" * 32])
    ended = api.bulk_action(OF_SERVICE, ["0" * 32], progress_at=NOW - timedelta(minutes=10))
    BulkActions(api.store).abort(ended, NOW)
    tried: list[str] = []

    class Throttling(BulkActions):
        def advance(self, action: Any, failure: Any, now: Any) -> bool:
            tried.append(action.action_id)
            raise Throttled("slow")

    api.bulk_work = replace(api.bulk_work, actions=Throttling(api.store))
    assert {each.action_id for each in api.bulk_work.resume()} == {each.action_id for each in actions}
    assert set(tried) == {each.action_id for each in actions}
    assert fresh.action_id not in tried
    assert len(api.bulk_work.resume(lambda: True)) == 0, "there is no time"


def test_what_has_no_time_left_is_carried_on_with_later(api: Api) -> None:
    for number in (1, 2, 3):
        api.enlist(number, data_set=f"d{number}")
    answer = api.post(ACTIONS, {"action": "cancel", "filter": {}})[1]
    left = iter((False, False, True))
    action = api.bulk_work.run("acme", answer["id"], lambda: next(left))
    assert action is not None
    assert (action.state, action.done) == (BulkState.RUNNING, 2)
    work(api)
    assert shown(api, answer)["state"] == "DONE"


def test_a_call_that_is_repeated_makes_one_action(api: Api) -> None:
    api.enlist(1)
    body = {"action": "cancel", "filter": {}}
    first = api.post(ACTIONS, body, key="once")
    work(api)
    again = api.post(ACTIONS, body, key="once")
    assert (again[0], again[1]["id"], again[1]["state"]) == (202, first[1]["id"], "DONE"), "nothing waits any more"
    assert len(api.bulk_starts.begun) == 1
    assert api.post(ACTIONS, body | {"reason": "x"}, key="once")[0] == 422
    api.enlist(2)
    halts = [api.post("/v1/service/halt", {"what": "all"}, "operators", key="h") for _ in range(2)]
    assert [status for status, _ in halts] == [200, 200], "nothing runs"
    body = {"action": "cancel", "state": "QUEUED"}
    of_all = [api.post(OF_ALL, body, "operators", key="once")[1]["id"] for _ in range(2)]
    assert of_all[0] == of_all[1] != first[1]["id"]


def test_what_begins_to_run_before_its_turn_is_left_as_it_is(api: Api) -> None:
    """Whoever cancels what waits does not pay for what runs."""
    waiting = api.enlist(1)
    for path, body, group in (
        (ACTIONS, {"action": "cancel", "filter": {"state": "QUEUED"}}, "tenant-admins"),
        (OF_ALL, {"action": "cancel", "state": "QUEUED"}, "operators"),
    ):
        answer = api.post(path, body, group)[1]
        if group == "operators":
            api.admit()
            work(api)
            assert "by now" in shown(api, answer, OF_ALL)["failures"][0]["reason"]
    held = api.requests.get(waiting.request_id)
    assert held is not None
    assert (held.state, held.stop_asked_at) == (State.ADMITTED, None)


def test_tenants_are_not_told_who_of_the_provider_did_it(api: Api) -> None:
    api.enlist(1)
    answer = api.post(ACTIONS, {"action": "cancel", "filter": {}}, "operators")[1]
    assert answer["by"] == "operator s"
    assert api.get(f"{ACTIONS}/{answer['id']}")[1]["by"] == "the provider"
    assert api.get(ACTIONS)[1]["items"][0]["by"] == "the provider"


def test_what_cannot_be_done_is_counted_and_the_first_are_named(api: Api) -> None:
    ids = [f"{number:032x}" for number in range(FAILURES_KEPT + 5)]
    for kind in BulkKind:
        action = api.bulk_action("acme", ids, kind=kind)
        api.bulk_starts.begun = [("acme", action.action_id)]
        work(api)
        body = shown(api, {"id": action.action_id})
        assert (body["state"], body["done"], body["failed"]) == ("DONE", len(ids), len(ids))
        assert [each["request_id"] for each in body["failures"]] == ids[:FAILURES_KEPT]
        assert "no" in body["failures"][0]["reason"]


def test_a_tenant_that_is_not_active_is_asked_for_no_training(api: Api) -> None:
    added = api.put(1, state=State.FAILED)
    action = api.bulk_action("acme", [added.request_id], kind=BulkKind.RETRY)
    api.tenants.put(tenant(state=TenantState.SUSPENDED))
    api.bulk_starts.begun = [("acme", action.action_id)]
    work(api)
    assert "suspended" in shown(api, {"id": action.action_id})["failures"][0]["reason"].lower()


def test_two_that_carry_out_the_same_share_no_turn(api: Api) -> None:
    waiting = [api.enlist(number, data_set=f"d{number}") for number in (1, 2)]
    action = api.bulk_action("acme", [each.request_id for each in waiting])
    actions = BulkActions(api.store)
    assert actions.advance(action, None, NOW)
    assert not actions.advance(action, None, NOW), "the other one was first"
    stored = actions.get("acme", action.action_id)
    assert stored is not None
    assert stored.done == 1
    assert actions.advance(stored, None, after(1))
    ended = actions.get("acme", action.action_id)
    assert ended is not None
    assert (ended.state, ended.ended_at) == (BulkState.DONE, after(1))
    assert not actions.abort(ended, NOW)


def test_two_that_carry_out_the_same_cancel_each_request_once(api: Api) -> None:
    """Lambda may call a function twice at the same time: whoever is second at a turn goes away."""
    waiting = [api.enlist(number, data_set=f"d{number}") for number in (1, 2, 3)]
    answer = api.post(ACTIONS, {"action": "cancel", "filter": {}})[1]
    stop, stopped = api.service.stop, list[str]()
    first = api.bulk_work

    def stop_while_the_other_does(request_id: str, now: Any) -> None:
        stopped.append(request_id)
        if len(stopped) == 2:
            first.run("acme", answer["id"])
        stop.stop(request_id, now)

    second = replace(first, stop=cast(Stop, SimpleNamespace(stop=stop_while_the_other_does)))
    assert second.run("acme", answer["id"]) is not None
    body = shown(api, answer)
    assert (body["state"], body["done"], body["failed"], len(stopped)) == ("DONE", 3, 0, 2)
    assert all(api.requests.get(each.request_id).state is State.CANCELLED for each in waiting)  # type: ignore[union-attr]


def test_more_requests_than_an_action_takes_are_said_to_be_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 6):
        api.enlist(number, data_set=f"d{number}")
    body = {"action": "cancel", "filter": {}}
    monkeypatch.setattr(bulk_actions, "REQUESTS_MAX", 5)
    assert api.post(ACTIONS, body)[1]["is_complete"] is True
    monkeypatch.setattr(bulk_actions, "REQUESTS_MAX", 3)
    answer = api.post(ACTIONS, body)[1]
    assert (answer["total"], answer["is_complete"]) == (3, False)
    monkeypatch.setattr(bulk_actions, "REQUESTS_MAX", 50)
    for name, requests_looked_at in (("LOOKED_AT_MAX", 5), ("LOOKED_AT_MAX", 4)):
        monkeypatch.setattr(bulk_actions, name, requests_looked_at)
        assert api.post(ACTIONS, body)[1]["is_complete"] is (requests_looked_at == 5)
    monkeypatch.setattr(bulk_actions, "PAGE", 2)
    assert api.post(ACTIONS, body)[1]["total"] == 4


def test_operators_act_on_the_requests_of_a_tier(api: Api) -> None:
    mine, theirs = api.enlist(1), api.enlist(2, tenant_id="acme1")
    body = {"action": "cancel", "state": "QUEUED", "tier": "basic"}
    answer = api.post(OF_ALL, body | {"dry_run": True}, "operators")[1]
    assert set(answer["request_ids"]) == {mine.request_id, theirs.request_id}
    assert api.post(OF_ALL, body | {"tier": "other"}, "operators")[0] == 400
    api.admit()
    held = api.post(OF_ALL, body | {"state": "RUNNING"}, "operators")[1]
    assert held["total"] == 1
    answer = api.post(OF_ALL, body, "operators")[1]
    assert answer["total"] == 1
    work(api)
    assert shown(api, answer, OF_ALL)["state"] == "DONE"
    # Two of one millisecond have no order.
    assert sorted(each["id"] for each in api.get(OF_ALL, "viewers")[1]["items"]) == sorted(
        [answer["id"], held["id"]]
    )
    assert api.get(ACTIONS)[1]["items"] == [], "no tenant sees them"
    assert api.get(f"{ACTIONS}/{answer['id']}")[0] == 404
    assert api.post(f"{OF_ALL}/{answer['id']}/abort", None, "operators")[1]["state"] == "DONE"


def test_operators_ask_again_for_what_ended_on_a_day(api: Api) -> None:
    for number, tenant_id in enumerate(("acme", "acme1"), start=1):
        api.put(number, tenant_id=tenant_id, state=State.FAILED, finished_at=NOW)
    body = {"action": "retry", "state": "FAILED", "tier": "basic", "day": f"{NOW:%Y-%m-%d}"}
    answer = api.post(OF_ALL, body, "operators")[1]
    work(api)
    assert {each.tenant_id for each in api.retrainings.asked} == {"acme", "acme1"}
    assert shown(api, answer, OF_ALL)["failed"] == 0
    assert api.post(OF_ALL, body | {"day": "2026-01-01"}, "operators")[0] == 409
    assert api.post(OF_ALL, body | {"state": "REJECTED"}, "operators")[0] == 409


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"action": "retry", "state": "SUCCEEDED", "tier": "basic"}, "state"),
        ({"action": "retry", "state": "FAILED"}, "tier"),
        ({"action": "cancel", "state": "FAILED"}, "state"),
        ({"action": "cancel", "state": "QUEUED", "day": "2026-11-01"}, "day"),
        ({"action": "cancel"}, "state"),
    ],
)
def test_an_action_of_the_service_that_is_none_is_refused(api: Api, body: dict[str, Any], word: str) -> None:
    status, problem = api.post(OF_ALL, body, "operators")
    assert (status, word in problem["detail"]) == (400, True), problem


@pytest.mark.parametrize(
    ("what", "name", "stopped"),
    [("all", None, 2), ("tier", "basic", 2), ("tenant", "acme", 1), ("tenant", "acme1", 1)],
)
def test_a_halt_pauses_and_stops_what_runs(api: Api, what: str, name: str | None, stopped: int) -> None:
    api.enlist(1)
    api.admit()
    theirs = api.enlist(2, tenant_id="acme1")
    api.admit(replace(LIMITS, tiers=(replace(LIMITS.tiers[0], quota=2),)))
    assert api.requests.get(theirs.request_id).state is State.ADMITTED  # type: ignore[union-attr]
    body = {"what": what, "name": name, "reason": "a bad day"}
    status, dry = api.post("/v1/service/halt", body | {"dry_run": True}, "operators")
    assert (status, dry["total"], dry["id"]) == (200, stopped, None)
    assert api.get("/v1/service", "operators")[1]["paused"] is False
    status, answer = api.post("/v1/service/halt", body, "operators")
    assert (status, answer["total"], answer["reason"]) == (202, stopped, "halted: a bad day")
    work(api)
    asked = [each for each in api.service.scheduler.tables.held() if each.stop_asked_at is not None]
    assert len(asked) == stopped
    state = api.get("/v1/service", "operators")[1]
    if what == "all":
        assert state["paused"] is True
        assert [each["reason"] for each in state["pauses"]] == ["halted: a bad day"]
    elif what == "tier":
        assert [tier["paused"] for tier in state["tiers"]] == [True]


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    "body", [{"what": "tier", "name": "nope"}, {"what": "tenant", "name": "nobody"}, {"what": "all", "name": "x"}]
)
def test_a_halt_of_nothing_is_refused(api: Api, body: dict[str, Any], dry_run: bool) -> None:
    assert api.post("/v1/service/halt", body | {"dry_run": dry_run}, "operators")[0] == 409


def test_a_halt_of_what_does_not_run_pauses_it(api: Api) -> None:
    status, answer = api.post("/v1/service/halt", {"what": "all"}, "operators")
    assert (status, answer["total"], answer["state"]) == (200, 0, "DONE")
    assert api.get("/v1/service", "operators")[1]["paused"] is True


def test_actions_expire(api: Api) -> None:
    action = api.bulk_action("acme", ["0" * 32])
    stored = {
        dict(key.values)["pk"]: item["expires_at"]
        for key, item in api.store.items.items()
        if dict(key.values).get("pk", "").startswith("bulk")
    }
    expires_at = int((NOW + KEPT_FOR).timestamp())
    assert stored == dict.fromkeys(("bulk#acme", "bulk-requests#acme", "bulk-unfinished"), expires_at)
    with pytest.raises(Conflict):
        api.bulk_action("acme", ["1" * 32], action_id=action.action_id)


def test_the_function_takes_nothing_else(api: Api) -> None:
    function = load("bulk")
    for event in (
        {},
        {"owner": "acme"},
        {"owner": "*", "action_id": "0" * 32},
        {"owner": "acme", "action_id": "x"},
    ):
        with pytest.raises(Malformed):
            function.handler(event, Patient())
    for owner in ("acme", OF_SERVICE):
        assert function.handler({"owner": owner, "action_id": "0" * 32}, Patient()) == {}
