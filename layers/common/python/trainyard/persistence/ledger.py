"""The ledger: how much of each limit is taken; and the executions that hold no slot.

    pk          sk          what
    ledger      ledger      units taken of each resource; versions; money by month and tier; pauses
    unmanaged   unmanaged   executions in the account that hold no slot of ours

No other file writes these items. Every write of the ledger says by whom it was made (`by`), because the stream of
the table wakes the dispatcher for two changes alone (`wakes_dispatcher`, in bell.py): a ring of the bell, and an
end while something waits. The last pass that left nothing to start notes how often the bell had been rung
(`drained_through`, a watermark): a pass that knows of every ring since needs no look at the queues."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from trainyard.domain.errors import Conflict
from trainyard.domain.executions import month_of
from trainyard.domain.policy import Policy
from trainyard.domain.requests import Request
from trainyard.domain.resources import ResourceProfile, is_ahead, is_past
from trainyard.domain.scheduling import EXPEDITED_EVERY, Decision, Expedited, Ledger, Plan
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.store import (
    AtLeast,
    AtMost,
    Condition,
    Is,
    IsOr,
    Item,
    Key,
    Put,
    Update,
    Write,
)
from trainyard.persistence.transactions import Transactions

LEDGER = Key("scheduler", (("pk", "ledger"), ("sk", "ledger")))
UNMANAGED = Key("scheduler", (("pk", "unmanaged"), ("sk", "unmanaged")))
UNMANAGED_MAX = 1000
"""Most ARNs of executions that the item lists."""

_USED, _VIRTUAL_TIME, _SERVED, _WEIGHT = "used/", "virtual_time/", "served/", "weight/"
_SPENT, _RESERVED = "spent/", "reserved/"
_SINCE_EXPEDITED = "since_expedited/"

SOMEBODY, NOBODY = "somebody", "nobody"
"""Whether requests may wait (`waiting`): nobody, when the last pass left none."""
BY_PASS, BY_END = "pass", "end"
"""Who changed the ledger last."""

MONEY_KEPT = timedelta(days=70)
"""How long the ledger keeps what a month has spent: longer than any run of it can last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What a pass knows about waiting requests when it commits, for the next pass."""

    through: int | None
    """Nothing waits: the bell's rings that had been counted when that was read. None where something may wait."""
    before: Item
    """The ledger as the pass read it."""

    @property
    def attributes(self) -> Item:
        if self.through is None:
            return {"waiting": SOMEBODY}
        return {"waiting": NOBODY, "drained_through": self.through}

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Return the condition under which this may be said.

        That nobody waits: nothing went back to the queues since they were read. That somebody does, where the
        ledger says that nobody did: no end came since, because it would have woken no pass."""
        if self.through is not None:
            return (IsOr("backlog_version", int(self.before.get("backlog_version", 0))),)
        if self.before.get("waiting") == SOMEBODY:
            return ()
        return (IsOr("usage_version", int(self.before.get("usage_version", 0))),)


# --- reading ----------------------------------------------------------------------------------------------------


def ledger_from(item: Item | None) -> Ledger:
    """Return the ledger of an item; an empty one where there is none yet."""
    values = item or {}

    def units(prefix: str) -> dict[str, int]:
        return {name.removeprefix(prefix): int(value) for name, value in values.items() if name.startswith(prefix)}

    def money(prefix: str) -> dict[str, Decimal]:
        return {n.removeprefix(prefix): Decimal(value) for n, value in values.items() if n.startswith(prefix)}

    return Ledger(
        admission_version=int(values.get("admission_version", 0)),
        usage_version=int(values.get("usage_version", 0)),
        policy_version=policy_version(item),
        drained_through=int(values["drained_through"]) if "drained_through" in values else None,
        month=str(values.get("month", "")),
        spent_in=money(_SPENT),
        reserved_in=money(_RESERVED),
        usage=units(_USED),
        paused=bool(values.get("paused", False)),
        paused_tiers=frozenset(values.get("paused_tiers", ())),
        virtual_time_by_tier=units(_VIRTUAL_TIME),
        served_by_tier=units(_SERVED),
        weight_by_tier=units(_WEIGHT),
        capacity_holds=dict(values.get("capacity_holds", {})),
        expedited=tuple(_expedited_from(each) for each in values.get("expedited", ())),
        since_expedited=units(_SINCE_EXPEDITED),
        starts_from=unstamp(values["starts_from"]) if "starts_from" in values else None,
        epoch=unstamp(values["epoch"]) if "epoch" in values else None,
        unmanaged=int(values.get("unmanaged", 0)),
        throttled_to=int(values["throttled_to"]) if "throttled_to" in values else None,
        throttled_until=unstamp(values["throttled_until"]) if "throttled_until" in values else None,
    )


def policy_version(item: Item | None) -> int:
    """Return the version of the policy that the ledger's item names."""
    return int((item or {}).get("policy_version", 0))


