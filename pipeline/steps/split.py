"""Which rows are trained on, and which are held out to test on.

random          a quarter of the rows, each class with its share
group:COLUMN    a quarter of the column's values with all their rows: customers, patients, machines
time:COLUMN     the latest quarter by a column of dates or numbers
auto            time, if the rows of a file are in the order of its only column of dates; else random

Rows with equal features stay in one part: a row that was trained on says nothing about unseen ones.

Of rows and groups, those are held out whose digests are the least: a row that is tested on is nearly always tested
on again when more rows have been added. So a model of an earlier training has not learnt from the rows by which it
is compared with a new one.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from common import DataError, counted
from schema import Column, Findings, distinct
from tables import Table
from target import Target

TEST_SHARE = 0.25
DISTINCT_SHARE_MIN = 0.5
"""Where fewer of the rows are distinct, and values cannot be combined in more ways than there are rows, a few
values are combined again and again, as they will be in production: equal rows are then split like others."""

TIMES_SHARE_MIN = 0.9
"""A column of dates in whose order the rows are is a time only if so many of its dates are distinct."""

TEST_SHARE_MAX = 0.5
TEST_ROWS_MIN = 5
UNEVEN_GROUPS = 0.15
"""By this much it may, where groups of different sizes are to stay in their part when there are more."""

UNEVEN = 0.1
"""By this much the share of rows to test on may differ from a quarter without being told."""


@dataclass(frozen=True)
class Split:
    """The positions of the rows of both parts, among those with a target, and how they were chosen."""

    kind: str
    column: str
    train: np.ndarray
    test: np.ndarray
    by: np.ndarray
    """Of each row with a target: the digest of its group, which equal rows share, or its time."""

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
    """Of each row of the table: the digest of its group, or its time."""

    notes: list[str] = field(default_factory=list)


def plan(asked: str, table: Table, target: str, findings: Findings) -> Plan:
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
    if name == target:
        raise DataError(f"rows cannot be split by {name!r}, which is to be predicted: choose another column")
    column = next((column for column in findings.columns if column.name == name), None)
    return _by_group_of(name, column, table, findings) if kind == "group" else _by_time_of(name, column, table)


def _by_group_of(name: str, column: Column | None, table: Table, findings: Findings) -> Plan:
    """Rows are of one group if their numbers are equal, or their texts but for case and blanks."""
    cells = table.cells[table.columns.index(name)]
    if column is not None and column.kind == "number":
        values = column.values(cells)[name]
        is_alone, digests = np.isnan(values), pd.util.hash_array(values)
    else:
        codes, texts = distinct(cells)
        folded = np.array([" ".join(text.casefold().split()) for text in [*texts, ""]], dtype=object)
        is_alone, digests = codes < 0, pd.util.hash_array(folded, categorize=False)[codes]
    groups = len(np.unique(digests[~is_alone]))
    if groups < 1 / TEST_SHARE:
        raise DataError(f"column {name!r} has only {counted(groups, 'value')}: too few groups to split by")
    findings.columns = [other for other in findings.columns if other.name != name]
    findings.left_out[name] = "the rows are split by it: what is unseen has other values"
    alone = pd.util.hash_array(np.arange(len(digests)))  # a row without a group is one by itself
    return Plan("group", name, np.where(is_alone, alone, digests))


def _by_time_of(name: str, column: Column | None, table: Table) -> Plan:
    """Also a column that nothing is learnt from, such as one that numbers the rows, may be the order of time."""
    times = np.full(len(table), np.nan)
    if column is None or column.kind != "category":
        times = _times(column or Column(name, "number"), table)
    missing = int(np.isnan(times).sum())
    if missing == len(times):
        raise DataError(f"column {name!r} holds neither dates nor numbers, so rows cannot be split by it in time")
    notes = [f"{counted(missing, 'row')} without a value for {name!r} are trained on"] if missing else []
    return Plan("time", name, times, notes)


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
        by = chosen.by[target.rows]
        train, test = _by_time(by, chosen.column)
    else:
        by = chosen.by[target.rows] if chosen.by is not None else _equal_rows(features, target, notes)
        train, test = _by_groups(by, target)
    done = Split(chosen.kind, chosen.column, train, test, by, notes)
    _check(done, target)
    return done


def _equal_rows(features: pd.DataFrame, target: Target, notes: list[str]) -> np.ndarray:
    """Return the digest of each row, which rows with equal features share."""
    digests = pd.util.hash_pandas_object(features, index=False).to_numpy()[target.rows]
    repeated = len(digests) - len(np.unique(digests))
    if repeated == 0:
        return digests
    share = f"{counted(repeated, 'row')} of {len(digests):,} have the same features as an earlier one"
    if len(digests) - repeated < DISTINCT_SHARE_MIN * len(digests) and _may_coincide(features, len(digests)):
        notes.append(f"{share}: few values are combined again and again, so equal rows are in both parts")
        again = pd.DataFrame({"digest": digests, "number": pd.Series(digests).groupby(digests).cumcount()})
        return pd.util.hash_pandas_object(again, index=False).to_numpy()
    notes.append(f"{share}: they are all trained on, or all tested on")
    return digests


def _may_coincide(features: pd.DataFrame, rows: int) -> bool:
    """Tell whether the columns' values can be combined in no more ways than there are rows."""
    ways = [max(features[name].nunique(), 1) for name in features]
    return bool(np.log(ways).sum() <= np.log(rows))  # the product may be no number any more


