"""What each column of a table is, and its values as numbers and categories.

A column's type is decided once, for all rows of a data set. From then on each value is converted by itself, so a
row means the same alone and among others, in CSV and in JSON lines.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from common import counted
from dates import best_format, parts_of
from numbers_in_text import NUMBER_MARKS, PLAIN, TEXT_MAX, Style, numbers, style_of
from tables import NATIVE, Table, as_text

NOT_NUMBERS_SHARE_MAX = 0.01
"""Of a column's values may be no number for the column to be one of numbers; they are then missing."""

NEARLY_NUMERIC = 0.5
"""A column with this share of numbers, and yet of text, is named in a note."""

SEMICOLON = ";"
"""The delimiter where people write a decimal comma, and the day before the month."""

CATEGORIES_KEPT_MAX = 10_000
"""Most frequent texts of a column that are told apart; all others are one category."""

IDENTIFIER_SHARE = 0.9
"""A text column with more different values per row says nothing about other rows."""

IDENTIFIER_ROWS_MIN = 20
OTHER = " other"
"""The category of texts that are not among a column's. No cell begins with a blank, so none is equal to it."""

MISSING_TEXTS = frozenset(
    {"", "na", "n/a", "nan", "null", "<na>", "#n/a", "#na", "#name?", "#null!", "#ref!", "#value!"}
)
"""Written in a text column for a missing value, in any case of letters."""

IDENTIFIER = re.compile("0[0-9]+|[+-]?[0-9]{17,}")
MAY_BE_THOUSANDS = r"^[+-]?([0-9]+|[1-9][0-9]{0,2}([.][0-9]{3})+)$"
"""Whole numbers, or ones whose dots may be between thousands."""

INDEX_NAMES = frozenset(
    {"column 1", "unnamed: 0", "__index_level_0__", "id", "index", "row", "row_id", "rowid", "rownames"}
    | {"row_number", "rownumber", "nr", "nr.", "no", "no.", "#"}
)
"""Names, in lower case, of columns that number the rows, if their values can be the numbers of rows."""

WHOLE_MAX = 2**53
"""Whole numbers beyond this are not exact as floating-point numbers: they are identifiers."""


@dataclass(frozen=True)
class Column:
    """How the cells of one column become values."""

    name: str
    kind: Literal["number", "date", "category"]
    style: Style = PLAIN
    """Of numbers: how they are written."""

    date_format: str = ""
    label: str = ""
    """What the names of a date's parts begin with."""

    categories: tuple[str, ...] = ()
    """The texts that are told apart, in order."""

    def values(self, cells: pa.ChunkedArray) -> dict[str, Any]:
        """Return the columns of features that the cells become, by name."""
        if self.kind == "number":
            return {self.name: numbers_of(cells, self.style)}
        codes, texts = distinct(cells)
        if self.kind == "date":
            return {
                f"{self.label} ({part})": spread(values, codes)
                for part, values in parts_of(texts, self.date_format).items()
            }
        code_of = {text: code for code, text in enumerate(self.categories)}
        translated = [_category(text, code_of) for text in texts]
        return {
            self.name: pd.Categorical.from_codes(
                spread(np.array(translated, dtype=np.float64), codes, missing=-1).astype(np.int32),
                categories=pd.Index([*self.categories, OTHER], dtype=object),
            )
        }


def _category(text: str, code_of: dict[str, int]) -> int:
    if text.casefold() in MISSING_TEXTS:
        return -1
    return code_of.get(_canonical(text), len(code_of))


def _canonical(text: str) -> str:
    """Return a text without differences that only the format makes: true is written True by some."""
    text = text.removeprefix(NATIVE)
    return text.lower() if text.lower() in {"true", "false"} else text


@dataclass
class Findings:
    """What was decided about the columns of a data set, and what the tenant should know of it."""

    columns: list[Column] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Column → why nothing is learnt from it."""

    notes: list[str] = field(default_factory=list)


# --- values ------------------------------------------------------------------------------------------------------


def distinct(cells: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Return the code of each cell (-1: nothing stands there), and the text of each code."""
    if pa.types.is_floating(cells.type):
        cells = pa.chunked_array([pa.array([as_text(value) for value in cells.to_pylist()], pa.string())])
    encoded = pc.dictionary_encode(cells).unify_dictionaries()
    if encoded.num_chunks == 0:
        return np.empty(0, np.int64), []
    codes = np.concatenate(
        [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) for chunk in encoded.chunks]
    )
    return codes, encoded.chunk(0).dictionary.to_pylist()


