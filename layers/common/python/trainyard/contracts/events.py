"""What all events have in common, as EventBridge delivers them.

Each source has its models in a module of its own, since building them takes time: `arrivals`,
`statuses`, `jobs`, `money`.
"""

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from trainyard.contracts.violations import reason_of


class Event(BaseModel):
    """The base of all event models; built when first used."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True, defer_build=True)


class Envelope(Event):
    id: str = Field(min_length=1, max_length=128)
    account: str = Field(pattern=r"^[0-9]{12}$")
    time: AwareDatetime


def explain(error: ValidationError) -> str:
    """Return what is wrong in one line, without the values, which may contain tenants' data."""
    violations: list[Any] = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, v['loc'])) or 'event'}: {reason_of(v)}" for v in violations[:5])
