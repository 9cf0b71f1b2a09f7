"""Candidates: what arrivals ask for, before it is decided whether that becomes requests."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from trainyard.application.ports import DataSets, Tenants
from trainyard.application.scheduling.transforms import Models, RowsToPredict
from trainyard.domain.arrivals import (
    INCOMING,
    NO_DATA_SET,
    AlarmRang,
    RetrainingAsked,
    TransformAsked,
    UploadArrived,
    batch_end_of,
    check_sender,
    data_set_of,
    is_incoming,
    is_marker,
    retraining_id,
)
from trainyard.domain.errors import Malformed, Refused, TrainyardError
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.names import is_data_set, request_id
from trainyard.domain.policy import Policy
from trainyard.domain.requests import Cause, Content, Overrides, RequestKind
from trainyard.domain.retraining import BatchEnd, Trigger
from trainyard.domain.tenants import Tenant
from trainyard.domain.transforms import FOLDER, StoredRows, check_model, transform_id, transform_revision

NAMED_MAX = 5
"""Missing files of a manifest that a refusal names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An arrival that may become a request."""

    tenant: Tenant
    content: Content
    cause: Cause
    revision: str
    data_set: str | None = None
    refusal: Refused | None = None
    kind: RequestKind = RequestKind.TRAINING
    rows: StoredRows | None = None
    """Of a transform."""
    version: ModelVersion | None = None
    """Of a transform: the one that is to predict."""
    ready_by: datetime | None = None
    priority: int | None = None
    overrides: Overrides | None = None
    trigger: Trigger = Trigger.UPLOAD
    trigger_detail: str = ""
    is_forced: bool = False
    accepts_drift: bool = False
    row_count: int = 0
    """Of an upload, where they are counted."""
    batch_end: Content | None = None
    """The object that says that a batch of files is complete: its version names the request."""

    @property
    def request_id(self) -> str:
        if self.kind is RequestKind.TRANSFORM:
            return transform_id(self.tenant, self.data_set or "", self.revision)
        if self.cause is Cause.RETRAINING and self.batch_end is None:
            return retraining_id(self.tenant.tenant_id, self.data_set, self.revision)
        uploaded = self.batch_end or self.content
        return request_id(
            tenant_id=self.tenant.tenant_id,
            bucket=uploaded.bucket,
            key=uploaded.key,
            revision=self.revision,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Finds out what arrivals ask for."""

    account_id: str
    tenants: Tenants
    data_sets: DataSets
    rows: RowsToPredict
    models: Models

    def of(
        self,
        arrival: UploadArrived | RetrainingAsked | TransformAsked,
        owner: Tenant | None,
        policy: Policy,
        now: datetime,
    ) -> Iterator[Candidate]:
        """Yield what may become requests; raises Malformed, and NoData for an object that is no data."""
        if isinstance(arrival, UploadArrived):
            return self._of_upload(arrival, owner)
        tenant = self.tenant_of(arrival, policy)
        if isinstance(arrival, TransformAsked):
            return self._of_transform(arrival, tenant, now)
        return self._of_retraining(arrival, tenant, now)

    def tenant_of(self, asked: RetrainingAsked | TransformAsked, policy: Policy) -> Tenant:
        """Return the tenant for which an event asks; raises Malformed unless its sender may do so."""
        tenant = self.tenants.get(asked.tenant_id)
        if tenant is None:
            raise Malformed(f"there is no tenant {asked.tenant_id!r}")
        check_sender(asked, tenant, policy, self.account_id)
        return tenant

    def _of_upload(self, upload: UploadArrived, tenant: Tenant | None) -> Iterator[Candidate]:
        content = upload.content
        if tenant is None:
            raise Malformed(f"bucket {content.bucket} belongs to no tenant")
        if not is_incoming(tenant, content.key):
            raise NoData(tenant, "outside incoming/")
        revision = content.version_id or f"{content.etag}/{content.sequencer}"
        batch_end = batch_end_of(tenant, content.key)
        if batch_end is not None:
            yield self._of_batch(tenant, batch_end, content, revision)
            return
        if is_marker(content.key.removeprefix(tenant.root + INCOMING)):
            raise NoData(tenant, "a marker")
        data_set = data_set_or_none(tenant, content.key)
        counted = tenant.settings_for(data_set).retraining.rows > 0
        yield Candidate(
            tenant=tenant,
            content=content,
            cause=Cause.UPLOAD,
            revision=revision,
            row_count=self.data_sets.rows_in(content) if counted else 0,
        )

    def _of_batch(self, tenant: Tenant, data_set: str, end: Content, revision: str) -> Candidate:
        """Return the training for a batch of files that is complete; refused if files of its manifest are not
        there.
        """
        candidate = Candidate(
            tenant=tenant,
            content=end,
            cause=Cause.RETRAINING,
            revision=revision,
            data_set=data_set,
            trigger=Trigger.BATCH,
            batch_end=end,
        )
        try:
            if end.key.endswith(BatchEnd.MANIFEST):
                self._check_manifest(tenant, data_set, end)
            newest = self.data_sets.content_of(tenant, data_set)
        except Refused as refusal:
            return replace(candidate, refusal=refusal)
        if newest is None:
            return replace(candidate, refusal=Refused("the batch has no files with data", kind="no data"))
        return replace(candidate, content=newest)

    def _check_manifest(self, tenant: Tenant, data_set: str, end: Content) -> None:
        below = end.key.removeprefix(f"{tenant.root}{INCOMING}{data_set}/").rpartition("/")[0]
        listed = [f"{below}/{name}" if below else name for name in self.data_sets.read_manifest(end)]
        missing = self.data_sets.missing(tenant, data_set, listed)
        if missing:
            more = f" and {len(missing) - NAMED_MAX} more" if len(missing) > NAMED_MAX else ""
            raise Refused(
                f"{len(missing)} of the {len(listed)} files that the manifest lists are not there, or are empty: "
                f"{', '.join(map(repr, missing[:NAMED_MAX]))}{more}; upload them, and then the manifest again",
                kind="manifest",
            )

    def _of_retraining(self, asked: RetrainingAsked, tenant: Tenant, now: datetime) -> Iterator[Candidate]:
        if asked.data_set is not None and not is_data_set(asked.data_set):
            raise Malformed(f"{asked.data_set!r} is not a valid data set name")
        content = self.data_sets.content_of(tenant, asked.data_set) if asked.data_set else None
        yield Candidate(
            tenant=tenant,
            content=content or _nothing(tenant, INCOMING, asked.data_set, now),
            cause=Cause.RETRAINING,
            revision=asked.event_id,
            data_set=asked.data_set,
            refusal=None if content else Refused("retraining was requested, but there is no data", kind="no data"),
            ready_by=asked.ready_by,
            priority=asked.priority,
            overrides=asked.overrides,
            trigger=asked.trigger,
            trigger_detail=asked.detail,
            is_forced=asked.is_forced,
            accepts_drift=asked.accepts_drift,
        )

    def _of_transform(self, asked: TransformAsked, tenant: Tenant, now: datetime) -> Iterator[Candidate]:
        """Yield the request for predictions: the same one for the same rows and version, unless it is forced."""
        if not is_data_set(asked.data_set):
            raise Malformed(f"{asked.data_set!r} is not a valid data set name")
        candidate = Candidate(
            tenant=tenant,
            content=_nothing(tenant, FOLDER, asked.data_set, now),
            cause=Cause.TRANSFORM,
            kind=RequestKind.TRANSFORM,
            revision=asked.event_id,
            data_set=asked.data_set,
            priority=asked.priority,
        )
        try:
            version = check_model(self.models.live(tenant.tenant_id, asked.data_set), asked.data_set)
            rows = self.rows.find(tenant, asked.data_set)
            if rows is None:
                raise Refused(f"there are no rows under {FOLDER}{asked.data_set}/", kind="no data")
            rows.content_type()
        except Refused as refusal:
            yield replace(candidate, refusal=refusal)
            return
        revision = asked.event_id if asked.is_forced else transform_revision(rows, version)
        yield replace(candidate, content=rows.newest, rows=rows, version=version, revision=revision)


