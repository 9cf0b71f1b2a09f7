"""Removes a tenant's resources; each step may be repeated, and does a bounded part of a long task."""

import re
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.absence import is_absent, looked_up, remove
from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.deployment_names import DeploymentNames
from trainyard.adapters.aws.endpoint_scaling import unscale
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.provisioning import LEND_TAG, group_tags, owns_bucket, role_path_and_name
from trainyard.adapters.aws.schedules import names_of_schedules, remove_schedules
from trainyard.domain.errors import Refused, Throttled
from trainyard.domain.tenants import Tenant

PAGES_AT_ONCE = 20
"""Pages of a thousand object versions; a page takes about a second, the function's limit is two minutes."""

PAGES_COUNTED = 50
"""Pages that a dry run counts at most."""

PACKAGES_AT_ONCE = 100
"""DeleteModelPackage is throttled at a few a second."""

PASSING = frozenset({"InternalError", "SlowDown", "ServiceUnavailable", "OperationAborted"})

DEPLOYED = (
    # Label, list call, name key, ARN key and delete call; in the order in which they depend on each other.
    ("inference components", "list_inference_components", "InferenceComponents", "InferenceComponent"),
    ("endpoints", "list_endpoints", "Endpoints", "Endpoint"),
    ("endpoint configurations", "list_endpoint_configs", "EndpointConfigs", "EndpointConfig"),
    ("models", "list_models", "Models", "Model"),
)


