"""Conversion of serving settings to and from items of the store."""

from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import Any

from trainyard.domain.serving import Approval, Isolation, Mode, Promotion, ServingSettings
from trainyard.persistence.store import Item


def serving_item(settings: ServingSettings) -> Item:
    return {name: _stored(value) for name, value in asdict(settings).items()}


def _stored(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    return str(value) if isinstance(value, float) else value  # DynamoDB has no binary fractions


def serving_from(values: Mapping[str, Any] | None) -> ServingSettings:
    """Return stored settings; the defaults for what was stored before there were any."""
    if values is None:
        return ServingSettings()
    return ServingSettings(
        mode=Mode(values["mode"]),
        isolation=Isolation(values["isolation"]),
        approval=Approval(values["approval"]),
        margin=float(values.get("margin", 0)),
        segment_loss_max=float(values.get("segment_loss_max", 0.1)),
        compare_by=str(values.get("compare_by", "")),
        promotion=Promotion(values.get("promotion", Promotion.DIRECT.value)),
        test_minutes=int(values.get("test_minutes", 60)),
        canary_percent=int(values["canary_percent"]),
        bake_minutes=int(values["bake_minutes"]),
        instance_type=str(values["instance_type"]),
        instances=int(values["instances"]),
        instances_max=int(values.get("instances_max", 0)),
        scale_at=int(values.get("scale_at", 0)),
        memory_mb=int(values["memory_mb"]),
        cpu_percent=int(values.get("cpu_percent", 50)),
        concurrency=int(values["concurrency"]),
    )
