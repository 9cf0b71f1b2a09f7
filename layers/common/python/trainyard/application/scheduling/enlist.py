"""Enlist: from the tier queue into the tenant's queue; the newest upload wins."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from trainyard.application.ports import Bell, ParallelMap, TenantRoles, Tenants
from trainyard.application.scheduling.enlistment import EnlistCommand, Enlisted, Enlistment
from trainyard.application.scheduling.notifications import Notifier
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.arrivals import INCOMING, is_data
from trainyard.domain.errors import Malformed
from trainyard.domain.names import REQUEST_ID, is_data_set
from trainyard.domain.requests import RequestKind, State, Submission, rejected
from trainyard.domain.tenants import RoleState, Tenant, TenantState
from trainyard.domain.transforms import FOLDER
from trainyard.persistence.bell import Hint
from trainyard.persistence.ledger import LEDGER, policy_version
from trainyard.persistence.policies import Policies
from trainyard.persistence.store import Items
from trainyard.persistence.tenants import tenant_from, tenant_key

ROLE_PROPAGATES = timedelta(seconds=15)
"""A new role takes seconds before it can be assumed (IAM user guide, "Changes that I make are not always
immediately visible")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlist:
    policies: Policies
    tenants: Tenants
    scheduler: Scheduler
    notifier: Notifier
    bell: Bell
    roles: TenantRoles
    parallel_map: ParallelMap = map

    def enlist(self, submission: Submission, now: datetime) -> Enlisted:
        """Enlist one request, and ring; raises Conflict or Throttled when it must be delivered again."""
        (enlisted,) = self.enlist_batch([submission], now)
        if isinstance(enlisted, Exception):
            raise enlisted
        return enlisted

    def enlist_batch(self, submissions: Sequence[Submission], now: datetime) -> list[Enlisted | Exception]:
        """Queue requests, or merge each with the one of its data set that waits, and ring once. Idempotent.

        An error in the result means redelivery of that one; raises Throttled or OutcomeUnknown if all must be.
        """
        # 1. Read all that is needed: the tenants, and the entries that the requests may replace.
        items = self.scheduler.enlister.read_for(submissions)
        tenants = {name: _tenant(items, name) for name in {sent.tenant_id for sent in submissions}}
        unmade = self._make_roles(tenants.values())
        done: dict[int, Enlisted | Exception] = {}
        commands: dict[int, EnlistCommand] = {}
        for number, submission in enumerate(submissions):
            try:
                command = unmade.get(submission.tenant_id) or self._command(
                    submission, tenants[submission.tenant_id], now
                )
                if isinstance(command, EnlistCommand):
                    commands[number] = command
                else:
                    done[number] = command
            except Exception as error:  # one failing request must not affect the others
                done[number] = error
        # 2. Into the tenant queues, in as few transactions as they fit.
        policy = self.policies.at(policy_version(items[LEDGER]))
        enlisted = self.scheduler.enlister.enlist_all(list(commands.values()), items, policy, now)
        done |= dict(zip(commands, enlisted, strict=True))
        # 3. Wake the dispatcher once what waits for a quiet period or a role is due.
        results = [done[number] for number in range(len(submissions))]
        self._ring_later([result for result in results if isinstance(result, Enlisted)], now)
        # 4. Notify tenants and bus; again on a redelivery, since the first one may have been interrupted.
        pairs = zip(results, (tenants[sent.tenant_id] for sent in submissions), strict=True)
        return list(self.parallel_map(lambda pair: self._told(*pair, now), pairs))

    def _command(self, submission: Submission, tenant: Tenant | None, now: datetime) -> EnlistCommand | Enlisted:
        """Return what is to be enlisted; what is refused is recorded."""
        # The tenant may have been deleted or moved since the upload.
        check_submission(tenant, submission)
        refusal = _refusal(tenant, submission)
        if refusal is not None or tenant is None:
            return self._refuse(submission, refusal or "", now)
        # A pooled tenant's role is made at its first request, and takes a moment to be known everywhere.
        not_before = tenant.role_since + ROLE_PROPAGATES if tenant.role_since else now
        if tenant.role is not RoleState.MADE:
            not_before = now + ROLE_PROPAGATES
        rules = tenant.settings_for(submission.data_set).retraining
        return EnlistCommand(submission=replace(submission, tier=tenant.tier), not_before=not_before, rules=rules)

    def _make_roles(self, tenants: Iterable[Tenant | None]) -> dict[str, Exception]:
        """Create the missing roles, once each; return tenant → error for those that failed."""
        gone = (TenantState.DELETING, TenantState.DELETED)
        lacking = {t.tenant_id for t in tenants if t and t.role is not RoleState.MADE and t.state not in gone}
        made = self.parallel_map(self._made, sorted(lacking))
        return {tenant_id: error for tenant_id, error in zip(sorted(lacking), made, strict=True) if error}

    def _made(self, tenant_id: str) -> Exception | None:
        try:
            self.roles.make(tenant_id)
        except Exception as error:  # one failing tenant must not affect the others
            return error
        return None

    def _keep_role(self, tenant: Tenant) -> None:
        """Create a role again that was removed as idle just before the request was queued."""
        if tenant.pooled and tenant.role is RoleState.MADE:
            current = self.tenants.get(tenant.tenant_id)
            if current is not None and current.role is not RoleState.MADE:
                self.roles.make(tenant.tenant_id)

    def _told(self, result: Enlisted | Exception, tenant: Tenant | None, now: datetime) -> Enlisted | Exception:
        """Notify about what was enlisted; return it, or the error if that must be repeated."""
        if tenant is None or not isinstance(result, Enlisted):
            return result
        try:
            self._keep_role(tenant)
            for request in (result.request, result.superseded, result.waiting):
                if request is not None:
                    waits_or_waited = request.state in (State.QUEUED, State.SUPERSEDED)
                    self.notifier.notify(request, now, tenant, announce=waits_or_waited)
        except Exception as error:  # it is enlisted; a redelivery notifies again
            return error
        return result

    def _refuse(self, submission: Submission, reason: str, now: datetime) -> Enlisted:
        request = rejected(
            submission.request_id,
            tenant_id=submission.tenant_id,
            tier=submission.tier,
            data_set=submission.data_set,
            kind=submission.kind,
            content=submission.content,
            cause=submission.cause,
            at=now,
            reason=reason,
            algorithm=submission.algorithm,
            overrides=submission.overrides,
        )
        if self.scheduler.tables.requests.add_rejected(request):
            self.notifier.announcements.announce(request)  # no receipt: the place is not its tenant's any more
        return Enlisted(kind=Enlistment.REFUSED, request=request)

    def _ring_later(self, enlisted: Iterable[Enlisted], now: datetime) -> None:
        """Ring once for all of a batch that is due later, when the last of it is."""
        waiting = [e.waiting or e.request for e in enlisted]
        later = [request for request in waiting if request.state is State.QUEUED and request.due_at > now]
        if later:
            when = max(request.due_at for request in later)
            self.bell.ring_at(when, now, list(dict.fromkeys(map(Hint.of, later))))


def _tenant(items: Items, tenant_id: str) -> Tenant | None:
    item = items[tenant_key(tenant_id)]
    return tenant_from(item) if item else None


def check_submission(tenant: Tenant | None, submission: Submission) -> None:
    """Raise Malformed for a message that intake cannot have sent: somebody else put it on the queue."""
    if not is_data_set(submission.data_set):
        raise Malformed(f"{submission.data_set!r} is not a valid data set name")
    if tenant is not None and tenant.owns(submission.content.uri):
        transforms = submission.kind is RequestKind.TRANSFORM
        folder = f"{FOLDER}{submission.data_set}/" if transforms else INCOMING
        key = submission.content.key
        if not key.startswith(tenant.root + folder) or not is_data(key, tenant.root + folder):
            raise Malformed(f"its key is not one that a job can read under {folder}")
        if transforms and not submission.alone:
            raise Malformed("a batch transform is never merged with another request")
        if transforms and REQUEST_ID.fullmatch(submission.content.etag) is None:
            raise Malformed("its plan is not named by a request")


def _refusal(tenant: Tenant | None, submission: Submission) -> str | None:
    """Return why a request that was accepted cannot be enlisted any more; None when it can."""
    if tenant is None or tenant.state in (TenantState.DELETING, TenantState.DELETED):
        return f"tenant {submission.tenant_id} has been deleted since"
    if not tenant.owns(submission.content.uri):
        if submission.kind is RequestKind.TRANSFORM:
            return f"tenant {submission.tenant_id} has moved since: ask for the batch transform again"
        return f"tenant {submission.tenant_id} has moved since: the upload is trained on at its new location"
    return None
