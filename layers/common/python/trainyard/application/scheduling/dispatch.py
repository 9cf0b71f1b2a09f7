"""Dispatch: one pass reads, decides, commits and starts. Only the dispatcher may start pipelines."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from trainyard.application.ports import Bell
from trainyard.application.scheduling.admission import ReadSet
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.application.scheduling.starts import Begun, Start, Started, Starts
from trainyard.domain.admission import ENGINE_VERSION, decide
from trainyard.domain.errors import (
    Conflict,
    OutcomeUnknown,
    Throttled,
)
from trainyard.domain.policy import Policy
from trainyard.domain.queues import TenantQueue
from trainyard.domain.scheduling import Decision, Ledger, Plan, Reason, Snapshot
from trainyard.persistence.ledger import BellRing
from trainyard.persistence.policies import Policies
from trainyard.persistence.tenant_queues import Backlog

ADMISSIONS_MAX = 48
"""Of one transaction: request and place of each, the tenants' queues, the ledger, and what is kept of the pass
stay below the 100 actions of a TransactWriteItems (DynamoDB developer guide, "Service quotas"); what does not fit
goes in the next round."""

KEPT_BYTES_MAX = 300_000
"""Of what is kept of a pass: an item takes 400 KB, and no pass may fail for its own record."""

RECORDED_AT_ONCE = 50
"""Starts: what a pass has begun is recorded once there are more, and at its end."""

ROUNDS_MAX = 20
"""Of reading, deciding and committing in one pass; the timer and the bell bring the next pass."""

RESTS_GROW = 5
"""After so many lost commits the rest before the next one grows no longer."""

TIMER = timedelta(minutes=1)
"""Between two passes at the most; what is due later needs no ring of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRecord:
    """What is kept of a pass: enough to decide it again."""

    at: datetime
    engine_version: int
    policy: Policy
    snapshot: Snapshot
    admissions_max: int
    plan: Plan


