"""Bulk actions on the requests of a tenant."""

from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query

from trainyard.contracts.api import Cursor, Limit, answers, cursor_text, parse_cursor, results
from trainyard.contracts.api_bulk import BulkAnswer, BulkBody, BulkList, bulk_of, dry_run_of
from trainyard.domain.bulk_actions import BulkAction
from trainyard.domain.names import REQUEST_ID
from trainyard.domain.principals import Access
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import NotFound, allow, limit_calls, refuse_parameters_but, routes

router = routes()

ACTIONS = "/v1/tenants/<tenant_id>/bulk-actions"
TAKEN = results(BulkAnswer) | results(BulkAnswer, status=202)
"""A dry run is answered, anything else is taken."""
ACTIONS_MAX = 5
"""Of a caller within ten seconds: each reads up to 5,000 requests."""


@router.post(ACTIONS, summary="Cancel or retry several requests", responses=TAKEN)
def begin_bulk_action(tenant_id: str, body: BulkBody) -> tuple[BulkAnswer, int]:
    """They have their turn one after the other: the answer's `id` says how far that has come."""
    principal, _ = allow(Access.CHANGE_TENANT, tenant_id)
    limit_calls(f"bulk#{principal.caller}", ACTIONS_MAX)
    selections = bootstrap.bulk_selections()
    if body.filter is None:
        selection = selections.named(tenant_id, body.action, body.request_ids or [])
    else:
        selection = selections.of_tenant(
            tenant_id, body.action, state=body.filter.state, data_set=body.filter.data_set
        )
    if body.dry_run:
        return dry_run_of(body.action, selection), 200
    action = bootstrap.bulk_requests().begin(
        tenant_id, body.action, selection, datetime.now(UTC), by=principal.signature, why=body.reason
    )
    return bulk_of(action, [each.request_id for each in selection.requests]), 202


@router.get(ACTIONS, summary="A tenant's bulk actions, newest first", responses=answers(BulkList))
def list_bulk_actions(
    tenant_id: str, limit: Annotated[Limit, Query()] = 20, cursor: Annotated[Cursor | None, Query()] = None
) -> BulkList:
    allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but("limit", "cursor")
    return bulk_list(tenant_id, limit, cursor)


@router.get(f"{ACTIONS}/<action_id>", summary="One of a tenant's bulk actions", responses=answers(BulkAnswer))
def show_bulk_action(tenant_id: str, action_id: str) -> BulkAnswer:
    allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    return shown(tenant_id, action_id)


@router.post(f"{ACTIONS}/<action_id>/abort", summary="Abort a bulk action", responses=results(BulkAnswer))
def abort_bulk_action(tenant_id: str, action_id: str) -> BulkAnswer:
    """What has been done stays done; an action that has ended stays as it is."""
    allow(Access.CHANGE_TENANT, tenant_id)
    return aborted(tenant_id, action_id)


def bulk_list(owner: str, limit: int, cursor: str | None) -> BulkList:
    actions, following = bootstrap.bulk_requests().actions.page(owner, limit=limit, after=parse_cursor(cursor))
    return BulkList(items=[bulk_of(action) for action in actions], next=cursor_text(following))


def bulk_action(owner: str, action_id: str) -> BulkAction:
    """Return an action of an owner; raises NotFound."""
    action = None
    if REQUEST_ID.fullmatch(action_id):
        action = bootstrap.bulk_requests().actions.get(owner, action_id)
    if action is None:
        raise NotFound
    return action


def shown(owner: str, action_id: str) -> BulkAnswer:
    """Return an action of an owner, with its requests; raises NotFound."""
    action = bulk_action(owner, action_id)
    return bulk_of(action, bootstrap.bulk_requests().actions.request_ids(owner, action_id))


def aborted(owner: str, action_id: str) -> BulkAnswer:
    """Abort an action of an owner; raises NotFound."""
    bulk_action(owner, action_id)
    action = bootstrap.bulk_requests().abort(owner, action_id, datetime.now(UTC))
    if action is None:
        raise NotFound
    return bulk_of(action)
