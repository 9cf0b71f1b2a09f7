"""A tenant's requests in pages, newest first."""

from dataclasses import dataclass
from typing import NamedTuple

from trainyard.domain.requests import Request, State
from trainyard.persistence.requests import Requests
from trainyard.persistence.store import Cursor

QUERIES_MAX = 10
"""For one page: a filter that few requests pass makes it end early, and the next one goes on from there."""


class RequestPage(NamedTuple):
    """Some of a tenant's requests: as many as were asked for, or fewer; the cursor says whether more is left."""

    requests: list[Request]
    cursor: Cursor | None
    """Where the next page begins; None when nothing is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPages:
    requests: Requests

    def of_tenant(
        self,
        tenant_id: str,
        *,
        limit: int,
        after: Cursor | None = None,
        state: State | None = None,
        data_set: str | None = None,
    ) -> RequestPage:
        """Return the requests that pass a filter, from a cursor on; may lag.

        Raises Malformed for a cursor of another list.
        """
        wanted: list[Request] = []
        for _ in range(QUERIES_MAX):
            # Never more than is still wanted, so that the cursor stands behind the last one that is returned.
            some, after = self.requests.page_of_tenant(tenant_id, limit=limit - len(wanted), after=after)
            wanted += [
                request
                for request in some
                if (state is None or request.state is state) and (data_set is None or request.data_set == data_set)
            ]
            if after is None or len(wanted) == limit:
                break
        return RequestPage(wanted, after)
