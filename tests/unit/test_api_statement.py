"""The HTTP API: statements of tenants, and what all tenants cost."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.build import hard
from tests.http_api import LIMITS, Api
from trainyard.domain.policy import TenantPolicy
from trainyard.domain.requests import State
from trainyard.entrypoints.api import costs

STATEMENT = "/v1/tenants/acme/statement"
COSTS = "/v1/service/costs"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    api = Api(monkeypatch)
    for number, tenant_id in enumerate(("acme", "acme", "acme1", "acme1"), start=1):
        added = api.put(number, tenant_id=tenant_id, attempt=1, state=State.SUCCEEDED, data_set=f"d<{number}")
        api.record(added, cost=f"{number}.5", month="2026-11")
    return api


def test_a_statement_has_the_tenants_runs_and_no_others(api: Api) -> None:
    status, body = api.get(f"{STATEMENT}?month=2026-11")
    assert (status, body["month"]) == (200, "2026-11")
    assert "4.00 USD" in body["page"]
    assert "d&lt;1" in body["page"]
    assert "d&lt;3" not in body["page"]
    assert "<script" not in body["page"]
    assert "0.00 USD" in api.get(f"{STATEMENT}?month=2026-10")[1]["page"]
    assert api.get(STATEMENT)[0] == 200
    assert api.get(f"{STATEMENT}?month=2026-13")[0] == 400
    assert api.get("/v1/tenants/acme1/statement")[0] == 404


def test_a_statement_that_is_too_long_says_where_it_is_going_to_be(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "STATEMENT_RUNS_MAX", 1)
    status, problem = api.get(f"{STATEMENT}?month=2026-11")
    assert (status, "reports/_statements/2026-11.html" in problem["detail"]) == (409, True)
    monkeypatch.setattr(costs, "STATEMENT_RUNS_MAX", 2)
    assert api.get(f"{STATEMENT}?month=2026-11")[0] == 200


def test_operators_see_what_all_tenants_cost(api: Api) -> None:
    def rows(query: str) -> dict[str, Any]:
        status, body = api.get(f"{COSTS}?month=2026-11{query}", "viewers")
        assert status == 200
        return dict(body)

    body = rows("")
    assert [(row["name"], Decimal(row["usd"])) for row in body["items"]] == [
        ("acme1", Decimal(8)),
        ("acme", Decimal(4)),
    ]
    assert (body["by"], Decimal(body["total"]["usd"]), body["total"]["runs"], body["others"]) == (
        "tenant",
        Decimal(12),
        4,
        0,
    )
    body = rows("&limit=1")
    assert ([row["name"] for row in body["items"]], body["others"], body["total"]["runs"]) == (["acme1"], 1, 4)
    assert [row["name"] for row in rows("&by=tier")["items"]] == ["basic"]
    assert rows("&by=data-set")["items"][0]["name"] == "acme1/d<4"
    assert api.get(f"{COSTS}?month=2026-10", "operators")[1]["items"] == []
    assert api.get(f"{COSTS}?by=colour", "operators")[0] == 400


def test_operators_see_how_budgets_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = {name: TenantPolicy(budget=hard("10")) for name in ("acme", "acme1", "absent")}
    api = Api(monkeypatch, limits=replace(LIMITS, tenants=limited))
    status, body = api.get("/v1/service/budgets", "viewers")
    assert (status, body["others"]) == (200, 0)
    assert [(each["whose"], each["mode"], Decimal(each["limit_usd"])) for each in body["items"]] == [
        ("tenant acme", "hard", Decimal(10)),
        ("tenant acme1", "hard", Decimal(10)),
        ("tier basic", "soft", Decimal(1000)),
    ]
    body = api.get("/v1/service/budgets?limit=2", "viewers")[1]
    assert ([each["whose"] for each in body["items"]], body["others"]) == (["tenant acme", "tier basic"], 1)
    assert api.get("/v1/service/budgets?limit=0", "viewers")[0] == 400
