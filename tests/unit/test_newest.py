from datetime import timedelta
from typing import Any

import pytest

from tests.build import NOW, after, content
from trainyard.domain.newest import Wait, is_newer, wait_after

QUIET, LONGEST = timedelta(seconds=10), timedelta(seconds=60)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # Of one key the sequencer decides, whatever the event times say.
        ({"sequencer": "0A", "event_time": after(9)}, {"sequencer": "0B", "event_time": after(1)}),
        # The shorter one is padded with zeros on the right: 0A → 0A00 < 0A01.
        ({"sequencer": "0A"}, {"sequencer": "0A01"}),
        # Hexadecimal digits compare alike in either case.
        ({"sequencer": "0a"}, {"sequencer": "0B"}),
        # Without sequencers, or between keys, the event time decides.
        ({"event_time": after(1)}, {"event_time": after(2)}),
        (
            {"key": "incoming/s/b.csv", "sequencer": "FF"},
            {"key": "incoming/s/a.csv", "sequencer": "00", "event_time": after(1)},
        ),
        # A tie goes to the greater key, so that both orders of arrival agree.
        ({"key": "incoming/s/a.csv"}, {"key": "incoming/s/b.csv"}),
    ],
)
def test_the_second_is_newer_in_either_order_of_arrival(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert is_newer(content(**second), content(**first))
    assert not is_newer(content(**first), content(**second))


def test_an_upload_waits_for_the_quiet_period() -> None:
    assert wait_after(NOW, quiet_period=QUIET, delay_max=LONGEST) == Wait(NOW, after(10))


def test_a_further_upload_prolongs_the_wait_but_keeps_the_place() -> None:
    first = wait_after(NOW, quiet_period=QUIET, delay_max=LONGEST)
    assert wait_after(after(6), quiet_period=QUIET, delay_max=LONGEST, waiting=first) == Wait(NOW, after(16))


def test_continuous_uploads_train_at_the_latest_after_the_maximum_delay() -> None:
    wait = wait_after(NOW, quiet_period=QUIET, delay_max=LONGEST)
    for seconds in range(5, 60, 5):
        wait = wait_after(after(seconds), quiet_period=QUIET, delay_max=LONGEST, waiting=wait)
    assert wait == Wait(NOW, after(60))


def test_once_due_it_stays_due() -> None:
    waiting = Wait(NOW, after(10))
    assert wait_after(after(10), quiet_period=QUIET, delay_max=LONGEST, waiting=waiting) == waiting
