"""Models: list, show, approve or reject, and predict."""

from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import Field

from trainyard.application.api.models import Model
from trainyard.contracts.api import Cursor, answers, cursor_text, parse_version_cursor, results
from trainyard.contracts.api_answers import ModelAnswer, ModelFilesAnswer, ModelList, Predictions, model_of
from trainyard.contracts.api_bodies import DecisionBody, RowsBody
from trainyard.domain.names import is_data_set
from trainyard.domain.principals import Access
from trainyard.domain.tenants import Tenant
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import NotFound, allow, limit_calls, refuse_parameters_but, routes

router = routes()

MODELS = "/v1/tenants/<tenant_id>/models"
MODEL = f"{MODELS}/<version>"
VERSION_DIGITS_MAX = 9
PREDICTIONS_MAX = 20
"""Of a tenant within ten seconds: each may occupy two functions for as long as a model takes."""

ModelLimit = Annotated[int, Field(ge=1, le=20, description="How many versions a page looks at")]


@router.get(MODELS, summary="A tenant's models, newest first", responses=answers(ModelList))
def list_models(
    tenant_id: str,
    limit: Annotated[ModelLimit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> ModelList:
    """A page has fewer models than `limit` where versions have been deleted."""
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but("limit", "cursor")
    page = bootstrap.models().of_tenant(tenant, limit=limit, before=parse_version_cursor(cursor))
    following = cursor_text({"version": str(page.before)}) if page.before is not None else None
    return ModelList(items=[model_of(model) for model in page.models], next=following)


@router.get(MODEL, summary="One of a tenant's models", responses=answers(ModelAnswer))
def show_model(tenant_id: str, version: str) -> ModelAnswer:
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    return model_of(_model(tenant, version))


@router.get(f"{MODEL}/files", summary="Where a model can be fetched", responses=answers(ModelFilesAnswer, 409))
def show_files(tenant_id: str, version: str) -> ModelFilesAnswer:
    """With its card, a page that says how good it is."""
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    files = bootstrap.models().files(tenant, _model(tenant, version))
    return ModelFilesAnswer(model=files.model, card=files.card, expires_at=files.expires_at)


@router.post(f"{MODEL}/decision", summary="Approve or reject a model", responses=results(ModelAnswer))
def decide(tenant_id: str, version: str, body: DecisionBody) -> ModelAnswer:
    """An approved model is deployed where the deployment serves models; the answer does not wait for that."""
    principal, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    bootstrap.models().decide(_model(tenant, version), body.decision, body.reason, principal)
    return model_of(_model(tenant, version))


@router.post(
    "/v1/tenants/<tenant_id>/data-sets/<data_set>/predictions",
    summary="Predict rows by a data set's model",
    responses=results(Predictions),
)
def predict(tenant_id: str, data_set: str, body: RowsBody) -> Predictions:
    _, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    if not is_data_set(data_set):
        raise NotFound
    limit_calls(f"predictions#{tenant_id}", PREDICTIONS_MAX)
    answer = bootstrap.predictions().ask(
        {"tenant_id": tenant.tenant_id, "data_set": data_set, **body.model_dump(mode="json", exclude_none=True)}
    )
    return Predictions.model_validate(answer)


def _model(tenant: Tenant, version: str) -> Model:
    """Return one of a tenant's models; raises NotFound."""
    if not (version.isascii() and version.isdigit()) or not 0 < len(version) <= VERSION_DIGITS_MAX:
        raise NotFound
    model = bootstrap.models().get(tenant, int(version))
    if model is None:
        raise NotFound
    return model
