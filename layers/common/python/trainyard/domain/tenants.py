"""The tenant's record: from it, and from the policy, every parameter of a run derives."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from trainyard.domain.algorithms import family_of
from trainyard.domain.requests import Overrides
from trainyard.domain.retraining import RetrainingSettings
from trainyard.domain.serving import ServingSettings


class TenantState(StrEnum):
    CREATING = "CREATING"
    """Some of what a tenant needs may be missing; nothing is accepted yet."""
    ACTIVE = "ACTIVE"
    """Uploads are accepted."""
    SUSPENDED = "SUSPENDED"
    """Uploads are refused with a reason; waiting requests are not admitted."""
    DELETING = "DELETING"
    """Some of what the tenant had may be gone; nothing is accepted any more."""
    DELETED = "DELETED"
    """Nothing is left but this record."""


class RoleState(StrEnum):
    MADE = "MADE"
    NONE = "NONE"
    """Pooled tenants only: created at the tenant's next request."""
    REMOVING = "REMOVING"
    """Pooled tenants only: being removed because the tenant was idle for long."""


class Change(StrEnum):
    """The changes of a tenant; each has a state machine of its own."""

    CREATE = "create"
    UPDATE = "update"
    SUSPEND = "suspend"
    RESUME = "resume"
    MOVE = "move"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A change of the tenant that is in progress, or failed half-way."""

    change: Change
    run: str
    """ARN of the state machine's execution."""
    failure: str | None = None
    """The error, once it has failed."""
    begun_at: datetime | None = None
    was_paused: bool = False
    """Of a move: whether an operator had paused the tenant before."""


class Problem(StrEnum):
    AUTO = "auto"
    """Derived from the target column: text or few distinct whole numbers are classes."""
    CLASSIFICATION = "classification"
    REGRESSION = "regression"


class TrainOn(StrEnum):
    NEWEST_OBJECT = "newest-object"
    """A run trains only on the newest upload."""
    WHOLE_PREFIX = "whole-prefix"
    """A run trains on everything under the data set's prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How a data set is trained on."""

    algorithm: str
    """Of the catalogue."""
    target: str
    """The column to predict."""
    problem: Problem = Problem.AUTO
    split: str = "auto"
    """Which rows are held out to test on: "auto", "random", "group:COLUMN" or "time:COLUMN"."""
    train_on: TrainOn = TrainOn.NEWEST_OBJECT
    every_upload: bool = False
    """Whether every upload is trained on, with its own object version, instead of only the newest."""
    hyperparameters: tuple[tuple[str, str | int | float | bool], ...] = ()
    ready_by: str = ""
    """Time of day and zone at which the model of an upload is to be ready, such as "06:00 Europe/Zurich"; "" for
    no deadline."""
    priority: int = 0
    """Of its requests among those of its tenant, from 0 to PRIORITY_MAX."""
    serving: ServingSettings = field(default_factory=ServingSettings)
    """How the models that are trained are served."""
    schedule: str = ""
    """When a data set is trained on again, instead of by the tenant's schedule (domain/schedules.py)."""
    retraining: RetrainingSettings = field(default_factory=RetrainingSettings)
    """Which uploads are enough for a training, and how often it trains."""
    transform: str = ""
    """When stored rows are predicted: an EventBridge Scheduler expression; "" for on demand alone."""


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
    """When all data sets without a schedule of their own are trained on again (domain/schedules.py)."""
    role: RoleState = RoleState.MADE
    role_since: datetime | None = None
    """When the role of a pooled tenant got its state."""
    key_arn: str | None = None
    """The tenant's own KMS key, by which its results are encrypted; None for the deployment's."""
    account_id: str | None = None
    """The tenant's own AWS account, which may put data and read results; None for no such access."""
    buyer_account: str | None = None
    """The AWS account by which the tenant bought the service on AWS Marketplace; None if it did not."""
    license_arn: str | None = None
    """The ARN of the licence from that purchase."""
    tags: tuple[str, ...] = ()
    """Words by which operators group tenants, for waves."""
    created_at: datetime | None = None
    """Tokens that are older belong to users of an earlier tenant of the same id; None where that is not known."""
    watched_from: datetime | None = None
    """Older objects at its location are ignored by the search for lost uploads: copies or leftovers."""
    operation: Operation | None = None
    settled_by: str | None = None
    """The run that carried out the last change; its last step may be repeated."""
    revision: int = 0
    """Counts the writes of the record; a write succeeds only for the revision that was read."""

    @property
    def pooled(self) -> bool:
        """Tell whether the tenant's data lies below a prefix of the shared bucket."""
        return self.root != ""

    @property
    def own_schedules(self) -> dict[str, str]:
        """Return data set → schedule of those that are trained on again by a schedule of their own."""
        return {name: settings.schedule for name, settings in self.data_sets.items() if settings.schedule}

    @property
    def transform_schedules(self) -> dict[str, str]:
        """Return data set → expression of those whose stored rows are predicted on a schedule."""
        return {name: settings.transform for name, settings in self.data_sets.items() if settings.transform}

    def settings_for(self, data_set: str, overrides: Overrides | None = None) -> TrainingSettings:
        """Return the settings of a data set, or of a single training of it."""
        settings = self.data_sets.get(data_set, self.settings)
        return settings if overrides is None else _overridden(settings, overrides)

    def owns(self, uri: str) -> bool:
        """Tell whether an S3 URI lies inside the tenant's root."""
        return uri.startswith(f"s3://{self.bucket}/{self.root}")


def _overridden(settings: TrainingSettings, overrides: Overrides) -> TrainingSettings:
    algorithm = overrides.algorithm or settings.algorithm
    # Those of another algorithm mean nothing to this one.
    is_same = family_of(algorithm) == family_of(settings.algorithm)
    given = dict(settings.hyperparameters if is_same else ()) | dict(overrides.hyperparameters)
    return replace(settings, algorithm=algorithm, hyperparameters=tuple(sorted(given.items())))
