"""Container sets of multi-container endpoints, one item each, under `serving##shared` / `containers#<endpoint>`.

Every change is made on what was read, and written on condition that nothing was written since.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import uuid4

from trainyard.domain.container_sets import ContainerSet, Member
from trainyard.domain.errors import Conflict
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
    return {name: list(value) if isinstance(value, tuple) else value for name, value in item.items()}


def _from(item: Item) -> ContainerSet:
    return ContainerSet(
        members=_members(item["members"]),
        adding=_members(item["adding"]),
        one_by_one=bool(item["one_by_one"]),
        tried=tuple(item["tried"]),
        configuration=item["configuration"],
        called_at=item["called_at"],
        changed_before=item["changed_before"],
        configurations=tuple(item["configurations"]),
        removed=_members(item["removed"]),
        rejected=dict(item["rejected"]),
        revision=item["revision"],
    )


def _members(items: list[Any]) -> tuple[Member, ...]:
    return tuple(Member(**{**item, "version": int(item["version"])}) for item in items)
