"""Runs whose first attempt trains on spot capacity: what it may cost, and how it goes on without it."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from local.cloud import REPOSITORY
from local.sagemaker.definition import Context, parameter_values
from local.sagemaker.jobs import JobFailed, check_spot
from pipeline.publish import on_spot, preferring, saving_progress, tuning
from testing.service import DEFAULTS, PRICES
from tests.build import after, choice, content, policy, request, submission, tenant, tier
from tests.unit.test_pipeline_definition import TEXT
from tests.unit.test_use_cases import Harness
from trainyard.adapters.aws import sagemaker
from trainyard.application.ports import ExecutionReport
from trainyard.application.scheduling.merging import supersede
from trainyard.application.scheduling.record import Recorded, StatusEvent
from trainyard.contracts.policy_file import parse_policy
from trainyard.contracts.settings import Settings
from trainyard.domain.admission import decide
from trainyard.domain.algorithms import Algorithm
from trainyard.domain.budgets import cost_max_usd
from trainyard.domain.errors import PipelineMissing, Refused, StartInvalid
from trainyard.domain.estimates import PastRun, estimate, teaches
from trainyard.domain.executions import StepFacts, priced
from trainyard.domain.failures import FailureCause
from trainyard.domain.names import display_name
from trainyard.domain.newest import uploads_of
from trainyard.domain.parameters import pipeline_parameters
from trainyard.domain.pipelines import PIPELINES, pipeline_variant
from trainyard.domain.policy import Policy, Retries
from trainyard.domain.requests import Request, State
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.tenants import Problem, TrainingSettings

SPOT, ON_DEMAND = "spot/ml.m5.large", "training/ml.m5.large"
WAIT = timedelta(minutes=30)


def limits(**changes: Any) -> Policy:
    tiers = (tier(quota=4, running_max_per_tenant=4, spot=True, spot_wait=WAIT, instances=(choice(),)),)
    return policy(*tiers, **({"instance_quotas": {SPOT: 2, ON_DEMAND: 2}} | changes))


def running(harness: Harness, waiting: int = 1) -> list[Request]:
    """Return requests that run, after a pass over so many that wait."""
    for number in range(1, waiting + 1):
        harness.enlist.enlist(submission(number), after(0))
    harness.dispatch.run_pass(after(1))
    return harness.scheduler.tables.held()


def usage(harness: Harness) -> dict[str, int]:
    counts = harness.scheduler.tables.ledger.read().usage
    return {name: counts.get(name, 0) for name in (SPOT, ON_DEMAND)}


def ended(harness: Harness, run: Request, now: datetime, *, status: str = "Failed", **report: Any) -> Any:
    """Report the end of a run's execution."""
    harness.reports.report = ExecutionReport(**report)
    name = display_name(run.request_id, run.attempt)
    event = StatusEvent(display_name=name, status=status, execution_arn=str(run.execution_arn))
    (result,) = harness.record.settle([event], now)
    return result


INTERRUPTED: dict[str, Any] = {
    "failed_step": "Train",
    "failure": "taken away",
    "cause": FailureCause.INTERRUPTION,
    "stopped_early": True,
}


# --- pools and attempts -----------------------------------------------------------------------------------------


def test_spot_capacity_has_pools_of_its_own() -> None:
    harness = Harness(limits=limits())
    assert len(running(harness, 3)) == 2
    assert usage(harness) == {SPOT: 2, ON_DEMAND: 0}


@pytest.mark.parametrize("status", ["Failed", "Stopped"])
def test_an_interrupted_run_goes_on_on_demand(status: str) -> None:
    harness = Harness(limits=limits())
    (first,) = running(harness)
    result = ended(harness, first, after(600), status=status, **INTERRUPTED)
    assert result.request.due_at == after(600), "it waits for nothing"
    assert result.recorded is Recorded.REQUEUED
    assert (result.request.state, result.request.reason) == (State.QUEUED, "Train: taken away")
    assert usage(harness) == {SPOT: 0, ON_DEMAND: 0}
    harness.dispatch.run_pass(after(900))
    (again,) = harness.scheduler.tables.held()
    assert (again.attempt, ResourceProfile.parse(again.profile).is_on_spot) == (2, False)
    assert usage(harness) == {SPOT: 0, ON_DEMAND: 1}


