"""A counter without owners, decremented by events (nasa/cumulus, priority semaphores).

An execution is started if its tier's counter can be incremented without exceeding the maximum; each end event
decrements it. The counter does not know who incremented it. If a start fails, the counter is decremented and the
message is redelivered. Starts are tried at each arrival and each end, and every minute.
"""

from collections.abc import Mapping

from benchmarks.harness import Execution, Harness, Message, Queue
from simulation.flow import Job
from trainyard.domain.errors import OutcomeUnknown, Throttled

VISIBILITY_SECONDS = 60.0


class Counter:
    def __init__(self, harness: Harness, quotas: Mapping[str, int]) -> None:
        self.harness, self.quotas = harness, quotas
        self.queues = {tier: Queue(harness, VISIBILITY_SECONDS) for tier in quotas}
        self.counts = dict.fromkeys(quotas, 0)
        self.tokens = 0
        harness.ended = self.end
        harness.every(60.0, self.all_tiers)

    def submit(self, job: Job) -> None:
        self.queues[job.tier].send(job)
        self.harness.invoke(lambda: self.fill(job.tier))

    def all_tiers(self) -> None:
        for tier in self.quotas:
            self.harness.invoke(lambda tier=tier: self.fill(tier))  # type: ignore[misc]

    def end(self, execution: Execution) -> None:
        self.harness.invoke(lambda: self._give_back(execution.job.tier))
        self.harness.invoke(lambda: self.fill(execution.job.tier))

    def _give_back(self, tier: str) -> None:
        for _ in range(3):  # a Lambda's retries
            try:
                self.harness.call("dynamodb:UpdateItem", lambda: self._add(tier, -1))
                return
            except OutcomeUnknown:
                continue  # an event is handled at least once
            except Throttled:
                continue

    def _add(self, tier: str, change: int) -> bool:
        if change > 0 and self.counts[tier] >= self.quotas[tier]:
            return False
        self.counts[tier] += change
        return True

    def fill(self, tier: str) -> None:
        """Start executions until the counter is at its maximum."""
        while batch := self.queues[tier].poll(1):
            (message,) = batch
            if not self.harness.call("dynamodb:UpdateItem", lambda: self._add(tier, 1)):
                message.visible_at = self.harness.agenda.now  # returned at once, to the design's advantage
                return
            self._start(tier, message)

    def _start(self, tier: str, message: Message) -> None:
        self.tokens += 1
        try:
            self.harness.start(f"{tier}-{message.body.number}", f"token {self.tokens}", message.body)
        except (Throttled, OutcomeUnknown):
            self.harness.call("dynamodb:UpdateItem", lambda: self._add(tier, -1))
            return
        self.queues[tier].delete(message)

    def waiting(self) -> int:
        return sum(len(queue.messages) for queue in self.queues.values())

    def leaked(self) -> int:
        """Return by how much the counters differ from the running executions."""
        return self.harness.amiss(self.counts)