# --- writing ----------------------------------------------------------------------------------------------------


def take_units(
    admissions: Sequence[Decision],
    plan: Plan,
    ledger: Ledger,
    policy: Policy,
    now: datetime,
    drained: Drained,
) -> Update:
    """Return what takes the admissions' units and reserves their money.

    It holds only if no limit is exceeded, and if nobody else has admitted, paused or changed the policy since
    `ledger` was read. Raises Conflict when the admissions exceed a limit by themselves: a count that does not
    exist yet passes any bound."""
    counts = _units_of(admissions)
    limits = policy.limits
    if any(count > limits.get(resource, count) for resource, count in counts.items()):
        raise Conflict("more slots than the limits allow")
    sets: Item = {"capacity_holds": dict(plan.capacity_holds), "month": plan.month, **drained.attributes}
    sets |= {f"{_VIRTUAL_TIME}{tier}": time for tier, time in plan.virtual_time_by_tier.items()}
    sets |= {f"{_SERVED}{decision.queue.tier}": ledger.admission_version + 1 for decision in admissions}
    sets |= _expedited_after(ledger, admissions)
    if plan.starts_from is not None:
        sets["starts_from"] = stamp(plan.starts_from)
    if policy.epoch is not None:
        sets["epoch"] = stamp(max(policy.epoch, ledger.epoch or policy.epoch))
    reserved: dict[str, Decimal] = {}
    for decision in admissions:
        account = f"{_RESERVED}{plan.month} {decision.queue.tier}"
        reserved[account] = reserved.get(account, Decimal(0)) + decision.reserved_usd
    forgotten = (*_money_before(ledger, month_of(now - MONEY_KEPT)), *_changes_past(ledger, policy, now))
    return _change(
        BY_PASS,
        set=sets,
        add={**_attributes(counts), **_nonzero(reserved), "admission_version": 1, "usage_version": 1},
        # While requests are waiting, the next pass must not rely on the names in rings alone.
        remove=forgotten if drained.through is not None else (*forgotten, "drained_through"),
        when=(
            *_unmoved(ledger),
            *drained.conditions,
            # Checked against the counts at the moment of the commit. Ends may have lowered them since they were
            # read; nobody can have raised them, because that changes the admission version. What is counted for
            # changes to come is left out: an expression takes 4 KB.
            *(
                AtMost(f"{_USED}{name}", limits[name] - n)
                for name, n in counts.items()
                if name in limits and not is_ahead(name)
            ),
        ),
    )


