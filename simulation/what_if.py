"""What-if questions: the same arrivals under today's policy and under a candidate."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from simulation.clock import BEGIN
from simulation.flow import Flow, Job, Run
from trainyard.domain.errors import Refused
from trainyard.domain.policy import Policy
from trainyard.domain.prices import JobKind
from trainyard.domain.requests import Request

HORIZON_MAX = 400 * 24 * 3600.0


@dataclass(frozen=True)
class TierResult:
    """The results of the requests of a tier; times in seconds."""

    tier: str
    requests: int
    wait_p50: float
    wait_p95: float
    wait_max: float
    slots_used_mean: float
    borrowed: int
    never_started: int
    deadlines: int = 0
    """Requests with a deadline."""
    deadlines_met: int = 0


@dataclass(frozen=True)
class HoursResult:
    """The results while the same windows were open."""

    windows: str
    """Their names; "" while none was."""
    hours: float
    slots: int
    slots_used_mean: float
    requests: int
    """That arrived then."""
    wait_p95: float


@dataclass(frozen=True)
class TenantResult:
    tenant_id: str
    requests: int
    wait_p95: float
    slot_hours: float


@dataclass(frozen=True)
class Outcome:
    """The results under a policy."""

    runs: list[Run]
    tiers: list[TierResult]
    tenants: list[TenantResult]
    hours: list[HoursResult]
    """Empty without windows."""
    slots_use: float
    """Share of the account's slots in use until the last execution has ended."""
    jain: float
    """Jain index of the tenants, by the share of the time from arrival to end in which their requests ran."""
    cost_usd: Decimal | None
    makespan: float
    begin: datetime = BEGIN


def history_of(requests: Sequence[Request]) -> list[Job]:
    """Return the jobs of requests that ran; the earliest arrives at 0."""
    ran = [r for r in requests if r.admitted_at and r.finished_at]
    ran.sort(key=lambda request: (request.arrived_at, request.request_id))
    first = ran[0].arrived_at if ran else None
    return [
        Job(
            number,
            (request.arrived_at - first).total_seconds(),
            request.tenant_id,
            request.tier,
            max((request.finished_at - request.admitted_at).total_seconds(), 1.0),
            request.data_bytes / 1024 / 1024,
            ready_by=(request.deadline - first).total_seconds() if request.deadline else None,
        )
        for number, request in enumerate(ran)
        if first and request.finished_at and request.admitted_at
    ]


def read_history(path: Path) -> list[Job]:
    """Read one JSON object per line: arrives_seconds, tenant, tier, run_seconds, and optionally size_mb and
    ready_by_seconds.

    Raises Refused, naming line and reason.
    """
    jobs: list[Job] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                entry: dict[str, Any] = json.loads(line)
                job = Job(
                    number,
                    float(entry["arrives_seconds"]),
                    str(entry["tenant"]),
                    str(entry["tier"]),
                    float(entry["run_seconds"]),
                    float(entry.get("size_mb", 1.0)),
                    ready_by=None if entry.get("ready_by_seconds") is None else float(entry["ready_by_seconds"]),
                )
            except (ValueError, KeyError, TypeError) as error:
                raise Refused(f"{path}, line {number}: {type(error).__name__}: {error}") from error
            if job.seconds <= 0 or job.arrives < 0 or job.arrives > HORIZON_MAX:
                raise Refused(f"{path}, line {number}: times must be positive and within 400 days")
            jobs.append(job)
    return jobs


def write_history(jobs: Sequence[Job]) -> str:
    """Return what `read_history` reads."""
    return "".join(
        json.dumps(
            {
                "arrives_seconds": round(job.arrives, 1),
                "tenant": job.tenant_id,
                "tier": job.tier,
                "run_seconds": round(job.seconds, 1),
                "size_mb": round(job.size_mb, 3),
                **({} if job.ready_by is None else {"ready_by_seconds": round(job.ready_by, 1)}),
            }
        )
        + "\n"
        for job in jobs
    )


def generated(
    policy: Policy, *, hours: float = 24.0, seed: int = 1, load: float = 0.8, per_hour: float | None = None
) -> list[Job]:
    """Generate a day of requests: each tier is loaded to a share of its quota, or with `per_hour` requests an
    hour, from five tenants, of which the first makes half of the requests.
    """
    random = Random(f"what if {seed}")
    jobs: list[Job] = []
    for tier in policy.tiers:
        at, mean = 0.0, 1800.0
        while at < hours * 3600:
            at += random.expovariate(load * tier.quota / mean if per_hour is None else per_hour / 3600)
            number = 0 if random.random() < 0.5 else random.randrange(1, 5)
            seconds = min(random.lognormvariate(7.2, 0.8), tier.run_time_max.total_seconds())
            jobs.append(Job(len(jobs), at, f"{tier.name}-{number}", tier.name, seconds))
    jobs.sort(key=lambda job: job.arrives)
    return jobs


