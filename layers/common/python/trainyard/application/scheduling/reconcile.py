"""Reconcile: what no event told. The timer's slow partner, so that a lost event costs minutes, never a slot."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from trainyard.application.ports import Executions, ParallelMap
from trainyard.application.scheduling.record import Record, Recorded, StatusEvent, StatusResult
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.errors import Conflict, ExecutionGone, OutcomeUnknown, Throttled, TrainyardError
from trainyard.domain.lifecycle import state_for_status
from trainyard.domain.names import display_name
from trainyard.domain.requests import TERMINAL, Request, State
from trainyard.persistence.policies import Policies

UNHEARD_OF = timedelta(minutes=5)
"""A running request of which nothing was heard for so long is asked about."""

LISTED_FOR = timedelta(hours=1)
"""Executions that were started since are listed, a hundred a call; which of them still run says who must be asked
about one by one."""

ASKED_MIN = 50
"""Of the executions that were started before, so many are asked about in one run, longest unheard of first; or a
third of them, where they are more: each comes up in a quarter of an hour."""

ASKED_TOGETHER = 24
"""Executions asked about between two looks at the time."""

LISTED_AGAIN = timedelta(minutes=15)
"""Before the last look: a list may lack the youngest."""

OVERDUE = timedelta(minutes=15)
"""After the latest end that its maximum runtimes allow: an execution that still runs is asked to stop."""

GIVEN_UP = timedelta(hours=2)
"""After that end: the slot of an execution that does not end, or cannot be asked about, is released. If SageMaker
says that it runs, it counts against the account's slots until it has ended."""

GONE_FOR = timedelta(minutes=30)
"""After its start SageMaker must know an execution, whatever its own lag."""

GONE = "SageMaker does not know its execution any more: its pipeline was deleted, or replaced"
NEVER_ENDED = "its execution had not ended two hours after the latest end that its maximum runtimes allow"


