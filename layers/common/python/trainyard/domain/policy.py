"""The policy: how much may run at once, on what, and for how long."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from trainyard.domain.algorithms import BUILT_IN, Algorithm, InstanceChoice
from trainyard.domain.errors import Refused
from trainyard.domain.prices import NO_PRICES, Prices
from trainyard.domain.requests import RequestKind
from trainyard.domain.resources import (
    SLOTS,
    TRIAL_STARTUP,
    ResourceProfile,
    after,
    run_time,
    tier_slots,
)
from trainyard.domain.windows import LOOK_BACK, Window, timeline

MB = 1024 * 1024


class BudgetMode(StrEnum):
    HARD = "hard"
    """Never overspent: a run that takes much longer than expected is stopped."""
    SOFT = "soft"
    """Reserves what nine of ten runs cost at most; no run is stopped for it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent in a month."""

    limit_usd: Decimal
    mode: BudgetMode = BudgetMode.HARD


class Storage(StrEnum):
    """Where the data of a tier's tenants lies."""

    SILO = "silo"
    """Each tenant has a bucket of its own."""
    POOL = "pool"
    """Each tenant has a prefix of the shared bucket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPolicy:
    """The limits of one tier."""

    name: str
    quota: int
    """Slots that are guaranteed to the tier."""
    borrowing_limit: int = 0
    """Slots that it may take above its quota while others leave them idle."""
    lending_limit: int = 0
    """Slots of its own idle quota that others may take."""
    running_max_per_tenant: int
    """A tenant's cap: the slots that it may hold while others want them."""
    running_ceiling_per_tenant: int | None = None
    """The slots that a tenant may hold while nobody below its cap wants them; None for `slots_max`."""
    runtime_max: timedelta
    """Of each job of a run."""
    hold_age: timedelta = timedelta(minutes=15)
    """After this wait, instances are held for a request that needs several at once."""
    quality_min: float
    """Between 0 and 1: models below it are not registered."""
    storage: Storage = Storage.SILO
    """Of the tenants that are created on the tier."""
    instances: tuple[InstanceChoice, ...]
    """In ascending order of data size; the last one's size is the largest upload the tier takes."""
    budget: Budget | None = None
    """Of all its tenants together, beside their own; None for no bound."""
    closed: bool = False
    """Nothing of it is admitted; running executions continue."""
    spot: bool = False
    """Whether first attempts train on spot capacity, where their algorithm does not say otherwise."""
    spot_wait: timedelta = timedelta(0)
    """By how much training on spot capacity, its waiting included, may exceed its maximum runtime; 0 where no
    algorithm trains on it."""

    tuning_trials_max: int = 0
    """Trials of a tuning at most; 0 where the tier offers none."""

    @property
    def slots_max(self) -> int:
        return self.quota + self.borrowing_limit

    @property
    def run_time_max(self) -> timedelta:
        """The longest time from admission to the end of a run: all its jobs, each stopped at its maximum, and what
        it waits for spot capacity, or for the instances of a tuning's trials.
        """
        return run_time(self.runtime_max) + max(self.spot_wait, self.tuning_trials_max * TRIAL_STARTUP)

    def spot_wait_of(self, algorithm: Algorithm | None) -> timedelta:
        """Return by how much first attempts of an algorithm may exceed their maximum runtime; 0 on demand."""
        on_spot = self.spot if algorithm is None or algorithm.spot is None else algorithm.spot
        return self.spot_wait if on_spot else timedelta(0)

    @property
    def credit(self) -> timedelta:
        """Slot time that a tenant of weight 1 may accumulate while it does not use its share."""
        return self.run_time_max


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPolicy:
    """The limits of a single tenant."""

    weight: int = 1
    """Its share of the tier, relative to the other tenants."""
    running_max: int | None = None
    """Its own cap; None for the tier's."""
    running_ceiling: int | None = None
    """Its own ceiling; None for the tier's."""
    budget: Budget | None = None
    """What its runs of a month may cost; None for no bound."""
    uploads_per_hour: int | None = None
    """Uploads that become requests per hour; None for the policy's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a run that failed through no fault of its own goes back to the queue."""

    attempts_max: int = 3
    """Attempts in all."""
    delay: timedelta = timedelta(minutes=2)
    """Before the second attempt; doubled before each further one."""


