"""Approved models of the demo answer calls: one in each mode."""

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.domain.requests import Request, State

PATIENCE_SECONDS = 90
ROWS = 200
"""That each model predicts, of those that it was trained on."""


@dataclass(frozen=True)
class Ask:
    """A data set whose newest model is approved and called."""

    tenant: str
    data_set: str
    target: str


ASKS = (
    Ask("aster", "iris", "target"),
    Ask("birch", "wine", "target"),
    Ask("dogwood", "churn", "churned"),
    Ask("elm", "payments", "is_fraud"),
)


@dataclass(frozen=True)
class Served:
    """What a model answered."""

    ask: Ask
    mode: str
    version: int
    is_newest: bool
    rows: int
    answers: int
    right: int

    @property
    def is_good(self) -> bool:
        return self.is_newest and self.answers == self.rows and self.right >= 0.8 * self.rows


def serve(deployment: Any, data_of: Callable[..., Any], folder: Path) -> list[Served]:
    """Approve a model of each data set, wait until it is served, and call it; `data_of` runs a
    command, and returns its data."""
    newest = {ask: _newest(deployment, ask) for ask in ASKS}
    for ask, request in newest.items():
        data_of("models", "approve", ask.tenant, str(_version(request)))
    return [_called(deployment, data_of, ask, request, folder) for ask, request in newest.items()]


def _newest(deployment: Any, ask: Ask) -> Request:
    requests: list[Request] = deployment.scheduler.tables.requests.of_tenant(ask.tenant)
    succeeded = [r for r in requests if r.data_set == ask.data_set and r.state is State.SUCCEEDED]
    return max(succeeded, key=_version)


def _version(request: Request) -> int:
    assert request.outcome is not None
    return int(str(request.outcome.model_package_arn).rpartition("/")[2])


def _called(deployment: Any, data_of: Callable[..., Any], ask: Ask, request: Request, folder: Path) -> Served:
    limit = time.monotonic() + PATIENCE_SECONDS
    while not (view := _live(data_of, ask)):
        if time.monotonic() > limit:
            shown = data_of("serving", "show", ask.tenant)
            raise TimeoutError(f"no model of {ask.tenant} is served after {PATIENCE_SECONDS} s:\n{shown}")
        time.sleep(0.3)
    rows, labels = _rows(deployment, ask, request)
    file = folder / f"{ask.tenant}.csv"
    file.write_text(rows, encoding="utf-8", newline="")
    answer = data_of("predict", ask.tenant, ask.data_set, str(file))
    predictions = [str(value) for value in answer["predictions"]]
    return Served(
        ask=ask,
        mode=deployment.tenant(ask.tenant).settings_for(ask.data_set).serving.mode,
        version=answer["version"],
        is_newest=answer["version"] == view["version"] == _version(request),
        rows=len(labels),
        answers=len(predictions),
        right=sum(label == prediction for label, prediction in zip(labels, predictions, strict=False)),
    )


def _live(data_of: Callable[..., Any], ask: Ask) -> dict[str, Any] | None:
    views = data_of("serving", "show", ask.tenant)
    return next((view for view in views if view["data_set"] == ask.data_set and view["percent"] == 100), None)


def _rows(deployment: Any, ask: Ask, request: Request) -> tuple[str, list[str]]:
    """Return rows of an upload without their labels, and the labels."""
    tenant = deployment.tenant(ask.tenant)
    place = {"Bucket": tenant.bucket, "Prefix": f"{tenant.root}incoming/{ask.data_set}/"}
    (item,) = deployment.client("s3").list_objects_v2(**place)["Contents"]
    body = deployment.client("s3").get_object(Bucket=tenant.bucket, Key=item["Key"])["Body"].read().decode()
    table = list(csv.DictReader(io.StringIO(body)))
    table = table[:: max(len(table) // ROWS, 1)]
    labels = [row.pop(ask.target) for row in table]
    written = io.StringIO()
    writer = csv.DictWriter(written, fieldnames=list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    return written.getvalue(), labels
