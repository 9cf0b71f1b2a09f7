"""Limits of DynamoDB made small: what ten thousand tenants reach in a month is reached in a short scenario."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from trainyard.adapters.memory import store as memory
from trainyard.application import store as application
from trainyard.application import waiting_room
from trainyard.application.store import Write

TRANSACTION_BYTES = 120 * 1024
"""In the place of 4 MB; three items that are changed without being read."""

PAGE_BYTES = 4 * 1024
"""In the place of 1 MB."""


@contextmanager
def narrow_limits(counts: Counter[str]) -> Iterator[None]:
    """Make the limits small while the context lasts, and count when a transaction is taken apart for its bytes."""
    fits = application.fits_one_transaction

    def counted(writes: Sequence[Write]) -> bool:
        together = fits(writes)
        counts["transaction taken apart"] += not together
        return together

    with (
        patch.object(application, "TRANSACTION_BYTES_MAX", TRANSACTION_BYTES),
        patch.object(waiting_room, "TRANSACTION_BYTES_MAX", TRANSACTION_BYTES),
        patch.object(memory, "TRANSACTION_BYTES_MAX", TRANSACTION_BYTES),
        patch.object(memory, "PAGE_BYTES_MAX", PAGE_BYTES),
        patch.object(waiting_room, "fits_one_transaction", counted),
    ):
        yield
