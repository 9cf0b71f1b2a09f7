"""Creates a tenant's resources, in steps that can be repeated."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.absence import is_absent, looked_up
from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.deployment_names import DeploymentNames, Document
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.schedules import (
    begins_alike,
    names_of_schedules,
    remove_schedules,
    schedules_of,
    schedules_over,
)
from trainyard.domain.errors import Refused
from trainyard.domain.receipts import README
from trainyard.domain.tenants import RoleState, Tenant

BLOCKED = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
LEND_TAG = "trainyard:lend"
"""A key of the deployment's own account is lent to tenants' jobs only if this tag names the stack (template.yaml).
"""
GRANTED = ["Encrypt", "Decrypt", "GenerateDataKey", "DescribeKey"]


class AwsProvisioning:
    """Implements Provisioning."""

    def __init__(
        self, *, deployment: DeploymentNames, images: Callable[[Tenant], tuple[str, ...]], in_vpc: bool
    ) -> None:
        """`images` returns the container images that a tenant's jobs pull."""
        self._deployment, self._images, self._in_vpc = deployment, images, in_vpc

    # --- storage ----------------------------------------------------------------------------------------------

    def ensure_storage(self, tenant: Tenant, *, opened: bool = True) -> None:
        """Create a versioned, encrypted, private bucket; a pooled tenant's prefix needs only its record.

        Raises Refused when the bucket belongs to somebody else.
        """
        if tenant.pooled:
            return
        s3, bucket = client("s3"), tenant.bucket
        region = self._deployment.region
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            _create(
                lambda: s3.create_bucket(Bucket=bucket, ObjectOwnership="BucketOwnerEnforced", **place),
                exists={"BucketAlreadyOwnedByYou"},
            )
        except ClientError as error:
            if code_of(error) != "BucketAlreadyExists":
                raise
            raise Refused(
                f"the bucket {bucket} belongs to another AWS account: choose another tenant id, or deploy under "
                "another stack name"
            ) from error
        if not owns_bucket(self._deployment, tenant):
            raise Refused(_not_ours(f"bucket {bucket}"))
        with translated():
            s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": self._deployment.tags(tenant)})
            # First, since it takes minutes until events arrive; nobody else has access to the bucket yet.
            configuration: Document = {"EventBridgeConfiguration": {}} if opened else {}
            s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)
            s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=BLOCKED)
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
            encryption = {
                "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
                "BucketKeyEnabled": True,
            }
            s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [encryption]})
            s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(self._deployment.bucket_policy(tenant)))
            s3.put_bucket_lifecycle_configuration(
                Bucket=bucket, LifecycleConfiguration={"Rules": self._deployment.lifecycle()}
            )
            if self._deployment.console_origins:
                s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=self._deployment.cors())

    def write_readme(self, tenant: Tenant) -> None:
        """Write what a tenant needs to know beside its receipts; a repetition makes no new version of it."""
        place = {"Bucket": tenant.bucket, "Key": f"{tenant.root}receipts/README.txt"}
        body = README.encode()
        digest = hashlib.sha256(body).hexdigest()
        s3 = client("s3")
        with translated():
            head = looked_up(lambda: s3.head_object(**place))
            if head is None or head["Metadata"].get("sha256") != digest:
                s3.put_object(
                    **place, Body=body, ContentType="text/plain; charset=utf-8", Metadata={"sha256": digest}
                )

    # --- role -------------------------------------------------------------------------------------------------

    def ensure_role(self, tenant: Tenant) -> None:
        """Create the role of the tenant's jobs, which may only read its data and write its results."""
        iam = client("iam")
        path, name = role_path_and_name(tenant)
        trust = json.dumps(self._deployment.trust())
        made = _create(
            lambda: iam.create_role(
                RoleName=name,
                Path=path,
                AssumeRolePolicyDocument=trust,
                PermissionsBoundary=self._deployment.boundary_arn,
                Description=f"Training jobs of tenant {tenant.tenant_id}",
                Tags=self._deployment.tags(tenant),
            ),
            exists={"EntityAlreadyExists"},
        )
        if not made:
            with translated():
                role = iam.get_role(RoleName=name)["Role"]
            if not self._deployment.is_ours(tenant, role.get("Tags", [])):
                raise Refused(_not_ours(f"role {name}"))
        with translated():
            if not made:
                iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
                iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=self._deployment.boundary_arn)
                iam.tag_role(RoleName=name, Tags=self._deployment.tags(tenant))
            iam.put_role_policy(
                RoleName=name, PolicyName="own-data", PolicyDocument=json.dumps(self._role_policy(tenant))
            )
        if tenant.key_arn:
            self._lend_key(tenant)

    def _lend_key(self, tenant: Tenant) -> None:
        """Grant the use of the tenant's own key: to its role, and to those that read its results for it.

        Repeating it with the same name and terms returns the existing grant (KMS API reference, CreateGrant).
        """
        lent = [(tenant.role_arn, GRANTED), *((reader, ["Decrypt"]) for reader in self._deployment.result_readers)]
        lent += [(mover, ["Decrypt", "GenerateDataKey"]) for mover in self._deployment.result_movers]
        try:
            with translated():
                for grantee, operations in lent:
                    client("kms").create_grant(
                        KeyId=tenant.key_arn,
                        GranteePrincipal=grantee,
                        Operations=operations,
                        Name=self._deployment.grant_name(tenant),
                    )
        except ClientError as error:
            if not is_absent(error) and code_of(error) not in ("AccessDeniedException", "DisabledException"):
                raise
            raise Refused(
                f"the key {tenant.key_arn} cannot be used by the tenant's jobs: it must exist in this Region, its "
                "policy must let this account create grants, and a key of this account needs the tag "
                f"{LEND_TAG} = {self._deployment.stack} ({error.response['Error']['Message']})"
            ) from error

    def _role_policy(self, tenant: Tenant) -> Document:
        return self._deployment.role_policy(tenant, self._images(tenant), in_vpc=self._in_vpc)

    # --- models and schedule ----------------------------------------------------------------------------------

    def ensure_model_group(self, tenant: Tenant) -> None:
        """Create the model package group; it carries the tags, since its versions cannot."""
        sagemaker = client("sagemaker")
        made = _create(
            lambda: sagemaker.create_model_package_group(
                ModelPackageGroupName=tenant.model_group,
                ModelPackageGroupDescription=f"Models of tenant {tenant.tenant_id}",
                Tags=self._deployment.tags(tenant),
            ),
            exists={"ValidationException", "ConflictException"},
            exists_if=lambda: sagemaker.describe_model_package_group(ModelPackageGroupName=tenant.model_group),
        )
        if not made and not self._deployment.is_ours(tenant, group_tags(tenant)):
            raise Refused(_not_ours(f"model group {tenant.model_group}"))

    def ensure_schedules(self, tenant: Tenant, before: Tenant) -> None:
        scheduler, wanted = client("scheduler"), schedules_of(tenant, self._deployment, datetime.now(UTC))
        for schedule in wanted:
            made = _create(lambda s=schedule: scheduler.create_schedule(**s), exists={"ConflictException"})  # type: ignore[misc]
            # A rate begins anew when its schedule is updated: one that is as it is to be stays as it is.
            if not made and not self._is_as(schedule):
                with translated():
                    scheduler.update_schedule(**schedule)
        names = {schedule["Name"] for schedule in wanted}
        absent = [name for name in names_of_schedules(tenant) + names_of_schedules(before) if name not in names]
        remove_schedules(dict.fromkeys(absent), self._deployment.schedule_group)

    def _is_as(self, wanted: dict[str, Any]) -> bool:
        """Tell whether a schedule is due when it is to be, and asks for what it is to ask for."""
        present = self._schedule(wanted["Name"])
        target = present.get("Target", {}) if present else {}
        named = ("Arn", "RoleArn", "Input", "EventBridgeParameters")
        if present is None or _when(present) != _when(wanted):
            return False
        if not begins_alike(present, wanted, datetime.now(UTC)):
            return False
        return all(target.get(name) == wanted["Target"][name] for name in named)

    def _schedule(self, name: str) -> dict[str, Any] | None:
        group = self._deployment.schedule_group
        schedule: dict[str, Any] | None = looked_up(
            lambda: client("scheduler").get_schedule(Name=name, GroupName=group)
        )
        return schedule

    # --- drift ------------------------------------------------------------------------------------------------

    def drift(self, tenant: Tenant) -> list[str]:
        drifts = [] if tenant.pooled else self._bucket_drift(tenant)
        if tenant.role is RoleState.MADE:
            drifts += self._role_drift(tenant)
        group = looked_up(
            lambda: client("sagemaker").describe_model_package_group(ModelPackageGroupName=tenant.model_group)
        )
        drifts += [] if group else [f"the model group {tenant.model_group} is missing"]
        return drifts + self._schedule_drifts(tenant)

    def _bucket_drift(self, tenant: Tenant) -> list[str]:
        s3, bucket = client("s3"), tenant.bucket
        if looked_up(lambda: s3.get_bucket_versioning(Bucket=bucket)) is None:
            return [f"the bucket {bucket} is missing"]
        policy = looked_up(lambda: s3.get_bucket_policy(Bucket=bucket))
        versioning = s3.get_bucket_versioning(Bucket=bucket).get("Status")
        notifications = s3.get_bucket_notification_configuration(Bucket=bucket)
        block = looked_up(lambda: s3.get_public_access_block(Bucket=bucket)) or {}
        same = policy is not None and json.loads(policy["Policy"]) == self._deployment.bucket_policy(tenant)
        checks = {
            f"the policy of bucket {bucket} was changed": same,
            f"versioning of bucket {bucket} is off": versioning == "Enabled",
            f"bucket {bucket} sends no events to EventBridge": "EventBridgeConfiguration" in notifications,
            f"bucket {bucket} does not block public access": block.get("PublicAccessBlockConfiguration")
            == BLOCKED,
        }
        if self._deployment.console_origins:
            cors = looked_up(lambda: s3.get_bucket_cors(Bucket=bucket)) or {}
            is_same = cors.get("CORSRules") == self._deployment.cors()["CORSRules"]
            checks[f"bucket {bucket} does not take uploads from the console"] = is_same
        return [finding for finding, holds in checks.items() if not holds]

    def _role_drift(self, tenant: Tenant) -> list[str]:
        iam = client("iam")
        _, name = role_path_and_name(tenant)
        role = looked_up(lambda: iam.get_role(RoleName=name))
        if role is None:
            return [f"the role {name} is missing"]
        own = looked_up(lambda: iam.get_role_policy(RoleName=name, PolicyName="own-data"))
        named = iam.list_role_policies(RoleName=name)["PolicyNames"]
        attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        boundary = role["Role"].get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
        checks = {
            f"the policy of role {name} was changed": own is not None
            and _decoded(own["PolicyDocument"]) == self._role_policy(tenant),
            f"role {name} has additional policies": set(named) <= {"own-data"} and not attached,
            f"the trust policy of role {name} was changed": _decoded(role["Role"]["AssumeRolePolicyDocument"])
            == self._deployment.trust(),
            f"the permissions boundary of role {name} was changed": boundary == self._deployment.boundary_arn,
            f"the tags of role {name} do not name this tenant": self._deployment.is_ours(
                tenant, role["Role"].get("Tags", [])
            ),
        }
        return [finding for finding, holds in checks.items() if not holds]

    def _schedule_drifts(self, tenant: Tenant) -> list[str]:
        now = datetime.now(UTC)
        wanted = {each["Name"]: _when(each) for each in schedules_of(tenant, self._deployment, now)}
        over = {each["Name"]: _when(each) for each in schedules_over(tenant, self._deployment, now)}
        drifts: list[str] = []
        for name in names_of_schedules(tenant):
            schedule = self._schedule(name)
            present = _when(schedule) if schedule else None
            # One that is not due any more is deleted by EventBridge, sooner or later.
            if present != wanted.get(name) and not (name in over and present in (None, over[name])):
                drifts.append(f"the schedule {name} is {present}, not {wanted.get(name)}")
        return drifts


