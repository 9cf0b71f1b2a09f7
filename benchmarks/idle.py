"""Print what a deployment costs in a month without a training (make idle-cost): its parts times list prices.

The template is deployed into the local cloud, and each scheduled function is invoked once, to see which metrics it
writes. What depends on use is left out: stored data, log lines, and the tables' reads and writes.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from local.cloud import Cloud
from local.deploy import deploy

STACK = "trainyard"
HOURS = 730
"""Of a month, as AWS counts them."""
SECONDS_ASSUMED = Decimal(1)
"""How long each timed invocation is billed: an assumption, as nothing was measured on AWS."""
POLLERS = 5
"""Of a queue that a function reads, each waiting 20 seconds for messages (Lambda developer guide, "Using Lambda
with Amazon SQS"). Reading a table's stream is free for Lambda."""
PERIODS = {"minute": 60, "minutes": 60, "hour": 3600, "hours": 3600, "day": 86400, "days": 86400}

PRICES = {
    "AWS::CloudWatch::Alarm": Decimal("0.10"),
    "AWS::CloudWatch::Dashboard": Decimal("3.00"),
    "AWS::KMS::Key": Decimal("1.00"),
    "metric": Decimal("0.30"),
    "schedule": Decimal("1.00") / 1_000_000,
    "invocation": Decimal("0.20") / 1_000_000,
    "gigabyte second": Decimal("0.0000133334"),
    "receive": Decimal("0.40") / 1_000_000,
}
"""USD in us-east-1, without the free tier, of alarm, dashboard, key and metric a month; read in November 2026 from
the pricing pages of CloudWatch, KMS, EventBridge Scheduler, Lambda (Arm) and SQS."""


class Item(NamedTuple):
    """What is paid for: how many a month, and their price in USD."""

    name: str
    per_month: Decimal
    usd: Decimal


class Timer(NamedTuple):
    """A schedule that invokes a function."""

    function: str
    payload: str
    per_month: Decimal
    memory_mb: int


def timers(cloud: Cloud) -> Iterator[Timer]:
    """Yield the stack's schedules that invoke functions."""
    scheduler, functions = cloud.client("scheduler"), cloud.client("lambda")
    for page in scheduler.get_paginator("list_schedules").paginate():
        for listed in page["Schedules"]:
            schedule = scheduler.get_schedule(Name=listed["Name"], GroupName=listed["GroupName"])
            rate = re.fullmatch(r"rate\((\d+) (\w+)\)", schedule["ScheduleExpression"])
            seconds = (
                int(rate[1]) * PERIODS[rate[2]] if rate else 86400
            )  # a cron expression of ours is daily at most
            name = schedule["Target"]["Arn"].rpartition(":function:")[2]
            memory = functions.get_function_configuration(FunctionName=name)["MemorySize"]
            yield Timer(name, schedule["Target"].get("Input", "{}"), Decimal(HOURS * 3600) / seconds, memory)


def metrics(cloud: Cloud) -> set[tuple[str, ...]]:
    """Return the metrics that the functions' logs contain: name, dimensions and their values."""
    logs, written = cloud.client("logs"), set[tuple[str, ...]]()
    for page in logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=f"/{STACK}/{STACK}/"):
        for group in page["logGroups"]:
            events = logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"])
            for event in (event for answer in events for event in answer["events"]):
                written |= set(_metrics_of(event["message"]))
    return written


def _metrics_of(line: str) -> Iterator[tuple[str, ...]]:
    try:
        record: dict[str, Any] = json.loads(line)
        parts = record["_aws"]["CloudWatchMetrics"]
    except (ValueError, KeyError, TypeError):
        return
    for part in parts:
        for names in part["Dimensions"]:
            values = [f"{name}={record[name]}" for name in names]
            yield from ((metric["Name"], *values) for metric in part["Metrics"])


def items(cloud: Cloud) -> list[Item]:
    """Return what the deployment is charged for while nothing happens."""
    pages = cloud.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
    kinds = Counter(each["ResourceType"] for page in pages for each in page["StackResourceSummaries"])
    bought = [
        Item(kind.rpartition("::")[2].lower(), Decimal(kinds[kind]), kinds[kind] * PRICES[kind])
        for kind in PRICES
        if "::" in kind
    ]
    timed = list(timers(cloud))
    for timer in timed:
        cloud.client("lambda").invoke(FunctionName=timer.function, Payload=timer.payload.encode())
    count = Decimal(len(metrics(cloud)))
    invocations = sum((timer.per_month for timer in timed), Decimal(0))
    gigabyte_seconds = sum((t.per_month * t.memory_mb / 1024 * SECONDS_ASSUMED for t in timed), Decimal(0))
    mappings = cloud.client("lambda").get_paginator("list_event_source_mappings").paginate()
    queues = sum(":sqs:" in each["EventSourceArn"] for page in mappings for each in page["EventSourceMappings"])
    receives = Decimal(queues * POLLERS * HOURS * 3600) / 20
    return [
        *bought,
        Item("custom metric", count, count * PRICES["metric"]),
        Item("schedule that is due", invocations, invocations * PRICES["schedule"]),
        Item("timed invocation", invocations, invocations * PRICES["invocation"]),
        Item(
            f"GB-second of them, at {SECONDS_ASSUMED} s each",
            gigabyte_seconds,
            gigabyte_seconds * PRICES["gigabyte second"],
        ),
        Item(f"empty receive of {queues} queues", receives, receives * PRICES["receive"]),
    ]


def main() -> None:
    """Deploy into a local cloud, and print the table."""
    with Cloud() as cloud:
        deploy(cloud, STACK)
        charged = items(cloud)
    print("| what | a month | USD |\n|---|---:|---:|")
    for item in charged:
        print(f"| {item.name} | {item.per_month:,.0f} | {item.usd:.2f} |")
    print(f"| **together** | | **{sum(item.usd for item in charged):.2f}** |")


if __name__ == "__main__":
    main()
