"""Copies a tenant's objects from the pool into a bucket of its own."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import translated
from trainyard.adapters.aws.estate import Estate
from trainyard.domain.tenants import Tenant

OBJECTS_AT_ONCE = 500
"""Looked at in one call of the function …"""

SECONDS_AT_ONCE = 60
"""… whose limit is two minutes; one object takes what it takes."""

RESULTS = ("models/", "reports/")
Found = dict[str, Any]


class S3Migration:
    """Implements Migration. Newest versions are copied; what they replaced stays behind."""

    def __init__(self, *, estate: Estate) -> None:
        self._estate = estate

    def copy(
        self, source: Tenant, target: Tenant, *, after: str | None, late: bool = False
    ) -> tuple[int, str | None]:
        count, limit = 0, time.monotonic() + SECONDS_AT_ONCE
        for seen, (key, found, there) in enumerate(self._pairs(source, target, after=after), start=1):
            if _lacks(key, found, there, late=late):
                self._copy(source, target, key)
                count += 1
            if seen == OBJECTS_AT_ONCE or time.monotonic() > limit:
                return count, key
        return count, None

    def copy_last(self, source: Tenant, target: Tenant, keys: Sequence[str]) -> None:
        """S3 tells times to the second: what is copied after more than one is newer."""
        if keys:
            time.sleep(1.1)
        for key in keys:
            self._copy(source, target, key)

    def differences(self, source: Tenant, target: Tenant, *, late: bool) -> list[str]:
        return [key for key, found, there in self._pairs(source, target) if _lacks(key, found, there, late=late)]

    def _pairs(
        self, source: Tenant, target: Tenant, *, after: str | None = None
    ) -> Iterator[tuple[str, Found, Found | None]]:
        """Yield keys of the source, what lies there, and what lies at the target; both are listed in one order."""
        others = self._objects(target, after=after)
        other = next(others, None)
        for key, found in self._objects(source, after=after):
            while other is not None and other[0].encode() < key.encode():
                other = next(others, None)
            yield key, found, other[1] if other is not None and other[0] == key else None

    def _copy(self, source: Tenant, target: Tenant, key: str) -> None:
        """Results stay encrypted by the tenant's key; objects above 5 GB are copied in parts."""
        encrypted = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._estate.key_arns(target)[0]}
        results = key.startswith(RESULTS)
        with translated():
            client("s3").copy(
                {"Bucket": source.bucket, "Key": source.root + key},
                target.bucket,
                target.root + key,
                ExtraArgs=encrypted if results else None,
            )

    def _objects(self, tenant: Tenant, *, after: str | None = None) -> Iterator[tuple[str, Found]]:
        """Yield keys below the root and what lies there, in their order."""
        start = {"StartAfter": tenant.root + after} if after else {}
        with translated():
            pages = client("s3").get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=tenant.bucket, Prefix=tenant.root, **start):
                for found in page.get("Contents", []):
                    yield found["Key"].removeprefix(tenant.root), found

    def repoint_models(self, source: Tenant, target: Tenant) -> None:
        sagemaker = client("sagemaker")
        old, new = (f"s3://{tenant.bucket}/{tenant.root}" for tenant in (source, target))
        with translated():
            pages = sagemaker.get_paginator("list_model_packages")
            for page in pages.paginate(ModelPackageGroupName=source.model_group):
                for summary in page["ModelPackageSummaryList"]:
                    arn = summary["ModelPackageArn"]
                    found = sagemaker.describe_model_package(ModelPackageName=arn)
                    specification = found.get("InferenceSpecification", {})
                    moved = [_moved(container, old, new) for container in specification.get("Containers", [])]
                    if moved != specification.get("Containers", []):
                        sagemaker.update_model_package(
                            ModelPackageArn=arn, InferenceSpecification=specification | {"Containers": moved}
                        )


def _moved(container: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    url = container.get("ModelDataUrl", "")
    return container | ({"ModelDataUrl": new + url.removeprefix(old)} if url.startswith(old) else {})


def _lacks(key: str, found: Found, other: Found | None, *, late: bool) -> bool:
    """Tell whether the target lacks an object: has it not, or otherwise; `late`, has it not, or an older one."""
    if other is None or not late:
        return not _same(key, found, other)
    if found["LastModified"] == other["LastModified"]:
        return not _same(key, found, other)
    return bool(found["LastModified"] > other["LastModified"])


def _same(key: str, found: Found, other: Found | None) -> bool:
    """Compare sizes; and entity tags where they are a hash of the content, else times.

    Encrypted by a KMS key, or uploaded in parts, an object has a tag that says nothing of its content.
    """
    if other is None or found["Size"] != other["Size"]:
        return False
    tags = (found["ETag"], other["ETag"])
    if key.startswith(RESULTS) or any("-" in tag for tag in tags):
        return bool(other["LastModified"] >= found["LastModified"])
    return bool(tags[0] == tags[1])
