"""Events as EventBridge delivers them, and what the service makes of them.

Sources: Amazon S3 user guide, "EventBridge event message structure"; SageMaker developer guide, "Events
that Amazon SageMaker sends to EventBridge". Keys arrive raw and are never decoded.
"""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from trainyard.application.guard import JobStarted
from trainyard.domain.arrivals import RetrainingAsked, UploadArrived
from trainyard.domain.errors import Malformed
from trainyard.domain.prices import JobKind
from trainyard.domain.requests import Content


class _Event(BaseModel):
    """Built when it is first used: a function reads one or two of them."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True, defer_build=True)


class _Envelope(_Event):
    id: str = Field(min_length=1, max_length=128)
    account: str = Field(pattern=r"^[0-9]{12}$")
    time: AwareDatetime


class S3Object(_Event):
    key: str = Field(min_length=1, max_length=1024)
    size: int = Field(default=0, ge=0)
    etag: str = Field(default="", validation_alias=AliasChoices("etag", "eTag"))
    version_id: str | None = Field(default=None, validation_alias=AliasChoices("version-id", "version_id"))
    sequencer: str = Field(default="", pattern=r"^[0-9A-Fa-f]*$")


class S3Bucket(_Event):
    name: str = Field(min_length=3, max_length=63)


class S3Detail(_Event):
    bucket: S3Bucket
    object: S3Object


class ObjectCreated(_Envelope):
    """An object was put, copied or completed in a bucket."""

    detail_type: Literal["Object Created"] = Field(alias="detail-type")
    source: Literal["aws.s3"]
    detail: S3Detail

    def arrived(self) -> UploadArrived:
        uploaded = self.detail.object
        content = Content(
            bucket=self.detail.bucket.name,
            key=uploaded.key,
            version_id=uploaded.version_id,
            etag=uploaded.etag.strip('"'),
            sequencer=uploaded.sequencer,
            size_bytes=uploaded.size,
            event_time=self.time,
        )
        return UploadArrived(account_id=self.account, content=content)


class RetrainingDetail(_Event):
    tenant_id: str = Field(min_length=1, max_length=63)
    data_set: str | None = Field(default=None, min_length=1, max_length=63)
    """None asks for every data set of the tenant."""
    reason: str = Field(default="", max_length=256)


class RetrainingRequested(_Envelope):
    """Somebody (a schedule, an alarm, an operator) asks to train again on what is there."""

    detail_type: Literal["Retraining Requested"] = Field(alias="detail-type")
    source: str
    detail: RetrainingDetail

    def arrived(self) -> RetrainingAsked:
        return RetrainingAsked(
            account_id=self.account,
            event_id=self.id,
            tenant_id=self.detail.tenant_id,
            data_set=self.detail.data_set,
        )


Arrival = Annotated[ObjectCreated | RetrainingRequested, Field(discriminator="detail_type")]
_ARRIVAL: TypeAdapter[ObjectCreated | RetrainingRequested] = TypeAdapter(Arrival)


class ExecutionDetail(_Event):
    """Its times are left out: they may be missing or wrong, and the jobs' own are asked for (ExecutionReports)."""

    display_name: str = Field(default="", alias="pipelineExecutionDisplayName")
    description: str = Field(default="", alias="pipelineExecutionDescription")
    status: str = Field(alias="currentPipelineExecutionStatus")
    execution_arn: str = Field(
        min_length=1, validation_alias=AliasChoices("pipelineExecutionArn", "execution_arn")
    )


class ExecutionStatusChanged(_Envelope):
    """A pipeline execution changed its status; carries neither parameters nor tags."""

    detail_type: Literal["SageMaker Model Building Pipeline Execution Status Change"] = Field(alias="detail-type")
    source: Literal["aws.sagemaker"]
    detail: ExecutionDetail


class RecordStep(_Event):
    """What the pipeline's Lambda step tells the recorder: only what it alone knows."""

    request_id: str = Field(alias="RequestId", pattern=r"^[0-9a-f]{32}$")
    attempt: int = Field(alias="Attempt", ge=1)
    model_package_arn: str = Field(alias="ModelPackageArn", min_length=1)


