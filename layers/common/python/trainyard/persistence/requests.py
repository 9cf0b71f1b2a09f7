"""Requests: the table that holds each one, and the only place that changes its state.

The index "by-activity" lists requests by state: those that are active under the state alone, those that ended
under tier, state and day, so that no partition of it is hot. It lags: read each result again before use."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from trainyard.domain.errors import Conflict
from trainyard.domain.requests import (
    HOLDING,
    TERMINAL,
    Outcome,
    Request,
    State,
    StateChange,
    check_transition,
)
from trainyard.persistence.items import change_text, outcome_values, owner, request_from, request_item, stamp
from trainyard.persistence.store import (
    Absent,
    Condition,
    Cursor,
    Delete,
    Is,
    Item,
    Key,
    OneOf,
    Put,
    Update,
    Write,
    listed,
)
from trainyard.persistence.transactions import Transactions, read_items

LISTED_AT_ONCE = 100
"""Keys of an index; BatchGetItem takes 100."""

PREFIX_CHARACTERS = 3
"""Of an id, by which the index "by-prefix" is divided: 4,096 partitions, as an id is hexadecimal."""


def request_key(request_id: str) -> Key:
    return Key("requests", (("request_id", request_id),))


def still_waits(request: Request) -> tuple[Condition, ...]:
    """Return the conditions that a waiting request is as it was read.

    The version of its queue guards its place. What is noted about it while it waits, that it was expedited and
    whether its deadline is in danger, would be lost by a write of the whole request.
    """
    return (
        Is("state", State.QUEUED.value),
        Is("history", [change_text(entry) for entry in request.history]),
        Is("risk_minutes", request.risk_minutes),
        Is("miss_published", request.miss_published),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Reads and lists requests, and makes the writes that change one."""

    transactions: Transactions
    retention: timedelta
    """How long a request is kept after its end."""

    # --- one request ----------------------------------------------------------------------------------------

    def get(self, request_id: str) -> Request | None:
        (item,) = self.transactions.store.get(request_key(request_id))
        return request_from(item) if item else None

    def ids_beginning(self, beginning: str, *, limit: int) -> list[str]:
        """Return ids that begin with a text of at least PREFIX_CHARACTERS characters, in their order; may lag."""
        partition = beginning[:PREFIX_CHARACTERS]
        assert len(partition) == PREFIX_CHARACTERS, beginning
        store, below = self.transactions.store, beginning + "~"
        items = listed(store, "by-prefix", partition, above=beginning, below=below, page=limit)
        return [str(item["request_id"]) for item in islice(items, limit)]

    def get_all(self, request_ids: Iterable[str]) -> list[Request]:
        """Return the requests that exist, in the order asked for."""
        items = read_items(self.transactions.store, map(request_key, request_ids))
        return [request_from(item) for item in items.values() if item]

    def add_rejected(self, request: Request) -> bool:
        """Store a request that was refused at arrival; False when it is already stored."""
        assert request.state is State.REJECTED
        return self.transactions.write_unless_past(self.put(request, Absent("request_id")))

    def note_outcome(self, request_id: str, attempt: int, outcome: Outcome) -> bool:
        """Store the known fields of a running attempt's outcome; False for another attempt."""
        return self.transactions.write_unless_past(self.set_outcome(request_id, outcome, Is("attempt", attempt)))

    def note_running(self, request: Request, execution_arn: str, now: datetime) -> bool:
        """Record that the execution of this attempt runs; False when the request is past that."""
        return self.transactions.write_unless_past(self._runs(request, execution_arn, now))

    def note_all_running(self, started: Sequence[tuple[Request, str]], now: datetime) -> set[str]:
        """Record that these attempts run, and their ARNs; return the ids of those that were not past that."""
        remaining = {request.request_id: (request, arn) for request, arn in started}
        while len(remaining) > 1:
            writes = [self._runs(request, arn, now) for request, arn in remaining.values()]
            try:
                self.transactions.store.transact(writes)
                return set(remaining)
            except Conflict as conflict:
                past = {writes[number].key.pk for number in conflict.failed}
                if not past:  # another transaction is under way
                    break
                remaining = {name: start for name, start in remaining.items() if name not in past}
        return {name for name, (request, arn) in remaining.items() if self.note_running(request, arn, now)}

    def claim(self, request: Request, now: datetime) -> bool:
        """Take over the start of an ADMITTED request from its holder when it was read; False when another was
        faster.
        """
        return self.transactions.write_unless_past(
            Update(
                request_key(request.request_id),
                set={"claimed_at": stamp(now)},
                when=(Is("state", State.ADMITTED.value), Is("attempt", request.attempt), unclaimed_since(request)),
            )
        )

    def ask_to_stop(self, request: Request, now: datetime) -> bool:
        """Store that a stop was requested for an attempt, so that it is not retried; False when it is over."""
        return self.transactions.write_unless_past(
            Update(
                request_key(request.request_id),
                set={"stop_asked_at": stamp(now)},
                when=(
                    OneOf("state", tuple(state.value for state in HOLDING)),
                    Is("attempt", request.attempt),
                ),
            )
        )

    def note_heard(self, requests: Sequence[Request], now: datetime) -> None:
        """Store that running requests were checked with SageMaker, so that others are checked first."""
        remaining = list(requests)
        while remaining:
            writes = [
                Update(
                    request_key(request.request_id),
                    set={"heard_at": stamp(now)},
                    when=(Is("state", State.RUNNING.value), Is("attempt", request.attempt)),
                )
                for request in remaining
            ]
            try:
                self.transactions.store.transact(writes)
                return
            except Conflict as conflict:
                if not conflict.failed:  # another transaction is under way; these are checked again sooner
                    return
                remaining = [r for number, r in enumerate(remaining) if number not in conflict.failed]

    def set_history(self, request: Request) -> Update:
        """Return the write that stores a waiting request's history."""
        return Update(
            request_key(request.request_id),
            set={"history": [change_text(entry) for entry in request.history]},
            when=(Is("state", State.QUEUED.value), Is("attempt", request.attempt)),
        )

    def note_deadline(self, request: Request, *also: Write, risk_minutes: int, miss_published: bool) -> bool:
        """Store how a waiting request's deadline stands, with other writes; False when it has changed since."""
        same = Is("risk_minutes", request.risk_minutes), Is("miss_published", request.miss_published)
        update = Update(
            request_key(request.request_id),
            set={"risk_minutes": risk_minutes, "miss_published": miss_published},
            when=(Is("state", State.QUEUED.value), *same),
        )
        try:
            self.transactions.store.transact([update, *also])
        except Conflict:
            return False
        return True

    def forget(self, request: Request) -> None:
        """Remove an ended request for good."""
        ended = OneOf("state", tuple(state.value for state in TERMINAL))
        self.transactions.store.transact([Delete(request_key(request.request_id), (ended,))])

    # --- lists ----------------------------------------------------------------------------------------------

    def active(self, state: State, *, limit: int | None = None, newest_first: bool = False) -> list[Request]:
        """Return the requests that wait, start or run, longest in that state first or last; may lag."""
        return self._listed("by-activity", state.value, limit, newest_first=newest_first)

    def ended(self, tier: str, state: State, day: str, *, limit: int | None = None) -> list[Request]:
        """Return the requests of a tier that came to an end in a state on a day, "2026-11-21": all, oldest first,
        or with a limit the last ones, newest first; may lag.
        """
        assert state in TERMINAL
        partition = f"{tier} {state.value} {day}"
        return self._listed("by-activity", partition, limit, newest_first=limit is not None)

    def of_tenant(
        self, tenant_id: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> list[Request]:
        """Return a tenant's requests that arrived between two times, oldest first; may lag."""
        above, below = _between(since, until)
        return self._listed("by-tenant", tenant_id, None, above=above, below=below)

    def recent_of_tenant(self, tenant_id: str, *, limit: int) -> list[Request]:
        """Return a tenant's last requests, newest first; may lag."""
        items = listed(self.transactions.store, "by-tenant", tenant_id, page=limit, newest_first=True)
        return [request_from(item) for item in islice(items, limit)]

    def page_of_tenant(
        self, tenant_id: str, *, limit: int, after: Cursor | None
    ) -> tuple[list[Request], Cursor | None]:
        """Return at most `limit` of a tenant's requests, newest first, and where the next ones begin; may lag.

        Raises Malformed for a cursor of another list.
        """
        page = self.transactions.store.query("by-tenant", tenant_id, limit=limit, newest_first=True, after=after)
        return [request_from(item) for item in page.items], page.cursor

    def page_of_ended(
        self, tier: str, state: State, day: str, *, limit: int, after: Cursor | None
    ) -> tuple[list[Request], Cursor | None]:
        """Return at most `limit` of the requests of a tier that came to an end in a state on a day, newest first,
        and where the next ones begin; may lag. Raises Malformed for a cursor of another list.
        """
        assert state in TERMINAL
        partition = f"{tier} {state.value} {day}"
        page = self.transactions.store.query("by-activity", partition, limit=limit, newest_first=True, after=after)
        return [request_from(item) for item in page.items], page.cursor

    def of_data_set(
        self, tenant_id: str, data_set: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> list[Request]:
        """Return the requests of a data set that arrived between two times, oldest first; may lag."""
        above, below = _between(since, until)
        partition = owner(tenant_id, data_set)
        store = self.transactions.store
        items = listed(store, "by-data-set", partition, above=above, below=below, page=LISTED_AT_ONCE)
        return self.get_all(item["request_id"] for item in items)

    def _listed(
        self,
        index: str,
        partition: str,
        limit: int | None,
        *,
        above: str = "",
        below: str = "~",
        newest_first: bool = False,
    ) -> list[Request]:
        store, page = self.transactions.store, limit or 1000
        items = listed(store, index, partition, above=above, below=below, page=page, newest_first=newest_first)
        return [request_from(item) for item in islice(items, limit)]

    # --- what a change writes -------------------------------------------------------------------------------

    def put(self, request: Request, *when: Condition) -> Put:
        """Return the write of a whole request, listed under its state."""
        item = {name: value for name, value in request_item(request).items() if name != "request_id"}
        item["prefix"] = request.request_id[:PREFIX_CHARACTERS]
        since = request.arrived_at if request.state is State.QUEUED else request.finished_at or request.arrived_at
        item |= self._listed_under(request.state, request.tier, since)
        return Put(request_key(request.request_id), item, when)

    def move(
        self,
        request_id: str,
        before: State,
        after: State,
        now: datetime,
        *,
        tier: str,
        cause: str = "",
        set: Mapping[str, Any] | None = None,
        add: Mapping[str, int] | None = None,
        remove: tuple[str, ...] = (),
        when: tuple[Condition, ...] = (),
    ) -> Update:
        """Return the write that moves a request from one state to another, with the change in its history.

        It holds only if the request still is in the state `before`. Other attributes may be changed along.
        """
        check_transition(before, after)
        attributes = {"state": after.value, **self._listed_under(after, tier, now), **(set or {})}
        if after in TERMINAL:
            attributes["finished_at"] = stamp(now)
        return Update(
            request_key(request_id),
            set=attributes,
            add=add or {},
            append={"history": [change_text(StateChange(now, after, cause))]},
            remove=remove,
            when=(Is("state", before.value), *when),
        )

    def set_outcome(self, request_id: str, outcome: Outcome, *when: Condition) -> Update:
        """Return what adds the known fields of an outcome."""
        return Update(request_key(request_id), set=outcome_values(outcome), when=when)

    def expiry(self, ended_at: datetime) -> int:
        """Return when what ended at a time is deleted, in whole seconds since 1970 (DynamoDB's time to live)."""
        return int((ended_at + self.retention).timestamp())

    def _runs(self, request: Request, execution_arn: str, now: datetime) -> Update:
        """Return what records that the execution of an attempt runs.

        Only of one that nobody has asked to stop since it was read: the sweeper reads the others anew and stops
        them."""
        unasked = () if request.stop_asked_at else (Absent("stop_asked_at"),)
        return self.move(
            request.request_id,
            State.ADMITTED,
            State.RUNNING,
            now,
            tier=request.tier,
            set={"started_at": stamp(now), "execution_arn": execution_arn}
            | ({"basis": request.basis} if request.basis else {})
            # Of what arrived under an earlier version, the one that trains it.
            | ({"algorithm": request.algorithm} if request.algorithm else {}),
            when=(Is("attempt", request.attempt), *unasked),
        )

    def _listed_under(self, state: State, tier: str, since: datetime) -> Item:
        """Return the index attributes of a request in a state, and the expiry of one that ended."""
        if state not in TERMINAL:
            return {"activity": state.value, "since": stamp(since)}
        return {
            "activity": f"{tier} {state.value} {stamp(since)[:10]}",
            "since": stamp(since),
            "expires_at": self.expiry(since),
        }


def unclaimed_since(request: Request) -> Condition:
    """Return the condition that a request's start was not taken over since it was read."""
    if request.claimed_at is None:
        return Absent("claimed_at")
    return Is("claimed_at", stamp(request.claimed_at))


def held_since(request: Request) -> tuple[Condition, Condition]:
    """Return the conditions that since a request was read, it holds the same and its start was not taken over."""
    selected = Absent("selected") if request.selected is None else Is("selected", request.selected)
    return unclaimed_since(request), selected


def _between(since: datetime | None, until: datetime | None) -> tuple[str, str]:
    """Return the ends of a range of an index that is sorted by time."""
    return stamp(since) if since else "", stamp(until) if until else "~"
