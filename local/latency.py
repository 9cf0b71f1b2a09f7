"""Measure the time from an upload to the start of its execution, in an idle tier on the local cloud.

    python -m local.latency [--uploads 60]

It measures from just before PutObject to the execution's CreationTime, without a quiet period, one upload at a
time, with warm functions after the first three. AWS's own delays are not included; all parts share the cores of
this machine.
"""

import argparse
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

from rich.progress import track

from local.cloud import Cloud
from local.demo import data
from local.deploy import deploy

WARM_UP = 3
POLICY = """
running_max: 4
quiet_period_seconds: 0
delay_max_seconds: 0
tiers:
  premium:
    quota: 4
    running_max_per_tenant: 4
    runtime_max_minutes: 5
    instances: [{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}]
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=60, help="uploads to measure (default: 60)")
    uploads = parser.parse_args().uploads
    with Cloud() as cloud:
        os.environ.update(cloud.environment())
        from cli.app import answer
        from cli.deployment import Deployment

        outputs = deploy(cloud)
        deployment = Deployment("trainyard")

        with tempfile.TemporaryDirectory() as folder:
            policy = Path(folder) / "policy.yaml"
            policy.write_text(POLICY, encoding="utf-8")
            answer(deployment, "policy", "apply", "--yes", str(policy))
        answer(
            deployment,
            "tenant",
            "create",
            "acme",
            "--tier",
            "premium",
            "--target",
            "target",
            "--algorithm",
            "linear",
        )
        bucket, body = deployment.tenant("acme").bucket, data.bundled("iris")
        seconds = []
        for number in track(range(WARM_UP + uploads), description="uploads", transient=True):
            seconds.append(_start_delay(cloud, outputs["PipelineName"], bucket, f"set-{number}", body))
    measured = sorted(seconds[WARM_UP:])
    cuts = quantiles(measured, n=100, method="inclusive")
    print(
        f"upload to start of execution, idle tier: p50 {cuts[49]:.2f} s, p90 {cuts[89]:.2f} s, "
        f"p99 {cuts[98]:.2f} s, max {measured[-1]:.2f} s ({uploads} uploads)"
    )
    return 0


def _start_delay(cloud: Cloud, pipeline: str, bucket: str, data_set: str, body: bytes) -> float:
    """Upload, wait until the execution has ended, and return the seconds from the upload to its start."""
    sagemaker, began = cloud.client("sagemaker"), datetime.now(UTC)
    cloud.client("s3").put_object(Bucket=bucket, Key=f"incoming/{data_set}/data.csv", Body=body)
    limit = time.monotonic() + 90
    while time.monotonic() < limit:
        found: list[dict[str, Any]] = sagemaker.list_pipeline_executions(PipelineName=pipeline, MaxResults=1)[
            "PipelineExecutionSummaries"
        ]
        if found and found[0]["StartTime"] > began and found[0]["PipelineExecutionStatus"] != "Executing":
            delay: float = (found[0]["StartTime"] - began).total_seconds()
            time.sleep(1)  # until the recorder is done, so that the next upload finds the tier idle
            return delay
        time.sleep(0.05)
    raise TimeoutError(f"the execution of {data_set} did not end:\n{cloud.log_tail()}")


if __name__ == "__main__":
    sys.exit(main())
