"""The book of record: all executions with their costs, the totals of each month, and the outbox.

    pk                    sk                                    what
    request#<request>     attempt#<attempt>                     an execution; kept as long as its request
    month#<month>         <tenant>#<tier>#<data set>#<algorithm>  the month's totals; kept for good
    pace#<tenant>         hours                                 what its last hours came to
    todo                  <what>#…                              what is owed: to tell, to read again

An execution is booked in the transaction that ends its attempt, so that it is neither lost nor booked twice. The
index "executions-of-tenant" lists executions by tenant and time of admission, "executions-of-day" by the time at
which they were booked, or corrected.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

from trainyard.domain.estimates import PastRun, teaches
from trainyard.domain.executions import (
    ExecutionRecord,
    JobFacts,
    StepFacts,
    StepRecord,
    month_of,
    next_month,
)
from trainyard.domain.hourly_spend import HourlySpend, booked, is_unusual
from trainyard.domain.prices import JobKind
from trainyard.domain.requests import State
from trainyard.domain.retraining import Failed, Trained
from trainyard.domain.tuning import Tuned
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.outbox import OutboxEntry, entry, entry_key, outbox_entries
from trainyard.persistence.retraining_records import record_key, records_of
from trainyard.persistence.run_history import (
    PastOwner,
    keep_ratios,
    past_from,
    past_key,
    ratios_key,
    remember,
    revision,
    unmoved,
)
from trainyard.persistence.store import Absent, Delete, Is, Item, Key, Put, Store, Update, Write, listed
from trainyard.persistence.transactions import read_items

BOOKS_BEGIN = "2026-01"
"""The first month with records."""

FORGOTTEN_AT_ONCE = 90
"""Items: a transaction takes 100."""

PAGE = 100
"""Items read at once (BatchGetItem takes 100)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The totals of a tenant's runs of one data set with one algorithm in a month."""

    month: str
    tenant_id: str
    tier: str
    data_set: str
    algorithm: str
    executions: int = 0
    succeeded: int = 0
    failed: int = 0
    stopped: int = 0
    usd: Decimal = Decimal(0)
    """The sum of what is known."""
    charged_usd: Decimal = Decimal(0)
    """What budgets were charged: for a run whose cost is not fully known, the amount that it had reserved."""
    saved_usd: Decimal = Decimal(0)
    """By spot instances."""
    unknown: int = 0
    """Steps of which the cost is unknown."""
    seconds: int = 0
    """Billable, summed over steps and instances."""
    data_bytes: int = 0
    """The size of the data set when it was trained on last."""
    calls: int = 0
    """Predictions asked for, of hours that are booked."""
    inference_usd: Decimal = Decimal(0)
    """What they cost; not in `usd`, which is what trainings cost."""

    @property
    def whole_usd(self) -> Decimal:
        """Return what trainings and predictions cost together."""
        return self.usd + self.inference_usd


_COUNTS = ("executions", "succeeded", "failed", "stopped", "unknown", "seconds")
_ENDS = {State.SUCCEEDED: "succeeded", State.FAILED: "failed", State.STOPPED: "stopped"}


# --- booking: what a transaction that ends attempts writes ------------------------------------------------------


def booking_keys(executions: Iterable[ExecutionRecord]) -> list[Key]:
    """Return the keys that must be read to book executions."""
    keys: dict[Key, None] = {}
    for execution in executions:
        keys |= {
            past_key(execution.tenant_id, execution.data_set, execution.kind): None,
            pace_key(execution.tenant_id): None,
        }
        keys |= {ratios_key(execution.tier): None}
    return list(keys)


