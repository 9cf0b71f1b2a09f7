"""Statistics of a data set's columns, small enough to be kept with its model, and compared with a later one's.

Of a column of numbers, how many values lie between its deciles; of one of texts, how many rows have each of its
most frequent ones. Dates are left out: they move on.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from schema import Column

VERSION = 1
COLUMNS_MAX = 500
"""The first columns of a wide table are described: the file is read with each training."""
BINS = 10
CATEGORIES_MAX = 30
OTHERS_MAX = 500
"""Further texts of a column that are told from new ones; where there are more, none counts as new."""
ANY = -1
"""Among check sums: of any text."""
NAME_LENGTH_MAX = 60
"""Characters of a text that are kept."""


@dataclass(frozen=True)
class Described:
    """How the values of a column are distributed."""

    name: str
    kind: str
    """"number" or "category"."""
    counts: tuple[int, ...]
    """Rows in each bin: of numbers between the edges; of texts those that have each, those that have another one
    that was there before, and those that have one that was not."""
    missing: int
    edges: tuple[float, ...] = ()
    """Between the bins of numbers."""
    categories: tuple[str, ...] = ()
    others: tuple[int, ...] = ()
    """Check sums of the other texts."""
    most_of_new: int = 0
    """Rows with the most frequent of the texts that were not there before."""
    singles: int = 0
    """Texts that only one row has: about as many rows of another sample have a text that is not in this one
    (Good 1953, "The population frequencies of species")."""

    def of(self, values: pd.Series) -> "Described":
        """Return the distribution of other values of the column over the same bins."""
        if self.kind == "number":
            return _of_numbers(self.name, np.asarray(values, dtype=np.float64), np.array(self.edges))
        return _of_texts(self.name, values, self.categories, self.others)


def statistics_of(
    features: pd.DataFrame, columns: Sequence[Column], target: pd.Series, problem: str
) -> dict[str, Any]:
    """Return the statistics of a data set's features and of its target, as JSON has them."""
    described = [
        _described(column.name, column.kind, features[column.name]) for column in compared(columns)[:COLUMNS_MAX]
    ]
    kind = "number" if problem == "regression" else "category"
    return {
        "version": VERSION,
        "rows": len(features),
        "columns": [asdict(each) for each in described],
        "target": asdict(_described(str(target.name), kind, target)),
        "kinds": {column.name: column.kind for column in columns},
    }


def compared(columns: Sequence[Column]) -> list[Column]:
    return [column for column in columns if column.kind != "date"]


def from_json(values: dict[str, Any]) -> Described:
    return Described(
        name=values["name"],
        kind=values["kind"],
        counts=tuple(map(int, values["counts"])),
        missing=int(values["missing"]),
        edges=tuple(map(float, values["edges"])),
        categories=tuple(values["categories"]),
        others=tuple(map(int, values["others"])),
        singles=int(values["singles"]),
    )


def _described(name: str, kind: str, values: pd.Series) -> Described:
    if kind == "number":
        numbers = np.asarray(values, dtype=np.float64)
        present = numbers[~np.isnan(numbers)]
        deciles = np.quantile(present, np.linspace(0, 1, BINS + 1)[1:-1]) if len(present) else np.array([])
        return _of_numbers(name, numbers, np.unique(deciles))
    counts = values.dropna().astype(str).value_counts()
    counts = counts[counts > 0]
    frequent = sorted(counts.index, key=lambda text: (-int(counts[text]), text))
    listed = tuple(dict.fromkeys(text[:NAME_LENGTH_MAX] for text in frequent))
    others = tuple(sorted({crc32(text.encode()) for text in listed[CATEGORIES_MAX:]}))
    too_many = len(others) > OTHERS_MAX
    return _of_texts(name, values, listed[:CATEGORIES_MAX], (ANY,) if too_many else others)


def _of_numbers(name: str, values: np.ndarray, edges: np.ndarray) -> Described:
    present = values[~np.isnan(values)]
    # A value that equals an edge lies below it, so that a frequent value has a bin of its own.
    bins = np.searchsorted(edges, present, side="left")
    return Described(
        name=name,
        kind="number",
        counts=tuple(int(count) for count in np.bincount(bins, minlength=len(edges) + 1)),
        missing=int(len(values) - len(present)),
        edges=tuple(float(edge) for edge in edges),
    )


def _of_texts(name: str, values: pd.Series, categories: tuple[str, ...], others: tuple[int, ...]) -> Described:
    present = values.dropna().astype(str).str.slice(0, NAME_LENGTH_MAX)
    counts = present.value_counts()
    counts = counts[counts > 0]
    listed = [int(counts.get(text, 0)) for text in categories]
    rest = counts[~counts.index.isin(categories)]
    sums = set(others)
    new = [int(count) for text, count in rest.items() if ANY not in sums and crc32(text.encode()) not in sums]
    return Described(
        name=name,
        kind="category",
        counts=(*listed, int(rest.sum()) - sum(new), sum(new)),
        missing=int(len(values) - len(present)),
        categories=categories,
        others=others,
        most_of_new=max(new, default=0),
        singles=int((counts == 1).sum()),
    )
