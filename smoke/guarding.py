"""Steps that try what must not work: a mismatched job, other tenants' data, exceeded limits, lost events."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any
from zoneinfo import ZoneInfo

import boto3
from botocore.exceptions import ClientError

from smoke.deployed import POLICY, POOLED, SILO, apply
from smoke.place import Suite
from smoke.steps import Step, StepFailed, eventually
from smoke.training import JOBS_OF_A_RUN, RUN_SECONDS_MAX, await_end, jobs_of, request_of, upload
from trainyard.adapters.aws.credentials import Credentials, scoped_credentials
from trainyard.adapters.aws.deployment_names import Purpose
from trainyard.domain.requests import TERMINAL, Request, State
from trainyard.persistence.items import stamp
from trainyard.persistence.requests import request_key
from trainyard.persistence.store import Update

ENDED = ("Succeeded", "Failed", "Stopped", "CompletedWithFailures")
PASS_SECONDS = 75
"""After which the timer has started a pass."""

GUARD_ATTEMPTS = 5
"""A job of seconds, as in the local cloud, may fail on the other tenant's data before the guard stops it."""


def _last_success(suite: Suite) -> Request:
    """Return a succeeded request of the tenant with a bucket; its execution's parameters are used again."""
    requests = suite.deployment.scheduler.tables.requests.of_tenant(SILO)
    found = next((r for r in requests if r.state is State.SUCCEEDED and r.execution_arn), None)
    if found is None:
        raise StepFailed(f"no request of {SILO} has succeeded yet: run the step one-file first")
    return found


def guard(suite: Suite) -> list[str]:
    parameters = _mismatched(suite)
    with _listening(suite) as queue:
        for _ in range(GUARD_ATTEMPTS):
            execution, seconds = _run_by_hand(suite, parameters)
            events = [event for event in _taken(suite, queue) if execution.rpartition("/")[2] in str(event)]
            saved = suite.keep("job-events", events)
            jobs = list(jobs_of(suite, execution))
            statuses = [str(job.get("TrainingJobStatus") or job.get("ProcessingJobStatus")) for job in jobs]
            seen = f"its jobs are {', '.join(statuses) or 'none'} after {len(events)} events\n{saved}"
            if events and "Stopped" in statuses:
                return [f"a job with {SILO}'s role and {POOLED}'s tag was stopped after {seconds:g} s", saved]
            if "Completed" in statuses:
                raise StepFailed(f"{execution} with the role of {SILO} and the tag of {POOLED} went on: {seen}")
    raise StepFailed(f"none of {GUARD_ATTEMPTS} executions had a job stopped; of the last, {execution}, {seen}")


def _mismatched(suite: Suite) -> list[dict[str, str]]:
    """Return the parameters of an earlier execution with another tenant's tag."""
    answer = suite.client("sagemaker").list_pipeline_parameters_for_execution(
        PipelineExecutionArn=_last_success(suite).execution_arn, MaxResults=100
    )
    parameters = {pair["Name"]: pair["Value"] for pair in answer["PipelineParameters"]} | {
        "TenantId": POOLED,
        "Hyperparameters": json.dumps({"max_iter": 5000, "early_stopping": False}),  # until it is stopped
    }
    return [{"Name": name, "Value": value} for name, value in parameters.items()]


def _run_by_hand(suite: Suite, parameters: list[dict[str, str]]) -> tuple[str, float]:
    """Start the pipeline without the dispatcher; return the execution's ARN and the seconds until its end."""
    execution = suite.client("sagemaker").start_pipeline_execution(
        PipelineName=suite.deployment.outputs["PipelineName"],
        PipelineExecutionDisplayName="smoke-mismatch",
        ClientRequestToken=uuid.uuid4().hex,
        PipelineParameters=parameters,
    )["PipelineExecutionArn"]
    _, seconds = eventually(lambda: _ended(suite, execution), RUN_SECONDS_MAX, "the end of the execution")
    return str(execution), seconds


def _ended(suite: Suite, execution: str) -> str | None:
    told = suite.client("sagemaker").describe_pipeline_execution(PipelineExecutionArn=execution)
    status = str(told["PipelineExecutionStatus"])
    return status if status in ENDED else None


