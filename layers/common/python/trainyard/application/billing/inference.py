"""Inference: books what each hour of the shared endpoints cost, divided among those who used it.

Budgets are charged after that, by an entry of the outbox: what predictions cost is spent, so that fewer trainings
are admitted, but no prediction is refused for want of money.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from trainyard.domain.hourly_spend import hour_of
from trainyard.domain.inference import (
    COUNTED_WITHIN,
    EndpointHour,
    EndpointUse,
    begins,
    capacity_of,
    divided,
    seconds_in,
)
from trainyard.domain.prices import SECONDS_PER_HOUR, Prices, rounded
from trainyard.persistence.inference import InferenceBook
from trainyard.persistence.items import stamp, unstamp

HOUR = timedelta(hours=1)
KNOWN_AFTER_END = timedelta(days=7)
"""For so long, the hours of an endpoint that was deleted are still booked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedEndpoint:
    """A shared endpoint, as SageMaker describes it."""

    name: str
    arn: str
    created_at: datetime
    instance_type: str
    instance_count: int
    ended_at: datetime | None = None
    """When it was seen last, of one that does not exist any more."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A shared endpoint that could not be read."""

    name: str
    error: str


class SharedEndpoints(Protocol):
    def existing(self) -> list[SharedEndpoint | Unreadable]:
        """Return the shared endpoints of this deployment."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceBooking:
    book: InferenceBook
    endpoints: SharedEndpoints
    prices: Prices

    def book_due(self, now: datetime, out_of_time: Callable[[], bool]) -> list[EndpointHour]:
        """Book all hours that are over and not booked yet; return them. Idempotent.

        An endpoint that was deleted counts until it was seen last. Raises TimeoutError when there is no time for
        all hours (the next run books the others), and in the end RuntimeError for endpoints that cannot be read.
        """
        booked: list[EndpointHour] = []
        described = self.endpoints.existing()
        existing = [endpoint for endpoint in described if isinstance(endpoint, SharedEndpoint)]
        unreadable = {endpoint.name: endpoint.error for endpoint in described if isinstance(endpoint, Unreadable)}
        remembered = self.book.remembered()
        gone = list(_gone(remembered, existing, unreadable))
        for endpoint in gone:
            self._book_hours(endpoint, now, out_of_time, booked)
        lately_gone = [e.name for e in gone if e.ended_at is not None and now - e.ended_at < KNOWN_AFTER_END]
        still_due = {name: remembered[name] for name in (*unreadable, *lately_gone) if name in remembered}
        self.book.remember(still_due | {endpoint.name: _item(endpoint, now) for endpoint in existing})
        for endpoint in existing:
            self._book_hours(endpoint, now, out_of_time, booked)
        if unreadable:
            named = ", ".join(f"{name} ({error})" for name, error in unreadable.items())
            raise RuntimeError(f"not booked, because they were changed by hand: {named}")
        return booked

    def _book_hours(
        self, endpoint: SharedEndpoint, now: datetime, out_of_time: Callable[[], bool], booked: list[EndpointHour]
    ) -> None:
        """Book the hours of one endpoint that are due, and add them to the list."""
        until = self.book.booked_until(endpoint.name)
        hour = max(hour_of(endpoint.created_at), _next(until) if until else "")
        last = hour_of(min(endpoint.ended_at or now, now))
        while hour <= last and begins(hour) + HOUR + COUNTED_WITHIN <= now:
            if out_of_time():
                raise TimeoutError(f"hours booked: {len(booked)}; next: {endpoint.name} from {hour} on")
            booked.append(self._book(endpoint, hour, now, out_of_time))
            hour = _next(hour)

    def _book(
        self, endpoint: SharedEndpoint, hour: str, now: datetime, out_of_time: Callable[[], bool]
    ) -> EndpointHour:
        uses = self.book.uses(endpoint.name, hour)
        cost, shares = self._divided(endpoint, hour, uses)
        if cost.usd is not None:
            self.book.book(endpoint.name, hour, list(zip(uses, shares, strict=True)), now, out_of_time)
            # A part may have been booked by an earlier run, at another price.
            paid = [use.usd if use.usd is not None else usd for use, usd in zip(uses, shares, strict=True)]
            idle = max(cost.usd - sum(paid, Decimal(0)), Decimal(0))
            cost = replace(cost, usd=sum(paid, idle), idle_usd=idle)
        self.book.close(cost, now)
        return cost

    def _divided(
        self, endpoint: SharedEndpoint, hour: str, uses: list[EndpointUse]
    ) -> tuple[EndpointHour, list[Decimal]]:
        hourly, capacity = self.prices.hosting.get(endpoint.instance_type), capacity_of(endpoint.instance_type)
        seconds = seconds_in(hour, endpoint.created_at, endpoint.ended_at)
        usd = None if hourly is None else rounded(hourly * endpoint.instance_count * seconds / SECONDS_PER_HOUR)
        cost = EndpointHour(
            endpoint=endpoint.name,
            arn=endpoint.arn,
            hour=hour,
            instance_type=endpoint.instance_type,
            instance_count=endpoint.instance_count,
            seconds=seconds,
            usd=usd,
        )
        if usd is None:
            return cost, []
        if capacity is None:  # it cannot be said who used how much of it
            return cost, [Decimal(0)] * len(uses)
        shares, _ = divided(usd, cost, uses, capacity)
        return cost, shares


def _next(hour: str) -> str:
    return hour_of(begins(hour) + HOUR)


def _gone(
    remembered: Mapping[str, Any], existing: Sequence[SharedEndpoint], unreadable: Container[str]
) -> Iterator[SharedEndpoint]:
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


def _item(endpoint: SharedEndpoint, now: datetime) -> dict[str, Any]:
    return {
        "arn": endpoint.arn,
        "created_at": stamp(endpoint.created_at),
        "instance_type": endpoint.instance_type,
        "instance_count": endpoint.instance_count,
        "seen": stamp(now),
    }


def _seen(name: str, item: Mapping[str, Any]) -> SharedEndpoint:
    return SharedEndpoint(
        name=name,
        arn=item["arn"],
        created_at=unstamp(item["created_at"]),
        instance_type=item["instance_type"],
        instance_count=int(item["instance_count"]),
        ended_at=unstamp(item["seen"]),
    )
