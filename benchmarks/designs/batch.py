"""AWS Batch with a fair-share policy, as documented: service jobs, a queue and a capacity for each tier.

AWS Batch user guide, "Fair-share scheduling": the share with the least aggregate usage goes next; usage is the
compute time of running and recently ended jobs within the share decay time, times the weight factor (here one
divided by the tenant's weight). No compute is reserved for inactive shares. Batch is a managed service whose
internals are not documented: it is assumed to schedule once a second, to notice ends at once, and never to fail.
Fair-share queues do not lend. Quota shares do, but a queue can have at most twenty of them, and then there is no
fair sharing between tenants. Batch runs training jobs, not pipelines.
"""

from collections import deque
from collections.abc import Mapping

from benchmarks.harness import Harness
from simulation.flow import Job
from trainyard.domain.errors import OutcomeUnknown, Throttled

DECAY_SECONDS = 3600.0
SCHEDULE_SECONDS = 1.0


class Batch:
    def __init__(self, harness: Harness, quotas: Mapping[str, int], weights: Mapping[str, int]) -> None:
        self.harness, self.quotas, self.weights = harness, quotas, weights
        self.jobs: dict[str, dict[str, deque[Job]]] = {tier: {} for tier in quotas}
        self.running: dict[str, list[tuple[str, float, float]]] = {tier: [] for tier in quotas}
        """Tier → tenant, begin and end of jobs that run or ended within the decay time."""
        harness.every(SCHEDULE_SECONDS, self.schedule)

    def submit(self, job: Job) -> None:
        def send() -> None:
            while True:  # with a client token, until there is a response
                try:
                    self.harness.call("batch:SubmitServiceJob")
                    return
                except (Throttled, OutcomeUnknown):
                    continue

        self.harness.invoke(send)
        self.jobs[job.tier].setdefault(job.tenant_id, deque()).append(job)

    def schedule(self) -> None:
        now = self.harness.seconds
        for tier, quota in self.quotas.items():
            recent = self.running[tier] = [r for r in self.running[tier] if r[2] > now - DECAY_SECONDS]
            free = quota - sum(end > now for _, _, end in recent)
            waiting = {tenant: jobs for tenant, jobs in self.jobs[tier].items() if jobs}
            if free <= 0 or not waiting:
                continue
            usage = dict.fromkeys(waiting, 0.0)
            for tenant, begin, end in recent:
                if tenant in usage:
                    usage[tenant] += min(end, now) - max(begin, now - DECAY_SECONDS)
            shares = {tenant: used / self.weights.get(tenant, 1) for tenant, used in usage.items()}
            picked = dict.fromkeys(waiting, 0)
            while free > 0 and waiting:
                tenant = min(waiting, key=lambda t: (shares[t], picked[t] / self.weights.get(t, 1), t))
                job = waiting[tenant].popleft()
                picked[tenant] += 1
                if not waiting[tenant]:
                    del waiting[tenant]
                shares[tenant] += SCHEDULE_SECONDS / self.weights.get(tenant, 1)
                self.harness.troubled, troubled = False, self.harness.troubled
                self.harness.calls["sagemaker:StartPipelineExecution"] -= 1  # a call that Batch itself makes
                self.harness.start(f"{tier}-{job.number}", f"token {job.number}", job)
                self.harness.spent, self.harness.troubled = 0.0, troubled
                recent.append((tenant, now, now + job.seconds))
                free -= 1

    def waiting(self) -> int:
        return sum(len(jobs) for tenants in self.jobs.values() for jobs in tenants.values())

    def leaked(self) -> int:
        return 0
