"""The service's health: slots and requests by tier, and a line for each thing that needs attention."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from cli import dlq, windows
from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.endpoints import Endpoint, endpoints_of, summaries_of, troubles
from cli.show import ID_CHARACTERS_MIN, Answer
from cli.text import counted
from trainyard.adapters.aws.alarms import alarms_in_force
from trainyard.application.scheduling import pauses
from trainyard.domain.failures import kind_of_reason
from trainyard.domain.policy import Policy
from trainyard.domain.prices import shown
from trainyard.domain.requests import Request, State
from trainyard.domain.scheduling import Ledger

NAMED_MAX = 5
"""Tenants, reasons and alarms that are named."""

UNANSWERED = timedelta(minutes=2)
"""A start that SageMaker has not confirmed after so long is worth a line; it usually takes seconds."""

BUDGETS_READ_MAX = 50
"""Tenants' budgets that are looked at: each takes several reads, and the status is repeated by -w and top."""

NEAR_ITS_END = Decimal("0.9")
"""Of a budget that is spent or reserved, from which on it is told."""

REASON_MAX = 160
"""Characters of a reason that are shown."""

FAILURES_READ_MAX = 200
"""Failed requests of a tier and a day that are read to group them."""

WAITING_READ_MAX = 200
"""Waiting requests that are read: those that went back to the queue last are among the first."""


@dataclass(frozen=True)
class Health:
    """What was read of a deployment at a time."""

    now: datetime
    ledger: Ledger
    policy: Policy
    """The limits in force at that time."""
    tiers: list[dict[str, Any]]
    paused_tenants: list[str]
    letters: dict[str, int]
    alarms: list[tuple[str, str]]
    failures: dict[str, list[Request]]
    """Kind of the reason → the requests that failed for it today (UTC)."""
    sent_back: dict[str, list[Request]]
    """Kind of the reason → waiting requests that could not be started or went back to the queue for it."""
    unanswered: list[Request]
    endpoints: list[Endpoint]
    """Where models are served."""
    unknown: list[str]
    """What could not be read, and why."""


def read_health(deployment: Deployment) -> Health:
    """Read slots, requests and what may need attention."""
    scheduler, now = deployment.scheduler, datetime.now(UTC)
    ledger = scheduler.tables.ledger.read()
    policy = deployment.policies.current().at(now, ledger.epoch)
    backlog, held = scheduler.tables.queues.backlog(policy), scheduler.tables.held()
    running = [request for request in held if request.state is State.RUNNING]
    letters, unknown = _known(lambda: dlq.counts(deployment), "dead letters")
    alarms, unknown_too = _known(lambda: alarms_in_force(deployment.stack), "alarms")
    endpoints, also_unknown = _known(lambda: _endpoints(deployment), "endpoints")
    return Health(
        now=now,
        ledger=ledger,
        policy=policy,
        tiers=[
            {
                "tier": tier.name,
                "slots_used": ledger.used_of_tier(tier.name),
                "slots": tier.quota,
                "running": sum(request.tier == tier.name for request in running),
                "waiting": backlog[tier.name].waiting,
                "oldest_arrived_at": backlog[tier.name].oldest_arrived_at,
            }
            for tier in policy.tiers
        ],
        paused_tenants=[tenant_id for tier in policy.tiers for tenant_id in backlog[tier.name].paused],
        letters=letters or {},
        alarms=alarms or [],
        failures=_failures(deployment, policy, now),
        sent_back=_by_reason(
            request
            for request in scheduler.tables.requests.active(
                State.QUEUED, limit=WAITING_READ_MAX, newest_first=True
            )
            if request.reason
        ),
        unanswered=[
            request
            for request in held
            if request.state is State.ADMITTED and request.admitted_at and request.admitted_at < now - UNANSWERED
        ],
        endpoints=endpoints or [],
        unknown=[words for words in (unknown, unknown_too, also_unknown) if words],
    )


