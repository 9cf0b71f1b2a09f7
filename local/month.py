"""Generate a month of executions on the local cloud, and compare recorded costs with SageMaker's jobs.

    python -m local.month [--runs 500] [--seed 1]

The whole service is deployed. Durations and ends of jobs are generated (local/sagemaker/generated.py), with
failures, retries for lack of capacity, stops, exceeded maximum runtimes, late reports, and lost and duplicated
status events. The recomputation reads every job and its tags from SageMaker and prices it with the shipped price
table, in fractions and without any code of the service.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cli.app import main as trainyard
from cli.deployment import Deployment
from local.cloud import Cloud
from local.deploy import deploy
from local.recomputed import executions_of, millionths, recomputed
from local.sagemaker.generated import HANGS
from testing.memory_store import MemoryStore
from trainyard.adapters.aws import clients
from trainyard.application.billing.reports import estimate_errors
from trainyard.application.ports import ExecutionReport
from trainyard.application.scheduling.completion import End
from trainyard.application.scheduling.record import executed
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.admission import decide
from trainyard.domain.errors import Conflict
from trainyard.domain.executions import ExecutionRecord, StepFacts, month_of
from trainyard.domain.requests import Cause, Content, Request, State, Submission
from trainyard.entrypoints import bootstrap
from trainyard.persistence.items import stamp
from trainyard.persistence.requests import request_key
from trainyard.persistence.store import Is, Item, Update, Write

POLICY = """
running_max: 40
quiet_period_seconds: 0
delay_max_seconds: 0
start_retry_delay_seconds: 1
retries: {attempts_max: 3, delay_seconds: 1}
tiers:
  basic:
    quota: 20
    running_max_per_tenant: 5
    runtime_max_minutes: 60
    quality_min: 0.5
    instances: &instances
      - {data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}
      - {data_mb_max: 10, processing: ml.m5.xlarge, training: ml.m5.2xlarge, count: 2, volume_gb: 50}
  premium:
    quota: 20
    running_max_per_tenant: 5
    runtime_max_minutes: 60
    quality_min: 0.5
    storage: pool
    budget_usd: 400
    budget_mode: soft
    instances: *instances
"""
TENANTS = 10
FREE = StepFacts(name="Train", kind="Training", status="Succeeded")
DATA_SETS = 5
BUDGET = Decimal("1.00")
"""The budget of one tenant in USD: less than its executions would cost."""
SETTLE_SECONDS = 240


@dataclass
class Month:
    """The results of a month."""

    recomputed: dict[str, Fraction] = field(default_factory=dict)
    """Tenant → USD, recomputed from SageMaker's jobs."""
    booked: dict[str, Decimal] = field(default_factory=dict)
    """Tenant → USD, as reported by `trainyard costs --json`."""
    executions: Counter[str] = field(default_factory=Counter)
    """Status → executions."""
    records: list[ExecutionRecord] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    items: dict[str, list[Item]] = field(default_factory=dict)
    """Table → its items."""
    missed: int = 0
    """Ends that the reconciler found."""
    corrected: int = 0
    budget_spent: Decimal = Decimal(0)

    @property
    def wrong(self) -> list[str]:
        """Return the differences that were found."""
        found = [
            f"{tenant}: recorded {self.booked.get(tenant, 0)}, cost {float(self.recomputed.get(tenant, 0)):.6f}"
            for tenant in sorted({*self.recomputed, *self.booked})
            if millionths(self.booked.get(tenant, Decimal(0))) != millionths(self.recomputed.get(tenant, 0))
        ]
        if len(self.records) != self.executions.total():
            found.append(f"{len(self.records)} records for {self.executions.total()} executions")
        if self.budget_spent > BUDGET:
            found.append(f"the budgeted tenant spent {self.budget_spent} of {BUDGET} USD")
        left = {state: n for state, n in self.requests.items() if state in ("ADMITTED", "RUNNING")}
        return [*found, *(f"{n} requests are {state}" for state, n in left.items())]


