"""The use cases of booking, billing and cost events.

Each is built once, when it is first needed, and imports only what it needs: imports are the larger part of a cold
start.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from trainyard.contracts.settings import Settings
from trainyard.entrypoints.bootstrap.shared import (
    book,
    policies_of,
    retention_of,
    scheduler_of,
    store_of,
    tenants,
)

if TYPE_CHECKING:
    from trainyard.application.billing.cost_tags import TagActivation
    from trainyard.application.billing.inference import InferenceBooking
    from trainyard.application.billing.metering import Metering
    from trainyard.application.billing.outbox import OutboxRelay
    from trainyard.application.billing.statements import MonthlyStatements, Statements
    from trainyard.application.billing.usage import Usage


@cache
def outbox_relay() -> OutboxRelay:
    from trainyard.adapters.aws.queues import EventBridgeAnnouncements
    from trainyard.adapters.aws.sagemaker import SageMakerExecutionReports
    from trainyard.application.billing.outbox import OutboxRelay
    from trainyard.contracts.shipped_prices import prices_of
    from trainyard.persistence.book import Book

    settings = Settings.from_env("scheduler_table", "requests_table", "record_table", "event_bus_name")
    return OutboxRelay(
        policies=policies_of(settings),
        scheduler=scheduler_of(settings),
        book=Book(store=store_of(settings)),
        reports=SageMakerExecutionReports(),
        announcements=EventBridgeAnnouncements(event_bus_name=settings.event_bus_name),
        prices=prices_of(settings.region),
    )


@cache
def usage() -> Usage:
    from trainyard.adapters.aws.billing import S3UsageFiles
    from trainyard.application.billing.usage import Usage
    from trainyard.persistence.inference import InferenceBook

    settings = Settings.from_env("account_id", "region", "stage", "record_table", "billing_bucket")
    return Usage(
        book=book(),
        inference=InferenceBook(store=store_of(settings), retention=retention_of(settings)),
        files=S3UsageFiles(bucket=settings.billing_bucket),
        account_id=settings.account_id,
        region=settings.region,
        stage=settings.stage,
        retention=retention_of(settings),
    )


@cache
def inference_booking() -> InferenceBooking:
    from trainyard.adapters.aws.billing import SageMakerEndpoints
    from trainyard.application.billing.inference import InferenceBooking
    from trainyard.contracts.shipped_prices import prices_of
    from trainyard.persistence.inference import InferenceBook

    settings = Settings.from_env("stack", "region", "record_table")

    def tier_of(tenant_id: str) -> str | None:
        tenant = tenants().get(tenant_id)
        return tenant.tier if tenant is not None else None

    return InferenceBooking(
        book=InferenceBook(store=store_of(settings), retention=retention_of(settings)),
        endpoints=SageMakerEndpoints(stack=settings.stack),
        prices=prices_of(settings.region),
        tier_of=tier_of,
    )


@cache
def statements() -> Statements:
    from trainyard.adapters.aws.billing import S3StatementFiles
    from trainyard.application.billing.statements import Statements

    return Statements(book=book(), files=S3StatementFiles())


@cache
def monthly_statements() -> MonthlyStatements:
    from trainyard.application.billing.statements import MonthlyStatements

    return MonthlyStatements(book=book(), tenants=tenants(), statements=statements())


@cache
def tag_activation() -> TagActivation:
    from trainyard.adapters.aws.billing import CostExplorerTags
    from trainyard.application.billing.cost_tags import TagActivation

    return TagActivation(book=book(), tags=CostExplorerTags())


@cache
def metering() -> Metering | None:
    """Return the metering for AWS Marketplace; None when no dimension is configured."""
    from trainyard.adapters.aws.billing import AwsMarketplace
    from trainyard.application.billing.metering import Metering

    dimension = Settings.from_env().marketplace_dimension
    if not dimension:
        return None
    return Metering(book=book(), tenants=tenants(), marketplace=AwsMarketplace(dimension=dimension))
