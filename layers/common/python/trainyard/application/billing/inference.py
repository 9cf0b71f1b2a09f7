"""Inference: books what each hour of the shared endpoints cost, divided among those who used it.

Budgets are charged after that, by an entry of the outbox: what predictions cost is spent, so that fewer trainings
are admitted, but no prediction is refused for want of money.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

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

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedEndpoint:
    """A shared endpoint, as SageMaker describes it."""

    name: str
    arn: str
    created_at: datetime
    instance_type: str
    instance_count: int


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

        The hours of an endpoint that was deleted since the last run are not booked. Raises TimeoutError when there
        is no time for all of them (the next run books the others), and in the end RuntimeError for endpoints that
        cannot be read.
        """
        booked: list[EndpointHour] = []
        unreadable: list[str] = []
        for endpoint in self.endpoints.existing():
            if isinstance(endpoint, Unreadable):
                unreadable.append(f"{endpoint.name} ({endpoint.error})")
                continue
            until = self.book.booked_until(endpoint.name)
            hour = max(hour_of(endpoint.created_at), _next(until) if until else "")
            while begins(hour) + HOUR + COUNTED_WITHIN <= now:
                if out_of_time():
                    raise TimeoutError(f"hours booked: {len(booked)}; next: {endpoint.name} from {hour} on")
                booked.append(self._book(endpoint, hour, now, out_of_time))
                hour = _next(hour)
        if unreadable:
            raise RuntimeError(f"not booked, because they were changed by hand: {', '.join(unreadable)}")
        return booked

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
        seconds = seconds_in(hour, endpoint.created_at)
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
