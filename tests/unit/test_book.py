"""The record: every execution once, in its month, with its cost; and the reports based on it."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import IO, Any

import pytest

from testing.memory_ports import MemoryAnnouncements, MemoryReports, MemoryTenants
from testing.memory_store import MemoryStore
from testing.service import PRICES, Service, policies_in_force
from tests.build import (
    NOW,
    after,
    choice,
    content,
    execution,
    hard,
    job,
    policy,
    soft,
    step,
    submission,
    tenant,
    tier,
)
from trainyard.application.billing.cost_tags import COST_TAGS, TagActivation, TagsRefused, TagState, payers_command
from trainyard.application.billing.metering import Answer, Metering, MeterRecord, licence_given
from trainyard.application.billing.outbox import GIVEN_UP
from trainyard.application.billing.reports import UNTAGGED, By, cost_report, differences
from trainyard.application.billing.statements import FAILURES_MAX, FOLDER, MonthlyStatements, Statements, statement
from trainyard.application.billing.usage import COLUMNS, Usage
from trainyard.application.ports import ExecutionReport
from trainyard.application.scheduling.completion import End
from trainyard.application.scheduling.record import executed
from trainyard.domain.admission import decide
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.executions import ExecutionRecord, JobFacts, StepRecord, priced
from trainyard.domain.policy import Policy, TenantPolicy
from trainyard.domain.prices import JobKind
from trainyard.domain.requests import Request, State
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.book import Book, Totals, execution_from, execution_item, pace_key
from trainyard.persistence.inference import InferenceBook
from trainyard.persistence.items import request_from, request_item
from trainyard.persistence.tenant_queues import refile

LIMITS = policy(tier(quota=4, running_max_per_tenant=4), running_max=9)
WAITING = replace(job(), status="Stopping", ended_at=None, billable_seconds=None)


class Harness:
    """A scheduler with its book, in which runs end as a test says."""

    def __init__(self, limits: Policy = LIMITS, store: MemoryStore | None = None) -> None:
        self.limits, self.store = limits, store or MemoryStore()
        self.book = Book(store=self.store)
        self.reports, self.announcements = MemoryReports(), MemoryAnnouncements()
        service = Service(
            store=self.store,
            policies=policies_in_force(self.store, limits),
            tenants=MemoryTenants(),
            reports=self.reports,
            announcements=self.announcements,
        )
        self.scheduler, self.outbox = service.scheduler, service.outbox
        self.number = 0

    def admit(self, seconds: float = 0, **changes: Any) -> Request:
        """Enlist one more request, and admit it."""
        self.number += 1
        self.scheduler.enlister.enlist(submission(self.number, **changes), self.limits, after(seconds))
        read_set = self.scheduler.admitter.read(self.limits, after(seconds))
        plan = decide(read_set.snapshot, self.limits, after(seconds))
        self.scheduler.admitter.commit(plan, read_set, self.limits, after(seconds))
        found = self.scheduler.tables.requests.get(submission(self.number).request_id)
        assert found is not None
        assert found.state is State.ADMITTED, plan.waits
        return found

    def run(self, usd: str = "0.05", seconds: float = 60, **changes: Any) -> ExecutionRecord:
        """Let one more request run to its end."""
        begun = changes.pop("begun", 0.0)
        request = self.admit(
            begun, **{k: changes.pop(k) for k in ("tenant_id", "data_set", "tier") if k in changes}
        )
        when = after(begun + seconds)
        record = execution(request, usd, **{"ended_at": when, "recorded_at": when} | changes)
        assert self.end(request, record, begun + seconds)
        return record

    def end(self, request: Request, record: ExecutionRecord, seconds: float = 60) -> bool:
        ends = [End(request=request, state=record.state, execution=record)]
        return self.scheduler.completer.finish(ends, self.limits, after(seconds)) == [True]

    def totals(self, month: str = "2026-11", tenant_id: str | None = None) -> list[Totals]:
        return list(self.book.totals(month, tenant_id))


def test_an_execution_is_written_and_read_back_as_it_was() -> None:
    steps = (
        priced(step(job=job(metrics=(("loss", 0.25),), artifact_uri="s3://m", spot=True)), PRICES),
        priced(step("Strange", kind="AutoML", job=None), PRICES),
        StepRecord(step=step(job=WAITING), seconds=None, cost_usd=None, is_final=False, flags=("it runs",)),
        priced(step(job=job(instance_type=None, instance_count=None, volume_gb=0)), PRICES),
    )
    made = execution(
        Harness().admit(), steps=steps, unknown=2, is_final=False, reason="x", expected_seconds=5, revision=3
    )
    key = {"pk": "request#1", "sk": "attempt#0001"}
    assert execution_from(execution_item(made) | key) == made


def test_an_end_books_its_execution_its_month_its_past_and_its_pace_once() -> None:
    harness = Harness()
    request = harness.admit()
    record = execution(request, "0.07", ended_at=after(60))
    assert harness.end(request, record)
    assert not harness.end(request, record), "the second of two recorders"
    assert harness.book.executions(request.request_id) == [record]
    (totals,) = harness.totals()
    assert (totals.usd, totals.executions, totals.succeeded) == (Decimal("0.07"), 1, 1)
    assert [run.usd for run in harness.book.past("acme", "set-1")] == [Decimal("0.07")]
    assert harness.book.pace("acme").usd == Decimal("0.07")
    assert harness.scheduler.tables.ledger.read().spent_in == {"2026-11 basic": Decimal("0.07")}


def test_an_attempt_that_goes_back_to_the_queue_is_booked_too() -> None:
    harness = Harness()
    request = harness.admit()
    failed = execution(request, "0.01", state=State.FAILED, reason="Train: CapacityError")
    harness.scheduler.completer.requeue(
        request, LIMITS, after(60), due_at=after(60), reason="CapacityError", execution=failed, failed=True
    )
    assert (
        harness.scheduler.completer.requeue(
            request, LIMITS, after(61), due_at=after(61), reason="again", execution=failed
        )
        == []
    )
    (totals,) = harness.totals()
    assert (totals.executions, totals.failed, totals.usd) == (1, 1, Decimal("0.01"))
    assert harness.book.past("acme", "set-1") == (), "nothing is learnt from what failed"
    life = harness.scheduler.tables.requests.get(request.request_id)
    assert life is not None
    assert [(entry.state, entry.cause) for entry in life.history] == [
        (State.QUEUED, "upload"),
        (State.ADMITTED, ""),
        (State.QUEUED, "CapacityError"),
    ]


def test_many_ends_at_once_are_booked_in_parts() -> None:
    harness = Harness(policy(tier(quota=40, running_max_per_tenant=40), running_max=40))
    requests = [harness.admit(tenant_id=f"t{number}") for number in range(25)]
    ends = [End(request=r, state=State.SUCCEEDED, execution=execution(r, "0.01")) for r in requests]
    assert harness.scheduler.completer.finish(ends, harness.limits, after(60)) == [True] * 25
    assert sum(totals.usd for totals in harness.totals()) == Decimal("0.25")


def test_a_long_life_keeps_its_begin_and_its_end() -> None:
    harness = Harness()
    request = harness.admit()
    for number in range(60):
        harness.scheduler.completer.requeue(
            request, LIMITS, after(number), due_at=after(number), reason=f"try {number}"
        )
        read_set = harness.scheduler.admitter.read(LIMITS, after(number))
        harness.scheduler.admitter.commit(
            decide(read_set.snapshot, LIMITS, after(number)), read_set, LIMITS, after(number)
        )
        found = harness.scheduler.tables.requests.get(request.request_id)
        assert found is not None
        request = found
    assert len(request.history) <= 37
    assert request.history[0].cause == "upload"
    assert request.history[-2].cause == "try 59"


# --- what is owed -------------------------------------------------------------------------------------------


def test_a_record_that_came_early_is_put_right_with_all_that_was_booked() -> None:
    harness = Harness(policy(tier(), tenants={"acme": TenantPolicy(budget=hard("1"))}))
    request = harness.admit()
    early = StepRecord(step=step(job=WAITING), seconds=None, cost_usd=None, is_final=False)
    record = execution(request, "0", steps=(early,), unknown=1, is_final=False)
    harness.end(request, record)
    reserved = request.reserved_usd
    assert harness.scheduler.tables.queues.get("basic", "acme").spent_usd == reserved, (
        "as much as it may have cost"
    )
    harness.reports.report = ExecutionReport(steps=(step(job=WAITING),))
    assert harness.outbox.relay(after(300)).corrected == [], "SageMaker says no more than it did"
    harness.reports.report = ExecutionReport(steps=(step(),))
    relayed = harness.outbox.relay(after(600))
    cost = Decimal("0.120753")
    assert [one.cost_usd for one in relayed.corrected] == [cost]
    (kept,) = harness.book.executions(request.request_id)
    assert (kept.cost_usd, kept.unknown, kept.is_final, kept.revision) == (cost, 0, True, 1)
    (totals,) = harness.totals()
    assert (totals.usd, totals.unknown, totals.executions) == (cost, 0, 1)
    assert harness.scheduler.tables.queues.get("basic", "acme").spent_usd == cost
    told = harness.scheduler.tables.requests.get(request.request_id)
    assert told is not None
    assert told.outcome is not None
    assert (told.outcome.cost_usd, told.outcome.cost_unknown) == (str(cost), 0)
    assert harness.scheduler.tables.ledger.read().spent_in == {"2026-11 basic": cost}
    assert (harness.book.outbox_entries(), harness.outbox.relay(after(900)).corrected) == ([], [])


def test_a_success_of_which_no_step_is_told_costs_its_budgets_what_it_reserved() -> None:
    harness = Harness(policy(tier(), tenants={"acme": TenantPolicy(budget=hard("1"))}))
    request = harness.admit()
    record = executed(request, ExecutionReport(), PRICES, after(60), State.SUCCEEDED)
    harness.end(request, record)
    assert harness.scheduler.tables.queues.get("basic", "acme").spent_usd == request.reserved_usd > 0
    harness.outbox.relay(after(90) + GIVEN_UP)
    (totals,) = harness.totals()
    assert (totals.unknown, totals.charged_usd) == (1, request.reserved_usd)


def test_what_sagemaker_never_says_is_given_up_with_its_flags_and_never_costs_nothing() -> None:
    harness = Harness()
    request = harness.admit()
    forgotten = step(job=None, job_missing=True)
    early = StepRecord(step=step(job=WAITING), seconds=None, cost_usd=None, is_final=False)
    harness.end(request, execution(request, "0", steps=(early,), unknown=1, is_final=False))
    harness.reports.report = ExecutionReport(steps=(step(job=WAITING),))
    harness.outbox.relay(after(60) + GIVEN_UP - timedelta(minutes=5))
    assert harness.book.outbox_entries()
    relayed = harness.outbox.relay(after(70) + GIVEN_UP)
    assert (len(relayed.given_up), harness.book.outbox_entries()) == (1, [])
    (totals,) = harness.totals()
    assert (totals.usd, totals.unknown) == (Decimal(0), 1)
    assert priced(forgotten, PRICES).is_final, "a job that is gone is not waited for"


def test_one_thing_that_fails_holds_up_no_other() -> None:
    harness = Harness(
        policy(tier(quota=3, running_max_per_tenant=3), tenants={"acme": TenantPolicy(budget=hard("1"))})
    )
    request = harness.admit()
    early = StepRecord(step=step(job=WAITING), seconds=None, cost_usd=None, is_final=False)
    harness.end(request, execution(request, "0", steps=(early,), unknown=1, is_final=False))
    harness.run("0.6", begun=100)

    def gone(execution_arn: str) -> ExecutionReport:
        raise ConnectionError("SageMaker is away")

    harness.reports.read = gone  # type: ignore[method-assign]
    relayed = harness.outbox.relay(after(300))
    assert list(relayed.failed.values()) == ["ConnectionError: SageMaker is away"]
    assert [entry.what for entry in relayed.published] == ["budget"]


def test_thresholds_are_told_once_each_and_again_in_the_next_month() -> None:
    harness = Harness(policy(tier(), tenants={"acme": TenantPolicy(budget=hard("1"))}))
    told: list[int] = []
    for number, usd in enumerate(("0.3", "0.3", "0.1", "0.15")):
        harness.run(usd, begun=1000.0 * number)
        harness.outbox.relay(after(1000 * number + 500))
        told = [int(values["percent"]) for what, values in harness.announcements.told if what == "budget"]
    assert told == [50, 80]
    values = harness.announcements.told[0][1]
    assert (values["tenant_id"], values["month"], values["spent_usd"]) == ("acme", "2026-11", Decimal("0.6"))
    december = (datetime(2026, 12, 1, 9, tzinfo=UTC) - NOW).total_seconds()
    harness.run("0.5", begun=december, month="2026-12")
    harness.outbox.relay(after(december + 100))
    assert harness.announcements.told[-1][1]["month"] == "2026-12"
    assert harness.scheduler.tables.queues.get("basic", "acme").spent_usd == Decimal("0.5")


def test_a_raised_budget_that_is_spent_at_once_is_told_again() -> None:
    harness = Harness(policy(tier(), tenants={"acme": TenantPolicy(budget=soft("1"))}))
    harness.run("1")
    harness.outbox.relay(after(500))
    harness.limits = policy(tier(), tenants={"acme": TenantPolicy(budget=soft("2"))})
    harness.run("1", begun=1000)
    harness.outbox.relay(after(2000))
    assert [int(values["percent"]) for _, values in harness.announcements.told] == [100, 100]
    assert harness.scheduler.tables.queues.get("basic", "acme").warned == 100


def test_a_tiers_threshold_is_told_once() -> None:
    harness = Harness(policy(tier(quota=4, running_max_per_tenant=4, budget=hard("1")), running_max=4))
    harness.run("0.3", tenant_id="a")
    harness.run("0.3", tenant_id="b", begun=200)
    for _ in range(2):
        harness.outbox.relay(after(300))
    ((_, values),) = harness.announcements.told
    assert (values["tier"], values["percent"], values["spent_usd"]) == ("basic", 50, Decimal("0.6"))


@pytest.mark.parametrize("by", ["end", "requeue", "correction"])
def test_what_costs_more_than_was_reserved_undoes_decisions_on_a_tiers_budget(by: str) -> None:
    basic = tier(quota=4, running_max_per_tenant=4, budget=soft("1"))
    harness = Harness(policy(basic, running_max=4))
    ended = harness.run("0.1", begun=-500)
    request = harness.admit()
    harness.scheduler.enlister.enlist(submission(99, tenant_id="other"), harness.limits, after(1))
    read_set = harness.scheduler.admitter.read(harness.limits, after(1))
    plan = decide(read_set.snapshot, harness.limits, after(1))
    assert plan.admissions
    if by == "end":
        assert harness.end(request, execution(request, "0.8"))
    elif by == "requeue":
        failed = execution(request, "0.8", state=State.FAILED)
        harness.scheduler.completer.requeue(
            request, harness.limits, after(2), due_at=after(2), reason="x", execution=failed, failed=True
        )
    else:
        dearer = replace(ended, cost_usd=Decimal("0.8"), revision=ended.revision + 1)
        harness.scheduler.completer.correct(ended, dearer, harness.limits, after(2))
    with pytest.raises(Conflict):
        harness.scheduler.admitter.commit(plan, read_set, harness.limits, after(3))


def test_an_end_that_leaves_a_budget_more_undoes_no_decision() -> None:
    harness = Harness(policy(tier(quota=4, running_max_per_tenant=4, budget=hard("1")), running_max=4))
    request = harness.admit()
    harness.scheduler.enlister.enlist(submission(99, tenant_id="other"), harness.limits, after(1))
    read_set = harness.scheduler.admitter.read(harness.limits, after(1))
    plan = decide(read_set.snapshot, harness.limits, after(1))
    assert harness.end(request, execution(request, "0.2"))
    assert harness.scheduler.admitter.commit(plan, read_set, harness.limits, after(3))


def test_an_unusual_hour_is_told_once() -> None:
    harness = Harness()
    for number in range(8):
        harness.run("1", begun=3600.0 * number)
    for number in range(6):
        harness.run("2", begun=3600.0 * 9 + 100 * number)
        harness.outbox.relay(after(3600 * 9 + 100 * number + 90))
    found = [values for what, values in harness.announcements.told if what == "pace"]
    assert len(found) == 1
    assert found[0]["usd"] > 3


# --- queries ------------------------------------------------------------------------------------------------


def test_requests_are_found_by_tenant_and_time_by_state_by_data_set_and_by_tier() -> None:
    harness = Harness()
    harness.run(data_set="churn")
    harness.run(begun=100, data_set="sales", state=State.FAILED)
    harness.run(begun=200, tenant_id="other", data_set="churn")
    scheduler = harness.scheduler
    assert [r.data_set for r in scheduler.tables.requests.of_tenant("acme", since=after(50))] == ["sales"]
    assert [r.data_set for r in scheduler.tables.requests.of_tenant("acme", until=after(50))] == ["churn"]
    assert [r.request_id for r in scheduler.tables.requests.of_data_set("acme", "churn")] == [
        submission(1).request_id
    ]
    assert [r.data_set for r in scheduler.tables.requests.ended("basic", State.FAILED, "2026-11-21")] == ["sales"]
    assert len(scheduler.tables.requests.ended("basic", State.SUCCEEDED, "2026-11-21")) == 2
    assert scheduler.tables.requests.ended("basic", State.SUCCEEDED, "2026-11-20") == []
    assert scheduler.tables.requests.ended("premium", State.SUCCEEDED, "2026-11-21") == []


def test_executions_are_listed_by_tenant_and_month_and_by_day_over_many_pages() -> None:
    harness = Harness()
    for number in range(230):
        harness.run("0.01", begun=100.0 * number)
    begin = datetime(2026, 11, 1, tzinfo=UTC)
    found = harness.book.executions_of_month("acme", "2026-11", begin, begin + timedelta(days=30))
    assert len({record.request_id for record in found}) == 230
    assert [r.admitted_at for r in found] == sorted(r.admitted_at for r in found)
    assert (
        len(list(harness.book.executions_of_day("2026-11-21")))
        + len(list(harness.book.executions_of_day("2026-11-22")))
        == 230
    )


def test_what_an_earlier_tenant_of_the_id_spent_this_month_counts() -> None:
    harness = Harness()
    harness.run("0.4")
    assert harness.scheduler.operations.forget_queue("basic", "acme")
    harness.scheduler.operations.carry_month("basic", "acme", after(500))
    harness.scheduler.operations.carry_month("basic", "acme", after(500))
    assert harness.scheduler.tables.queues.get("basic", "acme").spent_usd == Decimal("0.4")
    harness.scheduler.operations.carry_month("basic", "never", after(500))
    assert harness.scheduler.tables.queues.get("basic", "never").revision == 0


def test_a_tenant_can_be_forgotten_and_no_other_is() -> None:
    harness = Harness()
    for number in range(200):
        harness.run("0.01", begun=100.0 * number, data_set=f"set{number % 120}")
    harness.run("0.5", tenant_id="other", begun=50_000)
    calls = 1
    while harness.book.forget("acme", after(90_000)):
        calls += 1
    while harness.book.forget_trainings("acme"):
        calls += 1
    assert (harness.totals(tenant_id="acme"), harness.book.executions(submission(1).request_id)) == ([], [])
    assert harness.book.past("acme", "set7") == ()
    assert [t.usd for t in harness.totals()] == [Decimal("0.5")]
    assert calls < 12


# --- reports ------------------------------------------------------------------------------------------------


def total(tenant_id: str, usd: str, **changes: Any) -> Totals:
    defaults: dict[str, Any] = {"tier": "basic", "data_set": "churn", "algorithm": "linear", "executions": 1}
    return Totals(month="2026-11", tenant_id=tenant_id, usd=Decimal(usd), **defaults | changes)


def test_a_report_has_rows_that_add_up_to_the_cent_and_what_is_attributed_apart() -> None:
    gb = 1024**3
    found = [
        total("a", "0.005", data_bytes=10 * gb),
        total("a", "0.005", tier="premium", data_bytes=4 * gb),
        total("b", "0.005", unknown=2),
        total("c", "1.334999"),
    ]
    made = cost_report(found, By.TENANT, PRICES)
    assert [row.name for row in made.rows] == ["c", "a", "b"]
    assert sum(row.shown_usd for row in made.rows) == made.total.shown_usd == Decimal("1.35")
    assert made.total.unknown == 2
    (a,) = [row for row in made.rows if row.name == "a"]
    assert a.storage_usd == 10 * Decimal("0.023"), "a data set is stored once"
    assert (a.scheduler_usd, a.executions) == (Decimal("0.0002"), 2)
    for by in By:
        again = cost_report(found, by, PRICES)
        assert sum(row.shown_usd for row in again.rows) == Decimal("1.35")
        assert sum((row.storage_usd or 0) for row in again.rows) == 10 * Decimal("0.023")


def test_booked_and_billed_are_compared_tenant_by_tenant() -> None:
    found = differences([total("a", "10"), total("b", "1")], {"a": Decimal("11"), "": Decimal("0.5")})
    assert [(one.tenant_id, one.usd) for one in found] == [
        ("a", Decimal(1)),
        ("b", Decimal(-1)),
        (UNTAGGED, Decimal("0.5")),
    ]
    assert found[1].share is None


# --- usage out ----------------------------------------------------------------------------------------------


@dataclass
class Files:
    kept: dict[str, bytes] = field(default_factory=dict)

    def put(self, day: str, rows: IO[bytes]) -> str:
        self.kept[day] = rows.read()
        return f"s3://billing/usage/day={day}"


def rows_of(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(gzip.decompress(data).decode())))


def usage_of(harness: Harness) -> tuple[Usage, Files]:
    files = Files()
    usage = Usage(
        book=harness.book,
        inference=InferenceBook(store=harness.store, retention=timedelta(days=400)),
        files=files,
        account_id="1" * 12,
        region="us-east-1",
        stage="dev",
        retention=timedelta(days=400),
    )
    return usage, files


def test_a_day_is_exported_as_focus_rows_the_same_bytes_each_time() -> None:
    harness = Harness()
    harness.run("0.120753", steps=(priced(step(), PRICES),))
    strange = priced(step("Strange", kind="AutoML", job=None), PRICES)
    harness.run(
        "0", begun=100, steps=(strange, priced(step("Free", kind="Condition", job=None), PRICES)), unknown=1
    )
    usage, files = usage_of(harness)
    assert usage.export("2026-11-21") == "s3://billing/usage/day=2026-11-21"
    first = files.kept["2026-11-21"]
    usage.export("2026-11-21")
    assert files.kept["2026-11-21"] == first
    train, unknown = rows_of(first)
    assert tuple(train) == COLUMNS
    assert (train["BilledCost"], train["ConsumedQuantity"], train["ListUnitPrice"]) == (
        "0.120753",
        "1.000000",
        "0.120753",
    )
    assert (train["SubAccountId"], train["BillingPeriodStart"]) == ("acme", "2026-11-01T00:00:00Z")
    assert json.loads(train["Tags"])["trainyard:stage"] == "dev"
    assert (unknown["BilledCost"], unknown["x_CostUnknown"]) == ("", "true")


def test_each_day_is_exported_once_it_is_over_and_late_records_on_the_day_they_are_put_right() -> None:
    harness = Harness()
    harness.run("0.1")
    request = harness.admit(seconds=100)
    early = StepRecord(step=step(job=WAITING), seconds=None, cost_usd=None, is_final=False)
    harness.end(
        request, execution(request, "0", steps=(early,), unknown=1, is_final=False, recorded_at=after(150)), 150
    )
    usage, files = usage_of(harness)
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    harness.book.note("export", {"until": "2026-11-20"})
    assert usage.export_until(midnight + timedelta(minutes=10)) == []
    assert len(usage.export_until(midnight + timedelta(hours=1))) == 1
    assert len(rows_of(files.kept["2026-11-21"])) == 1, "what is not settled is not exported"
    harness.reports.report = ExecutionReport(steps=(step(),))
    harness.outbox.relay(midnight + timedelta(hours=2))
    assert usage.export_until(midnight + timedelta(hours=3)) == []
    assert len(usage.export_until(midnight + timedelta(days=2, hours=1))) == 2
    assert [row["x_RequestId"] for row in rows_of(files.kept["2026-11-22"])] == [request.request_id]
    assert rows_of(files.kept["2026-11-23"]) == []


def test_a_days_file_is_not_written_again_once_its_records_may_have_been_removed() -> None:
    usage, files = usage_of(Harness())
    assert usage.export_again(date(2026, 1, 1), datetime(2027, 2, 4, tzinfo=UTC))
    with pytest.raises(Refused, match="records are kept for 400 days, so those of 2026-01-01 may be gone"):
        usage.export_again(date(2026, 1, 1), datetime(2027, 2, 5, tzinfo=UTC))
    assert list(files.kept) == ["2026-01-01"]


# --- statements ---------------------------------------------------------------------------------------------


@dataclass
class Pages:
    written: dict[str, str] = field(default_factory=dict)

    def put(self, tenant: Tenant, key: str, page: str) -> str:
        self.written[f"{tenant.bucket}/{key}"] = page
        return key


def test_a_statement_adds_up_names_every_training_and_escapes_what_others_wrote() -> None:
    harness = Harness()
    records = [
        harness.run("0.333", begun=600.0 * n, ended_at=after(86_400 * n), data_set="churn") for n in range(4)
    ]
    bad = harness.run(
        "0.333", begun=9000, data_set="sales", state=State.FAILED, reason="<script>alert(1)</script>"
    )
    page = statement("acme", "2026-11", [*records, bad], after(0))
    assert "1.67 USD" in page, "1.665 is rounded half up"
    assert page.count("<tr><td class=k>2026-11") == 5
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<rect") == 4, "a bar for each day with cost; the last run shares the first one's"


def test_last_months_statements_are_written_when_they_are_due_and_go_on_where_time_ran_out() -> None:
    harness, pages = Harness(), Pages()
    for number in range(3):
        harness.run("0.1", begun=100.0 * number, tenant_id=f"t{number}")
    known = MemoryTenants(tenant("t0"), tenant("t1", state=TenantState.DELETED), tenant("t2"))
    monthly = MonthlyStatements(
        book=harness.book, tenants=known, statements=Statements(book=harness.book, files=pages)
    )
    assert monthly.write_due(datetime(2026, 12, 3, 23, tzinfo=UTC)) == 0, "late corrections are still coming in"
    looks = iter([False, True])
    due = datetime(2026, 12, 4, 1, tzinfo=UTC)
    assert monthly.write_due(due, lambda: next(looks)) == 1
    assert monthly.write_due(due + timedelta(hours=1)) == 1
    assert monthly.write_due(due + timedelta(hours=2)) == 0
    assert sorted(pages.written) == [f"trainyard-t-t{n}/{FOLDER}/2026-11.html" for n in (0, 2)]


@dataclass
class PagesBut(Pages):
    """Storage in which one tenant's pages cannot be written."""

    denied: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def put(self, tenant: Tenant, key: str, page: str) -> str:
        self.asked.append(tenant.tenant_id)
        if tenant.tenant_id in self.denied:
            raise PermissionError(tenant.tenant_id)
        return Pages.put(self, tenant, key, page)


