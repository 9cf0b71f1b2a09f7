"""The ports other than the store, in memory; each keeps what it is given."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from testing.memory_store import MemoryStore
from trainyard.application.ports import AT_ONCE, ExecutionReport, InputData, LastStatistics
from trainyard.application.scheduling.captured_inputs import Captured
from trainyard.domain.arrivals import RetrainingAsked
from trainyard.domain.captured import CapturedDrift
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.receipts import Prospect, progress_of, receipt_of
from trainyard.domain.requests import Content, Outcome, Request, Submission
from trainyard.domain.tenants import RoleState, Tenant, TrainOn
from trainyard.domain.transforms import Plan, StoredRows, plan_folder
from trainyard.domain.unchanged import data_digest
from trainyard.persistence.bell import Hint
from trainyard.persistence.tenants import tenant_item, tenant_key


class MemoryTenants:
    """The tenants' records, which are also written to a store if one is given."""

    def __init__(self, *tenants: Tenant, store: MemoryStore | None = None) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._keys: dict[str, str] = {}
        self._store = store
        for tenant in tenants:
            self._keep(tenant)

    def _keep(self, tenant: Tenant) -> None:
        self._tenants[tenant.tenant_id] = tenant
        if self._store is not None:
            self._store.items[tenant_key(tenant.tenant_id)] = tenant_item(tenant)

    def get(self, tenant_id: str) -> Tenant | None:
        return self._tenants.get(tenant_id)

    def all(self) -> list[Tenant]:
        return list(self._tenants.values())

    def owner_of(self, bucket: str, key: str) -> Tenant | None:
        owners = [t for t in self._tenants.values() if t.bucket == bucket and key.startswith(t.root)]
        return owners[0] if owners else None

    def owners_of(self, objects: Sequence[tuple[str, str]]) -> list[Tenant | None]:
        return [self.owner_of(bucket, key) for bucket, key in objects]

    def put(self, tenant: Tenant) -> Tenant:
        known = self._tenants.get(tenant.tenant_id)
        if (known.revision if known else 0) != tenant.revision:
            raise Conflict(f"the record of tenant {tenant.tenant_id} changed meanwhile")
        after = replace(tenant, revision=tenant.revision + 1)
        self._keep(after)
        return after

    def put_role(self, tenant: Tenant, role: RoleState, since: datetime | None) -> Tenant:
        return self.put(replace(tenant, role=role, role_since=since))

    def claim_key(self, key_arn: str, tenant_id: str, *, instead_of: str | None = None) -> str:
        if self._keys.get(key_arn) in (None, instead_of):
            self._keys[key_arn] = tenant_id
        return self._keys[key_arn]

    def cursor(self) -> str | None:
        return None

    def put_cursor(self, cursor: str | None) -> None:
        """There is only one page here."""

    def forget_location(self, tenant: Tenant) -> None:
        """Locations are part of the records here."""

    def purge(self, tenant: Tenant) -> None:
        self._tenants.pop(tenant.tenant_id, None)
        if self._store is not None:
            self._store.items.pop(tenant_key(tenant.tenant_id), None)

    def page(self, *, after: str | None = None, limit: int = 100) -> tuple[list[Tenant], str | None]:
        """Return twice as many as are asked for, as a scan of items may that could have been something else."""
        ids = sorted(name for name in self._tenants if after is None or f"tenant#{name}" > after)
        some = ids[: 2 * limit]
        return [self._tenants[name] for name in some], f"tenant#{some[-1]}" if len(ids) > len(some) else None


class MemoryTierQueues:
    """Keeps what was sent; refuses the requests named in `full`."""

    def __init__(self) -> None:
        self.sent: list[Submission] = []
        self.full: set[str] = set()

    def send(self, submissions: Sequence[Submission]) -> dict[str, str]:
        self.sent += [s for s in submissions if s.request_id not in self.full]
        return {s.request_id: "full" for s in submissions if s.request_id in self.full}


class MemoryRetrainings:
    """Keeps requested retrainings, and passes each of them to `arrive`."""

    def __init__(self) -> None:
        self.asked: list[RetrainingAsked] = []
        self.arrive: Callable[[RetrainingAsked], object] = lambda _: None

    def ask(self, asked: Sequence[RetrainingAsked], *, spread: timedelta = AT_ONCE) -> None:
        for one in asked:
            self.asked.append(one)
            self.arrive(one)


class MemoryBell:
    def __init__(self) -> None:
        self.rings: list[datetime | None] = []
        """None for an immediate ring, otherwise its time."""
        self.hints: list[tuple[Hint, ...]] = []
        """What each of them names."""

    def ring(self, hints: Sequence[Hint] = ()) -> None:
        self.rings.append(None)
        self.hints.append(tuple(hints))

    def ring_at(self, when: datetime, now: datetime, hints: Sequence[Hint] = ()) -> None:
        self.rings.append(when)
        self.hints.append(tuple(hints))


