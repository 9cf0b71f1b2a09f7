"""Retraining records: what asked each data set to train by itself, in the record's table.

pk                    sk            what
retraining#<tenant>   <data set>    the last triggers, and what became of them; ALL for those of all data sets
"""

from collections.abc import Iterator, Mapping
from typing import Any

from trainyard.domain.retraining_record import Judged, LastTrigger, RetrainingRecord
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.run_history import unmoved
from trainyard.persistence.store import Item, Key, Put, Store, listed

ALL = "*"
"""Stands for all data sets of a tenant that have no schedule of their own; not the name of one."""
PAGE = 100


def record_key(tenant_id: str, data_set: str) -> Key:
    return Key("record", (("pk", f"retraining#{tenant_id}"), ("sk", data_set)))


def put_record(key: Key, record: RetrainingRecord, item: Item | None) -> Put:
    """Return what stores a record, if that is still as it was read."""
    values: Item = {
        "asked": [
            f"{stamp(each.at)} {int(each.made)}{int(each.is_event)} {each.event_id}" for each in record.asked
        ],
        "left_out": record.left_out,
        "revision": record.revision + 1,
    }
    if record.last is not None:
        last = record.last
        values["last"] = {
            "at": stamp(last.at),
            "trigger": last.trigger,
            "event_id": last.event_id,
            "request_id": last.request_id,
            "left_out": last.left_out,
        }
    values |= {"schedule": record.schedule} if record.schedule else {}
    for name in ("alarm_at", "schedule_at"):
        values |= {name: stamp(at)} if (at := getattr(record, name)) is not None else {}
    return Put(key, values, (unmoved(item),))


def record_from(item: Mapping[str, Any] | None) -> RetrainingRecord:
    if item is None:
        return RetrainingRecord()
    last = item.get("last")
    asked = (text.split(" ", 2) for text in item["asked"])
    return RetrainingRecord(
        last=LastTrigger(**(last | {"at": unstamp(last["at"])})) if last else None,
        asked=tuple(Judged(unstamp(at), name, flags[0] == "1", flags[1] == "1") for at, flags, name in asked),
        left_out=int(item["left_out"]),
        alarm_at=unstamp(item["alarm_at"]) if "alarm_at" in item else None,
        schedule=str(item.get("schedule", "")),
        schedule_at=unstamp(item["schedule_at"]) if "schedule_at" in item else None,
        revision=int(item["revision"]),
    )


def records_of(store: Store, tenant_id: str) -> Iterator[tuple[str, Item]]:
    """Yield data set, and the item of its record, of a tenant."""
    for item in listed(store, "record", f"retraining#{tenant_id}", page=PAGE):
        yield item["sk"], item