def test_a_statement_that_cannot_be_written_keeps_no_other_tenant_from_its_own() -> None:
    harness, pages = Harness(), PagesBut(denied={"t0"})
    for number in range(3):
        harness.run("0.1", begun=100.0 * number, tenant_id=f"t{number}")
    known = MemoryTenants(*(tenant(f"t{number}") for number in range(3)))
    monthly = MonthlyStatements(
        book=harness.book, tenants=known, statements=Statements(book=harness.book, files=pages)
    )
    due, failed = datetime(2026, 12, 4, 1, tzinfo=UTC), []

    def write(hours: int, looks: int = 99) -> int:
        left = iter([False] * looks + [True])
        return monthly.write_due(
            due + timedelta(hours=hours), lambda: next(left), lambda name, error: failed.append(name)
        )

    assert write(0, looks=2) == 1
    assert write(1) == 1
    assert (pages.asked, failed) == (["t0", "t1", "t2"], ["t0"])
    assert write(2) == 0
    assert pages.asked[3:] == failed[1:] == ["t0"], "it alone is tried again, and none is written twice"
    assert write(3, looks=0) == 0
    pages.denied.clear()
    assert write(4) == 1
    assert write(5) == 0
    assert pages.asked[4:] == ["t0"]


def test_statements_that_fail_for_ever_are_given_up_in_a_week_and_where_all_fail_the_next_run_begins_anew() -> (
    None
):
    harness, pages = Harness(), PagesBut(denied={"t0"})
    harness.run("0.1", begun=0, tenant_id="t0")
    known = MemoryTenants(tenant("t0"))
    monthly = MonthlyStatements(
        book=harness.book, tenants=known, statements=Statements(book=harness.book, files=pages)
    )
    for day in (4, 10, 11, 12, 13):
        monthly.write_due(datetime(2026, 12, day, tzinfo=UTC))
    assert pages.asked == ["t0"] * 3
    many = Harness()
    for number in range(FAILURES_MAX + 1):
        many.run("0.1", begun=100.0 * number, tenant_id=f"t{number:03}")
    everyone = [tenant(f"t{number:03}") for number in range(FAILURES_MAX + 1)]
    away = PagesBut(denied={one.tenant_id for one in everyone})
    statements = Statements(book=many.book, files=away)
    monthly = MonthlyStatements(book=many.book, tenants=MemoryTenants(*everyone), statements=statements)
    with pytest.raises(PermissionError):
        monthly.write_due(datetime(2026, 12, 4, 1, tzinfo=UTC))
    away.denied.clear()
    assert monthly.write_due(datetime(2026, 12, 4, 2, tzinfo=UTC)) == FAILURES_MAX + 1


