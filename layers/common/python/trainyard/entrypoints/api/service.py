"""The service: tiers, queue, what runs, what ended, and the tenants; for operators and viewers."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import Field

from trainyard.application.billing.reports import By, cost_report
from trainyard.application.scheduling.calendar import calendar_of
from trainyard.application.scheduling.policy_changes import differences
from trainyard.contracts.api import Cursor, Day, Limit, Month, Tier, answers, cursor_text, parse_cursor, results
from trainyard.contracts.api_answers import RequestList, request_of
from trainyard.contracts.api_bodies import ExpediteBody, PauseBody, PolicyBody, PolicyChangeBody, ResumeBody
from trainyard.contracts.api_deployments import DeploymentList, deployment_of
from trainyard.contracts.api_overview import (
    BudgetList,
    ExpeditedAnswer,
    HealthAnswer,
    PolicyAnswer,
    PolicyCheck,
    PolicyList,
    PolicySummary,
    QueueAnswer,
    ServiceAnswer,
    ServiceCosts,
    TenantList,
    WhatIfAnswer,
    budgets_of,
    expedited_of,
    health_of,
    policy_of,
    policy_summary_of,
    queue_of,
    service_costs_of,
    service_of,
    tenant_of,
    what_if_of,
)
from trainyard.contracts.api_passes import PassList, passes_of
from trainyard.contracts.api_retraining import CalendarAnswer, calendar_answer_of
from trainyard.domain.errors import Malformed, Refused
from trainyard.domain.executions import month_of
from trainyard.domain.names import REQUEST_ID
from trainyard.domain.prices import Prices
from trainyard.domain.principals import Access
from trainyard.domain.requests import TERMINAL, State
from trainyard.domain.tenants import TenantState
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import (
    NotFound,
    allow_service,
    check_tier,
    limit_calls,
    refuse_parameters_but,
    routes,
)
from trainyard.persistence.policies import PolicyVersion

router = routes()

Hours = Annotated[int, Field(ge=1, le=168, description="How many hours from now on")]
QueueLimit = Annotated[int, Field(ge=1, le=50, description="How many requests of each tier are shown at most")]

VERSION_DIGITS_MAX = 8
WHAT_IFS_MAX = 10
"""Of a caller within ten seconds: each looks ahead four times."""
PASSES_MAX = 10
"""Of a caller within ten seconds: each reads the records of passes."""
PASSES_READ_MAX, PASSES_SHOWN_MAX = 60, 20
"""Of an hour that are looked at, and together that are answered."""
HEALTH_MAX = 5
"""Of a caller within ten seconds: each reads all tenants."""
COSTS_MAX = 5
"""Of a caller within ten seconds: each reads the totals of all tenants."""
POLICIES_MAX = 5
"""Of a caller within ten seconds: each reads all tenants."""
DeploymentLimit = Annotated[int, Field(ge=1, le=50, description="How many items a page has at most")]
TenantLimit = Annotated[int, Field(ge=2, le=100, description="How many items a page has at most")]


@router.get("/v1/service", summary="Slots and backlog of all tiers", responses=answers(ServiceAnswer))
def show_service() -> ServiceAnswer:
    allow_service(Access.READ_SERVICE)
    refuse_parameters_but()
    return service_of(bootstrap.overview().state(datetime.now(UTC)))


@router.get("/v1/service/queue", summary="The requests that are next", responses=answers(QueueAnswer))
def show_queue(limit: Annotated[QueueLimit, Query()] = 20) -> QueueAnswer:
    """Without those of tenants that are paused, or whose requests cannot start: /v1/service counts them."""
    allow_service(Access.READ_SERVICE)
    refuse_parameters_but("limit")
    return queue_of(bootstrap.overview().next(datetime.now(UTC), limit=limit))


@router.get("/v1/service/running", summary="The requests that hold a slot", responses=answers(RequestList))
def list_running() -> RequestList:
    """Those that run, and those that are about to start; the longest first."""
    allow_service(Access.READ_SERVICE)
    refuse_parameters_but()
    return RequestList(items=[request_of(request) for request in bootstrap.overview().running()], next=None)


@router.get(
    "/v1/service/ended", summary="The requests that came to an end on a day", responses=answers(RequestList)
)
def list_ended(
    tier: Annotated[Tier, Query()],
    state: Annotated[State, Query()],
    day: Annotated[Day | None, Query()] = None,
    limit: Annotated[Limit, Query()] = 20,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> RequestList:
    """Of one tier and in one state, newest first; today (UTC), unless a day is given."""
    allow_service(Access.READ_SERVICE)
    refuse_parameters_but("tier", "state", "day", "limit", "cursor")
    check_tier(tier)
    if state not in TERMINAL:
        raise Malformed(f"state: {state.value} is not final; use one of {', '.join(sorted(TERMINAL))}")
    day = day or datetime.now(UTC).strftime("%Y-%m-%d")
    page = bootstrap.overview().ended(tier, state, day, limit=limit, after=parse_cursor(cursor))
    return RequestList(items=[request_of(request) for request in page.requests], next=cursor_text(page.cursor))


@router.get("/v1/service/tenants", summary="The tenants", responses=answers(TenantList))
def list_tenants(
    limit: Annotated[TenantLimit, Query()] = 20, cursor: Annotated[Cursor | None, Query()] = None
) -> TenantList:
    """A page may have fewer tenants than `limit`, or none, and yet a next one."""
    allow_service(Access.READ_SERVICE)
    refuse_parameters_but("limit", "cursor")
    after = parse_cursor(cursor)
    if after is not None and set(after) != {"pk"}:
        raise Malformed("cursor: it is not one that this list has given")
    # Of so many tenants, it looks at twice as many items, all of which may be tenants.
    tenants, following = bootstrap.tenants().page(after=after["pk"] if after else None, limit=limit // 2)
    existing = [tenant for tenant in tenants if tenant.state is not TenantState.DELETED]
    return TenantList(
        items=[tenant_of(tenant) for tenant in existing],
        next=cursor_text({"pk": following} if following else None),
    )


@router.get("/v1/service/policy", summary="The policy in force", responses=answers(PolicyAnswer))
def show_policy() -> PolicyAnswer:
    allow_service(Access.READ_SERVICE)
    refuse_parameters_but()
    return policy_of(bootstrap.overview().policies.in_force())


@router.get("/v1/service/policies", summary="All versions of the policy", responses=answers(PolicyList))
def list_policies() -> PolicyList:
    """Newest first; the first one is in force."""
    allow_service(Access.READ_SERVICE)
    refuse_parameters_but()
    return PolicyList(items=[policy_summary_of(version) for version in bootstrap.overview().policies.history()])


@router.get("/v1/service/policies/<version>", summary="A version of the policy", responses=answers(PolicyAnswer))
def show_policy_version(version: str) -> PolicyAnswer:
    allow_service(Access.READ_SERVICE)
    refuse_parameters_but()
    return policy_of(_policy(version))


@router.post("/v1/service/policy/check", summary="Check another policy", responses=results(PolicyCheck))
def check_policy(body: PolicyBody) -> PolicyCheck:
    """Say whether it is valid, and how it differs from the one in force; changes nothing."""
    principal = allow_service(Access.READ_SERVICE)
    limit_calls(f"what-if#{principal.caller}", WHAT_IFS_MAX)
    policies = bootstrap.overview().policies
    before = policies.in_force()
    policies.check(body.text)
    return PolicyCheck(from_version=before.version, diff=differences(before.text, body.text))


@router.post(
    "/v1/service/policy/what-if", summary="What another policy would change", responses=results(WhatIfAnswer)
)
def compare_policy(body: PolicyBody, limit: Annotated[QueueLimit, Query()] = 20) -> WhatIfAnswer:
    """For the requests that are next, as in /v1/service/queue, and for those that would be; changes nothing."""
    principal = allow_service(Access.READ_SERVICE)
    refuse_parameters_but("limit")
    limit_calls(f"what-if#{principal.caller}", WHAT_IFS_MAX)
    overview = bootstrap.overview()
    before = overview.policies.in_force()
    what_if = overview.what_if(body.text, datetime.now(UTC), limit=limit)
    return what_if_of(what_if, before.version, differences(before.text, body.text))


@router.post("/v1/service/policy", summary="Put a policy in force", responses=results(PolicySummary))
def apply_policy(body: PolicyChangeBody) -> PolicySummary:
    """It is refused where it is invalid, where the deployment is not made for it, where it would hurt tenants, and
    where another one has been put in force since the version `after`.
    """
    principal = allow_service(Access.CHANGE_SERVICE)
    limit_calls(f"policy#{principal.caller}", POLICIES_MAX)
    return policy_summary_of(
        bootstrap.policy_changes().apply(
            body.text,
            datetime.now(UTC),
            after=body.after,
            note=body.note,
            by=principal.signature,
            force=body.force,
        )
    )


@router.get(
    "/v1/service/requests/<request_id>/passes",
    summary="What passes have decided about a waiting request",
    responses=answers(PassList),
)
def list_passes(request_id: str) -> PassList:
    """Of the last two hours. `…/why` says why it waits now."""
    principal = allow_service(Access.READ_SERVICE)
    refuse_parameters_but()
    limit_calls(f"passes#{principal.caller}", PASSES_MAX)
    if REQUEST_ID.fullmatch(request_id) is None:
        raise NotFound
    tables, now = bootstrap.explain().scheduler.tables, datetime.now(UTC)
    request = tables.requests.get(request_id)
    if request is None:
        raise NotFound
    admitter = bootstrap.explain().scheduler.admitter
    hours = (now, now - timedelta(hours=1))
    records = (record for hour in hours for record in admitter.pass_records(hour, limit=PASSES_READ_MAX))
    return PassList(items=list(islice(passes_of(records, request), PASSES_SHOWN_MAX)))


@router.post(
    "/v1/service/requests/<request_id>/expedite",
    summary="Put a waiting request first in its tier",
    responses=results(ExpeditedAnswer),
)
def expedite(request_id: str, body: ExpediteBody) -> ExpeditedAnswer:
    """At most every fourth admission of a tier is such a one, and no limit changes. Idempotent."""
    principal = allow_service(Access.CHANGE_SERVICE)
    is_id = REQUEST_ID.fullmatch(request_id) is not None
    if not is_id or bootstrap.explain().scheduler.tables.requests.get(request_id) is None:
        raise NotFound
    now = datetime.now(UTC)
    return expedited_of(bootstrap.expedite().expedite(request_id, now, by=principal.signature, why=body.reason))


@router.get(
    "/v1/service/deployments", summary="What answers calls, of all tenants", responses=answers(DeploymentList)
)
def list_deployments(
    limit: Annotated[DeploymentLimit, Query()] = 20, cursor: Annotated[Cursor | None, Query()] = None
) -> DeploymentList:
    """By tenant and data set. A page may have fewer items than `limit`, or none, and yet a next one."""
    allow_service(Access.READ_SERVICE)
    refuse_parameters_but("limit", "cursor")
    now = datetime.now(UTC)
    page = bootstrap.deployed_models().page(now, limit=limit, after=parse_cursor(cursor))
    return DeploymentList(
        items=[deployment_of(model, now) for model in page.models], next=cursor_text(page.cursor)
    )


@router.get("/v1/service/calendar", summary="What schedules will ask for", responses=answers(CalendarAnswer))
def show_calendar(hours: Annotated[Hours, Query()] = 24, limit: Annotated[Limit, Query()] = 20) -> CalendarAnswer:
    """By the hour, beside the slots. What EventBridge spreads over minutes counts when it is due."""
    principal = allow_service(Access.READ_SERVICE)
    refuse_parameters_but("hours", "limit")
    limit_calls(f"calendar#{principal.caller}", HEALTH_MAX)
    now = datetime.now(UTC)
    slots = bootstrap.explain().policies.current().at(now).running_max
    calendar = calendar_of(bootstrap.tenants().all(), now)
    return calendar_answer_of(calendar, now, hours=hours, slots=slots, limit=limit)


@router.get("/v1/service/health", summary="What is wrong with the service", responses=answers(HealthAnswer))
def show_health() -> HealthAnswer:
    """What its own tables, queues and alarms say; `trainyard doctor` looks at the account too."""
    principal = allow_service(Access.READ_SERVICE)
    refuse_parameters_but()
    limit_calls(f"health#{principal.caller}", HEALTH_MAX)
    return health_of(bootstrap.health().findings(datetime.now(UTC)))


@router.get("/v1/service/costs", summary="What all tenants cost in a month", responses=answers(ServiceCosts))
def show_service_costs(
    month: Annotated[Month | None, Query()] = None,
    by: Annotated[By, Query()] = By.TENANT,
    limit: Annotated[Limit, Query()] = 50,
) -> ServiceCosts:
    principal = allow_service(Access.READ_SERVICE)
    refuse_parameters_but("month", "by", "limit")
    limit_calls(f"costs#{principal.caller}", COSTS_MAX)
    month = month or month_of(datetime.now(UTC))
    report = cost_report(bootstrap.book().totals(month, None), by, Prices())
    return service_costs_of(month, report, limit)


@router.get("/v1/service/budgets", summary="How budgets stand", responses=answers(BudgetList))
def list_budgets(limit: Annotated[Limit, Query()] = 50) -> BudgetList:
    """Of tenants, by their names, and of tiers."""
    principal = allow_service(Access.READ_SERVICE)
    refuse_parameters_but("limit")
    limit_calls(f"budgets#{principal.caller}", COSTS_MAX)
    explain = bootstrap.explain()
    policy = explain.policies.current()
    with_budget = sum(limits.budget is not None for limits in policy.tenants.values())
    accounts = explain.all_accounts(bootstrap.tenants().get, policy, datetime.now(UTC), limit=limit)
    return budgets_of(accounts, max(with_budget - limit, 0))


def _policy(text: str) -> PolicyVersion:
    """Return a version of the policy; raises NotFound."""
    if not (text.isascii() and text.isdigit()) or len(text) > VERSION_DIGITS_MAX:
        raise NotFound
    try:
        return bootstrap.overview().policies.version(int(text))
    except Refused:
        raise NotFound from None


@router.post("/v1/service/pause", summary="Pause all, a tier or a tenant", responses=results(None))
def pause(body: PauseBody) -> tuple[None, int]:
    """Nothing of it starts until it is resumed; what runs goes on, and uploads are still taken."""
    principal = allow_service(Access.CHANGE_SERVICE)
    bootstrap.pauses().pause(body.what, body.name, datetime.now(UTC), by=principal.signature, why=body.reason)
    return None, 204


@router.post("/v1/service/resume", summary="Resume all, a tier or a tenant", responses=results(None))
def resume(body: ResumeBody) -> tuple[None, int]:
    principal = allow_service(Access.CHANGE_SERVICE)
    bootstrap.pauses().resume(body.what, body.name, datetime.now(UTC), by=principal.signature)
    return None, 204
