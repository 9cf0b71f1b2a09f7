"""Explain: why a request waits, who is before it, and when it can be expected to start.

The same decide that admits is asked again and again, on a copy of what waits, with runs that end after as long
as they are expected to: by the shortest and by the longest that is likely.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from trainyard.application.policies import Policies
from trainyard.application.waiting_room import WaitingRoom
from trainyard.domain.admission import Decision, Holder, Ledger, Reason, Snapshot, WaitingQueue, decide
from trainyard.domain.errors import Refused
from trainyard.domain.policy import Lane, Policy
from trainyard.domain.queues import TenantQueue, holding, left
from trainyard.domain.requests import Request, State

LOOKED_AHEAD = 400
"""Admissions that are looked ahead at most."""

TENANTS_ASKED = 5
"""Tenants of a tier whose last runs tell how long runs take."""

CURES = {
    Reason.SLOT_FREE: "nothing: the next pass admits it",
    Reason.BATCH_FULL: "nothing: the next pass admits it",
    Reason.NOT_DUE: "time, or nothing else: more uploads of the data set prolong it up to the maximum delay",
    Reason.TURN: "the requests before it",
    Reason.ACCOUNT_LIMIT: "any run that ends; or a greater running_max and SageMaker quota",
    Reason.TIER_QUOTA: "a run of the tier that ends; or a greater quota or borrowing_limit",
    Reason.NOTHING_TO_BORROW: "a run of the tier that ends, or a tier with less to do; or a greater lending_limit",
    Reason.TENANT_CAP: "a run of the tenant that ends; or a greater running_max for it",
    Reason.TENANT_PAUSED: "trainyard resume tenant",
    Reason.TIER_PAUSED: "trainyard resume tier",
    Reason.ALL_PAUSED: "trainyard resume all",
    Reason.BUDGET: "a greater budget_usd, or a run of the tenant that ends below what it reserved",
    Reason.INSTANCE_QUOTA: "a run on such instances that ends; or a greater instance quota",
    Reason.NEVER_FITS: "a greater instance quota in the policy: as it is, it never can start",
    Reason.SAVED_FOR_LARGE: "the large request that instances are being saved for",
    Reason.MAINTENANCE: "the end of the maintenance window",
    Reason.START_RATE: "time: starts are spread by starts_per_second",
    Reason.UNKNOWN_TIER: "a policy with that tier",
}
"""Reason → what would let the request go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    request: Request
    reason: Reason | None
    """None when it does not wait."""
    cure: str
    position: int | None
    """How many requests of its tier are expected to start before it, plus one; None when that is not known."""
    ahead: tuple[str, ...]
    """The tenants of the first of them."""
    earliest: datetime | None
    latest: datetime | None
    """When it can be expected to start; None when nothing that is under way lets it go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    policies: Policies
    waiting_room: WaitingRoom

    def why(self, request_id: str, now: datetime) -> Explanation:
        """Explain one request; raises Refused when there is none of that id."""
        request = self.waiting_room.get(request_id)
        if request is None:
            raise Refused(f"there is no request {request_id!r}; `trainyard requests TENANT` shows them")
        if request.state is not State.QUEUED:
            return _not_waiting(request)
        policy = self.policies.current()
        snapshot = self._snapshot(request, policy, now)
        reason = self._reason(request, snapshot, policy, now)
        soon, late = self._durations(snapshot, policy)
        first = look_ahead(snapshot, policy, now, request_id, soon)
        last = look_ahead(snapshot, policy, now, request_id, late)
        return Explanation(
            request=request,
            reason=reason,
            cure=CURES[reason],
            position=None if last is None else len(last.before) + 1,
            ahead=() if last is None else tuple(last.before[:5]),
            earliest=first.at if first else None,
            latest=last.at if last else None,
        )

    def _snapshot(self, request: Request, policy: Policy, now: datetime) -> Snapshot:
        """Return all that may come before the request: its own queue too, even if no pass looks at it."""
        snapshot = self.waiting_room.overview(policy, now)
        if not any(_is_of(waiting.queue, request) for waiting in snapshot.queues):
            own = self.waiting_room.waiting_queue(request.tier, request.tenant_id)
            snapshot = replace(snapshot, queues=(*snapshot.queues, own))
        return snapshot

    def _reason(self, request: Request, snapshot: Snapshot, policy: Policy, now: datetime) -> Reason:
        plan = decide(snapshot, policy, now)
        if any(decision.place.request_id == request.request_id for decision in plan.admissions):
            return Reason.SLOT_FREE
        if request.due_at > now:
            return Reason.NOT_DUE
        own = [d for d in plan.waits if _is_of(d.queue, request) and d.place.lane == request.lane]
        blocking = next((d.reason for d in own), Reason.TURN)
        first = any(d.place.request_id == request.request_id for d in own)
        lasting = blocking not in (Reason.BATCH_FULL, Reason.SLOT_FREE)
        return blocking if first or lasting else Reason.TURN

    def _durations(self, snapshot: Snapshot, policy: Policy) -> tuple[dict[str, timedelta], dict[str, timedelta]]:
        """Return tier → a short run and tier → a long one: a quarter and nine tenths of those that its tenants
        had lately were shorter. Where too few are known: a quarter of the longest possible, and that itself.
        """
        longest = {tier.name: tier.run_time_max for tier in policy.tiers}
        seen = {name: self._seen(name, snapshot) for name in longest}
        short = {name: _quantile(seen.get(name, []), 0.25, longest[name] / 4) for name in longest}
        long = {name: _quantile(seen.get(name, []), 0.9, longest[name]) for name in longest}
        return short, long

    def _seen(self, tier: str, snapshot: Snapshot) -> list[timedelta]:
        """Return how long the last runs of some of a tier's tenants took."""
        names = [holder.tenant_id for holder in snapshot.holders if holder.tier == tier]
        names += [waiting.queue.tenant_id for waiting in snapshot.queues if waiting.queue.tier == tier]
        recent = [
            request
            for tenant_id in list(dict.fromkeys(names))[:TENANTS_ASKED]
            for request in self.waiting_room.recent_of_tenant(tenant_id, limit=20)
        ]
        return [r.finished_at - r.admitted_at for r in recent if r.finished_at and r.admitted_at]


