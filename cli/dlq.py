"""Dead letters: list them, and redrive them once their cause is fixed."""

import re
from collections.abc import Iterator
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from trainyard.domain.errors import Refused

SUFFIX = "-dlq"
SHOWN_MAX = 10


def list_letters(deployment: Deployment, arguments: Arguments) -> Answer:
    data = [_view(deployment, url) for url in _queues(deployment)]
    rows = [
        (queue["queue"], queue["letters"], letter["reason"], letter["body"][:80])
        for queue in data
        for letter in queue["newest"] or [{"reason": None, "body": ""}]
    ]
    return Answer(data=data, columns=("QUEUE", "DEAD LETTERS", "REASON", "BODY"), rows=rows, below="BODY")


def counts(deployment: Deployment) -> dict[str, int]:
    """Return dead-letter queue → its number of dead letters, about."""
    return {_name(url): _count(deployment, url) for url in _queues(deployment)}


def redrive(deployment: Deployment, arguments: Arguments) -> Answer:
    urls = {_name(url): url for url in _queues(deployment)}
    if arguments.queue not in urls:
        raise Refused(f"there is no dead-letter queue {arguments.queue!r}; there are {', '.join(urls)}")
    if arguments.queue == f"{deployment.stack}-undelivered{SUFFIX}":
        raise Refused("undelivered events have no source queue to go back to: see `trainyard dlq list`")
    url = urls[arguments.queue]
    target = arguments.queue.removesuffix(SUFFIX)
    if not arguments.yes:
        count = _count(deployment, url)
        return Answer(
            data={"would_move": count}, lines=[f"would move {count} dead letters to {target}; add --yes to do it"]
        )
    moved = sum(1 for _ in _move(deployment, url, target))
    return Answer(data={"moved": moved}, lines=[f"moved {moved} dead letters to {target}"])


def _move(deployment: Deployment, url: str, target: str) -> Iterator[str]:
    """Move dead letters one by one, sending before deleting, so that none is lost. Stops at the initial count."""
    sqs = deployment.client("sqs")
    target_url = sqs.get_queue_url(QueueName=target)["QueueUrl"]
    for _ in range(_count(deployment, url)):
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, VisibilityTimeout=60, WaitTimeSeconds=2)
        messages = answer.get("Messages", [])
        for message in messages:
            sqs.send_message(QueueUrl=target_url, MessageBody=message["Body"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            yield message["MessageId"]


def _queues(deployment: Deployment) -> list[str]:
    pages = deployment.client("sqs").get_paginator("list_queues")
    urls = [
        url for page in pages.paginate(QueueNamePrefix=f"{deployment.stack}-") for url in page.get("QueueUrls", [])
    ]
    ours = re.compile(rf"{re.escape(deployment.stack)}-(uploads|status|undelivered|tier-[a-z0-9]+){SUFFIX}")
    return sorted(url for url in urls if ours.fullmatch(_name(url)))


def _view(deployment: Deployment, url: str) -> dict[str, Any]:
    """Return a queue's dead letters; reading does not hide them from other consumers."""
    answer = deployment.client("sqs").receive_message(
        QueueUrl=url, MaxNumberOfMessages=SHOWN_MAX, VisibilityTimeout=0, MessageAttributeNames=["reason"]
    )
    letters = [
        {
            "reason": message.get("MessageAttributes", {}).get("reason", {}).get("StringValue"),
            "body": message["Body"],
        }
        for message in answer.get("Messages", [])
    ]
    return {"queue": _name(url), "letters": max(_count(deployment, url), len(letters)), "newest": letters}


def _count(deployment: Deployment, url: str) -> int:
    """Return the number of dead letters, including those in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = deployment.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def _name(url: str) -> str:
    return url.rpartition("/")[2]
