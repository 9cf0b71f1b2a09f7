"""The designs, with the same workload, latencies and faults.

A workload of size N has three tiers with 50, 30 and 20 % of the slots: in basic, four tenants with unequal weights
and durations always have a backlog, and one has few requests; standard is loaded to six tenths by six tenants;
premium is idle in every other half hour and overloaded by a fifth in between. After the horizon, nothing more
arrives, faults end, and each design has an hour to run the waiting requests.
"""

from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from random import Random
from statistics import fmean
from typing import Any

from benchmarks.designs.batch import Batch
from benchmarks.designs.blog import Blog
from benchmarks.designs.counter import Counter
from benchmarks.designs.ours import CHOICE, Ours
from benchmarks.designs.round_robin import RoundRobin
from benchmarks.designs.semaphore import Semaphore
from benchmarks.harness import CALM, TROUBLED, Faults, Harness
from simulation.flow import Job
from trainyard.domain.policy import Policy, TenantPolicy, TierPolicy

SHARES = {"basic": 0.5, "standard": 0.3, "premium": 0.2}
BACKLOG = {"deep-1": (1, 120.0), "deep-2": (1, 300.0), "deep-3": (2, 600.0), "deep-4": (3, 900.0)}
"""Tenant of basic → weight and mean seconds of an execution."""
LONGEST = 3600.0
HORIZONS = {20: 4 * 3600.0, 200: 3 * 3600.0, 2000: 1.25 * 3600.0}
DRAIN_SECONDS = 3600.0
LAST_LOOKS, LOOK_SECONDS = 30, 31.0
MEMORY_GB = 0.5
USD = {
    "read unit": 0.125e-6,
    "write unit": 0.625e-6,
    "SQS request": 0.40e-6,
    "state transition": 25e-6,
    "invocation": 0.20e-6,
    "GB-second": 13.3334e-6,
}
"""List prices of us-east-1, arm64, on demand (AWS price pages, 2026)."""
DESIGNS = ("trainyard", "blog", "counter", "semaphore", "batch", "round robin")


@dataclass(frozen=True)
class Load:
    slots: int
    horizon: float
    jobs: list[Job]
    quotas: dict[str, int]

    @property
    def tenants(self) -> list[tuple[str, str]]:
        return sorted({(job.tenant_id, job.tier) for job in self.jobs})


def load(slots: int, seed: int) -> Load:
    """Generate a workload of a size."""
    random = Random(f"work {slots} {seed}")
    horizon = HORIZONS[slots]
    quotas = {tier: max(1, round(share * slots)) for tier, share in SHARES.items()}
    jobs: list[Job] = []

    def add(at: float, tenant: str, tier: str, mean: float) -> float:
        seconds = min(max(random.lognormvariate(0, 0.5) * mean * 0.88, 20.0), LONGEST)
        # Each tenant has five data sets, which are trained on again and again: their history is known.
        jobs.append(Job(len(jobs), at, tenant, tier, seconds, data_set=f"set-{len(jobs) % 5}"))
        return seconds

    weights = sum(weight for weight, _ in BACKLOG.values())
    for tenant, (weight, mean) in BACKLOG.items():
        # Twice as much as a fair share of all slots that basic may hold could run.
        wanted, done, at = 2.0 * slots * weight / weights * horizon, 0.0, 0.0
        while done < wanted:
            done += add(at, tenant, "basic", mean)
            at += 0.02
    for tier, tenants, rate, length in (
        ("basic", ["light"], 0.05 * quotas["basic"], 180.0),
        ("standard", [f"s{n}" for n in range(6)], 0.6 * quotas["standard"], 400.0),
        ("premium", [f"p{n}" for n in range(4)], 1.2 * quotas["premium"], 300.0),
    ):
        at = 0.0
        while at < horizon:
            at += random.expovariate(rate / length)
            if tier != "premium" or int(at / 1800) % 2:
                add(at, random.choice(tenants), tier, length)
    jobs.sort(key=lambda job: (job.arrives, job.number))
    return Load(slots, horizon, jobs, quotas)


