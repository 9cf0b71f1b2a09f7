"""Usage: what was booked on a day, as rows of the FinOps Open Cost and Usage Specification (FOCUS 1.0).

A row is what one job used, or what predictions for one data set used of a shared endpoint in an hour; what nobody
used of that hour is a row without a tenant. The columns that begin with "x_" are ours, as the specification has
it. An exported row never changes, so that each job is in exactly one file, however often a day is exported.
"""

import csv
import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Protocol

from trainyard.domain.errors import Refused
from trainyard.domain.executions import ExecutionRecord, StepRecord, month_begins, next_month
from trainyard.domain.inference import EndpointHour, EndpointUse, begins
from trainyard.domain.prices import rounded
from trainyard.persistence.book import Book
from trainyard.persistence.inference import InferenceBook

COLUMNS = (
    "BillingAccountId",
    "BillingCurrency",
    "BillingPeriodStart",
    "BillingPeriodEnd",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "BilledCost",
    "EffectiveCost",
    "ListCost",
    "ContractedCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ConsumedQuantity",
    "ConsumedUnit",
    "InvoiceIssuerName",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_Tier",
    "x_DataSet",
    "x_Algorithm",
    "x_RequestId",
    "x_Attempt",
    "x_Step",
    "x_State",
    "x_CostUnknown",
    "x_PriceVersion",
    "x_RecordedAt",
)

MEMORY_MAX = 32 * 1024 * 1024
"""Memory for a day's rows; more are buffered on disk."""

AFTER_MIDNIGHT = timedelta(minutes=30)
"""Longer than an index may lag, or clocks may differ."""

DAYS_AT_ONCE = 31
"""Most days that one run catches up."""


