"""The waiting room: tenant queues, ledger and requests' states, changed in one transaction each.

    pk                       sk                        what
    ledger                   ledger                    taken slots by tier and instance pool; version; pauses
    ledger                   bell                      how often it was rung, and for what
    foreign                  foreign                   executions that are not ours
    tier#<tier>              tenant#<tenant>           a tenant queue, filed under the first of its lanes
    tier#<tier>              tenant#<tenant>#<lane>    a copy of it for each further lane
    entries#<tier>#<tenant>   data_set#<name>           a waiting request's place (…#<request> when trained alone)
    passes#<hour>            <time>#<version>          what a pass saw and decided, for a while

The index "ready" files each lane of a tenant queue under one key, so that a pass finds the first queues of a
lane whatever else waits:

    ready|<lane>|<tag>|<arrival>|<tenant>    its first request is due
    postponed|<due>|<lane>|<tenant>              it is not due yet
    parked|<policy version>|<prices>|<month>|<turn>|<tenant>     no request can go until something changes
    needs-budget|<policy version>|<prices>|<month>|<needs>|<tenant>    … or its tier's budget has so much left
    paused|<tenant>                            the tenant is paused

The index "holding" lists the queues whose tenants hold slots, with the requests that do. Like the table itself it
is read consistently: who holds a slot never follows from an index that lags.

Every change of a tenant queue is read, changed purely (domain/queues.py) and written on condition that its
revision has not moved.

The stream of this table wakes the dispatcher for two items alone: the bell, which is rung when something was
enlisted, and the ledger when an end has changed it while something waits. The last pass that left nothing waiting
notes in the ledger how often the bell had been rung (`heard`). So a ring that says what was enlisted needs no look
at the queues in a pass that knows of all rings since; and an end wakes nobody when nobody waits.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar

from trainyard.application.book import (
    Book,
    booking_keys,
    bookings,
    budget_entry,
    correction,
    pace_key,
    past_from,
    past_key,
)
from trainyard.application.ports import Backlog, End, Enlisted, Enlistment
from trainyard.application.records import (
    change_text,
    content_item,
    entry_from,
    entry_item,
    outcome_values,
    owner,
    queue_from,
    queue_item,
    request_from,
    request_item,
    stamp,
    unstamp,
)
from trainyard.application.store import (
    ACTIONS_MAX,
    READ_AT_ONCE,
    TRANSACTION_BYTES_MAX,
    Absent,
    AtLeast,
    AtMost,
    Condition,
    Delete,
    Is,
    IsOr,
    Item,
    Key,
    OneOf,
    Put,
    Store,
    Update,
    Write,
    applied,
    bytes_of,
    fits_one_transaction,
    listed,
)
from trainyard.application.tenant_records import tenant_from, tenant_key
from trainyard.domain.admission import (
    Decision,
    Holder,
    Ledger,
    Parked,
    Plan,
    Snapshot,
    WaitingQueue,
)
from trainyard.domain.budgets import level
from trainyard.domain.errors import Conflict, TrainyardError
from trainyard.domain.estimates import PastRun, estimate
from trainyard.domain.executions import ExecutionRecord, month_of
from trainyard.domain.newest import Wait, merged, newest, uploads_of, wait_after
from trainyard.domain.policy import Policy, ResourceProfile, TierPolicy, run_time
from trainyard.domain.queues import (
    HEAD_ENTRIES_MAX,
    QueueEntry,
    TenantQueue,
    entry_of,
    holding,
    in_month,
    joined,
    left,
    lifted,
    rebuilt,
    released,
    staying,
    trimmed,
)
from trainyard.domain.requests import (
    HOLDING,
    TERMINAL,
    Outcome,
    Request,
    State,
    StateChange,
    Submission,
    with_change,
)
from trainyard.domain.tenants import Tenant

TRIES_MAX = 8
"""Of a transaction whose reads were overtaken by another writer."""

PAGE_MIN = 50
"""Tenant queues read of a tier, or of a lane, at least."""

RECOUNTS_TRIED = 5
"""Of a recount while slots are taken and given back: what was counted holds only if nothing moved meanwhile."""

LISTED_AT_ONCE = 100
"""Keys of an index; BatchGetItem takes 100."""

UNPARKED_MAX = 200
"""Queues of a tier that are brought back in one pass, for each reason."""

DECISIONS_KEPT = timedelta(days=14)

ENDS_MAX = 24
"""Of one transaction: each touches its request, its execution, its month and its past; a tenant's queue and pace
come once for all of its ends, the ledger once. Fewer where that is more than a transaction takes."""

TRIES_TOGETHER = 2
"""Further tries of a batch that another transaction was in the way of, before each goes by itself."""

ENLISTED_BYTES = 16 * 1024
"""What one more submission adds to a transaction, about: its request, its place, and its part of its queue."""

RECOUNTED_MAX = 5
"""Queues that one recount puts right; the next one goes on."""

HINTS_MAX = 20
"""Requests that a ring of the bell names."""

T = TypeVar("T")

LEDGER = Key("scheduler", (("pk", "ledger"), ("sk", "ledger")))
BELL = Key("scheduler", (("pk", "ledger"), ("sk", "bell")))
"""Beside the ledger, so that one shard of the stream shows both, and passes come one after the other."""
UNMANAGED = Key("scheduler", (("pk", "unmanaged"), ("sk", "unmanaged")))
UNMANAGED_MAX = 1000
"""Executions that are not ours, of which the ARNs are kept: what one item holds."""
_USED, _VIRTUAL_TIME, _SERVED, _WEIGHT = "used/", "virtual_time/", "served/", "weight/"
_SPENT, _RESERVED = "spent/", "reserved/"

STOP_ASKED = "it was asked to stop"

SOMEBODY, NOBODY = "somebody", "nobody"
"""What the ledger says of who waits: nobody, when the last pass left nobody waiting."""
BY_PASS, BY_END = "pass", "end"
"""Who changed the ledger last; the stream wakes the dispatcher for an end while somebody waits."""

OF_AN_END, OF_ITS_TENANT = 4, 3
"""Items that an end touches, and its tenant's queue and pace, where transactions are packed."""

MONEY_KEPT = timedelta(days=70)
"""How long the ledger keeps what a month has spent: longer than any run of it can last."""


class _TooMany(Exception):
    """More than one transaction takes."""


