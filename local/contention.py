"""Run a hundred concurrent dispatchers against the local cloud's DynamoDB (make contention).

There are a thousand requests; every end event arrives twice, one in ten never; reconciliation runs every 5
seconds. Prints overshoot, leaked slots after the last reconciliation, and executions per request, and fails
unless they are 0, 0 and 1.
"""

import argparse
import os
import queue
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

from rich.console import Console

from local.cloud import Cloud
from testing.service import Service, policies_in_force
from tests.build import choice, policy, submission, tenant, tier
from tests.tables import create_tables
from trainyard.adapters.aws import clients
from trainyard.adapters.aws.store import DynamoStore, backoff
from trainyard.adapters.aws.tables import DynamoTenants
from trainyard.application.scheduling.record import StatusEvent
from trainyard.domain.errors import TrainyardError
from trainyard.domain.policy import Policy

RECONCILE_EVERY = 5.0
"""Seconds; the clock of the reconciler is ahead by AHEAD, so that it checks new executions at once."""
AHEAD = timedelta(minutes=6)
PASS_SECONDS_MAX = 35.0
"""After this many seconds, a pass starts no further round, as in the function."""
TENANTS = 25
STORM_EVERY = 60

LIMITS = policy(
    tier("basic", quota=8, borrowing_limit=4, lending_limit=4, running_max_per_tenant=2, instances=(choice(),)),
    tier("premium", quota=12, lending_limit=6, running_max_per_tenant=4, instances=(choice(),)),
    running_max=16,
    instance_quotas={"training/ml.m5.large": 16},
)


@dataclass
class Executions:
    """SageMaker for threads: counts running executions, and sends each end event twice or never."""

    random: Random
    events: "queue.Queue[StatusEvent]" = field(default_factory=queue.Queue)
    lock: threading.Lock = field(default_factory=threading.Lock)
    by_token: dict[str, str] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)
    statuses: dict[str, str] = field(default_factory=dict)
    alive: Counter[str] = field(default_factory=Counter)
    peaks: Counter[str] = field(default_factory=Counter)
    lost: int = 0

    def start(self, *, name: str, token: str, description: str, parameters: dict[str, str]) -> str:
        dimensions = ["account", f"tier {parameters['TierName']}", f"tenant {parameters['TenantId']}"]
        with self.lock:
            if token in self.by_token:
                return self.by_token[token]
            arn = f"arn:{name}"
            self.by_token[token] = arn
            self.names[name.partition("-")[0]] += 1
            self.statuses[arn] = "Executing"
            for dimension in dimensions:
                self.alive[dimension] += 1
                self.peaks[dimension] = max(self.peaks[dimension], self.alive[dimension])
            seconds = self.random.uniform(0.5, 2.0)
        threading.Timer(seconds, self._end, (arn, name, dimensions)).start()
        return arn

    def _end(self, arn: str, name: str, dimensions: list[str]) -> None:
        event = StatusEvent(display_name=name, status="Succeeded", execution_arn=arn)
        with self.lock:
            self.statuses[arn] = "Succeeded"
            for dimension in dimensions:
                self.alive[dimension] -= 1
            lost = self.random.random() < 0.1
            self.lost += lost
        if not lost:
            self.events.put(event)
            self.events.put(event)

    def status(self, execution_arn: str) -> str:
        return self.statuses[execution_arn]

    def running(self, *, since: datetime) -> dict[str, str]:
        return {}

    def started(self, *, since: datetime) -> dict[str, str]:
        return {arn.removeprefix("arn:"): arn for arn in self.statuses}

    def stop(self, execution_arn: str) -> None:
        raise AssertionError("nothing is stopped here")


