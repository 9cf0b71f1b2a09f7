"""Arrival limits: how many uploads of a tenant become requests in an hour.

Uploads above the limit are deferred, not refused: the tenant's bucket is scanned for uploads without a request
(application/scheduling/lost_uploads.py), so that they become requests at the limit's rate. Of a data set that
is trained on as its newest object, a flood of a million uploads costs the reading of their events, and becomes one
request."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainyard.domain.errors import Conflict
from trainyard.persistence.store import AtMost, Key, Store, Update
from trainyard.persistence.young_buckets import note_young

KEPT_FOR = timedelta(hours=2)
TRIES_MAX = 4


@dataclass(frozen=True, slots=True)
class ArrivalLimits:
    store: Store
    rest: Callable[[int], None]
    """Waits before the given further try, in step with nobody."""

    def admit(self, tenant_id: str, count: int, *, limit: int, now: datetime) -> bool:
        """Count some uploads of a tenant; False, and its bucket is looked through soon, when they are too many."""
        if self.count(tenant_id, count, limit=limit, now=now):
            return True
        with suppress(Conflict):  # somebody else is writing the same note
            note_young(self.store, tenant_id, now)
        return False

    def count(self, tenant_id: str, count: int, *, limit: int, now: datetime) -> bool:
        """Count some uploads or trainings that a tenant asks for; False when they are too many.

        Counts again what is delivered again. While others count the same tenant's, some pass uncounted: the limit
        bounds a flood, and need not be exact.
        """
        hour = now.replace(minute=0, second=0, microsecond=0)
        key = Key("scheduler", (("pk", f"arrivals#{tenant_id}"), ("sk", f"{hour:%Y-%m-%dT%H}")))
        counted = Update(
            key,
            add={"uploads": count},
            set={"expires_at": int((hour + KEPT_FOR).timestamp())},
            when=(AtMost("uploads", limit - count),),
        )
        for number in range(1, TRIES_MAX + 1):
            try:
                self.store.transact([counted])
                return True
            except Conflict as conflict:
                if conflict.failed:
                    return False
                self.rest(number)
        return True
