"""Scenarios: a small service, its tenants and events, all generated from a seed."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

from simulation.clock import BEGIN
from testing.service import PRICES
from trainyard.domain.algorithms import InstanceChoice
from trainyard.domain.policy import Budget, BudgetMode, Policy, Retries, TenantPolicy, TierPolicy
from trainyard.domain.requests import Content
from trainyard.domain.retraining import RetrainingSettings
from trainyard.domain.tenants import Tenant, TenantState, TrainingSettings, TrainOn
from trainyard.domain.windows import Once, Weekly, Window

TIERS = ("basic", "standard", "premium")
SMALL_MB, LARGE_MB = 10, 1000
MB = 1024 * 1024
POOL = "training/ml.m5.large"
FALLBACK_POOL = "training/ml.m5.xlarge"
SPOT_POOL = "spot/ml.m5.large"


@dataclass(frozen=True)
class Upload:
    at: datetime
    content: Content


@dataclass(frozen=True)
class Step:
    """An operator's action."""

    at: datetime
    what: str
    """"policy", "pause", "resume", "pause tenant", "resume tenant", "stop", "retrain", "expedite", "unmanaged",
    "drift"."""
    subject: str = ""
    number: int = 0


@dataclass
class Scenario:
    seed: int
    policies: list[Policy]
    """The first one is in force from the beginning; steps apply the others."""
    tenants: list[Tenant]
    uploads: list[Upload]
    steps: list[Step]
    sagemaker_quota: int
    outages: list[tuple[datetime, datetime]] = field(default_factory=list)
    """Periods in which the dispatcher does not run at all."""
    skew_seconds: float = 0.0
    index_lag: int = 0
    index_lag_seconds: float = 60.0
    """The longest lag of a global index, however few transactions follow."""
    narrow: bool = False
    """Whether the limits in bytes of transactions and pages are reduced."""
    older_code: bool = False
    """Whether a deployment is in progress: some passes run the previous code."""
    hours: float = 1.5
    past: list[tuple[str, str, int]] = field(default_factory=list)
    """Tenant, data set, and the seconds that each of its runs took before the scenario."""


def _with_rules(tenants: list[Tenant], random: Random) -> list[Tenant]:
    """Return tenants of which, in some scenarios, some collect uploads or keep an interval between trainings."""
    if random.random() < 0.7:
        return tenants
    rules = [
        RetrainingSettings(),
        RetrainingSettings(interval_minutes=random.choice([3, 10])),
        RetrainingSettings(files=random.choice([2, 3]), delay_max_minutes=10),
        RetrainingSettings(files=2, interval_minutes=5, delay_max_minutes=5),
    ]
    chosen = [(each, random.choice(rules)) for each in tenants]
    return [each if each.settings.every_upload else _ruled(each, retraining) for each, retraining in chosen]


def _ruled(each: Tenant, retraining: RetrainingSettings) -> Tenant:
    own = {name: replace(settings, retraining=retraining) for name, settings in each.data_sets.items()}
    return replace(each, settings=replace(each.settings, retraining=retraining), data_sets=own)


def choices(large: int, training: tuple[str, ...] = ("ml.m5.large",)) -> tuple[InstanceChoice, ...]:
    """Return one small choice, and one of `large` instances of the same types."""
    return tuple(
        InstanceChoice(
            data_mb_max=size,
            processing_instance_type="ml.t3.medium",
            training_instance_types=training,
            training_instance_count=count,
            training_volume_gb=30,
        )
        for size, count in ((SMALL_MB, 1), (LARGE_MB, large))
    )


