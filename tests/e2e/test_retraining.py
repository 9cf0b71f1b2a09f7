"""What makes data sets train by itself, and what does not, in the deployed service."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.cloud import ACCOUNT_ID
from local.demo import data
from testing.memory_ports import MemoryModels
from tests.e2e.conftest import Harness, eventually
from trainyard.adapters.aws.captured import S3CapturedInputs
from trainyard.adapters.aws.queues import SqsRetrainings
from trainyard.application.ports import AT_ONCE
from trainyard.application.scheduling.retraining_watch import PARTS, RetrainingWatch
from trainyard.domain.arrivals import RetrainingAsked
from trainyard.domain.requests import Cause, Request, State
from trainyard.domain.tenants import Tenant
from trainyard.persistence.inference import InferenceBook
from trainyard.persistence.items import stamp
from trainyard.persistence.retraining_records import record_from, record_key
from trainyard.persistence.run_history import past_key
from trainyard.persistence.store import Update

WINE = data.bundled("wine")


def reason_left_out(harness: Harness, tenant_id: str, data_set: str) -> str:
    """Wait until a trigger of a data set was left out; return why."""

    def find() -> str | None:
        (item,) = harness.deployment.store.get(record_key(tenant_id, data_set))
        last = record_from(item).last
        return last.left_out if last else None

    return eventually(find)


def asked_by_watch(harness: Harness) -> int:
    """Let the watch look at all tenants; return for how many trainings it asked."""
    asked = 0
    for part in range(PARTS):
        payload = json.dumps({"source": "retraining watch", "part": part}).encode()
        function = harness.outputs["IntakeFunction"]
        answer = harness.cloud.client("lambda").invoke(FunctionName=function, Payload=payload)
        said = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, said
        asked += said["asked"]
    return asked


def waiting(harness: Harness, tenant_id: str, uploads: int) -> Request:
    """Wait until one request of a tenant waits that stands for so many uploads."""

    def find() -> Request | None:
        queued = [each for each in harness.requests(tenant_id) if each.state is State.QUEUED]
        return queued[0] if len(queued) == 1 and queued[0].collected.files == uploads else None

    return eventually(find)


def test_uploads_are_collected_until_they_are_enough(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    rules = ("--retraining", "files=3,rows=100000", "--retraining", "wine:files=3,interval_minutes=60")
    bucket = harness.create("collects", "--train-on", "whole-prefix", *rules)
    for number in range(2):
        harness.put(bucket, f"incoming/wine/{number}.csv", WINE)
    request = waiting(harness, "collects", 2)
    assert harness.receipt(request)["message"].startswith("accepted, waiting for further uploads")
    capsys.readouterr()
    assert harness.run("why", request.request_id) == 0
    assert "2 of 3 files" in capsys.readouterr().out
    harness.put(bucket, "incoming/wine/2.csv", WINE)
    ended = harness.ended("collects", 3)
    (trained,) = [each for each in ended if each.state is State.SUCCEEDED]
    assert (trained.triggers, trained.collected.files) == (("upload",), 3)
    assert trained.outcome is not None
    assert trained.outcome.trained_files == 3
    receipt = harness.receipt(trained)
    assert (receipt["asked_by"], receipt["uploads"]) == (["upload"], 3)
    # The next training keeps the interval to the start of this one.
    harness.put(bucket, "incoming/wine/3.csv", WINE + b"\n")
    for number in range(4, 6):
        harness.put(bucket, f"incoming/wine/{number}.csv", WINE)
    request = waiting(harness, "collects", 3)
    assert trained.admitted_at is not None
    assert request.due_at == trained.admitted_at + timedelta(hours=1)
    assert harness.run("stop", request.request_id) == 0


def test_a_batch_of_files_is_complete_with_its_manifest(harness: Harness) -> None:
    bucket = harness.create("batches", "--train-on", "whole-prefix", "--retraining", "closed_by=_manifest.json")
    harness.put(bucket, "incoming/wine/day/0.csv", WINE)
    waiting(harness, "batches", 1)
    files = json.dumps({"files": ["0.csv", "1.csv"]}).encode()
    harness.put(bucket, "incoming/wine/day/_manifest.json", files)

    def refused() -> list[Request]:
        return [each for each in harness.requests("batches") if each.state is State.REJECTED]

    (first,) = eventually(refused)
    assert "1 of the 2 files that the manifest lists are not there, or are empty: 'day/1.csv'" in str(first.reason)
    assert harness.receipt(first)["reason"] == first.reason
    harness.put(bucket, "incoming/wine/day/1.csv", WINE)
    waiting(harness, "batches", 2)
    harness.put(bucket, "incoming/wine/day/_manifest.json", files)
    ended = harness.ended("batches", 4)
    (trained,) = [each for each in ended if each.state is State.SUCCEEDED]
    assert (trained.triggers, trained.outcome and trained.outcome.trained_files) == (
        ("upload", "batch complete"),
        2,
    )


@pytest.mark.thorough
def test_nothing_is_trained_when_nothing_has_changed(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    bucket = harness.create("unchanged", "--retrain", "rate(1 minute)")
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (trained,) = harness.ended("unchanged")
    assert trained.state is State.SUCCEEDED
    harness.cloud.pass_schedule_time(60)
    reason = reason_left_out(harness, "unchanged", "wine")
    assert f"since request {trained.request_id[:8]} trained on them" in reason
    capsys.readouterr()
    assert harness.run("retraining", "unchanged") == 0
    assert "not trained" in capsys.readouterr().out
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    again = next(each for each in harness.ended("unchanged", 2) if each.request_id != trained.request_id)
    assert (again.state, again.cause) == (State.REJECTED, Cause.UPLOAD)
    assert "ask for a training with force" in harness.receipt(again)["reason"]
    assert harness.run("retrain", "unchanged", "--data-set", "wine", "--wait") == 4
    assert harness.run("retrain", "unchanged", "--data-set", "wine", "--force", "--wait") == 0
    assert harness.run("tenant", "update", "unchanged", "--retrain", "") == 0


def alarm(harness: Harness, name: str, *states: str) -> None:
    cloudwatch = harness.cloud.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="Quality",
        MetricName="Quality",
        Period=60,
        EvaluationPeriods=1,
        Threshold=0.5,
        ComparisonOperator="LessThanThreshold",
        Statistic="Average",
        TreatMissingData="ignore",
    )
    for state in states:
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="a test")


def test_alarms_and_other_systems_ask_for_trainings(harness: Harness) -> None:
    bucket = harness.create("asked-by-crm", "--retraining", "interval_minutes=1")
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (first,) = harness.ended("asked-by-crm")
    assert harness.run("pause", "all") == 0
    harness.put(bucket, "incoming/wine/wine.csv", WINE + b"\n")
    waiting(harness, "asked-by-crm", 1)
    alarm(harness, "quality/asked-by-crm/wine", "ALARM", "OK", "ALARM", "OK", "ALARM")
    alarm(harness, "cpu", "ALARM")
    events = harness.cloud.client("events")

    def ask(source: str, **detail: Any) -> None:
        entry = {
            "EventBusName": harness.outputs["EventBus"],
            "Source": source,
            "DetailType": "Retraining Requested",
            "Detail": json.dumps({"tenant_id": "asked-by-crm", "data_set": "wine", **detail}),
        }
        assert events.put_events(Entries=[entry])["FailedEntryCount"] == 0

    ask("com.example.crm", reason="the campaign is over")
    ask("com.example.other")
    ask("com.example.crm", schema_version=7)
    ask("com.example.crm", tenant_id="unheard-of")

    def merged() -> Request | None:
        queued = [each for each in harness.requests("asked-by-crm") if each.state is State.QUEUED]
        wanted = {"upload", "alarm: quality/asked-by-crm/wine", "event: com.example.crm the campaign is over"}
        return queued[0] if len(queued) == 1 and set(queued[0].triggers) == wanted else None

    reasons: list[str] = []

    def refused() -> bool:
        reasons.extend(reason for _, reason in harness.letters("uploads-dlq"))
        return len(reasons) >= 3

    try:
        request = eventually(merged)
        assert eventually(refused, 60)
    finally:
        assert harness.run("resume", "all") == 0
    told = " | ".join(reasons)
    assert "events of source 'com.example.other' may not ask for tenant asked-by-crm" in told
    assert "schema_version" in told
    assert "there is no tenant 'unheard-of'" in told
    assert harness.run("stop", request.request_id) == 0
    assert first.state is State.SUCCEEDED


@pytest.mark.thorough
def test_the_watch_asks_for_what_no_event_asks_for(harness: Harness) -> None:
    # Of the quarter of an hour over which such requests are spread, this name's comes after a second.
    data_set = "wine-425"
    bucket = harness.create("watched", "--retraining", "age_max_days=1")
    harness.put(bucket, f"incoming/{data_set}/wine.csv", WINE)
    (first,) = harness.ended("watched")
    key = past_key("watched", data_set)
    (item,) = harness.deployment.store.get(key)
    assert item is not None
    days_ago = stamp(datetime.now(UTC) - timedelta(days=2))
    trained = {**item["trained"], "at": days_ago, "basis": "other data.other settings"}
    harness.deployment.store.transact([Update(key, set={"trained": trained})])
    asked = asked_by_watch(harness)
    assert asked >= 1
    again = next(each for each in harness.ended("watched", 2, 90) if each.request_id != first.request_id)
    assert (again.state, again.triggers) == (State.SUCCEEDED, ("age",))


@pytest.mark.thorough
def test_drift_is_shown_and_refused_by_rule_until_it_is_forced(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = harness.create("drifts", "--retraining", "on_shift=refuse,shift_percent=10")
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (first,) = harness.ended("drifts")
    assert first.state is State.SUCCEEDED
    header, *rows = WINE.decode().splitlines()
    moved = [",".join(f"{float(cell) * 1000}" for cell in row.split(",")[:3]) for row in rows]
    kept = [",".join(row.split(",")[3:]) for row in rows]
    body = "\n".join([header, *map(",".join, zip(moved, kept, strict=True))]).encode()
    harness.put(bucket, "incoming/wine/wine.csv", body)
    refused = next(each for each in harness.ended("drifts", 2) if each.request_id != first.request_id)
    assert refused.state is State.FAILED
    assert "3 columns of 13 moved far from the last training" in str(refused.reason)
    capsys.readouterr()
    assert harness.run("drift", "drifts", "wine") == 0
    shown = capsys.readouterr().out
    assert "shifted" in shown
    assert "10 stable columns not shown" in shown
    assert harness.run("drift", "drifts", "other") == 1
    assert harness.run("retrain", "drifts", "--data-set", "wine", "--force", "--wait") == 0
    group = harness.deployment.tenant("drifts").model_group
    package = harness.cloud.client("sagemaker").list_model_packages(ModelPackageGroupName=group)
    arns = [each["ModelPackageArn"] for each in package["ModelPackageSummaryList"]]
    baselines = [
        harness.cloud.client("sagemaker").describe_model_package(ModelPackageName=arn)["DriftCheckBaselines"]
        for arn in arns
    ]
    uris = [each["ModelDataQuality"]["Statistics"]["S3Uri"] for each in baselines]
    assert len(uris) == 2
    assert all(uri.endswith("/profile/statistics.json") for uri in uris)


@pytest.mark.thorough
def test_what_models_were_asked_is_compared_with_what_they_were_trained_on(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = harness.create("captures", "--retraining", "captured_drift=true", "--target", "target")
    harness.put(bucket, "incoming/wine/data.csv", WINE)
    (trained,) = harness.ended("captures")
    assert trained.state is State.SUCCEEDED, trained.reason

    def compared(*options: str) -> tuple[int, str]:
        capsys.readouterr()
        code = harness.run("drift", "captures", "wine", "--captured", *options)
        said = capsys.readouterr()
        return code, said.out + said.err

    code, said = compared()
    assert (code, "nothing was captured since the training" in said) == (1, True)
    head, *rows = WINE.decode().splitlines()
    names = head.split(",")
    asked = [dict(zip(names, map(float, row.split(",")), strict=True)) for row in rows]
    for row in asked:
        del row["target"]
        row["alcohol"] += 5
        row["magnesium"] *= 100
    lines = "\n".join(json.dumps(row) for row in asked).encode()
    harness.put(bucket, "captured/wine/2026/11/30/a.jsonl", lines + b"\nno row\n")
    code, said = compared()
    assert code == 0, said
    assert {"alcohol", "magnesium"} <= set(said.split())
    assert "1 line could not be read" in said
    assert "the inputs have not moved far, by the data set's rules" in said
    assert harness.run("tenant", "update", "captures", "--retraining", "captured_drift=true,critical=alcohol") == 0
    view = json.loads(compared("--json")[1])
    assert (view["has_shifted"], view["request_id"], view["unreadable"]) == (True, trained.request_id, 1)

    # The intake function may read it too, and asks within the quarter of an hour over which that is spread.
    assert asked_by_watch(harness) >= 1

    # Asked for at once, it trains if anything has changed: here, a setting.
    assert harness.run("tenant", "update", "captures", "--hyperparameter", "max_iter=50") == 0
    tenant = harness.deployment.tenant("captures")
    watch = RetrainingWatch(
        account_id=ACCOUNT_ID,
        store=harness.deployment.store,
        tenants=Only(tenant),
        retrainings=AtOnce(SqsRetrainings(queue_url=harness.outputs["UploadsQueue"])),
        models=MemoryModels(),
        calls=InferenceBook(store=harness.deployment.store, retention=timedelta(days=1)),
        captured=S3CapturedInputs(),
    )
    for part in range(PARTS):
        assert watch.run(datetime.now(UTC), part=part).failed == {}
    again = next(each for each in harness.ended("captures", 2) if each.request_id != trained.request_id)
    assert again.state is State.SUCCEEDED, again.reason
    (trigger,) = again.triggers
    assert trigger.startswith("captured inputs: 2 of 13 columns moved far in 178 rows: ")


@dataclass(frozen=True)
class Only:
    tenant: Tenant

    def all(self) -> list[Tenant]:
        return [self.tenant]


@dataclass(frozen=True)
class AtOnce:
    """Asks without spreading that over minutes."""

    retrainings: SqsRetrainings

    def ask(self, asked: Sequence[RetrainingAsked], *, spread: timedelta = AT_ONCE) -> None:
        self.retrainings.ask(asked)
