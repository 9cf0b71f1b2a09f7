"""What the HTTP API takes and answers about bulk actions."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from trainyard.application.api.bulk_actions import Selection
from trainyard.application.scheduling.pauses import Pausable
from trainyard.contracts.api import DataSet, Day, Tier
from trainyard.domain.bulk_actions import REQUESTS_MAX, BulkAction, BulkKind, BulkState
from trainyard.domain.principals import Principal
from trainyard.domain.receipts import without_account_number
from trainyard.domain.requests import State

RequestId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
DryRun = Annotated[bool, Field(description="Answer what it would be done to, and do nothing", strict=True)]
Reason = Annotated[
    str,
    StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$"),
    Field(description="Shown to whoever looks at it"),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FilterBody(_Body):
    """Those of a tenant's requests that an action suits, in a state, of a data set."""

    state: State | None = None
    data_set: DataSet | None = None


class BulkBody(_Body):
    """What is to be done to several requests of a tenant: to those named, or to those that a filter selects."""

    action: BulkKind
    request_ids: Annotated[list[RequestId] | None, Field(min_length=1, max_length=REQUESTS_MAX)] = None
    filter: FilterBody | None = None
    reason: Reason = ""
    dry_run: DryRun = False

    @model_validator(mode="after")
    def _selects_in_one_way(self) -> "BulkBody":
        if (self.request_ids is None) == (self.filter is None):
            raise ValueError("give either request_ids, or a filter ({} selects all that the action suits)")
        return self


class ServiceBulkBody(_Body):
    """What is to be done to requests of all tenants: to those of a tier in a state.

    Those that wait or run are cancelled. Those that ended on a day are tried again.
    """

    action: BulkKind
    tier: Tier | None = None
    state: State
    day: Annotated[Day | None, Field(description="Of the end, UTC; today without")] = None
    reason: Reason = ""
    dry_run: DryRun = False


class HaltBody(_Body):
    """What is to be paused, and its requests stopped: all of the service, or a tier or a tenant by its name."""

    what: Pausable
    name: Annotated[str | None, StringConstraints(min_length=1, max_length=40)] = None
    reason: Reason = ""
    dry_run: DryRun = False


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class FailureAnswer(_Answer):
    """A request to which it could not be done."""

    request_id: str
    reason: str


class BulkAnswer(_Answer):
    """Something that is done to several requests, one after the other."""

    id: Annotated[str | None, Field(description="Null of a dry run, and where there was nothing to do")]
    action: BulkKind
    state: Annotated[BulkState | None, Field(description="Null of a dry run")]
    total: Annotated[int, Field(description="Requests that it is about")]
    is_complete: Annotated[
        bool, Field(description=f"False where more were selected than the {REQUESTS_MAX} that one action takes")
    ]
    done: Annotated[int, Field(description="Requests that have had their turn")]
    failed: Annotated[int, Field(description="Of those, the ones to which it could not be done")]
    failures: Annotated[list[FailureAnswer], Field(description="The first 50 of them")]
    by: str
    reason: str
    created_at: datetime | None
    ended_at: datetime | None
    request_ids: Annotated[list[str] | None, Field(description="In their turn; null in lists")]


class BulkList(_Answer):
    """Some of the bulk actions of the last 30 days."""

    items: list[BulkAnswer]
    next: Annotated[str | None, Field(description="The cursor of the next page; null at the end")]


def bulk_of(action: BulkAction, principal: Principal, request_ids: Sequence[str] | None = None) -> BulkAnswer:
    """Return an action as a caller may see it: whoever it is of the provider's is not told to tenants."""
    return BulkAnswer(
        id=action.action_id,
        action=action.kind,
        state=action.state,
        total=action.total,
        is_complete=action.is_complete,
        done=action.done,
        failed=action.failed,
        failures=[
            FailureAnswer(request_id=each.request_id, reason=without_account_number(each.reason))
            for each in action.failures
        ],
        by=action.by if principal.tenant_id is None or action.by.startswith("tenant") else "the provider",
        reason=action.why,
        created_at=action.created_at,
        ended_at=action.ended_at,
        request_ids=None if request_ids is None else list(request_ids),
    )


def dry_run_of(kind: BulkKind, selection: Selection) -> BulkAnswer:
    """Return what an action would be about."""
    ids = [each.request_id for each in selection.requests]
    return _without_id(kind, state=None, request_ids=ids, is_complete=selection.is_complete)


def nothing_of(kind: BulkKind, *, by: str, why: str, at: datetime) -> BulkAnswer:
    """Return an action that was over at once, as there was nothing to do."""
    return _without_id(kind, state=BulkState.DONE, by=by, reason=why, created_at=at, ended_at=at)


def _without_id(
    kind: BulkKind,
    *,
    state: BulkState | None,
    request_ids: Sequence[str] = (),
    is_complete: bool = True,
    by: str = "",
    reason: str = "",
    created_at: datetime | None = None,
    ended_at: datetime | None = None,
) -> BulkAnswer:
    return BulkAnswer(
        id=None,
        action=kind,
        state=state,
        total=len(request_ids),
        is_complete=is_complete,
        done=0,
        failed=0,
        failures=[],
        by=by,
        reason=reason,
        created_at=created_at,
        ended_at=ended_at,
        request_ids=list(request_ids),
    )
