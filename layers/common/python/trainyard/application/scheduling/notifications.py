"""Notifications: a tenant reads its request's receipt, and everybody else the event on the bus."""

from dataclasses import dataclass
from datetime import datetime

from trainyard.application.ports import Announcements, Receipts, Tenants
from trainyard.domain.requests import Request
from trainyard.domain.tenants import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifier:
    tenants: Tenants
    receipts: Receipts
    announcements: Announcements

    def notify(
        self, request: Request, now: datetime, tenant: Tenant | None = None, *, announce: bool = True
    ) -> None:
        """Write the request's receipt beside the tenant's data, and announce its state on the bus.

        Both are safe to repeat: an older state never replaces a newer receipt, and subscribers expect an event
        more than once. `tenant` saves the look-up where the caller has read it; a tenant that has been deleted
        has no receipts any more. Without `announce` only the receipt is written.

        Raises what the ports raise (Conflict, Throttled, OutcomeUnknown): the caller decides whether the message
        must be delivered again.
        """
        tenant = tenant or self.tenants.get(request.tenant_id)
        if tenant is not None:
            self.receipts.write(tenant, request, now)
        if announce:
            self.announcements.announce(request)
