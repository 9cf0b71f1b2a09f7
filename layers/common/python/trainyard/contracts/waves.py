"""Waves and their tenants, as operators see them."""

from collections.abc import Sequence
from typing import Any

from trainyard.domain.waves import Member, Wave, tally


def wave_view(wave: Wave, members: Sequence[Member] | None = None) -> dict[str, Any]:
    """Return a wave; with its tenants, also how their data sets do."""
    view: dict[str, Any] = {
        "wave_id": wave.wave_id,
        "version": wave.version,
        "state": wave.state.value,
        "stages": list(wave.stages),
        "stage": wave.stage,
        "stage_since": wave.stage_since,
        "tier": wave.tier or None,
        "tag": wave.tag or None,
        "from_version": wave.from_version or None,
        "margin": wave.margin,
        "segment_loss_max": wave.segment_loss_max,
        "worse_percent": wave.worse_percent,
        "stage_hours": wave.stage_hours,
        "soak_hours": wave.soak_hours,
        "begun_at": wave.begun_at,
        "begun_by": wave.begun_by,
        "reason": wave.reason or None,
    }
    if members is not None:
        score = tally(members)
        view |= {
            "tenants": len(members),
            "expected": score.expected,
            "judged": score.judged,
            "compared": score.compared,
            "bad": score.bad,
        }
    return view


def member_view(member: Member) -> dict[str, Any]:
    return {
        "tenant_id": member.tenant_id,
        "stage": member.stage,
        "state": member.state.value,
        "since": member.since,
        "before": dict(member.before),
        "data_sets": list(member.data_sets),
        "judged": [
            {
                "data_set": each.data_set,
                "verdict": each.verdict.value,
                "request_id": each.request_id,
                "metric": each.metric or None,
                "gain": each.gain,
                "reason": each.reason or None,
            }
            for each in member.judged
        ],
        "reason": member.reason or None,
    }
