"""The scheduler: the tables, and the transactions that change them, as use cases need them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from trainyard.application.scheduling.admission import Admitter
from trainyard.application.scheduling.completion import Completer
from trainyard.application.scheduling.enlistment import Enlister
from trainyard.application.scheduling.operations import Operations
from trainyard.application.scheduling.parking import Parking
from trainyard.persistence.store import Store
from trainyard.persistence.tables import Tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """Each transaction is in one of five files: a request is enlisted, admitted, completed or operated on, or its
    queue is parked.
    """

    tables: Tables
    enlister: Enlister
    admitter: Admitter
    completer: Completer
    operations: Operations
    parking: Parking

    @classmethod
    def over(cls, store: Store, *, retention: timedelta, backoff: Callable[[int], None]) -> "Scheduler":
        """Return the scheduler over a store.

        `retention` is how long a request is kept after its end; `backoff` waits before the given further try of a
        contended write.
        """
        tables = Tables.over(store, retention=retention, backoff=backoff)
        return cls(
            tables=tables,
            enlister=Enlister(tables=tables),
            admitter=Admitter(tables=tables),
            completer=Completer(tables=tables),
            operations=Operations(tables=tables),
            parking=Parking(tables=tables),
        )
