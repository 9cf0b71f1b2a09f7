"""Deadlines: the same arrivals with deadlines that the scheduler knows, and with deadlines that it does not know.

One tenant with four slots and twelve data sets, lognormal runtimes around a mean for each data set, half an hour
on average. Every second request has a deadline, one to eight hours after its arrival. Ten days at each load.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing import get_context
from random import Random

from benchmarks.designs.ours import CHOICE
from simulation.flow import Flow, Job, Run
from trainyard.domain.policy import Policy, TierPolicy

SLOTS, DATA_SETS, DAYS = 4, 12, 10
MEAN_SECONDS = 1800.0
LOADS = (0.8, 0.95, 1.1)


@dataclass(frozen=True)
class Trial:
    how: str
    load: float
    met: float
    """Share of the requests with a deadline that ended in time."""
    waits: tuple[float, float, float]
    """p50, p95 and longest wait in hours of the requests without one; those still waiting at the end included."""


def policy() -> Policy:
    tier = TierPolicy(
        name="basic",
        quota=SLOTS,
        running_max_per_tenant=SLOTS,
        runtime_max=timedelta(hours=6),
        quality_min=0.5,
        instances=(CHOICE,),
    )
    return Policy(
        version=0,
        running_max=SLOTS,
        quiet_period=timedelta(0),
        delay_max=timedelta(0),
        start_retry_delay=timedelta(seconds=60),
        tiers=(tier,),
    )


def arrivals(load: float) -> list[Job]:
    random = Random(f"deadlines {load}")
    means = [MEAN_SECONDS * random.uniform(0.3, 1.7) for _ in range(DATA_SETS)]
    jobs: list[Job] = []
    at = 0.0
    while at < DAYS * 86_400:
        data_set = random.randrange(DATA_SETS)
        seconds = means[data_set] * random.lognormvariate(-0.045, 0.3)
        ready_by = at + random.uniform(1, 8) * 3600 if random.random() < 0.5 else None
        jobs.append(Job(len(jobs), at, "acme", "basic", seconds, data_set=f"set-{data_set}", ready_by=ready_by))
        at += random.expovariate(load * SLOTS / MEAN_SECONDS)
    return jobs


def trials(load: float) -> list[Trial]:
    jobs, end = arrivals(load), DAYS * 86_400
    unknown = Flow(policy()).run([replace(job, ready_by=None) for job in jobs], until=end)
    known = Flow(policy()).run(jobs, until=end)
    return [_trial("arrival alone", load, jobs, unknown, end), _trial("deadlines", load, jobs, known, end)]


def _trial(how: str, load: float, jobs: Sequence[Job], runs: Sequence[Run], end: float) -> Trial:
    by_number = {run.job.number: run for run in runs}
    settled = [job for job in jobs if job.ready_by is not None and job.ready_by <= end]
    in_time = sum(
        job.number in by_number and by_number[job.number].ends <= (job.ready_by or 0.0) for job in settled
    )
    waits = sorted(
        (by_number[job.number].starts if job.number in by_number else end) - job.arrives
        for job in jobs
        if job.ready_by is None
    )
    p50, p95 = waits[len(waits) // 2], waits[int(0.95 * (len(waits) - 1))]
    return Trial(how, load, in_time / len(settled), (p50 / 3600, p95 / 3600, waits[-1] / 3600))


def measure(loads: Iterable[float] = LOADS) -> list[Trial]:
    with get_context("spawn").Pool(2) as pool:
        return [trial for pair in pool.imap(trials, loads) for trial in pair]
