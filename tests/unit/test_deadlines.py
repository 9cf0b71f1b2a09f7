"""Deadlines: which moment a setting means, when a run must start for it, and whose turn follows from that."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from testing.memory_store import MemoryStore
from tests.build import NOW, after, content, policy, request, soft, submission, tenant, tier
from tests.conformance.test_scheduler import Harness as SchedulerHarness
from tests.unit.test_admission import admitted, plan, queue, reasons
from tests.unit.test_use_cases import Harness
from trainyard.contracts.arrivals import parse_arrival, retraining_body
from trainyard.contracts.deadlines import DeadlineEvent, deadline_event
from trainyard.contracts.messages import parse_training_request, training_request_body
from trainyard.domain.arrivals import RetrainingAsked
from trainyard.domain.deadlines import (
    MARGIN_UNKNOWN,
    RATIOS_KEPT,
    RATIOS_NEEDED,
    earliest,
    hopeless_after,
    margin_of,
    next_ready_by,
    with_latest_start,
)
from trainyard.domain.errors import Refused
from trainyard.domain.policy import Policy, TenantPolicy
from trainyard.domain.queues import ProfileQueue, QueueEntry
from trainyard.domain.requests import Basis, Estimate, Request, State, StateChange
from trainyard.domain.scheduling import Reason, WaitingQueue
from trainyard.persistence.requests import Requests
from trainyard.persistence.run_history import ratios_from, ratios_key

# --- the moment that a setting means --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ready_by", "arrives", "deadline"),
    [
        ("06:00 UTC", "2026-11-27T05:59:59", "2026-11-27T06:00"),
        ("06:00 UTC", "2026-11-27T06:00", "2026-11-28T06:00"),
        ("06:00 Europe/Zurich", "2026-11-27T05:30", "2026-11-28T05:00"),
        ("06:00 Europe/Zurich", "2026-07-01T03:00", "2026-07-01T04:00"),
        ("06:00 Pacific/Kiritimati", "2026-11-27T15:00", "2026-11-27T16:00"),
        # The night in which Zurich's clocks skip from 2:00 to 3:00: half past two is half past three.
        ("02:30 Europe/Zurich", "2026-03-29T00:00", "2026-03-29T01:30"),
        # The night in which they show 2:00 to 3:00 twice: the first of the two; after it, the next day's.
        ("02:30 Europe/Zurich", "2026-10-25T00:00", "2026-10-25T00:30"),
        ("02:30 Europe/Zurich", "2026-10-25T00:31", "2026-10-26T01:30"),
        # Samoa skipped 30 December 2011.
        ("12:00 Pacific/Apia", "2011-12-29T23:00", "2011-12-30T22:00"),
    ],
)
def test_a_time_of_day_means_its_next_occurrence(ready_by: str, arrives: str, deadline: str) -> None:
    moment = next_ready_by(ready_by, datetime.fromisoformat(arrives).replace(tzinfo=UTC))
    assert moment == datetime.fromisoformat(deadline).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("ready_by", "reason"),
    [
        ("6 UTC", "not a time of day and a zone"),
        ("25:00 UTC", "not a time of day and a zone"),
        ("06:00:00 UTC", "not a time of day and a zone"),
        ("06:00+01:00 UTC", "not a time of day and a zone"),
        ("06:00", "no time zone ''"),
        ("06:00 Zurich", "no time zone 'Zurich'"),
        ("06:00 ../etc/passwd", "no time zone '../etc/passwd'"),
        ("06:00 " + "x" * 5000, "no time zone"),
    ],
)
def test_what_is_no_time_of_day_in_a_zone_is_refused(ready_by: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        next_ready_by(ready_by, NOW)


# --- the latest start -----------------------------------------------------------------------------------------


def expecting(seconds: int, **changes: Any) -> Request:
    expected = Estimate(
        seconds=seconds, seconds_p90=seconds, job_seconds=1, usd=None, usd_p90=None, basis=Basis.COLD, runs=0
    )
    return request(1, expected=expected, **changes)


def test_a_run_must_start_early_enough_for_nineteen_of_twenty() -> None:
    hurried = with_latest_start(expecting(600, deadline=after(7200)), 1.5, NOW)
    assert hurried.latest_start == after(7200 - 900)
    assert hopeless_after(hurried) == after(7200 - 600)
    assert with_latest_start(expecting(600), 1.5, NOW).latest_start is None


def test_what_arrives_too_late_has_a_deadline_and_no_latest_start() -> None:
    late = expecting(600, deadline=after(599))
    assert with_latest_start(late, 1.0, NOW).latest_start is None
    assert with_latest_start(replace(late, deadline=after(600)), 1.0, NOW).latest_start == NOW


def test_the_margin_is_the_95th_percentile_of_a_tiers_runs() -> None:
    assert margin_of([1.1] * (RATIOS_NEEDED - 1)) == MARGIN_UNKNOWN
    assert margin_of([number / 50 for number in range(1, 101)]) == 1.92
    assert margin_of([0.5] * 20) == 1.0, "never less than what is expected"


def test_of_merged_requests_the_earliest_deadline_that_has_not_passed_counts() -> None:
    assert earliest(after(5), after(9), NOW) == after(5)
    assert earliest(after(-5), after(9), NOW) == after(9)
    assert earliest(after(-5), after(-9), NOW) == after(-5)
    assert earliest(None, after(9), NOW) == after(9)
    assert earliest(None, None, NOW) is None


def test_newest_wins_keeps_the_earliest_deadline_and_the_greatest_priority() -> None:
    harness = SchedulerHarness(MemoryStore())
    harness.enlist(1, data_set="churn", deadline=after(9000), priority=2)
    newer = content(event_time=after(5), etag="f" * 32)
    enlisted = harness.enlist(2, data_set="churn", seconds=5, content=newer, deadline=after(20_000))
    assert (enlisted.request.deadline, enlisted.request.priority) == (after(9000), 2)
    (lane,) = harness.tables.queues.get("basic", "acme").profiles
    assert lane.endswith(" urgent")
    later = content(event_time=after(9500), etag="e" * 32)
    enlisted = harness.enlist(3, data_set="churn", seconds=9500, content=later, deadline=after(99_000))
    assert enlisted.request.deadline == after(99_000), "the other deadline has passed"


def test_how_much_longer_than_expected_runs_of_a_tier_took_is_kept() -> None:
    harness = Harness(limits=policy(tier(quota=90, running_max_per_tenant=90), running_max=90))
    for number in range(1, RATIOS_KEPT + 4):
        expected = harness.request(harness.run_one(number)).expected
        assert expected is not None
        harness.end(submission(number).request_id, seconds=expected.seconds * (2 if number > 3 else 9))
    (item,) = harness.store.get(ratios_key("basic"))
    ratios = ratios_from(item)
    assert (len(ratios), set(ratios)) == (RATIOS_KEPT, {2.0}), "of the last runs alone"


# --- whose turn it is -------------------------------------------------------------------------------------------


def lanes(*entries: QueueEntry, **changes: Any) -> WaitingQueue:
    """Return a tenant's queue with these entries, each in its lane."""
    by_lane: dict[str, list[QueueEntry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.order):
        by_lane.setdefault(entry.lane, []).append(entry)
    profiles = {
        lane: ProfileQueue(waiting=len(some), head=some[0], behind=tuple(some[1:]))
        for lane, some in by_lane.items()
    }
    whole = replace(queue("a", 1).queue, profiles=profiles, **changes)
    return WaitingQueue(queue=whole, entries={lane: tuple(some) for lane, some in by_lane.items()})


def entry(number: int, **changes: Any) -> QueueEntry:
    """Return an entry that arrived at so many seconds."""
    (only,) = queue("a", number).entries.values()
    return replace(only[0], **changes)


def hurried(number: int, latest_start: float, hopeless_after: float = 10_000, **changes: Any) -> QueueEntry:
    times = {"latest_start": after(latest_start), "hopeless_after": after(hopeless_after)}
    return entry(number, **times, **changes)


ONE = policy(tier(quota=1, running_max_per_tenant=9), running_max=1)
EIGHT = policy(tier(quota=8, running_max_per_tenant=9), running_max=8)


def test_the_request_that_must_start_earliest_goes_first() -> None:
    waiting = lanes(entry(1), hurried(2, 900), hurried(3, 800))
    assert admitted(waiting, limits=EIGHT) == ["a-3", "a-2", "a-1"]


def test_a_priority_goes_before_a_deadline_and_both_before_the_others() -> None:
    waiting = lanes(entry(1), hurried(2, 900), entry(3, priority=1), hurried(4, 950, priority=1))
    assert admitted(waiting, limits=EIGHT) == ["a-4", "a-3", "a-2", "a-1"]


def test_every_fourth_admission_of_a_queue_goes_to_the_oldest_of_the_others() -> None:
    waiting = lanes(*(entry(n) for n in (1, 2)), *(hurried(n, 500 + n) for n in range(10, 17)))
    order = admitted(waiting, limits=EIGHT)
    assert order == ["a-10", "a-11", "a-12", "a-1", "a-13", "a-14", "a-15", "a-2"]
    assert admitted(replace(waiting, queue=replace(waiting.queue, urgent_in_a_row=3)), limits=ONE) == ["a-1"]
    assert admitted(replace(waiting, queue=replace(waiting.queue, urgent_in_a_row=2)), limits=ONE) == ["a-10"]


def test_the_kth_oldest_goes_within_4k_admissions_whatever_comes() -> None:
    plain = deque(entry(n) for n in range(1, 6))
    number, row, admissions, gone = 100, 0, 0, []
    while plain:
        some = [hurried(number + n, 500 + number, due_at=NOW) for n in range(4)]
        number += 4
        (first,) = admitted(lanes(*plain, *some, urgent_in_a_row=row), limits=ONE)
        admissions += 1
        if first == plain[0].request_id:
            plain.popleft()
            gone.append(admissions)
        row = 0 if gone and gone[-1] == admissions else min(row + 1, 3)
    assert gone == [4, 8, 12, 16, 20]


def test_the_hopeless_wait_among_the_others_by_arrival() -> None:
    waiting = lanes(entry(5), hurried(6, 50, hopeless_after=99), hurried(7, 60), hurried(2, 40, hopeless_after=90))
    assert admitted(waiting, limits=EIGHT) == ["a-7", "a-2", "a-5", "a-6"]


def test_an_urgent_request_that_is_not_due_holds_up_no_other() -> None:
    waiting = lanes(hurried(1, 500, due_at=after(900)), hurried(2, 600), entry(3))
    assert admitted(waiting, limits=EIGHT) == ["a-2", "a-3"]
    assert reasons(waiting, limits=EIGHT) == {"a-1": Reason.NOT_DUE}


def test_a_queue_is_not_parked_while_an_urgent_request_that_is_not_due_could_go() -> None:
    dear = hurried(2, 600, usd_p90=Decimal("0.05"))
    cheap = hurried(1, 500, due_at=after(900), usd_p90=Decimal("0.01"))
    limits = policy(
        tier(quota=1, running_max_per_tenant=9), tenants={"a": TenantPolicy(budget=soft("0.02"))}, running_max=1
    )
    waiting = lanes(dear, cheap)
    assert reasons(waiting, limits=limits) == {"a-2": Reason.BUDGET}
    assert plan(waiting, limits=limits).parked == {}
    assert plan(lanes(dear), limits=limits).parked.keys() == {("basic", "a")}
    assert plan(lanes(dear, replace(cheap, usd_p90=Decimal("0.05"))), limits=limits).parked.keys() == {
        ("basic", "a")
    }


def test_a_queue_is_not_parked_until_more_is_left_than_its_next_request_needs() -> None:
    dear, cheap = (
        hurried(2, 600, usd_p90=Decimal("0.05")),
        hurried(1, 500, due_at=after(900), usd_p90=Decimal("0.03")),
    )
    limits = policy(tier(quota=1, running_max_per_tenant=9, budget=soft("0.02")), running_max=1)
    assert reasons(lanes(dear, cheap), limits=limits) == {"a-2": Reason.TIER_BUDGET}
    assert plan(lanes(dear, cheap), limits=limits).parked == {}
    (parked,) = plan(lanes(dear), limits=limits).parked.values()
    assert parked.needs_usd == Decimal("0.05")


def test_between_tenants_a_deadline_moves_nobody() -> None:
    waiting = [lanes(hurried(9, 500)), queue("b", 1)]
    assert admitted(*waiting, limits=ONE) == ["b-1"]


# --- how it comes there -----------------------------------------------------------------------------------------


def test_an_upload_gets_the_deadline_and_the_priority_of_its_data_set() -> None:
    settings = replace(tenant().settings, ready_by="06:00 UTC")
    owner = tenant(settings=settings, data_sets={"other": replace(settings, ready_by="", priority=4)})
    harness = Harness(tenants=(owner,))
    harness.upload(key="incoming/churn/a.csv")
    harness.upload(key="incoming/other/a.csv")
    first, second = harness.queues.sent
    assert (first.deadline, first.priority) == (next_ready_by("06:00 UTC", NOW), 0)
    assert (second.deadline, second.priority) == (None, 4)
    assert parse_training_request(training_request_body(first)) == first


def test_what_a_retraining_says_goes_before_what_the_data_set_says() -> None:
    asked = RetrainingAsked(
        account_id="123456789012",
        event_id="e",
        tenant_id="acme",
        data_set="churn",
        ready_by=after(999),
        priority=0,
    )
    assert parse_arrival(retraining_body(asked, NOW)) == asked
    owner = tenant(settings=replace(tenant().settings, ready_by="06:00 UTC", priority=7))
    harness = Harness(tenants=(owner,))
    harness.data_sets.objects["acme", "churn"] = [content()]
    harness.intake.receive([asked], NOW)
    (sent,) = harness.queues.sent
    assert (sent.deadline, sent.priority) == (after(999), 0)


def test_a_request_far_back_in_a_long_queue_is_found_if_it_is_urgent() -> None:
    harness = SchedulerHarness(MemoryStore())
    limits = policy(tier(quota=1, running_max_per_tenant=1), running_max=1)
    for number in range(1, 101):
        harness.enlist(number, limits=limits)
    harness.enlist(101, limits=limits, seconds=5, deadline=after(50_000))
    assert harness.admit(limits, seconds=6) == [submission(101).request_id]


# --- alarms -----------------------------------------------------------------------------------------------------


def behind_another(deadline: float, limits: Policy = ONE) -> tuple[Harness, str]:
    """Return a service whose only slot is taken, and the id of a request that waits with a deadline."""
    harness = Harness(limits=limits)
    harness.run_one(1)
    harness.enlist.enlist(submission(2, deadline=after(deadline)), NOW)
    return harness, submission(2).request_id


def alarms(harness: Harness, *seconds: float) -> list[tuple[float, str]]:
    """Return the time and the kind of each alarm, if deadlines are checked at these times."""
    return [(second, alarm.what) for second in seconds for alarm in harness.deadline_watch.watch(after(second))]


def test_a_deadline_is_at_risk_after_three_checks_in_a_row_and_that_is_published_once() -> None:
    harness, _ = behind_another(2000)  # the run before it is expected to take some 720 s, three of four 1,040 s
    assert alarms(harness, *range(60, 660, 60)) == [(180, "deadline at risk")]
    harness.outbox.relay(after(700))
    ((what, values),) = harness.announcements.told
    assert what == "deadline at risk"
    assert (values["reason"], values["deadline"]) == (Reason.ACCOUNT_LIMIT.value, after(2000).isoformat())
    assert "running_max" in values["would_help"]
    assert DeadlineEvent.model_validate_json(deadline_event(values)).tenant_id == "acme"


def test_a_risk_that_passes_in_between_is_no_alarm() -> None:
    harness, request_id = behind_another(2000)
    assert alarms(harness, 60, 120) == []
    harness.end(submission(1).request_id, seconds=150)
    assert alarms(harness, 180) == []
    assert harness.request(request_id).risk_minutes == 0
    harness.run_one(3)


def test_that_a_deadline_will_be_missed_is_published_once() -> None:
    harness, request_id = behind_another(2000)
    expected = harness.request(request_id).expected
    assert expected is not None
    last = 2000 - expected.seconds
    checks = alarms(harness, last - 1, last, last + 1, last + 60)
    assert checks == [(last + 1, "deadline missed")] or checks == [
        (last + 1, "deadline at risk"),
        (last + 1, "deadline missed"),
    ]


def test_what_arrived_too_late_or_has_time_enough_is_no_alarm() -> None:
    for deadline in (300, 90_000):
        harness, _ = behind_another(deadline)
        assert alarms(harness, *range(60, 420, 60)) == []


def test_a_request_that_goes_meanwhile_is_not_published() -> None:
    harness, request_id = behind_another(2000)
    assert alarms(harness, 60, 120) == []
    watch, note = harness.deadline_watch, harness.scheduler.tables.requests
    stale = note.get_all([request_id])
    harness.end(submission(1).request_id, seconds=125)
    harness.dispatch.run_pass(after(126))
    assert not note.note_deadline(stale[0], risk_minutes=3, miss_published=False)
    assert watch.watch(after(180)) == []


@pytest.mark.parametrize(("seconds", "met"), [(900, True), (2001, False)])
def test_a_receipt_says_whether_a_deadline_was_met(seconds: float, met: bool) -> None:
    harness = Harness()
    harness.enlist.enlist(submission(1, deadline=after(2000)), NOW)
    harness.dispatch.run_pass(NOW)
    request_id = submission(1).request_id
    assert harness.receipts.written[request_id]["deadline"] == {"at": after(2000).isoformat(), "met": None}
    harness.end(request_id, seconds=seconds)
    assert harness.receipts.written[request_id]["deadline"] == {"at": after(2000).isoformat(), "met": met}


def test_how_a_deadline_stands_is_noted_only_if_it_stands_as_it_was_read() -> None:
    harness, request_id = behind_another(2000)
    note, read = harness.scheduler.tables.requests.note_deadline, harness.request(request_id)
    assert note(read, risk_minutes=1, miss_published=False)
    assert not note(read, risk_minutes=2, miss_published=False)
    again = harness.request(request_id)
    assert note(again, risk_minutes=1, miss_published=True)
    assert not note(again, risk_minutes=1, miss_published=False)
    assert harness.request(request_id).miss_published


def note_missed(harness: Harness, request: Request) -> None:
    harness.scheduler.tables.requests.note_deadline(request, risk_minutes=3, miss_published=True)


def note_minutes(harness: Harness, request: Request) -> None:
    harness.scheduler.tables.requests.note_deadline(request, risk_minutes=2, miss_published=False)


def note_published(harness: Harness, request: Request) -> None:
    harness.scheduler.tables.requests.note_deadline(request, risk_minutes=0, miss_published=True)


def note_expedited(harness: Harness, request: Request) -> None:
    change = StateChange(after(5), State.QUEUED, "expedited by ops: because")
    noted = replace(request, history=(*request.history, change))
    harness.scheduler.tables.store.transact([harness.scheduler.tables.requests.set_history(noted)])


@pytest.mark.parametrize("change", [note_missed, note_minutes, note_published, note_expedited])
@pytest.mark.parametrize("newer", [True, False], ids=["a newer upload", "an older upload"])
def test_what_is_noted_about_a_waiting_request_is_not_lost_when_an_upload_is_merged_meanwhile(
    change: Callable[[Harness, Request], None], newer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge writes the whole request; it had read it before the change."""
    harness, request_id = behind_another(2000)
    read_before = harness.request(request_id)
    change(harness, read_before)
    changed = harness.request(request_id)
    assert changed != read_before
    get, stale = Requests.get, deque([read_before])

    def first_get_is_stale(requests: Requests, wanted: str) -> Request | None:
        return stale.popleft() if wanted == request_id and stale else get(requests, wanted)

    monkeypatch.setattr(Requests, "get", first_get_is_stale)
    other = content(bucket="trainyard-t-acme", version_id="v9", sequencer="ff" if newer else "00")
    harness.enlist.enlist(submission(3, data_set="set-2", content=other), after(10))
    assert not stale
    result = harness.request(request_id)
    assert (result.risk_minutes, result.miss_published) == (changed.risk_minutes, changed.miss_published)
    assert result.history[: len(changed.history)] == changed.history