@dataclass(frozen=True, slots=True)
class Ahead:
    """What looking ahead found."""

    at: datetime
    before: list[str]
    """The tenants of the tier's requests that start before it."""


def look_ahead(
    snapshot: Snapshot, policy: Policy, now: datetime, request_id: str, durations: Mapping[str, timedelta]
) -> Ahead | None:
    """Return when a request starts if all runs last `durations` (tier → time), or None when it does not."""
    running = {
        holder.request_id: (max(now, holder.ends_by - _longest(holder, policy) + durations[holder.tier]), holder)
        for holder in snapshot.holders
        if holder.tier in durations
    }
    before: list[str] = []
    tier = next(
        (
            w.queue.tier
            for w in snapshot.queues
            for ps in w.places.values()
            for p in ps
            if p.request_id == request_id
        ),
        None,
    )
    for _ in range(LOOKED_AHEAD):
        plan = decide(snapshot, policy, now)
        for decision in plan.admissions:
            if decision.place.request_id == request_id:
                return Ahead(now, before)
            if decision.queue.tier == tier:
                before.append(decision.queue.tenant_id)
            holder = _holder(decision, policy, now)
            running[holder.request_id] = (now + durations[decision.queue.tier], holder)
        ledger = replace(snapshot.ledger, starts_from=plan.starts_from, floor_by_tier=dict(plan.floor_by_tier))
        snapshot = _after(replace(snapshot, ledger=ledger), plan.admissions, plan.saved, policy, now)
        times = [end for end, _ in running.values()] + ([plan.again_at] if plan.again_at else [])
        if not times:
            return None
        now = max(now + timedelta(milliseconds=1), min(times))
        ended = [name for name, (end, _) in running.items() if end <= now]
        for name in ended:
            snapshot = _released(snapshot, running.pop(name)[1], policy)
    return None


