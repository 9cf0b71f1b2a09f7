"""A suite is a list of steps: each is said before it is done, and the first that fails ends it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

Context = TypeVar("Context")


class StepFailed(Exception):
    """What a step saw is not what it should have seen; the message is what was seen."""


class NotShown(Exception):
    """A step cannot show here what it is for; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[Context]):
    name: str
    does: str
    """Said before it is done."""
    means: str
    """What a failure means, and what to do about it."""
    run: Callable[[Context], Sequence[str]]
    """Returns what was seen, a line each; raises StepFailed, or NotShown."""
    on_aws_alone: str | None = None
    """Why the local cloud cannot show it; None where it can."""
    minutes: int = 1
    """About how long it takes on AWS."""
    jobs: int = 0
    """How many jobs of SageMaker it pays for at most."""


@dataclass(slots=True, kw_only=True)
class StepResult:
    name: str
    outcome: str
    """"passed", "failed" or "skipped"."""
    seconds: float = 0.0
    seen: list[str] = field(default_factory=list)
    begun_at: str = ""


def run_steps(
    steps: Sequence[Step[Context]],
    context: Context,
    *,
    local: bool,
    say: Callable[[str], None],
    monotonic: Callable[[], float] = time.monotonic,
) -> list[StepResult]:
    """Run steps in their order, and stop at the first that fails."""
    results = []
    for number, step in enumerate(steps, start=1):
        result = StepResult(name=step.name, outcome="skipped", begun_at=datetime.now(UTC).isoformat()[:19] + "Z")
        results.append(result)
        say(f"[{number}/{len(steps)}] {step.name}: {step.does}")
        if local and step.on_aws_alone is not None:
            result.seen = [step.on_aws_alone]
            say(f"      skipped here: {step.on_aws_alone}")
            continue
        begun = monotonic()
        try:
            result.seen = list(step.run(context))
            result.outcome = "passed"
        except NotShown as reason:
            result.seen = [str(reason)]
        except Exception as error:  # whatever it is, it is what was seen
            result.outcome = "failed"
            told = str(error) if isinstance(error, StepFailed) else f"{type(error).__name__}: {error}"
            result.seen = told.splitlines() or [type(error).__name__]
        result.seconds = round(monotonic() - begun, 1)
        for line in result.seen:
            say(f"      {line}")
        if result.outcome == "failed":
            say(f"      FAILED. What it means: {step.means}")
            break
        say(f"      {result.outcome} in {result.seconds:g} s" if result.outcome == "passed" else "      skipped")
    return results


def eventually(find: Callable[[], Any], seconds: float, what: str, *, every: float = 1.0) -> tuple[Any, float]:
    """Return what `find` finds as soon as it finds anything, and after how many seconds.

    Raises StepFailed, saying what did not come, after so many seconds.
    """
    begun = time.monotonic()
    while True:
        found = find()
        passed = time.monotonic() - begun
        if found:
            return found, round(passed, 1)
        if passed > seconds:
            raise StepFailed(f"{what} did not come within {seconds:g} s")
        time.sleep(every)
