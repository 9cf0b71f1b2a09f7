"""Scheduling: what a pass reads, what it decides, and why.

Snapshot (Ledger, tenant queues, holders) → decide (domain/admission.py) → Plan (Decisions with their Reasons)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from trainyard.domain.queues import QueueEntry, TenantQueue
from trainyard.domain.resources import SLOTS, tier_slots


class Verdict(StrEnum):
    ADMIT = "ADMIT"
    WAIT = "WAIT"


class Reason(StrEnum):
    """Why a request was admitted, or waits."""

    SLOT_FREE = "a slot is free"
    BATCH_FULL = "it is admitted in the next round"
    NOT_DUE = "its quiet period or back-off is not over"
    TURN = "other requests are ahead of it"
    ACCOUNT_LIMIT = "all slots of the account are taken"
    TIER_QUOTA = "all slots of the tier are taken"
    NOTHING_TO_BORROW = "the tier's slots are taken, and the free ones are reserved for other tiers"
    TENANT_CAP = "the tenant has reached its cap on running executions"
    ABOVE_CAP = "the tenant has reached its cap, and the free slots above it are kept for other tenants"
    TENANT_PAUSED = "the tenant is paused"
    TIER_PAUSED = "the tier is paused"
    ALL_PAUSED = "the service is paused"
    BUDGET = "its reservation exceeds what is left of the tenant's monthly budget"
    TIER_BUDGET = "its reservation exceeds what is left of the tier's monthly budget"
    PRICE_UNKNOWN = "a budget applies, and the price of an instance type that it needs is unknown"
    INSTANCE_QUOTA = "all instances of its type are in use"
    NEVER_FITS = "it needs more instances than the quota of their type allows"
    CAPACITY_HOLD = "instances are held for a large request"
    TIER_CLOSED = "the tier is closed at this time"
    NOT_AT_THIS_HOUR = "it needs more instances than the quota of their type allows at this time"
    LOWER_LIMIT_AHEAD = "it would run on when a limit is lowered, and what may run then is taken"
    START_RATE = "the start rate is limited"
    UNKNOWN_TIER = "the policy does not contain its tier"


EXPEDITED_EVERY = 4
"""At most every fourth admission of a tier is an expedited one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expedited:
    """A request that an operator has put first in its tier; the upload that replaces it takes its place."""

    tier: str
    tenant_id: str
    place: str
    """Of its queue entry: the data set, and the request where it is trained on alone."""
    request_id: str
    by: str
    why: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The counts of used resources, and what one pass passes on to the next."""

    admission_version: int
    """Incremented with every admission, pause and policy change, so that a decision is valid only for the ledger
    that it was based on; ends only subtract, and do not change it."""
    usage_version: int = 0
    """Incremented with every change of a count."""
    policy_version: int = 0
    drained_through: int | None = None
    """The number of the bell's rings up to which all queues were read and nothing was left waiting; None when
    something may wait."""
    month: str = ""
    """The month to whose budgets admissions belong; it never goes back, whatever a clock says."""
    usage: Mapping[str, int] = field(default_factory=dict)
    """Resource → units taken: "slots", "tier/<name>", "training/<instance type>", "processing/<instance type>"."""
    paused: bool = False
    paused_tiers: frozenset[str] = frozenset()
    virtual_time_by_tier: Mapping[str, int] = field(default_factory=dict)
    """The smallest tag of the waiting queues, which never decreases: that of a queue without credit or debt."""
    served_by_tier: Mapping[str, int] = field(default_factory=dict)
    """The ledger's version at the tier's last admission."""
    weight_by_tier: Mapping[str, int] = field(default_factory=dict)
    """The weight of all queues with waiting requests; at most a few minutes old."""
    capacity_holds: Mapping[str, str] = field(default_factory=dict)
    """Instance pool → the request that instances are saved for."""
    expedited: tuple[Expedited, ...] = ()
    """In the order in which they were expedited."""
    since_expedited: Mapping[str, int] = field(default_factory=dict)
    """Tier → admissions since its last expedited one, counted up to EXPEDITED_EVERY - 1."""
    starts_from: datetime | None = None
    """When the allowance of starts was last used up."""
    spent_in: Mapping[str, Decimal] = field(default_factory=dict)
    """Month and tier ("2026-11 basic") → what its runs have cost, in USD."""
    reserved_in: Mapping[str, Decimal] = field(default_factory=dict)
    """The same → what its runs have reserved."""
    epoch: datetime | None = None
    """The last change of the limits that is known to have come; it never goes back, whatever a clock says."""
    unmanaged: int = 0
    """Executions in the account that are not ours."""
    throttled_to: int | None = None
    """Slots of the account until `throttled_until`, since SageMaker refused more."""
    throttled_until: datetime | None = None

    @property
    def used(self) -> int:
        """Return the slots taken of the account."""
        return self.usage.get(SLOTS, 0)

    @property
    def tiers(self) -> list[str]:
        """Return the names of the tiers whose runs are counted, those that the policy no longer has too."""
        prefix = tier_slots("")
        return sorted(name.removeprefix(prefix) for name in self.usage if name.startswith(prefix))

    def used_of_tier(self, tier: str) -> int:
        """Return the slots that a tier has taken."""
        return self.usage.get(tier_slots(tier), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A request that holds a slot."""

    request_id: str
    tenant_id: str
    tier: str
    profile: str
    ends_by: datetime
    ahead: tuple[str, ...] = ()
    """The resources that it takes after changes of the limits."""
    admitted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingQueue:
    """A tenant queue, and the first places of its lanes."""

    queue: TenantQueue
    entries: Mapping[str, tuple[QueueEntry, ...]]
    """Lane → the first places, in order, due or not; all of them, unless `queue.profiles` counts more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What one dispatch pass read."""

    ledger: Ledger
    queues: tuple[WaitingQueue, ...]
    partial: frozenset[str] = frozenset()
    """Tiers with more waiting queues than were read; those with the smallest tags were read."""
    expedited: Mapping[str, str] = field(default_factory=dict)
    """Tier → the request that is put first in it."""
    holders: tuple[Holder, ...] = ()
    """Read only when a large request has waited for long; may lack the youngest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision about the first request of a queue's lane, and its reason."""

    entry: QueueEntry
    queue: TenantQueue
    verdict: Verdict
    reason: Reason
    reserved_usd: Decimal = Decimal(0)
    """What it reserves in its budgets; if it waits for them, what must be left for it to be admitted."""
    runtime_max: timedelta | None = None
    """Of each of its jobs; None for the tier's."""
    charge: int = 1
    ahead: tuple[str, ...] = ()
    """The resources that it takes after changes of the limits."""
    borrowed: bool = False
    above_cap: bool = False
    """Its tenant held as many slots as its cap allows, and nobody below a cap could use the slot."""
    expedited: bool = False
    """An operator has put it first in its tier."""
    may_change: bool = False
    """It waits, and time alone may put another request of its lane first that budgets allow, or will sooner: one
    that becomes due, or that follows it when it becomes hopeless."""
    urgent: bool = False
    """It goes before older requests of its tenant because of its deadline or its priority."""
    backfilled: bool = False
    """Overtook a large request for which instances are held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A queue to be parked."""

    queue: TenantQueue
    reason: Reason
    needs_usd: Decimal | None = None
    """What its tier's budget must have left before any of it can go, where that is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a pass is to do."""

    admissions: tuple[Decision, ...]
    """In order."""
    waits: tuple[Decision, ...]
    """One for each lane of a queue in which something still waits."""
    virtual_time_by_tier: Mapping[str, int]
    capacity_holds: Mapping[str, str]
    starts_from: datetime | None
    month: str = ""
    """To whose budgets the admissions belong."""
    again_at: datetime | None = None
    """When time alone allows more admissions under these limits: starts are allowed again, or an entry is due."""

    @property
    def parked(self) -> dict[tuple[str, str], Parked]:
        """Return queue (tier and tenant) → why none of its lanes can start until something changes."""
        lasting = {Reason.BUDGET, Reason.TIER_BUDGET, Reason.PRICE_UNKNOWN, Reason.NEVER_FITS}
        by_queue: dict[tuple[str, str], list[Decision]] = {}
        for wait in self.waits:
            by_queue.setdefault((wait.queue.tier, wait.queue.tenant_id), []).append(wait)
        return {
            key: _parked(waits)
            for key, waits in by_queue.items()
            if all(wait.reason in lasting and not wait.may_change for wait in waits)
        }


def _parked(waits: list[Decision]) -> Parked:
    by_tier = [wait for wait in waits if wait.reason is Reason.TIER_BUDGET]
    if not by_tier:
        return Parked(queue=waits[0].queue, reason=waits[0].reason)
    needs = min(wait.reserved_usd for wait in by_tier)
    return Parked(queue=waits[0].queue, reason=Reason.TIER_BUDGET, needs_usd=needs)