def spread(values: np.ndarray, codes: np.ndarray, missing: float = np.nan) -> np.ndarray:
    """Return the value of each cell, given those of each code."""
    return np.append(values, missing)[codes]


def numbers_of(cells: pa.ChunkedArray, style: Style) -> np.ndarray:
    """Return cells as numbers; NaN where none stands."""
    if pa.types.is_floating(cells.type):
        return _finite(cells)
    if style.decimal == PLAIN.decimal and not style.unit:
        values = as_plain_numbers(cells)
        if values is not None:
            return values
    codes, texts = distinct(cells)
    return spread(numbers(texts, style), codes)


def as_plain_numbers(cells: pa.ChunkedArray) -> np.ndarray | None:
    """Return texts as numbers if all of them are, as programs write them; without a Python object for each."""
    if (pc.max(pc.utf8_length(cells)).as_py() or 0) > TEXT_MAX:
        return None
    try:
        return _finite(cells.cast(pa.float64()))
    except pa.ArrowInvalid:
        return None


def _finite(cells: pa.ChunkedArray) -> np.ndarray:
    values = np.array(cells.to_numpy(), dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    return values


# --- decisions ---------------------------------------------------------------------------------------------------


def decide(table: Table, target: str, where: Callable[[int], str]) -> Findings:
    """Return what each column but the target is; `where` names the place of a row."""
    findings = Findings()
    for name, cells in zip(table.columns, table.cells, strict=True):
        if name == target:
            continue
        column, reason = _decide_column(name, cells, table.delimiter, where, findings.notes)
        if column is None:
            findings.left_out[name] = reason
        else:
            findings.columns.append(_labelled(column, table.columns))
    _use_one_decimal(findings, table)
    return findings


def _decide_column(
    name: str, cells: pa.ChunkedArray, delimiter: str, where: Callable[[int], str], notes: list[str]
) -> tuple[Column | None, str]:
    if pa.types.is_floating(cells.type):
        return _decide_number(Column(name, "number"), _finite(cells))
    plain = as_plain_numbers(cells)
    if plain is not None and not _needs_a_look(cells):
        return _decide_number(Column(name, "number"), plain)
    codes, texts = distinct(cells)
    marks = np.array([text.casefold() in NUMBER_MARKS for text in texts], dtype=bool)
    present = spread(~marks, codes, missing=0).astype(bool)
    filled = int(present.sum())
    if filled == 0:
        return None, "it has no values"
    unmarked = [text for text, mark in zip(texts, marks, strict=True) if not mark]
    style, parsed = style_of(unmarked, prefer_comma=delimiter == SEMICOLON)
    is_number = np.zeros(len(texts), dtype=bool)
    is_number[~marks] = ~np.isnan(parsed)
    bad = present & ~spread(is_number, codes, missing=0).astype(bool)
    is_identifier = spread(np.array([is_identifier_like(text) for text in texts], dtype=bool), codes, missing=0)
    exact = is_identifier.sum() <= NOT_NUMBERS_SHARE_MAX * filled
    if not exact and bad.sum() <= NOT_NUMBERS_SHARE_MAX * filled:
        notes.append(
            f"column {name!r} is read as text: its numbers have leading zeros, or more digits than a number holds "
            f"({where(int(is_identifier.argmax()))})"
        )
    if exact and bad.sum() <= NOT_NUMBERS_SHARE_MAX * filled:
        if bad.any():
            notes.append(
                f"column {name!r}: {counted(int(bad.sum()), 'value')} not a number ({where(int(bad.argmax()))}), "
                "read as missing"
            )
        if style.unit:
            notes.append(f"column {name!r}: numbers with a unit were read without it")
        values = np.full(len(texts), np.nan)
        values[~marks] = parsed
        return _decide_number(Column(name, "number", style), spread(values, codes))
    if exact and bad.sum() < (1 - NEARLY_NUMERIC) * filled:
        notes.append(
            f"column {name!r} is read as text: {int(bad.sum())} of {filled} values are not numbers "
            f"({where(int(bad.argmax()))})"
        )
    return _decide_text(name, codes, texts, delimiter, notes)


def _decide_text(
    name: str, codes: np.ndarray, texts: list[str], delimiter: str, notes: list[str]
) -> tuple[Column | None, str]:
    missing = np.array([text.casefold() in MISSING_TEXTS for text in texts], dtype=bool)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    counts[missing] = 0
    filled = int(counts.sum())
    if filled == 0:
        return None, "it has no values"
    written = [text for text, count in zip(texts, counts, strict=True) if count]
    date_format, is_ambiguous = best_format(written, counts[counts > 0], day_first=delimiter == SEMICOLON)
    if date_format:
        if is_ambiguous:
            first = "day" if delimiter == SEMICOLON else "month"
            notes.append(
                f"column {name!r}: its dates were read with the {first} first; nothing in them decides it"
            )
        return Column(name, "date", date_format=date_format), ""
    merged: Counter[str] = Counter()
    for text, count in zip(texts, counts, strict=True):
        if count:
            merged[_canonical(text)] += int(count)
    if len(merged) == 1 and filled == len(codes):
        return None, "it has the same value in every row"
    if filled >= IDENTIFIER_ROWS_MIN and len(merged) > IDENTIFIER_SHARE * filled:
        return None, "its texts differ in nearly every row: an identifier, or free text"
    if len(merged) > CATEGORIES_KEPT_MAX:
        notes.append(
            f"column {name!r}: of {len(merged):,} texts the {CATEGORIES_KEPT_MAX:,} most frequent are told apart"
        )
    frequent = sorted(merged, key=lambda text: (-merged[text], text))[:CATEGORIES_KEPT_MAX]
    return Column(name, "category", categories=tuple(sorted(frequent))), ""


def is_identifier_like(text: str) -> bool:
    """Tell whether a number says more than its value: it has leading zeros, or more digits than a number holds."""
    return IDENTIFIER.fullmatch(text) is not None


def _needs_a_look(cells: pa.ChunkedArray) -> bool:
    """Tell whether numbers may be identifiers, or be written with dots between thousands."""
    if pc.any(pc.match_substring_regex(cells, f"^({IDENTIFIER.pattern})$")).as_py():
        return True
    return bool(pc.all(pc.match_substring_regex(cells, MAY_BE_THOUSANDS)).as_py())


def _decide_number(column: Column, values: np.ndarray) -> tuple[Column | None, str]:
    if column.name.lower() in INDEX_NAMES and _is_index(values):
        return None, "it numbers the rows"
    return _unless_constant(column, values)


def _unless_constant(column: Column, values: np.ndarray) -> tuple[Column | None, str]:
    present = values[~np.isnan(values)]
    if len(present) == 0:
        return None, "it has no values"
    if len(present) == len(values) and (present == present[0]).all():
        return None, "it has the same value in every row"
    return column, ""


def _is_index(values: np.ndarray) -> bool:
    """Tell whether values may number rows, in any order: from 0 or 1, each once, or once in each file."""
    whole = not np.isnan(values).any() and (values == np.round(values)).all() and values.min() in (0, 1)
    repeated = np.unique(values, return_counts=True)[1].max() if whole else 0
    return bool(whole) and values.max() <= len(values) and len(np.unique(values)) * repeated >= len(values) * 0.9


def _labelled(column: Column, names: Collection[str]) -> Column:
    """Return a date's column with a label that makes no name of a part equal to a column's."""
    label = column.name
    while any(name.startswith(f"{label} (") for name in names):
        label += " date"
    return replace(column, label=label) if column.kind == "date" else column


def _use_one_decimal(findings: Findings, table: Table) -> None:
    """Read numbers that could be written either way as the other columns of the file are."""
    styles = [column.style for column in findings.columns if column.kind == "number"]
    if not any(style.decimal == "," and not style.is_ambiguous for style in styles):
        return
    for position, column in enumerate(findings.columns):
        if column.kind == "number" and column.style.is_ambiguous:
            findings.columns[position] = replace(column, style=replace(column.style, decimal=","))


# --- the schema of a model ---------------------------------------------------------------------------------------


def frame(table: Table, columns: Iterable[Column]) -> pd.DataFrame:
    """Return the features of a table's rows, whose cells are given up; the table must have all the columns."""
    places = {name: position for position, name in enumerate(table.columns)}
    features: dict[str, Any] = {}
    for column in columns:
        place = places[column.name]
        features |= column.values(table.cells[place])
        table.cells[place] = pa.chunked_array([], pa.string())  # one copy at a time
    return pd.DataFrame(features, copy=False)


def as_json(columns: Iterable[Column]) -> list[dict[str, Any]]:
    return [asdict(column) for column in columns]


def from_json(columns: Iterable[dict[str, Any]]) -> list[Column]:
    return [
        Column(**{**column, "style": Style(**column["style"]), "categories": tuple(column["categories"])})
        for column in columns
    ]
