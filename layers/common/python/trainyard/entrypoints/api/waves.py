"""Waves: another version of an algorithm reaches the tenants in stages; for operators."""

import re
from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query

from trainyard.contracts.api import Cursor, Limit, answers, cursor_text, parse_cursor, results
from trainyard.contracts.api_waves import (
    WAVE_ID,
    WaveAnswer,
    WaveBody,
    WaveChangeBody,
    WaveDetail,
    WaveList,
    WavePlan,
    WaveResumeBody,
    detail_of,
    plan_of,
    wave_of,
)
from trainyard.domain.errors import Malformed
from trainyard.domain.principals import Access
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import (
    NotFound,
    allow_service,
    check_tier,
    limit_calls,
    refuse_parameters_but,
    routes,
)

router = routes()

WAVES = "/v1/service/waves"
WAVES_MAX = 5
"""Of a caller within ten seconds: each reads all tenants, or all of a wave."""


@router.get(WAVES, summary="Waves, newest first", responses=answers(WaveList))
def list_waves(
    limit: Annotated[Limit, Query()] = 20, cursor: Annotated[Cursor | None, Query()] = None
) -> WaveList:
    allow_service(Access.READ_SERVICE)
    refuse_parameters_but("limit", "cursor")
    waves, following = bootstrap.wave_commands().waves.page(limit=limit, after=parse_cursor(cursor))
    return WaveList(items=[wave_of(wave) for wave in waves], next=cursor_text(following))


@router.post(WAVES, summary="Begin a wave, or see whom it would move", responses=results(WavePlan))
def begin_wave(body: WaveBody) -> WavePlan:
    """Its tenants are moved within minutes after that, stage by stage, and train again within their limits."""
    principal = allow_service(Access.CHANGE_SERVICE)
    limit_calls(f"waves#{principal.caller}", WAVES_MAX)
    if body.tier:
        check_tier(body.tier)
    if list(body.stages) != sorted(set(body.stages)):
        raise Malformed("stages: each must be more than the one before")
    commands = bootstrap.wave_commands()
    wave = commands.proposed(body.version, principal.signature, datetime.now(UTC), **body.rules())
    plan = commands.plan(wave)
    if not body.dry_run:
        commands.begin(wave)
    return plan_of(plan, None if body.dry_run else wave)


@router.get(f"{WAVES}/<wave_id>", summary="A wave, and how its tenants do", responses=answers(WaveDetail))
def show_wave(wave_id: str, limit: Annotated[Limit, Query()] = 50) -> WaveDetail:
    """Those of its tenants whose models are worse, or failed, come first."""
    principal = allow_service(Access.READ_SERVICE)
    refuse_parameters_but("limit")
    limit_calls(f"waves#{principal.caller}", WAVES_MAX)
    waves = bootstrap.wave_commands().waves
    wave = waves.get(_id_of(wave_id))
    if wave is None:
        raise NotFound
    return detail_of(wave, list(waves.members(wave_id)), limit)


@router.post(f"{WAVES}/<wave_id>/pause", summary="Let a wave move no more tenants", responses=results(WaveAnswer))
def pause_wave(wave_id: str, body: WaveChangeBody) -> WaveAnswer:
    principal = allow_service(Access.CHANGE_SERVICE)
    return wave_of(
        bootstrap.wave_commands().pause(_known(wave_id), body.reason or f"paused by {principal.signature}")
    )


@router.post(f"{WAVES}/<wave_id>/resume", summary="Let a paused wave go on", responses=results(WaveAnswer))
def resume_wave(wave_id: str, body: WaveResumeBody) -> WaveAnswer:
    allow_service(Access.CHANGE_SERVICE)
    return wave_of(bootstrap.wave_commands().resume(_known(wave_id), datetime.now(UTC), anyway=body.anyway))


@router.post(
    f"{WAVES}/<wave_id>/back", summary="Give a wave's tenants back what they had", responses=results(WaveAnswer)
)
def send_wave_back(wave_id: str, body: WaveChangeBody) -> WaveAnswer:
    """Also after it has ended."""
    principal = allow_service(Access.CHANGE_SERVICE)
    return wave_of(
        bootstrap.wave_commands().go_back(_known(wave_id), body.reason or f"sent back by {principal.signature}")
    )


def _id_of(wave_id: str) -> str:
    if not re.fullmatch(WAVE_ID, wave_id):
        raise NotFound
    return wave_id


def _known(wave_id: str) -> str:
    """Return the id of a wave; raises NotFound where there is none."""
    if bootstrap.wave_commands().waves.get(_id_of(wave_id)) is None:
        raise NotFound
    return wave_id
