"""The cost of the search for lost uploads: calls are counted and priced at list prices (make sweep-cost).

    python -m benchmarks.sweep [--tenants 10000] [--objects 30]

It measures a turn through all tenants, each with a number of objects of the last thirty days that are all known.
"""

import argparse
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console

from benchmarks.compare import USD
from benchmarks.designs.ours import tenant_named
from testing.memory_store import MemoryStore
from testing.service import scheduler_over
from trainyard.application.scheduling.lost_uploads import TENANTS_A_RUN, LostUploads
from trainyard.domain.requests import Content
from trainyard.domain.tenants import Tenant

EVERY = timedelta(minutes=5)
"""As in template.yaml."""
LIST_USD = 0.005 / 1000
"""The price of a ListObjectVersions (S3 pricing, us-east-1)."""
NOW = datetime.fromisoformat("2026-11-26T12:00:00+00:00")
PAGE = 1000
"""Object versions of one ListObjectVersions."""


class Counted:
    """The tenants, their objects and the known requests; counts the calls."""

    def __init__(self, tenants: int, objects: int) -> None:
        self.tenants, self.objects = tenants, objects
        self.lists = self.scans = self.reads = 0

    def get(self, tenant_id: str) -> Tenant | None:
        return None

    def page(self, *given: Any, after: str | None = None, **_: Any) -> Any:
        return self._objects(given[0]) if given else self._tenants(after)

    def _tenants(self, after: str | None) -> tuple[list[Tenant], str | None]:
        self.scans += 1
        begin = int(after or 0)
        end = min(begin + TENANTS_A_RUN, self.tenants)
        found = [tenant_named(f"t{number}", "basic") for number in range(begin, end)]
        return found, str(end) if end < self.tenants else None

    def _objects(self, tenant: Tenant) -> tuple[list[Content], str | None]:
        self.lists += -(-self.objects // PAGE)
        key = f"{tenant.root}incoming/set/"
        return [
            Content(
                bucket=tenant.bucket,
                key=f"{key}{number}",
                version_id=f"{number}",
                etag="",
                sequencer="",
                size_bytes=1,
                event_time=NOW,
            )
            for number in range(self.objects)
        ], None

    def get_all(self, ids: list[str]) -> list[Any]:
        self.reads += len(ids)
        return [type("Known", (), {"request_id": one}) for one in ids]


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.sweep", description=__doc__)
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--objects", type=int, default=30, help="objects of each tenant in the last thirty days")
    given = parser.parse_args()
    counted: Any = Counted(given.tenants, given.objects)
    store = MemoryStore()
    scheduler = scheduler_over(store)
    sweep = LostUploads(
        account_id="123456789012",
        store=store,
        tenants=counted,
        uploads=counted,
        scheduler=replace(scheduler, tables=replace(scheduler.tables, requests=counted)),
        intake=None,  # type: ignore[arg-type]
    )
    runs = looked = 0
    while looked < given.tenants:
        looked += sweep.run(NOW).tenants
        runs += 1
    turn = runs * EVERY
    month = timedelta(days=30) / turn
    usd = counted.lists * LIST_USD + (counted.reads + 2 * counted.scans * TENANTS_A_RUN) * USD["read unit"]
    usd += runs * (USD["invocation"] + USD["write unit"])
    Console().print(
        f"{given.tenants:,} tenants with {given.objects} objects each: a turn takes "
        f"{turn / timedelta(days=1):.1f} days, {runs:,} runs, {counted.lists:,} lists of objects, "
        f"{counted.reads:,} requests read; {usd * month:.2f} USD a month",
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
