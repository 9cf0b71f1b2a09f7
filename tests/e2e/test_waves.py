"""A wave with a bad version of an algorithm stops in its first stage, and leaves no tenant and no caller on it."""

import json
from pathlib import Path

import pytest

from cli.serving import aliases_of
from local.demo import data
from tests.e2e.conftest import Harness, eventually
from trainyard.domain.requests import State
from trainyard.domain.waves import MemberState, WaveState
from trainyard.persistence.waves import Waves

BAD = """
name: gradient-boosting@2
description: one tree that hardly counts
hyperparameters:
  max_iter: {kind: integer, default: 1, minimum: 1, maximum: 1}
  learning_rate: {kind: number, default: 0.01, minimum: 0.001, maximum: 0.1}
"""
NAMES = ("wavering-a", "wavering-b", "wavering-c")


@pytest.mark.thorough
def test_a_bad_version_stops_within_its_first_stage_and_nobody_is_left_on_it(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES:
        harness.create(name, "--serving", "multi-model:approval=automatic", "--tag", "wavering", tier="premium")
        harness.drop(name, "incoming/cells/data.csv", data.bundled("cancer"))

    def live(name: str) -> int | None:
        return aliases_of(harness.deployment).get(name, "cells").live

    for name in NAMES:
        assert eventually(lambda name=name: live(name) == 1, 90), name  # type: ignore[misc]
    (tmp_path / "hasty.yaml").write_text(BAD, encoding="utf-8")
    assert harness.run("algorithm", "register", str(tmp_path / "hasty.yaml")) == 0
    capsys.readouterr()
    options = ("--tag", "wavering", "--stage", "30", "--stage", "100")
    assert harness.run("--json", "wave", "start", "gradient-boosting@2", *options) == 0
    (first,) = json.loads(capsys.readouterr().out)["stages"][0]["tenants"]
    assert Waves(harness.deployment.store).unfinished() == [], "it was only shown"
    assert harness.run("--json", "wave", "start", "gradient-boosting@2", *options, "--yes") == 0
    wave = json.loads(capsys.readouterr().out)["wave"]["wave_id"]

    ended = harness.carried_on(wave, 120)
    assert (ended.state, ended.stage) == (WaveState.ROLLED_BACK, 0)
    assert f"1 of 1 data sets that can be compared failed or got worse, and at most 10 % may: {first}/cells" in (
        ended.reason
    )
    (member,) = Waves(harness.deployment.store).members(wave)
    assert (member.tenant_id, member.state) == (first, MemberState.BACK)
    assert member.judged[0].gain is not None
    assert member.judged[0].gain < -0.02
    for name in NAMES:
        assert harness.deployment.tenant(name).settings.algorithm == "gradient-boosting"
    assert harness.run("wave", "show", wave) == 1
    shown = capsys.readouterr()
    assert "worse" in shown.out
    assert "stopped: 1 of 1 data sets" in shown.err + shown.out

    def is_over() -> bool:
        requests = harness.requests(first)
        again = [each for each in requests if each.triggers == ("algorithm version: gradient-boosting",)]
        return bool(again) and again[0].state is State.SUCCEEDED

    assert eventually(is_over, 60), "it has trained on the version before again"
    worse = next(r for r in harness.requests(first) if r.algorithm == "gradient-boosting@2")
    assert worse.state is State.SUCCEEDED, worse.reason
    assert eventually(lambda: live(first) in (1, 3), 60)
    assert live(first) != 2
