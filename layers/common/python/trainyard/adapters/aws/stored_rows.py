"""The rows that tenants have stored for batch transforms, and what became of them."""

import json
from dataclasses import dataclass
from datetime import UTC

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.adapters.aws.tenant_objects import DENIED, objects_below, report_at
from trainyard.domain.errors import DataUnavailable, OutcomeUnknown, Throttled
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.parameters import Locations
from trainyard.domain.requests import Content, Outcome, Request
from trainyard.domain.tenants import Tenant
from trainyard.domain.transforms import FOLDER, StoredObject, StoredRows, manifest_of, predictions_of


@dataclass(frozen=True, slots=True)
class S3RowsToPredict:
    """Implements RowsToPredict. A manifest names no versions: a job reads what is under the keys at that time."""

    def find(self, tenant: Tenant, data_set: str, *, hurried: bool = False) -> StoredRows | None:
        try:
            return self._find(tenant, data_set, hurried=hurried)
        except (Throttled, OutcomeUnknown) as error:
            if not hurried:
                raise
            raise DataUnavailable(f"the rows could not be read: {error}") from error
        except ClientError as error:
            code = code_of(error)
            if hurried and (code in DENIED or code.startswith("KMS.")):
                raise DataUnavailable(f"the rows cannot be read: {code}") from error
            raise

    def _find(self, tenant: Tenant, data_set: str, *, hurried: bool) -> StoredRows | None:
        listed = objects_below(tenant, f"{FOLDER}{data_set}/", hurried=hurried)
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

    def write_manifest(self, tenant: Tenant, request: Request, rows: StoredRows, version: ModelVersion) -> None:
        where = Locations.of(tenant, request)
        folder = f"{tenant.root}{FOLDER}{request.data_set}/"
        report = {
            "version": version.version,
            "model_package_arn": version.package_arn,
            "files": len(rows.objects),
            "size_bytes": rows.size_bytes,
        }
        bodies = {
            where.transform: json.dumps(report),
            where.manifest: manifest_of(tenant.bucket, folder, rows.objects),
        }
        with translated():
            for uri, body in bodies.items():
                bucket, _, key = uri.removeprefix("s3://").partition("/")
                client("s3", hurried=True).put_object(Bucket=bucket, Key=key, Body=body.encode())


def transformed(tenant: Tenant, request: Request) -> Outcome:
    """Return what a batch transform was to predict, and where the predictions are."""
    from trainyard.contracts.results import parse_transform

    unread: list[str] = []
    report = report_at(Locations.of(tenant, request).transform, parse_transform, unread)
    return Outcome(
        predictions_uri=predictions_of(tenant, request),
        model_version=report.version if report else None,
        input_files=report.files if report else None,
        report_uri=Locations.of(tenant, request).reports,
        unread="; ".join(unread) or None,
    )
