"""Starts: starts the execution of each admitted request exactly once, whatever fails in between.

A pass starts what it has admitted. Starts that were interrupted or not answered are recovered by the sweeper:
it looks for the execution, and starts it again with the same token if there is none.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from trainyard.application.ports import DataSets, Executions, ParallelMap, Tenants
from trainyard.application.scheduling.admission import Committed
from trainyard.application.scheduling.completion import End, Subject
from trainyard.application.scheduling.notifications import Notifier
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain import names
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
from trainyard.domain.requests import Request, State
from trainyard.domain.tenants import Tenant

START_OVERDUE = timedelta(minutes=2)
"""After this long an admitted request's execution is looked for, and started again with the same token if there
is none. Longer than a pass may take."""


START_ABANDONED = timedelta(minutes=15)
"""After this long nobody can still be starting it, whatever the clocks say, and SageMaker lists what was started:
a request without an execution goes back to the queue."""


HELD_BACK = "paused, or to be stopped, before it was started"


ABANDONED = "SageMaker did not confirm its start; see the dispatcher's log for the cause"


class Started(StrEnum):
    RUNNING = "RUNNING"
    DELAYED = "DELAYED"
    """Back in the queue: SageMaker could not start it now."""
    FAILED = "FAILED"
    """SageMaker, or the data, will never let it start."""
    UNKNOWN = "UNKNOWN"
    """Throttled or timed out: the slot stays taken, and the same token is used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The result of starting one admitted request."""

    request: Request
    result: Started
    detail: str | None = None
    adopted: bool = False
    """An execution was found that an earlier start had left without an answer."""


class Begun(NamedTuple):
    start: Start
    execution_arn: str | None = None
    """Of what runs, but is not recorded yet."""
    tenant: Tenant | None = None


class _Different(Exception):
    """The data needs other instances than the request was admitted for."""

    def __init__(self, data_bytes: int) -> None:
        super().__init__(f"it has {data_bytes:,} bytes")
        self.data_bytes = data_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """Starts admitted requests, and recovers interrupted starts."""

    scheduler: Scheduler
    tenants: Tenants
    data_sets: DataSets
    executions: Executions
    notifier: Notifier
    defaults: Defaults
    parallel_map: ParallelMap = map

    def start_all(
        self, committed: Committed, tenants: Mapping[str, Tenant], policy: Policy, now: datetime
    ) -> list[Begun]:
        """Start what was admitted."""
        ids = [decision.entry.request_id for decision in committed.admissions]
        owners = {decision.queue.tenant_id for decision in committed.admissions}
        unread = [request_id for request_id in ids if request_id not in committed.requests]
        unknown = sorted(owners - set(tenants))
        read, more = self.scheduler.tables.requests_and_tenants(unread, unknown)
        requests = {**committed.requests, **{request.request_id: request for request in read}}
        tenants = {**tenants, **more}
        admitted = [requests[i] for i in ids if i in requests and requests[i].state is State.ADMITTED]
        return list(self.parallel_map(lambda r: self._begin(r, tenants.get(r.tenant_id), policy, now), admitted))

    def record(self, begun: Sequence[Begun], now: datetime) -> list[Start]:
        """Record in one transaction what has been started, and tell the tenants; the sweeper finds what is not."""
        running = [(start.request, arn) for start, arn, _ in begun if arn]
        try:
            moved = self.scheduler.tables.requests.note_all_running(running, now) if running else set()
        except Exception as error:  # they run, and will be found
            return [
                _unknown(begin.start.request, error) if begin.execution_arn else begin.start for begin in begun
            ]
        recorded = [begin for begin in begun if begin.execution_arn and begin.start.request.request_id in moved]
        list(self.parallel_map(lambda begin: self._notify_any(begin.start.request, now, begin.tenant), recorded))
        return [begin.start for begin in begun]

    def _notify_any(self, request: Request, now: datetime, tenant: Tenant | None) -> None:
        """Notify about a start; a failure must not affect others, and is made up for by the next notification."""
        with suppress(Exception):
            self._notify(request, now, tenant)

    def _begin(self, request: Request, tenant: Tenant | None, policy: Policy, now: datetime) -> Begun:
        """Start one admitted request and settle a refusal; return its execution's ARN if it runs.

        A request that fails unexpectedly keeps its slot and does not affect the others.
        """
        try:
            return self._settle_start(request, tenant, policy, now)
        except Exception as error:  # one failing request must not affect the others
            return Begun(_unknown(request, error))

    def _settle_start(self, request: Request, tenant: Tenant | None, policy: Policy, now: datetime) -> Begun:
        try:
            arn = self._start_execution(request, tenant, policy)
            running = replace(request, state=State.RUNNING, started_at=now, execution_arn=arn)
            return Begun(Start(request=running, result=Started.RUNNING), arn, tenant)
        except DataUnavailable as error:
            return Begun(self._without_data(request, policy, str(error), now))
        except StartDelayed as error:
            self._put_back(request, policy, now, due_at=now + policy.start_retry_delay, reason=str(error))
            if isinstance(error, QuotaReached):
                with suppress(Conflict):
                    self.scheduler.tables.ledger.throttle(now + policy.start_retry_delay)
            return Begun(Start(request=request, result=Started.DELAYED, detail=str(error)))
        except _Different as error:
            self._put_back(request, policy, now, due_at=now, reason=str(error), data_bytes=error.data_bytes)
            return Begun(Start(request=request, result=Started.DELAYED, detail=str(error)))
        except (StartInvalid, Refused) as error:
            self._fail(request, policy, str(error), now)
            return Begun(Start(request=request, result=Started.FAILED, detail=str(error)))

    def _without_data(self, request: Request, policy: Policy, reason: str, now: datetime) -> Start:
        """Requeue a request whose data cannot be read; if that persists, it fails in the end."""
        if request.failures + 1 >= policy.retries.attempts_max:
            self._fail(request, policy, reason, now)
            return Start(request=request, result=Started.FAILED, detail=reason)
        due_at = now + policy.retries.delay * 2**request.failures
        self._put_back(request, policy, now, due_at=due_at, reason=reason, failed=True)
        return Start(request=request, result=Started.DELAYED, detail=reason)

    def _running(self, request: Request, execution_arn: str, now: datetime, *, adopted: bool = False) -> Start:
        running = replace(request, state=State.RUNNING, started_at=now, execution_arn=execution_arn)
        if self.scheduler.tables.requests.note_running(request, execution_arn, now):
            self._notify(running, now)
        return Start(request=running, result=Started.RUNNING, adopted=adopted)

    def _start_execution(self, request: Request, tenant: Tenant | None, policy: Policy) -> str:
        tier = policy.tier(request.tier)
        if tenant is None or tier is None:
            raise StartInvalid(f"tenant {request.tenant_id} or tier {request.tier} no longer exists")
        data_bytes = self.data_sets.write_manifest(tenant, request)
        largest = policy.data_bytes_max(tier, request.algorithm)
        if data_bytes > largest:
            raise Refused(
                f"the data set has {data_bytes:,} bytes in all; tier {tier.name} allows at most {largest:,}"
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
        for changed_request in changed:
            self._notify(changed_request, now)

    def _fail(self, request: Request, policy: Policy, reason: str, now: datetime) -> None:
        end = End(request=request, state=State.FAILED, reason=reason, by_start=True)
        if self.scheduler.completer.finish([end], policy, now) == [True]:
            self._notify(replace(request, state=State.FAILED, reason=reason, finished_at=now), now)

    def _notify(self, request: Request, now: datetime, tenant: Tenant | None = None) -> None:
        """Tell the tenant and the bus; a receipt that cannot be written now is at the request's next change."""
        with suppress(Conflict, Throttled, OutcomeUnknown):
            self.notifier.notify(request, now, tenant)

    # --- the sweeper ----------------------------------------------------------------------------------------

    def recover_all(self, policy: Policy, now: datetime, out_of_time: Callable[[], bool]) -> list[Start]:
        """Recover requests that were admitted long ago and are not known to run."""
        overdue = self._overdue(now)
        if not overdue:
            return []
        try:
            started = self._started_before(overdue, now)
        except Exception as error:  # the next pass looks again
            return [_unknown(request, error) for request in overdue]

        def recover(request: Request) -> Start | None:
            return None if out_of_time() else self._recover(request, started, policy, now)

        return [start for start in self.parallel_map(recover, overdue) if start is not None]

    def _overdue(self, now: datetime) -> list[Request]:
        """Return the requests that were admitted long ago and are not known to run."""
        admitted = self.scheduler.tables.requests.active(State.ADMITTED)
        old = [r.request_id for r in admitted if r.admitted_at is not None and r.admitted_at < now - START_OVERDUE]
        current = self.scheduler.tables.requests.get_all(old[:100]) if old else []
        return [request for request in current if request.state is State.ADMITTED]

    def _started_before(self, overdue: Sequence[Request], now: datetime) -> Mapping[str, str]:
        """Return display name → execution of all that unanswered starts may have created."""
        return self.executions.started(since=min(request.admitted_at or now for request in overdue))

    def _recover(self, request: Request, started: Mapping[str, str], policy: Policy, now: datetime) -> Start:
        """Find the execution of a request whose start was cut off or never answered, or start it once more.

        The pass that admitted it may still be running, since clocks differ. So the start is claimed first, which
        voids that pass's later results; and a refusal here is not final, as the other start may still arrive.
        """
        try:
            execution_arn = started.get(names.display_name(request.request_id, request.attempt))
            if execution_arn is not None:
                return self._adopt(request, execution_arn, now)
            held_back = request.stop_asked_at is not None or self._held_back(request)
            if self._age(request, now) > START_ABANDONED:
                return self._abandon(request, policy, now, failed=not held_back)
            if held_back:
                return Start(request=request, result=Started.UNKNOWN, detail=HELD_BACK)
            if self._under_way(request, now) or not self.scheduler.tables.requests.claim(request, now):
                return Start(request=request, result=Started.UNKNOWN, detail="it is being recovered already")
            tenant = self.tenants.get(request.tenant_id)
            return self._running(request, self._start_execution(request, tenant, policy), now)
        except Exception as error:  # one failing request must not affect the others
            return _unknown(request, error)

    def _adopt(self, request: Request, execution_arn: str, now: datetime) -> Start:
        """Record an execution that an earlier start created; stop it if a stop was requested."""
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
        """Tell whether it was claimed only a short while ago, or so long ago that its token may have expired."""
        if request.claimed_at is None:
            return False
        fresh = now - request.claimed_at < START_OVERDUE
        return fresh or now - (request.admitted_at or now) > START_ABANDONED

    def _age(self, request: Request, now: datetime) -> timedelta:
        """Return how long ago it was started last, if it was."""
        return now - (request.claimed_at or request.admitted_at or now)

    def _abandon(self, request: Request, policy: Policy, now: datetime, *, failed: bool) -> Start:
        """Requeue a request whose start was not confirmed; if it can never be started, it fails in the end.

        Where it has not `failed`, but was held back, that is not counted.
        """
        if failed and request.failures + 1 >= policy.retries.attempts_max:
            self._fail(request, policy, ABANDONED, now)
            return Start(request=request, result=Started.FAILED, detail=ABANDONED)
        due_at = now + policy.retries.delay * 2**request.failures
        self._put_back(request, policy, now, due_at=due_at, reason=ABANDONED, failed=failed)
        return Start(request=request, result=Started.DELAYED, detail=ABANDONED)


def _unknown(request: Request, error: Exception) -> Start:
    """Return a start whose outcome is not known: the slot stays taken."""
    expected = isinstance(error, Throttled | OutcomeUnknown)
    detail = str(error) if expected else f"{type(error).__name__}: {error}"
    return Start(request=request, result=Started.UNKNOWN, detail=detail)
