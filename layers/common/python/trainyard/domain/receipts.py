"""The receipt: what a tenant reads about its request, beside its data."""

from trainyard.domain.requests import PROGRESS, Request, State

_SENTENCES = {
    State.QUEUED: "accepted, waiting for its turn",
    State.ADMITTED: "about to start",
    State.RUNNING: "training",
    State.SUCCEEDED: "done: a model is registered and waits for approval",
    State.FAILED: "failed: {reason}",
    State.STOPPED: "stopped: {reason}",
    State.SUPERSEDED: "a newer request for this data set is trained on instead",
    State.CANCELLED: "taken back before it started",
    State.REJECTED: "refused: {reason}",
}


def progress_of(request: Request) -> tuple[int, int]:
    """Return attempt and progress of a request, by which two receipts of it are ordered."""
    return (request.attempt, PROGRESS[request.state])


def receipt_of(request: Request) -> dict[str, object]:
    """Return what the tenant may know; nothing in it names another tenant or the service's own parts."""
    outcome = request.outcome
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
        "message": _SENTENCES[request.state].format(reason=request.reason),
        "reason": request.reason,
        "superseded_by": request.superseded_by,
        "attempt": request.attempt,
    }
    if outcome is not None:
        receipt["result"] = {
            "quality": outcome.quality,
            "quality_metric": outcome.quality_metric,
            "model_uri": outcome.model_uri,
            "report_uri": outcome.report_uri,
            "model_package_arn": outcome.model_package_arn,
            "trained_version_id": outcome.trained_version_id,
            "trained_sha256": outcome.trained_sha256,
            "unread": outcome.unread,
        }
    return receipt
