"""The preflight: what can be checked in an account before anything is created."""

import math
from collections.abc import Sequence

import yaml
from botocore.exceptions import ClientError

from cli.quotas import executions_quota, needed_instances
from cli.quotas import sagemaker_quotas as read_quotas
from local.deploy import load_template
from smoke.place import HEALTHY, REPOSITORY, Suite, status_of, way_out
from smoke.steps import NotShown, Step, StepFailed

CONCURRENCY_BESIDE_QUEUES = 18
"""Of functions without a limit in an event source mapping: dispatcher, recorder, guard, timers, tenants."""


def account(suite: Suite) -> list[str]:
    identity = suite.client("sts").get_caller_identity()
    known = load_template(REPOSITORY / "template.yaml")["Mappings"]["SageMakerImages"]
    if suite.region not in known:
        raise StepFailed(f"no SageMaker image is known in {suite.region}; known Regions: {', '.join(known)}")
    return [f"account {identity['Account']}, Region {suite.region}, as {identity['Arn']}"]


def sagemaker_quotas(suite: Suite) -> list[str]:
    allowed = read_quotas(suite.client("service-quotas"))
    lines, none = [], []
    for name, most in sorted(needed_instances(suite.shipped_policy).items()):
        applied = allowed.get(name)
        if applied is None:
            lines.append(f"{name}: this quota is not listed, check it in the console")
        elif applied < 1:
            none.append(name)
        elif applied < most:
            lines.append(f"{name}: {applied:g}, the policy may use {most}: executions above it are requeued")
        else:
            lines.append(f"{name}: {applied:g}, at most {most} are needed")
    running = executions_quota(allowed)
    if running is not None and running < suite.shipped_policy.running_max:
        lines.append(f"concurrent pipeline executions: {running:g}, deploy with RunningMax={running:g}")
    if none:
        raise StepFailed(f"these quotas are 0: {'; '.join(none)}")
    return lines


def lambda_concurrency(suite: Suite) -> list[str]:
    limits = suite.client("lambda").get_account_settings()["AccountLimit"]
    template = yaml.dump(load_template(REPOSITORY / "template.yaml"))
    mappings = sum(int(line.split(":")[1]) for line in template.splitlines() if "MaximumConcurrency:" in line)
    # The mapping of the tier queues appears once in the template, but there are three of them.
    mappings += 2 * 2
    needed, free = mappings + CONCURRENCY_BESIDE_QUEUES, limits["UnreservedConcurrentExecutions"]
    if free < needed:
        raise StepFailed(f"{free} concurrent executions are unreserved, but about {needed} are needed")
    return [f"{free} concurrent executions are unreserved, about {needed} are needed"]


def image(suite: Suite) -> list[str]:
    account_id = load_template(REPOSITORY / "template.yaml")["Mappings"]["SageMakerImages"][suite.region][
        "Account"
    ]
    repository, tag = "sagemaker-scikit-learn", "1.9-0-cpu-py3"
    answer = suite.client("ecr").batch_get_image(
        registryId=account_id, repositoryName=repository, imageIds=[{"imageTag": tag}]
    )
    if not answer["images"]:
        raise StepFailed(f"{account_id}/{repository}:{tag}: {answer['failures']}")
    return [f"{repository}:{tag} of account {account_id} can be pulled"]


def names(suite: Suite) -> list[str]:
    status = status_of(suite.stack)
    if status is not None:
        if status in HEALTHY:
            return [f"the stack {suite.stack} exists ({status}), so its names are its own"]
        raise StepFailed(f"the stack {suite.stack} is {status}: {way_out(suite.stack, status)}")
    taken = [f"bucket {name}" for name in _buckets(suite) if _bucket_exists(suite, name)]
    events, scheduler = suite.client("events"), suite.client("scheduler")
    buses = events.list_event_buses(NamePrefix=suite.stack)["EventBuses"]
    taken += [f"event bus {bus['Name']}" for bus in buses if bus["Name"] == suite.stack]
    schedules = scheduler.list_schedules(GroupName="default", NamePrefix=f"{suite.stack}-")["Schedules"]
    taken += [f"schedule {schedule['Name']}" for schedule in schedules]
    queues = suite.client("sqs").list_queues(QueueNamePrefix=f"{suite.stack}-").get("QueueUrls", [])
    taken += [f"queue {url.rpartition('/')[2]}" for url in queues]
    groups = suite.client("logs").describe_log_groups(logGroupNamePrefix=f"/trainyard/{suite.stack}/")["logGroups"]
    taken += [f"log group {group['logGroupName']}" for group in groups]
    if taken:
        raise StepFailed(f"{len(taken)} names are taken: {', '.join(taken[:10])}")
    return [f"no bucket, bus, schedule, queue or log group uses a name of {suite.stack}"]


def _buckets(suite: Suite) -> list[str]:
    return [f"{suite.stack}-{suite.account_id}-{part}" for part in ("code", "pool", "billing")]


def _bucket_exists(suite: Suite, name: str) -> bool:
    try:
        suite.client("s3").head_bucket(Bucket=name)
    except ClientError as error:
        return error.response["Error"]["Code"] not in ("404", "NoSuchBucket")
    return True


def change_set(suite: Suite) -> list[str]:
    changes = suite.place.changes(suite.stack, suite.stage)
    if not changes and suite.place.local:
        raise NotShown("the local cloud does not list the changes of this change set")
    additions = math.fsum(change.startswith("Add ") for change in changes)
    return [f"the change set was created and deleted: {len(changes)} changes, {additions:g} of them additions"]


CHECKS: Sequence[Step[Suite]] = (
    Step(
        name="account",
        does="identify the caller, the account and the Region",
        means="the credentials or the Region are wrong, or no SageMaker image is known there: set AWS_PROFILE and "
        "AWS_REGION, or set the parameters TrainingImageUri and ProcessingImageUri at deployment.",
        run=account,
    ),
    Step(
        name="quotas",
        does="compare SageMaker's quotas of instances and executions with the shipped policy",
        means="jobs on such instances never start: request a higher quota (Service Quotas, Amazon SageMaker), or "
        "use other instances in the policy.",
        run=sagemaker_quotas,
        on_aws_alone="the local cloud has no quotas",
    ),
    Step(
        name="concurrency",
        does="compare Lambda's unreserved concurrency with what the functions may use",
        means="functions, including the dispatcher, are throttled under load: request a higher quota (Service "
        "Quotas, AWS Lambda; new accounts have 10).",
        run=lambda_concurrency,
        on_aws_alone="the local cloud has no concurrency limit",
    ),
    Step(
        name="image",
        does="read the manifest of SageMaker's scikit-learn image",
        means="no job could start: this Region does not have the tag, or the credentials lack ecr:BatchGetImage.",
        run=image,
        on_aws_alone="the local cloud has no registry",
    ),
    Step(
        name="names",
        does="check that the stack's names are free",
        means="leftovers of an earlier deployment block this one: `make teardown`, or delete what is named.",
        run=names,
    ),
    Step(
        name="change-set",
        does="create a change set, and delete it without executing it",
        means="CloudFormation does not accept the template: a transform (AWS::LanguageExtensions together with "
        "`.Version`), a resource type that the Region lacks, or missing permissions of the deployer.",
        run=change_set,
        minutes=3,
    ),
)
