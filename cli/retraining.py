"""Ask for trainings on data already uploaded: of a tenant, or again for requests that failed."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.requests import matching, view
from cli.show import Answer
from cli.text import counted, say
from cli.values import hyperparameter
from cli.waiting import awaited
from trainyard.application.api.trainings import RETRIED
from trainyard.contracts.events import explain
from trainyard.contracts.overrides import OverridesValues, overrides_values
from trainyard.domain.announcements import APPLICATION_SOURCE
from trainyard.domain.arrivals import NO_DATA_SET, check_overrides, retraining_id
from trainyard.domain.deadlines import next_ready_by
from trainyard.domain.errors import Refused
from trainyard.domain.names import FOLDERS, is_data_set
from trainyard.domain.requests import Cause, Request, RequestKind, State
from trainyard.domain.retraining import Trigger
from trainyard.domain.tenants import Tenant

NAMED_MAX = 20
AGAIN = {"trigger": Trigger.PERSON.value, "force": True, "accept_drift": False}
"""Of what is tried again: it may have failed on data on which an earlier request trained."""
EVENTS_WITHIN = timedelta(minutes=10)
"""After which an event has made its requests, or become a dead letter."""

CLOCKS_DIFFER = timedelta(minutes=5)


def retrain(deployment: Deployment, arguments: Arguments) -> Answer:
    """Ask for a training of one data set of a tenant, or of all."""
    values = None
    if arguments.algorithm or arguments.hyperparameters:
        if not arguments.data_set:
            raise Refused("--algorithm and --hyperparameter are for one training: add --data-set NAME")
        given = dict(hyperparameter(text) for text in arguments.hyperparameters)
        values = {"algorithm": arguments.algorithm, "hyperparameters": given}
    return asked_for(deployment, arguments, values)


def asked_for(deployment: Deployment, arguments: Arguments, values: dict[str, Any] | None) -> Answer:
    """Ask for trainings; `values` are what a single one is to have instead of its data set's settings."""
    tenant, now = deployment.tenant(arguments.tenant_id), datetime.now(UTC)
    detail: dict[str, Any] = {"trigger": Trigger.PERSON.value, "force": arguments.force}
    if arguments.data_set:
        check_data_set(arguments.data_set)
        _check_has_data(deployment, tenant, arguments.data_set)
        detail["data_set"] = arguments.data_set
    if arguments.ready_by:
        detail["ready_by"] = _moment(arguments.ready_by, now).isoformat()
    if arguments.priority is not None:
        detail["priority"] = arguments.priority
    if values is not None:
        detail["overrides"] = _overrides(deployment, tenant, arguments.data_set, values)
    event_id = _ask(deployment, tenant.tenant_id, detail)
    if arguments.wait:
        find = _asked_for(deployment, {event_id: tenant.tenant_id}, now)
        expected = 1 if arguments.data_set else len(_data_sets(deployment, tenant))
        return awaited(deployment, find, view, expected=expected, appear_within=EVENTS_WITHIN)
    return Answer(
        data={"EventId": event_id},
        lines=[f"requested; follow it with: trainyard requests {tenant.tenant_id} -w"],
    )


