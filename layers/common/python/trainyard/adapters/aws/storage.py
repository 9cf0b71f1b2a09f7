"""The tenants' buckets: data sets, results and receipts."""

import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.stored_rows import transformed
from trainyard.adapters.aws.tenant_objects import ABSENT, DENIED, OVERTAKEN, objects_below, report_at, split_uri
from trainyard.application.ports import InputData, LastStatistics
from trainyard.domain.arrivals import INCOMING, batch_end_of, is_data, is_marker
from trainyard.domain.errors import (
    Conflict,
    DataUnavailable,
    Malformed,
    OutcomeUnknown,
    Refused,
    Throttled,
    TrainyardError,
)
from trainyard.domain.file_types import COUNTED_BYTES, FIRST_BYTES, rows_of
from trainyard.domain.names import is_data_set
from trainyard.domain.parameters import Locations
from trainyard.domain.receipts import Prospect, is_latest, order_of, progress_of, receipt_of
from trainyard.domain.requests import Cause, Content, Outcome, Request, RequestKind
from trainyard.domain.tenants import Tenant, TrainOn
from trainyard.domain.unchanged import data_digest
from trainyard.persistence.items import stamp

COPY_BYTES_MAX = 5 * 1024**3
"""The largest object that one call can copy (S3 API reference, CopyObject)."""


DATA_SETS_MAX = 5_000
"""Most data sets of a tenant for a retraining of all of them."""

REFUSED_TAG = {"Key": "trainyard:refused", "Value": "true"}
"""What the buckets' lifecycle rules remove after a week (adapters/aws/deployment_names.py, template.yaml)."""

TAGS_MAX = 10
"""Most tags of an object (S3 user guide, "Categorizing your storage using tags")."""


class S3RefusedUploads:
    """Implements RefusedUploads with a tag, in addition to the tenant's own tags."""

    def let_expire(self, content: Content) -> None:
        s3 = client("s3")
        at = {"Bucket": content.bucket, "Key": content.key}
        if content.version_id:
            at["VersionId"] = content.version_id
        try:
            with translated():
                tags = s3.get_object_tagging(**at)["TagSet"]
                # The last of ten tags makes room: the object is about to be deleted.
                own = [tag for tag in tags if tag["Key"] != REFUSED_TAG["Key"]][: TAGS_MAX - 1]
                s3.put_object_tagging(**at, Tagging={"TagSet": [*own, REFUSED_TAG]})
        except ClientError:  # deleted, or access denied: the refusal was reported anyway
            return


def data_sets_in(s3: Any, tenant: Tenant) -> list[str]:
    """Return the data sets that hold any object; raises Malformed when there are more than can be listed."""
    prefix = f"{tenant.root}{INCOMING}"
    data_sets: list[str] = []
    with translated():
        for page in s3.get_paginator("list_objects_v2").paginate(
            Bucket=tenant.bucket, Prefix=prefix, Delimiter="/"
        ):
            data_sets += [
                folder["Prefix"].removeprefix(prefix).rstrip("/") for folder in page.get("CommonPrefixes", [])
            ]
            if len(data_sets) > DATA_SETS_MAX:
                raise Malformed(f"more than {DATA_SETS_MAX:,} data sets: request each by name")
    return [name for name in data_sets if is_data_set(name)]


def has_object(s3: Any, tenant: Tenant, data_set: str) -> bool:
    """Tell whether a data set holds any object."""
    prefix = f"{tenant.root}{INCOMING}{data_set}/"
    with translated():
        page = s3.list_objects_v2(Bucket=tenant.bucket, Prefix=prefix, MaxKeys=1)
    return bool(page.get("Contents"))


