"""The use cases of serving: deploying approved models, and predictions. Each is built once, when first needed."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from trainyard.contracts.settings import Settings
from trainyard.entrypoints.bootstrap.shared import (
    package_arns_of,
    policies_of,
    retention_of,
    scheduler_of,
    store_of,
    tenants,
)

if TYPE_CHECKING:
    from trainyard.adapters.aws.serving import Network
    from trainyard.application.serving.approval import Approvals
    from trainyard.application.serving.lost_approvals import LostApprovals
    from trainyard.application.serving.model_deployment import ModelDeployment
    from trainyard.application.serving.ports import ModelHost
    from trainyard.application.serving.prediction import Predictor
    from trainyard.application.serving.shared_containers import MultiContainerHost
    from trainyard.application.serving.unused_endpoints import UnusedEndpoints
    from trainyard.domain.serving import Mode


@cache
def model_deployment() -> ModelDeployment:
    from trainyard.adapters.aws.serving import S3Comparisons, S3Samples, SageMakerPackages
    from trainyard.adapters.aws.store import backoff
    from trainyard.application.serving.model_deployment import ModelDeployment
    from trainyard.application.serving.promotion import Promoter
    from trainyard.persistence.aliases import Aliases
    from trainyard.persistence.inference import InferenceBook
    from trainyard.persistence.model_versions import ModelVersions

    settings = Settings.from_env("scheduler_table", "requests_table", "record_table", "tenants_table")
    store = store_of(settings)
    aliases, versions = Aliases(store, backoff), ModelVersions(store)
    calls = InferenceBook(store=store, retention=retention_of(settings))
    return ModelDeployment(
        aliases=aliases,
        versions=versions,
        tenants=tenants(),
        policies=policies_of(settings),
        scheduler=scheduler_of(settings),
        packages=SageMakerPackages(),
        samples=S3Samples(),
        comparisons=S3Comparisons(),
        hosts=_hosts(),
        promoter=Promoter(aliases=aliases, versions=versions, calls=calls),
    )


def _hosts() -> dict[Mode, ModelHost]:
    from trainyard.adapters.aws.machines import LambdaTenantRoles
    from trainyard.adapters.aws.own_endpoints import SageMakerOwnEndpoints
    from trainyard.adapters.aws.serving import SageMakerSharedModels
    from trainyard.domain.serving import Mode

    settings = Settings.from_env(
        "stack",
        "stage",
        "training_image_uri",
        "serving_bucket",
        "serving_role_arn",
        "serving_instance_type",
        "data_key_arn",
        "roles_function",
    )
    network = _network(settings)
    shared = SageMakerSharedModels(
        stack=settings.stack,
        stage=settings.stage,
        bucket=settings.serving_bucket,
        role_arn=settings.serving_role_arn,
        image_uri=settings.training_image_uri,
        instance_type=settings.serving_instance_type,
        network=network,
    )
    own = SageMakerOwnEndpoints(
        stack=settings.stack,
        stage=settings.stage,
        instance_type=settings.serving_instance_type,
        network=network,
        data_key_arn=settings.data_key_arn,
        make_role=LambdaTenantRoles(function_name=settings.roles_function).make,
    )
    by_version = (Mode.REAL_TIME, Mode.SERVERLESS, Mode.ASYNCHRONOUS, Mode.BATCH_TRANSFORM)
    several: dict[Mode, ModelHost] = {
        Mode.MULTI_MODEL: shared,
        Mode.MULTI_CONTAINER: multi_container_host(),
        Mode.INFERENCE_COMPONENT: _components(settings),
    }
    return {**several, **dict.fromkeys(by_version, own)}


def _components(settings: Settings) -> ModelHost:
    from trainyard.adapters.aws.components import SageMakerComponents

    return SageMakerComponents(
        stack=settings.stack,
        stage=settings.stage,
        bucket=settings.serving_bucket,
        role_arn=settings.serving_role_arn,
        instance_type=settings.serving_instance_type,
        instances_max=int(settings.component_instances_max),
        network=_network(settings),
    )


@cache
def multi_container_host() -> MultiContainerHost:
    from trainyard.adapters.aws.container_endpoint import SageMakerContainerEndpoint
    from trainyard.adapters.aws.store import backoff
    from trainyard.application.serving.shared_containers import MultiContainerHost
    from trainyard.persistence.container_sets import ContainerSets

    settings = Settings.from_env(
        "stack", "stage", "scheduler_table", "serving_bucket", "serving_role_arn", "serving_instance_type"
    )
    endpoint = SageMakerContainerEndpoint(
        stack=settings.stack,
        stage=settings.stage,
        bucket=settings.serving_bucket,
        role_arn=settings.serving_role_arn,
        instance_type=settings.serving_instance_type,
        network=_network(settings),
    )
    sets = ContainerSets(store_of(settings), backoff)
    return MultiContainerHost(endpoint=endpoint, sets=sets, clock=lambda: datetime.now(UTC))


def _network(settings: Settings) -> Network:
    from trainyard.adapters.aws.serving import Network

    return Network(
        subnet_ids=tuple(filter(None, settings.subnet_ids.split(","))),
        security_group_ids=tuple(filter(None, settings.security_group_ids.split(","))),
    )


@cache
def unused_endpoints() -> UnusedEndpoints:
    from trainyard.adapters.aws.own_endpoints import SageMakerOwnModels
    from trainyard.adapters.aws.store import backoff
    from trainyard.application.serving.unused_endpoints import UnusedEndpoints
    from trainyard.persistence.aliases import Aliases
    from trainyard.persistence.model_versions import ModelVersions

    settings = Settings.from_env("stack", "scheduler_table")
    store = store_of(settings)
    return UnusedEndpoints(
        models=SageMakerOwnModels(settings.stack),
        containers=multi_container_host(),
        aliases=Aliases(store, backoff),
        versions=ModelVersions(store),
    )


@cache
def lost_approvals() -> LostApprovals:
    from trainyard.adapters.aws.serving import SageMakerPackages, StateMachineDeployments
    from trainyard.adapters.aws.store import backoff
    from trainyard.application.serving.lost_approvals import LostApprovals
    from trainyard.persistence.aliases import Aliases
    from trainyard.persistence.model_versions import ModelVersions

    settings = Settings.from_env("scheduler_table", "tenants_table", "deploy_model_machine_arn")
    store = store_of(settings)
    return LostApprovals(
        store=store,
        tenants=tenants(),
        packages=SageMakerPackages(),
        aliases=Aliases(store, backoff),
        versions=ModelVersions(store),
        deployments=StateMachineDeployments(machine_arn=settings.deploy_model_machine_arn),
        judge=lambda version, now: model_deployment().judge(version, now),
        is_missing=lambda version: model_deployment().is_missing(version),
    )


@cache
def approvals() -> Approvals:
    from trainyard.adapters.aws.approval_links import KmsLinks
    from trainyard.adapters.aws.serving import SageMakerPackages
    from trainyard.adapters.aws.store import backoff
    from trainyard.application.serving.approval import Approvals
    from trainyard.persistence.aliases import Aliases
    from trainyard.persistence.model_versions import ModelVersions

    settings = Settings.from_env(
        "scheduler_table", "requests_table", "tenants_table", "approval_key_arn", "region", "account_id"
    )
    store = store_of(settings)
    return Approvals(
        links=KmsLinks(settings.approval_key_arn),
        tenants=tenants(),
        packages=SageMakerPackages(),
        arn_of=package_arns_of(settings),
        requests=scheduler_of(settings).tables.requests,
        aliases=Aliases(store, backoff),
        versions=ModelVersions(store),
    )


@cache
def predictor() -> Predictor:
    from time import monotonic

    from trainyard.adapters.aws.own_endpoints import ask_later
    from trainyard.adapters.aws.serving import ask_model
    from trainyard.adapters.aws.store import backoff, update_item
    from trainyard.application.serving.prediction import Predictor
    from trainyard.contracts.serving import parse_prediction
    from trainyard.persistence.aliases import Aliases
    from trainyard.persistence.inference import InferenceBook
    from trainyard.persistence.model_versions import ModelVersions

    settings = Settings.from_env("scheduler_table", "record_table", "tenants_table")
    store = store_of(settings)
    return Predictor(
        tenants=tenants(),
        aliases=Aliases(store, backoff),
        versions=ModelVersions(store),
        counts=InferenceBook(
            store=store,
            retention=retention_of(settings),
            update=lambda update: update_item(settings.record_table, update),
        ),
        ask=ask_model,
        ask_later=ask_later,
        check=parse_prediction,
        clock=monotonic,
    )