def _overrides(deployment: Deployment, tenant: Tenant, data_set: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return what the training is to have instead of its data set's settings; raises Refused."""
    try:
        values = OverridesValues.model_validate(given)
    except ValidationError as error:
        raise Refused(explain(error)) from None
    overrides = values.to_overrides()
    assert overrides is not None, "something was given"
    check_overrides(tenant, data_set, overrides, deployment.policies.current())
    return values.model_dump(mode="json")


def retry(deployment: Deployment, arguments: Arguments) -> Answer:
    """Ask for another training for requests that ended without a model; in bulk only with --yes."""
    if bool(arguments.request_ids) == _has_filter(arguments):
        raise Refused("name requests, or select them by --tenant, --tier, --state, --since or --reason")
    if arguments.request_ids:
        requests = [deployment.request(name) for name in arguments.request_ids]
    else:
        arguments.state = arguments.state or State.FAILED.value
        requests = [request for request in matching(deployment, arguments) if _is_retried(request)]
    if arguments.reason:
        requests = [request for request in requests if arguments.reason.lower() in (request.reason or "").lower()]
    for request in requests:
        if request.kind is not RequestKind.TRAINING:
            raise Refused(
                f"request {request.request_id[:8]} is a batch transform: use "
                f"`trainyard transform {request.tenant_id} {request.data_set}`"
            )
        if request.state not in RETRIED:
            raise Refused(
                f"request {request.request_id[:8]} is {request.state.value}: only one that ended without a "
                "model can be tried again"
            )
    # By how they are written: 1, 1.0 and True are equal.
    distinct = {(r.tenant_id, r.data_set, json.dumps(overrides_values(r.overrides))): r for r in requests}
    targets = list(distinct.values())
    if not arguments.request_ids and not arguments.yes:
        return _would_retry(requests, targets)
    now, events = datetime.now(UTC), {}
    for number, request in enumerate(targets, start=1):
        # It may have failed on data on which an earlier request trained.
        detail: dict[str, Any] = AGAIN | {"data_set": request.data_set}
        if request.overrides is not None:
            detail["overrides"] = overrides_values(request.overrides)
        events[_ask(deployment, request.tenant_id, detail)] = request.tenant_id
        if number % 25 == 0:
            say(f"asked for {number} of {len(targets)}")
    if arguments.wait and events:
        find = _asked_for(deployment, events, now)
        return awaited(deployment, find, view, expected=len(events), appear_within=EVENTS_WITHIN)
    return Answer(
        data={"retried": [_named(request) for request in targets]},
        lines=[
            f"asked for {counted(len(targets), 'training')}, on the newest data of each data set",
            *(f"  trainyard requests {tenant_id} -w" for tenant_id in list(dict.fromkeys(events.values()))[:5]),
        ],
    )


def _named(request: Request) -> dict[str, str]:
    return {"tenant_id": request.tenant_id, "data_set": request.data_set}


def _would_retry(requests: Sequence[Request], targets: Sequence[Request]) -> Answer:
    return Answer(
        data={"would_retry": [_named(request) for request in targets]},
        columns=("REQUEST", "TENANT", "DATA SET", "STATE", "REASON"),
        rows=[(r.request_id, r.tenant_id, r.data_set, r.state.value, r.reason) for r in requests],
        below="REASON",
        lines=[f"nothing was asked for; add --yes to ask for {len(targets)} trainings ({len(requests)} requests)"],
    )


def _is_retried(request: Request) -> bool:
    return request.state in RETRIED and request.kind is RequestKind.TRAINING


def _has_filter(arguments: Arguments) -> bool:
    return any((arguments.tenant_id, arguments.tier, arguments.state, arguments.since, arguments.reason))


def _ask(deployment: Deployment, tenant_id: str, detail: dict[str, Any]) -> str:
    """Put the event that asks for a training on the bus; return its id."""
    return put_event(deployment, "Retraining Requested", tenant_id, detail)


def put_event(deployment: Deployment, detail_type: str, tenant_id: str, detail: dict[str, Any]) -> str:
    """Put an event about a tenant on the bus; return its id."""
    entry = {
        "EventBusName": deployment.outputs["EventBus"],
        "Source": APPLICATION_SOURCE,
        "DetailType": detail_type,
        "Detail": json.dumps({"tenant_id": tenant_id} | detail),
    }
    answer = deployment.client("events").put_events(Entries=[entry])
    if answer["FailedEntryCount"]:
        raise Refused(f"the event bus rejected the event: {answer['Entries'][0].get('ErrorMessage')}")
    return str(answer["Entries"][0]["EventId"])


def _asked_for(deployment: Deployment, events: dict[str, str], now: datetime) -> Callable[[], Sequence[Request]]:
    """Return a search for the requests that events have made so far."""

    def find() -> Sequence[Request]:
        made: dict[str, list[Request]] = {event_id: [] for event_id in events}
        for tenant_id in dict.fromkeys(events.values()):
            recent = deployment.scheduler.tables.requests.of_tenant(tenant_id, since=now - CLOCKS_DIFFER)
            for request in recent:
                for event_id, owner in events.items():
                    if owner == tenant_id and _is_made_by(event_id, request):
                        made[event_id].append(request)
        return [request for requests in made.values() for request in requests]

    return find


def _is_made_by(event_id: str, request: Request) -> bool:
    # Where there was no data set, it was asked for none.
    data_set = None if request.data_set == NO_DATA_SET else request.data_set
    named = retraining_id(request.tenant_id, data_set, event_id)
    return request.cause is Cause.RETRAINING and request.request_id == named


def check_data_set(name: str) -> None:
    """Raise Refused for a text that cannot name a data set."""
    if not is_data_set(name):
        raise Refused(
            f"{name!r} is not a valid data set name: 1 to 63 letters, digits, dots, hyphens or underscores, not "
            f"{', '.join(FOLDERS)}"
        )


def _check_has_data(deployment: Deployment, tenant: Tenant, data_set: str) -> None:
    """Raise Refused, naming those that there are, for a data set without an upload."""
    s3, prefix = deployment.client("s3"), f"{tenant.root}incoming/"
    if s3.list_objects_v2(Bucket=tenant.bucket, Prefix=f"{prefix}{data_set}/", MaxKeys=1).get("KeyCount"):
        return
    names = _data_sets(deployment, tenant)
    more = ", …" if len(names) > NAMED_MAX else ""
    raise Refused(
        f"tenant {tenant.tenant_id} has uploaded nothing for data set {data_set!r}; its data sets are "
        f"{', '.join(names[:NAMED_MAX]) or 'none yet'}{more}"
    )


def _data_sets(deployment: Deployment, tenant: Tenant) -> list[str]:
    """Return the names of the data sets for which a tenant has uploaded something."""
    prefix = f"{tenant.root}incoming/"
    pages = deployment.client("s3").get_paginator("list_objects_v2")
    names = [
        common["Prefix"].removeprefix(prefix).rstrip("/")
        for page in pages.paginate(Bucket=tenant.bucket, Prefix=prefix, Delimiter="/")
        for common in page.get("CommonPrefixes", [])
    ]
    return [name for name in names if is_data_set(name)]


def _moment(text: str, now: datetime) -> datetime:
    """Return the time that a text names, such as 2026-11-28T06:00+01:00, or the next 06:00 Europe/Zurich."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return next_ready_by(text, now)
    if moment.tzinfo is None:
        raise Refused(f"--ready-by {text!r} has no offset from UTC: write it as {text}+01:00, or {text}Z")
    if moment <= now:
        raise Refused(f"--ready-by {text!r} is in the past")
    return moment
