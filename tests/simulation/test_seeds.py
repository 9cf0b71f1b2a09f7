"""A short range of seeds, so that every change is tested with some faults; `make simulate` runs more."""

import pytest

from simulation.__main__ import run_checked, summary, unreached
from simulation.run import run_seed
from tests.simulation.mutants import MUTANTS, first_caught

SEEDS = range(80, 145)
"""A short range in which every kind of trouble occurs; `make simulate` has the long ones."""
MUTANT_SEEDS = 600
"""At most; the rarest mistake is noticed in one of some 300."""

NEAR = {
    "decide by the clock alone": 300,
    "finish without its attempt condition": 20,
    "let urgent requests always go first": 70,
    "no condition on the ledger version": 45,
    "note nothing that is due later": 100,
    "read only what rings name": 50,
    "reserve nothing": 385,
    "start without look-up after a forgotten token": 15,
}
"""Where the search for rare ones begins, so that it is short; they are found wherever it begins."""


def test_no_invariant_is_violated_and_every_kind_of_trouble_is_met() -> None:
    total, violations = summary(run_checked(seed) for seed in SEEDS)
    assert violations == []
    assert unreached(total) == []


@pytest.mark.parametrize("name", MUTANTS)
def test_a_protocol_without_one_of_its_safeguards_is_caught(name: str) -> None:
    first = NEAR.get(name, 0)
    caught = first_caught(name, lambda seed: run_seed(seed).violation, range(first, first + MUTANT_SEEDS))
    assert caught is not None, f"{MUTANT_SEEDS} seeds did not notice"


def test_a_calm_day_is_calm() -> None:
    """Without trouble nothing is swept, missed or repaired."""
    for seed in range(10):
        result = run_seed(seed, share=0.0)
        assert result.violation is None
        coped = ("sweep adopted", "dead letter", "pass failed")
        assert {name: result.counts[name] for name in coped} == dict.fromkeys(coped, 0)
