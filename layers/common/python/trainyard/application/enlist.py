"""Enlist: from the tier queue into the tenant's queue in the waiting room; the newest upload wins."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from trainyard.application.policies import Policies
from trainyard.application.ports import (
    Announcements,
    Bell,
    Enlisted,
    Enlistment,
    Receipts,
    TenantRoles,
    Tenants,
)
from trainyard.application.waiting_room import WaitingRoom
from trainyard.domain.requests import Request, State, Submission
from trainyard.domain.tenants import RoleState, Tenant, TenantState

ROLE_PROPAGATES = timedelta(seconds=15)
"""A new role takes seconds before it can be assumed (IAM user guide, "Changes that I make are not always
immediately visible")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlist:
    policies: Policies
    tenants: Tenants
    waiting_room: WaitingRoom
    receipts: Receipts
    announcements: Announcements
    bell: Bell
    roles: TenantRoles

    def enlist(self, submission: Submission, now: datetime) -> Enlisted:
        """Queue one request, or merge it with the one of its data set that waits. Idempotent.

        Raises Conflict or Throttled when it must be delivered again.
        """
        # 1. Is there still such a tenant, in that place? It may have gone, or moved, since the upload.
        tenant = self.tenants.get(submission.tenant_id)
        refusal = _refusal(tenant, submission)
        if refusal is not None or tenant is None:
            return self._refuse(submission, refusal or "", now)
        # 2. A pooled tenant's role is made at its first request, and takes a moment to be known everywhere.
        not_before = tenant.role_since + ROLE_PROPAGATES if tenant.role_since else None
        if tenant.role is not RoleState.MADE:
            self.roles.make(tenant.tenant_id)
            not_before = now + ROLE_PROPAGATES
        # 3. Into the waiting room, in one transaction.
        submission = replace(submission, tier=tenant.tier)
        enlisted = self.waiting_room.enlist(submission, self.policies.current(), now, not_before=not_before)
        # 4. The role may have been removed as idle just before the request stood in the queue.
        if tenant.pooled and tenant.role is RoleState.MADE:
            current = self.tenants.get(tenant.tenant_id)
            if current is not None and current.role is not RoleState.MADE:
                self.roles.make(tenant.tenant_id)
        # 5. Tell tenant and bus; again on a redelivery, since the first telling may have been cut off.
        for request in (enlisted.request, enlisted.superseded, enlisted.waiting):
            if request is not None:
                self._tell(request, tenant, now)
        return enlisted

    def _refuse(self, submission: Submission, reason: str, now: datetime) -> Enlisted:
        request = Request(
            request_id=submission.request_id,
            tenant_id=submission.tenant_id,
            tier=submission.tier,
            data_set=submission.data_set,
            content=submission.content,
            cause=submission.cause,
            state=State.REJECTED,
            arrived_at=now,
            due_at=now,
            finished_at=now,
            reason=reason,
        )
        if self.waiting_room.add_rejected(request):
            self.announcements.announce(request)
        return Enlisted(kind=Enlistment.REFUSED, request=request)

    def ring(self, enlisted: Iterable[Enlisted], now: datetime) -> None:
        """Ring once for a whole batch: now if anything is due, and when the last of the rest will be."""
        waiting = [e.waiting or e.request for e in enlisted]
        due_times = [request.due_at for request in waiting if request.state is State.QUEUED]
        if any(due <= now for due in due_times):
            self.bell.ring()
        later = [due for due in due_times if due > now]
        if later:
            self.bell.ring_at(max(later), now)

    def _tell(self, request: Request, tenant: Tenant, now: datetime) -> None:
        self.receipts.write(tenant, request, now)
        if request.state in (State.QUEUED, State.SUPERSEDED):
            self.announcements.announce(request)


def _refusal(tenant: Tenant | None, submission: Submission) -> str | None:
    """Return why a request that was accepted cannot be enlisted any more; None when it can."""
    if tenant is None or tenant.state in (TenantState.DELETING, TenantState.DELETED):
        return f"tenant {submission.tenant_id} has been deleted since"
    if not tenant.owns(submission.content.uri):
        return f"tenant {submission.tenant_id} has moved since: what was uploaded is trained on from its new place"
    return None
