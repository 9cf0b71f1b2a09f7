"""The bell: its rings wake the dispatcher and name what was enlisted; beside them stand the queues that wait for a
time to come.

    pk       sk     what
    ledger   bell   rings; the requests that the last one names; queues of which a request is due later

A pass that has been told of every ring since nothing was left to start need not look at the queues: it reads what
the rings name, and what is noted here and has become due. So a request that is enlisted and due later is noted in
the same transaction. (What lets a request wait again tells passes to look at the queues.) A ring that names the
request takes the note away. Notes are bounded: if there are too many, they are given up until a pass of the timer,
which reads all queues, has put them right.

The item stands in the ledger's partition, so that one shard of the stream shows both, and passes run one after the
other."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from trainyard.domain.errors import Malformed
from trainyard.domain.queues import TenantQueue
from trainyard.domain.requests import Request
from trainyard.domain.scheduling import Ledger
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.ledger import BY_END, LEDGER, SOMEBODY
from trainyard.persistence.store import Is, IsOr, Item, Key, Update

BELL = Key("scheduler", (("pk", "ledger"), ("sk", "bell")))

HINTS_MAX = 20
"""Requests that one ring names; a ring for more names none."""

LATER_MAX = 20
"""Queues that are noted. The item is written by every batch, and billed by the kilobyte."""

BY_RING, BY_NOTE = "ring", "note"
"""What the bell was written for last. Only a ring wakes the dispatcher."""

DELAYED_RING = "ring"

_NEVER = datetime.max.replace(tzinfo=UTC)

_LATER = "later/"

_HINT = re.compile(r"[A-Za-z0-9_-]{1,64} [a-z0-9-]{1,24} [0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Hint:
    """A request that a ring of the bell says was enlisted."""

    tier: str
    tenant_id: str
    request_id: str

    def __str__(self) -> str:
        return f"{self.tier} {self.tenant_id} {self.request_id}"

    @classmethod
    def parse(cls, text: str) -> "Hint":
        """Return the hint that `str` wrote; raises Malformed."""
        if not _HINT.fullmatch(text):
            raise Malformed("it is not the name of a request")
        return cls(*text.split(" "))

    @classmethod
    def of(cls, request: Request) -> "Hint":
        return cls(request.tier, request.tenant_id, request.request_id)


@dataclass(frozen=True, slots=True)
class BellRing:
    """A ring of the bell, as the table's stream shows it."""

    number: int
    hints: tuple[Hint, ...] | None
    """All that was enlisted; None where anything may have changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """The queues of which a request is due later, as the bell notes them."""

    due_at: Mapping[tuple[str, str], datetime]
    """Tier and tenant → when the first of its requests is due, or a time before."""
    complete: bool
    """Whether no queue was left out."""
    version: int
    """How often something was noted."""

    def settles(self, queue: TenantQueue, now: datetime) -> bool:
        """Tell whether nothing of a queue can be missed: nothing waits in it, or it is noted and not due yet."""
        if not queue.profiles:
            return True
        due_at = first_due(queue)
        noted = self.due_at.get((queue.tier, queue.tenant_id))
        return self.complete and due_at is not None and noted is not None and now < due_at and noted <= due_at


def first_due(queue: TenantQueue) -> datetime | None:
    """Return when the first request that waits in a queue is due; None if the queue does not know them all."""
    if not all(profile.whole for profile in queue.profiles.values()):
        return None
    return min((profile.due_at for profile in queue.profiles.values()), default=None)


# --- reading ----------------------------------------------------------------------------------------------------


def bell_ring_from(item: Mapping[str, Any]) -> BellRing:
    """Return what the bell's item says of its last ring."""
    hints = item.get("hints")
    return BellRing(
        number=int(item["rings"]),
        hints=None if hints is None else tuple(map(Hint.parse, hints)),
    )


def later_from(item: Item | None) -> Later:
    """Return what the bell's item notes."""
    values = item or {}
    return Later(
        due_at={_owner(name): unstamp(at) for name, at in values.items() if name.startswith(_LATER)},
        complete=not values.get("later_left_out", False),
        version=int(values.get("noted", 0)),
    )


def rings_of(item: Item | None) -> int:
    """Return how often the bell was rung."""
    return int((item or {}).get("rings", 0))


def wakes_dispatcher(key: Key, item: Mapping[str, Any]) -> bool:
    """Tell whether the stream wakes the dispatcher for an item written so; template.yaml has the same as
    filters."""
    # Passes write the ledger too. Woken by their own writes, they would follow each other without end.
    ended = (item.get("by"), item.get("waiting")) == (BY_END, SOMEBODY)
    return (key == BELL and item.get("by") == BY_RING) or (key == LEDGER and ended)


def rings_name_all(ledger: Ledger, rung: int, rings: Sequence[BellRing]) -> bool:
    """Tell whether rings name all that can be due and is not noted: nothing was once, and they are all since then.

    `rung` is how often the bell had been rung when the ledger was read.
    """
    named = {ring.number for ring in rings if ring.hints is not None}
    drained = ledger.drained_through
    # A ring without names (the operator's, or one for too many requests) leaves a gap: then the queues are read.
    return drained is not None and drained < rung and all(n in named for n in range(drained + 1, rung + 1))


