"""Find a deployment's parts by its stack, and build the ports over them."""

import re
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from cli.region import settle_region
from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.store import DynamoStore, backoff
from trainyard.adapters.aws.tables import DynamoBell, DynamoTenants
from trainyard.application.scheduling.explain import Explain
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.contracts.compiled_policy import DEPLOYED
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.errors import Refused, TrainyardError
from trainyard.domain.requests import Request
from trainyard.domain.tenants import Tenant
from trainyard.persistence.book import Book
from trainyard.persistence.inference import InferenceBook
from trainyard.persistence.policies import Policies

if TYPE_CHECKING:
    from trainyard.application.scheduling.expedite import Expedite
    from trainyard.application.scheduling.pauses import Pauses
    from trainyard.application.scheduling.policy_changes import JobLimits, PolicyChanges
    from trainyard.application.scheduling.stop import Stop

ID_CHARACTERS = 32
BEGINNING = re.compile(r"[0-9a-f]{4,32}")
SHOWN_MAX = 5
"""Of the ids that begin alike."""


class Unreachable(TrainyardError):
    """There is no deployment to talk to."""


def _first_call(service: str) -> Any:
    """Return a client for a command's first call, which fails within seconds where nobody answers."""
    impatient = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"})
    return boto3.client(service, config=impatient)


