"""Tenants as DynamoDB items, and back."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from trainyard.domain.tenants import Algorithm, Problem, Tenant, TenantState, TrainingSettings, TrainOn

Item = dict[str, Any]
_serializer = TypeSerializer()
_deserializer = TypeDeserializer()


def serialized(values: Mapping[str, Any]) -> Item:
    """Return attribute values as DynamoDB takes them; None is left out, floats become decimals."""
    return {name: _serializer.serialize(_decimal(value)) for name, value in values.items() if value is not None}


def deserialized(item: Mapping[str, Any]) -> Item:
    return {name: _deserializer.deserialize(value) for name, value in item.items()}


def tenant_item(tenant: Tenant) -> Item:
    return serialized(
        {
            "tenant_id": tenant.tenant_id,
            "state": tenant.state.value,
            "tier": tenant.tier,
            "bucket": tenant.bucket,
            "root": tenant.root,
            "role_arn": tenant.role_arn,
            "model_group": tenant.model_group,
            "settings": _settings_item(tenant.settings),
            "data_sets": {name: _settings_item(settings) for name, settings in tenant.data_sets.items()},
            "retrain_schedule": tenant.retrain_schedule,
        }
    )


def tenant_from(item: Mapping[str, Any]) -> Tenant:
    values = deserialized(item)
    return Tenant(
        tenant_id=values["tenant_id"],
        state=TenantState(values["state"]),
        tier=values["tier"],
        bucket=values["bucket"],
        root=values["root"],
        role_arn=values["role_arn"],
        model_group=values["model_group"],
        settings=_settings_from(values["settings"]),
        data_sets={name: _settings_from(settings) for name, settings in values["data_sets"].items()},
        retrain_schedule=values.get("retrain_schedule"),
    )


def _settings_item(settings: TrainingSettings) -> Item:
    return {
        "algorithm": settings.algorithm.value,
        "target": settings.target,
        "problem": settings.problem.value,
        "train_on": settings.train_on.value,
        "every_upload": settings.every_upload,
        "hyperparameters": json.dumps(dict(settings.hyperparameters)),  # DynamoDB knows no 1.0 beside 1
    }


def _settings_from(values: Mapping[str, Any]) -> TrainingSettings:
    return TrainingSettings(
        algorithm=Algorithm(values["algorithm"]),
        target=values["target"],
        problem=Problem(values["problem"]),
        train_on=TrainOn(values["train_on"]),
        every_upload=bool(values.get("every_upload", False)),
        hyperparameters=tuple(json.loads(values["hyperparameters"]).items()),
    )


def _decimal(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(str(value))
    if isinstance(value, Mapping):
        return {name: _decimal(inner) for name, inner in value.items()}
    return value
