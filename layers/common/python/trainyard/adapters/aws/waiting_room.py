"""The waiting room in DynamoDB: tenant queues, ledger and requests, changed in one transaction each.

    pk               sk                 what
    ledger           ledger             used, used_in_<tier>, version, paused
    bell             bell               rings: the one item whose change wakes the dispatcher
    tier#<tier>      tenant#<tenant>    a tenant queue: running, waiting, revision, ready
    tenant#<tenant>  data_set#<name>    a waiting request's place: request_id, arrived_at, due_at, ready

`ready` is the sort key of the local index of the same name: <due>#<arrival>#<request>. A place always has
one; a tenant queue has its head's, and none while nothing waits, so that the index holds only queues in
which something waits. Reads of a local index can be consistent, which those of a global one cannot.
"""

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import translated
from trainyard.adapters.aws.items import (
    Item,
    deserialized,
    outcome_values,
    request_from,
    request_item,
    serialized,
    stamp,
    unstamp,
)
from trainyard.application.ports import Backlog, Enlisted, Enlistment
from trainyard.domain.admission import Decision, Ledger, Snapshot, TenantQueue, WaitingRequest
from trainyard.domain.errors import Conflict, Throttled
from trainyard.domain.newest import Wait, is_newer, wait_after
from trainyard.domain.policy import Policy, TierPolicy
from trainyard.domain.requests import Outcome, Request, State, Submission

TRIES_MAX = 8
"""Of a transaction whose reads were overtaken by another writer."""

TENANT_QUEUES_MAX = 100
"""Read per tier and pass: more than any pass can serve."""

_USED_IN = "used_in_"


@dataclass(frozen=True, slots=True)
class _Queue:
    """A tenant queue's item."""

    running: int = 0
    waiting: int = 0
    revision: int = 0
    ready: str | None = None


