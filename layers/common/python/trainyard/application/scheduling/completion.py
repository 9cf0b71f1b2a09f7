"""Completion: ends attempts, releases their slots and reservations, and books executions, in one transaction."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from trainyard.application.scheduling.enlistment import Enlister
from trainyard.application.scheduling.merging import supersede, with_estimate
from trainyard.domain.algorithms import family_of
from trainyard.domain.budgets import level
from trainyard.domain.errors import Conflict
from trainyard.domain.executions import ExecutionRecord
from trainyard.domain.failures import cause_of
from trainyard.domain.policy import Policy
from trainyard.domain.queues import TenantQueue, entry_of, joined, released
from trainyard.domain.requests import HOLDING, TERMINAL, Outcome, Request, RequestKind, State, moved
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.retraining import Failed, Trained
from trainyard.domain.tuning import Tuned, is_clearly_better
from trainyard.persistence.book import (
    booking_keys,
    bookings,
    correction,
    pace_key,
)
from trainyard.persistence.items import entry_from, outcome_values, queue_from, request_from
from trainyard.persistence.ledger import book_correction, give_units_back
from trainyard.persistence.outbox import budget_entry
from trainyard.persistence.requests import held_since, request_key, still_waits
from trainyard.persistence.run_history import past_from, past_key, ratios_key
from trainyard.persistence.store import ACTIONS_MAX, Absent, Is, Items, Key, Write, fits_one_transaction
from trainyard.persistence.tables import Tables
from trainyard.persistence.tenant_queues import delete_entry, entry_key, put_entry, queue_in, queue_key, refile
from trainyard.persistence.transactions import UnitOfWork

ENDS_MAX = 24
"""Of one transaction: each touches its request, its execution, its month and its past; a tenant's queue and pace
come once for all of its ends, the ledger once. Fewer where that is more than a transaction takes."""

ACTIONS_PER_END, ACTIONS_PER_TENANT = 4, 3
"""Items that an end touches, and its tenant's queue and pace, where transactions are packed."""

STOP_ASKED = "a stop was requested"


