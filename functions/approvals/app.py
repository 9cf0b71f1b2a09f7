"""Approvals: the address behind an approval link, at which a version of a model is approved or rejected.

Requests come from anywhere, without credentials: what gives the right to decide is the signed text in the path.
GET shows the version and changes nothing, as mail scanners follow links; POST decides.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.contracts.approval_links import FORM_BYTES_MAX, parse_decision
from trainyard.domain.approval_links import LinkFault
from trainyard.domain.errors import Malformed, OutcomeUnknown, Refused, Throttled
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.approval_page import HEADERS, problem_page, review_page
from trainyard.telemetry import build_logger, count

logger = build_logger("approvals")
# Whatever the environment says: in debug mode it would print the event, and so the link.
app = APIGatewayHttpResolver(debug=False)

FORM = "application/x-www-form-urlencoded"
NOT_ACCEPTED = "The form was not accepted"

FAULTS: Mapping[str, tuple[int, str]] = {
    LinkFault.INVALID: (404, "This link is not valid"),
    LinkFault.EXPIRED: (410, "This link has expired"),
    LinkFault.GONE: (410, "There is nothing to decide"),
    LinkFault.DECIDED: (409, "Somebody has already decided"),
    LinkFault.DISABLED: (503, "Please ask whoever sent you the link"),
}
"""Kinds of refusals → status, and title of the page."""


class UnsuitableForm(Exception):
    """A body that is no form, or too large a one."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@logger.inject_lambda_context(clear_state=True, log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return app.resolve(event, context)


@app.get("/approvals/<link>")
def show(link: str) -> Response[str]:
    return _answer(200, review_page(bootstrap.approvals().review(link, datetime.now(UTC))))


@app.post("/approvals/<link>")
def decide(link: str) -> Response[str]:
    form = parse_decision(_form())
    decided = bootstrap.approvals().decide(link, form.decision, form.comment, datetime.now(UTC))
    signed = decided.review.link
    logger.info(
        "decided" if decided.is_new else "decided before",
        extra={
            "tenant_id": signed.tenant_id,
            "version": signed.version,
            "decision": form.decision,
            "reviewer": signed.reviewer,
        },
    )
    return _answer(200, review_page(decided.review, is_new=decided.is_new))


def _form() -> str:
    event = app.current_event
    if event.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise UnsuitableForm(415, f"a decision is sent as {FORM}")
    try:
        body = event.decoded_body or ""
    except ValueError as error:
        raise Malformed("not a form: it is not in UTF-8") from error
    if len(body.encode()) > FORM_BYTES_MAX:
        raise UnsuitableForm(413, f"a decision has at most {FORM_BYTES_MAX:,} bytes")
    return body


def refused(error: Refused) -> Response[str]:
    if error.kind not in FAULTS:
        return failed(error)
    status, title = FAULTS[error.kind]
    logger.info("refused", extra={"kind": error.kind})
    return _answer(status, problem_page(title, _sentence(str(error))))


def unsuitable(error: UnsuitableForm) -> Response[str]:
    return _answer(error.status, problem_page(NOT_ACCEPTED, _sentence(str(error)), has_way_back=True))


def malformed(error: Malformed) -> Response[str]:
    return _answer(400, problem_page(NOT_ACCEPTED, _sentence(str(error)), has_way_back=True))


def busy(error: Exception) -> Response[str]:
    logger.warning("not answered", extra={"reason": str(error)})
    words = "The service is busy. Look at the version again in a minute: a decision may have been recorded."
    page = problem_page("Please try again", words, has_way_back=True)
    return _answer(503, page, {"Retry-After": "60"})


@app.not_found
def nothing_there(_: Exception) -> Response[str]:
    return _answer(404, problem_page(FAULTS[LinkFault.INVALID][1], "There is nothing at this address."))


def failed(error: Exception) -> Response[str]:
    logger.error("the request failed", exc_info=error)
    count("ApprovalsFailed")
    page = problem_page("Something went wrong", "It is an error of the service, and is logged.", has_way_back=True)
    return _answer(500, page)


app.exception_handler(Refused)(refused)
app.exception_handler(UnsuitableForm)(unsuitable)
app.exception_handler(Malformed)(malformed)
app.exception_handler([Throttled, OutcomeUnknown])(busy)
app.exception_handler(Exception)(failed)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _answer(status: int, page: str, headers: dict[str, str] | None = None) -> Response[str]:
    return Response(status, "text/html; charset=utf-8", page, headers={**HEADERS, **(headers or {})})
