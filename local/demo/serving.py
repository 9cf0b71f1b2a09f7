"""Approved models of the demo answer calls, each in another mode, and one of them a batch transform."""

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.demo import archives
from trainyard.domain.requests import Request, State
from trainyard.domain.serving import Mode

PATIENCE_SECONDS = 90
ROWS = 200
"""That each model predicts, of those that it was trained on."""
DIFFERENCE_MAX = 300


@dataclass(frozen=True)
class Ask:
    """A data set whose newest model is approved and called."""

    tenant: str
    data_set: str


ASKS = (
    Ask("aster", "iris"),
    Ask("birch", "wine"),
    Ask("dogwood", "churn"),
    Ask("elm", "payments"),
)


BY_LINK = Ask("aster", "iris")
"""Whose model a reviewer approves by a signed link."""

TRANSFORMED = Ask("dogwood", "churn")
"""Whose rows are also predicted by a batch transform."""


@dataclass(frozen=True)
class Served:
    """What a model answered."""

    ask: Ask
    mode: str
    rows: int
    difference: str
    """From what the newest model's archive predicts of the same rows; "" for none."""

    @property
    def is_good(self) -> bool:
        return not self.difference


def serve(deployment: Any, data_of: Callable[..., Any], folder: Path) -> list[Served]:
    """Approve a model of each data set, wait until it is served, and call it; `data_of` runs a
    command, and returns its data."""
    newest = {ask: _newest(deployment, ask) for ask in ASKS}
    for ask, request in newest.items():
        if ask == BY_LINK:
            _approve_by_link(data_of, ask, _version(request))
        else:
            data_of("models", "approve", ask.tenant, str(_version(request)))
    served = [_called(deployment, data_of, ask, request, folder) for ask, request in newest.items()]
    return [*served, _transformed(deployment, data_of, TRANSFORMED, newest[TRANSFORMED], folder)]


def _approve_by_link(data_of: Callable[..., Any], ask: Ask, version: int) -> None:
    """Approve a version as a reviewer does who opens a link: without credentials."""
    link = data_of("models", "link", ask.tenant, str(version), "--for", "reviewer@example.com")["link"]
    with urllib.request.urlopen(link, timeout=30) as page:
        assert b"<form" in page.read(), "the link shows what is to be decided"
    decision = urllib.parse.urlencode({"decision": "approve", "comment": "as good as the last one"}).encode()
    with urllib.request.urlopen(link, data=decision, timeout=30):
        pass


def _newest(deployment: Any, ask: Ask) -> Request:
    requests: list[Request] = deployment.scheduler.tables.requests.of_tenant(ask.tenant)
    succeeded = [r for r in requests if r.data_set == ask.data_set and r.state is State.SUCCEEDED]
    return max(succeeded, key=_version)


def _version(request: Request) -> int:
    assert request.outcome is not None
    return int(str(request.outcome.model_package_arn).rpartition("/")[2])


def _called(deployment: Any, data_of: Callable[..., Any], ask: Ask, request: Request, folder: Path) -> Served:
    limit = time.monotonic() + PATIENCE_SECONDS
    while not _is_live(data_of, ask):
        if time.monotonic() > limit:
            shown = data_of("serving", "show", ask.tenant)
            raise TimeoutError(f"no model of {ask.tenant} is served after {PATIENCE_SECONDS} s:\n{shown}")
        time.sleep(0.3)
    rows = _rows(deployment, ask)
    file = folder / f"{ask.tenant}.csv"
    file.write_bytes(rows)
    answer = data_of("predict", ask.tenant, ask.data_set, str(file))
    (expected,) = archives.predicted(deployment.client("s3"), {request: rows}, ROWS).values()
    difference = f"{answer['predictions']} instead of {expected}" if answer["predictions"] != expected else ""
    if answer["version"] != _version(request):
        difference = f"version {answer['version']} instead of {_version(request)}"
    return Served(
        ask=ask,
        mode=deployment.tenant(ask.tenant).settings_for(ask.data_set).serving.mode,
        rows=len(expected),
        difference=difference[:DIFFERENCE_MAX],
    )


def _transformed(deployment: Any, data_of: Callable[..., Any], ask: Ask, request: Request, folder: Path) -> Served:
    """Let a batch transform predict the rows that were sent as a call before."""
    rows = _rows(deployment, ask)
    file = folder / "stored.csv"
    file.write_bytes(rows)
    (ended,) = data_of("transform", ask.tenant, ask.data_set, str(file), "--wait")
    bucket, _, prefix = str(ended["result"]["predictions_uri"]).removeprefix("s3://").partition("/")
    body = deployment.client("s3").get_object(Bucket=bucket, Key=f"{prefix}/{file.name}.out")["Body"].read()
    predictions = json.loads(body)["predictions"]
    (expected,) = archives.predicted(deployment.client("s3"), {request: rows}, ROWS).values()
    difference = f"{predictions} instead of {expected}" if predictions != expected else ""
    return Served(ask=ask, mode=Mode.BATCH_TRANSFORM, rows=len(expected), difference=difference[:DIFFERENCE_MAX])


def _is_live(data_of: Callable[..., Any], ask: Ask) -> bool:
    views = data_of("serving", "show", ask.tenant)
    return any(view["data_set"] == ask.data_set and view["percent"] == 100 for view in views)


def _rows(deployment: Any, ask: Ask) -> bytes:
    """Return the first rows of an upload, with their labels, which the models do not look at."""
    tenant = deployment.tenant(ask.tenant)
    place = {"Bucket": tenant.bucket, "Prefix": f"{tenant.root}incoming/{ask.data_set}/"}
    (item,) = deployment.client("s3").list_objects_v2(**place)["Contents"]
    body: bytes = deployment.client("s3").get_object(Bucket=tenant.bucket, Key=item["Key"])["Body"].read()
    return b"".join(body.splitlines(keepends=True)[: ROWS + 1])
