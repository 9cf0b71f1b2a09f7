"""Models in inference components: deployed on an endpoint that tenants share, called, replaced and removed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.endpoints import endpoints_of
from tests.e2e.conftest import Harness, eventually
from tests.e2e.test_own_endpoints import archive_of, removed_at
from tests.e2e.test_serving import ROWS, asked_directly, given_up, served, trained
from trainyard.adapters.aws.billing import SageMakerEndpoints
from trainyard.application.billing.inference import BilledEndpoint
from trainyard.application.serving.unused_endpoints import KEPT_FOR

SERVING = "inference-component:memory_mb=1024:cpu_percent=50"
ENDPOINT = "trainyard-shared--components"


def components(harness: Harness) -> dict[str, str]:
    """Return the inference components, with their status."""
    listed = harness.cloud.client("sagemaker").get_paginator("list_inference_components").paginate()
    return {
        each["InferenceComponentName"]: each["InferenceComponentStatus"]
        for page in listed
        for each in page["InferenceComponents"]
    }


@pytest.mark.thorough
def test_a_version_has_its_own_component_and_one_that_fails_leaves_the_live_one(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sagemaker, rows = harness.cloud.client("sagemaker"), tmp_path / "rows.csv"
    rows.write_bytes(ROWS)
    bucket = harness.create("reserver", "--serving", f"{SERVING}:approval=automatic")

    def answers(number: int) -> str:
        eventually(lambda: served(harness, capsys, "reserver").get(number, {}).get("percent") == 100, 60)
        assert harness.run("predict", "reserver", "wine", str(rows), "--json") == 0
        assert json.loads(capsys.readouterr().out)["version"] == number
        return str(served(harness, capsys, "reserver")[number]["target"])

    trained(harness, bucket, "reserver", 1)
    first = answers(1)
    assert harness.run("tenant", "update", "reserver", "--serving", SERVING) == 0
    trained(harness, bucket, "reserver", 2)
    s3, key = harness.cloud.client("s3"), archive_of(harness, "reserver")
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    harness.put(bucket, key, b"no archive")
    assert harness.run("models", "approve", "reserver", "2") == 0
    version = eventually(lambda: given_up(served(harness, capsys, "reserver").get(2)), 60)
    assert "it could not be brought up" in version["reason"]
    assert answers(1) == first
    harness.put(bucket, key, body)
    assert harness.run("models", "approve", "reserver", "2") == 0
    second = answers(2)
    assert components(harness) == {first: "InService", second: "InService"}
    described = sagemaker.describe_inference_component(InferenceComponentName=second)["Specification"]
    assert described["ComputeResourceRequirements"] == {
        "NumberOfCpuCoresRequired": 0.5,
        "MinMemoryRequiredInMb": 1024,
    }
    assert harness.cloud.client("s3").get_object(
        Bucket=harness.outputs["ServingBucket"],
        Key=described["Container"]["ArtifactUrl"].partition(f"{harness.outputs['ServingBucket']}/")[2],
    )
    (billed,) = [e for e in SageMakerEndpoints(stack="trainyard").existing() if e.name == ENDPOINT]
    assert isinstance(billed, BilledEndpoint)
    assert {(r.name, r.tenant_id, r.cpu_percent, r.memory_mb) for r in billed.reservations or ()} == {
        (first, "reserver", 50, 1024),
        (second, "reserver", 50, 1024),
    }
    (shown,) = [e for e in endpoints_of(harness.deployment) if e.name == ENDPOINT]
    assert (shown.configuration, shown.stuck, len(shown.reserved)) == (ENDPOINT, (), 2)
    assert harness.run("serving", "roll-back", "reserver", "wine", "2") == 0
    assert answers(1) == first
    assert second in removed_at(harness, datetime.now(UTC))
    eventually(lambda: components(harness) == {first: "InService"})
    stored = s3.list_objects_v2(Bucket=harness.outputs["ServingBucket"], Prefix=f"models/{ENDPOINT}/")
    assert [item["Key"].split("/")[4] for item in stored["Contents"]] == [first]
    assert removed_at(harness, datetime.now(UTC) + KEPT_FOR + timedelta(minutes=5)) == []
    assert harness.run("tenant", "delete", "reserver", "--yes", "--purge") == 0
    eventually(lambda: components(harness) == {})
    stored = s3.list_objects_v2(Bucket=harness.outputs["ServingBucket"], Prefix=f"models/{ENDPOINT}/")
    assert stored["KeyCount"] == 0
    sagemaker.delete_endpoint(EndpointName=ENDPOINT)


@pytest.mark.thorough
def test_a_component_without_room_is_refused_and_neighbours_answer(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sagemaker, rows = harness.cloud.client("sagemaker"), tmp_path / "rows.csv"
    rows.write_bytes(ROWS)
    for tenant_id, serving in (("roomy", SERVING), ("cramped", "inference-component:memory_mb=7500")):
        bucket = harness.create(tenant_id, "--serving", f"{serving}:approval=automatic")
        trained(harness, bucket, tenant_id, 1)
        if tenant_id == "roomy":
            eventually(lambda: served(harness, capsys, "roomy").get(1, {}).get("percent") == 100, 60)
    version = eventually(lambda: given_up(served(harness, capsys, "cramped").get(1)), 60)
    assert "not enough hardware resources" in version["reason"]
    assert harness.run("predict", "roomy", "wine", str(rows)) == 0
    neighbour = served(harness, capsys, "roomy")[1]
    for caller in ("cramped", "roomy"):  # such calls could not be limited to a tenant's own components
        refusal = asked_directly(harness, capsys, caller, neighbour, "InferenceComponentName")
        assert refusal == "AccessDeniedException"
    for tenant_id in ("roomy", "cramped"):
        assert harness.run("tenant", "delete", tenant_id, "--yes", "--purge") == 0
    eventually(lambda: components(harness) == {})
    sagemaker.delete_endpoint(EndpointName=ENDPOINT)
