"""Bulk actions: what is to be done to many requests, and how far it has come.

    pk                           sk              what
    bulk#<tenant>                <id>            an action on the requests of a tenant
    bulk-requests#<tenant>       <id>            {request_ids: of the requests that it is about, in their turn}
    service-bulk                 <id>            an action on the requests of several tenants
    service-bulk-requests        <id>            as above
    bulk-unfinished              <owner>#<id>    stands for an action that has not ended

They expire by themselves, 30 days after the action was asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from trainyard.domain.bulk_actions import (
    FAILURES_KEPT,
    OF_SERVICE,
    UNFINISHED,
    BulkAction,
    BulkKind,
    BulkState,
    Failure,
)
from trainyard.domain.errors import Conflict
from trainyard.domain.requests import State
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.store import Absent, Cursor, Delete, Is, Item, Key, OneOf, Put, Store, Update, Write

KEPT_FOR = timedelta(days=30)
_UNFINISHED = OneOf("state", tuple(state.value for state in UNFINISHED))


UNFINISHED_PARTITION = "bulk-unfinished"


def partition_of(owner: str) -> str:
    """Return where the actions of an owner are: the function for tenants has no right to the service's."""
    return "service-bulk" if owner == OF_SERVICE else f"bulk#{owner}"


def bulk_key(owner: str, action_id: str) -> Key:
    return Key("record", (("pk", partition_of(owner)), ("sk", action_id)))


def requests_key(owner: str, action_id: str) -> Key:
    partition = "service-bulk-requests" if owner == OF_SERVICE else f"bulk-requests#{owner}"
    return Key("record", (("pk", partition), ("sk", action_id)))


def unfinished_key(owner: str, action_id: str) -> Key:
    return Key("record", (("pk", UNFINISHED_PARTITION), ("sk", f"{owner}#{action_id}")))


@dataclass(frozen=True, slots=True)
class BulkActions:
    store: Store

    def add(self, action: BulkAction, request_ids: Sequence[str]) -> None:
        expires = {"expires_at": int((action.created_at + KEPT_FOR).timestamp())}
        names = action.owner, action.action_id
        self.store.transact(
            [
                Put(bulk_key(*names), _item(action) | expires, (Absent("pk"),)),
                Put(requests_key(*names), {"request_ids": list(request_ids)} | expires, (Absent("pk"),)),
                Put(unfinished_key(*names), expires),
            ]
        )

    def request_ids(self, owner: str, action_id: str) -> list[str]:
        """Return the ids of the requests that an action is about, in their turn."""
        (item,) = self.store.get(requests_key(owner, action_id))
        return [str(each) for each in item["request_ids"]] if item else []

    def get(self, owner: str, action_id: str) -> BulkAction | None:
        (item,) = self.store.get(bulk_key(owner, action_id))
        return _action(owner, action_id, item) if item else None

    def page(self, owner: str, *, limit: int, after: Cursor | None) -> tuple[list[BulkAction], Cursor | None]:
        """Return at most `limit` of the actions of an owner, newest first, and where the next ones begin.

        Raises Malformed for a cursor of another list.
        """
        page = self.store.query("record", partition_of(owner), limit=limit, newest_first=True, after=after)
        return [_action(owner, str(item["sk"]), item) for item in page.items], page.cursor

    def advance(self, action: BulkAction, failure: Failure | None, now: datetime) -> bool:
        """Store that a request has had its turn; False where that, or an abort, was stored before.

        Raises Conflict where it is to be tried again.
        """
        is_last = action.done + 1 >= action.total
        keeps = failure is not None and len(action.failures) < FAILURES_KEPT
        update = Update(
            bulk_key(action.owner, action.action_id),
            set={
                "state": (BulkState.DONE if is_last else BulkState.RUNNING).value,
                "progress_at": stamp(now),
                **({"ended_at": stamp(now)} if is_last else {}),
            },
            add={"done": 1, "failed": int(failure is not None)},
            append={"failures": [_failure_item(failure)]} if failure and keeps else {},
            when=(Is("done", action.done), _UNFINISHED),
        )
        return self._written(update, *([self._over(action)] if is_last else []))

    def count_after_abort(self, action: BulkAction, failure: Failure | None) -> bool:
        """Store that the request had its turn during which the action was aborted; False where it was not."""
        update = Update(
            bulk_key(action.owner, action.action_id),
            add={"done": 1, "failed": int(failure is not None)},
            when=(Is("done", action.done), Is("state", BulkState.ABORTED.value)),
        )
        return self._written(update)

    def abort(self, action: BulkAction, now: datetime) -> bool:
        """Store that nothing more is to be done; False where it has ended before.

        Raises Conflict where it is to be tried again.
        """
        update = Update(
            bulk_key(action.owner, action.action_id),
            set={"state": BulkState.ABORTED.value, "ended_at": stamp(now)},
            when=(_UNFINISHED,),
        )
        return self._written(update, self._over(action))

    def unfinished(self, *, limit: int) -> list[BulkAction]:
        """Return actions that have not ended, in no order."""
        page = self.store.query("record", UNFINISHED_PARTITION, limit=limit)
        names = [str(item["sk"]).rpartition("#") for item in page.items]
        actions = [self.get(owner, action_id) for owner, _, action_id in names]
        return [action for action in actions if action is not None]

    def _over(self, action: BulkAction) -> Write:
        return Delete(unfinished_key(action.owner, action.action_id))

    def _written(self, *writes: Write) -> bool:
        try:
            self.store.transact(writes)
        except Conflict as conflict:
            if not conflict.failed:
                raise
            return False
        return True


def _item(action: BulkAction) -> Item:
    return {
        "kind": action.kind.value,
        "by": action.by,
        "why": action.why,
        "created_at": stamp(action.created_at),
        "progress_at": stamp(action.progress_at),
        **({"only": action.only.value} if action.only else {}),
        "total": action.total,
        "is_complete": action.is_complete,
        "state": action.state.value,
        "done": action.done,
        "failed": action.failed,
        "failures": [_failure_item(failure) for failure in action.failures],
        **({"ended_at": stamp(action.ended_at)} if action.ended_at else {}),
    }


def _failure_item(failure: Failure) -> Item:
    return {"request_id": failure.request_id, "reason": failure.reason}


def _action(owner: str, action_id: str, item: dict[str, Any]) -> BulkAction:
    return BulkAction(
        action_id=action_id,
        owner=owner,
        kind=BulkKind(item["kind"]),
        by=item["by"],
        why=item["why"],
        created_at=unstamp(item["created_at"]),
        progress_at=unstamp(item["progress_at"]),
        only=State(item["only"]) if "only" in item else None,
        total=int(item["total"]),
        is_complete=bool(item["is_complete"]),
        state=BulkState(item["state"]),
        done=int(item["done"]),
        failed=int(item["failed"]),
        failures=tuple(Failure(request_id=f["request_id"], reason=f["reason"]) for f in item["failures"]),
        ended_at=unstamp(item["ended_at"]) if "ended_at" in item else None,
    )