def test_an_attempt_on_demand_follows_even_where_nothing_is_retried() -> None:
    harness = Harness(limits=limits(retries=Retries(attempts_max=1)))
    (first,) = running(harness)
    assert ended(harness, first, after(600), **INTERRUPTED).recorded is Recorded.REQUEUED
    harness.dispatch.run_pass(after(900))
    (again,) = harness.scheduler.tables.held()
    result = ended(harness, again, after(1200), failed_step="Train", failure="x", cause=FailureCause.CAPACITY)
    assert (result.recorded, result.request.state) == (Recorded.FINISHED, State.FAILED)


def test_a_run_that_fails_by_its_own_fault_is_not_retried_on_demand() -> None:
    harness = Harness(limits=limits())
    (first,) = running(harness)
    result = ended(harness, first, after(600), failed_step="Train", failure="bad data", cause=FailureCause.RUN)
    assert (result.recorded, result.request.state) == (Recorded.FINISHED, State.FAILED)


def test_an_interrupted_run_that_somebody_has_stopped_stays_stopped() -> None:
    harness = Harness(limits=limits())
    (first,) = running(harness)
    harness.stop.stop(first.request_id, after(300))
    result = ended(harness, first, after(600), status="Stopped", **INTERRUPTED)
    assert result.request.state is State.STOPPED


def test_a_failure_that_has_nothing_to_do_with_spot_capacity_waits_as_any_other() -> None:
    harness = Harness(limits=limits())
    (first,) = running(harness)
    lacks: dict[str, Any] = {"failed_step": "Preprocess", "failure": "quota", "cause": FailureCause.RESOURCE_LIMIT}
    result = ended(harness, first, after(600), **lacks)
    assert result.request.due_at == after(600) + harness.limits.retries.delay


def test_an_execution_that_was_stopped_in_sagemaker_stays_stopped_whatever_its_steps_say() -> None:
    harness = Harness(limits=limits())
    (first,) = running(harness)
    failing: dict[str, Any] = {"failed_step": "Train", "failure": "throttled", "cause": FailureCause.THROTTLING}
    assert ended(harness, first, after(600), status="Stopped", **failing).request.state is State.STOPPED


def test_a_request_with_a_deadline_trains_on_demand() -> None:
    harness = Harness(limits=limits())
    harness.enlist.enlist(submission(1, deadline=after(7200)), after(0))
    harness.dispatch.run_pass(after(1))
    assert usage(harness) == {SPOT: 0, ON_DEMAND: 1}


def test_a_request_that_inherits_a_deadline_trains_on_demand() -> None:
    (of_tier,) = limits().tiers
    on_spot = str(limits().profile_for(of_tier, "linear", 1))
    waiting = request(1, profile=on_spot, deadline=after(7200), uploads=uploads_of(content()))
    newer = content(event_time=after(5), sequencer="ff", version_id="v2")
    comer = request(2, content=newer, uploads=uploads_of(newer), profile=on_spot, data_bytes=newer.size_bytes)
    winner, _ = supersede(comer, waiting, limits(), after(10))
    assert (winner.request_id, winner.deadline) == (comer.request_id, after(7200))
    assert not ResourceProfile.parse(winner.profile).is_on_spot


def test_waiting_for_spot_capacity_does_not_make_runs_on_demand_long() -> None:
    lane = ResourceProfile.of(choice())
    on_spot = ResourceProfile.of(choice(), spot_wait=WAIT)
    short = [PastRun(300, 100, Decimal("0.01"), 1, str(lane)) for _ in range(5)]
    waited = PastRun(5400, 100, Decimal("0.01"), 1, str(on_spot))
    assert estimate([*short, waited], 1, tier(), lane, PRICES).is_short
    assert not estimate([*short, replace(waited, profile=str(lane))], 1, tier(), lane, PRICES).is_short
    assert not teaches(replace(waited, succeeded=False))
    assert teaches(replace(waited, succeeded=False, profile=str(lane)))


def test_a_request_whose_pipeline_is_gone_gets_the_instances_of_the_policy_in_force() -> None:
    harness = Harness(limits=limits())
    harness.enlist.enlist(submission(1), after(0))
    gone = PipelineMissing("this deployment has no pipeline for spot capacity")
    harness.executions.faults = [(gone, False)]
    (of_tier,) = limits().tiers
    started = _started(harness, replace(limits(), tiers=(replace(of_tier, spot=False),)))
    assert (started.state, ResourceProfile.parse(started.profile).is_on_spot) == (State.QUEUED, False)


