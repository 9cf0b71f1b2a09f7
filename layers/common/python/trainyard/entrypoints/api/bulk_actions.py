"""Bulk actions on the requests of a tenant."""

from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query

from trainyard.application.api.bulk_actions import Selection
from trainyard.application.api.trainings import RETRIED
from trainyard.contracts.api import Cursor, Limit, answers, cursor_text, parse_cursor, results
from trainyard.contracts.api_bulk import BulkAnswer, BulkBody, BulkList, bulk_of, dry_run_of
from trainyard.domain.bulk_actions import BulkKind
from trainyard.domain.errors import Malformed
from trainyard.domain.names import REQUEST_ID
from trainyard.domain.principals import Access, Principal
from trainyard.domain.requests import TERMINAL, State
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import (
    Key,
    NotFound,
    allow,
    digest,
    limit_calls,
    refuse_parameters_but,
    routes,
)

router = routes()

ACTIONS = "/v1/tenants/<tenant_id>/bulk-actions"
TAKEN = results(BulkAnswer) | results(BulkAnswer, 422, status=202)
"""A dry run is answered, anything else is taken."""
ACTIONS_MAX = 5
"""Of a caller within ten seconds: each reads up to 5,000 requests."""


@router.post(ACTIONS, summary="Cancel or retry several requests", responses=TAKEN)
def begin_bulk_action(tenant_id: str, body: BulkBody, key: Key = None) -> tuple[BulkAnswer, int]:
    """They have their turn one after the other: the answer's `id` says how far that has come."""
    principal, _ = allow(Access.CHANGE_TENANT, tenant_id)
    limit_calls(f"bulk#{principal.caller}", ACTIONS_MAX)

    check_suits(body)

    def select() -> Selection:
        selections = bootstrap.bulk_selections()
        if body.filter is None:
            return selections.named(tenant_id, body.action, body.request_ids or [])
        return selections.of_tenant(tenant_id, body.action, state=body.filter.state, data_set=body.filter.data_set)

    if body.dry_run:
        return dry_run_of(body.action, select()), 200
    action = bootstrap.bulk_requests().begin(
        tenant_id,
        body.action,
        select,
        datetime.now(UTC),
        by=principal.signature,
        why=body.reason,
        only=body.filter.state if body.filter and body.action is BulkKind.CANCEL else None,
        key=key,
        call=digest(body.model_dump_json()),
    )
    return shown(tenant_id, action.action_id, principal), 202


@router.get(ACTIONS, summary="A tenant's bulk actions, newest first", responses=answers(BulkList))
def list_bulk_actions(
    tenant_id: str, limit: Annotated[Limit, Query()] = 20, cursor: Annotated[Cursor | None, Query()] = None
) -> BulkList:
    principal, _ = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but("limit", "cursor")
    return bulk_list(tenant_id, limit, cursor, principal)


@router.get(f"{ACTIONS}/<action_id>", summary="One of a tenant's bulk actions", responses=answers(BulkAnswer))
def show_bulk_action(tenant_id: str, action_id: str) -> BulkAnswer:
    principal, _ = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    return shown(tenant_id, action_id, principal)


@router.post(f"{ACTIONS}/<action_id>/abort", summary="Abort a bulk action", responses=results(BulkAnswer))
def abort_bulk_action(tenant_id: str, action_id: str) -> BulkAnswer:
    """What has been done stays done; an action that has ended stays as it is."""
    principal, _ = allow(Access.CHANGE_TENANT, tenant_id)
    return aborted(tenant_id, action_id, principal)


def check_suits(body: BulkBody) -> None:
    """Raise Malformed where nothing can be done to requests of the state that a filter has."""
    state = body.filter.state if body.filter else None
    suits = RETRIED if body.action is BulkKind.RETRY else tuple(each for each in State if each not in TERMINAL)
    if state is not None and state not in suits:
        verb = "tried again" if body.action is BulkKind.RETRY else "cancelled"
        raise Malformed(
            f"filter.state: what is {state.value} cannot be {verb}; use one of {', '.join(sorted(suits))}"
        )


def bulk_list(owner: str, limit: int, cursor: str | None, principal: Principal) -> BulkList:
    actions, following = bootstrap.bulk_requests().actions.page(owner, limit=limit, after=parse_cursor(cursor))
    return BulkList(items=[bulk_of(action, principal) for action in actions], next=cursor_text(following))


def shown(owner: str, action_id: str, principal: Principal) -> BulkAnswer:
    """Return an action of an owner, with its requests; raises NotFound."""
    action, actions = None, bootstrap.bulk_requests().actions
    if REQUEST_ID.fullmatch(action_id):
        action = actions.get(owner, action_id)
    if action is None:
        raise NotFound
    return bulk_of(action, principal, actions.request_ids(owner, action_id))


def aborted(owner: str, action_id: str, principal: Principal) -> BulkAnswer:
    """Abort an action of an owner; raises NotFound."""
    shown(owner, action_id, principal)
    action = bootstrap.bulk_requests().abort(owner, action_id, datetime.now(UTC))
    if action is None:
        raise NotFound
    return bulk_of(action, principal)
