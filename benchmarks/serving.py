"""A thousand tenants on one multi-model endpoint in the local cloud (make serving).

    python -m benchmarks.serving [--tenants 1000] [--calls 400] [--json]

The real template with all its functions. One model is trained; the others are copies of it, each with its tenant's
record, its request and its own model package. They are approved, twelve at a time, and each is deployed by a run
of the state machine: Begin, Place, BringUp, Test, Switch. Then calls are made, to models that are loaded and to
all in turn, so that the endpoint has to evict one for each call.

Deployments a minute and calls a second depend on this machine, which runs everything. What counts is that every
tenant gets an answer of its own version, how calls by the function compare with calls of the endpoint itself, side
by side in one run, and that the memory of the models' processes does not grow.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.console import trainyard
from local.cloud import Cloud
from local.demo import data
from local.deploy import deploy
from local.sagemaker.hosting import MODELS_LOADED_MAX
from trainyard.adapters.aws.store import backoff
from trainyard.adapters.aws.tables import DynamoTenants
from trainyard.domain.hourly_spend import hour_of
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.requests import Request, State
from trainyard.domain.tenants import Tenant
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.items import request_item
from trainyard.persistence.model_versions import ModelVersions
from trainyard.persistence.requests import request_key
from trainyard.persistence.store import Put

STACK, DATA_SET = "trainyard", "wine"
WAIT_SECONDS = 1800
AT_ONCE = 12
"""Deployments that are under way: more would only wait for this machine's processors."""
BLOCK = 20
"""Calls of one kind, before those of the next kind."""
POLICY = """
running_max: 2
quiet_period_seconds: 0
delay_max_seconds: 0
tiers:
  basic:
    quota: 2
    running_max_per_tenant: 1
    runtime_max_minutes: 5
    storage: pool
    instances: [{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}]
"""


@dataclass(kw_only=True)
class Serving:
    """The results."""

    tenants: int
    seconds: float = 0.0
    """From the first approval until the last version answers."""
    wrong: int = 0
    """Tenants that were not answered by their own version, or not counted."""
    loaded_max: int = MODELS_LOADED_MAX
    by_endpoint: list[float] = field(default_factory=list)
    """Seconds of calls of the endpoint itself, its model loaded."""
    by_function: list[float] = field(default_factory=list)
    """Of calls by the predict function."""
    evicting: list[float] = field(default_factory=list)
    """Of calls by the function, each of which has to load its model."""
    memory_mb: list[int] = field(default_factory=list)
    """Of all processes of models, after each hundred of those calls."""

    @property
    def deploys_a_minute(self) -> float:
        return 60 * self.tenants / self.seconds if self.seconds else 0.0


