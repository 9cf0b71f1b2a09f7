"""What the use cases need from the outside; each port small, and only what is used."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from trainyard.domain.admission import Decision, Snapshot
from trainyard.domain.policy import Policy
from trainyard.domain.requests import Content, Outcome, Request, State, Submission
from trainyard.domain.tenants import Tenant


class Tenants(Protocol):
    """The tenants' records."""

    def get(self, tenant_id: str) -> Tenant | None: ...

    def owner_of(self, bucket: str, key: str) -> Tenant | None:
        """Return the tenant in whose root the object lies, by look-up, or None."""
        ...


class Policies(Protocol):
    """The policy in force."""

    def current(self) -> Policy: ...


class TierQueues(Protocol):
    """The durable front door of the tiers."""

    def send(self, submissions: Sequence[Submission]) -> set[str]:
        """Send them to the queues of their tiers; return the request ids that could not be sent."""
        ...


class DeadLetters(Protocol):
    """Where messages go that make no sense, with the reason, for a person to look at."""

    def keep(self, body: str, reason: str) -> None: ...


class Enlistment(StrEnum):
    """What enlisting did."""

    QUEUED = "QUEUED"
    """It waits in its tenant queue."""
    REPLACED = "REPLACED"
    """It waits in the place of an older upload of its data set."""
    OUTDATED = "OUTDATED"
    """A newer upload of its data set waits already; it is superseded."""
    DUPLICATE = "DUPLICATE"
    """It was enlisted before; nothing changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlisted:
    kind: Enlistment
    request: Request
    superseded: Request | None = None
    """The request whose place was taken, or, when OUTDATED, the request itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    waiting: int
    oldest_arrived_at: datetime | None
    """Of the requests at the heads of their queues; None when nothing waits."""


class WaitingRoom(Protocol):
    """The tenant queues, the ledger and the requests' states, which change together or not at all."""

    def enlist(self, submission: Submission, policy: Policy, now: datetime) -> Enlisted:
        """Queue the submission, or merge it with a waiting one of its data set. Idempotent."""
        ...

    def snapshot(self, policy: Policy, now: datetime) -> Snapshot:
        """Return the ledger and the requests that are due, consistently read."""
        ...

    def commit(self, admissions: Sequence[Decision], snapshot: Snapshot, policy: Policy, now: datetime) -> None:
        """Admit all of them and take their slots in one transaction.

        Raises Conflict when anything they rest on has changed, or a limit would be exceeded.
        """
        ...

    def requeue(self, request: Request, *, due_at: datetime, reason: str, now: datetime) -> list[Request]:
        """Put an ADMITTED request back, and release its slot; nothing when it is not ADMITTED any more.

        If another upload took its data set's place meanwhile, the newer of the two keeps it, and the other is
        SUPERSEDED. Returns the requests that changed, as they are now.
        """
        ...

    def mark_running(self, request_id: str, attempt: int, execution_arn: str, now: datetime) -> bool:
        """Record that the execution of this attempt runs; False when the request is past that."""
        ...

    def finish(
        self, request: Request, state: State, *, reason: str | None, outcome: Outcome, now: datetime
    ) -> bool:
        """End this attempt and release its slot in one transaction; False when it had ended before."""
        ...

    def cancel(self, request: Request, now: datetime) -> bool:
        """Take a QUEUED request back; False when it does not wait any more."""
        ...

    def backlog(self, policy: Policy) -> dict[str, Backlog]:
        """Return tier → how much waits there, due or not."""
        ...


class Pause(Protocol):
    """The switch that halts all admissions."""

    def set_paused(self, paused: bool) -> None:
        """Pause or resume; a pass that decided before holds no longer. Idempotent."""
        ...


class Requests(Protocol):
    """The record of each request."""

    def get(self, request_id: str) -> Request | None: ...

    def add_rejected(self, request: Request) -> bool:
        """Keep a request that was refused at arrival; False when it is known already."""
        ...

    def note_outcome(self, request_id: str, attempt: int, outcome: Outcome) -> bool:
        """Add what is known of a running attempt's outcome; False for another attempt."""
        ...

    def starting_since(self, before: datetime) -> list[Request]:
        """Return the requests that were ADMITTED before a time and are not known to run."""
        ...


class Bell(Protocol):
    """Wakes the dispatcher; nothing depends on it."""

    def ring(self) -> None: ...

    def ring_at(self, when: datetime, now: datetime) -> None:
        """Ring again at a time no more than 15 minutes off, give or take a second."""
        ...


class DataSets(Protocol):
    """The tenants' data."""

    def content_of(self, tenant: Tenant, data_set: str) -> Content | None:
        """Return the newest object of a data set, or None when there is none."""
        ...

    def names(self, tenant: Tenant) -> list[str]:
        """Return the data sets that hold any object."""
        ...

    def write_manifest(self, tenant: Tenant, request: Request) -> int:
        """Write down what the run trains on, and return its size in bytes.

        Raises Refused when there is nothing.
        """
        ...


class Executions(Protocol):
    """SageMaker's pipeline executions."""

    def start(self, *, name: str, token: str, parameters: dict[str, str]) -> str:
        """Start the shared pipeline, and return the execution's ARN. Idempotent by `token`.

        Raises Throttled, StartDelayed, StartInvalid or OutcomeUnknown.
        """
        ...

    def find(self, name: str, *, since: datetime) -> str | None:
        """Return the ARN of the execution of that display name, started since a time, or None."""
        ...

    def stop(self, execution_arn: str) -> None:
        """Ask an execution to stop; its end comes as a status event. Idempotent."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionReport:
    """What SageMaker knows of a finished execution."""

    cost_usd: Decimal | None
    failed_step: str | None
    failure: str | None


class ExecutionReports(Protocol):
    def read(self, execution_arn: str) -> ExecutionReport: ...


class Results(Protocol):
    """What a run left in the tenant's root."""

    def read(self, tenant: Tenant, request: Request) -> Outcome:
        """Return what the run's reports say; fields stay None where a report is missing."""
        ...


class Receipts(Protocol):
    """The status object beside the tenant's data."""

    def write(self, tenant: Tenant, request: Request, now: datetime) -> None:
        """Tell the tenant how its request stands; never replaces a later state by an earlier one."""
        ...


class Announcements(Protocol):
    """Events on the application's own bus."""

    def announce(self, request: Request) -> None: ...
