import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.build import s3_event, submission
from trainyard.contracts.arrivals import parse_arrival
from trainyard.contracts.compiled_policy import DEPLOYED
from trainyard.contracts.deadlines import DeadlineEvent
from trainyard.contracts.messages import parse_training_request, training_request_body
from trainyard.contracts.model_events import ModelEvent
from trainyard.contracts.money import BudgetThresholdCrossed, CostAnomalyDetected
from trainyard.contracts.policy_file import parse_policy
from trainyard.contracts.settings import MissingSetting, Settings
from trainyard.contracts.statuses import RecordStep, parse_execution_status
from trainyard.contracts.tenants import StepCommand
from trainyard.domain.arrivals import RetrainingAsked, TransformAsked, UploadArrived
from trainyard.domain.errors import Malformed, Refused
from trainyard.domain.requests import Cause

EVENTS = Path(__file__).parents[2] / "events"


def test_an_upload_event_is_read_with_its_key_as_it_is() -> None:
    key = "incoming/churn/a b+c%2Fd ü.csv"
    arrival = parse_arrival(json.dumps(s3_event(object_key=key)))
    assert isinstance(arrival, UploadArrived)
    assert (arrival.content.key, arrival.content.version_id, arrival.content.size_bytes) == (key, "v1", 1000)


def test_an_unversioned_bucket_and_the_other_spelling_of_the_entity_tag_are_read_too() -> None:
    body = s3_event()
    body["detail"]["object"] = {"key": "incoming/x/y", "size": 1, "eTag": '"abc"', "sequencer": "0A"}
    arrival = parse_arrival(json.dumps(body))
    assert isinstance(arrival, UploadArrived)
    assert (arrival.content.version_id, arrival.content.etag) == (None, "abc")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        json.dumps(s3_event())[:-40],
        json.dumps(s3_event(detail_type="Object Deleted")),
        json.dumps(s3_event(source="aws.sagemaker")),
        json.dumps(s3_event(account="12")),
        json.dumps(s3_event(time="yesterday")),
        json.dumps(s3_event(detail={"bucket": {"name": "trainyard-t-acme"}})),
        json.dumps(s3_event(object_size=-1)),
        json.dumps(s3_event(object_sequencer="not hexadecimal")),
        json.dumps(s3_event(object_key="x" * 1025)),
        json.dumps(s3_event(object_key="\ud800")),
    ],
)
def test_an_event_that_makes_no_sense_is_malformed(body: str) -> None:
    with pytest.raises(Malformed):
        parse_arrival(body)


def test_a_malformed_events_reason_names_the_field_and_not_the_data() -> None:
    with pytest.raises(Malformed, match=r"detail\.object\.size") as caught:
        parse_arrival(json.dumps(s3_event(object_size=-1, object_key="incoming/secret/name.csv")))
    assert "secret" not in str(caught.value)


def test_a_training_request_survives_the_tier_queue() -> None:
    sent = submission(3, cause=Cause.RETRAINING)
    assert parse_training_request(training_request_body(sent)) == sent
    with pytest.raises(Malformed):
        parse_training_request('{"schema_version": 2}')


KNOWN = {"Executing", "Succeeded", "Failed"}


@pytest.mark.parametrize("path", sorted(EVENTS.glob("*.json")), ids=lambda path: path.stem)
def test_each_example_event_is_what_its_name_says(path: Path) -> None:
    body = path.read_text(encoding="utf-8")
    if path.stem.startswith("execution-status"):
        assert parse_execution_status(body).detail.status in KNOWN | {"Perplexed"}
    elif path.stem.startswith("record-step"):
        assert RecordStep.model_validate_json(body).attempt == 1
    elif path.stem.startswith("retraining-requested"):
        assert isinstance(parse_arrival(body), RetrainingAsked)
    elif path.stem.startswith("batch-transform-requested"):
        assert isinstance(parse_arrival(body), TransformAsked)
    elif path.stem.startswith("object-created"):
        assert isinstance(parse_arrival(body), UploadArrived)
    else:
        with pytest.raises(Malformed):
            parse_arrival(body)


def test_there_is_an_example_of_every_event() -> None:
    stems = {path.stem for path in EVENTS.glob("*.json")}
    assert {"object-created", "object-deleted", "retraining-requested", "record-step"} <= stems
    assert {"execution-status-executing", "execution-status-succeeded"} <= stems


# --- policy -------------------------------------------------------------------------------------------------


def test_the_deployed_policy_holds_and_names_the_templates_tiers() -> None:
    from local.cloud import REPOSITORY
    from local.deploy import load_template

    loop = load_template(REPOSITORY / "template.yaml")["Resources"]["Fn::ForEach::TierQueues"]
    assert [tier.name for tier in parse_policy(DEPLOYED.read_text(encoding="utf-8"), 0).tiers] == loop[1]


