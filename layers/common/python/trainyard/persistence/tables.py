"""All tables over one store: the owners of the items, and reads that need several of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from trainyard.domain.requests import HOLDING, Request
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.scheduling import Holder
from trainyard.domain.tenants import Tenant
from trainyard.persistence.book import Book
from trainyard.persistence.items import request_from
from trainyard.persistence.ledger import LedgerTable
from trainyard.persistence.requests import Requests, request_key
from trainyard.persistence.store import Store
from trainyard.persistence.tenant_queues import TenantQueues
from trainyard.persistence.tenants import tenant_from, tenant_key
from trainyard.persistence.transactions import Transactions, read_items


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Who owns which items: LedgerTable the ledger, the bell and the unmanaged executions; TenantQueues the queues
    and their entries; Requests the requests; Book the record.
    """

    transactions: Transactions
    ledger: LedgerTable
    queues: TenantQueues
    requests: Requests
    book: Book

    @classmethod
    def over(cls, store: Store, *, retention: timedelta, backoff: Callable[[int], None]) -> "Tables":
        """Return the tables over a store; `backoff` waits before the given further try of a contended write."""
        transactions = Transactions(store=store, backoff=backoff)
        return cls(
            transactions=transactions,
            ledger=LedgerTable(transactions=transactions),
            queues=TenantQueues(store=store),
            requests=Requests(transactions=transactions, retention=retention),
            book=Book(store=store),
        )

    @property
    def store(self) -> Store:
        return self.transactions.store

    def held(self) -> list[Request]:
        """Return the requests that hold a slot, by tier and tenant; read consistently, so that none is missing.

        What ends or is admitted while they are read may be among them or not.
        """
        holding = self.queues.holding(self.ledger.read().tiers)
        return self.requests_holding(request_id for queue in holding for request_id in queue.holders)

    def held_by(self, tenant_id: str) -> list[Request]:
        """Return the requests of a tenant that hold a slot, in whatever tier; as `held` does."""
        queues = self.queues.get_all((tier, tenant_id) for tier in self.ledger.read().tiers)
        return self.requests_holding(request_id for queue in queues for request_id in queue.holders)

    def requests_holding(self, request_ids: Iterable[str]) -> list[Request]:
        """Return those of some requests that hold a slot."""
        return [request for request in self.requests.get_all(request_ids) if request.state in HOLDING]

    def holders(self) -> tuple[Holder, ...]:
        """Return the requests that hold a slot, as passes and explanations need them."""
        return tuple(
            Holder(
                request_id=request.request_id,
                tenant_id=request.tenant_id,
                tier=request.tier,
                profile=str(ResourceProfile.held_by(request)),
                ends_by=request.ends_by or request.arrived_at,
                ahead=request.ahead,
                admitted_at=request.admitted_at,
            )
            for request in self.held()
        )

    def waiting_of(self, tier: str, tenant_id: str, *, limit: int = 100) -> list[Request]:
        """Return some of a tenant's waiting requests in a tier, as they are now."""
        return self.requests.get_all(self.queues.first_request_ids(tier, tenant_id, limit=limit))

    def requests_and_tenants(
        self, request_ids: Iterable[str], tenant_ids: Iterable[str]
    ) -> tuple[list[Request], dict[str, Tenant]]:
        """Return requests in the order asked for, and tenants by id; those that there are, read together."""
        requests, tenants = list(map(request_key, request_ids)), list(map(tenant_key, tenant_ids))
        items = read_items(self.store, (*requests, *tenants))
        owners = [tenant_from(item) for key in tenants if (item := items[key])]
        return [request_from(item) for key in requests if (item := items[key])], {t.tenant_id: t for t in owners}
