from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.build import NOW, after, choice, hard, policy, tier
from trainyard.domain.admission import decide
from trainyard.domain.fair_share import entitlements
from trainyard.domain.policy import Policy, TenantPolicy
from trainyard.domain.queues import ProfileQueue, QueueEntry, TenantQueue, milliseconds
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.scheduling import Decision, Holder, Ledger, Plan, Reason, Snapshot, WaitingQueue
from trainyard.domain.windows import Once, Window

SMALL, LARGE = str(ResourceProfile.of(choice())), str(ResourceProfile.of(choice(instances=4)))
POOL = "training/ml.m5.large"


def queue(
    tenant_id: str,
    *arrivals: float,
    tier: str = "basic",
    profile: str = SMALL,
    due: float | None = None,
    is_short: bool = False,
    **changes: Any,
) -> WaitingQueue:
    entries = tuple(
        QueueEntry(
            request_id=f"{tenant_id}-{seconds}",
            data_set=f"{seconds}",
            profile=profile,
            arrived_at=after(seconds),
            due_at=after(seconds if due is None else due),
            is_short=is_short,
        )
        for seconds in arrivals
    )
    profiles = {profile: ProfileQueue(waiting=len(entries), head=entries[0])} if entries else {}
    running = changes.pop("running", 0)
    changes["holders"] = tuple(f"{tenant_id}-held-{number}" for number in range(running))
    changes.setdefault("units", running)
    changes.setdefault("units_since_ms", changes["units"] * milliseconds(after(0)))
    return WaitingQueue(
        queue=TenantQueue(tenant_id=tenant_id, tier=tier, revision=1, profiles=profiles, **changes),
        entries={profile: entries} if entries else {},
    )


def plan(
    *queues: WaitingQueue, limits: Policy, used: dict[str, int] | None = None, at: float = 100, **more: Any
) -> Plan:
    counts = used or {}
    resources = more.pop("resources", {})
    holders, partial = more.pop("holders", ()), more.pop("partial", frozenset())
    admissions_max = more.pop("admissions_max", 25)
    expedited = more.pop("expedited", {})
    usage = {"slots": sum(counts.values())} | {f"tier/{name}": count for name, count in counts.items()} | resources
    ledger = Ledger(admission_version=1, usage=usage, **more)
    snapshot = Snapshot(ledger=ledger, queues=queues, holders=holders, partial=partial, expedited=expedited)
    return decide(snapshot, limits, after(at), admissions_max=admissions_max)


def admitted(*queues: WaitingQueue, **more: Any) -> list[str]:
    return [decision.entry.request_id for decision in plan(*queues, **more).admissions]


def reasons(*queues: WaitingQueue, **more: Any) -> dict[str, Reason]:
    return {decision.entry.request_id: decision.reason for decision in plan(*queues, **more).waits}


# --- above a cap --------------------------------------------------------------------------------------------

YIELDING = policy(
    tier("basic", quota=4, borrowing_limit=2, running_max_per_tenant=1, running_ceiling_per_tenant=None),
    tier("premium", quota=4, lending_limit=3, running_max_per_tenant=2, running_ceiling_per_tenant=3),
    running_max=8,
)


def test_a_tenant_exceeds_its_cap_and_leaves_one_slot_of_its_tier_free() -> None:
    assert admitted(queue("a", *range(9)), limits=YIELDING) == [f"a-{n}" for n in range(5)]  # of 4 + 2
    assert [d.above_cap for d in plan(queue("a", *range(9)), limits=YIELDING).admissions] == [False, *[True] * 4]
    assert reasons(queue("a", *range(9)), limits=YIELDING) == {"a-5": Reason.ABOVE_CAP}


def test_a_tenant_above_its_cap_leaves_one_slot_of_the_account_free() -> None:
    narrow = replace(YIELDING, running_max=3)
    assert admitted(queue("a", *range(9)), limits=narrow) == ["a-0", "a-1"]
    throttled = {"throttled_to": 4, "throttled_until": NOW + timedelta(minutes=5)}
    assert admitted(queue("a", *range(9)), limits=YIELDING, **throttled) == ["a-0", "a-1", "a-2"]


