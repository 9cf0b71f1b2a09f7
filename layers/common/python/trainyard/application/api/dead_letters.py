"""Dead letters for operators: by reason, one by one, sent back, or dropped."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from trainyard.domain.dead_letters import UNDELIVERED, Group, Letter, groups_of
from trainyard.domain.errors import Refused

READ_MAX = 100
"""Letters of a queue that are read to group them: what is shown is answered within seconds."""


class DeadLetterQueue(Protocol):
    """A dead-letter queue. Letters that are read are seen by others again afterwards."""

    @property
    def name(self) -> str: ...

    def count(self) -> int:
        """Return the number of letters, including those that are being read; about."""
        ...

    def read(self, limit: int, done: Callable[[int], bool]) -> list[Letter]:
        """Return letters, each once, in no order; `done` is given their number, and tells whether it is enough."""
        ...

    def redrive(self, reason: str | None, done: Callable[[int], bool]) -> int:
        """Send letters whose reason contains a text back to where they came from; return how many.

        `done` is given that number after each letter, and tells whether it is enough.
        """
        ...

    def drop(self, reason: str | None, done: Callable[[int], bool]) -> int:
        """Delete letters whose reason contains a text; as `redrive` does."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """A dead-letter queue, and why its letters are there."""

    name: str
    letters: int
    groups: tuple[Group, ...]
    """Of those that were read."""
    unread: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterOffice:
    queues: Callable[[], list[DeadLetterQueue]]
    """Returns those of the deployment."""

    def overview(self, done: Callable[[int], bool]) -> list[QueueState]:
        """Return all queues with the reasons of their letters, of those that are read before `done` tells."""
        states = []
        for queue in self.queues():
            letters = queue.read(READ_MAX, done) if queue.count() else []
            count = max(queue.count(), len(letters))
            states.append(
                QueueState(
                    name=queue.name,
                    letters=count,
                    groups=tuple(groups_of(letters)),
                    unread=count - len(letters),
                )
            )
        return states

    def find(self, name: str) -> DeadLetterQueue | None:
        return next((queue for queue in self.queues() if queue.name == name), None)


def selected(
    queue: DeadLetterQueue, reason: str | None, done: Callable[[int], bool], *, limit: int = READ_MAX
) -> list[Letter]:
    """Return letters of a queue whose reason contains a text, the oldest first; at most READ_MAX are looked at."""
    letters = [letter for letter in queue.read(READ_MAX, done) if letter.tells(reason)]
    return sorted(letters, key=lambda letter: letter.sent_at)[:limit]


def check_has_source(queue: DeadLetterQueue) -> None:
    """Raise Refused for the queue whose letters cannot be sent back."""
    if queue.name.endswith(UNDELIVERED):
        raise Refused("undelivered events have no source queue to go back to: read them, and drop them")
