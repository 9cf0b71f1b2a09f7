from datetime import timedelta
from random import Random
from typing import Any

import pytest

from tests.build import NOW, after, content
from trainyard.domain.newest import KEYS_MAX, merged, newest, uploads_of
from trainyard.domain.requests import Content, KeyUploads
from trainyard.domain.retraining import Waiting, wait_after

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
    older, newer = content(**first), content(**second)
    assert winner([older, newer]) == winner([newer, older]) == newer


def winner(contents: list[Content]) -> Content:
    """Return what is trained on after some uploads, in the order in which they came."""
    known: tuple[KeyUploads, ...] = ()
    for one in contents:
        known = merged(known, uploads_of(one))
    return newest(known)


def history(random: Random) -> list[Content]:
    """Return some uploads of three keys, whose event times contradict their sequencers now and then."""
    return [
        content(
            f"incoming/s/{random.choice('abc')}.csv",
            event_time=after(random.randrange(8)),
            sequencer=random.choice(["", f"{random.randrange(16):X}", f"{random.randrange(16):X}0"]),
            version_id=f"v{number}",
        )
        for number in range(random.randrange(2, 8))
    ]


def oracle(contents: list[Content]) -> Content:
    """Return the newest by the words of docs/admission.md, looking at all uploads at once."""
    key = max(contents, key=lambda c: (c.event_time, c.key)).key
    of_key = [c for c in contents if c.key == key]
    sequenced = [c for c in of_key if c.sequencer]
    last = max(sequenced, key=lambda c: (c.sequencer.ljust(8, "0"), c.event_time, c.version_id), default=None)
    bare = max((c for c in of_key if not c.sequencer), key=lambda c: (c.event_time, c.version_id), default=None)
    if last is None or bare is None:
        found = last or bare
        assert found is not None
        return found
    return bare if bare.event_time > last.event_time else last


def test_over_2000_histories_and_120_orders_of_arrival_each_the_newest_wins() -> None:
    random = Random(3)
    for _ in range(2000):
        contents = history(random)
        expected = oracle(contents)
        for _ in range(120):
            random.shuffle(contents)
            assert winner(contents) == expected


def test_two_groups_merged_are_as_one() -> None:
    random = Random(4)
    for _ in range(500):
        contents = history(random)
        cut = random.randrange(1, len(contents))
        groups: list[tuple[KeyUploads, ...]] = []
        for part in (contents[:cut], contents[cut:]):
            known: tuple[KeyUploads, ...] = ()
            for one in part:
                known = merged(known, uploads_of(one))
            groups.append(known)
        assert newest(merged(*groups)) == newest(merged(groups[1], groups[0])) == oracle(contents)


def test_of_very_many_keys_the_latest_are_kept() -> None:
    contents = [content(f"incoming/s/{n}.csv", event_time=after(n)) for n in range(3 * KEYS_MAX)]
    known: tuple[KeyUploads, ...] = ()
    for one in contents:
        known = merged(known, uploads_of(one))
    assert (len(known), newest(known)) == (KEYS_MAX, contents[-1])


def test_an_upload_waits_for_the_quiet_period() -> None:
    assert wait_after(NOW, quiet_period=QUIET, delay_max=LONGEST) == Waiting(arrived_at=NOW, due_at=after(10))


def test_a_further_upload_prolongs_the_wait_but_keeps_the_place() -> None:
    first = wait_after(NOW, quiet_period=QUIET, delay_max=LONGEST)
    assert wait_after(after(6), quiet_period=QUIET, delay_max=LONGEST, waiting=first) == Waiting(
        arrived_at=NOW, due_at=after(16)
    )


def test_continuous_uploads_train_at_the_latest_after_the_maximum_delay() -> None:
    wait = wait_after(NOW, quiet_period=QUIET, delay_max=LONGEST)
    for seconds in range(5, 60, 5):
        wait = wait_after(after(seconds), quiet_period=QUIET, delay_max=LONGEST, waiting=wait)
    assert wait == Waiting(arrived_at=NOW, due_at=after(60))


def test_once_due_it_stays_due() -> None:
    waiting = Waiting(arrived_at=NOW, due_at=after(10))
    assert wait_after(after(10), quiet_period=QUIET, delay_max=LONGEST, waiting=waiting) == waiting