class S3DataSets:
    """Implements DataSets. Its calls for a run are hurried, so that slow or inaccessible storage does not delay
    other tenants."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic

    def names(self, tenant: Tenant) -> list[str]:
        return data_sets_in(client("s3"), tenant)

    def content_of(self, tenant: Tenant, data_set: str) -> Content | None:
        objects = self._objects(tenant, data_set, hurried=False)
        newest = max(objects, key=lambda o: (o["LastModified"], o["Key"]), default=None)
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

    def statistics_of(self, tenant: Tenant, request: Request, trained: str) -> LastStatistics | None:
        from trainyard.contracts.drift import parse_columns

        uri = Locations.of(tenant, replace(request, request_id=trained)).statistics
        columns = report_at(uri, parse_columns, [])
        if columns is not None:
            return LastStatistics(uri, columns)
        bucket, key = split_uri(uri)
        try:
            # They may be there, and only the tenant's jobs may decrypt them: a listing needs no right to that.
            with translated():
                page = client("s3", hurried=True).list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        except ClientError:
            return None
        is_there = any(each["Key"] == key for each in page.get("Contents", ()))
        return LastStatistics(uri) if is_there else None

    def has_model(self, tenant: Tenant, request: Request, trained: str) -> bool:
        bucket, key = split_uri(Locations.of(tenant, replace(request, request_id=trained)).model)
        try:
            # Not by HEAD: only the tenant's jobs may decrypt it, and a listing needs no right to that.
            with translated():
                page = client("s3", hurried=True).list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        except (ClientError, Throttled, OutcomeUnknown):
            return False
        return any(each["Key"] == key for each in page.get("Contents", ()))

    def digest(self, tenant: Tenant, data_set: str, content: Content) -> str:
        if tenant.settings_for(data_set).train_on is TrainOn.NEWEST_OBJECT:
            return data_digest([(content.etag, content.size_bytes)])
        return data_digest(_tags_and_sizes(self._objects(tenant, data_set, hurried=False)).values())

    def missing(self, tenant: Tenant, data_set: str, names: Sequence[str]) -> list[str]:
        folder = f"{tenant.root}{INCOMING}{data_set}/"
        stored = {each["Key"].removeprefix(folder) for each in self._objects(tenant, data_set, hurried=False)}
        return [name for name in names if name not in stored]

    def read_manifest(self, content: Content) -> tuple[str, ...]:
        from trainyard.contracts.batch_manifest import MANIFEST_BYTES_MAX, parse_batch_manifest

        body = _whole(content, MANIFEST_BYTES_MAX)
        if body is None:
            raise Refused(
                f"the manifest cannot be read, or has more than {MANIFEST_BYTES_MAX:,} bytes", kind="manifest"
            )
        return parse_batch_manifest(body)

    def rows_in(self, content: Content) -> int:
        body = _first_part(content, COUNTED_BYTES)
        return rows_of(body, content.size_bytes) if body else 0

    def write_manifest(self, tenant: Tenant, request: Request) -> InputData:
        """A manifest names each object exactly; a prefix would also match `data.csv.bak`.

        It cannot name a version: the job reads whatever is stored under the keys at that time, so the size is
        looked up here and checked by the job. Source: SageMaker API reference, S3DataSource, ManifestFile.
        """
        try:
            return self._write_manifest(tenant, request)
        except (Throttled, OutcomeUnknown) as error:
            raise DataUnavailable(f"the data could not be read: {error}") from error
        except ClientError as error:
            code = code_of(error)
            if code in DENIED or code.startswith("KMS."):
                raise DataUnavailable(f"the data cannot be read: {code}") from error
            raise

    def _write_manifest(self, tenant: Tenant, request: Request) -> InputData:
        first_bytes = b""
        # What is asked for is trained on the newest data, also where it is not merged.
        is_of_its_upload = request.alone and request.cause is Cause.UPLOAD
        pinned = self._pin(tenant, request) if is_of_its_upload else None
        if pinned and tenant.settings_for(request.data_set).train_on is TrainOn.NEWEST_OBJECT:
            objects = {request.content.key: (request.content.etag, request.content.size_bytes)}
            first_bytes = self._first_of(request.content)
        elif tenant.settings_for(request.data_set).train_on is TrainOn.NEWEST_OBJECT:
            objects, first_bytes = self._newest(tenant, request)
        else:
            objects = _tags_and_sizes(self._objects(tenant, request.data_set, hurried=True))
        if pinned:
            objects[request.content.key] = (request.content.etag, request.content.size_bytes)
        if not objects:
            raise Refused(f"there is no data left under {INCOMING}{request.data_set}/")
        folder = tenant.root if pinned else f"{tenant.root}{INCOMING}{request.data_set}/"
        keys = {key: pinned if pinned and key == request.content.key else key for key in objects}
        manifest = [
            {"prefix": f"s3://{tenant.bucket}/{folder}"},
            *(keys[key].removeprefix(folder) for key in sorted(objects)),
        ]
        bucket, key = split_uri(Locations.of(tenant, request).manifest)
        with translated():
            client("s3", hurried=True).put_object(Bucket=bucket, Key=key, Body=json.dumps(manifest).encode())
        size_bytes = sum(size for _, size in objects.values())
        return InputData(size_bytes, first_bytes, data_digest(objects.values()))

    def _objects(self, tenant: Tenant, data_set: str, *, hurried: bool) -> list[dict[str, Any]]:
        folder = f"{INCOMING}{data_set}/"
        return objects_below(tenant, folder, hurried=hurried, monotonic=self._monotonic)

    def _newest(self, tenant: Tenant, request: Request) -> tuple[dict[str, tuple[str, int]], bytes]:
        """Return the key that a run reads with the entity tag and size that its object has now, and its first
        bytes; nothing when there is none. One call says both, unless the object is empty or only the run may
        decrypt it.
        """
        key = request.content.key
        if not is_data(key, f"{tenant.root}{INCOMING}{request.data_set}/"):
            raise Refused("the key cannot be read by a job: rename the object, and upload it again")
        at = {"Bucket": tenant.bucket, "Key": key}
        try:
            answer = _beginning_of(at)
            size_bytes = int(answer["ContentRange"].rpartition("/")[2])
            return {key: (answer["ETag"].strip('"'), size_bytes)}, _body_of(answer)
        except ClientError as error:
            if code_of(error) in ABSENT:
                return {}, b""
            if code_of(error) == "InvalidObjectState":  # archived, which a HEAD does not say
                raise
        with translated():
            head = client("s3", hurried=True).head_object(**at)
        return {key: (head["ETag"].strip('"'), int(head["ContentLength"]))}, b""

    def _first_of(self, content: Content) -> bytes:
        """Return the first bytes of an object version; nothing if it is empty, or only the run may decrypt it."""
        at = {"Bucket": content.bucket, "Key": content.key, "VersionId": str(content.version_id)}
        try:
            return _body_of(_beginning_of(at))
        except ClientError:
            return b""

    def _pin(self, tenant: Tenant, request: Request) -> str | None:
        """Copy the object version that a request is about, since a manifest cannot name one; return its key.

        None in a bucket without versions: then the key's current object is trained on. The copy of a tenant with
        a key of its own is encrypted with that key, as its results are.
        """
        content = request.content
        if content.version_id is None:
            return None
        if content.size_bytes > COPY_BYTES_MAX:
            raise Refused(
                f"the object has {content.size_bytes:,} bytes; with every_upload, at most {COPY_BYTES_MAX:,} "
                "are allowed: train only on the newest upload, or split the object"
            )
        bucket, key = split_uri(f"{Locations.of(tenant, request).reports}/input/{content.key.rpartition('/')[2]}")
        source = {"Bucket": content.bucket, "Key": content.key, "VersionId": content.version_id}
        encrypted = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": tenant.key_arn} if tenant.key_arn else {}
        try:
            with translated():
                client("s3").copy_object(CopySource=source, Bucket=bucket, Key=key, **encrypted)
        except ClientError as error:
            if code_of(error) in ABSENT | {"NoSuchVersion"}:
                raise Refused(f"version {content.version_id} of {content.key} no longer exists") from error
            raise
        return key


class S3Uploads:
    """Implements Uploads by version, since a request's id is derived from the version in its event."""

    def page(self, tenant: Tenant, *, since: datetime, after: str | None) -> tuple[list[Content], str | None]:
        folder = f"{tenant.root}{INCOMING}"
        markers = dict(zip(("KeyMarker", "VersionIdMarker"), json.loads(after), strict=True)) if after else {}
        with translated():
            answer = client("s3").list_object_versions(Bucket=tenant.bucket, Prefix=folder, **markers)
        contents = [
            Content(
                bucket=tenant.bucket,
                key=version["Key"],
                version_id=version["VersionId"],
                etag=version["ETag"].strip('"'),
                sequencer="",
                size_bytes=version["Size"],
                event_time=version["LastModified"].astimezone(UTC),
            )
            for version in answer.get("Versions", [])
            if self._counts(tenant, version, folder, since)
        ]
        if not answer.get("IsTruncated"):
            return contents, None
        return contents, json.dumps([answer["NextKeyMarker"], answer["NextVersionIdMarker"]])

    def _counts(self, tenant: Tenant, version: dict[str, Any], folder: str, since: datetime) -> bool:
        data_set = version["Key"].removeprefix(folder).partition("/")[0]
        wanted = version["IsLatest"] or tenant.settings_for(data_set).every_upload
        lies_there = version["VersionId"] != "null" and version["LastModified"] >= since.replace(microsecond=0)
        is_heard = not is_marker(version["Key"].removeprefix(folder)) or batch_end_of(tenant, version["Key"])
        return bool(wanted and lies_there and is_heard)


