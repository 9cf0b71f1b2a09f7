"""Inference: calls are answered by what the alias names and counted; each hour is divided to a millionth."""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import count
from typing import IO, Any

import pytest

from testing.memory_ports import MemoryTenants
from testing.memory_store import MemoryStore
from testing.service import PRICES
from tests.build import NOW, hard, policy, tenant, tier
from tests.unit.test_book import Harness as Books
from tests.unit.test_functions import Context, load
from trainyard.application.billing.charges import charge
from trainyard.application.billing.inference import BilledEndpoint, InferenceBooking, Owner, Unreadable
from trainyard.application.billing.outbox import A_RUN
from trainyard.application.billing.usage import Usage
from trainyard.application.serving.ports import Response
from trainyard.application.serving.prediction import Call, Predictor
from trainyard.contracts.serving import parse_predict_command, parse_prediction
from trainyard.domain.alias_events import AliasChange, AliasEvent
from trainyard.domain.aliases import Alias, Environment
from trainyard.domain.canaries import Calls as CallsOfVersion
from trainyard.domain.canaries import Calls as VersionCalls
from trainyard.domain.errors import Conflict, Malformed, OutcomeUnknown, Refused, Throttled
from trainyard.domain.hourly_spend import hour_of
from trainyard.domain.inference import (
    Capacity,
    CountChange,
    EndpointHour,
    EndpointUse,
    Reservation,
    capacity_of,
    divided,
    instances_in,
    seconds_in,
)
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.policy import Policy, TenantPolicy
from trainyard.domain.prices import rounded
from trainyard.domain.serving import Isolation, Mode, ServingSettings
from trainyard.domain.tenants import TenantState
from trainyard.entrypoints import bootstrap
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.inference import InferenceBook
from trainyard.persistence.model_versions import ModelVersions
from trainyard.persistence.outbox import OutboxEntry, model_entry, spending_entry
from trainyard.persistence.store import Update, Write

GIB = 1024**3
LARGE = Capacity(cpus=2, memory_bytes=8 * GIB)
HOUR = EndpointHour(
    endpoint="trainyard-shared-linear",
    arn="arn:e",
    hour="2026-11-21T10",
    instance_type="ml.m5.large",
    instance_count=1,
    seconds=3600,
    usd=Decimal("0.115"),
)


def use(tenant_id: str = "acme", **changes: Any) -> EndpointUse:
    values: dict[str, Any] = {"data_set": "churn", "tier": "basic", "algorithm": "linear", "calls": 1}
    return EndpointUse(tenant_id=tenant_id, **values | changes)


# --- how an hour is divided -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instance_type", "cpus", "gib"),
    [
        ("ml.m5.large", 2, 8),
        ("ml.m5.24xlarge", 96, 384),
        ("ml.c5.9xlarge", 36, 72),
        ("ml.c5.18xlarge", 72, 144),
        ("ml.r5.2xlarge", 8, 64),
        ("ml.g4dn.xlarge", 4, 16),
        ("ml.t2.medium", 2, 4),
        ("ml.t2.2xlarge", 8, 32),
    ],
)
def test_the_capacity_of_instances_is_that_of_the_price_list(instance_type: str, cpus: int, gib: int) -> None:
    assert capacity_of(instance_type) == Capacity(cpus=cpus, memory_bytes=gib * GIB)


def test_of_other_instances_it_is_not_known() -> None:
    assert [capacity_of(name) for name in ("ml.inf1.xlarge", "ml.t2.xxlarge", "ml.m5.metal")] == [None] * 3


def test_a_share_is_half_by_time_and_half_by_memory() -> None:
    busy = use(milliseconds=3_600_000)  # one of two CPUs, all the time
    (usd,), idle = divided(Decimal("0.115"), HOUR, [busy], LARGE)
    of_memory = Fraction(160 * 1024**2, 8 * GIB)
    assert (
        Fraction(usd) <= Fraction("0.115") / 2 * (Fraction(1, 2) + of_memory) < Fraction(usd) + Fraction(1, 10**6)
    )
    assert usd + idle == Decimal("0.115")


@pytest.mark.parametrize("seed", range(50))
def test_the_parts_of_an_hour_add_up_and_nobody_pays_less_than_nothing(seed: int) -> None:
    rng = random.Random(seed)
    uses = [
        use(f"t{n}", milliseconds=rng.choice([0, 5, 10**6, 10**8]), model_bytes=rng.choice([0, 10**6, 10**10]))
        for n in range(rng.randint(0, 30))
    ]
    usd = Decimal(rng.randint(0, 10**6)).scaleb(-6)
    shares, idle = divided(usd, replace(HOUR, seconds=rng.choice([1, 100, 3600])), uses, LARGE)
    assert sum(shares, idle) == usd
    assert min([idle, *shares]) >= 0
    order = sorted(zip(uses, shares, strict=True), key=lambda pair: (pair[0].milliseconds, pair[0].model_bytes))
    same = [(u, s) for u, s in order if u.model_bytes == 0]
    assert [s for _, s in same] == sorted(s for _, s in same), "who used more pays no less"


def test_an_endpoint_that_was_created_within_the_hour_has_a_part_of_it() -> None:
    created = datetime(2026, 11, 21, 10, 45, tzinfo=UTC)
    assert [seconds_in(f"2026-11-21T{hour:02d}", created) for hour in (9, 10, 11)] == [0, 900, 3600]
    assert divided(Decimal(0), replace(HOUR, seconds=0), [use()], LARGE) == ([Decimal(0)], Decimal(0))


# --- calls ------------------------------------------------------------------------------------------------


