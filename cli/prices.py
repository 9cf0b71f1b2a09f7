"""The price table: show it, and update it."""

import json
from datetime import UTC, datetime
from decimal import Decimal

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from trainyard.adapters.aws.billing import list_prices
from trainyard.contracts.price_file import PriceFile, parse_prices, write_prices
from trainyard.contracts.shipped_prices import SHIPPED
from trainyard.domain.errors import Refused
from trainyard.domain.prices import JobKind

SOURCE = (
    "AWS Price List API, AmazonSageMaker, on demand; serverless endpoints, volumes, storage and scheduler written "
    "down by hand"
)


def show(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show the prices of a region, and which instances of the policy lack one."""
    table = _table(arguments)
    region = arguments.region or deployment.region
    prices = table.regions.get(region)
    if prices is None:
        raise Refused(
            f"the price table has no prices for {region}, so all costs there are unknown; it covers "
            f"{', '.join(sorted(table.regions))}. Add it with `trainyard prices update --region {region}`"
        )
    names = sorted({*prices.training, *prices.processing, *prices.transform, *prices.hosting})
    return Answer(
        data={"version": table.version, "region": region} | prices.model_dump(mode="json"),
        columns=("INSTANCE", "TRAINING USD/H", "PROCESSING USD/H", "TRANSFORM USD/H", "ENDPOINT USD/H"),
        rows=[
            (
                name,
                prices.training.get(name),
                prices.processing.get(name),
                prices.transform.get(name),
                prices.hosting.get(name),
            )
            for name in names
        ],
        lines=[
            f"version {table.version}, {table.source}",
            f"volumes per GB and month: {prices.training_volume_gb_month} USD for training, "
            f"{prices.processing_volume_gb_month} USD for processing",
            f"serverless endpoints: {prices.serverless_gb_second} USD per GB of memory and second, "
            f"{prices.serverless_gb} USD per GB of requests and answers",
        ],
    )


def update(deployment: Deployment, arguments: Arguments) -> Answer:
    """Read the list prices of a region, and write them into the table; a deployment puts them in force."""
    table, file = _table(arguments), arguments.file or SHIPPED
    region = arguments.region or deployment.region
    before = table.regions.get(region)
    if before is None and arguments.volume_gb_month is None:
        raise Refused(
            f"the price table does not have {region} yet: give the monthly price per GB of a job's volume there "
            "with --volume-gb-month (see the SageMaker AI pricing page)"
        )
    hourly = list_prices(region)
    volume = arguments.volume_gb_month
    others = {
        "training_volume_gb_month": volume or (before and before.training_volume_gb_month),
        "processing_volume_gb_month": volume or (before and before.processing_volume_gb_month),
        "serverless_gb_second": before.serverless_gb_second if before else Decimal("0.00002"),
        "serverless_gb": before.serverless_gb if before else Decimal("0.016"),
        "storage_gb_month": before.storage_gb_month if before else Decimal("0.023"),
        "scheduler_per_execution": before.scheduler_per_execution if before else Decimal("0.0001"),
    }
    made = {
        "version": datetime.now(UTC).strftime("%Y-%m-%d"),
        "currency": "USD",
        "source": SOURCE,
        "regions": {
            **{name: prices.model_dump(mode="json") for name, prices in table.regions.items()},
            region: {**hourly, **others},
        },
    }
    after = parse_prices(json.dumps(made, default=str))
    rows = _changes(table, after, region)
    if not arguments.dry_run:
        file.write_text(write_prices(after), encoding="utf-8")
    said = "nothing was written" if arguments.dry_run else f"wrote {file}: deploy to put it in force"
    return Answer(
        data={"version": after.version, "region": region, "changes": [list(row) for row in rows]},
        columns=("INSTANCE", "JOB", "OLD PRICE", "NEW PRICE"),
        rows=list(rows),
        lines=[f"{len(rows)} prices of {region} changed; {said}"],
    )


def _changes(before: PriceFile, after: PriceFile, region: str) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for kind in (*map(str, JobKind), "hosting"):
        old: dict[str, Decimal] = getattr(before.regions.get(region), kind, {})
        new: dict[str, Decimal] = getattr(after.regions[region], kind)
        rows += [
            (name, kind, str(old.get(name, "unknown")), str(new.get(name, "removed")))
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
    return rows


def _table(arguments: Arguments) -> PriceFile:
    return parse_prices((arguments.file or SHIPPED).read_text(encoding="utf-8"))
