"""The schedules of tenants: retraining, and batch transforms of data sets, as EventBridge Scheduler has them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from trainyard.adapters.aws.absence import remove
from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.deployment_names import DeploymentNames
from trainyard.domain.announcements import APPLICATION_SOURCE
from trainyard.domain.errors import Refused
from trainyard.domain.retraining import Trigger
from trainyard.domain.schedules import Schedule, parse_schedule
from trainyard.domain.tenants import Tenant

RETRAIN, TRANSFORM = "Retraining Requested", "Batch Transform Requested"


def schedules_of(tenant: Tenant, deployment: DeploymentNames, now: datetime) -> list[dict[str, Any]]:
    """Return the schedules that a tenant is to have, as CreateSchedule takes them; none that has ended."""
    return [
        _schedule(wanted, schedule, deployment, now)
        for wanted, schedule in _all(tenant)
        if not schedule.has_ended(now)
    ]


def schedules_over(tenant: Tenant, deployment: DeploymentNames, now: datetime) -> list[dict[str, Any]]:
    """Return the schedules of a tenant that are not due any more, whether they have ended or not."""
    return [
        _schedule(wanted, schedule, deployment, now)
        for wanted, schedule in _all(tenant)
        if schedule.ends is not None and next(schedule.due(now), None) is None
    ]


class _Wanted(NamedTuple):
    name: str
    text: str
    detail_type: str
    detail: dict[str, Any]


def _all(tenant: Tenant) -> Iterator[tuple[_Wanted, Schedule]]:
    of_tenant: dict[str, Any] = {"tenant_id": tenant.tenant_id, "trigger": Trigger.SCHEDULE.value}
    wanted: list[_Wanted] = []
    if tenant.retrain_schedule:
        wanted.append(_Wanted(_retraining_name(tenant), tenant.retrain_schedule, RETRAIN, of_tenant))
    for name_of, detail_type, of_data_sets in (
        (_own_name, RETRAIN, tenant.own_schedules),
        (_transform_name, TRANSFORM, tenant.transform_schedules),
    ):
        for data_set, text in of_data_sets.items():
            detail = of_tenant | {"data_set": data_set}
            wanted.append(_Wanted(name_of(tenant, data_set), text, detail_type, detail))
    for each in wanted:
        yield each, _parsed(each.text, each.detail)


def _parsed(text: str, detail: Mapping[str, Any]) -> Schedule:
    """Return a stored schedule; raises Refused, naming whose it is."""
    try:
        return parse_schedule(text)
    except Refused as refusal:
        whose = detail.get("data_set", "all data sets")
        raise Refused(f"the schedule of {whose}: {refusal}") from None


def names_of_schedules(tenant: Tenant) -> list[str]:
    """Return the names of all schedules that a tenant with these settings can have."""
    return [
        _retraining_name(tenant),
        *(_own_name(tenant, name) for name in tenant.own_schedules),
        *(_transform_name(tenant, name) for name in tenant.transform_schedules),
    ]


def begins_alike(present: Mapping[str, Any], wanted: Mapping[str, Any], now: datetime) -> bool:
    """Tell whether a schedule begins when it is to, or has begun; a rate also by one of its times."""
    begun, begins = present.get("StartDate"), wanted.get("StartDate")
    if begins is None:
        return begun is None or begun <= now
    every = Schedule(wanted["ScheduleExpression"]).every
    if every is None or begun is None:
        return bool(begun == begins)
    return bool((begins - begun) % every == timedelta(0))


def remove_schedules(names: Iterable[str], group: str) -> None:
    """Delete schedules; those that are not there are no error."""
    for name in names:
        remove(lambda name=name: client("scheduler").delete_schedule(Name=name, GroupName=group))  # type: ignore[misc]


def _schedule(wanted: _Wanted, schedule: Schedule, deployment: DeploymentNames, now: datetime) -> dict[str, Any]:
    within = schedule.within_minutes
    window = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": within} if within else {"Mode": "OFF"}
    # Times of a rate are counted from its beginning. One that has passed is refused (CreateSchedule): then the
    # next time stands for it. To a cron expression it means nothing any more.
    begins = schedule.begins
    if begins is not None and begins <= now:
        begins = next(schedule.due(now), None) if schedule.every else None
    place = f"{deployment.partition}:events:{deployment.region}:{deployment.account_id}"
    return {
        "Name": wanted.name,
        "GroupName": deployment.schedule_group,
        "ScheduleExpression": schedule.expression,
        "ScheduleExpressionTimezone": schedule.zone,
        "FlexibleTimeWindow": window,
        **({"StartDate": begins} if begins else {}),
        **({"EndDate": schedule.ends, "ActionAfterCompletion": "DELETE"} if schedule.ends else {}),
        "Target": {
            "Arn": f"arn:{place}:event-bus/{deployment.event_bus_name}",
            "RoleArn": deployment.schedule_role_arn,
            "Input": json.dumps(wanted.detail),
            "EventBridgeParameters": {"DetailType": wanted.detail_type, "Source": APPLICATION_SOURCE},
        },
    }


def _retraining_name(tenant: Tenant) -> str:
    return f"retrain-{tenant.tenant_id}"


def _own_name(tenant: Tenant, data_set: str) -> str:
    """Return a name that no tenant's own schedule has: an id contains no dot."""
    return f"retrain-{tenant.tenant_id}.{_digest(data_set)}"


def _transform_name(tenant: Tenant, data_set: str) -> str:
    """Return a name of at most 64 characters, which the names of a tenant and a data set may exceed together."""
    return f"transform-{tenant.tenant_id}-{_digest(data_set)}"


def _digest(data_set: str) -> str:
    return sha256(data_set.encode()).hexdigest()[:16]
