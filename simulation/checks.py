"""The invariants, with one check each; a violation names the step at which it was found."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import takewhile
from math import floor
from typing import Any

from simulation.cloud import SageMaker, SimulatedJob, used
from testing.memory_store import MemoryStore
from trainyard.application.scheduling.record import NO_REPORT
from trainyard.domain.admission import decide
from trainyard.domain.budgets import Account, reservation
from trainyard.domain.executions import month_of
from trainyard.domain.names import parse_display_name
from trainyard.domain.policy import Budget, BudgetMode, Policy, TierPolicy
from trainyard.domain.queues import QueueEntry, TenantQueue, holding
from trainyard.domain.requests import HOLDING, TERMINAL, Content, Request, State
from trainyard.domain.resources import SLOTS, ResourceProfile, after, is_past, tier_slots
from trainyard.domain.retraining import Trigger
from trainyard.domain.scheduling import Decision, Ledger, Plan, Snapshot, WaitingQueue
from trainyard.persistence.book import execution_from
from trainyard.persistence.items import entry_from, queue_from, request_from, unstamp
from trainyard.persistence.ledger import LEDGER, ledger_from
from trainyard.persistence.store import Item, Write

INVARIANTS = tuple(f"I{number}" for number in range(1, 16))


class Violation(BaseException):
    """An invariant does not hold; no handler of the use cases may swallow it."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


