"""Measure fairness, starvation bounds and large requests on the real admission code (make fairness).

Each measurement generates its load from seeds, prints the result next to the bound that docs/admission.md
publishes, and fails if the bound does not hold.
"""

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from multiprocessing import Pool
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch

from rich.console import Console
from rich.progress import track
from rich.table import Table

from simulation.flow import Flow, Job, Run
from simulation.scenario import choices
from trainyard.domain import fair_share
from trainyard.domain.admission import decide
from trainyard.domain.fair_share import entitlements
from trainyard.domain.policy import Policy, TenantPolicy, TierPolicy
from trainyard.domain.scheduling import EXPEDITED_EVERY, Plan, Snapshot

T = TypeVar("T")

MINUTE, HOUR = 60.0, 3600.0
JAIN_MIN = 0.98
CYCLES = 10


def tier(name: str, quota: int, *, cap: int, hours: float, large: int = 4, borrowing: int = 0) -> TierPolicy:
    """Return a tier whose executions last `hours` at most."""
    grace = timedelta(seconds=120)
    return TierPolicy(
        name=name,
        quota=quota,
        borrowing_limit=borrowing,
        lending_limit=0,
        running_max_per_tenant=cap,
        runtime_max=timedelta(hours=hours) / 3 - grace,
        hold_age=timedelta(minutes=15),
        quality_min=0.5,
        instances=choices(large),
    )


def policy(*tiers: TierPolicy, running_max: int, **changes: object) -> Policy:
    values: dict[str, object] = {
        "version": 0,
        "running_max": running_max,
        "quiet_period": timedelta(0),
        "delay_max": timedelta(0),
        "start_retry_delay": timedelta(seconds=60),
        "tiers": tiers,
    }
    return Policy(**values | changes)  # type: ignore[arg-type]


# --- fair shares --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """One tier, with tenants of different weights, caps and durations."""

    policy: Policy
    slots: int
    jobs: list[Job]
    always: dict[str, tuple[int, int]]
    """Tenants that always have admissible requests: (weight, cap)."""
    longest: dict[str, float]
    horizon: float


