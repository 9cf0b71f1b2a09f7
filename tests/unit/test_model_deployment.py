"""From an approved version to one that answers, and what becomes of those that cannot."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any

import pytest

from testing.memory_ports import MemoryTenants
from testing.memory_serving import MemoryComparisons, MemoryHost, MemoryModelPackages, MemorySamples
from testing.memory_store import MemoryStore
from testing.service import policies_in_force, scheduler_over
from tests.build import NOW, after, policy, submission, tenant, tier
from trainyard.application.serving.model_deployment import Judgement, ModelDeployment, VersionId
from trainyard.application.serving.ports import ModelPackage
from trainyard.application.serving.promotion import Promoter
from trainyard.application.serving.removal import ServedModels
from trainyard.domain.algorithms import Algorithm
from trainyard.domain.aliases import ABANDONED_AFTER, Alias, Begun, Environment, answering, rolled_back
from trainyard.domain.errors import Refused
from trainyard.domain.model_versions import ModelVersion, VersionState, target_of
from trainyard.domain.policy import Policy
from trainyard.domain.serving import Mode, Promotion, ServingSettings
from trainyard.domain.tenants import Tenant, TenantState, TrainingSettings
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.inference import InferenceBook
from trainyard.persistence.model_versions import ModelVersions

RUN = "run-1"
WRONG = {"predictions": ["maybe", "yes"]}
LIMITS = policy(tier())


def arn(version: int) -> str:
    return f"arn:aws:sagemaker:us-east-1:123456789012:model-package/trainyard-acme/{version}"


def target(version: int) -> str:
    return target_of("acme", "churn", version, submission(version).request_id)


@dataclass
class Harness:
    limits: Policy = field(default_factory=lambda: LIMITS)
    owner: Tenant = field(default_factory=tenant)

    def __post_init__(self) -> None:
        self.store = store = MemoryStore()
        self.packages, self.samples, self.models = MemoryModelPackages(), MemorySamples(), MemoryHost()
        self.comparisons = MemoryComparisons()
        self.scheduler = scheduler_over(store)
        self.tenants = MemoryTenants(self.owner)
        self.book = InferenceBook(store=store, retention=timedelta(days=45))
        aliases, versions = Aliases(store, lambda _: None), ModelVersions(store)
        self.deployment = ModelDeployment(
            aliases=aliases,
            versions=versions,
            tenants=self.tenants,
            policies=policies_in_force(store, self.limits),
            scheduler=self.scheduler,
            packages=self.packages,
            samples=self.samples,
            comparisons=self.comparisons,
            hosts=dict.fromkeys(Mode, self.models),
            promoter=Promoter(aliases=aliases, versions=versions, calls=self.book),
        )

    def approve(
        self, version: int, *, algorithm: str = "linear", at: datetime = NOW, approved: bool = True
    ) -> str:
        """Register a version that a request has trained, as approved."""
        request = submission(version, data_set="churn", algorithm=algorithm)
        self.scheduler.enlister.enlist(request, self.limits, NOW)
        self.packages.packages[arn(version)] = ModelPackage(
            arn=arn(version),
            group=self.owner.model_group,
            version=version,
            is_approved=approved,
            changed_at=at,
            tenant_id="acme",
            data_set="churn",
            request_id=request.request_id,
            model_uri=f"s3://bucket/models/churn/{version}/model.tar.gz",
            image_uri="registry/image:1",
            is_pending=False,
            created_at=at,
        )
        return arn(version)

    def serve(self, **settings: Any) -> None:
        """Change how the tenant's models are served."""
        serving = ServingSettings(**settings)
        self.owner = self.tenants.put(replace(self.owner, settings=replace(self.owner.settings, serving=serving)))

    def deploy(self, version: int) -> VersionId | None:
        """Deploy a version, and return the one to deploy next."""
        started = self.deployment.begin(self.approve(version), RUN, NOW)
        assert started.begun is Begun.DEPLOY, started
        assert started.id is not None
        self.deployment.place(started.id)
        while not self.deployment.bring_up(started.id):
            pass
        self.deployment.test(started.id, NOW)
        return self.deployment.switch(started.id, RUN, NOW).following

    @property
    def alias(self) -> Alias:
        return self.deployment.aliases.get("acme", "churn")

    def version(self, number: int) -> ModelVersion:
        version = self.deployment.versions.get("acme", "churn", number)
        assert version is not None
        return version

    @property
    def placed(self) -> set[str]:
        return {target for _, target in self.models.placed}


