"""Retraining watch: asks for the trainings that no event asks for.

    age        the newest model of a data set is as old as its settings allow
    failure    its last training failed for a cause that was not the tenant's, some time ago
    quality    its live version fails more of its calls than its settings allow
    captured   what its live model was asked has moved far from what it was trained on
    missed     a time of its schedule has passed, and nothing was heard of it: once, however many have passed

It asks through the queue of intake, which decides as for any other trigger; spread over minutes, so that what is
due for many tenants does not arrive at once. Each training is named by what is due, so a watch that comes twice
asks for the same one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Protocol

from trainyard.application.ports import Retrainings
from trainyard.application.scheduling.captured_inputs import CapturedInputs
from trainyard.application.scheduling.transforms import Models
from trainyard.domain.arrivals import RetrainingAsked
from trainyard.domain.canaries import FAILED_MIN, Calls
from trainyard.domain.captured import CapturedDrift
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.requests import RequestKind
from trainyard.domain.retraining import PastTrainings, Trained, Trigger
from trainyard.domain.retraining_record import RetrainingRecord
from trainyard.domain.schedules import parse_schedule
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.retraining_records import ALL, put_record, record_from, record_key, records_of
from trainyard.persistence.run_history import pasts_of, trainings_from
from trainyard.persistence.store import Item, Store

SPREAD = timedelta(minutes=15)
"""Over which what is asked for is spread: the longest delay of a message (SQS API reference, SendMessage)."""
CALLS_OF = timedelta(hours=1)
"""Of how long before a live version's calls are looked at, and the rest of the hour before that."""
GRACE = timedelta(minutes=30)
"""How long after a time of a schedule, and the minutes over which it is spread, its event may still come."""


PARTS = 12
"""Of the tenants; each is looked at in one of as many runs in an hour."""


class AllTenants(Protocol):
    def all(self) -> Iterable[Tenant]: ...


class CallsOfVersions(Protocol):
    def calls_of(self, version: ModelVersion, since: datetime, now: datetime) -> Calls:
        """Return the calls that a version was asked to answer, from the hour of a time on."""
        ...