MANY = 1_000_000
"""The quota of a pool without one."""

ANY_TENANT = "*"
"""In the place of tenants' ids: all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmMapping:
    """Which CloudWatch alarms ask for trainings of which data sets."""

    name: str
    """Of the alarm; {tenant} and {data_set} in it stand for a tenant's id and a data set's name."""
    tenant_id: str = ""
    """Where the name does not say it."""
    data_set: str = ""
    """Where the name does not say it; "" for all of the tenant's."""

    def target_of(self, alarm: str) -> tuple[str, str] | None:
        """Return tenant and data set, "" for all, of an alarm; None for one that this is not about."""
        match = re.fullmatch(_alarm_pattern(self.name), alarm)
        if match is None:
            return None
        named = match.groupdict()
        return named.get("tenant") or self.tenant_id, named.get("data_set") or self.data_set


def _alarm_pattern(name: str) -> str:
    return (
        re.escape(name)
        .replace(r"\{tenant\}", "(?P<tenant>[a-z0-9](?:-?[a-z0-9])*)")
        .replace(r"\{data_set\}", "(?P<data_set>[A-Za-z0-9][A-Za-z0-9._-]{0,62})")
    )


AHEAD_MAX = 8
"""Of each limit, the times at which it is lowered that are looked ahead: a run is counted for each that it passes,
and DynamoDB bounds an expression."""

EVER = datetime(1970, 1, 1, tzinfo=UTC)
"""The epoch before any window has opened."""