def bookings(
    executions: Sequence[ExecutionRecord],
    items: Mapping[Key, Item | None],
    now: datetime,
    expires_at: int,
    last: Mapping[Key, Trained | Failed] | None = None,
    tuned: Mapping[Key, Sequence[Tuned]] | None = None,
) -> list[Write]:
    """Return what books executions, each once; `items` is what `booking_keys` named, `last` is key of a history →
    how the last training of its data set ended, `tuned` → what its tunings have found.
    """
    writes: list[Write] = []
    totals: dict[Key, list[ExecutionRecord]] = {}
    pasts: dict[Key, list[PastRun]] = {}
    spent: dict[Key, Decimal] = {}
    for execution in executions:
        writes.append(
            Put(
                execution_key(execution.request_id, execution.attempt),
                execution_item(execution) | {"expires_at": expires_at},
                (Absent("pk"),),
            )
        )
        totals.setdefault(totals_key(execution), []).append(execution)
        pace = pace_key(execution.tenant_id)
        spent[pace] = spent.get(pace, Decimal(0)) + execution.cost_usd
        run = past_run(execution)
        if _is_telling(execution) and teaches(run):
            pasts.setdefault(past_key(execution.tenant_id, execution.data_set, execution.kind), []).append(run)
        if not execution.is_final:
            writes.append(entry("settle", f"{execution.request_id}#{execution.attempt}", _about(execution), now))
    writes += [_add_totals(key, booked_now) for key, booked_now in totals.items()]
    last, tuned = last or {}, tuned or {}
    for key in dict.fromkeys((*pasts, *last, *tuned)):
        writes.append(remember(key, pasts.get(key, ()), items.get(key), last.get(key), tuned.get(key, ())))
    for key, usd in spent.items():
        writes += _keep_pace(key, usd, items.get(key), now)
    return [*writes, *keep_ratios(executions, items)]


def _about(execution: ExecutionRecord) -> Item:
    return {
        "request_id": execution.request_id,
        "attempt": execution.attempt,
        "tenant_id": execution.tenant_id,
        "tier": execution.tier,
    }


def _add_totals(key: Key, executions: Sequence[ExecutionRecord]) -> Update:
    add: dict[str, int | Decimal] = dict.fromkeys((*_COUNTS, "usd", "charged_usd", "saved_usd"), 0)
    for execution in executions:
        for name, amount in _amounts(execution).items():
            add[name] += amount
    return Update(key, set={"data_bytes": executions[-1].data_bytes}, add={n: v for n, v in add.items() if v})


def _amounts(execution: ExecutionRecord) -> dict[str, int | Decimal]:
    steps = execution.steps
    instances = [(step.step.job and step.step.job.instance_count) or 1 for step in steps]
    return {
        "executions": 1,
        _ENDS[execution.state]: 1,
        "usd": execution.cost_usd,
        "charged_usd": execution.charged_usd,
        "saved_usd": sum((step.saved_usd for step in steps), Decimal(0)),
        "unknown": execution.unknown,
        "seconds": sum((step.seconds or 0) * count for step, count in zip(steps, instances, strict=True)),
    }


def _is_telling(execution: ExecutionRecord) -> bool:
    """Tell whether a run says something about others of its data set.

    Its data is complete; of one that failed, its time is enough. One with settings of its own says nothing.
    """
    is_complete = execution.state is not State.SUCCEEDED or (execution.is_final and not execution.unknown)
    return is_complete and not execution.has_overrides


def past_run(execution: ExecutionRecord) -> PastRun:
    return PastRun(
        seconds=execution.seconds,
        job_seconds=execution.job_seconds,
        usd=execution.cost_usd,
        data_bytes=execution.data_bytes,
        profile=execution.profile,
        succeeded=execution.state is State.SUCCEEDED,
    )


def _keep_pace(key: Key, usd: Decimal, item: Item | None, now: datetime) -> list[Write]:
    pace = booked(pace_from(item), usd, now)
    unusual = is_unusual(pace) and not pace.reported
    pace = replace(pace, reported=pace.reported or unusual)
    attributes = {"hour": pace.hour, "usd": pace.usd, "past": list(pace.past), "reported": pace.reported}
    writes: list[Write] = [Put(key, attributes | {"revision": revision(item) + 1}, (unmoved(item),))]
    if unusual:
        tenant_id = key.values[0][1].removeprefix("pace#")
        about = {"tenant_id": tenant_id, "hour": pace.hour, "usd": pace.usd, "usual_usd": pace.usual_max_usd}
        writes.append(entry("pace", f"{tenant_id}#{pace.hour}", about, now))
    return writes


