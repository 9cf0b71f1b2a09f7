"""Bulk actions: which requests they are about, and how they are carried out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Protocol
from uuid import uuid4

from trainyard.application.api.trainings import RETRIED, Trainings, check_retried
from trainyard.application.ports import Tenants
from trainyard.application.scheduling.stop import Stop
from trainyard.domain.bulk_actions import REQUESTS_MAX, BulkAction, BulkKind, Failure
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.requests import TERMINAL, Request, RequestKind, State
from trainyard.persistence.bulk_actions import BulkActions
from trainyard.persistence.requests import Requests

LOOKED_AT_MAX = 5_000
"""Of a tenant's requests, newest first: those that a filter selects are looked for among them."""
PAGE = 100
REASON_CHARACTERS_MAX = 300
TRIES_MAX = 5
"""At storing how far an action has come, while another change of it is under way."""


class BulkStarts(Protocol):
    """What carries out bulk actions."""

    def begin(self, owner: str, action_id: str) -> None:
        """Let an action be carried out, soon, and perhaps more than once."""
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """Requests that something is to be done to."""

    requests: tuple[Request, ...]
    is_complete: bool
    """Whether these are all: there may be more than fit one action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkSelections:
    """Finds the requests of bulk actions."""

    requests: Requests
    held: Callable[[], list[Request]]
    """Returns the requests that hold a slot."""

    def named(self, tenant_id: str, kind: BulkKind, request_ids: Sequence[str]) -> Selection:
        """Return a tenant's requests of these ids; raises Refused where one is not there, or not suitable."""
        by_id = {each.request_id: each for each in self.requests.get_all(dict.fromkeys(request_ids))}
        missing = [name for name in request_ids if name not in by_id or by_id[name].tenant_id != tenant_id]
        if missing:
            raise Refused(f"there is no request {', '.join(missing[:3])}{' …' if missing[3:] else ''}")
        wrong = [each for each in by_id.values() if not _is_suitable(kind, each)]
        if wrong:
            raise Refused(
                f"request {wrong[0].request_id} is {wrong[0].state.value}: {_NEEDS[kind]}; leave it out, or "
                "select the requests by a filter"
            )
        return Selection(tuple(by_id.values()), is_complete=True)

    def of_tenant(
        self, tenant_id: str, kind: BulkKind, *, state: State | None = None, data_set: str | None = None
    ) -> Selection:
        """Return those of a tenant's newest requests that an action suits and a filter selects; may lag."""
        looked_at = list(islice(self._newest(tenant_id), LOOKED_AT_MAX + 1))
        suitable = [
            each
            for each in looked_at[:LOOKED_AT_MAX]
            if _is_suitable(kind, each)
            and (state is None or each.state is state)
            and (data_set is None or each.data_set == data_set)
        ]
        if kind is BulkKind.RETRY:
            suitable = _newest_of_each(suitable)
        return _bounded(suitable, is_complete=len(looked_at) <= LOOKED_AT_MAX)

    def waiting(self, tier: str | None = None) -> Selection:
        """Return the requests of a tier, or of all, that wait, the longest first; may lag."""
        limit = LOOKED_AT_MAX + 1
        listed = self.requests.active(State.QUEUED, limit=limit)
        suitable = [each for each in listed if tier in (None, each.tier)]
        return _bounded(suitable, is_complete=len(listed) < limit)

    def holding(self, *, tier: str | None = None, tenant_id: str | None = None) -> Selection:
        """Return the requests of a tier, of a tenant or of all that hold a slot."""
        return _bounded(
            each for each in self.held() if tier in (None, each.tier) and tenant_id in (None, each.tenant_id)
        )

    def ended(self, tier: str, state: State, day: str) -> Selection:
        """Return the last trainings of a tier that came to an end in a state on a day; may lag."""
        limit = LOOKED_AT_MAX + 1
        listed = self.requests.ended(tier, state, day, limit=limit)
        suitable = _newest_of_each(each for each in listed if _is_suitable(BulkKind.RETRY, each))
        return _bounded(suitable, is_complete=len(listed) < limit)

    def _newest(self, tenant_id: str) -> Iterator[Request]:
        page, after = self.requests.page_of_tenant(tenant_id, limit=PAGE, after=None)
        yield from page
        while after is not None:
            page, after = self.requests.page_of_tenant(tenant_id, limit=PAGE, after=after)
            yield from page


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRequests:
    """Takes bulk actions, and aborts them."""

    actions: BulkActions
    starts: BulkStarts

    def begin(
        self, owner: str, kind: BulkKind, selection: Selection, now: datetime, *, by: str, why: str = ""
    ) -> BulkAction:
        """Store an action, and let it be carried out; raises Refused where there is nothing to do."""
        if not selection.requests:
            raise Refused(f"there is no such request; {_NEEDS[kind]}")
        action = BulkAction(
            action_id=f"{int(now.timestamp() * 1000):012x}{uuid4().hex[:20]}",
            owner=owner,
            kind=kind,
            by=by,
            why=why,
            created_at=now,
            total=len(selection.requests),
            is_complete=selection.is_complete,
        )
        self.actions.add(action, [each.request_id for each in selection.requests])
        self.starts.begin(owner, action.action_id)
        return action

    def abort(self, owner: str, action_id: str, now: datetime) -> BulkAction | None:
        """Let nothing more be done by an action; return it as it is then, None where there is none. Idempotent."""
        action = self.actions.get(owner, action_id)
        if action is None:
            return None
        self.actions.abort(action, now)
        return self.actions.get(owner, action_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkWork:
    """Carries out bulk actions."""

    actions: BulkActions
    requests: Requests
    tenants: Tenants
    stop: Stop
    trainings: Trainings
    clock: Callable[[], datetime]

    def run(self, owner: str, action_id: str) -> BulkAction | None:
        """Carry out an action from where it has come to, and return it; None where there is none.

        It may be repeated, and is to be after Throttled and OutcomeUnknown: nothing is done to a request twice.
        """
        action = self.actions.get(owner, action_id)
        request_ids = self.actions.request_ids(owner, action_id)
        while action is not None and not action.is_over:
            failure = self._do(action, request_ids[action.done])
            if not self._stored(action, failure):
                return self.actions.get(owner, action_id)  # aborted, or carried out by another call
            action = self.actions.get(owner, action_id)
        return action

    def _stored(self, action: BulkAction, failure: Failure | None) -> bool:
        for _ in range(TRIES_MAX):
            try:
                return self.actions.advance(action, failure, self.clock())
            except Conflict:
                continue
        return False

    def _do(self, action: BulkAction, request_id: str) -> Failure | None:
        """Do it to one request; return why it could not be done, if so."""
        try:
            if action.kind is BulkKind.CANCEL:
                self.stop.stop(request_id, self.clock())
            else:
                self._retry(action, request_id)
        except (Refused, Conflict) as error:
            if action.kind is BulkKind.CANCEL and self._is_cancelled(request_id):
                return None  # before this was repeated, or by somebody else
            return Failure(request_id=request_id, reason=str(error)[:REASON_CHARACTERS_MAX])
        return None

    def _is_cancelled(self, request_id: str) -> bool:
        request = self.requests.get(request_id)
        return request is not None and request.state in (State.CANCELLED, State.STOPPED)

    def _retry(self, action: BulkAction, request_id: str) -> None:
        request = self.requests.get(request_id)
        if request is None:
            raise Refused("the request no longer exists")
        check_retried(request)
        tenant = self.tenants.get(request.tenant_id)
        if tenant is None:
            raise Refused(f"there is no tenant {request.tenant_id!r}")
        self.trainings.ask(
            tenant,
            request.data_set,
            now=self.clock(),
            overrides=request.overrides,
            # A repetition asks for the same training.
            key=f"bulk {action.action_id} {request_id}",
            call=request_id,
        )


_NEEDS = {
    BulkKind.CANCEL: "only what waits or runs can be cancelled",
    BulkKind.RETRY: "only a training that ended without a model can be tried again",
}


def _is_suitable(kind: BulkKind, request: Request) -> bool:
    if kind is BulkKind.CANCEL:
        return request.state not in TERMINAL
    return request.kind is RequestKind.TRAINING and request.state in RETRIED


def _newest_of_each(requests: Iterable[Request]) -> list[Request]:
    """Return the first request of each data set and overrides: one training answers for all of them."""
    distinct: dict[object, Request] = {}
    for request in requests:
        distinct.setdefault((request.tenant_id, request.data_set, request.overrides), request)
    return list(distinct.values())


def _bounded(requests: Iterable[Request], *, is_complete: bool = True) -> Selection:
    selected = list(islice(requests, REQUESTS_MAX + 1))
    return Selection(tuple(selected[:REQUESTS_MAX]), is_complete and len(selected) <= REQUESTS_MAX)
