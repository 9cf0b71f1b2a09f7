"""Steps on the deployment itself: it is there, as it was published, and its seams carry."""

import json
import time
from typing import Any

from smoke.place import HEALTHY, Suite, status_of, way_out
from smoke.steps import Step, StepFailed, eventually
from trainyard.domain.tenants import TenantState

TIER = """  {name}:
    storage: {storage}
    quota: 2
    running_max_per_tenant: 2
    runtime_max_minutes: 15
    quality_min: {quality}
    instances: [{{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}}]
"""
POLICY = """# Of the smoke suite: few slots, short runs, small instances.
running_max: 4
quiet_period_seconds: 0
delay_max_seconds: 0
retries: {attempts_max: 1}
tiers:
""" + "".join(
    TIER.format(name=name, storage=storage, quality=quality)
    for name, storage, quality in (("basic", "silo", 0.5), ("standard", "silo", 0.99), ("premium", "pool", 0.5))
)
SILO, POOLED, STRICT = "smoke-silo", "smoke-pool", "smoke-strict"
OURS = (SILO, POOLED, STRICT, "smoke-key")


def deploy(suite: Suite) -> list[str]:
    status = status_of(suite.stack)
    if status is not None and status not in HEALTHY:
        raise StepFailed(f"{suite.stack} is {status}: {way_out(suite.stack, status)}")
    if status is not None:
        others = [
            tenant.tenant_id
            for tenant in suite.deployment.tenants.all()
            if tenant.state is not TenantState.DELETED and tenant.tenant_id not in OURS
        ]
        if others:
            raise StepFailed(f"{suite.stack} has tenants that are not the suite's: {', '.join(others[:5])}")
    suite.place.deploy(suite.stack, suite.stage)
    make_ready(suite)
    return [f"stack {suite.stack} is {status_of(suite.stack)}, with a policy for the suite"]


def make_ready(suite: Suite) -> None:
    """Put right what a step that was cut off may have left: the policy, and the rule that tells of ends."""
    apply(suite, POLICY, "smoke suite")
    suite.client("events").enable_rule(Name=suite.deployment.outputs["ExecutionStatusRule"])


def apply(suite: Suite, text: str, note: str) -> None:
    suite.evidence.mkdir(parents=True, exist_ok=True)
    policy = suite.evidence / "policy.yaml"
    policy.write_text(text, encoding="utf-8")
    suite.operator("policy", "apply", str(policy), "--note", note)


def published(suite: Suite) -> list[str]:
    sqs, logs = suite.client("sqs"), suite.client("logs")
    urls = sqs.list_queues(QueueNamePrefix=f"{suite.stack}-").get("QueueUrls", [])
    for url in urls:
        told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy", "QueueArn"])["Attributes"]
        statements = json.loads(told.get("Policy", '{"Statement": []}'))["Statement"]
        if not statements or any(statement["Resource"] != told["QueueArn"] for statement in statements):
            raise StepFailed(f"queue {url.rpartition('/')[2]} has no policy of its own")
    pipeline = suite.client("sagemaker").describe_pipeline(PipelineName=suite.deployment.outputs["PipelineName"])
    if json.loads(pipeline["PipelineDefinition"]) != _newest_definition(suite):
        raise StepFailed("DescribePipeline does not give the definition that was published")
    lines = [f"{len(urls)} queues, each with a policy of its own", "the pipeline is as it was published"]
    for name in ("/aws/sagemaker/ProcessingJobs", "/aws/sagemaker/TrainingJobs"):
        groups = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
        group = next((one for one in groups if one["logGroupName"] == name), None)
        if group is None:
            raise StepFailed(f"the log group {name} was not made")
        days = group.get("retentionInDays")
        lines.append(
            f"{name} keeps logs for {days} days" if days else f"{name} keeps logs for ever: the account's choice"
        )
    return lines


def _newest_definition(suite: Suite) -> Any:
    s3, bucket = suite.client("s3"), suite.deployment.outputs["CodeBucket"]
    found = s3.list_objects_v2(Bucket=bucket, Prefix="code/")["Contents"]
    newest = max((o for o in found if o["Key"].endswith("/definition.json")), key=lambda o: o["LastModified"])
    return json.loads(s3.get_object(Bucket=bucket, Key=newest["Key"])["Body"].read())


def pipeline_rights(suite: Suite) -> list[str]:
    role = suite.client("sagemaker").describe_pipeline(PipelineName=suite.deployment.outputs["PipelineName"])
    group = f"arn:aws:sagemaker:{suite.region}:{suite.account_id}:model-package-group/{suite.stack}--{SILO}"
    package = group.replace("-group/", "/") + "/1"
    lines = []
    for action, resource in (
        ("sagemaker:CreateModelPackageGroup", group),
        ("sagemaker:AddTags", group),
        ("sagemaker:AddTags", package),
        ("sagemaker:CreateModelPackage", package),
        ("sagemaker:CreateModelPackage", group),
    ):
        (result,) = suite.client("iam").simulate_principal_policy(
            PolicySourceArn=role["RoleArn"], ActionNames=[action], ResourceArns=[resource]
        )["EvaluationResults"]
        lines.append(f"{action} on {resource.rpartition(':')[2]}: {result['EvalDecision']}")
        if result["EvalDecision"] != "allowed":
            raise StepFailed("\n".join(lines))
    return lines


