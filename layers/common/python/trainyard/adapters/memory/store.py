"""The store in memory: no kinder than DynamoDB, so that what works here works there.

It keeps DynamoDB's limits (actions, one action per item, sizes, no empty keys, no floats), checks every condition
before it changes anything, and lists by its eventual indexes what they knew `lag` transactions ago.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from trainyard.application.store import (
    ACTIONS_MAX,
    Absent,
    AtLeast,
    AtMost,
    Condition,
    Is,
    IsOr,
    Item,
    Key,
    OneOf,
    Page,
    Write,
    applied,
)
from trainyard.domain.errors import Conflict

ITEM_BYTES_MAX = 400_000
TRANSACTION_BYTES_MAX = 4_000_000
READ_BYTES_MAX = 1_000_000
KEYS_MAX = 100
"""DynamoDB developer guide, "Service, account, and table quotas"; BatchGetItem."""

INDEXES = {
    "scheduler": ("scheduler", "pk", "sk"),
    "ready": ("scheduler", "pk", "ready"),
    "by-tenant": ("requests", "tenant_id", "arrived_at"),
    "by-activity": ("requests", "activity", "since"),
    "by-data-set": ("requests", "owner", "arrived_at"),
    "record": ("record", "pk", "sk"),
    "executions-of-tenant": ("record", "tenant_id", "admitted"),
    "executions-of-day": ("record", "recorded_on", "recorded"),
}
"""Index → table, partition attribute, sort attribute."""

_CONSISTENT = ("scheduler", "ready", "record")
KEYS_ONLY = ("by-data-set", "executions-of-tenant", "executions-of-day")
"""Indexes that hold nothing but keys; the others hold whole items."""


class MemoryStore:
    """Implements Store."""

    def __init__(self) -> None:
        self.items: dict[Key, Item] = {}
        self.bytes_of: dict[Key, int] = {}
        """What each item takes, about, as DynamoDB counts it."""
        self.bytes_queried = 0
        self.transactions = 0
        self.lag = 0
        """By how many transactions the eventual indexes are behind."""
        self._sorted: dict[str, dict[str, list[tuple[str, str, Key]]]] = {name: {} for name in INDEXES}
        self.lag_seconds_max = 60.0
        """However few transactions follow, the eventual indexes catch up after this long."""
        self.clock: Callable[[], float] = lambda: 0.0
        self._unseen: list[tuple[float, Key, Item | None, Item | None]] = []
        """Changes that the eventual indexes do not show yet: when, key, item before and after."""
        self._seen: dict[Key, Item] = {}
        """Requests and record as the eventual indexes show them."""
        self.stream: Callable[[Key, Item], None] = lambda _key, _item: None
        """Told of each item of the scheduler's table that was written, as it is then."""

    def get(self, *keys: Key) -> list[Item | None]:
        assert 0 < len(keys) <= KEYS_MAX, "a batch reads 1 to 100 items"
        assert len(set(keys)) == len(keys), "a batch reads each item once"
        return [self._with_key(key, self.items[key]) if key in self.items else None for key in keys]

    def query(
        self,
        index: str,
        partition: str,
        *,
        above: str = "",
        below: str = "\U0010ffff",
        limit: int,
        newest_first: bool = False,
    ) -> Page:
        if index not in _CONSISTENT:
            self._catch_up(self.lag)
        source = self.items if index in _CONSISTENT else self._seen
        entries = self._sorted[index].get(partition, [])
        first = bisect_left(entries, (above, "", _FIRST))
        last = bisect_right(entries, (below, "\U0010ffff", _FIRST))
        found = entries[first:last]
        if newest_first:
            found = found[::-1]
        items: list[Item] = []
        read = 0
        for _, _, key in found[:limit]:
            item = self._with_key(key, source[key])
            read += self.bytes_of.get(key, 0)
            if read > READ_BYTES_MAX:
                break
            items.append(_projected(item, index, key) if index in KEYS_ONLY else item)
        self.bytes_queried += read
        return Page(items=items, complete=len(items) == len(found))

    def transact(self, writes: Sequence[Write]) -> None:
        assert 0 < len(writes) <= ACTIONS_MAX, "a transaction takes 1 to 100 actions"
        assert len({write.key for write in writes}) == len(writes), "a transaction touches each item once"
        failed = tuple(
            number for number, write in enumerate(writes) if not self._holds(self.items.get(write.key), write)
        )
        if failed:
            raise Conflict(f"conditions failed: {[writes[n] for n in failed][:1]}", failed=failed)
        changes = [(write.key, applied(self.items.get(write.key), write)) for write in writes]
        total = 0
        for key, item in changes:
            assert all(value for _, value in key.values), f"a key part is empty: {key}"
            size = self.bytes_of[key] = _size(item) if item is not None else 0
            assert size <= ITEM_BYTES_MAX, f"the item of {key} is too large"
            total += size
        assert total <= TRANSACTION_BYTES_MAX, "the transaction is too large"
        for key, item in changes:
            self._replace(key, item)
        self.transactions += 1
        for key, item in changes:
            if item is not None and key.table == "scheduler":
                self.stream(key, item)

    # --- parts --------------------------------------------------------------------------------------------

    def _holds(self, item: Item | None, write: Write) -> bool:
        return all(_true(condition, write.key, item) for condition in write.when)

    def _replace(self, key: Key, item: Item | None) -> None:
        before = self.items.get(key)
        if item is None:
            self.items.pop(key, None)
        else:
            self.items[key] = item
        if key.table in ("requests", "record"):
            self._unseen.append((self.clock(), key, before, item))
        self._file(key, before, item, _CONSISTENT)

    def _catch_up(self, lag: int) -> None:
        """Show the eventual indexes all changes but the last `lag`, and of these what is old."""
        due = max(len(self._unseen) - lag, 0)
        old = self.clock() - self.lag_seconds_max
        while due < len(self._unseen) and self._unseen[due][0] < old:
            due += 1
        for _, key, before, item in self._unseen[:due]:
            self._file(key, before, item, _EVENTUAL)
            if item is None:
                self._seen.pop(key, None)
            else:
                self._seen[key] = item
        del self._unseen[:due]

    def _file(self, key: Key, before: Item | None, after: Item | None, indexes: Sequence[str]) -> None:
        for name in indexes:
            table, partition, sort = INDEXES[name]
            if table == key.table:
                old, new = _entry(key, before, partition, sort), _entry(key, after, partition, sort)
                if old != new:
                    if old:
                        entries = self._sorted[name][old[0]]
                        del entries[bisect_left(entries, old[1])]
                    if new:
                        insort(self._sorted[name].setdefault(new[0], []), new[1])

    def _with_key(self, key: Key, item: Item) -> Item:
        return {**item, **dict(key.values)}


