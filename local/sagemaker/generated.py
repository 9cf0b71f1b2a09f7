"""Jobs whose durations and ends are drawn from a seed: they simulate months of executions within minutes.

Everything else is as with real jobs: requests, roles, steps, conditions, events. What SageMaker would report
about a job is generated, including some of its behaviour: a job that exceeds its maximum runtime is stopped
within a grace period; a job may lack capacity, report its end a moment late, or hang until it is stopped.
"""

import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from local.sagemaker.jobs import Job, JobFailed, JobStopped, upload_text

HANGS_SECONDS_MAX = 120
"""Seconds of real time after which a hanging job goes on if it was not stopped."""

STOP_GRACE_SECONDS = 120

LATE_SECONDS = 4.0
"""The time for which Describe may not report a job's end yet."""

HANGS = "hangs"
"""Data sets with this prefix train until they are stopped."""


@dataclass
class GeneratedJobs:
    """Replaces JobRunner without running anything."""

    seed: int
    client_as: Callable[[str, str], Any]
    _counts: Counter[str] = field(default_factory=Counter)
    _ended: dict[str, datetime] = field(default_factory=dict)
    """Request → when its last job ended."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def process(self, job: Job) -> None:
        self._run(job, "ProcessingResources", base=120)
        specification = job.request["AppSpecification"]["ContainerEntrypoint"][1]
        if specification.endswith("evaluate.py"):
            self._evaluate(job)

    def train(self, job: Job) -> None:
        self._run(job, "ResourceConfig", base=900)
        output = job.request["OutputDataConfig"]["S3OutputPath"]
        job.artifacts = f"{output}/{job.name}/output/model.tar.gz"

    def log_of(self, job: Job) -> str:
        """Return what a trial of a tuning prints."""
        return f"validation score: {self._draw(job.name, 'score').random():.4f}"

    def _run(self, job: Job, what: str, base: float) -> None:
        tags = {tag["Key"]: tag["Value"] for tag in job.request["Tags"]}
        request, data_set = tags["trainyard:request"], f"{tags['trainyard:tenant']}/{tags['trainyard:dataset']}"
        draw = self._draw(request, what)
        seconds = base * self._size(data_set) * draw.lognormvariate(0, 0.25)
        seconds *= 6 if draw.random() < 0.04 else 1  # an outlier
        limit = job.request["StoppingCondition"]["MaxRuntimeInSeconds"]
        chance = draw.random()
        if draw.random() < 0.06:
            job.told_from = time.monotonic() + LATE_SECONDS
        job.started_at = self._ended.get(request, datetime.now(UTC))
        hangs = tags["trainyard:dataset"].startswith(HANGS) and what == "ResourceConfig"
        if chance < 0.04:
            job.started_at, failure = None, "CapacityError: Unable to provision requested ML compute capacity"
            self._end(job, request, "Failed", 0, failure)
        if seconds > limit:
            late = draw.uniform(0, STOP_GRACE_SECONDS)
            self._end(job, request, "Failed", limit + late, "MaxRuntimeExceeded: it ran longer than it may")
        if hangs and job.stop.wait(HANGS_SECONDS_MAX):
            self._end(job, request, "Stopped", min(seconds, limit), None)
        if chance < 0.08:
            self._end(job, request, "Failed", seconds, "AlgorithmError: drawn, exit code: 1")
        self._end(job, request, "Completed", seconds, None)

    def _end(self, job: Job, request: str, status: str, seconds: float, failure: str | None) -> None:
        """End a job; raises JobFailed or JobStopped, which ends the execution too."""
        job.status, job.failure = status, failure
        begun = job.started_at or datetime.now(UTC)
        job.ended_at = begun + timedelta(seconds=seconds)
        self._ended[request] = job.ended_at
        if status == "Failed":
            raise JobFailed(failure or "")
        if status == "Stopped":
            raise JobStopped("the job was stopped")

    def _draw(self, request: str, what: str) -> random.Random:
        """Return the random numbers for a request's next job of a kind."""
        with self._lock:
            name = f"{self.seed} {request} {what}"
            self._counts[name] += 1
            return random.Random(f"{name} {self._counts[name]}")  # noqa: S311 - no secret

    def _size(self, data_set: str) -> float:
        """Return the factor by which a data set's jobs take longer than others."""
        return math.exp(random.Random(f"{self.seed} {data_set}").uniform(-1.5, 1.0))  # noqa: S311 - no secret

    def _evaluate(self, job: Job) -> None:
        """Write the report that the pipeline's condition reads; one in twenty models is not good enough."""
        request = next(tag["Value"] for tag in job.request["Tags"] if tag["Key"] == "trainyard:request")
        self._write_quality(job, 0.2 if self._draw(request, "quality").random() < 0.05 else 0.9)

    def _write_quality(self, job: Job, value: float) -> None:
        output = next(o for o in job.request["ProcessingOutputConfig"]["Outputs"] if o["OutputName"] == "output")
        s3 = self.client_as("s3", job.request["RoleArn"])
        verdict = {"beats_baseline": 1, "text": f"drawn {value}, baseline 0"}
        report = json.dumps({"quality": {"metric": "drawn", "value": value}, "verdict": verdict})
        upload_text(
            s3,
            report,
            f"{output['S3Output']['S3Uri']}/evaluation.json",
            job.request["ProcessingOutputConfig"].get("KmsKeyId"),
        )


class SteadyJobs(GeneratedJobs):
    """Jobs that take a given time, plus or minus a fifth, and succeed: for measuring schedulers."""

    def __init__(self, seconds: float, client_as: Callable[[str, str], Any]) -> None:
        super().__init__(0, client_as)
        self.seconds = seconds

    def _run(self, job: Job, what: str, base: float) -> None:
        request = next(tag["Value"] for tag in job.request["Tags"] if tag["Key"] == "trainyard:request")
        job.started_at = datetime.now(UTC)
        stopped = job.stop.wait(self.seconds * self._draw(request, what).uniform(0.8, 1.2))
        seconds = (datetime.now(UTC) - job.started_at).total_seconds()
        self._end(job, request, "Stopped" if stopped else "Completed", seconds, None)

    def _evaluate(self, job: Job) -> None:
        self._write_quality(job, 0.9)


@dataclass
class LossyEvents:
    """Loses some events and duplicates others, as EventBridge may."""

    seed: int
    emit: Callable[[dict[str, Any]], None]
    lost: int = 0
    doubled: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.seed} events")  # noqa: S311 - no secret

    def __call__(self, entry: dict[str, Any]) -> None:
        if "Execution Status Change" not in entry["DetailType"]:
            self.emit(entry)
            return
        chance = self._random.random()
        if chance < 0.06:
            self.lost += 1
            return
        self.emit(entry)
        if chance > 0.9:
            self.doubled += 1
            self.emit(entry)