@dataclass(slots=True, kw_only=True)
class PassReport:
    """What one pass saw and did."""

    policy: Policy
    snapshot: Snapshot
    plan: Plan
    starts: list[Start] = field(default_factory=list)
    unrecorded: list[Begun] = field(default_factory=list)
    """What was started since the starts were recorded last."""
    admissions: list[Decision] = field(default_factory=list)
    conflicts: int = 0
    unparked: int = 0
    hinted: bool = False
    """Whether it read what rings named, and no more."""
    complete: bool = False
    """Whether the last round found that nobody more may go."""

    @property
    def is_stuck(self) -> bool:
        """Whether nothing was started although a request could have been.

        Either the outcome of every start is unknown, or a request was left over only because a pass admits no more
        at once.
        """
        results = {start.result for start in self.starts}
        left_over = any(decision.reason is Reason.BATCH_FULL for decision in self.plan.waits)
        return Started.RUNNING not in results and (Started.UNKNOWN in results or left_over)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    policies: Policies
    scheduler: Scheduler
    starts: Starts
    bell: Bell
    encode: Callable[[PassRecord], bytes] | None = None
    """How what is kept of a pass is written; None to keep nothing."""
    engine: Callable[..., Plan] = decide

    def run_pass(
        self,
        now: datetime,
        *,
        rings: Sequence[BellRing] = (),
        sweep: bool = True,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> PassReport:
        """Fill the free slots; returns when nobody more may go, or when it is `out_of_time`.

        Safe beside other passes: a commit holds only for the ledger that it was decided on. With `sweep`, what
        was cut off is taken up again, what was parked under another policy is looked at, and all that waits
        is read, whatever the `rings` that it answers say.
        """
        policy = self.policies.current() if sweep else self.policies.last_read()
        starts: list[Start] = []
        unparked = 0
        if sweep:
            # 0. What was admitted but, as far as we know, never started: found, or started once more.
            starts = self.starts.recover_all(policy, now, out_of_time)
            with suppress(Conflict, Throttled, OutcomeUnknown):
                unparked = self.scheduler.admitter.unpark(policy, now, out_of_time=out_of_time)
        report = PassReport(
            policy=policy,
            snapshot=Snapshot(ledger=Ledger(admission_version=0), queues=()),
            plan=Plan(admissions=(), waits=(), virtual_time_by_tier={}, capacity_holds={}, starts_from=None),
            starts=starts,
            unparked=unparked,
        )
        try:
            self._rounds(report, None if sweep else rings, now, out_of_time)
        finally:
            self._record(report, now)
        self._after(report, now, out_of_time)
        return report

    def measure(self, report: PassReport) -> tuple[Ledger, dict[str, Backlog]]:
        """Return the ledger after a pass and, by tier, how much waits; reads every queue in which something waits.

        Where more waits than a pass reads, the weight of all that wait is kept for the next passes.
        """
        tables = self.scheduler.tables
        ledger = report.snapshot.ledger if report.complete else tables.ledger.read()
        backlog = tables.queues.backlog(report.policy)
        if report.snapshot.partial:
            with suppress(Conflict):
                tables.ledger.note_weights({tier: waiting.weight for tier, waiting in backlog.items()})
        return ledger, backlog

    def _rounds(
        self,
        report: PassReport,
        rings: Sequence[BellRing] | None,
        now: datetime,
        out_of_time: Callable[[], bool],
    ) -> None:
        """Repeat the five steps until nobody more may be admitted; `rings` of None reads all waiting requests."""
        read_set: ReadSet | None = None
        for _ in range(ROUNDS_MAX):
            if out_of_time():
                break
            try:
                # 1. Read the ledger and the heads of the tenant queues; after a commit they are known already.
                read_set = read_set or self.scheduler.admitter.read(report.policy, now, rings)
                report.snapshot = read_set.snapshot
                report.hinted |= read_set.from_hints
                # 2. Decide, purely.
                report.plan = self.engine(read_set.snapshot, report.policy, now, admissions_max=ADMISSIONS_MAX)
                if not report.plan.admissions:
                    if self._made_room(report, now, out_of_time):
                        read_set = rings = None
                        continue
                    self._note_waiting(report, read_set)
                    report.complete = True
                    break
                # 3. Commit: all of them are admitted and their slots taken, or nothing changes.
                record = self._record_of(report, now)
                committed = self.scheduler.admitter.commit(
                    report.plan, read_set, report.policy, now, record=record
                )
                report.admissions += committed.admissions
                # 4. Start their executions; a start that is refused gives its slot back.
                begun = self.starts.start_all(committed, read_set.tenants, report.policy, now)
                report.unrecorded += begun
                # 5. Record what runs: many starts in one transaction, the last ones when the pass ends.
                if len(report.unrecorded) > RECORDED_AT_ONCE:
                    self._record(report, now)
                freed = any(begin.start.result in (Started.DELAYED, Started.FAILED) for begin in begun)
                read_set = None if freed else committed.read_set
                if read_set is None and committed.full and not freed:
                    report.complete = True
                    break
            except Conflict:
                read_set = None
                report.conflicts += 1
                self.scheduler.tables.transactions.backoff(min(report.conflicts, RESTS_GROW))
                report.policy = self.policies.current()

    def _note_waiting(self, report: PassReport, read_set: ReadSet) -> None:
        """Let the next end wake a pass, if something waits or may. Raises Conflict when one came in between."""
        if read_set.rings is None or read_set.snapshot.queues:
            self.scheduler.tables.ledger.note_waiting(read_set.ledger)

    def _made_room(self, report: PassReport, now: datetime, out_of_time: Callable[[], bool]) -> bool:
        """Set aside what cannot go where more waits than was read; True when others can be looked at now."""
        plan, snapshot = report.plan, report.snapshot
        parked = [parking for parking in plan.parked.values() if parking.queue.tier in snapshot.partial]
        if parked:
            self.scheduler.admitter.park(parked, report.policy, now, plan.month, out_of_time=out_of_time)
        return bool(parked)

    def _after(self, report: PassReport, now: datetime, out_of_time: Callable[[], bool]) -> None:
        """Keep why others wait, park what cannot go, and see to it that the next pass comes in time."""
        plan, snapshot = report.plan, report.snapshot
        with suppress(Conflict):
            if (
                report.complete
                and not plan.admissions
                and dict(plan.capacity_holds) != dict(snapshot.ledger.capacity_holds)
            ):
                self.scheduler.tables.ledger.note_capacity_holds(plan, snapshot.ledger)
        with suppress(Conflict):
            self.scheduler.admitter.park(
                plan.parked.values(), report.policy, now, plan.month, out_of_time=out_of_time
            )
        if plan.again_at is not None and plan.again_at < now + TIMER:
            self.bell.ring_at(plan.again_at, now)
        record = self._record_of(report, now) if report.complete and plan.waits and not report.admissions else None
        if record is not None:
            with suppress(Conflict):
                self.scheduler.admitter.keep_record(record, snapshot.ledger, now)

    def _record_of(self, report: PassReport, now: datetime) -> bytes | None:
        """Return what is kept of a pass; nothing of one that saw more than an item holds."""
        if self.encode is None:
            return None
        record = PassRecord(
            at=now,
            engine_version=ENGINE_VERSION,
            policy=report.policy,
            snapshot=_slim(report.snapshot),
            admissions_max=ADMISSIONS_MAX,
            plan=_slim_plan(report.plan),
        )
        encoded = self.encode(record)
        return encoded if len(encoded) <= KEPT_BYTES_MAX else None

    def _record(self, report: PassReport, now: datetime) -> None:
        """Record in one transaction what has been started, and tell of it; the sweeper finds what is not."""
        begun, report.unrecorded = report.unrecorded, []
        report.starts += self.starts.record(begun, now)


def _slim(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without what stands in it twice: the fronts of lanes beside their places."""
    queues = (replace(waiting, queue=_headed(waiting.queue)) for waiting in snapshot.queues)
    return replace(snapshot, queues=tuple(queues))


def _slim_plan(plan: Plan) -> Plan:
    return replace(
        plan,
        admissions=tuple(replace(decision, queue=_headed(decision.queue)) for decision in plan.admissions),
        waits=tuple(replace(decision, queue=_headed(decision.queue)) for decision in plan.waits),
    )


def _headed(queue: TenantQueue) -> TenantQueue:
    return replace(queue, profiles={name: replace(profile, behind=()) for name, profile in queue.profiles.items()})
