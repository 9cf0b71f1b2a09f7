"""Round robin by tenant, like Hatchet's GROUP_ROUND_ROBIN and Temporal's fairness keys, without a usage history.

A workflow engine with its own database immediately assigns the free slots of a tier to the tenants in turn. The
worker that holds a slot polls its execution's status every ten seconds; if it dies, the engine gives the task to
another worker after thirty seconds, which starts with the same token. Weights: a tenant's turn has as many slots
as its weight (Temporal); Hatchet has no weights.
"""

from collections import deque
from collections.abc import Mapping

from benchmarks.harness import Execution, Harness
from simulation.flow import Job

POLL_SECONDS, HEARTBEAT_SECONDS = 10.0, 30.0


class RoundRobin:
    def __init__(self, harness: Harness, quotas: Mapping[str, int], weights: Mapping[str, int]) -> None:
        self.harness, self.quotas, self.weights = harness, quotas, weights
        self.jobs: dict[str, dict[str, deque[Job]]] = {tier: {} for tier in quotas}
        self.turns: dict[str, deque[str]] = {tier: deque() for tier in quotas}
        self.left = dict.fromkeys(quotas, 0)
        self.held = dict.fromkeys(quotas, 0)

    def submit(self, job: Job) -> None:
        jobs = self.jobs[job.tier].setdefault(job.tenant_id, deque())
        jobs.append(job)
        if job.tenant_id not in self.turns[job.tier]:
            self.turns[job.tier].append(job.tenant_id)
        self.fill(job.tier)

    def fill(self, tier: str) -> None:
        turns = self.turns[tier]
        while self.held[tier] < self.quotas[tier] and turns:
            tenant = turns[0]
            jobs = self.jobs[tier][tenant]
            if self.left[tier] == 0:
                self.left[tier] = self.weights.get(tenant, 1)
            job = jobs.popleft()
            self.left[tier] -= 1
            if not jobs:
                turns.popleft()
                self.left[tier] = 0
            elif self.left[tier] == 0:
                turns.rotate(-1)
            self.held[tier] += 1
            self._start(job)

    def _start(self, job: Job) -> None:
        found: list[Execution] = []

        def start() -> None:
            found.append(self.harness.start(f"{job.tier}-{job.number}", f"token {job.number}", job))

        self.harness.invoke(start)
        if found:
            self.harness.agenda.after(POLL_SECONDS, lambda: self._look(found[0]))
        else:
            self.harness.agenda.after(HEARTBEAT_SECONDS, lambda: self._start(job))

    def _look(self, execution: Execution) -> None:
        ended: list[bool] = []
        self.harness.invoke(lambda: ended.append(self.harness.describe(execution)))
        if ended == [True]:
            self.held[execution.job.tier] -= 1
            self.fill(execution.job.tier)
        else:
            self.harness.agenda.after(POLL_SECONDS, lambda: self._look(execution))

    def waiting(self) -> int:
        return sum(len(jobs) for tenants in self.jobs.values() for jobs in tenants.values())

    def leaked(self) -> int:
        return self.harness.amiss(self.held)
