"""Waves: a version of an algorithm reaches tenants in stages, and is taken back where models get worse."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from testing.memory_ports import MemoryTenants
from testing.memory_store import MemoryStore
from testing.service import ACCOUNT
from tests.build import NOW, content, model_version, policy, tenant, tier
from tests.unit.test_use_cases import Harness
from trainyard.application.api.settings_changes import ChangeState, ChangeStatus
from trainyard.application.scheduling.record import StatusEvent, StatusResult
from trainyard.application.tenancy import waves
from trainyard.application.tenancy.wave_commands import WaveCommands
from trainyard.application.tenancy.waves import TRIED_AGAIN_AFTER, TRIES_MAX, Advanced, WaveAdvance
from trainyard.domain.algorithms import Algorithm
from trainyard.domain.aliases import Alias
from trainyard.domain.arrivals import UploadArrived
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.names import display_name
from trainyard.domain.requests import TERMINAL, Outcome, Request, State
from trainyard.domain.retraining import Trigger
from trainyard.domain.tenants import Tenant, TenantState, TrainingSettings
from trainyard.domain.waves import (
    Judged,
    Member,
    MemberState,
    Next,
    Verdict,
    Wave,
    WaveState,
    check_stages,
    decide,
    share_of,
    users_of,
)
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions
from trainyard.persistence.store import Item, Key
from trainyard.persistence.waves import Waves

BEFORE, VERSION = "neighbours", "neighbours@2"
HOUR = timedelta(hours=1)


class Fleet(Harness):
    """The service with tenants that each have a data set "churn", which has trained on the version before."""

    def __init__(self, count: int = 20, **changes: Any) -> None:
        algorithms = {name: Algorithm(name=name) for name in (BEFORE, VERSION, "neighbours@3")}
        settings = TrainingSettings(algorithm=BEFORE, target="y")
        tenants = tuple(tenant(f"t{number:03}", settings=settings, **changes) for number in range(count))
        limits = policy(tier(quota=count, running_max_per_tenant=4), algorithms=algorithms, running_max=count)
        super().__init__(limits=limits, tenants=tenants)
        self.now = NOW
        self.retrainings.arrive = lambda asked: self.intake.receive([asked], self.now)
        self.gain: dict[str, float | None] = {}
        """Tenant → by how much its model on the new version is better; None for one that fails."""
        self.segment_gain: float | None = None
        """Of the new version's models, in the segment that loses most."""
        self.updates_fail: dict[str, str] = {}
        self.updates_last: set[str] = set()
        """Tenants whose changes of settings go on until somebody carries them out."""
        self.runs: dict[str, Mapping[str, Any]] = {}
        assert isinstance(self.intake.tenants, MemoryTenants)
        self.records = self.intake.tenants
        self.aliases, self.versions = Aliases(self.store, lambda _: None), ModelVersions(self.store)
        self.waves = Waves(self.store)
        policies = self.intake.policies
        self.commands = WaveCommands(policies=policies, tenants=self.records, waves=self.waves)
        self.advance = WaveAdvance(
            account_id=ACCOUNT,
            store=self.store,
            waves=self.waves,
            tenants=self.records,
            requests=self.scheduler.tables.requests,
            updates=self,
            retrainings=self.retrainings,
            aliases=self.aliases,
            versions=self.versions,
        )
        for each in tenants:
            self.upload_of(each.tenant_id)
        self.work()

    # --- the state machine that changes tenants

    def start(self, name: str, payload: Mapping[str, Any]) -> None:
        self.runs[name] = payload["tenant"]
        if payload["tenant"]["name"] not in {*self.updates_fail, *self.updates_last}:
            self.carry_out(name)

    def status(self, name: str) -> ChangeStatus | None:
        tenant_id = self.runs[name]["name"]
        if tenant_id in self.updates_last:
            return ChangeStatus(ChangeState.RUNNING, None)
        failure = self.updates_fail.get(tenant_id)
        return ChangeStatus(ChangeState.FAILED if failure else ChangeState.DONE, failure)

    def carry_out(self, name: str) -> None:
        changes = self.runs[name]
        owner = self.owner(changes["name"])
        settings, data_sets = owner.settings, dict(owner.data_sets)
        if "algorithm" in changes:
            settings = replace(settings, algorithm=changes["algorithm"])
        for data_set, given in changes.get("data_set_changes", {}).items():
            data_sets[data_set] = replace(data_sets[data_set], **given)
        self.records.put(replace(owner, settings=settings, data_sets=data_sets))

    # --- what happens in the meantime

    def owner(self, name: str) -> Tenant:
        owner = self.records.get(name)
        assert owner is not None
        return owner

    def upload_of(self, name: str, number: int = 1) -> None:
        uploaded = content(bucket=f"trainyard-t-{name}", version_id=f"v{number}", etag=f"{number:032x}")
        self.data_sets.objects[name, "churn"] = [uploaded]
        (result,) = self.intake.receive([UploadArrived(account_id=ACCOUNT, content=uploaded)], self.now)
        assert not isinstance(result, Exception), result

    def work(self, ends: Callable[[Request], bool] = lambda _: True) -> None:
        """Enlist what intake has sent, start what may start, and let it end."""
        for each in self.queues.sent:
            self.enlist.enlist(each, self.now)
        self.queues.sent.clear()
        self.dispatch.run_pass(self.now)
        for request in self.requests():
            if request.state is State.RUNNING and ends(request):
                self.finish(request)

    def finish(self, request: Request) -> None:
        self.results.outcome = Outcome(
            trained_sha256="a" * 64, quality=0.8, quality_metric="roc_auc", model_package_arn="arn:package/1"
        )
        status = "Succeeded"
        if request.algorithm == VERSION:
            gain = self.gain.get(request.tenant_id, 0.01)
            before = [r for r in self.requests() if r.tenant_id == request.tenant_id and r.algorithm == BEFORE]
            champion = before[0].request_id
            if gain is None:
                status, self.reports.report = "Failed", replace(self.reports.report, failed_step="Train")
            else:
                self.results.outcome = replace(
                    self.results.outcome,
                    quality=0.8 + gain,
                    gain=gain,
                    segment_gain=self.segment_gain,
                    champion=champion,
                    champion_quality=0.8,
                )
        name = display_name(request.request_id, request.attempt)
        event = StatusEvent(display_name=name, status=status, execution_arn=request.execution_arn or "arn")
        (settled,) = self.record.settle([event], self.now)
        assert isinstance(settled, StatusResult), settled

    def begin(self, version: str = VERSION, **rules: Any) -> Wave:
        wave = self.commands.proposed(version, "ada", self.now, **rules)
        self.commands.begin(wave)
        return wave

    def tick(self, hours: float = 1) -> Advanced | None:
        self.now += timedelta(hours=hours)
        advanced = list(self.advance.run(self.now))
        return advanced[0] if advanced else None

    def run(self, wave: Wave, ticks: int = 60, *, train: bool = True) -> Wave:
        """Let the timer come, and trainings end, until the wave has ended or waits for somebody."""
        for _ in range(ticks):
            self.tick()
            if train:
                self.work()
            current = self.commands.known(wave.wave_id)
            if current.state not in (WaveState.RUNNING, WaveState.GOING_BACK):
                break
        return self.commands.known(wave.wave_id)

    def on(self, version: str = VERSION) -> set[str]:
        return {each.tenant_id for each in self.records.all() if each.settings.algorithm == version}

    def members(self, wave: Wave) -> dict[str, Member]:
        return {member.tenant_id: member for member in self.waves.members(wave.wave_id)}


