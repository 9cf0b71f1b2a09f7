"""What the function is invoked with that carries out bulk actions."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from trainyard.contracts.events import explain
from trainyard.domain.errors import Malformed


class BulkCommand(BaseModel):
    """Which action is to be carried out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: Annotated[str, StringConstraints(pattern=r"^([a-z0-9](-?[a-z0-9])*|_service)$", max_length=24)]
    action_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


def parse_bulk_command(event: dict[str, Any]) -> BulkCommand:
    """Return the command of an event; raises Malformed."""
    try:
        return BulkCommand.model_validate(event)
    except ValidationError as error:
        raise Malformed(explain(error)) from error
