"""Two stages in one account, where names of stacks and tenants are prefixes of each other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.deployment import Deployment
from local.deploy import deploy
from tests.e2e.conftest import OPTIONS, POLICY, Harness
from tests.e2e.test_tenants import WINE
from trainyard.domain.pipelines import PIPELINES as PIPELINE_VARIANTS
from trainyard.domain.pipelines import TRANSFORM
from trainyard.domain.requests import State


@pytest.fixture
def prod(harness: Harness, tmp_path: Path) -> Iterator[Harness]:
    outputs = deploy(harness.cloud, "trainyard-prod", {"Stage": "prod", **OPTIONS})
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    stage = Harness(harness.cloud, outputs, Deployment("trainyard-prod"), "trainyard-prod")
    assert stage.run("policy", "apply", "--yes", str(policy)) == 0
    yield stage
    harness.cloud.client("cloudformation").delete_stack(StackName="trainyard-prod")


@pytest.mark.thorough
def test_two_stages_share_no_name_and_what_is_removed_from_one_stays_in_the_other(
    harness: Harness, prod: Harness
) -> None:
    """A single hyphen would give tenant prod-acme of one stack and tenant acme of the other the same names."""
    dev = harness
    dev.create("prod-acme")
    prod.create("acme")
    ours, theirs = dev.deployment.tenant("prod-acme"), prod.deployment.tenant("acme")
    assert ours.role_arn.rpartition("/")[2] == "trainyard--prod-acme"
    assert theirs.role_arn.rpartition("/")[2] == "trainyard-prod--acme"
    assert ours.bucket != theirs.bucket
    for stage, name in ((dev, "prod-acme"), (prod, "acme")):
        stage.drop(name, "incoming/wine/wine.csv", WINE)
    for stage, name in ((dev, "prod-acme"), (prod, "acme")):
        (request,) = stage.ended(name)
        assert (request.state, request.reason) == (State.SUCCEEDED, None)
        assert request.outcome is not None
        group = str(request.outcome.model_package_arn).split("/")[1]
        assert group == stage.deployment.tenant(name).model_group
    assert dev.run("tenant", "delete", "prod-acme", "--yes", "--purge") == 0
    assert prod.run("tenant", "repair", "acme") == 0
    assert prod.deployment.tenant("acme").state.value == "ACTIVE"
    assert prod.run("tenant", "delete", "acme", "--yes", "--purge") == 0


@pytest.mark.thorough
def test_there_are_as_many_pipelines_however_many_tenants_there_are(harness: Harness) -> None:
    """SageMaker's quota of pipelines bounds designs that make one for each tenant."""
    for number in range(5):
        harness.create(f"one-of-many-{number}", tier="basic" if number % 2 else "premium")
    harness.drop("one-of-many-1", "incoming/wine/wine.csv", WINE)
    harness.ended("one-of-many-1")
    pages = (
        harness.cloud.client("sagemaker").get_paginator("list_pipelines").paginate(PipelineNamePrefix="trainyard")
    )
    names = [summary["PipelineName"] for page in pages for summary in page["PipelineSummaries"]]
    trainings = [variant for variant in PIPELINE_VARIANTS if variant != TRANSFORM]
    expected = [f"trainyard-training-{variant}".rstrip("-") for variant in trainings]
    assert sorted(names) == sorted([*expected, "trainyard-transform"])


@pytest.mark.thorough
def test_what_bears_a_tenants_name_and_another_stacks_tags_is_neither_taken_over_nor_removed(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    iam, s3, sagemaker = (harness.cloud.client(name) for name in ("iam", "s3", "sagemaker"))
    tags = [
        {"Key": "trainyard:tenant", "Value": "taken"},
        {"Key": "trainyard:stack", "Value": "another"},
        {"Key": "trainyard:stage", "Value": "dev"},
    ]
    bucket = "trainyard-123456789012-t-taken"

    def refused(what: str) -> None:
        capsys.readouterr()
        assert harness.run("tenant", "create", "taken", "--tier", "basic", "--target", "y") == 1
        assert f"the {what} exists already, and by its tags" in capsys.readouterr().err

    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="theirs", Body=b"x")
    refused(f"bucket {bucket}")
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    refused(f"bucket {bucket}")
    assert harness.run("tenant", "delete", "taken", "--yes", "--purge") == 0
    assert s3.get_object(Bucket=bucket, Key="theirs")["Body"].read() == b"x"
    s3.delete_object(Bucket=bucket, Key="theirs")
    s3.delete_bucket(Bucket=bucket)

    role = iam.create_role(
        RoleName="trainyard--taken", Path="/trainyard/trainyard/tenants/", AssumeRolePolicyDocument="{}", Tags=tags
    )["Role"]
    refused("role trainyard--taken")
    assert harness.run("tenant", "delete", "taken", "--yes", "--purge") == 0
    assert iam.get_role(RoleName="trainyard--taken")["Role"]["Arn"] == role["Arn"]
    iam.delete_role(RoleName="trainyard--taken")

    sagemaker.create_model_package_group(ModelPackageGroupName="trainyard--taken", Tags=tags)
    refused("model group trainyard--taken")
    assert harness.run("tenant", "delete", "taken", "--yes", "--purge") == 0
    assert sagemaker.describe_model_package_group(ModelPackageGroupName="trainyard--taken")
    sagemaker.delete_model_package_group(ModelPackageGroupName="trainyard--taken")
    harness.create("taken")
