"""What tests, the simulator and the benchmarks share: the ports in memory, and one wiring of the service."""
