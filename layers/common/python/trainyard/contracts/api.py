"""What the HTTP API takes and answers, and its cursors."""

import base64
import binascii
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, WithJsonSchema

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
Receipt = Annotated[dict[str, Any], WithJsonSchema({"$ref": "#/components/schemas/Receipt"})]
"""A request as its tenant may see it (docs/receipt.schema.json)."""


class Me(BaseModel):
    """Who calls."""

    model_config = ConfigDict(frozen=True)

    subject: str
    role: Role
    tenant_id: str | None


class RequestList(BaseModel):
    """Some of a tenant's requests."""

    model_config = ConfigDict(frozen=True)

    items: list[Receipt]
    next: Annotated[str | None, Field(description="The cursor of the next page; null at the end")]


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
    400: _problem("A parameter is wrong; `detail` names it"),
    401: {"description": "There is no valid token", "content": {"application/json": {"schema": _OF_GATEWAY}}},
    403: _problem("The token names no group or no tenant"),
    404: _problem("There is no such thing, or it is not the caller's"),
    429: _problem("The caller has called too often; `Retry-After` says when to try again"),
    500: _problem("An error of the service"),
    503: _problem("Try again later"),
}
"""Status → what it means; of every route."""


def answers(model: Any) -> dict[int, Any]:
    """Return what a route answers: a model, or an error."""
    return {200: {"description": "OK", "content": {"application/json": {"model": model}}}, **ERRORS}


_Name = Annotated[str, StringConstraints(min_length=1, max_length=40)]
_Value = Annotated[str, StringConstraints(min_length=1, max_length=300)]
_CURSOR: TypeAdapter[dict[str, str]] = TypeAdapter(
    Annotated[dict[_Name, _Value], Field(min_length=1, max_length=4)]
)


def cursor_text(cursor: StoredCursor | None) -> str | None:
    """Return how a cursor is given to a caller; None for the end of a list."""
    if cursor is None:
        return None
    return base64.urlsafe_b64encode(json.dumps(dict(cursor)).encode()).decode().rstrip("=")


def parse_cursor(text: str | None) -> StoredCursor | None:
    """Return the cursor that a caller gives back; raises Malformed for a text that is none."""
    if text is None:
        return None
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return _CURSOR.validate_json(decoded)
    except (ValidationError, binascii.Error, ValueError) as error:
        raise Malformed("cursor: it is not one that this API has given") from error
