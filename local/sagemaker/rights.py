"""Which permissions a call about endpoints needs, with the condition keys of tags, instance types and isolation.

SageMaker provides more keys: those of VPCs, KMS keys, models and serverless sizes are missing here.

Source: service authorization reference, Amazon SageMaker.
"""

import re
from collections.abc import Iterator
from typing import Any

from local.cloud import ACCOUNT_ID, REGION
from local.sagemaker.scaling import target_arn

Request = dict[str, Any]

_MODEL, _CONFIG, _ENDPOINT, _TRANSFORM = "model", "endpoint-config", "endpoint", "transform-job"

_COMPONENT = "inference-component"

_HOSTED = re.compile(":(model|endpoint-config|endpoint|transform-job|inference-component)/")

_NAMED = {
    "DescribeModel": (_MODEL, "ModelName"),
    "DeleteModel": (_MODEL, "ModelName"),
    "DescribeEndpointConfig": (_CONFIG, "EndpointConfigName"),
    "DeleteEndpointConfig": (_CONFIG, "EndpointConfigName"),
    "DescribeEndpoint": (_ENDPOINT, "EndpointName"),
    "DeleteEndpoint": (_ENDPOINT, "EndpointName"),
    "UpdateEndpointWeightsAndCapacities": (_ENDPOINT, "EndpointName"),
    "DescribeTransformJob": (_TRANSFORM, "TransformJobName"),
    "StopTransformJob": (_TRANSFORM, "TransformJobName"),
    "DescribeInferenceComponent": (_COMPONENT, "InferenceComponentName"),
    "DeleteInferenceComponent": (_COMPONENT, "InferenceComponentName"),
}
"""Operation → the kind of the resource that it is about, and the field with its name."""


_PACKAGES = {"DescribeModelPackage": "ModelPackageName", "UpdateModelPackage": "ModelPackageArn"}
"""Operation → the field with the ARN of the model package."""

_LISTS = {
    **{f"List{kind}": f"List{kind}" for kind in ("Models", "EndpointConfigs", "Endpoints", "TransformJobs")},
    "ListInferenceComponents": "ListInferenceComponents",
    "DescribeScalableTargets": "application-autoscaling:DescribeScalableTargets",
    "DescribeScalingActivities": "application-autoscaling:DescribeScalingActivities",
}
"""Operation → its action, for which there are no resources."""
_SCALING = ("RegisterScalableTarget", "DeregisterScalableTarget", "PutScalingPolicy")
_SCALING_ROLE = (
    "sagemaker.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
)


def rights_for(operation: str, request: Request) -> Iterator[tuple[str, str, Request]]:
    """Yield action, resource ("model/…", a whole ARN, or "*") and condition keys of what is needed."""
    if operation in _LISTS:
        yield _LISTS[operation], "*", {}
    elif operation in ("AddTags", "ListTags") and _HOSTED.search(request["ResourceArn"]):
        yield operation, request["ResourceArn"], _tags(request)
    elif operation in _PACKAGES:
        yield operation, request[_PACKAGES[operation]], _changes(request)
    elif operation in _SCALING:
        yield from _to_scale(operation, request)
    elif operation in _NAMED:
        kind, field = _NAMED[operation]
        yield operation, _resource(kind, request[field]), {}
    elif operation == "CreateModel":
        resource = _resource(_MODEL, request["ModelName"])
        isolation = str(request.get("EnableNetworkIsolation", False)).lower()
        yield operation, resource, _tags(request) | {"sagemaker:NetworkIsolation": isolation}
        yield from _tagging(resource, request)
        passed = {"iam:PassedToService": "sagemaker.amazonaws.com"}
        yield "iam:PassRole", request["ExecutionRoleArn"], passed
    elif operation == "CreateEndpointConfig":
        resource = _resource(_CONFIG, request["EndpointConfigName"])
        types = [v["InstanceType"] for v in request["ProductionVariants"] if "InstanceType" in v]
        yield operation, resource, _tags(request) | ({"sagemaker:InstanceTypes": types} if types else {})
        yield from _tagging(resource, request)
        if "ExecutionRoleArn" in request:
            passed = {"iam:PassedToService": "sagemaker.amazonaws.com"}
            yield "iam:PassRole", request["ExecutionRoleArn"], passed
    elif operation == "CreateInferenceComponent":
        resource = _resource(_COMPONENT, request["InferenceComponentName"])
        yield operation, resource, _tags(request)
        yield operation, _resource(_ENDPOINT, request["EndpointName"]), _tags(request)
        yield from _tagging(resource, request)
    elif operation == "CreateTransformJob":
        resource = _resource(_TRANSFORM, request["TransformJobName"])
        used: Request = {"sagemaker:InstanceTypes": [request["TransformResources"]["InstanceType"]]}
        used["sagemaker:ModelArn"] = _resource(_MODEL, request["ModelName"])
        if "KmsKeyId" in request["TransformOutput"]:
            used["sagemaker:OutputKmsKey"] = request["TransformOutput"]["KmsKeyId"]
        yield operation, resource, _tags(request) | used
        yield from _tagging(resource, request)
    elif operation in ("CreateEndpoint", "UpdateEndpoint"):
        resource = _resource(_ENDPOINT, request["EndpointName"])
        yield operation, resource, _tags(request)
        yield operation, _resource(_CONFIG, request["EndpointConfigName"]), _tags(request)
        yield from _tagging(resource, request)


