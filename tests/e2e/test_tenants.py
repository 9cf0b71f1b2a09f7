"""Tenants end to end: created, changed, moved, checked and deleted by the deployed state machines."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local.cloud import REGION
from local.demo import data
from tests.e2e.conftest import Harness, eventually
from trainyard.domain.executions import month_of
from trainyard.domain.requests import State
from trainyard.domain.tenants import RoleState, TenantState
from trainyard.domain.waves import WaveState

WINE = data.bundled("wine")
CREATE = ("Record", "Storage", "Role", "ModelGroup", "Schedule", "Limits", "Activate")
DELETE = (
    "Begin",
    "Cancel",
    "StopRuns",
    "Endpoints",
    "Models",
    "Schedule",
    "Objects",
    "Storage",
    "Role",
    "Forget",
)
Capture = pytest.CaptureFixture[str]


def account(harness: Harness, tenant_id: str) -> dict[str, Any]:
    """Return all that the account holds of a tenant, as text in which its id reads TENANT."""
    cloud = harness.cloud
    s3, iam, bucket = cloud.client("s3"), cloud.client("iam"), f"trainyard-123456789012-t-{tenant_id}"
    role, group = f"trainyard--{tenant_id}", f"trainyard--{tenant_id}"

    def told(call: Callable[[], Any]) -> Any:
        try:
            answer = call()
        except ClientError:
            return None
        for noise in ("ResponseMetadata", "CreationTime", "CreationDate", "LastModificationDate"):
            answer.pop(noise, None)
        return answer

    def of_role() -> Any:
        found = iam.get_role(RoleName=role)["Role"]
        return {
            name: found.get(name) for name in ("Arn", "AssumeRolePolicyDocument", "PermissionsBoundary", "Tags")
        }

    record = harness.deployment.tenants.get(tenant_id)
    found = {
        "record": record
        and (record.state, record.tier, record.bucket, record.settings, record.role, record.operation),
        "cors": told(lambda: s3.get_bucket_cors(Bucket=bucket)),
        "location": told(
            lambda: {"owner": harness.deployment.tenants.owner_of(bucket, "incoming/x/y") is not None}
        ),
        "policy": told(lambda: s3.get_bucket_policy(Bucket=bucket)),
        "versioning": told(lambda: s3.get_bucket_versioning(Bucket=bucket)),
        "encryption": told(lambda: s3.get_bucket_encryption(Bucket=bucket)),
        "block": told(lambda: s3.get_public_access_block(Bucket=bucket)),
        "lifecycle": told(lambda: s3.get_bucket_lifecycle_configuration(Bucket=bucket)),
        "notification": told(lambda: s3.get_bucket_notification_configuration(Bucket=bucket)),
        "tags": told(lambda: s3.get_bucket_tagging(Bucket=bucket)),
        "role": told(of_role),
        "role policy": told(lambda: iam.get_role_policy(RoleName=role, PolicyName="own-data")),
        "group": told(lambda: cloud.client("sagemaker").describe_model_package_group(ModelPackageGroupName=group)),
        "schedule": told(
            lambda: cloud.client("scheduler").get_schedule(
                GroupName="trainyard-retraining", Name=f"retrain-{tenant_id}"
            )
        ),
        "limits": re.findall(rf"^ +{tenant_id}: .*$", harness.deployment.policies.in_force().text, re.MULTILINE),
    }
    return dict(json.loads(re.sub(rf"\b{tenant_id}\b", "TENANT", json.dumps(found, default=str))))


def spec(tenant_id: str) -> dict[str, Any]:
    return {
        "tenant": {
            "name": tenant_id,
            "tier": "basic",
            "target": "target",
            "algorithm": "linear",
            "retrain": "rate(1 day)",
            "weight": 2,
        }
    }


# --- create ------------------------------------------------------------------------------------------------------


def test_a_machine_creates_a_tenant_and_tells_where_to_drop_data_and_read_results(harness: Harness) -> None:
    first = harness.finished(harness.start("create", spec("onboarded")))
    assert first["status"] == "SUCCEEDED"
    bucket = "s3://trainyard-123456789012-t-onboarded"
    assert first["output"]["drop_data_at"] == f"{bucket}/incoming/<data set>/"
    assert first["output"]["read_results_at"]["receipts"] == f"{bucket}/receipts/<data set>/<request>.json"
    before = account(harness, "onboarded")
    assert None not in before.values()
    taken = harness.finished(harness.start("create", spec("onboarded")))
    assert taken["status"] == "FAILED"
    assert taken["cause"].endswith("the name onboarded is taken: choose another")
    repair = {"tenant": {"name": "onboarded", "repair": True}}
    assert harness.finished(harness.start("create", repair))["output"] == first["output"]
    assert account(harness, "onboarded") == before


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "step"), list(enumerate(CREATE)))
def test_a_creation_disturbed_at_any_task_ends_as_an_undisturbed_one_when_run_again(
    harness: Harness, number: int, step: str
) -> None:
    """Odd tasks fail after they have taken effect, even ones before."""
    if harness.deployment.tenants.get("calm") is None:
        assert harness.finished(harness.start("create", spec("calm")))["status"] == "SUCCEEDED"
    name, effect = f"shaken-{number}", ("none", "lost")[number % 2]
    harness.cloud.plant_faults(
        {"operation": f"Task:create:{step}", "code": "Broken", "message": "it broke", "times": 6, "effect": effect}
    )
    failed = harness.finished(harness.start("create", spec(name)))
    assert failed["status"] == "FAILED"
    assert "Broken: it broke" in failed["cause"]
    known = harness.deployment.tenants.get(name)
    if known is not None:
        assert "Fix the cause and run it again" in failed["cause"]
        assert step == "Activate" or known.state is TenantState.CREATING
    harness.cloud.plant_faults()
    assert harness.finished(harness.start("create", spec(name)))["status"] == "SUCCEEDED"
    assert account(harness, name) == account(harness, "calm")


def test_a_task_that_fails_twice_is_tried_again_by_itself(harness: Harness) -> None:
    harness.cloud.plant_faults({"operation": "Task:create:Storage", "code": "Slow", "message": "slow", "times": 2})
    assert harness.finished(harness.start("create", spec("hiccup")))["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("Acme", "acme would be valid"),
        ("acme.labs", "acme-labs would be valid"),
        ("acmé", "is not a valid tenant id"),
        ("a" * 25, "at most 24"),
        ("pool", "reserved"),
    ],
)
def test_a_name_that_cannot_be_is_refused_at_once(
    harness: Harness, wanted: str, reason: str, capsys: Capture
) -> None:
    assert harness.run("tenant", "create", wanted, "--tier", "basic", "--target", "y") == 1
    assert reason in capsys.readouterr().err


def test_a_bucket_of_another_account_is_told_apart(harness: Harness, capsys: Capture) -> None:
    other = boto3.client(
        "s3",
        endpoint_url=harness.cloud.url,
        region_name=REGION,
        aws_access_key_id="999999999999",
        aws_secret_access_key="other",
    )
    other.create_bucket(Bucket="trainyard-123456789012-t-squatted")
    assert harness.run("tenant", "create", "squatted", "--tier", "basic", "--target", "y") == 1
    assert "belongs to another AWS account" in capsys.readouterr().err
    assert harness.run("tenant", "delete", "squatted", "--yes") == 0
    assert other.head_bucket(Bucket="trainyard-123456789012-t-squatted")


# --- update, suspend, drift --------------------------------------------------------------------------------------


def test_an_update_changes_what_is_named_and_nothing_else(harness: Harness, capsys: Capture) -> None:
    harness.create("changing", "--retrain", "rate(1 day)", "--hyperparameter", "max_iter=50")
    options = (
        "--algorithm",
        "linear",
        "--hyperparameter",
        "regularization=2.0",
        "--weight",
        "4",
        "--budget-usd",
        "9",
    )
    assert harness.run("tenant", "update", "changing", *options) == 0
    tenant = harness.deployment.tenant("changing")
    assert (tenant.settings.algorithm, tenant.settings.target) == ("linear", "target")
    assert (dict(tenant.settings.hyperparameters), tenant.retrain_schedule) == (
        {"regularization": 2.0},
        "rate(1 day)",
    )
    limits = harness.deployment.policies.current().tenant("changing")
    assert (limits.weight, limits.budget and str(limits.budget.limit_usd)) == (4, "9")
    assert harness.run("tenant", "update", "changing", "--clear-limits", "--weight", "4") == 0
    assert harness.deployment.policies.current().tenant("changing").budget is None
    assert harness.run("tenant", "update", "changing", *options) == 0
    before = account(harness, "changing")
    assert harness.run("tenant", "update", "changing", *options) == 0
    assert account(harness, "changing") == before
    capsys.readouterr()
    assert harness.run("tenant", "update", "changing", "--hyperparameter", "depth=3") == 1
    assert "linear has no hyperparameter 'depth'; it has max_iter, regularization" in capsys.readouterr().err
    assert harness.run("tenant", "update", "changing", "--hyperparameter", "regularization=0") == 1
    assert "from 1e-06 to 1e+06" in capsys.readouterr().err


@pytest.mark.thorough
def test_what_waits_of_a_suspended_tenant_goes_on_when_it_is_resumed(harness: Harness) -> None:
    harness.create("waiting")
    assert harness.run("pause", "tenant", "waiting") == 0
    harness.drop("waiting", "incoming/wine/wine.csv", WINE)
    eventually(lambda: harness.requests("waiting"))
    for _ in range(2):
        assert harness.run("tenant", "suspend", "waiting") == 0
    assert harness.requests("waiting")[0].state is State.QUEUED
    assert harness.run("tenant", "resume", "waiting") == 0
    (request,) = harness.ended("waiting")
    assert request.state is State.SUCCEEDED


def test_what_was_removed_behind_our_back_is_told_and_made_again(harness: Harness, capsys: Capture) -> None:
    harness.create("drifted", "--retrain", "rate(1 day)")
    whole = account(harness, "drifted")
    bucket, cloud = harness.deployment.tenant("drifted").bucket, harness.cloud
    capsys.readouterr()
    assert harness.run("tenant", "check", "drifted") == 0
    assert capsys.readouterr().out.startswith("none")
    cloud.client("iam").delete_role_policy(RoleName="trainyard--drifted", PolicyName="own-data")
    cloud.client("iam").delete_role(RoleName="trainyard--drifted")
    cloud.client("s3").delete_bucket_policy(Bucket=bucket)
    cloud.client("s3").delete_bucket_cors(Bucket=bucket)
    cloud.client("s3").put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    cloud.client("scheduler").delete_schedule(GroupName="trainyard-retraining", Name="retrain-drifted")
    assert harness.run("--json", "tenant", "check", "drifted") == 0
    found = [line["drift"] for line in json.loads(capsys.readouterr().out)]
    for part in (
        "role trainyard--drifted is missing",
        "the policy of bucket",
        "sends no events",
        "uploads from the console",
        "schedule",
    ):
        assert any(part in line for line in found), (part, found)
    assert harness.run("tenant", "repair", "drifted") == 0
    assert account(harness, "drifted") == whole


def test_a_bucket_that_was_removed_by_hand_is_told_and_made_again(harness: Harness, capsys: Capture) -> None:
    bucket = harness.create("razed")
    whole = account(harness, "razed")
    s3 = harness.cloud.client("s3")
    for version in s3.list_object_versions(Bucket=bucket)["Versions"]:
        s3.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
    s3.delete_bucket(Bucket=bucket)
    capsys.readouterr()
    assert harness.run("tenant", "check", "razed") == 0
    assert f"the bucket {bucket} is missing" in " ".join(capsys.readouterr().out.split())
    assert harness.run("tenant", "repair", "razed") == 0
    assert account(harness, "razed") == whole
    assert b"incoming/<data set>/" in s3.get_object(Bucket=bucket, Key="receipts/README.txt")["Body"].read()
    assert harness.run("tenant", "repair", "razed") == 0
    assert len(s3.list_object_versions(Bucket=bucket)["Versions"]) == 1, "a repetition makes no other version"


def test_a_role_that_somebody_widened_is_told(harness: Harness, capsys: Capture) -> None:
    harness.create("widened")
    wide = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam = harness.cloud.client("iam")
    iam.put_role_policy(RoleName="trainyard--widened", PolicyName="more", PolicyDocument=json.dumps(wide))
    capsys.readouterr()
    assert harness.run("tenant", "check", "widened") == 0
    assert "has additional policies" in capsys.readouterr().out


# --- pool --------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_pooled_tenant_has_the_same_contract_and_a_role_from_its_first_request_on(harness: Harness) -> None:
    harness.create("swimmer", tier="premium")
    tenant, iam = harness.deployment.tenant("swimmer"), harness.cloud.client("iam")
    assert (tenant.root, tenant.role) == ("swimmer/", RoleState.NONE)
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName="trainyard.pool--swimmer")
    harness.drop("swimmer", "incoming/wine/wine.csv", WINE)
    (request,) = harness.ended("swimmer")
    assert request.state is State.SUCCEEDED
    assert request.outcome is not None
    assert str(request.outcome.model_uri).startswith("s3://trainyard-123456789012-pool/swimmer/models/wine/")
    assert harness.receipt(request)["state"] == "SUCCEEDED"
    assert harness.deployment.tenant("swimmer").role is RoleState.MADE
    assert iam.get_role(RoleName="trainyard.pool--swimmer")


@pytest.mark.thorough
def test_a_move_out_of_the_pool_takes_data_models_and_waiting_requests_along(
    harness: Harness, capsys: Capture, tmp_path: Path
) -> None:
    for name in ("mover", "mover-2"):
        harness.create_pooled(name)
    harness.drop("mover-2", "incoming/other/o.csv", WINE)
    harness.drop("mover", "incoming/wine/wine.csv", WINE)
    harness.ended("mover")
    harness.ended("mover-2")
    assert harness.run("pause", "tenant", "mover") == 0
    harness.drop("mover", "incoming/later/wine.csv", WINE)
    eventually(lambda: len(harness.requests("mover")) == 2)
    assert harness.run("resume", "tenant", "mover") == 0
    harness.ended("mover", 2)
    (rows := tmp_path / "rows.csv").write_bytes(b"".join(WINE.splitlines(keepends=True)[:4]))
    assert harness.run("models", "approve", "mover", "1") == 0
    eventually(lambda: harness.run("predict", "mover", "wine", str(rows)) == 0, 60)
    assert harness.run("tenant", "suspend", "mover") == 0
    assert harness.run("tenant", "move", "mover", "--tier", "basic") == 0
    moved = harness.deployment.tenant("mover")
    assert (moved.tier, moved.bucket, moved.state) == (
        "basic",
        "trainyard-123456789012-t-mover",
        TenantState.SUSPENDED,
    )
    s3, sagemaker = harness.cloud.client("s3"), harness.cloud.client("sagemaker")
    pool = s3.list_object_versions(Bucket=harness.outputs["PoolBucket"], Prefix="mover/")
    assert not pool.get("Versions")
    neighbour = s3.list_objects_v2(Bucket=harness.outputs["PoolBucket"], Prefix="mover-2/")
    assert neighbour["KeyCount"] > 1
    for summary in sagemaker.list_model_packages(ModelPackageGroupName=moved.model_group)[
        "ModelPackageSummaryList"
    ]:
        found = sagemaker.describe_model_package(ModelPackageName=summary["ModelPackageArn"])
        url = found["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
        bucket, _, key = url.removeprefix("s3://").partition("/")
        assert bucket == moved.bucket
        assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] > 0
    assert len(harness.requests("mover")) == 2, "what was copied is no upload"
    assert harness.run("tenant", "resume", "mover") == 0
    capsys.readouterr()
    assert harness.run("predict", "mover", "wine", str(rows), "--json") == 0, "what answered before still does"
    assert json.loads(capsys.readouterr().out)["version"] == 1
    harness.age_role("mover")
    harness.drop("mover", "incoming/wine/wine.csv", WINE + WINE.splitlines(keepends=True)[1])
    assert harness.ended("mover", 3)[-1].state is State.SUCCEEDED
    assert harness.run("models", "approve", "mover", "3") == 0

    def third_answers() -> bool:
        capsys.readouterr()
        assert harness.run("predict", "mover", "wine", str(rows), "--json") == 0
        return bool(json.loads(capsys.readouterr().out)["version"] == 3)

    eventually(third_answers, 60)


@pytest.mark.thorough
def test_a_move_between_tiers_asks_for_what_waits_once_more(harness: Harness) -> None:
    harness.create("climber")
    assert harness.run("pause", "tenant", "climber") == 0
    harness.drop("climber", "incoming/wine/wine.csv", WINE)
    eventually(lambda: harness.requests("climber"))
    assert harness.run("tenant", "move", "climber", "--tier", "standard") == 0
    assert harness.run("tenant", "move", "climber", "--tier", "standard") == 0
    assert harness.deployment.scheduler.tables.queues.get("standard", "climber").paused
    eventually(lambda: len(harness.requests("climber")) == 2)
    assert harness.run("resume", "tenant", "climber") == 0
    found = {(r.tier, r.state) for r in harness.ended("climber", 2)}
    assert found == {("basic", State.CANCELLED), ("standard", State.SUCCEEDED)}


def test_the_bus_tells_what_becomes_of_a_tenant(harness: Harness) -> None:
    sqs = harness.cloud.client("sqs")
    queue = harness.listen("told", {"source": ["trainyard"], "detail": {"tenant_id": ["heard"]}})
    harness.create("heard")
    for change in (("suspend",), ("resume",), ("move", "--tier", "standard"), ("delete", "--yes")):
        assert harness.run("tenant", change[0], "heard", *change[1:]) == 0
    told: list[str] = []

    def all_told() -> bool:
        found = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        told.extend(json.loads(message["Body"])["detail-type"] for message in found)
        return len(told) == 5

    eventually(all_told)
    assert sorted(told) == [f"Tenant {what}" for what in ("Created", "Deleted", "Moved", "Resumed", "Suspended")]


# --- own key, own account, credentials ---------------------------------------------------------------------------


def test_a_tenants_own_key_is_lent_by_grants_and_taken_back(harness: Harness, capsys: Capture) -> None:
    kms = harness.cloud.client("kms")
    key = harness.lent_key()
    harness.create("keyed", "--kms-key", key)

    def grantees() -> set[str]:
        return {g["GranteePrincipal"].rpartition("/")[2] for g in kms.list_grants(KeyId=key)["Grants"]}

    assert "trainyard--keyed" in grantees()
    operations = {
        g["GranteePrincipal"].rpartition("/")[2]: g["Operations"] for g in kms.list_grants(KeyId=key)["Grants"]
    }
    (dispatcher,) = [name for name in operations if "DispatcherFunctionRole" in name]
    assert sorted(operations[dispatcher]) == ["Decrypt", "GenerateDataKey"], "it copies versions to be trained on"
    granted = len(kms.list_grants(KeyId=key)["Grants"])
    assert harness.run("tenant", "repair", "keyed") == 0
    assert len(kms.list_grants(KeyId=key)["Grants"]) == granted
    harness.drop("keyed", "incoming/wine/wine.csv", WINE)
    (request,) = harness.ended("keyed")
    assert request.state is State.SUCCEEDED
    arn = str(request.execution_arn)
    listed = harness.cloud.client("sagemaker").list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)
    assert {"Name": "OutputKmsKeyId", "Value": key} in listed["PipelineParameters"]
    assert harness.run("tenant", "delete", "keyed", "--yes") == 0
    assert grantees() == set()
    capsys.readouterr()
    gone = key.rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000"
    assert harness.run("tenant", "create", "keyless", "--tier", "basic", "--target", "y", "--kms-key", gone) == 1
    assert "cannot be used by the tenant's jobs" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_version_to_be_trained_on_is_copied_with_the_tenants_own_key(harness: Harness) -> None:
    s3 = harness.cloud.client("s3")
    key = harness.lent_key()
    bucket = harness.create("keyed-each", "--kms-key", key, "--every-upload", "--algorithm", "linear")
    s3.put_object(
        Bucket=bucket, Key="incoming/wine/wine.csv", Body=WINE, ServerSideEncryption="aws:kms", SSEKMSKeyId=key
    )
    (request,) = harness.ended("keyed-each")
    assert (request.state, request.reason) == (State.SUCCEEDED, None)
    copies = [
        o["Key"] for o in s3.list_objects_v2(Bucket=bucket, Prefix="reports/")["Contents"] if "/input/" in o["Key"]
    ]
    assert [s3.head_object(Bucket=bucket, Key=name).get("SSEKMSKeyId") for name in copies] == [key]
    assert harness.run("tenant", "delete", "keyed-each", "--yes") == 0


def test_a_dry_run_that_is_not_in_so_many_words_deletes_nothing(harness: Harness) -> None:
    harness.create("worded")
    before = account(harness, "worded")
    for said in ({"dry_run": "true"}, {"dry_run": 1}, {"purge": "no"}):
        ended = harness.finished(harness.start("delete", {"tenant": {"name": "worded"}, **said}))
        assert ended["status"] == "FAILED"
        assert "nothing was done" in str(ended["cause"])
    assert account(harness, "worded") == before


def test_roles_of_idle_pooled_tenants_are_removed_and_others_kept(harness: Harness) -> None:
    harness.create("idle", tier="premium")
    harness.create("busy", tier="premium")
    functions = harness.cloud.client("lambda")
    for name in ("idle", "busy"):
        functions.invoke(
            FunctionName=harness.outputs["RolesFunction"], Payload=json.dumps({"make": name}).encode()
        )
    assert harness.run("pause", "tenant", "busy") == 0
    harness.drop("busy", "incoming/wine/wine.csv", WINE)
    eventually(lambda: harness.requests("busy"))
    answer = functions.invoke(FunctionName=harness.outputs["RolesFunction"], Payload=b"{}")
    removed = json.loads(answer["Payload"].read())["removed"]
    assert "idle" in removed
    assert "busy" not in removed
    assert harness.run("resume", "tenant", "busy") == 0
    roles = [r["RoleName"] for r in harness.cloud.client("iam").list_roles()["Roles"]]
    assert ("trainyard.pool--idle" in roles, "trainyard.pool--busy" in roles) == (False, True)


# --- algorithms --------------------------------------------------------------------------------------------------

NEIGHBOURS = """
name: neighbours
description: Votes of the nearest rows
hyperparameters:
  neighbours: {kind: integer, default: 5, minimum: 1, maximum: 50}
  weighting: {kind: text, choices: [uniform, distance]}
