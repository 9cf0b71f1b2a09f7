"""Application Auto Scaling of the variants of endpoints: by target tracking, and in steps by alarms.

A minute of metrics lasts MINUTE here. The alarms of target tracking are its own; those of step scaling are
CloudWatch's, whose actions name the policy.

Sources: Application Auto Scaling API reference; its user guide, "Target tracking scaling policies" and "Step
scaling policies"; SageMaker developer guide, "Autoscale an asynchronous endpoint", "Delete endpoints configured
for auto scaling".
"""

import math
import re
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Protocol

from local.sagemaker.errors import ApiError

Answer = dict[str, Any]

MINUTE = 0.2
"""Seconds."""
SCALE_OUT_MINUTES, SCALE_IN_MINUTES = 3, 15
"""For which the metric must be above the target, or below 90 percent of it."""
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
PAGE = 10
_RESOURCE = re.compile(r"endpoint/([^/]{1,63})/variant/([^/]{1,63})")


class Fleets(Protocol):
    """What the scaling needs of endpoints."""

    def count(self, endpoint: str, variant: str) -> int | None:
        """Return the instances of a variant; None where it is not in service."""
        ...

    def set_count(self, endpoint: str, variant: str, count: int) -> None: ...

    def is_asynchronous(self, endpoint: str) -> bool: ...

    def instance_type(self, endpoint: str, variant: str) -> str: ...

    def load(self, endpoint: str, seconds: float) -> tuple[int, int]:
        """Return how many calls there were in the last seconds, and how many requests wait or are answered now."""
        ...


@dataclass
class Target:
    """A variant that is scaled."""

    arn: str
    endpoint: str
    variant: str
    least: int
    most: int
    tags: Answer
    policies: dict[str, Answer] = field(default_factory=dict)
    above: int = 0
    below: int = 0
    without_capacity: int = 0
    """Minutes in a row."""
    rests_until: float = 0.0


