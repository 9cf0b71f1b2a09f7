"""Cold starts: what a new process needs to import a function and to process its first event.

Each function runs in a new process with the environment from the template, against the local cloud; the layer has
bytecode, as `sam build` makes it, the handler has none. It is compared with the floor: a new process that only
imports the AWS SDK and creates the same clients. Both are measured alternately and in CPU time, because waiting
for the local cloud says nothing about AWS; the ratio is the one of their medians. For functions that start often,
the first event is also measured alone, in a process that has already imported and created everything.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from local.cloud import REPOSITORY, Cloud
from local.deploy import deploy

LAYER = REPOSITORY / "layers" / "common" / "python"
FUNCTIONS = ("intake", "enlist", "dispatcher", "recorder", "reconciler", "guard", "billing", "tenants", "roles")

CHILD = """
import json, sys, time
begin = time.process_time()
{work}
end = time.process_time()
print(json.dumps({{"cpu": end - begin, "event": end - mark, "services": {services}, "mb": {memory}}}),
      file=sys.stderr)
"""
MEMORY = "int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]) / 1024"
"""The peak memory of the process, as reported by Linux."""
FUNCTION = """
import boto3.session
asked, build = [], boto3.session.Session.client
def client(self, name, *given, **named):
    asked.append(name)
    return build(self, name, *given, **named)
boto3.session.Session.client = client
import app
{built}
mark = time.process_time()
class Context:
    function_name = memory_limit_in_mb = aws_request_id = invoked_function_arn = "local"
    def get_remaining_time_in_millis(self): return 110000
try:
    answer = app.handler(json.loads(sys.argv[1]), Context())
    assert not answer.get("batchItemFailures"), "the event was not processed"
except Exception as error:
    if type(error).__name__ not in {accepted}: raise
services = sorted(set(asked))
"""
BUILT = """
from trainyard.entrypoints import bootstrap
from trainyard.adapters.aws.clients import client
bootstrap.{part}()
for service in {services}: client(service)
"""
PARTS = {"intake": "intake", "enlist": "enlist", "dispatcher": "dispatch", "recorder": "record"}
"""The functions that start often, and what each of them creates."""
FLOOR = """
mark = begin
import boto3
from botocore.config import Config
session = boto3.session.Session()
for service in json.loads(sys.argv[1]):
    session.client(service, config=Config(retries={"mode": "standard", "max_attempts": 4}))
