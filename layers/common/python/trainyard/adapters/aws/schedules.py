"""The schedules of tenants: retraining, and batch transforms of data sets, as EventBridge Scheduler has them."""

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from trainyard.adapters.aws.absence import remove
from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.deployment_names import DeploymentNames
from trainyard.domain.announcements import APPLICATION_SOURCE
from trainyard.domain.tenants import Tenant


def schedules_of(tenant: Tenant, deployment: DeploymentNames) -> list[dict[str, Any]]:
    """Return the schedules that a tenant is to have, as CreateSchedule takes them."""
    schedules: list[dict[str, Any]] = []
    if tenant.retrain_schedule is not None:
        schedules.append(
            _schedule(
                _retraining_name(tenant),
                tenant.retrain_schedule,
                "Retraining Requested",
                {"tenant_id": tenant.tenant_id, "reason": "schedule"},
                deployment,
            )
        )
    for data_set, expression in tenant.transform_schedules.items():
        schedules.append(
            _schedule(
                _transform_name(tenant, data_set),
                expression,
                "Batch Transform Requested",
                {"tenant_id": tenant.tenant_id, "data_set": data_set, "reason": "schedule"},
                deployment,
            )
        )
    return schedules


def names_of_schedules(tenant: Tenant) -> list[str]:
    """Return the names of all schedules that a tenant with these settings can have."""
    return [_retraining_name(tenant), *(_transform_name(tenant, name) for name in tenant.transform_schedules)]


def remove_schedules(names: Iterable[str], group: str) -> None:
    """Delete schedules; those that are not there are no error."""
    for name in names:
        remove(lambda name=name: client("scheduler").delete_schedule(Name=name, GroupName=group))  # type: ignore[misc]


def _schedule(
    name: str, expression: str, detail_type: str, detail: dict[str, str], deployment: DeploymentNames
) -> dict[str, Any]:
    place = f"{deployment.partition}:events:{deployment.region}:{deployment.account_id}"
    return {
        "Name": name,
        "GroupName": deployment.schedule_group,
        "ScheduleExpression": expression,
        # Schedules with a rate align: spread ten thousand tenants over a quarter of an hour.
        "FlexibleTimeWindow": {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15},
        "Target": {
            "Arn": f"arn:{place}:event-bus/{deployment.event_bus_name}",
            "RoleArn": deployment.schedule_role_arn,
            "Input": json.dumps(detail),
            "EventBridgeParameters": {"DetailType": detail_type, "Source": APPLICATION_SOURCE},
        },
    }


def _retraining_name(tenant: Tenant) -> str:
    return f"retrain-{tenant.tenant_id}"


def _transform_name(tenant: Tenant, data_set: str) -> str:
    """Return a name of at most 64 characters, which the names of a tenant and a data set may exceed together."""
    return f"transform-{tenant.tenant_id}-{sha256(data_set.encode()).hexdigest()[:16]}"
