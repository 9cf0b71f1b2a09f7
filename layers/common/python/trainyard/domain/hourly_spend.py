"""Pace: what a tenant usually spends in an hour, and when an hour leaves that range."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from trainyard.domain.estimates import quantile

HOURS_KEPT = 72
"""Past hours with spending that are kept."""

HOURS_NEEDED = 6
"""Fewest past hours from which a usual range is derived."""

FACTOR = 3
"""An hour is unusual above this multiple of the 90th percentile of past hours …"""

LEAST_USD = Decimal(1)
"""… but never below this amount."""


@dataclass(frozen=True, slots=True)
class HourlySpend:
    hour: str = ""
    """That is being counted, "2026-11-21T10"."""
    usd: Decimal = Decimal(0)
    """Booked in it."""
    past: tuple[Decimal, ...] = ()
    """What earlier hours came to, oldest first."""
    reported: bool = False
    """Whether it has been called unusual."""

    @property
    def usual_max_usd(self) -> Decimal | None:
        """Return the upper end of the usual range; None while too little is known."""
        if len(self.past) < HOURS_NEEDED:
            return None
        return Decimal(str(quantile([float(usd) for usd in self.past], 0.9)))


def hour_of(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H")


def booked(pace: HourlySpend, usd: Decimal, now: datetime) -> HourlySpend:
    """Return the pace with a cost booked; an hour before the one that is being counted adds to that one."""
    hour = max(hour_of(now), pace.hour)
    if hour != pace.hour and pace.hour:
        past = (*pace.past, pace.usd)[-HOURS_KEPT:] if pace.usd else pace.past
        pace = HourlySpend(hour=hour, past=past)
    return replace(pace, hour=hour, usd=pace.usd + usd)


def is_unusual(pace: HourlySpend) -> bool:
    """Tell whether the hour has left the usual range."""
    usual = pace.usual_max_usd
    return usual is not None and pace.usd > max(FACTOR * usual, LEAST_USD)
