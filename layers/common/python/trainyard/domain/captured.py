"""Captured inputs: how far what a live model is asked has moved from the data that it was trained on.

The same distance as that of new data (pipeline/steps/drift.py): the population stability index over the bins of
the last training, which counts as moved only if chance alone would hardly move a column so far. Rows come one by
one, and without the column that is predicted.

Sources: Yurdakul (2018), "Statistical properties of the population stability index"; Good (1953), "The population
frequencies of species".
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from zlib import crc32

MODERATE, LARGE = 0.1, 0.25
CHANCE = 1e-6
"""How rarely the index of a column that has not moved may be so large, for the column to have shifted."""
TEXT_LENGTH_MAX = 60
"""Characters of a text that are compared."""
ANY = -1
"""Among check sums: of any text."""
NAMED_MAX = 3
MISSING_TEXTS = frozenset(
    {"", "na", "n/a", "nan", "null", "<na>", "#n/a", "#na", "#name?", "#null!", "#ref!", "#value!"}
)
"""Written for a missing value, in any case of letters; as pipeline/steps/schema.py has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """How the values of a column are distributed."""

    name: str
    kind: str
    """ "number" or "category"."""
    counts: tuple[int, ...]
    """Rows in each bin: of numbers between the edges; of texts those that have each, those that have another one
    that was there before, and those that have one that was not."""
    missing: int
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    others: frozenset[int] = frozenset()
    """Check sums of the other texts that were there before."""
    singles: int = 0
    """Texts that only one row has."""
    most_of_new: int = 0
    """Rows with the most frequent of the texts that were not there before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a training has left of its data."""

    rows: int
    columns: tuple[Distribution, ...]
    kinds: Mapping[str, str]
    """Column → kind, those of dates included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedColumn:
    """How far a column has moved."""

    index: float
    band: str
    """ "stable", "moderate" or "shifted"."""
    before: Distribution
    now: Distribution

    @property
    def name(self) -> str:
        return self.before.name


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedDrift:
    """How captured inputs have moved from the data of the last training."""

    rows_before: int
    rows: int
    absent: tuple[str, ...] = ()
    """Columns of the training that no row has."""
    added: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    """Columns of numbers most of whose values are texts here that are none, such as 1,5: they are not compared."""
    columns: tuple[MovedColumn, ...] = field(default=())
    """The farthest moved first."""

    @property
    def shifted(self) -> tuple[str, ...]:
        return (*self.absent, *(each.name for each in self.columns if each.band == "shifted"))

    def has_shifted(self, shift_percent: int, critical: Sequence[str]) -> bool:
        """Tell whether the inputs have moved far, by the share of columns or by a critical one."""
        share = 100 * len(self.shifted) / max(len(self.columns) + len(self.absent), 1)
        return bool(set(self.shifted) & set(critical)) or (bool(self.shifted) and share >= shift_percent)

    def text(self) -> str:
        """Return which columns have moved, in a few words."""
        names = ", ".join(map(repr, self.shifted[:NAMED_MAX]))
        more = f" and {len(self.shifted) - NAMED_MAX} more" if len(self.shifted) > NAMED_MAX else ""
        of = len(self.columns) + len(self.absent)
        return f"{len(self.shifted)} of {of} columns moved far in {self.rows:,} rows: {names}{more}"


def compare(before: Statistics, rows: Sequence[Mapping[str, Any]], added: Iterable[str] = ()) -> CapturedDrift:
    """Return how rows have moved from what a training was on; a row is column → value, as JSON has it. `added` are
    further columns that rows had.
    """
    present = {name for row in rows for name in row}
    columns, unlike = [], []
    for column in before.columns:
        if column.name not in present:
            continue
        values = [row.get(column.name) for row in rows]
        if column.kind == "number" and _is_unlike(values):
            unlike.append(column.name)
        else:
            columns.append(moved(column, _distribution(column, values)))
    return CapturedDrift(
        rows_before=before.rows,
        rows=len(rows),
        absent=tuple(name for name in before.kinds if name not in present),
        added=tuple(sorted({*added, *(present - set(before.kinds))})),
        unlike=tuple(unlike),
        columns=tuple(sorted(columns, key=lambda each: -each.index)),
    )


def _is_unlike(values: Sequence[Any]) -> bool:
    """Tell whether most of a column's values are texts that are no plain numbers, and yet a model may read."""
    texts = [value for value in values if isinstance(value, str) and _text(value) is not None]
    present = sum(value is not None for value in values)
    return sum(_number(text) is None for text in texts) * 2 > max(present, 1)


