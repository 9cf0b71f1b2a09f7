"""The reports that a run's scripts write: validated by a schema, since some scripts are not the provider's.

`evaluation.json` and `profile.json` lie in the tenant's root. Recording an end never waits for them.
"""

import json
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
from trainyard.domain.challenge import Challenge
from trainyard.domain.errors import Malformed
from trainyard.domain.transforms import Plan
from trainyard.domain.tuning import RANGES_MAX

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


Score = Annotated[
    Annotated[float, Field(ge=-QUALITY_MAX, le=QUALITY_MAX)] | None,
    BeforeValidator(_known),
]


TunedInteger = Annotated[int, Field(ge=-(10**15), le=10**15)]
TunedNumber = Annotated[float, Field(ge=-QUALITY_MAX, le=QUALITY_MAX, allow_inf_nan=False)]


class Quality(_Report):
    metric: Name
    value: Score = None


class Segment(_Report):
    gain: Score = None


class Champion(_Report):
    """How the model stands beside the one before; or why that cannot be said."""

    request: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    not_compared: Reason | None = None
    metric: Name | None = None
    champion: Score = None
    challenger: Score = None
    gain: Score = None
    segments: Annotated[list[Segment], Field(max_length=1000)] = Field(default_factory=list)

    def as_challenge(self) -> Challenge:
        """Return it as the domain has it; what is not said counts as not compared."""
        if self.not_compared is not None:
            return Challenge(
                champion=self.request, not_compared=_shown(self.not_compared) or "no reason was given"
            )
        if self.metric is None or self.champion is None or self.challenger is None or self.gain is None:
            return Challenge(champion=self.request, not_compared="one of both has no quality on these rows")
        gains = [segment.gain for segment in self.segments if segment.gain is not None]
        return Challenge(
            champion=self.request,
            metric=self.metric,
            champion_quality=self.champion,
            quality=self.challenger,
            gain=self.gain,
            segment_gain=min(gains, default=None),
        )


def _champion(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Return a comparison; one that cannot be read counts as not made, where it says beside which model."""
    try:
        return check(value)
    except ValidationError:
        request = value.get("request") if isinstance(value, dict) else None
        try:
            return Champion(request=request or "", not_compared="the report on the comparison is malformed")
        except ValidationError:
            return None


class BestTrial(_Report):
    """The trial of a tuning that was best."""

    values: Annotated[
        dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], TunedInteger | TunedNumber],
        Field(min_length=1, max_length=RANGES_MAX),
    ]
    metric: Name
    score: Score = None
    error: Score = None

    def text(self) -> str:
        """Return the values as JSON."""
        return json.dumps(self.values, sort_keys=True, separators=(",", ":"))


class Evaluation(_Report):
    """How good the model is."""

    quality: Quality
    baseline: Annotated[Quality | None, Optionally] = None
    champion: Annotated[Champion | None, WrapValidator(_champion)] = None
    tuning: Annotated[BestTrial | None, Optionally] = None


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
