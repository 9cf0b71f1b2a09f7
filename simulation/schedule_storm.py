"""A storm of schedules: those of many tenants are due in one minute, with and without an outage (make schedules).

    python -m simulation.schedule_storm [--tenants 10000] [--seed 1] [--json]

Each tenant has one data set with new data and a schedule for midnight. The service's own code handles the events,
from intake to the ends of trainings, over a store in memory; an hourly watch looks for times without an event. In
each scenario it is checked that no limit is exceeded at any start, that every data set is trained on exactly once,
and that the next midnight, without new data, trains nothing.

    at once         the schedules say "within 0 minutes"
    spread          they say nothing: EventBridge spreads the events over 15 minutes
    outage          the service is down from midnight until one o'clock; the events wait in its queue
    events lost     as before, and one event in ten is lost
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from rich.console import Console
from rich.table import Table

from simulation.clock import Agenda
from testing import memory_ports as memory
from testing.memory_store import MemoryStore
from testing.service import ACCOUNT, PRICES, Service, policies_in_force
from trainyard.application.ports import AT_ONCE
from trainyard.application.scheduling.intake import Verdict
from trainyard.application.scheduling.record import StatusEvent
from trainyard.application.scheduling.retraining_watch import PARTS, RetrainingWatch
from trainyard.domain.algorithms import InstanceChoice
from trainyard.domain.arrivals import RetrainingAsked, delay_within
from trainyard.domain.policy import Policy, TierPolicy
from trainyard.domain.requests import Content, Outcome
from trainyard.domain.retraining import Trigger
from trainyard.domain.schedules import WITHIN_MINUTES
from trainyard.domain.tenants import Tenant, TenantState, TrainingSettings
from trainyard.persistence.inference import InferenceBook

MIDNIGHT = datetime(2026, 12, 1, tzinfo=UTC)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
RUNNING_MAX = 200
TIERS = {"basic": (80, 60), "standard": (60, 40), "premium": (60, 40)}
"""Tier → its quota, and what it may borrow beside it."""
DATA_SET = "sales"
INTAKE_PER_SECOND = 300
"""Messages that intake takes from its queue after an outage."""
TRAINING_SECONDS = (120, 900)
SPREAD_TOLERANCE = 1.3
"""How much more than an even share may arrive in the busiest minute, since the spread is random."""


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    within_minutes: int = WITHIN_MINUTES
    outage_minutes: int = 0
    """From midnight on: the service handles nothing."""
    lost: float = 0.0
    """The share of events that never come."""


SCENARIOS = (
    Scenario("at once", within_minutes=0),
    Scenario("spread"),
    Scenario("outage", outage_minutes=60),
    Scenario("events lost", outage_minutes=60, lost=0.1),
)


@dataclass(kw_only=True)
class Result:
    """What a scenario came to."""

    scenario: str
    tenants: int
    busiest_minute: int = 0
    """Most events that EventBridge delivered in a minute."""
    trainings: int = 0
    made_up_for: int = 0
    """Trainings for times of schedules without an event."""
    running_most: int = 0
    borrowed_most: int = 0
    """Most slots that tiers had above their quotas."""
    last_start_minutes: float = 0.0
    """After midnight."""
    next_night: int = 0
    """Trainings at the next midnight, without new data."""
    wrong: list[str] = field(default_factory=list)


def simulate(scenario: Scenario, tenants: int, seed: int = 1) -> Result:
    """Let one night and the next pass; deterministic."""
    return _Night(scenario, tenants, seed).run()


class _Night:
    def __init__(self, scenario: Scenario, count: int, seed: int) -> None:
        self.scenario, self.random = scenario, Random(f"schedules {seed}")
        self.result = Result(scenario=scenario.name, tenants=count)
        self.agenda = Agenda(now=MIDNIGHT - 3 * timedelta(hours=1))
        self.store, self.policy = MemoryStore(), _policy()
        names = list(TIERS)
        self.tenants = [_tenant(number, names[number % len(names)], scenario) for number in range(count)]
        self.executions = memory.MemoryExecutions()
        self.queues, self.data_sets = memory.MemoryTierQueues(), memory.MemoryDataSets()
        self.retrainings = memory.MemoryRetrainings()
        self.service = Service(
            store=self.store,
            policies=policies_in_force(self.store, self.policy),
            tenants=memory.MemoryTenants(*self.tenants, store=self.store),
            data_sets=self.data_sets,
            executions=self.executions,
            results=memory.MemoryResults(
                Outcome(trained_sha256="0" * 64, trained_files=1, model_package_arn="arn:package/1")
            ),
            tier_queues=self.queues,
            retrainings=self.retrainings,
        )
        self.watch = RetrainingWatch(
            account_id=ACCOUNT,
            store=self.store,
            tenants=self.service.tenants,  # type: ignore[arg-type]
            retrainings=self,
            models=memory.MemoryModels(),
            calls=InferenceBook(store=self.store, retention=timedelta(days=1)),
            captured=memory.MemoryCapturedInputs(),
        )
        self.started: set[str] = set()
        self.running: dict[str, str] = {}
        """Display name → tier of what runs."""
        self.trained: Counter[str] = Counter()
        self.pass_is_due = False

    def run(self) -> Result:
        for number, tenant in enumerate(self.tenants):
            self.data_sets.objects[tenant.tenant_id, DATA_SET] = [_content(tenant, number)]
        for hour in range(48):
            self.agenda.at(MIDNIGHT + timedelta(hours=hour - 2, minutes=7), self._look)
        for night in (0, 1):
            self._plan_events(MIDNIGHT + night * DAY, first=night == 0)
        self._until(MIDNIGHT + DAY)
        trained, last = sum(self.trained.values()), dict(self.trained)
        self._until(MIDNIGHT + 2 * DAY - timedelta(hours=4))
        self.result.trainings, self.result.next_night = trained, sum(self.trained.values()) - trained
        self._judge(last)
        return self.result

    def _plan_events(self, midnight: datetime, *, first: bool) -> None:
        """Let EventBridge deliver an event for each schedule, unless it is lost."""
        window = self.scenario.within_minutes * 60.0
        begins = midnight + timedelta(minutes=self.scenario.outage_minutes if first else 0)
        minutes: Counter[int] = Counter()
        waiting = 0
        for tenant in self.tenants:
            due = midnight + timedelta(seconds=self.random.uniform(0, window))
            if first and self.random.random() < self.scenario.lost:
                continue
            minutes[int((due - midnight) / MINUTE)] += 1
            event = RetrainingAsked(
                account_id=ACCOUNT,
                event_id=f"{midnight:%d} {tenant.tenant_id}",
                tenant_id=tenant.tenant_id,
                data_set=DATA_SET,
                trigger=Trigger.SCHEDULE,
            )
            if due < begins:  # it waits in the queue
                due = begins + timedelta(seconds=waiting / INTAKE_PER_SECOND)
                waiting += 1
            self.agenda.at(due, lambda event=event: self._arrive(event))  # type: ignore[misc]
        if first:
            self.result.busiest_minute = max(minutes.values())

    def _until(self, end: datetime) -> None:
        while (at := self.agenda.next_at()) is not None and at < end:
            self.agenda.step()

    # --- what happens ---------------------------------------------------------------------------------------

    def ask(self, asked: Sequence[RetrainingAsked], *, spread: timedelta = AT_ONCE) -> None:
        """Implements Retrainings."""
        self.result.made_up_for += len(asked)
        for each in asked:
            self.agenda.after(delay_within(spread, each), lambda each=each: self._arrive(each))  # type: ignore[misc]

    def _look(self) -> None:
        in_outage = MIDNIGHT <= self.agenda.now < MIDNIGHT + timedelta(minutes=self.scenario.outage_minutes)
        if not in_outage:
            for part in range(PARTS):
                watched = self.watch.run(self.agenda.now, part=part)
                self.result.wrong += [f"watch: {error}" for error in watched.failed.values()]

    def _arrive(self, event: RetrainingAsked) -> None:
        (judgements,) = self.service.intake.receive([event], self.agenda.now)
        if isinstance(judgements, Exception):
            self.result.wrong.append(f"intake: {judgements}")
            return
        if any(judgement.verdict is Verdict.SUBMITTED for judgement in judgements):
            sent, self.queues.sent = self.queues.sent, []
            for enlisted in self.service.enlist.enlist_batch(sent, self.agenda.now):
                if isinstance(enlisted, Exception):
                    self.result.wrong.append(f"enlist: {enlisted}")
            self._pass_soon()

    def _pass_soon(self) -> None:
        """Plan a pass within a second; several events lead to one."""
        if not self.pass_is_due:
            self.pass_is_due = True
            self.agenda.after(1, self._pass)

    def _pass(self) -> None:
        self.pass_is_due = False
        self.service.dispatch.run_pass(self.agenda.now)
        for token, (name, parameters) in list(self.executions.by_token.items()):
            del self.executions.by_token[token]
            if name not in self.started:
                self.started.add(name)
                self.running[name] = parameters["TierName"]
                self.trained[parameters["TenantId"]] += 1
                self.agenda.after(self.random.uniform(*TRAINING_SECONDS), lambda name=name: self._end(name))  # type: ignore[misc]
                self._check_limits()

    def _end(self, name: str) -> None:
        del self.running[name]
        (settled,) = self.service.record.settle(
            [StatusEvent(display_name=name, status="Succeeded", execution_arn=f"arn/{name}")], self.agenda.now
        )
        if isinstance(settled, Exception):
            self.result.wrong.append(f"end: {settled}")
        self._pass_soon()

    # --- what must hold -------------------------------------------------------------------------------------

    def _check_limits(self) -> None:
        result, by_tier = self.result, Counter(self.running.values())
        result.running_most = max(result.running_most, len(self.running))
        result.last_start_minutes = max(
            result.last_start_minutes,
            round((self.agenda.now - MIDNIGHT) / MINUTE, 1) if self.agenda.now < MIDNIGHT + DAY else 0.0,
        )
        above = sum(max(by_tier[tier] - quota, 0) for tier, (quota, _) in TIERS.items())
        result.borrowed_most = max(result.borrowed_most, above)
        if len(self.running) > RUNNING_MAX:
            result.wrong.append(f"{len(self.running)} run at once, and {RUNNING_MAX} may")
        for tier, (quota, borrowing) in TIERS.items():
            if by_tier[tier] > quota + borrowing:
                result.wrong.append(f"{by_tier[tier]} of tier {tier} run at once, and {quota + borrowing} may")

    def _judge(self, trained: dict[str, int]) -> None:
        result, scenario = self.result, self.scenario
        untrained = len(self.tenants) - len(trained)
        twice = sum(count > 1 for count in trained.values())
        if untrained or twice:
            result.wrong.append(f"{untrained} data sets were not trained on, and {twice} more than once")
        if result.next_night:
            result.wrong.append(f"{result.next_night} trainings without new data")
        even = len(self.tenants) / max(scenario.within_minutes, 1)
        if scenario.within_minutes and result.busiest_minute > SPREAD_TOLERANCE * even + 10:
            result.wrong.append(f"{result.busiest_minute} events in a minute, and {even:.0f} are an even share")
        if self.service.scheduler.tables.ledger.read().used:
            result.wrong.append("slots are still taken")


def _policy() -> Policy:
    instances = InstanceChoice(
        data_mb_max=100,
        processing_instance_type="ml.t3.medium",
        training_instance_types=("ml.m5.large",),
        training_instance_count=1,
        training_volume_gb=30,
    )
    tiers = tuple(
        TierPolicy(
            name=name,
            quota=quota,
            borrowing_limit=borrowing,
            lending_limit=quota // 2,
            running_max_per_tenant=2,
            runtime_max=timedelta(hours=1),
            quality_min=0.5,
            instances=(instances,),
        )
        for name, (quota, borrowing) in TIERS.items()
    )
    return Policy(
        version=0,
        running_max=RUNNING_MAX,
        quiet_period=timedelta(0),
        delay_max=timedelta(minutes=5),
        start_retry_delay=timedelta(seconds=60),
        prices=PRICES,
        tiers=tiers,
    )


def _tenant(number: int, tier: str, scenario: Scenario) -> Tenant:
    settings = TrainingSettings(
        algorithm="linear", target="y", schedule=f"cron(0 0 * * ? *) within {scenario.within_minutes} minutes"
    )
    return Tenant(
        tenant_id=f"t{number}",
        state=TenantState.ACTIVE,
        tier=tier,
        bucket=f"bucket-t{number}",
        root="",
        role_arn=f"arn:aws:iam::{ACCOUNT}:role/t{number}",
        model_group=f"t{number}",
        settings=TrainingSettings(algorithm="linear", target="y"),
        data_sets={DATA_SET: settings},
    )


def _content(tenant: Tenant, number: int) -> Content:
    return Content(
        bucket=tenant.bucket,
        key=f"incoming/{DATA_SET}/data.csv",
        version_id="v1",
        etag=f"{number:032x}",
        sequencer="",
        size_bytes=1000,
        event_time=MIDNIGHT - DAY,
    )


def table(results: Sequence[Result]) -> Table:
    columns = (
        "scenario",
        "busiest minute",
        "trainings",
        "made up for",
        "most at once",
        "last start",
        "next night",
    )
    drawn = Table(*columns, title=f"{results[0].tenants:,} schedules for midnight, {RUNNING_MAX} slots")
    for result in results:
        drawn.add_row(
            result.scenario,
            f"{result.busiest_minute:,} events",
            f"{result.trainings:,}",
            f"{result.made_up_for:,}",
            f"{result.running_most} (borrowed {result.borrowed_most})",
            f"after {result.last_start_minutes / 60:.1f} h",
            f"{result.next_night:,}",
        )
    return drawn


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m simulation.schedule_storm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tenants", type=int, default=10_000, help="each with one schedule (default: 10000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    results = []
    for scenario in SCENARIOS:
        print(f"{scenario.name}: simulating two nights", file=sys.stderr)
        results.append(simulate(scenario, given.tenants, given.seed))
    if given.json:
        print(json.dumps([asdict(result) for result in results]))
    else:
        console = Console(width=120)
        console.print(table(results))
        for result in results:
            for line in list(dict.fromkeys(result.wrong))[:20]:
                console.print(f"[red]wrong[/red]: {result.scenario}: {line}")
    return int(any(result.wrong for result in results))


if __name__ == "__main__":
    sys.exit(main())
