"""The use cases from an upload to the end of its run.

Each is built once, when it is first needed, and imports only what it needs: imports are the larger part of a cold
start.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from trainyard.contracts.settings import Settings
from trainyard.entrypoints.bootstrap.shared import (
    bell_of,
    defaults_of,
    models_of,
    notifier_of,
    policies_of,
    retention_of,
    scheduler_of,
    store_of,
    tenants,
)

if TYPE_CHECKING:
    from trainyard.adapters.aws.queues import SqsDeadLetters, SqsRedelivery
    from trainyard.application.scheduling.deadline_watch import DeadlineWatch
    from trainyard.application.scheduling.dispatch import Dispatch, PassRecord
    from trainyard.application.scheduling.enlist import Enlist
    from trainyard.application.scheduling.guard import Guard
    from trainyard.application.scheduling.intake import Intake
    from trainyard.application.scheduling.lost_uploads import LostUploads
    from trainyard.application.scheduling.reconcile import Reconcile
    from trainyard.application.scheduling.record import Record
    from trainyard.application.scheduling.retraining_watch import RetrainingWatch
    from trainyard.application.scheduling.waiting_receipts import WaitingReceipts


@cache
def intake() -> Intake:
    from trainyard.adapters.aws.queues import SqsRetrainings, SqsTierQueues
    from trainyard.adapters.aws.storage import S3DataSets, S3RefusedUploads
    from trainyard.adapters.aws.store import backoff
    from trainyard.adapters.aws.stored_rows import S3RowsToPredict
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.application.scheduling.intake import Intake
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
        policies=policies_of(settings),
        data_sets=S3DataSets(),
        tier_queues=SqsTierQueues(prefix=settings.tier_queue_prefix),
        retrainings=SqsRetrainings(queue_url=settings.uploads_queue_url),
        rows=S3RowsToPredict(),
        models=models_of(settings),
        scheduler=scheduler_of(settings),
        notifier=notifier_of(settings),
        arrival_limits=ArrivalLimits(store_of(settings), backoff),
        refused_uploads=S3RefusedUploads(),
    )


@cache
def lost_uploads() -> LostUploads:
    from trainyard.adapters.aws.storage import S3Uploads
    from trainyard.application.scheduling.lost_uploads import LostUploads

    settings = Settings.from_env("account_id", "scheduler_table", "requests_table", "record_table")
    return LostUploads(
        account_id=settings.account_id,
        store=store_of(settings),
        tenants=tenants(),
        uploads=S3Uploads(),
        scheduler=scheduler_of(settings),
        intake=intake(),
    )


@cache
def retraining_watch() -> RetrainingWatch:
    from trainyard.adapters.aws.captured import S3CapturedInputs
    from trainyard.adapters.aws.queues import SqsRetrainings
    from trainyard.application.scheduling.retraining_watch import RetrainingWatch
    from trainyard.persistence.inference import InferenceBook

    settings = Settings.from_env("account_id", "record_table", "scheduler_table", "uploads_queue_url")
    return RetrainingWatch(
        account_id=settings.account_id,
        store=store_of(settings),
        tenants=tenants(),
        retrainings=SqsRetrainings(queue_url=settings.uploads_queue_url),
        models=models_of(settings),
        calls=InferenceBook(store=store_of(settings), retention=retention_of(settings)),
        captured=S3CapturedInputs(),
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
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.adapters.aws.threads import parallel_map
    from trainyard.application.scheduling.enlist import Enlist

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
        policies=policies_of(settings),
        tenants=DynamoTenants(tenants_table=settings.tenants_table),
        scheduler=scheduler_of(settings),
        notifier=notifier_of(settings),
        bell=bell_of(settings),
        roles=LambdaTenantRoles(function_name=settings.roles_function),
        parallel_map=parallel_map,
    )


@cache
def dispatch() -> Dispatch:
    from trainyard.adapters.aws.sagemaker import SageMakerExecutions
    from trainyard.adapters.aws.storage import S3DataSets
    from trainyard.adapters.aws.stored_rows import S3RowsToPredict
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.adapters.aws.threads import parallel_map
    from trainyard.application.scheduling.dispatch import Dispatch
    from trainyard.application.scheduling.starts import Starts
    from trainyard.application.scheduling.transforms import Transforms

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
        policies=policies_of(settings, keeps=True),
        scheduler=scheduler_of(settings),
        starts=Starts(
            scheduler=scheduler_of(settings),
            tenants=DynamoTenants(tenants_table=settings.tenants_table),
            data_sets=S3DataSets(),
            executions=SageMakerExecutions(pipeline_names=settings.pipeline_names),
            notifier=notifier_of(settings),
            defaults=defaults_of(settings),
            transforms=Transforms(
                models=models_of(settings), rows=S3RowsToPredict(), defaults=defaults_of(settings)
            ),
            parallel_map=parallel_map,
        ),
        bell=bell_of(settings),
        encode=_encode_pass,
    )


@cache
def record() -> Record:
    from trainyard.adapters.aws.sagemaker import SageMakerAnnotations, SageMakerExecutionReports
    from trainyard.adapters.aws.storage import S3Results
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.adapters.aws.threads import parallel_map
    from trainyard.application.scheduling.record import Record
    from trainyard.contracts.shipped_prices import prices_of

    settings = Settings.from_env(
        "scheduler_table", "requests_table", "record_table", "tenants_table", "event_bus_name"
    )
    return Record(
        policies=policies_of(settings),
        tenants=DynamoTenants(tenants_table=settings.tenants_table),
        scheduler=scheduler_of(settings),
        reports=SageMakerExecutionReports(),
        results=S3Results(),
        annotations=SageMakerAnnotations(),
        notifier=notifier_of(settings),
        prices=prices_of(settings.region),
        parallel_map=parallel_map,
    )


@cache
def reconcile() -> Reconcile:
    from trainyard.adapters.aws.sagemaker import SageMakerExecutions
    from trainyard.adapters.aws.threads import parallel_map
    from trainyard.application.scheduling.reconcile import Reconcile

    settings = Settings.from_env("scheduler_table", "requests_table", "record_table", "pipeline_name")
    return Reconcile(
        policies=policies_of(settings),
        scheduler=scheduler_of(settings),
        executions=SageMakerExecutions(pipeline_names=settings.pipeline_names),
        record=record(),
        parallel_map=parallel_map,
    )


@cache
def deadline_watch() -> DeadlineWatch:
    from trainyard.application.scheduling.deadline_watch import DeadlineWatch

    settings = Settings.from_env("scheduler_table", "requests_table", "record_table")
    return DeadlineWatch(policies=policies_of(settings), scheduler=scheduler_of(settings))


@cache
def waiting_receipts() -> WaitingReceipts:
    from trainyard.adapters.aws.storage import S3Receipts
    from trainyard.adapters.aws.threads import parallel_map
    from trainyard.application.scheduling.explain import Explain
    from trainyard.application.scheduling.waiting_receipts import WaitingReceipts

    settings = Settings.from_env("scheduler_table", "requests_table", "record_table", "tenants_table")
    return WaitingReceipts(
        explain=Explain(policies=policies_of(settings), scheduler=scheduler_of(settings)),
        tenants=tenants(),
        receipts=S3Receipts(hurried=True),
        parallel_map=parallel_map,
    )


@cache
def guard() -> Guard:
    from trainyard.adapters.aws.sagemaker import SageMakerJobs
    from trainyard.application.scheduling.guard import Guard

    settings = Settings.from_env("tenant_role_prefix", "pooled_role_prefix")
    prefixes = (settings.tenant_role_prefix, settings.pooled_role_prefix)
    return Guard(jobs=SageMakerJobs(), role_prefixes=prefixes)


def _encode_pass(record: PassRecord) -> bytes:
    from trainyard.contracts.decisions import encode_pass

    return encode_pass(record)
