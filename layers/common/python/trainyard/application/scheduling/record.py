"""Record: handles ended executions: releases slots, books costs, and notifies tenants."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, TypeVar

from trainyard.application.ports import (
    Annotations,
    ExecutionReport,
    ExecutionReports,
    ParallelMap,
    Results,
    Tenants,
)
from trainyard.application.scheduling.completion import End, Subject, end_keys
from trainyard.application.scheduling.notifications import Notifier
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.errors import OutcomeUnknown, Throttled
from trainyard.domain.executions import ExecutionRecord, all_final, month_of, priced, total
from trainyard.domain.failures import OUT_OF_MEMORY, FailureCause, cause_of
from trainyard.domain.lifecycle import TRANSFORM_STEP, end_of, state_for_status
from trainyard.domain.names import parse_display_name
from trainyard.domain.parameters import Locations
from trainyard.domain.policy import Policy
from trainyard.domain.prices import Prices
from trainyard.domain.requests import TERMINAL, Outcome, Request, RequestKind, State
from trainyard.domain.resources import STOP_GRACE, TRANSFORM_GRACE, ResourceProfile
from trainyard.domain.tenants import Tenant
from trainyard.persistence.items import request_from
from trainyard.persistence.ledger import LEDGER, policy_version
from trainyard.persistence.policies import Policies
from trainyard.persistence.requests import request_key
from trainyard.persistence.store import Items, Key
from trainyard.persistence.tenants import tenant_from, tenant_key
from trainyard.persistence.transactions import read_items

A = TypeVar("A")
B = TypeVar("B")

REPORT_AWAITED = timedelta(hours=1)
"""How long after its latest possible end (by its maximum runtimes) SageMaker's report on an execution is waited
for."""

TIME_IS_UP = "it did not end within its maximum runtime"


def is_overdue(request: Request, now: datetime) -> bool:
    """Tell whether a batch transform should have ended by now: SageMaker has no maximum runtime for its job."""
    grace = TRANSFORM_GRACE - STOP_GRACE
    return request.kind is RequestKind.TRANSFORM and request.ends_by is not None and now > request.ends_by - grace


NO_REPORT = "SageMaker no longer has any record of the execution"


NOT_ANNOTATED = "its registry entry lacks how it stands beside the model before"


class Recorded(StrEnum):
    """What a status event changed."""

    RUNNING = "RUNNING"
    """The execution is known to run."""
    FINISHED = "FINISHED"
    """The request ended, and its slot is free."""
    REQUEUED = "REQUEUED"
    """It failed through no fault of its own, and waits again."""
    STALE = "STALE"
    """A duplicate, or about an attempt that is over: nothing changed."""
    NOT_OURS = "NOT_OURS"
    """An execution that is not ours: nothing changed."""
    UNMANAGED = "UNMANAGED"
    """An execution of ours that holds no slot is running: somebody retried it. It counts against the account."""
    UNKNOWN_STATUS = "UNKNOWN_STATUS"
    """A status we do not know: nothing changed, and an alarm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusEvent:
    """A status event of an execution."""

    display_name: str
    status: str
    execution_arn: str
    description: str = ""
    """Names its owner; only a hint for lookups."""
    previous: str | None = None
    """The previous status, if the event has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusResult:
    """What one status event changed, and the request it was about if it is ours."""

    recorded: Recorded
    request: Request | None = None

    def succeeded_despite(self, status: str) -> bool:
        """Tell whether the request succeeded although SageMaker's status for the execution is a failure.

        That is the case when only the last step failed, which reports the model that is registered by then.
        """
        succeeded = self.request is not None and self.request.state is State.SUCCEEDED
        return self.recorded is Recorded.FINISHED and succeeded and state_for_status(status) is State.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    policies: Policies
    tenants: Tenants
    scheduler: Scheduler
    reports: ExecutionReports
    results: Results
    annotations: Annotations
    notifier: Notifier
    prices: Prices
    parallel_map: ParallelMap = map

    def settle(self, events: Sequence[StatusEvent], now: datetime) -> list[StatusResult | Exception]:
        """Settle status events that came together. Idempotent, and in any order.

        An error in the result means redelivery of that event; raises Throttled or OutcomeUnknown if all must be.
        """
        # 1. Find the requests, and interpret the statuses.
        items = read_items(self.scheduler.tables.store, _keys_of(events))
        requests = {item["request_id"]: request_from(item) for k, item in items.items() if _is_request(k) and item}
        results: dict[int, StatusResult | Exception] = {}
        ended: dict[int, _About] = {}
        for number, event in enumerate(events):
            seen = self._tried(lambda event: self._look(event, requests, now), event)
            results[number] = seen
            if isinstance(seen, StatusResult) and seen.recorded is Recorded.FINISHED and seen.request:
                ended[number] = _About(seen.request, event, items)
        if ended:
            # 2. Read what the executions did and cost.
            policy = self.policies.at(policy_version(items[LEDGER]))
            looked = self.parallel_map(
                lambda about: self._tried(lambda a: self._end(a, now), about), ended.values()
            )
            ends: dict[int, End] = {}
            for number, end in zip(ended, looked, strict=True):
                if isinstance(end, Exception):
                    results[number] = end
                elif self._goes_again(end, policy):
                    results[number] = self._tried(lambda end: self._again(end, policy, now), end)
                else:
                    ends[number] = end
            # 3. End the attempts, release the slots and wake the dispatcher, many in one transaction.
            finished = self._finished(ends, policy, now, items)
            stale = [number for number, first in finished.items() if first is False]
            results |= {n: StatusResult(recorded=Recorded.STALE, request=ends[n].request) for n in stale}
            results |= {n: error for n, error in finished.items() if isinstance(error, Exception)}
            # 4. Tell tenants and bus.
            notified = [number for number, first in finished.items() if first is True]
            done = self.parallel_map(
                lambda number: self._tried(lambda n: self._ended(ends[n], items, now), number), notified
            )
            results |= dict(zip(notified, done, strict=True))
        return [results[number] for number in range(len(events))]

    def _tried(self, do: Callable[[A], B], argument: A) -> B | Exception:
        """Return the result or the error, so that one failing event does not affect the others."""
        try:
            return do(argument)
        except Exception as error:
            return error

    def _finished(
        self, ends: Mapping[int, End], policy: Policy, now: datetime, items: Items
    ) -> dict[int, bool | Exception]:
        """End attempts together, or each by itself where that fails; an error for what must come again."""
        if not ends:
            return {}
        try:
            return dict(
                zip(ends, self.scheduler.completer.finish(list(ends.values()), policy, now, items), strict=True)
            )
        except Exception:  # one failing end must not affect the others
            return {
                number: self._tried(lambda end: self.scheduler.completer.finish([end], policy, now)[0], end)
                for number, end in ends.items()
            }

    def step_reached(self, *, request_id: str, attempt: int, model_package_arn: str) -> bool:
        """Store what only the pipeline's last step knows; False when it belongs to another attempt."""
        request = self.scheduler.tables.requests.get(request_id)
        tenant = self.tenants.get(request.tenant_id) if request else None
        if request is None or tenant is None:
            return False
        outcome = replace(self._outcome(request, tenant), model_package_arn=model_package_arn)
        properties = _properties(outcome)
        if properties:
            try:
                self.annotations.annotate(model_package_arn, properties)
            except Exception as error:  # the model is registered, and the request's record says the same
                outcome = replace(outcome, unread=f"{NOT_ANNOTATED}: {type(error).__name__}")
        return self.scheduler.tables.requests.note_outcome(request_id, attempt, outcome)

    def _look(self, event: StatusEvent, requests: dict[str, Request], now: datetime) -> StatusResult:
        """Return what an event means; FINISHED stands for an end that is still to be written."""
        name = parse_display_name(event.display_name)
        request = requests.get(name.request_id) if name else None
        if name is None or request is None:
            return StatusResult(recorded=Recorded.NOT_OURS)
        state = state_for_status(event.status)
        if state is None:
            return StatusResult(recorded=Recorded.UNKNOWN_STATUS, request=request)
        if state is State.RUNNING and state_for_status(event.previous or "") in TERMINAL:
            if request.state is State.RUNNING and self._is_of(name.attempt, request):
                return StatusResult(recorded=Recorded.STALE, request=request)  # its end has not been recorded yet
            self.scheduler.tables.ledger.add_unmanaged(event.execution_arn, now)
            return StatusResult(recorded=Recorded.UNMANAGED, request=request)
        if not self._is_of(name.attempt, request):
            return StatusResult(recorded=Recorded.STALE, request=request)
        if request.state in TERMINAL:
            self.notifier.notify(request, now)  # the first telling may have been cut off
            return StatusResult(recorded=Recorded.STALE, request=request)
        if state is State.RUNNING:
            moved = self.scheduler.tables.requests.note_running(request, event.execution_arn, now)
            return StatusResult(recorded=Recorded.RUNNING if moved else Recorded.STALE, request=request)
        arn = request.execution_arn or event.execution_arn
        return StatusResult(recorded=Recorded.FINISHED, request=replace(request, execution_arn=arn))

    def _is_of(self, attempt: int, request: Request) -> bool:
        """Tell whether an event is about the request's present attempt."""
        return attempt == request.attempt and request.state is not State.QUEUED

    def _end(self, about: "_About", now: datetime) -> End:
        """Return what the execution did, what it left, and what it cost.

        A message alone does not prove the end: SageMaker's own status of the execution, whose ARN we know, must
        agree. Raises OutcomeUnknown when it does not; then the message is redelivered, and finally kept as a dead
        letter.
        """
        request, event = about.request, about.event
        report = self._report(request, now)
        if report is not None and report.status is not None and state_for_status(report.status) not in TERMINAL:
            raise OutcomeUnknown(f"the status event says {event.status}, but SageMaker says {report.status}")
        return self.ending(request, event.status, report, now, self._tenant(request.tenant_id, about.items))

    def _report(self, request: Request, now: datetime) -> ExecutionReport | None:
        """Return SageMaker's report on an execution; None when there will never be one.

        Transient errors are retried, but no longer than some time after the latest possible end of the run.
        """
        assert request.execution_arn is not None, "it was looked at before"
        try:
            return self.reports.read(request.execution_arn)
        except (Throttled, OutcomeUnknown):
            if request.ends_by is None or now < request.ends_by + REPORT_AWAITED:
                raise
        except Exception:  # the execution does not exist, or access is denied: its end is known anyway
            return None
        return None

    def ending(
        self, request: Request, status: str, report: ExecutionReport | None, now: datetime, tenant: Tenant | None
    ) -> End:
        """Return the end of an attempt with a terminal status. Without a report, the cost is unknown and the
        reserved amount is charged.
        """
        facts = report or ExecutionReport()
        if state_for_status(status) is State.STOPPED and is_overdue(request, now):
            # The reconciler has stopped it; of trainings, SageMaker says itself that their time was up.
            facts = replace(facts, stopped_early=True, failed_step=TRANSFORM_STEP, failure=TIME_IS_UP)
        outcome = self._outcome(request, tenant)
        outcome = replace(outcome, model_package_arn=outcome.model_package_arn or facts.model_package_arn)
        state = end_of(status, facts.failed_step, registered=outcome.model_package_arn is not None)
        assert state is not None, "looked at before"
        if state is State.STOPPED and facts.stopped_early and request.stop_asked_at is None:
            state = State.FAILED  # nobody has stopped it: SageMaker has stopped its training
        passes = state is State.FAILED and (facts.cause or cause_of(facts.failure or "")).passes
        if passes and request.stop_asked_at is not None:
            state, passes = State.STOPPED, False
        failed_step = facts.failed_step if state is State.FAILED else None
        reason = _reason(state, facts, request) if report or state is not State.FAILED else NO_REPORT
        execution = replace(
            executed(request, facts, self.prices, now, state),
            reason=reason,
            failed_step=failed_step,
            model_package_arn=outcome.model_package_arn,
            model_uri=outcome.model_uri,
            report_uri=Locations.of(tenant, request).reports if tenant else None,
        )
        if report is None:
            execution = replace(execution, unknown=max(execution.unknown, 1), is_final=False)
        outcome = replace(
            outcome,
            cost_usd=str(execution.cost_usd),
            cost_unknown=execution.unknown or None,
            failed_step=failed_step,
            tuned_before=facts.first_trial if outcome.tuned is not None else None,
        )
        return End(
            request=request,
            state=state,
            reason=reason,
            outcome=outcome,
            execution=execution,
            passes=passes,
            interrupted=passes and facts.cause is FailureCause.INTERRUPTION,
        )

    def release(self, request: Request, reason: str, now: datetime) -> StatusResult:
        """End an attempt whose end will never be reported, and release its slot."""
        end = self.ending(request, "Failed", None, now, self.tenants.get(request.tenant_id))
        stopped = request.stop_asked_at is not None
        end = replace(end, state=State.STOPPED if stopped else State.FAILED, reason=reason, passes=False)
        assert end.execution is not None, "it was started"
        end = replace(end, execution=replace(end.execution, state=end.state, reason=reason))
        if self.scheduler.completer.finish([end], self.policies.current(), now) != [True]:
            return StatusResult(recorded=Recorded.STALE, request=request)
        return self._ended(end, {}, now)

    def _goes_again(self, end: End, policy: Policy) -> bool:
        """Tell whether a run failed for a transient cause (capacity, SageMaker's own fault) and may be retried.

        After an attempt on spot capacity there is always one on demand.
        """
        on_spot = ResourceProfile.parse(end.request.profile).is_on_spot
        return end.passes and (on_spot or end.request.failures + 1 < policy.retries.attempts_max)

    def _again(self, end: End, policy: Policy, now: datetime) -> StatusResult:
        # On demand it need not wait for what spot capacity lacks.
        delay = timedelta(0) if end.interrupted else policy.retries.delay * 2**end.request.failures
        changed = self.scheduler.completer.requeue(
            end.request,
            policy,
            now,
            due_at=now + delay,
            reason=end.reason or "",
            execution=end.execution,
            failed=True,
        )
        for request in changed:
            self.notifier.notify(request, now)
        if not changed:
            return StatusResult(recorded=Recorded.STALE, request=end.request)
        stopped = changed[0].state is State.STOPPED
        return StatusResult(recorded=Recorded.FINISHED if stopped else Recorded.REQUEUED, request=changed[0])

    def _ended(self, end: End, items: Items, now: datetime) -> StatusResult:
        ended = replace(end.request, state=end.state, reason=end.reason, outcome=end.outcome, finished_at=now)
        self.notifier.notify(ended, now, self._tenant(ended.tenant_id, items))
        return StatusResult(recorded=Recorded.FINISHED, request=ended)

    def _tenant(self, tenant_id: str, items: Items) -> Tenant | None:
        """Return a tenant as it was read along, or read it."""
        item = items.get(tenant_key(tenant_id))
        return tenant_from(item) if item else self.tenants.get(tenant_id)

    def _outcome(self, request: Request, tenant: Tenant | None) -> Outcome:
        """Return the run's results if they can be read: an end does not wait for files of a tenant's own job."""
        outcome_so_far = request.outcome or Outcome()
        if tenant is None or outcome_so_far.trained_sha256 is not None:
            return outcome_so_far
        try:
            outcome = self.results.read(tenant, request)
        except Exception as error:  # whatever lies there
            outcome = Outcome(unread=f"the results could not be read: {type(error).__name__}")
        return replace(outcome, model_package_arn=outcome_so_far.model_package_arn)


