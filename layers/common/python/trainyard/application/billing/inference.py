"""Inference: books what each hour of the endpoints cost.

The hour of a shared endpoint is divided among those who used it, or, where its models have reserved parts of its
instances, by these. One that is a tenant's own costs its tenant the whole hour, or, where it is serverless, what
its calls took of it.

Budgets are charged after that, by an entry of the outbox: what predictions cost is spent, so that fewer trainings
are admitted, but no prediction is refused for want of money.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from trainyard.domain.hourly_spend import hour_of
from trainyard.domain.inference import (
    COUNTED_WITHIN,
    Capacity,
    CountChange,
    EndpointHour,
    EndpointUse,
    Instances,
    Reservation,
    begins,
    capacity_of,
    divided,
    instances_in,
    reserved_usd,
    seconds_in,
    serverless_usd,
)
from trainyard.domain.prices import SECONDS_PER_HOUR, Prices, rounded
from trainyard.persistence.inference import InferenceBook
from trainyard.persistence.items import stamp, unstamp

HOUR = timedelta(hours=1)
KNOWN_AFTER_END = timedelta(days=7)
"""For so long, the hours of an endpoint that was deleted are still booked."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who pays for an endpoint that serves one version alone, or for a reservation."""

    tenant_id: str
    data_set: str
    tier: str
    algorithm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledEndpoint:
    """An endpoint, as SageMaker describes it."""

    name: str
    arn: str
    created_at: datetime
    instance_type: str
    instance_count: int
    """Where it scales, when it was created."""
    scales: bool = False
    changes: tuple[CountChange, ...] = ()
    """How its number of instances has changed of late, the oldest change first."""
    unsettled_from: datetime | None = None
    """When a change began of which it is not known yet what becomes of it."""
    ended_at: datetime | None = None
    """When it was seen last, of one that does not exist any more."""
    memory_mb: int = 0
    """Of a serverless one; it has no instances."""
    owner: Owner | None = None
    """None where tenants share it."""
    reservations: tuple[Reservation, ...] | None = None
    """What is reserved of its instances; None where nothing can be."""
    count_now: int | None = None
    """The instances that it has now, where nothing else tells of changes."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An endpoint that could not be read."""

    name: str
    error: str


