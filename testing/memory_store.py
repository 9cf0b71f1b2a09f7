"""The store in memory: as strict as DynamoDB, so that what works here works there.

It has DynamoDB's limits (actions, one action per item, bytes of items, transactions and pages, digits of numbers,
no empty keys, no floats), checks every condition before it changes anything, and its eventually consistent
indexes lag by `lag` transactions. If `unkind` says so, a page ends early or is empty although there is more, and
a batch is answered in part or with nothing, so that the rest is read again. Others may write between two items of
a batch, which is no snapshot (`between_reads`). `met` counts how often each of these happened.
"""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from trainyard.domain.errors import Conflict, Malformed
from trainyard.persistence.store import (
    ACTIONS_MAX,
    DIGITS_MAX,
    EXPONENT_MAX,
    EXPONENT_MIN,
    ITEM_BYTES_MAX,
    PAGE_BYTES_MAX,
    READ_AT_ONCE,
    TRANSACTION_BYTES_MAX,
    Absent,
    AtLeast,
    AtMost,
    Condition,
    Cursor,
    Is,
    IsOr,
    Item,
    Key,
    OneOf,
    Page,
    Write,
    applied,
    bytes_of,
)

KEY_BYTES_MAX, SORT_BYTES_MAX = 2048, 1024
"""Of a partition key and of a sort key (DynamoDB developer guide, "Service quotas")."""

INDEXES = {
    "scheduler": ("scheduler", "pk", "sk"),
    "ready": ("scheduler", "pk", "ready"),
    "holding": ("scheduler", "pk", "holding"),
    "by-tenant": ("requests", "tenant_id", "arrived_at"),
    "by-activity": ("requests", "activity", "since"),
    "by-data-set": ("requests", "owner", "arrived_at"),
    "by-prefix": ("requests", "prefix", "request_id"),
    "record": ("record", "pk", "sk"),
    "executions-of-tenant": ("record", "tenant_id", "admitted"),
    "executions-of-day": ("record", "recorded_on", "recorded"),
}
"""Index → table, partition attribute, sort attribute."""

_CONSISTENT = ("scheduler", "ready", "holding", "record")
KEYS_ONLY = ("by-data-set", "by-prefix", "executions-of-tenant", "executions-of-day")
"""Indexes that contain only keys; the others contain whole items."""


_Entry = tuple[str, str, Key]
"""Sort value, the key's text, key."""


