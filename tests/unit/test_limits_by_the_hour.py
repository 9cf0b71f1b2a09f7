"""Limits that change with the hour: whoever decides, by whatever clock, decides by those that are in force."""

from dataclasses import replace
from datetime import time, timedelta
from typing import Any

import pytest

from cli import windows as words
from simulation.flow import Job
from simulation.what_if import outcome
from testing.memory_store import MemoryStore
from testing.service import scheduler_over
from tests.build import after, choice, content, policy, request, submission, tier
from tests.conformance.test_scheduler import Harness as SchedulerHarness
from tests.unit.test_explain import Harness as ExplainHarness
from tests.unit.test_use_cases import Harness
from trainyard.adapters.aws.store import _action
from trainyard.application.scheduling.completion import End
from trainyard.domain.admission import decide
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.policy import AHEAD_MAX, Policy
from trainyard.domain.queues import TenantQueue, entry_of
from trainyard.domain.requests import State
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.resources import after as later
from trainyard.domain.scheduling import Decision, Ledger, Plan, Reason, Verdict
from trainyard.domain.windows import Once, Weekly, Window
from trainyard.persistence.ledger import LEDGER, Drained, take_units
from trainyard.persistence.store import Update

CHANGE = 600
"""Seconds after NOW at which the night ends."""
ANY: dict[str, Any] = {"running_max_per_tenant": 9, "running_ceiling_per_tenant": 9}


def by_night(quota: int, day: int = 2, **changes: Any) -> Policy:
    """Return limits under which a tier has `quota` slots until CHANGE, and `day` after it."""
    night = Window(name="night", when=Once(after(-3600), after(CHANGE)), tiers={"basic": {"quota": quota}})
    tiers = changes.pop("tiers", (tier(quota=day, **ANY),))
    return policy(*tiers, **{"running_max": 9, "windows": (night,)} | changes)


def service(limits: Policy, waiting: int) -> Harness:
    harness = Harness(limits=limits)
    for number in range(1, waiting + 1):
        harness.enlist.enlist(submission(number), after(0))
    return harness


SHORT: dict[str, Any] = {"runtime_max": timedelta(seconds=30)}
"""Runs that cannot last beyond the change."""


def test_a_pass_whose_clock_is_late_admits_by_the_limits_that_have_come() -> None:
    harness = service(by_night(8, tiers=(tier(quota=2, **ANY, **SHORT),)), 8)
    assert len(harness.dispatch.run_pass(after(CHANGE)).admissions) == 2
    # Before the change by its own clock, it would find room for six more.
    assert harness.dispatch.run_pass(after(CHANGE - 100)).admissions == []
    assert harness.scheduler.tables.ledger.read().epoch == after(CHANGE)


def test_a_pass_that_admits_nobody_still_notes_that_the_limits_have_changed() -> None:
    harness = service(by_night(8, tiers=(tier(quota=2, **ANY, **SHORT),)), 0)
    harness.dispatch.run_pass(after(CHANGE))
    for number in range(1, 9):
        harness.enlist.enlist(submission(number), after(CHANGE - 100))
    assert len(harness.dispatch.run_pass(after(CHANGE - 100)).admissions) == 2


def test_a_decision_by_earlier_limits_is_void_when_later_ones_were_noted_meanwhile() -> None:
    limits = by_night(8, tiers=(tier(quota=2, **ANY, **SHORT),))
    store = MemoryStore()
    harness = SchedulerHarness(store)
    for number in range(1, 9):
        harness.enlist(number, limits=limits)
    read_set = harness.scheduler.admitter.read(limits, after(1))
    plan = decide(read_set.snapshot, read_set.policy, after(1))
    assert len(plan.admissions) == 8
    harness.tables.ledger.note_epoch(after(CHANGE), harness.tables.ledger.read())
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, read_set, read_set.policy, after(1))


def test_limits_are_noted_only_on_the_ledger_that_was_read() -> None:
    store = MemoryStore()
    tables = scheduler_over(store).tables
    before = tables.ledger.read()
    tables.ledger.note_epoch(after(CHANGE), before)
    with pytest.raises(Conflict):
        tables.ledger.note_epoch(after(0), before)
    assert tables.ledger.read().epoch == after(CHANGE)


def test_a_commit_keeps_the_later_of_two_epochs() -> None:
    limits = by_night(8, tiers=(tier(quota=2, **ANY, **SHORT),))
    harness = SchedulerHarness(MemoryStore())
    harness.enlist(1, limits=limits)
    read_set = harness.scheduler.admitter.read(limits, after(0))
    ledger = replace(read_set.snapshot.ledger, epoch=after(CHANGE))
    read_set = replace(read_set, snapshot=replace(read_set.snapshot, ledger=ledger))
    plan = decide(read_set.snapshot, read_set.policy, after(0))
    harness.scheduler.admitter.commit(plan, read_set, read_set.policy, after(0))
    assert harness.tables.ledger.read().epoch == after(CHANGE)


