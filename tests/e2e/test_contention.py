"""A short `make contention`: concurrent dispatchers against the local cloud's DynamoDB."""

import os
import subprocess
import sys

import pytest

from local.cloud import REPOSITORY


@pytest.mark.thorough
def test_dispatchers_at_once_start_each_request_once_and_exceed_nothing() -> None:
    command = [sys.executable, "-m", "local.contention", "--dispatchers", "8", "--requests", "40"]
    # As pytest finds the packages (pyproject.toml), whatever the environment that runs it says.
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "layers" / "common" / "python")])
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 of 40 requests" in done.stdout
