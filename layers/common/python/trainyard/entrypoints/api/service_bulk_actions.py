"""Bulk actions on the requests of all tenants, and the halt of all that runs; for operators."""

from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query

from trainyard.application.api.bulk_actions import Selection
from trainyard.application.api.trainings import RETRIED
from trainyard.application.scheduling.pauses import Pausable
from trainyard.contracts.api import Cursor, Limit, answers, results
from trainyard.contracts.api_bulk import BulkAnswer, BulkList, HaltBody, ServiceBulkBody, dry_run_of, nothing_of
from trainyard.domain.bulk_actions import OF_SERVICE, BulkKind
from trainyard.domain.errors import Malformed
from trainyard.domain.principals import Access
from trainyard.domain.requests import State
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.bulk_actions import ACTIONS_MAX, TAKEN, aborted, bulk_list, shown
from trainyard.entrypoints.api.calls import (
    Key,
    allow_service,
    check_tier,
    digest,
    limit_calls,
    refuse_parameters_but,
    routes,
)

router = routes()

ACTIONS = "/v1/service/bulk-actions"


@router.post(ACTIONS, summary="Cancel or retry requests of all tenants", responses=TAKEN)
def begin_service_bulk_action(body: ServiceBulkBody, key: Key = None) -> tuple[BulkAnswer, int]:
    """They have their turn one after the other: the answer's `id` says how far that has come."""
    principal = allow_service(Access.CHANGE_SERVICE)
    limit_calls(f"bulk#{principal.caller}", ACTIONS_MAX)
    now = datetime.now(UTC)
    check_selects(body)
    if body.dry_run:
        return dry_run_of(body.action, _selected(body, now)), 200
    action = bootstrap.bulk_requests().begin(
        OF_SERVICE,
        body.action,
        lambda: _selected(body, now),
        now,
        by=principal.signature,
        why=body.reason,
        only=body.state if body.action is BulkKind.CANCEL else None,
        key=key,
        call=digest(body.model_dump_json()),
    )
    return shown(OF_SERVICE, action.action_id, principal), 202


def check_selects(body: ServiceBulkBody) -> None:
    """Raise Malformed where the values of a body do not go together."""
    check_tier(body.tier)
    if body.action is BulkKind.RETRY:
        if body.state not in RETRIED:
            states = ", ".join(sorted(RETRIED))
            raise Malformed(f"state: what is {body.state.value} cannot be tried again; use one of {states}")
        if body.tier is None:
            raise Malformed("tier: name the tier whose requests are to be tried again")
    else:
        if body.day is not None:
            raise Malformed("day: what waits or runs has not ended on any day; leave it out")
        if body.state not in (State.QUEUED, State.RUNNING):
            raise Malformed(f"state: what is {body.state.value} cannot be cancelled; use QUEUED or RUNNING")


def _selected(body: ServiceBulkBody, now: datetime) -> Selection:
    selections = bootstrap.bulk_selections()
    if body.action is BulkKind.RETRY:
        return selections.ended(body.tier or "", body.state, body.day or now.strftime("%Y-%m-%d"))
    return selections.waiting(body.tier) if body.state is State.QUEUED else selections.holding(tier=body.tier)


@router.get(ACTIONS, summary="Bulk actions on requests of all tenants", responses=answers(BulkList))
def list_service_bulk_actions(
    limit: Annotated[Limit, Query()] = 20, cursor: Annotated[Cursor | None, Query()] = None
) -> BulkList:
    """Newest first."""
    principal = allow_service(Access.READ_SERVICE)
    refuse_parameters_but("limit", "cursor")
    return bulk_list(OF_SERVICE, limit, cursor, principal)


@router.get(f"{ACTIONS}/<action_id>", summary="One of the service's bulk actions", responses=answers(BulkAnswer))
def show_service_bulk_action(action_id: str) -> BulkAnswer:
    principal = allow_service(Access.READ_SERVICE)
    refuse_parameters_but()
    return shown(OF_SERVICE, action_id, principal)


@router.post(
    f"{ACTIONS}/<action_id>/abort",
    summary="Abort one of the service's bulk actions",
    responses=results(BulkAnswer),
)
def abort_service_bulk_action(action_id: str) -> BulkAnswer:
    """What has been done stays done; an action that has ended stays as it is."""
    principal = allow_service(Access.CHANGE_SERVICE)
    return aborted(OF_SERVICE, action_id, principal)


@router.post("/v1/service/halt", summary="Pause, and stop what runs", responses=TAKEN)
def halt(body: HaltBody, key: Key = None) -> tuple[BulkAnswer, int]:
    """Of all the service, of a tier or of a tenant. What is stopped can be tried again after a resume."""
    principal = allow_service(Access.CHANGE_SERVICE)
    now, why = datetime.now(UTC), f"halted: {body.reason}" if body.reason else "halted"

    def select() -> Selection:
        return bootstrap.bulk_selections().holding(
            tier=body.name if body.what is Pausable.TIER else None,
            tenant_id=body.name if body.what is Pausable.TENANT else None,
        )

    if body.dry_run:
        bootstrap.pauses().check(body.what, body.name)
        return dry_run_of(BulkKind.CANCEL, select()), 200
    # First, so that nothing starts meanwhile.
    bootstrap.pauses().pause(body.what, body.name, now, by=principal.signature, why=why)
    selection = select()
    if not selection.requests:
        return nothing_of(BulkKind.CANCEL, by=principal.signature, why=why, at=now), 200
    action = bootstrap.bulk_requests().begin(
        OF_SERVICE,
        BulkKind.CANCEL,
        lambda: selection,
        now,
        by=principal.signature,
        why=why,
        key=key,
        call=digest(body.model_dump_json()),
    )
    return shown(OF_SERVICE, action.action_id, principal), 202
