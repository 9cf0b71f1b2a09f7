import json
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cli.app import main
from simulation.flow import Job
from simulation.what_if import generated, outcome, read_history, write_history
from simulation.what_if_picture import _duration, _waits, picture
from tests.build import policy, tier
from trainyard.contracts.compiled_policy import DEPLOYED
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.errors import Refused

ONE = policy(tier(quota=1))
TWO = policy(tier(quota=2, running_max_per_tenant=2))
JOBS = [Job(n, 0.0, "acme", "basic", 600.0) for n in range(3)]


def test_a_wider_quota_shortens_the_waits() -> None:
    before, after = outcome(JOBS, ONE), outcome(JOBS, TWO)
    assert [r.waited for r in before.runs] == [0, 600, 1200]
    assert [r.waited for r in after.runs] == [0, 0, 600]
    assert (before.makespan, after.makespan) == (1800, 1200)


def test_a_history_that_needs_a_tier_the_candidate_lacks_is_refused() -> None:
    with pytest.raises(Refused, match="no tier basic"):
        outcome(JOBS, policy(tier("other")))


def test_a_history_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(write_history(JOBS), encoding="utf-8")
    assert [(j.arrives, j.tenant_id, j.seconds) for j in read_history(path)] == [(0.0, "acme", 600.0)] * 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [("{", "line 2: JSONDecodeError"), ('{"tenant": "a"}', "line 2: KeyError"), (None, "times must be positive")],
)
def test_a_bad_line_of_a_history_is_named(tmp_path: Path, line: str | None, reason: str) -> None:
    bad = line or json.dumps({"arrives_seconds": -1, "tenant": "a", "tier": "b", "run_seconds": 1})
    path = tmp_path / "history.jsonl"
    path.write_text(write_history(JOBS[:1]) + bad, encoding="utf-8")
    with pytest.raises(Refused, match=reason):
        read_history(path)


@pytest.mark.parametrize("per_hour", [8, 12])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_at_equal_load_a_higher_tier_does_not_wait_longer(seed: int, per_hour: float) -> None:
    """What the shipped policy promises to those who pay for it."""
    shipped = parse_policy(DEPLOYED.read_text(encoding="utf-8"), 1, "us-east-1")
    tiers = outcome(generated(shipped, hours=24, seed=seed, per_hour=per_hour), shipped).tiers
    assert [found.tier for found in tiers] == ["basic", "standard", "premium"]
    assert all(found.requests > 60 for found in tiers)
    for lower, higher in combinations(tiers, 2):
        # Since caps yield, standard waits almost as little as premium; the p95 of some fifteen requests decides.
        for wait in ("wait_p50", "wait_p95") if lower.tier == "basic" else ("wait_p50",):
            assert round(getattr(higher, wait)) <= round(getattr(lower, wait)), (higher.tier, wait)
    assert tiers[0].wait_p95 > tiers[2].wait_p95, "there is something to wait for"


def test_the_picture_stays_inside_its_frame() -> None:
    outcomes = {"today": outcome(JOBS, ONE), "candidate": outcome(JOBS, TWO)}
    root = ElementTree.fromstring(picture(outcomes, {"today": ONE, "candidate": TWO}))
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    shapes = [element for element in root if "points" in element.attrib]
    assert len(shapes) == 2 * (1 + 1 + 1), "for each policy slots, their limit and waits of the one tier"
    for shape in shapes:
        for point in shape.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    assert width <= 480, "its text can be read on 375 pixels"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (40 * 86400, "40 d")]
)
def test_short_and_long_times_are_told_in_their_unit(seconds: float, said: str) -> None:
    assert _duration(seconds) == said


def test_waits_are_averaged_over_those_that_arrived_together() -> None:
    runs = outcome(JOBS, ONE).runs
    drawn = _waits(runs, 1e9)
    assert [round(wait, 6) for _, wait in drawn] == [round(sum(run.waited for run in runs) / len(runs), 6)]


def test_drawn_arrivals_are_the_same_for_the_same_seed() -> None:
    assert generated(TWO, hours=2) == generated(TWO, hours=2)


def test_the_command_compares_two_policies_without_a_deployment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = tmp_path / "what-if.svg"
    given = ["simulate", "--policy", str(DEPLOYED), "--today", str(DEPLOYED), "--generate", "1"]
    assert main([*given, "--picture", str(drawing)]) == 0
    assert "slot utilization" in capsys.readouterr().out
    assert drawing.read_text(encoding="utf-8").startswith("<svg")
