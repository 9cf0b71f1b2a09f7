"""The preflight: what can be known of an account before anything is made in it."""

import math
from collections.abc import Iterator, Sequence

import yaml
from botocore.exceptions import ClientError

from local.deploy import load_template
from smoke.place import HEALTHY, REPOSITORY, Suite, status_of, way_out
from smoke.steps import NotShown, Step, StepFailed

CONCURRENCY_BESIDE_QUEUES = 18
"""Of functions that no queue's mapping bounds: dispatcher, recorder, guard, timers, steps of tenants."""


def account(suite: Suite) -> list[str]:
    identity = suite.client("sts").get_caller_identity()
    known = load_template(REPOSITORY / "template.yaml")["Mappings"]["SageMakerImages"]
    if suite.region not in known:
        raise StepFailed(f"SageMaker's images are not known in {suite.region}; known are {', '.join(known)}")
    return [f"account {identity['Account']}, Region {suite.region}, as {identity['Arn']}"]


def _needed_instances(suite: Suite) -> dict[str, int]:
    """Return quota name → instances that the shipped policy may run at once, at the most."""
    policy = suite.shipped_policy
    needed: dict[str, int] = {}
    for tier in policy.tiers:
        parallel_map = min(tier.quota + tier.borrowing_limit, policy.running_max)
        for choice in tier.instances:
            for name, count in (
                (f"{choice.training_instance_type} for training job usage", choice.training_instance_count),
                (f"{choice.processing_instance_type} for processing job usage", 1),
            ):
                needed[name] = max(needed.get(name, 0), parallel_map * count)
    return needed


def _quotas(suite: Suite) -> Iterator[tuple[str, float]]:
    quotas = suite.client("service-quotas")
    for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
        for page in quotas.get_paginator(operation).paginate(ServiceCode="sagemaker"):
            yield from ((quota["QuotaName"], quota["Value"]) for quota in page["Quotas"])


def sagemaker_quotas(suite: Suite) -> list[str]:
    allowed: dict[str, float] = {}
    for name, value in _quotas(suite):
        allowed.setdefault(name, value)  # what is applied comes before the defaults
    lines, none = [], []
    for name, most in sorted(_needed_instances(suite).items()):
        applied = allowed.get(name)
        if applied is None:
            lines.append(f"{name}: no such quota is listed, look in the console")
        elif applied < 1:
            none.append(name)
        elif applied < most:
            lines.append(f"{name}: {applied:g}, the policy may ask for {most}: runs above it go back to the queue")
        else:
            lines.append(f"{name}: {applied:g}, at most {most} are needed")
    running = next((v for n, v in allowed.items() if "concurrent pipeline executions" in n.lower()), None)
    if running is not None and running < suite.shipped_policy.running_max:
        lines.append(f"concurrent pipeline executions: {running:g}, deploy with RunningMax={running:g}")
    if none:
        raise StepFailed(f"these quotas are 0: {'; '.join(none)}")
    return lines


def lambda_concurrency(suite: Suite) -> list[str]:
    limits = suite.client("lambda").get_account_settings()["AccountLimit"]
    template = yaml.dump(load_template(REPOSITORY / "template.yaml"))
    mappings = sum(int(line.split(":")[1]) for line in template.splitlines() if "MaximumConcurrency:" in line)
    # The mapping of the tier queues stands once, and there are three.
    mappings += 2 * 2
    needed, free = mappings + CONCURRENCY_BESIDE_QUEUES, limits["UnreservedConcurrentExecutions"]
    if free < needed:
        raise StepFailed(f"{free} concurrent executions are unreserved, and some {needed} are needed")
    return [f"{free} concurrent executions are unreserved, some {needed} are needed"]


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
            return [f"the stack {suite.stack} is there ({status}): its names are its own"]
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
    return [f"no bucket, bus, schedule, queue or log group has a name of {suite.stack}"]


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
        raise NotShown("the local cloud tells no changes of this change set")
    additions = math.fsum(change.startswith("Add ") for change in changes)
    return [f"the change set was made and removed again: {len(changes)} changes, {additions:g} of them additions"]


CHECKS: Sequence[Step[Suite]] = (
    Step(
        name="account",
        does="ask who and where this is",
        means="credentials or Region are wrong, or SageMaker's image is not known there: set AWS_PROFILE and "
        "AWS_REGION, or name TrainingImageUri and ProcessingImageUri at deployment.",
        run=account,
    ),
    Step(
        name="quotas",
        does="compare SageMaker's quotas of instances and executions with the shipped policy",
        means="jobs on such instances never start: ask for the quota (Service Quotas, Amazon SageMaker), or give "
        "the policy other instances.",
        run=sagemaker_quotas,
        on_aws_alone="the local cloud has no quotas",
    ),
    Step(
        name="concurrency",
        does="compare Lambda's unreserved concurrency with what the functions may take",
        means="functions are throttled under load, the dispatcher among them: ask for more (Service Quotas, AWS "
        "Lambda; new accounts have 10).",
        run=lambda_concurrency,
        on_aws_alone="the local cloud has no limit of concurrency",
    ),
    Step(
        name="image",
        does="ask for the manifest of SageMaker's scikit-learn image",
        means="no job could start: the tag is not in this Region, or the credentials lack ecr:BatchGetImage.",
        run=image,
        on_aws_alone="the local cloud has no registry",
    ),
    Step(
        name="names",
        does="look whether the stack's names are free",
        means="what is left of an earlier deployment blocks this one: `make teardown`, or remove what is named.",
        run=names,
    ),
    Step(
        name="change-set",
        does="make a change set and remove it again, unexecuted",
        means="CloudFormation does not take the template here: a transform (AWS::LanguageExtensions beside "
        "`.Version`), a Region without a resource type, or rights of the deployer.",
        run=change_set,
        minutes=3,
    ),
)
