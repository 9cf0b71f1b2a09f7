"""All ports over one store in memory: a transaction checks every condition before it changes anything."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from trainyard.application.ports import Backlog, Enlisted, Enlistment, ExecutionReport
from trainyard.domain.admission import Decision, Ledger, Snapshot, TenantQueue, WaitingRequest
from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.newest import Wait, is_newer, wait_after
from trainyard.domain.policy import Policy
from trainyard.domain.receipts import progress_of, receipt_of
from trainyard.domain.requests import HOLDING, Content, Outcome, Request, State, Submission
from trainyard.domain.tenants import Tenant, TrainOn


@dataclass
class _Queue:
    running: int = 0
    revision: int = 0
    places: dict[str, Request] = field(default_factory=dict)
    """Data set → the request that waits."""


class MemoryWaitingRoom:
    """Implements WaitingRoom, Pause and Requests."""

    def __init__(self) -> None:
        self.requests: dict[str, Request] = {}
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._version = 0
        self._used: dict[str, int] = {}
        self._paused = False

    # --- WaitingRoom --------------------------------------------------------------------------------------

    def enlist(self, submission: Submission, policy: Policy, now: datetime) -> Enlisted:
        if submission.request_id in self.requests:
            known = self.requests[submission.request_id]
            older = self.requests[known.supersedes] if known.supersedes else None
            return Enlisted(kind=Enlistment.DUPLICATE, request=known, superseded=older)
        queue = self._queue(submission.tier, submission.tenant_id)
        waiting = queue.places.get(submission.data_set)
        wait = wait_after(
            now,
            quiet_period=policy.quiet_period,
            delay_max=policy.delay_max,
            waiting=Wait(waiting.arrived_at, waiting.due_at) if waiting else None,
        )
        request = Request(
            **{name: getattr(submission, name) for name in Submission.__dataclass_fields__},
            state=State.QUEUED,
            arrived_at=wait.arrived_at,
            due_at=wait.due_at,
        )
        queue.revision += 1
        if waiting is None:
            self._place(queue, request)
            return Enlisted(kind=Enlistment.QUEUED, request=request)
        newer = is_newer(request.content, waiting.content)
        winner, loser = (request, waiting) if newer else (waiting, request)
        winner = replace(winner, arrived_at=wait.arrived_at, due_at=wait.due_at)
        winner = replace(winner, supersedes=loser.request_id) if newer else winner
        loser = replace(loser, state=State.SUPERSEDED, superseded_by=winner.request_id, finished_at=now)
        self.requests[loser.request_id] = loser
        self._place(queue, winner)
        return Enlisted(
            kind=Enlistment.REPLACED if newer else Enlistment.OUTDATED,
            request=winner if newer else loser,
            superseded=loser if newer else None,
        )

    def snapshot(self, policy: Policy, now: datetime) -> Snapshot:
        ledger = self.ledger()
        queues: list[TenantQueue] = []
        for (tier_name, tenant_id), queue in sorted(self._queues.items()):
            tier = policy.tier(tier_name)
            if ledger.paused or tier is None or not queue.places:
                continue
            admissible = min(
                tier.quota - ledger.used_by_tier.get(tier_name, 0),
                policy.running_max - ledger.used,
                tier.running_max_per_tenant - queue.running,
            )
            places = sorted(queue.places.values(), key=lambda r: (r.due_at, r.arrived_at, r.request_id))
            due = [request for request in places[: max(admissible, 0)] if request.due_at <= now]
            if due:
                queues.append(
                    TenantQueue(
                        tenant_id=tenant_id,
                        tier=tier_name,
                        revision=queue.revision,
                        running=queue.running,
                        waiting=tuple(map(_waiting, due)),
                        next_up=_waiting(places[len(due)]) if len(places) > len(due) else None,
                    )
                )
        return Snapshot(ledger=ledger, queues=tuple(queues))

    def commit(self, admissions: Sequence[Decision], snapshot: Snapshot, policy: Policy, now: datetime) -> None:
        self._check_commit(admissions, snapshot, policy)
        self._version += 1
        for queue in {id(d.queue): d.queue for d in admissions}.values():
            self._queue(queue.tier, queue.tenant_id).revision += 1
        for decision in admissions:
            left = self._queue(decision.queue.tier, decision.queue.tenant_id)
            left.running += 1
            self._used[decision.queue.tier] = self._used.get(decision.queue.tier, 0) + 1
            request = left.places.pop(decision.request.data_set)
            self.requests[request.request_id] = replace(
                request, state=State.ADMITTED, admitted_at=now, attempt=request.attempt + 1, reason=None
            )

    def _check_commit(self, admissions: Sequence[Decision], snapshot: Snapshot, policy: Policy) -> None:
        """Raise Conflict unless every condition of the transaction holds."""
        if self._version != snapshot.ledger.version or self._paused:
            raise Conflict("the ledger has moved")
        if sum(self._used.values()) + len(admissions) > policy.running_max:
            raise Conflict("the account's limit would be exceeded")
        for decision in admissions:
            tier = policy.tier(decision.queue.tier)
            assert tier is not None, "decide admits only tiers of the policy"
            of_tier = sum(d.queue.tier == tier.name for d in admissions)
            of_tenant = sum(d.queue.tenant_id == decision.queue.tenant_id for d in admissions)
            queue = self._queue(tier.name, decision.queue.tenant_id)
            place = queue.places.get(decision.request.data_set)
            if self._used.get(tier.name, 0) + of_tier > tier.quota:
                raise Conflict("the tier's quota would be exceeded")
            if (
                queue.revision != decision.queue.revision
                or queue.running + of_tenant > tier.running_max_per_tenant
            ):
                raise Conflict("the tenant queue has moved, or its cap would be exceeded")
            if place is None or place.request_id != decision.request.request_id:
                raise Conflict("the request no longer waits")

    def requeue(self, request: Request, *, due_at: datetime, reason: str, now: datetime) -> list[Request]:
        if not self._holds(request, State.ADMITTED):
            return []
        queue = self._queue(request.tier, request.tenant_id)
        holder = queue.places.get(request.data_set)
        if holder is not None and is_newer(holder.content, request.content):
            ended = replace(
                request,
                state=State.SUPERSEDED,
                superseded_by=holder.request_id,
                reason=reason,
                finished_at=now,
            )
            self._release(ended)
            return [ended]
        queued = replace(
            request, state=State.QUEUED, due_at=due_at, reason=reason, admitted_at=None, started_at=None
        )
        self._release(queued)
        queue.revision += 1
        self._place(queue, queued)
        if holder is None:
            return [queued]
        older = replace(holder, state=State.SUPERSEDED, superseded_by=queued.request_id, finished_at=now)
        self.requests[older.request_id] = older
        return [queued, older]

    def mark_running(self, request_id: str, attempt: int, execution_arn: str, now: datetime) -> bool:
        request = self.requests[request_id]
        if request.attempt != attempt or request.state is not State.ADMITTED:
            return False
        self.requests[request_id] = replace(
            request, state=State.RUNNING, started_at=now, execution_arn=execution_arn
        )
        return True

    def finish(
        self, request: Request, state: State, *, reason: str | None, outcome: Outcome, now: datetime
    ) -> bool:
        if not self._holds(request, *HOLDING):
            return False
        known = self.requests[request.request_id]
        self._release(
            replace(
                known,
                state=state,
                reason=reason,
                outcome=outcome,
                finished_at=now,
                execution_arn=request.execution_arn or known.execution_arn,
            )
        )
        return True

    def cancel(self, request: Request, now: datetime) -> bool:
        queue = self._queue(request.tier, request.tenant_id)
        place = queue.places.get(request.data_set)
        if place is None or place.request_id != request.request_id:
            return False
        del queue.places[request.data_set]
        queue.revision += 1
        self.requests[request.request_id] = replace(place, state=State.CANCELLED, finished_at=now)
        return True

    def backlog(self, policy: Policy) -> dict[str, Backlog]:
        found: dict[str, Backlog] = {}
        for tier in policy.tiers:
            queues = [queue for (name, _), queue in self._queues.items() if name == tier.name and queue.places]
            heads = [min(q.places.values(), key=lambda r: (r.due_at, r.arrived_at)).arrived_at for q in queues]
            found[tier.name] = Backlog(
                waiting=sum(len(queue.places) for queue in queues), oldest_arrived_at=min(heads, default=None)
            )
        return found

    def set_paused(self, paused: bool) -> None:
        self._paused = paused
        self._version += 1

    def ledger(self) -> Ledger:
        return Ledger(
            version=self._version,
            used=sum(self._used.values()),
            used_by_tier=dict(self._used),
            paused=self._paused,
        )

    # --- Requests -----------------------------------------------------------------------------------------

    def get(self, request_id: str) -> Request | None:
        return self.requests.get(request_id)

    def add_rejected(self, request: Request) -> bool:
        if request.request_id in self.requests:
            return False
        self.requests[request.request_id] = request
        return True

    def note_outcome(self, request_id: str, attempt: int, outcome: Outcome) -> bool:
        request = self.requests.get(request_id)
        if request is None or request.attempt != attempt:
            return False
        self.requests[request_id] = replace(request, outcome=outcome)
        return True

    def starting_since(self, before: datetime) -> list[Request]:
        return [
            request
            for request in self.requests.values()
            if request.state is State.ADMITTED and request.admitted_at is not None and request.admitted_at < before
        ]

    # --- parts --------------------------------------------------------------------------------------------

    def _queue(self, tier: str, tenant_id: str) -> _Queue:
        return self._queues.setdefault((tier, tenant_id), _Queue())

    def _place(self, queue: _Queue, request: Request) -> None:
        queue.places[request.data_set] = request
        self.requests[request.request_id] = request

    def _holds(self, request: Request, *states: State) -> bool:
        known = self.requests.get(request.request_id)
        return known is not None and known.state in states and known.attempt == request.attempt

    def _release(self, request: Request) -> None:
        self.requests[request.request_id] = request
        self._queue(request.tier, request.tenant_id).running -= 1
        self._used[request.tier] -= 1


def _waiting(request: Request) -> WaitingRequest:
    return WaitingRequest(
        request_id=request.request_id,
        data_set=request.data_set,
        arrived_at=request.arrived_at,
        due_at=request.due_at,
    )


class MemoryTenants:
    def __init__(self, *tenants: Tenant) -> None:
        self._tenants = {tenant.tenant_id: tenant for tenant in tenants}

    def get(self, tenant_id: str) -> Tenant | None:
        return self._tenants.get(tenant_id)

    def owner_of(self, bucket: str, key: str) -> Tenant | None:
        owners = [t for t in self._tenants.values() if t.bucket == bucket and key.startswith(t.root)]
        return owners[0] if owners else None

    def put(self, tenant: Tenant) -> None:
        self._tenants[tenant.tenant_id] = tenant


class MemoryPolicies:
    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def current(self) -> Policy:
        return self.policy


class MemoryTierQueues:
    """Keeps what was sent; refuses the requests named in `full`."""

    def __init__(self) -> None:
        self.sent: list[Submission] = []
        self.full: set[str] = set()

    def send(self, submissions: Sequence[Submission]) -> set[str]:
        self.sent += [s for s in submissions if s.request_id not in self.full]
        return {s.request_id for s in submissions} & self.full


class MemoryBell:
    def __init__(self) -> None:
        self.rings: list[datetime | None] = []
        """None for a ring at once, else when."""

    def ring(self) -> None:
        self.rings.append(None)

    def ring_at(self, when: datetime, now: datetime) -> None:
        self.rings.append(when)


class MemoryDataSets:
    """Objects by tenant and data set, oldest first."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], list[Content]] = {}

    def content_of(self, tenant: Tenant, data_set: str) -> Content | None:
        objects = self.objects.get((tenant.tenant_id, data_set), [])
        return objects[-1] if objects else None

    def names(self, tenant: Tenant) -> list[str]:
        return sorted(data_set for owner, data_set in self.objects if owner == tenant.tenant_id)

    def write_manifest(self, tenant: Tenant, request: Request) -> int:
        if tenant.settings_for(request.data_set).train_on is TrainOn.NEWEST_OBJECT:
            return request.content.size_bytes
        objects = self.objects.get((tenant.tenant_id, request.data_set), [])
        if not objects:
            raise Refused(f"there is no data left below incoming/{request.data_set}/")
        return sum(content.size_bytes for content in objects)


