"""How a wave judges one data set's first training on a version: beside which model, and by which metric."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.build import NOW, request
from tests.unit.test_waves import BEFORE, VERSION, wave_of
from trainyard.domain.requests import Outcome, Request, State
from trainyard.domain.waves import Judged, Verdict, judge


def training(number: int, algorithm: str, **outcome: Any) -> Request:
    return request(
        number,
        algorithm=algorithm,
        data_set="churn",
        state=State.SUCCEEDED,
        finished_at=NOW,
        outcome=Outcome(**outcome),
    )


def judged(new: Request, earlier: Request, request_of: Callable[[str], Request | None] = lambda _: None) -> Judged:
    judgement = judge(wave_of(version=VERSION), "churn", [new, earlier], NOW, request_of)
    assert judgement is not None
    return judgement


@pytest.mark.parametrize(
    ("metric", "before", "now", "verdict"),
    [
        ("rmse", 10, 20, Verdict.WORSE),
        ("rmse", 20, 10, Verdict.AS_GOOD),
        ("mae", 10, 20, Verdict.WORSE),
        ("r2", 0.5, 0.9, Verdict.AS_GOOD),
        ("r2", 0.9, 0.5, Verdict.WORSE),
    ],
)
def test_of_errors_the_lower_one_is_better(metric: str, before: float, now: float, verdict: Verdict) -> None:
    earlier = training(1, BEFORE, quality=before, quality_metric=metric)
    new = training(2, VERSION, quality=now, quality_metric=metric)
    assert judged(new, earlier).verdict is verdict


def test_two_metrics_are_not_compared() -> None:
    earlier = training(1, BEFORE, quality=0.9, quality_metric="auc")
    judgement = judged(training(2, VERSION, quality=0.5, quality_metric="r2"), earlier)
    assert (judgement.verdict, judgement.reason) == (Verdict.NEW, "judged by r2, before by auc")


@pytest.mark.parametrize(
    ("algorithm", "verdict"), [(BEFORE, Verdict.WORSE), (VERSION, Verdict.AS_GOOD)], ids=["before", "same version"]
)
def test_a_champion_of_the_version_itself_says_nothing_of_it(algorithm: str, verdict: Verdict) -> None:
    champion = training(3, algorithm, quality=0.9, quality_metric="auc")
    results = {"quality_metric": "auc", "gain": -0.3, "champion": champion.request_id, "champion_quality": 0.9}
    new = training(2, VERSION, quality=0.9, **results)
    earlier = training(1, BEFORE, quality=0.9, quality_metric="auc")
    assert judged(new, earlier, {champion.request_id: champion}.get).verdict is verdict