def test_a_request_whose_pipeline_is_gone_fails_where_the_policy_still_wants_it() -> None:
    harness = Harness(limits=limits())
    harness.enlist.enlist(submission(1), after(0))
    harness.executions.faults = [(PipelineMissing("no pipeline: deploy with SpotTraining=true"), False)]
    failed = _started(harness, harness.limits)
    assert (failed.state, failed.reason) == (State.FAILED, "no pipeline: deploy with SpotTraining=true")


def _started(harness: Harness, limits: Policy) -> Request:
    """Return a request after a pass has admitted it, and tried to start it under a policy."""
    admitter = harness.scheduler.admitter
    read = admitter.read(harness.limits, after(1))
    plan = decide(read.snapshot, harness.limits, after(1))
    committed = admitter.commit(plan, read, harness.limits, after(1))
    harness.dispatch.starts.start_all(committed, read.tenants, limits, after(2))
    started = harness.scheduler.tables.requests.get(submission(1).request_id)
    assert started is not None
    return started


def test_a_stopped_execution_without_a_failed_step_is_no_interruption() -> None:
    harness = Harness(limits=limits())
    (first,) = running(harness)
    assert ended(harness, first, after(600), status="Stopped").request.state is State.STOPPED


def test_a_size_that_was_wrong_does_not_bring_spot_capacity_back() -> None:
    harness = Harness(limits=limits())
    (first,) = running(harness)
    ended(harness, first, after(600), **INTERRUPTED)
    harness.dispatch.run_pass(after(900))
    (again,) = harness.scheduler.tables.held()
    (corrected,) = harness.scheduler.completer.requeue(
        again, harness.limits, after(901), due_at=after(901), reason="its size differs", data_bytes=7
    )
    assert not ResourceProfile.parse(corrected.profile).is_on_spot


def test_an_algorithm_may_say_otherwise() -> None:
    stays = Algorithm(name="stays", spot=False)
    goes = Algorithm(name="goes", spot=True)
    of_tier = limits(algorithms={"stays": stays, "goes": goes})
    (mixed,) = of_tier.tiers
    assert of_tier.profile_for(mixed, "linear", 1).is_on_spot
    assert not of_tier.profile_for(mixed, "stays", 1).is_on_spot
    assert not of_tier.profile_for(mixed, "linear", 1, on_demand=True).is_on_spot
    on_demand = replace(mixed, spot=False)
    assert not of_tier.profile_for(on_demand, "linear", 1).is_on_spot
    assert of_tier.profile_for(on_demand, "goes", 1).is_on_spot


# --- time and money ---------------------------------------------------------------------------------------------


def test_the_longest_run_includes_the_wait() -> None:
    (of_tier,) = limits().tiers
    assert of_tier.run_time_max == tier().run_time_max + WAIT
    harness = Harness(limits=limits())
    (first,) = running(harness)
    assert first.ends_by == first.admitted_at + of_tier.run_time_max  # type: ignore[operator]


def test_it_reserves_what_it_would_cost_on_demand() -> None:
    profile = ResourceProfile.of(choice(), spot_wait=WAIT)
    hour = timedelta(hours=1)
    assert cost_max_usd(profile, hour, PRICES) == cost_max_usd(profile.on_demand(), hour, PRICES)


def _priced(**described: Any) -> Any:
    told = {
        "TrainingJobArn": "arn:job",
        "TrainingJobStatus": "Stopped",
        "EnableManagedSpotTraining": True,
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
    }
    job = sagemaker._job_facts(told | described)
    return priced(StepFacts(name="Train", kind="Training", status="Failed", job=job), PRICES)


def test_it_is_billed_by_the_seconds_that_sagemaker_bills() -> None:
    times = {"TrainingStartTime": after(0), "TrainingEndTime": after(3600)}
    on_spot = _priced(**times, BillableTimeInSeconds=300, TrainingTimeInSeconds=1000)
    on_demand = _priced(**times, BillableTimeInSeconds=300, EnableManagedSpotTraining=False)
    assert (on_spot.seconds, on_spot.cost_usd) == (300, on_demand.cost_usd)
    assert on_spot.saved_usd > on_spot.cost_usd


def test_a_run_that_found_no_capacity_costs_nothing() -> None:
    record = _priced(TrainingEndTime=after(3600))
    assert (record.cost_usd, record.is_final) == (Decimal(0), True)


def test_seconds_that_are_not_told_are_not_guessed_from_a_time_that_includes_waiting() -> None:
    record = _priced(TrainingStartTime=after(0), TrainingEndTime=after(3600))
    assert (record.cost_usd, record.is_final) == (None, False)
    assert record.flags == ("SageMaker does not say how long its spot instances are billed",)


