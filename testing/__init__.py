"""Shared by tests, simulator and benchmarks: the ports in memory, and one wiring of the service."""
