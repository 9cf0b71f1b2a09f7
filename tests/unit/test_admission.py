from tests.build import after, policy, tier
from trainyard.domain.admission import (
    Decision,
    Ledger,
    Reason,
    Snapshot,
    TenantQueue,
    Verdict,
    WaitingRequest,
    decide,
)
from trainyard.domain.policy import Policy


def queue(tenant_id: str, *arrivals: float, tier_name: str = "basic", running: int = 0) -> TenantQueue:
    return TenantQueue(
        tenant_id=tenant_id,
        tier=tier_name,
        revision=1,
        running=running,
        waiting=tuple(
            WaitingRequest(
                request_id=f"{tenant_id}-{seconds}",
                data_set=f"{seconds}",
                arrived_at=after(seconds),
                due_at=after(seconds),
            )
            for seconds in arrivals
        ),
    )


def admitted(
    queues: list[TenantQueue], limits: Policy, used: dict[str, int] | None = None, *, paused: bool = False
) -> list[str]:
    return [
        d.request.request_id for d in verdicts(queues, limits, used, paused=paused) if d.verdict is Verdict.ADMIT
    ]


def verdicts(
    queues: list[TenantQueue],
    limits: Policy,
    used: dict[str, int] | None = None,
    *,
    paused: bool = False,
    admissions_max: int = 25,
) -> list[Decision]:
    counts = used or {}
    ledger = Ledger(version=1, used=sum(counts.values()), used_by_tier=counts, paused=paused)
    return decide(Snapshot(ledger=ledger, queues=tuple(queues)), limits, admissions_max=admissions_max)


def test_a_free_slot_goes_to_the_request_that_arrived_first() -> None:
    assert admitted([queue("b", 2), queue("a", 1)], policy(tier(quota=1))) == ["a-1"]


def test_the_tier_that_uses_least_of_its_quota_goes_first() -> None:
    tiers = policy(tier("basic", quota=4), tier("premium", quota=4), running_max=2)
    waiting = [queue("a", 1), queue("b", 2, tier_name="premium")]
    assert admitted(waiting, tiers, {"basic": 1}) == ["b-2"]


def test_no_tier_exceeds_its_quota() -> None:
    limits = policy(tier(quota=2, running_max_per_tenant=9))
    assert len(admitted([queue("a", 1, 2, 3, 4)], limits)) == 2


def test_the_account_limit_holds_across_tiers() -> None:
    limits = policy(tier("basic", quota=4), tier("premium", quota=4), running_max=3)
    waiting = [queue(f"a{n}", n) for n in range(4)] + [queue(f"b{n}", n, tier_name="premium") for n in range(4)]
    assert len(admitted(waiting, limits, {"basic": 1})) == 2


def test_a_tenant_at_its_cap_is_passed_over_and_blocks_nobody() -> None:
    limits = policy(tier(quota=4, running_max_per_tenant=1))
    found = verdicts([queue("a", 1, 2), queue("b", 3)], limits)
    assert [(d.request.request_id, d.reason) for d in found] == [
        ("a-1", Reason.SLOT_FREE),
        ("b-3", Reason.SLOT_FREE),
        ("a-2", Reason.TENANT_CAP),
    ]


def test_inside_a_tier_the_tenant_with_fewer_slots_goes_first() -> None:
    limits = policy(tier(quota=3, running_max_per_tenant=3))
    # a holds one already; b takes two before a's next turn, though a's requests are older.
    waiting = [queue("a", 1, 2, running=1), queue("b", 3, 4)]
    assert admitted(waiting, limits, {"basic": 1}) == ["b-3", "a-1"]


def test_a_burst_of_one_tenant_does_not_delay_another() -> None:
    limits = policy(tier(quota=2, running_max_per_tenant=2))
    assert admitted([queue("burst", 1, 2, 3, 4, 5), queue("light", 6)], limits) == ["burst-1", "light-6"]


def test_while_paused_nobody_goes_and_the_reason_says_so() -> None:
    (found,) = verdicts([queue("a", 1)], policy(), paused=True)
    assert (found.verdict, found.reason) == (Verdict.WAIT, Reason.ALL_PAUSED)


def test_a_limit_lowered_below_use_admits_nobody() -> None:
    assert admitted([queue("a", 1)], policy(tier(quota=1)), {"basic": 3}) == []


def test_each_wait_names_the_first_limit_in_its_way() -> None:
    limits = policy(tier("basic", quota=2), tier("gone", quota=1), running_max=2)
    full = verdicts([queue("a", 1)], limits, {"basic": 1, "premium": 1})
    of_tier = verdicts([queue("a", 1)], policy(tier(quota=1)), {"basic": 1})
    unknown = verdicts([queue("a", 1, tier_name="nowhere")], limits)
    assert [d[0].reason for d in (full, of_tier, unknown)] == [
        Reason.ACCOUNT_LIMIT,
        Reason.TIER_QUOTA,
        Reason.UNKNOWN_TIER,
    ]


def test_no_more_are_admitted_than_fit_one_transaction() -> None:
    limits = policy(tier(quota=50, running_max_per_tenant=50), running_max=50)
    found = verdicts([queue("a", *range(40))], limits, admissions_max=25)
    assert sum(d.verdict is Verdict.ADMIT for d in found) == 25
    assert {d.reason for d in found[25:]} == {Reason.SLOT_FREE}
