"""Which rows are trained on, and which are held out to test on.

random          a quarter of the rows, each class with its share
group:COLUMN    a quarter of the column's values with all their rows: customers, patients, machines
time:COLUMN     the latest quarter by a column of dates or numbers
auto            time, if the rows of a file are in the order of its only column of dates; else random

Rows with equal features stay in one part: a row that was trained on says nothing about unseen ones.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from common import DataError, counted
from schema import Column, Findings, distinct
from tables import Table
from target import Target

TEST_SHARE = 0.25
SEED = 20
DISTINCT_SHARE_MIN = 0.5
"""Where fewer of the rows are distinct, a few values are combined again and again, as they will be in production:
equal rows are then split like others."""

TIMES_SHARE_MIN = 0.9
"""A column of dates in whose order the rows are is a time only if so many of its dates are distinct."""

TEST_SHARE_MAX = 0.5
TEST_ROWS_MIN = 5


@dataclass(frozen=True)
class Split:
    """The positions of the rows of both parts, among those with a target, and how they were chosen."""

    kind: str
    column: str
    train: np.ndarray
    test: np.ndarray
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return what a person asks about a split."""
        return {"kind": self.kind, "column": self.column, "train": len(self.train), "test": len(self.test)}


@dataclass(frozen=True)
class Plan:
    """How rows will be split, and by which value of each row."""

    kind: str
    column: str = ""
    by: np.ndarray | None = None
    """The group or the time of each row of the table."""

    notes: list[str] = field(default_factory=list)


def plan(asked: str, table: Table, findings: Findings) -> Plan:
    """Return how to split; a column of groups is no feature any more. Raises DataError for a column that cannot be
    split by.
    """
    kind, _, name = asked.partition(":")
    if kind in ("", "auto"):
        return _guess(table, findings)
    if kind == "random" and not name:
        return Plan("random")
    if kind not in ("group", "time") or not name:
        raise DataError(f"the split {asked!r} is none of auto, random, group:COLUMN and time:COLUMN")
    if name not in table.columns:
        raise DataError(f"there is no column {name!r} to split by among the {len(table.columns)} columns")
    if kind == "group":
        return _by_group(name, table, findings)
    column = next((column for column in findings.columns if column.name == name), None)
    if column is None or column.kind == "category":
        raise DataError(f"column {name!r} holds neither dates nor numbers, so rows cannot be split by it in time")
    return Plan("time", name, _times(column, table))


def _by_group(name: str, table: Table, findings: Findings) -> Plan:
    codes, texts = distinct(table.cells[table.columns.index(name)])
    if len(texts) < 1 / TEST_SHARE:
        raise DataError(f"column {name!r} has only {counted(len(texts), 'value')}: too few groups to split by")
    findings.columns = [column for column in findings.columns if column.name != name]
    findings.left_out[name] = "the rows are split by it: what is unseen has other values"
    alone = np.arange(len(codes)) + len(texts)  # a row without a group is one by itself
    return Plan("group", name, np.where(codes < 0, alone, codes))


def _guess(table: Table, findings: Findings) -> Plan:
    dates = [column for column in findings.columns if column.kind == "date"]
    if len(dates) == 1:
        times = _times(dates[0], table)
        steps = np.diff(times)
        in_order = bool((steps >= 0).all() or (steps <= 0).all())  # False beside a missing time
        if in_order and len(np.unique(times)) >= TIMES_SHARE_MIN * len(times):
            name = dates[0].name
            note = (
                f"the rows are in the order of the dates in column {name!r}, so the latest are tested on; set the "
                'split to "random" if rows do not depend on earlier ones'
            )
            return Plan("time", name, times, [note])
    return Plan("random")


def _times(column: Column, table: Table) -> np.ndarray:
    values = column.values(table.cells[table.columns.index(column.name)])
    return np.asarray(values[f"{column.label} (days)"] if column.kind == "date" else values[column.name])


def split(chosen: Plan, features: pd.DataFrame, target: Target) -> Split:
    """Return the rows of both parts; raises DataError when one of them could not be learnt from or tested on."""
    notes = list(chosen.notes)
    if chosen.kind == "time":
        assert chosen.by is not None
        train, test = _by_time(chosen.by[target.rows], chosen.column)
    else:
        by_group = chosen.by is not None
        groups = chosen.by[target.rows] if by_group else _equal_rows(features, target, notes)
        train, test = _by_groups(groups, target)
    done = Split(chosen.kind, chosen.column, train, test, notes)
    _check(done, target)
    return done


def _equal_rows(features: pd.DataFrame, target: Target, notes: list[str]) -> np.ndarray:
    """Return a number for each row that rows with equal features share."""
    hashes = pd.util.hash_pandas_object(features, index=False).to_numpy()[target.rows]
    groups = np.unique(hashes, return_inverse=True)[1]
    repeated = len(groups) - (groups.max() + 1)
    if repeated == 0:
        return groups
    share = f"{counted(int(repeated), 'row')} of {len(groups):,} have the same features as an earlier one"
    if groups.max() + 1 < DISTINCT_SHARE_MIN * len(groups):
        notes.append(f"{share}: few values are combined again and again, so equal rows are in both parts")
        return np.arange(len(groups))
    notes.append(f"{share}: they are all trained on, or all tested on")
    return groups


def _by_groups(groups: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Split so that a group is in one part, and each class in both if possible."""
    numbers, first = np.unique(groups, return_index=True)
    classes = target.values[first] if target.problem == "classification" else None
    try:
        _, held_out = train_test_split(numbers, test_size=TEST_SHARE, random_state=SEED, stratify=classes)
    except ValueError:  # more classes than groups to test on, or a class with one group
        _, held_out = train_test_split(numbers, test_size=TEST_SHARE, random_state=SEED)
    is_test = np.zeros(int(numbers.max()) + 1, dtype=bool)
    is_test[held_out] = True
    is_test = is_test[groups]
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _by_time(times: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Split at the time after which a quarter of the rows is; rows of one time are in one part.

    The rows to train on are in the order of their times.
    """
    present = np.sort(times[~np.isnan(times)])
    if len(present) == 0:
        raise DataError(f"column {name!r} has no times to split by")
    cut = present[int(len(present) * (1 - TEST_SHARE))]
    is_test = times >= cut  # a row without a time is trained on
    if is_test.sum() > TEST_SHARE_MAX * len(times):
        later = present[present > cut]
        is_test = times >= later[0] if len(later) else np.zeros(len(times), dtype=bool)
    earlier, order = np.flatnonzero(~is_test), np.nan_to_num(times, nan=-np.inf)
    return earlier[np.argsort(order[earlier], kind="stable")], np.flatnonzero(is_test)


def _check(done: Split, target: Target) -> None:
    by = f" by column {done.column!r}" if done.column else ""
    if len(done.test) < TEST_ROWS_MIN or len(done.train) < TEST_ROWS_MIN:
        raise DataError(
            f"split{by}, {counted(len(done.train), 'row')} would be trained on and {len(done.test)} tested on: "
            "too few; split by another column, or at random"
        )
    if len(np.unique(target.values[done.train])) < 2:
        raise DataError(f"split{by}, the rows to train on have only one value of the target")
