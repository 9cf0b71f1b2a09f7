"""Creates a tenant's resources, in steps that can be repeated."""

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.deployment_names import DeploymentNames, Document
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.domain.announcements import APPLICATION_SOURCE
from trainyard.domain.errors import Refused
from trainyard.domain.receipts import README
from trainyard.domain.tenants import RoleState, Tenant

ABSENT = frozenset(
    {
        "404",
        "NoSuchBucket",
        "NoSuchBucketPolicy",
        "NoSuchEntity",
        "NoSuchTagSet",
        "NotFound",
        "NotFoundException",
        "ResourceNotFound",
        "ResourceNotFoundException",
    }
)
_ABSENT_IN_WORDS = re.compile(r"does not exist|could not find|not found", re.IGNORECASE)
"""SageMaker answers ValidationException for a missing resource, as for many other errors."""

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

    def ensure_schedule(self, tenant: Tenant) -> None:
        """Create, update or delete the schedule that requests retraining."""
        scheduler = client("scheduler")
        schedule = self._schedule(tenant)
        if schedule is None:
            remove(
                lambda: scheduler.delete_schedule(
                    Name=schedule_name(tenant), GroupName=self._deployment.schedule_group
                )
            )
            return
        made = _create(lambda: scheduler.create_schedule(**schedule), exists={"ConflictException"})
        if not made:
            with translated():
                scheduler.update_schedule(**schedule)

    def _schedule(self, tenant: Tenant) -> dict[str, Any] | None:
        if tenant.retrain_schedule is None:
            return None
        deployment = self._deployment
        place = f"{deployment.partition}:events:{deployment.region}:{deployment.account_id}"
        bus = f"arn:{place}:event-bus/{deployment.event_bus_name}"
        return {
            "Name": schedule_name(tenant),
            "GroupName": deployment.schedule_group,
            "ScheduleExpression": tenant.retrain_schedule,
            # Schedules with a rate align: spread ten thousand tenants over a quarter of an hour.
            "FlexibleTimeWindow": {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15},
            "Target": {
                "Arn": bus,
                "RoleArn": deployment.schedule_role_arn,
                "Input": json.dumps({"tenant_id": tenant.tenant_id, "reason": "schedule"}),
                "EventBridgeParameters": {"DetailType": "Retraining Requested", "Source": APPLICATION_SOURCE},
            },
        }

    # --- drift ------------------------------------------------------------------------------------------------

    def drift(self, tenant: Tenant) -> list[str]:
        drifts = [] if tenant.pooled else self._bucket_drift(tenant)
        if tenant.role is RoleState.MADE:
            drifts += self._role_drift(tenant)
        group = looked_up(
            lambda: client("sagemaker").describe_model_package_group(ModelPackageGroupName=tenant.model_group)
        )
        drifts += [] if group else [f"the model group {tenant.model_group} is missing"]
        return drifts + self._schedule_drift(tenant)

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

    def _schedule_drift(self, tenant: Tenant) -> list[str]:
        name = schedule_name(tenant)
        schedule = looked_up(
            lambda: client("scheduler").get_schedule(Name=name, GroupName=self._deployment.schedule_group)
        )
        expression = schedule["ScheduleExpression"] if schedule else None
        if expression == tenant.retrain_schedule:
            return []
        return [f"the schedule {name} is {expression}, not {tenant.retrain_schedule}"]


def role_path_and_name(tenant: Tenant) -> tuple[str, str]:
    path, _, name = tenant.role_arn.partition(":role")[2].rpartition("/")
    return f"{path}/", name


def schedule_name(tenant: Tenant) -> str:
    return f"retrain-{tenant.tenant_id}"


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


def remove(call: Callable[[], Any]) -> bool:
    """Remove something; False when it was not there."""
    return looked_up(call) is not None


def is_absent(error: ClientError) -> bool:
    """Tell whether an error means that the resource does not exist."""
    if code_of(error) == "ValidationException":
        return _ABSENT_IN_WORDS.search(str(error.response["Error"].get("Message", ""))) is not None
    return code_of(error) in ABSENT


def looked_up(call: Callable[[], Any]) -> Any:
    """Return the answer of a call, or None when the resource does not exist."""
    try:
        with translated():
            return call() or {}
    except ClientError as error:
        if is_absent(error):
            return None
        raise


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
