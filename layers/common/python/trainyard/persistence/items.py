"""Requests, tenant queues and executions as items of the store, and back."""

import json
from collections.abc import Mapping
from dataclasses import astuple, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from trainyard.domain.queues import URGENT, ProfileQueue, QueueEntry, TenantQueue
from trainyard.domain.requests import (
    Basis,
    Cause,
    Collected,
    Content,
    Estimate,
    KeyUploads,
    Outcome,
    Overrides,
    Request,
    RequestKind,
    State,
    StateChange,
    Tuning,
)
from trainyard.persistence.store import Item


def stamp(when: datetime) -> str:
    """Return a time as text that sorts as the times do: UTC, to the microsecond."""
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def unstamp(text: str) -> datetime:
    return datetime.fromisoformat(text)


_OUTCOME = tuple(field.name for field in fields(Outcome))
_TIMES = (
    "arrived_at",
    "due_at",
    "admitted_at",
    "started_at",
    "finished_at",
    "ends_by",
    "claimed_at",
    "heard_at",
    "stop_asked_at",
    "deadline",
    "latest_start",
)
_PLAIN = (
    "request_id",
    "tenant_id",
    "tier",
    "data_set",
    "reason",
    "superseded_by",
    "supersedes",
    "execution_arn",
    "profile",
    "selected",
    "algorithm",
    "reserved_usd",
    "month",
)
_NUMBERS = ("attempt", "data_bytes", "charge", "failures", "priority", "risk_minutes")


def request_item(request: Request) -> Item:
    """Return the item of a request; its outcome's fields stand beside the others."""
    item: Item = {name: getattr(request, name) for name in _PLAIN + _NUMBERS}
    item |= {name: stamp(when) for name in _TIMES if (when := getattr(request, name)) is not None}
    item |= {
        "state": request.state.value,
        "cause": request.cause.value,
        "kind": None if request.kind is RequestKind.TRAINING else request.kind.value,
        "alone": request.alone,
        "miss_published": request.miss_published,
        "overrides": _overrides_item(request.overrides),
        "content": content_item(request.content),
        "uploads": [_uploads_item(uploads, request.content) for uploads in request.uploads],
        "owner": owner(request.tenant_id, request.data_set),
        "history": [change_text(entry) for entry in request.history],
        "runtime_max_seconds": request.runtime_max_seconds,
        "ahead": list(request.ahead) or None,
        "triggers": list(request.triggers) or None,
        "collected": list(astuple(request.collected)) if request.collected != Collected() else None,
        "collects": request.collects or None,
        "is_forced": request.is_forced or None,
        "accepts_drift": request.accepts_drift or None,
        "keeps_interval": request.keeps_interval or None,
        "basis": request.basis or None,
        "expected": estimate_item(request.expected) if request.expected else None,
    }
    item |= outcome_values(request.outcome or Outcome())
    return {name: value for name, value in item.items() if value is not None}


def request_from(item: Mapping[str, Any]) -> Request:
    outcome = {name: item[name] for name in _OUTCOME if name in item}
    admitted_at = str(item.get("admitted_at", ""))
    values: Item = {"algorithm": "", "month": admitted_at[:7]} | {
        name: item[name] for name in _PLAIN if name in item
    }
    values |= {name: int(item.get(name, 0)) for name in _NUMBERS}
    values |= {name: unstamp(item[name]) if name in item else None for name in _TIMES}
    return Request(
        **values,
        state=State(item["state"]),
        cause=Cause(item["cause"]),
        kind=RequestKind(item.get("kind", RequestKind.TRAINING)),
        alone=bool(item["alone"]),
        miss_published=bool(item.get("miss_published", False)),
        overrides=_overrides_from(item.get("overrides")),
        content=content_from(item["content"]),
        uploads=tuple(_uploads_from(uploads, item["content"]) for uploads in item["uploads"]),
        history=tuple(map(_change_from, item.get("history", ()))),
        runtime_max_seconds=int(item["runtime_max_seconds"]) if "runtime_max_seconds" in item else None,
        ahead=tuple(item.get("ahead", ())),
        triggers=tuple(item.get("triggers", ())),
        collected=Collected(*map(int, item.get("collected", ()))),
        collects=bool(item.get("collects", False)),
        is_forced=bool(item.get("is_forced", False)),
        accepts_drift=bool(item.get("accepts_drift", False)),
        keeps_interval=bool(item.get("keeps_interval", False)),
        basis=str(item.get("basis", "")),
        expected=estimate_from(item["expected"]) if "expected" in item else None,
        outcome=_outcome(outcome) if outcome else None,
    )


