"""Approvals that reached nobody are found, each once a day, and what is known of is left alone."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from testing.memory_ports import MemoryTenants
from tests.build import NOW, tenant
from tests.unit.test_model_deployment import RUN, Harness, arn
from trainyard.application.serving.lost_approvals import LostApprovals, Search
from trainyard.application.serving.model_deployment import VersionId
from trainyard.domain.aliases import ABANDONED_AFTER, Begun
from trainyard.domain.errors import Throttled
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.serving import Isolation, Mode
from trainyard.domain.tenants import Tenant, TenantState


@dataclass
class Deployments:
    started: set[tuple[str, str]] = field(default_factory=set)
    failure: Exception | None = None

    def start(self, package_arn: str, day: str) -> bool:
        if self.failure is not None:
            raise self.failure
        is_new = (package_arn, day) not in self.started
        self.started.add((package_arn, day))
        return is_new


class Pages:
    """Tenants in pages of two, whatever is asked for."""

    def __init__(self, *tenants: Tenant) -> None:
        self.tenants = tenants

    def page(self, *, after: str | None = None, limit: int = 100) -> tuple[list[Tenant], str | None]:
        begin = int(after or 0)
        end = begin + 2
        return list(self.tenants[begin:end]), str(end) if end < len(self.tenants) else None


def search_over(harness: Harness, *tenants: Tenant) -> tuple[LostApprovals, Deployments]:
    deployments = Deployments()
    lost = LostApprovals(
        store=harness.store,
        tenants=Pages(*tenants) if tenants else MemoryTenants(harness.owner),
        packages=harness.packages,
        aliases=harness.deployment.aliases,
        versions=harness.deployment.versions,
        deployments=deployments,
        judge=harness.deployment.judge,
        is_missing=harness.deployment.is_missing,
    )
    return lost, deployments


def search(lost: LostApprovals, now: datetime = NOW) -> Search:
    return lost.run(now, lambda: False)


def test_the_newest_approved_version_that_nothing_is_known_of_is_deployed_once_a_day() -> None:
    harness = Harness()
    for version in (1, 2):
        harness.approve(version)
    harness.approve(3, approved=False)
    lost, _ = search_over(harness)
    assert search(lost).started == [arn(2)]
    assert search(lost).started == []
    assert search(lost, NOW + timedelta(days=1)).started == [arn(2)], "it failed before it was taken up"


def test_what_is_known_is_left_alone_and_so_is_what_is_older_than_the_live_version() -> None:
    harness = Harness()
    harness.approve(1)
    harness.deploy(2)
    lost, _ = search_over(harness)
    assert search(lost).started == []
    harness.approve(3)
    assert search(lost).started == [arn(3)]


def test_a_version_whose_endpoint_somebody_has_deleted_is_brought_up_again() -> None:
    harness = Harness()
    harness.deploy(2)
    lost, _ = search_over(harness)
    assert search(lost).started == []
    harness.models.deleted.add(harness.version(2).endpoint)
    assert search(lost).started == [arn(2)]
    before = harness.alias
    started = harness.deployment.begin(arn(2), "run-2", NOW)
    assert (started.begun, started.is_missing) == (Begun.SERVED, True)
    assert started.id is not None
    assert not harness.deployment.bring_up(started.id)
    assert harness.deployment.bring_up(started.id)
    assert harness.alias == before
    assert not harness.deployment.begin(arn(2), "run-3", NOW).is_missing
    assert search(lost, NOW + timedelta(days=1)).started == []


def test_an_endpoint_of_many_versions_is_looked_at_once_in_a_run() -> None:
    harness = Harness()
    harness.deploy(2)
    lost, _ = search_over(harness, harness.owner, harness.owner)
    looked: list[str] = []

    def look(version: ModelVersion) -> bool:
        looked.append(version.endpoint)
        return False

    search(replace(lost, is_missing=look))
    assert looked == [harness.version(2).endpoint]


def test_only_the_endpoints_of_versions_that_answer_are_missed() -> None:
    harness = Harness()
    for version in (1, 2, 3):
        harness.deploy(version)
    lost, _ = search_over(harness)
    harness.serve(mode=Mode.SERVERLESS, isolation=Isolation.SILO)
    harness.deploy(4)
    harness.models.deleted.add(harness.version(3).endpoint)  # of version 4's predecessor
    assert search(lost).started == []
    harness.models.deleted.add(harness.version(4).endpoint)
    assert search(lost).started == [arn(4)]


def test_a_version_that_failed_is_not_deployed_again() -> None:
    harness = Harness()
    harness.deployment.begin(harness.approve(1), RUN, NOW)
    harness.deployment.fail(VersionId("acme", "churn", 1), RUN, "it answers nonsense", NOW)
    assert search(search_over(harness)[0]).started == []


def test_a_deployment_that_died_is_begun_again_with_the_version_that_waits_behind_it() -> None:
    harness = Harness()
    harness.deployment.begin(harness.approve(1), RUN, NOW)
    lost, _ = search_over(harness)
    assert search(lost).started == []
    dead = NOW + ABANDONED_AFTER + timedelta(seconds=1)
    assert search(lost, dead).started == [arn(1)]
    harness.deployment.begin(harness.approve(2), "run-2", NOW)
    assert search(lost, dead).started == [arn(2)]


def test_a_version_that_waits_for_nobody_is_deployed() -> None:
    harness = Harness()
    harness.deployment.begin(harness.approve(1), RUN, NOW)
    harness.deployment.begin(harness.approve(2), "run-2", NOW)
    harness.deployment.aliases.change(
        "acme",
        "churn",
        lambda alias: replace(alias, deploying=None, deploying_since=None, deploying_run=None),
        NOW,
    )
    assert search(search_over(harness)[0]).started == [arn(2)]


def test_packages_of_others_are_no_approvals() -> None:
    harness = Harness()
    package = harness.packages.packages[harness.approve(1)]
    harness.packages.packages[package.arn] = replace(package, tenant_id="globex")
    assert search(search_over(harness)[0]).started == []


def test_tenants_that_are_not_active_wait_for_their_turn_and_a_failure_affects_no_other() -> None:
    harness = Harness()
    harness.approve(1)
    others = [replace(tenant("globex"), state=state) for state in TenantState if state is not TenantState.ACTIVE]
    lost, deployments = search_over(harness, *others, harness.owner, tenant("hooli"))
    deployments.failure = Throttled("slow")
    searches = [search(lost) for _ in range(3)]
    assert [each.tenants for each in searches] == [0, 0, 2]
    assert searches[-1].failed == {"acme": "Throttled: slow"}
    deployments.failure = None
    assert [search(lost).started for _ in range(3)] == [[], [], [arn(1)]], "from the beginning"


def test_a_run_without_time_goes_on_where_it_stopped() -> None:
    harness = Harness()
    harness.approve(1)
    lost, _ = search_over(harness, tenant("globex"), harness.owner)
    time = iter([False, True])
    assert lost.run(NOW, lambda: next(time)).tenants == 1
    assert search(lost).tenants == 1


def test_old_approvals_of_one_data_set_do_not_hide_those_of_another() -> None:
    harness = Harness()
    harness.approve(1)
    other = harness.packages.packages[arn(1)]
    harness.packages.packages[arn(1)] = replace(other, data_set="rare")
    for version in range(2, 20):
        harness.approve(version)
    harness.deploy(20)
    lost, _ = search_over(harness)
    started = [
        package for number in range(4) for package in search(lost, NOW + timedelta(minutes=15 * number)).started
    ]
    assert started == [arn(1)]


def test_a_version_that_waits_and_whose_package_is_gone_holds_up_no_other() -> None:
    harness = Harness()
    harness.deployment.begin(harness.approve(1), RUN, NOW)
    harness.deployment.begin(harness.approve(2), "run-2", NOW)
    for version in (1, 2):
        del harness.packages.packages[arn(version)]
    lost, _ = search_over(harness)
    dead = NOW + ABANDONED_AFTER + timedelta(seconds=1)
    assert [search(lost, dead).started for _ in range(3)] == [[], [], []]
    assert (harness.alias.deploying, harness.alias.waiting) == (None, None)
    harness.approve(3)
    assert search(lost, dead).started == [arn(3)]


def test_a_version_that_waited_while_its_tenant_was_suspended_is_deployed_after_that() -> None:
    harness = Harness()
    harness.deployment.begin(harness.approve(1), RUN, NOW)
    harness.deployment.begin(harness.approve(2), "run-2", NOW)
    owner = harness.tenants.get("acme")
    assert owner is not None
    suspended = harness.tenants.put(replace(owner, state=TenantState.SUSPENDED))
    harness.deployment.fail(VersionId("acme", "churn", 1), RUN, "it failed", NOW)
    assert harness.deployment.begin(arn(2), RUN, NOW).begun is None
    harness.tenants.put(replace(suspended, state=TenantState.ACTIVE))
    assert search(search_over(harness)[0]).started == [arn(2)]