TENANTS = "running_max: 20\ntenants: "


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "quota: 4 ",
            "quota: 0 ",
            r"line 12: tiers\.basic\.quota: must be at least 1, got 0",
        ),
        ("quota: 4 ", "quota: 1.5 ", r"tiers\.basic\.quota"),
        ("quota: 4 ", "quota: 40 ", r"line 12: tiers\.basic\.quota: is 40, which exceeds running_max"),
        ("quota: 4 ", "slots: 4 ", r"line 12: tiers\.basic\.slots: is unknown"),
        ("  standard:", "  basic:", r"line \d+: duplicate key 'basic'"),
        ("data_mb_max: 1024", "data_mb_max: 100", "instances: must be in ascending order of data_mb_max"),
        ("ml.t3.medium", "t3.medium", r"instances\.0\.processing"),
        ("tiers:", "tiers: [", "the policy is not YAML"),
        ("quality_min: 0.5", "quality_min: 2", r"quality_min"),
        ("quota: 4 ", "quota: -4 ", r"line 12: tiers\.basic\.quota: .*got -4"),
        (
            "running_max_per_tenant: 2",
            "running_max_per_tenant: 2\n    running_ceiling_per_tenant: 1",
            r"running_ceiling_per_tenant: is 1, which is below running_max_per_tenant \(2\)",
        ),
        ("borrowing_limit: 4", "borrowing_limit: 17", r"borrowing_limit: is 17: with the quota of 4 it exceeds"),
        ("lending_limit: 3", "lending_limit: 4", r"lending_limit: is 4, at most 3 \(80% of the quota\)"),
        ("running_max: 20", "running_max: 20\ninstance_quotas: {ml.m5.large: 4}", "must be training/ml"),
        ("running_max: 20", "running_max: 20\ninstance_quotas: {training/ml.m5.large: -1}", "line 5: instance_q"),
        ("running_max: 20", "running_max: 20\ntenants: {acme: {weight: 0}}", r"tenants\.acme\.weight: .*got 0"),
        ("running_max: 20", "running_max: 20\ntenants: {Acme: {weight: 1}}", r"tenants\.Acme: is not a valid"),
        (
            "running_max: 20",
            TENANTS + "{acme: {budget_usd: 0}}",
            r"budget_usd: .*greater than 0; to",
        ),
        ("running_max: 20", TENANTS + "{acme: {budget_usd: -5}}", r"budget_usd: .*greater than 0; to run nothing"),
        (
            "running_max: 20",
            TENANTS + "{acme: {budget_usd: 5 EUR}}",
            r"of US dollars.*got '5 EUR'",
        ),
        ("running_max: 20", TENANTS + "{acme: {budget_usd: .nan}}", r"budget_usd"),
        ("running_max: 20", TENANTS + "{acme: {budget_eur: 5}}", r"budget_eur: is unknown"),
        (
            "running_max: 20",
            TENANTS + "{acme: {budget_mode: lax}}",
            r"budget_mode: must be hard or soft, got 'lax'",
        ),
        ("quota: 4 ", "budget_usd: 0.0\n    quota: 4 ", r"tiers\.basic\.budget_usd: .*greater than 0"),
        (
            "running_max: 20",
            "running_max: 20\nbudget_thresholds: [80, 50]",
            r"budget_thresholds: must be in ascending order",
        ),
        ("running_max: 20", "running_max: 20\nbudget_thresholds: [0]", r"budget_thresholds"),
    ],
)
def test_a_policy_that_does_not_hold_is_refused_with_entry_and_reason(old: str, new: str, reason: str) -> None:
    text = DEPLOYED.read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(Refused, match=reason):
        parse_policy(text.replace(old, new, 1), 1)


def test_adding_a_tier_to_the_policy_is_enough_for_admission() -> None:
    text = DEPLOYED.read_text(encoding="utf-8")
    basic = text[text.index("  basic:") : text.index("  standard:")]
    text = text.replace("running_max: 20", "running_max: 24")
    added = parse_policy(text + basic.replace("basic", "platinum"), 2)
    assert added.tier("platinum") is not None


# --- settings and commands ----------------------------------------------------------------------------------


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(MissingSetting, match="TRAINYARD_SCHEDULER_TABLE"):
        Settings.from_env("scheduler_table", env={})
    assert Settings.from_env("stage", env={"TRAINYARD_STAGE": "dev"}).stage == "dev"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "name"),
        ({"target": ""}, "target"),
        ({"algorithm": "Magic!"}, "algorithm"),
        ({"retrain": "every day"}, "is not a schedule: use rate"),
        ({"retrain": "cron(0 3 * * * *)"}, "exactly one of its two fields of days must be"),
        ({"retrain": "rate(1 day) Mars/Olympus"}, "Mars/Olympus"),
        ({"data_sets": {"a": {"schedule": "cron(0 3 * * ? *) localtime"}}}, "'localtime' is not a time zone"),
        ({"schedule": "rate(1 day)"}, "belongs to a data set: data_sets.<name>.schedule"),
        ({"transform": "rate(1 day)"}, "belongs to a data set: data_sets.<name>.transform"),
        ({"data_sets": {"a b": {"target": "y"}}}, "is not a valid data set name"),
        ({"surprise": 1}, "surprise"),
        ({"hyperparameters": {"a": "x" * 1024}}, "1024 characters"),
        ({"kms_key": "alias/mine"}, "kms_key"),
        ({"account": "12"}, "account"),
        ({"budget_usd": -1}, "budget_usd"),
    ],
)
def test_a_tenant_that_cannot_be_meant_is_refused(given: dict[str, Any], reason: str) -> None:
    tenant = ({"name": "acme", "tier": "basic"} if given else {}) | given
    with pytest.raises(ValueError, match=reason):
        StepCommand.model_validate({"step": "Record", "tenant": tenant})


@pytest.mark.parametrize("name", ["odd-times", "unknown", "failed", "succeeded", "executing"])
def test_a_status_event_is_read_whatever_its_times_say(name: str) -> None:
    event = parse_execution_status((EVENTS / f"execution-status-{name}.json").read_text(encoding="utf-8"))
    assert event.detail.execution_arn.endswith("/execution/abcdefghijkl")


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("budget-threshold-crossed", BudgetThresholdCrossed),
        ("cost-anomaly-detected", CostAnomalyDetected),
        ("deadline-at-risk", DeadlineEvent),
        ("model-rolled-back", ModelEvent),
    ],
)
def test_what_the_outbox_publishes_follows_its_schema(name: str, schema: type[BaseModel]) -> None:
    detail = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))["detail"]
    told = schema.model_validate(detail)
    assert json.loads(told.model_dump_json(exclude_none=True)) == detail
