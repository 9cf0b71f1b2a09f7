"""SageMaker's API on this machine: pipelines run here, everything else is moto's.

moto's own pipeline executions succeed at once and run nothing. Here, StartPipelineExecution honours its
ClientRequestToken, the steps run as processes, StopPipelineExecution stops them, and status events are sent.
Faults can be planted with POST /_local/faults and {"operation", "code", "message", "times", "effect"}: effect
"none" refuses the call, "lost" executes it without responding. The operation "Step:<name>" fails the pipeline's
step of that name, and "Task:<change>:<step>" the task of a tenant's state machine.
"""

import json
import math
import random
import re
import string
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sagemaker.models import sagemaker_backends

from local.sagemaker import quotas
from local.sagemaker.asynchronous import ANSWER_SECONDS_DEFAULT, AsyncInvocation
from local.sagemaker.containers import Image
from local.sagemaker.definition import Context, InvalidParameter, Unresolved, ordered, parameter_values
from local.sagemaker.errors import ApiError
from local.sagemaker.generated import GeneratedJobs
from local.sagemaker.hosting import Hosting, Invocation
from local.sagemaker.jobs import (
    Job,
    JobFailed,
    JobRunner,
    JobStopped,
    SpotMarket,
    StoppedEarly,
    check_spot,
    instance_types,
)
from local.sagemaker.rights import access_key_of, rights_for
from local.sagemaker.transform import TransformJob
from local.sagemaker.tuning import TuningJob, check_request
from local.sagemaker.tuning import run as run_tuning

Environ = dict[str, Any]
Answer = dict[str, Any]
TERMINAL = ("Succeeded", "Failed", "Stopped")

PROPERTY = re.compile(r"[\w .:/=+\-@]{0,256}")
"""The value of a property of a model package (botocore's model)."""


@dataclass
class Step:
    """A step of an execution, as ListPipelineExecutionSteps reports it."""

    name: str
    status: str = "Executing"
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    failure: str | None = None
    metadata: Answer = field(default_factory=dict)
    job: Job | TransformJob | TuningJob | None = None

    def summary(self) -> Answer:
        answer = {
            "StepName": self.name,
            "StepStatus": self.status,
            "StartTime": self.started_at.timestamp(),
            "EndTime": self.ended_at.timestamp() if self.ended_at else None,
            "FailureReason": self.failure,
            "Metadata": self.metadata,
            "AttemptCount": 1,
        }
        return {name: value for name, value in answer.items() if value is not None}


@dataclass
class Execution:
    arn: str
    pipeline_arn: str
    name: str
    description: str
    role_arn: str
    given: dict[str, str]
    definition: Mapping[str, Any]
    status: str = "Executing"
    failure: str | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    steps: list[Step] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def summary(self) -> Answer:
        answer = {
            "PipelineExecutionArn": self.arn,
            "PipelineExecutionDisplayName": self.name,
            "PipelineExecutionStatus": self.status,
            "PipelineExecutionFailureReason": self.failure,
            "StartTime": self.started_at.timestamp(),
        }
        return {name: value for name, value in answer.items() if value is not None}


@dataclass
class Pipeline:
    """A pipeline; its definition is fetched when first used, because CloudFormation waits during the creation."""

    name: str
    arn: str
    fetch: Callable[[], str]
    role_arn: str

    @property
    def definition(self) -> str:
        text = self.fetch()
        self.fetch = lambda: text
        return text


@dataclass
class Fault:
    operation: str
    code: str
    message: str
    times: int
    effect: str = "none"


PROCESSING_TOLD = (
    "AppSpecification",
    "Environment",
    "NetworkConfig",
    "ProcessingInputs",
    "ProcessingOutputConfig",
    "ProcessingResources",
    "RoleArn",
    "StoppingCondition",
)
TRAINING_TOLD = (
    "AlgorithmSpecification",
    "CheckpointConfig",
    "EnableManagedSpotTraining",
    "EnableInterContainerTrafficEncryption",
    "EnableNetworkIsolation",
    "HyperParameters",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "RoleArn",
    "StoppingCondition",
    "VpcConfig",
)
"""The fields of a job's request that Describe… returns (SageMaker API reference)."""


def _of_request(job: Job, names: tuple[str, ...]) -> Answer:
    return {name: job.request[name] for name in names if name in job.request}


