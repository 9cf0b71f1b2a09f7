"""Read a table of text: CSV and its kin, or JSON lines.

The same code reads what is trained on and what is predicted. A cell of text is kept as it was written, but for
blanks around it; a number of JSON stays a number. What a column is (numbers, dates, categories) is decided for the
whole column, when a data set is trained on, and is then fixed by its schema: a row means the same whatever stands
beside it.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common import DataError, counted, table_bytes_max

DELIMITERS = ",;\t|"
SAMPLE_CHARACTERS = 1 << 16
"""Read of a text to find out its delimiter and where its header is."""

COLUMNS_MAX = 2000
CELL_CHARACTERS_MAX = 1 << 20
RAGGED_SHARE_MAX = 0.01
"""Of the rows may have another number of fields than the header; they are left out. More are refused."""

CELLS_PER_CHUNK = 200_000
"""That are Python objects at a time."""

NATIVE = "\ue000"
"""Before what the format says is a number, among texts: it has a decimal point, however the texts are written."""

LINES_NAMED = 3
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?')
"""What Excel writes, and reads, as the first line of a file."""


@dataclass
class Table:
    """The columns of a file or a request, and what happened to its rows."""

    columns: list[str]
    cells: list[pa.ChunkedArray]
    """Of each column: strings (null: nothing stood there), or doubles where the format says they are numbers."""

    lines: np.ndarray
    """The line of each row in its file, counted from 1."""

    notes: list[str] = field(default_factory=list)
    """What a person should know about how the table was read; never a value of a row."""

    dropped: Counter[str] = field(default_factory=Counter)
    """Reason → rows that were left out."""

    delimiter: str = ""

    has_all_columns: bool = True
    """Whether a column that is not among them does not exist; of JSON lines, its values are missing."""

    def __len__(self) -> int:
        return len(self.lines)

    def add_missing(self, names: Iterable[str]) -> None:
        """Add columns without values, if the format lets rows leave keys away."""
        if not self.has_all_columns:
            for name in names:
                if name not in self.columns:
                    self.columns.append(name)
                    self.cells.append(pa.chunked_array([pa.nulls(len(self), pa.string())]))


class _Builder:
    """Turns rows of text into columns, a chunk at a time."""

    def __init__(self, width: int) -> None:
        self._rows_per_chunk = max(CELLS_PER_CHUNK // width, 1)
        self._rows: list[Sequence[str]] = []
        self._chunks: list[list[pa.Array]] = [[] for _ in range(width)]
        self._lines: list[int] = []
        self._all_lines: list[np.ndarray] = []

    def add(self, row: Sequence[str], line: int) -> None:
        self._rows.append(row)
        self._lines.append(line)
        if len(self._rows) >= self._rows_per_chunk:
            self._flush()

    def _flush(self) -> None:
        for chunks, values in zip(self._chunks, zip(*self._rows, strict=True), strict=False):
            chunks.append(trimmed(pa.array(values, pa.string())))
        self._all_lines.append(np.array(self._lines, dtype=np.int64))
        self._rows, self._lines = [], []

    def finish(self) -> tuple[list[pa.ChunkedArray], np.ndarray]:
        self._flush()
        cells = [pa.chunked_array(chunks, pa.string()) for chunks in self._chunks]
        return cells, np.concatenate(self._all_lines)


def trimmed(cells: pa.Array) -> pa.Array:
    """Return texts without blanks around them; null for those that have nothing else."""
    texts = pc.utf8_trim_whitespace(cells)
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def read_text(text: TextIO, name: str, expected: Collection[str] = (), *, every_row: bool = False) -> Table:
    """Return the table in a text that was opened with newline="".

    `expected` are columns that should be there: they decide between delimiters that fit equally well. With
    `every_row`, no row is left out: one that cannot be read is an error. Raises DataError, naming `name`, for what
    is no table.
    """
    sample = text.read(SAMPLE_CHARACTERS)
    text.seek(0)
    if not sample.strip():
        raise DataError(f"{name} is empty: a header line and rows are needed")
    if sample.lstrip().startswith("{"):
        return _read_json_lines(text, name)
    if sample.lstrip().startswith("[{"):
        raise DataError(f"{name} is one JSON array: write one JSON object per line")
    return _read_delimited(text, name, sample, expected, every_row=every_row)


# --- CSV and its kin ---------------------------------------------------------------------------------------------


def _read_delimited(text: TextIO, name: str, sample: str, expected: Collection[str], *, every_row: bool) -> Table:
    separator = SEPARATOR_LINE.fullmatch(sample.partition("\n")[0].rstrip("\r"))
    delimiter = separator[1] if separator else _delimiter(sample, expected)
    csv.field_size_limit(CELL_CHARACTERS_MAX)
    rows = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        if separator:
            next(rows)
        return _rows_to_table(rows, name, delimiter, every_row=every_row)
    except csv.Error as error:
        if "field limit" in str(error):
            raise DataError(
                f"{name}, line {rows.line_num}: a field has more than {CELL_CHARACTERS_MAX:,} characters; "
                "is a quote not closed?"
            ) from error
        raise DataError(
            f"{name} has broken quotes in the row that ends at line {rows.line_num}: a quote in a quoted field is "
            "written twice"
        ) from error


def _delimiter(sample: str, expected: Collection[str]) -> str:
    """Return the character that separates fields: with it, most rows have as many as the header."""

    def fit(delimiter: str) -> tuple[int, float, int]:
        try:
            rows = [
                row for row in csv.reader(_whole_lines(sample), delimiter=delimiter) if any(map(str.strip, row))
            ]
        except csv.Error:
            return 0, 0.0, 0
        counts = Counter(len(row) for row in rows)
        fields, times = max(counts.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        named = {cell.strip() for row in rows[:10] for cell in row} & set(expected)
        return len(named), times / max(len(rows), 1) if fields > 1 else 0.0, fields

    return max(DELIMITERS, key=fit)


def _whole_lines(sample: str) -> Iterator[str]:
    lines = sample.splitlines(keepends=True)
    return iter(lines[:-1] if len(lines) > 1 and len(sample) == SAMPLE_CHARACTERS else lines)


def _rows_to_table(rows: Any, name: str, delimiter: str, *, every_row: bool) -> Table:
    table = Table([], [], np.empty(0, np.int64), delimiter=delimiter)
    header, first_rows = _header(rows, table.notes, name)
    fields_of_header = len(header)
    while len(header) > 1 and not header[-1]:
        header.pop()
    table.columns = _names(header, name)
    width = len(table.columns)
    ragged: list[tuple[int, int]] = []
    trailing = False
    builder = _Builder(width)
    count = 0
    for row, line in _numbered(first_rows, rows):
        if not row or (not row[0].strip() and not every_row and not any(map(str.strip, row))):
            continue
        count += 1
        if len(row) > width and not any(map(str.strip, row[width:])):
            trailing = trailing or len(row) > fields_of_header
            del row[width:]
        if len(row) != width:
            ragged.append((line, len(row)))
        elif row[0].strip() == header[0] and [cell.strip() for cell in row] == header and not every_row:
            table.dropped["the header, repeated"] += 1
        else:
            builder.add(row, line)
    table.cells, table.lines = builder.finish()
    if trailing:
        table.notes.append(
            f"{name}: rows have more delimiters than the header; the empty fields after them were left out"
        )
    if ragged:
        _check_ragged(ragged, count, width, name, 0.0 if every_row else RAGGED_SHARE_MAX)
        table.dropped["another number of fields than the header"] += len(ragged)
        lines = ", ".join(str(line) for line, _ in ragged[:LINES_NAMED])
        table.notes.append(
            f"{name}: {counted(len(ragged), 'row')} left out for another number of fields (line {lines})"
        )
    if table.dropped["the header, repeated"]:
        table.notes.append(
            f"{name}: {counted(table.dropped['the header, repeated'], 'repetition')} of the header left out"
        )
    return table


def _check_ragged(ragged: list[tuple[int, int]], count: int, width: int, name: str, share_max: float) -> None:
    if len(ragged) > share_max * count:
        line, fields = ragged[0]
        would = f"; up to {share_max:.0%} of such rows would be left out" if share_max else ""
        raise DataError(
            f"{name}: {len(ragged)} of {count} rows do not have the {width} fields of the header (line {line} has "
            f"{fields}){would}"
        )


def _header(rows: Any, notes: list[str], name: str) -> tuple[list[str], list[tuple[list[str], int]]]:
    """Return the header's cells, and rows below it that were read already.

    Lines above it are blank, begin with #, or are a title: one cell only, where the rows below have several.
    """
    ahead = []
    for row in rows:
        ahead.append((row, rows.line_num))
        if len(ahead) >= 100:
            break
    filled = [sum(1 for cell in row if cell.strip()) for row, _ in ahead]
    counts = Counter(count for count in filled if count).most_common(1)
    usual = counts[0][0] if counts else 0
    fields = Counter(len(row) for row, _ in ahead).most_common(1)[0][0] if ahead else 0
    above = 0
    for (row, _), cells in zip(ahead, filled, strict=True):
        is_comment = bool(row) and row[0].lstrip().startswith("#") and len(row) != fields
        if cells and not is_comment and not (cells == 1 and usual > 1):
            break
        above += 1
    if above >= len(ahead):
        raise DataError(f"{name} is empty: a header line and rows are needed")
    titles = sum(1 for cells in filled[:above] if cells)
    if titles:
        notes.append(f"{name}: {counted(titles, 'line')} above the header (line {ahead[above][1]}) left out")
    header = [cell.strip() for cell in ahead[above][0]]
    return header, ahead[above + 1 :]


def _numbered(ahead: list[tuple[list[str], int]], rows: Any) -> Iterator[tuple[list[str], int]]:
    yield from ahead
    for row in rows:
        yield row, rows.line_num


def _names(header: Sequence[str], name: str) -> list[str]:
    """Return the columns' names: a column without one is named by its position."""
    if len(header) > COLUMNS_MAX:
        raise DataError(f"{name} has {len(header):,} columns; at most {COLUMNS_MAX:,} can be trained on")
    names = [cell or f"column {position}" for position, cell in enumerate(header, 1)]
    twice = [position for position, column in enumerate(names, 1) if column in names[: position - 1]]
    if twice:
        raise DataError(f"{name} has two columns of the same name (column {twice[0]} repeats an earlier one)")
    return names


