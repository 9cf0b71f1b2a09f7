"""Conversion of retraining settings to and from items of the store."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from trainyard.domain.retraining import NO_RULES, BatchEnd, OnDrift, RetrainingSettings
from trainyard.persistence.store import Item

_OPTIONAL = ("quiet_minutes", "delay_max_minutes")
_NUMBERS = (
    "files",
    "megabytes",
    "rows",
    "interval_minutes",
    "age_max_days",
    "retry_hours",
    "failed_calls_percent",
)


def retraining_item(settings: RetrainingSettings) -> Item:
    """Return what differs from no rules at all."""
    none = asdict(NO_RULES)
    return {name: value for name, value in asdict(settings).items() if value != none[name]}


def retraining_from(values: Mapping[str, Any] | None) -> RetrainingSettings:
    if values is None:
        return NO_RULES
    return RetrainingSettings(
        **{name: int(values.get(name, 0)) for name in _NUMBERS},
        **{name: int(values[name]) for name in _OPTIONAL if name in values},
        closed_by=BatchEnd(values.get("closed_by", "")),
        between=str(values.get("between", "")),
        on_schema_change=OnDrift(values.get("on_schema_change", NO_RULES.on_schema_change)),
        on_shift=OnDrift(values.get("on_shift", NO_RULES.on_shift)),
        shift_percent=int(values.get("shift_percent", NO_RULES.shift_percent)),
        captured_drift=bool(values.get("captured_drift", False)),
        warm_start=bool(values.get("warm_start", False)),
        critical=tuple(values.get("critical", ())),
    )
