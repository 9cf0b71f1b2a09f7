"""The service as simulator, benchmarks and tests run it: all use cases of an upload over one store.

The production wiring is `trainyard.entrypoints.bootstrap`; this one differs only in its ports. Each port is in
memory unless another is given.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from functools import cached_property

from testing import memory_ports as memory
from trainyard.application.billing.outbox import OutboxRelay
from trainyard.application.ports import (
    Announcements,
    Bell,
    DataSets,
    ExecutionReports,
    Executions,
    ParallelMap,
    Receipts,
    Results,
    Retrainings,
    TenantRoles,
    Tenants,
    TierQueues,
)
from trainyard.application.scheduling.deadline_watch import DeadlineWatch
from trainyard.application.scheduling.dispatch import Dispatch, PassRecord
from trainyard.application.scheduling.enlist import Enlist
from trainyard.application.scheduling.expedite import Expedite
from trainyard.application.scheduling.explain import Explain
from trainyard.application.scheduling.intake import Intake, RefusedUploads
from trainyard.application.scheduling.notifications import Notifier
from trainyard.application.scheduling.reconcile import Reconcile
from trainyard.application.scheduling.record import Record
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.application.scheduling.starts import Starts
from trainyard.application.scheduling.stop import Stop
from trainyard.application.scheduling.transforms import Models, RowsToPredict, Transforms
from trainyard.domain.parameters import Defaults
from trainyard.domain.policy import Policy
from trainyard.domain.prices import JobKind, Prices
from trainyard.persistence.arrival_limits import ArrivalLimits
from trainyard.persistence.book import Book
from trainyard.persistence.policies import Policies
from trainyard.persistence.store import Store

ACCOUNT = "123456789012"
DEFAULTS = Defaults(
    training_image_uri="123456789012.dkr.ecr.us-east-1.amazonaws.com/train:1",
    processing_image_uri="123456789012.dkr.ecr.us-east-1.amazonaws.com/process:1",
    code_uri="s3://code/code/1",
    key_arn="arn:aws:kms:us-east-1:123456789012:key/1",
)
PRICES = Prices(
    version="2026-11-21",
    region="us-east-1",
    hourly={
        JobKind.TRAINING: {"ml.m5.large": Decimal("0.115"), "ml.m5.xlarge": Decimal("0.23")},
        JobKind.PROCESSING: {"ml.t3.medium": Decimal("0.05"), "ml.m5.large": Decimal("0.115")},
        JobKind.TRANSFORM: {"ml.m5.large": Decimal("0.115")},
    },
    volume_gb_month={
        JobKind.TRAINING: Decimal("0.14"),
        JobKind.PROCESSING: Decimal("0.14"),
        JobKind.TRANSFORM: Decimal(0),
    },
    hosting={"ml.m5.large": Decimal("0.115")},
    serverless_gb_second=Decimal("0.00002"),
    serverless_gb=Decimal("0.016"),
    storage_gb_month=Decimal("0.023"),
    scheduler_per_execution=Decimal("0.0001"),
)


def scheduler_over(store: Store, *, backoff: Callable[[int], None] = lambda _: None) -> Scheduler:
    """Return a scheduler that keeps requests for thirty days.

    `backoff` waits before a retry of a contended write, given its number.
    """
    return Scheduler.over(store, retention=timedelta(days=30), backoff=backoff)


def policies_in_force(store: Store, policy: Policy) -> Policies:
    """Return policies in which the given one is in force, under whichever version the ledger names."""
    return Policies(
        store=store,
        deployed="as built",
        parse=lambda _, version: replace(policy, version=version),
        running_max=10**6,
    )


@dataclass(kw_only=True)
class Service:
    store: Store
    policies: Policies
    tenants: Tenants
    receipts: Receipts = field(default_factory=memory.MemoryReceipts)
    announcements: Announcements = field(default_factory=memory.MemoryAnnouncements)
    bell: Bell = field(default_factory=memory.MemoryBell)
    roles: TenantRoles = field(default_factory=memory.MemoryRoles)
    data_sets: DataSets = field(default_factory=memory.MemoryDataSets)
    executions: Executions = field(default_factory=memory.MemoryExecutions)
    reports: ExecutionReports = field(default_factory=memory.MemoryReports)
    results: Results = field(default_factory=memory.MemoryResults)
    annotations: memory.MemoryAnnotations = field(default_factory=memory.MemoryAnnotations)
    tier_queues: TierQueues = field(default_factory=memory.MemoryTierQueues)
    retrainings: Retrainings = field(default_factory=memory.MemoryRetrainings)
    rows: RowsToPredict = field(default_factory=memory.MemoryRows)
    models: Models = field(default_factory=memory.MemoryModels)
    refused_uploads: RefusedUploads = field(default_factory=memory.MemoryRefusedUploads)
    backoff: Callable[[int], None] = lambda _: None
    parallel_map: ParallelMap = map
    encode: Callable[[PassRecord], bytes] | None = None
    """How the record of a pass is encoded; None to keep none."""

    @cached_property
    def scheduler(self) -> Scheduler:
        return scheduler_over(self.store, backoff=self.backoff)

    @cached_property
    def notifier(self) -> Notifier:
        return Notifier(tenants=self.tenants, receipts=self.receipts, announcements=self.announcements)

    @cached_property
    def intake(self) -> Intake:
        return Intake(
            account_id=ACCOUNT,
            tenants=self.tenants,
            policies=self.policies,
            data_sets=self.data_sets,
            tier_queues=self.tier_queues,
            retrainings=self.retrainings,
            rows=self.rows,
            models=self.models,
            scheduler=self.scheduler,
            notifier=self.notifier,
            arrival_limits=ArrivalLimits(self.store, self.backoff),
            refused_uploads=self.refused_uploads,
        )

    @cached_property
    def enlist(self) -> Enlist:
        return Enlist(
            policies=self.policies,
            tenants=self.tenants,
            scheduler=self.scheduler,
            notifier=self.notifier,
            bell=self.bell,
            roles=self.roles,
            parallel_map=self.parallel_map,
        )

    @cached_property
    def starts(self) -> Starts:
        return Starts(
            scheduler=self.scheduler,
            tenants=self.tenants,
            data_sets=self.data_sets,
            executions=self.executions,
            notifier=self.notifier,
            defaults=DEFAULTS,
            transforms=Transforms(models=self.models, rows=self.rows, defaults=DEFAULTS),
            parallel_map=self.parallel_map,
        )

    @cached_property
    def dispatch(self) -> Dispatch:
        return Dispatch(
            policies=self.policies,
            scheduler=self.scheduler,
            starts=self.starts,
            bell=self.bell,
            encode=self.encode,
        )

    @cached_property
    def expedite(self) -> Expedite:
        explain = Explain(policies=self.policies, scheduler=self.scheduler)
        return Expedite(scheduler=self.scheduler, explain=explain, bell=self.bell)

    @cached_property
    def deadline_watch(self) -> DeadlineWatch:
        return DeadlineWatch(policies=self.policies, scheduler=self.scheduler)

    @cached_property
    def record(self) -> Record:
        return Record(
            policies=self.policies,
            tenants=self.tenants,
            scheduler=self.scheduler,
            reports=self.reports,
            results=self.results,
            annotations=self.annotations,
            notifier=self.notifier,
            prices=PRICES,
            parallel_map=self.parallel_map,
        )

    @cached_property
    def reconcile(self) -> Reconcile:
        return Reconcile(
            policies=self.policies,
            scheduler=self.scheduler,
            executions=self.executions,
            record=self.record,
            parallel_map=self.parallel_map,
        )

    @cached_property
    def stop(self) -> Stop:
        return Stop(scheduler=self.scheduler, executions=self.executions, notifier=self.notifier)

    @cached_property
    def outbox(self) -> OutboxRelay:
        return OutboxRelay(
            policies=self.policies,
            scheduler=self.scheduler,
            book=Book(store=self.store),
            reports=self.reports,
            announcements=self.announcements,
            prices=PRICES,
        )
