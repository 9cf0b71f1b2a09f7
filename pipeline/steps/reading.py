"""Read a data set: all its files, whatever each is, as one table of text and numbers."""

import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common import DataError, counted, table_bytes_max
from formats import content
from schema import WHOLE_MAX
from tables import COLUMNS_MAX, Table, as_text, read_text, text_of, trimmed

MARKER_NAMES = ("_", ".")
"""How the names of files begin that tools write beside data: _SUCCESS, .part-0.csv.crc."""

DOCUMENTS = ("readme", "license", "licence", "changelog")
"""How the names of documents begin that lie beside data."""

NAME_MAX = 500
"""Characters of a column's name: names stand in notes, reports and answers."""

NOTES_MAX = 20
"""Of one kind of trouble in many files a few examples are enough."""


class Places:
    """Where rows of the united table stood: the file and the line of each."""

    def __init__(self, names: list[str], lengths: list[int], lines: np.ndarray) -> None:
        self._names = names
        self._ends = np.cumsum(lengths)
        self._lines = lines

    def where(self, position: int) -> str:
        """Return the place of a row, as a person finds it."""
        name = self._names[int(np.searchsorted(self._ends, position, side="right"))]
        line = f"line {self._lines[position]}"
        return line if len(self._names) == 1 else f"{name}, {line}"


def read_all(files: list[Path], target: str) -> tuple[Table, Places]:
    """Return one table of all files with a header, and where its rows stood; raises DataError, naming the file."""
    data, skipped = _data_files(files)
    if not data:
        raise DataError("there is no data: no object with rows was found at the location")
    parts: list[tuple[str, Table]] = []
    budget = table_bytes_max()  # of what is unpacked: the instance was chosen by the compressed size
    with tempfile.TemporaryDirectory() as folder:
        for path in data:
            parts.append((path.name, read_file(path, Path(folder), (target,), budget)))
            budget = max(budget - sum(cells.nbytes for cells in parts[-1][1].cells), 0)
    empty = [name for name, table in parts if len(table) == 0]
    notes = []
    if skipped:
        notes.append(f"{counted(len(skipped), 'file')} without data left out ({', '.join(skipped[:3])})")
    if empty and len(empty) < len(parts):
        notes.append(f"{counted(len(empty), 'file')} with a header and no rows left out ({', '.join(empty[:3])})")
        parts = [(name, table) for name, table in parts if len(table)]
    table = _united(parts)
    longest = max(map(len, table.columns), default=0)
    if longest > NAME_MAX:
        raise DataError(f"the name of a column has {longest:,} characters, and may have {NAME_MAX}")
    table.notes = [*notes, *table.notes]
    return table, Places([name for name, _ in parts], [len(part) for _, part in parts], table.lines)


def _data_files(files: list[Path]) -> tuple[list[Path], list[str]]:
    """Return the files that should hold rows, and the names of the others."""

    def is_data(path: Path) -> bool:
        name = path.name.lower()
        is_document = name.startswith(DOCUMENTS) and path.suffix.lower() in ("", ".md", ".txt", ".rst")
        return (
            not is_document
            and not name.startswith(MARKER_NAMES)
            and not name.endswith(".crc")
            and path.stat().st_size > 0
        )

    data = [path for path in files if is_data(path)]
    if not data:  # whatever its name is, if it is all there is
        data = [path for path in files if path.stat().st_size > 0]
    return data, [path.name for path in files if path not in data]


def read_file(path: Path, folder: Path, expected: Collection[str], budget: int) -> Table:
    """Return the table of one file; what it is unpacked to, in the folder, may have `budget` bytes."""
    with content(path, folder, budget) as held:
        if held.is_parquet:
            table = _read_parquet(held.path, path.name, budget)
        else:
            with held.path.open(encoding=held.encoding, newline="") as text:
                table = read_text(text, path.name, expected)
        table.notes = [*held.notes, *table.notes]
        return table


def _read_parquet(path: Path, name: str, budget: int) -> Table:
    try:
        with pq.ParquetFile(path) as file:
            fields = list(file.schema_arrow)
            if len(fields) > COLUMNS_MAX:
                raise DataError(f"{name} has {len(fields):,} columns; at most {COLUMNS_MAX:,} can be trained on")
            nested = [field.name for field in fields if pa.types.is_nested(field.type)]
            if nested:
                raise DataError(
                    f"{name}: {len(nested)} columns hold lists or structures: write plain numbers, texts or dates"
                )
            chunks: list[list[pa.Array]] = [[] for _ in fields]
            rows = size = 0
            for batch in file.iter_batches(batch_size=1 << 16):
                rows += len(batch)
                for column, cells in zip(chunks, batch.columns, strict=True):
                    cells.validate(full=True)
                    column.append(_plain(cells))
                    size += column[-1].nbytes
                if size > budget:
                    raise DataError(
                        f"{name} unpacks to more than {budget:,} bytes, for which the instance has no memory"
                    )
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(
            f"{name} is a broken Parquet file, or one that cannot be read here: write it again"
        ) from error
    names = [field.name.strip() for field in fields]
    if len(set(names)) < len(names):
        raise DataError(f"{name} has two columns of the same name")
    cells = [_one_type(column) for column in chunks]
    return Table(names, cells, np.arange(1, rows + 1, dtype=np.int64))


def _plain(cells: pa.Array) -> pa.Array:
    """Return cells of Parquet as doubles or strings."""
    kind = cells.type
    if pa.types.is_dictionary(kind):
        return _plain(cells.dictionary_decode())
    if pa.types.is_integer(kind) and len(cells) and _largest(cells) > WHOLE_MAX:
        return cells.cast(pa.string())
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return cells.cast(pa.float64(), safe=False)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return trimmed(cells.cast(pa.string()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return trimmed(cells.cast(pa.string()))
    return pa.array([as_text(value) for value in cells.to_pylist()], pa.string())


def _largest(cells: pa.Array) -> int:
    bounds = pc.min_max(cells).as_py()
    return max(abs(bounds["min"] or 0), abs(bounds["max"] or 0))


def _united(parts: list[tuple[str, Table]]) -> Table:
    """Return one table of several, with the first one's order of columns; raises DataError when they differ."""
    names = [column for _, part in parts for column in part.columns]
    for _, part in parts:
        part.add_missing(dict.fromkeys(names))
    first_name, first = parts[0]
    reordered = []
    for name, part in parts[1:]:
        if part.columns != first.columns:
            ours, others = set(part.columns), set(first.columns)
            if ours != others:
                raise DataError(
                    f"{name} differs in its columns from {first_name}: {len(others - ours)} are missing and "
                    f"{len(ours - others)} are extra"
                )
            reordered.append(name)
    notes = [note for _, part in parts for note in part.notes][:NOTES_MAX]
    if reordered:
        notes.append(
            f"{counted(len(reordered), 'file')} with the columns in another order ({', '.join(reordered[:3])})"
        )
    cells = []
    for column in first.columns:
        pieces = [part.cells[part.columns.index(column)] for _, part in parts]
        cells.append(_one_type([chunk for piece in pieces for chunk in piece.chunks]))
    dropped: Counter[str] = sum((part.dropped for _, part in parts), Counter())
    lines = np.concatenate([part.lines for _, part in parts])
    return Table(first.columns, cells, lines, notes, dropped, first.delimiter)


def _one_type(chunks: list[pa.Array]) -> pa.ChunkedArray:
    if len({str(chunk.type) for chunk in chunks}) < 2:
        return pa.chunked_array(chunks, chunks[0].type if chunks else pa.string())
    return pa.chunked_array([text_of(chunk) for chunk in chunks], pa.string())