# --- JSON lines --------------------------------------------------------------------------------------------------


def _read_json_lines(text: TextIO, name: str) -> Table:
    """Return the table in which each line is a JSON object; a key that a line does not have is a missing value."""
    columns: dict[str, list[pa.Array]] = {}
    rows: list[dict[str, Any]] = []
    lengths: list[int] = []
    lines: list[int] = []
    for number, line in enumerate(_bounded(text, name), 1):
        if not line.strip():
            continue
        rows.append(_json_row(line, f"{name}, line {number}"))
        lines.append(number)
        if len(rows) * max(len(columns), 1) >= CELLS_PER_CHUNK or len(rows) >= CELLS_PER_CHUNK // 10:
            _add_chunk(columns, rows, lengths, name)
            rows = []
    if rows:
        _add_chunk(columns, rows, lengths, name)
    cells = [_united(chunks) for chunks in columns.values()]
    return Table(list(columns), cells, np.array(lines, dtype=np.int64), has_all_columns=False)


def _bounded(text: TextIO, name: str) -> Iterator[str]:
    while line := text.readline(16 * CELL_CHARACTERS_MAX):
        if not line.endswith("\n") and len(line) == 16 * CELL_CHARACTERS_MAX:
            raise DataError(f"{name} has a line of more than {len(line):,} characters: write one object per line")
        yield line