def _changes(request: Request) -> Request:
    """Return the condition keys of what an update changes of a model package."""
    status = request.get("ModelApprovalStatus")
    metadata = request.get("CustomerMetadataProperties", {})
    return ({"sagemaker:ModelApprovalStatus": status} if status else {}) | {
        f"sagemaker:CustomerMetadataProperties/{key}": value for key, value in metadata.items()
    }


def _to_scale(operation: str, request: Request) -> Iterator[tuple[str, str, Request]]:
    """Source: service authorization reference, AWS Application Auto Scaling; SageMaker developer guide, "Auto
    scaling prerequisites".
    """
    tags = {f"aws:RequestTag/{key}": value for key, value in request.get("Tags", {}).items()}
    keys = {
        "application-autoscaling:service-namespace": request["ServiceNamespace"],
        "application-autoscaling:scalable-dimension": request["ScalableDimension"],
    }
    resource = target_arn(lambda name: f"arn:aws:sagemaker:{REGION}:{ACCOUNT_ID}:{name}", request)
    yield f"application-autoscaling:{operation}", resource, keys | tags
    if operation == "RegisterScalableTarget":
        if tags:
            yield "application-autoscaling:TagResource", resource, tags
        service = {"iam:AWSServiceName": "sagemaker.application-autoscaling.amazonaws.com"}
        yield (
            "iam:CreateServiceLinkedRole",
            f"arn:aws:iam::{ACCOUNT_ID}:role/aws-service-role/{_SCALING_ROLE}",
            service,
        )
    if operation == "DeregisterScalableTarget":
        return
    # What the service will do is also asked of whoever lets it.
    endpoint = _resource(_ENDPOINT, request["ResourceId"].split("/")[1])
    for action in ("DescribeEndpoint", "DescribeEndpointConfig", "UpdateEndpointWeightsAndCapacities"):
        kind = endpoint.replace("endpoint/", "endpoint-config/") if action.endswith("Config") else endpoint
        yield action, kind, {}
    alarms = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT_ID}:alarm:"
    yield "cloudwatch:DescribeAlarms", f"{alarms}*", {}
    for action in ("PutMetricAlarm", "DeleteAlarms"):
        yield f"cloudwatch:{action}", f"{alarms}TargetTracking-{request['ResourceId']}-AlarmHigh", {}


def access_key_of(authorization: str) -> str:
    """Return the access key of a signed request; "" for an unsigned one."""
    found = re.search(r"Credential=([^/,\s]+)/", authorization)
    return found[1] if found else ""


def _resource(kind: str, name: str) -> str:
    return f"{kind}/{name.lower()}"


def _tags(request: Request) -> Request:
    tags = request.get("Tags", [])
    if not tags:
        return {}
    return {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in tags} | {
        "aws:TagKeys": [tag["Key"] for tag in tags]
    }


def _tagging(resource: str, request: Request) -> Iterator[tuple[str, str, Request]]:
    if request.get("Tags"):
        yield "AddTags", resource, _tags(request)
