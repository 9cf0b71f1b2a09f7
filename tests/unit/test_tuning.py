"""Tuning: what is searched, within which bounds, and what becomes of what was found."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.stub import Stubber
from botocore.validate import ParamValidator
from pydantic import ValidationError

from local.sagemaker.definition import Context, parameter_values
from local.sagemaker.jobs import JobFailed
from local.sagemaker.tuning import check_request
from pipeline import publish
from testing.service import DEFAULTS, PRICES
from tests.build import NOW, after, choice, hard, job, policy, request, step, tenant, tier
from tests.http_api import Api
from tests.unit.test_challengers import another, parameters_of
from tests.unit.test_pipeline_definition import TEXT
from tests.unit.test_retraining import Service, upload
from tests.unit.test_use_cases import Harness
from trainyard.adapters.aws import clients, sagemaker
from trainyard.application.api.tunings import Tunings
from trainyard.contracts.overrides import OverridesValues, overrides_values
from trainyard.contracts.policy_file import parse_policy
from trainyard.contracts.results import parse_evaluation
from trainyard.domain.algorithms import BUILT_IN, Algorithm, Hyperparameter, Kind
from trainyard.domain.arrivals import RetrainingAsked, check_overrides
from trainyard.domain.budgets import Account, cost_max_usd, least_usd
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.estimates import estimate
from trainyard.domain.executions import priced
from trainyard.domain.failures import TRIALS_TOO_SHORT, FailureCause
from trainyard.domain.parameters import pipeline_parameters
from trainyard.domain.pipelines import pipeline_variant
from trainyard.domain.prices import NO_PRICES
from trainyard.domain.receipts import receipt_of
from trainyard.domain.requests import Outcome, Overrides, State, Tuning
from trainyard.domain.resources import STOP_GRACE, TRIAL_STARTUP, ResourceProfile
from trainyard.domain.retraining import Trigger
from trainyard.domain.tenants import TrainingSettings
from trainyard.domain.tuning import (
    RANGES_MAX,
    TRIAL_TIME_MIN,
    TUNINGS_KEPT,
    Range,
    Tuned,
    check_plan,
    is_clearly_better,
    plan,
    ranges_of,
    ranges_text,
    tuned_values,
    used,
    with_tuned,
)
from trainyard.persistence.items import request_from, request_item
from trainyard.persistence.run_history import keep_tunings, past_key, tunings_from

BOOSTING, LINEAR = BUILT_IN
OFFERED = tier(tuning_trials_max=20, runtime_max=timedelta(hours=1))
PROFILE = ResourceProfile.of(choice()).tuning(10)
SETTINGS = TrainingSettings(algorithm="gradient-boosting", target="y")


# --- what is searched --------------------------------------------------------------------------------------------


def test_without_ranges_of_its_own_a_tuning_searches_what_the_algorithm_offers() -> None:
    ranges = ranges_of(Tuning(), BOOSTING, SETTINGS)
    assert [each.name for each in ranges] == [
        "l2_regularization",
        "learning_rate",
        "max_leaf_nodes",
        "min_samples_leaf",
    ]
    assert json.loads(ranges_text(ranges))["max_leaf_nodes"] == [4, 127, "log whole"]
    # What the settings say is not searched.
    fixed = replace(SETTINGS, hyperparameters=(("learning_rate", 0.2),))
    assert "learning_rate" not in {each.name for each in ranges_of(Tuning(), BOOSTING, fixed)}
    assert ranges_of(Tuning(), LINEAR, SETTINGS) == (Range("regularization", 1e-4, 1e3),)


@pytest.mark.parametrize(
    ("ranges", "settings", "why"),
    [
        ([("learning_rate", 0.3, 0.1)], {}, "the range of learning_rate is empty: 0.3 is not below 0.1"),
        ([("learning_rate", 0.1, 0.1)], {}, "is empty"),
        ([("depth", 1, 2)], {}, "gradient-boosting has no hyperparameter 'depth'; it has early_stopping, l2_"),
        ([("early_stopping", 0, 1)], {}, "early_stopping is of type boolean: only numbers are searched"),
        ([("max_leaf_nodes", 1, 10)], {}, "the range of max_leaf_nodes of gradient-boosting: 1 is out of bounds"),
        ([("max_leaf_nodes", 4.5, 10)], {}, "4.5 is not of type integer"),
        ([("learning_rate", 0.1, 2)], {}, "2 is out of bounds; it must be a number from 0.001 to 1"),
        (
            [("learning_rate", 0.1, 0.2)],
            {"learning_rate": 0.1},
            "learning_rate is set to 0.1: remove that to search it, or leave its range out",
        ),
        ([(f"p{n}", 0, 1) for n in range(5)], {}, "5 ranges are given; at most 4 hyperparameters"),
        (
            [],
            {n: p.default for n, p in BOOSTING.hyperparameters.items()},
            "names no hyperparameters to search that the settings leave open: name ranges of max_iter, ",
        ),
    ],
)
def test_a_range_that_cannot_be_searched_is_refused_with_the_way_out(
    ranges: list[tuple[str, float, float]], settings: dict[str, Any], why: str
) -> None:
    chosen = replace(SETTINGS, hyperparameters=tuple(settings.items()))
    with pytest.raises(Refused) as refused:
        ranges_of(Tuning(ranges=tuple(ranges)), BOOSTING, chosen)
    assert why in str(refused.value)


def test_wide_ranges_of_positive_numbers_are_searched_by_orders_of_magnitude() -> None:
    assert Range("x", 0.01, 0.1).scale == "log"
    assert Range("x", 0.011, 0.1).scale == "linear"
    assert Range("x", 0, 100).scale == "linear"
    assert Range("x", -1, 100).scale == "linear"
    assert Range("x", 2, 60, is_whole=True).scale == "log whole"


# --- within which bounds -----------------------------------------------------------------------------------------


def test_all_trials_together_never_take_or_cost_more_than_a_training_may() -> None:
    """Budgets reserve what a training may cost: each trial up to the end of its grace period."""
    for trials, minutes in product((2, 3, 7, 20), (7, 10, 59, 60, 61, 720)):
        runtime_max = timedelta(minutes=minutes)
        planned = plan(Tuning(trials=trials), OFFERED, PROFILE, PRICES, runtime_max)
        assert planned.trials * (planned.trial_time + STOP_GRACE) <= runtime_max + STOP_GRACE
        assert planned.trial_time >= TRIAL_TIME_MIN
        assert planned.time <= runtime_max + STOP_GRACE + planned.trials * TRIAL_STARTUP
        assert planned.trials <= trials


def test_time_and_money_bound_a_tuning() -> None:
    hour = timedelta(hours=1)
    planned = plan(Tuning(trials=4, minutes=20), OFFERED, PROFILE, PRICES, hour)
    assert (planned.trials, planned.trial_time) == (4, timedelta(minutes=5) - STOP_GRACE)
    assert planned.time == timedelta(minutes=20) + 4 * TRIAL_STARTUP
    # As much money as twenty minutes cost.
    usd = cost_max_usd(PROFILE, timedelta(minutes=20) - STOP_GRACE, PRICES)
    rates = PROFILE.rates(PRICES)
    assert usd is not None
    assert rates is not None
    planned = plan(Tuning(trials=4, usd=rates[-1] * 1200), OFFERED, PROFILE, PRICES, hour)
    assert (planned.trials, planned.trial_time) == (4, timedelta(minutes=5) - STOP_GRACE)
    # What is left of a budget may shorten a run after it was asked for: then fewer trials are run.
    assert plan(Tuning(trials=10), OFFERED, PROFILE, PRICES, timedelta(minutes=10)).trials == 4


@pytest.mark.parametrize(
    ("tuning", "changes", "why"),
    [
        (Tuning(), {"tuning_trials_max": 0}, "tier basic offers no tuning"),
        (Tuning(trials=21), {}, "21 trials are asked for; tier basic allows at most 20"),
        (Tuning(trials=20, minutes=20), {}, "20 trials do not fit into its time, its money and the 1:00:00"),
        (Tuning(trials=20, minutes=20), {}, "ask for 6 at most"),
        (Tuning(trials=2, minutes=5), {}, "all trials together have 300 seconds"),
        (Tuning(trials=2, usd=Decimal("0.000001")), {}, "all trials together have 0 seconds"),
        (Tuning(), {"runtime_max": timedelta(minutes=5)}, "ask for 2 at most"),
    ],
)
def test_a_tuning_that_does_not_fit_is_refused_when_it_is_asked_for(
    tuning: Tuning, changes: dict[str, Any], why: str
) -> None:
    of_tier = replace(OFFERED, **changes)
    with pytest.raises(Refused) as refused:
        check_plan(tuning, of_tier, PROFILE, PRICES, of_tier.runtime_max)
    assert why in str(refused.value)


def test_money_bounds_nothing_where_no_price_is_known() -> None:
    with pytest.raises(Refused, match=r"the price of ml\.m5\.large is not known: bound the tuning by minutes"):
        plan(Tuning(usd=Decimal(1)), OFFERED, PROFILE, NO_PRICES, timedelta(hours=1))


def test_whoever_asks_is_told_and_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(monkeypatch)
    body = {"data_set": "churn", "overrides": {"tuning": {"trials": 3}}}
    status, answer = api.post("/v1/tenants/acme/requests", body)
    assert (status, api.retrainings.asked) == (409, [])
    assert "tier basic offers no tuning" in answer["detail"]
    for tuning in (
        {"trials": 1},
        {"trials": 101},
        {"minutes": -1},
        {"usd": 0},
        {"usd": "NaN"},
        {"ranges": {"x": {"low": 1}}},
        {"ranges": {"x": {"low": "a", "high": 2}}},
        {"ranges": {f"x{n}": {"low": 1, "high": 2} for n in range(5)}},
        {"tries": 3},
    ):
        status, answer = api.post(
            "/v1/tenants/acme/requests", {"data_set": "churn", "overrides": {"tuning": tuning}}
        )
        assert status == 400, (tuning, answer)
    with pytest.raises(ValidationError, match="finite"):
        OverridesValues.model_validate({"tuning": {"ranges": {"x": {"low": float("nan"), "high": 1}}}})


def test_a_tuning_takes_one_instance_at_a_time_on_demand_and_waits_longer_for_it() -> None:
    spot = ResourceProfile.of(
        choice(training="ml.m5.large,ml.m5.xlarge"), spot_wait=timedelta(minutes=30), checkpoints=True
    )
    profile = spot.tuning(7)
    assert ResourceProfile.parse(str(profile)) == profile
    assert str(profile).endswith(" trials/7")
    assert profile.instances_by_type == {"training/ml.m5.large": 1, "processing/ml.t3.medium": 1}
    assert (profile.is_on_spot, profile.checkpoints, profile.jobs) == (False, False, 3)
    plain = ResourceProfile.of(choice())
    hour = timedelta(hours=1)
    assert profile.run_time(hour) == plain.run_time(hour) + 7 * TRIAL_STARTUP
    # No admitted run may last longer than what its tier says of the longest one.
    assert ResourceProfile.of(choice()).tuning(20).run_time(hour) <= OFFERED.run_time_max
    account = Account(hard("1000"), Decimal(0))
    limits = policy(OFFERED)
    assert limits.profile_for(OFFERED, "linear", 1, trials=3) == plain.tuning(3)
    once, tuned = (estimate((), 10**6, OFFERED, each, PRICES) for each in (plain, profile))
    assert (tuned.seconds > once.seconds, tuned.job_seconds) == (True, 3600)
    # A budget has at least what the trials may take: less would stop all of them.
    assert once.usd_p90 is not None
    assert tuned.usd_p90 is not None
    worst = cost_max_usd(profile, hour, PRICES)
    assert worst is not None
    assert once.usd_p90 < tuned.usd_p90 <= worst
    assert least_usd(profile, OFFERED, PRICES, [account], job_seconds=tuned.job_seconds) == worst


# --- what is asked for, and started ------------------------------------------------------------------------------

ASKED = Overrides(tuning=Tuning(trials=3, minutes=30, usd=Decimal("2.50"), ranges=(("learning_rate", 0.01, 0.3),)))


def test_a_tuning_travels_and_is_kept_as_it_was_asked_for() -> None:
    values = overrides_values(ASKED)
    assert OverridesValues.model_validate(values).to_overrides() == ASKED
    assert OverridesValues.model_validate_json(json.dumps(values)).to_overrides() == ASKED
    asked = request(1, overrides=ASKED)
    assert request_from(request_item(asked)).overrides == ASKED
    assert (asked.trials, request(1).trials) == (3, 0)
    assert ASKED.is_of_settings
    assert not replace(ASKED, algorithm="linear").is_of_settings


def tuned_parameters(**changes: Any) -> dict[str, str]:
    asked = request(1, attempt=1, profile=str(ResourceProfile.of(choice()).tuning(3)), overrides=ASKED, **changes)
    return pipeline_parameters(
        asked, tenant(settings=SETTINGS), OFFERED, BOOSTING, defaults=DEFAULTS, prices=PRICES
    )


def test_a_tuning_has_a_pipeline_of_its_own_whose_request_sagemaker_takes() -> None:
    parameters = tuned_parameters()
    assert pipeline_variant(parameters) == "tuning"
    definition = json.loads(publish.tuning(TEXT))
    values = parameter_values(definition, parameters)
    assert "Train" not in {each["Name"] for each in definition["Steps"]}
    (tune,) = (each for each in definition["Steps"] if each["Type"] == "Tuning")
    wanted = Context(values, {}, json.loads).resolve(tune["Arguments"])
    shape = botocore.session.get_session().get_service_model("sagemaker")
    operation = shape.operation_model("CreateHyperParameterTuningJob").input_shape
    named = {"HyperParameterTuningJobName": "x", **wanted}
    assert ParamValidator().validate(named, operation).generate_report() == ""
    check_request(wanted, "x")
    assert wanted["HyperParameterTuningJobConfig"]["ResourceLimits"] == {
        "MaxNumberOfTrainingJobs": 3,
        "MaxParallelTrainingJobs": 1,
        "MaxRuntimeInSeconds": 30 * 60 + 3 * 600,
    }
    trial = wanted["TrainingJobDefinition"]
    assert trial["StoppingCondition"] == {"MaxRuntimeInSeconds": 480}
    assert json.loads(trial["StaticHyperParameters"]["search"]) == {"learning_rate": [0.01, 0.3, "log"]}
    assert "InstancePreferences" not in trial["ResourceConfig"]
    assert {tag["Key"] for tag in wanted["Tags"]} >= {"trainyard:tenant", "trainyard:request", "trainyard:stage"}
    # What follows reads the best trial's model, where SageMaker puts it.
    (evaluate,) = (each for each in definition["Steps"] if each["Name"] == "Evaluate")
    best: dict[str, Any] = {"Tune": {"BestTrainingJob": {"TrainingJobName": "x-001-ab"}}}
    arguments = Context(values, {}, json.loads, best).resolve(evaluate["Arguments"])
    (model,) = (each["S3Input"] for each in arguments["ProcessingInputs"] if each["InputName"] == "model")
    assert model["S3Uri"] == f"{values['ReportOutputUri']}/training/x-001-ab/output/model.tar.gz"


def test_what_the_service_and_the_scripts_know_of_a_tuning_is_the_same() -> None:
    """The scripts are published by themselves, and import nothing of the service."""
    assert publish.RANGES == RANGES_MAX
    script = (Path(publish.__file__).parent / "steps/trial.py").read_text(encoding="utf-8")
    assert f'FIRST = re.compile(r"{sagemaker._FIRST.pattern}")' in script


def test_a_tuning_in_a_vpc_stays_in_it() -> None:
    vpc = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    definition = json.loads(publish.tuning(publish.in_vpc(TEXT, vpc)))
    (tune,) = (each for each in definition["Steps"] if each["Type"] == "Tuning")
    assert tune["Arguments"]["TrainingJobDefinition"]["VpcConfig"] == vpc


def test_the_local_cloud_refuses_what_sagemaker_refuses() -> None:
    definition = json.loads(publish.tuning(TEXT))
    (tune,) = (each for each in definition["Steps"] if each["Type"] == "Tuning")
    values = parameter_values(definition, tuned_parameters())

    def refused(name: str = "x", **changes: Any) -> str:
        wanted = Context(values | changes, {}, json.loads).resolve(tune["Arguments"])
        with pytest.raises(JobFailed) as failed:
            check_request(wanted, name)
        return str(failed.value)

    assert "33 characters" in refused("x" * 33)
    assert "at least 120" in refused(TuningSeconds=119)
    assert "MaxNumberOfTrainingJobs" in refused(Trials=0)
    assert "more than 2500 characters" in refused(Search="x" * 2501)


# --- what the trials were ----------------------------------------------------------------------------------------

TUNING_ARN = "arn:aws:sagemaker:us-east-1:123456789012:hyper-parameter-tuning-job/x-Tune"


def summary(number: int, **changes: Any) -> dict[str, Any]:
    name = f"x-Tune-{number:03d}-abcdef01"
    return {
        "TrainingJobName": name,
        "TrainingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{name}",
        "CreationTime": NOW,
        "TrainingStartTime": after(600 * number),
        "TrainingEndTime": after(600 * number + 100.5),
        "TrainingJobStatus": "Completed",
        "TunedHyperParameters": {"position_1": "0.5"},
    } | changes


def report_of(*pages: list[dict[str, Any]], status: str = "Completed", step_status: str = "Succeeded") -> Any:
    step = {"StepName": "Tune", "StepStatus": step_status, "Metadata": {"TuningJob": {"Arn": TUNING_ARN}}}
    if step_status == "Failed":
        step["FailureReason"] = "ClientError: All training jobs failed."
    objective = {"MetricName": "validation", "Value": 0.9}
    described = {
        "HyperParameterTuningJobName": "x-Tune",
        "HyperParameterTuningJobArn": TUNING_ARN,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "ResourceLimits": {"MaxParallelTrainingJobs": 1},
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {"TrainingInputMode": "File"},
            "RoleArn": "arn:aws:iam::123456789012:role/x",
            "OutputDataConfig": {"S3OutputPath": "s3://x"},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        },
        "HyperParameterTuningJobStatus": status,
        "CreationTime": NOW,
        "HyperParameterTuningEndTime": after(9000),
        "TrainingJobStatusCounters": {},
        "ObjectiveStatusCounters": {},
        "BestTrainingJob": summary(1) | {"FinalHyperParameterTuningJobObjectiveMetric": objective},
    }
    with Stubber(clients.client("sagemaker")) as stub:
        stub.add_response("list_pipeline_execution_steps", {"PipelineExecutionSteps": [step]})
        stub.add_response("describe_hyper_parameter_tuning_job", described)
        for number, page in enumerate(pages):
            more = {"NextToken": str(number)} if number + 1 < len(pages) else {}
            listing = "list_training_jobs_for_hyper_parameter_tuning_job"
            stub.add_response(listing, {"TrainingJobSummaries": page, **more})
        if step_status != "Failed":
            stub.add_response(
                "describe_pipeline_execution",
                {"PipelineExecutionStatus": "Executing", "PipelineExecutionArn": "a"},
            )
        return sagemaker.SageMakerExecutionReports().read(
            "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/x"
        )


def test_a_tuning_costs_the_sum_of_its_trials_and_not_the_time_between_them() -> None:
    report = report_of([summary(1), summary(2)], [summary(3)])
    (facts,) = report.steps
    assert (facts.kind, facts.job.billable_seconds, facts.job.trials) == ("Tuning", 3 * 101, 3)
    assert facts.job.metrics == (("validation", 0.9),)
    assert report.first_trial is None
    objective = {"FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "validation", "Value": 0.75}}
    assert report_of([summary(2, **objective), summary(1, **objective)]).first_trial == 0.75
    assert report_of([summary(2, **objective), summary(11, **objective)]).first_trial is None
    made = priced(facts, PRICES)
    assert made.cost_usd == priced(step(job=job(billable_seconds=303)), PRICES).cost_usd
    assert (made.is_final, made.flags) == (True, ())


def test_a_trial_that_never_began_cost_nothing_and_one_without_an_end_is_not_known() -> None:
    never = {key: value for key, value in summary(2).items() if not key.startswith("Training") or "Job" in key}
    (facts,) = report_of([summary(1), never | {"TrainingJobStatus": "Failed"}]).steps
    assert facts.job.billable_seconds == 101
    endless = {key: value for key, value in summary(2).items() if key != "TrainingEndTime"}
    (facts,) = report_of([summary(1), endless]).steps
    made = priced(facts, PRICES)
    assert (made.cost_usd, made.is_final) == (None, False)
    assert made.flags == ("SageMaker does not say how long one of its trials ran",)


def test_a_tuning_whose_trials_failed_says_why_the_last_one_did() -> None:
    reason = "AlgorithmError: gradient-boosting cannot take learning_rate=-1, exit code: 1"
    failed = summary(1, TrainingJobStatus="Failed", FailureReason=reason)
    report = report_of([failed], status="Failed", step_status="Failed")
    assert (report.failed_step, report.failure) == ("Tune", "gradient-boosting cannot take learning_rate=-1")
    assert report.cause is FailureCause.RUN
    capacity = summary(1, TrainingJobStatus="Failed", FailureReason="CapacityError: Unable to provision")
    assert report_of([capacity], status="Failed", step_status="Failed").cause is FailureCause.CAPACITY
    stopped = [summary(n, TrainingJobStatus="Stopped") for n in (1, 2)]
    assert report_of(stopped, status="Failed", step_status="Failed").failure == TRIALS_TOO_SHORT


# --- what becomes of it ------------------------------------------------------------------------------------------

FOUND = Outcome(
    trained_sha256="0" * 64,
    trained_files=1,
    model_package_arn="arn:package/1",
    tuned='{"regularization":0.25}',
    tuned_score=0.875,
    tuned_metric="roc_auc",
)


class Tunes(Service):
    """A service whose tier offers tunings."""

    def __init__(self) -> None:
        offers = tier(quota=4, running_max_per_tenant=4, tuning_trials_max=20)
        Harness.__init__(
            self,
            limits=policy(offers),
            tenants=(tenant(settings=TrainingSettings(algorithm="linear", target="y")),),
        )
        self.now = NOW
        self.put()
        self.reports.report = replace(self.reports.report, first_trial=0.8)

    def tune(self, outcome: Outcome = FOUND, event: str = "e1", **overrides: Any) -> str:
        """Let a tuning be asked for, and run to its end."""
        asked = RetrainingAsked(
            account_id=upload().account_id,
            event_id=event,
            tenant_id="acme",
            data_set="churn",
            overrides=Overrides(tuning=Tuning(trials=3), **overrides),
        )
        request_id = self.arrive(asked).request_id
        assert request_id is not None
        self.work()
        assert self.request(request_id).state is State.RUNNING
        self.results.outcome = outcome
        self.end(request_id, seconds=(self.now - NOW).total_seconds())
        return request_id

    @property
    def tunings(self) -> Tunings:
        return Tunings(store=self.store)


def test_the_next_training_begins_with_what_a_tuning_has_found() -> None:
    service = Tunes()
    tuning = service.tune()
    parameters = parameters_of(service, tuning)
    assert (parameters["Trials"], json.loads(parameters["Search"])) == (
        "3",
        {"regularization": [0.0001, 1000.0, "log"]},
    )
    assert service.request(tuning).profile.endswith(" trials/3")
    (kept,) = service.tunings.of("acme", "churn")
    assert (kept.request_id, kept.algorithm, kept.values) == (tuning, "linear", (("regularization", 0.25),))
    assert (kept.score, kept.metric, kept.trials, kept.is_used) == (0.875, "roc_auc", 3, True)
    receipt = receipt_of(service.request(tuning))["result"]
    assert isinstance(receipt, dict)
    assert receipt["tuning"] == {
        "values": {"regularization": 0.25},
        "score": 0.875,
        "score_before": 0.8,
        "metric": "roc_auc",
    }

    following = parameters_of(service, service.train(another(service, 2)))
    assert json.loads(following["Hyperparameters"]) == {"regularization": 0.25, "max_iter": 1000}
    assert pipeline_variant(following) == ""
    # What was found before the tuning is no longer the same training.
    service.tunings.use("acme", "churn", None)
    third = parameters_of(service, service.train(another(service, 3)))
    assert json.loads(third["Hyperparameters"]) == {"regularization": 1.0, "max_iter": 1000}


@pytest.mark.parametrize(
    ("metric", "score", "before", "gain", "is_used"),
    [
        ("r2", 0.90, 0.88, None, True),
        ("r2", 0.90, 0.89, None, True),
        ("r2", 0.90, 0.891, None, False),
        ("r2", 0.90, 0.95, None, False),
        ("r2", 0.001, -0.001, None, False),
        ("rmse", -98.0, -100.0, None, True),
        ("mae", -99.5, -100.0, None, False),
        ("mae", -0.00098, -0.001, None, True),
        ("r2", 0.90, None, None, False),
        ("r2", None, 0.9, None, False),
        ("r2", 0.90, 0.88, 0.0, True),
        ("r2", 0.90, 0.88, -0.001, False),
    ],
)
def test_values_are_used_only_if_they_are_clearly_better(
    metric: str, score: float | None, before: float | None, gain: float | None, is_used: bool
) -> None:
    assert is_clearly_better(metric, score=score, before=before, gain=gain) is is_used
    assert is_clearly_better(metric, score=score, before=before, gain=gain, error=0.0) is is_used


def test_a_gain_within_the_standard_error_of_the_score_is_none() -> None:
    assert is_clearly_better("r2", score=0.9, before=0.85, error=0.049)
    assert not is_clearly_better("r2", score=0.9, before=0.85, error=0.051)


def test_a_tuning_that_finds_hardly_better_values_changes_nothing() -> None:
    service = Tunes()
    service.reports.report = replace(service.reports.report, first_trial=0.87)
    service.tune()
    (kept,) = service.tunings.of("acme", "churn")
    assert (kept.score, kept.score_before, kept.is_used) == (0.875, 0.87, False)
    service.reports.report = replace(service.reports.report, first_trial=0.8)
    service.at(after(3600))
    service.tune(event="e2")
    assert [each.is_used for each in service.tunings.of("acme", "churn")] == [False, True]
    service.at(after(7200))
    service.tune(replace(FOUND, tuned_error=0.1), event="e3")
    assert [each.is_used for each in service.tunings.of("acme", "churn")] == [False, True, False]


def test_a_tuning_whose_model_was_worse_than_the_one_before_is_kept_and_not_used() -> None:
    service = Tunes()
    service.tune(replace(FOUND, champion="before", gain=-0.01))
    (kept,) = service.tunings.of("acme", "churn")
    assert not kept.is_used
    same = replace(FOUND, champion="before", gain=0.0, tuned='{"regularization":0.5}')
    service.at(after(3600))
    service.tune(same, event="e2")
    assert [each.is_used for each in service.tunings.of("acme", "churn")] == [False, True]


@pytest.mark.parametrize(
    "outcome",
    [replace(FOUND, tuned=None), replace(FOUND, model_package_arn=None, failed_step="Tune")],
)
def test_a_tuning_without_values_or_without_a_model_leaves_nothing(outcome: Outcome) -> None:
    service = Tunes()
    if outcome.model_package_arn is not None:
        service.tune(outcome)
    assert service.tunings.of("acme", "churn") == ()


def test_only_the_last_tunings_are_kept_and_those_that_are_used() -> None:
    service = Tunes()
    for number in range(TUNINGS_KEPT + 3):
        service.at(after(3600 * number))
        found = replace(FOUND, tuned=json.dumps({"regularization": float(number + 1)}))
        # The first one is better than what there was, and no later one is.
        service.tune(found if number == 0 else replace(found, tuned_score=0.8), event=f"e{number}")
    kept = service.tunings.of("acme", "churn")
    assert [dict(each.values)["regularization"] for each in kept] == [
        1.0,
        *(float(number + 1) for number in range(3, TUNINGS_KEPT + 3)),
    ]
    assert [each.is_used for each in kept] == [True] + [False] * TUNINGS_KEPT


def test_values_found_beside_other_hyperparameters_are_not_used_by_themselves() -> None:
    service = Tunes()
    service.tune(hyperparameters=(("max_iter", 7),))
    (kept,) = service.tunings.of("acme", "churn")
    assert not kept.is_used


@pytest.mark.parametrize("score", [1e-200, 1e30, -1e-300])
def test_a_score_that_a_table_cannot_keep_is_cut(score: float) -> None:
    service = Tunes()
    service.reports.report = replace(service.reports.report, first_trial=score)
    service.tune(replace(FOUND, tuned_score=score))
    (kept,) = service.tunings.of("acme", "churn")
    assert kept.score == kept.score_before


def test_a_tuning_changes_what_counts_as_unchanged() -> None:
    service = Tunes()
    asked = RetrainingAsked(
        account_id=upload().account_id, event_id="t1", tenant_id="acme", data_set="churn", trigger=Trigger.SCHEDULE
    )
    service.tune()
    service.at(after(3600))
    service.train(replace(asked, event_id="t2"))
    service.at(after(7200))
    assert "neither its data nor its settings have changed" in service.left_out(replace(asked, event_id="t3"))


def tuned(number: int = 1, **changes: Any) -> Tuned:
    values: dict[str, Any] = {
        "request_id": f"request-{number}",
        "at": after(number),
        "algorithm": "linear",
        "values": (("regularization", 0.25),),
    }
    return Tuned(**values | changes)


def test_settings_come_before_what_was_found_and_what_no_longer_fits_is_left_out() -> None:
    assert tuned_values(tuned(), LINEAR) == {"regularization": 0.25}
    assert tuned_values(tuned(), replace(LINEAR, name="linear@2")) == {"regularization": 0.25}
    assert tuned_values(tuned(), BOOSTING) == {}
    assert tuned_values(tuned(is_used=False), LINEAR) == {}
    assert tuned_values(None, LINEAR) == {}
    wrong = tuned(values=(("gone", 1), ("regularization", -1.0), ("max_iter", 7)))
    assert tuned_values(wrong, LINEAR) == {"max_iter": 7}
    set_by_hand = replace(SETTINGS, hyperparameters=(("regularization", 2.0),))
    assert with_tuned(set_by_hand, {"regularization": 0.25, "max_iter": 7}).hyperparameters == (
        ("max_iter", 7),
        ("regularization", 2.0),
    )
    tunings = (tuned(1), tuned(2, algorithm="gradient-boosting"), tuned(3, is_used=False))
    assert used(tunings, "linear@3") == tunings[0]
    assert used(tunings, "gradient-boosting") == tunings[1]
    assert used(tunings, "own") is None


def test_somebody_chooses_which_values_trainings_begin_with() -> None:
    service = Tunes()
    first = service.tune()
    service.at(after(3600))
    second = service.tune(replace(FOUND, tuned='{"regularization":0.5}'), event="e2")
    chosen = service.tunings.use("acme", "churn", first)
    assert [(each.request_id, each.is_used) for each in chosen] == [(first, True), (second, False)]
    assert service.tunings.use("acme", "churn", first) == chosen
    with pytest.raises(Refused, match="abcdefgh is none of the data set's last tunings"):
        service.tunings.use("acme", "churn", "abcdefghijk")
    with pytest.raises(Refused, match="last tunings: none"):
        service.tunings.use("acme", "other", "request-9")


def test_a_choice_and_a_tuning_that_ends_at_once_lose_nothing() -> None:
    service = Tunes()
    first = service.tune()
    store, transact = service.store, service.store.transact
    raced: list[bool] = []

    def late(writes: Any) -> None:
        if not raced:
            raced.append(True)
            service.at(after(3600))
            service.tune(replace(FOUND, tuned='{"regularization":0.5}'), event="e2")
        transact(writes)

    store.transact = late  # type: ignore[method-assign]
    try:
        chosen = service.tunings.use("acme", "churn", None)
    finally:
        store.transact = transact  # type: ignore[method-assign]
    assert [(each.request_id == first, each.is_used) for each in chosen] == [(True, False), (False, False)]
    service.tunings.use("acme", "churn", first)

    def never(writes: Any) -> None:
        raise Conflict("another write")

    store.transact = never  # type: ignore[method-assign]
    with pytest.raises(Conflict, match="keeps changing"):
        service.tunings.use("acme", "churn", None)


def test_a_report_of_another_script_cannot_put_anything_into_the_history() -> None:
    def best(**tuning: Any) -> Any:
        report = {"quality": {"metric": "roc_auc", "value": 0.9}, "tuning": tuning}
        return parse_evaluation(json.dumps(report).encode()).tuning

    assert best(values={"a": 1, "b": 0.5}, metric="roc_auc", score=0.5, error=0.1).text() == '{"a":1,"b":0.5}'
    for wrong in (
        {"values": {}, "metric": "roc_auc"},
        {"values": {"a": "text"}, "metric": "roc_auc"},
        {"values": {"a": [1]}, "metric": "roc_auc"},
        {"values": {"a b": 1}, "metric": "roc_auc"},
        {"values": {f"a{n}": 1 for n in range(5)}, "metric": "roc_auc"},
        {"values": {"a": 1e300}, "metric": "roc_auc"},
        {"values": {"a": 10**40}, "metric": "roc_auc"},
        {"values": {"a": 1}, "metric": "<b>"},
        {"values": {"a" * 65: 1}, "metric": "roc_auc"},
    ):
        assert best(**wrong) is None, wrong


# --- the policy --------------------------------------------------------------------------------------------------


def test_a_tier_offers_tunings_only_where_the_policy_says_so() -> None:
    text = """\
