"""Evaluate: let the packed model predict the test rows, measure its quality, and write its card.

If the data set has a model already, its champion, that predicts the same rows, and evaluation.json compares both.

The step also copies the model to its final location: SageMaker writes a training job's output under the job's
name, and tenants find theirs at models/<data set>/<request>/model.tar.gz, beside card.html and card.json.
"""

import argparse
import json
import shutil
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score

import challenge
import diagnosis
from baseline import LOWER_IS_BETTER, compare, rounded
from card import write_card
from common import DataError, counted, json_text, run, unpack
from metrics import CLASSIFICATION, REGRESSION, TWO_CLASSES, Score
from sample import ROWS

Predict = Callable[[pd.DataFrame], np.ndarray]

Beside = Callable[[challenge.Champion, np.ndarray], challenge.Judged]
"""What the champion answers, and which of the test rows those are → both models' answers."""


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(arguments.model / "model.tar.gz") as archive:
            unpack(archive, Path(folder))
        model = joblib.load(Path(folder) / "model.joblib")
        schema, training = (read_json(Path(folder) / name) for name in ("schema.json", "training.json"))
    table = pd.read_pickle(arguments.test / "test.pkl")
    features, target = table.drop(columns=[schema["target"]]), table[schema["target"]]
    report = {"problem": schema["problem"], "rows": len(table)}
    if schema["problem"] == "classification":
        measured, beside = classification(model, features, target, arguments.metric, training["classes"])
    else:
        measured, beside = regression(model, features, target, arguments.metric, schema["last_value"])
    report |= measured
    if "tuning" in training:
        report["tuning"] = training["tuning"]
    request, _, column = arguments.challenge.partition(":")
    if arguments.champion is not None and request != "none":
        report["champion"] = {"request": request, **against(arguments, column, table.index, beside)}
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "evaluation.json").write_text(json_text(report), encoding="utf-8")
    arguments.deliver.mkdir(parents=True, exist_ok=True)
    shutil.copy(arguments.model / "model.tar.gz", arguments.deliver / "model.tar.gz")
    write_card(
        arguments.deliver,
        title=arguments.data_set,
        request=arguments.request,
        report=report,
        data=read_json(arguments.profile / "profile.json"),
        training=training,
    )
    print(report["verdict"]["text"])


def against(arguments: argparse.Namespace, column: str, tested: pd.Index, beside: Beside) -> dict[str, Any]:
    """Return how the model stands beside its champion, or why that cannot be said. `tested` are the positions of
    the rows to test on, in the table that was read.
    """
    try:
        rows = challenge.Rows.read(arguments.test / ROWS)
        champion = challenge.ask(arguments.champion / "model.tar.gz", rows, arguments.seconds)
        judged = beside(champion, np.isin(tested, rows.positions))
        if column:
            judged = replace(judged, segments=challenge.segments_by(column, rows))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a resample lacks a class
            return challenge.report(judged)
    except challenge.NotComparedError as error:
        reason = str(error)
    except Exception as error:  # whatever the champion answers, the new model is there, and was paid for
        reason = f"it cannot be compared ({type(error).__name__})"
    print(f"the model was not compared with the one before: {reason}")
    return {"not_compared": reason}


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "test", "profile", "output", "deliver", "failure-file"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--metric", default="auto")
    parser.add_argument("--data-set", default="")
    parser.add_argument("--request", default="")
    parser.add_argument("--seconds", type=float, default=np.inf, help="the job's maximum runtime")
    parser.add_argument("--champion", type=Path, help="a folder with the archive of the model before, if any")
    parser.add_argument(
        "--challenge", default="none:", help="its request, and the column to compare by: REQUEST:COLUMN"
    )
    return parser.parse_args()


def classification(
    model: Any, features: pd.DataFrame, target: pd.Series, asked: str, trained_on: dict[str, int]
) -> tuple[dict[str, Any], Beside]:
    """Return the report on a classifier: its quality is the area under the ROC curve for two classes, balanced
    accuracy for more; the baseline always says the most frequent class. And how it is compared with another one.
    """
    # long: the metrics, what they are measured on, and the report
    code_of = {label: code for code, label in enumerate(dict.fromkeys([*model.classes_, *target.unique()]))}
    labels = [str(label) for label in code_of]
    true = np.array([code_of[label] for label in target])

    def classes(rows: pd.DataFrame) -> np.ndarray:
        return np.array([code_of[label] for label in model.predict(rows)])

    predicted = classes(features)
    most_frequent = np.full(len(true), np.bincount(true).argmax())
    pairs = {name: (score, classes, predicted, most_frequent) for name, score in CLASSIFICATION.items()}
    default = "balanced_accuracy"
    if len(model.classes_) == 2 and set(target.unique()) == set(model.classes_):
        default = "roc_auc"

        def probability(rows: pd.DataFrame) -> np.ndarray:
            return np.asarray(model.predict_proba(rows)[:, 1])

        scores, none = probability(features), np.zeros(len(true))
        positive = code_of[model.classes_[1]]
        for name, score in TWO_CLASSES.items():
            pairs[name] = _of_two_classes(score, positive), probability, scores, none
    metric = default if asked == "auto" else asked
    report = {
        **_report("classification_metrics", true, pairs, metric, "the most frequent class"),
        "classes": diagnosis.by_class(true, predicted, labels, trained_on),
        "confusion": diagnosis.confusion(true, predicted, labels),
        "importance": _importance(features, true, pairs[metric], metric, len(code_of)),
    }

    def beside(champion: challenge.Champion, rows: np.ndarray) -> challenge.Judged:
        of_champion = champion.codes(labels)
        is_of_scores = pairs[metric][1] is not classes
        return challenge.Judged(
            metric,
            pairs[metric][0],
            true[rows],
            pairs[metric][2][rows],
            champion.scores(str(model.classes_[1])) if is_of_scores else of_champion,
            {f"class {label}": true[rows] == code for code, label in enumerate(labels)},
            accuracy_score,
            (predicted[rows], of_champion),
        )

    return report, beside


