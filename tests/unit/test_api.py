"""The HTTP API: who gets what, and what everybody else is told."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import jsonschema
import pytest

from testing.memory_ports import MemoryTenants
from testing.memory_store import MemoryStore
from testing.openapi import FILE, described
from testing.service import scheduler_over
from tests.build import after, request, tenant
from tests.unit.test_functions import Context, load
from trainyard.application.api.request_pages import RequestPages
from trainyard.contracts.api import cursor_text, parse_cursor
from trainyard.domain.errors import Conflict, Malformed, Throttled
from trainyard.domain.receipts import receipt_of
from trainyard.domain.requests import Request, State
from trainyard.domain.tenants import TenantState
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


class Api:
    """The function over a store in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.requests = scheduler_over(self.store).tables.requests
        self.tenants = MemoryTenants(tenant(), tenant("acme1"), tenant("gone", state=TenantState.DELETED))
        self.pages = RequestPages(requests=self.requests)
        self.module: ModuleType = load("api")
        monkeypatch.setattr(bootstrap, "request_pages", lambda: self.pages)
        monkeypatch.setattr(bootstrap, "claim_names", dict)
        self.counted: list[Update] = []
        self.totals: list[Totals] = []
        monkeypatch.setattr(bootstrap, "book", lambda: SimpleNamespace(totals=self.of_month))
        self.limits = CallLimits(update=self.counted.append)
        monkeypatch.setattr(bootstrap, "call_limits", lambda: self.limits)
        monkeypatch.setattr(bootstrap, "tenant_exists", self._exists)

    def _exists(self, tenant_id: str) -> bool:
        found = self.tenants.get(tenant_id)
        return found is not None and found.state is not TenantState.DELETED

    def of_month(self, month: str, tenant_id: str) -> list[Totals]:
        return [each for each in self.totals if (each.month, each.tenant_id) == (month, tenant_id)]

    def put(self, number: int, tenant_id: str = "acme", **fields: Any) -> Request:
        added = replace(request(number), tenant_id=tenant_id, arrived_at=after(number // 3), **fields)
        self.store.transact([self.requests.put(added)])
        return added

    def get(self, path: str, group: str = "tenant-readers", method: str = "GET", **event: Any) -> tuple[int, Any]:
        path, _, query = path.partition("?")
        claims = {"sub": "s", "cognito:groups": f"[{group}]", "custom:tenant": "acme"}
        context = {"http": {"method": method, "path": path}, "stage": "$default", "requestId": "r"}
        whole = {
            "version": "2.0",
            "routeKey": "ANY /v1/{path+}",
            "rawPath": path,
            "rawQueryString": query,
            "headers": {},
            "requestContext": context | {"authorizer": {"jwt": {"claims": claims, "scopes": []}}},
            "isBase64Encoded": False,
        }
        if query:
            whole["queryStringParameters"] = dict(part.split("=", 1) for part in query.split("&"))
        answer = self.module.handler(whole | event, Context())
        self.headers = answer["headers"]
        assert answer["headers"]["Cache-Control"] == "no-store"
        assert answer["headers"]["X-Content-Type-Options"] == "nosniff"
        kind = "application/json" if answer["statusCode"] == 200 else "application/problem+json"
        assert answer["headers"]["Content-Type"] == kind
        return answer["statusCode"], json.loads(answer["body"])


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


def test_a_request_is_shown_as_its_receipt_says(api: Api) -> None:
    added = api.put(1)
    path = f"/v1/tenants/acme/requests/{added.request_id}"
    assert api.get(path) == (200, json.loads(json.dumps(receipt_of(added))))
    assert api.get("/v1/tenants/acme/requests") == (200, {"items": [receipt_of(added)], "next": None})


def test_everybody_gets_what_the_role_may_see_and_others_what_does_not_exist(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """Routes × roles × whose: what is another tenant's is answered as what is not there."""
    own, foreign = api.put(1), api.put(2, "acme1")
    tenants = ("acme", "acme1", "gone", "absent", "ACME", "acme/../acme1", "%61cme1", "acme1%00", "pool")
    ids = (own.request_id, foreign.request_id, "0" * 32, "x", f"{own.request_id}%00")
    routes = [
        "/v1/tenants/{tenant}/requests",
        "/v1/tenants/{tenant}/requests/{request}",
        "/v1/tenants/{tenant}/costs",
    ]
    tried = 0
    for group, tenant_id, request_id, route in product(GROUPS, tenants, ids, routes):
        status, body = api.get(route.format(tenant=tenant_id, request=request_id), group)
        sees = {"operators": ("acme", "acme1"), "viewers": ("acme", "acme1")}.get(group, ("acme",))
        exists = "{request}" not in route or (tenant_id, request_id) in (
            ("acme", own.request_id),
            ("acme1", foreign.request_id),
        )
        if tenant_id in sees and exists:
            assert status == 200, (group, tenant_id, route)
            assert foreign.request_id not in json.dumps(body) or tenant_id == "acme1"
        else:
            assert (status, body) == (404, NOT_FOUND), (group, tenant_id, request_id, route)
        tried += 1
    with capsys.disabled():
        print(f"\n{tried} calls of the HTTP API by role and tenant", end="")


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
    assert str(error) not in body["detail"].replace("an error of the service", "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_what_is_only_read_cannot_be_written(api: Api, method: str) -> None:
    assert api.get("/v1/tenants/acme/requests", "operators", method)[0] == 404


def test_the_description_of_the_api_is_the_one_that_the_routes_make() -> None:
    assert described() == FILE.read_text(encoding="utf-8"), "make openapi"


def test_what_is_answered_is_what_the_description_says(api: Api) -> None:
    document = json.loads(FILE.read_text(encoding="utf-8"))
    added = api.put(1, state=State.FAILED)
    paths = {
        "/v1/me": "/v1/me",
        "/v1/tenants/{tenant_id}/requests": "/v1/tenants/acme/requests",
        "/v1/tenants/{tenant_id}/requests/{request_id}": f"/v1/tenants/acme/requests/{added.request_id}",
        "/v1/tenants/{tenant_id}/costs": "/v1/tenants/acme/costs",
    }
    assert set(paths) == set(document["paths"])
    for template, path in paths.items():
        (operation,) = document["paths"][template].values()
        assert {"200", "400", "401", "403", "404", "429", "500", "503"} == set(operation["responses"])
        (content,) = operation["responses"]["200"]["content"].values()
        _, body = api.get(path)
        validator = jsonschema.Draft202012Validator({**content["schema"], "components": document["components"]})
        assert list(validator.iter_errors(body)) == []
        assert list(validator.iter_errors([])), "the schema refuses something"
