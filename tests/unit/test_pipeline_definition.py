"""The committed pipeline definition: it matches what the dispatcher starts."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from local.cloud import REPOSITORY
from local.sagemaker.definition import Context, InvalidParameter, parameter_values
from pipeline import publish
from testing.service import DEFAULTS
from tests.build import policy, request, tenant, tier
from trainyard.application.billing.cost_tags import COST_TAGS
from trainyard.domain.lifecycle import TELLING_STEP
from trainyard.domain.parameters import pipeline_parameters

TEXT = (REPOSITORY / "pipeline/definition.json").read_text(encoding="utf-8")
DEFINITION = json.loads(TEXT)
NAMES = {"RecorderArn": "arn:recorder", "Stage": "dev", "CodeUri": "s3://code/1"}


def steps(found: list[dict[str, Any]] = DEFINITION["Steps"]) -> Iterator[dict[str, Any]]:
    for step in found:
        yield step
        for branch in ("IfSteps", "ElseSteps"):
            yield from steps(step["Arguments"].get(branch, []) if isinstance(step["Arguments"], dict) else [])


def given() -> dict[str, str]:
    linear = policy().algorithm("linear")
    return pipeline_parameters(request(1, attempt=1), tenant(), tier(), linear, defaults=DEFAULTS)


def test_the_dispatcher_gives_every_parameter_and_no_other() -> None:
    assert {p["Name"] for p in DEFINITION["Parameters"]} == set(given())
    assert parameter_values(DEFINITION, given())["Attempt"] == 1


@pytest.mark.parametrize("wrong", [{"Surprise": "1"}, {"Attempt": "many"}, {"TenantId": ""}])
def test_a_wrong_parameter_is_refused_as_sagemaker_would(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter, match=next(iter(wrong))):
        parameter_values(DEFINITION, given() | wrong)


def test_the_steps_are_the_ones_the_design_names() -> None:
    assert [step["Name"] for step in steps()] == [
        "Preprocess",
        "Train",
        "Evaluate",
        "QualityIsGoodEnough",
        "Register",
        "Record",
        "QualityTooLow",
    ]
    assert [step["Name"] for step in steps() if step["Type"] == "Lambda"] == [TELLING_STEP]


def test_every_job_runs_as_the_tenant_tagged_encrypted_and_within_its_runtime() -> None:
    jobs = [step["Arguments"] for step in steps() if step["Type"] in ("Processing", "Training")]
    assert len(jobs) == 3
    for job in jobs:
        assert job["RoleArn"] == {"Get": "Parameters.JobRoleArn"}
        assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": {"Get": "Parameters.MaxRuntimeSeconds"}}
        output = job.get("OutputDataConfig") or job["ProcessingOutputConfig"]
        assert output["KmsKeyId"] == {"Get": "Parameters.OutputKmsKeyId"}
        network = job.get("NetworkConfig") or job
        assert network["EnableNetworkIsolation"] == {"Get": "Parameters.NetworkIsolation"}
        assert network["EnableInterContainerTrafficEncryption"] == {"Get": "Parameters.TrafficEncryption"}


def test_a_model_is_registered_if_it_is_good_enough_and_better_than_the_baseline() -> None:
    (condition,) = [step["Arguments"]["Conditions"] for step in steps() if step["Name"] == "QualityIsGoodEnough"]
    assert [(c["LeftValue"]["Std:JsonGet"]["Path"], c["RightValue"]) for c in condition] == [
        ("quality.value", {"Get": "Parameters.MinimumQuality"}),
        ("verdict.beats_baseline", 1),
    ]


RUNS_NO_JOB = frozenset({"Condition", "Fail", "Lambda", "RegisterModel", "Model", "Callback"})


def untagged(found: list[dict[str, Any]]) -> list[str]:
    """Return the steps that may create a job and lack a cost tag: all but those known to run none."""
    return [
        step["Name"]
        for step in steps(found)
        if step["Type"] not in RUNS_NO_JOB
        and not {tag["Key"] for tag in step["Arguments"].get("Tags", ())} >= set(COST_TAGS)
    ]


def test_every_step_that_creates_a_job_carries_every_cost_tag() -> None:
    assert untagged(DEFINITION["Steps"]) == []
    tags = DEFINITION["Steps"][0]["Arguments"]["Tags"]
    tuning = {"Name": "Tune", "Type": "Tuning", "Arguments": {"Tags": tags[1:]}}
    branch = {"Name": "If", "Type": "Condition", "Arguments": {"IfSteps": [tuning], "ElseSteps": []}}
    assert untagged([branch]) == ["Tune"]


def test_no_job_is_tried_again_that_may_have_been_paid() -> None:
    """Reservations count each job once: what failed for want of capacity goes back to the queue instead."""
    for step in steps():
        for retried in step.get("RetryPolicies", []):
            kinds = set(retried["ExceptionType"])
            assert kinds <= {"Step.SERVICE_FAULT", "Step.THROTTLING"}, step["Name"]


def test_a_model_is_registered_for_approval_in_the_tenants_group_with_its_metrics() -> None:
    (register,) = [step["Arguments"] for step in steps() if step["Type"] == "RegisterModel"]
    assert register["ModelApprovalStatus"] == "PendingManualApproval"
    assert register["ModelPackageGroupName"] == {"Get": "Parameters.ModelPackageGroupName"}
    assert "Statistics" in register["ModelMetrics"]["ModelQuality"]


def test_what_is_published_has_every_name_filled_in_and_says_which_is_missing() -> None:
    filled = publish.filled(TEXT, NAMES)
    assert b"${" not in filled
    with pytest.raises(ValueError, match="RecorderArn"):
        publish.filled(TEXT, {"Stage": "dev", "CodeUri": "s3://code/1"})


def test_jobs_run_in_a_vpc_where_there_is_one() -> None:
    vpc = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    placed = json.loads(publish.in_vpc(TEXT, vpc))["Steps"]
    for step in placed:
        if step["Type"] == "Training":
            assert step["Arguments"]["VpcConfig"] == vpc
        elif step["Type"] == "Processing":
            assert step["Arguments"]["NetworkConfig"]["VpcConfig"] == vpc
    assert publish.in_vpc(TEXT, None) == TEXT
    for half in ({"Subnets": ["subnet-1"], "SecurityGroupIds": [""]}, {"SecurityGroupIds": ["sg-1"]}):
        with pytest.raises(ValueError, match="need both SubnetIds and SecurityGroupIds"):
            publish.in_vpc(TEXT, half)


def test_the_published_archive_is_the_same_for_the_same_scripts() -> None:
    scripts = {"train.py": b"print()"}
    assert publish.packed(scripts) == publish.packed(scripts)


def test_references_and_functions_resolve() -> None:
    context = Context(
        parameters={"A": "s3://b", "N": 3},
        execution={"PipelineExecutionId": "e1"},
        read_json=lambda uri: {"quality": {"value": 0.7}, "from": uri},
        steps={
            "Evaluate": {"PropertyFiles": {"Evaluation": "s3://b/e.json"}},
            "Train": {"Model": {"Uri": "s3://m"}},
        },
    )
    quality = {
        "Std:JsonGet": {
            "PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Evaluation"},
            "Path": "quality.value",
        }
    }
    assert context.resolve({"a": [{"Get": "Steps.Train.Model.Uri"}, quality]}) == {"a": ["s3://m", 0.7]}
    assert (
        context.resolve({"Std:Join": {"On": "/", "Values": [{"Get": "Parameters.A"}, {"Get": "Parameters.N"}]}})
        == "s3://b/3"
    )
    condition = {"Type": "GreaterThanOrEqualTo", "LeftValue": quality, "RightValue": 0.7}
    assert context.holds(condition)
    assert not context.holds(condition | {"RightValue": 0.71})


def test_logs_of_jobs_are_kept_for_a_time_and_those_of_others_are_left_alone() -> None:
    with mock_aws():
        logs = boto3.client("logs", region_name="us-east-1")
        theirs, ours, new = publish.JOB_LOGS

        def kept() -> dict[str, int | None]:
            return {g["logGroupName"]: g.get("retentionInDays") for g in logs.describe_log_groups()["logGroups"]}

        logs.create_log_group(logGroupName=theirs)
        logs.create_log_group(logGroupName=f"{ours}Elsewhere")
        publish.bound_job_logs(30, before=None)
        assert kept() == {theirs: None, ours: 30, new: 30, f"{ours}Elsewhere": None}
        publish.bound_job_logs(7, before=30)
        assert kept()[ours] == 7
        logs.put_retention_policy(logGroupName=ours, retentionInDays=365)
        publish.bound_job_logs(30, before=7)
        assert (kept()[ours], kept()[theirs]) == (365, None)
