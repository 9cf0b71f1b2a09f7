"""A model is approved, served on a shared endpoint, called in each way, and rolled back."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from cli.codes import DONE, UNSUCCESSFUL
from smoke.data import WORKS, table
from smoke.deployed import POOLED, SILO
from smoke.place import Suite
from smoke.steps import Step, StepFailed, eventually
from smoke.training import JOBS_OF_A_RUN, await_end, upload
from trainyard.domain.hourly_spend import hour_of
from trainyard.domain.requests import Request, State

DATA_SET = "served"
SWITCHED_ON = ("SharedServing", "DirectInvocation", "ApprovalLinks", "HttpApi")
ROWS, CALLS = 5, 5
OTHER_MODES = {
    "serverless": ":memory_mb=2048:concurrency=1",
    "asynchronous": ":instances=0:instances_max=1",
    "real-time": "",
    "inference-component": ":memory_mb=1024:cpu_percent=50",
    "multi-container": "",
}
"""Mode → its settings. With instances, the containers have no network; asynchronous endpoints may fall asleep."""
TRANSFORMED_BY = "real-time"
"""The mode whose model also predicts in a batch transform."""
CONTAINERS = "multi-container"
"""The mode in which host names are compared with a tenant's id."""
DEPLOYED_SECONDS_MAX = 3000
"""The endpoint is created with the first model, which takes minutes."""


def serving(suite: Suite) -> list[str]:
    """Serve two versions of a model, and call them."""
    suite.place.deploy(suite.stack, suite.stage, **dict.fromkeys(SWITCHED_ON, "true"))
    suite.__dict__.pop("deployment", None)  # its outputs have changed
    rows = suite.evidence / "rows.csv"
    suite.evidence.mkdir(parents=True, exist_ok=True)
    lines = table(WORKS).decode().splitlines()[: ROWS + 1]
    rows.write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n", encoding="utf-8")
    results = []
    for ordinal in ("first", "second"):
        by_link = ordinal == "first"
        version, seconds = _served(suite, by_link=by_link)
        results.append(
            f"{ordinal} version: served {seconds:g} s after its approval{' by link' if by_link else ''}; "
            f"its test took {version['latency_ms']} ms"
        )
    results += _called(suite, rows)
    results.append(_directly(suite, version, rows))
    suite.operator("serving", "roll-back", SILO, DATA_SET, str(version["version"]))
    answer = json.loads(suite.operator("predict", SILO, DATA_SET, str(rows), "--json"))
    if answer["version"] == version["version"]:
        raise StepFailed(f"version {answer['version']} answers after it was rolled back")
    results += [_in_mode(suite, rows, mode, settings) for mode, settings in OTHER_MODES.items()]
    doctor = json.loads(suite.operator("doctor", "--json", codes=(DONE, UNSUCCESSFUL)))
    return [*results, "rolled back", *(each["text"] for each in doctor if each["check"] == "endpoints")]


def _in_mode(suite: Suite, rows: Path, mode: str, settings: str) -> str:
    """Serve a version in a mode, call it, and take it out of service."""
    suite.operator("tenant", "update", SILO, "--serving", f"{mode}{settings}")
    try:
        version, seconds = _served(suite)
        answer = json.loads(suite.operator("predict", SILO, DATA_SET, str(rows), "--json"))
        more = _transformed(suite, rows) if mode == TRANSFORMED_BY else ""
        if mode == CONTAINERS:
            more = f"; {_directly(suite, version, rows, 'TargetContainerHostname')}"
    finally:
        suite.operator("tenant", "update", SILO, "--serving", "multi-model")
    if (version["mode"], answer["version"]) != (mode, version["version"]):
        raise StepFailed(f"version {version['version']} is served as {version['mode']}, and answered {answer}")
    suite.operator("serving", "stop", SILO, DATA_SET, "--yes")
    return (
        f"{mode}: served {seconds:g} s after its approval; its test took {version['latency_ms']} ms, and a call "
        f"{answer['milliseconds']} ms{more}"
    )


def _transformed(suite: Suite, rows: Path) -> str:
    """Let a batch transform predict the rows, and look for the answer where it should be."""
    (request,) = json.loads(suite.operator("transform", SILO, DATA_SET, str(rows), "--wait", "--json"))
    bucket, _, prefix = str(request["result"]["predictions_uri"]).removeprefix("s3://").partition("/")
    s3 = suite.deployment.client("s3")
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/").get("Contents", [])]
    if keys != [f"{prefix}/{rows.name}.out"]:
        raise StepFailed(f"the batch transform has written {keys}, not {rows.name}.out below {prefix}/")
    answer = json.loads(s3.get_object(Bucket=bucket, Key=keys[0])["Body"].read())
    if len(answer["predictions"]) != ROWS:
        raise StepFailed(f"{ROWS} rows were answered by {answer}")
    return f"; a batch transform of the same rows cost {request['result']['cost_usd']} USD"


