"""The reports that a run's scripts write: validated by a schema, since some scripts are not the provider's.

`evaluation.json` and `profile.json` lie in the tenant's root. Recording an end never waits for them.
"""

import math
import unicodedata
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from trainyard.contracts.events import explain
from trainyard.domain.errors import Malformed
from trainyard.domain.transforms import Plan

QUALITY_MAX = 1e30
"""The largest size of a quality that is kept: a number that DynamoDB and its SDK can store and return."""

ROWS_MAX = 10**12
NOTES_MAX = 1000
NOTES_SHOWN_MAX = 5
NOTE_LENGTH_MAX = 200
"""Of the notes, so much is kept with the request and shown in its receipt."""

Reason = Annotated[str, StringConstraints(max_length=200)]
Problem = Annotated[str, StringConstraints(pattern=r"^[a-z-]{1,40}$")]
Rows = Annotated[int, Field(ge=0, le=ROWS_MAX)]
Dropped = Annotated[dict[Reason, Rows], Field(max_length=20)]
Notes = Annotated[list[str], Field(max_length=NOTES_MAX)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._²-]{0,63}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{1,128}$")]


class _Report(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


def _known(value: Any) -> Any:
    """Return a score, or None for one that could not be computed, for example from too few rows."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _if_valid(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Return a value, or None if it is another one: scripts that are not ours may use its name otherwise."""
    try:
        return check(value)
    except ValidationError:
        return None


Optionally = WrapValidator(_if_valid)


class Quality(_Report):
    metric: Name
    value: Annotated[float | None, BeforeValidator(_known)] = Field(default=None, ge=-QUALITY_MAX, le=QUALITY_MAX)


class Evaluation(_Report):
    """How good the model is."""

    quality: Quality
    baseline: Annotated[Quality | None, Optionally] = None


class TrainedFile(_Report):
    md5: Digest


class Profile(_Report):
    """What the run has read."""

    sha256: Digest
    files: list[TrainedFile] = Field(min_length=1)
    problem: Annotated[Problem | None, Optionally] = None
    rows: Annotated[Rows | None, Optionally] = None
    dropped: Annotated[Dropped | None, Optionally] = None
    """Reason → rows."""

    notes: Annotated[Notes | None, Optionally] = None

    @property
    def rows_dropped(self) -> int:
        return sum((self.dropped or {}).values())

    def notes_shown(self) -> str | None:
        """Return the first notes, a line each, in characters that can be shown; None where there are none."""
        notes = [_shown(note) for note in (self.notes or [])[:NOTES_SHOWN_MAX]]
        if len(self.notes or []) > NOTES_SHOWN_MAX:
            notes.append("more notes are in profile.json")
        return "\n".join(notes) or None


def _shown(note: str) -> str:
    text = "".join(map(_shown_character, note))
    return text if len(text) <= NOTE_LENGTH_MAX else text[: NOTE_LENGTH_MAX - 1] + "…"


def _shown_character(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return " "
    return character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"


R = TypeVar("R", bound=_Report)


class _Plan(_Report):
    version: int = Field(ge=1, le=10**9)
    content_type: Literal["text/csv", "application/jsonlines"]
    files: int = Field(ge=1, le=10**6)
    size_bytes: int = Field(ge=1, le=10**15)


def parse_plan(body: bytes) -> Plan:
    """Return what a batch transform predicts; raises Malformed, naming what is wrong."""
    return Plan(**_parsed(_Plan, body).model_dump())


def parse_evaluation(body: bytes) -> Evaluation:
    """Return what an evaluation says; raises Malformed, naming what is wrong."""
    return _parsed(Evaluation, body)


def parse_profile(body: bytes) -> Profile:
    """Return what a profile says; raises Malformed, naming what is wrong."""
    return _parsed(Profile, body)


def _parsed(report: type[R], body: bytes) -> R:
    try:
        return report.model_validate_json(body)
    except ValidationError as error:
        raise Malformed(explain(error)) from error
