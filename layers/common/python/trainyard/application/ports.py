"""The ports of the use cases: small interfaces to the outside."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeVar

from trainyard.domain.arrivals import RetrainingAsked
from trainyard.domain.executions import StepFacts
from trainyard.domain.failures import FailureCause
from trainyard.domain.receipts import Prospect
from trainyard.domain.requests import Content, Outcome, Request, Submission
from trainyard.domain.tenants import Tenant
from trainyard.persistence.bell import Hint

A = TypeVar("A")
B = TypeVar("B")


class ParallelMap(Protocol):
    """Applies a function to each item, one after the other or concurrently, and returns the results in order."""

    def __call__(self, do: Callable[[A], B], each: Iterable[A], /) -> Iterable[B]: ...


class Tenants(Protocol):
    """The tenants' records."""

    def get(self, tenant_id: str) -> Tenant | None: ...

    def owners_of(self, objects: Sequence[tuple[str, str]]) -> list[Tenant | None]:
        """Return for each object (bucket, key) the tenant whose root contains it, or None."""
        ...


class TierQueues(Protocol):
    """The durable front door of the tiers."""

    def send(self, submissions: Sequence[Submission]) -> dict[str, str]:
        """Send submissions to the queues of their tiers; return request id → error for those not sent."""
        ...


AT_ONCE = timedelta(0)


class Retrainings(Protocol):
    """The uploads queue, for a retraining of all data sets that is split into one request per data set."""

    def ask(self, asked: Sequence[RetrainingAsked], *, spread: timedelta = AT_ONCE) -> None:
        """Send each as a message of its own, which arrives within `spread`; the same one always after the same
        time. Raises Throttled when not all were accepted, and all must be sent again.
        """
        ...


class DeadLetters(Protocol):
    """Keeps malformed messages, with the reason, for inspection by a person."""

    def keep(self, body: str, reason: str) -> None: ...


class TenantRoles(Protocol):
    """The roles of pooled tenants, which are created when they are first needed."""

    def make(self, tenant_id: str) -> None:
        """Create the role. Idempotent; raises Throttled when the call must be repeated."""
        ...


class Bell(Protocol):
    """Wakes the dispatcher early; correctness does not depend on it."""

    def ring(self, hints: Sequence[Hint] = ()) -> None:
        """Ring, and name the requests that can go now; without any, anything may have changed."""
        ...

    def ring_at(self, when: datetime, now: datetime, hints: Sequence[Hint] = ()) -> None:
        """Ring so at a time no more than 15 minutes off, give or take a second."""
        ...


class InputData(NamedTuple):
    """What a run trains on."""

    size_bytes: int
    first_bytes: bytes = b""
    """Of the only object, if they could be read (domain/file_types.py)."""
    digest: str = ""
    """Of all objects (domain/unchanged.py, `data_digest`); "" where it is not known."""


class LastStatistics(NamedTuple):
    """The statistics of the columns of a data set that its last training left."""

    uri: str
    columns: tuple[str, ...] = ()
    """The columns that it learnt from; none where they cannot be read."""


class DataSets(Protocol):
    """The tenants' data."""

    def content_of(self, tenant: Tenant, data_set: str) -> Content | None:
        """Return the newest object of a data set that is data, or None when there is none.

        Raises Refused when it has more objects than can be listed.
        """
        ...

    def statistics_of(self, tenant: Tenant, request: Request, trained: str) -> LastStatistics | None:
        """Return the statistics that the training of a request left, `trained`, of the same data set; None where
        they are not there.
        """
        ...

    def has_model(self, tenant: Tenant, request: Request, trained: str) -> bool:
        """Tell whether the archive of the model that another request of the data set trained, `trained`, is still
        there; False also where the storage does not answer.
        """
        ...

    def digest(self, tenant: Tenant, data_set: str, content: Content) -> str:
        """Return what a training would read now, with `content` as the newest object (domain/unchanged.py,
        `data_digest`).

        Raises Refused when it has more objects than can be listed.
        """
        ...

    def missing(self, tenant: Tenant, data_set: str, names: Sequence[str]) -> list[str]:
        """Return which of some files of a data set's folder are not there, or are empty.

        Raises Refused when it has more objects than can be listed.
        """
        ...

    def read_manifest(self, content: Content) -> tuple[str, ...]:
        """Return the names of the files in an object that ends a batch; raises Refused, naming what is wrong."""
        ...

    def rows_in(self, content: Content) -> int:
        """Return how many lines an object has, from its first bytes where it is large; 0 where that says nothing,
        as of compressed files.
        """
        ...

    def names(self, tenant: Tenant) -> list[str]:
        """Return the data sets that hold any object; raises Malformed when there are more than can be listed."""
        ...

    def write_manifest(self, tenant: Tenant, request: Request) -> InputData:
        """Write the manifest of the objects that the run trains on.

        Raises Refused when there is no data, or more than can be listed; DataUnavailable when the storage does not
        answer in time, or denies access.
        """
        ...


