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
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from baseline import LOWER_IS_BETTER, SEED
from common import DataError
from metrics import CLASSIFICATION, REGRESSION, TWO_CLASSES
from metrics import Score as Measure

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


RESAMPLES = 50
"""Of the rows of a single fold, for its standard error."""


class Score(NamedTuple):
    """How good models are on the folds that their training did not have; the higher the better."""

    metric: str
    mean: float
    """Of the folds; negative for a metric that is better if it is lower."""

    error: float
    """The standard error of the mean."""


def validated(
    fit: Fit, features: pd.DataFrame, target: pd.Series, folds: np.ndarray, problem: str, asked: str
) -> Score:
    """Return how good models are on the folds that their training did not have.

    Raises DataError where none of them can be measured.
    """
    metric = default_metric(problem, target) if asked == "auto" else asked
    answers = []
    for fold in range(int(folds.max()) + 1):
        is_held = folds == fold
        if problem == "classification" and target[~is_held].nunique() < 2:
            continue
        model = fit(features[~is_held], target[~is_held])
        answers.append(answers_of(model, features[is_held], target[is_held], metric))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fold lacks a class
        scores = [score for each in answers if np.isfinite(score := each.score())]
        if not scores:
            raise DataError(f"the metric {metric} cannot be computed on the rows that are held out of a trial")
        mean = float(np.mean(scores))
        error = float(np.std(scores, ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else answers[0].error()
    return Score(metric, -mean if metric in LOWER_IS_BETTER else mean, error)


def default_metric(problem: str, target: pd.Series) -> str:
    """Return the metric of a problem for which none is set."""
    if problem == "regression":
        return "r2"
    return "roc_auc" if target.nunique() == 2 else "balanced_accuracy"


class Answers(NamedTuple):
    """What happened to the rows of a fold, and what a model said of them."""

    measure: Measure
    true: np.ndarray
    said: np.ndarray

    def score(self) -> float:
        """Return the metric; NaN where the rows do not allow it."""
        return self._of(np.arange(len(self.true)))

    def error(self) -> float:
        """Return the metric's standard error, as it varies over resamples of the rows."""
        drawn = np.random.default_rng(SEED)
        rows = [drawn.integers(0, len(self.true), len(self.true)) for _ in range(RESAMPLES)]
        scores = [score for each in rows if np.isfinite(score := self._of(each))]
        return float(np.std(scores)) if scores else 0.0

    def _of(self, rows: np.ndarray) -> float:
        true = self.true[rows]
        return float(self.measure(true, self.said[rows])) if len(np.unique(true)) > 1 else np.nan


def answers_of(model: Any, features: pd.DataFrame, target: pd.Series, metric: str) -> Answers:
    """Return what a model says of rows, as a metric takes it; raises DataError for a metric that there is not."""
    if metric in REGRESSION:
        said = np.asarray(model.predict(features), dtype=np.float64)
        return Answers(REGRESSION[metric], np.asarray(target, dtype=np.float64), said)
    if metric in TWO_CLASSES and len(model.classes_) == 2:
        is_positive = np.asarray(target == model.classes_[-1])
        return Answers(TWO_CLASSES[metric], is_positive, model.predict_proba(features)[:, 1])
    if metric not in CLASSIFICATION:
        offered = ", ".join((*CLASSIFICATION, *TWO_CLASSES, *REGRESSION))
        raise DataError(f"the quality metric {metric!r} was not measured; measured metrics: {offered}")
    codes = {label: code for code, label in enumerate(dict.fromkeys([*model.classes_, *target.unique()]))}
    true, said = ([codes[label] for label in labels] for labels in (target, model.predict(features)))
    return Answers(CLASSIFICATION[metric], np.array(true), np.array(said))
