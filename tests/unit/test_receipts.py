"""Receipts and events tell a tenant the reason, and nothing about the account."""

import pytest

from tests.build import request
from trainyard.domain.receipts import receipt_of, without_account
from trainyard.domain.requests import State

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
