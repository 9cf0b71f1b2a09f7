"""An upload storm on the local cloud: every upload must reach its tenant's queue (make storm).

    python -m benchmarks.storm [--uploads 100000] [--tenants 1000] [--seed 1] [--json]

The real template with all its functions. Trainings are paused, so that only the path of uploads is measured: S3's
event, EventBridge, the uploads queue, intake, the tier queue, enlist. Tenants are pooled, and their records are
written directly, because `make onboarding` measures onboarding. Each tenant uploads to a few data sets
repeatedly: in each data set, the newest upload must be waiting, and each older one must be superseded.
Afterwards, each version in S3 is looked up among the requests.

Uploads per second depend on this machine, which runs everything. What counts is that nothing is lost, that nothing
is left in a queue, and that the functions' workers do not grow.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.console import trainyard
from local.cloud import Cloud
from local.deploy import deploy
from local.workers import memory_mb, workers
from trainyard.adapters.aws.items import deserialized
from trainyard.adapters.aws.tables import DynamoTenants
from trainyard.domain.requests import State

STACK, UPLOADERS, DATA_SETS = "trainyard", 4, 10
AHEAD = 2000
"""Uploads pause at this number of queued messages, which are in this machine's memory."""
UPLOAD_QUEUES = (f"{STACK}-uploads", f"{STACK}-tier-basic")
LOOK_SECONDS = 0.5
GROWTH_MAX = 1.25
STILL_SECONDS = 900
"""Time without progress, after which missing requests are lost. Messages are redelivered after six minutes."""
POLICY = """
running_max: 4
quiet_period_seconds: 0
delay_max_seconds: 0
tiers:
  basic:
    quota: 4
    running_max_per_tenant: 1
    runtime_max_minutes: 5
    storage: pool
    instances: [{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}]
"""

Upload = tuple[str, str, str]
"""Tenant, data set, version."""


