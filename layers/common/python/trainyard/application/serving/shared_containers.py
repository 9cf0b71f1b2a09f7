"""Shared containers: versions that have a container each on one multi-container endpoint.

Which versions these are is a set in the store (`domain/container_sets.py`). Everybody who needs the endpoint tends
it: looks at it, notes what became of the last call, and makes the next one. So what a run that died has begun is
carried on by whoever comes next, at the latest by the timer.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Protocol

from trainyard.application.serving.ports import EndpointState, OwnEndpoint, Response, ServedAs
from trainyard.domain.container_sets import (
    CONTAINERS_MAX,
    Call,
    ContainerSet,
    Member,
    Seen,
    believed,
    called,
    failed,
    next_call,
    seen,
    unneeded,
    unused_configurations,
    with_archive,
    with_version,
    without_call,
    without_configurations,
    without_leaving,
    without_version,
)
from trainyard.domain.errors import InProgress, Refused
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.tenants import Tenant
from trainyard.persistence.container_sets import ContainerSets

SEPARATOR = "--"
"""Between the tenant's id and the rest of a host name: ids cannot have it, so no pattern takes two tenants'."""


class ContainerEndpoint(Protocol):
    """The endpoint, as the platform has it."""

    @property
    def name(self) -> str: ...

    def look(self) -> Seen: ...

    def archive_of(self, version: ModelVersion) -> str:
        """Return the key that a version's archive gets."""
        ...

    def put(self, version: ModelVersion) -> int:
        """Copy a version's archive to its key, and return its size in bytes. Idempotent; raises Refused."""
        ...

    def give(self, configuration: str, members: Iterable[Member], *, is_new: bool) -> None:
        """Create or update the endpoint with a configuration that has these members.

        Raises InProgress while another change is under way, Refused where the account does not allow it, and
        NotStarted where there is no archive or image of one of them.
        """
        ...

    def delete(self) -> None:
        """Delete the endpoint, if it is there and does not change."""
        ...

    def delete_configurations(self, names: Iterable[str]) -> None: ...

    def delete_archives(self, keys: Iterable[str]) -> None: ...

    def ask(self, version: ModelVersion, rows: str, content_type: str) -> Response:
        """Raises what ModelHost.ask raises."""
        ...


