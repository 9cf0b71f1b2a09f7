"""The record over every adapter of the store: it records and finds the same in memory and in DynamoDB."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from testing.service import PRICES, scheduler_over
from tests.build import after, execution, hard, job, policy, step, submission, tier
from trainyard.application.scheduling.completion import End
from trainyard.domain.admission import decide
from trainyard.domain.errors import Conflict
from trainyard.domain.executions import StepRecord, corrected
from trainyard.domain.policy import TenantPolicy
from trainyard.domain.requests import Request, State
from trainyard.persistence.book import Book, booking_keys, bookings, pace_key
from trainyard.persistence.outbox import OutboxEntry
from trainyard.persistence.run_history import past_key
from trainyard.persistence.store import Is, Key, Put, Store, Update

LIMITS = policy(
    tier(quota=4, running_max_per_tenant=4), tenants={"acme": TenantPolicy(budget=hard("1"))}, running_max=4
)
EARLY = StepRecord(
    step=step(job=job(status="Stopping", ended_at=None, billable_seconds=None)),
    seconds=None,
    cost_usd=None,
    is_final=False,
)


def admitted(store: Store, number: int, **changes: str) -> Request:
    scheduler = scheduler_over(store)
    scheduler.enlister.enlist(submission(number, **changes), LIMITS, after(0))
    read_set = scheduler.admitter.read(LIMITS, after(0))
    scheduler.admitter.commit(decide(read_set.snapshot, LIMITS, after(0)), read_set, LIMITS, after(0))
    found = scheduler.tables.requests.get(submission(number).request_id)
    assert found is not None
    return found


def test_lists_grow_and_decimals_are_summed_exactly(store: Store) -> None:
    key = Key("record", (("pk", "a"), ("sk", "b")))
    for part in (["one"], ["two", "three"]):
        store.transact([Update(key, append={"list": part}, add={"usd": Decimal("0.1"), "count": 1})])
    (item,) = store.get(key)
    assert item is not None
    assert (item["list"], item["usd"], int(item["count"])) == (["one", "two", "three"], Decimal("0.2"), 2)
    with pytest.raises(Conflict):
        store.transact([Put(key, {"list": []}, (Is("usd", Decimal("0.3")),))])


def test_an_index_of_keys_gives_keys_alone(store: Store) -> None:
    request = admitted(store, 1)
    record = execution(request)
    scheduler_over(store).completer.finish(
        [End(request=request, state=State.SUCCEEDED, execution=record)], LIMITS, after(60)
    )
    listed = {
        "by-prefix": (request.request_id[:3], {"prefix", "request_id"}),
        "by-data-set": ("acme/set-1", {"owner", "arrived_at", "request_id"}),
        "executions-of-tenant": ("acme", {"tenant_id", "admitted", "pk", "sk"}),
        "executions-of-day": ("2026-11-21", {"recorded_on", "recorded", "pk", "sk"}),
    }
    for index, (partition, names) in listed.items():
        (item,) = store.query(index, partition, limit=9).items
        assert set(item) == names, index


def test_a_request_is_found_by_any_beginning_of_its_id(store: Store) -> None:
    request = admitted(store, 1)
    requests = scheduler_over(store).tables.requests
    for length in (3, 4, 8, 31, 32):
        assert requests.ids_beginning(request.request_id[:length], limit=9) == [request.request_id]
    other = request.request_id[:5] + ("0" if request.request_id[5] != "0" else "1")
    assert requests.ids_beginning(other, limit=9) == []


def test_an_end_is_booked_found_and_put_right(store: Store) -> None:
    scheduler, book = scheduler_over(store), Book(store=store)
    request = admitted(store, 1)
    record = execution(request, "0", steps=(EARLY,), unknown=1, is_final=False)
    for told in (True, False):
        end = End(request=request, state=State.SUCCEEDED, execution=record)
        assert scheduler.completer.finish([end], LIMITS, after(60)) == [told]
    assert book.executions(request.request_id) == [record]
    assert [outbox_entry.what for outbox_entry in book.outbox_entries()] == ["settle"]
    after_all = corrected(record, [step()], PRICES, after(300))
    scheduler.completer.correct(record, after_all, LIMITS, after(300))
    with pytest.raises(Conflict):
        scheduler.completer.correct(record, after_all, LIMITS, after(301))
    begin = datetime(2026, 11, 1, tzinfo=UTC)
    assert book.executions_of_month("acme", "2026-11", begin, begin + timedelta(days=30)) == [after_all]
    assert list(book.executions_of_day("2026-11-21")) == [after_all]
    (totals,) = book.totals("2026-11", "acme")
    assert (totals.usd, totals.unknown, totals.succeeded) == (Decimal("0.120753"), 0, 1)
    assert scheduler.tables.queues.get("basic", "acme").spent_usd == Decimal("0.120753")
    assert [run.usd for run in book.past("acme", "set-1")] == [Decimal("0.120753")]
    assert book.outbox_entries() == []


def test_a_threshold_is_owed_until_it_is_done(store: Store) -> None:
    scheduler, book = scheduler_over(store), Book(store=store)
    request = admitted(store, 1)
    scheduler.completer.finish(
        [End(request=request, state=State.SUCCEEDED, execution=execution(request, "0.55"))], LIMITS, after(60)
    )
    (outbox_entry,) = book.outbox_entries()
    assert (outbox_entry.what, int(outbox_entry.values["percent"]), outbox_entry.values["spent_usd"]) == (
        "budget",
        50,
        Decimal("0.55"),
    )
    for _ in range(2):
        book.done(outbox_entry)
    assert book.outbox_entries() == []
    assert isinstance(outbox_entry, OutboxEntry)


def test_requests_are_listed_by_what_became_of_them(store: Store) -> None:
    scheduler = scheduler_over(store)
    request = admitted(store, 1, data_set="churn")
    ended = replace(execution(request), state=State.FAILED)
    scheduler.completer.finish(
        [End(request=request, state=State.FAILED, reason="x", execution=ended)], LIMITS, after(60)
    )
    assert [r.request_id for r in scheduler.tables.requests.ended("basic", State.FAILED, "2026-11-21")] == [
        request.request_id
    ]
    assert [r.request_id for r in scheduler.tables.requests.of_data_set("acme", "churn", since=after(-5))] == [
        request.request_id
    ]
    assert scheduler.tables.requests.of_data_set("acme", "churn", since=after(5)) == []
    assert [entry.state for entry in scheduler.tables.requests.of_tenant("acme")[0].history] == [
        State.QUEUED,
        State.ADMITTED,
        State.FAILED,
    ]
    assert scheduler.tables.requests.active(State.RUNNING) == []


def test_what_is_noted_is_there_and_a_tenant_can_be_forgotten(store: Store) -> None:
    scheduler, book = scheduler_over(store), Book(store=store)
    for number in (1, 2, 3):
        request = admitted(store, number)
        end = End(request=request, state=State.SUCCEEDED, execution=execution(request, "0.01"))
        scheduler.completer.finish([end], LIMITS, after(60))
    book.note("x", {"at": "now", "states": {"a": "b"}})
    assert book.noted("x") is not None
    assert book.noted("y") is None
    while book.forget("acme", after(90)):
        pass
    assert list(book.totals("2026-11")) == []
    assert book.executions(submission(1).request_id) == []


def test_a_record_is_never_written_over_another(store: Store) -> None:
    record = execution(admitted(store, 1))
    keys = booking_keys([record])
    store.transact(bookings([record], dict(zip(keys, store.get(*keys), strict=True)), after(60), 1))
    again = bookings([record], dict(zip(keys, store.get(*keys), strict=True)), after(61), 1)
    with pytest.raises(Conflict):
        store.transact(again)


@pytest.mark.parametrize("booked_before", [0, 1])
def test_a_run_booked_meanwhile_is_not_forgotten_by_pace_and_past_runs(store: Store, booked_before: int) -> None:
    """Two recorders read the same, and the second writes over nothing: neither a first booking nor a later one."""
    requests = [admitted(store, number) for number in range(1, booked_before + 3)]
    records = [replace(execution(request), data_set="churn") for request in requests]
    for record in records[:booked_before]:
        keys = booking_keys([record])
        store.transact(bookings([record], dict(zip(keys, store.get(*keys), strict=True)), after(60), 1))
    first, second = records[booked_before:]
    keys = booking_keys([second])
    read = dict(zip(keys, store.get(*keys), strict=True))
    store.transact(bookings([first], read, after(61), 1))
    writes = bookings([second], read, after(62), 1)
    with pytest.raises(Conflict) as conflict:
        store.transact(writes)
    assert {writes[number].key for number in conflict.value.failed} == {
        past_key(second.tenant_id, second.data_set),
        pace_key(second.tenant_id),
    }
