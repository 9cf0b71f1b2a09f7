"""Metrics by which models are measured, by the kind of problem."""

from collections.abc import Callable

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

Score = Callable[[np.ndarray, np.ndarray], float]
"""What happened and what was predicted → a metric."""

CLASSIFICATION: dict[str, Score] = {
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "f1_macro": lambda true, predicted: f1_score(true, predicted, average="macro"),
}
TWO_CLASSES: dict[str, Score] = {"roc_auc": roc_auc_score, "average_precision": average_precision_score}
"""Of the probabilities of one of two classes: which row is of it, and how probable that is → a metric."""

REGRESSION: dict[str, Score] = {
    "r2": r2_score,
    "mae": mean_absolute_error,
    "rmse": root_mean_squared_error,
}
