"""Waves by the HTTP API: they are begun, followed and steered, and what makes no sense is refused by name."""

from typing import Any

import pytest

from tests.http_api import Api
from trainyard.domain.waves import WaveState

PATH, WAVE = "/v1/service/waves", "20261130-060000-a1b2c3"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


def test_a_dry_run_begins_nothing_and_a_wave_is_begun_once(api: Api) -> None:
    body = {"version": "linear@2", "stages": [50, 100]}
    status, plan = api.post(PATH, body | {"dry_run": True}, "operators")
    assert (status, plan["wave"]) == (200, None)
    moved = [name for stage in plan["stages"] for name in stage["tenants"]]
    assert [stage["percent"] for stage in plan["stages"]] == [50, 100]
    assert sum(stage["count"] for stage in plan["stages"]) == len(moved) == len(set(moved))
    assert api.get(PATH, "viewers")[1]["items"] == []
    status, begun = api.post(PATH, body, "operators")
    assert (status, begun["wave"]["state"]) == (200, "RUNNING")
    assert begun["wave"]["begun_by"].startswith("operator")
    (listed,) = api.get(PATH, "viewers")[1]["items"]
    assert listed == begun["wave"]
    status, refused = api.post(PATH, body, "operators")
    assert (status, "has not ended" in refused["detail"]) == (409, True)


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"version": "none"}, 409, "there is no algorithm 'none'"),
        ({"version": "linear"}, 409, "nobody to move"),
        ({"stages": []}, 400, "stages"),
        ({"stages": [10, 5]}, 400, "each must be more than the one before"),
        ({"stages": [0]}, 400, "greater than 0"),
        ({"tier": "gold"}, 400, "gold"),
        ({"worse_percent": 101}, 400, "worse_percent"),
        ({"stage_hours": 0}, 400, "stage_hours"),
        ({"margin": -1}, 400, "margin"),
        ({"why": "x"}, 400, "why"),
    ],
)
def test_a_wave_that_cannot_be_is_refused_by_name(
    api: Api, changes: dict[str, Any], status: int, words: str
) -> None:
    answered, answer = api.post(PATH, {"version": "linear@2"} | changes, "operators")
    assert answered == status, answer
    assert words in str(answer)
    assert api.wave_commands.waves.unfinished() == []


def test_a_wave_shows_first_who_does_badly(api: Api) -> None:
    api.wave(WAVE)
    status, answer = api.get(f"{PATH}/{WAVE}", "viewers")
    assert (status, [each["tenant_id"] for each in answer["members"]]) == (200, ["acme1", "acme"])
    assert (answer["tenants"], answer["judged"], answer["bad"], answer["is_complete"]) == (2, 1, 1, True)
    (judged,) = answer["members"][0]["judged"]
    assert (judged["verdict"], judged["gain"]) == ("worse", -0.3)
    _, first = api.get(f"{PATH}/{WAVE}?limit=1", "viewers")
    assert (len(first["members"]), first["is_complete"]) == (1, False)
    for name in ("x", "20261130-060000-ffffff", "%2e%2e"):
        assert api.get(f"{PATH}/{name}", "viewers")[0] == 404


def test_a_wave_is_paused_resumed_and_sent_back(api: Api) -> None:
    api.wave(WAVE)
    assert api.post(f"{PATH}/{WAVE}/pause", {"reason": "lunch"}, "operators")[1]["reason"] == "lunch"
    assert api.post(f"{PATH}/{WAVE}/resume", {}, "operators")[1]["state"] == "RUNNING"
    status, back = api.post(f"{PATH}/{WAVE}/back", {}, "operators")
    assert (status, back["state"]) == (200, "GOING_BACK")
    assert back["reason"].startswith("sent back by operator")
    status, refused = api.post(f"{PATH}/{WAVE}/resume", {}, "operators")
    assert (status, "cannot be changed so" in refused["detail"]) == (409, True)
    for change in ("pause", "resume", "back"):
        assert api.post(f"{PATH}/20261130-060000-ffffff/{change}", {}, "operators")[0] == 404
    assert api.wave_commands.known(WAVE).state is WaveState.GOING_BACK