@dataclass(slots=True, kw_only=True)
class Watched:
    """What one run has looked at, and asked for."""

    tenants: int = 0
    asked: list[RetrainingAsked] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Tenant → error; it is looked at again an hour later, by the next run of its part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingWatch:
    account_id: str
    store: Store
    tenants: AllTenants
    retrainings: Retrainings
    models: Models
    calls: CallsOfVersions
    captured: CapturedInputs

    def run(
        self, now: datetime, *, part: int | None = None, out_of_time: Callable[[], bool] = lambda: False
    ) -> Watched:
        """Look at those tenants of a part, by default that of this time of the hour, that have something to watch;
        one failing tenant does not affect the others.
        """
        watched = Watched()
        part = now.minute * PARTS // 60 if part is None else part
        tenants = [each for each in self.tenants.all() if _part_of(each) == part and _is_watched(each)]
        # Another one comes first each hour, so that the last ones do not starve where time does not suffice.
        first = int(sha256(f"{now:%Y-%m-%dT%H}".encode()).hexdigest()[:8], 16) % max(len(tenants), 1)
        for tenant in (*tenants[first:], *tenants[:first]):
            if out_of_time():
                break
            watched.tenants += 1
            for look in (self._due, partial(self._moved, out_of_time=out_of_time)):
                try:
                    asked = list(look(tenant, now))
                    if asked:
                        self.retrainings.ask(asked, spread=SPREAD)
                    watched.asked += asked
                except Exception as error:  # one failing tenant, or one way to look, must not affect the others
                    watched.failed[tenant.tenant_id] = f"{type(error).__name__}: {error}"
        return watched

    def _due(self, tenant: Tenant, now: datetime) -> Iterator[RetrainingAsked]:
        """Yield what is due for a tenant, without what was judged before."""
        pasts = dict(pasts_of(self.store, tenant.tenant_id, RequestKind.TRAINING))
        items = dict(records_of(self.store, tenant.tenant_id))
        for data_set, item in pasts.items():
            record = record_from(items.get(data_set))
            for trigger, event_id in _of_history(tenant, data_set, trainings_from(item), now):
                if not record.knows(event_id):
                    yield self._asked(tenant, data_set, trigger, event_id)
        for data_set in pasts:
            event_id = self._failing(tenant, data_set, now)
            if event_id and not record_from(items.get(data_set)).knows(event_id):
                yield self._asked(tenant, data_set, Trigger.QUALITY, event_id)
        texts = {ALL: tenant.retrain_schedule} if tenant.retrain_schedule else {}
        for data_set, text in (texts | tenant.own_schedules).items():
            missed = self._missed(tenant, data_set, text, items, now)
            if missed is not None:
                yield self._asked(tenant, None if data_set == ALL else data_set, Trigger.MISSED, missed)

    def _moved(
        self, tenant: Tenant, now: datetime, *, out_of_time: Callable[[], bool]
    ) -> Iterator[RetrainingAsked]:
        """Yield data sets whose captured inputs have moved far, as long as there is time to compare them."""
        if not any(each.retraining.captured_drift for each in (tenant.settings, *tenant.data_sets.values())):
            return
        items = dict(records_of(self.store, tenant.tenant_id))
        for data_set, item in pasts_of(self.store, tenant.tenant_id, RequestKind.TRAINING):
            trained = trainings_from(item).trained
            if trained is None or not tenant.settings_for(data_set).retraining.captured_drift:
                continue
            event_id = f"captured {trained.request_id}"
            if out_of_time() or record_from(items.get(data_set)).knows(event_id):
                continue
            drift = self._captured(tenant, data_set, trained)
            if drift is not None:
                yield replace(self._asked(tenant, data_set, Trigger.CAPTURED, event_id), detail=drift.text())

    def _captured(self, tenant: Tenant, data_set: str, trained: Trained) -> CapturedDrift | None:
        """Return how captured inputs have moved; None if they have not moved far, or if that is not known."""
        rules = tenant.settings_for(data_set).retraining
        captured = self.captured.compare(tenant, data_set, trained=trained.request_id, since=trained.at)
        drift = captured.drift
        return drift if drift and drift.has_shifted(rules.shift_percent, rules.critical) else None

    def _failing(self, tenant: Tenant, data_set: str, now: datetime) -> str:
        """Return the name of the day on which the live version fails too many calls; "" if it does not."""
        percent = tenant.settings_for(data_set).retraining.failed_calls_percent
        version = self.models.live(tenant.tenant_id, data_set) if percent else None
        if version is None:
            return ""
        calls = self.calls.calls_of(version, now - CALLS_OF, now)
        if calls.failed < FAILED_MIN or calls.share_failed * 100 <= percent:
            return ""
        return f"quality {version.version} {now:%Y-%m-%d}"

    def _missed(
        self, tenant: Tenant, data_set: str, text: str, items: Mapping[str, Item], now: datetime
    ) -> str | None:
        """Return the name of the first time of a schedule that has passed without an event; None if none has."""
        try:
            schedule = parse_schedule(text)
        except Refused:  # `trainyard retraining` and `tenant check` say so
            return None
        item = items.get(data_set)
        record = record_from(item)
        if record.schedule != text or record.schedule_at is None:
            self._begin_to_watch(tenant, data_set, replace(record, schedule=text, schedule_at=now), item)
            return None
        due = next(iter(islice(schedule.due(record.schedule_at), 1)), None)
        latest = timedelta(minutes=schedule.within_minutes) + GRACE
        if due is None or due + latest > now or not schedule.is_on(now):
            return None
        event_id = f"missed {due:%Y-%m-%dT%H:%M}"
        return None if record.knows(event_id) else event_id

    def _begin_to_watch(self, tenant: Tenant, data_set: str, record: RetrainingRecord, item: Item | None) -> None:
        """Keep since when a schedule is watched: of the times before, nothing is known."""
        try:
            self.store.transact([put_record(record_key(tenant.tenant_id, data_set), record, item)])
        except Conflict:  # something asks just now: the next run begins
            return

    def _asked(self, tenant: Tenant, data_set: str | None, trigger: Trigger, event_id: str) -> RetrainingAsked:
        return RetrainingAsked(
            account_id=self.account_id,
            event_id=event_id,
            tenant_id=tenant.tenant_id,
            data_set=data_set,
            trigger=trigger,
        )


def _part_of(tenant: Tenant) -> int:
    return int(sha256(tenant.tenant_id.encode()).hexdigest()[:8], 16) % PARTS


def _is_watched(tenant: Tenant) -> bool:
    """Tell whether anything of a tenant can be due that no event asks for."""
    if tenant.state is not TenantState.ACTIVE:
        return False
    rules = [settings.retraining for settings in (tenant.settings, *tenant.data_sets.values())]
    has_schedule = bool(tenant.retrain_schedule or tenant.own_schedules)
    return has_schedule or any(
        each.age_max_days or each.retry_hours or each.failed_calls_percent or each.captured_drift for each in rules
    )


def _of_history(
    tenant: Tenant, data_set: str, past: PastTrainings, now: datetime
) -> Iterator[tuple[Trigger, str]]:
    """Yield what is due by how the last trainings of a data set ended, with the name of the event that asks."""
    rules, trained, failed = tenant.settings_for(data_set).retraining, past.trained, past.failed
    is_of_aws = failed is not None and failed.is_of_aws and rules.retry_hours > 0
    if failed is not None and is_of_aws and now >= failed.at + timedelta(hours=rules.retry_hours):
        yield Trigger.FAILURE, f"failure {failed.request_id}"
    if trained is not None and rules.age_max_days:
        times = (now - trained.at) // timedelta(days=rules.age_max_days)
        if times:
            yield Trigger.AGE, f"age {trained.request_id} {times}"
