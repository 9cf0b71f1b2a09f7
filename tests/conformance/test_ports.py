"""The other ports: the AWS adapters, on moto and on the local cloud, do the same as those in memory."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import boto3
import pytest
from moto import mock_aws

from simulation.clock import Agenda
from simulation.cloud import RECEIVES_MAX, Queue, SageMaker
from simulation.trouble import Trouble
from testing import memory_ports
from testing.service import DEFAULTS
from tests.build import NOW, after, content, policy, request, submission, tenant, tier
from tests.tables import create_tables
from trainyard.adapters.aws import clients
from trainyard.adapters.aws.queues import SqsTierQueues
from trainyard.adapters.aws.sagemaker import SageMakerExecutions
from trainyard.adapters.aws.storage import S3DataSets, S3Receipts
from trainyard.adapters.aws.tables import DynamoTenants
from trainyard.contracts.messages import parse_training_request
from trainyard.domain.errors import Conflict, Refused, StartInvalid
from trainyard.domain.parameters import pipeline_parameters
from trainyard.domain.receipts import Prospect
from trainyard.domain.requests import TERMINAL, State
from trainyard.domain.scheduling import Reason
from trainyard.domain.tenants import RoleState, TrainOn

DEFINITION = Path(__file__).parents[2] / "pipeline/definition.json"
_numbers = count()


@dataclass
class Place:
    """Where a port's adapter lives."""

    kind: str
    name: str = field(default_factory=lambda: f"ports-{next(_numbers)}")

    @property
    def in_memory(self) -> bool:
        return self.kind == "memory"

    @property
    def bucket(self) -> str:
        return f"{self.name}-acme"

    def client(self, service: str) -> Any:
        return clients.client(service)