running_max: 4
quiet_period_seconds: 1
delay_max_seconds: 60
tiers:
  basic:
    quota: 4
    running_max_per_tenant: 2
    runtime_max_minutes: 60
    OWN
    instances: [{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}]
algorithms:
  own:
    hyperparameters:
      depth: {kind: KIND, search: SEARCH}
"""

    def limits(own: str = "quality_min: 0", search: str = "[1, 9]", kind: str = "") -> Any:
        kind = kind or "integer, minimum: 1, maximum: 9"
        return parse_policy(text.replace("OWN", own).replace("SEARCH", search).replace("KIND", kind), 1)

    assert limits().tiers[0].tuning_trials_max == 0
    assert limits("tuning_trials_max: 12").tiers[0].tuning_trials_max == 12
    assert limits().algorithm("own").hyperparameters["depth"].search == (1.0, 9.0)
    ranges = ranges_of(Tuning(), limits().algorithm("own"), replace(SETTINGS, algorithm="own"))
    assert ranges_text(ranges) == '{"depth":[1.0,9.0,"linear whole"]}'
    for own, search, why in (
        ("tuning_trials_max: 101", "[1, 9]", "tiers.basic.tuning_trials_max"),
        ("quality_min: 0", "[9, 1]", "is empty: 9 is not below 1"),
        ("quality_min: 0", "[0, 9]", "0 is out of bounds"),
        ("quality_min: 0", "[1.5, 9]", "1.5 is not of type integer"),
        ("quality_min: 0", "[1]", "search"),
    ):
        with pytest.raises(Refused) as refused:
            limits(own, search)
        assert why in str(refused.value)
    with pytest.raises(Refused, match="only numbers are searched"):
        limits(kind="text")


def test_what_may_be_tuned_is_checked_with_the_tenants_tier_and_algorithm() -> None:
    limits = policy(
        OFFERED, algorithms={"own": Algorithm(name="own", hyperparameters={"x": Hyperparameter(kind=Kind.TEXT)})}
    )
    limits = replace(limits, prices=PRICES)
    owner = tenant(settings=SETTINGS)
    check_overrides(owner, "churn", Overrides(tuning=Tuning(trials=10, usd=Decimal(5))), limits)
    for overrides, why in (
        (Overrides(tuning=Tuning(trials=30)), "allows at most 20"),
        (Overrides(algorithm="own", tuning=Tuning()), "of which it has none"),
        (
            Overrides(
                hyperparameters=(("learning_rate", 0.1),), tuning=Tuning(ranges=(("learning_rate", 0.1, 0.2),))
            ),
            "learning_rate is set to 0.1",
        ),
    ):
        with pytest.raises(Refused, match=why) as refused:
            check_overrides(owner, "churn", overrides, limits)
        assert refused.value.kind == "tuning"


def test_what_was_kept_before_tunings_has_none() -> None:
    assert tunings_from(None) == tunings_from({"runs": []}) == ()
    assert past_key("acme", "churn").table == "record"


# --- over the HTTP API -------------------------------------------------------------------------------------------

PATH = "/v1/tenants/acme/data-sets/churn/tunings"


def test_tunings_are_read_and_chosen_over_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(monkeypatch)
    assert api.get(PATH) == (200, {"items": []})
    key = past_key("acme", "churn")
    own = api.tenants.get("acme").settings.algorithm  # type: ignore[union-attr]
    first, second = tuned(1, algorithm=own), tuned(2, algorithm=own, score=0.5, metric="r2", trials=3)
    api.store.transact([keep_tunings(key, [first, second], None)])
    status, answer = api.get(PATH)
    assert (status, [each["request_id"] for each in answer["items"]]) == (200, ["request-2", "request-1"])
    assert [each["is_used"] for each in answer["items"]] == [True, False], "the newest of those that may be used"
    assert answer["items"][0]["values"] == {"regularization": 0.25}
    status, answer = api.post(f"{PATH}/use", {"request_id": "request-1"})
    assert (status, [each["is_used"] for each in answer["items"]]) == (200, [False, True])
    status, answer = api.post(f"{PATH}/use", {"request_id": None})
    assert (status, [each["is_used"] for each in answer["items"]]) == (200, [False, False])
    assert api.post(f"{PATH}/use", {"request_id": "request-3"})[0] == 409
    assert api.post(f"{PATH}/use", {})[0] == 400
    assert api.get("/v1/tenants/acme/data-sets/_rejected/tunings")[0] == 404
