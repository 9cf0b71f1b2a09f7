"""Dead letters, for operators and viewers."""

import time
from collections.abc import Callable
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import Field

from trainyard.application.api.dead_letters import READ_MAX, DeadLetterQueue, check_has_source, selected
from trainyard.contracts.api import answers, results
from trainyard.contracts.api_dead_letters import (
    DropBody,
    LetterList,
    LettersDone,
    QueueLettersList,
    ReasonText,
    RedriveBody,
    letters_of,
    queues_of,
)
from trainyard.domain.principals import Access
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import NotFound, allow_service, limit_calls, refuse_parameters_but, routes

router = routes()

LETTERS = "/v1/service/dead-letters"
CALLS_MAX = 10
"""Of a caller within ten seconds, and as many of those that change something: each receives messages."""
SECONDS_MAX = 15.0
"""For sending back, or deleting: a call is to be answered within 30."""

LetterLimit = Annotated[int, Field(ge=1, le=50, description="How many letters are shown at most")]


@router.get(LETTERS, summary="The dead-letter queues, by reason", responses=answers(QueueLettersList))
def list_dead_letters() -> QueueLettersList:
    _allow(Access.READ_SERVICE)
    refuse_parameters_but()
    return queues_of(bootstrap.dead_letter_office().overview(within(SECONDS_MAX)))


@router.get(f"{LETTERS}/<queue>", summary="Dead letters of a queue", responses=answers(LetterList))
def read_dead_letters(
    queue: str,
    reason: Annotated[ReasonText | None, Query()] = None,
    limit: Annotated[LetterLimit, Query()] = 20,
) -> LetterList:
    """Of those that were looked at, the oldest first: in a long queue, others may be older."""
    _allow(Access.READ_SERVICE)
    refuse_parameters_but("reason", "limit")
    return letters_of(selected(_queue(queue), reason, within(SECONDS_MAX), limit=limit))


@router.post(f"{LETTERS}/<queue>/redrive", summary="Send dead letters back", responses=results(LettersDone))
def redrive_dead_letters(queue: str, body: RedriveBody) -> LettersDone:
    """To the queue that they came from, as many as can be within seconds: repeat it for what remains."""
    _allow(Access.CHANGE_SERVICE)
    letters = _queue(queue)
    check_has_source(letters)
    if body.dry_run:
        return _would_do(letters, body.reason)
    moved = letters.redrive(body.reason, within(SECONDS_MAX))
    return LettersDone(letters=moved, is_complete=True, remaining=letters.count())


@router.post(f"{LETTERS}/<queue>/drop", summary="Delete dead letters for good", responses=results(LettersDone))
def drop_dead_letters(queue: str, body: DropBody) -> LettersDone:
    """As many as can be within seconds: repeat it for what remains."""
    _allow(Access.CHANGE_SERVICE)
    letters = _queue(queue)
    if body.dry_run:
        return _would_do(letters, body.reason)
    dropped = letters.drop(body.reason, within(SECONDS_MAX))
    return LettersDone(letters=dropped, is_complete=True, remaining=letters.count())


def within(seconds: float) -> Callable[[int], bool]:
    """Return what tells, whatever the number of letters, when so many seconds have passed from now on."""
    end = time.monotonic() + seconds
    return lambda _: time.monotonic() > end


def _allow(access: Access) -> None:
    principal = allow_service(access)
    kind = "letters" if access is Access.READ_SERVICE else "letter-changes"
    limit_calls(f"{kind}#{principal.caller}", CALLS_MAX)


def _would_do(letters: DeadLetterQueue, reason: str | None) -> LettersDone:
    count = letters.count()
    number = len(selected(letters, reason, within(SECONDS_MAX)))
    return LettersDone(letters=number, is_complete=count <= READ_MAX, remaining=count)


def _queue(name: str) -> DeadLetterQueue:
    """Return a dead-letter queue of the deployment; raises NotFound."""
    queue = bootstrap.dead_letter_office().find(name)
    if queue is None:
        raise NotFound
    return queue