@dataclass
class Checks:
    """Checks the store after every transaction, and SageMaker after every change."""

    store: MemoryStore
    sagemaker: SageMaker
    clock: Callable[[], datetime]
    """The true time."""
    skew: timedelta
    """By how much the clocks of the functions may differ from it."""
    policy_of: Mapping[int, Policy]
    """Version → policy; grows as policies are applied."""
    interval_of: Callable[[str, str], timedelta]
    """Tenant and data set → the interval that its trainings keep."""
    starts: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """Tenant and data set → the last start of a training that keeps an interval."""
    submitted: dict[str, list[Content]] = field(default_factory=dict)
    """Request → contents that were submitted for it; a retraining that is delivered twice may find other data."""
    contents: dict[str, Content] = field(default_factory=dict)
    """Request → the content of these that was enlisted."""
    ledger_before: Ledger = field(default_factory=lambda: Ledger(admission_version=0))
    requests: dict[str, Item] = field(default_factory=dict)
    queues: dict[tuple[str, str], TenantQueue] = field(default_factory=dict)
    drift: dict[str, int] = field(default_factory=dict)
    """Name of a count in the ledger → by how much it was changed by hand."""
    drift_repaired: int = 0
    alarms: set[tuple[str, str]] = field(default_factory=set)
    """Request, and what was published about its deadline."""
    afforded: dict[tuple[str, str], Decimal] = field(default_factory=dict)
    """Who and month → the highest commitment at an admission."""

    def transacted(self, writes: Sequence[Write]) -> None:
        ledger = ledger_from(self.store.items.get(LEDGER))
        policy = self._epoch(ledger)
        left: list[str] = []
        for write in writes:
            if write.key.table == "requests":
                left += self._request_changed(write)
            elif dict(write.key.values)["pk"].startswith("tier#"):
                self._queue_changed(write, policy)
        self._limits(ledger, policy)
        self._counts(ledger)
        for request_id in left:
            self._no_execution_without_slot(request_id)
        self.ledger_before = ledger

    def _epoch(self, ledger: Ledger) -> Policy:
        """I15: the limits by which somebody is admitted are those of a time that no clock has passed for long, and
        nobody decides by earlier ones afterwards. Returns them.
        """
        before = self.ledger_before.epoch
        if before is not None and (ledger.epoch is None or ledger.epoch < before):
            raise Violation("I15", f"the epoch goes back from {before} to {ledger.epoch}")
        policy = self.policy_of[ledger.policy_version]
        oldest = policy.at(self.clock() - self.skew).epoch
        late = oldest is not None and (ledger.epoch is None or ledger.epoch < oldest)
        if ledger.used > self.ledger_before.used and late and not self.drift:
            raise Violation("I15", f"admitted by the limits of {ledger.epoch}, after {oldest}")
        return policy.at(ledger.epoch or self.clock())

    def _request_changed(self, write: Write) -> list[str]:
        """I4; returns the request if it released its slot."""
        request_id = write.key.values[0][1]
        before, after = self.requests.get(request_id), self.store.items.get(write.key)
        assert after is not None, "requests are never deleted"
        if before is not None and State(before["state"]) in TERMINAL:
            changed = [n for n in ("state", "attempt", "finished_at") if before.get(n) != after.get(n)]
            if changed:
                raise Violation("I4", f"request {request_id} was {before['state']}: {changed} changed")
        if before is None:
            self._enlisted(request_id, after)
        self.requests[request_id] = after
        if before is not None and (before["state"], after["state"]) == ("QUEUED", "ADMITTED"):
            self._in_intervals(request_from({**after, "request_id": request_id}))
        self._on_spot(after)
        held = before is not None and State(before["state"]) in HOLDING
        holds = State(after["state"]) in HOLDING
        return [request_id] if held and not holds else []

    def _in_intervals(self, request: Request) -> None:
        """I18: between the starts of two trainings of a data set lies at least its interval; further attempts, and
        what a person asked for, start when they can.
        """
        if not request.keeps_interval:
            return
        interval = self.interval_of(request.tenant_id, request.data_set)
        last = self.starts.get((request.tenant_id, request.data_set))
        assert request.admitted_at is not None, "it was admitted just now"
        exempt = request.attempt > 1 or Trigger.PERSON in request.triggers
        if last is not None and not exempt and request.admitted_at < last + interval:
            raise Violation(
                "I18", f"{request.request_id} starts {request.admitted_at - last} after the one before"
            )
        self.starts[request.tenant_id, request.data_set] = request.admitted_at

    def _enlisted(self, request_id: str, item: Item) -> None:
        request = request_from({**item, "request_id": request_id})
        known = [content for uploads in request.uploads for content in (uploads.sequenced, uploads.bare)]
        submitted = self.submitted.get(request_id, [])
        taken = [content for content in submitted if content in known]
        if submitted:
            self.contents[request_id] = (taken or submitted)[0]

    def _queue_changed(self, write: Write, policy: Policy) -> None:
        """I1 for tenants, and I5."""
        item = self.store.items.get(write.key)
        if item is None or item.get("copy"):
            return
        queue = queue_from(item)
        key = (queue.tier, queue.tenant_id)
        before = self.queues.get(key, TenantQueue(tenant_id=queue.tenant_id, tier=queue.tier))
        tier = policy.tier(queue.tier)
        if tier and queue.running > before.running and queue.running > policy.ceiling(tier, queue.tenant_id):
            raise Violation("I1", f"tenant {queue.tenant_id} holds {queue.running} slots, above its ceiling")
        grown = queue.running > before.running
        committed = queue.spent_usd + queue.reserved_usd
        self._afford(
            f"tenant {queue.tenant_id}", queue.month, committed, policy.tenant(queue.tenant_id).budget, grown
        )
        if queue.reserved_usd < 0 or queue.running < 0:
            raise Violation("I2", f"{queue.tenant_id}: {queue.running} slots, {queue.reserved_usd} USD reserved")
        self.queues[key] = queue

    def _afford(self, who: str, month: str, committed: Decimal, budget: Budget | None, grown: bool) -> None:
        """I5: at every admission, what is spent and reserved in a month is within the budget; a hard budget is
        also kept afterwards.
        """
        if budget is None:
            self.afforded.pop((who, month), None)
            return
        if grown and committed > budget.limit_usd:
            raise Violation("I5", f"{who}: {committed} of {budget.limit_usd} USD in {month}")
        known = self.afforded.get((who, month), committed)
        self.afforded[who, month] = max(known, committed) if grown else known
        if (
            budget.mode is BudgetMode.HARD
            and committed > self.afforded[who, month]
            and committed > budget.limit_usd
        ):
            raise Violation(
                "I5", f"{who}: {committed} USD in {month}, {known} at admission, limit {budget.limit_usd} USD"
            )

    def _limits(self, ledger: Ledger, policy: Policy) -> None:
        """I1: no count grows above its limit, and no tier borrows slots that others do not lend."""
        before = self.ledger_before
        if ledger.used > before.used and ledger.used > policy.running_max:
            raise Violation("I1", f"account: {ledger.used} of {policy.running_max}")
        for tier in policy.tiers:
            used, was = ledger.used_of_tier(tier.name), before.used_of_tier(tier.name)
            if used > was and used > tier.slots_max:
                raise Violation("I1", f"tier {tier.name}: {used} of {tier.slots_max}")
            if used > was and used > tier.quota and was >= tier.quota and not self.drift:
                self._lending(tier, ledger, policy)
            name, grown = f"{ledger.month} {tier.name}", used > was
            committed = ledger.spent_in.get(name, Decimal(0)) + ledger.reserved_in.get(name, Decimal(0))
            self._afford(f"tier {tier.name}", ledger.month, committed, tier.budget, grown)
        for resource, quota in policy.instance_quotas.items():
            used, was = ledger.usage.get(resource, 0), before.usage.get(resource, 0)
            if used > was and used > quota:
                raise Violation("I1", f"{resource}: {used} of {quota}")
        for change in policy.ahead:
            for resource, units in change.lower.items():
                name = after(change.at, resource)
                used, was = ledger.usage.get(name, 0), before.usage.get(name, 0)
                if used > was and used > units:
                    raise Violation("I15", f"{name}: {used} of {units}")

    def _lending(self, borrower: TierPolicy, ledger: Ledger, policy: Policy) -> None:
        before = self.ledger_before
        others = [tier for tier in policy.tiers if tier is not borrower]
        kept = sum(max(tier.quota - tier.lending_limit - before.used_of_tier(tier.name), 0) for tier in others)
        # Tiers below their quotas may have taken slots of their own in the same transaction, above caps after it.
        own = sum(
            max(min(ledger.used_of_tier(tier.name), tier.quota) - before.used_of_tier(tier.name), 0)
            for tier in others
        )
        if policy.running_max - ledger.used + own < kept:
            raise Violation("I1", f"tier {borrower.name} borrowed from the {kept} slots that others do not lend")

    def _counts(self, ledger: Ledger) -> None:
        """I2: the ledger and the tenant queues count the requests that hold a slot."""
        counted: dict[str, int] = {SLOTS: 0}
        by_queue: dict[tuple[str, str], int] = {}
        for item in self.requests.values():
            if item["state"] in ("ADMITTED", "RUNNING"):
                key = (item["tier"], item["tenant_id"])
                by_queue[key] = by_queue.get(key, 0) + 1
                profile = ResourceProfile.parse(item["profile"])
                self._may_get(item)
                demand = profile.on(item.get("selected")).demand(item["tier"], item.get("ahead", ()))
                for resource, units in demand.items():
                    counted[resource] = counted.get(resource, 0) + units
        kept = dict(ledger.usage)
        # What is counted for a change counts until it comes, by whoever's clock.
        come = max(self.clock() + self.skew + timedelta(seconds=1), ledger.epoch or self.clock())
        names = {name for name in (*counted, *kept) if not is_past(name, come)}
        if self.drift and all(kept.get(name, 0) == counted.get(name, 0) for name in names):
            self.drift = {}
            self.drift_repaired += 1
        for name in names:
            if kept.get(name, 0) != counted.get(name, 0) + self.drift.get(name, 0):
                raise Violation("I2", f"{name}: ledger {kept.get(name, 0)}, holders {counted.get(name, 0)}")
        for key, queue in self.queues.items():
            if queue.running != by_queue.get(key, 0):
                raise Violation("I2", f"queue {key}: {queue.running}, holders {by_queue.get(key, 0)}")

    def _may_get(self, item: Mapping[str, Any]) -> None:
        """I16: a run counts in the pool of each instance type that SageMaker may still select for it, or has."""
        selected, profile = item.get("selected"), ResourceProfile.parse(item["profile"])
        if selected is not None:
            execution = self.sagemaker.executions[item["execution_arn"]]
            if execution.selected(self.clock()) != selected:
                raise Violation("I16", f"{item['request_id']} is said to train on {selected}, and does not")
        _, types, instances, _, *further = item["profile"].split(" ")
        usage = "spot" if any(part.startswith("spot/") for part in further) else "training"
        pools = {f"{usage}/{name}": int(instances) for name in ([selected] if selected else types.split(","))}
        if pools.items() - profile.on(selected).demand(item["tier"]).items():
            raise Violation("I16", f"{item['request_id']} does not count in each of {sorted(pools)}")

    def _on_spot(self, item: Mapping[str, Any]) -> None:
        """I17: only first attempts train on spot capacity, and none fails for lack of it."""
        if ResourceProfile.parse(item["profile"]).is_on_spot and item.get("failures", 0):
            raise Violation("I17", f"{item['request_id']} is on spot capacity after {item['failures']} failures")
        execution = self.sagemaker.executions.get(item.get("execution_arn", ""))
        lacked = execution is not None and execution.interrupted and item["state"] == State.FAILED.value
        if lacked and item.get("reason") != NO_REPORT:
            raise Violation("I17", f"{item['request_id']} failed because its spot capacity was taken away")

    # --- executions ---------------------------------------------------------------------------------------

    def executed(self, name: str) -> None:
        """I3, I1 and I17, after an execution has started."""
        if len(self.sagemaker.by_name[name]) > 1:
            raise Violation("I3", f"execution {name} was started twice")
        parsed = parse_display_name(name)
        assert parsed is not None
        item = self.requests[parsed.request_id]
        if State(item["state"]) not in HOLDING or item["attempt"] != parsed.attempt:
            raise Violation("I1", f"execution {name} runs without a slot: {item['state']} {item['attempt']}")
        (execution,) = self.sagemaker.by_name[name]
        longest = unstamp(item["ends_by"]) - unstamp(item["admitted_at"])
        if execution.ends_at - execution.started_at > longest:
            raise Violation("I17", f"execution {name} may last longer than {longest}, for which it has its slot")

    def _no_execution_without_slot(self, request_id: str) -> None:
        for execution in self.sagemaker.alive():
            parsed = parse_display_name(execution.name)
            if parsed is not None and parsed.request_id == request_id:
                raise Violation("I1", f"execution {execution.name} is running, but its slot was released")

    def alarmed(self, request_id: str, what: str) -> None:
        """I14: whatever happens to a deadline is published once."""
        if (request_id, what) in self.alarms:
            raise Violation("I14", f"request {request_id}: {what} was published twice")
        self.alarms.add((request_id, what))

    # --- after a pass ----------------------------------------------------------------------------------------

    def planned(self, snapshot: Snapshot, policy: Policy, now: datetime, plan: Plan) -> None:
        """I13: whenever a plan admits a request above its tenant's cap, no request below a cap may go, and a slot
        stays free of the account and of the tier, unless the run is short.
        """
        queues = {(waiting.queue.tier, waiting.queue.tenant_id): waiting for waiting in snapshot.queues}
        # What instances are held for before anything is admitted; the ledger has what a pass before held them for.
        holds = decide(snapshot, policy, now, admissions_max=0).capacity_holds
        ledger = replace(snapshot.ledger, month=plan.month, capacity_holds=holds)
        for decision in plan.admissions:
            key = (decision.queue.tier, decision.queue.tenant_id)
            tier = policy.tier(decision.queue.tier)
            assert tier is not None, "only tiers of the policy admit"
            queue = queues[key].queue
            if queue.running >= policy.cap(tier, queue.tenant_id):
                read = replace(snapshot, ledger=ledger, queues=tuple(queues.values()))
                self._above_cap(decision, queue, tier, read, policy, now)
            self._expedited(
                decision, tier, replace(snapshot, ledger=ledger, queues=tuple(queues.values())), policy, now
            )
            self._in_turn(decision, queues[key], replace(snapshot, ledger=ledger), policy, now)
            self._counted_ahead(decision, tier, policy, now)
            ledger, queues[key] = _admitted(ledger, queues[key], decision, now)

    def _expedited(
        self, decision: Decision, tier: TierPolicy, snapshot: Snapshot, policy: Policy, now: datetime
    ) -> None:
        """I14: what is expedited is first in its tier, at most every fourth time."""
        ledger, first = snapshot.ledger, snapshot.expedited.get(tier.name)
        since = ledger.since_expedited.get(tier.name, 4)
        if decision.expedited and (decision.entry.request_id != first or since < 3):
            raise Violation("I14", f"{decision.entry.request_id} was expedited after {since} others")
        if decision.expedited or decision.above_cap or since < 3 or ledger.capacity_holds:
            return
        for waiting in snapshot.queues:
            queue = waiting.queue
            below = queue.running < policy.cap(tier, queue.tenant_id) and not queue.paused
            if queue.tier == tier.name and below:
                for entry in (entry for entries in waiting.entries.values() for entry in entries):
                    could = entry.due_at <= now and _fits(entry, queue, tier, ledger, policy, now)
                    if entry.request_id == first and could:
                        raise Violation(
                            "I14", f"{decision.entry.request_id} goes before {first}, which is expedited"
                        )

    def _counted_ahead(self, decision: Decision, tier: TierPolicy, policy: Policy, now: datetime) -> None:
        """I15: a run that is likely to last until its tier has fewer slots counts among those that it has then."""
        ends, most, limits = now + _likely_time(decision.entry, tier), (tier.quota, tier.slots_max), policy
        while limits.changes_at is not None and limits.changes_at < ends:
            change = limits.changes_at
            limits = limits.at(change)
            later = next(t for t in limits.tiers if t.name == tier.name)
            fewer = later.quota < most[0] or later.slots_max < most[1]
            if fewer != (after(change, tier_slots(tier.name)) in decision.ahead):
                raise Violation("I15", f"{decision.entry.request_id} lasts beyond {change}: {decision.ahead}")
            least = (later.quota, later.slots_max)
            most = least if fewer else (max(most[0], least[0]), max(most[1], least[1]))

    def _in_turn(
        self, decision: Decision, waiting: WaitingQueue, snapshot: Snapshot, policy: Policy, now: datetime
    ) -> None:
        """I14: a request that is not urgent, or hopeless, is passed by three urgent ones of its tenant at most. Of
        urgent ones on the same instances, the one of the greatest priority and earliest latest start goes.
        """
        queue, entry = waiting.queue, decision.entry
        tier = policy.tier(queue.tier)
        assert tier is not None, "only tiers of the policy admit"
        waits = [e for entries in waiting.entries.values() for e in entries if e.due_at <= now and e != entry]
        if snapshot.ledger.capacity_holds or decision.expedited or not decision.urgent:
            return
        better = [
            e.request_id
            for e in waits
            if e.lane == entry.lane and not e.is_hopeless(now) and e.order < entry.order
        ]
        if better:
            raise Violation("I14", f"{entry.request_id} of {queue.tenant_id} goes before {better[:2]}")
        plain = [e for lane in waiting.entries for e in _first_plain(waiting, lane, now)]
        fitting = [
            e.request_id
            for e in plain
            if e != entry
            and _fits(e, queue, tier, snapshot.ledger, policy, now)
            and (e.is_short or not decision.above_cap)
        ]
        if fitting and queue.urgent_in_a_row >= 3:
            raise Violation("I14", f"{entry.request_id} of {queue.tenant_id} passes {fitting[:2]} once too often")

    def _above_cap(
        self,
        decision: Decision,
        queue: TenantQueue,
        tier: TierPolicy,
        snapshot: Snapshot,
        policy: Policy,
        now: datetime,
    ) -> None:
        who, ledger = f"request {decision.entry.request_id} of {queue.tenant_id}", snapshot.ledger
        free = _free(ledger, policy, now)
        if not decision.above_cap or queue.running >= policy.ceiling(tier, queue.tenant_id):
            raise Violation("I13", f"{who}: {queue.running} slots are held already")
        if not decision.entry.is_short and min(free, tier.slots_max - ledger.used_of_tier(tier.name)) < 2:
            raise Violation("I13", f"{who} goes above its cap, and no slot stays free")
        if decision.entry.request_id in ledger.capacity_holds.values():
            raise Violation("I13", f"{who} goes above its cap, and instances are held for it")
        could: dict[str, list[str]] = {}
        for other in policy.tiers:
            if other.name in ledger.paused_tiers or other.closed:
                continue
            below = [w for w in snapshot.queues if w.queue.tier == other.name and not w.queue.paused]
            below = [w for w in below if w.queue.running < policy.cap(other, w.queue.tenant_id)]
            could[other.name] = [
                entry.request_id
                for waiting in below
                for entries in waiting.entries.values()
                for entry in entries[:1]
                if entry.due_at <= now and _fits(entry, waiting.queue, other, ledger, policy, now)
            ]
            if other.name in snapshot.partial:
                could[other.name].append("one that was not read")
        going = self._going(could, ledger, policy, free)
        if going and not ledger.capacity_holds:
            raise Violation("I13", f"{who} goes above its cap, although {going} may go below theirs")

    def _going(self, could: Mapping[str, Sequence[str]], ledger: Ledger, policy: Policy, free: int) -> str | None:
        """Return what waits although its tier has slots of its own, or may borrow one; None where nothing does."""
        for tier in policy.tiers:
            used = ledger.used_of_tier(tier.name)
            if not could.get(tier.name) or used >= tier.slots_max:
                continue
            if used < tier.quota:
                return f"{could[tier.name][:2]} of tier {tier.name}, which has free slots"
            if free - _kept_free(tier, ledger, policy) >= 1:
                return f"{could[tier.name][:2]} of tier {tier.name}, which could borrow"
        return None

    def all_due_read(self, snapshot: Snapshot, now: datetime) -> None:
        """I9: a pass that reads only what it is told of reads every queue in which a request is due."""
        read = {(waiting.queue.tier, waiting.queue.tenant_id) for waiting in snapshot.queues}
        for (tier, tenant_id), queue in self.queues.items():
            if (tier, tenant_id) not in read and not queue.paused and not queue.parked_for:
                due = [entry.request_id for entry in self._entries(tier, tenant_id) if entry.due_at <= now]
                if due:
                    raise Violation(
                        "I9", f"a pass that was told of {sorted(read)} does not know that {due} are due"
                    )

    def nobody_left_out(self, now: datetime, *, partial: bool) -> None:
        """I9: no slot is free while a request waits that all limits allow; with `partial`, not all were read."""
        ledger = ledger_from(self.store.items.get(LEDGER))
        policy = self.policy_of[ledger.policy_version].at(now, ledger.epoch)
        shrunk = ledger.throttled_until is not None and now < ledger.throttled_until
        if ledger.capacity_holds:
            self._saved_goes(ledger, policy, now)
        if ledger.paused or ledger.capacity_holds or shrunk or not _starts_allowed(ledger, policy, now):
            return
        free = policy.running_max - ledger.unmanaged - ledger.used
        if free <= 0:
            return
        could = {tier.name: self._could_go(tier, ledger, policy, now) for tier in policy.tiers}
        idle = self._going(could, ledger, policy, free)
        if idle:
            raise Violation("I9", f"there waits {idle}")
        # Nobody below a cap may go: those above it may, if a slot stays free.
        above = (
            {} if partial else {tier.name: self._could_exceed(tier, ledger, policy, now) for tier in policy.tiers}
        )
        idle = self._going(above, ledger, policy, free)
        if idle:
            raise Violation("I9", f"there waits, above its cap, {idle}")

    def _saved_goes(self, ledger: Ledger, policy: Policy, now: datetime) -> None:
        """I9: the oldest request with a capacity hold does not wait if the held instances suffice and its tier has
        slots; the others must not delay it.
        """
        if ledger.paused or policy.running_max - ledger.unmanaged - ledger.used < 1:
            return
        if not _starts_allowed(ledger, policy, now) or (ledger.throttled_until and now < ledger.throttled_until):
            return
        held = set(ledger.capacity_holds.values()) & self.requests.keys()
        first = sorted(held, key=lambda name: (self.requests[name]["arrived_at"], name))[:1]
        for tier in policy.tiers:
            if ledger.used_of_tier(tier.name) < tier.quota:
                going = set(self._could_go(tier, ledger, policy, now)).intersection(first)
                if going:
                    raise Violation("I9", f"{sorted(going)[:2]} wait, although the held instances suffice")

    def _could_go(self, tier: TierPolicy, ledger: Ledger, policy: Policy, now: datetime) -> list[str]:
        """Return the requests of a tier that their own limits allow, at most as many as each tenant may add."""
        if tier.name in ledger.paused_tiers or tier.closed:
            return []
        found: list[str] = []
        for (name, tenant_id), queue in self.queues.items():
            if name == tier.name and not queue.paused:
                spare = policy.cap(tier, tenant_id) - queue.running
                entries = sorted(
                    (p for p in self._entries(name, tenant_id) if p.due_at <= now),
                    key=lambda p: (p.is_hopeless(now), p.order),
                )
                going = [
                    entry.request_id
                    for profile in queue.profiles
                    for entry in _affordable(
                        [entry for entry in entries if entry.lane == profile], queue, tier, ledger, policy, now
                    )
                ]
                found += going[: max(spare, 0)]
        return found

    def _could_exceed(self, tier: TierPolicy, ledger: Ledger, policy: Policy, now: datetime) -> list[str]:
        """Return the requests of a tier that may go although their tenants have reached their caps."""
        if tier.name in ledger.paused_tiers or tier.closed:
            return []
        free = min(_free(ledger, policy, now), tier.slots_max - ledger.used_of_tier(tier.name))
        could: list[str] = []
        for (name, tenant_id), queue in self.queues.items():
            room = policy.cap(tier, tenant_id) <= queue.running < policy.ceiling(tier, tenant_id)
            if name == tier.name and not queue.paused and room:
                due = sorted(
                    (p for p in self._entries(name, tenant_id) if p.due_at <= now),
                    key=lambda p: (p.is_hopeless(now), p.order),
                )
                heads = [next((p for p in due if p.lane == lane), None) for lane in queue.profiles]
                could += [
                    head.request_id
                    for head in heads
                    if head and (head.is_short or free > 1) and _fits(head, queue, tier, ledger, policy, now)
                ]
        return could

    def _entries(self, tier: str, tenant_id: str) -> Iterable[QueueEntry]:
        for key, item in self.store.items.items():
            if key.table == "scheduler" and key.values[0][1] == f"entries#{tier}#{tenant_id}":
                yield entry_from(item)

    # --- at rest ---------------------------------------------------------------------------------------------

    def at_rest(self, accepted: Iterable[str]) -> None:
        """I3, I6, I7 and I8."""
        requests = {
            request_id: request_from({**item, "request_id": request_id})
            for request_id, item in self.requests.items()
        }
        for request_id in accepted:
            request = requests.get(request_id)
            if request is None or request.state not in TERMINAL:
                raise Violation("I7", f"request {request_id} is {request.state if request else 'lost'}")
        ledger = ledger_from(self.store.items.get(LEDGER))
        # What was counted for a change that has come is forgotten by the next commit.
        counts: dict[str, Any] = {r: n for r, n in ledger.usage.items() if not is_past(r, self.clock())}
        reserved = {str(key): queue.reserved_usd for key, queue in self.queues.items() if queue.reserved_usd}
        reserved |= {name: usd for name, usd in ledger.reserved_in.items() if usd}
        if any(counts.values()) or reserved:
            raise Violation("I8", f"at rest {counts}, reserved {reserved}")
        for execution in self.sagemaker.executions.values():
            parsed = parse_display_name(execution.name)
            others = [
                e
                for e in self.sagemaker.executions.values()
                if parsed and e is not execution and e.status == execution.status == "Succeeded"
                if (p := parse_display_name(e.name)) and p.request_id == parsed.request_id
            ]
            if others:
                raise Violation("I3", f"{execution.name} and {others[0].name} both succeeded")
        self._newest(requests)
        self._booked(requests)

    def _softly(self, tenant_id: str, tier: str) -> bool:
        """Tell whether an execution may have been admitted on soft budgets."""
        budgets = [policy.tenant(tenant_id).budget for policy in self.policy_of.values()]
        budgets += [found.budget for policy in self.policy_of.values() if (found := policy.tier(tier))]
        return any(budget is not None and budget.mode is BudgetMode.SOFT for budget in budgets)

    @property
    def outbox(self) -> list[str]:
        """Return the outbox entries that still have to be processed."""
        keys = [dict(key.values) for key in self.store.items if key.table == "record"]
        return [values["sk"] for values in keys if values["pk"] == "outbox"]

    def _booked(self, requests: Mapping[str, Request]) -> None:
        """I5: every execution is recorded once, with its cost and month, computed from SageMaker's jobs alone."""
        expected: dict[tuple[str, str], Decimal] = {}
        records = {
            (r.request_id, r.attempt): r
            for key, item in self.store.items.items()
            if key.table == "record" and dict(key.values)["pk"].startswith("request#")
            for r in [execution_from(item)]
        }
        for execution in self.sagemaker.executions.values():
            parsed = parse_display_name(execution.name)
            assert parsed is not None
            record = records.pop((parsed.request_id, parsed.attempt), None)
            if record is None:
                raise Violation("I5", f"execution {execution.name} was never recorded")
            cost = sum((_job_cost(job, job.billable(n)) for job, _, n in used(execution)), Decimal(0))
            if record.cost_usd != cost or record.unknown or not record.is_final:
                raise Violation("I5", f"execution {execution.name} cost {cost}, recorded {record.cost_usd}")
            if (
                record.reserved_usd
                and cost > record.reserved_usd
                and not self._softly(record.tenant_id, record.tier)
            ):
                raise Violation("I5", f"execution {execution.name} cost {cost}, reserved {record.reserved_usd}")
            near = {month_of(execution.started_at + timedelta(minutes=m)) for m in (-45, 0, 5)}
            if record.month not in near:
                raise Violation("I5", f"execution {execution.name} was recorded in {record.month}")
            key = (record.month, record.tenant_id)
            expected[key] = expected.get(key, Decimal(0)) + cost
        if records:
            raise Violation("I5", f"{sorted(records)[:2]} were recorded but never ran")
        booked: dict[tuple[str, str], Decimal] = {}
        for item_key, item in self.store.items.items():
            values = dict(item_key.values)
            if item_key.table == "record" and values["pk"].startswith("month#"):
                owner = (values["pk"][6:], values["sk"].split("#")[0])
                booked[owner] = booked.get(owner, Decimal(0)) + item.get("usd", Decimal(0))
        if {k: v for k, v in booked.items() if v} != {k: v for k, v in expected.items() if v}:
            raise Violation("I5", f"recorded {booked}, cost {expected}")

    def _newest(self, requests: Mapping[str, Request]) -> None:
        """I6: of all merged contents, the newest is the one that the remaining request trains on."""
        groups: dict[str, list[str]] = {}
        for request_id, request in requests.items():
            survivor = request
            while survivor.state is State.SUPERSEDED:
                if survivor.superseded_by is None or survivor.superseded_by not in requests:
                    raise Violation("I6", f"request {survivor.request_id} was superseded, but by no request")
                survivor = requests[survivor.superseded_by]
            groups.setdefault(survivor.request_id, []).append(request_id)
        for survivor_id, members in groups.items():
            known = [self.contents[member] for member in members if member in self.contents]
            if known and requests[survivor_id].content != newest_of(known):
                raise Violation(
                    "I6",
                    f"request {survivor_id} trains on {requests[survivor_id].content}, not on {newest_of(known)}",
                )


