"""Evaluate: let the packed model predict the test rows, and measure its quality.

The step also copies the model to its final location: SageMaker writes a training job's output under the job's
name, and tenants find theirs at models/<data set>/<request>/model.tar.gz.
"""

import argparse
import json
import shutil
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from baseline import compare
from common import DataError, run, unpack

Score = Callable[[np.ndarray, np.ndarray], float]
"""What happened and what was predicted → a metric."""

CLASSIFICATION: dict[str, Score] = {
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "f1_macro": lambda true, predicted: f1_score(true, predicted, average="macro"),
}
REGRESSION: dict[str, Score] = {
    "r2": r2_score,
    "mae": mean_absolute_error,
    "rmse": root_mean_squared_error,
}


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(arguments.model / "model.tar.gz") as archive:
            unpack(archive, Path(folder))
        model = joblib.load(Path(folder) / "model.joblib")
        schema = json.loads((Path(folder) / "schema.json").read_text(encoding="utf-8"))
    table = pd.read_pickle(arguments.test / "test.pkl")
    features, target = table.drop(columns=[schema["target"]]), table[schema["target"]]
    evaluated = classification if schema["problem"] == "classification" else regression
    report = {
        "problem": schema["problem"],
        "rows": len(table),
        **evaluated(model, features, target, arguments.metric),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "evaluation.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    arguments.deliver.mkdir(parents=True, exist_ok=True)
    shutil.copy(arguments.model / "model.tar.gz", arguments.deliver / "model.tar.gz")
    print(report["verdict"]["text"])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "test", "output", "deliver", "failure-file"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--metric", default="auto")
    return parser.parse_args()


def classification(model: Any, features: pd.DataFrame, target: pd.Series, asked: str) -> dict[str, Any]:
    """Return the report on a classifier: its quality is the area under the ROC curve for two classes, balanced
    accuracy for more; the baseline always says the most frequent class.
    """
    code_of = {label: code for code, label in enumerate(dict.fromkeys([*model.classes_, *target.unique()]))}
    true, predicted = (
        np.array([code_of[label] for label in values]) for values in (target, model.predict(features))
    )
    most_frequent = np.full(len(true), np.bincount(true).argmax())
    pairs: dict[str, tuple[Score, np.ndarray, np.ndarray]] = {
        name: (score, predicted, most_frequent) for name, score in CLASSIFICATION.items()
    }
    default = "balanced_accuracy"
    if len(model.classes_) == 2 and target.nunique() == 2:
        positive = code_of[model.classes_[1]]
        default = "roc_auc"

        def area(true_class: np.ndarray, scores: np.ndarray) -> float:
            is_positive = true_class == positive
            if is_positive.all() or not is_positive.any():
                return np.nan
            return float(roc_auc_score(is_positive, scores))

        pairs["roc_auc"] = area, model.predict_proba(features)[:, 1], np.zeros(len(true))
    return _report("classification_metrics", true, pairs, default if asked == "auto" else asked)


def regression(model: Any, features: pd.DataFrame, target: pd.Series, asked: str) -> dict[str, Any]:
    """Return the report on a regression: its quality is R², not less than 0; the baseline always says the mean."""
    true, predicted = np.asarray(target, dtype=np.float64), np.asarray(model.predict(features), dtype=np.float64)
    mean = np.full(len(true), true.mean())
    pairs = {name: (score, predicted, mean) for name, score in REGRESSION.items()}
    report = _report("regression_metrics", true, pairs, "r2" if asked == "auto" else asked)
    if report["quality"]["metric"] == "r2":
        report["quality"]["value"] = max(report["quality"]["value"], 0.0)
    return report


def _report(
    group: str, true: np.ndarray, pairs: dict[str, tuple[Score, np.ndarray, np.ndarray]], name: str
) -> dict[str, Any]:
    """Return all metrics, and how the one that counts stands beside its baseline; raises DataError for another."""
    if name not in pairs:
        raise DataError(f"the quality metric {name!r} was not measured; measured metrics: {', '.join(pairs)}")
    metrics = {other: {"value": rounded(score(true, said))} for other, (score, said, _) in pairs.items()}
    score, predicted, constant = pairs[name]

    def measure(rows: np.ndarray) -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a resample lacks a class
            return score(true[rows], predicted[rows]), score(true[rows], constant[rows])

    comparison = compare(name, len(true), measure)
    return {"quality": {"metric": name, **metrics[name]}, group: metrics, **comparison.as_report()}


def rounded(value: Any) -> float:
    """Return a metric to four places, as people read it."""
    return round(float(value), 4)


if __name__ == "__main__":
    run(main, parse_arguments().failure_file)
