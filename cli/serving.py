"""What serves a tenant's models: aliases and versions."""

from datetime import UTC, datetime
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted
from trainyard.adapters.aws.serving import SageMakerPackages, StateMachinePromotions
from trainyard.adapters.aws.store import backoff
from trainyard.application.serving.deployed_models import DeployedModels
from trainyard.domain.aliases import Alias, percent_of
from trainyard.domain.model_versions import ModelVersion
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions


def show(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show which versions of a tenant's models answer calls, and what became of the others."""
    tenant = deployment.tenant(arguments.tenant_id)
    aliases = {alias.data_set: alias for alias in aliases_of(deployment).of_tenant(tenant.tenant_id)}
    versions = list(versions_of(deployment).of_tenant(tenant.tenant_id))
    off = deployment.outputs["SharedServing"] != "true"
    return Answer(
        data=[_view(version, aliases.get(version.data_set)) for version in versions],
        columns=("DATA SET", "VERSION", "MODE", "STATE", "ANSWERS", "SINCE", "LATENCY MS", "REASON"),
        rows=[
            (
                version.data_set,
                version.version,
                version.serving.mode.value,
                version.state.value,
                _share(version, aliases.get(version.data_set)),
                f"{version.since:%m-%d %H:%M:%S}",
                version.latency_ms,
                version.reason,
            )
            for version in versions
        ],
        lines=["approved models are not deployed: deploy with SharedServing=true"] if off else [],
        below="REASON",
    )


def roll_back(deployment: Deployment, arguments: Arguments) -> Answer:
    """Take a version out of service at once: one in test, a canary, or the live one, as `rolled_back` says."""
    tenant, now = deployment.tenant(arguments.tenant_id), datetime.now(UTC)
    return _answer(_models(deployment).roll_back(tenant.tenant_id, arguments.data_set, arguments.version, now))


def promote(deployment: Deployment, arguments: Arguments) -> Answer:
    """Let a canary answer all calls, or let a version in test answer calls in production."""
    tenant, now = deployment.tenant(arguments.tenant_id), datetime.now(UTC)
    promotion = _models(deployment).promote(tenant.tenant_id, arguments.data_set, arguments.version, now)
    if promotion.error is None:
        return _answer(promotion.alias)
    has_canary = promotion.alias.canary is not None
    todo = "it is judged now and then only" if has_canary else "older models are not removed"
    return _answer(promotion.alias, f"{todo}: the run of deploy-model was refused ({promotion.error})")


def stop(deployment: Deployment, arguments: Arguments) -> Answer:
    """Refuse all calls for a data set; only with --yes, else say what would be stopped."""
    tenant, models = deployment.tenant(arguments.tenant_id), _models(deployment)
    if arguments.yes:
        versions = models.stop(tenant.tenant_id, arguments.data_set, datetime.now(UTC))
    else:
        versions = models.to_stop(tenant.tenant_id, arguments.data_set)
    named = f"{counted(len(versions), 'version')} of {arguments.data_set} ({', '.join(map(str, versions))})"
    if not versions:
        line = f"no version of {arguments.data_set} answers calls"
    elif arguments.yes:
        line = f"{named} out of service: approve a version again to serve it"
    else:
        line = f"would be taken out of service: {named}; add --yes to do it"
    return Answer(
        data={"data_set": arguments.data_set, "versions": versions, "stopped": bool(arguments.yes and versions)},
        lines=[line],
    )


def _models(deployment: Deployment) -> DeployedModels:
    return DeployedModels(
        aliases=aliases_of(deployment),
        versions=versions_of(deployment),
        packages=SageMakerPackages(),
        calls=deployment.inference_book,
        runs=StateMachinePromotions(machine_arn=deployment.outputs["DeployModelMachine"]),
    )


def _answer(alias: Alias, *remarks: str) -> Answer:
    lines = [
        "no version answers calls in production"
        if alias.live is None
        else f"version {alias.live} of {alias.data_set} answers calls"
    ]
    if alias.canary is not None:
        lines.append(f"version {alias.canary} answers {alias.canary_percent} % of them, as a canary")
    if alias.testing is not None:
        lines.append(f"version {alias.testing} answers calls in test")
    lines += remarks
    names = ("data_set", "live", "canary", "testing")
    return Answer(data={name: getattr(alias, name) for name in names}, lines=lines)


def _view(version: ModelVersion, alias: Alias | None) -> dict[str, Any]:
    return {
        "data_set": version.data_set,
        "version": version.version,
        "mode": version.serving.mode.value,
        "state": version.state.value,
        "percent": percent_of(alias, version.version) if alias is not None else 0,
        "in_test": alias is not None and version.version == alias.testing,
        "since": version.since,
        "latency_ms": version.latency_ms,
        "reason": version.reason,
        "request_id": version.request_id,
        "endpoint": version.endpoint,
        "target": version.target,
    }


def _share(version: ModelVersion, alias: Alias | None) -> str | None:
    if alias is None:
        return None
    percent = percent_of(alias, version.version)
    if percent:
        return f"{percent} %"
    return {alias.previous: "on roll-back", alias.testing: "in test"}.get(version.version)


def aliases_of(deployment: Deployment) -> Aliases:
    return Aliases(deployment.store, backoff)


def versions_of(deployment: Deployment) -> ModelVersions:
    return ModelVersions(deployment.store)
