"""From an approved model to its predictions, through the template's own rule, state machine and functions."""

import json
import re
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

import cli.costs
from local.demo import data
from tests.e2e.conftest import Harness, eventually
from trainyard.adapters.aws.billing import SageMakerEndpoints
from trainyard.application.billing.inference import InferenceBooking
from trainyard.contracts.shipped_prices import prices_of
from trainyard.domain.requests import Request

WINE = data.bundled("wine")
ROWS = b"\n".join(line.rpartition(b",")[0] for line in WINE.splitlines()[:4])


def served(harness: Harness, capsys: pytest.CaptureFixture[str], tenant_id: str) -> dict[int, Any]:
    capsys.readouterr()
    assert harness.run("serving", "show", tenant_id, "--json") == 0
    return {view["version"]: view for view in json.loads(capsys.readouterr().out)}


BOOKED_AFTER = timedelta(hours=2)


class Later(datetime):
    """A clock of the time when the running hour is booked, which may be another day."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + BOOKED_AFTER


def booked(harness: Harness, capsys: pytest.CaptureFixture[str], tenant_id: str) -> dict[str, Any]:
    """Return a tenant's costs after the hour is booked, as the billing function does once it is over."""
    answer = harness.cloud.client("lambda").invoke(FunctionName=harness.outputs["BillingFunction"], Payload=b"{}")
    assert "FunctionError" not in answer, answer["Payload"].read()
    booking = InferenceBooking(
        book=harness.deployment.inference_book,
        endpoints=SageMakerEndpoints(stack="trainyard"),
        prices=prices_of(harness.deployment.region),
        tier_of=lambda name: harness.deployment.tenant(name).tier,
    )
    booking.book_due(datetime.now(UTC) + BOOKED_AFTER, lambda: False)

    def charged() -> bool:
        reconciler = harness.outputs["ReconcilerFunction"]
        answer = harness.cloud.client("lambda").invoke(FunctionName=reconciler, Payload=b"{}")
        assert "FunctionError" not in answer, answer["Payload"].read()
        return not any(entry.what == "spending" for entry in harness.deployment.book.outbox_entries())

    assert eventually(charged)
    capsys.readouterr()
    assert harness.run("costs", "--tenant", tenant_id, "--json") == 0
    costs: dict[str, Any] = json.loads(capsys.readouterr().out)["total"]
    return costs


def asked_directly(
    harness: Harness,
    capsys: pytest.CaptureFixture[str],
    tenant_id: str,
    version: dict[str, Any],
    target: str = "TargetModel",
) -> int | str:
    """Ask a model with a tenant's credentials; return how many predictions it makes, or the error."""
    try:
        answer = runtime_of(harness, capsys, tenant_id).invoke_endpoint(
            EndpointName=version["endpoint"],
            **{target: version["target"]},
            ContentType="text/csv",
            Accept="application/json",
            Body=ROWS,
        )
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return len(json.loads(answer["Body"].read())["predictions"])


def runtime_of(harness: Harness, capsys: pytest.CaptureFixture[str], tenant_id: str) -> Any:
    """Return a client that calls endpoints with a tenant's credentials."""
    capsys.readouterr()
    assert harness.run("--json", "tenant", "credentials", tenant_id, "--purpose", "predict") == 0
    keys = json.loads(capsys.readouterr().out)
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=harness.cloud.sagemaker_url,
        region_name=harness.deployment.region,
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=keys["AWS_SESSION_TOKEN"],
    )


def trained(harness: Harness, bucket: str, tenant_id: str, count: int) -> None:
    harness.put(bucket, "incoming/wine/wine.csv", WINE + b"\n" * count)
    harness.ended(tenant_id, count=count)


