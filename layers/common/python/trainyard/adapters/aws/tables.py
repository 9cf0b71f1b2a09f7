"""The records of requests, tenants and policies in DynamoDB."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import translated
from trainyard.adapters.aws.items import (
    Item,
    deserialized,
    outcome_values,
    request_from,
    request_item,
    serialized,
    stamp,
    tenant_from,
    tenant_item,
)
from trainyard.contracts.policy_file import deployed_policy, parse_policy
from trainyard.domain.errors import Conflict
from trainyard.domain.policy import Policy
from trainyard.domain.requests import Outcome, Request, State
from trainyard.domain.tenants import Tenant


class DynamoRequests:
    """Implements Requests; also lists them for the operator."""

    def __init__(self, *, requests_table: str, retention: timedelta) -> None:
        self._table = requests_table
        self._retention = retention

    def get(self, request_id: str) -> Request | None:
        item = _get(self._table, {"request_id": request_id})
        return request_from(item) if item else None

    def add_rejected(self, request: Request) -> bool:
        assert request.state is State.REJECTED
        assert request.finished_at is not None
        expires_at = int((request.finished_at + self._retention).timestamp())
        return _put_if(
            self._table,
            request_item(request) | serialized({"expires_at": expires_at}),
            "attribute_not_exists(request_id)",
        )

    def note_outcome(self, request_id: str, attempt: int, outcome: Outcome) -> bool:
        changes = outcome_values(outcome)
        try:
            with translated():
                client("dynamodb").update_item(
                    TableName=self._table,
                    Key=serialized({"request_id": request_id}),
                    UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in changes),
                    ConditionExpression="attempt = :attempt",
                    ExpressionAttributeNames={f"#{name}": name for name in changes},
                    ExpressionAttributeValues=serialized(
                        {f":{name}": value for name, value in changes.items()} | {":attempt": attempt}
                    ),
                )
        except Conflict:
            return False
        return True

    def starting_since(self, before: datetime) -> list[Request]:
        return [r for r in self.active(State.ADMITTED) if r.admitted_at is not None and r.admitted_at < before]

    def active(self, state: State) -> list[Request]:
        """Return the requests that wait, start or run, longest in that state first."""
        return self._query("by-activity", "activity", state.value)

    def of_tenant(self, tenant_id: str) -> list[Request]:
        """Return a tenant's requests, oldest first."""
        return self._query("by-tenant", "tenant_id", tenant_id)

    def _query(self, index: str, name: str, value: str) -> list[Request]:
        pages = client("dynamodb").get_paginator("query")
        with translated():
            found = pages.paginate(
                TableName=self._table,
                IndexName=index,
                KeyConditionExpression="#name = :value",
                ExpressionAttributeNames={"#name": name},
                ExpressionAttributeValues=serialized({":value": value}),
            )
            return [request_from(item) for page in found for item in page["Items"]]


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


_POLICY_KEY = {"pk": "policy", "sk": "policy"}


class DynamoPolicies:
    """Implements Policies; the applied policy lives beside the ledger, as the text it was applied from.

    `running_max` is the deployment's own ceiling: no policy in force admits more.
    """

    def __init__(self, *, scheduler_table: str, running_max: int) -> None:
        self._table = scheduler_table
        self._running_max = running_max

    def current(self) -> Policy:
        item = _get(self._table, _POLICY_KEY)
        if item is None:
            return self._capped(deployed_policy())
        values = deserialized(item)
        return self._capped(parse_policy(values["text"], version=int(values["version"])))

    def _capped(self, policy: Policy) -> Policy:
        return replace(policy, running_max=min(policy.running_max, self._running_max))

    def check(self, text: str) -> Policy:
        """Return what `apply` would put in force; raises Refused when it does not hold."""
        return self._capped(parse_policy(text, version=self.current().version + 1))

    def apply(self, text: str, now: datetime) -> Policy:
        """Check a policy and put it in force; raises Refused when it does not hold, Conflict when overtaken."""
        policy = self.check(text)
        item = _POLICY_KEY | {"text": text, "version": policy.version, "applied_at": stamp(now)}
        kept = _put_if(
            self._table,
            serialized(item),
            "attribute_not_exists(pk) OR version = :before",
            {":before": policy.version - 1},
        )
        if not kept:
            raise Conflict("another policy was applied meanwhile: look at it, and apply yours again")
        return policy


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


def _put_if(table: str, item: Item, condition: str, values: Item | None = None) -> bool:
    """Put an item; False when the condition does not hold."""
    options = {"ExpressionAttributeValues": serialized(values)} if values else {}
    try:
        with translated():
            client("dynamodb").put_item(TableName=table, Item=item, ConditionExpression=condition, **options)
    except Conflict:
        return False
    return True
