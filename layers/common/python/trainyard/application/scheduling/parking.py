"""Parking: queues in which nothing can start until something changes are out of the way of passes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from trainyard.domain.errors import Conflict
from trainyard.domain.executions import month_of
from trainyard.domain.policy import Policy
from trainyard.domain.queues import TenantQueue
from trainyard.domain.scheduling import Parked
from trainyard.persistence.ledger import LEDGER, something_waits
from trainyard.persistence.store import Update, Write, fits_one_transaction
from trainyard.persistence.tables import Tables
from trainyard.persistence.tenant_queues import parked_under, refile


@dataclass(frozen=True, slots=True, kw_only=True)
class Parking:
    tables: Tables

    def park(
        self,
        queues: Iterable[Parked],
        policy: Policy,
        now: datetime,
        month: str,
        *,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> None:
        """Park queues that cannot start anything until something changes, so that passes skip them."""
        for parked in queues:
            if out_of_time():
                return
            queue = replace(parked.queue, parked_for=parked.reason.value)
            under = parked_under(policy, month, parked)
            with suppress(Conflict):  # it has changed meanwhile, and will be checked again
                self.tables.store.transact(refile(parked.queue, queue, now, parked_under=under))

    def unpark(self, policy: Policy, now: datetime, *, out_of_time: Callable[[], bool] = lambda: False) -> int:
        """Unpark queues that may start something again (`TenantQueues.to_unpark`); return how many."""
        ledger = self.tables.ledger.read()
        policy = policy.at(now, ledger.epoch)
        month = max(ledger.month, month_of(now))
        count = 0
        for queues in _parts(self.tables.queues.to_unpark(policy, ledger, month, now), now):
            if out_of_time():
                break
            count += self._unpark(queues, now)
        return count

    def _unpark(self, queues: Sequence[TenantQueue], now: datetime) -> int:
        """Unpark queues together or, when one of them has changed meanwhile, each by itself; return how many."""
        writes = [write for queue in queues for write in refile(queue, replace(queue, parked_for=None), now)]
        try:
            self.tables.store.transact([*writes, something_waits()])
        except Conflict:  # another pass, or an end, was faster
            return sum(self._unpark([queue], now) for queue in queues) if len(queues) > 1 else 0
        return len(queues)


def _parts(queues: Iterable[TenantQueue], now: datetime) -> Iterator[list[TenantQueue]]:
    """Yield queues, as many at once as can be written in one transaction with the ledger."""
    part: list[TenantQueue] = []
    writes: list[Write] = [Update(LEDGER)]
    for queue in queues:
        changes = refile(queue, queue, now)
        if part and not fits_one_transaction([*writes, *changes]):
            yield part
            part, writes = [], [Update(LEDGER)]
        part.append(queue)
        writes += changes
    if part:
        yield part
