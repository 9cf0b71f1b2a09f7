"""Captured inputs as they are stored: JSON lines, of rows or as SageMaker's data capture writes them.

    {"age": 41, "plan": "basic"}
    {"captureData": {"endpointInput": {"observedContentType": "text/csv", "encoding": "CSV", "data": "age,…"}}}

Sources: developer guide, "Capture data from real-time endpoint" (format of captured files).
"""

import base64
import binascii
import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainyard.contracts.drift import (
    BINS_MAX,
    COLUMNS_MAX,
    ColumnName,
    DriftReport,
    Rows,
)
from trainyard.contracts.drift import (
    Distribution as DistributionReport,
)
from trainyard.contracts.drift import (
    MovedColumn as MovedColumnReport,
)
from trainyard.contracts.events import explain
from trainyard.domain.captured import CapturedDrift, Distribution, Statistics
from trainyard.domain.errors import Malformed

ROWS_MAX = 50_000
"""Rows that are compared; enough for the index of any column."""
CELLS_MAX = 1_000_000
"""Cells of rows that are looked at, and of columns that are compared."""
COLUMNS_OF_ROW_MAX, ADDED_MAX = 2000, 100
INDEX_MAX = 1e6


class _Described(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: ColumnName
    kind: Literal["number", "category"]
    counts: Annotated[list[Rows], Field(min_length=1, max_length=BINS_MAX)]
    missing: Rows
    edges: Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=BINS_MAX)] = []
    categories: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=BINS_MAX)] = []
    others: Annotated[list[int], Field(max_length=1000)] = []
    singles: Rows = 0

    @model_validator(mode="after")
    def _has_its_bins(self) -> Self:
        bins = len(self.edges) + 1 if self.kind == "number" else len(self.categories) + 2
        if len(self.counts) != bins or self.edges != sorted(self.edges):
            raise ValueError(f"{self.name}: its counts are not those of its bins")
        return self


class _Statistics(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    version: Literal[1]
    rows: Rows
    columns: Annotated[list[_Described], Field(max_length=COLUMNS_MAX)]
    kinds: Annotated[dict[ColumnName, Literal["number", "category", "date"]], Field(max_length=COLUMNS_MAX)]


def parse_statistics(body: bytes) -> Statistics:
    """Return what a training has left of its data; raises Malformed, naming what is wrong."""
    try:
        values = _Statistics.model_validate_json(body)
    except ValidationError as error:
        raise Malformed(explain(error)) from error
    columns = [
        Distribution(
            name=each.name,
            kind=each.kind,
            counts=tuple(each.counts),
            missing=each.missing,
            edges=tuple(each.edges),
            categories=tuple(each.categories),
            others=frozenset(each.others),
            singles=each.singles,
        )
        for each in values.columns
    ]
    return Statistics(rows=values.rows, columns=tuple(columns), kinds=values.kinds)


@dataclass(slots=True)
class CapturedRows:
    """Rows that were read, and how many lines could not be.

    Of each row only the columns that are compared; and no more rows, and cells in them, than a function can
    compare within seconds, whatever the lines are.
    """

    columns: frozenset[str]
    """That are compared."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    unreadable: int = 0
    added: set[str] = field(default_factory=set)
    """Further columns of the rows; of many some."""
    cells: int = 0
    """That were looked at."""

    @property
    def is_full(self) -> bool:
        rows_max = min(ROWS_MAX, CELLS_MAX // max(len(self.columns), 1))
        return len(self.rows) >= rows_max or self.cells >= CELLS_MAX

    def add(self, lines: Iterable[bytes]) -> None:
        """Read lines until there are enough rows."""
        for line in lines:
            if self.is_full:
                return
            if not line.strip():
                continue
            begun = len(self.rows)
            try:
                for row in _rows_of(line):
                    self._add(row)
                    if self.is_full:
                        return
            except (ValueError, RecursionError, csv.Error):
                del self.rows[begun:]
                self.unreadable += 1

    def _add(self, row: dict[str, Any]) -> None:
        self.cells += len(row) + 1
        self.rows.append({name: row[name] for name in self.columns & row.keys()})
        if len(self.added) < ADDED_MAX:
            self.added |= set(islice((name for name in row if name not in self.columns), ADDED_MAX))


def _rows_of(line: bytes) -> Iterator[dict[str, Any]]:
    """Yield the rows of a line; raises ValueError for one that has none."""
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    if "captureData" not in value:
        yield _row(value)
        return
    captured = value["captureData"].get("endpointInput") if isinstance(value["captureData"], dict) else None
    if not isinstance(captured, dict) or not isinstance(captured.get("data"), str):
        raise ValueError("it has no input")
    text = captured["data"]
    if captured.get("encoding") == "BASE64":
        try:
            text = base64.b64decode(text, validate=True).decode()
        except binascii.Error as error:
            raise ValueError("its input is not BASE64") from error
    kind = str(captured.get("observedContentType", "")).partition(";")[0].strip()
    if kind == "text/csv":
        header = text.partition("\n")[0]
        delimiter = max(",;\t", key=header.count)
        yield from (_row(row) for row in csv.DictReader(io.StringIO(text), delimiter=delimiter))
    elif kind in ("application/jsonlines", "application/json"):
        parts = text.splitlines() if kind == "application/jsonlines" else [text]
        for part in (each for each in parts if each.strip()):
            content = json.loads(part)
            yield from (_row(each) for each in (content if isinstance(content, list) else [content]))
    else:
        raise ValueError(f"its input is {kind!r}")


def _row(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > COLUMNS_OF_ROW_MAX or None in value:
        raise ValueError("it is no row")
    return value


def report_on(drift: CapturedDrift) -> DriftReport:
    """Return it as a report on drift, which has no column that is predicted."""
    return DriftReport(
        version=1,
        rows_before=drift.rows_before,
        rows=drift.rows,
        absent=list(drift.absent)[:COLUMNS_MAX],
        changed=[f"{name!r} was a number, and is written in another way" for name in drift.unlike],
        added=[name for name in drift.added if 0 < len(name) <= 1000][:COLUMNS_MAX],
        emptied=[],
        swapped=[],
        columns=[
            MovedColumnReport(
                name=each.name,
                kind="number" if each.before.kind == "number" else "category",
                index=min(each.index, INDEX_MAX),
                band="shifted" if each.band == "shifted" else "moderate" if each.band == "moderate" else "stable",
                before=DistributionReport(counts=list(each.before.counts), missing=each.before.missing),
                now=DistributionReport(counts=list(each.now.counts), missing=each.now.missing),
            )
            for each in drift.columns
        ],
        target=None,
    )