"""


@dataclass(frozen=True)
class Start:
    """Medians over the trials."""

    function: str
    cpu_ms: float
    floor_ms: float
    spread_ms: float
    """The difference between the fastest and the slowest trial."""
    event_ms: float | None
    """Of the first event alone, with everything created before: what would remain after restoring a snapshot."""
    memory_mb: float
    floor_mb: float
    services: list[str]

    @property
    def ratio(self) -> float:
        return self.cpu_ms / self.floor_ms


def measure(trials: int = 7, progress: Callable[[Iterable[str]], Iterable[str]] = iter) -> list[Start]:
    with tempfile.TemporaryDirectory() as folder, Cloud() as cloud:
        _make("bytecode", Path(folder))
        layer = Path(folder) / "python"
        code = shutil.copytree(REPOSITORY / "functions", f"{folder}/functions", ignore=_no_bytecode)
        deploy(cloud)
        _child(  # as the timer does each minute: it stores the validated policy
            _script(accepted=()),
            json.dumps(_event("dispatcher")),
            _environment("dispatcher", cloud) | {"PYTHONPATH": f"{layer}:{code}/dispatcher"},
        )
        return [_measured(name, cloud, layer, code, trials) for name in progress(FUNCTIONS)]


_no_bytecode = shutil.ignore_patterns("__pycache__")


def _measured(name: str, cloud: Cloud, layer: Path, code: str, trials: int) -> Start:
    environment = _environment(name, cloud) | {"PYTHONPATH": f"{layer}:{code}/{name}"}
    event = json.dumps(_event(name))
    ours: list[dict[str, Any]] = []
    floor: list[dict[str, Any]] = []
    ready: list[dict[str, Any]] = []
    for _ in range(trials + 1):
        ours.append(_child(_script(), event, environment))
        services = ours[0]["services"]
        bare = CHILD.format(work=FLOOR, services="[]", memory=MEMORY)
        floor.append(_child(bare, json.dumps(services), environment))
        if name in PARTS:
            built = BUILT.format(part=PARTS[name], services=services)
            ready.append(_child(_script(built), event, environment))
    ours, floor, ready = ours[1:], floor[1:], ready[1:]  # the first trial reads the files from the disk
    cpus = [one["cpu"] * 1000 for one in ours]
    return Start(
        function=name,
        cpu_ms=median(cpus),
        floor_ms=median(one["cpu"] * 1000 for one in floor),
        spread_ms=max(cpus) - min(cpus),
        event_ms=median(one["event"] * 1000 for one in ready) if ready else None,
        memory_mb=median(one["mb"] for one in ours),
        floor_mb=median(one["mb"] for one in floor),
        services=ours[0]["services"],
    )


def _script(built: str = "", accepted: tuple[str, ...] = ("Refused",)) -> str:
    work = FUNCTION.replace("{accepted}", repr(accepted)).replace("{built}", built)
    return CHILD.format(work=work, services="services", memory=MEMORY)


def _child(script: str, argument: str, environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", script, argument], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"a function failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stderr.strip().splitlines()[-1]))


def _environment(name: str, cloud: Cloud) -> dict[str, str]:
    function = next(
        one
        for page in cloud.client("lambda").get_paginator("list_functions").paginate()
        for one in page["Functions"]
        if f"{name}function" in one["FunctionName"].lower()
    )
    own: dict[str, str] = function["Environment"]["Variables"]
    base = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONDONTWRITEBYTECODE": "1"}
    return base | cloud.environment() | own


def _event(name: str) -> dict[str, Any]:
    def read(file: str) -> dict[str, Any]:
        return dict(json.loads((REPOSITORY / "events" / f"{file}.json").read_text(encoding="utf-8")))

    def batch(body: str) -> dict[str, Any]:
        return {"Records": [{"messageId": "1", "body": body, "eventSource": "aws:sqs"}]}

    events: dict[str, Callable[[], dict[str, Any]]] = {
        "intake": lambda: batch(json.dumps(read("object-created"))),
        "enlist": lambda: batch(_request()),
        "dispatcher": lambda: {"source": "timer"},
        "recorder": lambda: batch(json.dumps(read("execution-status-succeeded"))),
        "guard": lambda: read("training-job-in-progress"),
        "tenants": lambda: read("tenant-step"),
    }
    return events.get(name, dict)()


def _request() -> str:
    content = {
        "bucket": "bucket",
        "key": "incoming/churn/data.csv",
        "version_id": "1",
        "etag": "e",
        "sequencer": "0",
        "size_bytes": 1000,
        "event_time": "2026-11-21T00:00:00Z",
    }
    return json.dumps(
        {
            "request_id": "0" * 32,
            "tenant_id": "nobody",
            "tier": "basic",
            "data_set": "churn",
            "cause": "upload",
            "content": content,
        }
    )


@dataclass(frozen=True)
class Layer:
    """Megabytes of the layer, as `sam build` makes it."""

    own_mb: float
    own_bytecode_mb: float
    mb: float
    bytecode_mb: float
    zipped_mb: float


def layer() -> Layer:
    """Build the layer with packages for Lambda's Python and processor, and return its size."""
    with tempfile.TemporaryDirectory() as folder:
        _make("build-CommonLayer", Path(folder))
        built = Path(folder) / "python"
        zipped = Path(shutil.make_archive(f"{folder}/layer", "zip", built))
        return Layer(
            own_mb=_megabytes(built / "trainyard", bytecode=False),
            own_bytecode_mb=_megabytes(built / "trainyard", bytecode=True),
            mb=_megabytes(built, bytecode=False),
            bytecode_mb=_megabytes(built, bytecode=True),
            zipped_mb=round(zipped.stat().st_size / 1e6, 2),
        )


def _make(target: str, folder: Path) -> None:
    """Run the layer's own Makefile, with this Python."""
    command = ["make", "-s", "-C", str(LAYER), target, f"ARTIFACTS_DIR={folder}", f"PYTHON={sys.executable}"]
    subprocess.run(command, check=True)


def _megabytes(folder: Path, *, bytecode: bool) -> float:
    files = [path for path in folder.rglob("*") if path.is_file() and (path.suffix == ".pyc") is bytecode]
    return round(sum(path.stat().st_size for path in files) / 1e6, 2)
