"""SageMaker: starting the shared pipeline, and reading what became of an execution."""

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.job_logs import last_lines
from trainyard.application.ports import ExecutionReport
from trainyard.application.scheduling.guard import JobIdentity, JobStarted
from trainyard.domain.errors import ExecutionGone, PipelineMissing, QuotaReached, StartDelayed, StartInvalid
from trainyard.domain.executions import JOB_ENDED, JobFacts, StepFacts
from trainyard.domain.failures import (
    OUT_OF_MEMORY,
    STOPPED_EARLY,
    TRIALS_TOO_SHORT,
    FailureCause,
    cause_of,
    error_line,
    is_out_of_memory,
    says_nothing,
    without_trailer,
)
from trainyard.domain.lifecycle import TELLING_STEP, TRANSFORM_STEP
from trainyard.domain.pipelines import PIPELINES, pipeline_variant
from trainyard.domain.prices import JobKind

_INVALID = frozenset({"ValidationException", "ValidationError"})
"""Errors that no retry can fix. All others may be transient: quota (ResourceLimitExceeded), a running deployment
(ConflictException, ResourceNotFound), permissions that are being fixed (AccessDenied)."""

_SKEW = timedelta(minutes=5)
"""How far SageMaker's clock may differ from ours."""


class SageMakerExecutions:
    """Implements Executions."""

    def __init__(self, *, pipeline_names: Mapping[str, str]) -> None:
        """`pipeline_names`: variant (`pipeline_variant`) → the pipeline that the deployment has for it."""
        self._pipelines = pipeline_names

    def start(self, *, name: str, token: str, description: str, parameters: dict[str, str]) -> str:
        variant = pipeline_variant(parameters)
        if variant not in self._pipelines:
            raise PipelineMissing(f"this deployment has no pipeline for {PIPELINES[variant]}")
        try:
            with translated():
                answer = client("sagemaker").start_pipeline_execution(
                    PipelineName=self._pipelines[variant],
                    PipelineExecutionDisplayName=name,
                    PipelineExecutionDescription=description,
                    ClientRequestToken=token,
                    PipelineParameters=[{"Name": n, "Value": value} for n, value in parameters.items()],
                )
        except ClientError as error:
            words = f"{code_of(error)}: {error.response.get('Error', {}).get('Message', '')}"
            if code_of(error) in _INVALID:
                raise StartInvalid(words) from error
            if code_of(error) == "ResourceLimitExceeded":
                raise QuotaReached(words) from error
            raise StartDelayed(words) from error
        return str(answer["PipelineExecutionArn"])

    def status(self, execution_arn: str) -> str:
        return _status(execution_arn)

    def running(self, *, since: datetime) -> dict[str, str]:
        """Return the pipelines' running executions; those of the account cannot be listed in one call."""
        return {
            str(summary["PipelineExecutionArn"]): str(summary.get("PipelineExecutionDisplayName", ""))
            for summary in self._summaries(since)
            if summary["PipelineExecutionStatus"] in ("Executing", "Stopping")
        }

    def started(self, *, since: datetime) -> dict[str, str]:
        return {
            str(summary.get("PipelineExecutionDisplayName", "")): str(summary["PipelineExecutionArn"])
            for summary in self._summaries(since)
        }

    def _summaries(self, since: datetime) -> Iterator[dict[str, Any]]:
        """Yield the pipelines' executions started since a time."""
        pages = client("sagemaker").get_paginator("list_pipeline_executions")
        for variant, pipeline in self._pipelines.items():
            try:
                with translated():
                    for page in pages.paginate(PipelineName=pipeline, CreatedAfter=since - _SKEW):
                        yield from page["PipelineExecutionSummaries"]
            except ClientError as error:
                if not variant or code_of(error) != "ResourceNotFound":
                    raise
                continue  # a deployment is making it, or it was deleted: nothing runs in it

    def stop(self, execution_arn: str) -> None:
        """Ask an execution to stop; its end comes as a status event. Idempotent."""
        token = f"stop-{execution_arn[-64:]:->64}"[-128:]
        try:
            with translated():
                client("sagemaker").stop_pipeline_execution(
                    PipelineExecutionArn=execution_arn, ClientRequestToken=token
                )
        except ClientError as error:
            if code_of(error) not in _INVALID:
                raise
            return  # it has ended, and its event is on its way