def outcome(jobs: Sequence[Job], policy: Policy, begin: datetime = BEGIN) -> Outcome:
    """Let the jobs arrive under a policy, from `begin` on; raises Refused when it lacks a tier."""
    missing = sorted({job.tier for job in jobs} - {tier.name for tier in policy.tiers})
    if missing:
        raise Refused(f"the policy has no tier {', '.join(missing)}, which the history needs")
    flow = Flow(policy, begin=begin)
    runs = flow.run(jobs)
    end = max((run.ends for run in runs), default=0.0)
    busy = sum(run.ends - run.starts for run in runs)
    tiers = [_tier_result(tier.name, runs, flow.refused, end) for tier in policy.tiers]
    names = sorted({job.tenant_id for job in jobs})
    tenants = [_tenant_result(name, runs) for name in names]
    return Outcome(
        runs=runs,
        tiers=tiers,
        tenants=tenants,
        hours=_by_windows(runs, policy, begin, end),
        slots_use=busy / sum(slots * length for slots, length in _slots(policy, begin, end)) if end else 0.0,
        jain=_jain([_slowdown(name, runs) for name in names]),
        cost_usd=_cost(runs, policy),
        makespan=end,
        begin=begin,
    )


def stretches(policy: Policy, begin: datetime, end: float) -> Iterator[tuple[Policy, float, float]]:
    """Yield the limits in force from second 0 to `end`, each with its beginning and its end."""
    at = 0.0
    while at < end:
        policy = policy.at(begin + timedelta(seconds=at))
        changes_at = policy.changes_at
        until = end if changes_at is None else min(end, (changes_at - begin).total_seconds())
        yield policy, at, until
        at = until


def _slots(policy: Policy, begin: datetime, end: float) -> Iterator[tuple[int, float]]:
    for limits, since, until in stretches(policy, begin, end):
        yield limits.running_max, until - since


def _by_windows(runs: Sequence[Run], policy: Policy, begin: datetime, end: float) -> list[HoursResult]:
    """Return the results by the windows that were open, those that were open for longest first."""
    if not policy.windows:
        return []
    by_names: dict[str, list[tuple[Policy, float, float]]] = {}
    for stretch in stretches(policy, begin, end):
        by_names.setdefault(", ".join(stretch[0].open), []).append(stretch)
    results: list[HoursResult] = []
    for names, parts in by_names.items():
        length = sum(until - since for _, since, until in parts)
        busy = sum(
            max(min(run.ends, until) - max(run.starts, since), 0.0) for run in runs for _, since, until in parts
        )
        waits = sorted(r.waited for r in runs if any(since <= r.job.arrives < until for _, since, until in parts))
        results.append(
            HoursResult(
                windows=names,
                hours=length / 3600,
                slots=parts[0][0].running_max,
                slots_used_mean=busy / length,
                requests=len(waits),
                wait_p95=_quantile(waits, 0.95),
            )
        )
    return sorted(results, key=lambda result: -result.hours)


def _tier_result(tier: str, runs: Sequence[Run], refused: Sequence[Job], end: float) -> TierResult:
    of_tier = [run for run in runs if run.job.tier == tier]
    started = [run.job for run in of_tier]
    waits = sorted(run.waited for run in of_tier)
    return TierResult(
        tier=tier,
        requests=len(of_tier) + sum(job.tier == tier for job in refused),
        wait_p50=_quantile(waits, 0.5),
        wait_p95=_quantile(waits, 0.95),
        wait_max=waits[-1] if waits else 0.0,
        slots_used_mean=sum(run.ends - run.starts for run in of_tier) / end if end else 0.0,
        borrowed=sum(run.borrowed for run in of_tier),
        never_started=sum(job.tier == tier for job in refused),
        deadlines=sum(job.ready_by is not None and job.tier == tier for job in (*started, *refused)),
        deadlines_met=sum(run.met is True for run in of_tier),
    )


def _tenant_result(tenant_id: str, runs: Sequence[Run]) -> TenantResult:
    own = [run for run in runs if run.job.tenant_id == tenant_id]
    return TenantResult(
        tenant_id=tenant_id,
        requests=len(own),
        wait_p95=_quantile(sorted(run.waited for run in own), 0.95),
        slot_hours=sum(run.ends - run.starts for run in own) / 3600,
    )


def _slowdown(tenant_id: str, runs: Sequence[Run]) -> float:
    """Return the share of the time from arrival to end in which a tenant's requests ran."""
    own = [run for run in runs if run.job.tenant_id == tenant_id]
    whole = sum(run.ends - run.job.arrives for run in own)
    return sum(run.ends - run.starts for run in own) / whole if whole else 1.0


def _jain(values: Sequence[float]) -> float:
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def _cost(runs: Sequence[Run], policy: Policy) -> Decimal | None:
    """Return what the preferred training instances cost, on demand; None when a price is unknown."""
    total = Decimal(0)
    for run in runs:
        tier = policy.tier(run.job.tier)
        assert tier is not None, "checked before"
        profile = policy.profile_for(tier, "", int(run.job.size_mb * 1024 * 1024))
        price = policy.prices.hourly.get(JobKind.TRAINING, {}).get(profile.training[0])
        if price is None:
            return None
        total += price * profile.instances * Decimal(str(round(run.ends - run.starts, 1))) / 3600
    return total.quantize(Decimal("0.01"))


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))] if ordered else 0.0