def test_a_version_that_does_well_reaches_all_tenants_stage_by_stage() -> None:
    fleet = Fleet(40)
    wave = fleet.begin(stages=(10.0, 50.0, 100.0))
    sizes = []
    for _ in range(30):
        fleet.tick()
        fleet.work()
        sizes.append(len(fleet.on()))
        if fleet.commands.known(wave.wave_id).state is WaveState.DONE:
            break
    assert sorted(set(sizes)) == [4, 20, 40]
    assert fleet.commands.known(wave.wave_id).state is WaveState.DONE
    members = fleet.members(wave)
    assert len(members) == 40
    assert {each.judged[0].verdict for each in members.values()} == {Verdict.AS_GOOD}
    assert {each.stage for each in members.values()} == {0, 1, 2}
    assert fleet.waves.unfinished() == []
    asked = {each.trigger for each in fleet.retrainings.asked}
    assert asked == {Trigger.VERSION}


def test_each_data_set_trains_once_on_the_version_and_says_why() -> None:
    fleet = Fleet(4)
    fleet.run(fleet.begin(stages=(100.0,)))
    requests = [each for each in fleet.requests() if each.algorithm == VERSION]
    assert len(requests) == 4
    assert {each.triggers for each in requests} == {(f"algorithm version: {VERSION}",)}


@pytest.mark.parametrize("gain", [-0.3, None], ids=["worse", "fails"])
def test_a_bad_version_stops_within_its_first_stage_and_nobody_is_left_on_it(gain: float | None) -> None:
    fleet = Fleet(200)
    fleet.gain = dict.fromkeys((each.tenant_id for each in fleet.records.all()), gain)
    wave = fleet.begin()
    ended = fleet.run(wave)
    assert (ended.state, ended.stage) == (WaveState.ROLLED_BACK, 0)
    assert "2 of 2 data sets" in ended.reason or "1 of 1 data sets" in ended.reason
    assert fleet.on() == set()
    assert len(fleet.members(wave)) == 2, "1 % of 200"
    assert {each.state for each in fleet.members(wave).values()} == {MemberState.BACK}
    assert all(each.state in TERMINAL for each in fleet.requests())
    for name in fleet.members(wave):
        models = [r for r in fleet.requests() if r.tenant_id == name and r.state is State.SUCCEEDED]
        assert max(models, key=lambda r: r.arrived_at).algorithm == BEFORE, "its newest model is of the one before"


@pytest.mark.parametrize(
    ("segment_gain", "state"), [(-0.05, WaveState.DONE), (-0.2, WaveState.ROLLED_BACK)], ids=["small", "large"]
)
def test_a_segment_may_lose_as_much_as_the_wave_says(segment_gain: float, state: WaveState) -> None:
    fleet = Fleet(4)
    fleet.segment_gain = segment_gain
    ended = fleet.run(fleet.begin(stages=(100.0,), segment_loss_max=0.1))
    assert ended.state is state, ended.reason