class MemoryRoles:
    def __init__(self) -> None:
        self.made: list[str] = []

    def make(self, tenant_id: str) -> None:
        self.made.append(tenant_id)


class MemoryDataSets:
    """Objects by tenant and data set, oldest first."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], list[Content]] = {}
        self.first_bytes = b""
        """Of the newest object of each data set."""
        self.statistics: dict[str, LastStatistics] = {}
        """Request → the statistics that it left."""
        self.models_gone: set[str] = set()
        """Requests whose archive is gone."""
        self.manifests: dict[str, tuple[str, ...]] = {}
        """Entity tag of a manifest → the files that it lists."""
        self.rows: dict[str, int] = {}
        """Entity tag → number of rows."""

    def content_of(self, tenant: Tenant, data_set: str) -> Content | None:
        objects = self.objects.get((tenant.tenant_id, data_set), [])
        return objects[-1] if objects else None

    def statistics_of(self, tenant: Tenant, request: Request, trained: str) -> LastStatistics | None:
        return self.statistics.get(trained)

    def has_model(self, tenant: Tenant, request: Request, trained: str) -> bool:
        return trained not in self.models_gone

    def digest(self, tenant: Tenant, data_set: str, content: Content) -> str:
        if tenant.settings_for(data_set).train_on is TrainOn.NEWEST_OBJECT:
            return data_digest([(content.etag, content.size_bytes)])
        stored = self.objects.get((tenant.tenant_id, data_set), [])
        return data_digest((each.etag, each.size_bytes) for each in stored)

    def missing(self, tenant: Tenant, data_set: str, names: Sequence[str]) -> list[str]:
        folder = f"{tenant.root}incoming/{data_set}/"
        stored = {each.key.removeprefix(folder) for each in self.objects.get((tenant.tenant_id, data_set), [])}
        return [name for name in names if name not in stored]

    def read_manifest(self, content: Content) -> tuple[str, ...]:
        return self.manifests[content.etag]

    def rows_in(self, content: Content) -> int:
        return self.rows.get(content.etag, 0)

    def names(self, tenant: Tenant) -> list[str]:
        return sorted(data_set for owner, data_set in self.objects if owner == tenant.tenant_id)

    def write_manifest(self, tenant: Tenant, request: Request) -> InputData:
        if tenant.settings_for(request.data_set).train_on is TrainOn.NEWEST_OBJECT:
            content = request.content
            return InputData(
                content.size_bytes, self.first_bytes, digest=data_digest([(content.etag, content.size_bytes)])
            )
        objects = self.objects.get((tenant.tenant_id, request.data_set), [])
        if not objects:
            raise Refused(f"there is no data left under incoming/{request.data_set}/")
        digest = data_digest((content.etag, content.size_bytes) for content in objects)
        return InputData(sum(content.size_bytes for content in objects), digest=digest)


class MemoryRows:
    """Implements RowsToPredict: what is stored by tenant and data set, and what was planned."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], StoredRows] = {}
        self.plans: dict[str, Plan] = {}
        """Folder → what is predicted."""
        self.fault: Exception | None = None
        """Of the next reads of a plan."""

    def find(self, tenant: Tenant, data_set: str) -> StoredRows | None:
        return self.stored.get((tenant.tenant_id, data_set))

    def plan(
        self, tenant: Tenant, data_set: str, content: Content, rows: StoredRows, version: ModelVersion
    ) -> None:
        plan = Plan(
            version=version.version,
            content_type=rows.content_type(),
            files=len(rows.objects),
            size_bytes=rows.size_bytes,
        )
        self.plans.setdefault(plan_folder(tenant, content, data_set), plan)

    def planned(self, tenant: Tenant, request: Request) -> Plan | None:
        if self.fault is not None:
            raise self.fault
        return self.plans.get(plan_folder(tenant, request.content, request.data_set))


class MemoryModels:
    """Implements Models."""

    def __init__(self) -> None:
        self.alias: dict[tuple[str, str], ModelVersion] = {}
        """Tenant and data set → the live version."""
        self.versions: dict[tuple[str, str, int], ModelVersion] = {}

    def put(self, version: ModelVersion) -> None:
        """Add a version, and let it be the live one."""
        self.alias[version.tenant_id, version.data_set] = version
        self.versions[version.tenant_id, version.data_set, version.version] = version

    def live(self, tenant_id: str, data_set: str) -> ModelVersion | None:
        return self.alias.get((tenant_id, data_set))

    def version(self, tenant_id: str, data_set: str, number: int) -> ModelVersion | None:
        return self.versions.get((tenant_id, data_set, number))


