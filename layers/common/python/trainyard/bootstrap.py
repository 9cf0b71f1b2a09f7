"""Build the use case of each function from its settings; once, and when first needed."""

from datetime import timedelta
from functools import cache

from trainyard.adapters.aws.provisioning import AwsProvisioning
from trainyard.adapters.aws.queues import EventBridgeAnnouncements, SqsDeadLetters, SqsTierQueues
from trainyard.adapters.aws.sagemaker import SageMakerExecutionReports, SageMakerExecutions
from trainyard.adapters.aws.storage import S3DataSets, S3Receipts, S3Results
from trainyard.adapters.aws.store import DynamoStore, rest
from trainyard.adapters.aws.tables import DynamoBell, DynamoTenants
from trainyard.application.dispatch import Dispatch
from trainyard.application.enlist import Enlist
from trainyard.application.intake import Intake
from trainyard.application.policies import Policies
from trainyard.application.reconcile import Reconcile
from trainyard.application.record import Record
from trainyard.application.tenants import TenantAdministration
from trainyard.application.waiting_room import WaitingRoom
from trainyard.contracts.decisions import encode_pass
from trainyard.contracts.policy_file import DEPLOYED, parse_policy
from trainyard.contracts.settings import Settings
from trainyard.domain.parameters import Images


@cache
def intake() -> Intake:
    settings = Settings.from_env(
        "account_id", "scheduler_table", "requests_table", "tenants_table", "tier_queue_prefix", "event_bus_name"
    )
    return Intake(
        account_id=settings.account_id,
        tenants=DynamoTenants(tenants_table=settings.tenants_table),
        policies=_policies(settings),
        data_sets=S3DataSets(),
        tier_queues=SqsTierQueues(prefix=settings.tier_queue_prefix),
        waiting_room=_waiting_room(settings),
        receipts=S3Receipts(),
        announcements=EventBridgeAnnouncements(event_bus_name=settings.event_bus_name),
    )


@cache
def dead_letters() -> SqsDeadLetters:
    return SqsDeadLetters(queue_url=Settings.from_env("dead_letter_queue_url").dead_letter_queue_url)


@cache
def enlist() -> Enlist:
    settings = Settings.from_env(
        "scheduler_table", "requests_table", "tenants_table", "bell_queue_url", "event_bus_name"
    )
    return Enlist(
        policies=_policies(settings),
        tenants=DynamoTenants(tenants_table=settings.tenants_table),
        waiting_room=_waiting_room(settings),
        receipts=S3Receipts(),
        announcements=EventBridgeAnnouncements(event_bus_name=settings.event_bus_name),
        bell=_bell(settings),
    )


@cache
def dispatch() -> Dispatch:
    settings = Settings.from_env(
        "scheduler_table",
        "requests_table",
        "tenants_table",
        "event_bus_name",
        "pipeline_name",
        "training_image_uri",
        "processing_image_uri",
        "data_key_arn",
        "bell_queue_url",
    )
    return Dispatch(
        policies=_policies(settings),
        tenants=DynamoTenants(tenants_table=settings.tenants_table),
        waiting_room=_waiting_room(settings),
        data_sets=S3DataSets(),
        executions=SageMakerExecutions(pipeline_name=settings.pipeline_name),
        receipts=S3Receipts(),
        announcements=EventBridgeAnnouncements(event_bus_name=settings.event_bus_name),
        bell=_bell(settings),
        encode=encode_pass,
        images=Images(training_uri=settings.training_image_uri, processing_uri=settings.processing_image_uri),
        output_key_id=settings.data_key_arn,
    )


@cache
def record() -> Record:
    settings = Settings.from_env("scheduler_table", "requests_table", "tenants_table", "event_bus_name")
    return Record(
        policies=_policies(settings),
        tenants=DynamoTenants(tenants_table=settings.tenants_table),
        waiting_room=_waiting_room(settings),
        reports=SageMakerExecutionReports(),
        results=S3Results(),
        receipts=S3Receipts(),
        announcements=EventBridgeAnnouncements(event_bus_name=settings.event_bus_name),
        bell=_bell(settings),
    )


@cache
def reconcile() -> Reconcile:
    settings = Settings.from_env("scheduler_table", "requests_table", "pipeline_name")
    return Reconcile(
        policies=_policies(settings),
        waiting_room=_waiting_room(settings),
        executions=SageMakerExecutions(pipeline_name=settings.pipeline_name),
        record=record(),
    )


@cache
def tenant_administration() -> TenantAdministration:
    settings = Settings.from_env(
        "stage",
        "account_id",
        "region",
        "tenants_table",
        "scheduler_table",
        "requests_table",
        "tenant_bucket_prefix",
        "tenant_role_prefix",
        "tenant_group_prefix",
        "tenant_boundary_arn",
        "code_bucket",
        "data_key_arn",
        "training_image_uri",
        "processing_image_uri",
        "event_bus_name",
        "schedule_group",
        "schedule_role_arn",
    )
    return TenantAdministration(
        records=DynamoTenants(tenants_table=settings.tenants_table),
        policies=_policies(settings),
        waiting_room=_waiting_room(settings),
        provisioning=AwsProvisioning(
            stage=settings.stage,
            account_id=settings.account_id,
            region=settings.region,
            boundary_arn=settings.tenant_boundary_arn,
            code_bucket=settings.code_bucket,
            data_key_arn=settings.data_key_arn,
            image_uris=(settings.training_image_uri, settings.processing_image_uri),
            event_bus_name=settings.event_bus_name,
            schedule_group=settings.schedule_group,
            schedule_role_arn=settings.schedule_role_arn,
            retain_data=settings.stage == "prod",
        ),
        bucket_prefix=settings.tenant_bucket_prefix,
        role_prefix=settings.tenant_role_prefix,
        group_prefix=settings.tenant_group_prefix,
    )


def _bell(settings: Settings) -> DynamoBell:
    return DynamoBell(scheduler_table=settings.scheduler_table, bell_queue_url=settings.bell_queue_url)


@cache
def bell() -> DynamoBell:
    return _bell(Settings.from_env("scheduler_table"))


def _retention(settings: Settings) -> timedelta:
    return timedelta(days=int(settings.request_retention_days))


def _store(settings: Settings) -> DynamoStore:
    return DynamoStore(scheduler_table=settings.scheduler_table, requests_table=settings.requests_table)


def _policies(settings: Settings) -> Policies:
    return Policies(
        store=_store(settings),
        deployed=DEPLOYED.read_text(encoding="utf-8"),
        parse=parse_policy,
        running_max=int(settings.running_max),
    )


def _waiting_room(settings: Settings) -> WaitingRoom:
    return WaitingRoom(store=_store(settings), retention=_retention(settings), rest=rest)
