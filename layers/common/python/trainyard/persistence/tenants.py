"""Conversion of tenants' records to and from items of the store."""

import json
from collections.abc import Mapping
from typing import Any

from trainyard.domain.retraining import NO_RULES
from trainyard.domain.tenants import (
    Change,
    Operation,
    Problem,
    RoleState,
    Tenant,
    TenantState,
    TrainingSettings,
    TrainOn,
)
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.retraining_settings import retraining_from, retraining_item
from trainyard.persistence.serving_settings import serving_from, serving_item
from trainyard.persistence.store import Item, Key


def tenant_key(tenant_id: str) -> Key:
    return Key("tenants", (("pk", f"tenant#{tenant_id}"),))


def tenant_item(tenant: Tenant) -> Item:
    """Return a tenant's item, without its key."""
    item = {
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
        "role": tenant.role.value,
        "role_since": stamp(tenant.role_since) if tenant.role_since else None,
        "key_arn": tenant.key_arn,
        "account_id": tenant.account_id,
        "buyer_account": tenant.buyer_account,
        "license_arn": tenant.license_arn,
        "tags": list(tenant.tags) or None,
        "created_at": stamp(tenant.created_at) if tenant.created_at else None,
        "watched_from": stamp(tenant.watched_from) if tenant.watched_from else None,
        "operation": _operation_item(tenant.operation),
        "settled_by": tenant.settled_by,
        "revision": tenant.revision,
    }
    return {name: value for name, value in item.items() if value is not None}


def tenant_from(values: Mapping[str, Any]) -> Tenant:
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
        role=RoleState(values.get("role", RoleState.MADE)),
        role_since=unstamp(values["role_since"]) if "role_since" in values else None,
        key_arn=values.get("key_arn"),
        account_id=values.get("account_id"),
        buyer_account=values.get("buyer_account"),
        license_arn=values.get("license_arn"),
        tags=tuple(values.get("tags", ())),
        created_at=unstamp(values["created_at"]) if "created_at" in values else None,
        watched_from=unstamp(values["watched_from"]) if "watched_from" in values else None,
        operation=_operation_from(values.get("operation")),
        settled_by=values.get("settled_by"),
        revision=int(values.get("revision", 0)),
    )


def _operation_item(operation: Operation | None) -> Item | None:
    if operation is None:
        return None
    item = {
        "change": operation.change.value,
        "run": operation.run,
        "failure": operation.failure,
        "begun_at": stamp(operation.begun_at) if operation.begun_at else None,
        "was_paused": operation.was_paused,
    }
    return {name: value for name, value in item.items() if value is not None}


def _operation_from(values: Mapping[str, Any] | None) -> Operation | None:
    if values is None:
        return None
    return Operation(
        change=Change(values["change"]),
        run=values["run"],
        failure=values.get("failure"),
        begun_at=unstamp(values["begun_at"]) if "begun_at" in values else None,
        was_paused=bool(values["was_paused"]),
    )


def _settings_item(settings: TrainingSettings) -> Item:
    return {
        "algorithm": settings.algorithm,
        "target": settings.target,
        "problem": settings.problem.value,
        "split": settings.split,
        "train_on": settings.train_on.value,
        "every_upload": settings.every_upload,
        "hyperparameters": json.dumps(dict(settings.hyperparameters)),  # DynamoDB knows no 1.0 beside 1
        "ready_by": settings.ready_by,
        "priority": settings.priority,
        "serving": serving_item(settings.serving),
        "schedule": settings.schedule,
        "transform": settings.transform,
        **({"retraining": retraining_item(rules)} if (rules := settings.retraining) != NO_RULES else {}),
    }


def _settings_from(values: Mapping[str, Any]) -> TrainingSettings:
    return TrainingSettings(
        algorithm=values["algorithm"],
        target=values["target"],
        problem=Problem(values["problem"]),
        split=str(values.get("split", "auto")),
        train_on=TrainOn(values["train_on"]),
        every_upload=bool(values.get("every_upload", False)),
        hyperparameters=tuple(json.loads(values["hyperparameters"]).items()),
        ready_by=str(values.get("ready_by", "")),
        priority=int(values.get("priority", 0)),
        serving=serving_from(values.get("serving")),
        schedule=str(values.get("schedule", "")),
        transform=str(values.get("transform", "")),
        retraining=retraining_from(values.get("retraining")),
    )
