"""Enlistment: a submission joins its tenant's queue, or is merged with the waiting request of its data set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from trainyard.application.scheduling.merging import supersede, with_estimate
from trainyard.domain.deadlines import margin_of, with_latest_start
from trainyard.domain.errors import Conflict, TrainyardError
from trainyard.domain.newest import uploads_of
from trainyard.domain.policy import Policy, TierPolicy
from trainyard.domain.queues import URGENT, TenantQueue, entry_of, joined, lifted
from trainyard.domain.requests import (
    Cause,
    Collected,
    Request,
    RequestKind,
    State,
    StateChange,
    Submission,
    trials_of,
)
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.retraining import (
    NO_RULES,
    RetrainingSettings,
    Trigger,
    Waiting,
    is_enough,
    wait_after,
)
from trainyard.domain.scheduling import Ledger
from trainyard.persistence.bell import BELL, enlisted
from trainyard.persistence.items import request_from
from trainyard.persistence.ledger import LEDGER, ledger_from
from trainyard.persistence.requests import request_key, still_waits
from trainyard.persistence.run_history import last_start, past_from, past_key, ratios_from, ratios_key
from trainyard.persistence.store import (
    ACTIONS_MAX,
    TRANSACTION_BYTES_MAX,
    Absent,
    Item,
    Items,
    Key,
    bytes_of,
    fits_one_transaction,
)
from trainyard.persistence.tables import Tables
from trainyard.persistence.tenant_queues import entry_key, put_entry, queue_in, queue_key, refile
from trainyard.persistence.tenants import tenant_key
from trainyard.persistence.transactions import UnitOfWork, read_items

TRIES_TOGETHER = 2
"""Retries of a batch that conflicts with another transaction, before its commands are enlisted one by one."""

ENLISTED_BYTES = 16 * 1024
"""About what one more submission adds to a transaction: its request, its entry, and its part of its queue."""


class Enlistment(StrEnum):
    """What enlisting did."""

    QUEUED = "QUEUED"
    """It waits in its tenant queue."""
    REPLACED = "REPLACED"
    """It waits in the place of an older upload of its data set."""
    OUTDATED = "OUTDATED"
    """A newer upload of its data set waits already; it is superseded."""
    DUPLICATE = "DUPLICATE"
    """It was enlisted before; nothing changed."""
    REFUSED = "REFUSED"
    """Its tenant was deleted or moved since it was accepted; the request's record says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlisted:
    kind: Enlistment
    request: Request
    superseded: Request | None = None
    """The request whose place was taken."""
    waiting: Request | None = None
    """Of a merge: the request that waits now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnlistCommand:
    """A submission to enlist."""

    submission: Submission
    not_before: datetime
    """The earliest time at which it may start."""
    rules: RetrainingSettings = NO_RULES
    """Of its data set."""

    @property
    def queue_key(self) -> Key:
        return queue_key(self.submission.tier, self.submission.tenant_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlister:
    """The transactions that enlist."""

    tables: Tables

    def enlist(
        self,
        submission: Submission,
        policy: Policy,
        now: datetime,
        *,
        not_before: datetime | None = None,
        rules: RetrainingSettings = NO_RULES,
    ) -> Enlisted:
        """Queue the submission, or merge it with a waiting one of its data set. Idempotent.

        It is not due before `not_before`, when its role will be usable. Raises Conflict when it must be
        delivered again.
        """
        command = EnlistCommand(submission=submission, not_before=not_before or now, rules=rules)
        return self.tables.transactions.run(lambda unit: self._enlist(unit, command), now, policy=policy)

    def rehearse(self, submission: Submission, policy: Policy, now: datetime) -> tuple[Request, TenantQueue]:
        """Return the request that would wait if a submission were enlisted now, and its queue then.

        Writes nothing. Where a newer upload of its data set waits, that is the one. Raises Conflict when the queue
        keeps changing.
        """
        command = EnlistCommand(submission=submission, not_before=now)

        def attempt() -> tuple[Request, TenantQueue]:
            unit = UnitOfWork(store=self.tables.store, now=now, for_policy=policy)
            enlisted = self._enlist(unit, command)
            unit.apply()
            queue = queue_in(unit.items[command.queue_key], submission.tier, submission.tenant_id)
            return enlisted.waiting or enlisted.request, queue

        return self.tables.transactions.retried(attempt)

    def enlist_all(
        self, commands: Sequence[EnlistCommand], items: Items, policy: Policy, now: datetime
    ) -> list[Enlisted | Exception]:
        """Enlist submissions, in as few transactions as they fit; `items` is what `read_for` read.

        All are assumed to be new, and the only ones of their data sets, until a transaction finds otherwise.
        Returns what became of each, an error where it must be delivered again.
        """
        done: dict[int, Enlisted | Exception] = {}
        for part in _packed(commands, _only_ones(commands, items, policy), items, policy):
            self._enlist_part(part, commands, done, items, policy, now)
        for number, command in enumerate(commands):
            if number not in done:
                try:
                    done[number] = self.enlist(
                        command.submission, policy, now, not_before=command.not_before, rules=command.rules
                    )
                except Exception as error:  # one failing request must not affect the others
                    done[number] = error
        return [done[number] for number in range(len(commands))]

    def read_for(self, submissions: Sequence[Submission]) -> Items:
        """Read what enlisting needs: ledger, tenants, their queues, and the past runs of the data sets."""
        keys = [LEDGER, BELL]
        for submission in submissions:
            keys += [
                tenant_key(submission.tenant_id),
                queue_key(submission.tier, submission.tenant_id),
                past_key(submission.tenant_id, submission.data_set, submission.kind),
                ratios_key(submission.tier),
            ]
        return read_items(self.tables.store, keys)

    # --- several together -----------------------------------------------------------------------------------

    def _enlist_part(
        self,
        part: Sequence[int],
        commands: Sequence[EnlistCommand],
        done: dict[int, Enlisted | Exception],
        items: Items,
        policy: Policy,
        now: datetime,
    ) -> None:
        """Enlist some of the commands in one transaction, without those that it says are not new; add to `done`
        what became of them."""
        remaining, tries = list(part), 0
        while remaining:
            some = [commands[number] for number in remaining]
            try:
                together = self.tables.transactions.once(
                    lambda unit, some=some: self._enlist_new(unit, some),  # type: ignore[misc]
                    now,
                    policy=policy,
                    items=items,
                )
                done |= dict(zip(remaining, together, strict=True))
                return
            except Conflict as conflict:
                if not conflict.failed and tries < TRIES_TOGETHER:  # another transaction is under way
                    tries += 1
                    self.tables.transactions.backoff(tries)
                    continue
                not_new = _failed_commands(conflict, len(remaining))
                if not_new is None:
                    return  # somebody else's change: each goes by itself, as it is now
                remaining = [number for at, number in enumerate(remaining) if at not in not_new]
            except TrainyardError as error:
                done |= dict.fromkeys(remaining, error)
                return
            except Exception:  # one of them is to blame: each goes by itself
                return

    def _enlist_new(self, unit: UnitOfWork, commands: Sequence[EnlistCommand]) -> list[Enlisted]:
        """Enlist new requests.

        The first writes are two for each command, in their order: `_failed_commands` relies on it.
        """
        ledger = ledger_from(unit.items[LEDGER])
        before: dict[Key, TenantQueue] = {}
        after: dict[Key, TenantQueue] = {}
        requests: list[Request] = []
        for command in commands:
            submission, key = command.submission, command.queue_key
            tier = _tier_of(submission, unit.policy)
            if key not in before:
                before[key] = queue_in(unit.items[key], submission.tier, submission.tenant_id)
                after[key] = _with_bounded_credit(before[key], ledger, tier, unit)
            request = _request_of(command, None, unit)
            after[key] = joined(after[key], entry_of(request))
            requests.append(request)
            unit.write(self.tables.requests.put(request, Absent("request_id")), put_entry(request, replaces=None))
        for key, queue in after.items():
            unit.write(*refile(before[key], queue, unit.now))
        unit.write(enlisted(requests, after.values(), unit.items[BELL], unit.now))
        if not fits_one_transaction(unit.writes):
            raise Conflict("more than a transaction takes")
        return [Enlisted(kind=Enlistment.QUEUED, request=request) for request in requests]

    # --- one by itself --------------------------------------------------------------------------------------

    def _enlist(self, unit: UnitOfWork, command: EnlistCommand) -> Enlisted:
        submission = command.submission
        tier = unit.policy.tier(submission.tier)
        if tier is None:
            raise Conflict(f"the policy has no tier {submission.tier!r} now")
        past = past_key(submission.tenant_id, submission.data_set, submission.kind)
        request_item, entry, queue_read, ledger, *_ = unit.read(
            request_key(submission.request_id),
            entry_key(submission),
            command.queue_key,
            LEDGER,
            BELL,
            past,
            ratios_key(submission.tier),
        )
        if request_item is not None:
            return self._duplicate(request_from(request_item))
        queue = queue_in(queue_read, submission.tier, submission.tenant_id)
        waiting = self.waiting_in(entry, submission.request_id)
        queue = _with_bounded_credit(queue, ledger_from(ledger), tier, unit)
        request = _request_of(command, waiting, unit)
        if waiting is not None:
            return self._merge(unit, request, waiting, queue)
        queue_after = joined(queue, entry_of(request))
        unit.write(
            self.tables.requests.put(request, Absent("request_id")),
            put_entry(request, replaces=None),
            *refile(queue, queue_after, unit.now),
            enlisted([request], [queue_after], unit.items[BELL], unit.now),
        )
        return Enlisted(kind=Enlistment.QUEUED, request=request)

    def _duplicate(self, enlisted_before: Request) -> Enlisted:
        older = self.tables.requests.get(enlisted_before.supersedes) if enlisted_before.supersedes else None
        return Enlisted(kind=Enlistment.DUPLICATE, request=enlisted_before, superseded=older)

    def waiting_in(self, entry: Item | None, comer: str) -> Request | None:
        """Return the request that waits in an entry which another (`comer`) is to take.

        Raises Conflict when it has just left it, or when the comer has it: a message that was delivered twice, or
        an end, is handled beside this.
        """
        if entry is None:
            return None
        if entry["request_id"] == comer:
            raise Conflict("the request has reached its place in the queue meanwhile")
        waiting = self.tables.requests.get(entry["request_id"])
        if waiting is None or waiting.state is not State.QUEUED:
            raise Conflict("the place changed hands while it was read")
        return waiting

    def _merge(self, unit: UnitOfWork, request: Request, waiting: Request, queue: TenantQueue) -> Enlisted:
        """Let the newer of two uploads of a data set take the place; the other is superseded."""
        past = past_from(unit.items[past_key(request.tenant_id, request.data_set, request.kind)])
        winner, loser = supersede(request, waiting, unit.policy, unit.now)
        winner = with_estimate(winner, past, unit.policy)
        winner = with_latest_start(winner, _margin(winner.tier, unit), unit.now)
        takes_over = winner.request_id == request.request_id
        put = self.tables.requests.put
        queue_after = joined(self.tables.queues.without(queue, entry_of(waiting)), entry_of(winner))
        unit.write(
            put(winner if takes_over else loser, Absent("request_id")),
            put(loser if takes_over else winner, *still_waits(waiting)),
            put_entry(winner, replaces=waiting.request_id),
            *refile(queue, queue_after, unit.now),
            enlisted([winner], [queue_after], unit.items[BELL], unit.now),
        )
        return Enlisted(
            kind=Enlistment.REPLACED if takes_over else Enlistment.OUTDATED,
            request=winner if takes_over else loser,
            superseded=loser if takes_over else None,
            waiting=winner,
        )


def _only_ones(commands: Sequence[EnlistCommand], items: Items, policy: Policy) -> list[int]:
    """Return the positions of those that can be new, and the only ones of their data sets."""
    taken: set[Key] = set()
    numbers: list[int] = []
    for number, command in enumerate(commands):
        keys = {request_key(command.submission.request_id), entry_key(command.submission)}
        read = command.queue_key in items  # its tenant may be in another tier by now
        if read and not taken & keys and policy.tier(command.submission.tier) is not None:
            numbers.append(number)
        taken |= keys
    return numbers


def _failed_commands(conflict: Conflict, count: int) -> set[int] | None:
    """Return which of `count` commands were not new, by their positions; None where something else was in the
    way."""
    if not conflict.failed or any(number >= 2 * count for number in conflict.failed):
        return None
    return {number // 2 for number in conflict.failed}


def _packed(
    commands: Sequence[EnlistCommand], numbers: Sequence[int], items: Items, policy: Policy
) -> Iterator[list[int]]:
    """Yield positions of commands that fit one transaction each; a tenant's together where they do."""
    part: list[int] = []
    profiles: dict[Key, set[str]] = {}
    counted: dict[Key, int] = {}
    """Queue → the items of it that the part writes."""
    actions, size = 1, 0  # the bell
    base = {key: bytes_of(item) for key, item in items.items() if item and "profiles" in item}
    # By queue, because the requests of one tenant share the writes of its queue.
    for number in sorted(numbers, key=lambda number: commands[number].queue_key.values):
        submission, key = commands[number].submission, commands[number].queue_key
        of_queue = profiles.setdefault(key, set((items[key] or {}).get("profiles", ())))
        profile = str(_profile(submission, policy))
        of_queue.add(f"{profile}{URGENT}" if submission.deadline or submission.priority else profile)
        more = len(of_queue) - counted.get(key, 0)
        needed, taken = 2 + more, ENLISTED_BYTES + more * base.get(key, 0)
        if part and (actions + needed > ACTIONS_MAX or size + taken > TRANSACTION_BYTES_MAX):
            yield part
            part, actions, size, counted = [], 1, 0, {}
            needed, taken = 2 + len(of_queue), ENLISTED_BYTES + len(of_queue) * base.get(key, 0)
        part.append(number)
        actions += needed
        size += taken
        counted[key] = len(of_queue)
    if part:
        yield part


