"""Tenant queues: what a tenant has waiting and running in a tier, and what it has used.

A queue has a lane per set of instances that its requests need, so that a blocked request does not block those that
need other instances; and a second one for those of them that are urgent, by a deadline or a priority. Its tag
orders the queues of a tier (start-time fair queuing, Goyal et al. 1996):

    tag = used + (elapsed slot-milliseconds of what runs) / weight

Only time actually used counts. With estimates, long runs could take more than their share.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from trainyard.domain.deadlines import hopeless_after
from trainyard.domain.requests import Request

HEAD_ENTRIES_MAX = 40
"""Entries stored in the queue's own item, shared among its lanes: some 8 KB at most. A queue is written once
for each of its lanes, and a transaction takes 4 MB."""

URGENT = " urgent"
"""What the names of lanes end in whose requests have a deadline or a priority."""

URGENT_MAX = 3
"""After so many urgent requests in a row, the oldest of the other requests of a queue is next."""

_NEVER = datetime.max.replace(tzinfo=UTC)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def milliseconds(when: datetime) -> int:
    """Return the milliseconds since 1970."""
    return (when - _EPOCH) // _MILLISECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """A waiting request's place in its lane."""

    request_id: str
    data_set: str
    profile: str
    arrived_at: datetime
    due_at: datetime
    alone: bool = False
    job_seconds: int = 0
    """How long its longest job is expected to take; 0 where nobody knows."""
    usd_p90: Decimal | None = None
    """What nine of ten such runs cost at most, where that is known."""
    seconds_p90: int = 0
    """What nine of ten such runs take at most, from admission to end; 0 where nobody knows."""
    is_short: bool = False
    """Whether it may be relied on to end soon (`Estimate.is_short`)."""
    priority: int = 0
    """Among the requests of its tenant; the greatest first."""
    latest_start: datetime | None = None
    """When it must start to meet its deadline, with some margin; None without a deadline that can be met."""
    keeps_interval: bool = False
    """Whether its start is noted (`Request.keeps_interval`)."""
    hopeless_after: datetime | None = None
    """From then on it misses its deadline even if it takes no longer than expected."""

    @property
    def place(self) -> str:
        """The name of its place in the queue, which the newest upload of a data set takes."""
        return f"{self.data_set}#{self.request_id}" if self.alone else self.data_set

    @property
    def is_urgent(self) -> bool:
        """Whether it may go before older requests of its tenant."""
        return self.priority > 0 or self.latest_start is not None

    @property
    def lane(self) -> str:
        """The lane of its queue: its profile, and whether it is urgent."""
        return f"{self.profile}{URGENT}" if self.is_urgent else self.profile

    @property
    def order(self) -> tuple[int, datetime, datetime, str]:
        """The key by which the entries of a lane are sorted; frozen when it is enlisted."""
        if self.is_urgent:
            return (-self.priority, self.latest_start or _NEVER, self.arrived_at, self.request_id)
        return (0, self.due_at, self.arrived_at, self.request_id)

    def is_hopeless(self, now: datetime) -> bool:
        return self.hopeless_after is not None and now > self.hopeless_after