def newest_of(contents: Sequence[Content]) -> Content:
    """Return the newest content as defined in docs/admission.md, given all of them at once."""
    key = max(contents, key=lambda c: (c.event_time, c.key)).key
    of_key = [content for content in contents if content.key == key]

    def moment(content: Content) -> tuple[datetime, str, str]:
        return (content.event_time, content.version_id or "", content.etag)

    sequenced = [content for content in of_key if content.sequencer]
    bare = [content for content in of_key if not content.sequencer]
    if not sequenced or not bare:
        return max(sequenced or bare, key=lambda c: (c.sequencer.lower().ljust(32, "0"), *moment(c)))
    first = max(sequenced, key=lambda c: (c.sequencer.lower().ljust(32, "0"), *moment(c)))
    second = max(bare, key=moment)
    return second if second.event_time > first.event_time else first


def _affordable(
    entries: Sequence[QueueEntry],
    queue: TenantQueue,
    tier: TierPolicy,
    ledger: Ledger,
    policy: Policy,
    now: datetime,
) -> list[QueueEntry]:
    """Return the queue entries before the first that does not fit: none overtakes another of its tenant."""
    return list(takewhile(lambda entry: _fits(entry, queue, tier, ledger, policy, now), entries))


def _fits(
    entry: QueueEntry, queue: TenantQueue, tier: TierPolicy, ledger: Ledger, policy: Policy, now: datetime
) -> bool:
    profile = ResourceProfile.parse(entry.profile)
    for resource, need in profile.instances_by_type.items():
        quota = policy.instance_quotas.get(resource)
        if quota is not None and ledger.usage.get(resource, 0) + need > quota:
            return False
    demand = profile.demand(tier.name)
    ahead = policy.ahead_of(demand, now + _likely_time(entry, tier))
    for resource, need in profile.demand(tier.name, ahead).items():
        if resource not in demand and ledger.usage.get(resource, 0) + need > policy.limits[resource]:
            return False
    month = max(ledger.month, month_of(now))
    name = f"{month} {tier.name}"
    shared = ledger.spent_in.get(name, Decimal(0)) + ledger.reserved_in.get(name, Decimal(0))
    accounts = [(policy.tenant(queue.tenant_id).budget, queue.committed_usd(month)), (tier.budget, shared)]
    known = [Account(budget, committed) for budget, committed in accounts if budget is not None]
    reserved = reservation(
        profile, tier, policy.prices, known, job_seconds=entry.job_seconds, usd_p90=entry.usd_p90
    )
    return reserved is not None


