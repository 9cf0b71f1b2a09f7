"""AWS's quotas against what a policy may use: asked of Service Quotas, Lambda and IAM."""

from collections.abc import Iterator
from typing import Any

from trainyard.domain.policy import Policy

EXECUTIONS = "concurrent pipeline executions"
"""In the name of SageMaker's quota for them."""


def needed_instances(policy: Policy) -> dict[str, int]:
    """Return SageMaker's quota → instances that a policy may use at once, at most."""
    needed: dict[str, int] = {}
    for tier in policy.tiers:
        concurrent = min(tier.quota + tier.borrowing_limit, policy.running_max)
        for choice in tier.instances:
            count = choice.training_instance_count
            for name in choice.training_instance_types:
                usage = [f"{name} for training job usage"]
                usage += [f"{name} for spot training job usage"] if tier.spot else []
                for quota in usage:
                    needed[quota] = max(needed.get(quota, 0), concurrent * count)
            quota = f"{choice.processing_instance_type} for processing job usage"
            needed[quota] = max(needed.get(quota, 0), concurrent)
    return needed


def sagemaker_quotas(quotas: Any) -> dict[str, float]:
    """Return the names and values of SageMaker's quotas: those applied to the account, else AWS's defaults.

    `quotas` is a client of Service Quotas.
    """
    values: dict[str, float] = {}
    for name, value in _listed(quotas):
        values.setdefault(name, value)  # applied ones come before the defaults
    return values


def _listed(quotas: Any) -> Iterator[tuple[str, float]]:
    for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
        for page in quotas.get_paginator(operation).paginate(ServiceCode="sagemaker"):
            yield from ((quota["QuotaName"], quota["Value"]) for quota in page["Quotas"])


def executions_quota(values: dict[str, float]) -> float | None:
    """Return the quota for concurrent pipeline executions; None when it is not listed."""
    return next((value for name, value in values.items() if EXECUTIONS in name.lower()), None)