def _status(execution_arn: str) -> str:
    with _gone(), translated():
        execution = client("sagemaker").describe_pipeline_execution(PipelineExecutionArn=execution_arn)
    return str(execution["PipelineExecutionStatus"])


@contextmanager
def _gone() -> Iterator[None]:
    """Raise ExecutionGone when SageMaker answers that an execution does not exist."""
    try:
        yield
    except ClientError as error:
        words = str(error.response.get("Error", {}).get("Message", ""))
        if code_of(error) == "ResourceNotFound" or (
            code_of(error) == "ValidationException" and "does not exist" in words
        ):
            raise ExecutionGone(words) from error
        raise


_MOVING = frozenset({"Starting", "Executing", "Stopping"})
"""Statuses of a step that has not ended (SageMaker API reference, PipelineExecutionStep)."""


def _shows_an_end(steps: Sequence[dict[str, Any]]) -> bool:
    """Tell whether the steps alone show that their execution has ended, since our steps run one by one.

    Either one has failed or was stopped, or the last one is done; and none is in progress.
    """
    statuses = [step.get("StepStatus") for step in steps]
    if not statuses or _MOVING.intersection(map(str, statuses)):
        return False
    last = (TELLING_STEP, TRANSFORM_STEP)
    last_is_done = any(s["StepName"] in last and s.get("StepStatus") == "Succeeded" for s in steps)
    return last_is_done or "Failed" in statuses or "Stopped" in statuses


_NOT_IN_PROPERTIES = re.compile(r"[^\w .:/=+\-@]")
PROPERTY_LENGTH_MAX = 256
"""Of a model package: pattern and length of ModelPackage$CustomerMetadataProperties (botocore's model)."""
ANNOTATIONS_TRIED, ANNOTATION_PAUSE_SECONDS = 3, 0.5


class SageMakerAnnotations:
    """Implements Annotations."""

    def annotate(self, arn: str, properties: Mapping[str, str]) -> None:
        fitting = {
            name: _NOT_IN_PROPERTIES.sub(" ", value)[:PROPERTY_LENGTH_MAX] for name, value in properties.items()
        }
        for tries_left in reversed(range(ANNOTATIONS_TRIED)):
            try:
                with translated():
                    client("sagemaker").update_model_package(
                        ModelPackageArn=arn, CustomerMetadataProperties=fitting
                    )
                return
            except ClientError as error:
                # Whoever deploys the version may be changing it just now.
                if code_of(error) != "ConflictException" or not tries_left:
                    raise
                time.sleep(ANNOTATION_PAUSE_SECONDS)


class SageMakerExecutionReports:
    """Implements ExecutionReports."""

    def read(self, execution_arn: str) -> ExecutionReport:
        with _gone():
            steps = list(_steps(execution_arn))
        read_steps = [(step, *_job_of(step)) for step in steps]
        failed = next(((step, job) for step, job, _ in read_steps if step.get("StepStatus") == "Failed"), None)
        registered = next((arn for step, *_ in read_steps if (arn := _registered(step))), None)
        # Steps that run on after it fail in consequence.
        early = next(((step, job) for step, job, _ in read_steps if _stopped_early(job)), None)
        is_early = early is not None and registered is None
        failed = early if is_early else failed
        facts = {step["StepName"]: _facts(step, job, missing) for step, job, missing in read_steps}
        return ExecutionReport(
            steps=tuple(facts.values()),
            started_at=min((step["StartTime"] for step, *_ in read_steps if step.get("StartTime")), default=None),
            ended_at=max((step["EndTime"] for step, *_ in read_steps if step.get("EndTime")), default=None),
            failed_step=failed[0]["StepName"] if failed else None,
            failure=facts[failed[0]["StepName"]].failure if failed else None,
            cause=_cause(*failed) if failed else None,
            stopped_early=is_early,
            first_trial=next((_first_score(job) for _, job, _ in read_steps if _TRIALS in job), None),
            model_package_arn=registered,
            status=None if _shows_an_end(steps) else _status(execution_arn),
        )

    def selected(self, execution_arn: str) -> str | None:
        with _gone():
            steps = list(_steps(execution_arn))
        training = [step for step in steps if "TrainingJob" in step.get("Metadata", {})]
        job = _job_facts(_job_of(training[-1])[0]) if training else None
        return job.instance_type if job else None


