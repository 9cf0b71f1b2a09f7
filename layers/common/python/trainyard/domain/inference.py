"""Inference: what calls of a shared endpoint used in an hour, and how the endpoint's cost is divided among them.

The price of an hour has two halves: one pays for computing, the other for memory. Of the first, a data set pays
the share of the endpoint's virtual CPUs that its calls kept busy; of the second, the share of the memory that its
model takes up, if it answered a call in that hour. What nobody used is the provider's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal

from trainyard.domain.prices import MILLIONTH, SECONDS_PER_HOUR, Prices, rounded

HALF = Decimal("0.5")

PROCESS_BYTES = 160 * 1024 * 1024
"""Memory of the process that holds one model, without the model: Python with scikit-learn and pandas."""

COUNTED_WITHIN = timedelta(minutes=15)
"""After the end of an hour, all calls that began in it have been counted: no call lasts as long."""

_SMALL = {"medium": 1, "large": 2, "xlarge": 4}
"""Size → virtual CPUs; the others, such as "2xlarge", have four for each "x"."""
_GIB_PER_CPU = {"c": 2, "m": 4, "r": 8, "g": 4}
"""Memory of an instance for each virtual CPU, by the first letter of its family."""
_BURSTABLE = {"medium": (2, 4), "large": (2, 8), "xlarge": (4, 16), "2xlarge": (8, 32)}
"""Size → virtual CPUs and GiB of the family t2."""
_GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointUse:
    """What calls for one data set of a tenant used of an endpoint in an hour."""

    tenant_id: str
    data_set: str
    tier: str
    algorithm: str
    calls: int = 0
    failed: int = 0
    """Calls that the model or the endpoint did not answer; they are counted among the calls."""
    milliseconds: int = 0
    """From sending a request to its answer, summed."""
    bytes_in: int = 0
    bytes_out: int = 0
    model_bytes: int = 0
    """The size of the model's archive."""
    usd: Decimal | None = None
    """None until the hour is booked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What an instance has."""

    cpus: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointHour:
    """An hour of a shared endpoint."""

    endpoint: str
    arn: str
    hour: str
    """UTC, "2026-11-21T10"."""
    instance_type: str
    instance_count: int
    """Where it scales, the most of that hour."""
    seconds: int
    """For how much of the hour there was the endpoint."""
    usd: Decimal | None
    """What it cost; None where the price is unknown."""
    idle_usd: Decimal = Decimal(0)
    """What of that nobody used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A part of an instance that is reserved for one data set, whether it is called or not."""

    name: str
    """Of the inference component that reserves it."""
    tenant_id: str
    data_set: str
    tier: str
    algorithm: str
    cpu_percent: int
    """Of one virtual CPU."""
    memory_mb: int
    created_at: datetime
    ended_at: datetime | None = None
    """When it was seen last, of one that does not exist any more."""


@dataclass(frozen=True, slots=True)
class CountChange:
    """A change of an endpoint's number of instances."""

    at: datetime
    count: int


def begins(hour: str) -> datetime:
    """Return when an hour begins."""
    return datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=UTC)


def capacity_of(instance_type: str) -> Capacity | None:
    """Return what an instance of the families c, m, r, g and t2 has; None where that is not known.

    Source: Amazon SageMaker AI pricing, "Instance details".
    """
    family, size = instance_type.removeprefix("ml.").split(".")
    if family == "t2":
        cpus, gib = _BURSTABLE.get(size, (0, 0))
    else:
        many = size.removesuffix("xlarge")
        cpus = 4 * int(many) if many.isdecimal() else _SMALL.get(size, 0)
        gib = cpus * _GIB_PER_CPU.get(family[:1], 0)
    return Capacity(cpus=cpus, memory_bytes=gib * _GIB) if gib else None


