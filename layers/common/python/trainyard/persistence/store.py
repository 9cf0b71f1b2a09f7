"""The store: items under keys, changed in transactions that happen as a whole or not at all.

Small enough for two adapters to keep the same promises (DynamoDB, and memory for tests and the simulator), so
that the scheduler's protocol is written once, and what is simulated is what runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

Item = dict[str, Any]
"""Texts, whole numbers, decimals, truth values, bytes, and lists and mappings of them; never None or floats."""

ACTIONS_MAX = 100
"""Of one transaction, one per item (DynamoDB developer guide, "Service quotas")."""


@dataclass(frozen=True, slots=True)
class Key:
    table: str
    """"scheduler", "requests", "record" or "tenants"."""
    values: tuple[tuple[str, str], ...]
    """Attribute and value of each part."""

    @property
    def pk(self) -> str:
        """Return the value of the partition key."""
        return self.values[0][1]

    @property
    def sk(self) -> str:
        """Return the value of the sort key; an item without one has no such."""
        return self.values[1][1]


Items = dict[Key, Item | None]
"""What was read of some keys: None where there is no such item."""


@dataclass(frozen=True, slots=True)
class Is:
    """An attribute equals a value."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class IsOr:
    """An attribute equals a value, or does not exist."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class OneOf:
    """An attribute equals one of some values."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class AtMost:
    """A number is no greater than a bound; one that does not exist passes."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A number exists and is no less than a bound."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Absent:
    """The item has no such attribute; of a key attribute: there is no such item."""

    name: str


Condition = Is | IsOr | OneOf | AtMost | AtLeast | Absent


@dataclass(frozen=True, slots=True)
class Put:
    """Replace an item, or create it."""

    key: Key
    item: Item
    """Without its key."""
    when: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """Change some attributes of an item, or create it; sums and lists begin with nothing."""

    key: Key
    set: Mapping[str, Any] = field(default_factory=dict)
    add: Mapping[str, int | Decimal] = field(default_factory=dict)
    append: Mapping[str, list[Any]] = field(default_factory=dict)
    """Attribute → the values to append to its list."""
    remove: tuple[str, ...] = ()
    when: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete:
    key: Key
    when: tuple[Condition, ...] = ()


Write = Put | Update | Delete

READ_AT_ONCE = 100
"""Keys of one BatchGetItem (DynamoDB API reference)."""


def applied(item: Item | None, write: Write) -> Item | None:
    """Return an item after a write, ignoring its conditions; None when it no longer exists."""
    match write:
        case Delete():
            return None
        case Put(_, new):
            return dict(new)
        case Update():
            named = [*write.set, *write.add, *write.append, *write.remove]
            assert len(named) == len(set(named)), "an update names each attribute once"
            changed = dict(item or {})
            for name, value in write.set.items():
                changed[name] = value
            for name, number in write.add.items():
                changed[name] = changed.get(name, 0) + number
            for name, more in write.append.items():
                changed[name] = [*changed.get(name, []), *more]
            for name in write.remove:
                changed.pop(name, None)
            return changed


ITEM_BYTES_MAX = 400 * 1024
TRANSACTION_BYTES_MAX = 4 * 1024 * 1024
PAGE_BYTES_MAX = 1024 * 1024
"""Of an item, of all items of a transaction, and of what a query reads before it answers with a cursor (DynamoDB
developer guide, "Service quotas"; API reference, Query)."""

DIGITS_MAX = 38
EXPONENT_MAX, EXPONENT_MIN = 125, -130
"""Of a number: significant digits, and the powers of ten between which it lies (DynamoDB developer guide,
"Supported data types")."""


def bytes_of(value: Any) -> int:
    """Return the bytes of an item or a value as DynamoDB counts them; the key counts too.

    Source: DynamoDB developer guide, "Item sizes and formats".
    """
    kind = type(value)
    if kind is str:
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if kind is bool:
        return 1
    if kind in (int, Decimal):
        return _bytes_of_number(value)
    if kind is dict:
        return 3 + sum(bytes_of(name) + 1 + bytes_of(inner) for name, inner in value.items())
    if kind is list:
        return 3 + sum(1 + bytes_of(inner) for inner in value)
    return len(value)


def _bytes_of_number(number: int | Decimal) -> int:
    digits = len(str(abs(number))) if isinstance(number, int) else len(number.as_tuple().digits)
    return min((digits + 1) // 2 + 1 + (number < 0), 21)


CHANGED_BYTES = 40 * 1024
"""Assumed size of an item that is changed without being read: the most that a request can have."""


def bytes_written(write: "Write") -> int:
    """Return the bytes that a write adds to a transaction, at most."""
    match write:
        case Put(key, item):
            return bytes_of(dict(key.values)) + bytes_of(item)
        case Update():
            return CHANGED_BYTES
        case Delete():
            return bytes_of(dict(write.key.values))


def fits_one_transaction(writes: "Sequence[Write]") -> bool:
    """Tell whether DynamoDB takes writes together, by their number and by their bytes."""
    return len(writes) <= ACTIONS_MAX and sum(map(bytes_written, writes)) <= TRANSACTION_BYTES_MAX


Cursor = Mapping[str, str]
"""Where a listing continues; opaque to everyone but the adapter."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a range: as many as were asked for, or fewer, or none; only the cursor says whether more is left."""

    items: list[Item]
    """With their keys."""
    cursor: Cursor | None
    """None when nothing is left in the range."""

    @property
    def complete(self) -> bool:
        return self.cursor is None


class Store(Protocol):
    def get(self, *keys: Key) -> list[Item | None]:
        """Return items as they are now, in the order asked for; None where there is none."""
        ...

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
        """Return the items of a partition whose sort key lies between two texts, in its order, from a cursor on.

        A page may end early, whatever the limit (`listed` goes on). Indexes: "scheduler" and "record" (the tables
        themselves), "ready" and "holding" are consistent; "by-tenant" and "by-activity" may lag behind the table;
        so may "by-data-set", "by-prefix", "executions-of-tenant" and "executions-of-day", which give the keys of
        their items and no more. Raises Malformed for a cursor of another list.
        """
        ...

    def transact(self, writes: Sequence[Write]) -> None:
        """Write all or nothing.

        Raises Conflict, naming the writes whose conditions do not hold; Throttled when nothing was written,
        OutcomeUnknown when that cannot be told.
        """
        ...


def listed(
    store: Store,
    index: str,
    partition: str,
    *,
    above: str = "",
    below: str = "\U0010ffff",
    page: int = 1000,
    newest_first: bool = False,
) -> Iterator[Item]:
    """Yield all items of a range, page by page; each page is read when its first item is wanted."""
    cursor: Cursor | None = None
    while True:
        answer = store.query(
            index, partition, above=above, below=below, limit=page, newest_first=newest_first, after=cursor
        )
        yield from answer.items
        cursor = answer.cursor
        if cursor is None:
            return