def deleted(harness: Harness) -> None:
    """Delete the tenant, and what is served of it."""
    harness.tenants.put(replace(harness.owner, state=TenantState.DELETED))
    served = ServedModels(
        aliases=harness.deployment.aliases, versions=harness.deployment.versions, remove=harness.models.remove
    )
    served.forget("acme")


@pytest.mark.parametrize("step", ["begin", "place", "bring up", "test", "switch"])
def test_a_tenant_that_is_deleted_at_any_step_leaves_nothing(step: str) -> None:
    harness = Harness()
    package, wanted = harness.approve(7), VersionId("acme", "churn", 7)
    steps: dict[str, Callable[[], object]] = {
        "begin": lambda: harness.deployment.begin(package, RUN, NOW),
        "place": lambda: harness.deployment.place(wanted),
        "bring up": lambda: harness.deployment.bring_up(wanted),
        "test": lambda: harness.deployment.test(wanted, NOW),
        "switch": lambda: harness.deployment.switch(wanted, RUN, NOW),
    }
    for name, carry_out in steps.items():
        if name == step:
            # While the step is being carried out, or before it where it has no inside.
            inside = name in ("place", "test")
            harness.models.meanwhile = once(lambda: deleted(harness)) if inside else lambda: None
            if not inside:
                deleted(harness)
        with suppress(Refused):
            carry_out()
    with suppress(Refused):
        harness.deployment.fail(wanted, RUN, "it failed", NOW)
    assert harness.placed == set()
    assert list(harness.deployment.versions.of_tenant("acme")) == []
    assert list(harness.deployment.aliases.of_tenant("acme")) == []


def once(act: Callable[[], None]) -> Callable[[], None]:
    """Return what acts the first time that it is called."""
    left = [act]
    return lambda: left.pop()() if left else None


def test_a_tenant_that_is_deleted_after_its_model_has_answered_the_test_leaves_nothing() -> None:
    harness = Harness()
    harness.models.afterwards = once(lambda: deleted(harness))
    with pytest.raises(Refused, match="was removed with its tenant"):
        harness.deploy(7)
    assert list(harness.deployment.versions.of_tenant("acme")) == []


def test_a_version_that_is_taken_up_while_its_tenant_is_deleted_is_forgotten() -> None:
    harness = Harness()
    states = iter([TenantState.ACTIVE, TenantState.DELETING, TenantState.DELETING])

    class Deleting(MemoryTenants):
        def get(self, tenant_id: str) -> Tenant | None:
            return replace(harness.owner, state=next(states))

    harness.deployment = replace(harness.deployment, tenants=Deleting(harness.owner))
    harness.deployment.begin(harness.approve(7), RUN, NOW)
    assert list(harness.deployment.versions.of_tenant("acme")) == []
    assert list(harness.deployment.aliases.of_tenant("acme")) == []


def test_a_version_that_waits_and_cannot_be_deployed_names_the_next_one() -> None:
    harness = Harness()
    harness.deployment.begin(harness.approve(1), RUN, NOW)
    for version in (2, 3):
        harness.deployment.begin(harness.approve(version), f"run-{version}", NOW)
    assert harness.alias.waiting == 3
    following = harness.deployment.fail(VersionId("acme", "churn", 1), RUN, "it failed", NOW)
    assert following == VersionId("acme", "churn", 3)
    del harness.packages.packages[arn(3)]
    harness.approve(3, approved=False)
    started = harness.deployment.begin(arn(3), RUN, NOW)
    assert (started.begun, started.following) == (None, VersionId("acme", "churn", 2))
    assert harness.version(3).state is VersionState.REFUSED


