"""The journal: what is kept of events, that none is missed by a cursor, and what a tenant sees of it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from testing.memory_store import MemoryStore
from tests.http_api import Api
from tests.unit.test_functions import Context, load
from trainyard.contracts.journal import SHOWN, parse_place, parse_published
from trainyard.domain.errors import Malformed
from trainyard.domain.journal import JournalEntry
from trainyard.persistence.journal import KEPT_FOR, SETTLED_AFTER, Journal

EVENTS = Path(__file__).parents[2] / "events"
PATH = "/v1/tenants/acme/events"
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


def published(name: str) -> dict[str, Any]:
    return dict(json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8")))


def entry(number: int) -> JournalEntry:
    return JournalEntry(event_id=f"{number:08x}", at=NOW, kind="Model Deployed", values={"version": number})


def test_what_is_published_is_read_by_a_cursor_and_nobody_else_sees_it(api: Api) -> None:
    assert api.get(PATH) == (200, {"items": [], "next": None})
    function, earlier = load("journal"), datetime.now(UTC) - timedelta(minutes=1)
    names = "training-request-failed", "model-deployed", "deadline-at-risk", "budget-threshold-crossed"
    for number, name in enumerate(names):
        tenant_id, parsed = parse_published(published(name) | {"id": f"id-{number}"})
        api.journal.add(tenant_id, parsed, earlier)
    function.handler(published("training-request-queued"), Context())
    status, body = api.get(f"{PATH}?limit=3")
    assert status == 200
    rest = api.get(f"{PATH}?cursor={body['next']}")[1]
    shown = {each["type"]: each["detail"] for each in body["items"] + rest["items"]}
    assert set(shown) == {
        "Training Request Failed",
        "Model Deployed",
        "Deadline At Risk",
        "Budget Threshold Crossed",
    }, "the last one is not settled yet"
    assert shown["Training Request Failed"]["state"] == "FAILED"
    assert shown["Model Deployed"] == {"data_set": "churn", "version": 4, "live": 4}
    assert {name for detail in shown.values() for name in detail} <= set(SHOWN)
    assert "reason" not in SHOWN
    again = api.get(f"{PATH}?cursor={rest['next']}")[1]
    assert again == {"items": [], "next": rest["next"]}, "it can be asked with later"
    assert api.get("/v1/tenants/acme1/events")[0] == 404
    assert api.get("/v1/tenants/acme1/events", "viewers") == (200, {"items": [], "next": None})


@pytest.mark.parametrize("seed", range(20))
def test_a_cursor_misses_nothing_whatever_the_order_in_which_events_are_written(seed: int) -> None:
    """Each gets its time when its function begins, and is written some seconds later, at most ten."""
    random, journal = Random(seed), Journal(MemoryStore())
    begun = [(NOW + timedelta(seconds=random.uniform(0, 60)), number) for number in range(60)]
    writes = sorted((at + timedelta(seconds=random.uniform(0, 10)), at, number) for at, number in begun)
    place, seen = "", list[str]()
    for second in range(90):
        now = NOW + timedelta(seconds=second)
        while writes and writes[0][0] <= now:
            _, at, number = writes.pop(0)
            journal.add("acme", entry(number), at)
        if random.random() < 0.5:
            page = journal.page("acme", place, limit=random.randint(1, 5), now=now)
            seen += [each.event_id for each in page.entries]
            place = page.following
    while entries := (page := journal.page("acme", place, limit=5, now=now)).entries:
        seen += [each.event_id for each in entries]
        place = page.following
    in_order = [entry(n).event_id for _, n in sorted((int(at.timestamp() * 1000), n) for at, n in begun)]
    assert seen == in_order


def test_entries_expire_and_a_place_in_the_future_has_none_behind_it() -> None:
    store = MemoryStore()
    journal = Journal(store)
    journal.add("acme", entry(1), NOW)
    (item,) = store.items.values()
    assert item["expires_at"] == int((NOW + KEPT_FOR).timestamp())
    assert journal.page("acme", "", limit=5, now=NOW + SETTLED_AFTER).entries == []
    page = journal.page("acme", "", limit=5, now=NOW + SETTLED_AFTER + timedelta(milliseconds=1))
    assert [each.event_id for each in page.entries] == ["00000001"]
    assert journal.page("acme", "9999999999999#x", limit=5, now=NOW) == ([], "9999999999999#x")


@pytest.mark.parametrize(
    "change",
    [
        {"detail": {}},
        {"detail": {"tenant_id": "../x"}},
        {"detail": {"tenant_id": "a" * 25}},
        {"detail": {"tenant_id": "acme", "data_set": "x" * 201}},
        {"id": "#"},
        {"id": ""},
        {"time": "yesterday"},
        {"detail-type": ""},
    ],
)
def test_what_is_no_event_of_a_tenant_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_published(published("model-deployed") | change)


@pytest.mark.parametrize("cursor", ["x", "=", "AAAA", "MTIzNDU2Nzg5MDEyMw", "MTIzNDU2Nzg5MDEyMyM", "4pi6"])
def test_a_cursor_that_this_list_has_not_given_is_refused(api: Api, cursor: str) -> None:
    assert api.get(f"{PATH}?cursor={cursor}")[0] == 400
    with pytest.raises(Malformed):
        parse_place(cursor)


def test_the_rule_passes_on_what_concerns_a_tenant_alone() -> None:
    from tests.unit.test_template import TEMPLATE

    function = TEMPLATE["Resources"]["JournalFunction"]["Properties"]
    pattern = function["Events"]["Published"]["Properties"]["Pattern"]["detail-type"]
    prefixes = [each["prefix"] for each in pattern if isinstance(each, dict)]

    def passes(name: str) -> bool:
        return name in pattern or any(name.startswith(prefix) for prefix in prefixes)

    own = {
        each["detail-type"]
        for path in EVENTS.glob("*.json")
        if (each := published(path.stem)).get("source") == "trainyard"
    }
    assert {name for name in own if not passes(name)} == {
        "Cost Anomaly Detected",
        "Retraining Requested",
        "Batch Transform Requested",
        *(name for name in own if name.startswith("Tenant ")),
    }
    assert timedelta(seconds=function["Timeout"]) < SETTLED_AFTER
