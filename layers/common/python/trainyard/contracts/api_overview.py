"""What the HTTP API answers to operators."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from trainyard.application.api.overview import ServiceState, WhatIf
from trainyard.application.billing.reports import By, CostReport, CostRow
from trainyard.application.scheduling.explain import BudgetAccount, Upcoming, cure_of
from trainyard.application.scheduling.pauses import Pausable
from trainyard.contracts.tenants import tenant_view
from trainyard.domain.findings import BAD, GOOD, UNKNOWN, WARNING, Finding
from trainyard.domain.limit_changes import next_change
from trainyard.domain.scheduling import Expedited
from trainyard.domain.tenants import Tenant
from trainyard.persistence.policies import PolicyVersion


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class TierAnswer(_Answer):
    """A tier as it is now."""

    name: str
    quota: Annotated[int, Field(description="Slots that are its own")]
    used: Annotated[int, Field(description="Slots that it has taken; above `quota`, borrowed ones")]
    waiting: int
    oldest_arrived_at: Annotated[datetime | None, Field(description="Of the first requests of its queues")]
    paused: bool
    closed: Annotated[bool, Field(description="Whether nothing of it starts at this time of day")]
    paused_tenants: list[str]
    parked: Annotated[dict[str, int], Field(description="Reason → tenants whose requests cannot start for it")]


class PauseAnswer(_Answer):
    """Something that is paused, and who has paused it; null and empty where that was not noted."""

    what: Pausable
    name: str | None
    since: datetime | None
    by: str
    reason: str


class ServiceAnswer(_Answer):
    """The slots of the account and of each tier."""

    slots: int
    used: int
    paused: bool
    policy_version: int
    windows_open: list[str]
    limits_change_at: Annotated[datetime | None, Field(description="When a limit changes next, by the hour")]
    limits_change: Annotated[list[str], Field(description="What changes then: `basic quota 2 → 8`")]
    throttled_to: Annotated[
        int | None, Field(description="How many executions SageMaker takes at present; null where it refuses none")
    ]
    tiers: list[TierAnswer]
    pauses: Annotated[
        list[PauseAnswer],
        Field(description="The service, tiers, and of each tier the first tenants that have requests waiting"),
    ]


class QueueEntryAnswer(_Answer):
    """A request that is among the next ones of its tier."""

    tier: str
    position: int
    request_id: str
    tenant_id: str
    data_set: str
    arrived_at: datetime
    reason: str
    would_unblock: Annotated[str, Field(description="What would let it go")]
    seconds_p90: Annotated[
        int | None, Field(description="Nine of ten such runs take no longer; null where nobody knows")
    ]
    usd_p90: Annotated[str | None, Field(description="Nine of ten such runs cost no more, in USD, at list prices")]
    start_by: Annotated[
        datetime | None, Field(description="When it must start to meet its deadline; null without one that it can")
    ]
    earliest_start: datetime | None
    latest_start: Annotated[
        datetime | None, Field(description="Null where nothing that is expected lets it start")
    ]


class QueueAnswer(_Answer):
    """The requests that are next, by tier."""

    items: list[QueueEntryAnswer]


class TenantAnswer(_Answer):
    """A tenant, and how its data sets are trained on and served (docs/tenants.md)."""

    tenant_id: str
    state: str
    tier: str
    storage: Annotated[str, Field(description="`pool` or `silo`")]
    settings: dict[str, Any]
    data_sets: dict[str, dict[str, Any]]
    retrain: str | None


class TenantList(_Answer):
    """Some of the tenants, in no order."""

    items: list[TenantAnswer]
    next: Annotated[str | None, Field(description="The cursor of the next page; null at the end")]


class ExpeditedAnswer(_Answer):
    """A waiting request that is first in its tier, who put it there, and why."""

    request_id: str
    tenant_id: str
    tier: str
    by: str
    why: str
    at: Annotated[datetime, Field(description="Of the first call, if it had been expedited before")]


class PolicySummary(_Answer):
    """A version of the policy: when it was put in force, by whom, and why."""

    version: int
    applied_at: Annotated[datetime | None, Field(description="Null for the one that was deployed")]
    by: str
    note: str


class PolicyAnswer(PolicySummary):
    """A version of the policy, and its text (docs/policy.md)."""

    text: str


class PolicyList(_Answer):
    """The versions of the policy."""

    items: list[PolicySummary]


class PolicyCheck(_Answer):
    """How a valid policy differs from the one in force."""

    from_version: int
    diff: Annotated[list[str], Field(description="Lines of a unified diff; none where they are alike")]


class TierLimits(_Answer):
    """The quota of a tier under the policy in force, and under another one; null where it has no such tier."""

    name: str
    quota: int | None
    other_quota: int | None


class Prospect(_Answer):
    """What a request can expect under a policy."""

    position: int
    reason: str
    earliest_start: datetime | None
    latest_start: Annotated[
        datetime | None, Field(description="Null where nothing that is expected lets it start")
    ]


class Compared(_Answer):
    """A request that is among the next ones under the policy in force, or under the other one."""

    tier: str
    request_id: str
    tenant_id: str
    data_set: str
    now: Annotated[Prospect | None, Field(description="Null where it is not among the next ones")]
    other: Prospect | None


class WhatIfAnswer(PolicyCheck):
    """What another policy would change now: slots, quotas, and the requests that are next."""

    slots: int
    other_slots: int
    tiers: list[TierLimits]
    items: list[Compared]


class BudgetRow(_Answer):
    """How a budget stands; amounts are decimal numbers, in USD."""

    whose: Annotated[str, Field(description="`tenant acme`, or `tier basic`")]
    month: str
    mode: Annotated[str, Field(description="`hard`: nothing starts that could exceed it; `soft`: it is only told")]
    limit_usd: str
    spent_usd: str
    reserved_usd: Annotated[str, Field(description="What trainings that run may cost")]


class BudgetList(_Answer):
    """The budgets of tenants and tiers in the current month."""

    items: list[BudgetRow]
    others: Annotated[int, Field(description="Tenants with a budget beyond the limit")]


def budgets_of(accounts: Iterable[BudgetAccount], others: int) -> BudgetList:
    return BudgetList(
        items=[
            BudgetRow(
                whose=each.whose,
                month=each.month,
                mode=each.budget.mode.value,
                limit_usd=f"{each.budget.limit_usd:f}",
                spent_usd=f"{each.spent_usd:f}",
                reserved_usd=f"{each.reserved_usd:f}",
            )
            for each in accounts
        ],
        others=others,
    )


class ServiceCostsRow(_Answer):
    """What a tenant, a tier or an algorithm cost in a month; amounts are decimal numbers, in USD."""

    name: str
    runs: int
    succeeded: int
    failed: int
    stopped: int
    usd: Annotated[str, Field(description="Of the runs, at list prices")]
    unknown_steps: Annotated[int, Field(description="Steps of which the cost is not known, and not in `usd`")]
    saved_usd: Annotated[str, Field(description="What spot instances saved")]
    calls: Annotated[int, Field(description="Predictions that were asked for")]
    inference_usd: Annotated[str, Field(description="Of the predictions; not in `usd`")]


class ServiceCosts(_Answer):
    """What the service cost in a month."""

    month: str
    by: By
    items: Annotated[list[ServiceCostsRow], Field(description="The dearest first")]
    others: Annotated[int, Field(description="Rows beyond the limit; they are in the total")]
    total: ServiceCostsRow


class FindingAnswer(_Answer):
    """What a check found."""

    check: str
    result: Annotated[str, Field(description="`ok`, `warning`, `BAD`, or `unknown` where it could not be checked")]
    text: str
    remedy: Annotated[str, Field(description="What to do; empty where all is well")]


class HealthAnswer(_Answer):
    """What is wrong with the service, or will be."""

    items: Annotated[list[FindingAnswer], Field(description="What is wrong comes first")]


_WORST_FIRST = (BAD, WARNING, UNKNOWN, GOOD)


def health_of(findings: Iterable[Finding]) -> HealthAnswer:
    return HealthAnswer(
        items=[
            FindingAnswer(check=each.check, result=each.result, text=each.text, remedy=each.remedy)
            for each in sorted(findings, key=lambda finding: _WORST_FIRST.index(finding.result))
        ]
    )


def service_costs_of(month: str, report: CostReport, limit: int) -> ServiceCosts:
    return ServiceCosts(
        month=month,
        by=report.by,
        items=[_costs_row(row) for row in report.rows[:limit]],
        others=max(len(report.rows) - limit, 0),
        total=_costs_row(report.total),
    )


def _costs_row(row: CostRow) -> ServiceCostsRow:
    return ServiceCostsRow(
        name=row.name,
        runs=row.executions,
        succeeded=row.succeeded,
        failed=row.failed,
        stopped=row.stopped,
        usd=f"{row.usd:f}",
        unknown_steps=row.unknown,
        saved_usd=f"{row.saved_usd:f}",
        calls=row.calls,
        inference_usd=f"{row.inference_usd:f}",
    )


def policy_summary_of(version: PolicyVersion) -> PolicySummary:
    return PolicySummary(version=version.version, applied_at=version.applied_at, by=version.by, note=version.note)


def expedited_of(expedited: Expedited) -> ExpeditedAnswer:
    return ExpeditedAnswer(
        request_id=expedited.request_id,
        tenant_id=expedited.tenant_id,
        tier=expedited.tier,
        by=expedited.by,
        why=expedited.why,
        at=expedited.at,
    )


def policy_of(version: PolicyVersion) -> PolicyAnswer:
    return PolicyAnswer(**policy_summary_of(version).model_dump(), text=version.text)


def service_of(state: ServiceState) -> ServiceAnswer:
    change_at, changes = next_change(state.policy) or (None, [])
    return ServiceAnswer(
        slots=state.policy.running_max,
        used=state.ledger.used,
        paused=state.ledger.paused,
        policy_version=state.policy.version,
        windows_open=list(state.policy.open),
        limits_change_at=change_at,
        limits_change=changes,
        throttled_to=state.throttled_to,
        tiers=[
            TierAnswer(
                name=tier.name,
                quota=tier.quota,
                used=tier.used,
                waiting=tier.backlog.waiting,
                oldest_arrived_at=tier.backlog.oldest_arrived_at,
                paused=tier.is_paused,
                closed=tier.is_closed,
                paused_tenants=list(tier.backlog.paused),
                parked=dict(tier.backlog.parked),
            )
            for tier in state.tiers
        ],
        pauses=[
            PauseAnswer(what=each.what, name=each.name, since=each.since, by=each.by, reason=each.why)
            for each in state.pauses
        ],
    )


def queue_of(upcoming: list[Upcoming]) -> QueueAnswer:
    return QueueAnswer(
        items=[
            QueueEntryAnswer(
                tier=each.tier,
                position=each.position,
                request_id=each.entry.request_id,
                tenant_id=each.tenant_id,
                data_set=each.entry.data_set,
                arrived_at=each.entry.arrived_at,
                reason=each.reason.value,
                would_unblock=cure_of(each.reason, each.tier, each.tenant_id),
                seconds_p90=each.entry.seconds_p90 or None,
                usd_p90=None if each.entry.usd_p90 is None else f"{each.entry.usd_p90:f}",
                start_by=each.entry.latest_start,
                earliest_start=each.earliest,
                latest_start=each.latest,
            )
            for each in upcoming
        ]
    )


def what_if_of(what_if: WhatIf, from_version: int, diff: list[str]) -> WhatIfAnswer:
    before, after = what_if.before, what_if.after
    quotas = {tier.name: tier.quota for tier in before.tiers}
    others = {tier.name: tier.quota for tier in after.tiers}
    return WhatIfAnswer(
        from_version=from_version,
        diff=diff,
        slots=before.running_max,
        other_slots=after.running_max,
        tiers=[
            TierLimits(name=name, quota=quotas.get(name), other_quota=others.get(name))
            for name in dict.fromkeys((*quotas, *others))
        ],
        items=[_compared(*pair) for pair in what_if.upcoming],
    )


def _compared(now: Upcoming | None, other: Upcoming | None) -> Compared:
    either = now or other
    assert either is not None, "a request is among the next ones under one policy at least"
    return Compared(
        tier=either.tier,
        request_id=either.entry.request_id,
        tenant_id=either.tenant_id,
        data_set=either.entry.data_set,
        now=_prospect(now),
        other=_prospect(other),
    )


def _prospect(upcoming: Upcoming | None) -> Prospect | None:
    if upcoming is None:
        return None
    return Prospect(
        position=upcoming.position,
        reason=upcoming.reason.value,
        earliest_start=upcoming.earliest,
        latest_start=upcoming.latest,
    )


def tenant_of(tenant: Tenant) -> TenantAnswer:
    """Return a tenant without the names of its resources, which are the provider's business."""
    return TenantAnswer.model_validate(tenant_view(tenant))
