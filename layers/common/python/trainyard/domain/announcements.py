"""What the service calls itself on its own bus."""

APPLICATION_SOURCE = "trainyard"
"""The `source` of events on the application's own bus."""
