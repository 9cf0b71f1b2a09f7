"""Implementations of the ports: `aws` with boto3, `memory` without AWS."""
