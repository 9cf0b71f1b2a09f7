"""A tuning trains several times, and the best hyperparameters become those of the trainings after it."""

import json
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from local.demo import data
from local.recomputed import recomputed
from tests.e2e.conftest import Harness
from tests.unit.test_tuning_steps import noisy
from trainyard.domain.requests import State

LOW, HIGH = 10, 40
DEFAULT = 1.0
"""Of the regularization: too little for what is trained on here."""


def shown(harness: Harness, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert harness.run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.thorough
def test_a_tuning_finds_values_with_which_trainings_then_begin(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    # long: one life of a data set that is tuned
    bucket = harness.create("tuned", "--target", "y", "--algorithm", "linear", tier="standard")
    harness.put(bucket, "incoming/noise/data.csv", noisy(240, 120, noise=0.8))
    harness.ended("tuned", 1)
    wanted = ("--trials", "3", "--range", f"regularization={LOW}..{HIGH}")
    assert harness.run("tuning", "start", "tuned", "noise", *wanted, "--wait") == 0
    request = harness.requests("tuned")[-1]
    assert (request.state, request.trials) == (State.SUCCEEDED, 3), request.reason
    assert request.outcome is not None
    values = json.loads(request.outcome.tuned or "{}")
    assert set(values) == {"regularization"}
    assert DEFAULT < values["regularization"] <= HIGH
    assert request.outcome.tuned_score is not None
    assert request.outcome.tuned_before is not None
    assert request.outcome.tuned_score > request.outcome.tuned_before + 0.01
    # It was judged beside the model of before, by rows that no trial has seen.
    assert request.outcome.champion is not None
    assert request.outcome.not_compared is None

    # Three jobs one after the other, with the tenant's role and tags, and all of them in its cost.
    sagemaker = harness.cloud.client("sagemaker")
    (execution,) = harness.executions_of(request)
    steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution["PipelineExecutionArn"])
    tuning = next(s["Metadata"]["TuningJob"] for s in steps["PipelineExecutionSteps"] if s["StepName"] == "Tune")
    name = tuning["Arn"].rpartition("/")[2]
    trials = sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    names = [trial["TrainingJobName"] for trial in trials["TrainingJobSummaries"]]
    jobs = [sagemaker.describe_training_job(TrainingJobName=name) for name in names]
    assert [job["TrainingJobStatus"] for job in jobs] == ["Completed"] * 3
    assert all(first["TrainingEndTime"] <= then["TrainingStartTime"] for first, then in pairwise(jobs))
    assert {job["RoleArn"] for job in jobs} == {harness.deployment.tenant("tuned").role_arn}
    for job in jobs:
        tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"]}
        assert (tags["trainyard:tenant"], tags["trainyard:request"]) == ("tuned", request.request_id)
    booked = [e for r in harness.requests("tuned") for e in harness.deployment.book.executions(r.request_id)]
    jobs_usd = recomputed(sagemaker, harness.outputs["PipelineName"])["tuned"]
    # Of a tuning the sum is rounded, and not each of its trials.
    assert abs(sum(e.cost_usd for e in booked) - Decimal(float(jobs_usd))) <= Decimal("0.000003")
    assert [e.unknown for e in booked] == [0, 0]

    asked = shown(harness, capsys, "request", request.request_id)["overrides"]["tuning"]
    assert (asked["trials"], asked["ranges"]) == (3, {"regularization": {"low": LOW, "high": HIGH}})

    # What was found is shown, and the next training begins with it.
    view = shown(harness, capsys, "tuning", "tuned", "noise")
    assert (view["used"], view["values"]) == (request.request_id, values)
    (found,) = view["tunings"]
    assert (found["trials"], found["metric"], found["score"]) == (3, "r2", request.outcome.tuned_score)
    assert harness.run("retrain", "tuned", "--data-set", "noise", "--force", "--wait") == 0
    assert hyperparameters(harness) | values == hyperparameters(harness)

    # Unless somebody takes it back.
    assert harness.run("tuning", "use", "tuned", "noise", "none") == 0
    assert harness.run("retrain", "tuned", "--data-set", "noise", "--force", "--wait") == 0
    assert hyperparameters(harness)["regularization"] == DEFAULT
    capsys.readouterr()
    assert harness.run("logs", request.request_id, "Tune") == 0
    assert capsys.readouterr().out.count("validation score: ") == 3


def hyperparameters(harness: Harness) -> dict[str, Any]:
    """Return those with which the newest request of the tenant trained."""
    request = harness.requests("tuned")[-1]
    (execution,) = harness.executions_of(request)
    listed = harness.cloud.client("sagemaker").list_pipeline_parameters_for_execution(
        PipelineExecutionArn=execution["PipelineExecutionArn"]
    )
    given = {each["Name"]: each["Value"] for each in listed["PipelineParameters"]}
    values: dict[str, Any] = json.loads(given["Hyperparameters"])
    return values


@pytest.mark.thorough
def test_a_tier_without_tunings_says_so(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.create("untuned")
    harness.drop("untuned", "incoming/wine/data.csv", data.bundled("wine"))
    harness.ended("untuned", 1)
    capsys.readouterr()
    assert harness.run("tuning", "start", "untuned", "wine") == 1
    assert "tier basic offers no tuning" in capsys.readouterr().err
    assert harness.run("tuning", "untuned", "wine") == 0
    assert "no tuning has ended with a model yet" in capsys.readouterr().out
