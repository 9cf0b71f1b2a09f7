"""Dispatch: one pass reads, decides, commits and starts. Only the dispatcher may start pipelines."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from trainyard.application.ports import Announcements, Bell, DataSets, Executions, ParallelMap, Receipts, Tenants
from trainyard.application.scheduling.admission import Committed, ReadSet
from trainyard.application.scheduling.completion import End, Subject
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain import names
from trainyard.domain.admission import ENGINE_VERSION, Decision, Ledger, Plan, Snapshot, decide
from trainyard.domain.errors import (
    Conflict,
    DataUnavailable,
    OutcomeUnknown,
    QuotaReached,
    Refused,
    StartDelayed,
    StartInvalid,
    Throttled,
)
from trainyard.domain.parameters import Defaults, pipeline_parameters
from trainyard.domain.policy import Policy
from trainyard.domain.queues import TenantQueue
from trainyard.domain.requests import Request, State
from trainyard.domain.tenants import Tenant
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

START_OVERDUE = timedelta(minutes=2)
"""After this long an admitted request's execution is looked for, and started again with the same token if there
is none. Longer than a pass may take."""

START_ABANDONED = timedelta(minutes=15)
"""After this long nobody can still be starting it, whatever the clocks say, and SageMaker lists what was started:
a request without an execution goes back to the queue."""


class Started(StrEnum):
    RUNNING = "RUNNING"
    DELAYED = "DELAYED"
    """Back in the queue: SageMaker could not take it now."""
    FAILED = "FAILED"
    """SageMaker, or the data, will never let it start."""
    UNKNOWN = "UNKNOWN"
    """Throttled or timed out: the slot stays taken, and the same token is used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What became of the start of one admitted request."""

    request: Request
    result: Started
    detail: str | None = None
    adopted: bool = False
    """An execution was found that an earlier start had left without an answer."""


class _Begun(NamedTuple):
    start: Start
    execution_arn: str | None = None
    """Of what runs, but is not recorded yet."""
    tenant: Tenant | None = None


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
    unrecorded: list["_Begun"] = field(default_factory=list)
    """What was started since the starts were recorded last."""
    admissions: list[Decision] = field(default_factory=list)
    conflicts: int = 0
    unparked: int = 0
    hinted: bool = False
    """Whether it read what rings named, and no more."""
    settled: bool = False
    """Whether the last round found that nobody more may go."""


HELD_BACK = "it was paused, or is to be stopped, before it was started"
ABANDONED = "its start was never answered; the dispatcher's log says what was in the way"


class _Different(Exception):
    """The data turned out to need other instances than the request was admitted for."""

    def __init__(self, data_bytes: int) -> None:
        super().__init__(f"it has {data_bytes:,} bytes")
        self.data_bytes = data_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    policies: Policies
    tenants: Tenants
    scheduler: Scheduler
    data_sets: DataSets
    executions: Executions
    receipts: Receipts
    announcements: Announcements
    bell: Bell
    defaults: Defaults
    encode: Callable[[PassRecord], bytes] | None = None
    """How what is kept of a pass is written; None to keep nothing."""
    engine: Callable[..., Plan] = decide
    parallel_map: ParallelMap = map

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
        was cut off is taken up again, what was set aside under another policy is looked at, and all that waits
        is read, whatever the `rings` that it answers say.
        """
        policy = self.policies.current() if sweep else self.policies.last_read()
        starts: list[Start] = []
        unparked = 0
        if sweep:
            # 0. What was admitted but, as far as we know, never started: found, or started once more.
            starts = self._take_up_all(policy, now, out_of_time)
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
        ledger = report.snapshot.ledger if report.settled else tables.ledger.read()
        backlog = tables.queues.backlog(report.policy)
        if report.snapshot.partial:
            with suppress(Conflict):
                tables.ledger.note_weights({tier: waiting.weight for tier, waiting in backlog.items()})
        return ledger, backlog

    def _rounds(
        self,
        report: PassReport,
        drained_through: Sequence[BellRing] | None,
        now: datetime,
        out_of_time: Callable[[], bool],
    ) -> None:
        """Read, decide, commit and start until nobody more may go."""
        read_set: ReadSet | None = None
        for _ in range(ROUNDS_MAX):
            if out_of_time():
                break
            try:
                # 1. Read: ledger, and the heads of the tenant queues; what a commit has left is known.
                seen = read_set or self.scheduler.admitter.read(report.policy, now, drained_through)
                read_set = None
                report.hinted |= seen.from_hints
                committed = self._round(report, seen, now)
                if committed is None:
                    if self._made_room(report, now, out_of_time):
                        drained_through = None
                        continue
                    self._note_waiting(report, seen)
                    report.settled = True
                    break
                read_set = committed.read_set
                if read_set is None and committed.full:
                    report.settled = True
                    break
            except Conflict:
                report.conflicts += 1
                self.scheduler.tables.transactions.backoff(min(report.conflicts, RESTS_GROW))
                report.policy = self.policies.current()

    def _round(self, report: PassReport, read_set: ReadSet, now: datetime) -> Committed | None:
        """Decide, commit and start once; None when nobody may go. Raises Conflict when overtaken."""
        policy = report.policy
        report.snapshot = read_set.snapshot
        # 2. Decide, purely.
        report.plan = plan = self.engine(read_set.snapshot, policy, now, admissions_max=ADMISSIONS_MAX)
        if not plan.admissions:
            return None
        # 3. Commit: all of them admitted and their slots taken, or nothing.
        committed = self.scheduler.admitter.commit(
            plan, read_set, policy, now, record=self._record_of(report, now)
        )
        report.admissions += committed.admissions
        # 4. Start; what goes back, or fails, leaves its slot to others.
        begun = self._start_all(committed, read_set.tenants, policy, now)
        report.unrecorded += begun
        if len(report.unrecorded) > RECORDED_AT_ONCE:
            self._record(report, now)
        freed = any(one.start.result in (Started.DELAYED, Started.FAILED) for one in begun)
        return replace(committed, read_set=None, full=False) if freed else committed

    def _note_waiting(self, report: PassReport, read_set: ReadSet) -> None:
        """Let the next end wake a pass, if something waits or may. Raises Conflict when one came in between."""
        if read_set.rings is None or read_set.snapshot.queues:
            self.scheduler.tables.ledger.note_waiting(read_set.ledger)

    def _made_room(self, report: PassReport, now: datetime, out_of_time: Callable[[], bool]) -> bool:
        """Set aside what cannot go where more waits than was read; True when others can be looked at now."""
        plan, snapshot = report.plan, report.snapshot
        parked = [one for one in plan.parked.values() if one.queue.tier in snapshot.partial]
        if parked:
            self.scheduler.admitter.park(parked, report.policy, now, plan.month, out_of_time=out_of_time)
        return bool(parked)

    def _after(self, report: PassReport, now: datetime, out_of_time: Callable[[], bool]) -> None:
        """Keep why others wait, set aside what cannot go, and see to it that the next pass comes in time."""
        plan, snapshot = report.plan, report.snapshot
        with suppress(Conflict):
            if (
                report.settled
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
        kept = self._record_of(report, now) if report.settled and plan.waits and not report.admissions else None
        if kept is not None:
            with suppress(Conflict):
                self.scheduler.admitter.keep_record(kept, snapshot.ledger, now)

    def _record_of(self, report: PassReport, now: datetime) -> bytes | None:
        """Return what is kept of a pass; nothing of one that saw more than an item holds."""
        if self.encode is None:
            return None
        kept = PassRecord(
            at=now,
            engine_version=ENGINE_VERSION,
            policy=report.policy,
            snapshot=_slim(report.snapshot),
            admissions_max=ADMISSIONS_MAX,
            plan=_slim_plan(report.plan),
        )
        encoded = self.encode(kept)
        return encoded if len(encoded) <= KEPT_BYTES_MAX else None

    def _overdue(self, now: datetime) -> list[Request]:
        """Return what was admitted long ago and is not known to run."""
        admitted = self.scheduler.tables.requests.active(State.ADMITTED)
        old = [r.request_id for r in admitted if r.admitted_at is not None and r.admitted_at < now - START_OVERDUE]
        current = self.scheduler.tables.requests.get_all(old[:100]) if old else []
        return [request for request in current if request.state is State.ADMITTED]

    def _start_all(
        self, committed: Committed, tenants: Mapping[str, Tenant], policy: Policy, now: datetime
    ) -> list["_Begun"]:
        """Start what was admitted."""
        ids = [decision.entry.request_id for decision in committed.admissions]
        owners = {decision.queue.tenant_id for decision in committed.admissions}
        unread = [request_id for request_id in ids if request_id not in committed.requests]
        unknown = sorted(owners - set(tenants))
        found, more = self.scheduler.tables.requests_and_tenants(unread, unknown)
        known = {**committed.requests, **{request.request_id: request for request in found}}
        tenants = {**tenants, **more}
        admitted = [known[i] for i in ids if i in known and known[i].state is State.ADMITTED]
        return list(self.parallel_map(lambda r: self._begin(r, tenants.get(r.tenant_id), policy, now), admitted))

    def _record(self, report: PassReport, now: datetime) -> None:
        """Record in one transaction what has been started, and tell of it; the sweeper finds what is not."""
        begun, report.unrecorded = report.unrecorded, []
        running = [(start.request, arn) for start, arn, _ in begun if arn]
        try:
            moved = self.scheduler.tables.requests.note_all_running(running, now) if running else set()
        except Exception as error:  # they run, and will be found
            report.starts += [
                _unknown(one.start.request, error) if one.execution_arn else one.start for one in begun
            ]
            return
        report.starts += [one.start for one in begun]
        told = [one for one in begun if one.execution_arn and one.start.request.request_id in moved]
        list(self.parallel_map(lambda one: self._tell_any(one.start.request, now, one.tenant), told))

    def _tell_any(self, request: Request, now: datetime, tenant: Tenant | None) -> None:
        """Tell of a start; any one tenant's trouble is its own, and its next change tells it."""
        with suppress(Exception):
            self._tell(request, now, tenant)

    def _begin(self, request: Request, tenant: Tenant | None, policy: Policy, now: datetime) -> "_Begun":
        """Start one admitted request and settle a refusal; return its execution's ARN if it runs.

        A request that fails in an unforeseen way keeps its slot and holds up no other.
        """
        try:
            return self._settle_start(request, tenant, policy, now)
        except Exception as error:  # any one request's trouble is its own
            return _Begun(_unknown(request, error))

    def _settle_start(self, request: Request, tenant: Tenant | None, policy: Policy, now: datetime) -> "_Begun":
        try:
            arn = self._start_execution(request, tenant, policy)
            running = replace(request, state=State.RUNNING, started_at=now, execution_arn=arn)
            return _Begun(Start(request=running, result=Started.RUNNING), arn, tenant)
        except DataUnavailable as error:
            return _Begun(self._without_data(request, policy, str(error), now))
        except StartDelayed as error:
            self._put_back(request, policy, now, due_at=now + policy.start_retry_delay, reason=str(error))
            if isinstance(error, QuotaReached):
                with suppress(Conflict):
                    self.scheduler.tables.ledger.throttle(now + policy.start_retry_delay)
            return _Begun(Start(request=request, result=Started.DELAYED, detail=str(error)))
        except _Different as error:
            self._put_back(request, policy, now, due_at=now, reason=str(error), data_bytes=error.data_bytes)
            return _Begun(Start(request=request, result=Started.DELAYED, detail=str(error)))
        except (StartInvalid, Refused) as error:
            self._fail(request, policy, str(error), now)
            return _Begun(Start(request=request, result=Started.FAILED, detail=str(error)))

    def _without_data(self, request: Request, policy: Policy, reason: str, now: datetime) -> Start:
        """Put a request back whose data cannot be looked at; where that does not pass it fails in the end."""
        if request.failures + 1 >= policy.retries.attempts_max:
            self._fail(request, policy, reason, now)
            return Start(request=request, result=Started.FAILED, detail=reason)
        due_at = now + policy.retries.delay * 2**request.failures
        self._put_back(request, policy, now, due_at=due_at, reason=reason, failed=True)
        return Start(request=request, result=Started.DELAYED, detail=reason)

    def _running(self, request: Request, execution_arn: str, now: datetime, *, adopted: bool = False) -> Start:
        running = replace(request, state=State.RUNNING, started_at=now, execution_arn=execution_arn)
        if self.scheduler.tables.requests.note_running(request, execution_arn, now):
            self._tell(running, now)
        return Start(request=running, result=Started.RUNNING, adopted=adopted)

    # --- the sweeper ----------------------------------------------------------------------------------------

    def _take_up_all(self, policy: Policy, now: datetime, out_of_time: Callable[[], bool]) -> list[Start]:
        """Take up what was admitted long ago and is not known to run."""
        overdue = self._overdue(now)
        if not overdue:
            return []
        try:
            started = self._started_before(overdue, now)
        except Exception as error:  # the next pass looks again
            return [_unknown(request, error) for request in overdue]

        def take_up(request: Request) -> Start | None:
            return None if out_of_time() else self._take_up(request, started, policy, now)

        return [start for start in self.parallel_map(take_up, overdue) if start is not None]

    def _take_up(self, request: Request, started: Mapping[str, str], policy: Policy, now: datetime) -> Start:
        """Find the execution of a request whose start was cut off or never answered, or start it once more.

        The pass that admitted it may still be under way, by a clock that differs. So the start is claimed
        first, which makes void what that pass meets from now on; and a refusal that is met here settles
        nothing, as the other start may be on its way.
        """
        try:
            found = started.get(names.display_name(request.request_id, request.attempt))
            if found is not None:
                return self._adopt(request, found, now)
            held_back = request.stop_asked_at is not None or self._held_back(request)
            if self._age(request, now) > START_ABANDONED:
                return self._abandon(request, policy, now, failed=not held_back)
            if held_back:
                return Start(request=request, result=Started.UNKNOWN, detail=HELD_BACK)
            if self._under_way(request, now) or not self.scheduler.tables.requests.claim(request, now):
                return Start(request=request, result=Started.UNKNOWN, detail="it is taken up already")
            tenant = self.tenants.get(request.tenant_id)
            return self._running(request, self._start_execution(request, tenant, policy), now)
        except Exception as error:  # any one request's trouble is its own
            return _unknown(request, error)

    def _adopt(self, request: Request, execution_arn: str, now: datetime) -> Start:
        """Record that an execution runs which an earlier start has left; stop it if somebody wants it stopped."""
        start = self._running(request, execution_arn, now, adopted=True)
        if request.stop_asked_at is not None:
            self.executions.stop(execution_arn)
        return start

    def _held_back(self, request: Request) -> bool:
        """Tell whether all, its tier or its tenant was paused since it was admitted: then nothing starts."""
        ledger = self.scheduler.tables.ledger.read()
        if ledger.paused or request.tier in ledger.paused_tiers:
            return True
        return self.scheduler.tables.queues.get(request.tier, request.tenant_id).paused

    def _under_way(self, request: Request, now: datetime) -> bool:
        """Tell whether it was taken up a short while ago; or so long ago that a token may be forgotten."""
        if request.claimed_at is None:
            return False
        fresh = now - request.claimed_at < START_OVERDUE
        return fresh or now - (request.admitted_at or now) > START_ABANDONED

    def _abandon(self, request: Request, policy: Policy, now: datetime, *, failed: bool) -> Start:
        """Put a request back whose start was never answered; one that never can be started fails in the end.

        Where it has not `failed`, but was held back, that is not counted.
        """
        if failed and request.failures + 1 >= policy.retries.attempts_max:
            self._fail(request, policy, ABANDONED, now)
            return Start(request=request, result=Started.FAILED, detail=ABANDONED)
        due_at = now + policy.retries.delay * 2**request.failures
        self._put_back(request, policy, now, due_at=due_at, reason=ABANDONED, failed=failed)
        return Start(request=request, result=Started.DELAYED, detail=ABANDONED)

    def _age(self, request: Request, now: datetime) -> timedelta:
        """Return how long ago it was started last, if it was."""
        return now - (request.claimed_at or request.admitted_at or now)

    def _started_before(self, overdue: Sequence[Request], now: datetime) -> Mapping[str, str]:
        """Return display name → execution of all that earlier starts may have left without an answer."""
        return self.executions.started(since=min(request.admitted_at or now for request in overdue))

    def _start_execution(self, request: Request, tenant: Tenant | None, policy: Policy) -> str:
        tier = policy.tier(request.tier)
        if tenant is None or tier is None:
            raise StartInvalid(f"tenant {request.tenant_id} or tier {request.tier} no longer exists")
        data_bytes = self.data_sets.write_manifest(tenant, request)
        largest = policy.data_bytes_max(tier, request.algorithm)
        if data_bytes > largest:
            raise Refused(
                f"the data set has {data_bytes:,} bytes in all, tier {tier.name} takes at most {largest:,}"
            )
        sizes = (data_bytes, request.data_bytes)
        if len({policy.profile_for(tier, request.algorithm, size) for size in sizes}) > 1:
            raise _Different(data_bytes)
        algorithm = tenant.settings_for(request.data_set).algorithm
        return self.executions.start(
            name=names.display_name(request.request_id, request.attempt),
            token=self._token(request),
            description=Subject(request.tier, request.tenant_id, request.data_set).text,
            parameters=pipeline_parameters(
                request,
                tenant,
                tier,
                policy.algorithm(algorithm),
                defaults=self.defaults,
                data_bytes=data_bytes,
            ),
        )

    def _token(self, request: Request) -> str:
        return names.start_token(request.request_id, request.attempt)

    def _put_back(
        self,
        request: Request,
        policy: Policy,
        now: datetime,
        *,
        due_at: datetime,
        reason: str,
        data_bytes: int | None = None,
        failed: bool = False,
    ) -> None:
        changed = self.scheduler.completer.requeue(
            request,
            policy,
            now,
            due_at=due_at,
            reason=reason,
            data_bytes=data_bytes,
            by_start=True,
            failed=failed,
        )
        for one in changed:
            self._tell(one, now)

    def _fail(self, request: Request, policy: Policy, reason: str, now: datetime) -> None:
        end = End(request=request, state=State.FAILED, reason=reason, by_start=True)
        if self.scheduler.completer.finish([end], policy, now) == [True]:
            self._tell(replace(request, state=State.FAILED, reason=reason, finished_at=now), now)

    def _tell(self, request: Request, now: datetime, tenant: Tenant | None = None) -> None:
        """Tell the tenant and the bus; a receipt that cannot be written now is at the request's next change."""
        with suppress(Conflict, Throttled, OutcomeUnknown):
            tenant = tenant or self.tenants.get(request.tenant_id)
            if tenant is not None:
                self.receipts.write(tenant, request, now)
            self.announcements.announce(request)


def _slim(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without what stands in it twice: the fronts of lanes beside their places."""
    queues = (replace(one, queue=_headed(one.queue)) for one in snapshot.queues)
    return replace(snapshot, queues=tuple(queues))


def _slim_plan(plan: Plan) -> Plan:
    return replace(
        plan,
        admissions=tuple(replace(one, queue=_headed(one.queue)) for one in plan.admissions),
        waits=tuple(replace(one, queue=_headed(one.queue)) for one in plan.waits),
    )


def _headed(queue: TenantQueue) -> TenantQueue:
    return replace(queue, profiles={name: replace(profile, behind=()) for name, profile in queue.profiles.items()})


def _unknown(request: Request, error: Exception) -> Start:
    """Return a start whose outcome is not known: the slot stays taken."""
    expected = isinstance(error, Throttled | OutcomeUnknown)
    detail = str(error) if expected else f"{type(error).__name__}: {error}"
    return Start(request=request, result=Started.UNKNOWN, detail=detail)
