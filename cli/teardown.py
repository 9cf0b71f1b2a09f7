"""Teardown: delete what was created outside the stack, the stack itself, and the resources that it retains."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.machines import run
from cli.show import Answer
from cli.text import say
from trainyard.adapters.aws.endpoint_scaling import unscale
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Change, Tenant, TenantState

KEY_WINDOW_DAYS = 7
"""The shortest waiting period that KMS allows before a key is deleted; the key costs nothing meanwhile."""

STACK_MINUTES_MAX = 60
COMPONENT_TRIES_MAX = 120
"""Every five seconds."""
TABLES = ("SchedulerTable", "RequestsTable", "RecordTable", "TenantsTable")
BUCKETS = ("PoolBucket", "CodeBucket", "BillingBucket", "ServingBucket")
SERVED = (
    ("list_inference_components", "InferenceComponents", "InferenceComponent"),
    ("list_endpoints", "Endpoints", "Endpoint"),
    ("list_endpoint_configs", "EndpointConfigs", "EndpointConfig"),
    ("list_models", "Models", "Model"),
)
"""What endpoints consist of, in the order in which they depend on each other: list call, key, and kind."""
ABSENT = frozenset(
    {"404", "NoSuchBucket", "ResourceNotFoundException", "NotFoundException", "KMSInvalidStateException"}
)


def teardown(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show what would be deleted; with --yes delete it, and with --delete-data also the tenants' data and records.

    Can be run again after any failure, until the stack itself is gone.
    """
    outputs = dict(deployment.outputs)
    tenants = [tenant for tenant in deployment.tenants.all() if tenant.state is not TenantState.DELETED]
    plan = _plan(deployment, outputs, tenants)
    if not arguments.yes:
        lines = ["nothing was deleted; add --yes to delete it, and --delete-data to delete the tenants' data too"]
        return Answer(data=plan, columns=("WOULD BE DELETED", "COUNT"), rows=list(plan.items()), lines=lines)
    if not arguments.delete_data and (tenants or _objects(deployment, outputs["PoolBucket"])):
        raise Refused(
            f"{len(tenants)} tenants still have data, models and records: add --delete-data to delete all of it, "
            "or delete the tenants first (`trainyard tenant delete` shows what each has)"
        )
    # 1. Nothing new starts.
    deployment.scheduler.tables.ledger.set_paused(True)
    # 2. Tenants: their data, models, roles, schedules; each by the state machine for deletion.
    for number, tenant in enumerate(tenants, start=1):
        _say(f"tenant {tenant.tenant_id} ({number} of {len(tenants)})")
        run(deployment, Change.DELETE, {"tenant": {"name": tenant.tenant_id}, "purge": True}, quiet=True)
    # 3. The endpoints, which the service has created itself: shared ones, and what deletions of tenants left.
    _remove_served(deployment)
    # 4. The objects in the stack's buckets: CloudFormation deletes only empty buckets.
    emptied = (
        BUCKETS if arguments.delete_data or outputs["Stage"] != "prod" else tuple(set(BUCKETS) - {"BillingBucket"})
    )
    for name in emptied:
        _say(f"objects of {outputs[name]}: {_empty(deployment, outputs[name]):,} versions")
    # 5. The stack.
    _say(f"stack {deployment.stack}")
    _delete_stack(deployment)
    # 6. What the stack keeps when it is deleted: tables and pool in prod, the key always.
    remaining = _remove_kept(deployment, outputs) if arguments.delete_data else _kept(outputs)
    return Answer(
        data={"removed": plan, "kept": remaining},
        lines=[
            f"{deployment.stack} was deleted",
            *(f"kept: {line}" for line in remaining),
            "not deleted: the job logs (/aws/sagemaker/…), and the bucket in which SAM keeps artefacts",
        ],
    )


def _plan(deployment: Deployment, outputs: dict[str, str], tenants: list[Tenant]) -> dict[str, Any]:
    schedules = [tenant for tenant in tenants if tenant.retrain_schedule]
    return {
        "tenants": len(tenants),
        "buckets of their own": len([tenant for tenant in tenants if tenant.bucket and not tenant.pooled]),
        "roles": len([tenant for tenant in tenants if tenant.role != "NONE"]),
        "schedules": len(schedules),
        "parts of endpoints": len(list(_served(deployment))),
        "object versions in the pool": _objects(deployment, outputs["PoolBucket"]),
        "published scripts": _objects(deployment, outputs["CodeBucket"]),
        "usage exports": _objects(deployment, outputs["BillingBucket"]),
        "stack": deployment.stack,
        "with --delete-data": "tables, pool, exports and key, where the stack keeps them",
    }


def _remove_served(deployment: Deployment) -> None:
    """Delete the endpoints, and wait until they are gone: SageMaker needs their role for that."""
    sagemaker = deployment.client("sagemaker")
    parts = list(_served(deployment))
    _remove_components(sagemaker, [name for kind, name in parts if kind == "InferenceComponent"])
    for kind, name in parts:
        if kind == "InferenceComponent":
            continue
        _say(f"endpoint, its {kind}: {name}")
        if kind == "Endpoint":
            with _unless_gone():
                if sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] != "Deleting":
                    unscale(name)
                    if sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "Updating":
                        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name)
                    sagemaker.delete_endpoint(EndpointName=name)
            waiter = sagemaker.get_waiter("endpoint_deleted")
            waiter.wait(EndpointName=name, WaiterConfig={"Delay": 5, "MaxAttempts": 240})
        elif kind == "EndpointConfig":
            sagemaker.delete_endpoint_config(EndpointConfigName=name)
        else:
            sagemaker.delete_model(ModelName=name)


