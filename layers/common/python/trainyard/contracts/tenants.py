"""The requests for tenant changes, and the steps of the state machines that carry them out."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trainyard.application.tenancy.tenants import Step, TenantSpec
from trainyard.contracts.events import explain
from trainyard.contracts.policy_file import BudgetUsd
from trainyard.contracts.retraining import RetrainingValues, retraining_view
from trainyard.domain.algorithms import ALGORITHM_NAME, HYPERPARAMETERS_LENGTH_MAX
from trainyard.domain.deadlines import parse_ready_by
from trainyard.domain.errors import Refused
from trainyard.domain.names import is_data_set
from trainyard.domain.policy import BudgetMode
from trainyard.domain.requests import PRIORITY_MAX
from trainyard.domain.schedules import parse_schedule
from trainyard.domain.serving import (
    Approval,
    Isolation,
    Mode,
    Promotion,
    ServingSettings,
    default_isolation,
    objection_to,
    unsupported,
)
from trainyard.domain.tenants import Change, Operation, Problem, Tenant, TrainingSettings, TrainOn

Split = Annotated[str, Field(max_length=140, pattern=r"^(auto|random|(group|time):[^\x00-\x1f]+)$")]
Column = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$")]
_KEY = r"^(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+)?$"
_LICENSE = r"^(arn:aws[a-z-]*:license-manager:[a-z0-9-]*:[0-9]{0,12}:license:[A-Za-z0-9-]+)?$"
_AlgorithmName = Annotated[str, Field(pattern=ALGORITHM_NAME)]


def _schedule_or_none(text: str | None) -> str | None:
    if text:
        try:
            parse_schedule(text)
        except Refused as refusal:
            raise ValueError(str(refusal)) from None
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_WITH_INSTANCES = (Mode.REAL_TIME, Mode.ASYNCHRONOUS)
USED_BY = {
    "instance_type": _WITH_INSTANCES,
    "instances": _WITH_INSTANCES,
    "instances_max": _WITH_INSTANCES,
    "scale_at": _WITH_INSTANCES,
    "memory_mb": (Mode.SERVERLESS, Mode.INFERENCE_COMPONENT),
    "cpu_percent": (Mode.INFERENCE_COMPONENT,),
    "concurrency": (Mode.SERVERLESS,),
}
"""Keys of serving settings → modes in which they have an effect."""


class ServingEntry(_Strict):
    """How models are served: {"mode": "serverless", "memory_mb": 4096}; what is not given has its default."""

    mode: Mode
    isolation: Isolation | None = None
    """Without it, the one that shares least of those that can be deployed in the mode."""
    approval: Approval = Approval.MANUAL
    margin: Annotated[float, Field(allow_inf_nan=False)] = 0
    segment_loss_max: Annotated[float, Field(allow_inf_nan=False)] = 0.1
    compare_by: Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f]*$")] = ""
    promotion: Promotion = Promotion.DIRECT
    test_minutes: int = 60
    canary_percent: int = 0
    bake_minutes: int = 30
    instance_type: Annotated[str, Field(pattern=r"^(ml\.[a-z0-9-]{1,30}\.[a-z0-9]{1,20})?$")] = ""
    instances: int = 1
    instances_max: int = 0
    scale_at: int = 0
    memory_mb: int = 2048
    cpu_percent: int = 50
    concurrency: int = 5

    @model_validator(mode="after")
    def _is_allowed(self) -> Self:
        settings = self.to_settings()
        objection = objection_to(settings) or unsupported(settings) or self._unused()
        if objection is not None:
            raise ValueError(objection)
        return self

    def _unused(self) -> str | None:
        """Return which key has no effect in the mode, and where it has one; None if there is none."""
        for name, modes in USED_BY.items():
            default = type(self).model_fields[name].default
            if getattr(self, name) != default and self.mode not in modes:
                return f"{name} has no effect with {self.mode}: it is for {' and '.join(modes)}; leave it out"
        return None

    def to_settings(self) -> ServingSettings:
        values = self.model_dump() | {"isolation": self.isolation or default_isolation(self.mode)}
        return ServingSettings(**values)


class DataSetEntry(_Strict):
    """Settings of one data set; what is not given is as the tenant's."""

    target: Column | None = None
    algorithm: _AlgorithmName | None = None
    problem: Problem | None = None
    split: Split | None = None
    train_on: TrainOn | None = None
    every_upload: bool | None = None
    ready_by: str | None = Field(default=None, max_length=64)
    """"" for no deadline."""
    priority: int | None = Field(default=None, ge=0, le=PRIORITY_MAX)
    hyperparameters: dict[str, str | int | float | bool] | None = Field(default=None, max_length=50)
    serving: ServingEntry | None = None
    retraining: RetrainingValues | None = None
    """Which uploads are enough for a training, and how often it trains; {} for no rules."""
    schedule: str | None = None
    """When it is trained on again; "" for the tenant's schedule, `retrain`."""
    transform: str | None = None
    """When its stored rows are predicted; "" for no schedule."""

    @field_validator("schedule", "transform")
    @classmethod
    def _schedules_fit(cls, schedule: str | None) -> str | None:
        return _schedule_or_none(schedule)

    @field_validator("hyperparameters")
    @classmethod
    def _fits_a_parameter(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        if len(json.dumps(values, separators=(",", ":"))) > HYPERPARAMETERS_LENGTH_MAX:
            raise ValueError(f"hyperparameters take more than {HYPERPARAMETERS_LENGTH_MAX} characters as JSON")
        return values

    @field_validator("ready_by")
    @classmethod
    def _is_time_and_zone(cls, ready_by: str | None) -> str | None:
        if ready_by:
            parse_ready_by(ready_by)
        return ready_by

    def to_changes(self) -> dict[str, Any]:
        """Return the given fields, as TrainingSettings has them."""
        given = {name: getattr(self, name) for name in SETTINGS if getattr(self, name) is not None}
        if self.hyperparameters is not None:
            given["hyperparameters"] = tuple(sorted(self.hyperparameters.items()))
        if self.serving is not None:
            given["serving"] = self.serving.to_settings()
        if self.retraining is not None:
            given["retraining"] = self.retraining.to_settings()
        return given


SETTINGS = tuple(
    name for name in DataSetEntry.model_fields if name not in ("hyperparameters", "serving", "retraining")
)
LIMITS = ("weight", "running_max", "running_ceiling", "budget_usd", "budget_mode")


TAGS_MAX = 20
Tag = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._=/-]{0,62}$")]


