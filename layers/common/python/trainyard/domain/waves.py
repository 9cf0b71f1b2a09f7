"""Waves: another version of an algorithm reaches its tenants in stages, and goes back if their models get worse.

    RUNNING ──▶ DONE
      │  ▲
      │  └──▶ PAUSED: somebody has to look at it
      └─────▶ GOING_BACK ──▶ ROLLED_BACK: too many models got worse, or somebody said so

A tenant's place in the order is a digest of its name, so that a larger share always includes a smaller one.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from trainyard.domain.algorithms import family_of
from trainyard.domain.errors import Refused
from trainyard.domain.failures import cause_of
from trainyard.domain.requests import TERMINAL, Request, RequestKind, State
from trainyard.domain.tenants import Tenant, TenantState

STAGES = (1.0, 10.0, 50.0, 100.0)
STAGES_MAX = 20
STAGE_HOURS_MAX = 30 * 24
ENOUGH = 0.5
"""Of a stage's data sets, the share that must have been judged when its time is over."""

LOWER_IS_BETTER = frozenset({"mae", "rmse"})
"""Metrics of errors; of all others a higher value is better (pipeline/steps/baseline.py)."""


class WaveState(StrEnum):
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    GOING_BACK = "GOING_BACK"
    """Its tenants get back the versions that they had."""
    ROLLED_BACK = "ROLLED_BACK"
    DONE = "DONE"


UNFINISHED = (WaveState.RUNNING, WaveState.PAUSED, WaveState.GOING_BACK)


class MemberState(StrEnum):
    MOVING = "MOVING"
    MOVED = "MOVED"
    """Its settings name the version, and its data sets were asked to train."""
    GOING_BACK = "GOING_BACK"
    BACK = "BACK"
    """Nothing of it is of the version any more."""
    LEFT_OUT = "LEFT_OUT"
    """It could not be moved, or somebody has changed its algorithm since."""
    GONE = "GONE"
    """The tenant was deleted."""


class Verdict(StrEnum):
    """On a data set that has trained on the version."""

    AS_GOOD = "as good"
    WORSE = "worse"
    FAILED = "failed"
    NEW = "nothing to compare with"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A data set's first training on the version, beside the model that it had before."""

    data_set: str
    verdict: Verdict
    request_id: str = ""
    metric: str = ""
    gain: float | None = None
    """By how much it is better; below 0, worse."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A tenant that a wave moves, or has moved."""

    tenant_id: str
    stage: int
    state: MemberState
    since: datetime
    before: Mapping[str, str]
    """Data set → the algorithm that it had; "" for the tenant's own settings."""
    data_sets: tuple[str, ...] = ()
    """That were asked to train on the version."""
    judged: tuple[Judged, ...] = ()
    tries: int = 0
    """Runs that were to change its settings."""
    run: str = ""
    """The name of the last one."""
    reason: str = ""
    revision: int = 0

    def had_before(self, wave: "Wave", data_set: str) -> bool:
        """Tell whether a data set had the wave's version before it began."""
        return self.before.get(data_set, self.before.get("")) == wave.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    wave_id: str
    version: str
    """The algorithm's version that it brings: NAME@VERSION, or NAME."""
    state: WaveState
    stages: tuple[float, ...] = STAGES
    """Percent of the tenants, rising."""
    stage: int = 0
    """The present one, from 0."""
    tier: str = ""
    """Whose tenants alone it is for; "" for all."""
    tag: str = ""
    """That its tenants must have; "" for any."""
    from_version: str = ""
    """That its tenants must have; "" for any other one of the algorithm."""
    margin: float = 0.02
    """By how much a quality may fall without counting as worse; of errors, the share."""
    segment_loss_max: float = 0.2
    """By how much a segment may be worse."""
    worse_percent: float = 10.0
    """Of the data sets that are judged, how many may be worse or have failed."""
    stage_hours: int = 72
    """After which a stage is judged by those that have trained by then."""
    soak_hours: int = 0
    """How long a stage lasts at least."""
    begun_at: datetime
    begun_by: str = ""
    stage_since: datetime
    is_waved_on: bool = False
    """Whether somebody let it leave the present stage without a judgement of enough data sets."""
    reason: str = ""
    """Why it was paused, or goes back."""
    revision: int = 0

    @property
    def family(self) -> str:
        return family_of(self.version)

    @property
    def is_last_stage(self) -> bool:
        return self.stage + 1 >= len(self.stages)


def check_stages(stages: Sequence[float]) -> tuple[float, ...]:
    """Return stages; raises Refused for shares that do not rise, or are none."""
    if not 1 <= len(stages) <= STAGES_MAX:
        raise Refused(f"{len(stages)} stages: 1 to {STAGES_MAX} are allowed")
    for before, share in zip((0.0, *stages), stages, strict=False):
        if not before < share <= 100:
            raise Refused(
                f"stages of {', '.join(f'{each:g}' for each in stages)} percent: each must be more than the one "
                "before, and at most 100"
            )
    return tuple(stages)


# --- whom it is for -------------------------------------------------------------------------------------------


