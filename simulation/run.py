"""Run one seed and return its result."""

from collections import Counter
from dataclasses import dataclass, field

from simulation.checks import Violation
from simulation.scenario import draw
from simulation.simulator import Simulator


@dataclass
class Result:
    seed: int
    steps: int = 0
    calls: int = 0
    starts: int = 0
    requests: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    log: str = ""
    """A hash of the log."""
    violation: str | None = None
    invariant: str | None = None


def run_seed(seed: int, *, share: float = 0.15) -> Result:
    """Run a seed to its end, or to its first violation."""
    simulator = Simulator(draw(seed), share=share)
    result = Result(seed)
    try:
        simulator.run()
    except Violation as violation:
        result.invariant = violation.invariant
        result.violation = f"seed {seed}, step {simulator.steps}: {violation}"
    except Exception as error:  # a defect is a violation too
        result.invariant = "crash"
        result.violation = f"seed {seed}, step {simulator.steps}: {type(error).__name__}: {error}"
    result.steps, result.calls = simulator.steps, simulator.trouble.calls
    result.starts = len(simulator.sagemaker.executions)
    result.requests = len(simulator.checks.requests)
    result.counts, result.log = simulator.counts, simulator.log_hash.hexdigest()
    return result
