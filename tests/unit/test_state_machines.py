"""The state machines in their files: each task is retried and caught, each wait bounded, each step known."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.build import NOW
from tests.unit.test_functions import load
from trainyard.contracts.serving import parse_serving_step
from trainyard.contracts.tenants import StepCommand
from trainyard.domain.aliases import ABANDONED_AFTER
from trainyard.domain.tenants import Change
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.tenant_steps import task_of

FOLDER = Path(__file__).parents[2] / "statemachines"
MACHINES = {path.name.partition(".")[0]: yaml.safe_load(path.read_text("utf-8")) for path in FOLDER.iterdir()}
DEPLOY = "deploy-model"
FAILURES = {DEPLOY: "Fail"}
"""Machine → the task after one that failed, where that is not Failed."""
HISTORY_MAX = 25_000
"""Events of one execution (Step Functions developer guide, "Quotas")."""
EVENTS_PER_ROUND = 9


def tasks() -> Iterator[Any]:
    for machine, definition in MACHINES.items():
        for name, state in definition["States"].items():
            if state["Type"] == "Task":
                yield pytest.param(machine, name, state, id=f"{machine}-{name}")


def test_there_is_a_machine_for_every_change() -> None:
    assert set(MACHINES) - {DEPLOY} == {change.value for change in Change}


@pytest.mark.parametrize(("machine", "name", "state"), list(tasks()))
def test_every_task_is_bounded_retried_with_jitter_and_caught(
    machine: str, name: str, state: dict[str, Any]
) -> None:
    assert state["Parameters"].get("change", DEPLOY) == machine
    assert state["Parameters"]["step"] == name
    assert 120 < state["TimeoutSeconds"] <= 180, "longer than the function may run"
    last = state["Retry"][-1]
    assert last["ErrorEquals"] == ["States.ALL"]
    assert (last["JitterStrategy"], last["BackoffRate"]) == ("FULL", 2)
    assert last["MaxAttempts"] <= 5
    failure = FAILURES.get(machine, "Failed")
    if name != failure:
        others = {"Begin": "NotDeployed", "Restore": "NotRestored"}
        following = others.get(name, failure) if machine == DEPLOY else failure
        assert state["Retry"][0] == {"ErrorEquals": ["Refused"], "MaxAttempts": 0}
        caught = [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": following}]
        if name == "Judge":  # a canary is judged again, whatever has failed
            caught = [
                {"ErrorEquals": ["Refused"], "ResultPath": "$.error", "Next": "Fail"},
                {"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Watch"},
            ]
        assert state["Catch"] == caught


@pytest.mark.parametrize("machine", MACHINES)
def test_every_run_ends_before_its_history_is_full(machine: str) -> None:
    definition = MACHINES[machine]
    waits = [state["Seconds"] for state in definition["States"].values() if state["Type"] == "Wait"]
    if waits:
        assert definition["TimeoutSeconds"] / min(waits) * EVENTS_PER_ROUND < HISTORY_MAX
    assert definition["TimeoutSeconds"] <= 48 * 3600


@pytest.mark.parametrize("machine", MACHINES)
def test_every_state_is_reached_and_leads_somewhere(machine: str) -> None:
    states = MACHINES[machine]["States"]
    named = {MACHINES[machine]["StartAt"], *re.findall(r"'(?:Next|Default)': '(\w+)'", str(states))}
    assert named == set(states)
    assert all({"Next", "End", "Choices"} & set(s) or s["Type"] in ("Succeed", "Fail") for s in states.values())


@pytest.mark.parametrize("name", [p.values[1] for p in tasks() if p.values[0] == DEPLOY])
def test_the_serving_function_knows_every_step(name: str) -> None:
    assert parse_serving_step({"step": name, "run": "any"}).step == name
    assert name in load("serving").STEPS


def test_an_endpoint_is_waited_for_less_long_than_a_deployment_is_taken_for_dead() -> None:
    for state in ("BringUp", "Restore"):
        retries = MACHINES[DEPLOY]["States"][state]["Retry"]
        (waits,) = [retry for retry in retries if "InProgress" in retry["ErrorEquals"]]
        assert waits["IntervalSeconds"] * waits["MaxAttempts"] < ABANDONED_AFTER.total_seconds() / 2


@pytest.mark.parametrize(("machine", "name", "state"), [task for task in tasks() if task.values[0] != DEPLOY])
def test_the_tenants_function_knows_every_step(
    machine: str, name: str, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("tenant_changes", "onboarding", "moving", "leaving"):
        monkeypatch.setattr(bootstrap, part, Anything)
    command = StepCommand.model_validate({"change": machine, "step": name, "tenant": {"name": "acme"}})
    method = "note_failure" if name == "Failed" else re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    assert str(task_of(command.to_step(NOW).change, command.step)) == method


class Anything:
    def __getattr__(self, name: str) -> Any:
        return name
