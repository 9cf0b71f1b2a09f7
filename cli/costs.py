"""Training costs: reports, budgets, estimates, statements, exports, and comparison with the bill."""

import json
import tempfile
import webbrowser
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted
from trainyard.adapters.aws.billing import billed_by_tenant
from trainyard.application.billing.cost_tags import COST_TAGS, TagState, payers_command
from trainyard.application.billing.reports import By, CostRow, cost_report, differences, estimate_errors
from trainyard.contracts.shipped_prices import prices_of
from trainyard.domain.errors import Refused
from trainyard.domain.executions import ExecutionRecord, days_in, month_begins, month_of, next_month
from trainyard.domain.prices import shown
from trainyard.domain.requests import State
from trainyard.persistence.book import BOOKS_BEGIN


def report(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show what trainings cost."""
    first, last = _months(arguments)
    if arguments.by == BY_DAY:
        return _by_day(deployment, arguments.tenant, first, last)
    totals = [t for month in _between(first, last) for t in deployment.book.totals(month, arguments.tenant)]
    if arguments.tenant and not totals:
        deployment.tenant(arguments.tenant)  # a deleted tenant may still have costs
    made = cost_report(totals, By(arguments.by), prices_of(deployment.region))
    lines = []
    if made.total.unknown:
        lines.append(
            f"steps of unknown cost, not included in the amounts: {made.total.unknown} (`trainyard prices show` "
            "lists the known prices)"
        )
    lines.append("INFERENCE, STORAGE and SCHEDULER are in USD too, but not part of the USD column (docs/costs.md)")
    if arguments.tenant is None and (endpoints := _endpoints(deployment, first, last)):
        lines.append(endpoints)
    return Answer(
        data={
            "from": first,
            "to": last,
            "by": made.by.value,
            "rows": [asdict(row) for row in made.rows],
            "total": asdict(made.total),
        },
        columns=(arguments.by.upper(), *COLUMNS) if made.rows else (),
        rows=[_cells(row) for row in (*made.rows, made.total)] if made.rows else [],
        lines=lines if made.rows else [_nothing(first, last)],
    )


def _endpoints(deployment: Deployment, first: str, last: str) -> str | None:
    """Return what the endpoints cost in some months, and how much of that nobody used; None without any."""
    begin, end = month_begins(first), min(month_begins(next_month(last)) + LATEST_BOOKING, datetime.now(UTC))
    days = [(begin + timedelta(days=number)).strftime("%Y-%m-%d") for number in range((end - begin).days + 1)]
    booked = (hour for day in days for hour in deployment.inference_book.hours(day))
    hours = [hour for hour in booked if first <= hour.hour[:7] <= last]
    if not hours:
        return None
    usd = sum((hour.usd or Decimal(0) for hour in hours), Decimal(0))
    idle = sum((hour.idle_usd for hour in hours), Decimal(0))
    unknown = sum(hour.usd is None for hour in hours)
    text = (
        f"endpoints: {counted(len(hours), 'hour')}, {shown(usd)} USD, of which {shown(idle)} were idle "
        "(the provider's)"
    )
    return text + (f"; the price of {unknown} hours is unknown" if unknown else "")


LATEST_BOOKING = timedelta(days=3)
"""After the end of a month, its last hours of endpoints were booked."""

RECORDED_WITHIN_DAYS = 31
"""After the end of a month, its last executions were recorded and corrected."""

BY_DAY = "day"
"""Not among the totals that are stored: it is added up from the executions."""


def _by_day(deployment: Deployment, tenant_id: str | None, first: str, last: str) -> Answer:
    """Show what the executions admitted on each day (UTC) cost; they are booked in the month of that day."""
    days: dict[str, list[ExecutionRecord]] = {}
    for month in _between(first, last):
        for execution in _executions(deployment, tenant_id, month):
            days.setdefault(execution.admitted_at.strftime("%Y-%m-%d"), []).append(execution)
    rows = [(day, *_added_up(days[day])) for day in sorted(days)]
    names = ("day", "runs", "succeeded", "failed", "stopped", "usd", "unknown")
    total = ("total", *_added_up([execution for executions in days.values() for execution in executions]))
    return Answer(
        data={
            "from": first,
            "to": last,
            "by": BY_DAY,
            "rows": [dict(zip(names, row, strict=True)) for row in rows],
            "total": dict(zip(names, total, strict=True)),
        },
        columns=tuple(name.upper() for name in names) if rows else (),
        rows=[(*row[:5], shown(row[5]), row[6] or None) for row in (*rows, total)] if rows else [],
        lines=[] if rows else [_nothing(first, last)],
    )


def _added_up(executions: list[ExecutionRecord]) -> tuple[int, int, int, int, Decimal, int]:
    states = [execution.state for execution in executions]
    return (
        len(executions),
        states.count(State.SUCCEEDED),
        states.count(State.FAILED),
        states.count(State.STOPPED),
        sum((execution.cost_usd for execution in executions), Decimal(0)),
        sum(execution.unknown for execution in executions),
    )


COLUMNS = (
    "RUNS",
    "SUCCEEDED",
    "FAILED",
    "STOPPED",
    "INSTANCE HOURS",
    "USD",
    "UNKNOWN",
    "CALLS",
    "INFERENCE",
    "STORAGE",
    "SCHEDULER",
)


def _nothing(first: str, last: str) -> str:
    return f"no training was booked in {first}" + ("" if first == last else f" to {last}")


def _cells(row: CostRow) -> tuple[Any, ...]:
    return (
        row.name,
        row.executions,
        row.succeeded,
        row.failed,
        row.stopped,
        f"{row.instance_hours:.2f}",
        f"{row.shown_usd:,}",
        row.unknown or None,
        row.calls or None,
        _amount(row.inference_usd) if row.calls else None,
        _amount(row.storage_usd),
        _amount(row.scheduler_usd),
    )


def budgets(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show the budgets of tenants and tiers, and how much of each is used."""
    policy, now = deployment.policies.current(), datetime.now(UTC)
    if arguments.tenant:
        owner = deployment.tenant(arguments.tenant)
        accounts = list(deployment.explain.accounts(owner.tenant_id, owner.tier, policy, now))
        if not accounts:
            raise Refused(
                f"neither tenant {owner.tenant_id} nor its tier {owner.tier} has a budget: "
                "`trainyard tenant update … --budget-usd` sets one"
            )
    else:
        accounts = list(deployment.explain.all_accounts(deployment.tenants.get, policy, now))
    return Answer(
        data=[asdict(account) for account in accounts],
        columns=("BUDGET OF", "MONTH", "MODE", "LIMIT", "SPENT", "RESERVED", "LEFT", "USED", "MAX OVERSHOOT"),
        rows=[
            (
                account.whose,
                account.month,
                account.budget.mode.value,
                shown(account.budget.limit_usd),
                shown(account.spent_usd),
                shown(account.reserved_usd),
                shown(account.budget.limit_usd - account.spent_usd - account.reserved_usd),
                f"{account.spent_usd / account.budget.limit_usd:.0%}",
                _amount(account.overshoot_usd),
            )
            for account in accounts
        ],
    )


def estimates(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show how accurate the estimates were."""
    month = _month(arguments.month)
    executions = list(_executions(deployment, arguments.tenant, month))
    errors = estimate_errors(executions)
    if errors.seconds_median is None:
        return Answer(
            data=asdict(errors) | {"month": month}, lines=[f"no successful run in {month} had an estimate"]
        )
    return Answer(
        data=asdict(errors) | {"month": month},
        columns=("ESTIMATE OF", "RUNS", "MEDIAN ERROR", "P90 ERROR"),
        rows=[
            ("duration", errors.runs, _share(errors.seconds_median), _share(errors.seconds_p90)),
            ("cost", errors.runs, _share(errors.usd_median), _share(errors.usd_p90)),
        ],
        lines=["errors are relative to the actual values; only successful runs count"],
    )


def _executions(deployment: Deployment, tenant_id: str | None, month: str) -> Iterator[ExecutionRecord]:
    """Yield the executions that are booked in a month, a tenant's or all; all are listed by the days on which they
    were recorded, the last of them after the month.
    """
    begin, end = month_begins(month), month_begins(next_month(month))
    if tenant_id is not None:
        yield from deployment.book.executions_of_month(tenant_id, month, begin, end)
        return
    for number in range(days_in(month) + RECORDED_WITHIN_DAYS):
        day = (begin + timedelta(days=number)).strftime("%Y-%m-%d")
        yield from (each for each in deployment.book.executions_of_day(day) if each.month == month)


def statement(deployment: Deployment, arguments: Arguments) -> Answer:
    """Write a tenant's statement into its storage."""
    deployment.tenant(arguments.tenant)
    month = _month(arguments.month)
    answer = _ask(deployment, {"statement": {"tenant": arguments.tenant, "month": month}})
    where = str(answer["statement"])
    return Answer(data=answer, lines=[where, *(_opened(deployment, where) if arguments.open else [])])


def _opened(deployment: Deployment, uri: str) -> list[str]:
    """Show a copy of a page in the browser; return where the copy is, and that no browser was there if so."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    copy = Path(tempfile.mkdtemp(prefix="trainyard-")) / key.rpartition("/")[2]
    deployment.client("s3").download_file(bucket, key, str(copy))
    shown_it = webbrowser.open(copy.as_uri())
    return [f"copied to {copy}" + ("" if shown_it else "; there is no browser here to open it")]


def export(deployment: Deployment, arguments: Arguments) -> Answer:
    """Export a day again."""
    try:
        day = date.fromisoformat(arguments.day)
    except ValueError:
        raise Refused(f"{arguments.day!r} is not a day: write it as 2026-11-20") from None
    if not f"{BOOKS_BEGIN}-01" <= day.isoformat() <= datetime.now(UTC).strftime("%Y-%m-%d"):
        raise Refused(f"there are no records for {day}: they start in {BOOKS_BEGIN} and end today")
    answer = _ask(deployment, {"export": day.isoformat()})
    over = day.isoformat() < datetime.now(UTC).strftime("%Y-%m-%d")
    return Answer(data=answer, lines=[answer["export"]] + ([] if over else ["incomplete: the day is not over"]))


def tags(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show the state of the cost allocation tags."""
    note = deployment.book.noted("cost tags")
    if note is None:
        return Answer(
            data={"at": None, "states": {}, "why": None, "payers_command": payers_command()},
            lines=[
                "activation has not been tried yet: the billing function tries once a day",
                f"the paying account can run: {payers_command()}",
            ],
        )
    states = note["states"]
    open_ones = [name for name in COST_TAGS if states.get(name) not in (TagState.ACTIVE, TagState.ACTIVATED)]
    lines = [f"last attempt: {note['at'][:19]}Z"] + ([note["why"]] if note["why"] else [])
    if open_ones:
        lines.append(f"to activate the others, the paying account can run: {payers_command(open_ones)}")
    return Answer(
        data={
            "at": note["at"],
            "states": states,
            "why": note["why"],
            "payers_command": payers_command(open_ones),
        },
        columns=("TAG", "BILLING STATE"),
        rows=[(name, states.get(name)) for name in COST_TAGS],
        lines=lines,
    )


def reconcile(deployment: Deployment, arguments: Arguments) -> Answer:
    """Compare booked costs with what Cost Explorer says was billed."""
    month = _month(arguments.month)
    billed = billed_by_tenant(month, deployment.outputs["Stage"])
    all_rows = differences(deployment.book.totals(month), billed)
    rows = [
        (
            row.tenant_id,
            f"{row.booked_usd:,.2f}",
            f"{row.billed_usd:,.2f}",
            f"{row.usd:+,.2f}",
            None if row.share is None else f"{row.share:+.1%}",
        )
        for row in all_rows
    ]
    booked, bill = (sum((getattr(row, n) for row in all_rows), Decimal(0)) for n in ("booked_usd", "billed_usd"))
    return Answer(
        data={
            "month": month,
            "tenants": [asdict(row) | {"difference_usd": row.usd} for row in all_rows],
            "booked_usd": booked,
            "billed_usd": bill,
        },
        columns=("TENANT", "BOOKED USD", "BILLED USD", "DIFFERENCE", "SHARE OF BILL"),
        rows=[*rows, ("total", f"{booked:,.2f}", f"{bill:,.2f}", f"{bill - booked:+,.2f}", None)] if rows else [],
        lines=[
            "BILLED is the unblended cost: savings plans, credits and taxes make it differ from list prices; a "
            "run that spans two months is booked in the month of its admission, and billed in both"
        ],
    )


def _ask(deployment: Deployment, command: dict[str, Any]) -> dict[str, Any]:
    """Invoke the billing function; raises Refused with its error message."""
    answer = deployment.client("lambda").invoke(
        FunctionName=deployment.outputs["BillingFunction"], Payload=json.dumps(command).encode()
    )
    body: dict[str, Any] = json.loads(answer["Payload"].read())
    if answer.get("FunctionError"):
        raise Refused(str(body.get("errorMessage", body)))
    return body


def _months(arguments: Arguments) -> tuple[str, str]:
    last = _month(arguments.month)
    first = _month(arguments.since) if arguments.since else last
    if first > last:
        raise Refused(f"--since {first} is after --month {last}")
    return first, last


def _month(text: str | None) -> str:
    """Return the given month, by default the current one; raises Refused for anything else."""
    if text is None:
        return month_of(datetime.now(UTC))
    try:
        month = month_of(month_begins(text))
    except ValueError:
        raise Refused(f"{text!r} is not a month: write it as 2026-11") from None
    if not BOOKS_BEGIN <= month <= month_of(datetime.now(UTC)):
        raise Refused(f"there are no records for {month}: they start in {BOOKS_BEGIN} and end this month")
    return month


def _between(first: str, last: str) -> Iterator[str]:
    month = first
    while month <= last:
        yield month
        month = next_month(month)


def _amount(usd: Decimal | None) -> str:
    return "unknown" if usd is None else shown(usd)


def _share(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.0%}" if value < 10 else f"{value:,.0f} times"
