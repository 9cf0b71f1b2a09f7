"""Train: fit the chosen algorithm on the prepared data, and save it together with its preprocessing.

Script mode of the SageMaker scikit-learn container: hyperparameters come in SM_HPS, directories in
SM_CHANNEL_TRAIN, SM_MODEL_DIR and SM_OUTPUT_DIR.
"""

import inspect
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import InvalidParameterError

from common import DataError, counted, json_text, run
from features import encoder
from trial import FOLDS_FILE, is_first, validated, values_at
from warm_start import begin_with, learnt_before

SEED = 20
SERVED = ("inference.py", "common.py", "tables.py", "schema.py", "numbers_in_text.py", "dates.py")
"""The scripts that read rows and predict, which go with the model."""

WEIGHTED_BELOW = 0.1
"""Classes have weights, as if all had as many rows, where the rarest has less than this share of the most frequent
one's rows: without them, the rare class is hardly learnt."""

LEAF_ROWS, LEAF_ROWS_MIN = 20, 3
"""Rows in a leaf of gradient boosting: scikit-learn's default, and the fewest in a small data set."""

LEAVES_MIN = 4
"""Leaves for which a data set has rows enough; of fewer than two, there is no split at all."""

EARLY_STOPPING_ROWS = 10_000
"""From so many rows on, gradient boosting holds some back; of fewer it needs all (scikit-learn's own rule)."""

VALIDATION_SHARE = 0.1
"""Of the rows, that gradient boosting looks at to stop early."""

ESTIMATORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("gradient-boosting", "classification"): HistGradientBoostingClassifier,
    ("gradient-boosting", "regression"): HistGradientBoostingRegressor,
    ("linear", "classification"): LogisticRegression,
    ("linear", "regression"): Ridge,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "gradient-boosting": {"max_iter": 100, "categorical_features": "from_dtype", "random_state": SEED},
    "linear": {"max_iter": 1000, "random_state": SEED},
}


def main() -> None:
    hyperparameters = json.loads(os.environ["SM_HPS"])
    channel, model_dir = Path(os.environ["SM_CHANNEL_TRAIN"]), Path(os.environ["SM_MODEL_DIR"])
    schema = json.loads((channel / "schema.json").read_text(encoding="utf-8"))
    table = pd.read_pickle(channel / "train.pkl")
    features, target = table.drop(columns=[schema["target"]]), table[schema["target"]]
    algorithm, problem = hyperparameters["algorithm"], schema["problem"]
    chosen = hyperparameters.get("hyperparameters") or {}
    tuning = None
    if hyperparameters.get("search"):
        values = values_at(hyperparameters["search"], hyperparameters)
        if is_first(os.environ.get("TRAINING_JOB_NAME", "")):
            # What the algorithm has no default for, its estimator has.
            values = {name: chosen[name] for name in values if name in chosen}
        chosen = chosen | values
        tuning = {"values": values, **measured(algorithm, problem, chosen, features, target, hyperparameters)}
    begins_with = warm_start if hyperparameters.get("warm_start") == "yes" else None
    model, begun = fit(algorithm, problem, chosen, features, target, begins_with)
    estimator = model.named_steps["estimate"]
    counts = target.value_counts() if problem == "classification" else None

    model_dir.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, model_dir / "model.joblib")
    shutil.copy(channel / "schema.json", model_dir / "schema.json")
    defaults = inspect.signature(type(estimator)).parameters
    training = {
        "algorithm": hyperparameters["algorithm"],
        "estimator": type(estimator).__name__,
        "hyperparameters": {
            name: repr(value)
            for name, value in sorted(estimator.get_params().items())
            if value != defaults[name].default
        },
        "classes": {} if counts is None else {str(label): int(counts[label]) for label in model.classes_},
        **({"warm_start": begun} if begun else {}),
        **({"tuning": tuning} if tuning else {}),
        "versions": {module.__name__: module.__version__ for module in (sklearn, pd, np)},
    }
    (model_dir / "training.json").write_text(json_text(training), encoding="utf-8")
    (model_dir / "code").mkdir(exist_ok=True)
    for name in SERVED:
        shutil.copy(Path(__file__).with_name(name), model_dir / "code" / name)
    print(f"{type(estimator).__name__} fitted on {len(table)} rows")


def measured(
    algorithm: str,
    problem: str,
    chosen: dict[str, Any],
    features: pd.DataFrame,
    target: pd.Series,
    hyperparameters: dict[str, Any],
) -> dict[str, Any]:
    """Return how good models with these hyperparameters are on rows that they were not trained on, and print it
    for SageMaker, which chooses the next ones by it.
    """

    def trained(rows: pd.DataFrame, values: pd.Series) -> Pipeline:
        return fit(algorithm, problem, chosen, rows, values)[0]

    folds = np.load(Path(os.environ["SM_CHANNEL_TRAIN"]) / FOLDS_FILE)
    score = validated(trained, features, target, folds, problem, hyperparameters.get("metric", "auto"))
    print(f"validation score: {score.mean:.8g} ({score.metric})", flush=True)
    return {"metric": score.metric, "score": score.mean, "error": score.error}


