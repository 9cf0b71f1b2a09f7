"""The column to predict: which problem it poses, and its values as classes or quantities.

The rule, unless the tenant says which problem it is (--problem): texts and booleans are classes; whole numbers are
classes if there are at most ten different ones and each is in at least five rows; other numbers are quantities.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from common import DataError, counted
from numbers_in_text import NUMBER_MARKS, PLAIN, style_of
from schema import (
    MISSING_TEXTS,
    NOT_NUMBERS_SHARE_MAX,
    SEMICOLON,
    distinct,
    is_identifier_like,
    numbers_of,
    spread,
)
from tables import NATIVE

NUMBERED_CLASSES_MAX = 10
"""More different whole numbers are quantities, not classes."""

CLASS_ROWS_MIN = 5
"""Rows that a class needs to be learnt and to be tested."""

LEFT_OUT_SHARE_MAX = 0.05
"""Of the rows may belong to classes that are too small; with more, the column is hardly one of classes."""

CLASSES_MAX = 200
"""More classes need more memory and time than an instance of this size has."""

CLASS_CHARACTERS_MAX = 200
QUANTITY_MAX, QUANTITY_SPREAD_MIN = 1e100, 1e-100
"""Of quantities: beyond these, squares of them are zero or infinite."""

MISSING_CLASSES = MISSING_TEXTS | {"?", "-", "--"}


@dataclass
class Target:
    """What is to be learnt of each row."""

    problem: str
    values: np.ndarray
    """Classes (texts, or whole numbers) or quantities, of the rows that have one."""

    rows: np.ndarray
    """The positions of these rows."""

    notes: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def read_target(
    name: str, cells: pa.ChunkedArray, asked: str, delimiter: str, where: Callable[[int], str]
) -> Target:
    """Return what is to be learnt; raises DataError, naming the column, when it cannot be.

    `asked` is the problem that the tenant wants, or "auto"; `where` names the place of a row.
    """
    quantities, quantity_notes, not_a_number, is_plain = _as_quantities(cells, delimiter)
    if asked == "regression" and not_a_number is not None:
        raise DataError(
            f"column {name!r} has values that are not numbers ({where(not_a_number)}), so it cannot be the target "
            "of a regression"
        )
    are_numbers = not_a_number is None
    present = quantities[~np.isnan(quantities)] if are_numbers else np.empty(0)
    has_few = are_numbers and _are_classes(present)
    if asked == "regression" or (asked == "auto" and are_numbers and not has_few):
        _check_size(name, quantities, where)
        target = Target("regression", present, np.flatnonzero(~np.isnan(quantities)), quantity_notes)
        if asked == "auto" and len(present) and (present == np.round(present)).all():
            target.notes.append(
                f"column {name!r} has {len(np.unique(present))} different whole numbers, which were taken for "
                'quantities (regression); set the problem to "classification" if they are classes'
            )
    else:
        whole = are_numbers and is_plain and len(present) > 0 and bool((present == np.round(present)).all())
        target = _whole_classes(quantities) if whole else _text_classes(name, cells)
        _leave_out_small_classes(name, target)
    missing = len(cells) - len(target.rows) - sum(target.dropped.values())
    if missing:
        target.dropped["no value to learn"] = missing
        target.notes.append(f"{counted(missing, 'row')} without a value for {name!r} left out")
    return target


def _as_quantities(cells: pa.ChunkedArray, delimiter: str) -> tuple[np.ndarray, list[str], int | None, bool]:
    """Return the cells as numbers, what was assumed, the position of one that is none if too many are, and whether
    all are numbers without more beside them.
    """
    if pa.types.is_floating(cells.type):
        return numbers_of(cells, PLAIN), [], None, True
    codes, texts = distinct(cells)
    marks = np.array([text.casefold() in NUMBER_MARKS for text in texts], dtype=bool)
    style, parsed = style_of(
        [text for text, mark in zip(texts, marks, strict=True) if not mark], prefer_comma=delimiter == SEMICOLON
    )
    by_text = np.full(len(texts), np.nan)
    by_text[~marks] = parsed
    values = spread(by_text, codes)
    bad = np.isnan(values) & spread(~marks, codes, missing=0).astype(bool)
    filled = int(spread(~marks, codes, missing=0).sum())
    is_identifier = spread(np.array([is_identifier_like(text) for text in texts], dtype=bool), codes, missing=0)
    if is_identifier.sum() > NOT_NUMBERS_SHARE_MAX * filled:
        return values, [], int(is_identifier.argmax()), False
    if bad.sum() > NOT_NUMBERS_SHARE_MAX * filled or filled == 0:
        return values, [], int(bad.argmax()), False
    notes = ["the target's numbers were read without their unit"] if style.unit else []
    return values, notes, None, not (style.unit or bad.any() or is_identifier.any())


def _check_size(name: str, quantities: np.ndarray, where: Callable[[int], str]) -> None:
    """Raise DataError for quantities whose squares are no numbers."""
    too_large = np.abs(quantities) > QUANTITY_MAX
    if too_large.any():
        place = where(int(too_large.argmax()))
        raise DataError(f"column {name!r} has values above {QUANTITY_MAX:g} ({place}), which cannot be learnt")
    present = quantities[~np.isnan(quantities)]
    if len(present) and 0 < present.max() - present.min() < QUANTITY_SPREAD_MIN:
        raise DataError(
            f"the values of column {name!r} differ by less than {QUANTITY_SPREAD_MIN:g}: use larger units"
        )


def _are_classes(values: np.ndarray) -> bool:
    if len(values) == 0 or not (values == np.round(values)).all():
        return False
    different, counts = np.unique(values, return_counts=True)
    return len(different) <= NUMBERED_CLASSES_MAX and int(counts.min()) >= CLASS_ROWS_MIN


def _whole_classes(values: np.ndarray) -> Target:
    rows = np.flatnonzero(~np.isnan(values))
    return Target("classification", values[rows].astype(np.int64), rows)


def _text_classes(name: str, cells: pa.ChunkedArray) -> Target:
    """Classes by their texts; those that differ by case and blanks only are one, in its most frequent spelling."""
    codes, texts = distinct(cells)
    texts = [text.removeprefix(NATIVE) for text in texts]
    longest = max(map(len, texts), default=0)
    if longest > CLASS_CHARACTERS_MAX:
        raise DataError(f"column {name!r} has a class of {longest:,} characters: is it the column to predict?")
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    spellings: dict[str, Counter[str]] = {}
    for text, count in zip(texts, counts, strict=True):
        if text.casefold() not in MISSING_CLASSES:
            spellings.setdefault(" ".join(text.casefold().split()), Counter())[text] += int(count)
    chosen = {
        key: min(written, key=lambda text: (-written[text], text)) for key, written in spellings.items()
    }  # fmt: skip
    labels = np.array([chosen.get(" ".join(text.casefold().split()), "") for text in texts] + [""], dtype=object)
    values = labels[codes]
    rows = np.flatnonzero(values != "")
    target = Target("classification", values[rows], rows)
    merged = sum(1 for written in spellings.values() if len(written) > 1)
    if merged:
        target.notes.append(
            f"{counted(merged, 'class')} of column {name!r} united: spellings differed by case or blanks only"
        )
    return target


def _leave_out_small_classes(name: str, target: Target) -> None:
    classes, codes, counts = np.unique(target.values, return_inverse=True, return_counts=True)
    small = counts < CLASS_ROWS_MIN
    lost = int(counts[small].sum())
    if lost > LEFT_OUT_SHARE_MAX * len(target.values) or (small.any() and (~small).sum() < 2):
        raise DataError(
            f"{int(small.sum())} of the {len(classes)} classes of column {name!r} have fewer than "
            f"{CLASS_ROWS_MIN} rows: is it the column to predict?"
        )
    if small.any():
        is_large_enough = ~small[codes]
        target.values, target.rows = target.values[is_large_enough], target.rows[is_large_enough]
        target.dropped["a class with too few rows"] = lost
        target.notes.append(
            f"{counted(int(small.sum()), 'class')} of column {name!r} with fewer than {CLASS_ROWS_MIN} rows "
            f"left out ({counted(lost, 'row')})"
        )
    if (~small).sum() > CLASSES_MAX:
        raise DataError(
            f"column {name!r} has {int((~small).sum()):,} classes; at most {CLASSES_MAX} can be learnt"
        )


def check_learnable(name: str, target: Target, features: int, left_out: dict[str, str], rows_min: int) -> None:
    """Raise DataError when there is nothing to learn, or nothing to learn it from."""
    if len(target.values) < rows_min:
        raise DataError(f"{counted(len(target.values), 'row')} have a {name!r} to learn; {rows_min} are needed")
    different: Any = np.unique(target.values)
    if len(different) < 2:
        raise DataError(f"column {name!r} has only one value: there is nothing to learn")
    if features == 0:
        why = "".join(f"; {column!r} was left out: {reason}" for column, reason in list(left_out.items())[:3])
        raise DataError(f"there is no column besides {name!r} to learn from{why}")