class DynamoWaitingRoom:
    """Implements WaitingRoom and Pause."""

    def __init__(self, *, scheduler_table: str, requests_table: str, retention: timedelta) -> None:
        self._scheduler = scheduler_table
        self._requests = requests_table
        self._retention = retention

    # --- enlist -------------------------------------------------------------------------------------------

    def enlist(self, submission: Submission, policy: Policy, now: datetime) -> Enlisted:
        for number in _tries():
            try:
                return self._enlist_once(submission, policy, now)
            except Conflict:
                if number == TRIES_MAX:
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    def _enlist_once(self, submission: Submission, policy: Policy, now: datetime) -> Enlisted:
        known, place, queue, waiting = self._read_for(submission)
        if known is not None:
            older = self._request(known.supersedes) if known.supersedes else None
            return Enlisted(kind=Enlistment.DUPLICATE, request=known, superseded=older)
        wait = wait_after(
            now,
            quiet_period=policy.quiet_period,
            delay_max=policy.delay_max,
            waiting=_wait(place) if place else None,
        )
        request = _queued(submission, wait)
        if waiting is None:
            self._write(
                self._put_request(request),
                self._put_place(request, replaces=None),
                self._update_queue(
                    request, queue, waiting=queue.waiting + 1, ready=_min(queue.ready, _ready(request))
                ),
            )
            return Enlisted(kind=Enlistment.QUEUED, request=request)
        return self._merge(request, waiting, queue, now)

    def _merge(self, request: Request, waiting: Request, queue: _Queue, now: datetime) -> Enlisted:
        """Let the newer of two uploads of a data set keep the place; the other is superseded by it."""
        newer = is_newer(request.content, waiting.content)
        winner, loser = (request, waiting) if newer else (waiting, request)
        winner = replace(winner, arrived_at=request.arrived_at, due_at=request.due_at)
        winner = replace(winner, supersedes=loser.request_id) if newer else winner
        loser = replace(loser, state=State.SUPERSEDED, superseded_by=winner.request_id, finished_at=now)
        was_head = queue.ready == _ready(waiting)
        self._write(
            self._put_request(winner) if newer else self._put_request(loser),
            self._replace_waiting(loser if newer else winner),
            self._put_place(winner, replaces=waiting.request_id),
            self._update_queue(
                winner,
                queue,
                waiting=queue.waiting,
                ready=self._head_after(waiting, winner) if was_head else _min(queue.ready, _ready(winner)),
            ),
        )
        return Enlisted(
            kind=Enlistment.REPLACED if newer else Enlistment.OUTDATED,
            request=winner if newer else loser,
            superseded=loser if newer else None,
        )

    def _head_after(self, head: Request, moved: Request) -> str:
        """Return the head's key once `moved` has taken the place of `head`: its own, or that of the next."""
        places = [_place_ready(place) for place in self._places(moved.tenant_id, limit=2)]
        return min([*(place for place in places if place != _ready(head)), _ready(moved)])

    def _read_for(self, submission: Submission) -> tuple[Request | None, Item | None, _Queue, Request | None]:
        """Return the request if known, the data set's place, the tenant queue, and who holds the place."""
        place_key = _place_key(submission.tenant_id, submission.data_set)
        queue_key = _queue_key(submission.tier, submission.tenant_id)
        found = self._get_all(
            (self._requests, {"request_id": submission.request_id}),
            (self._scheduler, place_key),
            (self._scheduler, queue_key),
        )
        known, place, queue = found
        waiting = None
        if known is None and place is not None:
            (item,) = self._get_all((self._requests, {"request_id": deserialized(place)["request_id"]}))
            if item is None or deserialized(item)["state"] != State.QUEUED:
                raise Conflict("the place changed hands while it was read")
            waiting = request_from(item)
        return (
            request_from(known) if known else None,
            deserialized(place) if place else None,
            _queue_from(queue),
            waiting,
        )

    # --- dispatch -----------------------------------------------------------------------------------------

    def snapshot(self, policy: Policy, now: datetime) -> Snapshot:
        """Read the ledger first: a finish in between only frees slots, an admission moves the version."""
        ledger = self.ledger()
        queues: list[TenantQueue] = []
        if not ledger.paused:
            for tier in policy.tiers:
                free = min(tier.quota - ledger.used_by_tier.get(tier.name, 0), policy.running_max - ledger.used)
                queues += self._ready_queues(tier, free, now) if free > 0 else []
        return Snapshot(ledger=ledger, queues=tuple(queues))

    def ledger(self) -> Ledger:
        (item,) = self._get_all((self._scheduler, {"pk": "ledger", "sk": "ledger"}))
        values = deserialized(item) if item else {}
        return Ledger(
            version=int(values.get("version", 0)),
            used=int(values.get("used", 0)),
            used_by_tier={
                name.removeprefix(_USED_IN): int(value)
                for name, value in values.items()
                if name.startswith(_USED_IN)
            },
            paused=bool(values.get("paused", False)),
        )

    def _ready_queues(self, tier: TierPolicy, free: int, now: datetime) -> list[TenantQueue]:
        """Return the queues that `free` admissions can concern: each takes the best, so no more matter."""
        pages = self._query(
            f"tier#{tier.name}",
            ready_max=f"{stamp(now)}~",
            FilterExpression="running < :cap",
            extra={":cap": tier.running_max_per_tenant},
        )
        found = [(_tenant_of(item), _queue_from(item)) for item in islice(pages, TENANT_QUEUES_MAX)]
        found.sort(key=lambda pair: (pair[1].running, pair[1].ready))
        return [
            self._tenant_queue(tenant_id, tier, queue, min(free, tier.running_max_per_tenant - queue.running), now)
            for tenant_id, queue in found[:free]
        ]

    def _tenant_queue(
        self, tenant_id: str, tier: TierPolicy, queue: _Queue, admissible: int, now: datetime
    ) -> TenantQueue:
        places = [_waiting_request(place) for place in self._places(tenant_id, limit=admissible + 1)]
        due = [place for place in places[:admissible] if place.due_at <= now]
        return TenantQueue(
            tenant_id=tenant_id,
            tier=tier.name,
            revision=queue.revision,
            running=queue.running,
            waiting=tuple(due),
            next_up=places[len(due)] if len(places) > len(due) else None,
        )

    def commit(self, admissions: Sequence[Decision], snapshot: Snapshot, policy: Policy, now: datetime) -> None:
        by_queue: dict[str, list[Decision]] = {}
        for decision in admissions:
            by_queue.setdefault(decision.queue.tenant_id, []).append(decision)
        actions = [self._take_slots(Counter(d.queue.tier for d in admissions), snapshot.ledger, policy)]
        for decisions in by_queue.values():
            actions.append(self._leave_queue(decisions, policy))
        for decision in admissions:
            actions.append(self._admit(decision, now))
            actions.append(self._delete_place(decision.queue.tenant_id, decision.request))
        self._write(*actions)

    def _take_slots(self, by_tier: Counter[str], ledger: Ledger, policy: Policy) -> Item:
        """Count the slots as taken, on condition that no limit is exceeded and nobody else admitted.

        Raises Conflict when they exceed a limit by themselves: a ledger that is not there yet has no count
        that the condition could look at.
        """
        taken = sum(by_tier.values())
        if taken > policy.running_max or any(n > _quota(policy, tier) for tier, n in by_tier.items()):
            raise Conflict("more slots than the limits allow")
        names = {"#version": "version", "#used": "used"}
        values: Item = {
            ":one": 1,
            ":taken": taken,
            ":version": ledger.version,
            ":used_max": policy.running_max - taken,
            ":false": False,
        }
        conditions = [
            "(attribute_not_exists(#version) OR #version = :version)",
            "(attribute_not_exists(#used) OR #used <= :used_max)",
            "(attribute_not_exists(paused) OR paused = :false)",
        ]
        adds = ["#version :one", "#used :taken"]
        for number, (tier_name, count) in enumerate(by_tier.items()):
            names[f"#tier{number}"] = f"{_USED_IN}{tier_name}"
            values |= {f":tier{number}": count, f":tier{number}_max": _quota(policy, tier_name) - count}
            conditions.append(f"(attribute_not_exists(#tier{number}) OR #tier{number} <= :tier{number}_max)")
            adds.append(f"#tier{number} :tier{number}")
        return self._update(
            self._scheduler,
            {"pk": "ledger", "sk": "ledger"},
            f"ADD {', '.join(adds)}",
            " AND ".join(conditions),
            values,
            names,
        )

    def _leave_queue(self, decisions: Sequence[Decision], policy: Policy) -> Item:
        """Move a queue's head past what was admitted, on condition of the tenant's cap."""
        queue = decisions[0].queue
        tier = policy.tier(queue.tier)
        assert tier is not None, "decide admits only tiers of the policy"
        admitted = {decision.request.request_id for decision in decisions}
        left = [r for r in (*queue.waiting, queue.next_up) if r is not None and r.request_id not in admitted]
        count = len(decisions)
        values: Item = {
            ":one": 1,
            ":count": count,
            ":minus": -count,
            ":revision": queue.revision,
            ":running_max": tier.running_max_per_tenant - count,
        }
        if left:
            values[":ready"] = min(_ready(request) for request in left)
        return self._update(
            self._scheduler,
            _queue_key(queue.tier, queue.tenant_id),
            f"{'SET ready = :ready' if left else 'REMOVE ready'} "
            "ADD revision :one, running :count, waiting :minus",
            "revision = :revision AND running <= :running_max",
            values,
        )

    def _admit(self, decision: Decision, now: datetime) -> Item:
        return self._update(
            self._requests,
            {"request_id": decision.request.request_id},
            "SET #state = :admitted, activity = :admitted, since = :now, admitted_at = :now "
            "REMOVE reason ADD attempt :one",
            "#state = :queued",
            {":admitted": State.ADMITTED, ":queued": State.QUEUED, ":now": stamp(now), ":one": 1},
            {"#state": "state"},
        )

    def mark_running(self, request_id: str, attempt: int, execution_arn: str, now: datetime) -> bool:
        return self._write_or_false(
            self._update(
                self._requests,
                {"request_id": request_id},
                "SET #state = :running, activity = :running, since = :now, started_at = :now, "
                "execution_arn = :arn",
                "#state = :admitted AND attempt = :attempt",
                {
                    ":running": State.RUNNING,
                    ":admitted": State.ADMITTED,
                    ":attempt": attempt,
                    ":arn": execution_arn,
                    ":now": stamp(now),
                },
                {"#state": "state"},
            )
        )

    def requeue(self, request: Request, *, due_at: datetime, reason: str, now: datetime) -> list[Request]:
        for _ in _tries():
            queued = replace(
                request, state=State.QUEUED, due_at=due_at, reason=reason, admitted_at=None, started_at=None
            )
            place, item = self._get_all(
                (self._scheduler, _place_key(request.tenant_id, request.data_set)),
                (self._scheduler, _queue_key(request.tier, request.tenant_id)),
            )
            holder = self._request(str(deserialized(place)["request_id"])) if place is not None else None
            try:
                if holder is not None and is_newer(holder.content, request.content):
                    return self._give_way(request, holder, reason, now)
                return self._take_back(queued, holder, _queue_from(item), now)
            except Conflict:
                if not self._is_admitted(request):
                    return []
        raise Conflict(f"request {request.request_id} could not be put back")

    def _give_way(self, request: Request, holder: Request, reason: str, now: datetime) -> list[Request]:
        """End a request whose place a newer upload holds."""
        ended = replace(
            request,
            state=State.SUPERSEDED,
            superseded_by=holder.request_id,
            reason=reason,
            finished_at=now,
        )
        moved = self._end(ended, State.SUPERSEDED, reason=reason, outcome=Outcome(), now=now)
        return [ended] if moved else []

    def _take_back(self, queued: Request, holder: Request | None, queue: _Queue, now: datetime) -> list[Request]:
        """Queue a request again, in the place of an older upload if one holds it. Raises Conflict."""
        older = (
            replace(holder, state=State.SUPERSEDED, superseded_by=queued.request_id, finished_at=now)
            if holder is not None
            else None
        )
        actions = [
            self._put_request(queued, only_if="#state = :admitted AND attempt = :attempt"),
            self._put_place(queued, replaces=older.request_id if older else None),
            self._release_slot(queued),
            self._update_queue(
                queued,
                queue,
                waiting=queue.waiting + (0 if older else 1),
                ready=_min(queue.ready, _ready(queued)),
                running=queue.running - 1,
            ),
        ]
        if older is not None:
            actions.append(self._replace_waiting(older))
        self._write(*actions)
        return [queued] + ([older] if older else [])

    def _is_admitted(self, request: Request) -> bool:
        current = self._request(request.request_id)
        return current is not None and current.state is State.ADMITTED and current.attempt == request.attempt

    # --- ends ---------------------------------------------------------------------------------------------

    def finish(
        self, request: Request, state: State, *, reason: str | None, outcome: Outcome, now: datetime
    ) -> bool:
        return self._end(request, state, reason=reason, outcome=outcome, now=now)

    def _end(
        self,
        request: Request,
        state: State,
        *,
        reason: str | None,
        outcome: Outcome,
        now: datetime,
    ) -> bool:
        """End an attempt that holds a slot; a condition on state and attempt makes it happen once."""
        changes: Item = {
            "state": state.value,
            "finished_at": stamp(now),
            "reason": reason,
            "superseded_by": request.superseded_by,
            "execution_arn": request.execution_arn,
            "expires_at": self._expiry(now),
        } | outcome_values(outcome)
        changes = {name: value for name, value in changes.items() if value is not None}
        names = {f"#{name}": name for name in changes} | {"#state": "state"}
        return self._write_or_false(
            self._update(
                self._requests,
                {"request_id": request.request_id},
                f"SET {', '.join(f'#{name} = :{name}' for name in changes)} REMOVE activity, since",
                "#state IN (:admitted, :running) AND attempt = :attempt",
                {f":{name}": value for name, value in changes.items()}
                | {":admitted": State.ADMITTED, ":running": State.RUNNING, ":attempt": request.attempt},
                names,
            ),
            self._release_slot(request),
            self._update(
                self._scheduler,
                _queue_key(request.tier, request.tenant_id),
                "ADD running :minus",
                "running >= :one",
                {":minus": -1, ":one": 1},
            ),
        )

    def _release_slot(self, request: Request) -> Item:
        return self._update(
            self._scheduler,
            {"pk": "ledger", "sk": "ledger"},
            "ADD #used :minus, #tier :minus",
            "#used >= :one AND #tier >= :one",
            {":minus": -1, ":one": 1},
            {"#used": "used", "#tier": f"{_USED_IN}{request.tier}"},
        )

    def cancel(self, request: Request, now: datetime) -> bool:
        for _ in _tries():
            place, item = self._get_all(
                (self._scheduler, _place_key(request.tenant_id, request.data_set)),
                (self._scheduler, _queue_key(request.tier, request.tenant_id)),
            )
            if place is None or deserialized(place)["request_id"] != request.request_id:
                return False
            queue = _queue_from(item)
            rest = [p for p in self._places(request.tenant_id, limit=2) if p["request_id"] != request.request_id]
            cancelled = replace(request, state=State.CANCELLED, finished_at=now)
            try:
                self._write(
                    self._put_request(cancelled, only_if="#state = :queued"),
                    self._delete_place(request.tenant_id, _waiting_request(deserialized(place))),
                    self._update_queue(
                        request,
                        queue,
                        waiting=queue.waiting - 1,
                        ready=min(map(_place_ready, rest)) if rest else None,
                    ),
                )
            except Conflict:
                continue
            return True
        raise Conflict(f"request {request.request_id} could not be cancelled")

    # --- watch and halt -----------------------------------------------------------------------------------

    def backlog(self, policy: Policy) -> dict[str, Backlog]:
        return {tier.name: _backlog(self._query(f"tier#{tier.name}")) for tier in policy.tiers}

    def set_paused(self, paused: bool) -> None:
        self._write(
            self._update(
                self._scheduler,
                {"pk": "ledger", "sk": "ledger"},
                "SET paused = :paused ADD #version :one",
                None,
                {":paused": paused, ":one": 1},
                {"#version": "version"},
            )
        )

    # --- DynamoDB -----------------------------------------------------------------------------------------

    def _write(self, *actions: Item) -> None:
        """Write all or nothing; raises Conflict when a condition does not hold."""
        assert len(actions) <= 100, "a transaction takes at most 100 actions"
        with translated():
            client("dynamodb").transact_write_items(TransactItems=list(actions))

    def _write_or_false(self, *actions: Item) -> bool:
        """Write all or nothing; False when the request's own condition, the first action's, fails.

        Another writer on the ledger cancels a transaction too; that is no answer, so it is tried again.
        """
        for number in _tries():
            try:
                self._write(*actions)
            except Conflict as conflict:
                if "action 0: ConditionalCheckFailed" in str(conflict):
                    return False
                if number == TRIES_MAX:
                    raise
                continue
            return True
        raise AssertionError("unreachable: the last try returns or raises")

    def _get_all(self, *keys: tuple[str, Item]) -> list[Item | None]:
        """Read items of any tables consistently, in the order asked for; None where there is none."""
        asked: dict[str, Item] = {}
        for table, key in keys:
            asked.setdefault(table, {"ConsistentRead": True, "Keys": []})["Keys"].append(serialized(key))
        with translated():
            answer = client("dynamodb").batch_get_item(RequestItems=asked)
        if answer.get("UnprocessedKeys"):
            raise Throttled("DynamoDB left keys unread")
        found = answer["Responses"]
        return [
            next((item for item in found.get(table, []) if serialized(key).items() <= item.items()), None)
            for table, key in keys
        ]

    def _request(self, request_id: str) -> Request | None:
        (item,) = self._get_all((self._requests, {"request_id": request_id}))
        return request_from(item) if item else None

    def _places(self, tenant_id: str, *, limit: int) -> list[Item]:
        """Return a tenant's waiting places, first due first."""
        places = islice(self._query(f"tenant#{tenant_id}", Limit=limit), limit)
        return [deserialized(item) for item in places]

    def _query(
        self, partition: str, *, ready_max: str | None = None, extra: Item | None = None, **options: Any
    ) -> Iterator[Item]:
        """Yield the items of a partition that have a `ready`, in its order, consistently read."""
        values: Item = {":pk": partition} | (extra or {})
        condition = "pk = :pk"
        if ready_max is not None:
            condition += " AND ready <= :ready_max"
            values[":ready_max"] = ready_max
        arguments: Item = options | {
            "TableName": self._scheduler,
            "IndexName": "ready",
            "ConsistentRead": True,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": serialized(values),
        }
        while True:
            with translated():
                page = client("dynamodb").query(**arguments)
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _put_request(self, request: Request, only_if: str | None = None) -> Item:
        item = request_item(request)
        if request.state is State.QUEUED:
            item |= serialized({"activity": request.state.value, "since": stamp(request.arrived_at)})
        else:
            item |= serialized({"expires_at": self._expiry(request.finished_at or request.arrived_at)})
        action: Item = {
            "TableName": self._requests,
            "Item": item,
            "ConditionExpression": only_if or "attribute_not_exists(request_id)",
        }
        if only_if is not None:
            values = {
                ":admitted": State.ADMITTED.value,
                ":queued": State.QUEUED.value,
                ":attempt": request.attempt,
            }
            action["ExpressionAttributeNames"] = {"#state": "state"}
            action["ExpressionAttributeValues"] = serialized(
                {name: value for name, value in values.items() if name in only_if}
            )
        return {"Put": action}

    def _replace_waiting(self, request: Request) -> Item:
        """Rewrite a request that waits: superseded now, or with another due time."""
        return self._put_request(request, only_if="#state = :queued")

    def _put_place(self, request: Request, *, replaces: str | None) -> Item:
        item = _place_key(request.tenant_id, request.data_set) | {
            "request_id": request.request_id,
            "data_set": request.data_set,
            "arrived_at": stamp(request.arrived_at),
            "due_at": stamp(request.due_at),
            "ready": _ready(request),
        }
        action: Item = {"TableName": self._scheduler, "Item": serialized(item)}
        if replaces is None:
            action["ConditionExpression"] = "attribute_not_exists(pk)"
        else:
            action["ConditionExpression"] = "request_id = :replaces"
            action["ExpressionAttributeValues"] = serialized({":replaces": replaces})
        return {"Put": action}

    def _delete_place(self, tenant_id: str, request: WaitingRequest) -> Item:
        return {
            "Delete": {
                "TableName": self._scheduler,
                "Key": serialized(_place_key(tenant_id, request.data_set)),
                "ConditionExpression": "request_id = :request_id",
                "ExpressionAttributeValues": serialized({":request_id": request.request_id}),
            }
        }

    def _update_queue(
        self, request: Request, queue: _Queue, *, waiting: int, ready: str | None, running: int | None = None
    ) -> Item:
        """Set a tenant queue's head and counts, on condition that it is as it was read."""
        values: Item = {":waiting": waiting, ":revision": queue.revision, ":next": queue.revision + 1}
        sets = ["waiting = :waiting", "revision = :next"]
        if ready is not None:
            values[":ready"] = ready
            sets.append("ready = :ready")
        if running is None:
            values[":zero"] = 0
            sets.append("running = if_not_exists(running, :zero)")
        else:
            values |= {":running": running, ":was": queue.running}
            sets.append("running = :running")
        return self._update(
            self._scheduler,
            _queue_key(request.tier, request.tenant_id),
            f"SET {', '.join(sets)}" + (" REMOVE ready" if ready is None else ""),
            (
                "revision = :revision"
                if queue.revision
                else "(attribute_not_exists(revision) OR revision = :revision)"
            )
            + (" AND running = :was" if running is not None else ""),
            values,
        )

    def _update(
        self,
        table: str,
        key: Item,
        expression: str,
        condition: str | None,
        values: Item,
        names: dict[str, str] | None = None,
    ) -> Item:
        """Return an Update action; an expression without a condition always holds."""
        action: Item = {
            "TableName": table,
            "Key": serialized(key),
            "UpdateExpression": expression,
            "ExpressionAttributeValues": serialized(values),
        }
        if condition:
            action["ConditionExpression"] = condition
        if names:
            action["ExpressionAttributeNames"] = names
        return {"Update": action}

    def _expiry(self, ended_at: datetime) -> int:
        """Return the time to live, in whole seconds since 1970."""
        return int((ended_at + self._retention).timestamp())


