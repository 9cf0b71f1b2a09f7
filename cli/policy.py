"""The policy: show, compare, apply and roll back."""

import difflib
import fnmatch
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime

from cli import windows
from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import say
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.algorithms import TRANSFORM_INSTANCE_TYPE
from trainyard.domain.errors import Refused
from trainyard.domain.policy import MB, Policy
from trainyard.domain.tenants import Tenant, TenantState

NAMED_MAX = 5
"""Tenants that a refusal names."""


def show(deployment: Deployment, arguments: Arguments) -> Answer:
    if arguments.at is not None and (arguments.version is not None or arguments.text):
        raise Refused("--at shows the limits of the policy in force: it goes with neither --version nor --text")
    if arguments.version is None and not arguments.text:
        now = datetime.now(UTC)
        at = now if arguments.at is None else windows.parse_time(arguments.at)
        return _policy_answer(deployment.policies.current(), at, now)
    book = deployment.policies
    policy_text = book.in_force() if arguments.version is None else book.version(arguments.version)
    return Answer(
        data={"version": policy_text.version, "text": policy_text.text}, verbatim=policy_text.text.splitlines()
    )


def diff(deployment: Deployment, arguments: Arguments) -> Answer:
    text = arguments.file.read_text(encoding="utf-8")
    deployment.policies.check(text)
    version = deployment.policies.in_force().version
    lines = _differences(deployment, text, str(arguments.file))
    return Answer(data={"from_version": version, "diff": lines}, verbatim=lines or ["no difference"])


def _differences(deployment: Deployment, text: str, name: str) -> list[str]:
    """Return how a text differs from the policy in force, as a unified diff; [] if it does not."""
    before = deployment.policies.in_force()
    return list(
        difflib.unified_diff(
            before.text.splitlines(),
            text.splitlines(),
            f"version {before.version}, in force",
            name,
            lineterm="",
            n=2,
        )
    )


def history(deployment: Deployment, arguments: Arguments) -> Answer:
    versions = deployment.policies.history()
    return Answer(
        data=[{"version": v.version, "applied_at": v.applied_at, "by": v.by, "note": v.note} for v in versions],
        columns=("VERSION", "APPLIED", "BY", "NOTE"),
        rows=[
            (v.version, v.applied_at and v.applied_at.strftime("%Y-%m-%d %H:%M:%S"), v.by, v.note)
            for v in versions
        ],
        below="NOTE",
        lines=["the first one is in force; `trainyard policy show --version N` prints a version"],
    )


def rollback(deployment: Deployment, arguments: Arguments) -> Answer:
    text = deployment.policies.version(arguments.version).text
    return _put_in_force(
        deployment, arguments, text, f"version {arguments.version}", rolled_back=arguments.version
    )


def apply(deployment: Deployment, arguments: Arguments) -> Answer:
    text = arguments.file.read_text(encoding="utf-8")
    return _put_in_force(deployment, arguments, text, str(arguments.file))


def _put_in_force(
    deployment: Deployment, arguments: Arguments, text: str, name: str, *, rolled_back: int | None = None
) -> Answer:
    """Check a policy, show how it differs, ask, and put it in force."""
    policies, wanted = deployment.policies, parse_policy(text, 0)
    _refuse_tiers_without_queue(deployment, wanted)
    refuse_what_jobs_may_not(deployment, wanted)
    tenants = [tenant for tenant in deployment.tenants.all() if tenant.state is not TenantState.DELETED]
    _refuse_tiers_in_use(tenants, wanted)
    hurt = [] if arguments.force else list(_hurt(tenants, wanted))
    if hurt:
        raise Refused(f"{'; '.join(hurt)}. Change these tenants first, or add --force")
    checked, before = policies.check(text), policies.in_force().version
    changes = _differences(deployment, text, name)
    if not changes:
        return replace(_policy_answer(policies.current()), lines=["no difference: it is in force already"])
    if arguments.dry_run:
        return replace(_policy_answer(checked), verbatim=changes, lines=["nothing was changed"])
    if not arguments.yes:
        _ask(changes)
    by, now = deployment.caller(), datetime.now(UTC)
    if rolled_back is None:
        applied = policies.apply(text, now, note=arguments.note, by=by, after=before)
    else:
        applied = policies.rollback(rolled_back, now, by=by, after=before)
    deployment.bell.ring()
    return _policy_answer(applied)


