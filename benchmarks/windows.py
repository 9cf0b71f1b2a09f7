"""Quotas by the hour: the night belongs to long runs of basic, the day to premium, on the same arrivals.

Basic has sixteen of twenty slots from 20:00 to 06:00 and four by day; premium two by night and ten by day. Basic's
runs last up to twelve hours. Compared: the rule that a run which nine times of ten lasts beyond 06:00 counts among
the four that basic has then, and the same code without it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from random import Random
from unittest.mock import patch

from simulation.flow import Flow, Job, Run
from trainyard.contracts.compiled_policy import DEPLOYED
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.policy import Policy

DAYS = 8
LEARNING = 3
"""Days after which it is known how long the runs of most data sets take."""
BEGIN = datetime(2026, 11, 30, 6, tzinfo=UTC)
SEEDS = (1, 2, 3)
TENANTS = 20
HOURS_OF_BASIC = (0.5, 0.5, 1.0, 2.0, 4.0, 8.0)
"""What the runs of its tenants take in the mean, in turn."""
NIGHT = """
windows:
  - name: night
    from: 20:00
    to: 06:00
    tiers:
      basic: {quota: 16, borrowing_limit: 4}
      standard: {quota: 2, lending_limit: 1}
      premium: {quota: 2, lending_limit: 1}
"""


@dataclass(frozen=True)
class Trial:
    """Some days under one of the two rules."""

    how: str
    seed: int
    night_use: float
    """Share of slot time from 20:00 to 06:00 in which executions ran."""
    day_use: float
    morning_p95: float
    """Of the waits of premium's requests that arrive from 06:00 to 09:00, in seconds."""
    morning_max: float


def arrivals(seed: int) -> list[Job]:
    """Return enough of basic for every slot, of tenants with short and with long runs, and premium by day."""
    random = Random(f"windows {seed}")
    jobs: list[Job] = []

    def add(at: float, tenant: str, tier: str, seconds: float, data_set: str) -> None:
        jobs.append(Job(len(jobs), at, f"{tier}-{tenant}", tier, seconds, data_set=data_set))

    at = 0.0
    while at < DAYS * 86_400:
        at += random.expovariate(6 / 3600)
        tenant = random.randrange(TENANTS)
        usual = HOURS_OF_BASIC[tenant % len(HOURS_OF_BASIC)] * 3600
        add(at, str(tenant), "basic", min(usual * random.lognormvariate(0, 0.2), 12 * 3600), "set")
    for day in range(DAYS):
        at = day * 86_400.0
        while at < day * 86_400 + 12 * 3600:
            at += random.expovariate(20 / 3600)
            add(at, str(random.randrange(6)), "premium", random.expovariate(1 / 1200), "set")
    return sorted(jobs, key=lambda job: job.arrives)


def limits() -> Policy:
    text = DEPLOYED.read_text(encoding="utf-8").replace("runtime_max_minutes: 60 ", "runtime_max_minutes: 720 ")
    return parse_policy(text + NIGHT, 0)


@contextmanager
def without_counting_ahead() -> Iterator[None]:
    with patch.object(Policy, "ahead_of", lambda policy, demand, ends_at: ()):
        yield


def trials(seed: int) -> list[Trial]:
    """Return the days with and without the rule."""
    jobs, until = arrivals(seed), DAYS * 86_400.0
    with without_counting_ahead():
        plain = Flow(limits(), begin=BEGIN).run(jobs, until=until)
    ruled = Flow(limits(), begin=BEGIN).run(jobs, until=until)
    return [_trial("no look ahead", seed, jobs, plain), _trial("counted ahead", seed, jobs, ruled)]


def _trial(how: str, seed: int, jobs: list[Job], runs: list[Run]) -> Trial:
    starts, end = {run.job.number: run.starts for run in runs}, DAYS * 86_400.0
    # The first days, until the data sets are known, are left out.
    morning = [
        starts.get(job.number, end) - job.arrives
        for job in jobs
        if job.tier == "premium" and job.arrives >= LEARNING * 86_400 and job.arrives % 86_400 < 3 * 3600
    ]
    return Trial(
        how=how,
        seed=seed,
        night_use=_use(runs, lambda day: (day + 14 * 3600, day + 24 * 3600)),
        day_use=_use(runs, lambda day: (day, day + 14 * 3600)),
        morning_p95=sorted(morning)[int(0.95 * (len(morning) - 1))],
        morning_max=max(morning),
    )


def _use(runs: list[Run], hours: Callable[[float], tuple[float, float]]) -> float:
    """Return the share of slot time in use in some hours of each day but the first ones."""
    spans = [hours(day * 86_400.0) for day in range(LEARNING, DAYS)]
    busy = sum(max(min(run.ends, until) - max(run.starts, since), 0.0) for run in runs for since, until in spans)
    return busy / (limits().running_max * sum(until - since for since, until in spans))


def measure(seeds: Iterable[int] = SEEDS) -> list[Trial]:
    with get_context("spawn").Pool(2) as pool:
        return [trial for pair in pool.imap(trials, seeds) for trial in pair]