def _tries() -> Iterator[int]:
    """Count the tries of a contended write, resting a little longer before each further one."""
    for number in range(1, TRIES_MAX + 1):
        if number > 1:
            time.sleep(random.uniform(0, 0.02 * 2**number))  # noqa: S311 - jitter, no secret
        yield number


def _quota(policy: Policy, tier_name: str) -> int:
    tier = policy.tier(tier_name)
    assert tier is not None, "decide admits only tiers of the policy"
    return tier.quota


def _queued(submission: Submission, wait: Wait) -> Request:
    return Request(
        request_id=submission.request_id,
        tenant_id=submission.tenant_id,
        tier=submission.tier,
        data_set=submission.data_set,
        content=submission.content,
        cause=submission.cause,
        state=State.QUEUED,
        arrived_at=wait.arrived_at,
        due_at=wait.due_at,
    )


def _queue_key(tier: str, tenant_id: str) -> Item:
    return {"pk": f"tier#{tier}", "sk": f"tenant#{tenant_id}"}


def _place_key(tenant_id: str, data_set: str) -> Item:
    return {"pk": f"tenant#{tenant_id}", "sk": f"data_set#{data_set}"}


def _ready(request: Request | WaitingRequest) -> str:
    return f"{stamp(request.due_at)}#{stamp(request.arrived_at)}#{request.request_id}"


