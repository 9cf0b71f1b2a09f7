"""Mutants of the protocol, each without one safeguard; the simulator must catch every one of them.

They are switches for tests only; the service contains no code for them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from itertools import count
from typing import Any
from unittest.mock import patch

from trainyard.application.billing.outbox import OutboxRelay, Relayed
from trainyard.application.scheduling import admission as admissions
from trainyard.application.scheduling import completion, enlistment
from trainyard.application.scheduling.admission import Admitter, ReadSet
from trainyard.application.scheduling.reconcile import Reconcile, Repairs
from trainyard.application.scheduling.record import Record
from trainyard.application.scheduling.starts import Begun, Starts
from trainyard.domain import admission, affordability, fair_share, queues
from trainyard.domain import policy as domain_policy
from trainyard.domain.budgets import Reservation, reservation
from trainyard.domain.failures import FailureCause
from trainyard.domain.names import start_token
from trainyard.domain.policy import Change, Policy, TierPolicy
from trainyard.domain.queues import TenantQueue, milliseconds, released
from trainyard.domain.requests import HOLDING, Request, State
from trainyard.domain.resources import ResourceProfile, run_time
from trainyard.domain.scheduling import Decision, Ledger
from trainyard.persistence import bell, ledger, run_history
from trainyard.persistence.bell import Later
from trainyard.persistence.store import Update, Write
from trainyard.persistence.transactions import UnitOfWork

Patch = tuple[Any, str, Any]


def _note_elsewhere(tenant_id: str, data_set: str, now: datetime) -> Update:
    return run_history.note_start(tenant_id, f"{data_set}-other", now)


def _in_two_writes(unit: UnitOfWork) -> None:
    _commit_apart(unit, {"requests"})


def _commit_apart(unit: UnitOfWork, tables: set[str]) -> None:
    """Commit what is written to some tables by itself, before the rest."""
    first = [write for write in unit.writes if write.key.table in tables]
    for writes in (first, [write for write in unit.writes if write not in first]):
        if writes:
            unit.store.transact(writes)


_begin = Starts._begin


def _begin_finally(starts: Starts, *given: Any, final: bool = True) -> Begun:
    return _begin(starts, *given)


_fresh = count()


def _fresh_token(starts: Starts, request: Request) -> str:
    return f"{start_token(request.request_id, request.attempt)}-{next(_fresh)}"


def _arrival_order(request: Request, waiting: Request, tier: Any, now: datetime) -> tuple[Request, Request]:
    winner = replace(
        request, arrived_at=min(request.arrived_at, waiting.arrived_at), supersedes=waiting.request_id
    )
    loser = replace(waiting, state=State.SUPERSEDED, superseded_by=winner.request_id, finished_at=now)
    return winner, loser


def _all_idle(allocator: Any, borrower: Any) -> int:
    return int(allocator.capacity["slots"] - allocator.used["slots"])


def _oldest_of_lane(candidate: Any, lane: str, now: datetime) -> Any:
    due = [entry for entry in candidate.entries[lane] if entry.due_at <= now] or candidate.entries[lane]
    return min(due, key=lambda entry: entry.arrived_at, default=None)


_may_borrow = admission._Allocator._may_borrow


def _to_exceed_only(allocator: Any, tier: TierPolicy) -> bool:
    """Let a tier above its quota admit only what is above a cap."""
    below = any(c.running < c.cap for c in allocator._of(tier) if any(c.entries.values()))
    return _may_borrow(allocator, tier) and not below


_named_queues = Admitter._named_queues


def _without_the_due(admitter: Admitter, hints: Any, later: Later, *given: Any) -> list[TenantQueue]:
    return _named_queues(admitter, hints, replace(later, due_at={}), *given)


def _rung_only(requests: Any, queues: Any, before: Any, now: datetime) -> Any:
    due = any(request.due_at <= now for request in requests)
    return bell.ring(list(map(bell.Hint.of, requests))) if due else Update(bell.BELL)


def _lower_than_now(now: Policy, later: Any) -> tuple[Change, ...]:
    return tuple(change for each in later for change in _lowered(now, [each]))


_lowered = domain_policy._lowered
_at = Policy.at


def _by_the_clock_alone(policy: Policy, now: datetime, not_before: datetime | None = None) -> Policy:
    return _at(policy, now)


def _reserve_nothing(profile: Any, tier: TierPolicy, *given: Any, **named: Any) -> Reservation:
    return Reservation(Decimal(0), tier.runtime_max)


def _reserve_without_stopping(profile: Any, tier: TierPolicy, *given: Any, **named: Any) -> Reservation | None:
    found = reservation(profile, tier, *given, **named)
    return found and Reservation(found.usd, tier.runtime_max)


def _book_afterwards(unit: UnitOfWork) -> None:
    _commit_apart(unit, {"requests", "scheduler"})


def _preferred(reconcile: Reconcile, request: Request) -> str:
    return ResourceProfile.parse(request.profile).training[0]


_preferred_pool = property(lambda profile: (f"training/{profile.training[0]}",))
_pools_on_demand = property(lambda profile: tuple(f"training/{name}" for name in profile.training))
_passes_on_demand = property(lambda cause: cause not in (FailureCause.RUN, FailureCause.INTERRUPTION))

MUTANTS: dict[str, list[Patch]] = {
    "no condition on the ledger version": [(ledger, "_unmoved", lambda ledger: ())],
    "a fresh token per retry": [(Starts, "_token", _fresh_token)],
    "state and counter in two writes": [(UnitOfWork, "commit", _in_two_writes)],
    "no sweeper": [(Starts, "_overdue", lambda dispatch, now: [])],
    "no reconciler": [(Reconcile, name, lambda reconcile, now: Repairs()) for name in ("run", "find_ends")],
    "take a refusal as final although the start before was not answered": [(Starts, "_begin", _begin_finally)],
    "start without look-up after a forgotten token": [
        (Starts, "_started_before", lambda dispatch, overdue, now: {})
    ],
    "finish without its attempt condition": [
        (Record, "_is_of", lambda record, attempt, request: True),
        (completion, "_is_of_attempt", lambda read, current, *, by_start: current.state in HOLDING),
    ],
    "newest by arrival order": [(script, "supersede", _arrival_order) for script in (enlistment, completion)],
    "borrow without looking at lending limits": [(admission._Allocator, "_to_borrow", _all_idle)],
    "go above a cap and leave no slot free": [
        (admission._Allocator, "_leaves_one_free", lambda allocator, tier: True)
    ],
    "read only what rings name": [(Admitter, "_named_queues", _without_the_due)],
    "note nothing that is due later": [(enlistment, "enlisted", _rung_only)],
    "give instances back before one is selected": [(Reconcile, "_selected", _preferred)],
    "count the preferred instances alone": [(ResourceProfile, "training_pools", _preferred_pool)],
    "stay on spot capacity after an interruption": [(ResourceProfile, "on_demand", lambda profile: profile)],
    "count spot capacity as capacity on demand": [(ResourceProfile, "training_pools", _pools_on_demand)],
    "fail for lack of spot capacity": [(FailureCause, "passes", _passes_on_demand)],
    "hold no slot while waiting for spot capacity": [
        (ResourceProfile, "run_time", lambda profile, runtime_max: run_time(runtime_max))
    ],
    "decide by the clock alone": [(Policy, "at", _by_the_clock_alone)],
    "compare lower limits ahead with those of now alone": [(domain_policy, "_lowered", _lower_than_now)],
    "count nothing for lower limits ahead": [(Policy, "ahead_of", lambda policy, demand, ends_at: ())],
    "keep what was counted for lower limits ahead": [
        (ledger, "is_past", lambda resource, now: resource.startswith("after/"))
    ],
    "go above a cap instead of borrowing": [(admission._Allocator, "_may_borrow", _to_exceed_only)],
    "expedite without a limit": [(admission, "EXPEDITED_EVERY", 1)],
    "let urgent requests always go first": [(fair_share, "URGENT_MAX", 10**9)],
    "go by arrival in a lane of urgent requests": [(fair_share.Candidate, "head", _oldest_of_lane)],
    "reserve nothing": [(affordability, "reservation", _reserve_nothing)],
    "reserve, but let a run last as long as its tier allows": [
        (affordability, "reservation", _reserve_without_stopping)
    ],
    "book in a write of its own": [(UnitOfWork, "commit", _book_afterwards)],
    "never read an incomplete report again": [(OutboxRelay, "relay", lambda outbox, now: Relayed())],
    "note the start of a training elsewhere": [(admissions, "note_start", _note_elsewhere)],
    "keep no interval": [(enlistment, "last_start", lambda past: None)],
    "forget what a month has reserved when it turns back": [
        (queues, "in_month", lambda queue, month: replace(queue, month=month, reserved_usd=Decimal(0)))
    ],
}


def _factor(tenant_id: str) -> float:
    """Return by how much a tenant's run times are wrongly estimated."""
    return (0.1, 1.0, 10.0)[int(tenant_id[1:]) % 3]