def _tier_of(submission: Submission, policy: Policy) -> TierPolicy:
    tier = policy.tier(submission.tier)
    assert tier is not None, "a submission of an unknown tier is not enlisted"
    return tier


def _with_bounded_credit(queue: TenantQueue, ledger: Ledger, tier: TierPolicy, unit: UnitOfWork) -> TenantQueue:
    """Return a queue that gets a request, with no more credit than one longest run of its tier."""
    virtual_time = ledger.virtual_time_by_tier.get(tier.name, 0)
    weight = unit.policy.tenant(queue.tenant_id).weight
    return lifted(queue, virtual_time, tier.credit, unit.now, weight)


def _request_of(command: EnlistCommand, waiting: Request | None, unit: UnitOfWork) -> Request:
    """Return the request for a submission that joins its queue; `waiting` is one of its data set, if any."""
    submission, policy, now = command.submission, unit.policy, unit.now
    size, transforms = submission.content.size_bytes, submission.kind is RequestKind.TRANSFORM
    of_its_own = Collected(1, size, submission.rows) if submission.cause is Cause.UPLOAD else Collected()
    collected = submission.collected or of_its_own
    past = unit.items[past_key(submission.tenant_id, submission.data_set, submission.kind)]
    wait = _wait_of(command, collected, waiting, past, unit)
    request = Request(
        request_id=submission.request_id,
        tenant_id=submission.tenant_id,
        tier=submission.tier,
        data_set=submission.data_set,
        content=submission.content,
        cause=submission.cause,
        kind=submission.kind,
        state=State.QUEUED,
        arrived_at=wait.arrived_at,
        # A transform is asked for when its rows are there: it does not wait for further uploads.
        due_at=command.not_before if transforms else max(wait.due_at, command.not_before),
        alone=submission.alone,
        overrides=submission.overrides,
        uploads=uploads_of(submission.content),
        triggers=submission.triggers,
        is_forced=submission.is_forced,
        accepts_drift=submission.accepts_drift,
        collected=collected,
        collects=wait.collects,
        keeps_interval=command.rules.interval_minutes > 0 and not submission.alone,
        data_bytes=size,
        algorithm=submission.algorithm,
        profile=str(_profile(submission, policy)),
        history=(StateChange(now, State.QUEUED, submission.cause.value),),
        priority=submission.priority,
        deadline=submission.deadline,
    )
    return with_latest_start(with_estimate(request, past_from(past), policy), _margin(request.tier, unit), now)


