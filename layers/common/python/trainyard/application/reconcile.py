"""Reconcile: what no event told. The timer's slow partner, so that a lost event costs minutes, never a slot."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from trainyard.application.policies import Policies
from trainyard.application.ports import Executions
from trainyard.application.record import Record, Recorded, StatusEvent
from trainyard.application.waiting_room import WaitingRoom
from trainyard.domain.errors import Conflict, OutcomeUnknown, Throttled, TrainyardError
from trainyard.domain.lifecycle import state_for_status
from trainyard.domain.names import display_name, parse_display_name
from trainyard.domain.requests import TERMINAL, Request, State

UNHEARD_OF = timedelta(minutes=5)
"""A running request of which nothing was heard for so long is asked about."""

ASKED_MAX = 50
"""Executions described in one run, longest unheard of first (DescribePipelineExecution is throttled)."""

LISTED_AGAIN = timedelta(minutes=15)
"""Before the last look: a list may lack the youngest."""


@dataclass(slots=True, kw_only=True)
class Repairs:
    """What one run put right."""

    asked: int = 0
    ended: list[Request] = field(default_factory=list)
    """Requests whose end no event had told."""
    failed: dict[str, str] = field(default_factory=dict)
    """Request → what went wrong when its execution was asked about; the others are asked about first now."""
    recounted: dict[str, int] = field(default_factory=dict)
    """Count of the ledger → by how much it was wrong."""
    foreign: int = 0
    """Executions in the account that are not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconcile:
    policies: Policies
    waiting_room: WaitingRoom
    executions: Executions
    record: Record

    def run(self, now: datetime, *, out_of_time: Callable[[], bool] = lambda: False) -> Repairs:
        """Ask about what was not heard of, recount, and count what is not ours. Safe at any time.

        What it has no time to ask about is asked about next time, and until then taken for what it was.
        """
        repairs = Repairs()
        # 1. Executions not heard of for long: a missed end becomes an end.
        unheard = self.waiting_room.active(State.RUNNING, limit=ASKED_MAX)
        for request in unheard[:ASKED_MAX]:
            if out_of_time():
                break
            if request.started_at is not None and request.started_at < now - UNHEARD_OF:
                try:
                    self._ask(request, now, repairs)
                except Exception as error:  # any one execution's trouble is its own
                    repairs.failed[request.request_id] = f"{type(error).__name__}: {error}"
                    with suppress(TrainyardError):
                        self.waiting_room.heard_of(request, now)
        # 2. Holders against the ledger.
        with suppress(Conflict):
            repairs.recounted = self.waiting_room.recount(now)
        # 3. What runs in the account and is not ours takes slots too.
        known, looked_at = self.waiting_room.foreign()
        foreign = {arn for arn in known if out_of_time() or self._still_runs(arn)}
        if out_of_time():
            repairs.foreign = len(known)
            return repairs
        foreign |= self._foreign_since(looked_at - LISTED_AGAIN if looked_at else None, now)
        repairs.foreign = len(foreign)
        with suppress(Conflict):
            self.waiting_room.note_foreign(sorted(foreign), now)
        return repairs

    def _still_runs(self, execution_arn: str) -> bool:
        """Tell whether an execution may still run: of one that cannot be asked about, only while that can pass."""
        try:
            return state_for_status(self.executions.status(execution_arn)) not in TERMINAL
        except (Throttled, OutcomeUnknown):
            return True
        except Exception:  # SageMaker knows it no longer
            return False

    def _foreign_since(self, since: datetime | None, now: datetime) -> set[str]:
        """Return what runs, is not ours and was started since a time; since the longest run when none is known."""
        longest = max(tier.run_time_max for tier in self.policies.current().tiers)
        running = self.executions.running(since=max(since or now - longest, now - longest))
        return {arn for arn, name in running.items() if parse_display_name(name) is None}

    def _ask(self, request: Request, now: datetime, repairs: Repairs) -> None:
        assert request.execution_arn is not None, "what runs has an execution"
        repairs.asked += 1
        status = self.executions.status(request.execution_arn)
        if state_for_status(status) in TERMINAL:
            event = StatusEvent(
                display_name=display_name(request.request_id, request.attempt),
                status=status,
                execution_arn=request.execution_arn,
            )
            (settled,) = self.record.settle([event], now)
            if isinstance(settled, Exception):
                raise settled
            if settled.recorded in (Recorded.FINISHED, Recorded.REQUEUED) and settled.request:
                repairs.ended.append(settled.request)
        else:
            self.waiting_room.heard_of(request, now)
