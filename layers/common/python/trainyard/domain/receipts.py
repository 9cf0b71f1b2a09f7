"""The receipt: the state of a request as its tenant sees it, stored beside the data."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from trainyard.domain.deadlines import deadline_met
from trainyard.domain.failures import STOPPED_EARLY, FailureCause, cause_of
from trainyard.domain.requests import PROGRESS, TERMINAL, Outcome, Request, RequestKind, State
from trainyard.domain.scheduling import Reason

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


COLLECTS = "accepted, waiting for further uploads: so far they are too few or too little for a training"
_SENTENCES_OF_TRANSFORMS = _SENTENCES | {
    State.RUNNING: "predicting",
    State.SUCCEEDED: "done: all rows have predictions",
}

_OF_AWS = {
    FailureCause.RESOURCE_LIMIT: "the service is at a limit of its own",
    FailureCause.CAPACITY: "AWS has no free instance of the kind that it needs",
    FailureCause.INTERNAL: "AWS had an error of its own",
    FailureCause.THROTTLING: "AWS takes no further requests",
}
"""Causes that are not the tenant's, in words for it: the account's limits and use are not its business."""

_IF_DATA = "correct the data if the reason names something in it, and upload it again; otherwise ask the provider"

_ADVICE = {
    State.FAILED: _IF_DATA,
    State.STOPPED: "try it again, upload the data again, or ask the provider why it was stopped",
    State.SUPERSEDED: "follow the newer request, which superseded_by names",
    State.CANCELLED: "try it again, or upload the data again",
    State.REJECTED: _IF_DATA,
}
"""What a tenant can do about an end without a model."""

_ADVICE_OF_TRANSFORMS = "correct the rows if the reason names something in them; otherwise ask the provider"

_ADVICE_OF_AWS = "nothing is wrong with the data: upload it again later, or ask the provider"

_UNKNOWN = "no reason was given"

_OF_THE_DATA = "the data "
"""How the reasons begin that a tenant can mend while its request waits."""


_TURN = "other requests are ahead of it"
_BUSY = "it waits until other trainings have ended"
_PAUSED = "the provider has paused trainings"
_PROVIDER = "it cannot start before the provider has changed something: ask the provider"

WAITING = {
    Reason.SLOT_FREE: "it starts next",
    Reason.BATCH_FULL: "it starts next",
    Reason.NOT_DUE: "it waits for further uploads of its data set, or until it is tried again",
    Reason.TURN: _TURN,
    Reason.ACCOUNT_LIMIT: _BUSY,
    Reason.TIER_QUOTA: _BUSY,
    Reason.NOTHING_TO_BORROW: _BUSY,
    Reason.INSTANCE_QUOTA: _BUSY,
    Reason.CAPACITY_HOLD: _BUSY,
    Reason.LOWER_LIMIT_AHEAD: _BUSY,
    Reason.START_RATE: "it starts within seconds or minutes",
    Reason.TENANT_CAP: "as many of your trainings run as may run at once",
    Reason.ABOVE_CAP: "as many of your trainings run as may run at once",
    Reason.TENANT_PAUSED: _PAUSED,
    Reason.TIER_PAUSED: _PAUSED,
    Reason.ALL_PAUSED: _PAUSED,
    Reason.BUDGET: "what is left of your budget for this month is less than it may cost: it starts in the next "
    "month, or when the provider raises your budget",
    Reason.TIER_BUDGET: "the provider starts no more trainings of your tier this month unless others cost less "
    "than expected",
    Reason.PRICE_UNKNOWN: _PROVIDER,
    Reason.NEVER_FITS: _PROVIDER,
    Reason.UNKNOWN_TIER: _PROVIDER,
    Reason.TIER_CLOSED: "trainings of your tier do not start at this time of day",
    Reason.NOT_AT_THIS_HOUR: "trainings of its size do not start at this time of day",
}
"""Why a request waits, in words for its tenant: other tenants and the account's limits are not its business."""

