"""Batch transforms: rows that a tenant has stored are predicted by jobs that wait and pay as trainings do."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Harness, eventually
from tests.e2e.test_own_endpoints import archive_of, removed_at
from tests.e2e.test_serving import ROWS, served, trained
from trainyard.domain.requests import Request, RequestKind, State


def transforms(harness: Harness, tenant_id: str) -> list[Request]:
    """Return a tenant's batch transforms, oldest first."""
    requests = [r for r in harness.requests(tenant_id) if r.kind is RequestKind.TRANSFORM]
    return sorted(requests, key=lambda request: request.arrived_at)


def predictions(harness: Harness, request: Request, name: str) -> dict[str, Any]:
    assert request.outcome is not None
    assert request.outcome.predictions_uri is not None
    bucket, _, prefix = request.outcome.predictions_uri.removeprefix("s3://").partition("/")
    body = harness.cloud.client("s3").get_object(Bucket=bucket, Key=f"{prefix}/{name}.out")["Body"].read()
    answer: dict[str, Any] = json.loads(body)
    return answer


@pytest.mark.thorough
def test_stored_rows_are_predicted_by_the_live_model_in_a_job_of_the_queue(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(ROWS)
    bucket = harness.create("baker", "--serving", "batch-transform:approval=automatic")
    assert harness.run("transform", "baker", "wine", str(rows)) == 1
    assert "no model of 'wine' is live" in capsys.readouterr().err
    trained(harness, bucket, "baker", 1)
    eventually(lambda: served(harness, capsys, "baker").get(1, {}).get("percent") == 100, 60)
    # 1. Rows of a file, and others that lie there, each answered in a file of its own.
    harness.drop("baker", "transform/wine/2026/more.csv", ROWS)
    assert harness.run("transform", "baker", "wine", str(rows), "--wait") == 0, capsys.readouterr().err
    (request,) = transforms(harness, "baker")
    assert (request.state, request.tier, request.charge) == (State.SUCCEEDED, "basic", 1)
    assert request.outcome is not None
    assert (request.outcome.model_version, request.outcome.input_files) == (1, 2)
    for name in ("rows.csv", "2026/more.csv"):
        assert len(predictions(harness, request, name)["predictions"]) == 3
    receipt = harness.receipt(request)
    assert (receipt["kind"], receipt["message"]) == ("transform", "done: all rows have predictions")
    latest = harness.cloud.client("s3").get_object(Bucket=bucket, Key="receipts/wine/latest.json")["Body"].read()
    assert json.loads(latest)["kind"] == "training"
    # 2. It is booked as its job was used, and holds nothing any more.
    (execution,) = harness.deployment.book.executions(request.request_id)
    (step,) = execution.steps
    assert step.step.job is not None
    assert (step.step.job.kind, step.step.job.instance_type, step.step.job.instance_count) == (
        "transform",
        "ml.m5.large",
        1,
    )
    assert execution.unknown == 0
    assert execution.cost_usd > 0
    eventually(lambda: harness.slots_used() == 0)
    # 3. The same rows are not predicted again by the same version, unless that is asked for.
    capsys.readouterr()
    assert harness.run("transform", "baker", "wine") == 0
    assert "predicted before" in capsys.readouterr().out
    assert harness.run("transform", "baker", "wine", "--force", "--wait") == 0
    assert len(transforms(harness, "baker")) == 2
    # 4. On a schedule, what is new is predicted, and nothing twice.
    assert harness.run("tenant", "update", "baker", "--data-set", "wine:transform=rate(1 minute)") == 0
    harness.cloud.pass_schedule_time(60)
    harness.drop("baker", "transform/wine/new.csv", ROWS)
    harness.cloud.pass_schedule_time(60)
    eventually(lambda: len(transforms(harness, "baker")) == 3)
    harness.ended("baker")
    scheduled = transforms(harness, "baker")[-1]
    assert (scheduled.state, len(predictions(harness, scheduled, "new.csv")["predictions"])) == (
        State.SUCCEEDED,
        3,
    )
    assert harness.run("tenant", "check", "baker") == 0
    assert harness.run("tenant", "update", "baker", "--data-set", "wine:priority=1") == 0
    schedules = harness.cloud.client("scheduler").list_schedules(GroupName="trainyard-retraining")["Schedules"]
    assert not [schedule for schedule in schedules if "baker" in schedule["Name"]]
    # 5. Rows that the model cannot read fail with what it says, and what could be answered is there.
    harness.drop("baker", "transform/wine/bad.csv", b"alcohol\n13\n")
    assert harness.run("transform", "baker", "wine", "--wait") == 4
    failed = transforms(harness, "baker")[-1]
    assert failed.state is State.FAILED
    assert "transform/wine/bad.csv: the request has no column" in str(failed.reason)
    assert len(predictions(harness, failed, "rows.csv")["predictions"]) == 3
    assert "correct the rows" in harness.receipt(failed)["what_to_do"]
    capsys.readouterr()
    assert harness.run("logs", failed.request_id[:8]) == 0
    assert "the request has no column" in capsys.readouterr().out
    harness.cloud.client("s3").delete_object(Bucket=bucket, Key="transform/wine/bad.csv")
    # 6. A version whose archive is broken fails by itself, and the one before it predicts after a roll-back.
    trained(harness, bucket, "baker", 2)
    eventually(lambda: served(harness, capsys, "baker").get(2, {}).get("percent") == 100, 60)
    harness.put(bucket, archive_of(harness, "baker"), b"no archive")
    assert harness.run("transform", "baker", "wine", "--wait") == 4
    broken = transforms(harness, "baker")[-1]
    assert (broken.state, bool(broken.reason)) == (State.FAILED, True)
    assert harness.run("serving", "roll-back", "baker", "wine", "2") == 0
    assert harness.run("transform", "baker", "wine", "--force", "--wait") == 0
    again = transforms(harness, "baker")[-1]
    assert again.outcome is not None
    assert again.outcome.model_version == 1
    # Somebody deletes the model: approving its version again brings it back.
    sagemaker = harness.cloud.client("sagemaker")
    model = served(harness, capsys, "baker")[1]["endpoint"]
    sagemaker.delete_model(ModelName=model)
    assert harness.run("models", "approve", "baker", "1") == 0
    eventually(lambda: sagemaker.list_models(NameContains=model)["Models"])
    # 7. What no job can read is refused at once, and calls are told what to do.
    harness.drop("baker", "transform/wine/table.parquet", b"PAR1")
    assert harness.run("transform", "baker", "wine") == 1
    assert "table.parquet cannot be read by a batch transform" in capsys.readouterr().err
    assert harness.run("predict", "baker", "wine", str(rows)) == 1
    assert "ask for a batch transform" in capsys.readouterr().err
    # 8. Nothing is left of it.
    assert harness.run("tenant", "delete", "baker", "--yes") == 0
    removed_at(harness, datetime.now(UTC))
    assert harness.cloud.client("sagemaker").list_models(NameContains="baker")["Models"] == []
