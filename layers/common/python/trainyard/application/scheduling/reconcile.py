"""Reconcile: catches up on missed events, so that a lost event costs minutes, but never a slot.

Each minute, `find_ends` checks the executions that have run for longer than such runs usually take. Every few
minutes, `run` also lists the pipeline's executions, recounts the ledger, and counts executions that hold no slot.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from trainyard.application.ports import Executions, ParallelMap
from trainyard.application.scheduling.merging import with_estimate
from trainyard.application.scheduling.record import Record, Recorded, StatusEvent, StatusResult, is_overdue
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.errors import Conflict, ExecutionGone, OutcomeUnknown, Throttled, TrainyardError
from trainyard.domain.lifecycle import state_for_status
from trainyard.domain.names import display_name
from trainyard.domain.requests import TERMINAL, Basis, Request, State
from trainyard.domain.resources import ResourceProfile
from trainyard.persistence.policies import Policies

UNHEARD_OF = timedelta(minutes=5)
"""A running request without news for this long is checked with SageMaker."""

LISTED_FOR = timedelta(hours=1)
"""Executions that were started within this time are listed, a hundred per call; those that no longer run are
checked one by one."""

CHECKED_MIN, CHECKED_SHARE = 10, 8
"""Executions checked at most per run because they are due: this many, or an eighth of the account's slots."""

CHECK_GROWTH = 0.15
"""After a check, the next one is due when the execution has run for so much longer …"""

CHECK_EVERY = timedelta(minutes=5)
"""… but no later than after this time."""

ASKED_TOGETHER = 24
"""Executions that are checked between two checks of the remaining time."""

LISTED_AGAIN = timedelta(minutes=15)
"""Margin before the last listing: a list may lack the youngest executions."""

OVERDUE = timedelta(minutes=15)
"""After the latest end that its maximum runtimes allow: an execution that still runs is asked to stop."""

GIVEN_UP = timedelta(hours=2)
"""After that end: the slot of an execution that does not end, or whose status cannot be read, is released. If it
still runs, it counts against the account's slots until it has ended."""

GONE_FOR = timedelta(minutes=30)
"""After its start SageMaker must know an execution, whatever its own lag."""

GONE = "its execution no longer exists in SageMaker: the pipeline was deleted or replaced"
NEVER_ENDED = "its execution did not end within two hours after its maximum runtime"


