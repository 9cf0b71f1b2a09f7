"""Events about which version of a model answers."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AwareDatetime

from trainyard.contracts.events import Event
from trainyard.domain.alias_events import AliasChange

DETAIL_TYPES: Mapping[str, str] = {
    AliasChange.IN_TEST.value: "Model In Test",
    AliasChange.CANARY_STARTED.value: "Model Canary Started",
    AliasChange.DEPLOYED.value: "Model Deployed",
    AliasChange.ROLLED_BACK.value: "Model Rolled Back",
    AliasChange.NOT_DEPLOYED.value: "Model Not Deployed",
    AliasChange.STOPPED.value: "Model Stopped",
}


class ModelEvent(Event):
    """Published at least once for each change of what answers calls for a data set.

    Two events with the same type, tenant, data set, version and time are one.
    """

    schema_version: Literal[1] = 1
    tenant_id: str
    data_set: str
    version: int
    """Of the model, to which this happened; its number in the model registry."""
    live: int | None = None
    """The version that answers in production after that; None where none does."""
    reason: str | None = None
    """Why it was given up; None where an operator decided so. It may quote what a model said."""
    at: AwareDatetime
    """When the change was made; events come late, and out of order."""


def model_event(values: Mapping[str, Any]) -> str:
    """Return the detail of an event about a version, as JSON."""
    return ModelEvent.model_validate(dict(values)).model_dump_json(exclude_none=True)