def test_an_approved_model_predicts_and_its_successor_can_be_rolled_back(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_models = {"detail-type": [{"prefix": "Model "}], "detail": {"tenant_id": ["vintner"]}}
    bus, seen = harness.listen("vintner-models", of_models), set[tuple[str, str, int]]()
    bucket, rows = harness.create("vintner"), tmp_path / "rows.csv"
    rows.write_bytes(ROWS)
    assert harness.run("predict", "vintner", "wine", str(rows)) == 1
    assert "no model of 'wine' is served" in capsys.readouterr().err
    for number in (1, 2):
        trained(harness, bucket, "vintner", number)
        assert harness.run("models", "approve", "vintner", str(number)) == 0
        eventually(lambda: served(harness, capsys, "vintner").get(number, {}).get("percent") == 100, 60)  # noqa: B023
    first, second = (served(harness, capsys, "vintner")[number] for number in (1, 2))
    assert (first["state"], second["state"], first["percent"]) == ("READY", "READY", 0)
    assert second["target"].startswith("vintner/wine/2-")
    assert second["latency_ms"] > 0

    def predicted() -> dict[str, Any]:
        capsys.readouterr()
        assert harness.run("predict", "vintner", "wine", str(rows), "--json") == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    answer = predicted()
    assert answer["version"] == 2
    assert len(answer["predictions"]) == len(answer["probabilities"]) == 3
    assert harness.run("serving", "roll-back", "vintner", "wine", "2") == 0
    assert predicted()["version"] == 1
    costs = booked(harness, capsys, "vintner")
    assert costs["calls"] == 2
    assert 0 < Decimal(costs["inference_usd"]) < Decimal("0.115")
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(cli.costs, "datetime", Later)
        assert harness.run("costs", "--month", f"{datetime.now(UTC):%Y-%m}") == 0
    assert re.search(r"endpoints: \d+ hours?, [\d.]+ USD, of which [\d.]+ were idle", capsys.readouterr().out)
    own = served(harness, capsys, "vintner")[1]
    assert asked_directly(harness, capsys, "vintner", own) == 3
    harness.create("vintner1")
    assert asked_directly(harness, capsys, "vintner1", own) == "AccessDeniedException"
    assert harness.run("serving", "roll-back", "vintner", "wine", "2") == 0, "repeated"
    capsys.readouterr()
    views = served(harness, capsys, "vintner")
    for number in (1, 2):
        assert harness.run("why", views[number]["request_id"]) == 0
    assert "its model, version 1, answers calls" in (said := capsys.readouterr().out)
    assert "its model, version 2, is READY" in said
    assert harness.run("status") == 0
    assert (
        "trainyard-shared-gradient-boosting is InService: 1 x ml.m5.large, 0.115 USD an hour"
        in capsys.readouterr().out
    )
    assert harness.run("doctor") in (0, 4)
    assert "trainyard-shared-gradient-boosting is InService" in capsys.readouterr().out
    assert harness.run("serving", "roll-back", "vintner", "wine", "1") == 1
    assert "no earlier version" in capsys.readouterr().err
    # What is approved again after that is deployed again; here as a canary by hand would be.
    assert harness.run("models", "approve", "vintner", "2") == 0
    eventually(lambda: served(harness, capsys, "vintner")[2]["percent"] == 100, 60)
    assert harness.run("serving", "stop", "vintner", "wine") == 0
    assert predicted()["version"] == 2, "it was only shown"
    assert harness.run("serving", "stop", "vintner", "wine", "--yes") == 0
    assert harness.run("predict", "vintner", "wine", str(rows)) == 1
    assert "no model of 'wine' is served" in capsys.readouterr().err
    assert harness.run("models", "approve", "vintner", "2") == 0
    eventually(lambda: served(harness, capsys, "vintner")[2]["percent"] == 100, 60)
    reconciler = harness.outputs["ReconcilerFunction"]
    answer = harness.cloud.client("lambda").invoke(FunctionName=reconciler, Payload=b"{}")
    assert "FunctionError" not in answer, answer["Payload"].read()
    assert eventually(lambda: published(harness, bus, seen) >= 6)
    assert [(event, number) for _, event, number in sorted(seen)] == [
        ("Model Deployed", 1),
        ("Model Deployed", 2),
        ("Model Rolled Back", 2),
        ("Model Deployed", 2),
        ("Model Stopped", 2),
        ("Model Deployed", 2),
    ]
    rows.write_bytes(b"alcohol\n13\n")
    assert harness.run("predict", "vintner", "wine", str(rows)) == 1
    assert "the request has no column" in capsys.readouterr().err
    many = b"\n".join([ROWS.splitlines()[0], *ROWS.splitlines()[1:] * 700])
    rows.write_bytes(many)  # 2,100 rows: two calls
    assert len(predicted()["predictions"]) == 2_100
    rows.write_bytes(b"alcohol\n" + b"1" * 6_291_457)
    assert harness.run("predict", "vintner", "wine", str(rows)) == 1
    assert "too long for a call" in capsys.readouterr().err


def published(harness: Harness, bus: str, seen: set[tuple[str, str, int]]) -> int:
    """Add the events that have come into a queue: when, what, and to which version; return how many there are."""
    sqs = harness.cloud.client("sqs")
    while messages := sqs.receive_message(QueueUrl=bus, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            event = json.loads(message["Body"])
            seen.add((event["detail"]["at"], event["detail-type"], event["detail"]["version"]))
            sqs.delete_message(QueueUrl=bus, ReceiptHandle=message["ReceiptHandle"])
    return len(seen)


@pytest.mark.thorough
def test_a_version_is_called_in_test_until_it_is_promoted(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(ROWS)
    settings = "multi-model:approval=automatic:promotion=manual:canary_percent=50"
    bucket = harness.create("taster", "--serving", settings)
    command = ("predict", "taster", "wine", str(rows))

    def version(number: int) -> dict[str, Any]:
        shown: dict[str, Any] = served(harness, capsys, "taster").get(number, {})
        return shown

    trained(harness, bucket, "taster", 1)
    assert eventually(lambda: version(1).get("in_test"), 60)
    assert harness.run(*command) == 1
    assert "no model of 'wine' is served" in capsys.readouterr().err
    assert harness.run(*command, "--environment", "test") == 0
    assert harness.run("why", version(1)["request_id"]) == 0
    assert "answers calls in test; trainyard serving promote taster wine 1" in capsys.readouterr().out
    assert harness.run("serving", "promote", "taster", "wine", "1") == 0
    assert harness.run(*command) == 0
    trained(harness, bucket, "taster", 2)
    assert eventually(lambda: version(2).get("in_test"), 60)
    assert harness.run("serving", "promote", "taster", "wine", "3") == 1
    assert "version 3 of wine was never deployed" in capsys.readouterr().err
    assert harness.run("serving", "promote", "taster", "wine", "2") == 0
    assert "version 2 answers 50 % of them, as a canary" in capsys.readouterr().out
    machine = harness.outputs["DeployModelMachine"]
    runs = harness.cloud.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]
    promoted = [run["status"] for run in runs if run["name"].startswith("promoted-")]
    assert "RUNNING" in promoted, "it is judged each minute"
    assert harness.run("serving", "promote", "taster", "wine", "2") == 0
    assert version(2)["percent"] == 100
    assert harness.run(*command, "--environment", "test") == 1
    assert "no model of 'wine' is in test" in capsys.readouterr().err
    assert harness.run("tenant", "delete", "taster", "--yes") == 0


@pytest.mark.thorough
def test_a_model_whose_rows_are_gone_is_given_up_and_a_deleted_tenant_leaves_nothing(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    s3, serving = harness.cloud.client("s3"), harness.outputs["ServingBucket"]
    (rows := tmp_path / "rows.csv").write_bytes(ROWS)
    bucket = harness.create("cellar")

    def approved(number: int) -> None:
        assert harness.run("models", "approve", "cellar", str(number)) == 0
        eventually(lambda: served(harness, capsys, "cellar").get(number, {}).get("percent") == 100, 60)

    trained(harness, bucket, "cellar", 1)
    approved(1)
    # The second version fails, once for want of rows to test it and once for its archive: the first one answers.
    trained(harness, bucket, "cellar", 2)
    (request,) = [request for request in harness.requests("cellar") if _is(request, 2)]
    sample = {"Bucket": bucket, "Key": f"reports/wine/{request.request_id}/profile/sample.json"}
    kept = s3.get_object(**sample)["Body"].read()
    s3.delete_object(**sample)
    assert harness.run("models", "approve", "cellar", "2") == 0
    version = eventually(lambda: given_up(served(harness, capsys, "cellar").get(2)), 60)
    assert "kept no rows" in version["reason"]
    harness.put(bucket, sample["Key"], kept)
    assert request.outcome is not None
    archive = str(request.outcome.model_uri).removeprefix(f"s3://{bucket}/")
    body = s3.get_object(Bucket=bucket, Key=archive)["Body"].read()
    harness.put(bucket, archive, b"no archive")
    assert harness.run("models", "approve", "cellar", "2") == 0
    since = version["since"]
    version = eventually(lambda: _after(since, given_up(served(harness, capsys, "cellar").get(2))), 60)
    assert "kept no rows" not in version["reason"]
    capsys.readouterr()
    assert harness.run("predict", "cellar", "wine", str(rows), "--json") == 0
    assert json.loads(capsys.readouterr().out)["version"] == 1
    harness.put(bucket, archive, body)
    approved(2)
    capsys.readouterr()
    assert harness.run("models", "approve", "cellar", "1") == 0
    assert "it is not deployed, because version 2 is newer" in capsys.readouterr().out
    assert harness.run("serving", "stop", "cellar", "wine", "--yes") == 0
    approved(2)

    def placed() -> list[str]:
        listed = s3.list_objects_v2(Bucket=serving).get("Contents", [])
        return [item["Key"] for item in listed if "/cellar/" in item["Key"]]

    assert [key.split("/")[-2].split("-")[0] for key in placed()] == ["2"]
    assert harness.run("tenant", "delete", "cellar", "--yes") == 0
    assert placed() == []
    items = harness.cloud.client("dynamodb").query(
        TableName=harness.outputs["SchedulerTable"],
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "serving#cellar"}},
    )["Items"]
    assert items == []


def _is(request: Request, version: int) -> bool:
    return bool(request.outcome and str(request.outcome.model_package_arn).endswith(f"/{version}"))


def _after(since: str, version: dict[str, Any] | None) -> dict[str, Any] | None:
    return version if version is not None and version["since"] > since else None


def given_up(version: dict[str, Any] | None) -> dict[str, Any] | None:
    return version if version is not None and version["state"] == "FAILED" else None


def test_an_approval_whose_event_is_lost_is_found_by_the_search(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    events, rule = harness.cloud.client("events"), harness.outputs["ModelApprovedRule"]
    bucket = harness.create("overlooked")
    trained(harness, bucket, "overlooked", 1)
    events.disable_rule(Name=rule)
    try:
        assert harness.run("models", "approve", "overlooked", "1") == 0
    finally:
        events.enable_rule(Name=rule)
    function = harness.outputs["ServingFunction"]

    def searched() -> dict[str, Any]:
        payload = json.dumps({"step": "Search", "run": "timer"}).encode()
        answer = harness.cloud.client("lambda").invoke(FunctionName=function, Payload=payload)
        assert "FunctionError" not in answer, answer["Payload"].read()
        found: dict[str, Any] = json.loads(answer["Payload"].read())
        return found

    assert searched()["failed"] == 0
    eventually(lambda: served(harness, capsys, "overlooked").get(1, {}).get("percent") == 100, 60)
    assert searched()["started"] == 0
