"""Training requests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.logs import step_now, tail_of_failure
from cli.show import ID_CHARACTERS_MIN, Answer
from trainyard.adapters.aws.store import backoff
from trainyard.application.scheduling.explain import BudgetAccount, Explanation
from trainyard.contracts.overrides import overrides_values
from trainyard.domain.aliases import Alias
from trainyard.domain.errors import Refused
from trainyard.domain.executions import ExecutionRecord, StepFacts
from trainyard.domain.failures import cause_of
from trainyard.domain.model_versions import VersionState
from trainyard.domain.prices import shown
from trainyard.domain.receipts import receipt_of
from trainyard.domain.requests import TERMINAL, Basis, Estimate, Outcome, Request, RequestKind, State
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.retraining import progress
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions


def list_requests(deployment: Deployment, arguments: Arguments) -> Answer:
    """List one tenant's requests, or those of all tenants: the active ones, or those that match a filter."""
    requests, lines = matching(deployment, arguments), []
    if not requests and not (arguments.tenant_id or arguments.state or arguments.tier or arguments.since):
        requests = ended_lately(deployment)
        lines = ["no request is active; these ended last"] if requests else []
    shown = requests[-arguments.limit :]
    if len(shown) < len(requests):
        lines += [f"the last {len(shown)} of {len(requests)}; --limit N shows more"]
    return Answer(
        data=[view(request) for request in shown],
        columns=COLUMNS if arguments.tenant_id else ("TENANT", "TIER", *COLUMNS),
        rows=[_result(r) if arguments.tenant_id else (r.tenant_id, r.tier, *_result(r)) for r in shown],
        lines=lines,
        below="REASON",
    )


def matching(deployment: Deployment, arguments: Arguments) -> list[Request]:
    """Return the requests that the options select: tenant, tier, state, data set, and days; raises Refused."""
    if arguments.data_set and not arguments.tenant_id:
        raise Refused("--data-set needs a tenant: `trainyard requests TENANT --data-set NAME`")
    if arguments.tier and deployment.policies.current().tier(arguments.tier) is None:
        raise Refused(f"there is no tier {arguments.tier!r}; `trainyard policy show` shows them")
    since, until = _day(arguments.since), _day(arguments.until)
    if since and until and since > until:
        raise Refused(f"--since {arguments.since} is after --until {arguments.until}")
    requests = (
        _of_tenant(deployment, arguments, since, until)
        if arguments.tenant_id
        else list(_of_all(deployment, arguments, since, until))
    )
    return [
        request
        for request in requests
        if (arguments.state is None or request.state.value == arguments.state)
        and (arguments.tier is None or request.tier == arguments.tier)
    ]


def arrived_within(request: Request, arguments: Arguments) -> bool:
    """Tell whether a request arrived on the days that --since and --until name, where they are given."""
    since, until = _day(arguments.since), _day(arguments.until)
    return (since is None or request.arrived_at >= since) and (
        until is None or request.arrived_at < until + timedelta(days=1)
    )


COLUMNS = ("REQUEST", "DATA SET", "STATE", "ARRIVED", "WAITED", "RAN", "QUALITY", "COST USD", "REASON")
LATELY_MAX = 20
"""Requests that are shown where none is active."""

DAYS_MAX = 92
"""The longest period for which ended requests of all tenants are listed."""


def _of_tenant(
    deployment: Deployment, arguments: Arguments, since: datetime | None, until: datetime | None
) -> list[Request]:
    scheduler, tenant_id = deployment.scheduler, deployment.tenant(arguments.tenant_id).tenant_id
    end = until + timedelta(days=1) if until else None
    if arguments.data_set:
        return scheduler.tables.requests.of_data_set(tenant_id, arguments.data_set, since=since, until=end)
    return scheduler.tables.requests.of_tenant(tenant_id, since=since, until=end)