def _properties(outcome: Outcome) -> dict[str, str]:
    """Return what the registry says of a challenger, beside the places of its reports; nothing of a first one."""
    if outcome.champion is None:
        return {}
    properties = {"registered_as": "challenger", "champion": outcome.champion}
    if outcome.not_compared is not None:
        return properties | {"not_compared": outcome.not_compared}
    numbers = {name: getattr(outcome, name) for name in ("champion_quality", "gain", "segment_gain")}
    return properties | {name: f"{number:.6g}" for name, number in numbers.items() if number is not None}


class _About(NamedTuple):
    """An end to process, and what was read for it."""

    request: Request
    event: StatusEvent
    items: Items


def _keys_of(events: Sequence[StatusEvent]) -> list[Key]:
    """Return what settling events needs to know: ledger, requests, and what their descriptions lead to."""
    keys: dict[Key, None] = {LEDGER: None}
    for event in events:
        name, subject = parse_display_name(event.display_name), Subject.parse(event.description)
        if name is not None:
            keys[request_key(name.request_id)] = None
            if subject is not None:
                keys |= dict.fromkeys((*end_keys(subject), tenant_key(subject.tenant_id)))
    return list(keys)


def _is_request(key: Key) -> bool:
    return key.table == "requests"


def executed(
    request: Request, report: ExecutionReport, prices: Prices, now: datetime, state: State
) -> ExecutionRecord:
    """Return the record of a request's present attempt that ended in a state.

    What SageMaker does not say of it is taken from the request; an end that it does not say is now.
    """
    steps = tuple(priced(step, prices) for step in report.steps)
    cost, unknown = total(steps, state)
    expected = request.expected
    return ExecutionRecord(
        request_id=request.request_id,
        attempt=request.attempt,
        tenant_id=request.tenant_id,
        tier=request.tier,
        data_set=request.data_set,
        algorithm=request.algorithm or "unknown",
        profile=request.profile,
        month=request.month or month_of(request.admitted_at or now),
        execution_arn=request.execution_arn or "",
        state=state,
        admitted_at=request.admitted_at or now,
        started_at=report.started_at or request.started_at,
        ended_at=report.ended_at or now,
        recorded_at=now,
        steps=steps,
        cost_usd=cost,
        unknown=unknown,
        price_version=prices.version,
        is_final=all_final(steps, state),
        reserved_usd=request.reserved_usd,
        data_bytes=request.data_bytes,
        expected_seconds=expected.seconds if expected else None,
        expected_usd=expected.usd if expected else None,
        has_overrides=request.overrides is not None,
    )


def _reason(state: State, report: ExecutionReport, request: Request) -> str | None:
    if state is State.FAILED:
        failure = report.failure or "no reason was given"
        if failure == OUT_OF_MEMORY:
            profile = ResourceProfile.held_by(request)
            size = f"{request.content.size_bytes / 1e6:,.1f} MB"
            if profile.is_transform:
                what = f"than {profile.training[0]} has (all rows have {size}); split the largest objects"
            else:
                types = " or ".join(dict.fromkeys((profile.processing, *profile.training)))
                what = f"than {types} has (the last object uploaded has {size}); train on less"
            failure = f"{OUT_OF_MEMORY}: the data needs more memory {what}, or ask for larger instances"
        return f"{report.failed_step or 'pipeline'}: {failure}"
    if state is State.STOPPED:
        return "the execution was stopped"
    return None
