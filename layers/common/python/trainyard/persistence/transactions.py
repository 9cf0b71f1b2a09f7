"""Transactions: read, decide, and write on the condition that nothing read has changed since.

A transaction script gets a unit of work, reads through it and adds writes to it. All writes are committed together
when the script returns; when another transaction was faster, the script runs again with what is there then.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from trainyard.domain.errors import Conflict
from trainyard.domain.policy import Policy
from trainyard.persistence.store import READ_AT_ONCE, Item, Items, Key, Store, Write, applied

TRIES_MAX = 8
"""Attempts of a transaction that conflicts with other writers."""

T = TypeVar("T")


def read_items(store: Store, keys: Iterable[Key]) -> Items:
    """Return the items of some keys, None where there is none; reads up to a hundred in one call."""
    wanted = list(dict.fromkeys(keys))
    items: Items = {}
    for begin in range(0, len(wanted), READ_AT_ONCE):
        part = wanted[begin : begin + READ_AT_ONCE]
        items |= dict(zip(part, store.get(*part), strict=True))
    return items


@dataclass(slots=True, kw_only=True)
class UnitOfWork:
    """One attempt of a transaction: its time and policy, what it has read, and what it will write."""

    store: Store
    now: datetime
    for_policy: Policy | None = None
    items: Items = field(default_factory=dict)
    """What was read, or read before it began."""
    writes: list[Write] = field(default_factory=list)

    @property
    def policy(self) -> Policy:
        """Return the policy under which the transaction is made; only scripts that were given one may ask."""
        assert self.for_policy is not None, "this transaction was begun without a policy"
        return self.for_policy

    def read(self, *keys: Key) -> list[Item | None]:
        """Return the items of some keys in the order asked for; those not known yet are read in one call."""
        self.items |= read_items(self.store, [key for key in keys if key not in self.items])
        return [self.items[key] for key in keys]

    def write(self, *writes: Write) -> None:
        """Add to what is written when the script returns."""
        self.writes += writes

    def commit(self) -> None:
        """Write all or nothing, and update `items` accordingly. Raises Conflict."""
        if not self.writes:
            return
        self.store.transact(self.writes)
        # The next script of the same batch continues from here without reading again.
        self.apply()

    def apply(self) -> None:
        """Change what was read as the writes will change it in the store."""
        for write in self.writes:
            if write.key in self.items:
                item = applied(self.items[write.key], write)
                self.items[write.key] = None if item is None else item | dict(write.key.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transactions:
    """Runs transaction scripts over a store."""

    store: Store
    backoff: Callable[[int], None]
    """Waits before the given further try of a contended write."""

    def run(
        self,
        script: Callable[[UnitOfWork], T],
        now: datetime,
        *,
        policy: Policy | None = None,
        items: Items | None = None,
    ) -> T:
        """Run a script and commit its writes; retries on conflict. Raises Conflict when all attempts fail.

        `items` were read before, and are good for the first try.
        """
        # Only the first attempt may use items that were read before: a retry must see what the other transaction
        # wrote.
        first = [items]

        def attempt() -> T:
            return self.once(script, now, policy=policy, items=first.pop() if first else None)

        return self.retried(attempt)

    def retried(self, attempt: Callable[[], T]) -> T:
        """Retry on conflict; raises Conflict when all attempts fail."""
        for number in range(1, TRIES_MAX):
            try:
                return attempt()
            except Conflict:
                self.backoff(number)
        return attempt()

    def once(
        self,
        script: Callable[[UnitOfWork], T],
        now: datetime,
        *,
        policy: Policy | None = None,
        items: Items | None = None,
    ) -> T:
        """Run a script and commit what it wrote. Raises Conflict when another transaction was faster."""
        unit = UnitOfWork(store=self.store, now=now, for_policy=policy, items={} if items is None else items)
        result = script(unit)
        unit.commit()
        return result

    def write_unless_past(self, *writes: Write) -> bool:
        """Write if all conditions hold; False when one does not. Raises Conflict while another transaction is in
        progress."""
        try:
            self.store.transact(writes)
        except Conflict as conflict:
            # No position failed: DynamoDB evaluated no condition, because another transaction had the items.
            if not conflict.failed:
                raise
            return False
        return True