# --- metering and tags --------------------------------------------------------------------------------------


LICENCE = "arn:aws:license-manager::1:license:l-1"


@dataclass
class Market:
    sent: list[MeterRecord] = field(default_factory=list)
    answers: list[Answer | Exception] = field(default_factory=list)

    def send(self, records: Sequence[MeterRecord]) -> dict[str, Answer]:
        answer = self.answers.pop(0) if self.answers else Answer.SUCCESS
        self.sent += records
        if isinstance(answer, Exception):
            raise answer
        return {record.license_arn: answer for record in records}


def metering_of(harness: Harness) -> tuple[Metering, Market]:
    """Return metering that has seen the licence before anything was booked."""
    market = Market()
    bought = {"buyer_account": "2" * 12, "license_arn": LICENCE}
    known = MemoryTenants(tenant(**bought), tenant("sister", **bought), tenant("other"))
    metering = Metering(book=harness.book, tenants=known, marketplace=market)
    for tenant_id in ("acme", "sister"):
        licence_given(harness.book, tenant_id, LICENCE, NOW)
    return metering, market


def test_whole_cents_of_a_licence_are_metered_once_an_hour_and_their_fractions_later() -> None:
    harness = Harness()
    metering, market = metering_of(harness)
    harness.run("0.127")
    harness.run("0.10", tenant_id="sister", begun=50)
    harness.run("9", tenant_id="other", begun=100)
    assert [record.units for record in metering.run(after(300)).sent] == [22]
    harness.run("0.004", begun=400)
    assert metering.run(after(500)).sent == [], "this hour has its record"
    assert [record.units for record in metering.run(after(4000)).sent] == [1]
    assert {record.license_arn for record in market.sent} == {LICENCE}, "who did not buy there is not told of"
    assert [record.hour.hour for record in market.sent] == [12, 13]


