"""The shared endpoints as SageMaker has them, and what is wrong with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cli.deployment import Deployment
from trainyard.contracts.shipped_prices import prices_of

IN_SERVICE = frozenset({"InService", "Updating", "SystemUpdating", "Creating", "RollingBack"})


@dataclass(frozen=True)
class Endpoint:
    """A shared endpoint, with one model configuration."""

    name: str
    status: str
    instance_type: str
    instance_count: int
    configuration: str
    usd_per_hour: Decimal | None
    """None where the price is unknown."""
    failure: str | None


def shared_endpoints(deployment: Deployment) -> list[Endpoint]:
    """Return the shared endpoints of a deployment; they have its name and its tag."""
    sagemaker, prefix = deployment.client("sagemaker"), f"{deployment.stack}-shared-"
    endpoints: list[Endpoint] = []
    for page in sagemaker.get_paginator("list_endpoints").paginate(NameContains=prefix):
        for summary in page["Endpoints"]:
            tags = sagemaker.list_tags(ResourceArn=summary["EndpointArn"])["Tags"]
            is_ours = {"Key": "trainyard:stack", "Value": deployment.stack} in tags
            if summary["EndpointName"].startswith(prefix) and is_ours:
                endpoints.append(_described(deployment, sagemaker, summary["EndpointName"]))
    return endpoints


def _described(deployment: Deployment, sagemaker: Any, name: str) -> Endpoint:
    endpoint = sagemaker.describe_endpoint(EndpointName=name)
    configuration = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    variants = configuration["ProductionVariants"]
    instance_type, count = variants[0]["InstanceType"], sum(v["InitialInstanceCount"] for v in variants)
    hourly = prices_of(deployment.region).hosting.get(instance_type)
    return Endpoint(
        name=name,
        status=endpoint["EndpointStatus"],
        instance_type=instance_type,
        instance_count=count,
        configuration=endpoint["EndpointConfigName"],
        usd_per_hour=None if hourly is None else hourly * count,
        failure=endpoint.get("FailureReason"),
    )


def summary_of(endpoint: Endpoint) -> str:
    """Return one line about an endpoint."""
    usd = "at an unknown price" if endpoint.usd_per_hour is None else f"{endpoint.usd_per_hour} USD an hour"
    return f"{endpoint.name} is {endpoint.status}: {endpoint.instance_count} x {endpoint.instance_type}, {usd}"


def troubles(deployment: Deployment, endpoints: list[Endpoint]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with endpoints, each with its remedy."""
    wanted, is_on = deployment.outputs["ServingInstanceType"], deployment.outputs["SharedServing"] == "true"
    for endpoint in endpoints:
        if endpoint.status not in IN_SERVICE:
            reason = f": {endpoint.failure}" if endpoint.failure else ""
            yield (
                f"{endpoint.name} is {endpoint.status}{reason}",
                f"aws sagemaker delete-endpoint --endpoint-name {endpoint.name}; then approve a model of it again",
            )
        if endpoint.configuration != endpoint.name:
            yield (
                f"{endpoint.name} was changed by hand: it uses the configuration {endpoint.configuration}",
                f"aws sagemaker update-endpoint --endpoint-name {endpoint.name} "
                f"--endpoint-config-name {endpoint.name}",
            )
        elif is_on and endpoint.instance_type != wanted:
            yield (
                f"{endpoint.name} has {endpoint.instance_type}, and the deployment says {wanted}",
                'docs/serving.md, "Change the instance type"',
            )
        if not is_on:
            yield (
                f"{summary_of(endpoint)}, though SharedServing is off",
                f"aws sagemaker delete-endpoint --endpoint-name {endpoint.name}",
            )
        if endpoint.usd_per_hour is None:
            yield (
                f"no price of {endpoint.instance_type} for endpoints: what {endpoint.name} costs is unknown",
                f"trainyard prices update --region {deployment.region}, then deploy",
            )
