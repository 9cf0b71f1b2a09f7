"""What a tenant cost."""

from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query

from trainyard.application.billing.reports import By, cost_report
from trainyard.application.billing.statements import statement
from trainyard.contracts.api import Costs, Month, answers, costs_of
from trainyard.contracts.api_answers import BudgetAnswer, StatementAnswer, budget_of
from trainyard.domain.errors import Refused
from trainyard.domain.executions import month_begins, month_of, next_month
from trainyard.domain.prices import Prices
from trainyard.domain.principals import Access
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import allow, limit_calls, refuse_parameters_but, routes

router = routes()

STATEMENTS_MAX = 3
"""Of a caller within ten seconds: each reads all runs of a month."""
STATEMENT_RUNS_MAX = 3_000
"""Of an answer, which Lambda limits to 6 MB."""


@router.get("/v1/tenants/<tenant_id>/budget", summary="A tenant's budget", responses=answers(BudgetAnswer))
def show_budget(tenant_id: str) -> BudgetAnswer:
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    explain, now = bootstrap.explain(), datetime.now(UTC)
    accounts = explain.accounts(tenant_id, tenant.tier, explain.policies.current(), now)
    return budget_of(accounts, tenant_id)


@router.get("/v1/tenants/<tenant_id>/costs", summary="What a tenant cost in a month", responses=answers(Costs))
def show_costs(tenant_id: str, month: Annotated[Month | None, Query()] = None) -> Costs:
    allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but("month")
    month = month or month_of(datetime.now(UTC))
    return costs_of(month, cost_report(bootstrap.book().totals(month, tenant_id), By.DATA_SET, Prices()))


@router.get(
    "/v1/tenants/<tenant_id>/statement",
    summary="A tenant's statement of a month",
    responses=answers(StatementAnswer, 409),
)
def show_statement(tenant_id: str, month: Annotated[Month | None, Query()] = None) -> StatementAnswer:
    """A page with what each training of the month has cost so far."""
    principal, _ = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but("month")
    limit_calls(f"statements#{principal.caller}", STATEMENTS_MAX)
    now, book = datetime.now(UTC), bootstrap.book()
    month = month or month_of(now)
    begin, end = month_begins(month), month_begins(next_month(month))
    executions = book.executions_of_month(tenant_id, month, begin, end, limit=STATEMENT_RUNS_MAX + 1)
    if len(executions) > STATEMENT_RUNS_MAX:
        raise Refused(
            f"the month has more than {STATEMENT_RUNS_MAX:,} runs, too many for an answer: from the fourth of the "
            f"next month on, its statement is reports/_statements/{month}.html in the tenant's bucket"
        )
    return StatementAnswer(
        month=month, page=statement(tenant_id, month, executions, now, list(book.totals(month, tenant_id)))
    )
