"""Admission: what a pass reads, and the transaction that admits requests and takes their slots.

The rules are in domain/admission.py: `decide` chooses the requests. Here its decision takes effect, as a whole or
not at all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from trainyard.domain.budgets import shortening
from trainyard.domain.errors import Conflict
from trainyard.domain.policy import Policy, TierPolicy
from trainyard.domain.queues import TenantQueue, holding
from trainyard.domain.requests import Request, State
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.scheduling import Decision, Ledger, Plan, Snapshot, WaitingQueue
from trainyard.domain.tenants import Tenant
from trainyard.persistence.bell import (
    BELL,
    HINTS_MAX,
    BellRing,
    Hint,
    Later,
    later_from,
    put_right,
    rings_name_all,
    rings_of,
)
from trainyard.persistence.items import entry_from, queue_from, request_from, stamp
from trainyard.persistence.ledger import LEDGER, Drained, ledger_from, take_units
from trainyard.persistence.requests import request_key
from trainyard.persistence.run_history import note_start
from trainyard.persistence.store import (
    Is,
    Item,
    Items,
    Key,
    Put,
    Update,
    Write,
    applied,
    fits_one_transaction,
    listed,
)
from trainyard.persistence.tables import Tables
from trainyard.persistence.tenant_queues import (
    PAGE_MIN,
    delete_entry,
    place_key,
    queue_key,
    refile,
)
from trainyard.persistence.tenants import tenant_from, tenant_key
from trainyard.persistence.transactions import read_items

PASSES_KEPT = timedelta(days=14)
"""How long the records of passes are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSet:
    """What a pass has read, and what it needs beside the snapshot to commit and to start."""

    snapshot: Snapshot
    policy: Policy
    """The limits that are in force, by the clock or by the ledger."""
    ledger: Item
    bell: Item
    """Read before the queues."""
    rings: int | None
    """How often the bell had been rung before all waiting queues were read; None if not all were read."""
    requests: Mapping[str, Item]
    """Those that were read along, by id."""
    tenants: Mapping[str, Tenant]
    from_hints: bool = False
    """Whether only what the rings named was read, because they named everything that waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a commit has admitted."""

    admissions: tuple[Decision, ...]
    requests: Mapping[str, Request]
    """The admitted requests that had been read before, in their new state."""
    read_set: ReadSet | None
    """What the next round would read if nobody else changed anything; None if it must read again."""
    full: bool
    """Whether all slots of the account, or of all tiers, are taken now, as far as it knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitter:
    """What passes read and write, their starts aside."""

    tables: Tables

    # --- reading --------------------------------------------------------------------------------------------

    def read(self, policy: Policy, now: datetime, rings: Sequence[BellRing] | None = None) -> ReadSet:
        """Read what a pass must know; reads a bounded number of queues, whatever waits.

        With `rings` that name all that was enlisted since nothing waited, reads what they name and no more. The
        ledger is read first: an end in between only frees slots and money; what takes any moves the admission
        version. Raises Conflict when the policy has just changed.
        """
        hints = list(dict.fromkeys(hint for ring in rings or () for hint in ring.hints or ()))
        # More names than this need more calls than the pages of the queues.
        if len(hints) > 2 * HINTS_MAX:
            hints, rings = [], None
        items = read_items(self.tables.store, (LEDGER, BELL, *(key for hint in hints for key in _hint_keys(hint))))
        ledger = ledger_from(items[LEDGER])
        rung, later = rings_of(items[BELL]), later_from(items[BELL])
        # Functions cache the policy: a decision under an old one would be refused at its commit anyway.
        if ledger.policy_version != policy.version:
            raise Conflict(f"policy {ledger.policy_version} is in force, not {policy.version}")
        policy = policy.at(now, ledger.epoch)
        from_hints = rings is not None and later.complete and rings_name_all(ledger, rung, rings)
        if from_hints:
            queues, partial, whole = self._named_queues(hints, later, items, now), frozenset[str](), True
        else:
            queues, partial, whole = self._first_queues(ledger, policy, now)
        waiting = self._with_entries(queues, policy, ledger, now)
        expedited: dict[str, str] = {}
        if ledger.expedited:
            waiting, expedited = self._with_expedited(waiting, ledger)
        snapshot = Snapshot(
            ledger=ledger,
            queues=tuple(waiting),
            partial=partial,
            expedited=expedited,
            holders=self.tables.holders() if _needs_holders(waiting, policy, now) else (),
        )
        requests = {hint.request_id: items[request_key(hint.request_id)] for hint in hints}
        tenants = {hint.tenant_id: items[tenant_key(hint.tenant_id)] for hint in hints}
        return ReadSet(
            snapshot=snapshot,
            policy=policy,
            ledger=items[LEDGER] or {},
            bell=items[BELL] or {},
            rings=rung if whole and not partial else None,
            requests={request_id: item for request_id, item in requests.items() if item},
            tenants={tenant_id: tenant_from(item) for tenant_id, item in tenants.items() if item},
            from_hints=from_hints,
        )

    def _named_queues(self, hints: Sequence[Hint], later: Later, items: Items, now: datetime) -> list[TenantQueue]:
        """Return the queues that rings name, and those noted for later that have become due; without those that
        passes do not look at.
        """
        keys = dict.fromkeys(queue_key(hint.tier, hint.tenant_id) for hint in hints)
        due = [queue_key(*owner) for owner, due_at in later.due_at.items() if due_at <= now]
        items = dict(items) | read_items(self.tables.store, [key for key in due if key not in items])
        queues = [queue_from(item) for key in dict.fromkeys([*keys, *due]) if (item := items[key])]
        queues = [queue for queue in queues if queue.profiles and not queue.paused and not queue.parked_for]
        return sorted(queues, key=lambda queue: (queue.tier, queue.tenant_id))

    def _first_queues(
        self, ledger: Ledger, policy: Policy, now: datetime
    ) -> tuple[list[TenantQueue], frozenset[str], bool]:
        """Return the queues that may have a slot now, the tiers of which more wait, and whether all tiers were
        read.

        Tiers that are full or paused are not read, unless instances may have to be held for one of their requests.
        """
        if ledger.paused or ledger.used >= policy.running_max:
            return [], frozenset(), False
        queues: list[TenantQueue] = []
        partial: set[str] = set()
        whole = True
        for tier in policy.tiers:
            full = ledger.used_of_tier(tier.name) >= tier.slots_max
            if tier.name in ledger.paused_tiers or (full and not _has_large(tier, policy)):
                whole = False
                continue
            first, complete = self.tables.queues.first(tier, now)
            queues += first
            partial |= set() if complete else {tier.name}
        return queues, frozenset(partial), whole

    def _with_entries(
        self, queues: Iterable[TenantQueue], policy: Policy, ledger: Ledger, now: datetime
    ) -> list[WaitingQueue]:
        """Add the first entries of each profile: those the queues hold where they are enough for the free
        slots."""
        read = list(queues)
        free = policy.running_max - ledger.used
        heads = [entry for queue in read for profile in queue.profiles.values() for entry in profile.head_entries]
        enough = sum(entry.due_at <= now for entry in heads) >= free
        return [self._waiting(queue, policy, 1 if enough else free) for queue in read]

    def _with_expedited(
        self, waiting: Sequence[WaitingQueue], ledger: Ledger
    ) -> tuple[list[WaitingQueue], dict[str, str]]:
        """Add what is expedited, wherever it waits; return tier → the first such request too."""
        places = {
            (each.tier, each.tenant_id): place_key(each.tier, each.tenant_id, each.place)
            for each in reversed(ledger.expedited)  # the first of each queue
        }
        items = read_items(self.tables.store, (*places.values(), *(queue_key(*owner) for owner in places)))
        by_owner = {(w.queue.tier, w.queue.tenant_id): w for w in waiting}
        expedited: dict[str, str] = {}
        for (tier, tenant_id), place in reversed(places.items()):
            item, queue_item = items[place], items[queue_key(tier, tenant_id)]
            if item is None or queue_item is None:
                continue  # it waits no longer
            entry, queue = entry_from(item), queue_from(queue_item)
            if queue.paused or queue.parked_for:
                continue
            read = by_owner.get((tier, tenant_id)) or WaitingQueue(
                queue=queue, entries={name: profile.head_entries for name, profile in queue.profiles.items()}
            )
            entries = read.entries.get(entry.lane)
            if entries is None:
                continue  # the queue was read before it came or went
            if entry not in entries:
                both = tuple(sorted((*entries, entry), key=lambda each: each.order))
                read = replace(read, entries={**read.entries, entry.lane: both})
            by_owner[tier, tenant_id] = read
            expedited.setdefault(tier, entry.request_id)
        return [by_owner[owner] for owner in sorted(by_owner)], expedited

    def _waiting(self, queue: TenantQueue, policy: Policy, free: int) -> WaitingQueue:
        tier = policy.tier(queue.tier)
        admissible = min(free, policy.ceiling(tier, queue.tenant_id) - queue.running) if tier else 0
        return WaitingQueue(
            queue=queue,
            entries={
                name: (
                    profile.head_entries
                    if profile.whole or len(profile.head_entries) >= admissible
                    else self.tables.queues.entries(queue, name, limit=min(admissible, profile.waiting))
                )
                for name, profile in queue.profiles.items()
            },
        )

    def overview(self, policy: Policy, now: datetime, *, set_aside: int = 0) -> Snapshot:
        """Return more than a pass reads: full tiers too, and more entries of each queue; and at most `set_aside`
        of each tier's queues that passes skip, those parked or paused.
        """
        queues: list[WaitingQueue] = []
        partial: set[str] = set()
        for tier in policy.tiers:
            first, complete = self.tables.queues.first(tier, now)
            skipped = self.tables.queues.set_aside(tier.name, limit=set_aside) if set_aside else []
            # One that was parked between the two reads is in both.
            names = {queue.tenant_id for queue in first}
            read = (*first, *(queue for queue in skipped if queue.tenant_id not in names))
            queues += [self._with_many_entries(queue) for queue in read]
            partial |= set() if complete else {tier.name}
        ledger = self.tables.ledger.read()
        queues, expedited = self._with_expedited(queues, ledger) if ledger.expedited else (queues, {})
        return Snapshot(
            ledger=ledger,
            queues=tuple(queues),
            partial=frozenset(partial),
            expedited=expedited,
            holders=self.tables.holders(),
        )

    def waiting_queue(self, tier: str, tenant_id: str) -> WaitingQueue:
        """Return one tenant queue with its first entries, whether or not passes read it."""
        return self._with_many_entries(self.tables.queues.get(tier, tenant_id))

    def _with_many_entries(self, queue: TenantQueue) -> WaitingQueue:
        read = self.tables.queues.entries
        entries = {
            name: profile.head_entries
            if profile.whole
            else read(queue, name, limit=min(PAGE_MIN, profile.waiting))
            for name, profile in queue.profiles.items()
        }
        return WaitingQueue(queue=queue, entries=entries)

    # --- committing -----------------------------------------------------------------------------------------

    def commit(
        self, plan: Plan, read_set: ReadSet, policy: Policy, now: datetime, *, record: bytes | None = None
    ) -> Committed:
        """Admit the plan's requests and take their slots in one transaction; those that fit it.

        Raises Conflict when anything they rest on has changed, or a limit would be exceeded. `record` is what is
        kept of the pass.
        """
        snapshot = read_set.snapshot
        records = [_pass_record(record, snapshot.ledger.admission_version, now)] if record else []
        # The ledger's write depends on what is admitted; an empty one stands for it where writes are counted.
        others: list[Write] = [Update(LEDGER), *records]
        writes: list[Write] = []
        admitted: list[Decision] = []
        after: dict[tuple[str, str], TenantQueue] = {}
        for decisions in _by_queue(plan.admissions):
            group = decisions
            queue, changes = self._admit(group, policy, now, plan.month, read_set)
            while not writes and len(group) > 1 and not fits_one_transaction([*others, *changes]):
                group = group[: (len(group) + 1) // 2]  # more of one tenant than fits a transaction
                queue, changes = self._admit(group, policy, now, plan.month, read_set)
            if writes and not fits_one_transaction([*others, *writes, *changes]):
                below_cap = tuple(decision for decision in plan.admissions if not decision.above_cap)
                if below_cap and any(decision.above_cap for decision in admitted):
                    # What does not fit may be below its cap: then nobody above a cap may go before it.
                    return self.commit(replace(plan, admissions=below_cap), read_set, policy, now, record=record)
                break
            writes += changes
            admitted += group
            after[queue.tier, queue.tenant_id] = queue
        still_waiting = (after.get((w.queue.tier, w.queue.tenant_id), w.queue) for w in snapshot.queues)
        # Only a pass that has read all queues may say that nothing is left.
        later = later_from(read_set.bell)
        nobody_waits = read_set.rings is not None and all(later.settles(queue, now) for queue in still_waiting)
        drained = Drained(through=read_set.rings if nobody_waits else None, before=read_set.ledger)
        ledger = take_units(admitted, plan, snapshot.ledger, policy, now, drained)
        self.tables.store.transact([ledger, *writes, *records])
        return Committed(
            admissions=tuple(admitted),
            requests=_changed_requests(writes, read_set),
            read_set=self._after_commit(read_set, ledger, after, policy, now),
            full=_is_full(ledger_from(applied(read_set.ledger, ledger)), policy),
        )

    def _admit(
        self, group: Sequence[Decision], policy: Policy, now: datetime, month: str, read_set: ReadSet
    ) -> tuple[TenantQueue, list[Write]]:
        """Return a tenant queue after some of its requests were admitted on the account of a month, and what
        admits them.
        """
        before = after = group[0].queue
        for lane in dict.fromkeys(decision.entry.lane for decision in group):
            gone = [decision.entry for decision in group if decision.entry.lane == lane]
            after = self.tables.queues.without(after, *gone)
        for decision in group:
            after = holding(
                after,
                decision.entry.request_id,
                charge=decision.charge,
                reserved_usd=decision.reserved_usd,
                admitted_at=now,
                month=month,
                urgent=decision.urgent,
            )
        writes = refile(before, after, now)
        for decision in group:
            read_along = read_set.requests.get(decision.entry.request_id)
            writes.append(self._admit_request(decision, policy, now, month, read_along))
            writes.append(delete_entry(before, decision.entry))
            if decision.entry.keeps_interval:
                writes.append(note_start(before.tenant_id, decision.entry.data_set, now))
        return replace(after, revision=before.revision + 1, parked_for=None), writes

    def _admit_request(
        self, decision: Decision, policy: Policy, now: datetime, month: str, read_along: Item | None
    ) -> Write:
        """Return the write that admits a request; if it was read before, its content must not have changed."""
        tier = policy.tier(decision.queue.tier)
        assert tier is not None, "decide admits only tiers of the policy"
        runtime_max = decision.runtime_max or tier.runtime_max
        profile = ResourceProfile.parse(decision.entry.profile)
        same = tuple(Is(name, read_along[name]) for name in ("content", "attempt")) if read_along else ()
        return self.tables.requests.move(
            decision.entry.request_id,
            State.QUEUED,
            State.ADMITTED,
            now,
            tier=tier.name,
            cause=shortening(profile, runtime_max, tier, policy.prices),
            set={
                "admitted_at": stamp(now),
                "ends_by": stamp(now + profile.run_time(runtime_max)),
                "charge": decision.charge,
                **({"ahead": list(decision.ahead)} if decision.ahead else {}),
                "reserved_usd": decision.reserved_usd,
                "runtime_max_seconds": int(runtime_max.total_seconds()),
                "month": month,
            },
            add={"attempt": 1},
            remove=(
                "reason",
                "execution_arn",
                "started_at",
                "claimed_at",
                "heard_at",
                "stop_asked_at",
                "selected",
            ),
            when=(*same,),
        )

    def _after_commit(
        self,
        read_set: ReadSet,
        ledger: Update,
        after: Mapping[tuple[str, str], TenantQueue],
        policy: Policy,
        now: datetime,
    ) -> ReadSet | None:
        """Return what a pass would read after a commit; None where more waits than was read."""
        if read_set.snapshot.partial or read_set.snapshot.holders or read_set.snapshot.expedited:
            return None
        item = applied(read_set.ledger, ledger) or {}
        counted = ledger_from(item)
        unchanged = [w for w in read_set.snapshot.queues if (w.queue.tier, w.queue.tenant_id) not in after]
        changed = [queue for queue in after.values() if queue.profiles]
        waiting = [*unchanged, *self._with_entries(changed, policy, counted, now)]
        waiting.sort(key=lambda waiting: (waiting.queue.tier, waiting.queue.tenant_id))
        snapshot = replace(read_set.snapshot, ledger=counted, queues=tuple(waiting))
        if _needs_holders(waiting, policy, now):
            return None
        return replace(read_set, snapshot=snapshot, ledger=item, requests={})

    def put_bell_right(self, read_set: ReadSet, now: datetime) -> None:
        """Note the queues of which a request is due later, and no others, after a pass that has read all. Raises
        Conflict when something was noted since.
        """
        if read_set.rings is not None and not read_set.from_hints:
            update = put_right((waiting.queue for waiting in read_set.snapshot.queues), read_set.bell, now)
            if update is not None:
                self.tables.store.transact([update])

    # --- records of passes ----------------------------------------------------------------------------------

    def keep_record(self, record: bytes, ledger: Ledger, now: datetime) -> None:
        """Store the record of a pass that admitted nothing."""
        self.tables.store.transact([_pass_record(record, ledger.admission_version, now)])

    def pass_records(self, hour: datetime, *, limit: int = 200) -> list[bytes]:
        """Return the records of the passes of an hour, newest first."""
        partition = f"passes#{stamp(hour)[:13]}"
        items = listed(self.tables.store, "scheduler", partition, page=limit, newest_first=True)
        return [bytes(item["record"]) for item in islice(items, limit)]


def _pass_record(record: bytes, version: int, now: datetime) -> Put:
    hour, moment = stamp(now)[:13], stamp(now)
    return Put(
        Key("scheduler", (("pk", f"passes#{hour}"), ("sk", f"{moment}#{version:010d}"))),
        {"record": record, "expires_at": int((now + PASSES_KEPT).timestamp())},
    )


def _changed_requests(writes: Sequence[Write], read_set: ReadSet) -> dict[str, Request]:
    """Return the requests that were read before and are written, by id, as they are after."""
    changed = {
        write.key.pk: applied(read_set.requests[write.key.pk], write)
        for write in writes
        if write.key.table == "requests" and write.key.pk in read_set.requests
    }
    return {request_id: request_from(item) for request_id, item in changed.items() if item}


def _hint_keys(hint: Hint) -> tuple[Key, ...]:
    return (queue_key(hint.tier, hint.tenant_id), request_key(hint.request_id), tenant_key(hint.tenant_id))


def _is_full(ledger: Ledger, policy: Policy) -> bool:
    full = all(ledger.used_of_tier(tier.name) >= tier.slots_max for tier in policy.tiers)
    return ledger.used >= policy.running_max or (full and not any(_has_large(t, policy) for t in policy.tiers))


def _has_large(tier: TierPolicy, policy: Policy) -> bool:
    """Tell whether instances may have to be held for a request of the tier, even while its slots are taken."""
    of_algorithms = [choice for algorithm in policy.algorithms.values() for choice in algorithm.instances]
    choices = (*tier.instances, *of_algorithms)
    on_demand = [ResourceProfile.of(choice) for choice in choices]
    on_spot = [ResourceProfile.of(choice, spot_wait=tier.spot_wait) for choice in choices]
    return any(policy.pools_of_large(profile) for profile in (*on_demand, *on_spot))


def _needs_holders(waiting: Iterable[WaitingQueue], policy: Policy, now: datetime) -> bool:
    """Tell whether a request that takes several units of scarce instances may have waited too long."""
    for queue in waiting:
        tier = policy.tier(queue.queue.tier)
        for entries in queue.entries.values():
            large = policy.pools_of_large(ResourceProfile.parse(entries[0].profile))
            if tier and large and now - entries[0].arrived_at > tier.hold_age:
                return True
    return False


def _by_queue(decisions: Iterable[Decision]) -> list[list[Decision]]:
    groups: dict[tuple[str, str], list[Decision]] = {}
    for decision in decisions:
        groups.setdefault((decision.queue.tier, decision.queue.tenant_id), []).append(decision)
    return list(groups.values())
