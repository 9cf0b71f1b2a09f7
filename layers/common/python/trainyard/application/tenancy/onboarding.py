"""Onboarding: the steps that create a tenant, bring it up to date, suspend and resume it.

    create    record (CREATING) → storage → role → model group → schedule → limits → ACTIVE, event
    update    check → storage → role → schedule → limits → record, event
    suspend   record (SUSPENDED), queue held, event
    resume    record (ACTIVE), queue released, event

A step derives what it makes from the record and the wish. An update writes the record last, so that until then
`repair` (create, asking for nothing new) brings back what held before.
"""

from dataclasses import dataclass, replace

from trainyard.application.billing.metering import licence_given
from trainyard.application.ports import Bell
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
    desk: TenantChanges
    provisioning: Provisioning
    removal: Removal
    bell: Bell

    # --- create -----------------------------------------------------------------------------------------------

    def record(self, step: Step) -> Answer:
        """Write the record first: what is half made can be found, and made whole by another run.

        Whoever lets people choose names, such as a sign-up form, may hand on what they ask for: a name that is
        taken is refused in the same words whosever it is, and nothing of its tenant is told or changed.
        """
        known = self.desk.records.get(step.wish.tenant_id)
        if known is None or known.state is TenantState.DELETED:
            if step.wish.repair:
                raise Refused(f"there is no tenant {step.wish.tenant_id!r} to repair")
            wanted = self.desk.wanted(step.wish, None)
            return _told(self.desk.claim(step, replace(wanted, revision=known.revision if known else 0)))
        if step.wish.repair:
            return _told(self.desk.claim(step, self._repaired(step, known)))
        if known.state is not TenantState.CREATING or not self._may_finish(step, known):
            raise Refused(f"the name {step.wish.tenant_id} is taken: choose another")
        return _told(self.desk.claim(step, self.desk.wanted(step.wish, known)))

    def _repaired(self, step: Step, known: Tenant) -> Tenant:
        """Return the tenant as it is to be made whole: as its record has it; raises Refused for any other wish."""
        if known.state is TenantState.DELETING:
            raise Refused(
                f"tenant {known.tenant_id} is being deleted: finish that first "
                f"(`trainyard tenant delete {known.tenant_id}`)"
            )
        wanted = self.desk.wanted(step.wish, known)
        others = differing(wanted, known)
        if others or step.wish.limits is not None or step.wish.tier not in (None, known.tier):
            raise Refused(
                f"a repair changes nothing, and another {', '.join(others) or 'tier or limit'} is asked for: "
                f"`trainyard tenant update {known.tenant_id}` changes it"
            )
        return wanted

    def _may_finish(self, step: Step, known: Tenant) -> bool:
        """Tell whether a run may go on with a creation that has begun: its own, or one that has failed, on the
        same tier.
        """
        operation = known.operation
        own = operation is not None and operation.run == step.run
        failed = operation is None or operation.failure is not None or not self.desk.runs.alive(operation.run)
        return (own or failed) and step.wish.tier in (None, known.tier)

    def storage(self, step: Step) -> Answer:
        """Of an earlier tenant of that id nothing is taken over: what came to its prefix since goes first."""
        tenant = self._tenant(step)
        if tenant.pooled and tenant.state is TenantState.CREATING and self.removal.remove_objects(tenant)[1]:
            raise Throttled("objects of an earlier tenant of that id are being removed: once more in a moment")
        self.provisioning.ensure_storage(tenant)
        return {}

    def role(self, step: Step) -> Answer:
        """In the pool a role is made at the first request, so that IAM's quota bounds active tenants."""
        tenant = self._tenant(step)
        self.desk.claim_key(tenant)
        if tenant.role is RoleState.NONE:
            return {"role": "made at the first request"}
        self.provisioning.ensure_role(tenant)
        return {"role": tenant.role_arn}

    def model_group(self, step: Step) -> Answer:
        self.provisioning.ensure_model_group(self._tenant(step))
        return {}

    def schedule(self, step: Step) -> Answer:
        self.provisioning.ensure_schedule(self._tenant(step))
        return {}

    def limits(self, step: Step) -> Answer:
        self.desk.held(step)
        if step.wish.limits is not None:
            self.desk.set_limits(step.wish.tenant_id, step.wish.limits or None, step.at)
        return {}

    def activate(self, step: Step) -> Answer:
        """Open for uploads; a suspended tenant that is only repaired stays so.

        What an earlier tenant of that id has spent this month counts: no budget is renewed by leaving.
        """
        tenant = self.desk.held(step)
        new = tenant.state is TenantState.CREATING
        if new:
            self.desk.scheduler.operations.carry_month(tenant.tier, tenant.tenant_id, step.at)
        self._note_licence(tenant, step)
        if not new:
            return _told(self.desk.done(tenant, None))
        # S3 may not tell of the first uploads to a new bucket.
        note_young(self.desk.scheduler.tables.store, tenant.tenant_id, step.at)
        begun = tenant.operation.begun_at if tenant.operation else None
        return _told(self.desk.done(tenant, "Created", state=TenantState.ACTIVE, watched_from=begun or step.at))

    # --- update -----------------------------------------------------------------------------------------------

    def check(self, step: Step) -> Answer:
        known = self.desk.known(step.wish.tenant_id)
        if step.wish.tier is not None and step.wish.tier != known.tier:
            raise Refused(f"an update moves no tenant: `trainyard tenant move {known.tenant_id}` does")
        _settled(known)
        self.desk.wanted(step.wish, known)
        self.desk.claim(step, known)
        return {}

    def update(self, step: Step) -> Answer:
        known = self.desk.held(step)
        wanted = self.desk.wanted(step.wish, known)
        changes_key = known.key_arn is not None and known.key_arn != wanted.key_arn
        refused = self.removal.take_back_key(known) if changes_key else None
        what = None if wanted == known and step.wish.limits is None else "Updated"
        self._note_licence(wanted, step)
        told = _told(self.desk.done(wanted, what))
        return told | ({"progress": refused} if refused else {})

    def _note_licence(self, tenant: Tenant, step: Step) -> None:
        """Let metering begin with the licence: what was booked before is not told."""
        if tenant.license_arn is not None:
            book = Book(store=self.desk.scheduler.tables.store)
            licence_given(book, tenant.tenant_id, tenant.license_arn, step.at)

    # --- suspend and resume -----------------------------------------------------------------------------------

    def suspend(self, step: Step) -> Answer:
        return self._set_state(step, TenantState.SUSPENDED, "Suspended")

    def resume(self, step: Step) -> Answer:
        return self._set_state(step, TenantState.ACTIVE, "Resumed")

    def _set_state(self, step: Step, state: TenantState, what: str) -> Answer:
        known = self.desk.known(step.wish.tenant_id)
        _settled(known)
        suspended = state is TenantState.SUSPENDED
        if known.state is not state or known.operation is not None:
            known = self.desk.claim(step, known)
        self.desk.scheduler.operations.set_tenant_paused(known.tier, known.tenant_id, suspended, step.at)
        if not suspended:
            self.bell.ring()
        if known.operation is not None:
            known = self.desk.done(known, what, state=state)
        return _told(known)

    # --- drift ------------------------------------------------------------------------------------------------

    def drift(self, step: Step) -> Answer:
        """Return what was changed or removed behind our back; `repair` puts it right."""
        tenant = self.desk.known(step.wish.tenant_id)
        owner = self.desk.records.owner_of(tenant.bucket, f"{tenant.root}incoming/")
        lost = [] if owner is not None and owner.tenant_id == tenant.tenant_id else ["its uploads find no owner"]
        return {"name": tenant.tenant_id, "drift": [*lost, *self.provisioning.drift(tenant)]}

    # --- parts ------------------------------------------------------------------------------------------------

    def _tenant(self, step: Step) -> Tenant:
        """Return the tenant as the run wants it."""
        return self.desk.wanted(step.wish, self.desk.held(step))


def _settled(tenant: Tenant) -> None:
    """Raise Refused unless the tenant is whole."""
    if tenant.state in (TenantState.CREATING, TenantState.DELETING):
        verb = "create" if tenant.state is TenantState.CREATING else "delete"
        raise Refused(
            f"tenant {tenant.tenant_id} is {tenant.state.lower()}: finish that first "
            f"(`trainyard tenant {verb} {tenant.tenant_id}`)"
        )


def _told(tenant: Tenant) -> Answer:
    """Return what a run tells of the tenant: where to drop data, and where results are."""
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
        },
        "model_group": tenant.model_group,
    }
