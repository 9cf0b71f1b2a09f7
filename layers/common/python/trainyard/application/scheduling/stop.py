"""Stop: cancels a waiting request, or stops a running one."""

from dataclasses import dataclass
from datetime import datetime

from trainyard.application.ports import Executions
from trainyard.application.scheduling.notifications import Notifier
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.requests import TERMINAL, Request, State, moved

TRIES_MAX = 3
"""Attempts while a request goes back to the queue, or is admitted, just when it is to be stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    scheduler: Scheduler
    executions: Executions
    notifier: Notifier

    def stop(self, request_id: str, now: datetime) -> Request:
        """Return the request as it is now: CANCELLED, or ADMITTED or RUNNING until its end is reported.

        Raises Refused when there is nothing to stop, and Conflict while the request keeps changing.
        """
        for _ in range(TRIES_MAX):
            stopped = self._stopped(self._get(request_id), now)
            if stopped is not None:
                return stopped
            request = self._get(request_id)
            if request.state in TERMINAL:
                raise Refused(f"request {request_id} is {request.state} already: there is nothing to stop")
        raise Conflict(f"request {request_id} keeps changing: try again")

    def _stopped(self, request: Request, now: datetime) -> Request | None:
        """Return the request as it is now; None when it was neither waiting nor running, or has just changed."""
        # 1. If it waits, cancel it and notify the tenant.
        if request.state is State.QUEUED and self.scheduler.completer.cancel(request, now):
            cancelled = moved(request, State.CANCELLED, now)
            self.notifier.notify(cancelled, now)
            return cancelled
        # 2. If it holds a slot, store the stop request with it, so that it is not retried however it ends.
        request = self._get(request.request_id)
        if not self.scheduler.tables.requests.ask_to_stop(request, now):
            return None
        # 3. If it runs by now, ask SageMaker to stop it; the end arrives as an event. A request that is just being
        # started is stopped by the sweeper.
        request = self._get(request.request_id)
        if request.state is State.RUNNING and request.execution_arn is not None:
            self.executions.stop(request.execution_arn)
        return request

    def _get(self, request_id: str) -> Request:
        request = self.scheduler.tables.requests.get(request_id)
        if request is None:
            raise Refused(f"there is no request {request_id!r}; `trainyard requests TENANT` shows them")
        return request
