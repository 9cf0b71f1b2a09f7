"""Lists over every adapter of the store: a page ends where it must, and the cursor continues from there."""

from typing import Any

import pytest

from testing.memory_store import MemoryStore
from tests.build import NOW, after
from trainyard.domain.errors import Malformed
from trainyard.persistence.items import stamp
from trainyard.persistence.store import Item, Key, Put, Store, listed

PARTITION = "by-activity", "RUNNING"


def put(store: Store, count: int, *, size: int = 0, moments: int = 1) -> list[str]:
    """Put requests that came into a state in few moments; return their ids."""
    ids = [f"{number:032x}" for number in range(count)]
    for begin in range(0, count, 10):
        store.transact(
            [
                Put(
                    Key("requests", (("request_id", request_id),)),
                    {
                        "activity": "RUNNING",
                        "since": stamp(after(int(request_id, 16) % moments)),
                        "tenant_id": "acme",
                        "arrived_at": stamp(NOW),
                        "filler": "x" * size,
                    },
                )
                for request_id in ids[begin : begin + 10]
            ]
        )
    return ids


def ids_of(items: Any) -> list[str]:
    return [item["request_id"] for item in items]


@pytest.mark.parametrize("page", [1, 3, 7, 1000])
@pytest.mark.parametrize("moments", [1, 3])
def test_items_that_share_their_sort_key_are_all_listed_once(store: Store, page: int, moments: int) -> None:
    ids = put(store, 25, moments=moments)
    found = ids_of(listed(store, *PARTITION, page=page))
    assert sorted(found) == ids
    backwards = ids_of(listed(store, *PARTITION, page=page, newest_first=True))
    assert sorted(backwards) == ids


def test_a_page_ends_at_1_mb_and_says_that_more_is_left(store: Store) -> None:
    ids = put(store, 30, size=100_000)
    page = store.query(*PARTITION, limit=1000)
    assert 5 <= len(page.items) <= 11
    assert not page.complete
    assert sorted(ids_of(listed(store, *PARTITION))) == ids


def test_a_page_that_is_just_full_says_whether_it_is_all(store: Store) -> None:
    put(store, 4)
    assert store.query(*PARTITION, limit=4).complete
    assert not store.query(*PARTITION, limit=3).complete
    assert store.query("by-activity", "ADMITTED", limit=3) == store.query("by-activity", "STOPPED", limit=9)


def test_a_range_and_a_cursor_hold_together(store: Store) -> None:
    put(store, 20, moments=20)
    bounds: dict[str, Any] = {"above": stamp(after(5)), "below": stamp(after(12))}
    assert len(list(listed(store, *PARTITION, page=3, **bounds))) == 8
    newest = [item["since"] for item in listed(store, *PARTITION, page=3, newest_first=True, **bounds)]
    assert newest == sorted(newest, reverse=True)
    assert len(newest) == 8


@pytest.mark.parametrize("cursor", [{"x": "y"}, {"request_id": "r"}, {}])
def test_a_cursor_of_another_list_is_malformed(store: Store, cursor: dict[str, str]) -> None:
    put(store, 3)
    with pytest.raises(Malformed):
        store.query(*PARTITION, limit=2, after=cursor)


def test_a_cursor_of_another_partition_is_malformed(store: Store) -> None:
    put(store, 3)
    cursor = store.query(*PARTITION, limit=2).cursor
    assert cursor is not None
    assert store.query(*PARTITION, limit=2, after=cursor).items
    with pytest.raises(Malformed):
        store.query(PARTITION[0], "STOPPED", limit=2, after=cursor)


def test_a_batch_of_large_items_is_read_whole_though_it_comes_in_parts(store: Store) -> None:
    """BatchGetItem answers at most 16 MB, and names the keys that are left."""
    ids = put(store, 60, size=350_000)
    found = store.get(*(Key("requests", (("request_id", request_id),)) for request_id in ids))
    assert ids_of(item for item in found if item) == ids


@pytest.mark.parametrize("what", ["page empty", "page cut short"])
def test_pages_that_are_empty_or_short_are_gone_on_from(what: str) -> None:
    store = MemoryStore()
    ids = put(store, 25)
    turns = iter(range(10_000))
    store.unkind = lambda kind: kind == what and next(turns) % 2 == 0
    assert sorted(ids_of(listed(store, *PARTITION, page=7))) == ids
    assert store.met[what] > 2


@pytest.mark.parametrize(
    "item",
    [
        {"x": 10**38},
        {"x": {"y": [1, 10**40]}},
        {"x": 1.5},
        {"x": None},
        {"x": "y" * 420_000},
        {"x": "ü" * 210_000},
    ],
)
def test_what_dynamodb_refuses_memory_refuses_too(item: Item) -> None:
    with pytest.raises((AssertionError, TypeError)):
        MemoryStore().transact([Put(Key("requests", (("request_id", "r"),)), item)])


def test_a_key_that_dynamodb_refuses_memory_refuses_too() -> None:
    for values in (
        (("pk", ""), ("sk", "s")),
        (("pk", "p"), ("sk", "s" * 1025)),
        (("pk", "p" * 2049), ("sk", "s")),
    ):
        with pytest.raises(AssertionError):
            MemoryStore().transact([Put(Key("scheduler", values), {})])