def correction(
    before: ExecutionRecord,
    after: ExecutionRecord,
    items: Mapping[Key, Item | None],
    now: datetime,
    expires_at: int,
) -> list[Write]:
    """Return the writes that correct a record: itself, and all its bookings by the difference.

    `items` is what booking_keys named; its outbox entry is removed.
    """
    assert after.revision == before.revision + 1, "a correction follows what it corrects"
    old, new = _amounts(before), _amounts(after)
    change = {name: new[name] - old[name] for name in new if new[name] != old[name]}
    unmoved = Is("revision", before.revision)
    writes: list[Write] = [
        Put(
            execution_key(after.request_id, after.attempt),
            execution_item(after) | {"expires_at": expires_at},
            (unmoved,),
        )
    ]
    if change:
        writes.append(Update(totals_key(after), add=change))
    if after.state is State.SUCCEEDED and _is_telling(after):  # one that failed is remembered when it is booked
        key = past_key(after.tenant_id, after.data_set, after.kind)
        writes.append(remember(key, [past_run(after)], items.get(key)))
    if after.cost_usd != before.cost_usd:
        key = pace_key(after.tenant_id)
        writes += _keep_pace(key, after.cost_usd - before.cost_usd, items.get(key), now)
    return [*writes, Delete(entry_key(f"settle#{after.request_id}#{after.attempt}"))]


# --- the book ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Reads the records, and corrects them."""

    store: Store

    def executions(self, request_id: str) -> list[ExecutionRecord]:
        """Return the executions of a request, first attempt first."""
        return list(map(execution_from, listed(self.store, "record", f"request#{request_id}", page=PAGE)))

    def executions_of_tenant(self, tenant_id: str, begin: datetime, end: datetime) -> Iterator[ExecutionRecord]:
        """Yield a tenant's executions admitted between two times, oldest first; may lag."""
        return self._listed("executions-of-tenant", tenant_id, stamp(begin), stamp(end))

    def executions_of_month(
        self, tenant_id: str, month: str, begin: datetime, end: datetime, *, limit: int | None = None
    ) -> list[ExecutionRecord]:
        """Return a tenant's executions that belong to a month, at most `limit`; the times bound it, with room for
        clocks.
        """
        room = timedelta(hours=1)
        executions = self.executions_of_tenant(tenant_id, begin - room, end + room)
        return list(islice((each for each in executions if each.month == month), limit))

    def executions_of_day(self, day: str) -> Iterator[ExecutionRecord]:
        """Yield what was booked or corrected on a day, "2026-11-21", in this order; may lag."""
        return self._listed("executions-of-day", day, "", "~")

    def totals(self, month: str, tenant_id: str | None = None) -> Iterator[Totals]:
        """Yield a month's totals: of one tenant, or of all, in the order of their names."""
        above, below = (f"{tenant_id}#", f"{tenant_id}#~") if tenant_id else ("", "~")
        return map(totals_from, listed(self.store, "record", f"month#{month}", above=above, below=below))

    def past(self, tenant_id: str, data_set: str) -> tuple[PastRun, ...]:
        (item,) = self.store.get(past_key(tenant_id, data_set))
        return past_from(item)

    def pasts(self, owners: Iterable[PastOwner]) -> dict[PastOwner, tuple[PastRun, ...]]:
        """Return tenant, data set and kind → past runs, of each of them; read a hundred at a time."""
        keys = {past_key(*owner): owner for owner in owners}
        items = read_items(self.store, keys)
        return {owner: past_from(items[key]) for key, owner in keys.items()}

    def pace(self, tenant_id: str) -> HourlySpend:
        (item,) = self.store.get(pace_key(tenant_id))
        return pace_from(item)

    def outbox_entries(self) -> list[OutboxEntry]:
        """Return the outbox entries, oldest first."""
        return outbox_entries(self.store)

    def done(self, entry: OutboxEntry) -> None:
        """Delete an outbox entry. Idempotent."""
        self.store.transact([Delete(entry_key(entry.name))])

    def forget(self, tenant_id: str, now: datetime) -> bool:
        """Remove all records of a tenant, some at a time; True while some are left."""
        executions = listed(self.store, "executions-of-tenant", tenant_id, page=FORGOTTEN_AT_ONCE)
        executions_page = list(islice(executions, FORGOTTEN_AT_ONCE))
        keys = [Key("record", (("pk", item["pk"]), ("sk", item["sk"]))) for item in executions_page]
        if not keys:
            months = [BOOKS_BEGIN]
            while months[-1] < month_of(now):
                months.append(next_month(months[-1]))
            keys += [totals_key(totals) for month in months for totals in self.totals(month, tenant_id)]
            keys += [pace_key(tenant_id), note_key(f"licence#{tenant_id}")]
        part = keys[:FORGOTTEN_AT_ONCE]
        self.store.transact([Delete(key) for key in part])
        return bool(executions_page) or len(keys) > len(part)

    def forget_trainings(self, tenant_id: str) -> bool:
        """Remove what past trainings of a tenant teach about the next ones, some at a time; True while some are
        left.
        """
        past = listed(self.store, "record", f"past#{tenant_id}", page=FORGOTTEN_AT_ONCE)
        keys = [past_key(tenant_id, item["sk"]) for item in islice(past, FORGOTTEN_AT_ONCE)]
        records = islice(records_of(self.store, tenant_id), FORGOTTEN_AT_ONCE - len(keys))
        keys += [record_key(tenant_id, name) for name, _ in records]
        if keys:
            self.store.transact([Delete(key) for key in keys])
        return len(keys) == FORGOTTEN_AT_ONCE

    def note(self, name: str, values: Mapping[str, Any]) -> None:
        """Store a note under a name."""
        self.store.transact([Put(note_key(name), dict(values))])

    def noted(self, name: str) -> Item | None:
        (item,) = self.store.get(note_key(name))
        return item

    def _listed(self, index: str, partition: str, above: str, below: str) -> Iterator[ExecutionRecord]:
        items = listed(self.store, index, partition, above=above, below=below, page=PAGE)
        while part := [
            Key("record", (("pk", listed_item["pk"]), ("sk", listed_item["sk"])))
            for listed_item in islice(items, PAGE)
        ]:
            yield from (execution_from(item) for item in self.store.get(*part) if item is not None)