def tenant(tenant_id: str, tier: str, random: Random, hurry: Random) -> Tenant:
    settings = TrainingSettings(
        algorithm="linear",
        target="y",
        train_on=random.choice([TrainOn.NEWEST_OBJECT, TrainOn.NEWEST_OBJECT, TrainOn.WHOLE_PREFIX]),
        every_upload=random.random() < 0.15,
        ready_by=hurry.choice(["", "", f"00:{hurry.randrange(10, 60)} UTC", "03:10 Europe/Zurich"]),
        priority=hurry.choice([0, 0, 0, 1]),
    )
    other = replace(settings, ready_by="", priority=hurry.choice([0, 0, 5]))
    return Tenant(
        tenant_id=tenant_id,
        state=TenantState.ACTIVE,
        tier=tier,
        bucket=f"bucket-{tenant_id}",
        root="",
        role_arn=f"arn:role/{tenant_id}",
        model_group=tenant_id,
        settings=settings,
        data_sets={"set2": other} if hurry.random() < 0.5 else {},
    )


def draw(seed: int) -> Scenario:
    """Generate a scenario; the same seed always gives the same one."""
    random = Random(seed)
    hours = 1.5
    names = TIERS[: random.choice([1, 2, 2, 3])]
    hurry = Random(f"{seed} hurry")
    count = random.choice([2, 3, 4, 6])
    tenants = [tenant(f"t{number}", random.choice(names), random, hurry) for number in range(count)]
    first = _with_ceilings(_policy(random, names, tenants), Random(f"{seed} ceilings"))
    first = _with_windows(first, Random(f"{seed} windows"))
    first = _with_fallbacks(first, Random(f"{seed} fallbacks"))
    first = _with_spot(first, Random(f"{seed} spot"))
    policies = [first, *(_changed(first, random) for _ in range(random.choice([0, 1, 2])))]
    tenants = _with_rules(tenants, Random(f"{seed} rules"))
    scenario = Scenario(
        seed=seed,
        policies=policies,
        tenants=tenants,
        uploads=_uploads(random, tenants, hours),
        steps=_steps(random, tenants, len(policies), hours),
        sagemaker_quota=max(map(_slots_most, policies)) + random.choice([0, 0, 3]),
        skew_seconds=random.choice([0, 0, 60, 180]),
        index_lag=random.choice([0, 2, 8]),
        index_lag_seconds=Random(f"{seed} index").choice([5.0, 60.0, 900.0]),
        narrow=Random(f"{seed} narrow").random() < 0.2,
        older_code=random.random() < 0.25,
        hours=hours,
    )
    before = Random(f"{seed} before")
    for owner in tenants:
        for data_set in ("set1", "set2"):
            if before.random() < 0.4:
                scenario.past.append((owner.tenant_id, data_set, before.choice([120, 600, 3000])))
    hurried = Random(f"{seed} expedite")
    for _ in range(hurried.choice([0, 0, 3])):
        at = BEGIN + timedelta(minutes=hurried.uniform(2, hours * 40))
        scenario.steps.append(Step(at, "expedite", hurried.choice(tenants).tenant_id))
    if random.random() < 0.3:
        begin = BEGIN + timedelta(minutes=random.uniform(5, 60))
        scenario.outages.append((begin, begin + timedelta(minutes=random.uniform(3, 40))))
    return scenario


def _slots_most(policy: Policy) -> int:
    """Return the account's slots at the hours at which they are most."""
    return int(max([policy.running_max, *(window.limits.get("running_max", 0) for window in policy.windows)]))


