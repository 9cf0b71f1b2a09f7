"""Names: what tenants, data sets and executions may be called, and what is derived from what.

Identifiers are derived from content, never random, so that the same event always has the same id.
"""

import hashlib
import re
from typing import NamedTuple

TENANT_ID = re.compile(r"[a-z0-9](-?[a-z0-9])*")
TENANT_ID_LENGTH_MAX = 24
"""Keeps bucket (63), role (64) and model group (63) names within their limits."""

DATA_SET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
RESERVED = frozenset({"pool", "code", "training", "tenants", "all", "trainyard"})
"""Names derived from these could be confused with parts of the service."""

FOLDERS = ("incoming", "transform", "captured", "models", "reports", "receipts")
"""The folders of a tenant's root; no data set may have their names."""

URI_LENGTH_MAX = 1024
"""Characters in an S3 URI that a pipeline parameter can carry (SageMaker API, PipelineParameter)."""

REQUEST_ID = re.compile(r"[0-9a-f]{32}")
_DISPLAY_NAME = re.compile(r"(?P<request_id>[0-9a-f]{32})-(?P<attempt>[1-9][0-9]{0,5})")


def is_tenant_id(text: str) -> bool:
    """Tell whether `text` can name a tenant: lower-case letters, digits and single inner hyphens."""
    return len(text) <= TENANT_ID_LENGTH_MAX and TENANT_ID.fullmatch(text) is not None and text not in RESERVED


def tenant_id_objection(text: str) -> str | None:
    """Return why `text` cannot name a tenant, and what could; None when it can."""
    if is_tenant_id(text):
        return None
    rule = (
        f"at most {TENANT_ID_LENGTH_MAX} lower-case letters and digits, single hyphens between them, for example "
        "acme or acme-labs"
    )
    if text in RESERVED:
        return f"{text!r} is reserved: choose another tenant id, {rule}"
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:TENANT_ID_LENGTH_MAX].strip("-")
    hint = f"; {plain} would be valid, if it is not taken" if is_tenant_id(plain) else ""
    return f"{text!r} is not a valid tenant id: {rule}{hint}"


def is_data_set(text: str) -> bool:
    """Tell whether `text` can name a data set."""
    return DATA_SET.fullmatch(text) is not None and text not in FOLDERS


def request_id(*, tenant_id: str, bucket: str, key: str, revision: str) -> str:
    """Return the 32 hexadecimal digits that name the request made by one upload.

    `revision` tells one content of a key from the next: the version id where there is one, else entity
    tag and sequencer, else the id of the event that asked for retraining.
    """
    parts = "\x00".join((tenant_id, bucket, key, revision))
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class ExecutionName(NamedTuple):
    """Which request, and which attempt at it, an execution belongs to."""

    request_id: str
    attempt: int


def display_name(request_id: str, attempt: int) -> str:
    """Return the execution's display name, from which `parse_display_name` reads both back."""
    return f"{request_id}-{attempt}"


def parse_display_name(name: str) -> ExecutionName | None:
    """Return what `display_name` was given, or None when the execution is not one of ours."""
    match = _DISPLAY_NAME.fullmatch(name)
    if match is None:
        return None
    return ExecutionName(match["request_id"], int(match["attempt"]))


def start_token(request_id: str, attempt: int) -> str:
    """Return the ClientRequestToken (32 to 128 characters) that makes a start idempotent."""
    return f"trainyard-{request_id}-{attempt}"