def is_movable(tenant: Tenant) -> bool:
    return tenant.state in (TenantState.ACTIVE, TenantState.SUSPENDED)


def users_of(wave: Wave, tenants: Sequence[Tenant]) -> list[Tenant]:
    """Return the tenants that a wave is for, in its order."""
    users = [
        tenant
        for tenant in tenants
        if is_movable(tenant)
        and wave.tier in ("", tenant.tier)
        and (not wave.tag or wave.tag in tenant.tags)
        and any(family_of(name) == wave.family for name in algorithms_of(tenant).values())
    ]
    return sorted(users, key=lambda tenant: hashlib.sha256(f"{wave.family} {tenant.tenant_id}".encode()).digest())


def algorithms_of(tenant: Tenant) -> dict[str, str]:
    """Return data set → algorithm, with "" for the tenant's own settings."""
    own = {name: settings.algorithm for name, settings in tenant.data_sets.items()}
    return {"": tenant.settings.algorithm} | own


def to_move(wave: Wave, tenant: Tenant) -> dict[str, str]:
    """Return data set → algorithm of a tenant, of those that a wave replaces."""
    return {
        data_set: name
        for data_set, name in algorithms_of(tenant).items()
        if family_of(name) == wave.family and name != wave.version and wave.from_version in ("", name)
    }


def to_restore(wave: Wave, member: Member, tenant: Tenant) -> dict[str, str]:
    """Return data set → algorithm of a tenant, for what is of the wave's version and was not before it.

    Settings of a data set that are newer than the wave get what the tenant had then.
    """
    others = [name for name in member.before.values() if family_of(name) == wave.family and name != wave.version]
    own = member.before.get("", "")
    default = own if family_of(own) == wave.family and own != wave.version else next(iter(others), wave.version)
    before = {
        data_set: member.before.get(data_set, default)
        for data_set, name in algorithms_of(tenant).items()
        if name == wave.version
    }
    return {data_set: name for data_set, name in before.items() if name != wave.version}


def share_of(wave: Wave, users: Sequence[Tenant], stage: int | None = None) -> list[Tenant]:
    """Return those of the users whom the present stage reaches, or another one."""
    percent = wave.stages[wave.stage if stage is None else stage]
    return list(users[: math.ceil(len(users) * percent / 100)])


# --- judging --------------------------------------------------------------------------------------------------


def judge(
    wave: Wave,
    data_set: str,
    requests: Sequence[Request],
    since: datetime,
    request_of: Callable[[str], Request | None],
) -> Judged | None:
    """Judge the version by the requests of one data set that has a model, newest first; None while that has to
    wait. `request_of` returns one that is not among them.

    What failed for AWS's sake, or before the training, does not count. The model before is the one that was judged
    on the same rows; where that is not known, the last one of another version, by its own rows.
    """
    trainings = [each for each in requests if each.kind is RequestKind.TRAINING and each.overrides is None]
    # By its end: one that waited before, and became part of a later one, has the arrival of the first.
    of_version = [
        each
        for each in trainings
        if each.algorithm == wave.version and (each.finished_at is None or each.finished_at >= since)
    ]
    counts = [each for each in of_version if each.state is State.SUCCEEDED or _failed_by_itself(each)]
    if not counts:
        if not of_version or any(each.state not in TERMINAL for each in of_version):
            return None
        last = of_version[0]
        return Judged(
            data_set=data_set,
            verdict=Verdict.NEW,
            request_id=last.request_id,
            reason=last.reason or last.state.value,
        )
    mine = counts[-1]  # the first one: whatever came later may have been trained on other data
    earlier = next(
        (
            each
            for each in trainings[trainings.index(mine) :]
            if each.state is State.SUCCEEDED
            and each.algorithm != wave.version
            and family_of(each.algorithm) == wave.family
        ),
        None,
    )
    judged = Judged(data_set=data_set, verdict=Verdict.NEW, request_id=mine.request_id)
    if mine.state is State.FAILED:
        return replace(judged, verdict=Verdict.FAILED, reason=mine.reason or "")
    beside = _beside_champion(wave, judged, mine, request_of)
    return beside or _beside_earlier(wave, judged, mine, earlier)


def _beside_champion(
    wave: Wave, judged: Judged, mine: Request, request_of: Callable[[str], Request | None]
) -> Judged | None:
    """Return the judgement on the same rows; None where there is none, or the champion is of the version too."""
    outcome = mine.outcome
    if outcome is None or outcome.gain is None or outcome.champion is None:
        return None
    champion = request_of(outcome.champion)
    if champion is None or champion.algorithm == wave.version:
        return None
    metric = outcome.quality_metric or ""
    allowed = _allowed(wave, metric, outcome.champion_quality or 0)
    reason, verdict = "", Verdict.AS_GOOD
    if outcome.gain < -allowed:
        verdict = Verdict.WORSE
    elif outcome.segment_gain is not None and outcome.segment_gain < -wave.segment_loss_max:
        verdict, reason = Verdict.WORSE, f"{outcome.segment_gain:+.4g} in the segment that loses most"
    return replace(judged, verdict=verdict, metric=metric, gain=outcome.gain, reason=reason)