RUNS = ("Executing", "Stopping")


class MemoryExecutions:
    """Starts executions by token; `faults` are raised first, one per call, "lost" ones after they took effect."""

    def __init__(self) -> None:
        self.by_token: dict[str, tuple[str, dict[str, str]]] = {}
        """Token → display name and parameters."""
        self.faults: list[tuple[Exception, bool]] = []
        self.calls = 0
        self.lists_late = False
        """Whether `find` does not find new executions yet."""
        self.stopped: list[str] = []
        self.statuses: dict[str, str] = {}
        """ARN → status of executions that have ended."""
        self.unmanaged: list[str] = []
        """Display names of unmanaged executions."""

    def start(self, *, name: str, token: str, description: str, parameters: dict[str, str]) -> str:
        self.calls += 1
        fault, lost = self.faults.pop(0) if self.faults else (None, False)
        if fault is None or lost:
            self.by_token.setdefault(token, (name, parameters))
        if fault is not None:
            raise fault
        identity = hashlib.sha256(token.encode()).hexdigest()[:12]
        return f"arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/{identity}"

    def started(self, *, since: datetime) -> dict[str, str]:
        if self.lists_late:
            return {}
        return {name: _arn(token) for token, (name, _) in self.by_token.items()}

    def status(self, execution_arn: str) -> str:
        return self.statuses.get(execution_arn, "Executing")

    def running(self, *, since: datetime) -> dict[str, str]:
        ours = {_arn(token): name for token, (name, _) in self.by_token.items()}
        known = ours | {f"arn/{name}": name for name in self.unmanaged}
        return {arn: name for arn, name in known.items() if self.statuses.get(arn, "Executing") in RUNS}

    def stop(self, execution_arn: str) -> None:
        self.stopped.append(execution_arn)


def _arn(token: str) -> str:
    identity = hashlib.sha256(token.encode()).hexdigest()[:12]
    return f"arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/{identity}"


class MemoryReports:
    def __init__(self) -> None:
        self.report = ExecutionReport()
        self.selections: dict[str, str] = {}

    def read(self, execution_arn: str) -> ExecutionReport:
        return self.report

    def selected(self, execution_arn: str) -> str | None:
        return self.selections.get(execution_arn)


class MemoryCapturedInputs:
    def __init__(self) -> None:
        self.drift: CapturedDrift | None = None
        self.asked: list[tuple[str, str, str, datetime]] = []
        """Tenant, data set, training, and since when."""

    def compare(self, tenant: Tenant, data_set: str, *, trained: str, since: datetime) -> Captured:
        self.asked.append((tenant.tenant_id, data_set, trained, since))
        return Captured(request_id=trained, objects=1, unreadable=0, drift=self.drift)


class MemoryAnnotations:
    def __init__(self) -> None:
        self.properties: dict[str, dict[str, str]] = {}
        """Model package → what was added to it."""
        self.failure: Exception | None = None

    def annotate(self, arn: str, properties: Mapping[str, str]) -> None:
        if self.failure is not None:
            raise self.failure
        self.properties.setdefault(arn, {}).update(properties)


class MemoryResults:
    def __init__(self, outcome: Outcome | None = None) -> None:
        self.outcome = outcome or Outcome()

    def read(self, tenant: Tenant, request: Request) -> Outcome:
        return self.outcome


class MemoryRefusedUploads:
    """Keeps the objects that may expire."""

    def __init__(self) -> None:
        self.expiring: list[Content] = []

    def let_expire(self, content: Content) -> None:
        self.expiring.append(content)


class MemoryReceipts:
    """Keeps the newest receipt of each request, in the same order as the real implementation."""

    def __init__(self) -> None:
        self.written: dict[str, dict[str, object]] = {}
        self._progress: dict[str, tuple[int, int]] = {}

    def write(self, tenant: Tenant, request: Request, now: datetime, prospect: Prospect | None = None) -> bool:
        stored, given = self._progress.get(request.request_id, (-1, -1)), progress_of(request)
        receipt, last = receipt_of(request, prospect), self.written.get(request.request_id, {})
        is_news = "waiting" in receipt and receipt["waiting"] != last.get("waiting")
        if stored > given or (stored == given and not is_news):
            return False
        self._progress[request.request_id] = given
        self.written[request.request_id] = receipt
        return True


class MemoryAnnouncements:
    def __init__(self) -> None:
        self.announced: list[Request] = []

        self.told: list[tuple[str, dict[str, Any]]] = []

    def announce(self, request: Request) -> None:
        self.announced.append(request)

    def tell(self, what: str, values: Mapping[str, Any]) -> None:
        self.told.append((what, dict(values)))
