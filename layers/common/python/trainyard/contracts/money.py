"""Commands of the billing function, and events about budgets and spending."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field, ValidationError

from trainyard.contracts.events import Event, explain
from trainyard.domain.errors import Refused


class StatementAsked(Event):
    tenant: str = Field(min_length=1, max_length=64)
    month: str | None = Field(default=None, pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")


class BillingCommand(Event):
    """A command for the billing function; an empty one means all tasks that are due."""

    statement: StatementAsked | None = None
    export: date | None = None


def parse_billing_command(event: Mapping[str, Any]) -> BillingCommand:
    """Return the command that the billing function was invoked with; raises Refused, naming what is wrong."""
    try:
        return BillingCommand.model_validate(event)
    except ValidationError as error:
        raise Refused(explain(error)) from None


class BudgetThresholdCrossed(Event):
    """Published when the spending of a tenant, or of a tier if no tenant is named, reaches a budget threshold."""

    schema_version: Literal[1] = 1
    tenant_id: str | None = None
    tier: str
    month: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}$")
    percent: int = Field(ge=1)
    """The threshold that was reached."""
    spent_usd: Decimal
    budget_usd: Decimal


class CostAnomalyDetected(Event):
    """Published when the cost of a tenant's runs that ended within an hour is unusually high."""

    schema_version: Literal[1] = 1
    tenant_id: str
    hour: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}$")
    usd: Decimal
    usual_usd: Decimal
    """The 90th percentile of its earlier hours."""


def money_event(what: str, values: Mapping[str, Any]) -> str:
    """Return the detail of a budget event ("budget") or a cost anomaly event ("pace"), as JSON."""
    schema = BudgetThresholdCrossed if what == "budget" else CostAnomalyDetected
    return schema.model_validate(dict(values)).model_dump_json(exclude_none=True)