def _remove_components(sagemaker: Any, names: list[str]) -> None:
    """Delete inference components, and wait until they are gone: an endpoint that has any cannot be deleted."""
    for _ in range(COMPONENT_TRIES_MAX):
        names = [name for name in names if not _is_gone(sagemaker, name)]
        if not names:
            return
        time.sleep(5)
    raise Refused(f"inference components are still there, run teardown again: {', '.join(names)}")


def _is_gone(sagemaker: Any, name: str) -> bool:
    """Tell whether an inference component is gone; begin to delete it where that is possible."""
    try:
        described = sagemaker.describe_inference_component(InferenceComponentName=name)
        if described["InferenceComponentStatus"] in ("InService", "Failed"):
            sagemaker.delete_inference_component(InferenceComponentName=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        return "Could not find" in str(error)  # else somebody else deletes it
    return False


def _served(deployment: Deployment) -> Iterator[tuple[str, str]]:
    """Yield kind and name of each part of the endpoints; found by name and by tag."""
    sagemaker = deployment.client("sagemaker")
    for lister, key, kind in SERVED:
        for prefix in (f"{deployment.stack}-shared-", f"{deployment.stack}-own-"):
            pages = sagemaker.get_paginator(lister).paginate(NameContains=prefix)
            for item in [item for page in pages for item in page[key]]:
                name = item[f"{kind}Name"]
                tags: list[dict[str, str]] = []
                with _unless_gone():
                    tags = sagemaker.list_tags(ResourceArn=item[f"{kind}Arn"])["Tags"]
                if name.startswith(prefix) and {"Key": "trainyard:stack", "Value": deployment.stack} in tags:
                    yield kind, name


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Pass over what was deleted since it was listed."""
    try:
        yield
    except ClientError as error:
        if "Could not find" not in str(error):
            raise


def _objects(deployment: Deployment, bucket: str) -> int:
    pages = deployment.client("s3").get_paginator("list_object_versions").paginate(Bucket=bucket)
    return sum(len(page.get("Versions", [])) + len(page.get("DeleteMarkers", [])) for page in pages)


def _empty(deployment: Deployment, bucket: str) -> int:
    s3, count = deployment.client("s3"), 0
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        versions = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        keys = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in versions]
        if keys:
            errors = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True}).get("Errors", [])
            if errors:
                raise Refused(
                    f"{errors[0]['Key']} in {bucket} cannot be deleted ({errors[0]['Code']}): run teardown again"
                )
            count += len(keys)
    return count


def _delete_stack(deployment: Deployment) -> None:
    """Raises Refused, naming what CloudFormation could not delete."""
    cloudformation = deployment.client("cloudformation")
    (stack,) = cloudformation.describe_stacks(StackName=deployment.stack)["Stacks"]
    cloudformation.delete_stack(StackName=stack["StackId"])
    waiter = cloudformation.get_waiter("stack_delete_complete")
    try:
        waiter.wait(StackName=stack["StackId"], WaiterConfig={"Delay": 2, "MaxAttempts": STACK_MINUTES_MAX * 30})
    except Exception as error:
        events = cloudformation.describe_stack_events(StackName=stack["StackId"])["StackEvents"]
        failed = [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
            for event in events
            if event["ResourceStatus"] == "DELETE_FAILED"
        ]
        raise Refused(f"the stack could not be deleted; run teardown again. {'; '.join(failed[:5])}") from error


def _kept(outputs: dict[str, str]) -> list[str]:
    key = f"{outputs['DataKeyArn']} (1 USD a month): needed to decrypt what was encrypted with it"
    in_prod = (
        [outputs[name] for name in (*TABLES, "PoolBucket", "BillingBucket")] if outputs["Stage"] == "prod" else []
    )
    return [key, *in_prod]


def _remove_kept(deployment: Deployment, outputs: dict[str, str]) -> list[str]:
    """Delete what the stack retains; return what could not be deleted and must be deleted by hand."""
    dynamodb, s3, kms = (deployment.client(name) for name in ("dynamodb", "s3", "kms"))
    calls: list[tuple[str, Callable[[], Any]]] = [
        *((outputs[name], partial(dynamodb.delete_table, TableName=outputs[name])) for name in TABLES),
        *((outputs[name], partial(s3.delete_bucket, Bucket=outputs[name])) for name in BUCKETS),
    ]
    remaining = [f"{name}: {reason}; delete it by hand" for name, call in calls if (reason := _gone(call))]
    key, window = outputs["DataKeyArn"], KEY_WINDOW_DAYS
    reason = _gone(partial(kms.schedule_key_deletion, KeyId=key, PendingWindowInDays=window))
    message = (
        f"{reason}; schedule its deletion by hand" if reason else f"deleted in {window} days, free until then"
    )
    return [*remaining, f"{key}: {message}"]


def _gone(call: Callable[[], Any]) -> str | None:
    """Delete something that may not exist any more; return the error, or None."""
    try:
        call()
    except ClientError as error:
        return None if error.response["Error"]["Code"] in ABSENT else str(error)
    return None


def _say(text: str) -> None:
    say(f"teardown: {text}")
