"""What the HTTP API takes and answers about API keys."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from trainyard.application.api.keys import NewKey
from trainyard.domain.api_keys import DAYS_MAX, ApiKey
from trainyard.domain.principals import Role


class KeyBody(BaseModel):
    """A key that is to be made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f]+$"),
        Field(description="What it is for", examples=["nightly upload"]),
    ]
    role: Literal["tenant-admin", "tenant-reader"] = "tenant-reader"
    days: Annotated[int, Field(ge=1, le=DAYS_MAX, strict=True, description="For how long it is valid")] = 90


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class KeyAnswer(_Answer):
    """A key, without its secret."""

    key_id: str
    name: str
    role: Role
    user_name: Annotated[str, Field(description="What it signs in with")]
    created_at: datetime
    created_by: str
    expires_at: datetime
    last_used_at: Annotated[datetime | None, Field(description="To the hour; null before its first call")]


class NewKeyAnswer(KeyAnswer):
    """A key with its secret, which is answered this once."""

    secret: str


class KeyList(_Answer):
    """The keys of a tenant, the newest first."""

    items: list[KeyAnswer]
    next: Annotated[str | None, Field(description="Always null: all keys are on one page")]


def keys_of(keys: Iterable[ApiKey]) -> KeyList:
    return KeyList(items=[KeyAnswer.model_validate(_values(key)) for key in keys], next=None)


def new_key_of(new: NewKey) -> NewKeyAnswer:
    return NewKeyAnswer.model_validate(_values(new.key) | {"secret": new.secret})


def _values(key: ApiKey) -> dict[str, object]:
    return {name: getattr(key, name) for name in KeyAnswer.model_fields}
