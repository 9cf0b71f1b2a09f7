"""The blog's design: a timer counts executions with ListPipelineExecutions and fills tiers in order of arrival.

AWS Machine Learning blog, multi-tenant machine learning as a service with SageMaker Pipelines: a queue per tier; a
Lambda on a timer starts executions while a tier runs fewer than its limit, by SageMaker's own APIs. Here, one list
serves all tiers of a pass, to the design's advantage. The SDK creates a new token for each call.
"""

from collections.abc import Mapping
from datetime import timedelta

from benchmarks.harness import Harness, Message, Queue
from simulation.flow import Job
from trainyard.domain.errors import OutcomeUnknown, Throttled

TIMER_SECONDS = 60.0
VISIBILITY_SECONDS = 120.0


class Blog:
    def __init__(self, harness: Harness, quotas: Mapping[str, int], longest: float) -> None:
        self.harness, self.quotas, self.longest = harness, quotas, longest
        self.queues = {tier: Queue(harness, VISIBILITY_SECONDS) for tier in quotas}
        self.tokens = 0
        harness.every(TIMER_SECONDS, self.run_pass)

    def submit(self, job: Job) -> None:
        self.queues[job.tier].send(job)

    def run_pass(self) -> None:
        listed = self.harness.listed(self.harness.now - timedelta(seconds=self.longest))
        for tier, quota in self.quotas.items():
            free = quota - sum(e.runs_at(self.harness.agenda.now) for e in listed if e.job.tier == tier)
            while free > 0 and (batch := self.queues[tier].poll(min(free, 10))):
                for message in batch:
                    self._start(tier, message)
                free -= len(batch)

    def _start(self, tier: str, message: Message) -> None:
        self.tokens += 1
        try:
            self.harness.start(f"{tier}-{message.body.number}", f"token {self.tokens}", message.body)
            self.queues[tier].delete(message)
        except (Throttled, OutcomeUnknown):
            return  # the message is redelivered

    def waiting(self) -> int:
        return sum(len(queue.messages) for queue in self.queues.values())

    def leaked(self) -> int:
        return 0  # it has no counter