_FIRST = Key("", ())
_EVENTUAL = tuple(name for name in INDEXES if name not in _CONSISTENT)


def _projected(item: Item, index: str, key: Key) -> Item:
    """Return what an index of keys alone gives of an item."""
    _, partition, sort = INDEXES[index]
    kept = {partition, sort, *(name for name, _ in key.values)}
    return {name: value for name, value in item.items() if name in kept}


def _entry(key: Key, item: Item | None, partition: str, sort: str) -> tuple[str, tuple[str, str, Key]] | None:
    """Return partition and sorted entry of an item in an index, None when it is not in it."""
    if item is None:
        return None
    values = {**item, **dict(key.values)}
    if partition not in values or sort not in values:
        return None
    return values[partition], (values[sort], " ".join(value for _, value in key.values), key)


def _true(condition: Condition, key: Key, item: Item | None) -> bool:
    values: Item = {} if item is None else {**item, **dict(key.values)}
    match condition:
        case Is(name, value):
            return name in values and values[name] == value
        case IsOr(name, value):
            return name not in values or values[name] == value
        case OneOf(name, options):
            return name in values and values[name] in options
        case AtMost(name, bound):
            return name not in values or bool(values[name] <= bound)
        case AtLeast(name, bound):
            return name in values and bool(values[name] >= bound)
        case Absent(name):
            return name not in values


def _size(value: Any) -> int:
    """Return about the bytes of a value as DynamoDB counts them; refuses what it cannot keep."""
    kind = type(value)
    if kind in (str, bytes):
        return len(value)
    if kind in (int, bool, Decimal):
        return 9
    if kind is dict:
        size = 3
        for name, inner in value.items():
            size += len(name) + 1 + _size(inner)
        return size
    if kind is list:
        return 3 + sum(map(_size, value))
    raise TypeError(f"DynamoDB keeps no {type(value).__name__}: {value!r}")
