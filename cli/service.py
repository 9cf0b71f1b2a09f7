"""The service as a whole: status, pause, policy."""

import difflib
import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime

from cli import dlq, windows
from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.errors import Refused
from trainyard.domain.policy import MB, Policy
from trainyard.domain.requests import State
from trainyard.domain.scheduling import Ledger
from trainyard.domain.tenants import TenantState

NAMED_MAX = 5
"""Paused tenants that are named."""


def status(deployment: Deployment, arguments: Arguments) -> Answer:
    scheduler, now = deployment.scheduler, datetime.now(UTC)
    ledger = scheduler.tables.ledger.read()
    policy = deployment.policies.current().at(now, ledger.epoch)
    backlog = scheduler.tables.queues.backlog(policy)
    running = [request for request in deployment.scheduler.tables.held() if request.state is State.RUNNING]
    rows = [
        {
            "tier": tier.name,
            "slots_used": ledger.used_of_tier(tier.name),
            "slots": tier.quota,
            "running": sum(request.tier == tier.name for request in running),
            "waiting": backlog[tier.name].waiting,
            "oldest_arrived_at": backlog[tier.name].oldest_arrived_at,
        }
        for tier in policy.tiers
    ]
    data = {"paused": ledger.paused, "slots_used": ledger.used, "slots": policy.running_max, "tiers": rows}
    data["expedited"] = [asdict(each) for each in ledger.expedited]
    data |= windows.as_data(policy)
    paused_tenants = [tenant_id for tier in policy.tiers for tenant_id in backlog[tier.name].paused]
    letters = dlq.counts(deployment)
    data |= {
        "paused_tiers": sorted(ledger.paused_tiers),
        "paused_tenants": paused_tenants,
        "dead_letters": letters,
    }
    closed = [
        f"tier {tier.name} is closed at this time: nothing of it starts" for tier in policy.tiers if tier.closed
    ]
    paused = " (paused)" if ledger.paused else ""
    return Answer(
        data=data,
        columns=("TIER", "SLOTS USED", "SLOTS", "RUNNING", "WAITING", "OLDEST ARRIVAL"),
        rows=[tuple(row.values()) for row in rows],
        lines=[
            f"{ledger.used} of {policy.running_max} slots used{paused}; policy version {policy.version}",
            *closed,
            *_paused_lines(ledger, paused_tenants),
            *(f"{count} dead letters in {name}; trainyard dlq list" for name, count in letters.items() if count),
            *windows.lines_about(policy, now),
            *(
                f"first in {each.tier}: {each.request_id} of {each.tenant_id}, expedited by {each.by}: {each.why}"
                for each in ledger.expedited
            ),
        ],
    )


def _paused_lines(ledger: Ledger, tenants: Sequence[str]) -> Iterator[str]:
    """Yield what is paused, with the command that resumes it."""
    if ledger.paused:
        yield "the service is paused; trainyard resume all"
    for name in sorted(ledger.paused_tiers):
        yield f"tier {name} is paused; trainyard resume tier {name}"
    for name in tenants[:NAMED_MAX]:
        yield f"tenant {name} is paused, and has requests waiting; trainyard resume tenant {name}"
    if len(tenants) > NAMED_MAX:
        yield f"{len(tenants) - NAMED_MAX} more tenants are paused"


def pause(deployment: Deployment, arguments: Arguments) -> Answer:
    _set_paused(deployment, arguments, paused=True)
    what = " ".join(filter(None, (arguments.what, arguments.name)))
    return Answer(
        data={"paused": what},
        lines=[f"paused {what}: nothing new starts; running executions continue, uploads are still queued"],
    )


def resume(deployment: Deployment, arguments: Arguments) -> Answer:
    _set_paused(deployment, arguments, paused=False)
    deployment.bell.ring()
    what = " ".join(filter(None, (arguments.what, arguments.name)))
    return Answer(data={"resumed": what}, lines=[f"resumed {what}"])


def _set_paused(deployment: Deployment, arguments: Arguments, *, paused: bool) -> None:
    scheduler, what, name = deployment.scheduler, arguments.what, arguments.name
    if (what == "all") != (name is None):
        raise Refused("give `all`, `tier NAME` or `tenant NAME`")
    if what == "all":
        scheduler.tables.ledger.set_paused(paused)
    elif what == "tier":
        policy = deployment.policies.current()
        if policy.tier(name) is None:
            raise Refused(f"there is no tier {name!r}; the policy has {', '.join(t.name for t in policy.tiers)}")
        scheduler.tables.ledger.set_paused(paused, name)
    else:
        tenant = deployment.tenant(name)
        scheduler.operations.set_tenant_paused(tenant.tier, tenant.tenant_id, paused, datetime.now(UTC))