def _likely_time(entry: QueueEntry, tier: TierPolicy) -> timedelta:
    """Return what nine of ten such runs take at most; the longest time where nobody knows."""
    longest = ResourceProfile.parse(entry.profile).run_time(tier.runtime_max)
    return timedelta(seconds=entry.seconds_p90) if entry.seconds_p90 else longest


def _job_cost(job: SimulatedJob, seconds: int) -> Decimal:
    """Return what a job costs, by list price and volume, to a millionth of a dollar."""
    hourly = {  # by hand from `testing.service.PRICES`
        "ml.m5.large": Fraction("0.115"),
        "ml.m5.xlarge": Fraction("0.23"),
        "ml.t3.medium": Fraction("0.05"),
    }[job.instance_type]
    volume = Fraction("0.14") * job.volume_gb / 730
    millionths = (hourly + volume) * job.instance_count * seconds / 3600 * 10**6
    return Decimal(floor(millionths + Fraction(1, 2))).scaleb(-6)


def _first_plain(waiting: WaitingQueue, lane: str, now: datetime) -> list[QueueEntry]:
    """Return the first entry of a lane if it is due and either not urgent or hopeless, as all that are due are."""
    due = [entry for entry in waiting.entries[lane] if entry.due_at <= now]
    if any(entry.is_urgent and not entry.is_hopeless(now) for entry in due):
        return []
    # Only the first entry of a lane that is not urgent may go, and it may not be due yet.
    return due[:1] if due and (due[0].is_urgent or due[0] == waiting.entries[lane][0]) else []


