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
from trainyard.application.scheduling.retraining import FORCE
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.application.scheduling.transforms import Transforms
from trainyard.domain import names
from trainyard.domain.errors import (
    Conflict,
    DataUnavailable,
    OutcomeUnknown,
    PipelineMissing,
    QuotaReached,
    Refused,
    StartDelayed,
    StartInvalid,
    Throttled,
)
from trainyard.domain.file_types import absent_columns, objection
from trainyard.domain.parameters import Defaults, pipeline_parameters
from trainyard.domain.policy import Policy, TierPolicy
from trainyard.domain.requests import Request, RequestKind, State
from trainyard.domain.retraining import OnDrift, Trained
from trainyard.domain.retraining_record import unchanged_text
from trainyard.domain.tenants import Tenant
from trainyard.domain.tuning import tuned_values, used, with_tuned
from trainyard.domain.unchanged import basis_of, settings_digest
from trainyard.persistence.run_history import past_key, trainings_from, tunings_from

START_OVERDUE = timedelta(seconds=30)
"""After this long an admitted request's execution is looked for, and started again with the same token if there
is none. The pass that admitted it may still be at it: whoever repeats a start claims it first."""


REPEATS_MAX = 2
"""How often a pass repeats a start that SageMaker throttles or does not answer."""


START_ABANDONED = timedelta(minutes=15)
"""After this long nobody can still be starting it, whatever the clocks say, and SageMaker lists what was started:
a request without an execution goes back to the queue."""


NAMED_MAX = 5
"""Columns that a refusal names."""

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
    repeat: bool = False
    """Throttled or not answered: the same start may be sent again."""


class _Different(Exception):
    """The data needs other instances than the request was admitted for."""

    def __init__(self, data_bytes: int) -> None:
        super().__init__(f"it has {data_bytes:,} bytes, and needs other instances than were held for it")
        self.data_bytes = data_bytes


