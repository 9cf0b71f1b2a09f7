"""The tier queues, the dead letters and the application's event bus."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from random import uniform
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import translated
from trainyard.application.ports import AT_ONCE
from trainyard.domain.announcements import APPLICATION_SOURCE
from trainyard.domain.arrivals import RetrainingAsked, delay_within
from trainyard.domain.errors import Throttled, TrainyardError
from trainyard.domain.receipts import without_account
from trainyard.domain.requests import Request, State, Submission
from trainyard.domain.tenants import Tenant

_BATCH = 10
"""Most messages of one SendMessageBatch (SQS developer guide, "Message quotas")."""


class SqsTierQueues:
    """Implements TierQueues; a tier's queue is named by a prefix and the tier."""

    def __init__(self, *, prefix: str) -> None:
        self._prefix = prefix

    def send(self, submissions: Sequence[Submission]) -> dict[str, str]:
        """Batches are independent: a tier whose queue is missing or throttled does not affect the others."""
        unsent: dict[str, str] = {}
        for tier in sorted({submission.tier for submission in submissions}):
            of_tier = [submission for submission in submissions if submission.tier == tier]
            for start in range(0, len(of_tier), _BATCH):
                batch = of_tier[start : start + _BATCH]
                try:
                    unsent |= self._send_batch(tier, batch)
                except (ClientError, TrainyardError) as error:
                    unsent |= dict.fromkeys((submission.request_id for submission in batch), str(error))
        return unsent

    def _send_batch(self, tier: str, batch: Sequence[Submission]) -> dict[str, str]:
        """MessageGroupId makes the standard queue fair between tenants."""
        from trainyard.contracts.messages import training_request_body

        with translated():
            answer = client("sqs").send_message_batch(
                QueueUrl=_queue_url(f"{self._prefix}{tier}"),
                Entries=[
                    {
                        "Id": submission.request_id,
                        "MessageBody": training_request_body(submission),
                        "MessageGroupId": submission.tenant_id,
                    }
                    for submission in batch
                ],
            )
        return {failed["Id"]: failed.get("Message", failed["Code"]) for failed in answer.get("Failed", [])}


class SqsRetrainings:
    """Implements Retrainings: onto the queue from which intake takes them one by one."""

    def __init__(self, *, queue_url: str) -> None:
        self._queue_url = queue_url

    def ask(self, asked: Sequence[RetrainingAsked], *, spread: timedelta = AT_ONCE) -> None:
        from trainyard.contracts.arrivals import retraining_body

        now = datetime.now(UTC)
        for start in range(0, len(asked), _BATCH):
            entries = [
                {
                    "Id": str(number),
                    "MessageBody": retraining_body(retraining, now),
                    **({"DelaySeconds": delay} if (delay := delay_within(spread, retraining)) else {}),
                }
                for number, retraining in enumerate(asked[start : start + _BATCH])
            ]
            with translated():
                answer = client("sqs").send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            if answer.get("Failed"):
                raise Throttled(f"the uploads queue did not accept all messages: {answer['Failed'][0]['Code']}")


class SqsDeadLetters:
    """Implements DeadLetters: the dead-letter queue of a source queue, reason as an attribute."""

    REASON_LENGTH_MAX = 500

    def __init__(self, *, queue_url: str) -> None:
        self._queue_url = queue_url

    def keep(self, body: str, reason: str) -> None:
        attribute: dict[str, Any] = {"DataType": "String", "StringValue": reason[: self.REASON_LENGTH_MAX]}
        with translated():
            client("sqs").send_message(
                QueueUrl=self._queue_url, MessageBody=body, MessageAttributes={"reason": attribute}
            )