def _charge_estimates(queue: TenantQueue, request: Request, cost: Decimal, unit: UnitOfWork) -> TenantQueue:
    assert request.admitted_at is not None
    estimated_end = request.admitted_at + (unit.now - request.admitted_at) * _factor(request.tenant_id)
    weight = unit.policy.tenant(request.tenant_id).weight
    return released(queue, request, estimated_end, weight=weight, cost=cost)


_admit = Admitter._admit


def _lift_at_every_admission(
    admitter: Admitter, group: Sequence[Decision], policy: Policy, now: datetime, month: str, read_set: ReadSet
) -> tuple[TenantQueue, list[Write]]:
    """Charge the tenant nothing for what it was behind or ahead: every pick begins at the tier's time."""
    queue = group[0].queue
    time = admitter.tables.ledger.read().used_of_tier(queue.tier) + milliseconds(now)
    level = replace(queue, service_ms=time)
    return _admit(admitter, [replace(decision, queue=level) for decision in group], policy, now, month, read_set)


_with_bounded_credit = enlistment._with_bounded_credit


def _lift_from_rest_only(queue: TenantQueue, ledger: Ledger, tier: TierPolicy, unit: UnitOfWork) -> TenantQueue:
    return _with_bounded_credit(queue, ledger, tier, unit) if queue.at_rest else queue