def _overrides_item(overrides: Overrides | None) -> Item | None:
    if overrides is None:
        return None
    # DynamoDB knows no 1.0 beside 1.
    algorithm = {"algorithm": overrides.algorithm} if overrides.algorithm is not None else {}
    tuning = {"tuning": _tuning_text(overrides.tuning)} if overrides.tuning is not None else {}
    return {**algorithm, **tuning, "hyperparameters": json.dumps(dict(overrides.hyperparameters))}


def _tuning_text(tuning: Tuning) -> str:
    usd = None if tuning.usd is None else str(tuning.usd)
    return json.dumps([tuning.trials, tuning.minutes, usd, tuning.ranges])


def _tuning_from(text: str) -> Tuning:
    trials, minutes, usd, ranges = json.loads(text)
    money = None if usd is None else Decimal(usd)
    return Tuning(trials=trials, minutes=minutes, usd=money, ranges=tuple(map(tuple, ranges)))


def _overrides_from(item: Mapping[str, Any] | None) -> Overrides | None:
    if item is None:
        return None
    return Overrides(
        algorithm=item.get("algorithm"),
        hyperparameters=tuple(json.loads(item["hyperparameters"]).items()),
        tuning=_tuning_from(item["tuning"]) if "tuning" in item else None,
    )


def owner(tenant_id: str, data_set: str) -> str:
    """Return the index key of the requests of a data set; tenant ids contain no slash."""
    return f"{tenant_id}/{data_set}"


CAUSE_MAX = 200
"""Characters of a state change's cause that the history keeps; the request's reason is complete."""


def change_text(entry: StateChange) -> str:
    """Return an entry of a request's history as one text: time, state, cause; a long cause is cut."""
    return f"{stamp(entry.at)} {entry.state.value} {entry.cause[:CAUSE_MAX]}".rstrip()


def _change_from(text: str) -> StateChange:
    at, state, *cause = text.split(" ", 2)
    return StateChange(unstamp(at), State(state), cause[0] if cause else "")


def estimate_item(estimate: Estimate) -> Item:
    item: Item = {name: getattr(estimate, name) for name in ("seconds", "seconds_p90", "job_seconds", "runs")}
    item |= {name: getattr(estimate, name) for name in ("usd", "usd_p90") if getattr(estimate, name) is not None}
    return item | {"basis": estimate.basis.value} | ({"is_short": True} if estimate.is_short else {})


def estimate_from(item: Mapping[str, Any]) -> Estimate:
    return Estimate(
        seconds=int(item["seconds"]),
        seconds_p90=int(item["seconds_p90"]),
        job_seconds=int(item["job_seconds"]),
        usd=item.get("usd"),
        usd_p90=item.get("usd_p90"),
        basis=Basis(item["basis"]),
        runs=int(item["runs"]),
        is_short=bool(item.get("is_short", False)),
    )


def outcome_values(outcome: Outcome) -> Item:
    """Return the known fields of an outcome, by attribute name."""
    values = {name: getattr(outcome, name) for name in _OUTCOME if getattr(outcome, name) is not None}
    return {name: decimal_of(value) if isinstance(value, float) else value for name, value in values.items()}


NUMBER_MAX, NUMBER_MIN = 1e30, 1e-100
"""Sizes between which a number is kept: DynamoDB takes more, but boto3 gives back 38 digits and no more."""


