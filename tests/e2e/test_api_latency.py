"""What a route of the HTTP API takes besides its calls of AWS, with many requests in the tables."""

import json
import subprocess
import sys

import pytest

from local.cloud import REPOSITORY

RATIO_MAX = 3
"""Measured: below 1.6, of calls that take milliseconds on a busy machine."""
CALLS_MAX = 10
"""Of AWS, by a route: it does not grow with what is in the tables."""
CALLS_OF_QUEUES_MAX = 25
"""By a route that looks at every queue for messages that could not be handled: SQS describes one per call."""
OF_QUEUES = {"/v1/service/health", "/v1/service/dead-letters"}


@pytest.mark.thorough
def test_routes_take_little_longer_than_their_calls_of_aws() -> None:
    command = [sys.executable, "-m", "benchmarks.api", "--requests", "2000", "--times", "10", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    results = json.loads(done.stdout)
    assert len(results) > 10
    assert {each["path"]: each["ratio"] for each in results if each["ratio"] > RATIO_MAX} == {}
    assert {each["path"]: each["calls"] for each in results if each["calls"] > _calls_max(each["path"])} == {}


def _calls_max(path: str) -> int:
    return CALLS_OF_QUEUES_MAX if path in OF_QUEUES else CALLS_MAX
