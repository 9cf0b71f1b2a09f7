"""The test environment: what answers in it, how a version leaves it, and the events of all that."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from testing.memory_store import MemoryStore
from tests.build import NOW
from tests.unit.test_canaries import OWN, counted, version_id
from tests.unit.test_lost_approvals import search, search_over
from tests.unit.test_model_deployment import RUN, Harness, arn, target
from trainyard.application.serving.model_deployment import NOT_APPROVED, Judgement
from trainyard.contracts.model_events import DETAIL_TYPES
from trainyard.domain import canaries
from trainyard.domain.alias_events import AliasChange, AliasEvent, events_between
from trainyard.domain.aliases import (
    ABANDONED_AFTER,
    Alias,
    Begun,
    Environment,
    answering,
    begin,
    deployed,
    deployed_for_test,
    failed,
    in_use,
    next_to_deploy,
    postponed,
    promoted,
    released,
    rolled_back,
    stopped,
)
from trainyard.domain.canaries import Calls
from trainyard.domain.errors import Refused
from trainyard.domain.model_versions import VersionState
from trainyard.domain.serving import Approval, Isolation, Mode, Promotion, ServingSettings, objection_to
from trainyard.domain.tenants import TenantState
from trainyard.persistence.items import stamp
from trainyard.persistence.outbox import OUTBOX_MAX, entry, model_entry, outbox_entries, spending_entry

LATER = NOW + timedelta(minutes=60)
TEST = Environment.TEST


def in_test(promotion: Promotion = Promotion.AUTOMATIC, **settings: Any) -> Harness:
    """Return a world in which version 1 is live and version 2 in test."""
    harness = Harness()
    harness.serve(**settings)
    harness.deploy(1)
    harness.serve(promotion=promotion, **settings)
    harness.deploy(2)
    assert (harness.alias.live, harness.alias.testing, harness.alias.canary) == (1, 2, None)
    return harness


def judge(harness: Harness, number: int, now: datetime) -> Judgement:
    return harness.deployment.judge(version_id(number), now)[0]


def published(harness: Harness) -> list[tuple[str, int, str | None]]:
    entries = [entry for entry in outbox_entries(harness.store) if entry.what in DETAIL_TYPES]
    ordered = sorted(entries, key=lambda entry: (entry.values["since"], entry.values["version"]))
    return [(entry.what, int(entry.values["version"]), entry.values.get("reason")) for entry in ordered]


def test_a_version_in_test_answers_there_alone() -> None:
    harness = in_test(Promotion.MANUAL)
    for key in map(str, range(50)):
        assert answering(harness.alias, key) == 1
        assert answering(harness.alias, key, TEST) == 2
    assert in_use(harness.alias) == {1, 2}
    assert harness.placed == {target(1), target(2)}


def test_the_first_version_is_tested_too() -> None:
    harness = Harness()
    harness.serve(promotion=Promotion.MANUAL)
    harness.deploy(1)
    assert (harness.alias.live, harness.alias.testing) == (None, 1)
    assert answering(harness.alias, "any") is None


@pytest.mark.parametrize("settings", [{}, OWN])
@pytest.mark.parametrize("percent", [0, 20])
def test_a_version_that_does_well_is_promoted_after_its_test(settings: dict[str, Any], percent: int) -> None:
    harness = in_test(canary_percent=percent, **settings)
    counted(harness, 2, 100, 10)
    assert judge(harness, 2, LATER - timedelta(seconds=1)) is Judgement.TESTING
    expected = Judgement.BAKING if percent else Judgement.PROMOTED
    assert judge(harness, 2, LATER) is expected
    alias = harness.alias
    assert alias.testing is None
    assert alias.test_ends_at is None
    assert (alias.canary, alias.live) == ((2, 1) if percent else (None, 2))
    assert harness.version(2).since == LATER, "its baking, and its predecessor's day, begin now"
    if percent:
        assert judge(harness, 2, LATER + timedelta(minutes=29)) is Judgement.BAKING
        assert judge(harness, 2, LATER + timedelta(minutes=30)) is Judgement.PROMOTED
        assert harness.alias.live == 2


def test_calls_in_test_do_not_count_against_a_canary() -> None:
    harness = in_test(canary_percent=20)
    counted(harness, 2, 100, 10, LATER)
    assert judge(harness, 2, LATER) is Judgement.BAKING
    counted(harness, 2, 9, 9, LATER)
    assert judge(harness, 2, LATER) is Judgement.BAKING
    counted(harness, 2, 1, 1, LATER)
    assert judge(harness, 2, LATER) is Judgement.ROLLED_BACK


def test_a_version_that_fails_calls_in_test_is_given_up() -> None:
    harness = in_test()
    counted(harness, 1, 100, 100)
    counted(harness, 2, 11, 10)
    assert judge(harness, 2, NOW) is Judgement.ROLLED_BACK
    assert (harness.alias.live, harness.alias.testing) == (1, None)
    assert harness.version(2).state is VersionState.FAILED
    assert harness.version(2).reason == "it failed 10 of 11 calls in test"
    assert published(harness)[-1] == ("version rolled back", 2, "it failed 10 of 11 calls in test")
    assert harness.deployment.begin(arn(2), "again", NOW).begun is Begun.WITHDRAWN


@pytest.mark.parametrize(
    ("calls", "is_bad"), [(Calls(9, 9), False), (Calls(100, 10), False), (Calls(99, 10), True)]
)
def test_failures_in_test_are_compared_with_nothing(calls: Calls, is_bad: bool) -> None:
    assert (canaries.objection_in_test(calls) is not None) is is_bad


def test_what_was_called_before_the_test_does_not_count() -> None:
    harness = in_test()
    counted(harness, 2, 50, 50)
    harness.deployment.aliases.change("acme", "churn", lambda alias: rolled_back(alias, 2, NOW), NOW)
    package = harness.packages.packages[arn(2)]
    harness.packages.packages[arn(2)] = replace(package, changed_at=NOW + timedelta(seconds=1))
    assert harness.deployment.begin(arn(2), "again", NOW).begun is Begun.DEPLOY
    harness.deployment.place(version_id(2))
    harness.deployment.test(version_id(2), NOW)
    harness.deployment.switch(version_id(2), "again", NOW)
    assert judge(harness, 2, NOW) is Judgement.TESTING


def test_with_manual_promotion_nobody_is_waited_for() -> None:
    harness = in_test(Promotion.MANUAL)
    assert judge(harness, 2, LATER + timedelta(days=9)) is Judgement.NOT_JUDGED
    assert harness.deploy(3) is None
    assert harness.alias.testing == 3
    harness.deployment.promoter.release(harness.version(3), LATER)
    alias = harness.alias
    assert alias.live == 3
    assert alias.testing is None
    harness.serve()
    harness.deploy(4)
    assert harness.version(2).state is VersionState.REMOVED, "it is below all that are named"
    assert harness.placed == {target(3), target(4)}


def test_a_newer_version_waits_for_a_timed_test() -> None:
    harness = in_test()
    assert harness.deployment.begin(harness.approve(3), "run-3", NOW).begun is Begun.WAIT
    assert next_to_deploy(harness.alias) is None
    _, following = harness.deployment.judge(version_id(2), LATER)
    assert following == ("acme", "churn", 3)


def test_an_older_version_does_not_take_the_place_of_one_in_test() -> None:
    harness = in_test(Promotion.MANUAL)
    harness.deploy(4)
    assert harness.deployment.begin(harness.approve(3), "run-3", NOW).begun is Begun.OVERTAKEN
    again = harness.deployment.begin(arn(4), "run-4", NOW)
    assert (again.begun, again.is_judged) == (Begun.SERVED, False)


def test_an_approval_that_comes_twice_goes_on_with_the_judgement() -> None:
    harness = in_test()
    started = harness.deployment.begin(arn(2), "another run", NOW)
    assert (started.begun, started.is_judged) == (Begun.SERVED, True)


def test_a_version_in_test_waits_while_another_one_is_a_canary() -> None:
    harness = in_test(canary_percent=20)
    harness.deployment.aliases.change("acme", "churn", lambda alias: replace(alias, canary=9), NOW)
    before = harness.version(2)
    with pytest.raises(Refused, match="version 9 of churn is a canary: promote it or roll it back first"):
        harness.deployment.promoter.release(before, LATER)
    assert harness.version(2) == before, "it is judged by the same calls as before"
    assert judge(harness, 2, LATER) is Judgement.TESTING
    harness.deployment.aliases.change("acme", "churn", lambda alias: replace(alias, canary=None), NOW)
    assert judge(harness, 2, LATER) is Judgement.BAKING


def test_what_an_operator_decides_at_the_end_of_a_test_stays() -> None:
    harness = in_test()
    aliases = harness.deployment.aliases

    class Racing:
        """Aliases that an operator changes between reading and changing them."""

        get = staticmethod(aliases.get)

        @staticmethod
        def change(*arguments: Any) -> Any:
            aliases.change("acme", "churn", lambda before: rolled_back(before, 2, NOW), NOW)
            return aliases.change(*arguments)

    racing: Any = Racing()
    promoter = replace(harness.deployment.promoter, aliases=racing)
    deployment = replace(harness.deployment, promoter=promoter)
    assert deployment.judge(version_id(2), LATER)[0] is Judgement.NOT_JUDGED
    assert harness.alias.live == 1
    assert harness.alias.testing is None


def test_a_test_whose_run_died_is_ended_by_the_search() -> None:
    harness = in_test()
    lost, _ = search_over(harness)
    search(lost, LATER)
    assert harness.alias.live == 2


def test_a_version_whose_test_has_ended_badly_or_by_command_answers_nothing() -> None:
    harness = in_test(Promotion.MANUAL)
    alias = stopped(harness.alias, NOW)
    assert (alias.testing, alias.live) == (None, None)
    alias = rolled_back(harness.alias, 2, NOW)
    assert (alias.testing, alias.live, 2 in alias.withdrawn) == (None, 1, True)
    for change in (promoted, released):
        with pytest.raises(Refused, match="no version is a canary, version 2 is in test"):
            change(harness.alias, 7)


def test_only_the_run_that_deploys_a_version_puts_it_into_test() -> None:
    alias, _ = begin(Alias(tenant_id="acme", data_set="churn"), 1, NOW, NOW, RUN)
    with pytest.raises(Refused, match="not being deployed by another"):
        deployed_for_test(alias, 1, "another", None)
    tested = deployed_for_test(alias, 1, RUN, None)
    assert deployed_for_test(tested, 1, "another", LATER) == tested, "the test is not prolonged"
    assert deployed_for_test(released(tested, 1), 1, RUN, None) == released(tested, 1)


@pytest.mark.parametrize(
    ("mode", "promotion", "objection"),
    [
        (Mode.BATCH_TRANSFORM, Promotion.MANUAL, "answers no calls"),
        (Mode.BATCH_TRANSFORM, Promotion.DIRECT, None),
        (Mode.ASYNCHRONOUS, Promotion.AUTOMATIC, "choose manual or direct"),
        (Mode.ASYNCHRONOUS, Promotion.MANUAL, None),
        (Mode.REAL_TIME, Promotion.AUTOMATIC, None),
    ],
)
def test_promotion_by_time_needs_calls_that_say_how_they_ended(
    mode: Mode, promotion: Promotion, objection: str | None
) -> None:
    given = objection_to(ServingSettings(mode=mode, isolation=Isolation.SILO, promotion=promotion))
    assert (given is None) is (objection is None)
    assert objection is None or objection in (given or "")


@pytest.mark.parametrize("minutes", [0, 721])
def test_a_test_is_bounded(minutes: int) -> None:
    assert f"{minutes} minutes of test" in (objection_to(ServingSettings(test_minutes=minutes)) or "")


def test_what_an_operator_has_promoted_meanwhile_is_promoted_once() -> None:
    harness = in_test(canary_percent=20)
    version, promoter = harness.version(2), harness.deployment.promoter
    aliases = harness.deployment.aliases

    class Racing:
        """Aliases in which an operator promotes between a reading and a change."""

        get = staticmethod(aliases.get)

        @staticmethod
        def change(*arguments: Any) -> Any:
            promoter.release(version, LATER)
            return aliases.change(*arguments)

    racing: Any = Racing()
    deployment = replace(harness.deployment, promoter=replace(promoter, aliases=racing))
    assert deployment.judge(version_id(2), LATER)[0] is Judgement.BAKING
    assert (harness.alias.live, harness.alias.canary) == (1, 2)


def test_a_step_that_is_repeated_forgets_no_failures() -> None:
    harness = in_test(canary_percent=20)
    judge(harness, 2, LATER)
    counted(harness, 2, 20, 12, LATER)
    harness.deployment.switch(version_id(2), RUN, LATER)
    assert judge(harness, 2, LATER) is Judgement.ROLLED_BACK


def test_what_is_not_approved_any_more_gets_no_further_than_the_test() -> None:
    harness = in_test()
    harness.approve(2, approved=False)
    assert judge(harness, 2, LATER) is Judgement.ROLLED_BACK
    assert (harness.alias.live, harness.alias.testing) == (1, None)
    assert "not approved" in (published(harness)[-1][2] or "")


def test_a_test_goes_on_while_its_tenant_is_suspended() -> None:
    harness = in_test()
    harness.tenants.put(replace(harness.owner, state=TenantState.SUSPENDED))
    assert judge(harness, 2, LATER) is Judgement.TESTING


def test_what_is_older_than_the_live_version_leaves_the_test() -> None:
    harness = in_test(Promotion.MANUAL)
    harness.serve()
    harness.deploy(3)
    alias = harness.alias
    assert alias.live == 3
    assert alias.testing is None
    with pytest.raises(Refused, match="version 3 of churn is live, and newer"):
        released(replace(alias, testing=2), 2)
    newer = deployed(replace(alias, testing=9, deploying=4, deploying_run=RUN), 4, RUN)
    assert newer.testing == 9, "what is newer stays"


def test_a_version_that_is_ready_while_another_one_became_a_canary_waits() -> None:
    harness = in_test(Promotion.MANUAL, canary_percent=20)
    harness.serve(canary_percent=10)
    harness.deployment.begin(harness.approve(3), "run-3", NOW)
    harness.deployment.place(version_id(3))
    harness.deployment.test(version_id(3), NOW)
    harness.deployment.promoter.release(harness.version(2), NOW)
    assert harness.deployment.switch(version_id(3), "run-3", NOW) == (False, False, None)
    assert harness.deployment.switch(version_id(3), "run-3", NOW) == (False, False, None), "repeated"
    harness.deployment.aliases.change("acme", "churn", lambda alias: replace(alias, waiting=None), NOW)
    with pytest.raises(Refused, match="has not passed"):
        harness.deployment.switch(version_id(3), "run-3", NOW)
    harness.deployment.aliases.change("acme", "churn", lambda alias: replace(alias, waiting=3), NOW)
    assert (harness.alias.canary, harness.alias.waiting, harness.alias.deploying) == (2, 3, None)
    assert harness.version(3).state is VersionState.WAITING
    assert harness.deployment.judge(version_id(2), NOW + timedelta(minutes=30))[1] == ("acme", "churn", 3)


def test_a_version_that_is_postponed_behind_a_newer_one_serves_nothing() -> None:
    harness = in_test(Promotion.MANUAL, canary_percent=20)
    harness.deployment.begin(harness.approve(3), "run-3", NOW)
    harness.deployment.begin(harness.approve(4), "run-4", NOW)
    harness.deployment.place(version_id(3))
    harness.deployment.test(version_id(3), NOW)
    harness.deployment.promoter.release(harness.version(2), NOW)
    assert harness.deployment.switch(version_id(3), "run-3", NOW) == (False, False, None)
    assert (harness.alias.waiting, harness.version(3).state) == (4, VersionState.WAITING)


def test_a_run_that_has_lost_its_version_switches_nothing_while_another_one_is_judged() -> None:
    harness = in_test()
    harness.deployment.versions.put(replace(harness.version(2), version=3, package_arn=harness.approve(3)))
    with pytest.raises(Refused, match="not being deployed by run-3"):
        harness.deployment.switch(version_id(3), "run-3", NOW)


def test_a_failure_says_why_although_a_newer_version_waits() -> None:
    harness = Harness()
    harness.deployment.begin(harness.approve(1), RUN, NOW)
    harness.deployment.begin(harness.approve(2), "run-2", NOW)
    harness.deployment.fail(version_id(1), RUN, "smoke test: wrong", NOW)
    assert published(harness) == [("version not deployed", 1, "smoke test: wrong")]


def test_a_waiting_version_that_is_not_approved_any_more_is_announced_by_the_search() -> None:
    harness = Harness()
    harness.deployment.begin(harness.approve(1), RUN, NOW)
    harness.deployment.begin(harness.approve(2), "run-2", NOW)
    harness.approve(2, approved=False)
    harness.deployment.aliases.change(
        "acme", "churn", lambda a: replace(a, deploying=None, deploying_run=None), NOW
    )
    search(search_over(harness)[0], NOW)
    assert harness.version(2).state is VersionState.REFUSED
    assert ("version not deployed", 2, NOT_APPROVED) in published(harness)


def test_a_deployment_that_died_unapproved_is_announced_once() -> None:
    harness = Harness()
    harness.deployment.begin(harness.approve(1), RUN, NOW)
    harness.approve(1, approved=False)
    search(search_over(harness)[0], NOW + ABANDONED_AFTER + timedelta(seconds=1))
    assert harness.alias.deploying is None
    assert published(harness) == [("version not deployed", 1, NOT_APPROVED)]


def test_a_judgement_that_fails_hides_no_lost_approval() -> None:
    harness = in_test()
    lost, _ = search_over(harness)
    harness.approve(3)
    harness.deployment.aliases.change("acme", "churn", lambda a: replace(a, test_ends_at=None), NOW)

    def broken(*_: Any) -> Any:
        raise ValueError("broken")

    found = search(replace(lost, judge=broken), NOW)
    assert (found.started, found.failed) == ([arn(3)], {"acme": "ValueError: broken"})


def test_what_an_operator_has_promoted_over_is_removed_when_its_approval_is_told_again() -> None:
    harness = in_test(Promotion.MANUAL)
    harness.deployment.promoter.release(harness.version(2), NOW)
    harness.deploy(3)
    harness.deployment.promoter.release(harness.version(3), NOW)
    assert target(1) in harness.placed
    assert harness.deployment.begin(arn(3), "promoted", NOW).begun is Begun.SERVED
    assert harness.placed == {target(2), target(3)}


def test_an_endpoint_of_a_tenant_that_is_deleted_while_it_comes_up_is_removed() -> None:
    harness = Harness()
    harness.deployment.begin(harness.approve(1), RUN, NOW)
    harness.deployment.place(version_id(1))
    ensure = harness.models.ensure

    def meanwhile(*arguments: Any) -> Any:
        harness.tenants.put(replace(harness.owner, state=TenantState.DELETING))
        return ensure(*arguments)

    harness.models.ensure = meanwhile  # type: ignore[method-assign, assignment]
    with pytest.raises(Refused, match="acme is not active"):
        harness.deployment.bring_up(version_id(1))
    assert harness.placed == set()


def test_a_version_that_is_refused_is_announced() -> None:
    harness = Harness()
    harness.serve(mode=Mode.REAL_TIME, isolation=Isolation.BRIDGE)
    for later in (NOW, LATER):
        assert harness.deployment.begin(harness.approve(1), RUN, later).begun is None
    ((what, version, reason),) = published(harness)
    assert [entry.values["at"] for entry in outbox_entries(harness.store)] == [stamp(NOW)], "once"
    assert (what, version) == ("version not deployed", 1)
    assert "real-time does not allow bridge" in (reason or "")


def test_a_deployment_that_died_is_announced_when_another_one_takes_its_place() -> None:
    harness = Harness()
    harness.deployment.begin(harness.approve(1), RUN, NOW)
    later = NOW + ABANDONED_AFTER + timedelta(seconds=1)
    harness.deployment.begin(harness.approve(2), "run-2", later)
    assert published(harness) == [("version not deployed", 1, "another deployment took its place")]


# --- events -----------------------------------------------------------------------------------------------------

EMPTY = Alias(tenant_id="acme", data_set="churn")
LIVE = replace(EMPTY, live=2, previous=1)
DEPLOYING = replace(LIVE, deploying=3, deploying_run=RUN, deploying_since=NOW)
CANARY = deployed(DEPLOYING, 3, RUN, percent=10)
TESTED = deployed_for_test(DEPLOYING, 3, RUN, None)
FIRST = replace(TESTED, live=None, previous=None)
AGAIN = replace(stopped(DEPLOYING, NOW), deploying=3, deploying_run=RUN, deploying_since=LATER)
ONCE_STOPPED = replace(stopped(DEPLOYING, NOW), testing=3)
FULL = replace(LIVE, withdrawn=dict.fromkeys(range(4, 54), NOW))
C = AliasChange


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        (LIVE, LIVE, []),
        (LIVE, DEPLOYING, []),
        (DEPLOYING, deployed(DEPLOYING, 3, RUN), [(C.DEPLOYED, 3)]),
        (DEPLOYING, CANARY, [(C.CANARY_STARTED, 3)]),
        (DEPLOYING, TESTED, [(C.IN_TEST, 3)]),
        (DEPLOYING, failed(DEPLOYING, 3, RUN, NOW), [(C.NOT_DEPLOYED, 3)]),
        (CANARY, promoted(CANARY, 3), [(C.DEPLOYED, 3)]),
        (CANARY, rolled_back(CANARY, 3, NOW), [(C.ROLLED_BACK, 3)]),
        (TESTED, released(TESTED, 3), [(C.DEPLOYED, 3)]),
        (TESTED, released(TESTED, 3, percent=10), [(C.CANARY_STARTED, 3)]),
        (TESTED, replace(TESTED, testing=4), [(C.IN_TEST, 4)]),
        (TESTED, replace(TESTED, testing=None, live=4, previous=2), [(C.DEPLOYED, 4)]),
        (TESTED, stopped(TESTED, NOW), [(C.STOPPED, 2), (C.STOPPED, 3)]),
        (FIRST, rolled_back(FIRST, 3, NOW), [(C.ROLLED_BACK, 3)]),
        (FIRST, stopped(FIRST, NOW), [(C.STOPPED, 3)]),
        (AGAIN, failed(AGAIN, 3, RUN, LATER), [(C.NOT_DEPLOYED, 3)]),
        (FULL, rolled_back(FULL, 2, LATER), [(C.ROLLED_BACK, 2)]),
        (DEPLOYING, postponed(DEPLOYING, 3, RUN), []),
        (ONCE_STOPPED, rolled_back(ONCE_STOPPED, 3, LATER), [(C.ROLLED_BACK, 3)]),
        (TESTED, rolled_back(TESTED, 3, NOW), [(C.ROLLED_BACK, 3)]),
        (LIVE, rolled_back(LIVE, 2, NOW), [(C.ROLLED_BACK, 2)]),
        (DEPLOYING, stopped(DEPLOYING, NOW), [(C.STOPPED, 2), (C.NOT_DEPLOYED, 3)]),
        (CANARY, stopped(CANARY, NOW), [(C.STOPPED, 2), (C.STOPPED, 3)]),
        (replace(DEPLOYING, live=None), stopped(replace(DEPLOYING, live=None), NOW), [(C.NOT_DEPLOYED, 3)]),
        (replace(DEPLOYING, live=None), failed(replace(DEPLOYING, live=None), 3, RUN, NOW), [(C.NOT_DEPLOYED, 3)]),
        (replace(LIVE, waiting=3), replace(LIVE, waiting=None), []),
    ],
)
def test_a_change_of_an_alias_means_events(
    before: Alias, after: Alias, events: list[tuple[AliasChange, int]]
) -> None:
    assert events_between(before, after) == [AliasEvent(change, version) for change, version in events]


def test_many_events_of_versions_hold_up_nothing_else() -> None:
    store = MemoryStore()
    entries = [
        model_entry(replace(LIVE, revision=str(n)), AliasEvent(C.DEPLOYED, n), "", NOW) for n in range(OUTBOX_MAX)
    ]
    for number in range(0, len(entries), 50):
        store.transact(entries[number : number + 50])
    late = NOW + timedelta(hours=1)
    store.transact([spending_entry("late", "2026-11", {}, late), entry("settle", "late", {}, late)])
    assert {"settle", "spending"} < {each.what for each in outbox_entries(store)}


def test_events_are_left_with_the_change_that_causes_them() -> None:
    harness = in_test(canary_percent=20, approval=Approval.MANUAL)
    harness.deployment.begin(harness.approve(3), "run-3", NOW)
    judge(harness, 2, LATER)
    judge(harness, 2, LATER + timedelta(minutes=30))
    harness.deployment.begin(arn(3), "run-3", LATER)
    harness.deployment.fail(version_id(3), "run-3", "smoke test: " + "x" * 999, LATER + timedelta(minutes=40))
    events = published(harness)
    assert [(what.removeprefix("version "), version) for what, version, _ in events] == [
        ("deployed", 1),
        ("in test", 2),
        ("canary started", 2),
        ("deployed", 2),
        ("not deployed", 3),
    ]
    assert [reason for *_, reason in events][:4] == [None] * 4
    assert len(events[-1][2] or "") == 500
