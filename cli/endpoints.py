"""The endpoints of a deployment as SageMaker has them, and what is wrong with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from cli.deployment import Deployment
from cli.text import counted
from trainyard.adapters.aws.endpoints import UnreadableEndpoint, endpoints_of_stack
from trainyard.contracts.shipped_prices import prices_of
from trainyard.domain.inference import Reservation, capacity_of
from trainyard.domain.serving import MB

IN_SERVICE = frozenset({"InService", "Updating", "SystemUpdating", "Creating", "RollingBack"})
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Endpoint:
    """An endpoint with what it costs."""

    name: str
    status: str
    instance_type: str
    instance_count: int
    configuration: str
    usd_per_hour: Decimal | None
    """None where the price is unknown."""
    failure: str | None
    memory_mb: int = 0
    """Of a serverless one, which costs nothing at rest."""
    tenant_id: str = ""
    """Whose it is; "" where tenants share it."""
    instances_max: int = 0
    """The most instances, where it has inference components; else 0."""
    reserved: tuple[Reservation, ...] = ()
    """What its inference components reserve."""
    stuck: tuple[str, ...] = ()
    """Inference components that have been created for more than an hour, and are not ready."""


def endpoints_of(deployment: Deployment) -> list[Endpoint]:
    """Return the endpoints of a deployment; what cannot be read of one is ""."""
    prices = prices_of(deployment.region)
    endpoints: list[Endpoint] = []
    for each in endpoints_of_stack(deployment.client("sagemaker"), deployment.stack):
        if isinstance(each, UnreadableEndpoint):
            endpoints.append(Endpoint(each.name, UNREADABLE, "", 0, "", None, each.error))
            continue
        hourly = prices.hosting.get(each.instance_type)
        endpoints.append(
            Endpoint(
                name=each.name,
                status=each.status,
                instance_type=each.instance_type,
                instance_count=each.instance_count,
                configuration=each.configuration,
                usd_per_hour=Decimal(0)
                if each.memory_mb
                else None
                if hourly is None
                else hourly * each.instance_count,
                failure=each.failure,
                memory_mb=each.memory_mb,
                tenant_id=each.owner.tenant_id if each.owner is not None else "",
                instances_max=each.instances_max,
                reserved=each.reservations or (),
                stuck=_stuck(deployment, each.name) if each.instances_max else (),
            )
        )
    return endpoints


def _stuck(deployment: Deployment, endpoint: str) -> tuple[str, ...]:
    pages = deployment.client("sagemaker").get_paginator("list_inference_components")
    before = datetime.now(UTC) - timedelta(hours=1)
    listed = pages.paginate(EndpointNameEquals=endpoint, StatusEquals="Creating")
    return tuple(
        component["InferenceComponentName"]
        for page in listed
        for component in page["InferenceComponents"]
        if component["CreationTime"] < before
    )


def summary_of(endpoint: Endpoint) -> str:
    """Return one line about an endpoint."""
    if endpoint.memory_mb:
        return f"{endpoint.name} is {endpoint.status}: serverless, {endpoint.memory_mb} MB"
    usd = "at an unknown price" if endpoint.usd_per_hour is None else f"{endpoint.usd_per_hour} USD an hour"
    line = f"{endpoint.name} is {endpoint.status}: {endpoint.instance_count} x {endpoint.instance_type}, {usd}"
    return line + (f", {_reserved(endpoint)}" if endpoint.instances_max else "")


def _reserved(endpoint: Endpoint) -> str:
    """Return what the inference components of an endpoint reserve of the instances that it may have."""
    percent = sum(each.cpu_percent for each in endpoint.reserved)
    memory_mb = sum(each.memory_mb for each in endpoint.reserved)
    capacity, most = capacity_of(endpoint.instance_type), endpoint.instances_max
    of = (
        f" of {most * capacity.cpus * 100} percent of a CPU and {most * capacity.memory_bytes // MB:,} MB"
        if capacity is not None
        else ""
    )
    components = counted(len(endpoint.reserved), "inference component")
    return f"{components} reserving {percent} percent and {memory_mb:,} MB{of} on {most} instances"


def summaries_of(endpoints: list[Endpoint]) -> list[str]:
    """Return a line about each shared endpoint, and one about those that are tenants' own."""
    own = [endpoint for endpoint in endpoints if endpoint.tenant_id]
    lines = [summary_of(endpoint) for endpoint in endpoints if not endpoint.tenant_id]
    if own:
        tenants = len({endpoint.tenant_id for endpoint in own})
        hourly = sum((endpoint.usd_per_hour or Decimal(0) for endpoint in own), Decimal(0))
        unknown = sum(endpoint.usd_per_hour is None for endpoint in own)
        lines.append(
            f"{counted(len(own), 'own endpoint')} of {counted(tenants, 'tenant')}, {hourly} USD an hour"
            + (f" without {unknown} at an unknown price" if unknown else "")
        )
    return lines