class BilledEndpoints(Protocol):
    def existing(self) -> list[BilledEndpoint | Unreadable]:
        """Return the endpoints of this deployment."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceBooking:
    book: InferenceBook
    endpoints: BilledEndpoints
    prices: Prices
    tier_of: Callable[[str], str | None]
    """Return a tenant's tier; None where there is no such tenant any more."""

    def book_due(self, now: datetime, out_of_time: Callable[[], bool]) -> list[EndpointHour]:
        """Book all hours that are over and not booked yet; return them. Idempotent.

        An endpoint that was deleted counts until it was seen last. Raises TimeoutError when there is no time for
        all hours (the next run books the others), and in the end RuntimeError for endpoints that cannot be read.
        """
        booked: list[EndpointHour] = []
        described = self.endpoints.existing()
        existing = [endpoint for endpoint in described if isinstance(endpoint, BilledEndpoint)]
        unreadable = {endpoint.name: endpoint.error for endpoint in described if isinstance(endpoint, Unreadable)}
        remembered = self.book.remembered(now - KNOWN_AFTER_END)
        for endpoint in _gone(remembered, existing, unreadable):
            self._book_hours(endpoint, now, out_of_time, booked)
        existing = [_with_history(endpoint, remembered.get(endpoint.name), now) for endpoint in existing]
        for endpoint in existing:
            self.book.remember(endpoint.name, _item(endpoint, now, self.book.booked_until(endpoint.name)), now)
        for endpoint in existing:
            self._book_hours(endpoint, now, out_of_time, booked)
        if unreadable:
            named = ", ".join(f"{name} ({error})" for name, error in unreadable.items())
            raise RuntimeError(f"not booked, because they cannot be read: {named}")
        return booked

    def _book_hours(
        self, endpoint: BilledEndpoint, now: datetime, out_of_time: Callable[[], bool], booked: list[EndpointHour]
    ) -> None:
        """Book the hours of one endpoint that are due, and add them to the list."""
        until, count = self.book.booked_until(endpoint.name), self.book.instances_booked(endpoint.name)
        hour = max(hour_of(endpoint.created_at), _next(until) if until else "")
        last = hour_of(min(endpoint.ended_at or now, now))
        if endpoint.unsettled_from is not None:
            last = min(last, hour_of(endpoint.unsettled_from - HOUR))
        while hour <= last and begins(hour) + HOUR + COUNTED_WITHIN <= now:
            if out_of_time():
                raise TimeoutError(f"hours booked: {len(booked)}; next: {endpoint.name} from {hour} on")
            is_first = count is None or begins(hour) <= endpoint.created_at
            instances = instances_in(
                hour,
                endpoint.created_at,
                endpoint.ended_at,
                endpoint.instance_count if is_first or not endpoint.scales else count or 0,
                endpoint.changes,
            )
            booked.append(self._book(endpoint, hour, instances, now, out_of_time))
            count = instances.at_end
            hour = _next(hour)

    def _book(
        self,
        endpoint: BilledEndpoint,
        hour: str,
        instances: Instances,
        now: datetime,
        out_of_time: Callable[[], bool],
    ) -> EndpointHour:
        uses = self.book.uses(endpoint.name, hour)
        silent = self._silent(endpoint, hour, uses)
        for owner in silent:
            self.book.count(endpoint.name, self._no_calls(owner), begins(hour))
        if silent:
            uses = self.book.uses(endpoint.name, hour)
        cost, shares = self._divided(endpoint, hour, instances, uses)
        if cost.usd is not None:
            self.book.book(endpoint.name, hour, list(zip(uses, shares, strict=True)), now, out_of_time)
            # A part may have been booked by an earlier run, at another price; and what is reserved is there, also
            # where the instances that hold it have not been seen yet.
            paid = [use.usd if use.usd is not None else usd for use, usd in zip(uses, shares, strict=True)]
            idle = max(cost.usd - sum(paid, Decimal(0)), Decimal(0))
            cost = replace(cost, usd=sum(paid, idle), idle_usd=idle)
        self.book.close(cost, now, instances.at_end)
        return cost

    @staticmethod
    def _silent(endpoint: BilledEndpoint, hour: str, uses: list[EndpointUse]) -> list[Owner]:
        """Return those who pay for an hour though they have not called."""
        if endpoint.owner is not None:
            return [] if endpoint.memory_mb or uses else [endpoint.owner]
        used = {(use.tenant_id, use.data_set) for use in uses}
        reserved = {
            (each.tenant_id, each.data_set): Owner(each.tenant_id, each.data_set, each.tier, each.algorithm)
            for each in endpoint.reservations or ()
            if seconds_in(hour, each.created_at, each.ended_at or endpoint.ended_at)
        }
        return [owner for whose, owner in reserved.items() if whose not in used]

    def _divided(
        self, endpoint: BilledEndpoint, hour: str, instances: Instances, uses: list[EndpointUse]
    ) -> tuple[EndpointHour, list[Decimal]]:
        seconds = seconds_in(hour, endpoint.created_at, endpoint.ended_at)
        usd, shares = self._costs(endpoint, instances.seconds, uses)
        cost = EndpointHour(
            endpoint=endpoint.name,
            arn=endpoint.arn,
            hour=hour,
            instance_type=endpoint.instance_type or f"serverless-{endpoint.memory_mb}",
            instance_count=instances.most,
            seconds=seconds,
            usd=usd,
        )
        if usd is None or shares is not None:
            return cost, shares or []
        capacity = capacity_of(endpoint.instance_type)
        if capacity is None:  # it cannot be said who used how much of it
            return cost, [Decimal(0)] * len(uses)
        if endpoint.reservations is None:
            return cost, divided(usd, cost, uses, capacity)[0]
        return cost, self._reserved(endpoint, hour, uses, capacity)

    def _reserved(
        self, endpoint: BilledEndpoint, hour: str, uses: list[EndpointUse], capacity: Capacity
    ) -> list[Decimal]:
        """Return what each use pays for what its data set has reserved in an hour."""
        hourly, shares = self.prices.hosting[endpoint.instance_type], dict.fromkeys(map(_whose, uses), Decimal(0))
        for each in endpoint.reservations or ():
            usd = reserved_usd(hourly, each, hour, capacity, endpoint.ended_at)
            shares[_whose(each)] = shares.get(_whose(each), Decimal(0)) + usd
        return [shares[_whose(use)] for use in uses]

    def _costs(
        self, endpoint: BilledEndpoint, instance_seconds: int, uses: list[EndpointUse]
    ) -> tuple[Decimal | None, list[Decimal] | None]:
        """Return what so many seconds of instances cost, None where the price is unknown; and what each use pays.

        The second is None where it has to be divided.
        """
        if endpoint.memory_mb:
            if self.prices.serverless_gb_second is None or self.prices.serverless_gb is None:
                return None, None
            shares = [serverless_usd(use, endpoint.memory_mb, self.prices) for use in uses]
            return sum(shares, Decimal(0)), shares
        hourly = self.prices.hosting.get(endpoint.instance_type)
        if hourly is None:
            return None, None
        usd = rounded(hourly * instance_seconds / SECONDS_PER_HOUR)
        # An endpoint of its own answers for one data set of its tenant alone.
        return usd, [usd] if endpoint.owner is not None and len(uses) == 1 else None

    def _no_calls(self, owner: Owner) -> EndpointUse:
        return EndpointUse(
            tenant_id=owner.tenant_id,
            data_set=owner.data_set,
            tier=self.tier_of(owner.tenant_id) or owner.tier,
            algorithm=owner.algorithm,
        )


