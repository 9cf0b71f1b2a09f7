"""The HTTP API: who gets what, and what everybody else is told."""

import base64
import json
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from testing.memory_store import MemoryStore
from testing.openapi import FILE, described
from tests.build import tenant
from tests.http_api import Api
from trainyard.application.api.request_pages import RequestPages
from trainyard.contracts.api import cursor_text, parse_cursor
from trainyard.domain.errors import Conflict, Malformed, Throttled
from trainyard.domain.receipts import receipt_of
from trainyard.domain.requests import State
from trainyard.entrypoints import bootstrap
from trainyard.persistence.book import Totals
from trainyard.persistence.call_limits import WINDOW_SECONDS, CallLimits
from trainyard.persistence.store import Update

GROUPS = ("operators", "viewers", "tenant-admins", "tenant-readers")
NOT_FOUND = {
    "type": "about:blank",
    "title": "Not found",
    "status": 404,
    "detail": "There is nothing at this address, or nothing that you may see.",
}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


def test_a_request_is_shown_as_its_receipt_says(api: Api) -> None:
    added = api.put(1)
    path = f"/v1/tenants/acme/requests/{added.request_id}"
    status, shown = api.get(path)
    assert (status, shown["receipt"]) == (200, json.loads(json.dumps(receipt_of(added))))
    assert (shown["tier"], shown["state"], shown["started_at"]) == ("basic", "QUEUED", None)
    assert [change["state"] for change in shown["history"]] == [change.state.value for change in added.history]
    assert api.get("/v1/tenants/acme/requests") == (200, {"items": [shown], "next": None})


@pytest.mark.parametrize(
    "authorizer",
    [
        None,
        {},
        {"jwt": None},
        {"jwt": {"claims": None}},
        {"jwt": {"claims": {"sub": "s"}}},
        {"jwt": {"claims": {"sub": "s", "cognito:groups": "[tenant-admins]"}}},
        {"jwt": {"claims": {"sub": "s", "cognito:groups": "[strangers]", "custom:tenant": "acme"}}},
        {"lambda": {"sub": "s", "cognito:groups": "[operators]"}},
    ],
)
def test_a_token_that_makes_nobody_is_forbidden_everything(api: Api, authorizer: Any) -> None:
    context = {"http": {"method": "GET", "path": "/"}, "stage": "$default", "requestId": "r"}
    for path in ("/v1/me", "/v1/tenants/acme/requests"):
        status, body = api.get(path, requestContext=context | {"authorizer": authorizer})
        assert (status, body["title"]) == (403, "Forbidden")


def test_a_tenants_users_are_counted_together_and_held_back_together(api: Api) -> None:
    def full(update: Update) -> None:
        raise Conflict("full", failed=(0,))

    for group, caller in (
        ("tenant-admins", "tenant#acme"),
        ("tenant-readers", "tenant#acme"),
        ("viewers", "user#s"),
    ):
        api.limits = CallLimits(update=api.counted.append)
        assert api.get("/v1/me", group)[0] == 200
        assert api.counted[-1].key.pk == f"calls#{caller}"
        api.limits = CallLimits(update=full)
        status, body = api.get("/v1/tenants/acme/requests", group)
        assert (status, body["title"]) == (429, "Too many requests")
        assert 1 <= int(api.headers["Retry-After"]) <= WINDOW_SECONDS


def test_who_calls_is_told_who_that_is(api: Api) -> None:
    assert api.get("/v1/me", "operators") == (200, {"subject": "s", "role": "operator", "tenant_id": None})
    assert api.get("/v1/me") == (200, {"subject": "s", "role": "tenant-reader", "tenant_id": "acme"})