def _ends_by_estimate(allocator: Any, candidate: Any, entry: Any) -> tuple[dict[str, int], datetime]:
    taken = candidate.profiles[entry.profile].demand(candidate.tier.name)
    return taken, allocator.now + candidate.tier.run_time_max / 10


FAIRNESS_MUTANTS: dict[str, list[Patch]] = {
    "charge estimates instead of real use": [(completion, "_released", _charge_estimates)],
    "lift tags at every admission": [(Admitter, "_admit", _lift_at_every_admission)],
    "bound the credit of idle queues only": [(enlistment, "_with_bounded_credit", _lift_from_rest_only)],
    "backfill by estimates": [(admission._Allocator, "_taking", _ends_by_estimate)],
}
"""Caught by the fairness and large-request measurements."""


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Take the safeguard of that name out."""
    with ExitStack() as stack:
        for owner, attribute, replacement in (MUTANTS | FAIRNESS_MUTANTS)[name]:
            stack.enter_context(patch.object(owner, attribute, replacement))
        yield


def first_caught(name: str, run: Callable[[int], str | None], seeds: range) -> tuple[int, str] | None:
    """Return the first seed that catches a mutant and what it says, or None."""
    with mutated(name):
        for seed in seeds:
            said = run(seed)
            if said is not None:
                return seed, said
    return None
