"""Waiting receipts: every few minutes, the receipts of waiting requests say why they wait, and what to expect."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice

from trainyard.application.ports import ParallelMap, Receipts, Tenants
from trainyard.application.scheduling.explain import Explain
from trainyard.domain.receipts import Prospect
from trainyard.domain.requests import Request, State
from trainyard.domain.scheduling import Reason

REQUESTS_MAX = 50
"""Of a tier, that receipts are written for: the next ones to start, and as many of those that passes skip."""

WRITTEN_TOGETHER = 24
"""Receipts that are written between two checks of the remaining time."""


@dataclass(slots=True, kw_only=True)
class WaitingReceiptsRun:
    """What one run wrote."""

    written: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Request → error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingReceipts:
    explain: Explain
    tenants: Tenants
    receipts: Receipts
    parallel_map: ParallelMap = map

    def write(self, now: datetime, *, out_of_time: Callable[[], bool] = lambda: False) -> WaitingReceiptsRun:
        """Write the receipts of waiting requests in which something has changed. Safe at any time.

        A receipt that cannot be written does not keep others from being written.
        """
        run = WaitingReceiptsRun()
        if out_of_time():
            return run
        # 1. What each of them can expect: first those that are next, then those that passes skip.
        prospects = dict(self._next(now))
        for tier in self.explain.policies.current().tiers:
            for request_id, prospect in islice(self._set_aside(tier.name), REQUESTS_MAX):
                prospects.setdefault(request_id, prospect)
        # 2. Those that still wait.
        requests = {r.request_id: r for r in self.explain.scheduler.tables.requests.get_all(list(prospects))}
        ordered = [requests[request_id] for request_id in prospects if request_id in requests]
        waiting = iter([request for request in ordered if request.state is State.QUEUED])
        # 3. Their receipts.
        while some := list(islice(waiting, WRITTEN_TOGETHER)):
            if out_of_time():
                break
            results = self.parallel_map(lambda request: self._write(request, prospects, now), some)
            for request, result in zip(some, results, strict=True):
                if isinstance(result, str):
                    run.failed[request.request_id] = result
                else:
                    run.written += result
        return run

    def _write(self, request: Request, prospects: Mapping[str, Prospect], now: datetime) -> bool | str:
        """Write one receipt; tell whether it said something new, or return the error."""
        prospect = prospects[request.request_id]
        if prospect.latest is not None and request.expected is not None:
            ends_by = prospect.latest + timedelta(seconds=request.expected.seconds_p90)
            prospect = replace(prospect, ends_by=ends_by)
        try:
            tenant = self.tenants.get(request.tenant_id)
            return tenant is not None and self.receipts.write(tenant, request, now, prospect)
        except Exception as error:  # whatever one tenant's bucket answers, the others' receipts are written
            return f"{type(error).__name__}: {error}"

    def _next(self, now: datetime) -> Iterator[tuple[str, Prospect]]:
        for each in self.explain.upcoming(now, limit=REQUESTS_MAX):
            if each.reason is not Reason.SLOT_FREE:  # its next receipt comes in seconds
                yield (
                    each.entry.request_id,
                    Prospect(
                        reason=each.reason,
                        position=each.position if each.latest else None,
                        earliest=each.earliest,
                        latest=each.latest,
                    ),
                )

    def _set_aside(self, tier: str) -> Iterator[tuple[str, Prospect]]:
        for queue in self.explain.scheduler.tables.queues.set_aside(tier, limit=REQUESTS_MAX):
            reason = Reason(queue.parked_for) if queue.parked_for else Reason.TENANT_PAUSED
            for profile in queue.profiles.values():
                for entry in profile.head_entries:
                    yield entry.request_id, Prospect(reason=reason)
