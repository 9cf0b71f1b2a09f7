"""What the service calls itself and its events on its own bus."""

APPLICATION_SOURCE = "trainyard"
"""The `source` of events on the application's own bus."""

TENANT_EVENTS = (
    "Tenant Created",
    "Tenant Updated",
    "Tenant Moved",
    "Tenant Suspended",
    "Tenant Resumed",
    "Tenant Deleted",
)
"""Detail types of what happens to tenants."""
