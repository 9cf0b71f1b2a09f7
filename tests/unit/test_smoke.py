"""The rules of the smoke suite: announced before it runs, stopped at the first failure, skipped by name."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from smoke.__main__ import SUITE, chosen, cost_max, main, plan
from smoke.data import BAD_TARGET, NO_PATTERN, ONE_CLASS, WORKS, table
from smoke.preflight import CHECKS
from smoke.steps import NotShown, Step, StepFailed, eventually, run_steps
from trainyard.domain.errors import Refused

DOCS = Path(__file__).parents[2] / "docs"


def step(
    name: str, run: Callable[[list[str]], Sequence[str]], *, on_aws_alone: str | None = None
) -> Step[list[str]]:
    return Step(name=name, does=f"do {name}", means=f"{name} is broken", run=run, on_aws_alone=on_aws_alone)


def done(name: str) -> Step[list[str]]:
    def run(order: list[str]) -> list[str]:
        order.append(name)
        return [f"saw {name}"]

    return step(name, run)


def failing(error: Exception) -> Step[list[str]]:
    def run(_: list[str]) -> list[str]:
        raise error

    return step("fails", run)


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (StepFailed("what was seen"), "what was seen"),
        (KeyError("Arn"), "KeyError: 'Arn'"),
        (StepFailed(""), "StepFailed"),
    ],
)
def test_each_step_is_said_before_it_is_done_and_the_first_failure_ends_it(error: Exception, seen: str) -> None:
    order: list[str] = []
    results = run_steps([done("one"), failing(error), done("three")], order, local=False, say=order.append)
    assert [(r.name, r.outcome) for r in results] == [("one", "passed"), ("fails", "failed")]
    assert order.index("[1/3] one: do one") < order.index("one") < order.index("[2/3] fails: do fails")
    assert results[-1].seen == [seen]
    assert order[-1] == "      FAILED. What it means: fails is broken"


def test_what_the_local_cloud_cannot_show_is_skipped_by_name_there_alone() -> None:
    alone = step("quotas", lambda order: ["seen"], on_aws_alone="no quotas here")
    for local, outcome in ((True, "skipped"), (False, "passed")):
        (result,) = run_steps([alone], [], local=local, say=lambda _: None)
        assert result.outcome == outcome
    (unclear,) = run_steps([failing(NotShown("it tells nothing"))], [], local=True, say=lambda _: None)
    assert (unclear.outcome, unclear.seen) == ("skipped", ["it tells nothing"])


def test_what_does_not_come_in_time_is_named() -> None:
    with pytest.raises(StepFailed, match="timed out after 0 s waiting for the metric"):
        eventually(lambda: None, 0, "the metric", every=0)
    assert eventually(lambda: "there", 0, "it")[0] == "there"


def test_a_suite_goes_on_from_a_step_and_names_what_it_has() -> None:
    assert [s.name for s in chosen(SUITE, first="teardown", only=None)] == ["teardown", "leftovers"]
    assert [s.name for s in chosen(SUITE, first=None, only="guard")] == ["guard"]
    assert chosen(SUITE, first=None, only=None) == SUITE
    with pytest.raises(Refused, match="no step 'gard'; the steps are deploy, published"):
        chosen(SUITE, first="gard", only=None)
    assert main(["run", "--local", "--from", "gard"]) == 2


def test_the_suite_says_what_it_may_cost() -> None:
    cost = cost_max(SUITE, "us-east-1")
    assert cost is not None
    assert 0 < cost < 5
    assert plan(SUITE, "us-east-1")[-2].endswith(f"at most {cost:.2f} USD")
    assert "no prices for this Region" in plan(SUITE, "xx-none-1")[-2]


def test_every_step_has_a_name_of_its_own_and_says_what_it_does_and_what_a_failure_means() -> None:
    steps = [*CHECKS, *SUITE]
    assert len({s.name for s in steps}) == len(steps)
    for one in steps:
        assert len(one.does) > 20, one.name
        assert len(one.means) > 40, one.name


def test_every_doubt_names_the_step_that_settles_it_and_every_such_step_is_there() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## What has not been run on AWS")[2].partition("\n## ")[0]
    doubts = re.split(r"\n- ", section)[1:]
    assert len(doubts) >= 15
    known = {s.name for s in (*CHECKS, *SUITE)}
    for doubt in doubts:
        named = re.findall(r"`smoke:([a-z-]+)`", doubt)
        assert named or "no step" in doubt.lower(), doubt
        assert set(named) <= known, doubt


def test_the_tables_that_are_uploaded_are_what_they_are_called() -> None:
    good, no_target, one_class, noise = (
        table(kind).decode().splitlines() for kind in (WORKS, BAD_TARGET, ONE_CLASS, NO_PATTERN)
    )
    assert good[0] == noise[0] == "size,weight,target"
    assert "target" not in no_target[0]
    assert {line.split(",")[2] for line in one_class[1:]} == {"a"}
    assert len({line.split(",")[2] for line in noise[1:]}) == 2
    right = sum(
        (float(a) > float(b)) == (target == "a") for a, b, target in (line.split(",") for line in good[1:])
    )
    assert right == len(good) - 1
