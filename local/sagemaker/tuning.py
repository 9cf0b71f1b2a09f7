"""Hyperparameter tuning jobs: training jobs, here one after the other, with hyperparameters drawn at random.

Of SageMaker's strategies only "Random" is known. All else is as documented: the request is checked by the
service's model, training jobs get its tags and names that begin with its own, their objective is what a regular
expression finds in their logs, and one that fails or is stopped does not end the search.

Sources: developer guide, "Perform Automatic Model Tuning"; API reference, CreateHyperParameterTuningJob,
DescribeHyperParameterTuningJob and ListTrainingJobsForHyperParameterTuningJob.
"""

import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import botocore.session
from botocore.validate import validate_parameters

from local.sagemaker.jobs import Job, JobFailed, JobStopped, StoppedEarly

Answer = dict[str, Any]
ALL_FAILED = "All training jobs failed. Please take a look at the training jobs failures to get more details."
"""As accounts have reported it."""

NAME_LENGTH_MAX = 32
RUNTIME_SECONDS_MIN = 120


@dataclass
class Trial:
    """A training job of a tuning job."""

    job: Job
    tuned: dict[str, str]
    objective: float | None = None


@dataclass
class TuningJob:
    """A tuning job, as Describe reports it."""

    name: str
    arn: str
    request: Answer
    status: str = "InProgress"
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    failure: str | None = None
    trials: list[Trial] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def definition(self) -> Answer:
        definition: Answer = self.request["TrainingJobDefinition"]
        return definition

    @property
    def metric(self) -> str:
        return str(self.request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"])

    @property
    def best(self) -> Trial | None:
        measured = [trial for trial in self.trials if trial.objective is not None]
        return max(measured, key=lambda trial: trial.objective or 0.0, default=None)

    def end_soon(self) -> None:
        """Stop it, with the training job that runs."""
        self.stop.set()
        for trial in self.trials:
            trial.job.stop.set()

    def described(self) -> Answer:
        statuses = [trial.job.status for trial in self.trials]
        answer: Answer = {
            "HyperParameterTuningJobName": self.name,
            "HyperParameterTuningJobArn": self.arn,
            "HyperParameterTuningJobConfig": self.request["HyperParameterTuningJobConfig"],
            "TrainingJobDefinition": self.definition,
            "HyperParameterTuningJobStatus": self.status,
            "CreationTime": self.created_at.timestamp(),
            "TrainingJobStatusCounters": {
                "Completed": statuses.count("Completed"),
                "InProgress": statuses.count("InProgress"),
                "RetryableError": 0,
                "NonRetryableError": statuses.count("Failed"),
                "Stopped": statuses.count("Stopped"),
            },
            "ObjectiveStatusCounters": {
                "Succeeded": sum(trial.objective is not None for trial in self.trials),
                "Pending": statuses.count("InProgress"),
                "Failed": sum(trial.objective is None and trial.job.ended_at is not None for trial in self.trials),
            },
        }
        if self.ended_at is not None:
            answer["HyperParameterTuningEndTime"] = self.ended_at.timestamp()
        if self.failure is not None:
            answer["FailureReason"] = self.failure
        if self.best is not None:
            answer["BestTrainingJob"] = self.summary(self.best)
        return answer

    def summary(self, trial: Trial) -> Answer:
        """Return a training job as ListTrainingJobsForHyperParameterTuningJob does."""
        job = trial.job
        times = {
            "CreationTime": job.created_at,
            "TrainingStartTime": job.started_at,
            "TrainingEndTime": job.ended_at,
        }
        answer: Answer = {name: when.timestamp() for name, when in times.items() if when is not None}
        answer |= {
            "TrainingJobName": job.name,
            "TrainingJobArn": job.arn,
            "TrainingJobStatus": job.status,
            "TunedHyperParameters": trial.tuned,
        }
        if job.failure is not None:
            answer["FailureReason"] = job.failure
        if trial.objective is not None:
            answer["ObjectiveStatus"] = "Succeeded"
            answer["FinalHyperParameterTuningJobObjectiveMetric"] = {
                "MetricName": self.metric,
                "Value": trial.objective,
            }
        return answer


def check_request(request: Mapping[str, Any], name: str) -> None:
    """Raise JobFailed where SageMaker refuses a tuning job."""
    model = botocore.session.get_session().get_service_model("sagemaker")
    shape = model.operation_model("CreateHyperParameterTuningJob").input_shape
    assert shape is not None, "it has an input"
    objection = None
    try:
        validate_parameters({"HyperParameterTuningJobName": name, **request}, shape)
    except Exception as error:  # the message names each wrong parameter
        objection = " ".join(str(error).split())
    limits = request["HyperParameterTuningJobConfig"]["ResourceLimits"]
    if len(name) > NAME_LENGTH_MAX:
        objection = (
            f"HyperParameterTuningJobName has {len(name)} characters, at most {NAME_LENGTH_MAX} are allowed"
        )
    elif limits.get("MaxRuntimeInSeconds", RUNTIME_SECONDS_MIN) < RUNTIME_SECONDS_MIN:
        objection = f"MaxRuntimeInSeconds must be at least {RUNTIME_SECONDS_MIN}"
    long = [key for key, value in _static(request).items() if len(value) > 2500]
    if long:
        objection = f"the value of hyperparameter {long[0]} has more than 2500 characters"
    if objection:
        raise JobFailed(
            f"ClientError: Failed to invoke sagemaker:CreateHyperParameterTuningJob. Error Details: {objection}"
        )


def run(
    tuning: TuningJob, begin: Callable[[Job], None], train: Callable[[Job], None], log_of: Callable[[Job], str]
) -> None:
    """Run a tuning job to its end; raises JobFailed or JobStopped.

    `begin` announces a training job and finds instances for it; `log_of` returns what it has printed.
    """
    config = tuning.request["HyperParameterTuningJobConfig"]
    limits = config["ResourceLimits"]
    until = time.monotonic() + limits.get("MaxRuntimeInSeconds", float("inf"))
    drawn = random.Random(f"{config.get('RandomSeed', tuning.name)}")  # noqa: S311 - no secret
    (pattern,) = (
        metric["Regex"]
        for metric in tuning.definition["AlgorithmSpecification"]["MetricDefinitions"]
        if metric["Name"] == tuning.metric
    )
    try:
        for number in range(1, int(limits["MaxNumberOfTrainingJobs"]) + 1):
            if tuning.stop.is_set() or time.monotonic() > until:
                raise JobStopped("the tuning job was stopped")
            trial = _trial(tuning, number, drawn)
            tuning.trials.append(trial)
            try:
                begin(trial.job)
                train(trial.job)
            except (JobFailed, StoppedEarly):
                continue  # the search goes on without it
            except JobStopped:
                if tuning.stop.is_set():
                    raise
                continue  # somebody has stopped this one alone
            values = re.findall(pattern, log_of(trial.job))
            trial.objective = float(values[-1]) if values else None
        if tuning.best is None:
            raise JobFailed(ALL_FAILED)
        tuning.status = "Completed"
    except JobStopped:
        tuning.status = "Stopped"
        raise
    except JobFailed as error:
        tuning.status, tuning.failure = "Failed", str(error)
        raise
    finally:
        tuning.ended_at = datetime.now(UTC)


def _trial(tuning: TuningJob, number: int, drawn: random.Random) -> Trial:
    ranges = tuning.request["HyperParameterTuningJobConfig"]["ParameterRanges"]["ContinuousParameterRanges"]
    tuned = {
        each["Name"]: repr(drawn.uniform(float(each["MinValue"]), float(each["MaxValue"]))) for each in ranges
    }
    name = f"{tuning.name}-{number:03d}-{drawn.getrandbits(32):08x}"
    arn = tuning.arn.replace(f":hyper-parameter-tuning-job/{tuning.name}", f":training-job/{name}")
    static = {"HyperParameters": _static(tuning.request) | tuned | {"_tuning_objective_metric": tuning.metric}}
    definition = {key: value for key, value in tuning.definition.items() if key != "StaticHyperParameters"}
    tags = {"Tags": tuning.request["Tags"]}
    return Trial(Job(name=name, arn=arn, request=definition | static | tags), tuned)


def _static(request: Mapping[str, Any]) -> dict[str, str]:
    static: dict[str, str] = request["TrainingJobDefinition"].get("StaticHyperParameters", {})
    return static
