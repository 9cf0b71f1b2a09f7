"""How endpoints are told to follow their load, and what their activities say."""

from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.build import NOW
from trainyard.adapters.aws import endpoint_scaling
from trainyard.adapters.aws.billing import READ_BACK, _billed
from trainyard.adapters.aws.endpoint_scaling import count_history, scale, unscale
from trainyard.adapters.aws.endpoints import DescribedEndpoint
from trainyard.application.billing.inference import BilledEndpoint, Unreadable
from trainyard.domain.errors import Throttled
from trainyard.domain.inference import CountChange
from trainyard.domain.serving import Isolation, Mode, ServingSettings


class Aws:
    """Application Auto Scaling and CloudWatch, which note what they are asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.targets: list[dict[str, Any]] = []
        self.missing: set[str] = set()
        self.activities: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def call(**request: Any) -> Any:
            self.calls.append((name, request))
            if name in self.missing:
                code = "ResourceNotFound" if name == "delete_alarms" else "ObjectNotFoundException"
                raise ClientError({"Error": {"Code": code, "Message": "gone"}}, name)
            return {"ScalableTargets": self.targets, "PolicyARN": "arn:policy"}

        return call

    def get_paginator(self, name: str) -> Any:
        aws = self

        class Pages:
            def paginate(self, **request: Any) -> list[dict[str, Any]]:
                return [{"ScalingActivities": [each]} for each in aws.activities]

        return Pages()

    @property
    def named(self) -> list[str]:
        return [name for name, _ in self.calls]

    def asked(self, name: str) -> dict[str, Any]:
        return next(request for called, request in self.calls if called == name)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Aws:
    aws = Aws()
    monkeypatch.setattr(endpoint_scaling, "client", lambda _: aws)
    return aws


def settings(mode: Mode, **changes: Any) -> ServingSettings:
    return ServingSettings(mode=mode, isolation=Isolation.SILO, instances_max=3, **changes)


def test_a_real_time_endpoint_follows_its_calls(aws: Aws) -> None:
    scale("e", settings(Mode.REAL_TIME), {"trainyard:stack": "trainyard"})
    assert aws.named == ["describe_scalable_targets", "register_scalable_target", "put_scaling_policy"]
    target = aws.asked("register_scalable_target")
    assert (target["ResourceId"], target["MinCapacity"], target["MaxCapacity"]) == ("endpoint/e/variant/all", 1, 3)
    assert target["Tags"] == {"trainyard:stack": "trainyard"}
    policy = aws.asked("put_scaling_policy")["TargetTrackingScalingPolicyConfiguration"]
    assert policy["TargetValue"] == 500
    assert policy["PredefinedMetricSpecification"] == {
        "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
    }


def test_an_asynchronous_endpoint_follows_its_backlog_and_wakes_up_where_it_may_have_no_instances(
    aws: Aws,
) -> None:
    scale("e", settings(Mode.ASYNCHRONOUS, instances=1, scale_at=7), {})
    assert aws.named == ["describe_scalable_targets", "register_scalable_target", "put_scaling_policy"]
    policy = aws.asked("put_scaling_policy")["TargetTrackingScalingPolicyConfiguration"]
    assert policy["TargetValue"] == 7
    assert policy["CustomizedMetricSpecification"]["MetricName"] == "ApproximateBacklogSizePerInstance"
    aws.calls.clear()
    aws.targets = [{}]
    scale("e", settings(Mode.ASYNCHRONOUS, instances=0), {})
    repeated = ["describe_scalable_targets", "put_scaling_policy", "put_scaling_policy", "put_metric_alarm"]
    assert aws.named == repeated, "tags can only be given once"
    alarm = aws.asked("put_metric_alarm")
    assert (alarm["AlarmName"], alarm["AlarmActions"]) == ("e-wake-up", ["arn:policy"])
    assert (alarm["MetricName"], alarm["Dimensions"]) == (
        "HasBacklogWithoutCapacity",
        [{"Name": "EndpointName", "Value": "e"}],
    )


@pytest.mark.parametrize("missing", [set(), {"delete_alarms"}, {"deregister_scalable_target"}])
def test_scaling_is_ended_with_its_alarm_and_what_is_gone_is_gone(aws: Aws, missing: set[str]) -> None:
    aws.missing, aws.targets = missing, [{}]
    unscale("e")
    assert aws.named == ["describe_scalable_targets", "delete_alarms", "deregister_scalable_target"]


def test_an_endpoint_that_does_not_scale_is_left_alone(aws: Aws) -> None:
    unscale("e")
    assert aws.named == ["describe_scalable_targets"]


def test_another_error_is_told(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DeleteAlarms")

    aws.targets = [{}]
    monkeypatch.setattr(aws, "delete_alarms", denied, raising=False)
    with pytest.raises(ClientError):
        unscale("e")


def activity(minutes: int, count: int | None, status: str = "Successful") -> dict[str, Any]:
    text = "Something else" if count is None else f"Setting desired instance count to {count}."
    at = NOW + timedelta(minutes=minutes)
    return {"ActivityId": "1", "StartTime": at, "StatusCode": status, "Description": text}


def test_activities_say_how_many_instances_there_were(aws: Aws) -> None:
    aws.activities = [
        activity(20, 7, "Pending"),
        activity(30, 8, "InProgress"),
        activity(9, 12),
        activity(7, 4, "Overridden"),
        activity(5, 3, "Failed"),
        activity(4, 3, "Unfulfilled"),
        activity(2, 0),
        activity(-1, 9),
        activity(-2, None),
    ]
    changes = [
        CountChange(NOW + timedelta(minutes=minutes), count) for minutes, count in ((2, 0), (7, 4), (9, 12))
    ]
    history = count_history("e", NOW)
    assert history.changes == changes
    assert history.unsettled_from == NOW + timedelta(minutes=20)
    billed = _billed(described(scales=True), NOW + READ_BACK)
    assert isinstance(billed, BilledEndpoint)
    assert (billed.changes, billed.instance_count, billed.scales) == (tuple(changes), 2, True)
    assert billed.unsettled_from == history.unsettled_from
    unscaled = _billed(described(scales=False), NOW)
    assert isinstance(unscaled, BilledEndpoint)
    assert (unscaled.changes, unscaled.instance_count, unscaled.scales) == ((), 5, False)


def test_an_endpoint_whose_activities_cannot_be_read_is_not_booked_in_silence_and_holds_up_no_other(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.activities = [activity(1, None)]
    assert isinstance(_billed(described(scales=True), NOW), Unreadable)

    def throttled(*_: Any) -> None:
        raise Throttled("slow down")

    monkeypatch.setattr("trainyard.adapters.aws.billing.count_history", throttled)
    assert _billed(described(scales=True), NOW) == Unreadable("e", "Throttled: slow down")


def described(*, scales: bool) -> DescribedEndpoint:
    return DescribedEndpoint(
        name="e",
        arn="arn:e",
        status="InService",
        created_at=NOW,
        configuration="e",
        instance_type="ml.m5.large",
        instance_count=5,
        first_count=2,
        scales=scales,
        instances_max=0,
        memory_mb=0,
        failure=None,
        owner=None,
        reservations=None,
    )
