"""What a run printed: why a script failed that told SageMaker nothing, and `logs` while it runs and afterwards."""

import json
import threading
from pathlib import Path

import pytest

from cli import logs
from cli.app import answer
from tests.e2e.conftest import Harness, eventually
from tests.e2e.test_tenants import WINE
from trainyard.domain.requests import State

LAST_LINE = "the last line that it printed: "
ALGORITHM = """
name: {name}
description: "An estimator of our own"
hyperparameters:
  depth: {{kind: integer, default: 5, minimum: 1, maximum: 50}}
"""


def register(harness: Harness, folder: Path, name: str, script: str) -> None:
    (scripts := folder / name).mkdir()
    (scripts / "train.py").write_text(script, encoding="utf-8")
    (file := folder / f"{name}.yaml").write_text(ALGORITHM.format(name=name), encoding="utf-8")
    assert harness.run("algorithm", "register", str(file), "--scripts", str(scripts)) == 0


def unregister(harness: Harness, name: str, tenant_id: str) -> None:
    """Leave the shared deployment without an algorithm that policies of other tests lack."""
    assert harness.run("tenant", "update", tenant_id, "--algorithm", "linear") == 0
    assert harness.run("algorithm", "remove", name) == 0


@pytest.mark.parametrize(
    ("name", "script", "reason"),
    [
        (
            "misspelt",
            "print('fitting \\x1b[31m')\nestimater.fit()\n",
            "NameError: name 'estimater' is not defined",
        ),
        ("missing", "import xgboost_of_ours\n", "ModuleNotFoundError: No module named 'xgboost_of_ours'"),
        ("leaving", "import sys\nprint('the table is empty')\nsys.exit(3)\n", f"{LAST_LINE}the table is empty"),
    ],
)
def test_a_script_that_fails_without_a_word_to_sagemaker_has_its_last_line_as_the_reason(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, script: str, reason: str
) -> None:
    register(harness, tmp_path, name, script)
    harness.create(name, "--algorithm", name)
    harness.drop(name, "incoming/wine/wine.csv", WINE)
    (request,) = harness.ended(name)
    assert (request.state, request.reason) == (State.FAILED, f"Train: {reason}")
    short = request.request_id[:8]
    capsys.readouterr()
    assert harness.run("logs", short, "train") == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == reason.removeprefix(LAST_LINE)
    assert sum("Error" in line for line in said.splitlines()) <= 1, "no lines of other runs"
    assert "\x1b" not in said
    assert harness.run("why", short) == 0
    said = capsys.readouterr().out
    assert f"  {reason.removeprefix(LAST_LINE)}\n" in said
    assert f"trainyard logs {short} Train" in said
    assert harness.run("logs", short, "nonsense") == 1
    assert "there is no step 'nonsense' with a job; there are Preprocess, Train" in capsys.readouterr().err
    unregister(harness, name, name)


def test_a_run_is_followed_to_its_end_and_its_lines_stay(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LAST_LINES_SECONDS", 2)
    slow = """import time
for n in range(5):
    print('line', n, flush=True)
    time.sleep(0.3)
raise KeyError('n')
"""
    register(harness, tmp_path, "slow", slow)
    harness.create("followed", "--algorithm", "slow")
    harness.drop("followed", "incoming/wine/wine.csv", WINE)
    request = eventually(lambda: next(iter(harness.requests("followed")), None))
    capsys.readouterr()
    codes: list[int] = []
    follower = threading.Thread(target=lambda: codes.append(harness.run("logs", request.request_id, "-f")))
    follower.start()

    def step() -> str | None:
        explained = answer(harness.deployment, "why", request.request_id)
        return next((line for line in explained.lines if "its step Train" in line), None) if explained else None

    assert f"trainyard logs {request.request_id[:8]} Train -f" in eventually(step)
    follower.join(60)
    assert codes == [0]
    said = capsys.readouterr()
    (done,) = harness.ended("followed")
    assert (done.state, done.reason) == (State.FAILED, "Train: KeyError: 'n'")
    assert [line for line in said.out.splitlines() if "| line " in line] == [f"Train | line {n}" for n in range(5)]
    assert f"{request.request_id[:8]} is FAILED: Train: KeyError" in said.err
    assert harness.run("logs", request.request_id, "Train", "--tail", "3", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    assert {line["step"] for line in lines} == {"Train"}
    unregister(harness, "slow", "followed")


def test_a_request_without_a_log_says_why(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.create("silent")
    harness.drop("silent", "incoming/none/none.csv", b"a,b\n" + b"1,2\n" * 50)
    (request,) = harness.ended("silent")
    assert harness.run("logs", request.request_id) == 1
    assert f"ran no job: it is {request.state.value}" in capsys.readouterr().err
    assert harness.run("logs", request.request_id, "--attempt", "7") == 1
    assert "there is no record of attempt 7; there are: none yet" in capsys.readouterr().err