def test_an_approved_version_answers_once_it_is_placed_tested_and_switched_to() -> None:
    harness = Harness()
    assert harness.deploy(7) is None
    assert answering(harness.alias, "any") == 7
    version = harness.version(7)
    assert (version.state, version.latency_ms, version.endpoint) == (VersionState.READY, 12, "shared-linear")
    assert harness.placed == {target(7)}
    assert harness.deployment.begin(arn(7), "run-2", NOW).begun is Begun.SERVED


def test_models_that_no_alias_names_are_removed() -> None:
    harness = Harness()
    for number in (1, 2, 3):
        harness.deploy(number)
    assert harness.placed == {target(2), target(3)}, "the previous one is kept"
    states = [(v.version, v.state) for v in harness.deployment.versions.of_data_set("acme", "churn")]
    assert states == [(3, VersionState.READY), (2, VersionState.READY), (1, VersionState.REMOVED)]


def test_a_version_that_answers_wrongly_is_given_up_and_nothing_changes() -> None:
    harness = Harness()
    harness.deploy(1)
    before = harness.alias
    harness.models.answers[2] = WRONG
    with pytest.raises(Refused, match="none of the classes"):
        harness.deploy(2)
    number = VersionId("acme", "churn", 2)
    with pytest.raises(Refused, match="has not passed its smoke test"):
        harness.deployment.switch(number, RUN, NOW)
    assert harness.deployment.fail(number, RUN, "smoke test: " + "x" * 900, after(9)) is None
    assert (harness.alias.live, harness.alias.withdrawn) == (before.live, {2: after(9)})
    version = harness.version(2)
    assert (version.state, len(version.reason or "")) == (VersionState.FAILED, 500)
    assert harness.placed == {target(1)}
    assert harness.deployment.fail(number, RUN, "again", after(10)) is None, "a repeated step"
    assert harness.deployment.begin(arn(2), "run-2", after(11)).begun is Begun.WITHDRAWN, "a late event"


def test_one_that_waits_is_deployed_next() -> None:
    harness = Harness()
    first = harness.deployment.begin(harness.approve(1), RUN, NOW)
    assert first.id is not None
    assert harness.deployment.begin(arn(1), "run-2", NOW).begun is Begun.IN_PROGRESS
    assert harness.deployment.begin(harness.approve(2), "run-3", NOW).begun is Begun.WAIT
    assert harness.version(2).state is VersionState.WAITING
    assert harness.deployment.fail(first.id, RUN, "any", NOW) == ("acme", "churn", 2)
    assert harness.deployment.begin(arn(2), "run-4", NOW).begun is Begun.DEPLOY


def test_a_version_whose_approval_is_taken_back_meanwhile_does_not_answer() -> None:
    harness = Harness()
    started = harness.deployment.begin(harness.approve(1), RUN, NOW)
    assert started.id is not None
    harness.deployment.begin(harness.approve(2), "run-2", NOW)
    harness.deployment.place(started.id)
    harness.deployment.test(started.id, NOW)
    for number in (1, 2):
        harness.approve(number, approved=False)
    with pytest.raises(Refused, match="taken back"):
        harness.deployment.switch(started.id, RUN, NOW)
    assert harness.deployment.fail(started.id, RUN, "any", NOW) == ("acme", "churn", 2)
    assert harness.deployment.begin(arn(2), "run-3", NOW).begun is None
    assert harness.version(2).state is VersionState.REFUSED
    assert harness.alias.waiting is None, "it holds up no other"


