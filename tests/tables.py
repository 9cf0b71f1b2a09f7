"""The tables as template.yaml describes them, so that tests and deployments cannot drift apart."""

from collections.abc import Iterator
from typing import Any

import pytest

from local.cloud import REPOSITORY
from local.deploy import load_template
from trainyard.adapters.aws import clients

TABLES = {
    "SchedulerTable": "scheduler",
    "RequestsTable": "requests",
    "RecordTable": "record",
    "TenantsTable": "tenants",
}
USED = ("AttributeDefinitions", "KeySchema", "LocalSecondaryIndexes", "GlobalSecondaryIndexes", "BillingMode")


def create_tables(dynamodb: Any, *, prefix: str = "") -> None:
    """Create the tables under short names."""
    resources = load_template(REPOSITORY / "template.yaml")["Resources"]
    for logical_id, name in TABLES.items():
        properties = resources[logical_id]["Properties"]
        dynamodb.create_table(
            TableName=f"{prefix}{name}", **{key: properties[key] for key in USED if key in properties}
        )


def without_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep a local cloud that end-to-end tests of the same process use out of a test's way."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER"):
        monkeypatch.delenv(name, raising=False)
    clients.forget()
    yield
    clients.forget()
