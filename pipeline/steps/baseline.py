"""Whether a model is better than knowing nothing of a row: always the most frequent class, or always the mean.

Both are measured on the same rows, and on the same resamples of them: a model that is better by chance, on few
rows or by little, is not better in nearly all resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 200
ROWS_MAX = 20_000
"""Rows that a resample is drawn from at most: more hardly change the interval, unless a class is rare."""

RARE_ROWS = 100
"""A class of fewer of these rows is rare: then resamples are drawn from all rows."""

MARGIN = 0.01
"""By this much a model must be better, for the metrics that lie between 0 and 1."""

SMALL = 0.01
SEED = 20
LOWER_IS_BETTER = frozenset({"mae", "rmse"})

Measure = Callable[[np.ndarray], tuple[float, float]]
"""The positions of rows → the metric of the model and that of the baseline on these rows."""


def rounded(value: Any) -> float:
    """Return a metric to four places, as people read it; a small one to three figures."""
    number = float(value)
    return round(number, 4) if abs(number) >= SMALL else float(f"{number:.3g}")


@dataclass(frozen=True)
class Comparison:
    """A model's metric beside the baseline's."""

    metric: str
    value: float
    baseline: float
    interval: tuple[float, float] | None
    """What the model's metric lies between in 95 of 100 resamples; None: the rows are too few to tell."""

    is_better: bool

    def as_text(self) -> str:
        between = "too few rows to tell how certain"
        if self.interval:
            between = f"{self.interval[0]:.4g} to {self.interval[1]:.4g} in 95 % of resamples"
        return f"{self.metric} {self.value:.4g} ({between}), baseline {self.baseline:.4g}"

    def as_report(self) -> dict[str, Any]:
        return {
            "baseline": {"metric": self.metric, "value": rounded(self.baseline)},
            "interval": [rounded(bound) for bound in self.interval] if self.interval else None,
            "verdict": {"beats_baseline": int(self.is_better), "text": self.as_text()},
        }


def compare(metric: str, rows: int, measure: Measure, rarest: int | None = None) -> Comparison:
    """Return how a model stands beside the baseline on test rows, of which `rarest` are of the rarest class."""
    value, baseline = measure(np.arange(rows))
    g = np.random.default_rng(SEED)
    is_rare = rarest is not None and rarest * ROWS_MAX < RARE_ROWS * rows
    pool = np.arange(rows) if rows <= ROWS_MAX or is_rare else g.choice(rows, ROWS_MAX, replace=False)
    drawn = np.array([measure(g.choice(pool, len(pool))) for _ in range(RESAMPLES)])
    drawn = drawn[~np.isnan(drawn).any(axis=1)]  # a resample may have one class only
    if len(drawn) < RESAMPLES / 2:
        return Comparison(metric, value, baseline, None, is_better=False)
    low, high = np.percentile(drawn[:, 0], [2.5, 97.5])
    gain = drawn[:, 1] - drawn[:, 0] if metric in LOWER_IS_BETTER else drawn[:, 0] - drawn[:, 1]
    margin = MARGIN * abs(baseline) if metric in LOWER_IS_BETTER else MARGIN
    return Comparison(metric, value, baseline, (low, high), is_better=bool(np.percentile(gain, 2.5) > margin))
