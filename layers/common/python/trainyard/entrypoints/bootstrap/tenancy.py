"""The use cases that make, change, move and remove tenants.

Each is built once, when it is first needed, and imports only what it needs: imports are the larger part of a cold
start.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from trainyard.contracts.settings import Settings
from trainyard.entrypoints.bootstrap.shared import bell, defaults_of, policies_of, scheduler_of, store_of

if TYPE_CHECKING:
    from trainyard.adapters.aws.deployment_names import DeploymentNames
    from trainyard.adapters.aws.provisioning import AwsProvisioning
    from trainyard.application.serving.removal import ServedModels
    from trainyard.application.tenancy.leaving import Leaving, TenantUsers
    from trainyard.application.tenancy.moving import Moving
    from trainyard.application.tenancy.onboarding import Onboarding
    from trainyard.application.tenancy.roles import PooledRoles
    from trainyard.application.tenancy.tenants import TenantChanges
    from trainyard.application.tenancy.waves import WaveAdvance


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
def tenant_changes() -> TenantChanges:
    from trainyard.adapters.aws.machines import StepFunctionsRuns
    from trainyard.adapters.aws.queues import EventBridgeAnnouncements
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.application.tenancy.tenants import Names, TenantChanges
    from trainyard.contracts.policy_file import entry_of, with_entry

    settings = Settings.from_env(*TENANT_SETTINGS)
    return TenantChanges(
        records=DynamoTenants(tenants_table=settings.tenants_table),
        policies=policies_of(settings),
        scheduler=scheduler_of(settings),
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
def wave_advance() -> WaveAdvance:
    from trainyard.adapters.aws.machines import StepFunctionsTenantUpdates
    from trainyard.adapters.aws.queues import SqsRetrainings
    from trainyard.adapters.aws.store import backoff
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.application.tenancy.waves import WaveAdvance
    from trainyard.persistence.aliases import Aliases
    from trainyard.persistence.model_versions import ModelVersions
    from trainyard.persistence.waves import Waves

    settings = Settings.from_env(
        "account_id",
        "scheduler_table",
        "requests_table",
        "record_table",
        "tenants_table",
        "uploads_queue_url",
        "update_tenant_machine_arn",
    )
    store = store_of(settings)
    return WaveAdvance(
        account_id=settings.account_id,
        store=store,
        waves=Waves(store),
        tenants=DynamoTenants(tenants_table=settings.tenants_table),
        requests=scheduler_of(settings).tables.requests,
        updates=StepFunctionsTenantUpdates(machine_arn=settings.update_tenant_machine_arn),
        retrainings=SqsRetrainings(queue_url=settings.uploads_queue_url),
        aliases=Aliases(store, backoff),
        versions=ModelVersions(store),
    )


@cache
def onboarding() -> Onboarding:
    from trainyard.adapters.aws.removal import AwsRemoval
    from trainyard.application.tenancy.onboarding import Onboarding

    return Onboarding(
        tenant_changes=tenant_changes(),
        provisioning=_provisioning(),
        removal=AwsRemoval(deployment=_names()),
        bell=bell(),
        users=_tenant_users(),
    )


@cache
def pooled_roles() -> PooledRoles:
    from trainyard.adapters.aws.removal import AwsRemoval
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.application.tenancy.roles import PooledRoles

    settings = Settings.from_env(*TENANT_SETTINGS)
    return PooledRoles(
        records=DynamoTenants(tenants_table=settings.tenants_table),
        scheduler=scheduler_of(settings),
        provisioning=_provisioning(),
        removal=AwsRemoval(deployment=_names()),
        is_served=_served_models(settings).has_own_endpoint,
    )


@cache
def moving() -> Moving:
    from trainyard.adapters.aws.migration import S3Migration
    from trainyard.adapters.aws.queues import SqsTierQueues
    from trainyard.adapters.aws.removal import AwsRemoval
    from trainyard.adapters.aws.storage import S3DataSets
    from trainyard.application.tenancy.moving import Moving

    settings = Settings.from_env(*TENANT_SETTINGS)
    return Moving(
        tenant_changes=tenant_changes(),
        provisioning=_provisioning(),
        removal=AwsRemoval(deployment=_names()),
        migration=S3Migration(deployment=_names()),
        data_sets=S3DataSets(),
        tier_queues=SqsTierQueues(prefix=settings.tier_queue_prefix),
        bell=bell(),
        is_served=_served_models(settings).has_own_endpoint,
    )


@cache
def leaving() -> Leaving:
    from trainyard.adapters.aws.removal import AwsRemoval
    from trainyard.adapters.aws.sagemaker import SageMakerExecutions
    from trainyard.application.tenancy.leaving import Leaving
    from trainyard.persistence.book import Book

    settings = Settings.from_env(*TENANT_SETTINGS, "serving_bucket")
    store = store_of(settings)
    return Leaving(
        tenant_changes=tenant_changes(),
        removal=AwsRemoval(deployment=_names()),
        executions=SageMakerExecutions(pipeline_names=settings.pipeline_names),
        book=Book(store=store),
        served_models=_served_models(settings),
        users=_tenant_users(),
    )


def _tenant_users() -> TenantUsers | None:
    from trainyard.adapters.aws.machines import LambdaUsers

    function = Settings.from_env().users_function
    return LambdaUsers(function_name=function) if function else None


def pooled_role_idle_days() -> int:
    return int(Settings.from_env().pooled_role_idle_days)


@cache
def _provisioning() -> AwsProvisioning:
    from trainyard.adapters.aws.provisioning import AwsProvisioning
    from trainyard.domain.parameters import images_of

    settings = Settings.from_env(*TENANT_SETTINGS)
    policies, defaults = policies_of(settings), defaults_of(settings)
    return AwsProvisioning(
        deployment=_names(),
        images=lambda tenant: images_of(tenant, policies.current(), defaults),
        in_vpc=settings.subnet_ids != "",
    )


@cache
def _names() -> DeploymentNames:
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
        console_origins=tuple(filter(None, settings.console_origins.split(","))),
    )


def _served_models(settings: Settings) -> ServedModels:
    from trainyard.adapters.aws.serving import remove_model
    from trainyard.adapters.aws.store import backoff
    from trainyard.application.serving.removal import ServedModels
    from trainyard.persistence.aliases import Aliases
    from trainyard.persistence.model_versions import ModelVersions

    store = store_of(settings)
    return ServedModels(
        aliases=Aliases(store, backoff),
        versions=ModelVersions(store),
        remove=partial(remove_model, settings.serving_bucket),
    )
