"""Approval links as they are written, and what a reviewer sends.

The text of a link is `<content>.<signature>`, both base64url without padding. The content is a JSON object. The
signature is an HMAC-SHA-256 of the content as it is written, after a prefix that no other use of the key has.
"""

from datetime import UTC, datetime
from typing import Annotated, NamedTuple
from urllib.parse import parse_qs

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from trainyard.contracts.base64url import decoded, encoded
from trainyard.contracts.events import explain
from trainyard.domain.approval_links import COMMENT_LENGTH_MAX, REVIEWER_LENGTH_MAX, ApprovalLink, Decision
from trainyard.domain.errors import Malformed
from trainyard.domain.names import REQUEST_ID, TENANT_ID, TENANT_ID_LENGTH_MAX

LENGTH_MAX = 1000
"""Characters of a link's text; the longest that is made has fewer."""

FORM_BYTES_MAX = 8192
"""Of what a reviewer sends: a comment of the greatest length has at most 12 bytes for each character."""

SIGNATURE_BYTES = 32

_PURPOSE = b"trainyard approval link 1\n"


class ParsedLink(NamedTuple):
    """What a link consists of; whether the signature is genuine is not known yet."""

    link: ApprovalLink
    message: bytes
    """That was signed."""
    signature: bytes


def _printable(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("must be printable characters on one line, and not only spaces")
    return text


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    tenant: Annotated[str, StringConstraints(max_length=TENANT_ID_LENGTH_MAX, pattern=f"^{TENANT_ID.pattern}$")]
    version: Annotated[int, Field(ge=1, le=10**9)]
    request: Annotated[str, StringConstraints(pattern=f"^{REQUEST_ID.pattern}$")]
    expires: Annotated[int, Field(ge=0, le=2**32)]
    """Seconds since 1970."""
    reviewer: Annotated[str, StringConstraints(max_length=REVIEWER_LENGTH_MAX), AfterValidator(_printable)]


def _on_one_line(text: str) -> str:
    """Return a text with single spaces: a browser sends two characters for each line break, and counts one."""
    return " ".join(text.split())


class DecisionForm(BaseModel):
    """What a reviewer sends: a decision, and perhaps why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decision: Decision
    comment: Annotated[str, BeforeValidator(_on_one_line), StringConstraints(max_length=COMMENT_LENGTH_MAX)] = ""


def parse_decision(body: str) -> DecisionForm:
    """Return the fields of a form (application/x-www-form-urlencoded); raises Malformed, naming what is wrong."""
    try:
        fields = parse_qs(body, keep_blank_values=True, strict_parsing=True, max_num_fields=5, errors="strict")
        if any(len(values) > 1 for values in fields.values()):
            raise Malformed("a field is there more than once")
        return DecisionForm.model_validate({name: value for name, (value,) in fields.items()})
    except ValidationError as error:
        raise Malformed(explain(error)) from error
    except ValueError as error:
        raise Malformed(f"not a form: {error}") from error


def content_of(link: ApprovalLink) -> str:
    """Return a link's content. Raises Malformed when the link has values that no link can have."""
    try:
        content = _Content(
            tenant=link.tenant_id,
            version=link.version,
            request=link.request_id,
            expires=int(link.expires_at.timestamp()),
            reviewer=link.reviewer,
        )
    except ValidationError as error:
        raise Malformed(explain(error)) from error
    return encoded(content.model_dump_json().encode())


def message_of(content: str) -> bytes:
    """Return what is signed for a link's content."""
    return _PURPOSE + content.encode()


def text_of(content: str, signature: bytes) -> str:
    """Return the text of a link."""
    return f"{content}.{encoded(signature)}"


def parse_link(text: str) -> ParsedLink:
    """Return what a link's text consists of, its signature not being verified; raises Malformed."""
    if len(text) > LENGTH_MAX:
        raise Malformed(f"a link has at most {LENGTH_MAX} characters")
    content, _, signature = text.partition(".")
    try:
        fields = _Content.model_validate_json(decoded(content))
    except ValidationError as error:
        raise Malformed("the content of the link is not valid") from error
    link = ApprovalLink(
        tenant_id=fields.tenant,
        version=fields.version,
        request_id=fields.request,
        expires_at=datetime.fromtimestamp(fields.expires, UTC),
        reviewer=fields.reviewer,
    )
    code = decoded(signature)
    if len(code) != SIGNATURE_BYTES:
        raise Malformed(f"the signature has {len(code)} bytes instead of {SIGNATURE_BYTES}")
    return ParsedLink(link=link, message=message_of(content), signature=code)
