"""Events about deadlines."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AwareDatetime

from trainyard.contracts.events import Event


class DeadlineEvent(Event):
    """Published once when the deadline of a waiting request is at risk, and once when it will be missed."""

    schema_version: Literal[1] = 1
    request_id: str
    tenant_id: str
    tier: str
    data_set: str
    deadline: AwareDatetime
    expected_start: AwareDatetime | None = None
    """With runtimes that three of four runs do not exceed; None if it does not start with them."""
    reason: str
    """Why the request waits."""
    would_help: str
    """What would let it start earlier."""


def deadline_event(values: Mapping[str, Any]) -> str:
    """Return the detail of an event about a deadline, as JSON."""
    return DeadlineEvent.model_validate(dict(values)).model_dump_json(exclude_none=True)