def test_what_was_booked_before_the_licence_is_not_told() -> None:
    harness = Harness()
    harness.run("5")
    market = Market()
    bought = MemoryTenants(tenant(buyer_account="2" * 12, license_arn=LICENCE))
    metering = Metering(book=harness.book, tenants=bought, marketplace=market)
    for _ in range(2):
        licence_given(harness.book, "acme", LICENCE, after(200))
    assert metering.run(after(300)).sent == []
    harness.run("0.5", begun=400)
    assert [record.units for record in metering.run(after(500)).sent] == [50]


def test_a_run_across_the_months_end_is_told_in_the_next() -> None:
    harness = Harness()
    metering, _ = metering_of(harness)
    december = (datetime(2026, 12, 1, 9, 30, tzinfo=UTC) - NOW).total_seconds()
    harness.run("0.2")
    metering.run(after(300))
    harness.run("5", begun=december, month="2026-11")
    assert [record.units for record in metering.run(after(december + 300)).sent] == [500]
    assert metering.run(after(december + 7200)).sent == []


@pytest.mark.parametrize("lost", [ConnectionError("cut off"), Answer.UNPROCESSED])
def test_a_record_that_may_not_have_arrived_is_sent_again_as_it_was(lost: Answer | Exception) -> None:
    harness = Harness()
    metering, market = metering_of(harness)
    harness.run("0.5")
    market.answers = [lost]
    if isinstance(lost, Exception):
        with pytest.raises(ConnectionError):
            metering.run(after(300))
    else:
        assert metering.run(after(300)).undelivered == {LICENCE: "Unprocessed"}
    harness.run("0.3", begun=400)
    assert len(metering.run(after(7300)).sent) == 1
    assert market.sent[0] == market.sent[1], "the same hour, the same units"
    assert [record.units for record in metering.run(after(7400)).sent] == [30]


