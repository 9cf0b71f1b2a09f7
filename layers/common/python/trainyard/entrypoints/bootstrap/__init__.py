"""The use cases of the functions, by name: `bootstrap.intake()`."""

from trainyard.entrypoints.bootstrap.api import claim_names, request_pages, tenant_exists
from trainyard.entrypoints.bootstrap.billing import (
    inference_booking,
    metering,
    monthly_statements,
    outbox_relay,
    statements,
    tag_activation,
    usage,
)
from trainyard.entrypoints.bootstrap.scheduling import (
    dead_letters,
    deadline_watch,
    dispatch,
    enlist,
    guard,
    intake,
    lost_uploads,
    reconcile,
    record,
    redelivery,
    waiting_receipts,
)
from trainyard.entrypoints.bootstrap.serving import (
    approvals,
    lost_approvals,
    model_deployment,
    predictor,
    unused_endpoints,
)
from trainyard.entrypoints.bootstrap.shared import bell, book, tenants
from trainyard.entrypoints.bootstrap.tenancy import (
    leaving,
    moving,
    onboarding,
    pooled_role_idle_days,
    pooled_roles,
    tenant_changes,
)

__all__ = [
    "approvals",
    "bell",
    "book",
    "claim_names",
    "dead_letters",
    "deadline_watch",
    "dispatch",
    "enlist",
    "guard",
    "inference_booking",
    "intake",
    "leaving",
    "lost_approvals",
    "lost_uploads",
    "metering",
    "model_deployment",
    "monthly_statements",
    "moving",
    "onboarding",
    "outbox_relay",
    "pooled_role_idle_days",
    "pooled_roles",
    "predictor",
    "reconcile",
    "record",
    "redelivery",
    "request_pages",
    "statements",
    "tag_activation",
    "tenant_changes",
    "tenant_exists",
    "tenants",
    "unused_endpoints",
    "usage",
    "waiting_receipts",
]
