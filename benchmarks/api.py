"""Routes of the HTTP API against the calls of AWS that they make, with many requests in the tables.

Each route that shows something is called again and again, in this process, with the environment and over the
tables of a deployment in the local cloud. What is printed is the ratio of two times at the 99th percentile: of
the whole call, and of the calls of AWS within it. What the local cloud takes for a query says nothing about
DynamoDB.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from string import Formatter
from types import ModuleType, SimpleNamespace
from typing import Any

from botocore.client import BaseClient

from benchmarks.console import trainyard
from local.cloud import REPOSITORY, Cloud
from local.deploy import deploy
from tests.build import request
from trainyard.adapters.aws.store import backoff
from trainyard.domain.inference import EndpointUse
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.requests import State
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.inference import InferenceBook
from trainyard.persistence.items import request_item
from trainyard.persistence.model_versions import ModelVersions
from trainyard.persistence.requests import request_key
from trainyard.persistence.store import Put, Store

STACK = "trainyard"
OWNER = "acme"
OF_OWNER_SHARE = 10
"""One in so many requests is OWNER's; the others have a thousand tenants."""
BATCH = 100
"""Writes of a transaction (DynamoDB developer guide, "Service quotas")."""
ENDED = (State.SUCCEEDED, State.SUCCEEDED, State.SUCCEEDED, State.FAILED, State.STOPPED)
PERCENTILE = 0.99


@dataclass(frozen=True)
class Measured:
    """A route's times in seconds, at the 99th percentile, and how many calls of AWS it makes."""

    path: str
    whole: float
    within_aws: float
    calls: int

    @property
    def ratio(self) -> float:
        return self.whole / self.within_aws if self.within_aws else float("inf")


def fill(store: Store, requests: int, now: datetime) -> None:
    """Write requests that have ended within the last month."""
    batch: list[Put] = []
    for number in range(requests):
        at = now - timedelta(seconds=26 * number)
        tenant_id = OWNER if number % OF_OWNER_SHARE == 0 else f"t{number % 1000:04}"
        state = ENDED[number % len(ENDED)]
        ended = replace(
            request(number + 1),
            tenant_id=tenant_id,
            state=state,
            arrived_at=at - timedelta(minutes=30),
            admitted_at=at - timedelta(minutes=20),
            finished_at=at,
            reason="there is no column 'target'" if state is State.FAILED else None,
        )
        batch.append(Put(request_key(ended.request_id), request_item(ended)))
        if len(batch) == BATCH:
            store.transact(batch)
            batch = []
    if batch:
        store.transact(batch)


def fill_deployments(store: Store, deployments: int, now: datetime) -> None:
    """Deploy a version of a data set of OWNER, and of so many other tenants, and count calls of it."""
    aliases, versions = Aliases(store, backoff), ModelVersions(store)
    book = InferenceBook(store=store, retention=timedelta(days=400))
    for number in range(deployments + 1):
        tenant_id = f"t{number:05}" if number else OWNER
        versions.put(
            ModelVersion(
                tenant_id=tenant_id,
                data_set="churn",
                version=1,
                package_arn=f"arn:{tenant_id}",
                request_id=f"{number + 1:032x}",
                model_uri="s3://bucket/model.tar.gz",
                state=VersionState.READY,
                since=now,
                approved_at=now,
                endpoint="shared",
            )
        )
        aliases.change(tenant_id, "churn", lambda alias: replace(alias, live=1), now)
        use = EndpointUse(
            tenant_id=tenant_id, data_set="churn", tier="basic", algorithm="linear", calls=number + 1
        )
        book.count("shared", use, now, version=1)


def routes() -> list[str]:
    """Return the path of each route that shows something, about OWNER."""
    described = json.loads((REPOSITORY / "docs/openapi.json").read_text(encoding="utf-8"))
    named = {"tenant_id": OWNER, "request_id": f"{1:032x}", "version": "0", "data_set": "churn"}
    more = {"/v1/service/ended": "?tier=basic&state=FAILED"}
    paths = [path for path, operations in described["paths"].items() if "get" in operations]
    # There is no waiting request here, no model, no log of a step, and nothing else that has an identifier.
    absent = ("/why", "/models/{version}", "/files", "/logs")
    shown = [path for path in paths if not path.endswith(absent) and named.keys() >= _names(path)]
    return [path.format(**named) + more.get(path, "") for path in shown]


