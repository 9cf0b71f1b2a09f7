"""The algorithm catalogue: part of the policy, so each change is a new policy version."""

import hashlib
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from cli.algorithm_files import check_is_trainable, doubts, own_scripts, read_entry, with_shipped
from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted
from pipeline.publish import packed
from trainyard.contracts.policy_file import parse_policy, with_entry
from trainyard.contracts.shipped_quality import typical_quality_of
from trainyard.domain.algorithms import Algorithm, TypicalQuality
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Tenant


def list_all(deployment: Deployment, arguments: Arguments) -> Answer:
    catalogue = deployment.policies.current().catalogue
    return Answer(
        data=[_data(algorithm) for algorithm in catalogue.values()],
        columns=("ALGORITHM", "READS", "QUALITY METRIC", "SCRIPTS", "HYPERPARAMETERS", "DESCRIPTION"),
        rows=[_row(algorithm) for algorithm in catalogue.values()],
        below="DESCRIPTION",
    )


def show_one(deployment: Deployment, arguments: Arguments) -> Answer:
    algorithm = deployment.policies.current().algorithm(arguments.name)
    return Answer(
        data=_data(algorithm),
        columns=("HYPERPARAMETER", "DEFAULT", "ALLOWED VALUES"),
        rows=[(name, parameter.default, str(parameter)) for name, parameter in algorithm.hyperparameters.items()],
        lines=[f"{name}: {value}" for name, value in _facts(algorithm).items()],
    )


def register(deployment: Deployment, arguments: Arguments) -> Answer:
    """Add an algorithm to the catalogue, and publish its own scripts if it has any."""
    entry = read_entry(arguments.file)
    name = str(entry.pop("name", ""))
    own = own_scripts(arguments.scripts) if arguments.scripts is not None else {}
    if own:
        entry["code"] = _code_uri(deployment, with_shipped(own))
    text = with_entry(deployment.policies.in_force().text, "algorithms", name, entry)
    algorithm = deployment.policies.check(text).algorithms.get(name)
    if algorithm is None:
        raise Refused(f"{arguments.file} has no algorithm name: add `name: my-algorithm`")
    check_is_trainable(algorithm, own)
    deployment.job_limits.check(parse_policy(text, 0))
    if not arguments.dry_run:
        if own:
            _publish(deployment, with_shipped(own), str(entry["code"]))
        deployment.policies.apply(text, datetime.now(UTC), note=f"algorithm {name}", by=deployment.caller())
    users = [tenant.tenant_id for tenant in deployment.tenants.all() if name in _chosen(tenant)]
    advice = [f"to update the images in its role, run: trainyard tenant repair {u}" for u in users[:5]]
    done = "would be registered" if arguments.dry_run else "registered"
    return Answer(data=asdict(algorithm), lines=[f"{name} {done}", *doubts(algorithm, own), *advice])


def remove(deployment: Deployment, arguments: Arguments) -> Answer:
    """Remove an algorithm from the catalogue, unless a tenant uses it."""
    policy = deployment.policies.current()
    if arguments.name not in policy.algorithms:
        raise Refused(
            f"{arguments.name!r} is not registered; registered: {', '.join(sorted(policy.algorithms)) or 'none'}"
        )
    text = with_entry(deployment.policies.in_force().text, "algorithms", arguments.name, None)
    catalogue = parse_policy(text, 0).catalogue
    users = [t.tenant_id for t in deployment.tenants.all() if arguments.name in _chosen(t)]
    if users and arguments.name not in catalogue:
        raise Refused(
            f"{arguments.name} is still used by {len(users)} tenant(s), including {', '.join(users[:3])}: switch "
            "them to another algorithm first (`trainyard tenant update`)"
        )
    deployment.policies.apply(
        text, datetime.now(UTC), note=f"algorithm {arguments.name} removed", by=deployment.caller()
    )
    return Answer(data={"removed": arguments.name}, lines=[f"{arguments.name} removed"])


def _chosen(tenant: Tenant) -> set[str]:
    return {settings.algorithm for settings in (tenant.settings, *tenant.data_sets.values())}


def _code_uri(deployment: Deployment, scripts: dict[str, bytes]) -> str:
    digest = hashlib.sha256(json.dumps({n: hashlib.sha256(b).hexdigest() for n, b in scripts.items()}).encode())
    return f"s3://{deployment.outputs['CodeBucket']}/code/{digest.hexdigest()[:16]}"


def _publish(deployment: Deployment, scripts: dict[str, bytes], uri: str) -> None:
    """Upload scripts as pipeline/publish.py does for the shipped ones, below a hash of their content."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    objects = {f"{prefix}/steps/{name}": body for name, body in scripts.items()}
    objects[f"{prefix}/sourcedir.tar.gz"] = packed(scripts)
    for key, body in objects.items():
        deployment.client("s3").put_object(Bucket=bucket, Key=key, Body=body)


SPOT = {None: "as its tier says", True: "yes", False: "no"}


def _data(algorithm: Algorithm) -> dict[str, Any]:
    return asdict(algorithm) | {"typical_quality": [asdict(each) for each in typical_quality_of(algorithm)]}


def _facts(algorithm: Algorithm) -> dict[str, str]:
    return {
        "description": algorithm.description,
        "training image": algorithm.training_image_uri or "the deployment's",
        "processing image": algorithm.processing_image_uri or "the deployment's",
        "scripts": algorithm.code_uri or "the deployment's",
        "reads": f"{algorithm.input_format} ({', '.join(algorithm.suffixes) or 'any name'})",
        "network": "none" if algorithm.network_isolation else "same as the deployment's jobs",
        "traffic between containers": "encrypted" if algorithm.traffic_encryption else "not encrypted",
        "judged by": algorithm.quality_metric,
        "typical quality": "; ".join(map(_example, typical_quality_of(algorithm))) or "no examples",
        "instances": ", ".join(" or ".join(c.training_instance_types) for c in algorithm.instances)
        or "the tier's",
        "spot capacity first": SPOT[algorithm.spot],
        "goes on from checkpoints": "yes" if algorithm.checkpoints else "no",
    }


def _example(typical: TypicalQuality) -> str:
    return f"{typical.metric} {typical.quality:g} on {typical.data} ({counted(typical.rows, 'row')})"


def _row(algorithm: Algorithm) -> tuple[str, ...]:
    return (
        algorithm.name,
        algorithm.input_format,
        algorithm.quality_metric,
        "own" if algorithm.code_uri else "shipped",
        ", ".join(algorithm.hyperparameters),
        algorithm.description,
    )