def test_some_may_get_worse() -> None:
    fleet = Fleet(40)
    fleet.gain = {"t001": -0.3, "t002": -0.3}
    assert fleet.run(fleet.begin(worse_percent=10.0, stages=(100.0,))).state is WaveState.DONE
    other = Fleet(40)
    other.gain = dict.fromkeys(("t001", "t002", "t003", "t004", "t005"), -0.3)
    ended = other.run(other.begin(worse_percent=10.0, stages=(100.0,)))
    assert ended.state is WaveState.ROLLED_BACK
    assert other.on() == set()


def test_what_waits_for_its_turn_on_a_bad_version_is_trained_on_the_version_before() -> None:
    """One tenant's training ends badly while that of another one waits, and of a third one runs."""
    fleet = Fleet(3)
    fleet.gain = {"t000": -0.3}
    wave = fleet.begin(stages=(100.0,), worse_percent=30.0)
    fleet.tick()
    fleet.tick()
    for each in fleet.queues.sent:
        fleet.enlist.enlist(each, fleet.now)
    fleet.queues.sent.clear()
    fleet.dispatch.run_pass(fleet.now)
    running = [each for each in fleet.requests() if each.state is State.RUNNING]
    assert len(running) == 3
    (worse,) = [each for each in running if each.tenant_id == "t000"]
    fleet.finish(worse)
    fleet.tick()
    assert fleet.commands.known(wave.wave_id).state is WaveState.GOING_BACK
    fleet.tick()
    assert fleet.on() == set()
    fleet.tick()
    assert fleet.commands.known(wave.wave_id).state is WaveState.GOING_BACK, "two trainings on it still run"
    ended = fleet.run(wave)
    assert ended.state is WaveState.ROLLED_BACK
    newest = {r.tenant_id: r for r in sorted(fleet.requests(), key=lambda r: r.arrived_at)}
    assert {each.algorithm for each in newest.values()} == {BEFORE}


def trained_on_a_bad_version() -> tuple[Fleet, Wave]:
    """Return one tenant's fleet whose training on a wave's version has ended, and was not judged yet."""
    fleet = Fleet(1)
    fleet.gain = {"t000": -0.3}
    wave = fleet.begin(stages=(100.0,))
    fleet.tick()
    fleet.tick()
    fleet.work()
    return fleet, wave


def test_a_live_model_of_a_bad_version_is_rolled_back() -> None:
    fleet, wave = trained_on_a_bad_version()
    for number, algorithm in ((1, BEFORE), (2, VERSION)):
        fleet.versions.put(model_version("r", number, tenant_id="t000", algorithm=algorithm))
    live = Alias(tenant_id="t000", data_set="churn", live=2, previous=1)
    fleet.aliases.change("t000", "churn", lambda _: live, fleet.now)
    assert fleet.run(wave).state is WaveState.ROLLED_BACK
    assert fleet.aliases.get("t000", "churn").live == 1


def test_a_live_model_without_an_earlier_one_is_told_until_somebody_replaces_it() -> None:
    fleet, wave = trained_on_a_bad_version()
    fleet.versions.put(model_version("r", 2, tenant_id="t000", algorithm=VERSION))
    only = Alias(tenant_id="t000", data_set="churn", live=2)
    fleet.aliases.change("t000", "churn", lambda _: only, fleet.now)
    assert fleet.run(wave, 10).state is WaveState.GOING_BACK
    assert "no earlier one" in fleet.members(wave)["t000"].reason
    fleet.versions.put(model_version("r", 3, tenant_id="t000", algorithm=BEFORE))
    fleet.aliases.change("t000", "churn", lambda alias: replace(alias, live=3, previous=2), fleet.now)
    assert fleet.run(wave).state is WaveState.ROLLED_BACK


def test_tenants_that_vanish_are_passed_over_and_others_take_their_place() -> None:
    fleet = Fleet(40)
    wave = fleet.begin(stages=(10.0, 100.0))
    fleet.tick()
    first = fleet.on()
    assert len(first) == 4
    for name in first:
        fleet.records.put(replace(fleet.owner(name), state=TenantState.DELETED))
    assert fleet.run(wave).state is WaveState.DONE
    members = fleet.members(wave)
    assert {members[name].state for name in first} == {MemberState.GONE}
    assert fleet.on() - first == {each.tenant_id for each in fleet.records.all()} - first


def test_a_wave_all_of_whose_tenants_vanish_ends() -> None:
    fleet = Fleet(2)
    wave = fleet.begin(stages=(100.0,))
    fleet.tick()
    for each in fleet.records.all():
        fleet.records.put(replace(fleet.owner(each.tenant_id), state=TenantState.DELETED))
    assert fleet.run(wave).state is WaveState.DONE
    bad = Fleet(2)
    wave = bad.begin(stages=(100.0,))
    bad.tick()
    bad.commands.go_back(wave.wave_id, "the release was wrong")
    for each in bad.records.all():
        bad.records.put(replace(bad.owner(each.tenant_id), state=TenantState.DELETED))
    assert bad.run(wave).state is WaveState.ROLLED_BACK