def divided(
    usd: Decimal, hour: EndpointHour, uses: Sequence[EndpointUse], capacity: Capacity
) -> tuple[list[Decimal], Decimal]:
    """Return what each use pays of what an hour cost, and what is left to the provider.

    All amounts are exact to a millionth, and add up to the cost. Where more was used than there is (calls wait for
    each other, models take turns in memory), all pay in proportion.
    """
    if not usd or not hour.seconds:
        return [Decimal(0)] * len(uses), Decimal(0)
    busy = [Decimal(use.milliseconds) / 1000 for use in uses]
    resident = [Decimal(use.model_bytes + PROCESS_BYTES) for use in uses]
    of_cpus = max(Decimal(hour.seconds * hour.instance_count * capacity.cpus), sum(busy, Decimal(0)))
    of_memory = max(Decimal(capacity.memory_bytes * hour.instance_count), sum(resident, Decimal(0)))
    shares = [
        (usd * HALF * (seconds / of_cpus + size / of_memory)).quantize(MILLIONTH, rounding=ROUND_FLOOR)
        for seconds, size in zip(busy, resident, strict=True)
    ]
    return shares, rounded(usd) - sum(shares, Decimal(0))


def reserved_usd(
    hourly: Decimal, reservation: Reservation, hour: str, capacity: Capacity, until: datetime | None = None
) -> Decimal:
    """Return what a reservation costs in an hour, at an instance's price; `until` is the end of its endpoint.

    As for all shared endpoints, half of the price pays for processors, and half for memory.
    """
    ends = [end for end in (reservation.ended_at, until) if end is not None]
    seconds = seconds_in(hour, reservation.created_at, min(ends, default=None))
    processors = Decimal(reservation.cpu_percent) / 100 / capacity.cpus
    memory = Decimal(reservation.memory_mb * 1024 * 1024) / capacity.memory_bytes
    return rounded(hourly * HALF * (processors + memory) * seconds / SECONDS_PER_HOUR)


def serverless_usd(use: EndpointUse, memory_mb: int, prices: Prices) -> Decimal:
    """Return what calls of a serverless endpoint cost: their time by its memory, and the bytes in and out.

    The time is what our calls took, which is a little more than AWS bills. Source: Amazon SageMaker AI pricing,
    "Serverless Inference".
    """
    seconds, gb = Decimal(use.milliseconds) / 1000, Decimal(memory_mb) / 1024
    processed = Decimal(use.bytes_in + use.bytes_out) / _GIB
    return rounded(
        seconds * gb * (prices.serverless_gb_second or Decimal(0))
        + processed * (prices.serverless_gb or Decimal(0))
    )


def seconds_in(hour: str, since: datetime, until: datetime | None = None) -> int:
    """Return for how many seconds of an hour there was an endpoint, from its creation to its end, if any."""
    begin, end = begins(hour), begins(hour) + timedelta(seconds=SECONDS_PER_HOUR)
    begin, end = max(begin, since), min(end, until) if until is not None else end
    return max(int((end - begin).total_seconds()), 0)


@dataclass(frozen=True, slots=True)
class Instances:
    """The instances of an endpoint in an hour."""

    seconds: int
    """For which they ran, summed."""
    most: int
    at_end: int


def instances_in(
    hour: str, since: datetime, until: datetime | None, count: int, changes: Sequence[CountChange]
) -> Instances:
    """Return the instances of an endpoint in an hour; `since` is its creation, and `until` its end, if any.

    It had `count` instances when the hour, or in it the endpoint, began. Of the changes, the oldest first, only
    those count that were made in the hour, and not to an earlier endpoint of its name.
    """
    begin, end = max(since, begins(hour)), begins(hour) + timedelta(seconds=SECONDS_PER_HOUR)
    changes = [change for change in changes if begin <= change.at < end]
    starts = [begin, *(change.at for change in changes)]
    counts = [count, *(change.count for change in changes)]
    ends = [min(end, until) if until is not None else end for end in starts[1:]]
    spans = [
        (seconds_in(hour, begin, end), instances)
        for begin, end, instances in zip(starts, [*ends, until], counts, strict=True)
    ]
    running = [(seconds, instances) for seconds, instances in spans if seconds]
    most = max((instances for _, instances in running), default=counts[-1])
    return Instances(sum(seconds * instances for seconds, instances in running), most, counts[-1])