def _tags_and_sizes(objects: Iterable[dict[str, Any]]) -> dict[str, tuple[str, int]]:
    """Return key → entity tag and size of listed objects."""
    return {each["Key"]: (each["ETag"].strip('"'), each["Size"]) for each in objects}


def _whole(content: Content, bytes_max: int) -> bytes | None:
    """Return an object's bytes; None for a larger one, or one that cannot be read."""
    body = _first_part(content, bytes_max + 1) if content.size_bytes <= bytes_max else None
    return body if body is not None and len(body) <= bytes_max else None


def _first_part(content: Content, bytes_max: int) -> bytes | None:
    """Return the first bytes of an object; None where it cannot be read, or its reading breaks off."""
    at = {"Bucket": content.bucket, "Key": content.key}
    if content.version_id:
        at["VersionId"] = content.version_id
    try:
        with translated():
            body = client("s3").get_object(**at, Range=f"bytes=0-{bytes_max - 1}")["Body"]
            return bytes(body.read(bytes_max))
    except (ClientError, BotoCoreError, OSError):
        return None


def _beginning_of(at: dict[str, str]) -> dict[str, Any]:
    """Return S3's answer with the first bytes of an object."""
    with translated():
        return dict(client("s3", hurried=True).get_object(**at, Range=f"bytes=0-{FIRST_BYTES - 1}"))


