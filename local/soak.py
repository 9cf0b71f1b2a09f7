"""Soak test: traffic on the local cloud while Lambda workers are killed and SageMaker fails (make soak).

    python -m local.soak [--minutes 60] [--seed 1]

The real template, in real time. Data sets are uploaded at random times given by the seed; jobs do nothing for a
second and succeed. From time to time a worker process of a function is killed, whatever it is doing; SageMaker
refuses some calls, executes some without responding, or is killed: for some seconds it does not respond, and no
events are sent for what ends meanwhile. A fifth of S3's events is lost. When the time is over, the faults stop and
everything must complete: one request per upload, one success per request, one execution per attempt, no slot held,
no dead letters. Memory and open files of the functions' workers, which keep nothing between invocations, and the
number of unfinished requests are measured throughout and must not grow.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from local.cloud import Cloud
from local.deploy import deploy
from local.workers import memory_mb, open_files, workers

STACK, TENANTS = "trainyard", 4
DROPS_PER_SECOND, KILL_SECONDS, SHAKE_SECONDS, OUTAGE_SECONDS = 0.5, 20.0, 20.0, 240.0
"""An end without an event holds its slot for five minutes, a batch whose recorder was killed for three: with more
of either, there would be too few slots and ever more waiting requests. A short soak has more of both."""
TIMER_SECONDS = {"Dispatcher": 20.0, "Reconciler": 30.0, "Intake": 30.0}
"""The local cloud runs no such schedules; these are more frequent than on AWS, because executions are shorter."""
DRAIN_SECONDS = 1500
"""Messages of a killed worker are redelivered after six minutes."""
POLICY = """
running_max: 30
quiet_period_seconds: 0
delay_max_seconds: 0
start_retry_delay_seconds: 5
tiers:
  basic: &tier
    quota: 15
    running_max_per_tenant: 15
    runtime_max_minutes: 2
    instances: [{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}]
  premium: *tier
"""
POOLED_FILES = 60
"""Up to this many open files, a worker is only filling its clients' connection pools of up to ten connections each
(botocore, Config, max_pool_connections): the longer a worker lives, the more of them it has used."""

LOOKS_MIN = 32
STARTS = ("StartPipelineExecution", "DescribePipelineExecution", "ListPipelineExecutionSteps")


UPLOADS_LOST = 0.2
"""The share of S3's events that is lost; the sweep finds these uploads."""


