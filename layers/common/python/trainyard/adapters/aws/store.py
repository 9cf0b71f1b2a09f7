"""The store in DynamoDB."""

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from boto3.dynamodb.types import Binary, TypeDeserializer, TypeSerializer

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import translated
from trainyard.domain.errors import Malformed, Throttled
from trainyard.persistence.store import (
    ACTIONS_MAX,
    Absent,
    AtLeast,
    AtMost,
    Condition,
    Cursor,
    Delete,
    Is,
    IsOr,
    Item,
    Key,
    OneOf,
    Page,
    Put,
    Update,
    Write,
)

_serializer = TypeSerializer()
_deserializer = TypeDeserializer()

_INDEXES = {
    "scheduler": ("scheduler", None, "pk", "sk"),
    "ready": ("scheduler", "ready", "pk", "ready"),
    "holding": ("scheduler", "holding", "pk", "holding"),
    "by-tenant": ("requests", "by-tenant", "tenant_id", "arrived_at"),
    "by-activity": ("requests", "by-activity", "activity", "since"),
    "by-data-set": ("requests", "by-data-set", "owner", "arrived_at"),
    "by-prefix": ("requests", "by-prefix", "prefix", "request_id"),
    "record": ("record", None, "pk", "sk"),
    "executions-of-tenant": ("record", "of-tenant", "tenant_id", "admitted"),
    "executions-of-day": ("record", "of-day", "recorded_on", "recorded"),
}
"""Index → table, its name there, partition attribute, sort attribute."""

_CONSISTENT = ("scheduler", "ready", "holding", "record")
"""A global index cannot be read consistently, a local one can."""


READS_TRIED = 4
"""Attempts while a batch returns nothing because of throttling; keys left out because of size are read again."""


def backoff(number: int) -> None:
    """Wait before the given further try of a contended write: longer each time, and never in step."""
    time.sleep(random.uniform(0, 0.02 * 2**number))  # noqa: S311 - jitter, no secret


class DynamoStore:
    """Implements Store over four tables."""

    def __init__(
        self, *, scheduler_table: str, requests_table: str, record_table: str, tenants_table: str = ""
    ) -> None:
        self._tables = {
            "scheduler": scheduler_table,
            "requests": requests_table,
            "record": record_table,
            "tenants": tenants_table,
        }

    def get(self, *keys: Key) -> list[Item | None]:
        if len(keys) == 1:
            return [self._get_one(keys[0])]
        asked: dict[str, Item] = {}
        for key in keys:
            table = asked.setdefault(self._tables[key.table], {"ConsistentRead": True, "Keys": []})
            table["Keys"].append(_serialized(dict(key.values)))
        items_by_key: dict[tuple[str, ...], Item] = {}
        number = 0
        while asked:
            with translated():
                answer = client("dynamodb").batch_get_item(RequestItems=asked)
            for table, items in answer["Responses"].items():
                names = _KEY_NAMES[self._kind(table)]
                items_by_key |= {
                    (table, *(item[name]["S"] for name in names)): deserialized(item) for item in items
                }
            asked = answer.get("UnprocessedKeys") or {}
            number = 0 if any(answer["Responses"].values()) else number + 1
            if number == READS_TRIED:
                raise Throttled("DynamoDB left keys unread")
            if number:
                backoff(number)
        return [items_by_key.get((self._tables[key.table], *(v for _, v in key.values))) for key in keys]

    def _get_one(self, key: Key) -> Item | None:
        with translated():
            answer = client("dynamodb").get_item(
                TableName=self._tables[key.table], Key=_serialized(dict(key.values)), ConsistentRead=True
            )
        return deserialized(answer["Item"]) if "Item" in answer else None

    def _kind(self, table: str) -> str:
        return next(kind for kind, name in self._tables.items() if name == table)

    def query(
        self,
        index: str,
        partition: str,
        *,
        above: str = "",
        below: str = "\U0010ffff",
        limit: int,
        newest_first: bool = False,
        after: Cursor | None = None,
    ) -> Page:
        table, name, hash_name, sort_name = _INDEXES[index]
        options: dict[str, Any] = {"IndexName": name} if name else {}
        if after is not None:
            # DynamoDB refuses others as well, in words that differ.
            if set(after) != {hash_name, sort_name, *_KEY_NAMES[table]} or after[hash_name] != partition:
                raise Malformed("the cursor is of another list")
            options["ExclusiveStartKey"] = _serialized(after)
        # An empty text cannot be a key, so the least bound is a space.
        values = {":partition": partition, ":above": above or " ", ":below": below}
        with translated():
            answer = client("dynamodb").query(
                TableName=self._tables[table],
                ConsistentRead=index in _CONSISTENT,
                KeyConditionExpression="#partition = :partition AND #sort BETWEEN :above AND :below",
                ExpressionAttributeNames={"#partition": hash_name, "#sort": sort_name},
                ExpressionAttributeValues=_serialized(values),
                Limit=limit + 1,
                ScanIndexForward=not newest_first,
                **options,
            )
        items = [deserialized(item) for item in answer["Items"]]
        last = deserialized(answer["LastEvaluatedKey"]) if "LastEvaluatedKey" in answer else None
        if len(items) > limit:  # one more was asked for, so that a page that is just full says whether it is all
            items = items[:limit]
            last = {part: items[-1][part] for part in (hash_name, sort_name, *_KEY_NAMES[table])}
        return Page(items=items, cursor=last)

    def transact(self, writes: Sequence[Write]) -> None:
        assert 0 < len(writes) <= ACTIONS_MAX, "a transaction takes 1 to 100 actions"
        with translated():
            client("dynamodb").transact_write_items(
                TransactItems=[_action(write, self._tables) for write in writes]
            )


