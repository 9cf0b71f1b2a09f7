"""Tenant administration: steps that can be repeated, in an order that lets a broken run be run again."""

from typing import Any

import pytest

from tests.build import NOW, policies, policy, submission, tier, waiting_room
from trainyard.adapters.memory.edges import MemoryTenants
from trainyard.adapters.memory.store import MemoryStore
from trainyard.application.tenants import TenantAdministration, Wish
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Algorithm, Tenant, TenantState, TrainingSettings


class Provisioned:
    """Notes the steps; the one named `breaks` fails once."""

    def __init__(self, breaks: str = "") -> None:
        self.steps: list[str] = []
        self.breaks = breaks

    def __getattr__(self, name: str) -> Any:
        def step(tenant: Tenant) -> None:
            self.steps.append(name)
            if name == self.breaks:
                self.breaks = ""
                raise RuntimeError(f"{name} broke")

        return step


def administration(provisioned: Provisioned, bucket_prefix: str = "t-") -> TenantAdministration:
    store = MemoryStore()
    return TenantAdministration(
        records=MemoryTenants(),
        policies=policies(store, policy(tier("basic"), tier("premium"))),
        waiting_room=waiting_room(store),
        provisioning=provisioned,
        bucket_prefix=bucket_prefix,
        role_prefix="arn:aws:iam::123456789012:role/p/",
        group_prefix="g-",
    )


def wish(tenant_id: str = "acme", tier_name: str = "basic") -> Wish:
    settings = TrainingSettings(algorithm=Algorithm.LINEAR, target="y")
    return Wish(tenant_id=tenant_id, tier=tier_name, settings=settings, data_sets={}, retrain_schedule=None)


def test_a_broken_creation_is_found_and_made_whole_by_another_run() -> None:
    provisioned = Provisioned(breaks="ensure_bucket")
    tenants = administration(provisioned)
    with pytest.raises(RuntimeError, match="ensure_bucket broke"):
        tenants.ensure(wish())
    half = tenants.records.get("acme")
    assert half is not None
    assert half.state is TenantState.CREATING
    assert tenants.ensure(wish()).state is TenantState.ACTIVE


def test_uploads_are_opened_last_and_twice_changes_nothing() -> None:
    tenants = administration(Provisioned())
    first = tenants.ensure(wish())
    assert tenants.provisioning.steps == [  # type: ignore[attr-defined]
        "ensure_role",
        "ensure_model_group",
        "ensure_bucket",
        "ensure_schedule",
    ]
    assert tenants.ensure(wish()) == first


def test_a_suspended_tenant_stays_suspended_when_it_is_brought_up_to_date() -> None:
    tenants = administration(Provisioned())
    tenants.ensure(wish())
    tenants.set_suspended("acme", suspended=True)
    assert tenants.ensure(wish()).state is TenantState.SUSPENDED
    assert tenants.set_suspended("acme", suspended=False).state is TenantState.ACTIVE


@pytest.mark.parametrize(
    ("wished", "reason"),
    [
        (wish("ACME"), "cannot name a tenant"),
        (wish(tier_name="gold"), "there is no tier 'gold'; the policy has basic, premium"),
        (wish("a" * 24), "more than 63 characters"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_before_anything_is_made(wished: Wish, reason: str) -> None:
    provisioned = Provisioned()
    with pytest.raises(Refused, match=reason):
        administration(provisioned, bucket_prefix="x" * 40).ensure(wished)
    assert provisioned.steps == []


def test_nobody_can_be_suspended_who_is_not_there() -> None:
    with pytest.raises(Refused, match="there is no tenant 'nobody'"):
        administration(Provisioned()).set_suspended("nobody", suspended=True)


def test_a_tenant_whose_requests_wait_cannot_move_and_is_told_what_holds_it() -> None:
    tenants = administration(Provisioned())
    tenants.ensure(wish())
    tenants.waiting_room.enlist(submission(1), policy(tier("basic")), NOW)
    with pytest.raises(Refused, match="on tier basic; 1 of its requests wait there, and 0 run; moving"):
        tenants.ensure(wish(tier_name="premium"))