def decimal_of(value: float) -> Decimal:
    """Return a finite number as a table keeps it and its SDK gives it back; what is larger or smaller is cut."""
    if abs(value) < NUMBER_MIN:
        return Decimal(0)
    return Decimal(str(max(min(value, NUMBER_MAX), -NUMBER_MAX)))


def content_item(content: Content) -> Item:
    item = {
        "bucket": content.bucket,
        "key": content.key,
        "version_id": content.version_id,
        "etag": content.etag,
        "sequencer": content.sequencer,
        "size_bytes": content.size_bytes,
        "event_time": stamp(content.event_time),
    }
    return {name: value for name, value in item.items() if value is not None}


def content_from(item: Mapping[str, Any]) -> Content:
    return Content(
        bucket=item["bucket"],
        key=item["key"],
        version_id=item.get("version_id"),
        etag=item["etag"],
        sequencer=item["sequencer"],
        size_bytes=int(item["size_bytes"]),
        event_time=unstamp(item["event_time"]),
    )


def queue_item(queue: TenantQueue) -> Item:
    item: Item = {
        "tenant_id": queue.tenant_id,
        "tier": queue.tier,
        "revision": queue.revision,
        "holders": list(queue.holders),
        "service_ms": queue.service_ms,
        "units": queue.units,
        "units_since_ms": queue.units_since_ms,
        "month": queue.month,
        "spent_usd": queue.spent_usd,
        "reserved_usd": queue.reserved_usd,
        "warned": queue.warned,
        "paused": queue.paused,
        "profiles": {
            name: {"waiting": profile.waiting, "head": entry_item(profile.head)}
            | ({"behind": [_entry_text(entry) for entry in profile.behind]} if profile.behind else {})
            for name, profile in queue.profiles.items()
        },
    }
    item |= {"urgent_in_a_row": queue.urgent_in_a_row} if queue.urgent_in_a_row else {}
    return item | ({"parked_for": queue.parked_for} if queue.parked_for else {})


def queue_from(item: Mapping[str, Any]) -> TenantQueue:
    return TenantQueue(
        tenant_id=item["tenant_id"],
        tier=item["tier"],
        revision=int(item["revision"]),
        holders=tuple(item["holders"]),
        service_ms=int(item["service_ms"]),
        units=int(item["units"]),
        units_since_ms=int(item["units_since_ms"]),
        month=item.get("month", ""),
        warned=int(item.get("warned", 0)),
        spent_usd=item["spent_usd"],
        reserved_usd=item["reserved_usd"],
        paused=bool(item["paused"]),
        parked_for=item.get("parked_for"),
        urgent_in_a_row=int(item.get("urgent_in_a_row", 0)),
        profiles={
            name: ProfileQueue(
                waiting=int(profile["waiting"]),
                head=entry_from(profile["head"]),
                behind=tuple(_entry_in(name, text) for text in profile.get("behind", ())),
            )
            for name, profile in item["profiles"].items()
        },
    )


def _entry_text(entry: QueueEntry) -> str:
    """Return an entry as short text: a queue's item holds many, and is billed by the kilobyte."""
    usd = "" if entry.usd_p90 is None else str(entry.usd_p90)
    times = f"{stamp(entry.arrived_at)}|{stamp(entry.due_at)}"
    expected = f"{entry.job_seconds}|{entry.seconds_p90}|{usd}"
    flags = f"{int(entry.alone)}|{expected}|{int(entry.is_short)}|{entry.priority}"
    interval = "|1" if entry.keeps_interval else ""
    deadline = f"{_stamped(entry.latest_start)}|{_stamped(entry.hopeless_after)}"
    return f"{entry.request_id}|{entry.data_set}|{times}|{flags}|{deadline}{interval}"


def _stamped(when: datetime | None) -> str:
    return "" if when is None else stamp(when)