Items = dict[Key, Item | None]
"""What was read of some keys, all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A submission that is to be enlisted, and from when on it may go."""

    submission: Submission
    not_before: datetime


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose an execution is, as its description says; only where to look, as the request alone is believed."""

    tier: str
    tenant_id: str
    data_set: str

    @property
    def text(self) -> str:
        return f"{self.tier} {self.tenant_id} {self.data_set}"

    @classmethod
    def parse(cls, text: str) -> "Subject | None":
        parts = text.split(" ")
        return cls(*parts) if len(parts) == 3 else None


@dataclass(frozen=True, slots=True)
class Hint:
    """What a ring of the bell says was enlisted."""

    tier: str
    tenant_id: str
    request_id: str


@dataclass(frozen=True, slots=True)
class BellRing:
    """A ring of the bell, as the table's stream shows it."""

    number: int
    hints: tuple[Hint, ...] | None
    """All that was enlisted; None where anything may have changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSet:
    """What a pass has read, and what it needs beside the snapshot to commit and to start."""

    snapshot: Snapshot
    ledger: Item
    rings: int | None
    """How often the bell had been rung before all that waits was read; None where not all was."""
    requests: Mapping[str, Item]
    """Those that were read along, by id."""
    tenants: Mapping[str, Tenant]
    told: bool = False
    """Whether rings named all that waits, and no more was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a commit has admitted."""

    admissions: tuple[Decision, ...]
    requests: Mapping[str, Request]
    """Those of them that were read before, as they are now."""
    read_set: ReadSet | None
    """What a pass would read now, nobody else's changes aside; None where it must be read."""
    full: bool
    """Whether all slots of the account, or of all tiers, are taken now, as far as it knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRoom:
    store: Store
    retention: timedelta
    """How long a request is kept after its end."""
    rest: Callable[[int], None]
    """Waits before the given further try of a contended write."""

    # --- enlist -------------------------------------------------------------------------------------------

    def enlist(
        self, submission: Submission, policy: Policy, now: datetime, *, not_before: datetime | None = None
    ) -> Enlisted:
        """Queue the submission, or merge it with a waiting one of its data set. Idempotent.

        It is due `not_before` a time at which what it needs will be there. Raises Conflict when it must be
        delivered again.
        """
        return self._retried(lambda: self._enlist_once(submission, policy, now, not_before or now))

    def enlist_all(
        self, wishes: Sequence[Wish], found: Items, policy: Policy, now: datetime
    ) -> tuple[list[Enlisted | TrainyardError], bool]:
        """Enlist submissions, in as few transactions as they fit; `found` is what `seen_for` read.

        They are taken for new, and the only ones of their data sets, until a transaction says that they are not.
        Returns what became of each, an error where it must be delivered again, and whether the bell was rung.
        """
        done: dict[int, Enlisted | TrainyardError] = {}
        parts = list(_packed(wishes, self._plain(wishes, found, policy), found, policy))
        rung = False
        for part in parts:
            last = part is parts[-1] and sum(map(len, parts)) == len(wishes)
            left, tries = part, 0
            while left:
                try:
                    some = [wishes[number] for number in left]
                    before = [one.request for one in done.values() if isinstance(one, Enlisted)]
                    ring = before if last and len(left) == len(part) else None
                    together, rung = self._enlist_together(some, found, policy, now, ring=ring)
                    done |= dict(zip(left, together, strict=True))
                    break
                except Conflict as conflict:
                    if not conflict.failed and tries < TRIES_TOGETHER:  # another transaction is under way
                        tries += 1
                        self.rest(tries)
                        continue
                    known = {number // 2 for number in conflict.failed if number < 2 * len(left)}
                    if not known or any(number >= 2 * len(left) for number in conflict.failed):
                        break  # somebody else's change: each by itself, as it is now
                    left = [number for entry, number in enumerate(left) if entry not in known]
                except TrainyardError as error:
                    done |= dict.fromkeys(left, error)
                    break
        for number, wish in enumerate(wishes):
            if number not in done:
                try:
                    done[number] = self.enlist(wish.submission, policy, now, not_before=wish.not_before)
                    rung = False  # a ring before it does not name it
                except TrainyardError as error:
                    done[number] = error
        return [done[number] for number in range(len(wishes))], rung

    def seen_for(self, submissions: Sequence[Submission]) -> Items:
        """Read what enlisting needs to know: ledger, tenants, and what stands where they will."""
        keys: dict[Key, None] = {LEDGER: None}
        for one in submissions:
            _, _, queue, past = _enlist_keys(one)
            keys |= dict.fromkeys((tenant_key(one.tenant_id), queue, past))
        return self.read(keys)

    def read(self, keys: Iterable[Key]) -> Items:
        """Read some items, at most a hundred at once."""
        wanted = list(keys)
        found: Items = {}
        for begin in range(0, len(wanted), READ_AT_ONCE):
            part = wanted[begin : begin + READ_AT_ONCE]
            found |= dict(zip(part, self.store.get(*part), strict=True))
        return found

    def _plain(self, wishes: Sequence[Wish], found: Items, policy: Policy) -> list[int]:
        """Return the positions of those that can be new, and the only ones of their data sets."""
        taken: set[Key] = set()
        plain: list[int] = []
        for number, wish in enumerate(wishes):
            keys = _enlist_keys(wish.submission)
            request, entry, queue, _ = keys
            known = queue in found  # its tenant may be in another tier by now
            if known and not taken & {request, entry} and policy.tier(wish.submission.tier) is not None:
                plain.append(number)
            taken |= {request, entry}
        return plain

    def _enlist_together(
        self,
        wishes: Sequence[Wish],
        found: Items,
        policy: Policy,
        now: datetime,
        *,
        ring: Sequence[Request] | None,
    ) -> tuple[list[Enlisted], bool]:
        """Enlist new requests in one transaction. With `ring`, which may be empty, the bell is rung in it if any
        of them is due, or of those that were enlisted before it.
        """
        ledger = ledger_from(found[LEDGER])
        before: dict[Key, TenantQueue] = {}
        after: dict[Key, TenantQueue] = {}
        writes: list[Write] = []
        requests: list[Request] = []
        for wish in wishes:
            one = wish.submission
            key, tier = queue_key(one.tier, one.tenant_id), policy.tier(one.tier)
            assert tier is not None, "the policy has the tier of what is plain"
            if key not in before:
                before[key] = _queue(found[key], one.tier, one.tenant_id)
                floor = ledger.virtual_time_by_tier.get(one.tier, 0)
                at_rest = before[key].at_rest
                after[key] = lifted(before[key], floor, tier.credit) if at_rest else before[key]
            request = self._request_of(one, None, found, policy, now, wish.not_before)
            after[key] = joined(after[key], entry_of(request))
            requests.append(request)
            writes.append(Put(request_key(request.request_id), self._item(request), (Absent("request_id"),)))
            writes.append(self._put_entry(request, replaces=None))
        for key, queue in after.items():
            writes += self._refile(before[key], queue, now)
        every = [*(ring or ()), *requests]
        rings = ring is not None and any(request.due_at <= now for request in every)
        if rings:
            writes.append(_ring(every))
        if not fits_one_transaction(writes):
            raise Conflict("more than a transaction takes")
        self._write(*writes)
        for key, queue in after.items():  # for the next transaction about them
            found[key] = queue_item(replace(queue, revision=before[key].revision + 1, parked_for=None))
        return [Enlisted(kind=Enlistment.QUEUED, request=request) for request in requests], rings

    def _request_of(
        self,
        submission: Submission,
        waiting: Request | None,
        found: Items,
        policy: Policy,
        now: datetime,
        not_before: datetime,
    ) -> Request:
        """Return what a submission becomes that joins its queue now, another of its data set waiting or none."""
        tier = policy.tier(submission.tier)
        assert tier is not None, "it was looked for"
        wait = wait_after(
            now,
            quiet_period=policy.quiet_period,
            delay_max=policy.delay_max,
            waiting=Wait(waiting.arrived_at, waiting.due_at) if waiting else None,
        )
        wait = wait._replace(due_at=max(wait.due_at, not_before))
        past = past_from(found[past_key(submission.tenant_id, submission.data_set)])
        return _expected(_queued(submission, wait, policy, tier, now), past, policy)

    def _enlist_once(
        self, submission: Submission, policy: Policy, now: datetime, not_before: datetime
    ) -> Enlisted:
        tier = policy.tier(submission.tier)
        if tier is None:
            raise Conflict(f"the policy has no tier {submission.tier!r} now")
        keys = _enlist_keys(submission)
        found = self.read([*keys, LEDGER])
        known, entry, item, past = (found[key] for key in keys)
        if known is not None:
            return self._duplicate(request_from(known))
        queue = _queue(item, submission.tier, submission.tenant_id)
        waiting = self._holder(entry, submission.request_id)
        if queue.at_rest:
            floor = ledger_from(found[LEDGER]).virtual_time_by_tier.get(submission.tier, 0)
            queue = lifted(queue, floor, tier.credit)
        request = self._request_of(submission, waiting, found, policy, now, not_before)
        if waiting is None:
            self._write(
                Put(request_key(request.request_id), self._item(request), (Absent("request_id"),)),
                self._put_entry(request, replaces=None),
                *self._refile(queue, joined(queue, entry_of(request)), now),
            )
            return Enlisted(kind=Enlistment.QUEUED, request=request)
        return self._merge(request, waiting, queue, past_from(past), policy, now)

    def _duplicate(self, known: Request) -> Enlisted:
        older = self._request(known.supersedes) if known.supersedes else None
        return Enlisted(kind=Enlistment.DUPLICATE, request=known, superseded=older)

    def _holder(self, entry: Item | None, comer: str) -> Request | None:
        """Return the request that holds a place which another is to come to.

        Raises Conflict when it has just left it, or when the comer has it: a message that was delivered twice, or
        an end, is handled beside this.
        """
        if entry is None:
            return None
        if entry["request_id"] == comer:
            raise Conflict("the request has come to its place meanwhile")
        holder = self._request(entry["request_id"])
        if holder is None or holder.state is not State.QUEUED:
            raise Conflict("the place changed hands while it was read")
        return holder

    def _merge(
        self,
        request: Request,
        waiting: Request,
        queue: TenantQueue,
        past: Sequence[PastRun],
        policy: Policy,
        now: datetime,
    ) -> Enlisted:
        """Let the newer of two uploads of a data set keep the place; the other is superseded by it."""
        winner, loser = settled(request, waiting, policy, now)
        winner = _expected(winner, past, policy)
        takes_over = winner.request_id == request.request_id
        self._write(
            Put(
                request_key(request.request_id),
                self._item(winner if takes_over else loser),
                (Absent("request_id"),),
            ),
            Put(
                request_key(waiting.request_id),
                self._item(loser if takes_over else winner),
                (Is("state", State.QUEUED.value),),
            ),
            self._put_entry(winner, replaces=waiting.request_id),
            *self._refile(queue, joined(self._without(queue, entry_of(waiting)), entry_of(winner)), now),
        )
        return Enlisted(
            kind=Enlistment.REPLACED if takes_over else Enlistment.OUTDATED,
            request=winner if takes_over else loser,
            superseded=loser if takes_over else None,
            waiting=winner,
        )

    # --- dispatch -----------------------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        (item,) = self.store.get(LEDGER)
        return ledger_from(item)

    def look(self, policy: Policy, now: datetime, rings: Sequence[BellRing] | None = None) -> ReadSet:
        """Read what a pass must know; reads a bounded number of queues, whatever waits.

        With `rings` that tell of all that was enlisted since nothing waited, reads what they name and no more.
        The ledger is read first: an end in between only frees slots and money; what takes any moves the version.
        Raises Conflict when the policy has just changed.
        """
        hints = [hint for ring in rings or () for hint in ring.hints or ()]
        if len(hints) > 2 * HINTS_MAX:
            hints, rings = [], None
        found = self.read(dict.fromkeys((LEDGER, BELL, *(key for hint in hints for key in _hint_keys(hint)))))
        ledger = ledger_from(found[LEDGER])
        rung = int((found[BELL] or {}).get("rings", 0))
        if ledger.policy_version != policy.version:
            raise Conflict(f"policy {ledger.policy_version} is in force, not {policy.version}")
        queues: list[TenantQueue] = []
        partial: set[str] = set()
        whole = True
        told = rings is not None and _told_of_all(ledger, rung, rings)
        if told:
            queues = _hinted_queues(hints, found)
        elif ledger.paused or ledger.used >= policy.running_max:
            whole = False
        else:
            for tier in policy.tiers:
                full = ledger.used_of_tier(tier.name) >= tier.slots_max
                if tier.name not in ledger.paused_tiers and (not full or _has_large(tier, policy)):
                    first, complete = self._first_queues(tier, now)
                    queues += first
                    partial |= set() if complete else {tier.name}
                else:
                    whole = False
        waiting = self._with_entries(queues, policy, ledger, now)
        snapshot = Snapshot(
            ledger=ledger,
            queues=tuple(waiting),
            partial=frozenset(partial),
            holders=self.holders() if _needs_holders(waiting, policy, now) else (),
        )
        requests = {hint.request_id: found[request_key(hint.request_id)] for hint in hints}
        tenants = {hint.tenant_id: found[tenant_key(hint.tenant_id)] for hint in hints}
        return ReadSet(
            snapshot=snapshot,
            ledger=found[LEDGER] or {},
            rings=rung if whole and not partial else None,
            requests={name: item for name, item in requests.items() if item},
            tenants={name: tenant_from(item) for name, item in tenants.items() if item},
            told=told,
        )

    def requests_and_tenants(
        self, request_ids: Iterable[str], tenant_ids: Iterable[str]
    ) -> tuple[list[Request], dict[str, Tenant]]:
        """Return requests in the order asked for, and tenants by id; those that there are."""
        wanted, owners = list(map(request_key, request_ids)), list(map(tenant_key, tenant_ids))
        found = self.read(dict.fromkeys((*wanted, *owners))) if wanted or owners else {}
        tenants = [tenant_from(item) for key in owners if (item := found[key])]
        requests = [request_from(item) for key in wanted if (item := found[key])]
        return requests, {tenant.tenant_id: tenant for tenant in tenants}

    def _first_queues(self, tier: TierPolicy, now: datetime) -> tuple[list[TenantQueue], bool]:
        """Return the queues that a pass can concern, and whether they are all that wait in the tier.

        When few wait, one read finds all. When many do, a bounded number of each lane is read in the order of
        their tags; as many as can hold slots may come first and be unable to go, hence the limit.
        """
        limit = max(PAGE_MIN, tier.slots_max + PAGE_MIN // 2)
        partition = f"tier#{tier.name}"
        page = self.store.query("ready", partition, above="postponed|", below="ready|~", limit=limit)
        items, complete = page.items, page.complete
        if not complete:
            if not items or not items[0]["ready"].startswith("ready|"):
                self._file_the_due(partition, now)
            items, complete = self._first_of_each_profile(partition, limit)
        newest_first = sorted(map(queue_from, items), key=lambda queue: -queue.revision)
        by_tenant: dict[str, TenantQueue] = {}
        for queue in newest_first:
            by_tenant.setdefault(queue.tenant_id, queue)
        return [by_tenant[tenant_id] for tenant_id in sorted(by_tenant)], complete

    def _first_of_each_profile(self, partition: str, limit: int) -> tuple[list[Item], bool]:
        """Return the first queues that are due in each lane, at most `limit` of each, and whether they are all."""
        found: list[Item] = []
        above: str | None = "ready|"
        complete = True
        while above is not None:
            counts: dict[str, int] = {}
            items = listed(self.store, "ready", partition, above=above, below="ready|~", page=limit)
            above = None
            for item in items:
                profile = item["ready"].split("|")[1]
                counts[profile] = counts.get(profile, 0) + 1
                if counts[profile] > limit:  # the rest of the lane is passed over
                    above, complete = f"ready|{profile}|~", False
                    break
                found.append(item)
        return found, complete

    def _file_the_due(self, partition: str, now: datetime) -> None:
        """File the queues that have become due under their tags."""
        while True:
            page = self.store.query(
                "ready", partition, above="postponed|", below=f"postponed|{stamp(now)}~", limit=ACTIONS_MAX // 4
            )
            writes: list[Write] = []
            for queue in {item["tenant_id"]: queue_from(item) for item in page.items}.values():
                changes = self._refile(queue, queue, now)
                if fits_one_transaction([*writes, *changes]):
                    writes += changes
            if writes:
                self._write(*writes)
            if page.complete:
                return

    def _with_entries(
        self, queues: Iterable[TenantQueue], policy: Policy, ledger: Ledger, now: datetime
    ) -> list[WaitingQueue]:
        """Add the first places of the lanes: those the queues know where they are enough for the free slots."""
        known = list(queues)
        free = policy.running_max - ledger.used
        fronts = [
            entry for queue in known for profile in queue.profiles.values() for entry in profile.head_entries
        ]
        enough = sum(entry.due_at <= now for entry in fronts) >= free
        return [self._waiting(queue, policy, 1 if enough else free) for queue in known]

    def _waiting(self, queue: TenantQueue, policy: Policy, free: int) -> WaitingQueue:
        tier = policy.tier(queue.tier)
        admissible = min(free, policy.cap(tier, queue.tenant_id) - queue.running) if tier else 0
        return WaitingQueue(
            queue=queue,
            entries={
                name: (
                    profile.head_entries
                    if profile.whole or len(profile.head_entries) >= admissible
                    else self._entries(queue, name, limit=min(admissible, profile.waiting))
                )
                for name, profile in queue.profiles.items()
            },
        )

    def overview(self, policy: Policy, now: datetime) -> Snapshot:
        """Return more than a pass needs: tiers that are full too, and more places of each queue."""
        queues: list[WaitingQueue] = []
        partial: set[str] = set()
        for tier in policy.tiers:
            found, complete = self._first_queues(tier, now)
            queues += [self._looked_at(queue) for queue in found]
            partial |= set() if complete else {tier.name}
        return Snapshot(
            ledger=self.ledger(), queues=tuple(queues), partial=frozenset(partial), holders=self.holders()
        )

    def waiting_queue(self, tier: str, tenant_id: str) -> WaitingQueue:
        """Return one tenant queue with its first places, whether or not passes look at it."""
        return self._looked_at(self.queue(tier, tenant_id))

    def _looked_at(self, queue: TenantQueue) -> WaitingQueue:
        entries = {
            name: profile.head_entries
            if profile.whole
            else self._entries(queue, name, limit=min(PAGE_MIN, profile.waiting))
            for name, profile in queue.profiles.items()
        }
        return WaitingQueue(queue=queue, entries=entries)

    def holders(self) -> tuple[Holder, ...]:
        """Return the requests that hold a slot, as passes and explanations know them."""
        return tuple(
            Holder(
                request_id=request.request_id,
                tenant_id=request.tenant_id,
                tier=request.tier,
                profile=request.profile,
                ends_by=request.ends_by or request.arrived_at,
                admitted_at=request.admitted_at,
            )
            for request in self.held()
        )

    def held(self) -> list[Request]:
        """Return the requests that hold a slot, by tier and tenant; read consistently, so that none is lacking.

        What ends or is admitted while they are read may be among them or not.
        """
        holding = self._holding_queues(self.ledger())
        ids = [request_id for queue in holding for request_id in queue["holders"]]
        found = (request for part in _parts(ids, READ_AT_ONCE) for request in self.get_all(part))
        return [request for request in found if request.state in HOLDING]

    def held_by(self, tenant_id: str) -> list[Request]:
        """Return the requests of a tenant that hold a slot, in whatever tier; as `held` does."""
        queues = self._read_queues((tier, tenant_id) for tier in self.ledger().tiers)
        ids = [request_id for queue in queues for request_id in queue.holders]
        found = (request for part in _parts(ids, READ_AT_ONCE) for request in self.get_all(part))
        return [request for request in found if request.state in HOLDING]

    def _holding_queues(self, ledger: Ledger) -> list[Item]:
        """Return tier, tenant and holders of the queues that hold slots, of tiers that are no more too."""
        return [item for tier in ledger.tiers for item in listed(self.store, "holding", f"tier#{tier}")]

    def _read_queues(self, owners: Iterable[tuple[str, str]]) -> list[TenantQueue]:
        items = self.read(dict.fromkeys(queue_key(*owner) for owner in owners))
        return [queue_from(item) for item in items.values() if item]

    def commit(
        self, plan: Plan, read_set: ReadSet, policy: Policy, now: datetime, *, kept: bytes | None = None
    ) -> Committed:
        """Admit the plan's requests and take their slots in one transaction; those that fit it.

        Raises Conflict when anything they rest on has changed, or a limit would be exceeded. `kept` is what is
        kept of the pass.
        """
        snapshot = read_set.snapshot
        keeps = [self._kept(kept, snapshot.ledger.admission_version, now)] if kept else []
        others: list[Write] = [Update(LEDGER), *keeps]
        writes: list[Write] = []
        done: list[Decision] = []
        after: dict[tuple[str, str], TenantQueue] = {}
        for whole in _by_queue(plan.admissions):
            group = whole
            queue, changes = self._admit(group, policy, now, plan.month, read_set)
            while not writes and len(group) > 1 and not fits_one_transaction([*others, *changes]):
                group = group[: (len(group) + 1) // 2]  # more of one tenant than a transaction takes
                queue, changes = self._admit(group, policy, now, plan.month, read_set)
            if writes and not fits_one_transaction([*others, *writes, *changes]):
                break
            writes += changes
            done += group
            after[queue.tier, queue.tenant_id] = queue
        left_over = (after.get((w.queue.tier, w.queue.tenant_id), w.queue) for w in snapshot.queues)
        quiet = read_set.rings is not None and not any(queue.profiles for queue in left_over)
        drained_through = (
            {"drained_through": read_set.rings, "waiting": NOBODY} if quiet else {"waiting": SOMEBODY}
        )
        ledger = self._take_slots(done, plan, read_set, policy, now, drained_through)
        self._write(ledger, *writes, *keeps)
        changed = {
            write.key: applied(read_set.requests[write.key.values[0][1]], write)
            for write in writes
            if write.key.table == "requests" and write.key.values[0][1] in read_set.requests
        }
        return Committed(
            admissions=tuple(done),
            requests={item["request_id"]: request_from(item) for item in changed.values() if item},
            read_set=self._sight_after(read_set, ledger, after, policy, now),
            full=_full(ledger_from(applied(read_set.ledger, ledger)), policy),
        )

    def _sight_after(
        self,
        read_set: ReadSet,
        ledger: Update,
        after: Mapping[tuple[str, str], TenantQueue],
        policy: Policy,
        now: datetime,
    ) -> ReadSet | None:
        """Return what a pass would read after a commit; None where more waits than was read."""
        if read_set.snapshot.partial or read_set.snapshot.holders:
            return None
        item = applied(read_set.ledger, ledger) or {}
        known = ledger_from(item)
        kept = [
            waiting
            for waiting in read_set.snapshot.queues
            if (waiting.queue.tier, waiting.queue.tenant_id) not in after
        ]
        changed = [queue for queue in after.values() if queue.profiles]
        waiting = [*kept, *self._with_entries(changed, policy, known, now)]
        waiting.sort(key=lambda one: (one.queue.tier, one.queue.tenant_id))
        snapshot = replace(read_set.snapshot, ledger=known, queues=tuple(waiting))
        if _needs_holders(waiting, policy, now):
            return None
        return replace(read_set, snapshot=snapshot, ledger=item, requests={})

    def _admit(
        self, group: Sequence[Decision], policy: Policy, now: datetime, month: str, read_set: ReadSet
    ) -> tuple[TenantQueue, list[Write]]:
        """Return a tenant queue after some of its requests were admitted on the account of a month, and what
        admits them.
        """
        before = after = group[0].queue
        for name in {decision.entry.profile for decision in group}:
            gone = [decision.entry for decision in group if decision.entry.profile == name]
            after = self._without(after, *gone)
        for decision in group:
            after = holding(
                after,
                decision.entry.request_id,
                charge=decision.charge,
                reserved_usd=decision.reserved_usd,
                admitted_at=now,
                month=month,
            )
        tier = policy.tier(before.tier)
        assert tier is not None, "decide admits only tiers of the policy"
        writes = self._refile(before, after, now)
        for decision in group:
            read_along = read_set.requests.get(decision.entry.request_id)
            writes.append(self._admit_request(decision, tier, now, month, read_along))
            writes.append(self._delete_entry(before, decision.entry))
        return replace(after, revision=before.revision + 1, parked_for=None), writes

    def _admit_request(
        self, decision: Decision, tier: TierPolicy, now: datetime, month: str, read_along: Item | None
    ) -> Write:
        """Return what admits a request; one that was read before must still train on the same."""
        runtime_max = decision.runtime_max or tier.runtime_max
        same = tuple(Is(name, read_along[name]) for name in ("content", "attempt")) if read_along else ()
        return Update(
            request_key(decision.entry.request_id),
            set={
                "state": State.ADMITTED.value,
                "activity": State.ADMITTED.value,
                "since": stamp(now),
                "admitted_at": stamp(now),
                "ends_by": stamp(now + run_time(runtime_max)),
                "charge": decision.charge,
                "reserved_usd": decision.reserved_usd,
                "runtime_max_seconds": int(runtime_max.total_seconds()),
                "month": month,
            },
            add={"attempt": 1},
            append=_append(State.ADMITTED, now),
            remove=("reason", "execution_arn", "started_at", "claimed_at", "heard_at", "stop_asked_at"),
            when=(Is("state", State.QUEUED.value), *same),
        )

    def _take_slots(
        self,
        admissions: Sequence[Decision],
        plan: Plan,
        read_set: ReadSet,
        policy: Policy,
        now: datetime,
        drained_through: Item,
    ) -> Update:
        """Count the slots as taken, on condition that no limit is exceeded and nobody else admitted.

        Raises Conflict when they exceed a limit by themselves: a count that does not exist yet passes any bound.
        """
        ledger = read_set.snapshot.ledger
        counts = _counts((decision.queue.tier, decision.entry.profile) for decision in admissions)
        limits = _by_attribute(policy.limits)
        if any(count > limits.get(name, count) for name, count in counts.items()):
            raise Conflict("more slots than the limits allow")
        version = ledger.admission_version + 1
        sets: Item = {
            "capacity_holds": dict(plan.capacity_holds),
            "month": plan.month,
            "by": BY_PASS,
            **drained_through,
        }
        reserved: dict[str, Decimal] = {}
        for decision in admissions:
            name = f"{_RESERVED}{plan.month} {decision.queue.tier}"
            reserved[name] = reserved.get(name, Decimal(0)) + decision.reserved_usd
        sets |= {f"{_VIRTUAL_TIME}{tier}": floor for tier, floor in plan.virtual_time_by_tier.items()}
        sets |= {f"{_SERVED}{decision.queue.tier}": version for decision in admissions}
        if plan.starts_from is not None:
            sets["starts_from"] = stamp(plan.starts_from)
        return Update(
            LEDGER,
            set=sets,
            add={
                **counts,
                **{name: usd for name, usd in reserved.items() if usd},
                "admission_version": 1,
                "usage_version": 1,
            },
            remove=(
                *_forgotten(ledger, month_of(now - MONEY_KEPT)),
                *(() if "drained_through" in drained_through else ("drained_through",)),
            ),
            when=(
                *self._unmoved(ledger),
                *_undisturbed(read_set, drained_through),
                *(AtMost(name, limits[name] - count) for name, count in counts.items() if name in limits),
            ),
        )

    def _unmoved(self, ledger: Ledger) -> tuple[Condition, ...]:
        """Return the condition that nobody else has admitted, paused, or changed the policy."""
        return (
            IsOr("admission_version", ledger.admission_version)
            if ledger.admission_version == 0
            else Is("admission_version", ledger.admission_version),
        )

    def keep(self, kept: bytes, ledger: Ledger, now: datetime) -> None:
        """Keep what a pass saw and decided that admitted nobody."""
        self._write(self._kept(kept, ledger.admission_version, now))

    def _kept(self, kept: bytes, version: int, now: datetime) -> Put:
        hour, moment = stamp(now)[:13], stamp(now)
        return Put(
            Key("scheduler", (("pk", f"passes#{hour}"), ("sk", f"{moment}#{version:010d}"))),
            {"kept": kept, "expires_at": int((now + DECISIONS_KEPT).timestamp())},
        )

    def passes(self, hour: datetime, *, limit: int = 200) -> list[bytes]:
        """Return what is kept of the passes of an hour, newest first."""
        items = listed(self.store, "scheduler", f"passes#{stamp(hour)[:13]}", page=limit, newest_first=True)
        return [bytes(item["kept"]) for item in islice(items, limit)]

    def note_capacity_holds(self, plan: Plan, ledger: Ledger) -> None:
        """Note for which requests instances are saved, when a pass admits nobody. Raises Conflict."""
        changes = {"capacity_holds": dict(plan.capacity_holds), "by": BY_PASS}
        self._write(Update(LEDGER, set=changes, when=self._unmoved(ledger)))

    def note_waiting(self, read_set: ReadSet) -> None:
        """Note that something waits, or may, so that the next end wakes a pass.

        Raises Conflict when an end came in between, which woke nobody: then it is to be looked at again.
        """
        if read_set.ledger.get("waiting") != SOMEBODY:
            changes = {"waiting": SOMEBODY, "by": BY_PASS}
            no_end_since = (IsOr("usage_version", read_set.snapshot.ledger.usage_version),)
            self._write(
                Update(
                    LEDGER, set=changes, add={"backlog_version": 1}, remove=("drained_through",), when=no_end_since
                )
            )

    def park(
        self,
        parked: Iterable[Parked],
        policy: Policy,
        now: datetime,
        month: str,
        *,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> None:
        """Set queues aside that cannot go until something changes, so that no pass reads them in vain."""
        for one in parked:
            if out_of_time():
                return
            queue = replace(one.queue, parked_for=one.reason.value)
            parked_under = _parked_under(policy, month, one)
            with suppress(Conflict):  # it has changed meanwhile, and is looked at again
                self._write(*self._refile(one.queue, queue, now, parked_under=parked_under))

    def unpark(self, policy: Policy, now: datetime, *, out_of_time: Callable[[], bool] = lambda: False) -> int:
        """Bring back queues that were set aside under another policy, other prices, or in another month, and those
        for which a tier's budget has enough again; return how many.

        And some of all in turn: a deployment may have changed the policy it ships with.
        """
        ledger = self.ledger()
        month = max(ledger.month, month_of(now))
        found: dict[Key, TenantQueue] = {}
        for tier in policy.tiers:
            partition = f"tier#{tier.name}"
            page = self.store.query("ready", partition, above="needs-budget|", below="parked|~", limit=1)
            if page.complete and not page.items:
                continue
            for above, below in _unpark_ranges(tier, policy, month, ledger, now):
                items = listed(self.store, "ready", partition, above=above, below=below, page=UNPARKED_MAX)
                for item in islice(items, UNPARKED_MAX):
                    found[queue_key(tier.name, item["tenant_id"])] = queue_from(item)
        count = 0
        for queue in found.values():
            if out_of_time():
                break
            with suppress(Conflict):  # another pass, or an end, was faster
                self._write(*self._refile(queue, replace(queue, parked_for=None), now))
                count += 1
        return count

    def mark_running(self, request: Request, execution_arn: str, now: datetime) -> bool:
        """Record that the execution of this attempt runs; False when the request is past that."""
        try:
            self._write(_runs(request, execution_arn, now))
        except Conflict as conflict:
            if not conflict.failed:
                raise
            return False
        return True

    def mark_all_running(self, started: Sequence[tuple[Request, str]], now: datetime) -> set[str]:
        """Record that these attempts run, and their ARNs; return the ids of those that were not past that."""
        left = {request.request_id: (request, arn) for request, arn in started}
        while len(left) > 1:
            writes = [_runs(request, arn, now) for request, arn in left.values()]
            try:
                self._write(*writes)
                return set(left)
            except Conflict as conflict:
                past = {writes[number].key.values[0][1] for number in conflict.failed}
                if not past:  # somebody else's transaction
                    break
                left = {name: one for name, one in left.items() if name not in past}
        return {name for name, (request, arn) in left.items() if self.mark_running(request, arn, now)}

    def claim(self, request: Request, now: datetime) -> bool:
        """Take the start of an ADMITTED request over from who had it when it was read; False when another was
        faster.
        """
        try:
            self._write(
                Update(
                    request_key(request.request_id),
                    set={"claimed_at": stamp(now)},
                    when=(
                        Is("state", State.ADMITTED.value),
                        Is("attempt", request.attempt),
                        _claim_of(request),
                    ),
                )
            )
        except Conflict as conflict:
            if not conflict.failed:
                raise
            return False
        return True

    def ask_to_stop(self, request: Request, now: datetime) -> bool:
        """Note that somebody wants an attempt stopped, so that it is not tried again; False when it is over."""
        try:
            self._write(
                Update(
                    request_key(request.request_id),
                    set={"stop_asked_at": stamp(now)},
                    when=(
                        OneOf("state", tuple(state.value for state in HOLDING)),
                        Is("attempt", request.attempt),
                    ),
                )
            )
        except Conflict as conflict:
            if not conflict.failed:
                raise
            return False
        return True

    def heard_of(self, request: Request, now: datetime) -> None:
        """Note that a running request was asked about, so that the others are asked about first."""
        try:
            self._write(
                Update(
                    request_key(request.request_id),
                    set={"heard_at": stamp(now)},
                    when=(Is("state", State.RUNNING.value), Is("attempt", request.attempt)),
                )
            )
        except Conflict:
            return  # it has just ended

    # --- ends ---------------------------------------------------------------------------------------------

    def finish(self, ends: Sequence[End], policy: Policy, now: datetime, found: Items | None = None) -> list[bool]:
        """End attempts and release their slots, a transaction for some at a time; each wakes the dispatcher.

        False for each that had ended before. `found` is what was read of them already (`end_keys`).
        """
        order = sorted(range(len(ends)), key=lambda n: (ends[n].request.tier, ends[n].request.tenant_id))
        told: dict[int, bool] = {}
        for part in _packed_ends(order, ends):
            some = [ends[number] for number in part]
            told |= dict(zip(part, self._finish(some, policy, now, found), strict=True))
        return [told[number] for number in range(len(ends))]

    def _finish(
        self, ends: Sequence[End], policy: Policy, now: datetime, found: Items | None = None
    ) -> list[bool]:
        tries = [found]  # what was read before is good for one try
        try:
            return self._retried(lambda: self._finish_once(ends, policy, now, tries.pop() if tries else None))
        except _TooMany:
            half = (len(ends) + 1) // 2
            return self._finish(ends[:half], policy, now) + self._finish(ends[half:], policy, now)

    def _finish_once(self, ends: Sequence[End], policy: Policy, now: datetime, found: Items | None) -> list[bool]:
        known_items = self._known([request_key(end.request.request_id) for end in ends], found)
        current = {item["request_id"]: request_from(item) for item in known_items.values() if item}
        settling: dict[str, End] = {}
        for end in ends:
            known = current.get(end.request.request_id)
            if known is not None and known.state in HOLDING and self._of_attempt(end, known):
                settling.setdefault(known.request_id, end)
        told = [settling.get(end.request.request_id) is end for end in ends]
        if settling:
            requests = [current[request_id] for request_id in settling]
            executions = {
                request_id: end.execution for request_id, end in settling.items() if end.execution is not None
            }
            states: list[Write] = [self._end_request(end, current[id_], now) for id_, end in settling.items()]
            queues, waits = self._released_queues(requests, executions, policy, now, found)
            ledger = self._give_back(requests, executions, policy, waits=waits)
            if len(ends) > 1 and not fits_one_transaction([*states, ledger, *queues]):
                raise _TooMany
            self._settle(states, ledger, queues)
            if found is not None:  # for the next transaction about the same tenants
                found |= {one.key: one.item for one in queues if isinstance(one, Put) and one.key in found}
        return told

    def _known(self, keys: Sequence[Key], found: Items | None) -> Items:
        """Return what was read of some keys, or read it."""
        wanted = dict.fromkeys(keys)
        if found is not None and all(key in found for key in wanted):
            return {key: found[key] for key in wanted}
        return self.read(wanted)

    def _of_attempt(self, end: End, known: Request) -> bool:
        """Tell whether an end is that of the attempt that holds the slot."""
        return end.request.attempt == known.attempt and (not end.by_start or _same_start(end.request, known))

    def _settle(self, states: list[Write], ledger: Update, queues: list[Write]) -> None:
        """Change states and counters together."""
        self._write(*states, ledger, *queues)

    def _end_request(self, end: End, known: Request, now: datetime) -> Update:
        changes: Item = {
            "state": end.state.value,
            "finished_at": stamp(now),
            "expires_at": self._expiry(now),
            "activity": ended_on(end.state, known.tier, now),
            "since": stamp(now),
        } | outcome_values(end.outcome)
        changes |= {"reason": end.reason} if end.reason else {}
        arn = end.request.execution_arn or known.execution_arn
        changes |= {"execution_arn": arn} if arn else {}
        return Update(
            request_key(known.request_id),
            set=changes,
            append=_append(end.state, now, end.reason or ""),
            when=(
                Is("state", known.state.value),
                Is("attempt", known.attempt),
                _claim_of(known),
            ),
        )

    def _give_back(
        self,
        requests: Sequence[Request],
        executions: Mapping[str, ExecutionRecord],
        policy: Policy,
        *,
        waits: bool,
    ) -> Update:
        """Return what gives slots and reservations back, and books costs on the tier's account.

        Where less comes back than was spent, what others decided on the account before does not hold any more.
        With `waits`, something waits in the queues that it is about.
        """
        counts = _counts((request.tier, request.profile) for request in requests)
        money: dict[str, Decimal] = {}
        taken: dict[str, Decimal] = {}
        for request in requests:
            account = f"{request.month} {request.tier}"
            spent = spent_usd(executions.get(request.request_id))
            taken[request.tier] = taken.get(request.tier, Decimal(0)) + spent - request.reserved_usd
            for name, usd in ((f"{_RESERVED}{account}", -request.reserved_usd), (f"{_SPENT}{account}", spent)):
                money[name] = money.get(name, Decimal(0)) + usd
        return Update(
            LEDGER,
            set={"by": BY_END} | ({"waiting": SOMEBODY} if waits else {}),
            add={
                **({"backlog_version": 1} if waits else {}),
                **{name: -count for name, count in counts.items()},
                **{name: usd for name, usd in money.items() if usd},
                **_moved(policy, taken),
            },
            remove=("drained_through",) if waits else (),
            when=tuple(AtLeast(name, count) for name, count in counts.items()),
        )

    def _released_queues(
        self,
        requests: Sequence[Request],
        executions: Mapping[str, ExecutionRecord],
        policy: Policy,
        now: datetime,
        read: Items | None,
    ) -> tuple[list[Write], bool]:
        """Return what releases the queues' slots and books what ran, and whether anything waits in the queues."""
        owners = list(dict.fromkeys((request.tier, request.tenant_id) for request in requests))
        found = self._known([queue_key(*owner) for owner in owners] + booking_keys(executions.values()), read)
        writes: list[Write] = []
        waits = False
        for tier, tenant_id in owners:
            before = after = _queue(found[queue_key(tier, tenant_id)], tier, tenant_id)
            for request in requests:
                if (request.tier, request.tenant_id) == (tier, tenant_id):
                    spent = spent_usd(executions.get(request.request_id))
                    after = self._released(after, request, spent, policy, now)
            after, owed = _warned(before, after, policy, now)
            writes += [*self._refile(before, after, now), *owed]
            waits = waits or bool(after.profiles)
        return writes + bookings(list(executions.values()), found, now, self._expiry(now)), waits

    def _released(
        self, queue: TenantQueue, request: Request, cost: Decimal, policy: Policy, now: datetime
    ) -> TenantQueue:
        if request.request_id not in queue.holders:
            raise Conflict("another end of the request was settled between the reads")
        weight = policy.tenant(request.tenant_id).weight
        return released(queue, request, now, weight=weight, cost=cost)

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
        """Put a request that holds a slot back, release the slot and book its execution, if there was one;
        nothing when the attempt is over. One that somebody has asked to stop is STOPPED instead.

        With `by_start`, nothing either when it runs, or another has taken the start over since it was read.
        `failed` counts as a failure.

        If another upload took its data set's place meanwhile, the newer of the two keeps it, and the other is
        SUPERSEDED. `data_bytes` is its size where that was not known before. Returns the requests that
        changed, as they are now.
        """
        return self._retried(
            lambda: self._requeue_once(
                request, policy, now, due_at, reason, data_bytes, execution, by_start, failed
            )
        )

    def _requeue_once(
        self,
        request: Request,
        policy: Policy,
        now: datetime,
        due_at: datetime,
        reason: str,
        data_bytes: int | None,
        execution: ExecutionRecord | None,
        by_start: bool,
        failed: bool,
    ) -> list[Request]:
        known = self._request(request.request_id)
        if known is None or known.state not in HOLDING or known.attempt != request.attempt:
            return []
        if by_start and not _same_start(request, known):
            return []
        if known.stop_asked_at is not None:
            return self._stop_once(known, policy, now, execution)
        tier = policy.tier(known.tier)
        queued = replace(
            known,
            state=State.QUEUED,
            due_at=due_at,
            reason=reason,
            admitted_at=None,
            started_at=None,
            ends_by=None,
            claimed_at=None,
            heard_at=None,
            execution_arn=None,
            reserved_usd=Decimal(0),
            runtime_max_seconds=None,
            charge=1,
            history=with_change(known, State.QUEUED, now, reason),
            failures=known.failures + failed,
            data_bytes=known.data_bytes if data_bytes is None else data_bytes,
        )
        if tier is not None and data_bytes is not None:
            queued = replace(queued, profile=str(policy.profile_for(tier, known.algorithm, data_bytes)))
        executions = [] if execution is None else [execution]
        slot, past = queue_key(known.tier, known.tenant_id), past_key(known.tenant_id, known.data_set)
        where = entry_key(known.tier, known.tenant_id, known.data_set, _alone(known))
        keys = list(dict.fromkeys([where, slot, past, *booking_keys(executions)]))
        found = dict(zip(keys, self.store.get(*keys), strict=True))
        entry, item = found[where], found[slot]
        before = _queue(item, known.tier, known.tenant_id)
        after = self._released(before, known, spent_usd(execution), policy, now)
        after, owed = _warned(before, after, policy, now)
        owed += bookings(executions, found, now, self._expiry(now))
        queued = _expected(queued, past_from(found[past]), policy)
        gives_back = self._give_back([known], {e.request_id: e for e in executions}, policy, waits=True)
        still = (
            Is("state", known.state.value),
            Is("attempt", known.attempt),
            _claim_of(known),
            Absent("stop_asked_at"),
        )
        holder = self._holder(entry, known.request_id)
        if holder is None:
            self._settle(
                [Put(request_key(queued.request_id), self._item(queued), still)],
                gives_back,
                [
                    self._put_entry(queued, replaces=None),
                    *self._refile(before, joined(after, entry_of(queued)), now),
                    *owed,
                ],
            )
            return [queued]
        if holder.request_id == queued.request_id:
            raise Conflict("somebody else put it back between the reads")
        winner, loser = settled(queued, holder, policy, now)
        winner = replace(winner, due_at=max(queued.due_at, holder.due_at))
        winner = _expected(winner, past_from(found[past]), policy)
        ours, theirs = (winner, loser) if winner.request_id == queued.request_id else (loser, winner)
        self._settle(
            [
                Put(request_key(ours.request_id), self._item(ours), still),
                Put(request_key(theirs.request_id), self._item(theirs), (Is("state", State.QUEUED.value),)),
            ],
            gives_back,
            [
                self._put_entry(winner, replaces=holder.request_id),
                *self._refile(before, joined(self._without(after, entry_of(holder)), entry_of(winner)), now),
                *owed,
            ],
        )
        return [winner, loser] if ours is winner else [ours]

    def _stop_once(
        self, known: Request, policy: Policy, now: datetime, execution: ExecutionRecord | None
    ) -> list[Request]:
        """End an attempt that somebody has asked to stop, and that would otherwise be tried again."""
        ran = replace(execution, state=State.STOPPED) if execution else None
        end = End(request=known, state=State.STOPPED, reason=STOP_ASKED, execution=ran)
        if self._finish_once([end], policy, now, None) != [True]:
            return []
        return [replace(known, state=State.STOPPED, reason=STOP_ASKED, finished_at=now)]

    def correct(self, before: ExecutionRecord, after: ExecutionRecord, policy: Policy, now: datetime) -> None:
        """Correct the record of an execution, and every account on which it was booked.

        Its tenant may have moved since. Raises Conflict when it has been corrected meanwhile.
        """
        tiers = list(dict.fromkeys([before.tier, *(tier.name for tier in policy.tiers)]))
        queues = [queue_key(tier, before.tenant_id) for tier in tiers]
        keys = queues + booking_keys([after])
        found = dict(zip(keys, self.store.get(*keys), strict=True))
        ended_at = max(before.recorded_at, before.ended_at)
        writes = correction(before, after, found, now, self._expiry(ended_at))
        request = self._request(before.request_id)
        if request is not None and request.attempt == after.attempt and request.state in TERMINAL:
            outcome = Outcome(cost_usd=str(after.cost_usd), cost_unknown=after.unknown)
            same = (Is("attempt", after.attempt), Is("state", request.state.value))
            writes.append(Update(request_key(request.request_id), set=outcome_values(outcome), when=same))
        change = after.charged_usd - before.charged_usd
        if change:
            spent = {f"{_SPENT}{before.month} {before.tier}": change}
            writes.append(
                Update(
                    LEDGER,
                    set={"by": BY_END, "waiting": SOMEBODY},
                    add={**spent, **_moved(policy, {before.tier: change}), "backlog_version": 1},
                    remove=("drained_through",),
                )
            )
            held = [queue_from(item) for key in queues if (item := found[key]) is not None]
            queue = next((queue for queue in held if queue.month == before.month), None)
            if queue is not None:
                changed, owed = _warned(queue, replace(queue, spent_usd=queue.spent_usd + change), policy, now)
                writes += [*self._refile(queue, changed, now), *owed]
        self._write(*writes)

    def cancel(self, request: Request, now: datetime, *, reason: str | None = None) -> bool:
        """Take a QUEUED request back; False when it does not wait any more."""
        return self._retried(lambda: self._cancel_once(request, now, reason))

    def _cancel_once(self, request: Request, now: datetime, reason: str | None) -> bool:
        entry, item = self.store.get(
            entry_key(request.tier, request.tenant_id, request.data_set, _alone(request)),
            queue_key(request.tier, request.tenant_id),
        )
        if entry is None or entry["request_id"] != request.request_id:
            return False
        queue = _queue(item, request.tier, request.tenant_id)
        held = entry_from(entry)
        self._write(
            Update(
                request_key(request.request_id),
                set={
                    "state": State.CANCELLED.value,
                    "finished_at": stamp(now),
                    "expires_at": self._expiry(now),
                    "activity": ended_on(State.CANCELLED, request.tier, now),
                    "since": stamp(now),
                }
                | ({"reason": reason} if reason else {}),
                append=_append(State.CANCELLED, now, reason or ""),
                when=(Is("state", State.QUEUED.value),),
            ),
            self._delete_entry(queue, held),
            *self._refile(queue, self._without(queue, held), now),
        )
        return True

    # --- watch, halt and repair -----------------------------------------------------------------------------

    def backlog(self, policy: Policy) -> dict[str, Backlog]:
        """Return tier → how much waits there, due or not; reads every queue in which something waits."""
        return {tier.name: self._backlog(tier, policy) for tier in policy.tiers}

    def _backlog(self, tier: TierPolicy, policy: Policy) -> Backlog:
        queues = {queue.tenant_id: queue for queue in self._all_queues(tier.name)}.values()
        heads = [profile.head.arrived_at for queue in queues for profile in queue.profiles.values()]
        reasons = [queue.parked_for for queue in queues if queue.parked_for]
        return Backlog(
            waiting=sum(queue.waiting for queue in queues),
            oldest_arrived_at=min(heads, default=None),
            weight=sum(policy.tenant(queue.tenant_id).weight for queue in queues),
            parked={reason: reasons.count(reason) for reason in sorted(set(reasons))},
        )

    def _all_queues(self, tier: str) -> Iterator[TenantQueue]:
        return map(queue_from, listed(self.store, "ready", f"tier#{tier}"))

    def note_weights(self, backlog: Mapping[str, Backlog]) -> None:
        """Keep the weight of all that wait, for passes that cannot read it all."""
        weights = {f"{_WEIGHT}{tier}": found.weight for tier, found in backlog.items()}
        self._write(Update(LEDGER, set={**weights, "by": BY_PASS}))

    def queue(self, tier: str, tenant_id: str) -> TenantQueue:
        (item,) = self.store.get(queue_key(tier, tenant_id))
        return _queue(item, tier, tenant_id)

    def set_paused(self, paused: bool, tier: str | None = None) -> None:
        """Pause or resume all, or one tier; a pass that decided before holds no longer. Idempotent."""
        self._retried(lambda: self._set_paused(paused, tier))

    def _set_paused(self, paused: bool, tier: str | None) -> None:
        ledger = self.ledger()
        tiers = ledger.paused_tiers | {tier} if paused else ledger.paused_tiers - {tier}
        changes: Item = {"paused": paused} if tier is None else {"paused_tiers": sorted(filter(None, tiers))}
        changes["by"] = BY_PASS
        self._write(Update(LEDGER, set=changes, add={"admission_version": 1}, when=self._unmoved(ledger)))

    def set_tenant_paused(self, tier: str, tenant_id: str, paused: bool, now: datetime) -> None:
        """Pause or resume one tenant; a pass that decided before holds no longer. Idempotent."""
        self._retried(lambda: self._set_tenant_paused(tier, tenant_id, paused, now))

    def _set_tenant_paused(self, tier: str, tenant_id: str, paused: bool, now: datetime) -> None:
        queue = self.queue(tier, tenant_id)
        if queue.paused != paused:
            self._write(*self._refile(queue, replace(queue, paused=paused), now))

    def waiting_of(self, tier: str, tenant_id: str, *, limit: int = 100) -> list[Request]:
        """Return the first of a tenant's waiting requests in a tier, as they are now."""
        items = listed(self.store, "scheduler", f"entries#{tier}#{tenant_id}", page=limit)
        return self.get_all([item["request_id"] for item in islice(items, limit)])

    def forget_queue(self, tier: str, tenant_id: str) -> bool:
        """Remove a tenant's queue from a tier; False while anything waits or runs there. Idempotent."""
        queue = self.queue(tier, tenant_id)
        if not queue.at_rest:
            return False
        if queue.revision:
            self._write(Delete(queue_key(tier, tenant_id), (Is("revision", queue.revision),)))
        return True

    def carry_over(self, tier: str, to_tier: str, tenant_id: str, now: datetime) -> bool:
        """Remove a tenant's queue from a tier; what it has spent counts in another from now on.

        False while anything waits or runs there. Idempotent.
        """
        return self._retried(lambda: self._carry_over(tier, to_tier, tenant_id, now))

    def _carry_over(self, tier: str, to_tier: str, tenant_id: str, now: datetime) -> bool:
        old, new = self.queue(tier, tenant_id), self.queue(to_tier, tenant_id)
        if not old.at_rest:
            return False
        if old.revision:
            after = in_month(new, old.month)
            if old.month == after.month:
                after = replace(
                    after, spent_usd=after.spent_usd + old.spent_usd, warned=max(after.warned, old.warned)
                )
            self._write(
                Delete(queue_key(tier, tenant_id), (Is("revision", old.revision),)), *self._refile(new, after, now)
            )
        return True

    def take_up_month(self, tier: str, tenant_id: str, now: datetime) -> None:
        """Let what a tenant has spent this month by the book count in a queue that is new. Idempotent."""
        self._retried(lambda: self._take_up_month(tier, tenant_id, now))

    def _take_up_month(self, tier: str, tenant_id: str, now: datetime) -> None:
        queue, month = self.queue(tier, tenant_id), max(self.ledger().month, month_of(now))
        totals = Book(store=self.store).totals(month, tenant_id)
        spent = sum((one.charged_usd for one in totals), Decimal(0))
        if spent and not queue.revision:
            self._write(*self._refile(queue, replace(in_month(queue, month), spent_usd=spent), now))

    def forget_request(self, request: Request) -> None:
        """Remove an ended request for good."""
        self._write(Delete(request_key(request.request_id), (OneOf("state", tuple(s.value for s in TERMINAL)),)))

    def unmanaged(self) -> tuple[list[str], datetime | None]:
        """Return the ARNs of the executions that are not ours as they were known last, and when that was."""
        (item,) = self.store.get(UNMANAGED)
        return (list(item["arns"]), unstamp(item["looked_at"])) if item else ([], None)

    def add_unmanaged(self, execution_arn: str, now: datetime) -> None:
        """Deduct one more execution that holds no slot; the reconciler sees when it has ended. Idempotent."""
        known, looked_at = self.unmanaged()
        if execution_arn not in known:
            self.note_unmanaged([*known, execution_arn], looked_at or now)

    def note_unmanaged(self, arns: Sequence[str], now: datetime) -> None:
        """Deduct executions that hold no slot of ours from the account's slots."""
        ledger = self.ledger()
        writes: list[Write] = [Put(UNMANAGED, {"arns": list(arns)[:UNMANAGED_MAX], "looked_at": stamp(now)})]
        if ledger.unmanaged != len(arns):
            changes = {"unmanaged": len(arns), "by": BY_PASS}
            writes.append(Update(LEDGER, set=changes, add={"admission_version": 1}, when=self._unmoved(ledger)))
        self._write(*writes)

    def throttle(self, until: datetime) -> None:
        """Take what runs now for all that SageMaker will run, until a time."""
        ledger = self.ledger()
        to = max(ledger.used, 1)
        changes: Item = {"throttled_to": to, "throttled_until": stamp(until), "by": BY_PASS}
        self._write(Update(LEDGER, set=changes, add={"admission_version": 1}, when=self._unmoved(ledger)))

    def recount(self, now: datetime) -> dict[str, int]:
        """Correct the ledger by the requests that hold a slot; return name → by how much it was wrong.

        Only what is proved counts. The queues that hold slots, and each of their holders, are read consistently;
        if the ledger has not moved meanwhile, no admission and no end came in between, and what was read is how it
        is. Where it keeps moving nothing is corrected: the next run tries again.
        """
        for _ in range(RECOUNTS_TRIED):
            before = self.ledger()
            holding = self._holding_queues(before)
            requests = [
                request
                for part in _parts([holder for queue in holding for holder in queue["holders"]], READ_AT_ONCE)
                for request in self.get_all(part)
                if request.state in HOLDING
            ]
            after = self.ledger()
            if before.usage_version == after.usage_version:
                break
        else:
            return {}
        wrong = _difference(
            _counts((request.tier, request.profile) for request in requests), _by_attribute(after.usage)
        )
        held = {request.request_id for request in requests}
        stale = [queue for queue in holding if not held.issuperset(queue["holders"])]
        if not wrong and not stale:
            return {}
        kept = _by_attribute(after.usage)
        exact = {name: kept.get(name, 0) - count for name, count in wrong.items()}
        ledger = Update(
            LEDGER,
            set={**exact, "by": BY_END, "waiting": SOMEBODY},
            add={"admission_version": 1, "usage_version": 1, "backlog_version": 1},
            remove=("drained_through",),
            when=(IsOr("usage_version", after.usage_version),),
        )
        mended = [
            write
            for queue in self._read_queues((queue["tier"], queue["tenant_id"]) for queue in stale[:RECOUNTED_MAX])
            for write in self._refile(queue, rebuilt(queue, [r for r in requests if _is_of(queue, r)]), now)
        ]
        self._write(ledger, *mended)
        return wrong

    # --- requests -------------------------------------------------------------------------------------------

    def get(self, request_id: str) -> Request | None:
        return self._request(request_id)

    def get_all(self, request_ids: Sequence[str]) -> list[Request]:
        """Return the requests that there are, in the order asked for; at most 100."""
        found = self._requests(request_ids)
        return [found[request_id] for request_id in request_ids if request_id in found]

    def add_rejected(self, request: Request) -> bool:
        """Keep a request that was refused at arrival; False when it is known already."""
        assert request.state is State.REJECTED
        try:
            self._write(Put(request_key(request.request_id), self._item(request), (Absent("request_id"),)))
        except Conflict as conflict:
            if not conflict.failed:
                raise
            return False
        return True

    def note_outcome(self, request_id: str, attempt: int, outcome: Outcome) -> bool:
        """Add what is known of a running attempt's outcome; False for another attempt."""
        try:
            self._write(
                Update(request_key(request_id), set=outcome_values(outcome), when=(Is("attempt", attempt),))
            )
        except Conflict as conflict:
            if not conflict.failed:
                raise
            return False
        return True

    def active(self, state: State, *, limit: int | None = None) -> list[Request]:
        """Return the requests that wait, start or run, longest in that state first; may lag."""
        return self._listed("by-activity", state.value, limit)

    def of_tenant(
        self, tenant_id: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> list[Request]:
        """Return a tenant's requests that arrived between two times, oldest first; may lag."""
        above, below = stamp(since) if since else "", stamp(until) if until else "~"
        return self._listed("by-tenant", tenant_id, None, above=above, below=below)

    def of_data_set(
        self, tenant_id: str, data_set: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> list[Request]:
        """Return the requests of a data set that arrived between two times, oldest first; may lag."""
        above, below = stamp(since) if since else "", stamp(until) if until else "~"
        items = listed(
            self.store, "by-data-set", owner(tenant_id, data_set), above=above, below=below, page=LISTED_AT_ONCE
        )
        ids = [item["request_id"] for item in items]
        return [request for part in _parts(ids, LISTED_AT_ONCE) for request in self.get_all(part)]

    def ended(self, tier: str, state: State, day: str, *, limit: int | None = None) -> list[Request]:
        """Return the requests of a tier that came to an end in a state on a day, "2026-11-21"; may lag."""
        assert state in TERMINAL
        return self._listed("by-activity", f"{tier} {state.value} {day}", limit)

    def recent_of_tenant(self, tenant_id: str, *, limit: int) -> list[Request]:
        """Return a tenant's last requests, newest first; may lag."""
        items = listed(self.store, "by-tenant", tenant_id, page=limit, newest_first=True)
        return [request_from(item) for item in islice(items, limit)]

    def _listed(
        self, index: str, partition: str, limit: int | None, *, above: str = "", below: str = "~"
    ) -> list[Request]:
        items = listed(self.store, index, partition, above=above, below=below, page=limit or 1000)
        return [request_from(item) for item in islice(items, limit)]

    # --- parts ----------------------------------------------------------------------------------------------

    def _retried(self, attempt: Callable[[], T]) -> T:
        """Try again while others are faster; raises Conflict when they stay so."""
        for number in range(1, TRIES_MAX):
            try:
                return attempt()
            except Conflict:
                self.rest(number)
        return attempt()

    def _write(self, *writes: Write) -> None:
        self.store.transact(writes)

    def _request(self, request_id: str) -> Request | None:
        (item,) = self.store.get(request_key(request_id))
        return request_from(item) if item else None

    def _requests(self, request_ids: Iterable[str]) -> dict[str, Request]:
        wanted = list(dict.fromkeys(request_ids))
        items = self.store.get(*map(request_key, wanted)) if wanted else []
        return {item["request_id"]: request_from(item) for item in items if item is not None}

    def _entries(self, queue: TenantQueue, profile: str, *, limit: int) -> tuple[QueueEntry, ...]:
        entries = f"entries#{queue.tier}#{queue.tenant_id}"
        items = listed(self.store, "ready", entries, above=f"{profile}|", below=f"{profile}|~", page=limit)
        return tuple(map(entry_from, islice(items, limit))) or (queue.profiles[profile].head,)

    def _without(self, queue: TenantQueue, *gone: QueueEntry) -> TenantQueue:
        """Return the queue without some places of a lane; reads who is next where the queue does not say."""
        profile = gone[0].profile
        rest: list[QueueEntry] = []
        if profile not in queue.profiles or queue.profiles[profile].waiting < len(gone):
            raise Conflict("the queue and its places were read at different times")
        if queue.profiles[profile].waiting > len(gone) and not staying(queue, gone):
            ids = {entry.request_id for entry in gone}
            found = self._entries(queue, profile, limit=len(gone) + HEAD_ENTRIES_MAX)
            rest = [entry for entry in found if entry.request_id not in ids]
            if not rest:
                raise Conflict("the queue moved while it was read")
        return left(queue, gone, rest)

    def _refile(
        self, before: TenantQueue, after: TenantQueue, now: datetime, *, parked_under: str | None = None
    ) -> list[Write]:
        """Return what writes a tenant queue and files it in the index, if it is still as it was read."""
        after = trimmed(replace(after, revision=before.revision + 1))
        if parked_under is None:
            after = replace(after, parked_for=None)
        filings = _filings(after, now, parked_under)
        item = queue_item(after)
        first, *others = filings or [("", "")]
        unchanged = Is("revision", before.revision) if before.revision else Absent("revision")
        filed = {"ready": first[1]} if first[1] else {}
        filed |= {"holding": after.tenant_id} if after.holders else {}
        writes: list[Write] = [Put(queue_key(after.tier, after.tenant_id), item | filed, (unchanged,))]
        writes += [
            Put(queue_key(after.tier, after.tenant_id, profile), item | {"ready": ready, "copy": True})
            for profile, ready in others
        ]
        stale = set(sorted(before.profiles)[1:]) - {profile for profile, _ in others}
        writes += [Delete(queue_key(after.tier, after.tenant_id, profile)) for profile in sorted(stale)]
        return writes

    def _put_entry(self, request: Request, *, replaces: str | None) -> Put:
        entry = entry_of(request)
        ready = f"{entry.profile}|{stamp(entry.due_at)}|{stamp(entry.arrived_at)}|{entry.request_id}"
        return Put(
            entry_key(request.tier, request.tenant_id, request.data_set, _alone(request)),
            entry_item(entry) | {"ready": ready},
            (Absent("pk"),) if replaces is None else (Is("request_id", replaces),),
        )

    def _delete_entry(self, queue: TenantQueue, entry: QueueEntry) -> Delete:
        alone = entry.request_id if entry.alone else None
        return Delete(
            entry_key(queue.tier, queue.tenant_id, entry.data_set, alone),
            (Is("request_id", entry.request_id),),
        )

    def _item(self, request: Request) -> Item:
        """Return a request's item, with what it is listed by while it is active, and its end of life after."""
        item = {name: value for name, value in request_item(request).items() if name != "request_id"}
        if request.state is State.QUEUED:
            return item | {"activity": State.QUEUED.value, "since": stamp(request.arrived_at)}
        ended = request.finished_at or request.arrived_at
        return item | {
            "expires_at": self._expiry(ended),
            "activity": ended_on(request.state, request.tier, ended),
            "since": stamp(ended),
        }

    def _expiry(self, ended_at: datetime) -> int:
        """Return the time to live, in whole seconds since 1970."""
        return int((ended_at + self.retention).timestamp())


def settled(request: Request, waiting: Request, policy: Policy, now: datetime) -> tuple[Request, Request]:
    """Return winner and loser of two requests of a data set: one that comes, and the one that waits.

    The winner trains on the newest of all uploads merged into either, and takes the earlier place.
    """
    uploads = merged(waiting.uploads, request.uploads)
    content, before = newest(uploads), newest(waiting.uploads)
    ours = newest(request.uploads)
    comes = content.key == ours.key and (content_item(content) == content_item(ours) or before.key != content.key)
    winner, loser = (request, waiting) if comes else (waiting, request)
    size = content.size_bytes if content != winner.content or not winner.profile else winner.data_bytes
    tier = policy.tier(winner.tier)
    profile = str(policy.profile_for(tier, winner.algorithm, size)) if tier else winner.profile
    winner = replace(
        winner,
        content=content,
        uploads=uploads,
        arrived_at=min(request.arrived_at, waiting.arrived_at),
        due_at=request.due_at,
        data_bytes=size,
        profile=winner.profile if size == winner.data_bytes and winner.profile else profile,
        supersedes=loser.request_id if comes else winner.supersedes,
    )
    return winner, replace(
        loser,
        state=State.SUPERSEDED,
        superseded_by=winner.request_id,
        finished_at=now,
        admitted_at=loser.admitted_at,
        history=with_change(loser, State.SUPERSEDED, now, f"by {winner.request_id}"),
    )


def policy_version(found: Items) -> int:
    """Return the version of the policy that the ledger names."""
    return int((found[LEDGER] or {}).get("policy_version", 0))


def ledger_from(item: Item | None) -> Ledger:
    values = item or {}

    def prefixed(prefix: str) -> dict[str, int]:
        return {name.removeprefix(prefix): int(value) for name, value in values.items() if name.startswith(prefix)}

    return Ledger(
        admission_version=int(values.get("admission_version", 0)),
        usage_version=int(values.get("usage_version", 0)),
        policy_version=int(values.get("policy_version", 0)),
        drained_through=int(values["drained_through"]) if "drained_through" in values else None,
        month=str(values.get("month", "")),
        spent_in={n.removeprefix(_SPENT): Decimal(v) for n, v in values.items() if n.startswith(_SPENT)},
        reserved_in={n.removeprefix(_RESERVED): Decimal(v) for n, v in values.items() if n.startswith(_RESERVED)},
        usage=prefixed(_USED),
        paused=bool(values.get("paused", False)),
        paused_tiers=frozenset(values.get("paused_tiers", ())),
        virtual_time_by_tier=prefixed(_VIRTUAL_TIME),
        served_by_tier=prefixed(_SERVED),
        weight_by_tier=prefixed(_WEIGHT),
        capacity_holds=dict(values.get("capacity_holds", {})),
        starts_from=unstamp(values["starts_from"]) if "starts_from" in values else None,
        unmanaged=int(values.get("unmanaged", 0)),
        throttled_to=int(values["throttled_to"]) if "throttled_to" in values else None,
        throttled_until=unstamp(values["throttled_until"]) if "throttled_until" in values else None,
    )


def ring_from(item: Mapping[str, Any]) -> BellRing:
    """Return what the bell's item says of its last ring."""
    hints = item.get("hints")
    return BellRing(
        number=int(item["rings"]),
        hints=None if hints is None else tuple(Hint(*text.split(" ")) for text in hints),
    )


def _ring(requests: Sequence[Request]) -> Update:
    """Return what rings the bell, saying what was enlisted unless that is too much."""
    hints = [f"{request.tier} {request.tenant_id} {request.request_id}" for request in requests]
    if len(hints) > HINTS_MAX:
        return Update(BELL, add={"rings": 1}, remove=("hints",))
    return Update(BELL, set={"hints": hints}, add={"rings": 1})


def _told_of_all(ledger: Ledger, rung: int, rings: Sequence[BellRing]) -> bool:
    """Tell whether rings name all that can wait: nothing waited once, and each ring since is among them."""
    told = {ring.number for ring in rings if ring.hints is not None}
    drained_through = ledger.drained_through
    return (
        drained_through is not None
        and drained_through < rung
        and all(number in told for number in range(drained_through + 1, rung + 1))
    )


def _undisturbed(read_set: ReadSet, drained_through: Item) -> tuple[Condition, ...]:
    """Return the condition under which a commit may say whether somebody waits.

    That nobody does: nothing went back to the queues since they were read. That somebody does, when nobody did: no
    end came since, which would have woken a pass.
    """
    if drained_through["waiting"] == NOBODY:
        return (IsOr("backlog_version", int(read_set.ledger.get("backlog_version", 0))),)
    return (
        ()
        if read_set.ledger.get("waiting") == SOMEBODY
        else (IsOr("usage_version", read_set.snapshot.ledger.usage_version),)
    )


def _hint_keys(hint: Hint) -> tuple[Key, ...]:
    return (queue_key(hint.tier, hint.tenant_id), request_key(hint.request_id), tenant_key(hint.tenant_id))


def _hinted_queues(hints: Sequence[Hint], found: Items) -> list[TenantQueue]:
    """Return the queues that are named and in which something waits that passes look at."""
    items = [found[key] for key in dict.fromkeys(queue_key(hint.tier, hint.tenant_id) for hint in hints)]
    queues = [queue_from(item) for item in items if item]
    queues = [queue for queue in queues if queue.profiles and not queue.paused and not queue.parked_for]
    return sorted(queues, key=lambda queue: (queue.tier, queue.tenant_id))


def _enlist_keys(submission: Submission) -> tuple[Key, Key, Key, Key]:
    """Return where request, place, queue and past of a submission stand."""
    return (
        request_key(submission.request_id),
        entry_key(submission.tier, submission.tenant_id, submission.data_set, _alone(submission)),
        queue_key(submission.tier, submission.tenant_id),
        past_key(submission.tenant_id, submission.data_set),
    )


def _packed(wishes: Sequence[Wish], plain: Sequence[int], found: Items, policy: Policy) -> Iterator[list[int]]:
    """Yield positions of wishes that fit one transaction each; a tenant's together where they do."""

    def queue_of(number: int) -> Key:
        return queue_key(wishes[number].submission.tier, wishes[number].submission.tenant_id)

    part: list[int] = []
    profiles: dict[Key, set[str]] = {}
    counted: dict[Key, int] = {}
    """Queue → the items of it that the part writes."""
    actions, size = 1, 0  # the bell
    base = {key: bytes_of(item) for key, item in found.items() if item and "profiles" in item}
    for number in sorted(plain, key=lambda number: queue_of(number).values):
        one, key = wishes[number].submission, queue_of(number)
        tier = policy.tier(one.tier)
        assert tier is not None, "the policy has the tier of what is plain"
        known = profiles.setdefault(key, set((found[key] or {}).get("profiles", ())))
        known.add(str(policy.profile_for(tier, one.algorithm, one.content.size_bytes)))
        needed = 2 + len(known) - counted.get(key, 0)
        taken = ENLISTED_BYTES + (len(known) - counted.get(key, 0)) * base.get(key, 0)
        if part and (actions + needed > ACTIONS_MAX or size + taken > TRANSACTION_BYTES_MAX):
            yield part
            part, actions, size, counted, needed = [], 1, 0, {}, 2 + len(known)
            taken = ENLISTED_BYTES + len(known) * base.get(key, 0)
        part.append(number)
        actions += needed
        size += taken
        counted[key] = len(known)
    if part:
        yield part


def _packed_ends(order: Sequence[int], ends: Sequence[End]) -> Iterator[list[int]]:
    """Yield positions of ends that are expected to fit one transaction each."""
    part: list[int] = []
    actions = 1  # the ledger
    for number in order:
        tenant_id = ends[number].request.tenant_id
        first = not part or ends[part[-1]].request.tenant_id != tenant_id
        needed = OF_AN_END + (OF_ITS_TENANT if first else 0)
        if part and (actions + needed > ACTIONS_MAX or len(part) == ENDS_MAX):
            yield part
            part, actions, needed = [], 1, OF_AN_END + OF_ITS_TENANT
        part.append(number)
        actions += needed
    if part:
        yield part


def end_keys(about: Request | Subject) -> tuple[Key, ...]:
    """Return what `finish` must know of an end, its request aside."""
    tenant_id = about.tenant_id
    return (queue_key(about.tier, tenant_id), past_key(tenant_id, about.data_set), pace_key(tenant_id))


def _same_start(read: Request, current: Request) -> bool:
    """Tell whether an attempt still does not run, and nobody has taken its start over since it was read."""
    return current.state is State.ADMITTED and current.claimed_at == read.claimed_at


def _claim_of(request: Request) -> Condition:
    """Return the condition that nobody has taken its start over since it was read."""
    if request.claimed_at is None:
        return Absent("claimed_at")
    return Is("claimed_at", stamp(request.claimed_at))


def _runs(request: Request, execution_arn: str, now: datetime) -> Update:
    """Return what records that the execution of an attempt runs.

    Only of one that nobody has asked to stop since it was read: what is to be stopped is left to the sweeper,
    which reads it anew and stops it.
    """
    unasked = () if request.stop_asked_at else (Absent("stop_asked_at"),)
    return Update(
        request_key(request.request_id),
        set={
            "state": State.RUNNING.value,
            "activity": State.RUNNING.value,
            "since": stamp(now),
            "started_at": stamp(now),
            "execution_arn": execution_arn,
        },
        append=_append(State.RUNNING, now),
        when=(Is("state", State.ADMITTED.value), Is("attempt", request.attempt), *unasked),
    )


def request_key(request_id: str) -> Key:
    return Key("requests", (("request_id", request_id),))


def queue_key(tier: str, tenant_id: str, profile: str = "") -> Key:
    sk = f"tenant#{tenant_id}#{profile}" if profile else f"tenant#{tenant_id}"
    return Key("scheduler", (("pk", f"tier#{tier}"), ("sk", sk)))


def entry_key(tier: str, tenant_id: str, data_set: str, alone: str | None) -> Key:
    sk = f"data_set#{data_set}#{alone}" if alone else f"data_set#{data_set}"
    return Key("scheduler", (("pk", f"entries#{tier}#{tenant_id}"), ("sk", sk)))


def _alone(request: Request | Submission) -> str | None:
    return request.request_id if request.alone else None


def _queue(item: Item | None, tier: str, tenant_id: str) -> TenantQueue:
    return queue_from(item) if item else TenantQueue(tenant_id=tenant_id, tier=tier)


def _queued(submission: Submission, wait: Wait, policy: Policy, tier: TierPolicy, now: datetime) -> Request:
    size = submission.content.size_bytes
    return Request(
        request_id=submission.request_id,
        tenant_id=submission.tenant_id,
        tier=submission.tier,
        data_set=submission.data_set,
        content=submission.content,
        cause=submission.cause,
        state=State.QUEUED,
        arrived_at=wait.arrived_at,
        due_at=wait.due_at,
        alone=submission.alone,
        uploads=uploads_of(submission.content),
        data_bytes=size,
        algorithm=submission.algorithm,
        profile=str(policy.profile_for(tier, submission.algorithm, size)),
        history=(StateChange(now, State.QUEUED, submission.cause.value),),
    )


def _expected(request: Request, past: Sequence[PastRun], policy: Policy) -> Request:
    """Return a request with what its run is expected to take and to cost."""
    tier = policy.tier(request.tier)
    if tier is None or not request.profile:
        return request
    profile = ResourceProfile.parse(request.profile)
    return replace(request, expected=estimate(past, request.data_bytes, tier, profile, policy.prices))


def spent_usd(execution: ExecutionRecord | None) -> Decimal:
    """Return what an attempt takes of its budgets: nothing when nothing was started."""
    return Decimal(0) if execution is None else execution.charged_usd


def _warned(
    before: TenantQueue, after: TenantQueue, policy: Policy, now: datetime
) -> tuple[TenantQueue, list[Write]]:
    """Return the queue, and what is owed if its spending has reached a threshold that was not told yet.

    Only who books spending looks: others may not write what is owed. A threshold is told again when spending
    reaches it anew, because the budget was raised meanwhile.
    """
    budget = policy.tenant(after.tenant_id).budget
    if budget is None or not after.month or (after.month, after.spent_usd) == (before.month, before.spent_usd):
        return after, []
    reached = level(after.spent_usd, budget, policy.thresholds)
    told = after.warned
    if before.month == after.month:  # the budget may have been raised since
        told = min(told, level(before.spent_usd, budget, policy.thresholds))
    if reached <= told:
        return after, []
    values = {"spent_usd": after.spent_usd, "budget_usd": budget.limit_usd}
    owed = budget_entry(after.tenant_id, after.tier, after.month, reached, values, now)
    return replace(after, warned=reached), [owed]


def ended_on(state: State, tier: str, when: datetime) -> str:
    """Return under what ended requests are listed: by day, so that no partition of the index is hot."""
    return f"{tier} {state.value} {stamp(when)[:10]}"


def _append(state: State, at: datetime, cause: str = "") -> dict[str, list[str]]:
    return {"history": [change_text(StateChange(at, state, cause))]}


def _moved(policy: Policy, taken: Mapping[str, Decimal]) -> dict[str, int]:
    """Return the ledger's counters that move when so much is taken of tiers' money, or given back: the version,
    which passes rely on, only when a budget has less left than they saw.
    """
    less = any(usd > 0 and (tier := policy.tier(name)) and tier.budget for name, usd in taken.items())
    return {"usage_version": 1, "admission_version": 1} if less else {"usage_version": 1}


def _forgotten(ledger: Ledger, month: str) -> tuple[str, ...]:
    """Return the ledger's attributes about months before one."""
    spent = [f"{_SPENT}{name}" for name in ledger.spent_in if name[:7] < month]
    return tuple(spent + [f"{_RESERVED}{name}" for name in ledger.reserved_in if name[:7] < month])


def _parked_under(policy: Policy, month: str, parked: Parked) -> str:
    """Return under what a queue is set aside: what must change before it can go."""
    if parked.needs_usd is not None:
        return f"needs-budget|{_present(policy, month)}|{_millionths(parked.needs_usd)}|{parked.queue.tenant_id}"
    tenant_id = parked.queue.tenant_id
    turn = hashlib.sha256(tenant_id.encode()).hexdigest()[:2]
    return f"parked|{_present(policy, month)}|{turn}|{tenant_id}"


def _present(policy: Policy, month: str) -> str:
    return f"{policy.version:010d}|{policy.prices.version}|{month}"


def _millionths(usd: Decimal) -> str:
    return f"{max(int(usd.scaleb(6)), 0):015d}"


def _unpark_ranges(
    tier: TierPolicy, policy: Policy, month: str, ledger: Ledger, now: datetime
) -> Iterator[tuple[str, str]]:
    """Yield the ranges of the index in which queues stand that may go again."""
    present = _present(policy, month)
    for kind in ("parked", "needs-budget"):
        yield f"{kind}|", f"{kind}|{present}|"
        yield f"{kind}|{present}|~", f"{kind}|~"
    if tier.budget is None:
        yield f"needs-budget|{present}|", f"needs-budget|{present}|~"
    else:
        account = f"{month} {tier.name}"
        taken = ledger.spent_in.get(account, Decimal(0)) + ledger.reserved_in.get(account, Decimal(0))
        yield f"needs-budget|{present}|", f"needs-budget|{present}|{_millionths(tier.budget.limit_usd - taken)}|~"
    turn = int(now.timestamp()) // 60 % 256
    yield f"parked|{present}|{turn:02x}|", f"parked|{present}|{turn:02x}|~"


def _parts(whole: Sequence[T], size: int) -> list[Sequence[T]]:
    return [whole[begin : begin + size] for begin in range(0, len(whole), size)]


def _filings(queue: TenantQueue, now: datetime, parked_under: str | None) -> list[tuple[str, str]]:
    """Return lane and index key of each entry of a tenant queue; none while it waits for nothing."""
    if not queue.profiles:
        return []
    if queue.paused:
        return [("", f"paused|{queue.tenant_id}")]
    if parked_under is not None:
        return [("", parked_under)]
    return [(name, _filing(queue, queue.profiles[name].head, now)) for name in sorted(queue.profiles)]


def _filing(queue: TenantQueue, head: QueueEntry, now: datetime) -> str:
    if head.due_at > now:
        return f"postponed|{stamp(head.due_at)}|{head.profile}|{queue.tenant_id}"
    return f"ready|{head.profile}|{max(queue.service_ms, 0):020d}|{stamp(head.arrived_at)}|{queue.tenant_id}"


def _full(ledger: Ledger, policy: Policy) -> bool:
    tiers = policy.tiers
    full = all(ledger.used_of_tier(tier.name) >= tier.slots_max for tier in tiers)
    return ledger.used >= policy.running_max or (full and not any(_has_large(tier, policy) for tier in tiers))


def _has_large(tier: TierPolicy, policy: Policy) -> bool:
    """Tell whether instances may have to be saved for a request of the tier, even while its slots are taken."""
    known = [choice for algorithm in policy.algorithms.values() for choice in algorithm.instances]
    profiles = [ResourceProfile.of(choice) for choice in (*tier.instances, *known)]
    return any(
        profile.instances > 1 and f"training/{profile.training}" in policy.instance_quotas for profile in profiles
    )


def _needs_holders(waiting: Iterable[WaitingQueue], policy: Policy, now: datetime) -> bool:
    """Tell whether a request that needs several instances may have waited too long."""
    for queue in waiting:
        tier = policy.tier(queue.queue.tier)
        for entries in queue.entries.values():
            if (
                tier
                and ResourceProfile.parse(entries[0].profile).instances > 1
                and now - entries[0].arrived_at > tier.hold_age
            ):
                return True
    return False


def _is_of(queue: TenantQueue, request: Request) -> bool:
    return (queue.tier, queue.tenant_id) == (request.tier, request.tenant_id)


def _by_queue(decisions: Iterable[Decision]) -> list[list[Decision]]:
    groups: dict[tuple[str, str], list[Decision]] = {}
    for decision in decisions:
        groups.setdefault((decision.queue.tier, decision.queue.tenant_id), []).append(decision)
    return list(groups.values())


def _counts(holders: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return the ledger's attributes → what (tier, resource profile) pairs take."""
    counts: dict[str, int] = {}
    for tier, profile in holders:
        for resource, units in ResourceProfile.parse(profile).demand(tier).items():
            counts[f"{_USED}{resource}"] = counts.get(f"{_USED}{resource}", 0) + units
    return counts


def _by_attribute(units: Mapping[str, int]) -> dict[str, int]:
    """Return the ledger's attributes → units of the resources that they count."""
    return {f"{_USED}{resource}": count for resource, count in units.items()}


def _difference(counted: Mapping[str, int], kept: Mapping[str, int]) -> dict[str, int]:
    return {
        name: kept.get(name, 0) - counted.get(name, 0)
        for name in sorted({*counted, *kept})
        if kept.get(name, 0) != counted.get(name, 0)
    }
