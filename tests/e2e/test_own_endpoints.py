"""Models on endpoints of their own: deployed, called, replaced, rolled back and removed, in each mode."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.e2e.conftest import Harness, eventually
from tests.e2e.test_serving import ROWS, WINE, given_up, runtime_of, served, trained
from trainyard.adapters.aws.absence import is_absent
from trainyard.adapters.aws.billing import SageMakerEndpoints
from trainyard.adapters.aws.container_endpoint import SageMakerContainerEndpoint
from trainyard.adapters.aws.endpoint_scaling import alarm_of, count_history
from trainyard.adapters.aws.own_endpoints import SageMakerOwnModels
from trainyard.adapters.aws.serving import Network
from trainyard.adapters.aws.store import backoff
from trainyard.application.billing.inference import BilledEndpoint
from trainyard.application.serving.shared_containers import MultiContainerHost
from trainyard.application.serving.unused_endpoints import KEPT_FOR, UnusedEndpoints
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.container_sets import ContainerSets
from trainyard.persistence.model_versions import ModelVersions

MODES = {
    "serverless": "serverless:memory_mb=3072:concurrency=2",
    "asynchronous": "asynchronous",
    "real-time": "real-time",
}


def endpoints(harness: Harness, tenant_id: str) -> dict[str, str]:
    """Return the endpoints that are tagged as a tenant's, with their status."""
    sagemaker = harness.cloud.client("sagemaker")
    own = {}
    for each in sagemaker.list_endpoints(NameContains="trainyard-own-", MaxResults=100)["Endpoints"]:
        try:
            tags = sagemaker.list_tags(ResourceArn=each["EndpointArn"])["Tags"]
        except ClientError as error:
            if not is_absent(error):
                raise
            continue  # it was deleted since it was listed
        if {"Key": "trainyard:tenant", "Value": tenant_id} in tags:
            own[each["EndpointName"]] = each["EndpointStatus"]
    return own


def containers_of(harness: Harness) -> MultiContainerHost:
    function = harness.outputs["ServingFunction"]
    configured = harness.cloud.client("lambda").get_function_configuration(FunctionName=function)
    endpoint = SageMakerContainerEndpoint(
        stack="trainyard",
        stage=harness.outputs["Stage"],
        bucket=harness.outputs["ServingBucket"],
        role_arn=configured["Environment"]["Variables"]["TRAINYARD_SERVING_ROLE_ARN"],
        instance_type="ml.m5.large",
        network=Network(),
    )
    sets = ContainerSets(harness.deployment.store, backoff)
    return MultiContainerHost(endpoint=endpoint, sets=sets, clock=lambda: datetime.now(UTC))


def removed_at(harness: Harness, now: datetime) -> list[str]:
    """Remove unused endpoints as the timer does, at a time."""
    unused = UnusedEndpoints(
        models=SageMakerOwnModels("trainyard"),
        containers=containers_of(harness),
        aliases=Aliases(harness.deployment.store, backoff),
        versions=ModelVersions(harness.deployment.store),
    )
    removed = unused.remove(now, lambda: False)
    assert removed.failed == {}
    return removed.endpoints


