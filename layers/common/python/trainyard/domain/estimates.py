"""Estimates: how long a run will take and what it will cost, from what its data set's runs have taken.

They are used for expected starts, for budget reservations, and for display. Fair sharing does not use them: it
charges what was actually used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from statistics import median

from trainyard.domain.budgets import cost_max_usd
from trainyard.domain.policy import MB, TierPolicy
from trainyard.domain.prices import Prices, rounded_up
from trainyard.domain.requests import Basis, Estimate
from trainyard.domain.resources import ResourceProfile

RUNS_KEPT = 16
"""The last runs of a data set that are kept, so that estimates follow changes quickly."""

RUNS_NEEDED = 3
"""Fewest runs on which an estimate is based; with fewer, data size and tier are used."""

COLD_SECONDS = 240
"""What each job of a run spends on getting its instances, and its image, where nothing else is known."""

COLD_SECONDS_PER_MB = 0.5
"""By how much each job of a run is longer for each MB of data, where nothing else is known."""

SHORT_SECONDS = 900
"""A run is short if nine of ten runs of its data set take no longer: it may use a slot that is kept free."""

OVERRUN_SECONDS = 3 * SHORT_SECONDS
"""After a run that took so long, a data set's runs are not short again until RUNS_NEEDED in a row have been."""

SPREAD = 2.0
"""Assumed ratio of the 90th percentile to the expected duration of a run without history."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run that succeeded, or one that failed after far too long."""

    seconds: int
    """From its admission to its end."""
    job_seconds: int
    """Of its longest job."""
    usd: Decimal
    data_bytes: int
    profile: str
    succeeded: bool = True
    """Only then it counts in estimates."""


def estimate(
    past: Sequence[PastRun], data_bytes: int, tier: TierPolicy, profile: ResourceProfile, prices: Prices
) -> Estimate:
    """Return what a run on so much data is expected to take and to cost.

    Robust: the line through the past runs of the same instances is the median of the slopes between any two of
    them (Theil-Sen), which three outliers of ten do not move; with data of one size it is the plain median. It
    is capped at the tier's maximum, since extrapolation from small data is unreliable.
    """
    alike = [run for run in past if run.profile == str(profile) and run.succeeded]
    if len(alike) < RUNS_NEEDED:
        return _cold(data_bytes, tier, profile, prices, len(alike))
    longest = int(tier.run_time_max.total_seconds())
    sizes = [run.data_bytes for run in alike]
    seconds, p90 = _line(sizes, [run.seconds for run in alike], data_bytes)
    jobs, _ = _line(sizes, [run.job_seconds for run in alike], data_bytes)
    usd, usd_p90 = _line(sizes, [float(run.usd) for run in alike], data_bytes)
    worst = cost_max_usd(profile, tier.runtime_max, prices)
    most = Decimal("Infinity") if worst is None else worst
    return Estimate(
        seconds=min(round(seconds), longest),
        seconds_p90=min(round(p90), longest),
        job_seconds=min(round(jobs), int(tier.runtime_max.total_seconds())),
        usd=min(rounded_up(Decimal(usd)), most),
        usd_p90=min(rounded_up(Decimal(usd_p90)), most),
        basis=Basis.HISTORY,
        runs=len(alike),
        is_short=p90 <= SHORT_SECONDS and _in_time(past, on_spot=profile.is_on_spot),
    )


def _in_time(past: Sequence[PastRun], *, on_spot: bool) -> bool:
    """Tell whether the runs since the last one that took far too long are enough, and all short.

    Runs on demand are not compared with those that may have waited for spot capacity.
    """
    past = [run for run in past if _is_on_spot(run) == on_spot]
    overran = [number for number, run in enumerate(past) if run.seconds >= OVERRUN_SECONDS]
    if not overran:
        return True
    since = past[overran[-1] + 1 :]
    return len(since) >= RUNS_NEEDED and all(run.seconds <= SHORT_SECONDS for run in since[-RUNS_NEEDED:])


def teaches(run: PastRun) -> bool:
    """Tell whether a run is remembered: of those that failed, only one that took far too long, which on spot
    capacity it may have waited.
    """
    return run.succeeded or (run.seconds >= OVERRUN_SECONDS and not _is_on_spot(run))


def _is_on_spot(run: PastRun) -> bool:
    return ResourceProfile.parse(run.profile).is_on_spot


def remembered(past: Sequence[PastRun], run: PastRun) -> tuple[PastRun, ...]:
    """Return the past runs with one more, the oldest forgotten; of failed runs only the last is kept."""
    before = past if run.succeeded else [other for other in past if other.succeeded]
    return (*before, run)[-RUNS_KEPT:]


def error(expected: float, actual: float) -> float:
    """Return by what share of the actual an estimate was off: 0 is exact, 1 is as much again."""
    return abs(expected - actual) / actual if actual else 0.0


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile of some values, between neighbours in proportion; raises ValueError without any."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _line(sizes: Sequence[int], values: Sequence[float], size: int) -> tuple[float, float]:
    """Return the value at a size by the robust line, and what nine of ten runs stay below."""
    slopes = [
        (v2 - v1) / (s2 - s1)
        for (s1, v1), (s2, v2) in combinations(zip(sizes, values, strict=True), 2)
        if s1 != s2
    ]
    slope = max(median(slopes), 0.0) if slopes else 0.0
    begin = median(value - slope * x for x, value in zip(sizes, values, strict=True))
    middle = max(begin + slope * size, 0.0)
    shares = [value / fitted for x, value in zip(sizes, values, strict=True) if (fitted := begin + slope * x) > 0]
    return middle, middle * max(quantile(shares, 0.9), 1.0) if shares else middle


def _cold(data_bytes: int, tier: TierPolicy, profile: ResourceProfile, prices: Prices, runs: int) -> Estimate:
    """Return what is expected of a run without history, from its size and its tier."""
    limit = int(tier.runtime_max.total_seconds())
    job = min(round(COLD_SECONDS + COLD_SECONDS_PER_MB * data_bytes / MB), limit)
    late = min(round(job * SPREAD), limit)
    # What the trials of a tuning take together is not known: they may take as much as one training.
    longest = (limit, limit) if profile.trials else (job, late)
    begun = profile.trials * COLD_SECONDS
    rates = profile.rates(prices)

    def usd(each: int, of_longest: int) -> Decimal | None:
        return None if rates is None else rounded_up(sum(rates[:-1], Decimal(0)) * each + rates[-1] * of_longest)

    return Estimate(
        seconds=(profile.jobs - 1) * job + longest[0] + begun,
        seconds_p90=(profile.jobs - 1) * late + longest[1] + begun,
        job_seconds=longest[0],
        usd=usd(job, longest[0]),
        usd_p90=usd(late, longest[1]),
        basis=Basis.COLD,
        runs=runs,
    )