def test_short_runs_take_the_slot_that_is_kept_free() -> None:
    short = queue("a", *range(9), is_short=True)
    assert admitted(short, limits=YIELDING) == [f"a-{n}" for n in range(6)]
    assert admitted(short, limits=replace(YIELDING, running_max=3)) == ["a-0", "a-1", "a-2"]
    # The first in order would take it, and may not: the next one may.
    waiting = [queue("a", 1, 2), queue("b", 5, 6, is_short=True)]
    assert admitted(*waiting, limits=replace(YIELDING, running_max=3)) == ["a-1", "b-5", "b-6"]


def test_a_tenant_stops_at_its_ceiling() -> None:
    assert admitted(queue("b", *range(9), tier="premium"), limits=YIELDING) == ["b-0", "b-1", "b-2"]
    assert reasons(queue("b", *range(9), tier="premium"), limits=YIELDING) == {"b-3": Reason.TENANT_CAP}
    own = replace(YIELDING, tenants={"b": TenantPolicy(running_ceiling=4), "c": TenantPolicy(running_max=4)})
    assert len(admitted(queue("b", *range(9), tier="premium", is_short=True), limits=own)) == 4
    assert len(admitted(queue("c", *range(9), tier="premium"), limits=own)) == 4, "a ceiling is never below a cap"


def test_whoever_is_below_a_cap_goes_first_even_if_its_tier_has_to_borrow() -> None:
    waiting = [queue("a", 1, tier="premium", running=2), queue("b", 2)]
    order = admitted(*waiting, limits=YIELDING, used={"basic": 4, "premium": 2})
    assert order == ["b-2"], "two slots were free; the second one is kept"
    # Nobody of basic may borrow here: what premium does not lend stays free, and is premium's own to exceed with.
    waiting = [queue("a", 1, tier="premium", running=2), queue("b", 2)]
    hoarding = replace(YIELDING, tiers=(YIELDING.tiers[0], replace(YIELDING.tiers[1], lending_limit=0)))
    assert admitted(*waiting, limits=hoarding, used={"basic": 4, "premium": 2}) == ["a-1"]


def test_above_caps_the_tier_below_its_quota_goes_before_one_that_borrows() -> None:
    waiting = [queue("b", 1, running=1), queue("a", 2, tier="premium", running=2)]
    order = admitted(*waiting, limits=YIELDING, used={"basic": 4, "premium": 2})
    assert order == ["a-2"]
    alone = plan(waiting[0], limits=YIELDING, used={"basic": 4, "premium": 2}).admissions
    assert [(d.entry.request_id, d.borrowed, d.above_cap) for d in alone] == [("b-1", True, True)]


def test_nobody_exceeds_a_cap_while_a_tier_has_queues_that_were_not_read() -> None:
    for unread in ("basic", "premium"):
        assert admitted(queue("a", 1, running=1), limits=YIELDING, partial=frozenset({unread})) == []
    full = {"partial": frozenset({"premium"}), "used": {"basic": 1, "premium": 4}}
    only = replace(YIELDING, tiers=(YIELDING.tiers[0], replace(YIELDING.tiers[1], lending_limit=0)))
    assert admitted(queue("a", 1, running=1), limits=only, **full) == ["a-1"], "a full tier hides nobody"


def test_what_instances_are_held_for_does_not_exceed_a_cap_with_them() -> None:
    mixed = WaitingQueue(
        queue=queue("a", 1).queue,
        entries={**queue("a", 1).entries, **queue("a", 2, profile=LARGE, is_short=True).entries},
    )
    limits = replace(YIELDING, instance_quotas={POOL: 8})
    assert admitted(mixed, limits=limits, used={"basic": 4}) == ["a-1", "a-2"]
    limits = replace(limits, tiers=tuple(replace(t, hold_age=timedelta(0)) for t in limits.tiers))
    held = plan(mixed, limits=limits, used={"basic": 4})
    assert [decision.entry.request_id for decision in held.admissions] == ["a-1"]
    assert held.capacity_holds == {POOL: "a-2"}


def test_a_tenant_above_its_cap_takes_nothing_from_what_borrowing_keeps_free() -> None:
    """A tenant above its cap once made the slots reserved for its tier negative, and lent more than there were."""
    waiting = [queue("a", *range(5), tier="premium", running=4), queue("b", *range(9), running=1)]
    assert len(admitted(*waiting, limits=YIELDING, used={"basic": 4, "premium": 3})) == 0


# --- tiers and borrowing ------------------------------------------------------------------------------------