def status(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show slots and requests by tier, and what needs attention."""
    health = read_health(deployment)
    return Answer(
        data=_data(health),
        columns=("TIER", "SLOTS USED", "SLOTS", "RUNNING", "WAITING", "OLDEST ARRIVAL"),
        rows=[(*list(row.values())[:-1], _age(row["oldest_arrived_at"], health.now)) for row in health.tiers],
        alarms=attention(deployment, health),
        lines=_state_lines(health),
    )


def attention(deployment: Deployment, health: Health) -> list[str]:
    """Return a line for each thing that needs attention."""
    return [
        *_paused_lines(deployment, health.ledger, health.paused_tenants),
        *_sagemaker_lines(health.ledger, health.unanswered, health.now),
        *_sent_back_lines(health.sent_back),
        *_failure_lines(health.failures, health.now),
        *(
            f"{counted(count, 'dead letter')} in {name}; trainyard dlq list"
            for name, count in health.letters.items()
            if count
        ),
        *(f"alarm {name} is in force since {since}" for name, since in health.alarms[:NAMED_MAX]),
        *_budget_lines(deployment, health.policy, health.now),
        *(f"{text} - {remedy}" for text, remedy in troubles(deployment, health.endpoints)),
    ]


def _state_lines(health: Health) -> list[str]:
    ledger, policy = health.ledger, health.policy
    closed = [tier.name for tier in policy.tiers if tier.closed]
    return [
        f"{ledger.used} of {policy.running_max} slots used{' (paused)' if ledger.paused else ''}; policy version "
        f"{policy.version}",
        *(f"tier {name} is closed at this time: nothing of it starts" for name in closed),
        *windows.lines_about(policy, health.now),
        *(
            f"first in {each.tier}: {each.request_id[:8]} of {each.tenant_id}, expedited by {each.by}: {each.why}"
            for each in ledger.expedited
        ),
        *summaries_of(health.endpoints),
        *(f"not known: {words}" for words in health.unknown),
    ]


def _data(health: Health) -> dict[str, Any]:
    ledger, throttled = health.ledger, _is_throttled(health.ledger, health.now)
    return {
        "paused": ledger.paused,
        "slots_used": ledger.used,
        "slots": health.policy.running_max,
        "tiers": health.tiers,
        "expedited": [asdict(each) for each in ledger.expedited],
        "paused_tiers": sorted(ledger.paused_tiers),
        "paused_tenants": health.paused_tenants,
        "dead_letters": health.letters,
        "alarms": [{"name": name, "since": since} for name, since in health.alarms],
        "failed_today": [
            {"reason": _reason(alike), "requests": len(alike), "latest": alike[0].request_id}
            for alike in health.failures.values()
        ],
        "sent_back": [
            {"reason": _reason(alike), "requests": len(alike), "latest": alike[0].request_id}
            for alike in health.sent_back.values()
        ],
        "endpoints": [asdict(endpoint) for endpoint in health.endpoints],
        "starts_unanswered": [request.request_id for request in health.unanswered],
        "throttled_to": ledger.throttled_to if throttled else None,
        "throttled_until": ledger.throttled_until if throttled else None,
    } | windows.as_data(health.policy)


def _endpoints(deployment: Deployment) -> list[Endpoint]:
    return endpoints_of(deployment) if deployment.outputs["SharedServing"] == "true" else []


def _known(read: Callable[[], Any], what: str) -> tuple[Any, str]:
    """Return what was read and "", or None and why it could not be: the rest of the status is shown anyway."""
    try:
        return read(), ""
    except (ClientError, BotoCoreError) as error:
        return None, f"{what} ({error})"


def _paused_lines(deployment: Deployment, ledger: Ledger, tenants: Sequence[str]) -> Iterator[str]:
    """Yield what is paused, since when, by whom and why, with the command that resumes it."""
    if ledger.paused:
        yield f"the service is paused{_noted(deployment, 'all')}; trainyard resume all"
    for name in sorted(ledger.paused_tiers):
        yield f"tier {name} is paused{_noted(deployment, f'tier {name}')}; trainyard resume tier {name}"
    for name in tenants[:NAMED_MAX]:
        noted = _noted(deployment, f"tenant {name}")
        yield f"tenant {name} is paused{noted}, and has requests waiting; trainyard resume tenant {name}"
    if len(tenants) > NAMED_MAX:
        yield f"{len(tenants) - NAMED_MAX} more tenants are paused"


def _noted(deployment: Deployment, what: str) -> str:
    """Return since when something is paused, by whom and why; "" where that was not noted."""
    note = deployment.book.noted(pauses.NOTED.format(what))
    if note is None or not note["paused"]:
        return ""
    why = f": {note['why']}" if note["why"] else ""
    return f" since {str(note['at'])[:16].replace('T', ' ')} UTC by {note['by']}{why}"


def _is_throttled(ledger: Ledger, now: datetime) -> bool:
    return ledger.throttled_to is not None and ledger.throttled_until is not None and ledger.throttled_until > now


def _sagemaker_lines(ledger: Ledger, unanswered: Sequence[Request], now: datetime) -> Iterator[str]:
    """Yield what SageMaker refuses, and what it does not answer."""
    if _is_throttled(ledger, now) and ledger.throttled_until:
        yield (
            f"SageMaker takes at most {counted(ledger.throttled_to or 0, 'execution')} now; more are tried at "
            f"{ledger.throttled_until:%H:%M:%S} UTC (its quota for concurrent executions, or its capacity)"
        )
    if unanswered:
        oldest = min(request.admitted_at for request in unanswered if request.admitted_at)
        yield (
            f"{counted(len(unanswered), 'start')} unanswered by SageMaker, the oldest since {_minute(oldest)}; "
            "each is repeated every minute, and starts nothing twice"
        )


def _failures(deployment: Deployment, policy: Policy, now: datetime) -> dict[str, list[Request]]:
    """Return the requests that failed today (UTC), by kind of reason, the most frequent first."""
    requests, day = deployment.scheduler.tables.requests, now.strftime("%Y-%m-%d")
    failed = [
        request
        for tier in policy.tiers
        for request in requests.ended(tier.name, State.FAILED, day, limit=FAILURES_READ_MAX)
    ]
    return _by_reason(sorted(failed, key=lambda request: request.finished_at or request.arrived_at, reverse=True))


def _by_reason(requests: Iterable[Request]) -> dict[str, list[Request]]:
    """Return requests by kind of reason, the most frequent kind first."""
    kinds: dict[str, list[Request]] = {}
    for request in requests:
        kinds.setdefault(kind_of_reason(request.reason or ""), []).append(request)
    return dict(sorted(kinds.items(), key=lambda kind: -len(kind[1])))


def _sent_back_lines(sent_back: dict[str, list[Request]]) -> Iterator[str]:
    """Yield why requests wait that were tried before: a quota, an outage, data that could not be read."""
    for alike in list(sent_back.values())[:NAMED_MAX]:
        yield (
            f"{counted(len(alike), 'request')} went back to the queue, {alike[0].request_id[:ID_CHARACTERS_MIN]} "
            f"last: {_reason(alike)}"
        )


def _failure_lines(failures: dict[str, list[Request]], now: datetime) -> Iterator[str]:
    """Yield how many requests failed, and the most frequent reasons."""
    total = sum(map(len, failures.values()))
    if total:
        least = "at least " if total >= FAILURES_READ_MAX else ""
        command = f"trainyard requests --state FAILED --since {now:%Y-%m-%d}"
        yield f"{least}{counted(total, 'request')} failed today (UTC); {command}"
    for alike in list(failures.values())[:NAMED_MAX]:
        yield f"  {len(alike)} like {alike[0].request_id[:ID_CHARACTERS_MIN]}: {_reason(alike)}"


def _reason(alike: Sequence[Request]) -> str:
    """Return the reason of the last of several requests that failed alike, shortened."""
    reason = alike[0].reason or "no reason was given"
    return reason if len(reason) <= REASON_MAX else f"{reason[:REASON_MAX]}…"


def _budget_lines(deployment: Deployment, policy: Policy, now: datetime) -> Iterator[str]:
    """Yield the budgets that are nearly used up; of tenants only where those with a budget are few."""
    several = sum(limits.budget is not None for limits in policy.tenants.values()) > BUDGETS_READ_MAX
    of_tenants_max = 0 if several else None
    for account in deployment.explain.all_accounts(deployment.tenants.get, policy, now, limit=of_tenants_max):
        used = account.spent_usd + account.reserved_usd
        if used >= account.budget.limit_usd * NEAR_ITS_END:
            yield (
                f"the budget of {account.whose} is {used / account.budget.limit_usd:.0%} spent or reserved: "
                f"{shown(used)} of {shown(account.budget.limit_usd)} USD in {account.month}; trainyard costs "
                "budgets"
            )


def _age(since: Any, now: datetime) -> str | None:
    """Return a time, and how long ago it was."""
    if since is None:
        return None
    minutes = int((now - since).total_seconds() // 60)
    ago = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} d"
    return f"{since:%m-%d %H:%M:%S} ({ago} ago)"


def _minute(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
