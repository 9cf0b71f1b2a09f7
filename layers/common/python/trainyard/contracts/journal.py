"""Events of the service's own bus as the journal keeps them, and as the HTTP API shows them."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from trainyard.contracts.base64url import decoded, encoded
from trainyard.contracts.events import explain
from trainyard.domain.errors import Malformed
from trainyard.domain.journal import JournalEntry
from trainyard.persistence.journal import JournalPage

SHOWN = (
    "request_id",
    "data_set",
    "kind",
    "attempt",
    "state",
    "superseded_by",
    "version",
    "live",
    "deadline",
    "month",
    "percent",
    "spent_usd",
    "budget_usd",
)
"""Names in a detail that a tenant's users may know. Reasons may quote AWS: they are shown with a request."""

PLACE_LENGTH_MAX = 100
_Text = Annotated[str, StringConstraints(max_length=200)]


class _Detail(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    tenant_id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9](-?[a-z0-9])*$", max_length=24)]
    request_id: _Text | None = None
    data_set: _Text | None = None
    kind: _Text | None = None
    attempt: int | None = None
    state: _Text | None = None
    superseded_by: _Text | None = None
    version: int | None = None
    live: int | None = None
    deadline: _Text | None = None
    month: _Text | None = None
    percent: int | None = None
    spent_usd: _Text | None = None
    budget_usd: _Text | None = None


class _Published(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    time: AwareDatetime
    detail_type: Annotated[str, StringConstraints(min_length=1, max_length=64), Field(alias="detail-type")]
    detail: _Detail


def parse_published(event: dict[str, Any]) -> tuple[str, JournalEntry]:
    """Return whose an event is, and what is kept of it; raises Malformed."""
    try:
        published = _Published.model_validate(event)
    except ValidationError as error:
        raise Malformed(explain(error)) from error
    values = {name: value for name in SHOWN if (value := getattr(published.detail, name)) is not None}
    entry = JournalEntry(event_id=published.id, at=published.time, kind=published.detail_type, values=values)
    return published.detail.tenant_id, entry


class EventAnswer(BaseModel):
    """Something that has happened; what does not apply is not in its `detail`."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, Field(description="The same where an event comes twice")]
    at: datetime
    type: Annotated[str, Field(description="`Training Request Failed`, … (docs/events.md)")]
    detail: dict[str, str | int]


class EventList(BaseModel):
    """Events in the order in which they were kept."""

    model_config = ConfigDict(frozen=True)

    items: list[EventAnswer]
    next: Annotated[
        str | None, Field(description="The cursor to ask with again, now or later; null before any event")
    ]


def events_of(page: JournalPage) -> EventList:
    return EventList(
        items=[
            EventAnswer(
                id=entry.event_id,
                at=entry.at,
                type=entry.kind,
                detail={name: value for name, value in entry.values.items() if value is not None},
            )
            for entry in page.entries
        ],
        next=encoded(page.following.encode()) if page.following else None,
    )


def parse_place(text: str | None) -> str:
    """Return the place in a journal that a cursor names; raises Malformed for a text that is none."""
    if text is None:
        return ""
    try:
        place = decoded(text).decode("ascii")
    except (UnicodeDecodeError, Malformed) as error:
        raise Malformed("cursor: it is not one that this list has given") from error
    time, _, event_id = place.partition("#")
    is_place = len(place) <= PLACE_LENGTH_MAX and time.isdigit() and len(time) == 13 and event_id.isprintable()
    if not is_place or not event_id:
        raise Malformed("cursor: it is not one that this list has given")
    return place
