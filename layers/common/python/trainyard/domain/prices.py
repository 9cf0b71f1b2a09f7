"""AWS list prices of jobs by region, with the version of the price table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from enum import StrEnum

MILLIONTH = Decimal("0.000001")
"""The unit in dollars to which each job's cost is rounded; sums of them are exact."""

SECONDS_PER_HOUR = 3600
HOURS_PER_MONTH = 730
"""By which AWS prices volumes by the GB-month (Amazon EBS pricing)."""


class JobKind(StrEnum):
    """The kinds of jobs that cost money by the second."""

    TRAINING = "training"
    PROCESSING = "processing"
    TRANSFORM = "transform"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """List prices of one region, on demand, in USD."""

    version: str = "none"
    """The day on which the table was made."""
    region: str = ""
    hourly: Mapping[JobKind, Mapping[str, Decimal]] = field(default_factory=dict)
    """Kind of job → instance type → USD per instance and hour; what is not listed is unknown."""
    hosting: Mapping[str, Decimal] = field(default_factory=dict)
    """Instance type → USD per instance and hour of an endpoint."""
    serverless_gb_second: Decimal | None = None
    """USD per second and GB of memory of a serverless endpoint that answers."""
    serverless_gb: Decimal | None = None
    """USD per GB that goes into a serverless endpoint, or comes out of it."""
    volume_gb_month: Mapping[JobKind, Decimal] = field(default_factory=dict)
    """Kind of job → USD per GB and month of the volumes of its instances."""
    storage_gb_month: Decimal | None = None
    """USD per GB and month of S3."""
    scheduler_per_execution: Decimal | None = None
    """USD that the scheduler itself costs per execution: counted calls at list prices."""

    def cost(
        self, kind: JobKind, instance_type: str, instance_count: int, volume_gb: int, seconds: int
    ) -> Decimal | None:
        """Return what a job with its volumes costs in USD, not rounded, or None when a price is unknown."""
        hourly = self.hourly.get(kind, {}).get(instance_type)
        volume = self.volume_gb_month.get(kind)
        if hourly is None or volume is None:
            return None
        monthly = hourly * HOURS_PER_MONTH + volume * volume_gb
        return monthly * instance_count * seconds / (HOURS_PER_MONTH * SECONDS_PER_HOUR)


NO_PRICES = Prices()
"""Every price unknown."""


def rounded(usd: Decimal) -> Decimal:
    """Return an amount to a millionth of a dollar."""
    return usd.quantize(MILLIONTH, rounding=ROUND_HALF_UP)


def rounded_up(usd: Decimal) -> Decimal:
    """Return an amount to a millionth of a dollar, never less than it is."""
    return usd.quantize(MILLIONTH, rounding=ROUND_CEILING)


def places_for(usd: Decimal | int) -> int:
    """Return the number of decimal places for an amount: cents, or more below a dollar."""
    return 2 if usd >= 1 or not usd else 6


def shown(usd: Decimal) -> str:
    """Return an amount for display: to the cent, rounded half up, or finer below a dollar."""
    unit = Decimal(1).scaleb(-places_for(abs(usd)))
    return f"{usd.quantize(unit, rounding=ROUND_HALF_UP):,}"
