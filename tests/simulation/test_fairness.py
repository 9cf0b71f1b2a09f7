"""The fairness measurements on a few small seeds; `make fairness` prints them for many."""

from collections.abc import Callable

import pytest

from simulation.fairness import (
    JAIN_MIN,
    LARGE_BOUND,
    below_cap,
    expediting,
    fair_shares,
    large_waits,
    latecomers,
    least_jain,
    newcomer,
    saver,
    share_load,
)
from simulation.flow import Flow, Run
from tests.simulation.mutants import FAIRNESS_MUTANTS, first_caught


@pytest.mark.parametrize("visitors", [False, True], ids=["alone", "with visitors"])
def test_shares_are_fair_in_every_window_and_no_gap_exceeds_its_bound(visitors: bool) -> None:
    for seed in range(2):
        jain, gap = fair_shares(seed, visitors=visitors, quick=True)
        assert jain >= JAIN_MIN
        assert gap <= 1


def test_the_measure_notices_an_unfair_share() -> None:
    load = share_load(0, visitors=False, quick=True)
    runs = Flow(load.policy).run(load.jobs, until=load.horizon)
    favoured = next(iter(load.always))
    unfair = [run for run in runs if run.job.tenant_id == favoured or run.turn % 2]
    assert least_jain(load, unfair) < JAIN_MIN < least_jain(load, runs)


@pytest.mark.thorough
def test_a_single_request_is_passed_by_no_more_admissions_than_its_tier_has_slots() -> None:
    for seed in range(2):
        passed, waited, residual, slots = newcomer(seed)
        assert passed <= slots
        assert waited <= residual + 0.001


@pytest.mark.thorough
@pytest.mark.parametrize("case", [saver, latecomers])
def test_no_gap_exceeds_its_bound_whatever_others_have_saved_or_missed(
    case: Callable[[int], tuple[float, float]],
) -> None:
    for seed in range(2):
        gap, bound = case(seed)
        assert gap <= bound


def test_nobody_above_a_cap_overtakes_a_request_below_one() -> None:
    assert {passed for _, passed in below_cap(0)} == {0}


@pytest.mark.thorough
def test_what_is_expedited_breaks_no_bound_of_the_others() -> None:
    assert max(expediting(0)) <= 1


@pytest.mark.thorough
def test_a_large_request_waits_no_longer_than_hold_age_and_maximum_runtime() -> None:
    assert max(large_waits(0, hours=50)) <= LARGE_BOUND


@pytest.mark.thorough
@pytest.mark.parametrize("name", FAIRNESS_MUTANTS)
def test_a_rule_taken_out_is_noticed(name: str) -> None:
    def unfair(seed: int) -> str | None:
        jain, _ = fair_shares(seed, visitors=False, quick=True)
        return f"Jain {jain:.3f}" if jain < JAIN_MIN else None

    def starved(seed: int) -> str | None:
        longest = max(large_waits(seed, hours=50))
        return f"waited {longest:.0f} s" if longest > LARGE_BOUND else None

    def saved(seed: int) -> str | None:
        gap, bound = saver(seed)
        return f"a gap of {gap:.1f} h" if gap > bound else None

    run = {"backfill by estimates": starved, "bound the credit of idle queues only": saved}.get(name, unfair)
    assert first_caught(name, run, range(10)) is not None, "10 seeds did not notice"


def test_runs_are_told_in_the_order_of_their_starts() -> None:
    load = share_load(1, visitors=False, quick=True)
    runs: list[Run] = Flow(load.policy).run(load.jobs, until=load.horizon)
    assert [run.turn for run in runs] == sorted(run.turn for run in runs)
