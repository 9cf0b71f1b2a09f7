"""One local cloud for all end-to-end tests of a worker, with the real template deployed into it."""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from cli.app import main
from cli.deployment import Deployment
from local.cloud import Cloud
from local.deploy import deploy
from local.recomputed import executions_of
from trainyard.adapters.aws import clients
from trainyard.domain.requests import TERMINAL, Request
from trainyard.domain.tenants import RoleState
from trainyard.persistence.items import stamp
from trainyard.persistence.requests import request_key
from trainyard.persistence.store import Update

PIPELINES = {"InstancePreferences": "true", "SpotTraining": "true"}
"""All pipelines that there may be; the policy below needs some of them."""
POLICY = """
running_max: 6
quiet_period_seconds: 0
delay_max_seconds: 0
start_retry_delay_seconds: 1
tiers:
  basic: &tier
    quota: 2
    running_max_per_tenant: 2
    runtime_max_minutes: 5
    quality_min: 0.5
    instances: [{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}]
  standard: *tier
  premium:
    storage: pool
    quota: 2
    running_max_per_tenant: 2
    runtime_max_minutes: 5
    quality_min: 0.5
    instances: [{data_mb_max: 1, processing: ml.t3.medium, training: [ml.c5.xlarge, ml.m5.large]}]
"""


