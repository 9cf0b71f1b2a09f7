"""Dead letters: list them by reason, read them, send them back once their cause is mended, or drop them."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted, say
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

    def tells(self, text: str | None) -> bool:
        """Tell whether its reason contains a text, as it is or as `dlq list` shows it."""
        return not text or text.lower() in f"{self.kind}\n{self.reason}".lower()


def list_letters(deployment: Deployment, arguments: Arguments) -> Answer:
    """List the dead-letter queues, and how many letters of each have which reason."""
    data: list[dict[str, Any]] = []
    rows: list[tuple[Any, ...]] = []
    for url in _queues(deployment):
        letters = _read(deployment, url)
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
    target, url = arguments.queue.removesuffix(SUFFIX), _url(deployment, arguments.queue)
    if not arguments.yes:
        letters = _selected(deployment, arguments)
        return Answer(
            data={"would_move": len(letters)},
            lines=[f"would move {_at_least(letters)} to {target}; add --yes to do it"],
        )
    sqs = deployment.client("sqs")
    target_url = sqs.get_queue_url(QueueName=target)["QueueUrl"]

    def move(letter: Letter) -> None:
        # Sent before it is deleted, so that it is never lost; messages may come twice anyway.
        sqs.send_message(QueueUrl=target_url, MessageBody=letter.body)
        sqs.delete_message(QueueUrl=url, ReceiptHandle=letter.receipt)

    moved = _act(deployment, url, arguments.reason, move, "moved")
    return Answer(data={"moved": moved}, lines=[f"moved {counted(moved, 'dead letter')} to {target}"])


def drop(deployment: Deployment, arguments: Arguments) -> Answer:
    """Delete dead letters for good, those of a reason or all; only with --yes."""
    if not arguments.reason and not arguments.all:
        raise Refused("say which: --reason TEXT (part of the reason, see `trainyard dlq list`), or --all")
    url = _url(deployment, arguments.queue)
    if not arguments.yes:
        letters = _selected(deployment, arguments)
        return Answer(
            data={"would_drop": len(letters)},
            lines=[
                f"would delete {_at_least(letters)} for good; `trainyard dlq show` prints them",
                "nothing was deleted; add --yes to do it",
            ],
        )
    sqs = deployment.client("sqs")

    def delete(letter: Letter) -> None:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=letter.receipt)

    dropped = _act(deployment, url, arguments.reason, delete, "deleted")
    return Answer(data={"dropped": dropped}, lines=[f"deleted {counted(dropped, 'dead letter')}"])


def counts(deployment: Deployment) -> dict[str, int]:
    """Return dead-letter queue → its number of dead letters, about."""
    return {_name(url): _count(deployment, url) for url in _queues(deployment)}


def _selected(deployment: Deployment, arguments: Arguments) -> list[Letter]:
    """Return the letters of a queue whose reason contains a text, the oldest first; at most READ_MAX are read."""
    letters = _read(deployment, _url(deployment, arguments.queue))
    return sorted(
        (letter for letter in letters if letter.tells(arguments.reason)), key=lambda letter: letter.sent_at
    )


def _at_least(letters: list[Letter]) -> str:
    return f"{'at least ' if len(letters) >= READ_MAX else ''}{counted(len(letters), 'dead letter')}"


def _act(deployment: Deployment, url: str, reason: str | None, do: Callable[[Letter], None], done: str) -> int:
    """Do something with each letter whose reason contains a text, soon after it was received; return their number.

    Ends after as many letters as there were at first: one that was sent back may die again meanwhile.
    """
    acted, spared = 0, list[Letter]()
    try:
        for letter in _received(deployment, url, limit=_count(deployment, url)):
            if letter.tells(reason):
                do(letter)
                acted += 1
                if acted % 100 == 0:
                    say(f"{done} {acted:,}")
            else:
                spared.append(letter)
    finally:
        _release(deployment, url, spared)
    return acted


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
    if not urls:
        _ = deployment.outputs  # raises Unreachable where there is no deployment
    return sorted(url for url in urls if ours.fullmatch(_name(url)))


def _read(deployment: Deployment, url: str) -> list[Letter]:
    """Return letters of a queue, which others see again afterwards."""
    letters: list[Letter] = []
    try:
        for letter in _received(deployment, url, limit=READ_MAX):
            letters.append(letter)
    finally:
        _release(deployment, url, letters)
    return letters


def _received(deployment: Deployment, url: str, *, limit: int) -> Iterator[Letter]:
    """Yield letters of a queue, each once, as they are received; others do not see them for HIDDEN_SECONDS.

    A receive may return fewer letters than there are, and none although there are some (SQS developer guide,
    "Short and long polling"): the reading ends when as many were found as the queue says it has, or when two
    waits in a row bring nothing new.
    """
    sqs, seen, empty, count = deployment.client("sqs"), set[str](), 0, _count(deployment, url)
    while count and empty < (1 if len(seen) >= count else 2) and len(seen) < limit:
        answer = sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            VisibilityTimeout=HIDDEN_SECONDS,
            WaitTimeSeconds=0 if len(seen) >= count else 1,
            MessageAttributeNames=["reason", "ERROR_CODE", "ERROR_MESSAGE", "ErrorMessage"],
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        letters = [_letter(message) for message in answer.get("Messages", [])]
        new = [letter for letter in letters if letter.message_id not in seen]
        seen |= {letter.message_id for letter in new}
        empty = 0 if new else empty + 1
        yield from new


def _release(deployment: Deployment, url: str, letters: list[Letter]) -> None:
    """Let others see letters again that were read."""
    for begin in range(0, len(letters), 10):
        entries = [
            {"Id": str(number), "ReceiptHandle": letter.receipt, "VisibilityTimeout": 0}
            for number, letter in enumerate(letters[begin : begin + 10])
        ]
        deployment.client("sqs").change_message_visibility_batch(QueueUrl=url, Entries=entries)


def _letter(message: dict[str, Any]) -> Letter:
    texts = {name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()}
    # By EventBridge, or by Lambda.
    of_aws = texts.get("ERROR_CODE"), texts.get("ERROR_MESSAGE"), texts.get("ErrorMessage")
    undelivered = ": ".join(filter(None, of_aws))
    return Letter(
        message_id=message["MessageId"],
        receipt=message["ReceiptHandle"],
        body=message["Body"],
        reason=texts.get("reason") or undelivered,
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