def _beside_earlier(wave: Wave, judged: Judged, mine: Request, earlier: Request | None) -> Judged:
    now, then = mine.outcome, earlier.outcome if earlier else None
    if now is None or then is None or now.quality is None or then.quality is None:
        return judged
    if now.quality_metric != then.quality_metric:
        reason = f"judged by {now.quality_metric}, before by {then.quality_metric}"
        return replace(judged, reason=reason)
    metric = now.quality_metric or ""
    gain = (then.quality - now.quality) if metric in LOWER_IS_BETTER else (now.quality - then.quality)
    verdict = Verdict.WORSE if gain < -_allowed(wave, metric, then.quality) else Verdict.AS_GOOD
    return replace(judged, verdict=verdict, metric=metric, gain=gain, reason="each on rows of its own")


def _allowed(wave: Wave, metric: str, before: float) -> float:
    return wave.margin * abs(before) if metric in LOWER_IS_BETTER else wave.margin


def _failed_by_itself(request: Request) -> bool:
    """Tell whether a request failed in a step that shows something of the algorithm."""
    step = request.outcome.failed_step if request.outcome else None
    return (
        request.state is State.FAILED
        and step not in (None, "Preprocess")
        and not cause_of(request.reason or "").passes
    )


class Next(StrEnum):
    WAIT = "wait"
    PAUSE = "pause"
    GO_ON = "go on"
    """To the next stage, or to the end."""
    GO_BACK = "go back"


class Decision(NamedTuple):
    next: Next
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """How the data sets of a wave's tenants do."""

    expected: int = 0
    """That have trained on the version, or are to."""
    judged: int = 0
    compared: int = 0
    bad: int = 0
    """Of those compared: worse, or failed."""
    examples: tuple[str, ...] = ()
    """Of those, a few."""


def tally(members: Sequence[Member]) -> Tally:
    expected = judged = compared = bad = 0
    examples: list[str] = []
    for member in members:
        if member.state in (MemberState.LEFT_OUT, MemberState.GONE):
            continue
        expected += len(member.data_sets) or int(member.state is MemberState.MOVING)
        judged += len(member.judged)
        for each in member.judged:
            compared += each.verdict is not Verdict.NEW
            if each.verdict in (Verdict.WORSE, Verdict.FAILED):
                bad += 1
                examples.append(f"{member.tenant_id}/{each.data_set}")
    return Tally(expected, judged, compared, bad, tuple(examples[:3]))


def decide(wave: Wave, members: Sequence[Member], now: datetime, *, is_reached: bool) -> Decision:
    """Return how a wave that runs goes on; `is_reached`: whether all tenants of its stage are on their way."""
    of_stage = [member for member in members if member.stage == wave.stage]
    score, of_present = tally(members), tally(of_stage)
    # Not of those judged so far: the first of a hundred that is worse would be all of them. And of the stage by
    # itself: those of earlier stages that did well must not hide those of a large one that do badly.
    for each in (score, of_present):
        if each.bad and each.bad > max(each.expected, each.compared) * wave.worse_percent / 100:
            return Decision(Next.GO_BACK, _too_many(wave, each))
    if not is_reached:
        return Decision(Next.WAIT)
    is_late = now >= wave.stage_since + timedelta(hours=wave.stage_hours)
    if of_present.judged < of_present.expected and not is_late and not wave.is_waved_on:
        return Decision(Next.WAIT)
    for each in (score, of_present):
        if each.bad and each.bad > each.compared * wave.worse_percent / 100:
            return Decision(Next.GO_BACK, _too_many(wave, each))
    doubt = "" if wave.is_waved_on else _too_little(wave, of_stage, of_present)
    if doubt:
        return Decision(Next.PAUSE, doubt)
    if now < wave.stage_since + timedelta(hours=wave.soak_hours):
        return Decision(Next.WAIT)
    return Decision(Next.GO_ON)


def _too_little(wave: Wave, of_stage: Sequence[Member], score: Tally) -> str:
    """Return why a stage says too little about the version; "" if it says enough, or moved nobody."""
    out = sum(member.state is MemberState.LEFT_OUT for member in of_stage)
    if out and out == sum(member.state is not MemberState.GONE for member in of_stage):
        return f"none of its tenants could be moved: {next((each.reason for each in of_stage if each.reason), '')}"
    if score.judged < score.expected * ENOUGH:
        return f"after {wave.stage_hours} hours, {score.judged} of {score.expected} data sets have trained on it"
    if score.expected and not score.compared:
        return f"none of {score.judged} data sets had a model to compare with"
    return ""


def _too_many(wave: Wave, score: Tally) -> str:
    more = " …" if score.bad > len(score.examples) else ""
    return (
        f"{score.bad} of {score.compared} data sets that can be compared failed or got worse, and at most "
        f"{wave.worse_percent:g} % may: {', '.join(score.examples)}{more}"
    )
