"""A day of a large provider: 100,000 tenants, a million requests, 2,000 slots in several accounts (make day).

    python -m benchmarks.day [--requests 1000000] [--tenants 100000] [--cells 20] [--hours 24]

Each account is a cell: its own service with a share of the tenants, slots and requests, simulated in its own
process; cells share nothing. A few tenants have many requests and many have few, with more by day than by night,
in three tiers; executions take two minutes on average, so that the slots barely suffice at noon. Prints use, wait
times, calls and costs, and the items and partitions that come closest to their limits.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from math import pi, sin
from multiprocessing import Pool
from random import Random

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.compare import MEMORY_GB, SHARES, bill, policy
from benchmarks.compare import Load as Work
from benchmarks.designs.ours import Ours
from benchmarks.harness import CALM, Harness
from simulation.flow import Job
from trainyard.persistence.store import Key

_INVOCATION = 0.2e-6 + 0.1 * MEMORY_GB * 13.3334e-6
"""Of 100 ms."""
BESIDE = {
    "S3, three receipts, the data set's latest, and a manifest": 5 * 5e-6,
    "EventBridge, three announcements": 3 * 1e-6,
    "S3, a listing of the data set, and seven reads": 5e-6 + 7 * 0.4e-6,
    "SQS, upload, request and end, each sent, received and deleted": 9 * 0.4e-6,
    "Lambda and DynamoDB, intake": _INVOCATION + 0.125e-6,
    "Lambda, the guard of three jobs": 3 * _INVOCATION,
    "SQS, Lambda, DynamoDB: a ring after a quiet period": 3 * 0.4e-6 + _INVOCATION + 0.625e-6 + 4 * 0.125e-6,
}
"""Per request: as often as `make bench` counts them, or once per event where it does not, although events are
batched; the simulation has no quiet period, and nothing is written into the receipts of waiting requests. List
prices of us-east-1 (AWS price pages, 2026)."""
RUN_SECONDS = 110.0
SLOTS = 2000


@dataclass(frozen=True)
class Cell:
    """The results of one account's day."""

    tenants: int
    active: int
    requests: int
    started: int
    use: float
    waits: dict[str, tuple[float, float, float]]
    """Tier → p50, p99 and longest wait time in seconds."""
    over: int
    left: int
    calls: dict[str, int]
    usd_per_1000: float
    hottest: dict[str, float]
    """Item or partition → write units a second in its busiest minute; a partition can take 1,000."""
    items: int
    seconds: float


def run_cell(task: tuple[int, int, int, int, float]) -> Cell:
    number, tenants, requests, slots, hours = task
    began = time.monotonic()
    random = Random(f"day {number}")
    jobs = _jobs(random, tenants, requests, hours * 3600)
    quotas = {tier: round(share * slots) for tier, share in SHARES.items()}
    work = Work(slots, hours * 3600, jobs, quotas)
    harness = Harness(faults=CALM, seed=number)
    service = Ours(harness, policy(work), work.tenants)
    heat = Heat(service, harness)
    for job in jobs:
        harness.agenda.after(job.arrives, lambda job=job: service.submit(job))  # type: ignore[misc]
    harness.run_until(hours * 3600)
    started = list(harness.executions)
    used = sum((min(e.ends, harness.agenda.now) - e.begins).total_seconds() for e in started)
    zero = harness.agenda.now - timedelta(hours=hours)
    waits: dict[str, list[float]] = {tier: [] for tier in SHARES}
    for execution in started:
        waits[execution.job.tier].append((execution.begins - zero).total_seconds() - execution.job.arrives)
    return Cell(
        tenants=tenants,
        active=len(work.tenants),
        requests=len(jobs),
        started=len(started),
        use=used / (slots * hours * 3600),
        waits={tier: _quantiles(found) for tier, found in waits.items()},
        over=max(harness.peaks[""] - slots, 0),
        left=service.waiting(),
        calls=dict(harness.calls),
        usd_per_1000=sum(bill("trainyard", harness, service, len(started)).values()),
        hottest=heat.busiest(),
        items=len(service.memory.items),
        seconds=time.monotonic() - began,
    )


def _jobs(random: Random, tenants: int, requests: int, seconds: float) -> list[Job]:
    """Generate the requests of a day: tenants, times and durations."""
    tiers = list(SHARES)
    of_tier = {f"t{n}": random.choices(tiers, list(SHARES.values()))[0] for n in range(tenants)}
    names = list(of_tier)
    weights = [random.paretovariate(1.2) for _ in names]
    owners = random.choices(names, weights, k=requests)
    jobs = []
    for number, owner in enumerate(owners):
        at = _time_of_day(random, seconds)
        length = min(random.lognormvariate(0, 0.6) * RUN_SECONDS * 0.83, 3600.0)
        jobs.append(Job(number, at, owner, of_tier[owner], max(length, 20.0)))
    jobs.sort(key=lambda job: job.arrives)
    return jobs


def _time_of_day(random: Random, seconds: float) -> float:
    """Draw a time, three times as likely at noon as at midnight."""
    while True:
        at = random.uniform(0, seconds)
        if random.uniform(0, 1.5) < 1 - 0.5 * sin(2 * pi * at / seconds + pi / 2):
            return at


