"""What a person asks of a model beyond one number: what it confuses, how far it is off, and what it uses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from pictures import OTHERS

CLASSES_SHOWN_MAX = 20
"""Most frequent classes in a confusion matrix; the others are one."""

BINS = 20
POINTS_MAX = 500
FEATURES_SHOWN_MAX = 30
PERMUTED_ROWS_MIN, PERMUTED_ROWS_MAX = 50, 1_000
PREDICTIONS_MAX = 6_000_000
"""Rows times classes that are predicted for all features together, some tens of seconds of gradient boosting: with
many features and classes, fewer rows are permuted."""

WIDE = 100
"""More features are permuted once each."""

REPETITIONS = 5
CONSOLIDATED_EACH = 50
"""After so many features, a table's columns are put together again: a table in pieces is slow to predict."""

SEED = 20

Metric = Callable[[pd.DataFrame, np.ndarray], float]
"""Features and the positions of their rows in the test → the metric that counts, greater is better."""


def confusion(true: np.ndarray, predicted: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """Return how often rows of each class (by its number) were predicted as each, most frequent classes first."""
    counts = np.bincount(true, minlength=len(labels))
    order = np.argsort(-counts, kind="stable")[:CLASSES_SHOWN_MAX]
    place = np.full(len(labels), len(order))
    place[order] = np.arange(len(order))
    shown = [labels[number] for number in order] + ([OTHERS] if len(labels) > len(order) else [])
    matrix = np.zeros((len(order) + 1, len(order) + 1), dtype=int)
    np.add.at(matrix, (place[true], place[predicted]), 1)
    return {"classes": shown, "counts": matrix[: len(shown), : len(shown)].tolist()}


def by_class(
    true: np.ndarray, predicted: np.ndarray, labels: list[str], trained_on: dict[str, int]
) -> list[dict[str, Any]]:
    """Return rows, recall and precision of each class, most frequent first."""
    rows, said = (np.bincount(values, minlength=len(labels)) for values in (true, predicted))
    right = np.bincount(true[true == predicted], minlength=len(labels))
    order = np.argsort(-rows, kind="stable")[:CLASSES_SHOWN_MAX]
    return [
        {
            "class": labels[number],
            "trained_on": trained_on.get(labels[number], 0),
            "tested_on": int(rows[number]),
            "recall": _share(right[number], rows[number]),
            "precision": _share(right[number], said[number]),
        }
        for number in order
    ]


def _share(part: int, whole: int) -> float | None:
    return round(float(part / whole), 4) if whole else None


def residuals(true: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Return how far predictions are off (predicted minus true), and some pairs of both to draw."""
    off = predicted - true
    edges = np.linspace(off.min(), off.max(), BINS + 1)
    bins = np.clip(np.searchsorted(edges, off, side="right") - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    g = np.random.default_rng(SEED)
    drawn = np.sort(g.permutation(len(true))[:POINTS_MAX])
    return {
        "mean": _figures(off.mean()),
        "quantiles": {f"{share} %": _figures(np.percentile(off, share)) for share in (5, 25, 50, 75, 95)},
        "histogram": {"edges": [_figures(edge) for edge in edges], "counts": counts.tolist()},
        "pairs": [[_figures(true[row]), _figures(predicted[row])] for row in drawn],
    }


def _figures(value: Any) -> float:
    """Return a number to five significant figures."""
    return float(f"{float(value):.5g}")


def importance(features: pd.DataFrame, measure: Metric, outputs: int) -> list[dict[str, Any]]:
    """Return by how much the metric falls when the values of a feature are permuted among rows; greatest first.

    Features that say the same share their importance: without one, the model still has the other. `outputs` is the
    number of classes, or 1.
    """
    g = np.random.default_rng(SEED)
    repetitions = 1 if features.shape[1] > WIDE else REPETITIONS
    affordable = PREDICTIONS_MAX // (features.shape[1] * repetitions * outputs)
    count = min(max(affordable, PERMUTED_ROWS_MIN), PERMUTED_ROWS_MAX)
    rows = np.sort(g.permutation(len(features))[:count])
    sample = features.iloc[rows].reset_index(drop=True).copy()
    before = measure(sample, rows)
    falls = []
    for number, name in enumerate(sample.columns, 1):
        if number % CONSOLIDATED_EACH == 0:
            sample = sample.copy()
        original = sample[name]
        lost = []
        for _ in range(repetitions):
            sample[name] = original.take(g.permutation(len(sample))).reset_index(drop=True)
            lost.append(before - measure(sample, rows))
        sample[name] = original
        falls.append({"feature": str(name), "fall": _figures(np.mean(lost))})
    falls = [fall for fall in falls if np.isfinite(fall["fall"])]
    return sorted(falls, key=lambda fall: (-fall["fall"], fall["feature"]))[:FEATURES_SHOWN_MAX]