class Calls:
    """A predictor over memory, whose models answer as a test says."""

    def __init__(self, **alias: Any) -> None:
        self.store = MemoryStore()
        aliases = Aliases(self.store, lambda number: None)
        versions = ModelVersions(self.store)
        serving = alias.pop("serving", ServingSettings())
        for number in {value for name, value in alias.items() if name in ("live", "canary", "testing")}:
            versions.put(replace(version(number), serving=serving))
        if alias:
            aliases.change("acme", "churn", lambda before: replace(before, **alias), NOW)
        self.asked: list[int] = []
        self.seconds = count()
        self.answer: Exception | None = None
        self.body = b'{"predictions": [1]}'
        self.book = InferenceBook(store=self.store, retention=timedelta(days=45))
        self.tenants = MemoryTenants(tenant())
        self.predictor = Predictor(
            tenants=self.tenants,
            aliases=aliases,
            versions=versions,
            counts=self.book,
            ask=self._ask,
            ask_later=self._ask_later,
            check=parse_prediction,
            clock=lambda: next(self.seconds),
        )

    def _ask_later(
        self, version: ModelVersion, content_type: str, *, body: bytes, location: str
    ) -> tuple[str, str]:
        self.asked.append(version.version)
        return "s3://bucket/answers/1", "s3://bucket/failures/1"

    def _ask(self, version: ModelVersion, rows: bytes, content_type: str) -> Response:
        self.asked.append(version.version)
        if self.answer is not None:
            raise self.answer
        return Response(self.body, 40)

    def call(self, key: str = "k", **changes: Any) -> Any:
        values: dict[str, Any] = {"tenant_id": "acme", "data_set": "churn", "rows": b"a\n1\n"}
        made = Call(**values | {"content_type": "text/csv", "key": key, "location": ""} | changes)
        return self.predictor.predict(made, NOW)

    @property
    def uses(self) -> list[EndpointUse]:
        return self.book.uses("e", hour_of(NOW))


def version(number: int) -> ModelVersion:
    return ModelVersion(
        tenant_id="acme",
        data_set="churn",
        version=number,
        package_arn=f"arn:{number}",
        request_id="0" * 32,
        model_uri="s3://b/models/m.tar.gz",
        state=VersionState.READY,
        since=NOW,
        approved_at=NOW,
        endpoint="e",
        target=f"acme/churn/{number}",
        algorithm="linear",
        model_bytes=500,
    )


def test_a_call_is_answered_by_the_live_version_and_counted_with_what_it_used() -> None:
    calls = Calls(live=3)
    answered = calls.call()
    assert (answered.version, answered.not_counted) == (3, "")
    calls.call()
    assert calls.uses == [
        use(calls=2, milliseconds=80, bytes_in=8, bytes_out=40, model_bytes=500),
    ]


def test_a_canary_answers_its_share_of_the_keys_and_each_key_alike() -> None:
    calls = Calls(live=3, canary=4, canary_percent=20)
    versions = [calls.call(f"key {number}").version for number in range(500)]
    assert 60 <= versions.count(4) <= 140
    assert [calls.call(f"key {number}").version for number in range(500)] == versions


def test_a_call_in_the_test_environment_is_answered_there_and_counted() -> None:
    calls = Calls(live=3, testing=4)
    assert [calls.call(environment=each).version for each in Environment] == [3, 4]
    assert [use.calls for use in calls.uses] == [2]
    assert calls.book.calls_of(version(4), NOW, NOW) == VersionCalls(1, 0)


def test_what_is_not_served_is_refused_and_not_counted() -> None:
    assert_refused(Calls(live=3), "no model of 'churn' is in test", environment=Environment.TEST)
    assert_refused(Calls(), "no model of 'churn' is served")
    assert_refused(Calls(live=3), "no tenant 'globex'", tenant_id="globex")
    assert_refused(Calls(live=3), "no model of 'other' is served", data_set="other")
    for state in set(TenantState) - {TenantState.ACTIVE}:
        calls = Calls(live=3)
        calls.predictor = replace(calls.predictor, tenants=MemoryTenants(replace(tenant(), state=state)))
        assert_refused(calls, f"is {state.value}")


SETTINGS = {
    mode: ServingSettings(mode=mode, isolation=isolation)
    for isolation, modes in (
        (Isolation.SILO, (Mode.REAL_TIME, Mode.SERVERLESS, Mode.ASYNCHRONOUS)),
        (Isolation.BRIDGE, (Mode.MULTI_MODEL, Mode.MULTI_CONTAINER, Mode.INFERENCE_COMPONENT)),
    )
    for mode in modes
}
"""Of the modes that answer calls."""

MOST = {
    Mode.REAL_TIME: 6_291_456,
    Mode.MULTI_MODEL: 6_291_456,
    Mode.MULTI_CONTAINER: 6_291_456,
    Mode.INFERENCE_COMPONENT: 6_291_456,
    Mode.SERVERLESS: 4_194_304,
    Mode.ASYNCHRONOUS: 128_000,
}
"""Bytes that a call may send (API reference, InvokeEndpoint and InvokeEndpointAsync; serverless inference)."""


@pytest.mark.parametrize("mode", SETTINGS)
def test_a_call_takes_what_its_mode_takes_and_not_one_byte_more(mode: Mode) -> None:
    serving = SETTINGS[mode]
    assert Calls(serving=serving, live=3).call(rows=b"x" * MOST[mode]).version == 3
    refused = f"{mode} takes {MOST[mode]:,} at once"
    assert_refused(Calls(serving=serving, live=3), refused, rows=b"x" * (MOST[mode] + 1))


ASYNCHRONOUS = SETTINGS[Mode.ASYNCHRONOUS]