@dataclass(kw_only=True)
class Storm:
    """The results of a storm."""

    uploads: int
    tenants: int
    seconds: float = 0.0
    """From the first upload until the last request is waiting."""
    data_sets: int = 0
    waiting: int = 0
    superseded: int = 0
    lost: int = 0
    """Versions without a request."""
    wrong: int = 0
    """Data sets without exactly one waiting request, for the newest version; and requests for no version."""
    dead_letters: int = 0
    memory_mb: list[float] = field(default_factory=list)
    """Of the functions' largest worker, sampled every half second."""

    @property
    def good(self) -> bool:
        return not (self.lost or self.wrong or self.dead_letters) and self.last_mb <= GROWTH_MAX * self.first_mb

    @property
    def per_second(self) -> float:
        return self.uploads / self.seconds

    @property
    def first_mb(self) -> float:
        """The maximum in the second eighth of the time, when all workers are warm."""
        eighth = max(len(self.memory_mb) // 8, 1)
        return max(self.memory_mb[eighth : 2 * eighth], default=0.0)

    @property
    def last_mb(self) -> float:
        """The maximum in the last eighth of the time."""
        return max(self.memory_mb[-max(len(self.memory_mb) // 8, 1) :], default=0.0)


def run(uploads: int, tenants: int, seed: int, show: Callable[[float], None]) -> Storm:
    """Make the uploads, wait until all are processed, and check them; `show` receives the progress."""
    with Cloud(authorise=False, steady=1.0) as cloud:
        return _Yard(cloud, Storm(uploads=uploads, tenants=tenants), seed, show).run()


class _Yard:
    def __init__(self, cloud: Cloud, storm: Storm, seed: int, show: Callable[[float], None]) -> None:
        self.cloud, self.storm, self.show = cloud, storm, show
        self.random = Random(f"storm {seed}")
        self.put: list[Upload] = []
        self.newest: dict[tuple[str, str], str] = {}
        self.scheduler, self.over = threading.Event(), threading.Event()
        self.trouble: Exception | None = None

    def run(self) -> Storm:
        self.outputs = deploy(self.cloud, STACK)
        with tempfile.TemporaryDirectory() as folder:
            policy = Path(folder) / "policy.yaml"
            policy.write_text(POLICY, encoding="utf-8")
            trainyard(self.cloud, STACK, "policy", "apply", "--yes", str(policy))
        trainyard(self.cloud, STACK, "pause", "all")
        self._make_tenants()
        self.began = time.monotonic()
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        try:
            with ThreadPoolExecutor(UPLOADERS) as pool:
                list(pool.map(self._upload_of, self._shares()))
            if self.trouble is not None:
                raise self.trouble
            self._judge(self._await_all())
        finally:
            self.over.set()
            watch.join()
        if self.trouble is not None:
            raise self.trouble
        return self.storm

    def _make_tenants(self) -> None:
        made = trainyard(self.cloud, STACK, "tenant", "create", "t0", "--tier", "basic", "--target", "y")
        records, first = DynamoTenants(tenants_table=self.outputs["TenantsTable"]), made.tenant("t0")
        first = replace(first, role=first.role.MADE, revision=0)
        for number in range(1, self.storm.tenants):
            records.put(replace(first, tenant_id=f"t{number}", root=f"t{number}/"))

    def _shares(self) -> list[list[tuple[str, str]]]:
        """Return the uploads of each uploader in order; a data set has one uploader, so the newest is known."""
        shares: list[list[tuple[str, str]]] = [[] for _ in range(UPLOADERS)]
        for _ in range(self.storm.uploads):
            tenant = self.random.randrange(self.storm.tenants)
            shares[tenant % UPLOADERS].append((f"t{tenant}", f"set{self.random.randrange(DATA_SETS)}"))
        return shares

    def _upload_of(self, share: Iterable[tuple[str, str]]) -> None:
        s3, bucket = self.cloud.client("s3"), self.outputs["PoolBucket"]
        for tenant, data_set in share:
            self.scheduler.wait()
            if self.trouble is not None:
                return
            key = f"{tenant}/incoming/{data_set}/data.csv"
            version = s3.put_object(Bucket=bucket, Key=key, Body=b"y\n1\n")["VersionId"]
            self.put.append((tenant, data_set, version))
            self.newest[tenant, data_set] = version

    def _watch(self) -> None:
        """Pause the uploads while too many are in progress; record the memory of the workers."""
        try:
            self._watched()
        except Exception as error:
            self.trouble = error
            self.scheduler.set()  # uploads must not wait after the watch has ended

    def _watched(self) -> None:
        while not self.over.wait(LOOK_SECONDS):
            under_way = self._messages(UPLOAD_QUEUES)
            (self.scheduler.set if under_way < AHEAD else self.scheduler.clear)()
            self.show(max(len(self.put) - under_way, 0) / self.storm.uploads)
            alive = [memory_mb(process) for process, _ in workers(self.cloud, STACK)]
            self.storm.memory_mb.append(round(max(alive, default=0.0)))

    def _await_all(self) -> list[Any]:
        """Return the requests, once there are as many as uploads, or no new ones for a long time."""
        found: list[Any] = []
        moved = time.monotonic()
        while time.monotonic() < moved + STILL_SECONDS:
            if self._messages(UPLOAD_QUEUES) == 0:
                before, found = len(found), self._requests()
                if len(found) > before:
                    moved = time.monotonic()
                if len(found) >= self.storm.uploads:
                    break
            time.sleep(LOOK_SECONDS)
        self.storm.seconds = moved - self.began
        return found

    def _judge(self, requests: list[Any]) -> None:
        waiting: dict[tuple[str, str], list[str]] = {}
        seen = Counter[Upload]()
        for request in requests:
            data_set = (request["tenant_id"], request["data_set"])
            version = request["content"]["version_id"]
            seen[(*data_set, version)] += 1
            if request["state"] == State.QUEUED:
                waiting.setdefault(data_set, []).append(version)
        put, storm = set(self.put), self.storm
        storm.data_sets = len(self.newest)
        storm.waiting = sum(map(len, waiting.values()))
        storm.superseded = sum(request["state"] == State.SUPERSEDED for request in requests)
        storm.lost = len(put - seen.keys())
        storm.wrong = len(seen.keys() - put) + sum(count > 1 for count in seen.values())
        storm.wrong += sum(waiting.get(one) != [version] for one, version in self.newest.items())
        storm.dead_letters = self._messages(
            [name for name in self._queues() if name.endswith(("-dlq", "undelivered"))]
        )

    def _requests(self) -> list[Any]:
        pages = (
            self.cloud.client("dynamodb")
            .get_paginator("scan")
            .paginate(
                TableName=self.outputs["RequestsTable"],
                ProjectionExpression="tenant_id, data_set, content, #state",
                FilterExpression="attribute_exists(content)",
                ExpressionAttributeNames={"#state": "state"},
            )
        )
        return [deserialized(item) for page in pages for item in page["Items"]]

    def _queues(self) -> list[str]:
        urls = self.cloud.client("sqs").list_queues(QueueNamePrefix=STACK).get("QueueUrls", ())
        return [url.rpartition("/")[2] for url in urls]

    def _messages(self, names: Iterable[str]) -> int:
        """Return the number of messages in queues, including those in flight."""
        sqs, counts = (
            self.cloud.client("sqs"),
            ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"),
        )
        found = [
            sqs.get_queue_attributes(
                QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"], AttributeNames=list(counts)
            )
            for name in names
        ]
        return sum(int(one["Attributes"][count]) for one in found for count in counts)


def told(storm: Storm) -> str:
    """Return a summary of a storm."""
    return (
        f"{storm.uploads:,} uploads of {storm.tenants:,} tenants to {storm.data_sets:,} data sets in "
        f"{storm.seconds:.0f} s ({storm.per_second:.0f} per second): {storm.waiting:,} requests waiting, "
        f"{storm.superseded:,} superseded, {storm.lost} lost, {storm.wrong} wrong, "
        f"{storm.dead_letters} dead letters; the functions' largest worker: {storm.first_mb:.0f} MB at the start, "
        f"{storm.last_mb:.0f} MB at the end"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.storm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--uploads", type=int, default=100_000, help="total uploads (default: 100000)")
    parser.add_argument("--tenants", type=int, default=1000, help="tenants that upload (default: 1000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    given = parser.parse_args()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("storm", total=1.0)
        storm = run(given.uploads, given.tenants, given.seed, lambda share: progress.update(task, completed=share))
    if given.json:
        print(json.dumps(asdict(storm)))
    else:
        print(told(storm))
    return int(not storm.good)


if __name__ == "__main__":
    sys.exit(main())