def of_alarm(alarm: AlarmRang, policy: Policy) -> Iterator[RetrainingAsked]:
    """Yield what an alarm asks for: a training of each data set, or of each tenant, that the policy maps it to."""
    targets = [mapping.target_of(alarm.name) for mapping in policy.alarms]
    for tenant_id, data_set in dict.fromkeys(target for target in targets if target is not None):
        yield RetrainingAsked(
            account_id=alarm.account_id,
            event_id=alarm.event_id,
            tenant_id=tenant_id,
            data_set=data_set or None,
            trigger=Trigger.ALARM,
            detail=alarm.name,
        )


class NoData(TrainyardError):
    """A tenant's object that starts no training: the service's own output, a stray file, or a marker."""

    def __init__(self, tenant: Tenant, kind: str) -> None:
        super().__init__(f"{kind}, of tenant {tenant.tenant_id}")
        self.tenant, self.kind = tenant, kind


def data_set_or_none(tenant: Tenant, key: str) -> str:
    """Return the data set of an object, or NO_DATA_SET."""
    try:
        return data_set_of(tenant, key)
    except Refused:
        return NO_DATA_SET


def _nothing(tenant: Tenant, folder: str, data_set: str | None, now: datetime) -> Content:
    """Return a placeholder for the content of an empty data set."""
    return Content(
        bucket=tenant.bucket,
        key=f"{tenant.root}{folder}{data_set or ''}",
        version_id=None,
        etag="",
        sequencer="",
        size_bytes=0,
        event_time=now,
    )