def _of_two_classes(score: Score, positive: int) -> Score:
    """Return a metric of scores, that is NaN where one of the classes is not there."""

    def measure(true: np.ndarray, scores: np.ndarray) -> float:
        is_positive = true == positive
        if is_positive.all() or not is_positive.any():
            return np.nan
        return float(score(is_positive, scores))

    return measure


def regression(
    model: Any, features: pd.DataFrame, target: pd.Series, asked: str, last_value: float | None
) -> tuple[dict[str, Any], Beside]:
    """Return the report on a regression: its quality is R². And how it is compared with another one.

    The baseline always predicts the mean; or the last value before the test, if the split is by time and that is
    better by the metric that counts.
    """

    def quantities(rows: pd.DataFrame) -> np.ndarray:
        return np.asarray(model.predict(rows), dtype=np.float64)

    true, predicted = np.asarray(target, dtype=np.float64), quantities(features)
    constant, rule = np.full(len(true), true.mean()), "the mean"
    metric = "r2" if asked == "auto" else asked
    if last_value is not None and metric in REGRESSION:
        last, sign = np.full(len(true), last_value), -1 if metric in LOWER_IS_BETTER else 1
        if sign * REGRESSION[metric](true, last) > sign * REGRESSION[metric](true, constant):
            constant, rule = last, "the last value before the test"
    pairs = {name: (score, quantities, predicted, constant) for name, score in REGRESSION.items()}
    report = _report("regression_metrics", true, pairs, metric, rule)
    report |= {
        "residuals": diagnosis.residuals(true, predicted),
        "importance": _importance(features, true, pairs[metric], metric, 1),
    }

    def beside(champion: challenge.Champion, rows: np.ndarray) -> challenge.Judged:
        variance = float(np.var(true[rows])) or 1.0

        def of_segment(true: np.ndarray, said: np.ndarray) -> float:
            # R² with the variance of all rows: within a segment, the target may hardly vary.
            return 1 - float(np.mean((true - said) ** 2)) / variance

        score = pairs[metric][0]
        quantities, part = champion.quantities(), of_segment if metric == "r2" else score
        return challenge.Judged(metric, score, true[rows], predicted[rows], quantities, {}, part)

    return report, beside


Measured = tuple[Score, Predict, np.ndarray, np.ndarray]
"""A metric, what it is computed from, that of all test rows, and that of the baseline."""


def _report(group: str, true: np.ndarray, pairs: dict[str, Measured], name: str, rule: str) -> dict[str, Any]:
    """Return all metrics, and how the one that counts stands beside its baseline; raises DataError for another."""
    if name not in pairs:
        raise DataError(f"the quality metric {name!r} was not measured; measured metrics: {', '.join(pairs)}")
    metrics = {other: {"value": rounded(score(true, said))} for other, (score, _, said, _) in pairs.items()}
    score, _, predicted, constant = pairs[name]

    def measure(rows: np.ndarray) -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a resample lacks a class
            return score(true[rows], predicted[rows]), score(true[rows], constant[rows])

    if not np.isfinite(metrics[name]["value"]):
        raise DataError(
            f"the quality metric {name} cannot be computed on the {counted(len(true), 'row')} to test on"
        )
    rarest = int(np.unique(true, return_counts=True)[1].min()) if group == "classification_metrics" else None
    comparison = compare(name, len(true), measure, rarest)
    report = {"quality": {"metric": name, **metrics[name]}, group: metrics, **comparison.as_report()}
    report["baseline"]["rule"] = rule
    return report


def _importance(
    features: pd.DataFrame, true: np.ndarray, measured: Measured, name: str, outputs: int
) -> list[dict[str, Any]]:
    score, predict, _, _ = measured
    sign = -1 if name in LOWER_IS_BETTER else 1

    def metric(rows: pd.DataFrame, positions: np.ndarray) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a sample lacks a class
            return sign * float(score(true[positions], predict(rows)))

    return diagnosis.importance(features, metric, outputs)


if __name__ == "__main__":
    run(main, parse_arguments().failure_file)
