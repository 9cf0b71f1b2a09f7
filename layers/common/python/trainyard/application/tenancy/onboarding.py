"""Onboarding: the steps that create, update, suspend and resume a tenant.

    create    record (CREATING) → storage → role → model group → schedule → limits → ACTIVE, event
    update    check → storage → role → schedule → limits → record, event
    suspend   record (SUSPENDED), queue held, event
    resume    record (ACTIVE), queue released, event

A step derives what it makes from the record and the spec. An update writes the record last, so that until then
`repair` (create, with no changes) restores the previous state.
"""

from dataclasses import dataclass, replace

from trainyard.application.billing.metering import licence_given
from trainyard.application.ports import Bell
from trainyard.application.tenancy.leaving import TenantUsers
from trainyard.application.tenancy.tenants import (
    Answer,
    Provisioning,
    Removal,
    Step,
    TenantChanges,
    differing,
)
from trainyard.domain.errors import Refused, Throttled
from trainyard.domain.tenants import RoleState, Tenant, TenantState
from trainyard.persistence.book import Book
from trainyard.persistence.young_buckets import note_young


@dataclass(frozen=True, slots=True, kw_only=True)
class Onboarding:
    tenant_changes: TenantChanges
    provisioning: Provisioning
    removal: Removal
    bell: Bell
    users: TenantUsers | None = None
    """None in a deployment without a user pool."""

    # --- create -----------------------------------------------------------------------------------------------

    def record(self, step: Step) -> Answer:
        """Write the record first, so that another run can find an unfinished tenant and complete it.

        Safe behind a sign-up form that lets people choose names: a name that is taken is always refused with the
        same message, which reveals and changes nothing of the tenant that has it.
        """
        tenant = self.tenant_changes.records.get(step.spec.tenant_id)
        if tenant is None or tenant.state is TenantState.DELETED:
            if step.spec.repair:
                raise Refused(f"there is no tenant {step.spec.tenant_id!r} to repair")
            wanted = self.tenant_changes.wanted(step.spec, None)
            if tenant is not None:
                self._delete_earlier_users(tenant)
            return _told(
                self.tenant_changes.claim(step, replace(wanted, revision=tenant.revision if tenant else 0))
            )
        if step.spec.repair:
            return _told(self.tenant_changes.claim(step, self._repaired(step, tenant)))
        if tenant.state is not TenantState.CREATING or not self._may_finish(step, tenant):
            raise Refused(f"the name {step.spec.tenant_id} is taken: choose another")
        return _told(self.tenant_changes.claim(step, self.tenant_changes.wanted(step.spec, tenant)))

    def _delete_earlier_users(self, tenant: Tenant) -> None:
        """Delete whoever was made a user of a deleted tenant afterwards: the next one of that id is not theirs."""
        if self.users is not None and not self.users.delete_of_tenant(tenant.tenant_id).is_complete:
            raise Throttled("users of an earlier tenant of that id are being deleted: try again in a moment")

    def _repaired(self, step: Step, tenant: Tenant) -> Tenant:
        """Return the tenant to repair, as recorded; raises Refused if the spec asks for anything else."""
        if tenant.state is TenantState.DELETING:
            raise Refused(
                f"tenant {tenant.tenant_id} is being deleted: finish that first "
                f"(`trainyard tenant delete {tenant.tenant_id}`)"
            )
        wanted = self.tenant_changes.wanted(step.spec, tenant)
        others = differing(wanted, tenant)
        if others or step.spec.limits is not None or step.spec.tier not in (None, tenant.tier):
            raise Refused(
                f"a repair cannot change {', '.join(others) or 'tier or limits'}: use "
                f"`trainyard tenant update {tenant.tenant_id}`"
            )
        return wanted

    def _may_finish(self, step: Step, tenant: Tenant) -> bool:
        """Tell whether a run may go on with a creation that has begun: its own, or one that has failed, on the
        same tier.
        """
        operation = tenant.operation
        own = operation is not None and operation.run == step.run
        failed = (
            operation is None or operation.failure is not None or not self.tenant_changes.runs.alive(operation.run)
        )
        return (own or failed) and step.spec.tier in (None, tenant.tier)

    def storage(self, step: Step) -> Answer:
        """Delete leftovers of an earlier tenant of that id first, then create the storage."""
        tenant = self._tenant(step)
        if tenant.pooled and tenant.state is TenantState.CREATING and self.removal.remove_objects(tenant)[1]:
            raise Throttled("objects of an earlier tenant of that id are being deleted: try again in a moment")
        self.provisioning.ensure_storage(tenant)
        self.provisioning.write_readme(tenant)
        return {}

    def role(self, step: Step) -> Answer:
        """A pooled tenant's role is created at its first request, so that IAM's quota bounds active tenants."""
        tenant = self._tenant(step)
        self.tenant_changes.claim_key(tenant)
        if tenant.role is RoleState.NONE:
            return {"role": "created at the first request"}
        self.provisioning.ensure_role(tenant)
        return {"role": tenant.role_arn}

    def model_group(self, step: Step) -> Answer:
        self.provisioning.ensure_model_group(self._tenant(step))
        return {}

    def schedule(self, step: Step) -> Answer:
        self.provisioning.ensure_schedules(self._tenant(step), self.tenant_changes.held(step))
        return {}

    def limits(self, step: Step) -> Answer:
        self.tenant_changes.held(step)
        if step.spec.limits is not None:
            self.tenant_changes.set_limits(step.spec.tenant_id, step.spec.limits or None, step.at)
        return {}

    def activate(self, step: Step) -> Answer:
        """Open the tenant for uploads; a suspended tenant that is only repaired stays suspended.

        What an earlier tenant of that id spent this month still counts, so that leaving renews no budget.
        """
        tenant = self.tenant_changes.held(step)
        new = tenant.state is TenantState.CREATING
        if new:
            self.tenant_changes.scheduler.operations.carry_month(tenant.tier, tenant.tenant_id, step.at)
        self._note_licence(tenant, step)
        if not new:
            return _told(self.tenant_changes.done(tenant, None))
        # S3 may send no events for the first uploads to a new bucket.
        note_young(self.tenant_changes.scheduler.tables.store, tenant.tenant_id, step.at)
        begun = (tenant.operation.begun_at if tenant.operation else None) or step.at
        return _told(
            self.tenant_changes.done(
                tenant, "Created", state=TenantState.ACTIVE, created_at=begun, watched_from=begun
            )
        )

    # --- update -----------------------------------------------------------------------------------------------

    def check(self, step: Step) -> Answer:
        tenant = self.tenant_changes.known(step.spec.tenant_id)
        if step.spec.tier is not None and step.spec.tier != tenant.tier:
            raise Refused(f"an update cannot change the tier: use `trainyard tenant move {tenant.tenant_id}`")
        _settled(tenant)
        self.tenant_changes.wanted(step.spec, tenant)
        self.tenant_changes.claim(step, tenant)
        return {}

    def update(self, step: Step) -> Answer:
        tenant = self.tenant_changes.held(step)
        wanted = self.tenant_changes.wanted(step.spec, tenant)
        changes_key = tenant.key_arn is not None and tenant.key_arn != wanted.key_arn
        refused = self.removal.take_back_key(tenant) if changes_key else None
        what = None if wanted == tenant and step.spec.limits is None else "Updated"
        self._note_licence(wanted, step)
        answer = _told(self.tenant_changes.done(wanted, what))
        return answer | ({"progress": refused} if refused else {})

    def _note_licence(self, tenant: Tenant, step: Step) -> None:
        """Start metering with the licence: what was booked before is not reported."""
        if tenant.license_arn is not None:
            book = Book(store=self.tenant_changes.scheduler.tables.store)
            licence_given(book, tenant.tenant_id, tenant.license_arn, step.at)

    # --- suspend and resume -----------------------------------------------------------------------------------

    def suspend(self, step: Step) -> Answer:
        return self._set_state(step, TenantState.SUSPENDED, "Suspended")

    def resume(self, step: Step) -> Answer:
        return self._set_state(step, TenantState.ACTIVE, "Resumed")

    def _set_state(self, step: Step, state: TenantState, what: str) -> Answer:
        tenant = self.tenant_changes.known(step.spec.tenant_id)
        _settled(tenant)
        suspended = state is TenantState.SUSPENDED
        if tenant.state is not state or tenant.operation is not None:
            tenant = self.tenant_changes.claim(step, tenant)
        self.tenant_changes.scheduler.operations.set_tenant_paused(
            tenant.tier, tenant.tenant_id, suspended, step.at
        )
        if not suspended:
            self.bell.ring()
        if tenant.operation is not None:
            tenant = self.tenant_changes.done(tenant, what, state=state)
        return _told(tenant)

    # --- drift ------------------------------------------------------------------------------------------------

    def drift(self, step: Step) -> Answer:
        """Return what was changed or removed outside the service; `repair` restores it."""
        tenant = self.tenant_changes.known(step.spec.tenant_id)
        owner = self.tenant_changes.records.owner_of(tenant.bucket, f"{tenant.root}incoming/")
        lost = [] if owner is not None and owner.tenant_id == tenant.tenant_id else ["its uploads have no owner"]
        return {"name": tenant.tenant_id, "drift": [*lost, *self.provisioning.drift(tenant)]}

    # --- parts ------------------------------------------------------------------------------------------------

    def _tenant(self, step: Step) -> Tenant:
        """Return the tenant as the run requests it."""
        return self.tenant_changes.wanted(step.spec, self.tenant_changes.held(step))


def _settled(tenant: Tenant) -> None:
    """Raise Refused unless the tenant is completely created."""
    if tenant.state in (TenantState.CREATING, TenantState.DELETING):
        verb = "create" if tenant.state is TenantState.CREATING else "delete"
        raise Refused(
            f"tenant {tenant.tenant_id} is {tenant.state.lower()}: finish that first "
            f"(`trainyard tenant {verb} {tenant.tenant_id}`)"
        )


def _told(tenant: Tenant) -> Answer:
    """Return the output of a run: where to upload data, and where to find results."""
    root = f"s3://{tenant.bucket}/{tenant.root}"
    return {
        "name": tenant.tenant_id,
        "state": tenant.state.value,
        "tier": tenant.tier,
        "drop_data_at": f"{root}incoming/<data set>/",
        "read_results_at": {
            "models": f"{root}models/<data set>/<request>/model.tar.gz",
            "reports": f"{root}reports/<data set>/<request>/",
            "receipts": f"{root}receipts/<data set>/<request>.json",
            "last_receipt": f"{root}receipts/<data set>/latest.json",
        },
        "model_group": tenant.model_group,
    }
