"""Bulk actions on the requests of all tenants, and the halt of all that runs; for operators."""

from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query

from trainyard.application.api.bulk_actions import Selection
from trainyard.application.api.trainings import RETRIED
from trainyard.application.scheduling.pauses import Pausable
from trainyard.contracts.api import Cursor, Limit, answers, results
from trainyard.contracts.api_bulk import BulkAnswer, BulkList, HaltBody, ServiceBulkBody, bulk_of, dry_run_of
from trainyard.domain.bulk_actions import OF_SERVICE, BulkKind
from trainyard.domain.errors import Malformed
from trainyard.domain.principals import Access
from trainyard.domain.requests import State
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.bulk_actions import ACTIONS_MAX, TAKEN, aborted, bulk_list, shown
from trainyard.entrypoints.api.calls import allow_service, limit_calls, refuse_parameters_but, routes

router = routes()

ACTIONS = "/v1/service/bulk-actions"


@router.post(ACTIONS, summary="Cancel or retry requests of all tenants", responses=TAKEN)
def begin_service_bulk_action(body: ServiceBulkBody) -> tuple[BulkAnswer, int]:
    """They have their turn one after the other: the answer's `id` says how far that has come."""
    principal = allow_service(Access.CHANGE_SERVICE)
    limit_calls(f"bulk#{principal.caller}", ACTIONS_MAX)
    now = datetime.now(UTC)
    selection = _selected(body, now)
    if body.dry_run:
        return dry_run_of(body.action, selection), 200
    action = bootstrap.bulk_requests().begin(
        OF_SERVICE, body.action, selection, now, by=principal.signature, why=body.reason
    )
    return bulk_of(action, [each.request_id for each in selection.requests]), 202


def _selected(body: ServiceBulkBody, now: datetime) -> Selection:
    """Return the requests that a body selects; raises Malformed where its values do not go together."""
    selections = bootstrap.bulk_selections()
    if body.action is BulkKind.RETRY:
        if body.state not in RETRIED:
            states = ", ".join(sorted(RETRIED))
            raise Malformed(f"state: what is {body.state.value} cannot be tried again; use one of {states}")
        if body.tier is None:
            raise Malformed("tier: name the tier whose requests are to be tried again")
        return selections.ended(body.tier, body.state, body.day or now.strftime("%Y-%m-%d"))
    if body.day is not None:
        raise Malformed("day: what waits or runs has not ended on any day; leave it out")
    if body.state is State.QUEUED:
        return selections.waiting(body.tier)
    if body.state is State.RUNNING:
        return selections.holding(tier=body.tier)
    raise Malformed(f"state: what is {body.state.value} cannot be cancelled; use QUEUED or RUNNING")


@router.get(ACTIONS, summary="Bulk actions on requests of all tenants", responses=answers(BulkList))
def list_service_bulk_actions(
    limit: Annotated[Limit, Query()] = 20, cursor: Annotated[Cursor | None, Query()] = None
) -> BulkList:
    """Newest first."""
    allow_service(Access.READ_SERVICE)
    refuse_parameters_but("limit", "cursor")
    return bulk_list(OF_SERVICE, limit, cursor)


@router.get(f"{ACTIONS}/<action_id>", summary="One of the service's bulk actions", responses=answers(BulkAnswer))
def show_service_bulk_action(action_id: str) -> BulkAnswer:
    allow_service(Access.READ_SERVICE)
    refuse_parameters_but()
    return shown(OF_SERVICE, action_id)


@router.post(
    f"{ACTIONS}/<action_id>/abort",
    summary="Abort one of the service's bulk actions",
    responses=results(BulkAnswer),
)
def abort_service_bulk_action(action_id: str) -> BulkAnswer:
    """What has been done stays done; an action that has ended stays as it is."""
    allow_service(Access.CHANGE_SERVICE)
    return aborted(OF_SERVICE, action_id)


@router.post("/v1/service/halt", summary="Pause, and stop what runs", responses=TAKEN)
def halt(body: HaltBody) -> tuple[BulkAnswer, int]:
    """Of all the service, of a tier or of a tenant. What is stopped can be tried again after a resume."""
    principal = allow_service(Access.CHANGE_SERVICE)
    now, why = datetime.now(UTC), f"halted: {body.reason}" if body.reason else "halted"
    if body.dry_run:
        bootstrap.pauses().check(body.what, body.name)
    else:  # first, so that nothing starts meanwhile
        bootstrap.pauses().pause(body.what, body.name, now, by=principal.signature, why=why)
    selection = bootstrap.bulk_selections().holding(
        tier=body.name if body.what is Pausable.TIER else None,
        tenant_id=body.name if body.what is Pausable.TENANT else None,
    )
    if body.dry_run or not selection.requests:
        return dry_run_of(BulkKind.CANCEL, selection), 200
    action = bootstrap.bulk_requests().begin(
        OF_SERVICE, BulkKind.CANCEL, selection, now, by=principal.signature, why=why
    )
    return bulk_of(action, [each.request_id for each in selection.requests]), 202
