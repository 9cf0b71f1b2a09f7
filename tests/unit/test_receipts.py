"""Receipts and events tell a tenant the reason, and nothing about the account."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from tests.build import NOW, request
from trainyard.domain.failures import STOPPED_EARLY, FailureCause, cause_of
from trainyard.domain.names import FOLDERS
from trainyard.domain.receipts import README, WAITING, Prospect, receipt_of, without_account
from trainyard.domain.requests import TERMINAL, Outcome, Request, State
from trainyard.domain.scheduling import Reason

DENIED = (
    "User: arn:aws:sts::123456789012:assumed-role/trainyard--acme/SageMaker is not authorized to perform: "
    "s3:GetObject on resource: arn:aws:s3:::trainyard-123456789012-t-acme/incoming/x/d.csv because …"
)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (None, None),
        ("", ""),
        ("the object is empty", "the object is empty"),
        (
            DENIED,
            "User: arn:… is not authorized to perform: s3:GetObject on resource: "
            "arn:aws:s3:::trainyard-123456789012-t-acme/incoming/x/d.csv because …",
        ),
        (
            "Could not assume role arn:aws-cn:iam::123456789012:role/trainyard/trainyard/tenants/trainyard--acme.",
            "Could not assume role arn:…",
        ),
        (
            "Cannot find image '123456789012.dkr.ecr.eu-west-1.amazonaws.com/knn:3'",
            "Cannot find image '….dkr.ecr.eu-west-1.amazonaws.com/knn:3'",
        ),
        ("no arn: 123456789012 rows", "no arn: 123456789012 rows"),
    ],
)
def test_a_reason_is_told_without_the_accounts_arns_and_registries(said: str | None, told: str | None) -> None:
    assert without_account(said) == told


def test_a_receipt_names_no_role_of_the_service() -> None:
    receipt = receipt_of(request(state=State.FAILED, reason=DENIED))
    assert "assumed-role" not in str(receipt)
    assert "not authorized" in str(receipt["message"])


LIMIT = (
    "ResourceLimitExceeded: The account-level service limit 'ml.m5.large for training job usage' is 2 Instances, "
    "with current utilization of 2 Instances"
)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (LIMIT, "the service is at a limit of its own; it is tried again"),
        ("CapacityError: Unable to provision requested ML compute capacity.", "AWS has no free instance"),
        ("InternalServerError: We encountered an internal error", "AWS had an error of its own"),
        ("ThrottlingException: Rate exceeded", "AWS takes no further requests"),
        ("the data could not be read: AccessDenied", "the data could not be read: AccessDenied"),
        ("SageMaker did not confirm its start; see the log", "it could not be started; it is tried again"),
    ],
)
def test_a_tenant_reads_why_its_request_waits_again_and_not_the_accounts_limits(reason: str, words: str) -> None:
    receipt = receipt_of(request(state=State.QUEUED, reason=reason))
    assert words in str(receipt["reason"])
    assert str(receipt["message"]).startswith("accepted, waiting for its turn: ")
    assert "account-level" not in str(receipt)
    assert receipt_of(request(state=State.QUEUED))["message"] == "accepted, waiting for its turn"


def test_a_request_that_failed_for_the_accounts_limits_does_not_tell_them() -> None:
    receipt = receipt_of(request(state=State.FAILED, reason=f"Train: {LIMIT}"))
    assert receipt["message"] == "failed: the service is at a limit of its own"
    assert "account-level" not in str(receipt)


SCHEMA = json.loads((Path(__file__).parents[2] / "docs/receipt.schema.json").read_text(encoding="utf-8"))
REASONS = {
    FailureCause.RESOURCE_LIMIT: LIMIT,
    FailureCause.CAPACITY: "CapacityError: Unable to provision requested ML compute capacity.",
    FailureCause.INTERNAL: "InternalServerError: We encountered an internal error",
    FailureCause.THROTTLING: "ThrottlingException: Rate exceeded",
    FailureCause.RUN: "no column 'churned': it has age, plan",
}
NOT_FOR_TENANTS = re.compile(r"account|utilization|arn:aws:(iam|sts)|Exception|None|\bslot", re.IGNORECASE)


def full(state: State, reason: str | None) -> Request:
    outcome = Outcome(
        quality=0.9, quality_metric="roc_auc", baseline=0.5, problem="classification", cost_usd="0.05"
    )
    return request(state=state, reason=reason, outcome=outcome, deadline=NOW, data_set="churn")


EARLY = [words for _, words in STOPPED_EARLY.values()]


def test_each_cause_of_a_failure_has_an_example() -> None:
    assert {cause_of(reason) for reason in REASONS.values()} == set(REASONS)
    assert set(REASONS) | {cause for cause, _ in STOPPED_EARLY.values()} == set(FailureCause)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("reason", [None, *REASONS.values(), *EARLY])
def test_each_receipt_follows_the_schema_and_is_in_a_tenants_words(state: State, reason: str | None) -> None:
    receipt = receipt_of(full(state, reason)) | {"written_at": "2026-11-28T00:00:00+00:00"}
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(receipt)))
    if state in (State.QUEUED, State.FAILED):  # the states for which SageMaker gives reasons
        words = f"{receipt['message']} {receipt['reason'] or ''} {receipt['what_to_do'] or ''}"
        assert NOT_FOR_TENANTS.search(words) is None, words
    assert (receipt["what_to_do"] is None) == (state not in TERMINAL or state is State.SUCCEEDED)


def test_who_lost_a_run_to_aws_is_not_told_to_correct_its_data() -> None:
    assert "nothing is wrong with the data" in str(receipt_of(full(State.FAILED, f"Train: {LIMIT}"))["what_to_do"])
    missing = STOPPED_EARLY["MaxWaitTimeExceeded"][1]
    assert "nothing is wrong with the data" in str(receipt_of(full(State.FAILED, missing))["what_to_do"])
    data = receipt_of(full(State.FAILED, REASONS[FailureCause.RUN]))["what_to_do"]
    assert str(data).startswith("correct the data if the reason names something in it")
    assert receipt_of(full(State.FAILED, None))["what_to_do"] == "ask the provider"


@pytest.mark.parametrize("reason", Reason)
def test_why_a_request_waits_is_said_in_a_tenants_words(reason: Reason) -> None:
    prospect = Prospect(reason=reason, position=3, earliest=NOW, latest=NOW, ends_by=NOW)
    receipt = receipt_of(full(State.QUEUED, None), prospect) | {"written_at": "2026-11-28T00:00:00+00:00"}
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(receipt)))
    assert NOT_FOR_TENANTS.search(WAITING[reason]) is None
    assert not re.search(r"tenant|quota|cap\b", WAITING[reason])


def test_only_a_waiting_request_has_something_to_expect() -> None:
    prospect = Prospect(reason=Reason.BUDGET)
    assert "budget" in str(receipt_of(full(State.QUEUED, None), prospect)["waiting"])
    for state in set(State) - {State.QUEUED}:
        assert "waiting" not in receipt_of(full(state, None), prospect)


def test_the_schema_describes_every_field_that_a_receipt_can_have() -> None:
    receipt = receipt_of(full(State.SUCCEEDED, None))
    assert set(SCHEMA["properties"]) == set(receipt) | {"written_at", "waiting"}
    result = receipt["result"]
    assert isinstance(result, dict)
    assert set(SCHEMA["properties"]["result"]["properties"]) == set(result)


def test_the_readme_of_a_tenant_names_the_folders_that_there_are() -> None:
    for folder in FOLDERS:
        assert f"{folder}/<data set>/" in README
    assert max(map(len, README.splitlines())) <= 110