def run(runs: int, seed: int, progress: Progress | None = None) -> Month:
    """Generate a month of about `runs` executions, and compare the recorded costs."""
    with Cloud(generated=seed) as cloud, _environment(cloud), tempfile.TemporaryDirectory() as folder:
        outputs = deploy(cloud)
        policy = Path(folder) / "policy.yaml"
        policy.write_text(POLICY, encoding="utf-8")
        _trainyard("policy", "apply", "--yes", str(policy))
        harness = Deployment("trainyard")
        tenants = [f"tenant{number}" for number in range(TENANTS)]
        for number, tenant in enumerate(tenants):
            options = ("--budget-usd", str(BUDGET)) if number == 0 else ()
            _trainyard(
                "tenant", "create", tenant, "--tier", ("basic", "premium")[number % 2], "--target", "y", *options
            )
        month = Month()
        task = progress.add_task("executions", total=runs) if progress is not None else None
        rounds = ceil(runs / (TENANTS * DATA_SETS))
        dropped = 0
        for number in range(rounds):
            dropped += _drop(cloud, harness, tenants, number, runs - dropped)
            _await_enlisted(harness, tenants, dropped)
            _settle(harness, outputs, cloud, month)
            if progress is not None and task is not None:
                progress.update(
                    task, completed=len(executions_of(cloud.client("sagemaker"), outputs["PipelineName"]))
                )
        _compare(cloud, harness, outputs, month)
        return month


