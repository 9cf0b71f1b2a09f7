"""Sample: a few rows as the tenant has them, by which a model is tried before it serves.

The rows go as JSON lines through the model's own inference code, as a caller's would.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np

from tables import NATIVE, Table
from target import Target

ROWS_MAX = 5
BYTES_MAX = 64 * 1024
"""Of all rows together, as text; those beyond are left out."""

CLASSES_MAX = 200
"""That are named; with more, answers are not compared with them."""


def sample_of(table: Table, names: Iterable[str], target: Target) -> dict[str, Any]:
    """Return the first rows with the columns that a model may learn from, and what it may answer.

    The keys: content_type; rows, as text; problem; and
    "classes" (the labels as texts, if they are not too many) or "range" (the least and the greatest value).
    """
    columns = [(name, table.cells[table.columns.index(name)]) for name in names if name in table.columns]
    lines, size = [], 0
    for position in target.rows[:ROWS_MAX]:
        cells = {name: _plain(cells[int(position)].as_py()) for name, cells in columns}
        line = json.dumps(cells, ensure_ascii=False, allow_nan=False) + "\n"
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


def _plain(cell: Any) -> Any:
    """Return a cell as JSON has it: what the format said is a number is one."""
    if isinstance(cell, str) and cell.startswith(NATIVE):
        with suppress(ValueError):  # a cell of the tenant's may begin so too
            cell = float(cell.removeprefix(NATIVE))
    return None if isinstance(cell, float) and not np.isfinite(cell) else cell
