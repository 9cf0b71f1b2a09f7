"""From a freed slot to the next start, and the use of slots: with the bell, and with the timer alone.

Two stacks of the real template run in one local cloud, in real time, each with the same slots and a backlog; jobs
take forty seconds, plus or minus a fifth, three per execution. In one of the stacks, the event source mapping of
the stream is disabled, so that only the timer wakes its dispatcher. The times of ends and starts are SageMaker's;
an end is matched with the first start after it that is not matched with an earlier end. Not included are AWS's
own delays, and the second for which AWS collects messages; all parts share the cores of this machine.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from local.cloud import Cloud
from local.deploy import deploy

SLOTS, TENANTS, DATA_SETS, JOB_SECONDS = 15, 6, 12, 40.0
SECONDS = 200.0
"""The measurement after the first minute: two executions in each slot."""
POLICY = f"""
running_max: {SLOTS}
quiet_period_seconds: 0
delay_max_seconds: 0
tiers:
  premium:
    quota: {SLOTS}
    running_max_per_tenant: {SLOTS}
    runtime_max_minutes: 10
    instances: [{{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}}]
"""


@dataclass(frozen=True)
class Latency:
    how: str
    slots: int
    gaps: list[float]
    """Seconds from each freed slot to the start that took it, in order of size."""
    use: float
    """Share of slot time in which executions ran, while requests were waiting."""
    executions: int

    def quantile(self, share: float) -> float:
        return self.gaps[int(share * (len(self.gaps) - 1))]


def measure(progress: Callable[[float], None] = lambda _: None, seconds: float = SECONDS) -> list[Latency]:
    with Cloud(steady=JOB_SECONDS) as cloud:
        stacks = {"bell": deploy(cloud, "with-bell"), "timer alone": deploy(cloud, "timer-alone")}
        _mute(cloud, "timer-alone")
        for stack in ("with-bell", "timer-alone"):
            _prepare(cloud, stack)
        began = timer = time.monotonic()
        while (passed := time.monotonic() - began) < 60 + seconds:
            progress(passed / (60 + seconds))
            if time.monotonic() >= timer:  # the local cloud runs no such schedules
                timer += 60
                for stack in ("with-bell", "timer-alone"):
                    _invoke_dispatcher(cloud, stack)
            time.sleep(1)
        return [_measured(how, cloud, outputs["PipelineName"], seconds) for how, outputs in stacks.items()]


def _mute(cloud: Cloud, stack: str) -> None:
    """Disable everything but the timer that wakes the dispatcher."""
    functions = cloud.client("lambda")
    mappings = functions.list_event_source_mappings()["EventSourceMappings"]
    for mapping in mappings:
        if "dynamodb" in mapping["EventSourceArn"] and stack in mapping["FunctionArn"]:
            functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
            return
    raise LookupError(f"no stream is mapped in {stack}")


def _invoke_dispatcher(cloud: Cloud, stack: str) -> None:
    functions = cloud.client("lambda")
    names = [one["FunctionName"] for one in functions.list_functions()["Functions"]]
    name = next(one for one in names if one.startswith(f"{stack}-Dispatcher"))
    functions.invoke(FunctionName=name, InvocationType="Event", Payload=b'{"source": "timer"}')


def _prepare(cloud: Cloud, stack: str) -> None:
    """Apply the policy, create tenants, and upload their data."""
    from benchmarks.console import trainyard

    with TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.yaml"
        policy.write_text(POLICY, encoding="utf-8")
        trainyard(cloud, stack, "policy", "apply", "--yes", str(policy))
    for number in range(TENANTS):
        trainyard(cloud, stack, "tenant", "create", f"t{number}", "--tier", "premium", "--target", "y")
    for data_set in range(DATA_SETS):
        for number in range(TENANTS):
            root = trainyard(cloud, stack).tenant(f"t{number}")
            key = f"{root.root}incoming/set{data_set}/data.csv"
            cloud.client("s3").put_object(Bucket=root.bucket, Key=key, Body=b"y\n" + b"1\n" * 500)


def _measured(how: str, cloud: Cloud, pipeline: str, seconds: float) -> Latency:
    sagemaker = cloud.client("sagemaker")
    found: list[tuple[datetime, datetime | None]] = []
    pages = sagemaker.get_paginator("list_pipeline_executions").paginate(PipelineName=pipeline)
    for summary in (one for page in pages for one in page["PipelineExecutionSummaries"]):
        ended = None
        if summary["PipelineExecutionStatus"] not in ("Executing", "Stopping"):
            described = sagemaker.describe_pipeline_execution(PipelineExecutionArn=summary["PipelineExecutionArn"])
            ended = described["LastModifiedTime"]
        found.append((summary["StartTime"], ended))
    starts = sorted(start for start, _ in found)
    ends = sorted(end for _, end in found if end is not None)
    first, last = starts[SLOTS - 1], starts[-1]
    return Latency(how, SLOTS, sorted(_gaps(starts, ends)), _use(found, first, last), len(found))


def _gaps(starts: list[datetime], ends: list[datetime]) -> list[float]:
    left = list(starts)
    gaps = []
    for end in ends:
        after = next((start for start in left if start >= end), None)
        if after is not None:
            left.remove(after)
            gaps.append((after - end).total_seconds())
    return gaps


def _use(runs: list[tuple[datetime, Any]], first: datetime, last: datetime) -> float:
    """Return the use of slots from when all were taken until the last start; requests were waiting until then."""
    busy = sum(max((min(end or last, last) - max(start, first)).total_seconds(), 0.0) for start, end in runs)
    return busy / (SLOTS * (last - first).total_seconds())
