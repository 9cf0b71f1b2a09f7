"""Tenant queues: what each tenant has waiting and running in a tier, and where passes find it.

    pk                         sk                          what
    tier#<tier>                tenant#<tenant>             a tenant queue, filed under its first resource profile
    tier#<tier>                tenant#<tenant>#<profile>   a copy of it for each further profile
    entries#<tier>#<tenant>    data_set#<name>             a waiting request (…#<request> when trained alone)

The index "ready" lists each profile of a queue under one key, so that a pass finds the first queues of a profile
regardless of the others:

    needs-budget|<limits>|<usd>|<tenant>             parked until its tier's budget has so much left
    parked|<limits>|<turn>|<tenant>                  no request can go until something changes
    paused|<tenant>                                  the tenant is paused
    postponed|<due>|<profile>|<tenant>               its first request is not due yet
    ready|<profile>|<start tag>|<arrival>|<tenant>   its first request is due

where <limits> is <policy version>|<prices>|<month>|<epoch of its windows>.

The index "holding" lists the queues whose tenants hold slots, with the requests that do. Like the table itself it
is read consistently: the holders of slots never come from an index that lags.

Every change of a queue is read, changed purely (domain/queues.py) and written on condition that its revision has
not moved."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import NamedTuple

from trainyard.domain.errors import Conflict
from trainyard.domain.policy import Policy, TierPolicy
from trainyard.domain.queues import (
    HEAD_ENTRIES_MAX,
    URGENT,
    QueueEntry,
    TenantQueue,
    entry_of,
    left,
    staying,
    trimmed,
)
from trainyard.domain.requests import PRIORITY_MAX, Request, Submission
from trainyard.domain.scheduling import Ledger, Parked
from trainyard.persistence.items import entry_from, entry_item, queue_from, queue_item, stamp
from trainyard.persistence.store import (
    ACTIONS_MAX,
    Absent,
    Delete,
    Is,
    Item,
    Key,
    Put,
    Store,
    Write,
    fits_one_transaction,
    listed,
)
from trainyard.persistence.transactions import read_items

PAGE_MIN = 50
"""Tenant queues read of a tier, or of a profile, at least."""

UNPARKED_MAX = 200
"""Queues of a tier that are brought back in one pass, for each reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The waiting requests of a tier."""

    waiting: int
    oldest_arrived_at: datetime | None
    """Of the first requests of the queues; None when nothing waits."""
    weight: int = 0
    """The weight of the tenants with waiting requests."""
    parked: Mapping[str, int] = field(default_factory=dict)
    """Reason → tenant queues parked for it."""
    paused: tuple[str, ...] = ()
    """The paused tenants among them."""


class HoldingQueue(NamedTuple):
    """A queue whose tenant holds slots, as the index lists it."""

    tier: str
    tenant_id: str
    holders: tuple[str, ...]


def queue_key(tier: str, tenant_id: str, profile: str = "") -> Key:
    sk = f"tenant#{tenant_id}#{profile}" if profile else f"tenant#{tenant_id}"
    return Key("scheduler", (("pk", f"tier#{tier}"), ("sk", sk)))


def entry_key(waiting: Request | Submission) -> Key:
    """Return where a request waits: beside no other of its data set, unless it is to be trained on alone."""
    alone = f"#{waiting.request_id}" if waiting.alone else ""
    return _entry_key(waiting.tier, waiting.tenant_id, f"{waiting.data_set}{alone}")


def queue_in(item: Item | None, tier: str, tenant_id: str) -> TenantQueue:
    """Return the queue of an item, an empty one where there is none yet."""
    return queue_from(item) if item else TenantQueue(tenant_id=tenant_id, tier=tier)


# --- what a change of a queue writes ----------------------------------------------------------------------------


def refile(
    before: TenantQueue, after: TenantQueue, now: datetime, *, parked_under: str | None = None
) -> list[Write]:
    """Return what writes a tenant queue and files it in the index, if it is still as it was read."""
    after = trimmed(replace(after, revision=before.revision + 1))
    if parked_under is None:
        after = replace(after, parked_for=None)
    # An item has one key in the index. So the queue itself is filed under its first profile, and copies of it
    # under the others.
    filings = _filings(after, now, parked_under)
    item = queue_item(after)
    first, *others = filings or [("", "")]
    # Every write of a queue increments its revision: of two changes made from one state, only one can commit.
    unchanged = Is("revision", before.revision) if before.revision else Absent("revision")
    attributes = {"ready": first[1]} if first[1] else {}
    attributes |= {"holding": after.tenant_id} if after.holders else {}
    writes: list[Write] = [Put(queue_key(after.tier, after.tenant_id), item | attributes, (unchanged,))]
    writes += [
        Put(queue_key(after.tier, after.tenant_id, profile), item | {"ready": ready, "copy": True})
        for profile, ready in others
    ]
    # Copies under profiles in which nothing waits any more.
    stale = set(sorted(before.profiles)[1:]) - {profile for profile, _ in others}
    writes += [Delete(queue_key(after.tier, after.tenant_id, profile)) for profile in sorted(stale)]
    return writes


def put_entry(request: Request, *, replaces: str | None) -> Put:
    """Return what lets a request wait: in a place that is free, or in that of another request."""
    entry = entry_of(request)
    rank, *times, request_id = entry.order
    place = "|".join([f"{rank + PRIORITY_MAX}", *map(stamp, times), request_id])
    ready = f"{entry.lane}|{place}"
    return Put(
        entry_key(request),
        entry_item(entry) | {"ready": ready},
        (Absent("pk"),) if replaces is None else (Is("request_id", replaces),),
    )


def place_key(tier: str, tenant_id: str, place: str) -> Key:
    """Return where the request of a place waits (`QueueEntry.place`)."""
    return _entry_key(tier, tenant_id, place)


def delete_entry(queue: TenantQueue, entry: QueueEntry) -> Delete:
    """Return what removes an entry of a queue, if it is still that request's."""
    return Delete(
        place_key(queue.tier, queue.tenant_id, entry.place),
        (Is("request_id", entry.request_id),),
    )


