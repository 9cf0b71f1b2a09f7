"""Metering: reports hourly to AWS Marketplace what tenants that bought through it have used.

A unit is one cent of the cost of a licence's tenants. Each record is stored before it is sent, so that a run that
was interrupted sends the same record again, which the Marketplace counts once; fractions of a cent are reported
with the cent that they complete. The units of a refused record are reported by a later one; those of a record that
may have arrived are never reported twice. Metering starts with a tenant's licence: earlier costs are not reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from trainyard.application.ports import Tenants
from trainyard.domain.executions import month_begins, month_of
from trainyard.persistence.book import Book
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.store import Item

CENT = Decimal("0.01")

TAKEN_FOR = timedelta(hours=20)
"""An hour's record is resent for this long; the Marketplace accepts it for 24 hours (API reference,
BatchMeterUsage)."""


class Answer(StrEnum):
    """The Marketplace's answer to a record (API reference, UsageRecordResult)."""

    SUCCESS = "Success"
    NOT_SUBSCRIBED = "CustomerNotSubscribed"
    DUPLICATE = "DuplicateRecord"
    """Another quantity was reported for this hour before; this one is ignored."""
    REFUSED = "Refused"
    """The record is invalid: licence, customer, dimension or time."""
    UNPROCESSED = "Unprocessed"
    """Must be sent again unchanged."""


@dataclass(frozen=True, slots=True)
class MeterRecord:
    account_id: str
    """The buyer's AWS account."""
    license_arn: str
    hour: datetime
    units: int


class Marketplace(Protocol):
    def send(self, records: Sequence[MeterRecord]) -> dict[str, Answer]:
        """Send records, one per licence; return licence → answer. A refused record does not affect the others."""
        ...


@dataclass(slots=True, kw_only=True)
class Metered:
    sent: list[MeterRecord] = field(default_factory=list)
    undelivered: dict[str, str] = field(default_factory=dict)
    """Licence → why its record was not accepted; its units are reported again by the next run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metering:
    book: Book
    tenants: Tenants
    marketplace: Marketplace

    def run(self, now: datetime) -> Metered:
        """Report what was booked since the last run. Idempotent by hour and licence."""
        done = Metered()
        records: dict[str, MeterRecord] = {}
        unsure: dict[str, bool] = {}
        for (account_id, license_arn), booked in self._booked(now).items():
            note = self._owed(license_arn, booked, now)
            if "pending" in note:
                unsure[license_arn] = bool(note.get("unsure", False))
                self._note(license_arn, {**note, "unsure": True})  # until it is answered
                units, hour = int(note["pending"]), unstamp(note["hour"])
                records[license_arn] = MeterRecord(account_id, license_arn, hour, units)
        for license_arn, answer in (self.marketplace.send(list(records.values())) if records else {}).items():
            if answer is Answer.SUCCESS:
                done.sent.append(records[license_arn])
            else:
                done.undelivered[license_arn] = answer.value
            if answer is Answer.UNPROCESSED:
                self._answered(license_arn, unsure[license_arn])
            else:
                # A record that may have arrived earlier, and is refused now, is not reported twice.
                refused_late = answer is Answer.REFUSED and unsure[license_arn]
                self._settle(license_arn, reported=answer is Answer.SUCCESS or refused_late)
        return done

    def _booked(self, now: datetime) -> dict[tuple[str, str], dict[str, int]]:
        """Return buyer and licence → month and tenant → whole cents booked, of this month and the last: its last
        runs end in this one, and records are corrected.
        """
        usd: dict[tuple[str, str], dict[str, Decimal]] = {}
        last = month_of(month_begins(month_of(now)) - timedelta(days=1))
        licenses: dict[str, tuple[str, str] | None] = {}
        for month in (last, month_of(now)):
            for totals in self.book.totals(month):
                if totals.tenant_id not in licenses:
                    licenses[totals.tenant_id] = self._licence_of(totals.tenant_id)
                licence = licenses[totals.tenant_id]
                if licence is not None:
                    name = f"{month} {totals.tenant_id}"
                    of_licence = usd.setdefault(licence, {})
                    of_licence[name] = of_licence.get(name, Decimal(0)) + totals.whole_usd
        return {
            licence: {name: int(amount // CENT) for name, amount in amounts.items()}
            for licence, amounts in usd.items()
        }

    def _licence_of(self, tenant_id: str) -> tuple[str, str] | None:
        tenant = self.tenants.get(tenant_id)
        if tenant is None or tenant.buyer_account is None or tenant.license_arn is None:
            return None
        return tenant.buyer_account, tenant.license_arn

    def _owed(self, license_arn: str, booked: Mapping[str, int], now: datetime) -> Item:
        """Return the stored state of a licence; its "pending" is what must be reported."""
        note = self.book.noted(_name(license_arn)) or {"reported": {}}
        if "pending" in note:
            if now - unstamp(note["hour"]) <= TAKEN_FOR:
                return note
            # Too late to be accepted. If it may have arrived, reporting it twice would be worse than not at all.
            note = self._settle(license_arn, reported=bool(note.get("unsure", False)))
        reported = {name: int(units) for name, units in note["reported"].items() if name in booked}
        reported |= {name: self._before(name, license_arn) for name in booked if name not in reported}
        units = sum(max(count - reported[name], 0) for name, count in booked.items())
        hour = stamp(now.replace(minute=0, second=0, microsecond=0))
        if units == 0 or note.get("hour") == hour:
            return note  # nothing, or this hour has its record already
        then = {name: max(count, reported[name]) for name, count in booked.items()}
        note = {"reported": reported, "then": then, "pending": units, "hour": hour}
        self._note(license_arn, note)
        return note

    def _before(self, name: str, license_arn: str) -> int:
        """Return what a tenant had booked in a month before it had the licence."""
        month, tenant_id = name.split(" ")
        since = self.book.noted(licence_note(tenant_id)) or {}
        return int(since["booked"].get(month, 0)) if since.get("license") == license_arn else 0

    def _settle(self, license_arn: str, *, reported: bool) -> Item:
        """Store that a record was accepted, or that it was refused and its units must still be reported."""
        note = self.book.noted(_name(license_arn)) or {"reported": {}}
        if "pending" in note:
            note = {
                "reported": note["then"] if reported else note["reported"],
                "hour": note["hour"],
            }
            self._note(license_arn, note)
        return note

    def _answered(self, license_arn: str, unsure: bool) -> None:
        """Store that a record was not accepted this time; an earlier attempt may still have arrived."""
        note = self.book.noted(_name(license_arn))
        if note is not None and "pending" in note:
            self._note(license_arn, {**note, "unsure": unsure})

    def _note(self, license_arn: str, values: Item) -> None:
        self.book.note(_name(license_arn), values)


def licence_given(book: Book, tenant_id: str, license_arn: str, now: datetime) -> None:
    """Store what a tenant had booked before it got a licence, since that is not reported. Idempotent."""
    note = book.noted(licence_note(tenant_id))
    if note is not None and note["license"] == license_arn:
        return
    last = month_of(month_begins(month_of(now)) - timedelta(days=1))
    booked = {
        month: sum((totals.whole_usd for totals in book.totals(month, tenant_id)), Decimal(0))
        for month in (last, month_of(now))
    }
    cents = {month: int(usd // CENT) for month, usd in booked.items()}
    book.note(licence_note(tenant_id), {"license": license_arn, "booked": cents})


def licence_note(tenant_id: str) -> str:
    return f"licence#{tenant_id}"


def _name(license_arn: str) -> str:
    return f"meter#{license_arn}"