def _body_of(answer: dict[str, Any]) -> bytes:
    """Return the body of an answer; nothing if it breaks off, since a run can do without being looked at."""
    try:
        return bytes(answer["Body"].read())
    except (BotoCoreError, OSError):
        return b""


class S3Results:
    """Implements Results. Tries once, for seconds: an end must not wait for what a tenant's own job wrote."""

    def read(self, tenant: Tenant, request: Request) -> Outcome:
        from trainyard.contracts.results import parse_evaluation, parse_profile

        if request.kind is RequestKind.TRANSFORM:
            return transformed(tenant, request)
        where = Locations.of(tenant, request)
        unread: list[str] = []
        evaluation = report_at(where.evaluation, parse_evaluation, unread)
        profile = report_at(where.profile, parse_profile, unread)
        digests = [file.md5 for file in profile.files] if profile else []
        beside = evaluation.champion.as_challenge() if evaluation and evaluation.champion else None
        is_compared = beside is not None and not beside.not_compared
        best = evaluation.tuning if evaluation and request.trials else None
        return Outcome(
            quality=evaluation.quality.value if evaluation else None,
            quality_metric=evaluation.quality.metric if evaluation else None,
            baseline=evaluation.baseline.value if evaluation and evaluation.baseline else None,
            champion=beside.champion if beside else None,
            champion_quality=beside.champion_quality if beside and is_compared else None,
            gain=beside.gain if beside and is_compared else None,
            segment_gain=beside.segment_gain if beside and is_compared else None,
            not_compared=(beside.not_compared or None) if beside else None,
            tuned=best.text() if best else None,
            tuned_score=best.score if best else None,
            tuned_error=best.error if best else None,
            tuned_metric=best.metric if best else None,
            problem=profile.problem if profile else None,
            rows=profile.rows if profile else None,
            rows_dropped=profile.rows_dropped if profile else None,
            notes=profile.notes_shown() if profile else None,
            model_uri=where.model if evaluation else None,
            report_uri=where.reports,
            trained_version_id=self._version_read(request.content, digests),
            trained_sha256=profile.sha256 if profile else None,
            trained_files=len(digests) or None,
            unread="; ".join(unread) or None,
        )

    def _version_read(self, content: Content, digests: list[str]) -> str | None:
        """Return the object version that the run read, or None when it is unknown.

        A single file's MD5 is its entity tag, unless it was uploaded in parts or encrypted with a KMS key.
        """
        if len(digests) != 1:
            return None
        if digests[0] == content.etag:
            return content.version_id
        try:
            with translated():
                answer = client("s3", hurried=True).list_object_versions(
                    Bucket=content.bucket, Prefix=content.key, MaxKeys=100
                )
        except (ClientError, TrainyardError):
            return None
        return next(
            (
                str(version["VersionId"])
                for version in answer.get("Versions", [])
                if version["Key"] == content.key and version["ETag"].strip('"') == digests[0]
            ),
            None,
        )