class AwsRemoval:
    """Implements Removal."""

    def __init__(self, *, deployment: DeploymentNames) -> None:
        self._deployment = deployment

    def inventory(self, tenant: Tenant) -> dict[str, int | str]:
        """Return what there is, counted; changes nothing."""
        counts: dict[str, int | str] = {
            what: len(list(self._deployed(tenant, lister, key, kind))) for what, lister, key, kind in DEPLOYED
        }
        counts["model packages"] = len(list(self._packages(tenant)))
        pages = self._versions(tenant) if self._has_bucket(tenant) else iter(())
        seen = [len(page) for page in islice(pages, PAGES_COUNTED)]
        counts["object versions"] = sum(seen) if len(seen) < PAGES_COUNTED else f"{sum(seen):,} or more"
        counts["storage"] = f"s3://{tenant.bucket}/{tenant.root}"
        counts["role"] = tenant.role_arn
        counts["schedule"] = tenant.retrain_schedule or "none"
        return counts

    # --- what was deployed ------------------------------------------------------------------------------------

    def remove_endpoints(self, tenant: Tenant) -> bool:
        """An endpoint that is being created or updated cannot be deleted yet, and blocks the others."""
        sagemaker = client("sagemaker")
        for _, lister, key, kind in DEPLOYED:
            waiting = False
            for name in self._deployed(tenant, lister, key, kind):
                if kind == "Endpoint":
                    unscale(name)
                delete = partial(getattr(sagemaker, f"delete_{_snake(kind)}"), **{f"{kind}Name": name})
                try:
                    remove(delete)
                except ClientError as error:
                    if code_of(error) != "ValidationException":
                        raise
                    # Nothing of the tenant's needs a component that cannot be deleted yet: the timer removes it.
                    waiting = kind != "InferenceComponent" or waiting
            if waiting:
                return True
        return False

    def _deployed(self, tenant: Tenant, lister: str, key: str, kind: str) -> Iterator[str]:
        """Yield the names of what is tagged as the tenant's, in this stage.

        Listed by a part of the name, which the names of the tenant's things hold; decided by the tag, since the
        names of acme10 hold acme too.
        """
        sagemaker = client("sagemaker")
        with translated():
            pages = sagemaker.get_paginator(lister).paginate(NameContains=tenant.tenant_id)
            deployed = [item for page in pages for item in page[key]]
        for item in deployed:
            tags = sagemaker.list_tags(ResourceArn=item[f"{kind}Arn"])["Tags"]
            if self._deployment.is_ours(tenant, tags):
                yield item[f"{kind}Name"]

    # --- what was registered ----------------------------------------------------------------------------------

    def remove_models(self, tenant: Tenant) -> tuple[int, bool]:
        sagemaker = client("sagemaker")
        count = 0
        for arn in self._packages(tenant):
            if count == PACKAGES_AT_ONCE:
                return count, True
            remove(partial(sagemaker.delete_model_package, ModelPackageName=arn))
            count += 1
        if self._has_group(tenant):
            remove(lambda: sagemaker.delete_model_package_group(ModelPackageGroupName=tenant.model_group))
        return count, False

    def _has_group(self, tenant: Tenant) -> bool:
        """Tell whether the model group exists and, according to its tags, belongs to the tenant."""
        tags = looked_up(lambda: group_tags(tenant))
        return tags is not None and self._deployment.is_ours(tenant, tags)

    def _packages(self, tenant: Tenant) -> Iterator[str]:
        if not self._has_group(tenant):
            return
        pages = client("sagemaker").get_paginator("list_model_packages")
        try:
            with translated():
                for page in pages.paginate(ModelPackageGroupName=tenant.model_group):
                    yield from [summary["ModelPackageArn"] for summary in page["ModelPackageSummaryList"]]
        except ClientError as error:
            if not is_absent(error):
                raise

    # --- the rest ---------------------------------------------------------------------------------------------

    def remove_schedules(self, tenant: Tenant) -> None:
        remove_schedules(names_of_schedules(tenant), self._deployment.schedule_group)

    def remove_objects(self, tenant: Tenant, *, before: datetime | None = None) -> tuple[int, bool]:
        """Delete versions first: deleting a delete marker before them would restore an old version."""
        if not self._has_bucket(tenant):
            return 0, False
        count, pages = 0, 0
        for kind in ("Versions", "DeleteMarkers"):
            for versions in self._versions(tenant, kind):
                keys = [
                    {"Key": item["Key"], "VersionId": item["VersionId"]}
                    for item in versions
                    if before is None or item["LastModified"] < before
                ]
                if not keys:
                    continue
                if pages == PAGES_AT_ONCE:
                    return count, True
                with translated():
                    answer = client("s3").delete_objects(
                        Bucket=tenant.bucket, Delete={"Objects": keys, "Quiet": True}
                    )
                _check(answer.get("Errors", []))
                pages, count = pages + 1, count + len(keys)
        if before is None:
            self.abort_uploads(tenant)
        return count, False

    def abort_uploads(self, tenant: Tenant) -> None:
        s3 = client("s3")
        with translated():
            for listed in s3.get_paginator("list_multipart_uploads").paginate(
                Bucket=tenant.bucket, Prefix=tenant.root
            ):
                for upload in listed.get("Uploads", []):
                    s3.abort_multipart_upload(Bucket=tenant.bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def _versions(self, tenant: Tenant, *kinds: str) -> Iterator[list[dict[str, Any]]]:
        """Yield pages of object versions, of delete markers, or of both."""
        pages = client("s3").get_paginator("list_object_versions")
        with translated():
            for page in pages.paginate(Bucket=tenant.bucket, Prefix=tenant.root):
                versions = [item for kind in kinds or ("Versions", "DeleteMarkers") for item in page.get(kind, [])]
                if versions:
                    yield versions

    def _has_bucket(self, tenant: Tenant) -> bool:
        """Tell whether the tenant's bucket exists and is ours: HeadBucket is denied for others' buckets."""
        s3 = client("s3")
        try:
            if looked_up(lambda: s3.head_bucket(Bucket=tenant.bucket)) is None:
                return False
        except ClientError as error:
            if code_of(error) == "403":
                return False
            raise
        return tenant.pooled or owns_bucket(self._deployment, tenant)

    def remove_storage(self, tenant: Tenant) -> None:
        """Remove the tenant's own bucket; of the pool only the objects were the tenant's."""
        if not tenant.pooled and self._has_bucket(tenant):
            remove(lambda: client("s3").delete_bucket(Bucket=tenant.bucket))

    def remove_role(self, tenant: Tenant) -> None:
        iam = client("iam")
        _, name = role_path_and_name(tenant)
        role = looked_up(lambda: iam.get_role(RoleName=name))
        if role is None or not self._deployment.is_ours(tenant, role["Role"].get("Tags", [])):
            return
        with translated():
            policies = iam.list_role_policies(RoleName=name)["PolicyNames"]
            attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        for policy in policies:
            remove(partial(iam.delete_role_policy, RoleName=name, PolicyName=policy))
        for policy in attached:
            remove(partial(iam.detach_role_policy, RoleName=name, PolicyArn=policy["PolicyArn"]))
        remove(lambda: iam.delete_role(RoleName=name))

    def take_back_key(self, tenant: Tenant) -> str | None:
        if tenant.key_arn is None:
            return None
        kms = client("kms")
        try:
            with translated():
                pages = kms.get_paginator("list_grants").paginate(KeyId=tenant.key_arn)
                grants = [grant for page in pages for grant in page["Grants"]]
                for grant in grants:
                    if grant.get("Name") == self._deployment.grant_name(tenant):
                        remove(partial(kms.revoke_grant, KeyId=tenant.key_arn, GrantId=grant["GrantId"]))
        except ClientError as error:
            if is_absent(error):
                return None
            if code_of(error) != "AccessDeniedException":
                raise
            return (
                f"the grants on {tenant.key_arn} could not be revoked: its policy no longer allows it, or the tag "
                f"{LEND_TAG} is missing"
            )
        return None


def _check(errors: list[dict[str, str]]) -> None:
    """Raise Throttled for objects that a further try can delete, Refused for the others."""
    if errors:
        first = errors[0]
        message = f"{first['Key']} cannot be deleted: {first.get('Message') or first['Code']}"
        raise Throttled(message) if first["Code"] in PASSING else Refused(message)


def _snake(kind: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", kind).lower()
