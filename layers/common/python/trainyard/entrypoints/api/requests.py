"""Requests: list, show, explain, ask for, try again, and cancel."""

from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query

from trainyard.application.api.quotes import prospect_of
from trainyard.application.api.trainings import check_retried
from trainyard.contracts.api import (
    Cursor,
    DataSet,
    Limit,
    answers,
    cursor_text,
    parse_cursor,
    results,
)
from trainyard.contracts.api_answers import (
    Asked,
    QuoteAnswer,
    RequestAnswer,
    RequestList,
    Why,
    quote_of,
    request_of,
    why_of,
)
from trainyard.contracts.api_bodies import QuoteBody, TrainingBody
from trainyard.domain.principals import Access
from trainyard.domain.receipts import waiting_of
from trainyard.domain.requests import State
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import Key, allow, digest, refuse_parameters_but, routes, tenants_request

router = routes()

REQUESTS = "/v1/tenants/<tenant_id>/requests"
REQUEST = f"{REQUESTS}/<request_id>"


@router.get(REQUESTS, summary="A tenant's requests, newest first", responses=answers(RequestList))
def list_requests(
    tenant_id: str,
    limit: Annotated[Limit, Query()] = 20,
    cursor: Annotated[Cursor | None, Query()] = None,
    state: Annotated[State | None, Query()] = None,
    data_set: Annotated[DataSet | None, Query()] = None,
) -> RequestList:
    allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but("limit", "cursor", "state", "data_set")
    page = bootstrap.request_pages().of_tenant(
        tenant_id, limit=limit, after=parse_cursor(cursor), state=state, data_set=data_set
    )
    return RequestList(items=[request_of(request) for request in page.requests], next=cursor_text(page.cursor))


@router.get(REQUEST, summary="One of a tenant's requests", responses=answers(RequestAnswer))
def show_request(tenant_id: str, request_id: str) -> RequestAnswer:
    allow(Access.READ_TENANT, tenant_id)
    return request_of(tenants_request(tenant_id, request_id))


@router.get(f"{REQUEST}/why", summary="Why a request waits", responses=answers(Why, 409))
def explain_request(tenant_id: str, request_id: str) -> Why:
    allow(Access.READ_TENANT, tenant_id)
    request = tenants_request(tenant_id, request_id)
    explanation = bootstrap.explain().why(request.request_id, datetime.now(UTC))
    return why_of(explanation, waiting_of(prospect_of(explanation)))


@router.post(REQUESTS, summary="Ask for a training", responses=results(Asked, 422, status=202))
def ask_for_training(
    tenant_id: str,
    body: TrainingBody,
    key: Key = None,
) -> tuple[Asked, int]:
    """Of what has been uploaded to a data set before."""
    _, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    bootstrap.uploads().check_has_data(tenant, body.data_set)
    request_id = bootstrap.trainings().ask(
        tenant,
        body.data_set,
        now=datetime.now(UTC),
        ready_by=body.ready_by,
        priority=body.priority,
        overrides=body.overrides.to_overrides() if body.overrides else None,
        force=body.force,
        key=key,
        call=digest(body.model_dump_json()),
    )
    return Asked(request_id=request_id), 202


@router.post(f"{REQUEST}/retry", summary="Try a request again", responses=results(Asked, 422, status=202))
def retry_request(tenant_id: str, request_id: str, key: Key = None) -> tuple[Asked, int]:
    """Ask for another training after one without a model: on the newest data, with the same overrides."""
    _, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    request = tenants_request(tenant_id, request_id)
    check_retried(request)
    again = bootstrap.trainings().ask(
        tenant,
        request.data_set,
        now=datetime.now(UTC),
        overrides=request.overrides,
        again=True,
        key=key,
        call=digest(f"retry {request_id}"),
    )
    return Asked(request_id=again), 202


@router.post(f"{REQUEST}/cancel", summary="Cancel or stop a request", responses=results(RequestAnswer))
def cancel_request(tenant_id: str, request_id: str) -> RequestAnswer:
    """What waits does not start; what runs is stopped, which takes minutes."""
    allow(Access.CHANGE_TENANT, tenant_id)
    request = tenants_request(tenant_id, request_id)
    return request_of(bootstrap.stop().stop(request.request_id, datetime.now(UTC)))


@router.post(
    "/v1/tenants/<tenant_id>/quotes",
    summary="What an upload would cost, and when its model would be ready",
    responses=results(QuoteAnswer),
)
def quote_upload(tenant_id: str, body: QuoteBody) -> QuoteAnswer:
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    return quote_of(bootstrap.quotes().quote(tenant, body.data_set, body.name, body.size_bytes, datetime.now(UTC)))
