"""The rules of the service: pure functions and values, without a clock, an environment or AWS."""