class NotStarted(Exception):
    """SageMaker cannot create a model of these containers, for the reason: an image or an archive is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiContainerHost:
    """Implements ModelHost, and SharedContainers."""

    endpoint: ContainerEndpoint
    sets: ContainerSets
    clock: Callable[[], datetime]

    def located(self, version: ModelVersion) -> ModelVersion:
        return replace(version, endpoint=self.endpoint.name, target=host_of(version))

    def put(self, version: ModelVersion) -> int:
        # Noted before it is copied, so that the timer finds it if nothing comes of it.
        self.sets.change(self.endpoint.name, partial(with_archive, member=self._member(version)))
        return self.endpoint.put(version)

    def ensure(self, version: ModelVersion, tenant: Tenant) -> tuple[EndpointState, str]:
        host, name = version.target, self.endpoint.name
        if host in (rejected := self.sets.get(name).rejected):
            return EndpointState.FAILED, rejected[host]
        try:
            self.sets.change(name, partial(_added, member=self._member(version)))
        except Refused as full:
            return EndpointState.FAILED, str(full)
        what, objection = self._tend()
        containers = self.sets.get(name)
        if host in containers.rejected:
            return EndpointState.FAILED, containers.rejected[host]
        # While it is updated, it answers as before.
        if what.serves and any(member.host == host for member in containers.members):
            return EndpointState.READY, ""
        return (EndpointState.FAILED, objection) if objection else (EndpointState.COMING, "")

    def is_missing(self, version: ModelVersion) -> bool:
        return False  # the timer brings the endpoint up again, with all containers that are needed

    def remove(self, version: ModelVersion) -> None:
        """The endpoint has the container until it is updated, by the next version or by the timer."""
        self.take_out(version.target)

    def ask(self, version: ModelVersion, tenant: Tenant, rows: str, content_type: str) -> Response:
        return self.endpoint.ask(version, rows, content_type)

    # --- by timer -------------------------------------------------------------------------------------------

    def existing(self) -> Iterator[OwnEndpoint]:
        """Yield the versions that the endpoint has, or may get."""
        containers = self.sets.get(self.endpoint.name)
        for member in (*containers.members, *containers.adding, *containers.placed):
            yield OwnEndpoint(
                name=member.host,
                tenant_id=member.tenant_id,
                data_set=member.data_set,
                version=member.version,
                served_as=ServedAs.CONTAINER,
            )

    def take_out(self, host: str) -> None:
        self.sets.change(self.endpoint.name, partial(without_version, host=host))

    def tend(self) -> str:
        name = self.endpoint.name
        _, objection = self._tend()
        containers = self.sets.get(name)
        what = believed(containers, self.endpoint.look(), self.clock())
        members = unneeded(containers, what)
        if members:
            self.endpoint.delete_archives(member.archive for member in members)
            self.sets.change(name, partial(without_leaving, members=members))
        unused = unused_configurations(containers, what)
        if unused:
            self.endpoint.delete_configurations(unused)
            self.sets.change(name, partial(without_configurations, names=unused))
        return objection or containers.failure

    def _tend(self) -> tuple[Seen, str]:
        """Look at the endpoint, note what became of the last call, and make the next one.

        Return how it was, and why the account does not allow the call.
        """
        name, now = self.endpoint.name, self.clock()
        before = self.sets.get(name).revision
        looked, call, members = self.endpoint.look(), Call.NONE, tuple[Member, ...]()

        def note(containers: ContainerSet) -> ContainerSet:
            nonlocal call, members
            call = Call.NONE
            if containers.revision != before:  # what was seen may be older than what others have done meanwhile
                return containers
            containers = seen(containers, believed(containers, looked, now), now)
            call, members = next_call(containers, believed(containers, looked, now), now)
            return called(containers, name, members, looked, now) if call is not Call.NONE else containers

        containers = self.sets.change(name, note)
        if call is Call.DELETE:
            self.endpoint.delete()
        if call not in (Call.CREATE, Call.UPDATE):
            return looked, ""
        made = containers.configuration
        try:  # what else is raised leaves open whether the call was made: the note of it stays
            self.endpoint.give(made, members, is_new=call is Call.CREATE)
        except InProgress:  # another change is under way
            self.sets.change(name, partial(without_call, name=made))
        except Refused as refusal:
            self.sets.change(name, partial(without_call, name=made))
            return looked, str(refusal)
        except NotStarted as error:
            self.sets.change(name, partial(_failed, name=made, reason=str(error), now=now))
        return looked, ""

    def _member(self, version: ModelVersion) -> Member:
        return Member(
            host=version.target,
            tenant_id=version.tenant_id,
            data_set=version.data_set,
            version=version.version,
            image_uri=version.image_uri,
            archive=self.endpoint.archive_of(version),
        )


def host_of(version: ModelVersion) -> str:
    """Return the host name of a version's container: the tenant's id before a separator that ids cannot have.

    At most 63 characters; each approval of a version gets another one, so that the former one can be removed
    meanwhile. Source: API reference, ContainerDefinition.
    """
    whole = [version.data_set, version.request_id, version.model_uri, version.image_uri]
    digest = sha256("\n".join([*whole, version.approved_at.isoformat()]).encode()).hexdigest()
    return f"{version.tenant_id}{SEPARATOR}{version.version}-{digest[:12]}"


def _failed(containers: ContainerSet, name: str, reason: str, now: datetime) -> ContainerSet:
    return failed(containers, reason, now) if containers.configuration == name else containers


def _added(containers: ContainerSet, member: Member) -> ContainerSet:
    added = with_version(containers, member)
    if added is None:
        raise Refused(
            f"its multi-container endpoint has {CONTAINERS_MAX} containers already: choose another mode, or stop "
            "what is served there"
        )
    return added