@pytest.mark.thorough
@pytest.mark.parametrize("mode", MODES)
def test_a_version_is_served_on_its_own_endpoint_and_the_next_one_beside_it(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path, mode: str
) -> None:
    tenant_id, rows = f"own-{mode}", tmp_path / "rows.csv"
    rows.write_bytes(ROWS)
    automatic = f"{MODES[mode]}:approval=automatic"
    bucket = harness.create(tenant_id, "--serving", automatic)

    def predicted() -> dict[str, Any]:
        capsys.readouterr()
        assert harness.run("predict", tenant_id, "wine", str(rows), "--json") == 0, capsys.readouterr().err
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    for number in (1, 2):  # nobody approves them
        trained(harness, bucket, tenant_id, number)
        eventually(lambda: served(harness, capsys, tenant_id).get(number, {}).get("percent") == 100, 60)  # noqa: B023
        answer = predicted()
        assert (answer["version"], len(answer["predictions"])) == (number, 3)
    first, second = (served(harness, capsys, tenant_id)[number]["endpoint"] for number in (1, 2))
    assert endpoints(harness, tenant_id) == {first: "InService", second: "InService"}
    model = harness.cloud.client("sagemaker").describe_model(ModelName=second)
    assert model["ExecutionRoleArn"] == harness.deployment.tenant(tenant_id).role_arn
    assert harness.run("serving", "roll-back", tenant_id, "wine", "2") == 0
    assert predicted()["version"] == 1
    assert second in removed_at(harness, datetime.now(UTC))
    eventually(lambda: endpoints(harness, tenant_id) == {first: "InService"})
    sagemaker = harness.cloud.client("sagemaker")
    removed = sagemaker.describe_endpoint(EndpointName=first)["EndpointArn"].replace(first, second)
    with pytest.raises(ClientError) as refused:
        sagemaker.list_tags(ResourceArn=removed)
    assert is_absent(refused.value), "as SageMaker says it, and not an error of its own"
    assert predicted()["version"] == 1
    _calls_its_own_endpoint_alone(harness, capsys, tenant_id, mode, first)
    _keeps_the_live_version_when_the_next_one_fails(harness, capsys, tenant_id, MODES[mode])
    assert predicted()["version"] == 1
    # Somebody deletes its endpoint: approving it again brings it back.
    harness.cloud.client("sagemaker").delete_endpoint(EndpointName=first)
    eventually(lambda: endpoints(harness, tenant_id) == {})
    assert harness.run("predict", tenant_id, "wine", str(rows)) == 1
    assert harness.run("models", "approve", tenant_id, "1") == 0
    eventually(lambda: endpoints(harness, tenant_id) == {first: "InService"}, 60)
    assert predicted()["version"] == 1
    rows.write_bytes(b"alcohol\n13\n")
    assert harness.run("predict", tenant_id, "wine", str(rows)) == 1
    assert "the request has no column" in capsys.readouterr().err
    assert harness.run("tenant", "delete", tenant_id, "--yes") == 0
    removed_at(harness, datetime.now(UTC))
    eventually(lambda: endpoints(harness, tenant_id) == {})
    left = harness.cloud.client("sagemaker").list_models(NameContains=tenant_id)["Models"]
    assert left == []


def _calls_its_own_endpoint_alone(
    harness: Harness, capsys: pytest.CaptureFixture[str], tenant_id: str, mode: str, endpoint: str
) -> None:
    """The tenant's credentials reach the endpoint, and those of a tenant with a similar name do not."""
    harness.create(f"{tenant_id}1")
    call = "invoke_endpoint_async" if mode == "asynchronous" else "invoke_endpoint"
    said = {}
    for caller in (tenant_id, f"{tenant_id}1"):
        arguments: dict[str, Any] = {"EndpointName": endpoint, "ContentType": "text/csv", "Body": ROWS}
        try:
            getattr(runtime_of(harness, capsys, caller), call)(**arguments)
            said[caller] = "answered"
        except ClientError as error:
            said[caller] = str(error.response["Error"]["Code"])
    assert said == {tenant_id: "answered", f"{tenant_id}1": "AccessDeniedException"}


def _keeps_the_live_version_when_the_next_one_fails(
    harness: Harness, capsys: pytest.CaptureFixture[str], tenant_id: str, serving: str
) -> None:
    bucket = harness.deployment.tenant(tenant_id).bucket
    assert harness.run("tenant", "update", tenant_id, "--serving", serving) == 0
    trained(harness, bucket, tenant_id, 3)
    harness.put(bucket, archive_of(harness, tenant_id), b"no archive")
    assert harness.run("models", "approve", tenant_id, "3") == 0
    version = eventually(lambda: given_up(served(harness, capsys, tenant_id).get(3)), 60)
    assert version["reason"]
    removed_at(harness, datetime.now(UTC))
    eventually(lambda: len(endpoints(harness, tenant_id)) == 1)