def test_an_operator_may_pause_resume_and_go_back_at_any_time() -> None:
    fleet = Fleet(20)
    wave = fleet.begin(stages=(10.0, 100.0))
    fleet.tick()
    paused = fleet.commands.pause(wave.wave_id, "lunch")
    assert fleet.commands.pause(wave.wave_id, "again").reason == "lunch"
    fleet.work()
    assert fleet.run(wave, 5).state is WaveState.PAUSED
    assert len(fleet.on()) == 2
    assert fleet.commands.resume(wave.wave_id, fleet.now).state is WaveState.RUNNING
    assert fleet.run(wave).state is WaveState.DONE
    assert paused.state is WaveState.PAUSED
    back = fleet.commands.go_back(wave.wave_id, "it is slow")
    assert back.state is WaveState.GOING_BACK, "also after its end"
    assert fleet.run(wave).state is WaveState.ROLLED_BACK
    assert fleet.on() == set()
    with pytest.raises(Refused, match="is ROLLED_BACK: it cannot be changed so"):
        fleet.commands.resume(wave.wave_id, fleet.now)


def test_going_back_leaves_alone_who_chose_the_version_before_or_another_one_since() -> None:
    fleet = Fleet(4)
    pilot, mixed, changed = (fleet.owner(f"t00{number}") for number in range(3))
    fleet.records.put(replace(pilot, settings=replace(pilot.settings, algorithm=VERSION)))
    own = {"churn": replace(mixed.settings, algorithm=VERSION), "sales": mixed.settings}
    fleet.records.put(replace(mixed, data_sets=own))
    wave = fleet.begin(stages=(100.0,))
    fleet.tick()
    assert fleet.on() == {each.tenant_id for each in fleet.records.all()}
    fresh = fleet.owner("t003")
    fleet.records.put(replace(fresh, data_sets={"new": replace(fresh.settings, priority=3)}))
    changed = fleet.owner("t002")
    fleet.records.put(replace(changed, settings=replace(changed.settings, algorithm="neighbours@3")))
    fleet.commands.go_back(wave.wave_id, "bad")
    assert fleet.run(wave).state is WaveState.ROLLED_BACK
    assert fleet.owner("t000").settings.algorithm == VERSION, "it had it before"
    after = fleet.owner("t001")
    assert (after.settings.algorithm, after.data_sets["sales"].algorithm) == (BEFORE, BEFORE)
    assert after.data_sets["churn"].algorithm == VERSION
    assert fleet.owner("t002").settings.algorithm == "neighbours@3"
    assert fleet.owner("t003").data_sets["new"].algorithm == BEFORE, "settings that are newer go back too"


def test_too_little_evidence_waits_for_somebody() -> None:
    fleet = Fleet(20)
    wave = fleet.begin(stages=(10.0, 100.0), stage_hours=5)
    ended = fleet.run(wave, 10, train=False)
    assert (ended.state, ended.stage) == (WaveState.PAUSED, 0)
    assert ended.reason == "after 5 hours, 0 of 2 data sets have trained on it"
    fleet.commands.resume(wave.wave_id, fleet.now)
    assert fleet.run(wave, 10, train=False).state is WaveState.PAUSED
    fleet.commands.resume(wave.wave_id, fleet.now, anyway=True)
    fleet.tick()
    assert fleet.commands.known(wave.wave_id).stage == 1


def test_tenants_that_have_never_trained_are_moved_and_not_waited_for() -> None:
    fleet = Fleet(4)
    fleet.records.put(tenant("new", settings=TrainingSettings(algorithm=BEFORE, target="y")))
    wave = fleet.begin(stages=(100.0,))
    assert fleet.run(wave).state is WaveState.DONE
    assert fleet.members(wave)["new"].data_sets == ()
    assert "new" in fleet.on()


def test_a_tenant_whose_settings_cannot_be_changed_is_left_out() -> None:
    fleet = Fleet(4)
    fleet.updates_fail = {"t001": "it has a hyperparameter that the version does not have"}
    wave = fleet.begin(stages=(100.0,))
    assert fleet.run(wave).state is WaveState.DONE
    member = fleet.members(wave)["t001"]
    assert (member.state, member.tries) == (MemberState.LEFT_OUT, TRIES_MAX)
    assert "could not be moved" in member.reason
    assert fleet.on() == {"t000", "t002", "t003"}


def test_a_change_of_settings_is_not_repeated_at_once_nor_while_it_goes_on() -> None:
    fleet = Fleet(1)
    fleet.updates_fail = {"t000": "it takes long"}
    wave = fleet.begin(stages=(100.0,))
    fleet.tick()
    for minutes, tries in ((5, 1), (5, 1), (TRIED_AGAIN_AFTER / timedelta(minutes=1), 2)):
        fleet.tick(minutes / 60)
        assert fleet.members(wave)["t000"].tries == tries
    fleet.updates_fail, fleet.updates_last = {}, {"t000"}
    for _ in range(5):
        fleet.tick()
    assert fleet.members(wave)["t000"].tries == 2


