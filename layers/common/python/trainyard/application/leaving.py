"""Leaving: the steps that take away all that a tenant had, whatever of it there is.

    begin (DELETING) → cancel what waits → stop what runs, and wait → endpoints, models → model packages, group →
    schedule → objects, all versions → storage → role → record (DELETED, with its costs) or nothing

A step that does a bounded part of a long work answers `left`: the state machine calls it again.
"""

from dataclasses import dataclass

from trainyard.application.ports import Executions
from trainyard.application.tenants import Answer, Removal, Step, TenantDesk
from trainyard.domain.errors import Refused
from trainyard.domain.requests import State
from trainyard.domain.tenants import RoleState, Tenant, TenantState

CANCELLED_AT_ONCE = 25
FORGOTTEN_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    desk: TenantDesk
    removal: Removal
    executions: Executions

    def inventory(self, step: Step) -> Answer:
        """Return what a deletion would take away; changes nothing."""
        tenant = self._find(step)
        if tenant is None:
            return {"known": False, "progress": f"there is no tenant {step.wish.tenant_id}: nothing would go"}
        queue = self.desk.waiting_room.queue(tenant.tier, tenant.tenant_id)
        held = {"requests_waiting": queue.waiting, "requests_running": queue.running}
        return {"known": True, "would_go": held | self.removal.inventory(tenant)}

    def begin(self, step: Step) -> Answer:
        """Let nothing more in; an unknown tenant is no error, since its deletion may have been run before."""
        tenant = self._find(step)
        if tenant is None or (tenant.state is TenantState.DELETED and not step.purge):
            return {"known": False, "progress": f"there is no tenant {step.wish.tenant_id}: nothing to delete"}
        tenant = self.desk.claim(step, tenant, state=TenantState.DELETING)
        self.desk.waiting_room.set_tenant_paused(tenant.tier, tenant.tenant_id, True, step.at)
        return {"known": True, "progress": f"{tenant.tenant_id} takes no more uploads"}

    def cancel(self, step: Step) -> Answer:
        tenant = self.desk.held(step)
        waiting = self.desk.waiting_room.waiting_of(tenant.tier, tenant.tenant_id, limit=CANCELLED_AT_ONCE)
        for request in waiting:
            self.desk.waiting_room.cancel(request, step.at, reason="the tenant is being deleted")
        return _part(len(waiting), "requests cancelled", left=len(waiting) == CANCELLED_AT_ONCE)

    def stop_runs(self, step: Step) -> Answer:
        """Ask what runs to stop; `left` until all of it has ended."""
        tenant = self.desk.held(step)
        for request in self.desk.waiting_room.holding_of(tenant.tenant_id):
            if request.state is State.RUNNING and request.execution_arn is not None:
                self.executions.stop(request.execution_arn)
        queue = self.desk.waiting_room.queue(tenant.tier, tenant.tenant_id)
        # What was put back to the queue meanwhile, by a retry, goes the way of the others.
        for request in self.desk.waiting_room.waiting_of(tenant.tier, tenant.tenant_id, limit=CANCELLED_AT_ONCE):
            self.desk.waiting_room.cancel(request, step.at, reason="the tenant is being deleted")
        return _part(queue.running, "requests still run", left=not queue.at_rest)

    def endpoints(self, step: Step) -> Answer:
        left = self.removal.remove_endpoints(self.desk.held(step))
        return {"progress": "endpoints and models removed", "left": left}

    def models(self, step: Step) -> Answer:
        removed, left = self.removal.remove_models(self.desk.held(step))
        return _part(removed, "model packages removed", left=left)

    def schedule(self, step: Step) -> Answer:
        self.removal.remove_schedule(self.desk.held(step))
        return {"progress": "schedule removed"}

    def objects(self, step: Step) -> Answer:
        removed, left = self.removal.remove_objects(self.desk.held(step))
        return _part(removed, "object versions removed", left=left)

    def storage(self, step: Step) -> Answer:
        self.removal.remove_storage(self.desk.held(step))
        return {"progress": "storage removed"}

    def role(self, step: Step) -> Answer:
        self.removal.remove_role(self.desk.held(step))
        return {"progress": "role removed"}

    def forget(self, step: Step) -> Answer:
        """Keep the record with what its runs have cost; with `purge` nothing at all, requests included."""
        if step.purge and self._find(step) is None:
            return _gone(step, "nothing is kept")
        tenant = self.desk.held(step)
        room = self.desk.waiting_room
        queue = room.queue(tenant.tier, tenant.tenant_id)
        if not queue.at_rest:
            raise Refused(f"{queue.waiting} requests of {tenant.tenant_id} wait again, and {queue.running} run")
        if step.purge:
            ended = room.recent_of_tenant(tenant.tenant_id, limit=FORGOTTEN_AT_ONCE)
            for request in ended:
                room.forget_request(request)
            if len(ended) == FORGOTTEN_AT_ONCE:
                return _part(len(ended), "requests forgotten", left=True)
        self.desk.set_limits(tenant.tenant_id, None, step.at)
        spent = tenant.spent_usd + queue.spent_usd
        room.forget_queue(tenant.tier, tenant.tenant_id)
        self.desk.records.forget_location(tenant)
        gone = self.desk.done(
            tenant,
            "Deleted" if tenant.state is TenantState.DELETING else None,
            state=TenantState.DELETED,
            spent_usd=spent,
            role=RoleState.NONE if tenant.pooled else RoleState.MADE,
        )
        if step.purge:
            self.desk.records.purge(gone)
        kept = "nothing is kept" if step.purge else "the record is kept, with its costs"
        return _gone(step, kept)

    def _find(self, step: Step) -> Tenant | None:
        return self.desk.records.get(step.wish.tenant_id)


def _gone(step: Step, kept: str) -> Answer:
    return {"progress": f"{step.wish.tenant_id} is deleted; {kept}", "left": False}


def _part(count: int, what: str, *, left: bool) -> Answer:
    return {"progress": f"{count:,} {what}", "count": count, "left": left}
