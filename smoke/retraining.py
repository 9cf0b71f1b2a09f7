"""Steps of retraining: a model beside the one before, drift that is refused, and what asks by itself."""

import json
from collections.abc import Callable
from uuid import uuid4

from smoke.data import table
from smoke.deployed import POLICY, SILO, apply
from smoke.place import Suite
from smoke.steps import Step, StepFailed, eventually
from smoke.training import JOBS_OF_A_RUN, RUN_SECONDS_MAX, await_end, upload
from trainyard.domain.requests import TERMINAL, Request, State

SOURCE, ALARM = "com.example.smoke", "smoke-quality"
MAPPED = POLICY + (
    f"retraining:\n  sources: {{{SOURCE}: [{SILO}]}}\n"
    f"  alarms: [{{name: {ALARM}, tenant: {SILO}, data_set: compared}}]\n"
)


def compared(suite: Suite) -> list[str]:
    """Train twice: the second model is judged beside the first one, and the registry says so."""
    first = await_end(suite, SILO, upload(suite, SILO, "compared"))
    second = await_end(suite, SILO, upload(suite, SILO, "compared"))
    outcome = second.outcome
    if second.state is not State.SUCCEEDED or outcome is None or outcome.champion != first.request_id:
        raise StepFailed(f"{second.state}, {second.reason}; its champion is {outcome and outcome.champion}")
    if outcome.not_compared is not None:
        raise StepFailed(f"it was not compared: {outcome.not_compared}")
    package = suite.client("sagemaker").describe_model_package(ModelPackageName=outcome.model_package_arn)
    properties = package["CustomerMetadataProperties"]
    wanted = {"tenant": SILO, "registered_as": "challenger", "champion": first.request_id}
    if {name: properties.get(name) for name in wanted} != wanted:
        raise StepFailed(f"the registry's properties are {properties}: a change may replace those that it lacks")
    baselines = package.get("DriftCheckBaselines", {})
    return [f"{outcome.quality_metric} {outcome.gain:+.4f}", suite.keep("package", [properties, baselines])]


def drift_refused(suite: Suite) -> list[str]:
    """Upload rows that have moved, which the first job refuses; its report must be there all the same."""
    suite.operator("tenant", "update", SILO, "--retraining", "compared:on_shift=refuse,shift_percent=1")
    tenant = suite.deployment.tenant(SILO)
    key = f"{tenant.root}incoming/compared/data.csv"
    head, *rows = table("works").decode().splitlines()
    moved = [f"{float(row.partition(',')[0]) * 1000},{row.partition(',')[2]}" for row in rows]
    answer = suite.client("s3").put_object(Bucket=tenant.bucket, Key=key, Body="\n".join([head, *moved]).encode())
    refused = await_end(suite, SILO, (key, str(answer["VersionId"])))
    suite.operator("tenant", "update", SILO, "--retraining", "compared:")
    if refused.state is not State.FAILED or "moved far" not in str(refused.reason):
        raise StepFailed(f"{refused.state}: {refused.reason}")
    shown = json.loads(suite.operator("drift", SILO, "compared", "--json"))
    if shown["request_id"] != refused.request_id:
        raise StepFailed("a job that fails has not uploaded its continuous output: drift.json of it is not there")
    return [f"refused: {refused.reason}", suite.keep("drift", shown)]


def asked_by_others(suite: Suite) -> list[str]:
    """Let an alarm and another system ask for a training, and wait for what became of it."""
    apply(suite, MAPPED, "smoke suite: who may ask")
    cloudwatch, events = suite.client("cloudwatch"), suite.client("events")
    upload(suite, SILO, "compared")  # something to train on that is new
    cloudwatch.put_metric_alarm(
        AlarmName=ALARM,
        Namespace="Smoke",
        MetricName="Quality",
        Statistic="Average",
        Period=60,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="LessThanThreshold",
        TreatMissingData="notBreaching",
    )
    try:
        cloudwatch.set_alarm_state(AlarmName=ALARM, StateValue="ALARM", StateReason="smoke suite")
        detail = {"tenant_id": SILO, "data_set": "compared", "reason": f"smoke {uuid4()}", "force": True}
        entry = {"Source": SOURCE, "DetailType": "Retraining Requested", "Detail": json.dumps(detail)}
        answer = events.put_events(Entries=[{**entry, "EventBusName": suite.deployment.outputs["EventBus"]}])
        if answer["FailedEntryCount"]:
            raise StepFailed(f"the event was refused: {answer['Entries']}")
        _, by_event = eventually(_asked(suite, f"event: {SOURCE}"), 300 * suite.patience, "the event's request")
        _, by_alarm = eventually(_asked(suite, f"alarm: {ALARM}"), 300 * suite.patience, "the alarm's request")
        eventually(lambda: _is_quiet(suite), RUN_SECONDS_MAX, "the end of what was asked for")
    finally:
        cloudwatch.delete_alarms(AlarmNames=[ALARM])
        apply(suite, POLICY, "smoke suite")
    return [f"event → request after {by_event:g} s", f"alarm → request, or its record, after {by_alarm:g} s more"]


