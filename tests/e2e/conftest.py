"""One local cloud for all end-to-end tests of a worker, with the real template deployed into it."""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import jsonschema
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from rich.cells import cell_len

from cli import perform
from cli.app import main
from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.perform import call
from cli.show import Answer, lines_of, show
from cli.syntax.command import Command
from cli.text import printable
from local.cloud import REPOSITORY, Cloud
from local.deploy import deploy
from local.recomputed import executions_of
from tests.e2e.streams import check_streams
from tests.unit.test_cli import command_of, leaves
from trainyard.adapters.aws import clients
from trainyard.domain.requests import TERMINAL, Request
from trainyard.domain.tenants import RoleState
from trainyard.domain.waves import Wave, WaveState
from trainyard.persistence.items import stamp
from trainyard.persistence.requests import request_key
from trainyard.persistence.store import Update
from trainyard.persistence.waves import Waves

OPTIONS = {
    "InstancePreferences": "true",
    "SpotTraining": "true",
    "SharedServing": "true",
    "DirectInvocation": "true",
    "ApprovalLinks": "true",
    "HttpApi": "true",
    "ApiOrigins": "https://portal.example.com",
    "EventAccounts": "999999999999,888888888888",
}
"""All pipelines that there may be, some of which the policy below needs; and all that serving can do."""
POLICY = """
running_max: 6
quiet_period_seconds: 0
delay_max_seconds: 0
start_retry_delay_seconds: 1
retraining:
  sources: {com.example.crm: [asked-by-crm]}
  alarms: [{name: "quality/{tenant}/{data_set}"}]
tiers:
  basic:
    quota: 2
    running_max_per_tenant: 2
    runtime_max_minutes: 5
    quality_min: 0.5
    instances: [{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}]
  standard:
    quota: 2
    running_max_per_tenant: 2
    runtime_max_minutes: 10
    quality_min: 0.5
    tuning_trials_max: 4
    instances: [{data_mb_max: 100, processing: ml.t3.medium, training: ml.m5.large}]
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
    certificate: str = ""
    """A PEM file with the key and the certificate of localhost, which the local cloud trusts."""

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
        events, bus = self.cloud.client("events"), self.outputs["EventBus"]
        rule = events.put_rule(Name=name, EventBusName=bus, EventPattern=json.dumps(pattern))["RuleArn"]
        url, arn = self._queue_for(name, "events", rule)
        events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])
        return url

    def _queue_for(self, name: str, service: str, source: str) -> tuple[str, str]:
        """Create a queue to which a service may send for one rule or topic; return its URL and ARN."""
        sqs = self.cloud.client("sqs")
        url = str(sqs.create_queue(QueueName=name)["QueueUrl"])
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        allowed = {
            "Effect": "Allow",
            "Principal": {"Service": f"{service}.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": source}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        return url, arn

    def inbox(self, topic: str) -> Callable[[], list[str]]:
        """Subscribe a queue to a topic; return a function that returns all messages since then."""
        sns, sqs, texts = self.cloud.client("sns"), self.cloud.client("sqs"), list[str]()
        url, arn = self._queue_for(f"inbox-{uuid.uuid4().hex[:8]}", "sns", topic)
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})

        def messages() -> list[str]:
            answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=600)
            texts.extend(message["Body"] for message in answer.get("Messages", []))
            return texts

        return messages

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

    def ended(self, tenant_id: str, count: int = 1, seconds: float = 150) -> list[Request]:
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

    def carried_on(self, wave_id: str, seconds: float = 60) -> Wave:
        """Let the timer of waves come until a wave has ended, or waits for somebody; return it."""

        def find() -> Wave | None:
            client = self.cloud.client("lambda")
            answer = client.invoke(FunctionName=self.outputs["WavesFunction"], Payload=b"{}")
            assert "FunctionError" not in answer, answer["Payload"].read()
            wave = Waves(self.deployment.store).get(wave_id)
            assert wave is not None
            return wave if wave.state not in (WaveState.RUNNING, WaveState.GOING_BACK) else None

        return eventually(find, seconds)

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


NAMES_WIDTH = 32
"""At most, of the column of names before the values."""


SCHEMA = json.loads((REPOSITORY / "docs/cli.schema.json").read_text(encoding="utf-8"))
WORDS = {
    command.run: " ".join(words)
    for words in reversed([*leaves()])
    if isinstance(command := command_of(words), Command)
}
"""What carries a command out → the command."""


def call_and_check(run: str, deployment: Deployment, arguments: Arguments) -> Answer | None:
    """Carry a command out, and check that what --json would print follows docs/cli.schema.json."""
    answer = call(run, deployment, arguments)
    if answer is not None:
        data = json.loads(json.dumps(answer.data, default=str, allow_nan=False))
        of_command = {**SCHEMA, "$ref": f"#/$defs/{quote(WORDS[run])}"}
        jsonschema.Draft202012Validator(of_command).validate(data)
    return answer


def show_and_check(answer: Answer) -> None:
    """Print an answer, and check that it fits terminals, and goes to streams of each kind.

    What may be pasted is not wrapped, and neither are the URIs, ARNs and names that are as long as the line.
    """
    pasted = {printable(line) for line in answer.verbatim}
    for width in (60, 80, 120):
        for line in lines_of(answer, width):
            longest = max(map(cell_len, line.text.split()), default=0)
            fits = cell_len(line.text) <= max(width, NAMES_WIDTH + longest) or line.text in pasted
            assert fits, (width, line.text)
    check_streams(answer)
    show(answer)


def certificate_of_localhost(path: Path) -> str:
    """Write a new key and its self-signed certificate for localhost; return the file's name."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(written + builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return str(path)


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    before = dict(os.environ)
    certificate = certificate_of_localhost(tmp_path_factory.mktemp("tls") / "localhost.pem")
    os.environ["SSL_CERT_FILE"] = certificate
    with Cloud() as cloud:
        os.environ |= cloud.environment()
        clients.forget()
        outputs = deploy(cloud, parameters=OPTIONS)
        policy = tmp_path_factory.mktemp("policy") / "policy.yaml"
        policy.write_text(POLICY, encoding="utf-8")
        vars(perform).update(call=call_and_check, show=show_and_check)  # whatever a test lets a command print
        made = Harness(cloud, outputs, Deployment("trainyard"), certificate=certificate)
        assert made.run("policy", "apply", "--yes", str(policy)) == 0
        yield made
        vars(perform).update(call=call, show=show)
    os.environ.clear()
    os.environ |= before
    clients.forget()


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "harness" in request.fixturenames:
        request.getfixturevalue("harness").cloud.plant_faults()
