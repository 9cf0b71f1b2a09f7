"""Instances of an endpoint that follow its load, by Application Auto Scaling.

The policy of target tracking adds and removes instances. An asynchronous endpoint without instances has no load
that could be tracked, so an alarm on its backlog adds the first one. Source: SageMaker developer guide, "Autoscale
an asynchronous endpoint".
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.domain.inference import CountChange
from trainyard.domain.serving import SCALE_AT, Mode, ServingSettings

VARIANT = "all"
"""The name of the only variant of an endpoint."""
COUNTED = re.compile(r"desired instance count to ([0-9]{1,4})\b")
"""What an activity says that it has set."""
CARRIED_OUT, UNSETTLED = ("Successful", "Overridden"), ("Pending", "InProgress")
"""Statuses of activities; one that was overridden had been set before. Source: API reference, ScalingActivity."""
_DIMENSION = {"ServiceNamespace": "sagemaker", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}


def scale(endpoint: str, settings: ServingSettings, tags: dict[str, str]) -> None:
    """Let the instances of an endpoint in service follow its load. Idempotent."""
    scaling, on = client("application-autoscaling"), _DIMENSION | {"ResourceId": _resource(endpoint)}
    is_asynchronous = settings.mode is Mode.ASYNCHRONOUS
    tracking: dict[str, Any] = {"TargetValue": float(settings.scale_at or SCALE_AT[settings.mode])}
    if is_asynchronous:
        tracking["CustomizedMetricSpecification"] = {
            "Namespace": "AWS/SageMaker",
            "MetricName": "ApproximateBacklogSizePerInstance",
            "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
            "Statistic": "Average",
        }
    else:
        metric = "SageMakerVariantInvocationsPerInstance"
        tracking["PredefinedMetricSpecification"] = {"PredefinedMetricType": metric}
    cooldowns = {"ScaleInCooldown": 600, "ScaleOutCooldown": 300}
    with translated():
        if not _is_target(scaling, on):  # its capacities belong to its name, and tags can only be given once
            scaling.register_scalable_target(
                **on, MinCapacity=settings.instances, MaxCapacity=settings.instances_max, Tags=tags
            )
        scaling.put_scaling_policy(
            **on,
            PolicyName="load",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration=tracking | cooldowns,
        )
        if is_asynchronous and not settings.instances:
            _wake_up(scaling, on, endpoint)


def _wake_up(scaling: Any, on: dict[str, str], endpoint: str) -> None:
    """Add the first instance once requests wait while there is none."""
    policy = scaling.put_scaling_policy(
        **on,
        PolicyName="wake-up",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "MetricAggregationType": "Average",
            "Cooldown": 150,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
        },
    )
    client("cloudwatch").put_metric_alarm(
        AlarmName=alarm_of(endpoint),
        AlarmDescription="Requests wait for an endpoint without instances, which gets one then",
        AlarmActions=[policy["PolicyARN"]],
        Namespace="AWS/SageMaker",
        MetricName="HasBacklogWithoutCapacity",
        Dimensions=[{"Name": "EndpointName", "Value": endpoint}],
        Statistic="Average",
        Period=60,
        EvaluationPeriods=2,
        DatapointsToAlarm=2,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="missing",
    )


def unscale(endpoint: str) -> None:
    """Let an endpoint keep its instances, before it is deleted. Idempotent.

    The target goes last: what an interrupted run has left is found by it.
    """
    on = _DIMENSION | {"ResourceId": _resource(endpoint)}
    scaling = client("application-autoscaling")
    with translated():
        if not _is_target(scaling, on):
            return
        with _unless_absent("ResourceNotFound"):
            client("cloudwatch").delete_alarms(AlarmNames=[alarm_of(endpoint)])
        with _unless_absent("ObjectNotFoundException"):
            scaling.deregister_scalable_target(**on)


def _is_target(scaling: Any, on: dict[str, str]) -> bool:
    listed = scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[on["ResourceId"]])
    return bool(listed["ScalableTargets"])


@contextmanager
def _unless_absent(code: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if code_of(error) != code:
            raise


@dataclass(slots=True)
class CountHistory:
    """How an endpoint was scaled."""

    changes: list[CountChange] = field(default_factory=list)
    """The oldest first."""
    unsettled_from: datetime | None = None
    """When the first change began that is not finished yet."""


def count_history(endpoint: str, since: datetime) -> CountHistory:
    """Return how an endpoint was scaled since some time; AWS keeps activities for six weeks.

    An instance counts from the moment in which it was asked for. Raises KeyError for an activity that does not say
    what it has set.
    """
    history = CountHistory()
    for activity in _activities(endpoint, since):
        status, at = activity["StatusCode"], activity["StartTime"]
        if status in UNSETTLED:
            history.unsettled_from = min(at, history.unsettled_from or at)
        elif status in CARRIED_OUT:
            said = COUNTED.search(activity["Description"])
            if said is None:
                raise KeyError(f"scaling activity {activity['ActivityId']} names no number of instances")
            history.changes.append(CountChange(at, int(said[1])))
    history.changes.sort(key=lambda change: change.at)
    return history


def _activities(endpoint: str, since: datetime) -> Iterator[dict[str, Any]]:
    """Yield the activities since some time; they come the newest first."""
    pages = (
        client("application-autoscaling")
        .get_paginator("describe_scaling_activities")
        .paginate(**_DIMENSION, ResourceId=_resource(endpoint), PaginationConfig={"PageSize": 50})
    )
    with translated():
        for page in pages:
            yield from (each for each in page["ScalingActivities"] if each["StartTime"] >= since)
            if page["ScalingActivities"] and page["ScalingActivities"][-1]["StartTime"] < since:
                return


def alarm_of(endpoint: str) -> str:
    """Return the name of the alarm that wakes an endpoint up."""
    return f"{endpoint}-wake-up"


def _resource(endpoint: str) -> str:
    return f"endpoint/{endpoint}/variant/{VARIANT}"
