"""What a job costs, whatever SageMaker reports about it; and the price file."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from random import Random
from typing import Any

import pytest

from testing.service import PRICES
from tests.build import NOW, after, execution, job, request, step
from trainyard.application.ports import ExecutionReport
from trainyard.application.scheduling.record import executed
from trainyard.contracts.price_file import parse_prices, write_prices
from trainyard.contracts.shipped_prices import SHIPPED, prices_of
from trainyard.domain.errors import Refused
from trainyard.domain.executions import apportioned, corrected, days_in, month_of, next_month, priced
from trainyard.domain.prices import JobKind
from trainyard.domain.requests import State

PROCESSING: dict[str, Any] = {
    "kind": JobKind.PROCESSING,
    "instance_type": "ml.t3.medium",
    "billable_seconds": None,
}


def test_a_job_costs_its_billable_seconds_times_instances_times_price_and_its_volumes() -> None:
    one = priced(step(job=job(billable_seconds=1800, instance_count=2)), PRICES)
    exact = (Fraction("0.115") + Fraction("0.14") * 30 / 730) * 2 * Fraction(1800, 3600)
    assert abs(Fraction(one.cost_usd or 0) - exact) <= Fraction(1, 2_000_000)
    assert (one.seconds, one.flags, one.is_final) == (1800, (), True)


def test_processing_is_billed_from_its_start_to_its_end_rounded_up() -> None:
    found = priced(step(job=job(**PROCESSING, ended_at=NOW + timedelta(seconds=59.2))), PRICES)
    assert found.seconds == 60


def test_spot_costs_what_is_billed_and_says_what_it_saved() -> None:
    found = priced(step(job=job(spot=True, billable_seconds=1200, training_seconds=3600)), PRICES)
    full = priced(step(), PRICES).cost_usd
    assert found.cost_usd is not None
    assert full == found.cost_usd + found.saved_usd
    assert found.saved_usd == 2 * found.cost_usd


@pytest.mark.parametrize(
    ("facts", "seconds", "flag", "is_final"),
    [
        (job(**PROCESSING, started_at=None, ended_at=None, status="InProgress"), None, "is missing", False),
        (job(**PROCESSING, ended_at=None, status="Completed"), None, "is missing", False),
        (job(**PROCESSING, started_at=None, ended_at=None, status="Failed"), 0, "", True),
        (job(**PROCESSING, started_at=None, ended_at=None, status="Completed"), None, "is missing", False),
        (job(**PROCESSING, ended_at=NOW - timedelta(hours=1)), None, "before it began", True),
        (job(ended_at=NOW - timedelta(hours=1)), 3600, "before it began", True),
        (job(billable_seconds=-5), None, "billable seconds are -5", True),
        (job(status="Stopping"), 3600, "still Stopping", False),
        (job(status="Perplexed"), 3600, "still Perplexed", False),
    ],
)
def test_odd_times_are_flagged_and_never_cost_less_than_nothing(
    facts: Any, seconds: int | None, flag: str, is_final: bool
) -> None:
    found = priced(step(job=facts), PRICES)
    assert (found.seconds, found.is_final) == (seconds, is_final)
    assert any(flag in one for one in found.flags) if flag else found.flags == ()
    assert found.cost_usd is None if seconds is None else found.cost_usd is not None and found.cost_usd >= 0


def test_an_unknown_instance_type_is_unknown_and_not_nothing() -> None:
    found = priced(step(job=job(instance_type="ml.x9.huge")), PRICES)
    assert (found.cost_usd, found.seconds) == (None, 3600)
    assert "the price of ml.x9.huge for training is unknown" in found.flags


@pytest.mark.parametrize(
    ("kind", "cost", "flags"),
    [
        ("Condition", Decimal(0), 0),
        ("Lambda", Decimal(0), 0),
        ("", Decimal(0), 0),
        ("Transform", Decimal(0), 0),
        ("AutoML", None, 1),
        ("Tuning", 0, 0),
        ("QuantumLeap", None, 1),
    ],
)
def test_a_step_without_a_job_costs_nothing_unless_its_type_is_unknown(
    kind: str, cost: Decimal | None, flags: int
) -> None:
    found = priced(step(kind=kind, job=None), PRICES)
    assert (found.cost_usd, len(found.flags)) == (cost, flags)


def test_a_job_that_sagemaker_has_forgotten_is_flagged() -> None:
    found = priced(step(job=None, job_missing=True), PRICES)
    assert (found.cost_usd, found.flags) == (None, ("SageMaker no longer knows its job",))


def test_a_record_keeps_what_is_known_and_counts_what_is_not() -> None:
    running = request(1, attempt=2, admitted_at=NOW, month="2026-10")
    strange = step("Strange", kind="AutoML", job=None)
    made = executed(running, ExecutionReport(steps=(step(), strange)), PRICES, after(9), State.SUCCEEDED)
    assert (made.cost_usd, made.unknown, made.month, made.attempt) == (Decimal("0.120753"), 1, "2026-10", 2)
    assert (made.ended_at, made.price_version) == (after(9), PRICES.version)
    assert made.flags == ("Strange: its type 'AutoML' is unknown",)
    assert made.tags["trainyard:tenant"] == "acme"


def test_a_success_without_steps_is_not_yet_the_whole_of_it() -> None:
    running = request(1, attempt=1, admitted_at=NOW)
    states = (State.SUCCEEDED, State.FAILED, State.STOPPED)
    found = [executed(running, ExecutionReport(), PRICES, after(9), state).is_final for state in states]
    assert found == [False, True, True]


def test_a_correction_keeps_what_was_settled_and_drops_nothing() -> None:
    known, early = priced(step("Preprocess"), PRICES), priced(step(job=job(status="Stopping")), PRICES)
    before = execution(request(1), steps=(known, early), is_final=False)
    dearer = replace(PRICES, version="2027-01-01", hourly={JobKind.TRAINING: {"ml.m5.large": Decimal(9)}})
    after_all = corrected(before, [step("Preprocess", job=None), step(), step("Late", job=job())], dearer, NOW)
    assert [record.step.name for record in after_all.steps] == ["Preprocess", "Train", "Late"]
    assert after_all.steps[0] is known
    assert (after_all.is_final, after_all.price_version) == (True, "2027-01-01")
    assert corrected(before, [], PRICES, NOW).cost_usd == known.cost_usd + early.cost_usd  # type: ignore[operator]


def test_an_end_outside_its_month_is_shown_at_its_edge() -> None:
    late = execution(request(1), month="2026-11", ended_at=datetime(2026, 12, 1, 4, tzinfo=UTC))
    assert late.day == "2026-11-30"
    assert (month_of(NOW), next_month("2026-12"), days_in("2028-02")) == ("2026-11", "2027-01", 29)


def test_rounded_amounts_add_up_to_the_rounded_sum_and_none_is_a_cent_off() -> None:
    random = Random(7)
    for _ in range(300):
        amounts = [Decimal(random.randint(0, 10**7)).scaleb(-6) for _ in range(random.randint(0, 40))]
        found = apportioned(amounts)
        assert sum(found, Decimal(0)) == sum(amounts, Decimal(0)).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
        assert all(abs(a - b) < Decimal("0.01") for a, b in zip(found, amounts, strict=True))


# --- the price table ----------------------------------------------------------------------------------------


def test_the_shipped_table_is_whole_and_prices_what_the_shipped_policy_names() -> None:
    from trainyard.contracts.compiled_policy import DEPLOYED
    from trainyard.contracts.policy_file import parse_policy
    from trainyard.domain.resources import ResourceProfile

    policy = parse_policy(DEPLOYED.read_text(encoding="utf-8"), 0, "us-east-1")
    profiles = [ResourceProfile.of(choice) for tier in policy.tiers for choice in tier.instances]
    assert all(profile.rates(policy.prices) is not None for profile in profiles)
    text = SHIPPED.read_text(encoding="utf-8")
    assert write_prices(parse_prices(text)) == text
    assert prices_of("mars-north-1").hourly == {}


TABLE = SHIPPED.read_text(encoding="utf-8")


def region(**changes: Any) -> str:
    table = json.loads(TABLE)
    table["regions"]["us-east-1"] |= changes
    return json.dumps(table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (region(training={"ml.m5.large": "-0.1"}), r"training\.ml\.m5\.large: .*greater than 0, got '-0.1'"),
        (region(training={"ml.m5.large": 0}), r"training\.ml\.m5\.large: .*greater than 0"),
        (region(training={"ml.m5.large": None}), r"training\.ml\.m5\.large"),
        (region(training={"ml.m5.large": "NaN"}), r"training\.ml\.m5\.large"),
        (region(training={"m5.large": "0.1"}), r"training\.m5\.large"),
        (region(training={}), r"training"),
        (region(storage_gb_month="-1"), r"storage_gb_month"),
        (region(surprise="1"), r"surprise"),
        (SHIPPED.read_text(encoding="utf-8").replace('"USD"', '"EUR"'), r"currency: must be USD, got 'EUR'"),
        (
            SHIPPED.read_text(encoding="utf-8").replace('"processing"', '"processed"', 1),
            r"processing: is missing",
        ),
        ("{", "not JSON"),
    ],
)
def test_a_table_with_a_missing_or_negative_price_is_refused_by_its_entry(text: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        parse_prices(text)
