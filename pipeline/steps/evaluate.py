"""Evaluate: let the packed model predict the test rows, and measure its quality.

The step also copies the model to its final location: SageMaker writes a training job's output under the job's
name, and tenants find theirs at models/<data set>/<request>/model.tar.gz.
"""

import argparse
import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import joblib
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

from common import DataError, run, unpack


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(arguments.model / "model.tar.gz") as archive:
            unpack(archive, Path(folder))
        model = joblib.load(Path(folder) / "model.joblib")
        schema = json.loads((Path(folder) / "schema.json").read_text(encoding="utf-8"))
    table = pd.read_pickle(arguments.test / "test.pkl")
    features, target = table.drop(columns=[schema["target"]]), table[schema["target"]]
    measure = classification if schema["problem"] == "classification" else regression
    measured = measure(model, features, target)
    if arguments.metric != "auto":
        measured["quality"] = chosen(measured, arguments.metric)
    report = {"problem": schema["problem"], "rows": len(table), **measured}
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "evaluation.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    arguments.deliver.mkdir(parents=True, exist_ok=True)
    shutil.copy(arguments.model / "model.tar.gz", arguments.deliver / "model.tar.gz")
    print(f"{report['quality']['metric']} {report['quality']['value']:.3f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "test", "output", "deliver", "failure-file"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--metric", default="auto")
    return parser.parse_args()


def chosen(measured: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the metric that the algorithm is judged by; raises DataError, naming those that there are."""
    metrics = measured.get("classification_metrics") or measured["regression_metrics"]
    if name not in metrics:
        raise DataError(f"the quality metric {name!r} was not measured; measured metrics: {', '.join(metrics)}")
    return {"metric": name, **metrics[name]}


def classification(model: Any, features: Any, target: Any) -> dict[str, Any]:
    """Quality is the area under the ROC curve for two classes, balanced accuracy for more."""
    predicted = model.predict(features)
    metrics = {
        "accuracy": {"value": rounded(accuracy_score(target, predicted))},
        "balanced_accuracy": {"value": rounded(balanced_accuracy_score(target, predicted))},
        "f1_macro": {"value": rounded(f1_score(target, predicted, average="macro"))},
    }
    name = "balanced_accuracy"
    if len(model.classes_) == 2 and target.nunique() == 2:
        scores = model.predict_proba(features)[:, 1]
        name = "roc_auc"
        metrics[name] = {"value": rounded(roc_auc_score(target == model.classes_[1], scores))}
    return {"quality": {"metric": name, **metrics[name]}, "classification_metrics": metrics}


def regression(model: Any, features: Any, target: Any) -> dict[str, Any]:
    """Quality is R², and not less than 0: a model worse than the mean is worth nothing."""
    predicted = model.predict(features)
    r2 = rounded(r2_score(target, predicted))
    metrics = {
        "r2": {"value": r2},
        "mae": {"value": rounded(mean_absolute_error(target, predicted))},
        "rmse": {"value": rounded(root_mean_squared_error(target, predicted))},
    }
    return {"quality": {"metric": "r2", "value": max(r2, 0.0)}, "regression_metrics": metrics}


def rounded(value: Any) -> float:
    """Return a metric to four places, as people read it."""
    return round(float(value), 4)


if __name__ == "__main__":
    run(main, parse_arguments().failure_file)
