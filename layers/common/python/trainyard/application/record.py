"""Record: what became of an execution; the slot is released, the cost booked, the tenant told."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from trainyard.application.ports import (
    Announcements,
    Bell,
    ExecutionReport,
    ExecutionReports,
    Receipts,
    Requests,
    Results,
    Tenants,
    WaitingRoom,
)
from trainyard.domain.lifecycle import state_for_status
from trainyard.domain.names import parse_display_name
from trainyard.domain.requests import TERMINAL, Outcome, Request, State


class Recorded(StrEnum):
    """What a status event changed."""

    RUNNING = "RUNNING"
    """The execution is known to run."""
    FINISHED = "FINISHED"
    """The request ended, and its slot is free."""
    STALE = "STALE"
    """A duplicate, or about an attempt that is over: nothing changed."""
    FOREIGN = "FOREIGN"
    """An execution that is not ours: nothing changed."""
    UNKNOWN_STATUS = "UNKNOWN_STATUS"
    """A status we do not know: nothing changed, and an alarm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    tenants: Tenants
    waiting_room: WaitingRoom
    requests: Requests
    reports: ExecutionReports
    results: Results
    receipts: Receipts
    announcements: Announcements
    bell: Bell

    def status_changed(
        self, *, display_name: str, status: str, execution_arn: str, now: datetime
    ) -> tuple[Recorded, Request | None]:
        """Settle a status event. Idempotent, and in any order.

        Returns what changed, and the request it was about if it is ours.
        """
        # 1. Whose execution is it?
        name = parse_display_name(display_name)
        request = self.requests.get(name.request_id) if name else None
        if name is None or request is None:
            return Recorded.FOREIGN, None
        # 2. What does the status mean?
        state = state_for_status(status)
        if state is None:
            return Recorded.UNKNOWN_STATUS, request
        if name.attempt != request.attempt:
            return Recorded.STALE, request
        if request.state in TERMINAL:
            self._tell(request, now)  # the first telling may have been cut off
            return Recorded.STALE, request
        # 3. Running, or ended?
        if state is State.RUNNING:
            moved = self.waiting_room.mark_running(name.request_id, name.attempt, execution_arn, now)
            return (Recorded.RUNNING if moved else Recorded.STALE), request
        return self._finish(replace(request, execution_arn=execution_arn), state, now)

    def step_reached(self, *, request_id: str, attempt: int, model_package_arn: str) -> bool:
        """Keep what the pipeline's last step alone knows; False when it speaks of another attempt."""
        request = self.requests.get(request_id)
        tenant = self.tenants.get(request.tenant_id) if request else None
        if request is None or tenant is None:
            return False
        outcome = replace(self.results.read(tenant, request), model_package_arn=model_package_arn)
        return self.requests.note_outcome(request_id, attempt, outcome)

    def _finish(self, request: Request, state: State, now: datetime) -> tuple[Recorded, Request]:
        # 4. What did it leave, and what did it cost?
        assert request.execution_arn is not None
        report = self.reports.read(request.execution_arn)
        outcome = self._outcome(request, report)
        reason = _reason(state, report)
        # 5. Ended, slot released: one transaction, once.
        if not self.waiting_room.finish(request, state, reason=reason, outcome=outcome, now=now):
            return Recorded.STALE, request
        ended = replace(request, state=state, reason=reason, outcome=outcome, finished_at=now)
        # 6. A slot is free: wake the dispatcher, and tell the tenant.
        self._tell(ended, now)
        return Recorded.FINISHED, ended

    def _tell(self, request: Request, now: datetime) -> None:
        """Tell dispatcher, tenant and bus; at least once, since a redelivery tells again."""
        self.bell.ring()
        tenant = self.tenants.get(request.tenant_id)
        if tenant is not None:
            self.receipts.write(tenant, request, now)
        self.announcements.announce(request)

    def _outcome(self, request: Request, report: ExecutionReport) -> Outcome:
        known = request.outcome or Outcome()
        tenant = self.tenants.get(request.tenant_id)
        if tenant is not None and known.trained_sha256 is None:
            found = self.results.read(tenant, request)
            known = replace(found, model_package_arn=known.model_package_arn)
        cost = None if report.cost_usd is None else str(report.cost_usd)
        return replace(known, cost_usd=cost, failed_step=report.failed_step)


def _reason(state: State, report: ExecutionReport) -> str | None:
    if state is State.FAILED:
        return f"{report.failed_step or 'pipeline'}: {report.failure or 'no reason was given'}"
    if state is State.STOPPED:
        return "the execution was stopped"
    return None
