"""Explain: why a request waits, who is before it, and when it can be expected to start.

The `decide` that admits is run repeatedly on a copy of the current state, with runs that end after their expected
duration: once with the shortest, once with the longest likely durations.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from trainyard.application.scheduling.look_ahead import Durations, admissions_ahead, expected_runtimes, look_ahead
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.admission import decide
from trainyard.domain.budgets import cost_max_usd, overshoot_usd
from trainyard.domain.errors import Refused
from trainyard.domain.executions import month_of
from trainyard.domain.policy import Budget, Policy, TierPolicy
from trainyard.domain.queues import QueueEntry, TenantQueue, entry_of
from trainyard.domain.requests import Estimate, Request, State, Submission
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.scheduling import Reason, Snapshot, WaitingQueue
from trainyard.domain.tenants import Tenant
from trainyard.persistence.policies import Policies

CURES = {
    Reason.SLOT_FREE: "nothing: the next pass admits it",
    Reason.BATCH_FULL: "nothing: the next pass admits it",
    Reason.NOT_DUE: "time only: further uploads of the data set extend it up to the maximum delay",
    Reason.TURN: "the requests before it",
    Reason.ACCOUNT_LIMIT: "the end of any run, or a higher running_max and SageMaker quota",
    Reason.TIER_QUOTA: "the end of a run of the tier, or a higher quota or borrowing_limit",
    Reason.NOTHING_TO_BORROW: "the end of a run of the tier, less load on other tiers, or a higher lending_limit",
    Reason.TENANT_CAP: "the end of a run of the tenant, or a higher running_max or running_ceiling for it",
    Reason.ABOVE_CAP: "the end of a run of the tenant, a higher running_max for it, or one more free slot: above "
    "caps one slot of the tier and of the account is kept free, unless nine of ten runs of the data set take at "
    "most 15 minutes",
    Reason.TENANT_PAUSED: "trainyard resume tenant {tenant_id}",
    Reason.TIER_PAUSED: "trainyard resume tier {tier}",
    Reason.ALL_PAUSED: "trainyard resume all",
    Reason.BUDGET: "a higher budget_usd, the next month, or a run of the tenant that costs less than it reserved",
    Reason.TIER_BUDGET: "a higher budget_usd of the tier, the next month, or a run that costs less than reserved",
    Reason.PRICE_UNKNOWN: "a price for the instance type: run `trainyard prices update`, and deploy",
    Reason.INSTANCE_QUOTA: "the end of a run on such instances, or a higher instance quota",
    Reason.NEVER_FITS: "a higher instance quota in the policy: with the current one it can never start",
    Reason.CAPACITY_HOLD: "the start of the large request that instances are reserved for",
    Reason.TIER_CLOSED: "the next change of limits, which `trainyard policy show` names",
    Reason.NOT_AT_THIS_HOUR: "a change of limits, which `trainyard policy show` names, or a higher instance quota",
    Reason.LOWER_LIMIT_AHEAD: "the next change of limits, which `trainyard policy show` names, or the end of a "
    "run that lasts beyond it too",
    Reason.START_RATE: "time: starts are limited by starts_per_second",
    Reason.UNKNOWN_TIER: "a policy with that tier",
}
"""Reason → what would let the request go; `cure_of` puts the names in."""

SET_ASIDE_MAX = 20
"""Queues of each tier that cannot start now, and are looked at when another policy is compared."""

AFTER_BACK_OFF = "time only: it is tried again at the expected start"
"""Of a request that went back to the queue, which is not due for that."""

_PASSING = (Reason.BATCH_FULL, Reason.SLOT_FREE)
"""Reasons that hold for the first of a lane only: those behind it wait for their turn."""


def cure_of(reason: Reason, tier: str, tenant_id: str) -> str:
    """Return what would let a request of a tier's tenant go; a command in it can be pasted."""
    return CURES[reason].format(tier=tier, tenant_id=tenant_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    request: Request
    reason: Reason | None
    """None when it does not wait."""
    cure: str
    position: int | None
    """How many requests of its tier are expected to start before it, plus one; at least that, when `latest` is
    None; None when it does not wait."""
    ahead: tuple[str, ...]
    """The tenants of the first of them."""
    earliest: datetime | None
    latest: datetime | None
    """The latest expected start; None when no current run will unblock it."""
    accounts: tuple["BudgetAccount", ...] = ()
    """The budgets that apply to it."""
    needs_usd: Decimal | None = None
    """What must be left of them for it to go, where that is the reason."""
    throttled: tuple[int, datetime] | None = None
    """How many executions SageMaker last took of the account, and until when no more are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcoming:
    """A waiting request among those that are next in its tier."""

    tier: str
    position: int
    tenant_id: str
    entry: QueueEntry
    reason: Reason
    earliest: datetime | None
    latest: datetime | None
    """The latest expected start; None when nothing that is expected to happen lets it start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAccount:
    """A budget, and how much of it is used."""

    whose: str
    month: str
    budget: Budget
    spent_usd: Decimal
    reserved_usd: Decimal
    overshoot_usd: Decimal | None
    """By how much it can be overspent at most; None when a price is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    policies: Policies
    scheduler: Scheduler

    def why(self, request_id: str, now: datetime) -> Explanation:
        """Explain one request; raises Refused when there is none of that id."""
        request = self.scheduler.tables.requests.get(request_id)
        if request is None:
            raise Refused(f"there is no request {request_id!r}; `trainyard requests TENANT` shows them")
        if request.state is not State.QUEUED:
            return _not_waiting(request)
        policy = self.policies.current()
        return self._explained(request, self._snapshot(request, policy, now), policy, now)

    def if_enlisted(self, submission: Submission, now: datetime) -> Explanation:
        """Explain the request that would wait if a submission were enlisted now; writes nothing.

        Raises Conflict when its queue is just changing.
        """
        policy = self.policies.current()
        request, queue = self.scheduler.enlister.rehearse(submission, policy, now)
        snapshot = with_request(self._snapshot(request, policy, now), request, queue)
        return self._explained(request, snapshot, policy, now)

    def _explained(self, request: Request, snapshot: Snapshot, policy: Policy, now: datetime) -> Explanation:
        policy = policy.at(now, snapshot.ledger.epoch)
        reason, needs_usd = self._reason(request, snapshot, policy, now)
        expected = expected_runtimes(self.scheduler, snapshot)
        if request.expected is not None:
            expected[request.request_id] = request.expected
        soonest, longest = (_durations(expected, policy, soon=soon) for soon in (True, False))
        first = look_ahead(snapshot, policy, now, request.request_id, request.tier, soonest)
        last = look_ahead(snapshot, policy, now, request.request_id, request.tier, longest)
        throttled_to, until = snapshot.ledger.throttled_to, snapshot.ledger.throttled_until
        return Explanation(
            request=request,
            reason=reason,
            cure=AFTER_BACK_OFF
            if reason is Reason.NOT_DUE and request.reason
            else cure_of(reason, request.tier, request.tenant_id),
            position=len(last.before) + 1,
            ahead=tuple(last.before[:5]),
            earliest=first.at,
            latest=last.at,
            throttled=(throttled_to, until) if throttled_to is not None and until and until > now else None,
            accounts=tuple(self.accounts(request.tenant_id, request.tier, policy, now)),
            needs_usd=needs_usd,
        )

    def upcoming(self, now: datetime, *, limit: int) -> list[Upcoming]:
        """Return the requests that are next in each tier, at most `limit` of each, in the order of their starts;
        those that nothing expected lets start come last, in the order of their arrival.
        """
        policy = self.policies.current()
        return self._upcoming(self.scheduler.admitter.overview(policy, now), policy, now, limit)

    def upcoming_under(self, other: Policy, now: datetime, *, limit: int) -> tuple[list[Upcoming], list[Upcoming]]:
        """Return the requests that are next, as `upcoming`, under the policy in force and under another one.

        Both are about the same state: what waits and runs now, and the runtimes that are expected now. Requests
        that cannot start under the policy in force are among them, unlike there.
        """
        policy = self.policies.current()
        snapshot = self.scheduler.admitter.overview(policy, now, set_aside=SET_ASIDE_MAX)
        return self._upcoming(snapshot, policy, now, limit), self._upcoming(snapshot, other, now, limit)

    def _upcoming(self, snapshot: Snapshot, policy: Policy, now: datetime, limit: int) -> list[Upcoming]:
        policy = policy.at(now, snapshot.ledger.epoch)
        plan = decide(snapshot, policy, now)
        blocking = {(d.queue.tier, d.queue.tenant_id, d.entry.lane): d for d in plan.waits}
        goes = {decision.entry.request_id for decision in plan.admissions}
        expected = expected_runtimes(self.scheduler, snapshot)
        soonest, longest = (
            {d.entry.request_id: at for at, d in admissions_ahead(snapshot, policy, now, durations)}
            for durations in (_durations(expected, policy, soon=soon) for soon in (True, False))
        )
        order = {request_id: number for number, request_id in enumerate(longest)}
        upcoming: list[Upcoming] = []
        for tier in policy.tiers:
            waiting = [
                (queue.queue, entry)
                for queue in snapshot.queues
                if queue.queue.tier == tier.name
                for entries in queue.entries.values()
                for entry in entries
            ]
            waiting.sort(key=lambda each: (order.get(each[1].request_id, len(order)), each[1].arrived_at))
            for position, (queue, entry) in enumerate(waiting[:limit], start=1):
                decision = blocking.get((tier.name, queue.tenant_id, entry.lane))
                is_first = decision is not None and decision.entry.request_id == entry.request_id
                upcoming.append(
                    Upcoming(
                        tier=tier.name,
                        position=position,
                        tenant_id=queue.tenant_id,
                        entry=entry,
                        reason=Reason.SLOT_FREE
                        if entry.request_id in goes
                        else _pause_of(queue, snapshot) or Reason.NOT_DUE
                        if entry.due_at > now
                        else decision.reason
                        if decision is not None and (is_first or decision.reason not in _PASSING)
                        else Reason.TURN,
                        earliest=soonest.get(entry.request_id),
                        latest=longest.get(entry.request_id),
                    )
                )
        return upcoming

    def accounts(self, tenant_id: str, tier_name: str, policy: Policy, now: datetime) -> Iterator[BudgetAccount]:
        """Yield the budgets that a tenant's requests in a tier fall under, and how they stand."""
        ledger, queue = self.scheduler.tables.ledger.read(), self.scheduler.tables.queues.get(tier_name, tenant_id)
        policy = policy.at(now, ledger.epoch)
        month = max(ledger.month, month_of(now))
        own, tier = policy.tenant(tenant_id).budget, policy.tier(tier_name)
        if own is not None and tier is not None:
            current = queue.month == month
            yield BudgetAccount(
                whose=f"tenant {tenant_id}",
                month=month,
                budget=own,
                spent_usd=queue.spent_usd if current else Decimal(0),
                reserved_usd=queue.reserved_usd if current else Decimal(0),
                overshoot_usd=_overshoot(own, tier, policy.ceiling(tier, tenant_id), policy),
            )
        if tier is not None and tier.budget is not None:
            name = f"{month} {tier_name}"
            yield BudgetAccount(
                whose=f"tier {tier_name}",
                month=month,
                budget=tier.budget,
                spent_usd=ledger.spent_in.get(name, Decimal(0)),
                reserved_usd=ledger.reserved_in.get(name, Decimal(0)),
                overshoot_usd=_overshoot(tier.budget, tier, tier.slots_max, policy),
            )

    def all_accounts(
        self, tenant_of: Callable[[str], Tenant | None], policy: Policy, now: datetime, *, limit: int | None = None
    ) -> Iterator[BudgetAccount]:
        """Yield the budgets of tenants that have one, of at most `limit` tenants, then those of tiers."""
        named = sorted(name for name, limits in policy.tenants.items() if limits.budget)
        for tenant_id in named[:limit]:
            tenant = tenant_of(tenant_id)
            if tenant is not None:
                own = self.accounts(tenant_id, tenant.tier, policy, now)
                yield from (account for account in own if account.whose.startswith("tenant "))
        for tier in policy.tiers:
            yield from self.accounts("", tier.name, policy, now)

    def _snapshot(self, request: Request, policy: Policy, now: datetime) -> Snapshot:
        """Return all requests that may start before this one, with its own queue even if passes skip it."""
        snapshot = self.scheduler.admitter.overview(policy, now)
        if not any(_is_of(waiting.queue, request) for waiting in snapshot.queues):
            own = self.scheduler.admitter.waiting_queue(request.tier, request.tenant_id)
            snapshot = replace(snapshot, queues=(*snapshot.queues, own))
        return snapshot

    def _reason(
        self, request: Request, snapshot: Snapshot, policy: Policy, now: datetime
    ) -> tuple[Reason, Decimal | None]:
        """Return why a request waits, and what must be left of its budgets where that is why."""
        plan = decide(snapshot, policy, now)
        if any(decision.entry.request_id == request.request_id for decision in plan.admissions):
            return Reason.SLOT_FREE, None
        own = [d for d in plan.waits if _is_of(d.queue, request) and d.entry.lane == entry_of(request).lane]
        if request.due_at > now:
            queue = next(waiting.queue for waiting in snapshot.queues if _is_of(waiting.queue, request))
            return _pause_of(queue, snapshot) or Reason.NOT_DUE, None
        blocking = next((d.reason for d in own), Reason.TURN)
        needs = next((d.reserved_usd for d in own if d.reserved_usd), None)
        first = any(d.entry.request_id == request.request_id for d in own)
        lasting = blocking not in _PASSING
        return (blocking, needs) if first or lasting else (Reason.TURN, None)


def with_request(snapshot: Snapshot, request: Request, queue: TenantQueue) -> Snapshot:
    """Return a snapshot in which a request waits in its queue; `queue` is that queue with it."""
    comer = entry_of(request)
    gone = {request.request_id, request.supersedes}
    changed: list[WaitingQueue] = []
    for waiting in snapshot.queues:
        if _is_of(waiting.queue, request):
            entries = {
                lane: tuple(entry for entry in entries if entry.request_id not in gone)
                for lane, entries in waiting.entries.items()
            }
            with_comer = (*entries.get(comer.lane, ()), comer)
            entries[comer.lane] = tuple(sorted(with_comer, key=lambda entry: entry.order))
            changed.append(WaitingQueue(queue=queue, entries=entries))
        else:
            changed.append(waiting)
    return replace(snapshot, queues=tuple(changed))


def _pause_of(queue: TenantQueue, snapshot: Snapshot) -> Reason | None:
    """Return the pause that holds a queue, or None; it is named before a quiet period, which ends by itself."""
    if snapshot.ledger.paused:
        return Reason.ALL_PAUSED
    if queue.tier in snapshot.ledger.paused_tiers:
        return Reason.TIER_PAUSED
    return Reason.TENANT_PAUSED if queue.paused else None


def _durations(expected: Mapping[str, Estimate], policy: Policy, *, soon: bool) -> Durations:
    """Return the assumed durations of runs: the 90th percentile, or with `soon` as far below the median as that
    is above it. Where nothing is known: the longest possible duration, or with `soon` a quarter of it.
    """

    def duration(request_id: str, tier_name: str) -> timedelta:
        tier, estimate = policy.tier(tier_name), expected.get(request_id)
        if estimate is None:
            longest = tier.run_time_max if tier else timedelta(0)
            return longest / 4 if soon else longest
        late = timedelta(seconds=max(estimate.seconds_p90, 1))
        return timedelta(seconds=estimate.seconds**2 / late.total_seconds()) if soon else late

    return duration


def _overshoot(budget: Budget, tier: TierPolicy, running_max: int, policy: Policy) -> Decimal | None:
    """Return by how much a budget can be overspent at most: as many of the dearest runs as may, all at once."""
    choices = [choice for name in ("", *policy.catalogue) for choice in policy.choices(tier, name)]
    worst = [cost_max_usd(ResourceProfile.of(choice), tier.runtime_max, policy.prices) for choice in choices]
    dearest = None if None in worst else max(cost for cost in worst if cost is not None)
    return overshoot_usd(budget, running_max, dearest)


def _is_of(queue: TenantQueue, request: Request) -> bool:
    return (queue.tier, queue.tenant_id) == (request.tier, request.tenant_id)


def _not_waiting(request: Request) -> Explanation:
    return Explanation(request=request, reason=None, cure="", position=None, ahead=(), earliest=None, latest=None)
