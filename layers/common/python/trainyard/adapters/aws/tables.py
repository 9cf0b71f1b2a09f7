"""The tenants' records and the bell in DynamoDB."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import translated
from trainyard.adapters.aws.items import Item, deserialized, serialized
from trainyard.adapters.aws.store import DynamoStore, backoff, update_item
from trainyard.domain.errors import Conflict
from trainyard.domain.tenants import RoleState, Tenant, TenantState
from trainyard.persistence.bell import Hint, delayed_ring, ring
from trainyard.persistence.store import READ_AT_ONCE, Key
from trainyard.persistence.tenants import tenant_from, tenant_item


class DynamoTenants:
    """Implements Tenants; also writes the records.

    tenant#<id>                 the record
    location#<bucket>           whose bucket it is: {tenant_id}
    location#<bucket>/<prefix>/ whose prefix of a shared bucket it is: {tenant_id}
    """

    def __init__(self, *, tenants_table: str) -> None:
        self._table = tenants_table
        self._store = DynamoStore(
            scheduler_table="", requests_table="", record_table="", tenants_table=tenants_table
        )

    def get(self, tenant_id: str) -> Tenant | None:
        item = _get(self._table, {"pk": f"tenant#{tenant_id}"})
        return tenant_from(deserialized(item)) if item else None

    def owner_of(self, bucket: str, key: str) -> Tenant | None:
        return self.owners_of([(bucket, key)])[0]

    def owners_of(self, objects: Sequence[tuple[str, str]]) -> list[Tenant | None]:
        """Two calls for up to fifty objects: their locations, and the records of those found there."""
        places = [_locations(bucket, key) for bucket, key in objects]
        items = self._items({pk for pks in places for pk in pks})
        ids = [next((items[pk]["tenant_id"] for pk in pks if pk in items), None) for pks in places]
        records = self._items({f"tenant#{tenant_id}" for tenant_id in ids if tenant_id is not None})
        owners = {pk: tenant_from(item) for pk, item in records.items()}
        return [owners.get(f"tenant#{tenant_id}") for tenant_id in ids]

    def _items(self, pks: Collection[str]) -> dict[str, Item]:
        """Return the items that exist."""
        keys = [Key("tenants", (("pk", pk),)) for pk in sorted(pks)]
        by_pk: dict[str, Item] = {}
        for start in range(0, len(keys), READ_AT_ONCE):
            asked = keys[start : start + READ_AT_ONCE]
            items = zip(asked, self._store.get(*asked), strict=True)
            by_pk |= {key.values[0][1]: item for key, item in items if item is not None}
        return by_pk

    def put(self, tenant: Tenant) -> Tenant:
        """Write the record and its location, if the record has not changed since it was read.

        Returns the record with its new revision; raises Conflict.
        """
        after = replace(tenant, revision=tenant.revision + 1)
        record: dict[str, Any] = {
            "TableName": self._table,
            "Item": serialized(tenant_item(after) | {"pk": f"tenant#{tenant.tenant_id}"}),
            "ConditionExpression": "attribute_not_exists(revision)",
        }
        if tenant.revision:
            record["ConditionExpression"] = "revision = :before"
            record["ExpressionAttributeValues"] = serialized({":before": tenant.revision})
        writes = [{"Put": record}]
        if tenant.state is not TenantState.DELETED:
            location = serialized({"pk": _location(tenant), "tenant_id": tenant.tenant_id})
            writes.append({"Put": {"TableName": self._table, "Item": location}})
        with translated():
            client("dynamodb").transact_write_items(TransactItems=writes)
        return after

    def put_role(self, tenant: Tenant, role: RoleState, since: datetime | None) -> Tenant:
        """Change only the record's role attributes, if the record has not changed since it was read.

        Returns the record with its new revision; raises Conflict. The function that creates roles may write only
        these attributes (template.yaml).
        """
        after = replace(tenant, role=role, role_since=since, revision=tenant.revision + 1)
        item = tenant_item(after)
        changes = {name: item[name] for name in ("role", "role_since", "revision") if name in item}
        expression = "SET " + ", ".join(f"#{name} = :{name}" for name in changes)
        with translated():
            client("dynamodb").update_item(
                TableName=self._table,
                Key=serialized({"pk": f"tenant#{tenant.tenant_id}"}),
                UpdateExpression=expression if since else f"{expression} REMOVE #role_since",
                ConditionExpression="#revision = :before",
                ExpressionAttributeNames={f"#{name}": name for name in ("role", "role_since", "revision")},
                ExpressionAttributeValues=serialized(
                    {f":{name}": value for name, value in changes.items()} | {":before": tenant.revision}
                ),
            )
        return after

    def forget_location(self, tenant: Tenant) -> None:
        """Delete the location, so that uploads to it belong to no tenant. Idempotent."""
        self._delete(_location(tenant))

    def purge(self, tenant: Tenant) -> None:
        """Remove the record itself. Idempotent."""
        self._delete(f"tenant#{tenant.tenant_id}")

    def claim_key(self, key_arn: str, tenant_id: str, *, instead_of: str | None = None) -> str:
        """Claim a KMS key for a tenant; return its holder. `instead_of` is a former holder to replace."""
        pk = f"key#{key_arn}"
        names = {":tenant": tenant_id, ":before": instead_of or tenant_id}
        try:
            with translated():
                client("dynamodb").put_item(
                    TableName=self._table,
                    Item=serialized({"pk": pk, "tenant_id": tenant_id}),
                    ConditionExpression="attribute_not_exists(pk) OR tenant_id IN (:tenant, :before)",
                    ExpressionAttributeValues=serialized(names),
                )
        except Conflict as conflict:
            item = _get(self._table, {"pk": pk})
            if not conflict.failed or item is None:
                raise
            return str(deserialized(item)["tenant_id"])
        return tenant_id

    def cursor(self) -> str | None:
        item = _get(self._table, {"pk": "cursor"})
        return deserialized(item).get("after") if item else None

    def put_cursor(self, cursor: str | None) -> None:
        item = serialized({"pk": "cursor", "after": cursor})
        with translated():
            client("dynamodb").put_item(TableName=self._table, Item=item)

    def page(self, *, after: str | None = None, limit: int = 100) -> tuple[list[Tenant], str | None]:
        """Return some tenants, in no order, and where to go on; None at the end."""
        start = {"ExclusiveStartKey": serialized({"pk": after})} if after else {}
        with translated():
            answer = client("dynamodb").scan(
                TableName=self._table,
                Limit=2 * limit,  # a location beside each record
                FilterExpression="begins_with(pk, :tenant)",
                ExpressionAttributeValues=serialized({":tenant": "tenant#"}),
                **start,
            )
        last = answer.get("LastEvaluatedKey")
        return [tenant_from(deserialized(item)) for item in answer["Items"]], deserialized(last)[
            "pk"
        ] if last else None

    def _delete(self, pk: str) -> None:
        with translated():
            client("dynamodb").delete_item(TableName=self._table, Key=serialized({"pk": pk}))

    def all(self) -> list[Tenant]:
        """Return every tenant, by id; reads the whole table, so it is for operators alone."""
        tenants: list[Tenant] = []
        after: str | None = None
        while True:
            page, after = self.page(after=after, limit=1000)
            tenants += page
            if after is None:
                break
        return sorted(tenants, key=lambda tenant: tenant.tenant_id)


def _locations(bucket: str, key: str) -> list[str]:
    """Return where an object may lie: in a tenant's bucket, or below a tenant's prefix of a shared one."""
    first, slash, _ = key.partition("/")
    return [f"location#{bucket}"] + ([f"location#{bucket}/{first}/"] if slash else [])


def _location(tenant: Tenant) -> str:
    return f"location#{tenant.bucket}/{tenant.root}" if tenant.root else f"location#{tenant.bucket}"


class DynamoBell:
    """Implements Bell: one small item whose change, seen by a filtered stream, wakes the dispatcher.

    A ring without hints (persistence/ledger.py) may be for any queue.
    """

    DELAY_SECONDS_MAX = 900
    """Of an SQS message (SQS developer guide, "Message quotas")."""

    def __init__(self, *, scheduler_table: str, bell_queue_url: str) -> None:
        self._table = scheduler_table
        self._queue_url = bell_queue_url

    RINGS_TRIED = 5
    """Attempts while other transactions ring it."""

    def ring(self, hints: Sequence[Hint] = ()) -> None:
        for number in range(1, self.RINGS_TRIED + 1):
            try:
                update_item(self._table, ring(hints))
            except Conflict:
                if number == self.RINGS_TRIED:
                    raise
                backoff(number)
            else:
                break

    def ring_at(self, when: datetime, now: datetime, hints: Sequence[Hint] = ()) -> None:
        delay = min(int((when - now).total_seconds()) + 1, self.DELAY_SECONDS_MAX)
        with translated():
            client("sqs").send_message(
                QueueUrl=self._queue_url, MessageBody=delayed_ring(hints), DelaySeconds=max(delay, 0)
            )


def _get(table: str, key: dict[str, str]) -> Item | None:
    with translated():
        answer: dict[str, Any] = client("dynamodb").get_item(
            TableName=table, Key=serialized(key), ConsistentRead=True
        )
    return answer.get("Item")
