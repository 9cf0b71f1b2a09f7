"""What SageMaker refuses of endpoint configurations.

Sources: API reference, ServerlessConfig and AsyncInferenceConfig; developer guide, "Deploy models with Amazon
SageMaker Serverless Inference", Feature exclusions.
"""

from collections.abc import Mapping
from typing import Any

Request = Mapping[str, Any]

SERVERLESS_MEMORY_MB = range(1024, 6145, 1024)
SERVERLESS_VARIANTS_MAX = 50
"""In a Region."""
CONCURRENCY_MAX = 200
VARIANTS_MAX = 10
CONTAINERS_MAX = 15
"""CreateModelInput.Containers."""


def containers_objection(model: Request) -> str | None:
    """Return why a model of several containers is refused; None if it is not.

    Source: developer guide, "Create a multi-container endpoint".
    """
    containers = model.get("Containers", [])
    if len(containers) > CONTAINERS_MAX:
        return f"{len(containers)} containers; at most {CONTAINERS_MAX} are allowed"
    hosts = [container.get("ContainerHostname") for container in containers]
    if len(set(hosts) - {None}) < len(hosts) - hosts.count(None):
        return f"Duplicate ContainerHostname in {hosts}"
    if model.get("InferenceExecutionConfig", {}).get("Mode") == "Direct":
        if len(containers) < 2:
            return "Direct invocation is for models with more than one container"
        if None in hosts:
            return "ContainerHostname is required for each container"
        if any(container.get("Mode") == "MultiModel" for container in containers):
            return "A container of several cannot serve several models"
    return None


def objection_to(config: Request, models: Mapping[str, Request]) -> str | None:
    """Return why an endpoint configuration is refused; None if it is not.

    `models` are the requests that created its models, by name.
    """
    variants = config["ProductionVariants"]
    names = [variant["VariantName"] for variant in variants]
    if len(set(names)) < len(names):
        return f"Duplicate variant name in {names}"
    if len(variants) > VARIANTS_MAX:
        return f"{len(variants)} production variants; at most {VARIANTS_MAX} are allowed"
    without = [
        v["VariantName"] for v in variants if not {"ServerlessConfig", "InstanceType", "InstancePools"} & set(v)
    ]
    if without:
        return f"Variant {without[0]} has neither an InstanceType nor a ServerlessConfig"
    if any("ModelName" not in variant for variant in variants):
        return _to_components(config)
    if not any("ServerlessConfig" in variant for variant in variants):
        return None
    if len(variants) > 1:
        return "Serverless inference takes one production variant"
    if "AsyncInferenceConfig" in config or "DataCaptureConfig" in config:
        return "Serverless inference supports neither asynchronous inference nor data capture"
    return _to_serverless(variants[0], models[variants[0]["ModelName"]])


def _to_components(config: Request) -> str | None:
    """Return what is wrong with variants that have no model, and so hold inference components."""
    variants = config["ProductionVariants"]
    if any("ModelName" in variant for variant in variants):
        return "Either all production variants have a ModelName, or none has one"
    if "ExecutionRoleArn" not in config:
        return "ExecutionRoleArn is required on the endpoint configuration"
    if any("ServerlessConfig" in variant for variant in variants) or "AsyncInferenceConfig" in config:
        return "Inference components support neither serverless nor asynchronous inference"
    for variant in variants:
        if variant.get("InitialInstanceCount", 0) < 1:
            return "InitialInstanceCount must be 1 at least"
        scaling = variant.get("ManagedInstanceScaling", {})
        least, most = scaling.get("MinInstanceCount", 1), scaling.get("MaxInstanceCount", 1)
        if scaling and least < 1:  # as some Regions refuse it
            return "Min instance count needs to be greater than 0 for enabled managed instance scaling"
        if scaling and not least <= variant["InitialInstanceCount"] <= most:
            return f"InitialInstanceCount must be from MinInstanceCount {least} to MaxInstanceCount {most}"
    return None


def _to_serverless(variant: Request, model: Request) -> str | None:
    config = variant["ServerlessConfig"]
    containers = model.get("Containers") or [model["PrimaryContainer"]]
    if config["MemorySizeInMB"] not in SERVERLESS_MEMORY_MB:
        return f"MemorySizeInMB {config['MemorySizeInMB']} is none of {list(SERVERLESS_MEMORY_MB)}"
    if not 1 <= config["MaxConcurrency"] <= CONCURRENCY_MAX:
        return f"MaxConcurrency {config['MaxConcurrency']} is not from 1 to {CONCURRENCY_MAX}"
    if config.get("ProvisionedConcurrency", 0) > config["MaxConcurrency"]:
        return "ProvisionedConcurrency must not exceed MaxConcurrency"
    if "InstanceType" in variant or "InitialInstanceCount" in variant:
        return "ServerlessConfig and InstanceType are mutually exclusive"
    if len(containers) > 1 or containers[0].get("Mode") == "MultiModel":
        return "Serverless inference supports neither multi-model nor multi-container endpoints"
    if "VpcConfig" in model or model.get("EnableNetworkIsolation"):
        return "Serverless inference supports neither a VPC nor network isolation"
    return None