@dataclass(frozen=True, slots=True)
class Change:
    """A time at which a window opens or closes."""

    at: datetime
    lower: Mapping[str, int]
    """Resource → units that may be taken after it, of those limits that are higher at some time before. A tier has
    its quota: what it may borrow is not its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All limits together; `version` 0 is the file that was deployed.

    Those in force at a time are `at` it; without windows, always the same.
    """

    version: int
    running_max: int
    """Slots of the whole account."""
    quiet_period: timedelta
    """A data set is trained on when no upload has arrived for this long …"""
    delay_max: timedelta
    """… or at the latest this long after the first one."""
    start_retry_delay: timedelta
    """How long a request waits after SageMaker refused its start for lack of quota."""
    starts_per_second: float | None = None
    """None: no limit."""
    starts_burst: int = 5
    """Starts that are allowed at once after an idle time."""
    instance_quotas: Mapping[str, int] = field(default_factory=dict)
    """Instance pool ("training/ml.m5.large") → instances that may run at once; others are not limited."""
    tenants: Mapping[str, TenantPolicy] = field(default_factory=dict)
    """The tenants with limits of their own."""
    windows: tuple[Window, ...] = ()
    """When other limits are in force."""
    epoch: datetime | None = None
    """Since when the limits are these, where there are windows; None without windows, and before `at`."""
    open: tuple[str, ...] = ()
    """The windows that are open."""
    changes_at: datetime | None = None
    """When the limits change next; None if they never do."""
    ahead: tuple[Change, ...] = ()
    """The changes that lower a limit, in order, as far ahead as the longest run may last."""
    instances_most: Mapping[str, int] = field(default_factory=dict)
    """Instance pool → its quota at the hours at which that is greatest, of those whose quota changes."""
    base: "Policy | None" = None
    """The policy of which this one is what is in force at a time."""
    retries: Retries = Retries()
    algorithms: Mapping[str, Algorithm] = field(default_factory=dict)
    """Name → algorithm, beside the built-in ones."""
    uploads_per_hour: int = 10_000
    """Uploads of a tenant that become requests per hour; more are deferred."""
    thresholds: tuple[int, ...] = (50, 80, 100)
    """Percentages of a budget at which an event is published."""
    retraining_sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Source of events → the tenants for which they may ask for trainings; ANY_TENANT for all."""
    alarms: tuple[AlarmMapping, ...] = ()
    """The alarms that ask for trainings."""
    prices: Prices = NO_PRICES
    """Of the instances that it names."""
    tiers: tuple[TierPolicy, ...]

    @property
    def catalogue(self) -> dict[str, Algorithm]:
        """Return name → algorithm of all that tenants may choose."""
        return {algorithm.name: algorithm for algorithm in BUILT_IN} | dict(self.algorithms)

    def algorithm(self, name: str) -> Algorithm:
        """Return the algorithm of that name; raises Refused, naming the available ones."""
        algorithm = self.catalogue.get(name)
        if algorithm is None:
            raise Refused(
                f"there is no algorithm {name!r}; the catalogue has {', '.join(sorted(self.catalogue))}",
                kind="algorithm",
            )
        return algorithm

    def choices(self, tier: TierPolicy, algorithm: str) -> tuple[InstanceChoice, ...]:
        """Return the instances that runs of an algorithm get: its own, else the tier's."""
        choices_known = self.catalogue.get(algorithm)
        return choices_known.instances if choices_known is not None and choices_known.instances else tier.instances

    def profile_for(
        self,
        tier: TierPolicy,
        algorithm: str,
        size_bytes: int,
        *,
        on_demand: bool = False,
        kind: RequestKind = RequestKind.TRAINING,
        trials: int = 0,
    ) -> ResourceProfile:
        """Return the lane of the smallest choice that holds `size_bytes`; of the largest when none does.

        With `on_demand`, it trains on demand whatever the policy says of spot capacity; so do the `trials` of a
        tuning.
        """
        choices = self.choices(tier, algorithm)
        fitting = (choice for choice in choices if size_bytes <= choice.data_mb_max * MB)
        choice, offered = next(fitting, choices[-1]), self.catalogue.get(algorithm)
        if kind is RequestKind.TRANSFORM:
            return ResourceProfile.of_transform(choice)
        wait = timedelta(0) if on_demand else tier.spot_wait_of(offered)
        saves = offered is not None and offered.checkpoints and wait > timedelta(0)
        profile = ResourceProfile.of(choice, spot_wait=wait, checkpoints=saves)
        return profile.tuning(trials) if trials else profile

    def data_bytes_max(self, tier: TierPolicy, algorithm: str) -> int:
        """Return the largest upload that is taken."""
        return self.choices(tier, algorithm)[-1].data_mb_max * MB

    def tier(self, name: str) -> TierPolicy | None:
        """Return the tier of that name, or None."""
        return next((tier for tier in self.tiers if tier.name == name), None)

    def tenant(self, tenant_id: str) -> TenantPolicy:
        return self.tenants.get(tenant_id, _COMMON)

    def uploads_per_hour_of(self, tenant_id: str) -> int:
        own = self.tenant(tenant_id).uploads_per_hour
        return self.uploads_per_hour if own is None else own

    def cap(self, tier: TierPolicy, tenant_id: str) -> int:
        """Return how many slots a tenant may hold while others want them."""
        own = self.tenant(tenant_id).running_max
        return tier.running_max_per_tenant if own is None else own

    def ceiling(self, tier: TierPolicy, tenant_id: str) -> int:
        """Return how many slots a tenant may hold while nobody below a cap wants them; its cap at least."""
        own = self.tenant(tenant_id).running_ceiling
        of_tier = tier.slots_max if tier.running_ceiling_per_tenant is None else tier.running_ceiling_per_tenant
        return max(of_tier if own is None else own, self.cap(tier, tenant_id))

    @property
    def limits(self) -> dict[str, int]:
        """Return resource → units of it that may be taken at once; a resource that is not in it has no limit."""
        slots = {tier_slots(tier.name): tier.slots_max for tier in self.tiers}
        now = {SLOTS: self.running_max} | slots | dict(self.instance_quotas)
        return now | {after(c.at, resource): n for c in self.ahead for resource, n in c.lower.items()}

    def at(self, now: datetime, not_before: datetime | None = None) -> "Policy":
        """Return the limits that are in force now, or at `not_before` if that is later: a time that is known to
        have come, whatever a clock says.
        """
        base = self.base or self
        if not base.windows:
            return self
        now = max(now, not_before or now)
        if self.epoch is not None and self.epoch <= now and (self.changes_at is None or now < self.changes_at):
            return self
        longest = max(tier.run_time_max for tier in base.tiers)
        times = timeline(base.windows, now - LOOK_BACK, now + LOOK_BACK + longest)
        open_now = times.open_at(now)
        limits = base._in(open_now)
        come = [when for when in times.changes if when <= now]
        to_come = [when for when in times.changes if when > now]
        later = [(when, base._in(times.open_at(when))) for when in to_come if when <= to_come[0] + longest]
        return replace(
            limits,
            base=base,
            epoch=max(come, default=EVER),
            open=tuple(window.name for window in open_now),
            changes_at=next(iter(to_come), None),
            ahead=_lowered(limits, later),
            instances_most=base._instances_most(),
        )

    def _instances_most(self) -> dict[str, int]:
        """Return pool → the greatest of its quotas, of those that change with the hour."""
        pools = {pool for window in self.windows for pool in window.instance_quotas}
        return {
            pool: max(
                self.instance_quotas.get(pool, MANY), *(w.instance_quotas.get(pool, 0) for w in self.windows)
            )
            for pool in pools
        }

    def _in(self, windows: Iterable[Window]) -> "Policy":
        """Return the policy while windows are open."""
        limits: dict[str, Any] = {}
        quotas = dict(self.instance_quotas)
        by_tier: dict[str, dict[str, Any]] = {}
        for window in windows:
            limits.update(window.limits)
            quotas.update(window.instance_quotas)
            for tier, values in window.tiers.items():
                by_tier.setdefault(tier, {}).update(values)
        tiers = tuple(replace(tier, **by_tier.get(tier.name, {})) for tier in self.tiers)
        return replace(self, **limits, instance_quotas=quotas, tiers=tiers)

    def ahead_of(self, demand: Mapping[str, int], ends_at: datetime) -> tuple[str, ...]:
        """Return the resources that a run takes after changes of the limits, if it lasts until `ends_at`.

        What exceeds a lower limit by itself is not counted against it: it could never start.
        """
        return tuple(
            after(change.at, resource)
            for change in self.ahead
            if change.at < ends_at
            for resource, units in change.lower.items()
            if demand.get(resource, units + 1) <= units
        )

    def charge(self, profile: ResourceProfile) -> int:
        """Return the units at which a run's time is charged: its instances where they are scarce, else 1."""
        scarce = any(pool in self.instance_quotas for pool in profile.training_pools)
        return profile.instances if scarce else 1

    def pools_of_large(self, profile: ResourceProfile) -> tuple[str, ...]:
        """Return the scarce training pools of a profile that takes several units of them at once; of others, none.

        Requests that take a single unit could pass it for ever.
        """
        scarce = tuple(pool for pool in profile.training_pools if pool in self.instance_quotas)
        return scarce if profile.instances * len(scarce) > 1 else ()

    def lacking(self, profile: ResourceProfile, *, ever: bool = False) -> str | None:
        """Return the instance pool whose whole quota is too small for the lane, now or at all hours, or None."""
        quotas = self.instance_quotas
        if ever:
            quotas = {**quotas, **self.instances_most}
        return next(
            (
                resource
                for resource, need in profile.instances_by_type.items()
                if need > quotas.get(resource, need)
            ),
            None,
        )