def _asked(suite: Suite, begins: str) -> Callable[[], bool]:
    """Return what tells whether a trigger has asked, whether or not that made a request."""

    def find() -> bool:
        requests: list[Request] = suite.deployment.scheduler.tables.requests.of_tenant(SILO)
        if any(trigger.startswith(begins) for request in requests for trigger in request.triggers):
            return True
        shown = json.loads(suite.operator("retraining", SILO, "--json"))
        return any(str(each["trigger"]).startswith(begins) for each in shown["triggers"])

    return find


def _is_quiet(suite: Suite) -> bool:
    requests = suite.deployment.scheduler.tables.requests.of_tenant(SILO)
    return all(request.state in TERMINAL for request in requests)


def tuned(suite: Suite) -> list[str]:
    """Tune with two trials, and read what the service reads: their scores, their cost, their log."""
    earlier = {each.request_id for each in _tunings(suite)}
    suite.operator("tuning", "start", SILO, "compared", "--trials", "2", *SEARCHED)

    def ended() -> Request | None:
        new = (each for each in _tunings(suite) if each.request_id not in earlier)
        return next((each for each in new if each.state in TERMINAL), None)

    request, _ = eventually(ended, RUN_SECONDS_MAX * suite.patience, "the end of the tuning")
    outcome = request.outcome
    if request.state is not State.SUCCEEDED or outcome is None or outcome.tuned is None:
        raise StepFailed(f"{request.state}, {request.reason}; it has found {outcome and outcome.tuned}")
    (execution,) = suite.deployment.book.executions(request.request_id)
    sagemaker = suite.client("sagemaker")
    pages = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution.execution_arn)
    steps = {step["StepName"]: step.get("Metadata", {}) for step in pages["PipelineExecutionSteps"]}
    name = steps["Tune"]["TuningJob"]["Arn"].rpartition("/")[2]
    trials = sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    names = [trial["TrainingJobName"] for trial in trials["TrainingJobSummaries"]]
    arns = [trial["TrainingJobArn"] for trial in trials["TrainingJobSummaries"]]
    tags = [{t["Key"] for t in sagemaker.list_tags(ResourceArn=arn)["Tags"]} for arn in arns]
    kept = suite.keep("tuning", [steps["Tune"], names, [sorted(each) for each in tags]])
    if any(not each >= {"trainyard:tenant", "trainyard:request"} for each in tags):
        raise StepFailed(f"the tags of the tuning are not those of its trials: {tags}")
    if execution.unknown:
        raise StepFailed(f"its cost is not known: {execution.flags}")
    if outcome.tuned_before is None:
        raise StepFailed(f"no trial's name ends as that of the first one does: {names}")
    if "validation score: " not in suite.operator("logs", request.request_id, "Tune"):
        raise StepFailed("the log streams of trials do not begin with the name of their tuning")
    return [f"{outcome.tuned_before:.4f} → {outcome.tuned_score:.4f}, {execution.cost_usd} USD", kept]


SEARCHED = ("--algorithm", "linear", "--range", "regularization=0.01..100")


def _tunings(suite: Suite) -> list[Request]:
    return [each for each in suite.deployment.scheduler.tables.requests.of_tenant(SILO) if each.trials]


STEPS: tuple[Step[Suite], ...] = (
    Step(
        name="champion",
        does="train twice; judge the second model beside the first; read the registry's properties and baselines",
        means="UpdateModelPackage replaces properties instead of adding to them, the recorder may not call it, or "
        "a single object is no input of a job: see pipeline/author.py.",
        run=compared,
        minutes=30,
        jobs=2 * JOBS_OF_A_RUN,
    ),
    Step(
        name="drift",
        does="upload rows that have moved far; let the first job refuse them, and read its report",
        means="SageMaker does not upload continuous outputs of a job that fails: then `trainyard drift` shows the "
        "last training that succeeded.",
        run=drift_refused,
        minutes=10,
        jobs=1,
    ),
    Step(
        name="tuning",
        does="tune with two trials; read their scores, tags, cost and log",
        means="the pipeline's role may not create a tuning job, or its conditions need keys that SageMaker does "
        "not provide; parameters may not stand where pipeline/publish.py has them; or SageMaker names the trials, "
        "their log streams or their tags otherwise than adapters/aws/sagemaker.py expects.",
        run=tuned,
        minutes=30,
        jobs=4,
    ),
    Step(
        name="asked-by-others",
        does="let a CloudWatch alarm and an event of another source ask for a training",
        means="the rule on the default bus, the policy of the bus, or the event's shape is not as documented.",
        run=asked_by_others,
        minutes=15,
        jobs=2 * JOBS_OF_A_RUN,
    ),
)
