"""The report on how a data set has moved since its last training, which a run's script writes (`drift.json`)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from trainyard.contracts.events import explain
from trainyard.domain.errors import Malformed

COLUMNS_MAX = 2000
BINS_MAX = 64

ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Names = Annotated[list[ColumnName], Field(max_length=COLUMNS_MAX)]
Rows = Annotated[int, Field(ge=0, le=10**12)]
Text = Annotated[str, StringConstraints(max_length=2000)]


class _Report(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Distribution(_Report):
    """Rows of a column by bin; the last one of texts has all others."""

    counts: Annotated[list[Rows], Field(min_length=1, max_length=BINS_MAX)]
    missing: Rows

    @property
    def rows(self) -> int:
        return sum(self.counts) + self.missing


class MovedColumn(_Report):
    name: ColumnName
    kind: Literal["number", "category"]
    index: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    """The population stability index."""
    band: Literal["stable", "moderate", "shifted"]
    before: Distribution
    now: Distribution


class DriftReport(_Report):
    """How a data set has moved from that of the last training."""

    version: Literal[1]
    rows_before: Rows
    rows: Rows
    absent: Names
    changed: Annotated[list[Text], Field(max_length=COLUMNS_MAX)]
    added: Names
    emptied: Names
    swapped: Annotated[
        list[Annotated[list[ColumnName], Field(min_length=2, max_length=2)]], Field(max_length=1000)
    ]
    columns: Annotated[list[MovedColumn], Field(max_length=COLUMNS_MAX)]
    target: MovedColumn | None


class _Statistics(_Report):
    version: Literal[1]
    kinds: Annotated[dict[ColumnName, Literal["number", "category", "date"]], Field(max_length=COLUMNS_MAX)]


def parse_columns(body: bytes) -> tuple[str, ...]:
    """Return the names of the columns in the statistics that a training left; raises Malformed."""
    try:
        return tuple(_Statistics.model_validate_json(body).kinds)
    except ValidationError as error:
        raise Malformed(explain(error)) from error


def parse_drift(body: bytes) -> DriftReport:
    """Return what a report says; raises Malformed, naming what is wrong."""
    try:
        return DriftReport.model_validate_json(body)
    except ValidationError as error:
        raise Malformed(explain(error)) from error
