"""Names and tags of what serves one version alone: its endpoint, or its inference component."""

import re
from hashlib import sha256
from typing import Any

from botocore.exceptions import ClientError

from trainyard.application.serving.ports import OwnEndpoint
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.tenants import Tenant

NAME_MAX = 63


def own_name(stack: str, version: ModelVersion, whole: str) -> str:
    """Return the name of what is a version's own; another one for each text of what it is created from."""
    readable = f"{stack}-own-{version.tenant_id}-{version.data_set}-{version.version}"
    readable = re.sub("[^a-zA-Z0-9]+", "-", readable)[: NAME_MAX - 11].strip("-")
    return f"{readable}-{sha256(whole.encode()).hexdigest()[:10]}"


def own_tags(stack: str, stage: str, version: ModelVersion, tenant: Tenant) -> dict[str, str]:
    """Return the tags of what is a version's own."""
    return {
        "trainyard:stack": stack,
        "trainyard:stage": stage,
        "trainyard:tenant": tenant.tenant_id,
        "trainyard:tier": tenant.tier,
        "trainyard:data-set": version.data_set,
        "trainyard:version": str(version.version),
        "trainyard:algorithm": version.algorithm,
    }


def own_endpoint(sagemaker: Any, name: str, arn: str, stack: str) -> OwnEndpoint | None:
    """Return whose a resource is; None where it is not ours, or was just deleted. `sagemaker` is a client."""
    try:
        tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]}
        if tags.get("trainyard:stack") != stack:
            return None
        return OwnEndpoint(
            name=name,
            tenant_id=tags["trainyard:tenant"],
            data_set=tags["trainyard:data-set"],
            version=int(tags["trainyard:version"]),
        )
    except (ClientError, KeyError, ValueError):  # one that cannot be read must not affect the others
        return None
