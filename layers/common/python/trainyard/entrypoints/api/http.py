"""What all functions of the HTTP API have in common: how routes are put together, and how errors are answered."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.domain.errors import Conflict, Malformed, OutcomeUnknown, Refused, Throttled
from trainyard.entrypoints.api.calls import Forbidden, NotFound, TooManyCalls, UnsuitableBody, check_body, logger
from trainyard.persistence.idempotency_keys import REUSED
from trainyard.telemetry import count

HEADERS = {
    # Cached by the caller only, and revalidated before each use.
    "Cache-Control": "private, no-cache",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
}
NOT_CACHED = "no-store"
"""Cache-Control of errors, and of whatever is changed."""

ANSWER_BYTES_MAX = 6_291_556 - 4096
"""Lambda's limit of a synchronous answer, with room for what is around it (Lambda quotas)."""


def resolver_of(*routers: APIGatewayHttpRouter) -> APIGatewayHttpResolver:
    """Return what calls the route of a request, and answers errors as problems."""
    # Whatever the environment says: in debug mode it would print the event, and so the token.
    app = APIGatewayHttpResolver(debug=False, enable_validation=True)
    for router in routers:
        app.include_router(router)
    app.not_found(_not_found)
    app.exception_handler(NotFound)(_not_found)
    app.exception_handler(Forbidden)(_forbidden)
    app.exception_handler(TooManyCalls)(_too_many)
    app.exception_handler(Malformed)(_malformed)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(Refused)(_refused)
    app.exception_handler([Throttled, OutcomeUnknown, Conflict])(_busy)
    app.exception_handler(Exception)(_failed)
    return app


def respond(app: APIGatewayHttpResolver, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Return the answer to a request, for API Gateway."""
    try:
        check_body(event)
    except UnsuitableBody as error:
        answer = _unsuitable(error)
    else:
        answer = app.resolve(event, context)
    if len(answer.get("body") or "") > ANSWER_BYTES_MAX // 2 and len(json.dumps(answer)) > ANSWER_BYTES_MAX:
        answer = _answer_of(_problem(409, "Not possible", "The answer is too large: ask for less at once."))
    return _with_headers(event, answer)


def _with_headers(event: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with what all have; one that the caller has already is answered by its tag alone."""
    headers = answer["headers"] = {**HEADERS, **answer.get("headers", {})}
    if event["requestContext"]["http"]["method"] != "GET" or answer["statusCode"] != 200:
        headers["Cache-Control"] = NOT_CACHED
        return answer
    tag = headers["ETag"] = f'"{sha256(answer["body"].encode()).hexdigest()[:32]}"'
    if tag in str((event.get("headers") or {}).get("if-none-match", "")):
        return {"statusCode": 304, "headers": {name: headers[name] for name in ("Cache-Control", "ETag")}}
    return answer


def _unsuitable(error: UnsuitableBody) -> dict[str, Any]:
    title = {413: "Content too large", 415: "Unsupported media type"}.get(error.status, "Bad request")
    return _answer_of(_problem(error.status, title, str(error)))


def _answer_of(problem: Response[str]) -> dict[str, Any]:
    headers = {**problem.headers, "Content-Type": problem.content_type}
    return {"statusCode": problem.status_code, "headers": headers, "body": problem.body}


def _not_found(_: Exception) -> Response[str]:
    return _problem(404, "Not found", "There is nothing at this address, or nothing that you may see.")


def _forbidden(error: Forbidden) -> Response[str]:
    return _problem(403, "Forbidden", str(error))


def _too_many(error: TooManyCalls) -> Response[str]:
    return _problem(429, "Too many requests", str(error), {"Retry-After": str(error.seconds)})


def _malformed(error: Malformed) -> Response[str]:
    return _problem(400, "Bad request", str(error))


def _invalid(error: RequestValidationError) -> Response[str]:
    return _problem(400, "Bad request", "; ".join(map(_wrong, error.errors()[:5]))[:1000])


VALUE_SHOWN_MAX = 60


def _wrong(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, and the value if it is short."""
    place = ".".join(map(str, error["loc"][1:])) or "body"
    words = str(error["msg"]).removeprefix("Value error, ")
    value = error.get("input")
    is_shown = isinstance(value, str | int | float) and place != "body" and error["type"] != "missing"
    shown = json.dumps(value, ensure_ascii=False)[:VALUE_SHOWN_MAX] if is_shown else ""
    return f"{place}: {words}; it is {shown}" if shown else f"{place}: {words}"


def _refused(error: Refused) -> Response[str]:
    if error.kind == REUSED:
        return _problem(422, "Key used before", str(error))
    return _problem(409, "Not possible", str(error))


def _busy(error: Exception) -> Response[str]:
    logger.warning("not answered", extra={"reason": str(error)})
    return _problem(503, "Service unavailable", "Try again later.", {"Retry-After": "5"})


def _failed(error: Exception) -> Response[str]:
    logger.error("the request failed", exc_info=error)
    count("ApiRequestsFailed")
    return _problem(500, "Internal server error", "This is a fault of the service, and has been logged.")


def _problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> Response[str]:
    """Return an error as RFC 9457 describes it."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(status, "application/problem+json", json.dumps(body), headers=dict(headers or {}))