class Annotations(Protocol):
    def annotate(self, arn: str, properties: Mapping[str, str]) -> None:
        """Add properties to a model package of the registry, by name. Idempotent."""
        ...


class Executions(Protocol):
    """SageMaker's pipeline executions."""

    def start(self, *, name: str, token: str, description: str, parameters: dict[str, str]) -> str:
        """Start the shared pipeline for the parameters' number of training types, and return the execution's ARN.
        Idempotent by `token`.

        Its status events carry the description.

        Raises Throttled, StartDelayed, StartInvalid or OutcomeUnknown.
        """
        ...

    def status(self, execution_arn: str) -> str:
        """Return SageMaker's status of an execution; raises ExecutionGone when it does not exist."""
        ...

    def running(self, *, since: datetime) -> dict[str, str]:
        """Return ARN → display name of the pipelines' running executions that were started since a time."""
        ...

    def started(self, *, since: datetime) -> dict[str, str]:
        """Return display name → ARN of all executions that were started since a time."""
        ...

    def stop(self, execution_arn: str) -> None:
        """Ask an execution to stop; its end comes as a status event. Idempotent."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionReport:
    """What SageMaker knows of a finished execution."""

    steps: tuple[StepFacts, ...] = ()
    started_at: datetime | None = None
    """Of its first step."""
    ended_at: datetime | None = None
    """Of its last."""
    failed_step: str | None = None
    failure: str | None = None
    cause: FailureCause | None = None
    """Of the failure; None where it follows from the words of `failure` alone."""
    stopped_early: bool = False
    first_trial: float | None = None
    """Of a tuning: the score of its first trial, which has the hyperparameters of before."""
    """Whether SageMaker has stopped its training by itself, which is the failure."""
    model_package_arn: str | None = None
    """Of the model that it registered."""
    status: str | None = None
    """The execution's, in SageMaker's words; None where its steps alone show that it has ended."""


class ExecutionReports(Protocol):
    def read(self, execution_arn: str) -> ExecutionReport:
        """Return what is known of an execution; what is missing is None, and never guessed.

        Raises ExecutionGone when SageMaker does not know it.
        """
        ...

    def selected(self, execution_arn: str) -> str | None:
        """Return the instance type that SageMaker has selected for an execution's training; None if not yet.

        Raises ExecutionGone when SageMaker does not know the execution.
        """
        ...


class Results(Protocol):
    """What a run left in the tenant's root."""

    def read(self, tenant: Tenant, request: Request) -> Outcome:
        """Return what the run's reports say; fields stay None where a report is missing or cannot be read."""
        ...


class Receipts(Protocol):
    """The status object beside the tenant's data."""

    def write(self, tenant: Tenant, request: Request, now: datetime, prospect: Prospect | None = None) -> bool:
        """Write the state of a request for its tenant, and what it can expect while it waits; tell whether that
        was new. Never replaces a later state with an earlier one.
        """
        ...


class Announcements(Protocol):
    """Events on the application's own bus."""

    def announce(self, request: Request) -> None: ...

    def tell(self, what: str, values: Mapping[str, Any]) -> None:
        """Publish that a "budget" threshold was reached, that an hour was above the usual "pace", or that a
        deadline is at risk ("deadline at risk") or will be missed ("deadline missed").
        """
        ...
