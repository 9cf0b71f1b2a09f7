"""Outbox: work that transactions left to be done after them, done at least once even if a function is interrupted.

Budget thresholds, unusual hours and endangered deadlines are published on the bus. An execution whose jobs were
not all known when it ended is read again, and its record is corrected. What predictions cost is charged to
budgets.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from trainyard.application.billing.charges import charge
from trainyard.application.ports import Announcements, ExecutionReport, ExecutionReports
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.budgets import level
from trainyard.domain.errors import Conflict
from trainyard.domain.executions import ExecutionRecord, corrected
from trainyard.domain.prices import Prices
from trainyard.persistence.book import Book
from trainyard.persistence.items import unstamp
from trainyard.persistence.outbox import OUTBOX_MAX, OutboxEntry
from trainyard.persistence.policies import Policies

A_RUN = {"spending": 300, "version": 200}
"""Beginning of an entry → how many of these one run processes, so that it ends in time.

Of spendings, there are every hour a quarter as many as data sets that were called; of versions, up to three for
each that is deployed.
"""

GIVEN_UP = timedelta(days=3)
"""After this time SageMaker will not report more about a job: the record keeps its flags."""


@dataclass(slots=True, kw_only=True)
class Relayed:
    """What one run has done."""

    published: list[OutboxEntry] = field(default_factory=list)
    corrected: list[ExecutionRecord] = field(default_factory=list)
    given_up: list[ExecutionRecord] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Outbox entry that is still open → error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRelay:
    policies: Policies
    scheduler: Scheduler
    book: Book
    reports: ExecutionReports
    announcements: Announcements
    prices: Prices

    def relay(self, now: datetime) -> Relayed:
        """Process the outbox. Safe at any time, also concurrently."""
        relayed = Relayed()
        processed: Counter[str] = Counter()
        for entry in self.book.outbox_entries():
            kind = entry.what.partition(" ")[0]
            processed[kind] += 1
            if processed[kind] > A_RUN.get(kind, OUTBOX_MAX):
                continue  # the next run processes them
            try:
                self._relay(entry, now, relayed)
            except Exception as error:  # one failing entry must not affect the others
                relayed.failed[entry.name] = f"{type(error).__name__}: {error}"
        try:
            self._watch_tiers(relayed)
        except Exception as error:  # published by the next run
            relayed.failed["budgets of tiers"] = f"{type(error).__name__}: {error}"
        return relayed

    def _watch_tiers(self, relayed: Relayed) -> None:
        """Publish the thresholds that tiers have reached; those of tenants are found when their runs end."""
        policy = self.policies.current()
        if all(tier.budget is None for tier in policy.tiers):
            return
        ledger = self.scheduler.tables.ledger.read()
        for tier in policy.tiers:
            spent = ledger.spent_in.get(f"{ledger.month} {tier.name}", Decimal(0))
            reached = level(spent, tier.budget, policy.thresholds)
            name = f"published#{tier.name}"
            note = self.book.noted(name) or {}
            published = int(note["percent"]) if note.get("month") == ledger.month else 0
            if tier.budget is None or reached <= published:
                continue
            values = {
                "tier": tier.name,
                "month": ledger.month,
                "percent": reached,
                "spent_usd": spent,
                "budget_usd": tier.budget.limit_usd,
            }
            self.announcements.tell("budget", values)
            self.book.note(name, {"month": ledger.month, "percent": reached})
            relayed.published.append(OutboxEntry(name=name, what="budget", values=values))

    def _relay(self, entry: OutboxEntry, now: datetime, relayed: Relayed) -> None:
        if entry.what == "settle":
            self._read_again(entry, now, relayed)
            return
        if entry.what == "spending":
            with suppress(Conflict):  # another run was faster, or a queue has changed: the next run sees
                charge(self.scheduler, entry, self.policies.current(), now)
            return
        self.announcements.tell(entry.what, entry.values)
        self.book.done(entry)
        relayed.published.append(entry)

    def _read_again(self, entry: OutboxEntry, now: datetime, relayed: Relayed) -> None:
        """Correct the record of an execution, once SageMaker reports more about it."""
        attempt = int(entry.values["attempt"])
        executions = self.book.executions(entry.values["request_id"])
        before = next((execution for execution in executions if execution.attempt == attempt), None)
        if before is None:
            self.book.done(entry)  # forgotten with its tenant
            return
        late = now - unstamp(entry.values["since"]) > GIVEN_UP
        try:
            report = self.reports.read(before.execution_arn)
        except Exception:
            if not late:
                raise
            report = ExecutionReport()  # it is no longer known at all
        after = corrected(before, report.steps, self.prices, now)
        if late and not after.is_final:
            after = replace(after, is_final=True)  # with its flags, and its cost unknown
            relayed.given_up.append(after)
        if after.is_final:
            with suppress(Conflict):  # another run was faster, or an end came between: the next run sees
                self.scheduler.completer.correct(before, after, self.policies.current(), now)
                relayed.corrected.append(after)