class _TooMany(Exception):
    """More ends than one transaction takes."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The owner that an execution's description names: a hint for lookups; only the request itself is trusted."""

    tier: str
    tenant_id: str
    data_set: str
    kind: RequestKind = RequestKind.TRAINING

    @property
    def text(self) -> str:
        words = (self.tier, self.tenant_id, self.data_set)
        return " ".join(words if self.kind is RequestKind.TRAINING else (*words, self.kind))

    @classmethod
    def parse(cls, text: str) -> "Subject | None":
        tier, tenant_id, data_set, *kind = [*text.split(" "), "", ""][: max(3, text.count(" ") + 1)]
        if not data_set or kind not in ([], [RequestKind.TRANSFORM]):
            return None
        return cls(tier, tenant_id, data_set, RequestKind(kind[0]) if kind else RequestKind.TRAINING)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How an attempt ended."""

    request: Request
    """As it was read: its attempt names the one that ended."""
    state: State
    reason: str | None = None
    outcome: Outcome = field(default_factory=Outcome)
    execution: ExecutionRecord | None = None
    """What ran, and what it cost; None when nothing was started."""
    passes: bool = False
    """It failed for a transient cause, and may be retried."""
    interrupted: bool = False
    """That cause is that its spot capacity was taken away, or never there."""
    by_start: bool = False
    """It could not be started; void if it runs by now, or if its start was taken over since it was read."""


def end_keys(about: Request | Subject) -> tuple[Key, ...]:
    """Return the keys that `finish` must read for an end, besides its request."""
    tenant_id = about.tenant_id
    return (
        queue_key(about.tier, tenant_id),
        past_key(tenant_id, about.data_set, about.kind),
        pace_key(tenant_id),
        ratios_key(about.tier),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Completer:
    """The transactions that end attempts, requeue or cancel requests, and correct bookings."""

    tables: Tables

    # --- ends -----------------------------------------------------------------------------------------------

    def finish(self, ends: Sequence[End], policy: Policy, now: datetime, items: Items | None = None) -> list[bool]:
        """End attempts and release their slots, several per transaction; each transaction wakes the dispatcher.

        False for each that had ended before. `items` is what was read of them already (`end_keys`).
        """
        # By tenant, because the ends of one tenant share the write of its queue.
        order = sorted(range(len(ends)), key=lambda n: (ends[n].request.tier, ends[n].request.tenant_id))
        ended: dict[int, bool] = {}
        for part in _packed(order, ends):
            some = [ends[number] for number in part]
            ended |= dict(zip(part, self._finish_part(some, policy, now, items), strict=True))
        return [ended[number] for number in range(len(ends))]

    def _finish_part(
        self, ends: Sequence[End], policy: Policy, now: datetime, items: Items | None = None
    ) -> list[bool]:
        try:
            return self.tables.transactions.run(
                lambda unit: self._finish(unit, ends), now, policy=policy, items=items
            )
        except _TooMany:
            half = (len(ends) + 1) // 2
            return self._finish_part(ends[:half], policy, now) + self._finish_part(ends[half:], policy, now)

    def _finish(self, unit: UnitOfWork, ends: Sequence[End]) -> list[bool]:
        """End those attempts that still hold their slots; of two ends of one attempt the first counts."""
        # Read again inside the transaction: a caller's copy may be of an attempt that is over.
        current = {
            item["request_id"]: request_from(item)
            for item in unit.read(*(request_key(end.request.request_id) for end in ends))
            if item
        }
        ending: dict[str, End] = {}
        for end in ends:
            request = current.get(end.request.request_id)
            if request is not None and _is_of_attempt(end.request, request, by_start=end.by_start):
                ending.setdefault(request.request_id, end)
        if ending:
            for request_id, end in ending.items():
                unit.write(self._end_request(end, current[request_id], unit.now))
            executions = {name: end.execution for name, end in ending.items() if end.execution is not None}
            trainings = (_last_training(end, current[name], unit.now) for name, end in ending.items())
            # Of several ends of one data set, one with a model says more than one without.
            last = dict(sorted(filter(None, trainings), key=lambda each: isinstance(each[1], Trained)))
            tuned = _tunings(ending, current, unit.now)
            self._release(unit, [current[request_id] for request_id in ending], executions, last, tuned)
            # A single end always fits.
            if len(ends) > 1 and not fits_one_transaction(unit.writes):
                raise _TooMany
        return [ending.get(end.request.request_id) is end for end in ends]

    def _end_request(self, end: End, request: Request, now: datetime) -> Write:
        attributes = outcome_values(end.outcome)
        attributes |= {"reason": end.reason} if end.reason else {}
        arn = end.request.execution_arn or request.execution_arn
        attributes |= {"execution_arn": arn} if arn else {}
        return self.tables.requests.move(
            request.request_id,
            request.state,
            end.state,
            now,
            tier=request.tier,
            cause=end.reason or "",
            set=attributes,
            when=(Is("attempt", request.attempt), *held_since(request)),
        )

    def _release(
        self,
        unit: UnitOfWork,
        requests: Sequence[Request],
        executions: Mapping[str, ExecutionRecord],
        last: Mapping[Key, Trained | Failed],
        tuned: Mapping[Key, Sequence[Tuned]],
    ) -> None:
        """Release what requests hold, and book their executions (request id → execution)."""
        # Once for each queue: DynamoDB refuses a transaction with two writes of one item.
        owners = list(dict.fromkeys((request.tier, request.tenant_id) for request in requests))
        unit.read(*(queue_key(*owner) for owner in owners), *booking_keys(executions.values()))
        spent = {request.request_id: spent_usd(executions.get(request.request_id)) for request in requests}
        something_waits = False
        queues: list[Write] = []
        for owner in owners:
            before = after = queue_in(unit.items[queue_key(*owner)], *owner)
            for request in requests:
                if (request.tier, request.tenant_id) == owner:
                    after = _released(after, request, spent[request.request_id], unit)
            after, warnings = with_warning(before, after, unit)
            queues += [*refile(before, after, unit.now), *warnings]
            something_waits = something_waits or bool(after.profiles)
        ended = [(request, spent[request.request_id]) for request in requests]
        unit.write(give_units_back(ended, unit.policy, unit.now, something_waits=something_waits))
        unit.write(*queues, *self._bookings(unit, list(executions.values()), last, tuned))

    def _bookings(
        self,
        unit: UnitOfWork,
        executions: Sequence[ExecutionRecord],
        last: Mapping[Key, Trained | Failed] | None = None,
        tuned: Mapping[Key, Sequence[Tuned]] | None = None,
    ) -> list[Write]:
        return bookings(executions, unit.items, unit.now, self.tables.requests.expiry(unit.now), last, tuned)

    # --- back to the queue ----------------------------------------------------------------------------------

    def requeue(
        self,
        request: Request,
        policy: Policy,
        now: datetime,
        *,
        due_at: datetime,
        reason: str,
        data_bytes: int | None = None,
        execution: ExecutionRecord | None = None,
        by_start: bool = False,
        failed: bool = False,
    ) -> list[Request]:
        """Put a request that holds a slot back, release the slot and book its execution, if there was one; nothing
        when the attempt is over. One that somebody has asked to stop is STOPPED instead.

        With `by_start`, nothing either when it runs, or another has taken the start over since it was read.
        `failed` counts as a failure. `data_bytes` is its size where that was not known before.

        If another upload took its data set's place meanwhile, the newer of the two keeps it, and the other is
        SUPERSEDED. Returns the requests that changed, as they are now.
        """

        def waiting_again(current: Request) -> Request:
            queued = moved(current, State.QUEUED, now, reason)
            queued = replace(
                queued, due_at=due_at, reason=reason, failures=current.failures + failed, collects=False
            )
            tier = policy.tier(current.tier)
            if queued.trains_on_demand:
                queued = replace(queued, profile=str(ResourceProfile.parse(queued.profile).on_demand()))
            if data_bytes is None or tier is None:
                return queued
            profile = policy.profile_for(
                tier,
                current.algorithm,
                data_bytes,
                on_demand=queued.trains_on_demand,
                kind=current.kind,
                trials=current.trials,
            )
            return replace(queued, data_bytes=data_bytes, profile=str(profile))

        return self.tables.transactions.run(
            lambda unit: self._requeue(unit, request, execution, waiting_again, by_start), now, policy=policy
        )

    def _requeue(
        self,
        unit: UnitOfWork,
        request: Request,
        execution: ExecutionRecord | None,
        waiting_again: Callable[[Request], Request],
        by_start: bool,
    ) -> list[Request]:
        # 1. Only the attempt that was read is put back, and only if nobody wants it stopped.
        current = self.tables.requests.get(request.request_id)
        if current is None or not _is_of_attempt(request, current, by_start=by_start):
            return []
        if current.stop_asked_at is not None:
            return self._stop(unit, current, execution)
        # 2. Read its queue, its place there, and what an execution is booked on.
        executions = [] if execution is None else [execution]
        slot, past, *_ = end_keys(current)
        entry, queue, *_ = unit.read(entry_key(current), slot, past, *booking_keys(executions))
        past_runs = past_from(unit.items[past])
        queued = with_estimate(waiting_again(current), past_runs, unit.policy)
        before = queue_in(queue, current.tier, current.tenant_id)
        # 3. Give back its slot and its money; the request waits again itself, so this wakes a pass.
        spent = spent_usd(execution)
        after, warnings = with_warning(before, _released(before, current, spent, unit), unit)
        unit.write(give_units_back([(current, spent)], unit.policy, unit.now, something_waits=True))
        # 4. Its place is free, or the newer of two uploads gets it.
        still = (
            Is("state", current.state.value),
            Is("attempt", current.attempt),
            *held_since(current),
            Absent("stop_asked_at"),
        )
        put = self.tables.requests.put
        waiting = Enlister(tables=self.tables).waiting_in(entry, current.request_id)
        if waiting is None:
            unit.write(put(queued, *still), put_entry(queued, replaces=None))
            unit.write(*refile(before, joined(after, entry_of(queued)), unit.now))
            changed = [queued]
        else:
            winner, loser = _merged(queued, waiting, unit)
            winner = with_estimate(winner, past_runs, unit.policy)
            ours, theirs = (winner, loser) if winner.request_id == current.request_id else (loser, winner)
            after = joined(self.tables.queues.without(after, entry_of(waiting)), entry_of(winner))
            unit.write(put(ours, *still), put(theirs, *still_waits(waiting)))
            unit.write(put_entry(winner, replaces=waiting.request_id), *refile(before, after, unit.now))
            changed = [winner, loser] if ours is winner else [ours]
        unit.write(*warnings, *self._bookings(unit, executions))
        return changed

    def _stop(self, unit: UnitOfWork, request: Request, execution: ExecutionRecord | None) -> list[Request]:
        """End an attempt that somebody has asked to stop, and that would otherwise be tried again."""
        ran = replace(execution, state=State.STOPPED) if execution else None
        end = End(request=request, state=State.STOPPED, reason=STOP_ASKED, execution=ran)
        if self._finish(unit, [end]) != [True]:
            return []
        return [replace(request, state=State.STOPPED, reason=STOP_ASKED, finished_at=unit.now)]

    # --- taken back, and corrected --------------------------------------------------------------------------

    def cancel(self, request: Request, now: datetime, *, reason: str | None = None) -> bool:
        """Cancel a QUEUED request; False when it is no longer waiting."""
        return self.tables.transactions.run(lambda unit: self._cancel(unit, request, reason), now)

    def _cancel(self, unit: UnitOfWork, request: Request, reason: str | None) -> bool:
        entry, queue_read = unit.read(entry_key(request), queue_key(request.tier, request.tenant_id))
        if entry is None or entry["request_id"] != request.request_id:
            return False
        queue, waiting = queue_in(queue_read, request.tier, request.tenant_id), entry_from(entry)
        unit.write(
            self.tables.requests.move(
                request.request_id,
                State.QUEUED,
                State.CANCELLED,
                unit.now,
                tier=request.tier,
                cause=reason or "",
                set={"reason": reason} if reason else {},
            ),
            delete_entry(queue, waiting),
            *refile(queue, self.tables.queues.without(queue, waiting), unit.now),
        )
        return True

    def correct(self, before: ExecutionRecord, after: ExecutionRecord, policy: Policy, now: datetime) -> None:
        """Correct the record of an execution, and every total in which it was booked.

        Its tenant may have moved since. Raises Conflict when it has been corrected meanwhile.
        """
        self.tables.transactions.once(lambda unit: self._correct(unit, before, after), now, policy=policy)

    def _correct(self, unit: UnitOfWork, before: ExecutionRecord, after: ExecutionRecord) -> None:
        tiers = dict.fromkeys([before.tier, *(tier.name for tier in unit.policy.tiers)])
        queues = [queue_key(tier, before.tenant_id) for tier in tiers]
        unit.read(*queues, *booking_keys([after]))
        ended_at = max(before.recorded_at, before.ended_at)
        unit.write(*correction(before, after, unit.items, unit.now, self.tables.requests.expiry(ended_at)))
        request = self.tables.requests.get(before.request_id)
        if request is not None and request.attempt == after.attempt and request.state in TERMINAL:
            outcome = Outcome(cost_usd=str(after.cost_usd), cost_unknown=after.unknown)
            same = (Is("attempt", after.attempt), Is("state", request.state.value))
            unit.write(self.tables.requests.set_outcome(request.request_id, outcome, *same))
        change = after.charged_usd - before.charged_usd
        # A tenant that has moved has a queue in each tier; the one of that month has its spending.
        if change:
            unit.write(book_correction(before.month, before.tier, change, unit.policy))
            of_tenant = [queue_from(item) for key in queues if (item := unit.items[key]) is not None]
            queue = next((queue for queue in of_tenant if queue.month == before.month), None)
            if queue is not None:
                spent = replace(queue, spent_usd=queue.spent_usd + change)
                changed, warnings = with_warning(queue, spent, unit)
                unit.write(*refile(queue, changed, unit.now), *warnings)


def _merged(queued: Request, waiting: Request, unit: UnitOfWork) -> tuple[Request, Request]:
    """Return winner and loser of a request that goes back to its queue and the one that waits in its place.

    Neither the back-off of the one nor the quiet period of the other may be cut short; but what was enough to
    start does not wait until there is enough again.
    """
    winner, loser = supersede(queued, waiting, unit.policy, unit.now)
    due_at = queued.due_at if waiting.collects else max(queued.due_at, waiting.due_at)
    return replace(winner, due_at=due_at, collects=False), loser


def _last_training(end: End, request: Request, now: datetime) -> tuple[Key, Trained | Failed] | None:
    """Return the history in which the end of a training is kept, and how it ended; None where it says nothing."""
    if request.kind is not RequestKind.TRAINING or end.state not in (State.SUCCEEDED, State.FAILED):
        return None
    key = past_key(request.tenant_id, request.data_set)
    if end.state is State.FAILED:
        is_of_aws = end.passes or cause_of(end.reason or "").passes
        return key, Failed(request_id=request.request_id, at=now, is_of_aws=is_of_aws)
    return key, Trained(
        request_id=request.request_id,
        at=now,
        basis=request.basis,
    )


def _tunings(ending: Mapping[str, End], current: Mapping[str, Request], now: datetime) -> dict[Key, list[Tuned]]:
    """Return the histories to which tunings add what they have found.

    Trainings begin with it if it is clearly better than what they began with; else it is kept, and not used.
    """
    tunings: dict[Key, list[Tuned]] = {}
    for name, end in sorted(ending.items(), key=lambda each: (current[each[0]].arrived_at, each[0])):
        request, outcome = current[name], end.outcome
        if end.state is not State.SUCCEEDED or not request.trials or outcome.tuned is None:
            continue
        metric = outcome.tuned_metric or ""
        tuned = Tuned(
            request_id=request.request_id,
            at=now,
            algorithm=family_of(request.algorithm),
            values=tuple(json.loads(outcome.tuned).items()),
            score=outcome.tuned_score,
            metric=metric,
            trials=request.trials,
            score_before=outcome.tuned_before,
            # Found beside other hyperparameters than those of the settings, they may be wrong beside these.
            is_used=request.has_algorithm_of_settings
            and is_clearly_better(
                metric,
                score=outcome.tuned_score,
                before=outcome.tuned_before,
                error=outcome.tuned_error,
                gain=outcome.gain,
            ),
        )
        tunings.setdefault(past_key(request.tenant_id, request.data_set), []).append(tuned)
    return tunings


def spent_usd(execution: ExecutionRecord | None) -> Decimal:
    """Return what an attempt is charged to its budgets: nothing if nothing was started."""
    return Decimal(0) if execution is None else execution.charged_usd


def _packed(order: Sequence[int], ends: Sequence[End]) -> Iterator[list[int]]:
    """Yield positions of ends that are expected to fit one transaction each."""
    part: list[int] = []
    actions = 1  # the ledger
    for number in order:
        tenant_id = ends[number].request.tenant_id
        first = not part or ends[part[-1]].request.tenant_id != tenant_id
        needed = ACTIONS_PER_END + (ACTIONS_PER_TENANT if first else 0)
        if part and (actions + needed > ACTIONS_MAX or len(part) == ENDS_MAX):
            yield part
            part, actions, needed = [], 1, ACTIONS_PER_END + ACTIONS_PER_TENANT
        part.append(number)
        actions += needed
    if part:
        yield part


def _is_of_attempt(read: Request, current: Request, *, by_start: bool) -> bool:
    """Tell whether the attempt that was read is the one that holds the slot now.

    For the outcome of a start (`by_start`), it must not run yet, and its start must not have been taken over.
    """
    if current.state not in HOLDING or current.attempt != read.attempt:
        return False
    return not by_start or (current.state is State.ADMITTED and current.claimed_at == read.claimed_at)


def _released(queue: TenantQueue, request: Request, cost: Decimal, unit: UnitOfWork) -> TenantQueue:
    if request.request_id not in queue.holders:
        raise Conflict("another end of the request was recorded between the reads")
    weight = unit.policy.tenant(request.tenant_id).weight
    return released(queue, request, unit.now, weight=weight, cost=cost)


def with_warning(before: TenantQueue, after: TenantQueue, unit: UnitOfWork) -> tuple[TenantQueue, list[Write]]:
    """Return the queue, and an outbox entry if its spending has reached a threshold that was not published yet.

    Only for callers that book spending: others may not write the outbox. A threshold is published again when
    spending reaches it again after the budget was raised.
    """
    policy = unit.policy
    budget = policy.tenant(after.tenant_id).budget
    if budget is None or not after.month or (after.month, after.spent_usd) == (before.month, before.spent_usd):
        return after, []
    reached = level(after.spent_usd, budget, policy.thresholds)
    told_before = after.warned
    if before.month == after.month:  # the budget may have been raised since
        told_before = min(told_before, level(before.spent_usd, budget, policy.thresholds))
    if reached <= told_before:
        return after, []
    values = {"spent_usd": after.spent_usd, "budget_usd": budget.limit_usd}
    entry = budget_entry(after.tenant_id, after.tier, after.month, reached, values, unit.now)
    return replace(after, warned=reached), [entry]
