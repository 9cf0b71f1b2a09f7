"""Costs in the deployed service: the record, reports, budgets, statements, exports, the kill switch."""

import csv
import gzip
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from local.demo import data
from tests.e2e.conftest import Harness, eventually
from trainyard.application.billing.statements import FOLDER
from trainyard.domain.requests import State

WINE = data.bundled("wine")


def told(harness: Harness, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert harness.run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def invoked(harness: Harness, function: str, payload: dict[str, Any]) -> Any:
    answer = harness.cloud.client("lambda").invoke(
        FunctionName=harness.outputs[function], Payload=json.dumps(payload).encode()
    )
    body = json.loads(answer["Payload"].read())
    assert not answer.get("FunctionError"), body
    return body


def test_what_a_training_did_and_cost_is_recorded_reported_stated_and_exported(
    harness: Harness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = harness.create("payer")
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (request,) = harness.ended("payer")
    # The record: the whole life, and every step with its job.
    shown = told(harness, capsys, "request", request.request_id)
    assert [entry["state"] for entry in shown["history"]] == ["QUEUED", "ADMITTED", "RUNNING", "SUCCEEDED"]
    (execution,) = shown["executions"]
    steps = {one["step"]["name"]: one for one in execution["steps"]}
    assert set(steps) >= {"Preprocess", "Train", "Evaluate", "QualityIsGoodEnough", "Register", "Record"}
    train = steps["Train"]["step"]["job"]
    assert (train["instance_type"], train["kind"], train["status"]) == ("ml.m5.large", "training", "Completed")
    assert train["artifact_uri"].endswith("model.tar.gz")
    assert execution["model_package_arn"]
    assert execution["tags"]["trainyard:tenant"] == "payer"
    assert shown["expected"]["basis"] == "size and tier"
    cost = Decimal(execution["cost_usd"])
    assert cost == sum(Decimal(one["cost_usd"]) for one in execution["steps"]) > 0
    assert harness.run("request", request.request_id) == 0
    assert "Train: succeeded, 1 x ml.m5.large" in capsys.readouterr().out
    # Found by data set, by state and by tier, without a scan.
    for options in (
        ("payer", "--data-set", "wine"),
        ("payer", "--since", request.arrived_at.strftime("%Y-%m-%d")),
        ("--state", "SUCCEEDED", "--tier", "basic"),
    ):
        found = told(harness, capsys, "requests", *options)
        assert request.request_id in [one["request_id"] for one in found], options
    # Reports.
    report = told(harness, capsys, "costs", "--by", "data-set", "--tenant", "payer")
    assert [(row["name"], Decimal(row["usd"])) for row in report["rows"]] == [("payer/wine", cost)]
    assert harness.run("costs") == 0
    assert "total" in capsys.readouterr().out
    # The statement, in the tenant's own bucket.
    month = datetime.now(UTC).strftime("%Y-%m")
    assert (
        told(harness, capsys, "costs", "statement", "payer")["statement"] == f"s3://{bucket}/{FOLDER}/{month}.html"
    )
    page = (
        harness.cloud.client("s3").get_object(Bucket=bucket, Key=f"{FOLDER}/{month}.html")["Body"].read().decode()
    )
    assert "Trainings of payer" in page
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)  # returns nothing, as where there is no browser
    assert harness.run("costs", "statement", "payer", "--open") == 0
    assert "there is no browser here to open it" in capsys.readouterr().out
    assert "Trainings of payer" in Path(opened[0].removeprefix("file://")).read_text(encoding="utf-8")
    # The export.
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    where = told(harness, capsys, "costs", "export", day)["export"]
    key = where.removeprefix(f"s3://{harness.outputs['BillingBucket']}/")
    packed = harness.cloud.client("s3").get_object(Bucket=harness.outputs["BillingBucket"], Key=key)["Body"].read()
    rows = csv.DictReader(io.StringIO(gzip.decompress(packed).decode()))
    ours = [row for row in rows if row["SubAccountId"] == "payer"]
    assert sum(Decimal(row["BilledCost"]) for row in ours) == cost
    assert told(harness, capsys, "costs", "estimates", "payer")["runs"] == 1


def test_a_pooled_tenant_gets_its_statement_below_its_prefix(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.create_pooled("poolpayer")
    where = told(harness, capsys, "costs", "statement", "poolpayer", "--month", "2026-01")["statement"]
    assert where == f"s3://{harness.outputs['PoolBucket']}/poolpayer/{FOLDER}/2026-01.html"


@pytest.mark.thorough
def test_a_budget_that_is_spent_holds_the_next_training_back_until_it_is_raised(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = harness.create("thrifty", "--budget-usd", "0.00001")
    harness.put(bucket, "incoming/wine/wine.csv", WINE)

    def held() -> Any:
        found = [r for r in harness.requests("thrifty") if r.state is State.QUEUED]
        why = told(harness, capsys, "why", found[0].request_id) if found else {}
        return why if "budget" in str(why.get("reason")) else None

    why = eventually(held)
    assert Decimal(why["budgets"][0]["budget"]["limit_usd"]) == Decimal("0.00001")
    invoked(harness, "ReconcilerFunction", {})
    waiting = harness.receipt(harness.requests("thrifty")[0])["waiting"]
    assert "your budget for this month" in waiting["reason"], "its tenant reads it too"
    assert waiting["position"] is None
    (budget,) = told(harness, capsys, "costs", "budgets", "thrifty")
    assert (budget["whose"], budget["budget"]["mode"]) == ("tenant thrifty", "hard")
    assert harness.run("tenant", "update", "thrifty", "--budget-usd", "5", "--budget-mode", "soft") == 0
    invoked(harness, "DispatcherFunction", {"source": "timer"})
    (request,) = harness.ended("thrifty")
    assert request.state is State.SUCCEEDED
    (after,) = told(harness, capsys, "costs", "budgets", "thrifty")
    assert Decimal(after["spent_usd"]) > 0
    assert Decimal(after["reserved_usd"]) == 0
    assert harness.run("tenant", "update", "thrifty", "--budget-usd", "5 EUR") == 1
    assert "US dollars" in capsys.readouterr().err


def test_a_threshold_that_spending_reaches_is_told_on_the_bus(harness: Harness) -> None:
    bucket = harness.create("spender")
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    harness.ended("spender")
    sqs = harness.cloud.client("sqs")
    pattern = {"detail-type": ["Budget Threshold Crossed"], "detail": {"tenant_id": ["spender"]}}
    url = harness.listen("told-of-money", pattern)
    # The next training is admitted under a large budget, and ends under one that both together exceed; where it
    # ends before the update does, another one follows.
    found: list[Any] = []
    for number in range(4):
        assert harness.run("tenant", "update", "spender", "--budget-usd", "1000") == 0
        spent = harness.deployment.scheduler.tables.queues.get("basic", "spender").spent_usd
        harness.put(bucket, f"incoming/other-{number}/wine.csv", WINE)
        eventually(lambda: [r for r in harness.requests("spender") if r.state is State.RUNNING])
        assert harness.run("tenant", "update", "spender", "--budget-usd", str(spent)) == 0
        harness.ended("spender", count=2 + number)
        invoked(harness, "ReconcilerFunction", {})
        found = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5).get("Messages", [])
        if found:
            break
    (message,) = found
    detail = json.loads(message["Body"])["detail"]
    assert (detail["tenant_id"], detail["percent"], detail["budget_usd"]) == ("spender", 100, str(spent))
    assert Decimal(detail["spent_usd"]) > spent
    assert harness.deployment.book.outbox_entries() == []


def test_the_hourly_task_does_what_is_due_and_tells_how_the_cost_tags_stand(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no Cost Explorer here: the tags' state says that it could not be asked."""
    done = invoked(harness, "BillingFunction", {})
    assert set(done) == {"inference", "metering", "exports", "cost tags", "statements"}
    assert done["metering"] is None, "nothing is metered unless a dimension is named"
    tags = told(harness, capsys, "costs", "tags")
    assert set(tags["states"].values()) <= {
        "could not be asked for",
        "this account may not activate it: the payer must",
    }
    assert "update-cost-allocation-tags-status" in tags["payers_command"]
    assert invoked(harness, "BillingFunction", {})["exports"] == [], "yesterday was exported before"


def test_the_kill_switch_stops_what_runs_and_starts_nothing_new(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = ("--hyperparameter", "max_iter=5000", "--hyperparameter", "early_stopping=false")
    bucket = harness.create("runaway", *slow)
    harness.put(bucket, "incoming/fraud/f.csv", data.fraud(20000, seed=1).replace(b"is_fraud", b"target"))
    eventually(lambda: [r for r in harness.requests("runaway") if r.state is State.RUNNING])
    assert len(told(harness, capsys, "halt", "tenant", "runaway")["would_stop"]) == 1
    assert harness.requests("runaway")[0].state is State.RUNNING, "without --yes nothing is stopped"
    assert len(told(harness, capsys, "halt", "tenant", "runaway", "--yes")["stopped"]) == 1
    (request,) = harness.ended("runaway")
    assert request.state is State.STOPPED
    (record,) = harness.deployment.book.executions(request.request_id)
    assert record.cost_usd > 0, "what ran until it was stopped is paid"
    harness.put(bucket, "incoming/wine/w.csv", WINE)
    eventually(lambda: [r for r in harness.requests("runaway") if r.state is State.QUEUED])
    assert harness.run("resume", "tenant", "runaway") == 0
    assert harness.run("stop", harness.requests("runaway")[-1].request_id) in (0, 1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("costs", "--month", "2026-13"), "'2026-13' is not a month"),
        (("costs", "--since", "2026-11", "--month", "2026-10"), "is after"),
        (("costs", "--month", "9999-12"), "there are no records for"),
        (("costs", "export", "yesterday"), "is not a day"),
        (("costs", "statement", "nobody"), "there is no tenant 'nobody'"),
        (("costs", "budgets", "nobody"), "there is no tenant"),
        (("costs", "--tenant", "nobody"), "there is no tenant"),
        (("costs", "export", "2099-01-01"), "end today"),
        (("costs", "statement", "nobody", "--month", "2027-05"), "there is no tenant"),
        (("requests", "--data-set", "wine"), "needs a tenant"),
        (("requests", "--since", "2020-01-01", "--state", "FAILED"), "choose a period of 1 to 92 days"),
        (("requests", "--since", "2026-11-22", "--until", "2026-11-20"), "is after"),
        (("requests", "--tier", "gold"), "there is no tier 'gold'"),
        (("costs", "reconcile"), "needs the permission ce:GetCostAndUsage"),
        (("halt", "all", "acme"), "give either"),
        (("prices", "show", "--region", "mars-north-1"), "has no prices for mars-north-1"),
        (("prices", "update", "--region", "mars-north-1"), "--volume-gb-month"),
    ],
)
def test_a_wrong_question_gets_a_clear_answer(
    harness: Harness, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], complaint: str
) -> None:
    assert harness.run(*arguments) == 1
    assert complaint in capsys.readouterr().err


def test_prices_are_shown(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(harness, capsys, "prices", "show")
    assert found["training"]["ml.m5.large"] == "0.115"
