"""Canaries: whether a new version fails too many calls, of its share or in test, to get more of them."""

from dataclasses import dataclass

FAILED_MIN = 10
"""Fewer failed calls say nothing."""
WORSE_BY = 0.1
"""By so much, the share of calls that a canary fails may exceed the live version's."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls that a version was asked to answer."""

    total: int = 0
    failed: int = 0
    """Those of them that it, or its endpoint, did not answer."""

    def __sub__(self, before: "Calls") -> "Calls":
        return Calls(self.total - before.total, self.failed - before.failed)

    @property
    def share_failed(self) -> float:
        return self.failed / self.total if self.total else 0.0


def objection_to(canary: Calls, live: Calls) -> str | None:
    """Return why a canary must not answer calls any more; None while nothing is wrong with it.

    The live version answers the other calls of the same time: what fails with both is not the canary's fault.
    """
    if canary.failed < FAILED_MIN or canary.share_failed <= live.share_failed + WORSE_BY:
        return None
    return (
        f"it failed {canary.failed} of {canary.total} calls, and the live version {live.failed} of {live.total} "
        "in that time"
    )


def objection_in_test(calls: Calls) -> str | None:
    """Return why a version in the test environment must not be promoted; None while nothing is wrong with it."""
    if calls.failed < FAILED_MIN or calls.share_failed <= WORSE_BY:
        return None
    return f"it failed {calls.failed} of {calls.total} calls in test"
