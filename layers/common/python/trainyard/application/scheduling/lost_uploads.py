"""Lost uploads: objects under `incoming/` whose events were lost still become requests.

After EventBridge is enabled for a bucket, it takes some minutes until events arrive, and earlier uploads get none
(S3 user guide, "Enabling Amazon EventBridge"); and an event can be lost at any time. So the buckets themselves are
scanned:

    young     every few minutes, while a tenant's bucket is new: its events may not come yet
    all       a few tenants per run, continuing from the last run

An object is known if the request that its event names is: both are named by the object's version.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from trainyard.application.scheduling.intake import Intake, Verdict
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.arrivals import UploadArrived
from trainyard.domain.errors import Conflict
from trainyard.domain.names import request_id
from trainyard.domain.requests import Content
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.store import READ_AT_ONCE, Key, Put, Store
from trainyard.persistence.young_buckets import note_looked, young_buckets

LOOKED_BACK = timedelta(days=30)
"""Older objects have been checked before; their requests may have expired (after 45 days at the earliest)."""

TENANTS_A_RUN = 10
"""About this many tenants are scanned per run, besides the young ones."""

PAGES_A_RUN = 10
"""Pages of a tenant's objects, a thousand versions each; the next run scans the rest."""

ARRIVALS_TOGETHER = 10

_CURSOR = Key("scheduler", (("pk", "sweep"), ("sk", "cursor")))


class Uploads(Protocol):
    """The objects under the tenants' `incoming/`."""

    def page(self, tenant: Tenant, *, since: datetime, after: str | None) -> tuple[list[Content], str | None]:
        """Return some object versions that are data and were written since a time, and where to go on; None at the
        end. Of a data set that is trained on as its newest content only what lies there now.
        """
        ...


class TenantPages(Protocol):
    def get(self, tenant_id: str) -> Tenant | None: ...
    def page(self, *, after: str | None = None, limit: int = 100) -> tuple[list[Tenant], str | None]: ...


@dataclass(slots=True, kw_only=True)
class Sweep:
    """What one run has scanned."""

    tenants: int = 0
    objects: int = 0
    recovered: list[Content] = field(default_factory=list)
    """Uploads without an event."""
    failed: dict[str, str] = field(default_factory=dict)
    """Tenant → error; it is scanned again in the next cycle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostUploads:
    account_id: str
    store: Store
    tenants: TenantPages
    uploads: Uploads
    scheduler: Scheduler
    intake: Intake

    def run(self, now: datetime, *, out_of_time: Callable[[], bool] = lambda: False) -> Sweep:
        """Scan the young buckets, and some of all; uploads without an event arrive now. Safe at any time.

        One failing tenant does not affect the others.
        """
        sweep = Sweep()
        looks: list[Callable[[], bool]] = [
            lambda: self._look_at_young(now, sweep, out_of_time),
            lambda: self._look_at_some_of_all(now, sweep, out_of_time),
        ]
        # Alternate which group comes first, so that many young buckets cannot starve the others.
        if now.minute // 5 % 2:
            looks.reverse()
        all(look() for look in looks)
        return sweep

    def _look_at_young(self, now: datetime, sweep: Sweep, out_of_time: Callable[[], bool]) -> bool:
        """Scan each young bucket, from where its last scan ended; False when time is up."""
        for bucket in young_buckets(self.store, now):
            if out_of_time():
                return False
            tenant = self.tenants.get(bucket.tenant_id)
            if tenant is not None:
                after = self._look(tenant, bucket.after, now, sweep, out_of_time)
                with suppress(Conflict):  # another run has scanned it meanwhile
                    note_looked(self.store, bucket, after, now)
        return True

    def _look_at_some_of_all(self, now: datetime, sweep: Sweep, out_of_time: Callable[[], bool]) -> bool:
        """Scan some tenants, from where the last run ended; False when time is up."""
        young = {bucket.tenant_id for bucket in young_buckets(self.store, now)}
        (item,) = self.store.get(_CURSOR)
        state = item or {}
        after, done, objects = state.get("after"), int(state.get("done", 0)), state.get("objects")
        tenants, following = self.tenants.page(after=after, limit=TENANTS_A_RUN)
        for number, tenant in enumerate(tenants):
            if number < done:
                continue
            if tenant.tenant_id in young:
                objects = None  # of this tenant, not of the next
                continue
            if out_of_time():
                self._keep(after, number, objects)
                return False
            objects = self._look(tenant, objects, now, sweep, out_of_time)
            if objects is not None:
                self._keep(after, number, objects)
                return not out_of_time()
        self._keep(following, 0, None)
        return True

    def _look(
        self, tenant: Tenant, after: str | None, now: datetime, sweep: Sweep, out_of_time: Callable[[], bool]
    ) -> str | None:
        """Scan a tenant's objects from a position on; return where to continue, None at the end.

        The scan stops at the tenant's limit of uploads: the rest is picked up later.
        """
        if tenant.state is not TenantState.ACTIVE:
            return None
        sweep.tenants += 1
        since = max(now - LOOKED_BACK, tenant.watched_from or now - LOOKED_BACK)
        try:
            for page in range(PAGES_A_RUN):
                if page and out_of_time():
                    return after
                contents, following = self.uploads.page(tenant, since=since, after=after)
                sweep.objects += len(contents)
                if not self._arrive(self._unheard_of(tenant, contents), now, tenant, sweep):
                    return after
                after = following
                if after is None:
                    return None
        except Exception as error:  # one failing tenant must not affect the others
            sweep.failed[tenant.tenant_id] = f"{type(error).__name__}: {error}"
            return None
        return after

    def _unheard_of(self, tenant: Tenant, contents: Sequence[Content]) -> list[Content]:
        """Return the contents for which there is no request, accepted or refused."""
        named = {
            request_id(
                tenant_id=tenant.tenant_id,
                bucket=content.bucket,
                key=content.key,
                revision=content.version_id or "",
            ): content
            for content in contents
        }
        ids = list(named)
        for begin in range(0, len(ids), READ_AT_ONCE):
            for request in self.scheduler.tables.requests.get_all(ids[begin : begin + READ_AT_ONCE]):
                del named[request.request_id]
        return list(named.values())

    def _arrive(self, contents: Sequence[Content], now: datetime, tenant: Tenant, sweep: Sweep) -> bool:
        """Let uploads arrive; False as soon as the tenant's limit defers some."""
        for begin in range(0, len(contents), ARRIVALS_TOGETHER):
            part = contents[begin : begin + ARRIVALS_TOGETHER]
            arrivals = [UploadArrived(account_id=self.account_id, content=content) for content in part]
            for content, result in zip(part, self.intake.receive(arrivals, now), strict=True):
                if isinstance(result, Exception):
                    sweep.failed[tenant.tenant_id] = f"{type(result).__name__}: {result}"
                elif any(judgement.verdict is Verdict.DEFERRED for judgement in result):
                    return False
                else:
                    sweep.recovered.append(content)
        return True

    def _keep(self, after: str | None, done: int, objects: str | None) -> None:
        place = {"after": after, "done": done, "objects": objects}
        self.store.transact([Put(_CURSOR, {name: value for name, value in place.items() if value is not None})])
