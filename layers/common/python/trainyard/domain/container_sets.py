"""Container sets: the versions that have a container on one multi-container endpoint, and how that changes.

An endpoint's containers are fixed by its configuration, so each change of them is an update of the whole endpoint,
which takes minutes, and is undone by SageMaker where a container does not get ready. Therefore versions that come
meanwhile are added together; if that fails, they are suspects, and are added in halves of halves, after those that
came later, until the one that fails alone is rejected.

Each step looks at the endpoint, and decides about one call, which is noted before it is made. It depends on
nothing but the set and what was seen, so whoever needs the endpoint next carries on what a dead run has begun.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256

CONTAINERS_MAX = 15
"""Of one endpoint (CreateModelInput.Containers)."""
REJECTED_MAX = 30
"""Rejections that are remembered, the latest ones."""
REASON_MAX = 300
NOTICED_WITHIN = timedelta(minutes=5)
"""After a call, an endpoint may be described as before for so long."""
TRIED_AGAIN_AFTER = timedelta(minutes=15)
"""A call that failed through nobody's fault who is to be added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A version that has a container."""

    host: str
    """The container's host name; no two versions have the same."""
    tenant_id: str
    data_set: str
    version: int
    image_uri: str
    archive: str
    """The key of its model in the bucket of the shared endpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSet:
    """What an endpoint is to have, and what was tried last."""

    members: tuple[Member, ...] = ()
    """Those that the endpoint has had."""
    adding: tuple[Member, ...] = ()
    """Those that it is to get."""
    placed: tuple[Member, ...] = ()
    """Those whose archives were copied, and that are not to be added yet."""
    leaving: tuple[Member, ...] = ()
    """Those that the endpoint may still have, and whose archives are deleted after that."""
    suspects: tuple[str, ...] = ()
    """Hosts of which one at least does not get ready."""
    suspects_at_once: int = 0
    """How many of them are added together; 0 for all."""
    tried: tuple[str, ...] = ()
    """Hosts that the last call was to add …"""
    configuration: str = ""
    """… by this configuration, which has no members where it was to delete the endpoint; "" where it is known what
    became of the call."""
    called_at: datetime | None = None
    changed_before: datetime | None = None
    """When the endpoint had changed last, as it was seen before that call."""
    configurations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of those that may have been created, and not deleted yet → their hosts."""
    failed_at: datetime | None = None
    """When a call failed through nobody's fault who was to be added …"""
    failure: str = ""
    """… and why."""
    rejected: Mapping[str, str] = field(default_factory=dict)
    """Hosts that could not be added → why."""
    revision: str = ""
    """What it was written as, for conditions of writes; "" before that."""


class Status(StrEnum):
    """What an endpoint is doing."""

    ABSENT = "ABSENT"
    CHANGING = "CHANGING"
    IN_SERVICE = "IN_SERVICE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An endpoint, as it was seen."""

    status: Status
    serves: bool = False
    """Whether it answers calls now, with the containers that it has had."""
    configuration: str = ""
    """The one that it has; while it changes, the former one; "" where it is a mix of two."""
    changed_at: datetime | None = None
    """When it has changed last; None where there is none."""
    reason: str = ""
    """Why it failed, or its last update did."""


class Call(StrEnum):
    """What is to be done with an endpoint."""

    NONE = "none"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


def configuration_of(endpoint: str, members: Iterable[Member], now: datetime) -> str:
    """Return the name of a configuration with these members; no name is used twice."""
    whole = "\n".join([now.isoformat(), *sorted(member.host for member in members)])
    return f"{endpoint}-{sha256(whole.encode()).hexdigest()[:10]}"


def with_archive(containers: ContainerSet, member: Member) -> ContainerSet:
    """Return the set with a version whose archive is going to be copied. Idempotent."""
    if _has(containers.members + containers.adding + containers.placed, member.host):
        return containers
    placed = (*containers.placed, member)
    return replace(containers, placed=placed, leaving=_without(containers.leaving, member.host))