def test_one_that_gave_way_to_a_newer_one_is_deployed_if_that_fails() -> None:
    harness = Harness()
    for number, run in ((2, RUN), (3, "run-3"), (4, "run-4")):
        harness.deployment.begin(harness.approve(number), run, NOW)
    assert harness.alias.waiting == 4
    assert harness.deployment.fail(VersionId("acme", "churn", 2), RUN, "any", NOW) == ("acme", "churn", 4)
    harness.deployment.begin(arn(4), "run-5", NOW)
    assert harness.deployment.fail(VersionId("acme", "churn", 4), "run-5", "any", NOW) == ("acme", "churn", 3)


def test_a_live_version_stays_one_whatever_became_of_its_algorithm() -> None:
    harness = Harness()
    harness.deploy(1)
    changed = policies_in_force(harness.store, replace(LIMITS, algorithms={"linear": OWN}))
    harness.deployment = replace(harness.deployment, policies=changed)
    assert harness.deployment.begin(arn(1), "run-2", NOW).begun is Begun.SERVED
    assert harness.version(1).state is VersionState.READY


def break_archive(harness: Harness) -> None:
    harness.models.gone.add("s3://bucket/models/churn/1/model.tar.gz")


def break_endpoint(harness: Harness) -> None:
    harness.models.failure = "ResourceLimitExceeded: the account-level service limit"


def break_samples(harness: Harness) -> None:
    harness.samples.sample = None


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (break_archive, "there is no model at s3://bucket/models/churn/1/model.tar.gz"),
        (break_endpoint, "could not be brought up: ResourceLimitExceeded"),
        (break_samples, "kept no rows"),
    ],
)
def test_what_is_missing_is_named(break_it: Callable[[Harness], None], reason: str) -> None:
    harness = Harness()
    break_it(harness)
    with pytest.raises(Refused, match=reason):
        harness.deploy(1)
    harness.deployment.fail(VersionId("acme", "churn", 1), RUN, reason, NOW)
    assert (harness.alias.live, harness.placed) == (None, set())


OWN = Algorithm(name="own", code_uri="s3://bucket/code/abc")
IMAGE = Algorithm(name="image", training_image_uri="123456789012.dkr.ecr.us-east-1.amazonaws.com/own:1")


@pytest.mark.parametrize(
    ("algorithm", "reason"),
    [("own", "choose silo with real-time"), ("image", "choose silo with real-time"), ("removed", "not known")],
)
def test_code_that_is_not_the_providers_is_served_beside_nobody(algorithm: str, reason: str) -> None:
    harness = Harness(replace(LIMITS, algorithms={"own": OWN, "image": IMAGE}))
    started = harness.deployment.begin(harness.approve(1, algorithm=algorithm), RUN, NOW)
    assert started.begun is None
    assert reason in started.reason
    assert (harness.version(1).state, harness.alias.deploying) == (VersionState.REFUSED, None)


def test_a_tenant_that_trains_with_code_of_its_own_as_well_is_served_beside_nobody() -> None:
    other = TrainingSettings(algorithm="own", target="y")
    harness = Harness(replace(LIMITS, algorithms={"own": OWN}), tenant(data_sets={"another": other}))
    assert "code of its own" in harness.deployment.begin(harness.approve(1), RUN, NOW).reason


def test_a_model_under_a_tenants_own_key_is_copied_nowhere() -> None:
    harness = Harness(owner=tenant(key_arn="arn:aws:kms:us-east-1:123456789012:key/own"))
    started = harness.deployment.begin(harness.approve(1), RUN, NOW)
    assert "encrypted with its own key" in started.reason
    assert started.begun is None