def _json_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not JSON; each line must be one object") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: is not a JSON object; each line must be one object")
    for position, value in enumerate(row.values(), 1):
        if isinstance(value, dict | list):
            raise DataError(f"{where}: value {position} is nested; values must be numbers, texts or booleans")
        if isinstance(value, str) and len(value) > CELL_CHARACTERS_MAX:
            raise DataError(f"{where}: value {position} has more than {CELL_CHARACTERS_MAX:,} characters")
    return {key.strip(): value for key, value in row.items()}


def _add_chunk(
    columns: dict[str, list[pa.Array]], rows: list[dict[str, Any]], lengths: list[int], name: str
) -> None:
    done = sum(lengths)
    for row in rows:
        for key in row:
            if key not in columns:
                columns[key] = [pa.nulls(done, pa.string())]
    if len(columns) > COLUMNS_MAX:
        raise DataError(f"{name} has {len(columns):,} columns; at most {COLUMNS_MAX:,} can be trained on")
    for key, chunks in columns.items():
        chunks.append(column_of([row.get(key) for row in rows]))
    lengths.append(len(rows))
    if sum(chunks[-1].nbytes for chunks in columns.values()) / len(rows) * sum(lengths) > table_bytes_max():
        raise DataError(f"{name} has too many rows for {len(columns):,} keys: the instance has not the memory")


def column_of(values: Iterable[Any]) -> pa.Array:
    """Return cells as doubles if all that are there are numbers, else as strings."""
    values = list(values)
    present = [value for value in values if value is not None]
    if present and all(_is_number(value) for value in present):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([NATIVE + str(as_text(v)) if _is_number(v) else as_text(v) for v in values], pa.string())


def _is_number(value: Any) -> bool:
    """Tell whether a value is a number, and not one of so many digits that it is an identifier."""
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53
    )


def as_text(value: Any) -> str | None:
    """Return a value as it is written in a CSV file."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return str(value).encode("utf-8", "replace").decode("utf-8").strip() or None


def _united(chunks: list[pa.Array]) -> pa.ChunkedArray:
    """Return one column of chunks; strings if any chunk has strings."""
    if any(pa.types.is_string(chunk.type) and chunk.null_count < len(chunk) for chunk in chunks):
        chunks = [text_of(chunk) for chunk in chunks]
        return pa.chunked_array(chunks, pa.string())
    if all(pa.types.is_string(chunk.type) for chunk in chunks):
        return pa.chunked_array(chunks, pa.string())
    return pa.chunked_array([chunk.cast(pa.float64()) for chunk in chunks], pa.float64())


def text_of(chunk: pa.Array) -> pa.Array:
    """Return numbers as texts that say they are numbers."""
    if pa.types.is_string(chunk.type):
        return chunk
    texts = map(as_text, chunk.to_pylist())
    return pa.array([None if text is None else NATIVE + text for text in texts], pa.string())


def rows_of_request(body: str, columns: Collection[str]) -> Table:
    """Return the rows of a request; raises DataError for a body without rows."""
    table = read_text(io.StringIO(body, newline=""), "the request", columns, every_row=True)
    if len(table) == 0:
        raise DataError("the request has no rows below its header line")
    return table
