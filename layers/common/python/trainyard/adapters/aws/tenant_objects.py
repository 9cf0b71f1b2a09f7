"""Objects in the tenants' buckets: how they are listed and read, in bounded time and size."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.domain.arrivals import is_data
from trainyard.domain.errors import Malformed, Refused, Throttled, TrainyardError
from trainyard.domain.tenants import Tenant

ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
OVERTAKEN = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
"""S3's error codes for a conditional write that another one was ahead of."""

OBJECTS_MAX = 10_000
"""Most objects of a data set that is trained on as a whole: what a manifest holds and a pass can list in time."""


LISTED_SECONDS_MAX = 4.0
"""Time for all calls that find out what a run trains on: a pass starts many, and must not wait for one tenant's
storage."""


DENIED = frozenset({"AccessDenied", "InvalidObjectState", "AllAccessDisabled", "NoSuchBucket", "403"})
"""S3's error codes for data that cannot be read as it is now; all codes of KMS (`KMS.…`) count too."""


RESULT_BYTES_MAX = 1024 * 1024
"""The largest report that is read; ours have a few kilobytes."""


def objects_below(
    tenant: Tenant, folder: str, *, hurried: bool, monotonic: Callable[[], float] = time.monotonic
) -> list[dict[str, Any]]:
    """Return the objects below a folder of a tenant's root that are data and not empty.

    Raises Refused for more than a run takes, Throttled when they are not listed in time.
    """
    below = f"{tenant.root}{folder}"
    pages = client("s3", hurried=hurried).get_paginator("list_objects_v2")
    begin, listed = monotonic(), 0
    data: list[dict[str, Any]] = []
    with translated():
        for page in pages.paginate(Bucket=tenant.bucket, Prefix=below):
            objects = page.get("Contents", [])
            listed += len(objects)
            data += [content for content in objects if content["Size"] > 0 and is_data(content["Key"], below)]
            if listed > OBJECTS_MAX:
                raise Refused(
                    f"there are more than {OBJECTS_MAX:,} objects under {folder}: "
                    "combine them into fewer, or split the data set",
                    kind="too many objects",
                )
            if hurried and page.get("IsTruncated") and monotonic() - begin > LISTED_SECONDS_MAX:
                raise Throttled(f"listing its first {listed:,} objects took more than {LISTED_SECONDS_MAX:g} s")
    return data


R = TypeVar("R")


def report_at(uri: str, parse: Callable[[bytes], R], unread: list[str]) -> R | None:
    """Return the content of a report; None when it is missing, or cannot be read: then notes why."""
    bucket, key = split_uri(uri)
    name = key.rpartition("/")[2]
    try:
        with translated():
            stream = client("s3", hurried=True).get_object(Bucket=bucket, Key=key)["Body"]
            body = stream.read(RESULT_BYTES_MAX + 1)
            stream.close()
        if len(body) > RESULT_BYTES_MAX:
            raise Malformed(f"it has more than {RESULT_BYTES_MAX:,} bytes")
        return parse(body)
    except ClientError as error:
        if code_of(error) in ABSENT:
            return None
        unread.append(f"{name} was not read: {code_of(error)}")
    except TrainyardError as error:
        unread.append(f"{name} was not read: {str(error)[:200]}")
    return None


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an S3 URI; the key raw, whatever characters it holds."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
