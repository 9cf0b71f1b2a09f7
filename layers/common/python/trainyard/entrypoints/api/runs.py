"""What a request ran: attempts, steps, and logs."""

from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query

from trainyard.application.api.runs import LogPosition
from trainyard.contracts.api import Cursor, answers, parse_cursor
from trainyard.contracts.api_drift import DriftAnswer, drift_of
from trainyard.contracts.api_runs import (
    AttemptList,
    AttemptNumber,
    LineLimit,
    LogAnswer,
    StepName,
    attempts_of,
    log_of,
)
from trainyard.contracts.drift import parse_drift
from trainyard.domain.errors import Malformed, Refused
from trainyard.domain.parameters import Locations
from trainyard.domain.principals import Access
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import (
    allow,
    limit_calls,
    refuse_parameters_but,
    routes,
    tenants_request,
)

router = routes()

REPORT_BYTES_MAX = 1024 * 1024
REQUEST = "/v1/tenants/<tenant_id>/requests/<request_id>"
READS_MAX = 20
"""Of a caller within ten seconds, of reports, and of attempts and logs together: CloudWatch Logs and SageMaker
take a few such calls a second of the account."""


@router.get(
    f"{REQUEST}/attempts",
    summary="The attempts of a request, with their steps",
    responses=answers(AttemptList),
)
def list_attempts(tenant_id: str, request_id: str) -> AttemptList:
    principal, _ = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    request = tenants_request(tenant_id, request_id)
    limit_calls(f"runs#{principal.caller}", READS_MAX)
    return attempts_of(bootstrap.runs().attempts(request))


@router.get(
    f"{REQUEST}/drift",
    summary="How a training's data has moved from the last one's",
    responses=answers(DriftAnswer, 409),
)
def show_drift(tenant_id: str, request_id: str) -> DriftAnswer:
    """The first step of the shipped scripts writes it; `report` is null where the data was not compared."""
    principal, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    request = tenants_request(tenant_id, request_id)
    limit_calls(f"drift#{principal.caller}", READS_MAX)
    key = Locations.of(tenant, request).drift.removeprefix(f"s3://{tenant.bucket}/")
    body = bootstrap.tenant_results().read(tenant, key, REPORT_BYTES_MAX)
    if body is None:
        return DriftAnswer(report=None)
    try:
        return drift_of(parse_drift(body))
    except Malformed as error:  # a script of the tenant's wrote it
        raise Refused(f"drift.json cannot be read: {error}") from error


@router.get(f"{REQUEST}/logs", summary="What a step of a request printed", responses=answers(LogAnswer, 409))
def read_log(
    tenant_id: str,
    request_id: str,
    step: Annotated[StepName, Query()],
    attempt: Annotated[AttemptNumber | None, Query()] = None,
    limit: Annotated[LineLimit, Query()] = 200,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> LogAnswer:
    """Oldest first. Where `next` is not null, it can be asked again for what is printed later."""
    principal, _ = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but("step", "attempt", "limit", "cursor")
    request = tenants_request(tenant_id, request_id)
    limit_calls(f"runs#{principal.caller}", READS_MAX)
    position, of_attempt = LogPosition.parse(parse_cursor(cursor), step)
    if of_attempt is not None and attempt not in (None, of_attempt):
        raise Malformed(f"cursor: it belongs to attempt {of_attempt}")
    attempt = of_attempt or attempt
    page = bootstrap.runs().log(request, step, attempt, position, limit=limit, now=datetime.now(UTC))
    return log_of(page, step)