RECEIPT_TRIES_MAX = 5

EXPECTS = "expects"
"""Metadata of a receipt: a digest of what it says that a waiting request can expect."""


@dataclass(frozen=True, slots=True)
class S3Receipts:
    """Implements Receipts; a conditional write keeps a late writer from overwriting a newer state."""

    hurried: bool = False
    """Whether calls are given up within seconds: for receipts that are written again."""

    def write(self, tenant: Tenant, request: Request, now: datetime, prospect: Prospect | None = None) -> bool:
        """Write a request's receipt, and that of its data set, latest.json, if it is the last one that ended;
        tell whether the request's own was new.

        The request's own is the record: many that end at once may leave an older one of them in latest.json.
        """
        folder = f"{tenant.root}receipts/{request.data_set}"
        receipt = receipt_of(request, prospect)
        body = json.dumps(receipt | {"written_at": stamp(now)}, indent=2, ensure_ascii=False)
        progress = ".".join(map(str, progress_of(request)))
        waiting = json.dumps(receipt["waiting"]) if "waiting" in receipt else ""
        expects = sha256(waiting.encode()).hexdigest()[:16] if waiting else ""
        is_new = self._write(
            tenant.bucket, f"{folder}/{request.request_id}.json", body, "progress", progress, expects
        )
        if is_latest(request):
            order = " ".join(map(str, order_of(request)))
            with suppress(Conflict):
                self._write(tenant.bucket, f"{folder}/latest.json", body, "order", order)
        return is_new

    def _write(self, bucket: str, key: str, body: str, name: str, place: str, expects: str = "") -> bool:
        """Write a receipt unless the stored one has a later place in its order, or says the same; tell whether it
        was written; raises Conflict.
        """
        for _ in range(RECEIPT_TRIES_MAX):
            with suppress(Conflict):
                return self._write_once(bucket, key, body, {name: place, EXPECTS: expects}, name)
        raise Conflict(f"receipt {key} keeps changing")

    def _write_once(self, bucket: str, key: str, body: str, metadata: dict[str, str], name: str) -> bool:
        s3 = client("s3", hurried=self.hurried)
        head = _head(s3, bucket, key)
        if head is not None:
            stored, given = _place_of(head["Metadata"].get(name, "")), _place_of(metadata[name])
            is_news = metadata[EXPECTS] not in ("", head["Metadata"].get(EXPECTS, ""))
            if stored > given or (stored == given and not is_news):
                return False
        condition = {"IfNoneMatch": "*"} if head is None else {"IfMatch": head["ETag"]}
        try:
            with translated():
                s3.put_object(
                    Bucket=bucket,
                    Key=key,
                    Body=body.encode(),
                    ContentType="application/json",
                    Metadata={key: value for key, value in metadata.items() if value},
                    **condition,
                )
        except ClientError as error:
            if code_of(error) in OVERTAKEN:
                raise Conflict(f"receipt {key} changed") from error
            raise
        return True


def _place_of(text: str) -> tuple[tuple[int, str], ...]:
    """Return a receipt's place in its order, numbers as such; () when somebody else wrote it: it is replaced."""
    parts = re.split(r"[. ]", text) if text.isascii() else []
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts if part)


def _head(s3: Any, bucket: str, key: str) -> dict[str, Any] | None:
    try:
        with translated():
            head: dict[str, Any] = s3.head_object(Bucket=bucket, Key=key)
            return head
    except ClientError as error:
        if code_of(error) in ABSENT:
            return None
        raise
