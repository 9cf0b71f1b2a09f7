"""Moving a tenant to another tier, and with it from the pool into a bucket of its own.

    begin (queue paused) → executions end → [storage → copy → verify] → switch → waiting requests are
      submitted again → [late uploads copied → old objects removed] → done (queue released)

Uploads are taken all the while. Until the switch they wait in the old tier. What comes to the old place after
that is copied to the new one; and an upload whose event met the switch is asked for once more there. The queue is
held until the end, so that all this merges into one request per data set.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from trainyard.application.ports import Bell, DataSets, TierQueues
from trainyard.application.tenancy.tenants import Answer, Migration, Provisioning, Removal, Step, TenantChanges
from trainyard.domain.errors import Refused, Throttled
from trainyard.domain.names import request_id
from trainyard.domain.policy import Storage
from trainyard.domain.requests import Cause, Content, Overrides, Request, RequestKind, State, Submission
from trainyard.domain.tenants import RoleState, Tenant, TenantState
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.young_buckets import is_young, note_young

RESUBMITTED_AT_ONCE = 25
LAST_AT_ONCE = 20
"""Data sets whose newest object is copied per call of the function."""

UPLOAD_TAKES_MAX = timedelta(days=8)
"""A multipart upload has the time at which it began; the bucket aborts it after a week."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    tenant_changes: TenantChanges
    provisioning: Provisioning
    removal: Removal
    migration: Migration
    data_sets: DataSets
    tier_queues: TierQueues
    bell: Bell
    is_served: Callable[[str], bool]
    """Tells whether a tenant has endpoints of its own, which act with the role of its place."""

    def begin(self, step: Step) -> Answer:
        """Hold the tenant's queue, so that nothing more starts in the old tier."""
        tenant = self.tenant_changes.known(step.spec.tenant_id)
        if tenant.state not in (TenantState.ACTIVE, TenantState.SUSPENDED):
            raise Refused(f"tenant {tenant.tenant_id} is {tenant.state.lower()}: finish that first")
        target = self._target(step, tenant)
        relocates = self._relocates(tenant, target)
        if target.bucket != tenant.bucket and self.is_served(tenant.tenant_id):
            raise Refused(
                f"tenant {tenant.tenant_id} has endpoints of its own, whose role does not reach {target.bucket}: "
                f"take them out of service (`trainyard serving stop {tenant.tenant_id} DATA_SET --yes`), move it "
                "once they are removed (within 15 minutes), and approve its models again"
            )
        same = (target.tier, target.bucket) == (tenant.tier, tenant.bucket)
        if same and not relocates and tenant.operation is None and not self._old_tiers(tenant):
            return {"needed": False, "progress": f"{tenant.tenant_id} is already on tier {tenant.tier}"}
        room = self.tenant_changes.scheduler
        paused = room.tables.queues.get(tenant.tier, tenant.tenant_id).paused
        tenant = self.tenant_changes.claim(step, tenant, was_paused=paused)
        room.operations.set_tenant_paused(tenant.tier, tenant.tenant_id, True, step.at)
        progress = f"no more requests of {tenant.tenant_id} start on tier {tenant.tier}"
        return {"needed": True, "relocates": relocates, "progress": progress}

    def await_runs(self, step: Step) -> Answer:
        tenant = self.tenant_changes.held(step)
        running = self.tenant_changes.scheduler.tables.queues.get(tenant.tier, tenant.tenant_id).running
        return {"progress": f"{running} requests still running", "left": running > 0}

    def storage(self, step: Step) -> Answer:
        """Create the bucket, without upload events yet, since copied objects are not uploads."""
        tenant = self.tenant_changes.held(step)
        target = self._target(step, tenant)
        if target.bucket != tenant.bucket:  # else an earlier run has come to the switch
            self.provisioning.ensure_storage(target, opened=False)
        return {"progress": f"bucket {target.bucket} created"}

    def copy(self, step: Step) -> Answer:
        source = self.tenant_changes.held(step)
        target = self._target(step, source)
        if target.bucket == source.bucket:
            return {"progress": "already copied", "cursor": None, "left": False}
        count, cursor = self.migration.copy(source, target, after=step.cursor)
        return {"progress": f"{count:,} objects copied", "cursor": cursor, "left": cursor is not None}

    def copy_last(self, step: Step) -> Answer:
        """Copy the newest object of each data set once more, so that it is the newest at the new place too."""
        source = self.tenant_changes.held(step)
        target = self._target(step, source)
        names = sorted(self.data_sets.names(source)) if target.bucket != source.bucket else []
        names = [name for name in names if step.cursor is None or name > step.cursor]
        some = names[:LAST_AT_ONCE]
        contents = [self.data_sets.content_of(source, name) for name in some]
        keys = [content.key.removeprefix(source.root) for content in contents if content is not None]
        self.migration.copy_last(source, target, keys)
        cursor = some[-1] if len(names) > len(some) else None
        return {"progress": f"{len(keys)} newest objects copied", "cursor": cursor, "left": cursor is not None}

    def verify(self, step: Step) -> Answer:
        """Compare some objects, from where the last call ended.

        Raises Refused, naming some, when they differ; nothing has been switched or deleted by then.
        """
        source = self.tenant_changes.held(step)
        target = self._target(step, source)
        differing, cursor = self.migration.differences(source, target, after=step.cursor, late=False)
        wrong = [key for key in differing if not _is_late(key)]
        if wrong:
            raise Refused(f"{len(wrong):,} objects differ from their copies, including {', '.join(wrong[:3])}")
        progress = "all objects verified" if cursor is None else "more objects must be compared"
        return {"progress": progress, "cursor": cursor, "left": cursor is not None}

    def switch(self, step: Step) -> Answer:
        """Switch the tenant to the new tier and location."""
        tenant = self.tenant_changes.held(step)
        target = self._target(step, tenant)
        if target.bucket != tenant.bucket:
            self._refuse_alone(tenant, step)
            self.migration.repoint_models(tenant, target)
            target = replace(target, role=RoleState.MADE, role_since=step.at, watched_from=step.at)
            # S3 may send no events for the first uploads after they were enabled.
            note_young(self.tenant_changes.scheduler.tables.store, tenant.tenant_id, step.at)
        # Held in the new tier as in the old, until the end.
        self.tenant_changes.scheduler.operations.set_tenant_paused(target.tier, tenant.tenant_id, True, step.at)
        if (target.tier, target.bucket) != (tenant.tier, tenant.bucket):
            target = self.tenant_changes.records.put(target)
        if target.role is RoleState.MADE:
            self.provisioning.ensure_role(target)
        self.provisioning.ensure_storage(target)
        return {"progress": f"{tenant.tenant_id} is on tier {target.tier}, in {target.bucket}"}

    def resubmit(self, step: Step) -> Answer:
        """Submit waiting requests again in the new tier, then cancel them in the old one."""
        count = self._resubmit_all(self.tenant_changes.held(step), step)
        return {"progress": f"{count} waiting requests moved", "left": count > 0}

    def catch_up(self, step: Step) -> Answer:
        """Copy what was written to the old location meanwhile; keep objects written at the new one since."""
        tenant = self.tenant_changes.held(step)
        old = self._left_behind(tenant)
        count, cursor = self.migration.copy(old, tenant, after=step.cursor, late=True)
        if cursor is None:
            self._resubmit_all(tenant, step)
            self._ask_again(tenant, old, step)
        return {"progress": f"{count:,} late objects copied", "cursor": cursor, "left": cursor is not None}

    def remove_old(self, step: Step) -> Answer:
        """Delete the objects at the old location that were written before the new one was verified to be complete.

        The cursor is that time, with the last key while objects are still compared: once deletion has begun, older
        versions become visible, which must not be copied. A multipart upload has the time at which it began, so
        unfinished ones are aborted first.
        """
        tenant = self.tenant_changes.held(step)
        old = self._left_behind(tenant)
        began, comparing, after = (step.cursor or "").partition(" ")
        if step.cursor is None:
            self.removal.abort_uploads(old)
            before = step.at.replace(microsecond=0) - timedelta(seconds=1)  # S3 reports whole seconds
        else:
            before = unstamp(began)
        if step.cursor is None or comparing:
            differing, cursor = self.migration.differences(old, tenant, after=after or None, late=True)
            if differing:
                return _removal("more objects were written to the old location", late=True)
            # Removal is a call of its own: one that is repeated must not compare what is half removed.
            progress = (
                "more objects must be compared" if cursor is not None else "the old location is fully copied"
            )
            return _removal(progress, cursor=stamp(before) + (f" {cursor}" if cursor is not None else ""))
        removed, remaining = self.removal.remove_objects(old, before=before)
        progress = f"{removed:,} old object versions removed"
        if remaining:
            return _removal(progress, cursor=stamp(before))
        differing, cursor = self.migration.differences(old, tenant, after=None, late=True)
        if differing or cursor is not None:
            return _removal(progress, late=True)
        self.removal.remove_role(old)
        self.tenant_changes.records.forget_location(old)
        return _removal(progress)

    def finish(self, step: Step) -> Answer:
        """Release the tenant; its spending moves along with it, and an operator's own pause is kept."""
        tenant = self.tenant_changes.held(step)
        answer = {"progress": f"{tenant.tenant_id} is on tier {tenant.tier}", "bucket": tenant.bucket}
        if tenant.operation is None:
            return answer
        paused = tenant.operation.was_paused or tenant.state is TenantState.SUSPENDED
        room = self.tenant_changes.scheduler
        self._resubmit_all(tenant, step)
        for tier in self._old_tiers(tenant):
            if not room.operations.carry_over(tier, tenant.tier, tenant.tenant_id, step.at):
                room.operations.set_tenant_paused(tier, tenant.tenant_id, False, step.at)
        room.operations.set_tenant_paused(tenant.tier, tenant.tenant_id, paused, step.at)
        self.tenant_changes.done(tenant, "Moved")
        self.bell.ring()
        return answer

    # --- parts ------------------------------------------------------------------------------------------------

    def _target(self, step: Step, tenant: Tenant) -> Tenant:
        """Return the tenant as it will be: out of the pool with a tier that has buckets, never back into it."""
        if not step.spec.tier:
            raise Refused("the tier is missing: give the tier to move to")
        tier = self.tenant_changes.tier(self.tenant_changes.policies.current(), step.spec.tier)
        moved = replace(tenant, tier=tier.name)
        return self.tenant_changes.names.located(moved, Storage.SILO) if tier.storage is Storage.SILO else moved

    def _relocates(self, tenant: Tenant, target: Tenant) -> bool:
        """Tell whether data moves: it is to go elsewhere, or an earlier run has left some at the old place."""
        old = self._old(tenant)
        owner = self.tenant_changes.records.owner_of(old.bucket, f"{old.root}incoming/")
        return target.bucket != tenant.bucket or (not tenant.pooled and owner is not None)

    def _old(self, tenant: Tenant) -> Tenant:
        return self.tenant_changes.names.located(tenant, Storage.POOL)

    def _left_behind(self, tenant: Tenant) -> Tenant:
        """Return the tenant at its old location; raises Refused when it is still there."""
        if tenant.pooled:
            raise Refused(
                f"{tenant.tenant_id} is still in the pool, since the policy's storage of tier {tenant.tier} has "
                "changed meanwhile: run the move again"
            )
        return self._old(tenant)

    def _refuse_alone(self, tenant: Tenant, step: Step) -> None:
        """An upload that is to be trained on by its version cannot wait through a move: a copy has another."""
        waiting = self.tenant_changes.scheduler.tables.waiting_of(tenant.tier, tenant.tenant_id, limit=100)
        alone = [r for r in waiting if r.alone and r.kind is RequestKind.TRAINING and r.cause is Cause.UPLOAD]
        each = any(s.every_upload for s in (tenant.settings, *tenant.data_sets.values()))
        if each and is_young(self.tenant_changes.scheduler.tables.store, tenant.tenant_id, step.at):
            raise Refused(
                f"{tenant.tenant_id} trains on every upload separately, and events of recent uploads may still be "
                "missing: run the move again in an hour"
            )
        if alone:
            raise Refused(
                f"{len(alone)} uploads of {tenant.tenant_id} wait to be trained on separately: let them run, or "
                "stop them (`trainyard stop`), and run the move again"
            )

    def _old_tiers(self, tenant: Tenant) -> list[str]:
        """Return the other tiers in which the tenant still has a queue."""
        tiers = [tier.name for tier in self.tenant_changes.policies.current().tiers if tier.name != tenant.tier]
        return [
            tier
            for tier in tiers
            if self.tenant_changes.scheduler.tables.queues.get(tier, tenant.tenant_id).revision
        ]

    def _resubmit_all(self, tenant: Tenant, step: Step) -> int:
        """Move some of the requests that wait in other tiers; return how many."""
        room, count = self.tenant_changes.scheduler, 0
        for tier in self._old_tiers(tenant):
            for request in room.tables.waiting_of(tier, tenant.tenant_id, limit=RESUBMITTED_AT_ONCE):
                again = self._resubmit(request, tenant)
                gone = (
                    "its rows have moved: ask again"
                    if request.kind is RequestKind.TRANSFORM
                    else "its data no longer exists"
                )
                reason = f"submitted again on tier {tenant.tier}" if again else gone
                room.completer.cancel(request, step.at, reason=reason)
                count += 1
        return count

    def _resubmit(self, request: Request, tenant: Tenant) -> bool:
        """Submit a waiting request again in the new tier and location; False when its data no longer exists."""
        content: Content | None = request.content
        if not tenant.owns(request.content.uri):
            if request.kind is RequestKind.TRANSFORM:
                return False
            content = self.data_sets.content_of(tenant, request.data_set)
        if content is None:
            return False
        self._submit(
            tenant,
            request.data_set,
            content,
            _revision(request, tenant),
            cause=request.cause,
            kind=request.kind,
            alone=request.alone,
            overrides=request.overrides,
            like=request,
        )
        return True

    def _ask_again(self, tenant: Tenant, old: Tenant, step: Step) -> None:
        """Request training of data sets whose newest upload to the old location met the switch, once each."""
        for name in self.data_sets.names(old):
            there, here = self.data_sets.content_of(old, name), self.data_sets.content_of(tenant, name)
            if there is None or here is None or there.event_time < step.at - UPLOAD_TAKES_MAX:
                continue
            revision = there.version_id or there.etag
            if not self._was_heard_of(tenant, there, revision):
                self._submit(tenant, name, here, f"moved with {revision}", cause=Cause.RETRAINING)

    def _was_heard_of(self, tenant: Tenant, content: Content, revision: str) -> bool:
        """Tell whether the event of an upload has become a request that has run, runs, or waits in its place."""
        named = request_id(tenant_id=tenant.tenant_id, bucket=content.bucket, key=content.key, revision=revision)
        request = self.tenant_changes.scheduler.tables.requests.get(named)
        if request is None or request.state is State.REJECTED:
            return False
        return request.state is not State.QUEUED or tenant.owns(request.content.uri)

    def _submit(
        self,
        tenant: Tenant,
        data_set: str,
        content: Content,
        revision: str,
        *,
        cause: Cause,
        kind: RequestKind = RequestKind.TRAINING,
        alone: bool = False,
        overrides: Overrides | None = None,
        like: Request | None = None,
    ) -> None:
        """Submit a training, `like` a request that waited if there is one; raises Throttled when the tier's queue
        does not take it.
        """
        submission = Submission(
            request_id=request_id(
                tenant_id=tenant.tenant_id, bucket=content.bucket, key=content.key, revision=revision
            ),
            tenant_id=tenant.tenant_id,
            tier=tenant.tier,
            data_set=data_set,
            content=content,
            cause=cause,
            kind=kind,
            algorithm=tenant.settings_for(data_set, overrides).algorithm,
            alone=alone,
            overrides=overrides,
            triggers=like.triggers if like else (),
            collected=like.collected if like else None,
            is_complete=like is not None and not like.collects,
            is_forced=like is not None and like.is_forced,
            accepts_drift=like is not None and like.accepts_drift,
        )
        if self.tier_queues.send([submission]):
            raise Throttled(f"the queue of tier {tenant.tier} did not accept request {submission.request_id}")


def _removal(progress: str, *, late: bool = False, cursor: str | None = None) -> Answer:
    return {"progress": progress, "late": late, "left": cursor is not None, "cursor": cursor}


def _is_late(key: str) -> bool:
    """Uploads go on while objects are copied; they are copied once more after the switch."""
    return key.startswith(("incoming/", "transform/", "captured/", "receipts/"))


def _revision(request: Request, tenant: Tenant) -> str:
    return f"{request.request_id} on {tenant.tier}"


def resubmitted_id(request: Request, tenant: Tenant) -> str:
    """Return what a request is called that was submitted again, with the same content, in its tenant's tier."""
    content = request.content
    return request_id(
        tenant_id=tenant.tenant_id, bucket=content.bucket, key=content.key, revision=_revision(request, tenant)
    )
