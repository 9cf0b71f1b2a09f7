"""Limits by the hour: when windows are open, what is in force, and which policies are refused."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.build import policy, tier
from trainyard.contracts.compiled_policy import DEPLOYED
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.errors import Refused
from trainyard.domain.policy import AHEAD_MAX, EVER, Policy
from trainyard.domain.windows import DAYS, Once, Weekly, Window, timeline, when_of

SHIPPED = DEPLOYED.read_text(encoding="utf-8")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def periods(when: Once | Weekly, since: str, until: str) -> list[tuple[str, str]]:
    found = when.periods(utc(since), utc(until))
    return [(f"{p.begins:%m-%d %H:%M}", f"{p.ends:%m-%d %H:%M}") for p in found]


def with_windows(*windows: str, text: str = SHIPPED) -> Policy:
    return parse_policy("\n".join([text, "windows:", *(f"  - {{{window}}}" for window in windows)]), 1)


NIGHT = "name: night, from: 22:00, to: 06:00, tiers: {basic: {quota: 1, lending_limit: 0}}"


@pytest.mark.parametrize(
    ("when", "since", "until", "expected"),
    [
        # In summer time Zurich is two hours ahead of UTC, in winter one.
        (
            when_of("22:00", "06:00", [], "Europe/Zurich"),
            "2026-10-24 12:00",
            "2026-10-26 12:00",
            [("10-24 20:00", "10-25 05:00"), ("10-25 21:00", "10-26 05:00")],
        ),
        # Set forward at 02:00: an hour shorter, and 02:30 is 03:30.
        (
            when_of("22:00", "06:00", ["sat"], "Europe/Zurich"),
            "2026-03-28 12:00",
            "2026-03-30 12:00",
            [("03-28 21:00", "03-29 04:00")],
        ),
        (
            when_of("02:30", "05:00", [], "Europe/Zurich"),
            "2026-03-29 00:00",
            "2026-03-29 12:00",
            [("03-29 01:30", "03-29 03:00")],
        ),
        # Skipped as a whole.
        (when_of("02:30", "03:00", [], "Europe/Zurich"), "2026-03-29 00:00", "2026-03-29 12:00", []),
        # Set back at 03:00: 02:30 occurs twice, and the first one counts.
        (
            when_of("02:30", "05:00", [], "Europe/Zurich"),
            "2026-10-25 00:00",
            "2026-10-25 12:00",
            [("10-25 00:30", "10-25 04:00")],
        ),
        # A weekend, and the whole week but an hour.
        (
            when_of("fri 18:00", "mon 06:00", [], "UTC"),
            "2026-11-22 00:00",
            "2026-11-28 00:00",
            [("11-20 18:00", "11-23 06:00"), ("11-27 18:00", "11-30 06:00")],
        ),
        (
            when_of("mon 06:00", "mon 05:00", [], "UTC"),
            "2026-11-24 00:00",
            "2026-11-25 00:00",
            [("11-23 06:00", "11-30 05:00")],
        ),
        # A whole day.
        (
            when_of("00:00", "00:00", ["sat", "sun"], "UTC"),
            "2026-11-28 12:00",
            "2026-11-29 12:00",
            [("11-28 00:00", "11-29 00:00"), ("11-29 00:00", "11-30 00:00")],
        ),
        (
            when_of("2026-12-24 18:00", "2026-12-27T06:00", [], "Europe/Zurich"),
            "2026-01-01 00:00",
            "2026-01-02 00:00",
            [("12-24 17:00", "12-27 05:00")],
        ),
    ],
)
def test_a_window_is_open_by_the_clock_of_its_zone(
    when: Once | Weekly, since: str, until: str, expected: list[tuple[str, str]]
) -> None:
    assert periods(when, since, until) == expected


def test_of_open_windows_the_last_one_listed_wins_for_each_limit_by_itself() -> None:
    when = when_of("22:00", "06:00", [], "UTC")
    first = Window(name="a", when=when, limits={"running_max": 9}, tiers={"basic": {"quota": 5, "closed": True}})
    second = Window(name="b", when=when, tiers={"basic": {"quota": 3}, "premium": {"borrowing_limit": 4}})
    limits = policy(tier(quota=2), tier("premium"), running_max=6, windows=(first, second))
    night, day = limits.at(utc("2026-11-27 23:00")), limits.at(utc("2026-11-27 07:00"))
    assert (night.running_max, day.running_max) == (9, 6)
    assert [(t.quota, t.borrowing_limit, t.closed) for t in night.tiers] == [(3, 0, True), (2, 4, False)]
    assert day.tiers == limits.tiers


def test_the_epoch_is_the_last_change_and_never_goes_back() -> None:
    limits = with_windows(
        NIGHT, "name: shift, from: sat 12:00, to: sat 13:00, zone: America/New_York, running_max: 20"
    )
    times = [utc("2026-10-20 00:00") + timedelta(minutes=10 * n) for n in range(3000)]
    epochs = [limits.at(now).epoch for now in times]
    assert None not in epochs
    assert all(epoch <= now for epoch, now in zip(epochs, times, strict=True) if epoch)
    assert epochs == sorted(epochs, key=lambda epoch: epoch or EVER)
    # The same at each time, whether it follows from another time's or not.
    inherited = limits.at(times[0])
    for now in times:
        inherited = inherited.at(now)
        fresh = limits.at(now)
        assert (inherited.epoch, inherited.tiers, inherited.ahead) == (fresh.epoch, fresh.tiers, fresh.ahead)


def test_a_clock_that_is_late_gets_the_limits_of_the_time_that_has_come() -> None:
    limits = with_windows(NIGHT)
    late, come = utc("2026-11-27 05:58"), utc("2026-11-27 06:00")
    assert (limits.at(late).tiers[0].quota, limits.at(late, come).tiers[0].quota) == (1, 4)
    assert limits.at(late, come).epoch == come


def test_only_lower_limits_are_counted_ahead_and_a_tier_has_its_quota_then() -> None:
    day = "name: day, from: 08:00, to: 18:00, running_max: 12, instance_quotas: {training/ml.m5.large: 3}, tiers: "
    limits = with_windows(
        day + "{basic: {quota: 2, lending_limit: 1}, standard: {quota: 3, lending_limit: 2, borrowing_limit: 7}, "
        "premium: {quota: 7, borrowing_limit: 5}}"
    )
    night = limits.at(utc("2026-11-27 07:00"))
    change = night.ahead[0]
    assert change.at == utc("2026-11-27 08:00")
    assert change.lower == {
        "slots": 12,
        "tier/basic": 2,
        "tier/standard": 3,
        "tier/premium": 7,
        "training/ml.m5.large": 3,
    }
    # By day the evening lowers nothing, and the next morning does: by then the night has had more.
    by_day = night.at(utc("2026-11-27 09:00"))
    assert by_day.changes_at == utc("2026-11-27 18:00")
    assert by_day.ahead[0] == replace(change, at=utc("2026-11-28 08:00"))
    demand = {"slots": 1, "tier/basic": 1, "training/ml.m5.large": 4, "processing/ml.t3.medium": 1}
    assert night.ahead_of(demand, utc("2026-11-27 08:00")) == ()
    # Four instances could never start, if they had to fit what the day allows.
    assert night.ahead_of(demand, utc("2026-11-27 08:01")) == (
        "after/2026-11-27T08:00:00Z/slots",
        "after/2026-11-27T08:00:00Z/tier/basic",
    )
    assert "after/2026-11-28T08:00:00Z/slots" in night.ahead_of(demand, utc("2026-11-28 08:01"))


def test_openings_that_lower_nothing_do_not_hide_those_that_do() -> None:
    rates = [f'name: r{n}, from: "{n:02d}:00", to: "{n:02d}:30", starts_per_second: {n + 1}' for n in range(7, 24)]
    limits = with_windows(NIGHT.replace("quota: 1", "quota: 2, borrowing_limit: 2"), *rates)
    ahead = limits.at(utc("2026-11-27 06:30")).ahead
    # The second one, since a tuning of the premium tier may take as long.
    assert [change.at for change in ahead] == [utc("2026-11-27 22:00"), utc("2026-11-28 22:00")]
    assert ahead[0].lower == {"tier/basic": 2}


def test_of_each_limit_only_so_many_changes_are_counted() -> None:
    long = SHIPPED.replace("runtime_max_minutes: 60 ", "runtime_max_minutes: 12960 ")
    ahead = with_windows(NIGHT, text=long).at(utc("2026-11-27 12:00")).ahead
    assert [change.at.day for change in ahead] == [27, 28, 29, 30, 1, 2, 3, 4]
    assert len(ahead) == AHEAD_MAX


def test_to_is_midnight_at_24_and_a_window_may_last_for_years() -> None:
    limits = with_windows(
        "name: evening, from: 20:00, to: 24:00, closed: true",
        "name: later, from: 2027-01-01 00:00, to: 2199-12-31 00:00, starts_per_second: 1",
    )
    assert limits.at(utc("2026-11-27 23:59")).open == ("evening",)
    assert limits.at(utc("2026-11-28 00:00")).open == ()
    assert limits.at(utc("2100-11-28 20:00")).open == ("evening", "later")


def test_a_policy_without_windows_is_always_itself() -> None:
    limits = policy()
    assert limits.at(utc("2026-11-27 08:00")) is limits
    assert (limits.epoch, limits.ahead) == (None, ())


def test_what_is_in_force_is_calculated_from_the_policy_and_not_from_an_hour() -> None:
    limits = with_windows(NIGHT)
    night = limits.at(utc("2026-11-27 23:00"))
    assert replace(night.at(utc("2026-11-28 12:00")), base=None, epoch=None, ahead=(), changes_at=None) == limits
    assert (night.open, limits.open) == (("night",), ())


@pytest.mark.parametrize(
    ("windows", "reason"),
    [
        (["name: a, from: 22:00, to: 06:00"], r"windows\.0: a sets nothing"),
        (["name: a, from: 25:00, to: 06:00, closed: true"], r"windows\.0: '25:00' is not a time such as 22:00"),
        (["name: a, from: 8, to: 18, closed: true"], r"windows\.0\.from: 8 is not a time such as 22:00"),
        (["name: a, from: 20.00, to: 06:00, closed: true"], r"windows\.0\.from: 20\.0 is not a time"),
        (["name: a, from: 20:00:00, to: 06:00, closed: true"], "'20:00:00' is not a time"),
        (["name: a, from: , to: 06:00, closed: true"], r"windows\.0\.from: must be a time such as"),
        (
            ["name: a, from: 2026-12-24, to: 2026-12-25, closed: true"],
            r"2026-12-24 is not a time .* 2026-12-24 18:00",
        ),
        (["name: a, from: fri 24:00, to: mon 06:00, closed: true"], "'fri 24:00' is not a time"),
        (
            ["name: a, from: 2026-12-24 18:00, to: 9999-12-31 23:59, closed: true"],
            "not between the years 2000 and 2199",
        ),
        (
            ["name: a, from: 2026-12-24 18:00, to: 2026-12-24 18:00, closed: true"],
            r"windows\.0: .*never opens",
        ),
        (["name: a, from: 22:00, to: 2026-12-24 18:00, closed: true"], "same form"),
        (["name: a, from: fri 18:00, to: 06:00, closed: true"], "same form"),
        (
            ["name: a, from: 22:00, to: 06:00, days: [monday], closed: true"],
            "'monday', which is not one of mon, tue",
        ),
        (["name: a, from: fri 18:00, to: mon 06:00, days: [mon], closed: true"], "no effect"),
        (["name: a, from: 22:00, to: 06:00, zone: Europe/Zürich, closed: true"], "no time zone 'Europe/Zürich'"),
        (["name: a, from: 22:00, to: 06:00, zone: Mars, closed: true"], "no time zone 'Mars'"),
        (["name: a, from: 22:00, to: 06:00, tiers: {gold: {quota: 1}}"], "contains gold"),
        (["name: a, from: 22:00, to: 06:00, tiers: {basic: {quota: 0}}"], r"windows\.0\.tiers\.basic\.quota"),
        (["name: a, from: 22:00, to: 06:00, tiers: {basic: {weight: 2}}"], "weight: is unknown"),
        (["name: a, from: 22:00, to: 06:00, instance_quotas: {ml.m5.large: 2}"], r"windows\.0\.instance_quotas"),
        # A limit that does not agree with those that stay.
        (
            ["name: a, from: 22:00, to: 06:00, tiers: {basic: {quota: 9, borrowing_limit: 0}}"],
            r"while a is in force, from 2026-01-01 00:00 UTC: running_max is 20, and .* 9 \+ 6 \+ 10 = 25",
        ),
        (
            ["name: a, from: 22:00, to: 06:00, tiers: {premium: {running_ceiling_per_tenant: 2}}"],
            "running_ceiling_per_tenant of tier premium is 2, which is below running_max_per_tenant",
        ),
        # Two that agree with the policy, and not with each other.
        (
            [
                "name: low, from: 00:00, to: 12:00, running_max: 20, tiers: {basic: {quota: 1, lending_limit: 0}}",
                "name: high, from: 10:00, to: 14:00, days: [wed], tiers: {basic: {lending_limit: 3}}",
            ],
            "while low and high is in force, from 2026-01-07 10:00 UTC: lending_limit of tier basic is 3",
        ),
        # Three hours in the year, when one clock is set back and the other one is not yet.
        (
            [
                "name: a, from: 09:00, to: 15:00, zone: Europe/London, "
                "tiers: {basic: {quota: 1, lending_limit: 0}}",
                "name: b, from: 10:00, to: 11:00, zone: America/New_York, tiers: {basic: {lending_limit: 3}}",
            ],
            "while a and b is in force, from 2026-03-08 14:00 UTC",
        ),
        (
            [
                "name: a, from: 22:00, to: 06:00, tiers: {basic: {lending_limit: 1}}",
                "name: b, from: 21:00, to: 07:00, tiers: {basic: {lending_limit: 2}}",
            ],
            "a is never in force",
        ),
        (
            [
                "name: a, from: 22:00, to: 06:00, tiers: {basic: {closed: true}}",
                "name: b, from: 06:00, to: 22:00, closed: true",
            ],
            "close tier basic at all times",
        ),
        (
            ["name: a, from: 2028-12-24 18:00, to: 2028-12-25 18:00, running_max: 12"],
            "while a is in force, from 2028-12-24 18:00 UTC",
        ),
        ([NIGHT, NIGHT], "like that of another window"),
        (["name: a, from: true, to: 06:00, closed: true"], r"windows\.0\.from"),
        (["name: a, from: [], to: 06:00, closed: true"], r"windows\.0\.from"),
        (["name: a, to: 06:00, closed: true"], r"windows\.0\.from: is missing"),
        (["name: a, from: 2026-13-01 00:00, to: 2027-01-01 00:00, closed: true"], "2026-13-01"),
    ],
)
def test_windows_that_cannot_be_meant_are_refused_with_place_and_reason(windows: list[str], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        with_windows(*windows)


def test_quotas_are_guaranteed_so_they_must_fit_the_account() -> None:
    with pytest.raises(Refused, match=r"running_max: is 19, and the quotas .* 4 \+ 6 \+ 10 = 20"):
        parse_policy(SHIPPED.replace("running_max: 20", "running_max: 19"), 1)


def test_a_window_may_reopen_what_another_one_closes() -> None:
    limits = with_windows(
        "name: closed, from: sat 00:00, to: mon 00:00, closed: true",
        "name: open, from: 10:00, to: 12:00, tiers: {premium: {closed: false}}",
    )
    assert [t.closed for t in limits.at(utc("2026-11-28 11:00")).tiers] == [True, True, False]


def test_fifty_windows_are_checked_in_a_moment() -> None:
    windows = [
        f'name: w{n}, from: "{n // 3:02d}:{n % 3 * 20:02d}", to: "{n // 3 + 1:02d}:{n % 3 * 20:02d}", '
        f"zone: {zone}, days: [{DAYS[n % 7]}], starts_per_second: {n + 1}"
        for n, zone in enumerate(["Europe/Zurich", "America/New_York"] * 25)
    ]
    assert len(with_windows(*windows).windows) == 50


def test_single_windows_are_known_however_far_away_they_are() -> None:
    window = Window(
        name="a", when=Once(utc("2030-01-01 00:00"), utc("2030-01-02 00:00")), limits={"running_max": 1}
    )
    times = timeline([window], utc("2026-01-01 00:00"), utc("2026-01-02 00:00"))
    assert times.changes == (utc("2030-01-01 00:00"), utc("2030-01-02 00:00"))
    limits = policy(windows=(window,))
    assert limits.at(utc("2026-01-01 00:00")).epoch == EVER
    assert limits.at(utc("2031-01-01 00:00")).epoch == utc("2030-01-02 00:00")
    assert limits.at(utc("2031-01-01 00:00")).ahead == ()
