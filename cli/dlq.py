"""Dead letters: list them by reason, read them, send them back once their cause is mended, or drop them."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import say
from trainyard.domain.errors import Refused
from trainyard.domain.failures import kind_of_reason

SUFFIX = "-dlq"
READ_MAX = 1000
"""Dead letters of a queue that are read to group them."""

HIDDEN_SECONDS = 60
"""While letters are read, others do not see them; they are shown again at once afterwards."""


@dataclass(frozen=True)
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


def list_letters(deployment: Deployment, arguments: Arguments) -> Answer:
    """List the dead-letter queues, and how many letters of each have which reason."""
    data: list[dict[str, Any]] = []
    rows: list[tuple[Any, ...]] = []
    for url in _queues(deployment):
        letters = list(_read(deployment, url))
        count = max(_count(deployment, url), len(letters))
        kinds = Counter(letter.kind for letter in letters)
        groups = []
        for kind, number in kinds.most_common():
            oldest = min(letter.sent_at for letter in letters if letter.kind == kind)
            groups.append({"reason": kind, "letters": number, "oldest": oldest})
            rows.append((_name(url), number, oldest.strftime("%Y-%m-%d %H:%M:%S"), kind))
        if count > len(letters):
            rows.append((_name(url), count - len(letters), None, "not read: there are more"))
        if not count:
            rows.append((_name(url), 0, None, None))
        data.append({"queue": _name(url), "letters": count, "groups": groups})
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
    _release(deployment, _url(deployment, arguments.queue), letters)
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
    if arguments.queue == f"{deployment.stack}-undelivered{SUFFIX}":
        raise Refused(
            "undelivered events have no source queue to go back to: `trainyard dlq show` prints them, and "
            "`trainyard dlq drop` deletes them"
        )
    target = arguments.queue.removesuffix(SUFFIX)
    letters = _selected(deployment, arguments)
    if not arguments.yes:
        _release(deployment, _url(deployment, arguments.queue), letters)
        return Answer(
            data={"would_move": len(letters)},
            lines=[f"would move {len(letters)} dead letters to {target}; add --yes to do it"],
        )
    sqs = deployment.client("sqs")
    target_url = sqs.get_queue_url(QueueName=target)["QueueUrl"]
    url = _url(deployment, arguments.queue)
    for number, letter in enumerate(letters, start=1):
        # Sent before it is deleted, so that it is never lost; messages may come twice anyway.
        sqs.send_message(QueueUrl=target_url, MessageBody=letter.body)
        sqs.delete_message(QueueUrl=url, ReceiptHandle=letter.receipt)
        if number % 100 == 0:
            say(f"moved {number} of {len(letters)}")
    return Answer(data={"moved": len(letters)}, lines=[f"moved {len(letters)} dead letters to {target}"])


def drop(deployment: Deployment, arguments: Arguments) -> Answer:
    """Delete dead letters for good, those of a reason or all; only with --yes."""
    if not arguments.reason and not arguments.all:
        raise Refused("say which: --reason TEXT (part of the reason, see `trainyard dlq list`), or --all")
    letters, url = _selected(deployment, arguments), _url(deployment, arguments.queue)
    if not arguments.yes:
        _release(deployment, url, letters)
        return Answer(
            data={"would_drop": len(letters)},
            lines=[
                f"would delete {len(letters)} dead letters for good; `trainyard dlq show` prints them",
                "nothing was deleted; add --yes to do it",
            ],
        )
    for letter in letters:
        deployment.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=letter.receipt)
    return Answer(data={"dropped": len(letters)}, lines=[f"deleted {len(letters)} dead letters"])


def counts(deployment: Deployment) -> dict[str, int]:
    """Return dead-letter queue → its number of dead letters, about."""
    return {_name(url): _count(deployment, url) for url in _queues(deployment)}


def _selected(deployment: Deployment, arguments: Arguments) -> list[Letter]:
    """Return the letters of a queue whose reason contains a text, the oldest first, hidden from others for now."""
    url = _url(deployment, arguments.queue)
    letters = list(_read(deployment, url, hidden=True))
    wanted = [
        letter for letter in letters if (arguments.reason or "").lower() in letter.kind.lower() + letter.reason
    ]
    _release(deployment, url, [letter for letter in letters if letter not in wanted])
    return sorted(wanted, key=lambda letter: letter.sent_at)


def _url(deployment: Deployment, name: str) -> str:
    urls = {_name(url): url for url in _queues(deployment)}
    if name not in urls:
        raise Refused(f"there is no dead-letter queue {name!r}; there are {', '.join(urls)}")
    return urls[name]


def _queues(deployment: Deployment) -> list[str]:
    pages = deployment.client("sqs").get_paginator("list_queues")
    urls = [
        url for page in pages.paginate(QueueNamePrefix=f"{deployment.stack}-") for url in page.get("QueueUrls", [])
    ]
    ours = re.compile(rf"{re.escape(deployment.stack)}-(uploads|status|undelivered|tier-[a-z0-9]+){SUFFIX}")
    return sorted(url for url in urls if ours.fullmatch(_name(url)))


def _read(deployment: Deployment, url: str, *, hidden: bool = False) -> Iterator[Letter]:
    """Yield the letters of a queue, each once; they stay hidden from others for a time, or are released at once.

    A receive may return fewer letters than there are, and none although there are some (SQS developer guide,
    "Short and long polling"): the reading ends when as many were found as the queue says it has, or when two
    waits in a row bring nothing new.
    """
    sqs, seen, empty, count = deployment.client("sqs"), dict[str, Letter](), 0, _count(deployment, url)
    while count and empty < (1 if len(seen) >= count else 2) and len(seen) < READ_MAX:
        answer = sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            VisibilityTimeout=HIDDEN_SECONDS,
            WaitTimeSeconds=0 if len(seen) >= count else 1,
            MessageAttributeNames=["reason"],
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        letters = [_letter(message) for message in answer.get("Messages", [])]
        new = [letter for letter in letters if letter.message_id not in seen]
        seen |= {letter.message_id: letter for letter in letters}
        empty = 0 if new else empty + 1
    if not hidden:
        _release(deployment, url, list(seen.values()))
    yield from seen.values()


def _release(deployment: Deployment, url: str, letters: list[Letter]) -> None:
    """Let others see letters again that were read."""
    for begin in range(0, len(letters), 10):
        entries = [
            {"Id": str(number), "ReceiptHandle": letter.receipt, "VisibilityTimeout": 0}
            for number, letter in enumerate(letters[begin : begin + 10])
        ]
        deployment.client("sqs").change_message_visibility_batch(QueueUrl=url, Entries=entries)


def _letter(message: dict[str, Any]) -> Letter:
    return Letter(
        message_id=message["MessageId"],
        receipt=message["ReceiptHandle"],
        body=message["Body"],
        reason=message.get("MessageAttributes", {}).get("reason", {}).get("StringValue") or "",
        sent_at=datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, UTC),
    )


def _count(deployment: Deployment, url: str) -> int:
    """Return the number of dead letters, including those in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = deployment.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def _parsed(body: str) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError:
        return body


def _name(url: str) -> str:
    return url.rpartition("/")[2]
