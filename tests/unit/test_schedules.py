"""Schedules: when they are due, in zones whose clocks jump, and those that are refused."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from random import Random

import botocore.session
import pytest
from botocore.validate import ParamValidator

from tests.build import tenant
from tests.evaluator import DEPLOYMENT
from trainyard.adapters.aws.schedules import begins_alike, names_of_schedules, schedules_of, schedules_over
from trainyard.domain.errors import Refused
from trainyard.domain.schedules import WITHIN_MINUTES, check_is_due, check_pace, parse_schedule
from trainyard.domain.tenants import TrainingSettings

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
"""A Sunday."""


def due(text: str, number: int = 3, since: datetime = NOW) -> list[str]:
    return [f"{at:%Y-%m-%d %H:%M}" for at in islice(parse_schedule(text).due(since), number)]


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("cron(0 3 * * ? *)", ["2026-11-30 03:00", "2026-12-01 03:00", "2026-12-02 03:00"]),
        ("cron(0 3 * * ? *) Europe/Zurich", ["2026-11-30 02:00", "2026-12-01 02:00", "2026-12-02 02:00"]),
        ("cron(30 23 * * ? *) Pacific/Auckland", ["2026-11-30 10:30", "2026-12-01 10:30", "2026-12-02 10:30"]),
        ("cron(0/20 12 * * ? *)", ["2026-11-29 12:20", "2026-11-29 12:40", "2026-11-30 12:00"]),
        ("cron(0 9 ? * MON-FRI *)", ["2026-11-30 09:00", "2026-12-01 09:00", "2026-12-02 09:00"]),
        ("cron(0 9 ? * 1 *)", ["2026-12-06 09:00", "2026-12-13 09:00", "2026-12-20 09:00"]),
        ("cron(0 9 ? * 2#1 *)", ["2026-12-07 09:00", "2027-01-04 09:00", "2027-02-01 09:00"]),
        ("cron(0 9 ? * FRIL *)", ["2026-12-25 09:00", "2027-01-29 09:00", "2027-02-26 09:00"]),
        ("cron(0 0 L * ? *)", ["2026-11-30 00:00", "2026-12-31 00:00", "2027-01-31 00:00"]),
        ("cron(0 0 15W * ? *)", ["2026-12-15 00:00", "2027-01-15 00:00", "2027-02-15 00:00"]),
        ("cron(0 0 1W * ? *)", ["2026-12-01 00:00", "2027-01-01 00:00", "2027-02-01 00:00"]),
        ("cron(0 0 31W * ? *)", ["2026-12-31 00:00", "2027-01-29 00:00", "2027-03-31 00:00"]),
        ("cron(0 0 29 FEB ? *)", ["2028-02-29 00:00", "2032-02-29 00:00", "2036-02-29 00:00"]),
        ("cron(5,50 6 1 1,JUL ? 2027-2028)", ["2027-01-01 06:05", "2027-01-01 06:50", "2027-07-01 06:05"]),
        ("rate(6 hours)", ["2026-11-29 18:00", "2026-11-30 00:00", "2026-11-30 06:00"]),
        ("rate(1 day) from 2026-12-01T06:00", ["2026-12-01 06:00", "2026-12-02 06:00", "2026-12-03 06:00"]),
        ("cron(0 3 * * ? *) from 2026-12-05 until 2026-12-07", ["2026-12-05 03:00", "2026-12-06 03:00"]),
        (
            "cron(0 0 * * ? *) Asia/Tokyo from 2026-12-05 until 2026-12-07",
            ["2026-12-04 15:00", "2026-12-05 15:00"],
        ),
    ],
)
def test_a_schedule_is_due_as_it_says(text: str, times: list[str]) -> None:
    assert due(text) == times


def test_a_time_that_the_clock_skips_is_left_out_and_one_that_it_shows_twice_is_due_once() -> None:
    # In Zurich, 02:30 does not exist on 28 March 2027, and comes twice on 31 October.
    text = "cron(30 2 * * ? *) Europe/Zurich"
    assert due(text, 3, datetime(2027, 3, 26, 12, tzinfo=UTC)) == [
        "2027-03-27 01:30",
        "2027-03-29 00:30",
        "2027-03-30 00:30",
    ]
    assert due(text, 3, datetime(2027, 10, 29, 12, tzinfo=UTC)) == [
        "2027-10-30 00:30",
        "2027-10-31 00:30",
        "2027-11-01 01:30",
    ]


def test_a_schedule_that_is_looked_at_again_is_due_at_the_same_times() -> None:
    random = Random(22)
    for zone in ("UTC", "Europe/Zurich", "America/St_Johns", "Australia/Lord_Howe"):
        for _ in range(20):
            minute, hour = random.randrange(60), random.randrange(24)
            schedule = parse_schedule(f"cron({minute} {hour}/5 * * ? *) {zone}")
            times = list(islice(schedule.due(NOW + timedelta(days=random.randrange(365))), 60))
            assert all(before < after for before, after in pairwise(times))
            for position in (0, 17, 40):
                assert list(islice(schedule.due(times[position]), 5)) == times[position + 1 : position + 6]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a schedule"),
        ("daily", "is not a schedule: use rate(1 day), or cron(0 3"),
        ("rate(0 days)", "is not a rate"),
        ("rate(1.5 days)", "is not a rate"),
        ("rate(1 week)", "is not a rate"),
        ("cron(0 3 * * *)", "has 5 fields, and needs six"),
        ("cron(0 3 * * * *)", "exactly one of its two fields of days must be ?"),
        ("cron(0 3 ? * ? *)", "exactly one of its two fields of days must be ?"),
        ("cron(60 3 * * ? *)", "'60' is not valid among minutes, which go from 0 to 59"),
        ("cron(0 24 * * ? *)", "'24' is not valid among hours"),
        ("cron(0 3 32 * ? *)", "'32' is not valid among days of the month"),
        ("cron(0 3 * 13 ? *)", "'13' is not valid among months"),
        ("cron(0 3 ? * 8 *)", "'8' is not valid among days of the week"),
        ("cron(0 3 ? * MON#6 *)", "'6' is not valid among days of the week"),
        ("cron(5-1 3 * * ? *)", "'5-1' is not valid among minutes"),
        ("cron(0/0 3 * * ? *)", "'0/0' is not valid among minutes"),
        ("cron(x 3 * * ? *)", "'X' is not valid among minutes: use"),
        ("cron(0 3 * * ? 1969)", "'1969' is not valid among years"),
        ("cron(٣ 3 * * ? *)", "is not valid among minutes"),
        ("cron(0 3 * * ? *) Europe/Zuerich", "Europe/Zuerich"),
        ("cron(0 3 * * ? *) from 2026-13-01", "is not a date or time"),
        ("cron(0 3 * * ? *) from 2027-01-01 until 2026-12-01", "has ended before it begins"),
        ("rate(1 day) within 1441 minutes", "more than 1440"),
        ("rate(1 day) within 5", "is not a schedule"),
        ("rate(1 day) until 2027-01-01 from 2026-12-01", "is not a schedule"),
        ("rate(1 day)" + " " * 300, "is not a schedule"),
        ("cron(0 3 1-5W * ? *)", "'1-5' is not valid among days of the month with W: give one"),
        ("cron(0 3 ? * MON-FRI#1 *)", "'MON-FRI' is not valid among days of the week before #"),
        ("cron(0 3 ? * MON-FRIL *)", "'MON-FRI' is not valid among days of the week with L"),
        ("cron(0/+1_0 3 * * ? *)", "'0/+1_0' is not valid among minutes"),
        ("cron(0/90 3 * * ? *)", "'0/90' is not valid among minutes"),
        ("rate(1 day) posix/Europe/Zurich", "is not a time zone"),
        ("cron(0 3 * * ? *) from 9990-01-01", "is not a date or time"),
        ("cron(0 3 * * ? *) until 1990-01-01", "is not a date or time"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_schedule(text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "cron(0 3 30 2 ? *)",
        "cron(0 3 31 4,6,9,11 ? *)",
        "cron(0 3 * * ? 2020)",
        "cron(0 3 29 2 ? 2027)",
        "rate(1 day) until 2026-11-29",
        "rate(1 day) until 2026-11-30T11:59",
        "cron(0 3 * * ? *) from 2026-12-01T04:00 until 2026-12-02T02:00",
    ],
)
def test_what_is_never_due_is_told(text: str) -> None:
    with pytest.raises(Refused, match="is never due"):
        check_is_due(parse_schedule(text), NOW)


@pytest.mark.parametrize(
    "text", ["cron(0 3 29 2 ? *)", "cron(0 0 ? 2 1#5 *)", "rate(9999 days)", "rate(1 minute)"]
)
def test_what_is_rare_or_frequent_is_due(text: str) -> None:
    check_is_due(parse_schedule(text), NOW)


@pytest.mark.parametrize(
    "text", ["rate(59 minutes)", "cron(0/30 3 * * ? *)", "cron(59 1 1 * ? *) within 0 minutes"]
)
def test_a_pace_is_kept_or_the_two_times_are_named(text: str) -> None:
    if text.startswith("cron(59"):
        check_pace(parse_schedule(text), NOW, timedelta(hours=1))
        return
    with pytest.raises(Refused, match=r"is due at 2026-.* and 2026-.*: at least 60 minutes must lie between"):
        check_pace(parse_schedule(text), NOW, timedelta(hours=1))


def test_events_are_spread_over_so_many_minutes() -> None:
    assert parse_schedule("rate(1 day)").within_minutes == WITHIN_MINUTES
    assert parse_schedule("rate(1 day) within 0 minutes").within_minutes == 0
    assert parse_schedule("cron(0  3 * * ? *)   Europe/Zurich  within 1 minute").within_minutes == 1


def own(schedule: str, transform: str = "") -> TrainingSettings:
    return TrainingSettings(algorithm="linear", target="y", schedule=schedule, transform=transform)


def test_a_tenant_gets_a_schedule_for_itself_and_for_each_data_set_with_its_own() -> None:
    scheduled = replace(
        tenant(),
        retrain_schedule="rate(1 day)",
        data_sets={
            "churn": own("cron(0 3 * * ? *) Europe/Zurich from 2026-12-05 until 2027-01-01 within 60 minutes"),
            "sales": own("", "rate(2 hours) within 0 minutes"),
            "plain": own(""),
        },
    )
    of_tenant, of_churn, of_sales = schedules_of(scheduled, DEPLOYMENT, NOW)
    assert [each["Name"] for each in (of_tenant, of_churn, of_sales)] == names_of_schedules(scheduled)
    sent = json.loads(of_tenant["Target"]["Input"])
    assert sent == {"tenant_id": "acme", "trigger": "schedule"}
    assert of_tenant["FlexibleTimeWindow"] == {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15}
    assert not {"StartDate", "EndDate"} & of_tenant.keys()
    assert of_churn["ScheduleExpression"] == "cron(0 3 * * ? *)"
    assert of_churn["ScheduleExpressionTimezone"] == "Europe/Zurich"
    assert of_churn["StartDate"] == datetime(2026, 12, 4, 23, tzinfo=UTC)
    assert of_churn["EndDate"] == datetime(2026, 12, 31, 23, tzinfo=UTC)
    assert of_churn["FlexibleTimeWindow"]["MaximumWindowInMinutes"] == 60
    assert json.loads(of_churn["Target"]["Input"])["data_set"] == "churn"
    assert of_churn["Target"]["EventBridgeParameters"]["DetailType"] == "Retraining Requested"
    assert of_sales["Target"]["EventBridgeParameters"]["DetailType"] == "Batch Transform Requested"
    assert of_sales["FlexibleTimeWindow"] == {"Mode": "OFF"}


def test_a_beginning_that_has_passed_is_left_out_and_a_schedule_that_has_ended_too() -> None:
    text = "cron(0 3 * * ? *) from 2026-12-05 until 2027-01-01"
    scheduled = replace(tenant(), retrain_schedule=text)
    (running,) = schedules_of(scheduled, DEPLOYMENT, datetime(2026, 12, 20, tzinfo=UTC))
    assert "StartDate" not in running
    assert (running["EndDate"], running["ActionAfterCompletion"]) == (datetime(2027, 1, 1, tzinfo=UTC), "DELETE")
    assert schedules_over(scheduled, DEPLOYMENT, datetime(2026, 12, 20, tzinfo=UTC)) == []
    assert len(schedules_over(scheduled, DEPLOYMENT, datetime(2026, 12, 31, 4, tzinfo=UTC))) == 1, (
        "its last was at 3"
    )
    assert schedules_of(scheduled, DEPLOYMENT, datetime(2027, 1, 1, tzinfo=UTC)) == []
    assert names_of_schedules(scheduled) == ["retrain-acme"], "it is still removed with the tenant"


def test_a_rate_keeps_to_the_times_from_its_beginning_on() -> None:
    scheduled = replace(tenant(), retrain_schedule="rate(7 days) from 2026-11-23T03:00")
    (running,) = schedules_of(scheduled, DEPLOYMENT, datetime(2026, 12, 3, tzinfo=UTC))
    assert running["StartDate"] == datetime(2026, 12, 7, 3, tzinfo=UTC), "a Monday again"
    assert due("rate(7 days) from 2026-11-23T03:00") == [
        "2026-11-30 03:00",
        "2026-12-07 03:00",
        "2026-12-14 03:00",
    ]
    made = running | {"StartDate": datetime(2026, 11, 23, 3, tzinfo=UTC)}
    assert begins_alike(made, running, NOW)
    assert not begins_alike(made | {"StartDate": datetime(2026, 11, 23, 4, tzinfo=UTC)}, running, NOW)
    assert not begins_alike({}, running, NOW)


def test_a_beginning_that_was_changed_is_noticed() -> None:
    later = {"ScheduleExpression": "cron(0 3 * * ? *)", "StartDate": NOW + timedelta(days=9)}
    without = {"ScheduleExpression": "cron(0 3 * * ? *)"}
    assert begins_alike(later, later, NOW)
    assert not begins_alike(without, later, NOW)
    assert not begins_alike(later, without, NOW), "it is to begin now"
    assert begins_alike({**later, "StartDate": NOW}, without, NOW), "it has begun"


def test_no_data_sets_schedule_has_the_name_of_a_tenants() -> None:
    (own_of_acme,) = schedules_of(replace(tenant(), data_sets={"churn": own("rate(1 day)")}), DEPLOYMENT, NOW)
    digest = own_of_acme["Name"].rpartition(".")[2]
    other = replace(tenant(f"acme-{digest}"[:24]), retrain_schedule="rate(1 day)")
    assert own_of_acme["Name"] != schedules_of(other, DEPLOYMENT, NOW)[0]["Name"]


def test_a_stored_schedule_that_cannot_be_read_names_its_data_set() -> None:
    broken = replace(tenant(), data_sets={"churn": own("cron(0 3 LW * ? *)")})
    with pytest.raises(Refused, match="the schedule of churn: "):
        schedules_of(broken, DEPLOYMENT, NOW)


def test_what_is_sent_to_the_scheduler_is_what_its_api_takes() -> None:
    scheduled = replace(
        tenant(),
        retrain_schedule="cron(0 3 * * ? *) Europe/Zurich from 2026-12-05 until 2027-01-01 within 60 minutes",
        data_sets={"c" * 63: own("rate(1 day)", "rate(1 day) within 0 minutes")},
    )
    client = botocore.session.get_session().create_client("scheduler", region_name="us-east-1")
    for schedule in schedules_of(scheduled, DEPLOYMENT, NOW):
        shape = client.meta.service_model.operation_model("CreateSchedule").input_shape
        assert shape is not None
        assert not ParamValidator().validate(schedule, shape).has_errors()
        assert len(schedule["Name"]) <= 64
