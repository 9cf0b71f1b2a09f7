"""Bulk actions: which requests they are about, and how they are carried out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Protocol
from uuid import uuid4

from trainyard.application.api.trainings import RETRIED, Trainings, check_retried
from trainyard.application.ports import Tenants
from trainyard.application.scheduling.stop import Stop
from trainyard.domain.bulk_actions import OF_SERVICE, REQUESTS_MAX, BulkAction, BulkKind, Failure
from trainyard.domain.errors import Conflict, OutcomeUnknown, Refused, Throttled
from trainyard.domain.requests import TERMINAL, Request, RequestKind, State
from trainyard.persistence.bulk_actions import BulkActions
from trainyard.persistence.idempotency_keys import IdempotencyKeys
from trainyard.persistence.requests import Requests

LOOKED_AT_MAX = 5_000
"""Of a tenant's requests, newest first: those that a filter selects are looked for among them."""
WAITING_LOOKED_AT_MAX = 20_000
"""Of all that wait, the longest first: those of a tier are looked for among them."""
PAGE = 100
REASON_CHARACTERS_MAX = 300
TRIES_MAX, PAUSE_SECONDS = 6, 1.0
"""At what AWS throttles: half a minute, with twice as long a pause after each try."""
RESUMED_MAX = 50
"""Unfinished actions that are looked at by the timer."""


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
        """Return those of a tenant's newest requests that an action suits and a filter selects; may lag.

        What a newer training of the same data set has followed is not tried again.
        """
        looked_at = list(islice(self._newest(tenant_id), LOOKED_AT_MAX + 1))
        candidates = looked_at[:LOOKED_AT_MAX]
        if kind is BulkKind.RETRY:
            candidates = _newest_of_each(each for each in candidates if each.kind is RequestKind.TRAINING)
        suitable = [
            each
            for each in candidates
            if _is_suitable(kind, each)
            and (state is None or each.state is state)
            and (data_set is None or each.data_set == data_set)
        ]
        return _bounded(suitable, is_complete=len(looked_at) <= LOOKED_AT_MAX)

    def waiting(self, tier: str | None = None) -> Selection:
        """Return the requests of a tier, or of all, that wait, the longest first; may lag."""
        limit = WAITING_LOOKED_AT_MAX + 1
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
    keys: IdempotencyKeys
    pause: Callable[[float], None]
    """Waits for some seconds."""

    def begin(
        self,
        owner: str,
        kind: BulkKind,
        select: Callable[[], Selection],
        now: datetime,
        *,
        by: str,
        why: str = "",
        only: State | None = None,
        key: str | None = None,
        call: str = "",
    ) -> BulkAction:
        """Store an action on the requests that `select` returns, and let it be carried out.

        With a `key`, calls that are alike (by `call`, a digest) make one action. Raises Refused where there is
        nothing to do.
        """
        action_id = f"{int(now.timestamp() * 1000):012x}{uuid4().hex[:20]}"
        if key:
            action_id = self.keys.event_id(owner, key, call, now, new=action_id)
            before = self.actions.get(owner, action_id)
            if before is not None:
                return before
        selection = select()
        if not selection.requests:
            raise Refused(f"there is no such request; {_NEEDS[kind]}")
        action = BulkAction(
            action_id=action_id,
            owner=owner,
            kind=kind,
            by=by,
            why=why,
            created_at=now,
            progress_at=now,
            only=only,
            total=len(selection.requests),
            is_complete=selection.is_complete,
        )
        self.actions.add(action, [each.request_id for each in selection.requests])
        # What is not begun now, the timer begins.
        with suppress(Throttled, OutcomeUnknown):
            self.starts.begin(owner, action.action_id)
        return action

    def abort(self, owner: str, action_id: str, now: datetime) -> BulkAction | None:
        """Let nothing more be done by an action; return it as it is then, None where there is none. Idempotent."""
        action = self.actions.get(owner, action_id)
        if action is None:
            return None
        aborted = action
        _insist(lambda: self.actions.abort(aborted, now), self.pause)
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
    pause: Callable[[float], None]
    """Waits for some seconds."""

    def run(
        self, owner: str, action_id: str, out_of_time: Callable[[], bool] = lambda: False
    ) -> BulkAction | None:
        """Carry out an action from where it has come to, and return it; None where there is none.

        It may be repeated: nothing is done to a request twice. What it does not come to, `resume` does. Raises
        Throttled, OutcomeUnknown and Conflict, after having tried again for some time.
        """
        action = self.actions.get(owner, action_id)
        request_ids = self.actions.request_ids(owner, action_id)
        while action is not None and not action.is_over and not out_of_time():
            failure = self._do(action, request_ids[action.done])
            present = action
            if not _insist(lambda: self.actions.advance(present, failure, self.clock()), self.pause):  # noqa: B023
                # It was aborted, or another call carries it out.
                _insist(lambda: self.actions.count_after_abort(present, failure), self.pause)  # noqa: B023
                return self.actions.get(owner, action_id)
            action = self.actions.get(owner, action_id)
        return action

    def resume(self, out_of_time: Callable[[], bool] = lambda: False) -> list[BulkAction]:
        """Carry on with the actions to which nothing has happened for some time; return them.

        One that cannot be carried out now does not affect the others.
        """
        stalled = [each for each in self.actions.unfinished(limit=RESUMED_MAX) if each.stalls(self.clock())]
        resumed: list[BulkAction] = []
        for action in stalled:
            if out_of_time():
                break
            with suppress(Throttled, OutcomeUnknown, Conflict):
                self.run(action.owner, action.action_id, out_of_time)
            resumed.append(action)
        return resumed

    def _do(self, action: BulkAction, request_id: str) -> Failure | None:
        """Do it to one request; return why it could not be done, if so."""
        try:
            _insist(lambda: self._done(action, request_id), self.pause)
        except (Throttled, OutcomeUnknown):
            raise  # for one as for all
        except (Refused, Conflict) as error:
            if action.kind is BulkKind.CANCEL and self._is_cancelled(request_id):
                return None  # before this was repeated, or by somebody else
            return Failure(request_id=request_id, reason=str(error)[:REASON_CHARACTERS_MAX])
        except Exception as error:  # one request must not keep the others from their turn
            return Failure(request_id=request_id, reason=f"a fault of the service ({type(error).__name__})")
        return None

    def _done(self, action: BulkAction, request_id: str) -> bool:
        request = self.requests.get(request_id)
        if request is None:
            raise Refused("the request no longer exists")
        if action.only is not None and request.state is not action.only and request.state not in TERMINAL:
            raise Refused(f"it is {request.state.value} by now, and was left as it is")
        if action.kind is BulkKind.CANCEL:
            self.stop.stop(request_id, self.clock())
        else:
            self._retry(action, request)
        return True

    def _is_cancelled(self, request_id: str) -> bool:
        request = self.requests.get(request_id)
        return request is not None and request.state in (State.CANCELLED, State.STOPPED)

    def _retry(self, action: BulkAction, request: Request) -> None:
        check_retried(request)
        tenant = self.tenants.get(request.tenant_id)
        if tenant is None:
            raise Refused(f"there is no tenant {request.tenant_id!r}")
        # A tenant's own selection has left such requests out.
        newer = self._newer(request, action.created_at) if action.owner == OF_SERVICE else None
        if newer is not None:
            raise Refused(f"request {newer.request_id} of the same data set is newer, and counts in its place")
        self.trainings.ask(
            tenant,
            request.data_set,
            now=self.clock(),
            overrides=request.overrides,
            again=True,
            # A repetition asks for the same training.
            key=f"bulk {action.action_id} {request.request_id}",
            call=request.request_id,
        )

    def _newer(self, request: Request, before: datetime) -> Request | None:
        """Return a training that was asked for with the same settings after a request, and before a time."""
        page, _ = self.requests.page_of_tenant(request.tenant_id, limit=PAGE, after=None)
        alike = (
            each
            for each in page
            if each.kind is RequestKind.TRAINING
            and (each.data_set, each.overrides) == (request.data_set, request.overrides)
            and request.arrived_at < each.arrived_at < before
        )
        return next(alike, None)


def _insist(do: Callable[[], bool], pause: Callable[[float], None]) -> bool:
    """Do something, and again where AWS asks for that; raises what it raised at last."""
    for tries in range(TRIES_MAX):
        try:
            return do()
        except (Throttled, OutcomeUnknown, Conflict):
            if tries + 1 == TRIES_MAX:
                raise
            pause(PAUSE_SECONDS * 2**tries)
    raise AssertionError("the last try returns or raises")


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
        distinct.setdefault((request.tenant_id, request.data_set, repr(request.overrides)), request)
    return list(distinct.values())


def _bounded(requests: Iterable[Request], *, is_complete: bool = True) -> Selection:
    selected = list(islice(requests, REQUESTS_MAX + 1))
    return Selection(tuple(selected[:REQUESTS_MAX]), is_complete and len(selected) <= REQUESTS_MAX)