def give_units_back(
    ended: Sequence[tuple[Request, Decimal]], policy: Policy, now: datetime, *, something_waits: bool
) -> Update:
    """Return what gives the units and reservations of ended attempts back, and books what each has spent (USD).

    `something_waits` tells whether anything waits in the queues of their tenants.
    """
    counts = units_held(request for request, _ in ended)
    # What was counted for a change that has come is forgotten by the next commit, or already.
    counts = {resource: n for resource, n in counts.items() if not is_past(resource, now)}
    money: dict[str, Decimal] = {}
    taken: dict[str, Decimal] = {}
    for request, spent in ended:
        account = f"{request.month} {request.tier}"
        taken[request.tier] = taken.get(request.tier, Decimal(0)) + spent - request.reserved_usd
        for name, usd in ((f"{_RESERVED}{account}", -request.reserved_usd), (f"{_SPENT}{account}", spent)):
            money[name] = money.get(name, Decimal(0)) + usd
    # The admission version stays: an end only frees capacity, so it makes no decision under way wrong. It changes
    # only when an execution cost more than it had reserved (`_versions_for`), because that takes budget.
    held = _attributes(counts)
    change = _end_while_waiting if something_waits else partial(_change, BY_END)
    return change(
        add={**{name: -n for name, n in held.items()}, **_nonzero(money), **_versions_for(policy, taken)},
        # A count below zero would hide a leaked slot for ever; better that the transaction fails, loudly.
        # What is counted for changes may be forgotten at any time.
        when=tuple(AtLeast(f"{_USED}{name}", n) for name, n in counts.items() if not is_ahead(name)),
    )


def give_pools_back(request: Request, selected: str, now: datetime) -> Update:
    """Return what gives back the instances that SageMaker might have selected for a request, and did not."""
    before, after = units_held([request]), units_held([replace(request, selected=selected)])
    counts = {
        resource: n for resource, n in before.items() if resource not in after and not is_past(resource, now)
    }
    return _end_while_waiting(
        add={**{name: -n for name, n in _attributes(counts).items()}, "usage_version": 1},
        when=tuple(AtLeast(f"{_USED}{name}", n) for name, n in counts.items() if not is_ahead(name)),
    )


def book_correction(month: str, tier: str, usd: Decimal, policy: Policy) -> Update:
    """Return what books a change of what a run of a tier has cost in a month."""
    return book_spending(month, {tier: usd}, policy)


def book_spending(month: str, spent: Mapping[str, Decimal], policy: Policy) -> Update:
    """Return what books that tiers have spent so much (USD) in a month."""
    money = {f"{_SPENT}{month} {tier}": usd for tier, usd in spent.items()}
    return _end_while_waiting(add={**money, **_versions_for(policy, spent)})


def correct_usage(exact: Mapping[str, int], ledger: Ledger) -> Update:
    """Return the write that corrects counts of resources, if none has changed since the ledger was read."""
    return _end_while_waiting(
        set=_attributes(exact),
        add={"admission_version": 1, "usage_version": 1},
        # A recount takes several reads; any admission or end in between makes it stale.
        when=(IsOr("usage_version", ledger.usage_version),),
    )


def name_policy(version: int) -> Update:
    """Return the write that names another policy version; decisions under other versions become void."""
    return _change(BY_PASS, set={"policy_version": version}, add={"admission_version": 1})


def something_waits() -> Update:
    """Return what is written with a queue that passes can read again: what rings name is not all that waits."""
    return _change(BY_PASS, set={"waiting": SOMEBODY}, add={"backlog_version": 1}, remove=("drained_through",))


def expedite(expedited: Sequence[Expedited], ledger: Ledger) -> Update:
    """Return the write that puts requests first in their tiers; what a pass decided before is void."""
    return _change(
        BY_PASS,
        set={"expedited": [_expedited_item(each) for each in expedited]},
        add={"admission_version": 1},
        remove=("drained_through",),
        when=_unmoved(ledger),
    )


def _expedited_after(ledger: Ledger, admissions: Sequence[Decision]) -> Item:
    """Return the attributes about expedited requests that admissions change."""
    if not ledger.expedited and not ledger.since_expedited:
        return {}
    since = dict(ledger.since_expedited)
    served: set[tuple[str, str, str]] = set()
    for decision in admissions:
        tier, entry = decision.queue.tier, decision.entry
        served.add((tier, decision.queue.tenant_id, entry.place))
        count = 0 if decision.expedited else since.get(tier, EXPEDITED_EVERY) + 1
        since[tier] = min(count, EXPEDITED_EVERY - 1)
    still = [e for e in ledger.expedited if (e.tier, e.tenant_id, e.place) not in served]
    counts = {f"{_SINCE_EXPEDITED}{tier}": count for tier, count in since.items()}
    return counts | {"expedited": [_expedited_item(each) for each in still]}


