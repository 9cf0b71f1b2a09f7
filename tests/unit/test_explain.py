"""Why a request waits, and when it may start."""

from datetime import timedelta
from typing import Any

import pytest

from testing.memory_store import MemoryStore
from testing.service import policies_in_force, scheduler_over
from tests.build import after, execution, policy, submission, tier
from trainyard.application.scheduling.completion import End
from trainyard.application.scheduling.explain import CURES, Explain, Explanation, cure_of
from trainyard.domain.admission import decide
from trainyard.domain.errors import Refused
from trainyard.domain.policy import Policy
from trainyard.domain.requests import State
from trainyard.domain.scheduling import Reason
from trainyard.persistence.items import stamp
from trainyard.persistence.ledger import LEDGER
from trainyard.persistence.store import Update

LIMITS = policy(tier(quota=1), quiet_period=timedelta(0))
QUIET = policy(tier(), quiet_period=timedelta(minutes=1))


class Harness:
    def __init__(self, limits: Policy = LIMITS) -> None:
        self.limits, self.store = limits, MemoryStore()
        self.scheduler = scheduler_over(self.store)
        self.explain = Explain(policies=policies_in_force(self.store, limits), scheduler=self.scheduler)

    def enlist(self, number: int, seconds: float = 0, **changes: Any) -> str:
        self.scheduler.enlister.enlist(submission(number, **changes), self.limits, after(seconds))
        return submission(number).request_id

    def admit(self, seconds: float = 0) -> None:
        read_set = self.scheduler.admitter.read(self.limits, after(seconds))
        plan = decide(read_set.snapshot, self.limits, after(seconds))
        if plan.admissions:
            self.scheduler.admitter.commit(plan, read_set, self.limits, after(seconds))

    def end(self, request_id: str, seconds: float) -> None:
        (request,) = self.scheduler.tables.requests.get_all([request_id])
        ran = execution(request, ended_at=after(seconds))
        self.scheduler.completer.finish(
            [End(request=request, state=State.SUCCEEDED, execution=ran)], self.limits, after(seconds)
        )

    def why(self, request_id: str, seconds: float = 10) -> Explanation:
        return self.explain.why(request_id, after(seconds))


def test_position_tenants_before_it_and_expected_start_follow_from_what_waits_and_runs() -> None:
    harness = Harness()
    for number in (1, 2, 3):
        harness.enlist(number, seconds=number, tenant_id=f"t{number}")
    harness.admit(seconds=3)
    found = harness.why(submission(3).request_id)
    assert (found.reason, found.position, found.ahead) == (Reason.TIER_QUOTA, 2, ("t2",))
    # Without history a run is expected to take three jobs of 240 s, and at most twice that in nine of ten cases.
    assert found.earliest == after(3 + 2 * 360)
    assert found.latest == after(3 + 2 * 1440)


def test_the_range_follows_what_runs_really_took() -> None:
    harness = Harness()
    for number in range(6):
        request_id = harness.enlist(number, seconds=1000 * number, data_set="churn")
        harness.admit(seconds=1000 * number)
        harness.end(request_id, seconds=1000 * number + 100 * (number + 1))
    harness.enlist(10, seconds=9000, data_set="churn")
    harness.admit(seconds=9000)
    waits = harness.enlist(11, seconds=9001)
    found = harness.why(waits, seconds=9010)
    # Runs took 100 to 600 s: the median is 350 s, nine tenths took at most 550 s.
    assert (found.earliest, found.latest) == (after(9000 + 350 * 350 / 550), after(9550))


