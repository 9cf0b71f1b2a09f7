"""Tenants: every change of a tenant in an in-memory account, with each step failing in turn."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import pytest

from testing.memory_ports import (
    MemoryBell,
    MemoryDataSets,
    MemoryExecutions,
    MemoryTenants,
    MemoryTierQueues,
)
from testing.memory_store import MemoryStore
from testing.service import policies_in_force, scheduler_over
from tests.build import NOW, after, content, policy, request, submission, tier
from trainyard.application.scheduling.operations import Operations
from trainyard.application.serving.removal import ServedModels
from trainyard.application.tenancy.leaving import Leaving, UsersDeleted
from trainyard.application.tenancy.moving import Moving
from trainyard.application.tenancy.onboarding import Onboarding
from trainyard.application.tenancy.roles import PooledRoles
from trainyard.application.tenancy.tenants import Names, Step, TenantChanges, TenantSpec
from trainyard.contracts.messages import parse_training_request, training_request_body
from trainyard.domain.algorithms import Algorithm, Hyperparameter, Kind
from trainyard.domain.errors import InProgress, Refused, Throttled
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.names import request_id
from trainyard.domain.policy import Storage
from trainyard.domain.requests import Cause, Collected, Overrides, RequestKind, State
from trainyard.domain.retraining import RetrainingSettings, Trained, Trigger
from trainyard.domain.retraining_record import LastTrigger, RetrainingRecord, with_trigger
from trainyard.domain.serving import Isolation, Mode, ServingSettings
from trainyard.domain.tenants import Change, RoleState, Tenant, TenantState
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.book import Book
from trainyard.persistence.model_versions import ModelVersions
from trainyard.persistence.retraining_records import put_record, record_key
from trainyard.persistence.run_history import past_key, remember
from trainyard.persistence.tenant_queues import refile
from trainyard.persistence.young_buckets import note_young

CREATE = ("record", "storage", "role", "model_group", "schedule", "limits", "activate")
DELETE = (
    "begin",
    "cancel",
    "stop_runs",
    "endpoints",
    "models",
    "schedule",
    "objects",
    "storage",
    "role",
    "forget",
)
MOVE_UNTIL = ("begin", "await_runs", "storage", "copy", "copy_last", "verify")
MOVE_FROM = ("switch", "resubmit", "catch_up", "remove_old", "finish")
MOVE_ALONE = ("begin", "await_runs", "switch", "resubmit", "finish")
MOVE = MOVE_UNTIL + MOVE_FROM


@dataclass
class Account:
    """What there is of tenants in an account; stands for provisioning, removal and migration alike."""

    things: set[str] = field(default_factory=set)
    objects: dict[str, dict[str, tuple[str, timedelta]]] = field(default_factory=dict)
    """Root → key → content, and when it was written after NOW."""
    clock: timedelta = timedelta(days=-1)
    opened: set[str] = field(default_factory=set)

    def ensure_storage(self, tenant: Tenant, *, opened: bool = True) -> None:
        if not tenant.pooled:
            self.things.add(f"bucket {tenant.bucket}")
        self.opened |= {tenant.bucket} if opened else set()

    def write_readme(self, tenant: Tenant) -> None:
        """Nothing depends on it."""

    def ensure_role(self, tenant: Tenant) -> None:
        self.things.add(f"role {tenant.tenant_id} of {tenant.bucket}/{tenant.root}")
        if tenant.key_arn:
            self.things.add(f"grants on {tenant.key_arn} to {tenant.tenant_id}")

    def ensure_model_group(self, tenant: Tenant) -> None:
        self.things.add(f"group {tenant.tenant_id}")

    def ensure_schedules(self, tenant: Tenant, before: Tenant) -> None:
        self.things = {thing for thing in self.things if not thing.startswith(f"schedule {tenant.tenant_id} ")}
        if tenant.retrain_schedule:
            self.things.add(f"schedule {tenant.tenant_id} {tenant.retrain_schedule}")

    def drift(self, tenant: Tenant) -> list[str]:
        return [] if f"group {tenant.tenant_id}" in self.things else ["the model group is gone"]

    def inventory(self, tenant: Tenant) -> dict[str, int | str]:
        return {"objects": len(self.objects.get(tenant.bucket + "/" + tenant.root, {}))}

    def remove_endpoints(self, tenant: Tenant) -> bool:
        return False

    def remove_models(self, tenant: Tenant) -> tuple[int, bool]:
        self.things.discard(f"group {tenant.tenant_id}")
        return 0, False

    def remove_schedules(self, tenant: Tenant) -> None:
        self.things = {thing for thing in self.things if not thing.startswith(f"schedule {tenant.tenant_id} ")}

    def remove_objects(self, tenant: Tenant, *, before: datetime | None = None) -> tuple[int, bool]:
        """One at a time."""
        objects = self.objects.get(tenant.bucket + "/" + tenant.root, {})
        old = [key for key, (_, when) in sorted(objects.items()) if before is None or NOW + when < before]
        if not old:
            return 0, False
        objects.pop(old[0])
        return 1, len(old) > 1

    def abort_uploads(self, tenant: Tenant) -> None:
        """Nothing is uploaded in parts here."""

    def take_back_key(self, tenant: Tenant) -> str | None:
        self.things.discard(f"grants on {tenant.key_arn} to {tenant.tenant_id}")
        return None

    def remove_storage(self, tenant: Tenant) -> None:
        self.things.discard(f"bucket {tenant.bucket}")

    def remove_role(self, tenant: Tenant) -> None:
        self.things = {thing for thing in self.things if not thing.startswith(f"role {tenant.tenant_id} ")}

    def copy(
        self, source: Tenant, target: Tenant, *, after: str | None, late: bool = False
    ) -> tuple[int, str | None]:
        """One at a time."""
        there = self.objects.setdefault(target.bucket + "/" + target.root, {})
        for key in self.lacking(source, target, late=late):
            if key > (after or ""):
                there[key] = (self.objects[source.bucket + "/" + source.root][key][0], self.tick())
                return 1, key
        return 0, None

    def copy_last(self, source: Tenant, target: Tenant, keys: Sequence[str]) -> None:
        there = self.objects.setdefault(target.bucket + "/" + target.root, {})
        for key in keys:
            there[key] = (self.objects[source.bucket + "/" + source.root][key][0], self.tick())

    def differences(
        self, source: Tenant, target: Tenant, *, after: str | None, late: bool
    ) -> tuple[list[str], str | None]:
        """One at a time."""
        keys = sorted(
            key for key in self.objects.get(source.bucket + "/" + source.root, {}) if key > (after or "")
        )
        lacking = [key for key in self.lacking(source, target, late=late) if key in keys[:1]]
        return lacking, keys[0] if len(keys) > 1 else None

    def lacking(self, source: Tenant, target: Tenant, *, late: bool) -> list[str]:
        there = self.objects.get(target.bucket + "/" + target.root, {})
        here = self.objects.get(source.bucket + "/" + source.root, {})

        def lacks(key: str) -> bool:
            if key not in there:
                return True
            return here[key][1] > there[key][1] if late else here[key][0] != there[key][0]

        return [key for key in sorted(here) if lacks(key)]

    def put(self, root: str, key: str, content: str) -> None:
        self.objects.setdefault(root, {})[key] = (content, self.tick())

    def contents(self, root: str) -> dict[str, str]:
        return {key: content for key, (content, _) in self.objects.get(root, {}).items()}

    def tick(self) -> timedelta:
        self.clock += timedelta(seconds=2)
        return self.clock

    def repoint_models(self, source: Tenant, target: Tenant) -> None:
        """No models here."""


@dataclass
class Runs:
    running: set[str]

    def alive(self, run: str) -> bool:
        return run in self.running


@dataclass
class Harness:
    """The use cases over one account and one store, and runs of them."""

    tiers: tuple[Any, ...] = (tier("basic"), tier("premium"), tier("shared", storage=Storage.POOL))

    def __post_init__(self) -> None:
        self.store, self.account = MemoryStore(), Account()
        self.scheduler, self.records = scheduler_over(self.store), MemoryTenants()
        self.alive: set[str] = set()
        self.told: list[str] = []
        self.limits: dict[str, Any] = {}
        self.bell = MemoryBell()
        self.queues, self.executions, self.data = MemoryTierQueues(), MemoryExecutions(), MemoryDataSets()
        self.policy = policy(
            *self.tiers,
            algorithms={
                "tuned": Algorithm(
                    name="tuned",
                    hyperparameters={
                        "depth": Hyperparameter(kind=Kind.INTEGER, default=3, minimum=1, maximum=9),
                        "kernel": Hyperparameter(kind=Kind.TEXT, choices=("rbf", "linear")),
                    },
                )
            },
        )
        tenant_changes = TenantChanges(
            records=self.records,
            policies=policies_in_force(self.store, self.policy),
            scheduler=self.scheduler,
            runs=Runs(self.alive),
            announcements=self,
            names=Names(
                bucket_prefix="t-",
                pool_bucket="pool",
                role_prefix="role/",
                pooled_role_prefix="role/pool/",
                group_prefix="g-",
            ),
            with_limits=self.with_limits,
            limits_in=lambda text, tenant_id: self.limits.get(tenant_id, {}),
        )
        self.tenant_changes = tenant_changes
        self.removed_models: list[ModelVersion] = []
        self.without_users: list[str] = []
        served_models = ServedModels(
            aliases=Aliases(self.store, lambda _: None),
            versions=ModelVersions(self.store),
            remove=self.removed_models.append,
        )
        self.roles = PooledRoles(
            records=self.records,
            scheduler=self.scheduler,
            provisioning=self.account,
            removal=self.account,
            is_served=served_models.has_own_endpoint,
        )
        self.onboarding = Onboarding(
            tenant_changes=tenant_changes,
            provisioning=self.account,
            removal=self.account,
            bell=self.bell,
            users=self,
        )
        self.leaving = Leaving(
            tenant_changes=tenant_changes,
            removal=self.account,
            executions=self.executions,
            book=Book(store=self.store),
            served_models=served_models,
            users=self,
        )
        self.moving = Moving(
            tenant_changes=tenant_changes,
            provisioning=self.account,
            removal=self.account,
            migration=self.account,
            data_sets=self.data,
            tier_queues=self.queues,
            bell=self.bell,
            is_served=served_models.has_own_endpoint,
        )

    def with_limits(self, text: str, tenant_id: str, limits: Any) -> str:
        self.limits = {name: value for name, value in (self.limits | {tenant_id: limits}).items() if value}
        return text

    def delete_of_tenant(self, tenant_id: str) -> UsersDeleted:
        """Delete a tenant's users: whoever stays would be a user of the next tenant with its id."""
        tenant = self.records.get(tenant_id)
        assert tenant is not None, "while the id is not free"
        self.without_users.append(tenant_id)
        return UsersDeleted(1, is_complete=len(self.without_users) % 2 == 0)

    def announce_tenant(self, tenant: Tenant, what: str) -> None:
        self.told.append(what)

    def run(
        self,
        change: Change,
        steps: tuple[str, ...],
        spec: TenantSpec,
        *,
        run: str = "run",
        breaks: str = "",
        **more: Any,
    ) -> dict[str, Any]:
        """Take the steps as the state machine would; `breaks` names one that acts and is then cut off."""
        case: Any = {Change.MOVE: self.moving, Change.DELETE: self.leaving}.get(change, self.onboarding)
        answer: dict[str, Any] = {}
        for name in steps:
            cursor = None
            while True:
                step = Step(change=change, run=run, spec=spec, at=NOW, cursor=cursor, **more)
                answer = getattr(case, name)(step)
                if name == breaks:
                    self.tenant_changes.note_failure(replace(step, error=f"{name} broke"))
                    raise ConnectionError(name)
                cursor = answer.get("cursor")
                if not answer.get("left"):
                    break
            if answer.get("known") is False or answer.get("needed") is False:
                break
        return answer

    def create(self, tenant_id: str = "acme", tier_name: str = "basic", **given: Any) -> dict[str, Any]:
        return self.run(Change.CREATE, CREATE, spec(tenant_id, tier_name, **given), run=f"create {tenant_id}")

    def repair(self, tenant_id: str = "acme", tier_name: str | None = None, **given: Any) -> dict[str, Any]:
        wanted = replace(bare(tenant_id, **given), tier=tier_name, repair=True)
        return self.run(Change.CREATE, CREATE, wanted, run="repair")

    def state(self) -> dict[str, Any]:
        """Return all that can be seen, but for the counts of writes."""
        tenants, _ = self.records.page()
        return {
            "records": [replace(tenant, revision=0, settled_by=None) for tenant in tenants],
            "things": sorted(self.account.things),
            "objects": {root: found for root, found in self.account.objects.items() if found},
            "limits": self.limits,
        }