class SageMakerService:
    """A WSGI application.

    `emit` puts a status event on the default bus; `client` returns clients with the permissions of the deploying
    engineer, `client_as` with those of a role: what a pipeline does itself, it does with its own role.
    `denial` returns AWS's message if a role may not do something: (role, action, resource, condition keys).
    `trusts` tells whether a role lets SageMaker assume it for a job or a pipeline: (role, ARN of the job).
    POST /_local/credentials with {"role_arn"} returns the result of `assume`: credentials of a role for a service.
    POST /_local/uploads with {"lost"} drops that share of S3's events.
    POST /_local/schedules with {"seconds"} advances the clock of EventBridge Scheduler, and no other.
    POST /_local/capacity with {"exhausted"} leaves no capacity of these instance types.
    POST /_local/spot with {"interruptions", "returns", "step"} sets what becomes of jobs on spot capacity.
    POST /_local/loaded with {"endpoint"} returns the models that it has loaded, and how often it loaded one.
    POST /_local/outage with {"seconds"} stops it for that time: it responds with 503 (except for moto's part), and
    events are lost; stored data and running jobs are not affected."""

    def __init__(
        self,
        *,
        account_id: str,
        region: str,
        runner: JobRunner | GeneratedJobs,
        client_as: Callable[[str, str], Any],
        emit: Callable[[Answer], None],
        client: Callable[[str], Any],
        assume: Callable[[str], Answer],
        image: Image,
        denial: Callable[[str, str, str, Answer], str | None] = lambda *_: None,
        objection: Callable[[str, str, str, Answer], str | None] = lambda *_: None,
        trusts: Callable[[str, str], bool] = lambda *_: True,
        lose_uploads: Callable[[float], None] = lambda _: None,
        pass_schedule_time: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._account, self._region = account_id, region
        self._runner, self._client, self._client_as = runner, client, client_as
        self._emit_now = emit
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._assume, self._denial, self._trusts = assume, denial, trusts
        self._objection = objection
        self._lose_uploads, self._pass_schedule_time = lose_uploads, pass_schedule_time
        self._lock = threading.Lock()
        self._pipelines: dict[str, Pipeline] = {}
        self._executions: dict[str, Execution] = {}
        self._by_token: dict[str, str] = {}
        self._jobs: dict[str, Job] = {}
        self._tunings: dict[str, TuningJob] = {}
        self._faults: list[Fault] = []
        self._down_until = 0.0
        self._exhausted: frozenset[str] = frozenset()
        self._market = SpotMarket()
        self._hosting = Hosting(
            image=image,
            arn=self._arn,
            client_as=client_as,
            region=region,
            trusts=trusts,
            ringing=self._ringing,
            alarms_for=self._alarms_for,
            fault=self.next_fault,
            emit=self._emit,
        )
        self._operations: dict[str, Callable[[Answer], Answer]] = {
            "CreatePipeline": self.create_pipeline,
            "UpdatePipeline": self.update_pipeline,
            "DescribePipeline": self.describe_pipeline,
            "ListPipelines": self.list_pipelines,
            "DeletePipeline": self.delete_pipeline,
            "StartPipelineExecution": self.start,
            "StopPipelineExecution": self.stop,
            "DescribePipelineExecution": self.describe_execution,
            "ListPipelineExecutions": self.list_executions,
            "ListPipelineParametersForExecution": self.list_parameters,
            "ListPipelineExecutionSteps": self.list_steps,
            "DescribeProcessingJob": self.describe_processing_job,
            "DescribeTrainingJob": self.describe_training_job,
            "DescribeHyperParameterTuningJob": lambda request: self._tuning(request).described(),
            "ListTrainingJobsForHyperParameterTuningJob": self.list_trials,
            "StopHyperParameterTuningJob": self.stop_tuning,
            "StopProcessingJob": lambda request: self.stop_job(request["ProcessingJobName"]),
            "StopTrainingJob": lambda request: self.stop_job(request["TrainingJobName"]),
            "ListTags": self.list_tags,
            "AddTags": self.add_tags,
            "UpdateModelPackage": self.update_model_package,
            "DeleteModelPackage": self.delete_model_package,
            "CreateModelPackageGroup": self.create_model_package_group,
            "DeleteModelPackageGroup": self.delete_model_package_group,
            "ListServiceQuotas": quotas.list_service_quotas,
            "ListAWSDefaultServiceQuotas": quotas.list_aws_default_service_quotas,
            **self._hosting.operations,
        }

    # --- HTTP ---------------------------------------------------------------------------------------------

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/_local/credentials":
            return _respond(start_response, 200, self._assume(json.loads(_body(environ))["role_arn"]))
        if environ["PATH_INFO"] == "/_local/faults":
            self._plant(json.loads(_body(environ)))
            return _respond(start_response, 200, {})
        if environ["PATH_INFO"] == "/_local/uploads":
            self._lose_uploads(json.loads(_body(environ))["lost"])
            return _respond(start_response, 200, {})
        if environ["PATH_INFO"] == "/_local/schedules":
            self._pass_schedule_time(json.loads(_body(environ))["seconds"])
            return _respond(start_response, 200, {})
        if environ["PATH_INFO"] == "/_local/capacity":
            self._exhausted = frozenset(json.loads(_body(environ))["exhausted"])
            return _respond(start_response, 200, {})
        if environ["PATH_INFO"] == "/_local/spot":
            self._market = SpotMarket(**json.loads(_body(environ)))
            return _respond(start_response, 200, {})
        if environ["PATH_INFO"] == "/_local/outage":
            self._down_until = time.monotonic() + json.loads(_body(environ))["seconds"]
            return _respond(start_response, 200, {})
        if environ["PATH_INFO"] == "/_local/loaded":
            models, loads = self._hosting.loaded(json.loads(_body(environ))["endpoint"])
            return _respond(start_response, 200, {"models": models, "loads": loads})
        if environ["PATH_INFO"].startswith("/endpoints/"):
            return self._invoked(environ, start_response)
        name = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        if self._down and name in self._operations:
            _body(environ)
            return _respond(start_response, 503, {"__type": "ServiceUnavailable", "message": "an outage"})
        if name not in self._operations:
            answer: Iterable[bytes] = self._moto(environ, start_response)
            return answer
        request = json.loads(_body(environ) or b"{}")
        try:
            self._authorise(environ, name, request)
            return _respond(start_response, 200, self._call(name, request))
        except ApiError as error:
            return _respond(start_response, error.status, {"__type": error.code, "message": str(error)})

    def _invoked(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer SageMaker Runtime's operations, whose errors come by header."""
        _, _, endpoint, operation = environ["PATH_INFO"].split("/", 3)
        parse = _async_invocation if operation == "async-invocations" else _invocation
        called = parse(endpoint, environ)
        try:
            if self._down:
                raise ApiError("ServiceUnavailable", "an outage", 503)
            if operation not in ("invocations", "async-invocations"):
                raise ApiError("ValidationError", f"{operation} is not supported here")
            resource = self._arn(f"endpoint/{endpoint.lower()}")
            if isinstance(called, AsyncInvocation):
                self._check(environ, "InvokeEndpointAsync", resource, {})
                where = self._hosting.invoke_async(called)
                headers = [(f"X-Amzn-SageMaker-{name}", uri) for name, uri in where.items()]
                start_response("202 Accepted", [("Content-Type", "application/json"), *headers])
                return [json.dumps({"InferenceId": called.inference_id}).encode()]
            self._check(environ, "InvokeEndpoint", resource, _targets(called))
            if called.component:
                component = self._arn(f"inference-component/{called.component.lower()}")
                self._check(environ, "InvokeEndpoint", component, _targets(called))
            response, variant = self._hosting.invoke(called)
        except ApiError as error:
            headers = [("Content-Type", "application/json"), ("x-amzn-ErrorType", error.code)]
            start_response(f"{error.status} Error", headers)
            return [json.dumps({"message": str(error), "Message": str(error), **error.more}).encode()]
        start_response(
            "200 OK", [("Content-Type", response.content_type), ("x-Amzn-Invoked-Production-Variant", variant)]
        )
        return [response.body]

    def _authorise(self, environ: Environ, name: str, request: Answer) -> None:
        """Refuse calls about endpoints that the caller's policies do not allow; all others are allowed here.

        Source: service authorization reference, Amazon SageMaker.
        """
        for action, resource, keys in rights_for(name, request):
            is_whole = resource == "*" or ":" in resource
            self._check(environ, action, resource if is_whole else self._arn(resource), self._with_model(keys))

    def _check(self, environ: Environ, action: str, resource: str, keys: Answer) -> None:
        key = access_key_of(environ.get("HTTP_AUTHORIZATION", ""))
        full = action if ":" in action else f"sagemaker:{action}"
        tags = self._hosting.tags_of(resource) or []
        words = self._objection(
            key, full, resource, keys | {f"aws:ResourceTag/{t['Key']}": t["Value"] for t in tags}
        )
        if words:
            raise ApiError("AccessDeniedException", words)

    def _ringing(self, alarms: list[str]) -> list[str]:
        found = self._client("cloudwatch").describe_alarms(AlarmNames=alarms)["MetricAlarms"]
        return [alarm["AlarmName"] for alarm in found if alarm["StateValue"] == "ALARM"]

    def _alarms_for(self, arn: str) -> list[Answer]:
        pages = self._client("cloudwatch").get_paginator("describe_alarms").paginate()
        return [alarm for page in pages for alarm in page["MetricAlarms"] if arn in alarm.get("AlarmActions", [])]

    def _call(self, name: str, request: Answer) -> Answer:
        fault = self.next_fault(name)
        if fault is None or fault.effect == "lost":
            answer = self._operations[name](request)
        if fault is None:
            return answer
        broken = fault.effect == "lost" or fault.code == "InternalFailure"
        raise ApiError(fault.code, fault.message, status=500 if broken else 400)

    @property
    def _down(self) -> bool:
        return time.monotonic() < self._down_until

    def _emit(self, entry: Answer) -> None:
        if not self._down:
            self._emit_now(entry)

    def _plant(self, faults: list[Answer]) -> None:
        with self._lock:
            self._faults = [Fault(**fault) for fault in faults]

    def next_fault(self, operation: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.operation == operation and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    # --- pipelines ----------------------------------------------------------------------------------------

    def create_pipeline(self, request: Answer) -> Answer:
        name = request["PipelineName"]
        if name in self._pipelines:
            raise ApiError("ConflictException", f"Pipeline {name} already exists")
        arn = self._arn(f"pipeline/{name}")
        self._pipelines[name] = Pipeline(name, arn, self._definition_of(request), request["RoleArn"])
        return {"PipelineArn": arn}

    def update_pipeline(self, request: Answer) -> Answer:
        pipeline = self._pipeline(request["PipelineName"])
        pipeline.fetch = self._definition_of(request)
        pipeline.role_arn = request.get("RoleArn", pipeline.role_arn)
        return {"PipelineArn": pipeline.arn}

    def delete_pipeline(self, request: Answer) -> Answer:
        return {"PipelineArn": self._pipelines.pop(self._pipeline(request["PipelineName"]).name).arn}

    def list_pipelines(self, request: Answer) -> Answer:
        """Return the pipelines by name, a page at a time."""
        prefix, after = request.get("PipelineNamePrefix", ""), request.get("NextToken", "")
        names = sorted(name for name in self._pipelines if name.startswith(prefix) and name > after)
        page = names[: request.get("MaxResults", 10)]
        answer: Answer = {
            "PipelineSummaries": [
                {"PipelineName": name, "PipelineArn": self._pipelines[name].arn} for name in page
            ]
        }
        return answer | ({"NextToken": page[-1]} if len(names) > len(page) else {})

    def describe_pipeline(self, request: Answer) -> Answer:
        pipeline = self._pipeline(request["PipelineName"])
        return {
            "PipelineArn": pipeline.arn,
            "PipelineName": pipeline.name,
            "PipelineDefinition": pipeline.definition,
            "PipelineStatus": "Active",
            "RoleArn": pipeline.role_arn,
        }

    def _definition_of(self, request: Answer) -> Callable[[], str]:
        location = request.get("PipelineDefinitionS3Location")
        if location is None:
            return lambda: str(request["PipelineDefinition"])
        return lambda: _read(self._client("s3"), f"s3://{location['Bucket']}/{location['ObjectKey']}")

    # --- executions ---------------------------------------------------------------------------------------

    def start(self, request: Answer) -> Answer:
        pipeline = self._pipeline(request["PipelineName"])
        token = request["ClientRequestToken"]
        definition = json.loads(pipeline.definition)
        given = {p["Name"]: p["Value"] for p in request.get("PipelineParameters", [])}
        try:
            parameter_values(definition, given)
        except InvalidParameter as error:
            raise ApiError("ValidationException", str(error)) from error
        with self._lock:
            if token in self._by_token:
                return {"PipelineExecutionArn": self._by_token[token]}
            identity = "".join(random.choices(string.ascii_lowercase + string.digits, k=12))  # noqa: S311
            execution = Execution(
                arn=f"{pipeline.arn}/execution/{identity}",
                pipeline_arn=pipeline.arn,
                name=request.get("PipelineExecutionDisplayName", f"execution-{identity}"),
                description=request.get("PipelineExecutionDescription", ""),
                role_arn=pipeline.role_arn,
                given=given,
                definition=definition,
            )
            self._executions[execution.arn] = execution
            self._by_token[token] = execution.arn
        self._announce(execution, previous=None)
        threading.Thread(target=self._run, args=(execution,), name=identity, daemon=True).start()
        return {"PipelineExecutionArn": execution.arn}

    def stop(self, request: Answer) -> Answer:
        execution = self._execution(request["PipelineExecutionArn"])
        if execution.status in TERMINAL:
            raise ApiError("ValidationException", f"{execution.arn} is {execution.status}: it cannot be stopped")
        self._move(execution, "Stopping")
        execution.stop.set()
        for step in execution.steps:
            if isinstance(step.job, TuningJob):
                step.job.end_soon()
            elif step.job:
                step.job.stop.set()
        return {"PipelineExecutionArn": execution.arn}

    def describe_execution(self, request: Answer) -> Answer:
        execution = self._execution(request["PipelineExecutionArn"])
        answer = execution.summary() | {
            "PipelineArn": execution.pipeline_arn,
            "CreationTime": execution.started_at.timestamp(),
            "LastModifiedTime": (execution.ended_at or execution.started_at).timestamp(),
            "FailureReason": execution.failure,
        }
        return {name: value for name, value in answer.items() if value is not None and name != "StartTime"}

    def list_executions(self, request: Answer) -> Answer:
        pipeline = self._pipeline(request["PipelineName"])
        created_after = request.get("CreatedAfter", 0)
        found = [
            execution.summary()
            for execution in list(self._executions.values())
            if execution.pipeline_arn == pipeline.arn and execution.started_at.timestamp() > created_after
        ]
        found.sort(key=lambda summary: summary["StartTime"], reverse=request.get("SortOrder") != "Ascending")
        return _page(found, request, "PipelineExecutionSummaries")

    def list_parameters(self, request: Answer) -> Answer:
        execution = self._execution(request["PipelineExecutionArn"])
        found = [{"Name": name, "Value": value} for name, value in execution.given.items()]
        return _page(found, request, "PipelineParameters")

    def list_steps(self, request: Answer) -> Answer:
        execution = self._execution(request["PipelineExecutionArn"])
        return _page([step.summary() for step in execution.steps], request, "PipelineExecutionSteps")

    # --- jobs ---------------------------------------------------------------------------------------------

    def describe_processing_job(self, request: Answer) -> Answer:
        job = _as_told(self._job(request["ProcessingJobName"]))
        return _timed(job, "Processing") | {
            "ProcessingJobName": job.name,
            "ProcessingJobArn": job.arn,
            "ProcessingJobStatus": job.status,
            **_of_request(job, PROCESSING_TOLD),
            **({"ExitMessage": job.exit_message} if job.exit_message else {}),
        }

    def describe_training_job(self, request: Answer) -> Answer:
        return self._training(_as_told(self._job(request["TrainingJobName"])))

    def _training(self, job: Job) -> Answer:
        artifacts = {"ModelArtifacts": {"S3ModelArtifacts": job.artifacts}} if job.artifacts else {}
        resources = dict(job.request["ResourceConfig"])
        if job.selected is not None and job.started_at is not None:
            resources |= {
                "SelectedInstanceType": job.selected,
                "SelectedInstanceCount": resources["InstanceCount"],
            }
        return (
            _timed(job, "Training")
            | artifacts
            | {
                "TrainingJobName": job.name,
                "TrainingJobArn": job.arn,
                "TrainingJobStatus": job.status,
                "SecondaryStatus": job.secondary or job.status,
                "SecondaryStatusTransitions": [
                    {"Status": "Interrupted", "StartTime": when.timestamp()} for when in job.interrupted_at
                ],
                **_used(job),
                **_of_request(job, TRAINING_TOLD),
                "ResourceConfig": resources,
            }
        )

    def stop_job(self, name: str) -> Answer:
        self._job(name).stop.set()
        return {}

    def list_trials(self, request: Answer) -> Answer:
        """Return the training jobs of a tuning job, a page at a time."""
        tuning = self._tuning(request)
        trials = [tuning.summary(trial) for trial in list(tuning.trials)]
        return _page(trials, {"MaxResults": 10} | request, "TrainingJobSummaries")

    def stop_tuning(self, request: Answer) -> Answer:
        self._tuning(request).end_soon()
        return {}

    def _tuning(self, request: Answer) -> TuningJob:
        name = request["HyperParameterTuningJobName"]
        if name not in self._tunings:
            raise ApiError("ResourceNotFound", f"Requested resource not found: {name}")
        return self._tunings[name]

    def list_tags(self, request: Answer) -> Answer:
        """Return the tags of jobs and of what endpoints consist of; moto has all others."""
        arn = request["ResourceArn"]
        hosted = self._hosting.tags_of(arn)
        if hosted is not None:
            return {"Tags": hosted}
        jobs: list[Job | TuningJob] = [*self._jobs.values(), *self._tunings.values()]
        job = next((job for job in jobs if job.arn == arn), None)
        if job is not None:
            return {"Tags": job.request.get("Tags", [])}
        try:
            return {"Tags": self._backend().list_tags(arn)[0]}
        except AttributeError as error:  # how moto fails for what is not there, perhaps no longer
            kind = arn.rpartition(":")[2].partition("/")[0]
            raise ApiError("ValidationException", f'Could not find {kind} "{arn}".') from error

    def add_tags(self, request: Answer) -> Answer:
        arn, tags = request["ResourceArn"], request["Tags"]
        if not self._hosting.add_tags(arn, tags):
            tags = self._backend().add_tags(arn, tags)
        return {"Tags": tags}

    # --- model packages: moto cannot delete them or update their inference specification -----------------

    def update_model_package(self, request: Answer) -> Answer:
        specification = request.pop("InferenceSpecification", None)
        if specification is not None:
            self._backend().model_packages[request["ModelPackageArn"]].inference_specification = specification
        package = self._backend().model_packages.get(request["ModelPackageArn"])
        if package is None:
            raise ApiError("ValidationException", f"ModelPackage {request['ModelPackageArn']} does not exist")
        for name, value in request.get("CustomerMetadataProperties", {}).items():
            if not PROPERTY.fullmatch(value):
                raise ApiError("ValidationException", f"property {name} has characters that are not allowed")
        if "ModelApprovalStatus" not in request and "CustomerMetadataProperties" in request:
            package.customer_metadata_properties = {
                **(package.customer_metadata_properties or {}),
                **request["CustomerMetadataProperties"],
            }
        if "ModelApprovalStatus" in request:
            self._backend().update_model_package(
                model_package_arn=request["ModelPackageArn"],
                model_approval_status=request["ModelApprovalStatus"],
                approval_description=request.get("ApprovalDescription"),
                # moto would remove those that the request does not name
                customer_metadata_properties={
                    **(package.customer_metadata_properties or {}),
                    **request.get("CustomerMetadataProperties", {}),
                },
                customer_metadata_properties_to_remove=[],
                additional_inference_specifications_to_add=None,
            )
            self._announce_package(request["ModelPackageArn"])
        return {"ModelPackageArn": request["ModelPackageArn"]}

    def delete_model_package(self, request: Answer) -> Answer:
        arn = request["ModelPackageName"]
        if self._backend().model_packages.pop(arn, None) is None:
            raise ApiError("ValidationException", f"Model package {arn} does not exist")
        return {}

    def create_model_package_group(self, request: Answer) -> Answer:
        """Refuse an existing group, which moto would overwrite together with its tags."""
        name, backend = request["ModelPackageGroupName"], self._backend()
        if name in backend.model_package_groups:
            arn = backend.model_package_groups[name].arn
            raise ApiError("ValidationException", f"Model Package Group already exists: {arn}")
        arn = backend.create_model_package_group(
            name, request.get("ModelPackageGroupDescription", ""), request.get("Tags")
        )
        return {"ModelPackageGroupArn": arn}

    def delete_model_package_group(self, request: Answer) -> Answer:
        name, backend = request["ModelPackageGroupName"], self._backend()
        if name not in backend.model_package_groups:
            raise ApiError("ValidationException", f"ModelPackageGroup {name} does not exist")
        if any(package.model_package_group_name == name for package in backend.model_packages.values()):
            raise ApiError(
                "ConflictException", f"Model Package Group {name} has model packages: delete them first"
            )
        del backend.model_package_groups[name]
        return {}

    def _backend(self) -> Any:
        return sagemaker_backends[self._account][self._region]

    # --- running ------------------------------------------------------------------------------------------

    def _run(self, execution: Execution) -> None:
        """Run the steps one after another, and end the execution as SageMaker would."""
        context = Context(
            parameters=parameter_values(execution.definition, execution.given),
            execution={
                "PipelineExecutionArn": execution.arn,
                "PipelineExecutionId": execution.arn.rpartition("/")[2],
                "PipelineName": execution.pipeline_arn.rpartition("/")[2],
            },
            read_json=lambda uri: json.loads(_read(self._client_as("s3", execution.role_arn), uri)),
        )
        try:
            self._check_trust(execution.role_arn, execution.arn)
            self._run_steps(execution, execution.definition["Steps"], context)
            status = "Succeeded"
        except JobStopped:
            status = "Stopped"
        except JobFailed as error:
            status, execution.failure = "Failed", f"Step failure: One or multiple steps failed. {error}"[:1024]
        execution.ended_at = datetime.now(UTC)
        self._move(execution, status)

    def _run_steps(self, execution: Execution, steps: list[Answer], context: Context) -> None:
        for definition in ordered(steps):
            if execution.stop.is_set():
                raise JobStopped("the execution was stopped")
            step = Step(definition["Name"])
            execution.steps.append(step)
            try:
                branch = self._run_step(execution, step, definition, context)
                step.status = "Succeeded"
            except JobStopped:
                step.status = "Stopped"
                raise
            except StoppedEarly as error:
                step.status = self._market.step  # SageMaker gives no reason here: it is the job's secondary status
                if step.status == "Stopped":
                    raise JobStopped(str(error)) from error
                raise JobFailed("") from error
            except Exception as error:
                step.status = "Failed"
                step.failure = str(error) if isinstance(error, JobFailed) else f"ClientError: {error}"
                raise JobFailed(step.failure) from error
            finally:
                step.ended_at = step.job.ended_at if step.job and step.job.ended_at else datetime.now(UTC)
            self._run_steps(execution, branch, context)

    def _run_step(self, execution: Execution, step: Step, definition: Answer, context: Context) -> list[Answer]:
        """Run one step; returns the steps of the branch that a condition chose."""
        kind, arguments = definition["Type"], definition["Arguments"]
        fault = self.next_fault(f"Step:{step.name}")
        if fault is not None:
            raise JobFailed(f"{fault.code}: {fault.message}")
        if kind == "Condition":
            holds = all(context.holds(condition) for condition in arguments["Conditions"])
            step.metadata = {"Condition": {"Outcome": "True" if holds else "False"}}
            chosen: list[Answer] = arguments["IfSteps" if holds else "ElseSteps"]
            return chosen
        request = context.resolve(arguments)
        if kind == "Processing":
            self._run_job(execution, step, "processing-job", request, self._runner.process)
            outputs = request["ProcessingOutputConfig"]["Outputs"]
            uris = {output["OutputName"]: output["S3Output"]["S3Uri"] for output in outputs}
            files = definition.get("PropertyFiles", [])
            context.steps[step.name] = {
                "PropertyFiles": {f["PropertyFileName"]: f"{uris[f['OutputName']]}/{f['FilePath']}" for f in files}
            }
        elif kind == "Training":
            job = self._run_job(execution, step, "training-job", request, self._runner.train)
            context.steps[step.name] = self._training(job)
        elif kind == "Tuning":
            context.steps[step.name] = self._tune(execution, step, request).described()
        elif kind == "Transform":
            self._transform(execution, step, request)
        elif kind == "RegisterModel":
            arn = self._register(execution, request)
            step.metadata = {"RegisterModel": {"Arn": arn}}
            context.steps[step.name] = {"ModelPackageArn": arn}
        elif kind == "Lambda":
            step.metadata = {"Lambda": {"Arn": definition["FunctionArn"]}}
            self._invoke(execution.role_arn, definition["FunctionArn"], request)
        elif kind == "Fail":
            step.metadata = {"Fail": {"ErrorMessage": request["ErrorMessage"]}}
            raise JobFailed(request["ErrorMessage"])
        else:
            raise Unresolved(f"step type {kind}")
        return []

    def _run_job(
        self, execution: Execution, step: Step, kind: str, request: Answer, run: Callable[[Job], None]
    ) -> Job:
        name = f"pipelines-{execution.arn.rpartition('/')[2]}-{step.name}-{len(self._jobs):06d}"[:63]
        job = Job(name=name, arn=self._arn(f"{kind}/{name}"), request=request)
        step.job = self._jobs[name] = job
        member = "ProcessingJob" if kind == "processing-job" else "TrainingJob"
        self._check_job(execution.role_arn, member, job)
        if member == "TrainingJob":
            check_spot(request)
        job.market = self._market
        step.metadata = {member: {"Arn": job.arn}}
        self._announce_job(job, member)
        self._select(job)
        run(job)
        step.started_at = job.started_at or step.started_at
        return job

    def _tune(self, execution: Execution, step: Step, request: Answer) -> TuningJob:
        identity = execution.arn.rpartition("/")[2]
        name = f"{identity}-{step.name[:6]}-{len(self._tunings):06d}"  # how Pipelines names it is not documented
        check_request(request, name)
        arn = self._arn(f"hyper-parameter-tuning-job/{name}")
        as_job = Job(name=name, arn=arn, request=request["TrainingJobDefinition"] | {"Tags": request["Tags"]})
        self._check_job(execution.role_arn, "HyperParameterTuningJob", as_job)
        tuning = self._tunings[name] = step.job = TuningJob(name=name, arn=arn, request=request)
        step.metadata = {"TuningJob": {"Arn": arn}}

        def begin(job: Job) -> None:
            self._jobs[job.name] = job
            self._announce_job(job, "TrainingJob")
            self._select(job)

        run_tuning(tuning, begin, self._runner.train, self._runner.log_of)
        return tuning

    def _transform(self, execution: Execution, step: Step, request: Answer) -> None:
        name = f"pipelines-{execution.arn.rpartition('/')[2]}-{step.name}-{len(self._jobs):06d}"[:63]
        request = request | {"TransformJobName": name}
        for action, resource, keys in rights_for("CreateTransformJob", request):
            self._allow(execution.role_arn, action, self._arn(resource), self._with_model(keys))
        instance_type = request["TransformResources"]["InstanceType"]
        if f"transform/{instance_type}" in self._exhausted:
            raise JobFailed(f"CapacityError: Unable to provision {instance_type}")
        try:
            job = step.job = self._hosting.transform(request)
        except ApiError as error:
            raise JobFailed(
                f"ClientError: Failed to invoke sagemaker:CreateTransformJob. Error Details: {error}"
            ) from error
        step.metadata = {"TransformJob": {"Arn": job.arn}}
        job.ended.wait()
        if job.status == "Stopped":
            raise JobStopped("the transform job was stopped")
        if job.status == "Failed":
            raise JobFailed(job.failure or "")

    def _with_model(self, keys: Answer) -> Answer:
        """Return condition keys with the whole ARN of the model that they name."""
        if "sagemaker:ModelArn" not in keys:
            return keys
        return keys | {"sagemaker:ModelArn": self._arn(keys["sagemaker:ModelArn"])}

    def _select(self, job: Job) -> None:
        """Select the first instance type that has capacity; raises JobFailed when none has."""
        cluster = job.request.get("ResourceConfig") or job.request["ProcessingResources"]["ClusterConfig"]
        types = instance_types(cluster)
        if job.is_on_spot:
            if f"spot/{types[0]}" in self._exhausted:
                job.status, job.secondary, job.ended_at = "Stopped", "MaxWaitTimeExceeded", datetime.now(UTC)
                raise StoppedEarly(job.secondary)
            return
        available = [name for name in types if name not in self._exhausted]
        if not available:
            job.status, job.failure = "Failed", f"CapacityError: Unable to provision {', '.join(types)}"
            raise JobFailed(job.failure)
        if "InstancePreferences" in cluster:
            job.selected = available[0]

    def _check_job(self, role_arn: str, member: str, job: Job) -> None:
        """Create a job only if the pipeline's role allows it, with the condition keys that SageMaker provides.

        Source: service authorization reference, Amazon SageMaker, CreateProcessingJob and CreateTrainingJob.
        """
        request = job.request
        cluster = request.get("ResourceConfig") or request["ProcessingResources"]["ClusterConfig"]
        output = request.get("OutputDataConfig") or request["ProcessingOutputConfig"]
        vpc = request.get("VpcConfig") or request.get("NetworkConfig", {}).get("VpcConfig") or {}
        tags = {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in request["Tags"]}
        keys: Answer = {
            **tags,
            "aws:TagKeys": [tag["Key"] for tag in request["Tags"]],
            "sagemaker:InstanceTypes": instance_types(cluster),
            "sagemaker:MaxRuntimeInSeconds": str(request["StoppingCondition"]["MaxRuntimeInSeconds"]),
            "sagemaker:OutputKmsKey": output.get("KmsKeyId"),
            "sagemaker:VpcSubnets": vpc.get("Subnets"),
            "sagemaker:VpcSecurityGroupIds": vpc.get("SecurityGroupIds"),
        }
        given = {name: value for name, value in keys.items() if value is not None}
        self._allow(role_arn, f"Create{member}", job.arn, given)
        self._allow(role_arn, "AddTags", job.arn, given)
        passed = {"iam:PassedToService": "sagemaker.amazonaws.com"}
        words = self._denial(role_arn, "iam:PassRole", request["RoleArn"], passed)
        if words:
            raise JobFailed(f"ClientError: Failed to invoke sagemaker:Create{member}. Error Details: {words}")
        self._check_trust(request["RoleArn"], job.arn)

    def _check_trust(self, role_arn: str, source_arn: str) -> None:
        if not self._trusts(role_arn, source_arn):
            raise JobFailed(
                f"ClientError: Could not assume role {role_arn}. Please ensure that the role exists and allows "
                "principal 'sagemaker.amazonaws.com' to assume the role."
            )

    def _register(self, execution: Execution, request: Answer) -> str:
        """Register a model as Pipelines does: it always creates the group, even an existing one, and tags both."""
        group = request["ModelPackageGroupName"]
        group_arn, package_arn = self._arn(f"model-package-group/{group}"), self._arn(f"model-package/{group}/1")
        for action, resource in (
            ("CreateModelPackageGroup", group_arn),
            ("AddTags", group_arn),
            ("CreateModelPackage", package_arn),
            ("AddTags", package_arn),
        ):
            self._allow(execution.role_arn, action, resource, {})
        arn = str(self._client("sagemaker").create_model_package(**request)["ModelPackageArn"])
        self._announce_package(arn)
        return arn

    def _announce_package(self, arn: str) -> None:
        """Send the event of a package that was created, or whose approval has changed.

        Source: developer guide, "Events that Amazon SageMaker AI sends to Amazon EventBridge".
        """
        package = self._backend().model_packages.get(arn)
        if package is None:
            return
        detail = {
            "ModelPackageGroupName": package.model_package_group_name,
            "ModelPackageVersion": package.model_package_version,
            "ModelPackageArn": arn,
            "ModelPackageStatus": "Completed",
            "ModelApprovalStatus": package.model_approval_status,
            "ApprovalDescription": package.approval_description,
            "CustomerMetadataProperties": package.customer_metadata_properties,
        }
        self._emit(
            {
                "Source": "aws.sagemaker",
                "DetailType": "SageMaker Model Package State Change",
                "Detail": json.dumps({name: value for name, value in detail.items() if value is not None}),
                "Resources": [arn],
            }
        )

    def _allow(self, role_arn: str, action: str, resource: str, keys: Answer) -> None:
        words = self._denial(role_arn, f"sagemaker:{action}", resource, keys)
        if words:
            raise JobFailed(f"ClientError: Failed to invoke sagemaker:{action}. Error Details: {words}")

    def _announce_job(self, job: Job, member: str) -> None:
        """Send the event of a started job; only for training jobs is it documented to have role and tags."""
        told = {"RoleArn": job.request["RoleArn"], "Tags": job.request["Tags"]}  # a list, as in the schema
        detail = {f"{member}Name": job.name, f"{member}Arn": job.arn, f"{member}Status": "InProgress"}
        kind = "Training" if member == "TrainingJob" else "Processing"
        self._emit(
            {
                "Source": "aws.sagemaker",
                "DetailType": f"SageMaker {kind} Job State Change",
                "Detail": json.dumps(detail | (told if kind == "Training" else {})),
                "Resources": [job.arn],
            }
        )

    def _invoke(self, role_arn: str, function_arn: str, payload: Answer) -> None:
        answer = self._client_as("lambda", role_arn).invoke(
            FunctionName=function_arn, Payload=json.dumps(payload).encode()
        )
        body = answer["Payload"].read().decode()
        if answer.get("FunctionError"):
            raise JobFailed(f"Lambda {function_arn} failed: {body[:500]}")

    def _move(self, execution: Execution, status: str) -> None:
        previous, execution.status = execution.status, status
        self._announce(execution, previous)

    def _announce(self, execution: Execution, previous: str | None) -> None:
        detail = {
            "pipelineExecutionDescription": execution.description,
            "pipelineExecutionDisplayName": execution.name,
            "currentPipelineExecutionStatus": execution.status,
            "previousPipelineExecutionStatus": previous,
            "executionStartTime": _iso(execution.started_at),
            "executionEndTime": _iso(execution.ended_at) if execution.ended_at else None,
            "pipelineArn": execution.pipeline_arn,
            "pipelineExecutionArn": execution.arn,
        }
        self._emit(
            {
                "Source": "aws.sagemaker",
                "DetailType": "SageMaker Model Building Pipeline Execution Status Change",
                "Detail": json.dumps({name: value for name, value in detail.items() if value is not None}),
                "Resources": [execution.pipeline_arn, execution.arn],
            }
        )

    # --- look-ups -----------------------------------------------------------------------------------------

    def _pipeline(self, name: str) -> Pipeline:
        found = self._pipelines.get(name.rpartition("/")[2])
        if found is None:
            raise ApiError("ResourceNotFound", f"Pipeline {name} does not exist")
        return found

    def _execution(self, arn: str) -> Execution:
        if arn not in self._executions:
            raise ApiError("ResourceNotFound", f"Execution {arn} does not exist")
        return self._executions[arn]

    def _job(self, name: str) -> Job:
        if name not in self._jobs:
            raise ApiError("ValidationException", f"Requested resource not found: {name}")
        return self._jobs[name]

    def _arn(self, resource: str) -> str:
        return f"arn:aws:sagemaker:{self._region}:{self._account}:{resource}"


def _read(s3: Any, uri: str) -> str:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return str(s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode())


def _page(found: list[Answer], request: Answer, member: str) -> Answer:
    """Return a page of at most MaxResults (100 if not given), as the List operations do."""
    begin, size = int(request.get("NextToken") or 0), int(request.get("MaxResults") or 100)
    answer: Answer = {member: found[begin : begin + size]}
    if begin + size < len(found):
        answer["NextToken"] = str(begin + size)
    return answer


def _as_told(job: Job) -> Job:
    """Return a job as Describe reports it, which may report the end late."""
    if job.ended_at is None or time.monotonic() >= job.told_from:
        return job
    return replace(job, status="InProgress", ended_at=None, failure=None, artifacts=None)


def _timed(job: Job, prefix: str) -> Answer:
    times = {
        "CreationTime": job.created_at,
        f"{prefix}StartTime": job.started_at,
        f"{prefix}EndTime": job.ended_at,
    }
    answer: Answer = {name: when.timestamp() for name, when in times.items() if when is not None}
    return answer | ({"FailureReason": job.failure} if job.failure else {})


SPOT_PRICE = 0.3
"""Of the price on demand. SageMaker bills a job on spot capacity for fewer seconds than it trained, at that price
(developer guide, "Managed Spot Training")."""


def _used(job: Job) -> Answer:
    """Return the seconds that a job trained and is billed for; nothing for one that never began."""
    if job.ended_at is None or job.started_at is None:
        return {}
    billable = max(1, math.ceil(job.seconds * SPOT_PRICE)) if job.is_on_spot else job.seconds
    return {"BillableTimeInSeconds": billable, "TrainingTimeInSeconds": job.seconds}


def _iso(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


_HEADER = "HTTP_X_AMZN_SAGEMAKER_"


def _invocation(endpoint: str, environ: Environ) -> Invocation:
    return Invocation(
        endpoint=endpoint,
        body=_body(environ),
        content_type=environ.get("CONTENT_TYPE") or "application/octet-stream",
        accept=environ.get("HTTP_ACCEPT") or "*/*",
        target_model=environ.get(f"{_HEADER}TARGET_MODEL", ""),
        target_variant=environ.get(f"{_HEADER}TARGET_VARIANT", ""),
        target_container=environ.get(f"{_HEADER}TARGET_CONTAINER_HOSTNAME", ""),
        component=environ.get(f"{_HEADER}INFERENCE_COMPONENT", ""),
    )


def _async_invocation(endpoint: str, environ: Environ) -> AsyncInvocation:
    return AsyncInvocation(
        endpoint=endpoint,
        body=_body(environ),
        input_location=environ.get(f"{_HEADER}INPUTLOCATION", ""),
        content_type=environ.get(f"{_HEADER}CONTENT_TYPE") or "application/octet-stream",
        accept=environ.get(f"{_HEADER}ACCEPT") or "*/*",
        inference_id=environ.get(f"{_HEADER}INFERENCE_ID") or uuid.uuid4().hex,
        seconds=int(environ.get(f"{_HEADER}INVOCATIONTIMEOUTSECONDS") or ANSWER_SECONDS_DEFAULT),
    )


def _targets(asked: Invocation) -> Answer:
    keys = {
        "sagemaker:TargetModel": asked.target_model,
        "sagemaker:TargetContainerHostname": asked.target_container,
    }
    return {name: value for name, value in keys.items() if value}


def _body(environ: Environ) -> bytes:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body: bytes = environ["wsgi.input"].read(length)
    return body


def _respond(start_response: Callable[..., Any], status: int, answer: Answer) -> Iterable[bytes]:
    start_response(
        f"{status} {'OK' if status == 200 else 'Error'}", [("Content-Type", "application/x-amz-json-1.1")]
    )
    return [json.dumps(answer).encode()]


def wait_for(path: Any, seconds: float) -> None:
    """Wait until a file exists; raises TimeoutError."""
    limit = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > limit:
            raise TimeoutError(f"{path} did not appear within {seconds} s")
        time.sleep(0.02)
