"""Takes away what a tenant had; each step may be repeated, and does a bounded part of a long work."""

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.estate import TENANT_TAG, Estate
from trainyard.adapters.aws.provisioning import (
    ABSENT,
    grant_name,
    looked_up,
    remove,
    role_path_and_name,
    schedule_name,
)
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Tenant

PAGES_AT_ONCE = 20
"""Of a thousand object versions each; a page takes about a second, the function's limit is two minutes."""

PACKAGES_AT_ONCE = 100
"""DeleteModelPackage is throttled at a few a second."""

DEPLOYED = (
    # What, how it is listed, its name, its ARN, how it is deleted; in the order in which they hold each other.
    ("endpoints", "list_endpoints", "Endpoints", "Endpoint"),
    ("endpoint configurations", "list_endpoint_configs", "EndpointConfigs", "EndpointConfig"),
    ("models", "list_models", "Models", "Model"),
)


class AwsRemoval:
    """Implements Removal."""

    def __init__(self, *, estate: Estate) -> None:
        self._estate = estate

    def inventory(self, tenant: Tenant) -> dict[str, int | str]:
        """Return what there is, counted; changes nothing."""
        counts: dict[str, int | str] = {
            what: len(list(self._deployed(tenant, lister, key, kind))) for what, lister, key, kind in DEPLOYED
        }
        counts["model packages"] = len(list(self._packages(tenant)))
        versions = list(self._versions(tenant)) if self._has_bucket(tenant) else []
        counts["object versions"] = sum(len(page) for page in versions)
        counts["storage"] = f"s3://{tenant.bucket}/{tenant.root}"
        counts["role"] = tenant.role_arn
        counts["schedule"] = tenant.retrain_schedule or "none"
        return counts

    # --- what was deployed ------------------------------------------------------------------------------------

    def remove_endpoints(self, tenant: Tenant) -> bool:
        sagemaker = client("sagemaker")
        for _, lister, key, kind in DEPLOYED:
            for name in self._deployed(tenant, lister, key, kind):
                delete = getattr(sagemaker, f"delete_{_snake(kind)}")
                remove(lambda delete=delete, kind=kind, name=name: delete(**{f"{kind}Name": name}))  # type: ignore[misc]
        return False

    def _deployed(self, tenant: Tenant, lister: str, key: str, kind: str) -> Iterator[str]:
        """Yield the names of what is tagged as the tenant's.

        Listed by a part of the name, which the names of the tenant's things hold; decided by the tag, since the
        names of acme10 hold acme too.
        """
        sagemaker = client("sagemaker")
        with translated():
            pages = sagemaker.get_paginator(lister).paginate(NameContains=tenant.tenant_id)
            found = [item for page in pages for item in page[key]]
        for item in found:
            tags = sagemaker.list_tags(ResourceArn=item[f"{kind}Arn"])["Tags"]
            if {"Key": TENANT_TAG, "Value": tenant.tenant_id} in tags:
                yield item[f"{kind}Name"]

    # --- what was registered ----------------------------------------------------------------------------------

    def remove_models(self, tenant: Tenant) -> tuple[int, bool]:
        sagemaker = client("sagemaker")
        count = 0
        for arn in self._packages(tenant):
            if count == PACKAGES_AT_ONCE:
                return count, True
            remove(lambda arn=arn: sagemaker.delete_model_package(ModelPackageName=arn))  # type: ignore[misc]
            count += 1
        remove(lambda: sagemaker.delete_model_package_group(ModelPackageGroupName=tenant.model_group))
        return count, False

    def _packages(self, tenant: Tenant) -> Iterator[str]:
        pages = client("sagemaker").get_paginator("list_model_packages")
        try:
            with translated():
                for page in pages.paginate(ModelPackageGroupName=tenant.model_group):
                    yield from [summary["ModelPackageArn"] for summary in page["ModelPackageSummaryList"]]
        except ClientError as error:
            if code_of(error) not in ABSENT:
                raise

    # --- the rest ---------------------------------------------------------------------------------------------

    def remove_schedule(self, tenant: Tenant) -> None:
        remove(
            lambda: client("scheduler").delete_schedule(
                Name=schedule_name(tenant), GroupName=self._estate.schedule_group
            )
        )

    def remove_objects(self, tenant: Tenant) -> tuple[int, bool]:
        if not self._has_bucket(tenant):
            return 0, False
        s3, count = client("s3"), 0
        for number, page in enumerate(self._versions(tenant)):
            if number == PAGES_AT_ONCE:
                return count, True
            with translated():
                answer = s3.delete_objects(Bucket=tenant.bucket, Delete={"Objects": page, "Quiet": True})
            if answer.get("Errors"):
                first = answer["Errors"][0]
                raise Refused(f"{first['Key']} cannot be deleted: {first.get('Message', first['Code'])}")
            count += len(page)
        with translated():
            uploads = s3.get_paginator("list_multipart_uploads")
            for found in uploads.paginate(Bucket=tenant.bucket, Prefix=tenant.root):
                for upload in found.get("Uploads", []):
                    s3.abort_multipart_upload(Bucket=tenant.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        return count, False

    def _versions(self, tenant: Tenant) -> Iterator[list[dict[str, str]]]:
        """Yield pages of object versions and delete markers."""
        pages = client("s3").get_paginator("list_object_versions")
        with translated():
            for page in pages.paginate(Bucket=tenant.bucket, Prefix=tenant.root):
                found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                if found:
                    yield [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]

    def _has_bucket(self, tenant: Tenant) -> bool:
        return (
            tenant.bucket != "" and looked_up(lambda: client("s3").head_bucket(Bucket=tenant.bucket)) is not None
        )

    def remove_storage(self, tenant: Tenant) -> None:
        """Remove the tenant's own bucket; of the pool only the objects were the tenant's."""
        if tenant.bucket and not tenant.pooled:
            remove(lambda: client("s3").delete_bucket(Bucket=tenant.bucket))

    def remove_role(self, tenant: Tenant) -> None:
        iam = client("iam")
        _, name = role_path_and_name(tenant)
        if tenant.key_arn:
            self._revoke(tenant)
        if looked_up(lambda: iam.get_role(RoleName=name)) is None:
            return
        with translated():
            policies = iam.list_role_policies(RoleName=name)["PolicyNames"]
            attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        for policy in policies:
            remove(lambda policy=policy: iam.delete_role_policy(RoleName=name, PolicyName=policy))  # type: ignore[misc]
        for policy in attached:
            arn = policy["PolicyArn"]
            remove(lambda arn=arn: iam.detach_role_policy(RoleName=name, PolicyArn=arn))  # type: ignore[misc]
        remove(lambda: iam.delete_role(RoleName=name))

    def _revoke(self, tenant: Tenant) -> None:
        kms = client("kms")
        try:
            with translated():
                grants: list[Any] = [
                    grant
                    for page in kms.get_paginator("list_grants").paginate(KeyId=tenant.key_arn)
                    for grant in page["Grants"]
                ]
        except ClientError as error:
            if code_of(error) in ABSENT:
                return
            raise
        for grant in grants:
            if grant.get("Name") == grant_name(tenant):
                grant_id = grant["GrantId"]
                remove(lambda grant_id=grant_id: kms.revoke_grant(KeyId=tenant.key_arn, GrantId=grant_id))  # type: ignore[misc]


def _snake(kind: str) -> str:
    return {"Endpoint": "endpoint", "EndpointConfig": "endpoint_config", "Model": "model"}[kind]
