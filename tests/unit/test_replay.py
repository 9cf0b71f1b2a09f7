"""Recorded passes, decided again by the current code: different decisions need a new ENGINE_VERSION."""

import base64

from simulation.recorded import FOLDER
from trainyard.application.scheduling.dispatch import PassRecord
from trainyard.contracts.decisions import decode_pass, encode_pass
from trainyard.domain.admission import ENGINE_VERSION, decide


def recorded() -> list[PassRecord]:
    path = FOLDER / f"engine-{ENGINE_VERSION}.txt"
    assert path.exists(), "a new engine version: record its passes by `python -m simulation.recorded`"
    return [decode_pass(base64.b64decode(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def test_recorded_passes_are_decided_as_they_were() -> None:
    for kept in recorded():
        assert kept.engine_version == ENGINE_VERSION
        plan = decide(kept.snapshot, kept.policy, kept.at, admissions_max=kept.admissions_max)
        assert plan == kept.plan, "the rules changed: raise ENGINE_VERSION, and record passes of the new one"


def test_the_recorded_passes_decide_something_of_each_kind() -> None:
    passes = recorded()
    admissions = [admission for kept in passes for admission in kept.plan.admissions]
    kinds = {(a.borrowed, a.backfilled, a.above_cap) for a in admissions}
    assert kinds >= {(False, False, False), (True, False, False), (False, True, False), (False, False, True)}
    assert len({wait.reason for kept in passes for wait in kept.plan.waits}) >= 8


def test_what_is_kept_of_a_pass_is_read_back_as_it_was() -> None:
    kept = recorded()[0]
    assert decode_pass(encode_pass(kept)) == kept
