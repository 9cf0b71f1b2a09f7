"""Fair share: what each tenant of a tier is entitled to, and which of them is next."""

import math
from collections.abc import Mapping
from datetime import datetime

from trainyard.domain.budgets import Account
from trainyard.domain.policy import Policy, TierPolicy
from trainyard.domain.queues import URGENT, URGENT_MAX, QueueEntry
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.scheduling import WaitingQueue


def entitlements(slots: float, shares: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """Return tenant → slots, shared by weight; what a cap leaves goes to the others (water-filling).

    `shares` is tenant → (weight, cap).
    """
    entitled: dict[str, float] = {}
    remaining, weights = slots, sum(weight for weight, _ in shares.values())
    for tenant_id, (weight, cap) in sorted(shares.items(), key=lambda item: item[1][1] / item[1][0]):
        share = min(float(cap), remaining * weight / weights) if weights else 0.0
        entitled[tenant_id] = share
        remaining, weights = remaining - share, weights - weight
    return entitled


class Candidate:
    """A tenant queue while a pass hands out slots."""

    def __init__(self, waiting: WaitingQueue, tier: TierPolicy, policy: Policy, now: datetime, month: str) -> None:
        self.queue = waiting.queue
        self.tier = tier
        self.weight = policy.tenant(self.queue.tenant_id).weight
        self.cap = policy.cap(tier, self.queue.tenant_id)
        self.ceiling = policy.ceiling(tier, self.queue.tenant_id)
        self.budget = policy.tenant(self.queue.tenant_id).budget
        self.running = self.queue.running
        self.committed = self.queue.committed_usd(month)
        self.start_tag = self.queue.start_tag(now, self.weight)
        self.entitlement = 0.0
        self.has_credit = False
        self.entries = {name: list(entries) for name, entries in waiting.entries.items() if entries}
        self.profiles = {name: ResourceProfile.parse(name.removesuffix(URGENT)) for name in self.entries}
        self.urgent_in_a_row = self.queue.urgent_in_a_row

    @property
    def band(self) -> int:
        """Return -1 with credit, up to a bit more than three times the entitlement; 0 below the whole part of the
        entitlement, 1 below it rounded up, else 2.
        """
        if self.has_credit and self.running < math.ceil(3 * self.entitlement) + 2:
            return -1
        if self.running < math.floor(self.entitlement + 1e-9):
            return 0
        return 1 if self.running < math.ceil(self.entitlement - 1e-9) else 2

    def head(self, lane: str, now: datetime) -> QueueEntry | None:
        """Return the entry of a lane that is next: of urgent ones, the first that is due and not hopeless."""
        entries = self.entries[lane]
        due = [entry for entry in entries if entry.due_at <= now] if lane.endswith(URGENT) else []
        timely = [entry for entry in due if not entry.is_hopeless(now)]
        return next(iter(timely or due or entries), None)

    def next_of(self, entries: list[QueueEntry], now: datetime) -> QueueEntry:
        """Return the next of its lanes' first entries: an urgent one, but every fourth time the oldest other."""
        urgent = [entry for entry in entries if entry.is_urgent and not entry.is_hopeless(now)]
        others = [entry for entry in entries if entry not in urgent]
        if urgent and (not others or self.urgent_in_a_row < URGENT_MAX):
            return min(urgent, key=lambda entry: entry.order)
        return min(others, key=lambda entry: (entry.arrived_at, entry.request_id))

    def account(self) -> list[Account]:
        """Return the tenant's own budget, if it has one, and what of it is taken."""
        return [] if self.budget is None else [Account(self.budget, self.committed)]