@pytest.mark.parametrize("answer", [Answer.NOT_SUBSCRIBED, Answer.DUPLICATE, Answer.REFUSED])
def test_what_a_refused_record_held_is_told_by_a_later_one(answer: Answer) -> None:
    harness = Harness()
    metering, market = metering_of(harness)
    harness.run("0.5")
    market.answers = [answer]
    assert metering.run(after(300)).undelivered == {LICENCE: answer.value}
    assert metering.run(after(400)).sent == [], "not in the same hour"
    harness.run("0.3", begun=500)
    (record,) = metering.run(after(4000)).sent
    assert (record.units, record.hour.hour) == (80, 13)


@pytest.mark.parametrize(
    ("answers", "units"),
    [
        ([Answer.UNPROCESSED], 70),
        ([ConnectionError("cut off")], 20),
        ([ConnectionError("x"), Answer.UNPROCESSED], 20),
    ],
)
def test_what_is_too_old_to_be_taken_is_told_again_unless_it_may_have_arrived(
    answers: list[Answer | Exception], units: int
) -> None:
    harness = Harness()
    metering, market = metering_of(harness)
    harness.run("0.5")
    market.answers = list(answers)
    for number in range(len(answers)):
        with suppress(ConnectionError):
            metering.run(after(300 + number))
    harness.run("0.2", begun=90_000)
    assert [record.units for record in metering.run(after(90_100)).sent] == [units]


