"""Pauses: nothing of the service, of a tier or of a tenant starts until it is resumed; what runs goes on."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from trainyard.application.ports import Bell, Tenants
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Tenant
from trainyard.persistence.book import Book
from trainyard.persistence.policies import Policies

NOTED = "pause of {}"
"""Under which it is noted who paused something, when and why."""


class Pausable(StrEnum):
    ALL = "all"
    TIER = "tier"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Something that is paused."""

    what: Pausable
    name: str | None
    """Of the tier or the tenant."""
    since: datetime | None = None
    """None where it was not noted, as when a state machine has paused a tenant."""
    by: str = ""
    why: str = ""


def pause_of(book: Book, what: Pausable, name: str | None) -> Pause:
    """Return what has been noted about something that is paused."""
    note = book.noted(_note_name(what, name))
    if note is None or not note["paused"]:
        return Pause(what=what, name=name)
    since = datetime.fromisoformat(str(note["at"]))
    return Pause(what=what, name=name, since=since, by=str(note["by"]), why=str(note["why"]))


def _note_name(what: Pausable, name: str | None) -> str:
    return NOTED.format(" ".join(filter(None, (what.value, name))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    policies: Policies
    tenants: Tenants
    scheduler: Scheduler
    bell: Bell

    def pause(self, what: Pausable, name: str | None, now: datetime, *, by: str, why: str = "") -> None:
        """Pause all, or the tier or tenant of a name; raises Refused where there is none. Idempotent."""
        self._set(what, name, now, paused=True)
        self._note(what, name, now, paused=True, by=by, why=why)

    def resume(self, what: Pausable, name: str | None, now: datetime, *, by: str) -> None:
        """Resume what was paused; raises Refused where there is no such tier or tenant. Idempotent.

        A tenant of a paused tier, or of a paused service, still waits for that.
        """
        self._set(what, name, now, paused=False)
        self._note(what, name, now, paused=False, by=by, why="")
        self.bell.ring()

    def check(self, what: Pausable, name: str | None) -> Tenant | None:
        """Raise Refused where there is no such thing; return the tenant, if it is one."""
        if (what is Pausable.ALL) != (name is None):
            raise Refused("a tier or a tenant needs its name, and `all` has none")
        if what is Pausable.TIER and name is not None:
            policy = self.policies.current()
            if policy.tier(name) is None:
                names = ", ".join(tier.name for tier in policy.tiers)
                raise Refused(f"there is no tier {name!r}; the policy has {names}")
        if what is not Pausable.TENANT or name is None:
            return None
        tenant = self.tenants.get(name)
        if tenant is None:
            raise Refused(f"there is no tenant {name!r}; `trainyard tenant list` shows them")
        return tenant

    def _set(self, what: Pausable, name: str | None, now: datetime, *, paused: bool) -> None:
        tenant = self.check(what, name)
        if tenant is not None:
            self.scheduler.operations.set_tenant_paused(tenant.tier, tenant.tenant_id, paused, now)
        else:
            self.scheduler.tables.ledger.set_paused(paused, name)

    def _note(self, what: Pausable, name: str | None, now: datetime, *, paused: bool, by: str, why: str) -> None:
        note = {"paused": paused, "at": now.isoformat(), "by": by, "why": why}
        self.scheduler.tables.book.note(_note_name(what, name), note)
