"""Budgets: what may be spent in a month, and how much of it an admission reserves.

A hard budget is never overspent: a run is admitted only if spent + reserved + its reservation stays within, and
its jobs get a maximum runtime by which it cannot cost more than it has reserved. A soft one reserves what nine of
ten such runs cost at most, and can be overshot by what its running runs may cost beyond that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from trainyard.domain.policy import Budget, BudgetMode, TierPolicy
from trainyard.domain.prices import Prices, rounded_up
from trainyard.domain.resources import ResourceProfile

RUNTIME_MIN = timedelta(minutes=1)
"""A shorter job is not worth starting."""

MARGIN = 3
"""A run is stopped because of its budget only after this multiple of its expected duration."""


@dataclass(frozen=True, slots=True)
class Account:
    """A budget, and how much of it is committed."""

    budget: Budget
    committed_usd: Decimal
    """Spent and reserved."""

    @property
    def left_usd(self) -> Decimal:
        return self.budget.limit_usd - self.committed_usd


@dataclass(frozen=True, slots=True)
class Reservation:
    usd: Decimal
    runtime_max: timedelta
    """Of each job of the run."""


def cost_max_usd(profile: ResourceProfile, runtime_max: timedelta, prices: Prices) -> Decimal | None:
    """Return the maximum cost of a run: each job up to the end of its grace period, volumes included.

    A lack of capacity is not retried within a run (pipeline/author.py), so no job is paid for twice.
    """
    rates = profile.rates(prices)
    seconds = int((runtime_max + profile.grace).total_seconds())
    return None if rates is None else sum((rounded_up(rate * seconds) for rate in rates), Decimal(0))


def reservation(
    profile: ResourceProfile,
    tier: TierPolicy,
    prices: Prices,
    accounts: Iterable[Account],
    *,
    job_seconds: int = 0,
    usd_p90: Decimal | None = None,
) -> Reservation | None:
    """Return what an admission reserves of every budget it falls under, or None when that does not fit.

    `job_seconds` is how long the longest of its jobs is expected to take, 0 when nobody knows; `usd_p90` what
    nine of ten such runs cost at most. Without any budget nothing is reserved.
    """
    applicable = list(accounts)
    if not applicable:
        return Reservation(Decimal(0), tier.runtime_max)
    least = least_usd(profile, tier, prices, applicable, job_seconds=job_seconds, usd_p90=usd_p90)
    least_left = min(account.left_usd for account in applicable)
    if least is None or least > least_left:
        return None
    worst = cost_max_usd(profile, tier.runtime_max, prices)
    assert worst is not None, "prices are known"
    if _soft(applicable):
        return Reservation(least, tier.runtime_max)
    wanted = max(least, least_left / 2)
    if wanted >= worst:
        return Reservation(worst, tier.runtime_max)
    return _shortened(profile, wanted, prices)


def shortening(profile: ResourceProfile, runtime_max: timedelta, tier: TierPolicy, prices: Prices) -> str:
    """Return why the jobs of a run are stopped sooner than its tier's; "" when they are not."""
    if runtime_max >= tier.runtime_max:
        return ""
    minutes, of_tier = (round(length.total_seconds() / 60, 1) for length in (runtime_max, tier.runtime_max))
    dearest = profile.dearest(prices)
    price = f", at the price of {dearest}, the dearest of its types" if dearest else ""
    return f"what is left of its budget allows each job {minutes:g} of {of_tier:g} minutes{price}"


def least_usd(
    profile: ResourceProfile,
    tier: TierPolicy,
    prices: Prices,
    accounts: Iterable[Account],
    *,
    job_seconds: int = 0,
    usd_p90: Decimal | None = None,
) -> Decimal | None:
    """Return what must be left of each budget for a run to be admitted; None when a price is unknown."""
    worst = cost_max_usd(profile, tier.runtime_max, prices)
    if worst is None or not (applicable := list(accounts)):
        return None if worst is None else Decimal(0)
    if _soft(applicable):
        return worst if usd_p90 is None else min(usd_p90, worst)
    if not job_seconds:
        return worst
    jobs = max(timedelta(seconds=MARGIN * job_seconds), RUNTIME_MIN + profile.grace)
    least = cost_max_usd(profile, jobs - profile.grace, prices)
    assert least is not None, "prices are known"
    return min(worst, least)


def _shortened(profile: ResourceProfile, usd: Decimal, prices: Prices) -> Reservation:
    """Return the longest runs' reservation that costs no more than an amount."""
    rates = profile.rates(prices)
    assert rates is not None, "prices are known"
    runtime_max = timedelta(seconds=int(usd / sum(rates, Decimal(0)))) - profile.grace
    while (cost := cost_max_usd(profile, runtime_max, prices)) is not None and cost > usd:
        runtime_max -= timedelta(seconds=1)  # each job's cost is rounded up
    assert cost is not None, "prices are known"
    return Reservation(cost, runtime_max)


def _soft(accounts: Iterable[Account]) -> bool:
    return all(account.budget.mode is BudgetMode.SOFT for account in accounts)


def overshoot_usd(budget: Budget, running_max: int, worst_usd: Decimal | None) -> Decimal | None:
    """Return by how much a budget can be overspent at most, if as many runs as may cost the most that one can;
    None when a price is unknown.
    """
    if budget.mode is BudgetMode.HARD:
        return Decimal(0)
    return None if worst_usd is None else running_max * worst_usd


def level(spent_usd: Decimal, budget: Budget | None, thresholds: Sequence[int]) -> int:
    """Return the greatest threshold, in percent, that spending has reached; 0 for none."""
    if budget is None:
        return 0
    return max(
        (threshold for threshold in thresholds if spent_usd * 100 >= budget.limit_usd * threshold), default=0
    )
