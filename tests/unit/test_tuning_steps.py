"""What a trial of a tuning does: it trains with the values that it is given, and measures them on other rows."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from local.demo import data
from pipeline import publish
from tests.running_steps import Container, run_in

REGULARIZATION = {"regularization": [1e-4, 1e4, "log"]}


def score_of(container: Container) -> float:
    """Return what SageMaker finds in the log of a trial."""
    (score,) = re.findall(publish.SCORE, container.said)
    return float(score)


def noisy(rows: int = 120, columns: int = 40, noise: float = 1.5) -> bytes:
    """Return a table of which one column of many says something: coefficients must be kept small."""
    drawn = random.Random(7)
    lines = [",".join([*(f"c{number}" for number in range(columns)), "group", "day", "y"])]
    for row in range(rows):
        values = [drawn.gauss(0, 1) for _ in range(columns)]
        y = 2 * values[0] + drawn.gauss(0, noise)
        day = f"2026-{1 + row // 28:02d}-{1 + row % 28:02d}"
        lines.append(",".join([*(f"{value:.4f}" for value in values), f"g{row % 12}", day, f"{y:.4f}"]))
    return "\n".join(lines).encode()


def test_a_trial_trains_with_its_values_and_prints_how_good_they_are(container: Container) -> None:
    assert container.preprocess(("data.csv", noisy()), target="y") == ""
    scores = []
    for position in (0.0, 0.75):
        assert container.trial(REGULARIZATION, position, metric="auto") == ""
        scores.append(score_of(container))
        tuning = container.training()["tuning"]
        assert tuning["metric"] == "r2"
        assert tuning["score"] == pytest.approx(scores[-1])
        assert 0 < tuning["error"] < 1
    assert container.training()["tuning"]["values"] == {"regularization": 100.0}
    assert container.training()["hyperparameters"]["alpha"] == "100.0"
    assert scores[1] > scores[0] + 0.05, "with small coefficients it learns less of the noise"
    report = container.evaluate()
    assert report["tuning"] == container.training()["tuning"]


@pytest.mark.parametrize(
    ("job_name", "wanted"),
    [
        ("x-Tune-001-0e830ada", 3.5),
        ("x-Tune-0001-0e830ada", 3.5),
        ("x-Tune-011-0e830ada", 1.0),
        ("x-001-Tune", 1.0),
        ("", 1.0),
    ],
)
def test_the_first_trial_takes_the_values_that_trainings_have_now(
    container: Container, job_name: str, wanted: float
) -> None:
    assert container.preprocess(("data.csv", noisy()), target="y") == ""
    now = {"regularization": 3.5}
    assert container.trial(REGULARIZATION, 0.5, job_name=job_name, hyperparameters=now, metric="auto") == ""
    assert container.training()["tuning"]["values"] == {"regularization": wanted}
    assert container.training()["hyperparameters"].get("alpha", "1.0") == str(wanted)


def test_a_plain_training_measures_nothing_beside_its_model(container: Container) -> None:
    assert container.preprocess(("data.csv", noisy()), target="y") == ""
    assert container.train() == ""
    assert "validation score" not in container.said
    assert "tuning" not in container.training()
    assert "tuning" not in container.evaluate()


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [("auto", "roc_auc"), ("accuracy", "accuracy"), ("f1_macro", "f1_macro"), ("average_precision",) * 2],
)
def test_a_trial_is_measured_by_the_metric_that_counts(container: Container, metric: str, wanted: str) -> None:
    assert container.preprocess(("data.csv", data.bundled("cancer")), target="target") == ""
    assert container.trial(REGULARIZATION, 0.5, metric=metric) == ""
    assert container.training()["tuning"]["metric"] == wanted
    assert 0.9 < score_of(container) <= 1


def test_of_a_metric_that_is_better_if_it_is_lower_the_negative_is_maximised(container: Container) -> None:
    assert container.preprocess(("data.csv", noisy()), target="y") == ""
    assert container.trial(REGULARIZATION, 0.5, metric="rmse") == ""
    assert -3 < score_of(container) < -1


@pytest.mark.parametrize(
    ("search", "position", "more", "reason"),
    [
        ({"tol": [-1, -0.5, "linear"]}, (0.5,), {}, "linear cannot take tol=-0.75"),
        (REGULARIZATION, (), {}, "the tuning gave no position_1, which stands for regularization"),
        (REGULARIZATION, ("high",), {}, "the tuning gave no position_1"),
        (
            REGULARIZATION,
            (0.5,),
            {"metric": "mape"},
            "the quality metric 'mape' was not measured; measured metrics: ",
        ),
    ],
)
def test_a_trial_that_cannot_train_says_why(
    container: Container, search: dict[str, Any], position: Any, more: dict[str, Any], reason: str
) -> None:
    assert container.preprocess(("data.csv", noisy()), target="y") == ""
    assert reason in container.trial(search, *position, **more)


VALUES = """
import json, sys
sys.path.insert(0, sys.argv[1])
from trial import values_at
search = json.loads(sys.argv[2])
answers = []
for position in json.loads(sys.argv[3]):
    answers.append(values_at(search, {f"position_{n}": str(position) for n in range(1, len(search) + 1)}))
