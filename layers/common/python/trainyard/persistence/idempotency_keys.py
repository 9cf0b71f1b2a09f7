"""Idempotency keys: what callers of the HTTP API name their calls, so that one that is sent again is done once.

pk                       sk       what
idempotency#<tenant>     <key>    {call: digest of what was asked for, event_id: what names it}; expires by itself
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from trainyard.domain.errors import Conflict, Refused
from trainyard.persistence.store import Absent, Is, Key, Put, Store

KEPT_FOR = timedelta(days=1)
REUSED = "idempotency key"
"""Kind of the refusal of a key that has named another call."""


def idempotency_key(tenant_id: str, key: str) -> Key:
    return Key("record", (("pk", f"idempotency#{tenant_id}"), ("sk", key)))


@dataclass(frozen=True, slots=True)
class IdempotencyKeys:
    store: Store

    def event_id(self, tenant_id: str, key: str, call: str, now: datetime, *, new: str | None = None) -> str:
        """Return what names a call from now on: the same for the same key within a day.

        `call` is a digest of what is asked for; `new` is what is to name it, if it is new. Raises Refused, of kind
        REUSED, where the key has named another call.
        """
        event_id, place = new or str(uuid4()), idempotency_key(tenant_id, key)
        expires_at = int((now + KEPT_FOR).timestamp())
        item = {"call": call, "event_id": event_id, "expires_at": expires_at}
        try:
            self.store.transact([Put(place, item, (Absent("pk"),))])
        except Conflict:
            (before,) = self.store.get(place)
            if before is None:  # another write is under way
                raise
            # DynamoDB removes what has expired within days.
            if int(before["expires_at"]) <= now.timestamp():
                self.store.transact([Put(place, item, (Is("event_id", before["event_id"]),))])
                return event_id
            if before["call"] != call:
                raise Refused(
                    f"the key {key!r} was used for a different call within a day: use a new one for each call",
                    kind=REUSED,
                ) from None
            return str(before["event_id"])
        return event_id