# --- what SageMaker says ----------------------------------------------------------------------------------------


class Described:
    """A SageMaker that has one execution, whose training job was stopped."""

    def __init__(self, step: dict[str, Any], job: dict[str, Any], *later: dict[str, Any]) -> None:
        arn = {"TrainingJob": {"Arn": "arn:aws:sagemaker:x:1:training-job/j"}}
        self.steps = [{"StepName": "Train", "Metadata": arn} | step, *later]
        self.job = {
            "TrainingJobArn": "arn:job",
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        } | job

    def list_pipeline_execution_steps(self, **_: Any) -> dict[str, Any]:
        return {"PipelineExecutionSteps": self.steps}

    def describe_training_job(self, **_: Any) -> dict[str, Any]:
        return self.job

    def describe_pipeline_execution(self, **_: Any) -> dict[str, Any]:
        return {"PipelineExecutionStatus": "Failed"}


EVALUATE = {"StepName": "Evaluate", "StepStatus": "Failed", "FailureReason": "ClientError: No S3 objects found"}


@pytest.mark.parametrize("later", [(), (EVALUATE,)], ids=["it ends there", "the pipeline goes on"])
@pytest.mark.parametrize("step", ["Failed", "Stopped", "Succeeded"])
@pytest.mark.parametrize(
    ("secondary", "cause"),
    [
        ("MaxWaitTimeExceeded", FailureCause.INTERRUPTION),
        ("Interrupted", FailureCause.INTERRUPTION),
        ("MaxRuntimeExceeded", FailureCause.RUN),
    ],
)
def test_the_jobs_secondary_status_says_why_it_was_stopped(
    secondary: str, cause: FailureCause, step: str, later: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No documentation says which status Pipelines gives the step of such a job, so none is relied on."""
    job = {"TrainingJobStatus": "Stopped", "SecondaryStatus": secondary}
    monkeypatch.setattr(sagemaker, "client", lambda _: Described({"StepStatus": step}, job, *later))
    report = sagemaker.SageMakerExecutionReports().read("arn:execution")
    assert (report.failed_step, report.cause) == ("Train", cause)
    assert secondary in str(report.failure)


def test_a_training_that_an_interruption_left_no_time_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    transitions = [{"Status": "Training"}, {"Status": "Interrupted"}, {"Status": "Training"}]
    job = {
        "TrainingJobStatus": "Stopped",
        "SecondaryStatus": "MaxRuntimeExceeded",
        "SecondaryStatusTransitions": transitions,
    }
    monkeypatch.setattr(sagemaker, "client", lambda _: Described({"StepStatus": "Failed"}, job))
    assert sagemaker.SageMakerExecutionReports().read("arn:execution").cause is FailureCause.INTERRUPTION


@pytest.mark.parametrize(
    "job",
    [
        {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Interrupted"},
        {"TrainingJobStatus": "Completed", "SecondaryStatus": "Completed"},
        {"TrainingJobStatus": "Stopped", "SecondaryStatus": "Stopped"},
        {"TrainingJobStatus": "Stopped"},
    ],
)
def test_other_statuses_are_no_interruption(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sagemaker, "client", lambda _: Described({"StepStatus": "Stopped"}, job))
    assert sagemaker.SageMakerExecutionReports().read("arn:execution").failed_step is None


def test_a_model_that_was_registered_all_the_same_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}
    registered = {
        "StepName": "Register",
        "StepStatus": "Succeeded",
        "Metadata": {"RegisterModel": {"Arn": "arn:m"}},
    }
    monkeypatch.setattr(sagemaker, "client", lambda _: Described({"StepStatus": "Succeeded"}, job, registered))
    report = sagemaker.SageMakerExecutionReports().read("arn:execution")
    assert (report.failed_step, report.model_package_arn) == (None, "arn:m")


# --- the pipelines ----------------------------------------------------------------------------------------------

DEFINITIONS = {
    "transform": (REPOSITORY / "pipeline/transform.json").read_text(encoding="utf-8"),
    "": TEXT,
    **{str(types): preferring(TEXT, types) for types in range(2, 6)},
    "spot": on_spot(TEXT),
    "spot-checkpoints": saving_progress(on_spot(TEXT)),
    "checkpoints": saving_progress(TEXT),
    "tuning": tuning(TEXT),
}


@pytest.mark.parametrize(
    ("checkpoints", "profile", "variant"),
    [
        (False, ResourceProfile.of(choice(), spot_wait=WAIT), "spot"),
        (True, ResourceProfile.of(choice(), spot_wait=WAIT), "spot-checkpoints"),
        (True, ResourceProfile.of(choice()), "checkpoints"),
        (False, ResourceProfile.of(choice()), ""),
        (False, ResourceProfile.of(choice(training="ml.m5.large,ml.m5.xlarge")), "2"),
    ],
)
def test_each_run_has_a_pipeline_that_takes_its_parameters(
    checkpoints: bool, profile: ResourceProfile, variant: str
) -> None:
    profile = profile._replace(checkpoints=checkpoints)
    (of_tier,) = limits().tiers
    parameters = pipeline_parameters(
        request(1, attempt=1, profile=str(profile), runtime_max_seconds=600),
        tenant(),
        of_tier,
        Algorithm(name="deep"),
        defaults=DEFAULTS,
    )
    assert pipeline_variant(parameters) == variant
    definition = json.loads(DEFINITIONS[variant])
    # Every parameter that the dispatcher gives, and no other.
    values = parameter_values(definition, parameters)
    (train,) = (step for step in definition["Steps"] if step["Type"] == "Training")
    job = Context(values, {}, json.loads).resolve(train["Arguments"])
    check_spot(job)
    assert job.get("EnableManagedSpotTraining", False) == profile.is_on_spot
    wait = {"MaxWaitTimeInSeconds": 600 + 1800} if profile.is_on_spot else {}
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 600} | wait
    model = botocore.session.get_session().get_service_model("sagemaker")
    for member, shape in (("StoppingCondition", "StoppingCondition"), ("CheckpointConfig", "CheckpointConfig")):
        if member in job:
            assert not ParamValidator().validate(job[member], model.shape_for(shape)).has_errors()


def test_a_training_goes_on_only_from_what_was_saved_of_the_same_one() -> None:
    def checkpoints(data_bytes: int = 10, data_set: str = "a", **changes: Any) -> str:
        settings = TrainingSettings(algorithm="linear", target="y", **changes)
        parameters = pipeline_parameters(
            request(1, attempt=1, profile=str(ResourceProfile.of(choice(), checkpoints=True)), data_set=data_set),
            tenant(settings=settings),
            limits().tiers[0],
            policy().algorithm("linear"),
            defaults=DEFAULTS,
            data_bytes=data_bytes,
        )
        return parameters["CheckpointUri"]

    assert checkpoints() == checkpoints()
    changed = [
        checkpoints(data_bytes=11),
        checkpoints(hyperparameters={"max_iter": 7}),
        checkpoints(problem=Problem.REGRESSION),
        checkpoints(data_set="b"),
    ]
    assert len({checkpoints(), *changed}) == 5


def test_the_attempt_on_demand_goes_on_whatever_the_policy_says_by_then() -> None:
    saving = Algorithm(name="linear", checkpoints=True)
    of_saving = limits(algorithms={"linear": saving})
    (of_tier,) = of_saving.tiers
    first = of_saving.profile_for(of_tier, "linear", 1)
    assert str(first).endswith(" spot/1800 checkpoints")
    assert str(first.on_demand()).endswith(" 30 checkpoints")
    assert not of_saving.profile_for(replace(of_tier, spot=False), "linear", 1).checkpoints


def test_a_deployment_has_the_pipelines_that_it_was_deployed_with() -> None:
    assert Settings(pipeline_name="p").pipeline_names == {
        "": "p",
        "transform": "p-transform",
        "tuning": "p-tuning",
    }
    everything = Settings(pipeline_name="p", training_types_max="5", spot_training="true").pipeline_names
    assert set(everything) == set(PIPELINES) == set(DEFINITIONS)
    assert Settings(pipeline_name="stack-training").pipeline_names["transform"] == "stack-transform"
    assert everything["spot-checkpoints"] == "p-spot-checkpoints"


def test_a_start_that_no_pipeline_is_for_is_refused_with_the_way_out() -> None:
    with pytest.raises(StartInvalid, match="SpotTraining=true"):
        sagemaker.SageMakerExecutions(pipeline_names={"": "p"}).start(
            name="n", token="t" * 32, description="d", parameters={"MaxWaitSeconds": "60"}
        )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"EnableManagedSpotTraining": False}, "only supported when"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 60}}, "must be present"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 59}}, "equal to or greater"),
        ({"ResourceConfig": {"InstancePreferences": []}}, "not supported"),
    ],
)
def test_the_local_sagemaker_refuses_as_sagemaker_does(change: dict[str, Any], reason: str) -> None:
    job = {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
        "ResourceConfig": {"InstanceType": "ml.m5.large"},
    }
    check_spot(job)
    with pytest.raises(JobFailed, match=reason):
        check_spot(job | change)


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("wait", [timedelta(0), WAIT])
def test_a_profile_is_read_back_as_it_was_written(wait: timedelta, checkpoints: bool) -> None:
    profile = ResourceProfile.of(choice(), spot_wait=wait, checkpoints=checkpoints)
    assert ResourceProfile.parse(str(profile)) == profile


# --- the policy -------------------------------------------------------------------------------------------------

POLICY = """
running_max: 4
quiet_period_seconds: 0
delay_max_seconds: 60
instance_quotas: {QUOTAS}
tiers:
  basic:
    quota: 2
    running_max_per_tenant: 1
    runtime_max_minutes: 5
    TIER
    instances:
      - {data_mb_max: 5, processing: ml.t3.medium, training: TRAINING, count: 2}
algorithms:
  deep: {ALGORITHM}
"""


def text(own: str = "spot: true", algorithm: str = "", quotas: str = "", training: str = "ml.m5.large") -> str:
    entries = {"TIER": own, "ALGORITHM": algorithm, "QUOTAS": quotas, "TRAINING": training}
    filled = POLICY
    for name, value in entries.items():
        filled = filled.replace(name, value)
    return filled


def test_a_policy_says_who_trains_on_spot_capacity() -> None:
    (basic,) = parse_policy(text("spot: true\n    spot_wait_minutes: 10"), 1).tiers
    assert (basic.spot, basic.spot_wait) == (True, timedelta(minutes=10))
    (basic,) = parse_policy(text(""), 1).tiers
    assert (basic.spot, basic.spot_wait) == (False, timedelta(0))
    limits = parse_policy(text("", algorithm="spot: true, checkpoints: true"), 1)
    assert (limits.tiers[0].spot, limits.tiers[0].spot_wait) == (False, timedelta(minutes=30))
    assert limits.algorithm("deep").checkpoints


LIST = "[ml.m5.large, ml.m5.xlarge]"
OWN = "instances: [{data_mb_max: 5, processing: ml.t3.medium, training: [ml.m5.large, ml.m5.xlarge]}]"


@pytest.mark.parametrize(
    ("entries", "where", "reason"),
    [
        ({"training": LIST}, "tiers.basic.instances.0.training", "names 2 types: SageMaker combines no list"),
        ({"algorithm": OWN}, "algorithms.deep.instances.0.training", "names 2 types"),
        ({"own": "", "algorithm": f"spot: true, {OWN}"}, "algorithms.deep.instances.0.training", "names 2 types"),
        ({"own": "", "algorithm": "spot: true", "training": LIST}, "tiers.basic.instances.0", "names 2 types"),
        ({"own": "spot_wait_minutes: 5"}, "tiers.basic.spot_wait_minutes", "has no effect without spot: true"),
        ({"own": "spot: true\n    spot_wait_minutes: 0"}, "tiers.basic.spot_wait_minutes", "at least 1"),
        ({"own": "spot: maybe"}, "tiers.basic.spot", "maybe"),
        ({"algorithm": "checkpoints: 3"}, "algorithms.deep.checkpoints", "3"),
        ({"quotas": "spot/ml.m5.large: 0"}, "tiers.basic.instances.0.training", "spot/ml.m5.large is 0"),
        ({"quotas": "spot/ml.m5.large: 1"}, "tiers.basic.instances.0.training", "spot/ml.m5.large is 1"),
        ({"quotas": "training/ml.m5.large: 1"}, "tiers.basic.instances.0.training", "on demand once it was"),
        ({"quotas": "spots/ml.m5.large: 1"}, "instance_quotas.spots/ml.m5.large", "must be training/ml"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(entries: dict[str, str], where: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_policy(text(**entries), 1)
    assert where in str(refused.value)
    assert reason in str(refused.value)


def test_lists_are_fine_where_nothing_trains_on_spot_capacity() -> None:
    parse_policy(text("", training=LIST), 1)
    parse_policy(text("", algorithm=f"spot: false, {OWN}"), 1)
    parse_policy(text(algorithm=f"spot: false, {OWN}"), 1)
    parse_policy(text(quotas="spot/ml.m5.large: 4, training/ml.m5.large: 2"), 1)