class TenantEntry(DataSetEntry):
    """A request for a tenant: {"tenant": {"name": …, "tier": …, "target": …}}."""

    name: str = Field(max_length=256)
    tier: str | None = None
    data_sets: dict[str, DataSetEntry] | None = Field(default=None, max_length=50)
    data_set_changes: dict[str, DataSetEntry | None] = Field(default={}, max_length=50)
    """What changes of the settings of some data sets; null for none of their own. Those of others stay."""
    retrain: str | None = None
    """"" for no schedule."""
    kms_key: Annotated[str, Field(pattern=_KEY)] | None = None
    account: Annotated[str, Field(pattern=r"^([0-9]{12})?$")] | None = None
    buyer_account: Annotated[str, Field(pattern=r"^([0-9]{12})?$")] | None = None
    license: Annotated[str, Field(pattern=_LICENSE)] | None = None
    tags: Annotated[list[Tag], Field(max_length=TAGS_MAX)] | None = None
    """They replace those before."""
    weight: int | None = Field(default=None, ge=1, le=1000)
    running_max: int | None = Field(default=None, ge=1, le=10_000)
    running_ceiling: int | None = Field(default=None, ge=1, le=10_000)
    budget_usd: BudgetUsd | None = None
    budget_mode: BudgetMode | None = None
    repair: bool = False
    """For a creation: repair the existing tenant, and change nothing else."""

    @field_validator("data_sets", "data_set_changes")
    @classmethod
    def _names_fit(cls, data_sets: dict[str, Any] | None) -> dict[str, Any] | None:
        for name in data_sets or {}:
            if not is_data_set(name):
                raise ValueError(f"{name!r} is not a valid data set name")
        return data_sets

    @field_validator("retrain")
    @classmethod
    def _schedule_fits(cls, schedule: str | None) -> str | None:
        return _schedule_or_none(schedule)

    @field_validator("schedule", "transform")
    @classmethod
    def _is_of_a_data_set(cls, schedule: str | None, field: ValidationInfo) -> str | None:
        if schedule is not None:
            raise ValueError(f"such a schedule belongs to a data set: data_sets.<name>.{field.field_name}")
        return schedule

    def to_spec(self) -> TenantSpec:
        limits = {name: getattr(self, name) for name in LIMITS if name in self.model_fields_set}
        return TenantSpec(
            tenant_id=self.name,
            tier=self.tier,
            settings=self.to_changes(),
            data_sets=None
            if self.data_sets is None
            else {name: entry.to_changes() for name, entry in self.data_sets.items()},
            data_set_changes={
                name: entry.to_changes() if entry else None for name, entry in self.data_set_changes.items()
            },
            retrain=self.retrain,
            key_arn=self.kms_key,
            account_id=self.account,
            buyer_account=self.buyer_account,
            license_arn=self.license,
            tags=None if self.tags is None else tuple(dict.fromkeys(self.tags)),
            limits=limits or None,
            repair=self.repair,
        )


