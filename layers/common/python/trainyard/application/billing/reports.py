"""Reports: months' totals by tenant, tier, data set, algorithm or month, in amounts that add up to the cent.

What trainings cost is counted. Three things beside it are attributed by rule, and stand apart:
    inference   a share of each hour of a shared endpoint, by the calls and the models in it (domain/inference.py)
    storage     each data set as large as when it was trained on last, for the whole month, at S3's list price
    scheduler   each execution alike, by the price table's figure for the scheduler's own calls
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from trainyard.domain.estimates import error, quantile
from trainyard.domain.executions import ExecutionRecord, apportioned
from trainyard.domain.prices import Prices, places_for, rounded
from trainyard.domain.requests import State
from trainyard.persistence.book import Totals

GB = 1024**3


class By(StrEnum):
    """What a report has a row for."""

    TENANT = "tenant"
    TIER = "tier"
    DATA_SET = "data-set"
    ALGORITHM = "algorithm"
    MONTH = "month"


_NAMES: dict[By, Callable[[Totals], str]] = {
    By.TENANT: lambda totals: totals.tenant_id,
    By.TIER: lambda totals: totals.tier,
    By.DATA_SET: lambda totals: f"{totals.tenant_id}/{totals.data_set}",
    By.ALGORITHM: lambda totals: totals.algorithm,
    By.MONTH: lambda totals: totals.month,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """The totals of one tenant, tier, data set, algorithm or month."""

    name: str
    executions: int = 0
    succeeded: int = 0
    failed: int = 0
    stopped: int = 0
    instance_hours: Decimal = Decimal(0)
    usd: Decimal = Decimal(0)
    """Exact, to a millionth."""
    shown_usd: Decimal = Decimal(0)
    """Rounded so that all rows add up to the total's: to the cent, or finer where all is below a dollar."""
    unknown: int = 0
    """Steps of which the cost is unknown, and not in the amounts."""
    saved_usd: Decimal = Decimal(0)
    calls: int = 0
    """Predictions asked for."""
    inference_usd: Decimal = Decimal(0)
    """What they cost; not in `usd`."""
    storage_usd: Decimal | None = None
    scheduler_usd: Decimal | None = None
    """None where the price table does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    by: By
    rows: tuple[CostRow, ...]
    """The dearest first; months in their order."""
    total: CostRow


def cost_report(all_totals: Iterable[Totals], by: By, prices: Prices) -> CostReport:
    """Return a report of months' totals."""
    totals = list(all_totals)
    groups: dict[str, list[Totals]] = {}
    for part in totals:
        groups.setdefault(_NAMES[by](part), []).append(part)
    stored = _stored_bytes(totals)
    rows = [_row(name, members, stored, prices) for name, members in groups.items()]
    rows.sort(key=lambda row: row.name if by is By.MONTH else (-row.usd, row.name))
    shown = apportioned([row.usd for row in rows], places_for(sum(row.usd for row in rows)))
    rows = [replace(row, shown_usd=amount) for row, amount in zip(rows, shown, strict=True)]
    total = replace(_row("total", totals, stored, prices), shown_usd=sum(shown, Decimal("0.00")))
    return CostReport(by=by, rows=tuple(rows), total=total)


def _row(name: str, members: Sequence[Totals], stored: Mapping[int, int], prices: Prices) -> CostRow:
    executions = sum(total.executions for total in members)
    size, per_gb, per_execution = (
        sum(stored.get(id(total), 0) for total in members),
        prices.storage_gb_month,
        prices.scheduler_per_execution,
    )
    return CostRow(
        name=name,
        executions=executions,
        succeeded=sum(total.succeeded for total in members),
        failed=sum(total.failed for total in members),
        stopped=sum(total.stopped for total in members),
        instance_hours=rounded(Decimal(sum(total.seconds for total in members)) / 3600),
        usd=sum((total.usd for total in members), Decimal(0)),
        unknown=sum(total.unknown for total in members),
        saved_usd=sum((total.saved_usd for total in members), Decimal(0)),
        calls=sum(total.calls for total in members),
        inference_usd=sum((total.inference_usd for total in members), Decimal(0)),
        storage_usd=None if per_gb is None else rounded(Decimal(size) / GB * per_gb),
        scheduler_usd=None if per_execution is None else executions * per_execution,
    )


def _stored_bytes(totals: Sequence[Totals]) -> dict[int, int]:
    """Return the identity of totals → the bytes counted for them: each data set once a month."""
    largest: dict[tuple[str, str, str], Totals] = {}
    for total in totals:
        key = (total.month, total.tenant_id, total.data_set)
        if key not in largest or total.data_bytes > largest[key].data_bytes:
            largest[key] = total
    return {id(total): total.data_bytes for total in largest.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateErrors:
    """The errors of estimates of successful runs, relative to the actual values."""

    runs: int
    seconds_median: float | None
    seconds_p90: float | None
    usd_median: float | None
    usd_p90: float | None


def estimate_errors(executions: Iterable[ExecutionRecord]) -> EstimateErrors:
    """Return the errors of estimates; None where there is nothing to compare."""
    estimated = [e for e in executions if e.state is State.SUCCEEDED and e.expected_seconds is not None]
    seconds = [error(e.expected_seconds or 0, e.seconds) for e in estimated if e.seconds]
    usd = [
        error(float(e.expected_usd), float(e.cost_usd))
        for e in estimated
        if e.expected_usd is not None and e.cost_usd and not e.unknown
    ]
    return EstimateErrors(
        runs=len(estimated),
        seconds_median=quantile(seconds, 0.5) if seconds else None,
        seconds_p90=quantile(seconds, 0.9) if seconds else None,
        usd_median=quantile(usd, 0.5) if usd else None,
        usd_p90=quantile(usd, 0.9) if usd else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What was booked for a tenant, compared with what was billed."""

    tenant_id: str
    booked_usd: Decimal
    billed_usd: Decimal

    @property
    def usd(self) -> Decimal:
        return self.billed_usd - self.booked_usd

    @property
    def share(self) -> Decimal | None:
        """Return the difference as a share of what was billed; None when nothing was."""
        return self.usd / self.billed_usd if self.billed_usd else None


UNTAGGED = "(without our tag)"


def differences(booked: Iterable[Totals], billed: Mapping[str, Decimal]) -> list[Difference]:
    """Return the difference of each tenant that was booked or billed, the greatest first."""
    ours: dict[str, Decimal] = {}
    for totals in booked:
        ours[totals.tenant_id] = ours.get(totals.tenant_id, Decimal(0)) + totals.usd
    theirs = {tenant_id or UNTAGGED: usd for tenant_id, usd in billed.items()}
    rows = [
        Difference(
            tenant_id=tenant_id,
            booked_usd=ours.get(tenant_id, Decimal(0)),
            billed_usd=theirs.get(tenant_id, Decimal(0)),
        )
        for tenant_id in {*ours, *theirs}
    ]
    return sorted(rows, key=lambda row: (-abs(row.usd), row.tenant_id))