def fit(
    algorithm: str,
    problem: str,
    chosen: dict[str, Any],
    features: pd.DataFrame,
    target: pd.Series,
    begins_with: Callable[..., str] | None = None,
) -> tuple[Pipeline, str | None]:
    """Return a model that was trained on rows and their targets, and what it began with, if it was to begin with
    something. Raises DataError, naming it, for a hyperparameter that the estimator cannot take.
    """
    estimator = build_estimator(algorithm, problem, chosen)
    counts = target.value_counts() if problem == "classification" else None
    if "min_samples_leaf" not in chosen:
        let_few_rows_part(estimator, len(target))
    if "class_weight" not in chosen:
        weigh_rare_classes(estimator, counts)
    elif isinstance(chosen["class_weight"], dict):
        weigh_as_chosen(estimator, chosen["class_weight"], target)
    stop_early_if_possible(estimator, counts, len(target))
    encode = encoder(algorithm, features, problem)
    begun = begins_with(estimator, encode, features, target) if begins_with else None
    try:
        return Pipeline([("encode", encode), ("estimate", estimator)]).fit(features, target), begun
    except InvalidParameterError as error:
        refused = next((name for name in chosen if f"'{name}'" in str(error)), "")
        what = f"{refused}={chosen[refused]!r}" if refused else "one of its hyperparameters"
        raise DataError(f"{algorithm} cannot take {what}") from error


def let_few_rows_part(estimator: Any, rows: int) -> None:
    """Let gradient boosting's leaves have fewer rows in small data sets, of which 20 would be all there is."""
    if "min_samples_leaf" in estimator.get_params():
        estimator.set_params(min_samples_leaf=min(LEAF_ROWS, max(rows // LEAVES_MIN, LEAF_ROWS_MIN)))


def weigh_rare_classes(estimator: Any, counts: pd.Series | None) -> None:
    """Let each class weigh the same if one is rare."""
    if counts is None or "class_weight" not in estimator.get_params():
        return
    if counts.min() < WEIGHTED_BELOW * counts.max():
        estimator.set_params(class_weight="balanced")
        print("the rarest class has few rows, so each class has the same weight")


def warm_start(estimator: Any, encode: Any, features: pd.DataFrame, target: pd.Series) -> str:
    """Let an estimator that can begin with what the live model has learnt; return how, or why it does not."""
    folder = os.environ.get("SM_CHANNEL_CHAMPION")
    if not isinstance(estimator, LogisticRegression):
        begun = f"{type(estimator).__name__} cannot begin with another model"
    elif folder is None or isinstance(learnt := learnt_before(Path(folder)), str):
        begun = "there is no model to begin with" if folder is None else learnt
    else:
        names = [str(name) for name in encode.fit(features, target).get_feature_names_out()]
        begun = begin_with(estimator, learnt, sorted(target.unique().tolist()), names)
    print(f"warm start: {begun}")
    return begun


def weigh_as_chosen(estimator: Any, weights: dict[str, float], target: pd.Series) -> None:
    """Weigh classes as the tenant has chosen: JSON has the names of classes as texts, whatever they are."""
    classes = {str(label): label for label in target.unique().tolist()}
    unknown = sorted(set(weights) - set(classes))
    if unknown:
        raise DataError(f"class_weight names {counted(len(unknown), 'class')} that the data does not have")
    estimator.set_params(class_weight={classes[name]: weight for name, weight in weights.items()})


def stop_early_if_possible(estimator: Any, counts: pd.Series | None, rows: int) -> None:
    """Let gradient boosting hold rows back to see when to stop, if each class would have some of them."""
    if "early_stopping" not in estimator.get_params() or estimator.early_stopping != "auto":
        return
    smallest = rows if counts is None else counts.min()
    enough = rows > EARLY_STOPPING_ROWS and smallest * VALIDATION_SHARE >= 2
    estimator.set_params(early_stopping=bool(enough), validation_fraction=VALIDATION_SHARE)


def build_estimator(algorithm: str, problem: str, chosen: dict[str, Any]) -> Any:
    """Return the estimator with the tenant's hyperparameters; raises DataError for one it does not have."""
    build = ESTIMATORS[(algorithm, problem)]
    if "regularization" in chosen and algorithm == "linear":
        strength = chosen["regularization"]
        if not isinstance(strength, int | float) or not strength > 0:
            raise DataError(f"regularization must be a number above 0, not {strength!r}")
        named = {"C": 1 / strength} if build is LogisticRegression else {"alpha": strength}
        chosen = {name: value for name, value in chosen.items() if name != "regularization"} | named
    accepted = inspect.signature(build).parameters
    unknown = sorted(set(chosen) - set(accepted))
    if unknown:
        raise DataError(f"{algorithm} has no hyperparameter {', '.join(unknown)}; it has {', '.join(accepted)}")
    return build(**{**DEFAULTS[algorithm], **chosen})


if __name__ == "__main__":
    run(main, Path(os.environ.get("SM_OUTPUT_DIR", "/opt/ml/output")) / "failure")
