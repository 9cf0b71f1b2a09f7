"""Sample: rows as the tenant has them, by which a model is tried before it serves, and compared with another one.

The rows go as JSON lines through the model's own inference code, as a caller's would.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tables import NATIVE, Table
from target import Target

ROWS_MAX = 5
BYTES_MAX = 64 * 1024
"""Of all rows together, as text; those beyond are left out."""

CLASSES_MAX = 200
"""That are named; with more, answers are not compared with them."""


ROWS = "rows.json"
"""The rows by which models are compared, beside those to test on."""

RAW_ROWS_MAX, RAW_BYTES_MAX = 80_000, 160_000_000
"""Of a table, as many rows, and bytes of text, are set aside for that at most; about a quarter is tested on."""

PUNCTUATION_BYTES = 6
"""Of a value in a line of JSON."""


@dataclass(frozen=True)
class RawRows:
    """Rows of a table, set aside before its cells become features: all, or some by a digest of their position."""

    table: Table
    place: dict[int, int]
    """Position in the whole table → in this one."""

    @classmethod
    def of_table(cls, table: Table, target: str) -> "RawRows":
        """Return rows without the column to predict."""
        columns = [column for column in table.columns if column != target]
        cells = [table.cells[table.columns.index(column)] for column in columns]
        names = sum(len(column.encode()) + PUNCTUATION_BYTES for column in columns)
        each = sum(column.nbytes for column in cells) / max(len(table), 1) + names
        count = max(1, min(len(table), RAW_ROWS_MAX, int(RAW_BYTES_MAX / each)))
        positions = np.arange(len(table))
        if count < len(table):
            positions = np.sort(np.argsort(pd.util.hash_array(positions), kind="stable")[:count])
            cells = [_taken(column, positions) for column in cells]
        place = {int(position): number for number, position in enumerate(positions)}
        return cls(replace(table, columns=columns, cells=cells), place)

    def of(self, positions: Iterable[int]) -> dict[str, Any]:
        """Return those of some rows of the table that were set aside: "positions", and "rows" as JSON lines."""
        chosen = [int(position) for position in positions if int(position) in self.place]
        rows = lines_of(self.table, self.table.columns, (self.place[position] for position in chosen))
        return {"positions": chosen, "rows": "".join(rows)}


def _taken(cells: pa.ChunkedArray, positions: np.ndarray) -> pa.ChunkedArray:
    """Return the cells at some positions, in rising order; chunk by chunk, since all together may be too large."""
    ends = np.cumsum([0, *(len(chunk) for chunk in cells.chunks)])
    parts = [
        chunk.take(pa.array(positions[(positions >= begin) & (positions < begin + len(chunk))] - begin))
        for begin, chunk in zip(ends, cells.chunks, strict=False)
    ]
    return pa.chunked_array(parts, type=cells.type)


def sample_of(table: Table, names: Iterable[str], target: Target) -> dict[str, Any]:
    """Return the first rows with the columns that a model may learn from, and what it may answer.

    The keys: content_type; rows, as text; problem; and
    "classes" (the labels as texts, if they are not too many) or "range" (the least and the greatest value).
    """
    lines, size = [], 0
    for line in lines_of(table, names, target.rows[:ROWS_MAX]):
        size += len(line.encode())
        if size > BYTES_MAX:
            break
        lines.append(line)
    sample: dict[str, Any] = {
        "content_type": "application/jsonlines",
        "rows": "".join(lines),
        "problem": target.problem,
    }
    if target.problem == "regression":
        return sample | {"range": [float(np.min(target.values)), float(np.max(target.values))]}
    classes = sorted({str(label) for label in target.values})
    return sample | ({"classes": classes} if len(classes) <= CLASSES_MAX else {})


def lines_of(table: Table, names: Iterable[str], positions: Iterable[int]) -> Iterator[str]:
    """Yield rows of a table with some of its columns, each as a line of JSON, as a caller of a model sends it."""
    columns = [(name, table.cells[table.columns.index(name)]) for name in names if name in table.columns]
    for position in positions:
        cells = {name: _plain(cells[int(position)].as_py()) for name, cells in columns}
        yield json.dumps(cells, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(cell: Any) -> Any:
    """Return a cell as JSON has it: what the format said is a number is one."""
    if isinstance(cell, str) and cell.startswith(NATIVE):
        with suppress(ValueError):  # a cell of the tenant's may begin so too
            cell = float(cell.removeprefix(NATIVE))
    return None if isinstance(cell, float) and not np.isfinite(cell) else cell
