"""What the HTTP API takes and answers about changes of settings."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainyard.application.api.settings_changes import ChangeState, ChangeStatus
from trainyard.contracts.api import DataSet
from trainyard.contracts.overrides import AlgorithmName, Hyperparameters
from trainyard.contracts.retraining import RetrainingValues
from trainyard.contracts.tenants import Column, Split
from trainyard.domain.deadlines import parse_ready_by
from trainyard.domain.errors import Refused
from trainyard.domain.receipts import without_account_number
from trainyard.domain.requests import PRIORITY_MAX
from trainyard.domain.schedules import LENGTH_MAX, check_is_due, check_pace, parse_schedule
from trainyard.domain.tenants import Problem, TrainOn

PACE = timedelta(hours=1)
"""Between two trainings that a tenant schedules itself."""


class SettingsValues(BaseModel):
    """Settings that are to change; those that are not given stay as they are (docs/tenants.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Annotated[Column | None, Field(description="The column to predict")] = None
    algorithm: AlgorithmName | None = None
    hyperparameters: Annotated[Hyperparameters | None, Field(description="In place of all that are set")] = None
    problem: Problem | None = None
    split: Annotated[Split | None, Field(description="`auto`, `random`, `group:COLUMN` or `time:COLUMN`")] = None
    train_on: TrainOn | None = None
    every_upload: Annotated[bool | None, Field(strict=True)] = None
    ready_by: Annotated[
        str | None, Field(max_length=64, description="`06:00 Europe/Zurich`; empty for no deadline")
    ] = None
    priority: Annotated[int | None, Field(ge=0, le=PRIORITY_MAX, strict=True)] = None
    retraining: Annotated[
        RetrainingValues | None, Field(description="In place of all rules that are set; {} for none")
    ] = None
    schedule: Annotated[
        str | None,
        Field(
            max_length=LENGTH_MAX,
            description="When a data set is trained on again: `cron(0 3 * * ? *) Europe/Zurich`; empty for the "
            "tenant's schedule",
        ),
    ] = None

    @field_validator("schedule")
    @classmethod
    def _is_due_now_and_then(cls, text: str | None) -> str | None:
        if text:
            try:
                schedule, now = parse_schedule(text), datetime.now(UTC)
                check_is_due(schedule, now)
                check_pace(schedule, now, PACE)
            except Refused as refusal:
                raise ValueError(str(refusal)) from None
        return text

    @field_validator("ready_by")
    @classmethod
    def _is_time_and_zone(cls, ready_by: str | None) -> str | None:
        if ready_by:
            try:
                parse_ready_by(ready_by)
            except Refused as refusal:
                raise ValueError(str(refusal)) from None
        return ready_by


class SettingsBody(BaseModel):
    """What is to change of the settings of a data set, or of those of the tenant, which hold for all others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_set: Annotated[DataSet | None, Field(description="Null for the tenant's")] = None
    changes: SettingsValues | None = None
    remove: Annotated[
        bool, Field(strict=True, description="The data set is to have no settings of its own any more")
    ] = False

    @model_validator(mode="after")
    def _says_what(self) -> "SettingsBody":
        changes = self.changes is not None and bool(self.changes.model_fields_set)
        if changes == self.remove:
            raise ValueError("give either changes, with at least one setting, or remove: true")
        if self.data_set is None and self.changes is not None and self.changes.schedule is not None:
            raise ValueError("data_set: name the one that is to have a schedule of its own")
        if self.remove and self.data_set is None:
            raise ValueError("data_set: name the one whose settings are to be removed")
        return self

    def payload(self) -> dict[str, Any]:
        """Return what the state machine takes of it (contracts/tenants.py)."""
        values = self.changes.model_dump(mode="json", exclude_none=True) if self.changes else None
        if self.data_set is None:
            return values or {}
        return {"data_set_changes": {self.data_set: values}}

    @property
    def algorithms(self) -> list[str]:
        return [self.changes.algorithm] if self.changes and self.changes.algorithm else []


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ChangeBegun(_Answer):
    """A change that was begun."""

    change_id: str


class ChangeAnswer(_Answer):
    """A change of settings: it takes some seconds."""

    state: ChangeState
    reason: Annotated[str | None, Field(description="Why it failed")]


def change_of(status: ChangeStatus) -> ChangeAnswer:
    return ChangeAnswer(
        state=status.state, reason=without_account_number(status.reason) if status.reason else None
    )
