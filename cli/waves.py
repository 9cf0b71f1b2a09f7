"""`wave`: bring another version of an algorithm to tenants in stages, and see how it does."""

from datetime import UTC, datetime
from typing import Any

from cli.arguments import Arguments
from cli.codes import DONE, REFUSED
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted
from trainyard.application.tenancy.wave_commands import StagePlan, WaveCommands
from trainyard.contracts.waves import member_view, wave_view
from trainyard.domain.waves import STAGES, Member, MemberState, Verdict, Wave, WaveState, tally
from trainyard.persistence.waves import Waves

NAMED_MAX = 10
LISTED_MAX = 50
BAR_WIDTH = 30


def start(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show whom each stage would move; with --yes, begin the wave."""
    commands = _commands(deployment)
    wave = commands.proposed(
        arguments.name,
        deployment.caller(),
        datetime.now(UTC),
        stages=tuple(arguments.stage) or STAGES,
        tier=arguments.tier or "",
        tag=arguments.tag or "",
        from_version=arguments.from_version or "",
        margin=arguments.margin,
        segment_loss_max=arguments.segment_loss_max,
        worse_percent=arguments.worse_max,
        stage_hours=arguments.stage_hours,
        soak_hours=arguments.soak_hours,
    )
    plan = commands.plan(wave)
    if arguments.yes:
        commands.begin(wave)
    return Answer(
        data={
            "wave": wave_view(wave) if arguments.yes else None,
            "version": wave.version,
            "stages": [{"percent": stage.percent, "tenants": stage.tenants} for stage in plan],
        },
        columns=("STAGE", "MOVES", "TENANTS"),
        rows=[(f"{stage.percent:g} %", len(stage.tenants), _named(stage.tenants)) for stage in plan],
        lines=[_begun(wave, plan) if arguments.yes else "nothing was changed; add --yes to begin"],
    )


def _begun(wave: Wave, plan: list[StagePlan]) -> str:
    first = next(stage for stage in plan if stage.tenants)
    return (
        f"wave {wave.wave_id} has begun: within minutes, {counted(len(first.tenants), 'tenant')} will be moved "
        f"(`trainyard wave show {wave.wave_id}` follows it)"
    )


def list_waves(deployment: Deployment, arguments: Arguments) -> Answer:
    """List the last waves, newest first."""
    waves, _ = _waves(deployment).page(limit=LISTED_MAX)
    return Answer(
        data=[wave_view(wave) for wave in waves],
        columns=("WAVE", "VERSION", "STATE", "STAGE", "BEGUN", "BY", "REASON"),
        rows=[
            (
                wave.wave_id,
                wave.version,
                wave.state.value,
                f"{wave.stages[wave.stage]:g} %",
                f"{wave.begun_at:%m-%d %H:%M}",
                wave.begun_by,
                wave.reason,
            )
            for wave in waves
        ],
        below="REASON",
    )


def show(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show how a wave does: its stages, and its tenants with what was judged."""
    commands = _commands(deployment)
    wave = commands.known(arguments.wave)
    members = list(commands.waves.members(wave.wave_id))
    noteworthy = [each for each in members if arguments.all or _is_noteworthy(each)]
    stopped = wave.state in (WaveState.GOING_BACK, WaveState.ROLLED_BACK)
    return Answer(
        data=wave_view(wave, members) | {"members": [member_view(member) for member in members]},
        columns=("TENANT", "STAGE", "STATE", "DATA SET", "VERDICT", "GAIN", "REASON") if noteworthy else (),
        rows=[row for member in noteworthy for row in _rows(wave, member)],
        lines=[*_drawn(wave, members), *_hints(wave)],
        below="REASON",
        alarms=[f"stopped: {wave.reason}"] if wave.reason else [],
        code=REFUSED if stopped else DONE,
    )


def pause(deployment: Deployment, arguments: Arguments) -> Answer:
    """Let a wave move no more tenants."""
    return _told(_commands(deployment).pause(arguments.wave, arguments.reason or "paused by an operator"))


def resume(deployment: Deployment, arguments: Arguments) -> Answer:
    """Let a paused wave go on."""
    return _told(_commands(deployment).resume(arguments.wave, datetime.now(UTC), anyway=arguments.anyway))


def back(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show which tenants would get back what they had; with --yes, let the wave go back."""
    commands = _commands(deployment)
    wave = commands.known(arguments.wave)
    moved = [each.tenant_id for each in commands.waves.members(wave.wave_id) if each.state in _ON_THE_VERSION]
    if not arguments.yes:
        return Answer(
            data={"wave": wave_view(wave), "tenants": moved},
            lines=[
                f"{counted(len(moved), 'tenant')} would go back: {_named(moved)}",
                "nothing was changed; add --yes to let the wave go back",
            ],
        )
    return _told(commands.go_back(arguments.wave, arguments.reason or "sent back by an operator"))


_ON_THE_VERSION = (MemberState.MOVING, MemberState.MOVED, MemberState.GOING_BACK)


def _told(wave: Wave) -> Answer:
    return Answer(data=wave_view(wave), lines=[f"wave {wave.wave_id} of {wave.version} is {wave.state.value}"])


def _is_noteworthy(member: Member) -> bool:
    is_bad = any(each.verdict in (Verdict.WORSE, Verdict.FAILED) for each in member.judged)
    return is_bad or member.state in (MemberState.LEFT_OUT, MemberState.GONE, MemberState.GOING_BACK)


def _rows(wave: Wave, member: Member) -> list[tuple[Any, ...]]:
    first = (member.tenant_id, f"{wave.stages[member.stage]:g} %", member.state.value)
    rows: list[tuple[Any, ...]] = [
        (
            *first,
            each.data_set,
            each.verdict.value,
            None if each.gain is None else f"{each.gain:+.3f}",
            "; ".join(reason for reason in (each.reason, member.reason) if reason),
        )
        for each in member.judged
    ]
    return rows or [(*first, ", ".join(member.data_sets), None, None, member.reason)]


def _drawn(wave: Wave, members: list[Member]) -> list[str]:
    """Return a line for each stage: how many of its data sets are judged, and how."""
    lines = []
    for stage, percent in enumerate(wave.stages):
        of_stage = [each for each in members if each.stage == stage]
        score = tally(of_stage)
        filled = round(BAR_WIDTH * score.judged / score.expected) if score.expected else 0
        mark = ">" if stage == wave.stage and wave.state is WaveState.RUNNING else " "
        bar = "█" * filled + "·" * (BAR_WIDTH - filled)
        lines.append(
            f"{mark} {percent:>5g} %  {bar}  {counted(len(of_stage), 'tenant')}, {score.judged} of "
            f"{counted(score.expected, 'data set')} judged, {score.bad} bad"
        )
    return [f"{wave.version}: {wave.state.value}, since {wave.begun_at:%Y-%m-%d %H:%M} UTC", *lines]


def _hints(wave: Wave) -> list[str]:
    if wave.state is WaveState.PAUSED:
        name = wave.wave_id
        return [
            f"`trainyard wave resume {name}` waits on, `trainyard wave resume {name} --anyway` goes to the next "
            f"stage, `trainyard wave back {name} --yes` goes back"
        ]
    return []


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return (", ".join(names[:NAMED_MAX]) or "none") + more


def _waves(deployment: Deployment) -> Waves:
    return Waves(deployment.store)


def _commands(deployment: Deployment) -> WaveCommands:
    return WaveCommands(policies=deployment.policies, tenants=deployment.tenants, waves=_waves(deployment))