def _policy(random: Random, names: tuple[str, ...], tenants: list[Tenant]) -> Policy:
    running_max = random.choice([2, 3, 4, 6])
    tiers = []
    for name in names:
        quota = random.randint(1, max(1, running_max // len(names) + 1))
        quota = min(quota, running_max)
        tiers.append(
            TierPolicy(
                name=name,
                quota=quota,
                borrowing_limit=random.randint(0, running_max - quota),
                lending_limit=random.randint(0, int(0.8 * quota)),
                running_max_per_tenant=random.choice([1, 2, 4]),
                runtime_max=timedelta(minutes=random.choice([4, 10, 30])),
                hold_age=timedelta(minutes=random.choice([1, 5])),
                quality_min=0.5,
                instances=choices(random.choice([2, 3])),
                budget=_budget(random, "0.1", "0.25", "0.8") if random.random() < 0.5 else None,
            )
        )
    quotas = {POOL: random.choice([3, 4])} if random.random() < 0.6 else {}
    windows: tuple[Window, ...] = ()
    if random.random() < 0.2:
        begins = BEGIN + timedelta(minutes=random.uniform(10, 60))
        closed = {name: {"closed": True} for name in names}
        windows = (Window(name="closed", when=Once(begins, begins + timedelta(minutes=15)), tiers=closed),)
    return Policy(
        version=0,
        running_max=running_max,
        quiet_period=timedelta(seconds=random.choice([0, 5, 60])),
        delay_max=timedelta(minutes=5),
        start_retry_delay=timedelta(seconds=60),
        starts_per_second=random.choice([None, None, 0.05]),
        starts_burst=2,
        instance_quotas=quotas,
        tenants={t.tenant_id: _tenant_policy(random) for t in tenants if random.random() < 0.4},
        windows=windows,
        retries=Retries(attempts_max=3, delay=timedelta(minutes=1)),
        prices=PRICES,
        tiers=tuple(tiers),
    )


def _with_ceilings(policy: Policy, random: Random) -> Policy:
    """Return a policy under which some tiers' tenants have a ceiling of their own."""
    tiers = (
        replace(tier, running_ceiling_per_tenant=tier.running_max_per_tenant + random.choice([0, 1, 3]))
        if random.random() < 0.5
        else tier
        for tier in policy.tiers
    )
    return replace(policy, tiers=tuple(tiers))


def _with_windows(policy: Policy, random: Random) -> Policy:
    """Return a policy whose limits change with the hour, in some scenarios."""
    windows = list(policy.windows)
    for number in range(random.choice([0, 0, 1, 2])):
        begins = BEGIN + timedelta(minutes=random.randrange(5, 60))
        ends = begins + timedelta(minutes=random.choice([10, 25, 60]))
        when: Once | Weekly = Once(begins, ends)
        if random.random() < 0.5:
            nights = (ends.date() - begins.date()).days
            when = Weekly(tuple(range(7)), begins.time(), ends.time(), nights, "UTC")
        running_max = random.choice([policy.running_max, policy.running_max + 2])
        tiers = {}
        for tier in random.sample(policy.tiers, random.randint(1, len(policy.tiers))):
            quota = random.randint(1, running_max)
            tiers[tier.name] = {
                "quota": quota,
                "borrowing_limit": random.randint(0, running_max - quota),
                "lending_limit": random.randint(0, int(0.8 * quota)),
                "running_max_per_tenant": random.choice([1, 2, 4]),
            }
        quotas = {POOL: random.choice([2, 5])} if policy.instance_quotas and random.random() < 0.5 else {}
        limits = {"running_max": running_max}
        windows.append(
            Window(name=f"window {number}", when=when, limits=limits, instance_quotas=quotas, tiers=tiers)
        )
    return replace(policy, windows=tuple(windows))


def _with_fallbacks(policy: Policy, random: Random) -> Policy:
    """Return a policy under which the runs of some tiers may get one of two instance types."""
    if random.random() < 0.6:
        return policy
    types = random.choice([("ml.m5.large", "ml.m5.xlarge"), ("ml.m5.xlarge", "ml.m5.large")])
    tiers = tuple(
        replace(tier, instances=choices(tier.instances[-1].training_instance_count, types))
        if random.random() < 0.7
        else tier
        for tier in policy.tiers
    )
    quotas = {**policy.instance_quotas, FALLBACK_POOL: random.choice([3, 5])} if policy.instance_quotas else {}
    return replace(policy, tiers=tiers, instance_quotas=quotas)


def _with_spot(policy: Policy, random: Random) -> Policy:
    """Return a policy under which the first attempts of some tiers train on spot capacity."""
    if random.random() < 0.6:
        return policy
    tiers = tuple(
        replace(tier, spot=True, spot_wait=timedelta(minutes=random.choice([2, 15])))
        if random.random() < 0.7 and all(len(choice.training_instance_types) == 1 for choice in tier.instances)
        else tier
        for tier in policy.tiers
    )
    quotas = {**policy.instance_quotas, SPOT_POOL: random.choice([3, 5])} if policy.instance_quotas else {}
    return replace(policy, tiers=tiers, instance_quotas=quotas)


def _tenant_policy(random: Random) -> TenantPolicy:
    return TenantPolicy(
        weight=random.choice([1, 2, 3]),
        running_max=random.choice([None, 1, 2]),
        budget=_budget(random, "0.06", "0.2", "0.6"),
    )


def _budget(random: Random, *amounts: str) -> Budget | None:
    limit = random.choice([None, *amounts])
    mode = random.choice([BudgetMode.HARD, BudgetMode.HARD, BudgetMode.SOFT])
    return None if limit is None else Budget(Decimal(limit), mode)


def _raised(budget: Budget | None, by: str) -> Budget | None:
    return budget and replace(budget, limit_usd=budget.limit_usd + Decimal(by))


def _changed(policy: Policy, random: Random) -> Policy:
    """Return a policy with other limits: raised, or lowered below what is running."""
    running_max = max(1, policy.running_max + random.choice([-2, -1, 1, 2]))
    tiers = []
    for tier in policy.tiers:
        quota = min(max(1, tier.quota + random.choice([-1, 0, 1])), running_max)
        tiers.append(
            replace(
                tier,
                quota=quota,
                borrowing_limit=random.randint(0, running_max - quota),
                lending_limit=random.randint(0, int(0.8 * quota)),
                budget=_raised(tier.budget, "0.2"),
            )
        )
    tenants = {
        tenant_id: replace(entry, budget=_raised(entry.budget, "0.1"))
        for tenant_id, entry in policy.tenants.items()
    }
    return replace(policy, running_max=running_max, tiers=tuple(tiers), tenants=tenants)


def _uploads(random: Random, tenants: list[Tenant], hours: float) -> list[Upload]:
    found: list[Upload] = []
    sequence = 0
    for number in range(random.randint(8, 26)):
        owner = random.choice(tenants)
        at = BEGIN + timedelta(seconds=random.uniform(0, hours * 2400))
        if random.random() < 0.4 and found:
            at = found[-1].at + timedelta(seconds=random.uniform(0, 20))
        sequence += random.randint(1, 5)
        size = random.uniform(0.1, SMALL_MB) if random.random() < 0.8 else random.uniform(SMALL_MB, LARGE_MB)
        found.append(
            Upload(
                at,
                Content(
                    bucket=owner.bucket,
                    key=f"incoming/set{random.choice([1, 1, 2])}/{random.choice('aab')}.csv",
                    version_id=f"v{number}",
                    etag=f"{number:032x}",
                    sequencer=f"{sequence:06X}",
                    size_bytes=int(size * MB),
                    event_time=at.replace(microsecond=0) + timedelta(seconds=random.choice([0, 0, 0, -3, 3])),
                ),
            )
        )
    return found


def _steps(random: Random, tenants: list[Tenant], policies: int, hours: float) -> list[Step]:
    def some_time() -> datetime:
        return BEGIN + timedelta(minutes=random.uniform(2, hours * 50))

    steps = [Step(some_time(), "policy", number=number) for number in range(1, policies)]
    for what, chance in (("stop", 0.5), ("stop", 0.5), ("retrain", 0.4), ("unmanaged", 0.3), ("drift", 0.25)):
        if random.random() < chance:
            steps.append(Step(some_time(), what, random.choice(tenants).tenant_id, random.randint(1, 2)))
    for what in ("", " tenant", " tier"):
        if random.random() < 0.2:
            at, subject = some_time(), random.choice(tenants)
            name = subject.tier if what == " tier" else subject.tenant_id
            steps.append(Step(at, f"pause{what}", name))
            steps.append(Step(at + timedelta(minutes=random.uniform(1, 15)), f"resume{what}", name))
    return steps
