"""Captured inputs of a data set, compared with the data of its last training."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from trainyard.domain.captured import CapturedDrift
from trainyard.domain.tenants import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What was captured since a training, and how far it has moved."""

    request_id: str
    """The training with whose data it is compared."""
    objects: int
    unreadable: int
    """Lines that hold no row."""
    drift: CapturedDrift | None
    """None where the training has left no statistics, or nothing was captured since."""
    problem: str = ""
    """Why nothing can be said; "" if something is."""


class CapturedInputs(Protocol):
    def compare(self, tenant: Tenant, data_set: str, *, trained: str, since: datetime) -> Captured:
        """Return how the inputs that were captured since a time have moved from those of a training.

        Reads a bounded number of the newest objects. Raises Throttled and OutcomeUnknown.
        """
        ...
