"""What the sections of the policy file have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Slots = Annotated[int, Field(ge=0, le=10_000, strict=True)]
SomeSlots = Annotated[int, Field(ge=1, le=10_000, strict=True)]
StartRate = Annotated[float, Field(gt=0, le=100)]
TierName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,15}$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Misplaced(ValueError):
    """A value that contradicts another one; `path` is its location."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path