def test_going_back_waits_for_a_change_that_is_under_way() -> None:
    """Or it would land after the wave has ended, and leave its tenant on the version."""
    fleet = Fleet(3)
    fleet.updates_last = {"t000", "t001", "t002"}
    wave = fleet.begin(stages=(100.0,))
    fleet.tick()
    fleet.commands.go_back(wave.wave_id, "stop")
    assert fleet.run(wave, 5).state is WaveState.GOING_BACK
    fleet.updates_last = set()
    for name in list(fleet.runs):
        fleet.carry_out(name)
    assert fleet.on() == {"t000", "t001", "t002"}, "the changes that were under way"
    assert fleet.run(wave).state is WaveState.ROLLED_BACK
    assert fleet.on() == set()


def test_a_run_that_was_overtaken_moves_nobody_and_overwrites_nothing() -> None:
    fleet = Fleet(2)
    wave = fleet.begin(stages=(100.0,))
    fleet.updates_fail = {"t000": "busy"}
    fleet.tick()
    old = fleet.members(wave)["t000"]
    fleet.updates_fail = {}
    fleet.commands.go_back(wave.wave_id, "stop")
    assert fleet.run(wave).state is WaveState.ROLLED_BACK
    later = fleet.now + TRIED_AGAIN_AFTER
    with pytest.raises(Conflict):
        fleet.advance._go_on(wave, old, later, Advanced(wave=wave, before=wave.state))
    with pytest.raises(Conflict):
        fleet.waves.put_member(wave, old)
    with pytest.raises(Conflict):
        fleet.waves.put_member(wave, replace(old, revision=0))
    assert fleet.on() == set()
    assert fleet.members(wave)["t000"].state is MemberState.BACK


def test_what_waits_on_a_version_that_goes_back_trains_on_the_one_before() -> None:
    """Nothing has changed since the last training on it, so that nothing new is asked for."""
    fleet = Fleet(3)
    wave = fleet.begin(stages=(100.0,))
    fleet.tick()
    fleet.tick()
    for sent in fleet.queues.sent:
        fleet.enlist.enlist(sent, fleet.now)
    fleet.queues.sent.clear()
    waiting = [each for each in fleet.requests() if each.state is State.QUEUED]
    assert {each.algorithm for each in waiting} == {VERSION}
    fleet.commands.go_back(wave.wave_id, "bad")
    assert fleet.run(wave, train=False).state is WaveState.ROLLED_BACK
    fleet.work()
    for each in waiting:
        ended = fleet.request(each.request_id)
        assert ended.state in TERMINAL
        assert ended.algorithm == BEFORE or ended.state is not State.SUCCEEDED


def test_a_training_that_became_part_of_one_that_waited_before_is_judged() -> None:
    fleet = Fleet(1)
    fleet.gain = {"t000": -0.3}
    fleet.now += HOUR
    fleet.upload_of("t000", 2)
    for each in fleet.queues.sent:
        fleet.enlist.enlist(each, fleet.now)
    fleet.queues.sent.clear()
    wave = fleet.begin(stages=(100.0,))
    fleet.tick()
    fleet.tick()
    fleet.work()
    (trained,) = [each for each in fleet.requests() if each.algorithm == VERSION and each.state in TERMINAL]
    assert trained.arrived_at < fleet.members(wave)["t000"].since
    assert fleet.run(wave).state is WaveState.ROLLED_BACK


def test_a_request_says_which_version_has_trained_it() -> None:
    fleet = Fleet(1)
    fleet.now += HOUR
    fleet.upload_of("t000", 2)
    for each in fleet.queues.sent:
        fleet.enlist.enlist(each, fleet.now)
    fleet.queues.sent.clear()
    owner = fleet.owner("t000")
    fleet.records.put(replace(owner, settings=replace(owner.settings, algorithm=VERSION)))
    (waiting,) = [each for each in fleet.requests() if each.state is State.QUEUED]
    assert waiting.algorithm == BEFORE
    fleet.work()
    assert fleet.request(waiting.request_id).algorithm == VERSION


def test_trainings_of_a_busy_tenant_are_not_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "LOOKED_AT", 2)
    fleet = Fleet(1)
    wave = fleet.begin(stages=(100.0,))
    fleet.tick()
    fleet.tick()
    fleet.work(lambda _: False)
    for number in range(3):
        other = content("incoming/other/d.csv", bucket="trainyard-t-t000", version_id=f"o{number}")
        fleet.intake.receive([UploadArrived(account_id=ACCOUNT, content=other)], fleet.now + HOUR)
    for each in fleet.queues.sent:
        fleet.enlist.enlist(each, fleet.now + HOUR)
    fleet.queues.sent.clear()
    fleet.commands.go_back(wave.wave_id, "bad")
    assert fleet.run(wave, 5, train=False).state is WaveState.GOING_BACK, "a training on it still runs"
    assert "has not ended" in fleet.members(wave)["t000"].reason
    assert fleet.run(wave).state is WaveState.ROLLED_BACK


def test_what_had_the_version_before_stays_in_service() -> None:
    fleet = Fleet(1)
    owner = fleet.owner("t000")
    own = {"churn": replace(owner.settings, algorithm=VERSION), "sales": owner.settings}
    fleet.records.put(replace(owner, data_sets=own))
    wave = fleet.begin(stages=(100.0,))
    fleet.tick()
    fleet.tick()
    for number, algorithm in ((1, BEFORE), (2, VERSION)):
        fleet.versions.put(model_version("r", number, tenant_id="t000", algorithm=algorithm))
    live = Alias(tenant_id="t000", data_set="churn", live=2, previous=1)
    fleet.aliases.change("t000", "churn", lambda _: live, fleet.now)
    fleet.commands.go_back(wave.wave_id, "bad")
    assert fleet.run(wave).state is WaveState.ROLLED_BACK
    assert fleet.aliases.get("t000", "churn").live == 2


