"""What a tenant cost."""

from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query

from trainyard.application.billing.reports import By, cost_report
from trainyard.contracts.api import Costs, Month, answers, costs_of
from trainyard.contracts.api_answers import BudgetAnswer, budget_of
from trainyard.domain.executions import month_of
from trainyard.domain.prices import Prices
from trainyard.domain.principals import Access
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import allow, refuse_parameters_but, routes

router = routes()


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
