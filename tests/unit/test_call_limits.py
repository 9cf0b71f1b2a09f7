"""A caller that floods the HTTP API is held back, and no other one notices it."""

from collections import Counter
from datetime import datetime, timedelta

import pytest

from testing.memory_store import MemoryStore
from tests.build import NOW
from trainyard.domain.errors import Conflict, OutcomeUnknown, Throttled
from trainyard.persistence.call_limits import KEPT_FOR, REMEMBERED_MAX, WINDOW_SECONDS, CallLimits, window_key
from trainyard.persistence.store import Update

LIMIT = 100


class Writes:
    """One change after the other over a store in memory, each counted."""

    def __init__(self) -> None:
        self.store, self.count = MemoryStore(), 0

    def __call__(self, update: Update) -> None:
        self.count += 1
        self.store.transact([update])


def at(milliseconds: float) -> datetime:
    return NOW + timedelta(milliseconds=milliseconds)


@pytest.mark.parametrize("containers", [1, 5])
def test_a_thousand_calls_a_second_of_one_tenant_are_held_back_and_others_are_unharmed(containers: int) -> None:
    writes = Writes()
    limits = [CallLimits(update=writes) for _ in range(containers)]
    admitted: Counter[tuple[str, int]] = Counter()
    refused: Counter[str] = Counter()
    seconds = 60
    for tick in range(seconds * 1000):
        callers = ["flood", *(["calm"] if tick % 200 == 0 else [])]  # the calm one calls five times a second
        for caller in callers:
            wait = limits[tick % containers].admit(caller, limit=LIMIT, now=at(tick))
            if wait:
                assert 1 <= wait <= WINDOW_SECONDS
                refused[caller] += 1
            else:
                admitted[caller, tick // 10_000] += 1
    windows = seconds // WINDOW_SECONDS
    assert [admitted["flood", n] for n in range(windows)] == [LIMIT] * windows
    assert sum(admitted["calm", n] for n in range(windows)) == seconds * 5
    assert (refused["flood"], refused["calm"]) == (seconds * 1000 - LIMIT * windows, 0)
    assert writes.count <= windows * (LIMIT + containers) + seconds * 5, "what is refused costs no write"


def test_who_waits_as_long_as_told_may_call_again() -> None:
    for start in (0, 1, 9_999, 5_500):
        limits, now = CallLimits(update=Writes()), at(100_000 + start)
        while (wait := limits.admit("c", limit=3, now=now)) == 0:
            continue
        assert limits.admit("c", limit=3, now=now + timedelta(seconds=wait)) == 0


def test_a_count_expires_and_is_one_change_by_itself() -> None:
    changes: list[Update] = []
    CallLimits(update=changes.append).admit("acme", limit=LIMIT, now=NOW)
    (change,) = changes
    assert change.key == window_key("acme", int(NOW.timestamp()) // WINDOW_SECONDS)
    assert change.set == {"expires_at": int((NOW + KEPT_FOR).timestamp())}
    assert change.add == {"calls": 1}


@pytest.mark.parametrize("error", [Conflict("busy"), Throttled("slow down"), OutcomeUnknown("no answer")])
def test_a_call_that_cannot_be_counted_is_answered(error: Exception) -> None:
    def fail(update: Update) -> None:
        raise error

    assert CallLimits(update=fail).admit("acme", limit=LIMIT, now=NOW) == 0


def test_no_more_callers_are_remembered_than_fit() -> None:
    def full(update: Update) -> None:
        raise Conflict("full", failed=(0,))

    limits = CallLimits(update=full)
    for number in range(REMEMBERED_MAX * 3):
        assert limits.admit(f"caller {number}", limit=1, now=NOW) > 0
    assert len(limits.refused) <= REMEMBERED_MAX


def test_callers_do_not_share_a_window() -> None:
    limits = CallLimits(update=Writes())
    assert [limits.admit(caller, limit=1, now=NOW) for caller in ("a", "b", "a#1")] == [0, 0, 0]
    assert limits.admit("a", limit=1, now=NOW) > 0
    assert limits.admit("b", limit=2, now=NOW) == 0