_KEY_NAMES = {
    "scheduler": ("pk", "sk"),
    "requests": ("request_id",),
    "record": ("pk", "sk"),
    "tenants": ("pk",),
}


def deserialized(item: Mapping[str, Any]) -> Item:
    return {name: _plain(_deserializer.deserialize(value)) for name, value in item.items()}


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, Binary) else value


def _serialized(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _serializer.serialize(value) for name, value in values.items()}


class _Names:
    """Stand-ins for the names and values of an expression: names may be reserved, or hold any character."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, Any] = {}

    def name(self, name: str) -> str:
        alias_known = next((alias for alias, real in self.names.items() if real == name), None)
        if alias_known is None:
            alias_known = f"#n{len(self.names)}"
            self.names[alias_known] = name
        return alias_known

    def value(self, value: Any) -> str:
        alias = f":v{len(self.values)}"
        self.values[alias] = value
        return alias


def update_item(table: str, update: Update) -> None:
    """Make one change by itself, which costs half of what a transaction does. Raises Conflict while a
    transaction has the item.
    """
    with translated():
        client("dynamodb").update_item(**_action(update, {update.key.table: table})["Update"])


def _action(write: Write, tables: Mapping[str, str]) -> dict[str, Any]:
    names = _Names()
    key = _serialized(dict(write.key.values))
    action: dict[str, Any] = {"TableName": tables[write.key.table]}
    if write.when:
        action["ConditionExpression"] = " AND ".join(_condition(c, names) for c in write.when)
    match write:
        case Put():
            kind, action["Item"] = "Put", key | _serialized(write.item)
        case Delete():
            kind, action["Key"] = "Delete", key
        case Update():
            kind, action["Key"] = "Update", key
            action["UpdateExpression"] = _expression(write, names)
    if names.names:
        action["ExpressionAttributeNames"] = names.names
    if names.values:
        action["ExpressionAttributeValues"] = _serialized(names.values)
    return {kind: action}


def _condition(condition: Condition, names: _Names) -> str:
    name = names.name(condition.name)
    match condition:
        case Is():
            return f"{name} = {names.value(condition.value)}"
        case IsOr():
            return f"(attribute_not_exists({name}) OR {name} = {names.value(condition.value)})"
        case OneOf():
            return f"{name} IN ({', '.join(map(names.value, condition.values))})"
        case AtMost():
            return f"(attribute_not_exists({name}) OR {name} <= {names.value(condition.value)})"
        case AtLeast():
            return f"{name} >= {names.value(condition.value)}"
        case Absent():
            return f"attribute_not_exists({name})"


def _expression(write: Update, names: _Names) -> str:
    parts: list[str] = []
    sets = [f"{names.name(n)} = {names.value(v)}" for n, v in write.set.items()]
    for n, v in write.append.items():
        empty = names.value([])
        sets.append(f"{names.name(n)} = list_append(if_not_exists({names.name(n)}, {empty}), {names.value(v)})")
    if sets:
        parts.append("SET " + ", ".join(sets))
    if write.add:
        parts.append("ADD " + ", ".join(f"{names.name(n)} {names.value(v)}" for n, v in write.add.items()))
    if write.remove:
        parts.append("REMOVE " + ", ".join(names.name(n) for n in write.remove))
    return " ".join(parts)
