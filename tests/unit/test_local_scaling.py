"""The local Application Auto Scaling: what it refuses, and when it scales."""

import threading
from typing import Any

import pytest

from local.sagemaker.errors import ApiError
from local.sagemaker.scaling import SCALE_IN_MINUTES, SCALE_OUT_MINUTES, Scaling

ON = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/all",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
TRACKING = {"TargetValue": 5.0, "ScaleInCooldown": 0, "ScaleOutCooldown": 0}
ALARM = {
    "AlarmName": "wake-up",
    "Namespace": "AWS/SageMaker",
    "MetricName": "HasBacklogWithoutCapacity",
    "Dimensions": [{"Name": "EndpointName", "Value": "e"}],
    "EvaluationPeriods": 2,
    "Period": 60,
}


class Fleets:
    """One endpoint with one variant."""

    def __init__(self, *, instances: int = 1, asynchronous: bool = True) -> None:
        self.instances, self.asynchronous = instances, asynchronous
        self.calls = self.backlog = 0
        self.type = "ml.m5.large"

    def count(self, endpoint: str, variant: str) -> int | None:
        return self.instances if (endpoint, variant) == ("e", "all") else None

    def instance_type(self, endpoint: str, variant: str) -> str:
        return self.type

    def set_count(self, endpoint: str, variant: str, count: int) -> None:
        self.instances = count

    def is_asynchronous(self, endpoint: str) -> bool:
        return self.asynchronous

    def load(self, endpoint: str, seconds: float) -> tuple[int, int]:
        return self.calls, self.backlog


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, **fleets: Any) -> None:
        self.fleets, self.alarms = Fleets(**fleets), list[dict[str, Any]]()
        arn = "arn:aws:sagemaker:us-east-1:123456789012:"
        self.scaling = Scaling(self.fleets, lambda name: arn + name, lambda _: self.alarms)
        monkeypatch.setattr(threading, "Thread", lambda **_: Idle())

    def register(self, least: int = 0, most: int = 3) -> None:
        self.scaling.register({**ON, "MinCapacity": least, "MaxCapacity": most})

    def track(self, metric: str = "CustomizedMetricSpecification", **changes: Any) -> None:
        tracking = TRACKING | {metric: {}} | changes
        policy = {"PolicyName": "load", "PolicyType": "TargetTrackingScaling"}
        self.scaling.put_policy({**ON, **policy, "TargetTrackingScalingPolicyConfiguration": tracking})

    def minutes(self, count: int) -> int:
        for _ in range(count):
            for target in self.scaling._targets.values():
                self.scaling._look_at(target)
        return self.fleets.instances


class Idle:
    def start(self) -> None:
        """Let the test say when a minute is over."""


def test_a_load_above_the_target_adds_instances_after_three_minutes_up_to_the_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    world.register()
    world.track()
    world.fleets.backlog = 11
    assert world.minutes(SCALE_OUT_MINUTES - 1) == 1
    assert world.minutes(1) == 3
    world.fleets.backlog = 1000
    assert world.minutes(SCALE_OUT_MINUTES) == 3


def test_a_low_load_removes_instances_after_fifteen_minutes_down_to_the_fewest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, instances=3, asynchronous=False)
    world.register(1)
    world.track("PredefinedMetricSpecification")
    world.fleets.calls = 6
    assert world.minutes(SCALE_IN_MINUTES - 1) == 3
    assert world.minutes(1) == 2
    world.fleets.calls = 0
    assert world.minutes(SCALE_IN_MINUTES) == 1
    assert world.minutes(SCALE_IN_MINUTES) == 1


def test_an_endpoint_rests_after_it_was_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.register()
    world.track(ScaleOutCooldown=10_000)
    world.fleets.backlog = 6
    assert world.minutes(SCALE_OUT_MINUTES) == 2
    world.fleets.backlog = 100
    assert world.minutes(SCALE_OUT_MINUTES) == 2


def test_only_the_alarm_of_its_backlog_wakes_an_endpoint_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, instances=0)
    world.register()
    world.track()
    step = {"StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]}
    world.scaling.put_policy({**ON, "PolicyName": "wake", "StepScalingPolicyConfiguration": step})
    world.fleets.backlog = 9
    assert world.minutes(20) == 0, "target tracking has no load to track"
    wrong: dict[str, Any]
    for wrong in ({"Namespace": "Other"}, {"Dimensions": []}, {"ActionsEnabled": False}):
        world.alarms = [ALARM | wrong]
        assert world.minutes(3) == 0
    world.alarms = [ALARM | {"EvaluationPeriods": 40}]
    assert world.minutes(3) == 0
    world.alarms = [ALARM]
    assert world.minutes(1) == 1
    (activity,) = world.scaling.describe_activities({"ResourceId": ON["ResourceId"]})["ScalingActivities"]
    assert activity["Description"] == "Setting desired instance count to 1."


def test_activities_come_in_short_pages_the_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    for least in [2, 1, 2, 1] * 3:
        world.register(least, least)
    page = world.scaling.describe_activities({})
    assert len(page["ScalingActivities"]) == 10
    rest = world.scaling.describe_activities({"NextToken": page["NextToken"]})
    assert [a["Description"][-2] for a in rest["ScalingActivities"]] == ["1", "2"]
    assert "NextToken" not in rest


def test_what_application_auto_scaling_refuses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, asynchronous=False)
    for capacities, reason in (
        ({"MinCapacity": 2, "MaxCapacity": 1}, "less than minimum"),
        ({"MinCapacity": 0, "MaxCapacity": 1}, "less than 1"),
        ({"MinCapacity": 1}, "are required"),
        (
            {"MinCapacity": 1, "MaxCapacity": 1, "ResourceId": "endpoint/other/variant/all"},
            "No variant in service",
        ),
        ({"MinCapacity": 1, "MaxCapacity": 1, "ResourceId": "endpoint/e"}, "Unsupported"),
        ({"MinCapacity": 1, "MaxCapacity": 1, "ServiceNamespace": "ecs"}, "Unsupported"),
    ):
        with pytest.raises(ApiError, match=reason):
            world.scaling.register(ON | capacities)
    for operation in (world.scaling.deregister, world.scaling.put_policy):
        with pytest.raises(ApiError, match="No scalable target"):
            operation(ON | {"PolicyName": "load"})
    world.fleets.type = "ml.t2.medium"
    with pytest.raises(ApiError, match="Burstable"):
        world.register(1)
    world.fleets.type = "ml.m5.large"
    world.register(1)
    with pytest.raises(ApiError, match="use TagResource"):
        world.scaling.register(ON | {"Tags": {"a": "b"}})
    with pytest.raises(ApiError, match="without its configuration"):
        world.scaling.put_policy(ON | {"PolicyName": "load", "PolicyType": "TargetTrackingScaling"})
    assert world.scaling.is_target("e")
    world.scaling.deregister(ON)
    assert not world.scaling.is_target("e")
