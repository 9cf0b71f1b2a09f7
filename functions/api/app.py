"""Api: the HTTP API for tenants and operators, whose requests come with a token that API Gateway has verified.

Whose token it is, and what it may do, is decided here. What a caller may not see is answered as what does not
exist. The types of the routes check what they are given, and are what docs/openapi.json is made from.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Query
from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.application.billing.reports import By, cost_report
from trainyard.contracts.api import (
    Costs,
    Cursor,
    DataSet,
    Limit,
    Me,
    Month,
    Receipt,
    RequestList,
    answers,
    costs_of,
    cursor_text,
    parse_cursor,
)
from trainyard.contracts.claims import principal_of
from trainyard.domain.errors import Malformed, OutcomeUnknown, Throttled
from trainyard.domain.executions import month_of
from trainyard.domain.names import REQUEST_ID
from trainyard.domain.prices import Prices
from trainyard.domain.principals import Access, Principal
from trainyard.domain.receipts import receipt_of
from trainyard.domain.requests import State
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger, count

logger = build_logger("api")
# Whatever the environment says: in debug mode it would print the event, and so the token.
app = APIGatewayHttpResolver(debug=False, enable_validation=True)

CALLS_MAX = 100
"""Of a caller within ten seconds (persistence/call_limits.py)."""

HEADERS = {
    "Cache-Control": "no-store",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
}


class Forbidden(Exception):
    """The token is valid, and yet makes its bearer nobody."""


class TooManyCalls(Exception):
    """The caller has called too often."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"You have called too often: try again in {seconds} s.")
        self.seconds = seconds


class NotFound(Exception):
    """There is no such thing, or none that the caller may know of."""


@logger.inject_lambda_context(clear_state=True, log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return app.resolve(event, context)


@app.get("/v1/me", summary="Who calls", responses=answers(Me))
def me() -> Me:
    principal = _principal()
    return Me(subject=principal.subject, role=principal.role, tenant_id=principal.tenant_id)


@app.get(
    "/v1/tenants/<tenant_id>/requests", summary="A tenant's requests, newest first", responses=answers(RequestList)
)
def list_requests(
    tenant_id: str,
    limit: Annotated[Limit, Query()] = 20,
    cursor: Annotated[Cursor | None, Query()] = None,
    state: Annotated[State | None, Query()] = None,
    data_set: Annotated[DataSet | None, Query()] = None,
) -> RequestList:
    _allow(Access.READ_TENANT, tenant_id)
    _refuse_parameters_but("limit", "cursor", "state", "data_set")
    page = bootstrap.request_pages().of_tenant(
        tenant_id, limit=limit, after=parse_cursor(cursor), state=state, data_set=data_set
    )
    return RequestList(items=[receipt_of(request) for request in page.requests], next=cursor_text(page.cursor))


@app.get(
    "/v1/tenants/<tenant_id>/requests/<request_id>",
    summary="One of a tenant's requests",
    responses=answers(Receipt),
)
def show_request(tenant_id: str, request_id: str) -> Receipt:
    _allow(Access.READ_TENANT, tenant_id)
    if REQUEST_ID.fullmatch(request_id) is None:
        raise NotFound
    request = bootstrap.request_pages().requests.get(request_id)
    if request is None or request.tenant_id != tenant_id:
        raise NotFound
    return receipt_of(request)


@app.get("/v1/tenants/<tenant_id>/costs", summary="What a tenant cost in a month", responses=answers(Costs))
def show_costs(tenant_id: str, month: Annotated[Month | None, Query()] = None) -> Costs:
    _allow(Access.READ_TENANT, tenant_id)
    _refuse_parameters_but("month")
    month = month or month_of(datetime.now(UTC))
    return costs_of(month, cost_report(bootstrap.book().totals(month, tenant_id), By.DATA_SET, Prices()))


def _principal() -> Principal:
    """Return who calls, and count the call; raises Forbidden and TooManyCalls."""
    authorizer = app.current_event.raw_event["requestContext"].get("authorizer") or {}
    claims = (authorizer.get("jwt") or {}).get("claims") or {}
    try:
        principal = principal_of(claims, **bootstrap.claim_names())
    except Malformed as error:
        raise Forbidden(str(error)) from error
    logger.append_keys(subject=principal.subject, role=principal.role, tenant_id=principal.tenant_id)
    wait = bootstrap.call_limits().admit(principal.caller, limit=CALLS_MAX, now=datetime.now(UTC))
    if wait:
        raise TooManyCalls(wait)
    return principal


def _allow(access: Access, tenant_id: str) -> None:
    """Raise NotFound where the caller may not do something to a tenant's things, or there is no such tenant."""
    if not _principal().may(access, tenant_id) or not bootstrap.tenant_exists(tenant_id):
        raise NotFound


def _refuse_parameters_but(*names: str) -> None:
    """Raise Malformed for a parameter that the route does not have: it may be a wrong name of one that it has."""
    others = sorted(set(app.current_event.query_string_parameters or {}) - set(names))
    if others:
        raise Malformed(f"{', '.join(others)[:100]}: no such parameter; there are {', '.join(names)}")


def add_headers(app: APIGatewayHttpResolver, next_middleware: NextMiddleware) -> Response[Any]:
    answer = next_middleware(app)
    answer.headers.update(HEADERS)
    return answer


app.use(middlewares=[add_headers])


@app.not_found
def nothing_there(_: Exception) -> Response[str]:
    return not_found(NotFound())


def not_found(_: NotFound) -> Response[str]:
    return _problem(404, "Not found", "There is nothing at this address, or nothing that you may see.")


def forbidden(error: Forbidden) -> Response[str]:
    return _problem(403, "Forbidden", str(error))


def too_many(error: TooManyCalls) -> Response[str]:
    return _problem(429, "Too many requests", str(error), {"Retry-After": str(error.seconds)})


def malformed(error: Malformed) -> Response[str]:
    return _problem(400, "Bad request", str(error))


def invalid(error: RequestValidationError) -> Response[str]:
    wrong = (f"{violation['loc'][-1]}: {violation['msg']}" for violation in error.errors()[:5])
    return _problem(400, "Bad request", "; ".join(wrong))


def busy(error: Exception) -> Response[str]:
    logger.warning("not answered", extra={"reason": str(error)})
    return _problem(503, "Service unavailable", "Send the request again later.", {"Retry-After": "5"})


def failed(error: Exception) -> Response[str]:
    logger.error("the request failed", exc_info=error)
    count("ApiRequestsFailed")
    return _problem(500, "Internal server error", "It is an error of the service, and is in its log.")


app.exception_handler(NotFound)(not_found)
app.exception_handler(Forbidden)(forbidden)
app.exception_handler(TooManyCalls)(too_many)
app.exception_handler(Malformed)(malformed)
app.exception_handler(RequestValidationError)(invalid)
app.exception_handler([Throttled, OutcomeUnknown])(busy)
app.exception_handler(Exception)(failed)


def _problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> Response[str]:
    """Return an error as RFC 9457 describes it."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(status, "application/problem+json", json.dumps(body), headers={**HEADERS, **(headers or {})})