@dataclass
class Soak:
    cloud: Cloud
    seed: int
    dropped: list[tuple[str, str]] = field(default_factory=list)
    """Tenant and data set."""
    kills: Counter[str] = field(default_factory=Counter)
    shakes: int = 0
    outages: int = 0
    memory_mb: list[float] = field(default_factory=list)
    """Of the largest worker, sampled."""
    files: list[int] = field(default_factory=list)
    """Open files of the worker with the most, sampled."""
    unfinished: list[int] = field(default_factory=list)
    """Requests that wait or run, sampled."""
    missed: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.random = Random(f"soak {self.seed}")  # noqa: S311 - a load, no secret

    def run(self, seconds: float, progress: Progress) -> list[str]:
        """Run the soak; return the problems that were found at the end."""
        from benchmarks.console import trainyard

        self.outputs = deploy(self.cloud, STACK, {"RunningMax": "30"})
        with TemporaryDirectory() as folder:
            policy = Path(folder) / "policy.yaml"
            policy.write_text(POLICY, encoding="utf-8")
            trainyard(self.cloud, STACK, "policy", "apply", "--yes", str(policy))
        for number in range(TENANTS):
            tier = ("basic", "premium")[number % 2]
            trainyard(self.cloud, STACK, "tenant", "create", f"t{number}", "--tier", tier, "--target", "y")
        self.harness = trainyard(self.cloud, STACK)
        self.roots = {f"t{n}": self.harness.tenant(f"t{n}") for n in range(TENANTS)}
        timers = [threading.Thread(target=self._timer, args=one, daemon=True) for one in TIMER_SECONDS.items()]
        for timer in timers:
            timer.start()
        self.cloud.lose_uploads(UPLOADS_LOST)
        self._soak(seconds, progress)
        self.cloud.plant_faults()
        self.cloud.lose_uploads(0.0)
        self._drain(progress)
        self.over.set()
        return self._wrong()

    def _soak(self, seconds: float, progress: Progress) -> None:
        task = progress.add_task("soaking", total=seconds)
        began = time.monotonic()
        kill = shake = look = began
        kill_every, outage_every = min(KILL_SECONDS, seconds / 10), min(OUTAGE_SECONDS, seconds / 2)
        outage = began + outage_every / 2
        while (now := time.monotonic()) < began + seconds:
            self._drop()
            if now >= kill:
                kill = now + self.random.uniform(0.5, 1.5) * kill_every
                self._kill()
            if now >= shake:
                shake = now + self.random.uniform(0.5, 1.5) * SHAKE_SECONDS
                self._shake()
            if now >= outage:
                outage = now + self.random.uniform(0.5, 1.5) * outage_every
                self.outages += 1
                self.cloud.kill_sagemaker(self.random.uniform(2, 10))
            if now >= look:
                look = now + max(seconds / 40, 2)
                self._look()
            progress.update(task, completed=now - began)
            time.sleep(self.random.expovariate(DROPS_PER_SECOND))
        progress.update(task, completed=seconds)

    def _drop(self) -> None:
        tenant, name = f"t{self.random.randrange(TENANTS)}", f"set{len(self.dropped)}"
        root = self.roots[tenant]
        key = f"{root.root}incoming/{name}/data.csv"
        self.cloud.client("s3").put_object(Bucket=root.bucket, Key=key, Body=b"y\n" + b"1\n" * 100)
        self.dropped.append((tenant, name))

    def _kill(self) -> None:
        """Kill a worker of one of the functions, whatever it is doing."""
        alive = list(workers(self.cloud, STACK))
        if alive:
            process, name = self.random.choice(alive)
            try:
                os.kill(process, signal.SIGKILL)
                self.kills[name] += 1
            except ProcessLookupError:
                return

    def _shake(self) -> None:
        """Let SageMaker refuse some calls, and execute others without responding."""
        self.shakes += 1
        faults: list[dict[str, Any]] = [
            {"operation": name, "code": "InternalFailure", "message": "soak", "times": times, "effect": effect}
            for name in STARTS
            for times, effect in ((self.random.randrange(4), "none"), (self.random.randrange(3), "lost"))
        ]
        self.cloud.plant_faults(*faults)

    def _look(self) -> None:
        alive = [process for process, _ in workers(self.cloud, STACK)]
        self.memory_mb.append(max(map(memory_mb, alive), default=0.0))
        self.files.append(max(map(open_files, alive), default=0))
        self.unfinished.append(sum(request.finished_at is None for request in self._requests()))

    def _timer(self, name: str, seconds: float) -> None:
        functions = self.cloud.client("lambda")
        arn = next(
            one["FunctionName"]
            for one in functions.list_functions()["Functions"]
            if one["FunctionName"].startswith(f"{STACK}-{name}")
        )
        while not self.over.wait(seconds):
            try:
                source = "sweep" if name == "Intake" else "timer"
                payload = json.dumps({"source": source}).encode()
                functions.invoke(FunctionName=arn, InvocationType="Event", Payload=payload)
            except Exception as error:
                self.missed.append(f"the timer failed to invoke {name}: {error}")

    def _drain(self, progress: Progress) -> None:
        task = progress.add_task("draining", total=len(self.dropped))
        limit = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < limit:
            ended = sum(request.finished_at is not None for request in self._requests())
            progress.update(task, completed=ended)
            if ended >= len(self.dropped) and self.harness.scheduler.tables.ledger.read().used == 0:
                return
            time.sleep(2)

    def _requests(self) -> list[Any]:
        return [
            request
            for tenant in self.roots
            for request in self.harness.scheduler.tables.requests.of_tenant(tenant)
        ]

    def _wrong(self) -> list[str]:
        wrong = list(self.missed)
        requests = self._requests()
        found = Counter((request.tenant_id, request.data_set) for request in requests)
        wrong += [f"{tenant}/{name} has no request" for tenant, name in self.dropped if not found[tenant, name]]
        wrong += [f"{one} has {count} requests" for one, count in found.items() if count > 1]
        states = Counter(request.state.value for request in requests)
        wrong += [f"{count} requests are {state}" for state, count in states.items() if state != "SUCCEEDED"]
        executions = self._executions()
        wrong += [f"{name}: {count} executions" for name, count in executions.items() if count > 1]
        ledger = self.harness.scheduler.tables.ledger.read()
        if ledger.used:
            wrong.append(f"{ledger.used} slots are held without an execution")
        dead = self._dead_letters()
        wrong += [f"{count} dead letters in {name}" for name, count in dead.items() if count]
        quarter = max(len(self.memory_mb) // 4, 1)
        for name, series, leeway, harmless in (
            ("memory of the workers", self.memory_mb, 5, 0),
            ("open files of the workers", self.files, 5, POOLED_FILES),
            ("unfinished requests", self.unfinished, 30, 0),
        ):
            if len(series) < LOOKS_MIN:  # too short to distinguish growth from warming up
                continue
            early, late = max(series[:quarter], default=0), max(series[-quarter:], default=0)
            if late > max(1.3 * early + leeway, harmless):
                wrong.append(f"{name} grew from {early:.0f} to {late:.0f}")
        return wrong

    def _executions(self) -> Counter[str]:
        pages = self.cloud.client("sagemaker").get_paginator("list_pipeline_executions")
        return Counter(
            summary["PipelineExecutionDisplayName"]
            for page in pages.paginate(PipelineName=self.outputs["PipelineName"])
            for summary in page["PipelineExecutionSummaries"]
        )

    def _dead_letters(self) -> dict[str, int]:
        sqs = self.cloud.client("sqs")
        found = {}
        for url in sqs.list_queues(QueueNamePrefix=STACK).get("QueueUrls", ()):
            if url.endswith(("-dlq", "-undelivered")):
                attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
                count = int(attributes["Attributes"]["ApproximateNumberOfMessages"])
                found[url.rpartition("/")[2]] = count
        return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m local.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="minutes of traffic (default: 60)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    console = Console()
    columns = (TextColumn("{task.description:10}"), BarColumn(), TimeElapsedColumn())
    with Cloud(steady=1.0) as cloud, Progress(*columns, console=Console(stderr=True)) as progress:
        soak = Soak(cloud, given.seed)
        wrong = soak.run(given.minutes * 60, progress)
    console.print(
        f"{len(soak.dropped)} uploads, {sum(soak.kills.values())} workers killed ({dict(soak.kills)}), "
        f"SageMaker disrupted {soak.shakes} times and killed {soak.outages} times, "
        f"{UPLOADS_LOST:.0%} of S3's events lost"
    )
    if soak.memory_mb:
        console.print(
            f"memory of the largest worker {soak.memory_mb[0]:.0f} → {soak.memory_mb[-1]:.0f} MB, "
            f"open files of the worker with the most {soak.files[0]} → {soak.files[-1]}, "
            f"unfinished requests at most {max(soak.unfinished)}"
        )
    if len(soak.memory_mb) < LOOKS_MIN:
        console.print("too short to tell growth from warming up: memory, files and requests not checked")
    for line in wrong:
        console.print(f"[red]problem[/red]: {line}")
    console.print("nothing lost, nothing duplicated" if not wrong else f"{len(wrong)} problems")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
