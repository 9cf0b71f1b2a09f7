"""Batch transforms: the live model of a data set predicts the rows that are stored for it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.requests import view
from cli.retraining import EVENTS_WITHIN, check_data_set, put_event
from cli.serving import aliases_of, versions_of
from cli.show import Answer
from cli.text import counted, say
from cli.waiting import awaited
from trainyard.adapters.aws.stored_rows import S3RowsToPredict
from trainyard.application.tenancy.moving import resubmitted_id
from trainyard.domain.arrivals import check_transform, is_data
from trainyard.domain.errors import Refused
from trainyard.domain.requests import HOLDING, Request, State
from trainyard.domain.tenants import Tenant
from trainyard.domain.transforms import (
    CONTENT_TYPES,
    FOLDER,
    check_model,
    ending_of,
    transform_id,
    transform_revision,
)
from trainyard.persistence.models import StoredModels


def transform(deployment: Deployment, arguments: Arguments) -> Answer:
    """Ask for predictions of the rows that are stored for a data set, after storing those of files."""
    tenant, data_set = deployment.tenant(arguments.tenant_id), arguments.data_set
    check_data_set(data_set)
    models = StoredModels(aliases_of(deployment), versions_of(deployment))
    version = check_model(models.live(tenant.tenant_id, data_set), data_set)
    _store(deployment, tenant, data_set, arguments.files)
    rows = S3RowsToPredict().find(tenant, data_set)
    if rows is None:
        raise Refused(
            f"there are no rows under s3://{tenant.bucket}/{tenant.root}{FOLDER}{data_set}/: put files there, or "
            "name them"
        )
    rows.content_type()
    check_transform(tenant, data_set, rows.size_bytes, deployment.policies.current())
    name = transform_id(tenant, data_set, transform_revision(rows, version))
    before = _asked_before(deployment, tenant, name)
    what = f"{counted(len(rows.objects), 'file')}, {rows.size_bytes:,} bytes, by version {version.version}"
    if before is not None and not arguments.force:
        if before.state in (State.QUEUED, *HOLDING):
            return _followed(deployment, arguments, before.request_id, f"{what}: asked for before")
        if before.state is State.SUCCEEDED:
            return Answer(
                data=view(before),
                lines=[
                    f"{what}: predicted before, by request {before.request_id[:8]}; --force predicts them again",
                    f"the predictions are in {before.outcome.predictions_uri if before.outcome else '?'}",
                ],
            )
        say(f"request {before.request_id[:8]} ended as {before.state.value}: its rows are predicted again")
    forced = arguments.force or before is not None
    event_id = ask_transform(deployment, tenant.tenant_id, data_set, force=forced, priority=arguments.priority)
    return _followed(deployment, arguments, transform_id(tenant, data_set, event_id) if forced else name, what)


def _asked_before(deployment: Deployment, tenant: Tenant, name: str) -> Request | None:
    """Return the request of a name, or the one by which it was replaced when its tenant moved to its tier."""
    requests = deployment.scheduler.tables.requests
    before = requests.get(name)
    if before is None or before.state is not State.CANCELLED:
        return before
    return requests.get(resubmitted_id(before, tenant)) or before


def ask_transform(
    deployment: Deployment, tenant_id: str, data_set: str, *, force: bool, priority: int | None = None
) -> str:
    """Put the event that asks for a batch transform on the bus; return its id."""
    detail: dict[str, Any] = {"data_set": data_set, "reason": "requested on the command line", "force": force}
    detail |= {} if priority is None else {"priority": priority}
    return put_event(deployment, "Batch Transform Requested", tenant_id, detail)


def _store(deployment: Deployment, tenant: Tenant, data_set: str, files: Sequence[Path]) -> None:
    """Upload files with rows; none is uploaded unless all can be."""
    for file in files:
        if not file.is_file():
            raise Refused(f"{file} is not a file")
        if ending_of(file.name) not in CONTENT_TYPES or not is_data(file.name, ""):
            raise Refused(f"{file.name} cannot be predicted: its name must end in {' or '.join(CONTENT_TYPES)}")
    for number, file in enumerate(files, start=1):
        key = f"{tenant.root}{FOLDER}{data_set}/{file.name}"
        deployment.client("s3").upload_file(str(file), tenant.bucket, key)
        say(f"stored {number} of {len(files)}: s3://{tenant.bucket}/{key}")


def _followed(deployment: Deployment, arguments: Arguments, name: str, what: str) -> Answer:
    if not arguments.wait:
        return Answer(
            data={"request_id": name, "asked_at": datetime.now(UTC)},
            lines=[what, f"follow it with: trainyard why {name[:8]}"],
        )
    say(f"{what}; request {name[:8]}")

    def find() -> Sequence[Request]:
        request = deployment.scheduler.tables.requests.get(name)
        return [] if request is None else [request]

    return awaited(deployment, find, view, appear_within=EVENTS_WITHIN)
