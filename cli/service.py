"""The service as a whole: status, pause, policy."""

from argparse import Namespace
from dataclasses import asdict
from datetime import UTC, datetime

from cli.deployment import Deployment
from cli.show import Answer
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.errors import Refused
from trainyard.domain.policy import Policy
from trainyard.domain.requests import State


def status(deployment: Deployment, arguments: Namespace) -> Answer:
    policy, room = deployment.policies.current(), deployment.waiting_room
    ledger, backlog = room.ledger(), room.backlog(policy)
    running = deployment.waiting_room.active(State.RUNNING)
    rows = [
        {
            "tier": tier.name,
            "slots_used": ledger.used_by_tier.get(tier.name, 0),
            "slots": tier.quota,
            "running": sum(request.tier == tier.name for request in running),
            "waiting": backlog[tier.name].waiting,
            "oldest_arrived_at": backlog[tier.name].oldest_arrived_at,
        }
        for tier in policy.tiers
    ]
    data = {"paused": ledger.paused, "slots_used": ledger.used, "slots": policy.running_max, "tiers": rows}
    paused = " (paused)" if ledger.paused else ""
    return Answer(
        data=data,
        columns=("TIER", "SLOTS USED", "SLOTS", "RUNNING", "WAITING", "OLDEST SINCE"),
        rows=[tuple(row.values()) for row in rows],
        lines=[f"{ledger.used} of {policy.running_max} slots used{paused}; policy version {policy.version}"],
    )


def pause(deployment: Deployment, arguments: Namespace) -> Answer:
    deployment.waiting_room.set_paused(True)
    return Answer(
        data={"paused": True}, lines=["paused: nothing new starts; what runs goes on, uploads still queue"]
    )


def resume(deployment: Deployment, arguments: Namespace) -> Answer:
    deployment.waiting_room.set_paused(False)
    deployment.bell.ring()
    return Answer(data={"paused": False}, lines=["resumed"])


def policy_show(deployment: Deployment, arguments: Namespace) -> Answer:
    return _policy_answer(deployment.policies.current())


def policy_apply(deployment: Deployment, arguments: Namespace) -> Answer:
    text = arguments.file.read_text(encoding="utf-8")
    _refuse_tiers_in_use(deployment, parse_policy(text, 0))
    if arguments.dry_run:
        return _policy_answer(deployment.policies.check(text))
    applied = deployment.policies.apply(text, datetime.now(UTC))
    deployment.bell.ring()
    return _policy_answer(applied)


def _refuse_tiers_in_use(deployment: Deployment, wanted: Policy) -> None:
    """Raise Refused, naming the tenants, when a tier would go that still has some."""
    holders = [t.tenant_id for t in deployment.tenants.all() if wanted.tier(t.tier) is None]
    if holders:
        shown = ", ".join(holders[:5]) + (f" and {len(holders) - 5} more" if len(holders) > 5 else "")
        raise Refused(
            f"the policy lacks the tier of {shown}: keep the tier; tenants cannot be moved or removed yet"
        )


def _policy_answer(policy: Policy) -> Answer:
    return Answer(
        data=asdict(policy),
        columns=("TIER", "SLOTS", "PER TENANT", "MAX RUNTIME", "MIN QUALITY", "LARGEST UPLOAD MB"),
        rows=[
            (t.name, t.quota, t.running_max_per_tenant, t.runtime_max, t.quality_min, t.instances[-1].data_mb_max)
            for t in policy.tiers
        ],
        lines=[
            f"version {policy.version}; {policy.running_max} slots in all; quiet period {policy.quiet_period}, "
            f"at most {policy.delay_max}"
        ],
    )
