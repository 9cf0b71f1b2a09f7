"""Bulk actions: the same done to many requests, one after the other, with progress and an abort."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from trainyard.domain.requests import State

REQUESTS_MAX = 2_000
"""Of one action: the function that carries it out has 15 minutes."""

FAILURES_KEPT = 50
"""Requests of an action of which it is kept why nothing could be done; all are counted."""

STALLED_AFTER = timedelta(minutes=4)
"""Longer than one request takes, with all that is tried again."""

OF_SERVICE = "_service"
"""Stands for the owner of an action on requests of several tenants; cannot be the id of a tenant."""


class BulkKind(StrEnum):
    CANCEL = "cancel"
    """Cancel what waits, and stop what runs."""
    RETRY = "retry"
    """Ask for another training after one that ended without a model."""


class BulkState(StrEnum):
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    """Something was done, or could not be done, to each of the requests."""
    ABORTED = "ABORTED"
    """Nothing is done to the requests that had not had their turn."""


UNFINISHED = (BulkState.WAITING, BulkState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request to which it could not be done."""

    request_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkAction:
    action_id: str
    """Sorts by the time at which it was asked for."""
    owner: str
    """The tenant whose requests they are, or OF_SERVICE."""
    kind: BulkKind
    by: str
    why: str
    created_at: datetime
    progress_at: datetime
    """When it was asked for, or when a request last had its turn."""
    only: State | None = None
    """Requests that are in another state when they have their turn are left as they are; None for any state."""
    total: int
    """Requests that it is about."""
    is_complete: bool = True
    """Whether these are all requests that were selected: there may have been more than REQUESTS_MAX."""
    state: BulkState = BulkState.WAITING
    done: int = 0
    """Requests that have had their turn."""
    failed: int = 0
    """Of those, the ones to which it could not be done."""
    failures: tuple[Failure, ...] = ()
    """The first FAILURES_KEPT of them."""
    ended_at: datetime | None = None

    def stalls(self, now: datetime) -> bool:
        """Tell whether nothing has happened to it for so long that whatever carried it out has gone."""
        return not self.is_over and now - self.progress_at > STALLED_AFTER

    @property
    def is_over(self) -> bool:
        return self.state not in UNFINISHED
