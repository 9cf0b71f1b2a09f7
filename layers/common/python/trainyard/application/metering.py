"""Metering: what tenants that bought through AWS Marketplace have used, told to it hour by hour.

A unit is a cent of what the runs of a licence's tenants cost. What is told is written down first, so that a run
that was cut off sends the same record again, which the Marketplace takes once; fractions of a cent are told with
the cent they complete. What a refused record held is told by a later one. Metering begins with the first run that
sees a licence: what was booked before is not told.
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
from trainyard.domain.executions import month_begins, month_of

CENT = Decimal("0.01")

TAKEN_FOR = timedelta(hours=20)
"""An hour's record is sent again for so long; the Marketplace takes it for 24 hours (API reference,
BatchMeterUsage)."""


class Answer(StrEnum):
    """What the Marketplace says of a record (API reference, UsageRecordResult)."""

    SUCCESS = "Success"
    NOT_SUBSCRIBED = "CustomerNotSubscribed"
    DUPLICATE = "DuplicateRecord"
    """Another quantity was told of the hour before: not honoured."""
    REFUSED = "Refused"
    """The record is invalid: licence, customer, dimension or time."""
    UNPROCESSED = "Unprocessed"
    """To be sent again as it is."""


@dataclass(frozen=True, slots=True)
class MeterRecord:
    account_id: str
    """The buyer's AWS account."""
    license_arn: str
    hour: datetime
    units: int


class Marketplace(Protocol):
    def send(self, records: Sequence[MeterRecord]) -> dict[str, Answer]:
        """Send records, one per licence; return licence → what was answered. One refused holds up no other."""
        ...


@dataclass(slots=True, kw_only=True)
class Metered:
    sent: list[MeterRecord] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """Licence → why its record was not taken; it is told of again in the next run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metering:
    book: Book
    tenants: Tenants
    marketplace: Marketplace

    def run(self, now: datetime) -> Metered:
        """Tell what was booked since the last run. Idempotent by hour and licence."""
        done = Metered()
        records: dict[str, MeterRecord] = {}
        for (account_id, license_arn), booked in self._booked(now).items():
            record = self._owed(account_id, license_arn, booked, now)
            if record is not None:
                records[license_arn] = record
        for license_arn, answer in (self.marketplace.send(list(records.values())) if records else {}).items():
            if answer is Answer.SUCCESS:
                done.sent.append(records[license_arn])
            else:
                done.left[license_arn] = answer.value
            if answer is not Answer.UNPROCESSED:
                self._settle(license_arn, told=answer is Answer.SUCCESS)
        return done

    def _booked(self, now: datetime) -> dict[tuple[str, str], dict[str, int]]:
        """Return buyer and licence → month → whole cents booked, of this month and the last: its last runs end in
        this one, and records are put right.
        """
        usd: dict[tuple[str, str], dict[str, Decimal]] = {}
        last = month_of(month_begins(month_of(now)) - timedelta(days=1))
        known: dict[str, tuple[str, str] | None] = {}
        for month in (last, month_of(now)):
            for totals in self.book.totals(month):
                if totals.tenant_id not in known:
                    known[totals.tenant_id] = self._licence_of(totals.tenant_id)
                licence = known[totals.tenant_id]
                if licence is not None:
                    of_licence = usd.setdefault(licence, {})
                    of_licence[month] = of_licence.get(month, Decimal(0)) + totals.usd
        return {
            licence: {month: int(amount // CENT) for month, amount in of_month.items()}
            for licence, of_month in usd.items()
        }

    def _licence_of(self, tenant_id: str) -> tuple[str, str] | None:
        tenant = self.tenants.get(tenant_id)
        if tenant is None or tenant.buyer_account is None or tenant.license_arn is None:
            return None
        return tenant.buyer_account, tenant.license_arn

    def _owed(
        self, account_id: str, license_arn: str, booked: Mapping[str, int], now: datetime
    ) -> MeterRecord | None:
        """Return what is to be told of a licence, as it was written down; None when that is nothing."""
        noted = self.book.noted(f"meter#{license_arn}")
        if noted is None:
            self.book.note(f"meter#{license_arn}", {"told": dict(booked)})
            return None
        told = {month: int(units) for month, units in noted["told"].items()}
        hour = now.replace(minute=0, second=0, microsecond=0)
        if "pending" in noted and now - unstamp(noted["hour"]) > TAKEN_FOR:
            # Whether it arrived will not be known any more; told twice would be worse than not at all.
            self._settle(license_arn, told=True)
            noted = {"told": noted["then"], "hour": noted["hour"]}
            told = {month: int(units) for month, units in noted["told"].items()}
        if "pending" not in noted:
            units = sum(max(count - told.get(month, 0), 0) for month, count in booked.items())
            if units == 0 or noted.get("hour") == stamp(hour):
                return None  # nothing, or this hour has its record already
            then = {month: max(count, told.get(month, 0)) for month, count in booked.items()}
            noted = {"told": told, "then": then, "pending": units, "hour": stamp(hour)}
            self.book.note(f"meter#{license_arn}", noted)
        return MeterRecord(account_id, license_arn, unstamp(noted["hour"]), int(noted["pending"]))

    def _settle(self, license_arn: str, *, told: bool) -> None:
        """Note that a record was taken; or that it was refused, and what it held is still to be told."""
        noted = self.book.noted(f"meter#{license_arn}")
        if noted is not None and "pending" in noted:
            kept = noted["then"] if told else noted["told"]
            self.book.note(f"meter#{license_arn}", {"told": kept, "hour": noted["hour"]})