def spec(tenant_id: str = "acme", tier_name: str | None = None, **given: Any) -> TenantSpec:
    settings = given.pop("settings", {"target": "y", "algorithm": "linear"})
    return TenantSpec(tenant_id=tenant_id, tier=tier_name, settings=settings, **given)


def bare(tenant_id: str = "acme", **given: Any) -> TenantSpec:
    """Return a spec that names nothing but what is given."""
    return spec(tenant_id, settings=given.pop("settings", {}), **given)


# --- create and delete -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier_name", ["basic", "shared"])
@pytest.mark.parametrize("breaks", CREATE[:-1])
def test_a_creation_that_fails_at_any_step_ends_as_an_undisturbed_one_when_it_is_run_again(
    breaks: str, tier_name: str
) -> None:
    undisturbed, broken = Harness(), Harness()
    given: dict[str, Any] = {"retrain": "rate(1 day)", "limits": {"weight": 3}}
    undisturbed.create(tier_name=tier_name, **given)
    with pytest.raises(ConnectionError):
        broken.run(Change.CREATE, CREATE, spec("acme", tier_name, **given), breaks=breaks)
    known = broken.tenant_changes.known("acme")
    assert known.operation is not None
    assert breaks in str(known.operation.failure)
    assert known.state is TenantState.CREATING
    broken.create(tier_name=tier_name, **given)
    assert broken.state() == undisturbed.state()
    assert broken.told == undisturbed.told == ["Created"]


