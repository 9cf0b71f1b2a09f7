"""The tenant's record: from it, and from the policy, every parameter of a run derives."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class TenantState(StrEnum):
    CREATING = "CREATING"
    """Some of what a tenant needs may be missing; nothing is accepted yet."""
    ACTIVE = "ACTIVE"
    """Uploads are accepted."""
    SUSPENDED = "SUSPENDED"
    """Uploads are refused, and told so; what waits is not admitted."""
    DELETING = "DELETING"
    """Some of what the tenant had may be gone; nothing is accepted any more."""
    DELETED = "DELETED"
    """Nothing is left but this record."""


class RoleState(StrEnum):
    MADE = "MADE"
    NONE = "NONE"
    """Of a pooled tenant: made at its next request."""
    REMOVING = "REMOVING"
    """Of a pooled tenant that was idle for long."""


class Change(StrEnum):
    """What may be done to a tenant; each by a state machine of its own."""

    CREATE = "create"
    UPDATE = "update"
    SUSPEND = "suspend"
    RESUME = "resume"
    MOVE = "move"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A change of the tenant that is under way, or failed half-way."""

    change: Change
    run: str
    """ARN of the state machine's execution."""
    failure: str | None = None
    """What failed, once it has."""
    begun_at: datetime | None = None
    was_paused: bool = False
    """Of a move: whether an operator had paused the tenant before."""


class Problem(StrEnum):
    AUTO = "auto"
    """Decided by the target column: text or few whole numbers are classes."""
    CLASSIFICATION = "classification"
    REGRESSION = "regression"


class TrainOn(StrEnum):
    NEWEST_OBJECT = "newest-object"
    """A run trains on the newest upload alone."""
    WHOLE_PREFIX = "whole-prefix"
    """A run trains on everything below the data set's prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How a data set is trained on."""

    algorithm: str
    """Of the catalogue."""
    target: str
    """The column to predict."""
    problem: Problem = Problem.AUTO
    train_on: TrainOn = TrainOn.NEWEST_OBJECT
    every_upload: bool = False
    """Whether every upload is trained on, each on its own object version, instead of the newest alone."""
    hyperparameters: tuple[tuple[str, str | int | float | bool], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One customer of the service."""

    tenant_id: str
    state: TenantState
    tier: str
    bucket: str
    root: str
    """The prefix of everything that is the tenant's: "" in its own bucket, else it ends in "/"."""
    role_arn: str
    model_group: str
    settings: TrainingSettings
    data_sets: dict[str, TrainingSettings] = field(default_factory=dict)
    """Settings of data sets that differ from `settings`."""
    retrain_schedule: str | None = None
    """An EventBridge Scheduler expression, such as "rate(1 day)"."""
    role: RoleState = RoleState.MADE
    role_since: datetime | None = None
    """Since when the role of a pooled tenant is so."""
    key_arn: str | None = None
    """The tenant's own KMS key, by which its results are encrypted; None for the deployment's."""
    account_id: str | None = None
    """The tenant's own AWS account, which may put data and read results; None for no such access."""
    buyer_account: str | None = None
    """The AWS account by which the tenant bought the service on AWS Marketplace; None if it did not."""
    license_arn: str | None = None
    """The licence that goes with it."""
    watched_from: datetime | None = None
    """Since when its uploads are looked for where it lies now: what is older was copied there, or is nobody's."""
    operation: Operation | None = None
    settled_by: str | None = None
    """The run that carried out the last change; its last step may be repeated."""
    revision: int = 0
    """Counts the writes of the record; a write holds only for the revision that was read."""

    @property
    def pooled(self) -> bool:
        """Tell whether the tenant's data lies below a prefix of the shared bucket."""
        return self.root != ""

    def settings_for(self, data_set: str) -> TrainingSettings:
        return self.data_sets.get(data_set, self.settings)

    def owns(self, uri: str) -> bool:
        """Tell whether an S3 URI lies inside the tenant's root."""
        return uri.startswith(f"s3://{self.bucket}/{self.root}")
