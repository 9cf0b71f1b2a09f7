"""Looking ahead: when waiting requests start, if runs take as long as assumed.

`decide`, which admits, is run repeatedly on a copy of the current state, with runs that end after assumed times.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.admission import decide
from trainyard.domain.policy import Policy
from trainyard.domain.queues import holding, left
from trainyard.domain.requests import Estimate
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.scheduling import Decision, Holder, Ledger, Snapshot, WaitingQueue

LOOKED_AHEAD = 400
"""Most rounds of admissions that are looked ahead."""

READ_AT_ONCE = 100
"""Requests that are read in one call."""

Durations = Callable[[str, str], timedelta]
"""Request and tier → how long its run is assumed to last."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What looking ahead found."""

    at: datetime | None
    """When it starts; None when nothing that is expected to happen lets it start."""
    before: list[str]
    """The tenants of the tier's requests that start before it, as far as was looked ahead."""


def look_ahead(
    snapshot: Snapshot, policy: Policy, now: datetime, request_id: str, tier: str, duration: Durations
) -> Ahead:
    """Return when a request of a tier starts if all runs take the given durations, and who starts before it."""
    before: list[str] = []
    for at, decision in admissions_ahead(snapshot, policy, now, duration):
        if decision.entry.request_id == request_id:
            return Ahead(at, before)
        if decision.queue.tier == tier:
            before.append(decision.queue.tenant_id)
    return Ahead(None, before)


def admissions_ahead(
    snapshot: Snapshot, policy: Policy, now: datetime, duration: Durations
) -> Iterator[tuple[datetime, Decision]]:
    """Yield the admissions to come in order, each with its time, if all runs take the given durations."""
    running = {
        holder.request_id: (
            max(now, holder.admitted_at + duration(holder.request_id, holder.tier))
            if holder.admitted_at is not None
            else holder.ends_by,
            holder,
        )
        for holder in snapshot.holders
    }
    for _ in range(LOOKED_AHEAD):
        policy = policy.at(now, snapshot.ledger.epoch)
        plan = decide(snapshot, policy, now)
        for decision in plan.admissions:
            yield now, decision
            holder = _holder(decision, policy, now)
            running[holder.request_id] = (now + duration(holder.request_id, holder.tier), holder)
        ledger = replace(
            snapshot.ledger, starts_from=plan.starts_from, virtual_time_by_tier=dict(plan.virtual_time_by_tier)
        )
        snapshot = _after(
            replace(snapshot, ledger=ledger), plan.admissions, plan.capacity_holds, policy, now, plan.month
        )
        if not any(entries for waiting in snapshot.queues for entries in waiting.entries.values()):
            return
        times = [end for end, _ in running.values()]
        times += [when for when in (plan.again_at, policy.changes_at) if when is not None]
        if not times:
            return
        now = max(now + timedelta(milliseconds=1), min(times))
        ended = [name for name, (end, _) in running.items() if end <= now]
        for name in ended:
            snapshot = _released(snapshot, running.pop(name)[1], policy)


def expected_runtimes(scheduler: Scheduler, snapshot: Snapshot) -> dict[str, Estimate]:
    """Return request → what its run is expected to take, of all that hold a slot or may come soon."""
    ids = [holder.request_id for holder in snapshot.holders]
    ids += [entry.request_id for w in snapshot.queues for entries in w.entries.values() for entry in entries]
    estimates: dict[str, Estimate] = {}
    for begin in range(0, min(len(ids), LOOKED_AHEAD), READ_AT_ONCE):
        part = scheduler.tables.requests.get_all(list(dict.fromkeys(ids[begin : begin + READ_AT_ONCE])))
        estimates |= {request.request_id: request.expected for request in part if request.expected}
    return estimates


def _after(
    snapshot: Snapshot,
    admissions: Sequence[Decision],
    capacity_holds: Mapping[str, str],
    policy: Policy,
    now: datetime,
    month: str,
) -> Snapshot:
    """Return the snapshot after some admissions."""
    ledger, holders = snapshot.ledger, list(snapshot.holders)
    queues = {(w.queue.tier, w.queue.tenant_id): w for w in snapshot.queues}
    for decision in admissions:
        key = (decision.queue.tier, decision.queue.tenant_id)
        queues[key] = _without(queues[key], decision, now, month)
        account = f"{month} {decision.queue.tier}"
        reserved = dict(ledger.reserved_in)
        reserved[account] = reserved.get(account, Decimal(0)) + decision.reserved_usd
        ledger = replace(ledger, month=month, reserved_in=reserved)
        holder = _holder(decision, policy, now)
        holders.append(holder)
        ledger = _counted(ledger, holder, 1)
        ledger = replace(ledger, admission_version=ledger.admission_version + 1)
        ledger = replace(
            ledger, served_by_tier=dict(ledger.served_by_tier) | {decision.queue.tier: ledger.admission_version}
        )
    still_waiting = tuple(waiting for waiting in queues.values() if waiting.queue.profiles)
    return replace(
        snapshot,
        ledger=replace(ledger, capacity_holds=capacity_holds),
        queues=still_waiting,
        holders=tuple(holders),
    )


def _without(waiting: WaitingQueue, decision: Decision, now: datetime, month: str) -> WaitingQueue:
    lane = decision.entry.lane
    rest = tuple(p for p in waiting.entries[lane] if p.request_id != decision.entry.request_id)
    if rest:
        queue = left(waiting.queue, [decision.entry], rest)
    else:
        others = {name: profile_queue for name, profile_queue in waiting.queue.profiles.items() if name != lane}
        queue = replace(waiting.queue, profiles=others)
    held = holding(
        queue,
        decision.entry.request_id,
        charge=decision.charge,
        reserved_usd=decision.reserved_usd,
        admitted_at=now,
        month=month,
        urgent=decision.urgent,
    )
    return WaitingQueue(queue=held, entries=dict(waiting.entries) | {lane: rest})


def _released(snapshot: Snapshot, holder: Holder, policy: Policy) -> Snapshot:
    """Return the snapshot after the end of a run; its tenant's fair share is left unchanged."""
    queues = tuple(
        replace(w, queue=replace(w.queue, holders=tuple(h for h in w.queue.holders if h != holder.request_id)))
        if w.queue.tier == holder.tier and holder.tenant_id == w.queue.tenant_id
        else w
        for w in snapshot.queues
    )
    return replace(
        snapshot,
        ledger=_counted(snapshot.ledger, holder, -1),
        queues=queues,
        holders=tuple(other for other in snapshot.holders if other.request_id != holder.request_id),
    )


def _counted(ledger: Ledger, holder: Holder, by: int) -> Ledger:
    usage = Counter(ledger.usage)
    for resource, units in ResourceProfile.parse(holder.profile).demand(holder.tier, holder.ahead).items():
        usage[resource] += by * units
    return replace(ledger, usage=usage)


def _holder(decision: Decision, policy: Policy, now: datetime) -> Holder:
    tier = policy.tier(decision.queue.tier)
    assert tier is not None, "decide admits only tiers of the policy"
    return Holder(
        request_id=decision.entry.request_id,
        tenant_id=decision.queue.tenant_id,
        tier=decision.queue.tier,
        profile=decision.entry.profile,
        ahead=decision.ahead,
        ends_by=now + tier.run_time_max,
        admitted_at=now,
    )
