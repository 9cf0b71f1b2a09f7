"""A semaphore in Step Functions: each request is a state machine that polls for a slot, then for the end.

AWS Compute blog, "Controlling concurrency in distributed systems using AWS Step Functions": a conditional update
takes the lock with its owner's name; otherwise, the state machine waits three seconds and tries again; the owner
releases the lock, or a clean-up by events does if the owner has died. There is no integration that waits for a
pipeline, so the end is polled for every thirty seconds. Standard workflows repeat a step whose response is lost
with the same input, so nothing is started twice. Waiting requests are served in no order: the first one that
polls gets the slot. The polls of n waiting requests are drawn together: the next one comes after an exponential
time with a mean of 3 / n seconds.
"""

from collections.abc import Mapping

from benchmarks.harness import Execution, Harness
from simulation.flow import Job

POLL_SECONDS, END_POLL_SECONDS = 3.0, 30.0
POLLS_PER_SECOND_MAX = 1000.0
"""Writes of one DynamoDB item, including failed ones (developer guide, "Partitions")."""
TRANSITIONS_OF_A_POLL, TRANSITIONS_OF_A_RUN, TRANSITIONS_OF_AN_END_POLL = 3, 6, 3


class Semaphore:
    def __init__(self, harness: Harness, quotas: Mapping[str, int]) -> None:
        self.harness, self.quotas = harness, quotas
        self.waiting_in: dict[str, list[Job]] = {tier: [] for tier in quotas}
        self.owners: dict[str, set[int]] = {tier: set() for tier in quotas}
        self.planned = dict.fromkeys(quotas, False)
        self.counted_until = dict.fromkeys(quotas, 0.0)
        self.polls = 0.0

    def submit(self, job: Job) -> None:
        self._count_polls(job.tier)
        self.waiting_in[job.tier].append(job)
        self.harness.calls["states:StateTransition"] += TRANSITIONS_OF_A_RUN
        self._plan(job.tier)

    def _count_polls(self, tier: str) -> None:
        """Count the polls of waiting requests since the last count: an update, and a read of the lock's owner."""
        now = self.harness.seconds
        rate = min(len(self.waiting_in[tier]) / POLL_SECONDS, POLLS_PER_SECOND_MAX)
        polls = rate * (now - self.counted_until[tier])
        self.counted_until[tier] = now
        self.polls += polls

    def settle(self) -> None:
        """Count the polls until now."""
        for tier in self.quotas:
            self._count_polls(tier)
        whole = int(self.polls)
        self.polls -= whole
        self.harness.calls["dynamodb:UpdateItem"] += whole
        self.harness.calls["dynamodb:GetItem"] += whole
        self.harness.calls["states:StateTransition"] += TRANSITIONS_OF_A_POLL * whole

    def _plan(self, tier: str) -> None:
        waiting, free = self.waiting_in[tier], self.quotas[tier] - len(self.owners[tier])
        if waiting and free > 0 and not self.planned[tier]:
            self.planned[tier] = True
            rate = min(len(waiting) / POLL_SECONDS, POLLS_PER_SECOND_MAX)
            self.harness.agenda.after(self.harness.random.expovariate(rate), lambda: self._acquire(tier))

    def _acquire(self, tier: str) -> None:
        self.planned[tier] = False
        self._count_polls(tier)
        waiting = self.waiting_in[tier]
        if waiting and len(self.owners[tier]) < self.quotas[tier]:
            job = waiting.pop(self.harness.random.randrange(len(waiting)))
            self.owners[tier].add(job.number)
            self.harness.calls["dynamodb:UpdateItem"] += 1
            self._start(job)
        self._plan(tier)

    def _start(self, job: Job) -> None:
        found: list[Execution] = []

        def start() -> None:
            found.append(self.harness.start(f"{job.tier}-{job.number}", f"token {job.number}", job))

        self.harness.invoke(start)
        if found:
            self.harness.agenda.after(END_POLL_SECONDS, lambda: self._look(found[0]))
        else:  # the step is repeated
            self.harness.agenda.after(2.0, lambda: self._start(job))

    def _look(self, execution: Execution) -> None:
        ended: list[bool] = []
        self.harness.calls["states:StateTransition"] += TRANSITIONS_OF_AN_END_POLL
        self.harness.invoke(lambda: ended.append(self.harness.describe(execution)))
        if ended == [True]:
            tier = execution.job.tier
            self._count_polls(tier)
            self.harness.calls["dynamodb:UpdateItem"] += 1
            self.owners[tier].discard(execution.job.number)
            self._plan(tier)
        else:
            self.harness.agenda.after(END_POLL_SECONDS, lambda: self._look(execution))

    def waiting(self) -> int:
        return sum(map(len, self.waiting_in.values()))

    def leaked(self) -> int:
        self.settle()
        return self.harness.amiss({tier: len(owners) for tier, owners in self.owners.items()})
