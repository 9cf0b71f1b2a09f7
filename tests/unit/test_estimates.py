"""Estimates: robust against outliers, with their basis stated; and the pace at which a tenant spends."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from testing.service import PRICES
from tests.build import NOW, SMALL, after, execution, request, tier
from trainyard.application.billing.reports import estimate_errors
from trainyard.domain.budgets import cost_max_usd
from trainyard.domain.estimates import (
    OVERRUN_SECONDS,
    RUNS_KEPT,
    RUNS_NEEDED,
    PastRun,
    error,
    estimate,
    quantile,
    remembered,
    teaches,
)
from trainyard.domain.executions import ExecutionRecord
from trainyard.domain.hourly_spend import HOURS_NEEDED, HourlySpend, booked, is_unusual
from trainyard.domain.prices import NO_PRICES
from trainyard.domain.requests import Basis, State
from trainyard.domain.resources import ResourceProfile

MB = 1024 * 1024
LANE = ResourceProfile.parse(SMALL)


def past(seconds: int, size: int = MB, usd: str = "0.05", profile: str = SMALL) -> PastRun:
    return PastRun(seconds, seconds // 2, Decimal(usd), size, profile)


def test_a_first_run_is_estimated_from_size_and_tier() -> None:
    small = estimate([], MB, tier(), LANE, PRICES)
    large = estimate([], 1000 * MB, tier(), LANE, PRICES)
    assert (small.basis, small.runs, small.seconds) == (Basis.COLD, 0, 3 * 240)
    assert large.seconds > small.seconds
    assert (small.usd or 0) < (large.usd or 0)
    assert large.seconds_p90 <= tier().run_time_max.total_seconds()
    assert estimate([], MB, tier(), LANE, NO_PRICES).usd is None


def test_three_outliers_of_ten_do_not_move_an_estimate() -> None:
    runs = [past(600 + n) for n in range(7)]
    wild = [past(30_000), past(40_000), past(5)]
    calm, mixed = (estimate(found, MB, tier(), LANE, PRICES) for found in (runs, runs + wild))
    assert abs(mixed.seconds - calm.seconds) <= 3
    assert (calm.basis, mixed.runs) == (Basis.HISTORY, 10)


def test_an_estimate_grows_with_the_data_as_the_runs_did() -> None:
    runs = [past(100 + 10 * size, size * MB) for size in (1, 2, 3, 5, 8, 13)]
    found = estimate(runs, 20 * MB, tier(), LANE, PRICES)
    assert abs(found.seconds - 300) <= 1


def test_an_estimate_goes_beyond_no_maximum_of_the_tier() -> None:
    runs = [past(600 + size, size * MB, usd=f"{0.05 * size}") for size in (1, 2, 3)]
    found = estimate(runs, 10**7 * MB, tier(), LANE, PRICES)
    worst = cost_max_usd(LANE, tier().runtime_max, PRICES)
    assert (found.usd, found.usd_p90, found.seconds) == (worst, worst, tier().run_time_max.total_seconds())
    assert (estimate(runs, MB, tier(), LANE, NO_PRICES).usd or 0) > 0, "what runs cost is known without prices"


def test_runs_on_other_instances_do_not_count_and_two_are_too_few() -> None:
    others = [past(9000, profile="ml.t3.medium ml.m5.xlarge 1 30")] * 9
    assert estimate([*others, past(600), past(600)], MB, tier(), LANE, PRICES).basis is Basis.COLD


def test_nine_of_ten_runs_stay_below_the_p90() -> None:
    random = Random(5)
    below = 0
    for _ in range(300):
        runs = [past(int(600 * random.lognormvariate(0, 0.3))) for _ in range(16)]
        found = estimate(runs, MB, tier(), LANE, PRICES)
        below += int(600 * random.lognormvariate(0, 0.3)) <= found.seconds_p90
    assert 0.8 < below / 300 < 0.97


def test_only_the_last_runs_are_remembered() -> None:
    runs: tuple[PastRun, ...] = ()
    for number in range(40):
        runs = remembered(runs, past(number))
    assert [run.seconds for run in runs] == list(range(40 - RUNS_KEPT, 40))


@pytest.mark.parametrize(
    ("seconds", "is_short"),
    [
        ((600, 600, 600), True),
        ((600, 600), False),  # too few
        ((600, 600, 901), True),
        ((800, 1200, 1200), False),
        ((600, 600, 600, OVERRUN_SECONDS), False),
        ((600, 600, 600, OVERRUN_SECONDS - 1, 600, 600, *[600] * 6), True),
        ((OVERRUN_SECONDS, *[600] * 2), False),
        ((OVERRUN_SECONDS, *[600] * 12), True),
        ((OVERRUN_SECONDS, *[600] * 12, 901), False),
        ((OVERRUN_SECONDS, *[600] * 9, 901, 600, 600), False),
        ((OVERRUN_SECONDS, *[600] * 9, 901, *[600] * 3), True),
    ],
)
def test_runs_are_short_if_nine_of_ten_were_and_none_far_exceeded_that_lately(
    seconds: tuple[int, ...], is_short: bool
) -> None:
    assert estimate([past(each) for each in seconds], MB, tier(), LANE, PRICES).is_short is is_short


def test_a_run_that_failed_after_far_too_long_counts_against_its_data_set_and_not_in_estimates() -> None:
    def failed(seconds: int) -> PastRun:
        return replace(past(seconds), succeeded=False)

    assert (teaches(past(1)), teaches(failed(OVERRUN_SECONDS - 1)), teaches(failed(OVERRUN_SECONDS))) == (
        True,
        False,
        True,
    )
    runs: tuple[PastRun, ...] = ()
    for run in [past(600)] * RUNS_KEPT + [failed(OVERRUN_SECONDS)] * 9:
        runs = remembered(runs, run)
    assert [run.succeeded for run in runs] == [True] * (RUNS_KEPT - 1) + [False], "only the last one is kept"
    assert estimate(runs, MB, tier(), LANE, PRICES).seconds_p90 == 600
    assert not estimate(runs, MB, tier(), LANE, PRICES).is_short
    for _ in range(RUNS_NEEDED):
        runs = remembered(runs, past(600))
    assert estimate(runs, MB, tier(), LANE, PRICES).is_short


def test_errors_are_shares_of_what_runs_took_and_only_of_those_that_succeeded() -> None:
    def ran(expected: int, took: int, state: State = State.SUCCEEDED) -> ExecutionRecord:
        changes: dict[str, Any] = {
            "expected_seconds": expected,
            "expected_usd": Decimal("0.05"),
            "state": state,
        }
        return execution(request(1, admitted_at=NOW), ended_at=after(took), **changes)

    found = estimate_errors([ran(100, 100), ran(150, 100), ran(50, 100), ran(9, 100, State.FAILED)])
    assert (found.runs, found.seconds_median, found.seconds_p90) == (3, 0.5, 0.5)
    assert found.usd_median == 0.0
    assert estimate_errors([]).seconds_median is None
    assert error(5, 0) == 0.0
    assert quantile([1, 2, 3, 4], 0.5) == 2.5
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


# --- pace ---------------------------------------------------------------------------------------------------


def spent(hours: int, usd: str = "2") -> HourlySpend:
    pace = HourlySpend()
    for number in range(hours + 1):
        pace = booked(pace, Decimal(usd), NOW + timedelta(hours=number))
    return pace


def test_an_hour_is_unusual_only_beside_others_and_far_above_them() -> None:
    assert not is_unusual(booked(HourlySpend(), Decimal(500), NOW)), "nothing is known yet"
    pace = spent(HOURS_NEEDED)
    now = NOW + timedelta(hours=HOURS_NEEDED)
    assert not is_unusual(booked(pace, Decimal(3), now)), "5 USD is not three times 2"
    assert is_unusual(booked(pace, Decimal(5), now))


def test_hours_without_cost_and_clocks_that_go_back_change_nothing_of_the_range() -> None:
    pace = spent(3)
    later = booked(pace, Decimal(1), NOW + timedelta(days=2))
    assert later.past == (*pace.past, pace.usd)
    assert booked(later, Decimal(1), NOW).usd == Decimal(2), "an earlier hour adds to the one being counted"


def test_cents_are_no_anomaly() -> None:
    pace = spent(HOURS_NEEDED, "0.01")
    assert not is_unusual(booked(pace, Decimal("0.9"), NOW + timedelta(hours=HOURS_NEEDED)))
