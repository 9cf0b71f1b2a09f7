"""Folds: which of the rows to train on a trial of a tuning is measured by.

As the rows to test on are held out of a training, so is a fold of the others held out of a trial: rows of one
group, and equal rows, are in one fold, and of rows in the order of time the latest are held out. So the rows to
test on say nothing about the choice of hyperparameters, and are left to judge the model.
"""

import numpy as np
import pandas as pd

from split import TEST_SHARE, TEST_SHARE_MAX, Split
from target import Target

FOLDS = 5
ROWS_FOR_ONE = 5_000
"""From so many rows on, one fold is enough to compare trials by; of fewer, each is held out once."""

NEVER = -1
"""Stands for a row that is in no fold: it is always trained on."""


def folds_of(parts: Split, target: Target) -> np.ndarray:
    """Return the fold of each row to train on, in their order; `NEVER` for those that are never held out."""
    by = parts.by[parts.train]
    if parts.kind == "time":
        return _latest(by)
    digests, first, number = np.unique(by, return_index=True, return_inverse=True)
    is_class = target.problem == "classification"
    classes = target.values[parts.train][first] if is_class else np.zeros(len(first))
    # By digests, and not by places, so that few rows change their fold when there are more.
    order = np.argsort(pd.util.hash_array(digests), kind="stable")
    turn = pd.Series(classes[order]).groupby(classes[order]).cumcount().to_numpy()
    fold = np.empty(len(digests), dtype=np.int8)
    fold[order] = turn % FOLDS
    if len(parts.train) >= ROWS_FOR_ONE:
        fold[fold > 0] = NEVER
    return fold[number]


def _latest(times: np.ndarray) -> np.ndarray:
    """Return the fold of rows in the order of time: the latest are held out, rows of one time together.

    Where most rows have the latest time, each fifth row is held out instead; a row without a time never is.
    """
    present = np.sort(times[~np.isnan(times)])
    cut = present[int(len(present) * (1 - TEST_SHARE))] if len(present) else np.inf
    is_held = times >= cut
    if is_held.mean() > TEST_SHARE_MAX:
        later = present[present > cut]
        is_held = times >= later[0] if len(later) else np.zeros(len(times), dtype=bool)
    if not is_held.any():
        is_held = np.arange(len(times)) % FOLDS == 0
    return np.where(is_held, 0, NEVER).astype(np.int8)