def with_version(containers: ContainerSet, member: Member) -> ContainerSet | None:
    """Return the set with one more member to add; None where it is full. Idempotent."""
    if _has(containers.members + containers.adding, member.host):
        return containers
    if len(containers.members) + len(containers.adding) >= CONTAINERS_MAX:
        return None
    return replace(
        containers,
        adding=(*containers.adding, member),
        placed=_without(containers.placed, member.host),
        leaving=_without(containers.leaving, member.host),
    )


def without_version(containers: ContainerSet, host: str) -> ContainerSet:
    """Return the set without a version; its endpoint has it until it is updated the next time. Idempotent.

    Why it was rejected is forgotten with it.
    """
    everybody = containers.members + containers.adding + containers.placed
    return replace(
        containers,
        members=_without(containers.members, host),
        adding=_without(containers.adding, host),
        placed=_without(containers.placed, host),
        leaving=(*containers.leaving, *(member for member in everybody if member.host == host)),
        suspects=tuple(other for other in containers.suspects if other != host),
        rejected={other: why for other, why in containers.rejected.items() if other != host},
    )


def believed(containers: ContainerSet, what: Seen, now: datetime) -> Seen:
    """Return what is to be believed of an endpoint: for a while, it may look as before the last call."""
    called_at = containers.called_at
    if called_at is not None and now - called_at < NOTICED_WITHIN and _looks_as_before(containers, what):
        return replace(what, status=Status.CHANGING)
    return what


def seen(containers: ContainerSet, what: Seen, now: datetime) -> ContainerSet:
    """Return the set with what became of the last call, where that can be seen.

    `what` must be what `believed` has returned.
    """
    if what.status is Status.CHANGING:
        return containers
    if containers.configuration:
        if what.status is Status.IN_SERVICE and what.configuration == containers.configuration:
            containers = without_call(containers, containers.configuration)
        elif _looks_as_before(containers, what) or what.status is Status.ABSENT:
            # Who was going to make the call has died, or the endpoint was deleted.
            containers = without_call(containers, containers.configuration)
        else:
            containers = failed(containers, what.reason or "the endpoint did not get ready with it", now)
    if what.status is Status.IN_SERVICE:
        containers = _joined(containers, containers.configurations.get(what.configuration, ()))
    return containers if containers.suspects else replace(containers, suspects_at_once=0)


