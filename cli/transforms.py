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
from trainyard.domain.arrivals import is_data
from trainyard.domain.errors import Refused
from trainyard.domain.names import request_id
from trainyard.domain.requests import HOLDING, Request, State
from trainyard.domain.tenants import Tenant
from trainyard.domain.transforms import (
    CONTENT_TYPES,
    FOLDER,
    StoredRows,
    check_model,
    ending_of,
    transform_revision,
)
from trainyard.persistence.live_models import StoredLiveModels


def transform(deployment: Deployment, arguments: Arguments) -> Answer:
    """Ask for predictions of the rows that are stored for a data set, after storing those of files."""
    tenant, data_set = deployment.tenant(arguments.tenant_id), arguments.data_set
    check_data_set(data_set)
    live = StoredLiveModels(aliases_of(deployment), versions_of(deployment))
    version = check_model(live.get(tenant.tenant_id, data_set), data_set)
    _store(deployment, tenant, data_set, arguments.files)
    rows = S3RowsToPredict().find(tenant, data_set)
    if rows is None:
        raise Refused(
            f"there are no rows under s3://{tenant.bucket}/{tenant.root}{FOLDER}{data_set}/: put files there, or "
            "name them"
        )
    rows.content_type()
    name = _name(tenant, rows, transform_revision(rows, version))
    before = deployment.scheduler.tables.requests.get(name)
    what = f"{counted(len(rows.objects), 'file')}, {rows.size_bytes:,} bytes, by version {version.version}"
    if before is not None and not arguments.force:
        if before.state in (State.QUEUED, *HOLDING):
            return _followed(deployment, arguments, [name], f"{what}: asked for before")
        if before.state is State.SUCCEEDED:
            return Answer(
                data=view(before),
                lines=[
                    f"{what}: predicted before, by request {name[:8]}; --force predicts them again",
                    f"the predictions are in {before.outcome.predictions_uri if before.outcome else '?'}",
                ],
            )
        say(f"request {name[:8]} for the same rows ended as {before.state.value}: they are predicted again")
    forced = arguments.force or before is not None
    event_id = ask_transform(deployment, tenant.tenant_id, data_set, force=forced, priority=arguments.priority)
    names = [_name(tenant, rows, event_id)] if forced else [name, _name(tenant, rows, event_id)]
    return _followed(deployment, arguments, names, what)


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


def _followed(deployment: Deployment, arguments: Arguments, names: Sequence[str], what: str) -> Answer:
    if not arguments.wait:
        return Answer(
            data={"request_id": names[0], "asked_at": datetime.now(UTC)},
            lines=[what, f"follow it with: trainyard why {names[0][:8]}"],
        )
    say(f"{what}; request {names[0][:8]}")

    def find() -> Sequence[Request]:
        requests = [deployment.scheduler.tables.requests.get(name) for name in names]
        return [request for request in requests if request is not None]

    return awaited(deployment, find, view, appear_within=EVENTS_WITHIN)


def _name(tenant: Tenant, rows: StoredRows, revision: str) -> str:
    content = rows.newest
    return request_id(tenant_id=tenant.tenant_id, bucket=content.bucket, key=content.key, revision=revision)
