"""Columns that give the target away, so that a model is good in the test and useless in production.

A column that equals the target is left out. One that predicts it nearly perfectly by itself is told: it may be a
consequence of the target, or known only after it; or it may be all that is needed.
"""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from features import is_category
from target import Target

ROWS_MAX = 5_000
"""Rows that each column is tried on."""

PREDICTS_ALONE = 0.99
"""Balanced accuracy or R² of a tree on one column, from which on the column is named."""

FEW_ROWS = 10
"""Of a class, with which a leaf of two rows may be too large."""

SEED = 20
NAMED_MAX = 5


def copies_of_target(features: pd.DataFrame, target: Target) -> list[str]:
    """Return the features that equal the target in every row that has one."""
    return [name for name in features if _equals(features[name], target)]


def _equals(column: pd.Series, target: Target) -> bool:
    if is_category(column):
        if target.problem != "classification" or target.values.dtype.kind in "if":
            return False
        codes = column.cat.codes.to_numpy()[target.rows]
        folded = np.array([*(_folded(text) for text in column.cat.categories), ""], dtype=object)
        classes, numbers = np.unique(target.values, return_inverse=True)
        folded_classes = np.array([_folded(text) for text in classes], dtype=object)
        return bool((folded[codes] == folded_classes[numbers]).all())
    if target.values.dtype.kind not in "if":
        return False
    return bool((column.to_numpy()[target.rows] == target.values).all())


def _folded(text: Any) -> str:
    return " ".join(str(text).casefold().split())


def predicting_alone(features: pd.DataFrame, target: Target) -> list[tuple[str, float]]:
    """Return the features that predict the target nearly perfectly by themselves, and how well; the best first."""
    is_class = target.problem == "classification"
    values = np.unique(target.values, return_inverse=True)[1] if is_class else target.values
    learnt, tested = _halves(values, is_class)
    if len(np.unique(values[learnt])) < 2 or len(np.unique(values[tested])) < 2:
        return []
    rows = np.concatenate([learnt, tested])
    score, build = (
        (balanced_accuracy_score, DecisionTreeClassifier) if is_class else (r2_score, DecisionTreeRegressor)
    )
    leaf = 1 if is_class and np.bincount(values[learnt]).min() < FEW_ROWS else 2
    alone = []
    for name in features:
        cells = _ranks(features[name].iloc[target.rows[rows]])
        tree = build(min_samples_leaf=leaf, random_state=SEED).fit(cells[: len(learnt)], values[learnt])
        reached = float(score(values[tested], tree.predict(cells[len(learnt) :])))
        if reached >= PREDICTS_ALONE:
            alone.append((str(name), reached))
    return sorted(alone, key=lambda column: (-column[1], column[0]))[:NAMED_MAX]


def _halves(values: np.ndarray, is_class: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of rows to learn from and to test on: of classes as many rows of each as possible."""
    g = np.random.default_rng(SEED)
    rows = g.permutation(len(values))
    parts = [rows[:ROWS_MAX]]
    if is_class:
        each = max(ROWS_MAX // (values.max() + 1), 2)
        order = rows[np.argsort(values[rows], kind="stable")]
        parts = [part[:each] for part in np.split(order, np.cumsum(np.bincount(values))[:-1])]
    return (
        np.concatenate([part[: len(part) // 2] for part in parts]),
        np.concatenate([part[len(part) // 2 :] for part in parts]),
    )


def _ranks(column: pd.Series) -> np.ndarray:
    """Return the order of a feature's values, which is all that a tree sees of them; NaN where there is none."""
    cells = (column.cat.codes if is_category(column) else column).to_numpy(dtype=np.float64)
    ranks = np.unique(cells, return_inverse=True)[1].astype(np.float64)
    return np.where(np.isnan(cells), np.nan, ranks).reshape(-1, 1)
