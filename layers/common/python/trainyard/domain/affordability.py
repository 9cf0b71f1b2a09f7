"""Affordability: what budgets allow while a pass hands out slots."""

from collections.abc import Mapping
from decimal import Decimal

from trainyard.domain.budgets import Account, Reservation, least_usd, reservation
from trainyard.domain.fair_share import Candidate
from trainyard.domain.policy import Policy, TierPolicy
from trainyard.domain.queues import QueueEntry
from trainyard.domain.scheduling import Reason


class Affordability:
    """The budgets of tiers and tenants; counts what each admission reserves."""

    def __init__(self, policy: Policy, committed: Mapping[str, Decimal]) -> None:
        self.policy = policy
        self.committed = dict(committed)
        """Tier → what it has spent and reserved this month, in USD."""

    def obstacle(self, candidate: Candidate, entry: QueueEntry) -> Reason | None:
        """Return which budget blocks an entry, or None."""
        own, shared = candidate.account(), self._of_tier(candidate.tier)
        if self.reservation_for(candidate, entry, own + shared) is not None:
            return None
        if candidate.profiles[entry.lane].rates(self.policy.prices) is None:
            return Reason.PRICE_UNKNOWN
        short = shared and self.needs_usd(candidate, entry) > shared[0].left_usd
        return Reason.TIER_BUDGET if short and self.reservation_for(candidate, entry, own) else Reason.BUDGET

    def reservation_for(
        self, candidate: Candidate, entry: QueueEntry, accounts: list[Account]
    ) -> Reservation | None:
        return reservation(
            candidate.profiles[entry.lane],
            candidate.tier,
            self.policy.prices,
            accounts,
            job_seconds=entry.job_seconds,
            usd_p90=entry.usd_p90,
        )

    def needs_usd(self, candidate: Candidate, entry: QueueEntry) -> Decimal:
        """Return how much must be left in the budgets for an entry to be admitted."""
        accounts = self.accounts(candidate)
        needed = least_usd(
            candidate.profiles[entry.lane],
            candidate.tier,
            self.policy.prices,
            accounts,
            job_seconds=entry.job_seconds,
            usd_p90=entry.usd_p90,
        )
        assert needed is not None, "prices are known where a budget is in the way"
        return needed

    def is_cheaper(self, candidate: Candidate, entry: QueueEntry, than: QueueEntry) -> bool:
        """Tell whether budgets allow another entry of a lane, or will allow it with less left."""
        reason = self.obstacle(candidate, entry)
        if entry == than or reason is None:
            return entry != than
        return reason is not Reason.PRICE_UNKNOWN and (
            self.needs_usd(candidate, entry) < self.needs_usd(candidate, than)
        )

    def accounts(self, candidate: Candidate) -> list[Account]:
        """Return the budgets that an admission of a tenant must fit."""
        return candidate.account() + self._of_tier(candidate.tier)

    def _of_tier(self, tier: TierPolicy) -> list[Account]:
        return [] if tier.budget is None else [Account(tier.budget, self.committed[tier.name])]

    def take(self, candidate: Candidate, usd: Decimal) -> None:
        """Count what an admission reserves."""
        candidate.committed += usd
        self.committed[candidate.tier.name] += usd
