"""Model versions, one item each, under `serving#<tenant>` / `version#<data set>#<number>`."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime

from trainyard.domain.canaries import Calls
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.serving_settings import serving_from, serving_item
from trainyard.persistence.store import Delete, Is, Item, Key, Put, Store, listed
from trainyard.persistence.transactions import read_items

VersionName = tuple[str, str, int]
"""Tenant, data set and number."""


def version_key(tenant_id: str, data_set: str, version: int) -> Key:
    return Key("scheduler", (("pk", f"serving#{tenant_id}"), ("sk", f"version#{data_set}#{version:08d}")))


@dataclass(frozen=True, slots=True)
class ModelVersions:
    store: Store

    def get(self, tenant_id: str, data_set: str, version: int) -> ModelVersion | None:
        (item,) = self.store.get(version_key(tenant_id, data_set, version))
        return _version_from(item) if item else None

    def get_all(self, names: Iterable[VersionName]) -> dict[VersionName, ModelVersion]:
        """Return the versions of some names, those that exist."""
        keys = {name: version_key(*name) for name in names}
        items = read_items(self.store, keys.values())
        return {name: _version_from(item) for name, key in keys.items() if (item := items[key])}

    def of_data_set(self, tenant_id: str, data_set: str) -> Iterator[ModelVersion]:
        """Yield a data set's versions, the newest first."""
        prefix = f"version#{data_set}#"
        items = listed(
            self.store,
            "scheduler",
            f"serving#{tenant_id}",
            above=prefix,
            below=f"{prefix}~",
            newest_first=True,
        )
        yield from map(_version_from, items)

    def of_tenant(self, tenant_id: str) -> Iterator[ModelVersion]:
        """Yield a tenant's versions, by data set and number."""
        items = listed(self.store, "scheduler", f"serving#{tenant_id}", above="version#", below="version#~")
        yield from map(_version_from, items)

    def put(self, version: ModelVersion, *entries: Put) -> None:
        """Store a version, with entries of the outbox.

        Of two writers the last one counts, since its alias decides what answers.
        """
        key = version_key(version.tenant_id, version.data_set, version.version)
        self.store.transact([Put(key, _item(version)), *entries])

    def replace(self, version: ModelVersion) -> None:
        """Store a version that is there already; raises Refused where it was removed with its tenant."""
        key = version_key(version.tenant_id, version.data_set, version.version)
        try:
            self.store.transact([Put(key, _item(version), (Is("package_arn", version.package_arn),))])
        except Conflict as conflict:
            if not conflict.failed:
                raise
            raise Refused(
                f"version {version.version} of {version.data_set} was removed with its tenant"
            ) from conflict

    def forget(self, version: ModelVersion) -> None:
        self.store.transact([Delete(version_key(version.tenant_id, version.data_set, version.version))])


def _item(version: ModelVersion) -> Item:
    values = {name: value for name, value in asdict(version).items() if value is not None}
    return {name: stamp(value) if isinstance(value, datetime) else value for name, value in values.items()} | {
        "state": version.state.value,
        "serving": serving_item(version.serving),
    }


def _version_from(item: Item) -> ModelVersion:
    return ModelVersion(
        tenant_id=item["tenant_id"],
        data_set=item["data_set"],
        version=int(item["version"]),
        package_arn=item["package_arn"],
        request_id=item["request_id"],
        model_uri=item["model_uri"],
        state=VersionState(item["state"]),
        since=unstamp(item["since"]),
        approved_at=unstamp(item["approved_at"]),
        endpoint=item["endpoint"],
        target=item["target"],
        algorithm=item.get("algorithm", ""),
        model_bytes=int(item.get("model_bytes", 0)),
        image_uri=item.get("image_uri", ""),
        serving=serving_from(item.get("serving")),
        calls_before=_calls_from(item.get("calls_before")),
        live_calls_before=_calls_from(item.get("live_calls_before")),
        beside=int(item["beside"]) if "beside" in item else None,
        reason=item.get("reason"),
        latency_ms=int(item["latency_ms"]) if "latency_ms" in item else None,
    )


def _calls_from(values: Item | None) -> Calls:
    return Calls() if values is None else Calls(int(values["total"]), int(values["failed"]))