class SqsRedelivery:
    """Redelivers failed messages before their visibility timeout ends.

    After 15 s, one minute and four minutes, with jitter of ±50 %, since messages throttled together would return
    together; after that with the queue's own timeout, so that a short outage produces no dead letters.
    """

    SECONDS = (15, 60, 240)

    def soon(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Shorten the visibility timeout of an event source's records, in seconds; raises the first failure."""
        entries: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for number, record in enumerate(records):
            received = int(record["attributes"]["ApproximateReceiveCount"])
            if received <= len(self.SECONDS):
                seconds = int(self.SECONDS[received - 1] * uniform(0.5, 1.5))  # noqa: S311 - no secret
                handle = record["receiptHandle"]
                again = {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
                entries[record["eventSourceARN"].rpartition(":")[2]].append(again)
        for queue, of_queue in entries.items():
            for start in range(0, len(of_queue), _BATCH):
                with translated():
                    answer = client("sqs", hurried=True).change_message_visibility_batch(
                        QueueUrl=_queue_url(queue, hurried=True), Entries=of_queue[start : start + _BATCH]
                    )
                if answer.get("Failed"):
                    raise Throttled(f"{queue}: {answer['Failed'][0].get('Message', answer['Failed'][0]['Code'])}")


DETAIL_TYPES = {
    State.QUEUED: "Training Request Queued",
    State.REJECTED: "Training Request Rejected",
    State.SUPERSEDED: "Training Request Superseded",
    State.CANCELLED: "Training Request Cancelled",
    State.RUNNING: "Training Request Started",
    State.SUCCEEDED: "Training Request Succeeded",
    State.FAILED: "Training Request Failed",
    State.STOPPED: "Training Request Stopped",
}

OUTBOX_EVENTS = {
    "budget": "Budget Threshold Crossed",
    "pace": "Cost Anomaly Detected",
    "deadline at risk": "Deadline At Risk",
    "deadline missed": "Deadline Will Be Missed",
}


class EventBridgeAnnouncements:
    """Implements Announcements on the application's own bus."""

    def __init__(self, *, event_bus_name: str) -> None:
        self._bus = event_bus_name

    def announce(self, request: Request) -> None:
        outcome = request.outcome
        detail = {
            "schema_version": 1,
            "request_id": request.request_id,
            "tenant_id": request.tenant_id,
            "tier": request.tier,
            "data_set": request.data_set,
            "kind": request.kind.value,
            "attempt": request.attempt,
            "state": request.state.value,
            "reason": without_account(request.reason),
            "superseded_by": request.superseded_by,
            "execution_arn": request.execution_arn,
            "model_package_arn": outcome.model_package_arn if outcome else None,
            "quality": outcome.quality if outcome else None,
        }
        with translated():
            answer = client("events").put_events(
                Entries=[
                    {
                        "EventBusName": self._bus,
                        "Source": APPLICATION_SOURCE,
                        "DetailType": DETAIL_TYPES[request.state],
                        "Detail": json.dumps(detail),
                    }
                ]
            )
        self._checked(answer)

    def announce_tenant(self, tenant: Tenant, what: str) -> None:
        """Publish what happened to a tenant: Created, Updated, Suspended, Resumed, Moved or Deleted."""
        detail = {
            "schema_version": 1,
            "tenant_id": tenant.tenant_id,
            "tier": tenant.tier,
            "state": tenant.state.value,
            "bucket": tenant.bucket,
            "root": tenant.root,
        }
        with translated():
            answer = client("events").put_events(
                Entries=[
                    {
                        "EventBusName": self._bus,
                        "Source": APPLICATION_SOURCE,
                        "DetailType": f"Tenant {what}",
                        "Detail": json.dumps(detail),
                    }
                ]
            )
        self._checked(answer)

    def tell(self, what: str, values: Mapping[str, Any]) -> None:
        """Publish what a transaction left in the outbox."""
        from trainyard.contracts.deadlines import deadline_event
        from trainyard.contracts.model_events import DETAIL_TYPES as MODEL_EVENTS
        from trainyard.contracts.model_events import model_event
        from trainyard.contracts.money import money_event

        if what in MODEL_EVENTS:
            detail = model_event({**values, "reason": without_account(values.get("reason"))})
        else:
            detail = deadline_event(values) if what.startswith("deadline") else money_event(what, values)
        with translated():
            answer = client("events").put_events(
                Entries=[
                    {
                        "EventBusName": self._bus,
                        "Source": APPLICATION_SOURCE,
                        "DetailType": MODEL_EVENTS.get(what) or OUTBOX_EVENTS[what],
                        "Detail": detail,
                    }
                ]
            )
        self._checked(answer)

    def _checked(self, answer: dict[str, Any]) -> None:
        if answer["FailedEntryCount"]:
            raise Throttled(f"the event bus rejected the event: {answer['Entries'][0].get('ErrorMessage')}")


@cache
def _queue_url(name: str, *, hurried: bool = False) -> str:
    sqs = client("sqs", hurried=True) if hurried else client("sqs")  # the one that the caller has built
    with translated():
        return str(sqs.get_queue_url(QueueName=name)["QueueUrl"])


def queue_exists(name: str) -> bool:
    return queue_url_of(name) is not None


def queue_url_of(name: str) -> str | None:
    """Return the URL of a queue; None where there is no such queue."""
    sqs = client("sqs")
    with translated():
        try:
            return str(sqs.get_queue_url(QueueName=name)["QueueUrl"])
        except sqs.exceptions.QueueDoesNotExist:
            return None
