"""The shared endpoints of a deployment, as SageMaker describes them: found by name, and by tag."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedEndpoint:
    name: str
    arn: str
    status: str
    created_at: datetime
    configuration: str
    instance_type: str
    instance_count: int
    failure: str | None


@dataclass(frozen=True, slots=True)
class UnreadableEndpoint:
    """One that was changed by hand so that it cannot be read, or was just deleted."""

    name: str
    error: str


def shared_endpoints(sagemaker: Any, stack: str) -> Iterator[DescribedEndpoint | UnreadableEndpoint]:
    """Yield the shared endpoints of a stack; `sagemaker` is a client."""
    prefix = f"{stack}-shared-"
    for page in sagemaker.get_paginator("list_endpoints").paginate(NameContains=prefix):
        for summary in page["Endpoints"]:
            if not summary["EndpointName"].startswith(prefix):
                continue
            try:
                tags = sagemaker.list_tags(ResourceArn=summary["EndpointArn"])["Tags"]
                if {"Key": "trainyard:stack", "Value": stack} in tags:
                    yield _described(sagemaker, summary)
            except (ClientError, KeyError, IndexError) as error:
                yield UnreadableEndpoint(summary["EndpointName"], f"{type(error).__name__}: {error}")


def _described(sagemaker: Any, summary: dict[str, Any]) -> DescribedEndpoint:
    endpoint = sagemaker.describe_endpoint(EndpointName=summary["EndpointName"])
    configuration = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    variant = configuration["ProductionVariants"][0]
    running = endpoint.get("ProductionVariants") or [{}]  # a failed one has none
    return DescribedEndpoint(
        name=summary["EndpointName"],
        arn=summary["EndpointArn"],
        status=endpoint["EndpointStatus"],
        created_at=endpoint["CreationTime"],
        configuration=endpoint["EndpointConfigName"],
        instance_type=variant["InstanceType"],
        instance_count=running[0].get("CurrentInstanceCount", variant["InitialInstanceCount"]),
        failure=endpoint.get("FailureReason"),
    )
