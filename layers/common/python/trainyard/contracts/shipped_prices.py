"""The price table that the code ships with; read plainly, since `price_file` checked it when it was written."""

import json
from decimal import Decimal
from functools import cache
from pathlib import Path

from trainyard.domain.prices import NO_PRICES, JobKind, Prices

SHIPPED = Path(__file__).parent.parent / "prices.json"
"""`trainyard prices update` writes it, and a test checks it."""


@cache
def prices_of(region: str) -> Prices:
    """Return the shipped prices of a region; all unknown when the table does not have it."""
    table = json.loads(SHIPPED.read_text(encoding="utf-8"), parse_float=Decimal)
    prices = table["regions"].get(region)
    if prices is None:
        return NO_PRICES
    return Prices(
        version=table["version"],
        region=region,
        hourly={kind: {name: Decimal(usd) for name, usd in prices[kind].items()} for kind in JobKind},
        hosting={name: Decimal(usd) for name, usd in prices["hosting"].items()},
        serverless_gb_second=Decimal(prices["serverless_gb_second"]),
        serverless_gb=Decimal(prices["serverless_gb"]),
        volume_gb_month={kind: Decimal(prices.get(f"{kind}_volume_gb_month", 0)) for kind in JobKind},
        storage_gb_month=Decimal(prices["storage_gb_month"]),
        scheduler_per_execution=Decimal(prices["scheduler_per_execution"]),
    )
