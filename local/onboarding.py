"""Measure onboarding and deletion on the local cloud: one tenant, a thousand in the pool, one with 5,000 objects.

    python -m local.onboarding [--tenants 1000] [--objects 5000] [--at-once 4]

Calls are the AWS calls of the tenants function, as counted in its log; each tenant also takes one StartExecution
and seven state transitions with a task each. Seconds depend on this machine, which handles about 150 calls a
second in total; state machines wait a two-thousandth of their time.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from local.cloud import Cloud
from local.demo import data
from local.deploy import deploy

POLICY = """
running_max: 20
quiet_period_seconds: 0
delay_max_seconds: 0
tiers:
  basic:
    quota: 4
    running_max_per_tenant: 1
    runtime_max_minutes: 5
    storage: pool
    instances: [{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}]
  premium:
    quota: 4
    running_max_per_tenant: 1
    runtime_max_minutes: 5
    instances: [{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}]
"""
UPLOADERS = 10


@dataclass
class Harness:
    cloud: Cloud
    outputs: dict[str, str]
    counted: Counter[str] = field(default_factory=Counter)
    read: set[str] = field(default_factory=set)
    read_until: int = 0
    """Milliseconds since 1970."""

    def run(self, change: str, payload: dict[str, Any]) -> float:
        """Run a state machine to its end; return its duration in seconds. Raises RuntimeError if it fails."""
        machines, began = self.cloud.client("stepfunctions"), time.monotonic()
        arn = machines.start_execution(
            stateMachineArn=f"{self.outputs['TenantMachines']}{change}", input=json.dumps(payload)
        )["executionArn"]
        while (found := machines.describe_execution(executionArn=arn))["status"] == "RUNNING":
            time.sleep(0.1)
        if found["status"] != "SUCCEEDED":
            raise RuntimeError(f"{change} failed: {found.get('cause')}")
        return time.monotonic() - began

    def create(self, name: str, tier: str) -> float:
        return self.run("create", {"tenant": {"name": name, "tier": tier, "target": "target"}})

    def calls(self, prefix: str) -> int:
        """Return the calls counted in the function's log for tenants whose ID has a prefix."""
        self._read_on()
        return sum(count for tenant_id, count in self.counted.items() if tenant_id.startswith(prefix))

    def _read_on(self) -> None:
        """Count the calls logged since the last read; a response contains at most ten thousand lines."""
        while True:
            found = self.cloud.client("logs").filter_log_events(
                logGroupName="/trainyard/trainyard/Tenants", startTime=self.read_until
            )["events"]
            new = [event for event in found if _identity(event) not in self.read]
            for event in new:
                self.read.add(_identity(event))
                self.read_until = max(self.read_until, event["timestamp"])
                if event["message"].startswith("{") and '"calls"' in event["message"]:
                    line = json.loads(event["message"])
                    self.counted[str(line.get("tenant_id"))] += int(line["calls"])
            if not new:
                return


def _identity(event: dict[str, Any]) -> str:
    return f"{event['timestamp']} {event['message']}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=1000, help="tenants in the pool (default: 1000)")
    parser.add_argument("--objects", type=int, default=5000, help="objects of the deleted tenant (default: 5000)")
    parser.add_argument("--at-once", type=int, default=4, help="tenants created at once (default: 4)")
    arguments = parser.parse_args()
    with Cloud() as cloud:
        os.environ.update(cloud.environment())
        from cli.app import answer
        from cli.deployment import Deployment

        harness = Harness(cloud, deploy(cloud))
        deployment = Deployment("trainyard")
        with tempfile.TemporaryDirectory() as folder:
            policy = Path(folder) / "policy.yaml"
            policy.write_text(POLICY, encoding="utf-8")
            answer(deployment, "policy", "apply", "--yes", str(policy))
        one_tenant(harness)
        many_tenants(harness, deployment, arguments.tenants, arguments.at_once)
        many_objects(harness, deployment, arguments.objects)
    return 0


def one_tenant(harness: Harness) -> None:
    harness.create("warmup", "basic")
    for name, tier, storage in (("alone", "basic", "in the pool"), ("apart", "premium", "with a bucket")):
        seconds = harness.create(name, tier)
        print(f"one tenant {storage}: {harness.calls(name)} calls, {seconds:.1f} s")


def many_tenants(harness: Harness, deployment: Any, count: int, at_once: int) -> None:
    """Create tenants, then let some of them upload: one rule serves all, and only those get roles."""
    began = time.monotonic()
    with Progress(transient=True) as progress, ThreadPoolExecutor(at_once) as pool:
        bar = progress.add_task(f"{count:,} tenants", total=count)
        for _ in pool.map(lambda number: harness.create(f"many-{number}", "basic"), range(count)):
            progress.advance(bar)
    seconds = time.monotonic() - began
    calls = harness.calls("many-")
    print(
        f"{count:,} tenants in the pool: {calls / count:.1f} calls and {seconds / count:.2f} s each, "
        f"{seconds:.0f} s in all, {at_once} at once"
    )
    for number in range(0, count, max(count // UPLOADERS, 1)):
        key = f"many-{number}/incoming/wine/wine.csv"
        harness.cloud.client("s3").put_object(
            Bucket=harness.outputs["PoolBucket"], Key=key, Body=data.bundled("wine")
        )
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        states = [
            r.state.value
            for n in range(count)
            for r in deployment.scheduler.tables.requests.of_tenant(f"many-{n}")
        ]
        if len(states) >= UPLOADERS and set(states) == {"SUCCEEDED"}:
            break
        time.sleep(2)
    rules = harness.cloud.client("events").list_rules()["Rules"]
    roles = [r for r in harness.cloud.client("iam").list_roles()["Roles"] if "/tenants/" in r["Path"]]
    mine = [r for r in roles if r["RoleName"].startswith("trainyard-many-")]
    print(
        f"{len(states)} of them uploaded: {states.count('SUCCEEDED')} models; {len(mine)} roles for {count:,} "
        f"tenants; {len([r for r in rules if 'Uploads' in r['Name']])} rule for uploads"
    )


def many_objects(harness: Harness, deployment: Any, count: int) -> None:
    harness.create("hoarder", "premium")
    bucket = deployment.tenant("hoarder").bucket
    s3 = harness.cloud.client("s3")
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(lambda n: s3.put_object(Bucket=bucket, Key=f"receipts/x/{n}.json", Body=b"{}"), range(count))
        )
    before = harness.calls("hoarder")
    seconds = harness.run("delete", {"tenant": {"name": "hoarder"}})
    print(f"deleting a tenant with {count:,} objects: {harness.calls('hoarder') - before} calls, {seconds:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