def test_an_earlier_model_of_the_version_takes_no_place_of_a_later_one() -> None:
    fleet = Fleet(1)
    wave = fleet.begin(stages=(100.0,))
    fleet.tick()
    fleet.tick()
    for number in (2, 3):
        fleet.versions.put(model_version("r", number, tenant_id="t000", algorithm=VERSION))
    both = Alias(tenant_id="t000", data_set="churn", live=3, previous=2)
    fleet.aliases.change("t000", "churn", lambda _: both, fleet.now)
    fleet.commands.go_back(wave.wave_id, "bad")
    assert fleet.run(wave, 5).state is WaveState.GOING_BACK
    alias = fleet.aliases.get("t000", "churn")
    assert (alias.live, alias.previous) == (3, None), "nothing else could answer"


def test_settings_that_cannot_be_changed_back_are_told_and_tried_again() -> None:
    fleet = Fleet(1)
    wave = fleet.begin(stages=(100.0,))
    fleet.tick()
    fleet.updates_fail = {"t000": "neighbours has no hyperparameter 'k'"}
    fleet.commands.go_back(wave.wave_id, "bad")
    for _ in range(TRIES_MAX):
        fleet.tick()
    advanced = fleet.tick()
    assert advanced is not None
    assert "could not be changed back: neighbours has no hyperparameter 'k'" in advanced.failed["t000"]
    assert "no hyperparameter" in fleet.members(wave)["t000"].reason
    fleet.updates_fail = {}
    assert fleet.run(wave).state is WaveState.ROLLED_BACK


def test_a_large_wave_goes_back_as_it_came_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "CHANGED_AT_ONCE", 3)
    fleet = Fleet(8)
    wave = fleet.begin(stages=(100.0,))
    assert [len(fleet.on()) for _ in range(3) if fleet.tick()] == [3, 6, 8]
    fleet.commands.go_back(wave.wave_id, "bad")
    assert [len(fleet.on()) for _ in range(3) if fleet.tick()] == [5, 2, 0]


def test_one_failing_wave_does_not_stall_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(2)
    broken, fine = fleet.begin(stages=(100.0,)), replace(wave_of(), wave_id="z", version="linear@2")
    fleet.waves.add(fine)
    members = fleet.waves.members

    def of(_: Waves, wave_id: str) -> Iterator[Member]:
        if wave_id == broken.wave_id:
            raise OSError("no")
        return members(wave_id)

    monkeypatch.setattr(Waves, "members", of)
    by_id = {each.wave.wave_id: each for each in fleet.advance.run(fleet.now)}
    assert by_id[broken.wave_id].failed == {"": "OSError: no"}
    assert by_id["z"].wave.stage == 1, "it has nobody to move"


def test_a_stage_whose_tenants_cannot_be_moved_waits_for_somebody() -> None:
    fleet = Fleet(2)
    fleet.updates_fail = dict.fromkeys(("t000", "t001"), "no hyperparameter 'k'")
    ended = fleet.run(fleet.begin(stages=(100.0,)))
    assert ended.state is WaveState.PAUSED
    assert ended.reason == "none of its tenants could be moved: it could not be moved: no hyperparameter 'k'"


def test_only_tenants_of_a_tier_and_a_tag_are_moved() -> None:
    fleet = Fleet(4)
    fleet.records.put(replace(fleet.owner("t001"), tags=("pilot", "eu")))
    fleet.records.put(replace(fleet.owner("t002"), tags=("pilot",), tier="other"))
    wave = fleet.begin(stages=(100.0,), tag="pilot", tier="basic")
    assert fleet.run(wave).state is WaveState.DONE
    assert fleet.on() == {"t001"}


def test_another_wave_of_an_algorithm_waits_for_the_first() -> None:
    fleet = Fleet(4)
    wave = fleet.begin(stages=(50.0,))
    with pytest.raises(Refused, match=f"wave {wave.wave_id} of neighbours has not ended"):
        fleet.begin("neighbours@3")
    fleet.run(wave)
    later = fleet.begin("neighbours@3", stages=(100.0,))
    with pytest.raises(Refused, match="has not ended: let it end first"):
        fleet.commands.go_back(wave.wave_id, "too late")
    assert fleet.run(later).state is WaveState.DONE
    assert len(fleet.on("neighbours@3")) == 4


@pytest.mark.parametrize(
    ("version", "rules", "why"),
    [
        ("nothing", {}, "there is no algorithm 'nothing'"),
        (VERSION, {"from_version": VERSION}, "nothing would change"),
        (VERSION, {"from_version": "linear"}, "linear is not a version of neighbours"),
        (VERSION, {"tier": "gold"}, "there is no tier 'gold'"),
        (VERSION, {"tag": "nobody"}, "no tenant with tag nobody has another version of neighbours"),
        (VERSION, {"stages": ()}, "0 stages: 1 to 20 are allowed"),
        (VERSION, {"stages": (10.0, 10.0)}, "stages of 10, 10 percent: each must be more"),
        (VERSION, {"stages": (0.0,)}, "at most 100"),
        (VERSION, {"stages": (101.0,)}, "at most 100"),
        ("linear", {}, "no tenant has another version of linear than linear"),
    ],
)
def test_a_wave_that_cannot_be_is_refused(version: str, rules: dict[str, Any], why: str) -> None:
    fleet = Fleet(2)
    with pytest.raises(Refused, match=why):
        fleet.begin(version, **rules)
    assert fleet.waves.unfinished() == []


