"""What the passes of the dispatcher have decided about a waiting request."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from trainyard.contracts.decisions import decode_pass
from trainyard.domain.requests import Request


class PassAnswer(BaseModel):
    """A pass that left a request waiting."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    reason: Annotated[str, Field(description="Why the requests of its queue that need what it needs waited on")]
    policy_version: int
    engine_version: int


class PassList(BaseModel):
    """The last recorded passes, newest first; none of a request that has not waited in one of the last hours."""

    model_config = ConfigDict(frozen=True)

    items: list[PassAnswer]


def passes_of(records: Iterable[bytes], request: Request) -> Iterator[PassAnswer]:
    """Yield what recorded passes decided about a waiting request's lane, in their order."""
    for record in map(decode_pass, records):
        if record.at < request.arrived_at:
            continue
        for wait in record.plan.waits:
            if (wait.queue.tenant_id, wait.entry.profile) == (request.tenant_id, request.profile):
                yield PassAnswer(
                    at=record.at,
                    reason=wait.reason.value,
                    policy_version=record.policy.version,
                    engine_version=record.engine_version,
                )
