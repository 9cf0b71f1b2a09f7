"""What a run costs: billable seconds × instances × price, step by step."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

PRICES_USD_PER_HOUR: dict[str, Decimal] = {
    "ml.t3.medium": Decimal("0.05"),
    "ml.m5.large": Decimal("0.115"),
    "ml.m5.xlarge": Decimal("0.23"),
    "ml.m5.2xlarge": Decimal("0.461"),
    "ml.m5.4xlarge": Decimal("0.922"),
    "ml.c5.xlarge": Decimal("0.204"),
    "ml.c5.2xlarge": Decimal("0.408"),
}
"""On demand, us-east-1, training and processing alike: an estimate; the bill decides.

Source: Amazon SageMaker AI pricing page. Other regions and savings plans differ.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUsage:
    """What one job of a run used."""

    instance_type: str
    instance_count: int
    billable_seconds: int


def cost_usd(steps: Iterable[StepUsage]) -> Decimal | None:
    """Return the sum of the steps' costs in USD to a millionth, or None when a price is unknown."""
    total = Decimal(0)
    for step in steps:
        price = PRICES_USD_PER_HOUR.get(step.instance_type)
        if price is None:
            return None
        total += price * step.instance_count * step.billable_seconds / 3600
    return total.quantize(Decimal("0.000001"), rounding=ROUND_HALF_UP)
