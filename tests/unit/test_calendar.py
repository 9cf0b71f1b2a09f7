"""The calendar: when schedules are due, and how many runs that makes by the hour."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.build import tenant
from tests.unit.test_schedules import NOW, own
from trainyard.application.scheduling.calendar import calendar_of, load_of
from trainyard.domain.requests import RequestKind
from trainyard.domain.tenants import TenantState

SCHEDULED = replace(
    tenant(),
    retrain_schedule="rate(6 hours)",
    data_sets={
        "churn": own("cron(0 3 * * ? *) Europe/Zurich"),
        "sales": own("", "cron(30 12 * * ? *)"),
        "plain": own(""),
        "over": own("rate(1 hour) until 2026-11-29"),
    },
)


def test_what_is_due_first_comes_first_and_rates_come_last() -> None:
    plans = calendar_of([SCHEDULED], NOW).plans
    assert [(each.data_set, each.kind, each.due_at, each.runs) for each in plans] == [
        ("sales", RequestKind.TRANSFORM, datetime(2026, 11, 29, 12, 30, tzinfo=UTC), 1),
        ("churn", RequestKind.TRAINING, datetime(2026, 11, 30, 2, 0, tzinfo=UTC), 1),
        (None, RequestKind.TRAINING, None, 2),
    ]


@pytest.mark.parametrize("state", [TenantState.SUSPENDED, TenantState.DELETED, TenantState.DELETING])
def test_tenants_that_are_not_active_are_left_out(state: TenantState) -> None:
    assert calendar_of([replace(SCHEDULED, state=state)], NOW) == ([], [])


def test_the_load_counts_what_is_due_in_each_hour_and_spreads_rates() -> None:
    load = load_of(calendar_of([SCHEDULED], NOW).plans, NOW, 24)
    by_rate = 2 / 6
    assert load[0] == pytest.approx(1 + by_rate)
    assert load[14] == pytest.approx(1 + by_rate)
    assert load[5] == pytest.approx(by_rate)
    assert sum(load) == pytest.approx(2 + 24 * by_rate)


def test_a_rate_counts_while_it_is_on_and_midnight_is_seen() -> None:
    brief = replace(tenant(), retrain_schedule="rate(1 hour) from 2026-11-29T14:00 until 2026-11-29T17:00")
    assert load_of(calendar_of([brief], NOW).plans, NOW, 8) == [0, 0, 1, 1, 1, 0, 0, 0]
    many = [
        replace(tenant(f"t{number}"), retrain_schedule="cron(0 0 * * ? *) within 60 minutes")
        for number in range(500)
    ]
    load = load_of(calendar_of(many, NOW).plans, NOW, 24)
    assert (max(load), load.index(max(load)), sum(load)) == (500, 12, 500)


def test_a_schedule_that_cannot_be_read_is_named_and_hides_no_other() -> None:
    broken = replace(SCHEDULED, data_sets=SCHEDULED.data_sets | {"odd": own("cron(0 3 LW * ? *)")})
    plans, unreadable = calendar_of([broken], NOW)
    assert len(plans) == 3
    (words,) = unreadable
    assert words.startswith("a schedule of acme/odd cannot be read: 'L' is not valid among days of the month")
