"""The journal of each tenant: what the service has published about it in the last days.

    pk                 sk                    what
    events#<tenant>    <time>#<event id>     an event, at the time at which it was kept, in milliseconds since 1970

It expires by itself.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from trainyard.domain.journal import JournalEntry
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.store import Item, Key, Put, Store

KEPT_FOR = timedelta(days=7)
SETTLED_AFTER = timedelta(seconds=15)
"""An entry is shown when it is this old: until then, others may be written that come before it. The function that
writes them ends within 10 seconds of the time that it gives them (template.yaml)."""


class JournalPage(NamedTuple):
    entries: list[JournalEntry]
    following: str
    """Where the next page begins, perhaps with what is published later."""


@dataclass(frozen=True, slots=True)
class Journal:
    store: Store

    def add(self, tenant_id: str, entry: JournalEntry, now: datetime) -> None:
        """Keep an event; raises Throttled and OutcomeUnknown."""
        key = Key("record", (("pk", f"events#{tenant_id}"), ("sk", f"{_time(now)}#{entry.event_id}")))
        item = {
            "at": stamp(entry.at),
            "kind": entry.kind,
            "values": json.dumps(dict(entry.values)),
            "expires_at": int((now + KEPT_FOR).timestamp()),
        }
        self.store.transact([Put(key, item)])

    def page(self, tenant_id: str, after: str, *, limit: int, now: datetime) -> JournalPage:
        """Return at most `limit` events that were kept after a place, in their order; "" is the oldest place."""
        settled = f"{_time(now - SETTLED_AFTER)}#"
        if after >= settled:
            return JournalPage([], after)
        # Behind the entry that was returned last: no id has such a character.
        above = f"{after}~" if after else ""
        page = self.store.query("record", f"events#{tenant_id}", above=above, below=settled, limit=limit)
        last = str(page.items[-1]["sk"]) if page.items else after
        return JournalPage([_entry(item) for item in page.items], last)


def _time(when: datetime) -> str:
    return f"{int(when.timestamp() * 1000):013d}"


def _entry(item: Item) -> JournalEntry:
    return JournalEntry(
        event_id=str(item["sk"]).partition("#")[2],
        at=unstamp(item["at"]),
        kind=item["kind"],
        values=json.loads(item["values"]),
    )
