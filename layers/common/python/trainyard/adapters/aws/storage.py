"""The tenants' buckets: data sets, results and receipts."""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.application.records import stamp
from trainyard.domain.arrivals import INCOMING, has_plain_key
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.names import is_data_set
from trainyard.domain.parameters import Locations
from trainyard.domain.receipts import progress_of, receipt_of
from trainyard.domain.requests import Content, Outcome, Request
from trainyard.domain.tenants import Tenant, TrainOn

_ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
COPY_BYTES_MAX = 5 * 1024**3
"""Of a copy in one call (S3 API reference, CopyObject)."""

_OVERTAKEN = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})


class S3DataSets:
    """Implements DataSets."""

    def names(self, tenant: Tenant) -> list[str]:
        prefix = f"{tenant.root}{INCOMING}"
        pages = client("s3").get_paginator("list_objects_v2")
        with translated():
            found = [
                folder["Prefix"].removeprefix(prefix).rstrip("/")
                for page in pages.paginate(Bucket=tenant.bucket, Prefix=prefix, Delimiter="/")
                for folder in page.get("CommonPrefixes", [])
            ]
        return [name for name in found if is_data_set(name)]

    def content_of(self, tenant: Tenant, data_set: str) -> Content | None:
        newest = max(self._objects(tenant, data_set), key=lambda o: (o["LastModified"], o["Key"]), default=None)
        if newest is None:
            return None
        with translated():
            head = client("s3").head_object(Bucket=tenant.bucket, Key=newest["Key"])
        return Content(
            bucket=tenant.bucket,
            key=newest["Key"],
            version_id=head.get("VersionId"),
            etag=head["ETag"].strip('"'),
            sequencer="",
            size_bytes=head["ContentLength"],
            event_time=head["LastModified"].astimezone(UTC),
        )

    def write_manifest(self, tenant: Tenant, request: Request) -> int:
        """A manifest names each object exactly; a prefix would also match `data.csv.bak`.

        Source: SageMaker API reference, S3DataSource, ManifestFile.
        """
        pinned = self._pin(tenant, request) if request.alone else None
        if tenant.settings_for(request.data_set).train_on is TrainOn.NEWEST_OBJECT:
            sizes = {request.content.key: request.content.size_bytes}
        else:
            sizes = {
                found["Key"]: found["Size"]
                for found in self._objects(tenant, request.data_set)
                if has_plain_key(found["Key"])
            }
        if pinned:
            sizes[request.content.key] = request.content.size_bytes
        if not sizes:
            raise Refused(f"there is no data left below {INCOMING}{request.data_set}/")
        folder = tenant.root if pinned else f"{tenant.root}{INCOMING}{request.data_set}/"
        keys = {key: pinned if pinned and key == request.content.key else key for key in sizes}
        manifest = [
            {"prefix": f"s3://{tenant.bucket}/{folder}"},
            *(keys[key].removeprefix(folder) for key in sorted(sizes)),
        ]
        bucket, key = _split(Locations.of(tenant, request).manifest)
        with translated():
            client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(manifest).encode())
        return sum(sizes.values())

    def _pin(self, tenant: Tenant, request: Request) -> str | None:
        """Copy the object version that a request is about, since a manifest cannot name one; return its key.

        None where the bucket keeps no versions: then what lies at the key is trained on.
        """
        content = request.content
        if content.version_id is None:
            return None
        if content.size_bytes > COPY_BYTES_MAX:
            raise Refused(
                f"the object has {content.size_bytes:,} bytes; where every upload is trained on, at most "
                f"{COPY_BYTES_MAX:,} can be: train on the newest alone, or split it"
            )
        bucket, key = _split(f"{Locations.of(tenant, request).reports}/input/{content.key.rpartition('/')[2]}")
        source = {"Bucket": content.bucket, "Key": content.key, "VersionId": content.version_id}
        try:
            with translated():
                client("s3").copy_object(CopySource=source, Bucket=bucket, Key=key)
        except ClientError as error:
            if code_of(error) in _ABSENT | {"NoSuchVersion"}:
                raise Refused(f"version {content.version_id} of {content.key} is gone") from error
            raise
        return key

    def _objects(self, tenant: Tenant, data_set: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of a data set that hold anything."""
        pages = client("s3").get_paginator("list_objects_v2")
        with translated():
            for page in pages.paginate(Bucket=tenant.bucket, Prefix=f"{tenant.root}{INCOMING}{data_set}/"):
                yield from (found for found in page.get("Contents", []) if found["Size"] > 0)


class S3Results:
    """Implements Results."""

    def read(self, tenant: Tenant, request: Request) -> Outcome:
        where = Locations.of(tenant, request)
        evaluation = _read_json(where.evaluation) or {}
        profile = _read_json(where.profile) or {}
        quality = evaluation.get("quality", {})
        files = profile.get("files", [])
        return Outcome(
            quality=_finite(quality.get("value")),
            quality_metric=quality.get("metric"),
            model_uri=where.model if evaluation else None,
            report_uri=where.reports,
            trained_version_id=self._version_read(request.content, files),
            trained_sha256=profile.get("sha256"),
            trained_files=len(files) or None,
        )

    def _version_read(self, content: Content, files: list[dict[str, Any]]) -> str | None:
        """Return the object version that the run read, or None where that cannot be told.

        A single file's MD5 is its entity tag, unless it was uploaded in parts or encrypted with a KMS key.
        """
        if len(files) != 1:
            return None
        if files[0]["md5"] == content.etag:
            return content.version_id
        with translated():
            found = client("s3").list_object_versions(Bucket=content.bucket, Prefix=content.key, MaxKeys=100)
        return next(
            (
                str(version["VersionId"])
                for version in found.get("Versions", [])
                if version["Key"] == content.key and version["ETag"].strip('"') == files[0]["md5"]
            ),
            None,
        )


class S3Receipts:
    """Implements Receipts; a conditional write lets no late writer undo a newer state."""

    TRIES_MAX = 5

    def write(self, tenant: Tenant, request: Request, now: datetime) -> None:
        key = f"{tenant.root}receipts/{request.data_set}/{request.request_id}.json"
        for _ in range(self.TRIES_MAX):
            with suppress(Conflict):
                return self._write_once(tenant.bucket, key, request, now)
        raise Conflict(f"receipt {key} keeps changing")

    def _write_once(self, bucket: str, key: str, request: Request, now: datetime) -> None:
        progress = progress_of(request)
        found = _head(bucket, key)
        if found is not None and _progress_told(found) >= progress:
            return
        condition = {"IfNoneMatch": "*"} if found is None else {"IfMatch": found["ETag"]}
        body = receipt_of(request) | {"written_at": stamp(now)}
        try:
            with translated():
                client("s3").put_object(
                    Bucket=bucket,
                    Key=key,
                    Body=json.dumps(body, indent=2, ensure_ascii=False).encode(),
                    ContentType="application/json",
                    Metadata={"progress": ".".join(map(str, progress))},
                    **condition,
                )
        except ClientError as error:
            if code_of(error) in _OVERTAKEN:
                raise Conflict(f"receipt {key} changed") from error
            raise


def _progress_told(receipt: dict[str, Any]) -> tuple[int, ...]:
    """Return what a receipt tells; () when somebody else wrote the object, which is then replaced."""
    told = receipt["Metadata"].get("progress", "")
    return tuple(int(part) for part in told.split(".") if part.isdecimal())


def _head(bucket: str, key: str) -> dict[str, Any] | None:
    try:
        with translated():
            found: dict[str, Any] = client("s3").head_object(Bucket=bucket, Key=key)
            return found
    except ClientError as error:
        if code_of(error) in _ABSENT:
            return None
        raise


def _read_json(uri: str) -> dict[str, Any] | None:
    bucket, key = _split(uri)
    try:
        with translated():
            body: dict[str, Any] = json.loads(client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
            return body
    except ClientError as error:
        if code_of(error) in _ABSENT:
            return None
        raise


def _finite(value: float | None) -> float | None:
    """Return a number that a table can keep; a score of too few rows is none."""
    return value if value is not None and math.isfinite(value) else None


def _split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an S3 URI; the key raw, whatever characters it holds."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
