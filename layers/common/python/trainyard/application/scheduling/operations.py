"""Operations: changes of queues by operators and by tenant changes, and the correction of wrong counts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from trainyard.domain.executions import month_of
from trainyard.domain.queues import in_month, rebuilt
from trainyard.domain.requests import Request, State
from trainyard.domain.resources import ResourceProfile, is_past
from trainyard.persistence.ledger import correct_usage, give_pools_back, something_waits, units_held
from trainyard.persistence.requests import request_key
from trainyard.persistence.store import Absent, Is, Update, Write
from trainyard.persistence.tables import Tables
from trainyard.persistence.tenant_queues import forget_queue, queue_in, queue_key, refile
from trainyard.persistence.transactions import UnitOfWork

RECOUNTS_TRIED = 5
"""Attempts of a recount: it is valid only if no slot was taken or released meanwhile."""

QUEUES_CORRECTED_MAX = 5
"""Queues that one recount corrects; the next one goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Transactions outside the life of a request."""

    tables: Tables

    def set_tenant_paused(self, tier: str, tenant_id: str, paused: bool, now: datetime) -> None:
        """Pause or resume one tenant; what a pass decided before is void. Idempotent."""

        def script(unit: UnitOfWork) -> None:
            (item,) = unit.read(queue_key(tier, tenant_id))
            queue = queue_in(item, tier, tenant_id)
            if queue.paused != paused:
                unit.write(*refile(queue, replace(queue, paused=paused), now), something_waits())

        self.tables.transactions.run(script, now)

    def forget_queue(self, tier: str, tenant_id: str) -> bool:
        """Remove a tenant's queue from a tier; False while anything waits or runs there. Idempotent."""
        queue = self.tables.queues.get(tier, tenant_id)
        if queue.at_rest and queue.revision:
            self.tables.store.transact([forget_queue(queue)])
        return queue.at_rest

    def carry_over(self, tier: str, to_tier: str, tenant_id: str, now: datetime) -> bool:
        """Remove a tenant's queue from a tier; its spending counts in another tier from now on.

        False while anything waits or runs there. Idempotent.
        """

        def script(unit: UnitOfWork) -> bool:
            read, to_read = unit.read(queue_key(tier, tenant_id), queue_key(to_tier, tenant_id))
            old, new = queue_in(read, tier, tenant_id), queue_in(to_read, to_tier, tenant_id)
            if not old.at_rest:
                return False
            if old.revision:
                after = in_month(new, old.month)
                if old.month == after.month:
                    spent, warned = after.spent_usd + old.spent_usd, max(after.warned, old.warned)
                    after = replace(after, spent_usd=spent, warned=warned)
                unit.write(forget_queue(old), *refile(new, after, now))
            return True

        return self.tables.transactions.run(script, now)

    def carry_month(self, tier: str, tenant_id: str, now: datetime) -> None:
        """Let what a tenant has spent this month by the book count in a queue that is new. Idempotent."""

        def script(unit: UnitOfWork) -> None:
            (item,) = unit.read(queue_key(tier, tenant_id))
            queue = queue_in(item, tier, tenant_id)
            month = max(self.tables.ledger.read().month, month_of(now))
            totals = self.tables.book.totals(month, tenant_id)
            spent = sum((total.charged_usd for total in totals), Decimal(0))
            if spent and not queue.revision:
                unit.write(*refile(queue, replace(in_month(queue, month), spent_usd=spent), now))

        self.tables.transactions.run(script, now)

    def note_selected(self, request: Request, selected: str, now: datetime) -> bool:
        """Note which instances SageMaker has selected for a running request, and give the others back; False when
        the attempt is over, or that is known. Raises Conflict while another transaction is in progress.
        """
        if request.selected is not None or selected not in ResourceProfile.parse(request.profile).training:
            return False
        note = Update(
            request_key(request.request_id),
            set={"selected": selected},
            when=(Is("state", State.RUNNING.value), Is("attempt", request.attempt), Absent("selected")),
        )
        return self.tables.transactions.write_unless_past(note, give_pools_back(request, selected, now))

    def recount(self, now: datetime) -> dict[str, int]:
        """Correct the ledger by the requests that hold a slot; return resource → by how much it was wrong.

        The queues that hold slots, and each of their holders, are read consistently; if the ledger has not changed
        meanwhile, there was no admission and no end in between, and the count is exact. If it keeps changing,
        nothing is corrected: the next run tries again."""
        tables = self.tables
        for _ in range(RECOUNTS_TRIED):
            before = tables.ledger.read()
            holding = tables.queues.holding(before.tiers)
            requests = tables.requests_holding(request_id for queue in holding for request_id in queue.holders)
            after = tables.ledger.read()
            if before.usage_version == after.usage_version:
                break
        else:
            return {}
        counted = units_held(requests)
        # What is counted for a change of the limits that has come, the next commit forgets.
        come = max(now, after.epoch or now)
        wrong = {r: n for r, n in _difference(counted, after.usage).items() if not is_past(r, come)}
        holders = {request.request_id for request in requests}
        stale = [queue for queue in holding if not holders.issuperset(queue.holders)]
        if not wrong and not stale:
            return {}
        writes: list[Write] = [correct_usage({name: counted.get(name, 0) for name in wrong}, after)]
        for queue in tables.queues.get_all((q.tier, q.tenant_id) for q in stale[:QUEUES_CORRECTED_MAX]):
            of_queue = [r for r in requests if (r.tier, r.tenant_id) == (queue.tier, queue.tenant_id)]
            writes += refile(queue, rebuilt(queue, of_queue), now)
        tables.store.transact(writes)
        return wrong


def _difference(counted: Mapping[str, int], noted: Mapping[str, int]) -> dict[str, int]:
    """Return resource → by how much more of it is noted than was counted."""
    names = sorted({*counted, *noted})
    differences = {name: noted.get(name, 0) - counted.get(name, 0) for name in names}
    return {name: difference for name, difference in differences.items() if difference}
