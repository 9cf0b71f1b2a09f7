"""The outbox: work that a transaction decided, and that is done after it, at least once."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from trainyard.domain.alias_events import AliasEvent
from trainyard.domain.aliases import Alias
from trainyard.persistence.items import stamp
from trainyard.persistence.store import Delete, Is, Key, Put, Store, listed

OUTBOX_MAX = 1000
"""Read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """Work that was decided in a transaction and is done after it, at least once."""

    name: str
    what: str
    """"settle": read an execution again; "spending": charge budgets; anything else: publish."""
    values: Mapping[str, Any]


def outbox_entries(store: Store) -> list[OutboxEntry]:
    """Return the outbox entries, oldest first."""
    items = islice(listed(store, "record", "outbox", page=OUTBOX_MAX), OUTBOX_MAX)
    entries = [
        OutboxEntry(
            name=item["sk"],
            what=item["what"],
            values={name: value for name, value in item.items() if name not in ("pk", "sk")},
        )
        for item in items
    ]
    return sorted(entries, key=lambda each: str(each.values["since"]))


def budget_entry(
    tenant_id: str, tier: str, month: str, percent: int, values: Mapping[str, Any], now: datetime
) -> Put:
    """Return the outbox entry for spending that reaches a threshold."""
    about = {"tenant_id": tenant_id, "tier": tier, "month": month, "percent": percent, **values}
    return entry("budget", f"{tenant_id}#{tier}#{month}#{percent}", about, now)


def deadline_entry(what: str, request_id: str, values: Mapping[str, Any], now: datetime) -> Put:
    """Return the outbox entry for a deadline that is at risk, or will be missed."""
    return entry(what, request_id, values, now)


def model_entry(alias: Alias, event: AliasEvent, reason: str, now: datetime) -> Put:
    """Return the outbox entry for what became of a version; `alias` is as it is after that."""
    values = {
        "tenant_id": alias.tenant_id,
        "data_set": alias.data_set,
        "version": event.version,
        "live": alias.live,
        "reason": event.reason or reason or None,
        "at": stamp(now),
    }
    about = {name: value for name, value in values.items() if value is not None}
    return entry(
        event.change.value, f"{alias.tenant_id}#{alias.data_set}#{event.version}#{alias.revision}", about, now
    )


def entry(what: str, name: str, values: Mapping[str, Any], now: datetime) -> Put:
    """Return the write that adds an entry to the outbox."""
    return Put(
        Key("record", (("pk", "outbox"), ("sk", f"{what}#{name}"))), {"what": what, "since": stamp(now), **values}
    )


def spending_entry(name: str, month: str, charges: Mapping[str, Decimal], now: datetime) -> Put:
    """Return the outbox entry for what budgets are to be charged: tier and tenant, joined by "#" → USD."""
    return entry("spending", name, {"month": month, "charges": dict(charges)}, now)


def done_once(done: OutboxEntry) -> Delete:
    """Return what removes an outbox entry, unless it was removed before."""
    return Delete(entry_key(done.name), (Is("what", done.what),))


def entry_key(name: str) -> Key:
    return Key("record", (("pk", "outbox"), ("sk", name)))
