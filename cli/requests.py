"""Training requests."""

import json
from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

from cli.deployment import Deployment
from cli.show import Answer
from trainyard.domain.receipts import receipt_of
from trainyard.domain.requests import Request, State


def list_requests(deployment: Deployment, arguments: Namespace) -> Answer:
    if arguments.tenant_id:
        found = deployment.waiting_room.of_tenant(deployment.tenant(arguments.tenant_id).tenant_id)
        columns: tuple[str, ...] = (
            "REQUEST",
            "DATA SET",
            "STATE",
            "WAITED",
            "RAN",
            "QUALITY",
            "COST USD",
            "REASON",
        )
        rows = [_result(request) for request in found]
    else:
        states = (State.RUNNING, State.ADMITTED, State.QUEUED)
        found = [request for state in states for request in deployment.waiting_room.active(state)]
        columns = ("REQUEST", "TENANT", "TIER", "DATA SET", "STATE", "ARRIVED")
        rows = [_activity(request) for request in found]
    return Answer(data=[view(request) for request in found], columns=columns, rows=rows)


def show_request(deployment: Deployment, arguments: Namespace) -> Answer:
    shown = view(deployment.request(arguments.request_id))
    return Answer(
        data=shown, columns=("FIELD", "VALUE"), rows=[(name, _plain(value)) for name, value in shown.items()]
    )


def why(deployment: Deployment, arguments: Namespace) -> Answer:
    found = deployment.explain.why(arguments.request_id, datetime.now(UTC))
    request = found.request
    passes = deployment.last_passes(request)
    data = {
        "request_id": request.request_id,
        "state": request.state.value,
        "reason": found.reason.value if found.reason else request.reason,
        "would_let_it_go": found.cure,
        "position": found.position,
        "ahead": list(found.ahead),
        "earliest_start": found.earliest,
        "latest_start": found.latest,
        "last_passes": passes,
    }
    if found.reason is None:
        return Answer(data=data, lines=[f"it does not wait: it is {request.state.value}"])
    rows = [
        ("waits since", _clock(request.arrived_at)),
        ("because", found.reason.value),
        ("would let it go", found.cure),
        ("position in its tier", found.position if found.position else "not within sight"),
        ("before it", ", ".join(found.ahead) or "nobody"),
        ("expected start", _range(found.earliest, found.latest)),
        *((f"pass of {one['at']}", one["reason"]) for one in passes),
    ]
    return Answer(data=data, columns=("", "ANSWER"), rows=rows)


def _clock(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")


def _range(earliest: datetime | None, latest: datetime | None) -> str:
    if earliest is None:
        return "not while things are as they are"
    return f"{_clock(earliest)} to {_clock(latest) if latest else 'open'}"


def stop(deployment: Deployment, arguments: Namespace) -> Answer:
    stopped = deployment.stop.stop(arguments.request_id, datetime.now(UTC))
    said = "cancelled: it had not started" if stopped.state is State.CANCELLED else "stopping; its end follows"
    return Answer(
        data={"request_id": stopped.request_id, "state": stopped.state.value},
        lines=[f"{stopped.request_id} {said}"],
    )


def view(request: Request) -> dict[str, Any]:
    """Return what the operator reads about a request."""
    outcome = request.outcome
    return receipt_of(request) | {
        "tenant_id": request.tenant_id,
        "tier": request.tier,
        "arrived_at": request.arrived_at,
        "due_at": request.due_at,
        "admitted_at": request.admitted_at,
        "started_at": request.started_at,
        "finished_at": request.finished_at,
        "execution_arn": request.execution_arn,
        "cost_usd": outcome.cost_usd if outcome else None,
        "failed_step": outcome.failed_step if outcome else None,
    }


def _result(request: Request) -> tuple[Any, ...]:
    outcome = request.outcome
    return (
        request.request_id,
        request.data_set,
        request.state.value,
        _between(request.arrived_at, request.started_at),
        _between(request.started_at, request.finished_at),
        f"{outcome.quality:.3f}" if outcome and outcome.quality is not None else None,
        outcome.cost_usd if outcome else None,
        request.reason or (f"superseded by {request.superseded_by}" if request.superseded_by else None),
    )


def _activity(request: Request) -> tuple[Any, ...]:
    arrived = request.arrived_at.strftime("%Y-%m-%d %H:%M:%S")
    return (request.request_id, request.tenant_id, request.tier, request.data_set, request.state.value, arrived)


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value


def _between(begin: datetime | None, end: datetime | None) -> str | None:
    return f"{(end - begin).total_seconds():.1f} s" if begin and end else None