def test_one_refused_late_after_it_may_have_arrived_is_not_told_twice() -> None:
    harness = Harness()
    metering, market = metering_of(harness)
    harness.run("0.5")
    market.answers = [ConnectionError("cut off"), Answer.REFUSED]
    with pytest.raises(ConnectionError):
        metering.run(after(300))
    assert metering.run(after(4000)).undelivered == {LICENCE: "Refused"}
    assert metering.run(after(8000)).sent == []


def test_tenants_that_share_a_licence_may_come_and_go() -> None:
    harness = Harness()
    metering, _ = metering_of(harness)
    harness.run("0.5")
    harness.run("1", tenant_id="sister", begun=50)
    assert [record.units for record in metering.run(after(300)).sent] == [150]
    while harness.book.forget("sister", after(400)):
        pass
    harness.run("0.3", begun=500)
    assert [record.units for record in metering.run(after(4000)).sent] == [30]


@dataclass
class Bill:
    active: dict[str, bool]
    refusal: Exception | None = None
    errors: dict[str, str] = field(default_factory=dict)

    def states(self, names: Sequence[str]) -> dict[str, bool]:
        if self.refusal:
            raise self.refusal
        return {name: self.active[name] for name in names if name in self.active}

    def activate(self, names: Sequence[str]) -> dict[str, str]:
        self.active |= {name: True for name in names if name not in self.errors}
        return self.errors


