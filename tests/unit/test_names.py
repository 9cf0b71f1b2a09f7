import pytest

from trainyard.domain.names import (
    display_name,
    is_data_set,
    is_tenant_id,
    parse_display_name,
    request_id,
    start_token,
)


@pytest.mark.parametrize("name", ["a", "acme", "acme-10", "0a", "a" * 24])
def test_a_tenant_id_is_taken(name: str) -> None:
    assert is_tenant_id(name)


@pytest.mark.parametrize("name", ["", "ACME", "acme-", "-acme", "ac--me", "a_b", "a/b", "acme\n", "é", "a" * 25])
def test_a_tenant_id_is_refused(name: str) -> None:
    assert not is_tenant_id(name)


@pytest.mark.parametrize(
    "name",
    ["", "incoming", "models", "reports", "receipts", ".x", "_rejected", "a b", "a/b", "a" * 64, "é", "x\n"],
)
def test_a_data_set_is_refused(name: str) -> None:
    assert not is_data_set(name)


def test_one_upload_has_one_id_and_every_part_of_it_counts() -> None:
    upload = {"tenant_id": "acme", "bucket": "b", "key": "incoming/x/y", "revision": "v1"}
    assert request_id(**upload) == request_id(**upload)
    others = [request_id(**upload | {part: "other"}) for part in upload]
    # No two parts can run into each other: "ab" + "c" is not "a" + "bc".
    others += [request_id(**upload | {"tenant_id": "acmeb", "bucket": ""})]
    assert len({request_id(**upload), *others}) == 6


def test_an_executions_name_leads_back_to_its_request() -> None:
    identity = "ab" * 16
    assert parse_display_name(display_name(identity, 12)) == (identity, 12)
    assert len(display_name(identity, 999_999)) <= 82  # PipelineExecutionName
    assert 32 <= len(start_token(identity, 1)) <= 128  # IdempotencyToken


@pytest.mark.parametrize(
    "name", ["", "nightly-run", "ab" * 16, "ab" * 16 + "-0", "AB" * 16 + "-1", "x" + "ab" * 16 + "-1"]
)
def test_an_execution_that_is_not_ours_is_told_apart(name: str) -> None:
    assert parse_display_name(name) is None