def _distribution(before: Distribution, values: Sequence[Any]) -> Distribution:
    """Return the distribution of values over the bins of before."""
    if before.kind == "number":
        numbers = [number for value in values if (number := _number(value)) is not None]
        counts = [0] * (len(before.edges) + 1)
        for number in numbers:
            # A value that equals an edge lies below it.
            counts[bisect_left(before.edges, number)] += 1
        return replace(before, counts=tuple(counts), missing=len(values) - len(numbers), singles=0)
    texts = Counter(text for value in values if (text := _text(value)) is not None)
    listed = [texts.get(category, 0) for category in before.categories]
    known_texts = set(before.categories)
    rest = {text: count for text, count in texts.items() if text not in known_texts}
    is_open = ANY in before.others
    new = [n for text, n in rest.items() if not is_open and _check_sum(text) not in before.others]
    return replace(
        before,
        counts=(*listed, sum(rest.values()) - sum(new), sum(new)),
        missing=len(values) - sum(texts.values()),
        singles=sum(count == 1 for count in texts.values()),
        most_of_new=max(new, default=0),
    )


def _check_sum(text: str) -> int:
    return crc32(text.encode(errors="replace"))  # a text from JSON may have half a character


def _number(value: Any) -> float | None:
    """Return a value as a finite number; None for any other."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str | None:
    """Return a value as a text of a category; None for a missing one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    if text.casefold() in MISSING_TEXTS:
        return None
    return (text.lower() if text.lower() in {"true", "false"} else text)[:TEXT_LENGTH_MAX]


def moved(before: Distribution, now: Distribution) -> MovedColumn:
    """Return how far a column has moved from one distribution to another over the same bins."""
    old, new = _bins(before), _bins(now)
    used = [number for number in range(len(old)) if old[number] + new[number] > 0]
    # Missing values and new texts also by themselves: one bin that moves hides among those that stay.
    parts = [(before.missing, now.missing)]
    if before.kind == "category":
        parts += [(before.singles, now.counts[-1]), (min(before.singles, 1), now.most_of_new)]
    measured = [_index([old[number] for number in used], [new[number] for number in used])]
    measured += [
        _index([first, max(sum(old) - first, 0)], [second, max(sum(new) - second, 0)]) for first, second in parts
    ]
    clear = max((index for index, bound in measured if index >= bound), default=0.0)
    band = "shifted" if clear >= LARGE else "moderate" if clear >= MODERATE else "stable"
    return MovedColumn(index=max(measured[0][0], clear), band=band, before=before, now=now)


def _bins(column: Distribution) -> list[int]:
    """Return the rows of each bin, those of missing values last; new texts are among the other ones."""
    counts = list(column.counts)
    if column.kind == "category":
        counts[-2:] = [sum(counts[-2:])]
    return [*counts, column.missing]


def _index(old: Sequence[int], new: Sequence[int]) -> tuple[float, float]:
    """Return the index between two counts over bins, and how large it is by chance at most."""
    if not old:
        return 0.0, math.inf
    # Half a row more in each bin: an empty one is a small share, and not none.
    half = 0.5 * len(old)
    before, now = ([(rows + 0.5) / (sum(bins) + half) for rows in bins] for bins in (old, new))
    index = sum((n - b) * math.log(n / b) for b, n in zip(before, now, strict=True))
    bound = _chi_squared(max(len(old) - 1, 1)) * (1 / max(sum(old), 1) + 1 / max(sum(new), 1))
    return index, bound


@lru_cache(maxsize=256)
def _chi_squared(degrees: int) -> float:
    """Return what a chi-squared number of so many degrees of freedom exceeds once in 1/CHANCE times."""
    low, high = 0.0, 10.0 * degrees + 100
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _survival(middle, degrees) > CHANCE else (low, middle)
    return (low + high) / 2


def _survival(x: float, degrees: int) -> float:
    """Return how often a chi-squared number exceeds x: the upper incomplete gamma function, by its recurrence."""
    half = x / 2
    order = 0.5 if degrees % 2 else 1.0
    share = math.erfc(math.sqrt(half)) if degrees % 2 else math.exp(-half)
    while order < degrees / 2:
        share += math.exp(order * math.log(half) - half - math.lgamma(order + 1)) if half > 0 else 0.0
        order += 1
    return share