@pytest.mark.parametrize("tier_name", ["basic", "shared"])
@pytest.mark.parametrize("breaks", DELETE[:-1])
def test_a_deletion_that_fails_at_any_step_leaves_nothing_when_it_is_run_again(
    breaks: str, tier_name: str
) -> None:
    harness = Harness()
    harness.create(tier_name=tier_name, retrain="rate(1 day)", limits={"weight": 3})
    harness.create("acme1", tier_name=tier_name)
    neighbour = harness.state()
    tenant = harness.tenant_changes.known("acme")
    for key in ("incoming/x/1", "incoming/x/2"):
        harness.account.put(f"{tenant.bucket}/{tenant.root}", key, "a")
    with pytest.raises(ConnectionError):
        harness.run(Change.DELETE, DELETE, bare(), run="first", breaks=breaks)
    harness.run(Change.DELETE, DELETE, bare(), run="second")
    left = harness.state()
    assert not [thing for thing in left["things"] if " acme " in thing or thing.endswith(" t-acme")]
    assert (left["objects"], left["limits"]) == ({}, {})
    assert [r.state for r in left["records"]] == [TenantState.DELETED, TenantState.ACTIVE]
    assert left["records"][1] == neighbour["records"][1]
    assert harness.told == ["Created", "Created", "Deleted"]
    assert set(harness.without_users) == {"acme"}


def test_a_taken_name_is_refused_in_the_same_words_and_its_tenant_is_neither_told_nor_changed() -> None:
    harness = Harness()
    harness.create(limits={"weight": 3})
    harness.create("globex", tier_name="shared")
    first = harness.state()
    for name in ("acme", "globex"):
        for given in ({}, {"tier_name": "premium"}, {"limits": {"budget_usd": 0}}, {"retrain": "rate(1 day)"}):
            with pytest.raises(Refused) as refused:
                harness.create(name, **given)
            assert str(refused.value) == f"the name {name} is taken: choose another"
            step = Step(change=Change.CREATE, run="stranger", spec=spec(name), at=NOW, error=str(refused.value))
            assert (
                harness.tenant_changes.note_failure(step)["cause"]
                == f"create of tenant {name} failed: {refused.value}"
            )
    assert harness.state() == first
    harness.alive.add("create initech")
    harness.run(Change.CREATE, CREATE[:3], spec("initech", "basic"), run="create initech")
    first = harness.state()
    with pytest.raises(Refused, match="the name initech is taken"):
        harness.run(Change.CREATE, CREATE, spec("initech", "basic"), run="stranger")
    harness.alive.clear()
    with pytest.raises(Refused, match="the name initech is taken"):
        harness.run(Change.CREATE, CREATE, spec("initech", "premium"), run="stranger")
    assert harness.state() == first


def test_deleting_twice_changes_nothing_the_second_time() -> None:
    harness = Harness()
    harness.create()
    assert harness.told == ["Created"]
    for _ in range(2):
        answer = harness.run(Change.DELETE, DELETE, bare(), run="delete")
    assert answer == {"known": False, "progress": "there is no tenant acme: nothing to delete"}
    assert harness.run(Change.DELETE, DELETE, bare("nobody"))["known"] is False


def test_whoever_was_made_a_user_of_a_deleted_tenant_is_none_of_the_next_one() -> None:
    harness = Harness()
    harness.create()
    created = harness.tenant_changes.known("acme").created_at
    assert created is not None
    assert harness.without_users == [], "of a new id there are no users"
    harness.run(Change.DELETE, DELETE, bare(), run="delete")
    harness.without_users.clear()
    with pytest.raises(Throttled, match="users of an earlier tenant"):
        harness.create()
    harness.create()
    assert harness.without_users == ["acme", "acme"]


@pytest.mark.parametrize("purge", [False, True])
def test_what_a_tenant_was_trained_on_is_nothing_that_the_next_one_of_its_id_has_to_know(purge: bool) -> None:
    """It would be told that its data has been trained on before, and which other systems asked."""
    harness = Harness()
    harness.create()
    trained = Trained(request_id="1" * 32, at=NOW, basis="data.settings")
    last = LastTrigger(at=NOW, trigger="event: crm", event_id="e", request_id="1" * 32)
    for number in range(60):
        record = with_trigger(RetrainingRecord(), Trigger.EVENT, last)
        kept = record_key("acme", f"set-{number}")
        past = past_key("acme", f"set-{number}")
        harness.store.transact([put_record(kept, record, None), remember(past, (), None, trained)])
    other = past_key("acme1", "set-1")
    harness.store.transact([remember(other, (), None, trained)])
    harness.run(Change.DELETE, DELETE, bare(), run="delete", purge=purge)
    pks = {dict(key.values).get("pk", "") for key in harness.store.items}
    assert not pks & {"past#acme", "retraining#acme"}
    assert "past#acme1" in pks


