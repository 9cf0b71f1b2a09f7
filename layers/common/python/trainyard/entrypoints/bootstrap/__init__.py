"""The use cases of the functions, by name: `bootstrap.intake()`."""

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
from trainyard.entrypoints.bootstrap.serving import lost_approvals, model_deployment, predictor, unused_endpoints
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
    "bell",
    "book",
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
    "statements",
    "tag_activation",
    "tenant_changes",
    "tenants",
    "unused_endpoints",
    "usage",
    "waiting_receipts",
]