def entry_of(request: Request) -> QueueEntry:
    return QueueEntry(
        request_id=request.request_id,
        data_set=request.data_set,
        profile=request.profile,
        arrived_at=request.arrived_at,
        due_at=request.due_at,
        alone=request.alone,
        job_seconds=request.expected.job_seconds if request.expected else 0,
        usd_p90=request.expected.usd_p90 if request.expected else None,
        seconds_p90=request.expected.seconds_p90 if request.expected else 0,
        is_short=request.expected is not None and request.expected.is_short,
        priority=request.priority,
        latest_start=request.latest_start,
        keeps_interval=request.keeps_interval,
        hopeless_after=None if request.latest_start is None else hopeless_after(request),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileQueue:
    """How many requests wait in a lane, and the first of them.

    A few are stored in the queue's own item, so that the next one need not be read at each admission.
    """

    waiting: int
    head: QueueEntry
    behind: tuple[QueueEntry, ...] = ()
    """The entries right after the head, in order; all of them, or some."""

    @property
    def due_at(self) -> datetime:
        """When the first of the head entries is due."""
        return min(entry.due_at for entry in self.head_entries)

    @property
    def head_entries(self) -> tuple[QueueEntry, ...]:
        return (self.head, *self.behind)

    @property
    def whole(self) -> bool:
        """Whether the front is all that waits."""
        return len(self.head_entries) == self.waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantQueue:
    """A tenant's requests in a tier, with the data that admission needs."""

    tenant_id: str
    tier: str
    revision: int = 0
    """Incremented with every change."""
    holders: tuple[str, ...] = ()
    """The requests that hold a slot: written with the ledger in one transaction, so that all who hold one can be
    listed as they are, and no count has to rest on an index that lags."""
    service_ms: int = 0
    """Slot-milliseconds used by what has ended, each divided by the weight of its time; lifted to the least
    of the tier when the tenant comes back from nothing."""
    units: int = 0
    """Charged units of what runs."""
    units_since_ms: int = 0
    """Sum over what runs: units × time of admission."""
    month: str = ""
    """To which what follows belongs; it never goes back, whatever a clock says."""
    spent_usd: Decimal = Decimal(0)
    reserved_usd: Decimal = Decimal(0)
    warned: int = 0
    """The greatest threshold of its budget, in percent, that was published this month."""
    paused: bool = False
    parked_for: str | None = None
    """Why the whole queue is parked: passes do not read it until something changes."""
    urgent_in_a_row: int = 0
    """How many urgent requests were admitted since the last one that was not; counted up to URGENT_MAX."""
    profiles: Mapping[str, ProfileQueue] = field(default_factory=dict)

    @property
    def running(self) -> int:
        """Return the slots held."""
        return len(self.holders)

    @property
    def waiting(self) -> int:
        return sum(profile.waiting for profile in self.profiles.values())

    @property
    def at_rest(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.profiles and not self.holders

    def committed_usd(self, month: str) -> Decimal:
        """Return what is spent and reserved of a month, or of the queue's own if that is a later one."""
        return self.spent_usd + self.reserved_usd if month <= self.month or not self.month else Decimal(0)

    def start_tag(self, now: datetime, weight: int) -> int:
        """Return the slot-milliseconds per weight used until now, what runs included."""
        elapsed = max(self.units * milliseconds(now) - self.units_since_ms, 0)
        return self.service_ms + elapsed // weight


def lifted(queue: TenantQueue, virtual_time: int, credit: timedelta, now: datetime, weight: int) -> TenantQueue:
    """Return a queue whose start tag is at least the tier's virtual time minus a credit.

    A tenant that used less than its share comes first for a while; without the bound, one that always holds a
    single slot would save credit without end and could then keep all others waiting for as long.
    """
    missing = virtual_time - credit // _MILLISECOND - queue.start_tag(now, weight)
    return replace(queue, service_ms=queue.service_ms + missing) if missing > 0 else queue


def joined(queue: TenantQueue, entry: QueueEntry) -> TenantQueue:
    """Return the queue with one more place."""
    profile = queue.profiles.get(entry.lane)
    if profile is None:
        return _with_profile(queue, entry.lane, _profile_queue(1, [entry]))
    head_entries = list(profile.head_entries)
    if profile.whole or entry.order < head_entries[-1].order:
        head_entries = sorted([*head_entries, entry], key=lambda p: p.order)
    return _with_profile(queue, entry.lane, _profile_queue(profile.waiting + 1, head_entries))


def left(queue: TenantQueue, gone: Iterable[QueueEntry], rest: Iterable[QueueEntry] = ()) -> TenantQueue:
    """Return the queue without some places of one lane; `rest` holds the first that stay, in order, where the
    queue itself does not know them (`staying`).
    """
    entries = list(gone)
    name = entries[0].lane
    waiting = queue.profiles[name].waiting - len(entries)
    if waiting == 0:
        return _with_profile(queue, name, None)
    return _with_profile(queue, name, _profile_queue(waiting, staying(queue, entries) or list(rest)))


def staying(queue: TenantQueue, gone: Iterable[QueueEntry]) -> list[QueueEntry]:
    """Return the first places of a lane that stay when some are gone, as far as the queue itself knows them."""
    entries = list(gone)
    ids = {entry.request_id for entry in entries}
    return [entry for entry in queue.profiles[entries[0].lane].head_entries if entry.request_id not in ids]


def _profile_queue(waiting: int, head_entries: list[QueueEntry]) -> ProfileQueue:
    return ProfileQueue(waiting=waiting, head=head_entries[0], behind=tuple(head_entries[1:HEAD_ENTRIES_MAX]))


def in_month(queue: TenantQueue, month: str) -> TenantQueue:
    """Return the queue with the month turned; the same when its own is as late."""
    if month <= queue.month:
        return queue
    if not queue.month:  # written before budgets had months: what it holds counts in the first that comes
        return replace(queue, month=month)
    return replace(queue, month=month, spent_usd=Decimal(0), reserved_usd=Decimal(0), warned=0)


def holding(
    queue: TenantQueue,
    request_id: str,
    *,
    charge: int,
    reserved_usd: Decimal,
    admitted_at: datetime,
    month: str = "",
    urgent: bool = False,
) -> TenantQueue:
    """Return the queue with one more slot held, and its reservation booked in the month."""
    assert request_id not in queue.holders, "a request holds one slot"
    queue = in_month(queue, month)
    return replace(
        queue,
        holders=(*queue.holders, request_id),
        units=queue.units + charge,
        units_since_ms=queue.units_since_ms + charge * milliseconds(admitted_at),
        reserved_usd=queue.reserved_usd + reserved_usd,
        urgent_in_a_row=min(queue.urgent_in_a_row + 1, URGENT_MAX) if urgent else 0,
    )


def released(queue: TenantQueue, request: Request, now: datetime, *, weight: int, cost: Decimal) -> TenantQueue:
    """Return the queue with a slot given back, its time charged and its cost booked."""
    assert request.admitted_at is not None, "only what was admitted holds a slot"
    assert request.request_id in queue.holders, "only what holds a slot gives one back"
    since = milliseconds(request.admitted_at)
    used = max(milliseconds(now) - since, 0) * request.charge // weight
    queue = queue if queue.month else in_month(queue, request.month)
    if request.month == queue.month:
        queue = replace(
            queue,
            spent_usd=queue.spent_usd + cost,
            reserved_usd=queue.reserved_usd - request.reserved_usd,
        )
    return replace(
        queue,
        holders=tuple(holder for holder in queue.holders if holder != request.request_id),
        service_ms=queue.service_ms + used,
        units=queue.units - request.charge,
        units_since_ms=queue.units_since_ms - request.charge * since,
        parked_for=None,
    )


def rebuilt(queue: TenantQueue, holders: Iterable[Request]) -> TenantQueue:
    """Return the queue as it is when these requests, and no others, hold its slots."""
    held = list(holders)
    assert all(request.admitted_at is not None for request in held), "only what was admitted holds a slot"
    return replace(
        queue,
        holders=tuple(request.request_id for request in held),
        units=sum(request.charge for request in held),
        units_since_ms=sum(
            request.charge * milliseconds(request.admitted_at) for request in held if request.admitted_at
        ),
        reserved_usd=sum((r.reserved_usd for r in held if r.month == queue.month), Decimal(0)),
    )


def trimmed(queue: TenantQueue) -> TenantQueue:
    """Return the queue as it is kept: with so many places of each lane that all lanes together stay bounded."""
    each = max(HEAD_ENTRIES_MAX // max(len(queue.profiles), 1), 1)
    profiles = {
        name: replace(profile, behind=profile.behind[: each - 1]) for name, profile in queue.profiles.items()
    }
    return replace(queue, profiles=profiles)


def _with_profile(queue: TenantQueue, name: str, profile: ProfileQueue | None) -> TenantQueue:
    others = {other: profile_queue for other, profile_queue in queue.profiles.items() if other != name}
    return replace(queue, profiles=others | ({name: profile} if profile else {}))
