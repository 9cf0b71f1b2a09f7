"""Statements: the costs of a tenant's month, as an HTML page in the tenant's own storage."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from html import escape
from math import floor, log10
from typing import Protocol

from trainyard.application.ports import Tenants
from trainyard.domain.executions import ExecutionRecord, apportioned, days_in, month_begins, month_of, next_month
from trainyard.domain.prices import places_for, shown
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.book import Book, Totals

FOLDER = "reports/_statements"
"""A folder below the tenant's root; no data set's name begins like this."""

DUE_DAY = 4
"""Day of the month: records of the last one are corrected for up to three days (application/billing/outbox.py)."""


TRIED_UNTIL_DAY = 11
"""Day of the month: after it a missing statement must be requested (`trainyard costs statement`)."""

FAILURES_MAX = 200
"""If more fail, they have a common cause."""


class StatementFiles(Protocol):
    def put(self, tenant: Tenant, key: str, page: str) -> str:
        """Write a page below the tenant's root; return where."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    book: Book
    files: StatementFiles

    def write(self, tenant: Tenant, month: str, now: datetime) -> str:
        """Write a tenant's current statement of a month; return its location. Idempotent."""
        key = f"{tenant.root}{FOLDER}/{month}.html"
        totals = list(self.book.totals(month, tenant.tenant_id))
        page = statement(tenant.tenant_id, month, self.executions(tenant, month), now, totals)
        return self.files.put(tenant, key, page)

    def executions(self, tenant: Tenant, month: str) -> list[ExecutionRecord]:
        begin, end = month_begins(month), month_begins(next_month(month))
        return self.book.executions_of_month(tenant.tenant_id, month, begin, end)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthlyStatements:
    """Every tenant's statement of the month that is over, once its late corrections are in."""

    book: Book
    tenants: Tenants
    statements: Statements

    def write_due(
        self,
        now: datetime,
        out_of_time: Callable[[], bool] = lambda: False,
        failed: Callable[[str, Exception], None] = lambda tenant_id, error: None,
    ) -> int:
        """Write the statements that are due; return how many. The next run continues if time runs out. Idempotent.

        A statement that cannot be written is passed to `failed` and does not affect the others: each run retries
        it until TRIED_UNTIL_DAY. When FAILURES_MAX fail, they have a common cause: raises the last error, and the
        next run starts where this one did.
        """
        month = month_of(month_begins(month_of(now)) - timedelta(days=1))
        note = self.book.noted("statements") or {}
        if now.day < DUE_DAY or note.get("complete") == month:
            return 0
        same = note.get("month") == month
        after, passed = (str(note.get("after", "")), bool(note.get("passed"))) if same else ("", False)
        late = [str(name) for name in note.get("late", ())] if same else []
        ids = list(dict.fromkeys(totals.tenant_id for totals in self.book.totals(month)))
        due = late if passed else [tenant_id for tenant_id in ids if tenant_id > after]
        written, failures = 0, [] if passed else late
        for number, tenant_id in enumerate(due):
            if out_of_time():
                rest = failures + due[number:] if passed else failures
                self.book.note("statements", {"month": month, "after": after, "late": rest, "passed": passed})
                return written
            try:
                written += self._write(tenant_id, month, now)
            except Exception as error:  # one failing tenant must not affect the others
                failed(tenant_id, error)
                failures = [*failures, tenant_id]
                if len(failures) > FAILURES_MAX:
                    raise
            after = tenant_id
        note = {"month": month, "after": after, "late": failures, "passed": True}
        over = not failures or now.day >= TRIED_UNTIL_DAY
        self.book.note("statements", note | ({"complete": month} if over else {}))
        return written

    def _write(self, tenant_id: str, month: str, now: datetime) -> bool:
        tenant = self.tenants.get(tenant_id)
        if tenant is None or tenant.state is TenantState.DELETED:
            return False
        self.statements.write(tenant, month, now)
        return True


def statement(
    tenant_id: str,
    month: str,
    executions: Sequence[ExecutionRecord],
    now: datetime,
    totals: Sequence[Totals] = (),
) -> str:
    """Return the page: the total, a picture of cost by day, cost by data set, predictions, and every training."""
    # long: most of it is the page
    total = sum((execution.cost_usd for execution in executions), Decimal(0))
    places = places_for(total)
    unknown = sum(execution.unknown for execution in executions)
    over = now >= month_begins(next_month(month))
    data_sets = sorted({execution.data_set for execution in executions})
    shares = [_sum(e for e in executions if e.data_set == name) for name in data_sets]
    rows = "".join(
        f"<tr><td>{escape(name)}<td class=n>{sum(e.data_set == name for e in executions)}<td class=n>{cents}"
        for name, cents in zip(data_sets, apportioned(shares, places), strict=True)
    )
    note = (
        f"<p class=w>The cost of {unknown} step{'s' if unknown > 1 else ''} is not known yet, and not in these "
        "amounts.</p>"
        if unknown
        else ""
    )
    runs = list(zip(executions, apportioned([e.cost_usd for e in executions], places), strict=True))
    trainings = "".join(_training(execution, cents) for execution, cents in runs)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{escape(tenant_id)}, {month}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #223; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.5rem; margin-bottom: 0 }} h2 {{ font-size: 1.1rem; margin-top: 2rem }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ text-align: left; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid #dde; vertical-align: top }} .n, .k {{ white-space: nowrap }}
