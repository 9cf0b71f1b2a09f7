"""Build the use case of each function from its settings; once, and when first needed.

What a function does not need it does not import: imports are the larger part of a cold start.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from trainyard.contracts.settings import Settings

if TYPE_CHECKING:
    from trainyard.adapters.aws.deployment_names import DeploymentNames
    from trainyard.adapters.aws.provisioning import AwsProvisioning
    from trainyard.adapters.aws.queues import SqsDeadLetters, SqsRedelivery
    from trainyard.adapters.aws.store import DynamoStore
    from trainyard.adapters.aws.tables import DynamoBell, DynamoTenants
    from trainyard.application.cost_tags import TagActivation
    from trainyard.application.dispatch import Dispatch, PassRecord
    from trainyard.application.enlist import Enlist
    from trainyard.application.guard import Guard
    from trainyard.application.intake import Intake
    from trainyard.application.leaving import Leaving
    from trainyard.application.lost_uploads import LostUploads
    from trainyard.application.metering import Metering
    from trainyard.application.moving import Moving
    from trainyard.application.onboarding import Onboarding
    from trainyard.application.outbox import OutboxRelay
    from trainyard.application.reconcile import Reconcile
    from trainyard.application.record import Record
    from trainyard.application.roles import PooledRoles
    from trainyard.application.scheduling.scheduler import Scheduler
    from trainyard.application.statements import MonthlyStatements, Statements
    from trainyard.application.tenants import TenantChanges
    from trainyard.application.usage import Usage
    from trainyard.domain.parameters import Defaults
    from trainyard.persistence.book import Book
    from trainyard.persistence.policies import Policies


@cache
def intake() -> Intake:
    from trainyard.adapters.aws.queues import EventBridgeAnnouncements, SqsRetrainings, SqsTierQueues
    from trainyard.adapters.aws.storage import S3DataSets, S3Receipts, S3RefusedUploads
    from trainyard.adapters.aws.store import rest
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.application.intake import Intake
    from trainyard.persistence.arrival_limits import ArrivalLimits

    settings = Settings.from_env(
        "account_id",
        "scheduler_table",
        "requests_table",
        "record_table",
        "tenants_table",
        "tier_queue_prefix",
        "uploads_queue_url",
        "event_bus_name",
    )
    return Intake(
        account_id=settings.account_id,
        tenants=DynamoTenants(tenants_table=settings.tenants_table),
        policies=_policies(settings),
        data_sets=S3DataSets(),
        tier_queues=SqsTierQueues(prefix=settings.tier_queue_prefix),
        retrainings=SqsRetrainings(queue_url=settings.uploads_queue_url),
        scheduler=_waiting_room(settings),
        receipts=S3Receipts(),
        announcements=EventBridgeAnnouncements(event_bus_name=settings.event_bus_name),
        arrival_limits=ArrivalLimits(_store(settings), rest),
        refused_uploads=S3RefusedUploads(),
    )


@cache
def lost_uploads() -> LostUploads:
    from trainyard.adapters.aws.storage import S3Uploads
    from trainyard.application.lost_uploads import LostUploads

    settings = Settings.from_env("account_id", "scheduler_table", "requests_table", "record_table")
    return LostUploads(
        account_id=settings.account_id,
        store=_store(settings),
        tenants=tenants(),
        uploads=S3Uploads(),
        scheduler=_waiting_room(settings),
        intake=intake(),
    )


@cache
def dead_letters() -> SqsDeadLetters:
    from trainyard.adapters.aws.queues import SqsDeadLetters

    return SqsDeadLetters(queue_url=Settings.from_env("dead_letter_queue_url").dead_letter_queue_url)


@cache
def redelivery() -> SqsRedelivery:
    from trainyard.adapters.aws.queues import SqsRedelivery

    return SqsRedelivery()


@cache
def enlist() -> Enlist:
    from trainyard.adapters.aws.machines import LambdaTenantRoles
    from trainyard.adapters.aws.queues import EventBridgeAnnouncements
    from trainyard.adapters.aws.storage import S3Receipts
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.adapters.aws.threads import parallel_map
    from trainyard.application.enlist import Enlist

    settings = Settings.from_env(
        "scheduler_table",
        "requests_table",
        "record_table",
        "tenants_table",
        "bell_queue_url",
        "event_bus_name",
        "roles_function",
    )
    return Enlist(
        policies=_policies(settings),
        tenants=DynamoTenants(tenants_table=settings.tenants_table),
        scheduler=_waiting_room(settings),
        receipts=S3Receipts(),
        announcements=EventBridgeAnnouncements(event_bus_name=settings.event_bus_name),
        bell=_bell(settings),
        roles=LambdaTenantRoles(function_name=settings.roles_function),
        parallel_map=parallel_map,
    )


@cache
def dispatch() -> Dispatch:
    from trainyard.adapters.aws.queues import EventBridgeAnnouncements
    from trainyard.adapters.aws.sagemaker import SageMakerExecutions
    from trainyard.adapters.aws.storage import S3DataSets, S3Receipts
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.adapters.aws.threads import parallel_map
    from trainyard.application.dispatch import Dispatch

    settings = Settings.from_env(
        "scheduler_table",
        "requests_table",
        "record_table",
        "tenants_table",
        "event_bus_name",
        "pipeline_name",
        "training_image_uri",
        "processing_image_uri",
        "data_key_arn",
        "code_uri",
        "bell_queue_url",
    )
    return Dispatch(
        policies=_policies(settings, keeps=True),
        tenants=DynamoTenants(tenants_table=settings.tenants_table),
        scheduler=_waiting_room(settings),
        data_sets=S3DataSets(),
        executions=SageMakerExecutions(pipeline_name=settings.pipeline_name),
        receipts=S3Receipts(),
        announcements=EventBridgeAnnouncements(event_bus_name=settings.event_bus_name),
        bell=_bell(settings),
        encode=_encode_pass,
        parallel_map=parallel_map,
        defaults=_defaults(settings),
    )


@cache
def record() -> Record:
    from trainyard.adapters.aws.queues import EventBridgeAnnouncements
    from trainyard.adapters.aws.sagemaker import SageMakerExecutionReports
    from trainyard.adapters.aws.storage import S3Receipts, S3Results
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.adapters.aws.threads import parallel_map
    from trainyard.application.record import Record
    from trainyard.contracts.shipped_prices import prices_of

    settings = Settings.from_env(
        "scheduler_table", "requests_table", "record_table", "tenants_table", "event_bus_name"
    )
    return Record(
        policies=_policies(settings),
        tenants=DynamoTenants(tenants_table=settings.tenants_table),
        scheduler=_waiting_room(settings),
        reports=SageMakerExecutionReports(),
        results=S3Results(),
        receipts=S3Receipts(),
        announcements=EventBridgeAnnouncements(event_bus_name=settings.event_bus_name),
        prices=prices_of(settings.region),
        parallel_map=parallel_map,
    )


@cache
def owed() -> OutboxRelay:
    from trainyard.adapters.aws.queues import EventBridgeAnnouncements
    from trainyard.adapters.aws.sagemaker import SageMakerExecutionReports
    from trainyard.application.outbox import OutboxRelay
    from trainyard.contracts.shipped_prices import prices_of
    from trainyard.persistence.book import Book

    settings = Settings.from_env("scheduler_table", "requests_table", "record_table", "event_bus_name")
    return OutboxRelay(
        policies=_policies(settings),
        scheduler=_waiting_room(settings),
        book=Book(store=_store(settings)),
        reports=SageMakerExecutionReports(),
        announcements=EventBridgeAnnouncements(event_bus_name=settings.event_bus_name),
        prices=prices_of(settings.region),
    )


@cache
def book() -> Book:
    from trainyard.persistence.book import Book

    return Book(store=_store(Settings.from_env("scheduler_table", "requests_table", "record_table")))


@cache
def tenants() -> DynamoTenants:
    from trainyard.adapters.aws.tables import DynamoTenants

    return DynamoTenants(tenants_table=Settings.from_env("tenants_table").tenants_table)


@cache
def usage() -> Usage:
    from trainyard.adapters.aws.billing import S3UsageFiles
    from trainyard.application.usage import Usage

    settings = Settings.from_env("account_id", "region", "stage", "billing_bucket")
    return Usage(
        book=book(),
        files=S3UsageFiles(bucket=settings.billing_bucket),
        account_id=settings.account_id,
        region=settings.region,
        stage=settings.stage,
    )


@cache
def statements() -> Statements:
    from trainyard.adapters.aws.billing import S3StatementFiles
    from trainyard.application.statements import Statements

    return Statements(book=book(), files=S3StatementFiles())


@cache
def monthly_statements() -> MonthlyStatements:
    from trainyard.application.statements import MonthlyStatements

    return MonthlyStatements(book=book(), tenants=tenants(), statements=statements())


@cache
def tag_activation() -> TagActivation:
    from trainyard.adapters.aws.billing import CostExplorerTags
    from trainyard.application.cost_tags import TagActivation

    return TagActivation(book=book(), tags=CostExplorerTags())


@cache
def metering() -> Metering | None:
    """Return what tells the Marketplace; None where no dimension is named."""
    from trainyard.adapters.aws.billing import AwsMarketplace
    from trainyard.application.metering import Metering

    dimension = Settings.from_env().marketplace_dimension
    if not dimension:
        return None
    return Metering(book=book(), tenants=tenants(), marketplace=AwsMarketplace(dimension=dimension))


@cache
def reconcile() -> Reconcile:
    from trainyard.adapters.aws.sagemaker import SageMakerExecutions
    from trainyard.adapters.aws.threads import parallel_map
    from trainyard.application.reconcile import Reconcile

    settings = Settings.from_env("scheduler_table", "requests_table", "record_table", "pipeline_name")
    return Reconcile(
        policies=_policies(settings),
        scheduler=_waiting_room(settings),
        executions=SageMakerExecutions(pipeline_name=settings.pipeline_name),
        record=record(),
        parallel_map=parallel_map,
    )


TENANT_SETTINGS = (
    "stack",
    "account_id",
    "region",
    "tenants_table",
    "scheduler_table",
    "requests_table",
    "record_table",
    "event_bus_name",
    "pipeline_name",
    "tier_queue_prefix",
    "tenant_bucket_prefix",
    "pool_bucket",
    "tenant_role_prefix",
    "pooled_role_prefix",
    "tenant_roles",
    "tenant_group_prefix",
    "tenant_boundary_arn",
    "code_bucket",
    "data_key_arn",
    "training_image_uri",
    "processing_image_uri",
    "schedule_group",
    "schedule_role_arn",
)


@cache
def tenant_desk() -> TenantChanges:
    from trainyard.adapters.aws.machines import StepFunctionsRuns
    from trainyard.adapters.aws.queues import EventBridgeAnnouncements
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.application.tenants import Names, TenantChanges
    from trainyard.contracts.policy_file import entry_of, with_entry

    settings = Settings.from_env(*TENANT_SETTINGS)
    return TenantChanges(
        records=DynamoTenants(tenants_table=settings.tenants_table),
        policies=_policies(settings),
        scheduler=_waiting_room(settings),
        runs=StepFunctionsRuns(),
        announcements=EventBridgeAnnouncements(event_bus_name=settings.event_bus_name),
        names=Names(
            bucket_prefix=settings.tenant_bucket_prefix,
            pool_bucket=settings.pool_bucket,
            role_prefix=settings.tenant_role_prefix,
            pooled_role_prefix=settings.pooled_role_prefix,
            group_prefix=settings.tenant_group_prefix,
        ),
        with_limits=lambda text, tenant_id, limits: with_entry(text, "tenants", tenant_id, limits),
        limits_in=lambda text, tenant_id: entry_of(text, "tenants", tenant_id),
    )


@cache
def onboarding() -> Onboarding:
    from trainyard.adapters.aws.removal import AwsRemoval
    from trainyard.application.onboarding import Onboarding

    return Onboarding(
        desk=tenant_desk(), provisioning=_provisioning(), removal=AwsRemoval(estate=_estate()), bell=bell()
    )


@cache
def pooled_roles() -> PooledRoles:
    from trainyard.adapters.aws.removal import AwsRemoval
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.application.roles import PooledRoles

    settings = Settings.from_env(*TENANT_SETTINGS)
    return PooledRoles(
        records=DynamoTenants(tenants_table=settings.tenants_table),
        scheduler=_waiting_room(settings),
        provisioning=_provisioning(),
        removal=AwsRemoval(estate=_estate()),
    )


@cache
def moving() -> Moving:
    from trainyard.adapters.aws.migration import S3Migration
    from trainyard.adapters.aws.queues import SqsTierQueues
    from trainyard.adapters.aws.removal import AwsRemoval
    from trainyard.adapters.aws.storage import S3DataSets
    from trainyard.application.moving import Moving

    settings = Settings.from_env(*TENANT_SETTINGS)
    return Moving(
        desk=tenant_desk(),
        provisioning=_provisioning(),
        removal=AwsRemoval(estate=_estate()),
        migration=S3Migration(estate=_estate()),
        data_sets=S3DataSets(),
        tier_queues=SqsTierQueues(prefix=settings.tier_queue_prefix),
        bell=bell(),
    )


@cache
def leaving() -> Leaving:
    from trainyard.adapters.aws.removal import AwsRemoval
    from trainyard.adapters.aws.sagemaker import SageMakerExecutions
    from trainyard.application.leaving import Leaving
    from trainyard.persistence.book import Book

    settings = Settings.from_env(*TENANT_SETTINGS)
    return Leaving(
        desk=tenant_desk(),
        removal=AwsRemoval(estate=_estate()),
        executions=SageMakerExecutions(pipeline_name=settings.pipeline_name),
        book=Book(store=_store(settings)),
    )


@cache
def guard() -> Guard:
    from trainyard.adapters.aws.sagemaker import SageMakerJobs
    from trainyard.application.guard import Guard

    settings = Settings.from_env("tenant_role_prefix", "pooled_role_prefix")
    prefixes = (settings.tenant_role_prefix, settings.pooled_role_prefix)
    return Guard(jobs=SageMakerJobs(), role_prefixes=prefixes)


def retention_days() -> int:
    return int(Settings.from_env().request_retention_days)


def pooled_role_idle_days() -> int:
    return int(Settings.from_env().pooled_role_idle_days)


@cache
def _provisioning() -> AwsProvisioning:
    from trainyard.adapters.aws.provisioning import AwsProvisioning
    from trainyard.domain.parameters import images_of

    settings = Settings.from_env(*TENANT_SETTINGS)
    policies, defaults = _policies(settings), _defaults(settings)
    return AwsProvisioning(
        estate=_estate(),
        images=lambda tenant: images_of(tenant, policies.current(), defaults),
        in_vpc=settings.subnet_ids != "",
    )


@cache
def _estate() -> DeploymentNames:
    from trainyard.adapters.aws.deployment_names import DeploymentNames

    settings = Settings.from_env(*TENANT_SETTINGS)
    return DeploymentNames(
        stack=settings.stack,
        stage=settings.stage,
        partition=settings.partition,
        account_id=settings.account_id,
        region=settings.region,
        boundary_arn=settings.tenant_boundary_arn,
        tenant_roles=settings.tenant_roles,
        code_bucket=settings.code_bucket,
        data_key_arn=settings.data_key_arn,
        result_readers=tuple(filter(None, settings.result_readers.split(","))),
        result_movers=tuple(filter(None, settings.result_movers.split(","))),
        event_bus_name=settings.event_bus_name,
        schedule_group=settings.schedule_group,
        schedule_role_arn=settings.schedule_role_arn,
        retain_data=settings.stage == "prod",
    )


def _encode_pass(kept: PassRecord) -> bytes:
    from trainyard.contracts.decisions import encode_pass

    return encode_pass(kept)


def _defaults(settings: Settings) -> Defaults:
    from trainyard.domain.parameters import Defaults

    return Defaults(
        training_image_uri=settings.training_image_uri,
        processing_image_uri=settings.processing_image_uri,
        code_uri=settings.code_uri,
        key_arn=settings.data_key_arn,
    )


def _bell(settings: Settings) -> DynamoBell:
    from trainyard.adapters.aws.tables import DynamoBell

    return DynamoBell(scheduler_table=settings.scheduler_table, bell_queue_url=settings.bell_queue_url)


@cache
def bell() -> DynamoBell:
    return _bell(Settings.from_env("scheduler_table"))


def _retention(settings: Settings) -> timedelta:
    return timedelta(days=int(settings.request_retention_days))


def _store(settings: Settings) -> DynamoStore:
    from trainyard.adapters.aws.store import DynamoStore

    return DynamoStore(
        scheduler_table=settings.scheduler_table,
        requests_table=settings.requests_table,
        record_table=settings.record_table,
        tenants_table=settings.tenants_table,
    )


def _policies(settings: Settings, *, keeps: bool = False) -> Policies:
    from trainyard.contracts.policy_form import DEPLOYED, CheckedValues
    from trainyard.persistence.policies import Policies

    form = CheckedValues(region=settings.region)
    return Policies(
        store=_store(settings),
        deployed=DEPLOYED.read_text(encoding="utf-8"),
        parse=form.parse,
        form=form,
        keeps=keeps,
        running_max=int(settings.running_max),
    )


def _waiting_room(settings: Settings) -> Scheduler:
    from trainyard.adapters.aws.store import rest
    from trainyard.application.scheduling.scheduler import Scheduler

    return Scheduler.over(_store(settings), retention=_retention(settings), backoff=rest)
