"""What serves a tenant's models: aliases and versions."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted
from trainyard.adapters.aws.serving import SageMakerPackages
from trainyard.adapters.aws.store import backoff
from trainyard.application.serving.promotion import Promoter
from trainyard.domain.aliases import Alias, rolled_back, stopped
from trainyard.domain.errors import Refused
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
    now = datetime.now(UTC)
    tenant = deployment.tenant(arguments.tenant_id)
    return _answer(
        aliases_of(deployment).change(
            tenant.tenant_id, arguments.data_set, lambda alias: rolled_back(alias, arguments.version, now), now
        )
    )


def promote(deployment: Deployment, arguments: Arguments) -> Answer:
    """Let a canary answer all calls, or let a version in test answer calls in production."""
    tenant, now = deployment.tenant(arguments.tenant_id), datetime.now(UTC)
    aliases, versions = aliases_of(deployment), versions_of(deployment)
    version = versions.get(tenant.tenant_id, arguments.data_set, arguments.version)
    if version is None:
        raise Refused(
            f"there is no version {arguments.version} of {arguments.data_set}: trainyard serving show "
            f"{tenant.tenant_id}"
        )
    promoter = Promoter(aliases=aliases, versions=versions, calls=deployment.inference_book)
    if aliases.get(tenant.tenant_id, version.data_set).testing == version.version:
        package = SageMakerPackages().get(version.package_arn)
        if package is None or not package.is_approved:
            raise Refused(
                f"version {version.version} is not approved any more: trainyard models approve "
                f"{tenant.tenant_id} {version.version}"
            )
        alias = promoter.release(version, now)
    else:
        alias = promoter.promote(version, now)
    return _answer(alias, *_followed_up(deployment, version, alias))


def _followed_up(deployment: Deployment, version: ModelVersion, alias: Alias) -> Iterator[str]:
    """Have a canary judged each minute, and older models removed; yield why that cannot be.

    The timer's search judges too, but only now and then.
    """
    try:
        deployment.client("stepfunctions").start_execution(
            stateMachineArn=deployment.outputs["DeployModelMachine"],
            name=f"promoted-{alias.revision}",
            input=json.dumps({"detail": {"ModelPackageArn": version.package_arn}}),
        )
    except deployment.client("stepfunctions").exceptions.ExecutionAlreadyExists:
        return
    except ClientError as error:  # the promotion has been made
        code = error.response["Error"]["Code"]
        todo = "older models are not removed" if alias.canary is None else "it is judged now and then only"
        yield f"{todo}: the run of deploy-model was refused ({code})"


def stop(deployment: Deployment, arguments: Arguments) -> Answer:
    """Refuse all calls for a data set; only with --yes, else say what would be stopped."""
    tenant, now = deployment.tenant(arguments.tenant_id), datetime.now(UTC)
    alias = aliases_of(deployment).get(tenant.tenant_id, arguments.data_set)
    of_alias = (alias.live, alias.canary, alias.testing, alias.deploying, alias.waiting)
    versions = [version for version in of_alias if version is not None]
    if arguments.yes and versions:
        aliases_of(deployment).change(
            tenant.tenant_id, arguments.data_set, lambda before: stopped(before, now), now
        )
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
        "percent": _percent(version, alias),
        "in_test": alias is not None and version.version == alias.testing,
        "since": version.since,
        "latency_ms": version.latency_ms,
        "reason": version.reason,
        "request_id": version.request_id,
        "endpoint": version.endpoint,
        "target": version.target,
    }


def _share(version: ModelVersion, alias: Alias | None) -> str | None:
    percent = _percent(version, alias)
    if percent:
        return f"{percent} %"
    if alias is None:
        return None
    return {alias.previous: "on roll-back", alias.testing: "in test"}.get(version.version)


def _percent(version: ModelVersion, alias: Alias | None) -> int:
    """Return the share of calls that a version answers."""
    if alias is None or version.version not in (alias.live, alias.canary):
        return 0
    return alias.canary_percent if version.version == alias.canary else 100 - alias.canary_percent


def aliases_of(deployment: Deployment) -> Aliases:
    return Aliases(deployment.store, backoff)


def versions_of(deployment: Deployment) -> ModelVersions:
    return ModelVersions(deployment.store)
