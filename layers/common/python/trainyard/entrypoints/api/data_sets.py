"""Data sets, and uploads to them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import unquote

from trainyard.application.api.uploads import Part
from trainyard.contracts.api import answers, results
from trainyard.contracts.api_answers import DataSetList, UploadAnswer, data_sets_of, upload_of
from trainyard.contracts.api_bodies import AbortBody, CompletionBody, UploadBody
from trainyard.contracts.api_tuning import TuningChoice, TuningList, tunings_of
from trainyard.domain.names import is_data_set
from trainyard.domain.principals import Access
from trainyard.domain.tenants import Tenant
from trainyard.domain.tuning import Tuned, used
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import NotFound, allow, refuse_parameters_but, routes

router = routes()

TUNINGS = "/v1/tenants/<tenant_id>/data-sets/<data_set>/tunings"
UPLOADS = "/v1/tenants/<tenant_id>/uploads"
UPLOAD_ID_LENGTH_MAX = 1024


@router.get(
    "/v1/tenants/<tenant_id>/data-sets", summary="A tenant's data sets", responses=answers(DataSetList, 409)
)
def list_data_sets(tenant_id: str) -> DataSetList:
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    return data_sets_of(tenant, bootstrap.uploads().data_sets(tenant))


@router.get(TUNINGS, summary="What tunings of a data set have found", responses=answers(TuningList, 409))
def list_tunings(tenant_id: str, data_set: str) -> TuningList:
    """A tuning is asked for as a training with `overrides.tuning`."""
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    return _tunings(tenant, _data_set(data_set), bootstrap.tunings().of(tenant.tenant_id, data_set))


@router.post(f"{TUNINGS}/use", summary="Choose with which values trainings begin", responses=results(TuningList))
def choose_tuning(tenant_id: str, data_set: str, body: TuningChoice) -> TuningList:
    """Of hyperparameters that the data set's settings do not set."""
    _, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    tunings = bootstrap.tunings().use(tenant.tenant_id, _data_set(data_set), body.request_id)
    return _tunings(tenant, data_set, tunings)


def _data_set(text: str) -> str:
    if not is_data_set(text):
        raise NotFound
    return text


def _tunings(tenant: Tenant, data_set: str, tunings: Sequence[Tuned]) -> TuningList:
    return tunings_of(tunings, used(tuple(tunings), tenant.settings_for(data_set).algorithm))


@router.post(UPLOADS, summary="Where to put a file", responses=results(UploadAnswer, status=201))
def begin_upload(tenant_id: str, body: UploadBody) -> tuple[UploadAnswer, int]:
    """The file is sent to S3 itself: by one PUT, or, if it is large, by one for each part."""
    _, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    upload = bootstrap.uploads().begin(tenant, body.data_set, body.name, body.size_bytes, datetime.now(UTC))
    return upload_of(upload), 201


@router.post(f"{UPLOADS}/<upload_id>/complete", summary="Complete an upload in parts", responses=results(None))
def complete_upload(tenant_id: str, upload_id: str, body: CompletionBody) -> tuple[None, int]:
    _, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    parts = [Part(part.number, part.etag) for part in body.parts]
    bootstrap.uploads().complete(tenant, body.data_set, body.name, _upload_id(upload_id), parts)
    return None, 204


@router.post(f"{UPLOADS}/<upload_id>/abort", summary="Discard an upload in parts", responses=results(None))
def abort_upload(tenant_id: str, upload_id: str, body: AbortBody) -> tuple[None, int]:
    _, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    bootstrap.uploads().abort(tenant, body.data_set, body.name, _upload_id(upload_id))
    return None, 204


def _upload_id(text: str) -> str:
    upload_id = unquote(text)
    if len(upload_id) > UPLOAD_ID_LENGTH_MAX or not (upload_id.isascii() and upload_id.isprintable()):
        raise NotFound
    return upload_id