@pytest.fixture(params=["memory", "moto", "ministack"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(request.param)
    if made.kind == "memory":
        yield made
        return
    if made.kind == "moto":
        with mock_aws():
            clients.forget()
            create_tables(boto3.client("dynamodb"), prefix=f"{made.name}-")
            yield made
    else:
        for name, value in request.getfixturevalue("ministack_cloud").environment().items():
            monkeypatch.setenv(name, value)
        clients.forget()
        create_tables(clients.client("dynamodb"), prefix=f"{made.name}-")
        yield made
    clients.forget()


def test_of_a_record_the_role_changes_alone_and_only_where_nobody_has_changed_it(place: Place) -> None:
    records: Any = (
        memory_ports.MemoryTenants() if place.in_memory else DynamoTenants(tenants_table=f"{place.name}-tenants")
    )
    before = records.put(tenant("roled", bucket="pool", root="roled/"))
    now = NOW
    marked = records.put_role(before, RoleState.REMOVING, now)
    expected = replace(before, role=RoleState.REMOVING, role_since=now, revision=before.revision + 1)
    assert marked == expected == records.get("roled")
    with pytest.raises(Conflict):
        records.put_role(before, RoleState.MADE, now)
    gone = records.put_role(marked, RoleState.NONE, None)
    assert gone == replace(expected, role=RoleState.NONE, role_since=None, revision=marked.revision + 1)
    assert records.get("roled") == gone


def test_a_tenant_is_found_by_its_bucket_or_its_prefix_and_by_nothing_else(place: Place) -> None:
    silo, pooled = tenant(bucket=place.bucket), tenant("acme10", bucket="pool", root="acme10/")
    records: Any = (
        memory_ports.MemoryTenants() if place.in_memory else DynamoTenants(tenants_table=f"{place.name}-tenants")
    )
    silo, pooled = records.put(silo), records.put(pooled)
    with pytest.raises(Conflict):
        records.put(replace(silo, revision=0))
    assert records.owner_of(place.bucket, "incoming/x/y") == records.get("acme") == silo
    assert records.owner_of("pool", "acme10/incoming/x/y") == pooled
    assert records.owner_of("pool", "acme1/incoming/x/y") is None
    assert records.owner_of("pool", "acme10") is None
    several = [
        (place.bucket, "incoming/a"),
        ("pool", "acme1/x"),
        ("pool", "acme10/x"),
        (place.bucket, "b"),
        ("no", "x"),
    ]
    assert records.owners_of(several) == [silo, None, pooled, silo, None]
    assert records.owners_of(several * 30) == [silo, None, pooled, silo, None] * 30
    assert records.owners_of([]) == []
    assert records.claim_key("arn:key/1", "acme") == records.claim_key("arn:key/1", "acme") == "acme"
    assert records.claim_key("arn:key/1", "acme10") == "acme"
    assert records.claim_key("arn:key/1", "acme10", instead_of="another") == "acme"
    assert records.claim_key("arn:key/1", "acme10", instead_of="acme") == "acme10"
    assert records.claim_key("arn:key/1", "acme") == "acme10"
    assert {found.tenant_id for found in records.page()[0]} == {"acme", "acme10"}
    assert records.get("nobody") is None


def test_a_receipt_never_goes_back(place: Place) -> None:
    owner = tenant(bucket=place.bucket)
    receipts: Any = memory_ports.MemoryReceipts() if place.in_memory else S3Receipts()
    if not place.in_memory:
        place.client("s3").create_bucket(Bucket=place.bucket)

    def told() -> str:
        if place.in_memory:
            return str(receipts.written[request(1).request_id]["state"])
        key = f"receipts/set-1/{request(1).request_id}.json"
        return str(json.loads(place.client("s3").get_object(Bucket=place.bucket, Key=key)["Body"].read())["state"])

    for state, attempt, expected in (
        (State.QUEUED, 0, "QUEUED"),
        (State.RUNNING, 1, "RUNNING"),
        (State.QUEUED, 0, "RUNNING"),
        (State.QUEUED, 1, "QUEUED"),
        (State.RUNNING, 1, "QUEUED"),
        (State.ADMITTED, 2, "ADMITTED"),
        (State.RUNNING, 2, "RUNNING"),
        (State.SUCCEEDED, 2, "SUCCEEDED"),
        (State.RUNNING, 2, "SUCCEEDED"),
    ):
        receipts.write(owner, request(1, state=state, attempt=attempt), NOW)
        assert told() == expected


def test_what_a_waiting_request_can_expect_is_written_where_it_has_changed(place: Place) -> None:
    owner = tenant(bucket=place.bucket)
    receipts: Any = memory_ports.MemoryReceipts() if place.in_memory else S3Receipts()
    if not place.in_memory:
        place.client("s3").create_bucket(Bucket=place.bucket)

    def stored() -> dict[str, Any]:
        if place.in_memory:
            return dict(receipts.written[request(1).request_id])
        key = f"receipts/set-1/{request(1).request_id}.json"
        return dict(json.loads(place.client("s3").get_object(Bucket=place.bucket, Key=key)["Body"].read()))

    first = Prospect(reason=Reason.TURN, position=2, earliest=after(90), latest=after(601))
    second = replace(first, position=1)
    waits = request(1, state=State.QUEUED)
    for state, prospect, is_new, position in (
        (State.QUEUED, None, True, None),
        (State.QUEUED, first, True, 2),
        (State.QUEUED, first, False, 2),
        (State.QUEUED, replace(first, latest=after(700)), False, 2),  # within the same ten minutes
        (State.QUEUED, None, False, 2),
        (State.QUEUED, second, True, 1),
    ):
        assert receipts.write(owner, replace(waits, state=state), NOW, prospect) is is_new
        assert stored().get("waiting", {}).get("position") == position
    assert stored()["waiting"]["expected_start"] == {
        "earliest": after(0).isoformat(),
        "latest": after(1200).isoformat(),
    }
    assert receipts.write(owner, replace(waits, state=State.ADMITTED, attempt=1), NOW, None)
    assert not receipts.write(owner, waits, NOW, first), "a late writer"
    assert "waiting" not in stored()


@pytest.mark.parametrize("place", ["moto", "ministack"], indirect=True)
def test_the_latest_receipt_of_a_data_set_is_that_of_its_last_request_that_ended(place: Place) -> None:
    owner, receipts, s3 = tenant(bucket=place.bucket), S3Receipts(), place.client("s3")
    s3.create_bucket(Bucket=place.bucket)

    def latest() -> tuple[str, str] | None:
        try:
            body = s3.get_object(Bucket=place.bucket, Key="receipts/churn/latest.json")["Body"].read()
        except s3.exceptions.NoSuchKey:
            return None
        receipt = json.loads(body)
        return receipt["request_id"][-1], receipt["state"]

    for number, minute, state, attempt, expected in (
        (8, 1, State.RUNNING, 1, None),
        (8, 1, State.FAILED, 1, ("8", "FAILED")),
        (3, 3, State.SUCCEEDED, 1, ("3", "SUCCEEDED")),
        (9, 2, State.SUCCEEDED, 9, ("3", "SUCCEEDED")),
        (4, 4, State.SUPERSEDED, 1, ("3", "SUCCEEDED")),
        (2, 5, State.QUEUED, 1, ("3", "SUCCEEDED")),
        (2, 5, State.STOPPED, 1, ("2", "STOPPED")),
    ):
        given = request(number, data_set="churn", state=state, attempt=attempt, arrived_at=after(60 * minute))
        given = replace(given, finished_at=given.arrived_at if state in TERMINAL else None, arrived_at=NOW)
        receipts.write(owner, given, NOW)
        assert latest() == expected
    s3.put_object(Bucket=place.bucket, Key="receipts/churn/latest.json", Body=b"somebody else's")
    receipts.write(owner, request(2, data_set="churn", state=State.FAILED), NOW)
    assert latest() == ("2", "FAILED")


def test_a_data_set_is_its_newest_object_or_everything_below_it(place: Place) -> None:
    newest, whole = tenant(bucket=place.bucket), tenant(bucket=place.bucket)
    whole.data_sets["churn"] = _whole(whole)
    data_sets: Any = memory_ports.MemoryDataSets() if place.in_memory else S3DataSets()
    keys = ["incoming/churn/a.csv", "incoming/churn/b.csv"]
    if place.in_memory:
        data_sets.objects["acme", "churn"] = [content(key, size_bytes=5, bucket=place.bucket) for key in keys]
    else:
        place.client("s3").create_bucket(Bucket=place.bucket)
        for key in [*keys, "incoming/churn.bak"]:
            place.client("s3").put_object(Bucket=place.bucket, Key=key, Body=b"12345")
    found = data_sets.content_of(newest, "churn")
    assert (found.key, found.size_bytes, found.sequencer) == (keys[1], 5, "")
    assert data_sets.names(newest) == ["churn"]
    assert data_sets.content_of(newest, "none") is None
    one = request(1, data_set="churn", content=found)
    assert data_sets.write_manifest(newest, one).size_bytes == 5
    assert data_sets.write_manifest(whole, one).size_bytes == 10
    whole.data_sets["empty"] = _whole(whole)
    with pytest.raises(Refused):
        data_sets.write_manifest(whole, request(2, data_set="empty"))


def _whole(owner: Any) -> Any:
    return type(owner.settings)(algorithm=owner.settings.algorithm, target="y", train_on=TrainOn.WHOLE_PREFIX)


def test_more_submissions_than_a_batch_holds_all_arrive_at_the_queue_of_their_tier(place: Place) -> None:
    sent = [submission(n, tier="basic" if n % 2 else "premium", alone=n == 3) for n in range(1, 24)]
    queues: Any = memory_ports.MemoryTierQueues() if place.in_memory else SqsTierQueues(prefix=f"{place.name}-")
    urls: list[str] = []
    if not place.in_memory:
        urls = [
            place.client("sqs").create_queue(QueueName=f"{place.name}-{name}")["QueueUrl"]
            for name in ("basic", "premium")
        ]
    assert queues.send(sent) == {}
    arrived = (
        queues.sent if place.in_memory else [parse_training_request(b) for u in urls for b in _drained(place, u)]
    )
    assert sorted(arrived, key=lambda s: s.request_id) == sent
    if not place.in_memory:
        astray, more = submission(30, tier="astray"), submission(31, tier="premium")
        assert list(queues.send([astray, more])) == [astray.request_id], "a tier without a queue stops no other"


def _drained(place: Place, url: str) -> Iterator[str]:
    sqs = place.client("sqs")
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            yield message["Body"]


# --- queues -------------------------------------------------------------------------------------------------


def test_a_message_that_always_fails_comes_again_and_ends_as_a_dead_letter(place: Place) -> None:
    deliveries, dead = (_simulated if place.in_memory else _real)(place)
    assert (deliveries, dead) == (RECEIVES_MAX, ["poison"])


def _simulated(place: Place) -> tuple[int, list[str]]:
    agenda, seen = Agenda(), []

    def consume(batch: list[Any]) -> set[int]:
        seen.extend(batch)
        return set(range(len(batch)))

    queue = Queue("tier", agenda, Trouble(agenda, Random(1), share=0.0, active=False), consume)
    queue.send("poison")
    while agenda.step():
        pass
    return len(seen), [message.body for message in queue.dead]


def _real(place: Place) -> tuple[int, list[str]]:
    sqs = place.client("sqs")
    letters = sqs.create_queue(QueueName=f"{place.name}-dlq")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=letters, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": RECEIVES_MAX})
    attributes = {"RedrivePolicy": policy, "VisibilityTimeout": "0"}
    url = sqs.create_queue(QueueName=f"{place.name}-tier", Attributes=attributes)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="poison")
    deliveries = 0
    for _ in range(3 * RECEIVES_MAX):
        deliveries += len(sqs.receive_message(QueueUrl=url).get("Messages", []))
    return deliveries, list(_drained(place, letters))


# --- executions (moto keeps no token, and knows no stop: the local cloud's SageMaker stands for it) ----------

PARAMETERS = pipeline_parameters(
    request(1, attempt=1),
    tenant(),
    tier(),
    policy().algorithm("linear"),
    defaults=DEFAULTS,
)


@pytest.fixture(params=["memory", "simulation", "ministack"])
def executions(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, Callable[[], datetime]]]:
    """Yield an adapter of Executions, and its clock."""
    if request.param == "memory":
        yield memory_ports.MemoryExecutions(), lambda: NOW
    elif request.param == "simulation":
        agenda = Agenda()
        trouble = Trouble(agenda, Random(1), share=0.0, active=False)
        yield SageMaker(agenda, trouble, 10, _an_hour, lambda _: None), lambda: agenda.now
    else:
        for name, value in request.getfixturevalue("ministack_cloud").environment().items():
            monkeypatch.setenv(name, value)
        clients.forget()
        name = f"conformance-{next(_numbers)}"
        clients.client("sagemaker").create_pipeline(
            PipelineName=name,
            PipelineDefinition=DEFINITION.read_text(encoding="utf-8"),
            RoleArn="arn:aws:iam::123456789012:role/pipeline",
            ClientRequestToken="t" * 32,
        )
        yield SageMakerExecutions(pipeline_names={"": name}), lambda: datetime.now(UTC)
        clients.forget()


