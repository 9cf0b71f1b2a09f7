"""Copies a tenant's objects from the pool into a bucket of its own."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.deployment_names import DeploymentNames
from trainyard.adapters.aws.errors import translated
from trainyard.domain.tenants import Tenant

OBJECTS_AT_ONCE = 500
"""Objects checked per call of the function that copies them."""

COMPARED_AT_ONCE = 20_000
"""Objects checked per call when they are only listed."""

SECONDS_AT_ONCE = 60
"""After this time a call returns; the function's limit is two minutes, and copying a large object takes long."""

RESULTS = ("models/", "reports/")
COPIED = "trainyard-copied-version"
"""Metadata key of a copy: the version id of the original."""

HEADERS = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType")
Items = dict[str, Any]


class S3Migration:
    """Implements Migration. Newest versions are copied; what they replaced stays behind."""

    def __init__(self, *, deployment: DeploymentNames) -> None:
        self._deployment = deployment

    def copy(
        self, source: Tenant, target: Tenant, *, after: str | None, late: bool = False
    ) -> tuple[int, str | None]:
        count, limit = 0, time.monotonic() + SECONDS_AT_ONCE
        for seen, (key, source_object, there) in enumerate(self._pairs(source, target, after=after), start=1):
            if self._lacks(source, target, key, source_object, there, late=late):
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

    def differences(
        self, source: Tenant, target: Tenant, *, after: str | None, late: bool
    ) -> tuple[list[str], str | None]:
        lacking, limit = [], time.monotonic() + SECONDS_AT_ONCE
        for seen, (key, source_object, there) in enumerate(self._pairs(source, target, after=after), start=1):
            if self._lacks(source, target, key, source_object, there, late=late):
                lacking.append(key)
            if seen == COMPARED_AT_ONCE or time.monotonic() > limit:
                return lacking, key
        return lacking, None

    def _pairs(
        self, source: Tenant, target: Tenant, *, after: str | None = None
    ) -> Iterator[tuple[str, Items, Items | None]]:
        """Yield keys of the source, what lies there, and what lies at the target; both are listed in one order."""
        others = self._objects(target, after=after)
        other = next(others, None)
        for key, source_object in self._objects(source, after=after):
            while other is not None and other[0].encode() < key.encode():
                other = next(others, None)
            yield key, source_object, other[1] if other is not None and other[0] == key else None

    def _copy(self, source: Tenant, target: Tenant, key: str) -> None:
        """Copy one version, and note its id in the copy's metadata. Results stay encrypted with the tenant's key.

        A large object is copied in parts, which loses its tags and may take long.
        """
        s3 = client("s3")
        at = {"Bucket": source.bucket, "Key": source.root + key}
        with translated():
            head = s3.head_object(**at)
            headers = {name: head[name] for name in HEADERS if head.get(name)}
            with_change = {**head.get("Metadata", {}), COPIED: head.get("VersionId", "")}
            encrypted = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._deployment.key_arns(target)[0]}
            s3.copy(
                at | ({"VersionId": head["VersionId"]} if "VersionId" in head else {}),
                target.bucket,
                target.root + key,
                ExtraArgs={"Metadata": with_change, "MetadataDirective": "REPLACE"}
                | headers
                | (encrypted if key.startswith(RESULTS) else {}),
            )

    def _lacks(
        self, source: Tenant, target: Tenant, key: str, source_object: Items, other: Items | None, *, late: bool
    ) -> bool:
        """Tell whether an object must be copied: it is missing at the target, or differs; with `late`, one
        that was written at the target itself is kept.

        No run changes results meanwhile, so comparing their sizes is enough. Uploads are compared by entity tag,
        else by the version id in the copy's metadata. Times are no criterion: a multipart upload has the time at
        which it began.
        """
        if other is None:
            return True
        same_size = source_object["Size"] == other["Size"]
        if same_size and (key.startswith(RESULTS) or source_object["ETag"] == other["ETag"]):
            return False
        if not same_size and not late:
            return True
        return self._gives_way(source, target, key, source_object, other)

    def _gives_way(self, source: Tenant, target: Tenant, key: str, source_object: Items, other: Items) -> bool:
        """Tell whether the target's object is a copy of another version, or an older upload."""
        s3 = client("s3")
        with translated():
            there = s3.head_object(Bucket=target.bucket, Key=target.root + key)
            copied = there.get("Metadata", {}).get(COPIED)
            if copied is None:
                return bool(source_object["LastModified"] > other["LastModified"])
            here = s3.head_object(Bucket=source.bucket, Key=source.root + key)
        return bool(copied != here.get("VersionId", ""))

    def _objects(self, tenant: Tenant, *, after: str | None = None) -> Iterator[tuple[str, Items]]:
        """Yield keys below the root and what lies there, in their order."""
        start = {"StartAfter": tenant.root + after} if after is not None else {}
        with translated():
            pages = client("s3").get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=tenant.bucket, Prefix=tenant.root, **start):
                for content in page.get("Contents", []):
                    key = content["Key"].removeprefix(tenant.root)
                    if key:  # the console makes a root an object when it "creates the folder"
                        yield key, content

    def repoint_models(self, source: Tenant, target: Tenant) -> None:
        sagemaker = client("sagemaker")
        old, new = (f"s3://{tenant.bucket}/{tenant.root}" for tenant in (source, target))
        with translated():
            pages = sagemaker.get_paginator("list_model_packages")
            for page in pages.paginate(ModelPackageGroupName=source.model_group):
                for summary in page["ModelPackageSummaryList"]:
                    arn = summary["ModelPackageArn"]
                    package = sagemaker.describe_model_package(ModelPackageName=arn)
                    specification = package.get("InferenceSpecification", {})
                    moved = [_moved(container, old, new) for container in specification.get("Containers", [])]
                    if moved != specification.get("Containers", []):
                        sagemaker.update_model_package(
                            ModelPackageArn=arn, InferenceSpecification=specification | {"Containers": moved}
                        )


def _moved(container: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    url = container.get("ModelDataUrl", "")
    return container | ({"ModelDataUrl": new + url.removeprefix(old)} if url.startswith(old) else {})
