"""The tenants' records and the bell in DynamoDB."""

from datetime import datetime
from typing import Any

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import translated
from trainyard.adapters.aws.items import Item, deserialized, serialized, tenant_from, tenant_item
from trainyard.domain.tenants import Tenant


class DynamoTenants:
    """Implements Tenants; also keeps them.

    tenant#<id>                 the record
    location#<bucket>           whose bucket it is: {tenant_id}
    location#<bucket>/<prefix>/ whose prefix of a shared bucket it is: {tenant_id}
    """

    def __init__(self, *, tenants_table: str) -> None:
        self._table = tenants_table

    def get(self, tenant_id: str) -> Tenant | None:
        item = _get(self._table, {"pk": f"tenant#{tenant_id}"})
        return tenant_from(item) if item else None

    def owner_of(self, bucket: str, key: str) -> Tenant | None:
        first, slash, _ = key.partition("/")
        for location in (bucket, f"{bucket}/{first}/" if slash else None):
            item = _get(self._table, {"pk": f"location#{location}"}) if location else None
            if item is not None:
                return self.get(deserialized(item)["tenant_id"])
        return None

    def put(self, tenant: Tenant) -> None:
        """Write the record; its location is written first, since a record without one is never found."""
        location = f"{tenant.bucket}/{tenant.root}" if tenant.root else tenant.bucket
        with translated():
            client("dynamodb").put_item(
                TableName=self._table,
                Item=serialized({"pk": f"location#{location}", "tenant_id": tenant.tenant_id}),
            )
            client("dynamodb").put_item(
                TableName=self._table,
                Item=tenant_item(tenant) | serialized({"pk": f"tenant#{tenant.tenant_id}"}),
            )

    def all(self) -> list[Tenant]:
        """Return every tenant, by id; reads the whole table, so it is for operators alone."""
        pages = client("dynamodb").get_paginator("scan")
        with translated():
            found = pages.paginate(
                TableName=self._table,
                FilterExpression="begins_with(pk, :tenant)",
                ExpressionAttributeValues=serialized({":tenant": "tenant#"}),
            )
            tenants = [tenant_from(item) for page in found for item in page["Items"]]
        return sorted(tenants, key=lambda tenant: tenant.tenant_id)


DELAYED_RING = "ring"
"""The message that rings the bell when its delay is over."""


class DynamoBell:
    """Implements Bell: one small item whose change, seen by a filtered stream, wakes the dispatcher."""

    DELAY_SECONDS_MAX = 900
    """Of an SQS message (SQS developer guide, "Message quotas")."""

    def __init__(self, *, scheduler_table: str, bell_queue_url: str) -> None:
        self._table = scheduler_table
        self._queue_url = bell_queue_url

    def ring(self) -> None:
        with translated():
            client("dynamodb").update_item(
                TableName=self._table,
                Key=serialized({"pk": "bell", "sk": "bell"}),
                UpdateExpression="ADD rings :one",
                ExpressionAttributeValues=serialized({":one": 1}),
            )

    def ring_at(self, when: datetime, now: datetime) -> None:
        delay = min(int((when - now).total_seconds()) + 1, self.DELAY_SECONDS_MAX)
        with translated():
            client("sqs").send_message(
                QueueUrl=self._queue_url, MessageBody=DELAYED_RING, DelaySeconds=max(delay, 0)
            )


def _get(table: str, key: dict[str, str]) -> Item | None:
    with translated():
        answer: dict[str, Any] = client("dynamodb").get_item(
            TableName=table, Key=serialized(key), ConsistentRead=True
        )
    return answer.get("Item")
