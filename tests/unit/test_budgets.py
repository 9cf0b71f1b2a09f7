"""Budgets: an admission reserves an amount that the cost of the execution cannot exceed."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

import pytest

from testing.service import PRICES
from tests.build import NOW, SMALL, after, choice, hard, policy, soft, tier
from tests.unit.test_admission import plan, queue
from trainyard.domain.budgets import (
    RUNTIME_MIN,
    Account,
    Reservation,
    cost_max_usd,
    least_usd,
    level,
    overshoot_usd,
    reservation,
)
from trainyard.domain.executions import priced
from trainyard.domain.policy import Budget, TenantPolicy
from trainyard.domain.prices import NO_PRICES, JobKind
from trainyard.domain.queues import holding, in_month
from trainyard.domain.resources import STOP_GRACE, ResourceProfile
from trainyard.domain.scheduling import Reason

LANE = ResourceProfile.parse(SMALL)
TIER = tier()
WORST = Decimal("0.240003")


def reserve(budget: Budget, committed: str = "0", **known: object) -> Reservation | None:
    return reservation(LANE, TIER, PRICES, [Account(budget, Decimal(committed))], **known)  # type: ignore[arg-type]


def test_without_a_budget_nothing_is_reserved() -> None:
    assert reservation(LANE, TIER, PRICES, []) == Reservation(Decimal(0), timedelta(hours=1))


def test_the_worst_case_is_reserved_where_nothing_is_known_of_the_run() -> None:
    assert reserve(hard("1")) == Reservation(WORST, timedelta(hours=1))
    assert reserve(hard("0.240003")) == Reservation(WORST, timedelta(hours=1))
    assert reserve(hard("0.240002")) is None


def test_a_known_run_reserves_three_times_its_length_or_half_of_what_is_left() -> None:
    thrice = reserve(hard("0.1"), job_seconds=200)
    assert thrice is not None
    assert thrice.usd <= Decimal("0.05"), "half of what is left is more than three times the run"
    assert 3 * 200 < (thrice.runtime_max + STOP_GRACE).total_seconds() < 780
    exactly = reserve(hard("0.06"), job_seconds=200)
    assert exactly is not None
    assert exactly.runtime_max == timedelta(seconds=3 * 200) - STOP_GRACE, "more than half of what is left"
    assert reserve(hard("10"), job_seconds=200) == Reservation(WORST, timedelta(hours=1)), "half of it is plenty"
    assert reserve(hard("0.03"), job_seconds=600) is None, "the run itself would not fit"


def test_what_must_be_left_is_exactly_enough() -> None:
    for known in (0, 45, 200, 1000, 5000):
        for budget in (hard, soft):
            needed = least_usd(LANE, TIER, PRICES, [Account(budget("1"), Decimal(0))], job_seconds=known)
            assert needed is not None
            assert reserve(budget(str(needed)), job_seconds=known) is not None
            assert reserve(budget(str(needed - Decimal("0.000001"))), job_seconds=known) is None


def test_a_run_can_never_cost_more_than_it_reserved() -> None:
    """Each job to the end of its grace, on any lane, from any budget."""
    random = Random(3)
    fitted = 0
    for _ in range(2000):
        count = random.randint(1, 4)
        profile = ResourceProfile(
            "ml.t3.medium", (random.choice(["ml.m5.large", "ml.m5.xlarge"]),), count, random.randint(1, 500)
        )
        own = tier(runtime_max=timedelta(minutes=random.randint(1, 720)))
        left = Decimal(random.randint(1, 5_000_000)).scaleb(-6)
        known = random.choice([0, random.randint(1, 20_000)])
        found = reservation(profile, own, PRICES, [Account(Budget(left), Decimal(0))], job_seconds=known)
        if found is None:
            continue
        fitted += 1
        seconds = int((found.runtime_max + STOP_GRACE).total_seconds())
        jobs = [("ml.t3.medium", JobKind.PROCESSING, 1)] * 2 + [(profile.training[0], JobKind.TRAINING, count)]
        cost = sum(
            PRICES.cost(kind, name, instances, profile.volume_gb, seconds) or 0 for name, kind, instances in jobs
        )
        assert cost <= found.usd <= left
        assert RUNTIME_MIN <= found.runtime_max <= own.runtime_max or found.runtime_max == own.runtime_max
    assert fitted > 500


def test_a_soft_budget_reserves_what_nine_of_ten_runs_cost_and_stops_none() -> None:
    assert reserve(soft("1"), usd_p90=Decimal("0.02")) == Reservation(Decimal("0.02"), timedelta(hours=1))
    assert reserve(soft("0.01"), usd_p90=Decimal("0.02")) is None
    assert reserve(soft("1")) == Reservation(WORST, timedelta(hours=1))
    assert overshoot_usd(soft("1"), 3, WORST) == 3 * WORST
    assert overshoot_usd(hard("1"), 3, WORST) == 0
    assert overshoot_usd(soft("1"), 3, None) is None


def test_of_two_budgets_both_must_have_enough_and_a_hard_one_decides() -> None:
    accounts = [Account(hard("0.05"), Decimal(0)), Account(soft("9"), Decimal(0))]
    found = reservation(LANE, TIER, PRICES, accounts, job_seconds=60, usd_p90=Decimal("0.01"))
    assert found is not None
    assert found.usd <= Decimal("0.05")
    assert found.runtime_max < timedelta(hours=1)


def test_thresholds_are_reached_from_below() -> None:
    steps = (50, 80, 100)
    spent = ("0", "4.99", "5", "7.99", "8", "10", "99")
    assert [level(Decimal(usd), hard("10"), steps) for usd in spent] == [0, 0, 50, 50, 80, 100, 100]
    assert level(Decimal(99), None, steps) == 0


# --- in admission -------------------------------------------------------------------------------------------


def test_a_tiers_budget_is_shared_by_its_tenants_and_holds_up_no_other_tier() -> None:
    shared = policy(tier(quota=4, budget=hard("0.3")), tier("premium", quota=2), running_max=6)
    found = plan(queue("a", 1), queue("b", 1), queue("c", 1, tier="premium"), limits=shared)
    assert sorted(d.entry.request_id for d in found.admissions) == ["a-1", "c-1"]
    assert [wait.reason for wait in found.waits] == [Reason.TIER_BUDGET]
    ((key, aside),) = found.parked.items()
    assert (key, aside.needs_usd) == (("basic", "b"), WORST), "it comes back once so much is left"


def test_without_a_price_a_budget_admits_nothing_and_says_so() -> None:
    limits = policy(tier(), tenants={"a": TenantPolicy(budget=hard("1"))}, prices=NO_PRICES)
    found = plan(queue("a", 1), queue("b", 1), limits=limits)
    assert [d.entry.request_id for d in found.admissions] == ["b-1"]
    assert [wait.reason for wait in found.waits] == [Reason.PRICE_UNKNOWN]


def test_the_month_turns_and_no_clock_turns_it_back() -> None:
    limits = policy(tier(), tenants={"a": TenantPolicy(budget=hard("0.3"))})
    spent = queue("a", 1, month="2026-10", spent_usd=Decimal("0.29"))
    assert [d.entry.request_id for d in plan(spent, limits=limits).admissions] == ["a-1"]
    ahead = queue("a", 1, month="2026-12", spent_usd=Decimal("0.29"))
    assert [wait.reason for wait in plan(ahead, limits=limits).waits] == [Reason.BUDGET]


def test_a_turn_of_the_month_leaves_what_was_reserved_to_its_own() -> None:
    held = holding(queue("a").queue, "r", charge=1, reserved_usd=Decimal("0.2"), admitted_at=NOW, month="2026-11")
    turned = in_month(held, "2026-12")
    assert (turned.month, turned.running) == ("2026-12", 1)
    assert turned.reserved_usd == turned.spent_usd == Decimal(0)
    assert in_month(turned, "2026-11") is turned
    assert held.committed_usd("2026-11") == Decimal("0.2")
    assert held.committed_usd("2026-12") == 0


def test_a_price_for_the_lane_makes_the_worst_case_exact() -> None:
    jobs = [priced_at("ml.t3.medium", JobKind.PROCESSING)] * 2 + [priced_at("ml.m5.large", JobKind.TRAINING)]
    assert cost_max_usd(LANE, timedelta(hours=1), PRICES) == sum(jobs, Decimal(0))
    assert cost_max_usd(ResourceProfile.of(choice(training="ml.p9.big")), timedelta(hours=1), PRICES) is None


def priced_at(instance_type: str, kind: JobKind) -> Decimal:
    from tests.build import job, step

    used = job(kind=kind, instance_type=instance_type, billable_seconds=3720, started_at=NOW, ended_at=after(3720))
    cost = priced(step(job=used), PRICES).cost_usd
    assert cost is not None
    return cost.quantize(Decimal("0.000001"))


@pytest.mark.parametrize("when", [datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC), NOW])
def test_a_month_is_utc(when: datetime) -> None:
    from trainyard.domain.executions import month_of

    assert month_of(when) == "2026-11"
    assert month_of(datetime.fromisoformat("2026-11-30T23:30:00-05:00")) == "2026-12"


def test_which_budget_is_in_the_way_is_told_by_what_is_left_of_it() -> None:
    mixed = policy(tier(budget=hard("100")), tenants={"a": TenantPolicy(budget=soft("0.2"))})
    (wait,) = plan(queue("a", 1), limits=mixed).waits
    assert (wait.reason, wait.reserved_usd) == (Reason.BUDGET, WORST)
    spent = policy(tier(budget=hard("0.1")), tenants={"a": TenantPolicy(budget=soft("9"))})
    (wait,) = plan(queue("a", 1), limits=spent).waits
    assert wait.reason is Reason.TIER_BUDGET
