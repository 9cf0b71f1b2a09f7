"""`make contention` in short: dispatchers at once on the local cloud's DynamoDB."""

import subprocess
import sys


def test_dispatchers_at_once_start_each_request_once_and_exceed_nothing() -> None:
    command = [sys.executable, "-m", "local.contention", "--dispatchers", "8", "--requests", "40"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 of 40 requests" in done.stdout