def _registered(step: dict[str, Any]) -> str | None:
    """Return what a step has registered (SageMaker API reference, PipelineExecutionStepMetadata)."""
    arn: str | None = step.get("Metadata", {}).get("RegisterModel", {}).get("Arn")
    return arn


def _stopped_early(job: dict[str, Any]) -> tuple[FailureCause, str] | None:
    """Return why SageMaker stopped a training job by itself, and what that means; None if it did not."""
    if job.get("TrainingJobStatus") not in ("Stopped", "Failed"):
        return None
    early = STOPPED_EARLY.get(str(job.get("SecondaryStatus")))
    interrupted = any(t.get("Status") == "Interrupted" for t in job.get("SecondaryStatusTransitions", ()))
    if early and interrupted:  # without that, its time might have been enough
        return FailureCause.INTERRUPTION, early[1]
    return early


def _cause(step: dict[str, Any], job: dict[str, Any]) -> FailureCause:
    early = _stopped_early(job)
    return early[0] if early else cause_of(_service_words(step, job))


def _failure(step: dict[str, Any], job: dict[str, Any]) -> str:
    """Return why a step failed, preferably as its script reported it.

    A processing job reports it as its exit message, a training job in its failure reason (SageMaker API reference,
    DescribeProcessingJob and DescribeTrainingJob).
    """
    early = _stopped_early(job)
    if early:
        return early[1]
    trials = job.get(_TRIALS, ())
    if trials and all(trial["TrainingJobStatus"] == "Stopped" for trial in trials):
        return TRIALS_TOO_SHORT
    said, words = str(job.get("ExitMessage") or ""), _service_words(step, job)
    if is_out_of_memory(words, said) and not cause_of(words).passes:
        return OUT_OF_MEMORY
    return said or _logged(job, words) or last_line(words)


def _logged(job: dict[str, Any], words: str) -> str | None:
    """Return what a job that failed without a word to SageMaker has printed about it; None if unknown."""
    facts = _job_facts(job) if says_nothing(without_trailer(words)) else None
    return error_line(last_lines(facts)) if facts else None


def _service_words(step: dict[str, Any], job: dict[str, Any]) -> str:
    """Return SageMaker's whole message about a failed step; of a tuning, that about its last trial that failed."""
    of_trials = [trial["FailureReason"] for trial in job.get(_TRIALS, ()) if trial.get("FailureReason")]
    if of_trials:
        return str(of_trials[-1])
    return str(step.get("FailureReason") or job.get("FailureReason") or "")


def last_line(reason: str) -> str:
    """Return the last error line of a failure reason: SageMaker adds its class in front and more text at the end.

    For a call that Pipelines could not make, only the called service's message is kept.
    """
    text = re.sub(r"^(?:(?:ClientError|AlgorithmError): )+", "", without_trailer(reason))
    text = re.sub(r"^Failed to invoke sagemaker:\w+\. Error Details: ", "", text)
    text = re.split(r"\n?Command \"", text, maxsplit=1)[0]
    text = re.sub(r"(?:^|\n)(?:ExecuteUserScriptError:|ExitCode \d+|ErrorMessage )\s*", "\n", text)
    text = re.sub(r",? ?exit code: \d+\s*$", "", text)
    lines = [line.strip().strip('"') for line in text.strip().splitlines() if line.strip().strip('"')]
    return lines[-1] if lines else reason.strip()


def _steps(execution_arn: str) -> Iterator[dict[str, Any]]:
    token: dict[str, str] = {}
    while True:
        with translated():
            page = client("sagemaker").list_pipeline_execution_steps(
                PipelineExecutionArn=execution_arn, SortOrder="Ascending", **token
            )
        yield from page["PipelineExecutionSteps"]
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}


