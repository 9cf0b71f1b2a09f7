"""Waves: moves tenants to another version of their algorithm in stages, and back where it makes models worse.

Each run does a bounded part, and goes on from what is stored. A tenant is noted as a member, with what it had,
before its settings are changed: so that the way back reaches each one, whatever is interrupted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Protocol

from trainyard.application.api.settings_changes import ChangeState, TenantUpdates
from trainyard.application.ports import Retrainings
from trainyard.domain.aliases import Alias, rolled_back, without_previous
from trainyard.domain.arrivals import RetrainingAsked
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.requests import Request, RequestKind, State
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
from trainyard.persistence.run_history import pasts_of, trainings_from
from trainyard.persistence.store import Store
from trainyard.persistence.waves import Waves

CHANGED_AT_ONCE = 50
"""Tenants whose settings one run begins to change, on the way there or back."""
LOOKED_AT = 200
"""A tenant's last requests; of one that has more, those of each data set are looked for by themselves."""
LOOKED_BACK = timedelta(days=14)
"""From before the beginning of a wave."""
TRIES_MAX = 3
"""Of changing the settings of one tenant, until it is left out; on the way back, until somebody is told."""
TRIED_AGAIN_AFTER = timedelta(minutes=15)
REASON_MAX = 500


class TenantDirectory(Protocol):
    def all(self) -> Iterable[Tenant]: ...
    def get(self, tenant_id: str) -> Tenant | None: ...