def test_what_the_registry_says_now_counts() -> None:
    harness = Harness()
    assert "no model package" in harness.deployment.begin(arn(1), RUN, NOW).reason
    harness.approve(1, approved=False)
    assert harness.deployment.begin(arn(1), RUN, NOW).reason.startswith("it is not approved")
    suspended = Harness(owner=tenant(state=TenantState.SUSPENDED))
    assert suspended.deployment.begin(suspended.approve(1), RUN, NOW).reason == "tenant acme is not active"
    strange = Harness()
    package_arn = strange.approve(1)
    strange.packages.packages[package_arn] = replace(strange.packages.packages[package_arn], group="another")
    assert "not in the tenant's model group" in strange.deployment.begin(package_arn, RUN, NOW).reason
    with pytest.raises(Refused, match="never taken up"):
        harness.deployment.place(VersionId("acme", "churn", 1))


def test_a_run_gives_up_its_own_version_alone() -> None:
    harness = Harness()
    harness.deployment.begin(harness.approve(1), RUN, NOW)
    first = VersionId("acme", "churn", 1)
    harness.deployment.place(first)
    harness.deployment.fail(first, "another run", "any", NOW)
    assert (harness.placed, harness.version(1).state) == ({target(1)}, VersionState.DEPLOYING)
    harness.deployment.test(first, NOW)
    harness.deployment.switch(first, RUN, NOW)
    harness.approve(1, approved=False)
    assert harness.deployment.begin(arn(1), "run-9", NOW).begun is None
    assert harness.version(1).state is VersionState.READY, "it answers until it is rolled back"


def test_what_is_older_than_the_live_version_is_not_deployed_after_it() -> None:
    harness = Harness()
    harness.deploy(1)
    for number in (2, 3, 5):
        harness.deployment.begin(harness.approve(number), f"run-{number}", NOW)
    assert harness.deployment.fail(VersionId("acme", "churn", 2), "run-2", "any", NOW) == ("acme", "churn", 5)
    assert harness.deploy(5) is None
    assert (harness.alias.previous, harness.version(3).state) == (1, VersionState.WAITING)


# --- with everything that goes wrong ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InterruptedAliases(Aliases):
    """Aliases after whose changes others go on before the caller does."""

    meanwhile: Callable[[], None]

    def change(
        self, tenant_id: str, data_set: str, make: Callable[[Alias], Alias], now: datetime, reason: str = ""
    ) -> Alias:
        alias = Aliases.change(self, tenant_id, data_set, make, now, reason)
        self.meanwhile()
        return alias


