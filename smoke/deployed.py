"""Steps that check the deployment: its resources are as published, and its parts work together."""

import json
import time
from typing import Any

from smoke.place import HEALTHY, Suite, status_of, way_out
from smoke.steps import Step, StepFailed, eventually
from trainyard.domain.tenants import TenantState

TIER = """  {name}:
    storage: {storage}
    quota: {quota}
    running_max_per_tenant: 2
    runtime_max_minutes: 15
    quality_min: {quality}
    tuning_trials_max: 2
    instances: [{{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}}]
"""
POLICY = """# Policy of the smoke suite: few slots, short executions, small instances.
running_max: 4
quiet_period_seconds: 0
delay_max_seconds: 0
retries: {attempts_max: 1}
tiers:
""" + "".join(
    TIER.format(name=name, storage=storage, quality=quality, quota=quota)
    for name, storage, quality, quota in (
        ("basic", "silo", 0.5, 2),
        ("standard", "silo", 0.99, 1),
        ("premium", "pool", 0.5, 1),
    )
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
            raise StepFailed(f"{suite.stack} has tenants that the suite did not create: {', '.join(others[:5])}")
    suite.place.deploy(suite.stack, suite.stage)
    make_ready(suite)
    return [f"stack {suite.stack} is {status_of(suite.stack)}, and has the suite's policy"]


def make_ready(suite: Suite) -> None:
    """Restore what an interrupted step may have changed: the policy, and the rule for status events."""
    apply(suite, POLICY, "smoke suite")
    suite.client("events").enable_rule(Name=suite.deployment.outputs["ExecutionStatusRule"])


def apply(suite: Suite, text: str, note: str) -> None:
    suite.evidence.mkdir(parents=True, exist_ok=True)
    policy = suite.evidence / "policy.yaml"
    policy.write_text(text, encoding="utf-8")
    suite.operator("policy", "apply", "--yes", str(policy), "--note", note)


def published(suite: Suite) -> list[str]:
    sqs, logs = suite.client("sqs"), suite.client("logs")
    urls = sqs.list_queues(QueueNamePrefix=f"{suite.stack}-").get("QueueUrls", [])
    for url in urls:
        told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy", "QueueArn"])["Attributes"]
        statements = json.loads(told.get("Policy", '{"Statement": []}'))["Statement"]
        if not statements or any(statement["Resource"] != told["QueueArn"] for statement in statements):
            raise StepFailed(f"queue {url.rpartition('/')[2]} has no policy, or one that names another resource")
    pipeline = suite.client("sagemaker").describe_pipeline(PipelineName=suite.deployment.outputs["PipelineName"])
    if json.loads(pipeline["PipelineDefinition"]) != _newest_definition(suite):
        raise StepFailed("DescribePipeline does not return the published definition")
    lines = [f"{len(urls)} queues, each with its own policy", "the pipeline has the published definition"]
    for name in ("/aws/sagemaker/ProcessingJobs", "/aws/sagemaker/TrainingJobs"):
        groups = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
        group = next((one for one in groups if one["logGroupName"] == name), None)
        if group is None:
            raise StepFailed(f"the log group {name} was not created")
        days = group.get("retentionInDays")
        lines.append(
            f"{name} keeps logs for {days} days" if days else f"{name} keeps logs for ever, set by the account"
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
    # 1. Bus, rule, queue, intake, dead-letter queue.
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
    # 2. The timer: a pass so much later that the bell cannot have caused it.
    begun = int((time.time() + 10) * 1000)
    group = f"/trainyard/{suite.stack}/Dispatcher"
    logs = suite.client("logs")
    pages = logs.get_paginator("filter_log_events")

    def passed() -> bool:
        return any(page["events"] for page in pages.paginate(logGroupName=group, startTime=begun))

    _, timer = eventually(passed, 180, "a timer pass", every=5)
    lines.append(f"timer → pass: {timer} s")
    # 3. Every event was delivered.
    return [*lines, _nothing_undelivered(suite)]


def _nothing_undelivered(suite: Suite) -> str:
    url = suite.deployment.outputs["UploadsQueue"].replace("-uploads", "-undelivered-dlq")
    told = suite.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])[
        "Attributes"
    ]["ApproximateNumberOfMessages"]
    if told != "0":
        raise StepFailed(f"{told} messages could not be delivered; see `trainyard dlq list`")
    return "all events were delivered"


def _letter(suite: Suite, url: str, text: str) -> bool:
    """Delete the dead letter that contains a text; return whether it was found and has a reason."""
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
    return [f"the metric Passes appeared after {seconds:g} s"]


def second_deployment(suite: Suite) -> list[str]:
    changes = suite.place.changes(suite.stack, suite.stage)
    if changes:
        raise StepFailed(f"{len(changes)} changes: {', '.join(changes[:10])}")
    return ["deploying the same template again changes nothing"]


STEPS: tuple[Step[Suite], ...] = (
    Step(
        name="deploy",
        does="deploy the stack, and apply a policy with two slots per tier",
        means="CloudFormation names the resources that failed, with reasons; the first one is the cause.",
        run=deploy,
        minutes=8,
    ),
    Step(
        name="published",
        does="check each queue's policy, the published pipeline, and how long logs of jobs are kept",
        means="a queue's policy was refused, the deployer may not read the pipeline's definition from S3, or the "
        "publisher may not create log groups: see the publisher's log.",
        run=published,
    ),
    Step(
        name="pipeline-rights",
        does="simulate in IAM the calls by which the pipeline's role registers a model",
        means="every execution would fail at its last step: see RegisterModels of PipelineRole in template.yaml.",
        run=pipeline_rights,
        on_aws_alone="the local SageMaker checks these permissions in every execution",
    ),
    Step(
        name="seams",
        does="send a malformed event and wait for its dead letter; wait for a timer pass",
        means="a rule may not send to its queue (aws:SourceArn), an event source mapping is disabled, or the "
        "schedule does not run: see the undelivered queue and the functions' logs.",
        run=seams,
        minutes=3,
    ),
    Step(
        name="metrics",
        does="wait for the first metric of the stack",
        means="alarms would never fire: no embedded metrics are extracted from the functions' logs.",
        run=metrics,
        on_aws_alone="the local cloud does not extract metrics from logs",
        minutes=10,
    ),
)
SECOND_DEPLOYMENT: Step[Suite] = Step(
    name="second-deployment",
    does="create a change set from the same template again",
    means="every deployment would change the resources that are named above.",
    run=second_deployment,
    on_aws_alone="the local cloud's change sets always contain every resource",
    minutes=3,
)