def _job_of(step: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the description of a step's job ({} if it has none), and whether SageMaker no longer has the job."""
    metadata = step.get("Metadata", {})
    sagemaker = client("sagemaker")
    try:
        with translated():
            if "TrainingJob" in metadata:
                name = metadata["TrainingJob"]["Arn"].rpartition("/")[2]
                return dict(sagemaker.describe_training_job(TrainingJobName=name)), False
            if "ProcessingJob" in metadata:
                name = metadata["ProcessingJob"]["Arn"].rpartition("/")[2]
                return dict(sagemaker.describe_processing_job(ProcessingJobName=name)), False
            if "TuningJob" in metadata:
                return _tuning_job(metadata["TuningJob"]["Arn"].rpartition("/")[2]), False
            if "TransformJob" in metadata:
                name = metadata["TransformJob"]["Arn"].rpartition("/")[2]
                return dict(sagemaker.describe_transform_job(TransformJobName=name)), False
    except ClientError as error:
        if code_of(error) not in _NO_JOB:
            raise
        return {}, True
    return {}, False


_TRIALS = "Trials"
"""In the description of a tuning job: its training jobs, as they are listed."""


def _tuning_job(name: str) -> dict[str, Any]:
    sagemaker = client("sagemaker")
    job = dict(sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name))
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
    trials = [each for p in pages.paginate(HyperParameterTuningJobName=name) for each in p["TrainingJobSummaries"]]
    return job | {_TRIALS: trials}


_NO_JOB = frozenset({"ResourceNotFound", "ValidationException"})
"""Error codes of Describe for a job that does not exist (SageMaker API reference; ValidationException with
"Requested resource not found" for training jobs)."""


def _facts(step: dict[str, Any], job: dict[str, Any], missing: bool) -> StepFacts:
    return StepFacts(
        name=step["StepName"],
        kind=next(iter(step.get("Metadata", {})), "").removesuffix("Job"),
        status=step.get("StepStatus", ""),
        started_at=step.get("StartTime"),
        ended_at=step.get("EndTime"),
        failure=_failure(step, job) if step.get("StepStatus") == "Failed" or _stopped_early(job) else None,
        job=_job_facts(job),
        job_missing=missing,
    )


def _job_facts(job: dict[str, Any]) -> JobFacts | None:
    """Return what a step's job was and used; None for a step without one."""
    if _TRIALS in job:
        return _tuning_facts(job)
    if "ResourceConfig" in job:
        kind, cluster, prefix = JobKind.TRAINING, job["ResourceConfig"], "Training"
    elif "ProcessingResources" in job:
        kind, cluster, prefix = JobKind.PROCESSING, job["ProcessingResources"]["ClusterConfig"], "Processing"
    elif "TransformResources" in job:
        kind, cluster, prefix = JobKind.TRANSFORM, job["TransformResources"], "Transform"
    else:
        return None
    within, _, name = job[f"{prefix}JobArn"].rpartition("/")
    artifacts = job.get("ModelArtifacts", {})
    return JobFacts(
        kind=kind,
        # Log streams have the job's name, which the ARN may have in small letters.
        arn=f"{within}/{job.get(f'{prefix}JobName', name)}",
        status=job[f"{prefix}JobStatus"],
        # Of a job with instance preferences, what it runs on and is billed for; there is none until SageMaker has
        # selected a type, and never if the job ended before.
        instance_type=cluster.get("SelectedInstanceType") or cluster.get("InstanceType"),
        instance_count=cluster.get("SelectedInstanceCount") or cluster.get("InstanceCount"),
        volume_gb=cluster.get("VolumeSizeInGB", 0),
        started_at=job.get(f"{prefix}StartTime"),
        ended_at=job.get(f"{prefix}EndTime"),
        billable_seconds=job.get("BillableTimeInSeconds"),
        training_seconds=job.get("TrainingTimeInSeconds"),
        spot=bool(job.get("EnableManagedSpotTraining", False)),
        metrics=tuple((metric["MetricName"], metric["Value"]) for metric in job.get("FinalMetricDataList", ())),
        artifact_uri=artifacts.get("S3ModelArtifacts"),
    )


