"""SageMaker: starting the shared pipeline, and reading what became of an execution."""

import math
import re
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.application.ports import ExecutionReport
from trainyard.domain.cost import StepUsage, cost_usd
from trainyard.domain.errors import StartDelayed, StartInvalid

_DELAYED = frozenset(
    {"ResourceLimitExceeded", "ConflictException", "ResourceNotFound", "ResourceNotFoundException"}
)
"""Quota, or a deployment under way (SageMaker API reference, StartPipelineExecution, Errors)."""


class SageMakerExecutions:
    """Implements Executions."""

    def __init__(self, *, pipeline_name: str) -> None:
        self._pipeline = pipeline_name

    def start(self, *, name: str, token: str, parameters: dict[str, str]) -> str:
        try:
            with translated():
                answer = client("sagemaker").start_pipeline_execution(
                    PipelineName=self._pipeline,
                    PipelineExecutionDisplayName=name,
                    ClientRequestToken=token,
                    PipelineParameters=[{"Name": n, "Value": value} for n, value in parameters.items()],
                )
        except ClientError as error:
            words = f"{code_of(error)}: {error.response.get('Error', {}).get('Message', '')}"
            if code_of(error) in _DELAYED:
                raise StartDelayed(words) from error
            raise StartInvalid(words) from error
        return str(answer["PipelineExecutionArn"])

    def stop(self, execution_arn: str) -> None:
        """Ask an execution to stop; its end comes as a status event. Idempotent."""
        with translated():
            client("sagemaker").stop_pipeline_execution(
                PipelineExecutionArn=execution_arn, ClientRequestToken=f"stop-{execution_arn[-64:]:->64}"[-128:]
            )


class SageMakerExecutionReports:
    """Implements ExecutionReports."""

    def read(self, execution_arn: str) -> ExecutionReport:
        steps = list(_steps(execution_arn))
        failed = next((step for step in steps if step.get("StepStatus") == "Failed"), None)
        return ExecutionReport(
            cost_usd=cost_usd(usage for step in steps for usage in _usages(step)),
            failed_step=failed["StepName"] if failed else None,
            failure=last_line(failed.get("FailureReason", "")) if failed else None,
        )


def last_line(reason: str) -> str:
    """Return a step's own last error line: SageMaker puts its class in front and may add the command behind."""
    text = re.sub(r"^ClientError: |^AlgorithmError: ", "", reason.strip())
    text = re.split(r"\n?Command \"", text, maxsplit=1)[0]
    text = re.sub(r"(?:^|\n)ExecuteUserScriptError:\s*|(?:^|\n)ExitCode \d+\s*|(?:^|\n)ErrorMessage ", "\n", text)
    lines = [line.strip().strip('"') for line in text.strip().splitlines() if line.strip().strip('"')]
    return lines[-1] if lines else ""


def _steps(execution_arn: str) -> Iterator[dict[str, Any]]:
    token: dict[str, str] = {}
    while True:
        with translated():
            page = client("sagemaker").list_pipeline_execution_steps(PipelineExecutionArn=execution_arn, **token)
        yield from page["PipelineExecutionSteps"]
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}


def _usages(step: dict[str, Any]) -> Iterator[StepUsage]:
    """Yield what the job of a step used; nothing for a step without a job, or one that never began."""
    metadata = step.get("Metadata", {})
    if "TrainingJob" in metadata:
        with translated():
            job = client("sagemaker").describe_training_job(
                TrainingJobName=metadata["TrainingJob"]["Arn"].rpartition("/")[2]
            )
        seconds = job.get("BillableTimeInSeconds", 0)
        cluster = job["ResourceConfig"]
    elif "ProcessingJob" in metadata:
        with translated():
            job = client("sagemaker").describe_processing_job(
                ProcessingJobName=metadata["ProcessingJob"]["Arn"].rpartition("/")[2]
            )
        begin, end = job.get("ProcessingStartTime"), job.get("ProcessingEndTime")
        seconds = (end - begin).total_seconds() if begin and end else 0
        cluster = job["ProcessingResources"]["ClusterConfig"]
    else:
        return
    yield StepUsage(
        instance_type=cluster["InstanceType"],
        instance_count=cluster["InstanceCount"],
        billable_seconds=math.ceil(seconds),
    )
