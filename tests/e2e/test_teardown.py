"""Teardown: nothing is left of a deployment with tenants in the pool and with buckets."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.deployment import Deployment
from local.cloud import Cloud
from local.deploy import ARTIFACTS, deploy
from tests.e2e.conftest import OPTIONS, POLICY, Harness
from trainyard.adapters.aws import clients

VPC = {"SubnetIds": "subnet-1,subnet-2", "SecurityGroupIds": "sg-1"}


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Harness]:
    """A deployment of its own, since it does not outlive its test."""
    before = dict(os.environ)
    with Cloud() as cloud:
        os.environ |= cloud.environment()
        clients.forget()
        made = Harness(cloud, deploy(cloud, parameters=VPC | OPTIONS), Deployment("trainyard"))
        (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
        assert made.run("policy", "apply", "--yes", str(tmp_path / "policy.yaml")) == 0
        yield made
    os.environ.clear()
    os.environ |= before
    clients.forget()


def left(cloud: Cloud) -> dict[str, list[str]]:
    """Return what there is that costs money, or stands in the way of another deployment."""
    names = {
        "stacks": [
            s["StackName"]
            for s in cloud.client("cloudformation").describe_stacks()["Stacks"]
            if s["StackStatus"] != "DELETE_COMPLETE"
        ],
        "buckets": [b["Name"] for b in cloud.client("s3").list_buckets()["Buckets"] if b["Name"] != ARTIFACTS],
        "tables": cloud.client("dynamodb").list_tables()["TableNames"],
        "queues": cloud.client("sqs").list_queues().get("QueueUrls", []),
        "roles": [r["RoleName"] for r in cloud.client("iam").list_roles()["Roles"]],
        "schedules": [s["Name"] for s in cloud.client("scheduler").list_schedules()["Schedules"]],
        "machines": [m["name"] for m in cloud.client("stepfunctions").list_state_machines()["stateMachines"]],
        "functions": [f["FunctionName"] for f in cloud.client("lambda").list_functions()["Functions"]],
        "groups": [
            g["ModelPackageGroupName"]
            for g in cloud.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]
        ],
        "keys": [
            key["KeyId"]
            for key in cloud.client("kms").list_keys()["Keys"]
            if cloud.client("kms").describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"] == "Enabled"
        ],
    }
    return {what: found for what, found in names.items() if found}


@pytest.mark.thorough
def test_a_deployment_in_a_vpc_asks_for_data_explicitly_and_leaves_nothing(
    doomed: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    doomed.create("apart", "--retrain", "rate(1 day)")
    doomed.create_pooled("diver")
    doomed.drop("diver", "incoming/x/d.csv", b"target,a\n1,2\n")
    doomed.ended("diver")
    pipeline = doomed.cloud.client("sagemaker").describe_pipeline(PipelineName=doomed.outputs["PipelineName"])
    placed = {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert (
        pipeline["PipelineDefinition"].count(json.dumps({"VpcConfig": placed}, separators=(",", ":"))[1:-1]) == 3
    )
    role = doomed.cloud.client("iam").get_role_policy(RoleName="trainyard--apart", PolicyName="own-data")
    assert "ec2:CreateNetworkInterface" in str(role["PolicyDocument"])
    before = left(doomed.cloud)
    capsys.readouterr()
    assert doomed.run("teardown") == 0
    assert "nothing was deleted" in capsys.readouterr().out
    assert doomed.run("teardown", "--yes") == 1
    assert "2 tenants still have data" in capsys.readouterr().err
    assert left(doomed.cloud) == before
    assert doomed.run("teardown", "--yes", "--delete-data") == 0
    assert "trainyard was deleted" in capsys.readouterr().out
    assert left(doomed.cloud) == {}