@dataclass(slots=True, kw_only=True)
class Repairs:
    """What one run corrected."""

    asked: int = 0
    ended: list[Request] = field(default_factory=list)
    """Requests whose end no event had told."""
    failed: dict[str, str] = field(default_factory=dict)
    """Request → what went wrong when its execution was asked about; the others are asked about first now."""
    released: list[Request] = field(default_factory=list)
    """Requests of which no end will be told: their slots were released."""
    overdue: list[Request] = field(default_factory=list)
    """Requests whose executions should have ended long ago; they were asked to stop."""
    recounted: dict[str, int] = field(default_factory=dict)
    """Count of the ledger → by how much it was wrong."""
    unmanaged: int = 0
    """Executions in the account that hold no slot of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconcile:
    policies: Policies
    scheduler: Scheduler
    executions: Executions
    record: Record
    parallel_map: ParallelMap = map

    def run(self, now: datetime, *, out_of_time: Callable[[], bool] = lambda: False) -> Repairs:
        """Ask about what was not heard of, recount, and count what holds no slot. Safe at any time.

        What it has no time to ask about is asked about next time, and until then taken for what it was.
        """
        repairs = Repairs()
        _, looked_at = self.scheduler.tables.ledger.unmanaged()
        # 1. What runs of this pipeline, as far back as matters; then who holds a slot, so that what has just been
        #    admitted is not taken for somebody else's.
        running = {} if out_of_time() else self._running(looked_at, now)
        holders = self.scheduler.tables.held()
        held = [request for request in holders if request.state is State.RUNNING]
        # 2. Executions not heard of: a missed end becomes an end. What was to stop is asked to stop again.
        for part in _parts(_unheard(held, running, now), ASKED_TOGETHER):
            if out_of_time():
                break
            self._ask_all(part, now, repairs)
        self._stop_again(held, now, repairs)
        # 3. Holders against the ledger.
        with suppress(Conflict):
            repairs.recounted = self.scheduler.operations.recount(now)
        # 4. What runs and holds no slot takes from the account's; what was just released is known as such by now.
        arns, _ = self.scheduler.tables.ledger.unmanaged()
        if out_of_time():
            repairs.unmanaged = len(arns)
            return repairs
        ours = {display_name(request.request_id, request.attempt) for request in holders}
        suspects = {arn for arn, name in running.items() if name not in ours} | set(arns)
        unmanaged = {arn for arn in suspects if out_of_time() or self._still_runs(arn)}
        repairs.unmanaged = len(unmanaged)
        with suppress(Conflict):
            self.scheduler.tables.ledger.note_unmanaged(sorted(unmanaged), now)
        return repairs

    def _running(self, looked_at: datetime | None, now: datetime) -> Mapping[str, str]:
        """Return ARN → display name of what runs: lately started, or, now and then, ever."""
        longest = max(tier.run_time_max for tier in self.policies.current().tiers)
        since = now - LISTED_FOR
        if looked_at is None or looked_at.hour != now.hour:
            since = now - longest
        elif looked_at < since:
            since = max(looked_at - LISTED_AGAIN, now - longest)
        return self.executions.running(since=since)

    def _ask_all(self, requests: Sequence[Request], now: datetime, repairs: Repairs) -> None:
        """Ask about some executions together, and settle each by itself."""
        repairs.asked += len(requests)
        for request, answer in zip(requests, self.parallel_map(self._status, requests), strict=True):
            try:
                self._settle(request, answer, now, repairs)
            except Exception as error:  # any one execution's trouble is its own
                repairs.failed[request.request_id] = f"{type(error).__name__}: {error}"
                with suppress(TrainyardError):
                    self.scheduler.tables.requests.note_heard(request, now)

    def _status(self, request: Request) -> str | Exception:
        assert request.execution_arn is not None, "what runs has an execution"
        try:
            return self.executions.status(request.execution_arn)
        except Exception as error:
            return error

    def _settle(self, request: Request, answer: str | Exception, now: datetime, repairs: Repairs) -> None:
        """Record an end that was missed; release a slot of which none will ever be told."""
        if isinstance(answer, Exception):
            gone = isinstance(answer, ExecutionGone) and _begun(request) < now - GONE_FOR
            if not gone and not _is_late(request, GIVEN_UP, now):
                raise answer
            self._release(request, GONE if gone else f"{NEVER_ENDED}, and cannot be asked about", now, repairs)
        elif state_for_status(answer) in TERMINAL:
            event = StatusEvent(
                display_name=display_name(request.request_id, request.attempt),
                status=answer,
                execution_arn=request.execution_arn or "",
            )
            (settled,) = self.record.settle([event], now)
            if isinstance(settled, Exception):
                raise settled
            _note(settled, repairs.ended)
        elif _is_late(request, GIVEN_UP, now):
            self.scheduler.tables.ledger.add_unmanaged(request.execution_arn or "", now)
            self._release(request, NEVER_ENDED, now, repairs)
        else:
            self.scheduler.tables.requests.note_heard(request, now)

    def _release(self, request: Request, reason: str, now: datetime, repairs: Repairs) -> None:
        settled = self.record.release(request, reason, now)
        if settled.recorded is Recorded.FINISHED and settled.request:
            repairs.released.append(settled.request)

    def _stop_again(self, held: Iterable[Request], now: datetime, repairs: Repairs) -> None:
        """Ask to stop what somebody wanted stopped, and what runs longer than it ever may."""
        for request in held:
            late = _is_late(request, OVERDUE, now)
            if (late or request.stop_asked_at is not None) and request.execution_arn is not None:
                repairs.overdue += [request] if late else []
                with suppress(Exception):  # it has ended, or is asked again next time
                    self.executions.stop(request.execution_arn)

    def _still_runs(self, execution_arn: str) -> bool:
        """Tell whether an execution may still run: of one that cannot be asked about, only while that can pass."""
        try:
            return state_for_status(self.executions.status(execution_arn)) not in TERMINAL
        except (Throttled, OutcomeUnknown):
            return True
        except Exception:  # SageMaker knows it no longer
            return False


def _unheard(held: Iterable[Request], running: Mapping[str, str], now: datetime) -> list[Request]:
    """Return whose executions are to be asked about: lately started ones that do not run any more, and some of
    those that were started before, longest unheard of first.
    """
    old = [request for request in held if _begun(request) < now - UNHEARD_OF]
    missing = [r for r in old if _begun(r) >= now - LISTED_FOR + UNHEARD_OF and r.execution_arn not in running]
    before = [r for r in old if _begun(r) < now - LISTED_FOR + UNHEARD_OF]
    before.sort(key=lambda request: (request.heard_at or _begun(request), request.request_id))
    return [*missing, *before[: max(ASKED_MIN, len(before) // 3 + 1)]]


def _begun(request: Request) -> datetime:
    assert request.started_at is not None, "what runs has begun"
    return request.started_at


def _is_late(request: Request, by: timedelta, now: datetime) -> bool:
    return request.ends_by is not None and now > request.ends_by + by


def _note(settled: StatusResult, ended: list[Request]) -> None:
    if settled.recorded in (Recorded.FINISHED, Recorded.REQUEUED) and settled.request:
        ended.append(settled.request)


def _parts(whole: Sequence[Request], size: int) -> list[Sequence[Request]]:
    return [whole[begin : begin + size] for begin in range(0, len(whole), size)]