def _unstamped(text: str | None) -> datetime | None:
    return unstamp(text) if text else None


def _entry_in(profile: str, text: str) -> QueueEntry:
    request_id, data_set, arrived_at, due_at, alone, *expected = text.split("|")
    job_seconds, seconds_p90, usd, is_short, priority, latest_start, hopeless_after, *interval = expected
    return QueueEntry(
        request_id=request_id,
        data_set=data_set,
        profile=profile.removesuffix(URGENT),
        arrived_at=unstamp(arrived_at),
        due_at=unstamp(due_at),
        alone=alone == "1",
        job_seconds=int(job_seconds),
        seconds_p90=int(seconds_p90),
        usd_p90=Decimal(usd) if usd else None,
        is_short=is_short == "1",
        priority=int(priority),
        latest_start=_unstamped(latest_start),
        hopeless_after=_unstamped(hopeless_after),
        keeps_interval=interval == ["1"],
    )


def entry_item(entry: QueueEntry) -> Item:
    optional: Item = {"job_seconds": entry.job_seconds} if entry.job_seconds else {}
    optional |= {"seconds_p90": entry.seconds_p90} if entry.seconds_p90 else {}
    optional |= {"usd_p90": entry.usd_p90} if entry.usd_p90 is not None else {}
    optional |= {"is_short": True} if entry.is_short else {}
    optional |= {"priority": entry.priority} if entry.priority else {}
    optional |= {"keeps_interval": True} if entry.keeps_interval else {}
    times = {"latest_start": entry.latest_start, "hopeless_after": entry.hopeless_after}
    optional |= {name: stamp(when) for name, when in times.items() if when is not None}
    return optional | {
        "request_id": entry.request_id,
        "data_set": entry.data_set,
        "profile": entry.profile,
        "arrived_at": stamp(entry.arrived_at),
        "due_at": stamp(entry.due_at),
        "alone": entry.alone,
    }


def entry_from(item: Mapping[str, Any]) -> QueueEntry:
    return QueueEntry(
        request_id=item["request_id"],
        data_set=item["data_set"],
        profile=item["profile"],
        arrived_at=unstamp(item["arrived_at"]),
        due_at=unstamp(item["due_at"]),
        alone=bool(item["alone"]),
        job_seconds=int(item.get("job_seconds", 0)),
        seconds_p90=int(item.get("seconds_p90", 0)),
        usd_p90=item.get("usd_p90"),
        is_short=bool(item.get("is_short", False)),
        priority=int(item.get("priority", 0)),
        latest_start=_unstamped(item.get("latest_start")),
        hopeless_after=_unstamped(item.get("hopeless_after")),
        keeps_interval=bool(item.get("keeps_interval", False)),
    )


def _uploads_item(uploads: KeyUploads, newest: Content) -> Item:
    """Return what is known of a key's uploads.

    A request is written several times, and each kilobyte of it is billed: the key, which may be long, stands in
    it once, and the content to train on is referred to as the request's `content`.
    """
    item: Item = {"key": uploads.key, "event_time": stamp(uploads.event_time)}
    for name, content in (("sequenced", uploads.sequenced), ("bare", uploads.bare)):
        if content == newest:
            item["content"] = name
        elif content is not None:
            item[name] = {part: value for part, value in content_item(content).items() if part != "key"}
    return item


def _uploads_from(item: Mapping[str, Any], newest: Item) -> KeyUploads:
    contents = {name: {"key": item["key"], **item[name]} for name in ("sequenced", "bare") if name in item}
    if "content" in item:
        contents[item["content"]] = newest
    sequenced, bare = contents.get("sequenced"), contents.get("bare")
    return KeyUploads(
        key=item["key"],
        event_time=unstamp(item["event_time"]),
        sequenced=content_from(sequenced) if sequenced else None,
        bare=content_from(bare) if bare else None,
    )


def _outcome(values: Item) -> Outcome:
    return Outcome(**{name: _number(value) for name, value in values.items()})


def _number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value
