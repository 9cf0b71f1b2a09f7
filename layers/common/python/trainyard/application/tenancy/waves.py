"""Waves: moves tenants to another version of their algorithm in stages, and back where it makes models worse.

Each run does a bounded part, and goes on from what is stored. A tenant is noted as a member, with what it had,
before its settings are changed: so that the way back reaches each one, whatever is interrupted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Protocol

from trainyard.application.ports import Retrainings
from trainyard.domain.aliases import Alias, rolled_back
from trainyard.domain.arrivals import RetrainingAsked
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.requests import TERMINAL, Request, RequestKind
from trainyard.domain.retraining import Trigger
from trainyard.domain.tenants import Tenant
from trainyard.domain.waves import (
    Member,
    MemberState,
    Next,
    Wave,
    WaveState,
    algorithms_of,
    decide,
    is_movable,
    judge,
    share_of,
    to_move,
    to_restore,
    users_of,
)
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions
from trainyard.persistence.run_history import pasts_of
from trainyard.persistence.store import Store
from trainyard.persistence.waves import Waves

CHANGED_AT_ONCE = 50
"""Tenants whose settings one run begins to change."""
LOOKED_AT = 200
"""A tenant's last requests, among which its trainings before and after the change are looked for."""
TRIES_MAX = 3
"""Of changing the settings of one tenant."""
TRIED_AGAIN_AFTER = timedelta(minutes=15)
"""A run that changes settings has ended by then."""
REASON_MAX = 500


class TenantUpdates(Protocol):
    """The state machine that changes tenants."""

    def start(self, name: str, payload: Mapping[str, Any]) -> None:
        """Start a run of a name; the same run for the same payload. Raises Refused for another payload."""
        ...


class TenantDirectory(Protocol):
    def all(self) -> Iterable[Tenant]: ...
    def get(self, tenant_id: str) -> Tenant | None: ...


class RecentRequests(Protocol):
    def recent_of_tenant(self, tenant_id: str, *, limit: int) -> list[Request]:
        """Return a tenant's last requests, newest first; may lag."""
        ...


