"""Captured inputs of tenants: JSON lines below captured/<data set>/ in their roots."""

import heapq
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.tenant_objects import ABSENT, report_at
from trainyard.application.scheduling.captured_inputs import Captured
from trainyard.contracts.captured import CapturedRows, parse_statistics
from trainyard.domain.captured import compare
from trainyard.domain.parameters import Locations
from trainyard.domain.tenants import Tenant

FOLDER = "captured"
LISTED_MAX, LISTED_SECONDS_MAX = 100_000, 8.0
"""Objects that are listed, in key order; and how long."""
OBJECTS_MAX, OBJECT_BYTES_MAX, BYTES_MAX = 50, 1024 * 1024, 5 * 1024 * 1024
"""Of the newest objects: how many are read, how much of each, and how much of all."""


class S3CapturedInputs:
    """Implements CapturedInputs."""

    def compare(self, tenant: Tenant, data_set: str, *, trained: str, since: datetime) -> Captured:
        where = Locations(root_uri=f"s3://{tenant.bucket}/{tenant.root}", data_set=data_set, request_id=trained)
        nothing = Captured(request_id=trained, objects=0, unreadable=0, drift=None)
        unread: list[str] = []
        before = report_at(where.statistics, parse_statistics, unread)
        if before is None:
            return replace(nothing, problem=unread[0] if unread else "the training has left no statistics")
        try:
            newest, is_complete = _newest(tenant, data_set, since)
        except ClientError as error:
            return replace(nothing, problem=f"its captured inputs cannot be listed: {code_of(error)}")
        read, rows, size = 0, CapturedRows(frozenset(before.kinds)), 0
        for each in newest[:OBJECTS_MAX]:
            if size >= BYTES_MAX or rows.is_full:
                break
            try:
                body = _beginning(tenant.bucket, each["Key"])
            except ClientError as error:
                if code_of(error) in ABSENT:
                    continue
                return replace(nothing, problem=f"its captured inputs cannot be read: {code_of(error)}")
            read, size = read + 1, size + len(body)
            rows.add(_lines(body))
        looked = replace(nothing, objects=read, unreadable=rows.unreadable)
        if not any(rows.rows):
            why = _why_none(read, rows.unreadable, len(rows.rows))
            return replace(looked, problem=why if is_complete else f"{why}; {TOO_MANY}")
        return replace(looked, drift=compare(before, rows.rows, rows.added))


TOO_MANY = f"only the first {LISTED_MAX:,} objects there were looked at: delete old ones"


def _why_none(objects: int, unreadable: int, rows: int) -> str:
    if objects == 0:
        return "nothing was captured since the training"
    if rows:
        return f"none of {rows:,} captured rows has a column of the data set"
    return f"none of its {unreadable} captured lines is a row of JSON, or a line of SageMaker's data capture"


def _newest(
    tenant: Tenant, data_set: str, since: datetime, monotonic: Callable[[], float] = time.monotonic
) -> tuple[list[dict[str, Any]], bool]:
    """Return the newest objects that were written since a time, and whether all were looked at."""
    pages = client("s3", hurried=True).get_paginator("list_objects_v2")
    prefix = f"{tenant.root}{FOLDER}/{data_set}/"
    newest: list[dict[str, Any]] = []
    listed, begun = 0, monotonic()
    with translated():
        for page in pages.paginate(Bucket=tenant.bucket, Prefix=prefix):
            contents = page.get("Contents", [])
            listed += len(contents)
            recent = [each for each in contents if each["Size"] > 0 and each["LastModified"] >= since]
            newest = heapq.nlargest(OBJECTS_MAX, newest + recent, key=lambda o: (o["LastModified"], o["Key"]))
            if page.get("IsTruncated") and (listed >= LISTED_MAX or monotonic() - begun > LISTED_SECONDS_MAX):
                return newest, False
    return newest, True


def _beginning(bucket: str, key: str) -> bytes:
    """Return the first bytes of an object; what breaks off is left out."""
    with translated():
        answer = client("s3", hurried=True).get_object(
            Bucket=bucket, Key=key, Range=f"bytes=0-{OBJECT_BYTES_MAX - 1}"
        )
    try:
        return bytes(answer["Body"].read())
    except (BotoCoreError, OSError):
        return b""


def _lines(body: bytes) -> list[bytes]:
    """Return the whole lines of the beginning of an object."""
    lines = body.split(b"\n")
    return lines[:-1] if len(body) == OBJECT_BYTES_MAX else lines