def test_cost_tags_are_activated_as_soon_as_the_bill_knows_them_and_once_a_day() -> None:
    book = Harness().book
    bill = Bill({COST_TAGS[0]: False, COST_TAGS[1]: True})
    activation = TagActivation(book=book, tags=bill)
    found = activation.run_daily(NOW)
    assert [found[name] for name in COST_TAGS[:3]] == [TagState.ACTIVATED, TagState.ACTIVE, TagState.UNUSED]
    assert activation.run_daily(after(3600)) == {}
    assert activation.run_daily(after(86_400))[COST_TAGS[0]] is TagState.ACTIVE
    bill.errors = {COST_TAGS[2]: "no such tag"}
    bill.active[COST_TAGS[2]] = False
    assert activation.run(after(90_000))[COST_TAGS[2]] is TagState.REFUSED


@pytest.mark.parametrize(
    ("refusal", "state"),
    [(TagsRefused("a linked account may not"), TagState.REFUSED), (ConnectionError("away"), TagState.FAILED)],
)
def test_where_only_the_payer_may_its_command_is_at_hand(refusal: Exception, state: TagState) -> None:
    book = Harness().book
    found = TagActivation(book=book, tags=Bill({}, refusal)).run(NOW)
    assert set(found.values()) == {state}
    note = book.noted("cost tags")
    assert note is not None
    assert str(refusal) in note["why"]
    assert payers_command(COST_TAGS[:1]).endswith("TagKey=trainyard:tenant,Status=Active")


def test_a_processing_step_is_exported_with_its_kind() -> None:
    harness = Harness()
    made = priced(step("Preprocess", job=job(kind=JobKind.PROCESSING, instance_type="ml.t3.medium")), PRICES)
    record = execution(harness.admit(), steps=(made,))
    (row,) = usage_of(harness)[0].rows([record])
    assert (row["SkuId"], row["ResourceType"]) == ("processing/ml.t3.medium", "Processing job")


# --- accounts that move -------------------------------------------------------------------------------------


def early_record(harness: Harness) -> tuple[Request, ExecutionRecord]:
    """Let a run end of which not all is known."""
    request = harness.admit()
    early = StepRecord(step=step(job=WAITING), seconds=None, cost_usd=None, is_final=False)
    record = execution(request, "0", steps=(early,), unknown=1, is_final=False)
    harness.end(request, record)
    harness.reports.report = ExecutionReport(steps=(step(),))
    return request, record


def test_a_correction_finds_the_account_of_a_tenant_that_has_moved() -> None:
    limits = policy(tier(), tier("premium"), tenants={"acme": TenantPolicy(budget=hard("1"))})
    harness = Harness(limits)
    early_record(harness)
    assert harness.scheduler.operations.carry_over("basic", "premium", "acme", after(100))
    harness.outbox.relay(after(300))
    assert harness.scheduler.tables.queues.get("premium", "acme").spent_usd == Decimal("0.120753")
    assert harness.scheduler.tables.queues.get("basic", "acme").revision == 0


def test_a_correction_after_leaving_and_coming_back_takes_nothing_twice() -> None:
    harness = Harness(policy(tier(), tenants={"acme": TenantPolicy(budget=hard("1"))}))
    request, _ = early_record(harness)
    harness.scheduler.operations.forget_queue("basic", "acme")
    harness.scheduler.operations.carry_month("basic", "acme", after(100))
    assert harness.scheduler.tables.queues.get("basic", "acme").spent_usd == request.reserved_usd
    harness.outbox.relay(after(300))
    assert harness.scheduler.tables.queues.get("basic", "acme").spent_usd == Decimal("0.120753")


