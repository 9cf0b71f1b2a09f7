"""The whole service in one thread: the real use cases over ports with faults, simulated queues and timers."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from simulation.checks import Checks, Violation
from simulation.clock import BEGIN, Agenda
from simulation.cloud import Execution, Queue, SageMaker, SimulatedJob
from simulation.narrow import narrow_limits
from simulation.scenario import Scenario, choices
from simulation.trouble import Crash, Trouble, Troubled
from testing.memory_ports import (
    MemoryAnnouncements,
    MemoryReceipts,
    MemoryResults,
    MemoryTenants,
)
from testing.memory_store import MemoryStore
from testing.service import Service, scheduler_over
from trainyard.application.ports import AT_ONCE, InputData
from trainyard.application.scheduling.dispatch import PassRecord, PassReport
from trainyard.application.scheduling.enlistment import Enlisted, Enlistment
from trainyard.application.scheduling.intake import Arrival, Verdict
from trainyard.application.scheduling.record import Recorded, StatusEvent
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.contracts import decisions
from trainyard.domain import admission
from trainyard.domain.arrivals import RetrainingAsked, UploadArrived
from trainyard.domain.errors import Malformed, Refused, TrainyardError
from trainyard.domain.pipelines import TRAINING_TYPES
from trainyard.domain.policy import Policy
from trainyard.domain.prices import JobKind
from trainyard.domain.requests import TERMINAL, Content, Outcome, Request, State, Submission
from trainyard.domain.resources import SLOTS, ResourceProfile, tier_slots
from trainyard.domain.retraining import Trigger
from trainyard.domain.scheduling import Plan, Snapshot
from trainyard.domain.tenants import Tenant, TrainOn
from trainyard.persistence.bell import BELL, BellRing, Hint, bell_ring_from, ring, wakes_dispatcher
from trainyard.persistence.ledger import LEDGER
from trainyard.persistence.policies import Policies
from trainyard.persistence.run_history import past_key
from trainyard.persistence.store import Item, Key, Put, Update, Write

ACCOUNT = "123456789012"
DEPTH_MAX = 4
"""The number of nested callers, each of which interrupts the one before in the middle of a call."""
DRAIN = timedelta(days=3)
PASS_TIME = timedelta(minutes=3)
"""How long a pass may take here, whose calls stall; it decides by the time at which it began."""
PAGES_CUT, READS_TORN = 0.05, 0.003
"""The shares of pages that end early, and of items of a batch before which other callers write."""


class _CheckedStore(MemoryStore):
    """A store that is checked after every transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.checks: Checks | None = None

    def transact(self, writes: Sequence[Write]) -> None:
        super().transact(writes)
        if self.checks is not None:
            self.checks.transacted(writes)


@dataclass
class _DataSets:
    """The tenants' data; a whole prefix contains more than its newest object."""

    contents: dict[tuple[str, str], list[Content]] = field(default_factory=dict)

    def content_of(self, tenant: Tenant, data_set: str) -> Content | None:
        found = self.contents.get((tenant.tenant_id, data_set), [])
        return replace(max(found, key=lambda c: c.event_time), sequencer="") if found else None

    def names(self, tenant: Tenant) -> list[str]:
        return sorted(data_set for owner, data_set in self.contents if owner == tenant.tenant_id)

    def write_manifest(self, tenant: Tenant, request: Request) -> InputData:
        if tenant.settings_for(request.data_set).train_on is TrainOn.NEWEST_OBJECT:
            return InputData(request.content.size_bytes)
        newest = {c.key: c.size_bytes for c in self.contents[tenant.tenant_id, request.data_set]}
        return InputData(min(sum(newest.values()), 1000 * 1024 * 1024))


class OddResults(MemoryResults):
    """Results as a tenant's own script may write them: sometimes with numbers that DynamoDB or its SDK refuses."""

    ODD = (1e-200, 5e-324, -1e-131, 1e30, -1e30, 0.1 + 0.2)

    def __init__(self, trouble: Trouble) -> None:
        super().__init__()
        self._trouble = trouble

    def read(self, tenant: Tenant, request: Request) -> Outcome:
        if not self._trouble.strikes("odd number in a result", 0.05):
            return self.outcome
        number = int(request.request_id, 16) + request.attempt
        return Outcome(quality=self.ODD[number % len(self.ODD)], quality_metric="r2")