TWO = policy(tier("basic", quota=4), tier("premium", quota=4), running_max=2)
LENDING = policy(
    tier("basic", quota=2, borrowing_limit=4, running_max_per_tenant=9),
    tier("premium", quota=4, lending_limit=3, running_max_per_tenant=9),
    running_max=6,
)


def test_a_free_slot_goes_to_the_request_that_arrived_first() -> None:
    assert admitted(queue("b", 2), queue("a", 1), limits=policy(tier(quota=1))) == ["a-1"]


def test_the_tier_that_uses_least_of_its_quota_goes_first() -> None:
    waiting = [queue("a", 1), queue("b", 2, tier="premium")]
    assert admitted(*waiting, limits=TWO, used={"basic": 1}) == ["b-2"]


def test_of_tiers_that_use_as_much_the_one_served_longest_ago_goes_first() -> None:
    waiting = [queue("a", 1), queue("b", 2, tier="premium")]
    order = admitted(*waiting, limits=TWO, served_by_tier={"basic": 7, "premium": 5})
    assert order == ["b-2", "a-1"]


def test_neither_the_accounts_nor_the_tiers_limit_is_exceeded() -> None:
    waiting = [queue(f"a{n}", n) for n in range(5)] + [queue(f"b{n}", n, tier="premium") for n in range(5)]
    assert len(admitted(*waiting, limits=policy(tier(quota=2), tier("premium", quota=1)))) == 3
    assert len(admitted(*waiting, limits=TWO)) == 2


def test_a_tier_borrows_what_another_lends_and_no_more() -> None:
    # 2 of its own, and of premium's 4 idle slots the 3 that it lends
    assert len(admitted(queue("a", *range(9)), limits=LENDING)) == 5
    borrowed = [d.borrowed for d in plan(queue("a", *range(9)), limits=LENDING).admissions]
    assert borrowed == [False, False, True, True, True]


def test_nothing_is_lent_that_its_tier_could_use_itself() -> None:
    # premium could use 3 of its 4 slots: 4 free - 3 reserved lends 1, and only to basic's third
    waiting = [queue("a", *range(9)), queue("b", 1, 2, 3, tier="premium")]
    assert sorted(admitted(*waiting, limits=LENDING)) == ["a-0", "a-1", "a-2", "b-1", "b-2", "b-3"]
    blocked = [queue("a", *range(9)), queue("b", 1, 2, 3, tier="premium", paused=True)]
    assert len(admitted(*blocked, limits=LENDING)) == 5, "who cannot go reserves nothing"


def test_above_its_borrowing_limit_a_tier_admits_nobody() -> None:
    found = reasons(queue("a", 1), limits=LENDING, used={"basic": 6})
    assert found == {"a-1": Reason.ACCOUNT_LIMIT}
    kept = reasons(
        queue("a", 1), queue("b", 1, 2, 3, 4, tier="premium", paused=True), limits=LENDING, used={"basic": 5}
    )
    assert kept["a-1"] is Reason.NOTHING_TO_BORROW


def test_a_limit_lowered_below_use_admits_nobody() -> None:
    assert admitted(queue("a", 1), limits=policy(tier(quota=1)), used={"basic": 3}) == []


# --- fairness inside a tier -----------------------------------------------------------------------------------

ONE_SLOT = policy(tier(quota=1, running_max_per_tenant=9))


def test_the_tenant_that_used_least_goes_first_whoever_came_first() -> None:
    assert admitted(queue("a", 1, service_ms=500), queue("b", 2, service_ms=400), limits=ONE_SLOT) == ["b-2"]


def test_what_runs_counts_as_it_runs_divided_by_the_weight() -> None:
    # at 100 s: a has run for 100 s of weight 4 = 25,000 ms; b has used 30,000 ms
    limits = policy(tier(quota=1, running_max_per_tenant=9), tenants={"a": TenantPolicy(weight=4)})
    found = queue("a", 1, running=1), queue("b", 2, service_ms=30_000)
    assert plan(*found, limits=limits, used={"basic": 1}).virtual_time_by_tier["basic"] == 25_000


def test_nobody_takes_all_slots_at_once_since_elapsed_time_is_still_nothing() -> None:
    limits = policy(tier(quota=4, running_max_per_tenant=9))
    waiting = [queue("a", *range(9)), queue("b", *range(50, 59))]
    assert sorted(d[0] for d in admitted(*waiting, limits=limits)) == ["a", "a", "b", "b"]


