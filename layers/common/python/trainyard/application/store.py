"""The store: items under keys, changed in transactions that happen as a whole or not at all.

Small enough for two adapters to keep the same promises (DynamoDB, and memory for tests and the simulator), so
that the waiting room's protocol is written once, and what is simulated is what runs.
"""

from collections.abc import Mapping, Sequence
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
    """Attribute → what is put at the end of the list that it is."""
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
    """Return what a write makes of an item, its conditions aside; None when there is none after it."""
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


@dataclass(frozen=True, slots=True)
class Page:
    items: list[Item]
    """With their keys."""
    complete: bool
    """Whether nothing is left in the range."""


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
    ) -> Page:
        """Return the items of a partition whose sort key lies between two texts, in its order.

        Indexes: "scheduler" and "record" (the tables themselves) and "ready" are consistent; "by-tenant" and
        "by-activity" may lag behind the table; so may "by-data-set", "executions-of-tenant" and
        "executions-of-day", which give the keys of their items and no more.
        """
        ...

    def transact(self, writes: Sequence[Write]) -> None:
        """Write all or nothing.

        Raises Conflict, naming the writes whose conditions do not hold; Throttled when nothing was written,
        OutcomeUnknown when that cannot be told.
        """
        ...