def test_a_boundary_wakes_the_dispatcher() -> None:
    harness = service(by_night(1, day=4, tiers=(tier(quota=4, **ANY, **SHORT),)), 3)
    report = harness.dispatch.run_pass(after(CHANGE - 30))
    assert len(report.admissions) == 1
    assert harness.bell.rings == [after(CHANGE)]
    assert len(harness.dispatch.run_pass(after(CHANGE), sweep=False).admissions) == 2


def test_only_the_timers_pass_rings_for_a_boundary() -> None:
    harness = service(by_night(1, day=4, tiers=(tier(quota=4, **ANY, **SHORT),)), 3)
    harness.dispatch.run_pass(after(CHANGE - 30), sweep=False)
    assert harness.bell.rings == []


def test_a_boundary_wakes_it_for_tiers_that_it_did_not_read() -> None:
    harness = service(by_night(1, day=4, tiers=(tier(quota=4, **ANY, **SHORT),)), 3)
    harness.dispatch.run_pass(after(0))
    harness.bell.rings.clear()
    harness.dispatch.run_pass(after(CHANGE - 30))
    assert harness.bell.rings == [after(CHANGE)]


# --- runs that last beyond a change -----------------------------------------------------------------------------


def test_runs_that_last_beyond_a_change_count_against_the_quota_after_it() -> None:
    harness = service(by_night(8), 8)
    report = harness.dispatch.run_pass(after(0))
    assert len(report.admissions) == 2
    assert {wait.reason for wait in report.plan.waits} == {Reason.LOWER_LIMIT_AHEAD}
    resource = later(after(CHANGE), "tier/basic")
    assert harness.scheduler.tables.ledger.read().usage[resource] == 2
    # One that ends gives its place back, before the change.
    first = harness.request(submission(1).request_id)
    assert first.ahead == (resource,)
    harness.scheduler.completer.finish([End(request=first, state=State.SUCCEEDED)], harness.limits, after(60))
    assert harness.scheduler.tables.ledger.read().usage[resource] == 1
    assert len(harness.dispatch.run_pass(after(61)).admissions) == 1
    # After it, what was counted for it is forgotten with the next commit, and its end finds nothing to give back.
    second = harness.request(submission(2).request_id)
    harness.scheduler.completer.finish([End(request=second, state=State.SUCCEEDED)], harness.limits, after(CHANGE))
    assert len(harness.dispatch.run_pass(after(CHANGE)).admissions) == 1
    assert resource not in harness.scheduler.tables.ledger.read().usage


def test_what_lasts_through_the_night_counts_among_those_of_the_morning() -> None:
    """A run that is admitted while the quota is low, and outlasts hours in which it is high."""
    night = Window(name="night", when=Once(after(CHANGE), after(2 * CHANGE)), tiers={"basic": {"quota": 8}})
    harness = service(policy(tier(quota=2, **ANY), running_max=9, windows=(night,)), 8)
    assert len(harness.dispatch.run_pass(after(0)).admissions) == 2
    assert harness.scheduler.tables.ledger.read().usage[later(after(2 * CHANGE), "tier/basic")] == 2
    assert harness.dispatch.run_pass(after(CHANGE)).admissions == []


def test_a_commit_fits_the_expressions_of_dynamodb_whatever_changes() -> None:
    pools = [f"ml.m5.{n}xlarge" for n in range(1, 9)]
    choices = tuple(choice(n + 1, training=pool) for n, pool in enumerate(pools))
    closing = {f"training/{pool}": 40 for pool in pools}
    window = Window(
        name="day",
        when=Weekly(tuple(range(7)), time(6), time(20), 0, "UTC"),
        limits={"running_max": 50},
        instance_quotas=closing,
        tiers={name: {"quota": 16} for name in ("basic", "standard", "premium")},
    )
    limits = policy(
        *(tier(name, quota=30, **ANY, instances=choices, runtime_max=timedelta(days=9)) for name in window.tiers),
        running_max=90,
        instance_quotas=dict.fromkeys(closing, 60),
        windows=(window,),
    ).at(after(8.5 * 3600))
    ledger = Ledger(admission_version=1)
    decisions = [
        Decision(
            entry=entry_of(request(n, tier=name, profile=str(ResourceProfile.of(choices[n % 8])))),
            queue=TenantQueue(tenant_id="t", tier=name),
            verdict=Verdict.ADMIT,
            reason=Reason.SLOT_FREE,
            ahead=limits.ahead_of(ResourceProfile.of(choices[n % 8]).demand(name), after(30 * 86_400)),
        )
        for n, name in enumerate([*window.tiers] * 16)
    ]
    plan = Plan(
        admissions=tuple(decisions), waits=(), virtual_time_by_tier={}, capacity_holds={}, starts_from=None
    )
    update = take_units(decisions, plan, ledger, limits, after(0), Drained(through=None, before={}))
    action = _action(update, {"scheduler": "table"})["Update"]
    assert len(decisions[0].ahead) >= 3 * AHEAD_MAX
    assert len(action["UpdateExpression"]) < 4096
    assert len(action["ConditionExpression"]) < 4096
    assert len(action["ExpressionAttributeNames"]) < 300


