"""What serves a tenant's models: predictions, aliases and versions."""

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted
from trainyard.adapters.aws.serving import ask_model
from trainyard.adapters.aws.store import backoff
from trainyard.contracts.serving import Prediction, parse_prediction
from trainyard.domain.aliases import Alias, answering, promoted, rolled_back
from trainyard.domain.errors import Malformed, Refused
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.serving import LIMITS, Mode
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions

JSON_LINES = (".jsonl", ".json", ".ndjson")
"""Suffixes of files with JSON lines; any other file is CSV with a header line."""

ROWS_SHOWN = 20


def predict(deployment: Deployment, arguments: Arguments) -> Answer:
    """Let the live version of a data set's model, or its canary, answer the rows of a file."""
    tenant, path = deployment.tenant(arguments.tenant_id), Path(arguments.file)
    most = LIMITS[Mode.MULTI_MODEL].request_bytes_max
    if path.stat().st_size > most:
        raise Refused(f"{path.name} has {path.stat().st_size:,} bytes: send it in parts of at most {most:,}")
    rows = path.read_bytes()
    alias = _aliases(deployment).get(tenant.tenant_id, arguments.data_set)
    number = answering(alias, arguments.key or uuid.uuid4().hex)
    version = number and _versions(deployment).get(tenant.tenant_id, arguments.data_set, number)
    if not version:
        raise Refused(
            f"no model of {arguments.data_set!r} is served: `trainyard serving show {tenant.tenant_id}` says why"
        )
    content_type = "application/jsonlines" if path.suffix.lower() in JSON_LINES else "text/csv"
    response = ask_model(version, rows, content_type)
    try:
        prediction = parse_prediction(response.body)
    except Malformed as error:
        raise Refused(
            f"version {number} answered no predictions: {error} (trainyard serving roll-back)"
        ) from error
    predictions, answer = prediction.predictions, prediction.model_dump(exclude_none=True)
    shown = predictions[:ROWS_SHOWN]
    more = f", {len(predictions) - len(shown):,} more with --json" if len(shown) < len(predictions) else ""
    return Answer(
        data={**answer, "version": version.version, "milliseconds": response.milliseconds},
        columns=("ROW", "PREDICTION", "PROBABILITY"),
        rows=[(n, value, _probability(prediction, n - 1)) for n, value in enumerate(shown, start=1)],
        lines=[
            f"{counted(len(predictions), 'row')} by version {version.version} in {response.milliseconds} ms{more}"
        ],
    )


def _probability(prediction: Prediction, row: int) -> str | None:
    """Return how probable the predicted class is, of a classification."""
    return None if prediction.probabilities is None else f"{max(prediction.probabilities[row]):.3f}"


def show(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show which versions of a tenant's models answer calls, and what became of the others."""
    tenant = deployment.tenant(arguments.tenant_id)
    aliases = {alias.data_set: alias for alias in _aliases(deployment).of_tenant(tenant.tenant_id)}
    versions = list(_versions(deployment).of_tenant(tenant.tenant_id))
    off = deployment.outputs["SharedServing"] != "true"
    return Answer(
        data=[_view(version, aliases.get(version.data_set)) for version in versions],
        columns=("DATA SET", "VERSION", "STATE", "ANSWERS", "SINCE", "LATENCY MS", "REASON"),
        rows=[
            (
                version.data_set,
                version.version,
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
    """Take a version out of service at once: a canary, or the live one, after which the previous one answers."""
    now = datetime.now(UTC)
    return _changed(deployment, arguments, lambda alias: rolled_back(alias, arguments.version, now))


def promote(deployment: Deployment, arguments: Arguments) -> Answer:
    """Let a canary answer all calls."""
    return _changed(deployment, arguments, lambda alias: promoted(alias, arguments.version))


def _changed(deployment: Deployment, arguments: Arguments, make: Any) -> Answer:
    tenant = deployment.tenant(arguments.tenant_id)
    alias = _aliases(deployment).change(tenant.tenant_id, arguments.data_set, make)
    return Answer(
        data={"data_set": alias.data_set, "live": alias.live, "canary": alias.canary},
        lines=[f"version {alias.live} of {alias.data_set} answers calls"],
    )


def _view(version: ModelVersion, alias: Alias | None) -> dict[str, Any]:
    return {
        "data_set": version.data_set,
        "version": version.version,
        "state": version.state.value,
        "percent": _percent(version, alias),
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
    return "on roll-back" if alias is not None and version.version == alias.previous else None


def _percent(version: ModelVersion, alias: Alias | None) -> int:
    """Return the share of calls that a version answers."""
    if alias is None or version.version not in (alias.live, alias.canary):
        return 0
    return alias.canary_percent if version.version == alias.canary else 100 - alias.canary_percent


def _aliases(deployment: Deployment) -> Aliases:
    return Aliases(deployment.store, backoff)


def _versions(deployment: Deployment) -> ModelVersions:
    return ModelVersions(deployment.store)
