"""Admission: which waiting requests may start now, and why the others may not.

    decide(snapshot, policy, now) → Plan

A free slot goes to
    1. a request for which instances are held, once they suffice;
    2. the tier below its quota that uses the smallest share of it;
    3. a tier that may borrow, as long as the slots guaranteed to others stay free;
    4. a tenant above its cap, up to its ceiling, if that leaves a slot free or its run is short;
and within a tier to the tenant queue with the smallest (band, tag, oldest arrival). Nothing else admits.
docs/admission.md has the reasons, the bounds and a worked example.
"""

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

from trainyard.domain.affordability import Affordability
from trainyard.domain.capacity_hold import CapacityHold, first_large
from trainyard.domain.executions import month_of
from trainyard.domain.fair_share import Candidate, entitlements
from trainyard.domain.policy import Policy, TierPolicy
from trainyard.domain.queues import URGENT_MAX, QueueEntry
from trainyard.domain.resources import INSTANCE_USAGES, SLOTS, is_ahead, tier_slots
from trainyard.domain.scheduling import (
    EXPEDITED_EVERY,
    Decision,
    Holder,
    Ledger,
    Plan,
    Reason,
    Snapshot,
    Verdict,
)
from trainyard.domain.start_rate import StartAllowance

ENGINE_VERSION = 5
"""Incremented whenever the same snapshot could be decided differently; a test replays recorded passes."""


def decide(snapshot: Snapshot, policy: Policy, now: datetime, *, admissions_max: int = 25) -> Plan:
    """Decide for every queue of the snapshot; admits at most `admissions_max`.

    Raises nothing: a limit that is already exceeded admits nobody.
    """
    allocator = _Allocator(snapshot, policy, now)
    admitted: list[Decision] = []
    while len(admitted) < admissions_max:
        decision = allocator.next()
        if decision is None:
            break
        allocator.take(decision)
        admitted.append(decision)
    return Plan(
        admissions=tuple(admitted),
        waits=tuple(allocator.waits()),
        virtual_time_by_tier=allocator.floors(),
        capacity_holds=allocator.capacity_holds,
        starts_from=allocator.starts.since,
        month=allocator.month,
        again_at=allocator.again_at(),
    )


REASON_OF_LIMIT = {
    **dict.fromkeys(INSTANCE_USAGES, Reason.INSTANCE_QUOTA),
    "after": Reason.LOWER_LIMIT_AHEAD,
}
"""Kind of a counted resource → why a request waits when all of it is taken."""


_UNAFFORDABLE = frozenset({Reason.BUDGET, Reason.TIER_BUDGET})