class StepCommand(_Strict):
    """One task of a state machine, or of a timer: see statemachines/."""

    change: Change | None = None
    step: str
    run: str = ""
    tenant: TenantEntry = TenantEntry(name="")
    purge: bool = False
    cursor: str | None = None
    error: dict[str, Any] | None = None

    def to_step(self, now: datetime) -> Step:
        return Step(
            change=self.change or Change.CREATE,
            run=self.run,
            spec=self.tenant.to_spec(),
            at=now,
            purge=self.purge,
            cursor=self.cursor,
            error=_told(self.error) if self.error else None,
        )


def parse_step_command(event: Mapping[str, Any]) -> StepCommand:
    """Return the task that a state machine asks for; raises Refused, naming what is wrong."""
    try:
        return StepCommand.model_validate(event)
    except ValidationError as error:
        raise Refused(explain(error)) from None


def _told(error: Mapping[str, Any]) -> str:
    """Return the message of a caught error: a failed task's cause is the function's error as JSON."""
    cause = str(error.get("Cause", ""))
    try:
        message = str(json.loads(cause)["errorMessage"])
    except (ValueError, KeyError, TypeError):
        message = cause
    name = str(error.get("Error", ""))
    return message if name in ("Refused", "InProgress") else f"{name}: {message}"


def tenant_view(tenant: Tenant) -> dict[str, Any]:
    """Return a tenant as shown to the operator."""
    return {
        "tenant_id": tenant.tenant_id,
        "state": tenant.state.value,
        "tier": tenant.tier,
        "storage": "pool" if tenant.pooled else "silo",
        "bucket": tenant.bucket,
        "upload_to": f"s3://{tenant.bucket}/{tenant.root}incoming/<data set>/",
        "results_at": f"s3://{tenant.bucket}/{tenant.root}",
        "role_arn": tenant.role_arn,
        "role": tenant.role.value,
        "model_group": tenant.model_group,
        "settings": settings_view(tenant.settings),
        "data_sets": {name: settings_view(settings) for name, settings in tenant.data_sets.items()},
        "retrain": tenant.retrain_schedule,
        "kms_key": tenant.key_arn,
        "account": tenant.account_id,
        "tags": list(tenant.tags),
        "under_way": _operation_view(tenant.operation),
    }


def _operation_view(operation: Operation | None) -> dict[str, Any] | None:
    if operation is None:
        return None
    return {"change": operation.change.value, "run": operation.run, "failure": operation.failure}


def settings_view(settings: TrainingSettings) -> dict[str, Any]:
    return {
        "algorithm": settings.algorithm,
        "target": settings.target,
        "problem": settings.problem.value,
        "split": settings.split,
        "train_on": settings.train_on.value,
        "every_upload": settings.every_upload,
        "hyperparameters": dict(settings.hyperparameters),
        "ready_by": settings.ready_by,
        "priority": settings.priority,
        "serving": asdict(settings.serving),
        "retraining": retraining_view(settings.retraining),
        "schedule": settings.schedule,
        "transform": settings.transform,
    }