def forget_queue(queue: TenantQueue) -> Delete:
    """Return what removes a queue, if it is still as it was read."""
    return Delete(queue_key(queue.tier, queue.tenant_id), (Is("revision", queue.revision),))


def parked_under(policy: Policy, month: str, parked: Parked) -> str:
    """Return the index key of a queue to park, which encodes what must change before it can start anything."""
    tenant_id = parked.queue.tenant_id
    if parked.needs_usd is not None:
        return f"needs-budget|{_present(policy, month)}|{_millionths(parked.needs_usd)}|{tenant_id}"
    return f"parked|{_present(policy, month)}|{_turn_of(tenant_id)}|{tenant_id}"


# --- reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantQueues:
    """The tenant queues as they are now."""

    store: Store

    def get(self, tier: str, tenant_id: str) -> TenantQueue:
        (item,) = self.store.get(queue_key(tier, tenant_id))
        return queue_in(item, tier, tenant_id)

    def get_all(self, owners: Iterable[tuple[str, str]]) -> list[TenantQueue]:
        """Return the existing queues of some tiers and tenants."""
        items = read_items(self.store, (queue_key(*owner) for owner in owners))
        return [queue_from(item) for item in items.values() if item]

    def holding(self, tiers: Iterable[str]) -> list[HoldingQueue]:
        """Return the queues that hold slots; read consistently, so that none is missing."""
        return [
            HoldingQueue(item["tier"], item["tenant_id"], tuple(item["holders"]))
            for tier in tiers
            for item in listed(self.store, "holding", f"tier#{tier}")
        ]

    def any_urgent(self, tiers: Iterable[TierPolicy], now: datetime) -> bool:
        """Tell whether an urgent request waits in one of the queues that passes read first."""
        queues = (queue for tier in tiers for queue in self.first(tier, now)[0])
        return any(lane.endswith(URGENT) for queue in queues for lane in queue.profiles)

    def backlog(self, policy: Policy) -> dict[str, Backlog]:
        """Return tier → its backlog, due or not; reads every queue with waiting requests."""
        return {tier.name: self._backlog(tier, policy) for tier in policy.tiers}

    def _backlog(self, tier: TierPolicy, policy: Policy) -> Backlog:
        items = listed(self.store, "ready", f"tier#{tier.name}")
        queues = {queue.tenant_id: queue for queue in map(queue_from, items)}.values()
        heads = [e.arrived_at for queue in queues for p in queue.profiles.values() for e in p.head_entries]
        reasons = [queue.parked_for for queue in queues if queue.parked_for]
        return Backlog(
            waiting=sum(queue.waiting for queue in queues),
            oldest_arrived_at=min(heads, default=None),
            weight=sum(policy.tenant(queue.tenant_id).weight for queue in queues),
            parked={reason: reasons.count(reason) for reason in sorted(set(reasons))},
            paused=tuple(sorted(queue.tenant_id for queue in queues if queue.paused)),
        )

    def set_aside(self, tier: str, *, limit: int) -> list[TenantQueue]:
        """Return queues of a tier that passes skip, at most `limit`: those parked or paused."""
        items = listed(
            self.store, "ready", f"tier#{tier}", above="needs-budget|", below="postponed|", page=limit + 1
        )
        queues = {queue.tenant_id: queue for queue in map(queue_from, islice(items, limit))}
        return list(queues.values())

    # --- the queues that a pass reads -----------------------------------------------------------------------

    def first(self, tier: TierPolicy, now: datetime) -> tuple[list[TenantQueue], bool]:
        """Return the queues that a pass must consider, and whether they are all waiting queues of the tier.

        When few wait, one read finds all. When many do, a bounded number of each profile is read in the order of
        their start tags; as many as can hold slots may come first and be unable to go, hence the limit.
        """
        limit = max(PAGE_MIN, tier.slots_max + PAGE_MIN // 2)
        partition = f"tier#{tier.name}"
        page = self.store.query("ready", partition, above="postponed|", below="ready|~", limit=limit)
        items, complete = page.items, page.complete
        if not complete:
            # `postponed` sorts before `ready`: overdue queues at its end could fill the page and hide the others.
            if not items or not items[0]["ready"].startswith("ready|"):
                self._file_the_due(partition, now)
            items, complete = self._first_of_each_profile(partition, limit)
        # A copy may be older than its queue, since a query is no snapshot: the highest revision counts.
        newest_first = sorted(map(queue_from, items), key=lambda queue: -queue.revision)
        by_tenant: dict[str, TenantQueue] = {}
        for queue in newest_first:
            by_tenant.setdefault(queue.tenant_id, queue)
        return [by_tenant[tenant_id] for tenant_id in sorted(by_tenant)], complete

    def _first_of_each_profile(self, partition: str, limit: int) -> tuple[list[Item], bool]:
        """Return the first queues that are due of each profile, at most `limit` of each, and whether they are
        all."""
        first: list[Item] = []
        above: str | None = "ready|"
        complete = True
        while above is not None:
            counts: dict[str, int] = {}
            # One more than may be taken of a profile: that there are more is seen without another query.
            items = listed(self.store, "ready", partition, above=above, below="ready|~", page=limit + 1)
            above = None
            for item in items:
                profile = item["ready"].split("|")[1]
                counts[profile] = counts.get(profile, 0) + 1
                if counts[profile] > limit:  # the rest of the profile is passed over
                    above, complete = f"ready|{profile}|~", False
                    break
                first.append(item)
        return first, complete

    def _file_the_due(self, partition: str, now: datetime) -> None:
        """File the queues that have become due under their start tags."""
        while True:
            page = self.store.query(
                "ready", partition, above="postponed|", below=f"postponed|{stamp(now)}~", limit=ACTIONS_MAX // 4
            )
            writes: list[Write] = []
            for queue in {item["tenant_id"]: queue_from(item) for item in page.items}.values():
                changes = refile(queue, queue, now)
                if fits_one_transaction([*writes, *changes]):
                    writes += changes
            # Together where they fit; the rest is found again by the next pass.
            if writes:
                self.store.transact(writes)
            if page.complete:
                return

    def to_unpark(self, policy: Policy, ledger: Ledger, month: str, now: datetime) -> list[TenantQueue]:
        """Return parked queues that may go again, a bounded number of each tier: those that were parked under
        another policy, other prices, in another month or before the limits changed, those for which their tier's
        budget has enough again, and some of all in turn, because a deployment may have changed the policy it ships
        with.
        """
        queues: dict[tuple[str, str], TenantQueue] = {}
        for tier in policy.tiers:
            partition = f"tier#{tier.name}"
            page = self.store.query("ready", partition, above="needs-budget|", below="parked|~", limit=1)
            if page.complete and not page.items:
                continue
            for above, below in _ranges_to_unpark(tier, policy, month, ledger, now):
                items = listed(self.store, "ready", partition, above=above, below=below, page=UNPARKED_MAX)
                for item in islice(items, UNPARKED_MAX):
                    queues[tier.name, item["tenant_id"]] = queue_from(item)
        return list(queues.values())

    # --- entries --------------------------------------------------------------------------------------------

    def first_request_ids(self, tier: str, tenant_id: str, *, limit: int) -> list[str]:
        """Return some of a tenant's waiting requests in a tier, by the names of their data sets."""
        items = listed(self.store, "scheduler", f"entries#{tier}#{tenant_id}", page=limit)
        return [item["request_id"] for item in islice(items, limit)]

    def entries(self, queue: TenantQueue, profile: str, *, limit: int) -> tuple[QueueEntry, ...]:
        """Return the first entries of a profile, in order."""
        partition = f"entries#{queue.tier}#{queue.tenant_id}"
        items = listed(self.store, "ready", partition, above=f"{profile}|", below=f"{profile}|~", page=limit)
        return tuple(map(entry_from, islice(items, limit))) or (queue.profiles[profile].head,)

    def without(self, queue: TenantQueue, *gone: QueueEntry) -> TenantQueue:
        """Return the queue without some entries of a profile; reads who is next where the queue does not say."""
        profile = gone[0].lane
        behind: list[QueueEntry] = []
        if profile not in queue.profiles or queue.profiles[profile].waiting < len(gone):
            raise Conflict("the queue and its entries were read at different times")
        if queue.profiles[profile].waiting > len(gone) and not staying(queue, gone):
            ids = {entry.request_id for entry in gone}
            first = self.entries(queue, profile, limit=len(gone) + HEAD_ENTRIES_MAX)
            behind = [entry for entry in first if entry.request_id not in ids]
            if not behind:
                raise Conflict("the queue moved while it was read")
        return left(queue, gone, behind)


def _entry_key(tier: str, tenant_id: str, name: str) -> Key:
    return Key("scheduler", (("pk", f"entries#{tier}#{tenant_id}"), ("sk", f"data_set#{name}")))


def _filings(queue: TenantQueue, now: datetime, parked_under: str | None) -> list[tuple[str, str]]:
    """Return profile and index key of each filing of a tenant queue; none while nothing waits in it."""
    if not queue.profiles:
        return []
    if queue.paused:
        return [("", f"paused|{queue.tenant_id}")]
    if parked_under is not None:
        return [("", parked_under)]
    return [(name, _filing(queue, name, now)) for name in sorted(queue.profiles)]


def _filing(queue: TenantQueue, lane: str, now: datetime) -> str:
    due_at, head = queue.profiles[lane].due_at, queue.profiles[lane].head
    if due_at > now:
        return f"postponed|{stamp(due_at)}|{lane}|{queue.tenant_id}"
    # Padded, so that the order of texts is the order of numbers.
    return f"ready|{lane}|{max(queue.service_ms, 0):020d}|{stamp(head.arrived_at)}|{queue.tenant_id}"


def _ranges_to_unpark(
    tier: TierPolicy, policy: Policy, month: str, ledger: Ledger, now: datetime
) -> Iterator[tuple[str, str]]:
    """Yield the index ranges of parked queues that may start something again."""
    present = _present(policy, month)
    for kind in ("parked", "needs-budget"):
        yield f"{kind}|", f"{kind}|{present}|"
        yield f"{kind}|{present}|~", f"{kind}|~"
    if tier.budget is None:
        yield f"needs-budget|{present}|", f"needs-budget|{present}|~"
    else:
        account = f"{month} {tier.name}"
        taken = ledger.spent_in.get(account, Decimal(0)) + ledger.reserved_in.get(account, Decimal(0))
        least = _millionths(tier.budget.limit_usd - taken)
        yield f"needs-budget|{present}|", f"needs-budget|{present}|{least}|~"
    turn = int(now.timestamp()) // 60 % 256
    yield f"parked|{present}|{turn:02x}|", f"parked|{present}|{turn:02x}|~"


def _present(policy: Policy, month: str) -> str:
    epoch = "" if policy.epoch is None else stamp(policy.epoch)
    return f"{policy.version:010d}|{policy.prices.version}|{month}|{epoch}"


def _turn_of(tenant_id: str) -> str:
    """Return in which of 256 minutes a tenant's queue is checked again, whatever has changed."""
    return hashlib.sha256(tenant_id.encode()).hexdigest()[:2]


def _millionths(usd: Decimal) -> str:
    return f"{max(int(usd.scaleb(6)), 0):015d}"
