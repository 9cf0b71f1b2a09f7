"""What has happened to a tenant's requests, models and budget, to be asked for again and again."""

from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query

from trainyard.contracts.api import Cursor, Limit, answers
from trainyard.contracts.journal import EventList, events_of, parse_place
from trainyard.domain.principals import Access
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import allow, refuse_parameters_but, routes

router = routes()


@router.get(
    "/v1/tenants/<tenant_id>/events", summary="What has happened, oldest first", responses=answers(EventList)
)
def list_events(
    tenant_id: str, limit: Annotated[Limit, Query()] = 50, cursor: Annotated[Cursor | None, Query()] = None
) -> EventList:
    """Of the last seven days, each some 15 seconds after it was published. `next` goes on, also later."""
    allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but("limit", "cursor")
    return events_of(bootstrap.journal().page(tenant_id, parse_place(cursor), limit=limit, now=datetime.now(UTC)))