class Bench:
    def __init__(self, cloud: Cloud, tenants: int, show: Callable[[str, float], None]) -> None:
        self.cloud, self.show = cloud, show
        self.outputs = deploy(cloud, STACK, {"SharedServing": "true"})
        self.deployment = trainyard(cloud, STACK)
        self.aliases = Aliases(self.deployment.store, backoff)
        self.versions = ModelVersions(self.deployment.store)
        self.result = Serving(tenants=tenants)
        self.rows = b"\n".join(
            line.rpartition(b",")[0] for line in data.bundled(DATA_SET).splitlines()[:2]
        ).decode()

    def run(self, calls: int) -> Serving:
        tenants = self._make_tenants()
        self._deploy(tenants)
        self._call_loaded(tenants[: min(MODELS_LOADED_MAX, 4)], calls)
        self._call_all(tenants)
        return self.result

    # --- tenants ----------------------------------------------------------------------------------------------

    def _make_tenants(self) -> list[Tenant]:
        first, request = self._first()
        records = DynamoTenants(tenants_table=self.outputs["TenantsTable"])
        tenants = [first]
        for number in range(1, self.result.tenants):
            name = f"t{number}"
            tenant = replace(
                first,
                tenant_id=name,
                root=f"{name}/",
                model_group=first.model_group.replace("t0", name),
                revision=0,
            )
            tenants.append(records.put(tenant))
            self._copy(first, request, tenant)
            self.show("tenants", (number + 1) / self.result.tenants)
        return tenants

    def _first(self) -> tuple[Tenant, Request]:
        """Create the first tenant, and train its model."""
        policy = Path(self.cloud.home) / "policy.yaml"
        policy.write_text(POLICY, encoding="utf-8")
        trainyard(self.cloud, STACK, "policy", "apply", "--yes", str(policy))
        trainyard(self.cloud, STACK, "tenant", "create", "t0", "--tier", "basic", "--target", "target")
        tenant = self.deployment.tenant("t0")
        self.cloud.client("s3").put_object(
            Bucket=tenant.bucket,
            Key=f"{tenant.root}incoming/{DATA_SET}/wine.csv",
            Body=data.bundled(DATA_SET),
        )

        def trained() -> Request | None:
            requests = self.deployment.scheduler.tables.requests.of_tenant("t0")
            return requests[0] if requests and requests[0].state is State.SUCCEEDED else None

        return replace(self.deployment.tenant("t0"), revision=0), _awaited(trained)

    def _copy(self, first: Tenant, request: Request, tenant: Tenant) -> None:
        """Give a tenant a request, a model and a model package like those of the first."""
        s3, sagemaker = self.cloud.client("s3"), self.cloud.client("sagemaker")
        request_id = md5(tenant.tenant_id.encode(), usedforsecurity=False).hexdigest()
        for item in s3.list_objects_v2(Bucket=first.bucket, Prefix=first.root)["Contents"]:
            key = item["Key"].removeprefix(first.root)
            if key.endswith(("model.tar.gz", "sample.json")):
                s3.copy_object(
                    Bucket=tenant.bucket,
                    Key=tenant.root + key.replace(request.request_id, request_id),
                    CopySource={"Bucket": first.bucket, "Key": item["Key"]},
                )
        copy = replace(request, tenant_id=tenant.tenant_id, request_id=request_id)
        self.deployment.store.transact([Put(request_key(request_id), request_item(copy))])
        (summary,) = sagemaker.list_model_packages(ModelPackageGroupName=first.model_group)[
            "ModelPackageSummaryList"
        ]
        package = sagemaker.describe_model_package(ModelPackageName=summary["ModelPackageArn"])
        (container,) = package["InferenceSpecification"]["Containers"]
        uri = container["ModelDataUrl"].replace(request.request_id, request_id)
        uri = uri.replace(f"{first.bucket}/{first.root}", f"{tenant.bucket}/{tenant.root}")
        specification = package["InferenceSpecification"] | {
            "Containers": [{"Image": container["Image"], "ModelDataUrl": uri}]
        }
        metadata = {"tenant": tenant.tenant_id, "data_set": DATA_SET, "request": request_id}
        sagemaker.create_model_package_group(ModelPackageGroupName=tenant.model_group)
        sagemaker.create_model_package(
            ModelPackageGroupName=tenant.model_group,
            InferenceSpecification=specification,
            ModelApprovalStatus="PendingManualApproval",
            CustomerMetadataProperties=metadata,
        )

    # --- deployments ------------------------------------------------------------------------------------------

    def _deploy(self, tenants: list[Tenant]) -> None:
        began, left, waiting = time.monotonic(), list(tenants), set[str]()

        def all_answer() -> bool:
            waiting.difference_update([t for t in waiting if self.aliases.get(t, DATA_SET).live == 1])
            while left and len(waiting) < AT_ONCE:
                tenant = left.pop()
                self._approve(tenant)
                waiting.add(tenant.tenant_id)
            self.result.seconds = time.monotonic() - began
            self.show("deployments", 1 - (len(left) + len(waiting)) / len(tenants))
            return not left and not waiting

        _awaited(all_answer, pause=0.5)

    def _approve(self, tenant: Tenant) -> None:
        sagemaker = self.cloud.client("sagemaker")
        (summary,) = sagemaker.list_model_packages(ModelPackageGroupName=tenant.model_group)[
            "ModelPackageSummaryList"
        ]
        sagemaker.update_model_package(ModelPackageArn=summary["ModelPackageArn"], ModelApprovalStatus="Approved")

    # --- calls ------------------------------------------------------------------------------------------------

    def _call_loaded(self, tenants: list[Tenant], calls: int) -> None:
        """Call loaded models, by the endpoint and by the function in turn."""
        for tenant in tenants:
            self._by_endpoint(self._version(tenant))
        for number in range(calls // BLOCK):
            tenant = tenants[number % len(tenants)]
            version = self._version(tenant)
            self.result.by_endpoint += [_timed(lambda: self._by_endpoint(version)) for _ in range(BLOCK)]  # noqa: B023
            self.result.by_function += [_timed(lambda: self._by_function(tenant)) for _ in range(BLOCK)]  # noqa: B023
            self.show("calls of loaded models", (number + 1) * BLOCK / calls)

    def _call_all(self, tenants: list[Tenant]) -> None:
        """Call every tenant's model once: each is loaded for it, and another one evicted."""
        for number, tenant in enumerate(tenants):
            began = time.monotonic()
            answer = self._by_function(tenant)
            self.result.evicting.append(time.monotonic() - began)
            uses = self.deployment.inference_book.uses(self._version(tenant).endpoint, hour_of(datetime.now(UTC)))
            is_counted = any(use.tenant_id == tenant.tenant_id for use in uses) if number % 50 == 0 else True
            self.result.wrong += not (
                answer.get("version") == 1 and len(answer["predictions"]) == 1 and is_counted
            )
            if number % 100 == 99:
                self.result.memory_mb.append(round(sum(_memory_mb(process) for process in model_processes())))
            self.show("calls that evict", (number + 1) / len(tenants))

    def _version(self, tenant: Tenant) -> ModelVersion:
        version = self.versions.get(tenant.tenant_id, DATA_SET, 1)
        assert version is not None
        return version

    def _by_endpoint(self, version: ModelVersion) -> None:
        self.cloud.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=version.endpoint,
            TargetModel=version.target,
            ContentType="text/csv",
            Accept="application/json",
            Body=self.rows.encode(),
        )["Body"].read()

    def _by_function(self, tenant: Tenant) -> dict[str, Any]:
        call = {"tenant_id": tenant.tenant_id, "data_set": DATA_SET, "rows": self.rows}
        answer = self.cloud.client("lambda").invoke(
            FunctionName=self.outputs["PredictFunction"], Payload=json.dumps(call).encode()
        )
        body: dict[str, Any] = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise RuntimeError(str(body))
        return body


