"""What serving a data set costs in a month in each mode, by calls a day (make serving-costs).

    python -m benchmarks.serving_costs [--milliseconds 100] [--picture docs/serving-costs.svg]

Computed by the code that books calls, from the shipped list prices: calls of equal length, spread evenly over the
day; ml.m5.large, 2 GB of a serverless endpoint, half a virtual CPU and 2 GB of an inference component. A batch
transform predicts the rows of a day in one job, which is assumed to take a minute longer than they do. Nothing is
measured.
"""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from math import log10
from pathlib import Path

from rich.console import Console
from rich.table import Table

from trainyard.contracts.shipped_prices import prices_of
from trainyard.domain.hourly_spend import hour_of
from trainyard.domain.inference import (
    EndpointHour,
    EndpointUse,
    Reservation,
    capacity_of,
    divided,
    reserved_usd,
    serverless_usd,
)
from trainyard.domain.prices import JobKind, Prices, shown

REGION, INSTANCE, MEMORY_MB, CPU_PERCENT = "us-east-1", "ml.m5.large", 2048, 50
JOB_SECONDS = 60
"""Assumed: for which a transform job is billed beside the time of its rows."""
HOURS, DAYS = 730, Decimal(730) / 24
"""Of a month, as AWS counts them."""
CALLS = (1, 10, 100, 1_000, 10_000, 100_000)
"""A day."""
MODEL_BYTES = 1_000_000
ROW_BYTES = 2_000
"""Of a call and its answer together."""


def _use(calls: int, milliseconds: int) -> EndpointUse:
    return EndpointUse(
        tenant_id="t",
        data_set="d",
        tier="t",
        algorithm="a",
        calls=calls,
        milliseconds=milliseconds,
        bytes_in=ROW_BYTES * calls,
        model_bytes=MODEL_BYTES,
    )


def shared(prices: Prices, calls: int, milliseconds: int) -> Decimal:
    """Return what a tenant pays of a multi-model endpoint that others use too."""
    hourly, capacity = prices.hosting[INSTANCE], capacity_of(INSTANCE)
    assert capacity is not None
    hours = min(calls, 24)
    use = _use(1, round(calls * milliseconds / hours))
    hour = EndpointHour(
        endpoint="e",
        arn="",
        hour="2026-11-01T00",
        instance_type=INSTANCE,
        instance_count=1,
        seconds=3600,
        usd=hourly,
    )
    (share,), _ = divided(hourly, hour, [use], capacity)
    return share * hours * DAYS


def serverless(prices: Prices, calls: int, milliseconds: int) -> Decimal:
    return serverless_usd(_use(calls, calls * milliseconds), MEMORY_MB, prices) * DAYS


def instance(prices: Prices, calls: int, milliseconds: int) -> Decimal:
    """Return what one instance costs, whether it is called or not."""
    return prices.hosting[INSTANCE] * HOURS


def component(prices: Prices, calls: int, milliseconds: int) -> Decimal:
    """Return what an inference component costs, whether it is called or not."""
    hourly, capacity = prices.hosting[INSTANCE], capacity_of(INSTANCE)
    assert capacity is not None
    hour = datetime(2026, 11, 1, tzinfo=UTC)
    reservation = Reservation(
        name="c",
        tenant_id="t",
        data_set="d",
        tier="t",
        algorithm="a",
        cpu_percent=CPU_PERCENT,
        memory_mb=MEMORY_MB,
        created_at=hour,
    )
    return reserved_usd(hourly, reservation, hour_of(hour), capacity) * HOURS


def batch(prices: Prices, calls: int, milliseconds: int) -> Decimal:
    """Return what a job a day costs that predicts as many rows."""
    seconds = JOB_SECONDS + calls * milliseconds // 1000
    usd = prices.cost(JobKind.TRANSFORM, INSTANCE, 1, 0, seconds)
    assert usd is not None
    return usd * DAYS


Cost = Callable[[Prices, int, int], Decimal]
MODES: dict[str, Cost] = {
    "multi-model, multi-container": shared,
    "serverless": serverless,
    "real-time, asynchronous": instance,
    "inference-component": component,
    "batch-transform": batch,
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00")


def busy_share(calls: int, milliseconds: int) -> float:
    """Return which share of the time one such call is being answered; above 1, one instance is not enough."""
    return calls * milliseconds / 86_400_000


def table(prices: Prices, milliseconds: int) -> Table:
    result = Table(title=f"USD a month by calls a day, {milliseconds} ms each", title_justify="left")
    for name in ("CALLS A DAY", *MODES):
        result.add_column(name, justify="right")
    for calls in CALLS:
        costs = [shown(cost(prices, calls, milliseconds)) for cost in MODES.values()]
        result.add_row(f"{calls:,}", *costs)
    return result


WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 760, 380, 70, 80, 330
LEGEND_COLUMNS = 3
LOWEST, HIGHEST = -3, 3
"""Powers of ten of the cost's axis."""


def _x(calls: float) -> float:
    return LEFT + (WIDTH - LEFT - 30) * log10(calls) / log10(CALLS[-1])


def _y(usd: float) -> float:
    power = min(max(log10(usd), LOWEST), HIGHEST)
    return BOTTOM - (BOTTOM - TOP) * (power - LOWEST) / (HIGHEST - LOWEST)


def picture(prices: Prices, milliseconds: int) -> str:
    """Return an SVG of the table, both axes logarithmic."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-weight="bold">USD a month by calls a day ({milliseconds} ms each)</text>',
    ]
    for power in range(LOWEST, HIGHEST + 1):
        level, usd = _y(10**power), f"{10**power:,}" if power >= 0 else f"{10**power:.{-power}f}"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 30}" y1="{level:.0f}" y2="{level:.0f}" stroke="#cccccc"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{level + 4:.0f}" text-anchor="end">{usd}</text>')
    for calls in CALLS:
        parts.append(f'<text x="{_x(calls):.0f}" y="{BOTTOM + 20}" text-anchor="middle">{calls:,}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - 30) / 2:.0f}" y="{BOTTOM + 40}" text-anchor="middle">calls a day</text>'
    )
    steps = [10 ** (number / 10) for number in range(10 * round(log10(CALLS[-1])) + 1)]
    for number, (name, cost) in enumerate(MODES.items()):
        points = " ".join(
            f"{_x(calls):.1f},{_y(float(cost(prices, round(calls), milliseconds))):.1f}" for calls in steps
        )
        row, column = divmod(number, LEGEND_COLUMNS)
        x, y, colour = LEFT + column * 235, 34 + 20 * row, COLOURS[number]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="{y + 11}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--milliseconds", type=int, default=100, help="of a call (default: 100)")
    parser.add_argument("--picture", type=Path, help="save the curves to this file (SVG)")
    arguments = parser.parse_args()
    prices = prices_of(REGION)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(prices, arguments.milliseconds))
    busy = busy_share(CALLS[-1], arguments.milliseconds)
    console.print(
        f"{CALLS[-1]:,} calls a day keep one CPU busy for {busy:.0%} of the time; list prices of {REGION} "
        f"({prices.version}), {INSTANCE}, {MEMORY_MB} MB"
    )
    if arguments.picture:
        arguments.picture.write_text(picture(prices, arguments.milliseconds), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