class UsageFiles(Protocol):
    """The billing bucket."""

    def put(self, day: str, rows: IO[bytes]) -> str:
        """Write a day's rows, whatever was there before; return where."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    book: Book
    inference: InferenceBook
    files: UsageFiles
    account_id: str
    region: str
    stage: str
    retention: timedelta
    """How long the record keeps an execution."""

    def export_until(self, now: datetime) -> list[str]:
        """Export all past days that were not exported yet (at first only the last one); return their locations.

        Idempotent: a day's file is written again as it was. A day is over a while after midnight, when indexes
        show all of it.
        """
        note = self.book.noted("export")
        day = date.fromisoformat(note["until"]) + timedelta(days=1) if note else _yesterday(now)
        written: list[str] = []
        while day <= _yesterday(now) and len(written) < DAYS_AT_ONCE:
            written.append(self.export(day.isoformat()))
            self.book.note("export", {"until": day.isoformat()})
            day += timedelta(days=1)
        return written

    def export(self, day: str) -> str:
        """Write the rows of a day; return where. Idempotent."""
        with SpooledTemporaryFile(max_size=MEMORY_MAX) as file:
            # One that is corrected while the day is read belongs to the day of its correction.
            booked = (e for e in self.book.executions_of_day(day) if e.recorded_at.strftime("%Y-%m-%d") == day)
            write_rows(file, chain(self.rows(booked), self.inference_rows(day)))
            file.seek(0)
            return self.files.put(day, file)

    def export_again(self, day: date, now: datetime) -> str:
        """Write a past day's file again; return where.

        Raises Refused for a day whose records may have been removed already: its file would lose them.
        """
        if now.date() - day >= self.retention:
            raise Refused(
                f"records are kept for {self.retention.days} days, so those of {day} may be gone: "
                "its file is left as it is"
            )
        return self.export(day.isoformat())

    def rows(self, executions: Iterable[ExecutionRecord]) -> Iterator[dict[str, Any]]:
        """Yield a row for each job of the executions that are settled."""
        for execution in executions:
            if execution.is_final:
                for record in execution.steps:
                    if record.step.job is not None or record.cost_usd is None:
                        yield self._row(execution, record)

    def inference_rows(self, day: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of the booked hours of a day: each use, and what was idle."""
        for hour in self.inference.hours(day):
            if hour.usd is None:
                yield self._hour_row(hour, None, None)
                continue
            for use in self.inference.uses(hour.endpoint, hour.hour):
                yield self._hour_row(hour, use, use.usd)
            yield self._hour_row(hour, None, hour.idle_usd)

    def _hour_row(self, hour: EndpointHour, use: EndpointUse | None, usd: Decimal | None) -> dict[str, Any]:
        # long: a line for each column
        month, begin = hour.hour[:7], begins(hour.hour)
        cost = "" if usd is None else str(usd)
        what = f"{use.calls} calls for {use.data_set}" if use else "idle" if usd is not None else "unknown price"
        return dict.fromkeys(COLUMNS, "") | {
            "BillingAccountId": self.account_id,
            "BillingCurrency": "USD",
            "BillingPeriodStart": _time(month_begins(month)),
            "BillingPeriodEnd": _time(month_begins(next_month(month))),
            "ChargePeriodStart": _time(begin),
            "ChargePeriodEnd": _time(begin + timedelta(hours=1)),
            "ChargeCategory": "Usage",
            "ChargeDescription": f"{hour.endpoint}: {what}",
            "ChargeFrequency": "Usage-Based",
            "BilledCost": cost,
            "EffectiveCost": cost,
            "ListCost": cost,
            "ContractedCost": cost,
            "PricingCategory": "Standard",
            "ConsumedQuantity": str(use.calls) if use else "",
            "ConsumedUnit": "Calls" if use else "",
            "InvoiceIssuerName": "AWS",
            "ProviderName": "AWS",
            "PublisherName": "AWS",
            "RegionId": self.region,
            "ResourceId": hour.arn,
            "ResourceName": hour.endpoint,
            "ResourceType": "Endpoint",
            "ServiceCategory": "AI and Machine Learning",
            "ServiceName": "Amazon SageMaker AI",
            "SkuId": f"hosting/{hour.instance_type}",
            "SubAccountId": use.tenant_id if use else "",
            "SubAccountName": use.tenant_id if use else "",
            "Tags": json.dumps({"trainyard:stage": self.stage}, separators=(",", ":")),
            "x_Tier": use.tier if use else "",
            "x_DataSet": use.data_set if use else "",
            "x_Algorithm": use.algorithm if use else "",
            "x_CostUnknown": str(usd is None).lower(),
        }

    def _row(self, execution: ExecutionRecord, record: StepRecord) -> dict[str, Any]:
        # long: a line for each column
        job = record.step.job
        begin = job.started_at if job and job.started_at else execution.admitted_at
        end = job.ended_at if job and job.ended_at else execution.ended_at
        hours = _hours(record)
        cost = "" if record.cost_usd is None else str(record.cost_usd)
        kind = job.kind.value if job else record.step.kind
        return {
            "BillingAccountId": self.account_id,
            "BillingCurrency": "USD",
            "BillingPeriodStart": _time(month_begins(execution.month)),
            "BillingPeriodEnd": _time(month_begins(next_month(execution.month))),
            "ChargePeriodStart": _time(begin),
            "ChargePeriodEnd": _time(max(begin, end)),
            "ChargeCategory": "Usage",
            "ChargeClass": "",
            "ChargeDescription": f"{record.step.name} of {execution.data_set}: {kind} job",
            "ChargeFrequency": "Usage-Based",
            "BilledCost": cost,
            "EffectiveCost": cost,
            "ListCost": cost,
            "ContractedCost": cost,
            "ListUnitPrice": str(rounded(record.cost_usd / hours)) if record.cost_usd and hours else "",
            "PricingCategory": "Dynamic" if job and job.spot else "Standard",
            "PricingQuantity": "" if hours is None else f"{hours:.6f}",
            "PricingUnit": "Hours",
            "ConsumedQuantity": "" if hours is None else f"{hours:.6f}",
            "ConsumedUnit": "Hours",
            "InvoiceIssuerName": "AWS",
            "ProviderName": "AWS",
            "PublisherName": "AWS",
            "RegionId": self.region,
            "ResourceId": job.arn if job else "",
            "ResourceName": job.arn.rpartition("/")[2] if job else "",
            "ResourceType": f"{kind.capitalize()} job",
            "ServiceCategory": "AI and Machine Learning",
            "ServiceName": "Amazon SageMaker AI",
            "SkuId": f"{kind}/{job.instance_type}" if job and job.instance_type else "",
            "SubAccountId": execution.tenant_id,
            "SubAccountName": execution.tenant_id,
            "Tags": json.dumps(execution.tags | {"trainyard:stage": self.stage}, separators=(",", ":")),
            "x_Tier": execution.tier,
            "x_DataSet": execution.data_set,
            "x_Algorithm": execution.algorithm,
            "x_RequestId": execution.request_id,
            "x_Attempt": execution.attempt,
            "x_Step": record.step.name,
            "x_State": execution.state.value,
            "x_CostUnknown": str(record.cost_usd is None).lower(),
            "x_PriceVersion": execution.price_version,
            "x_RecordedAt": _time(execution.recorded_at),
        }


def write_rows(file: IO[bytes], rows: Iterable[dict[str, Any]]) -> None:
    """Write gzipped CSV with a header; the same rows always give the same bytes."""
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        lines = _Lines(packed)
        writer = csv.DictWriter(lines, fieldnames=COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class _Lines:
    """Takes text, and writes it as UTF-8."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def _hours(record: StepRecord) -> Decimal | None:
    """Return the hours of instances that a step used; None while that is unknown."""
    job = record.step.job
    if job is None or record.seconds is None or job.instance_count is None:
        return None
    return Decimal(record.seconds * job.instance_count) / 3600


def _time(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _yesterday(now: datetime) -> date:
    """Return the last day that is over."""
    return (now - AFTER_MIDNIGHT).date() - timedelta(days=1)