def _after(
    snapshot: Snapshot,
    admissions: Sequence[Decision],
    saved: Mapping[str, str],
    policy: Policy,
    now: datetime,
) -> Snapshot:
    """Return what a snapshot is once some were admitted."""
    ledger, holders = snapshot.ledger, list(snapshot.holders)
    queues = {(w.queue.tier, w.queue.tenant_id): w for w in snapshot.queues}
    for decision in admissions:
        key = (decision.queue.tier, decision.queue.tenant_id)
        queues[key] = _without(queues[key], decision, now)
        holder = _holder(decision, policy, now)
        holders.append(holder)
        ledger = _counted(ledger, holder, 1)
        ledger = replace(ledger, version=ledger.version + 1)
        ledger = replace(
            ledger, served_by_tier=dict(ledger.served_by_tier) | {decision.queue.tier: ledger.version}
        )
    kept = tuple(waiting for waiting in queues.values() if waiting.queue.lanes)
    return replace(snapshot, ledger=replace(ledger, saved=saved), queues=kept, holders=tuple(holders))


def _without(waiting: WaitingQueue, decision: Decision, now: datetime) -> WaitingQueue:
    lane = decision.place.lane
    rest = tuple(p for p in waiting.places[lane] if p.request_id != decision.place.request_id)
    if rest:
        queue = left(waiting.queue, [decision.place], rest)
    else:
        others = {name: known for name, known in waiting.queue.lanes.items() if name != lane}
        queue = replace(waiting.queue, lanes=others)
    held = holding(queue, charge=decision.charge, reserved_usd=decision.reserved_usd, admitted_at=now)
    return WaitingQueue(queue=held, places=dict(waiting.places) | {lane: rest})


def _released(snapshot: Snapshot, holder: Holder, policy: Policy) -> Snapshot:
    """Return what a snapshot is once a run has ended; the fair shares of its tenant are left as they are."""
    queues = tuple(
        replace(w, queue=replace(w.queue, running=max(w.queue.running - 1, 0)))
        if w.queue.tier == holder.tier and holder.tenant_id == w.queue.tenant_id
        else w
        for w in snapshot.queues
    )
    return replace(
        snapshot,
        ledger=_counted(snapshot.ledger, holder, -1),
        queues=queues,
        holders=tuple(known for known in snapshot.holders if known.request_id != holder.request_id),
    )


def _counted(ledger: Ledger, holder: Holder, by: int) -> Ledger:
    tiers = dict(ledger.used_by_tier)
    tiers[holder.tier] = tiers.get(holder.tier, 0) + by
    pools = dict(ledger.used_by_pool)
    for pool, units in Lane.parse(holder.lane).demand.items():
        pools[pool] = pools.get(pool, 0) + by * units
    return replace(ledger, used=ledger.used + by, used_by_tier=tiers, used_by_pool=pools)


def _holder(decision: Decision, policy: Policy, now: datetime) -> Holder:
    tier = policy.tier(decision.queue.tier)
    assert tier is not None, "decide admits only tiers of the policy"
    return Holder(
        request_id=decision.place.request_id,
        tenant_id=decision.queue.tenant_id,
        tier=decision.queue.tier,
        lane=decision.place.lane,
        ends_by=now + tier.run_time_max,
    )


def _longest(holder: Holder, policy: Policy) -> timedelta:
    tier = policy.tier(holder.tier)
    return tier.run_time_max if tier else timedelta(0)


def _is_of(queue: TenantQueue, request: Request) -> bool:
    return (queue.tier, queue.tenant_id) == (request.tier, request.tenant_id)


def _quantile(seen: Sequence[timedelta], share: float, otherwise: timedelta) -> timedelta:
    """Return a quantile of what was seen; `otherwise` when that is too little."""
    ordered = sorted(seen)
    return ordered[int(share * (len(ordered) - 1))] if len(ordered) >= 5 else otherwise


def _not_waiting(request: Request) -> Explanation:
    return Explanation(request=request, reason=None, cure="", position=None, ahead=(), earliest=None, latest=None)
