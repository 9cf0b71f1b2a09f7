"""Runs that begin on spot capacity, are interrupted, and go on from what they have saved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.demo import data
from local.sagemaker.jobs import split
from tests.e2e.conftest import Harness
from trainyard.domain.parameters import Locations
from trainyard.domain.requests import Request, State

WINE = data.bundled("wine")
SHIPPED = Path(__file__).parents[2] / "pipeline/steps/train.py"
ALGORITHM = """
name: {name}
spot: true
checkpoints: {checkpoints}
suffixes: [.csv]
instances:
  - {{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}}
"""
ESTIMATE = """
import time

from sklearn.neighbors import KNeighborsClassifier


def build_estimator(algorithm, problem, chosen):
    # The first round takes too long for spot capacity; the next one goes on from what the first one has saved.
    checkpoints = Path(os.environ["SM_MODEL_DIR"]).parent / "checkpoints"
    rounds = len(list(checkpoints.glob("round-*")))
    (checkpoints / f"round-{rounds}").write_text("saved")
    time.sleep(2 if rounds else 120)
    return KNeighborsClassifier()
"""


@pytest.fixture(scope="module", autouse=True)
def _algorithms(harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("spot")
    scripts = folder / "scripts"
    scripts.mkdir()
    head, _, tail = SHIPPED.read_text(encoding="utf-8").partition("def build_estimator(")
    own = ESTIMATE + "\n\nif __name__" + tail.partition("\nif __name__")[2]
    (scripts / "train.py").write_text(head + own, encoding="utf-8")
    before = harness.deployment.policies.in_force().text
    for name, checkpoints, options in (
        ("resuming", "true", ("--scripts", str(scripts))),
        ("linear", "false", ()),
    ):
        file = folder / f"{name}.yaml"
        file.write_text(ALGORITHM.format(name=name, checkpoints=checkpoints), encoding="utf-8")
        assert harness.run("algorithm", "register", str(file), *options) == 0
    yield
    file = folder / "before.yaml"
    file.write_text(before, encoding="utf-8")
    for tenant in ("resumes", "retried", "retried-too", "spotless"):
        harness.run("tenant", "update", tenant, "--algorithm", "gradient-boosting")
    assert harness.run("policy", "apply", "--yes", str(file)) == 0


@pytest.fixture(autouse=True)
def _capacity_again(harness: Harness) -> Iterator[None]:
    yield
    harness.cloud.exhaust()
    harness.cloud.interrupt_spot(0)


def pipelines_of(harness: Harness, request: Request) -> list[str]:
    """Return the pipelines of a request's executions, in the order of their attempts."""
    executions = sorted(harness.executions_of(request), key=lambda execution: execution["StartTime"])
    return [execution["PipelineExecutionArn"].split(":pipeline/")[1].split("/")[0] for execution in executions]


def saved_by(harness: Harness, request: Request) -> list[str]:
    """Return what a request's trainings have saved."""
    tenant = harness.deployment.tenants.get(request.tenant_id)
    assert tenant is not None
    bucket, prefix = split(f"{Locations.of(tenant, request).reports}/checkpoints")
    listed = harness.cloud.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix)
    return sorted(item["Key"].rpartition("/")[2] for item in listed.get("Contents", []))


def trainings(harness: Harness, request: Request) -> list[dict[str, Any]]:
    """Return the training jobs of a request, as SageMaker describes them, in the order of their attempts."""
    sagemaker = harness.cloud.client("sagemaker")
    jobs = []
    for execution in sorted(harness.executions_of(request), key=lambda execution: execution["StartTime"]):
        arn = execution["PipelineExecutionArn"]
        for step in sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]:
            if step["StepName"] == "Train":
                name = step["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
                jobs.append(sagemaker.describe_training_job(TrainingJobName=name))
    return jobs


@pytest.mark.thorough
def test_an_interrupted_training_goes_on_within_its_job(harness: Harness) -> None:
    harness.cloud.interrupt_spot(1)
    harness.create("resumes", "--algorithm", "resuming")
    harness.drop("resumes", "incoming/wine/data.csv", WINE)
    (request,) = harness.ended("resumes")
    assert request.state is State.SUCCEEDED, request.reason
    assert pipelines_of(harness, request) == ["trainyard-training-spot-checkpoints"]
    assert saved_by(harness, request) == ["round-0", "round-1"]
    (job,) = trainings(harness, request)
    assert job["BillableTimeInSeconds"] < job["TrainingTimeInSeconds"]


@pytest.mark.thorough
@pytest.mark.parametrize("step", ["Failed", "Stopped"])
def test_a_training_whose_capacity_does_not_return_goes_on_on_demand(harness: Harness, step: str) -> None:
    harness.cloud.interrupt_spot(1, returns=False, step=step)
    tenant = "retried" if step == "Failed" else "retried-too"
    harness.create(tenant, "--algorithm", "resuming")
    harness.drop(tenant, "incoming/wine/data.csv", WINE)
    (request,) = harness.ended(tenant)
    assert request.state is State.SUCCEEDED, request.reason
    assert pipelines_of(harness, request) == [
        "trainyard-training-spot-checkpoints",
        "trainyard-training-checkpoints",
    ]
    assert saved_by(harness, request) == ["round-0", "round-1"], "the second attempt has gone on from the first"
    assert (request.attempt, request.failures) == (2, 1)
    assert any("spot capacity" in str(change.cause) for change in request.history)


@pytest.mark.thorough
def test_a_training_that_never_gets_spot_capacity_costs_nothing_until_it_runs_on_demand(harness: Harness) -> None:
    harness.cloud.exhaust("spot/ml.m5.large")
    harness.create("spotless", "--algorithm", "linear")
    harness.drop("spotless", "incoming/wine/data.csv", WINE)
    (request,) = harness.ended("spotless")
    assert request.state is State.SUCCEEDED, request.reason
    assert pipelines_of(harness, request) == ["trainyard-training-spot", "trainyard-training"]
    first, second = trainings(harness, request)
    assert (first["SecondaryStatus"], first.get("BillableTimeInSeconds")) == ("MaxWaitTimeExceeded", None)
    assert second["TrainingJobStatus"] == "Completed"
    used = harness.deployment.scheduler.tables.ledger.read().usage
    assert {name: n for name, n in used.items() if name.startswith(("training/", "spot/")) and n} == {}
