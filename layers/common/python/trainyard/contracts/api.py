"""What the HTTP API reads: the parameters of its lists, and its cursors."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from trainyard.contracts.events import explain
from trainyard.domain.errors import Malformed
from trainyard.domain.names import DATA_SET
from trainyard.domain.requests import State
from trainyard.persistence.store import Cursor

CURSOR_LENGTH_MAX = 1000


class RequestsQuery(BaseModel):
    """Which requests of a tenant are listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[str, StringConstraints(max_length=CURSOR_LENGTH_MAX)] | None = None
    state: State | None = None
    data_set: Annotated[str, StringConstraints(pattern=f"^{DATA_SET.pattern}$")] | None = None


_Name = Annotated[str, StringConstraints(min_length=1, max_length=40)]
_Value = Annotated[str, StringConstraints(min_length=1, max_length=300)]
_CURSOR: TypeAdapter[dict[str, str]] = TypeAdapter(
    Annotated[dict[_Name, _Value], Field(min_length=1, max_length=4)]
)


def parse_requests_query(parameters: Mapping[str, Any] | None) -> RequestsQuery:
    """Return the parameters of a list of requests; raises Malformed, naming what is wrong."""
    try:
        return RequestsQuery.model_validate(dict(parameters or {}))
    except ValidationError as error:
        raise Malformed(explain(error)) from error


def cursor_text(cursor: Cursor | None) -> str | None:
    """Return how a cursor is given to a caller; None for the end of a list."""
    if cursor is None:
        return None
    return base64.urlsafe_b64encode(json.dumps(dict(cursor)).encode()).decode().rstrip("=")


def parse_cursor(text: str | None) -> Cursor | None:
    """Return the cursor that a caller gives back; raises Malformed for a text that is none."""
    if text is None:
        return None
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return _CURSOR.validate_json(decoded)
    except (binascii.Error, ValueError) as error:
        raise Malformed("cursor: it is not one that this API has given") from error
