"""Reduced limits of DynamoDB: short scenarios reach what ten thousand tenants reach in a month."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from testing import memory_store as memory
from trainyard.application.scheduling import admission, completion, dispatch, enlistment
from trainyard.application.scheduling.dispatch import PassRecord
from trainyard.contracts import decisions
from trainyard.persistence import store, tenant_queues
from trainyard.persistence.store import Write, bytes_written

TRANSACTION_BYTES = 120 * 1024
"""Instead of 4 MB; enough for three items that are changed without being read."""

ACTIONS = 16
"""Instead of 100; enough for the end of one execution and everything that is written with it."""

ITEM_BYTES = 8 * 1024
PASS_BYTES = 1500
"""Instead of 400 KB, and of the 300,000 bytes up to which the record of a pass is stored."""

PAGE_BYTES = 4 * 1024
"""Instead of 1 MB."""


@contextmanager
def narrow_limits(counts: Counter[str], *, bytes_too: bool) -> Iterator[None]:
    """Reduce the limits inside of a `with` statement, and count where the service stays below one of them.

    These are the limits of a transaction's actions, of an item and of a page; that of a transaction's bytes only
    if `bytes_too`, because it is reached before the one of the actions.
    """
    transaction_bytes = TRANSACTION_BYTES if bytes_too else store.TRANSACTION_BYTES_MAX
    fits = store.fits_one_transaction
    encode = decisions.encode_pass

    def counted(writes: Sequence[Write]) -> bool:
        together = fits(writes)
        counts["transaction of too many actions"] += len(writes) > ACTIONS
        counts["transaction of too many bytes"] += sum(map(bytes_written, writes)) > transaction_bytes
        return together

    def encoded(record: PassRecord) -> bytes:
        values = encode(record)
        counts["item too large"] += len(values) > PASS_BYTES
        return values

    limits: list[tuple[Any, str, Any]] = [
        (memory, "ITEM_BYTES_MAX", ITEM_BYTES),
        (memory, "PAGE_BYTES_MAX", PAGE_BYTES),
        (dispatch, "KEPT_BYTES_MAX", PASS_BYTES),
        (decisions, "encode_pass", encoded),
    ]
    limits += [(m, "ACTIONS_MAX", ACTIONS) for m in (memory, store, enlistment, completion, tenant_queues)]
    limits += [(m, "TRANSACTION_BYTES_MAX", transaction_bytes) for m in (memory, store, enlistment)]
    limits += [(m, "fits_one_transaction", counted) for m in (enlistment, admission, completion, tenant_queues)]
    with ExitStack() as stack:
        for module, name, value in limits:
            stack.enter_context(patch.object(module, name, value))
        yield
