"""`algorithm rollout`: who is moved, what is compared with what, and what stops it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cli import rollout as module
from cli.app import answer
from cli.deployment import Deployment
from cli.rollout import Verdict, compare
from tests.build import after, policy, request, tenant
from trainyard.domain.algorithms import Algorithm
from trainyard.domain.errors import Refused
from trainyard.domain.requests import Outcome, Request, RequestKind, State
from trainyard.domain.tenants import TenantState, TrainingSettings

BEFORE, VERSION = "neighbours", "neighbours@2"


def trained(name: str, algorithm: str, quality: float | None, at: int, **changes: Any) -> Request:
    outcome = Outcome(quality=quality, quality_metric=changes.pop("metric", "roc_auc"))
    state = State.SUCCEEDED if quality is not None else State.FAILED
    if state is State.FAILED:
        outcome = Outcome(failed_step=changes.pop("step", "Train"))
    given = {
        "tenant_id": name,
        "algorithm": algorithm,
        "state": state,
        "outcome": outcome,
        "arrived_at": after(at),
    }
    return request(**{**given, **changes})


@pytest.mark.parametrize(
    ("then", "now", "metric", "verdict"),
    [
        (0.80, 0.79, "roc_auc", Verdict.AS_GOOD),
        (0.80, 0.77, "roc_auc", Verdict.WORSE),
        (0.80, 0.90, "roc_auc", Verdict.AS_GOOD),
        (100.0, 101.0, "rmse", Verdict.AS_GOOD),
        (100.0, 103.0, "rmse", Verdict.WORSE),
        (100.0, 50.0, "rmse", Verdict.AS_GOOD),
        (0.80, None, "roc_auc", Verdict.FAILED),
        (None, 0.80, "roc_auc", Verdict.NEW),
        (None, None, "roc_auc", Verdict.NEW),
    ],
)
def test_a_version_is_compared_with_the_model_before_it(
    then: float | None, now: float | None, metric: str, verdict: Verdict
) -> None:
    requests = [trained("acme", VERSION, now, 2, metric=metric), trained("acme", BEFORE, then, 1, metric=metric)]
    comparison = compare(requests, VERSION, 0.02)
    assert comparison is not None
    assert (comparison.verdict, comparison.instead_of) == (verdict, BEFORE if then is not None else "")


def test_batch_transforms_judge_no_algorithm() -> None:
    worse = [trained("acme", VERSION, 0.70, 2), trained("acme", BEFORE, 0.90, 1)]
    for quality in (None, 0.5):
        later = replace(trained("acme", VERSION, quality, 3), kind=RequestKind.TRANSFORM)
        comparison = compare([later, *worse], VERSION, 0.02)
        assert comparison is not None
        assert comparison.verdict is Verdict.WORSE


def test_other_algorithms_other_metrics_and_running_requests_are_not_compared() -> None:
    other = trained("acme", "linear", 0.9, 1)
    assert compare([other], VERSION, 0.02) is None
    alone = compare([trained("acme", VERSION, 0.5, 2), other], VERSION, 0.02)
    assert alone is not None
    assert alone.verdict is Verdict.NEW
    measured = compare(
        [trained("acme", VERSION, 0.5, 2), trained("acme", BEFORE, 0.9, 1, metric="accuracy")], VERSION, 0.02
    )
    assert measured is not None
    assert (measured.verdict, measured.reason) == (Verdict.NEW, "judged by roc_auc, before by accuracy")
    running = trained("acme", VERSION, 0.9, 3, state=State.RUNNING)
    newest = compare([running, trained("acme", VERSION, 0.5, 2), trained("acme", BEFORE, 0.9, 1)], VERSION, 0.02)
    assert newest is not None
    assert newest.verdict is Verdict.WORSE


class Fake:
    """A deployment with tenants whose settings change as the state machine would change them."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, names: list[str], requests: dict[str, list[Request]]
    ) -> None:
        settings = TrainingSettings(algorithm=BEFORE, target="y")
        self.all = {name: tenant(name, settings=settings) for name in names}
        self.refused: dict[str, str] = {}
        self.requests = requests
        algorithms = {name: Algorithm(name=name, code_uri="s3://c/x") for name in (BEFORE, VERSION)}
        self.deployment = cast(
            Deployment,
            SimpleNamespace(
                policies=SimpleNamespace(current=lambda: policy(algorithms=algorithms)),
                tenants=SimpleNamespace(all=lambda: list(self.all.values())),
                tenant=lambda name: self.all[name],
                scheduler=SimpleNamespace(
                    tables=SimpleNamespace(
                        requests=SimpleNamespace(recent_of_tenant=lambda name, limit: self.requests.get(name, []))
                    )
                ),
            ),
        )
        monkeypatch.setattr(module, "run", self.change)

    def change(self, deployment: Any, change: Any, payload: dict[str, Any], *, quiet: bool) -> None:
        name = payload["tenant"]["name"]
        if name in self.refused:
            raise Refused(self.refused[name])
        settings = TrainingSettings(algorithm=payload["tenant"]["algorithm"], target="y")
        self.all[name] = tenant(name, settings=settings)

    def rollout(self, *options: str) -> tuple[int, dict[str, Any]]:
        answered = answer(self.deployment, "algorithm", "rollout", *options)
        assert answered is not None
        return answered.code, answered.data

    def on(self, version: str) -> set[str]:
        return {name for name, t in self.all.items() if t.settings.algorithm == version}