def _tuning_facts(job: dict[str, Any]) -> JobFacts:
    """Return what the trials of a tuning used together; each is billed like a training on demand."""
    trials, definition = job[_TRIALS], job["TrainingJobDefinition"]
    resources, best = definition["ResourceConfig"], job.get("BestTrainingJob", {})
    seconds = [_seconds_of(trial) for trial in trials]
    total = None if None in seconds else sum(each or 0 for each in seconds)
    score = best.get("FinalHyperParameterTuningJobObjectiveMetric")
    return JobFacts(
        kind=JobKind.TRAINING,
        arn=job["HyperParameterTuningJobArn"],
        status=job["HyperParameterTuningJobStatus"],
        instance_type=resources["InstanceType"],
        instance_count=resources["InstanceCount"],
        volume_gb=resources.get("VolumeSizeInGB", 0),
        started_at=min((t["TrainingStartTime"] for t in trials if "TrainingStartTime" in t), default=None),
        ended_at=job.get("HyperParameterTuningEndTime"),
        billable_seconds=total,
        training_seconds=total,
        metrics=((score["MetricName"], score["Value"]),) if score else (),
        trials=len(trials),
    )


_FIRST = re.compile(r"-0*1-[0-9a-f]+$")
"""How the name of a tuning's first training job ends; the script goes by the same (pipeline/steps/trial.py)."""


def _first_score(job: dict[str, Any]) -> float | None:
    """Return the score of a tuning's first trial, which has the hyperparameters of before; None if unknown."""
    for trial in job[_TRIALS]:
        score = trial.get("FinalHyperParameterTuningJobObjectiveMetric")
        if score is not None and _FIRST.search(trial["TrainingJobName"]) and math.isfinite(score["Value"]):
            return float(score["Value"])
    return None


def _seconds_of(trial: dict[str, Any]) -> int | None:
    """Return for how long a trial is billed, 0 for one that never began; None while that is not known."""
    begin, end = trial.get("TrainingStartTime"), trial.get("TrainingEndTime")
    if begin is None:
        return 0 if trial["TrainingJobStatus"] in JOB_ENDED else None
    return None if end is None else max(math.ceil((end - begin).total_seconds()), 0)


def _role_of_model(name: str) -> str:
    """Return the role of a model; "" where there is none, or the model was deleted."""
    try:
        with translated():
            return str(client("sagemaker").describe_model(ModelName=name).get("ExecutionRoleArn", ""))
    except ClientError as error:
        if code_of(error) not in _NO_JOB:
            raise
        return ""


class SageMakerJobs:
    """Implements Jobs."""

    def facts(self, job: JobStarted) -> JobIdentity:
        sagemaker = client("sagemaker")
        with translated():
            match job.kind:
                case JobKind.TRAINING:
                    role_arn = sagemaker.describe_training_job(TrainingJobName=job.name)["RoleArn"]
                case JobKind.PROCESSING:
                    role_arn = sagemaker.describe_processing_job(ProcessingJobName=job.name)["RoleArn"]
                case JobKind.TRANSFORM:
                    described = sagemaker.describe_transform_job(TransformJobName=job.name)
                    role_arn = _role_of_model(described["ModelName"])
            tags = sagemaker.list_tags(ResourceArn=job.arn)["Tags"]
        return JobIdentity(role_arn=role_arn, tags={tag["Key"]: tag["Value"] for tag in tags})

    def stop(self, job: JobStarted) -> None:
        sagemaker = client("sagemaker")
        try:
            with translated():
                match job.kind:
                    case JobKind.TRAINING:
                        sagemaker.stop_training_job(TrainingJobName=job.name)
                    case JobKind.PROCESSING:
                        sagemaker.stop_processing_job(ProcessingJobName=job.name)
                    case JobKind.TRANSFORM:
                        sagemaker.stop_transform_job(TransformJobName=job.name)
        except ClientError as error:
            if code_of(error) != "ValidationException":  # it has ended already
                raise
