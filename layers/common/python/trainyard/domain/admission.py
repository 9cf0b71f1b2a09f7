"""Admission: which waiting requests may start now, and why the others may not.

    decide(snapshot, policy) → Decision per request that was looked at

A slot goes to the tier below its quota that uses the least of it; inside a tier, to the tenant that holds
the fewest slots, then to the oldest arrival. Borrowing, fair queuing by time used, and saving for large
requests will join the rules here; nothing else admits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from trainyard.domain.policy import Policy, TierPolicy


class Verdict(StrEnum):
    ADMIT = "ADMIT"
    WAIT = "WAIT"


class Reason(StrEnum):
    """Why a request was admitted, or waits."""

    SLOT_FREE = "a slot is free"
    ACCOUNT_LIMIT = "all slots of the account are taken"
    TIER_QUOTA = "all slots of the tier are taken"
    TENANT_CAP = "the tenant runs as many as it may"
    ALL_PAUSED = "the service is paused"
    UNKNOWN_TIER = "the policy has no such tier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The count of taken slots."""

    version: int
    """Moves with every admission and pause, so that a decision holds only for what it was made on."""
    used: int
    used_by_tier: Mapping[str, int]
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRequest:
    """A request's place in its tenant's queue."""

    request_id: str
    data_set: str
    arrived_at: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantQueue:
    """The head of a tenant's queue, and the slots the tenant holds."""

    tenant_id: str
    tier: str
    revision: int
    """Moves with every change of the queue."""
    running: int
    waiting: tuple[WaitingRequest, ...]
    """Requests that are due, in order; no more of them than could be admitted at once."""
    next_up: WaitingRequest | None = None
    """The one behind them, due or not; None when there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What one dispatch pass read."""

    ledger: Ledger
    queues: tuple[TenantQueue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one waiting request, and why."""

    request: WaitingRequest
    queue: TenantQueue
    verdict: Verdict
    reason: Reason


class _Slots:
    """The slots in use while a pass hands out more; counts only upwards."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self._policy = policy
        self._paused = snapshot.ledger.paused
        self._used = snapshot.ledger.used
        self._by_tier = dict(snapshot.ledger.used_by_tier)
        self._by_tenant = {queue.tenant_id: queue.running for queue in snapshot.queues}

    def held_by(self, tenant_id: str) -> int:
        return self._by_tenant[tenant_id]

    def share_used(self, tier: TierPolicy) -> float:
        return self._by_tier.get(tier.name, 0) / tier.quota

    def reason_for(self, queue: TenantQueue) -> Reason:
        """Return SLOT_FREE, or the first limit that keeps the head of `queue` waiting."""
        tier = self._policy.tier(queue.tier)
        if self._paused:
            return Reason.ALL_PAUSED
        if tier is None:
            return Reason.UNKNOWN_TIER
        if self._used >= self._policy.running_max:
            return Reason.ACCOUNT_LIMIT
        if self._by_tier.get(tier.name, 0) >= tier.quota:
            return Reason.TIER_QUOTA
        if self._by_tenant[queue.tenant_id] >= tier.running_max_per_tenant:
            return Reason.TENANT_CAP
        return Reason.SLOT_FREE

    def take(self, queue: TenantQueue) -> None:
        self._used += 1
        self._by_tier[queue.tier] = self._by_tier.get(queue.tier, 0) + 1
        self._by_tenant[queue.tenant_id] += 1


def decide(snapshot: Snapshot, policy: Policy, *, admissions_max: int) -> list[Decision]:
    """Decide for every waiting request of the snapshot: admissions first, in order, then the waits.

    Admits at most `admissions_max`; one that fits but exceeds it simply waits for the next round, with the
    reason SLOT_FREE. Raises nothing: a limit that is already exceeded admits nobody.
    """
    slots = _Slots(snapshot, policy)
    pending = {queue.tenant_id: list(queue.waiting) for queue in snapshot.queues}
    admitted: list[Decision] = []
    while len(admitted) < admissions_max:
        queue = _next_queue(snapshot.queues, pending, slots, policy)
        if queue is None:
            break
        request = pending[queue.tenant_id].pop(0)
        slots.take(queue)
        admitted.append(Decision(request=request, queue=queue, verdict=Verdict.ADMIT, reason=Reason.SLOT_FREE))
    return admitted + [
        Decision(request=request, queue=queue, verdict=Verdict.WAIT, reason=slots.reason_for(queue))
        for queue in snapshot.queues
        for request in pending[queue.tenant_id]
    ]


def _next_queue(
    queues: Iterable[TenantQueue],
    pending: Mapping[str, list[WaitingRequest]],
    slots: _Slots,
    policy: Policy,
) -> TenantQueue | None:
    """Return the queue whose head goes next, or None when no head may go."""

    def order(queue: TenantQueue) -> tuple[float, int, datetime, str]:
        tier = policy.tier(queue.tier)
        assert tier is not None, "a queue of an unknown tier is never free to go"
        head = pending[queue.tenant_id][0]
        return (slots.share_used(tier), slots.held_by(queue.tenant_id), head.arrived_at, head.request_id)

    free = [q for q in queues if pending[q.tenant_id] and slots.reason_for(q) is Reason.SLOT_FREE]
    return min(free, key=order, default=None)