@pytest.mark.parametrize(
    ("limits", "halt", "reason"),
    [
        (LIMITS, "all", Reason.ALL_PAUSED),
        (LIMITS, "tier", Reason.TIER_PAUSED),
        (LIMITS, "tenant", Reason.TENANT_PAUSED),
        (QUIET, "", Reason.NOT_DUE),
        (QUIET, "all", Reason.ALL_PAUSED),
        (QUIET, "tier", Reason.TIER_PAUSED),
        (QUIET, "tenant", Reason.TENANT_PAUSED),
        (LIMITS, "", Reason.SLOT_FREE),
    ],
)
def test_each_reason_comes_with_what_would_let_it_go(limits: Policy, halt: str, reason: Reason) -> None:
    harness = Harness(limits)
    waits = harness.enlist(1)
    if halt == "tenant":
        harness.scheduler.operations.set_tenant_paused("basic", "acme", True, after(1))
    elif halt:
        harness.scheduler.tables.ledger.set_paused(True, "basic" if halt == "tier" else None)
    found = harness.why(waits)
    assert (found.reason, found.cure) == (reason, cure_of(reason, "basic", "acme"))
    assert found.position == 1, "a number, also where nothing lets it start"
    assert (found.earliest is None) == (halt != "")
    upcoming = harness.explain.upcoming(after(10), limit=5)
    assert [each.reason for each in upcoming] == ([] if halt == "tenant" else [reason]), "as passes read them"


def test_one_behind_another_of_its_tenant_waits_for_its_turn() -> None:
    harness = Harness(policy(tier(quota=2, running_max_per_tenant=1)))
    harness.enlist(1)
    waits = harness.enlist(2, seconds=1)
    assert harness.why(waits).reason is Reason.TENANT_CAP


def test_what_does_not_wait_has_no_reason_and_what_is_unknown_is_refused() -> None:
    harness = Harness()
    running = harness.enlist(1)
    harness.admit()
    assert harness.why(running).reason is None
    with pytest.raises(Refused, match="there is no request"):
        harness.why("0" * 32)


def test_a_limit_of_sagemaker_that_was_met_is_told_with_the_next_try() -> None:
    harness = Harness()
    ledger = harness.scheduler.tables.ledger
    waits = harness.enlist(1)
    assert harness.why(waits).throttled is None
    harness.scheduler.tables.store.transact(
        [Update(LEDGER, set={"throttled_to": 0, "throttled_until": stamp(after(100))})]
    )
    assert ledger.read().throttled_to == 0
    explanation = harness.why(waits)
    assert explanation.throttled == (0, after(100))
    assert (explanation.reason, explanation.position) == (Reason.ACCOUNT_LIMIT, 1)


def test_commands_in_cures_name_the_tier_and_the_tenant() -> None:
    commands = [cure_of(reason, "basic", "acme") for reason in Reason if "trainyard resume" in CURES[reason]]
    assert commands == ["trainyard resume tenant acme", "trainyard resume tier basic", "trainyard resume all"]
    assert not any("{" in cure_of(reason, "basic", "acme") for reason in Reason)


def test_every_reason_has_a_cure() -> None:
    assert set(CURES) == set(Reason)


def test_who_is_next_in_each_tier_is_listed_in_the_order_of_starts() -> None:
    harness = Harness(policy(tier(quota=1, running_max_per_tenant=1)))
    running = harness.enlist(1)
    harness.admit()
    later, last = harness.enlist(2, seconds=1, data_set="later"), harness.enlist(3, seconds=2, data_set="last")
    upcoming = harness.explain.upcoming(after(5), limit=10)
    assert [(each.position, each.entry.request_id) for each in upcoming] == [(1, later), (2, last)]
    assert running not in {each.entry.request_id for each in upcoming}
    assert [each.position for each in upcoming] == [
        harness.why(name, seconds=5).position for name in (later, last)
    ]
    assert upcoming[0].latest is not None
    assert upcoming[1].latest is not None
    assert after(5) < upcoming[0].latest <= upcoming[1].latest
    assert [each.reason for each in upcoming] == [harness.why(n, seconds=5).reason for n in (later, last)]
    assert len(harness.explain.upcoming(after(5), limit=1)) == 1
    harness.scheduler.tables.ledger.set_paused(True)
    assert [(each.reason, each.latest) for each in harness.explain.upcoming(after(6), limit=10)] == [
        (Reason.ALL_PAUSED, None)
    ] * 2