print(json.dumps(answers))
"""


def values(container: Container, search: dict[str, Any], *positions: float) -> list[dict[str, Any]]:
    """Return the values for which positions stand."""
    script, log = container.root / "values.py", container.root / "values.log"
    script.write_text(VALUES)
    steps = Path(publish.__file__).parent / "steps"
    order = {
        "script": str(script),
        "arguments": [str(steps), json.dumps(search), json.dumps(positions)],
        "environment": {},
        "directory": str(container.root),
        "log": str(log),
    }
    assert run_in(container.image, order) == 0, log.read_text()
    answers: list[dict[str, Any]] = json.loads(log.read_text().splitlines()[-1])
    return answers


def test_positions_stand_for_values_of_the_range_and_for_no_others(container: Container) -> None:
    search = {
        "b": [0.01, 1, "log"],
        "a": [0, 10, "linear"],
        "c": [1, 100, "log whole"],
        "d": [2, 4, "linear whole"],
    }
    low, middle, high, beyond = values(container, search, 0, 0.5, 1, 7)
    assert low == {"a": 0.0, "b": 0.01, "c": 1, "d": 2}
    assert middle == {"a": 5.0, "b": 0.1, "c": 7, "d": 3}
    assert high == beyond == {"a": 10.0, "b": 1.0, "c": 100, "d": 4}
    assert all(isinstance(each["c"], int) and isinstance(each["d"], int) for each in (low, middle, high))
    # Each whole number is tried as often as the others.
    drawn = [
        each["d"] for each in values(container, {"d": [2, 4, "linear whole"]}, *(n / 300 for n in range(300)))
    ]
    assert [drawn.count(number) for number in (2, 3, 4)] == pytest.approx([100, 100, 100], abs=2)


FOLDS = """
import json, sys
import numpy as np, pandas as pd
folder = sys.argv[1]
folds = np.load(folder + "/folds.npy")
rows = pd.read_pickle(folder + "/train.pkl")
print(json.dumps({"folds": folds.tolist(), "rows": [int(row) for row in rows.index]}))
"""


def folds(container: Container) -> dict[int, int]:
    """Return the number of each row to train on → its fold."""
    script, log = container.root / "folds.py", container.root / "folds.log"
    script.write_text(FOLDS)
    order = {
        "script": str(script),
        "arguments": [str(container.root / "train")],
        "environment": {},
        "directory": str(container.root),
        "log": str(log),
    }
    assert run_in(container.image, order) == 0, log.read_text()
    answer = json.loads(log.read_text().splitlines()[-1])
    return dict(zip(answer["rows"], answer["folds"], strict=True))


def test_each_row_of_a_small_data_set_is_held_out_once(container: Container) -> None:
    assert container.preprocess(("data.csv", noisy()), target="y", split="random") == ""
    chosen = list(folds(container).values())
    assert len(chosen) == 90
    assert all(15 <= chosen.count(fold) <= 21 for fold in range(5)), [chosen.count(fold) for fold in range(5)]


def test_a_group_is_in_one_fold(container: Container) -> None:
    assert container.preprocess(("data.csv", noisy()), target="y", split="group:group") == ""
    by_group: dict[int, set[int]] = {}
    for row, fold in folds(container).items():
        by_group.setdefault(row % 12, set()).add(fold)
    assert all(len(each) == 1 for each in by_group.values())
    assert len(set().union(*by_group.values())) > 1


def test_of_rows_in_the_order_of_time_the_latest_are_held_out(container: Container) -> None:
    assert container.preprocess(("data.csv", noisy()), target="y", split="time:day") == ""
    chosen = folds(container)
    held_out, trained = (
        {row for row, fold in chosen.items() if (fold == 0) == is_held} for is_held in (True, False)
    )
    assert min(held_out) > max(trained)
    assert 0.2 < len(held_out) / len(chosen) < 0.3


@pytest.mark.parametrize(("last", "share"), [(0.6, 0.6), (0.75, 0.75), (0.9, 0.9)])
def test_of_rows_that_mostly_have_one_time_some_are_trained_on(
    container: Container, last: float, share: float
) -> None:
    head, *rows = noisy(columns=5).decode().splitlines()
    count = len(rows)
    # The rows to test on are the latest; most of the others are of one time.
    years = [2026 if n >= count * 0.75 else 2025 if n >= count * 0.75 * (1 - last) else 2024 for n in range(count)]
    table = "\n".join([f"{head},year", *(f"{row},{year}" for row, year in zip(rows, years, strict=True))])
    assert container.preprocess(("data.csv", table.encode()), target="y", split="time:year") == ""
    chosen = list(folds(container).values())
    assert 0 < chosen.count(0) < len(chosen)
    assert container.trial(REGULARIZATION, 0.5, metric="auto") == ""


def test_each_class_is_in_each_fold_and_of_many_rows_one_fold_is_enough(container: Container) -> None:
    lines = [f"{row},{row % 91},{'rare' if row % 20 == 0 else 'often'}" for row in range(8000)]
    assert container.preprocess(("data.csv", "\n".join(["a,b,y", *lines]).encode()), target="y") == ""
    chosen = folds(container)
    assert set(chosen.values()) == {0, -1}
    held_out = [row for row, fold in chosen.items() if fold == 0]
    assert 0.15 < len(held_out) / len(chosen) < 0.25
    assert 0.03 < sum(row % 20 == 0 for row in held_out) / len(held_out) < 0.07
