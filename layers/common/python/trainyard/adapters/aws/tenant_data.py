"""A tenant's uploads and results: whatever is done with them is done with credentials of that tenant alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from trainyard.adapters.aws.credentials import MINUTES_MAX, scoped_credentials
from trainyard.adapters.aws.deployment_names import Purpose
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.storage import data_sets_in, has_object
from trainyard.adapters.aws.tenant_objects import ABSENT, DENIED
from trainyard.application.api.uploads import Part, PartAddress, Upload
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Tenant

VALID_SECONDS = MINUTES_MAX * 60 - 60
"""Of an address; it cannot outlive the credentials by which it was signed."""

_NOT_TAKEN = {
    "NoSuchUpload": "there is no such upload: it was completed or discarded",
    "InvalidPart": "a part was not put, or has another entity tag",
    "InvalidPartOrder": "the parts are not in the order of their numbers",
    "EntityTooSmall": "a part other than the last one is too small",
}
"""S3's codes → why it does not make an object of parts (API reference, CompleteMultipartUpload)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantClients:
    """Makes clients of S3 that can do one thing with what is one tenant's."""

    access_role_arn: str
    data_key_arn: str

    def client(self, tenant: Tenant, purpose: Purpose) -> tuple[Any, datetime]:
        """Return a client, and until when addresses that it makes are valid.

        Raises Refused for a tenant that is not active.
        """
        credentials = scoped_credentials(
            tenant,
            access_role_arn=self.access_role_arn,
            data_key_arn=self.data_key_arn,
            purpose=purpose,
            minutes=MINUTES_MAX,
        )
        s3 = boto3.client(
            "s3",
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            aws_session_token=credentials.session_token,
            # Addressed by Region: a new bucket's global address redirects to it, which browsers refuse.
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "virtual"},
                connect_timeout=2,
                read_timeout=10,
            ),
        )
        return s3, credentials.expires_at - timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3TenantResults:
    """Implements TenantResults."""

    clients: TenantClients

    def addresses(self, tenant: Tenant, keys: Sequence[str]) -> tuple[list[str], datetime]:
        s3, expires_at = self.clients.client(tenant, Purpose.READ)
        return [_presigned(s3, "get_object", Bucket=tenant.bucket, Key=key) for key in keys], expires_at

    def read(self, tenant: Tenant, key: str, bytes_max: int) -> bytes | None:
        s3, _ = self.clients.client(tenant, Purpose.READ)
        try:
            with translated():
                body = s3.get_object(Bucket=tenant.bucket, Key=key)["Body"].read(bytes_max + 1)
        except ClientError as error:
            if code_of(error) in ABSENT:
                return None
            if code_of(error) in DENIED:
                raise Refused("it cannot be read: access is denied") from error
            raise
        if len(body) > bytes_max:
            raise Refused(f"it has more than {bytes_max:,} bytes")
        return bytes(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3TenantUploads:
    """Implements TenantUploads."""

    clients: TenantClients

    def data_sets(self, tenant: Tenant) -> list[str]:
        s3, _ = self.clients.client(tenant, Purpose.UPLOAD)
        return data_sets_in(s3, tenant)

    def has_data(self, tenant: Tenant, data_set: str) -> bool:
        s3, _ = self.clients.client(tenant, Purpose.UPLOAD)
        return has_object(s3, tenant, data_set)

    def whole(self, tenant: Tenant, key: str, size_bytes: int) -> Upload:
        s3, expires_at = self.clients.client(tenant, Purpose.UPLOAD)
        url = _presigned(s3, "put_object", Bucket=tenant.bucket, Key=key, ContentLength=size_bytes)
        return Upload(key=key, expires_at=expires_at, url=url)

    def in_parts(self, tenant: Tenant, key: str, sizes: list[int]) -> Upload:
        s3, expires_at = self.clients.client(tenant, Purpose.UPLOAD)
        with translated():
            upload_id = s3.create_multipart_upload(Bucket=tenant.bucket, Key=key)["UploadId"]
        parts = tuple(
            PartAddress(
                number=number,
                size_bytes=size,
                url=_presigned(
                    s3,
                    "upload_part",
                    Bucket=tenant.bucket,
                    Key=key,
                    UploadId=upload_id,
                    PartNumber=number,
                    ContentLength=size,
                ),
            )
            for number, size in enumerate(sizes, start=1)
        )
        return Upload(key=key, expires_at=expires_at, upload_id=upload_id, parts=parts)

    def complete(self, tenant: Tenant, key: str, upload_id: str, parts: list[Part]) -> None:
        s3, _ = self.clients.client(tenant, Purpose.UPLOAD)
        listed = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        with _taken():
            s3.complete_multipart_upload(
                Bucket=tenant.bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": listed}
            )

    def abort(self, tenant: Tenant, key: str, upload_id: str) -> None:
        s3, _ = self.clients.client(tenant, Purpose.UPLOAD)
        try:
            with translated():
                s3.abort_multipart_upload(Bucket=tenant.bucket, Key=key, UploadId=upload_id)
        except ClientError as error:
            if code_of(error) != "NoSuchUpload":
                raise


def _presigned(s3: Any, operation: str, **parameters: Any) -> str:
    return str(s3.generate_presigned_url(operation, Params=parameters, ExpiresIn=VALID_SECONDS))


@contextmanager
def _taken() -> Iterator[None]:
    try:
        with translated():
            yield
    except ClientError as error:
        if code_of(error) in _NOT_TAKEN:
            raise Refused(_NOT_TAKEN[code_of(error)]) from error
        raise
