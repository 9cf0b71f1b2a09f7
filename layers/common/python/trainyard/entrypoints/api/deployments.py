"""Deployed models of a tenant: what answers calls; promote, roll back, stop."""

from datetime import UTC, datetime

from trainyard.contracts.api import answers, results
from trainyard.contracts.api_deployments import (
    DeploymentAnswer,
    DeploymentList,
    PromotionBody,
    StopBody,
    StoppedAnswer,
    VersionBody,
    deployment_of,
)
from trainyard.domain.names import is_data_set
from trainyard.domain.principals import Access
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.calls import NotFound, allow, logger, refuse_parameters_but, routes

router = routes()

DEPLOYMENTS = "/v1/tenants/<tenant_id>/deployments"
DEPLOYMENT = f"{DEPLOYMENTS}/<data_set>"


@router.get(DEPLOYMENTS, summary="What answers calls for a tenant's data sets", responses=answers(DeploymentList))
def list_deployments(tenant_id: str) -> DeploymentList:
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    now = datetime.now(UTC)
    models = bootstrap.deployed_models().of_tenant(tenant.tenant_id, now)
    return DeploymentList(items=[deployment_of(model, now) for model in models], next=None)


@router.get(DEPLOYMENT, summary="What answers calls for a data set", responses=answers(DeploymentAnswer))
def show_deployment(tenant_id: str, data_set: str) -> DeploymentAnswer:
    _, tenant = allow(Access.READ_TENANT, tenant_id)
    refuse_parameters_but()
    return _shown(tenant.tenant_id, _checked(data_set))


@router.post(f"{DEPLOYMENT}/promote", summary="Let a version answer calls", responses=results(DeploymentAnswer))
def promote(tenant_id: str, data_set: str, body: PromotionBody) -> DeploymentAnswer:
    """A version in test becomes a canary, if the data set has canaries, else live; a canary becomes live."""
    _, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    models, now = bootstrap.deployed_models(), datetime.now(UTC)
    is_test = None if body.role is None else body.role == "testing"
    promotion = models.promote(tenant.tenant_id, _checked(data_set), body.version, now, is_test=is_test)
    if promotion.error is not None:
        # The timer's search follows it up, later.
        logger.warning("promotion not followed up", extra={"data_set": data_set, "error": promotion.error})
    return _shown(tenant.tenant_id, data_set)


@router.post(
    f"{DEPLOYMENT}/roll-back", summary="Take a version out of service", responses=results(DeploymentAnswer)
)
def roll_back(tenant_id: str, data_set: str, body: VersionBody) -> DeploymentAnswer:
    """One in test, a canary, or the live one, which the previous version replaces. Idempotent."""
    _, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    bootstrap.deployed_models().roll_back(tenant.tenant_id, _checked(data_set), body.version, datetime.now(UTC))
    return _shown(tenant.tenant_id, data_set)


@router.post(f"{DEPLOYMENT}/stop", summary="Take all versions out of service", responses=results(StoppedAnswer))
def stop(tenant_id: str, data_set: str, body: StopBody) -> StoppedAnswer:
    """Calls are refused until a version is approved again. Idempotent."""
    _, tenant = allow(Access.CHANGE_TENANT, tenant_id)
    models = bootstrap.deployed_models()
    _shown(tenant.tenant_id, _checked(data_set))
    if body.dry_run:
        versions = models.to_stop(tenant.tenant_id, data_set)
    else:
        versions = models.stop(tenant.tenant_id, data_set, datetime.now(UTC))
    return StoppedAnswer(versions=versions, dry_run=body.dry_run)


def _shown(tenant_id: str, data_set: str) -> DeploymentAnswer:
    """Raises NotFound where nothing was ever deployed."""
    now = datetime.now(UTC)
    model = bootstrap.deployed_models().get(tenant_id, data_set, now)
    if model is None:
        raise NotFound
    return deployment_of(model, now)


def _checked(data_set: str) -> str:
    """Return the name of a data set; raises NotFound for a text that can be none."""
    if not is_data_set(data_set):
        raise NotFound
    return data_set
