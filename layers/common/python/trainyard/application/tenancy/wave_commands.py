"""What an operator does about waves: begins, pauses and resumes them, and lets them go back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import uuid4

from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.tenants import Tenant
from trainyard.domain.waves import UNFINISHED, Wave, WaveState, check_stages, share_of, to_move, users_of
from trainyard.persistence.policies import Policies
from trainyard.persistence.waves import Waves


class TenantsOfAll(Protocol):
    def all(self) -> Iterable[Tenant]: ...


class StagePlan(NamedTuple):
    """What a stage of a wave would do, as the tenants are now."""

    percent: float
    tenants: list[str]
    """That it would move, in its order; those of earlier stages are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveCommands:
    policies: Policies
    tenants: TenantsOfAll
    waves: Waves

    def proposed(self, version: str, by: str, now: datetime, **rules: object) -> Wave:
        """Return a wave that is not begun; `rules` are fields of Wave. Raises Refused for what cannot be."""
        algorithm = self.policies.current().algorithm(version)
        wave = Wave(
            wave_id=f"{now:%Y%m%d-%H%M%S}-{uuid4().hex[:6]}",
            version=algorithm.name,
            state=WaveState.RUNNING,
            begun_at=now,
            begun_by=by,
            stage_since=now,
            **rules,  # type: ignore[arg-type]  # the callers' schemas have checked them
        )
        if wave.from_version:
            if self.policies.current().algorithm(wave.from_version).name == wave.version:
                raise Refused(f"from {wave.from_version} to {wave.version} nothing would change")
            if wave.from_version.partition("@")[0] != wave.family:
                raise Refused(f"{wave.from_version} is not a version of {wave.family}")
        if wave.tier and self.policies.current().tier(wave.tier) is None:
            raise Refused(f"there is no tier {wave.tier!r}")
        check_stages(wave.stages)
        return wave

    def plan(self, wave: Wave) -> list[StagePlan]:
        """Return whom each stage of a wave would move; raises Refused where there is nobody."""
        users = users_of(wave, list(self.tenants.all()))
        moved: set[str] = set()
        plans = []
        for stage, percent in enumerate(wave.stages):
            movers = [
                tenant.tenant_id
                for tenant in share_of(wave, users, stage)
                if tenant.tenant_id not in moved and to_move(wave, tenant)
            ]
            moved.update(movers)
            plans.append(StagePlan(percent, movers))
        if not moved:
            raise Refused(
                f"no tenant{_whose(wave)} has another version of {wave.family} than {wave.version}: nobody to move"
            )
        return plans

    def begin(self, wave: Wave) -> None:
        """Begin a wave; raises Refused while another one of its algorithm has not ended."""
        self.plan(wave)
        self.waves.add(wave)

    def pause(self, wave_id: str, why: str) -> Wave:
        """Let no more tenants be moved. Idempotent; raises Refused, also where it has changed just now."""
        wave = self.known(wave_id)
        if wave.state is WaveState.PAUSED:
            return wave
        return self._changed(wave, (WaveState.RUNNING,), state=WaveState.PAUSED, reason=why)

    def resume(self, wave_id: str, now: datetime, *, anyway: bool = False) -> Wave:
        """Let a paused wave go on; its stage has its time anew. With `anyway`, the stage is over although too few
        data sets were judged.
        """
        wave = self.known(wave_id)
        if wave.state is WaveState.RUNNING and (wave.is_waved_on or not anyway):
            return wave
        states = (WaveState.PAUSED, WaveState.RUNNING)
        return self._changed(wave, states, state=WaveState.RUNNING, reason="", stage_since=now, is_waved_on=anyway)

    def go_back(self, wave_id: str, why: str) -> Wave:
        """Give its tenants back the versions that they had; also after it has ended. Idempotent."""
        wave = self.known(wave_id)
        if wave.state in (WaveState.GOING_BACK, WaveState.ROLLED_BACK):
            return wave
        states = (WaveState.RUNNING, WaveState.PAUSED, WaveState.DONE)
        return self._changed(wave, states, state=WaveState.GOING_BACK, reason=why)

    def known(self, wave_id: str) -> Wave:
        """Return a wave; raises Refused where there is none of that id."""
        wave = self.waves.get(wave_id)
        if wave is None:
            raise Refused(f"there is no wave {wave_id!r}; `trainyard wave list` shows them")
        return wave

    def _changed(self, wave: Wave, states: Sequence[WaveState], **changes: object) -> Wave:
        if wave.state not in states:
            raise Refused(f"wave {wave.wave_id} is {wave.state}: it cannot be changed so")
        changed = replace(wave, **changes)  # type: ignore[arg-type]
        try:
            return self.waves.reopen(changed) if wave.state not in UNFINISHED else self.waves.change(changed)
        except Conflict as conflict:
            raise Refused(f"wave {wave.wave_id} has changed just now: look at it, and try again") from conflict


def _whose(wave: Wave) -> str:
    of_tier = f" of tier {wave.tier}" if wave.tier else ""
    return of_tier + (f" with tag {wave.tag}" if wave.tag else "")
