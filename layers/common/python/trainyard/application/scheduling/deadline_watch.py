"""Deadline watch: once a minute, finds waiting requests whose deadlines are at risk, or will be missed.

At risk: with runtimes that three of four runs do not exceed, the request would end too late, in three checks in a
row. Will be missed: it would end too late even if it started now and took as long as expected. Each is published
once. A request that arrived too late for its deadline is no alarm.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from trainyard.application.scheduling.explain import cure_of
from trainyard.application.scheduling.look_ahead import admissions_ahead, expected_runtimes
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.domain.admission import decide
from trainyard.domain.policy import Policy
from trainyard.domain.queues import QueueEntry
from trainyard.domain.requests import Estimate, Request, State
from trainyard.domain.scheduling import Reason, Snapshot
from trainyard.persistence.outbox import deadline_entry
from trainyard.persistence.policies import Policies

RISK_MINUTES = 3
"""For so many minutes in a row a deadline must be at risk before it is published."""

THREE_QUARTERS = 0.526
"""Where the 75th percentile of a lognormal runtime lies between its median (0) and its 90th percentile (1), in
logarithms."""

AT_RISK, MISSED = "deadline at risk", "deadline missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineAlarm:
    """What was published about a request's deadline."""

    what: str
    request: Request
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineWatch:
    policies: Policies
    scheduler: Scheduler

    def watch(self, now: datetime) -> list[DeadlineAlarm]:
        """Note how the deadlines of waiting requests stand, and put what is to be published into the outbox.

        Looks at the queues that passes read first, and at the first requests of each. Safe at any time.
        """
        policy = self.policies.current()
        if not self.scheduler.tables.queues.any_urgent(policy.tiers, now):
            return []
        snapshot = self.scheduler.admitter.overview(policy, now)
        policy = policy.at(now, snapshot.ledger.epoch)
        entries = {entry.request_id: entry for entry in _with_deadlines(snapshot)}
        requests = self.scheduler.tables.requests.get_all(list(entries))
        waiting = [request for request in requests if request.state is State.QUEUED and request.deadline]
        starts = self._starts(snapshot, policy, now, set(entries))
        reasons = _reasons(snapshot, policy, now)
        alarms: list[DeadlineAlarm] = []
        for request in waiting:
            reason = reasons.get((request.tier, request.tenant_id), Reason.TURN)
            alarms += self._check(
                request, entries[request.request_id], starts.get(request.request_id), reason, now
            )
        return alarms

    def _check(
        self, request: Request, entry: QueueEntry, start: datetime | None, reason: Reason, now: datetime
    ) -> Iterator[DeadlineAlarm]:
        """Note how one deadline stands; yield what is published about it."""
        assert request.deadline is not None, "only those with a deadline are checked"
        late = start is None or start + three_of_four(request.expected) > request.deadline
        missed = entry.is_hopeless(now)
        minutes = request.risk_minutes
        if minutes < RISK_MINUTES:  # once it is published, it stays so
            minutes = minutes + 1 if late else 0
        whats = [AT_RISK] if minutes == RISK_MINUTES > request.risk_minutes and not missed else []
        whats += [MISSED] if missed and not request.miss_published else []
        if (minutes, missed) == (request.risk_minutes, request.miss_published):
            return
        values = _values(request, start, reason)
        also = [deadline_entry(what, request.request_id, values, now) for what in whats]
        published = missed or request.miss_published
        if self.scheduler.tables.requests.note_deadline(
            request, *also, risk_minutes=minutes, miss_published=published
        ):
            yield from (DeadlineAlarm(what=what, request=request, reason=reason.value) for what in whats)

    def _starts(self, snapshot: Snapshot, policy: Policy, now: datetime, wanted: set[str]) -> dict[str, datetime]:
        """Return request → when it starts if runs take as long as three of four do."""
        expected = expected_runtimes(self.scheduler, snapshot)

        def duration(request_id: str, tier_name: str) -> timedelta:
            tier = policy.tier(tier_name)
            longest = tier.run_time_max if tier else timedelta(0)
            return three_of_four(expected[request_id]) if request_id in expected else longest

        starts: dict[str, datetime] = {}
        for at, decision in admissions_ahead(snapshot, policy, now, duration):
            if decision.entry.request_id in wanted:
                starts[decision.entry.request_id] = at
                if len(starts) == len(wanted):
                    break
        return starts


def three_of_four(expected: Estimate | None) -> timedelta:
    """Return the runtime that three of four runs do not exceed."""
    if expected is None:
        return timedelta(0)
    spread = max(expected.seconds_p90, 1) / max(expected.seconds, 1)
    return timedelta(seconds=expected.seconds * max(spread, 1.0) ** THREE_QUARTERS)


def _with_deadlines(snapshot: Snapshot) -> Iterator[QueueEntry]:
    for waiting in snapshot.queues:
        for entries in waiting.entries.values():
            yield from (entry for entry in entries if entry.latest_start is not None)


def _reasons(snapshot: Snapshot, policy: Policy, now: datetime) -> Mapping[tuple[str, str], Reason]:
    """Return tier and tenant → why the first of its urgent requests waits."""
    waits = decide(snapshot, policy, now).waits
    return {(wait.queue.tier, wait.queue.tenant_id): wait.reason for wait in waits if wait.entry.is_urgent}


def _values(request: Request, start: datetime | None, reason: Reason) -> dict[str, Any]:
    assert request.deadline is not None, "only those with a deadline are published"
    return {
        "request_id": request.request_id,
        "tenant_id": request.tenant_id,
        "tier": request.tier,
        "data_set": request.data_set,
        "deadline": request.deadline.isoformat(),
        **({"expected_start": start.isoformat()} if start else {}),
        "reason": reason.value,
        "would_help": cure_of(reason, request.tier, request.tenant_id),
    }