@pytest.mark.parametrize(
    "rows", [{"rows": b"x" * 128_000}, {"rows": b"", "location": "s3://trainyard-acme/reports/churn/rows.csv"}]
)
def test_an_asynchronous_endpoint_answers_later_and_the_call_is_counted(rows: dict[str, Any]) -> None:
    calls = Calls(live=3, serving=ASYNCHRONOUS)
    calls.predictor = replace(calls.predictor, tenants=MemoryTenants(replace(tenant(), bucket="trainyard-acme")))
    answered = calls.call(**rows)
    assert (answered.response, answered.version) == (None, 3)
    assert (answered.output, answered.failure) == ("s3://bucket/answers/1", "s3://bucket/failures/1")
    assert calls.uses == [use(calls=1, bytes_in=len(rows["rows"]), model_bytes=500)]


def test_what_a_mode_does_not_take_is_refused_with_what_it_takes() -> None:
    serverless = ServingSettings(mode=Mode.SERVERLESS, isolation=Isolation.SILO)
    assert_refused(Calls(live=3, serving=ASYNCHRONOUS), "128,000 at once: put them into S3", rows=b"x" * 128_001)
    assert_refused(Calls(live=3, serving=serverless), "at most 4,194,304", rows=b"x" * 4_194_305)
    assert_refused(Calls(live=3, serving=serverless), "takes no rows from S3", rows=b"", location="s3://b/k")
    foreign = {"rows": b"", "location": "s3://trainyard-globex/rows.csv"}
    assert_refused(Calls(live=3, serving=ASYNCHRONOUS), "is not the tenant's", **foreign)


def assert_refused(calls: Calls, reason: str, **changes: Any) -> None:
    with pytest.raises(Refused, match=reason):
        calls.call(**changes)
    assert (calls.uses, calls.asked) == ([], [])


def test_calls_that_the_model_refuses_or_that_are_to_be_repeated_are_counted_with_their_time() -> None:
    calls = Calls(live=3)
    calls.answer = Refused("the request has no column 'age'")
    with pytest.raises(Refused, match="no column"):
        calls.call()
    calls.answer = Throttled("it loads")
    with pytest.raises(Throttled):
        calls.call()
    assert calls.uses == [use(calls=2, failed=2, milliseconds=2000, bytes_in=8, model_bytes=500)]


@pytest.mark.parametrize("body", [b"no JSON", b"{}", b'{"predictions": "yes"}'])
def test_an_answer_that_is_no_prediction_is_a_failed_call(body: bytes) -> None:
    calls = Calls(live=3)
    calls.body = body
    with pytest.raises(Refused, match="version 3 answered no predictions"):
        calls.call()
    assert calls.uses == [use(calls=1, failed=1, milliseconds=40, bytes_in=4, model_bytes=500)]
    assert calls.book.calls_of(version(3), NOW, NOW) == CallsOfVersion(1, 1)


@pytest.mark.parametrize("error", [Conflict("others write"), OutcomeUnknown("lost"), KeyError("pk")])
def test_a_call_that_cannot_be_counted_is_answered(error: Exception) -> None:
    class Counts:
        def count(self, endpoint: str, use: EndpointUse, now: datetime, version: int | None = None) -> None:
            raise error

    calls = Calls(live=3)
    calls.predictor = replace(calls.predictor, counts=Counts())
    assert type(error).__name__ in calls.call().not_counted


def test_a_count_is_one_change_by_itself_which_no_other_call_refuses() -> None:
    changes: list[Update] = []
    book = InferenceBook(store=MemoryStore(), retention=timedelta(days=1), update=changes.append)
    book.count("e", use(), NOW)
    assert [(change.add, change.when) for change in changes] == [({"calls": 1}, ())]


# --- the function -----------------------------------------------------------------------------------------