_COMMON = TenantPolicy()


def _lowered(now: Policy, later: Iterable[tuple[datetime, Policy]]) -> tuple[Change, ...]:
    """Return the changes at which limits are lower than what may run until then, and those limits.

    What runs on at such a change is at most the lower limit; so for the next one, what may be admitted in between
    matters.
    """
    most = dict(_bounds(now))
    counted: dict[str, int] = {}
    changes: list[Change] = []
    for when, policy in later:
        lower: dict[str, int] = {}
        bounds = _bounds(policy)
        for resource in most.keys() | bounds.keys():
            own, reach = bounds.get(resource, _UNLIMITED)
            most_own, most_reach = most.get(resource, _UNLIMITED)
            if (own < most_own or reach < most_reach) and counted.get(resource, 0) < AHEAD_MAX:
                lower[resource] = int(own)
                counted[resource] = counted.get(resource, 0) + 1
                most[resource] = (own, reach)
            else:
                most[resource] = (max(own, most_own), max(reach, most_reach))
        if lower:
            changes.append(Change(when, dict(sorted(lower.items()))))
    return tuple(changes)


_UNLIMITED = (math.inf, math.inf)


def _bounds(policy: Policy) -> dict[str, tuple[float, float]]:
    """Return resource → what of it may be taken for certain, and at most: a tier's quota, and with borrowing."""
    tiers = {tier_slots(tier.name): (tier.quota, tier.slots_max) for tier in policy.tiers}
    account = {SLOTS: (policy.running_max, policy.running_max)}
    return {**account, **tiers, **{pool: (n, n) for pool, n in policy.instance_quotas.items()}}
