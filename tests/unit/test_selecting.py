"""Requests that options select: what is acted on is what the days name, and nothing else."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cli import retraining, stopping, waiting
from cli.arguments import Arguments
from cli.deployment import Deployment
from tests.build import request
from trainyard.application.api.trainings import RETRIED
from trainyard.domain.errors import Refused
from trainyard.domain.requests import State

NOTHING: dict[str, Any] = dict.fromkeys(("tenant_id", "tier", "state", "data_set", "since", "until", "reason"))


@pytest.mark.parametrize(
    ("days", "selected"),
    [
        ({"since": "2026-11-21", "until": "2026-11-21"}, True),
        ({"since": "2026-11-22"}, False),
        ({"since": "2026-11-01", "until": "2026-11-20"}, False),
    ],
)
def test_stop_selects_only_what_arrived_on_the_days_named(
    days: dict[str, str], selected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = request(state=State.QUEUED)
    assert f"{waiting.arrived_at:%Y-%m-%d}" == "2026-11-21"
    monkeypatch.setattr(stopping, "matching", lambda *_: [waiting])
    given = Arguments(**NOTHING | days, request_ids=(), yes=False)
    answer = stopping.stop(cast(Deployment, None), given)
    assert answer.data == {"would_stop": [waiting.request_id] if selected else []}


@pytest.mark.parametrize("state", [s for s in State if s not in RETRIED])
def test_only_what_ended_without_a_model_is_tried_again(state: State) -> None:
    deployment = cast(Deployment, SimpleNamespace(request=lambda _: request(state=state)))
    with pytest.raises(Refused, match="only one that ended without a model"):
        retraining.retry(deployment, Arguments(**NOTHING, request_ids=("0124550c",), yes=False, wait=False))


def test_one_that_cannot_be_stopped_does_not_hide_the_others() -> None:
    class Stopping:
        def stop(self, request_id: str, _: Any) -> Any:
            if request_id.startswith("a"):
                raise Refused("it has ended")
            return request(request_id=request_id, state=State.CANCELLED)

    ids = ("a" * 32, "b" * 32)
    deployment = SimpleNamespace(request=lambda name: request(request_id=name), stop=Stopping())
    answer = stopping.stop(cast(Deployment, deployment), Arguments(**NOTHING, request_ids=ids, yes=False))
    assert answer.code == 1
    assert answer.lines == [f"{ids[0]} was not stopped: it has ended", f"{ids[1]} was cancelled before it started"]


def test_waiting_ends_when_what_was_expected_does_not_appear() -> None:
    arrived = request(state=State.SUCCEEDED)
    deployment = cast(Deployment, None)
    soon = timedelta(0)
    answer = waiting.awaited(deployment, lambda: [arrived], str, expected=2, appear_within=soon)
    assert (answer.code, answer.lines[-1]) == (4, "1 request did not appear; trainyard dlq list")
    assert waiting.awaited(deployment, lambda: [arrived], str).code == 0
    assert waiting.awaited(deployment, list, str, appear_within=soon).code == 4


def test_waiting_goes_on_until_all_that_are_expected_have_appeared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SECONDS_BETWEEN_LOOKS", 0)
    first, second = request(state=State.REJECTED), request(request_id="b" * 32, state=State.SUCCEEDED)
    looks = [[first], [first], [first, second]]
    answer = waiting.awaited(cast(Deployment, None), lambda: looks.pop(0), str, expected=2)
    assert len(answer.lines) == 2
    assert looks == []
