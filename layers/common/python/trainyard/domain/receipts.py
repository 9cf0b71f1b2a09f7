"""The receipt: the state of a request as its tenant sees it, stored beside the data."""

import re

from trainyard.domain.deadlines import deadline_met
from trainyard.domain.failures import FailureCause, cause_of
from trainyard.domain.requests import PROGRESS, Request, State

_SENTENCES = {
    State.QUEUED: "accepted, waiting for its turn",
    State.ADMITTED: "about to start",
    State.RUNNING: "training",
    State.SUCCEEDED: "done: a model is registered and waits for approval",
    State.FAILED: "failed: {reason}",
    State.STOPPED: "stopped: {reason}",
    State.SUPERSEDED: "superseded: a newer request for this data set is trained instead",
    State.CANCELLED: "cancelled before it started",
    State.REJECTED: "refused: {reason}",
}


_OF_AWS = {
    FailureCause.RESOURCE_LIMIT: "the service is at a limit of its own",
    FailureCause.CAPACITY: "AWS has no free instance of the kind that it needs",
    FailureCause.INTERNAL: "AWS had an error of its own",
    FailureCause.THROTTLING: "AWS takes no further requests",
}
"""Causes that are not the tenant's, in words for it: the account's limits and use are not its business."""

_OF_THE_DATA = "the data "
"""How the reasons begin that a tenant can mend while its request waits."""


def progress_of(request: Request) -> tuple[int, int]:
    """Return attempt and progress of a request, by which two receipts of it are ordered."""
    return (request.attempt, PROGRESS[request.state])


_OF_THE_ACCOUNT = re.compile(r"\barn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:[0-9]{12}:[^\s,;'\"]*")
_REGISTRY = re.compile(r"\b[0-9]{12}(?=\.dkr\.ecr\.)")


def without_account(text: str | None) -> str | None:
    """Return a reason without the ARNs and registries in it, which name the account and the service's own parts.

    SageMaker's messages contain them, as in "User: arn:aws:sts::<account>:assumed-role/… is not authorized to …".
    """
    return text and _REGISTRY.sub("…", _OF_THE_ACCOUNT.sub("arn:…", text))


def _reason_of(request: Request) -> str | None:
    """Return the reason of a request's state, as its tenant may read it."""
    reason = without_account(request.reason)
    of_aws = _OF_AWS.get(cause_of(request.reason or ""))
    if request.state is State.QUEUED and reason and not reason.startswith(_OF_THE_DATA):
        return f"{of_aws or 'it could not be started'}; it is tried again"
    return of_aws if request.state is State.FAILED and of_aws else reason


def receipt_of(request: Request) -> dict[str, object]:
    """Return what the tenant may see; nothing in it names another tenant or internals of the service."""
    outcome, reason = request.outcome, _reason_of(request)
    waits_again = request.state is State.QUEUED and reason
    receipt: dict[str, object] = {
        "schema_version": 1,
        "request_id": request.request_id,
        "data_set": request.data_set,
        "object": {
            "key": request.content.key,
            "version_id": request.content.version_id,
            "etag": request.content.etag,
            "size_bytes": request.content.size_bytes,
        },
        "cause": request.cause.value,
        "state": request.state.value,
        "message": _SENTENCES[request.state].format(reason=reason) + (f": {reason}" if waits_again else ""),
        "reason": reason,
        "superseded_by": request.superseded_by,
        "attempt": request.attempt,
    }
    if request.deadline is not None:
        receipt["deadline"] = {"at": request.deadline.isoformat(), "met": deadline_met(request)}
    if outcome is not None:
        receipt["result"] = {
            "quality": outcome.quality,
            "quality_metric": outcome.quality_metric,
            "baseline": outcome.baseline,
            "problem": outcome.problem,
            "rows": outcome.rows,
            "rows_dropped": outcome.rows_dropped,
            "notes": outcome.notes.splitlines() if outcome.notes else [],
            "model_uri": outcome.model_uri,
            "report_uri": outcome.report_uri,
            "model_package_arn": outcome.model_package_arn,
            "trained_version_id": outcome.trained_version_id,
            "trained_sha256": outcome.trained_sha256,
            "unread": without_account(outcome.unread),
        }
    return receipt
