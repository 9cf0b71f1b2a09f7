"""Models with a container each on one endpoint: added, called, replaced, rejected and removed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.endpoints import endpoints_of, troubles
from tests.e2e.conftest import Harness, eventually
from tests.e2e.test_own_endpoints import archive_of, removed_at
from tests.e2e.test_serving import ROWS, asked_directly, given_up, served, trained
from trainyard.application.serving.unused_endpoints import KEPT_FOR

SERVING = "multi-container"
ENDPOINT = "trainyard-shared--containers"


def hosts(harness: Harness) -> set[str]:
    """Return the host names of the containers that the endpoint has."""
    sagemaker = harness.cloud.client("sagemaker")
    name = sagemaker.describe_endpoint(EndpointName=ENDPOINT)["EndpointConfigName"]
    variant = sagemaker.describe_endpoint_config(EndpointConfigName=name)["ProductionVariants"][0]
    containers = sagemaker.describe_model(ModelName=variant["ModelName"])["Containers"]
    return {container["ContainerHostname"] for container in containers}


@pytest.mark.thorough
def test_versions_have_containers_and_one_that_fails_leaves_all_others(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sagemaker, rows = harness.cloud.client("sagemaker"), tmp_path / "rows.csv"
    rows.write_bytes(ROWS)
    buckets = {
        tenant_id: harness.create(tenant_id, "--serving", f"{SERVING}:approval=automatic")
        for tenant_id in ("stacker1", "stacker10")
    }

    def answers(tenant_id: str, number: int) -> dict[str, Any]:
        eventually(lambda: served(harness, capsys, tenant_id).get(number, {}).get("percent") == 100, 60)
        assert harness.run("predict", tenant_id, "wine", str(rows), "--json") == 0
        assert json.loads(capsys.readouterr().out)["version"] == number
        version: dict[str, Any] = served(harness, capsys, tenant_id)[number]
        return version

    for tenant_id, bucket in buckets.items():
        trained(harness, bucket, tenant_id, 1)
    first, neighbour = (answers(tenant_id, 1) for tenant_id in buckets)
    assert hosts(harness) == {first["target"], neighbour["target"]}
    assert first["target"].startswith("stacker1--1-")
    for caller, target in (("stacker1", first), ("stacker10", neighbour)):
        assert asked_directly(harness, capsys, caller, target, "TargetContainerHostname") == 3
    for caller, target in (("stacker1", neighbour), ("stacker10", first)):
        refusal = asked_directly(harness, capsys, caller, target, "TargetContainerHostname")
        assert refusal == "AccessDeniedException"

    assert harness.run("tenant", "update", "stacker1", "--serving", SERVING) == 0
    trained(harness, buckets["stacker1"], "stacker1", 2)
    key = archive_of(harness, "stacker1")
    body = harness.cloud.client("s3").get_object(Bucket=buckets["stacker1"], Key=key)["Body"].read()
    harness.put(buckets["stacker1"], key, b"no archive")
    assert harness.run("models", "approve", "stacker1", "2") == 0
    version = eventually(lambda: given_up(served(harness, capsys, "stacker1").get(2)), 60)
    assert "did not pass the ping health check" in version["reason"]
    assert hosts(harness) == {first["target"], neighbour["target"]}
    assert answers("stacker1", 1)["target"] == first["target"]

    harness.put(buckets["stacker1"], key, body)
    assert harness.run("models", "approve", "stacker1", "2") == 0
    second = answers("stacker1", 2)
    assert hosts(harness) == {first["target"], second["target"], neighbour["target"]}
    assert removed_at(harness, datetime.now(UTC)) == []
    removed_at(harness, datetime.now(UTC) + KEPT_FOR + timedelta(minutes=5))

    def without_first() -> bool:
        removed_at(harness, datetime.now(UTC))
        return hosts(harness) == {second["target"], neighbour["target"]}

    eventually(without_first)
    assert answers("stacker10", 1)["target"] == neighbour["target"]
    assert not [
        text for text, _ in troubles(harness.deployment, endpoints_of(harness.deployment)) if ENDPOINT in text
    ]

    for tenant_id in buckets:
        assert harness.run("tenant", "delete", tenant_id, "--yes", "--purge") == 0

    def nothing() -> bool:
        removed_at(harness, datetime.now(UTC))
        kinds = (sagemaker.list_endpoints, sagemaker.list_endpoint_configs, sagemaker.list_models)
        parts = [summary for listed in kinds for summary in next(iter(listed(NameContains=ENDPOINT).values()))]
        stored = harness.cloud.client("s3").list_objects_v2(
            Bucket=harness.outputs["ServingBucket"], Prefix=f"models/{ENDPOINT}/"
        )
        return not parts and stored["KeyCount"] == 0

    eventually(nothing)