def _of_all(
    deployment: Deployment, arguments: Arguments, since: datetime | None, until: datetime | None
) -> Iterator[Request]:
    """Yield active requests; ended ones only when a state, a tier or a day is given."""
    scheduler, policy = deployment.scheduler, deployment.policies.current()
    active = [State.RUNNING, State.ADMITTED, State.QUEUED]
    for state in active:
        if arguments.state in (None, state.value):
            yield from scheduler.tables.requests.active(state)
    named = arguments.tier or since or until or (arguments.state and State(arguments.state) in TERMINAL)
    if not named:
        return
    last = until or datetime.now(UTC)
    first = since or last.replace(day=1)
    days = (last.date() - first.date()).days + 1
    if not 0 < days <= DAYS_MAX:
        raise Refused(f"--since and --until span {days} days; choose a period of 1 to {DAYS_MAX} days")
    tiers = [arguments.tier] if arguments.tier else [tier.name for tier in policy.tiers]
    states = [s for s in sorted(TERMINAL) if arguments.state in (None, s.value)]
    for number in range(days):
        day = (first + timedelta(days=number)).strftime("%Y-%m-%d")
        for tier in tiers:
            for state in states:
                yield from scheduler.tables.requests.ended(tier, state, day)


def ended_lately(deployment: Deployment) -> list[Request]:
    """Return the requests that ended last, today or yesterday, oldest first."""
    requests, now = deployment.scheduler.tables.requests, datetime.now(UTC)
    for day in (now, now - timedelta(days=1)):
        ended = [
            request
            for tier in deployment.policies.current().tiers
            for state in sorted(TERMINAL)
            for request in requests.ended(tier.name, state, day.strftime("%Y-%m-%d"), limit=LATELY_MAX)
        ]
        if ended:
            return sorted(ended, key=lambda request: request.finished_at or request.arrived_at)[-LATELY_MAX:]
    return []