def troubles(deployment: Deployment, endpoints: list[Endpoint]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with endpoints, each with its remedy."""
    wanted, is_on = deployment.outputs["ServingInstanceType"], deployment.outputs["SharedServing"] == "true"
    for endpoint in endpoints:
        if endpoint.status == UNREADABLE:
            yield (
                f"{endpoint.name} cannot be read, and its hours are not booked: {endpoint.failure}",
                "if it was changed by hand, change it back (docs/serving.md)",
            )
            continue
        if endpoint.status not in IN_SERVICE:
            reason = f": {endpoint.failure}" if endpoint.failure else ""
            yield (
                f"{endpoint.name} is {endpoint.status}{reason}",
                f"{_deletion(endpoint)}; then approve a model of it again",
            )
        if endpoint.instances_max and endpoint.instances_max != int(deployment.outputs["ComponentInstancesMax"]):
            yield (
                f"{endpoint.name} has {endpoint.instances_max} instances at most, and the deployment says "
                f"{deployment.outputs['ComponentInstancesMax']}",
                'docs/serving.md, "Change the endpoint of the inference components"',
            )
        for component in endpoint.stuck:
            yield (
                f"inference component {component} has been Creating for more than an hour, and holds room",
                f"aws sagemaker delete-inference-component --inference-component-name {component}; if that is "
                "refused, ask AWS support",
            )
        if endpoint.configuration != endpoint.name and not _is_of_containers(deployment, endpoint):
            yield (
                f"{endpoint.name} was changed by hand: it uses the configuration {endpoint.configuration}",
                f"aws sagemaker update-endpoint --endpoint-name {endpoint.name} "
                f"--endpoint-config-name {endpoint.name}",
            )
        elif is_on and not endpoint.tenant_id and endpoint.instance_type != wanted:
            yield (
                f"{endpoint.name} has {endpoint.instance_type}, and the deployment says {wanted}",
                'docs/serving.md, "Change the instance type of a shared endpoint"',
            )
        if not is_on and not endpoint.memory_mb:
            yield (
                f"{summary_of(endpoint)}, though SharedServing is off",
                _deletion(endpoint),
            )
        if endpoint.usd_per_hour is None:
            yield (
                f"no price of {endpoint.instance_type} for endpoints: what {endpoint.name} costs is unknown",
                f"trainyard prices update --region {deployment.region}, then deploy",
            )


def _is_of_containers(deployment: Deployment, endpoint: Endpoint) -> bool:
    """Tell whether an endpoint has containers of several versions: each set of them is a configuration."""
    name = f"{deployment.stack}-shared--containers"
    return endpoint.name == name and endpoint.configuration.startswith(f"{name}-")


def _deletion(endpoint: Endpoint) -> str:
    """Return how an endpoint is deleted."""
    components = "".join(
        f"aws sagemaker delete-inference-component --inference-component-name {each.name}; "
        for each in endpoint.reserved
    )
    return f"{components}aws sagemaker delete-endpoint --endpoint-name {endpoint.name}"
