"""The schedules of tenants: retraining, and batch transforms of data sets, as EventBridge Scheduler has them."""

import json
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Any

from trainyard.adapters.aws.absence import remove
from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.deployment_names import DeploymentNames
from trainyard.domain.announcements import APPLICATION_SOURCE
from trainyard.domain.arrivals import SCHEDULED
from trainyard.domain.schedules import Schedule, parse_schedule
from trainyard.domain.tenants import Tenant

RETRAIN, TRANSFORM = "Retraining Requested", "Batch Transform Requested"


def schedules_of(tenant: Tenant, deployment: DeploymentNames, now: datetime) -> list[dict[str, Any]]:
    """Return the schedules that a tenant is to have, as CreateSchedule takes them; none that has ended."""
    of_tenant = {"tenant_id": tenant.tenant_id, "reason": SCHEDULED}
    retrain = tenant.retrain_schedule
    wanted = [(_retraining_name(tenant), retrain, RETRAIN, of_tenant)] if retrain is not None else []
    for names, detail_type, of_data_sets in (
        (_own_name, RETRAIN, tenant.own_schedules),
        (_transform_name, TRANSFORM, tenant.transform_schedules),
    ):
        wanted += [
            (names(tenant, data_set), text, detail_type, of_tenant | {"data_set": data_set})
            for data_set, text in of_data_sets.items()
        ]
    return [
        _schedule(name, schedule, detail_type, detail, deployment, now)
        for name, text, detail_type, detail in wanted
        if not (schedule := parse_schedule(text)).has_ended(now)
    ]


def names_of_schedules(tenant: Tenant) -> list[str]:
    """Return the names of all schedules that a tenant with these settings can have."""
    return [
        _retraining_name(tenant),
        *(_own_name(tenant, name) for name in tenant.own_schedules),
        *(_transform_name(tenant, name) for name in tenant.transform_schedules),
    ]


def remove_schedules(names: Iterable[str], group: str) -> None:
    """Delete schedules; those that are not there are no error."""
    for name in names:
        remove(lambda name=name: client("scheduler").delete_schedule(Name=name, GroupName=group))  # type: ignore[misc]


def _schedule(
    name: str,
    schedule: Schedule,
    detail_type: str,
    detail: dict[str, str],
    deployment: DeploymentNames,
    now: datetime,
) -> dict[str, Any]:
    within = schedule.within_minutes
    window = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": within} if within else {"Mode": "OFF"}
    # A beginning that has passed is refused (API reference, CreateSchedule), and means nothing any more.
    begins = {"StartDate": schedule.begins} if schedule.begins and schedule.begins > now else {}
    place = f"{deployment.partition}:events:{deployment.region}:{deployment.account_id}"
    return {
        "Name": name,
        "GroupName": deployment.schedule_group,
        "ScheduleExpression": schedule.expression,
        "ScheduleExpressionTimezone": schedule.zone,
        "FlexibleTimeWindow": window,
        **begins,
        **({"EndDate": schedule.ends} if schedule.ends else {}),
        "Target": {
            "Arn": f"arn:{place}:event-bus/{deployment.event_bus_name}",
            "RoleArn": deployment.schedule_role_arn,
            "Input": json.dumps(detail),
            "EventBridgeParameters": {"DetailType": detail_type, "Source": APPLICATION_SOURCE},
        },
    }


def _retraining_name(tenant: Tenant) -> str:
    return f"retrain-{tenant.tenant_id}"


def _own_name(tenant: Tenant, data_set: str) -> str:
    return f"retrain-{tenant.tenant_id}-{_digest(data_set)}"


def _transform_name(tenant: Tenant, data_set: str) -> str:
    """Return a name of at most 64 characters, which the names of a tenant and a data set may exceed together."""
    return f"transform-{tenant.tenant_id}-{_digest(data_set)}"


def _digest(data_set: str) -> str:
    return sha256(data_set.encode()).hexdigest()[:16]
