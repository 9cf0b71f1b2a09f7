"""A call of the HTTP API: who makes it, what it sends, and whether it may do what it asks for.

What a caller may not see is answered as what does not exist.
"""

import hashlib
import json
from datetime import UTC, datetime
from math import isfinite
from typing import Annotated, Any, NoReturn, cast

from aws_lambda_powertools.event_handler.api_gateway import BaseRouter
from aws_lambda_powertools.event_handler.openapi.params import Header
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

from trainyard.contracts.api_bodies import IdempotencyKey
from trainyard.contracts.claims import principal_of
from trainyard.domain.errors import Malformed
from trainyard.domain.names import REQUEST_ID, is_tenant_id
from trainyard.domain.principals import Access, Principal
from trainyard.domain.requests import Request
from trainyard.domain.tenants import Tenant
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger

logger = build_logger("api")

CALLS_MAX = 100
"""Of a caller within ten seconds (persistence/call_limits.py)."""

BODY_BYTES_MAX = 4 * 1024 * 1024
"""Of a call: what it asks for must fit into a call of another function too, as text in JSON (Lambda quotas)."""

JSON = "application/json"
DEPTH_MAX = 16
"""Levels of lists and mappings in a body."""


Key = Annotated[IdempotencyKey | None, Header(alias="Idempotency-Key")]
"""By which a call that is sent again is done once."""


def digest(call: str) -> str:
    """Return what calls that ask for the same have in common."""
    return hashlib.sha256(call.encode()).hexdigest()


def routes() -> APIGatewayHttpRouter:
    """Return what collects the routes of a module."""
    return APIGatewayHttpRouter()  # type: ignore[no-untyped-call]


class Forbidden(Exception):
    """The token is valid, but grants no role."""


class TooManyCalls(Exception):
    """The caller has called too often."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"You have called too often: try again in {seconds} s.")
        self.seconds = seconds


class NotFound(Exception):
    """There is no such thing, or none that the caller may know of."""


class UnsuitableBody(Exception):
    """What was sent is too large, or not JSON."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def current_event() -> APIGatewayProxyEventV2:
    return cast(APIGatewayProxyEventV2, BaseRouter.current_event)


def current_principal() -> Principal:
    """Return who calls, and count the call; raises Forbidden and TooManyCalls."""
    authorizer = current_event().raw_event["requestContext"].get("authorizer") or {}
    claims = (authorizer.get("jwt") or {}).get("claims") or {}
    try:
        principal = principal_of(claims, **bootstrap.claim_names())
    except Malformed as error:
        raise Forbidden(str(error)) from error
    logger.append_keys(subject=principal.subject, role=principal.role, tenant_id=principal.tenant_id)
    # Until it is known whether a key is valid, it uses up nothing of its tenant's.
    limit_calls(principal.caller if principal.key_id is None else f"key#{principal.key_id}", CALLS_MAX)
    return principal


def admitted_principal() -> Principal:
    """Return who calls, as `current_principal` does; raises Forbidden for a key that is not valid any more too."""
    principal = current_principal()
    if principal.key_id is not None:
        if not bootstrap.api_keys().admits(principal, datetime.now(UTC)):
            raise Forbidden("the API key was revoked, or has expired")
        limit_calls(principal.caller, CALLS_MAX)
    return principal


def limit_calls(caller: str, most: int) -> None:
    """Count a call; raises TooManyCalls where there have been more than so many within ten seconds."""
    wait = bootstrap.call_limits().admit(caller, limit=most, now=datetime.now(UTC))
    if wait:
        raise TooManyCalls(wait)


def allow(access: Access, tenant_id: str) -> tuple[Principal, Tenant]:
    """Return who calls, and the tenant; raises NotFound where the caller may not do that to a tenant's things, or
    there is no such tenant.
    """
    principal = admitted_principal()
    may = is_tenant_id(tenant_id) and principal.may(access, tenant_id)
    tenant = bootstrap.existing_tenant(tenant_id) if may else None
    if tenant is None:
        raise NotFound
    if not principal.is_of(tenant):
        raise Forbidden("the token is older than the tenant: sign in again")
    return principal, tenant


def allow_service(access: Access) -> Principal:
    """Return who calls; raises NotFound where it may not do something that concerns several tenants."""
    principal = current_principal()
    if not principal.may(access):
        raise NotFound
    return principal


def tenants_request(tenant_id: str, request_id: str) -> Request:
    """Return one of a tenant's requests; raises NotFound."""
    if REQUEST_ID.fullmatch(request_id) is None:
        raise NotFound
    request = bootstrap.request_pages().requests.get(request_id)
    if request is None or request.tenant_id != tenant_id:
        raise NotFound
    return request


def check_tier(name: str | None) -> None:
    """Raise Malformed for a tier that the policy does not have."""
    policy = bootstrap.explain().policies.current()
    if name is not None and policy.tier(name) is None:
        raise Malformed(
            f"tier: there is no tier {name!r}; the policy has {', '.join(t.name for t in policy.tiers)}"
        )


def refuse_parameters_but(*names: str) -> None:
    """Raise Malformed for a parameter that the route does not have: it may be a wrong name of one that it has."""
    others = sorted(set(current_event().query_string_parameters or {}) - set(names))
    if others:
        choices = f"there are {', '.join(names)}" if names else "this call takes none"
        raise Malformed(f"{', '.join(others)[:100]}: no such parameter; {choices}")


def check_body(event: dict[str, Any]) -> None:
    """Raise UnsuitableBody for a body that cannot be read in bounded time and memory, before anything reads it."""
    body = event.get("body")
    if not body or event["requestContext"]["http"]["method"] != "POST":
        return
    if event.get("isBase64Encoded") or _content_type(event) != JSON:
        raise UnsuitableBody(415, f"A body is sent as {JSON}.")
    if len(body.encode("utf-8", "surrogatepass")) > BODY_BYTES_MAX:
        raise UnsuitableBody(413, f"A body has at most {BODY_BYTES_MAX:,} bytes.")
    try:
        values = json.loads(body, parse_constant=_no_number, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise UnsuitableBody(400, "The body is not JSON, or its values are nested too deeply.") from error
    if _is_deeper(values, DEPTH_MAX):
        raise UnsuitableBody(400, f"The values of the body are nested too deeply: at most {DEPTH_MAX} levels.")
    event["headers"]["content-type"] = JSON  # as the parser of the routes expects it


def _content_type(event: dict[str, Any]) -> str:
    return str((event.get("headers") or {}).get("content-type", "")).partition(";")[0].strip().lower()


def _is_deeper(value: Any, depth: int) -> bool:
    """Tell whether lists and mappings are nested in more than so many levels."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth < 0 or any(_is_deeper(each, depth - 1) for each in inner)


def _number(text: str) -> float:
    """Numbers that are too large become infinite, which is no number either."""
    value = float(text)
    return value if isfinite(value) else _no_number(text)


def _no_number(text: str) -> NoReturn:
    """NaN and infinities are no JSON (RFC 8259), although Python reads them."""
    raise ValueError(f"{text} is not a number")
