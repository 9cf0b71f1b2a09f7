"""Simulate another policy on recorded or generated arrivals."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.windows import parse_time
from simulation.what_if import (
    HoursResult,
    Outcome,
    generated,
    history_of,
    outcome,
    read_history,
    write_history,
)
from simulation.what_if_picture import picture
from trainyard.contracts.compiled_policy import DEPLOYED
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.errors import Refused
from trainyard.domain.policy import Policy
from trainyard.domain.requests import Request, RequestKind


def simulate(deployment: Deployment, arguments: Arguments) -> Answer:
    candidate = parse_policy(arguments.policy.read_text(encoding="utf-8"), 1, deployment.region)
    today = _today(deployment, arguments)
    jobs = _jobs(deployment, arguments, today)
    if not jobs:
        raise Refused("there is no history to replay: provide arrivals with --history FILE or --generate HOURS")
    if arguments.save_history:
        arguments.save_history.write_text(write_history(jobs), encoding="utf-8")
    begin = _begin(deployment, arguments)
    before, after = outcome(jobs, today, begin), outcome(jobs, candidate, begin)
    if arguments.picture:
        drawn = picture({"today": before, "candidate": after}, {"today": today, "candidate": candidate})
        arguments.picture.write_text(drawn, encoding="utf-8")
    rows = [_tier_row(before, after, number) for number in range(len(before.tiers))]
    lines = [
        "",
        f"{len(jobs)} requests over {max(job.arrives for job in jobs) / 3600:.1f} h   (today → candidate)",
        f"slot utilization {before.slots_use:.1%} → {after.slots_use:.1%}",
        f"fairness         {before.jain:.3f} → {after.jain:.3f}   (Jain index of run time ÷ time in the service)",
        f"training cost    {_usd(before)} → {_usd(after)}   (on-demand prices)",
        f"last run ends    {before.makespan / 3600:.1f} h → {after.makespan / 3600:.1f} h",
    ]
    for name, results in (("today", before.hours), ("candidate", after.hours)):
        lines += _hours_lines(name, results)
    lines += _tenant_lines(before, after)
    if arguments.picture:
        lines.append(f"picture          {arguments.picture}")
    return Answer(
        data={"today": _data(before), "candidate": _data(after)},
        columns=(
            "TIER",
            "REQUESTS",
            "WAIT P50",
            "WAIT P95",
            "WAIT MAX",
            "SLOTS USED",
            "BORROWED",
            "UNSTARTED",
            "DEADLINES MET",
        ),
        rows=rows,
        lines=lines,
    )


def _today(deployment: Deployment, arguments: Arguments) -> Policy:
    """Return the policy to compare with: the given file, the one in force, or the shipped one."""
    if arguments.today:
        return parse_policy(arguments.today.read_text(encoding="utf-8"), 0, deployment.region)
    if arguments.history or arguments.generate:
        try:
            return deployment.policies.current()
        except Exception:  # arrivals from a file need no deployment
            return parse_policy(DEPLOYED.read_text(encoding="utf-8"), 0, deployment.region)
    return deployment.policies.current()


def _jobs(deployment: Deployment, arguments: Arguments, today: Policy) -> list:  # type: ignore[type-arg]
    if arguments.history:
        return read_history(arguments.history)
    if arguments.generate:
        return generated(
            today,
            hours=arguments.generate,
            seed=arguments.seed,
            load=arguments.load,
            per_hour=arguments.per_hour,
        )
    return history_of(_past(deployment))


def _begin(deployment: Deployment, arguments: Arguments) -> datetime:
    """Return the time at which the arrivals begin."""
    if arguments.begins:
        return parse_time(arguments.begins)
    if not arguments.history and not arguments.generate:
        return min(
            request.arrived_at for request in _past(deployment) if request.admitted_at and request.finished_at
        )
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today + timedelta(days=7 - today.weekday())


def _past(deployment: Deployment) -> list[Request]:
    scheduler = deployment.scheduler
    requests = [r for t in deployment.tenants.all() for r in scheduler.tables.requests.of_tenant(t.tenant_id)]
    # The simulator prices and sizes runs as trainings.
    return [request for request in requests if request.kind is RequestKind.TRAINING]


def _hours_lines(name: str, results: list[HoursResult]) -> list[str]:
    """Return the results by windows, where there are any."""
    lines = ["", f"{name}, by the windows open:"] if results else []
    for result in results:
        lines.append(
            f"  {result.windows or 'none':<32} {result.hours:>6.1f} h   "
            f"{result.slots_used_mean:>5.1f} of {result.slots} slots used   "
            f"{result.requests:>6} arrivals, p95 wait {_time(result.wait_p95)}"
        )
    return lines


def _tier_row(before: Outcome, after: Outcome, number: int) -> tuple[object, ...]:
    old = before.tiers[number]
    new = next((tier for tier in after.tiers if tier.tier == old.tier), None)
    if new is None:
        return (old.tier, old.requests)
    return (
        old.tier,
        old.requests,
        f"{_time(old.wait_p50)} → {_time(new.wait_p50)}",
        f"{_time(old.wait_p95)} → {_time(new.wait_p95)}",
        f"{_time(old.wait_max)} → {_time(new.wait_max)}",
        f"{old.slots_used_mean:.1f} → {new.slots_used_mean:.1f}",
        f"{old.borrowed} → {new.borrowed}",
        f"{old.never_started} → {new.never_started}",
        f"{old.deadlines_met} → {new.deadlines_met} of {old.deadlines}" if old.deadlines else "none",
    )


def _tenant_lines(before: Outcome, after: Outcome) -> list[str]:
    """Return the tenants whose waits change most."""
    pairs = list(zip(before.tenants, after.tenants, strict=True))
    pairs.sort(key=lambda pair: -abs(pair[1].wait_p95 - pair[0].wait_p95))
    lines = ["", "tenants whose p95 wait changes most:"]
    for old, new in pairs[:5]:
        lines.append(
            f"  {old.tenant_id:<24} {old.requests:>6} requests   {_time(old.wait_p95)} → {_time(new.wait_p95)}"
        )
    return lines


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _usd(outcome: Outcome) -> str:
    return "unknown" if outcome.cost_usd is None else f"{outcome.cost_usd} USD"


def _data(outcome: Outcome) -> dict[str, object]:
    return {
        "tiers": [asdict(tier) for tier in outcome.tiers],
        "tenants": [asdict(tenant) for tenant in outcome.tenants],
        "by_windows": [asdict(result) for result in outcome.hours],
        "slots_use": outcome.slots_use,
        "jain": outcome.jain,
        "cost_usd": outcome.cost_usd,
        "makespan_seconds": outcome.makespan,
    }