def policy(work: Load) -> Policy:
    tiers = tuple(
        TierPolicy(
            name=tier,
            quota=quota,
            borrowing_limit=work.slots - quota,
            lending_limit=int(0.8 * quota),
            running_max_per_tenant=work.slots,
            runtime_max=timedelta(seconds=LONGEST),
            hold_age=timedelta(minutes=15),
            quality_min=0.5,
            instances=(CHOICE,),
        )
        for tier, quota in work.quotas.items()
    )
    return Policy(
        version=0,
        running_max=work.slots,
        quiet_period=timedelta(0),
        delay_max=timedelta(0),
        start_retry_delay=timedelta(seconds=60),
        tiers=tiers,
        tenants={tenant: TenantPolicy(weight=weight) for tenant, (weight, _) in BACKLOG.items()},
    )


@dataclass(frozen=True)
class Result:
    """The results of one design with one load."""

    design: str
    slots: int
    troubled: bool
    seed: int
    use: float
    """Share of slot time in which executions ran, from the first tenth of the horizon to its end."""
    waits: dict[str, tuple[float, float, float]]
    """Tier → p50, p95 and longest wait time in seconds, of tenants without a backlog."""
    jain: float
    """Weighted Jain index of the slot time of basic's backlogged tenants."""
    overshoot: int
    """The largest number of executions above the account's slots."""
    tier_overshoot: int
    """… above a tier's limit."""
    leaked: int
    """Slots that are counted as taken at the end without an execution (or the other way round)."""
    doubled: int
    """Executions of a request beyond the first."""
    lost: int
    """Requests that never ran and are not waiting."""
    stuck: int
    """Requests that are still waiting at the end although slots are free."""
    starts: int
    calls_per_start: float
    lists_per_start: float
    calls: dict[str, int]
    usd: dict[str, float]
    """AWS service → USD per 1,000 starts, of the scheduler itself."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def build(design: str, harness: Harness, work: Load) -> Any:
    weights = {tenant: weight for tenant, (weight, _) in BACKLOG.items()}
    quotas = work.quotas
    makers: dict[str, Callable[[], Any]] = {
        "trainyard": lambda: Ours(harness, policy(work), work.tenants),
        "blog": lambda: Blog(harness, quotas, LONGEST),
        "counter": lambda: Counter(harness, quotas),
        "semaphore": lambda: Semaphore(harness, quotas),
        "batch": lambda: Batch(harness, quotas, weights),
        "round robin": lambda: RoundRobin(harness, quotas, weights),
    }
    return makers[design]()


def run(design: str, slots: int, troubled: bool, seed: int) -> Result:
    """Run a design with a load."""
    work = load(slots, seed)
    harness = Harness(faults=TROUBLED if troubled else CALM, seed=seed)
    service = build(design, harness, work)
    for job in work.jobs:
        harness.agenda.after(job.arrives, lambda job=job: service.submit(job))  # type: ignore[misc]
    harness.run_until(work.horizon)
    if isinstance(service, Semaphore):
        service.settle()
    ran = list(harness.executions)
    billed = bill(design, harness, service, len(ran))
    counted = Counts(harness.calls)
    harness.faults, harness.troubled = Faults(), False
    harness.run_until(work.horizon + DRAIN_SECONDS - LAST_LOOKS * LOOK_SECONDS)
    leaked = []
    for look in range(LAST_LOOKS):  # changes in progress are not leaks
        harness.run_until(work.horizon + DRAIN_SECONDS - (LAST_LOOKS - 1 - look) * LOOK_SECONDS)
        leaked.append(abs(service.leaked()))
    return measured(design, work, harness, service, troubled, seed, counted, ran, min(leaked), billed)


def run_task(task: tuple[str, int, bool, int]) -> dict[str, Any]:
    """Run a design with a number of slots, with or without faults, and a seed: for a pool of processes."""
    design, slots, troubled, seed = task
    return run(design, slots, troubled, seed).as_json()


def together(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over the seeds of one design, size and fault setting; the worst value of what must be 0."""

    def over(name: str, combine: Callable[[list[float]], float]) -> float:
        return combine([one[name] for one in trials])

    uses = [one["use"] for one in trials]
    return {
        **{name: trials[0][name] for name in ("design", "slots", "troubled")},
        "seeds": sorted(one["seed"] for one in trials),
        "use_spread": max(uses) - min(uses),
        **{name: over(name, fmean) for name in ("use", "jain", "starts", "calls_per_start", "lists_per_start")},
        **{name: over(name, max) for name in WORST},
        "waits": {tier: _means([one["waits"][tier] for one in trials]) for tier in SHARES},
        **{name: _mean_of(name, trials) for name in ("calls", "usd")},
    }


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(column) for column in zip(*rows, strict=True)]


