"""The tenant's record: from it, and from the policy, every parameter of a run derives."""

from dataclasses import dataclass, field
from enum import StrEnum


class TenantState(StrEnum):
    CREATING = "CREATING"
    """Some of what a tenant needs may be missing; nothing is accepted yet."""
    ACTIVE = "ACTIVE"
    """Uploads are accepted."""
    SUSPENDED = "SUSPENDED"
    """Uploads are refused, and told so."""


class Algorithm(StrEnum):
    GRADIENT_BOOSTING = "gradient-boosting"
    """Histogram gradient boosting: the default; takes missing values and bent relations."""
    LINEAR = "linear"
    """Logistic or ridge regression: fast, and readable coefficients."""


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

    algorithm: Algorithm
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

    def settings_for(self, data_set: str) -> TrainingSettings:
        return self.data_sets.get(data_set, self.settings)

    def owns(self, uri: str) -> bool:
        """Tell whether an S3 URI lies inside the tenant's root."""
        return uri.startswith(f"s3://{self.bucket}/{self.root}")