def test_a_tenants_weight_decides_its_share() -> None:
    limits = policy(tier(quota=4, running_max_per_tenant=9), tenants={"a": TenantPolicy(weight=3)})
    waiting = [queue("a", *range(9)), queue("b", *range(9))]
    assert sorted(d[0] for d in admitted(*waiting, limits=limits)) == ["a", "a", "a", "b"]


def test_what_a_cap_leaves_goes_to_the_others() -> None:
    # 8 slots: b is capped at 1, so a and c share the other 7 by weight
    assert entitlements(8, {"a": (1, 9), "b": (1, 1), "c": (1, 9)}) == {"b": 1.0, "a": 3.5, "c": 3.5}


def test_a_burst_of_one_tenant_does_not_delay_another() -> None:
    burst = queue("noisy", *range(90), running=1, service_ms=10)
    assert admitted(burst, queue("quiet", 99), limits=policy(tier(quota=2)), used={"basic": 1}) == ["quiet-99"]


def test_a_queue_that_comes_back_from_nothing_begins_at_the_least_tag_of_those_that_wait() -> None:
    found = plan(queue("a", 1, 2, service_ms=900), queue("b", 2, service_ms=700), limits=ONE_SLOT)
    assert found.virtual_time_by_tier == {"basic": 900}, "b, the least, was admitted; a waits with 900"
    assert plan(queue("b", 2, service_ms=700), limits=ONE_SLOT).virtual_time_by_tier == {"basic": 700}


def test_scarce_instances_are_charged_by_the_instance() -> None:
    large = queue("a", 1, profile=LARGE)
    assert [d.charge for d in plan(large, limits=ONE_SLOT).admissions] == [1]
    scarce = policy(tier(quota=1), instance_quotas={POOL: 8})
    assert [d.charge for d in plan(large, limits=scarce).admissions] == [4]


# --- what is in the way -----------------------------------------------------------------------------------------


def test_a_tenant_at_its_cap_is_passed_over_and_blocks_nobody() -> None:
    limits = policy(tier(quota=3, running_max_per_tenant=1), tenants={"b": TenantPolicy(running_max=2)})
    waiting = [queue("a", 1, 2, running=1), queue("b", 3, 4, running=1)]
    assert admitted(*waiting, limits=limits, used={"basic": 2}) == ["b-3"]
    assert reasons(*waiting, limits=limits, used={"basic": 2})["a-1"] is Reason.TENANT_CAP


@pytest.mark.parametrize(
    ("waiting", "more", "reason"),
    [
        (queue("a", 1), {"paused": True}, Reason.ALL_PAUSED),
        (queue("a", 1), {"paused_tiers": frozenset({"basic"})}, Reason.TIER_PAUSED),
        (queue("a", 1, paused=True), {}, Reason.TENANT_PAUSED),
        (queue("a", 1, due=101), {}, Reason.NOT_DUE),
        (queue("a", 1, tier="gone"), {}, Reason.UNKNOWN_TIER),
        (queue("a", 1), {"used": {"basic": 2}}, Reason.TIER_QUOTA),
        (queue("a", 1), {"used": {"other": 4}}, Reason.ACCOUNT_LIMIT),
        (queue("a", 1), {"unmanaged": 4}, Reason.ACCOUNT_LIMIT),
        (queue("a", 1), {"throttled_to": 0, "throttled_until": after(101)}, Reason.ACCOUNT_LIMIT),
    ],
    ids=lambda value: value.name if isinstance(value, Reason) else "",
)
def test_each_wait_names_what_is_in_its_way(waiting: WaitingQueue, more: dict[str, Any], reason: Reason) -> None:
    found = plan(waiting, limits=policy(), **more)
    assert (found.admissions, [wait.reason for wait in found.waits]) == ((), [reason])


def test_a_shrunk_account_opens_again() -> None:
    assert admitted(queue("a", 1), limits=policy(), throttled_to=0, throttled_until=after(100)) == ["a-1"]


