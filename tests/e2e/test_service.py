"""The deployed service, end to end: the real template, real policies, real jobs."""

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from botocore.exceptions import ClientError

from local.cloud import Cloud
from local.demo import data
from local.deploy import deploy
from tests.build import s3_event
from tests.e2e.conftest import OPTIONS, Harness, eventually
from trainyard.adapters.aws.storage import REFUSED_TAG
from trainyard.domain.requests import Cause, Overrides, State

WINE = data.bundled("wine")


@pytest.fixture(autouse=True)
def no_run_of_an_earlier_test(harness: Harness) -> None:
    """Wait for the runs that earlier tests left: they would use up planted faults and hold slots counted here."""
    eventually(lambda: harness.slots_used() == 0, 120)


def event_for(bucket: str, key: str, **changes: Any) -> dict[str, Any]:
    body = s3_event(object_key=key, **changes)
    body["detail"]["bucket"]["name"] = bucket
    return body


def test_an_upload_becomes_a_registered_model_that_can_be_approved_and_fetched(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.create("acme")
    (tmp_path / "wine.csv").write_bytes(WINE)
    assert harness.run("upload", "acme", str(tmp_path / "wine.csv")) == 0
    (request,) = harness.ended("acme")
    assert request.state is State.SUCCEEDED
    assert request.outcome is not None
    assert request.outcome.trained_version_id == request.content.version_id
    assert request.outcome.quality is not None
    assert request.outcome.quality > 0.8
    assert float(request.outcome.cost_usd or 0) > 0
    receipt = harness.receipt(request)
    assert (receipt["state"], receipt["result"]["model_uri"]) == ("SUCCEEDED", request.outcome.model_uri)
    capsys.readouterr()
    assert harness.run("--json", "models", "list", "acme") == 0
    (model,) = json.loads(capsys.readouterr().out)
    assert (model["version"], model["status"], model["request"]) == (
        1,
        "PendingManualApproval",
        request.request_id,
    )
    assert harness.run("models", "approve", "acme", "1") == 0
    capsys.readouterr()
    assert harness.run("models", "acme", "--json") == 0
    (approved,) = json.loads(capsys.readouterr().out)
    assert (approved["status"], approved["request"]) == ("Approved", request.request_id)
    assert harness.run("models", "fetch", "acme", "1", "--to", str(tmp_path / "m.tar.gz")) == 0
    assert (tmp_path / "m.tar.gz").stat().st_size > 1000
    assert harness.run("models", "fetch", "acme", "7") == 1
    assert "no model version 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "key", "reason"),
    [
        ("unnamed", "incoming/data.csv", "is not in a data set"),
        ("folder", "incoming/churn/", "a folder was created"),
        ("spaced", "incoming/two words/data.csv", "is not a valid data set name"),
        ("newline", "incoming/churn/a\nb.csv", "control characters"),
        ("longest", "incoming/churn/" + "k" * (1024 - len("incoming/churn/")), "at most 1024 fit"),
    ],
)
def test_a_key_that_cannot_be_used_is_rejected_with_a_receipt(
    harness: Harness, name: str, key: str, reason: str
) -> None:
    bucket = harness.create(name)
    harness.put(bucket, key, WINE)
    (request,) = harness.ended(name)
    assert request.state is State.REJECTED
    assert re.search(reason, str(request.reason))
    assert re.search(reason, harness.receipt(request)["reason"])


def test_awkward_keys_are_trained_on_as_they_are(harness: Harness) -> None:
    bucket = harness.create("awkward")
    keys = ["incoming/a/with space.csv", "incoming/b/a+b%2Fc.csv", "incoming/c/kündigung 数据.csv"]
    for key in keys:
        harness.put(bucket, key, WINE)
    found = harness.ended("awkward", 3)
    assert {r.content.key: r.state for r in found} == dict.fromkeys(keys, State.SUCCEEDED)


