"""Leaving: the steps that delete everything a tenant has, wherever it is.

    begin (DELETING) → cancel waiting requests → stop executions, and wait → served models, endpoints → packages,
    group → schedule → objects, all versions → storage → role → users → record (DELETED, with its costs) or nothing

A step that does a bounded part of a long task answers `left`: the state machine calls it again. A move that
failed half-way leaves data in two places, and queues in two tiers: all of them are handled.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from trainyard.application.ports import Executions
from trainyard.application.serving.removal import ServedModels
from trainyard.application.tenancy.tenants import Answer, Removal, Step, TenantChanges
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.policy import Storage
from trainyard.domain.queues import TenantQueue
from trainyard.domain.requests import State
from trainyard.domain.tenants import RoleState, Tenant, TenantState
from trainyard.persistence.book import Book

CANCELLED_AT_ONCE = 25
FORGOTTEN_AT_ONCE = 200
REASON = "the tenant is being deleted"
PURGED = "its record, requests and costs are deleted (docs/tenants.md lists what remains elsewhere)"


class UsersDeleted(NamedTuple):
    """How far the deletion of a tenant's users has come."""

    deleted: int
    is_complete: bool
    """Whether there are no more."""


class TenantUsers(Protocol):
    """Who may call the HTTP API for a tenant."""

    def delete_of_tenant(self, tenant_id: str) -> UsersDeleted:
        """Delete a tenant's users and API keys, or some of them. Idempotent."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    tenant_changes: TenantChanges
    removal: Removal
    executions: Executions
    book: Book
    served_models: ServedModels
    users: TenantUsers | None = None
    """None in a deployment without a user pool."""

    def inventory(self, step: Step) -> Answer:
        """Return what a deletion would delete; changes nothing."""
        tenant = self._find(step)
        if tenant is None or tenant.state is TenantState.DELETED:
            return {"known": False, "progress": f"there is no tenant {step.spec.tenant_id}: nothing to delete"}
        queues = self._queues(tenant)
        held = {
            "requests_waiting": sum(queue.waiting for queue in queues),
            "requests_running": sum(queue.running for queue in queues),
        }
        return {"known": True, "would_go": held | self.removal.inventory(tenant)}

    def begin(self, step: Step) -> Answer:
        """Accept nothing more; an unknown tenant is no error, since it may already be deleted."""
        tenant = self._find(step)
        if tenant is None or (tenant.state is TenantState.DELETED and not step.purge):
            if tenant is not None:
                self._clear(tenant)
            return {"known": False, "progress": f"there is no tenant {step.spec.tenant_id}: nothing to delete"}
        tenant = self.tenant_changes.claim(step, tenant, state=TenantState.DELETING)
        for queue in self._queues(tenant):
            self.tenant_changes.scheduler.operations.set_tenant_paused(queue.tier, tenant.tenant_id, True, step.at)
        return {"known": True, "progress": f"{tenant.tenant_id} accepts no more uploads"}

    def cancel(self, step: Step) -> Answer:
        cancelled = self._cancel(self.tenant_changes.held(step), step)
        return _part(cancelled, "requests cancelled", remaining=cancelled > 0)

    def stop_runs(self, step: Step) -> Answer:
        """Stop running executions; `left` until all have ended. Requests requeued by a retry are cancelled."""
        tenant = self.tenant_changes.held(step)
        for request in self.tenant_changes.scheduler.tables.held_by(tenant.tenant_id):
            if request.state is State.RUNNING and request.execution_arn is not None:
                self.executions.stop(request.execution_arn)
        self._cancel(tenant, step)
        queues = self._queues(tenant)
        running = any(not queue.at_rest for queue in queues)
        return _part(sum(queue.running for queue in queues), "requests still running", remaining=running)

    def endpoints(self, step: Step) -> Answer:
        tenant = self.tenant_changes.held(step)
        self.served_models.forget(tenant.tenant_id)
        remaining = self.removal.remove_endpoints(tenant)
        return {
            "progress": "endpoints are being deleted" if remaining else "endpoints and models removed",
            "left": remaining,
        }

    def models(self, step: Step) -> Answer:
        removed, remaining = self.removal.remove_models(self.tenant_changes.held(step))
        return _part(removed, "model packages removed", remaining=remaining)

    def schedule(self, step: Step) -> Answer:
        self.removal.remove_schedules(self.tenant_changes.held(step))
        return {"progress": "schedules removed"}

    def objects(self, step: Step) -> Answer:
        count = 0
        for place in self._places(self.tenant_changes.held(step)):
            removed, remaining = self.removal.remove_objects(place)
            count += removed
            if remaining:
                return _part(count, "object versions removed", remaining=True)
        return _part(count, "object versions removed", remaining=False)

    def storage(self, step: Step) -> Answer:
        for place in self._places(self.tenant_changes.held(step)):
            self.removal.remove_storage(place)
        return {"progress": "storage removed"}

    def role(self, step: Step) -> Answer:
        tenant = self.tenant_changes.held(step)
        refused = self.removal.take_back_key(tenant)
        for place in self._places(tenant):
            self.removal.remove_role(place)
        return {"progress": f"role removed; {refused}" if refused else "role removed"}

    def forget(self, step: Step) -> Answer:
        """Keep the record and the costs of its runs; with `purge`, delete both."""
        if step.purge and self._find(step) is None:
            return _gone(step, PURGED)
        tenant = self.tenant_changes.held(step)
        room, queues = self.tenant_changes.scheduler, self._queues(tenant)
        busy = [queue for queue in queues if not queue.at_rest]
        if busy:
            raise Refused(f"requests of {tenant.tenant_id} are waiting or running again on tier {busy[0].tier}")
        self.served_models.forget(tenant.tenant_id)  # again: a deployment may have been under way
        if step.purge:
            ended = room.tables.requests.recent_of_tenant(tenant.tenant_id, limit=FORGOTTEN_AT_ONCE)
            for request in ended:
                with suppress(Conflict):  # still listed, but already deleted
                    room.tables.requests.forget(request)
            if len(ended) == FORGOTTEN_AT_ONCE:
                return _part(len(ended), "requests forgotten", remaining=True)
            if self.book.forget(tenant.tenant_id, step.at):
                return _part(0, "records are being forgotten", remaining=True)
        # Before the id is free: the data and the users of its next tenant are none of theirs.
        if self.book.forget_trainings(tenant.tenant_id):
            return _part(0, "records of trainings are being forgotten", remaining=True)
        if self.users is not None:
            deleted, is_complete = self.users.delete_of_tenant(tenant.tenant_id)
            if not is_complete:
                return _part(deleted, "users deleted", remaining=True)
        self.tenant_changes.set_limits(tenant.tenant_id, None, step.at)
        if tenant.state is not TenantState.DELETED:
            tenant = self.tenant_changes.done(
                tenant,
                "Deleted",
                state=TenantState.DELETED,
                role=RoleState.NONE if tenant.pooled else RoleState.MADE,
            )
        self._clear(tenant)
        if step.purge:
            self.tenant_changes.records.purge(tenant)
        return _gone(step, PURGED if step.purge else "its record and costs are kept")

    # --- parts ------------------------------------------------------------------------------------------------

    def _find(self, step: Step) -> Tenant | None:
        return self.tenant_changes.records.get(step.spec.tenant_id)

    def _clear(self, tenant: Tenant) -> None:
        """Remove queues and locations of a deleted tenant. Idempotent."""
        for queue in self._queues(tenant):
            self.tenant_changes.scheduler.operations.forget_queue(queue.tier, tenant.tenant_id)
        for place in self._places(tenant):
            self.tenant_changes.records.forget_location(place)

    def _queues(self, tenant: Tenant) -> list[TenantQueue]:
        """Return the tenant's queue in its tier, and any that a move has left in another."""
        tiers = {tenant.tier, *(tier.name for tier in self.tenant_changes.policies.current().tiers)}
        queues = [
            self.tenant_changes.scheduler.tables.queues.get(tier, tenant.tenant_id) for tier in sorted(tiers)
        ]
        return [queue for queue in queues if queue.revision or queue.tier == tenant.tier]

    def _cancel(self, tenant: Tenant, step: Step) -> int:
        count = 0
        for queue in self._queues(tenant):
            waiting = self.tenant_changes.scheduler.tables.waiting_of(
                queue.tier, tenant.tenant_id, limit=CANCELLED_AT_ONCE
            )
            for request in waiting:
                count += self.tenant_changes.scheduler.completer.cancel(request, step.at, reason=REASON)
        return count

    def _places(self, tenant: Tenant) -> list[Tenant]:
        """Return the tenant in both its own bucket and the pool: a move may have left data in either."""
        places = [tenant, *(self.tenant_changes.names.located(tenant, storage) for storage in Storage)]
        return list({(place.bucket, place.root): place for place in places}.values())


def _gone(step: Step, kept_data: str) -> Answer:
    return {"progress": f"{step.spec.tenant_id} is deleted; {kept_data}", "left": False}


def _part(count: int, what: str, *, remaining: bool) -> Answer:
    return {"progress": f"{count:,} {what}", "count": count, "left": remaining}