NAMES = [f"t{number}" for number in range(20)]


def test_a_rollout_grows_by_share_and_shows_first_what_it_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch, NAMES, {})
    code, shown = fake.rollout(VERSION)
    assert (code, len(shown["would_move"]), fake.on(VERSION)) == (0, 2, set()), "a tenth, and nothing was changed"
    code, moved = fake.rollout(VERSION, "--yes")
    assert (code, fake.on(VERSION)) == (0, set(shown["would_move"]))
    assert moved["moved"] == shown["would_move"]
    assert fake.rollout(VERSION, "--yes")[1]["moved"] == [], "again: nothing is left to move"
    fake.requests = {n: [trained(n, VERSION, 0.8, 2), trained(n, BEFORE, 0.8, 1)] for n in fake.on(VERSION)}
    first = fake.on(VERSION)
    assert fake.rollout(VERSION, "--share", "50", "--yes")[0] == 0
    assert first < fake.on(VERSION)
    assert len(fake.on(VERSION)) == 10


@pytest.mark.parametrize(
    ("after_it", "said"),
    [
        (0.5, "2 of 2 data sets that can be compared failed or got worse; at most 10 % may"),
        (None, "2 of 2 data sets that can be compared failed or got worse; at most 10 % may"),
        ("never", "none of the 2 tenants on the version has a training to compare yet"),
    ],
)
def test_a_version_that_does_worse_or_is_not_judged_yet_goes_no_further(
    monkeypatch: pytest.MonkeyPatch, after_it: Any, said: str
) -> None:
    fake = Fake(monkeypatch, NAMES, {})
    fake.rollout(VERSION, "--yes")
    first = fake.on(VERSION)
    before = {name: [trained(name, BEFORE, 0.8, 1)] for name in first}
    fake.requests = (
        before if after_it == "never" else {n: [trained(n, VERSION, after_it, 2), *before[n]] for n in first}
    )
    code, stopped = fake.rollout(VERSION, "--share", "50", "--yes")
    assert (code, fake.on(VERSION)) == (1, first)
    assert said in stopped["stopped"]
    unjudged = fake.rollout(VERSION, "--share", "50", "--yes", "--unjudged")[0]
    assert unjudged == (0 if after_it == "never" else 1), "--unjudged does not pass over what is worse"
    assert fake.rollout(VERSION, "--share", "50", "--yes", "--force")[0] == 0
    assert len(fake.on(VERSION)) == 10
    assert fake.rollout(BEFORE, "--share", "100", "--yes", "--force")[0] == 0
    assert fake.on(BEFORE) == set(NAMES), "the same command goes back"


def test_some_may_get_worse_and_who_cannot_be_moved_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch, NAMES, {})
    fake.rollout(VERSION, "--share", "50", "--yes")
    worst, *rest = sorted(fake.on(VERSION))
    fake.requests = {n: [trained(n, VERSION, 0.8, 2), trained(n, BEFORE, 0.8, 1)] for n in rest} | {
        worst: [trained(worst, VERSION, 0.5, 2), trained(worst, BEFORE, 0.8, 1)]
    }
    unlucky = sorted(fake.on(BEFORE))[0]
    fake.refused = {unlucky: "neighbours@2 has no hyperparameter 'k'"}
    code, moved = fake.rollout(VERSION, "--share", "100", "--yes")
    assert (code, moved["not_moved"]) == (1, fake.refused)
    assert unlucky not in moved["moved"]
    assert fake.on(BEFORE) == {unlucky}
    assert fake.rollout(VERSION, "--share", "100", "--worse-max", "5")[0] == 1


