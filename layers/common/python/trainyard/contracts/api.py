"""What the HTTP API takes and answers, and its cursors."""

import json
from datetime import date
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from trainyard.application.billing.reports import CostReport, CostRow
from trainyard.contracts.base64url import decoded, encoded
from trainyard.domain.errors import Malformed
from trainyard.domain.names import DATA_SET
from trainyard.domain.principals import Role
from trainyard.persistence.store import Cursor as StoredCursor

CURSOR_LENGTH_MAX = 1000

Limit = Annotated[int, Field(ge=1, le=100, description="How many items a page has at most")]
Cursor = Annotated[
    str,
    StringConstraints(min_length=1, max_length=CURSOR_LENGTH_MAX),
    Field(description="`next` of the last page"),
]
DataSet = Annotated[str, StringConstraints(pattern=f"^{DATA_SET.pattern}$")]
Month = Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$"), Field(description="2026-11")]


def _existing_day(text: str) -> str:
    date.fromisoformat(text)  # raises ValueError
    return text


Day = Annotated[
    str,
    StringConstraints(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"),
    AfterValidator(_existing_day),
    Field(description="2026-11-29, UTC"),
]
Tier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
Receipt = Annotated[dict[str, Any], WithJsonSchema({"allOf": [{"$ref": "#/components/schemas/Receipt"}]})]
"""A request as its tenant may see it (docs/receipt.schema.json)."""


class Me(BaseModel):
    """Who calls."""

    model_config = ConfigDict(frozen=True)

    subject: str
    role: Role
    tenant_id: str | None


class CostsRow(BaseModel):
    """What one data set cost in a month, or all of them together; amounts are decimal numbers, in USD."""

    model_config = ConfigDict(frozen=True)

    data_set: str | None
    """None for all of them."""
    runs: Annotated[int, Field(description="Trainings and batch transforms that ended")]
    succeeded: int
    failed: int
    stopped: int
    usd: Annotated[str, Field(description="Of the runs, at list prices")]
    unknown_steps: Annotated[int, Field(description="Steps of which the cost is not known, and not in `usd`")]
    calls: Annotated[int, Field(description="Predictions that were asked for")]
    inference_usd: Annotated[str, Field(description="Of the predictions; not in `usd`")]


class Costs(BaseModel):
    """What a tenant cost in a month."""

    model_config = ConfigDict(frozen=True)

    month: str
    items: list[CostsRow]
    total: CostsRow


def costs_of(month: str, report: CostReport) -> Costs:
    """Return a report by data set as it is answered."""
    rows = [_costs_row(row, row.name.partition("/")[2]) for row in report.rows]
    return Costs(month=month, items=rows, total=_costs_row(report.total, None))


def _costs_row(row: CostRow, data_set: str | None) -> CostsRow:
    return CostsRow(
        data_set=data_set,
        runs=row.executions,
        succeeded=row.succeeded,
        failed=row.failed,
        stopped=row.stopped,
        usd=f"{row.usd:f}",
        unknown_steps=row.unknown,
        calls=row.calls,
        inference_usd=f"{row.inference_usd:f}",
    )


_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_OF_GATEWAY: dict[str, Any] = {"type": "object", "properties": {"message": {"type": "string"}}}


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/problem+json": {"schema": _PROBLEM}}}


ERRORS: dict[int, Any] = {
    400: _problem("A parameter or a value in the body is wrong; `detail` names it"),
    401: {"description": "There is no valid token", "content": {"application/json": {"schema": _OF_GATEWAY}}},
    403: _problem("The token names no group or no tenant"),
    404: _problem("There is no such thing, or it is not the caller's"),
    429: _problem("The caller has called too often; `Retry-After` says when to try again"),
    500: _problem("A fault of the service"),
    503: _problem("Try again later"),
}
"""Status → what it means; of every route."""

FURTHER: dict[int, Any] = {
    304: {"description": "It is still what `If-None-Match` names"},
    409: _problem("It cannot be done as things are; `detail` says why"),
    413: _problem("The body is too large"),
    415: _problem("The body is not JSON"),
    422: _problem("The idempotency key was already used for a different call"),
}
"""Status → what it means; of some routes."""


def answers(model: Any, *also: int) -> dict[int, Any]:
    """Return what a GET answers: a model or an error, `also` with some of the statuses in FURTHER."""
    return {**_success(200, model), **_further(304, *also), **ERRORS}


def results(model: Any, *also: int, status: int = 200) -> dict[int, Any]:
    """Return what a POST answers: as `answers`, or nothing where there is no model."""
    success = {204: {"description": "Done"}} if model is None else _success(status, model)
    return {**success, **_further(409, 413, 415, *also), **ERRORS}


def _success(status: int, model: Any) -> dict[int, Any]:
    return {status: {"description": "OK", "content": {"application/json": {"model": model}}}}


def _further(*statuses: int) -> dict[int, Any]:
    return {status: FURTHER[status] for status in statuses}


_Name = Annotated[str, StringConstraints(min_length=1, max_length=40)]
_Value = Annotated[str, StringConstraints(min_length=1, max_length=300)]
_CURSOR: TypeAdapter[dict[str, str]] = TypeAdapter(
    Annotated[dict[_Name, _Value], Field(min_length=1, max_length=4)]
)


def cursor_text(cursor: StoredCursor | None) -> str | None:
    """Return how a cursor is given to a caller; None for the end of a list."""
    if cursor is None:
        return None
    return encoded(json.dumps(dict(cursor)).encode())


def parse_version_cursor(text: str | None) -> int | None:
    """Return the version before which a page of models begins; raises Malformed for another text."""
    cursor = parse_cursor(text)
    if cursor is None:
        return None
    version = str(cursor.get("version", ""))
    if set(cursor) != {"version"} or not (version.isascii() and version.isdigit() and len(version) < 10):
        raise Malformed("cursor: it is not one that this list has given")
    return int(version)


def parse_cursor(text: str | None) -> StoredCursor | None:
    """Return the cursor that a caller gives back; raises Malformed for a text that is none."""
    if text is None:
        return None
    try:
        return _CURSOR.validate_json(decoded(text))
    except (ValidationError, Malformed) as error:
        raise Malformed("cursor: it is not one that this API has given") from error