@pytest.mark.parametrize("unkind", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_pages_have_every_request_once_newest_first(
    monkeypatch: pytest.MonkeyPatch, limit: int, unkind: bool
) -> None:
    random, store = Random(limit), MemoryStore()
    api = Api(monkeypatch, store)
    added = [api.put(number) for number in range(40)]
    api.put(99, "acme1")
    store.unkind = lambda what: unkind and random.random() < 0.4
    shown: list[str] = []
    following, pages = "", 0
    while True:
        status, body = api.get(f"/v1/tenants/acme/requests?limit={limit}{following}")
        assert status == 200
        assert len(body["items"]) <= limit
        shown += [item["request_id"] for item in body["items"]]
        pages += 1
        if body["next"] is None:
            break
        following = f"&cursor={body['next']}"
    assert sorted(shown) == sorted(each.request_id for each in added)
    arrived = {each.request_id: each.arrived_at for each in added}
    assert [arrived[each] for each in shown] == sorted(arrived.values(), reverse=True)
    assert unkind or pages == -(-40 // limit)


def test_a_filter_ends_a_page_early_and_loses_nothing(api: Api) -> None:
    rare = [api.put(number, state=State.FAILED, data_set="churn") for number in (0, 90, 91)]
    for number in range(1, 90):
        api.put(number, state=State.SUCCEEDED, data_set="churn" if number % 2 else "sales")
    shown: list[str] = []
    following = ""
    while following is not None:
        path = f"/v1/tenants/acme/requests?limit=5&state=FAILED&data_set=churn{following}"
        _, body = api.get(path)
        shown += [item["request_id"] for item in body["items"]]
        following = f"&cursor={body['next']}" if body["next"] else None  # type: ignore[assignment]
    assert sorted(shown) == sorted(each.request_id for each in rare)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=NaN", "limit"),
        ("limit=1e2", "limit"),
        ("state=failed", "state"),
        ("state=", "state"),
        ("data_set=../x", "data_set"),
        ("data_set=" + "x" * 64, "data_set"),
        ("tenant=acme1", "tenant"),
        ("cursor=", "cursor"),
        ("Limit=3", "Limit: no such parameter; there are limit, cursor, state, data_set"),
        ("cursor=%", "cursor"),
        ("cursor=" + "A" * 1001, "cursor"),
        ("cursor=" + base64.urlsafe_b64encode(b"[1]").decode(), "cursor"),
        ("cursor=" + base64.urlsafe_b64encode(b'{"sort": 1}').decode(), "cursor"),
        ("cursor=" + base64.urlsafe_b64encode(b'{"request_id": "x"}').decode(), "cursor"),
        ("cursor=" + base64.urlsafe_b64encode(b"{}").decode(), "cursor"),
        ("cursor=" + base64.urlsafe_b64encode(b"\xff").decode(), "cursor"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(api: Api, query: str, reason: str) -> None:
    api.put(1)
    status, body = api.get(f"/v1/tenants/acme/requests?{query}")
    assert (status, body["status"], body["title"]) == (400, 400, "Bad request")
    assert reason in body["detail"]


def test_a_cursor_of_another_tenants_list_shows_nothing_of_it(api: Api) -> None:
    for number in range(10):
        api.put(number, "acme1" if number % 2 else "acme")
    _, body = api.get("/v1/tenants/acme1/requests?limit=1", "operators")
    status, body = api.get(f"/v1/tenants/acme/requests?cursor={body['next']}")
    assert (status, body["detail"]) == (400, "the cursor is of another list")


def test_costs_are_those_of_the_tenant_and_the_month_by_data_set(api: Api) -> None:
    common: dict[str, Any] = {"tier": "basic", "algorithm": "linear", "executions": 2, "succeeded": 1, "failed": 1}
    api.totals = [
        Totals(month="2026-11", tenant_id="acme", data_set="churn", usd=Decimal("0.100001"), calls=3, **common),
        Totals(month="2026-11", tenant_id="acme", data_set="sales", usd=Decimal("0.2"), unknown=1, **common),
        Totals(month="2026-10", tenant_id="acme", data_set="old", usd=Decimal(1), **common),
        Totals(month="2026-11", tenant_id="acme1", data_set="theirs", usd=Decimal(1), **common),
    ]
    _, body = api.get("/v1/tenants/acme/costs?month=2026-11")
    assert [(row["data_set"], row["runs"], row["usd"]) for row in body["items"]] == [
        ("sales", 2, "0.2"),
        ("churn", 2, "0.100001"),
    ]
    total = body["total"]
    assert (total["data_set"], total["runs"], total["succeeded"], total["failed"]) == (None, 4, 2, 2)
    assert (total["usd"], total["unknown_steps"], total["calls"], total["inference_usd"]) == (
        "0.300001",
        1,
        3,
        "0",
    )
    assert api.get("/v1/tenants/acme/costs")[1]["month"] == f"{datetime.now(UTC):%Y-%m}"
    status, body = api.get("/v1/tenants/acme/costs?months=2026-11")
    assert (status, body["detail"]) == (400, "months: no such parameter; there are month")
    for wrong in ("2026-13", "2026", "26-11", "2026-11-01", "", "2026-11%0A"):
        status, body = api.get(f"/v1/tenants/acme/costs?month={wrong}")
        assert (status, "month" in body["detail"]) == (400, True), wrong


def test_cursors_are_given_back_as_they_were() -> None:
    for cursor in ({"sort": "2026", "key": "x"}, {"request_id": "é\n", "tenant_id": "acme", "arrived_at": "2026"}):
        assert parse_cursor(cursor_text(cursor)) == cursor
    assert (cursor_text(None), parse_cursor(None)) == (None, None)
    with pytest.raises(Malformed):
        parse_cursor("A")


@pytest.mark.parametrize(
    ("error", "status"), [(Throttled("slow down"), 503), (RuntimeError("of the service"), 500)]
)
def test_errors_of_the_service_are_told_without_its_words(
    api: Api, error: Exception, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> RequestPages:
        raise error

    monkeypatch.setattr(bootstrap, "request_pages", fail)
    code, body = api.get("/v1/tenants/acme/requests")
    assert (code, body["status"]) == (status, status)
    assert str(error) not in body["detail"].replace("fault of the service", "")


def test_the_description_of_the_api_is_the_one_that_the_routes_make() -> None:
    assert described() == FILE.read_text(encoding="utf-8"), "make openapi"


def test_algorithms_are_described_with_what_they_cost_in_the_tenants_tier(api: Api) -> None:
    status, described = api.get("/v1/tenants/acme/algorithms")
    assert (status, described["tier"]) == (200, "basic")
    assert [each["name"] for each in described["items"]] == ["gradient-boosting", "linear", "linear@2"]
    boosting = described["items"][0]
    assert boosting["hyperparameters"][0] == {
        "name": "max_iter",
        "kind": "integer",
        "default": 100,
        "allowed": "a whole number from 1 to 5000",
    }
    cancer = next(each for each in boosting["typical_quality"] if "breast cancer" in each["data"])
    assert (cancer["rows"], cancer["metric"], cancer["baseline"]) == (569, "roc_auc", 0.5)
    assert 0.9 < cancer["quality"] <= 1
    assert [each["name"] for each in described["outputs"]] == ["model", "card", "predictions"]
    small, large = boosting["instances"]
    assert (small["data_mb_max"], small["training"]) == (10, ["ml.m5.large"])
    assert Decimal(small["training_usd_per_hour"]) < Decimal(large["training_usd_per_hour"])
    assert boosting["quality_min"] == 0.5
    api.tenants.put(tenant(tier="gone"))
    status, problem = api.get("/v1/tenants/acme/algorithms")
    assert (status, "gone, is not in the policy" in problem["detail"]) == (409, True)