def _expedited_item(expedited: Expedited) -> Item:
    return {**asdict(expedited), "at": stamp(expedited.at)}


def _expedited_from(item: Mapping[str, Any]) -> Expedited:
    return Expedited(**{**item, "at": unstamp(item["at"])})


def _units_of(admissions: Iterable[Decision]) -> dict[str, int]:
    """Return resource → units that admissions take."""
    return usage_of((d.queue.tier, ResourceProfile.parse(d.entry.profile), d.ahead) for d in admissions)


def units_held(requests: Iterable[Request]) -> dict[str, int]:
    """Return resource → units that requests take which hold slots."""
    return usage_of((request.tier, ResourceProfile.held_by(request), request.ahead) for request in requests)


def usage_of(runs: Iterable[tuple[str, ResourceProfile, Iterable[str]]]) -> dict[str, int]:
    """Return resource → units that runs take, each given by its tier, its resource profile, and what it takes
    after changes of the limits.
    """
    usage: dict[str, int] = {}
    for tier, profile, ahead in runs:
        for resource, units in profile.demand(tier, ahead).items():
            usage[resource] = usage.get(resource, 0) + units
    return usage


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTable:
    """The ledger as it is now, and changes that touch nothing else."""

    transactions: Transactions

    def read(self) -> Ledger:
        (item,) = self.transactions.store.get(LEDGER)
        return ledger_from(item)

    def note_capacity_holds(self, plan: Plan, ledger: Ledger) -> None:
        """Note for which requests instances are held, when a pass admits nobody. Raises Conflict."""
        self._write(_change(BY_PASS, set={"capacity_holds": dict(plan.capacity_holds)}, when=_unmoved(ledger)))

    def note_epoch(self, epoch: datetime, ledger: Ledger) -> None:
        """Note that the limits have changed, when a pass admits nobody: from now on no pass decides by the earlier
        ones, whatever its clock says. Raises Conflict.
        """
        change: Item = {"epoch": stamp(epoch)}
        self._write(_change(BY_PASS, set=change, add={"admission_version": 1}, when=_unmoved(ledger)))

    def note_waiting(self, before: Item) -> None:
        """Note that something waits, or may, so that the next end wakes a pass; `before` is the ledger as it was
        read.

        Raises Conflict when an end came in between, which woke nobody: then the queues must be read again.
        """
        if before.get("waiting") != SOMEBODY:
            no_end_since = (IsOr("usage_version", int(before.get("usage_version", 0))),)
            self._write(
                _change(
                    BY_PASS,
                    set={"waiting": SOMEBODY},
                    add={"backlog_version": 1},
                    remove=("drained_through",),
                    when=no_end_since,
                )
            )

    def note_weights(self, weight_by_tier: Mapping[str, int]) -> None:
        """Store the weight of all waiting tenants, for passes that cannot read them all."""
        self._write(_change(BY_PASS, set={f"{_WEIGHT}{tier}": weight for tier, weight in weight_by_tier.items()}))

    def set_paused(self, paused: bool, tier: str | None = None) -> None:
        """Pause or resume all, or one tier; what a pass decided before is void. Idempotent."""

        def attempt() -> None:
            ledger = self.read()
            tiers = ledger.paused_tiers | {tier} if paused else ledger.paused_tiers - {tier}
            change: Item = {"paused": paused} if tier is None else {"paused_tiers": sorted(filter(None, tiers))}
            self._write(_change(BY_PASS, set=change, add={"admission_version": 1}, when=_unmoved(ledger)))

        self.transactions.retried(attempt)

    def throttle(self, until: datetime) -> None:
        """Limit the account to the slots in use now, until a time. Raises Conflict."""
        ledger = self.read()
        change: Item = {"throttled_to": max(ledger.used, 1), "throttled_until": stamp(until)}
        self._write(_change(BY_PASS, set=change, add={"admission_version": 1}, when=_unmoved(ledger)))

    # --- executions that hold no slot -----------------------------------------------------------------------

    def unmanaged(self) -> tuple[list[str], datetime | None]:
        """Return the ARNs of the executions that hold no slot of ours as they were seen last, and when that
        was."""
        (item,) = self.transactions.store.get(UNMANAGED)
        return (list(item["arns"]), unstamp(item["looked_at"])) if item else ([], None)

    def add_unmanaged(self, execution_arn: str, now: datetime) -> None:
        """Deduct one more execution that holds no slot; the reconciler sees when it has ended. Idempotent."""
        arns, looked_at = self.unmanaged()
        if execution_arn not in arns:
            self.note_unmanaged([*arns, execution_arn], looked_at or now)

    def note_unmanaged(self, arns: Sequence[str], now: datetime) -> None:
        """Deduct executions that hold no slot of ours from the account's slots. Raises Conflict."""
        ledger = self.read()
        writes: list[Write] = [Put(UNMANAGED, {"arns": list(arns)[:UNMANAGED_MAX], "looked_at": stamp(now)})]
        if ledger.unmanaged != len(arns):
            change = {"unmanaged": len(arns)}
            writes.append(_change(BY_PASS, set=change, add={"admission_version": 1}, when=_unmoved(ledger)))
        self._write(*writes)

    def _write(self, *writes: Write) -> None:
        self.transactions.store.transact(writes)