class Simulator:
    """Runs a scenario."""

    def __init__(self, scenario: Scenario, *, share: float = 0.15, keep_log: bool = False) -> None:
        self.scenario = scenario
        self.random = Random(f"{scenario.seed} trouble")
        self.agenda = Agenda()
        self.counts: Counter[str] = Counter()
        self.log_hash = hashlib.sha256()
        self.log_lines: list[str] | None = [] if keep_log else None
        self.steps = self.depth = self.passes_under_way = 0
        self.trouble = Trouble(self.agenda, self.random, share, self.others_first, self.log, counts=self.counts)
        self.trouble.active = share > 0
        self.trouble.lost = self.answer_lost
        self.versions: dict[int, Policy] = {}
        self.accepted: set[str] = set()
        self.running = True
        self.unheard: set[str] = set()
        """Executions whose first event is lost as well."""
        self._build()

    # --- the service ----------------------------------------------------------------------------------------

    def _build(self) -> None:
        scenario = self.scenario
        self.store = _CheckedStore()
        self.sagemaker = SageMaker(
            self.agenda, self.trouble, scenario.sagemaker_quota, self.run_of, self.tell_status
        )
        tenants = {tenant.tenant_id: tenant for tenant in scenario.tenants}
        self.checks = Checks(
            self.store,
            self.sagemaker,
            clock=lambda: self.agenda.now,
            skew=timedelta(seconds=scenario.skew_seconds) + PASS_TIME,
            policy_of=self.versions,
            interval_of=lambda tenant_id, data_set: timedelta(
                minutes=tenants[tenant_id].settings_for(data_set).retraining.interval_minutes
            ),
        )
        self.store.checks = self.checks
        self.store.clock = self._seconds
        self.store.lag_seconds_max = scenario.index_lag_seconds
        self.store.met = self.counts
        self.store.unkind = lambda what: self.trouble.active and self.random.random() < PAGES_CUT
        self.store.between_reads = self.torn_read
        self.store.stream = self.streamed
        self.sagemaker.changed = self.execution_changed
        self.versions[0] = scenario.policies[0]
        if scenario.past:
            self.store.transact([past_runs(*known) for known in scenario.past])
        self.texts = {"0": scenario.policies[0]}
        self.data_sets = _DataSets()
        self.uploads = self._queue("uploads", self.intake)
        self.status = self._queue("status", self.recorder)
        self.tiers = {
            tier.name: self._queue(f"tier-{tier.name}", self.enlister) for tier in scenario.policies[0].tiers
        }
        self.ring_planned = False
        self.rings: list[BellRing] = []
        store = Troubled(self.store, "store", self.trouble)
        executions = Troubled(self.sagemaker, "sagemaker", self.trouble)
        self.receipts = MemoryReceipts()
        self.service = Service(
            store=store,
            policies=self._policies(store),
            tenants=Troubled(MemoryTenants(*scenario.tenants, store=self.store), "tenants", self.trouble),
            receipts=Troubled(self.receipts, "receipts", self.trouble),
            announcements=Troubled(MemoryAnnouncements(), "announcements", self.trouble),
            bell=Troubled(self, "bell", self.trouble),
            data_sets=Troubled(self.data_sets, "data sets", self.trouble),
            executions=executions,
            reports=executions,
            results=Troubled(OddResults(self.trouble), "results", self.trouble),
            tier_queues=self,
            retrainings=self,
            backoff=self.rest,
            encode=_encode_pass if scenario.seed % 50 == 0 or scenario.narrow else None,
        )

    def _queue(self, name: str, consume: Callable[[list[Any]], set[int]]) -> Queue:
        return Queue(name, self.agenda, self.trouble, consume)

    def _policies(self, store: Any) -> Policies:
        return Policies(
            store=store,
            deployed="0",
            parse=lambda text, version: replace(self.texts[text], version=version),
            running_max=10_000,
        )

    # --- running --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run the scenario, end all faults, and check the final state; raises Violation."""
        narrow = narrow_limits(self.counts, bytes_too=self.scenario.seed % 2 == 0)
        with narrow if self.scenario.narrow else nullcontext():
            self._run()

    def _run(self) -> None:
        for upload in self.scenario.uploads:
            self.agenda.at(upload.at, lambda upload=upload: self.upload(upload.content))  # type: ignore[misc]
        for step in self.scenario.steps:
            self.agenda.at(step.at, lambda step=step: self.do(step))  # type: ignore[misc]
        self._timer(60, lambda: self.dispatcher(sweep=True))
        self._timer(300, lambda: self.reconciler(self._reconcile))
        self._timer(60, lambda: self.reconciler(self._find_ends))
        end = BEGIN + timedelta(hours=self.scenario.hours)
        while self.agenda.now < end and self.step():
            pass
        self.drain()
        self.checks.at_rest(self.accepted)

    def step(self) -> bool:
        self.steps += 1
        return self.agenda.step()

    def drain(self) -> None:
        """End all faults, as an operator would, and continue until nothing changes any more."""
        self.trouble.active = False
        self.store.lag = 0
        self.sagemaker.unmanaged, self.sagemaker.quota = 0, 1000
        self.sagemaker.retried.clear()
        self.scenario.outages.clear()
        self._generous()
        for queue in (self.uploads, self.status, *self.tiers.values()):
            queue.redrive()
        operator = self._operator()
        operator.tables.ledger.set_paused(False)
        for tier in self.scenario.policies[0].tiers:
            operator.tables.ledger.set_paused(False, tier.name)
        for tenant in self.scenario.tenants:
            operator.operations.set_tenant_paused(tenant.tier, tenant.tenant_id, False, self.agenda.now)
        end = self.agenda.now + DRAIN
        while self.agenda.now < end and self.step():
            if self.steps % 20 == 0 and self.at_rest():
                break
        self.running = False

    def _generous(self) -> None:
        """Apply a policy under which no request waits for ever."""
        last = self.scenario.policies[0]
        tiers = tuple(
            replace(tier, quota=4, borrowing_limit=0, lending_limit=0, budget=None) for tier in last.tiers
        )
        self.apply(replace(last, running_max=12, instance_quotas={}, tenants={}, windows=(), tiers=tiers))

    def at_rest(self) -> bool:
        known = self.checks.requests
        return (
            all(request_id in known for request_id in self.accepted)
            and all(State(item["state"]) in TERMINAL for item in known.values())
            and not self.checks.drift
            and not self.checks.outbox
            and not any(queue.messages for queue in (self.uploads, self.status, *self.tiers.values()))
        )

    def _operator(self) -> Scheduler:
        return scheduler_over(self.store)

    def _timer(self, seconds: float, action: Callable[[], Any]) -> None:
        def tick() -> None:
            self.agenda.after(seconds, tick)
            action()

        self.agenda.after(seconds, tick)

    def torn_read(self) -> None:
        """Let due actions write between two items of a batch: a batch is not a snapshot."""
        if self.trouble.active and self.random.random() < READS_TORN:
            self.counts["batch read torn"] += 1
            self.others_first()

    def others_first(self) -> None:
        """In the middle of a call, run due actions or another dispatcher's pass."""
        if self.depth >= DEPTH_MAX:
            return
        what = self.random.random()
        if what > 0.3:
            for _ in range(self.random.randint(1, 3)):
                upcoming = self.agenda.next_at()
                if upcoming is not None and upcoming <= self.agenda.now + timedelta(seconds=20):
                    self.step()
        if what < 0.6:  # sometimes for what has just been enlisted or has just ended
            self.dispatcher(sweep=self.random.random() < 0.5)

    def invoke(self, name: str, handler: Callable[[datetime], Any]) -> Any:
        """Run one invocation of a function with its own clock; errors are raised."""
        skew = self.random.uniform(-1, 1) * self.scenario.skew_seconds if self.trouble.active else 0.0
        self.store.lag = self.scenario.index_lag if self.trouble.active else 0
        self.log(f"{name} begins")
        self.depth += 1
        try:
            return handler(self.agenda.now + timedelta(seconds=skew))
        except Violation:
            raise
        except AssertionError as error:
            raise Violation("assertion", f"{name}: {error}") from error
        except (Crash, Exception) as error:
            self.log(f"{name} fails: {type(error).__name__}")
            raise
        finally:
            self.depth -= 1

    def _seconds(self) -> float:
        return self.agenda.now.timestamp()

    def answer_lost(self, name: str) -> None:
        """After a start without a response and an event, the dispatcher may be down for a long time."""
        if name == "sagemaker.start" and self.trouble.strikes("down after a lost start", 0.6):
            begin = self.agenda.now
            self.unheard.add(list(self.sagemaker.executions)[-1])
            self.scenario.outages.append((begin, begin + timedelta(minutes=self.random.uniform(14, 20))))

    # --- functions ------------------------------------------------------------------------------------------

    def intake(self, batch: list[Any]) -> set[int]:
        return set(self.invoke("intake", lambda now: self._receive(batch, now)))

    def _receive(self, batch: list[Arrival], now: datetime) -> set[int]:
        failed: set[int] = set()
        for number, result in enumerate(self.service.intake.receive(batch, now)):
            if isinstance(result, AssertionError):
                raise Violation("assertion", f"intake: {result}")
            if isinstance(result, Exception) or any(one.verdict is Verdict.UNSENT for one in result):
                failed.add(number)
        return failed

    def enlister(self, batch: list[Any]) -> set[int]:
        return set(self.invoke("enlist", lambda now: self._enlist(batch, now)))

    def _enlist(self, batch: list[Submission], now: datetime) -> set[int]:
        results = self.service.enlist.enlist_batch(batch, now)
        for enlisted in results:
            if isinstance(enlisted, AssertionError):
                raise Violation("assertion", f"enlist: {enlisted}")
            if isinstance(enlisted, Enlisted):
                self._count_enlisted(enlisted)
        return {number for number, enlisted in enumerate(results) if isinstance(enlisted, Exception)}

    def _count_enlisted(self, enlisted: Enlisted) -> None:
        if enlisted.kind in (Enlistment.REPLACED, Enlistment.OUTDATED):
            self.counts["superseded"] += 1
        if enlisted.kind is Enlistment.DUPLICATE:
            self.counts["upload delivered again"] += 1

    def recorder(self, batch: list[Any]) -> set[int]:
        return set(self.invoke("recorder", lambda now: self._record(batch, now)))

    def _record(self, events: list[StatusEvent], now: datetime) -> set[int]:
        failed: set[int] = set()
        results = self.service.record.settle(events, now)
        for number, (event, settled) in enumerate(zip(events, results, strict=True)):
            if isinstance(settled, AssertionError):
                raise Violation("assertion", f"recorder: {settled}")
            if isinstance(settled, Exception):
                self.counts["forged end refused"] += "SageMaker says" in str(settled)
                failed.add(number)
                continue
            if settled.recorded is Recorded.STALE and event.status not in ("Executing", "Stopping"):
                self.counts["duplicate finish"] += 1
            self.counts["retry by hand noted"] += settled.recorded is Recorded.UNMANAGED
            if settled.recorded is Recorded.REQUEUED:
                self.counts["failed and queued again"] += 1
                self.counts["went on on demand"] += self.sagemaker.executions[event.execution_arn].interrupted
        return failed

    def _each(self, batch: list[Any], handle: Callable[[Any], None]) -> set[int]:
        """Handle each message; return those that failed."""
        failed: set[int] = set()
        for number, one in enumerate(batch):
            try:
                handle(one)
            except Violation:
                raise
            except (Malformed, Refused):
                continue
            except AssertionError as error:
                raise Violation("assertion", str(error)) from error
            except Exception:
                failed.add(number)
        return failed

    def dispatcher(self, *, sweep: bool) -> None:
        """Run a pass, unless the dispatcher is down."""
        self.ring_planned = False
        if any(begin <= self.agenda.now < end for begin, end in self.scenario.outages):
            self.counts["dispatcher down"] += 1
            return
        self.passes_under_way += 1
        self.counts[f"dispatchers side by side: {self.passes_under_way}"] += 1
        before = sum(self.counts[name] for name in self._disturbing())
        try:
            self.invoke("dispatcher", lambda now: self._pass(now, sweep, before))
        except Violation:
            raise
        except (Crash, Exception):
            self.counts["pass failed"] += 1
        finally:
            self.passes_under_way -= 1

    def _pass(self, now: datetime, sweep: bool, before: int) -> None:
        older = self.scenario.older_code and self.trouble.strikes("pass by older code", 0.3)
        case = replace(self.service.dispatch, engine=older_decide if older else self._decide)
        rings, self.rings = self.rings, []
        report = case.run_pass(now, rings=rings, sweep=sweep)
        self._count_pass(report)
        if older:
            return
        clean = sum(self.counts[name] for name in self._disturbing()) == before
        if not clean or not report.complete or self.passes_under_way > 1:
            return
        if sweep:
            self.counts["passes looked at for idle slots"] += 1
            self.checks.nobody_left_out(now, partial=bool(report.snapshot.partial))
        elif report.hinted:
            self.counts["passes looked at for what they were not told of"] += 1
            self.checks.all_due_read(report.snapshot, now)

    def _decide(self, snapshot: Snapshot, policy: Policy, now: datetime, **named: Any) -> Plan:
        """Decide as the service does, and check what was decided."""
        plan = admission.decide(snapshot, policy, now, **named)
        self.checks.planned(snapshot, policy, now, plan)
        return plan

    def _disturbing(self) -> list[str]:
        """Return the faults that let others run or a call fail during a pass, so that what it read is outdated."""
        return [
            "throttled",
            "timed out before",
            "timed out after",
            "others went first",
            "conflict",
            "batch read torn",
        ]

    def _count_pass(self, report: PassReport) -> None:
        self.counts["conflict lost"] += report.conflicts
        self.counts["sweep adopted"] += sum(start.adopted for start in report.starts)
        self.counts["parked queues brought back"] += report.unparked
        self.counts["admitted by what rings named"] += report.hinted and bool(report.admissions)
        for decision in report.admissions:
            self.counts["borrowed"] += decision.borrowed
            self.counts["backfilled"] += decision.backfilled
            self.counts["urgent first"] += decision.urgent
            self.counts["expedited first"] += decision.expedited
            self.counts["hopeless"] += decision.entry.is_urgent and not decision.urgent
            self.counts["above a cap"] += decision.above_cap and not decision.entry.is_short
            self.counts["above a cap, short"] += decision.above_cap and decision.entry.is_short
            self.counts["reclaimed"] += self._reclaims(decision.queue.tier, report)
            self.counts["counted ahead"] += bool(decision.ahead)
        noted, epoch = report.snapshot.ledger.epoch, report.policy.epoch
        self.counts["limits changed"] += noted is not None and epoch is not None and noted < epoch
        for wait in report.plan.waits:
            self.counts[f"waits: {wait.reason.name}"] += 1

    def _reclaims(self, tier: str, report: PassReport) -> bool:
        """Tell whether a tier took back a slot while another one holds more than its quota."""
        ledger = report.snapshot.ledger
        return any(
            ledger.used_of_tier(other.name) > other.quota for other in report.policy.tiers if other.name != tier
        )

    def reconciler(self, work: Callable[[datetime], None]) -> None:
        try:
            self.invoke("reconciler", work)
        except Violation:
            raise
        except (Crash, Exception):
            self.counts["reconcile failed"] += 1

    def _find_ends(self, now: datetime) -> None:
        for alarm in self.service.deadline_watch.watch(now):
            self.counts[alarm.what] += 1
            self.checks.alarmed(alarm.request.request_id, alarm.what)
        repairs = self.service.reconcile.find_ends(now)
        self.counts["missed end found once overdue"] += len(repairs.ended)
        self.counts["instances given back"] += len(repairs.selected)

    def _reconcile(self, now: datetime) -> None:
        repairs = self.service.reconcile.run(now)
        self.counts["ledger corrected"] += bool(repairs.recounted)
        self.counts["missed end found"] += len(repairs.ended)
        self.counts["slot released"] += len(repairs.released)
        self.counts["foreign counted"] += repairs.unmanaged or 0
        relayed = self.service.outbox.relay(now)
        self.counts["record corrected"] += len(relayed.corrected)
        self.counts["told of money"] += len(relayed.published)

    # --- ports that the simulator implements ----------------------------------------------------------------

    def ask(self, asked: Sequence[RetrainingAsked], *, spread: timedelta = AT_ONCE) -> None:
        """Let the retrainings of all data sets arrive one by one."""
        for one in asked:
            self.uploads.send(one)

    def send(self, submissions: Sequence[Submission]) -> dict[str, str]:
        """Implements TierQueues; SQS takes all of a batch, some of it, or none."""
        accepted = [one for one in submissions if not self.trouble.strikes("batch sent in part", 0.03)]
        unsent = {one.request_id: "InternalError: simulated" for one in submissions if one not in accepted}
        try:
            self.trouble.around("tier queues.send", lambda: self._send(accepted))
        except TrainyardError as error:
            return unsent | dict.fromkeys((submission.request_id for submission in accepted), str(error))
        return unsent

    def _send(self, submissions: Sequence[Submission]) -> None:
        for submission in submissions:
            self.checks.submitted.setdefault(submission.request_id, []).append(submission.content)
            self.accepted.add(submission.request_id)
            self.tiers[submission.tier].send(submission)

    def ring(self, hints: Sequence[Hint] = ()) -> None:
        """Implements Bell."""
        self.store.transact([ring(hints)])

    def streamed(self, key: Key, item: Item) -> None:
        """Wake the dispatcher for items of the table's stream, as the template filters them."""
        if wakes_dispatcher(key, item) and not self.trouble.strikes("ring lost", 0.1):
            if key == BELL:
                self.rings.append(bell_ring_from(item))
            if not self.ring_planned:
                self.ring_planned = True
                self.agenda.after(0.2, lambda: self.dispatcher(sweep=False))

    def ring_at(self, when: datetime, now: datetime, hints: Sequence[Hint] = ()) -> None:
        delay = min(max((when - now).total_seconds(), 0) + 1, 900)
        if not self.trouble.strikes("delayed ring lost", 0.02):
            self.agenda.after(delay, lambda: self.ring(hints))
        if self.trouble.strikes("delayed ring doubled", 0.02):
            self.agenda.after(delay + 30, lambda: self.ring(hints))

    def rest(self, number: int) -> None:
        self.agenda.pass_time(0.01 * 2**number)

    def tell_status(self, execution: Execution) -> None:
        """Send a status event, which may be lost, duplicated or late."""
        if execution.status in ("Executing", "Stopping") and self.scenario.seed % 2:
            return  # as the rule in the template does; a deployment may have another
        event = StatusEvent(
            display_name=execution.name,
            status=execution.status,
            execution_arn=execution.arn,
            description=execution.description,
        )
        if self.trouble.strikes("event lost", 0.1):
            return
        copies = 2 if self.trouble.strikes("event doubled", 0.1) else 1
        for _ in range(copies):
            late = 86_400 if self.trouble.strikes("event a day late", 0.02) else 0
            delay = late + self.random.uniform(0.1, 1 if not self.trouble.active else 30)
            self.agenda.after(delay, lambda: self._deliver(event))

    def forged(self, execution: Execution) -> None:
        """Report the end of a running execution that has not ended, which must not release its slot."""
        if execution.status == "Executing" and self.trouble.strikes("end forged", 0.05):
            forged = StatusEvent(
                display_name=execution.name,
                status="Succeeded",
                execution_arn=execution.arn,
                description=execution.description,
            )
            self.agenda.after(self.random.uniform(1, 600), lambda: self._forge(execution, forged))

    def _forge(self, execution: Execution, event: StatusEvent) -> None:
        if execution.alive:
            self.status.send(event)

    def retried(self, execution: Execution) -> None:
        """Retry a failed execution by hand (RetryPipelineExecution), with the same ARN and name."""
        if execution.status == "Failed" and self.trouble.strikes("retried by hand", 0.1):
            self.agenda.after(self.random.uniform(30, 600), lambda: self._retry(execution))

    def _retry(self, execution: Execution) -> None:
        """Send the event of a retry, unless it is lost; the execution and its cost do not change."""
        if not self.trouble.active:
            return
        until = self.agenda.now + timedelta(seconds=self.random.uniform(300, 1200))
        self.sagemaker.retried[execution.arn] = until
        event = StatusEvent(
            display_name=execution.name, status="Executing", execution_arn=execution.arn, previous="Failed"
        )
        if not self.trouble.strikes("event lost", 0.3):
            self.agenda.after(self.random.uniform(0.1, 30), lambda: self.status.send(event))

    def _deliver(self, event: StatusEvent) -> None:
        if event.execution_arn not in self.unheard or event.status != "Executing":
            self.status.send(event)

    def execution_changed(self, execution: Execution) -> None:
        if execution.status == "Executing":
            self.checks.executed(execution.name)
        self.forged(execution)
        self.retried(execution)

    def run_of(self, parameters: dict[str, str], execution: Execution) -> None:
        """Decide how long the jobs of an execution last and how it ends; jobs that run too long are stopped."""
        random = Random(f"{self.scenario.seed} {execution.name}")
        limit = int(parameters["MaxRuntimeSeconds"])
        wanted = random.choice([40, 200, 600, 1500, 6000]) * random.uniform(0.5, 1.5)
        profile = ResourceProfile(
            parameters["ProcessingInstanceType"],
            tuple(parameters[name] for name in TRAINING_TYPES if name in parameters),
            int(parameters["TrainingInstanceCount"]),
            int(parameters["TrainingVolumeSizeGB"]),
        )
        # What becomes of spot capacity is drawn by itself, as is which type has capacity.
        market = Random(f"{self.scenario.seed} {execution.name} spot")
        wait_max = int(parameters.get("MaxWaitSeconds", 0)) - limit
        processing = (JobKind.PROCESSING, profile.processing, 1, profile.volume_gb)
        # Which type has capacity is drawn by itself, so that the executions of other policies stay as they are.
        selected = Random(f"{self.scenario.seed} {execution.name} capacity").choice(profile.training)
        training = (JobKind.TRAINING, selected, profile.instances, profile.volume_gb)
        jobs: list[SimulatedJob] = []
        for step, job, share in (
            ("preprocess", processing, 0.15),
            ("train", training, 0.7),
            ("evaluate", processing, 0.15),
        ):
            seconds = max(int(wanted * share), 1)
            on_spot = step == "train" and wait_max > 0
            if on_spot and market.random() < 0.4:
                jobs.append(SimulatedJob(step, *job, seconds=limit + wait_max, waits=wait_max))
                self._take_away(execution, market)
                break
            overdue = seconds > limit
            waits = market.randint(0, wait_max) if on_spot else None
            runs = limit + random.randint(0, 119) if overdue else seconds
            jobs.append(SimulatedJob(step, *job, seconds=runs + (waits or 0), waits=waits))
            if overdue:
                execution.end, execution.failure = "Failed", "MaxRuntimeExceeded: simulated"
                self.counts["stopped at its maximum runtime"] += 1
                break
        execution.jobs = tuple(jobs)
        execution.ends_at = self.agenda.now + timedelta(seconds=sum(job.seconds for job in jobs))
        if execution.failure:
            return
        draw = random.random()
        if draw < 0.08:
            execution.end, execution.failure = "Failed", "CapacityError: Unable to provision"
        elif draw < 0.16:
            execution.end, execution.failure = "Failed", "AlgorithmError: bad data"
        elif draw < 0.18:
            execution.end, execution.failure = "CompletedWithFailures", "AlgorithmError: bad data"

    def _take_away(self, execution: Execution, market: Random) -> None:
        """End an execution as if SageMaker had no spot capacity for it any more."""
        execution.end, execution.failure = market.choice(["Failed", "Stopped"]), "simulated"
        execution.interrupted = True
        self.counts["spot capacity taken away"] += 1

    # --- what people do -------------------------------------------------------------------------------------

    def upload(self, content: Content) -> None:
        """Upload an object, whose event may be duplicated or late, but is not lost."""
        tenant_id = content.bucket.removeprefix("bucket-")
        data_set = content.key.split("/")[1]
        self.data_sets.contents.setdefault((tenant_id, data_set), []).append(content)
        arrival = UploadArrived(account_id=ACCOUNT, content=content)
        copies = 3 if self.trouble.strikes("upload event tripled", 0.1) else 1
        for _ in range(copies):
            delay = 86_400 if self.trouble.strikes("upload event a day late", 0.02) else 0.1
            self.agenda.after(delay, lambda: self.uploads.send(arrival))

    def do(self, step: Any) -> None:
        """Carry out an operator's step; it is retried until it succeeds."""
        self.log(f"operator: {step.what} {step.subject} {step.number}")
        try:
            self._do(step)
        except (Crash, Refused):
            return
        except Violation:
            raise
        except Exception:
            self.agenda.after(30, lambda: self.do(step))

    def _do(self, step: Any) -> None:
        scheduler, now = self._operator(), self.agenda.now
        tenant = next((t for t in self.scenario.tenants if t.tenant_id == step.subject), None)
        match step.what:
            case "policy":
                self.apply(self.scenario.policies[step.number])
            case "pause" | "resume":
                scheduler.tables.ledger.set_paused(step.what == "pause")
            case "pause tier" | "resume tier":
                scheduler.tables.ledger.set_paused(step.what == "pause tier", step.subject)
            case "pause tenant" | "resume tenant":
                assert tenant is not None
                scheduler.operations.set_tenant_paused(
                    tenant.tier, tenant.tenant_id, step.what == "pause tenant", now
                )
                self.ring()
            case "stop":
                self._stop_one(step.subject)
            case "retrain":
                asked = RetrainingAsked(
                    account_id=ACCOUNT,
                    event_id=f"ask-{now}",
                    tenant_id=step.subject,
                    data_set=None,
                    trigger=Trigger.PERSON if now.minute % 2 else Trigger.SCHEDULE,
                )
                self.uploads.send(asked)
            case "expedite":
                waiting = [i for i, item in self.checks.requests.items() if item["state"] == "QUEUED"]
                mine = [i for i in waiting if self.checks.requests[i]["tenant_id"] == step.subject]
                for request_id in mine[-2:]:
                    self.service.expedite.expedite(request_id, now, by="operator", why="simulated")
                    self.counts["expedited"] += 1
            case "unmanaged":
                self.sagemaker.unmanaged = step.number
                self.counts["started by hand"] += step.number
                self.agenda.after(1200, self._no_foreign)
            case "drift":
                self._drift(step.subject)

    def _no_foreign(self) -> None:
        self.sagemaker.unmanaged = 0

    def _stop_one(self, tenant_id: str) -> None:
        of_tenant = [
            request_id
            for request_id, item in self.checks.requests.items()
            if item["tenant_id"] == tenant_id and State(item["state"]) not in TERMINAL
        ]
        if of_tenant:
            stopped = self.service.stop.stop(self.random.choice(of_tenant), self.agenda.now)
            self.counts["cancelled" if stopped.state is State.CANCELLED else "stopped"] += 1

    def _drift(self, tenant_id: str) -> None:
        """Count a slot as taken that no request holds, as a manual edit could."""
        tier = next(t.tier for t in self.scenario.tenants if t.tenant_id == tenant_id)
        self.checks.drift = {SLOTS: 1, tier_slots(tier): 1}
        self.counts["ledger put wrong by hand"] += 1
        self.store.checks = None
        self.store.transact(
            [Update(LEDGER, add={f"used/{SLOTS}": 1, f"used/{tier_slots(tier)}": 1, "usage_version": 1})]
        )
        self.store.checks = self.checks
        self.checks.ledger_before = self._operator().tables.ledger.read()

    def apply(self, policy: Policy) -> None:
        book = self._policies(self.store)
        version = book.in_force().version + 1
        text = str(version)
        self.texts[text] = policy
        self.versions[version] = replace(policy, version=version)
        book.apply(text, self.agenda.now)
        self.counts["policy changed"] += 1
        self.ring()

    def log(self, line: str) -> None:
        text = f"{self.steps} {self.agenda.now.isoformat()} {line}"
        self.log_hash.update(text.encode())
        if self.log_lines is not None:
            self.log_lines.append(text)


def _encode_pass(record: PassRecord) -> bytes:
    return decisions.encode_pass(record)  # looked up at each call: `narrow_limits` counts there


def past_runs(tenant_id: str, data_set: str, seconds: int) -> Put:
    """Return what records four runs of a data set, each of which took so long."""
    profile = ResourceProfile.of(choices(2)[0])
    run = [seconds, seconds // 2, Decimal("0.01"), 1024 * 1024, str(profile)]
    return Put(past_key(tenant_id, data_set), {"runs": [run] * 4, "revision": 1})


def older_decide(snapshot: Snapshot, policy: Policy, now: datetime, *, admissions_max: int = 25) -> Plan:
    """Decide like previous code, without borrowing, with hard caps, and with one admission at a time."""
    plan = admission.decide(snapshot, policy, now, admissions_max=admissions_max)
    own = [decision for decision in plan.admissions if not (decision.borrowed or decision.above_cap)][:1]
    left_out = {one.queue.tenant_id for one in plan.admissions if one not in own}
    # The wait reasons of the other queues depend on admissions that it does not make.
    waits = [wait for wait in plan.waits if wait.queue.tenant_id not in left_out]
    return replace(plan, admissions=tuple(own), waits=tuple(waits), capacity_holds={})
