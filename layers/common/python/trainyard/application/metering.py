"""Metering: what tenants that bought through AWS Marketplace have used, told to it hour by hour.

A unit is a cent of what their runs cost. What is told is written down first, so that a run that was cut off sends
the same record again, which the Marketplace takes once; fractions of a cent are told with the cent they complete.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from trainyard.application.book import Book
from trainyard.application.ports import Tenants
from trainyard.application.records import stamp, unstamp
from trainyard.domain.executions import month_of

CENT = Decimal("0.01")

LAST_MONTH_UNTIL = timedelta(hours=5)
"""Into a month the last one is told of; an hour later the Marketplace takes it no more (BatchMeterUsage)."""


class Answer(StrEnum):
    """What the Marketplace says of a record (API reference, UsageRecordResult)."""

    SUCCESS = "Success"
    NOT_SUBSCRIBED = "CustomerNotSubscribed"
    DUPLICATE = "DuplicateRecord"
    UNPROCESSED = "Unprocessed"
    """To be sent again."""


@dataclass(frozen=True, slots=True)
class MeterRecord:
    tenant_id: str
    account_id: str
    """The buyer's AWS account."""
    license_arn: str
    hour: datetime
    units: int


class Marketplace(Protocol):
    def send(self, records: Sequence[MeterRecord]) -> dict[str, Answer]:
        """Send records; return tenant → what was answered."""
        ...


@dataclass(slots=True, kw_only=True)
class Metered:
    sent: list[MeterRecord] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """Tenant → why its record was not taken; it is sent again in the next run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metering:
    book: Book
    tenants: Tenants
    marketplace: Marketplace

    def run(self, now: datetime) -> Metered:
        """Tell what was booked since the last run. Idempotent by hour and customer."""
        done = Metered()
        records: dict[str, MeterRecord] = {}
        for tenant_id, units in self._booked(now).items():
            tenant = self.tenants.get(tenant_id)
            if tenant is None or tenant.buyer_account is None or tenant.license_arn is None:
                continue
            record = self._owed(tenant_id, units, tenant.buyer_account, tenant.license_arn, now)
            if record is not None:
                records[tenant_id] = record
        for tenant_id, answer in (self.marketplace.send(list(records.values())) if records else {}).items():
            if answer in (Answer.SUCCESS, Answer.DUPLICATE):
                self._sent(tenant_id)
                done.sent.append(records[tenant_id])
            else:
                done.left[tenant_id] = answer.value
        return done

    def _booked(self, now: datetime) -> dict[str, dict[str, int]]:
        """Return tenant → month → whole cents booked, of this month and, early in it, of the last."""
        months = sorted({month_of(now), month_of(now - LAST_MONTH_UNTIL)})
        usd: dict[str, dict[str, Decimal]] = {}
        for month in months:
            for totals in self.book.totals(month):
                of_tenant = usd.setdefault(totals.tenant_id, {})
                of_tenant[month] = of_tenant.get(month, Decimal(0)) + totals.usd
        return {
            tenant_id: {month: int(amount // CENT) for month, amount in of_month.items()}
            for tenant_id, of_month in usd.items()
        }

    def _owed(
        self, tenant_id: str, booked: Mapping[str, int], account_id: str, license_arn: str, now: datetime
    ) -> MeterRecord | None:
        """Return what is to be told of a tenant, as it was written down; None when that is nothing."""
        noted = self.book.noted(f"meter#{tenant_id}") or {"told": {}}
        told = {month: int(units) for month, units in noted["told"].items()}
        if "pending" not in noted:
            units = sum(max(count - told.get(month, 0), 0) for month, count in booked.items())
            hour = now.replace(minute=0, second=0, microsecond=0)
            if units == 0 or noted.get("hour") == stamp(hour):
                return None  # nothing, or this hour has its record already
            kept = {month: max(count, told.get(month, 0)) for month, count in booked.items()}
            noted = {"told": told, "then": kept, "pending": units, "hour": stamp(hour)}
            self.book.note(f"meter#{tenant_id}", noted)
        return MeterRecord(tenant_id, account_id, license_arn, unstamp(noted["hour"]), int(noted["pending"]))

    def _sent(self, tenant_id: str) -> None:
        noted = self.book.noted(f"meter#{tenant_id}")
        if noted is not None and "pending" in noted:
            self.book.note(f"meter#{tenant_id}", {"told": noted["then"], "hour": noted["hour"]})
