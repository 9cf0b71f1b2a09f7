"""What the HTTP API takes and answers about dead letters."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from trainyard.application.api.dead_letters import QueueState
from trainyard.domain.dead_letters import Letter

BODY_CHARACTERS_MAX = 20_000
REASON_CHARACTERS_MAX = 500

ReasonText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    Field(description="Only letters whose reason contains this text"),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RedriveBody(_Body):
    """Which letters are to be sent back: all, or those of a reason."""

    reason: ReasonText | None = None
    dry_run: Annotated[bool, Field(description="Say how many it would be, and do nothing", strict=True)] = False


class DropBody(RedriveBody):
    """Which letters are to be deleted for good."""

    all: Annotated[bool, Field(description="Whatever their reason", strict=True)] = False

    @model_validator(mode="after")
    def _says_which(self) -> "DropBody":
        if (self.reason is None) == (not self.all):
            raise ValueError("give either a reason, or all: true")
        return self


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class GroupAnswer(_Answer):
    """Letters that have the same kind of reason."""

    reason: str
    letters: int
    oldest: datetime


class QueueLettersAnswer(_Answer):
    """A dead-letter queue."""

    queue: str
    letters: Annotated[int, Field(description="About")]
    groups: list[GroupAnswer]
    unread: Annotated[int, Field(description="Letters that are in none of the groups, as there are too many")]


class QueueLettersList(_Answer):
    """The dead-letter queues."""

    items: list[QueueLettersAnswer]


class LetterAnswer(_Answer):
    """A message that could not be processed."""

    id: str
    sent_at: datetime
    reason: str
    body: Annotated[str, Field(description="As it was received, perhaps from a tenant; a long one is cut off")]


class LetterList(_Answer):
    """Letters of a queue, the oldest first."""

    items: list[LetterAnswer]


class LettersDone(_Answer):
    """How many letters were sent back or deleted, or would be."""

    letters: int
    is_complete: Annotated[
        bool, Field(description="False of a dry run that did not look at all letters: there may be more")
    ]
    remaining: Annotated[int, Field(description="Letters that the queue has afterwards, about")]


def queues_of(states: Iterable[QueueState]) -> QueueLettersList:
    return QueueLettersList(
        items=[
            QueueLettersAnswer(
                queue=each.name,
                letters=each.letters,
                groups=[
                    GroupAnswer(
                        reason=group.reason[:REASON_CHARACTERS_MAX], letters=group.letters, oldest=group.oldest
                    )
                    for group in each.groups
                ],
                unread=each.unread,
            )
            for each in states
        ]
    )


def letters_of(letters: Iterable[Letter]) -> LetterList:
    return LetterList(
        items=[
            LetterAnswer(
                id=each.message_id,
                sent_at=each.sent_at,
                reason=each.reason[:REASON_CHARACTERS_MAX],
                body=each.body[:BODY_CHARACTERS_MAX],
            )
            for each in letters
        ]
    )
