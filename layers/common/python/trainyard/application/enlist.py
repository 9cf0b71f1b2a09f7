"""Enlist: from the tier queue into the tenant's queue in the waiting room; the newest upload wins."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from trainyard.application.policies import Policies
from trainyard.application.ports import (
    Announcements,
    Bell,
    Enlisted,
    Enlistment,
    Receipts,
    Tenants,
)
from trainyard.application.waiting_room import WaitingRoom
from trainyard.domain.requests import Request, State, Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlist:
    policies: Policies
    tenants: Tenants
    waiting_room: WaitingRoom
    receipts: Receipts
    announcements: Announcements
    bell: Bell

    def enlist(self, submission: Submission, now: datetime) -> Enlisted:
        """Queue one request, or merge it with the one of its data set that waits. Idempotent.

        Raises Conflict or Throttled when it must be delivered again.
        """
        # 1. Into the waiting room, in one transaction.
        enlisted = self.waiting_room.enlist(submission, self.policies.current(), now)
        # 2. Tell tenant and bus; again on a redelivery, since the first telling may have been cut off.
        for request in (enlisted.request, enlisted.superseded, enlisted.waiting):
            if request is not None:
                self._tell(request, now)
        return enlisted

    def ring(self, enlisted: Iterable[Enlisted], now: datetime) -> None:
        """Ring once for a whole batch: now if anything is due, and when the last of the rest will be."""
        waiting = [e.waiting or e.request for e in enlisted if e.kind is not Enlistment.DUPLICATE]
        due_times = [request.due_at for request in waiting]
        if any(due <= now for due in due_times):
            self.bell.ring()
        later = [due for due in due_times if due > now]
        if later:
            self.bell.ring_at(max(later), now)

    def _tell(self, request: Request, now: datetime) -> None:
        tenant = self.tenants.get(request.tenant_id)
        if tenant is not None:
            self.receipts.write(tenant, request, now)
        if request.state in (State.QUEUED, State.SUPERSEDED):
            self.announcements.announce(request)
