"""The journal: what the service has published about a tenant, in the order in which it was kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """An event, without what is the provider's business."""

    event_id: str
    """EventBridge's; the same where an event was delivered twice."""
    at: datetime
    """When it was published."""
    kind: str
    """Its detail type, such as "Training Request Failed"."""
    values: Mapping[str, str | int | None]
    """What it is about."""
