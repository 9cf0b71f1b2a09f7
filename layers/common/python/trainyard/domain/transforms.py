"""Batch transforms: the live model of a data set predicts all rows that its tenant has stored for that."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from trainyard.domain.errors import Refused
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.names import request_id
from trainyard.domain.parameters import Defaults, Locations
from trainyard.domain.requests import Content, Request
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.serving import LIMITS, Mode
from trainyard.domain.tenants import Tenant

FOLDER = "transform/"
"""Below a tenant's root: rows to predict, in a folder for each data set."""

CONTENT_TYPES = {".csv": "text/csv", ".jsonl": "application/jsonlines"}
"""Ending of a key → content type of the object. A job has one for all its objects (SageMaker API reference,
TransformInput)."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object with rows."""

    key: str
    etag: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRows:
    """The rows of a data set that are to be predicted."""

    newest: Content
    objects: tuple[StoredObject, ...]

    @property
    def size_bytes(self) -> int:
        return sum(stored.size_bytes for stored in self.objects)

    @property
    def digest(self) -> str:
        """Return a text that changes with the objects and their contents."""
        content = sorted((stored.key, stored.etag) for stored in self.objects)
        return sha256(json.dumps(content).encode()).hexdigest()

    def content_type(self) -> str:
        """Return what all the objects contain; raises Refused for those that no job can read together."""
        types = {ending_of(stored.key): stored.key for stored in self.objects}
        unreadable = next((key for ending, key in types.items() if ending not in CONTENT_TYPES), None)
        if unreadable is not None:
            raise Refused(
                f"{_name(unreadable)} cannot be read by a batch transform: its name must end in "
                f"{' or '.join(CONTENT_TYPES)}",
                kind="format",
            )
        if len(types) > 1:
            examples = " and ".join(sorted(map(_name, types.values())))
            raise Refused(
                f"there are objects of different types, such as {examples}: keep one type",
                kind="format",
            )
        most = LIMITS[Mode.BATCH_TRANSFORM].request_bytes_max
        large = next((stored for stored in self.objects if stored.size_bytes > most), None)
        if large is not None:
            raise Refused(
                f"{_name(large.key)} has {large.size_bytes:,} bytes, and a batch transform takes {most:,} of an "
                "object: split it, each part with the header line",
                kind="too large",
            )
        return CONTENT_TYPES[next(iter(types))]


def ending_of(key: str) -> str:
    name = _name(key)
    return name[name.rfind(".") :].lower() if "." in name else ""


def _name(key: str) -> str:
    return key.rpartition("/")[2]


MODES = (Mode.BATCH_TRANSFORM, Mode.REAL_TIME, Mode.ASYNCHRONOUS)
"""Whose models batch transforms can use: those of one version alone, and made for instances, where they have no
network. Models of serverless endpoints cannot be cut off from it."""


def check_model(version: ModelVersion | None, data_set: str) -> ModelVersion:
    """Return the live version of a data set; raises Refused where it has none that can predict stored rows."""
    if version is None:
        raise Refused(f"no model of {data_set!r} is live: approve a version of it first", kind="no model")
    if version.serving.mode not in MODES:
        raise Refused(
            f"the models of {data_set!r} are served in mode {version.serving.mode}, and a batch transform needs a "
            f"model of its own that is made for instances: choose --serving {', '.join(MODES[:-1])} or "
            f"{MODES[-1]}, and approve a version",
            kind="no model",
        )
    return version


def transform_id(tenant: Tenant, data_set: str, revision: str) -> str:
    """Return what names a batch transform of a data set.

    `revision` is that of rows and version (`transform_revision`), so that the same are predicted once; or the id
    of the event that asked.
    """
    key = f"{tenant.root}{FOLDER}{data_set}"
    return request_id(tenant_id=tenant.tenant_id, bucket=tenant.bucket, key=key, revision=revision)


def transform_revision(rows: StoredRows, version: ModelVersion) -> str:
    """Return what names a request by its rows and the version that predicts them: the same for the same."""
    return f"{rows.digest} {version.package_arn}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a batch transform predicts, as it was when it was accepted; kept beside its predictions."""

    version: int
    content_type: str
    files: int
    size_bytes: int


def plan_folder(tenant: Tenant, content: Content, data_set: str) -> str:
    """Return where plan and manifest of a transform are, below the tenant's root.

    Its content's `etag` is the id of the request that was accepted; one that is submitted again, because its
    tenant has moved to another tier, has the same plan.
    """
    return f"{tenant.root}reports/{data_set}/{content.etag}"


def predictions_of(tenant: Tenant, request: Request) -> str:
    """Return where the predictions of a request are written: for `a/b.csv`, `a/b.csv.out`."""
    return f"{Locations.of(tenant, request).reports}/predictions"


def transform_parameters(
    request: Request, tenant: Tenant, version: ModelVersion, content_type: str, *, defaults: Defaults
) -> dict[str, str]:
    """Return name → value of every parameter of the pipeline of batch transforms; no value is empty."""
    assert request.tenant_id == tenant.tenant_id == version.tenant_id, "a run belongs to one tenant"
    profile = ResourceProfile.parse(request.profile)
    folder = plan_folder(tenant, request.content, request.data_set)
    return {
        "RequestId": request.request_id,
        "Attempt": str(request.attempt),
        "TenantId": tenant.tenant_id,
        "TierName": request.tier,
        "DataSet": request.data_set,
        "ModelName": version.endpoint,
        "InputDataUri": f"s3://{tenant.bucket}/{folder}/input.manifest",
        "ContentType": content_type,
        "PredictionsUri": predictions_of(tenant, request),
        "OutputKmsKeyId": tenant.key_arn or defaults.key_arn,
        "TransformInstanceType": profile.training[0],
        "TransformInstanceCount": str(profile.instances),
    }


def manifest_of(bucket: str, folder: str, objects: Sequence[StoredObject]) -> str:
    """Return the manifest of objects below a folder (SageMaker API reference, TransformS3DataSource)."""
    return json.dumps(
        [{"prefix": f"s3://{bucket}/{folder}"}, *(stored.key.removeprefix(folder) for stored in objects)]
    )
