"""Moving a tenant to another tier, and with it from the pool into a bucket of its own.

    begin (queue held) → what runs ends → [storage → copy → verify] → switch → what waits is asked for again
      → [late uploads copied → old objects removed] → done (queue released)

Uploads are taken all the while. Until the switch they wait in the old tier; what comes to the old place after
that is copied to the new one, where it is announced as any upload is.
"""

from dataclasses import dataclass, replace

from trainyard.application.ports import Bell, DataSets, TierQueues
from trainyard.application.tenants import Answer, Migration, Provisioning, Removal, Step, TenantDesk
from trainyard.domain.errors import Refused, Throttled
from trainyard.domain.names import request_id
from trainyard.domain.policy import Storage
from trainyard.domain.requests import Request, Submission
from trainyard.domain.tenants import RoleState, Tenant, TenantState

RESUBMITTED_AT_ONCE = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    desk: TenantDesk
    provisioning: Provisioning
    removal: Removal
    migration: Migration
    data_sets: DataSets
    tier_queues: TierQueues
    bell: Bell

    def begin(self, step: Step) -> Answer:
        """Let nothing of the tenant's start in the old tier any more."""
        tenant = self.desk.known(step.wish.tenant_id)
        if tenant.state not in (TenantState.ACTIVE, TenantState.SUSPENDED):
            raise Refused(f"tenant {tenant.tenant_id} is {tenant.state.lower()}: finish that first")
        target = self._target(step, tenant)
        if target.tier == tenant.tier and target.bucket == tenant.bucket and tenant.operation is None:
            return {"needed": False, "progress": f"{tenant.tenant_id} is on tier {tenant.tier} already"}
        policy = self.desk.policies.current()
        for settings in (tenant.settings, *tenant.data_sets.values()):
            policy.algorithm(settings.algorithm)
        queue = self.desk.waiting_room.queue(tenant.tier, tenant.tenant_id)
        fresh = tenant.operation is None
        tenant = self.desk.claim(step, tenant)
        if fresh and queue.paused and tenant.operation is not None:
            tenant = self.desk.records.put(replace(tenant, operation=replace(tenant.operation, was_paused=True)))
        self.desk.waiting_room.set_tenant_paused(tenant.tier, tenant.tenant_id, True, step.at)
        relocates = self._relocates(tenant, target)
        return {
            "needed": True,
            "relocates": relocates,
            "progress": f"{tenant.tenant_id} starts nothing more on tier {tenant.tier}",
        }

    def await_runs(self, step: Step) -> Answer:
        tenant = self.desk.held(step)
        running = self.desk.waiting_room.queue(tenant.tier, tenant.tenant_id).running
        return {"progress": f"{running} requests still run", "left": running > 0}

    def storage(self, step: Step) -> Answer:
        """Make the bucket, its uploads not announced yet: what is copied is no upload."""
        tenant = self.desk.held(step)
        target = self._target(step, tenant)
        if target.bucket != tenant.bucket:  # else an earlier run has come to the switch
            self.provisioning.ensure_storage(target, opened=False)
        return {"progress": f"bucket {target.bucket} made"}

    def copy(self, step: Step) -> Answer:
        source = self.desk.held(step)
        count, cursor = self.migration.copy(source, self._target(step, source), after=step.cursor)
        return {"progress": f"{count:,} objects copied", "cursor": cursor, "left": cursor is not None}

    def verify(self, step: Step) -> Answer:
        """Raises Refused, naming some, when objects differ: nothing has been switched or deleted then."""
        source = self.desk.held(step)
        late = [key for key in self.migration.differences(source, self._target(step, source)) if not _is_late(key)]
        if late:
            raise Refused(f"{len(late):,} objects were not copied as they are, among them {', '.join(late[:3])}")
        return {"progress": "every object is there"}

    def switch(self, step: Step) -> Answer:
        """From here on the tenant is on the new tier and in the new place."""
        tenant = self.desk.held(step)
        target = self._target(step, tenant)
        if target.bucket != tenant.bucket:
            self._refuse_alone(tenant)
            self.migration.repoint_models(tenant, target)
            target = replace(target, role=RoleState.MADE)
        if (target.tier, target.bucket) != (tenant.tier, tenant.bucket):
            target = self.desk.records.put(target)
        self.provisioning.ensure_role(target) if target.role is RoleState.MADE else None
        self.provisioning.ensure_storage(target)
        return {"progress": f"{tenant.tenant_id} is on tier {target.tier}, in {target.bucket}"}

    def resubmit(self, step: Step) -> Answer:
        """Ask for what waits once more in the new tier, then take it back in the old one."""
        tenant = self.desk.held(step)
        count = 0
        for tier in self.desk.policies.current().tiers:
            if tier.name == tenant.tier:
                continue
            for request in self.desk.waiting_room.waiting_of(
                tier.name, tenant.tenant_id, limit=RESUBMITTED_AT_ONCE
            ):
                self._resubmit(request, tenant)
                self.desk.waiting_room.cancel(request, step.at, reason=f"asked for again on tier {tenant.tier}")
                count += 1
        return {"progress": f"{count} waiting requests moved", "left": count > 0}

    def catch_up(self, step: Step) -> Answer:
        """Copy what came to the old place meanwhile; the new bucket announces it."""
        tenant = self.desk.held(step)
        count, cursor = self.migration.copy(self._old(tenant), tenant, after=step.cursor)
        return {"progress": f"{count:,} late objects copied", "cursor": cursor, "left": cursor is not None}

    def remove_old(self, step: Step) -> Answer:
        """Remove what lies at the old place, once the new one holds all of it."""
        tenant = self.desk.held(step)
        old = self._old(tenant)
        missing = self.migration.differences(old, tenant)
        if missing:
            raise Refused(f"{len(missing):,} objects came late, among them {missing[0]}: run the move again")
        removed, left = self.removal.remove_objects(old)
        if not left:
            self.desk.records.forget_location(old)
        return {"progress": f"{removed:,} old object versions removed", "left": left}

    def finish(self, step: Step) -> Answer:
        """Release the tenant, its old queues forgotten; an operator's own pause stays."""
        tenant = self.desk.held(step)
        told = {"progress": f"{tenant.tenant_id} is on tier {tenant.tier}", "bucket": tenant.bucket}
        if tenant.operation is None:
            return told
        paused = tenant.operation.was_paused or tenant.state is TenantState.SUSPENDED
        room = self.desk.waiting_room
        spent = tenant.spent_usd
        for tier in self.desk.policies.current().tiers:
            if tier.name != tenant.tier:
                old = room.queue(tier.name, tenant.tenant_id)
                if old.revision and room.forget_queue(tier.name, tenant.tenant_id):
                    spent += old.spent_usd
                elif old.revision:
                    room.set_tenant_paused(tier.name, tenant.tenant_id, False, step.at)
        room.set_tenant_paused(tenant.tier, tenant.tenant_id, paused, step.at)
        self.desk.done(tenant, "Moved", spent_usd=spent)
        self.bell.ring()
        return told

    # --- parts ------------------------------------------------------------------------------------------------

    def _target(self, step: Step, tenant: Tenant) -> Tenant:
        """Return the tenant as it will be: out of the pool with a tier that has buckets, never back into it."""
        if not step.wish.tier:
            raise Refused("the tier is missing: name the one to move to")
        tier = self.desk.tier(self.desk.policies.current(), step.wish.tier)
        moved = replace(tenant, tier=tier.name)
        return self.desk.names.located(moved, Storage.SILO) if tier.storage is Storage.SILO else moved

    def _relocates(self, tenant: Tenant, target: Tenant) -> bool:
        """Tell whether data moves: it is to go elsewhere, or an earlier run has left some at the old place."""
        old = self._old(tenant)
        left = self.desk.records.owner_of(old.bucket, f"{old.root}incoming/")
        return target.bucket != tenant.bucket or (not tenant.pooled and left is not None)

    def _old(self, tenant: Tenant) -> Tenant:
        return self.desk.names.located(tenant, Storage.POOL)

    def _refuse_alone(self, tenant: Tenant) -> None:
        """An upload that is to be trained on by its version cannot wait through a move: a copy has another."""
        waiting = self.desk.waiting_room.waiting_of(tenant.tier, tenant.tenant_id, limit=100)
        alone = [request for request in waiting if request.alone]
        if alone:
            raise Refused(
                f"{len(alone)} uploads of {tenant.tenant_id} wait, each to be trained on by itself: let them run, "
                "or stop them (`trainyard stop`), and run the move again"
            )

    def _resubmit(self, request: Request, tenant: Tenant) -> None:
        """Raises Throttled when the tier's queue does not take it."""
        content = request.content
        if not tenant.owns(content.uri):
            found = self.data_sets.content_of(tenant, request.data_set)
            if found is None:
                return
            content = found
        submission = Submission(
            request_id=request_id(
                tenant_id=tenant.tenant_id,
                bucket=content.bucket,
                key=content.key,
                revision=f"{request.request_id} on {tenant.tier}",
            ),
            tenant_id=tenant.tenant_id,
            tier=tenant.tier,
            data_set=request.data_set,
            content=content,
            cause=request.cause,
            algorithm=request.algorithm,
            alone=request.alone,
        )
        if self.tier_queues.send([submission]):
            raise Throttled(f"the queue of tier {tenant.tier} did not take request {submission.request_id}")


def _is_late(key: str) -> bool:
    """Uploads go on while objects are copied; they are copied once more after the switch."""
    return key.startswith("incoming/") or key.startswith("receipts/")
