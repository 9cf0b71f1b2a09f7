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
from trainyard.persistence.bell import BellRing, later_from
from trainyard.persistence.policies import Policies
from trainyard.persistence.tenant_queues import Backlog

ADMISSIONS_MAX = 48
"""Of one transaction: request and place of each, the tenants' queues, the ledger, and what is kept of the pass
stay below the 100 actions of a TransactWriteItems (DynamoDB developer guide, "Service quotas"); what does not fit
goes in the next round."""

KEPT_BYTES_MAX = 300_000
"""Largest record of a pass: an item holds 400 KB, and a pass must not fail because of its record."""

RECORDED_AT_ONCE = 50
"""Starts are recorded whenever more than this many are pending, and at the end of the pass."""

ROUNDS_MAX = 20
"""Rounds of reading, deciding and committing in one pass; the timer and the bell trigger the next pass."""

RESTS_GROW = 5
"""After this many lost commits the delay before the next one stops growing."""

TIMER = timedelta(minutes=1)
"""Longest time between two passes; what is due later needs no ring of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRecord:
    """The record of a pass: enough to replay its decision."""

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
    """Started, but not recorded yet."""
    admissions: list[Decision] = field(default_factory=list)
    conflicts: int = 0
    unparked: int = 0
    hinted: bool = False
    """Whether it read only what the rings named."""
    complete: bool = False
    """Whether the last round found nothing more to start."""

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
    """Serializes the record of a pass; None to keep no records."""
    engine: Callable[..., Plan] = decide

    def run_pass(
        self,
        now: datetime,
        *,
        rings: Sequence[BellRing] = (),
        sweep: bool = True,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> PassReport:
        """Fill the free slots; returns when nothing more may start, or when it is `out_of_time`.

        Safe beside other passes: a commit succeeds only on the ledger that it was decided on. With `sweep`, it
        also recovers interrupted starts, checks queues parked under another policy, and reads all waiting queues,
        whatever `rings` say.
        """
        policy = self.policies.current() if sweep else self.policies.last_read()
        starts: list[Start] = []
        unparked = 0
        if sweep:
            # 0. Recover admitted requests not known to have started: find their execution, or start it again.
            starts = self.starts.recover_all(policy, now, out_of_time)
            with suppress(Conflict, Throttled, OutcomeUnknown):
                unparked = self.scheduler.parking.unpark(policy, now, out_of_time=out_of_time)
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
        self._after(report, now, out_of_time, sweep=sweep)
        return report

    def measure(self, report: PassReport) -> tuple[Ledger, dict[str, Backlog]]:
        """Return the ledger after a pass and the backlog by tier; reads every queue with waiting requests.

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
                report.snapshot, report.policy = read_set.snapshot, read_set.policy
                report.hinted = read_set.from_hints
                # 2. Decide, purely.
                report.plan = self.engine(read_set.snapshot, report.policy, now, admissions_max=ADMISSIONS_MAX)
                if not report.plan.admissions:
                    if self._made_room(report, now, out_of_time):
                        read_set = rings = None
                        continue
                    self._note_waiting(read_set, now)
                    report.complete = True
                    with suppress(Conflict):
                        self.scheduler.admitter.put_bell_right(read_set, now)
                    break
                # 3. Commit: all of them are admitted and their slots taken, or nothing changes.
                record = self._record_of(report, now)
                committed = self.scheduler.admitter.commit(
                    report.plan, read_set, report.policy, now, record=record
                )
                report.admissions += committed.admissions
                # 4. Start their executions; a start that is refused gives its slot back.
                begun = self.starts.start_all(committed, read_set.tenants, report.policy, now, out_of_time)
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

    def _note_waiting(self, read_set: ReadSet, now: datetime) -> None:
        """Let the next end wake a pass, if something waits or may. Raises Conflict when one came in between."""
        later = later_from(read_set.bell)
        if read_set.rings is None or not all(later.settles(w.queue, now) for w in read_set.snapshot.queues):
            self.scheduler.tables.ledger.note_waiting(read_set.ledger)

    def _made_room(self, report: PassReport, now: datetime, out_of_time: Callable[[], bool]) -> bool:
        """Park queues that cannot start anything, if not all were read; True when others can be read instead."""
        plan, snapshot = report.plan, report.snapshot
        parked = [parking for parking in plan.parked.values() if parking.queue.tier in snapshot.partial]
        if parked:
            self.scheduler.parking.park(parked, report.policy, now, plan.month, out_of_time=out_of_time)
        return bool(parked)

    def _after(self, report: PassReport, now: datetime, out_of_time: Callable[[], bool], *, sweep: bool) -> None:
        """Record why requests wait, park what cannot start, and schedule the next pass."""
        plan, snapshot = report.plan, report.snapshot
        with suppress(Conflict):
            if (
                report.complete
                and not plan.admissions
                and dict(plan.capacity_holds) != dict(snapshot.ledger.capacity_holds)
            ):
                self.scheduler.tables.ledger.note_capacity_holds(plan, snapshot.ledger)
        with suppress(Conflict):
            epoch, noted = report.policy.epoch, snapshot.ledger.epoch
            if report.complete and epoch is not None and (noted is None or noted < epoch):
                self.scheduler.tables.ledger.note_epoch(epoch, snapshot.ledger)
        with suppress(Conflict):
            self.scheduler.parking.park(
                plan.parked.values(), report.policy, now, plan.month, out_of_time=out_of_time
            )
        # What waits for other limits may not have been read. One ring is enough, by the last timer's pass.
        times = (plan.again_at, report.policy.changes_at if sweep else None)
        again_at = min((when for when in times if when is not None), default=None)
        if again_at is not None and again_at < now + TIMER:
            self.bell.ring_at(again_at, now)
        record = self._record_of(report, now) if report.complete and plan.waits and not report.admissions else None
        if record is not None:
            with suppress(Conflict):
                self.scheduler.admitter.keep_record(record, snapshot.ledger, now)

    def _record_of(self, report: PassReport, now: datetime) -> bytes | None:
        """Return the record of a pass; None if it is larger than an item may be."""
        if self.encode is None:
            return None
        record = PassRecord(
            at=now,
            engine_version=ENGINE_VERSION,
            # All that `decide` needs; what is in force at other times may be large.
            policy=replace(report.policy, base=None, windows=()),
            snapshot=_slim(report.snapshot),
            admissions_max=ADMISSIONS_MAX,
            plan=_slim_plan(report.plan),
        )
        encoded = self.encode(record)
        return encoded if len(encoded) <= KEPT_BYTES_MAX else None

    def _record(self, report: PassReport, now: datetime) -> None:
        """Record pending starts in one transaction, and publish them; the sweeper finds those that are missed."""
        begun, report.unrecorded = report.unrecorded, []
        report.starts += self.starts.record(begun, now)


def _slim(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without its duplicates: the first entries of lanes, which are in it twice."""
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