def _place_ready(place: Item) -> str:
    return str(place["ready"])


def _min(first: str | None, second: str) -> str:
    return second if first is None else min(first, second)


def _wait(place: Item) -> Wait:
    return Wait(unstamp(place["arrived_at"]), unstamp(place["due_at"]))


def _waiting_request(place: Item) -> WaitingRequest:
    return WaitingRequest(
        request_id=place["request_id"],
        data_set=place["data_set"],
        arrived_at=unstamp(place["arrived_at"]),
        due_at=unstamp(place["due_at"]),
    )


def _queue_from(item: Item | None) -> _Queue:
    values = deserialized(item) if item else {}
    return _Queue(
        running=int(values.get("running", 0)),
        waiting=int(values.get("waiting", 0)),
        revision=int(values.get("revision", 0)),
        ready=values.get("ready"),
    )


def _tenant_of(item: Item) -> str:
    return str(deserialized(item)["sk"]).removeprefix("tenant#")


def _backlog(items: Iterable[Item]) -> Backlog:
    queues = [_queue_from(item) for item in items]
    heads = [unstamp(queue.ready.split("#")[1]) for queue in queues if queue.ready]
    return Backlog(waiting=sum(queue.waiting for queue in queues), oldest_arrived_at=min(heads, default=None))
