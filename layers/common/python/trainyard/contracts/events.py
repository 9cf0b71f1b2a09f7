"""What all events have in common, as EventBridge delivers them.

The models of a source stand in a module of their own, since each takes its time to build: `arrivals`,
`statuses`, `jobs`, `money`.
"""

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError


class Event(BaseModel):
    """Built when it is first used."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True, defer_build=True)


class Envelope(Event):
    id: str = Field(min_length=1, max_length=128)
    account: str = Field(pattern=r"^[0-9]{12}$")
    time: AwareDatetime


def explain(error: ValidationError) -> str:
    """Return pydantic's findings in one line, without the input, which may be anybody's data."""
    findings: list[Any] = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, f['loc'])) or 'event'}: {f['msg']}" for f in findings[:5])
