"""Waves, as the HTTP API takes and answers them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from trainyard.application.tenancy.wave_commands import StagePlan
from trainyard.contracts.waves import member_view, wave_view
from trainyard.domain.waves import (
    STAGE_HOURS_MAX,
    STAGES,
    STAGES_MAX,
    Member,
    MemberState,
    Verdict,
    Wave,
    WaveState,
)

WAVE_ID = r"^[0-9]{8}-[0-9]{6}-[0-9a-f]{6}$"
AlgorithmName = Annotated[str, Field(max_length=64, description="Such as `neighbours@2`")]
Percent = Annotated[float, Field(gt=0, le=100)]


class WaveBody(BaseModel):
    """A wave to begin."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: AlgorithmName
    stages: Annotated[
        tuple[Percent, ...],
        Field(min_length=1, max_length=STAGES_MAX, description="Percent of the tenants, rising"),
    ] = STAGES
    tier: Annotated[str, Field(max_length=64, description="Whose tenants alone it is for; `` for all")] = ""
    tag: Annotated[str, Field(max_length=64, description="That its tenants must have; `` for any")] = ""
    from_version: Annotated[
        str, Field(max_length=64, description="That its tenants must have; `` for any other one of the algorithm")
    ] = ""
    margin: Annotated[float, Field(ge=0, le=1, description="By how much a quality may fall")] = 0.02
    segment_loss_max: Annotated[float, Field(ge=0, le=1e6, description="By how much a segment may be worse")] = 0.2
    worse_percent: Annotated[
        float, Field(ge=0, le=100, description="Of the data sets, how many may be worse or fail")
    ] = 10.0
    stage_hours: Annotated[int, Field(ge=1, le=STAGE_HOURS_MAX, description="How long a stage waits at most")] = 72
    soak_hours: Annotated[int, Field(ge=0, le=STAGE_HOURS_MAX, description="How long it lasts at least")] = 0
    dry_run: Annotated[bool, Field(description="Only answer whom each stage would move")] = False

    def rules(self) -> dict[str, object]:
        """Return the fields of a wave."""
        return self.model_dump(exclude={"version", "dry_run"})


class WaveChangeBody(BaseModel):
    """Why a wave is paused, or goes back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, Field(max_length=300)] = ""


class WaveResumeBody(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    anyway: Annotated[bool, Field(description="Go to the next stage, although too few data sets were judged")] = (
        False
    )


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class WaveAnswer(_Answer):
    """A wave."""

    wave_id: str
    version: str
    state: WaveState
    stages: list[float]
    stage: Annotated[int, Field(description="The present one, from 0")]
    stage_since: datetime
    tier: str | None
    tag: str | None
    from_version: str | None
    margin: float
    segment_loss_max: float
    worse_percent: float
    stage_hours: int
    soak_hours: int
    begun_at: datetime
    begun_by: str
    reason: Annotated[str | None, Field(description="Why it was paused, or goes back")]


class JudgedAnswer(_Answer):
    data_set: str
    verdict: Verdict
    request_id: str
    metric: str | None
    gain: Annotated[float | None, Field(description="Above 0, the version is better")]
    reason: str | None


class MemberAnswer(_Answer):
    """A tenant that a wave moves, or has moved."""

    tenant_id: str
    stage: int
    state: MemberState
    since: datetime
    before: Annotated[dict[str, str], Field(description="Data set → what it had; `` for the tenant itself")]
    data_sets: list[str]
    judged: list[JudgedAnswer]
    reason: str | None


class WaveDetail(WaveAnswer):
    """A wave, and how its tenants' models do."""

    tenants: int
    expected: Annotated[int, Field(description="Data sets that have trained on the version, or are to")]
    judged: int
    compared: int
    bad: Annotated[int, Field(description="Of those compared: worse, or failed")]
    members: Annotated[list[MemberAnswer], Field(description="Those that do badly come first")]
    is_complete: Annotated[bool, Field(description="Whether `members` are all of its tenants")]


class WaveList(_Answer):
    """Some of the waves, newest first."""

    items: list[WaveAnswer]
    next: Annotated[str | None, Field(description="The cursor of the next page; null at the end")]


class StageAnswer(_Answer):
    """Whom a stage would move."""

    percent: float
    count: int
    tenants: Annotated[list[str], Field(description="The first of them")]


class WavePlan(_Answer):
    """Whom the stages of a wave would move, as the tenants are now."""

    stages: list[StageAnswer]
    wave: WaveAnswer | None = None
    """The wave that has begun; null for a dry run."""


NAMED_MAX = 20


def wave_of(wave: Wave) -> WaveAnswer:
    return WaveAnswer.model_validate(wave_view(wave))


def detail_of(wave: Wave, members: Sequence[Member], limit: int) -> WaveDetail:
    bad = (Verdict.WORSE, Verdict.FAILED)

    def badness(member: Member) -> tuple[bool, bool, str]:
        is_bad = any(each.verdict in bad for each in member.judged)
        return not is_bad, member.state is MemberState.MOVED, member.tenant_id

    shown = sorted(members, key=badness)[:limit]
    return WaveDetail.model_validate(
        wave_view(wave, members)
        | {"members": [member_view(each) for each in shown], "is_complete": len(shown) == len(members)}
    )


def plan_of(plan: Sequence[StagePlan], wave: Wave | None) -> WavePlan:
    return WavePlan(
        stages=[
            StageAnswer(percent=each.percent, count=len(each.tenants), tenants=each.tenants[:NAMED_MAX])
            for each in plan
        ],
        wave=wave_of(wave) if wave else None,
    )