def _names(path: str) -> set[str]:
    """Return the names of a path's parameters."""
    return {name for _, name, _, _ in Formatter().parse(path) if name}


class _Clock:
    """How long calls of AWS have taken since it was reset."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0

    @contextmanager
    def running(self) -> Iterator[None]:
        make = BaseClient._make_api_call

        def timed(client: Any, operation: str, parameters: Any) -> Any:
            began = time.perf_counter()
            try:
                return make(client, operation, parameters)
            finally:
                self.seconds += time.perf_counter() - began
                self.calls += 1

        BaseClient._make_api_call = timed
        try:
            yield
        finally:
            BaseClient._make_api_call = make

    def reset(self) -> None:
        self.seconds, self.calls = 0.0, 0


def measured(path: str, function: ModuleType, times: int) -> Measured:
    """Call a route so many times, after a first one."""
    clock, whole, within = _Clock(), [], []
    with clock.running():
        for number in range(times + 1):
            clock.reset()
            began = time.perf_counter()
            answer = function.handler(_event(path, number), _CONTEXT)
            took = time.perf_counter() - began
            if answer["statusCode"] != 200:
                raise RuntimeError(f"{path} is answered by {answer['statusCode']}: {answer['body'][:300]}")
            if number:
                whole.append(took)
                within.append(clock.seconds)
    return Measured(path, _percentile(whole), _percentile(within), clock.calls)


def _percentile(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * PERCENTILE))]


_CONTEXT = SimpleNamespace(
    function_name="api", memory_limit_in_mb=1024, invoked_function_arn="arn:aws:lambda:::api", aws_request_id="r"
)


def _event(path: str, number: int) -> dict[str, Any]:
    """Return a call of an operator; each of another one, so that none has called too often."""
    path, _, query = path.partition("?")
    claims = {"sub": f"operator-{number}", "cognito:groups": "[operators]"}
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": query,
        "queryStringParameters": dict(part.split("=") for part in query.split("&")) if query else {},
        "headers": {},
        "isBase64Encoded": False,
        "requestContext": {
            "http": {"method": "GET", "path": path},
            "stage": "$default",
            "requestId": "r",
            "authorizer": {"jwt": {"claims": claims}},
        },
    }


def _function(cloud: Cloud, name: str, logical_id: str) -> ModuleType:
    """Import a function with the environment that it has in the deployment."""
    functions = cloud.client("lambda")
    (deployed,) = (
        each
        for page in functions.get_paginator("list_functions").paginate()
        for each in page["Functions"]
        if f"-{logical_id}" in each["FunctionName"]
    )
    os.environ |= deployed["Environment"]["Variables"]
    specification = importlib.util.spec_from_file_location(name, REPOSITORY / f"functions/{name}/app.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def measure(cloud: Cloud, requests: int, times: int) -> list[Measured]:
    """Deploy, fill the tables, and measure all routes."""
    deploy(cloud, STACK, {"Stage": "dev", "HttpApi": "true"})
    deployment = trainyard(cloud, STACK, "tenant", "create", OWNER, "--tier", "basic", "--target", "target")
    fill(deployment.store, requests, datetime.now(UTC))
    fill_deployments(deployment.store, requests // 50, datetime.now(UTC))
    functions = {name: _function(cloud, name, f"{name.capitalize()}Function") for name in ("api", "operations")}
    results: list[Measured] = []
    for path in routes():
        name = "operations" if path.startswith("/v1/service") else "api"
        results.append(measured(path, functions[name], times))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="in the tables")
    parser.add_argument("--times", type=int, default=50, help="that each route is called")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    with Cloud(authorise=False) as cloud:
        results = measure(cloud, arguments.requests, arguments.times)
    if arguments.json:
        print(json.dumps([{"path": each.path, "ratio": each.ratio, "calls": each.calls} for each in results]))
        return 0
    tables = f"{arguments.requests:,} requests and {arguments.requests // 50:,} deployments in the tables"
    print(f"{tables}, {arguments.times} calls of each route")
    print("| route | calls of AWS | p99, as a multiple of their time |\n|---|---|---|")
    for each in results:
        print(f"| `{each.path.replace(OWNER, '…')}` | {each.calls} | {each.ratio:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
