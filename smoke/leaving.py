"""The last steps: a move, deletions, the teardown, and a check for leftovers."""

from contextlib import suppress

from smoke.deployed import POOLED, SILO
from smoke.place import Suite, status_of
from smoke.steps import Step, StepFailed, eventually


def move(suite: Suite) -> list[str]:
    before = suite.deployment.tenant(POOLED)
    if before.pooled:
        suite.operator("tenant", "move", POOLED, "--tier", "basic")
    after = suite.deployment.tenant(POOLED)
    sagemaker = suite.client("sagemaker")
    for package in sagemaker.list_model_packages(ModelPackageGroupName=after.model_group)[
        "ModelPackageSummaryList"
    ]:
        found = sagemaker.describe_model_package(ModelPackageName=package["ModelPackageArn"])
        url = found["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
        if not url.startswith(f"s3://{after.bucket}/"):
            raise StepFailed(f"{package['ModelPackageArn']} is still at {url}")
    pool, prefix = suite.deployment.outputs["PoolBucket"], f"{POOLED}/"
    left = suite.client("s3").list_object_versions(Bucket=pool, Prefix=prefix).get("Versions", [])
    if left or after.pooled:
        raise StepFailed(f"{len(left)} versions are left in {pool}/{prefix} after the move to {after.bucket}")
    return [f"{POOLED} and its models were moved to {after.bucket}; nothing is left in the pool"]


def delete(suite: Suite) -> list[str]:
    plan = suite.operator("tenant", "delete", SILO)
    if suite.deployment.tenants.get(SILO) is None:
        raise StepFailed("the dry run deleted the tenant")
    suite.operator("tenant", "delete", SILO, "--yes", "--purge")
    if suite.deployment.tenants.get(SILO) is not None:
        raise StepFailed(f"the record of {SILO} still exists")
    return [*plan.splitlines()[:3], f"{SILO} was deleted, including its record"]


def teardown(suite: Suite) -> list[str]:
    suite.notes["key"] = suite.deployment.outputs["DataKeyArn"]
    printed = suite.operator("teardown", "--yes", "--delete-data")
    if status_of(suite.stack) is not None:
        raise StepFailed(f"the stack is {status_of(suite.stack)}")
    return [line for line in printed.splitlines() if line.strip()]


def leftovers(suite: Suite) -> list[str]:
    """Look for resources with the stack's name, and wait for those that are being deleted."""
    left: list[str] = []

    def nothing() -> bool:
        left[:] = _left(suite)
        return not left

    with suppress(StepFailed):
        eventually(nothing, 15 * suite.patience, "an empty account", every=5)
    if left:
        raise StepFailed(f"{len(left)} resources are left: {', '.join(left[:10])}")
    return ["no resource has the stack's name; logs of jobs are kept as the account is configured"]


def _left(suite: Suite) -> list[str]:
    found = []
    for bucket in suite.client("s3").list_buckets()["Buckets"]:
        if bucket["Name"].startswith(f"{suite.stack}-{suite.account_id}-"):
            found.append(f"bucket {bucket['Name']}")
    for page in suite.client("iam").get_paginator("list_roles").paginate(PathPrefix=f"/trainyard/{suite.stack}/"):
        found += [f"role {role['RoleName']}" for role in page["Roles"]]
    urls = suite.client("sqs").list_queues(QueueNamePrefix=f"{suite.stack}-").get("QueueUrls", [])
    found += [f"queue {url.rpartition('/')[2]}" for url in urls]
    for page in suite.client("dynamodb").get_paginator("list_tables").paginate():
        found += [f"table {name}" for name in page["TableNames"] if name.startswith(f"{suite.stack}-")]
    groups = suite.client("sagemaker").list_model_package_groups(NameContains=suite.stack, MaxResults=100)
    found += [
        f"model group {group['ModelPackageGroupName']}"
        for group in groups["ModelPackageGroupSummaryList"]
        if group["ModelPackageGroupName"].startswith(f"{suite.stack}--")
    ]
    sagemaker = suite.client("sagemaker")
    for kind in ("shared", "own"):
        prefix = f"{suite.stack}-{kind}-"
        endpoints = sagemaker.list_endpoints(NameContains=prefix)["Endpoints"]
        found += [f"endpoint {each['EndpointName']}" for each in endpoints if each["EndpointStatus"] != "Deleting"]
        found += [f"model {each['ModelName']}" for each in sagemaker.list_models(NameContains=prefix)["Models"]]
    logs = suite.client("logs").describe_log_groups(logGroupNamePrefix=f"/trainyard/{suite.stack}/")["logGroups"]
    found += [f"log group {group['logGroupName']}" for group in logs]
    schedules = suite.client("scheduler").list_schedules(NamePrefix=f"{suite.stack}-")["Schedules"]
    found += [f"schedule {schedule['Name']}" for schedule in schedules]
    rules = suite.client("events").list_rules(NamePrefix=f"{suite.stack}-")["Rules"]
    return found + [f"rule {rule['Name']}" for rule in rules]


STEPS: tuple[Step[Suite], ...] = (
    Step(
        name="move",
        does="move the pooled tenant into its own bucket, and check its models and the old location",
        means="`trainyard tenant show` names the step that failed; nothing is deleted before the copies match.",
        run=move,
        minutes=75,
    ),
    Step(
        name="delete",
        does="delete the tenant with a bucket, first as a dry run",
        means="the state machine names the call that was denied; fix the cause, then run it again.",
        run=delete,
        minutes=5,
    ),
    Step(
        name="teardown",
        does="delete the other tenants, the stack, and the resources that the stack would retain",
        means="CloudFormation names the resources that it could not delete; run `make teardown` again.",
        run=teardown,
        minutes=15,
    ),
    Step(
        name="leftovers",
        does="look for buckets, roles, queues, tables, model groups, logs and schedules with the stack's name",
        means="the named resources cost money or block the next deployment: delete them by hand.",
        run=leftovers,
    ),
)