def execution_key(request_id: str, attempt: int) -> Key:
    return Key("record", (("pk", f"request#{request_id}"), ("sk", f"attempt#{attempt:04d}")))


def totals_key(of: ExecutionRecord | Totals) -> Key:
    return totals_key_of(of.month, of.tenant_id, of.tier, of.data_set, of.algorithm)


def totals_key_of(month: str, tenant_id: str, tier: str, data_set: str, algorithm: str) -> Key:
    return Key("record", (("pk", f"month#{month}"), ("sk", "#".join((tenant_id, tier, data_set, algorithm)))))


def pace_key(tenant_id: str) -> Key:
    return Key("record", (("pk", f"pace#{tenant_id}"), ("sk", "hours")))


def note_key(name: str) -> Key:
    return Key("record", (("pk", "note"), ("sk", name)))


# --- items ------------------------------------------------------------------------------------------------------

_TIMES = ("admitted_at", "started_at", "ended_at", "recorded_at")
_EXECUTION = tuple(f.name for f in fields(ExecutionRecord) if f.name not in (*_TIMES, "steps", "state"))
_STEP = ("name", "kind", "status", "failure", "job_missing")
_JOB = tuple(f.name for f in fields(JobFacts) if f.name not in ("kind", "started_at", "ended_at", "metrics"))


def execution_item(execution: ExecutionRecord) -> Item:
    """Return the item of an execution, without its key; what is None is left out."""
    item: Item = {name: getattr(execution, name) for name in _EXECUTION}
    item |= {name: stamp(when) for name in _TIMES if (when := getattr(execution, name)) is not None}
    item |= {
        "state": execution.state.value,
        "admitted": f"{stamp(execution.admitted_at)}#{execution.request_id}#{execution.attempt:04d}",
        "recorded_on": stamp(execution.recorded_at)[:10],
        "recorded": f"{stamp(execution.recorded_at)}#{execution.request_id}#{execution.attempt:04d}",
        "steps": [_step_item(step) for step in execution.steps],
    }
    return {name: value for name, value in item.items() if value is not None}