PROSPECT_STEP = timedelta(minutes=10)
"""Expected times are rounded to it, so that a receipt is not written again for each second of difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What a waiting request can expect."""

    reason: Reason
    """Why it waits."""
    position: int | None = None
    """In its tier: 1 starts next; None where nothing that is expected lets it start."""
    earliest: datetime | None = None
    latest: datetime | None = None
    """Between which times it is expected to start."""
    ends_by: datetime | None = None
    """By when it is expected to have ended."""


README = """\
This is where you exchange data with the training service.

incoming/<data set>/      Put tables here: CSV, JSON lines, Parquet or Excel. Each upload asks for a training.
                          Names that begin with _ or . are ignored.
receipts/<data set>/      <request>.json says what became of each upload: accepted, refused with the reason,
                          training, done with the quality of the model, or failed with what you can do.
                          While a request waits and is among the next ones, it says every few minutes why, at
                          which position, and when it is expected to start.
receipts/<data set>/latest.json
                          the same for the last request of the data set that ended
models/<data set>/        <request>/model.tar.gz is a model, card.html says how good it is.
reports/<data set>/       which files were read, and how the model was measured
transform/<data set>/     Put rows here that a batch transform is to predict: CSV with headers, or JSON lines.
                          The predictions are in reports/<data set>/<request>/predictions/.
captured/<data set>/      Put rows here that a model was asked to predict: JSON lines. They are compared with
                          what it was trained on.
"""
"""For the tenant, beside its receipts."""


def is_latest(request: Request) -> bool:
    """Tell whether a receipt is also that of its data set: requests that a newer one has superseded leave it."""
    ended = request.state in TERMINAL and request.state is not State.SUPERSEDED
    return ended and request.kind is RequestKind.TRAINING


def order_of(request: Request) -> tuple[str, str, int, int]:
    """Return what the receipts of a data set are ordered by: end, request, attempt, progress."""
    ended_at = request.finished_at or request.arrived_at
    return (ended_at.isoformat(timespec="microseconds"), request.request_id, *progress_of(request))


def progress_of(request: Request) -> tuple[int, int]:
    """Return attempt and progress of a request, by which two receipts of it are ordered."""
    return (request.attempt, PROGRESS[request.state])


_OF_THE_ACCOUNT = re.compile(r"\barn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:[0-9]{12}:[^\s,;'\"]*")
_ACCOUNT = re.compile(r"\b[0-9]{12}\b")
AWS_MESSAGE_MAX = 500
"""Characters of a message of AWS's that a tenant is shown."""

_REGISTRY = re.compile(r"\b[0-9]{12}(?=\.dkr\.ecr\.)")


def without_account(text: str | None) -> str | None:
    """Return a reason without the ARNs and registries in it, which name the account and the service's own parts.

    SageMaker's messages contain them, as in "User: arn:aws:sts::<account>:assumed-role/… is not authorized to …".
    """
    return text and _REGISTRY.sub("…", _OF_THE_ACCOUNT.sub("arn:…", text))


def without_account_number(text: str, length: int = AWS_MESSAGE_MAX) -> str:
    """Return what AWS says, without what names the account; shortened afterwards, so that no part of it stays."""
    return _ACCOUNT.sub("…", without_account(text[: 2 * length]) or "")[:length]


def _reason_of(request: Request) -> str | None:
    """Return the reason of a request's state, as its tenant may read it."""
    reason = without_account(request.reason)
    of_aws = _OF_AWS.get(cause_of(request.reason or ""))
    if request.state is State.QUEUED and reason and not reason.startswith(_OF_THE_DATA):
        return f"{of_aws or 'it could not be started'}; it is tried again"
    return of_aws if request.state is State.FAILED and of_aws else reason


def _advice_of(request: Request) -> str | None:
    if request.kind is RequestKind.TRANSFORM:
        return _ADVICE_OF_TRANSFORMS if request.state in _ADVICE else None
    advice = _ADVICE.get(request.state)
    return "ask the provider" if advice == _IF_DATA and not request.reason else advice


def _is_of_aws(reason: str) -> bool:
    """Tell whether a reason in a tenant's words is one that a later attempt might not have."""
    early = [words for cause, words in STOPPED_EARLY.values() if cause.passes]
    return any(words in reason for words in (*_OF_AWS.values(), *early))


