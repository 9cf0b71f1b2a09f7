"""A short range of seeds, so that every change is tested with some faults; `make simulate` runs more."""

import pytest

from simulation.__main__ import run_checked, summary, unreached
from simulation.run import run_seed
from tests.simulation.mutants import MUTANTS, first_caught

SEEDS = range(88, 126)
"""A short range in which every kind of trouble occurs; `make simulate` has the long ones."""
MUTANT_SEEDS = 600
"""At most; the rarest mistake is noticed in one of some 300."""

NEAR = {
    "a fresh token per retry": 19,
    "compare lower limits ahead with those of now alone": 7,
    "count spot capacity as capacity on demand": 3,
    "decide by the clock alone": 440,
    "expedite without a limit": 36,
    "fail for lack of spot capacity": 7,
    "finish without its attempt condition": 58,
    "forget what a month has reserved when it turns back": 5,
    "give instances back before one is selected": 4,
    "go above a cap and leave no slot free": 3,
    "go above a cap instead of borrowing": 7,
    "go by arrival in a lane of urgent requests": 27,
    "hold no slot while waiting for spot capacity": 7,
    "keep no interval": 42,
    "let urgent requests always go first": 98,
    "no condition on the ledger version": 186,
    "note nothing that is due later": 62,
    "note the start of a training elsewhere": 42,
    "read only what rings name": 101,
    "reserve nothing": 390,
    "reserve, but let a run last as long as its tier allows": 10,
    "start without look-up after a forgotten token": 75,
    "stay on spot capacity after an interruption": 3,
    "take a refusal as final although the start before was not answered": 310,
}
"""A seed that notices, where the search begins so that it is short; they are found wherever it begins."""


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
    for seed in range(5):
        result = run_seed(seed, share=0.0)
        assert result.violation is None
        coped = ("sweep adopted", "dead letter", "pass failed")
        assert {name: result.counts[name] for name in coped} == dict.fromkeys(coped, 0)
