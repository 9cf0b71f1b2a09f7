"""Dead letters: messages that could not be processed, with the reason."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from trainyard.domain.failures import kind_of_reason

SUFFIX = "-dlq"
"""Of the name of a dead-letter queue; before it is the name of its source queue."""

UNDELIVERED = "-undelivered-dlq"
"""Ends the name of the queue that keeps events which could not be delivered: it has no source queue."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, as it is read; its receipt says which reading."""

    message_id: str
    receipt: str
    body: str
    reason: str
    sent_at: datetime

    @property
    def kind(self) -> str:
        """Its reason, without what varies from letter to letter."""
        return kind_of_reason(self.reason) or "no reason (the function failed, or timed out)"

    def tells(self, text: str | None) -> bool:
        """Tell whether its reason contains a text, as it is or as groups have it."""
        return not text or text.lower() in f"{self.kind}\n{self.reason}".lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Letters of a queue that have the same kind of reason."""

    reason: str
    letters: int
    oldest: datetime


def groups_of(letters: Sequence[Letter]) -> list[Group]:
    """Return letters by their reasons, the most frequent first."""
    kinds = Counter(letter.kind for letter in letters)
    return [
        Group(reason=kind, letters=number, oldest=min(each.sent_at for each in letters if each.kind == kind))
        for kind, number in kinds.most_common()
    ]