WORST = ("overshoot", "tier_overshoot", "leaked", "doubled", "lost", "stuck")
"""The figures of which the worst trial is shown."""


def _mean_of(name: str, trials: Sequence[dict[str, Any]]) -> dict[str, float]:
    keys = {key for one in trials for key in one[name]}
    return {key: round(fmean(one[name].get(key, 0) for one in trials), 5) for key in sorted(keys)}


def bill(design: str, harness: Harness, service: Any, starts: int) -> dict[str, float]:
    """Return AWS service → USD per 1,000 starts, from the counted calls and list prices."""
    calls = harness.calls
    read, write = float(calls["dynamodb:GetItem"]), float(calls["dynamodb:UpdateItem"])
    if isinstance(service, Ours):
        read, write = service.store.read_units, service.store.write_units
    usd = {
        "DynamoDB": read * USD["read unit"] + write * USD["write unit"],
        "SQS": sum(n for name, n in calls.items() if name.startswith("sqs:")) * USD["SQS request"],
        "Step Functions": calls["states:StateTransition"] * USD["state transition"],
    }
    if design in ("trainyard", "blog", "counter"):
        usd["Lambda"] = harness.invocations * USD["invocation"] + harness.busy * MEMORY_GB * USD["GB-second"]
    return {name: round(1000 * amount / max(starts, 1), 5) for name, amount in usd.items() if amount}


def measured(
    design: str,
    work: Load,
    harness: Harness,
    service: Any,
    troubled: bool,
    seed: int,
    counted: Counts[str],
    ran: list[Any],
    leaked: int,
    billed: dict[str, float],
) -> Result:
    begin, end = 0.1 * work.horizon, work.horizon
    zero = harness.agenda.now - timedelta(seconds=work.horizon + DRAIN_SECONDS)

    def within(execution: Any) -> float:
        first: float = (execution.begins - zero).total_seconds()
        last: float = (execution.ends - zero).total_seconds()
        return max(min(last, end) - max(first, begin), 0.0)

    used: dict[str, float] = defaultdict(float)
    for execution in ran:
        used[execution.job.tenant_id] += within(execution)
    shares = [used[tenant] / weight for tenant, (weight, _) in BACKLOG.items()]
    first: dict[int, Any] = {}
    for execution in harness.executions:
        first.setdefault(execution.job.number, execution)
    waits = {
        tier: _waits(
            [
                (first[job.number].begins - zero).total_seconds() - job.arrives
                if job.number in first
                else work.horizon + DRAIN_SECONDS - job.arrives
                for job in work.jobs
                if job.tier == tier and job.tenant_id not in BACKLOG
            ]
        )
        for tier in work.quotas
    }
    waiting = service.waiting()
    borrowing = design == "trainyard"
    tier_over = max(
        harness.peaks[tier] - (work.slots if borrowing else quota) for tier, quota in work.quotas.items()
    )
    starts = len(ran)
    never = len(work.jobs) - len(first)
    free = any(harness.running[tier] < quota for tier, quota in work.quotas.items())
    return Result(
        design=design,
        slots=work.slots,
        troubled=troubled,
        seed=seed,
        use=sum(used.values()) / (work.slots * (end - begin)),
        waits=waits,
        jain=sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares)),
        overshoot=max(harness.peaks[""] - work.slots, 0),
        tier_overshoot=max(tier_over, 0),
        leaked=leaked,
        doubled=len(harness.executions) - len(first),
        lost=max(never - waiting, 0),
        stuck=waiting if free and harness.running[""] == 0 else 0,
        starts=starts,
        calls_per_start=sum(counted.values()) / max(starts, 1),
        lists_per_start=counted["sagemaker:ListPipelineExecutions"] / max(starts, 1),
        calls=dict(sorted(counted.items())),
        usd=billed,
    )


def _waits(waits: list[float]) -> tuple[float, float, float]:
    ordered = sorted(waits)
    last = len(ordered) - 1
    return (round(ordered[int(0.5 * last)], 1), round(ordered[int(0.95 * last)], 1), round(ordered[-1], 1))
