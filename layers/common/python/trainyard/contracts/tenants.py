"""The tenants function's commands and answers."""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trainyard.application.tenants import Wish
from trainyard.domain.names import is_data_set
from trainyard.domain.tenants import Algorithm, Problem, Tenant, TrainingSettings, TrainOn

_Column = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$")]
PARAMETER_LENGTH_MAX = 1024
"""Characters of a pipeline parameter's value (SageMaker API reference, Parameter)."""
_SCHEDULE = re.compile(r"rate\([1-9][0-9]{0,3} (minute|minutes|hour|hours|day|days)\)|cron\([^()]{9,100}\)")


def _is_schedule(text: str) -> bool:
    """Tell whether EventBridge Scheduler takes it: of a cron's two day fields, exactly one is "?"."""
    if _SCHEDULE.fullmatch(text) is None:
        return False
    fields = text.removeprefix("cron(").removesuffix(")").split()
    return text.startswith("rate(") or (len(fields) == 6 and (fields[2] == "?") != (fields[4] == "?"))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SettingsEntry(_Strict):
    algorithm: Algorithm = Algorithm.GRADIENT_BOOSTING
    target: _Column
    problem: Problem = Problem.AUTO
    train_on: TrainOn = TrainOn.NEWEST_OBJECT
    every_upload: bool = False
    hyperparameters: dict[str, str | int | float | bool] = Field(default_factory=dict, max_length=20)

    @field_validator("hyperparameters")
    @classmethod
    def _fits_a_parameter(cls, values: dict[str, Any]) -> dict[str, Any]:
        if len(json.dumps(values, separators=(",", ":"))) > PARAMETER_LENGTH_MAX:
            raise ValueError(f"hyperparameters take more than {PARAMETER_LENGTH_MAX} characters as JSON")
        return values

    def to_settings(self) -> TrainingSettings:
        return TrainingSettings(
            algorithm=self.algorithm,
            target=self.target,
            problem=self.problem,
            train_on=self.train_on,
            every_upload=self.every_upload,
            hyperparameters=tuple(sorted(self.hyperparameters.items())),
        )


class TenantEntry(_Strict):
    tenant_id: str = Field(max_length=63)
    tier: str = ""
    settings: SettingsEntry | None = None
    data_sets: dict[str, SettingsEntry] = Field(default_factory=dict, max_length=50)
    retrain: str | None = None

    @field_validator("data_sets")
    @classmethod
    def _names_fit(cls, data_sets: dict[str, SettingsEntry]) -> dict[str, SettingsEntry]:
        for name in data_sets:
            if not is_data_set(name):
                raise ValueError(f"{name!r} cannot name a data set")
        return data_sets

    @field_validator("retrain")
    @classmethod
    def _schedule_fits(cls, schedule: str | None) -> str | None:
        if schedule is not None and not _is_schedule(schedule):
            raise ValueError(f"{schedule!r} is no schedule: use rate(1 day) or cron(0 3 * * ? *)")
        return schedule

    def to_wish(self) -> Wish:
        assert self.settings is not None, "checked by the command"
        return Wish(
            tenant_id=self.tenant_id,
            tier=self.tier,
            settings=self.settings.to_settings(),
            data_sets={name: entry.to_settings() for name, entry in self.data_sets.items()},
            retrain_schedule=self.retrain,
        )


class TenantCommand(_Strict):
    action: Literal["ensure", "suspend", "resume"]
    tenant: TenantEntry

    @field_validator("tenant")
    @classmethod
    def _complete(cls, tenant: TenantEntry, info: Any) -> TenantEntry:
        if info.data.get("action") == "ensure" and tenant.settings is None:
            raise ValueError("settings are missing: at least the target column")
        return tenant


def tenant_view(tenant: Tenant) -> dict[str, Any]:
    """Return what the operator reads about a tenant."""
    return {
        "tenant_id": tenant.tenant_id,
        "state": tenant.state.value,
        "tier": tenant.tier,
        "bucket": tenant.bucket,
        "upload_to": f"s3://{tenant.bucket}/{tenant.root}incoming/<data set>/",
        "role_arn": tenant.role_arn,
        "model_group": tenant.model_group,
        "settings": _settings_view(tenant.settings),
        "data_sets": {name: _settings_view(settings) for name, settings in tenant.data_sets.items()},
        "retrain": tenant.retrain_schedule,
    }


def _settings_view(settings: TrainingSettings) -> dict[str, Any]:
    return {
        "algorithm": settings.algorithm.value,
        "target": settings.target,
        "problem": settings.problem.value,
        "train_on": settings.train_on.value,
        "every_upload": settings.every_upload,
        "hyperparameters": dict(settings.hyperparameters),
    }