def _day(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise Refused(f"{text!r} is not a day: write it as 2026-11-20") from None
    if not 2000 <= day.year < 2200:
        raise Refused(f"{text!r} is out of range: choose a day from 2000 to 2199")
    return day


def show_request(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show a request, its full history, and what each of its executions did and cost."""
    request = deployment.request(arguments.request_id)
    executions = deployment.book.executions(request.request_id)
    data = view(request) | {
        "expected": asdict(request.expected) if request.expected else None,
        "history": [asdict(entry) for entry in request.history],
        "executions": [asdict(execution) | {"tags": execution.tags} for execution in executions],
    }
    rows = list(_named(view(request)))
    if request.expected is not None:
        rows.append(("expected", _expectation(request.expected)))
    rows += [
        (f"{entry.at:%Y-%m-%d %H:%M:%S}", f"{entry.state} {entry.cause}".strip()) for entry in request.history
    ]
    for execution in executions:
        rows += [(f"attempt {execution.attempt}", line) for line in _told(execution)]
    return Answer(data=data, columns=("FIELD", "VALUE"), rows=rows)


def _told(execution: ExecutionRecord) -> Iterator[str]:
    """Yield what an execution did, a line for each step."""
    unknown = f", and {execution.unknown} steps of unknown cost" if execution.unknown else ""
    again = "" if execution.is_final else "; some details are not known yet"
    yield f"{execution.state.value.lower()}, {execution.cost_usd} USD in {execution.month}{unknown}{again}"
    for record in execution.steps:
        job = record.step.job
        used = (
            f", {job.instance_count} x {job.instance_type}, {record.seconds} s"
            if job and job.instance_type
            else ""
        )
        cost = "unknown" if record.cost_usd is None else f"{record.cost_usd} USD"
        flags = f" ({'; '.join(record.flags)})" if record.flags else ""
        yield f"{record.step.name}: {record.step.status.lower()}{used}, {cost}{flags}"


def _expectation(expected: Estimate) -> str:
    cost = "" if expected.usd is None else f", {expected.usd} USD (90 %: below {expected.usd_p90})"
    runs = f"{expected.runs} runs" if expected.basis is Basis.HISTORY else "data size and tier"
    return f"{expected.seconds} s (90 %: below {expected.seconds_p90}){cost}; based on {runs}"


def why(deployment: Deployment, arguments: Arguments) -> Answer:
    explanation = deployment.explain.why(deployment.request(arguments.request_id).request_id, datetime.now(UTC))
    request = explanation.request
    passes = deployment.last_passes(request)
    data = _why_view(explanation, passes)
    if explanation.reason is None:
        served = _served(deployment, request)
        tail = tail_of_failure(deployment, request) if request.state is State.FAILED else []
        step = step_now(deployment, request) if request.state is State.RUNNING else None
        return Answer(
            data=data | {"log_tail": tail, "step": step.name if step else None, "served": served},
            lines=[*_not_waiting(request, tail, step), *([served] if served else [])],
        )
    rows = [
        ("waiting since", _clock(request.arrived_at)),
        *(("sent back", f"after attempt {request.attempt}: {reason}") for reason in (request.reason,) if reason),
        *(("SageMaker's limit", _throttled(*limit)) for limit in (explanation.throttled,) if limit),
        *_asked(deployment, request),
        ("reason", explanation.reason.value),
        ("would unblock it", explanation.cure),
        (
            "position in its tier",
            explanation.position if explanation.latest else f"{explanation.position} or later",
        ),
        ("ahead of it", ", ".join(explanation.ahead) or "nobody"),
        ("expected start", _range(explanation.earliest, explanation.latest)),
        *(("deadline", line) for line in _deadline(request)),
        *(("expected run", _expectation(expected)) for expected in (request.expected,) if expected),
        *(("needs", f"{shown(usd)} USD left in each budget") for usd in (explanation.needs_usd,) if usd),
        *((f"budget of {account.whose}", _standing(account)) for account in explanation.accounts),
        *((f"pass at {record['at']}", record["reason"]) for record in passes),
    ]
    return Answer(data=data, columns=("", "ANSWER"), rows=rows)


def _why_view(explanation: Explanation, passes: list[dict[str, Any]]) -> dict[str, Any]:
    request = explanation.request
    return {
        "request_id": request.request_id,
        "state": request.state.value,
        "reason": explanation.reason.value if explanation.reason else request.reason,
        "would_let_it_go": explanation.cure,
        "position": explanation.position,
        "ahead": list(explanation.ahead),
        "deadline": request.deadline,
        "must_start_by": request.latest_start,
        "earliest_start": explanation.earliest,
        "latest_start": explanation.latest,
        "throttled_to": explanation.throttled[0] if explanation.throttled else None,
        "throttled_until": explanation.throttled[1] if explanation.throttled else None,
        "expected": asdict(request.expected) if request.expected else None,
        "needs_usd": explanation.needs_usd,
        "budgets": [asdict(account) for account in explanation.accounts],
        "last_passes": passes,
        "asked_by": list(request.triggers),
        "uploads": request.collected.files,
        "due_at": request.due_at,
    }


def _asked(deployment: Deployment, request: Request) -> Iterator[tuple[str, str]]:
    """Yield what asked for a request, and how far its uploads are from what is enough for a training."""
    yield "asked by", ", ".join(request.triggers) or request.cause.value
    if request.collected.files > 1:
        yield "uploads", f"{request.collected.files} in one training"
    tenant = deployment.tenants.get(request.tenant_id) if request.collects else None
    if tenant is not None:
        so_far = progress(request.collected, tenant.settings_for(request.data_set).retraining)
        yield "collects", f"{so_far}; trained at {_clock(request.due_at)} all the same"


def _served(deployment: Deployment, request: Request) -> str | None:
    """Return what became of a request's model after its approval; None where that was never asked for."""
    if request.state is not State.SUCCEEDED:
        return None
    versions = ModelVersions(deployment.store).of_data_set(request.tenant_id, request.data_set)
    version = next((each for each in versions if each.request_id == request.request_id), None)
    if version is None:
        return None
    alias = Aliases(deployment.store, backoff).get(request.tenant_id, request.data_set)
    role = {
        alias.live: "answers calls",
        alias.canary: f"answers {alias.canary_percent} % of the calls, as a canary",
        alias.testing: f"answers calls in test; {_promotion(alias)}",
        alias.previous: "answered before, and can be rolled back to",
    }.get(version.version)
    state = role if role and version.state is VersionState.READY else f"is {version.state.value}"
    reason = f": {version.reason}" if version.reason else ""
    return f"its model, version {version.version}, {state}{reason}; trainyard serving show {request.tenant_id}"


def _promotion(alias: Alias) -> str:
    if alias.test_ends_at is not None:
        return f"it is promoted at {_clock(alias.test_ends_at)} unless it fails calls"
    return f"trainyard serving promote {alias.tenant_id} {alias.data_set} {alias.testing} puts it into production"


def _not_waiting(request: Request, tail: Sequence[str] = (), step: StepFacts | None = None) -> Iterator[str]:
    """Yield what became of a request that does not wait, with its step or the end of its log."""
    short = request.request_id[:ID_CHARACTERS_MIN]
    if request.state is State.ADMITTED and request.admitted_at:
        yield f"the request is about to start: a slot has been taken since {_clock(request.admitted_at)}"
        yield "SageMaker has not confirmed its start; it is repeated every minute, and starts nothing twice"
    elif request.state is State.RUNNING and request.started_at and request.ends_by:
        yield f"the request has been running since {_clock(request.started_at)}"
        if step and step.started_at:
            yield f"its step {step.name} since {_clock(step.started_at)}; trainyard logs {short} {step.name} -f"
        yield f"it ends by {_clock(request.ends_by)}"
    elif request.state is State.SUPERSEDED and request.superseded_by:
        following = request.superseded_by[:ID_CHARACTERS_MIN]
        yield f"the request was superseded: trainyard request {following} trains on a newer upload"
    else:
        reason = f": {request.reason}" if request.reason else ""
        yield f"the request is not waiting: it {_ENDED[request.state]}{reason}"
    if tail and request.outcome:
        yield f"the last lines that {request.outcome.failed_step} printed:"
        yield from (f"  {line}" for line in tail)
        yield f"all of them: trainyard logs {short} {request.outcome.failed_step}"
    if request.state is State.REJECTED:
        yield "once that is right, upload the file again"
    if request.state is State.FAILED and cause_of(request.reason or "").passes:
        yield "the cause was not in the data; ask for another run:"
    elif request.state is State.FAILED:
        yield "once the data or the settings are right, upload the file again, or ask for another run:"
    if request.state is State.FAILED:
        yield f"  trainyard retrain {request.tenant_id} --data-set {request.data_set}"
    yield f"what each attempt did and cost: trainyard request {short}"


_ENDED = {
    State.QUEUED: "is in its queue",
    State.ADMITTED: "is about to start",
    State.RUNNING: "is running",
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.STOPPED: "was stopped",
    State.CANCELLED: "was cancelled",
    State.REJECTED: "was refused",
}


def _throttled(slots: int, until: datetime) -> str:
    return f"it last took no more than {slots} executions of this account; more are tried from {_clock(until)}"


def _standing(account: BudgetAccount) -> str:
    left_usd = account.budget.limit_usd - account.spent_usd - account.reserved_usd
    return (
        f"{shown(account.spent_usd)} spent, {shown(account.reserved_usd)} reserved, {shown(left_usd)} left of "
        f"{shown(account.budget.limit_usd)} USD in {account.month} ({account.budget.mode})"
    )


def _deadline(request: Request) -> Iterator[str]:
    if request.deadline is None:
        return
    if request.latest_start is None:
        yield f"{_clock(request.deadline)}: it arrived too late for that, and keeps its place by arrival"
    else:
        yield f"{_clock(request.deadline)}: must start by {_clock(request.latest_start)}"


def _clock(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")


def _range(earliest: datetime | None, latest: datetime | None) -> str:
    if earliest is None:
        return "none under the current conditions"
    return f"{_clock(earliest)} to {_clock(latest) if latest else 'unknown'}"


def expedite(deployment: Deployment, arguments: Arguments) -> Answer:
    request_id = deployment.request(arguments.request_id).request_id
    expedited = deployment.expedite.expedite(
        request_id, datetime.now(UTC), by=deployment.caller(), why=arguments.why
    )
    return Answer(
        data=asdict(expedited),
        lines=[
            f"{expedited.request_id} is next in tier {expedited.tier}, once three other requests of the tier have "
            f"been admitted since the last expedited one; no limit changes (expedited by {expedited.by}: "
            f"{expedited.why})"
        ],
    )


def view(request: Request) -> dict[str, Any]:
    """Return what the operator reads about a request."""
    outcome = request.outcome
    return receipt_of(request) | {
        "reason": request.reason,  # in SageMaker's words, which a receipt may not have
        "tenant_id": request.tenant_id,
        "tier": request.tier,
        "arrived_at": request.arrived_at,
        "due_at": request.due_at,
        "admitted_at": request.admitted_at,
        "started_at": request.started_at,
        "finished_at": request.finished_at,
        "execution_arn": request.execution_arn,
        "training_instances": _instances(request),
        "overrides": overrides_values(request.overrides),
        "cost_usd": outcome.cost_usd if outcome else None,
        "failed_step": outcome.failed_step if outcome else None,
    }


def _instances(request: Request) -> str | None:
    """Return what a request trains on, or may train on: its types in order of preference."""
    if not request.profile:
        return None
    profile = ResourceProfile.held_by(request)
    on_spot = " on spot capacity" if profile.is_on_spot else ""
    return f"{profile.instances} x {' or '.join(profile.training)}{on_spot}"


def named(request: Request) -> str:
    """Return the data set of a request, and that it is a batch transform if it is one."""
    return request.data_set + (" (transform)" if request.kind is RequestKind.TRANSFORM else "")


def _result(request: Request) -> tuple[Any, ...]:
    outcome = request.outcome
    return (
        request.request_id,
        named(request),
        request.state.value,
        request.arrived_at.strftime("%m-%d %H:%M:%S"),
        _between(request.arrived_at, request.started_at),
        _between(request.started_at, request.finished_at),
        f"{outcome.quality:.3f}" if outcome and outcome.quality is not None else None,
        _cost(outcome),
        request.reason or _superseded(request),
    )


def _superseded(request: Request) -> str | None:
    following = request.superseded_by
    return f"superseded by {following[:ID_CHARACTERS_MIN]}" if following else None


def _cost(outcome: Outcome | None) -> str | None:
    if outcome is None or outcome.cost_usd is None:
        return None
    return f"{outcome.cost_usd} + {outcome.cost_unknown} unknown" if outcome.cost_unknown else outcome.cost_usd


def _named(values: Mapping[str, Any], of: str = "") -> Iterator[tuple[str, Any]]:
    """Yield name and value of what is known about a request, with what belongs to an object below its name."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _named(value, f"{name} ")
        elif isinstance(value, datetime):
            yield f"{of}{name}", _clock(value)
        elif value not in (None, [], "") and name not in ("schema_version", "message"):
            yield f"{of}{name}", "; ".join(map(str, value)) if isinstance(value, list) else value


def _between(begin: datetime | None, end: datetime | None) -> str | None:
    return f"{(end - begin).total_seconds():.1f} s" if begin and end else None