.n {{ text-align: right }}
.t {{ font-size: 2rem; margin: .5rem 0 }} .w {{ background: #fff3d6; padding: .5rem .75rem }} .s {{ color: #667 }}
svg {{ width: 100%; max-width: 36rem; height: auto }} svg text {{ font: 15px system-ui, sans-serif; fill: #556 }}
@media (max-width: 40rem) {{ table {{ display: block; overflow-x: auto }} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ color-scheme: dark }}
  body {{ background: #15181d; color: #dde3ea }} th, td {{ border-color: #39414d }} .w {{ background: #46380f }}
  .s {{ color: #a3adba }} svg text {{ fill: #b4bdc9 }} }}
</style>
<h1>Trainings of {escape(tenant_id)}</h1>
<p class=s>{month}, {"the whole month" if over else "so far"}; as of {now:%Y-%m-%d %H:%M} UTC</p>
<p class=t>{shown(total)} USD</p>{note}
<h2>Cost by day</h2>
{picture(month, executions)}
<h2>Cost by data set</h2>
<table><tr><th>Data set<th class=n>Trainings<th class=n>USD{rows}
<tr><th>Total<th class=n>{len(executions)}<th class=n>{shown(total)}</table>
{_predictions(totals)}<h2>Trainings</h2>
<table><tr><th>Admitted (UTC)<th>Data set<th>Algorithm<th>Ended<th class=n>Minutes<th class=n>USD<th>Model
{trainings}
</table>
<p class=s>A training counts in the month in which it was admitted. Amounts are estimates at list prices: what
instances and their volumes cost, each training rounded so that all add up to the total.</p>
</html>
"""


def _predictions(totals: Sequence[Totals]) -> str:
    """Return the section about predictions; "" where nobody asked for any."""
    calls: dict[str, int] = {}
    usd: dict[str, Decimal] = {}
    for part in totals:
        if part.calls:
            calls[part.data_set] = calls.get(part.data_set, 0) + part.calls
            usd[part.data_set] = usd.get(part.data_set, Decimal(0)) + part.inference_usd
    if not calls:
        return ""
    total, names = sum(usd.values(), Decimal(0)), sorted(calls)
    amounts = apportioned([usd[name] for name in names], places_for(total))
    rows = "".join(
        f"<tr><td>{escape(name)}<td class=n>{calls[name]:,}<td class=n>{amount}"
        for name, amount in zip(names, amounts, strict=True)
    )
    return f"""<h2>Predictions</h2>
<table><tr><th>Data set<th class=n>Calls<th class=n>USD{rows}
<tr><th>Total<th class=n>{sum(calls.values()):,}<th class=n>{shown(total)}</table>
<p class=s>Of each hour of the endpoint that answered, a share by the time that the calls took and by the memory of
the model. Not in the total above.</p>
"""


def picture(month: str, executions: Sequence[ExecutionRecord]) -> str:
    """Return bars of what each day's trainings cost, as SVG; the day is that of their end.

    Its text can be read on a telephone, whose pages are 375 pixels wide.
    """
    days = [f"{month}-{number:02d}" for number in range(1, days_in(month) + 1)]
    usd = [float(_sum(e for e in executions if e.day == day)) for day in days]
    top = _rounded_up(max(usd, default=0.0))
    amounts = {share: f"{top * share:g}" for share in (0, 0.5, 1)}
    # As much room as the longest amount takes.
    width, height, left_edge, base = 480, 220, 16 + 9 * max(map(len, amounts.values())), 190
    step = (width - 10 - left_edge) / len(days)
    centers = [left_edge + (number + 0.5) * step for number in range(len(days))]
    bars = "".join(
        f'<rect x="{left_edge + number * step + 1:.1f}" y="{base - value / top * 160:.1f}" width="{step - 2:.1f}" '
        f'height="{value / top * 160:.1f}" fill="#4477aa">'
        f"<title>{day}: {shown(Decimal(str(value)))} USD</title></rect>"
        for number, (day, value) in enumerate(zip(days, usd, strict=True))
        if value
    )
    labels = "".join(
        f'<text x="{center:.1f}" y="{base + 20}" text-anchor="middle">{number + 1}</text>'
        for number, center in enumerate(centers)
        if number == 0 or number % 5 == 4
    )
    lines = "".join(
        f'<path d="M{left_edge} {base - 160 * share:.0f}H{width}" stroke="#dde"/>'
        f'<text x="{left_edge - 6}" y="{base - 160 * share + 4:.0f}" text-anchor="end">{amount}</text>'
        for share, amount in amounts.items()
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Cost in USD by day of {month}">'
        f"{lines}{bars}{labels}</svg>"
    )


def _rounded_up(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def _training(execution: ExecutionRecord, cents: Decimal) -> str:
    ended = execution.state.value.lower() + (f": {execution.reason}" if execution.reason else "")
    version = (execution.model_package_arn or "").rpartition("/")[2]
    cost = f"{cents}" + (" + unknown" if execution.unknown else "")
    return (
        f"<tr><td class=k>{execution.admitted_at:%Y-%m-%d %H:%M}<td class=k>{escape(execution.data_set)}"
        f"<td class=k>{escape(execution.algorithm)}<td>{escape(ended)}<td class=n>{execution.seconds / 60:.1f}"
        f"<td class=n>{cost}<td>{escape(version)}"
    )


def _sum(executions: Iterable[ExecutionRecord]) -> Decimal:
    return sum((execution.cost_usd for execution in executions), Decimal(0))