class World:
    """Runs that die at any step or are repeated, an operator, and callers."""

    BAD, UNTESTABLE, GONE = frozenset({3, 6}), frozenset({2}), frozenset({5})

    def __init__(self, seed: int) -> None:
        self.draw, self.runs, self.seconds = Random(seed), count(), 0.0
        self.harness = Harness()
        aliases = InterruptedAliases(self.harness.store, lambda _: None, self.meanwhile)
        promoter = replace(self.harness.deployment.promoter, aliases=aliases)
        self.deployment = replace(self.harness.deployment, aliases=aliases, promoter=promoter)
        self.active: list[Iterator[Any]] = []
        self.approved = 0
        self.harness.models.meanwhile = self.meanwhile
        self.inside = False
        for number in self.UNTESTABLE:
            self.harness.models.answers[number] = WRONG
        for number in self.GONE:
            self.harness.models.gone.add(f"s3://bucket/models/churn/{number}/model.tar.gz")

    @property
    def now(self) -> datetime:
        return after(self.seconds)

    def run(self, package_arn: str) -> Iterator[None]:
        run = f"run-{next(self.runs)}"
        promotion = self.draw.choice([Promotion.DIRECT, *Promotion])
        self.harness.serve(canary_percent=self.draw.choice([10, 0]), promotion=promotion, test_minutes=5)
        started = self.deployment.begin(package_arn, run, self.now)
        yield
        if started.id is None:
            return
        if started.begun is Begun.DEPLOY:
            yield from self.deploy(started.id, run)
        elif started.is_judged:
            yield from self.judge(started.id)

    def deploy(self, number: VersionId, run: str) -> Iterator[None]:
        is_judged = False
        try:
            self.deployment.place(number)
            yield
            while not self.deployment.bring_up(number):
                yield
            self.deployment.test(number, self.now)
            yield
            is_judged, _, following = self.deployment.switch(number, run, self.now)
        except Refused as refusal:
            yield
            following = self.deployment.fail(number, run, str(refusal), self.now)
        yield
        if is_judged:
            yield from self.judge(number)
        else:
            self.follow(following)

    def judge(self, number: VersionId) -> Iterator[None]:
        judgement, following = Judgement.TESTING, None
        while judgement in (Judgement.TESTING, Judgement.BAKING):
            yield
            judgement, following = self.deployment.judge(number, self.now)
        self.follow(following)

    def follow(self, following: VersionId | None) -> None:
        if following is not None:
            self.active.append(self.run(arn(following.version)))

    def meanwhile(self) -> None:
        """Let other runs go on while one is inside a step."""
        if self.inside or self.draw.random() < 0.5:
            return
        self.inside = True
        for _ in range(self.draw.choice([1, 5, 40])):
            with suppress(ValueError):  # the run that is inside the step
                self.step()
        self.inside = False

    def operate(self) -> None:
        alias = self.harness.alias
        judged = [number for number in (alias.testing, alias.canary) if number is not None]
        with suppress(Refused):
            for number in [*judged, *([alias.live] if alias.live and alias.previous else [])]:
                if number in self.BAD:
                    self.roll_back(number)
                elif number == alias.testing:
                    self.deployment.promoter.release(self.harness.version(number), self.now)
                elif number == alias.canary:
                    self.deployment.promoter.promote(self.harness.version(number), self.now)

    def roll_back(self, number: int) -> None:
        change = self.deployment.aliases.change
        change("acme", "churn", lambda alias: rolled_back(alias, number, self.now), self.now)

    def call(self) -> None:
        alias = self.harness.alias
        for environment in Environment:
            version = answering(alias, f"{self.draw.random()}", environment)
            if version is None:
                continue
            assert version not in self.UNTESTABLE | self.GONE
            assert version not in alias.withdrawn
            assert target(version) in self.harness.placed, f"the model of {version} is gone"

    def step(self) -> None:
        self.seconds += self.draw.uniform(0, 30)
        what = self.draw.random()
        if what < 0.08 and self.approved < 8:
            self.approved += 1
            package_arn = self.harness.approve(self.approved, at=self.now)
            self.active += [self.run(package_arn) for _ in range(self.draw.choice([1, 1, 2]))]
        elif what < 0.12 and self.approved:
            self.active.append(self.run(arn(self.draw.randint(1, self.approved))))
        elif what < 0.6 and self.active:
            chosen = self.draw.choice(self.active)
            if (self.draw.random() < 0.02 and not self.inside) or next(chosen, "ended") == "ended":
                self.active.remove(chosen)
        elif what < 0.68:
            self.operate()
        else:
            self.call()

    def rest(self) -> None:
        """Let what died be abandoned, and tell all approvals once more, one after the other."""
        self.inside = True
        for _ in range(3):
            self.seconds += ABANDONED_AFTER.total_seconds() + 1
            self.active = [self.run(arn(number)) for number in range(1, self.approved + 1)]
            while self.active:
                chosen = self.active[0]
                if next(chosen, "ended") == "ended":
                    self.active.remove(chosen)
                self.operate()


@pytest.mark.parametrize("seed", range(40))
def test_what_answers_is_there_was_tested_and_is_the_newest_good_version_at_rest(seed: int) -> None:
    world = World(seed)
    for _ in range(500):
        world.step()
    world.rest()
    world.call()
    alias = world.harness.alias
    good = set(range(1, world.approved + 1)) - world.BAD - world.UNTESTABLE - world.GONE
    if good:
        assert alias.live in good
        assert (alias.testing, alias.canary, alias.deploying, alias.waiting) == (None,) * 4
    kept = {target(v) for v in (alias.live, alias.previous) if v is not None}
    assert kept <= world.harness.placed
