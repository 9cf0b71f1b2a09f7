"""Retraining settings of a data set, as they are given: {"interval_minutes": 60, "files": 10}."""

from dataclasses import asdict
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from trainyard.domain.errors import Refused
from trainyard.domain.retraining import NO_RULES, BatchEnd, OnDrift, RetrainingSettings, parse_between

_WEEK = 7 * 24 * 60
CRITICAL_MAX = 8
CRITICAL_LENGTH_MAX = 150
"""Characters of all names: an argument of a processing job has 256 at most."""
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f|]+$")]
Minutes = Annotated[int, Field(ge=1, le=_WEEK)]


def _split(names: Any) -> Any:
    """Return the names in a text such as "age|income"."""
    return tuple(names.split("|")) if isinstance(names, str) else names


class RetrainingValues(BaseModel):
    """When a data set trains; what is not given has no rule, or that of the service. Replaces all rules before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: Annotated[int | None, Field(ge=1, le=10_000, description="Uploads that are enough for a training")] = (
        None
    )
    megabytes: Annotated[int | None, Field(ge=1, le=1_000_000, description="Uploaded data that is enough")] = None
    rows: Annotated[int | None, Field(ge=1, le=10**12, description="Uploaded rows that are enough")] = None
    closed_by: Annotated[
        BatchEnd | None, Field(description="The object that ends a batch: `_SUCCESS` or `_manifest.json`")
    ] = None
    quiet_minutes: Annotated[
        int | None, Field(ge=0, le=_WEEK, description="How long no upload must come before a training starts")
    ] = None
    delay_max_minutes: Annotated[
        Minutes | None, Field(description="How long a training waits for further uploads at most")
    ] = None
    interval_minutes: Annotated[
        Minutes | None, Field(description="At least so long from one start to the next")
    ] = None
    between: Annotated[
        str | None,
        Field(max_length=64, description="When trainings may start: `22:00-06:00 Europe/Zurich`"),
    ] = None
    on_schema_change: Annotated[
        OnDrift | None, Field(description="When columns are missing or of another kind; default: refuse")
    ] = None
    on_shift: Annotated[OnDrift | None, Field(description="When the data has moved far; default: train")] = None
    shift_percent: Annotated[
        int | None, Field(ge=1, le=100, description="Of the columns that must have moved for that; default: 30")
    ] = None
    critical: Annotated[
        Annotated[tuple[ColumnName, ...], Field(max_length=CRITICAL_MAX)] | None,
        BeforeValidator(_split),
        Field(description="Columns of which one is enough"),
    ] = None
    age_max_days: Annotated[
        int | None, Field(ge=1, le=3650, description="Train again when the newest model is as old")
    ] = None
    retry_hours: Annotated[
        int | None,
        Field(ge=1, le=24 * 7, description="Train again so long after a failure that was not of the data"),
    ] = None

    failed_calls_percent: Annotated[
        int | None, Field(ge=1, le=99, description="Train again when the live version fails more of its calls")
    ] = None

    captured_drift: Annotated[
        bool | None,
        Field(description="Train again when inputs below `captured/` have moved far from what was trained on"),
    ] = None

    warm_start: Annotated[
        bool | None, Field(description="Begin with what the live model has learnt, where the estimator can")
    ] = None

    @field_validator("between")
    @classmethod
    def _is_time_of_day(cls, between: str | None) -> str | None:
        if between:
            try:
                parse_between(between)
            except Refused as refusal:
                raise ValueError(str(refusal)) from None
        return between

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len("|".join(self.critical or ())) > CRITICAL_LENGTH_MAX:
            raise ValueError(f"critical: the names have more than {CRITICAL_LENGTH_MAX} characters in all")
        quiet, delay = self.quiet_minutes, self.delay_max_minutes
        if quiet is not None and delay is not None and quiet > delay:
            raise ValueError(
                f"quiet_minutes is {quiet}, which is more than delay_max_minutes ({delay}): a training never "
                "waits for so long"
            )
        return self

    def to_settings(self) -> RetrainingSettings:
        return RetrainingSettings(**self.model_dump(exclude_none=True))


def retraining_view(settings: RetrainingSettings) -> dict[str, Any]:
    """Return the rules that are set, as they are given."""
    none = asdict(NO_RULES)
    return {name: value for name, value in asdict(settings).items() if value != none[name]}
