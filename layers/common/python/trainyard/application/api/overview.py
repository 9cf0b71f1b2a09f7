"""The overview of operators: slots and queues of all tiers, what runs, what is next, and what ended on a day."""

from dataclasses import dataclass
from datetime import datetime

from trainyard.application.api.request_pages import RequestPage
from trainyard.application.scheduling.explain import Explain, Upcoming
from trainyard.application.scheduling.pauses import Pausable, Pause, pause_of
from trainyard.domain.policy import Policy
from trainyard.domain.requests import Request, State
from trainyard.domain.scheduling import Ledger
from trainyard.persistence.policies import Policies
from trainyard.persistence.store import Cursor
from trainyard.persistence.tenant_queues import Backlog

PAUSED_TENANTS_MAX = 10
"""Of a tier: so many are shown with who paused them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierState:
    """A tier as it is now."""

    name: str
    quota: int
    """Slots that are its own."""
    used: int
    """Slots that it has taken; more than its own where it has borrowed some."""
    is_paused: bool
    is_closed: bool
    """Whether nothing of it starts at this time of day."""
    backlog: Backlog


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """The service as it is now."""

    ledger: Ledger
    policy: Policy
    """The limits in force."""
    tiers: tuple[TierState, ...]
    throttled_to: int | None
    """How many executions SageMaker takes of the account at present; None where it has refused none lately."""
    pauses: tuple[Pause, ...]
    """What is paused: the service, tiers, and some of the tenants that have requests waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """What another policy would change for the requests that are next."""

    before: Policy
    """The limits in force …"""
    after: Policy
    """… and those that would be."""
    upcoming: tuple[tuple[Upcoming | None, Upcoming | None], ...]
    """Of each request, what it can expect under either policy; None where it is not among the next ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    explain: Explain

    @property
    def policies(self) -> Policies:
        return self.explain.policies

    def state(self, now: datetime) -> ServiceState:
        """Return the slots and the backlog of each tier."""
        tables = self.explain.scheduler.tables
        ledger = tables.ledger.read()
        policy = self.explain.policies.current().at(now, ledger.epoch)
        backlog = tables.queues.backlog(policy)
        paused: list[tuple[Pausable, str | None]] = [(Pausable.ALL, None)] if ledger.paused else []
        paused += [(Pausable.TIER, name) for name in sorted(ledger.paused_tiers)]
        paused += [
            (Pausable.TENANT, name) for each in backlog.values() for name in each.paused[:PAUSED_TENANTS_MAX]
        ]
        is_throttled = ledger.throttled_until is not None and ledger.throttled_until > now
        return ServiceState(
            ledger=ledger,
            policy=policy,
            tiers=tuple(
                TierState(
                    name=tier.name,
                    quota=tier.quota,
                    used=ledger.used_of_tier(tier.name),
                    is_paused=ledger.paused or tier.name in ledger.paused_tiers,
                    is_closed=tier.closed,
                    backlog=backlog[tier.name],
                )
                for tier in policy.tiers
            ),
            throttled_to=ledger.throttled_to if is_throttled else None,
            pauses=tuple(pause_of(tables.book, what, name) for what, name in paused),
        )

    def running(self) -> list[Request]:
        """Return the requests that hold a slot, the longest first."""
        held = self.explain.scheduler.tables.held()
        return sorted(held, key=lambda request: request.admitted_at or request.arrived_at)

    def next(self, now: datetime, *, limit: int) -> list[Upcoming]:
        """Return the requests that are next, at most `limit` of each tier."""
        return self.explain.upcoming(now, limit=limit)

    def what_if(self, text: str, now: datetime, *, limit: int) -> WhatIf:
        """Return what a policy would change, at most `limit` requests of each tier; writes nothing.

        Raises Refused when it is invalid.
        """
        other = self.policies.check(text)
        before, after = self.explain.upcoming_under(other, now, limit=limit)
        then = {each.entry.request_id: each for each in after}
        pairs = [(each, then.pop(each.entry.request_id, None)) for each in before]
        ledger = self.explain.scheduler.tables.ledger.read()
        return WhatIf(
            before=self.policies.current().at(now, ledger.epoch),
            after=other.at(now, ledger.epoch),
            upcoming=(*pairs, *((None, each) for each in then.values())),
        )

    def ended(self, tier: str, state: State, day: str, *, limit: int, after: Cursor | None = None) -> RequestPage:
        """Return requests of a tier that came to an end in a state on a day, newest first; may lag.

        Raises Malformed for a cursor of another list.
        """
        requests = self.explain.scheduler.tables.requests
        return RequestPage(*requests.page_of_ended(tier, state, day, limit=limit, after=after))
