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
    g = np.random.default_rng(SEED)
    rows = np.arange(len(target.rows))
    rows = g.permutation(rows)[:ROWS_MAX]
    learnt, tested = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    is_class = target.problem == "classification"
    values = np.unique(target.values, return_inverse=True)[1] if is_class else target.values
    if len(np.unique(values[learnt])) < 2 or len(np.unique(values[tested])) < 2:
        return []
    score = balanced_accuracy_score if is_class else r2_score
    alone = []
    for name in features:
        column = features[name]
        cells = column.cat.codes if is_category(column) else column
        cells = cells.to_numpy(dtype=np.float64)[target.rows[rows]].reshape(-1, 1)
        build = DecisionTreeClassifier if is_class else DecisionTreeRegressor
        tree = build(min_samples_leaf=2, random_state=SEED).fit(cells[: len(learnt)], values[learnt])
        reached = float(score(values[tested], tree.predict(cells[len(learnt) :])))
        if reached >= PREDICTS_ALONE:
            alone.append((str(name), reached))
    return sorted(alone, key=lambda column: (-column[1], column[0]))[:NAMED_MAX]
