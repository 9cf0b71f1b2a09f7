"""Charges: what predictions cost is charged to the budgets of tenants and tiers, each entry of the outbox once."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from trainyard.application.scheduling.completion import with_warning
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.policy import Policy
from trainyard.domain.queues import in_month
from trainyard.persistence.items import queue_from
from trainyard.persistence.ledger import book_spending
from trainyard.persistence.outbox import OutboxEntry, done_once
from trainyard.persistence.tenant_queues import queue_key, refile
from trainyard.persistence.transactions import UnitOfWork


def charge(scheduler: Scheduler, entry: OutboxEntry, policy: Policy, now: datetime) -> None:
    """Charge an entry's amounts, and remove it. Raises Conflict when another run was faster."""
    month = str(entry.values["month"])
    amounts = {
        (account.partition("#")[0], account.partition("#")[2]): Decimal(usd)
        for account, usd in entry.values["charges"].items()
    }
    scheduler.tables.transactions.once(lambda unit: _charge(unit, month, amounts, entry), now, policy=policy)


def _charge(unit: UnitOfWork, month: str, amounts: Mapping[tuple[str, str], Decimal], entry: OutboxEntry) -> None:
    unit.write(done_once(entry))
    spent: dict[str, Decimal] = {}
    for (tier, _), usd in amounts.items():
        spent[tier] = spent.get(tier, Decimal(0)) + usd
    if any(spent.values()):
        unit.write(book_spending(month, spent, unit.policy))
    tiers = [tier.name for tier in unit.policy.tiers]
    for (tier, tenant_id), usd in amounts.items():
        # A tenant that has moved has a queue in each tier; the one of that month has its spending.
        keys = [queue_key(name, tenant_id) for name in dict.fromkeys((tier, *tiers))]
        queues = [queue_from(item) for item in unit.read(*keys) if item is not None]
        if not usd or not queues:  # nothing to charge, or its tenant was deleted
            continue
        before = next((queue for queue in queues if queue.month == month), queues[0])
        turned = in_month(before, month)
        if turned.month == month:
            after, warnings = with_warning(before, replace(turned, spent_usd=turned.spent_usd + usd), unit)
            unit.write(*refile(before, after, unit.now), *warnings)