def share_load(seed: int, *, visitors: bool, quick: bool = False) -> Load:
    """Generate tenants that always have requests; with `visitors`, also newcomers and others that come and go.

    `quick` leaves out the shortest executions, of which very many would be needed.
    """
    random = Random(f"shares {seed}")
    minutes = [60, 240, 600] if quick else [2, 60, 240, 600, 600]
    slots = random.choice([4, 6, 8])
    names = [f"t{number}" for number in range(random.choice([3, 4, 5]))]
    weights = {name: random.choice([1, 1, 2, 3]) for name in names}
    caps = {name: random.choice([slots, slots, max(1, slots // 2)]) for name in names}
    lengths = {name: random.choice(minutes) * MINUTE for name in names}
    shares = {name: (weights[name], caps[name]) for name in names}
    entitled = entitlements(slots, shares)
    cycle = max(lengths[name] / entitled[name] for name in names)
    horizon = 12 * cycle
    jobs: list[Job] = []
    for name in names:
        done = 0.0
        while done < 1.5 * entitled[name] * horizon * (1.0 + 0.5 * visitors):
            seconds = random.uniform(0.2, 1.0) * lengths[name]
            jobs.append(Job(len(jobs), 0.0, name, "basic", seconds))
            done += seconds
    if visitors:
        jobs += _visits(random, horizon, cycle, len(jobs))
    limits = policy(
        tier("basic", slots, cap=slots, hours=10),
        running_max=slots,
        tenants={name: TenantPolicy(weight=weights[name], running_max=caps[name]) for name in names},
    )
    return Load(limits, slots, jobs, shares, lengths, horizon)


def _visits(random: Random, horizon: float, cycle: float, first: int) -> list[Job]:
    """Return the jobs of newcomers, and of tenants that come, use their share, and go."""
    jobs: list[Job] = []
    for visitor in range(6):
        at = random.uniform(0, horizon)
        for _ in range(random.choice([1, 3, 10])):
            seconds = random.uniform(0.05, 0.3) * cycle
            jobs.append(Job(first + len(jobs), at, f"v{visitor}", "basic", min(seconds, 10 * HOUR)))
    return jobs


def least_jain(load: Load, runs: Sequence[Run]) -> float:
    """Return the lowest weighted Jain index of all sliding windows of ten cycles.

    x = slot-seconds in the window ÷ entitlement; a window begins at every twentieth of a cycle.
    """
    names = list(load.always)
    entitled = entitlements(load.slots, load.always)
    cycle = max(load.longest[name] / entitled[name] for name in names)
    step, count = cycle / 20, int(load.horizon / (cycle / 20))
    used = {name: _used_by_step([r for r in runs if r.job.tenant_id == name], step, count) for name in names}
    visitors = _used_by_step([r for r in runs if r.job.tenant_id not in load.always], step, count)
    # Slots that visitors use are not shared: at any time, the others are entitled to the rest.
    shares = [entitlements(max(load.slots - taken / step, 0.01), load.always) for taken in visitors]
    due = {name: [share[name] * step for share in shares] for name in names}
    least = 1.0
    for begin in range(count - CYCLES * 20 + 1):
        window = slice(begin, begin + CYCLES * 20)
        x = [sum(used[name][window]) / sum(due[name][window]) for name in names]
        least = min(least, sum(x) ** 2 / (len(x) * sum(value * value for value in x)))
    return least


def _used_by_step(runs: Sequence[Run], step: float, count: int) -> list[float]:
    used = [0.0] * count
    for run in runs:
        for number in range(int(run.starts / step), min(int(run.ends / step) + 1, count)):
            overlap = min(run.ends, (number + 1) * step) - max(run.starts, number * step)
            used[number] += max(overlap, 0.0)
    return used


def fair_shares(seed: int, *, visitors: bool, quick: bool = False) -> tuple[float, float]:
    """Return the lowest Jain index, and the longest gap between two admissions of a queue that always has an
    admissible request, as a share of the published bound.
    """
    load = share_load(seed, visitors=visitors, quick=quick)
    runs = Flow(load.policy).run(load.jobs, until=load.horizon)
    return least_jain(load, runs), longest_gap(load, runs)


def longest_gap(load: Load, runs: Sequence[Run]) -> float:
    """Return the longest gap as a share of its bound (`gap_bound`), of tenants whose cap does not limit them."""
    names = {run.job.tenant_id for run in runs}
    worst = 0.0
    for name, (_, cap) in load.always.items():
        if cap >= load.slots:
            starts = [0.0, *(run.starts for run in runs if run.job.tenant_id == name)]
            gap = max(later - earlier for earlier, later in pairwise(starts))
            worst = max(worst, gap / gap_bound(load.policy, load.slots, name, names))
    return worst


def gap_bound(limits: Policy, slots: int, name: str, names: Collection[str]) -> float:
    """Return c(2 + KW/(wN) + W/N) in seconds: c the tier's maximum runtime, K the slots that the tenant may hold,
    w its weight, W the sum of all weights, N the slots.
    """
    (tier,) = limits.tiers
    weights = sum(limits.tenant(other).weight for other in names)
    of_all, held = weights / slots, min(limits.ceiling(tier, name), slots)
    return tier.run_time_max.total_seconds() * (2 + held * of_all / limits.tenant(name).weight + of_all)


# --- a tenant that saves its share ---------------------------------------------------------------------------


def saver(seed: int) -> tuple[float, float]:
    """Return the longest gap between two admissions of a tenant that always has work, in hours, and its bound.

    Another tenant always holds a single slot, and wants all of them after one to three days.
    """
    random = Random(f"saver {seed}")
    slots = random.choice([4, 6, 8])
    length = random.uniform(0.8, 1.0) * HOUR
    held = random.choice([24, 48, 72])
    jobs = [Job(number, number * length, "saver", "basic", length) for number in range(held)]
    jobs += [Job(len(jobs) + n, held * length, "saver", "basic", length) for n in range(20 * slots)]
    jobs += [Job(len(jobs) + n, 0.0, "busy", "basic", length) for n in range((held + 40) * slots)]
    return _gap_of_busy(slots, jobs, (held + 30) * length)


def latecomers(seed: int) -> tuple[float, float]:
    """Return the same of a tenant that holds all slots when many others arrive at once."""
    random = Random(f"latecomers {seed}")
    slots, others = random.choice([4, 6, 8]), random.choice([1, 3, 9])
    length = random.uniform(0.8, 1.0) * HOUR
    arrive = random.choice([0, 3]) * length + MINUTE
    jobs = [Job(number, 0.0, "busy", "basic", length) for number in range(40 * slots)]
    for name in range(others):
        jobs += [Job(len(jobs) + n, arrive + name, f"late{name}", "basic", length) for n in range(12 * slots)]
    return _gap_of_busy(slots, jobs, 30 * length)


def expediting(seed: int) -> tuple[float, float]:
    """Return the longest gap of the tenants that always have work, as a share of its bound, without and with an
    operator who expedites every request of one of them.
    """
    load = share_load(seed, visitors=False, quick=True)
    favoured, *others = load.always
    plain = Flow(load.policy).run(load.jobs, until=load.horizon)
    hurried = Flow(load.policy, engine=_always_expediting(favoured)).run(load.jobs, until=load.horizon)
    rest = replace(load, always={name: load.always[name] for name in others})
    return longest_gap(rest, plain), longest_gap(rest, hurried)


def _always_expediting(tenant_id: str) -> Callable[..., Plan]:
    """Return `decide` with a request of a tenant expedited whenever one waits."""
    since = EXPEDITED_EVERY

    def engine(snapshot: Snapshot, limits: Policy, now: datetime, **named: Any) -> Plan:
        nonlocal since
        waiting = [w for w in snapshot.queues if w.queue.tenant_id == tenant_id]
        heads = [lane[0].request_id for w in waiting for lane in w.entries.values() if lane]
        first = {"basic": heads[0]} if heads else {}
        ledger = replace(snapshot.ledger, since_expedited={"basic": since})
        plan = decide(replace(snapshot, ledger=ledger, expedited=first), limits, now, **named)
        for decision in plan.admissions:
            since = 0 if decision.expedited else min(since + 1, EXPEDITED_EVERY)
        return plan

    return engine


def below_cap(seed: int) -> list[tuple[float, int]]:
    """Return the wait of each request below its tenant's cap, in minutes, and how many admissions above a cap
    passed it; another tenant exceeds its cap with executions of up to 12 hours.
    """
    random = Random(f"below a cap {seed}")
    limits = policy(tier("basic", 8, cap=2, hours=13), running_max=8)
    jobs = [Job(n, 0.0, "heavy", "basic", random.uniform(0.5, 12) * HOUR) for n in range(200)]
    at = 0.0
    while at < 100 * HOUR:
        at += random.expovariate(1 / HOUR)
        jobs.append(Job(len(jobs), at, f"newcomer-{len(jobs)}", "basic", 5 * MINUTE))
    runs = Flow(limits).run(jobs, until=110 * HOUR)
    above = [run for run in runs if run.above_cap]
    return [
        (
            run.waited / MINUTE,
            sum(run.job.arrives <= other.starts and other.turn < run.turn for other in above),
        )
        for run in runs
        if run.job.tenant_id != "heavy"
    ]


def _gap_of_busy(slots: int, jobs: Sequence[Job], until: float) -> tuple[float, float]:
    limits = policy(tier("basic", slots, cap=slots, hours=1.1), running_max=slots)
    runs = Flow(limits).run(jobs, until=until)
    starts = [0.0, *(run.starts for run in runs if run.job.tenant_id == "busy")]
    gap = max(later - earlier for earlier, later in pairwise(starts))
    return gap / HOUR, gap_bound(limits, slots, "busy", {job.tenant_id for job in jobs}) / HOUR


# --- light tenants ------------------------------------------------------------------------------------------


LIGHT_HOURS = 100


def light_load(seed: int) -> tuple[Policy, list[Job]]:
    """Return heavy tenants with a backlog, and a light one that requests at most half of its entitlement."""
    random = Random(f"light {seed}")
    slots, heavy = 8, [f"h{number}" for number in range(random.choice([3, 7]))]
    entitled = slots / (len(heavy) + 1)
    jobs: list[Job] = []
    horizon = LIGHT_HOURS * HOUR
    for name in heavy:
        length = random.choice([20 * MINUTE, HOUR, 10 * HOUR])
        done = 0.0
        while done < 2 * slots * horizon / len(heavy):
            seconds = random.uniform(0.2, 1.0) * length
            jobs.append(Job(len(jobs), 0.0, name, "basic", seconds))
            done += seconds
    at, length = 0.0, random.choice([5 * MINUTE, HOUR])
    while at < horizon:
        at += random.expovariate(0.5 * entitled / length)
        jobs.append(Job(len(jobs), at, "light", "basic", length))
    return policy(tier("basic", slots, cap=slots, hours=10), running_max=slots), jobs


def light_waits(seed: int) -> tuple[float, float]:
    """Return the light tenant's p95 wait time in seconds, and the same if it were always served first."""
    limits, jobs = light_load(seed)
    real = _p95(Flow(limits).run(jobs, until=LIGHT_HOURS * HOUR))
    band = fair_share.Candidate.band
    assert isinstance(band, property)

    def first(candidate: fair_share.Candidate) -> int:
        return -1 if candidate.queue.tenant_id == "light" else int(band.__get__(candidate))

    with patch.object(fair_share.Candidate, "band", property(first)):
        ideal = _p95(Flow(limits).run(jobs, until=LIGHT_HOURS * HOUR))
    return real, ideal


def _p95(runs: Sequence[Run]) -> float:
    waits = sorted(run.waited for run in runs if run.job.tenant_id == "light")
    return waits[int(0.95 * (len(waits) - 1))]


# --- a newcomer ---------------------------------------------------------------------------------------------


def newcomer(seed: int) -> tuple[int, float, float, int]:
    """Return how many admissions overtake a single request that arrives behind a thousand of another tenant, its
    wait time, the shortest remaining execution at its arrival, and the slots of the tier.
    """
    random = Random(f"newcomer {seed}")
    slots = random.choice([1, 2, 4, 8])
    jobs = [Job(n, 0.0, "many", "basic", random.uniform(2 * MINUTE, 10 * HOUR)) for n in range(1000)]
    arrives = random.uniform(1 * HOUR, 30 * HOUR)
    single = Job(1000, arrives, "single", "basic", MINUTE)
    limits = policy(tier("basic", slots, cap=slots, hours=10), running_max=slots)
    runs = Flow(limits).run([*jobs, single], until=arrives + 11 * HOUR)
    found = next(run for run in runs if run.job is single)
    passed = sum(arrives <= run.starts and run.turn < found.turn for run in runs)
    residual = min(run.ends - arrives for run in runs if run.starts <= arrives < run.ends)
    return passed, found.waited, residual, slots


# --- large requests -----------------------------------------------------------------------------------------

POOL = "training/ml.m5.large"
LARGE_HOURS = 2.0


def large_waits(seed: int, *, hours: int = 150) -> list[float]:
    """Return the wait times of requests for 4 and 8 of 8 instances among many small ones in two tiers.

    `hours` is how long requests arrive.
    """
    random = Random(f"large {seed}")
    limits = policy(
        tier("basic", 8, cap=8, hours=LARGE_HOURS, large=4, borrowing=8),
        tier("premium", 8, cap=8, hours=LARGE_HOURS, large=8, borrowing=8),
        running_max=16,
        instance_quotas={POOL: 8},
    )
    jobs: list[Job] = []
    horizon = hours * HOUR
    at = 0.0
    while at < horizon:
        at += random.expovariate(8 / (0.6 * HOUR))  # more than the pool can serve
        tenant = random.choice(["a", "b", "c", "d", "e"])
        name = "basic" if tenant in "abc" else "premium"
        jobs.append(Job(len(jobs), at, tenant, name, random.uniform(0.05, 0.95) * LARGE_HOURS * HOUR))
    at = HOUR
    while at < horizon - 10 * HOUR:
        name = random.choice(["basic", "premium"])
        seconds = random.uniform(0.1, 0.95) * LARGE_HOURS * HOUR
        jobs.append(Job(len(jobs), at, f"large-{name}", name, seconds, size_mb=500))
        at += random.uniform(5, 8) * HOUR
    flow = Flow(limits)
    waits = [run.waited for run in flow.run(jobs, until=horizon) if run.instances > 1]
    return waits + [horizon - job.arrives for job in flow.refused if job.tenant_id.startswith("large")]


LARGE_BOUND = 15 * MINUTE + LARGE_HOURS * HOUR


# --- print --------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """The measured values."""

    shares: list[tuple[float, float]] = field(default_factory=list)
    visitors: list[tuple[float, float]] = field(default_factory=list)
    light: list[tuple[float, float]] = field(default_factory=list)
    newcomer: list[tuple[int, float, float, int]] = field(default_factory=list)
    saver: list[tuple[float, float]] = field(default_factory=list)
    latecomers: list[tuple[float, float]] = field(default_factory=list)
    large: list[list[float]] = field(default_factory=list)
    expediting: list[tuple[float, float]] = field(default_factory=list)
    below_cap: list[list[tuple[float, int]]] = field(default_factory=list)


MEASURES: dict[str, Callable[[int], Any]] = {
    "shares": lambda seed: fair_shares(seed, visitors=False),
    "visitors": lambda seed: fair_shares(seed, visitors=True),
    "light": light_waits,
    "newcomer": newcomer,
    "saver": saver,
    "latecomers": latecomers,
    "large": large_waits,
    "expediting": expediting,
    "below_cap": below_cap,
}


def _run(task: tuple[str, int]) -> tuple[str, Any]:
    name, seed = task
    return name, MEASURES[name](seed)


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation.fairness", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="seeds of each measurement (default: 20)")
    seeds = parser.parse_args().seeds
    tasks = [(name, seed) for seed in range(seeds) for name in MEASURES]
    found = Measured()
    with Pool() as pool:
        done = pool.imap_unordered(_run, tasks)
        for name, value in track(done, "measuring", total=len(tasks), console=Console(stderr=True)):
            getattr(found, name).append(value)
    rows = report(found)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("MEASURED", "WORST", "MEDIAN", "BOUND", ""):
        table.add_column(column)
    for row in rows:
        table.add_row(row.what, row.worst, row.median, row.bound, "✓" if row.holds else "BROKEN")
    Console(width=130).print(table)
    return int(not all(row.holds for row in rows))


@dataclass(frozen=True)
class Row:
    what: str
    worst: str
    median: str
    bound: str
    holds: bool


def report(found: Measured) -> list[Row]:
    """Return a row for each measurement."""
    rows = []
    kinds = ((found.shares, "no other tenants"), (found.visitors, "newcomers, and tenants that come and go"))
    for values, others in kinds:
        jains = sorted(jain for jain, _ in values)
        what = f"weighted Jain, every window of {CYCLES} cycles, {others} ({len(jains)} seeds)"
        rows.append(
            Row(what, f"{jains[0]:.4f}", f"{_median(jains):.4f}", f"at least {JAIN_MIN}", jains[0] >= JAIN_MIN)
        )
    gaps = sorted(gap for _, gap in (*found.shares, *found.visitors))
    what = f"longest gap between two admissions of an always admissible queue ({len(gaps)} seeds)"
    bound = "at most 1 x c(2 + KW/(wN) + W/N)"
    rows.append(Row(what, f"{gaps[-1]:.2f}", f"{_median(gaps):.2f}", bound, gaps[-1] <= 1))
    cases = {"after another has held one slot for days": found.saver, "when many others arrive": found.latecomers}
    for when, pairs in cases.items():
        gaps = sorted(gap / limit for gap, limit in pairs)
        what = f"the same, {when} ({len(gaps)} seeds)"
        rows.append(Row(what, f"{gaps[-1]:.2f}", f"{_median(gaps):.2f}", bound, gaps[-1] <= 1))
    rows.append(_expediting_row(found.expediting))
    excess = sorted(real - (2 * ideal + 1) for real, ideal in found.light)
    what = f"light tenant: p95 wait time minus (2 x ideal + 1 s), in seconds ({len(excess)} seeds)"
    rows.append(Row(what, f"{excess[-1]:.1f}", f"{_median(excess):.1f}", "at most 0", excess[-1] <= 0))
    rows.append(_below_cap_row(found.below_cap))
    rows += _newcomer_rows(found.newcomer)
    waits = sorted(wait / MINUTE for waits in found.large for wait in waits)
    what = f"large requests (4 and 8 of 8 instances): wait time in minutes ({len(waits)} requests)"
    bound = f"at most {LARGE_BOUND / MINUTE:.0f}: hold age + maximum runtime"
    rows.append(Row(what, f"{waits[-1]:.1f}", f"{_median(waits):.1f}", bound, waits[-1] <= LARGE_BOUND / MINUTE))
    return rows


def _expediting_row(found: Sequence[tuple[float, float]]) -> Row:
    gaps = sorted(hurried for _, hurried in found)
    plain = max(gap for gap, _ in found)
    what = f"the same, of the others while all of one tenant's requests are expedited ({len(gaps)} seeds)"
    bound = f"at most 1; {plain:.2f} without"
    return Row(what, f"{gaps[-1]:.2f}", f"{_median(gaps):.2f}", bound, gaps[-1] <= 1)


def _below_cap_row(found: Sequence[Sequence[tuple[float, int]]]) -> Row:
    waits = sorted(waited for requests in found for waited, _ in requests)
    passed = max(count for requests in found for _, count in requests)
    what = f"requests below a cap: admissions above a cap that overtake them ({len(waits)} requests)"
    return Row(what, str(passed), "", f"0; they wait {waits[-1]:.0f} min at most", passed == 0)


def _newcomer_rows(found: Sequence[tuple[int, float, float, int]]) -> list[Row]:
    passed = sorted((passed, slots) for passed, _, _, slots in found)
    what = f"one request behind a thousand: admissions that overtake it, of N slots ({len(passed)} seeds)"
    worst, middle = passed[-1], _median(passed)
    late = max(waited - residual for _, waited, residual, _ in found)
    return [
        Row(
            what,
            f"{worst[0]} of {worst[1]}",
            f"{middle[0]} of {middle[1]}",
            "at most N",
            all(count <= slots for count, slots in passed),
        ),
        Row(
            "the same request: wait time minus the shortest remaining execution, in seconds",
            f"{late:.3f}",
            "",
            "at most 0",
            late <= 0.001,
        ),
    ]


def _median(values: Sequence[T]) -> T:
    return values[len(values) // 2]


if __name__ == "__main__":
    sys.exit(main())