@contextmanager
def _listening(suite: Suite) -> Iterator[str]:
    """Send the events of the pipeline's jobs to a queue as well; yields its URL."""
    sqs, events, name = suite.client("sqs"), suite.client("events"), f"{suite.stack}-smoke-{uuid.uuid4().hex[:8]}"
    with ExitStack() as cleanup:
        url = str(sqs.create_queue(QueueName=name)["QueueUrl"])
        cleanup.callback(sqs.delete_queue, QueueUrl=url)
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        pattern = {
            "source": ["aws.sagemaker"],
            "detail-type": ["SageMaker Training Job State Change", "SageMaker Processing Job State Change"],
            "detail": {
                "$or": [
                    {"TrainingJobName": [{"prefix": "pipelines-"}]},
                    {"ProcessingJobName": [{"prefix": "pipelines-"}]},
                ]
            },
        }
        rule = events.put_rule(Name=name, EventPattern=json.dumps(pattern))["RuleArn"]
        cleanup.callback(events.delete_rule, Name=name)
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": rule}},
        }
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": document})
        events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
        cleanup.callback(events.remove_targets, Rule=name, Ids=["queue"])
        yield url


def _taken(suite: Suite, url: str) -> list[Any]:
    sqs, bodies = suite.client("sqs"), []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=2).get("Messages"):
        for message in messages:
            bodies.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return bodies


def retried_by_hand(suite: Suite) -> list[str]:
    failed = next(r for r in suite.deployment.scheduler.tables.requests.of_tenant(SILO) if r.state is State.FAILED)
    sagemaker = suite.client("sagemaker")
    sagemaker.retry_pipeline_execution(
        PipelineExecutionArn=failed.execution_arn, ClientRequestToken=uuid.uuid4().hex.ljust(32, "-")
    )
    logs, group = suite.client("logs"), f"/trainyard/{suite.stack}/Recorder"
    begun = int(time.time() * 1000)

    def told() -> Any:
        pages = logs.get_paginator("filter_log_events")
        found = pages.paginate(logGroupName=group, startTime=begun, filterPattern="UNMANAGED")
        return [event for page in found for event in page["events"]]

    events, seconds = eventually(told, 900, "the recorder's log entry for an unmanaged execution", every=10)
    return [f"reported after {seconds:g} s", suite.keep("retried-by-hand", events)]


def isolation(suite: Suite) -> list[str]:
    count = 0
    for own, other in ((SILO, POOLED), (POOLED, SILO)):
        there, here = suite.deployment.tenant(other), suite.deployment.tenant(own)
        for is_upload in (True, False):
            s3 = _as(suite, own, upload_data=is_upload)
            for folder in ("incoming", "models", "reports", "receipts"):
                key = f"{there.root}{folder}/first/data.csv"
                for attempt in (
                    lambda: s3.put_object(Bucket=there.bucket, Key=key, Body=b"x"),  # noqa: B023
                    lambda: s3.get_object(Bucket=there.bucket, Key=key),  # noqa: B023
                    lambda: s3.list_objects_v2(Bucket=there.bucket, Prefix=f"{there.root}{folder}/"),  # noqa: B023
                ):
                    _denied(attempt, f"{own} on {other}: {key}")
                    count += 1
        # Its own data must be accessible: denying everything would not prove isolation.
        listed = _as(suite, own, upload_data=False).list_objects_v2(
            Bucket=here.bucket, Prefix=f"{here.root}receipts/"
        )
        if not listed.get("KeyCount"):
            raise StepFailed(f"{own} cannot list its own receipts")
    return [f"{count} attempts to access the other tenant's data with handed-out credentials, all denied"]


def _as(suite: Suite, tenant_id: str, *, upload_data: bool) -> Any:
    outputs = suite.deployment.outputs
    found: Credentials = scoped_credentials(
        suite.deployment.tenant(tenant_id),
        access_role_arn=outputs["TenantAccessRoleArn"],
        data_key_arn=outputs["DataKeyArn"],
        purpose=Purpose.UPLOAD if upload_data else Purpose.READ,
        minutes=15,
    )
    return boto3.client(
        "s3",
        aws_access_key_id=found.access_key_id,
        aws_secret_access_key=found.secret_access_key,
        aws_session_token=found.session_token,
    )


def _denied(attempt: Any, what: str) -> None:
    try:
        attempt()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("AccessDenied", "403"):
            return
        raise StepFailed(f"{what}: {error}") from error
    raise StepFailed(f"{what} was allowed")


def stop(suite: Suite) -> list[str]:
    for _ in range(3):
        uploaded = upload(suite, SILO, "stopped")

        def begun() -> Request | None:
            request = request_of(suite, SILO, uploaded)  # noqa: B023
            return request if request is not None and request.state not in (State.QUEUED, State.ADMITTED) else None

        request, _ = eventually(begun, 900, "the start of the execution", every=0.2)
        if request.state is State.RUNNING:
            suite.operator("stop", request.request_id)
            ended = await_end(suite, SILO, uploaded)
            if ended.state is State.STOPPED:
                return [f"{ended.request_id} was stopped: {ended.reason}"]
    raise StepFailed("three executions ended before they could be stopped")


