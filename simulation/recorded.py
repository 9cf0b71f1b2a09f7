"""Record passes of simulated days, which later code decides again (python -m simulation.recorded)."""

import base64
import sys
from pathlib import Path

from simulation.scenario import draw
from simulation.simulator import Simulator
from trainyard.application.scheduling.dispatch import PassRecord
from trainyard.contracts.decisions import decode_pass, encode_pass
from trainyard.domain.admission import ENGINE_VERSION

FOLDER = Path(__file__).parent.parent / "tests/unit/recorded"
SEEDS = range(0, 60)
PASSES_MAX = 80
EACH_KIND = 4
"""Passes kept of each kind of admission, at least."""


def recorded(seed: int) -> list[bytes]:
    """Return the passes of a seed."""
    scenario = draw(seed)
    scenario.older_code = False  # this code cannot repeat the decisions of other code
    simulator = Simulator(scenario)
    found: list[bytes] = []

    def keep(kept: PassRecord) -> bytes:
        found.append(encode_pass(kept))
        return found[-1]

    simulator.service.encode = keep
    simulator.run()
    return found


def kinds_of(data: bytes) -> set[tuple[bool, ...]]:
    """Return the kinds of a pass's admissions."""
    return {
        (a.borrowed, a.backfilled, a.above_cap, a.urgent, a.charge > 1, bool(a.ahead))
        for a in decode_pass(data).plan.admissions
    }


def interest(data: bytes) -> tuple[int, int]:
    """Order passes by how much they decide: reasons and kinds of admissions, then queues."""
    kept = decode_pass(data)
    kinds = {wait.reason for wait in kept.plan.waits}
    return (
        len(kinds) + 2 * len(kinds_of(data)) + 3 * len(kept.plan.capacity_holds),
        len(kept.snapshot.queues),
    )


def main() -> int:
    passes = [data for seed in SEEDS for data in recorded(seed)]
    passes.sort(key=interest, reverse=True)
    # Some of each kind of admission, then those that decide most.
    by_kind: dict[tuple[bool, ...], list[bytes]] = {}
    for data in passes:
        for kind in kinds_of(data):
            by_kind.setdefault(kind, []).append(data)
    first = {data: None for some in by_kind.values() for data in some[:EACH_KIND]}
    passes = list(first | dict.fromkeys(passes))
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"engine-{ENGINE_VERSION}.txt"
    path.write_text("".join(base64.b64encode(data).decode() + "\n" for data in passes[:PASSES_MAX]))
    print(f"{path.name}: {min(len(passes), PASSES_MAX)} of {len(passes)} passes, {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