def policy_show(deployment: Deployment, arguments: Arguments) -> Answer:
    if arguments.at is not None and (arguments.version is not None or arguments.text):
        raise Refused("--at shows the limits of the policy in force: it goes with neither --version nor --text")
    if arguments.version is None and not arguments.text:
        now = datetime.now(UTC)
        at = now if arguments.at is None else windows.parse_time(arguments.at)
        return _policy_answer(deployment.policies.current(), at, now)
    book = deployment.policies
    policy_text = book.in_force() if arguments.version is None else book.version(arguments.version)
    return Answer(
        data={"version": policy_text.version, "text": policy_text.text}, lines=policy_text.text.splitlines()
    )


def policy_diff(deployment: Deployment, arguments: Arguments) -> Answer:
    text = arguments.file.read_text(encoding="utf-8")
    deployment.policies.check(text)
    before = deployment.policies.in_force()
    lines = list(
        difflib.unified_diff(
            before.text.splitlines(),
            text.splitlines(),
            f"version {before.version}, in force",
            str(arguments.file),
            lineterm="",
            n=2,
        )
    )
    return Answer(data={"from_version": before.version, "diff": lines}, lines=lines or ["no difference"])


def policy_history(deployment: Deployment, arguments: Arguments) -> Answer:
    versions = deployment.policies.history()
    rows = [(f.version, f.applied_at and f.applied_at.strftime("%Y-%m-%d %H:%M:%S"), f.note) for f in versions]
    return Answer(
        data=[{"version": f.version, "applied_at": f.applied_at, "note": f.note} for f in versions],
        columns=("VERSION", "APPLIED", "NOTE"),
        rows=rows,
        below="NOTE",
        lines=["the first one is in force; `trainyard policy show --version N` prints a version"],
    )


def policy_rollback(deployment: Deployment, arguments: Arguments) -> Answer:
    text = deployment.policies.version(arguments.version).text
    _refuse_tiers_without_queue(deployment, parse_policy(text, 0))
    _refuse_tiers_in_use(deployment, parse_policy(text, 0))
    refuse_what_jobs_may_not(deployment, parse_policy(text, 0))
    if arguments.dry_run:
        return _policy_answer(deployment.policies.check(text))
    applied = deployment.policies.rollback(arguments.version, datetime.now(UTC))
    deployment.bell.ring()
    return _policy_answer(applied)


def policy_apply(deployment: Deployment, arguments: Arguments) -> Answer:
    text = arguments.file.read_text(encoding="utf-8")
    _refuse_tiers_without_queue(deployment, parse_policy(text, 0))
    _refuse_tiers_in_use(deployment, parse_policy(text, 0))
    refuse_what_jobs_may_not(deployment, parse_policy(text, 0))
    if arguments.dry_run:
        return _policy_answer(deployment.policies.check(text))
    applied = deployment.policies.apply(text, datetime.now(UTC), note=arguments.note)
    deployment.bell.ring()
    return _policy_answer(applied)


def refuse_what_jobs_may_not(deployment: Deployment, wanted: Policy) -> None:
    """Raise Refused for instance types or runtimes that the pipeline's role would deny."""
    allowed = deployment.outputs["AllowedInstanceTypes"].split(",")
    longest = int(deployment.outputs["JobRuntimeMaxSeconds"])
    by_algorithm = [algorithm.instances for algorithm in wanted.algorithms.values()]
    choices = [c for instances in (*(tier.instances for tier in wanted.tiers), *by_algorithm) for c in instances]
    types = {name for c in choices for name in (c.processing_instance_type, *c.training_instance_types)}
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


def _refuse_tiers_in_use(deployment: Deployment, wanted: Policy) -> None:
    """Raise Refused, naming the tenants, when the policy removes a tier that still has tenants."""
    gone = TenantState.DELETED
    tenants = deployment.tenants.all()
    holders = [t.tenant_id for t in tenants if t.state is not gone and wanted.tier(t.tier) is None]
    if holders:
        shown = ", ".join(holders[:5]) + (f" and {len(holders) - 5} more" if len(holders) > 5 else "")
        raise Refused(
            f"the policy removes the tier of {shown}: keep it, or move the tenants first (`trainyard tenant move`)"
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