def lost_event(suite: Suite) -> list[str]:
    outputs, events = suite.deployment.outputs, suite.client("events")
    rule = outputs["ExecutionStatusRule"]
    events.disable_rule(Name=rule)
    try:
        uploaded = upload(suite, SILO, "untold")

        def over() -> Request | None:
            request = request_of(suite, SILO, uploaded)
            ended = request is not None and request.execution_arn and _ended(suite, request.execution_arn)
            return request if ended else None

        request, _ = eventually(over, RUN_SECONDS_MAX, "the end in SageMaker")
        if request.state in TERMINAL:
            raise StepFailed("the end was recorded although its event was blocked")
        if suite.place.local:  # on AWS, wait: the reconciler checks executions after five minutes
            _date_back(suite, request, minutes=10)

        def repaired() -> Request | None:
            suite.client("lambda").invoke(FunctionName=outputs["ReconcilerFunction"], Payload=b"{}")
            found = request_of(suite, SILO, uploaded)
            return found if found is not None and found.state in TERMINAL else None

        found, seconds = eventually(repaired, 900, "the reconciler's repair", every=5)
    finally:
        events.enable_rule(Name=rule)
    return [f"with the rule disabled, the reconciler recorded {found.state} after {seconds:g} s"]


def _date_back(suite: Suite, request: Request, *, minutes: int) -> None:
    began = stamp((request.started_at or request.arrived_at) - timedelta(minutes=minutes))
    changes = {"started_at": began, "since": began}
    suite.deployment.store.transact([Update(request_key(request.request_id), set=changes)])


def limits(suite: Suite) -> list[str]:
    cap, count = 2, 5
    uploads = [upload(suite, SILO, f"burst-{number}") for number in range(count)]

    def all_ended() -> list[Request]:
        requests = [request_of(suite, SILO, uploaded) for uploaded in uploads]
        ended = [r for r in requests if r is not None and r.state in TERMINAL]
        return ended if len(ended) == count else []

    ended, seconds = eventually(all_ended, 2 * RUN_SECONDS_MAX, "the end of the burst", every=2)
    failed = [f"{r.state}: {r.reason}" for r in ended if r.state is not State.SUCCEEDED]
    if failed:
        raise StepFailed("\n".join(failed))
    most = _most_at_once(suite, ended)
    if most != cap:
        raise StepFailed(f"{most} executions of one tenant ran at once, and {cap} are allowed")
    return [f"{count} uploads at once: at most {most} ran at once, all ended after {seconds:g} s"]


def _most_at_once(suite: Suite, requests: Sequence[Request]) -> int:
    """Return how many executions ran at once at most, by SageMaker's times: requests that are read one after the
    other may change in between.
    """
    moves: list[tuple[datetime, int]] = []
    for request in requests:
        arn = str(request.execution_arn)
        execution = suite.client("sagemaker").describe_pipeline_execution(PipelineExecutionArn=arn)
        moves += [(execution["CreationTime"], 1), (execution["LastModifiedTime"], -1)]
    return max(accumulate(step for _, step in sorted(moves)))


def windows(suite: Suite) -> list[str]:
    zone = ZoneInfo("Europe/Zurich")
    begins, ends = (f"{datetime.now(zone) + timedelta(hours=hours):%Y-%m-%dT%H:%M}" for hours in (-1, 1))
    when = f"from: {begins}, to: {ends}, zone: {zone.key}"
    window = f"windows:\n  - {{name: closed, {when}, tiers: {{basic: {{closed: true}}}}}}\n"
    apply(suite, POLICY + window, "smoke suite: a closed tier")
    uploaded = upload(suite, SILO, "closed")
    eventually(lambda: request_of(suite, SILO, uploaded), 60, "the request")
    time.sleep(PASS_SECONDS)
    request = request_of(suite, SILO, uploaded)
    if request is None or request.state is not State.QUEUED:
        raise StepFailed(f"a request of a closed tier is {request.state if request else 'not recorded'}")
    apply(suite, POLICY, "smoke suite")
    ended = await_end(suite, SILO, uploaded)
    if ended.state is not State.SUCCEEDED:
        raise StepFailed(f"{ended.state}: {ended.reason}")
    return [f"not started while its tier was closed by a clock in {zone.key}; started once it was open"]


TRAINING, FALLBACK = "ml.m5.large", "ml.m5.xlarge"