def failed(containers: ContainerSet, reason: str, now: datetime) -> ContainerSet:
    """Return the set after its last call has failed: who was tried alone is rejected, others are suspects."""
    tried = containers.tried
    containers = without_call(containers, containers.configuration)
    if not tried or "capacity" in reason.lower():
        return replace(containers, failed_at=now, failure=reason[:REASON_MAX])
    if len(tried) > 1:
        others = tuple(host for host in containers.suspects if host not in tried)
        return replace(containers, suspects=(*tried, *others), suspects_at_once=len(tried) // 2)
    (host,) = tried
    why = f"the update of its endpoint failed: {reason}"[:REASON_MAX]
    rejected = dict([*containers.rejected.items(), (host, why)][-REJECTED_MAX:])
    return replace(without_version(containers, host), rejected=rejected, suspects_at_once=0)


def next_call(containers: ContainerSet, what: Seen, now: datetime) -> tuple[Call, tuple[Member, ...]]:
    """Return what is to be done with an endpoint, and the members that it is to have then.

    The set must be one that `seen` has returned.
    """
    wanted = _wanted(containers)
    if what.status is Status.CHANGING:
        return Call.NONE, wanted
    if what.status is Status.ABSENT:  # what answered before comes back first
        call, wanted = Call.CREATE if wanted else Call.NONE, containers.members or wanted
    elif what.status is Status.FAILED or not wanted:
        call, wanted = Call.DELETE, ()
    else:
        hosts = containers.configurations.get(what.configuration)
        is_there = hosts is not None and set(hosts) == {member.host for member in wanted}
        call = Call.NONE if is_there else Call.UPDATE
    waits = containers.failed_at is not None and now - containers.failed_at < TRIED_AGAIN_AFTER
    return (Call.NONE if waits else call), wanted


def called(
    containers: ContainerSet, endpoint: str, members: Iterable[Member], what: Seen, now: datetime
) -> ContainerSet:
    """Return the set with a call that is going to give the endpoint these members, or without any to delete it.

    `what` is how it is before.
    """
    members, new = tuple(members), {member.host for member in containers.adding}
    name, hosts = configuration_of(endpoint, members, now), tuple(member.host for member in members)
    return replace(
        containers,
        tried=tuple(host for host in hosts if host in new),
        configuration=name,
        called_at=now,
        changed_before=what.changed_at,
        configurations={**containers.configurations, name: hosts},
        failed_at=None,
        failure="",
    )


def without_call(containers: ContainerSet, name: str) -> ContainerSet:
    """Return the set without its last call, if that was to give the configuration of this name. Idempotent."""
    if containers.configuration != name:
        return containers
    return replace(containers, tried=(), configuration="", called_at=None, changed_before=None)


def unused_configurations(containers: ContainerSet, what: Seen) -> tuple[str, ...]:
    """Return the configurations that an endpoint needs no more: it keeps the one that it has."""
    is_mixed = what.status is Status.IN_SERVICE and not what.configuration
    if what.status not in (Status.IN_SERVICE, Status.ABSENT) or is_mixed or containers.configuration:
        return ()
    return tuple(name for name in containers.configurations if name != what.configuration)


def without_configurations(containers: ContainerSet, names: Iterable[str]) -> ContainerSet:
    """Return the set without configurations that were deleted. Idempotent."""
    deleted = set(names)
    others = {name: hosts for name, hosts in containers.configurations.items() if name not in deleted}
    return replace(containers, configurations=others)


def unneeded(containers: ContainerSet, what: Seen) -> tuple[Member, ...]:
    """Return the members whose archives the endpoint does not need any more."""
    if what.status is Status.ABSENT and not containers.configuration:
        return containers.leaving
    hosts = containers.configurations.get(what.configuration)
    if what.status is not Status.IN_SERVICE or hosts is None or containers.configuration:
        return ()
    return tuple(member for member in containers.leaving if member.host not in hosts)


def without_leaving(containers: ContainerSet, members: Iterable[Member]) -> ContainerSet:
    """Return the set without members whose archives were deleted. Idempotent."""
    hosts = {member.host for member in members}
    return replace(containers, leaving=tuple(each for each in containers.leaving if each.host not in hosts))


def _looks_as_before(containers: ContainerSet, what: Seen) -> bool:
    """Tell whether an endpoint has not changed since before the last call, or an older look at it is told."""
    if not containers.configuration or containers.changed_before is None or what.changed_at is None:
        return containers.configuration != "" and containers.changed_before == what.changed_at
    return what.changed_at <= containers.changed_before


def _wanted(containers: ContainerSet) -> tuple[Member, ...]:
    """Return what the endpoint is to have next: who nobody suspects first, and then some of the suspects."""
    fresh = tuple(member for member in containers.adding if member.host not in containers.suspects)
    if fresh:
        return (*containers.members, *fresh)
    return (*containers.members, *containers.adding[: containers.suspects_at_once or None])


def _joined(containers: ContainerSet, hosts: Iterable[str]) -> ContainerSet:
    """Return the set with those hosts as members that are to be added."""
    hosts = set(hosts)
    joining = tuple(member for member in containers.adding if member.host in hosts)
    return replace(
        containers,
        members=containers.members + joining,
        adding=tuple(member for member in containers.adding if member not in joining),
        suspects=tuple(host for host in containers.suspects if host not in hosts),
    )


def _has(members: tuple[Member, ...], host: str) -> bool:
    return any(member.host == host for member in members)


def _without(members: tuple[Member, ...], host: str) -> tuple[Member, ...]:
    return tuple(member for member in members if member.host != host)
