"""How the data of a training has moved from that of the last one, as the HTTP API answers it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from trainyard.contracts.drift import DriftReport, MovedColumn

COLUMNS_SHOWN_MAX = 100


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class DistributionAnswer(_Answer):
    counts: Annotated[list[int], Field(description="Rows by bin; the last one of texts has all others")]
    missing: int


class ColumnAnswer(_Answer):
    """A column, and how far it has moved."""

    name: str
    kind: str
    index: Annotated[float, Field(description="The population stability index")]
    band: Annotated[str, Field(description="`stable`, `moderate` or `shifted`")]
    before: DistributionAnswer
    now: DistributionAnswer


class DriftReportAnswer(_Answer):
    """How the data of a training has moved from that of the last one."""

    rows_before: int
    rows: int
    absent: Annotated[list[str], Field(description="Columns that are not there any more")]
    changed: Annotated[list[str], Field(description="Columns that are of another kind")]
    added: list[str]
    emptied: Annotated[list[str], Field(description="Columns from which nothing can be learnt any more")]
    swapped: Annotated[list[list[str]], Field(description="Pairs that look as if they had been swapped")]
    columns: Annotated[list[ColumnAnswer], Field(description="Those that have moved farthest come first")]
    target: ColumnAnswer | None
    is_complete: Annotated[bool, Field(description="Whether `columns` are all that were compared")]


class DriftAnswer(_Answer):
    report: Annotated[
        DriftReportAnswer | None,
        Field(description="null where the data was not compared: no training before it left statistics"),
    ]


def drift_of(report: DriftReport) -> DriftAnswer:
    farthest = sorted(report.columns, key=lambda each: -each.index)[:COLUMNS_SHOWN_MAX]
    answer = DriftReportAnswer(
        rows_before=report.rows_before,
        rows=report.rows,
        absent=report.absent[:COLUMNS_SHOWN_MAX],
        changed=report.changed[:COLUMNS_SHOWN_MAX],
        added=report.added[:COLUMNS_SHOWN_MAX],
        emptied=report.emptied[:COLUMNS_SHOWN_MAX],
        swapped=report.swapped[:COLUMNS_SHOWN_MAX],
        columns=[_column_of(each) for each in farthest],
        target=_column_of(report.target) if report.target else None,
        is_complete=len(farthest) == len(report.columns),
    )
    return DriftAnswer(report=answer)


def _column_of(column: MovedColumn) -> ColumnAnswer:
    return ColumnAnswer.model_validate(column.model_dump())