class MemoryStore:
    """Implements Store."""

    def __init__(self) -> None:
        self.items: dict[Key, Item] = {}
        self.bytes_of: dict[Key, int] = {}
        """The size of each item."""
        self.bytes_queried = 0
        self.transactions = 0
        self.met: Counter[str] = Counter()
        """How often each of these cases happened."""
        self.lag = 0
        """The number of transactions by which the eventually consistent indexes lag."""
        self._sorted: dict[str, dict[str, list[_Entry]]] = {name: {} for name in INDEXES}
        self.lag_seconds_max = 60.0
        """The longest lag of these indexes, however few transactions follow."""
        self.clock: Callable[[], float] = lambda: 0.0
        self._unseen: list[tuple[float, Key, Item | None, Item | None]] = []
        """Changes that these indexes do not show yet: when, key, item before and after."""
        self._seen: dict[Key, Item] = {}
        """Requests and record as these indexes show them."""
        self.stream: Callable[[Key, Item], None] = lambda _key, _item: None
        """Called with each item of the scheduler's table that is written."""
        self.unkind: Callable[[str], bool] = lambda _what: False
        """Returns whether this happens now: "page cut short", "page empty", "batch answered in part" or "batch
        answered with nothing"."""
        self.between_reads: Callable[[], None] = lambda: None
        """Called between two items of a batch."""

    def get(self, *keys: Key) -> list[Item | None]:
        assert 0 < len(keys) <= READ_AT_ONCE, "a batch reads 1 to 100 items"
        assert len(set(keys)) == len(keys), "a batch reads each item once"
        read: dict[Key, Item | None] = {}
        unprocessed = list(keys)
        while unprocessed:
            answered = self._answered(len(unprocessed))
            for key in unprocessed[:answered]:
                if read:
                    self.between_reads()
                read[key] = self._with_key(key, self.items[key]) if key in self.items else None
            unprocessed = unprocessed[answered:]
            if unprocessed:
                self.between_reads()
        return [read[key] for key in keys]

    def _answered(self, asked: int) -> int:
        """Return how many keys of a batch this response has; BatchGetItem returns the rest as UnprocessedKeys."""
        if asked > 1 and self.unkind("batch answered with nothing"):
            self.met["batch answered with nothing"] += 1
            return 0
        if asked > 1 and self.unkind("batch answered in part"):
            self.met["batch answered in part"] += 1
            return asked // 2
        return asked

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
        if index not in _CONSISTENT:
            if self.lag and self._unseen:
                self.met["index behind"] += 1
            self._catch_up(self.lag)
        source = self.items if index in _CONSISTENT else self._seen
        entries = self._sorted[index].get(partition, [])
        first = bisect_left(entries, (above, "", _FIRST))
        last = bisect_right(entries, (below, "\U0010ffff", _FIRST))
        if after is not None:
            if set(after) != {"partition", "sort", "key"} or after["partition"] != partition:
                raise Malformed("the cursor is of another list")
            sort, text = after["sort"], after["key"]
            if newest_first:
                last = bisect_left(entries, (sort, text), hi=last, key=_order)
            else:
                first = bisect_right(entries, (sort, text), lo=first, key=_order)
        found = entries[first:last][::-1] if newest_first else entries[first:last]
        return self._page(index, partition, source, found, limit, after)

    def _page(
        self,
        index: str,
        partition: str,
        source: dict[Key, Item],
        found: Sequence[_Entry],
        limit: int,
        after: Cursor | None,
    ) -> Page:
        items: list[Item] = []
        read = 0
        if found and after is not None and self.unkind("page empty"):
            self.met["page empty"] += 1
            return Page(items=[], cursor=after)
        cut = len(found) > 1 and self.unkind("page cut short")
        for _, _, key in found[: 1 if cut else limit]:
            item = self._with_key(key, source[key])
            item = _projected(item, index, key) if index in KEYS_ONLY else item
            read += bytes_of(item)
            if read > PAGE_BYTES_MAX:
                self.met["page full"] += 1
                break
            items.append(item)
        self.met["page cut short"] += cut
        self.bytes_queried += read
        if len(items) == len(found):
            return Page(items=items, cursor=None)
        sort, text, _ = found[len(items) - 1]
        return Page(items=items, cursor={"partition": partition, "sort": sort, "key": text})

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
            _check_key(key)
            size = 0
            if item is not None:
                _check(item)
                size = bytes_of(self._with_key(key, item)) - 3  # the item itself is no map
            assert size <= ITEM_BYTES_MAX, f"the item of {key} has {size:,} bytes"
            self.bytes_of[key] = size
            total += size
        assert total <= TRANSACTION_BYTES_MAX, f"the transaction has {total:,} bytes"
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
        """Apply all changes but the last `lag` to the eventually consistent indexes, and of these the old ones."""
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


def _order(entry: _Entry) -> tuple[str, str]:
    return entry[:2]


_EVENTUAL = tuple(name for name in INDEXES if name not in _CONSISTENT)


def _projected(item: Item, index: str, key: Key) -> Item:
    """Return the part of an item that is in an index with keys only."""
    _, partition, sort = INDEXES[index]
    kept = {partition, sort, *(name for name, _ in key.values)}
    return {name: value for name, value in item.items() if name in kept}


def _entry(key: Key, item: Item | None, partition: str, sort: str) -> tuple[str, tuple[str, str, Key]] | None:
    """Return partition and sorted entry of an item in an index, None if the index does not contain it."""
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


def _check_key(key: Key) -> None:
    """Refuse a key that DynamoDB refuses."""
    for number, (_, value) in enumerate(key.values):
        assert value, f"a key part is empty: {key}"
        assert bytes_of(value) <= (SORT_BYTES_MAX if number else KEY_BYTES_MAX), f"a key part is too long: {key}"


def _check(value: Any) -> None:
    """Refuse values that DynamoDB refuses, or boto3 when it reads them back."""
    kind = type(value)
    if kind is dict:
        for inner in value.values():
            _check(inner)
    elif kind is list:
        for inner in value:
            _check(inner)
    elif kind in (int, Decimal):
        _check_number(Decimal(value))
    elif kind not in (str, bytes, bool):
        raise TypeError(f"DynamoDB cannot store {type(value).__name__}: {value!r}")


def _check_number(number: Decimal) -> None:
    """DynamoDB returns numbers without an exponent, and boto3 reads no more than 38 digits (boto3 issue 2500)."""
    assert number.is_finite(), f"DynamoDB cannot store {number}"
    if number:
        digits, power = len(number.as_tuple().digits), number.adjusted()
        assert digits <= DIGITS_MAX, f"a number of {digits} digits: {number}"
        assert EXPONENT_MIN <= power <= EXPONENT_MAX, f"a number outside of DynamoDB's range: {number}"
        assert power < DIGITS_MAX, f"a number that boto3 cannot read back: {number}"
