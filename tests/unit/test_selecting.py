"""Requests that options select: what is acted on is what the days name, and nothing else."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cli import retraining, stopping
from cli.arguments import Arguments
from cli.deployment import Deployment
from tests.build import request
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


@pytest.mark.parametrize("state", [s for s in State if s not in retraining.RETRIED])
def test_only_what_ended_without_a_model_is_tried_again(state: State) -> None:
    deployment = cast(Deployment, SimpleNamespace(request=lambda _: request(state=state)))
    with pytest.raises(Refused, match="only one that ended without a model"):
        retraining.retry(deployment, Arguments(**NOTHING, request_ids=("0124550c",), yes=False, wait=False))