def test_who_books_nothing_owes_nothing() -> None:
    """The dispatcher may not write the book: a lowered budget must not make its refusals fail."""
    harness = Harness(policy(tier(), tenants={"acme": TenantPolicy(budget=hard("1"))}))
    harness.run("0.6")
    for entry in harness.book.outbox_entries():
        harness.book.done(entry)
    request = harness.admit(seconds=100)
    lowered = policy(tier(), tenants={"acme": TenantPolicy(budget=hard("0.5"))})
    harness.scheduler.completer.requeue(
        request, lowered, after(101), due_at=after(101), reason="quota", by_start=True
    )
    assert harness.book.outbox_entries() == []


def test_what_was_written_before_budgets_had_months_counts_in_the_first() -> None:
    harness = Harness(
        policy(tier(quota=2, running_max_per_tenant=2), tenants={"acme": TenantPolicy(budget=hard("1"))})
    )
    request = harness.admit()
    queue = harness.scheduler.tables.queues.get("basic", "acme")
    old = replace(queue, month="", spent_usd=Decimal("0.5"))
    harness.store.transact(refile(queue, old, NOW))
    without = {name: value for name, value in request_item(request).items() if name not in ("month", "history")}
    assert request_from(without).month == "2026-11"
    harness.admit(seconds=10)
    held = harness.scheduler.tables.queues.get("basic", "acme")
    assert (held.month, held.spent_usd) == ("2026-11", Decimal("0.5"))
    assert harness.book.outbox_entries() == []


def test_ends_that_need_more_than_one_transaction_are_split() -> None:
    profiles = tuple(choice(size) for size in range(1, 9))
    profiles = tuple(replace(one, training_volume_gb=30 + number) for number, one in enumerate(profiles))
    wide = policy(tier(quota=90, running_max_per_tenant=1, instances=profiles), running_max=90)
    harness = Harness(wide)
    requests = []
    for tenant_number in range(10):
        requests.append(harness.admit(tenant_id=f"t{tenant_number}"))
        for profile in range(8):
            harness.number += 1
            size = content(size_bytes=(profile + 1) * 1024 * 1024 - 1)
            waits = submission(harness.number, tenant_id=f"t{tenant_number}", content=size)
            harness.scheduler.enlister.enlist(waits, wide, after(1))
    ends = [End(request=r, state=State.SUCCEEDED, execution=execution(r, "0.01")) for r in requests]
    assert harness.scheduler.completer.finish(ends, wide, after(60)) == [True] * 10
    assert sum(totals.executions for totals in harness.totals()) == 10


def test_a_hundred_executions_of_one_moment_are_all_listed() -> None:
    harness = Harness(policy(tier(quota=200, running_max_per_tenant=1), running_max=200))
    for number in range(150):
        request = harness.admit(tenant_id="acme" if number == 0 else f"t{number}")
        harness.end(request, execution(request, "0.01", tenant_id="acme", recorded_at=after(9), admitted_at=NOW))
    assert len(list(harness.book.executions_of_day("2026-11-21"))) == 150
    assert len(list(harness.book.executions_of_tenant("acme", NOW, after(1)))) == 150


def test_a_metric_that_is_no_number_is_kept() -> None:
    made = execution(
        Harness().admit(), steps=(priced(step(job=job(metrics=(("a", 1e-300), ("b", 2.5)))), PRICES),)
    )
    item = execution_item(made)
    assert execution_from(item) == made
    odd = replace(made.steps[0].step.job or job(), metrics=(("loss", float("nan")),))
    kept = execution_from(execution_item(replace(made, steps=(priced(step(job=odd), PRICES),))))
    assert repr((kept.steps[0].step.job or job()).metrics) == "(('loss', nan),)"


def test_a_todo_that_always_fails_is_given_up_in_the_end() -> None:
    harness = Harness()
    early_record(harness)

    def gone(execution_arn: str) -> ExecutionReport:
        raise ConnectionError("there is no such pipeline")

    harness.reports.read = gone  # type: ignore[method-assign]
    assert harness.outbox.relay(after(300)).failed
    assert len(harness.outbox.relay(after(400) + GIVEN_UP).given_up) == 1
    assert harness.book.outbox_entries() == []


@pytest.mark.parametrize(("job_now", "usd"), [(job(), "0.1"), (replace(job(), billable_seconds=0), "0")])
def test_a_correction_adds_what_it_changes_to_the_hour_of_the_tenant(job_now: JobFacts, usd: str) -> None:
    harness = Harness()
    early = StepRecord(step=step(job=WAITING), seconds=None, cost_usd=None, is_final=False)
    request = harness.admit()
    harness.end(request, execution(request, "0", steps=(early,), unknown=1, is_final=False))
    before = harness.store.items.get(pace_key("acme"))
    harness.reports.report = ExecutionReport(steps=(step(job=job_now),))
    (corrected_record,) = harness.outbox.relay(after(300)).corrected
    hour = harness.store.items.get(pace_key("acme"))
    assert (corrected_record.cost_usd > 0) == (usd != "0")
    assert (hour != before) == (corrected_record.cost_usd > 0)
    assert hour is None or hour["usd"] == corrected_record.cost_usd


def as_dynamodb_answers(value: Any) -> Any:
    """Return a stored value with all numbers as Decimal."""
    if isinstance(value, dict):
        return {name: as_dynamodb_answers(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_dynamodb_answers(inner) for inner in value]
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value


def test_numbers_of_an_execution_come_back_from_dynamodb_as_they_were() -> None:
    made = execution(Harness().admit(), "0.5", expected_seconds=7, expected_usd=Decimal("0.25"), revision=2)
    again = execution_from(as_dynamodb_answers(execution_item(made)))
    assert again == made
    assert (type(again.expected_seconds), again.expected_usd) == (int, Decimal("0.25"))