def test_in_a_maintenance_window_its_tiers_admit_nobody() -> None:
    window = Window(name="closed", when=Once(after(-60), after(180)), tiers={"basic": {"closed": True}})
    limits = policy(tier(), tier("premium"), windows=(window,))
    waiting = [queue("a", 1), queue("b", 1, tier="premium")]
    assert admitted(*waiting, limits=limits.at(after(0))) == ["b-1"]
    assert reasons(*waiting, limits=limits.at(after(0))) == {"a-1": Reason.TIER_CLOSED}
    assert admitted(*waiting, limits=limits.at(after(180)), at=180) == ["a-1", "b-1"]


def test_starts_are_spread_over_time_and_the_next_time_is_named() -> None:
    limits = policy(tier(quota=9), running_max=9, starts_per_second=0.5, starts_burst=2)
    waiting = [queue(f"t{n}", 1) for n in range(5)]
    found = plan(*waiting, limits=limits)
    assert (len(found.admissions), found.again_at) == (2, after(102))
    assert {wait.reason for wait in found.waits} == {Reason.START_RATE}
    assert len(plan(*waiting, limits=limits, starts_from=after(98)).admissions) == 1
    assert len(plan(*waiting, limits=limits, starts_from=after(0)).admissions) == 2, (
        "a rest saves up a burst at most"
    )


def test_a_possible_cost_above_what_is_left_of_the_budget_waits_and_is_set_aside() -> None:
    # worst case: (3,600 + 120) s x (2 x 0.05 + 0.115 + 3 x 30 GB x 0.14/730) USD/h = 0.240002 USD,
    # each of three jobs rounded up to a millionth.
    worst = Decimal("0.240003")
    limits = policy(tier(), tenants={"a": TenantPolicy(budget=hard("1"))})
    fits = plan(queue("a", 1, month="2026-11", spent_usd=1 - worst), limits=limits)
    assert [d.reserved_usd for d in fits.admissions] == [worst]
    little = Decimal("0.000001")
    over = plan(queue("a", 1, month="2026-11", spent_usd=1 - worst, reserved_usd=little), limits=limits)
    assert [wait.reason for wait in over.parked.values()] == [Reason.BUDGET]


def test_two_admissions_of_one_pass_share_the_budget() -> None:
    limits = policy(tier(running_max_per_tenant=2), tenants={"a": TenantPolicy(budget=hard("0.3"))})
    assert admitted(queue("a", 1, 2), limits=limits) == ["a-1"]


def test_instances_are_counted_by_type_and_a_lane_without_any_holds_up_no_other() -> None:
    other = str(ResourceProfile.of(choice(training="ml.m5.xlarge")))
    limits = policy(tier(running_max_per_tenant=9), instance_quotas={POOL: 2})
    mixed = WaitingQueue(
        queue=queue("a", 1).queue, entries=dict(queue("a", 1).entries) | dict(queue("a", 2, profile=other).entries)
    )
    found = plan(mixed, limits=limits, resources={POOL: 2})
    assert [d.entry.request_id for d in found.admissions] == ["a-2"]
    assert [wait.reason for wait in found.waits] == [Reason.INSTANCE_QUOTA]


def test_what_never_fits_waits_with_that_reason() -> None:
    limits = policy(instance_quotas={POOL: 3})
    assert reasons(queue("a", 1, profile=LARGE), limits=limits) == {"a-1": Reason.NEVER_FITS}


def test_no_more_are_admitted_than_fit_one_transaction() -> None:
    waiting = [queue(f"t{n}", n) for n in range(9)]
    found = plan(*waiting, limits=policy(tier(quota=9), running_max=9), admissions_max=4)
    assert len(found.admissions) == 4
    assert {wait.reason for wait in found.waits} == {Reason.BATCH_FULL}


# --- saving for a large request -----------------------------------------------------------------------------

HOUR = 3 * (3600 + 120)
"""The longest run of `tier`, in seconds."""
EIGHT = policy(
    tier("basic", quota=8, running_max_per_tenant=8, hold_age=timedelta(seconds=60)),
    tier("short", quota=8, running_max_per_tenant=8, runtime_max=timedelta(minutes=1)),
    running_max=16,
    instance_quotas={POOL: 8},
)


def holder(number: int, ends: float, tier: str = "basic") -> Holder:
    return Holder(request_id=f"h{number}", tenant_id="h", tier=tier, profile=SMALL, ends_by=after(ends))


FIVE = tuple(holder(n, 1000 + n) for n in range(5))