@dataclass
class Scaling:
    """Scalable targets with their policies and activities.

    `alarms_for` returns the CloudWatch alarms whose actions name an ARN.
    """

    fleets: Fleets
    arn: Callable[[str], str]
    alarms_for: Callable[[str], list[Answer]]

    def __post_init__(self) -> None:
        self._targets: dict[str, Target] = {}
        self._activities: list[Answer] = []
        self._lock = threading.RLock()
        self._runs = False

    @property
    def operations(self) -> dict[str, Callable[[Answer], Answer]]:
        return {
            "RegisterScalableTarget": self.register,
            "DeregisterScalableTarget": self.deregister,
            "DescribeScalableTargets": self.describe_targets,
            "PutScalingPolicy": self.put_policy,
            "DescribeScalingActivities": self.describe_activities,
        }

    def is_target(self, endpoint: str) -> bool:
        return any(target.endpoint == endpoint for target in self._targets.values())

    def tags_of(self, arn: str) -> list[Answer] | None:
        target = next((target for target in self._targets.values() if target.arn == arn), None)
        return None if target is None else [{"Key": key, "Value": value} for key, value in target.tags.items()]

    def register(self, request: Answer) -> Answer:
        endpoint, variant = _checked(request)
        count = self.fleets.count(endpoint, variant)
        if count is None:
            raise ApiError("ValidationException", f"No variant in service: {request['ResourceId']}")
        before = self._targets.get(request["ResourceId"])
        least = request.get("MinCapacity", before.least if before else None)
        most = request.get("MaxCapacity", before.most if before else None)
        if least is None or most is None:
            raise ApiError("ValidationException", "MinCapacity and MaxCapacity are required to register a target")
        if least > most:
            raise ApiError("ValidationException", "Maximum capacity cannot be less than minimum capacity")
        if least < (0 if self.fleets.is_asynchronous(endpoint) else 1):
            raise ApiError("ValidationException", "Minimum capacity cannot be less than 1")
        if self.fleets.instance_type(endpoint, variant).startswith("ml.t"):
            raise ApiError("ValidationException", "Burstable instance types cannot be scaled")
        if before is not None and request.get("Tags"):
            raise ApiError("ValidationException", "Tags are only for a new scalable target: use TagResource")
        tags = request.get("Tags", {})
        target = before or Target(target_arn(self.arn, request), endpoint, variant, least, most, tags)
        target.least, target.most = least, most
        with self._lock:
            self._targets[request["ResourceId"]] = target
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, daemon=True).start()
        if not least <= count <= most:
            self._scale(target, min(max(count, least), most), "minimum or maximum capacity was changed")
        return {"ScalableTargetARN": target.arn}

    def deregister(self, request: Answer) -> Answer:
        self._existing(request)
        with self._lock:
            del self._targets[request["ResourceId"]]
        return {}

    def describe_targets(self, request: Answer) -> Answer:
        chosen = request.get("ResourceIds")
        return {
            "ScalableTargets": [
                {
                    "ServiceNamespace": "sagemaker",
                    "ResourceId": name,
                    "ScalableDimension": DIMENSION,
                    "MinCapacity": target.least,
                    "MaxCapacity": target.most,
                    "RoleARN": self.arn("role/aws-service-role"),
                    "CreationTime": 0,
                    "ScalableTargetARN": target.arn,
                }
                for name, target in self._targets.items()
                if chosen is None or name in chosen
            ]
        }

    def put_policy(self, request: Answer) -> Answer:
        target, name = self._existing(request), request["PolicyName"]
        kind = request.get("PolicyType", "StepScaling")
        if f"{kind}PolicyConfiguration" not in request:
            raise ApiError("ValidationException", f"a policy of type {kind} without its configuration")
        arn = self.arn(f"scalingPolicy:{sha256(target.arn.encode()).hexdigest()[:32]}:policyName/{name}")
        target.policies[name] = dict(request) | {"PolicyType": kind, "PolicyARN": arn}
        return {"PolicyARN": arn, "Alarms": []}

    def describe_activities(self, request: Answer) -> Answer:
        chosen = [a for a in self._activities if request.get("ResourceId") in (None, a["ResourceId"])]
        chosen.reverse()
        begin, size = int(request.get("NextToken") or 0), min(int(request.get("MaxResults") or PAGE), 50)
        page: Answer = {"ScalingActivities": chosen[begin : begin + size]}
        return page | ({"NextToken": str(begin + size)} if begin + size < len(chosen) else {})

    # --- scaling --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            time.sleep(MINUTE)
            for target in list(self._targets.values()):
                with suppress(ApiError):  # its endpoint is being deleted
                    self._look_at(target)

    def _look_at(self, target: Target) -> None:
        count = self.fleets.count(target.endpoint, target.variant)
        if count is None:
            return
        calls, backlog = self.fleets.load(target.endpoint, MINUTE)
        is_stuck = count == 0 and backlog > 0
        target.without_capacity = target.without_capacity + 1 if is_stuck else 0
        for policy in target.policies.values():
            if policy["PolicyType"] == "StepScaling":
                self._step(target, policy, count)
            elif count:
                tracking = policy["TargetTrackingScalingPolicyConfiguration"]
                load = calls if "PredefinedMetricSpecification" in tracking else backlog
                self._track(target, tracking, count, load)

    def _track(self, target: Target, tracking: Answer, count: int, load: int) -> None:
        aim = tracking["TargetValue"]
        target.above = target.above + 1 if load / count > aim else 0
        target.below = target.below + 1 if load / count < 0.9 * aim else 0
        if time.monotonic() < target.rests_until:
            return
        if target.above >= SCALE_OUT_MINUTES:
            self._scale(target, min(math.ceil(load / aim), target.most), "the metric is above its target")
            target.rests_until = time.monotonic() + tracking.get("ScaleOutCooldown", 0) / 60 * MINUTE
        elif target.below >= SCALE_IN_MINUTES and not tracking.get("DisableScaleIn"):
            self._scale(target, max(math.ceil(load / aim), target.least), "the metric is below its target")
            target.rests_until = time.monotonic() + tracking.get("ScaleInCooldown", 0) / 60 * MINUTE

    def _step(self, target: Target, policy: Answer, count: int) -> None:
        """Scale where an alarm rings that SageMaker's metric HasBacklogWithoutCapacity has raised."""
        for alarm in self.alarms_for(policy["PolicyARN"]):
            dimensions = {each["Name"]: each["Value"] for each in alarm.get("Dimensions", [])}
            if (alarm["Namespace"], alarm["MetricName"]) != ("AWS/SageMaker", "HasBacklogWithoutCapacity"):
                continue
            if dimensions != {"EndpointName": target.endpoint} or not alarm.get("ActionsEnabled", True):
                continue
            if target.without_capacity >= alarm["EvaluationPeriods"] * alarm["Period"] / 60:
                step = policy["StepScalingPolicyConfiguration"]["StepAdjustments"][0]["ScalingAdjustment"]
                self._scale(target, min(count + step, target.most), f"alarm {alarm['AlarmName']}")

    def _scale(self, target: Target, count: int, cause: str) -> None:
        before = self.fleets.count(target.endpoint, target.variant)
        if before is None or count == before:
            return
        now = datetime.now(UTC).timestamp()
        self.fleets.set_count(target.endpoint, target.variant, count)
        target.above = target.below = target.without_capacity = 0
        self._activities.append(
            {
                "ActivityId": str(uuid.uuid4()),
                "ServiceNamespace": "sagemaker",
                "ResourceId": f"endpoint/{target.endpoint}/variant/{target.variant}",
                "ScalableDimension": DIMENSION,
                "Description": f"Setting desired instance count to {count}.",
                "Cause": cause,
                "StartTime": now,
                "EndTime": now,
                "StatusCode": "Successful",
                "StatusMessage": f"Successfully set desired instance count to {count}.",
            }
        )

    def _existing(self, request: Answer) -> Target:
        _checked(request)
        target = self._targets.get(request["ResourceId"])
        if target is None:
            raise ApiError(
                "ObjectNotFoundException",
                "No scalable target found for service namespace: sagemaker, resource ID: "
                f"{request['ResourceId']}, scalable dimension: {DIMENSION}",
            )
        return target


def target_arn(arn: Callable[[str], str], request: Answer) -> str:
    """Return the ARN of a scalable target, which does not contain the resource's name."""
    own = sha256(request["ResourceId"].encode()).hexdigest()[:36]
    return arn(f"scalable-target/{own}").replace(":sagemaker:", ":application-autoscaling:")


def _checked(request: Answer) -> tuple[str, str]:
    """Return the endpoint and the variant that a request is about."""
    name = _RESOURCE.fullmatch(request["ResourceId"])
    if request["ServiceNamespace"] != "sagemaker" or request["ScalableDimension"] != DIMENSION or name is None:
        raise ApiError("ValidationException", "Unsupported service namespace, resource type or scalable dimension")
    return name[1], name[2]
