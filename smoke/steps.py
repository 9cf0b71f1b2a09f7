"""A suite is a list of steps: each is announced before it runs, and the first failure ends the suite."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

Context = TypeVar("Context")


class StepFailed(Exception):
    """A step did not find what it expected; the message is what it found."""


class NotShown(Exception):
    """A step cannot be carried out here; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[Context]):
    name: str
    does: str
    """What the step does; printed before it runs."""
    means: str
    """What a failure means, and what to do about it."""
    run: Callable[[Context], Sequence[str]]
    """Returns the results, one per line; raises StepFailed or NotShown."""
    on_aws_alone: str | None = None
    """Why the local cloud cannot run the step; None if it can."""
    minutes: int = 1
    """The approximate duration on AWS."""
    jobs: int = 0
    """The maximum number of SageMaker jobs that it starts."""


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
    """Run the steps in order, and stop at the first failure."""
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
        except Exception as error:  # any error is a failure of the step
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
    """Return the first true result of `find`, and the seconds until then; raises StepFailed after a timeout."""
    begun = time.monotonic()
    while True:
        found = find()
        passed = time.monotonic() - begun
        if found:
            return found, round(passed, 1)
        if passed > seconds:
            raise StepFailed(f"timed out after {seconds:g} s waiting for {what}")
        time.sleep(every)
