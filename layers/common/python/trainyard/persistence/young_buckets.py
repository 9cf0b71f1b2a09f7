"""Young buckets: scanned every few minutes for a while, since events of their uploads may be missing.

young / <tenant>   {until, looked, after}: until when, the last scan, and the object after which to continue
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.store import Absent, IsOr, Item, Key, Store, Update, listed

YOUNG = "young"
"""The partition of the notes in the scheduler's table."""

YOUNG_FOR = timedelta(hours=1)
"""S3 documents about five minutes until events arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YoungBucket:
    tenant_id: str
    looked: str = ""
    after: str | None = None


def note_young(store: Store, tenant_id: str, now: datetime) -> None:
    """Have a tenant's bucket scanned every few minutes for an hour. Idempotent.

    Raises Conflict while others write the note.
    """
    until = now + YOUNG_FOR
    with_change = {"until": stamp(until), "expires_at": int(until.timestamp())}
    store.transact([Update(_key(tenant_id), set=with_change)])


def note_looked(store: Store, bucket: YoungBucket, after: str | None, now: datetime) -> None:
    """Store where the next scan continues; raises Conflict when another scan was faster."""
    removed = () if after is not None else ("after",)
    attributes = {"looked": stamp(now)} | ({"after": after} if after is not None else {})
    seen = Absent("looked") if not bucket.looked else IsOr("looked", bucket.looked)
    store.transact([Update(_key(bucket.tenant_id), set=attributes, remove=removed, when=(seen,))])


def young_buckets(store: Store, now: datetime) -> list[YoungBucket]:
    """Return the buckets to scan, those with the oldest last scan first."""
    notes: Iterator[Item] = listed(store, "scheduler", YOUNG)
    buckets = [
        YoungBucket(tenant_id=item["sk"], looked=item.get("looked", ""), after=item.get("after"))
        for item in notes
        if "until" in item and unstamp(item["until"]) > now
    ]
    return sorted(buckets, key=lambda bucket: (bucket.looked, bucket.tenant_id))


def is_young(store: Store, tenant_id: str, now: datetime) -> bool:
    (item,) = store.get(_key(tenant_id))
    return item is not None and "until" in item and unstamp(item["until"]) > now


def _key(tenant_id: str) -> Key:
    return Key("scheduler", (("pk", YOUNG), ("sk", tenant_id)))
