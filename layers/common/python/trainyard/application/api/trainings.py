"""Trainings that are asked for by name, on what has been uploaded before."""

from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from trainyard.application.ports import Retrainings
from trainyard.domain.arrivals import RetrainingAsked, check_overrides, retraining_id
from trainyard.domain.errors import Refused
from trainyard.domain.names import is_data_set
from trainyard.domain.requests import Overrides, Request, RequestKind, State
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.arrival_limits import ArrivalLimits
from trainyard.persistence.idempotency_keys import IdempotencyKeys
from trainyard.persistence.policies import Policies

RETRIED = (State.FAILED, State.STOPPED, State.CANCELLED, State.REJECTED)
"""States of requests that ended without a model, and may be tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainings:
    account_id: str
    policies: Policies
    arrival_limits: ArrivalLimits
    retrainings: Retrainings
    keys: IdempotencyKeys

    def ask(
        self,
        tenant: Tenant,
        data_set: str,
        *,
        now: datetime,
        ready_by: datetime | None = None,
        priority: int | None = None,
        overrides: Overrides | None = None,
        force: bool = False,
        again: bool = False,
        key: str | None = None,
        call: str = "",
    ) -> str:
        """Ask for a training of a data set, and return the id that its request will have within seconds.

        With `force` it trains whatever has changed, or not, since the last training; `again` is one that ended
        without a model: it trains although nothing has changed, as it may have failed on data of before. With a
        `key`, calls that are alike (by `call`, a digest) ask for one training. Raises Refused with a reason for
        the caller, and Throttled and OutcomeUnknown.
        """
        if tenant.state is not TenantState.ACTIVE:
            raise Refused(f"tenant {tenant.tenant_id} is {tenant.state.value}: nothing is trained")
        if ready_by is not None and ready_by <= now:
            raise Refused(f"ready_by is {ready_by.isoformat()}, which has passed")
        if not is_data_set(data_set):
            raise Refused(f"{data_set!r} is not a valid data set name")
        policy = self.policies.current()
        if overrides is not None:
            check_overrides(tenant, data_set, overrides, policy)
        event_id = self.keys.event_id(tenant.tenant_id, key, call, now) if key else str(uuid4())
        limit = policy.uploads_per_hour_of(tenant.tenant_id)
        if not self.arrival_limits.count(tenant.tenant_id, 1, limit=limit, now=now):
            raise Refused(f"{limit:,} uploads and trainings in an hour are the limit: try again later")
        asked = RetrainingAsked(
            account_id=self.account_id,
            event_id=event_id,
            tenant_id=tenant.tenant_id,
            data_set=data_set,
            ready_by=ready_by,
            priority=priority,
            overrides=overrides,
            is_forced=force or again,
            accepts_drift=force,
        )
        self.retrainings.ask([asked])
        return retraining_id(tenant.tenant_id, data_set, event_id)


def check_retried(request: Request) -> None:
    """Raise Refused unless a request ended without a model."""
    if request.kind is not RequestKind.TRAINING:
        raise Refused("it is a batch transform, which cannot be tried again: ask for another one")
    if request.state not in RETRIED:
        raise Refused(f"it is {request.state.value}: only what ended without a model can be tried again")