class StatementAsked(_Event):
    tenant: str = Field(min_length=1, max_length=64)
    month: str | None = Field(default=None, pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")


class BillingCommand(_Event):
    """What the billing function is asked for; nothing means all that is due."""

    statement: StatementAsked | None = None
    export: date | None = None


class BudgetThresholdCrossed(_Event):
    """Told on the application's bus: what a tenant, or a tier when none is named, has spent of its budget."""

    schema_version: Literal[1] = 1
    tenant_id: str | None = None
    tier: str
    month: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}$")
    percent: int = Field(ge=1)
    """The threshold that was reached."""
    spent_usd: Decimal
    budget_usd: Decimal


class CostAnomalyDetected(_Event):
    """Told on the application's bus: what a tenant's runs that ended within an hour came to, and usually do."""

    schema_version: Literal[1] = 1
    tenant_id: str
    hour: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}$")
    usd: Decimal
    usual_usd: Decimal
    """That nine of ten of its hours stay below."""


def money_event(what: str, values: Mapping[str, Any]) -> str:
    """Return the detail of what is told of money, "budget" or "pace", as JSON."""
    schema = BudgetThresholdCrossed if what == "budget" else CostAnomalyDetected
    return schema.model_validate(dict(values)).model_dump_json(exclude_none=True)


class TrainingJobDetail(_Event):
    name: str = Field(alias="TrainingJobName")
    arn: str = Field(alias="TrainingJobArn")
    role_arn: str | None = Field(default=None, alias="RoleArn")
    tags: dict[str, str] | None = Field(default=None, alias="Tags")


class ProcessingJobDetail(_Event):
    name: str = Field(alias="ProcessingJobName")
    arn: str = Field(alias="ProcessingJobArn")
    role_arn: str | None = Field(default=None, alias="RoleArn")
    tags: dict[str, str] | None = Field(default=None, alias="Tags")


class TrainingJobChanged(_Envelope):
    """A training job changed its status; the event carries its role and its tags."""

    detail_type: Literal["SageMaker Training Job State Change"] = Field(alias="detail-type")
    source: Literal["aws.sagemaker"]
    detail: TrainingJobDetail


class ProcessingJobChanged(_Envelope):
    """A processing job changed its status; that the event carries role and tags is not documented."""

    detail_type: Literal["SageMaker Processing Job State Change"] = Field(alias="detail-type")
    source: Literal["aws.sagemaker"]
    detail: ProcessingJobDetail


JobChanged = Annotated[TrainingJobChanged | ProcessingJobChanged, Field(discriminator="detail_type")]
_JOB: TypeAdapter[TrainingJobChanged | ProcessingJobChanged] = TypeAdapter(JobChanged)


def parse_job_status(event: Any) -> JobStarted:
    """Return the job that an event is about; raises Malformed, naming what is wrong."""
    try:
        changed = _JOB.validate_python(event)
    except ValidationError as error:
        raise Malformed(explain(error)) from error
    kind = JobKind.TRAINING if isinstance(changed, TrainingJobChanged) else JobKind.PROCESSING
    return JobStarted(kind=kind, **changed.detail.model_dump())


def parse_arrival(body: str) -> UploadArrived | RetrainingAsked:
    """Return the arrival in an SQS message's body; raises Malformed, naming what is wrong."""
    try:
        return _ARRIVAL.validate_json(body).arrived()
    except ValidationError as error:
        raise Malformed(explain(error)) from error


def parse_execution_status(body: str) -> ExecutionStatusChanged:
    """Return the event in an SQS message's body; raises Malformed, naming what is wrong."""
    try:
        return ExecutionStatusChanged.model_validate_json(body)
    except ValidationError as error:
        raise Malformed(explain(error)) from error


def explain(error: ValidationError) -> str:
    """Return pydantic's findings in one line, without the input, which may be anybody's data."""
    findings: list[Any] = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, f['loc'])) or 'event'}: {f['msg']}" for f in findings[:5])