def test_what_is_over_before_the_change_is_not_counted() -> None:
    harness = service(by_night(8, tiers=(tier(quota=2, **ANY, **SHORT),)), 8)
    assert len(harness.dispatch.run_pass(after(CHANGE - 200)).admissions) == 8


def test_an_end_before_the_change_by_a_clock_that_is_late_does_no_harm() -> None:
    harness = service(by_night(8), 3)
    harness.dispatch.run_pass(after(0))
    harness.dispatch.run_pass(after(CHANGE))
    harness.enlist.enlist(submission(4), after(CHANGE))
    first = harness.request(submission(1).request_id)
    harness.scheduler.completer.finish(
        [End(request=first, state=State.SUCCEEDED)], harness.limits, after(CHANGE - 9)
    )
    harness.dispatch.run_pass(after(CHANGE))
    usage = harness.scheduler.tables.ledger.read().usage
    assert {name: n for name, n in usage.items() if n} == {
        "slots": 2,
        "tier/basic": 2,
        "training/ml.m5.large": 2,
        "processing/ml.t3.medium": 2,
    }


def test_a_recount_corrects_what_is_counted_ahead_until_the_change_comes() -> None:
    harness = service(by_night(8), 2)
    harness.dispatch.run_pass(after(0))
    resource = later(after(CHANGE), "tier/basic")
    harness.store.transact([Update(LEDGER, add={f"used/{resource}": 3, "usage_version": 1})])
    assert harness.scheduler.operations.recount(after(CHANGE)) == {}
    assert harness.scheduler.operations.recount(after(10)) == {resource: 3}
    assert harness.scheduler.tables.ledger.read().usage[resource] == 2


def test_a_request_that_goes_back_gives_back_what_was_counted_ahead() -> None:
    harness = service(by_night(8), 1)
    harness.dispatch.run_pass(after(0))
    first = harness.request(submission(1).request_id)
    harness.scheduler.completer.requeue(first, harness.limits, after(5), due_at=after(20), reason="capacity")
    assert harness.request(first.request_id).ahead == ()
    assert not any(harness.scheduler.tables.ledger.read().usage.values())


def test_instances_are_not_held_for_a_request_that_a_lower_limit_ahead_keeps_waiting() -> None:
    pool = "training/ml.m5.large"
    limits = by_night(
        8,
        tiers=(tier(quota=2, **ANY, hold_age=timedelta(0), instances=(choice(), choice(900, instances=2))),),
        instance_quotas={pool: 4},
    )
    harness = service(limits, 2)
    large = content("incoming/9/a.csv", size_bytes=500 * 1024 * 1024)
    harness.enlist.enlist(submission(9, content=large, tenant_id="acme"), after(0))
    report = harness.dispatch.run_pass(after(30))
    assert len(report.admissions) == 2
    report = harness.dispatch.run_pass(after(60))
    assert (report.admissions, dict(report.plan.capacity_holds)) == ([], {})


def test_a_queue_parked_under_other_limits_is_looked_at_when_they_change() -> None:
    pool = "training/ml.m5.large"
    night = Window(name="night", when=Once(after(-3600), after(CHANGE)), instance_quotas={pool: 1})
    limits = policy(
        tier(quota=2, **ANY, instances=(choice(), choice(900, instances=2))),
        instance_quotas={pool: 4},
        windows=(night,),
    )
    harness = Harness(limits=limits)
    large = content("incoming/9/a.csv", size_bytes=500 * 1024 * 1024)
    harness.enlist.enlist(submission(9, content=large), after(0))
    report = harness.dispatch.run_pass(after(1))
    # It will fit, without anybody's help: it is not parked.
    assert [wait.reason for wait in report.plan.waits] == [Reason.NOT_AT_THIS_HOUR]
    assert harness.scheduler.tables.queues.get("basic", "acme").parked_for is None
    assert len(harness.dispatch.run_pass(after(CHANGE), sweep=False).admissions) == 1
    never = content("incoming/8/a.csv", size_bytes=500 * 1024 * 1024)
    small = replace(limits, instance_quotas={pool: 1}, windows=(replace(night, instance_quotas={pool: 1}),))
    harness = Harness(limits=small)
    harness.enlist.enlist(submission(8, content=never), after(0))
    assert [w.reason for w in harness.dispatch.run_pass(after(1)).plan.waits] == [Reason.NEVER_FITS]
    assert harness.scheduler.tables.queues.get("basic", "acme").parked_for
    # Under other limits it is looked at again.
    assert harness.dispatch.run_pass(after(CHANGE)).unparked == 1


