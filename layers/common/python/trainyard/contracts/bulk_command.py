"""What the function is invoked with that carries out bulk actions."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from trainyard.contracts.events import explain
from trainyard.domain.errors import Malformed


class BulkCommand(BaseModel):
    """Which action is to be carried out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: Annotated[str, StringConstraints(pattern=r"^([a-z0-9](-?[a-z0-9])*|_service)$", max_length=24)]
    action_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class BulkResumption(BaseModel):
    """Those that have not ended, and to which nothing happens any more, are to be carried on with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resume: Literal[True]


_COMMAND: TypeAdapter[BulkCommand | BulkResumption] = TypeAdapter(BulkCommand | BulkResumption)


def parse_bulk_command(event: dict[str, Any]) -> BulkCommand | BulkResumption:
    """Return the command of an event; raises Malformed."""
    try:
        return _COMMAND.validate_python(event)
    except ValidationError as error:
        raise Malformed(explain(error)) from error
