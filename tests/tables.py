"""The tables as template.yaml describes them, so that tests and deployments cannot drift apart."""

from typing import Any

from local.cloud import REPOSITORY
from local.deploy import load_template

TABLES = {"SchedulerTable": "scheduler", "RequestsTable": "requests", "TenantsTable": "tenants"}
USED = ("AttributeDefinitions", "KeySchema", "LocalSecondaryIndexes", "GlobalSecondaryIndexes", "BillingMode")


def create_tables(dynamodb: Any, *, prefix: str = "") -> None:
    """Create the three tables under short names."""
    resources = load_template(REPOSITORY / "template.yaml")["Resources"]
    for logical_id, name in TABLES.items():
        properties = resources[logical_id]["Properties"]
        dynamodb.create_table(
            TableName=f"{prefix}{name}", **{key: properties[key] for key in USED if key in properties}
        )