class Heat:
    """The maximum write units per minute of the items and partitions that many writes share."""

    def __init__(self, service: Ours, harness: Harness) -> None:
        self._yard = harness
        self._minute, self._units = -1, defaultdict[tuple[str, str], float](float)
        self._busiest: dict[str, float] = {}
        service.store.written = self._written

    def _written(self, key: Key, units: float) -> None:
        if int(self._yard.seconds // 60) != self._minute:
            self._turn()
            self._minute = int(self._yard.seconds // 60)
        for shared in _shared(key):
            self._units[shared] += units

    def _turn(self) -> None:
        for (kind, _), units in self._units.items():
            self._busiest[kind] = max(self._busiest.get(kind, 0.0), units)
        self._units.clear()

    def busiest(self) -> dict[str, float]:
        """Return kind → write units a second of the busiest item or partition in its busiest minute."""
        self._turn()
        return {kind: units / 60 for kind, units in self._busiest.items()}


def _shared(key: Key) -> Iterator[tuple[str, str]]:
    """Yield the kind and the name of the items and partitions that other writes change too."""
    partition, *sort = (value for _, value in key.values)
    if partition == "ledger":
        yield f"the {sort[0]} (an item)", sort[0]
    elif key.table == "scheduler" and partition.startswith("tier#"):
        yield "a tier's queues (a partition)", partition
        yield "a tenant's queue (an item)", partition + sort[0]
    elif key.table == "scheduler" and partition.startswith("entries#"):
        yield "a queue's entries (a partition)", partition
    elif key.table == "record" and partition.startswith("month#"):
        yield "a month's totals (a partition)", partition


def _quantiles(waits: list[float]) -> tuple[float, float, float]:
    ordered = sorted(waits)
    last = len(ordered) - 1
    return (round(ordered[last // 2], 1), round(ordered[int(0.99 * last)], 1), round(ordered[-1], 1))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.day", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000, help="total requests (default: a million)")
    parser.add_argument("--tenants", type=int, default=100_000, help="total tenants (default: 100,000)")
    parser.add_argument("--cells", type=int, default=20, help="accounts (default: 20)")
    parser.add_argument("--hours", type=float, default=24.0, help="hours to simulate (default: 24)")
    parser.add_argument("--json", action="store_true", help="print the cells as JSON")
    given = parser.parse_args()
    cells = given.cells
    scale = given.hours / 24
    tasks = [
        (n, given.tenants // cells, int(given.requests * scale) // cells, SLOTS // cells, given.hours)
        for n in range(cells)
    ]
    with Pool() as pool:
        done = pool.imap_unordered(run_cell, tasks)
        found = list(track(done, "cells", total=cells, console=Console(stderr=True)))
    if given.json:
        sys.stdout.write(json.dumps([asdict(cell) for cell in found], indent=1) + "\n")
    else:
        _print(found, given.hours)
    return int(any(cell.over or cell.left > cell.requests // 50 for cell in found))


def _print(cells: list[Cell], hours: float) -> None:
    requests, started = sum(c.requests for c in cells), sum(c.started for c in cells)
    calls = sum(sum(c.calls.values()) for c in cells)
    usd = sum(c.usd_per_1000 * c.started for c in cells) / 1000
    beside = requests * sum(BESIDE.values())
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("A DAY", "ALL CELLS", "WORST CELL"):
        table.add_column(column)
    rows = [
        (
            "tenants, with requests",
            f"{sum(c.tenants for c in cells):,}, {sum(c.active for c in cells):,}",
            f"{max(c.tenants for c in cells):,}, {max(c.active for c in cells):,}",
        ),
        ("requests, started", f"{requests:,}, {started:,}", f"{max(c.left for c in cells):,} waiting at the end"),
        (
            "starts a second, mean",
            f"{started / hours / 3600:.1f}",
            f"{max(c.started for c in cells) / hours / 3600:.1f}",
        ),
        ("use of slots", f"{sum(c.use for c in cells) / len(cells):.1%}", f"{max(c.use for c in cells):.1%}"),
        ("executions above the limit", str(sum(c.over for c in cells)), str(max(c.over for c in cells))),
        ("calls per start", f"{calls / started:.2f}", f"{calls / hours / 3600:,.0f} a second in all"),
        ("USD: functions, tables", f"{usd:.2f}", f"{usd / hours * 24 * 30:,.0f} a month in all"),
        *(
            (
                f"USD: {what}",
                f"{requests * price:.2f}",
                f"{requests * price / hours * 24 * 30:,.0f} a month in all",
            )
            for what, price in BESIDE.items()
        ),
        ("USD: all of these", f"{usd + beside:.2f}", f"{(usd + beside) / hours * 24 * 30:,.0f} a month in all"),
        *((f"wait time in {tier}: p50 · p99 · longest, s", "", _worst(cells, tier)) for tier in SHARES),
        *((f"write units a second, busiest minute: {kind}", "", f"{rate:.1f}") for kind, rate in _hottest(cells)),
        ("calls a second, busiest cell", "", f"{max(sum(c.calls.values()) for c in cells) / hours / 3600:,.0f}"),
        ("items in the tables", f"{sum(c.items for c in cells):,}", f"{max(c.items for c in cells):,}"),
        ("simulated in, s", "", f"{max(c.seconds for c in cells):,.0f}"),
    ]
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def _worst(cells: list[Cell], tier: str) -> str:
    return " · ".join(f"{max(cell.waits[tier][n] for cell in cells):,.1f}" for n in range(3))


def _hottest(cells: list[Cell]) -> list[tuple[str, float]]:
    kinds = {kind for cell in cells for kind in cell.hottest}
    rates = [(kind, max(cell.hottest.get(kind, 0.0) for cell in cells)) for kind in kinds]
    return sorted(rates, key=lambda one: -one[1])


if __name__ == "__main__":
    sys.exit(main())
