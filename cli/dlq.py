"""Dead letters: list them by reason, read them, send them back once their cause is mended, or drop them."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted, say
from trainyard.adapters.aws.dead_letters import SqsDeadLetterQueue
from trainyard.domain.dead_letters import SUFFIX, UNDELIVERED, Letter, groups_of
from trainyard.domain.errors import Refused

READ_MAX = 1000
"""Dead letters of a queue that are read to group them."""


def list_letters(deployment: Deployment, arguments: Arguments) -> Answer:
    """List the dead-letter queues, and how many letters of each have which reason."""
    data: list[dict[str, Any]] = []
    rows: list[tuple[Any, ...]] = []
    for queue in _queues(deployment):
        letters = queue.read(READ_MAX)
        count, groups = max(queue.count(), len(letters)), groups_of(letters)
        rows += [(queue.name, g.letters, g.oldest.strftime("%Y-%m-%d %H:%M:%S"), g.reason) for g in groups]
        if count > len(letters):
            rows.append((queue.name, count - len(letters), None, "not read: there are more"))
        if not count:
            rows.append((queue.name, 0, None, None))
        data.append({"queue": queue.name, "letters": count, "groups": [asdict(group) for group in groups]})
    lines = ["trainyard dlq show QUEUE prints letters; redrive sends them back, drop deletes them"]
    return Answer(
        data=data,
        columns=("QUEUE", "DEAD LETTERS", "OLDEST", "REASON"),
        rows=rows,
        lines=lines if any(queue["letters"] for queue in data) else [],
        below="REASON",
    )


def show(deployment: Deployment, arguments: Arguments) -> Answer:
    """Print dead letters of a queue, the oldest first."""
    letters = _selected(deployment, arguments)
    shown = letters[: arguments.limit]
    lines: list[str] = []
    for letter in shown:
        lines += [
            f"{letter.message_id}  {letter.sent_at:%Y-%m-%d %H:%M:%S}",
            f"  reason: {letter.reason or 'none'}",
        ]
        lines += [f"  {letter.body}", ""]
    more = len(letters) - len(shown)
    return Answer(
        data=[
            {"id": each.message_id, "sent_at": each.sent_at, "reason": each.reason, "body": _parsed(each.body)}
            for each in shown
        ],
        lines=[*lines, f"{len(shown)} of {len(letters)}; --limit N shows more"] if more else lines or ["none"],
    )


def redrive(deployment: Deployment, arguments: Arguments) -> Answer:
    """Send dead letters back to the queue that they came from; only with --yes."""
    if arguments.queue == f"{deployment.stack}{UNDELIVERED}":
        raise Refused(
            "undelivered events have no source queue to go back to: `trainyard dlq show` prints them, and "
            "`trainyard dlq drop` deletes them"
        )
    target, queue = arguments.queue.removesuffix(SUFFIX), _queue(deployment, arguments.queue)
    if not arguments.yes:
        letters = _selected(deployment, arguments)
        return Answer(
            data={"would_move": len(letters)},
            lines=[f"would move {_at_least(letters)} to {target}; add --yes to do it"],
        )
    moved = queue.redrive(arguments.reason, _progress("moved"))
    return Answer(data={"moved": moved}, lines=[f"moved {counted(moved, 'dead letter')} to {target}"])


def drop(deployment: Deployment, arguments: Arguments) -> Answer:
    """Delete dead letters for good, those of a reason or all; only with --yes."""
    if not arguments.reason and not arguments.all:
        raise Refused("say which: --reason TEXT (part of the reason, see `trainyard dlq list`), or --all")
    queue = _queue(deployment, arguments.queue)
    if not arguments.yes:
        letters = _selected(deployment, arguments)
        return Answer(
            data={"would_drop": len(letters)},
            lines=[
                f"would delete {_at_least(letters)} for good; `trainyard dlq show` prints them",
                "nothing was deleted; add --yes to do it",
            ],
        )
    dropped = queue.drop(arguments.reason, _progress("deleted"))
    return Answer(data={"dropped": dropped}, lines=[f"deleted {counted(dropped, 'dead letter')}"])


def counts(deployment: Deployment) -> dict[str, int]:
    """Return dead-letter queue → its number of dead letters, about."""
    return {queue.name: queue.count() for queue in _queues(deployment)}


def _selected(deployment: Deployment, arguments: Arguments) -> list[Letter]:
    """Return the letters of a queue whose reason contains a text, the oldest first; at most READ_MAX are read."""
    letters = _queue(deployment, arguments.queue).read(READ_MAX)
    return sorted(
        (letter for letter in letters if letter.tells(arguments.reason)), key=lambda letter: letter.sent_at
    )


def _at_least(letters: list[Letter]) -> str:
    return f"{'at least ' if len(letters) >= READ_MAX else ''}{counted(len(letters), 'dead letter')}"


def _progress(done: str) -> Callable[[int], bool]:
    """Return what says how many letters were done, and never that it is enough."""
    before = 0

    def say_it(number: int) -> bool:
        nonlocal before
        if number != before and number % 100 == 0:
            say(f"{done} {number:,}")
        before = number
        return False

    return say_it


def _queue(deployment: Deployment, name: str) -> SqsDeadLetterQueue:
    queues = {queue.name: queue for queue in _queues(deployment)}
    if name not in queues:
        raise Refused(f"there is no dead-letter queue {name!r}; there are {', '.join(queues)}")
    return queues[name]


def _queues(deployment: Deployment) -> list[SqsDeadLetterQueue]:
    pages = deployment.client("sqs").get_paginator("list_queues")
    urls = [
        url for page in pages.paginate(QueueNamePrefix=f"{deployment.stack}-") for url in page.get("QueueUrls", [])
    ]
    ours = re.compile(rf"{re.escape(deployment.stack)}-(uploads|status|undelivered|tier-[a-z0-9]+){SUFFIX}")
    if not urls:
        _ = deployment.outputs  # raises Unreachable where there is no deployment
    queues = [SqsDeadLetterQueue(url) for url in sorted(urls)]
    return [queue for queue in queues if ours.fullmatch(queue.name)]


def _parsed(body: str) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError:
        return body