class Requests(Protocol):
    def get(self, request_id: str) -> Request | None: ...
    def recent_of_tenant(self, tenant_id: str, *, limit: int) -> list[Request]:
        """Return a tenant's last requests, newest first; may lag."""
        ...

    def of_data_set(self, tenant_id: str, data_set: str, *, since: datetime | None = None) -> list[Request]:
        """Return the requests of a data set that arrived since a time, oldest first; may lag."""
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
    """Tenant → error, with "" for the wave itself; the next run tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveAdvance:
    account_id: str
    store: Store
    waves: Waves
    tenants: TenantDirectory
    requests: Requests
    updates: TenantUpdates
    retrainings: Retrainings
    aliases: Aliases
    versions: ModelVersions

    def run(self, now: datetime, out_of_time: Callable[[], bool] = lambda: False) -> Iterator[Advanced]:
        """Carry each unfinished wave on, and yield what was done; what an operator changes meanwhile counts."""
        for wave in self.waves.unfinished():
            advanced = Advanced(wave=wave, before=wave.state)
            try:
                self._advance(wave, now, out_of_time, advanced)
            except Conflict:  # it has changed just now: the next run goes on from there
                pass
            except Exception as error:  # one failing wave must not affect the others
                advanced.failed[""] = f"{type(error).__name__}: {error}"
            yield advanced

    def _advance(self, wave: Wave, now: datetime, out_of_time: Callable[[], bool], advanced: Advanced) -> None:
        if wave.state is WaveState.PAUSED:
            return
        members = {member.tenant_id: member for member in self.waves.members(wave.wave_id)}
        step = self._go_on if wave.state is WaveState.RUNNING else self._go_back
        # Others come first in each run, so that none starves where time does not suffice.
        turn = int(now.timestamp()) // 300 * 37 % max(len(members), 1)
        for member in [*members.values()][turn:] + [*members.values()][:turn]:
            if out_of_time():
                break
            try:
                changed = step(wave, member, now, advanced)
                if changed != member:
                    members[member.tenant_id] = self.waves.put_member(wave, changed)
            except Exception as error:  # one failing tenant must not affect the others
                advanced.failed[member.tenant_id] = f"{type(error).__name__}: {error}"
        if wave.state is WaveState.RUNNING:
            self._decide(wave, members, now, advanced)
        elif all(each.state in _AT_REST for each in members.values()):
            advanced.wave = self.waves.change(replace(wave, state=WaveState.ROLLED_BACK))

    def _decide(self, wave: Wave, members: dict[str, Member], now: datetime, advanced: Advanced) -> None:
        users = users_of(wave, list(self.tenants.all()))
        missing = [
            tenant for tenant in share_of(wave, users) if tenant.tenant_id not in members and to_move(wave, tenant)
        ]
        decision = decide(wave, list(members.values()), now, is_reached=not missing)
        match decision.next:
            case Next.GO_BACK:
                changed = replace(wave, state=WaveState.GOING_BACK, reason=decision.reason)
            case Next.PAUSE:
                changed = replace(wave, state=WaveState.PAUSED, reason=decision.reason)
            case Next.GO_ON if wave.is_last_stage:
                changed = replace(wave, state=WaveState.DONE)
            case Next.GO_ON:
                changed = replace(wave, stage=wave.stage + 1, stage_since=now, is_waved_on=False)
            case Next.WAIT:
                for tenant in missing[: CHANGED_AT_ONCE - len(advanced.changed)]:
                    self._begin(wave, tenant, now, advanced)
                return
        advanced.wave = self.waves.change(changed)

    def _begin(self, wave: Wave, tenant: Tenant, now: datetime, advanced: Advanced) -> None:
        """Note a tenant as a member, and begin to change its settings."""
        self._check_current(wave)
        member = Member(
            tenant_id=tenant.tenant_id,
            stage=wave.stage,
            state=MemberState.MOVING,
            since=now,
            before=algorithms_of(tenant),
        )
        algorithms = dict.fromkeys(to_move(wave, tenant), wave.version)
        # With the name of the run, before it begins: whoever takes the tenant back waits for its end.
        member = self.waves.put_member(wave, _next_try(wave, member, now))
        self._change(member, algorithms, advanced)

    def _check_current(self, wave: Wave) -> None:
        """Raise Conflict where an operator, or another run, has changed a wave since it was read."""
        current = self.waves.get(wave.wave_id)
        if current is None or current.revision != wave.revision:
            raise Conflict(f"wave {wave.wave_id} has changed")

    def _change_again(
        self, wave: Wave, member: Member, algorithms: Mapping[str, str], now: datetime, advanced: Advanced
    ) -> Member:
        """Begin to change a tenant's settings, unless this run has changed enough; data set → algorithm."""
        if len(advanced.changed) >= CHANGED_AT_ONCE:
            return member
        self._check_current(wave)
        tried = self.waves.put_member(wave, _next_try(wave, member, now))
        self._change(tried, algorithms, advanced)
        return tried

    def _change(self, member: Member, algorithms: Mapping[str, str], advanced: Advanced) -> None:
        payload: dict[str, Any] = {"name": member.tenant_id}
        if "" in algorithms:
            payload["algorithm"] = algorithms[""]
        own = {name: {"algorithm": algorithm} for name, algorithm in algorithms.items() if name}
        payload |= {"data_set_changes": own} if own else {}
        with suppress(Refused):  # an earlier run of this name has ended: the settings say with what
            self.updates.start(member.run, {"tenant": payload})
        advanced.changed.append(member.tenant_id)

    def _outcome_of(self, member: Member) -> tuple[bool, str]:
        """Tell whether the last run that was to change a member's settings goes on, and why it failed."""
        status = self.updates.status(member.run) if member.run else None
        if status is None:
            return False, ""
        return status.state is ChangeState.RUNNING, status.reason or ""

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
            data_sets = self._data_sets(wave, member, tenant)
            self._ask(wave, tenant, data_sets, wave.version)
            return replace(member, state=MemberState.MOVED, data_sets=data_sets)
        goes_on, failure = self._outcome_of(member)
        if goes_on or now < member.since + TRIED_AGAIN_AFTER:
            return member
        if member.tries >= TRIES_MAX:
            reason = f"it could not be moved: {failure or 'its settings do not change'}"[:REASON_MAX]
            return replace(member, state=MemberState.LEFT_OUT, since=now, reason=reason)
        return self._change_again(wave, member, others, now, advanced)

    def _data_sets(self, wave: Wave, member: Member, tenant: Tenant) -> tuple[str, ...]:
        """Return the data sets of a tenant that have a model, and are to train on the version now."""
        pasts = pasts_of(self.store, tenant.tenant_id, RequestKind.TRAINING)
        with_model = [name for name, item in pasts if trainings_from(item).trained is not None]
        return tuple(
            name
            for name in with_model
            if tenant.settings_for(name).algorithm == wave.version and not member.had_before(wave, name)
        )

    def _ask(
        self, wave: Wave, tenant: Tenant, data_sets: Iterable[str], version: str, *, is_forced: bool = False
    ) -> None:
        asked = [
            RetrainingAsked(
                account_id=self.account_id,
                event_id=f"wave {wave.wave_id} {version}",
                tenant_id=tenant.tenant_id,
                data_set=data_set,
                trigger=Trigger.VERSION,
                detail=version,
                is_forced=is_forced,
            )
            for data_set in data_sets
        ]
        if asked:
            self._check_current(wave)
            self.retrainings.ask(asked)  # a run moves no more than CHANGED_AT_ONCE, which spreads them enough

    def _judged(self, wave: Wave, member: Member, tenant: Tenant) -> Member:
        """Judge those of a tenant's data sets that have trained; those that were given another algorithm since do
        not count any more.
        """
        judged = list(member.judged)
        data_sets = [name for name in member.data_sets if tenant.settings_for(name).algorithm == wave.version]
        recent = self.requests.recent_of_tenant(tenant.tenant_id, limit=LOOKED_AT)
        for data_set in data_sets:
            if data_set in {each.data_set for each in judged}:
                continue
            of_data_set = self._requests_of(wave, tenant, data_set, recent)
            verdict = judge(wave, data_set, of_data_set, member.since, self.requests.get)
            judged += [verdict] if verdict else []
        if not data_sets and not judged:
            return replace(member, state=MemberState.LEFT_OUT, reason="somebody has changed its algorithm since")
        counted = {each.data_set for each in judged} | set(data_sets)
        return replace(
            member, judged=tuple(judged), data_sets=tuple(name for name in member.data_sets if name in counted)
        )

    def _requests_of(self, wave: Wave, tenant: Tenant, data_set: str, recent: Sequence[Request]) -> list[Request]:
        """Return the requests of a data set that matter for a wave, newest first."""
        if len(recent) < LOOKED_AT:
            return [request for request in recent if request.data_set == data_set]
        since = wave.begun_at - LOOKED_BACK
        return self.requests.of_data_set(tenant.tenant_id, data_set, since=since)[::-1]

    # --- on the way back ----------------------------------------------------------------------------------------

    def _go_back(self, wave: Wave, member: Member, now: datetime, advanced: Advanced) -> Member:
        if member.state in _AT_REST:
            return member
        tenant = self.tenants.get(member.tenant_id)
        if tenant is None or not is_movable(tenant):
            return replace(member, state=MemberState.GONE, since=now, reason="the tenant was deleted")
        goes_on, failure = self._outcome_of(member)
        if goes_on:
            return member
        is_first = member.state is not MemberState.GOING_BACK
        if is_first:
            member = replace(member, state=MemberState.GOING_BACK, tries=0, reason="")
        # At once: callers should not wait for anything else.
        self._take_out_of_service(wave, member, now)
        restored = to_restore(wave, member, tenant)
        if restored:
            if not is_first and member.tries and now < member.since + TRIED_AGAIN_AFTER:
                return member
            if member.tries >= TRIES_MAX:
                words = f"its settings could not be changed back: {failure or 'they do not change'}"[:REASON_MAX]
                advanced.failed[member.tenant_id] = words
                member = replace(member, reason=words)
            return self._change_again(wave, member, restored, now, advanced)
        trained, running = self._on_the_version(wave, member, tenant)
        # What still waits trains on the version that its data set has by then.
        self._ask_to_train_again(wave, tenant, trained)
        if running:
            return replace(member, reason=f"a training on the version has not ended: {', '.join(running[:3])}")
        if self._serves(wave, member):
            return replace(
                member, reason="a model of the version is live, and there is no earlier one: approve a newer one"
            )
        return replace(member, state=MemberState.BACK, since=now, reason="")

    def _on_the_version(self, wave: Wave, member: Member, tenant: Tenant) -> tuple[list[str], list[str]]:
        """Return which data sets have trained on the version, or do so, and the requests that do."""
        recent = self.requests.recent_of_tenant(tenant.tenant_id, limit=LOOKED_AT)
        pasts = pasts_of(self.store, tenant.tenant_id, RequestKind.TRAINING)
        names = {*member.data_sets, *(name for name, _ in pasts), *(each.data_set for each in recent)}
        trained, running = set(), []
        for name in sorted(names):
            if member.had_before(wave, name):
                continue
            for each in self._requests_of(wave, tenant, name, recent):
                if each.algorithm != wave.version or not each.has_algorithm_of_settings:
                    continue
                if each.state in (State.ADMITTED, State.RUNNING):
                    running.append(each.request_id[:8])
                    trained.add(name)
                elif each.state is State.SUCCEEDED:
                    trained.add(name)
        return sorted(trained), running

    def _ask_to_train_again(self, wave: Wave, tenant: Tenant, data_sets: Sequence[str]) -> None:
        """Ask data sets for a training on the version that they have again, though their data was trained on with
        it before: else their newest model would be of the version that goes back.
        """
        for data_set in data_sets:
            version = tenant.settings_for(data_set).algorithm
            if version != wave.version:
                self._ask(wave, tenant, [data_set], version, is_forced=True)

    def _take_out_of_service(self, wave: Wave, member: Member, now: datetime) -> None:
        for alias in list(self._aliases(wave, member)):
            numbers = (alias.testing, alias.canary, alias.live)
            bad = [each for each in numbers if each is not None and self._is_of_version(wave, alias, each)]
            previous = alias.previous
            if previous is not None and self._is_of_version(wave, alias, previous):
                bad.insert(0, previous)
            if bad:
                self.aliases.change(alias.tenant_id, alias.data_set, partial(_without, bad, now), now)

    def _serves(self, wave: Wave, member: Member) -> bool:
        """Tell whether a version that a wave brought answers calls of a tenant, or is about to."""
        return any(
            number is not None and self._is_of_version(wave, alias, number)
            for alias in self._aliases(wave, member)
            for number in (alias.live, alias.canary, alias.testing, alias.deploying, alias.waiting)
        )

    def _aliases(self, wave: Wave, member: Member) -> Iterator[Alias]:
        """Yield what answers calls of those data sets that had another version before the wave."""
        for alias in self.aliases.of_tenant(member.tenant_id):
            if not member.had_before(wave, alias.data_set):
                yield alias

    def _is_of_version(self, wave: Wave, alias: Alias, number: int) -> bool:
        version = self.versions.get(alias.tenant_id, alias.data_set, number)
        return version is not None and version.algorithm == wave.version


def _without(versions: Sequence[int], now: datetime, alias: Alias) -> Alias:
    """Return an alias without versions, as far as another one can take the place of the live one."""
    for version in versions:
        alias = without_previous(alias, version)
        with suppress(Refused):  # it answers no calls any more, or there is no earlier version
            alias = rolled_back(alias, version, now)
    return alias


def _next_try(wave: Wave, member: Member, now: datetime) -> Member:
    """Return a member whose settings are about to be changed once more, by a run of another name."""
    attempt = f"{wave.wave_id} {wave.state} {member.tries + 1}"
    run = f"{member.tenant_id}-{sha256(attempt.encode()).hexdigest()[:12]}"
    return replace(member, tries=member.tries + 1, run=run, since=now)


_AT_REST = (MemberState.BACK, MemberState.GONE)
