"""Approvals: the address behind an approval link, at which a version of a model is approved or rejected.

Requests come from anywhere, without credentials: what gives the right to decide is the signed text in the path.
GET shows the version and changes nothing, as mail scanners follow links; POST decides.
"""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.contracts.approval_links import FORM_BYTES_MAX, parse_decision
from trainyard.domain.approval_links import LinkFault
from trainyard.domain.errors import Malformed, OutcomeUnknown, Refused, Throttled
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.approval_page import HEADERS, problem_page, review_page
from trainyard.telemetry import build_logger

logger = build_logger("approvals")
app = APIGatewayHttpResolver()

FORM = "application/x-www-form-urlencoded"

FAULTS = {
    LinkFault.INVALID: (404, "This link is not valid"),
    LinkFault.EXPIRED: (410, "This link has expired"),
    LinkFault.GONE: (410, "There is nothing to decide"),
    LinkFault.DECIDED: (409, "It was decided before"),
}
"""Kinds of refusals → status, and title of the page."""


class UnsuitableForm(Exception):
    """A form that cannot be read at all: (status, words)."""


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return app.resolve(event, context)


@app.get("/approvals/<text>")
def show(text: str) -> Response[str]:
    return _answer(200, review_page(bootstrap.approvals().review(text, datetime.now(UTC))))


@app.post("/approvals/<text>")
def decide(text: str) -> Response[str]:
    form = parse_decision(_form())
    review = bootstrap.approvals().decide(text, form.decision, form.comment, datetime.now(UTC))
    link = review.link
    logger.info(
        "decided",
        extra={
            "tenant_id": link.tenant_id,
            "version": link.version,
            "decision": form.decision,
            "reviewer": link.reviewer,
        },
    )
    return _answer(200, review_page(review, is_decided_now=True))


def _form() -> str:
    event = app.current_event
    if event.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise UnsuitableForm(415, f"a decision is sent as {FORM}")
    # A character in base64 stands for less than a byte.
    if len(event.body or "") > FORM_BYTES_MAX * 4 // 3 + 4:
        raise UnsuitableForm(413, f"a decision has at most {FORM_BYTES_MAX:,} bytes")
    try:
        return event.decoded_body or ""
    except ValueError as error:
        raise Malformed("not a form: it is not in UTF-8") from error


def refused(error: Refused) -> Response[str]:
    status, title = FAULTS[LinkFault(error.kind)]
    logger.info("refused", extra={"kind": error.kind})
    return _answer(status, problem_page(title, _sentence(str(error))))


def unsuitable(error: UnsuitableForm) -> Response[str]:
    status, words = error.args
    return _answer(status, problem_page("This cannot be read", _sentence(words)))


def malformed(error: Malformed) -> Response[str]:
    return _answer(400, problem_page("This cannot be read", _sentence(str(error))))


def later(error: Exception) -> Response[str]:
    logger.warning("not answered", extra={"reason": str(error)})
    page = problem_page("Please try again", "AWS does not answer just now: try again in a minute.")
    return _answer(503, page, {"Retry-After": "60"})


@app.not_found
def nothing_there(_: Exception) -> Response[str]:
    return _answer(404, problem_page(FAULTS[LinkFault.INVALID][1], "There is nothing at this address."))


def failed(error: Exception) -> Response[str]:
    logger.exception("the request failed")
    page = problem_page("This did not work", "It is an error of the service, which is in its log.")
    return _answer(500, page)


app.exception_handler(Refused)(refused)
app.exception_handler(UnsuitableForm)(unsuitable)
app.exception_handler(Malformed)(malformed)
app.exception_handler([Throttled, OutcomeUnknown])(later)
app.exception_handler(Exception)(failed)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _answer(status: int, page: str, headers: dict[str, str] | None = None) -> Response[str]:
    return Response(status, "text/html; charset=utf-8", page, headers={**HEADERS, **(headers or {})})
