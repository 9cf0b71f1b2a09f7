"""API keys of tenants: what is known of each, without its secret.

pk               sk         what
keys#<tenant>    <key id>   name, role, who made it and when, until when it is valid, when it was last used
keys#<tenant>    ~deletion  how far the deletion of the tenant's users has come in the user pool
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from trainyard.domain.api_keys import ApiKey
from trainyard.domain.errors import Conflict, OutcomeUnknown, Throttled
from trainyard.domain.principals import Role
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.store import Absent, Delete, Is, Item, Key, Put, Store, Update, listed

USE_NOTED_EVERY = timedelta(hours=1)
_DELETION = "~deletion"


def key_of(tenant_id: str, key_id: str) -> Key:
    return Key("record", (("pk", f"keys#{tenant_id}"), ("sk", key_id)))


@dataclass(frozen=True, slots=True)
class StoredKeys:
    store: Store

    def get(self, tenant_id: str, key_id: str) -> ApiKey | None:
        (item,) = self.store.get(key_of(tenant_id, key_id))
        return _key_from(item) if item else None

    def of_tenant(self, tenant_id: str) -> list[ApiKey]:
        """Return a tenant's keys, the newest first."""
        keys = [_key_from(item) for item in listed(self.store, "record", f"keys#{tenant_id}", below="~")]
        return sorted(keys, key=lambda key: key.created_at, reverse=True)

    def add(self, key: ApiKey) -> None:
        """Raises Conflict where there is one with the same id."""
        self.store.transact([Put(key_of(key.tenant_id, key.key_id), _item(key), (Absent("pk"),))])

    def note_use(self, key: ApiKey, now: datetime) -> None:
        """Store when a key was last used, to the hour; nothing happens to one that was revoked meanwhile."""
        if key.last_used_at is not None and now - key.last_used_at < USE_NOTED_EVERY:
            return
        place, made = key_of(key.tenant_id, key.key_id), Is("created_at", stamp(key.created_at))
        try:
            self.store.transact([Update(place, set={"last_used_at": stamp(now)}, when=(made,))])
        except (Conflict, Throttled, OutcomeUnknown):
            return  # the call counts, not that it was noted

    def deletion(self, tenant_id: str) -> str | None:
        """Return where the deletion of a tenant's users goes on; None where none is under way."""
        (item,) = self.store.get(key_of(tenant_id, _DELETION))
        return str(item["after"]) if item else None

    def note_deletion(self, tenant_id: str, after: str | None) -> None:
        """Store where the deletion of a tenant's users goes on, or that it has ended."""
        place = key_of(tenant_id, _DELETION)
        self.store.transact([Put(place, {"after": after}) if after else Delete(place)])

    def forget(self, tenant_id: str, key_id: str) -> None:
        """Idempotent."""
        self.store.transact([Delete(key_of(tenant_id, key_id))])


def _item(key: ApiKey) -> Item:
    return {
        "tenant_id": key.tenant_id,
        "name": key.name,
        "role": key.role.value,
        "created_at": stamp(key.created_at),
        "created_by": key.created_by,
        "valid_until": stamp(key.expires_at),  # "expires_at" would let DynamoDB delete it
    }


def _key_from(item: Item) -> ApiKey:
    return ApiKey(
        key_id=item["sk"],
        tenant_id=item["tenant_id"],
        name=item["name"],
        role=Role(item["role"]),
        created_at=unstamp(item["created_at"]),
        created_by=item["created_by"],
        expires_at=unstamp(item["valid_until"]),
        last_used_at=unstamp(item["last_used_at"]) if "last_used_at" in item else None,
    )
