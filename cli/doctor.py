"""Look for what is wrong, or will be, in an account and in a deployment: each finding comes with its remedy.

Usable before the first deployment: then only what concerns the account is checked.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from botocore.exceptions import BotoCoreError, ClientError

from cli import dlq
from cli.arguments import Arguments
from cli.codes import DONE, UNSUCCESSFUL
from cli.deployment import Deployment, Unreachable
from cli.endpoints import endpoints_of, summaries_of, troubles
from cli.quotas import EXECUTIONS, executions_quota, needed_instances, sagemaker_quotas
from cli.show import Answer
from cli.text import counted
from trainyard.adapters.aws.alarms import alarms_in_force
from trainyard.application import health
from trainyard.application.billing.cost_tags import COST_TAGS, TagState
from trainyard.contracts.compiled_policy import DEPLOYED
from trainyard.contracts.policy_file import parse_policy
from trainyard.contracts.shipped_prices import prices_of
from trainyard.domain.errors import Refused
from trainyard.domain.findings import BAD, GOOD, UNKNOWN, WARNING, Finding
from trainyard.domain.policy import Policy
from trainyard.domain.prices import JobKind
from trainyard.persistence.container_sets import ContainerSets

TEMPLATE = Path(__file__).parents[1] / "template.yaml"
ROLES_SPARE_MIN = 50
"""IAM roles that should be free: each tenant with a bucket of its own takes one."""

NAMED_MAX = 5


Check = Callable[[Deployment], Iterator[Finding]]


def doctor(deployment: Deployment, arguments: Arguments) -> Answer:
    """Run all checks; exit code 4 when one is BAD."""
    findings = list(_examined(deployment, OF_THE_ACCOUNT))
    try:
        deployment.outputs  # noqa: B018 - looked up once
        findings += _examined(deployment, OF_THE_DEPLOYMENT)
    except Unreachable as error:
        findings.append(Finding("deployment", WARNING, str(error), "make deploy STAGE=dev"))
    bad = sum(finding.result == BAD for finding in findings)
    warnings = sum(finding.result == WARNING for finding in findings)
    return Answer(
        data=[vars(finding) for finding in findings],
        columns=("RESULT", "CHECK", "FINDING"),
        rows=[
            (each.result, each.check, f"{each.text}{f' - {each.remedy}' if each.remedy else ''}")
            for each in findings
        ],
        lines=[f"{bad} bad, {counted(warnings, 'warning')}, {len(findings) - bad - warnings} others"],
        below="FINDING",
        code=UNSUCCESSFUL if bad else DONE,
    )


def _examined(deployment: Deployment, checks: Sequence[tuple[str, Check]]) -> Iterator[Finding]:
    """Yield the findings of checks; one that AWS does not answer is unknown, and the others go on."""
    for name, check in checks:
        try:
            yield from check(deployment)
        except (ClientError, BotoCoreError) as error:
            yield Finding(name, UNKNOWN, f"AWS did not answer: {error}", "grant the permission, or look by hand")


def _policy(deployment: Deployment) -> Policy:
    """Return the policy in force, or before a deployment the one that is shipped."""
    try:
        deployment.outputs  # noqa: B018 - looked up once
    except Unreachable:
        return parse_policy(DEPLOYED.read_text(encoding="utf-8"), 0, deployment.region)
    return deployment.policies.current()


# --- the account ----------------------------------------------------------------------------------------------


def _account(deployment: Deployment) -> Iterator[Finding]:
    region = deployment.region
    identity = deployment.client("sts").get_caller_identity()
    yield Finding("account", GOOD, f"account {identity['Account']}, Region {region}, as {identity['Arn']}")
    regions = _template()["Mappings"]["SageMakerImages"]
    if region not in regions:
        yield Finding(
            "Region",
            BAD,
            f"no SageMaker image is known in {region}",
            f"deploy to one of {', '.join(regions)}, or set TrainingImageUri and ProcessingImageUri",
        )


def _quotas(deployment: Deployment) -> Iterator[Finding]:
    policy = _policy(deployment)
    values = sagemaker_quotas(deployment.client("service-quotas"))
    executions = executions_quota(values)
    if executions is not None and executions < policy.running_max:
        yield Finding(
            "SageMaker quotas",
            BAD,
            f"{EXECUTIONS}: {executions:g}, and the policy's running_max is {policy.running_max}",
            "raise the quota (Service Quotas), or lower running_max: starts above it are refused and tried again",
        )
    for name, most in sorted(needed_instances(policy).items()):
        value = values.get(name)
        if value is None:
            yield Finding("SageMaker quotas", UNKNOWN, f"{name}: not listed", "look it up in the console")
        elif value < 1:
            yield Finding("SageMaker quotas", BAD, f"{name}: 0", "raise it (Service Quotas), or name another type")
        elif value < most:
            yield Finding(
                "SageMaker quotas",
                WARNING,
                f"{name}: {value:g}, the policy may use {most}",
                "raise it, or add instance_quotas to the policy: executions above it are tried again",
            )
    yield Finding("SageMaker quotas", GOOD, f"{len(values)} quotas were read")


def _lambda(deployment: Deployment) -> Iterator[Finding]:
    limits = deployment.client("lambda").get_account_settings()["AccountLimit"]
    free = limits["UnreservedConcurrentExecutions"]
    needed = sum(_concurrency(_template())) + CONCURRENCY_BESIDE_QUEUES
    result = GOOD if free >= needed else BAD
    remedy = "" if free >= needed else "raise Lambda's quota for concurrent executions (Service Quotas)"
    yield Finding(
        "Lambda quota", result, f"{free} concurrent executions are free, about {needed} are needed", remedy
    )


CONCURRENCY_BESIDE_QUEUES = 18
"""Of functions without a limit in an event source mapping: dispatcher, recorder, guard, timers, tenants."""


def _concurrency(value: Any) -> Iterator[int]:
    """Yield each MaximumConcurrency in a template; those that Fn::ForEach repeats, as often as it does."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "MaximumConcurrency" and isinstance(inner, int):
                yield inner
            elif name.startswith("Fn::ForEach") and isinstance(inner, list):
                _, values, body = inner
                yield from (each for _ in values or () for each in _concurrency(body))
            else:
                yield from _concurrency(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _concurrency(inner)


def _iam(deployment: Deployment) -> Iterator[Finding]:
    summary = deployment.client("iam").get_account_summary()["SummaryMap"]
    roles, quota = summary.get("Roles", 0), summary.get("RolesQuota", 1000)
    enough = quota - roles >= ROLES_SPARE_MIN
    remedy = "" if enough else "raise IAM's quota for roles (Service Quotas): each tenant has a role"
    yield Finding("IAM quota", GOOD if enough else WARNING, f"{roles} of {quota} roles are used", remedy)


def _prices(deployment: Deployment) -> Iterator[Finding]:
    policy, prices = _policy(deployment), prices_of(deployment.region)
    choices = [choice for tier in policy.tiers for choice in tier.instances]
    missing = {
        name
        for choice in choices
        for name, kind in (
            (choice.processing_instance_type, JobKind.PROCESSING),
            (choice.transform_instance_type, JobKind.TRANSFORM),
            *((name, JobKind.TRAINING) for name in choice.training_instance_types),
        )
        if name not in prices.hourly.get(kind, {})
    }
    if missing:
        yield Finding(
            "prices",
            BAD,
            f"no price in {deployment.region} for {', '.join(sorted(missing))}: costs are unknown, budgets block",
            f"trainyard prices update --region {deployment.region}, then deploy",
        )
    else:
        yield Finding("prices", GOOD, f"all instance types of the policy have a price in {deployment.region}")


OF_THE_ACCOUNT: Sequence[tuple[str, Check]] = (
    ("account", _account),
    ("SageMaker quotas", _quotas),
    ("Lambda quota", _lambda),
    ("IAM quota", _iam),
    ("prices", _prices),
)

# --- the deployment -------------------------------------------------------------------------------------------


def _stack(deployment: Deployment) -> Iterator[Finding]:
    cloudformation = deployment.client("cloudformation")
    (stack,) = cloudformation.describe_stacks(StackName=deployment.stack)["Stacks"]
    status, again = stack["StackStatus"], "make deploy"
    healthy = status.endswith("_COMPLETE") and not status.startswith(("ROLLBACK", "DELETE"))
    yield Finding("stack", GOOD if healthy else BAD, f"{deployment.stack} is {status}", "" if healthy else again)
    wanted, deployed = set(_template()["Outputs"]), {output["OutputKey"] for output in stack.get("Outputs", [])}
    if wanted != deployed:
        yield Finding(
            "stack",
            WARNING,
            f"it was deployed from another version: {', '.join(sorted(wanted ^ deployed))}",
            again,
        )
    drift = stack.get("DriftInformation", {}).get("StackDriftStatus", "NOT_CHECKED")
    if drift == "DRIFTED":
        yield Finding("stack", WARNING, "resources were changed by hand (CloudFormation's drift)", again)
    elif drift == "NOT_CHECKED":
        command = f"aws cloudformation detect-stack-drift --stack-name {deployment.stack}"
        yield Finding("stack", UNKNOWN, "its drift was never checked", command)


def _alarm_recipient(deployment: Deployment) -> Iterator[Finding]:
    arns = _topics(deployment)
    if arns.get("alarms") is None:
        yield Finding("alarms", BAD, f"there is no topic {deployment.stack}-alarms", "make deploy")
        return
    confirmed, pending = _recipients(deployment, arns["alarms"])
    if confirmed:
        yield Finding("alarms", GOOD, counted(confirmed, "recipient"))
    else:
        waiting = "is not confirmed: open the link in the mail" if pending else "is missing: nobody hears them"
        yield Finding(
            "alarms",
            WARNING,
            f"a recipient of the alarms {waiting}",
            "make deploy STAGE=… PARAMETERS=AlarmEmail=you@…",
        )
    if "notifications" in arns and not _recipients(deployment, arns["notifications"])[0]:
        yield Finding(
            "notifications", WARNING, "NotificationEmail is not confirmed", "open the link in the mail from SNS"
        )
    yield from health.of_alarms(alarms_in_force(deployment.stack))


def _topics(deployment: Deployment) -> dict[str, str]:
    """Return the deployment's topics: alarms, and notifications if e-mails are wanted → ARN."""
    pages = deployment.client("sns").get_paginator("list_topics").paginate()
    arns = [topic["TopicArn"] for page in pages for topic in page["Topics"]]
    names = ("alarms", "notifications")
    return {name: arn for name in names for arn in arns if arn.endswith(f":{deployment.stack}-{name}")}


def _recipients(deployment: Deployment, topic: str) -> tuple[int, int]:
    """Return how many of a topic's subscriptions are confirmed, and how many wait for that."""
    subscriptions = deployment.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    confirmed = sum(each["SubscriptionArn"].startswith("arn:") for each in subscriptions)
    return confirmed, len(subscriptions) - confirmed


def _tags(deployment: Deployment) -> Iterator[Finding]:
    note = deployment.book.noted("cost tags")
    states = (note or {}).get("states", {})
    open_ones = [name for name in COST_TAGS if states.get(name) not in (TagState.ACTIVE, TagState.ACTIVATED)]
    if open_ones:
        yield Finding(
            "cost tags", WARNING, f"not active in billing: {', '.join(open_ones)}", "trainyard costs tags says how"
        )
    else:
        yield Finding("cost tags", GOOD, "all are active")


def _requests(deployment: Deployment) -> Iterator[Finding]:
    return health.of_requests(deployment.scheduler.tables, datetime.now(UTC))


def _tenants(deployment: Deployment) -> Iterator[Finding]:
    return health.of_tenants(deployment.tenants.all())


def _young(deployment: Deployment) -> Iterator[Finding]:
    return health.of_new_buckets(deployment.store, datetime.now(UTC))


def _endpoints(deployment: Deployment) -> Iterator[Finding]:
    """Yield what is wrong with the endpoints, and whether the account allows another one."""
    endpoints, is_on = endpoints_of(deployment), deployment.outputs["SharedServing"] == "true"
    wrong = [Finding("endpoints", WARNING, text, remedy) for text, remedy in troubles(deployment, endpoints)]
    yield from wrong
    name = f"{deployment.stack}-shared--containers"
    failure = ContainerSets(deployment.store, lambda _: None).get(name).failure
    if failure:
        remedy = "it is tried again by itself; the endpoint's log says why a container does not start"
        yield Finding("endpoints", WARNING, f"{name} could not be updated: {failure}", remedy)
    if is_on:
        wanted = deployment.outputs["ServingInstanceType"]
        name = f"{wanted} for endpoint usage"
        value = sagemaker_quotas(deployment.client("service-quotas")).get(name)
        used = sum(endpoint.instance_count for endpoint in endpoints if endpoint.instance_type == wanted)
        if value is None:
            yield Finding("endpoints", UNKNOWN, f"{name}: not listed", "look it up in the console")
        elif value <= used and not used:
            yield Finding(
                "endpoints", BAD, f"{name}: {value:g}", "raise it (Service Quotas), or name another type"
            )
        elif value <= used:
            yield Finding(
                "endpoints",
                WARNING,
                f"{name}: {value:g}, all in use: the models of another algorithm cannot be served",
                "raise it (Service Quotas)",
            )
    if not wrong:
        yield Finding("endpoints", GOOD, "; ".join(summaries_of(endpoints)) or "there are no endpoints")


def _approval_links(deployment: Deployment) -> Iterator[Finding]:
    key_id = deployment.outputs.get("ApprovalKeyArn")
    if not key_id:
        yield Finding("approval links", GOOD, "off")
        return
    state = deployment.client("kms").describe_key(KeyId=key_id)["KeyMetadata"]["KeyState"]
    if state == "Enabled":
        yield Finding("approval links", GOOD, f"at {deployment.outputs['ApprovalsAddress']}")
        return
    remedy = f"aws kms enable-key --key-id {key_id}"
    if state == "PendingDeletion":
        remedy = f"aws kms cancel-key-deletion --key-id {key_id}, then {remedy}"
    yield Finding("approval links", BAD, f"their key is {state}: no link can be made, and none is valid", remedy)


def _letters(deployment: Deployment) -> Iterator[Finding]:
    return health.of_letters(dlq.counts(deployment))


OF_THE_DEPLOYMENT: Sequence[tuple[str, Check]] = (
    ("stack", _stack),
    ("alarms", _alarm_recipient),
    ("cost tags", _tags),
    ("requests", _requests),
    ("tenants", _tenants),
    ("new buckets", _young),
    ("endpoints", _endpoints),
    ("approval links", _approval_links),
    ("dead letters", _letters),
)


class _Loader(yaml.SafeLoader):
    """Reads a template without resolving CloudFormation's functions."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def _template() -> dict[str, Any]:
    """Return the template of this version; raises Refused when the file is not there."""
    try:
        text = TEMPLATE.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Refused(f"{TEMPLATE} is missing: the installation is incomplete") from None
    template: dict[str, Any] = yaml.load(text, Loader=_Loader)  # noqa: S506 - of SafeLoader
    return template