def test_before_the_hold_age_small_requests_pass_a_large_one() -> None:
    waiting = [queue("big", 50, profile=LARGE), queue("small", 60)]
    assert admitted(*waiting, limits=EIGHT, used={"basic": 5}, resources={POOL: 5}) == ["small-60"]


def test_after_the_hold_age_instances_are_saved_and_who_would_delay_it_waits() -> None:
    waiting = [queue("big", 1, profile=LARGE), queue("small", 60)]
    found = plan(*waiting, limits=EIGHT, used={"basic": 5}, resources={POOL: 5}, holders=FIVE)
    assert found.admissions == ()
    assert found.capacity_holds == {POOL: "big-1"}
    assert {w.entry.request_id: w.reason for w in found.waits} == {
        "big-1": Reason.INSTANCE_QUOTA,
        "small-60": Reason.CAPACITY_HOLD,
    }


def test_what_ends_in_time_by_its_maximum_runtime_passes() -> None:
    # 3 free, 4 needed: it fits when the first holder ends, at 1,000 s; a short run ends by 100 + 3 x 180 s
    waiting = [queue("big", 1, profile=LARGE), queue("small", 60, tier="short")]
    found = plan(*waiting, limits=EIGHT, used={"basic": 5}, resources={POOL: 5}, holders=FIVE)
    assert [(d.entry.request_id, d.backfilled) for d in found.admissions] == [("small-60", True)]


def test_what_leaves_it_enough_passes_until_it_no_longer_does() -> None:
    # all five end at 1,000 s: then 8 are free, 4 are needed, so four long ones may pass, of which 3 fit now
    holders = tuple(holder(n, 1000) for n in range(5))
    waiting = [queue("big", 1, profile=LARGE), *(queue(f"s{n}", 60) for n in range(4))]
    assert len(admitted(*waiting, limits=EIGHT, used={"basic": 5}, resources={POOL: 5}, holders=holders)) == 0
    # … it fits at the very first end in time order, when only 4 are free: so nobody passes


def test_the_saved_for_request_goes_first_once_it_fits() -> None:
    waiting = [queue("big", 1, profile=LARGE, service_ms=10**9), queue("small", 60)]
    found = admitted(
        *waiting, limits=EIGHT, used={"basic": 4}, resources={POOL: 4}, capacity_holds={POOL: "big-1"}
    )
    assert found == ["big-1"]


def test_instances_are_saved_for_one_request_at_a_time_and_for_the_one_that_was_chosen() -> None:
    waiting = [queue("a", 1, profile=LARGE), queue("b", 2, profile=LARGE, service_ms=5)]
    state: dict[str, Any] = {"limits": EIGHT, "used": {"basic": 5}, "resources": {POOL: 5}, "holders": FIVE}
    assert plan(*waiting, **state).capacity_holds == {POOL: "a-1"}
    assert plan(*waiting, **state, capacity_holds={POOL: "b-2"}).capacity_holds == {POOL: "b-2"}


def test_holders_that_are_not_known_are_taken_to_run_as_long_as_any_may() -> None:
    waiting = [queue("big", 1, profile=LARGE), queue("small", 60)]
    assert admitted(*waiting, limits=EIGHT, used={"basic": 5}, resources={POOL: 5}) == ["small-60"], HOUR


def test_of_two_large_requests_that_both_fit_the_older_takes_the_only_slot() -> None:
    other = str(ResourceProfile.of(choice(instances=4, training="ml.m5.xlarge")))
    limits = policy(
        tier(quota=1, hold_age=timedelta(seconds=10)), instance_quotas={POOL: 4, "training/ml.m5.xlarge": 4}
    )
    waiting = [queue("a", 2, profile=LARGE), queue("b", 1, profile=other), queue("c", 3)]
    assert admitted(*waiting, limits=limits) == ["b-1"]


def test_while_the_account_is_full_it_is_remembered_for_whom_instances_are_saved() -> None:
    found = plan(limits=EIGHT, used={"basic": 16}, capacity_holds={POOL: "big-1"})
    assert found.capacity_holds == {POOL: "big-1"}


def test_a_decision_says_of_whom_it_speaks() -> None:
    (decision,) = plan(queue("a", 1), limits=policy()).admissions
    assert isinstance(decision, Decision)
    assert (decision.queue.tenant_id, decision.entry.profile) == ("a", SMALL)