def _drop(cloud: Cloud, harness: Deployment, tenants: list[str], number: int, left: int) -> int:
    """Upload to as many data sets as are left; return how many."""
    count = 0
    for tenant in tenants:
        for data_set in range(DATA_SETS):
            if count < left:
                name = f"{HANGS}-{number}" if data_set == 0 and tenant.endswith("3") else f"set{data_set}"
                size = 2_000_000 if data_set == 4 else 1_000
                root = harness.tenant(tenant)
                cloud.client("s3").put_object(
                    Bucket=root.bucket,
                    Key=f"{root.root}incoming/{name}/data.csv",
                    # Another content each time: what has not changed is not trained on.
                    Body=b"y\n%d\n" % number + b"1\n" * (size // 2),
                )
                count += 1
    return count


def _await_enlisted(harness: Deployment, tenants: list[str], count: int) -> None:
    """Wait until every upload has become a request; raises TimeoutError."""
    limit = time.monotonic() + SETTLE_SECONDS
    while sum(len(harness.scheduler.tables.requests.of_tenant(tenant)) for tenant in tenants) < count:
        if time.monotonic() > limit:
            raise TimeoutError(f"not all of {count} uploads became requests; `trainyard dlq list` may say why")
        time.sleep(0.5)


def _settle(harness: Deployment, outputs: dict[str, str], cloud: Cloud, month: Month) -> None:
    """Wait until all requests are at rest: stop hanging ones, reconcile lost ends, stop those without a budget."""
    with _function_environment(cloud, outputs["ReconcilerFunction"]):
        reconcile, relay = bootstrap.reconcile(), bootstrap.outbox_relay()
    limit, quiet = time.monotonic() + SETTLE_SECONDS, 0
    while quiet < 3 and time.monotonic() < limit:
        time.sleep(0.5)
        scheduler = harness.scheduler
        moving = [r for state in (State.ADMITTED, State.RUNNING) for r in scheduler.tables.requests.active(state)]
        for request in moving:
            if request.state is State.RUNNING and request.data_set.startswith(HANGS):
                with contextlib.suppress(Exception):  # it has ended
                    harness.stop.stop(request.request_id, datetime.now(UTC))
            _age(harness, request)
        # As the timer does, but at once: the start of running requests was moved back.
        month.missed += len(reconcile.run(datetime.now(UTC)).ended)
        month.corrected += len(relay.relay(datetime.now(UTC)).corrected)
        waiting = scheduler.tables.requests.active(State.QUEUED)
        budgeted = [r for r in waiting if r.tenant_id == "tenant0"]
        quiet = (
            quiet + 1 if not moving and len(budgeted) == len(waiting) and not harness.book.outbox_entries() else 0
        )
    for request in harness.scheduler.tables.requests.active(State.QUEUED):
        harness.stop.stop(request.request_id, datetime.now(UTC))


def _age(harness: Deployment, request: Request) -> None:
    """Move a running request's start some minutes back, so that the reconciler checks it."""
    if request.state is State.RUNNING and request.started_at is not None:
        began = stamp(request.started_at - timedelta(minutes=10))
        with contextlib.suppress(Conflict):  # it has just ended
            running = (Is("state", State.RUNNING.value), Is("attempt", request.attempt))
            changes = {"started_at": began, "since": began}
            harness.store.transact([Update(request_key(request.request_id), set=changes, when=running)])


def _compare(cloud: Cloud, harness: Deployment, outputs: dict[str, str], month: Month) -> None:
    sagemaker, pipeline = cloud.client("sagemaker"), outputs["PipelineName"]
    month.recomputed = recomputed(sagemaker, pipeline)
    month.executions.update(one["PipelineExecutionStatus"] for one in executions_of(sagemaker, pipeline))
    report = json.loads(_trainyard("costs", "--by", "tenant", "--json"))
    month.booked = {row["name"]: Decimal(row["usd"]) for row in report["rows"]}
    shown = sum(Decimal(row["shown_usd"]) for row in report["rows"])
    assert shown == Decimal(report["total"]["shown_usd"]), "the rows add up"
    for day in (datetime.now(UTC) - timedelta(days=1), datetime.now(UTC)):
        month.records += harness.book.executions_of_day(day.strftime("%Y-%m-%d"))
    for tenant in (f"tenant{number}" for number in range(TENANTS)):
        month.requests.update(
            request.state.value for request in harness.scheduler.tables.requests.of_tenant(tenant)
        )
    queue = harness.scheduler.tables.queues.get("basic", "tenant0")
    month.budget_spent = queue.spent_usd + queue.reserved_usd
    for table in ("RequestsTable", "RecordTable", "SchedulerTable"):
        pages = cloud.client("dynamodb").get_paginator("scan").paginate(TableName=outputs[table])
        month.items[table] = [item for page in pages for item in page["Items"]]


@contextlib.contextmanager
def _environment(cloud: Cloud) -> Any:
    before = dict(os.environ)
    os.environ |= cloud.environment()
    clients.forget()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before
        clients.forget()


@contextlib.contextmanager
def _function_environment(cloud: Cloud, function: str) -> Any:
    """Use a function's environment, so that its use case can be run here at any time."""
    before = dict(os.environ)
    found = cloud.client("lambda").get_function_configuration(FunctionName=function)
    os.environ |= found["Environment"]["Variables"]
    for built in (bootstrap.reconcile, bootstrap.record, bootstrap.outbox_relay):
        built.cache_clear()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def _trainyard(*arguments: str) -> str:
    """Run an operator's command and return its output; raises RuntimeError if it fails."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = trainyard(["--stack", "trainyard", *arguments])
    if code:
        raise RuntimeError(f"trainyard {' '.join(arguments)}: {err.getvalue()}")
    return out.getvalue()


def writes_of_a_life() -> Counter[str]:
    """Return step → items written for one request if nothing goes wrong, counted with the same code."""
    counted: Counter[str] = Counter()
    stage = ""

    class Counting(MemoryStore):
        def transact(self, writes: Sequence[Write]) -> None:
            counted[stage] += len(writes)
            super().transact(writes)

    policy, now = parse_policy(POLICY, 0, "us-east-1"), datetime.now(UTC)
    scheduler = Scheduler.over(Counting(), retention=timedelta(days=1), backoff=lambda _: None)
    content = Content(
        bucket="b", key="incoming/churn/a", version_id="1", etag="", sequencer="", size_bytes=1, event_time=now
    )
    stage = "enlist"
    scheduler.enlister.enlist(
        Submission(
            request_id="0" * 32,
            tenant_id="tenant0",
            tier="basic",
            data_set="churn",
            content=content,
            cause=Cause.UPLOAD,
        ),
        policy,
        now,
    )
    stage = "admit"
    read_set = scheduler.admitter.read(policy, now)
    scheduler.admitter.commit(decide(read_set.snapshot, policy, now), read_set, policy, now)
    stage = "run"
    (request,) = scheduler.tables.requests.active(State.ADMITTED)
    scheduler.tables.requests.note_running(request, "arn", now)
    stage = "end"
    report = ExecutionReport(ended_at=now + timedelta(minutes=9))
    record = executed(request, replace(report, steps=(FREE,)), policy.prices, now, State.SUCCEEDED)
    scheduler.completer.finish([End(request=request, state=State.SUCCEEDED, execution=record)], policy, now)
    return counted


def item_bytes(value: Any) -> int:
    """Return the approximate size of a value in DynamoDB's notation (developer guide, "Item sizes")."""
    ((kind, inner),) = value.items()
    if kind in ("S", "B"):
        return len(inner.encode() if isinstance(inner, str) else inner)
    if kind == "N":
        return len(inner) // 2 + 2
    if kind in ("BOOL", "NULL"):
        return 1
    if kind == "M":
        return 3 + sum(len(name) + item_bytes(one) + 1 for name, one in inner.items())
    return 3 + sum(item_bytes(one) + 1 for one in inner)


def main() -> int:
    parser = argparse.ArgumentParser(prog="local.month", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    with Progress(console=console) as progress:
        month = run(arguments.runs, arguments.seed, progress)
    _tell(console, month)
    for line in month.wrong:
        console.print(f"[red]✗[/red] {line}")
    if not month.wrong:
        console.print("✓ recorded and recomputed costs match for every tenant, to a millionth of a dollar")
    return 1 if month.wrong else 0


def _tell(console: Console, month: Month) -> None:
    table = Table("TENANT", "RECORDED USD", "RECOMPUTED USD", box=None, pad_edge=False)
    for tenant in sorted({*month.booked, *month.recomputed}):
        recomputed = Decimal(millionths(month.recomputed.get(tenant, 0))).scaleb(-6)
        table.add_row(tenant, f"{month.booked.get(tenant, Decimal(0)):.6f}", f"{recomputed:.6f}")
    console.print(table)
    attempts = Counter(record.attempt for record in month.records)
    console.print(
        f"{month.executions.total()} executions in {month_of(datetime.now(UTC))}: {dict(month.executions)}"
    )
    console.print(
        f"{month.requests.total()} requests: {dict(month.requests)}; attempts {dict(sorted(attempts.items()))}"
    )
    console.print(f"{month.missed} ends found without an event, {month.corrected} records corrected")
    console.print(f"budget of tenant0: {month.budget_spent} of {BUDGET} USD")
    for basis, records in _by_basis(month.records).items():
        errors = estimate_errors(records)
        if errors.seconds_median is not None and errors.usd_median is not None:
            console.print(
                f"estimates from {basis}: {errors.runs} executions; duration off by "
                f"{errors.seconds_median:.0%} (p50), {errors.seconds_p90:.0%} (p90); "
                f"cost by {errors.usd_median:.0%} (p50), {errors.usd_p90:.0%} (p90)"
            )
    writes = writes_of_a_life()
    console.print(f"items written per execution: {sum(writes.values())} ({dict(writes)}), without index entries")
    count = month.executions.total() or 1
    for name, items in month.items.items():
        size = sum(sum(len(n) + item_bytes(v) for n, v in item.items()) for item in items)
        console.print(f"{name}: {len(items)} items, {size / count:,.0f} bytes per execution")


def _by_basis(records: list[ExecutionRecord]) -> dict[str, list[ExecutionRecord]]:
    """Return basis of the estimate → executions: the first ones of a data set, and those with a history."""
    seen: Counter[tuple[str, str]] = Counter()
    found: dict[str, list[ExecutionRecord]] = {"size and tier": [], "history": []}
    for record in sorted(records, key=lambda r: r.admitted_at):
        if record.state is State.SUCCEEDED:
            key = (record.tenant_id, record.data_set)
            found["history" if seen[key] >= 3 else "size and tier"].append(record)
            seen[key] += 1
    return found


if __name__ == "__main__":
    sys.exit(main())