def _served(suite: Suite, *, by_link: bool = False) -> tuple[dict[str, Any], float]:
    """Train a version, approve it, and wait until it answers; return it, and how long that took."""
    request = await_end(suite, SILO, upload(suite, SILO, DATA_SET))
    if request.state is not State.SUCCEEDED or request.outcome is None:
        raise StepFailed(f"{request.state}, {request.reason}")
    number = str(request.outcome.model_package_arn).rpartition("/")[2]
    if by_link:
        _approve_by_link(suite, number)
    else:
        suite.operator("models", "approve", SILO, number)

    def answers() -> dict[str, Any] | None:
        version = _version_of(suite, request)
        if version is not None and version["state"] in ("FAILED", "REFUSED"):
            raise StepFailed(f"version {number} is {version['state']}: {version['reason']}")
        return version if version is not None and version["percent"] == 100 else None

    version, seconds = eventually(answers, DEPLOYED_SECONDS_MAX, f"version {number} to be served", every=2)
    return dict(version), seconds


def _approve_by_link(suite: Suite, number: str) -> None:
    """Open a link as a reviewer does, without credentials, approve the version, and look at what is recorded."""
    link = json.loads(suite.operator("models", "link", SILO, number, "--for", "smoke", "--json"))["link"]
    decision = urllib.parse.urlencode({"decision": "approve", "comment": "smoke test"}).encode()

    def answered(address: str) -> int | None:
        try:
            with urllib.request.urlopen(address, data=decision, timeout=60) as page:  # noqa: S310 - of our own API
                return int(page.status)
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:  # the name of a new API takes a moment
            return None

    forged, _ = eventually(lambda: answered(link[:-4] + "AAAA"), 120, "the API to answer", every=2)
    if (forged, genuine := answered(link)) != (404, 200):
        raise StepFailed(f"a forged approval link was answered by {forged}, and a genuine one by {genuine}")
    models = json.loads(suite.operator("models", "list", SILO, "--json"))
    (comment,) = [model["comment"] for model in models if model["version"] == int(number)]
    if comment != "approved by link for smoke: smoke test":
        raise StepFailed(f"the registry has kept {comment!r} of an approval by link")


def _version_of(suite: Suite, request: Request) -> dict[str, Any] | None:
    versions = json.loads(suite.operator("serving", "show", SILO, "--json"))
    return next((version for version in versions if version["request_id"] == request.request_id), None)


def _called(suite: Suite, rows: Path) -> list[str]:
    """Call the model by the predict function, and look for the calls in the books."""
    milliseconds, began = [], datetime.now(UTC)
    for _ in range(CALLS):
        answer = json.loads(suite.operator("predict", SILO, DATA_SET, str(rows), "--json"))
        milliseconds.append(answer["milliseconds"])
        if len(answer["predictions"]) != ROWS or len(answer["probabilities"]) != ROWS:
            raise StepFailed(f"{ROWS} rows were answered by {answer}")
    book, hours = suite.deployment.inference_book, {hour_of(began), hour_of(datetime.now(UTC))}
    endpoint = json.loads(suite.operator("serving", "show", SILO, "--json"))[0]["endpoint"]
    calls = sum(use.calls for hour in hours for use in book.uses(endpoint, hour) if use.tenant_id == SILO)
    if calls < CALLS:
        raise StepFailed(
            f"{calls} of {CALLS} calls were counted: see CallsNotCounted in the predict function's log"
        )
    return [f"predictions came after {', '.join(map(str, milliseconds))} ms; {calls} calls were counted"]


def _directly(suite: Suite, version: dict[str, Any], rows: Path, target: str = "TargetModel") -> str:
    """Call the model with the tenant's credentials, and with those of another tenant."""
    answers = {}
    for tenant_id in (SILO, POOLED):
        keys = json.loads(suite.operator("tenant", "credentials", tenant_id, "--purpose", "predict", "--json"))
        runtime = boto3.client(
            "sagemaker-runtime",
            region_name=suite.region,
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=keys["AWS_SESSION_TOKEN"],
        )
        try:
            answer = runtime.invoke_endpoint(
                EndpointName=version["endpoint"],
                **{target: version["target"]},
                ContentType="text/csv",
                Accept="application/json",
                Body=rows.read_bytes(),
            )
            answers[tenant_id] = str(len(json.loads(answer["Body"].read())["predictions"]))
        except ClientError as error:
            answers[tenant_id] = str(error.response["Error"]["Code"])
    if answers != {SILO: str(ROWS), POOLED: "AccessDeniedException"}:
        raise StepFailed(f"calls with tenants' own credentials were answered by {answers}")
    return "the tenant's own credentials reach its model, and another tenant's do not"


STEPS: Sequence[Step[Suite]] = (
    Step(
        name="serving",
        does="serve two versions of a model on a shared endpoint, call it in each way, roll back, and serve one "
        "in each other mode (two instances until the teardown, three more until half an hour later)",
        means="the image does not load the model in multi-model mode, the account has no instance for endpoints, "
        "or a role lacks a right: `trainyard serving show`, the log of the serving function, the endpoint's log.",
        run=serving,
        minutes=150,
        jobs=7 * JOBS_OF_A_RUN,
    ),
)