def test_a_plan_names_whom_each_stage_would_move() -> None:
    fleet = Fleet(20)
    plan = fleet.commands.plan(fleet.commands.proposed(VERSION, "ada", NOW, stages=(5.0, 10.0, 100.0)))
    assert [len(stage.tenants) for stage in plan] == [1, 1, 18]
    assert len({name for stage in plan for name in stage.tenants}) == 20
    assert fleet.on() == set()


def test_an_operator_who_changes_a_wave_just_now_is_heard() -> None:
    fleet = Fleet(20)
    wave = fleet.begin(stages=(50.0,))
    changed = fleet.commands.pause(wave.wave_id, "stop")
    with pytest.raises(Conflict):
        fleet.waves.change(wave)
    advanced = Advanced(wave=wave, before=wave.state)
    with pytest.raises(Conflict):
        fleet.advance._begin(wave, fleet.owner("t000"), NOW, advanced)
    assert fleet.on() == set()
    assert changed.revision == 1


def test_one_failing_tenant_does_not_stall_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(4)
    wave = fleet.begin(stages=(100.0,), stage_hours=4)
    fleet.tick()
    get = fleet.records.get

    def broken(name: str) -> Tenant | None:
        if name == "t001":
            raise RuntimeError("the table is on fire")
        return get(name)

    monkeypatch.setattr(fleet.records, "get", broken)
    advanced = fleet.tick()
    assert advanced is not None
    assert advanced.failed == {"t001": "RuntimeError: the table is on fire"}
    for _ in range(6):
        fleet.tick()
        monkeypatch.setattr(fleet.records, "get", get)
        fleet.work()
        monkeypatch.setattr(fleet.records, "get", broken)
    assert fleet.commands.known(wave.wave_id).state is WaveState.DONE, "after its stage's hours"


def test_a_run_out_of_time_goes_on_later() -> None:
    fleet = Fleet(4)
    wave = fleet.begin(stages=(100.0,))
    fleet.tick()
    (advanced,) = fleet.advance.run(fleet.now, lambda: True)
    assert advanced.wave.state is WaveState.RUNNING
    assert fleet.run(wave).state is WaveState.DONE


# --- the rules by themselves -------------------------------------------------------------------------------------


def wave_of(**changes: Any) -> Wave:
    defaults: dict[str, Any] = {
        "wave_id": "w",
        "version": VERSION,
        "state": WaveState.RUNNING,
        "begun_at": NOW,
        "stage_since": NOW,
    }
    return Wave(**defaults | changes)


def member_of(*verdicts: Verdict | None, **changes: Any) -> Member:
    names = tuple(f"set-{number}" for number in range(len(verdicts)))
    judged = tuple(
        Judged(data_set=name, verdict=verdict) for name, verdict in zip(names, verdicts, strict=True) if verdict
    )
    defaults: dict[str, Any] = {"tenant_id": "acme", "stage": 0, "state": MemberState.MOVED, "since": NOW}
    return Member(**defaults | {"before": {"": BEFORE}, "data_sets": names, "judged": judged} | changes)


GOOD, WORSE, FAILED, NEW = Verdict.AS_GOOD, Verdict.WORSE, Verdict.FAILED, Verdict.NEW


@pytest.mark.parametrize(
    ("verdicts", "at", "is_reached", "following"),
    [
        ((), NOW, True, Next.GO_ON),
        ((), NOW, False, Next.WAIT),
        ((GOOD,), NOW, True, Next.GO_ON),
        ((GOOD,), NOW, False, Next.WAIT),
        ((GOOD, None), NOW, True, Next.WAIT),
        ((GOOD, None), NOW + 72 * HOUR, True, Next.GO_ON),
        ((GOOD, None, None), NOW + 72 * HOUR, True, Next.PAUSE),
        ((NEW, NEW), NOW, True, Next.PAUSE),
        ((NEW, None), NOW + 72 * HOUR, True, Next.PAUSE),
        ((WORSE,), NOW, False, Next.GO_BACK),
        ((FAILED,), NOW, True, Next.GO_BACK),
        ((*[GOOD] * 9, WORSE), NOW, True, Next.GO_ON),
        ((*[GOOD] * 8, WORSE), NOW, True, Next.GO_BACK),
        ((WORSE, *[None] * 9), NOW, True, Next.WAIT),
        ((WORSE, *[None] * 9), NOW + 72 * HOUR, True, Next.GO_BACK),
        ((WORSE, WORSE, *[None] * 9), NOW, False, Next.GO_BACK),
        ((*[NEW] * 20, *[GOOD] * 8, WORSE), NOW, True, Next.GO_BACK),
    ],
)
def test_how_a_stage_goes_on(
    verdicts: tuple[Verdict | None, ...], at: datetime, is_reached: bool, following: Next
) -> None:
    assert decide(wave_of(), [member_of(*verdicts)], at, is_reached=is_reached).next is following