class _Unchanged(Exception):
    """The data set has been trained on as it is: nothing would be different."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """Starts admitted requests, and recovers interrupted starts."""

    scheduler: Scheduler
    tenants: Tenants
    data_sets: DataSets
    executions: Executions
    notifier: Notifier
    defaults: Defaults
    transforms: Transforms
    parallel_map: ParallelMap = map

    def start_all(
        self,
        committed: Committed,
        tenants: Mapping[str, Tenant],
        policy: Policy,
        now: datetime,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> list[Begun]:
        """Start what was admitted; starts that are throttled or not answered are repeated with the same token."""
        ids = [decision.entry.request_id for decision in committed.admissions]
        owners = {decision.queue.tenant_id for decision in committed.admissions}
        unread = [request_id for request_id in ids if request_id not in committed.requests]
        unknown = sorted(owners - set(tenants))
        read, more = self.scheduler.tables.requests_and_tenants(unread, unknown)
        requests = {**committed.requests, **{request.request_id: request for request in read}}
        tenants = {**tenants, **more}
        # What the sweeper has claimed is its to start: a refusal here would free the slot of an execution that it
        # may have started already.
        ours = [requests[i] for i in ids if i in requests and requests[i].claimed_at is None]
        admitted = [request for request in ours if request.state is State.ADMITTED]
        begun = list(self.parallel_map(lambda r: self._begin(r, tenants.get(r.tenant_id), policy, now), admitted))
        for number in range(1, REPEATS_MAX + 1):
            open_starts = [at for at, begin in enumerate(begun) if begin.repeat]
            if not open_starts or out_of_time():
                break
            self.scheduler.tables.transactions.backoff(number)

            def repeat(at: int) -> Begun:
                # A refusal is not final: the start before, which was not answered, may still arrive.
                return self._begin(admitted[at], tenants.get(admitted[at].tenant_id), policy, now, final=False)

            for at, again in zip(open_starts, self.parallel_map(repeat, open_starts), strict=True):
                begun[at] = again
        return begun

    def record(self, begun: Sequence[Begun], now: datetime) -> list[Start]:
        """Record in one transaction what has been started, and tell the tenants; the sweeper finds what is not."""
        running = [(begin.start.request, begin.execution_arn) for begin in begun if begin.execution_arn]
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

    def _begin(
        self, request: Request, tenant: Tenant | None, policy: Policy, now: datetime, *, final: bool = True
    ) -> Begun:
        """Start one admitted request and, if that is `final`, settle a refusal; return its execution's ARN if it
        runs.

        A request that fails unexpectedly keeps its slot and does not affect the others.
        """
        try:
            arn, basis, algorithm = self._start_execution(request, tenant, policy)
            running = replace(
                request,
                state=State.RUNNING,
                started_at=now,
                execution_arn=arn,
                basis=basis,
                algorithm=algorithm or request.algorithm,
            )
            return Begun(Start(request=running, result=Started.RUNNING), arn, tenant)
        except (Throttled, OutcomeUnknown) as error:
            return Begun(_unknown(request, error), repeat=True)
        except Exception as error:  # one failing request must not affect the others
            return self._refused(request, error, policy, now) if final else Begun(_unknown(request, error))

    def _refused(self, request: Request, refusal: Exception, policy: Policy, now: datetime) -> Begun:
        """Settle a refused start: the request waits again, or fails; what is unexpected settles nothing."""
        try:
            match refusal:
                case DataUnavailable():
                    return Begun(self._without_data(request, policy, str(refusal), now))
                case StartDelayed():
                    due_at = now + policy.start_retry_delay
                    self._put_back(request, policy, now, due_at=due_at, reason=str(refusal))
                    if isinstance(refusal, QuotaReached):
                        with suppress(Conflict):
                            self.scheduler.tables.ledger.throttle(due_at)
                case _Different():
                    data_bytes = refusal.data_bytes
                    self._put_back(request, policy, now, due_at=now, reason=str(refusal), data_bytes=data_bytes)
                case PipelineMissing() if self._would_run_otherwise(request, policy):
                    self._put_back(
                        request,
                        policy,
                        now,
                        due_at=now,
                        reason=str(refusal),
                        data_bytes=request.data_bytes,
                    )
                case _Unchanged():
                    self._end(request, State.REJECTED, policy, str(refusal), now)
                    return Begun(Start(request=request, result=Started.FAILED, detail=str(refusal)))
                case StartInvalid() | Refused():
                    self._fail(request, policy, str(refusal), now)
                    return Begun(Start(request=request, result=Started.FAILED, detail=str(refusal)))
                case _:
                    return Begun(_unknown(request, refusal))
        except Exception as error:  # the sweeper starts it again
            return Begun(_unknown(request, error))
        return Begun(Start(request=request, result=Started.DELAYED, detail=str(refusal)))

    def _would_run_otherwise(self, request: Request, policy: Policy) -> bool:
        """Tell whether the policy in force gives a request other instances than when it was enlisted."""
        tier = policy.tier(request.tier)
        if tier is None:
            return False
        profile = policy.profile_for(
            tier,
            request.algorithm,
            request.data_bytes,
            on_demand=request.trains_on_demand,
            kind=request.kind,
            trials=request.trials,
        )
        return str(profile) != request.profile

    def _without_data(self, request: Request, policy: Policy, reason: str, now: datetime) -> Start:
        """Requeue a request whose data cannot be read; if that persists, it fails in the end."""
        if request.failures + 1 >= policy.retries.attempts_max:
            self._fail(request, policy, reason, now)
            return Start(request=request, result=Started.FAILED, detail=reason)
        due_at = now + policy.retries.delay * 2**request.failures
        self._put_back(request, policy, now, due_at=due_at, reason=reason, failed=True)
        return Start(request=request, result=Started.DELAYED, detail=reason)

    def _start_execution(self, request: Request, tenant: Tenant | None, policy: Policy) -> tuple[str, str, str]:
        """Start the execution of a request; return its ARN, what it trains on, and with which algorithm."""
        tier = policy.tier(request.tier)
        if tenant is None or tier is None:
            raise StartInvalid(f"tenant {request.tenant_id} or tier {request.tier} no longer exists")
        if request.kind is RequestKind.TRANSFORM:
            return self._start_transform(request, tenant, tier, policy), "", ""
        settings = tenant.settings_for(request.data_set, request.overrides)
        # The present version: one that a wave has taken back must not train what arrived under it.
        algorithm = policy.algorithm(settings.algorithm)
        data_bytes, first_bytes, digest = self.data_sets.write_manifest(tenant, request)
        if algorithm.code_uri is None and first_bytes:  # other scripts may read what ours do not
            why_not = objection(first_bytes, settings.target)
            if why_not:
                raise Refused(f"{request.content.key.rpartition('/')[2]} {why_not}")
        (history,) = self.scheduler.tables.store.get(past_key(request.tenant_id, request.data_set))
        tuned = tuned_values(used(tunings_from(history), algorithm.name), algorithm)
        settings = with_tuned(settings, tuned)
        basis = basis_of(digest, settings_digest(settings, algorithm)) if digest else ""
        past = trainings_from(history).trained
        trained = past if request.has_algorithm_of_settings else None
        is_wanted = request.is_forced or request.overrides is not None
        if trained is not None and basis == trained.basis and not is_wanted:
            self._check_worth(request, trained)
        last = self.data_sets.statistics_of(tenant, request, trained.request_id) if trained else None
        refuses = settings.retraining.on_schema_change is OnDrift.REFUSE and not request.accepts_drift
        if last is not None and refuses and algorithm.code_uri is None:
            _check_columns(first_bytes, last.columns)
        _check_size(data_bytes, request, tier, policy)
        live = self.transforms.models.live(request.tenant_id, request.data_set)
        champion = live.request_id if live else past.request_id if past else None
        parameters = pipeline_parameters(
            request,
            tenant,
            tier,
            algorithm,
            defaults=self.defaults,
            data_bytes=data_bytes,
            statistics_uri=last.uri if last else None,
            champion=champion,
            champion_is_there=champion is not None and self.data_sets.has_model(tenant, request, champion),
            tuned=tuned,
            prices=policy.prices,
        )
        return self._start(request, parameters), basis, algorithm.name

    def _check_worth(self, request: Request, trained: Trained) -> None:
        """Raise _Unchanged for what was trained on before, unless another training of its data set runs, of which
        the model would be the newest.
        """
        holders = self.scheduler.tables.queues.get(request.tier, request.tenant_id).holders
        others = self.scheduler.tables.requests.get_all(name for name in holders if name != request.request_id)
        if not any(other.data_set == request.data_set and other.kind is request.kind for other in others):
            raise _Unchanged(f"{unchanged_text(trained)}: {FORCE}")

    def _start_transform(self, request: Request, tenant: Tenant, tier: TierPolicy, policy: Policy) -> str:
        _check_size(request.data_bytes, request, tier, policy)
        return self._start(request, self.transforms.parameters(request, tenant))

    def _start(self, request: Request, parameters: dict[str, str]) -> str:
        return self.executions.start(
            name=names.display_name(request.request_id, request.attempt),
            token=self._token(request),
            description=Subject(request.tier, request.tenant_id, request.data_set, request.kind).text,
            parameters=parameters,
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
        self._end(request, State.FAILED, policy, reason, now)

    def _end(self, request: Request, state: State, policy: Policy, reason: str, now: datetime) -> None:
        end = End(request=request, state=state, reason=reason, by_start=True)
        if self.scheduler.completer.finish([end], policy, now) == [True]:
            self._notify(replace(request, state=state, reason=reason, finished_at=now), now)

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
            held_back = self._held_back(overdue)
            _, tenants = self.scheduler.tables.requests_and_tenants((), sorted({r.tenant_id for r in overdue}))
        except Exception as error:  # the next pass looks again
            return [_unknown(request, error) for request in overdue]

        def recover(request: Request) -> Begun | None:
            tenant, waits = tenants.get(request.tenant_id), request.request_id in held_back
            return None if out_of_time() else self._recover(request, started, tenant, waits, policy, now)

        begun = [recovered for recovered in self.parallel_map(recover, overdue) if recovered is not None]
        starts = self.record(begun, now)
        for start in starts:
            if start.adopted and start.request.stop_asked_at is not None and start.request.execution_arn:
                with suppress(Exception):  # it has ended, or the reconciler stops it
                    self.executions.stop(start.request.execution_arn)
        return starts

    def _overdue(self, now: datetime) -> list[Request]:
        """Return the requests that were admitted long ago and are not known to run."""
        admitted = self.scheduler.tables.requests.active(State.ADMITTED)
        old = [r.request_id for r in admitted if r.admitted_at is not None and r.admitted_at < now - START_OVERDUE]
        current = self.scheduler.tables.requests.get_all(old[:100]) if old else []
        return [request for request in current if request.state is State.ADMITTED]

    def _started_before(self, overdue: Sequence[Request], now: datetime) -> Mapping[str, str]:
        """Return display name → execution of all that unanswered starts may have created."""
        return self.executions.started(since=min(request.admitted_at or now for request in overdue))

    def _recover(
        self,
        request: Request,
        started: Mapping[str, str],
        tenant: Tenant | None,
        held_back: bool,
        policy: Policy,
        now: datetime,
    ) -> Begun:
        """Find the execution of a request whose start was cut off or never answered, or start it once more.

        The pass that admitted it may still be running, since clocks differ. So the start is claimed first, which
        voids that pass's later results; and a refusal here is not final, as the other start may still arrive.
        """
        try:
            execution_arn = started.get(names.display_name(request.request_id, request.attempt))
            if execution_arn is not None:
                running = replace(request, state=State.RUNNING, started_at=now, execution_arn=execution_arn)
                start = Start(request=running, result=Started.RUNNING, adopted=True)
                return Begun(start, execution_arn, tenant)
            if self._age(request, now) > START_ABANDONED:
                return Begun(self._abandon(request, policy, now, failed=not held_back))
            if held_back:
                return Begun(Start(request=request, result=Started.UNKNOWN, detail=HELD_BACK))
            if self._under_way(request, now) or not self.scheduler.tables.requests.claim(request, now):
                return Begun(_unknown(request, OutcomeUnknown("it is being recovered already")))
            return self._begin(request, tenant, policy, now, final=False)
        except Exception as error:  # one failing request must not affect the others
            return Begun(_unknown(request, error))

    def _held_back(self, requests: Sequence[Request]) -> set[str]:
        """Return the requests that must not be started: they are to be stopped, or all, their tier or their tenant
        was paused since they were admitted.
        """
        ledger = self.scheduler.tables.ledger.read()
        queues = self.scheduler.tables.queues.get_all(sorted({(r.tier, r.tenant_id) for r in requests}))
        paused = {(queue.tier, queue.tenant_id) for queue in queues if queue.paused}
        return {
            request.request_id
            for request in requests
            if request.stop_asked_at is not None
            or ledger.paused
            or request.tier in ledger.paused_tiers
            or (request.tier, request.tenant_id) in paused
        }

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


def _check_columns(first_bytes: bytes, columns: Sequence[str]) -> None:
    """Raise Refused where the first bytes of the only object show that it lacks columns of the last training."""
    absent = absent_columns(first_bytes, columns) if first_bytes else []
    if absent:
        more = f" and {len(absent) - NAMED_MAX} more" if len(absent) > NAMED_MAX else ""
        raise Refused(
            f"the columns have changed since the last training: without {', '.join(map(repr, absent[:NAMED_MAX]))}"
            f"{more}. Upload data with the columns of before, or ask for a training with force to train on these"
        )


def _check_size(data_bytes: int, request: Request, tier: TierPolicy, policy: Policy) -> None:
    """Raise Refused for more data than the tier allows, and _Different for what needs other instances."""
    largest = policy.data_bytes_max(tier, request.algorithm)
    if data_bytes > largest:
        raise Refused(f"the data set has {data_bytes:,} bytes in all; tier {tier.name} allows at most {largest:,}")
    sizes = (data_bytes, request.data_bytes)
    if len({policy.profile_for(tier, request.algorithm, size, kind=request.kind) for size in sizes}) > 1:
        raise _Different(data_bytes)