def _when(schedule: Any) -> str:
    """Return when a schedule is due, in words; without its beginning, which is not kept once it has passed."""
    window = schedule["FlexibleTimeWindow"].get("MaximumWindowInMinutes", 0)
    ends = f" until {schedule['EndDate']:%Y-%m-%d %H:%M}" if schedule.get("EndDate") else ""
    zone = schedule.get("ScheduleExpressionTimezone", "UTC")
    return f"{schedule['ScheduleExpression']} {zone}{ends} within {window} minutes"


def role_path_and_name(tenant: Tenant) -> tuple[str, str]:
    path, _, name = tenant.role_arn.partition(":role")[2].rpartition("/")
    return f"{path}/", name


def owns_bucket(deployment: DeploymentNames, tenant: Tenant) -> bool:
    """Tell whether the existing bucket belongs to the tenant, according to its tags.

    A bucket whose creation was interrupted has no tags yet, and is empty.
    """
    s3 = client("s3")
    tagging = looked_up(lambda: s3.get_bucket_tagging(Bucket=tenant.bucket))
    if tagging and tagging.get("TagSet"):
        return deployment.is_ours(tenant, tagging["TagSet"])
    with translated():
        listing = s3.list_object_versions(Bucket=tenant.bucket, MaxKeys=1)
    return not (listing.get("Versions") or listing.get("DeleteMarkers"))


def group_tags(tenant: Tenant) -> list[dict[str, str]]:
    """Return the tags of a tenant's existing model group."""
    sagemaker = client("sagemaker")
    with translated():
        group = sagemaker.describe_model_package_group(ModelPackageGroupName=tenant.model_group)
        tags: list[dict[str, str]] = sagemaker.list_tags(ResourceArn=group["ModelPackageGroupArn"])["Tags"]
    return tags


def _not_ours(what: str) -> str:
    return (
        f"the {what} exists already, and by its tags it does not belong to this tenant of this deployment: choose "
        "another tenant id, or delete it if it is a leftover"
    )


def _decoded(document: Any) -> Document:
    """Return a policy document, which botocore has parsed already."""
    decoded: Document = json.loads(document) if isinstance(document, str) else document
    return decoded


def _create(call: Callable[[], Any], *, exists: set[str], exists_if: Callable[[], Any] | None = None) -> bool:
    """Make something; False when it exists already. `exists_if` confirms it where the code is ambiguous."""
    try:
        with translated():
            call()
    except ClientError as error:
        if code_of(error) not in exists:
            raise
        if exists_if is not None:
            with translated():
                exists_if()
        return False
    return True
