"""The cost of trainings and batch transforms, recomputed from SageMaker's jobs without any code of the service."""

import json
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

from local.cloud import REGION, REPOSITORY

PRICES = REPOSITORY / "layers/common/python/trainyard/prices.json"


def millionths(usd: Decimal | Fraction | int) -> int:
    """Return an amount in millionths of a dollar, rounded half up."""
    return floor(Fraction(usd) * 10**6 + Fraction(1, 2))


def executions_of(sagemaker: Any, pipeline: str) -> list[dict[str, Any]]:
    """Return the executions of a deployment's pipelines: each variant of training, and batch transforms."""
    names = [
        summary["PipelineName"]
        for prefix in (pipeline, f"{pipeline.removesuffix('-training')}-transform")
        for page in sagemaker.get_paginator("list_pipelines").paginate(PipelineNamePrefix=prefix)
        for summary in page["PipelineSummaries"]
    ]
    listing = sagemaker.get_paginator("list_pipeline_executions")
    pages = (page for name in names for page in listing.paginate(PipelineName=name))
    return [summary for page in pages for summary in page["PipelineExecutionSummaries"]]


def recomputed(sagemaker: Any, pipeline: str) -> dict[str, Fraction]:
    """Return tenant → USD of every job of the pipeline's executions, each rounded to a millionth."""
    region = json.loads(PRICES.read_text(encoding="utf-8"))["regions"][REGION]
    found: dict[str, Fraction] = {}
    for summary in executions_of(sagemaker, pipeline):
        for job in _jobs(sagemaker, summary["PipelineExecutionArn"]):
            tenant, usd = _cost(sagemaker, job, region)
            found[tenant] = found.get(tenant, Fraction(0)) + usd
    return found


def _jobs(sagemaker: Any, execution_arn: str) -> Iterator[dict[str, Any]]:
    pages = sagemaker.get_paginator("list_pipeline_execution_steps").paginate(PipelineExecutionArn=execution_arn)
    for step in (step for page in pages for step in page["PipelineExecutionSteps"]):
        metadata = step.get("Metadata", {})
        if "TuningJob" in metadata:
            yield from _trials(sagemaker, metadata["TuningJob"]["Arn"].rpartition("/")[2])
        for member in ("TrainingJob", "ProcessingJob", "TransformJob"):
            if member in metadata:
                name = metadata[member]["Arn"].rpartition("/")[2]
                describe = getattr(sagemaker, f"describe_{member.removesuffix('Job').lower()}_job")
                yield dict(describe(**{f"{member}Name": name}))


def _trials(sagemaker: Any, tuning: str) -> Iterator[dict[str, Any]]:
    listing = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
    for page in listing.paginate(HyperParameterTuningJobName=tuning):
        for trial in page["TrainingJobSummaries"]:
            yield dict(sagemaker.describe_training_job(TrainingJobName=trial["TrainingJobName"]))


def _cost(sagemaker: Any, job: dict[str, Any], region: dict[str, Any]) -> tuple[str, Fraction]:
    """Return the tenant of a job, from its tags, and its cost."""
    prefix = next(name for name in ("Training", "Processing", "Transform") if f"{name}JobArn" in job)
    kind = prefix.lower()
    cluster = {
        "Training": lambda: job["ResourceConfig"],
        "Processing": lambda: job["ProcessingResources"]["ClusterConfig"],
        "Transform": lambda: job["TransformResources"],
    }[prefix]()
    if prefix == "Training":
        seconds = job.get("BillableTimeInSeconds", 0)  # absent where it never began
    elif f"{prefix}StartTime" in job:
        seconds = ceil((job[f"{prefix}EndTime"] - job[f"{prefix}StartTime"]).total_seconds())
    else:
        seconds = 0
    if "InstancePreferences" in cluster and "SelectedInstanceType" not in cluster:
        usd = Fraction(0)  # it never got an instance
    else:
        instance_type = cluster.get("SelectedInstanceType") or cluster["InstanceType"]
        hourly = Fraction(region[kind][instance_type])
        usd = (hourly + _volume(region, kind, cluster)) * cluster["InstanceCount"] * seconds / 3600
    tags = {t["Key"]: t["Value"] for t in sagemaker.list_tags(ResourceArn=job[f"{prefix}JobArn"])["Tags"]}
    return tags["trainyard:tenant"], Fraction(millionths(usd), 10**6)


def _volume(region: dict[str, Any], kind: str, cluster: dict[str, Any]) -> Fraction:
    """Return USD per hour of the volume of an instance."""
    if "VolumeSizeInGB" not in cluster:  # a transform names none, and is billed none
        return Fraction(0)
    return Fraction(region[f"{kind}_volume_gb_month"]) * Fraction(cluster["VolumeSizeInGB"], 730)