def _an_hour(parameters: dict[str, str], execution: Any) -> None:
    execution.ends_at = execution.started_at + timedelta(hours=1)


def test_an_execution_starts_once_for_a_token_is_found_by_its_name_and_can_be_stopped(
    executions: tuple[Any, Callable[[], datetime]],
) -> None:
    port, now = executions
    begin = now()
    token = "trainyard-token-of-more-than-32-characters"
    first = port.start(name=f"{1:032x}-1", token=token, description="d", parameters=PARAMETERS)
    assert port.start(name=f"{1:032x}-1", token=token, description="d", parameters=PARAMETERS) == first
    other = port.start(name=f"{2:032x}-1", token=f"{token}-2", description="d", parameters=PARAMETERS)
    assert other != first
    started = port.started(since=begin)
    assert started[f"{1:032x}-1"] == first
    assert f"{1:032x}-2" not in started
    assert port.status(first) in ("Executing", "Failed", "Succeeded")
    assert set(port.running(since=begin).values()) <= {f"{1:032x}-1", f"{2:032x}-1"}
    port.stop(other)
    port.stop(other)


@pytest.mark.parametrize("executions", ["ministack"], indirect=True)  # in memory, parameters are not looked at
def test_a_parameter_that_sagemaker_does_not_know_is_refused_for_good(
    executions: tuple[Any, Callable[[], datetime]],
) -> None:
    port, _ = executions
    with pytest.raises(StartInvalid):
        port.start(name=f"{3:032x}-1", token="t" * 40, description="d", parameters=PARAMETERS | {"Surprise": "1"})