def execution_from(item: Mapping[str, Any]) -> ExecutionRecord:
    values: Item = {name: _whole(item[name]) for name in _EXECUTION if name in item}
    values |= {name: unstamp(item[name]) if name in item else None for name in _TIMES}
    values |= {name: item[name] for name in ("cost_usd", "reserved_usd", "expected_usd") if name in item}
    return ExecutionRecord(**values, state=State(item["state"]), steps=tuple(map(_step_from, item["steps"])))


def _step_item(record: StepRecord) -> Item:
    step, job = record.step, record.step.job
    item: Item = {name: value for name in _STEP if (value := getattr(step, name)) not in (None, False)}
    item |= _times(step.started_at, step.ended_at)
    item |= {"seconds": record.seconds} if record.seconds is not None else {}
    item |= {"cost_usd": record.cost_usd} if record.cost_usd is not None else {}
    item |= {"saved_usd": record.saved_usd} if record.saved_usd else {}
    item |= {"flags": list(record.flags)} if record.flags else {}
    item |= {} if record.is_final else {"is_final": False}
    if job is not None:
        job_item: Item = {name: value for name in _JOB if (value := getattr(job, name)) not in (None, False)}
        job_item |= {"kind": job.kind.value} | _times(job.started_at, job.ended_at)
        # As text, since DynamoDB does not accept every number.
        job_item |= {"metrics": [[name, repr(value)] for name, value in job.metrics]} if job.metrics else {}
        item["job"] = job_item
    return item


def _step_from(item: Mapping[str, Any]) -> StepRecord:
    job = item.get("job")
    facts = None
    if job is not None:
        facts = JobFacts(
            **{name: _whole(job[name]) for name in _JOB if name in job},
            kind=JobKind(job["kind"]),
            started_at=_time(job.get("started_at")),
            ended_at=_time(job.get("ended_at")),
            metrics=tuple((name, float(value)) for name, value in job.get("metrics", ())),
        )
    step = StepFacts(
        **{name: item[name] for name in _STEP if name in item},
        started_at=_time(item.get("started_at")),
        ended_at=_time(item.get("ended_at")),
        job=facts,
    )
    return StepRecord(
        step=step,
        seconds=int(item["seconds"]) if "seconds" in item else None,
        cost_usd=item.get("cost_usd"),
        saved_usd=item.get("saved_usd", Decimal(0)),
        flags=tuple(item.get("flags", ())),
        is_final=bool(item.get("is_final", True)),
    )


def totals_from(item: Mapping[str, Any]) -> Totals:
    tenant_id, tier, data_set, algorithm = item["sk"].split("#")
    return Totals(
        month=item["pk"].removeprefix("month#"),
        tenant_id=tenant_id,
        tier=tier,
        data_set=data_set,
        algorithm=algorithm,
        usd=Decimal(item.get("usd", 0)),
        charged_usd=Decimal(item.get("charged_usd", 0)),
        saved_usd=Decimal(item.get("saved_usd", 0)),
        data_bytes=int(item.get("data_bytes", 0)),
        calls=int(item.get("calls", 0)),
        inference_usd=Decimal(item.get("inference_usd", 0)),
        **{name: int(item.get(name, 0)) for name in _COUNTS},
    )


def _values(item: Item) -> Item:
    return {name: value for name, value in item.items() if name not in ("pk", "sk")}


def pace_from(item: Item | None) -> HourlySpend:
    if item is None:
        return HourlySpend()
    return HourlySpend(
        hour=item["hour"],
        usd=Decimal(item["usd"]),
        past=tuple(map(Decimal, item["past"])),
        reported=bool(item["reported"]),
    )


def _times(begin: datetime | None, end: datetime | None) -> Item:
    times = {"started_at": begin, "ended_at": end}
    return {name: stamp(when.astimezone(UTC)) for name, when in times.items() if when is not None}


def _time(text: str | None) -> datetime | None:
    return unstamp(text) if text else None


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) and value == value.to_integral_value() else value