def test_a_purge_forgets_record_and_requests_and_the_id_can_be_used_again() -> None:
    harness = Harness()
    harness.create()
    harness.scheduler.tables.requests.add_rejected(request(7, state=State.REJECTED, finished_at=NOW))
    harness.run(Change.DELETE, DELETE, bare(), run="delete", purge=True)
    assert harness.records.page()[0] == []
    assert harness.scheduler.tables.requests.of_tenant("acme") == []
    harness.create(tier_name="premium")
    assert harness.tenant_changes.known("acme").tier == "premium"


def test_a_deletion_cancels_what_waits_and_stops_what_runs_and_keeps_what_it_has_cost() -> None:
    harness = Harness()
    harness.create()
    for number in (1, 2):
        harness.scheduler.enlister.enlist(submission(number, algorithm="linear"), harness.policy, NOW)
    with pytest.raises(Refused, match="are waiting or running again"):
        harness.run(Change.DELETE, ("begin", "forget"), bare(), run="hasty")
    harness.run(Change.DELETE, DELETE, bare(), run="delete")
    assert {r.state for r in harness.scheduler.tables.requests.of_tenant("acme")} == {State.CANCELLED}
    assert harness.records.page()[0][0].state is TenantState.DELETED


def test_a_dry_run_changes_nothing() -> None:
    harness = Harness()
    harness.create()
    before = harness.state()
    told = harness.run(Change.DELETE, ("inventory",), bare())
    assert told["would_go"] == {"requests_waiting": 0, "requests_running": 0, "objects": 0}
    assert harness.state() == before


