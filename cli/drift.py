"""How far the data of a data set has moved from that of the training before."""

from collections.abc import Sequence
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import ID_CHARACTERS_MIN, Answer
from cli.text import counted
from trainyard.adapters.aws.captured import S3CapturedInputs
from trainyard.adapters.aws.tenant_objects import report_at
from trainyard.contracts.captured import report_on
from trainyard.contracts.drift import Distribution, DriftReport, MovedColumn, parse_drift
from trainyard.domain.errors import Refused
from trainyard.domain.parameters import Locations
from trainyard.domain.requests import Request, RequestKind
from trainyard.domain.tenants import Tenant
from trainyard.persistence.run_history import past_key, trainings_from

BLOCKS = " ▁▂▃▄▅▆▇█"
REQUESTS_MAX = 20
"""The last trainings of a data set that are looked at."""
NAMED_MAX = 10
BINS_SHOWN = 16


def drift(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show how each column has moved, the farthest first."""
    tenant = deployment.tenant(arguments.tenant_id)
    if arguments.captured:
        return _captured(deployment, tenant, arguments)
    request, report = _report(deployment, tenant, arguments)
    about = {"request_id": request.request_id, "state": request.state.value}
    return _answer(report, arguments, about, _lines(request, report))


def _captured(deployment: Deployment, tenant: Tenant, arguments: Arguments) -> Answer:
    """Compare what models were asked since the last training with the data of that."""
    if arguments.request_id:
        raise Refused("--captured compares with the last training: leave --request out")
    (item,) = deployment.store.get(past_key(tenant.tenant_id, arguments.data_set))
    trained = trainings_from(item).trained
    if trained is None:
        raise Refused(f"no training of {tenant.tenant_id}/{arguments.data_set} has ended with a model")
    training = trained.request_id[:ID_CHARACTERS_MIN]
    captured = S3CapturedInputs().compare(tenant, arguments.data_set, trained=trained.request_id, since=trained.at)
    if captured.drift is None:
        raise Refused(
            f"{captured.problem} (request {trained.request_id[:ID_CHARACTERS_MIN]}, {trained.at:%Y-%m-%d})"
        )
    report = report_on(captured.drift)
    rules = tenant.settings_for(arguments.data_set).retraining
    has_shifted = captured.drift.has_shifted(rules.shift_percent, rules.critical)
    lines = [
        f"{counted(report.rows, 'row')} of the {counted(captured.objects, 'newest object')} since the training of "
        f"request {training}, compared with its {counted(report.rows_before, 'row')}",
        *_changes(report),
        captured.drift.text() if has_shifted else "the inputs have not moved far, by the data set's rules",
    ]
    if captured.unreadable:
        lines.append(f"{counted(captured.unreadable, 'line')} could not be read")
    about = {"request_id": trained.request_id, "unreadable": captured.unreadable, "has_shifted": has_shifted}
    return _answer(report, arguments, about, lines)


def _answer(report: DriftReport, arguments: Arguments, about: dict[str, Any], lines: list[str]) -> Answer:
    shown = report.columns if arguments.all else [each for each in report.columns if each.band != "stable"]
    if report.target is not None:
        shown = [*shown, report.target]
    return Answer(
        data={**about, **report.model_dump()},
        columns=("COLUMN", "KIND", "INDEX", "", "BEFORE", "NOW", "MISSING"),
        rows=[_row(each, report) for each in shown],
        lines=[*lines, *_hidden(report, arguments)],
    )


def _report(deployment: Deployment, tenant: Tenant, arguments: Arguments) -> tuple[Request, DriftReport]:
    """Return the last training that was compared, and its report; raises Refused where there is none."""
    if arguments.request_id:
        requests = [deployment.request(arguments.request_id)]
        if requests[0].tenant_id != tenant.tenant_id or requests[0].data_set != arguments.data_set:
            raise Refused(
                f"request {requests[0].request_id[:8]} is not of {tenant.tenant_id}/{arguments.data_set}"
            )
    else:
        requests = deployment.scheduler.tables.requests.of_data_set(tenant.tenant_id, arguments.data_set)
    started = [each for each in requests if each.attempt and each.kind is RequestKind.TRAINING]
    unread: list[str] = []
    for request in started[::-1][:REQUESTS_MAX]:
        report = report_at(Locations.of(tenant, request).drift, parse_drift, unread)
        if report is not None:
            return request, report
    if unread:
        raise Refused(f"no report on drift of {tenant.tenant_id}/{arguments.data_set} can be read: {unread[0]}")
    raise Refused(
        f"no training of {tenant.tenant_id}/{arguments.data_set} was compared with one before: that takes two, "
        "with the shipped scripts"
    )


def _row(column: MovedColumn, report: DriftReport) -> tuple[Any, ...]:
    missing = tuple(_percent(each.missing, each.rows) for each in (column.before, column.now))
    predicted = " (predicted)" if column is report.target else ""
    return (
        f"{column.name}{predicted}",
        column.kind,
        f"{column.index:.2f}",
        "" if column.band == "stable" else column.band,
        _drawn(column.before),
        _drawn(column.now),
        "" if missing == ("0 %", "0 %") else " → ".join(missing),
    )


def _drawn(distribution: Distribution) -> str:
    """Return a character for each bin, as high as its share of the rows; none is full for a third or more."""
    rows = max(distribution.rows, 1)
    shown = distribution.counts[:BINS_SHOWN]
    return "".join(BLOCKS[max(min(round(24 * count / rows), 8), 1)] if count else BLOCKS[0] for count in shown)


def _percent(part: int, rows: int) -> str:
    return f"{100 * part / max(rows, 1):.0f} %"


def _lines(request: Request, report: DriftReport) -> list[str]:
    before, now = (counted(rows, "row") for rows in (report.rows_before, report.rows))
    return [
        f"request {request.request_id[:ID_CHARACTERS_MIN]} ({request.state.value}): {now}, compared with {before} "
        "of the training before",
        *_changes(report),
    ]


def _hidden(report: DriftReport, arguments: Arguments) -> list[str]:
    stable = sum(each.band == "stable" for each in report.columns)
    return (
        [f"{counted(stable, 'stable column')} not shown; --all shows them"] if stable and not arguments.all else []
    )


def _changes(report: DriftReport) -> list[str]:
    return [
        *_named("columns that are not there any more", report.absent),
        *report.changed[:NAMED_MAX],
        *_named("columns that were not there before", report.added),
        *_named("columns from which nothing can be learnt any more", report.emptied),
        *(
            f"{first} and {second} look as if they had been swapped"
            for first, second in report.swapped[:NAMED_MAX]
        ),
    ]


def _named(what: str, names: Sequence[str]) -> list[str]:
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return [f"{what}: {', '.join(names[:NAMED_MAX])}{more}"] if names else []
