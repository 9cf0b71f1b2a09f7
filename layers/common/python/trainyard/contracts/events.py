"""What all events have in common, as EventBridge delivers them.

Each source has its models in a module of its own, since building them takes time: `arrivals`,
`statuses`, `jobs`, `money`.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from trainyard.contracts.violations import reason_of


def _no_number(value: Any) -> Any:
    """A number could be seconds or milliseconds."""
    if isinstance(value, int | float):
        raise ValueError("must be a date and time, for example 2026-11-20T08:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    """At the edges of what can be written, a time has no equivalent in UTC."""
    if not 2000 <= moment.year < 2200:
        raise ValueError("must be from 2000 to 2199")
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, BeforeValidator(_no_number), AfterValidator(_in_utc)]
"""A time that somebody else has chosen."""


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