def model_processes() -> Iterator[int]:
    """Yield the processes of the container image: itself, and one for each loaded model."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:  # it has just ended
                continue
            if b"sagemaker/image.py" in command:
                yield int(entry.name)


def _memory_mb(process: int) -> float:
    """Return a process's part of the memory, shared pages divided among those that share them."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def _timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def _awaited(find: Callable[[], Any], pause: float = 0.2) -> Any:
    limit = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < limit:
        if result := find():
            return result
        time.sleep(pause)
    raise TimeoutError(f"not within {WAIT_SECONDS} s")


def tell(console: Console, result: Serving) -> None:
    endpoint, function, evicting = (
        median(seconds) for seconds in (result.by_endpoint, result.by_function, result.evicting)
    )
    console.print(
        f"{result.tenants:,} tenants on one endpoint, which holds {result.loaded_max} models at once; "
        f"{result.wrong} wrong answers"
    )
    console.print(f"{result.deploys_a_minute:,.0f} versions were deployed a minute")
    console.print(
        f"calls one after the other, model loaded: {1 / endpoint:,.0f} a second by the endpoint, "
        f"{1 / function:,.0f} by the function ({function / endpoint:.1f} times as long)"
    )
    console.print(
        f"model loaded for the call, another one evicted: {evicting / function:.1f} times as long as that"
    )
    console.print(f"memory of the models' processes after each hundred evictions: {result.memory_mb} MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=1000, help="default: 1000")
    parser.add_argument("--calls", type=int, default=400, help="of loaded models, by each way (default: 400)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120, stderr=arguments.json)
    with Cloud() as cloud, Progress(console=console) as progress:
        os.environ |= cloud.environment()
        tasks: dict[str, Any] = {}

        def show(what: str, share: float) -> None:
            task = tasks.setdefault(what, progress.add_task(what, total=1)) if what not in tasks else tasks[what]
            progress.update(task, completed=share)

        result = Bench(cloud, arguments.tenants, show).run(arguments.calls)
    if arguments.json:
        print(json.dumps(asdict(result)))
    else:
        tell(console, result)
    grown = len(result.memory_mb) > 2 and result.memory_mb[-1] > 1.25 * result.memory_mb[1]
    return 1 if result.wrong or grown else 0


if __name__ == "__main__":
    sys.exit(main())
