"""The use cases of the HTTP API. Each is built once, when it is first needed."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from trainyard.contracts.settings import Settings
from trainyard.domain.tenants import TenantState
from trainyard.entrypoints.bootstrap.shared import (
    bell_of,
    book,
    notifier_of,
    package_arns_of,
    policies_of,
    retention_of,
    scheduler_of,
    store_of,
    tenants,
)

if TYPE_CHECKING:
    from trainyard.adapters.aws.machines import LambdaPredictions
    from trainyard.adapters.aws.tenant_data import TenantClients
    from trainyard.adapters.aws.users import CognitoUsers
    from trainyard.application.api.bulk_actions import BulkRequests, BulkSelections, BulkWork
    from trainyard.application.api.dead_letters import DeadLetterOffice
    from trainyard.application.api.keys import ApiKeys
    from trainyard.application.api.models import Models, TenantResults
    from trainyard.application.api.overview import Overview
    from trainyard.application.api.quotes import Quotes
    from trainyard.application.api.request_pages import RequestPages
    from trainyard.application.api.runs import Runs
    from trainyard.application.api.settings_changes import SettingsChanges
    from trainyard.application.api.trainings import Trainings
    from trainyard.application.api.tunings import Tunings
    from trainyard.application.api.uploads import Uploads
    from trainyard.application.health import Health
    from trainyard.application.scheduling.expedite import Expedite
    from trainyard.application.scheduling.explain import Explain
    from trainyard.application.scheduling.pauses import Pauses
    from trainyard.application.scheduling.policy_changes import PolicyChanges
    from trainyard.application.scheduling.stop import Stop
    from trainyard.application.serving.deployed_models import DeployedModels
    from trainyard.application.tenancy.wave_commands import WaveCommands
    from trainyard.domain.tenants import Tenant
    from trainyard.persistence.api_keys import StoredKeys
    from trainyard.persistence.call_limits import CallLimits
    from trainyard.persistence.journal import Journal


@cache
def request_pages() -> RequestPages:
    from trainyard.application.api.request_pages import RequestPages

    return RequestPages(requests=scheduler_of(Settings.from_env("requests_table")).tables.requests)


@cache
def bulk_selections() -> BulkSelections:
    from trainyard.application.api.bulk_actions import BulkSelections

    tables = scheduler_of(Settings.from_env("requests_table", "scheduler_table")).tables
    return BulkSelections(requests=tables.requests, held=tables.held)


@cache
def bulk_requests() -> BulkRequests:
    from trainyard.adapters.aws.machines import LambdaBulkStarts
    from trainyard.application.api.bulk_actions import BulkRequests
    from trainyard.persistence.bulk_actions import BulkActions
    from trainyard.persistence.idempotency_keys import IdempotencyKeys

    settings = Settings.from_env("record_table", "bulk_function")
    return BulkRequests(
        actions=BulkActions(store_of(settings)),
        starts=LambdaBulkStarts(function_name=settings.bulk_function),
        keys=IdempotencyKeys(store_of(settings)),
        pause=lambda seconds: time.sleep(seconds / 10),  # a call is to be answered within 30 s
    )


@cache
def bulk_work() -> BulkWork:
    from trainyard.application.api.bulk_actions import BulkWork
    from trainyard.persistence.bulk_actions import BulkActions

    settings = Settings.from_env("record_table", "requests_table")
    return BulkWork(
        actions=BulkActions(store_of(settings)),
        requests=scheduler_of(settings).tables.requests,
        tenants=tenants(),
        stop=stop(),
        trainings=trainings(),
        clock=lambda: datetime.now(UTC),
        pause=time.sleep,
    )


@cache
def call_limits() -> CallLimits:
    from trainyard.adapters.aws.store import update_item
    from trainyard.persistence.call_limits import CallLimits

    table = Settings.from_env("record_table").record_table
    return CallLimits(update=lambda update: update_item(table, update))


@cache
def claim_names() -> dict[str, str]:
    """Return which claims of a token name the tenant and the groups."""
    settings = Settings.from_env("tenant_claim", "groups_claim")
    return {"tenant_claim": settings.tenant_claim, "groups_claim": settings.groups_claim}


def existing_tenant(tenant_id: str) -> Tenant | None:
    """Return a tenant that is not deleted, or None."""
    tenant = tenants().get(tenant_id)
    return tenant if tenant is not None and tenant.state is not TenantState.DELETED else None


@cache
def explain() -> Explain:
    from trainyard.application.scheduling.explain import Explain

    settings = Settings.from_env("scheduler_table", "requests_table", "record_table")
    return Explain(policies=policies_of(settings), scheduler=scheduler_of(settings))


@cache
def overview() -> Overview:
    from trainyard.application.api.overview import Overview

    return Overview(explain=explain())


@cache
def pauses() -> Pauses:
    from trainyard.application.scheduling.pauses import Pauses

    settings = Settings.from_env("scheduler_table", "requests_table", "record_table", "tenants_table")
    return Pauses(
        policies=policies_of(settings), tenants=tenants(), scheduler=scheduler_of(settings), bell=bell_of(settings)
    )


@cache
def wave_commands() -> WaveCommands:
    from trainyard.application.tenancy.wave_commands import WaveCommands
    from trainyard.persistence.waves import Waves

    settings = Settings.from_env("scheduler_table", "record_table", "tenants_table")
    return WaveCommands(policies=policies_of(settings), tenants=tenants(), waves=Waves(store_of(settings)))


@cache
def expedite() -> Expedite:
    from trainyard.application.scheduling.expedite import Expedite

    settings = Settings.from_env("scheduler_table", "requests_table", "record_table")
    return Expedite(scheduler=scheduler_of(settings), explain=explain(), bell=bell_of(settings))


@cache
def policy_changes() -> PolicyChanges:
    from trainyard.adapters.aws.queues import queue_exists
    from trainyard.application.scheduling.policy_changes import JobLimits, PolicyChanges

    settings = Settings.from_env(
        "scheduler_table",
        "requests_table",
        "record_table",
        "tenants_table",
        "job_instance_types",
        "tier_queue_prefix",
    )
    return PolicyChanges(
        policies=policies_of(settings),
        tenants=tenants(),
        bell=bell_of(settings),
        jobs=JobLimits(
            instance_types=tuple(settings.job_instance_types.split(",")),
            runtime_max_seconds=int(settings.job_runtime_max_seconds),
            training_types_max=int(settings.training_types_max),
            has_spot=settings.spot_training == "true",
        ),
        has_tier_queue=lambda tier: queue_exists(f"{settings.tier_queue_prefix}{tier}"),
    )


@cache
def dead_letter_office() -> DeadLetterOffice:
    from trainyard.adapters.aws.dead_letters import SqsDeadLetterQueue
    from trainyard.adapters.aws.queues import queue_url_of
    from trainyard.application.api.dead_letters import DeadLetterOffice, DeadLetterQueue
    from trainyard.domain.dead_letters import SUFFIX

    settings = Settings.from_env("stack", "tier_queue_prefix", "scheduler_table")
    policies = policies_of(settings)

    def queues() -> list[DeadLetterQueue]:
        # Listing all queues of an account is not a right that could be narrowed.
        # Of tiers that the policy has, or had when it was deployed.
        present, shipped = policies.current(), policies.parse(policies.deployed, 0)
        names = dict.fromkeys(tier.name for tier in (*present.tiers, *shipped.tiers))
        tiers = [f"{settings.tier_queue_prefix}{name}" for name in names]
        sources = [f"{settings.stack}-{name}" for name in ("uploads", "status", "undelivered")]
        urls = [queue_url_of(f"{name}{SUFFIX}") for name in (*sources, *tiers)]
        return [SqsDeadLetterQueue(url) for url in urls if url]

    return DeadLetterOffice(queues=queues)


@cache
def health() -> Health:
    from trainyard.adapters.aws.alarms import alarms_in_force
    from trainyard.application.health import Health

    settings = Settings.from_env("stack", "scheduler_table", "requests_table", "tenants_table")
    return Health(
        tables=scheduler_of(settings).tables,
        tenants=tenants().all,
        letters=lambda: {queue.name: queue.count() for queue in dead_letter_office().queues()},
        alarms=lambda: alarms_in_force(settings.stack),
    )


@cache
def journal() -> Journal:
    from trainyard.persistence.journal import Journal

    return Journal(store_of(Settings.from_env("record_table")))


@cache
def settings_changes() -> SettingsChanges:
    from trainyard.adapters.aws.machines import StepFunctionsTenantUpdates
    from trainyard.application.api.settings_changes import SettingsChanges

    settings = Settings.from_env("scheduler_table", "update_tenant_machine_arn")
    return SettingsChanges(
        policies=policies_of(settings),
        updates=StepFunctionsTenantUpdates(machine_arn=settings.update_tenant_machine_arn),
    )


@cache
def runs() -> Runs:
    from trainyard.adapters.aws.job_logs import CloudWatchJobLogs
    from trainyard.adapters.aws.sagemaker import SageMakerExecutionReports
    from trainyard.application.api.runs import Runs

    return Runs(book=book(), reports=SageMakerExecutionReports(), logs=CloudWatchJobLogs())


@cache
def quotes() -> Quotes:
    from trainyard.application.api.quotes import Quotes

    return Quotes(explain=explain())


@cache
def trainings() -> Trainings:
    from trainyard.adapters.aws.queues import SqsRetrainings
    from trainyard.adapters.aws.store import backoff
    from trainyard.application.api.trainings import Trainings
    from trainyard.persistence.arrival_limits import ArrivalLimits
    from trainyard.persistence.idempotency_keys import IdempotencyKeys

    settings = Settings.from_env("account_id", "scheduler_table", "record_table", "uploads_queue_url")
    return Trainings(
        account_id=settings.account_id,
        policies=policies_of(settings),
        arrival_limits=ArrivalLimits(store_of(settings), backoff),
        retrainings=SqsRetrainings(queue_url=settings.uploads_queue_url),
        keys=IdempotencyKeys(store_of(settings)),
    )


@cache
def stop() -> Stop:
    from trainyard.adapters.aws.sagemaker import SageMakerExecutions
    from trainyard.application.scheduling.stop import Stop

    settings = Settings.from_env(
        "scheduler_table", "requests_table", "record_table", "tenants_table", "event_bus_name", "pipeline_name"
    )
    return Stop(
        scheduler=scheduler_of(settings),
        executions=SageMakerExecutions(pipeline_names=settings.pipeline_names),
        notifier=notifier_of(settings),
    )


@cache
def tunings() -> Tunings:
    from trainyard.application.api.tunings import Tunings

    return Tunings(store=store_of(Settings.from_env("scheduler_table", "record_table")))


@cache
def uploads() -> Uploads:
    from trainyard.adapters.aws.tenant_data import S3TenantUploads
    from trainyard.application.api.uploads import Uploads

    settings = Settings.from_env("scheduler_table")
    return Uploads(policies=policies_of(settings), storage=S3TenantUploads(clients=_tenant_clients()))


def _tenant_clients() -> TenantClients:
    from trainyard.adapters.aws.tenant_data import TenantClients

    settings = Settings.from_env("tenant_access_role_arn", "data_key_arn")
    return TenantClients(access_role_arn=settings.tenant_access_role_arn, data_key_arn=settings.data_key_arn)


@cache
def models() -> Models:
    from trainyard.adapters.aws.serving import SageMakerPackages
    from trainyard.adapters.aws.store import backoff
    from trainyard.adapters.aws.tenant_data import S3TenantResults
    from trainyard.adapters.aws.threads import parallel_map
    from trainyard.application.api.models import Models
    from trainyard.persistence.aliases import Aliases
    from trainyard.persistence.model_versions import ModelVersions

    settings = Settings.from_env("scheduler_table", "requests_table", "region", "account_id")
    store = store_of(settings)
    return Models(
        packages=SageMakerPackages(),
        arn_of=package_arns_of(settings),
        requests=scheduler_of(settings).tables.requests,
        aliases=Aliases(store, backoff),
        versions=ModelVersions(store),
        results=S3TenantResults(clients=_tenant_clients()),
        parallel_map=parallel_map,
    )


@cache
def tenant_results() -> TenantResults:
    from trainyard.adapters.aws.tenant_data import S3TenantResults

    return S3TenantResults(clients=_tenant_clients())


@cache
def deployed_models() -> DeployedModels:
    from trainyard.adapters.aws.serving import SageMakerPackages, StateMachinePromotions
    from trainyard.adapters.aws.store import backoff
    from trainyard.application.serving.deployed_models import DeployedModels
    from trainyard.persistence.aliases import Aliases
    from trainyard.persistence.inference import InferenceBook
    from trainyard.persistence.model_versions import ModelVersions

    settings = Settings.from_env("scheduler_table", "record_table")
    store = store_of(settings)
    return DeployedModels(
        aliases=Aliases(store, backoff),
        versions=ModelVersions(store),
        packages=SageMakerPackages(),
        calls=InferenceBook(store=store, retention=retention_of(settings)),
        runs=StateMachinePromotions(machine_arn=settings.deploy_model_machine_arn),
    )


@cache
def stored_keys() -> StoredKeys:
    from trainyard.persistence.api_keys import StoredKeys

    return StoredKeys(store_of(Settings.from_env("record_table")))


@cache
def api_keys() -> ApiKeys:
    from trainyard.adapters.aws.machines import LambdaUsers
    from trainyard.application.api.keys import ApiKeys

    function = Settings.from_env().users_function
    return ApiKeys(keys=stored_keys(), users=LambdaUsers(function_name=function) if function else None)


@cache
def pool_users() -> CognitoUsers:
    from trainyard.adapters.aws.users import CognitoUsers

    return CognitoUsers(pool_id=Settings.from_env("users_pool").users_pool)


@cache
def predictions() -> LambdaPredictions:
    from trainyard.adapters.aws.machines import LambdaPredictions

    return LambdaPredictions(function_name=Settings.from_env("predict_function").predict_function)
