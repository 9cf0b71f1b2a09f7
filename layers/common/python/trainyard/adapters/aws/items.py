"""Requests and tenants as DynamoDB items, and back."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from trainyard.domain.requests import Cause, Content, Outcome, Request, State
from trainyard.domain.tenants import Algorithm, Problem, Tenant, TenantState, TrainingSettings, TrainOn

Item = dict[str, Any]
_serializer = TypeSerializer()
_deserializer = TypeDeserializer()


def serialized(values: Mapping[str, Any]) -> Item:
    """Return attribute values as DynamoDB takes them; None is left out, floats become decimals."""
    return {name: _serializer.serialize(_decimal(value)) for name, value in values.items() if value is not None}


def deserialized(item: Mapping[str, Any]) -> Item:
    return {name: _deserializer.deserialize(value) for name, value in item.items()}


def stamp(when: datetime) -> str:
    """Return a time as text that sorts as the times do: UTC, to the microsecond."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def unstamp(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


_OUTCOME = tuple(Outcome.__dataclass_fields__)
_TIMES = ("arrived_at", "due_at", "admitted_at", "started_at", "finished_at")
_PLAIN = (
    "request_id",
    "tenant_id",
    "tier",
    "data_set",
    "attempt",
    "reason",
    "superseded_by",
    "supersedes",
    "execution_arn",
)


def request_item(request: Request) -> Item:
    """Return the item of a request; its outcome's fields stand beside the others."""
    content = request.content
    item: Item = {name: getattr(request, name) for name in _PLAIN}
    item |= {name: _stamped(getattr(request, name)) for name in _TIMES}
    item |= {
        "state": request.state.value,
        "cause": request.cause.value,
        "content": {
            "bucket": content.bucket,
            "key": content.key,
            "version_id": content.version_id,
            "etag": content.etag,
            "sequencer": content.sequencer,
            "size_bytes": content.size_bytes,
            "event_time": stamp(content.event_time),
        },
    }
    return serialized(item | outcome_values(request.outcome or Outcome()))


def request_from(item: Mapping[str, Any]) -> Request:
    values = deserialized(item)
    content = values["content"]
    outcome = {name: values.get(name) for name in _OUTCOME}
    known: Item = {name: values.get(name) for name in _PLAIN}
    known |= {name: unstamp(values[name]) if values.get(name) else None for name in _TIMES}
    return Request(
        **known | {"attempt": int(values.get("attempt", 0))},
        state=State(values["state"]),
        cause=Cause(values["cause"]),
        content=Content(
            **content | {"event_time": unstamp(content["event_time"]), "size_bytes": int(content["size_bytes"])}
        ),
        outcome=_outcome(outcome) if any(value is not None for value in outcome.values()) else None,
    )


def outcome_values(outcome: Outcome) -> Item:
    """Return the known fields of an outcome, by attribute name."""
    return {name: getattr(outcome, name) for name in _OUTCOME if getattr(outcome, name) is not None}


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
        "hyperparameters": json.dumps(dict(settings.hyperparameters)),  # DynamoDB knows no 1.0 beside 1
    }


def _settings_from(values: Mapping[str, Any]) -> TrainingSettings:
    return TrainingSettings(
        algorithm=Algorithm(values["algorithm"]),
        target=values["target"],
        problem=Problem(values["problem"]),
        train_on=TrainOn(values["train_on"]),
        hyperparameters=tuple(json.loads(values["hyperparameters"]).items()),
    )


def _outcome(values: Item) -> Outcome:
    return Outcome(**{name: _number(value) for name, value in values.items()})


def _stamped(when: datetime | None) -> str | None:
    return None if when is None else stamp(when)


def _decimal(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(str(value))
    if isinstance(value, Mapping):
        return {name: _decimal(inner) for name, inner in value.items()}
    return value


def _number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value
