"""Container sets: the versions that have a container on one multi-container endpoint, and how that changes.

An endpoint's containers are fixed by its configuration, so each change of them is an update of the whole endpoint,
which takes minutes, and is undone by SageMaker where a container does not get ready. Therefore versions that come
meanwhile are added together; if that fails, they are added one by one, and only the one that fails is rejected.

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
"""After a call, for so long an endpoint may be described as it was before."""


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
    one_by_one: bool = False
    """Whether adding them together has failed."""
    tried: tuple[str, ...] = ()
    """Hosts that the last call was to add …"""
    configuration: str = ""
    """… by this configuration, which has no members where it was to delete the endpoint; "" where it is known what
    became of the call."""
    called_at: str = ""
    changed_before: str = ""
    """When the endpoint had changed last, as it was seen before that call."""
    configurations: tuple[str, ...] = ()
    """All that have been created, and not deleted yet."""
    removed: tuple[Member, ...] = ()
    """Those that the endpoint may still have, and whose archives are deleted after that."""
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
    configuration: str = ""
    """The one that it has; while it changes, the former one."""
    changed_at: str = ""
    """When it has changed last, in the words of who looked."""
    reason: str = ""
    """Why it failed, or its last update did."""


class Call(StrEnum):
    """What is to be done with an endpoint."""

    NONE = "none"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


def configuration_of(endpoint: str, members: Iterable[Member]) -> str:
    """Return the name of the configuration with which an endpoint has exactly these members."""
    hosts = "\n".join(sorted(member.host for member in members))
    return f"{endpoint}-{sha256(hosts.encode()).hexdigest()[:10]}"


def with_version(containers: ContainerSet, member: Member) -> ContainerSet | None:
    """Return the set with one more member to add; None where it is full. Idempotent."""
    if any(member.host == other.host for other in (*containers.members, *containers.adding)):
        return containers
    if len(containers.members) + len(containers.adding) >= CONTAINERS_MAX:
        return None
    return replace(
        containers,
        adding=(*containers.adding, member),
        removed=_without(containers.removed, member.host),
    )


def without_version(containers: ContainerSet, host: str) -> ContainerSet:
    """Return the set without a version; its endpoint has it until it is updated the next time. Idempotent.

    Why it was rejected is forgotten with it.
    """
    leaving = [member for member in (*containers.members, *containers.adding) if member.host == host]
    return replace(
        containers,
        rejected={other: why for other, why in containers.rejected.items() if other != host},
        members=_without(containers.members, host),
        adding=_without(containers.adding, host),
        removed=(*containers.removed, *leaving),
    )


def believed(containers: ContainerSet, what: Seen, now: datetime) -> Seen:
    """Return what is to be believed of an endpoint: for a while, it may look as before the last call."""
    if _looks_as_before(containers, what) and now - _called_at(containers) < NOTICED_WITHIN:
        return replace(what, status=Status.CHANGING)
    return what


def seen(containers: ContainerSet, endpoint: str, what: Seen) -> ContainerSet:
    """Return the set with what became of the last call, where that can be seen.

    `what` must be what `believed` has returned.
    """
    if what.status is Status.CHANGING:
        return containers
    if containers.configuration:
        is_there = what.status is Status.IN_SERVICE and what.configuration == containers.configuration
        if is_there:
            containers = _joined(containers, containers.tried)
        elif _looks_as_before(containers, what) or what.status is Status.ABSENT:
            pass  # who was going to make the call has died, or the endpoint was deleted
        elif len(containers.tried) > 1:
            containers = replace(containers, one_by_one=True)
        else:
            containers = _rejecting(containers, what.reason or "the endpoint did not get ready with it")
        containers = without_call(containers)
    wanted = _wanted(containers)
    if what.status is Status.IN_SERVICE and what.configuration == configuration_of(endpoint, wanted):
        containers = _joined(containers, [member.host for member in wanted])  # a call that was not noted
    return containers if containers.adding else replace(containers, one_by_one=False)


def next_call(containers: ContainerSet, endpoint: str, what: Seen) -> tuple[Call, tuple[Member, ...]]:
    """Return what is to be done with an endpoint, and the members that it is to have then.

    The set must be one that `seen` has returned.
    """
    wanted = _wanted(containers)
    if what.status is Status.CHANGING:
        return Call.NONE, wanted
    if what.status is Status.ABSENT:
        return (Call.CREATE if wanted else Call.NONE), wanted
    if what.status is Status.FAILED or not wanted:
        return Call.DELETE, ()
    is_there = what.configuration == configuration_of(endpoint, wanted)
    return (Call.NONE if is_there else Call.UPDATE), wanted


def called(
    containers: ContainerSet, endpoint: str, members: Iterable[Member], what: Seen, now: datetime
) -> ContainerSet:
    """Return the set with a call that is going to give the endpoint these members, or without any to delete it.

    `what` is how it is before.
    """
    members, new = tuple(members), {member.host for member in containers.adding}
    name = configuration_of(endpoint, members)
    others = tuple(other for other in containers.configurations if other != name)
    return replace(
        containers,
        tried=tuple(member.host for member in members if member.host in new),
        configuration=name,
        called_at=now.isoformat(),
        changed_before=what.changed_at,
        configurations=(*others, name) if members else others,
    )


def without_call(containers: ContainerSet) -> ContainerSet:
    """Return the set without its last call: it was not made, or it is known what became of it. Idempotent."""
    return replace(containers, tried=(), configuration="", called_at="", changed_before="")


def unused_configurations(containers: ContainerSet, what: Seen) -> tuple[str, ...]:
    """Return the configurations that an endpoint needs no more: it keeps the one that it has."""
    if what.status not in (Status.IN_SERVICE, Status.ABSENT) or containers.configuration:
        return ()
    return tuple(name for name in containers.configurations if name != what.configuration)


def without_configurations(containers: ContainerSet, names: Iterable[str]) -> ContainerSet:
    """Return the set without configurations that were deleted. Idempotent."""
    deleted = set(names)
    left_over = tuple(name for name in containers.configurations if name not in deleted)
    return replace(containers, configurations=left_over)


def leftover(containers: ContainerSet, endpoint: str, what: Seen) -> tuple[Member, ...]:
    """Return the members whose archives the endpoint does not need any more."""
    call, _ = next_call(containers, endpoint, what)
    is_at_rest = what.status is not Status.CHANGING and call is Call.NONE
    return containers.removed if is_at_rest else ()


def without_leftover(containers: ContainerSet, members: Iterable[Member]) -> ContainerSet:
    """Return the set without members whose archives were deleted. Idempotent."""
    hosts = {member.host for member in members}
    return replace(containers, removed=tuple(each for each in containers.removed if each.host not in hosts))


def _looks_as_before(containers: ContainerSet, what: Seen) -> bool:
    return containers.configuration != "" and what.changed_at == containers.changed_before


def _called_at(containers: ContainerSet) -> datetime:
    return datetime.fromisoformat(containers.called_at)


def _wanted(containers: ContainerSet) -> tuple[Member, ...]:
    return (*containers.members, *containers.adding[: 1 if containers.one_by_one else None])


def _joined(containers: ContainerSet, hosts: Iterable[str]) -> ContainerSet:
    """Return the set with those of the hosts as members that are still to be added."""
    hosts = set(hosts)
    return replace(
        containers,
        members=(*containers.members, *(each for each in containers.adding if each.host in hosts)),
        adding=tuple(each for each in containers.adding if each.host not in hosts),
    )


def _rejecting(containers: ContainerSet, reason: str) -> ContainerSet:
    """Return the set without the host that was tried alone, if it was one."""
    for host in containers.tried:
        rejected = {**containers.rejected, host: reason[:REASON_MAX]}
        latest = dict(list(rejected.items())[-REJECTED_MAX:])
        containers = replace(without_version(containers, host), rejected=latest)
    return containers


def _without(members: tuple[Member, ...], host: str) -> tuple[Member, ...]:
    return tuple(member for member in members if member.host != host)
