"""Caps that yield: the shipped policy, and the same one with hard caps, on the same arrivals.

Eighty requests an hour in each tier from four tenants each, exponential runtimes of 300 s in the mean, twenty data
sets a tenant: as much work as the account has slots, but more than the caps of basic's tenants let through.
Measured while work arrives, after the first hour.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from multiprocessing import get_context
from random import Random

from simulation.flow import Flow, Job, Run
from trainyard.contracts.compiled_policy import DEPLOYED
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.policy import Policy

HOURS = 12
PER_HOUR, TENANTS, DATA_SETS = 80, 4, 20
MEAN_SECONDS = 300.0
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Trial:
    """One day under one of the two policies; times in seconds."""

    how: str
    seed: int
    use: float
    """Share of slot time in which executions ran while work arrived."""
    waits: dict[str, tuple[float, float]]
    """Tier → p50 and p95 of the requests that arrived, of those that had not started until now so far."""
    above_cap: int
    later: float
    """Share of requests that start more than a minute later than with hard caps."""


def arrivals(policy: Policy, seed: int) -> list[Job]:
    random = Random(f"caps {seed}")
    jobs: list[Job] = []
    for tier in policy.tiers:
        at = random.expovariate(PER_HOUR / 3600)
        while at < HOURS * 3600:
            tenant = f"{tier.name}-{random.randrange(TENANTS)}"
            seconds = max(random.expovariate(1 / MEAN_SECONDS), 1.0)
            data_set = f"set-{random.randrange(DATA_SETS)}"
            jobs.append(Job(len(jobs), at, tenant, tier.name, seconds, data_set=data_set))
            at += random.expovariate(PER_HOUR / 3600)
    return sorted(jobs, key=lambda job: job.arrives)


def with_hard_caps(policy: Policy) -> Policy:
    tiers = (replace(tier, running_ceiling_per_tenant=tier.running_max_per_tenant) for tier in policy.tiers)
    return replace(policy, tiers=tuple(tiers))


def trials(seed: int) -> list[Trial]:
    """Return a day with hard caps and with caps that yield."""
    shipped = parse_policy(DEPLOYED.read_text(encoding="utf-8"), 0)
    jobs = arrivals(shipped, seed)
    hard = Flow(with_hard_caps(shipped)).run(jobs, until=HOURS * 3600)
    yields = Flow(shipped).run(jobs, until=HOURS * 3600)
    starts = {run.job.number: run.starts for run in hard}
    end = HOURS * 3600.0
    late = sum(run.starts > starts.get(run.job.number, end) + 60 for run in yields)
    return [
        _trial("hard caps", seed, shipped, jobs, hard, 0.0),
        _trial("caps that yield", seed, shipped, jobs, yields, late / len(jobs)),
    ]


def _trial(how: str, seed: int, policy: Policy, jobs: list[Job], runs: list[Run], later: float) -> Trial:
    begin, end = 3600.0, HOURS * 3600.0
    busy = sum(max(min(run.ends, end) - max(run.starts, begin), 0.0) for run in runs)
    started = {run.job.number: run.starts for run in runs}
    waits: dict[str, list[float]] = {}
    for job in jobs:
        if job.arrives >= begin:
            waits.setdefault(job.tier, []).append(started.get(job.number, end) - job.arrives)
    return Trial(
        how=how,
        seed=seed,
        use=busy / (policy.running_max * (end - begin)),
        waits={tier: (_quantile(values, 0.5), _quantile(values, 0.95)) for tier, values in waits.items()},
        above_cap=sum(run.above_cap for run in runs),
        later=later,
    )


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def measure(seeds: Iterable[int] = SEEDS) -> list[Trial]:
    with get_context("spawn").Pool(2) as pool:
        return [trial for pair in pool.imap(trials, seeds) for trial in pair]
