"""What the function is invoked with that makes and deletes users of the pool."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from trainyard.contracts.events import explain
from trainyard.domain.api_keys import KEY_ID
from trainyard.domain.errors import Malformed
from trainyard.domain.principals import Role

KeyId = Annotated[str, StringConstraints(pattern=f"^{KEY_ID.pattern}$")]
TenantId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](-?[a-z0-9])*$", max_length=24)]


class MakeKey(BaseModel):
    """The user of a key; its role can be no role of the provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    make_key: KeyId
    tenant_id: TenantId
    role: Literal[Role.TENANT_ADMIN, Role.TENANT_READER]


class DeleteKey(BaseModel):
    """The user of a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delete_key: KeyId


class DeleteUsers(BaseModel):
    """All users of a tenant that is being deleted, persons and keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delete_users_of: TenantId


UsersCommand = MakeKey | DeleteKey | DeleteUsers
_COMMAND: TypeAdapter[UsersCommand] = TypeAdapter(UsersCommand)


def parse_users_command(event: dict[str, Any]) -> UsersCommand:
    """Return the command of an event; raises Malformed."""
    try:
        return _COMMAND.validate_python(event)
    except ValidationError as error:
        raise Malformed(explain(error)) from error
