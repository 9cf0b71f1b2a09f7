"""Api: the HTTP API for tenants and operators, whose requests come with a token that API Gateway has verified.

Whose token it is, and what it may do, is decided in the routes (trainyard/entrypoints/api). Their types check what
they are given, and are what docs/openapi.json is made from.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.contracts.api import Me, answers
from trainyard.domain.errors import Conflict, Malformed, OutcomeUnknown, Refused, Throttled
from trainyard.entrypoints.api import costs, data_sets, models, requests, service
from trainyard.entrypoints.api.calls import (
    Forbidden,
    NotFound,
    TooManyCalls,
    UnsuitableBody,
    check_body,
    current_principal,
    logger,
)
from trainyard.persistence.idempotency_keys import REUSED
from trainyard.telemetry import count

# Whatever the environment says: in debug mode it would print the event, and so the token.
app = APIGatewayHttpResolver(debug=False, enable_validation=True)

HEADERS = {
    # Kept by the caller alone, and looked up before each use.
    "Cache-Control": "private, no-cache",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
}
UNKEPT = "no-store"
"""Cache-Control of errors, and of whatever is changed."""


@logger.inject_lambda_context(clear_state=True, log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    try:
        check_body(event)
    except UnsuitableBody as error:
        title = {413: "Content too large", 415: "Unsupported media type"}.get(error.status, "Bad request")
        problem = _problem(error.status, title, str(error))
        answer: dict[str, Any] = {
            "statusCode": error.status,
            "headers": dict(problem.headers),
            "body": problem.body,
        }
        answer["headers"]["Content-Type"] = problem.content_type
    else:
        answer = app.resolve(event, context)
    return _with_headers(event, answer)


@app.get("/v1/me", summary="Who calls", responses=answers(Me))
def me() -> Me:
    principal = current_principal()
    return Me(subject=principal.subject, role=principal.role, tenant_id=principal.tenant_id)


for part in (requests, data_sets, models, costs, service):
    app.include_router(part.router)


def _with_headers(event: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with what all have; one that the caller has already is answered by its tag alone."""
    headers = answer["headers"] = {**HEADERS, **answer.get("headers", {})}
    if event["requestContext"]["http"]["method"] != "GET" or answer["statusCode"] != 200:
        headers["Cache-Control"] = UNKEPT
        return answer
    tag = headers["ETag"] = f'"{sha256(answer["body"].encode()).hexdigest()[:32]}"'
    if tag in str((event.get("headers") or {}).get("if-none-match", "")):
        return {"statusCode": 304, "headers": {name: headers[name] for name in ("Cache-Control", "ETag")}}
    return answer


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
    wrong = (f"{'.'.join(map(str, each['loc'][1:])) or 'body'}: {each['msg']}" for each in error.errors()[:5])
    return _problem(400, "Bad request", "; ".join(wrong)[:1000])


def refused(error: Refused) -> Response[str]:
    if error.kind == REUSED:
        return _problem(422, "Key used before", str(error))
    return _problem(409, "Not possible", str(error))


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
app.exception_handler(Refused)(refused)
app.exception_handler([Throttled, OutcomeUnknown, Conflict])(busy)
app.exception_handler(Exception)(failed)


def _problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> Response[str]:
    """Return an error as RFC 9457 describes it."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(status, "application/problem+json", json.dumps(body), headers=dict(headers or {}))
