"""Runs whose training may get one of two instance types, through the pipeline for two types."""

import json
import time
from collections.abc import Iterator

import pytest

from local.demo import data
from tests.e2e.conftest import Harness, eventually
from trainyard.adapters.aws.sagemaker import SageMakerExecutionReports
from trainyard.domain.requests import TERMINAL, Request, State

WINE = data.bundled("wine")
PREFERRED, NEXT = "ml.c5.xlarge", "ml.m5.large"
"""As the policy of these tests (conftest.py) names them for tier premium."""


@pytest.fixture(autouse=True)
def _capacity_again(harness: Harness) -> Iterator[None]:
    yield
    harness.cloud.exhaust()


def test_a_run_trains_on_the_next_type_when_the_first_has_no_capacity_and_pays_for_it(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.cloud.exhaust(PREFERRED)
    harness.create_pooled("fallback")
    harness.drop("fallback", "incoming/wine/data.csv", WINE)
    (request,) = harness.ended("fallback")
    assert request.state is State.SUCCEEDED, request.reason
    (execution,) = harness.executions_of(request)
    assert ":pipeline/trainyard-training-2/" in execution["PipelineExecutionArn"]
    assert SageMakerExecutionReports().selected(execution["PipelineExecutionArn"]) == NEXT
    capsys.readouterr()
    assert harness.run("request", request.request_id) == 0
    assert f"1 x {NEXT}" in capsys.readouterr().out


def test_the_reconciler_gives_back_what_was_not_selected_while_the_run_goes_on(harness: Harness) -> None:
    harness.cloud.exhaust(PREFERRED)
    harness.create_pooled("selected")
    function, reconcile = harness.outputs["ReconcilerFunction"], json.dumps({"work": "find ends"}).encode()

    def noted() -> Request | None:
        harness.drop("selected", "incoming/wine/data.csv", WINE)
        limit = time.monotonic() + 10
        while time.monotonic() < limit:
            answer = harness.cloud.client("lambda").invoke(FunctionName=function, Payload=reconcile)
            assert "FunctionError" not in answer, answer["Payload"].read()
            requests = harness.requests("selected")
            if any(request.selected for request in requests):
                return next(request for request in requests if request.selected)
            if requests and all(request.state in TERMINAL for request in requests):
                return None  # it was over too soon; once more
        return None

    assert eventually(noted, seconds=60).selected == NEXT

    def all_given_back() -> bool:
        used = harness.deployment.scheduler.tables.ledger.read().usage
        return not any(number for name, number in used.items() if name.startswith("training/"))

    # An upload of `noted` that came late may be a request by now, and run.
    assert eventually(all_given_back, seconds=60)


def test_a_run_without_capacity_of_any_type_goes_back_and_costs_only_what_ran(harness: Harness) -> None:
    harness.cloud.exhaust(PREFERRED, NEXT)
    harness.create_pooled("nowhere")
    harness.drop("nowhere", "incoming/wine/data.csv", WINE)
    request = eventually(lambda: next((r for r in harness.requests("nowhere") if r.failures), None))
    assert "capacity" in str(request.reason).lower()
    assert harness.run("stop", request.request_id) == 0