def test_those_that_did_well_before_do_not_hide_a_bad_stage() -> None:
    before = [member_of(*[GOOD] * 50)]
    bad = member_of(*[GOOD] * 41, *[WORSE] * 9, stage=1)
    assert decide(wave_of(stage=1), [*before, bad], NOW, is_reached=True).next is Next.GO_BACK
    fine = member_of(*[GOOD] * 46, *[WORSE] * 4, stage=1)
    assert decide(wave_of(stage=1), [*before, fine], NOW, is_reached=True).next is Next.GO_ON
    early = member_of(*[WORSE] * 30, stage=0)
    assert decide(wave_of(stage=1), [early, fine], NOW, is_reached=True).next is Next.GO_BACK


def test_a_stage_lasts_at_least_as_long_as_it_is_to() -> None:
    wave = wave_of(soak_hours=24)
    assert decide(wave, [member_of(GOOD)], NOW + 23 * HOUR, is_reached=True).next is Next.WAIT
    assert decide(wave, [member_of(GOOD)], NOW + 24 * HOUR, is_reached=True).next is Next.GO_ON


def test_who_is_waved_on_needs_no_evidence_but_goes_back_all_the_same() -> None:
    wave = wave_of(is_waved_on=True)
    assert decide(wave, [member_of(None, NEW)], NOW, is_reached=True).next is Next.GO_ON
    assert decide(wave, [member_of(None, WORSE)], NOW, is_reached=True).next is Next.GO_BACK


def test_who_is_gone_or_left_out_counts_for_nothing() -> None:
    gone = member_of(WORSE, state=MemberState.GONE)
    out = member_of(WORSE, state=MemberState.LEFT_OUT, reason="it could not be moved")
    assert decide(wave_of(), [gone], NOW, is_reached=True).next is Next.GO_ON
    assert decide(wave_of(), [gone, out, member_of(GOOD)], NOW, is_reached=True).next is Next.GO_ON
    assert decide(wave_of(), [gone, out], NOW, is_reached=True).next is Next.PAUSE, "nobody was moved"
    assert decide(wave_of(is_waved_on=True), [gone, out], NOW, is_reached=True).next is Next.GO_ON
    moving = member_of(state=MemberState.MOVING)
    assert decide(wave_of(), [moving], NOW, is_reached=True).next is Next.WAIT


def test_a_larger_share_includes_a_smaller_one() -> None:
    settings = TrainingSettings(algorithm=BEFORE, target="y")
    users = users_of(wave_of(), [tenant(f"t{number}", settings=settings) for number in range(100)])
    shares = [{each.tenant_id for each in share_of(wave_of(), users, stage)} for stage in range(4)]
    assert [len(share) for share in shares] == [1, 10, 50, 100]
    assert all(small < large for small, large in pairwise(shares))
    assert check_stages([1, 100]) == (1, 100)


# --- what is stored ----------------------------------------------------------------------------------------------


def blind(waves: Waves, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is written at the same moment not be seen before."""
    get = waves.store.get

    def unseen(*keys: Key) -> list[Item | None]:
        return [None if key.pk == "waves-unfinished" else item for key, item in zip(keys, get(*keys), strict=True)]

    monkeypatch.setattr(waves.store, "get", unseen)


def test_of_two_waves_that_begin_at_once_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    waves_stored = Waves(MemoryStore())
    waves_stored.add(wave_of())
    blind(waves_stored, monkeypatch)
    with pytest.raises(Conflict):
        waves_stored.add(wave_of(wave_id="another"))
    with pytest.raises(Conflict):
        waves_stored.add(wave_of(version="linear@2"))
    assert [each.version for each in waves_stored.page(limit=5)[0]] == [VERSION]


def test_a_wave_that_goes_back_after_its_end_is_the_only_one_of_its_algorithm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waves_stored = Waves(MemoryStore())
    waves_stored.add(wave_of())
    ended = waves_stored.change(wave_of(state=WaveState.DONE))
    assert waves_stored.unfinished() == []
    back = replace(ended, state=WaveState.GOING_BACK)
    with pytest.raises(Conflict):
        waves_stored.reopen(replace(back, revision=0))
    waves_stored.add(wave_of(wave_id="another", version="neighbours@3"))
    blind(waves_stored, monkeypatch)
    with pytest.raises(Conflict):
        waves_stored.reopen(back)
    monkeypatch.undo()
    assert [each.wave_id for each in waves_stored.unfinished()] == ["another"]


def test_what_is_stored_of_a_wave_is_read_back() -> None:
    waves_stored = Waves(MemoryStore())
    wave = wave_of(stages=(2.5, 100.0), tier="basic", tag="pilot", margin=0.015, reason="x", is_waved_on=True)
    waves_stored.add(wave)
    assert waves_stored.get("w") == wave
    judged = Judged(data_set="churn", verdict=WORSE, request_id="r", metric="r2", gain=-0.25, reason="y")
    member = member_of(judged=(judged, replace(judged, gain=None)), tries=2, run="run", reason="z")
    stored = waves_stored.put_member(wave, member)
    assert list(waves_stored.members("w")) == [stored] == [replace(member, revision=1)]
