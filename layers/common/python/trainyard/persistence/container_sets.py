"""Container sets of multi-container endpoints, one item each, under `serving##shared` / `containers#<endpoint>`.

Every change is made on what was read, and written on condition that nothing was written since.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from trainyard.domain.container_sets import ContainerSet, Member
from trainyard.domain.errors import Conflict
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.store import Absent, Is, Item, Key, Put, Store

TRIES_MAX = 8


def set_key(endpoint: str) -> Key:
    # Tenants' ids do not begin with "#".
    return Key("scheduler", (("pk", "serving##shared"), ("sk", f"containers#{endpoint}")))


@dataclass(frozen=True, slots=True)
class ContainerSets:
    store: Store
    rest: Callable[[int], None]
    """Waits before the given further try, in step with nobody."""

    def get(self, endpoint: str) -> ContainerSet:
        """Return an endpoint's set as it is now, an empty one where there is none."""
        (item,) = self.store.get(set_key(endpoint))
        return _from(item) if item else ContainerSet()

    def change(self, endpoint: str, make: Callable[[ContainerSet], ContainerSet]) -> ContainerSet:
        """Change a set by a pure function, and return what is stored then.

        Raises what the function raises, and Conflict while others keep changing it.
        """
        for number in range(1, TRIES_MAX + 1):
            before = self.get(endpoint)
            after = make(before)
            if after == before:
                return before
            after = replace(after, revision=uuid4().hex)
            unchanged = Is("revision", before.revision) if before.revision else Absent("pk")
            try:
                self.store.transact([Put(set_key(endpoint), _item(after), (unchanged,))])
            except Conflict:
                self.rest(number)
            else:
                return after
        raise Conflict(f"the containers of {endpoint} keep changing")


def _item(containers: ContainerSet) -> Item:
    item: dict[str, Any] = asdict(containers)
    for name, value in item.items():
        if isinstance(value, tuple):
            item[name] = list(value)
        elif isinstance(value, datetime):
            item[name] = stamp(value)
    item["configurations"] = {name: list(hosts) for name, hosts in containers.configurations.items()}
    return {name: value for name, value in item.items() if value is not None}


def _from(item: Item) -> ContainerSet:
    def when(name: str) -> datetime | None:
        return unstamp(item[name]) if name in item else None

    return ContainerSet(
        members=_members(item["members"]),
        adding=_members(item["adding"]),
        placed=_members(item["placed"]),
        leaving=_members(item["leaving"]),
        suspects=tuple(item["suspects"]),
        suspects_at_once=int(item["suspects_at_once"]),
        tried=tuple(item["tried"]),
        configuration=item["configuration"],
        called_at=when("called_at"),
        changed_before=when("changed_before"),
        configurations={name: tuple(hosts) for name, hosts in item["configurations"].items()},
        failed_at=when("failed_at"),
        failure=item["failure"],
        rejected=dict(item["rejected"]),
        revision=item["revision"],
    )


def _members(items: list[Any]) -> tuple[Member, ...]:
    return tuple(Member(**{**item, "version": int(item["version"])}) for item in items)