# --- what people see --------------------------------------------------------------------------------------------


def test_why_knows_the_change_and_expects_the_start_after_it() -> None:
    harness = ExplainHarness(by_night(8, day=1))
    for number in (1, 2):
        harness.enlist(number)
    limits = by_night(8, day=1).at(after(0))
    read_set = harness.scheduler.admitter.read(limits, after(0))
    plan = decide(read_set.snapshot, read_set.policy, after(0))
    harness.scheduler.admitter.commit(plan, read_set, read_set.policy, after(0))
    found = harness.why(submission(2).request_id)
    assert found.reason is Reason.LOWER_LIMIT_AHEAD
    # When nine of ten such runs are over, or as soon as the first one is.
    assert (found.earliest, found.latest) == (after(360), after(1440))


def test_why_expects_a_start_when_a_quota_is_raised() -> None:
    limits = by_night(1, day=2)
    harness = ExplainHarness(limits)
    for number in (1, 2):
        harness.enlist(number)
    read_set = harness.scheduler.admitter.read(limits, after(0))
    plan = decide(read_set.snapshot, read_set.policy, after(0))
    harness.scheduler.admitter.commit(plan, read_set, read_set.policy, after(0))
    found = harness.why(submission(2).request_id)
    assert (found.reason, found.earliest, found.latest) == (Reason.TIER_QUOTA, after(360), after(CHANGE))


def test_a_closed_tier_says_so_and_opens_again() -> None:
    closed = Window(name="upgrade", when=Once(after(-60), after(CHANGE)), tiers={"basic": {"closed": True}})
    harness = ExplainHarness(policy(tier(), windows=(closed,)))
    harness.enlist(1)
    found = harness.why(submission(1).request_id)
    assert (found.reason, found.earliest) == (Reason.TIER_CLOSED, after(CHANGE))
    assert "policy show" in found.cure


def test_the_next_change_is_told_in_words() -> None:
    night = by_night(8).at(after(0))
    assert words.lines_about(night, after(0)) == [
        "windows open: night",
        "next change of limits: 2026-11-21 12:10 UTC, in 10 min: basic quota 8 → 2",
    ]
    assert words.lines_about(night.at(after(CHANGE)), after(CHANGE)) == [
        "windows open: none",
        "next change of limits: none",
    ]
    assert words.lines_about(policy(), after(0)) == []
    assert words.as_data(night)["next_change"]["changes"] == ["basic quota 8 → 2"]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-28T23:00", "2026-11-28T23:00:00+00:00"),
        ("2026-11-28T23:00+01:00", "2026-11-28T23:00:00+01:00"),
        ("2026-11-28T23:00 Europe/Zurich", "2026-11-28T23:00:00+01:00"),
        ("2026-11-28 23:00", "2026-11-28T23:00:00+00:00"),
    ],
)
def test_times_are_read_with_their_zone(text: str, utc: str) -> None:
    assert words.parse_time(text).isoformat() == utc


@pytest.mark.parametrize("text", ["tomorrow", "", "2026-11-28T23:00+01:00 UTC", "2026-11-28T23:00 Mars", "25:00"])
def test_times_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(Refused):
        words.parse_time(text)


def test_a_what_if_runs_through_the_hours() -> None:
    begin = after(-3600)
    jobs = [Job(n, 60.0 * n, "acme", "basic", 300.0) for n in range(120)]
    found = outcome(jobs, by_night(8, tiers=(tier(quota=2, **ANY, **SHORT),)), begin)
    assert [result.windows for result in found.hours] == ["", "night"]
    day, night = found.hours
    assert night.slots_used_mean > 4 > 2.1 > day.slots_used_mean > 1
    assert night.hours == pytest.approx((3600 + CHANGE) / 3600)
    assert outcome(jobs, policy(), begin).hours == []


def test_a_what_if_ends_where_a_request_never_starts() -> None:
    begin = after(-3600)
    limits = by_night(8, tiers=(replace(tier(), closed=True),))
    assert len(outcome([Job(1, 0.0, "acme", "basic", 60.0)], limits, begin).runs) == 0
