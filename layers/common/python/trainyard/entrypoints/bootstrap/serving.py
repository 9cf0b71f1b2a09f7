"""The use cases of serving: deploying approved models, and predictions. Each is built once, when first needed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from trainyard.contracts.settings import Settings
from trainyard.entrypoints.bootstrap.shared import policies_of, retention_of, scheduler_of, store_of, tenants

if TYPE_CHECKING:
    from trainyard.application.serving.lost_approvals import LostApprovals
    from trainyard.application.serving.model_deployment import ModelDeployment
    from trainyard.application.serving.prediction import Predictor


@cache
def model_deployment() -> ModelDeployment:
    from trainyard.adapters.aws.serving import S3Samples, SageMakerPackages, SageMakerSharedModels
    from trainyard.adapters.aws.store import backoff
    from trainyard.application.serving.model_deployment import ModelDeployment
    from trainyard.persistence.aliases import Aliases
    from trainyard.persistence.model_versions import ModelVersions

    settings = Settings.from_env(
        "stack",
        "stage",
        "scheduler_table",
        "requests_table",
        "record_table",
        "tenants_table",
        "training_image_uri",
        "serving_bucket",
        "serving_role_arn",
        "serving_instance_type",
    )
    store = store_of(settings)
    return ModelDeployment(
        aliases=Aliases(store, backoff),
        versions=ModelVersions(store),
        tenants=tenants(),
        policies=policies_of(settings),
        scheduler=scheduler_of(settings),
        packages=SageMakerPackages(),
        samples=S3Samples(),
        models=SageMakerSharedModels(
            stack=settings.stack,
            stage=settings.stage,
            bucket=settings.serving_bucket,
            role_arn=settings.serving_role_arn,
            image_uri=settings.training_image_uri,
            instance_type=settings.serving_instance_type,
            subnet_ids=tuple(filter(None, settings.subnet_ids.split(","))),
            security_group_ids=tuple(filter(None, settings.security_group_ids.split(","))),
        ),
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
    )


@cache
def predictor() -> Predictor:
    from time import monotonic

    from trainyard.adapters.aws.serving import ask_model
    from trainyard.adapters.aws.store import backoff, update_item
    from trainyard.application.serving.prediction import Predictor
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
        clock=monotonic,
    )
