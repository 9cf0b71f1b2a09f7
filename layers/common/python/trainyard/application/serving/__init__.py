"""Serving: models that were approved answer calls."""
