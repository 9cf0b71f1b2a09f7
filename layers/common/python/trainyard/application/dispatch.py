"""Dispatch: one pass reads, decides, commits and starts. Only the dispatcher may start pipelines."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from trainyard.application.ports import (
    Announcements,
    DataSets,
    Executions,
    Policies,
    Receipts,
    Requests,
    Tenants,
    WaitingRoom,
)
from trainyard.domain import names
from trainyard.domain.admission import Decision, Snapshot, Verdict, decide
from trainyard.domain.errors import (
    Conflict,
    OutcomeUnknown,
    Refused,
    StartDelayed,
    StartInvalid,
    Throttled,
)
from trainyard.domain.parameters import Images, pipeline_parameters
from trainyard.domain.policy import Policy
from trainyard.domain.requests import Outcome, Request, State

ADMISSIONS_MAX = 25
"""Of one transaction: a request, its place and its tenant queue each, and the ledger, stay below the 100
actions of a TransactWriteItems (DynamoDB developer guide, "Service quotas")."""

ROUNDS_MAX = 20
"""Of reading, deciding and committing in one pass; the timer and the bell bring the next pass."""

START_OVERDUE = timedelta(minutes=2)
"""After this long an admitted request's execution is looked for, and started again with the same token if there
is none. Longer than a pass may take, so that the pass that admitted it is over."""


class Started(StrEnum):
    RUNNING = "RUNNING"
    DELAYED = "DELAYED"
    """Back in the queue: SageMaker could not take it now."""
    FAILED = "FAILED"
    """SageMaker, or the data, will never let it start."""
    UNKNOWN = "UNKNOWN"
    """Throttled or timed out: the slot stays taken, and the same token is used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What became of the start of one admitted request."""

    request: Request
    result: Started
    detail: str | None = None


@dataclass(slots=True, kw_only=True)
class PassReport:
    """What one pass saw and did."""

    policy: Policy
    snapshot: Snapshot
    decisions: list[Decision]
    starts: list[Start] = field(default_factory=list)
    conflicts: int = 0

    @property
    def waits(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.verdict is Verdict.WAIT]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    policies: Policies
    tenants: Tenants
    waiting_room: WaitingRoom
    requests: Requests
    data_sets: DataSets
    executions: Executions
    receipts: Receipts
    announcements: Announcements
    images: Images
    output_key_id: str

    def run_pass(self, now: datetime) -> PassReport:
        """Fill the free slots; returns when nobody more may go.

        Safe beside other passes: a commit holds only for the ledger that it was decided on.
        """
        policy = self.policies.current()
        # 0. What was admitted but, as far as we know, never started: found, or started once more.
        overdue = self.requests.starting_since(now - START_OVERDUE)
        starts = [self._start(request, policy, now, again=True) for request in overdue]
        conflicts = 0
        for _ in range(ROUNDS_MAX):
            # 1. Read: ledger, and the heads of the tenant queues.
            snapshot = self.waiting_room.snapshot(policy, now)
            # 2. Decide, purely.
            decisions = decide(snapshot, policy, admissions_max=ADMISSIONS_MAX)
            admissions = [decision for decision in decisions if decision.verdict is Verdict.ADMIT]
            if not admissions:
                break
            # 3. Commit: all of them admitted and their slots taken, or nothing.
            try:
                self.waiting_room.commit(admissions, snapshot, policy, now)
            except Conflict:
                conflicts += 1
                continue
            # 4. Start.
            starts += self._start_all(admissions, policy, now)
        return PassReport(
            policy=policy, snapshot=snapshot, decisions=decisions, starts=starts, conflicts=conflicts
        )

    def _start_all(self, admissions: Sequence[Decision], policy: Policy, now: datetime) -> list[Start]:
        admitted = (self.requests.get(decision.request.request_id) for decision in admissions)
        return [self._start(request, policy, now) for request in admitted if request is not None]

    def _start(self, request: Request, policy: Policy, now: datetime, *, again: bool = False) -> Start:
        """Start one admitted request, and settle what SageMaker answers.

        A request that fails in an unforeseen way keeps its slot and holds up no other.
        """
        try:
            return self._settle_start(request, policy, now, again=again)
        except Exception as error:  # any one request's trouble is its own
            return Start(request=request, result=Started.UNKNOWN, detail=f"{type(error).__name__}: {error}")

    def _settle_start(self, request: Request, policy: Policy, now: datetime, *, again: bool) -> Start:
        name = names.display_name(request.request_id, request.attempt)
        try:
            found = self.executions.find(name, since=request.admitted_at or now) if again else None
            execution_arn = found or self._start_execution(request, policy)
        except StartDelayed as error:
            self._put_back(request, now + policy.start_retry_delay, str(error), now)
            return Start(request=request, result=Started.DELAYED, detail=str(error))
        except (StartInvalid, Refused) as error:
            self._fail(request, str(error), now)
            return Start(request=request, result=Started.FAILED, detail=str(error))
        except (Throttled, OutcomeUnknown) as error:
            return Start(request=request, result=Started.UNKNOWN, detail=str(error))
        running = replace(request, state=State.RUNNING, started_at=now, execution_arn=execution_arn)
        if self.waiting_room.mark_running(request.request_id, request.attempt, execution_arn, now):
            self._tell(running, now)
        return Start(request=running, result=Started.RUNNING)

    def _start_execution(self, request: Request, policy: Policy) -> str:
        tenant = self.tenants.get(request.tenant_id)
        tier = policy.tier(request.tier)
        if tenant is None or tier is None:
            raise StartInvalid(f"tenant {request.tenant_id} or tier {request.tier} no longer exists")
        data_bytes = self.data_sets.write_manifest(tenant, request)
        if data_bytes > tier.data_bytes_max:
            raise Refused(
                f"the data set has {data_bytes:,} bytes in all, tier {tier.name} takes at most "
                f"{tier.data_bytes_max:,}"
            )
        return self.executions.start(
            name=names.display_name(request.request_id, request.attempt),
            token=names.start_token(request.request_id, request.attempt),
            parameters=pipeline_parameters(
                request,
                tenant,
                tier,
                data_bytes=data_bytes,
                images=self.images,
                output_key_id=self.output_key_id,
            ),
        )

    def _put_back(self, request: Request, due_at: datetime, reason: str, now: datetime) -> None:
        for changed in self.waiting_room.requeue(request, due_at=due_at, reason=reason, now=now):
            self._tell(changed, now)

    def _fail(self, request: Request, reason: str, now: datetime) -> None:
        if self.waiting_room.finish(request, State.FAILED, reason=reason, outcome=Outcome(), now=now):
            self._tell(replace(request, state=State.FAILED, reason=reason, finished_at=now), now)

    def _tell(self, request: Request, now: datetime) -> None:
        """Tell the tenant and the bus; a receipt that cannot be written now is at the request's next change."""
        with suppress(Conflict, Throttled, OutcomeUnknown):
            tenant = self.tenants.get(request.tenant_id)
            if tenant is not None:
                self.receipts.write(tenant, request, now)
            self.announcements.announce(request)