class Deployment:
    """What a stack deployed; each part is looked up once, when it is first needed."""

    def __init__(self, stack: str) -> None:
        self.stack = stack

    @cached_property
    def region(self) -> str:
        """Return the stack's Region, whose prices apply; raises Unreachable when none is set, or two are."""
        try:
            return settle_region()
        except Refused as error:
            raise Unreachable(str(error)) from error

    @cached_property
    def outputs(self) -> dict[str, str]:
        region = self.region
        try:
            (stack,) = _first_call("cloudformation").describe_stacks(StackName=self.stack)["Stacks"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            account = _first_call("sts").get_caller_identity()["Account"]
            raise Unreachable(
                f"there is no stack {self.stack!r} in account {account}, Region {region}: name another with "
                "--stack or TRAINYARD_STACK, or set AWS_REGION and AWS_PROFILE (`make deploy` makes one; "
                "`make demo KEEP=1` makes one on this machine)"
            ) from error
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    @property
    def _retention(self) -> timedelta:
        return timedelta(days=int(self.outputs["RequestRetentionDays"]))

    @property
    def tenants(self) -> DynamoTenants:
        return DynamoTenants(tenants_table=self.outputs["TenantsTable"])

    @property
    def store(self) -> DynamoStore:
        return DynamoStore(
            scheduler_table=self.outputs["SchedulerTable"],
            requests_table=self.outputs["RequestsTable"],
            record_table=self.outputs["RecordTable"],
        )

    @property
    def book(self) -> Book:
        return Book(store=self.store)

    @property
    def inference_book(self) -> InferenceBook:
        retention = timedelta(days=int(self.outputs["RequestRetentionDays"]))
        return InferenceBook(store=self.store, retention=retention)

    @property
    def policies(self) -> Policies:
        return Policies(
            backoff=backoff,
            store=self.store,
            deployed=DEPLOYED.read_text(encoding="utf-8"),
            parse=lambda text, version: parse_policy(text, version, self.region),
            running_max=int(self.outputs["RunningMax"]),
        )

    @property
    def bell(self) -> DynamoBell:
        return DynamoBell(scheduler_table=self.outputs["SchedulerTable"], bell_queue_url=self.outputs["BellQueue"])

    @property
    def scheduler(self) -> Scheduler:
        return Scheduler.over(self.store, retention=self._retention, backoff=backoff)

    @property
    def job_limits(self) -> "JobLimits":
        from trainyard.application.scheduling.policy_changes import JobLimits

        return JobLimits(
            instance_types=tuple(self.outputs["AllowedInstanceTypes"].split(",")),
            runtime_max_seconds=int(self.outputs["JobRuntimeMaxSeconds"]),
            training_types_max=int(self.outputs["TrainingTypesMax"]),
            has_spot=self.outputs["SpotTraining"] == "true",
        )

    @property
    def policy_changes(self) -> "PolicyChanges":
        from trainyard.application.scheduling.policy_changes import PolicyChanges

        return PolicyChanges(
            policies=self.policies,
            tenants=self.tenants,
            bell=self.bell,
            jobs=self.job_limits,
            has_tier_queue=self.has_tier_queue,
        )

    def has_tier_queue(self, tier: str) -> bool:
        prefix = self.outputs["UploadsQueue"].rpartition("/")[2].removesuffix("uploads")
        from trainyard.adapters.aws.queues import queue_exists

        return queue_exists(f"{prefix}tier-{tier}")

    @property
    def explain(self) -> Explain:
        return Explain(policies=self.policies, scheduler=self.scheduler)

    def last_passes(self, request: Request, *, limit: int = 3) -> list[dict[str, Any]]:
        """Return what the last recorded passes decided about a waiting request's lane, newest first."""
        from trainyard.contracts.api_passes import passes_of

        now = datetime.now(UTC)
        records = (
            record
            for hour in (now, now - timedelta(hours=1))
            for record in self.scheduler.admitter.pass_records(hour, limit=20)
        )
        return [
            each.model_dump() | {"at": each.at.strftime("%H:%M:%S")}
            for each in islice(passes_of(records, request), limit)
        ]

    @property
    def expedite(self) -> "Expedite":
        from trainyard.application.scheduling.expedite import Expedite

        return Expedite(scheduler=self.scheduler, explain=self.explain, bell=self.bell)

    @property
    def pauses(self) -> "Pauses":
        from trainyard.application.scheduling.pauses import Pauses

        return Pauses(policies=self.policies, tenants=self.tenants, scheduler=self.scheduler, bell=self.bell)

    @property
    def stop(self) -> "Stop":
        from trainyard.adapters.aws.queues import EventBridgeAnnouncements
        from trainyard.adapters.aws.sagemaker import SageMakerExecutions
        from trainyard.adapters.aws.storage import S3Receipts
        from trainyard.application.scheduling.notifications import Notifier
        from trainyard.application.scheduling.stop import Stop

        return Stop(
            scheduler=self.scheduler,
            executions=SageMakerExecutions(pipeline_names={"": self.outputs["PipelineName"]}),
            notifier=Notifier(
                tenants=self.tenants,
                receipts=S3Receipts(),
                announcements=EventBridgeAnnouncements(event_bus_name=self.outputs["EventBus"]),
            ),
        )

    def tenant(self, tenant_id: str) -> Tenant:
        """Return a tenant; raises Refused when there is none of that id."""
        tenant = self.tenants.get(tenant_id)
        if tenant is None:
            raise Refused(f"there is no tenant {tenant_id!r}; `trainyard tenant list` shows them")
        return tenant

    def request(self, name: str) -> Request:
        """Return a request by its id, or by a beginning of it that no other has; raises Refused."""
        requests, name = self.scheduler.tables.requests, name.lower()
        request = requests.get(name) if len(name) >= ID_CHARACTERS else None
        if request is None:
            request = requests.get(self._id_beginning(name))
        if request is None:
            raise Refused(f"there is no request {name!r}; `trainyard requests TENANT` shows them")
        return request

    def _id_beginning(self, name: str) -> str:
        if not BEGINNING.fullmatch(name):
            raise Refused(
                f"{name!r} is not the id of a request, nor its beginning: at least 4 of the characters 0 to 9 and "
                "a to f; `trainyard requests TENANT` shows them"
            )
        ids = self.scheduler.tables.requests.ids_beginning(name, limit=SHOWN_MAX + 1)
        if not ids:
            raise Refused(
                f"there is no request {name!r}, and none that begins with it; `trainyard requests TENANT` shows "
                "them (one of the last seconds is found by its whole id)"
            )
        if len(ids) > 1:
            more = ", …" if len(ids) > SHOWN_MAX else ""
            raise Refused(
                f"several requests begin with {name!r}: {', '.join(ids[:SHOWN_MAX])}{more}; write more of it"
            )
        return ids[0]

    def caller(self) -> str:
        """Return who runs this command, as AWS knows them: "user/ada", "assumed-role/Operator/ada"."""
        return str(self.client("sts").get_caller_identity()["Arn"]).rpartition(":")[2]

    def client(self, service: str) -> Any:
        self.region  # noqa: B018 - settled before the first client is built
        return client(service)
