"""The HTTP API: dead letters, for operators."""

from typing import Any

import pytest

from tests.build import after
from tests.http_api import Api
from trainyard.domain.dead_letters import Letter
from trainyard.entrypoints.api import dead_letters

LETTERS = "/v1/service/dead-letters"
STATUS = f"{LETTERS}/trainyard-status-dlq"


def letter(number: int, reason: str, body: str = "{}") -> Letter:
    return Letter(str(number), f"r{number}", body, reason, after(number))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    api = Api(monkeypatch)
    api.dead_letters[1].letters = [
        letter(3, "no tenant 'a1'"),
        letter(1, "no tenant 'b2'", "x" * 30_000),
        letter(2, ""),
    ]
    return api


def done(letters: int, remaining: int) -> dict[str, Any]:
    return {"letters": letters, "is_complete": True, "remaining": remaining}


def test_dead_letters_are_shown_by_reason_and_one_by_one(api: Api) -> None:
    status, shown = api.get(LETTERS, "viewers")
    assert (status, [each["queue"] for each in shown["items"]]) == (
        200,
        [f"trainyard-{name}-dlq" for name in ("uploads", "status", "undelivered", "tier-basic")],
    )
    queue = shown["items"][1]
    assert (queue["letters"], queue["unread"], shown["items"][0]["groups"]) == (3, 0, [])
    first, second = queue["groups"]
    assert (first["letters"], first["oldest"]) == (2, after(1).isoformat().replace("+00:00", "Z"))
    assert "no tenant" in first["reason"]
    assert "no reason" in second["reason"]
    items = api.get(STATUS, "viewers")[1]["items"]
    assert [each["id"] for each in items] == ["1", "2", "3"], "the oldest first"
    assert len(items[0]["body"]) == 20_000
    assert [each["id"] for each in api.get(f"{STATUS}?reason=B2", "viewers")[1]["items"]] == ["1"]
    assert [each["id"] for each in api.get(f"{STATUS}?limit=1", "viewers")[1]["items"]] == ["1"]


def test_letters_that_are_too_many_are_said_to_be_unread(api: Api) -> None:
    api.dead_letters[1].letters = [letter(number, "x") for number in range(130)]
    queue = api.get(LETTERS, "operators")[1]["items"][1]
    assert (queue["letters"], queue["unread"], queue["groups"][0]["letters"]) == (130, 30, 100)
    dry = api.post(f"{STATUS}/drop", {"all": True, "dry_run": True}, "operators")[1]
    assert dry == {"letters": 100, "is_complete": False, "remaining": 130}


def test_letters_are_sent_back_and_deleted_by_their_reason(api: Api) -> None:
    queue = api.dead_letters[1]
    dry = {"reason": "no tenant", "dry_run": True}
    for what in ("redrive", "drop"):
        assert api.post(f"{STATUS}/{what}", dry, "operators") == (
            200,
            done(2, 3),
        )
    assert len(queue.letters) == 3
    assert api.post(f"{STATUS}/redrive", {"reason": "'a1'"}, "operators") == (
        200,
        done(1, 2),
    )
    assert [each.message_id for each in queue.sent_back] == ["3"]
    assert api.post(f"{STATUS}/drop", {"reason": "'b2'"}, "operators") == (
        200,
        done(1, 1),
    )
    assert api.post(f"{STATUS}/drop", {"all": True}, "operators") == (
        200,
        done(1, 0),
    )


def test_what_takes_too_long_says_what_remains(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "SECONDS_MAX", -1.0)
    queue = api.get(LETTERS, "operators")[1]["items"][1]
    assert (queue["letters"], queue["unread"], queue["groups"]) == (3, 3, [])
    assert api.post(f"{STATUS}/redrive", {}, "operators")[1] == done(1, 2)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"{STATUS}/drop", {}, 400),
        (f"{STATUS}/drop", {"all": True, "reason": "x"}, 400),
        (f"{STATUS}/drop", {"all": False}, 400),
        (f"{STATUS}/drop", {"reason": ""}, 400),
        (f"{STATUS}/redrive", {"reason": "x" * 201}, 400),
        (f"{STATUS}/redrive", {"all": True}, 400),
        (f"{STATUS}/redrive", {"dry_run": 1}, 400),
        (f"{LETTERS}/trainyard-undelivered-dlq/redrive", {}, 409),
        (f"{LETTERS}/trainyard-nope-dlq/redrive", {}, 404),
        (f"{LETTERS}/trainyard-status/drop", {"all": True}, 404),
    ],
)
def test_what_cannot_be_done_to_letters_is_refused(api: Api, path: str, body: dict[str, Any], status: int) -> None:
    assert api.post(path, body, "operators")[0] == status
    assert len(api.dead_letters[1].letters) == 3
