"""Containers of a shared endpoint: random runs that die, bad containers, stale looks and an impatient timer."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from testing.memory_serving import MemoryHost, MemoryOwnModels
from testing.memory_store import MemoryStore
from tests.build import NOW, tenant
from tests.unit.test_serving_settings import version
from trainyard.application.serving.ports import EndpointState, Response
from trainyard.application.serving.shared_containers import MultiContainerHost, NotStarted, host_of
from trainyard.application.serving.unused_endpoints import UnusedEndpoints
from trainyard.domain.container_sets import (
    CONTAINERS_MAX,
    NOTICED_WITHIN,
    TRIED_AGAIN_AFTER,
    Call,
    ContainerSet,
    Member,
    Seen,
    Status,
    believed,
    called,
    configuration_of,
    failed,
    next_call,
    seen,
    with_version,
    without_version,
)
from trainyard.domain.errors import InProgress, Refused, Throttled
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.serving import Isolation, Mode, ServingSettings
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.container_sets import ContainerSets
from trainyard.persistence.model_versions import ModelVersions

SETTINGS = ServingSettings(mode=Mode.MULTI_CONTAINER, isolation=Isolation.BRIDGE)
NAME = "e"


class Dies(Exception):
    """The run that has made a call dies."""


@dataclass
class Endpoint:
    """An endpoint in memory, whose changes end when `settle` is called."""

    name: str = NAME
    status: Status = Status.ABSENT
    configuration: str = ""
    reason: str = ""
    changes: int = 0
    bad: set[str] = field(default_factory=set)
    """Hosts that do not get ready."""
    configurations: dict[str, tuple[Member, ...]] = field(default_factory=dict)
    archives: set[str] = field(default_factory=set)
    calls: list[Call] = field(default_factory=list)
    quota: bool = True
    meanwhile: Callable[[], None] = lambda: None
    stale: bool = False
    """Whether the next look shows the endpoint as it was before its last change began, which is not long ago."""
    clock: Callable[[], datetime] = lambda: NOW
    _target: str = ""
    _began: datetime = NOW
    _before: Seen = field(default_factory=lambda: Seen(status=Status.ABSENT))

    @property
    def hosts(self) -> set[str]:
        if self.status is Status.ABSENT or not self.configuration:
            return set()
        return {member.host for member in self.configurations[self.configuration]}

    def look(self) -> Seen:
        self.meanwhile()
        if self.stale and self.status is Status.CHANGING and self.clock() - self._began < NOTICED_WITHIN:
            self.stale = False
            return self._before
        return self.look_now()

    def archive_of(self, version: ModelVersion) -> str:
        return f"archive-{version.target}"

    def put(self, version: ModelVersion) -> int:
        self.archives.add(self.archive_of(version))
        return 1

    def give(self, configuration: str, members: Iterable[Member], *, is_new: bool) -> None:
        self.meanwhile()
        members = tuple(members)
        assert 0 < len(members) <= CONTAINERS_MAX
        assert configuration not in self.configurations, "no name is used twice"
        missing = [member.host for member in members if member.archive not in self.archives]
        if missing:
            raise NotStarted(f"could not find model data of {missing}")
        self.configurations[configuration] = members
        self.meanwhile()
        if not self.quota:
            raise Refused("ResourceLimitExceeded")
        if self.status is Status.CHANGING or is_new != (self.status is Status.ABSENT):
            raise InProgress
        assert configuration in self.configurations, "somebody has deleted it"
        self.calls.append(Call.CREATE if is_new else Call.UPDATE)
        self._begin(configuration)
        self.meanwhile()

    def delete(self) -> None:
        if self.status in (Status.ABSENT, Status.CHANGING):
            return
        self.calls.append(Call.DELETE)
        self._begin("")

    def delete_configurations(self, names: Iterable[str]) -> None:
        for name in names:
            assert name not in (self.configuration, self._target), "it is in use"
            self.configurations.pop(name, None)

    def delete_archives(self, keys: Iterable[str]) -> None:
        for key in keys:
            needed = self.configurations.get(self.configuration, ()) + self.configurations.get(self._target, ())
            assert key not in {member.archive for member in needed}, "it is in use"
            self.archives.discard(key)

    def ask(self, version: ModelVersion, rows: str, content_type: str) -> Response:
        raise NotImplementedError

    def settle(self) -> None:
        """End the change that is under way."""
        if self.status is not Status.CHANGING:
            return
        self.changes += 1
        if not self._target:
            self.status, self.configuration = Status.ABSENT, ""
            return
        members = self.configurations[self._target]
        failing = [member.host for member in members if member.host in self.bad]
        if not failing:
            self.status, self.configuration, self.reason = Status.IN_SERVICE, self._target, ""
        elif self.configuration:
            self.status, self.reason = Status.IN_SERVICE, "it did not pass the ping health check"
        else:
            self.status, self.reason = Status.FAILED, "it did not pass the ping health check"
        if self.status is not Status.FAILED:
            self._target = ""

    def _begin(self, target: str) -> None:
        self._before, self._began = self.look_now(), self.clock()
        self.status, self._target = Status.CHANGING, target
        if not target:
            self.configuration = ""
        self.changes += 1

    def look_now(self) -> Seen:
        if self.status is Status.ABSENT:
            return Seen(status=Status.ABSENT)
        return Seen(
            status=self.status,
            serves=self.configuration != "",
            configuration=self.configuration or self._target,
            changed_at=NOW + timedelta(seconds=self.changes),
            reason=self.reason,
        )


class World:
    """A host with its endpoint and a clock."""

    def __init__(self) -> None:
        self.now = NOW
        self.endpoint = Endpoint(clock=lambda: self.now)
        self.sets = ContainerSets(MemoryStore(), lambda _: None)
        self.host = MultiContainerHost(endpoint=self.endpoint, sets=self.sets, clock=self.tick)

    def tick(self) -> datetime:
        """Return the time, of which no two runs have the same."""
        self.now += timedelta(microseconds=1)
        return self.now

    @property
    def set(self) -> ContainerSet:
        return self.sets.get(NAME)

    def version(self, number: int, tenant_id: str = "acme", approved_at: datetime = NOW) -> ModelVersion:
        of = replace(version(tenant_id, "churn", number), serving=SETTINGS, approved_at=approved_at)
        return self.host.located(of)

    def ensure(self, of: ModelVersion) -> tuple[EndpointState, str]:
        return self.host.ensure(of, tenant())

    def deploy(self, of: ModelVersion, tries: int = 12) -> tuple[EndpointState, str]:
        """Do what a deployment does until its version is ready or has failed."""
        self.host.put(of)
        for _ in range(tries):
            state, reason = self.ensure(of)
            if state is not EndpointState.COMING:
                return state, reason
            self.endpoint.settle()
        return EndpointState.COMING, ""


def hosts_of(members: Iterable[Member]) -> list[str]:
    return [member.host for member in members]


def test_the_first_version_creates_the_endpoint_and_the_next_one_updates_it() -> None:
    world = World()
    first, second = world.version(1), world.version(1, "globex")
    for each in (first, second, first):
        assert world.deploy(each) == (EndpointState.READY, "")
    assert world.endpoint.calls == [Call.CREATE, Call.UPDATE]
    assert world.endpoint.hosts == {first.target, second.target}


def test_versions_that_come_meanwhile_are_added_together() -> None:
    world = World()
    versions = [world.version(number) for number in range(1, 5)]
    for each in versions:
        world.host.put(each)
        world.ensure(each)
    world.endpoint.settle()
    for each in versions:
        assert world.deploy(each)[0] is EndpointState.READY
    assert world.endpoint.calls == [Call.CREATE, Call.UPDATE]


@pytest.mark.parametrize(("count", "bad", "updates"), [(3, 0, 3), (3, 1, 4), (3, 2, 4), (8, 0, 5), (8, 7, 7)])
def test_of_versions_that_fail_together_only_the_bad_one_is_rejected(count: int, bad: int, updates: int) -> None:
    world = World()
    world.deploy(world.version(9))
    versions = [world.version(number) for number in range(1, count + 1)]
    world.endpoint.bad.add(versions[bad].target)
    for each in versions:
        world.host.put(each)
    world.sets.change(NAME, lambda before: add_all(before, world, versions))
    for number, each in enumerate(versions):
        expected = EndpointState.FAILED if number == bad else EndpointState.READY
        state, reason = world.deploy(each)
        assert state is expected, reason
        assert ("ping health check" in reason) is (number == bad)
    assert versions[bad].target not in world.endpoint.hosts
    assert len(world.endpoint.calls) == 1 + updates
    assert (world.set.suspects, world.set.suspects_at_once) == ((), 0)


def add_all(containers: ContainerSet, world: World, versions: Iterable[ModelVersion]) -> ContainerSet:
    for each in versions:
        containers = with_version(containers, world.host._member(each)) or containers
    return containers


def test_a_first_version_that_fails_leaves_nothing_and_can_come_again() -> None:
    world = World()
    first = world.version(1)
    world.endpoint.bad.add(first.target)
    assert world.deploy(first)[0] is EndpointState.FAILED
    world.host.remove(first)
    for _ in range(3):
        world.host.tend()
        world.endpoint.settle()
    world.host.tend()
    assert (world.endpoint.status, world.endpoint.archives, world.endpoint.configurations) == (
        Status.ABSENT,
        set(),
        {},
    )
    world.endpoint.bad.clear()
    assert world.deploy(world.version(1, approved_at=NOW + timedelta(hours=1)))[0] is EndpointState.READY
    assert list(world.set.configurations) == [world.endpoint.configuration]
    assert world.deploy(first)[0] is EndpointState.READY, "its rejection is forgotten once it was given up"


def test_what_was_rejected_stays_so_until_it_is_given_up() -> None:
    world = World()
    world.deploy(world.version(9))
    bad = world.version(1)
    world.endpoint.bad.add(bad.target)
    for _ in range(3):  # a step of the deployment is repeated
        assert world.deploy(bad)[0] is EndpointState.FAILED
    assert world.endpoint.calls == [Call.CREATE, Call.UPDATE]


def test_an_endpoint_that_somebody_has_deleted_comes_back_with_all_its_containers() -> None:
    world = World()
    first, second = world.version(1), world.version(2)
    world.deploy(first)
    world.deploy(second)
    world.endpoint.status, world.endpoint.configuration = Status.ABSENT, ""
    assert world.ensure(first) == (EndpointState.COMING, "")
    world.endpoint.settle()
    assert world.ensure(first) == (EndpointState.READY, "")
    assert world.endpoint.hosts == {first.target, second.target}


def test_a_version_whose_endpoint_somebody_deletes_meanwhile_is_not_rejected() -> None:
    world = World()
    world.deploy(world.version(1))
    second = world.version(2)
    world.host.put(second)
    world.ensure(second)
    world.endpoint.status, world.endpoint.configuration = Status.ABSENT, ""
    assert world.deploy(second) == (EndpointState.READY, "")


def test_what_others_did_since_a_run_has_looked_is_not_overwritten() -> None:
    """Else a version would be judged by what was seen before it was added."""
    world = World()
    world.deploy(world.version(1))
    second, third = world.version(2), world.version(3)
    world.host.put(second)

    def others() -> None:
        world.endpoint.meanwhile = lambda: None
        world.deploy(third)
        world.endpoint.meanwhile = dies_at_its_call

    def dies_at_its_call() -> None:
        raise Dies

    looked = world.endpoint.look

    def look() -> Seen:
        what = looked()
        if world.endpoint.meanwhile is not dies_at_its_call:
            world.endpoint.look = looked  # type: ignore[method-assign]
            others()
        return what

    world.endpoint.look = look  # type: ignore[method-assign]
    with suppress(Dies):
        world.ensure(second)
    world.endpoint.meanwhile = lambda: None
    assert world.deploy(second) == (EndpointState.READY, "")


def test_the_timer_takes_out_what_no_alias_names_and_says_what_cannot_be_done() -> None:
    world, store = World(), MemoryStore()
    first = world.version(1)
    world.deploy(first)
    unused = UnusedEndpoints(
        models=MemoryOwnModels(MemoryHost()),
        containers=world.host,
        aliases=Aliases(store, lambda _: None),
        versions=ModelVersions(store),
    )
    assert unused.remove(NOW, lambda: False).endpoints == [first.target]
    world.endpoint.settle()
    assert world.endpoint.hosts == set()

    def denied() -> Seen:
        raise RuntimeError("denied")

    world.endpoint.look = denied  # type: ignore[method-assign]
    assert unused.remove(NOW, lambda: False).failed == {"the endpoint of containers": "RuntimeError: denied"}


def test_a_version_that_comes_back_keeps_its_archive() -> None:
    world = World()
    first, second = world.version(1), world.version(2)
    world.deploy(first)
    world.deploy(second)
    world.host.remove(first)
    assert world.deploy(first) == (EndpointState.READY, "")
    world.host.tend()
    assert world.endpoint.archives == {f"archive-{first.target}", f"archive-{second.target}"}


def test_what_answers_is_not_failed_by_a_quota_that_another_one_needs() -> None:
    world = World()
    first, second = world.version(1), world.version(2)
    world.host.put(first)
    world.host.put(second)
    world.ensure(first)
    world.sets.change(NAME, lambda before: add_all(before, world, [second]))
    world.endpoint.settle()
    world.endpoint.quota = False
    assert world.ensure(first) == (EndpointState.READY, "")
    assert world.ensure(second) == (EndpointState.FAILED, "ResourceLimitExceeded")


def test_an_endpoint_that_is_made_again_has_what_answered_before_at_first() -> None:
    world = World()
    first, second = world.version(1), world.version(2)
    world.deploy(first)
    world.endpoint.bad.add(second.target)
    world.host.put(second)
    world.endpoint.status, world.endpoint.configuration = Status.ABSENT, ""
    world.ensure(second)
    assert world.ensure(first) == (EndpointState.COMING, ""), "it does not answer while it is created"
    world.endpoint.settle()
    assert world.ensure(first) == (EndpointState.READY, "")


def test_a_version_without_an_archive_is_rejected_and_nobody_else() -> None:
    world = World()
    world.deploy(world.version(1))
    gone, good = world.version(2), world.version(3)
    for each in (gone, good):
        world.host.put(each)
    world.endpoint.archives.remove(f"archive-{gone.target}")
    state, reason = world.deploy(good)
    assert (state, reason) == (EndpointState.READY, "")
    state, reason = world.ensure(gone)
    assert state is EndpointState.FAILED
    assert "could not find model data" in reason


def test_an_update_that_fails_by_nobodys_fault_waits_and_is_told() -> None:
    world = World()
    first, second = world.version(1), world.version(2)
    world.deploy(first)
    world.deploy(second)
    world.endpoint.bad.add(first.target)
    world.host.remove(second)
    world.host.tend()
    world.endpoint.settle()
    for _ in range(3):
        assert "ping health check" in world.host.tend()
    assert world.endpoint.calls.count(Call.UPDATE) == 2
    assert f"archive-{second.target}" in world.endpoint.archives, "it answers still"
    world.endpoint.bad.clear()
    world.now += TRIED_AGAIN_AFTER
    assert world.host.tend() == ""
    world.endpoint.settle()
    assert world.host.tend() == ""
    assert (world.endpoint.hosts, world.endpoint.archives) == ({first.target}, {f"archive-{first.target}"})


def test_want_of_capacity_rejects_nobody() -> None:
    containers = with_version(ContainerSet(), member("a--1"))
    assert containers is not None
    containers = called(containers, NAME, containers.adding, Seen(status=Status.ABSENT), NOW)
    containers = failed(containers, "Unable to provision requested ML compute capacity.", NOW)
    assert (hosts_of(containers.adding), containers.rejected) == (["a--1"], {})
    absent = Seen(status=Status.ABSENT)
    assert next_call(containers, absent, NOW)[0] is Call.NONE
    assert next_call(containers, absent, NOW + TRIED_AGAIN_AFTER)[0] is Call.CREATE


def test_an_archive_of_a_version_that_was_never_added_goes_too() -> None:
    world = World()
    world.host.put(world.version(1))
    (existing,) = world.host.existing()
    assert existing.name == world.version(1).target
    world.host.take_out(existing.name)
    world.host.tend()
    assert world.endpoint.archives == set()


def test_the_sixteenth_container_is_refused_with_a_way_out() -> None:
    world = World()
    for number in range(CONTAINERS_MAX):
        assert world.deploy(world.version(number + 1))[0] is EndpointState.READY
    state, reason = world.deploy(world.version(99))
    assert (state, "15 containers already: choose another mode" in reason) == (EndpointState.FAILED, True)
    world.host.remove(world.version(1))
    assert world.deploy(world.version(99))[0] is EndpointState.READY


def test_a_quota_is_no_rejection() -> None:
    world = World()
    world.endpoint.quota = False
    assert world.deploy(world.version(1)) == (EndpointState.FAILED, "ResourceLimitExceeded")
    world.host.remove(world.version(1))
    world.endpoint.quota = True
    assert world.deploy(world.version(1))[0] is EndpointState.READY


def test_the_container_of_a_removed_version_goes_with_the_next_update_and_its_archive_after_that() -> None:
    world = World()
    first, second = world.version(1), world.version(2)
    world.deploy(first)
    world.deploy(second)
    world.host.remove(first)
    assert first.target in world.endpoint.hosts
    world.host.tend()
    assert f"archive-{first.target}" in world.endpoint.archives, "the endpoint may go back to it"
    world.endpoint.settle()
    world.host.tend()
    assert (world.endpoint.hosts, world.endpoint.archives) == ({second.target}, {f"archive-{second.target}"})
    assert list(world.endpoint.configurations) == [world.endpoint.configuration]
    world.host.take_out(second.target)
    for _ in range(2):
        world.host.tend()
        world.endpoint.settle()
    world.host.tend()
    assert (world.endpoint.status, world.endpoint.archives) == (Status.ABSENT, set())


def test_an_endpoint_that_looks_as_before_its_update_is_looked_at_again() -> None:
    containers = with_version(ContainerSet(), member("a--1"))
    assert containers is not None
    before = Seen(status=Status.IN_SERVICE, configuration="e-other", changed_at=NOW)
    containers = called(containers, NAME, containers.adding, before, NOW)
    assert believed(containers, before, NOW + NOTICED_WITHIN / 2).status is Status.CHANGING
    later = believed(containers, before, NOW + NOTICED_WITHIN)
    assert later == before
    given_up = seen(containers, later, NOW)
    assert (given_up.configuration, hosts_of(given_up.adding), given_up.rejected) == ("", ["a--1"], {})
    assert next_call(given_up, later, NOW)[0] is Call.UPDATE
    changed = replace(before, changed_at=NOW + timedelta(seconds=1), reason="no")
    rolled_back = seen(containers, believed(containers, changed, NOW), NOW)
    assert (list(rolled_back.rejected), rolled_back.adding) == (["a--1"], ())
    older = replace(changed, changed_at=NOW - timedelta(seconds=1))
    assert believed(containers, older, NOW).status is Status.CHANGING, "a look at what was before"


def test_a_member_that_is_removed_while_it_is_added_does_not_stay() -> None:
    containers = with_version(ContainerSet(), member("a--1"))
    assert containers is not None
    containers = called(containers, NAME, containers.adding, Seen(status=Status.ABSENT), NOW)
    name = configuration_of(NAME, [member("a--1")], NOW)
    containers = without_version(containers, "a--1")
    there = Seen(status=Status.IN_SERVICE, configuration=name, changed_at=NOW)
    containers = seen(containers, there, NOW)
    assert (containers.members, next_call(containers, there, NOW)[0]) == ((), Call.DELETE)


def test_host_names_fit_and_belong_to_one_tenant() -> None:
    long = replace(version("a" * 24, "d" * 63, 999_999), serving=SETTINGS)
    assert len(host_of(long)) <= 63
    assert host_of(long).startswith(f"{'a' * 24}--999999-")
    others = [replace(long, request_id="1" * 32), replace(long, image_uri="i"), replace(long, model_uri="s3://m")]
    others.append(replace(long, approved_at=NOW + timedelta(seconds=1)))
    assert len({host_of(each) for each in (long, *others)}) == 5


def member(host: str) -> Member:
    return Member(host=host, tenant_id="a", data_set="d", version=1, image_uri="i", archive=f"archive-{host}")


# --- random runs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_good_versions_get_ready_and_bad_ones_do_not_whoever_dies(seed: int) -> None:
    """Runs that die before and after each call, others in between, stale looks, a timer; then all is at rest."""
    rng = Random(seed)
    world = World()
    endpoint = world.endpoint
    deploying: dict[str, ModelVersion] = {}
    ready: dict[str, ModelVersion] = {}
    depth, number = 0, 0

    def meanwhile() -> None:
        nonlocal depth
        if rng.random() < 0.1:
            raise Throttled("died") if rng.random() < 0.5 else Dies
        if depth < 2 and rng.random() < 0.3:
            depth += 1
            try:
                for _ in range(rng.choice([1, 1, 10])):
                    step()
            finally:
                depth -= 1

    def step() -> None:
        nonlocal number
        action = rng.choice(["new", "ensure", "ensure", "ensure", "tend", "settle", "settle", "remove", "wait"])
        try:
            if action == "new" and len(deploying) + len(ready) < 12:
                number += 1
                fresh = world.version(number, f"t{rng.randint(1, 3)}")
                if rng.random() < 0.2:
                    endpoint.bad.add(fresh.target)
                world.host.put(fresh)
                deploying[fresh.target] = fresh
            elif action == "ensure" and deploying:
                one = deploying[rng.choice(sorted(deploying))]
                state, reason = world.ensure(one)
                if state is EndpointState.READY:
                    assert one.target in endpoint.hosts or one.target not in deploying
                    if deploying.pop(one.target, None) is not None:
                        ready[one.target] = one
                elif state is EndpointState.FAILED and deploying.pop(one.target, None) is not None:
                    assert one.target in endpoint.bad, reason
                    world.host.remove(one)
            elif action == "tend":
                world.host.tend()
            elif action == "settle":
                endpoint.settle()
            elif action == "remove" and ready and rng.random() < 0.5:
                one = ready.pop(rng.choice(sorted(ready)))
                world.host.remove(one)
            elif action == "wait" and not depth:  # a run that waits so long between two calls has timed out
                world.now += timedelta(minutes=rng.choice([1, 6]))
                endpoint.stale = rng.random() < 0.3
        except (Throttled, Dies):
            pass

    endpoint.meanwhile = meanwhile
    for _ in range(250):
        step()
        assert set(ready) <= endpoint.hosts, "what is ready answers"
    endpoint.meanwhile = lambda: None
    for _ in range(80):  # the timer and the deployments go on, and nobody dies any more
        for one in list(deploying.values()):
            state, reason = world.ensure(one)
            if state is EndpointState.READY:
                ready[one.target] = deploying.pop(one.target)
            elif state is EndpointState.FAILED:
                assert one.target in endpoint.bad, reason
                del deploying[one.target]
                world.host.remove(one)
        world.host.tend()
        world.now += timedelta(minutes=6)
        endpoint.settle()
    assert deploying == {}
    assert endpoint.hosts == set(ready)
    assert not endpoint.hosts & endpoint.bad
    assert endpoint.archives == {endpoint.archive_of(one) for one in ready.values()}
    assert len(endpoint.configurations) == (1 if ready else 0)
    calls = len(endpoint.calls)
    world.host.tend()
    assert len(endpoint.calls) == calls, "at rest"


def test_nothing_of_a_set_is_lost_when_it_is_stored() -> None:
    whole: dict[str, Any] = {
        "members": (member("a--1"),),
        "adding": (member("a--2"),),
        "placed": (member("a--3"),),
        "suspects": ("a--2",),
        "suspects_at_once": 1,
        "tried": ("a--2",),
        "configuration": "e-1",
        "called_at": NOW,
        "changed_before": NOW - timedelta(days=1),
        "configurations": {"e-0": ("a--1",), "e-1": ("a--1", "a--2")},
        "leaving": (member("a--0"),),
        "failed_at": NOW + timedelta(days=1),
        "failure": "no capacity",
        "rejected": {"a--9": "no"},
    }
    sets = ContainerSets(MemoryStore(), lambda _: None)
    stored = sets.change(NAME, lambda _: ContainerSet(**whole))
    assert sets.get(NAME) == stored
    assert replace(stored, revision="") == ContainerSet(**whole)