def parse_delayed_ring(body: str) -> list[Hint] | None:
    """Return what a delayed ring names; None if the message is none. Raises Malformed."""
    first, *names = body.splitlines() or [""]
    if first != DELAYED_RING:
        return None
    if len(names) > HINTS_MAX:
        raise Malformed(f"it names {len(names)} requests, at most {HINTS_MAX} are allowed")
    return list(map(Hint.parse, names))


# --- writing ----------------------------------------------------------------------------------------------------


def ring(hints: Sequence[Hint] = ()) -> Update:
    """Return what rings the bell and names requests that are enlisted; without any, or with too many, none.

    Their queues are no longer noted: whoever is woken by the ring reads them.
    """
    # Bounded, since every pass that is woken by the ring reads three items for each name.
    if not hints or len(hints) > HINTS_MAX:
        return Update(BELL, set={"by": BY_RING}, add={"rings": 1}, remove=("hints",))
    names = dict.fromkeys(_name(hint.tier, hint.tenant_id) for hint in hints)
    return Update(BELL, set={"by": BY_RING, "hints": list(map(str, hints))}, add={"rings": 1}, remove=tuple(names))


def enlisted(
    requests: Sequence[Request], queues: Iterable[TenantQueue], before: Item | None, now: datetime
) -> Update:
    """Return what the transaction that enlists requests writes: a ring that names them if one is due, and notes of
    the queues of those that are due later. `queues` are theirs, with them; `before` is the bell as it was read.
    """
    dues = [((r.tier, r.tenant_id), r.due_at) for r in requests if r.due_at > now]
    owners = {owner for owner, _ in dues}
    # The bell may be older than the queues, and what was noted there by others not be in it yet. What is due
    # already may have been parked until now.
    for queue in (queue for queue in queues if (queue.tier, queue.tenant_id) in owners):
        entries = (entry for profile in queue.profiles.values() for entry in profile.head_entries)
        dues += [((queue.tier, queue.tenant_id), entry.due_at) for entry in entries]
    first = {owner: min(due for of, due in dues if of == owner) for owner in sorted(owners)}
    bell = _noting(first, later_from(before)) if first else Update(BELL)
    if all(request.due_at > now for request in requests):
        return replace(bell, set={**bell.set, "by": BY_NOTE})
    rung = ring(list(map(Hint.of, requests)))
    rest = tuple(name for name in rung.remove if not name.startswith(_LATER))
    return replace(bell, set={**bell.set, **rung.set}, add={**bell.add, **rung.add}, remove=(*bell.remove, *rest))


def _noting(first_due: Mapping[tuple[str, str], datetime], noted: Later) -> Update:
    """Return what notes queues, by when the first of what is enlisted in each is due."""
    if not noted.complete or len(noted.due_at.keys() | first_due.keys()) > LATER_MAX:
        given_up = tuple(_name(*owner) for owner in noted.due_at)
        return Update(BELL, set={"later_left_out": True}, add={"noted": 1}, remove=given_up)
    due_at = {owner: min(due, noted.due_at.get(owner, due)) for owner, due in first_due.items()}
    return Update(BELL, set={_name(*owner): stamp(due) for owner, due in due_at.items()}, add={"noted": 1})


def put_right(queues: Iterable[TenantQueue], before: Item | None, now: datetime) -> Update | None:
    """Return what notes the queues of which a request is due later, and no others; None if they are noted already,
    or are too many. `queues` are all in which something waits, read after the bell.
    """
    waiting = {(queue.tier, queue.tenant_id): first_due(queue) for queue in queues}
    later = {owner: due for owner, due in waiting.items() if due is not None and due > now}
    noted = later_from(before)
    stale = [_name(*owner) for owner in noted.due_at if owner not in waiting]
    missing = {owner: due for owner, due in later.items() if noted.due_at.get(owner, _NEVER) > due}
    fits = len(later) <= LATER_MAX
    if not fits or not (stale or missing or not noted.complete):
        return None
    return Update(
        BELL,
        set={_name(*owner): stamp(due) for owner, due in missing.items()} | {"by": BY_NOTE},
        add={"noted": 1},
        remove=(*stale, *(() if noted.complete else ("later_left_out",))),
        # What was enlisted since the bell was read is noted, or was left out, and must stay so.
        when=(Is("noted", noted.version) if noted.version else IsOr("noted", 0),),
    )


def delayed_ring(hints: Sequence[Hint]) -> str:
    """Return the message that rings the bell when its delay is over."""
    return "\n".join([DELAYED_RING, *(map(str, hints) if len(hints) <= HINTS_MAX else ())])


def _name(tier: str, tenant_id: str) -> str:
    return f"{_LATER}{tier} {tenant_id}"


def _owner(name: str) -> tuple[str, str]:
    tier, tenant_id = name.removeprefix(_LATER).split(" ")
    return tier, tenant_id