def _whose(use: EndpointUse | Reservation) -> tuple[str, str]:
    return use.tenant_id, use.data_set


def _next(hour: str) -> str:
    return hour_of(begins(hour) + HOUR)


def _gone(
    remembered: Mapping[str, Any], existing: Sequence[BilledEndpoint], unreadable: Container[str]
) -> Iterator[BilledEndpoint]:
    """Yield the endpoints of earlier runs that do not exist any more, with the time when each was seen last."""
    now_there = {endpoint.name: endpoint for endpoint in existing}
    for name, item in remembered.items():
        endpoint, successor = _seen(name, item), now_there.get(name)
        if successor is None:
            if name not in unreadable:
                yield endpoint
        elif successor.created_at != endpoint.created_at and endpoint.ended_at is not None:
            # The hour in which another one of its name was created is the other's.
            before = begins(hour_of(successor.created_at)) - timedelta(seconds=1)
            yield replace(endpoint, ended_at=min(endpoint.ended_at, before))


def _with_history(endpoint: BilledEndpoint, item: Mapping[str, Any] | None, now: datetime) -> BilledEndpoint:
    """Return an endpoint that has reservations with what only earlier runs have seen of it.

    These are the reservations that have ended, and how its number of instances has changed from run to run.
    """
    reservations = endpoint.reservations
    if reservations is None or item is None or unstamp(item["created_at"]) != endpoint.created_at:
        return endpoint
    earlier = _seen(endpoint.name, item)
    if endpoint.count_now is not None:
        is_new = endpoint.count_now != int(item["count_now"])
        changes = (*earlier.changes, *([CountChange(now, endpoint.count_now)] if is_new else []))
        endpoint = replace(endpoint, instance_count=earlier.instance_count, scales=True, changes=changes)
    there = {(each.name, each.created_at) for each in reservations}
    ended = [
        replace(each, ended_at=each.ended_at or earlier.ended_at)
        for each in earlier.reservations or ()
        if (each.name, each.created_at) not in there
    ]
    return replace(endpoint, reservations=(*ended, *reservations))


def _item(endpoint: BilledEndpoint, now: datetime, booked_until: str) -> dict[str, Any]:
    since = begins(booked_until) if booked_until else endpoint.created_at
    return {
        "arn": endpoint.arn,
        "created_at": stamp(endpoint.created_at),
        "instance_type": endpoint.instance_type,
        "instance_count": endpoint.instance_count,
        "changes": [[stamp(change.at), change.count] for change in endpoint.changes if change.at >= since],
        "scales": endpoint.scales,
        "memory_mb": endpoint.memory_mb,
        "owner": asdict(endpoint.owner) if endpoint.owner is not None else {},
        "seen": stamp(now),
        **({} if endpoint.reservations is None else {"reservations": _reservation_items(endpoint, since)}),
        **({} if endpoint.count_now is None else {"count_now": endpoint.count_now}),
    }


def _reservation_items(endpoint: BilledEndpoint, since: datetime) -> list[dict[str, Any]]:
    """Return the reservations of an endpoint that have not ended before a time, for its item."""
    reservations = endpoint.reservations or ()
    return [_reservation_item(each) for each in reservations if each.ended_at is None or each.ended_at >= since]


def _reservation_item(reservation: Reservation) -> dict[str, Any]:
    ended_at = reservation.ended_at
    return asdict(reservation) | {
        "created_at": stamp(reservation.created_at),
        "ended_at": stamp(ended_at) if ended_at is not None else "",
    }


def _reservation(item: Mapping[str, Any]) -> Reservation:
    return Reservation(
        name=item["name"],
        tenant_id=item["tenant_id"],
        data_set=item["data_set"],
        tier=item["tier"],
        algorithm=item["algorithm"],
        cpu_percent=int(item["cpu_percent"]),
        memory_mb=int(item["memory_mb"]),
        created_at=unstamp(item["created_at"]),
        ended_at=unstamp(item["ended_at"]) if item["ended_at"] else None,
    )


def _seen(name: str, item: Mapping[str, Any]) -> BilledEndpoint:
    return BilledEndpoint(
        name=name,
        arn=item["arn"],
        created_at=unstamp(item["created_at"]),
        instance_type=item["instance_type"],
        instance_count=int(item["instance_count"]),
        changes=tuple(CountChange(unstamp(at), int(count)) for at, count in item.get("changes", [])),
        scales=bool(item.get("scales")),
        ended_at=unstamp(item["seen"]),
        memory_mb=int(item.get("memory_mb", 0)),
        owner=Owner(**item["owner"]) if item.get("owner") else None,
        reservations=None
        if item.get("reservations") is None
        else tuple(_reservation(each) for each in item["reservations"]),
    )
