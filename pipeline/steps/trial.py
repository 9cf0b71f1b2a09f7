"""Trial: one training of a tuning, with the hyperparameters that stand for the positions which SageMaker searches.

SageMaker's search knows positions from 0 to 1, `position_1` and so on; `search` says for which hyperparameters
they stand, by name in alphabetical order: both ends of the range, and how it is searched between them.

    {"learning_rate": [0.02, 0.3, "log"], "max_leaf_nodes": [4, 127, "log whole"]}

The first trial of a tuning takes the values that trainings have now: so the best ones are never worse than those.

An algorithm with scripts of its own takes part in tunings if its training does the same: it trains with these
values, and prints "validation score: NUMBER", the higher the better.
"""

import json
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from baseline import LOWER_IS_BETTER
from common import DataError
from metrics import CLASSIFICATION, REGRESSION, TWO_CLASSES

FOLDS_FILE = "folds.npy"
"""Beside the rows to train on: the fold of each (folds.py)."""

Fit = Callable[[pd.DataFrame, pd.Series], Any]
"""Trains a model on rows and their targets."""


def values_at(search: str | Mapping[str, Any], positions: Mapping[str, Any]) -> dict[str, float | int]:
    """Return the hyperparameters for which positions stand; raises DataError where one is missing."""
    ranges = json.loads(search) if isinstance(search, str) else search
    values: dict[str, float | int] = {}
    for number, (name, (low, high, scale)) in enumerate(sorted(ranges.items()), start=1):
        try:
            position = min(max(float(positions[f"position_{number}"]), 0.0), 1.0)
        except (KeyError, ValueError) as error:
            raise DataError(f"the tuning gave no position_{number}, which stands for {name}") from error
        values[name] = _between(low, high, position, scale.split())
    return values


FIRST = re.compile(r"-0*1-[0-9a-f]+$")
"""How the name of the first training job of a tuning job ends: that is seen on accounts, and not documented."""


def is_first(job_name: str) -> bool:
    """Tell by its name whether a training job is the first of its tuning; False where names have another form."""
    return bool(FIRST.search(job_name))


def _between(low: float, high: float, position: float, scale: list[str]) -> float | int:
    # Otherwise, whole numbers at both ends would be tried half as often as others.
    wide_low, wide_high = (low - 0.5, high + 0.5) if "whole" in scale else (low, high)
    value = (
        wide_low * (wide_high / wide_low) ** position
        if "log" in scale and wide_low > 0
        else (wide_low + (wide_high - wide_low) * position)
    )
    if "whole" in scale:
        return int(min(max(round(value), low), high))
    return float(min(max(float(f"{value:.6g}"), low), high))


def validated(
    fit: Fit, features: pd.DataFrame, target: pd.Series, folds: np.ndarray, problem: str, asked: str
) -> tuple[str, float]:
    """Return the metric and the mean of the scores of models on the folds that their training did not have.

    The higher the better: a metric that is better if it is lower is negated. Raises DataError where no fold can be
    measured.
    """
    metric = default_metric(problem, target) if asked == "auto" else asked
    scores = []
    for fold in range(int(folds.max()) + 1):
        is_held = folds == fold
        if problem == "classification" and target[~is_held].nunique() < 2:
            continue
        model = fit(features[~is_held], target[~is_held])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a fold lacks a class
            scores.append(_score(model, features[is_held], target[is_held], metric))
    finite = [score for score in scores if np.isfinite(score)]
    if not finite:
        raise DataError(f"the metric {metric} cannot be computed on the rows that are held out of a trial")
    mean = float(np.mean(finite))
    return metric, -mean if metric in LOWER_IS_BETTER else mean


def default_metric(problem: str, target: pd.Series) -> str:
    """Return the metric of a problem for which none is set."""
    if problem == "regression":
        return "r2"
    return "roc_auc" if target.nunique() == 2 else "balanced_accuracy"


def _score(model: Any, features: pd.DataFrame, target: pd.Series, metric: str) -> float:
    if metric in REGRESSION:
        true = np.asarray(target, dtype=np.float64)
        return float(REGRESSION[metric](true, np.asarray(model.predict(features), dtype=np.float64)))
    if metric in TWO_CLASSES:
        is_positive = np.asarray(target == model.classes_[-1])
        if len(model.classes_) != 2 or is_positive.all() or not is_positive.any():
            return np.nan
        return float(TWO_CLASSES[metric](is_positive, model.predict_proba(features)[:, 1]))
    if metric not in CLASSIFICATION:
        offered = ", ".join((*CLASSIFICATION, *TWO_CLASSES, *REGRESSION))
        raise DataError(f"the quality metric {metric!r} was not measured; measured metrics: {offered}")
    codes = {label: code for code, label in enumerate(dict.fromkeys([*model.classes_, *target.unique()]))}
    true, said = ([codes[label] for label in labels] for labels in (target, model.predict(features)))
    return float(CLASSIFICATION[metric](np.array(true), np.array(said)))
