"""What serves a tenant's models: predictions, aliases and versions."""

import io
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted
from trainyard.adapters.aws.store import backoff
from trainyard.domain.aliases import Alias, promoted, rolled_back, stopped
from trainyard.domain.errors import Refused
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.serving import LIMITS, Mode
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions

JSON_LINES = (".jsonl", ".json", ".ndjson")
"""Suffixes of files with JSON lines; any other file is CSV with a header line."""

ROWS_SHOWN = 20

PART_BYTES, PART_ROWS = 1024 * 1024, 2000
"""Of one call, so that the answer fits into one as well."""


def predict(deployment: Deployment, arguments: Arguments) -> Answer:
    """Let the live version of a data set's model, or its canary, answer the rows of a file.

    A file that is too large for one call is sent in parts, which the same version answers.
    """
    tenant, path = deployment.tenant(arguments.tenant_id), Path(arguments.file)
    lines = path.suffix.lower() in JSON_LINES
    key = arguments.key or uuid.uuid4().hex
    parts = list(parts_of(_text(path), has_header=not lines))
    answers = [
        _ask(deployment, tenant.tenant_id, arguments.data_set, part.text, key, lines=lines) for part in parts
    ]
    versions = sorted({answer["version"] for answer in answers})
    if len(versions) > 1:
        raise Refused(
            f"versions {versions[0]} and {versions[-1]} answered parts of {path.name}: the model was changed "
            "meanwhile; run it again"
        )
    for part, answer in zip(parts, answers, strict=True):
        if len(parts) > 1 and len(answer["predictions"]) != part.rows:
            raise Refused(
                f"{len(answer['predictions'])} predictions were made for {part.rows} rows of {path.name}, so they "
                "cannot be told apart: send fewer rows at once"
            )
    whole = {**answers[0], "milliseconds": sum(answer["milliseconds"] for answer in answers)}
    for name in ("predictions", "probabilities"):
        if name in whole:
            whole[name] = [value for answer in answers for value in answer[name]]
    predictions = whole["predictions"]
    shown = predictions[:ROWS_SHOWN]
    more = f", {len(predictions) - len(shown):,} more with --json" if len(shown) < len(predictions) else ""
    return Answer(
        data=whole,
        columns=("ROW", "PREDICTION", "PROBABILITY"),
        rows=[(n, value, _probability(whole, n - 1)) for n, value in enumerate(shown, start=1)],
        lines=[f"{counted(len(predictions), 'row')} by version {versions[0]} in {whole['milliseconds']} ms{more}"],
    )


class Part(NamedTuple):
    """Some of a file's rows, with the header line if it has one."""

    text: str
    rows: int


def parts_of(text: str, *, has_header: bool) -> Iterator[Part]:
    """Yield a file's rows in parts that one call takes each.

    In CSV, values in quotes may contain line breaks, so a row ends only where all quotes are closed.
    """
    rows = _rows(text, may_be_quoted=has_header)
    header = next(rows, "") if has_header else ""
    part: list[str] = []
    size = 0
    number = 0
    for row in rows:
        part.append(row)
        size += len(row.encode())
        if size >= PART_BYTES or len(part) >= PART_ROWS:
            yield _part(header, part)
            part, size, number = [], 0, number + 1
    if part or not number:
        yield _part(header, part)


def _part(header: str, rows: list[str]) -> Part:
    return Part(header + "".join(rows), sum(bool(row.strip()) for row in rows))


def _rows(text: str, *, may_be_quoted: bool) -> Iterator[str]:
    row, quotes = "", 0
    for line in io.StringIO(text, newline=""):
        row, quotes = row + line, quotes + line.count('"')
        if not (may_be_quoted and quotes % 2):
            yield row
            row, quotes = "", 0
    if row:
        yield row


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"{path.name} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error


def _ask(
    deployment: Deployment, tenant_id: str, data_set: str, rows: str, key: str, *, lines: bool
) -> dict[str, Any]:
    """Invoke the function that answers and counts calls; raises Refused with its error message."""
    command = {
        "tenant_id": tenant_id,
        "data_set": data_set,
        "rows": rows,
        "content_type": "application/jsonlines" if lines else "text/csv",
        "key": key,
    }
    payload = json.dumps(command, ensure_ascii=False).encode()
    if len(payload) > LIMITS[Mode.MULTI_MODEL].request_bytes_max:
        raise Refused(f"a row of {len(rows):,} characters is too long for a call")
    function = deployment.outputs["PredictFunction"]
    answer = deployment.client("lambda").invoke(FunctionName=function, Payload=payload)
    body: dict[str, Any] = json.loads(answer["Payload"].read())
    if answer.get("FunctionError"):
        raise Refused(str(body.get("errorMessage", body)))
    return body


def _probability(answer: dict[str, Any], row: int) -> str | None:
    """Return how probable the predicted class is, of a classification."""
    return f"{max(answer['probabilities'][row]):.3f}" if "probabilities" in answer else None


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


def stop(deployment: Deployment, arguments: Arguments) -> Answer:
    """Refuse all calls for a data set; only with --yes, else say what would be stopped."""
    tenant, now = deployment.tenant(arguments.tenant_id), datetime.now(UTC)
    alias = _aliases(deployment).get(tenant.tenant_id, arguments.data_set)
    of_alias = (alias.live, alias.canary, alias.deploying, alias.waiting)
    versions = [version for version in of_alias if version is not None]
    if arguments.yes and versions:
        _aliases(deployment).change(tenant.tenant_id, arguments.data_set, lambda before: stopped(before, now))
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