def _ask(changes: list[str]) -> None:
    """Show the changes, and ask whether to go on; raises Refused if not."""
    if not sys.stdin.isatty():
        raise Refused("nothing was applied: there is no terminal to ask on. See --dry-run, then add --yes")
    for line in changes:
        say(line)
    say("apply this? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("nothing was applied")


def _hurt(tenants: list[Tenant], wanted: Policy) -> Iterator[str]:
    """Yield whom a policy would hurt, and how: their next uploads would be refused."""
    users: dict[str, list[str]] = {}
    for tenant in tenants:
        for settings in (tenant.settings, *tenant.data_sets.values()):
            if settings.algorithm not in wanted.catalogue:
                users.setdefault(settings.algorithm, []).append(tenant.tenant_id)
    for algorithm, ids in users.items():
        yield f"the policy has no algorithm {algorithm}, used by {_names(ids)}"


def _names(ids: list[str]) -> str:
    unique = list(dict.fromkeys(ids))
    more = len(unique) - NAMED_MAX
    return ", ".join(unique[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def refuse_what_jobs_may_not(deployment: Deployment, wanted: Policy) -> None:
    """Raise Refused for instance types or runtimes that the pipeline's role would deny."""
    allowed = deployment.outputs["AllowedInstanceTypes"].split(",")
    longest = int(deployment.outputs["JobRuntimeMaxSeconds"])
    by_algorithm = [algorithm.instances for algorithm in wanted.algorithms.values()]
    choices = [c for instances in (*(tier.instances for tier in wanted.tiers), *by_algorithm) for c in instances]
    types = {name for c in choices for name in (c.processing_instance_type, *c.training_instance_types)}
    # Without batch transforms, their default type need not be allowed.
    types |= {c.transform_instance_type for c in choices} - {TRANSFORM_INSTANCE_TYPE}
    denied = sorted(name for name in types if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed))
    if denied:
        raise Refused(
            f"jobs may not run on {', '.join(denied)}: this deployment allows {', '.join(allowed)} "
            "(stack parameter JobInstanceTypes)"
        )
    most, types_max = (
        max(len(c.training_instance_types) for c in choices),
        int(deployment.outputs["TrainingTypesMax"]),
    )
    if most > types_max:
        raise Refused(
            f"{most} training instance types are named for one choice, and this deployment has no pipeline for "
            "that: deploy with the stack parameter InstancePreferences=true, or name one type"
        )
    if any(tier.spot_wait for tier in wanted.tiers) and deployment.outputs["SpotTraining"] != "true":
        raise Refused(
            "spot: true: this deployment has no pipelines for training on spot capacity: deploy with the stack "
            "parameter SpotTraining=true, or leave it out"
        )
    for tier in wanted.tiers:
        if tier.runtime_max.total_seconds() > longest:
            raise Refused(
                f"tiers.{tier.name}.runtime_max_minutes: this deployment allows jobs to run at most "
                f"{longest // 60} minutes (stack parameter JobRuntimeMaxSeconds)"
            )


def _refuse_tiers_without_queue(deployment: Deployment, wanted: Policy) -> None:
    """Raise Refused when a tier has no queue in this deployment: uploads of its tenants would be lost."""
    missing = [tier.name for tier in wanted.tiers if not deployment.has_tier_queue(tier.name)]
    if missing:
        raise Refused(
            f"there is no queue for tier {', '.join(missing)}: add it to TierQueues in template.yaml and "
            "deploy, then apply the policy"
        )


def _refuse_tiers_in_use(tenants: list[Tenant], wanted: Policy) -> None:
    """Raise Refused, naming the tenants, when the policy removes a tier that still has tenants."""
    holders = [tenant.tenant_id for tenant in tenants if wanted.tier(tenant.tier) is None]
    if holders:
        raise Refused(
            f"the policy removes the tier of {_names(holders)}: keep it, or move the tenants first "
            "(`trainyard tenant move`)"
        )


def _policy_answer(policy: Policy, at: datetime | None = None, now: datetime | None = None) -> Answer:
    """Return the limits of a policy at a time, by default now."""
    now = now or datetime.now(UTC)
    at = at or now
    policy = policy.at(at)
    return Answer(
        data=asdict(replace(policy, base=None)) | windows.as_data(policy),
        columns=(
            "TIER",
            "SLOTS",
            "BORROWS",
            "LENDS",
            "PER TENANT",
            "CEILING",
            "MAX RUNTIME",
            "MIN QUALITY",
            "LARGEST UPLOAD MB",
        ),
        rows=[
            (
                t.name,
                t.quota,
                t.borrowing_limit,
                t.lending_limit,
                t.running_max_per_tenant,
                t.slots_max if t.running_ceiling_per_tenant is None else t.running_ceiling_per_tenant,
                t.runtime_max,
                t.quality_min,
                policy.data_bytes_max(t, "") // MB,
            )
            for t in policy.tiers
        ],
        lines=[
            f"version {policy.version}; {policy.running_max} slots in all; quiet period {policy.quiet_period}, "
            f"maximum delay {policy.delay_max}",
            *([f"limits at {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"] if at != now else []),
            *(f"tier {tier.name} is closed" for tier in policy.tiers if tier.closed),
            *(
                f"tier {tier.name}: first attempts train on spot capacity, and may take {tier.spot_wait} "
                "longer with waiting"
                for tier in policy.tiers
                if tier.spot
            ),
            *windows.lines_about(policy, at),
        ],
    )