def seams(suite: Suite) -> list[str]:
    # 1. The bus, its rule, the queue, the intake, the dead letters.
    outputs = suite.deployment.outputs
    entry = {
        "EventBusName": outputs["EventBus"],
        "Source": "smoke",
        "DetailType": "Retraining Requested",
        "Detail": json.dumps({"tenant_id": "nobody"}),
    }
    answer = suite.client("events").put_events(Entries=[entry])
    if answer["FailedEntryCount"]:
        raise StepFailed(str(answer["Entries"]))
    letters = outputs["UploadsQueue"] + "-dlq"
    _, letter = eventually(lambda: _letter(suite, letters, "nobody"), 60 * suite.patience, "the dead letter")
    lines = [f"event → rule → queue → intake → dead letter with its reason: {letter} s"]
    # 2. The timer: a pass some seconds later than whatever may have rung the bell before.
    begun = int((time.time() + 10) * 1000)
    group = f"/trainyard/{suite.stack}/Dispatcher"
    logs = suite.client("logs")
    pages = logs.get_paginator("filter_log_events")

    def passed() -> bool:
        return any(page["events"] for page in pages.paginate(logGroupName=group, startTime=begun))

    _, timer = eventually(passed, 180, "a pass of the timer", every=5)
    lines.append(f"timer → pass: {timer} s")
    # 3. Nothing could not be delivered.
    return [*lines, _nothing_undelivered(suite)]


def _nothing_undelivered(suite: Suite) -> str:
    url = suite.deployment.outputs["UploadsQueue"].replace("-uploads", "-undelivered-dlq")
    told = suite.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])[
        "Attributes"
    ]["ApproximateNumberOfMessages"]
    if told != "0":
        raise StepFailed(f"{told} messages could not be delivered: trainyard dlq list")
    return "nothing was undelivered"


def _letter(suite: Suite, url: str, text: str) -> bool:
    """Take the dead letter that holds a text, and say whether it was there."""
    sqs = suite.client("sqs")
    for message in sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageAttributeNames=["reason"]
    ).get("Messages", []):
        if text in message["Body"]:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            return bool(message.get("MessageAttributes", {}).get("reason"))
    return False


def metrics(suite: Suite) -> list[str]:
    def found() -> Any:
        return suite.client("cloudwatch").list_metrics(Namespace=f"Trainyard/{suite.stack}", MetricName="Passes")[
            "Metrics"
        ]

    _, seconds = eventually(found, 900, "the metric Passes", every=15)
    return [f"the metric Passes is there after {seconds:g} s"]


def second_deployment(suite: Suite) -> list[str]:
    changes = suite.place.changes(suite.stack, suite.stage)
    if changes:
        raise StepFailed(f"{len(changes)} changes: {', '.join(changes[:10])}")
    return ["the same template again changes nothing"]


STEPS: tuple[Step[Suite], ...] = (
    Step(
        name="deploy",
        does="deploy the stack, and apply a policy with two small slots a tier",
        means="CloudFormation names what failed and why; the first such resource is the cause, the others follow.",
        run=deploy,
        minutes=8,
    ),
    Step(
        name="published",
        does="look at each queue's policy, the published pipeline, and how long logs of jobs are kept",
        means="a queue's policy was refused, or the pipeline was not read from S3 with the deployer's rights, or "
        "the publisher may not make log groups: its log says which.",
        run=published,
    ),
    Step(
        name="pipeline-rights",
        does="let IAM simulate what the pipeline's role does to register a model",
        means="every run would fail at its last step: template.yaml, PipelineRole, RegisterModels.",
        run=pipeline_rights,
        on_aws_alone="the local SageMaker asks for these rights in each run instead",
    ),
    Step(
        name="seams",
        does="send an event that is malformed, and wait for its dead letter; wait for a pass of the timer",
        means="a rule may not send to its queue (aws:SourceArn), the mapping is off, or the schedule does not "
        "fire: the undelivered queue and the functions' logs say which.",
        run=seams,
        minutes=3,
    ),
    Step(
        name="metrics",
        does="wait for the first metric of the stack",
        means="alarms would never ring: the functions' logs are not read as embedded metrics.",
        run=metrics,
        on_aws_alone="the local cloud makes no metrics of logs",
        minutes=10,
    ),
)
SECOND_DEPLOYMENT: Step[Suite] = Step(
    name="second-deployment",
    does="make a change set of the same template again",
    means="each deployment would replace what it names; the resources are named above.",
    run=second_deployment,
    on_aws_alone="the local cloud's change sets name every resource",
    minutes=3,
)