def test_empty_and_oversized_objects_and_suspended_tenants_are_rejected(harness: Harness) -> None:
    bucket = harness.create("refused")
    harness.put(bucket, "incoming/x/empty.csv", b"")
    harness.put(bucket, "incoming/y/large.csv", b"x" * (1024 * 1024 + 1))
    harness.ended("refused", 2)
    assert harness.run("tenant", "suspend", "refused") == 0
    harness.put(bucket, "incoming/z/late.csv", WINE)
    found = {r.data_set: r for r in harness.ended("refused", 3)}
    assert {r.state for r in found.values()} == {State.REJECTED}
    assert "empty" in str(found["x"].reason)
    assert "at most 1,048,576" in str(found["y"].reason)
    assert "suspended" in str(found["z"].reason)
    s3 = harness.cloud.client("s3")

    def tags(key: str) -> list[dict[str, str]]:
        return list(s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"])

    assert tags("incoming/x/empty.csv") == tags("incoming/y/large.csv") == [REFUSED_TAG]
    assert tags("incoming/z/late.csv") == [], "the tenant may be resumed"
    rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert [rule["Expiration"] for rule in rules if rule["Filter"].get("Tag") == REFUSED_TAG] == [{"Days": 7}]


def test_what_makes_no_sense_goes_to_the_dead_letters_with_a_reason(harness: Harness) -> None:
    bucket = harness.create("sense")
    harness.letters("uploads-dlq")
    good = event_for(bucket, "incoming/x/y.csv")
    harness.post(
        "uploads",
        "{",
        json.dumps(good)[:-30],
        event_for("trainyard-123456789012-t-nobody", "incoming/x/y.csv"),
        good | {"account": "999999999999"},
        good | {"detail-type": "Object Deleted"},
    )
    letters: list[tuple[str, str]] = []

    def all_there() -> bool:
        letters.extend(harness.letters("uploads-dlq"))
        return len(letters) >= 5

    eventually(all_there)
    reasons = sorted(reason for _, reason in letters)
    assert len(letters) == 5
    assert all(reasons)
    assert any("belongs to no tenant" in reason for reason in reasons)
    assert any("account 999999999999" in reason for reason in reasons)
    assert harness.requests("sense") == []


def test_what_lies_outside_incoming_starts_nothing_and_leaves_nothing(harness: Harness) -> None:
    bucket = harness.create("outside")
    harness.put(bucket, "receipts/x/mine.json", b"{}")
    harness.put(bucket, "stray.csv", WINE)
    harness.post("uploads", event_for(bucket, "receipts/x/mine.json"), event_for(bucket, "stray.csv"))
    harness.put(bucket, "incoming/after/wine.csv", WINE)
    (only,) = harness.ended("outside")
    assert only.data_set == "after"
    expected = [
        "receipts/README.txt",
        f"receipts/after/{only.request_id}.json",
        "receipts/after/latest.json",
        "receipts/x/mine.json",
    ]

    def keys() -> list[str]:
        listed = harness.cloud.client("s3").list_objects_v2(Bucket=bucket, Prefix="receipts/")
        return [o["Key"] for o in listed["Contents"]]

    # The receipts of an end are written after the record: from the table's stream.
    eventually(lambda: keys() == expected)


@pytest.mark.thorough
def test_the_same_upload_delivered_five_more_times_trains_once(harness: Harness) -> None:
    bucket = harness.create("repeated")
    version = harness.put(bucket, "incoming/wine/wine.csv", WINE)
    copies = [event_for(bucket, "incoming/wine/wine.csv", object_version_id=version) for _ in range(5)]
    harness.post("uploads", *copies)
    (request,) = harness.ended("repeated")
    harness.post("uploads", *copies)
    eventually(lambda: len(harness.requests("repeated")) == 1 and harness.slots_used() == 0)
    assert len(harness.executions_of(request)) == 1


@pytest.mark.parametrize(
    ("step", "body", "reason"),
    [
        ("Preprocess", b"a,b\n1,2\n", "there is no column 'target' to predict"),
        ("Train", WINE, "AlgorithmError"),
        ("Evaluate", WINE, "AlgorithmError"),
        ("Register", WINE, "no such group"),
    ],
)
def test_a_pipeline_that_fails_in_a_step_names_the_step_and_its_last_line(
    harness: Harness, step: str, body: bytes, reason: str
) -> None:
    name = f"fails-{step.lower()}"
    bucket = harness.create(name)
    if step != "Preprocess":
        harness.cloud.plant_faults(
            {"operation": f"Step:{step}", "code": "ClientError", "message": reason, "times": 1}
        )
    harness.put(bucket, "incoming/x/x.csv", body)
    (request,) = harness.ended(name)
    assert request.state is State.FAILED
    assert str(request.reason).startswith(f"{step}: ")
    assert reason in str(request.reason)
    assert harness.receipt(request)["reason"] == request.reason
    assert harness.slots_used() == 0


def test_a_run_that_could_only_not_tell_of_its_end_has_succeeded(harness: Harness) -> None:
    bucket = harness.create("untold")
    harness.cloud.plant_faults(
        {"operation": "Step:Record", "code": "ClientError", "message": "killed", "times": 1}
    )
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (request,) = harness.ended("untold")
    (model,) = harness.cloud.client("sagemaker").list_model_packages(
        ModelPackageGroupName=harness.deployment.tenant("untold").model_group
    )["ModelPackageSummaryList"]
    assert (request.state, request.reason, request.attempt) == (State.SUCCEEDED, None, 1)
    assert request.outcome is not None
    assert request.outcome.model_package_arn == model["ModelPackageArn"]
    assert harness.slots_used() == 0


def test_a_model_of_too_low_quality_is_not_registered(harness: Harness) -> None:
    bucket = harness.create("poor", "--problem", "regression", "--algorithm", "linear")
    harness.put(bucket, "incoming/diabetes/d.csv", data.bundled("diabetes"))
    (request,) = harness.ended("poor")
    assert request.state is State.FAILED
    assert "the model was not registered: " in str(request.reason)
    group = harness.deployment.tenant("poor").model_group
    packages = harness.cloud.client("sagemaker").list_model_packages(ModelPackageGroupName=group)
    assert packages["ModelPackageSummaryList"] == []


@pytest.mark.parametrize("code", ["ResourceLimitExceeded", "ConflictException"])
def test_a_start_that_sagemaker_cannot_take_now_is_tried_again_later(harness: Harness, code: str) -> None:
    name = code.lower()[:12]
    bucket = harness.create(name)
    harness.cloud.plant_faults(
        {"operation": "StartPipelineExecution", "code": code, "message": "full", "times": 1}
    )
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    eventually(lambda: any(r.reason and code in r.reason for r in harness.requests(name)))
    eventually(lambda: harness.run("resume", "all") == 0 and harness.requests(name)[0].state is not State.QUEUED)
    (request,) = harness.ended(name)
    assert (request.state, request.attempt, len(harness.executions_of(request))) == (State.SUCCEEDED, 2, 1)


def test_a_throttled_start_is_tried_again_at_once_with_the_same_token(harness: Harness) -> None:
    bucket = harness.create("throttled")
    harness.cloud.plant_faults(
        {"operation": "StartPipelineExecution", "code": "ThrottlingException", "message": "slow", "times": 2}
    )
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (request,) = harness.ended("throttled")
    assert (request.state, request.attempt, len(harness.executions_of(request))) == (State.SUCCEEDED, 1, 1)


def test_a_start_that_took_effect_but_was_never_answered_runs_once(harness: Harness) -> None:
    bucket = harness.create("unanswered")
    harness.cloud.plant_faults(
        {
            "operation": "StartPipelineExecution",
            "code": "InternalFailure",
            "message": "lost",
            "times": 2,
            "effect": "lost",
        }
    )
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (request,) = harness.ended("unanswered")
    assert (request.state, len(harness.executions_of(request)), harness.slots_used()) == (State.SUCCEEDED, 1, 0)


@pytest.mark.thorough
def test_what_was_admitted_while_sagemaker_is_down_is_started_when_it_is_back(harness: Harness) -> None:
    """After two minutes, and the request is let be as old, the timer's pass takes it up."""
    bucket = harness.create("down")
    harness.cloud.kill_sagemaker(600)
    try:
        harness.put(bucket, "incoming/wine/wine.csv", WINE)
        eventually(lambda: [r for r in harness.requests("down") if r.state is State.ADMITTED])
        with pytest.raises(ClientError, match="an outage"):
            harness.executions()
        assert harness.requests("down")[0].state is State.ADMITTED
        assert harness.slots_used() == 1
    finally:
        harness.cloud.kill_sagemaker(0)
    harness.age("down", minutes=3)
    timer = {"FunctionName": harness.outputs["DispatcherFunction"], "Payload": b'{"source": "timer"}'}
    harness.cloud.client("lambda").invoke(**timer)
    (request,) = harness.ended("down")
    assert (request.state, len(harness.executions_of(request)), harness.slots_used()) == (State.SUCCEEDED, 1, 0)


def test_a_start_that_sagemaker_refuses_fails_with_its_words(harness: Harness) -> None:
    bucket = harness.create("invalid")
    harness.cloud.plant_faults(
        {"operation": "StartPipelineExecution", "code": "ValidationException", "message": "bad value", "times": 1}
    )
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (request,) = harness.ended("invalid")
    assert (request.state, request.reason) == (State.FAILED, "ValidationException: bad value")
    assert harness.slots_used() == 0


def status_event(harness: Harness, name: str, status: str) -> dict[str, Any]:
    arn = f"arn:aws:sagemaker:us-east-1:123456789012:pipeline/{harness.outputs['PipelineName']}"
    return {
        "version": "0",
        "id": "1",
        "detail-type": "SageMaker Model Building Pipeline Execution Status Change",
        "source": "aws.sagemaker",
        "account": "123456789012",
        "time": "2026-11-21T12:00:00Z",
        "region": "us-east-1",
        "resources": [arn],
        "detail": {
            "pipelineExecutionDisplayName": name,
            "currentPipelineExecutionStatus": status,
            "pipelineExecutionArn": f"{arn}/execution/x",
        },
    }


def test_terminal_events_twice_or_of_others_change_nothing(harness: Harness) -> None:
    bucket = harness.create("twice")
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (request,) = harness.ended("twice")
    harness.letters("status-dlq")
    harness.post(
        "status",
        status_event(harness, f"{request.request_id}-1", "Failed"),
        status_event(harness, f"{request.request_id}-2", "Failed"),
        status_event(harness, "started-by-hand", "Succeeded"),
        status_event(harness, "f" * 32 + "-1", "Succeeded"),
        status_event(harness, f"{request.request_id}-1", "Hibernating"),
        '{"detail-type": "nonsense"}',
    )
    eventually(lambda: len(harness.letters("status-dlq")) == 1)
    assert harness.requests("twice")[0].state is State.SUCCEEDED
    assert harness.slots_used() == 0


@pytest.mark.thorough
def test_a_data_set_in_many_parts_trains_once_on_all_of_it(harness: Harness) -> None:
    bucket = harness.create(
        "parts", "--data-set", "sales:target=revenue,problem=regression,train_on=whole-prefix", tier="standard"
    )
    harness.run("pause", "all")
    for part in range(25):
        harness.put(bucket, f"incoming/sales/part-{part:03d}.csv", data.sales(60, seed=part))
    eventually(lambda: len(harness.requests("parts")) == 25)
    harness.run("resume", "all")
    found = harness.ended("parts", 25)
    done = [r for r in found if r.state is State.SUCCEEDED]
    assert {r.state for r in found} == {State.SUCCEEDED, State.SUPERSEDED}
    assert [r.outcome.trained_files for r in done if r.outcome] == [25]


@pytest.mark.thorough
def test_retraining_is_asked_for_by_an_event_and_by_a_schedule(harness: Harness) -> None:
    bucket = harness.create("again", "--retrain", "rate(1 minute)")
    schedule = harness.cloud.client("scheduler").get_schedule(
        GroupName="trainyard-retraining", Name="retrain-again"
    )
    assert schedule["ScheduleExpression"] == "rate(1 minute)"
    zoned = "wine=cron(0 3 * * ? *) Europe/Zurich until 2099-01-01 within 30 minutes"
    assert harness.run("tenant", "update", "again", "--schedule", "other=cron(0 3 30 2 ? *)") == 1
    assert harness.run("tenant", "update", "again", "--schedule", "rate(1 day)") == 1
    assert harness.run("tenant", "update", "again", "--data-set", "other:train_on=whole-prefix") == 0
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    harness.ended("again")
    overrides = ("--algorithm", "linear", "--hyperparameter", "max_iter=321")
    assert harness.run("retrain", "again", *overrides) == 1, "they are for one training"
    assert harness.run("retrain", "again", "--data-set", "wine", "--hyperparameter", "nope=1") == 1
    assert harness.run("retrain", "again", "--data-set", "wine", *overrides) == 0
    asked = [request for request in harness.ended("again", 2) if request.cause is Cause.RETRAINING]
    assert [(request.algorithm, request.overrides) for request in asked] == [
        ("linear", Overrides(algorithm="linear", hyperparameters=(("max_iter", 321),)))
    ]
    harness.cloud.pass_schedule_time(60)
    found = harness.ended("again", 3)
    assert [(r.cause.value, r.state) for r in found] == [
        ("upload", State.SUCCEEDED),
        ("retraining", State.SUCCEEDED),
        ("retraining", State.SUCCEEDED),
    ]
    # By a schedule of its own, it is not trained on by the tenant's.
    assert harness.run("tenant", "update", "again", "--schedule", zoned) == 0
    assert set(harness.deployment.tenant("again").data_sets) == {"other", "wine"}
    assert harness.run("tenant", "check", "again") == 0
    group = harness.cloud.client("scheduler").list_schedules(GroupName="trainyard-retraining")["Schedules"]
    (name,) = (each["Name"] for each in group if each["Name"].startswith("retrain-again."))
    own = harness.cloud.client("scheduler").get_schedule(GroupName="trainyard-retraining", Name=name)
    assert own["ScheduleExpressionTimezone"] == "Europe/Zurich"
    assert harness.run("retraining", "again") == 0
    harness.cloud.pass_schedule_time(60)
    assert len(harness.ended("again", 3)) == 3
    assert harness.run("tenant", "update", "again", "--retrain", "") == 0
    names = harness.cloud.client("scheduler").list_schedules(GroupName="trainyard-retraining")["Schedules"]
    assert "retrain-again" not in [schedule["Name"] for schedule in names]
    assert harness.run("tenant", "update", "again", "--schedule", "wine=") == 0
    names = harness.cloud.client("scheduler").list_schedules(GroupName="trainyard-retraining")["Schedules"]
    assert not [each for each in names if each["Name"].startswith("retrain-again")]


def test_paused_nothing_starts_and_a_waiting_request_can_be_stopped(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = harness.create("halted")
    assert harness.run("pause", "all") == 0
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (waiting,) = eventually(lambda: harness.requests("halted"))
    assert harness.run("stop", waiting.request_id) == 0
    assert harness.run("resume", "all") == 0
    (request,) = harness.ended("halted")
    assert (request.state, harness.executions_of(request)) == (State.CANCELLED, [])
    capsys.readouterr()
    assert harness.run("stop", request.request_id) == 1
    assert "CANCELLED already" in capsys.readouterr().err


def test_why_a_request_waits_is_explained_and_a_paused_tenant_comes_back(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = harness.create("asks")
    assert harness.run("pause", "tenant", "asks") == 0
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (waiting,) = eventually(lambda: harness.requests("asks"))
    capsys.readouterr()
    assert harness.run("why", waiting.request_id, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["reason"], told["would_let_it_go"]) == ("the tenant is paused", "trainyard resume tenant asks")
    assert harness.run("resume", "tenant", "asks") == 0
    (request,) = harness.ended("asks")
    assert request.state is State.SUCCEEDED
    assert harness.run("pause", "tier", "gold") == 1
    assert "there is no tier 'gold'" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_deadline_is_shown_kept_and_what_cannot_go_is_not_expedited(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    assert harness.run("tenant", "create", "hurried", "--tier", "basic", "--target", "quality",
                       "--ready-by", "6 o'clock") == 1  # fmt: skip
    assert "06:00 Europe/Zurich" in capsys.readouterr().err, "what is wrong, and what would be right"
    bucket = harness.create("hurried", "--ready-by", "06:00 Europe/Zurich", "--priority", "2")
    assert harness.run("pause", "tenant", "hurried") == 0
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (waiting,) = eventually(lambda: harness.requests("hurried"))
    assert waiting.deadline is not None
    assert waiting.deadline.astimezone(ZoneInfo("Europe/Zurich")).strftime("%H:%M") == "06:00"
    assert waiting.priority == 2
    capsys.readouterr()
    assert harness.run("why", waiting.request_id) == 0
    assert "deadline" in capsys.readouterr().out
    assert harness.run("expedite", waiting.request_id, "--why", "a demo") == 1
    assert "trainyard resume tenant" in capsys.readouterr().err
    assert harness.run("resume", "tenant", "hurried") == 0
    (request,) = harness.ended("hurried")
    assert request.state is State.SUCCEEDED
    assert harness.run("expedite", request.request_id, "--why", "a demo") == 1
    assert "SUCCEEDED" in capsys.readouterr().err


@pytest.mark.thorough
def test_where_every_upload_is_trained_on_each_is_on_its_own_version(harness: Harness) -> None:
    bucket = harness.create("eager", "--every-upload", "--algorithm", "linear")
    assert harness.run("pause", "tenant", "eager") == 0
    bodies = [WINE, WINE + WINE.splitlines(keepends=True)[1]]
    versions = [harness.put(bucket, "incoming/wine/wine.csv", body) for body in bodies]
    eventually(lambda: len(harness.requests("eager")) == 2)
    assert harness.run("resume", "tenant", "eager") == 0
    requests = harness.ended("eager", count=2)
    trained = {r.content.version_id: r.outcome.trained_sha256 for r in requests if r.outcome}
    assert set(trained) == set(versions)
    assert len(set(trained.values())) == 2, "two contents, though only the second lies at the key"


def test_a_policy_can_be_compared_and_rolled_back(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = harness.deployment.policies.in_force()
    other = tmp_path / "other.yaml"
    other.write_text(before.text.replace("running_max: 6", "running_max: 7"), encoding="utf-8")
    assert harness.run("policy", "diff", str(other)) == 0
    assert "+running_max: 7" in capsys.readouterr().out
    assert harness.run("policy", "apply", "--yes", str(other), "--note", "one more") == 0
    assert harness.deployment.policies.current().running_max == 7
    assert harness.run("policy", "rollback", "--yes", str(before.version)) == 0
    assert harness.deployment.policies.current().running_max == 6
    capsys.readouterr()
    assert harness.run("policy", "history") == 0
    assert "one more" in capsys.readouterr().out


def test_limits_by_the_hour_are_shown_for_any_time(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = harness.deployment.policies.in_force()
    other = tmp_path / "windows.yaml"
    window = "{name: night, from: 22:00, to: 06:00, zone: Europe/Zurich, tiers: {basic: {quota: 1}}}"
    other.write_text(f"{before.text}\nwindows:\n  - {window}\n", encoding="utf-8")
    assert harness.run("policy", "apply", "--yes", str(other)) == 0
    assert harness.run("policy", "show", "--at", "2026-12-01T23:00 Europe/Zurich") == 0
    shown = capsys.readouterr().out
    assert "windows open: night" in shown
    assert "2026-12-02 05:00 UTC (06:00 Europe/Zurich), in 7 h 0 min: basic quota 1 → 2" in shown
    assert harness.run("--json", "policy", "show", "--at", "2026-12-01T12:00Z") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["windows_open"], data["next_change"]["changes"]) == ([], ["basic quota 2 → 1"])
    assert harness.run("status") == 0
    assert "next change of limits: " in capsys.readouterr().out
    assert harness.run("policy", "show", "--at", "yesterday") == 1
    assert "2026-11-28T23:00 Europe/Zurich" in capsys.readouterr().err
    assert harness.run("policy", "show", "--at", "2026-12-01T12:00Z", "--text") == 1
    assert harness.run("policy", "rollback", "--yes", str(before.version)) == 0
    capsys.readouterr()


@pytest.mark.thorough
def test_status_tells_what_is_paused_and_which_letters_are_dead_and_requests_what_ended_last(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    # Five tenants are named, in their order: other tests may have paused some too.
    bucket = harness.create("a-quiet")
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    harness.ended("a-quiet", 1)
    harness.run("pause", "tier", "premium")
    harness.run("pause", "tenant", "a-quiet")
    harness.put(bucket, "incoming/wine/more.csv", WINE)
    harness.post("uploads", {"detail": "no event"})

    said, missing = "", [""]

    def told() -> bool:
        nonlocal said, missing
        capsys.readouterr()
        assert harness.run("status") == 0
        said = capsys.readouterr().out
        lines = (
            "tier premium is paused since 20",
            "; trainyard resume tier premium",
            "UTC by root, and has requests waiting; trainyard resume tenant a-quiet",
            " in trainyard-uploads-dlq; trainyard dlq list",
        )
        missing = [line for line in lines if line not in said]
        return not missing

    with suppress(AssertionError):
        eventually(told)
    assert missing == [], said
    assert harness.run("--json", "status") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["paused_tiers"] == ["premium"]
    assert "a-quiet" in data["paused_tenants"]
    assert data["dead_letters"]["trainyard-uploads-dlq"] >= 1
    for arguments in (("tier", "premium"), ("tenant", "a-quiet")):
        assert harness.run("resume", *arguments) == 0
    harness.ended("a-quiet", 2)

    def ended_last() -> bool:
        capsys.readouterr()
        assert harness.run("requests") == 0
        said = capsys.readouterr().out
        return "no request is active; these ended last" in said and said.count("a-quiet") >= 2

    eventually(ended_last)


def test_a_policy_that_asks_for_what_jobs_may_not_have_is_refused(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = harness.deployment.policies.in_force().text
    for before, after, reason in (
        ("training: ml.m5.large", "training: ml.p4d.24xlarge", "jobs may not run on ml.p4d.24xlarge"),
        ("runtime_max_minutes: 5", "runtime_max_minutes: 721", "at most 720 minutes"),
    ):
        other = tmp_path / "other.yaml"
        other.write_text(text.replace(before, after), encoding="utf-8")
        assert harness.run("policy", "apply", "--yes", str(other)) == 1
        assert reason in capsys.readouterr().err


def test_an_upload_of_which_s3_tells_nothing_becomes_a_request(harness: Harness) -> None:
    """As in the first minutes of a bucket, and at any time."""
    bucket = harness.create("untold-upload")
    harness.cloud.lose_uploads(1.0)
    try:
        harness.put(bucket, "incoming/wine/wine.csv", WINE)
        harness.put(bucket, "incoming/wine/_SUCCESS", b"x")
        harness.put(bucket, "incoming/empty/empty.csv", b"")
    finally:
        harness.cloud.lose_uploads(0.0)
    assert harness.requests("untold-upload") == []
    functions = harness.cloud.client("lambda")
    for found in (2, 0):
        answer = functions.invoke(FunctionName=harness.outputs["IntakeFunction"], Payload=b'{"source": "sweep"}')
        told = json.loads(answer["Payload"].read())
        assert (told.get("found"), "errorMessage" in told) == (found, False), told
        requests = harness.ended("untold-upload", count=2)
    assert sorted(request.state for request in requests) == [State.REJECTED, State.SUCCEEDED]


@pytest.mark.thorough
def test_an_end_whose_event_was_lost_is_found_by_the_reconciler(harness: Harness) -> None:
    """The reconciler's clock runs ahead, so that the run counts as unheard of."""
    bucket = harness.create("lost")
    events = harness.cloud.client("events")
    events.disable_rule(Name=harness.outputs["ExecutionStatusRule"])
    try:
        harness.put(bucket, "incoming/wine/wine.csv", WINE)

        def ended() -> bool:
            found = [e for r in harness.requests("lost") for e in harness.executions_of(r)]
            return bool(found) and found[0]["PipelineExecutionStatus"] == "Succeeded"

        eventually(ended, 60)
        assert harness.requests("lost")[0].state is State.RUNNING
        harness.age("lost", minutes=10)
        answer = harness.cloud.client("lambda").invoke(FunctionName=harness.outputs["ReconcilerFunction"])
        assert json.loads(answer["Payload"].read())["ended"] == 1
    finally:
        events.enable_rule(Name=harness.outputs["ExecutionStatusRule"])
    assert harness.requests("lost")[0].state is State.SUCCEEDED


@pytest.mark.thorough
def test_an_end_that_could_not_be_looked_up_is_looked_up_again_soon(harness: Harness) -> None:
    """Before the queue lets its message come again, after six minutes."""
    bucket = harness.create("throttled-end")
    operation = "ListPipelineExecutionSteps"
    harness.cloud.plant_faults(
        {"operation": operation, "code": "ThrottlingException", "message": "slow", "times": 4}
    )
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (request,) = harness.ended("throttled-end", seconds=120)
    assert (request.state, harness.slots_used()) == (State.SUCCEEDED, 0)


def test_a_running_execution_can_be_stopped(harness: Harness) -> None:
    slow = ("--hyperparameter", "max_iter=5000", "--hyperparameter", "early_stopping=false")
    bucket = harness.create("running", *slow)
    harness.put(bucket, "incoming/fraud/f.csv", data.fraud(20000, seed=1).replace(b"is_fraud", b"target"))

    def stopped() -> bool:
        found = [r for r in harness.requests("running") if r.state is State.RUNNING]
        return bool(found) and harness.run("stop", found[0].request_id) == 0

    eventually(stopped)
    (request,) = harness.ended("running")
    held = {each.request_id for each in harness.deployment.scheduler.tables.held()}
    assert (request.state, request.request_id in held) == (State.STOPPED, False)


@pytest.mark.thorough
def test_a_name_that_is_taken_and_bad_wishes_are_refused(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.create("twins", "--budget-usd", "500")
    first = harness.deployment.tenant("twins")
    for again in (
        ("twins", "--tier", "basic", "--target", "target"),
        ("twins", "--tier", "premium", "--target", "y"),
        ("twins", "--tier", "basic", "--target", "target", "--budget-usd", "0.01", "--running-max", "1"),
    ):
        capsys.readouterr()
        assert harness.run("tenant", "create", *again) == 1
        said = capsys.readouterr().err
        assert "tenant twins exists" in said
        assert "delete" not in said
        assert harness.deployment.tenant("twins") == first
    limits = harness.deployment.policies.current().tenant("twins")
    assert limits.budget is not None
    assert limits.budget.limit_usd == 500
    assert limits.running_max is None
    assert harness.run("tenant", "repair", "twins") == 0
    repaired = harness.deployment.tenant("twins")
    assert replace(repaired, revision=0, settled_by=None) == replace(first, revision=0, settled_by=None)
    for wish, reason in (
        (("ACME", "--tier", "basic", "--target", "y"), "is not a valid tenant id"),
        (("gold", "--tier", "gold", "--target", "y"), "there is no tier 'gold'; the policy has basic"),
        (("x", "--tier", "basic", "--target", "y", "--retrain", "daily"), "is not a schedule: use rate"),
        (("x", "--tier", "basic", "--target", "y", "--data-set", "sales"), "write NAME:KEY=VALUE"),
    ):
        capsys.readouterr()
        assert harness.run("tenant", "create", *wish) == 1
        assert reason in capsys.readouterr().err


def test_a_presigned_url_takes_one_upload(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.create("handed")
    capsys.readouterr()
    assert harness.run("presign", "handed", "wine", "wine.csv") == 0
    *curl, name, url = shlex.split(capsys.readouterr().out)
    assert (curl, name) == (["curl", "--fail", "--upload-file"], "wine.csv")
    put = urllib.request.Request(url, data=WINE, method="PUT")
    with urllib.request.urlopen(put, timeout=10) as answer:
        assert answer.status == 200
    (request,) = harness.ended("handed")
    assert request.state is State.SUCCEEDED


def test_dead_letters_are_listed_and_sent_back_once_their_cause_is_mended(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.letters("uploads-dlq")
    late = "trainyard-123456789012-t-late"
    harness.post("uploads", event_for(late, "incoming/wine/wine.csv"))

    def listed() -> bool:
        capsys.readouterr()
        assert harness.run("--json", "dlq", "list") == 0
        queues = {q["queue"]: q for q in json.loads(capsys.readouterr().out)}
        return bool(queues["trainyard-uploads-dlq"]["letters"])

    eventually(listed)
    assert harness.create("late") == late
    harness.cloud.client("s3").put_object(Bucket=late, Key="unrelated", Body=b"")
    assert harness.run("dlq", "redrive", "trainyard-uploads-dlq") == 0
    assert "would move 1" in capsys.readouterr().out
    eventually(
        lambda: harness.run("dlq", "redrive", "trainyard-uploads-dlq", "--yes") == 0 and harness.requests("late")
    )
    (request,) = harness.ended("late")
    assert request.state is State.FAILED  # the object the letter spoke of was never there
    assert harness.run("dlq", "redrive", "nowhere") == 1


def test_deploying_again_updates_the_stack_in_place(harness: Harness) -> None:
    again = deploy(harness.cloud, parameters={"LogRetentionDays": "7", **OPTIONS})
    assert {name: again[name] for name in ("SchedulerTable", "TenantsTable", "PipelineName")} == {
        name: harness.outputs[name] for name in ("SchedulerTable", "TenantsTable", "PipelineName")
    }


def test_two_clouds_stand_side_by_side_on_loopback_and_leave_nothing_behind() -> None:
    with Cloud() as first, Cloud() as second:
        assert len({first.port, first.sagemaker_port, second.port, second.sagemaker_port}) == 4
        first.client("s3").create_bucket(Bucket="only-in-the-first")
        assert second.client("s3").list_buckets()["Buckets"] == []
        homes = [first.home, second.home]
        listening = Path("/proc/net/tcp").read_text() if sys.platform == "linux" else ""
        for port in (first.port, first.sagemaker_port):
            assert f"00000000:{port:04X}" not in listening  # on all addresses
    assert not [home for home in homes if home.exists()]
    processes = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    assert not [line for line in processes.splitlines() if any(str(home) in line for home in homes)]


def test_a_cloud_whose_parent_is_killed_ends_and_cleans_up_by_itself() -> None:
    program = (
        "import time\nfrom local.cloud import Cloud\n"
        "with Cloud() as c:\n print(c.home, flush=True)\n time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    home = Path(parent.stdout.readline().strip())
    assert home.exists()
    parent.kill()
    eventually(lambda: not home.exists())