@pytest.mark.thorough
def test_an_own_endpoint_that_fails_leaves_the_live_one_and_the_previous_one_ends_after_a_day(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(ROWS)
    harness.create_pooled("ownpool")
    tenant = harness.deployment.tenant("ownpool")

    def trained_as(number: int, serving: str) -> None:
        assert harness.run("tenant", "update", "ownpool", "--serving", serving) == 0
        harness.drop("ownpool", "incoming/wine/wine.csv", WINE + b"\n" * number)
        harness.ended("ownpool", count=number)

    def answers(number: int) -> None:
        eventually(lambda: served(harness, capsys, "ownpool").get(number, {}).get("percent") == 100, 60)

    trained_as(1, "real-time:approval=automatic")
    answers(1)
    first = served(harness, capsys, "ownpool")[1]["endpoint"]
    trained_as(2, "real-time")
    s3, key = harness.cloud.client("s3"), archive_of(harness, "ownpool")
    body = s3.get_object(Bucket=tenant.bucket, Key=key)["Body"].read()
    harness.put(tenant.bucket, key, b"no archive")
    assert harness.run("models", "approve", "ownpool", "2") == 0
    version = eventually(lambda: given_up(served(harness, capsys, "ownpool").get(2)), 60)
    assert "did not pass the ping health check" in version["reason"]
    assert harness.run("predict", "ownpool", "wine", str(rows)) == 0
    harness.put(tenant.bucket, key, body)
    assert harness.run("models", "approve", "ownpool", "2") == 0
    answers(2)
    assert removed_at(harness, datetime.now(UTC)) == []
    assert removed_at(harness, datetime.now(UTC) + KEPT_FOR + timedelta(minutes=5)) == [first]
    assert harness.run("serving", "roll-back", "ownpool", "wine", "2") == 1
    assert "no earlier version" in capsys.readouterr().err
    assert harness.run("serving", "stop", "ownpool", "wine", "--yes") == 0
    assert harness.run("tenant", "delete", "ownpool", "--yes") == 0
    removed_at(harness, datetime.now(UTC))
    eventually(lambda: endpoints(harness, "ownpool") == {})


@pytest.mark.thorough
def test_an_endpoint_for_which_there_is_no_quota_or_that_never_gets_ready_leaves_the_live_one(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (rows := tmp_path / "rows.csv").write_bytes(ROWS)
    bucket = harness.create("patient", "--serving", "real-time:approval=automatic")
    trained(harness, bucket, "patient", 1)
    eventually(lambda: served(harness, capsys, "patient").get(1, {}).get("percent") == 100, 60)
    (first,) = endpoints(harness, "patient")
    limit = "The account-level service limit 'ml.m5.large for endpoint usage' is 1 Instances"
    quota = {"operation": "CreateEndpoint", "code": "ResourceLimitExceeded", "message": limit, "times": 1}
    slow = {"operation": "Start", "code": "Slow", "message": "", "times": 10**6}
    for number, fault, reason in ((2, quota, "ml.m5.large for endpoint usage"), (3, slow, "is being created")):
        harness.cloud.plant_faults(fault)
        trained(harness, bucket, "patient", number)
        version = eventually(lambda: given_up(served(harness, capsys, "patient").get(number)), 300)  # noqa: B023
        assert reason in version["reason"]
        capsys.readouterr()
        assert harness.run("predict", "patient", "wine", str(rows), "--json") == 0
        assert json.loads(capsys.readouterr().out)["version"] == 1
    assert sorted(endpoints(harness, "patient").values()) == ["Creating", "InService"]
    removed_at(harness, datetime.now(UTC))  # it cannot be removed yet
    harness.cloud.plant_faults()
    eventually(lambda: set(endpoints(harness, "patient").values()) == {"InService"}, 60)
    removed_at(harness, datetime.now(UTC))
    eventually(lambda: endpoints(harness, "patient") == {first: "InService"})
    assert harness.run("tenant", "delete", "patient", "--yes") == 0
    removed_at(harness, datetime.now(UTC))


def archive_of(harness: Harness, tenant_id: str) -> str:
    """Return the key of the archive of a tenant's newest model."""
    tenant, sagemaker = harness.deployment.tenant(tenant_id), harness.cloud.client("sagemaker")
    newest, *_ = sagemaker.list_model_packages(
        ModelPackageGroupName=tenant.model_group, SortBy="CreationTime", SortOrder="Descending"
    )["ModelPackageSummaryList"]
    package = sagemaker.describe_model_package(ModelPackageName=newest["ModelPackageArn"])
    uri = str(package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"])
    return uri.removeprefix(f"s3://{tenant.bucket}/")


@pytest.mark.thorough
def test_an_asynchronous_endpoint_without_requests_has_no_instances_and_wakes_up(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(ROWS)
    sagemaker, scaling, watch = map(harness.cloud.client, ("sagemaker", "application-autoscaling", "cloudwatch"))
    bucket = harness.create("sleeper", "--serving", "asynchronous:approval=automatic:instances=0:instances_max=2")
    trained(harness, bucket, "sleeper", 1)
    eventually(lambda: served(harness, capsys, "sleeper").get(1, {}).get("percent") == 100, 60)
    endpoint = served(harness, capsys, "sleeper")[1]["endpoint"]

    def instances() -> int:
        variant = sagemaker.describe_endpoint(EndpointName=endpoint)["ProductionVariants"][0]
        return int(variant["CurrentInstanceCount"])

    eventually(lambda: instances() == 0)
    assert harness.run("predict", "sleeper", "wine", str(rows), "--timeout", "30") == 0
    history = count_history(endpoint, datetime.now(UTC) - timedelta(hours=1))
    assert [change.count for change in history.changes][:2] == [0, 1]
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 2)
    assert [alarm["AlarmName"] for alarm in alarms_of(watch, endpoint)] == [alarm_of(endpoint)]
    (billed,) = [e for e in SageMakerEndpoints(stack="trainyard").existing() if e.name == endpoint]
    assert isinstance(billed, BilledEndpoint)
    assert [change.count for change in billed.changes][:2] == [0, 1]
    assert harness.run("tenant", "delete", "sleeper", "--yes") == 0
    removed_at(harness, datetime.now(UTC))
    eventually(lambda: endpoints(harness, "sleeper") == {})
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
    assert alarms_of(watch, endpoint) == []


def alarms_of(watch: Any, endpoint: str) -> list[dict[str, Any]]:
    return list(watch.describe_alarms(AlarmNamePrefix=endpoint)["MetricAlarms"])


@pytest.mark.thorough
def test_a_canary_that_fails_its_calls_is_rolled_back_by_itself(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(ROWS)
    bucket = harness.create("miner", "--serving", "real-time:approval=automatic:canary_percent=50:bake_minutes=60")
    trained(harness, bucket, "miner", 1)
    eventually(lambda: served(harness, capsys, "miner").get(1, {}).get("percent") == 100, 60)
    trained(harness, bucket, "miner", 2)
    canary = eventually(lambda: at(50, served(harness, capsys, "miner").get(2)), 60)
    fault = {"operation": f"Container:{canary['endpoint']}", "code": "Fails", "message": "broken", "times": 1000}
    harness.cloud.plant_faults(fault)
    codes = [harness.run("predict", "miner", "wine", str(rows), "--key", f"customer {n}") for n in range(40)]
    assert 10 <= codes.count(1) < 40, "it answers its share alone"
    version = eventually(lambda: given_up(served(harness, capsys, "miner").get(2)), 60)
    assert "the live version 0 of" in version["reason"]
    codes = [harness.run("predict", "miner", "wine", str(rows), "--key", f"customer {n}") for n in range(8)]
    assert codes == [0] * 8
    harness.cloud.plant_faults()
    assert harness.run("tenant", "delete", "miner", "--yes") == 0
    removed_at(harness, datetime.now(UTC))


def at(percent: int, version: dict[str, Any] | None) -> dict[str, Any] | None:
    return version if version is not None and version["percent"] == percent else None