def test_data_sets_of_their_own_are_moved_and_keep_their_settings() -> None:
    one = tenant(
        "acme",
        settings=TrainingSettings(algorithm="linear", target="y"),
        data_sets={
            "churn": TrainingSettings(algorithm=BEFORE, target="churned", hyperparameters=(("k", 3),), priority=2),
            "costs": TrainingSettings(algorithm="linear", target="usd"),
        },
    )
    changes = module._changes(one, VERSION, None)
    assert changes["algorithm"] == "linear"
    churn, costs = changes["data_sets"]["churn"], changes["data_sets"]["costs"]
    assert (churn["algorithm"], churn["hyperparameters"], churn["priority"]) == (VERSION, {"k": 3}, 2)
    assert (costs["algorithm"], costs["target"]) == ("linear", "usd")


@pytest.mark.parametrize(
    ("failed", "verdict"),
    [
        ({"reason": "CapacityError: Unable to provision requested ML compute capacity."}, Verdict.AS_GOOD),
        ({"reason": "no column 'churned'", "step": "Preprocess"}, Verdict.AS_GOOD),
        ({"reason": "no column 'churned'", "step": None}, Verdict.AS_GOOD),
        ({"reason": "Train: KeyError: 'k'"}, Verdict.FAILED),
    ],
)
def test_failures_that_are_not_the_algorithms_are_passed_over(failed: dict[str, Any], verdict: Verdict) -> None:
    requests = [
        trained("acme", VERSION, None, 4, **failed),
        trained("acme", VERSION, 0.8, 3),
        trained("acme", BEFORE, None, 2, step="Preprocess"),
        trained("acme", BEFORE, 0.8, 1),
    ]
    comparison = compare(requests, VERSION, 0.02)
    assert comparison is not None
    assert (comparison.verdict, comparison.instead_of) == (verdict, BEFORE)


def test_a_model_of_another_version_that_came_later_is_not_compared_with() -> None:
    requests = [trained("acme", BEFORE, 0.6, 3), trained("acme", VERSION, 0.8, 2), trained("acme", BEFORE, 0.9, 1)]
    comparison = compare(requests, VERSION, 0.02)
    assert comparison is not None
    assert (comparison.verdict, comparison.before) == (Verdict.WORSE, 0.9)


def test_going_back_moves_only_who_has_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch, NAMES, {})
    fake.rollout(VERSION, "--yes")
    pinned = sorted(fake.on(BEFORE))[0]
    fake.all[pinned] = tenant(pinned, settings=TrainingSettings(algorithm="neighbours@3", target="y"))
    fake.rollout(BEFORE, "--from", VERSION, "--share", "100", "--yes", "--force")
    assert fake.on("neighbours@3") == {pinned}
    assert fake.on(VERSION) == set()


def test_a_tenant_that_somebody_changes_meanwhile_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch, NAMES, {})
    first, second = fake.rollout(VERSION)[1]["would_move"]

    def change(deployment: Any, kind: Any, payload: dict[str, Any], *, quiet: bool) -> None:
        fake.change(deployment, kind, payload, quiet=quiet)
        fake.all[second] = tenant(second, settings=TrainingSettings(algorithm="linear", target="y"))

    monkeypatch.setattr(module, "run", change)
    code, moved = fake.rollout(VERSION, "--yes")
    assert (code, moved["moved"]) == (1, [first])
    assert moved["not_moved"] == {second: "somebody changed it meanwhile"}
    assert fake.on("linear") == {second}


def test_suspended_tenants_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch, NAMES, {})
    fake.rollout(VERSION, "--yes")
    for name in fake.on(VERSION):
        fake.all[name] = replace(fake.all[name], state=TenantState.SUSPENDED)
    assert fake.rollout(VERSION, "--share", "50", "--yes")[0] == 0
