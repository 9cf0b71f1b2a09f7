"""The books of inference: what calls used in each hour of a shared endpoint, and what they paid.

    pk                             sk                          what
    inference#<endpoint>#<hour>    <tenant>#<data set>         counts of calls; once the hour is booked, their cost
    endpoint-hours#<day>           <hour>#<endpoint>           what an hour of an endpoint cost, and its idle part
    note                           endpoint#<endpoint>         up to which hour it is booked
    note                           seen#<endpoint>             the endpoint as it was seen last

A count is one write by itself and no read: transactions on one item would refuse each other. An hour is booked
once all its calls have been counted, each use in the transaction that adds it to the month's totals, on condition
that it was not booked before. Hours are listed by the day on which they were booked, so that the list of a day
does not change once the day is over.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain

from trainyard.domain.canaries import Calls
from trainyard.domain.hourly_spend import hour_of
from trainyard.domain.inference import EndpointHour, EndpointUse, begins
from trainyard.domain.model_versions import ModelVersion
from trainyard.persistence.book import note_key, totals_key_of
from trainyard.persistence.items import unstamp
from trainyard.persistence.model_versions import VersionName
from trainyard.persistence.outbox import spending_entry
from trainyard.persistence.store import Absent, Is, Item, Key, Put, Store, Update, Write, listed
from trainyard.persistence.transactions import read_items

CHARGES_MAX = 4
"""Data sets of one transaction: whoever charges their budgets writes as many queues, each with all its copies."""

_SUMS = ("calls", "failed", "milliseconds", "bytes_in", "bytes_out")
_HOUR = tuple(f.name for f in fields(EndpointHour) if f.name not in ("usd", "idle_usd"))


def use_key(endpoint: str, hour: str, tenant_id: str, data_set: str) -> Key:
    return Key("record", (("pk", f"inference#{endpoint}#{hour}"), ("sk", f"{tenant_id}#{data_set}")))


def hour_key(day: str, hour: str, endpoint: str) -> Key:
    return Key("record", (("pk", f"endpoint-hours#{day}"), ("sk", f"{hour}#{endpoint}")))


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceBook:
    store: Store
    retention: timedelta
    """How long counts and hours are kept."""
    update: Callable[[Update], None] | None = None
    """Makes one change by itself; without it, the store does."""

    def count(self, endpoint: str, use: EndpointUse, now: datetime, version: int | None = None) -> None:
        """Add the calls of a use to the current hour's, and to those of a version, if it is given."""
        add = {name: value for name in _SUMS if (value := getattr(use, name))}
        if version is not None:
            add |= {f"calls_{version}": use.calls} | ({f"failed_{version}": use.failed} if use.failed else {})
        set_now: Item = {"tier": use.tier, "algorithm": use.algorithm, "model_bytes": use.model_bytes}
        set_now["expires_at"] = int((now + self.retention).timestamp())
        key = use_key(endpoint, hour_of(now), use.tenant_id, use.data_set)
        update = Update(key, set=set_now, add=add)
        if self.update is None:
            self.store.transact([update])
        else:
            self.update(update)

    def calls_of(self, version: ModelVersion, since: datetime, now: datetime) -> Calls:
        """Return the calls that a version was asked to answer, from the hour of a time on."""
        (calls,) = self.calls_of_each([version], since, now).values()
        return calls

    def calls_of_each(
        self, versions: Iterable[ModelVersion], since: datetime, now: datetime
    ) -> dict[VersionName, Calls]:
        """Return the calls that each version was asked to answer, from the hour of a time on."""
        hours = [hour_of(since)]
        while hours[-1] < hour_of(now):
            hours.append(hour_of(begins(hours[-1]) + timedelta(hours=1)))
        keys = {
            (version.tenant_id, version.data_set, version.version): [
                use_key(version.endpoint, hour, version.tenant_id, version.data_set) for hour in hours
            ]
            for version in versions
        }
        items = read_items(self.store, chain.from_iterable(keys.values()))
        return {name: _calls(name[2], [items[key] or {} for key in of_name]) for name, of_name in keys.items()}

    def uses(self, endpoint: str, hour: str) -> list[EndpointUse]:
        """Return what was used of an endpoint in an hour, by tenant and data set."""
        return [_use_from(item) for item in listed(self.store, "record", f"inference#{endpoint}#{hour}")]

    def book(
        self,
        endpoint: str,
        hour: str,
        shares: Sequence[tuple[EndpointUse, Decimal]],
        now: datetime,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> None:
        """Book what uses of an hour pay, those that are not booked yet. Idempotent; raises TimeoutError."""
        due = [(use, usd) for use, usd in shares if use.usd is None]
        for begin in range(0, len(due), CHARGES_MAX):
            if out_of_time():
                raise TimeoutError(f"{begin} of {len(due)} uses of {endpoint} in {hour} are booked")
            part = due[begin : begin + CHARGES_MAX]
            writes: list[Write] = []
            charges: dict[str, Decimal] = {}
            for use, usd in part:
                key = use_key(endpoint, hour, use.tenant_id, use.data_set)
                writes.append(Update(key, set={"usd": usd}, when=(Absent("usd"), Is("tier", use.tier))))
                totals = totals_key_of(hour[:7], use.tenant_id, use.tier, use.data_set, use.algorithm)
                writes.append(Update(totals, add={"inference_usd": usd, "calls": use.calls}))
                account = f"{use.tier}#{use.tenant_id}"
                charges[account] = charges.get(account, Decimal(0)) + usd
            name = f"{hour}#{endpoint}#{part[0][0].tenant_id}#{part[0][0].data_set}"
            writes.append(spending_entry(name, hour[:7], charges, now))
            self.store.transact(writes)

    def close(self, hour: EndpointHour, now: datetime, instances: int = 0) -> None:
        """Store what an hour cost, after all its uses were booked, and the instances at its end. Idempotent."""
        item: Item = {name: getattr(hour, name) for name in _HOUR} | {"idle_usd": hour.idle_usd}
        item |= {"usd": hour.usd} if hour.usd is not None else {}
        item["expires_at"] = int((now + self.retention).timestamp())
        self.store.transact(
            [
                Put(hour_key(now.strftime("%Y-%m-%d"), hour.hour, hour.endpoint), item),
                Put(note_key(f"endpoint#{hour.endpoint}"), {"until": hour.hour, "instances": instances}),
            ]
        )

    def booked_until(self, endpoint: str) -> str:
        """Return the last hour of an endpoint that was booked; "" before the first."""
        (item,) = self.store.get(note_key(f"endpoint#{endpoint}"))
        return str(item["until"]) if item else ""

    def instances_booked(self, endpoint: str) -> int | None:
        """Return the instances that an endpoint had at the end of the last hour that was booked, if any was."""
        (item,) = self.store.get(note_key(f"endpoint#{endpoint}"))
        return int(item["instances"]) if item and "instances" in item else None

    def remembered(self, since: datetime) -> Item:
        """Return the name of each endpoint that was seen since then → what `remember` was given."""
        items = listed(self.store, "record", "note", above="seen#", below="seen#~")
        return {item["sk"].removeprefix("seen#"): item for item in items if unstamp(item["seen"]) >= since}

    def remember(self, endpoint: str, item: Item, now: datetime) -> None:
        """Store what an endpoint is like, for when it does not exist any more; `item` has a stamp "seen"."""
        expires = {"expires_at": int((now + self.retention).timestamp())}
        self.store.transact([Put(note_key(f"seen#{endpoint}"), item | expires)])

    def hours(self, day: str) -> Iterator[EndpointHour]:
        """Yield the hours that were booked on a day, "2026-11-21"."""
        for item in listed(self.store, "record", f"endpoint-hours#{day}"):
            yield EndpointHour(
                endpoint=item["endpoint"],
                arn=item["arn"],
                hour=item["hour"],
                instance_type=item["instance_type"],
                instance_count=int(item["instance_count"]),
                seconds=int(item["seconds"]),
                usd=item.get("usd"),
                idle_usd=Decimal(item["idle_usd"]),
            )


def _calls(version: int, items: Iterable[Item]) -> Calls:
    """Return the calls of a version in some hours of its data set."""
    each = [Calls(int(item.get(f"calls_{version}", 0)), int(item.get(f"failed_{version}", 0))) for item in items]
    return Calls(sum(calls.total for calls in each), sum(calls.failed for calls in each))


def _use_from(item: Item) -> EndpointUse:
    tenant_id, data_set = item["sk"].split("#")
    return EndpointUse(
        tenant_id=tenant_id,
        data_set=data_set,
        tier=item["tier"],
        algorithm=item["algorithm"],
        model_bytes=int(item["model_bytes"]),
        usd=item.get("usd"),
        **{name: int(item.get(name, 0)) for name in _SUMS},
    )