def waiting_of(prospect: Prospect) -> dict[str, object]:
    """Return what a receipt says about a request that waits; times in UTC, rounded away from each other."""
    earliest, latest, ends_by = prospect.earliest, prospect.latest, prospect.ends_by
    return {
        "reason": WAITING[prospect.reason],
        "position": prospect.position,
        "expected_start": {
            "earliest": earliest and _rounded(earliest),
            "latest": latest and _rounded(latest, up=True),
        },
        "expected_end": ends_by and _rounded(ends_by, up=True),
    }


def _rounded(at: datetime, *, up: bool = False) -> str:
    steps, rest = divmod(at - datetime(1970, 1, 1, tzinfo=UTC), PROSPECT_STEP)
    rounded = datetime(1970, 1, 1, tzinfo=UTC) + (steps + (up and bool(rest))) * PROSPECT_STEP
    return rounded.isoformat()


def receipt_of(request: Request, prospect: Prospect | None = None) -> dict[str, object]:
    """Return what the tenant may see; nothing in it names another tenant or internals of the service.

    `prospect` is what it can expect while it waits, where that is known.
    """
    outcome, reason = request.outcome, _reason_of(request)
    transforms = request.kind is RequestKind.TRANSFORM
    sentences = _SENTENCES_OF_TRANSFORMS if transforms else _SENTENCES
    waits_again = request.state is State.QUEUED and reason
    sentence = COLLECTS if request.state is State.QUEUED and request.collects else sentences[request.state]
    is_of_aws = request.state is State.FAILED and reason is not None and _is_of_aws(reason)
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
        "kind": request.kind.value,
        "cause": request.cause.value,
        "asked_by": list(request.triggers),
        "uploads": request.collected.files,
        "state": request.state.value,
        "message": sentence.format(reason=reason or _UNKNOWN) + (f": {reason}" if waits_again else ""),
        "reason": reason,
        "what_to_do": _ADVICE_OF_AWS if is_of_aws and not transforms else _advice_of(request),
        "superseded_by": request.superseded_by,
        "attempt": request.attempt,
    }
    if prospect is not None and request.state is State.QUEUED:
        receipt["waiting"] = waiting_of(prospect)
    if request.deadline is not None:
        receipt["deadline"] = {"at": request.deadline.isoformat(), "met": deadline_met(request)}
    if outcome is not None:
        receipt["result"] = _result_of(outcome)
    return receipt


def _champion_of(outcome: Outcome) -> dict[str, object] | None:
    """Return how the model stands beside the one before; None for the first one."""
    if outcome.champion is None:
        return None
    return {
        "request_id": outcome.champion,
        "quality": outcome.champion_quality,
        "gain": outcome.gain,
        "segment_gain": outcome.segment_gain,
        "not_compared": outcome.not_compared,
    }


def _tuning_of(outcome: Outcome) -> dict[str, object] | None:
    """Return what a tuning has found; None for a plain training."""
    if outcome.tuned is None:
        return None
    return {
        "values": json.loads(outcome.tuned),
        "score": outcome.tuned_score,
        "score_before": outcome.tuned_before,
        "metric": outcome.tuned_metric,
    }


def _result_of(outcome: Outcome) -> dict[str, object]:
    return {
        "quality": outcome.quality,
        "quality_metric": outcome.quality_metric,
        "baseline": outcome.baseline,
        "champion": _champion_of(outcome),
        "tuning": _tuning_of(outcome),
        "problem": outcome.problem,
        "rows": outcome.rows,
        "rows_dropped": outcome.rows_dropped,
        "notes": outcome.notes.splitlines() if outcome.notes else [],
        "model_uri": outcome.model_uri,
        "report_uri": outcome.report_uri,
        "model_package_arn": outcome.model_package_arn,
        "trained_version_id": outcome.trained_version_id,
        "trained_sha256": outcome.trained_sha256,
        "cost_usd": outcome.cost_usd,
        "predictions_uri": outcome.predictions_uri,
        "model_version": outcome.model_version,
        "input_files": outcome.input_files,
        "unread": without_account(outcome.unread),
    }
