"""Expedite: an operator puts a waiting request first in its tier. It changes the order only, and no limit."""

from dataclasses import dataclass, replace
from datetime import datetime

from trainyard.application.ports import Bell
from trainyard.application.scheduling.explain import Explain
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.errors import Refused
from trainyard.domain.queues import entry_of
from trainyard.domain.requests import Request, State, StateChange
from trainyard.domain.scheduling import Expedited, Reason
from trainyard.persistence.ledger import expedite

EXPEDITED_MAX = 10
"""Requests that may be expedited at once, since every pass reads them."""

TEXT_MAX = 200
"""Characters that are stored of who expedited a request, and why."""

CANNOT_GO = frozenset(
    {
        Reason.TENANT_PAUSED,
        Reason.TIER_PAUSED,
        Reason.ALL_PAUSED,
        Reason.BUDGET,
        Reason.TIER_BUDGET,
        Reason.PRICE_UNKNOWN,
        Reason.NEVER_FITS,
        Reason.UNKNOWN_TIER,
    }
)
"""Reasons to wait that no order changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expedite:
    scheduler: Scheduler
    explain: Explain
    bell: Bell

    def expedite(self, request_id: str, now: datetime, *, by: str, why: str) -> Expedited:
        """Put a waiting request first in its tier: at most every fourth admission of the tier is such a one.

        Idempotent. Raises Refused for what does not wait, or cannot go whatever its place; Conflict when the
        ledger keeps changing.
        """
        explanation = self.explain.why(request_id, now)
        request = explanation.request
        if request.state is not State.QUEUED:
            raise Refused(
                f"request {request_id} is {request.state.value} already: only what waits can be expedited"
            )
        if explanation.reason in CANNOT_GO:
            raise Refused(
                f"request {request_id} cannot go, whatever its place: {explanation.reason}. What would let it go: "
                f"{explanation.cure}"
            )
        expedited = _expedited(request, now, by, why)
        before = self.scheduler.tables.transactions.retried(lambda: self._write(request, expedited, now))
        self.bell.ring()
        return before or expedited

    def _write(self, request: Request, expedited: Expedited, now: datetime) -> Expedited | None:
        """Note it in the ledger and in the request's history; return what was expedited before, if it was."""
        tables = self.scheduler.tables
        ledger = tables.ledger.read()
        place = (expedited.tier, expedited.tenant_id, expedited.place)
        same = next((e for e in ledger.expedited if (e.tier, e.tenant_id, e.place) == place), None)
        if same is not None:
            return same
        if len(ledger.expedited) >= EXPEDITED_MAX:
            raise Refused(f"{EXPEDITED_MAX} requests are expedited already; `trainyard status` shows them")
        change = StateChange(now, State.QUEUED, f"expedited by {expedited.by}: {expedited.why}")
        noted = replace(request, history=(*request.history, change))
        tables.store.transact(
            [expedite([*ledger.expedited, expedited], ledger), tables.requests.set_history(noted)]
        )
        return None


def _expedited(request: Request, now: datetime, by: str, why: str) -> Expedited:
    return Expedited(
        tier=request.tier,
        tenant_id=request.tenant_id,
        place=entry_of(request).place,
        request_id=request.request_id,
        by=by[:TEXT_MAX],
        why=why[:TEXT_MAX],
        at=now,
    )
