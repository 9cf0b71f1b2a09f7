"""Drift: how far the columns of a data set have moved from those of the last training.

A column's distance is the population stability index over the bins of the last training, with a bin for missing
values: the sum of (now - before) * ln(now / before) over their shares. Below 0.1 it is stable, from 0.25 on it
has shifted; but only if so much cannot come from the number of rows alone, which few rows easily do. No p-value
decides: of forty columns, two would be below 0.05 by chance.

Source: Yurdakul (2018), "Statistical properties of the population stability index": without drift, the index times
the harmonic number of rows is distributed as chi-squared.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

from column_statistics import VERSION, Described, compared, from_json
from common import DataError, counted
from schema import Findings

MODERATE, LARGE = 0.1, 0.25
CHANCE = 1e-6
"""How rarely the index of a column that has not moved may be so large, for the column to have shifted."""
NAMED_MAX = 5
PAIRS_MAX = 20
"""Shifted columns that are looked at for two that were swapped."""


@dataclass(frozen=True)
class Rules:
    """What follows from drift."""

    on_schema_change: str = "refuse"
    on_shift: str = "train"
    shift_percent: int = 30
    """Of the columns that have shifted, for the data set to have."""
    critical: tuple[str, ...] = ()
    """Columns of which one is enough."""

    @classmethod
    def parse(cls, text: str) -> "Rules":
        """Return the rules in a text such as "refuse:train:30:age|income"; the defaults for none."""
        if not text:
            return cls()
        on_schema_change, on_shift, shift_percent, critical = text.split(":", 3)
        return cls(on_schema_change, on_shift, int(shift_percent), tuple(critical.split("|")) if critical else ())


@dataclass
class Moved:
    """How far a column has moved."""

    name: str
    kind: str
    index: float
    band: str
    """"stable", "moderate" or "shifted"."""
    before: Described
    now: Described

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "index": round(self.index, 4)}


@dataclass
class Drift:
    """What has changed since the last training."""

    rows_before: int
    rows: int
    absent: list[str] = field(default_factory=list)
    """Columns of the last training that are not there."""
    changed: list[str] = field(default_factory=list)
    """Columns that are of another kind: "age: number, now category"."""
    added: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    """Columns from which nothing can be learnt any more: they have no values, or one."""
    columns: list[Moved] = field(default_factory=list)
    """The farthest moved first."""
    target: Moved | None = None
    swapped: list[tuple[str, str]] = field(default_factory=list)
    """Columns whose values look as if they had changed places."""

    @property
    def shifted(self) -> list[Moved]:
        return [each for each in self.columns if each.band == "shifted"]

    def has_shifted(self, rules: Rules) -> bool:
        """Tell whether the data set has shifted, by the share of its columns or by a critical one."""
        names = {each.name for each in self.shifted} | set(self.emptied)
        share = 100 * len(names) / max(len(self.columns) + len(self.emptied), 1)
        return bool(names & set(rules.critical)) or (bool(names) and share >= rules.shift_percent)

    def notes(self) -> list[str]:
        """Return what the tenant should know: names of columns, and no values."""
        notes = []
        if self.shifted:
            moves = [f"{each.name!r} ({each.index:.2f})" for each in self.shifted]
            notes.append(
                f"{counted(len(moves), 'column')} of {len(self.columns)} moved far from the last training: "
                f"{_named(moves)}"
            )
        if self.emptied:
            notes.append(
                f"columns from which nothing can be learnt any more: {_named(list(map(repr, self.emptied)))}"
            )
        if self.target is not None and self.target.band == "shifted":
            notes.append(f"the column to predict, {self.target.name!r}, moved far from the last training")
        notes += [f"columns {a!r} and {b!r} look as if they had been swapped" for a, b in self.swapped]
        if self.absent or self.changed:
            notes.append(f"the columns have changed since the last training: {self.schema_text()}")
        if self.added:
            notes.append(f"columns that the last training did not have: {_named(list(map(repr, self.added)))}")
        return notes

    def schema_text(self) -> str:
        parts = [f"without {_named(list(map(repr, self.absent)))}"] if self.absent else []
        return "; ".join([*parts, *self.changed[:NAMED_MAX]])

    def as_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "rows_before": self.rows_before,
            "rows": self.rows,
            "absent": self.absent,
            "changed": self.changed,
            "added": self.added,
            "emptied": self.emptied,
            "swapped": [list(pair) for pair in self.swapped],
            "shifted": [each.name for each in self.shifted],
            "columns": [each.as_json() for each in self.columns],
            "target": self.target.as_json() if self.target else None,
        }


def read_before(folder: Path) -> dict[str, Any] | None:
    """Return the statistics of the last training, which are in a folder; None where there are none, or of another
    version.
    """
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError):
            continue
        if _is_readable(before):
            return before
    return None


def _is_readable(before: Any) -> bool:
    """Tell whether statistics are of this version, and have what it has: other scripts may write them too."""
    try:
        for each in (*before["columns"], before["target"]):
            described = from_json(each)
            bins = len(described.edges) + 1 if described.kind == "number" else len(described.categories) + 2
            if len(described.counts) != bins:
                return False
        kinds = before["kinds"]
        return before["version"] == VERSION and int(before["rows"]) >= 0 and all(map(str, kinds.values()))
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def compare(
    before: dict[str, Any], features: pd.DataFrame, findings: Findings, names: Sequence[str], target: pd.Series
) -> Drift:
    """Return how a data set has moved; `names` are those of all columns of its table."""
    drift = Drift(rows_before=int(before["rows"]), rows=len(features))
    kinds = {column.name: column.kind for column in findings.columns}
    for name, kind in before["kinds"].items():
        if name == str(target.name):
            continue  # it was a feature, and is predicted now
        if name not in names:
            drift.absent.append(name)
        elif name not in kinds:
            drift.emptied.append(name)
        elif kinds[name] != kind:
            drift.changed.append(f"{name!r} was a {kind}, and is a {kinds[name]}")
    drift.added = [name for name in kinds if name not in before["kinds"]]
    described = {each["name"]: from_json(each) for each in before["columns"]}
    for column in compared(findings.columns):
        last = described.get(column.name)
        if last is not None and last.kind == column.kind:
            drift.columns.append(moved(last, last.of(features[column.name])))
    drift.columns.sort(key=lambda each: -each.index)
    drift.swapped = _swapped(drift.shifted, features)
    last_target = from_json(before["target"])
    is_number = pd.api.types.is_numeric_dtype(target) and last_target.kind == "number"
    if last_target.name == str(target.name) and (is_number or last_target.kind == "category"):
        drift.target = moved(last_target, last_target.of(target))
    return drift


def moved(before: Described, now: Described) -> Moved:
    """Return how far a column has moved from one distribution to another over the same bins."""
    old, new = (_bins(each) for each in (before, now))
    used = (old + new) > 0
    # Missing values and new texts also by themselves: one bin that moves hides among those that stay.
    parts = [(before.missing, now.missing)]
    if before.kind == "category":
        parts += [(before.singles, now.counts[-1]), (min(before.singles, 1), now.most_of_new)]
    measured = [
        _index(old[used], new[used]),
        *(_index(_in_or_out(first, old), _in_or_out(second, new)) for first, second in parts),
    ]
    clear = [index for index, bound in measured if index >= bound]
    largest = max(clear, default=0.0)
    band = "shifted" if largest >= LARGE else "moderate" if largest >= MODERATE else "stable"
    return Moved(before.name, before.kind, max(measured[0][0], largest), band, before, now)


def _bins(described: Described) -> np.ndarray:
    """Return the rows of each bin, those of missing values last; new texts are among the other ones."""
    counts = list(described.counts)
    if described.kind == "category":
        counts[-2:] = [sum(counts[-2:])]
    return np.array([*counts, described.missing], dtype=np.float64)


def _in_or_out(part: int, bins: np.ndarray) -> np.ndarray:
    """Return how many rows are in a part, and how many are not."""
    return np.array([part, max(bins.sum() - part, 0)], dtype=np.float64)


def check(drift: Drift, rules: Rules) -> None:
    """Raise DataError, with the way out, where the rules do not let it be trained on."""
    if rules.on_schema_change == "refuse" and (drift.absent or drift.changed):
        raise DataError(
            f"the columns have changed since the last training: {drift.schema_text()}. Upload data with the "
            "columns of before, or ask for a training with force to train on these"
        )
    if rules.on_shift == "refuse" and drift.has_shifted(rules):
        listed = [repr(name) for name in (*(each.name for each in drift.shifted), *drift.emptied)]
        columns = len(drift.columns) + len(drift.emptied)
        raise DataError(
            f"{counted(len(listed), 'column')} of {columns} moved far from the last training: {_named(listed)}. "
            "Look at `trainyard drift`, and ask for a training with force to train on them"
        )


def _index(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """Return the index between two counts over bins, and how large it is by chance at most."""
    # Half a row more in each bin: an empty one is a small share, and not none.
    before, now = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (old, new))
    index = float(((now - before) * np.log(now / before)).sum())
    rows_before, rows_now = max(old.sum(), 1.0), max(new.sum(), 1.0)
    bound = chi2.isf(CHANCE, max(len(old) - 1, 1)) * (1 / rows_before + 1 / rows_now)
    return index, float(bound)


def _swapped(shifted: Sequence[Moved], features: pd.DataFrame) -> list[tuple[str, str]]:
    pairs = []
    for first, second in combinations(shifted[:PAIRS_MAX], 2):
        if first.kind == second.kind:
            there = moved(first.before, first.before.of(features[second.name]))
            here = moved(second.before, second.before.of(features[first.name]))
            if there.band != "shifted" and here.band != "shifted":
                pairs.append((first.name, second.name))
    return pairs


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f"{', '.join(names[:NAMED_MAX])}{more}"