def test_the_function_answers_predictions_with_their_version(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(live=3)
    monkeypatch.setattr(bootstrap, "predictor", lambda: replace(calls.predictor))
    event = {"tenant_id": "acme", "data_set": "churn", "rows": "a\n1\n"}
    answer = load("predict").handler(event, Context())
    assert answer == {"predictions": [1], "version": 3, "milliseconds": 40}
    with pytest.raises(Refused, match="no model"):
        load("predict").handler(event | {"data_set": "other"}, Context())


def test_an_answer_that_is_too_large_is_refused() -> None:
    answer_of = load("predict").answer_of
    many = b'{"predictions": [' + b",".join([b'"' + b"x" * 1000 + b'"'] * 7000) + b"]}"
    with pytest.raises(Refused, match="7,000 rows is too large"):
        answer_of(3, many, 1)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"tenant_id": "acme", "data_set": "churn"},
        {"tenant_id": "acme", "data_set": "churn", "rows": "a\n1\n", "input": "s3://bucket/rows.csv"},
        {"tenant_id": "acme", "data_set": "churn", "input": "https://bucket/rows.csv"},
        {"tenant_id": "a" * 65, "data_set": "churn", "rows": ""},
        {"tenant_id": "acme", "data_set": "churn", "rows": "", "content_type": "text/html"},
        {"tenant_id": "acme", "data_set": "churn", "rows": "", "version": 3},
        {"tenant_id": "acme", "data_set": "churn", "rows": 1},
    ],
)
def test_a_command_that_is_none_is_malformed(event: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_predict_command(event)


# --- a month ----------------------------------------------------------------------------------------------


class Unreliable(MemoryStore):
    """A store whose writes fail now and then: before they happen, or after."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng, self.trouble = rng, 0.0

    def transact(self, writes: Sequence[Write]) -> None:
        if self.rng.random() < self.trouble:
            raise Throttled("before")
        super().transact(writes)
        if self.rng.random() < self.trouble:
            raise OutcomeUnknown("after")


@dataclass
class Existing:
    endpoints: list[BilledEndpoint]
    unreadable: tuple[Unreadable, ...] = ()

    def existing(self) -> list[BilledEndpoint | Unreadable]:
        return [*self.unreadable, *self.endpoints]


@dataclass
class Files:
    rows: list[dict[str, str]] = field(default_factory=list)

    def put(self, day: str, rows: IO[bytes]) -> str:
        self.rows += csv.DictReader(io.StringIO(gzip.decompress(rows.read()).decode()))
        return day


MANY = [0, 1, 3, 25]
"""Tenants that call a shared endpoint in a while."""
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
LIMITS: Policy = replace(
    policy(tier("basic", budget=hard("900")), tier("premium"), running_max=9),
    tenants={"t0": TenantPolicy(budget=hard("100"))},
)


def reserving(rng: random.Random) -> BilledEndpoint:
    """Return the endpoint of components: two of one data set, as with a canary, and two that are never called."""
    created_at = BEGIN + timedelta(minutes=rng.randint(0, 1500))
    return BilledEndpoint(
        name="trainyard-shared--components",
        arn="arn:components",
        created_at=created_at,
        instance_type="ml.m5.large",
        instance_count=2,
        reservations=tuple(
            Reservation(
                name=f"own-{number}",
                tenant_id=tenant_id,
                data_set=data_set,
                tier=("basic", "premium")[int(tenant_id[1:]) % 2],
                algorithm="components",
                cpu_percent=cpu_percent,
                memory_mb=memory_mb,
                created_at=created_at + timedelta(minutes=rng.randint(0, 4000), seconds=rng.randint(0, 59)),
            )
            for number, (tenant_id, data_set, cpu_percent, memory_mb) in enumerate(
                [
                    ("t5", "set0", 50, 1024),
                    ("t5", "set0", 50, 1024),
                    ("t6", "mute", 25, 300),
                    ("t7", "mute", 75, 2048),
                ]
            )
        ),
    )


def instances_at(endpoint: BilledEndpoint, now: datetime) -> int:
    if now < endpoint.created_at:
        return 0
    return [endpoint.instance_count, *(change.count for change in endpoint.changes if change.at <= now)][-1]


@pytest.mark.parametrize(
    ("seed", "days"),
    [(0, 6), (1, 6), *(pytest.param(seed, 30, marks=pytest.mark.thorough) for seed in range(2, 8))],
)
def test_the_books_of_a_month_equal_a_recomputation(seed: int, days: int) -> None:
    """Calls, failing writes, bookings that die and are repeated; then everything from the calls, in fractions."""
    rng = random.Random(seed)
    store = Unreliable(rng)
    books = Books(LIMITS, store)
    book = InferenceBook(store=store, retention=timedelta(days=60))
    existing = Existing(
        [
            BilledEndpoint(
                name=f"trainyard-shared-{algorithm}",
                arn=f"arn:{algorithm}",
                created_at=BEGIN + timedelta(minutes=rng.randint(0, 1500)),
                instance_type="ml.m5.large",
                instance_count=count,
            )
            for algorithm, count in (("linear", 1), ("trees", 2))
        ]
        + [
            BilledEndpoint(
                name=f"trainyard-own-{tenant_id}",
                arn=f"arn:{tenant_id}",
                created_at=BEGIN + timedelta(minutes=rng.randint(0, 1500)),
                instance_type="" if memory_mb else "ml.m5.large",
                instance_count=0 if memory_mb else 2,
                memory_mb=memory_mb,
                owner=Owner(tenant_id=tenant_id, data_set="own", tier=tier_name, algorithm="linear"),
                scales=scales,
                changes=tuple(
                    CountChange(BEGIN + timedelta(minutes=minutes), rng.randint(0, 4))
                    for minutes in (sorted(rng.sample(range(1600, days * 1440), 40)) if scales else [])
                ),
            )
            for tenant_id, tier_name, memory_mb, scales in (
                ("t2", "basic", 0, False),
                ("t3", "premium", 3072, False),
                ("t4", "basic", 0, True),
            )
        ]
        + [reserving(rng)]
    )
    booking = InferenceBooking(book=book, endpoints=existing, prices=PRICES, tier_of=lambda _: None)
    tiers = {f"t{n}": ("basic", "premium")[n % 2] for n in range(30)}
    for number, tenant_id in enumerate(tiers):
        books.run("0.05", begun=100.0 * number, tenant_id=tenant_id, tier=tiers[tenant_id])
    files = Files()
    usage = Usage(
        book=books.book,
        inference=book,
        files=files,
        account_id="1" * 12,
        region="us-east-1",
        stage="dev",
        retention=timedelta(days=60),
    )
    all_days = [(BEGIN + timedelta(days=number)).strftime("%Y-%m-%d") for number in range(days + 1)]
    exported_until = ""
    counted: dict[tuple[str, str], dict[tuple[str, str], list[int]]] = {}
    now = BEGIN
    while now < BEGIN + timedelta(days=days):
        for endpoint in existing.endpoints:
            owner = endpoint.owner
            callers = (
                [owner.tenant_id] * rng.choice([0, 1]) if owner else rng.sample(sorted(tiers), rng.choice(MANY))
            )
            for tenant_id in callers:
                if now >= endpoint.created_at:
                    milliseconds = rng.choice([3, 4000, 900_000])
                    made = use(
                        tenant_id,
                        data_set=owner.data_set if owner else f"set{rng.randint(0, 1)}",
                        tier=tiers[tenant_id],
                        algorithm="linear" if owner else endpoint.name.rpartition("-")[2],
                        milliseconds=milliseconds,
                        model_bytes=10**7,
                    )
                    book.count(endpoint.name, made, now)
                    hour = counted.setdefault((endpoint.name, hour_of(now)), {})
                    calls = hour.setdefault((tenant_id, made.data_set), [0, 0])
                    calls[0] += 1
                    calls[1] += milliseconds
        if rng.random() < 0.3:  # a billing run, which may die
            store.trouble = rng.choice([0.0, 0.1])
            with suppress(Throttled, OutcomeUnknown, TimeoutError, Conflict):
                booking.book_due(now, lambda: rng.random() < 0.05)
            with suppress(Throttled, OutcomeUnknown):
                books.outbox.relay(now)
            store.trouble = 0.0
        yesterday = (now - timedelta(minutes=30)).date() - timedelta(days=1)
        if yesterday.isoformat() in all_days and yesterday.isoformat() > exported_until:
            exported_until = yesterday.isoformat()
            usage.export(exported_until)
        now += timedelta(minutes=40)
    end = BEGIN + timedelta(days=days, minutes=20)
    booking.book_due(end, lambda: False)
    assert booking.book_due(end, lambda: False) == [], "idempotent"

    expected: dict[str, Fraction] = {}
    idle = Fraction(0)
    for endpoint in existing.endpoints:
        begin = endpoint.created_at.replace(minute=0)
        while begin < BEGIN + timedelta(days=days):
            seconds = min((begin + timedelta(hours=1) - endpoint.created_at).total_seconds(), 3600)
            count, own, hour_name = endpoint.instance_count, endpoint.owner, hour_of(begin)
            ran = sum(60 * instances_at(endpoint, begin + timedelta(minutes=minute)) for minute in range(60))
            usd = Fraction(round(Fraction("0.115") * ran / 3600 * 10**6 + Fraction(1, 10**9)), 10**6)
            uses = counted.get((endpoint.name, hour_name), {})
            if own is not None:
                if endpoint.memory_mb:
                    busy = Fraction(sum(ms for _, ms in uses.values()), 1000)
                    usd = Fraction(round(busy * 3 * Fraction("0.00002") * 10**6 + Fraction(1, 10**9)), 10**6)
                expected[own.tenant_id] = expected.get(own.tenant_id, Fraction(0)) + usd
                begin += timedelta(hours=1)
                continue
            if endpoint.reservations is not None:
                paid = {reserved.tenant_id: Fraction(0) for reserved in endpoint.reservations}
                for reserved in endpoint.reservations:
                    there = min((begin + timedelta(hours=1) - reserved.created_at).total_seconds(), 3600)
                    reserves = Fraction(reserved.cpu_percent, 200) + Fraction(reserved.memory_mb, 8192)
                    exact = Fraction("0.115") / 2 * reserves * max(int(there), 0) / 3600
                    paid[reserved.tenant_id] += Fraction(round(exact * 10**6 + Fraction(1, 10**9)), 10**6)
                for whose, share in paid.items():
                    expected[whose] = expected.get(whose, Fraction(0)) + share
                idle += usd - sum(paid.values())
                begin += timedelta(hours=1)
                continue
            cpus = max(Fraction(int(seconds) * count * 2), sum(Fraction(ms, 1000) for _, ms in uses.values()))
            size = 10**7 + 160 * 1024**2
            memory = max(Fraction(count * 8 * GIB), Fraction(size * len(uses)))
            rest = usd
            for (tenant_id, _), (_, milliseconds) in uses.items():
                exact = usd / 2 * (Fraction(milliseconds, 1000) / cpus + Fraction(size) / memory)
                share = Fraction(exact * 10**6 // 1, 10**6)
                expected[tenant_id] = expected.get(tenant_id, Fraction(0)) + share
                rest -= share
            idle += rest
            begin += timedelta(hours=1)
    totals = list(books.book.totals("2026-11"))
    booked: dict[str, Fraction] = {}
    for part in totals:
        booked[part.tenant_id] = booked.get(part.tenant_id, Fraction(0)) + Fraction(part.inference_usd)
    assert booked == expected
    assert sum(part.calls for part in totals) == sum(
        calls for hour in counted.values() for calls, _ in hour.values()
    )
    hours = [hour for day in all_days for hour in book.hours(day)]
    assert sum(Fraction(hour.idle_usd) for hour in hours) == idle
    assert sum(Fraction(hour.usd or 0) for hour in hours) == idle + sum(expected.values())

    for _ in range(100):
        books.outbox.relay(end)
    assert [entry for entry in books.book.outbox_entries() if entry.what == "spending"] == []
    spent = dict.fromkeys(("basic", "premium"), Fraction(0))
    for tenant_id, name in tiers.items():
        charged = Fraction(books.scheduler.tables.queues.get(name, tenant_id).spent_usd)
        assert charged == Fraction("0.05") + expected.get(tenant_id, Fraction(0))
        spent[name] += charged
    in_ledger = books.scheduler.tables.ledger.read().spent_in
    assert {name: Fraction(usd) for name, usd in in_ledger.items()} == {
        f"2026-11 {name}": usd for name, usd in spent.items()
    }

    for day in all_days[all_days.index(exported_until) + 1 if exported_until else 0 :]:
        usage.export(day)
    exported: dict[str, Fraction] = {}
    for row in files.rows:
        tenant_id = row["SubAccountId"]
        if row["ResourceType"] == "Endpoint":
            exported[tenant_id] = exported.get(tenant_id, Fraction(0)) + Fraction(row["BilledCost"])
    assert exported == expected | {"": idle}


def booked_once(books: Books) -> InferenceBook:
    """Return books in which a call of acme paid 0.01 USD in the hour of NOW."""
    books.run("0.05", tenant_id="acme", data_set="churn")
    book = InferenceBook(store=books.store, retention=timedelta(days=60))
    book.count("e", use(), NOW)
    book.book("e", hour_of(NOW), [(use, Decimal("0.01")) for use in book.uses("e", hour_of(NOW))], NOW)
    return book


def test_of_two_bookings_at_once_the_second_changes_nothing() -> None:
    books = Books()
    book = booked_once(books)
    stale = [(use(), Decimal("0.01"))]
    with pytest.raises(Conflict):
        book.book("e", hour_of(NOW), stale, NOW)
    (totals,) = books.totals()
    assert (totals.calls, totals.inference_usd, totals.usd) == (1, Decimal("0.01"), Decimal("0.05"))


def test_of_two_relays_at_once_the_second_charges_nothing() -> None:
    books = Books()
    booked_once(books)
    (entry,) = books.book.outbox_entries()
    charge(books.scheduler, entry, books.limits, NOW)
    with pytest.raises(Conflict):
        charge(books.scheduler, entry, books.limits, NOW)
    assert books.scheduler.tables.queues.get("basic", "acme").spent_usd == Decimal("0.06")
    assert books.scheduler.tables.ledger.read().spent_in == {"2026-11 basic": Decimal("0.06")}


def test_an_hour_of_the_last_month_is_charged_to_that_month_and_one_of_the_next_begins_it() -> None:
    books = Books()
    books.run("0.05", tenant_id="acme")
    for number, (month, spent) in enumerate([("2026-10", "0.05"), ("2026-12", "0.01"), ("2026-11", "0.01")]):
        entry = OutboxEntry(
            name=f"spending#{number}",
            what="spending",
            values={"month": month, "charges": {"basic#acme": Decimal("0.01"), "basic#nobody": Decimal("0.01")}},
        )
        books.store.transact([spending_entry(str(number), month, entry.values["charges"], NOW)])
        charge(books.scheduler, entry, books.limits, NOW)
        assert books.scheduler.tables.queues.get("basic", "acme").spent_usd == Decimal(spent), month
    assert books.scheduler.tables.ledger.read().spent_in == {
        "2026-10 basic": Decimal("0.02"),
        "2026-11 basic": Decimal("0.07"),
        "2026-12 basic": Decimal("0.02"),
    }


def test_predictions_can_reach_a_threshold_of_a_budget() -> None:
    books = Books(replace(LIMITS, tenants={"acme": TenantPolicy(budget=hard("0.06"))}))
    booked_once(books)
    books.outbox.relay(NOW)  # charges
    books.outbox.relay(NOW)  # publishes
    assert [values["percent"] for what, values in books.announcements.told if what == "budget"] == [80, 100]


def test_many_events_of_versions_are_published_in_several_runs() -> None:
    books = Books()
    alias = Alias(tenant_id="acme", data_set="churn")
    for number in range(A_RUN["version"] + 1):
        event = AliasEvent(AliasChange.DEPLOYED, number)
        books.store.transact([model_entry(replace(alias, revision=str(number)), event, "", NOW)])
    assert [len(books.outbox.relay(NOW).published) for _ in range(3)] == [A_RUN["version"], 1, 0]


def test_an_hour_without_a_price_is_closed_and_what_it_cost_stays_unknown() -> None:
    books = Books()
    book = InferenceBook(store=books.store, retention=timedelta(days=60))
    endpoint = BilledEndpoint(
        name="e", arn="arn:e", created_at=NOW, instance_type="ml.inf1.xlarge", instance_count=1
    )
    book.count("e", use(), NOW)
    booking = InferenceBooking(book=book, endpoints=Existing([endpoint]), prices=PRICES, tier_of=lambda _: None)
    hours = booking.book_due(NOW + timedelta(hours=2), lambda: False)
    assert [hour.usd for hour in hours] == [None]
    assert [row["BilledCost"] for row in usage_rows(books, book)] == [""]
    priced = replace(PRICES, hosting={"ml.inf1.xlarge": Decimal(1)})
    again = Existing([replace(endpoint, name="f")])
    (hour,) = InferenceBooking(book=book, endpoints=again, prices=priced, tier_of=lambda _: None).book_due(
        NOW + timedelta(hours=2), lambda: False
    )
    assert hour.idle_usd == hour.usd, "nobody can say who used how much of it"


TEN = datetime(2026, 11, 21, 10, tzinfo=UTC)
SCALED = BilledEndpoint(
    name="e",
    arn="arn:e",
    created_at=TEN,
    instance_type="ml.m5.large",
    instance_count=1,
    scales=True,
    owner=Owner(tenant_id="acme", data_set="churn", tier="basic", algorithm="linear"),
)


def changes_at(*changes: tuple[int, int]) -> tuple[CountChange, ...]:
    return tuple(CountChange(TEN + timedelta(minutes=minutes), count) for minutes, count in changes)


@pytest.mark.parametrize(
    ("since", "until", "changes", "expected"),
    [
        (-60, None, [], (3600, 1, 1)),
        (-60, None, [(30, 2)], (1800 + 2 * 1800, 2, 2)),
        (-60, None, [(0, 3), (20, 0), (50, 1)], (3 * 1200 + 600, 3, 1)),
        (-60, None, [(-30, 0)], (3600, 1, 1)),
        (-60, 30, [(15, 2), (45, 9)], (900 + 2 * 900, 2, 9)),
        (30, None, [(20, 9), (45, 4)], (900 + 4 * 900, 4, 4)),
        (-60, None, [(60, 9)], (3600, 1, 1)),
    ],
)
def test_the_instances_of_an_hour_are_counted_by_their_seconds(
    since: int, until: int | None, changes: list[tuple[int, int]], expected: tuple[int, int, int]
) -> None:
    created = TEN + timedelta(minutes=since)
    ended = TEN + timedelta(minutes=until) if until is not None else None
    instances = instances_in("2026-11-21T10", created, ended, 1, changes_at(*changes))
    assert (instances.seconds, instances.most, instances.at_end) == expected


def test_an_endpoint_that_scales_costs_the_instances_that_it_had_also_after_it_was_deleted() -> None:
    book = InferenceBook(store=MemoryStore(), retention=timedelta(days=60))
    endpoint = replace(SCALED, changes=changes_at((-600, 9), (30, 0), (80, 2)))
    existing = Existing([endpoint])
    booking = InferenceBooking(book=book, endpoints=existing, prices=PRICES, tier_of=lambda _: "basic")
    (first,) = booking.book_due(TEN + timedelta(minutes=100), lambda: False)
    hourly = PRICES.hosting["ml.m5.large"]
    assert (first.usd, first.instance_count) == (rounded(hourly / 2), 1)
    existing.endpoints = []
    (last,) = booking.book_due(TEN + timedelta(hours=4), lambda: False)
    assert (last.usd, last.instance_count) == (rounded(hourly * 2 * 20 / 60), 2), "seen last after 100 minutes"


def test_how_many_instances_there_were_is_known_also_when_nothing_tells_of_it_any_more() -> None:
    book = InferenceBook(store=MemoryStore(), retention=timedelta(days=60))
    endpoint = replace(SCALED, changes=changes_at((15, 0)))
    existing = Existing([endpoint])
    booking = InferenceBooking(book=book, endpoints=existing, prices=PRICES, tier_of=lambda _: "basic")
    assert len(booking.book_due(TEN + timedelta(minutes=80), lambda: False)) == 1
    existing.endpoints = [replace(endpoint, changes=())]
    (later,) = booking.book_due(TEN + timedelta(minutes=140), lambda: False)
    assert later.usd == 0, "it sleeps"
    existing.endpoints = [replace(endpoint, changes=changes_at((15, 0), (61, 1)))]
    booking.book_due(TEN + timedelta(minutes=141), lambda: False)
    (seen,) = book.remembered(TEN).values()
    assert [count for _, count in seen["changes"]] == [1], "what is booked is not kept"
    existing.endpoints = [replace(endpoint, created_at=TEN + timedelta(minutes=150), changes=())]
    hours = booking.book_due(TEN + timedelta(minutes=260), lambda: False)
    assert [hour.usd for hour in hours][-1] == PRICES.hosting["ml.m5.large"], "another one of its name"


def test_an_hour_is_booked_once_it_is_known_what_became_of_its_changes() -> None:
    book = InferenceBook(store=MemoryStore(), retention=timedelta(days=60))
    endpoint = replace(SCALED, unsettled_from=TEN + timedelta(minutes=70))
    existing = Existing([endpoint])
    booking = InferenceBooking(book=book, endpoints=existing, prices=PRICES, tier_of=lambda _: None)
    now = TEN + timedelta(minutes=140)
    assert [hour.hour for hour in booking.book_due(now, lambda: False)] == [hour_of(TEN)]
    existing.endpoints = [replace(endpoint, unsettled_from=None)]
    assert [hour.hour for hour in booking.book_due(now, lambda: False)] == [hour_of(TEN + timedelta(hours=1))]


def test_an_endpoint_that_was_changed_by_hand_holds_up_no_other() -> None:
    book = InferenceBook(store=MemoryStore(), retention=timedelta(days=60))
    endpoint = BilledEndpoint(name="e", arn="arn:e", created_at=NOW, instance_type="ml.m5.large", instance_count=1)
    existing = Existing([endpoint], (Unreadable("d", "AccessDenied"),))
    booking = InferenceBooking(book=book, endpoints=existing, prices=PRICES, tier_of=lambda _: None)
    with pytest.raises(RuntimeError, match=r"d \(AccessDenied\)"):
        booking.book_due(NOW + timedelta(hours=2), lambda: False)
    assert book.booked_until("e") == hour_of(NOW)


def test_an_endpoint_that_was_deleted_is_booked_until_it_was_seen_last_and_one_of_its_name_after_it() -> None:
    book = InferenceBook(store=MemoryStore(), retention=timedelta(days=60))
    begin = NOW.replace(minute=0, second=0, microsecond=0)
    first = BilledEndpoint(name="e", arn="arn:e", created_at=begin, instance_type="ml.m5.large", instance_count=1)
    existing = Existing([first])
    booking = InferenceBooking(book=book, endpoints=existing, prices=PRICES, tier_of=lambda _: None)

    def seconds(minutes: int) -> list[tuple[str, int]]:
        hours = booking.book_due(begin + timedelta(minutes=minutes), lambda: False)
        return [(hour.hour[-2:], hour.seconds) for hour in hours]

    def hour(number: int) -> str:
        return hour_of(begin + timedelta(hours=number))[-2:]

    assert seconds(80) == [(hour(0), 3600)]
    assert seconds(150) == [(hour(1), 3600)]
    existing.endpoints = []
    assert seconds(170) == [], "the hour is not over"
    assert seconds(200) == [(hour(2), 1800)], "it was seen last at half past"
    assert seconds(260) == []
    created = begin + timedelta(minutes=330)
    existing.endpoints = [replace(first, created_at=created, instance_type="ml.m5.large")]
    assert seconds(380) == [(hour(5), 1800)]
    again = begin + timedelta(minutes=470)
    existing.endpoints = [replace(first, created_at=again)]
    assert seconds(500) == [(hour(6), 1200), (hour(7), 600)], "seen last at 380, created again at 470"
    existing.endpoints = [replace(first, created_at=begin + timedelta(minutes=530))]
    assert seconds(560) == [(hour(8), 600)], "seen in that hour too, which is its successor's"


def test_an_endpoint_that_cannot_be_read_for_a_while_is_not_taken_for_deleted() -> None:
    book = InferenceBook(store=MemoryStore(), retention=timedelta(days=60))
    begin = NOW.replace(minute=0, second=0, microsecond=0)
    endpoint = BilledEndpoint(
        name="e", arn="arn:e", created_at=begin, instance_type="ml.m5.large", instance_count=1
    )
    existing = Existing([endpoint])
    booking = InferenceBooking(book=book, endpoints=existing, prices=PRICES, tier_of=lambda _: None)
    booking.book_due(begin + timedelta(minutes=80), lambda: False)
    existing.endpoints, existing.unreadable = [], (Unreadable("e", "AccessDenied"),)
    with pytest.raises(RuntimeError):
        booking.book_due(begin + timedelta(minutes=140), lambda: False)
    existing.endpoints, existing.unreadable = [endpoint], ()
    hours = booking.book_due(begin + timedelta(minutes=260), lambda: False)
    assert [hour.seconds for hour in hours] == [3600, 3600, 3600]
    existing.endpoints, existing.unreadable = [], (Unreadable("e", "AccessDenied"),)
    with pytest.raises(RuntimeError):
        booking.book_due(begin + timedelta(minutes=270), lambda: False)
    existing.unreadable = ()
    hours = booking.book_due(begin + timedelta(minutes=380), lambda: False)
    assert [hour.seconds for hour in hours] == [1200], "it was deleted then, and seen last at 260"


def test_parts_that_were_booked_at_another_price_add_up_with_the_idle_part() -> None:
    books = Books()
    book = InferenceBook(store=books.store, retention=timedelta(days=60))
    for name in ("a", "b", "c", "d", "e", "f"):
        book.count("e", use(name, milliseconds=100_000), NOW)
    endpoint = BilledEndpoint(name="e", arn="arn:e", created_at=NOW, instance_type="ml.m5.large", instance_count=1)
    time = iter([False, False, True])
    later = NOW + timedelta(hours=2)
    booking = InferenceBooking(book=book, endpoints=Existing([endpoint]), prices=PRICES, tier_of=lambda _: None)
    with pytest.raises(TimeoutError, match="4 of 6 uses"):
        booking.book_due(later, lambda: next(time))
    dearer = replace(booking, prices=replace(PRICES, hosting={"ml.m5.large": Decimal("0.2")}))
    (hour,) = dearer.book_due(later, lambda: False)
    paid = [each.usd or Decimal(0) for each in book.uses("e", hour_of(NOW))]
    assert len(set(paid)) == 2
    assert sum(paid, hour.idle_usd) == hour.usd == Decimal("0.2")


def test_a_tenant_that_has_moved_since_is_charged_where_its_spending_is() -> None:
    books = Books(LIMITS)
    books.run("0.05", tenant_id="acme", tier="premium")
    books.store.transact([spending_entry("1", "2026-11", {"basic#acme": Decimal("0.01")}, NOW)])
    (entry,) = books.book.outbox_entries()
    charge(books.scheduler, entry, books.limits, NOW)
    assert books.scheduler.tables.queues.get("premium", "acme").spent_usd == Decimal("0.06")


def test_a_run_without_time_says_so_and_the_next_one_goes_on() -> None:
    book = InferenceBook(store=MemoryStore(), retention=timedelta(days=60))
    endpoint = BilledEndpoint(name="e", arn="arn:e", created_at=NOW, instance_type="ml.m5.large", instance_count=1)
    booking = InferenceBooking(book=book, endpoints=Existing([endpoint]), prices=PRICES, tier_of=lambda _: None)
    later = NOW + timedelta(hours=5)
    time = iter([False, True])
    with pytest.raises(TimeoutError, match="hours booked: 1; next: e from"):
        booking.book_due(later, lambda: next(time))
    assert len(booking.book_due(later, lambda: False)) == 3


def usage_rows(books: Books, book: InferenceBook) -> list[dict[str, str]]:
    files = Files()
    Usage(
        book=books.book,
        inference=book,
        files=files,
        account_id="1" * 12,
        region="us-east-1",
        stage="dev",
        retention=timedelta(days=60),
    ).export(NOW.strftime("%Y-%m-%d"))
    return [row for row in files.rows if row["ResourceType"] == "Endpoint"]


def test_an_hour_of_an_own_endpoint_is_its_tenants_in_its_present_tier_whether_it_called_or_not() -> None:
    books = Books()
    book = InferenceBook(store=books.store, retention=timedelta(days=60))
    owner = Owner(tenant_id="acme", data_set="churn", tier="left-long-ago", algorithm="linear")
    endpoint = BilledEndpoint(
        name="e", arn="arn:e", created_at=NOW, instance_type="ml.m5.large", instance_count=1, owner=owner
    )
    called = use(tier="basic", model_bytes=500)
    book.count("e", called, NOW + timedelta(hours=1))
    booking = InferenceBooking(
        book=book,
        endpoints=Existing([endpoint]),
        prices=PRICES,
        tier_of={"acme": "premium"}.get,
    )
    first, second = booking.book_due(NOW.replace(minute=0) + timedelta(hours=2, minutes=20), lambda: False)
    assert not first.idle_usd + second.idle_usd
    (without,) = book.uses("e", first.hour)
    assert (without.tier, without.calls, without.usd) == ("premium", 0, first.usd)
    (with_call,) = book.uses("e", second.hour)
    assert with_call == replace(called, usd=second.usd)
    gone = replace(booking, tier_of=lambda name: None)
    later = NOW.replace(minute=0) + timedelta(hours=3, minutes=20)
    (third,) = gone.book_due(later, lambda: False)
    assert [each.tier for each in book.uses("e", third.hour)] == ["left-long-ago"]


def test_a_use_whose_tier_changed_since_it_was_read_is_not_booked_to_the_old_one() -> None:
    books = Books()
    book = InferenceBook(store=books.store, retention=timedelta(days=60))
    book.count("e", use(tier="basic"), NOW)
    stale = [(each, Decimal("0.01")) for each in book.uses("e", hour_of(NOW))]
    book.count("e", use(tier="premium"), NOW)
    with pytest.raises(Conflict):
        book.book("e", hour_of(NOW), stale, NOW)
    assert [each.usd for each in book.uses("e", hour_of(NOW))] == [None]
