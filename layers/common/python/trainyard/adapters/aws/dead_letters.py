"""The dead-letter queues: their letters are read, sent back to where they came from, or deleted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import translated
from trainyard.domain.dead_letters import SUFFIX, Letter
from trainyard.domain.errors import Refused

HIDDEN_SECONDS = 60
"""While letters are read, others do not see them; they are shown again at once afterwards."""
SPARED_MAX = 2_000
"""Letters without the reason that is looked for: others do not see them meanwhile."""


@dataclass(frozen=True, slots=True)
class SqsDeadLetterQueue:
    """Implements DeadLetterQueue."""

    url: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def count(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        with translated():
            answer = client("sqs").get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def read(self, limit: int, done: Callable[[int], bool] = lambda _: False) -> list[Letter]:
        letters: list[Letter] = []
        try:
            for letter in self._received(limit=limit, done=done):
                letters.append(letter)
        finally:
            self._release(letters)
        return letters

    def redrive(self, reason: str | None, done: Callable[[int], bool]) -> int:
        source, sqs = self.url.removesuffix(SUFFIX), client("sqs")

        def move(letter: Letter) -> None:
            # Sent before it is deleted, so that it is never lost; messages may come twice anyway.
            try:
                with translated():
                    sqs.send_message(QueueUrl=source, MessageBody=letter.body)
            except sqs.exceptions.QueueDoesNotExist:
                raise Refused(
                    "the queue that they came from does not exist any more: read and drop them"
                ) from None
            self._delete(letter)

        return self._act(reason, move, done)

    def drop(self, reason: str | None, done: Callable[[int], bool]) -> int:
        return self._act(reason, self._delete, done)

    def _delete(self, letter: Letter) -> None:
        with translated():
            client("sqs").delete_message(QueueUrl=self.url, ReceiptHandle=letter.receipt)

    def _act(self, reason: str | None, do: Callable[[Letter], None], done: Callable[[int], bool]) -> int:
        """Do something with each letter whose reason contains a text, soon after it is received; return how many.

        Ends after as many letters as there were at first: one that was sent back may die again meanwhile.
        """
        acted, spared = 0, list[Letter]()
        try:
            for letter in self._received(limit=self.count(), done=lambda _: len(spared) >= SPARED_MAX):
                if letter.tells(reason):
                    do(letter)
                    acted += 1
                else:
                    spared.append(letter)
                if done(acted):
                    break
        finally:
            self._release(spared)
        return acted

    def _received(self, *, limit: int, done: Callable[[int], bool]) -> Iterator[Letter]:
        """Yield letters, each once, as they are received; others do not see them for HIDDEN_SECONDS.

        A receive may return fewer letters than there are, and none although there are some (SQS developer guide,
        "Short and long polling"): the reading ends when as many were read as the queue says it has, or when two
        waits in a row bring nothing new.
        """
        seen, empty, count = set[str](), 0, self.count()
        while count and empty < (1 if len(seen) >= count else 2) and len(seen) < limit and not done(len(seen)):
            with translated():
                answer = client("sqs").receive_message(
                    QueueUrl=self.url,
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

    def _release(self, letters: list[Letter]) -> None:
        """Let others see letters again that were read."""
        for begin in range(0, len(letters), 10):
            entries = [
                {"Id": str(number), "ReceiptHandle": letter.receipt, "VisibilityTimeout": 0}
                for number, letter in enumerate(letters[begin : begin + 10])
            ]
            with translated():
                client("sqs").change_message_visibility_batch(QueueUrl=self.url, Entries=entries)


def _letter(message: dict[str, Any]) -> Letter:
    texts = {name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()}
    # By EventBridge, or by Lambda.
    of_aws = texts.get("ERROR_CODE"), texts.get("ERROR_MESSAGE"), texts.get("ErrorMessage")
    return Letter(
        message_id=message["MessageId"],
        receipt=message["ReceiptHandle"],
        body=message["Body"],
        reason=texts.get("reason") or ": ".join(filter(None, of_aws)),
        sent_at=datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, UTC),
    )
