"""Roles of pooled tenants: created at their first request, removed when idle for long, so that IAM's quota limits
only active tenants."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.application.tenancy.tenants import Provisioning, Removal, TenantRecords
from trainyard.domain.errors import Conflict, InProgress, Refused
from trainyard.domain.tenants import RoleState, Tenant, TenantState

TRIES_MAX = 4

REMOVAL_MAX = timedelta(minutes=3)
"""After this time an interrupted removal is taken over: longer than a function may run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledRoles:
    records: TenantRecords
    scheduler: Scheduler
    provisioning: Provisioning
    removal: Removal
    is_served: Callable[[str], bool]
    """Tells whether a tenant has endpoints of its own, which act with its role."""

    def make(self, tenant_id: str, now: datetime) -> None:
        """Create a pooled tenant's role. Idempotent, and safe with concurrent calls.

        Raises InProgress while it is being removed, Refused for a tenant that takes no requests, Conflict when
        its record keeps changing.
        """
        for _ in range(TRIES_MAX):
            tenant = self.records.get(tenant_id)
            if tenant is None or tenant.state not in (TenantState.ACTIVE, TenantState.SUSPENDED):
                raise Refused(f"tenant {tenant_id} accepts no requests, so no role is created")
            if tenant.role is RoleState.MADE:
                return
            since = tenant.role_since
            if tenant.role is RoleState.REMOVING and since is not None and now < since + REMOVAL_MAX:
                raise InProgress(f"the role of tenant {tenant_id} is being removed: try again in a moment")
            self.provisioning.ensure_role(tenant)
            try:
                self.records.put_role(tenant, RoleState.MADE, now)
                return
            except Conflict:
                continue
        raise Conflict(f"the record of tenant {tenant_id} keeps changing")

    def remove_idle(
        self, now: datetime, *, idle_for: timedelta, failed: Callable[[Tenant, Exception], None]
    ) -> tuple[list[str], bool]:
        """Check some tenants, from where the last check ended; remove the roles of those idle for long.

        Returns the tenants whose roles were removed, and whether more are left. One failure stops no other.
        """
        tenants, cursor = self.records.page(after=self.records.cursor())
        removed = []
        for tenant in tenants:
            try:
                if self._is_idle(tenant, now, idle_for) and self._remove(tenant, now):
                    removed.append(tenant.tenant_id)
            except Exception as error:  # one failing tenant must not affect the others
                failed(tenant, error)
        self.records.put_cursor(cursor)
        return removed, cursor is not None

    def _is_idle(self, tenant: Tenant, now: datetime, idle_for: timedelta) -> bool:
        if not tenant.pooled or tenant.role is RoleState.NONE or tenant.operation is not None:
            return False
        if not self._at_rest(tenant):
            return False
        if self.is_served(tenant.tenant_id):
            return False
        last = self.scheduler.tables.requests.recent_of_tenant(tenant.tenant_id, limit=1)
        return not last or last[0].arrived_at < now - idle_for

    def _at_rest(self, tenant: Tenant) -> bool:
        return self.scheduler.tables.queues.get(tenant.tier, tenant.tenant_id).at_rest

    def _remove(self, tenant: Tenant, now: datetime) -> bool:
        """Mark the record first: a later request then creates the role again, and waits for it.

        A request that arrived just before is seen in the queue, and keeps the role.
        """
        marked = self.records.put_role(tenant, RoleState.REMOVING, now)
        if not self._at_rest(tenant):
            self.records.put_role(marked, RoleState.MADE, None)
            return False
        self.removal.remove_role(marked)
        self.records.put_role(marked, RoleState.NONE, None)
        return True
