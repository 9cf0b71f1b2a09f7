"""The rows that tenants have stored for batch transforms, and what became of them."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.tenant_objects import ABSENT, DENIED, OVERTAKEN, objects_below
from trainyard.domain.errors import DataUnavailable, Malformed, OutcomeUnknown, Throttled
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.parameters import Locations
from trainyard.domain.requests import Content, Outcome, Request
from trainyard.domain.tenants import Tenant
from trainyard.domain.transforms import (
    FOLDER,
    Plan,
    StoredObject,
    StoredRows,
    manifest_of,
    plan_folder,
    predictions_of,
)


@dataclass(frozen=True, slots=True)
class S3RowsToPredict:
    """Implements RowsToPredict. A manifest names no versions: a job reads what is under the keys at that time."""

    def find(self, tenant: Tenant, data_set: str) -> StoredRows | None:
        listed = objects_below(tenant, f"{FOLDER}{data_set}/", hurried=False)
        newest = max(listed, key=lambda item: (item["LastModified"], item["Key"]), default=None)
        if newest is None:
            return None
        return StoredRows(
            newest=Content(
                bucket=tenant.bucket,
                key=newest["Key"],
                version_id=None,
                etag=newest["ETag"].strip('"'),
                sequencer="",
                size_bytes=newest["Size"],
                event_time=newest["LastModified"].astimezone(UTC),
            ),
            objects=tuple(
                StoredObject(item["Key"], item["ETag"].strip('"'), item["Size"])
                for item in sorted(listed, key=lambda item: item["Key"])
            ),
        )

    def plan(
        self, tenant: Tenant, data_set: str, content: Content, rows: StoredRows, version: ModelVersion
    ) -> None:
        plan = Plan(
            version=version.version,
            content_type=rows.content_type(),
            files=len(rows.objects),
            size_bytes=rows.size_bytes,
        )
        manifest = manifest_of(tenant.bucket, f"{tenant.root}{FOLDER}{data_set}/", rows.objects)
        # The plan last: what has one has its manifest too.
        for name, body in (("input.manifest", manifest), (PLAN, json.dumps(asdict(plan)))):
            key = f"{plan_folder(tenant, content, data_set)}/{name}"
            try:
                with translated():
                    client("s3").put_object(Bucket=tenant.bucket, Key=key, Body=body.encode(), IfNoneMatch="*")
            except ClientError as error:
                if code_of(error) not in OVERTAKEN:
                    raise  # else it was planned before

    def planned(self, tenant: Tenant, request: Request) -> Plan | None:
        try:
            return _plan_of(tenant, request)
        except (Throttled, OutcomeUnknown) as error:
            raise DataUnavailable(f"the rows could not be read: {error}") from error
        except ClientError as error:
            code = code_of(error)
            if code in DENIED or code.startswith("KMS."):
                raise DataUnavailable(f"the rows cannot be read: {code}") from error
            raise


PLAN = "transform.json"
PLAN_BYTES_MAX = 10_000


def _plan_of(tenant: Tenant, request: Request) -> Plan | None:
    from trainyard.contracts.results import parse_plan

    key = f"{plan_folder(tenant, request.content, request.data_set)}/{PLAN}"
    try:
        with translated():
            stream = client("s3", hurried=True).get_object(Bucket=tenant.bucket, Key=key)["Body"]
            body = stream.read(PLAN_BYTES_MAX)
            stream.close()
        return parse_plan(body)
    except ClientError as error:
        if code_of(error) in ABSENT:
            return None
        raise
    except Malformed:  # the tenant's own jobs can write there
        return None


def transformed(tenant: Tenant, request: Request) -> Outcome:
    """Return what a batch transform was to predict, and where the predictions are."""
    plan = _plan_of(tenant, request)
    return Outcome(
        predictions_uri=predictions_of(tenant, request),
        model_version=plan.version if plan else None,
        input_files=plan.files if plan else None,
        report_uri=Locations.of(tenant, request).reports,
        unread=None if plan else f"{PLAN} was removed, or cannot be read",
    )