def test_a_change_waits_while_another_is_alive_and_takes_over_when_it_is_not() -> None:
    harness = Harness()
    harness.alive.add("create acme")
    harness.run(Change.CREATE, CREATE[:3], spec("acme", "basic"), run="create acme")
    with pytest.raises(InProgress, match="create of tenant acme is in progress"):
        harness.run(Change.DELETE, DELETE, bare(), run="delete")
    harness.alive.clear()
    harness.run(Change.DELETE, DELETE[:2], bare(), run="delete")
    with pytest.raises(Refused, match="another change"):
        harness.run(Change.CREATE, ("model_group",), spec("acme", "basic"), run="create acme")
    with pytest.raises(Refused, match="is taken"):
        harness.create()
    with pytest.raises(Refused, match="is being deleted"):
        harness.repair()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"tenant_id": "ACME"}, "acme would be valid"),
        ({"tenant_id": "acme.labs"}, "acme-labs would be valid"),
        ({"tenant_id": "Žluťoučký"}, "is not a valid tenant id"),
        ({"tenant_id": "a" * 25}, "at most 24"),
        ({"tenant_id": "acme-"}, "single hyphens"),
        ({"tenant_id": "acme/"}, "is not a valid tenant id"),
        ({"tenant_id": "pool"}, "reserved"),
        ({"tier_name": "gold"}, "there is no tier 'gold'; the policy has basic, premium, shared"),
        ({"settings": {"algorithm": "linear"}}, "target is missing"),
        (
            {"settings": {"target": "y", "algorithm": "magic"}},
            "has gradient-boosting, linear, tuned",
        ),
        ({"settings": {"target": "y", "algorithm": "tuned", "hyperparameters": (("width", 1),)}}, "it has depth"),
        ({"settings": {"target": "y", "algorithm": "tuned", "hyperparameters": (("depth", 99),)}}, "from 1 to 9"),
        (
            {"settings": {"target": "y", "algorithm": "tuned", "hyperparameters": (("depth", "3"),)}},
            "not of type integer",
        ),
        (
            {"settings": {"target": "y", "algorithm": "tuned", "hyperparameters": (("kernel", "poly"),)}},
            "one of rbf, linear",
        ),
        ({"data_sets": {"s": {"algorithm": "magic"}}}, "no algorithm 'magic'"),
        ({"tier_name": "shared", "account_id": "123456789012"}, "needs a bucket of its own"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_and_leaves_nothing(given: dict[str, Any], reason: str) -> None:
    harness = Harness()
    with pytest.raises(Refused, match=reason):
        harness.create(**given)
    assert (harness.account.things, harness.records.page()[0]) == (set(), [])


def test_a_repair_changes_nothing_and_makes_no_tenant() -> None:
    harness = Harness()
    with pytest.raises(Refused, match="there is no tenant 'acme' to repair"):
        harness.repair()
    harness.create()
    for given, other in (
        ({"tier_name": "premium"}, "tier or limit"),
        ({"limits": {"weight": 3}}, "tier or limit"),
        ({"settings": {"target": "z", "algorithm": "linear"}}, "settings"),
    ):
        with pytest.raises(Refused, match=rf"cannot change {other}.*trainyard tenant update acme"):
            harness.repair(**given)


# --- update, suspend, drift --------------------------------------------------------------------------------------


@pytest.mark.parametrize("breaks", ["check", "storage", "role", "schedule", "limits"])
def test_an_update_that_fails_can_be_run_again_or_gone_back_from(breaks: str) -> None:
    steps = ("check", "storage", "role", "schedule", "limits", "update")
    given: dict[str, Any] = {
        "settings": {"algorithm": "tuned"},
        "retrain": "rate(2 days)",
        "limits": {"running_max": 2},
    }
    undisturbed, again, back = Harness(), Harness(), Harness()
    for harness in (undisturbed, again, back):
        harness.create(settings={"target": "y", "algorithm": "linear", "hyperparameters": (("max_iter", 9),)})
    before = back.state() | {"limits": undisturbed.limits}
    undisturbed.run(Change.UPDATE, steps, bare(**given))
    for harness in (again, back):
        with pytest.raises(ConnectionError):
            harness.run(Change.UPDATE, steps, bare(**given), run="broken", breaks=breaks)
    again.run(Change.UPDATE, steps, bare(**given), run="again")
    assert again.state() == undisturbed.state()
    back.repair()
    assert back.state() | {"limits": {}} == before
    tenant = again.tenant_changes.known("acme")
    assert (tenant.settings.algorithm, tenant.settings.target, tenant.settings.hyperparameters) == (
        "tuned",
        "y",
        (),
    )


def test_suspended_nothing_of_the_tenant_is_admitted_until_it_is_resumed() -> None:
    harness = Harness()
    harness.create()
    harness.scheduler.enlister.enlist(submission(1), harness.policy, NOW)
    harness.run(Change.SUSPEND, ("suspend",), bare())
    assert harness.scheduler.tables.queues.get("basic", "acme").paused
    harness.repair()
    assert harness.tenant_changes.known("acme").state is TenantState.SUSPENDED
    harness.run(Change.RESUME, ("resume",), bare())
    harness.run(Change.RESUME, ("resume",), bare())
    assert not harness.scheduler.tables.queues.get("basic", "acme").paused
    assert harness.told == ["Created", "Suspended", "Resumed"]


def test_what_has_gone_is_told_and_made_again_by_a_repair() -> None:
    harness = Harness()
    harness.create()
    whole = harness.state()
    harness.account.things.discard("group acme")
    step = Step(change=Change.CREATE, run="", spec=bare(), at=NOW)
    assert harness.onboarding.drift(step)["drift"] == ["the model group is gone"]
    harness.repair()
    assert harness.state() == whole


# --- roles of the pool -------------------------------------------------------------------------------------------

IDLE = timedelta(days=30)


def idle_after(harness: Harness, days: float) -> list[str]:
    def failed(tenant: Tenant, error: Exception) -> None:
        raise error

    return harness.roles.remove_idle(after(days * 86_400), idle_for=IDLE, failed=failed)[0]


def test_a_pooled_tenants_role_is_made_at_its_first_request_and_removed_when_long_idle() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    assert harness.tenant_changes.known("acme").role is RoleState.NONE
    assert not [thing for thing in harness.account.things if thing.startswith("role")]
    for _ in range(2):
        harness.roles.make("acme", NOW)
    assert "role acme of pool/acme/" in harness.account.things
    harness.scheduler.enlister.enlist(submission(1, tier="shared"), harness.policy, NOW)
    assert idle_after(harness, 31) == [], "something waits"
    (waiting,) = harness.scheduler.tables.requests.of_tenant("acme")
    harness.scheduler.completer.cancel(waiting, NOW)
    assert idle_after(harness, 29) == []
    assert idle_after(harness, 31) == ["acme"]
    assert harness.tenant_changes.known("acme").role is RoleState.NONE
    harness.roles.make("acme", NOW)
    assert harness.tenant_changes.known("acme").role is RoleState.MADE


def test_a_role_that_is_being_removed_is_asked_for_again_and_taken_over_when_that_was_cut_off() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    harness.records.put(replace(harness.tenant_changes.known("acme"), role=RoleState.REMOVING, role_since=NOW))
    with pytest.raises(InProgress, match="is being removed"):
        harness.roles.make("acme", after(10))
    harness.roles.make("acme", after(300))
    assert harness.tenant_changes.known("acme").role is RoleState.MADE


def test_a_request_that_comes_while_a_role_is_found_idle_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    harness.roles.make("acme", NOW)
    put = harness.records.put

    def put_and_enlist(tenant: Tenant) -> Tenant:
        if tenant.role is RoleState.REMOVING:
            harness.scheduler.enlister.enlist(submission(1, tier="shared"), harness.policy, NOW)
        return put(tenant)

    monkeypatch.setattr(harness.records, "put", put_and_enlist)
    assert idle_after(harness, 31) == []
    assert harness.tenant_changes.known("acme").role is RoleState.MADE
    assert "role acme of pool/acme/" in harness.account.things


def test_of_many_who_ask_for_a_role_at_once_none_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    ensure_role = harness.account.ensure_role
    others = [harness.roles]

    def and_another_is_faster(tenant: Tenant) -> None:
        ensure_role(tenant)
        if others:
            others.pop().make("acme", NOW)

    monkeypatch.setattr(harness.account, "ensure_role", and_another_is_faster)
    harness.roles.make("acme", NOW)
    assert harness.tenant_changes.known("acme").role is RoleState.MADE


def test_a_tenant_that_goes_gets_no_role_and_a_failing_one_holds_up_no_other() -> None:
    harness = Harness()
    for name in ("acme", "globex"):
        harness.create(name, tier_name="shared")
        harness.roles.make(name, NOW)
    harness.run(Change.DELETE, DELETE[:1], bare(), run="delete")
    with pytest.raises(Refused, match="accepts no requests"):
        harness.roles.make("acme", NOW)
    told: list[str] = []
    harness.account.remove_role = lambda tenant: (_ for _ in ()).throw(OSError("no"))  # type: ignore[method-assign]
    removed, left = harness.roles.remove_idle(
        after(90 * 86_400), idle_for=IDLE, failed=lambda tenant, error: told.append(tenant.tenant_id)
    )
    assert (removed, left, told) == ([], False, ["globex"])


def wish_to_move(tier_name: str) -> TenantSpec:
    return spec("acme", tier_name, settings={})


# --- move --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RequestKind)
def test_what_waits_is_asked_for_again_in_the_new_tier_and_taken_back_in_the_old(kind: RequestKind) -> None:
    harness = Harness()
    harness.create()
    tenant = harness.tenant_changes.known("acme")
    harness.scheduler.operations.set_tenant_paused("basic", "acme", True, NOW)
    content = submission(1).content
    alone = kind is RequestKind.TRANSFORM
    one = submission(1, content=replace(content, bucket=tenant.bucket), kind=kind, alone=alone)
    harness.scheduler.enlister.enlist(one, harness.policy, NOW)
    harness.run(Change.MOVE, MOVE_ALONE, wish_to_move("premium"))
    (sent,) = harness.queues.sent
    assert (sent.tier, sent.content, sent.data_set) == ("premium", one.content, one.data_set)
    assert (sent.kind, sent.alone) == (kind, alone)
    assert [r.state for r in harness.scheduler.tables.requests.of_tenant("acme")] == [State.CANCELLED]
    assert harness.scheduler.tables.queues.get("basic", "acme").revision == 0, "the old queue is forgotten"
    assert harness.scheduler.tables.queues.get("premium", "acme").paused, "the operator's own pause stays"
    assert harness.run(Change.MOVE, MOVE, wish_to_move("premium"), run="again")["needed"] is False


@pytest.mark.parametrize("breaks", MOVE[:-1])
def test_a_move_out_of_the_pool_that_fails_at_any_step_loses_nothing_and_can_be_run_again(breaks: str) -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    for key in ("incoming/x/1", "incoming/x/2", "models/x/m"):
        harness.account.put("pool/acme/", key, f"{key} of old")
    harness.account.put("pool/acme1/", "incoming/x/1", "the neighbour's")
    objects = harness.account.contents("pool/acme/")

    def kept() -> bool:
        places = [harness.account.contents(place) for place in ("pool/acme/", "t-acme/")]
        return all(any(place.get(key) == content for place in places) for key, content in objects.items())

    with pytest.raises(ConnectionError):
        harness.run(Change.MOVE, MOVE, wish_to_move("basic"), run="first", breaks=breaks)
    assert kept()
    assert "t-acme" not in harness.account.opened or breaks in MOVE_FROM, "what is copied is not announced"
    if breaks not in MOVE_FROM:
        harness.account.put("pool/acme/", "incoming/x/2", "uploaded meanwhile")
        objects["incoming/x/2"] = "uploaded meanwhile"
    harness.run(Change.MOVE, MOVE, wish_to_move("basic"), run="second")
    assert kept()
    assert harness.account.contents("t-acme/") == objects
    assert harness.account.contents("pool/acme/") == {}
    assert harness.account.contents("pool/acme1/") == {"incoming/x/1": "the neighbour's"}
    moved = harness.tenant_changes.known("acme")
    assert (moved.tier, moved.bucket, moved.root, moved.role) == ("basic", "t-acme", "", RoleState.MADE)
    assert not harness.scheduler.tables.queues.get("basic", "acme").paused


def test_what_is_newer_at_the_new_place_is_not_overwritten_and_what_came_late_to_the_old_is_copied() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    for key in ("incoming/x/1", "incoming/x/2"):
        harness.account.put("pool/acme/", key, "old")
    harness.run(Change.MOVE, MOVE[:8], wish_to_move("basic"))
    harness.account.put("t-acme/", "incoming/x/1", "newer, at the new place")
    harness.account.put("pool/acme/", "incoming/x/2", "late, at the old place")
    harness.account.put("pool/acme/", "incoming/x/3", "late and new")
    harness.run(Change.MOVE, MOVE[8:], wish_to_move("basic"))
    assert harness.account.contents("t-acme/") == {
        "incoming/x/1": "newer, at the new place",
        "incoming/x/2": "late, at the old place",
        "incoming/x/3": "late and new",
    }
    assert harness.account.contents("pool/acme/") == {}


def test_what_comes_while_old_objects_are_removed_is_neither_lost_nor_removed() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    harness.account.put("pool/acme/", "incoming/x/1", "old")
    harness.run(Change.MOVE, MOVE[:9], wish_to_move("basic"))
    step = Step(change=Change.MOVE, run="run", spec=wish_to_move("basic"), at=NOW)
    harness.account.clock = timedelta(0)  # from here on, uploads are younger than the step
    differences = harness.account.differences

    def and_an_upload(source: Tenant, target: Tenant, **options: Any) -> tuple[list[str], str | None]:
        harness.account.put("pool/acme/", "incoming/x/1", "between the looks")
        return differences(source, target, **options)

    compared = harness.moving.remove_old(step)
    assert (compared["left"], compared["late"]) == (True, False)
    harness.account.differences = and_an_upload  # type: ignore[method-assign]
    assert harness.moving.remove_old(replace(step, cursor=compared["cursor"]))["late"] is True
    assert harness.account.contents("pool/acme/") == {"incoming/x/1": "between the looks"}


def test_an_upload_whose_event_met_the_switch_is_asked_for_once_more_and_others_are_not() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    harness.account.put("pool/acme/", "incoming/set-1/d.csv", "old")
    came = content("acme/incoming/set-1/d.csv", bucket="pool", event_time=after(1))
    there = content("incoming/set-1/d.csv", bucket="t-acme", event_time=after(5))
    quiet = content("acme/incoming/set-2/d.csv", bucket="pool", event_time=after(-9 * 86_400))
    heard = content("acme/incoming/set-3/d.csv", bucket="pool", event_time=after(1), version_id="v3")
    known = request_id(tenant_id="acme", bucket="pool", key=heard.key, revision="v3")
    harness.scheduler.enlister.enlist(
        replace(submission(3, tier="shared", content=heard), request_id=known), harness.policy, NOW
    )

    class Data:
        def names(self, tenant: Tenant) -> list[str]:
            return ["set-1", "set-2", "set-3"]

        def content_of(self, tenant: Tenant, name: str) -> Any:
            found = {"set-1": came, "set-2": quiet, "set-3": heard}
            return found[name] if tenant.pooled else there

    moving = replace(harness.moving, data_sets=Data())  # type: ignore[arg-type]
    harness.run(Change.MOVE, MOVE[:2], wish_to_move("basic"))
    harness.run(Change.MOVE, MOVE[6:8], wish_to_move("basic"))
    step = Step(change=Change.MOVE, run="run", spec=wish_to_move("basic"), at=NOW)
    for _ in range(2):
        while moving.catch_up(step)["left"]:
            pass
    asked = [s for s in harness.queues.sent if s.cause is Cause.RETRAINING]
    assert [(s.data_set, s.content) for s in asked] == [("set-1", there)] * 2
    assert len({s.request_id for s in asked}) == 1, "asked for twice, it is one request"


def test_a_failed_move_is_finished_or_the_tenant_goes_and_a_deletion_finds_both_places_and_tiers() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    harness.account.put("pool/acme/", "incoming/x/1", "a")
    harness.scheduler.enlister.enlist(submission(1, tier="shared"), harness.policy, NOW)
    with pytest.raises(ConnectionError):
        harness.run(Change.MOVE, MOVE, wish_to_move("basic"), run="move", breaks="copy")
    first = {Change.SUSPEND: "suspend", Change.UPDATE: "check", Change.CREATE: "record"}
    for change, name in first.items():
        with pytest.raises(Refused, match="a move of tenant acme has failed half-way"):
            harness.run(change, (name,), bare(repair=change is Change.CREATE), run=f"{change}")
    harness.run(Change.DELETE, DELETE, bare(), run="delete")
    assert (harness.account.contents("pool/acme/"), harness.account.contents("t-acme/")) == ({}, {})
    assert not [thing for thing in harness.account.things if thing.endswith(" t-acme")]
    assert {r.state for r in harness.scheduler.tables.requests.of_tenant("acme")} == {State.CANCELLED}
    assert harness.scheduler.tables.queues.get("shared", "acme").revision == 0


def test_a_move_back_releases_a_tenant_whose_move_has_failed() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    with pytest.raises(ConnectionError):
        harness.run(Change.MOVE, MOVE, wish_to_move("basic"), run="move", breaks="await_runs")
    harness.run(Change.MOVE, MOVE_ALONE, wish_to_move("shared"), run="back")
    tenant = harness.tenant_changes.known("acme")
    assert (tenant.tier, tenant.bucket, tenant.operation) == ("shared", "pool", None)
    assert not harness.scheduler.tables.queues.get("shared", "acme").paused


def test_a_pooled_tenant_inherits_nothing_of_an_earlier_one_of_its_id() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    harness.run(Change.DELETE, DELETE, bare(), run="delete", purge=True)
    harness.account.put("pool/acme/", "incoming/x/1", "put by a credential that outlived the tenant")
    harness.create(tier_name="shared")
    assert harness.account.contents("pool/acme/") == {}


# --- limits and keys ---------------------------------------------------------------------------------------------


def test_limits_that_are_not_named_stay_and_one_can_be_taken_away() -> None:
    harness = Harness()
    harness.create(limits={"weight": 3, "running_max": 2})
    steps = ("check", "storage", "role", "schedule", "limits", "update")
    harness.run(Change.UPDATE, steps, bare(limits={"budget_usd": 10}))
    assert harness.limits["acme"] == {"weight": 3, "running_max": 2, "budget_usd": 10}
    harness.run(Change.UPDATE, steps, bare(limits={"running_max": None}), run="again")
    assert harness.limits["acme"] == {"weight": 3, "budget_usd": 10}


def test_what_a_tenant_has_spent_goes_along_with_it() -> None:
    harness = Harness()
    harness.create()
    queue = harness.scheduler.tables.queues.get("basic", "acme")
    spent = replace(queue, spent_usd=Decimal("7.25"))
    harness.store.transact(refile(queue, spent, NOW))
    harness.run(Change.MOVE, MOVE_ALONE, wish_to_move("premium"))
    assert harness.scheduler.tables.queues.get("premium", "acme").spent_usd == Decimal("7.25")
    harness.run(Change.DELETE, DELETE[:-1], bare(), run="delete")
    with patch.object(Operations, "forget_queue", side_effect=ConnectionError), pytest.raises(ConnectionError):
        harness.run(Change.DELETE, ("forget",), bare(), run="delete")
    harness.run(Change.DELETE, ("forget",), bare(), run="delete")
    gone = harness.records.page()[0][0]
    assert gone.state is TenantState.DELETED
    assert harness.scheduler.tables.queues.get("premium", "acme").revision == 0


def test_grants_on_a_key_that_is_no_longer_the_tenants_are_taken_back() -> None:
    harness = Harness()
    harness.create(key_arn="arn:key/one")
    assert "grants on arn:key/one to acme" in harness.account.things
    steps = ("check", "storage", "role", "schedule", "limits", "update")
    harness.run(Change.UPDATE, steps, bare(key_arn="arn:key/two"))
    assert [thing for thing in harness.account.things if thing.startswith("grants")] == [
        "grants on arn:key/two to acme"
    ]
    with pytest.raises(Refused, match="name a --kms-key"):
        harness.create("globex", account_id="123456789012")


@pytest.mark.parametrize("tier_name", ["basic", "shared"])
def test_no_two_tenants_have_one_key(tier_name: str) -> None:
    harness = Harness()
    harness.create(key_arn="arn:key/one")
    with pytest.raises(Refused, match="the key arn:key/one is already in use") as refused:
        harness.create("globex", tier_name, key_arn="arn:key/one")
    assert "acme" not in str(refused.value)
    assert not [thing for thing in harness.account.things if thing == "grants on arn:key/one to globex"]
    steps = ("check", "storage", "role", "schedule", "limits", "update")
    harness.run(Change.UPDATE, steps, bare(key_arn="arn:key/two"))
    harness.create("globex", tier_name, key_arn="arn:key/one")
    with pytest.raises(Refused, match="already in use"):
        harness.run(Change.UPDATE, steps, bare(key_arn="arn:key/one"), run="back")
    harness.run(Change.DELETE, DELETE, bare("globex"), run="delete")
    harness.run(Change.UPDATE, steps, bare(key_arn="arn:key/one"), run="back again")
    assert harness.tenant_changes.known("acme").key_arn == "arn:key/one"


def test_an_event_is_told_again_rather_than_never(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness()
    harness.create()
    put = harness.records.put
    writes: list[Tenant] = []

    def put_but_once(tenant: Tenant) -> Tenant:
        writes.append(tenant)
        if len(writes) == 2:
            raise ConnectionError
        return put(tenant)

    monkeypatch.setattr(harness.records, "put", put_but_once)
    with pytest.raises(ConnectionError):
        harness.run(Change.SUSPEND, ("suspend",), bare(), run="s")
    harness.run(Change.SUSPEND, ("suspend",), bare(), run="s")
    assert harness.told == ["Created", "Suspended", "Suspended"]
    assert harness.tenant_changes.known("acme").state is TenantState.SUSPENDED


# --- moves that cannot be ----------------------------------------------------------------------------------------


def test_objects_that_were_not_copied_as_they_are_stop_a_move_before_anything_is_switched() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    harness.account.put("pool/acme/", "models/x/m", "c")
    with pytest.raises(Refused, match="1 objects differ from their copies"):
        harness.run(Change.MOVE, ("begin", "await_runs", "storage", "verify", "switch"), wish_to_move("basic"))
    assert harness.tenant_changes.known("acme").bucket == "pool"


OWN = ServingSettings(mode=Mode.SERVERLESS, isolation=Isolation.SILO)


def own_version(state: VersionState, serving: ServingSettings = OWN) -> ModelVersion:
    return ModelVersion(
        tenant_id="acme",
        data_set="churn",
        version=1,
        package_arn="arn:1",
        request_id="0" * 32,
        model_uri="s3://pool/acme/models/m.tar.gz",
        state=state,
        since=NOW,
        approved_at=NOW,
        serving=serving,
    )


@pytest.mark.parametrize("mode", Mode)
def test_a_tenant_is_moved_with_its_models_but_not_with_endpoints_of_its_own(mode: Mode) -> None:
    own = {Mode.REAL_TIME, Mode.SERVERLESS, Mode.ASYNCHRONOUS, Mode.BATCH_TRANSFORM}
    harness = Harness()
    harness.create(tier_name="shared")
    isolation = Isolation.SILO if mode in own else Isolation.BRIDGE
    version = own_version(VersionState.READY, ServingSettings(mode=mode, isolation=isolation))
    ModelVersions(harness.store).put(version)
    if mode in own:
        with pytest.raises(Refused, match="has endpoints of its own"):
            harness.run(Change.MOVE, ("begin",), wish_to_move("basic"))
    else:
        harness.run(Change.MOVE, ("begin", "storage", "copy", "switch"), wish_to_move("basic"))
        assert harness.tenant_changes.known("acme").tier == "basic"
        assert ModelVersions(harness.store).get("acme", "churn", 1) == version


def test_a_role_that_own_endpoints_act_with_is_kept_and_its_tenant_is_not_moved() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    harness.roles.make("acme", NOW)
    versions = ModelVersions(harness.store)
    versions.put(own_version(VersionState.READY))
    assert idle_after(harness, 31) == []
    with pytest.raises(Refused, match="trainyard serving stop acme DATA_SET --yes"):
        harness.run(Change.MOVE, ("begin",), wish_to_move("basic"))
    versions.put(own_version(VersionState.REMOVED))
    harness.run(Change.MOVE, ("begin",), wish_to_move("basic"))


def test_uploads_that_are_each_trained_on_wait_through_no_move() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    harness.scheduler.enlister.enlist(submission(1, tier="shared", alone=True), harness.policy, NOW)
    with pytest.raises(Refused, match="let them run, or stop them"):
        harness.run(Change.MOVE, ("begin", "storage", "copy", "switch"), wish_to_move("basic"))


def test_a_batch_transform_that_waits_holds_up_no_move() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    waits = submission(1, tier="shared", alone=True, kind=RequestKind.TRANSFORM)
    harness.scheduler.enlister.enlist(waits, harness.policy, NOW)
    harness.run(Change.MOVE, ("begin", "storage", "copy", "switch"), wish_to_move("basic"))
    assert harness.tenant_changes.known("acme").tier == "basic"


def test_a_training_with_overrides_moves_with_its_tenant() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    own = Overrides(algorithm="linear", hyperparameters=(("max_iter", 7),))
    waits = submission(1, tier="shared", alone=True, overrides=own, cause=Cause.RETRAINING)
    harness.scheduler.enlister.enlist(waits, harness.policy, NOW)
    harness.data.objects = {("acme", waits.data_set): [waits.content]}
    harness.run(Change.MOVE, ("begin", "storage", "copy", "switch", "resubmit"), wish_to_move("basic"))
    assert [(each.tier, each.overrides, each.algorithm, each.alone) for each in harness.queues.sent] == [
        ("basic", own, "linear", True)
    ]


def test_what_was_collected_and_asked_for_moves_with_its_tenant() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    uploads = submission(1, tier="shared", collected=Collected(9, 90, 900), triggers=("upload", "batch complete"))
    waits = replace(uploads, is_complete=True, is_forced=True, accepts_drift=True)
    harness.scheduler.enlister.enlist(waits, harness.policy, NOW, rules=RetrainingSettings(files=10))
    harness.data.objects = {("acme", waits.data_set): [waits.content]}
    harness.run(Change.MOVE, ("begin", "storage", "copy", "switch", "resubmit"), wish_to_move("basic"))
    (sent,) = harness.queues.sent
    assert parse_training_request(training_request_body(sent)) == sent
    moved = replace(sent, request_id="", content=waits.content, algorithm="", tier="shared")
    assert moved == replace(waits, request_id="")


def test_a_tenant_whose_uploads_are_each_trained_on_moves_once_all_of_them_are_known() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    tenant = harness.tenant_changes.known("acme")
    each = replace(tenant.settings, every_upload=True)
    harness.tenant_changes.records.put(replace(tenant, settings=each))
    note_young(harness.scheduler.tables.store, "acme", NOW)
    with pytest.raises(Refused, match="events of recent uploads may still be missing"):
        harness.run(Change.MOVE, ("begin", "storage", "copy", "switch"), wish_to_move("basic"))
    assert harness.tenant_changes.known("acme").bucket == "pool"


def test_a_tier_whose_storage_changes_under_a_move_costs_no_data() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    harness.account.put("pool/acme/", "incoming/x/1", "a")
    step = Step(change=Change.MOVE, run="run", spec=wish_to_move("basic"), at=NOW)
    assert harness.moving.begin(step)["relocates"] is True
    pooled = replace(harness.policy, tiers=tuple(replace(t, storage=Storage.POOL) for t in harness.policy.tiers))
    object.__setattr__(harness.tenant_changes, "policies", policies_in_force(harness.store, pooled))
    for name in ("storage", "copy", "copy_last", "verify", "switch", "resubmit"):
        getattr(harness.moving, name)(step)
    for name in ("catch_up", "remove_old"):
        with pytest.raises(Refused, match="is still in the pool"):
            getattr(harness.moving, name)(step)
    assert harness.account.contents("pool/acme/") == {"incoming/x/1": "a"}


def test_nothing_of_a_tenant_is_admitted_between_the_switch_and_the_end_of_its_move() -> None:
    harness = Harness()
    harness.create(tier_name="shared")
    harness.run(Change.MOVE, (*MOVE_UNTIL, "switch"), wish_to_move("basic"))
    assert harness.scheduler.tables.queues.get("basic", "acme").paused
    harness.run(Change.MOVE, MOVE_FROM[1:], wish_to_move("basic"))
    assert not harness.scheduler.tables.queues.get("basic", "acme").paused


def test_a_tenant_with_a_bucket_keeps_it_on_a_tier_of_the_pool() -> None:
    harness = Harness()
    harness.create()
    harness.run(Change.MOVE, MOVE_ALONE, wish_to_move("shared"))
    assert (harness.tenant_changes.known("acme").tier, harness.tenant_changes.known("acme").bucket) == (
        "shared",
        "t-acme",
    )