class MemoryExecutions:
    """Starts by token; `faults` are raised first, one per call, "lost" ones after they took effect."""

    def __init__(self) -> None:
        self.started: dict[str, tuple[str, dict[str, str]]] = {}
        """Token → display name and parameters."""
        self.faults: list[tuple[Exception, bool]] = []
        self.calls = 0
        self.lists_late = False
        """Whether `find` does not see what was started yet."""
        self.stopped: list[str] = []

    def start(self, *, name: str, token: str, parameters: dict[str, str]) -> str:
        self.calls += 1
        fault, lost = self.faults.pop(0) if self.faults else (None, False)
        if fault is None or lost:
            self.started.setdefault(token, (name, parameters))
        if fault is not None:
            raise fault
        identity = hashlib.sha256(token.encode()).hexdigest()[:12]
        return f"arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/{identity}"

    def find(self, name: str, *, since: datetime) -> str | None:
        if self.lists_late:
            return None
        return next((_arn(token) for token, (known, _) in self.started.items() if known == name), None)

    def stop(self, execution_arn: str) -> None:
        self.stopped.append(execution_arn)


def _arn(token: str) -> str:
    identity = hashlib.sha256(token.encode()).hexdigest()[:12]
    return f"arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/{identity}"


class MemoryReports:
    def __init__(self) -> None:
        self.report = ExecutionReport(cost_usd=None, failed_step=None, failure=None)

    def read(self, execution_arn: str) -> ExecutionReport:
        return self.report


class MemoryResults:
    def __init__(self, outcome: Outcome | None = None) -> None:
        self.outcome = outcome or Outcome()

    def read(self, tenant: Tenant, request: Request) -> Outcome:
        return self.outcome


class MemoryReceipts:
    """Keeps the newest receipt of each request, by the same order as the real one."""

    def __init__(self) -> None:
        self.written: dict[str, dict[str, object]] = {}
        self._progress: dict[str, tuple[int, int]] = {}

    def write(self, tenant: Tenant, request: Request, now: datetime) -> None:
        if self._progress.get(request.request_id, (-1, -1)) < progress_of(request):
            self._progress[request.request_id] = progress_of(request)
            self.written[request.request_id] = receipt_of(request)


class MemoryAnnouncements:
    def __init__(self) -> None:
        self.announced: list[Request] = []

    def announce(self, request: Request) -> None:
        self.announced.append(request)