def _change(
    by: str,
    *,
    set: Item | None = None,
    add: Mapping[str, int | Decimal] | None = None,
    remove: tuple[str, ...] = (),
    when: tuple[Condition, ...] = (),
) -> Update:
    """Return a change of the ledger; the only place that makes one, so that none forgets who made it."""
    return Update(LEDGER, set={**(set or {}), "by": by}, add=add or {}, remove=remove, when=when)


def _end_while_waiting(
    *,
    set: Item | None = None,
    add: Mapping[str, int | Decimal],
    when: tuple[Condition, ...] = (),
) -> Update:
    """Return a change that wakes the dispatcher: units or money came back, and something waits for them."""
    return _change(
        BY_END,
        set={**(set or {}), "waiting": SOMEBODY},
        add={**add, "backlog_version": 1},
        remove=("drained_through",),
        when=when,
    )


def _unmoved(ledger: Ledger) -> tuple[Condition, ...]:
    """Return the condition that nobody else has admitted, paused, or changed the policy."""
    version = ledger.admission_version
    return (IsOr("admission_version", version) if version == 0 else Is("admission_version", version),)


def _versions_for(policy: Policy, taken: Mapping[str, Decimal]) -> dict[str, int]:
    """Return the versions that move when so much of tiers' money is taken, or given back where it is negative.

    The admission version, on which passes rely, moves only when a budget has less left than they read.
    """
    less = any(usd > 0 and (tier := policy.tier(name)) and tier.budget for name, usd in taken.items())
    return {"usage_version": 1, "admission_version": 1} if less else {"usage_version": 1}


def _money_before(ledger: Ledger, month: str) -> tuple[str, ...]:
    """Return the attributes about the money of months before one."""
    spent = [f"{_SPENT}{name}" for name in ledger.spent_in if name[:7] < month]
    return tuple(spent + [f"{_RESERVED}{name}" for name in ledger.reserved_in if name[:7] < month])


def _changes_past(ledger: Ledger, policy: Policy, now: datetime) -> tuple[str, ...]:
    """Return the attributes that count what is taken after changes of the limits that have come."""
    come = policy.epoch or now  # a policy without windows has no epochs
    return tuple(f"{_USED}{resource}" for resource in ledger.usage if is_past(resource, come))


def _attributes(units: Mapping[str, int]) -> dict[str, int]:
    """Return the ledger's attribute → units of the resource that it counts."""
    return {f"{_USED}{resource}": count for resource, count in units.items()}


def _nonzero(money: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {name: usd for name, usd in money.items() if usd}