@dataclass(slots=True, kw_only=True)
class Advanced:
    """What one run has done for a wave."""

    wave: Wave
    before: WaveState
    """The state that it had."""
    changed: list[str] = field(default_factory=list)
    """Tenants whose settings it began to change."""
    failed: dict[str, str] = field(default_factory=dict)
    """Tenant → error; the next run tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveAdvance:
    account_id: str
    store: Store
    waves: Waves
    tenants: TenantDirectory
    requests: RecentRequests
    updates: TenantUpdates
    retrainings: Retrainings
    aliases: Aliases
    versions: ModelVersions

    def run(self, now: datetime, out_of_time: Callable[[], bool] = lambda: False) -> list[Advanced]:
        """Carry all unfinished waves on; what an operator changes meanwhile counts."""
        return [self._advance(wave, now, out_of_time) for wave in self.waves.unfinished()]

    def _advance(self, wave: Wave, now: datetime, out_of_time: Callable[[], bool]) -> Advanced:
        advanced = Advanced(wave=wave, before=wave.state)
        if wave.state is WaveState.PAUSED:
            return advanced
        members = {member.tenant_id: member for member in self.waves.members(wave.wave_id)}
        step = self._go_on if wave.state is WaveState.RUNNING else self._go_back
        for member in list(members.values()):
            if out_of_time():
                return advanced
            try:
                changed = step(wave, member, now, advanced)
                if changed != member:
                    self.waves.put_member(wave, changed)
                    members[member.tenant_id] = changed
            except Exception as error:  # one failing tenant must not affect the others
                advanced.failed[member.tenant_id] = f"{type(error).__name__}: {error}"
        try:
            if wave.state is WaveState.RUNNING:
                self._decide(wave, members, now, advanced)
            elif all(each.state in _AT_REST for each in members.values()):
                advanced.wave = self.waves.change(replace(wave, state=WaveState.ROLLED_BACK))
        except Conflict:  # an operator has changed it just now: the next run goes on from there
            return advanced
        return advanced

    def _decide(self, wave: Wave, members: dict[str, Member], now: datetime, advanced: Advanced) -> None:
        users = users_of(wave, list(self.tenants.all()))
        missing = [
            tenant for tenant in share_of(wave, users) if tenant.tenant_id not in members and to_move(wave, tenant)
        ]
        decision = decide(wave, list(members.values()), now, is_reached=not missing)
        match decision.next:
            case Next.GO_BACK:
                advanced.wave = self.waves.change(
                    replace(wave, state=WaveState.GOING_BACK, reason=decision.reason)
                )
            case Next.PAUSE:
                advanced.wave = self.waves.change(replace(wave, state=WaveState.PAUSED, reason=decision.reason))
            case Next.GO_ON if wave.is_last_stage:
                advanced.wave = self.waves.change(replace(wave, state=WaveState.DONE))
            case Next.GO_ON:
                advanced.wave = self.waves.change(
                    replace(wave, stage=wave.stage + 1, stage_since=now, is_waved_on=False)
                )
            case Next.WAIT:
                for tenant in missing[:CHANGED_AT_ONCE]:
                    self._begin(wave, tenant, now, advanced)

    def _begin(self, wave: Wave, tenant: Tenant, now: datetime, advanced: Advanced) -> None:
        """Note a tenant as a member, and begin to change its settings."""
        # An operator may have stopped the wave since it was read: then nobody is moved any more.
        current = self.waves.get(wave.wave_id)
        if current is None or current.revision != wave.revision:
            raise Conflict("the wave has changed")
        member = Member(
            tenant_id=tenant.tenant_id,
            stage=wave.stage,
            state=MemberState.MOVING,
            since=now,
            before=algorithms_of(tenant),
        )
        self.waves.put_member(wave, member)
        algorithms = dict.fromkeys(to_move(wave, tenant), wave.version)
        changed = self._changed(wave, member, algorithms, now, advanced)
        self.waves.put_member(wave, changed)

    def _changed(
        self, wave: Wave, member: Member, algorithms: Mapping[str, str], now: datetime, advanced: Advanced
    ) -> Member:
        """Begin to change a tenant's settings; data set → algorithm."""
        payload: dict[str, Any] = {"name": member.tenant_id}
        if "" in algorithms:
            payload["algorithm"] = algorithms[""]
        own = {name: {"algorithm": algorithm} for name, algorithm in algorithms.items() if name}
        payload |= {"data_set_changes": own} if own else {}
        attempt = f"{wave.wave_id} {wave.state} {member.tries + 1}"
        name = f"{member.tenant_id}-{sha256(attempt.encode()).hexdigest()[:12]}"
        with suppress(Refused):  # an earlier run of this name has ended: the settings say with what
            self.updates.start(name, {"tenant": payload})
        advanced.changed.append(member.tenant_id)
        return replace(member, tries=member.tries + 1, since=now)

    # --- on the way there ---------------------------------------------------------------------------------------

    def _go_on(self, wave: Wave, member: Member, now: datetime, advanced: Advanced) -> Member:
        is_judged = member.state is MemberState.MOVED and len(member.judged) >= len(member.data_sets)
        if is_judged or member.state in (*_AT_REST, MemberState.LEFT_OUT):
            return member
        tenant = self.tenants.get(member.tenant_id)
        if tenant is None or not is_movable(tenant):
            return replace(member, state=MemberState.GONE, since=now, reason="the tenant was deleted")
        if member.state is MemberState.MOVING:
            return self._moving(wave, member, tenant, now, advanced)
        return self._judged(wave, member, tenant)

    def _moving(self, wave: Wave, member: Member, tenant: Tenant, now: datetime, advanced: Advanced) -> Member:
        others = dict.fromkeys(to_move(wave, tenant), wave.version)
        if not others:
            data_sets = self._data_sets(wave, tenant)
            self._ask(wave, tenant, data_sets, wave.version)
            return replace(member, state=MemberState.MOVED, data_sets=data_sets)
        if now < member.since + TRIED_AGAIN_AFTER:
            return member
        if member.tries >= TRIES_MAX:
            reason = (
                tenant.operation.failure if tenant.operation and tenant.operation.failure else "see its changes"
            )
            return replace(
                member, state=MemberState.LEFT_OUT, since=now, reason=f"it could not be moved: {reason}"[:500]
            )
        return self._changed(wave, member, others, now, advanced)

    def _data_sets(self, wave: Wave, tenant: Tenant) -> tuple[str, ...]:
        """Return the data sets of a tenant that have trained before, and train on the version now."""
        pasts = pasts_of(self.store, tenant.tenant_id, RequestKind.TRAINING)
        return tuple(name for name, _ in pasts if tenant.settings_for(name).algorithm == wave.version)

    def _ask(self, wave: Wave, tenant: Tenant, data_sets: Sequence[str], version: str) -> None:
        asked = [
            RetrainingAsked(
                account_id=self.account_id,
                event_id=f"wave {wave.wave_id} {version}",
                tenant_id=tenant.tenant_id,
                data_set=data_set,
                trigger=Trigger.VERSION,
                detail=version,
            )
            for data_set in data_sets
        ]
        if asked:
            self.retrainings.ask(asked)  # a run moves no more than CHANGED_AT_ONCE, which spreads them enough

    def _judged(self, wave: Wave, member: Member, tenant: Tenant) -> Member:
        """Judge those of a tenant's data sets that have trained; those that were given another algorithm since do
        not count any more.
        """
        requests = self.requests.recent_of_tenant(tenant.tenant_id, limit=LOOKED_AT)
        judged = list(member.judged)
        data_sets = [name for name in member.data_sets if tenant.settings_for(name).algorithm == wave.version]
        for data_set in data_sets:
            if data_set in {each.data_set for each in judged}:
                continue
            of_data_set = [request for request in requests if request.data_set == data_set]
            verdict = judge(wave, data_set, of_data_set, member.since)
            judged += [verdict] if verdict else []
        if not data_sets and not judged:
            return replace(member, state=MemberState.LEFT_OUT, reason="somebody has changed its algorithm since")
        counted = {each.data_set for each in judged} | set(data_sets)
        return replace(
            member, judged=tuple(judged), data_sets=tuple(name for name in member.data_sets if name in counted)
        )

    # --- on the way back ----------------------------------------------------------------------------------------

    def _go_back(self, wave: Wave, member: Member, now: datetime, advanced: Advanced) -> Member:
        if member.state in _AT_REST:
            return member
        tenant = self.tenants.get(member.tenant_id)
        if tenant is None or not is_movable(tenant):
            return replace(member, state=MemberState.GONE, since=now, reason="the tenant was deleted")
        if member.state is not MemberState.GOING_BACK:
            member = replace(member, state=MemberState.GOING_BACK, tries=0, since=now - TRIED_AGAIN_AFTER)
        restored = to_restore(wave, member, tenant)
        if restored:
            is_due = now >= member.since + TRIED_AGAIN_AFTER
            return self._changed(wave, member, restored, now, advanced) if is_due else member
        requests = self.requests.recent_of_tenant(tenant.tenant_id, limit=LOOKED_AT)
        of_version = [each for each in requests if each.algorithm == wave.version and each.overrides is None]
        self._take_out_of_service(wave, tenant, now)
        self._train_on_the_version_before(wave, member, tenant, of_version)
        if any(each.state not in TERMINAL for each in of_version):
            return replace(member, reason="a training on the version has not ended")
        if self._serves(wave, tenant):
            return replace(
                member, reason="a model of the version is live, and there is no earlier one: approve a newer one"
            )
        return replace(member, state=MemberState.BACK, since=now, reason="")

    def _train_on_the_version_before(
        self, wave: Wave, member: Member, tenant: Tenant, of_version: Sequence[Request]
    ) -> None:
        """Ask each data set that trained on the version, or is about to, for a training on what it had before.

        It takes the place of one that still waits; of one that runs, it is the newer one.
        """
        affected = sorted({each.data_set for each in of_version})
        for data_set in affected:
            version = tenant.settings_for(data_set).algorithm
            if version != wave.version:
                self._ask(wave, tenant, [data_set], version)

    def _take_out_of_service(self, wave: Wave, tenant: Tenant, now: datetime) -> None:
        for alias in list(self.aliases.of_tenant(tenant.tenant_id)):
            for number in (alias.testing, alias.canary, alias.live):
                if number is not None and self._is_of_version(wave, alias, number):
                    self._roll_back(alias, number, now)

    def _roll_back(self, alias: Alias, number: int, now: datetime) -> None:
        def change(alias: Alias) -> Alias:
            try:
                return rolled_back(alias, number, now)
            except Refused:  # it is not in service any more
                return alias

        self.aliases.change(alias.tenant_id, alias.data_set, change, now)

    def _serves(self, wave: Wave, tenant: Tenant) -> bool:
        """Tell whether a version that a wave brought answers calls of a tenant, or is about to."""
        return any(
            number is not None and self._is_of_version(wave, alias, number)
            for alias in self.aliases.of_tenant(tenant.tenant_id)
            for number in (alias.live, alias.canary, alias.testing, alias.deploying, alias.waiting)
        )

    def _is_of_version(self, wave: Wave, alias: Alias, number: int) -> bool:
        version = self.versions.get(alias.tenant_id, alias.data_set, number)
        return version is not None and version.algorithm == wave.version


_AT_REST = (MemberState.BACK, MemberState.GONE)
