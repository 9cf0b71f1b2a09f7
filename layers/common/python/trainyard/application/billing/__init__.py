"""Costs of runs: booking, reports, statements, metering, and the outbox."""
