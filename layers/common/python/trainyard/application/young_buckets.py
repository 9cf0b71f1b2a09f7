"""Buckets that are looked through every few minutes for a while, since events of their uploads may be missing."""

from datetime import datetime, timedelta

from trainyard.application.records import stamp
from trainyard.application.store import Key, Put, Store

YOUNG = "young"
"""The partition of their notes in the scheduler's table."""

YOUNG_FOR = timedelta(hours=1)
"""S3 speaks of some five minutes until events come."""


def note_young(store: Store, tenant_id: str, now: datetime) -> None:
    """Let a tenant's bucket be looked through every few minutes for an hour. Idempotent."""
    until = now + YOUNG_FOR
    item = {"until": stamp(until), "expires_at": int(until.timestamp())}
    store.transact([Put(Key("scheduler", (("pk", YOUNG), ("sk", tenant_id))), item)])
