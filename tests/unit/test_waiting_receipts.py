"""What tenants can read about their requests that wait."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from testing.memory_ports import MemoryReceipts, MemoryTenants
from testing.memory_store import MemoryStore
from testing.service import policies_in_force, scheduler_over
from tests.build import after, hard, policy, submission, tenant, tier
from trainyard.application.scheduling.explain import Explain
from trainyard.application.scheduling.parking import Parking
from trainyard.application.scheduling.waiting_receipts import REQUESTS_MAX, WRITTEN_TOGETHER, WaitingReceipts
from trainyard.domain.admission import decide
from trainyard.domain.errors import Conflict
from trainyard.domain.policy import Policy, TenantPolicy
from trainyard.domain.requests import Request
from trainyard.domain.tenants import Tenant

ONE = policy(tier(quota=1, running_max_per_tenant=1), quiet_period=timedelta(0))


class DeniedFor(MemoryReceipts):
    """Receipts of which those of one tenant cannot be written."""

    tenant_id = "acme"

    def write(self, tenant: Tenant, request: Request, now: datetime, *others: Any) -> bool:
        if tenant.tenant_id == self.tenant_id:
            raise Conflict("its bucket denies it")
        return super().write(tenant, request, now, *others)


@dataclass
class Harness:
    limits: Policy = ONE
    receipts: MemoryReceipts = field(default_factory=MemoryReceipts)
    tenants: tuple[str, ...] = ("acme", "other", "third")

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        self.scheduler = scheduler_over(self.store)
        self.waiting = WaitingReceipts(
            explain=Explain(policies=policies_in_force(self.store, self.limits), scheduler=self.scheduler),
            tenants=MemoryTenants(*(tenant(tenant_id=name) for name in self.tenants)),
            receipts=self.receipts,
        )

    def enlist(self, number: int, tenant_id: str = "acme", **changes: Any) -> str:
        self.scheduler.enlister.enlist(
            submission(number, tenant_id=tenant_id, **changes), self.limits, after(number)
        )
        return submission(number).request_id

    def a_pass(self, seconds: float) -> None:
        """Admit what may start, and park what cannot."""
        now = after(seconds)
        read_set = self.scheduler.admitter.read(self.limits, now)
        plan = decide(read_set.snapshot, self.limits, now)
        if plan.admissions:
            self.scheduler.admitter.commit(plan, read_set, self.limits, now)
        Parking(tables=self.scheduler.tables).park(plan.parked.values(), self.limits, now, "2026-11")

    def said(self, request_id: str) -> dict[str, Any]:
        receipt: Any = self.receipts.written.get(request_id, {})
        return dict(receipt.get("waiting", {}))


def test_who_waits_reads_its_position_and_when_it_starts_and_ends() -> None:
    harness = Harness()
    runs, second, third = (harness.enlist(n, name) for n, name in enumerate(harness.tenants, start=1))
    harness.a_pass(5)
    assert harness.waiting.write(after(10)).written == 2
    assert runs not in harness.receipts.written, "it does not wait"
    # Runs of which nothing is known are expected to take 360 to 1,440 s; the times are rounded to ten minutes.
    assert harness.said(second) == {
        "reason": "it waits until other trainings have ended",
        "position": 1,
        "expected_start": {"earliest": after(0).isoformat(), "latest": after(1800).isoformat()},
        "expected_end": after(3000).isoformat(),
    }
    assert harness.said(third)["position"] == 2
    assert harness.said(third)["expected_start"]["latest"] > harness.said(second)["expected_start"]["latest"]
    assert harness.waiting.write(after(20)).written == 0, "nothing has changed"


def test_who_has_no_budget_left_or_is_paused_reads_so() -> None:
    harness = Harness(limits=policy(tier(), tenants={"acme": TenantPolicy(budget=hard("0.0001"))}))
    poor, paused = harness.enlist(1, "acme"), harness.enlist(2, "other")
    harness.scheduler.operations.set_tenant_paused("basic", "other", True, after(3))
    harness.a_pass(100)
    assert harness.waiting.write(after(110)).written == 2
    assert "your budget for this month" in harness.said(poor)["reason"]
    assert "paused" in harness.said(paused)["reason"]
    for request_id in (poor, paused):
        assert harness.said(request_id)["position"] is None
        assert harness.said(request_id)["expected_start"] == {"earliest": None, "latest": None}


def test_one_tenants_bucket_keeps_no_others_receipt_from_being_written() -> None:
    harness = Harness(receipts=DeniedFor())
    first, second = harness.enlist(1, "acme"), harness.enlist(2, "other")
    harness.scheduler.tables.ledger.set_paused(True, None)
    run = harness.waiting.write(after(10))
    assert (run.written, run.failed) == (1, {first: "Conflict: its bucket denies it"})
    assert "paused" in harness.said(second)["reason"]


def test_a_run_ends_in_time_and_is_bounded() -> None:
    harness = Harness(tenants=("acme",))
    for number in range(REQUESTS_MAX + 5):
        harness.enlist(number, data_set=f"set-{number}")
    harness.scheduler.tables.ledger.set_paused(True, None)
    assert harness.waiting.write(after(99), out_of_time=lambda: True).written == 0
    answers = iter([False, False, True])
    assert harness.waiting.write(after(99), out_of_time=lambda: next(answers)).written == WRITTEN_TOGETHER
    assert harness.waiting.write(after(99)).written == REQUESTS_MAX - WRITTEN_TOGETHER


def test_those_that_are_next_come_first() -> None:
    harness = Harness()
    paused, _, following = (harness.enlist(n, name) for n, name in enumerate(("third", "acme", "other"), start=1))
    harness.scheduler.operations.set_tenant_paused("basic", "third", True, after(4))
    harness.a_pass(5)
    assert harness.waiting.write(after(10)).written == 2
    assert list(harness.receipts.written) == [following, paused]


def test_of_those_that_passes_skip_no_more_are_written_either() -> None:
    names = tuple(f"tenant-{number}" for number in range(REQUESTS_MAX))
    harness = Harness(tenants=names)
    for number, name in enumerate(names):
        for data_set in ("first", "second"):
            harness.enlist(2 * number + (data_set == "second"), name, data_set=data_set)
        harness.scheduler.operations.set_tenant_paused("basic", name, True, after(200))
    assert harness.waiting.write(after(300)).written == REQUESTS_MAX


def test_what_belongs_to_a_deleted_tenant_is_passed_over() -> None:
    harness = Harness(tenants=())
    harness.enlist(1, "gone")
    harness.scheduler.tables.ledger.set_paused(True, None)
    run = harness.waiting.write(after(10))
    assert (run.written, run.failed) == (0, {})
