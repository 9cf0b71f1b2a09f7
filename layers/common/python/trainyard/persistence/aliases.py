"""Aliases of data sets' models, one item each, under `serving#<tenant>` / `alias#<data set>`.

The aliases of all tenants are listed under `serving#` / `alias#<tenant>#<data set>`. An item of the list is
written with its alias, and has no content: what answers is read from the alias itself.

What a change does to versions is left in the outbox with it, and is announced from there.

Every change is made on what was read, and written on condition that nothing was written since: of two changes made
at once one is made again on the result of the other. Each write has a random revision, so that what was read of an
alias that was removed and made anew is never taken for the new one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from trainyard.domain.alias_events import events_between
from trainyard.domain.aliases import Alias
from trainyard.domain.errors import Conflict
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.outbox import model_entry
from trainyard.persistence.store import Absent, Cursor, Delete, Is, Item, Key, Put, Store, listed
from trainyard.persistence.transactions import read_items

TRIES_MAX = 8
ALL_TENANTS = "serving#"
"""The partition that lists the aliases of all tenants."""


def alias_key(tenant_id: str, data_set: str) -> Key:
    return Key("scheduler", (("pk", f"serving#{tenant_id}"), ("sk", f"alias#{data_set}")))


def _listing_key(tenant_id: str, data_set: str) -> Key:
    return Key("scheduler", (("pk", ALL_TENANTS), ("sk", f"alias#{tenant_id}#{data_set}")))


class AliasPage(NamedTuple):
    """Some of the aliases of all tenants, by tenant and data set."""

    aliases: list[Alias]
    cursor: Cursor | None
    """None when nothing is left."""


@dataclass(frozen=True, slots=True)
class Aliases:
    store: Store
    rest: Callable[[int], None]
    """Waits before the given further try, in step with nobody."""

    def get(self, tenant_id: str, data_set: str) -> Alias:
        """Return an alias as it is now, one without versions where there is none."""
        (item,) = self.store.get(alias_key(tenant_id, data_set))
        return _alias_from(item) if item else Alias(tenant_id=tenant_id, data_set=data_set)

    def of_tenant(self, tenant_id: str) -> Iterator[Alias]:
        """Yield a tenant's aliases by the names of their data sets."""
        partition = f"serving#{tenant_id}"
        yield from map(_alias_from, listed(self.store, "scheduler", partition, above="alias#", below="alias#~"))

    def page(self, *, limit: int, after: Cursor | None = None) -> AliasPage:
        """Return aliases of all tenants; raises Malformed for a cursor of another list."""
        page = self.store.query(
            "scheduler", ALL_TENANTS, above="alias#", below="alias#~", limit=limit, after=after
        )
        names = [item["sk"].split("#")[1:] for item in page.items]
        items = read_items(self.store, [alias_key(tenant_id, data_set) for tenant_id, data_set in names])
        return AliasPage([_alias_from(item) for item in items.values() if item is not None], page.cursor)

    def change(
        self, tenant_id: str, data_set: str, make: Callable[[Alias], Alias], now: datetime, reason: str = ""
    ) -> Alias:
        """Change an alias by a pure function, and return what is stored then.

        `reason` says why a version is given up; it is announced with it. Raises what the function raises, and
        Conflict while others keep changing it.
        """
        for number in range(1, TRIES_MAX + 1):
            before = self.get(tenant_id, data_set)
            after = make(before)
            if after == before:
                return before
            after = replace(after, revision=uuid4().hex)
            unchanged = Is("revision", before.revision) if before.revision else Absent("pk")
            alias = Put(alias_key(tenant_id, data_set), _alias_item(after), (unchanged,))
            writes = [alias, Put(_listing_key(tenant_id, data_set), {})]
            writes += [model_entry(after, event, reason, now) for event in events_between(before, after)]
            try:
                self.store.transact(writes)
            except Conflict:
                self.rest(number)
            else:
                return after
        raise Conflict(f"the alias of {data_set} keeps changing")

    def forget(self, tenant_id: str, data_set: str) -> None:
        """Remove an alias; calls for the data set are refused until another version is deployed."""
        self.store.transact([Delete(alias_key(tenant_id, data_set)), Delete(_listing_key(tenant_id, data_set))])


def _alias_item(alias: Alias) -> Item:
    item: dict[str, Any] = {
        "tenant_id": alias.tenant_id,
        "data_set": alias.data_set,
        "live": alias.live,
        "previous": alias.previous,
        "canary": alias.canary,
        "canary_percent": alias.canary_percent,
        "testing": alias.testing,
        "test_ends_at": stamp(alias.test_ends_at) if alias.test_ends_at else None,
        "deploying": alias.deploying,
        "deploying_since": stamp(alias.deploying_since) if alias.deploying_since else None,
        "deploying_run": alias.deploying_run,
        "waiting": alias.waiting,
        "withdrawn_up_to": alias.withdrawn_up_to,
        "withdrawn_until": stamp(alias.withdrawn_until) if alias.withdrawn_until else None,
        "withdrawn": {str(version): stamp(at) for version, at in alias.withdrawn.items()},
        "revision": alias.revision,
    }
    return {name: value for name, value in item.items() if value is not None}


def _alias_from(item: Item) -> Alias:
    def number(name: str) -> int | None:
        return int(item[name]) if name in item else None

    return Alias(
        tenant_id=item["tenant_id"],
        data_set=item["data_set"],
        live=number("live"),
        previous=number("previous"),
        canary=number("canary"),
        canary_percent=int(item["canary_percent"]),
        testing=number("testing"),
        test_ends_at=unstamp(item["test_ends_at"]) if "test_ends_at" in item else None,
        deploying=number("deploying"),
        deploying_since=unstamp(item["deploying_since"]) if "deploying_since" in item else None,
        deploying_run=item.get("deploying_run"),
        waiting=number("waiting"),
        withdrawn={int(version): unstamp(at) for version, at in item["withdrawn"].items()},
        withdrawn_up_to=int(item["withdrawn_up_to"]),
        withdrawn_until=unstamp(item["withdrawn_until"]) if "withdrawn_until" in item else None,
        revision=item["revision"],
    )
