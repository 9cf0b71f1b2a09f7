"""Uploads: addresses to which a tenant's file can be sent, without credentials of AWS."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from trainyard.domain.arrivals import INCOMING, check_file_name, check_welcome
from trainyard.domain.errors import Refused
from trainyard.domain.requests import Content
from trainyard.domain.tenants import Tenant
from trainyard.persistence.policies import Policies

MIB = 1024**2
WHOLE_BYTES_MAX = 64 * MIB
"""Larger files are sent in parts, so that a failure does not cost all that was sent (S3 user guide, "Uploading and
copying objects using multipart upload")."""

PARTS_MAX = 100
"""Of one upload: their addresses are in one answer. S3 takes 10,000."""

PART_BYTES_MIN = 16 * MIB
PART_BYTES_MAX = 5 * 1024**3
"""Of one part (S3 user guide, "Amazon S3 multipart upload limits")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartAddress:
    """Where a part of a file is to be put."""

    number: int
    size_bytes: int
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Where a file is to be put: at one address, or in parts at one each."""

    key: str
    """Of the object that it becomes, in the tenant's bucket."""
    expires_at: datetime
    """Of the addresses."""
    url: str | None = None
    upload_id: str | None = None
    parts: tuple[PartAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was put: its number, and the entity tag with which S3 has answered."""

    number: int
    etag: str


class TenantUploads(Protocol):
    """A tenant's bucket, reached with credentials of that tenant alone."""

    def data_sets(self, tenant: Tenant) -> list[str]:
        """Return the data sets that hold any object; raises Malformed when there are more than can be listed."""
        ...

    def has_data(self, tenant: Tenant, data_set: str) -> bool:
        """Tell whether a data set holds any object."""
        ...

    def whole(self, tenant: Tenant, key: str, size_bytes: int) -> Upload:
        """Return the address for a file of exactly this size."""
        ...

    def in_parts(self, tenant: Tenant, key: str, sizes: list[int]) -> Upload:
        """Begin an upload in parts of these sizes, and return their addresses."""
        ...

    def complete(self, tenant: Tenant, key: str, upload_id: str, parts: list[Part]) -> None:
        """Make one object of the parts; raises Refused where S3 does not take them."""
        ...

    def abort(self, tenant: Tenant, key: str, upload_id: str) -> None:
        """Discard the parts. Idempotent."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    policies: Policies
    storage: TenantUploads

    def data_sets(self, tenant: Tenant) -> list[str]:
        """Return the names of a tenant's data sets: those with data, and those with settings of their own."""
        return sorted({*self.storage.data_sets(tenant), *tenant.data_sets})

    def check_has_data(self, tenant: Tenant, data_set: str) -> None:
        """Raise Refused where there is nothing to train on."""
        if not self.storage.has_data(tenant, data_set):
            raise Refused(f"data set {data_set} has no files yet: upload one, which starts a training by itself")

    def begin(self, tenant: Tenant, data_set: str, name: str, size_bytes: int, now: datetime) -> Upload:
        """Return where to put a file of a data set; raises Refused with the reason why it would be refused."""
        content = content_of(tenant, data_set, name, size_bytes, now)
        check_welcome(tenant, content, self.policies.current())
        if size_bytes <= WHOLE_BYTES_MAX:
            return self.storage.whole(tenant, content.key, size_bytes)
        return self.storage.in_parts(tenant, content.key, part_sizes(size_bytes))

    def complete(self, tenant: Tenant, data_set: str, name: str, upload_id: str, parts: list[Part]) -> None:
        """Make one object of the parts of a file, which is then an upload like any other; raises Refused."""
        self.storage.complete(tenant, _key(tenant, data_set, name), upload_id, parts)

    def abort(self, tenant: Tenant, data_set: str, name: str, upload_id: str) -> None:
        """Discard the parts of a file. Idempotent."""
        self.storage.abort(tenant, _key(tenant, data_set, name), upload_id)


def content_of(tenant: Tenant, data_set: str, name: str, size_bytes: int, now: datetime) -> Content:
    """Return what a file would be in its tenant's bucket; raises Refused for a name that starts no training."""
    return Content(
        bucket=tenant.bucket,
        key=_key(tenant, data_set, name),
        version_id=None,
        etag="",
        sequencer="",
        size_bytes=size_bytes,
        event_time=now,
    )


def part_sizes(size_bytes: int) -> list[int]:
    """Return the sizes of the parts of a file: all but the last alike; raises Refused for too large a file."""
    each = max(PART_BYTES_MIN, -(-size_bytes // PARTS_MAX // MIB) * MIB)
    while each * PARTS_MAX < size_bytes:
        each += MIB
    if each > PART_BYTES_MAX:
        raise Refused(f"the file has {size_bytes:,} bytes, and at most {PART_BYTES_MAX * PARTS_MAX:,} can be sent")
    whole, rest = divmod(size_bytes, each)
    return [each] * whole + ([rest] if rest else [])


def _key(tenant: Tenant, data_set: str, name: str) -> str:
    check_file_name(name)
    return f"{tenant.root}{INCOMING}{data_set}/{name}"