suffixes: [.csv]
network_isolation: true
quality_metric: balanced_accuracy
instances:
  - {data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.xlarge}
"""
TRAIN = """
import train
from sklearn.neighbors import KNeighborsClassifier

def build_estimator(algorithm, problem, chosen):
    return KNeighborsClassifier(n_neighbors=chosen["neighbours"], weights=chosen.get("weighting", "uniform"))
"""


@pytest.mark.thorough
def test_a_registered_algorithm_trains_with_its_own_script_in_the_one_pipeline(
    harness: Harness, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "neighbours.yaml").write_text(NEIGHBOURS, encoding="utf-8")
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shipped = (Path(__file__).parents[2] / "pipeline/steps/train.py").read_text(encoding="utf-8")
    head, _, tail = shipped.partition("def build_estimator(")
    own = TRAIN.replace("import train\n", "") + "\n\nif __name__" + tail.partition("\nif __name__")[2]
    (scripts / "train.py").write_text(head + own, encoding="utf-8")
    register = ("algorithm", "register", str(tmp_path / "neighbours.yaml"), "--scripts", str(scripts))
    assert harness.run(*register, "--dry-run") == 0
    assert "neighbours" not in harness.deployment.policies.current().catalogue
    assert harness.run(*register) == 0
    assert harness.run("algorithm", "list") == 0
    capsys.readouterr()
    assert (
        harness.run("tenant", "create", "knn", "--tier", "basic", "--target", "target", "--algorithm", "nearest")
        == 1
    )
    assert "the catalogue has gradient-boosting, linear, neighbours" in capsys.readouterr().err
    harness.create("knn", "--algorithm", "neighbours", "--hyperparameter", "neighbours=3")
    harness.drop("knn", "incoming/wine/wine.csv", WINE)
    harness.drop("knn", "incoming/wine2/wine.parquet", WINE)
    done, refused = sorted(harness.ended("knn", 2), key=lambda r: r.data_set)
    assert (done.state, refused.state) == (State.SUCCEEDED, State.REJECTED)
    assert "reads csv from objects that end in .csv" in str(refused.reason)
    assert done.outcome is not None
    assert (done.outcome.quality_metric, done.profile.split()[1]) == ("balanced_accuracy", "ml.m5.xlarge")
    pipelines = harness.cloud.client("sagemaker").describe_pipeline(PipelineName=harness.outputs["PipelineName"])
    assert str(done.execution_arn).startswith(pipelines["PipelineArn"])
    parameters = harness.cloud.client("sagemaker").list_pipeline_parameters_for_execution(
        PipelineExecutionArn=done.execution_arn
    )["PipelineParameters"]
    assert {"Name": "NetworkIsolation", "Value": "True"} in parameters
    _rolls_out_another_version(harness, tmp_path, capsys)
    assert harness.run("algorithm", "remove", "neighbours@2") == 1
    assert "knn" in capsys.readouterr().err
    assert harness.run("tenant", "update", "knn", "--algorithm", "linear") == 0
    for name in ("neighbours", "neighbours@2"):
        assert harness.run("algorithm", "remove", name) == 0


def _rolls_out_another_version(harness: Harness, tmp_path: Path, capsys: Capture) -> None:
    """Bring a version whose scripts are the same in a wave: it trains, keeps the settings, and is as good."""
    file, scripts = tmp_path / "neighbours-2.yaml", tmp_path / "scripts"
    file.write_text(NEIGHBOURS.replace("name: neighbours", "name: neighbours@2"), encoding="utf-8")
    assert harness.run("algorithm", "register", str(file), "--scripts", str(scripts)) == 0
    capsys.readouterr()
    assert harness.run("--json", "wave", "start", "neighbours@2", "--stage", "100", "--yes") == 0
    wave = json.loads(capsys.readouterr().out)["wave"]["wave_id"]
    assert harness.carried_on(wave, 90).state is WaveState.DONE
    settings = harness.deployment.tenant("knn").settings
    assert (settings.algorithm, dict(settings.hyperparameters)) == ("neighbours@2", {"neighbours": 3})
    (after,) = (request for request in harness.ended("knn", 3) if request.algorithm == "neighbours@2")
    assert after.state is State.SUCCEEDED, after.reason
    parameters = harness.cloud.client("sagemaker").list_pipeline_parameters_for_execution(
        PipelineExecutionArn=after.execution_arn
    )["PipelineParameters"]
    assert {"Name": "Algorithm", "Value": "neighbours"} in parameters
    capsys.readouterr()
    assert harness.run("--json", "wave", "show", wave) == 0
    (member,) = json.loads(capsys.readouterr().out)["members"]
    (judged,) = member["judged"]
    assert (judged["verdict"], judged["request_id"], member["before"][""]) == (
        "as good",
        after.request_id,
        "neighbours",
    )


# --- delete ------------------------------------------------------------------------------------------------------


def test_a_dry_run_lists_what_would_go_and_an_unknown_tenant_is_no_error(
    harness: Harness, capsys: Capture
) -> None:
    harness.create("listed")
    before = account(harness, "listed")
    assert harness.run("tenant", "delete", "listed") == 0
    assert "nothing was deleted" in capsys.readouterr().out
    assert account(harness, "listed") == before
    for arguments in (("unknown",), ("unknown", "--yes")):
        assert harness.run("tenant", "delete", *arguments) == 0
        assert "there is no tenant unknown" in capsys.readouterr().out


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "step"), list(enumerate(DELETE)))
def test_a_deletion_disturbed_at_any_task_leaves_nothing_when_run_again(
    harness: Harness, number: int, step: str
) -> None:
    name, effect = f"leaving-{number}", ("none", "lost")[number % 2]
    assert harness.finished(harness.start("create", spec(name)))["status"] == "SUCCEEDED"
    harness.drop(name, "receipts/x/1.json", b"{}")
    harness.cloud.plant_faults(
        {"operation": f"Task:delete:{step}", "code": "Broken", "message": "it broke", "times": 6, "effect": effect}
    )
    failed = harness.finished(harness.start("delete", {"tenant": {"name": name}}))
    assert (failed["status"], "Broken: it broke" in failed["cause"]) == ("FAILED", True)
    harness.cloud.plant_faults()
    assert harness.finished(harness.start("delete", {"tenant": {"name": name}}))["status"] == "SUCCEEDED"
    left = account(harness, name)
    assert left.pop("record")[0] == "DELETED"
    assert left.pop("location") == {"owner": False}
    assert left.pop("limits") == []
    assert set(left.values()) == {None}


@pytest.mark.thorough
def test_a_deletion_takes_models_endpoints_runs_and_all_versions_and_no_neighbours(harness: Harness) -> None:
    sagemaker, s3 = harness.cloud.client("sagemaker"), harness.cloud.client("s3")
    bucket = harness.create("acme-x", "--running-max", "1")
    harness.create("acme-x1")
    harness.drop("acme-x", "incoming/wine/wine.csv", WINE)
    harness.ended("acme-x")
    slow = ("--hyperparameter", "max_iter=5000", "--hyperparameter", "early_stopping=false")
    assert harness.run("tenant", "update", "acme-x", *slow) == 0
    for owner in ("acme-x", "acme-x1"):
        mark = {"trainyard:tenant": owner, "trainyard:stack": "trainyard", "trainyard:stage": "dev"}
        tags = [{"Key": key, "Value": value} for key, value in mark.items()]
        model = f"model-{owner}"
        sagemaker.create_model(
            ModelName=model,
            ExecutionRoleArn=harness.deployment.tenant(owner).role_arn,
            PrimaryContainer={"Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/i:1"},
            Tags=tags,
        )
        variant = {
            "VariantName": "v",
            "ModelName": model,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.t2.medium",
            "InitialVariantWeight": 1.0,
        }
        sagemaker.create_endpoint_config(EndpointConfigName=f"e-{owner}", ProductionVariants=[variant], Tags=tags)
        sagemaker.create_endpoint(EndpointName=f"e-{owner}", EndpointConfigName=f"e-{owner}", Tags=tags)
    with ThreadPoolExecutor(8) as pool:  # more than a page of versions
        list(pool.map(lambda n: s3.put_object(Bucket=bucket, Key=f"receipts/x/{n % 600}.json"), range(1100)))
    s3.delete_object(Bucket=bucket, Key="receipts/x/1.json")
    s3.create_multipart_upload(Bucket=bucket, Key="incoming/half/x")
    harness.drop("acme-x", "incoming/fraud/f.csv", data.fraud(20000, seed=1).replace(b"is_fraud", b"target"))
    eventually(lambda: any(r.state is State.RUNNING for r in harness.requests("acme-x")))
    harness.drop("acme-x", "incoming/more/wine.csv", WINE)
    eventually(lambda: {State.RUNNING, State.QUEUED} <= {r.state for r in harness.requests("acme-x")})
    assert harness.run("tenant", "delete", "acme-x", "--yes") == 0
    states = {r.data_set: r.state for r in harness.requests("acme-x")}
    assert states == {"wine": State.SUCCEEDED, "fraud": State.STOPPED, "more": State.CANCELLED}
    endpoints = sagemaker.list_endpoints(NameContains="acme-x")["Endpoints"]
    configs = sagemaker.list_endpoint_configs(NameContains="acme-x")["EndpointConfigs"]
    models = sagemaker.list_models(NameContains="acme-x")["Models"]
    assert [endpoint["EndpointName"] for endpoint in endpoints] == ["e-acme-x1"]
    assert [config["EndpointConfigName"] for config in configs] == ["e-acme-x1"]
    assert [model["ModelName"] for model in models] == ["model-acme-x1"]
    with pytest.raises(s3.exceptions.ClientError):
        s3.head_bucket(Bucket=bucket)
    record = harness.deployment.tenants.get("acme-x")
    assert record is not None
    assert record.state is TenantState.DELETED
    month = month_of(datetime.now(UTC))
    assert sum(totals.usd for totals in harness.deployment.book.totals(month, "acme-x")) > 0, "its costs are kept"
    assert account(harness, "acme-x1")["role"] is not None
    harness.create("acme-x")
    assert harness.run("tenant", "delete", "acme-x", "--yes", "--purge") == 0
    assert (harness.deployment.tenants.get("acme-x"), harness.requests("acme-x")) == (None, [])


def test_a_deletion_waits_for_a_creation_that_runs(harness: Harness) -> None:
    """A creation held up in a task; the deletion is asked for meanwhile, and follows it."""
    harness.cloud.plant_faults(
        {"operation": "Task:create:Schedule", "code": "Slow", "message": "slow", "times": 5}
    )
    creating = harness.start("create", spec("hasty"))
    eventually(lambda: harness.deployment.tenants.get("hasty"))
    deleting = harness.start("delete", {"tenant": {"name": "hasty"}})
    assert harness.finished(creating)["status"] == "SUCCEEDED"
    assert harness.finished(deleting)["status"] == "SUCCEEDED"
    record = harness.deployment.tenants.get("hasty")
    assert record is not None
    assert record.state is TenantState.DELETED
    assert account(harness, "hasty")["role"] is None


# --- guard -------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_job_whose_role_and_tag_name_different_tenants_is_stopped(harness: Harness) -> None:
    """Somebody with the right to start the pipeline lets it run as one tenant, tagged as another."""
    harness.create("lender")
    harness.create("borrower")
    harness.drop("borrower", "incoming/fraud/f.csv", data.fraud(20000, seed=1).replace(b"is_fraud", b"target"))
    (honest,) = harness.ended("borrower")
    assert honest.state is State.SUCCEEDED
    sagemaker = harness.cloud.client("sagemaker")
    listed = sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=str(honest.execution_arn))
    parameters = {p["Name"]: p["Value"] for p in listed["PipelineParameters"]}
    parameters["TenantId"] = "lender"
    parameters["Hyperparameters"] = json.dumps({"max_iter": 5000, "early_stopping": False})  # until it is stopped
    started = sagemaker.start_pipeline_execution(
        PipelineName=harness.outputs["PipelineName"],
        PipelineParameters=[{"Name": name, "Value": value} for name, value in parameters.items()],
        ClientRequestToken="x" * 32,
    )["PipelineExecutionArn"]

    def ended() -> str | None:
        status = str(
            sagemaker.describe_pipeline_execution(PipelineExecutionArn=started)["PipelineExecutionStatus"]
        )
        return status if status != "Executing" else None

    assert eventually(ended, 60) in ("Stopped", "Failed")
    steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=started)["PipelineExecutionSteps"]
    assert {step["StepName"]: step["StepStatus"] for step in steps}.get("Register") is None