@dataclass
class Harness:
    """A deployed service, and the operator's hands on it."""

    cloud: Cloud
    outputs: dict[str, str]
    deployment: Deployment
    stack: str = "trainyard"

    def run(self, *arguments: str) -> int:
        return main(["--stack", self.stack, *arguments])

    def create(self, tenant_id: str, *options: str, tier: str = "basic") -> str:
        target = () if "--target" in options else ("--target", "target")
        assert self.run("tenant", "create", tenant_id, "--tier", tier, *target, *options) == 0
        return self.deployment.tenant(tenant_id).bucket

    def lent_key(self) -> str:
        """Make a KMS key that may be lent to a tenant's jobs; return its ARN."""
        lent = [{"TagKey": "trainyard:lend", "TagValue": self.stack}]
        return str(self.cloud.client("kms").create_key(Tags=lent)["KeyMetadata"]["Arn"])

    def put(self, bucket: str, key: str, body: bytes) -> str:
        return str(self.cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=body)["VersionId"])

    def drop(self, tenant_id: str, key: str, body: bytes) -> None:
        """Put an object below a tenant's root, wherever that is."""
        tenant = self.deployment.tenant(tenant_id)
        self.cloud.client("s3").put_object(Bucket=tenant.bucket, Key=tenant.root + key, Body=body)

    def start(self, change: str, payload: dict[str, Any]) -> str:
        """Start a run of a state machine; return its ARN."""
        name = f"{uuid.uuid4()}"
        machine = f"{self.outputs['TenantMachines']}{change}"
        machines = self.cloud.client("stepfunctions")
        answer = machines.start_execution(stateMachineArn=machine, name=name, input=json.dumps(payload))
        return str(answer["executionArn"])

    def finished(self, run: str) -> dict[str, Any]:
        """Wait for a run to end: {status, output, cause}."""

        def found() -> dict[str, Any] | None:
            answer = self.cloud.client("stepfunctions").describe_execution(executionArn=run)
            return dict(answer) if answer["status"] != "RUNNING" else None

        answer = eventually(found, 60)
        return {
            "status": answer["status"],
            "output": json.loads(answer.get("output") or "null"),
            "cause": answer.get("cause"),
        }

    def post(self, queue: str, *bodies: Any) -> None:
        """Put messages straight onto one of the service's queues."""
        url = self.outputs["UploadsQueue"].replace("-uploads", f"-{queue}")
        for body in bodies:
            text = body if isinstance(body, str) else json.dumps(body)
            self.cloud.client("sqs").send_message(QueueUrl=url, MessageBody=text)

    def listen(self, name: str, pattern: dict[str, Any]) -> str:
        """Let a rule on the service's bus send what matches to a queue of its own; return the queue's URL."""
        sqs, events, bus = self.cloud.client("sqs"), self.cloud.client("events"), self.outputs["EventBus"]
        url = str(sqs.create_queue(QueueName=name)["QueueUrl"])
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        rule = events.put_rule(Name=name, EventBusName=bus, EventPattern=json.dumps(pattern))["RuleArn"]
        allowed = {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": rule}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])
        return url

    def letters(self, queue: str) -> list[tuple[str, str]]:
        """Take the letters out of a dead-letter queue: (body, reason)."""
        url = self.outputs["UploadsQueue"].replace("-uploads", f"-{queue}")
        sqs, found = self.cloud.client("sqs"), []
        while messages := sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["reason"]
        ).get("Messages"):
            for message in messages:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                reason = message.get("MessageAttributes", {}).get("reason", {}).get("StringValue", "")
                found.append((message["Body"], reason))
        return found

    def requests(self, tenant_id: str) -> list[Request]:
        return self.deployment.scheduler.tables.requests.of_tenant(tenant_id)

    def ended(self, tenant_id: str, count: int = 1, seconds: float = 60) -> list[Request]:
        """Wait until a tenant has `count` requests and all have ended."""

        def found() -> list[Request] | None:
            requests = self.requests(tenant_id)
            return requests if len(requests) >= count and all(r.state in TERMINAL for r in requests) else None

        return eventually(found, seconds)

    def receipt(self, request: Request) -> dict[str, Any]:
        """Wait for the receipt that tells the request's state; it is written right after the record."""
        s3 = self.cloud.client("s3")
        root = self.deployment.tenant(request.tenant_id).root
        key = f"{root}receipts/{request.data_set}/{request.request_id}.json"

        def found() -> dict[str, Any] | None:
            try:
                receipt = json.loads(s3.get_object(Bucket=request.content.bucket, Key=key)["Body"].read())
            except s3.exceptions.NoSuchKey:
                return None
            return receipt if receipt["state"] == request.state.value else None

        return eventually(found)

    def executions(self) -> list[dict[str, Any]]:
        return executions_of(self.cloud.client("sagemaker"), self.outputs["PipelineName"])

    def executions_of(self, request: Request) -> list[dict[str, Any]]:
        return [e for e in self.executions() if e["PipelineExecutionDisplayName"].startswith(request.request_id)]

    def create_pooled(self, tenant_id: str) -> None:
        """Create a tenant of the pool, with a role that was made long enough ago to be usable everywhere.

        A new role delays its tenant's first request by seconds; one test of that waits for it.
        """
        self.create(tenant_id, tier="premium")
        payload = json.dumps({"make": tenant_id}).encode()
        answer = self.cloud.client("lambda").invoke(FunctionName=self.outputs["RolesFunction"], Payload=payload)
        assert "FunctionError" not in answer, answer["Payload"].read()
        self.age_role(tenant_id)

    def age_role(self, tenant_id: str) -> None:
        """Let a tenant's role have been made long enough ago to be usable everywhere."""
        made_at = datetime.now(UTC) - timedelta(minutes=1)
        self.deployment.tenants.put_role(self.deployment.tenant(tenant_id), RoleState.MADE, made_at)

    def age(self, tenant_id: str, *, minutes: int) -> None:
        """Let a tenant's requests have been admitted, and have begun if they have, some minutes earlier."""
        for request in self.requests(tenant_id):
            assert request.admitted_at is not None
            began = stamp((request.started_at or request.admitted_at) - timedelta(minutes=minutes))
            changes = {"started_at" if request.started_at else "admitted_at": began, "since": began}
            self.deployment.store.transact([Update(request_key(request.request_id), set=changes)])

    def slots_used(self) -> int:
        return self.deployment.scheduler.tables.ledger.read().used


T = TypeVar("T")


def eventually(find: Callable[[], T | None], seconds: float = 30) -> T:
    """Return what `find` finds, as soon as it does; raises AssertionError after `seconds`."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        found = find()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s")


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    before = dict(os.environ)
    with Cloud() as cloud:
        os.environ |= cloud.environment()
        clients.forget()
        outputs = deploy(cloud, parameters=PIPELINES)
        policy = tmp_path_factory.mktemp("policy") / "policy.yaml"
        policy.write_text(POLICY, encoding="utf-8")
        made = Harness(cloud, outputs, Deployment("trainyard"))
        assert made.run("policy", "apply", "--yes", str(policy)) == 0
        yield made
    os.environ.clear()
    os.environ |= before
    clients.forget()


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "harness" in request.fixturenames:
        request.getfixturevalue("harness").cloud.plant_faults()