def preferences(suite: Suite) -> list[str]:
    suite.place.deploy(suite.stack, suite.stage, InstancePreferences="true")
    either = POLICY.replace(f"training: {TRAINING}", f"training: [{TRAINING}, {FALLBACK}]")
    _, training = _trained_under(suite, either, "either")
    selected = training["ResourceConfig"].get("SelectedInstanceType")
    if selected not in (TRAINING, FALLBACK):
        raise StepFailed(f"the selected type is {selected}, of {TRAINING} and {FALLBACK}")
    return [f"trained on {selected}, of {TRAINING} and {FALLBACK}"]


SPOT = """algorithms:
  gradient-boosting: {spot: true, checkpoints: true}
"""


def spot(suite: Suite) -> list[str]:
    suite.place.deploy(suite.stack, suite.stage, InstancePreferences="true", SpotTraining="true")
    ended, training = _trained_under(suite, POLICY + SPOT, "spot")
    if ended.attempt > 1:
        causes = "; ".join(change.cause for change in ended.history if change.cause)
        return [f"spot capacity was missing, attempt {ended.attempt} trained on demand: {causes}"]
    if not training.get("EnableManagedSpotTraining") or "CheckpointConfig" not in training:
        raise StepFailed("its first attempt has not trained on spot capacity with checkpoints")
    billed, trained = training.get("BillableTimeInSeconds"), training.get("TrainingTimeInSeconds")
    return [f"trained on spot capacity for {trained} s, billed {billed} s"]


def _trained_under(suite: Suite, policy: str, data_set: str) -> tuple[Request, dict[str, Any]]:
    """Return a request that trained under a policy, and its last training job; raises StepFailed if it failed.

    Afterwards the suite's own policy is in force again.
    """
    apply(suite, policy, f"smoke suite: {data_set}")
    try:
        ended = await_end(suite, SILO, upload(suite, SILO, data_set))
    finally:
        apply(suite, POLICY, "smoke suite")
    if ended.state is not State.SUCCEEDED:
        raise StepFailed(f"{ended.state}: {ended.reason}")
    trainings = [job for job in jobs_of(suite, ended.execution_arn or "") if "ResourceConfig" in job]
    return ended, trainings[-1]


STEPS: tuple[Step[Suite], ...] = (
    Step(
        name="guard",
        does="start the pipeline by hand with one tenant's role and another's tag; save the events of its jobs",
        means="such a job is not stopped: compare the saved events with contracts/jobs.py.",
        run=guard,
        minutes=12,
        jobs=JOBS_OF_A_RUN,
    ),
    Step(
        name="retried-by-hand",
        does="retry a failed execution directly in SageMaker, and wait until that is reported",
        means="its event does not contain the previous status: see the pattern of ExecutionStatusRule.",
        run=retried_by_hand,
        on_aws_alone="the local SageMaker cannot retry executions",
        minutes=15,
        jobs=1,
    ),
    Step(
        name="isolation",
        does="try to access the other tenant's data with handed-out credentials: each folder, each operation",
        means="one tenant can access another's data: onboard no tenants. docs/security.md describes the layers.",
        run=isolation,
    ),
    Step(
        name="stop",
        does="stop an execution with `trainyard stop`",
        means="the stop does not reach SageMaker, or the end of the execution is not recorded.",
        run=stop,
        minutes=10,
        jobs=3 * JOBS_OF_A_RUN,
    ),
    Step(
        name="lost-event",
        does="disable the rule for status events, and let the reconciler find an end",
        means="a lost event would keep a slot occupied: see the reconciler's log. --from enables the rule again.",
        run=lost_event,
        minutes=20,
        jobs=JOBS_OF_A_RUN,
    ),
    Step(
        name="limits",
        does="upload five data sets at once, and count concurrent executions",
        means="a limit is exceeded: see `trainyard status` and the dispatcher's log.",
        run=limits,
        minutes=40,
        jobs=5 * JOBS_OF_A_RUN,
    ),
    Step(
        name="windows",
        does="close a tier for two hours of another time zone, upload, and open it again",
        means="the dispatcher does not read the policy's windows: see its log; --from restores the policy.",
        run=windows,
        minutes=10,
        jobs=JOBS_OF_A_RUN,
    ),
    Step(
        name="preferences",
        does="deploy the pipelines for several training types, and train on one of two",
        means="Pipelines does not accept instance preferences: deploy with InstancePreferences=false, and name "
        "one training type in each choice.",
        run=preferences,
        minutes=15,
        jobs=JOBS_OF_A_RUN,
    ),
    Step(
        name="spot",
        does="deploy the pipelines for spot capacity, and train on it, or on demand where there is none",
        means="Pipelines does not accept managed spot training or checkpoints as the definitions have them, or "
        "the job's role may not copy checkpoints: deploy with SpotTraining=false, and leave spot out of the "
        "policy.",
        run=spot,
        minutes=60,
        jobs=2 * JOBS_OF_A_RUN,
    ),
)