class Contest:
    def __init__(self, store: DynamoStore, requests: int, limits: Policy) -> None:
        self.requests, self.limits = requests, limits
        self.began = time.monotonic()
        self.executions = Executions(Random(7))  # noqa: S311 - a load, no secret
        tiers = {f"t{n}": "basic" if n % 2 else "premium" for n in range(TENANTS)}
        self.tenants = [tenant(name, tier=tier_name) for name, tier_name in tiers.items()]
        tenants = DynamoTenants(tenants_table="tenants")
        for one in self.tenants:
            tenants.put(one)
        service = Service(
            store=store,
            policies=policies_in_force(store, limits),
            tenants=tenants,
            executions=self.executions,
            backoff=backoff,
        )
        self.scheduler, self.dispatch = service.scheduler, service.dispatch
        self.record, self.reconcile = service.record, service.reconcile
        self.over, self.storm = threading.Event(), threading.Event()
        self.dispatchers = 0
        self.counts: Counter[str] = Counter()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def enlist(self) -> None:
        for number in range(self.requests):
            owner = self.tenants[number % TENANTS]
            one = submission(number, tenant_id=owner.tenant_id, tier=owner.tier)
            one = replace(one, content=replace(one.content, bucket=owner.bucket))
            self.scheduler.enlister.enlist(one, self.limits, self.now())

    def dispatcher(self, number: int) -> None:
        """Run passes, some with a sweep, until all is done: at random times, and together in each storm."""
        random = Random(number)  # noqa: S311
        while not self.over.is_set():
            try:
                end = time.monotonic() + PASS_SECONDS_MAX
                report = self.dispatch.run_pass(
                    self.now(),
                    sweep=random.random() < 0.05,
                    out_of_time=lambda end=end: time.monotonic() > end,  # type: ignore[misc]
                )
                self.counts["conflicts"] += report.conflicts
                self.counts["passes"] += 1
            except TrainyardError as error:
                self.counts[type(error).__name__] += 1
            self.storm.wait(random.uniform(0, 0.4 * self.dispatchers))

    def recorder(self) -> None:
        while not self.over.is_set():
            batch: list[StatusEvent] = []
            with suppress(queue.Empty):
                batch.append(self.executions.events.get(timeout=0.2))
                while len(batch) < 10:
                    batch.append(self.executions.events.get_nowait())
            if batch:
                try:
                    self.record.settle(batch, self.now())
                except TrainyardError as error:
                    self.counts[f"recorder {type(error).__name__}"] += 1
                    for event in batch:
                        self.executions.events.put(event)

    def reconciler(self) -> None:
        while not self.over.wait(RECONCILE_EVERY):
            with suppress(TrainyardError):
                self.counts["missed ends found"] += len(self.reconcile.run(self.now() + AHEAD).ended)

    def run(self, dispatchers: int, console: Console) -> None:
        """Run all dispatchers at once at the start and every STORM_EVERY seconds, and a few at a time in between,
        because the local cloud handles only some hundred calls a second.
        """
        self.dispatchers = dispatchers
        threads = [threading.Thread(target=self.dispatcher, args=(n,)) for n in range(dispatchers)]
        threads += [threading.Thread(target=self.recorder) for _ in range(4)]
        threads.append(threading.Thread(target=self.reconciler))
        for thread in threads:
            thread.start()
        limit = time.monotonic() + 1800
        with console.status("dispatching") as status:
            while time.monotonic() < limit:
                time.sleep(1)
                if int(time.monotonic() - self.began) % STORM_EVERY == 0:
                    self.storm.set()
                    time.sleep(0.1)
                    self.storm.clear()
                    self.counts["storms"] += 1
                done, used = len(self.executions.names), self.scheduler.tables.ledger.read().used
                status.update(f"{done} of {self.requests} started, {used} slots held")
                if not console.is_terminal and int(time.monotonic()) % 15 == 0:
                    console.print(f"{done} of {self.requests} started, {used} slots held")
                idle = self.executions.events.empty() and not self.executions.alive["account"]
                if done == self.requests and idle:
                    break
        self.over.set()
        self.storm.set()
        for thread in threads:
            thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(prog="local.contention", description=__doc__)
    parser.add_argument("--dispatchers", type=int, default=100)
    parser.add_argument("--requests", type=int, default=1000)
    arguments = parser.parse_args()
    console = Console()
    with Cloud() as cloud:
        os.environ |= cloud.environment()
        clients.forget()
        create_tables(cloud.client("dynamodb"))
        names = {f"{name}_table": name for name in ("scheduler", "requests", "record", "tenants")}
        contest = Contest(DynamoStore(**names), arguments.requests, LIMITS)
        with console.status(f"enlisting {arguments.requests} requests"):
            contest.enlist()
        begin = time.monotonic()
        contest.run(arguments.dispatchers, console)
        # The last reconciliation finds the executions whose end events were lost at the very end.
        for _ in range(3):
            contest.reconcile.run(contest.now() + AHEAD)
        return tell(contest, arguments.dispatchers, time.monotonic() - begin, console)


def tell(contest: Contest, dispatchers: int, seconds: float, console: Console) -> int:
    peaks, limits = contest.executions.peaks, contest.limits
    bounds = {"account": limits.running_max}
    bounds |= {f"tier {t.name}": t.slots_max for t in limits.tiers}
    for owner in contest.tenants:
        owners_tier = limits.tier(owner.tier)
        assert owners_tier is not None
        bounds[f"tenant {owner.tenant_id}"] = limits.ceiling(owners_tier, owner.tenant_id)
    overshoot = sum(max(peaks[name] - bound, 0) for name, bound in bounds.items())
    leaked = contest.scheduler.tables.ledger.read().used
    executions = contest.executions.names
    console.print(
        f"{dispatchers} dispatchers, all at once {contest.counts['storms'] + 1} times, "
        f"{contest.requests} requests, {contest.counts['passes']:,} passes, "
        f"{contest.counts['conflicts']:,} commits lost to another dispatcher, {contest.executions.lost} "
        f"completion events lost, {contest.counts['missed ends found']} of them found by the reconciler, "
        f"{seconds:.0f} s"
    )
    told = ", ".join(f"{n} {peaks[n]} of {bounds[n]}" for n in ("account", "tier basic", "tier premium"))
    console.print(f"peaks: {told}")
    console.print(f"overshoot                                 {overshoot}")
    console.print(f"leaked slots after one reconcile period   {leaked}")
    console.print(f"executions per request                    {max(executions.values(), default=0)} at most, "
                  f"{len(executions)} of {contest.requests} requests")  # fmt: skip
    good = overshoot == leaked == 0 and set(executions.values()) == {1} and len(executions) == contest.requests
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