def _wait_of(
    command: EnlistCommand, collected: Collected, waiting: Request | None, past: Item | None, unit: UnitOfWork
) -> Waiting:
    """Return how a request waits that joins its queue, with what it has `collected` itself."""
    submission, rules = command.submission, command.rules
    by_person = Trigger.PERSON in (*submission.triggers, *(waiting.triggers if waiting else ()))
    if submission.alone:
        rules = NO_RULES
    elif by_person:  # who asks does not want to be told to wait
        rules = replace(rules, interval_minutes=0, between="")
    still_collects = waiting is not None and waiting.collects
    together = collected + waiting.collected if waiting else collected
    # What was enough stays enough: what comes later is of the next batch.
    enough = (waiting is not None and not still_collects) or is_enough(together, rules) or submission.is_complete
    before = None
    if waiting is not None:
        # What waits for its rules alone, and not for a back-off, may be due earlier.
        shortens = still_collects or (by_person and waiting.attempt == 0)
        before = Waiting(arrived_at=waiting.arrived_at, due_at=waiting.due_at, collects=shortens)
    return wait_after(
        unit.now,
        quiet_period=unit.policy.quiet_period,
        delay_max=unit.policy.delay_max,
        waiting=before,
        settings=rules,
        enough=submission.cause is not Cause.UPLOAD or enough,
        # A start that came to nothing is no training.
        last_start=None if waiting is not None and waiting.attempt else last_start(past),
    )


def _profile(submission: Submission, policy: Policy) -> ResourceProfile:
    """Return what a run needs; one with a deadline does not wait for spot capacity."""
    return policy.profile_for(
        _tier_of(submission, policy),
        submission.algorithm,
        submission.content.size_bytes,
        on_demand=submission.deadline is not None,
        kind=submission.kind,
        trials=trials_of(submission.overrides),
    )


def _margin(tier: str, unit: UnitOfWork) -> float:
    """Return how many times the expected runtime runs of a tier take at most, which a deadline must allow for."""
    return margin_of(ratios_from(unit.items[ratios_key(tier)]))
