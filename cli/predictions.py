"""Predictions: the rows of a file, answered by the model that is served."""

import io
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.serving import aliases_of, versions_of
from cli.show import Answer
from cli.text import counted, say
from trainyard.contracts.serving import parse_prediction
from trainyard.domain.aliases import Environment, answering
from trainyard.domain.errors import Refused
from trainyard.domain.serving import LIMITS, Mode
from trainyard.domain.tenants import Tenant

SECONDS_BETWEEN_LOOKS = 0.5
MESSAGE_MAX = 300
ANSWER_BYTES_MAX = 100 * 1024 * 1024
"""Of an answer that is shown."""
JSON_LINES = (".jsonl", ".json", ".ndjson")
"""Suffixes of files with JSON lines; any other file is CSV with a header line."""

ROWS_SHOWN = 20

PART_BYTES, PART_ROWS = 1024 * 1024, 2000
"""Of one call, so that the answer fits into one as well."""


def predict(deployment: Deployment, arguments: Arguments) -> Answer:
    """Let the live version of a data set's model, its canary, or the one in test, answer the rows of a file.

    A file that is too large for one call is sent in parts, which the same version answers; an asynchronous
    endpoint gets it whole, by S3.
    """
    tenant, path = deployment.tenant(arguments.tenant_id), Path(arguments.file)
    lines = path.suffix.lower() in JSON_LINES
    call = _Call(
        deployment,
        tenant,
        arguments.data_set,
        key=arguments.key or uuid.uuid4().hex,
        environment=Environment(arguments.environment),
        content_type="application/jsonlines" if lines else "text/csv",
    )
    if call.is_answered_later():
        return _shown(_answered_later(call, path, arguments.timeout))
    parts = list(parts_of(_text(path), has_header=not lines))
    return _shown(_merged([call.ask(rows=part.text) for part in parts], parts, path))


def _merged(answers: list[dict[str, Any]], parts: list["Part"], path: Path) -> dict[str, Any]:
    """Return the answers to a file's parts as one; raises Refused where they do not fit together."""
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
    return whole


def _shown(whole: dict[str, Any]) -> Answer:
    predictions = whole["predictions"]
    shown = predictions[:ROWS_SHOWN]
    more = f", {len(predictions) - len(shown):,} more with --json" if len(shown) < len(predictions) else ""
    rows = counted(len(predictions), "row")
    return Answer(
        data=whole,
        columns=("ROW", "PREDICTION", "PROBABILITY"),
        rows=[(n, value, _probability(whole, n - 1)) for n, value in enumerate(shown, start=1)],
        lines=[f"{rows} by version {whole['version']} in {whole['milliseconds']} ms{more}"],
    )


def _answered_later(call: "_Call", path: Path, timeout: int) -> dict[str, Any]:
    """Let an asynchronous endpoint answer a file, and wait for that; raises Refused with why it did not."""
    size = path.stat().st_size
    if size > LIMITS[Mode.ASYNCHRONOUS].request_bytes_max:
        raise Refused(f"{path.name} has {size:,} bytes, and asynchronous endpoints take 1 GB: split it")
    s3, bucket = call.deployment.client("s3"), call.tenant.bucket
    key = f"{call.tenant.root}reports/{call.data_set}/predictions/rows/{uuid.uuid4().hex}{path.suffix}"
    s3.upload_file(str(path), bucket, key)
    began = time.monotonic()
    asked = call.ask(input=f"s3://{bucket}/{key}")
    say(f"version {asked['version']} will write its answer to {asked['output']}")
    while time.monotonic() < began + timeout:
        if (body := _object(s3, asked["output"])) is not None:
            milliseconds = round((time.monotonic() - began) * 1000)
            prediction = parse_prediction(body).model_dump(exclude_none=True)
            return {**prediction, **asked, "milliseconds": milliseconds}
        if (error := _object(s3, asked["failure"])) is not None:
            raise Refused(error.decode("utf-8", "replace")[:MESSAGE_MAX])
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise Refused(f"no answer after {timeout} s: look for {asked['output']} later, or give a longer --timeout")


def _object(s3: Any, uri: str) -> bytes | None:
    """Return an object's bytes; None while there is none."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except s3.exceptions.NoSuchKey:
        return None
    if answer["ContentLength"] > ANSWER_BYTES_MAX:
        raise Refused(f"the answer has {answer['ContentLength']:,} bytes: fetch it with aws s3 cp {uri} .")
    body: bytes = answer["Body"].read()
    return body


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


@dataclass(frozen=True)
class _Call:
    """Calls for a data set, which the same version answers."""

    deployment: Deployment
    tenant: Tenant
    data_set: str
    key: str
    content_type: str
    environment: Environment

    def is_answered_later(self) -> bool:
        """Tell whether an asynchronous endpoint answers."""
        alias = aliases_of(self.deployment).get(self.tenant.tenant_id, self.data_set)
        number = answering(alias, self.key, self.environment)
        if number is None:
            return False
        version = versions_of(self.deployment).get(self.tenant.tenant_id, self.data_set, number)
        return version is not None and version.serving.mode is Mode.ASYNCHRONOUS

    def ask(self, **rows: str) -> dict[str, Any]:
        """Invoke the function that answers and counts calls; raises Refused with its error message."""
        command = {
            "tenant_id": self.tenant.tenant_id,
            "data_set": self.data_set,
            "content_type": self.content_type,
            "key": self.key,
            "environment": self.environment.value,
            **rows,
        }
        payload = json.dumps(command, ensure_ascii=False).encode()
        if len(payload) > LIMITS[Mode.MULTI_MODEL].request_bytes_max:
            raise Refused(f"a row of {len(payload):,} bytes is too long for a call")
        function = self.deployment.outputs["PredictFunction"]
        answer = self.deployment.client("lambda").invoke(FunctionName=function, Payload=payload)
        body: dict[str, Any] = json.loads(answer["Payload"].read())
        if answer.get("FunctionError"):
            raise Refused(str(body.get("errorMessage", body)))
        return body


def _probability(answer: dict[str, Any], row: int) -> str | None:
    """Return how probable the predicted class is, of a classification."""
    return f"{max(answer['probabilities'][row]):.3f}" if "probabilities" in answer else None
