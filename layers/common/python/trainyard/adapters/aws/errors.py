"""Translate botocore's exceptions into errors that say what the caller must do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, HTTPClientError

from trainyard.domain.errors import Conflict, OutcomeUnknown, Throttled, TrainyardError

THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "ProvisionedThroughputExceededException",
        "ThrottlingError",
        "ProvisionedThroughputExceeded",
        "SlowDown",
        "RequestThrottled",
    }
)
CONFLICT = frozenset(
    {
        "ConditionalCheckFailedException",
        "ConditionalCheckFailed",
        "TransactionConflict",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def translated() -> Iterator[None]:
    """Raise Conflict, Throttled or OutcomeUnknown where AWS means that; pass the rest on."""
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        if code == "TransactionCanceledException":
            raise _cancelled(error) from error
        if code in CONFLICT:
            checked = code.startswith("ConditionalCheckFailed")
            raise Conflict(str(error), failed=(0,) if checked else ()) from error
        if code in THROTTLED:
            raise Throttled(str(error)) from error
        if int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)) >= 500:
            raise OutcomeUnknown(str(error)) from error
        raise
    except (EndpointConnectionError, ConnectTimeoutError) as error:
        raise Throttled(f"no connection, nothing was sent: {error}") from error
    except HTTPClientError as error:
        raise OutcomeUnknown(str(error)) from error


def _cancelled(error: Any) -> Exception:
    """Return what a cancelled transaction means: its reasons name a code for each action."""
    reasons = error.response.get("CancellationReasons", [])
    codes = [str(reason.get("Code", "None")) for reason in reasons]
    failed = [f"action {number}: {code}" for number, code in enumerate(codes) if code != "None"]
    if any(code in CONFLICT for code in codes):
        checked = (n for n, code in enumerate(codes) if code.startswith("ConditionalCheckFailed"))
        return Conflict("; ".join(failed), failed=tuple(checked))
    if any(code in THROTTLED for code in codes):
        return Throttled("; ".join(failed))
    return TrainyardError(f"a transaction was cancelled: {error}")
