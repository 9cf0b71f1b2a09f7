"""The tables as described in template.yaml, so that tests and deployments cannot differ."""

from collections.abc import Iterator
from functools import cache
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


@cache
def tables_of_template() -> dict[str, dict[str, Any]]:
    """Return short name → what CreateTable needs; the template is parsed once, which takes a while."""
    resources = load_template(REPOSITORY / "template.yaml")["Resources"]
    return {
        name: {key: value for key, value in resources[logical_id]["Properties"].items() if key in USED}
        for logical_id, name in TABLES.items()
    }


def create_tables(dynamodb: Any, *, prefix: str = "") -> None:
    """Create the tables under short names."""
    for name, properties in tables_of_template().items():
        dynamodb.create_table(TableName=f"{prefix}{name}", **properties)


def without_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep a local cloud that end-to-end tests of the same process use out of a test's way."""
    for name in (
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_SAGEMAKER",
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME",
        "AWS_ENDPOINT_URL_SERVICE_QUOTAS",
        "AWS_ENDPOINT_URL_APPLICATION_AUTO_SCALING",
    ):
        monkeypatch.delenv(name, raising=False)
    clients.forget()
    yield
    clients.forget()