def _free(ledger: Ledger, policy: Policy, now: datetime) -> int:
    """Return the free slots of the account."""
    slots = policy.running_max - ledger.unmanaged
    if ledger.throttled_until is not None and now < ledger.throttled_until:
        slots = min(slots, ledger.throttled_to or 0)
    return slots - ledger.used


def _kept_free(borrower: TierPolicy, ledger: Ledger, policy: Policy) -> int:
    """Return the idle slots that other tiers do not lend to one that borrows."""
    idle = {tier: tier.quota - tier.lending_limit - ledger.used_of_tier(tier.name) for tier in policy.tiers}
    return sum(max(slots, 0) for tier, slots in idle.items() if tier is not borrower)


def _admitted(
    ledger: Ledger, waiting: WaitingQueue, decision: Decision, now: datetime
) -> tuple[Ledger, WaitingQueue]:
    """Return the ledger and a queue after one admission."""
    queue, entry = waiting.queue, decision.entry
    usage = dict(ledger.usage)
    for resource, units in ResourceProfile.parse(entry.profile).demand(queue.tier, decision.ahead).items():
        usage[resource] = usage.get(resource, 0) + units
    account = f"{ledger.month} {queue.tier}"
    reserved = {**ledger.reserved_in, account: ledger.reserved_in.get(account, Decimal(0)) + decision.reserved_usd}
    held = holding(
        queue,
        entry.request_id,
        charge=decision.charge,
        reserved_usd=decision.reserved_usd,
        admitted_at=now,
        month=ledger.month,
        urgent=decision.urgent,
    )
    rest = {**waiting.entries, entry.lane: tuple(e for e in waiting.entries[entry.lane] if e != entry)}
    since = 0 if decision.expedited else min(ledger.since_expedited.get(queue.tier, 4) + 1, 3)
    counts = {**ledger.since_expedited, queue.tier: since}
    ledger = replace(ledger, usage=usage, reserved_in=reserved, since_expedited=counts)
    return ledger, WaitingQueue(queue=held, entries=rest)


def _starts_allowed(ledger: Ledger, policy: Policy, now: datetime) -> bool:
    if policy.starts_per_second is None or ledger.starts_from is None:
        return True
    return (now - ledger.starts_from).total_seconds() * policy.starts_per_second >= 1
