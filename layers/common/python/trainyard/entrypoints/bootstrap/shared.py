"""What several functions need: the store, the policies, the scheduler, and small ports.

Each is built once, when it is first needed, and imports only what it needs: imports are the larger part of a cold
start.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from trainyard.contracts.settings import Settings

if TYPE_CHECKING:
    from trainyard.adapters.aws.store import DynamoStore
    from trainyard.adapters.aws.tables import DynamoBell, DynamoTenants
    from trainyard.application.scheduling.notifications import Notifier
    from trainyard.application.scheduling.scheduler import Scheduler
    from trainyard.domain.parameters import Defaults
    from trainyard.persistence.book import Book
    from trainyard.persistence.models import StoredModels
    from trainyard.persistence.policies import Policies


def store_of(settings: Settings) -> DynamoStore:
    from trainyard.adapters.aws.store import DynamoStore

    return DynamoStore(
        scheduler_table=settings.scheduler_table,
        requests_table=settings.requests_table,
        record_table=settings.record_table,
        tenants_table=settings.tenants_table,
    )


def policies_of(settings: Settings, *, keeps: bool = False) -> Policies:
    from trainyard.adapters.aws.store import backoff
    from trainyard.contracts.compiled_policy import DEPLOYED, CheckedValues
    from trainyard.persistence.policies import Policies

    form = CheckedValues(region=settings.region)
    return Policies(
        backoff=backoff,
        store=store_of(settings),
        deployed=DEPLOYED.read_text(encoding="utf-8"),
        parse=form.parse,
        form=form,
        keeps=keeps,
        running_max=int(settings.running_max),
    )


def scheduler_of(settings: Settings) -> Scheduler:
    from trainyard.adapters.aws.store import backoff
    from trainyard.application.scheduling.scheduler import Scheduler

    return Scheduler.over(store_of(settings), retention=retention_of(settings), backoff=backoff)


def notifier_of(settings: Settings) -> Notifier:
    from trainyard.adapters.aws.queues import EventBridgeAnnouncements
    from trainyard.adapters.aws.storage import S3Receipts
    from trainyard.adapters.aws.tables import DynamoTenants
    from trainyard.application.scheduling.notifications import Notifier

    return Notifier(
        tenants=DynamoTenants(tenants_table=settings.tenants_table),
        receipts=S3Receipts(),
        announcements=EventBridgeAnnouncements(event_bus_name=settings.event_bus_name),
    )


def retention_of(settings: Settings) -> timedelta:
    return timedelta(days=int(settings.request_retention_days))


def defaults_of(settings: Settings) -> Defaults:
    from trainyard.domain.parameters import Defaults

    return Defaults(
        training_image_uri=settings.training_image_uri,
        processing_image_uri=settings.processing_image_uri,
        code_uri=settings.code_uri,
        key_arn=settings.data_key_arn,
    )


def models_of(settings: Settings) -> StoredModels:
    from trainyard.adapters.aws.store import backoff
    from trainyard.persistence.aliases import Aliases
    from trainyard.persistence.model_versions import ModelVersions
    from trainyard.persistence.models import StoredModels

    store = store_of(settings)
    return StoredModels(Aliases(store, backoff), ModelVersions(store))


def package_arns_of(settings: Settings) -> Callable[[str, int], str]:
    """Return what makes the ARN of a model package of its group and version."""
    packages = f"arn:{settings.partition}:sagemaker:{settings.region}:{settings.account_id}:model-package"
    return lambda group, version: f"{packages}/{group}/{version}"


def bell_of(settings: Settings) -> DynamoBell:
    from trainyard.adapters.aws.tables import DynamoBell

    return DynamoBell(scheduler_table=settings.scheduler_table, bell_queue_url=settings.bell_queue_url)


@cache
def tenants() -> DynamoTenants:
    from trainyard.adapters.aws.tables import DynamoTenants

    return DynamoTenants(tenants_table=Settings.from_env("tenants_table").tenants_table)


@cache
def book() -> Book:
    from trainyard.persistence.book import Book

    return Book(store=store_of(Settings.from_env("scheduler_table", "requests_table", "record_table")))


@cache
def bell() -> DynamoBell:
    return bell_of(Settings.from_env("scheduler_table"))