def _by_groups(groups: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Split so that a group is in one part, about a quarter of the rows is tested on, and each class in both."""
    digests, first, number, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    is_class = target.problem == "classification"
    classes = np.unique(target.values[first], return_inverse=True)[1] if is_class else np.zeros(len(first), int)
    is_test = _held_out(digests, sizes, classes)[number]
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _alone(classes: np.ndarray) -> np.ndarray:
    """Return which groups are the only one of their class."""
    return np.asarray(np.bincount(classes)[classes] == 1)


def _held_out(digests: np.ndarray, sizes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return which groups are tested on: of each class those with the least digests, up to a quarter of its rows.

    A class of one group is trained on. Of groups of several rows, each other class has one to test on; and if that
    is about a quarter, they are those with a digest below a fixed one.
    """
    places = pd.util.hash_array(digests)
    order = np.argsort(places, kind="stable")
    if (sizes > 1).any():
        # Of groups of different sizes, those near a quarter of the rows would change sides with each new one.
        is_low = places < np.uint64(TEST_SHARE * 2**64)
        share = sizes[is_low].sum() / sizes.sum()
        of_class = pd.Series(is_low).groupby(classes)
        has_both = (of_class.any() & ~of_class.all()) | (of_class.size() == 1)
        if abs(share - TEST_SHARE) <= UNEVEN_GROUPS and has_both.all() and not is_low[_alone(classes)].any():
            return np.asarray(is_low)
    rows = pd.DataFrame({"class": classes[order], "rows": sizes[order]})
    of_class = rows.groupby("class")["rows"]
    middle = of_class.cumsum() - rows["rows"] / 2
    is_held = (middle < of_class.transform("sum") * TEST_SHARE).to_numpy()
    if (sizes > 1).any():
        few = ~pd.Series(is_held).groupby(rows["class"]).transform("any") & (of_class.transform("size") > 1)
        for _, group in rows[few].groupby("class"):
            is_held[group["rows"].idxmin()] = True
    if not is_held.any():  # each class has very few
        is_held[: round(len(order) * TEST_SHARE)] = True
    held_out = np.zeros(len(order), dtype=bool)
    held_out[order] = is_held
    return held_out


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
    """Raise DataError if a part is of no use, and note what is odd about the parts."""
    by = f" by column {done.column!r}" if done.column else ""
    if len(done.test) < TEST_ROWS_MIN or len(done.train) < TEST_ROWS_MIN:
        why = "most rows have the latest time" if done.kind == "time" else "too few"
        raise DataError(
            f"split{by}, {counted(len(done.train), 'row')} would be trained on and {len(done.test)} tested on: "
            f"{why}; split by another column, or at random"
        )
    if len(np.unique(target.values[done.train])) < 2:
        raise DataError(f"split{by}, the rows to train on have only one value of the target")
    share = len(done.test) / (len(done.test) + len(done.train))
    if abs(share - TEST_SHARE) > UNEVEN:
        done.notes.append(f"{share:.0%} of the rows are tested on, since groups or times are of different size")
    if target.problem != "classification":
        return
    trained, tested = (set(target.values[part].tolist()) for part in (done.train, done.test))
    if len(tested) < 2:
        raise DataError(
            f"split{by}, the rows to test on have one class only: split by another column, or at random"
        )
    if trained - tested:
        done.notes.append(f"{counted(len(trained - tested), 'class')} of the target not among the rows to test on")
    if tested - trained:
        unseen = counted(len(tested - trained), "class")
        done.notes.append(
            f"{unseen} of the target not among the rows to train on: these rows are predicted wrongly"
        )