class _Allocator:
    """The slots and instances in use while a pass hands out more; counts only upwards."""

    def __init__(self, snapshot: Snapshot, policy: Policy, now: datetime) -> None:
        self.policy, self.now, self.ledger = policy, now, snapshot.ledger
        ledger = snapshot.ledger
        self.used = {SLOTS: 0} | dict(ledger.usage)
        self.capacity = _capacity(ledger, policy, now)
        self.served = dict(ledger.served_by_tier)
        self.starts = StartAllowance(ledger, policy, now)
        self.month = max(ledger.month, month_of(now))
        committed = {tier.name: _committed(ledger, tier.name, self.month) for tier in policy.tiers}
        self.affordability = Affordability(policy, committed)
        self.candidates = [
            Candidate(waiting, tier, policy, now, self.month)
            for waiting in snapshot.queues
            if (tier := policy.tier(waiting.queue.tier)) is not None
        ]
        self.unknown = [w for w in snapshot.queues if policy.tier(w.queue.tier) is None]
        self.tags = dict(ledger.virtual_time_by_tier)
        self.partial = snapshot.partial
        self.expedited, self.since_expedited = dict(snapshot.expedited), dict(ledger.since_expedited)
        for tier in policy.tiers:
            self._entitle(tier)
        self.holds = self._capacity_holds(snapshot.holders)
        self.capacity_holds = {resource: hold.entry.request_id for resource, hold in self.holds.items()}
        if self._closed() in (Reason.ALL_PAUSED, Reason.ACCOUNT_LIMIT):
            self.capacity_holds = dict(ledger.capacity_holds)  # nothing was read that could change it

    # --- who goes next --------------------------------------------------------------------------------------

    def next(self) -> Decision | None:
        """Return the next admission, or None when nothing may be admitted."""
        if self._closed() is not None:
            return None
        below = [tier for tier in self.policy.tiers if self._taken(tier) < tier.quota and not self._shut(tier)]
        # 1. A request for which instances are held, as soon as they are free.
        for hold in self.holds.values():
            if hold.candidate.tier in below and self._obstacle(hold.candidate, hold.entry) is None:
                return self._admission(hold.candidate, hold.entry)
        # 2. A tier below its quota, the one with the lowest share of it in use first.
        for tier in sorted(below, key=self._need):
            picked = self._first(tier)
            if picked is not None:
                return picked
        # 3. A tier that borrows.
        borrowing = [tier for tier in self.policy.tiers if self._may_borrow(tier)]
        for tier in sorted(borrowing, key=self._need):
            picked = self._first(tier, borrowed=True)
            if picked is not None:
                return picked
        # 4. A tenant above its cap; tiers in the same order.
        return self._above_cap(below, borrowing)

    def _above_cap(self, below: list[TierPolicy], borrowing: list[TierPolicy]) -> Decision | None:
        """Return an admission above its tenant's cap, which nobody below a cap could have instead."""
        # A request below its cap may wait among those that were not read.
        if any(tier.name in self.partial for tier in (*below, *borrowing)):
            return None
        for tiers, borrowed in ((below, False), (borrowing, True)):
            for tier in sorted(tiers, key=self._need):
                picked = self._first(tier, borrowed=borrowed, above_cap=True)
                if picked is not None:
                    return picked
        return None

    def _may_borrow(self, tier: TierPolicy) -> bool:
        """Tell whether a tier may take a slot above its quota: those guaranteed to other tiers stay free."""
        above_quota = tier.quota <= self._taken(tier) < tier.slots_max
        return above_quota and not self._shut(tier) and self._to_borrow(tier) >= 1

    def _leaves_one_free(self, tier: TierPolicy) -> bool:
        """Tell whether, after one more admission, a slot is still free of the account and of the tier."""
        free = self.capacity[SLOTS] - self.used[SLOTS]
        return min(free, tier.slots_max - self._taken(tier)) > 1

    def _to_borrow(self, borrower: TierPolicy) -> int:
        """Return the free slots that are not guaranteed to another tier."""
        free = self.capacity[SLOTS] - self.used[SLOTS]
        return free - sum(self._reserve(tier) for tier in self.policy.tiers if tier is not borrower)

    def _reserve(self, tier: TierPolicy) -> int:
        """Return the idle slots of a tier that it does not lend."""
        # Whoever could use the others has had them: tiers below their quota are asked before any that borrows.
        return max(tier.quota - self._taken(tier) - tier.lending_limit, 0)

    def _need(self, tier: TierPolicy) -> tuple[float, int, str]:
        """Return the sort key of a tier: the used share of its quota, then the time of its last admission."""
        return (self._taken(tier) / tier.quota, self.served.get(tier.name, -1), tier.name)

    def _first(self, tier: TierPolicy, *, borrowed: bool = False, above_cap: bool = False) -> Decision | None:
        """Return the admission of the tier's first queue that can start a request, or of what is expedited."""
        if not above_cap and (chosen := self._expedited(tier)) is not None:
            return self._admission(*chosen, borrowed=borrowed, expedited=True)
        head = self._head_above_cap if above_cap else self._head
        best: tuple[tuple[int, int, datetime, str], Candidate, QueueEntry] | None = None
        for candidate in self._of(tier):
            entries = [entry for name in candidate.entries if (entry := head(candidate, name)) is not None]
            if entries:
                entry = candidate.next_of(entries, self.now)
                key = (candidate.band, candidate.start_tag, entry.arrived_at, candidate.queue.tenant_id)
                if best is None or key < best[0]:
                    best = (key, candidate, entry)
        return None if best is None else self._admission(*best[1:], borrowed=borrowed, above_cap=above_cap)

    def _expedited(self, tier: TierPolicy) -> tuple[Candidate, QueueEntry] | None:
        """Return the request that is put first in a tier, if it may go and it is time for one."""
        request_id = self.expedited.get(tier.name)
        turn = self.since_expedited.get(tier.name, EXPEDITED_EVERY) >= EXPEDITED_EVERY - 1
        for candidate in self._of(tier) if turn and request_id else ():
            for entry in (entry for entries in candidate.entries.values() for entry in entries):
                if entry.request_id == request_id and self._obstacle(candidate, entry) is None:
                    return candidate, entry
        return None

    def _head(self, candidate: Candidate, profile: str) -> QueueEntry | None:
        """Return the first entry of a lane if it may be admitted."""
        entry = candidate.head(profile, self.now)
        return None if entry is None or self._obstacle(candidate, entry) is not None else entry

    def _head_above_cap(self, candidate: Candidate, profile: str) -> QueueEntry | None:
        """Return the first entry of a lane if it may be admitted although its tenant has reached its cap."""
        entry = candidate.head(profile, self.now)
        if entry is None or candidate.running < candidate.cap:
            return None
        if not entry.is_short and not self._leaves_one_free(candidate.tier):
            return None
        if entry.request_id in self.capacity_holds.values() or self._obstacle(candidate, entry, above_cap=True):
            return None
        return entry

    # --- what is in the way ---------------------------------------------------------------------------------

    def _closed(self) -> Reason | None:
        """Return why nothing at all may be admitted, or None."""
        if self.ledger.paused:
            return Reason.ALL_PAUSED
        if self.used[SLOTS] >= self.capacity[SLOTS]:
            return Reason.ACCOUNT_LIMIT
        return Reason.START_RATE if self.starts.used_up else None

    def _shut(self, tier: TierPolicy) -> Reason | None:
        """Return why nothing of a tier may be admitted, whatever is free, or None."""
        if tier.name in self.ledger.paused_tiers:
            return Reason.TIER_PAUSED
        return Reason.TIER_CLOSED if tier.closed else None

    def _obstacle(self, candidate: Candidate, entry: QueueEntry, *, above_cap: bool = False) -> Reason | None:
        """Return why an entry cannot be admitted, apart from its tier's slots, or None."""
        reason = self._own_obstacle(candidate, entry, above_cap=above_cap)
        if reason is not None:
            return reason
        exceeded = self._exceeded(candidate, entry)
        if exceeded is not None:
            return REASON_OF_LIMIT[exceeded.partition("/")[0]]
        if not all(hold.allows(*self._taking(candidate, entry)) for hold in self._others(entry)):
            return Reason.CAPACITY_HOLD
        return None

    def _exceeded(self, candidate: Candidate, entry: QueueEntry) -> str | None:
        """Return a resource of which an entry needs more than is free, or None; `next` shares the slots."""
        shared = (SLOTS, tier_slots(candidate.tier.name))
        for resource, need in self._taking(candidate, entry)[0].items():
            free = self.capacity.get(resource, math.inf) - self.used.get(resource, 0)
            if need > free and resource not in shared:
                return resource
        return None

    def _own_obstacle(self, candidate: Candidate, entry: QueueEntry, *, above_cap: bool = False) -> Reason | None:
        """Return which of the tenant's own limits blocks an entry, or None; `above_cap` asks up to its ceiling."""
        if candidate.queue.paused:
            return Reason.TENANT_PAUSED
        if entry.due_at > self.now:
            return Reason.NOT_DUE
        profile = candidate.profiles[entry.lane]
        if self.policy.lacking(profile) is not None:
            return Reason.NEVER_FITS if self.policy.lacking(profile, ever=True) else Reason.NOT_AT_THIS_HOUR
        if candidate.running >= (candidate.ceiling if above_cap else candidate.cap):
            return Reason.TENANT_CAP
        return self.affordability.obstacle(candidate, entry)

    def _others(self, entry: QueueEntry) -> Iterator[CapacityHold]:
        """Yield the large requests that an admission must not delay: all or, for one of them, those before it."""
        for hold in self.holds.values():
            if hold.entry.request_id == entry.request_id:
                return
            yield hold

    def _taking(self, candidate: Candidate, entry: QueueEntry) -> tuple[dict[str, int], datetime]:
        """Return the resources that an admission takes, and the latest time at which it releases them."""
        profile = candidate.profiles[entry.lane]
        demand = profile.demand(candidate.tier.name, self._ahead(candidate, entry))
        return demand, self.now + profile.run_time(candidate.tier.runtime_max)

    def _ahead(self, candidate: Candidate, entry: QueueEntry) -> tuple[str, ...]:
        """Return what an admission takes after changes of the limits, if it lasts as long as nine of ten such runs
        at most.
        """
        if not self.policy.ahead:
            return ()
        tier, profile = candidate.tier, candidate.profiles[entry.lane]
        longest = profile.run_time(tier.runtime_max)
        late = timedelta(seconds=entry.seconds_p90) if entry.seconds_p90 else longest
        return self.policy.ahead_of(profile.demand(tier.name), self.now + late)

    # --- saving for large requests --------------------------------------------------------------------------

    def _capacity_holds(self, holders: tuple[Holder, ...]) -> dict[str, CapacityHold]:
        """Return instance pool → the large request that its instances are saved for."""
        holds: dict[str, CapacityHold] = {}
        for resource, large in self._large().items():
            candidate, entry = first_large(large, self.ledger.capacity_holds.get(resource))
            hold = CapacityHold(candidate, entry, self.capacity)
            hold.plan(self.used, holders, self.policy, self.now)
            holds[resource] = hold
        ranked = sorted(holds.items(), key=lambda item: (item[1].entry.arrived_at, item[1].entry.request_id))
        return dict(ranked)

    def _large(self) -> dict[str, list[tuple[Candidate, QueueEntry]]]:
        """Return instance pool → large requests that have waited long and that their own limits allow."""
        large: dict[str, list[tuple[Candidate, QueueEntry]]] = {}
        for candidate in self.candidates:
            for name in candidate.entries:
                pools = self.policy.pools_of_large(candidate.profiles[name])
                if pools:
                    entry = candidate.head(name, self.now)
                    assert entry is not None, "nothing has been admitted yet"
                    waited = self.now - entry.arrived_at > candidate.tier.hold_age
                    ahead = is_ahead(self._exceeded(candidate, entry) or "")
                    may = not ahead and self._own_obstacle(candidate, entry) is None
                    if waited and may and not self._shut(candidate.tier):
                        for pool in pools:
                            large.setdefault(pool, []).append((candidate, entry))
        return large

    # --- taking ---------------------------------------------------------------------------------------------

    def _admission(
        self,
        candidate: Candidate,
        entry: QueueEntry,
        *,
        borrowed: bool = False,
        above_cap: bool = False,
        expedited: bool = False,
    ) -> Decision:
        profile = candidate.profiles[entry.lane]
        accounts = self.affordability.accounts(candidate)
        reserved = self.affordability.reservation_for(candidate, entry, accounts)
        assert reserved is not None, "what cannot be afforded has an obstacle"
        demand = profile.instances_by_type
        return Decision(
            entry=entry,
            queue=candidate.queue,
            verdict=Verdict.ADMIT,
            reason=Reason.SLOT_FREE,
            reserved_usd=reserved.usd,
            runtime_max=reserved.runtime_max if accounts else None,
            charge=self.policy.charge(profile),
            ahead=self._ahead(candidate, entry),
            borrowed=borrowed,
            above_cap=above_cap,
            expedited=expedited,
            urgent=entry.is_urgent and not entry.is_hopeless(self.now),
            backfilled=any(set(demand) & set(hold.demand) for hold in self._others(entry)),
        )

    def take(self, decision: Decision) -> None:
        """Count an admission."""
        candidate = next(c for c in self.candidates if c.queue is decision.queue)
        entry = decision.entry
        candidate.entries[entry.lane].remove(entry)
        candidate.urgent_in_a_row = min(candidate.urgent_in_a_row + 1, URGENT_MAX) if decision.urgent else 0
        taken, ends_by = self._taking(candidate, entry)
        for name, units in taken.items():
            self.used[name] = self.used.get(name, 0) + units
        for hold in self._others(entry):
            hold.note(taken, ends_by)
        self.holds = {p: s for p, s in self.holds.items() if s.entry.request_id != entry.request_id}
        self.capacity_holds = {resource: hold.entry.request_id for resource, hold in self.holds.items()}
        candidate.running += 1
        self.affordability.take(candidate, decision.reserved_usd)
        tier = candidate.tier
        since = 0 if decision.expedited else self.since_expedited.get(tier.name, EXPEDITED_EVERY) + 1
        self.since_expedited[tier.name] = min(since, EXPEDITED_EVERY - 1)
        self.served[tier.name] = max(self.served.values(), default=self.ledger.admission_version) + 1
        self.tags[tier.name] = max(self.tags.get(tier.name, 0), candidate.start_tag)
        self.starts.take()
        if self._taken(tier) > tier.quota:
            self._entitle(tier)

    def _entitle(self, tier: TierPolicy) -> None:
        """Share the tier's slots among the queues that have requests to start; the others keep what they hold."""
        wanting = [c for c in self._of(tier) if not c.queue.paused]
        shares = {c.queue.tenant_id: (c.weight, c.cap) for c in wanting}
        slots = max(tier.quota, self._taken(tier) + 1)
        if tier.name in self.partial:
            weights = max(self.ledger.weight_by_tier.get(tier.name, 0), sum(w for w, _ in shares.values()))
            entitled = {name: min(cap, slots * weight / weights) for name, (weight, cap) in shares.items()}
        else:
            idle = self._taken(tier) - sum(c.running for c in wanting)
            entitled = entitlements(max(slots - idle, 0), shares)
        floor = self.ledger.virtual_time_by_tier.get(tier.name, 0)
        least = min((candidate.start_tag for candidate in wanting), default=0)
        for candidate in wanting:
            ahead = max(candidate.start_tag - max(least, floor), 0) * candidate.weight
            repaid = ahead / (tier.credit // timedelta(milliseconds=1))
            candidate.entitlement = max(entitled[candidate.queue.tenant_id] - repaid, 0.0)
            candidate.has_credit = candidate.start_tag < floor

    # --- what is told ---------------------------------------------------------------------------------------

    def waits(self) -> Iterator[Decision]:
        """Yield for each lane with waiting requests why it waits."""
        for candidate in self.candidates:
            for lane in candidate.entries:
                entry = candidate.head(lane, self.now)
                if entry is not None:
                    reason = self._reason(candidate, entry)
                    needs = (
                        self.affordability.needs_usd(candidate, entry) if reason in _UNAFFORDABLE else Decimal(0)
                    )
                    yield Decision(
                        entry=entry,
                        queue=candidate.queue,
                        verdict=Verdict.WAIT,
                        reason=reason,
                        reserved_usd=needs,
                        may_change=any(
                            self.affordability.is_cheaper(candidate, other, entry)
                            for other in candidate.entries[lane]
                            if other.is_urgent
                        ),
                    )
        for waiting in self.unknown:
            for places_left in waiting.entries.values():
                for entry in places_left[:1]:
                    yield Decision(
                        entry=entry, queue=waiting.queue, verdict=Verdict.WAIT, reason=Reason.UNKNOWN_TIER
                    )

    def _reason(self, candidate: Candidate, entry: QueueEntry) -> Reason:
        """Return the first reason why an entry waits, from the tenant's own limits to the account's."""
        tier = candidate.tier
        if self.ledger.paused:
            return Reason.ALL_PAUSED
        reason = self._own_obstacle(candidate, entry, above_cap=True) or self._shut(tier)
        if reason is not None:
            return reason
        if candidate.running >= candidate.cap:
            return Reason.ABOVE_CAP
        reason = self._obstacle(candidate, entry)
        if reason is not None:
            return reason
        closed = self._closed()
        if closed is not None:
            return closed
        if self._taken(tier) < tier.quota:
            return Reason.BATCH_FULL
        return Reason.TIER_QUOTA if self._taken(tier) >= tier.slots_max else Reason.NOTHING_TO_BORROW

    def floors(self) -> dict[str, int]:
        """Return tier → the least tag of those that wait and may go, or of what was admitted when nobody waits."""
        floors = dict(self.tags)
        before = self.ledger.virtual_time_by_tier
        for tier in self.policy.tiers:
            tags = [
                candidate.start_tag
                for candidate in self._of(tier)
                if any(
                    (entry := candidate.head(lane, self.now)) and self._own_obstacle(candidate, entry) is None
                    for lane in candidate.entries
                )
            ]
            if tags:
                floors[tier.name] = max(min(tags), before.get(tier.name, 0))
        return floors

    def again_at(self) -> datetime | None:
        """Return when the passing of time alone allows further admissions, or None."""
        lanes = [entries for c in self.candidates for entries in c.entries.values() if entries]
        times = [due for lane in lanes if (due := min(entry.due_at for entry in lane)) > self.now]
        if self._closed() is Reason.START_RATE and lanes:
            times.append(self.starts.again_at)
        return min(times, default=None)

    # --- parts ----------------------------------------------------------------------------------------------

    def _of(self, tier: TierPolicy) -> Iterator[Candidate]:
        return (candidate for candidate in self.candidates if candidate.tier is tier)

    def _taken(self, tier: TierPolicy) -> int:
        return self.used.get(tier_slots(tier.name), 0)


def _capacity(ledger: Ledger, policy: Policy, now: datetime) -> dict[str, int]:
    """Return the capacity of each resource."""
    slots = policy.running_max - ledger.unmanaged
    if ledger.throttled_until is not None and now < ledger.throttled_until and ledger.throttled_to is not None:
        slots = min(slots, ledger.throttled_to)
    return policy.limits | {SLOTS: slots} | {tier_slots(tier.name): tier.quota for tier in policy.tiers}


def _committed(ledger: Ledger, tier: str, month: str) -> Decimal:
    """Return what a tier has spent and reserved in a month."""
    name = f"{month} {tier}"
    return ledger.spent_in.get(name, Decimal(0)) + ledger.reserved_in.get(name, Decimal(0))
