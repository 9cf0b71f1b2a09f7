"""The HTTP API: what is wrong with the service."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.build import tenant
from tests.http_api import Api
from trainyard.domain.dead_letters import Letter
from trainyard.domain.requests import Request
from trainyard.domain.tenants import TenantState
from trainyard.persistence.young_buckets import note_young

HEALTH = "/v1/service/health"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


def shown(api: Api) -> list[dict[str, Any]]:
    status, body = api.get(HEALTH, "viewers")
    assert status == 200
    return list(body["items"])


def test_nothing_is_wrong(api: Api) -> None:
    assert {(each["check"], each["result"]) for each in shown(api)} == {
        (name, "ok") for name in ("requests", "tenants", "new buckets", "dead letters", "alarms")
    }


def test_what_is_wrong_comes_first_with_what_to_do(api: Api) -> None:
    api.tenants.put(tenant("acme1", state=TenantState.CREATING))
    api.dead_letters[1].letters = [Letter("1", "r", "{}", "bad", datetime.now(UTC))]
    api.alarms = [("NoPassesAlarm", "2026-11-29 20:00 UTC")]
    note_young(api.store, "acme", datetime.now(UTC) - timedelta(minutes=1))
    added = stuck(api)
    found = shown(api)
    assert [(each["check"], each["result"]) for each in found] == [
        ("requests", "BAD"),
        ("requests", "BAD"),
        ("dead letters", "BAD"),
        ("alarms", "BAD"),
        ("tenants", "warning"),
        ("new buckets", "ok"),
    ]
    assert added.request_id[:8] in found[0]["text"]
    assert [each["remedy"] != "" for each in found] == [True] * 5 + [False]


def stuck(api: Api) -> Request:
    """Admit a request as of November 21, of which nothing has been heard since."""
    added = api.enlist(1)
    api.admit()
    return added


def test_a_check_that_cannot_be_made_is_unknown_and_the_others_go_on(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied() -> None:
        raise PermissionError("arn:aws:iam::123456789012:role/x may not")

    monkeypatch.setattr(api.tenants, "all", denied)
    results = {each["check"]: each for each in shown(api)}
    assert results["tenants"]["result"] == "unknown"
    assert "123456789012" not in results["tenants"]["text"]
    assert results["alarms"]["result"] == "ok"