@dataclass(slots=True, kw_only=True)
class Repairs:
    """What one run corrected."""

    asked: int = 0
    ended: list[Request] = field(default_factory=list)
    """Requests whose end event was missed."""
    failed: dict[str, str] = field(default_factory=dict)
    """Request → error when its execution was checked; the others are checked first next time."""
    released: list[Request] = field(default_factory=list)
    """Requests whose end will never be reported: their slots were released."""
    overdue: list[Request] = field(default_factory=list)
    """Requests whose executions should have ended long ago; they were stopped."""
    selected: dict[str, str] = field(default_factory=dict)
    """Request → the instance type that SageMaker selected for its training; the others were given back."""
    recounted: dict[str, int] = field(default_factory=dict)
    """Count of the ledger → by how much it was wrong."""
    unmanaged: int | None = None
    """Executions in the account that hold no slot of ours; None where nobody looked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconcile:
    policies: Policies
    scheduler: Scheduler
    executions: Executions
    record: Record
    parallel_map: ParallelMap = map

    def find_ends(self, now: datetime, *, out_of_time: Callable[[], bool] = lambda: False) -> Repairs:
        """Check the executions that should have ended by now, the most overdue first. Safe at any time."""
        repairs = Repairs()
        # The index lags, which is harmless here: what has ended meanwhile is read again before it is settled.
        running = list(self.scheduler.tables.requests.active(State.RUNNING))
        self._ask_while_time(self._due(running, now), now, repairs, out_of_time)
        self._note_selected(running, now, repairs, out_of_time)
        return repairs

    def run(self, now: datetime, *, out_of_time: Callable[[], bool] = lambda: False) -> Repairs:
        """Check executions without news, recount the ledger, and count those that hold no slot. Safe at any time.

        What it has no time to check is checked next time, and until then assumed unchanged.
        """
        repairs = Repairs()
        _, looked_at = self.scheduler.tables.ledger.unmanaged()
        # 1. What runs of this pipeline, as far back as matters; then who holds a slot, so that what has just been
        #    admitted is not taken for somebody else's.
        running = {} if out_of_time() else self._running(looked_at, now)
        holders = self.scheduler.tables.held()
        held = [request for request in holders if request.state is State.RUNNING]
        # 2. Executions not heard of: a missed end becomes an end. What was to stop is asked to stop again.
        missing = _missing(held, running, now)
        due = [request for request in self._due(held, now) if request not in missing]
        self._ask_while_time([*missing, *due], now, repairs, out_of_time)
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
        """Return ARN → display name of running executions: the recent ones or, now and then, all."""
        longest = max(tier.run_time_max for tier in self.policies.current().tiers)
        since = now - LISTED_FOR
        if looked_at is None or looked_at.hour != now.hour:
            since = now - longest
        elif looked_at < since:
            since = max(looked_at - LISTED_AGAIN, now - longest)
        return self.executions.running(since=since)

    def _due(self, held: Iterable[Request], now: datetime) -> list[Request]:
        """Return the executions to check now, the most overdue first."""
        policy, requests = self.policies.current(), list(held)
        # A request may have waited long, and what was expected when it was enlisted be outdated.
        unheard = sorted({(r.tenant_id, r.data_set, r.kind) for r in requests if r.heard_at is None})
        pasts = self.scheduler.tables.book.pasts(unheard)
        overdue: list[tuple[timedelta, Request]] = []
        for request in requests:
            past = pasts.get((request.tenant_id, request.data_set, request.kind), ())
            late = now - next_check(with_estimate(request, past, policy) if past else request)
            if late >= timedelta(0):
                overdue.append((late, request))
        overdue.sort(key=lambda pair: (-pair[0], pair[1].request_id))
        return [request for _, request in overdue[: max(CHECKED_MIN, policy.running_max // CHECKED_SHARE)]]

    def _ask_while_time(
        self, requests: Sequence[Request], now: datetime, repairs: Repairs, out_of_time: Callable[[], bool]
    ) -> None:
        for part in _parts(requests, ASKED_TOGETHER):
            if out_of_time():
                break
            self._ask_all(part, now, repairs)

    def _ask_all(self, requests: Sequence[Request], now: datetime, repairs: Repairs) -> None:
        """Check some executions together, and settle each by itself."""
        repairs.asked += len(requests)
        still_running: list[Request] = []
        for request, answer in zip(requests, self.parallel_map(self._status, requests), strict=True):
            try:
                if not self._settle(request, answer, now, repairs):
                    still_running.append(request)
            except Exception as error:  # one failing execution must not affect the others
                repairs.failed[request.request_id] = f"{type(error).__name__}: {error}"
                still_running.append(request)
        with suppress(TrainyardError):
            self.scheduler.tables.requests.note_heard(still_running, now)

    def _status(self, request: Request) -> str | Exception:
        assert request.execution_arn is not None, "what runs has an execution"
        try:
            return self.executions.status(request.execution_arn)
        except Exception as error:
            return error

    def _settle(self, request: Request, answer: str | Exception, now: datetime, repairs: Repairs) -> bool:
        """Record a missed end, or release a slot whose end will never be reported; False while it runs."""
        if isinstance(answer, Exception):
            gone = isinstance(answer, ExecutionGone) and _begun(request) < now - GONE_FOR
            if not gone and not _is_late(request, GIVEN_UP, now):
                raise answer
            self._release(request, GONE if gone else f"{NEVER_ENDED}, and its status cannot be read", now, repairs)
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
            return False
        return True

    def _release(self, request: Request, reason: str, now: datetime, repairs: Repairs) -> None:
        settled = self.record.release(request, reason, now)
        if settled.recorded is Recorded.FINISHED and settled.request:
            repairs.released.append(settled.request)

    def _note_selected(
        self, running: Iterable[Request], now: datetime, repairs: Repairs, out_of_time: Callable[[], bool]
    ) -> None:
        """Ask which instances runs got that may get one of several types, and give the others back.

        A bounded number each minute, others in the next one: a run that waits for capacity must not keep the
        answers for those behind it.
        """
        several = sorted(
            (r for r in running if r.selected is None and len(ResourceProfile.parse(r.profile).training) > 1),
            key=lambda request: request.request_id,
        )
        if not several:
            return
        some = max(CHECKED_MIN, self.policies.current().running_max // CHECKED_SHARE)
        begin = int(now.timestamp()) // 60 * some % len(several)
        asked = (several[begin:] + several[:begin])[:some]
        for part in _parts(asked, ASKED_TOGETHER):
            if out_of_time():
                break
            for request, answer in zip(part, self.parallel_map(self._selected, part), strict=True):
                with suppress(TrainyardError):  # it is asked about again
                    if answer is not None and self.scheduler.operations.note_selected(request, answer, now):
                        repairs.selected[request.request_id] = answer

    def _selected(self, request: Request) -> str | None:
        with suppress(Exception):  # whatever it is, its pools stay counted until it ends
            return self.record.reports.selected(request.execution_arn or "")
        return None

    def _stop_again(self, held: Iterable[Request], now: datetime, repairs: Repairs) -> None:
        """Stop executions for which a stop was requested, and those that exceed their maximum runtime."""
        for request in held:
            is_late = _is_late(request, OVERDUE, now)
            stops = is_late or is_overdue(request, now) or request.stop_asked_at is not None
            if stops and request.execution_arn is not None:
                repairs.overdue += [request] if is_late else []
                with suppress(Exception):  # it has ended, or is asked again next time
                    self.executions.stop(request.execution_arn)

    def _still_runs(self, execution_arn: str) -> bool:
        """Tell whether an execution may still run; if its status cannot be read, only a transient error counts."""
        try:
            return state_for_status(self.executions.status(execution_arn)) not in TERMINAL
        except (Throttled, OutcomeUnknown):
            return True
        except Exception:  # SageMaker knows it no longer
            return False


def next_check(request: Request) -> datetime:
    """Return when an execution without news is checked with SageMaker: once it has run for as long as half of its
    data set's runs, then each time that it has run for 15 % longer, and at least every five minutes.

    Without such history, it is checked once the list of executions does not contain it any more.
    """
    begun, expected = _begun(request), request.expected
    if request.heard_at is not None:
        return request.heard_at + min((request.heard_at - begun) * CHECK_GROWTH, CHECK_EVERY)
    if expected is None or expected.basis is not Basis.HISTORY:
        return begun + LISTED_FOR - UNHEARD_OF
    return (request.admitted_at or begun) + timedelta(seconds=expected.seconds)


def _missing(held: Iterable[Request], running: Mapping[str, str], now: datetime) -> list[Request]:
    """Return the requests whose executions began a while ago, but within the time listed, and no longer run."""
    listed, settled = now - LISTED_FOR + UNHEARD_OF, now - UNHEARD_OF
    return [r for r in held if listed <= _begun(r) < settled and r.execution_arn not in running]


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
