"""Canaries that are judged by their calls, versions that approve themselves, and own endpoints that end."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from testing.memory_serving import MemoryOwnModels
from tests.build import NOW
from tests.unit.test_lost_approvals import search, search_over
from tests.unit.test_model_deployment import RUN, Harness, arn
from trainyard.application.serving.approval_rule import APPROVES_WITHIN
from trainyard.application.serving.model_deployment import Judgement, VersionId
from trainyard.application.serving.ports import OwnEndpoint
from trainyard.application.serving.removal import ServedModels
from trainyard.application.serving.unused_endpoints import KEPT_FOR, UnusedEndpoints
from trainyard.domain import canaries
from trainyard.domain.aliases import Begun, answering, promoted, rolled_back, stopped
from trainyard.domain.canaries import Calls
from trainyard.domain.errors import Refused
from trainyard.domain.inference import EndpointUse
from trainyard.domain.model_versions import VersionState
from trainyard.domain.serving import Approval, Isolation, Mode
from trainyard.domain.tenants import TenantState

OWN: dict[str, Any] = {"mode": Mode.REAL_TIME, "isolation": Isolation.SILO}


def version_id(number: int) -> VersionId:
    return VersionId("acme", "churn", number)


def counted(harness: Harness, number: int, calls: int, failed: int = 0, at: datetime = NOW) -> None:
    """Count calls that a version was asked to answer."""
    version = harness.version(number)
    use = EndpointUse(
        tenant_id="acme", data_set="churn", tier="basic", algorithm="linear", calls=calls, failed=failed
    )
    harness.book.count(version.endpoint, use, at, number)


def with_canary(**settings: Any) -> Harness:
    """Return a world in which version 1 is live and version 2 its canary."""
    harness = Harness()
    harness.serve(canary_percent=20, bake_minutes=30, **settings)
    harness.deploy(1)
    assert harness.alias.live == 1, "the first version has nothing beside which it could be a canary"
    harness.deploy(2)
    assert (harness.alias.live, harness.alias.canary, harness.alias.canary_percent) == (1, 2, 20)
    return harness


@pytest.mark.parametrize(
    ("canary", "live", "is_bad"),
    [
        (Calls(), Calls(), False),
        (Calls(9, 9), Calls(100, 0), False),
        (Calls(10, 10), Calls(), True),
        (Calls(100, 10), Calls(100, 0), False),
        (Calls(100, 11), Calls(100, 0), True),
        (Calls(50, 30), Calls(100, 60), False),
        (Calls(50, 36), Calls(100, 60), True),
    ],
)
def test_a_canary_is_bad_when_it_fails_a_larger_share_of_its_calls(
    canary: Calls, live: Calls, is_bad: bool
) -> None:
    objection = canaries.objection_to(canary, live)
    assert (objection is not None) is is_bad
    assert objection is None or f"{canary.failed} of {canary.total} calls" in objection


@pytest.mark.parametrize("settings", [{}, OWN])
def test_a_canary_answers_all_calls_once_it_has_baked(settings: dict[str, Any]) -> None:
    harness = with_canary(**settings)

    def judge(number: VersionId, now: datetime) -> Judgement:
        return harness.deployment.judge(number, now)[0]

    assert judge(version_id(2), NOW + timedelta(minutes=29)) is Judgement.BAKING
    counted(harness, 2, 100, 9)
    assert judge(version_id(2), NOW + timedelta(minutes=30)) is Judgement.PROMOTED
    assert (harness.alias.live, harness.alias.previous, harness.alias.canary) == (2, 1, None)
    assert judge(version_id(2), NOW + timedelta(minutes=31)) is Judgement.NOT_JUDGED


@pytest.mark.parametrize("settings", [{}, OWN])
def test_a_canary_that_fails_calls_is_rolled_back_and_only_a_later_approval_brings_it_back(
    settings: dict[str, Any],
) -> None:
    harness = with_canary(**settings)
    counted(harness, 1, 100, 1)
    counted(harness, 2, 20, 10, NOW + timedelta(hours=1, minutes=1))
    now = NOW + timedelta(hours=1, minutes=2)
    assert harness.deployment.judge(version_id(2), now)[0] is Judgement.ROLLED_BACK
    assert (harness.alias.live, harness.alias.canary) == (1, None)
    version = harness.version(2)
    assert version.state is VersionState.FAILED
    assert "failed 10 of 20 calls, and the live version 1 of 100" in (version.reason or "")
    assert harness.deployment.begin(arn(2), "run-2", now).begun is Begun.WITHDRAWN
    assert harness.deployment.judge(version_id(2), now)[0] is Judgement.NOT_JUDGED


def test_what_an_operator_decides_while_a_canary_is_judged_stays() -> None:
    changes: list[tuple[Any, int]] = [(promoted, 2), (lambda a, v: rolled_back(a, v, NOW), 1)]
    for change, live in changes:
        harness = with_canary()
        counted(harness, 2, 20, 20)
        aliases = harness.deployment.aliases

        class Racing:
            """Aliases that an operator changes between reading and changing them."""

            def __init__(self, harness: Harness, make: Any) -> None:
                self.inner, self.make = harness.deployment.aliases, make

            def get(self, tenant_id: str, data_set: str) -> Any:
                alias = self.inner.get(tenant_id, data_set)
                self.inner.change(tenant_id, data_set, lambda before: self.make(before, 2), NOW)
                return alias

            def change(self, *arguments: Any) -> Any:
                return self.inner.change(*arguments)

        racing: Any = Racing(harness, change)
        replace(harness.deployment, aliases=racing).judge(version_id(2), NOW)
        alias = aliases.get("acme", "churn")
        assert (alias.live, alias.canary) == (live, None)
        assert harness.version(2).state is VersionState.READY, "the judge did not give it up"


@pytest.mark.parametrize("seed", range(20))
def test_a_bad_version_answers_no_more_than_its_share_and_nothing_after_its_roll_back(seed: int) -> None:
    """Calls of many customers, a version that breaks at some time, a judge that comes late or dies."""
    draw = Random(seed)
    harness = with_canary(**draw.choice([{}, OWN]))
    breaks_at = NOW + timedelta(minutes=draw.uniform(0, 20))
    customers = [f"customer {number}" for number in range(500)]
    share = sum(answering(harness.alias, customer) == 2 for customer in customers) / len(customers)
    assert 0.14 < share < 0.26
    now, answered, rolled_back_at = NOW, {1: 0, 2: 0}, None
    while now < NOW + timedelta(hours=2):
        now += timedelta(seconds=draw.uniform(1, 10))
        number = answering(harness.alias, draw.choice(customers)) or 0
        if rolled_back_at is not None:
            assert number == 1
            continue
        answered[number] += 1
        counted(harness, number, 1, int(number == 2 and now > breaks_at and draw.random() < 0.7), now)
        if draw.random() < 0.1:  # else it has not come yet, or has died
            judged, _ = harness.deployment.judge(version_id(2), now)
            rolled_back_at = now if judged is Judgement.ROLLED_BACK else None
            assert judged is not Judgement.PROMOTED or now >= NOW + timedelta(minutes=30)
    assert rolled_back_at is not None
    calls = sum(answered.values())
    assert answered[2] <= share * calls + 4 * (share * (1 - share) * calls) ** 0.5


def test_a_canary_whose_run_has_died_is_judged_by_the_search() -> None:
    harness = with_canary()
    lost, _ = search_over(harness)
    search(lost, NOW + timedelta(minutes=29))
    assert harness.alias.live == 1
    search(lost, NOW + timedelta(minutes=30))
    after = harness.alias
    assert (after.live, after.canary) == (2, None)


def test_a_canary_that_is_approved_again_is_judged_by_its_new_calls_alone() -> None:
    harness = with_canary()
    counted(harness, 2, 20, 20)
    counted(harness, 1, 100, 100)
    harness.deployment.aliases.change("acme", "churn", lambda alias: rolled_back(alias, 2, NOW), NOW)
    later = NOW + timedelta(minutes=5)
    package_arn = harness.approve(2, at=later)
    started = harness.deployment.begin(package_arn, "again", later)
    assert (started.begun, started.id) == (Begun.DEPLOY, version_id(2))
    harness.deployment.place(version_id(2))
    harness.deployment.test(version_id(2), later)
    for _ in range(2):  # a step may be repeated
        assert harness.deployment.switch(version_id(2), "again", later).is_judged
    assert harness.deployment.judge(version_id(2), later)[0] is Judgement.BAKING
    counted(harness, 2, 20, 10)
    assert harness.deployment.judge(version_id(2), later)[0] is Judgement.ROLLED_BACK, "the live one fails no more"


def test_a_canary_is_compared_with_the_version_that_is_live_now() -> None:
    harness = Harness()
    harness.deploy(1)
    harness.deploy(2)
    counted(harness, 2, 1000)
    harness.serve(canary_percent=20)
    harness.deploy(3)
    harness.deployment.aliases.change("acme", "churn", lambda alias: rolled_back(alias, 2, NOW), NOW)
    counted(harness, 1, 100, 50)
    counted(harness, 3, 100, 50)
    assert harness.deployment.judge(version_id(3), NOW)[0] is Judgement.BAKING, "it fails no more than version 1"


def test_a_deployment_during_which_its_tenant_is_suspended_goes_on_after_that() -> None:
    harness = Harness()
    started = harness.deployment.begin(harness.approve(1), RUN, NOW)
    assert started.begun is Begun.DEPLOY
    harness.owner = harness.tenants.put(replace(harness.owner, state=TenantState.SUSPENDED))
    with pytest.raises(Refused, match="is not active"):
        harness.deployment.bring_up(version_id(1))
    assert harness.deployment.fail(version_id(1), RUN, "is not active", NOW) is None
    assert (harness.version(1).state, harness.alias.waiting) == (VersionState.WAITING, 1)
    assert harness.deployment.fail(version_id(1), RUN, "repeated", NOW) is None
    harness.owner = harness.tenants.put(replace(harness.owner, state=TenantState.ACTIVE))
    lost, _ = search_over(harness)
    assert search(lost).started == [arn(1)]
    assert harness.deployment.begin(arn(1), "later", NOW).begun is Begun.DEPLOY


def test_the_version_that_waited_for_a_canary_is_deployed_after_it() -> None:
    harness = with_canary()
    assert harness.deployment.begin(harness.approve(3), "run-3", NOW).begun is Begun.WAIT
    assert harness.deployment.judge(version_id(2), NOW)[1] is None
    judged = harness.deployment.judge(version_id(2), NOW + timedelta(minutes=30))
    assert judged == (Judgement.PROMOTED, version_id(3))


# --- approval -----------------------------------------------------------------------------------------------


def test_a_version_is_approved_by_its_data_sets_rule_alone() -> None:
    harness = Harness()
    package_arn = harness.approve(1, approved=False)
    harness.packages.packages[package_arn] = replace(harness.packages.packages[package_arn], is_pending=True)
    assert harness.deployment.begin(package_arn, RUN, NOW).begun is None
    assert not harness.packages.packages[package_arn].is_approved
    harness.serve(approval=Approval.AUTOMATIC)
    assert harness.deployment.begin(package_arn, RUN, NOW).begun is Begun.DEPLOY
    assert harness.packages.packages[package_arn].is_approved


def test_a_rule_approves_no_version_that_was_left_waiting_for_long() -> None:
    harness = Harness()
    package_arn = harness.approve(1, approved=False)
    harness.packages.packages[package_arn] = replace(harness.packages.packages[package_arn], is_pending=True)
    harness.serve(approval=Approval.AUTOMATIC)
    late = NOW + APPROVES_WITHIN + timedelta(seconds=1)
    assert harness.deployment.begin(package_arn, RUN, late).begun is None
    lost, _ = search_over(harness)
    assert search(lost, late).started == []
    assert search(lost, late - timedelta(seconds=1)).started == [package_arn]


def test_a_version_that_was_rejected_is_not_approved_by_a_rule() -> None:
    harness = Harness()
    harness.serve(approval=Approval.AUTOMATIC)
    package_arn = harness.approve(1, approved=False)
    assert harness.deployment.begin(package_arn, RUN, NOW).begun is None
    assert not harness.packages.packages[package_arn].is_approved


def test_a_version_whose_registration_reached_nobody_is_approved_by_the_search() -> None:
    harness = Harness()
    for number in (1, 2):
        package_arn = harness.approve(number, approved=False)
        package = harness.packages.packages[package_arn]
        harness.packages.packages[package_arn] = replace(package, is_pending=number == 1)
    harness.serve(approval=Approval.AUTOMATIC)
    lost, _ = search_over(harness)
    assert search(lost).started == [arn(1)], "the other one was rejected"
    harness.serve()
    lost, _ = search_over(harness)
    assert search(lost).started == []


def test_a_version_keeps_the_settings_of_its_approval() -> None:
    harness = Harness()
    harness.serve(**OWN)
    harness.deploy(1)
    harness.serve()
    harness.deploy(2)
    assert [harness.version(number).endpoint for number in (1, 2)] == ["own-acme-churn-1", "shared-linear"]


# --- own endpoints ------------------------------------------------------------------------------------------


class NoContainers:
    def existing(self) -> Iterator[OwnEndpoint]:
        return iter(())

    def take_out(self, host: str) -> None:
        raise AssertionError(host)

    def tend(self) -> str:
        return ""


def unused_of(harness: Harness) -> tuple[UnusedEndpoints, MemoryOwnModels]:
    models = MemoryOwnModels(harness.models)
    deployment = harness.deployment
    unused = UnusedEndpoints(
        models=models,
        containers=NoContainers(),
        aliases=deployment.aliases,
        versions=deployment.versions,
    )
    return unused, models


def test_own_endpoints_that_no_alias_names_are_removed_the_previous_one_after_a_day() -> None:
    harness = Harness()
    harness.serve(**OWN)
    for number in (1, 2):
        harness.deploy(number)
    unused, models = unused_of(harness)
    assert unused.remove(NOW + KEPT_FOR - timedelta(seconds=1), lambda: False).endpoints == []
    models.creating.add("own-acme-churn-1")
    assert unused.remove(NOW + KEPT_FOR, lambda: False).endpoints == []
    models.creating.clear()
    assert unused.remove(NOW + KEPT_FOR, lambda: True).endpoints == []
    assert unused.remove(NOW + KEPT_FOR, lambda: False).endpoints == ["own-acme-churn-1"]
    assert harness.alias.previous is None
    assert harness.version(1).state is VersionState.REMOVED
    assert {name for name, _ in harness.models.placed} == {"own-acme-churn-2"}
    harness.deployment.aliases.change("acme", "churn", lambda alias: stopped(alias, NOW), NOW)
    assert unused.remove(NOW, lambda: False).endpoints == ["own-acme-churn-2"]


def test_an_endpoint_that_is_being_created_is_used_and_one_of_a_deleted_tenant_is_not() -> None:
    harness = Harness()
    harness.serve(**OWN)
    started = harness.deployment.begin(harness.approve(1), RUN, NOW)
    assert started.id is not None
    harness.deployment.place(started.id)
    unused, _ = unused_of(harness)
    assert unused.remove(NOW, lambda: False).endpoints == []
    harness.deployment.versions.forget(harness.version(1))
    assert unused.remove(NOW, lambda: False).endpoints == ["own-acme-churn-1"]


def test_what_was_stopped_while_it_was_deployed_or_waited_keeps_no_role_and_no_place() -> None:
    harness = Harness()
    harness.serve(**OWN)
    deployment = harness.deployment
    served = ServedModels(aliases=deployment.aliases, versions=deployment.versions, remove=lambda _: None)
    deployment.begin(harness.approve(1), RUN, NOW)
    for number in (2, 3):
        deployment.begin(harness.approve(number), f"run-{number}", NOW)
    deployment.place(version_id(1))
    assert served.has_own_endpoint("acme")
    deployment.aliases.change("acme", "churn", lambda alias: stopped(alias, NOW), NOW)
    deployment.fail(version_id(1), RUN, "it was stopped", NOW)
    assert harness.version(1).state is VersionState.FAILED
    assert not served.has_own_endpoint("acme")
    assert not [name for name, _ in harness.models.placed]


def test_a_live_version_has_an_endpoint_whatever_its_record_says() -> None:
    harness = Harness()
    harness.serve(**OWN)
    harness.deploy(1)
    deployment = harness.deployment
    deployment.versions.put(replace(harness.version(1), state=VersionState.FAILED))
    served = ServedModels(aliases=deployment.aliases, versions=deployment.versions, remove=lambda _: None)
    assert served.has_own_endpoint("acme")
    assert not served.has_own_endpoint("globex")


def test_one_endpoint_that_fails_does_not_keep_the_others() -> None:
    harness = Harness()
    harness.serve(**OWN)
    for number in (1, 2):
        harness.deploy(number)
    unused, models = unused_of(harness)
    harness.deployment.aliases.change("acme", "churn", lambda alias: stopped(alias, NOW), NOW)
    remove = models.remove

    def failing(endpoint: OwnEndpoint) -> bool:
        if endpoint.name.endswith("1"):
            raise RuntimeError("denied")
        return remove(endpoint)

    models.remove = failing  # type: ignore[method-assign]
    removed = unused.remove(NOW, lambda: False)
    assert (removed.endpoints, removed.failed) == (
        ["own-acme-churn-2"],
        {"own-acme-churn-1": "RuntimeError: denied"},
    )


def test_an_endpoint_of_a_former_tenant_of_that_name_is_removed_and_a_failed_version_keeps_its_reason() -> None:
    harness = Harness()
    harness.serve(**OWN)
    harness.deploy(1)
    version, versions = harness.version(1), harness.deployment.versions
    versions.put(replace(version, endpoint="own-acme-churn-01"))
    unused, _ = unused_of(harness)
    assert unused.remove(NOW, lambda: False).endpoints == ["own-acme-churn-1"]
    harness.models.placed["own-acme-churn-1", ""] = version.model_uri
    versions.put(replace(version, state=VersionState.FAILED, reason="smoke test"))
    harness.deployment.aliases.change("acme", "churn", lambda alias: stopped(alias, NOW), NOW)
    assert unused.remove(NOW, lambda: False).endpoints == ["own-acme-churn-1"]
    assert (harness.version(1).state, harness.version(1).reason) == (VersionState.FAILED, "smoke test")
