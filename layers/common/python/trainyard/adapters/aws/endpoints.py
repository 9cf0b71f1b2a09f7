"""The endpoints of a deployment, as SageMaker describes them: found by name, and by tag."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.absence import is_absent
from trainyard.application.billing.inference import Owner
from trainyard.domain.inference import Reservation

_GONE = "Could not find endpoint "
"""How SageMaker says in a ValidationException that there is no such endpoint."""
_RESERVING = frozenset({"InService", "Updating"})
"""Statuses of components that answer calls (API reference, DescribeInferenceComponent)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedEndpoint:
    name: str
    arn: str
    status: str
    created_at: datetime
    configuration: str
    instance_type: str
    """ "" where it is serverless."""
    instance_count: int
    first_count: int
    """The instances that it was created with."""
    scales: bool
    """Whether its number of instances follows its load."""
    instances_max: int
    """The most instances, where it has inference components; else 0."""
    memory_mb: int
    """Where it is serverless, else 0."""
    failure: str | None
    owner: Owner | None
    """Of an endpoint of one version alone; None where tenants share it."""
    reservations: tuple[Reservation, ...] | None
    """Those of its inference components; None where it can have none."""


@dataclass(frozen=True, slots=True)
class UnreadableEndpoint:
    """One that was changed by hand so that it cannot be read, or was just deleted."""

    name: str
    error: str


def endpoints_of_stack(sagemaker: Any, stack: str) -> Iterator[DescribedEndpoint | UnreadableEndpoint]:
    """Yield the endpoints of a stack, those that tenants share first; `sagemaker` is a client."""
    for prefix in (f"{stack}-shared-", f"{stack}-own-"):
        for page in sagemaker.get_paginator("list_endpoints").paginate(NameContains=prefix):
            for summary in page["Endpoints"]:
                if not summary["EndpointName"].startswith(prefix) or summary["EndpointStatus"] == "Deleting":
                    continue
                try:
                    listed = sagemaker.list_tags(ResourceArn=summary["EndpointArn"])["Tags"]
                    tags = {tag["Key"]: tag["Value"] for tag in listed}
                    if tags.get("trainyard:stack") == stack:
                        yield _described(sagemaker, summary, tags, is_own=prefix.endswith("-own-"))
                except (ClientError, KeyError, IndexError) as error:
                    if _GONE in str(error):  # since it was listed
                        continue
                    yield UnreadableEndpoint(summary["EndpointName"], f"{type(error).__name__}: {error}")


def _described(
    sagemaker: Any, summary: dict[str, Any], tags: dict[str, str], *, is_own: bool
) -> DescribedEndpoint:
    endpoint = sagemaker.describe_endpoint(EndpointName=summary["EndpointName"])
    configuration = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    variant = configuration["ProductionVariants"][0]
    running = endpoint.get("ProductionVariants") or [{}]  # a failed one has none
    size = variant.get("ServerlessConfig", {})
    count = 0 if size else running[0].get("CurrentInstanceCount", variant["InitialInstanceCount"])
    return DescribedEndpoint(
        name=summary["EndpointName"],
        arn=summary["EndpointArn"],
        status=endpoint["EndpointStatus"],
        created_at=endpoint["CreationTime"],
        configuration=endpoint["EndpointConfigName"],
        instance_type="" if size else variant["InstanceType"],
        instance_count=count,
        first_count=0 if size else variant["InitialInstanceCount"],
        scales=tags.get("trainyard:scales") == "true",
        instances_max=variant.get("ManagedInstanceScaling", {}).get("MaxInstanceCount", 0),
        memory_mb=size.get("MemorySizeInMB", 0),
        failure=endpoint.get("FailureReason"),
        owner=Owner(
            tenant_id=tags["trainyard:tenant"],
            data_set=tags["trainyard:data-set"],
            tier=tags["trainyard:tier"],
            algorithm=tags["trainyard:algorithm"],
        )
        if is_own
        else None,
        reservations=None
        if "ModelName" in variant
        else tuple(_reservations(sagemaker, summary["EndpointName"], tags["trainyard:stack"])),
    )


def _reservations(sagemaker: Any, endpoint: str, stack: str) -> Iterator[Reservation]:
    """Yield what the components of an endpoint reserve, from their creation on."""
    pages = sagemaker.get_paginator("list_inference_components").paginate(EndpointNameEquals=endpoint)
    for summary in [each for page in pages for each in page["InferenceComponents"]]:
        if summary["InferenceComponentStatus"] not in _RESERVING:
            continue
        try:
            described = sagemaker.describe_inference_component(
                InferenceComponentName=summary["InferenceComponentName"]
            )
            listed = sagemaker.list_tags(ResourceArn=summary["InferenceComponentArn"])["Tags"]
        except ClientError as error:
            if not is_absent(error):
                raise
            continue  # it was deleted since it was listed
        tags = {tag["Key"]: tag["Value"] for tag in listed}
        if tags.get("trainyard:stack") != stack:  # somebody has created it by hand, and nobody pays for it
            continue
        required = described["Specification"]["ComputeResourceRequirements"]
        yield Reservation(
            name=summary["InferenceComponentName"],
            tenant_id=tags["trainyard:tenant"],
            data_set=tags["trainyard:data-set"],
            tier=tags["trainyard:tier"],
            algorithm=tags["trainyard:algorithm"],
            cpu_percent=round(100 * required.get("NumberOfCpuCoresRequired", 0)),
            memory_mb=int(required["MinMemoryRequiredInMb"]),
            created_at=summary["CreationTime"],
        )
